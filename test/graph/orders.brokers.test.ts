// One graph over several brokers: the same documents give the same shapes whoever is behind an account, one document
// works for several of them, and a broker that is down takes nothing from the others.

import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { systemClock } from '../../src/domain/clock.ts'
import { startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

let accounts: Harness
let investors: Harness

beforeAll(async () => {
  accounts = await startHarness({ BREAKER: 'off' })
  investors = await startHarness({ BLUUM_API: 'investors', BREAKER: 'off' })
})
afterAll(() => Promise.all([accounts.close(), investors.close()]))
afterEach(async () => {
  await accounts.setRules()
  await accounts.clearCalls()
})

/** A dialect as a frontend sees it: an account, and somebody who answers. */
interface Desk {
  harness: Harness
  accountId: string
  broker: string
}

const desks: [name: string, find: () => Desk][] = [
  ["Bluum's accounts", () => ({ harness: accounts, accountId: accounts.sandbox.accounts[0] ?? '', broker: 'BLUUM' })],
  [
    "Bluum's investors",
    () => ({ harness: investors, accountId: investors.sandbox.investors[0] ?? '', broker: 'BLUUM' }),
  ],
  ['Aries', () => ({ harness: accounts, accountId: `aries:${accounts.sandbox.aries.accounts[0]}`, broker: 'ARIES' })],
]

const fields = `
  __typename id broker account { id broker } asset { symbol } symbol securityType
  legs { symbol securityType side ratio right strikePrice expiration }
  currency clientOrderId side type timeInForce quantity notional limitPrice stopPrice trailPercent trailPrice
  extendedHours status brokerStatus state isCancelable filledQuantity remainingQuantity averagePrice
  commission commissionType submittedAt filledAt canceledAt rejectReason`

const list = `query ($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {
  orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {
    nodes { ${fields} } edges { cursor node { id } } isComplete
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}`

const place = `mutation ($input: PlaceOrderInput!) {
  placeOrder(input: $input) {
    __typename clientOrderId outcome orderId message order { ${fields} }
    ... on OrderPlaced { replayed }
    ... on OrderRejected { replayed rejectionCode brokerCode reason }
    ... on OrderInvalid { problems { field code message } }
  }
}`

const cancel = `mutation ($input: CancelOrderInput!) {
  cancelOrder(input: $input) {
    __typename outcome orderId message order { ${fields} }
    ... on CancelConfirmed { alreadyCanceled }
    ... on CancelRefused { refusalCode }
  }
}`

const limitBuy = (accountId: string, more: object = {}) => ({
  accountId,
  clientOrderId: randomUUID(),
  symbol: 'AAPL',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'GTC',
  quantity: '10',
  limitPrice: '10.00',
  ...more,
})

/** What a value is, for two answers to be compared without their contents: kinds of scalars, names of fields. */
function shapeOf(value: unknown): unknown {
  if (value === null) return 'null'
  if (Array.isArray(value)) return value.length === 0 ? [] : [shapeOf(value[0])]
  if (typeof value !== 'object') return typeof value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, shapeOf(field)]))
}

async function ask(desk: Desk, document: string, variables: object): Promise<Answer['data']> {
  const { data, errors } = await desk.harness.run(document, variables)
  expect(errors).toBeUndefined()
  return data
}

describe.each([
  ["Bluum's accounts", {}, ({ sandbox }: Harness) => sandbox.accounts[1] ?? ''],
  ["Bluum's investors", { BLUUM_API: 'investors' }, ({ sandbox }: Harness) => sandbox.investors[1] ?? ''],
  ['Aries', {}, ({ sandbox }: Harness) => `aries:${sandbox.aries.accounts[1]}`],
])('an order that disappears from the broker: %s', (_, env, findAccount) => {
  const read = `query ($id: ID!, $accountId: ID!) {
    order(id: $id, accountId: $accountId) { status }
    ordersByIds(ids: [$id]) { status }
    orders(accountId: $accountId) { nodes { id } isComplete }
  }`

  it('is an error that says so for 120 s, and then there is no such order', async () => {
    const clock = vi.spyOn(systemClock, 'monotonic')
    const wallClock = vi.spyOn(systemClock, 'now')
    onTestFinished(() => void vi.restoreAllMocks())
    const harness = await startHarness({ ...env, BREAKER: 'off' })
    onTestFinished(() => harness.close())
    const accountId = findAccount(harness)
    const { placeOrder } = await ask({ harness, accountId, broker: '' }, place, { input: limitBuy(accountId) })
    expect(placeOrder.__typename).toBe('OrderPlaced')
    const id: string = placeOrder.orderId
    expect((await harness.run(read, { id, accountId })).errors).toBeUndefined()
    // As one that was replaced at the broker's own page and has another id now.
    await harness.control('DELETE', `/book?account=${accountId.replace('aries:', '')}`)

    const { data, errors } = await harness.run(read, { id, accountId })
    expect(data).toMatchObject({ order: null, ordersByIds: [null], orders: { nodes: [], isComplete: true } })
    for (const error of errors ?? []) {
      expect(error.extensions).toMatchObject({ code: 'BROKER_BAD_RESPONSE' })
      expect(error.extensions['retryAfterMs']).toBeGreaterThan(100_000)
      expect(error.message).toMatch(/known to exist \d+ s ago/)
    }
    expect(errors).toHaveLength(2)

    const [ticks, now] = [performance.now.bind(performance), Date.now.bind(Date)]
    clock.mockImplementation(() => ticks() + 121_000)
    wallClock.mockImplementation(() => now() + 121_000)
    const later = await harness.run(read, { id, accountId })
    expect(later.errors).toBeUndefined()
    expect(later.data).toMatchObject({ order: null, ordersByIds: [null] })
  })
})

describe.each(desks)('%s', (_, find) => {
  it('has accounts, of which the graph says whose they are', async () => {
    const { harness, accountId, broker } = find()
    const { data } = await harness.run('{ tradingAccounts { id broker orders(first: 1) { nodes { id broker } } } }')
    const own = data.tradingAccounts.find(({ id }: { id: string }) => id === accountId)
    expect(own).toMatchObject({ broker, orders: { nodes: [{ id: expect.any(String), broker }] } })
  })

  it('gives each order of a walk once, newest first, and by its id as in the list', async () => {
    const desk = find()
    const { accountId } = desk
    const seen: { id: string; submittedAt: string | null }[] = []
    let after: string | null = null
    for (let page = 0; page < 40; page++) {
      const { orders } = await ask(desk, list, { accountId, first: 17, after })
      expect(orders).toMatchObject({ isComplete: true, pageInfo: { hasPreviousPage: after !== null } })
      seen.push(...orders.nodes)
      if (!orders.pageInfo.hasNextPage) break
      after = orders.pageInfo.endCursor
    }
    expect(seen.length).toBeGreaterThan(60)
    expect(new Set(seen.map(({ id }) => id)).size).toBe(seen.length)
    const times = seen.flatMap(({ submittedAt }) => submittedAt ?? [])
    expect(times).toEqual(times.toSorted((a, b) => Date.parse(b) - Date.parse(a)))

    const some = seen.filter((_order, index) => index % 14 === 0)
    const ids = some.map(({ id }) => id)
    const aliases = ids.map((id, at) => `o${at}: order(id: "${id}", accountId: $accountId) { ...All }`)
    const one = `query ($accountId: ID!) { ${aliases.join(' ')} } fragment All on Order { ${fields} }`
    const { data } = await desk.harness.run(one, { accountId })
    expect(Object.values(data)).toEqual(some)
  })

  it('keeps to every filter, alone and together', async () => {
    const desk = find()
    const { accountId } = desk
    const all: Record<string, string>[] = []
    for (let after: string | null = null; ;) {
      const { orders } = await ask(desk, list, { accountId, first: 100, after })
      all.push(...orders.nodes)
      if (!orders.pageInfo.hasNextPage) break
      after = orders.pageInfo.endCursor
    }
    const middle = all[Math.floor(all.length / 2)]?.submittedAt ?? ''
    const filters: [object, (order: Record<string, string>) => boolean][] = [
      [{ state: 'OPEN' }, ({ state }) => state === 'OPEN'],
      [{ statuses: ['FILLED', 'REJECTED'] }, ({ status }) => status === 'FILLED' || status === 'REJECTED'],
      [{ symbol: 'AAPL', side: 'SELL' }, ({ symbol, side }) => symbol === 'AAPL' && side === 'SELL'],
      [{ submittedAfter: middle }, ({ submittedAt }) => Date.parse(submittedAt ?? '') >= Date.parse(middle)],
      [
        { submittedBefore: middle, state: 'CLOSED' },
        ({ submittedAt, state }) => Date.parse(submittedAt ?? '') < Date.parse(middle) && state === 'CLOSED',
      ],
      [{ statuses: [] }, () => false],
    ]
    for (const [filter, keeps] of filters) {
      const found: { id: string }[] = []
      for (let after: string | null = null; ;) {
        const { orders } = await ask(desk, list, { accountId, filter, first: 100, after })
        expect(orders.isComplete).toBe(true)
        found.push(...orders.nodes)
        if (!orders.pageInfo.hasNextPage) break
        after = orders.pageInfo.endCursor
      }
      expect(
        found.map(({ id }) => id),
        JSON.stringify(filter),
      ).toEqual(all.filter(keeps).map(({ id }) => id))
    }
  })

  it('places an order once, cancels it, and says so by the same types', async () => {
    const desk = find()
    const input = limitBuy(desk.accountId)
    const { placeOrder: placed } = await ask(desk, place, { input })
    expect(placed).toMatchObject({
      __typename: 'OrderPlaced',
      outcome: 'PLACED',
      replayed: false,
      order: { symbol: 'AAPL', side: 'BUY', type: 'LIMIT', timeInForce: 'GTC', limitPrice: '10.00', quantity: '10' },
    })
    expect(placed.order.clientOrderId).toBe(input.clientOrderId)
    const { placeOrder: again } = await ask(desk, place, { input })
    expect(again).toMatchObject({ __typename: 'OrderPlaced', replayed: true, orderId: placed.orderId })

    const target = { orderId: placed.orderId, accountId: desk.accountId }
    const { cancelOrder: canceled } = await ask(desk, cancel, { input: target })
    expect(canceled).toMatchObject({
      __typename: 'CancelConfirmed',
      alreadyCanceled: false,
      order: { status: 'CANCELED', state: 'CLOSED', filledQuantity: '0', remainingQuantity: '10' },
    })
    const { cancelOrder: twice } = await ask(desk, cancel, { input: target })
    expect(twice).toMatchObject({ __typename: 'CancelConfirmed', alreadyCanceled: true })
  })

  it('rejects an order that the account cannot pay, and the key is spent', async () => {
    const desk = find()
    const input = limitBuy(desk.accountId, { quantity: '900000000', limitPrice: '100.00' })
    const { placeOrder: rejected } = await ask(desk, place, { input })
    expect(rejected).toMatchObject({
      __typename: 'OrderRejected',
      rejectionCode: 'INSUFFICIENT_FUNDS',
      replayed: false,
      brokerCode: expect.any(String),
      reason: expect.any(String),
    })
    const { placeOrder: again } = await ask(desk, place, { input })
    expect(again).toMatchObject({ __typename: 'OrderRejected', replayed: true, rejectionCode: 'INSUFFICIENT_FUNDS' })
  })
})

it('a list, a placement and a cancel have one shape for all brokers', async () => {
  const shapes: unknown[] = []
  for (const [, find] of desks) {
    const desk = find()
    const { accountId } = desk
    const { placeOrder } = await ask(desk, place, { input: limitBuy(accountId) })
    const { orders } = await ask(desk, list, { accountId, first: 1, filter: { state: 'OPEN' } })
    const { cancelOrder } = await ask(desk, cancel, { input: { orderId: placeOrder.orderId, accountId } })
    // What a broker does not tell is null, and that is all that may differ.
    for (const name of ['securityType', 'canceledAt', 'submittedAt']) {
      for (const order of [placeOrder.order, orders.nodes[0], cancelOrder.order]) {
        order[name] = null
      }
    }
    shapes.push(shapeOf({ placeOrder, orders, cancelOrder }))
  }
  expect(shapes[1]).toEqual(shapes[0])
  expect(shapes[2]).toEqual(shapes[0])
})

describe('one document over several brokers', () => {
  const document = `query ($bluum: ID!, $aries: ID!, $options: ID!) {
    bluum: orders(accountId: $bluum, first: 3) { nodes { id broker } }
    aries: orders(accountId: $aries, first: 3) { nodes { id broker } }
    options: orders(accountId: $options, first: 3) { nodes { id broker } }
    tradingAccounts { id broker }
  }`
  const toVariables = () => ({
    bluum: accounts.sandbox.accounts[0],
    aries: `aries:${accounts.sandbox.aries.accounts[0]}`,
    options: `aries:${accounts.sandbox.aries.accounts[1]}`,
  })
  const ariesPaths = '/v2/accounts/|/users/me/|^/v1/orders'

  it('answers for all of them', async () => {
    const { data, errors } = await accounts.run(document, toVariables())
    expect(errors).toBeUndefined()
    expect(data.bluum.nodes.map(({ broker }: { broker: string }) => broker)).toEqual(['BLUUM', 'BLUUM', 'BLUUM'])
    expect(data.aries.nodes.map(({ broker }: { broker: string }) => broker)).toEqual(['ARIES', 'ARIES', 'ARIES'])
    expect(data.options.nodes).toHaveLength(3)
    expect(data.tradingAccounts).toHaveLength(4)
  })

  it('orders of all of them are read by one ordersByIds, each at its broker', async () => {
    const { data } = await accounts.run(document, toVariables())
    const ids = [...data.bluum.nodes, ...data.aries.nodes, ...data.options.nodes].map(({ id }: { id: string }) => id)
    await accounts.clearCalls()
    const { data: read } = await accounts.run('query ($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }', { ids })
    expect(read.ordersByIds).toEqual(ids.map((id) => ({ id })))
    const calls = await accounts.calls()
    expect(calls.filter(({ path }) => path.startsWith('/v2/accounts/')).length).toBeLessThanOrEqual(4)
    expect(calls.filter(({ path }) => path.startsWith('/v1/trading/')).length).toBeLessThanOrEqual(3)
  })

  it.each([
    ['Aries', ariesPaths, 'bluum', ['aries', 'options']],
    ['Bluum', '/v1/trading/|^/v1/accounts', 'aries', ['bluum']],
  ])('%s that is down leaves the others alone, and its accounts are missing with an error', async (...row) => {
    const [name, path, alive, dead] = row
    await accounts.setRules({ match: { path }, fault: { kind: 'status', status: 503, body: 'down' } })
    const { data, errors } = await accounts.run(document, toVariables())
    expect(data[alive].nodes).toHaveLength(3)
    for (const alias of dead) {
      expect(data[alias]).toBeNull()
      expect(errors?.find((error) => error.path?.[0] === alias)?.extensions).toMatchObject({
        code: 'BROKER_UNAVAILABLE',
      })
    }
    const brokers = new Set(data.tradingAccounts.map(({ broker }: { broker: string }) => broker))
    expect([...brokers]).toEqual([name === 'Aries' ? 'BLUUM' : 'ARIES'])
    expect(errors?.find((error) => error.path?.[0] === 'tradingAccounts')).toMatchObject({
      message: expect.stringContaining(`The accounts at ${name} are missing`),
      extensions: { code: 'BROKER_UNAVAILABLE', requestId: expect.any(String) },
    })
  })

  it('with all of them down there is no list of accounts', async () => {
    await accounts.setRules({ match: {}, fault: { kind: 'status', status: 503, body: 'down' } })
    const { data, errors } = await accounts.run('{ tradingAccounts { id } }')
    expect(data).toEqual({ tradingAccounts: null })
    expect(errors).toMatchObject([{ path: ['tradingAccounts'], extensions: { code: 'BROKER_UNAVAILABLE' } }])
  })
})

describe("lists by status over Bluum's investors, whose one word for open orders covers two statuses", () => {
  const accountId = (): string => investors.sandbox.investors[0] ?? ''

  async function costOf(filter: object): Promise<string[]> {
    await investors.clearCalls()
    const { errors } = await investors.run(list, { accountId: accountId(), first: 50, filter })
    expect(errors).toBeUndefined()
    return (await investors.calls()).map(({ path }) => new URL(path, 'http://broker').searchParams.get('status') ?? '')
  }

  it('reads all open orders with one call', async () => {
    expect(await costOf({ state: 'OPEN' })).toEqual(['open'])
    expect(await costOf({ statuses: ['PARTIALLY_FILLED'] })).toEqual(['open'])
    expect(await costOf({ statuses: ['ACCEPTED', 'PARTIALLY_FILLED', 'FILLED'] })).toEqual(['open', 'filled'])
  })

  it('gives each open order once, also if it fills in part between two pages', async () => {
    const page = async (after: string | null) => {
      const { data } = await investors.run(list, { accountId: accountId(), first: 3, filter: { state: 'OPEN' }, after })
      return data.orders
    }
    const first = await page(null)
    const unread = first.nodes[0].id
    const fill = { quantity: '1', price: '1.00' }
    await investors.control('POST', `/orders/${unread}/fill`, fill)
    const ids: string[] = first.nodes.map(({ id }: { id: string }) => id)
    for (let next = first; next.pageInfo.hasNextPage;) {
      next = await page(next.pageInfo.endCursor)
      ids.push(...next.nodes.map(({ id }: { id: string }) => id))
    }
    const { data } = await investors.run(list, { accountId: accountId(), first: 100, filter: { state: 'OPEN' } })
    expect(ids).toEqual(data.orders.nodes.map(({ id }: { id: string }) => id))
  })
})

describe('the calls at Aries, which reads orders in lists only', () => {
  const accountId = (): string => `aries:${accounts.sandbox.aries.accounts[0]}`

  /** The calls of one document, as methods and paths without their queries. */
  async function costOf(document: string, variables: object = {}): Promise<string[]> {
    await accounts.clearCalls()
    const { errors } = await accounts.run(document, variables)
    expect(errors).toBeUndefined()
    return (await accounts.calls()).map(({ method, path }) => `${method} ${path.split('?')[0]}`)
  }

  async function listIds(filter: object = {}): Promise<string[]> {
    const { data } = await accounts.run(list, { accountId: accountId(), first: 100, filter })
    return data.orders.nodes.map(({ id }: { id: string }) => id)
  }

  const active = (): string => `GET /v2/accounts/${accounts.sandbox.aries.accounts[0]}/orders`
  const history = (): string => `${active()}/history`

  it('a page is the active list and one of the history for each 90 days back, an open-only one the active list alone', async () => {
    const variables = { accountId: accountId(), first: 100 }
    // Once for all, and only where more than 90 days are looked back: when the account was opened.
    await accounts.run(list, variables)
    const month = { submittedAfter: new Date(Date.now() - 30 * 86_400_000).toISOString() }
    expect(await costOf(list, { ...variables, filter: month })).toEqual([active(), history()])
    expect(await costOf(list, { ...variables, filter: { state: 'OPEN' } })).toEqual([active()])
    const open = { statuses: ['PENDING', 'ACCEPTED', 'PARTIALLY_FILLED', 'PENDING_CANCEL'] }
    expect(await costOf(list, { ...variables, first: 20, filter: open })).toEqual([active()])
    const [first, ...others] = await costOf(list, variables)
    expect([first, new Set(others)]).toEqual([active(), new Set([history()])])
    // The seeded orders are of January to March 2026.
    const quarters = Math.ceil((Date.now() - Date.UTC(2026, 0, 1)) / (90 * 86_400_000))
    expect(others.length).toBeLessThanOrEqual(quarters + 1)
  })

  it('four pages of one account at once share their calls', async () => {
    const page = (symbol: string) =>
      `${symbol}: orders(accountId: $accountId, filter: { symbol: "${symbol}" }) { nodes { id } }`
    const document = (symbols: string[]) => `query ($accountId: ID!) { ${symbols.map(page).join(' ')} }`
    const one = await costOf(document(['KO']), { accountId: accountId() })
    const four = await costOf(document(['AAPL', 'MSFT', 'KO', 'F']), { accountId: accountId() })
    // A call more where a second has begun between them.
    expect(four.length).toBeLessThanOrEqual(one.length + 1)
  })

  it('one open order is one call, and so are twenty aliases of ten', async () => {
    const [first = '', ...others] = await listIds({ state: 'OPEN' })
    expect(await costOf('query ($id: ID!) { order(id: $id) { status } }', { id: first })).toEqual([active()])
    const aliases = [first, ...others]
      .slice(0, 10)
      .flatMap((id, at) => [`a${at}: order(id: "${id}") { id }`, `b${at}: order(id: "${id}") { status }`])
    expect(await costOf(`{ ${aliases.join(' ')} }`)).toEqual([active()])
  })

  it('a hundred orders of an account, as entities, are at most three calls', async () => {
    const ids = await listIds()
    expect(ids).toHaveLength(100)
    const representations = ids.map((id) => ({ __typename: 'Order', id }))
    const entities =
      'query ($representations: [_Any!]!) { _entities(representations: $representations) { ... on Order { status } } }'
    expect((await costOf(entities, { representations })).length).toBeLessThanOrEqual(3)
  })

  it('an order that is known to have left the active list is found in one call', async () => {
    const id = (await listIds({ state: 'CLOSED' })).at(-1)
    expect(await costOf('query ($id: ID!) { order(id: $id) { status } }', { id })).toEqual([history()])
  })

  it('a placement with its look before is three calls, and one where client ids are certified; its answer is the order', async () => {
    const input = limitBuy(accountId(), { clientOrderId: randomUUID() })
    const placing = `mutation ($input: PlaceOrderInput!) {
      placeOrder(input: $input) { order { id symbol securityType status limitPrice clientOrderId submittedAt extendedHours } }
    }`
    expect(await costOf(placing, { input })).toEqual([active(), history(), 'POST /v1/orders'])
    const certified = await startHarness({ ARIES_CAPABILITIES: 'clientIdEcho' })
    onTestFinished(() => certified.close())
    const { data } = await certified.run(placing, { input: { ...input, clientOrderId: randomUUID() } })
    expect(data.placeOrder.order).toMatchObject({ symbol: 'AAPL', securityType: 'EQUITY', status: 'ACCEPTED' })
    expect((await certified.calls()).map(({ method, path }) => `${method} ${path}`)).toEqual([
      'POST /v1/oauth2/token',
      'POST /v1/orders',
    ])
  })

  it('a cancel is a read, the cancel, and a read', async () => {
    const { data } = await accounts.run(place, { input: limitBuy(accountId()) })
    const input = { orderId: data.placeOrder.orderId }
    expect(
      await costOf('mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) { outcome } }', { input }),
    ).toEqual([active(), 'POST /v1/orders/cancel', active()])
  })
})

describe('a broker that is not connected here', () => {
  /** A service over the same Bluum, without Aries. */
  async function startBluumOnly(): Promise<Harness> {
    const { url, apiKey, apiSecret } = accounts.sandbox
    const env = { BLUUM_URL: url, BLUUM_API_KEY: apiKey, BLUUM_API_SECRET: apiSecret, AUTH: 'none' }
    const harness = await startHarness(env, accounts.sandbox)
    onTestFinished(() => harness.close())
    return harness
  }

  it('is named in the error of each read, placement and cancel, without a call', async () => {
    const bluumOnly = await startBluumOnly()
    const { errors } = await bluumOnly.run(
      '{ order(id: "aries:ACC-1:ORDER-1") { id } orders(accountId: "aries:ACC-1") { isComplete } }',
    )
    expect(errors).toMatchObject([
      { message: expect.stringContaining('ARIES'), extensions: { code: 'BAD_USER_INPUT' } },
      { message: expect.stringContaining('ARIES'), extensions: { code: 'BAD_USER_INPUT' } },
    ])
    const { data: placed } = await bluumOnly.run(place, { input: limitBuy('aries:ACC-1') })
    expect(placed.placeOrder).toMatchObject({
      __typename: 'OrderInvalid',
      problems: [{ field: ['input', 'accountId'], code: 'NOT_SUPPORTED' }],
    })
    const byId = await bluumOnly.run(
      'mutation { cancelOrder(input: { orderId: "aries:ACC-1:1" }) { ... on CancelInvalid { problems { field code } } } }',
    )
    expect(byId.data.cancelOrder.problems).toEqual([{ field: ['input', 'orderId'], code: 'NOT_SUPPORTED' }])
    const byKey = await bluumOnly.run(
      'mutation { cancelOrder(input: { accountId: "aries:ACC-1", clientOrderId: "key-00001" }) { ... on CancelInvalid { problems { field code } } } }',
    )
    expect(byKey.data.cancelOrder.problems).toEqual([{ field: ['input', 'accountId'], code: 'NOT_SUPPORTED' }])
    const { data: list } = await bluumOnly.run('{ tradingAccounts { broker } }')
    expect(list.tradingAccounts).toEqual([{ broker: 'BLUUM' }, { broker: 'BLUUM' }])
    expect((await accounts.calls()).filter(({ method }) => method === 'POST')).toEqual([])
  })
})
