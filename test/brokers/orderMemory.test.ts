// What is shown of an order whose broker answers from replicas that lag, forget or contradict each other.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import * as fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { brokerCapabilities } from '../../src/brokers/broker.ts'
import { UpstreamError } from '../../src/upstream/errors.ts'
import { createTally } from '../../src/upstream/readScope.ts'
import type { Broker, BrokerCapabilities, Page, PageQuery } from '../../src/brokers/broker.ts'
import type { ReadScope } from '../../src/upstream/readScope.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'
import { systemClock } from '../../src/domain/clock.ts'
import { compareDecimals } from '../../src/domain/decimal.ts'
import { stateOf } from '../../src/domain/order.ts'
import type { NewOrder, Order, OrderKey, OrderStatus } from '../../src/domain/order.ts'
import { rememberOrders } from '../../src/brokers/orderMemory.ts'

const garbled = new UpstreamError('unreadable', 'a garbled field')

/** An order as an adapter makes it, frozen: what is merged must be another object. */
function createOrder(status: OrderStatus, filledQuantity: Order['filledQuantity'], change: Partial<Order> = {}): Order {
  const state = stateOf(status)
  return Object.freeze({
    id: 'ord_1',
    broker: 'BLUUM' as const,
    account: { id: 'acc_1', broker: 'BLUUM' as const },
    asset: { symbol: 'AAPL' },
    symbol: 'AAPL',
    securityType: null,
    legs: [],
    currency: 'USD',
    clientOrderId: 'key-00001',
    side: 'BUY' as const,
    type: 'LIMIT' as const,
    timeInForce: 'GTC' as const,
    quantity: '10',
    notional: null,
    limitPrice: '10.00',
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: false,
    status,
    brokerStatus: status.toLowerCase(),
    state,
    isCancelable: state !== 'CLOSED',
    filledQuantity,
    remainingQuantity: null,
    averagePrice: null,
    commission: null,
    commissionType: null,
    submittedAt: '2026-01-05T15:00:00Z',
    filledAt: null,
    canceledAt: null,
    rejectReason: null,
    isPartial: false,
    ...change,
  })
}

/** `CANCELED 2`; with `?` the fill is not told, with `!` it is garbled. */
function parseOrder(text: string, change: Partial<Order> = {}): Order {
  const [status = '', fill = ''] = text.split(' ')
  return createOrder(status as OrderStatus, fill === '?' ? null : fill === '!' ? garbled : fill, change)
}

function print({ status, filledQuantity }: Order): string {
  return `${status} ${filledQuantity instanceof Error ? '!' : (filledQuantity ?? '?')}`
}

const scope: ReadScope = {
  signal: new AbortController().signal,
  deadline: Number.POSITIVE_INFINITY,
  isForCancel: false,
  caller: null,
  tally: createTally(),
}
const newOrder: NewOrder = {
  accountId: 'acc_1',
  clientOrderId: 'key-00001',
  symbol: 'AAPL',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'GTC',
  quantity: '10',
  notional: null,
  limitPrice: '10.00',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: null,
  commission: null,
  commissionType: null,
}
const key: OrderKey = { broker: 'BLUUM', id: 'ord_1', accountId: null, mustBeWhole: false }
const pageQuery: PageQuery = {
  broker: 'BLUUM',
  accountId: 'acc_1',
  statuses: null,
  symbol: null,
  side: null,
  submittedAfter: null,
  submittedBefore: null,
  olderThan: null,
  after: null,
  first: 50,
  wantsMore: true,
}
const placeOptions = { idempotencyKey: 'op_1', sendBy: 0, beforeSend: () => Promise.resolve() }
const capabilities = Object.fromEntries(brokerCapabilities.map((name) => [name, false])) as BrokerCapabilities

const routes = ['orders', 'pages', 'scan', 'place', 'cancel'] as const
type Route = (typeof routes)[number]

/** A broker whose every answer is what `read` was last told, behind the memory. */
function start({
  ordersMax,
  findBound = () => Promise.resolve(null),
  clock = systemClock,
}: Partial<Parameters<typeof rememberOrders>[1]> = {}) {
  let script: readonly (Order | null | UpstreamError)[] = []
  let page: Partial<Page> = {}
  const isOrder = (answer: Order | null | UpstreamError) => answer !== null && !(answer instanceof UpstreamError)
  const inner: Broker = {
    id: 'BLUUM',
    capabilities,
    features: dialects.accounts.features,
    orders: () => Promise.resolve([...script]),
    pages: (queries) =>
      Promise.resolve(
        queries.map(() => ({
          rows: script.flatMap((order, index) => (order === null ? [] : [{ order, position: `after ${index}` }])),
          hasMore: true,
          isComplete: true,
          position: 'the end',
          ...page,
        })),
      ),
    scan: () => Promise.resolve({ orders: script.filter(isOrder), isComplete: false }),
    accounts: vi.fn<Broker['accounts']>(),
    unsupported: vi.fn<Broker['unsupported']>(),
    planLists: vi.fn<Broker['planLists']>(),
    place() {
      const order = script.find(isOrder) ?? null
      const status = order?.status ?? 'ACCEPTED'
      return Promise.resolve({ orderId: 'ord_1', status, clientOrderId: null, order, differing: [], rejection: null })
    },
    cancel: () => Promise.resolve(script.find(isOrder) ?? null),
    close: vi.fn<Broker['close']>(),
  }
  const onAlarm = vi.fn<(message: string, fields: { orderId: string }) => void>()
  const asked = vi.fn<typeof findBound>(findBound)
  const broker = rememberOrders(inner, {
    findBound: asked,
    clock,
    onAlarm,
    ...(ordersMax === undefined ? {} : { ordersMax }),
  })

  async function ask(route: Route): Promise<Order | null | UpstreamError | undefined> {
    switch (route) {
      case 'orders':
        return (await broker.orders([key], scope))[0]
      case 'pages': {
        const [read] = await broker.pages([pageQuery], scope)
        return read instanceof UpstreamError ? read : read?.rows[0]?.order
      }
      case 'scan': {
        const query = { accountId: 'acc_1', symbol: null, side: null, since: '', purpose: 'lookup' as const }
        return (await broker.scan(query, scope)).orders[0]
      }
      case 'place':
        return (await broker.place(newOrder, placeOptions)).order
      case 'cancel':
        return await broker.cancel(createOrder('ACCEPTED', '0'), 0)
      default:
        return route satisfies never
    }
  }

  return {
    inner,
    broker,
    onAlarm,
    findBound: asked,
    say(answers: readonly (Order | null | UpstreamError)[], changed: Partial<Page> = {}) {
      script = answers
      page = changed
    },
    /** What is shown when the broker answers with `order`. */
    async read(order: Order, route: Route = 'orders'): Promise<Order> {
      script = [order]
      page = {}
      const shown = await ask(route)
      if (!shown || shown instanceof UpstreamError) throw new Error('no order was shown')
      return shown
    },
  }
}

const smallerFinal = /final with a smaller fill/
const openAfterFinal = /open that it told final, with a larger fill/
const filledAfterFinal = /filled further after/
const otherFinal = /another final status/

describe('one answer after another', () => {
  test.each<[before: string, answer: string, shown: string, alarm: RegExp | null]>([
    // Open orders move, and their fill grows.
    ['PENDING 0', 'ACCEPTED 0', 'ACCEPTED 0', null],
    ['ACCEPTED 0', 'PARTIALLY_FILLED 2', 'PARTIALLY_FILLED 2', null],
    ['PARTIALLY_FILLED 2', 'PARTIALLY_FILLED 10', 'PARTIALLY_FILLED 10', null],
    ['PARTIALLY_FILLED 2', 'PENDING_CANCEL 2', 'PENDING_CANCEL 2', null],
    ['PENDING_CANCEL 2', 'PARTIALLY_FILLED 2', 'PARTIALLY_FILLED 2', null],
    ['ACCEPTED 0', 'UNKNOWN 0', 'UNKNOWN 0', null],
    ['UNKNOWN 2', 'ACCEPTED 2', 'ACCEPTED 2', null],
    // A smaller fill is old.
    ['PARTIALLY_FILLED 10', 'PARTIALLY_FILLED 9', 'PARTIALLY_FILLED 10', null],
    ['PARTIALLY_FILLED 0.30000000000000000001', 'ACCEPTED 0.3', 'PARTIALLY_FILLED 0.30000000000000000001', null],
    ['UNKNOWN 2', 'ACCEPTED 1', 'UNKNOWN 2', null],
    ['PARTIALLY_FILLED 2', 'UNKNOWN 1', 'PARTIALLY_FILLED 2', null],
    // Orders become final.
    ['ACCEPTED 0', 'CANCELED 0', 'CANCELED 0', null],
    ['PARTIALLY_FILLED 2', 'FILLED 10', 'FILLED 10', null],
    ['UNKNOWN 2', 'REJECTED 2', 'REJECTED 2', null],
    ['PARTIALLY_FILLED 3', 'CANCELED 2', 'CANCELED 3', smallerFinal],
    // And stay so.
    ['FILLED 10', 'ACCEPTED 0', 'FILLED 10', null],
    ['CANCELED 2', 'PARTIALLY_FILLED 2', 'CANCELED 2', null],
    ['CANCELED 2', 'PENDING_CANCEL 0', 'CANCELED 2', null],
    ['EXPIRED 2', 'UNKNOWN 2', 'EXPIRED 2', null],
    ['CANCELED 2', 'PARTIALLY_FILLED 3', 'CANCELED 3', openAfterFinal],
    ['CANCELED 2', 'UNKNOWN 3', 'CANCELED 3', openAfterFinal],
    // One final answer after another.
    ['CANCELED 2', 'CANCELED 2', 'CANCELED 2', null],
    ['CANCELED 2', 'CANCELED 2.00', 'CANCELED 2.00', null],
    ['CANCELED 2', 'CANCELED 0', 'CANCELED 2', null],
    ['CANCELED 2', 'CANCELED 3', 'CANCELED 3', filledAfterFinal],
    ['CANCELED 2', 'FILLED 10', 'FILLED 10', filledAfterFinal],
    ['FILLED 10', 'CANCELED 2', 'FILLED 10', null],
    ['CANCELED 2', 'FILLED 2', 'CANCELED 2', otherFinal],
    ['FILLED 10', 'CANCELED 10', 'FILLED 10', otherFinal],
    ['EXPIRED 0', 'CANCELED 0', 'EXPIRED 0', otherFinal],
    ['REJECTED 0', 'FILLED 10', 'FILLED 10', filledAfterFinal],
    // A fill that is not told: as it was shown, as long as nothing else has changed.
    ['PARTIALLY_FILLED 2', 'PARTIALLY_FILLED ?', 'PARTIALLY_FILLED 2', null],
    ['CANCELED 2', 'CANCELED ?', 'CANCELED 2', null],
    ['PARTIALLY_FILLED 2', 'CANCELED ?', 'CANCELED ?', null],
    ['PARTIALLY_FILLED 2', 'PENDING_CANCEL ?', 'PENDING_CANCEL ?', null],
    ['CANCELED 2', 'ACCEPTED ?', 'CANCELED 2', null],
    ['CANCELED 2', 'FILLED ?', 'CANCELED 2', otherFinal],
    ['CANCELED ?', 'CANCELED 2', 'CANCELED 2', null],
    ['CANCELED ?', 'PARTIALLY_FILLED 2', 'CANCELED ?', null],
    ['CANCELED ?', 'FILLED 10', 'FILLED 10', otherFinal],
    ['CANCELED ?', 'FILLED 0', 'CANCELED ?', otherFinal],
    ['ACCEPTED ?', 'ACCEPTED ?', 'ACCEPTED ?', null],
    // A garbled fill is shown as the error that it is, and nothing is forgotten over it.
    ['PARTIALLY_FILLED 2', 'PARTIALLY_FILLED !', 'PARTIALLY_FILLED !', null],
    ['PARTIALLY_FILLED 2', 'CANCELED !', 'CANCELED !', null],
    ['FILLED 10', 'ACCEPTED !', 'FILLED 10', null],
    ['ACCEPTED !', 'PARTIALLY_FILLED 2', 'PARTIALLY_FILLED 2', null],
  ])('%s, then %s: shows %s', async (before, answer, shown, alarm) => {
    for (const route of routes) {
      const { read, onAlarm } = start()
      expect(print(await read(parseOrder(before)))).toBe(before)
      // Each read anew, because a contradiction that stays is not told again and again.
      for (const again of [route, route, 'orders'] as const) {
        expect(print(await read(parseOrder(answer), again))).toBe(shown)
      }
      if (alarm === null) expect(onAlarm).not.toHaveBeenCalled()
      else expect(onAlarm).toHaveBeenCalledExactlyOnceWith(expect.stringMatching(alarm), { orderId: 'ord_1' })
    }
  })

  test('B14 a fill that arrives after CANCELED is shown, stays, and is an alarm', async () => {
    const { read, onAlarm } = start()
    await read(parseOrder('ACCEPTED 0'))
    expect(print(await read(parseOrder('CANCELED 0'), 'cancel'))).toBe('CANCELED 0')
    expect(onAlarm).not.toHaveBeenCalled()
    const late = parseOrder('CANCELED 2', { averagePrice: '10.00', remainingQuantity: '8' })
    expect(await read(late)).toBe(late)
    expect(onAlarm).toHaveBeenCalledExactlyOnceWith(expect.stringMatching(filledAfterFinal), { orderId: 'ord_1' })
    // The replica that has not heard of it yet.
    for (const route of routes) {
      expect(await read(parseOrder('CANCELED 0'), route)).toEqual(late)
      expect(await read(parseOrder('ACCEPTED 0'), route)).toEqual(late)
    }
    expect(onAlarm).toHaveBeenCalledOnce()
  })

  test('reports each kind of contradiction once per order, without a word of the broker', async () => {
    const { read, onAlarm } = start()
    const spoken = { brokerStatus: '<b>call me</b>', rejectReason: 'secret' }
    for (const text of [
      'ACCEPTED 3',
      'CANCELED 2',
      'CANCELED 4',
      'CANCELED 5',
      'ACCEPTED 6',
      'FILLED 6',
      'EXPIRED 6',
    ]) {
      await read(parseOrder(text, spoken))
    }
    const messages = onAlarm.mock.calls.map(([message]) => message)
    expect(messages).toEqual(
      [smallerFinal, filledAfterFinal, openAfterFinal, otherFinal].map((text) => expect.stringMatching(text)),
    )
    expect(messages.join()).not.toMatch(/call me|secret/)
    await read(parseOrder('CANCELED 2', { id: 'ord_2' }))
    await read(parseOrder('CANCELED 3', { id: 'ord_2' }))
    expect(onAlarm).toHaveBeenCalledTimes(5)
    expect(onAlarm).toHaveBeenLastCalledWith(expect.any(String), { orderId: 'ord_2' })
  })
})

describe('the fields of a merged order', () => {
  const filled = parseOrder('FILLED 10', {
    averagePrice: '9.50',
    remainingQuantity: '0',
    filledAt: '2026-01-05T16:00:00Z',
  })

  test('an old answer gives all that does not move, and nothing that does', async () => {
    const { read } = start()
    await read(filled)
    const old = parseOrder('PARTIALLY_FILLED 2', {
      limitPrice: '11.00',
      averagePrice: garbled,
      remainingQuantity: '8',
      commission: '1.00',
      isPartial: true,
    })
    expect(await read(old)).toEqual({ ...filled, limitPrice: '11.00', commission: '1.00', isPartial: true })
    expect(old.averagePrice).toBe(garbled)
  })

  test('the status of one answer and the fill of another keep what belongs to each', async () => {
    const { read } = start()
    await read(parseOrder('CANCELED 2', { canceledAt: '2026-01-05T16:00:00Z', averagePrice: '9.00' }))
    const late = parseOrder('PARTIALLY_FILLED 3', {
      averagePrice: '9.50',
      remainingQuantity: '7',
      filledAt: '2026-01-05T16:01:00Z',
    })
    expect(await read(late)).toMatchObject({
      status: 'CANCELED',
      brokerStatus: 'canceled',
      state: 'CLOSED',
      isCancelable: false,
      canceledAt: '2026-01-05T16:00:00Z',
      filledQuantity: '3',
      averagePrice: '9.50',
      remainingQuantity: '7',
      filledAt: '2026-01-05T16:01:00Z',
    })
  })

  test('an answer that is merged with nothing is the very object', async () => {
    const { read } = start()
    expect(await read(filled)).toBe(filled)
    expect(await read(filled)).toBe(filled)
    const next = { ...filled, averagePrice: '9.51' }
    expect(await read(next)).toBe(next)
  })

  test('a field that a list leaves out keeps the value of a single read, until the order changes', async () => {
    const { read } = start()
    await read(filled)
    expect(await read(parseOrder('FILLED 10.0'))).toEqual({ ...filled, filledQuantity: '10.0' })
    const filledAt = '2026-01-05T16:00:01Z'
    await read(parseOrder('FILLED 5', { id: 'ord_2', averagePrice: '9.50' }))
    expect(await read(parseOrder('FILLED 5', { id: 'ord_2', filledAt }))).toMatchObject({
      averagePrice: '9.50',
      filledAt,
    })
    // Another remainder under the same status, and no fill told: something has moved, and what is not known.
    const moved = parseOrder('FILLED ?', { remainingQuantity: '1' })
    expect(await read(moved)).toBe(moved)
  })

  test('a garbled field is an error in its own answer only, and takes no value of another fill', async () => {
    const { read } = start()
    const first = parseOrder('PARTIALLY_FILLED 2', { averagePrice: '9.00' })
    await read(first)
    const sameFill = parseOrder('PARTIALLY_FILLED 2', { averagePrice: garbled })
    expect(await read(sameFill)).toBe(sameFill)
    expect(await read(parseOrder('ACCEPTED 0'))).toEqual({ ...first })
    const nextFill = parseOrder('PARTIALLY_FILLED 3', { averagePrice: garbled })
    expect(await read(nextFill)).toBe(nextFill)
    expect(await read(parseOrder('ACCEPTED 0'))).toMatchObject({ filledQuantity: '3', averagePrice: null })
  })

  test('a fill told before a status without one counts, and is not passed off as the fill of that status', async () => {
    const { read, onAlarm } = start()
    await read(parseOrder('PARTIALLY_FILLED 3'))
    expect(print(await read(parseOrder('CANCELED ?')))).toBe('CANCELED ?')
    expect(print(await read(parseOrder('CANCELED ?')))).toBe('CANCELED ?')
    expect(print(await read(parseOrder('CANCELED 2')))).toBe('CANCELED ?')
    expect(print(await read(parseOrder('CANCELED 4')))).toBe('CANCELED 4')
    expect(onAlarm).not.toHaveBeenCalled()
  })

  test('nothing of one account shows in another', async () => {
    const { read, onAlarm } = start()
    await read(filled)
    const foreign = parseOrder('ACCEPTED 0', { account: { id: 'acc_2', broker: 'BLUUM' } })
    for (const route of routes) expect(await read(foreign, route)).toBe(foreign)
    expect(onAlarm).toHaveBeenCalledExactlyOnceWith(expect.stringMatching(/another account/), { orderId: 'ord_1' })
    expect(await read(parseOrder('ACCEPTED 0'))).toEqual(filled)
  })

  test('a placement that answers an order as it once was has the status of the order as it is', async () => {
    const { read, say, broker } = start()
    await read(filled)
    say([parseOrder('ACCEPTED 0')])
    expect(await broker.place(newOrder, placeOptions)).toEqual({
      orderId: 'ord_1',
      status: 'FILLED',
      clientOrderId: null,
      order: filled,
      differing: [],
      rejection: null,
    })
  })

  test('answers without an order pass as they are', async () => {
    const { read, say, broker } = start()
    await read(filled)
    const failure = new UpstreamError('failed', 'down')
    say([failure])
    expect(await broker.orders([key], scope)).toEqual([failure])
    expect(await broker.pages([pageQuery], scope)).toMatchObject([{ rows: [{ order: failure }] }])
    expect(await broker.place(newOrder, placeOptions)).toMatchObject({ order: null, status: 'ACCEPTED' })
    expect(await broker.cancel(filled, 0)).toBeNull()
  })
})

describe('a page', () => {
  test('leaves out a row that no longer has its status, and stays as it is otherwise', async () => {
    const { read, say, broker } = start()
    await read(parseOrder('FILLED 10'))
    const unreadable = new UpstreamError('unreadable', 'a row without an id')
    const other = parseOrder('ACCEPTED 0', { id: 'ord_2' })
    const rows = [other, parseOrder('ACCEPTED 0'), unreadable]
    say(rows, { hasMore: true, isComplete: false, position: 'here' })
    const whole = { hasMore: true, isComplete: false, position: 'here' }
    expect(await broker.pages([{ ...pageQuery, statuses: ['ACCEPTED'] }, pageQuery], scope)).toEqual([
      {
        ...whole,
        rows: [
          { order: other, position: 'after 0' },
          { order: unreadable, position: 'after 2' },
        ],
      },
      {
        ...whole,
        rows: [
          { order: other, position: 'after 0' },
          { order: { ...parseOrder('FILLED 10') }, position: 'after 1' },
          { order: unreadable, position: 'after 2' },
        ],
      },
    ])
  })
})

describe('"no such order"', () => {
  const withheld = expect.objectContaining({ name: 'OrderWithheld', kind: 'unreadable', accountId: 'acc_1' })
  const denied = expect.objectContaining({ name: 'UpstreamError', kind: 'unreadable' })

  test.each<
    [what: string, wasShown: boolean, accountId: string | null, bound: string | null | Error, expected: unknown]
  >([
    ['of an order that was shown', true, null, null, withheld],
    ['of an order that was shown in this account', true, 'acc_1', null, withheld],
    ['in another account than it was shown in', true, 'acc_2', 'acc_2', null],
    ['of an order that a placement is bound to', false, 'acc_1', 'acc_1', withheld],
    ['of an order that a placement of another account is bound to', false, 'acc_2', 'acc_1', null],
    ['of an order that nobody has heard of', false, null, null, null],
    ['while nobody can tell whether a placement is bound', false, null, new Error('disk full'), denied],
  ])('%s', async (_, wasShown, accountId, bound, expected) => {
    const { read, say, broker, findBound, onAlarm } = start({
      findBound: () =>
        bound instanceof Error
          ? Promise.reject(bound)
          : Promise.resolve(bound === null ? null : { accountId: bound, boundAt: Date.now() }),
    })
    if (wasShown) await read(parseOrder('ACCEPTED 0'))
    const other = parseOrder('ACCEPTED 0', { id: 'ord_2' })
    say([null, other])
    expect(
      await broker.orders(
        [
          { ...key, accountId },
          { ...key, id: 'ord_2' },
        ],
        scope,
      ),
    ).toEqual([expected, other])
    if (wasShown) expect(findBound).not.toHaveBeenCalled()
    else expect(findBound).toHaveBeenCalledExactlyOnceWith('ord_1')
    expect(onAlarm).not.toHaveBeenCalled()
  })

  // Seconds before the read in which the broker has no such order; null: never.
  test.each<[shown: number | null, bound: number | null, expected: { ageMs: number; retryAfterMs: number } | null]>([
    [0, null, { ageMs: 0, retryAfterMs: 120_000 }],
    [119.5, null, { ageMs: 119_500, retryAfterMs: 500 }],
    [120, null, null],
    [9_000, null, null],
    [null, 30, { ageMs: 30_000, retryAfterMs: 90_000 }],
    [null, 120, null],
    // Shown when it was placed, and bound much later, by an operator.
    [500, 100, { ageMs: 100_000, retryAfterMs: 20_000 }],
    [500, 500, null],
    // The wall clock was set back since.
    [null, -600, { ageMs: 0, retryAfterMs: 120_000 }],
  ])('about an order that was shown %s s ago, and bound %s s ago', async (shown, bound, expected) => {
    let elapsedMs = 0
    const from = Date.UTC(2026, 0, 5)
    const clock = { ...systemClock, now: () => from + elapsedMs, monotonic: () => 7 + elapsedMs }
    const boundAt = bound === null ? null : from + ((shown ?? 0) - bound) * 1_000
    const { read, say, broker } = start({
      clock,
      findBound: () => Promise.resolve(boundAt === null ? null : { accountId: 'acc_1', boundAt }),
    })
    if (shown !== null) {
      // A list shows it as well as a single read, and an answer that changes nothing of it counts too.
      await read(parseOrder('ACCEPTED 0'))
      elapsedMs = -1_000_000
      await read(parseOrder('ACCEPTED 0'))
      elapsedMs = 0
      await read(parseOrder('ACCEPTED 0'))
    }
    elapsedMs = (shown ?? 0) * 1_000
    for (let round = 0; round < 2; round++) {
      say([null])
      const [answer] = await broker.orders([key], scope)
      if (expected === null) expect(answer).toBeNull()
      else expect(answer).toMatchObject({ name: 'OrderWithheld', ...expected })
    }
    // What was learnt of it is not forgotten meanwhile.
    say([parseOrder('FILLED 10')])
    expect(await broker.orders([key], scope)).toMatchObject([{ status: 'FILLED' }])
    say([null])
    expect(await broker.orders([key], scope)).toMatchObject([{ name: 'OrderWithheld', ageMs: 0 }])
  })

  test('an error of the record is the cause, and its words are not the message', async () => {
    const cause = new Error('disk full')
    const { say, broker } = start({ findBound: () => Promise.reject(cause) })
    say([null])
    const [answer] = await broker.orders([key], scope)
    expect(answer).toMatchObject({ cause, message: expect.not.stringContaining('disk') })
  })
})

describe('the memory', () => {
  test('forgets the order not read for longest', async () => {
    const { read, findBound, say, broker } = start({ ordersMax: 2 })
    for (const id of ['ord_1', 'ord_2', 'ord_1', 'ord_3']) await read(parseOrder('FILLED 10', { id }))
    expect(print(await read(parseOrder('ACCEPTED 0', { id: 'ord_1' })))).toBe('FILLED 10')
    expect(print(await read(parseOrder('ACCEPTED 0', { id: 'ord_3' })))).toBe('FILLED 10')
    say([null])
    expect(await broker.orders([{ ...key, id: 'ord_2' }], scope)).toEqual([null])
    expect(findBound).toHaveBeenCalledOnce()
    expect(print(await read(parseOrder('ACCEPTED 0', { id: 'ord_2' })))).toBe('ACCEPTED 0')
  })

  test('holds 20,000 orders', async () => {
    const { say, broker } = start()
    const ids = Array.from({ length: 20_001 }, (_, index) => `ord_${index}`)
    const keys = ids.map((id) => ({ ...key, id }))
    say(ids.map((id) => parseOrder('FILLED 10', { id })))
    await broker.orders(keys, scope)
    say(ids.slice(0, 2).map(() => null))
    expect(await broker.orders(keys.slice(0, 2), scope)).toEqual([null, expect.any(UpstreamError)])
  })

  test('does not hold on to the answers that its orders came in', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const { read } = start()
    collect()
    const before = process.memoryUsage().heapUsed
    for (let index = 0; index < 300; index++) {
      const cut = (what: string) => `${what} ${index} ${'x'.repeat(100_000)}`.slice(0, 100)
      const id = `ord_${index}`
      await read(parseOrder('ACCEPTED 0', { id, account: { id: cut('account'), broker: 'BLUUM' } }))
      const account = { id: cut('account'), broker: 'BLUUM' as const }
      const filledQuantity = `1.${String(index).padEnd(100_000, '7')}`.slice(0, 60)
      await read(createOrder('REJECTED', filledQuantity, { id, account, brokerStatus: cut('status') }))
    }
    collect()
    expect((process.memoryUsage().heapUsed - before) / 2 ** 20).toBeLessThan(8)
  })
})

test('passes everything else on to the broker', async () => {
  const { inner, broker } = start()
  const { id, capabilities, features } = inner
  expect(broker).toMatchObject({ id, capabilities, features })
  expect(Object.keys(broker).toSorted()).toEqual(Object.keys(inner).toSorted())
  broker.planLists(['FILLED'])
  expect(inner.planLists).toHaveBeenCalledExactlyOnceWith(['FILLED'])
  await broker.close(5)
  expect(inner.close).toHaveBeenCalledExactlyOnceWith(5)
})

// ---- laws -----------------------------------------------------------------------------------------------------------

// What becomes of an order: its fill grows, it ends or does not, and some orders that had ended fill once more.
const openStatus = fc.constantFrom<OrderStatus>('PENDING', 'ACCEPTED', 'PARTIALLY_FILLED', 'PENDING_CANCEL', 'UNKNOWN')
const tenths = fc.nat({ max: 15 })
const history = fc
  .record({
    open: fc.array(fc.tuple(openStatus, tenths), { minLength: 1, maxLength: 6 }),
    final: fc.option(fc.tuple(fc.constantFrom<OrderStatus>('FILLED', 'CANCELED', 'REJECTED', 'EXPIRED'), tenths)),
    late: fc.option(fc.tuple(fc.constantFrom<OrderStatus | null>(null, 'FILLED'), fc.integer({ min: 1, max: 15 })), {
      freq: 2,
    }),
  })
  .map(({ open, final, late }) => {
    const steps = final === null ? open : [...open, final]
    if (final !== null && late !== null) steps.push([late[0] ?? final[0], late[1]])
    let total = 0
    const versions = steps.map(([status, grown]) => {
      total += grown
      return { status, fill: `${Math.floor(total / 10)}.${total % 10}` }
    })
    return { versions, isLate: final !== null && late !== null }
  })
// Which version a replica shows, and how well it tells it.
const reading = fc.record({
  back: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, { weight: 5, arbitrary: fc.nat({ max: 7 }) }),
  telling: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom('whole' as const, 'spelled otherwise' as const) },
    { weight: 1, arbitrary: fc.constantFrom('without its fill' as const, 'garbled' as const) },
  ),
  route: fc.constantFrom(...routes),
})

test('reads of a true history in any order: no fill falls, no order reopens, and the newest state stays', async () => {
  await fc.assert(
    fc.asyncProperty(
      history,
      fc.array(reading, { minLength: 1, maxLength: 25 }),
      async ({ versions, isLate }, readings) => {
        const { read, onAlarm } = start()
        const newest = versions.at(-1)
        let largest = '0'
        let final: Order | null = null
        let isNewestRead = false
        let wasSurpassed = false
        for (const { back, telling, route } of readings) {
          const index = Math.max(0, versions.length - 1 - back)
          const { status, fill } = versions[index] ?? { status: 'UNKNOWN', fill: '0' }
          const told = { whole: fill, 'spelled otherwise': `0${fill}0`, 'without its fill': null, garbled }[telling]
          const shown = await read(createOrder(status, told), route)
          const shownFill = shown.filledQuantity

          if (typeof shownFill === 'string') {
            expect(compareDecimals(shownFill, largest)).toBeGreaterThanOrEqual(0)
            if (final && compareDecimals(shownFill, largest) > 0) wasSurpassed = true
            largest = shownFill
          }
          if (final !== null) {
            expect(shown.state).toBe('CLOSED')
            if (shown.status !== final.status) expect(wasSurpassed).toBe(true)
          }
          if (shown.state === 'CLOSED') final = shown

          const isWhole = typeof told === 'string'
          if (index === versions.length - 1 && isWhole) {
            isNewestRead = true
            expect(shown.status).toBe(newest?.status)
            expect(shownFill).toBe(told)
          }
          if (isNewestRead && newest) {
            if (stateOf(newest.status) === 'CLOSED') expect(shown.status).toBe(newest.status)
            if (stateOf(newest.status) === 'CLOSED' && telling !== 'garbled') expect(shownFill).not.toBeNull()
            if (typeof shownFill === 'string') expect(compareDecimals(shownFill, newest.fill)).toBe(0)
          }
        }
        // Age alone is no alarm.
        const messages = onAlarm.mock.calls.map(([message]) => message)
        expect(new Set(messages).size).toBe(messages.length)
        if (!isLate) expect(messages).toEqual([])
        if (readings.every(({ telling }) => telling === 'whole' || telling === 'spelled otherwise')) {
          expect(messages).toHaveLength(wasSurpassed ? 1 : 0)
        }
      },
    ),
    { numRuns: 1_000 },
  )
})

// Two answers of which neither can be the older one contradict each other; which of them came first must not matter.
test('any two answers: shows the larger fill, and a final status rather than an open one', async () => {
  const anyStatus = fc.oneof(openStatus, fc.constantFrom<OrderStatus>('FILLED', 'CANCELED', 'EXPIRED', 'REPLACED'))
  const answer = fc.record({ status: anyStatus, fill: fc.nat({ max: 3 }).map(String) })
  await fc.assert(
    fc.asyncProperty(answer, answer, async (first, second) => {
      const { read } = start()
      await read(createOrder(first.status, first.fill))
      const shown = await read(createOrder(second.status, second.fill))
      expect(shown.filledQuantity).toBe(compareDecimals(first.fill, second.fill) > 0 ? first.fill : second.fill)
      const isFinal = stateOf(first.status) === 'CLOSED' || stateOf(second.status) === 'CLOSED'
      expect(shown.state === 'CLOSED').toBe(isFinal)
      expect(shown.state).toBe(stateOf(shown.status))
      expect(shown.isCancelable).toBe(!isFinal)
    }),
  )
})
