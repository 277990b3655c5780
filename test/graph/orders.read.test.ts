// Reading through the front door, over the sandbox and real HTTP. What a read costs is counted where it is paid: in
// the broker's request log.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startForTest, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness({ BREAKER: 'off' })
})
afterAll(() => harness.close())
afterEach(async () => {
  await harness.setRules()
  await harness.control('PUT', '/switches', { listEnvelope: 'array', errorEnvelope: 'flat', partialRows: false })
  await harness.clearCalls()
})

const everyField = `
  id broker account { id broker } asset { symbol } symbol securityType
  legs { symbol securityType side ratio right strikePrice expiration }
  currency clientOrderId side type timeInForce quantity notional limitPrice stopPrice trailPercent trailPrice
  extendedHours status brokerStatus state isCancelable filledQuantity remainingQuantity averagePrice
  commission commissionType submittedAt filledAt canceledAt rejectReason`

const listOrders = `query List($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {
  orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {
    edges { cursor node { ${everyField} } }
    nodes { id }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    isComplete
  }
}`

const readOne = `query Read($id: ID!, $accountId: ID) { order(id: $id, accountId: $accountId) { ${everyField} } }`

interface Row {
  id: string
  status: string
  symbol: string
  side: string
  submittedAt: string
}

/** Walks a whole list page by page; the ids in the order of the pages. */
async function walk(accountId: string, first: number, filter?: object): Promise<Row[]> {
  const rows: Row[] = []
  let after: string | null = null
  for (let page = 0; page < 500; page++) {
    const { data, errors } = await harness.run(listOrders, { accountId, filter, first, after })
    expect(errors).toBeUndefined()
    rows.push(...data.orders.edges.map((edge: { node: Row }) => edge.node))
    if (!data.orders.pageInfo.hasNextPage) return rows
    after = data.orders.pageInfo.endCursor
  }
  throw new Error('the list does not end')
}

describe('one order', () => {
  it('answers every field as the broker has it', async () => {
    const { filledOrderId } = harness.sandbox.demo
    const { data, errors } = await harness.run(readOne, { id: filledOrderId })
    expect(errors).toBeUndefined()
    const [booked] = (await harness.book()).filter((order) => order.id === filledOrderId)
    expect(data.order).toMatchObject({
      id: filledOrderId,
      broker: 'BLUUM',
      account: { id: harness.accountId, broker: 'BLUUM' },
      asset: { symbol: booked?.symbol },
      symbol: booked?.symbol,
      securityType: null,
      legs: [],
      currency: 'USD',
      status: 'FILLED',
      brokerStatus: 'filled',
      state: 'CLOSED',
      isCancelable: false,
      filledQuantity: booked?.filled_qty,
      remainingQuantity: booked?.remaining_qty,
      averagePrice: booked?.average_price,
      submittedAt: booked?.submitted_at,
      filledAt: booked?.filled_at,
      canceledAt: null,
      rejectReason: null,
    })
  })

  it('is null without an error when the broker knows none of the id', async () => {
    const { data, errors } = await harness.run(readOne, { id: 'ord_doesnotexist0000' })
    expect(data).toEqual({ order: null })
    expect(errors).toBeUndefined()
  })

  it('is null when it belongs to another account than the one named', async () => {
    const id = harness.sandbox.demo.filledOrderId
    const foreign = await harness.run(readOne, { id, accountId: harness.sandbox.accounts[1] })
    expect(foreign.data).toEqual({ order: null })
    expect(foreign.errors).toBeUndefined()
    const own = await harness.run(readOne, { id, accountId: harness.accountId })
    expect(own.data.order.id).toBe(id)
  })

  it.each(['../accounts', 'a/b', '', '.', '..', 'a'.repeat(129), 'ord_%2e%2e', 'ord 1'])(
    'refuses %j as an id, names the argument, and makes no call',
    async (id) => {
      const { data, errors } = await harness.run(readOne, { id })
      expect(data).toEqual({ order: null })
      expect(errors?.[0]).toMatchObject({
        message: expect.stringMatching(/^id /),
        extensions: { code: 'BAD_USER_INPUT' },
      })
      expect(await harness.calls()).toEqual([])
    },
  )
})

describe('calls', () => {
  it('C22 loads one order once for twenty aliases', async () => {
    const id = harness.sandbox.demo.filledOrderId
    const aliases = Array.from({ length: 20 }, (_, index) => `o${index}: order(id: "${id}") { id status }`)
    const { data, errors } = await harness.run(`{ ${aliases.join(' ')} }`)
    expect(errors).toBeUndefined()
    expect(Object.keys(data)).toHaveLength(20)
    expect(await harness.calls()).toHaveLength(1)
  })

  it('loads ten orders with ten calls for twenty aliases, fragments, ordersByIds and entities', async () => {
    const ids = (await harness.book()).slice(0, 10).map((order) => String(order.id))
    const aliases = ids.flatMap((id, index) => [
      `a${index}: order(id: "${id}") { id ...Size }`,
      `b${index}: order(id: "${id}", accountId: "${harness.accountId}") { status }`,
    ])
    const { data, errors } = await harness.run(
      `query All($ids: [ID!]!, $representations: [_Any!]!) {
        ${aliases.join(' ')}
        ordersByIds(ids: $ids) { id }
        _entities(representations: $representations) { ... on Order { id symbol } }
      }
      fragment Size on Order { quantity filledQuantity }`,
      {
        ids: [...ids].reverse(),
        representations: ids.map((id) => ({ __typename: 'Order', id, account: { id: harness.accountId } })),
      },
    )
    expect(errors).toBeUndefined()
    expect(data.ordersByIds.map((order: Row) => order.id)).toEqual([...ids].reverse())
    expect(data._entities.map((order: Row) => order.id)).toEqual(ids)
    expect((await harness.calls()).length).toBeLessThanOrEqual(10)
  })

  it('reads a page of 100 with every field in one call', async () => {
    const selection = listOrders.replace('pageInfo { hasNextPage hasPreviousPage startCursor endCursor }', '')
    const { data, errors } = await harness.run(selection, { accountId: harness.accountId, first: 100 })
    expect(errors).toBeUndefined()
    expect(data.orders.edges).toHaveLength(100)
    expect(await harness.calls()).toHaveLength(1)
  })

  it('takes a second call for a full page of 100 only where hasNextPage needs it', async () => {
    const { data } = await harness.run(listOrders, { accountId: harness.accountId, first: 100 })
    expect(data.orders.pageInfo.hasNextPage).toBe(true)
    expect(await harness.calls()).toHaveLength(2)
    await harness.clearCalls()
    const other = harness.sandbox.accounts[1]
    const short = await harness.run(listOrders, { accountId: other, first: 100 })
    expect(short.data.orders.pageInfo.hasNextPage).toBe(false)
    expect(await harness.calls()).toHaveLength(1)
  })

  it('loads lists that mean the same once, across aliases and the account', async () => {
    const { errors } = await harness.run(
      `query Same($accountId: ID!) {
        a: orders(accountId: $accountId, filter: { state: OPEN }, first: 5) { nodes { id } }
        b: orders(accountId: $accountId, filter: { statuses: [PARTIALLY_FILLED, ACCEPTED] }, first: 5) { nodes { id } }
        c: tradingAccount(id: $accountId) { orders(filter: { state: OPEN }, first: 5) { nodes { id } pageInfo { hasNextPage } } }
      }`,
      { accountId: harness.accountId },
    )
    expect(errors).toBeUndefined()
    expect(await harness.calls()).toHaveLength(2)
  })

  it('asks nothing for what the broker cannot have', async () => {
    for (const filter of [
      { statuses: ['EXPIRED'] },
      { side: 'SELL_SHORT' },
      { statuses: ['FILLED'], state: 'OPEN' },
      { statuses: [] },
    ]) {
      const { data, errors } = await harness.run(listOrders, { accountId: harness.accountId, filter })
      expect(errors).toBeUndefined()
      expect(data.orders).toMatchObject({
        edges: [],
        isComplete: true,
        pageInfo: { hasNextPage: false, endCursor: null },
      })
    }
    expect(await harness.calls()).toEqual([])
  })

  it('a page read in the same document answers for its orders', async () => {
    const { data, errors } = await harness.run(
      `query Primed($accountId: ID!) {
        orders(accountId: $accountId, first: 3) { nodes { id account { orders(first: 3) { nodes { id extendedHours } } } } }
      }`,
      { accountId: harness.accountId },
    )
    expect(errors).toBeUndefined()
    expect(data.orders.nodes).toHaveLength(3)
    expect(await harness.calls()).toHaveLength(1)
  })
})

describe('lists', () => {
  it('gives each order exactly once when paged by 50, newest first', async () => {
    const booked = await harness.book()
    expect(booked.length).toBeGreaterThanOrEqual(200)
    const rows = await walk(harness.accountId, 50)
    expect(rows.map((row) => row.id)).toEqual(booked.map((order) => order.id))
    const times = rows.map((row) => row.submittedAt)
    expect([...times].sort().reverse()).toEqual(times)
  })

  it.each([
    [{ statuses: ['FILLED', 'CANCELED'] }, (row: Row) => ['FILLED', 'CANCELED'].includes(row.status)],
    [
      { statuses: ['REJECTED', 'ACCEPTED', 'PARTIALLY_FILLED'] },
      (row: Row) => !['FILLED', 'CANCELED'].includes(row.status),
    ],
    [{ state: 'CLOSED' }, (row: Row) => ['FILLED', 'CANCELED', 'REJECTED'].includes(row.status)],
    [{ state: 'OPEN', statuses: ['ACCEPTED', 'FILLED'] }, (row: Row) => row.status === 'ACCEPTED'],
    [{ side: 'SELL' }, (row: Row) => row.side === 'SELL'],
    [{ symbol: 'AAPL', side: 'BUY' }, (row: Row) => row.symbol === 'AAPL' && row.side === 'BUY'],
    [
      { symbol: 'AAPL', state: 'CLOSED' },
      (row: Row) => row.symbol === 'AAPL' && !['ACCEPTED', 'PARTIALLY_FILLED'].includes(row.status),
    ],
  ])('filters by %j, page by page', async (filter, keeps) => {
    const all = await walk(harness.accountId, 100)
    const kept = all.filter(keeps).map((row) => row.id)
    expect(kept.length).toBeGreaterThan(0)
    const walked = await walk(harness.accountId, 7, filter)
    expect(walked.map((row) => row.id).toSorted()).toEqual(kept.toSorted())
    const times = walked.map((row) => row.submittedAt)
    expect([...times].sort().reverse()).toEqual(times)
  })

  it.each(['newestFirst', 'oldestFirst'])(
    'walks a changing list that the broker sorts %s: each order once',
    async (order) => {
      const own = await startForTest({ BREAKER: 'off' })
      const account = own.sandbox.accounts[1] ?? ''
      await own.control('DELETE', `/book?account=${account}`)
      const put = async (minute: number) => {
        const at = new Date(Date.UTC(2026, 3, 1, 0, minute)).toISOString().replace('.000', '')
        const fields = { symbol: 'KO', side: 'buy', type: 'limit', qty: '1', limit_price: '1.00', time_in_force: 'gtc' }
        const body = { account, ...fields, submitted_at: at }
        return ((await own.control('POST', '/orders', body)) as { id: string }).id
      }
      const ids: string[] = []
      // Two of each minute.
      for (let index = 0; index < 60; index++) ids.push(await put(Math.floor(index / 2)))
      await own.setRules({ match: { path: '/orders\\?' }, fault: { kind: 'listOrder', order } })
      for (const filter of [undefined, { state: 'OPEN' }, { statuses: ['ACCEPTED', 'CANCELED', 'FILLED'] }]) {
        const seen: string[] = []
        let after: string | null = null
        for (let page = 0; ; page++) {
          const { data, errors }: Answer = await own.run(listOrders, { accountId: account, filter, first: 7, after })
          expect(errors).toBeUndefined()
          expect(data.orders.isComplete).toBe(true)
          seen.push(...data.orders.nodes.map((node: Row) => node.id))
          if (!data.orders.pageInfo.hasNextPage) break
          after = data.orders.pageInfo.endCursor
          // New orders arrive; one that was shown and one that was not move on to another status.
          await put(100 + page)
          const [shown, coming] = [seen.at(-3), ids.toReversed().find((id) => !seen.includes(id))]
          if (filter?.statuses && shown && coming) {
            await own.control('POST', `/orders/${shown}/status`, { status: 'filled' })
            await own.control('POST', `/orders/${coming}/status`, { status: 'canceled' })
          }
          expect(page).toBeLessThan(30)
        }
        expect(new Set(seen).size).toBe(seen.length)
        const open = (await own.book(account))
          .filter((booked) => booked.status === 'accepted')
          .map((booked) => booked.id)
        const due = filter?.state ? ids.filter((id) => open.includes(id)) : ids
        expect(due.filter((id) => !seen.includes(id))).toEqual([])
        // For the next filter all is as it was.
        for (const id of ids) await own.control('POST', `/orders/${id}/status`, { status: 'accepted' })
      }
    },
  )

  it('shows an order that fills between the two lists of a page once, as filled', async () => {
    const own = await startForTest()
    const id = own.sandbox.demo.openOrderId
    await own.setRules({ match: { path: 'status=filled' }, fault: { kind: 'latency', ms: 500 } })
    const reading = own.run(listOrders, {
      accountId: own.accountId,
      filter: { statuses: ['ACCEPTED', 'FILLED'] },
      first: 100,
    })
    await expect.poll(async () => (await own.calls()).some(({ path }) => path.includes('status=filled'))).toBe(true)
    await own.control('POST', `/orders/${id}/status`, { status: 'filled' })
    const { data, errors } = await reading
    expect(errors).toBeUndefined()
    const shown = data.orders.edges.map((edge: { node: Row }) => edge.node).filter((row: Row) => row.id === id)
    expect(shown).toMatchObject([{ id, status: 'FILLED' }])
  })

  it('resumes after any row, not only the last one of a page', async () => {
    const filter = { state: 'CLOSED' }
    const whole = await harness.run(listOrders, { accountId: harness.accountId, filter, first: 20 })
    const { edges } = whole.data.orders
    for (const at of [0, 7, 18]) {
      const rest = await harness.run(listOrders, {
        accountId: harness.accountId,
        filter,
        first: 100,
        after: edges[at].cursor,
      })
      expect(rest.data.orders.pageInfo.hasPreviousPage).toBe(true)
      expect(rest.data.orders.edges[0].node.id).toBe(edges[at + 1].node.id)
    }
  })

  it.each(['x', '', 'WzFd', 'W10', 'e30', '!!!', 'AQEBAQEBAQEBAQEBAQ', 'a'.repeat(2_000), 'a'.repeat(40_000)])(
    'refuses %j as a cursor',
    async (after) => {
      const { data, errors } = await harness.run(listOrders, { accountId: harness.accountId, after })
      expect(data).toEqual({ orders: null })
      expect(errors?.[0]).toMatchObject({
        message: expect.stringContaining('after'),
        extensions: { code: 'CURSOR_INVALID' },
      })
      expect(await harness.calls()).toEqual([])
    },
  )

  it('refuses a cursor that was changed, and takes one again after a restart', async () => {
    const { data } = await harness.run(listOrders, { accountId: harness.accountId, first: 2 })
    const cursor = Buffer.from(data.orders.pageInfo.endCursor, 'base64url')
    const second = await startForTest()
    const resumed = await second.run(listOrders, {
      accountId: harness.accountId,
      first: 2,
      after: cursor.toString('base64url'),
    })
    expect(resumed.errors).toBeUndefined()
    const text = cursor.toString('base64url')
    for (const after of [`${text}!`, `${text}=`, ` ${text}`, `${text}\n`]) {
      const { errors } = await harness.run(listOrders, { accountId: harness.accountId, first: 2, after })
      expect(errors?.[0]?.extensions.code).toBe('CURSOR_INVALID')
    }
    for (let index = 0; index < cursor.length; index += 5) {
      const changed = Buffer.from(cursor)
      changed[index] = (changed[index] ?? 0) ^ 1
      const { errors } = await harness.run(listOrders, {
        accountId: harness.accountId,
        first: 2,
        after: changed.toString('base64url'),
      })
      expect(errors?.[0]?.extensions.code).toBe('CURSOR_INVALID')
    }
  })

  it('lists what was submitted in a span of time, page by page', async () => {
    const all = await walk(harness.accountId, 100)
    const [from, to] = [all[120]?.submittedAt ?? '', all[40]?.submittedAt ?? '']
    const expected = all.filter((row) => row.submittedAt >= from && row.submittedAt < to).map((row) => row.id)
    expect(expected.length).toBeGreaterThan(50)
    const filter = { submittedAfter: from, submittedBefore: to }
    expect((await walk(harness.accountId, 9, filter)).map((row) => row.id)).toEqual(expected)
    const open = (await walk(harness.accountId, 9, { ...filter, state: 'OPEN' })).map((row) => row.id)
    expect(open).toEqual(
      all
        .filter((row) => expected.includes(row.id) && ['ACCEPTED', 'PARTIALLY_FILLED'].includes(row.status))
        .map((row) => row.id),
    )
  })

  it('refuses a cursor of another filter, symbol or account', async () => {
    const { data } = await harness.run(listOrders, { accountId: harness.accountId, first: 1 })
    const after = data.orders.pageInfo.endCursor
    await harness.clearCalls()
    for (const variables of [
      { accountId: harness.accountId, filter: { statuses: ['FILLED'] }, after },
      { accountId: harness.accountId, filter: { symbol: 'AAPL' }, after },
      { accountId: harness.sandbox.accounts[1], after },
    ]) {
      const { errors } = await harness.run(listOrders, variables)
      expect(errors?.[0]?.extensions.code).toBe('CURSOR_INVALID')
    }
    expect(await harness.calls()).toEqual([])
  })

  it.each([0, -1, 101])('refuses first: %i and names the bounds', async (first) => {
    const { errors } = await harness.run(listOrders, { accountId: harness.accountId, first })
    expect(errors?.[0]).toMatchObject({
      message: 'first must be from 1 to 100.',
      extensions: { code: 'BAD_USER_INPUT' },
    })
    expect(await harness.calls()).toEqual([])
  })

  it.each(['aapl', 'BRK B', 'M&M', 'AAPL  260116C00250000', 'Ünï'])('takes the filter symbol %s', async (symbol) => {
    const { data, errors } = await harness.run(listOrders, { accountId: harness.accountId, filter: { symbol } })
    expect(errors).toBeUndefined()
    expect(data.orders.nodes).toEqual([])
  })

  it.each(['', ' A', 'A\u0007', 'A'.repeat(201)])(
    'refuses the filter symbol %j, and names the field',
    async (symbol) => {
      const { errors } = await harness.run(listOrders, { accountId: harness.accountId, filter: { symbol } })
      expect(errors?.[0]).toMatchObject({
        message: expect.stringContaining('filter.symbol'),
        extensions: { code: 'BAD_USER_INPUT' },
      })
    },
  )

  it('refuses more than 100 ids at once', async () => {
    const ids = Array.from({ length: 101 }, (_, index) => `ord_${index}`)
    const { errors } = await harness.run('query Ids($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }', { ids })
    expect(errors?.[0]).toMatchObject({ message: 'ids: at most 100 at once.', extensions: { code: 'BAD_USER_INPUT' } })
    expect(await harness.calls()).toEqual([])
  })

  it('says so when the broker does not know the account', async () => {
    const { data, errors } = await harness.run(
      'query A($id: ID!) { tradingAccount(id: $id) { id orders { nodes { id } } } }',
      { id: '00000000-0000-4000-8000-000000000000' },
    )
    expect(data.tradingAccount).toEqual({ id: '00000000-0000-4000-8000-000000000000', orders: null })
    expect(errors?.[0]).toMatchObject({
      message: expect.stringContaining('accountId'),
      extensions: { code: 'BAD_USER_INPUT' },
    })
  })

  it('lists the accounts that the brokers list', async () => {
    const { accounts, aries } = harness.sandbox
    const { data } = await harness.run('{ tradingAccounts { id broker } }')
    expect(data.tradingAccounts).toEqual([
      ...accounts.map((id) => ({ id, broker: 'BLUUM' })),
      ...aries.accounts.map((name) => ({ id: `aries:${name}`, broker: 'ARIES' })),
    ])
  })

  it('reads both shapes of list, and rows with fewer fields', async () => {
    const plain = await harness.run(listOrders, { accountId: harness.accountId, first: 20 })
    await harness.control('PUT', '/switches', { listEnvelope: 'object' })
    const wrapped = await harness.run(listOrders, { accountId: harness.accountId, first: 20 })
    expect(wrapped.data).toEqual(plain.data)
  })
})

describe('rows that leave fields out', () => {
  const listed = (fields: string) =>
    `query L($accountId: ID!, $first: Int) { orders(accountId: $accountId, first: $first) { nodes { id ${fields} } } }`

  beforeEach(() => harness.control('PUT', '/switches', { partialRows: true }))

  it('cost nothing where none of those fields is selected', async () => {
    const { errors } = await harness.run(listed('status symbol quantity submittedAt'), {
      accountId: harness.accountId,
      first: 50,
    })
    expect(errors).toBeUndefined()
    expect(await harness.calls()).toHaveLength(1)
  })

  it('are completed by one read each, and say then what a single read says', async () => {
    const fields = 'currency clientOrderId extendedHours commission commissionType'
    const { data, errors } = await harness.run(listed(fields), { accountId: harness.accountId, first: 10 })
    expect(errors).toBeUndefined()
    expect(await harness.calls()).toHaveLength(1 + 10)
    for (const node of data.orders.nodes) {
      const single = await harness.run(`{ order(id: "${node.id}") { id ${fields} } }`)
      expect(single.data.order).toEqual(node)
    }
  })

  it('are completed for every order that is queried by its id, also if a list answered it', async () => {
    const ids = (await harness.book()).slice(0, 15).map((order) => String(order.id))
    for (let run = 0; run < 2; run++) {
      const { data, errors } = await harness.run(
        'query I($ids: [ID!]!) { ordersByIds(ids: $ids) { id extendedHours } }',
        { ids },
      )
      expect(errors).toBeUndefined()
      expect(data.ordersByIds.every((order: { extendedHours: boolean | null }) => order.extendedHours !== null)).toBe(
        true,
      )
    }
  })

  it('are completed for ten rows an operation; beyond, the field is null and says why', async () => {
    const { data, errors } = await harness.run(listed('extendedHours'), { accountId: harness.accountId, first: 13 })
    const told = data.orders.nodes.map((node: { extendedHours: boolean | null }) => node.extendedHours !== null)
    expect(told.filter(Boolean)).toHaveLength(10)
    expect(errors).toHaveLength(3)
    for (const error of errors ?? []) {
      expect(error).toMatchObject({
        path: ['orders', 'nodes', expect.any(Number), 'extendedHours'],
        extensions: { code: 'RATE_LIMITED' },
      })
    }
    expect(await harness.calls()).toHaveLength(1 + 10)
  })
})

describe('trouble', () => {
  const id = () => harness.sandbox.demo.filledOrderId

  it.each([
    ['a broker that refuses connections', { kind: 'refuse' }, 'BROKER_UNAVAILABLE'],
    ['a broker that resets the connection', { kind: 'rstBeforeRead' }, 'BROKER_UNAVAILABLE'],
    [
      'a broker that answers 502 with HTML',
      { kind: 'status', status: 502, body: '<h1>Bad gateway</h1>', contentType: 'text/html', when: 'beforeCommit' },
      'BROKER_UNAVAILABLE',
    ],
    [
      'a broker that answers 404 with HTML',
      { kind: 'status', status: 404, body: '<h1>Not found</h1>', contentType: 'text/html', when: 'beforeCommit' },
      'BROKER_BAD_RESPONSE',
    ],
    [
      'a broker that answers 200 with HTML',
      { kind: 'status', status: 200, body: '<h1>Welcome</h1>', contentType: 'text/html', when: 'beforeCommit' },
      'BROKER_BAD_RESPONSE',
    ],
    ['C13 a broker that answers JSON as HTML', { kind: 'contentType', value: 'text/html' }, 'BROKER_BAD_RESPONSE'],
    ['a broker that answers garbage', { kind: 'invalidJson' }, 'BROKER_BAD_RESPONSE'],
    ['C04 a broker that cuts the body', { kind: 'truncate' }, 'BROKER_BAD_RESPONSE'],
    ['C20 a broker that answers nothing', { kind: 'emptyBody' }, 'BROKER_BAD_RESPONSE'],
    ['C20 a broker that answers 204', { kind: 'emptyBody', status: 204 }, 'BROKER_BAD_RESPONSE'],
    [
      'C16 a broker that answers with another order',
      { kind: 'setField', field: 'id', value: 'ord_another' },
      'BROKER_BAD_RESPONSE',
    ],
    ['a broker that answers without a status', { kind: 'dropField', field: 'status' }, 'BROKER_BAD_RESPONSE'],
    [
      'a broker that answers a number for a symbol that is an object',
      { kind: 'setField', field: 'symbol', value: { a: 1 } },
      'BROKER_BAD_RESPONSE',
    ],
    [
      'a broker that redirects',
      { kind: 'status', status: 307, headers: { location: 'http://127.0.0.1:9/' }, when: 'beforeCommit' },
      'BROKER_BAD_RESPONSE',
    ],
  ])('%s never becomes data', async (_, fault, code) => {
    await harness.setRules({ match: { method: 'GET' }, fault })
    const { status, data, errors } = await harness.run(readOne, { id: id() })
    expect(status).toBe(200)
    expect(data).toEqual({ order: null })
    expect(errors).toHaveLength(1)
    expect(errors?.[0]).toMatchObject({ path: ['order'], extensions: { code, requestId: expect.any(String) } })
    expect(JSON.stringify(errors)).not.toMatch(/<h1>|sandbox-|127\.0\.0\.1/)
    await harness.setRules()
    const healed = await harness.run(readOne, { id: id() })
    expect(healed.data.order.id).toBe(id())
  })

  it('a broker that says wait is RATE_LIMITED with its time', async () => {
    const body = { code: 'BLUM-429-001', message: 'Slow down.' }
    await harness.setRules({
      fault: { kind: 'status', status: 429, body, headers: { 'retry-after': '2' }, when: 'beforeCommit' },
    })
    const { errors } = await harness.run(readOne, { id: id() })
    expect(errors?.[0]?.extensions).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 2_000 })
  })

  it('E10 a broker that refuses our credential is unavailable, not the caller forbidden', async () => {
    const body = { code: 'BLUM-401-003', message: 'Key or secret is wrong.' }
    await harness.setRules({ fault: { kind: 'status', status: 401, body, when: 'beforeCommit' } })
    const { status, errors } = await harness.run(readOne, { id: id() })
    expect(status).toBe(200)
    expect(errors?.[0]).toMatchObject({ extensions: { code: 'BROKER_UNAVAILABLE' } })
    expect(await harness.calls()).toHaveLength(1)
  })

  it('one failing order fails alone, in every field that reads it', async () => {
    const ids = (await harness.book()).slice(0, 3).map((order) => String(order.id))
    await harness.setRules(
      { match: { path: `/trading/orders/${ids[1]}` }, fault: { kind: 'invalidJson' } },
      { match: { path: '/orders\\?' }, fault: { kind: 'dropField', field: 'status', row: 1 } },
    )
    const { data, errors } = await harness.run(
      `query Three($ids: [ID!]!, $representations: [_Any!]!) {
        a: order(id: "${ids[0]}") { id } b: order(id: "${ids[1]}") { id } c: order(id: "${ids[2]}") { id }
        ordersByIds(ids: $ids) { id }
        _entities(representations: $representations) { ... on Order { id } }
      }`,
      {
        ids,
        representations: [...ids.map((one) => ({ __typename: 'Order', id: one })), { __typename: 'Order', id: '../x' }],
      },
    )
    expect(data).toEqual({
      a: { id: ids[0] },
      b: null,
      c: { id: ids[2] },
      ordersByIds: [{ id: ids[0] }, null, { id: ids[2] }],
      _entities: [{ id: ids[0] }, null, { id: ids[2] }, null],
    })
    expect(errors?.map((error) => error.path?.join('.')).toSorted()).toEqual([
      '_entities.1',
      '_entities.3',
      'b',
      'ordersByIds.1',
    ])
  })

  it('C05 one bad row is null with an error, and the others stand', async () => {
    await harness.setRules({ match: { path: '/orders\\?' }, fault: { kind: 'dropField', field: 'status', row: 2 } })
    const { data, errors } = await harness.run(
      'query L($accountId: ID!) { orders(accountId: $accountId, first: 5) { nodes { id } pageInfo { hasNextPage } } }',
      { accountId: harness.accountId },
    )
    expect(data.orders.nodes.map((node: Row | null) => node !== null)).toEqual([true, true, false, true, true])
    expect(errors).toHaveLength(1)
    expect(errors?.[0]).toMatchObject({ path: ['orders', 'nodes', 2], extensions: { code: 'BROKER_BAD_RESPONSE' } })
  })

  it('a garbled nullable field is null with an error of its own, and the order remains', async () => {
    await harness.setRules({ fault: { kind: 'setField', field: 'filled_qty', value: { amount: '1' } } })
    const { data, errors } = await harness.run(readOne, { id: id() })
    expect(data.order).toMatchObject({ id: id(), status: 'FILLED', filledQuantity: null })
    expect(errors).toHaveLength(1)
    expect(errors?.[0]).toMatchObject({
      path: ['order', 'filledQuantity'],
      extensions: { code: 'BROKER_BAD_RESPONSE' },
    })
  })

  /** An order that nobody has read yet: what was shown of another could not be taken back. */
  async function placeOne(): Promise<string> {
    const order = { account: harness.accountId, symbol: 'KO', side: 'buy', type: 'limit', time_in_force: 'gtc' }
    const placed = await harness.control('POST', '/orders', { ...order, qty: '10', limit_price: '1.00' })
    return (placed as { id: string }).id
  }

  it('an unknown word is UNKNOWN and keeps what the broker said', async () => {
    const fresh = await placeOne()
    await harness.setRules({ fault: { kind: 'setField', field: 'status', value: 'held_for_review' } })
    const { data, errors } = await harness.run(readOne, { id: fresh })
    expect(errors).toBeUndefined()
    expect(data.order).toMatchObject({
      status: 'UNKNOWN',
      brokerStatus: 'held_for_review',
      state: null,
      isCancelable: true,
    })
  })

  it.each(['0.1000000000000000055', '12345678901234567890', '0.000000001'])(
    'C07 keeps the digits of the number %s',
    async (source) => {
      const fresh = await placeOne()
      await harness.setRules({ fault: { kind: 'asNumber', field: 'filled_qty', source } })
      const { data, errors } = await harness.run(readOne, { id: fresh })
      expect(errors).toBeUndefined()
      expect(data.order.filledQuantity).toBe(source)
    },
  )

  it('C21 shows only matching orders if the broker ignores the filter', async () => {
    await harness.setRules({
      match: { path: '/orders\\?' },
      fault: { kind: 'setField', field: 'status', value: 'canceled' },
    })
    const { data, errors } = await harness.run(listOrders, {
      accountId: harness.accountId,
      filter: { statuses: ['FILLED'] },
      first: 5,
    })
    expect(errors).toBeUndefined()
    expect(data.orders.edges).toEqual([])
    expect((await harness.calls()).length).toBeLessThanOrEqual(20)
  })

  it('a body that comes in drop by drop, within the deadline, is read whole', async () => {
    await harness.setRules({ match: { path: '/trading/orders/' }, fault: { kind: 'drip', bytesPerSecond: 20_000 } })
    const { data, errors } = await harness.run(readOne, { id: id() })
    expect(errors).toBeUndefined()
    expect(data.order.id).toBe(id())
  })
})
