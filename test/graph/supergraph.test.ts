// The subgraph in a larger graph: it composes with a neighbour on the three usual composers, and a gateway over both asks
// for what it needs in few calls, each failing alone.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { composeServices as composeByApollo } from '@apollo/composition'
import { buildSubgraphSchema as buildBy214 } from '@apollo/subgraph'
import { buildSubgraphSchema as buildBy215 } from '@apollo/subgraph-2.15'
import { composeServices as composeByHive } from '@theguild/federation-composition'
import { federateSubgraphs, ROUTER_COMPATIBILITY_VERSION_ONE } from '@wundergraph/composition'
import { parse } from 'graphql'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { accountsSdl, startAccounts } from '../../examples/supergraph/accounts.ts'
import type { Person } from '../../examples/supergraph/accounts.ts'
import { compose, startGateway } from '../../examples/supergraph/gateway.ts'
import type { Gateway } from '../../examples/supergraph/gateway.ts'
import { limitBuy, startForTest, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'
import { diffSchemas } from './schema.diff.ts'

const sdl = readFileSync(new URL('../../schema.graphql', import.meta.url), 'utf8')
const url = 'http://127.0.0.1:1/graphql'
const neighbours: [what: string, subgraphs: { name: string; url: string; sdl: string }[]][] = [
  ['alone', [{ name: 'blotter', url, sdl }]],
  [
    'with a neighbour',
    [
      { name: 'blotter', url, sdl },
      { name: 'accounts', url, sdl: accountsSdl },
    ],
  ],
]

describe.each(neighbours)('%s it composes', (_, subgraphs) => {
  const services = subgraphs.map((subgraph) => ({ ...subgraph, typeDefs: parse(subgraph.sdl) }))

  it("on Apollo's composer, with no error and no hint", () => {
    const { errors, hints } = composeByApollo(services)
    expect(errors).toBeUndefined()
    expect(hints?.map(({ message }) => message)).toEqual([])
  })

  it("on Hive's, with no error", () => {
    expect(composeByHive(services).errors).toBeUndefined()
  })

  it("on Cosmo's, with no error and no warning", () => {
    const result = federateSubgraphs({
      subgraphs: services.map(({ name, url: at, typeDefs: definitions }) => ({ name, url: at, definitions })),
      version: ROUTER_COMPATIBILITY_VERSION_ONE,
    })
    expect(result.success ? [] : result.errors).toEqual([])
    expect(result.warnings).toEqual([])
  })
})

it('a subgraph that does not fit is refused by name', () => {
  const twice = { name: 'twice', url, sdl: 'type PageInfo { hasNextPage: Int } type Query { x: PageInfo }' }
  expect(() => compose([{ name: 'blotter', url, sdl }, twice])).toThrow(/do not compose:\n.*PageInfo/)
})

describe.each([
  ['2.14', buildBy214],
  ['2.15', buildBy215],
])('@apollo/subgraph %s', (_, buildSubgraphSchema) => {
  it('23g runs the neighbour of the example', async () => {
    const person = { id: 'user-1', name: 'Ada', accountIds: ['account-1'], notes: [] }
    const neighbour = await startAccounts([person], buildSubgraphSchema)
    onTestFinished(() => neighbour.close())
    const query = `query ($representations: [_Any!]!) {
      user(id: "user-1") { name accounts { id } }
      _entities(representations: $representations) { ... on User { name } }
      _service { sdl }
    }`
    const response = await fetch(neighbour.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables: { representations: [{ __typename: 'User', id: 'user-1' }] } }),
    })
    expect(await response.json()).toEqual({
      data: {
        user: { name: 'Ada', accounts: [{ id: 'account-1' }] },
        _entities: [{ name: 'Ada' }],
        _service: { sdl: expect.stringContaining('type User') },
      },
    })
  })
})

// ---- a gateway over both ------------------------------------------------------------------------------------------------

let harness: Harness
let gateway: Gateway
let accounts: Awaited<ReturnType<typeof startAccounts>>
const people: Person[] = []

beforeAll(async () => {
  harness = await startHarness({ ROUTER_SECRET: 'the-secret-of-the-router' })
  accounts = await startAccounts(people)
  gateway = await startGateway(
    [
      { name: 'blotter', url: harness.url, sdl, headers: { 'x-router-secret': 'the-secret-of-the-router' } },
      { name: 'accounts', url: accounts.url, sdl: accountsSdl },
    ],
    0,
  )
})
afterAll(async () => {
  await gateway.close()
  await accounts.close()
  await harness.close()
})
afterEach(async () => {
  people.length = 0
  await harness.setRules()
})

/** Runs a document through the gateway, and tells what it cost at the brokers. */
async function ask(query: string, variables: object = {}): Promise<Answer & { calls: string[] }> {
  await harness.clearCalls()
  const response = await fetch(gateway.url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  })
  const { data, errors } = (await response.json()) as Pick<Answer, 'data' | 'errors'>
  const calls = (await harness.calls()).map(({ method, path }) => `${method} ${path.split('?')[0]}`)
  return { status: response.status, headers: response.headers, data, errors, calls }
}

const userQuery = `query ($id: ID!) {
  user(id: $id) {
    name
    accounts { id orders(first: 5) { nodes { id account { id } } pageInfo { hasNextPage } } }
    notes { text order { id symbol status account { id } } }
  }
}`

async function idsOf(accountId: string, count: number): Promise<string[]> {
  const { data } = await harness.run(
    'query ($accountId: ID!, $first: Int) { orders(accountId: $accountId, first: $first) { nodes { id } } }',
    { accountId, first: count },
  )
  return data.orders.nodes.map(({ id }: { id: string }) => id)
}

describe('under a gateway', () => {
  it('a query across both subgraphs is answered, with the orders of two brokers', async () => {
    const [bluum = '', ...rest] = harness.sandbox.accounts
    const aries = `aries:${harness.sandbox.aries.accounts[0]}`
    const [noted = ''] = await idsOf(bluum, 1)
    const [notedAtAries = ''] = await idsOf(aries, 1)
    people.push({
      id: 'user-1',
      name: 'somebody',
      accountIds: [bluum, aries, ...rest],
      notes: [
        { text: 'one', orderId: noted, accountId: bluum },
        { text: 'two', orderId: notedAtAries, accountId: aries },
      ],
    })
    const { data, errors } = await ask(userQuery, { id: 'user-1' })
    expect(errors).toBeUndefined()
    expect(data.user.accounts).toHaveLength(3)
    for (const { id, orders } of data.user.accounts) {
      expect(orders.nodes).toHaveLength(5)
      for (const order of orders.nodes) expect(order.account).toEqual({ id })
    }
    expect(data.user.notes).toMatchObject([
      { text: 'one', order: { id: noted, account: { id: bluum } } },
      { text: 'two', order: { id: notedAtAries, account: { id: aries } } },
    ])
  })

  it('of references of two accounts one fails and one is unknown: the others stand', async () => {
    const [first = '', second = ''] = harness.sandbox.accounts
    const [good = '', failing = ''] = await idsOf(first, 2)
    const [other = ''] = await idsOf(second, 1)
    people.push({
      id: 'user-1',
      name: 'somebody',
      accountIds: [],
      notes: [
        { text: 'good', orderId: good, accountId: first },
        { text: 'failing', orderId: failing, accountId: first },
        { text: 'unknown', orderId: 'ord_nobodyknowsthis', accountId: first },
        { text: 'other', orderId: other, accountId: second },
      ],
    })
    await harness.setRules(
      { match: { path: '/accounts/[^/]+/orders' }, fault: { kind: 'status', status: 404, body: 'not here' } },
      { match: { path: failing }, fault: { kind: 'status', status: 500, body: 'down' } },
    )
    const { data, errors } = await ask(userQuery, { id: 'user-1' })
    const found = data.user.notes.map((note: { text: string; order: { id: string } | null }) => [
      note.text,
      note.order?.id,
    ])
    expect(found).toEqual([
      ['good', good],
      ['failing', undefined],
      ['unknown', undefined],
      ['other', other],
    ])
    expect(errors).toMatchObject([{ extensions: { code: 'BROKER_UNAVAILABLE' } }])
  })

  it('an order is placed once through it, however often the mutation comes', async () => {
    const input = limitBuy(harness)
    const mutation = `mutation ($input: PlaceOrderInput!) {
      placeOrder(input: $input) { __typename orderId order { symbol } ... on OrderPlaced { replayed } }
    }`
    const first = await ask(mutation, { input })
    expect(first.errors).toBeUndefined()
    expect(first.data.placeOrder).toMatchObject({
      __typename: 'OrderPlaced',
      replayed: false,
      order: { symbol: 'AAPL' },
    })
    const again = await ask(mutation, { input })
    expect(again.data.placeOrder).toMatchObject({ orderId: first.data.placeOrder.orderId, replayed: true })
    expect(again.calls.filter((call) => call.startsWith('POST'))).toEqual([])
  })

  it('the id of a request reaches the log behind it', async () => {
    await fetch(gateway.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-request-id': 'across-the-graph' },
      body: JSON.stringify({ query: '{ tradingAccounts { id } }' }),
    })
    expect(harness.log().join('')).toContain('"requestId":"across-the-graph"')
  })
})

// ---- what the gateway asks for ------------------------------------------------------------------------------------------

describe('entities', () => {
  const entities = `query ($representations: [_Any!]!) {
    _entities(representations: $representations) { ... on Order { id status } }
  }`
  const toReferences = (ids: string[], account?: { id: string }) =>
    ids.map((id) => ({ __typename: 'Order', id, ...(account && { account }) }))

  it('fifty references of one known account are at most two calls, in a process that has read nothing yet', async () => {
    const fresh = await startForTest()
    const ids = (await fresh.book()).slice(0, 50).map(({ id }) => String(id))
    const { data } = await fresh.run(entities, { representations: toReferences(ids, { id: fresh.accountId }) })
    expect(data._entities.map(({ id }: { id: string }) => id)).toEqual(ids)
    expect((await fresh.calls()).length).toBeLessThanOrEqual(2)
  })

  // Of two keys a gateway takes the shorter one, so the account may not come along.
  it('orders that were placed here are known by their account, also after a restart', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'blotter-supergraph-'))
    onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
    const first = await startHarness({ DATA_DIR: dataDir })
    const placing = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }'
    const ids: string[] = []
    for (let count = 0; count < 6; count++) {
      const { data } = await first.run(placing, { input: limitBuy(first) })
      ids.push(data.placeOrder.orderId)
    }
    await first.close()
    const again = await startForTest({ DATA_DIR: dataDir })
    const { data } = await again.run(entities, { representations: toReferences(ids) })
    expect(data._entities.map(({ id }: { id: string }) => id)).toEqual(ids)
    expect((await again.calls()).length).toBe(1)
  })

  it('a reference of another account than its order is null, like one of an unknown order', async () => {
    const [first = '', second = ''] = harness.sandbox.accounts
    const [mine = ''] = await idsOf(first, 1)
    const [foreign = ''] = await idsOf(second, 1)
    const representations = [
      ...toReferences([mine, foreign, 'ord_nobodyknowsthis'], { id: first }),
      { __typename: 'Nothing', id: mine },
    ]
    const headers = { 'x-router-secret': 'the-secret-of-the-router' }
    const { data } = await harness.run(entities, { representations: representations.slice(0, 3) }, headers)
    expect(data._entities.map((order: { id: string } | null) => order?.id)).toEqual([mine, undefined, undefined])
    const { errors } = await harness.run(entities, { representations }, headers)
    expect(errors).toMatchObject([
      { message: expect.stringContaining('__typename'), extensions: { code: 'BAD_USER_INPUT' } },
    ])
  })

  it('ten references without their account are ten calls at the most, at the same time and each once', async () => {
    const fresh = await startForTest()
    const book = await fresh.book()
    const ids = book.slice(0, 10).map(({ id }) => String(id))
    // Each call waits for all of them to have come: one after the other would never be answered.
    await fresh.setRules({ match: { method: 'GET' }, fault: { kind: 'latency', ms: 300 } })
    const startedAt = performance.now()
    const { data, errors } = await fresh.run(entities, { representations: toReferences([...ids, ...ids]) })
    expect(errors).toBeUndefined()
    expect(data._entities.map(({ id }: { id: string }) => id)).toEqual([...ids, ...ids])
    const calls = (await fresh.calls()).map(({ path }) => path)
    expect(calls.length).toBeLessThanOrEqual(10)
    expect(new Set(calls).size).toBe(calls.length)
    expect(performance.now() - startedAt).toBeLessThan(10 * 300)
  })

  it('those beyond the rate budget fail alone, at once, and say when to come again', async () => {
    const slow = await startForTest({ BLUUM_REQUESTS_PER_SECOND: '5' })
    const ids = (await slow.book()).slice(0, 100).map(({ id }) => String(id))
    const { data, errors } = await slow.run(
      entities,
      { representations: toReferences(ids) },
      { 'x-request-timeout-ms': '1500' },
    )
    const answered = data._entities.filter((order: unknown) => order !== null)
    expect(answered.length).toBeGreaterThan(0)
    expect(answered.length + (errors?.length ?? 0)).toBe(100)
    const refused = errors?.filter(({ extensions }) => extensions['code'] === 'RATE_LIMITED') ?? []
    expect(refused.length).toBeGreaterThan(80)
    for (const { extensions } of refused) expect(extensions['retryAfterMs']).toBeGreaterThan(0)
    // Who had a place and no answer in time, too.
    const late = errors?.filter(({ extensions }) => extensions['code'] === 'DEADLINE_EXCEEDED') ?? []
    expect(refused.length + late.length).toBe(errors?.length)
  })

  it('the accounts of a user are entities too, whose orders are one page each', async () => {
    const { sandbox } = harness
    const ids = [...sandbox.accounts, ...sandbox.aries.accounts.map((name) => `aries:${name}`)]
    const recent = new Date(Date.now() - 86_400_000).toISOString()
    const pages = `query ($representations: [_Any!]!, $recent: DateTime) {
      _entities(representations: $representations) {
        ... on TradingAccount { id a: orders(filter: { submittedAfter: $recent }) { nodes { id } } b: orders(filter: { submittedAfter: $recent }) { nodes { id } } }
      }
    }`
    await harness.clearCalls()
    const { data, errors } = await harness.run(
      pages,
      { representations: [...ids, ...ids].map((id) => ({ __typename: 'TradingAccount', id })), recent },
      { 'x-router-secret': 'the-secret-of-the-router' },
    )
    expect(errors).toBeUndefined()
    expect(data._entities.map(({ id }: { id: string }) => id)).toEqual([...ids, ...ids])
    // A page of Aries is two lists.
    expect((await harness.calls()).filter(({ method }) => method === 'GET')).toHaveLength(2 + 2 * 2)
  })
})

it('the orders of all accounts are one page read for each of them, at the same time', async () => {
  const query = `query ($after: DateTime) {
    tradingAccounts { id orders(first: 20, filter: { submittedAfter: $after }) { nodes { id } } }
    again: tradingAccounts { orders(first: 20, filter: { submittedAfter: $after }) { nodes { id } } }
  }`
  await harness.clearCalls()
  const { data, errors } = await harness.run(query, { after: new Date(Date.now() - 86_400_000).toISOString() })
  expect(errors).toBeUndefined()
  expect(data.tradingAccounts).toHaveLength(4)
  const lists = (await harness.calls()).filter(({ path }) => path.includes('/orders'))
  expect(lists).toHaveLength(2 + 2 * 2)
})

// ---- the command, and changes -------------------------------------------------------------------------------------------

it('npm run supergraph starts all of it, asks across it and ends', async () => {
  const child = spawn(process.execPath, ['examples/supergraph/start.ts'], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    env: { ...process.env, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stderr.on('data', (chunk) => (err += String(chunk)))
  for await (const chunk of child.stdout) {
    out += String(chunk)
    if (out.includes('Ctrl-C')) break
  }
  child.kill('SIGINT')
  expect([await once(child, 'exit'), err]).toEqual([[0, null], ''])
  const answer = JSON.parse(/is answered with:\n\n([^]*)\n\nCtrl-C/.exec(out)?.[1] ?? '') as Answer
  expect(answer.errors).toBeUndefined()
  expect(answer.data.user.accounts).toHaveLength(2)
  for (const note of answer.data.user.notes) expect(note.order.symbol).toEqual(expect.any(String))
})

describe('schema:diff', () => {
  it('finds nothing where nothing has changed', () => {
    expect(diffSchemas(sdl, sdl)).toEqual({ breaking: [], dangerous: [] })
  })

  it.each([
    ['a field that is gone', 'isCancelable: Boolean!', 'isStoppable: Boolean!', /isCancelable/],
    ['a type that may be null now', 'isCancelable: Boolean!', 'isCancelable: Boolean', /isCancelable/],
    ['an argument that has to be given', 'accountId: ID\n', 'accountId: ID!\n', /accountId/],
    ['a key that is gone', ' @key(fields: "id account { id }")', '', /@key\(fields: "id account { id }"\) of Order/],
    ['what is not shareable any more', 'type PageInfo @shareable', 'type PageInfo', /@shareable of PageInfo/],
  ])('names what breaks: %s', (_, before, after, message) => {
    const changed = sdl.replace(before, after)
    expect(changed).not.toBe(sdl)
    expect(diffSchemas(sdl, changed).breaking).toEqual(expect.arrayContaining([expect.stringMatching(message)]))
  })

  it('names what may surprise: a value that an enum gets', () => {
    const changed = sdl.replace('enum OrderState {', 'enum OrderState {\n  HALTED')
    expect(diffSchemas(sdl, changed)).toEqual({ breaking: [], dangerous: [expect.stringContaining('HALTED')] })
  })
})
