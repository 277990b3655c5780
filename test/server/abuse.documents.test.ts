// Documents and inputs of somebody who means no good, or whose program is broken: what they may cost, reach and forge. The
// answer is lawful each time, one of the closed list of codes or none, and the broker hears of nothing that was refused.

import { Writable } from 'node:stream'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Broker } from '../../src/brokers/broker.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'
import { createIdentity } from '../../src/server/identity.ts'
import type { Commands } from '../../src/trading/placeOrder.ts'
import { createCursors } from '../../src/graph/orders/cursors.ts'
import { createSchema } from '../../src/graph/schema.ts'
import { createServer } from '../../src/server/server.ts'
import { createLog } from '../../src/server/telemetry.ts'
import { expectLawful, limitBuy, startForTest, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

/** One that shows its schema to nobody. */
let closed: Harness

beforeAll(async () => {
  closed = await startHarness({ INTROSPECTION: 'off', GRAPHIQL: 'off' })
})
afterAll(() => closed.close())
beforeEach(() => closed.clearCalls())

const placeDocument = `mutation ($input: PlaceOrderInput!) {
  placeOrder(input: $input) { outcome orderId ... on OrderInvalid { problems { field code } } }
}`

/** Posts a body as it is. */
async function post(harness: Harness, body: object, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await harness.fetch(
    new Request(harness.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    }),
  )
  const { data, errors } = (await response.json()) as Pick<Answer, 'data' | 'errors'>
  return { status: response.status, headers: response.headers, data, errors }
}

/** Refused before a resolver ran: no data, few errors, and the broker asked for nothing. */
async function expectRefused(answer: Answer): Promise<void> {
  expectLawful(answer)
  expect(answer.data).toBeUndefined()
  expect(answer.errors?.length).toBeGreaterThan(0)
  expect(answer.errors?.length).toBeLessThanOrEqual(10)
  expect(JSON.stringify(answer.errors).length).toBeLessThan(32_000)
  expect(await closed.calls()).toEqual([])
}

const codesOf = ({ errors }: Answer): unknown[] => (errors ?? []).map(({ extensions }) => extensions['code'])

describe('E05 a document that writes and then reads', () => {
  const shown = 'order { id status account { orders(first: 20) { nodes { id status } } } }'
  const document = `mutation ($first: CancelOrderInput!, $second: CancelOrderInput!, $third: PlaceOrderInput!) {
    one: cancelOrder(input: $first) { outcome ${shown} }
    two: cancelOrder(input: $second) { outcome ${shown} }
    three: placeOrder(input: $third) { outcome ${shown} }
    again: cancelOrder(input: $first) { outcome ${shown} }
  }`
  const place = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }'

  it.each([
    ["Bluum's accounts", {}, (harness: Harness) => harness.accountId],
    ["Bluum's investors", { BLUUM_API: 'investors' }, (harness: Harness) => harness.accountId],
    ['Aries', {}, (harness: Harness) => `aries:${harness.sandbox.aries.accounts[0]}`],
  ])('is what the writes before it made of it (%s)', async (_, env, toAccount) => {
    const harness = await startForTest(env)
    const accountId = toAccount(harness)
    const buy = (quantity: string) => limitBuy(harness, { accountId, quantity })
    const ids: string[] = []
    for (const quantity of ['1', '2']) {
      ids.push((await harness.run(place, { input: buy(quantity) })).data.placeOrder.orderId)
    }
    const [first, second] = ids.map((orderId) => ({ orderId, accountId }))
    const { data, errors } = await harness.run(document, { first, second, third: buy('3') })
    expect(errors).toBeUndefined()
    const { id: third } = data.three.order

    const [open, canceled] = ['ACCEPTED', 'CANCELED']
    const steps: [string, string, Record<string, string>][] = [
      ['one', canceled, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: open }],
      ['two', canceled, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: canceled }],
      ['three', open, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: canceled, [third]: open }],
      ['again', canceled, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: canceled, [third]: open }],
    ]
    for (const [alias, status, listed] of steps) {
      const { order } = data[alias]
      expect([alias, order.status]).toEqual([alias, status])
      const nodes: { id: string; status: string }[] = order.account.orders.nodes
      const states = Object.fromEntries(nodes.filter(({ id }) => id in listed).map((node) => [node.id, node.status]))
      expect([alias, states]).toEqual([alias, listed])
    }
  })
})

describe('E09 characters that forge lines, clear terminals or turn text round', () => {
  const hostile: [what: string, text: string][] = [
    ['a line break', 'AAPL\r\nx-evil: 1'],
    ['a NUL', 'AAPL\u0000'],
    ['an escape of a terminal', 'AAPL\u001b[2J'],
    ['one of a single byte', 'AAPL\u009b2J'],
    ['a line break of Unicode', 'AAPL\u2028{"level":"error"}'],
    ['a paragraph of Unicode', 'AAPL\u2029'],
    ['the next line of another code', 'AAPL\u0085'],
    ['a text that turns round', 'AAPL\u202e1234\u2066'],
    ['half of a character', 'AAPL\ud800'],
  ]
  // Control characters are what it looks for.
  // oxlint-disable-next-line no-control-regex
  const control = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/

  /** Refuses or knows nothing of it, sends nothing, and logs one line that is one. */
  async function expectHarmless(
    ask: () => Promise<Answer>,
  ): Promise<{ answer: Answer; line: Record<string, unknown> }> {
    const before = closed.log().length
    const answer = await ask()
    expectLawful(answer)
    expect(await closed.calls()).toEqual([])
    const lines = closed.log().slice(before)
    expect(lines).toHaveLength(1)
    const [line = ''] = lines
    expect(line.replace(/\n$/, '')).not.toMatch(control)
    return { answer, line: JSON.parse(line) as Record<string, unknown> }
  }

  const input = (fields: object) => ({ input: limitBuy(closed, fields) })
  const cancel = 'mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) { outcome orderId } }'
  const list =
    'query ($accountId: ID!, $filter: OrderFilter, $after: String) { orders(accountId: $accountId, filter: $filter, after: $after) { isComplete } }'
  const entities = 'query ($r: [_Any!]!) { _entities(representations: $r) { __typename } }'

  it.each<[what: string, query: string, toVariables: (text: string) => object]>([
    ['the symbol of an order', placeDocument, (text) => input({ symbol: text })],
    ['its key', placeDocument, (text) => input({ clientOrderId: `key-${text}` })],
    ['its account', placeDocument, (text) => input({ accountId: closed.accountId + text })],
    ['its quantity', placeDocument, (text) => input({ quantity: `1${text}` })],
    ['its side', placeDocument, (text) => input({ side: `BUY${text}` })],
    ['a field of it', placeDocument, (text) => input({ [text]: '1' })],
    ['the time to send it by', placeDocument, (text) => input({ sendBy: `2026-03-09T15:02:11Z${text}` })],
    ['a key that is acknowledged', placeDocument, (text) => input({ acknowledgeUnresolved: [`key-${text}`] })],
    ['an order to cancel', cancel, (text) => ({ input: { orderId: text } })],
    ['its account', cancel, (text) => ({ input: { orderId: 'ord_1', accountId: text } })],
    ['its key', cancel, (text) => ({ input: { accountId: closed.accountId, clientOrderId: `key-${text}` } })],
    ['an order of Aries to cancel', cancel, (text) => ({ input: { orderId: `aries:ACC-6413:${text}` } })],
    ['an order', 'query ($id: ID!) { order(id: $id) { id } }', (id) => ({ id })],
    ['orders', 'query ($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }', (id) => ({ ids: [id] })],
    ['an account', 'query ($id: ID!) { tradingAccount(id: $id) { id } }', (id) => ({ id })],
    ['the account of a list', list, (accountId) => ({ accountId })],
    ['the symbol of a list', list, (symbol) => ({ accountId: closed.accountId, filter: { symbol } })],
    ['the cursor of a list', list, (after) => ({ accountId: closed.accountId, after })],
    ['an entity', entities, (id) => ({ r: [{ __typename: 'Order', id }] })],
    ['its type', entities, (type) => ({ r: [{ __typename: type, id: 'ord_1' }] })],
    [
      'the key of a placement',
      'query ($a: ID!, $key: ID!) { placement(accountId: $a, clientOrderId: $key) { state } }',
      (key) => ({ a: closed.accountId, key }),
    ],
  ])('are taken for what they are in %s', async (_, query, toVariables) => {
    for (const [what, text] of hostile) {
      const { answer } = await expectHarmless(() => closed.run(query, toVariables(text)))
      // Where an answer is data, it is one that says no, or that there is nothing.
      const told = Object.values((answer.data ?? {}) as Record<string, { outcome?: string } | null>)
      for (const value of told) {
        if (value === null || Array.isArray(value)) continue
        expect(['INVALID', 'REFUSED'], what).toContain(value.outcome)
      }
    }
  })

  it.each(hostile)('are no name of an operation, and forge none in the log: %s', async (_, text) => {
    const body = { query: 'query Fine { __typename }', operationName: `Fine${text}` }
    const { answer, line } = await expectHarmless(() => post(closed, body))
    expect(answer.data).toBeUndefined()
    expect(codesOf(answer)).toEqual(['BAD_USER_INPUT'])
    // As it was sent, but for half a character, which no line can hold.
    expect(line).toMatchObject({ level: 'info', msg: 'operation', codes: ['BAD_USER_INPUT'] })
    expect(Object.keys(line)).not.toContain('x-evil')
  })

  it.each(hostile)('are no GraphQL: %s', async (_, text) => {
    for (const query of [`{ order(id: "${text}") { id } }`, `{ ${text} }`, `{ __typename } # ${text}`]) {
      await expectHarmless(() => closed.run(query))
    }
  })

  it.each([
    ['a line break', 'a\r\nx-evil: 1', false],
    ['a NUL', 'a\u0000', false],
    ['a character of two bytes', 'a\u2028', false],
    ['an escape of a terminal', 'a\u001b[2J', true],
    ['one of a single byte', 'a\u009b2J', true],
    ['a tab', 'a\tb', true],
  ])('are no id of a request: %s', async (_, id, passesHttp) => {
    const asked = () => closed.run('{ __typename }', {}, { 'x-request-id': id })
    if (!passesHttp) return await expect(asked()).rejects.toThrow(TypeError)
    const { answer, line } = await expectHarmless(asked)
    expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    expect(line['requestId']).toBe(answer.headers.get('x-request-id'))
  })
})

describe('E13 a bug in the middle of a document', () => {
  const secret = 'the-words-of-the-bug'
  const fail = () => {
    throw new Error(secret, { cause: new TypeError(`${secret}, deeper`) })
  }
  const failLater = () => Promise.reject(Object.assign(new Error(secret), { response: { body: secret } }))

  it.each<[what: string, query: string, path: (string | number)[] | undefined]>([
    ['a read', '{ order(id: "ord_1") { id } }', ['order']],
    ['a list', '{ orders(accountId: "acc_1") { isComplete } }', ['orders']],
    ['a list of accounts', '{ tradingAccounts { id } }', ['tradingAccounts']],
    ['a row', '{ ordersByIds(ids: ["ord_1"]) { id } }', ['ordersByIds', 0]],
    [
      'an entity',
      '{ _entities(representations: [{ __typename: "Order", id: "ord_1" }]) { __typename } }',
      ['_entities', 0],
    ],
    ['a cancel', 'mutation { cancelOrder(input: { orderId: "ord_1" }) { outcome } }', ['cancelOrder']],
  ])('is masked in development too, and the log alone has its cause: %s', async (_, query, path) => {
    vi.stubEnv('NODE_ENV', 'development')
    onTestFinished(() => void vi.unstubAllEnvs())
    const lines: string[] = []
    const destination = new Writable({
      write(chunk, _encoding, done) {
        lines.push(String(chunk))
        done()
      },
    })
    const log = createLog('info', destination)
    for (const bug of [fail, failLater]) {
      const broker = {
        id: 'BLUUM',
        features: dialects.accounts.features,
        orders: bug,
        pages: bug,
        accounts: bug,
      } as unknown as Broker
      const server = createServer({
        schema: createSchema(),
        brokers: new Map([['BLUUM', broker]]),
        commands: { cancel: bug } as unknown as Commands,
        cursors: createCursors('secret'),
        log,
        noteRefusal: () => {},
        identity: createIdentity({ kind: 'none' }, { onKeysTrouble() {}, onClaimTrouble() {} }),
        routerSecret: null,
        introspection: true,
        corsOrigins: [],
        trustedDocuments: null,
        rates: null,
        graphiqlTabs: [],
        isReady: () => true,
      })
      lines.length = 0
      const response = await server.fetch(
        new Request('http://127.0.0.1/graphql', {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-request-id': 'desk-13' },
          body: JSON.stringify({ query }),
        }),
      )
      const text = await response.text()
      expect(text).not.toContain(secret)
      expect(text).not.toMatch(/stack|originalError|file:|node_modules/)
      const { errors } = JSON.parse(text) as Pick<Answer, 'errors'>
      expect(errors).toEqual([
        {
          message: 'Something went wrong here. The request id finds it in the log.',
          locations: expect.any(Array),
          path,
          extensions: { code: 'INTERNAL_SERVER_ERROR', requestId: 'desk-13' },
        },
      ])
      const told = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
      expect(told).toMatchObject([
        {
          level: 'error',
          msg: 'a request met a bug',
          requestId: 'desk-13',
          err: { message: expect.stringContaining(secret) },
        },
        { level: 'info', msg: 'operation', requestId: 'desk-13', codes: ['INTERNAL_SERVER_ERROR'] },
      ])
      await server.close()
    }
    log.close()
  })
})

const repeat = (count: number, text: string): string => text.repeat(count)
const times = (count: number, make: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => make(index)).join(' ')

describe('documents that are deep, long or wide', () => {
  const nested = (count: number, open: string, core: string, close: string): string =>
    repeat(count, open) + core + repeat(count, close)
  const deepOrder = (levels: number): string =>
    nested(Math.floor((levels - 2) / 2), 'account { orders { nodes { ', 'id', ' } } }')

  it.each<[what: string, query: string]>([
    ['F01 5,000 levels of fields', `{ ${nested(5_000, 'a{', 'b', '}')} }`],
    ['F01 5,000 levels that do not end', `{ ${repeat(5_000, 'a{')}`],
    ['F01 as many as fit, of our own fields', `{ order(id: "x") { ${deepOrder(160)} } }`],
    ['F01 lists in lists as an argument', `{ order(id: ${nested(490, '[', '1', ']')}) { id } }`],
    ['F01 lists in lists of ids', `{ ordersByIds(ids: ${nested(490, '[', '"x"', ']')}) { id } }`],
    [
      'F01 objects in objects as an argument',
      `{ orders(accountId: "x", filter: ${nested(240, '{side:', 'BUY', '}')}) { isComplete } }`,
    ],
    [
      'F01 objects in lists for an entity',
      `{ _entities(representations: ${nested(190, '[{a:', '1', '}]')}) { __typename } }`,
    ],
    ['F01 the same on a type', `{ ${nested(190, '... on Query{', 'nobody', '}')} }`],
    [
      'F01 lists of lists as the type of a variable',
      `query ($a: ${nested(480, '[', 'ID', ']')}) { order(id: $a) { id } }`,
    ],
    [
      'F01 lists of lists as what holds for a variable',
      `query ($a: [ID!] = ${nested(480, '[', '1', ']')}) { ordersByIds(ids: $a) { id } }`,
    ],
    [
      'F01 fragments that spread one another, one a level',
      `{ ...F0 } ${times(90, (index) => `fragment F${index} on Query { ...F${index + 1} }`)} fragment F90 on Query { nobody }`,
    ],
    ['F01 a list in an argument of a directive', `{ __typename @include(if: ${nested(480, '[', 'true', ']')}) }`],
    ['F02 20,000 tokens', repeat(20_000, '{')],
    ['F02 20,000 names', `{ ${repeat(20_000, 'a ')} }`],
    ['F02 1,001 tokens that are numbers', `{ ordersByIds(ids: [${repeat(990, '1 ')}]) { id } }`],
    ['F09 500 directives on one field', `{ __typename ${repeat(500, '@include(if:true)')} }`],
    ['F09 500 of them on 500 fields', `{ ${repeat(500, '__typename@include(if:true)')} }`],
    ['F09 as many as fit', `{ ${times(140, (index) => `a${index}: __typename @include(if: true)`)} }`],
    ['F09 directives on fragments', `{ ${repeat(11, '...@include(if:true){__typename}')} }`],
    ['F25 300 fields that nobody knows', `{ ${times(300, (index) => `unknown${index}`)} }`],
    ['F25 300 arguments that nobody knows', `{ order(${times(300, (index) => `u${index}: 1`)}) { id } }`],
    ['F25 300 variables that nobody uses', `query (${times(240, (index) => `$u${index}: ID`)}) { __typename }`],
    ['F25 100 types that nobody knows', `{ __typename ${times(100, (index) => `... on T${index} { id }`)} }`],
  ])('%s: refused', async (_, query) => {
    await expectRefused(await closed.run(query))
  })

  it.each<[what: string, query: string, variables: object]>([
    [
      'F01 lists in lists',
      'query ($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }',
      { ids: JSON.parse(nested(5_000, '[', '1', ']')) },
    ],
    [
      'F01 objects in objects',
      'query ($f: OrderFilter) { orders(accountId: "x", filter: $f) { isComplete } }',
      { f: JSON.parse(nested(5_000, '{"side":', '1', '}')) },
    ],
    [
      'F25 300 fields that nobody knows',
      'query ($f: OrderFilter) { orders(accountId: "x", filter: $f) { isComplete } }',
      { f: Object.fromEntries(Array.from({ length: 300 }, (__, index) => [`unknown${index}`, 1])) },
    ],
    [
      'F25 300 statuses that nobody knows',
      'query ($f: OrderFilter) { orders(accountId: "x", filter: $f) { isComplete } }',
      { f: { statuses: Array(300).fill('NONE') } },
    ],
    [
      'F25 10,000 ids that are none',
      'query ($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }',
      { ids: Array.from({ length: 10_000 }, () => ({})) },
    ],
  ])('%s in the variables: refused', async (_, query, variables) => {
    await expectRefused(await closed.run(query, variables))
  })

  it('F01 fragments alone are no levels, and are answered', async () => {
    const answer = await closed.run(`{ ${nested(320, '...{', '__typename', '}')} }`)
    expect([answer.data, answer.errors]).toEqual([{ __typename: 'Query' }, undefined])
  })

  it('F25 a message about a long value is short', async () => {
    const names = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`unknown${index}`, 1]))
    const query = 'query ($f: OrderFilter) { orders(accountId: "x", filter: $f) { isComplete } }'
    const answer = await closed.run(query, { f: { ...names, sid: 'x'.repeat(90_000) } })
    await expectRefused(answer)
    expect(answer.errors?.[0]?.message).toMatch(
      /^Variable "\$f" got invalid value \{ unknown0: 1.* is not defined by type/,
    )
    expect(JSON.stringify(answer.errors).length).toBeLessThan(10_000)
    expect(JSON.stringify(answer.errors)).not.toContain('Did you mean')
  })

  it('F01 a representation may hold any value at any depth, and gets an error that says so', async () => {
    const query = 'query ($r: [_Any!]!) { _entities(representations: $r) { __typename } }'
    for (const id of [nested(5_000, '[', '1', ']'), nested(5_000, '{"id":', '1', '}')].map((text) =>
      JSON.parse(text),
    )) {
      const answer = await closed.run(query, { r: [{ __typename: 'Order', id }, id] })
      expectLawful(answer)
      expect(codesOf(answer)).toContain('BAD_USER_INPUT')
    }
    expect(await closed.calls()).toEqual([])
  })
})

describe('fragments with names and uses that could fool a count', () => {
  const deep = 'order(id: "x") { account { orders { nodes { account { orders { nodes { account { id } } } } } } }'

  it.each(['__schema', '__type', '__typename', '_entities', 'orders', 'constructor', '__proto__', 'toString'])(
    'F06 one that is named %s counts like any other',
    async (name) => {
      const within = await closed.run(`{ ...${name} } fragment ${name} on Query { order(id: "ord_nobody") { id } }`)
      expect(within.errors).toBeUndefined()
      expect(within.data).toEqual({ order: null })
      await closed.clearCalls()
      const tooDeep = await closed.run(`{ ...${name} } fragment ${name} on Query { ${deep} } }`)
      await expectRefused(tooDeep)
      expect(codesOf(tooDeep)).toEqual(['QUERY_TOO_COMPLEX'])
      const tooWide = `{ ...${name} } fragment ${name} on Query { ${times(31, (index) => `a${index}: __typename`)} }`
      await expectRefused(await closed.run(tooWide))
    },
  )

  it('F06 one that is used at two depths counts at the deeper one', async () => {
    const fragment = 'fragment A on Order { account { orders { nodes { id } } } }'
    // An order, three levels of its account, and the four of the fragment: eight.
    const fits = `{ order(id: "x") { ...A account { orders { nodes { ...A } } } } } ${fragment}`
    expect((await closed.run(fits)).errors).toBeUndefined()
    await closed.clearCalls()
    const deeper = `{ order(id: "x") { ...A account { orders { nodes { account { orders { nodes { ...A } } } } } } } } ${fragment}`
    const answer = await closed.run(deeper)
    await expectRefused(answer)
    expect(codesOf(answer)).toEqual(['QUERY_TOO_COMPLEX'])
  })
})

describe('F11 introspection, where it is off', () => {
  const documents = [
    '{ __schema { queryType { name } } }',
    '{ __type(name: "Order") { name fields { name } } }',
    '{ __typename: __schema { queryType { name } } }',
    '{ harmless: __type(name: "Order") { kind } }',
    '{ ...A } fragment A on Query { __schema { types { name } } }',
    '{ ... { ... on Query { __schema { types { name } } } } }',
    'query ($name: String!) { __type(name: $name) { name } }',
    'mutation { __schema { queryType { name } } }',
    'mutation { __type(name: "Order") { name } }',
    '{ __schema @skip(if: true) { queryType { name } } }',
    'query Fine { __typename } query Hidden { __schema { queryType { name } } }',
  ]

  it.each(documents)('is refused by POST and by GET: %s', async (query) => {
    const variables = { name: 'Order' }
    await expectRefused(
      await post(closed, { query, variables, ...(/query Fine/.test(query) && { operationName: 'Fine' }) }),
    )
    const parameters = new URLSearchParams({ query, variables: JSON.stringify(variables) })
    const response = await closed.fetch(
      new Request(`${closed.url}?${parameters}`, { headers: { 'apollo-require-preflight': '1' } }),
    )
    const { data, errors } = (await response.json()) as Answer
    await expectRefused({
      status: response.status === 405 ? 400 : response.status,
      headers: response.headers,
      data,
      errors,
    })
    expect(JSON.stringify(errors)).not.toMatch(/TradingAccount|OrderConnection/)
  })

  it('leaves __typename alone, everywhere', async () => {
    const query = '{ __typename tradingAccounts { __typename id } }'
    const { data, errors } = await closed.run(query)
    expect(errors).toBeUndefined()
    expect(data.__typename).toBe('Query')
    expect(data.tradingAccounts[0].__typename).toBe('TradingAccount')
  })
})

describe('F20 subscriptions', () => {
  it.each(['application/json', 'text/event-stream', 'multipart/mixed'])(
    'are refused in any number, and leave no stream open: %s',
    async (accept) => {
      const query = 'subscription ($id: ID!) { orderEvents(accountId: $id) { id } }'
      const body = JSON.stringify({ query, variables: { id: closed.accountId } })
      const headers = { 'content-type': 'application/json', accept }
      for (let count = 0; count < 334; count++) {
        const response = await closed.fetch(new Request(closed.url, { method: 'POST', headers, body }))
        expect([200, 400, 406]).toContain(response.status)
        // Its end was waited for.
        const text = await response.text()
        if (response.status === 406) continue
        const [json = ''] = /\{.*\}/.exec(text) ?? []
        const { data, errors } = JSON.parse(json) as Pick<Answer, 'data' | 'errors'>
        expect([data, errors?.map(({ extensions }) => extensions['code'])]).toEqual([undefined, ['BAD_USER_INPUT']])
      }
      expect(await closed.calls()).toEqual([])
    },
  )
})

describe('representations of a broken gateway', () => {
  const query = 'query ($r: [_Any!]!) { _entities(representations: $r) { __typename ... on Order { id } } }'
  const missing = { __typename: 'Order', id: 'ord_nobody' }

  it.each<[what: string, representation: unknown]>([
    ['a type that nobody knows', { __typename: 'Nobody' }],
    ['no type', {}],
    ['a type that is no word', { __typename: { a: 1 } }],
    ['a type of the language', { __typename: '__Schema' }],
    ['a word of JavaScript', { __typename: 'constructor' }],
    ['another word of it', { __typename: '__proto__' }],
    ['a type that is no entity', { __typename: 'PageInfo' }],
    ['the type of all reads', { __typename: 'Query' }],
    ['an interface', { __typename: 'PlaceOrderResult', outcome: 'PLACED' }],
    ['an input', { __typename: 'PlaceOrderInput' }],
    ['a scalar', { __typename: 'Decimal' }],
    ['a number', 7],
    ['a text', 'Order'],
    ['a list', [{ __typename: 'Order', id: 'ord_1' }]],
    ['an id that is none', { __typename: 'Order', id: '..' }],
  ])('fail one by one, next to any others, and end no process: %s', async (_, representation) => {
    // Those before and after it are asked for at once, and one of them fails later than it does.
    const r = [{ __typename: 'Order', id: '../x' }, missing, representation, missing]
    const answer = await closed.run(query, { r })
    expectLawful(answer)
    expect(answer.data).toEqual({ _entities: [null, null, null, null] })
    expect(answer.errors?.map(({ path }) => path?.join('.')).toSorted()).toEqual(['_entities.0', '_entities.2'])
    // Whether a type exists is nothing that an error tells.
    expect(answer.errors?.map(({ message }) => message).join()).not.toMatch(/PageInfo|PlaceOrder|Schema|possible type/)
    // A promise that nobody holds is told of after this turn, and fails the run of the tests as it would end a service.
    await new Promise((resolve) => void setImmediate(resolve))
  })
})
