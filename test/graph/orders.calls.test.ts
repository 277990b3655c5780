// What reads cost, counted at the broker: list batching, single flight, the rate as the broker sees it, and cancels
// that do not wait behind reads.

import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { startForTest, startForTestApart } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

async function idsOf(harness: Harness): Promise<string[]> {
  return (await harness.book()).map((order) => String(order.id))
}

const entities = `query E($representations: [_Any!]!) { _entities(representations: $representations) { ... on Order { id status } } }`

describe('orders of a known account', () => {
  it.each([
    ['the newest 100', (ids: string[]) => ids.slice(0, 100)],
    ['100 all over the list', (ids: string[]) => ids.filter((_, index) => index % 12 < 5).slice(0, 100)],
  ])('100 entities, %s, are at most 3 calls', async (_, pick) => {
    const harness = await startForTest()
    const ids = pick(await idsOf(harness))
    expect(ids).toHaveLength(100)
    const representations = ids.map((id) => ({ __typename: 'Order', id, account: { id: harness.accountId } }))
    const { data, errors } = await harness.run(entities, { representations })
    expect(errors).toBeUndefined()
    expect(data._entities.map((order: { id: string }) => order.id)).toEqual(ids)
    expect((await harness.calls()).length).toBeLessThanOrEqual(3)
  })

  it('20 aliases of 10 orders are 1 or 2 calls when the account is named', async () => {
    const harness = await startForTest()
    const ids = (await idsOf(harness)).slice(20, 30)
    const aliases = [...ids, ...ids].map(
      (id, index) => `o${index}: order(id: "${id}", accountId: "${harness.accountId}") { id }`,
    )
    const { data, errors } = await harness.run(`{ ${aliases.join(' ')} }`)
    expect(errors).toBeUndefined()
    expect(data.o19.id).toBe(ids[9])
    expect((await harness.calls()).length).toBeLessThanOrEqual(2)
  })

  it('few orders that are known to be old are read by id, without a wasted list', async () => {
    const harness = await startForTest()
    const ids = (await idsOf(harness)).slice(150, 160)
    const aliases = ids.map((id, index) => `o${index}: order(id: "${id}", accountId: "${harness.accountId}") { id }`)
    const document = `{ ${aliases.join(' ')} }`
    // The first time nobody knows how old they are.
    await harness.run(document)
    expect((await harness.calls()).length).toBeLessThanOrEqual(11)
    // The direction of the list shows with its first call, so what it says of recent orders is known from the second on.
    await harness.run(document)
    await harness.clearCalls()
    const { errors } = await harness.run(document)
    expect(errors).toBeUndefined()
    expect(await harness.calls()).toHaveLength(10)
  })

  it('are known from an earlier answer, also of another request', async () => {
    const harness = await startForTest()
    await harness.run('query L($accountId: ID!) { orders(accountId: $accountId, first: 10) { nodes { id } } }', {
      accountId: harness.accountId,
    })
    await harness.clearCalls()
    const ids = (await idsOf(harness)).slice(0, 10)
    const { data } = await harness.run('query I($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }', { ids })
    expect(data.ordersByIds.map((order: { id: string }) => order.id)).toEqual(ids)
    expect(await harness.calls()).toHaveLength(1)
  })

  it.each([
    ['answers 500', { kind: 'status', status: 500 }, 12_000],
    ['breaks the connection', { kind: 'rstAfterRead' }, 12_000],
    ['never answers', { kind: 'hang' }, 1_200],
  ])('a list that %s leaves ten of its orders to single reads', async (_, fault, timeoutMs) => {
    const harness = await startForTest({ BREAKER: 'off' })
    const ids = (await idsOf(harness)).slice(0, 12)
    await harness.setRules({ match: { path: '/orders\\?' }, fault })
    const representations = ids.map((id) => ({ __typename: 'Order', id, account: { id: harness.accountId } }))
    const answer = await harness.run(entities, { representations }, { 'x-request-timeout-ms': String(timeoutMs) })
    expect(answer.data._entities.map((order: { id: string } | null) => order?.id ?? null)).toEqual([
      ...ids.slice(0, 10),
      null,
      null,
    ])
    expect(answer.errors?.map(({ path }) => path)).toEqual([
      ['_entities', 10],
      ['_entities', 11],
    ])
    const singles = (await harness.calls()).filter(({ path }) => path.includes('/trading/orders/'))
    expect(singles).toHaveLength(10)
  })

  it('a list that is throttled, or whose broker is not there, costs no single reads', async () => {
    const harness = await startForTest({ BREAKER: 'off' })
    const ids = (await idsOf(harness)).slice(0, 12)
    await harness.setRules({ match: { path: '/orders\\?' }, fault: { kind: 'retryAfter', value: '30' } })
    const representations = ids.map((id) => ({ __typename: 'Order', id, account: { id: harness.accountId } }))
    const { errors } = await harness.run(entities, { representations })
    expect(errors?.map(({ extensions }) => extensions['code'])).toEqual(Array(12).fill('RATE_LIMITED'))
    expect(await harness.calls()).toHaveLength(1)
  })

  it('a wrong account costs one call and hides nothing but what it must', async () => {
    const harness = await startForTest()
    const ids = (await idsOf(harness)).slice(0, 3)
    const other = harness.sandbox.accounts[1]
    const { data, errors } = await harness.run(
      `{ ${ids.map((id, index) => `a${index}: order(id: "${id}", accountId: "${other}") { id }`).join(' ')} b: order(id: "${ids[0]}") { id } }`,
    )
    expect(errors).toBeUndefined()
    expect(data).toEqual({ a0: null, a1: null, a2: null, b: { id: ids[0] } })
    expect((await harness.calls()).length).toBeLessThanOrEqual(1 + 3)
  })
})

describe('a broker that caps its pages and says nothing of it', () => {
  const list =
    'query L($accountId: ID!, $after: String) { orders(accountId: $accountId, first: 100, after: $after) { isComplete nodes { id } pageInfo { hasNextPage endCursor } } }'

  it.each(['newestFirst', 'oldestFirst'])('gives all orders of a list sorted %s, in full pages', async (listOrder) => {
    const harness = await startForTest()
    const { accountId } = harness
    const ids = await idsOf(harness)
    await harness.control('PUT', '/switches', { pageCap: 50, listOrder })
    const given: string[] = []
    for (let after: string | null = null; ;) {
      const { data, errors }: Answer = await harness.run(list, { accountId, after })
      expect(errors).toBeUndefined()
      expect(data.orders.isComplete).toBe(true)
      given.push(...data.orders.nodes.map((node: { id: string }) => node.id))
      if (!data.orders.pageInfo.hasNextPage) break
      expect(data.orders.nodes).toHaveLength(100)
      after = data.orders.pageInfo.endCursor
    }
    expect(given).toEqual(ids)
    const told = harness.log().filter((line) => line.includes('caps the pages'))
    expect(told).toHaveLength(1)
    expect(JSON.parse(told[0] ?? '')).toMatchObject({ level: 'warn', broker: 'BLUUM' })
    expect(told[0]).toContain('50 rows')
    expect(told[0]).not.toContain(accountId)

    await harness.clearCalls()
    const page = `{ orders(accountId: "${accountId}", first: 100) { nodes { id } } }`
    expect((await harness.run(page)).data.orders.nodes).toHaveLength(100)
    const calls = await harness.calls()
    // The end of a list that is sorted oldest first shows only in a page that comes short.
    expect(calls).toHaveLength(listOrder === 'newestFirst' ? 2 : 3)
    for (const { path } of calls) {
      const { searchParams } = new URL(path, 'http://broker')
      expect(Number(searchParams.get('limit'))).toBeLessThanOrEqual(50)
    }
    const representations = ids.slice(0, 100).map((id) => ({ __typename: 'Order', id, account: { id: accountId } }))
    const read = await harness.run(entities, { representations })
    expect(read.errors).toBeUndefined()
    expect(read.data._entities.map((order: { id: string }) => order.id)).toEqual(ids.slice(0, 100))
  })

  it('is noticed also if it begins to do so while the service runs', async () => {
    const harness = await startForTest()
    const { accountId } = harness
    const ids = await idsOf(harness)
    for (const pageCap of [0, 75, 25]) {
      await harness.control('PUT', '/switches', { pageCap })
      const given: string[] = []
      for (let after: string | null = null; ;) {
        const { data }: Answer = await harness.run(list, { accountId, after })
        given.push(...data.orders.nodes.map((node: { id: string }) => node.id))
        if (!data.orders.pageInfo.hasNextPage) break
        after = data.orders.pageInfo.endCursor
      }
      expect(given).toEqual(ids)
    }
  })

  it('costs nothing if pages are as long as their limit', async () => {
    const harness = await startForTest()
    const other = harness.sandbox.accounts[1]
    await harness.run(list, { accountId: harness.accountId })
    await harness.clearCalls()
    for (let round = 0; round < 2; round++) {
      const { data } = await harness.run(list, { accountId: other })
      expect(data.orders.pageInfo.hasNextPage).toBe(false)
    }
    expect(await harness.calls()).toHaveLength(2)
  })
})

describe('an ARIES_TRADING_ID that is not the id by which callers name accounts', () => {
  async function askFor(tradingId: string): Promise<{ harness: Harness; counts: number[]; told: string[] }> {
    const harness = await startForTest({ ARIES_TRADING_ID: tradingId })
    const accountId = `aries:${harness.sandbox.aries.accounts[0]}`
    const page = `{ orders(accountId: "${accountId}", first: 100, filter: { statuses: [REJECTED] }) { isComplete nodes { id } pageInfo { hasNextPage } } }`
    const missing = `{ order(id: "${accountId}:ORDER-UNHEARD") { id } }`
    const counts: number[] = []
    for (const document of [page, missing, page, missing]) {
      await harness.clearCalls()
      const { data, errors } = await harness.run(document)
      expect(errors).toBeUndefined()
      if (document === missing) expect(data).toEqual({ order: null })
      else expect(data.orders).toMatchObject({ isComplete: true, pageInfo: { hasNextPage: false } })
      counts.push((await harness.calls()).filter(({ method }) => method === 'GET').length)
    }
    return { harness, counts, told: harness.log().filter((line) => line.includes('ARIES_TRADING_ID')) }
  }

  it('costs a short page and a missing order no call more than the right one, and one warning', async () => {
    const right = await askFor('apex_account_id')
    const { harness, counts, told } = await askFor('id')
    expect(right.told).toEqual([])
    expect(counts).toEqual(right.counts)
    expect(Math.max(...counts)).toBeLessThanOrEqual(6)
    expect(told).toHaveLength(1)
    expect(JSON.parse(told[0] ?? '')).toMatchObject({ level: 'warn', broker: 'ARIES' })
    expect(told[0]).toContain('ARIES_TRADING_ID=apex_account_id')
    expect(told[0]).not.toContain(harness.sandbox.aries.accounts[0])
  })
})

it('an ARIES_TRADING_ID by which Aries refuses accounts is one warning', async () => {
  const harness = await startForTest({ ARIES_TRADING_ID: 'id' })
  const { data } = await harness.run('{ tradingAccounts { id broker } }')
  const own = data.tradingAccounts.find(({ broker }: { broker: string }) => broker === 'ARIES').id
  const read = (id: string): Promise<Answer> => harness.run(`{ orders(accountId: "${id}") { nodes { id } } }`)
  const told = (): string[] => harness.log().filter((line) => line.includes('ARIES_TRADING_ID'))
  // An account that nobody lists is a mistake of the caller.
  await read('aries:NOT-OURS')
  expect(told()).toEqual([])
  for (let round = 0; round < 2; round++) expect((await read(own)).errors).toHaveLength(1)
  expect(told()).toHaveLength(1)
  expect(told()[0]).toContain('fdid, apex_account_id, sterling_account_id')
  expect(told()[0]).not.toContain(own)
})

describe('shared reads', () => {
  it('50 callers of the same page at the same time are 1 call', async () => {
    const harness = await startForTest()
    await harness.setRules({ match: { path: '/orders\\?' }, fault: { kind: 'latency', ms: 300 } })
    const document =
      'query L($accountId: ID!) { orders(accountId: $accountId, first: 20) { nodes { id status } pageInfo { hasNextPage } } }'
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => harness.run(document, { accountId: harness.accountId })),
    )
    expect(new Set(answers.map((answer) => JSON.stringify(answer.data))).size).toBe(1)
    expect(answers[0]?.data.orders.nodes).toHaveLength(20)
    expect(await harness.calls()).toHaveLength(1)
    // Nothing is kept: the next one asks again.
    await harness.run(document, { accountId: harness.accountId })
    expect(await harness.calls()).toHaveLength(2)
  })

  it('a reader after a cancel sees it, although the same read was under way before', async () => {
    const harness = await startForTest()
    const id = harness.sandbox.demo.openOrderId
    await harness.setRules({
      match: { path: `/trading/orders/${id}`, nth: 1 },
      fault: { kind: 'hang', when: 'afterCommit', ms: 1_500 },
    })
    const before = harness.run(`{ order(id: "${id}") { status } }`)
    await expect.poll(async () => (await harness.calls()).length).toBe(1)
    // The broker has answered the first read with the state of then, on a wire that is slow.
    const canceling = harness.run(`mutation { cancelOrder(input: { orderId: "${id}" }) { outcome } }`)
    expect((await canceling).data.cancelOrder.outcome).toBe('CANCELED')
    const after = await harness.run(`{ order(id: "${id}") { status } }`)
    expect(after.data.order.status).toBe('CANCELED')
    await before
  })
})

describe('the rate', () => {
  it('never exceeds 80 % of what the broker grants in any second, and a cancel goes first in a flood of 500 reads', async () => {
    const harness = await startForTestApart({ BLUUM_REQUESTS_PER_SECOND: '25' })
    const ids = (await idsOf(harness)).slice(0, 100)
    const open = String((await harness.book()).find((order) => order.status === 'accepted')?.id)
    await harness.clearCalls()
    const reads: Promise<Answer>[] = []
    for (let index = 0; index < 500; index++) {
      const document = `{ order(id: "${ids[index % ids.length]}") { id } }`
      reads.push(harness.run(document, {}, { 'x-request-timeout-ms': '4000' }))
      // As they come over sockets. All at once, on a busy machine, would keep the process from the answers to the first of
      // them until their time is over.
      if (index % 20 === 19) await setImmediate()
    }
    await expect.poll(async () => (await harness.calls()).length, { timeout: 5_000 }).toBeGreaterThan(10)
    const ahead = (await harness.calls()).length
    const canceled = await harness.run(`mutation { cancelOrder(input: { orderId: "${open}" }) { outcome } }`)
    expect(canceled.data.cancelOrder.outcome).toBe('CANCELED')
    const calls = await harness.calls()
    const at = calls.findIndex((call) => call.method === 'POST')
    // Its own read and what had left before it: no queue of reads stood ahead of it.
    expect(at - ahead).toBeLessThanOrEqual(4)
    const answers = await Promise.all(reads)
    const codes = new Set(answers.flatMap((answer) => answer.errors?.map((error) => error.extensions.code) ?? ['ok']))
    expect(codes).toContain('ok')
    for (const code of codes) expect(['ok', 'RATE_LIMITED', 'DEADLINE_EXCEEDED']).toContain(code)
    const limited = answers
      .flatMap((answer) => answer.errors ?? [])
      .find((error) => error.extensions.code === 'RATE_LIMITED')
    expect(limited?.extensions.retryAfterMs).toBeGreaterThan(0)
    const load = (await harness.control('GET', '/load')) as { maxInAnySecond: number }
    expect(load.maxInAnySecond).toBeLessThanOrEqual(20)
  })
})

describe('the cost of a read is shown on request', () => {
  const explain = { 'x-blotter-explain': '1' }

  async function costOf(harness: Harness, query: string, headers: Record<string, string> = explain) {
    const response = await harness.fetch(
      new Request(harness.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ query }),
      }),
    )
    return ((await response.json()) as { extensions?: { upstream?: object } }).extensions?.upstream
  }

  it('with the calls, their time, and what was shared, batched and repeated', async () => {
    const harness = await startForTest({ BREAKER: 'off' })
    const [first, second, third] = await idsOf(harness)
    expect(await costOf(harness, `{ order(id: "${first}") { id } }`)).toEqual({
      calls: 1,
      ms: expect.any(Number),
      shared: 0,
      batched: 0,
      retried: 0,
    })
    const aliases = [first, second, third].map(
      (id, index) => `o${index}: order(id: "${id}", accountId: "${harness.accountId}") { id }`,
    )
    expect(await costOf(harness, `{ ${aliases.join(' ')} }`)).toMatchObject({ calls: 1, batched: 3 })
    await harness.setRules({ match: { nth: 1 }, fault: { kind: 'status', status: 502, when: 'beforeCommit' } })
    expect(await costOf(harness, `{ order(id: "${first}") { id } }`)).toMatchObject({ calls: 2, retried: 1 })
  })

  it('only when asked, and only where GraphiQL is on', async () => {
    const harness = await startForTest()
    expect(await costOf(harness, '{ tradingAccounts { id } }', {})).toBeUndefined()
    const closed = await startForTest({ GRAPHIQL: 'off' })
    expect(await costOf(closed, '{ tradingAccounts { id } }')).toBeUndefined()
  })
})
