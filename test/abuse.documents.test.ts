// Documents and inputs of somebody who means no good, or whose program is broken: what they may cost, reach and forge. The
// answer is lawful each time, one of the closed list of codes or none, and the broker hears of nothing that was refused.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { errorCodes } from '../src/errors.ts'
import { limitBuy, startForTest, startHarness } from './harness.ts'
import type { Answer, Harness } from './harness.ts'

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

/** No answer may be anything else, whatever was asked. */
function expectLawful({ status, data, errors }: Answer): void {
  expect([200, 400, 401, 403]).toContain(status)
  expect(data !== undefined || errors !== undefined, 'neither data nor errors').toBe(true)
  for (const { message, extensions } of errors ?? []) {
    expect(Object.keys(errorCodes)).toContain(extensions['code'])
    expect(extensions['code'], message).not.toBe('INTERNAL_SERVER_ERROR')
    expect(extensions['requestId']).toEqual(expect.any(String))
  }
}

const codesOf = ({ errors }: Answer): unknown[] => (errors ?? []).map(({ extensions }) => extensions['code'])

describe('E05 what one document writes and then reads', () => {
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

describe('entities of a gateway that is none', () => {
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
  ])('fail each by itself, whatever stands beside them, and end no process: %s', async (_, representation) => {
    // Those before and after it are asked for at once, and one of them fails later than it does.
    const r = [{ __typename: 'Order', id: '../x' }, missing, representation, missing]
    const answer = await closed.run(query, { r })
    expectLawful(answer)
    expect(answer.data).toEqual({ _entities: [null, null, null, null] })
    expect(answer.errors?.map(({ path }) => path?.join('.')).toSorted()).toEqual(['_entities.0', '_entities.2'])
    // A promise that nobody holds is told of after this turn, and fails the run of the tests as it would end a service.
    await new Promise((resolve) => void setImmediate(resolve))
  })
})
