// What two things at once, or an answer at the wrong moment, once made wrong. Each test brought a fault to light. Time
// only jumps: the commands run over the clock of a simulated process, a broker that does as it is told, and a real store.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { brokerCapabilities } from '../../src/brokers/broker.ts'
import { UpstreamError } from '../../src/upstream/errors.ts'
import type { Broker, BrokerCapabilities, PlaceAnswer } from '../../src/brokers/broker.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'
import { createCommands } from '../../src/trading/placeOrder.ts'
import type { Commands, PlaceTimes } from '../../src/trading/placeOrder.ts'
import type { NewOrder, Order } from '../../src/domain/order.ts'
import { advance, placementStates, toFingerprint } from '../../src/trading/placement/placement.ts'
import type { Placement } from '../../src/trading/placement/placement.ts'
import { openSqliteStore } from '../../src/store/sqlite/sqliteStore.ts'
import { isTombstone, StoreError } from '../../src/store/store.ts'
import type { Store } from '../../src/store/store.ts'
import { createProcess, createRandom, createWorld } from '../simulation/world.ts'

const request: NewOrder = {
  accountId: 'acc_1',
  clientOrderId: 'key-00001',
  symbol: 'AAPL',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'GTC',
  quantity: '5',
  notional: null,
  limitPrice: '10.00',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: null,
  commission: null,
  commissionType: null,
}

// As the service has them unless told otherwise.
const usual: PlaceTimes = {
  replyMs: 10_000,
  sendByMs: { market: 10_000, other: 30_000 },
  lookupMs: [1_000, 3_000, 8_000, 20_000, 45_000, 90_000, 150_000],
  settleMs: 120_000,
  lateMs: [300_000, 900_000, 3_600_000, 86_400_000],
  assumeAbsent: true,
}

const lost = new UpstreamError('no_answer', 'no answer')
const throttled = new UpstreamError('throttled', 'later', { status: 429, retryAfterMs: 1_000 })
const unauthorized = new UpstreamError('refused', 'no', { status: 401 })

/** Binds the methods of an object to it, so that a test can replace one of them and still call it. */
function bindMethods<T extends object>(object: T): T {
  for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(object))) {
    const method: unknown = Reflect.get(object, name)
    if (name !== 'constructor' && typeof method === 'function') Reflect.set(object, name, method.bind(object))
  }
  return object
}

/** Commands over one broker and one store. What the broker does can be replaced at any time. */
function start(given: { times?: Partial<PlaceTimes>; capabilities?: Partial<BrokerCapabilities> } = {}) {
  const world = createWorld(createRandom(1))
  const { clock } = createProcess(world, 'service', [])
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-races-'))
  const file = join(dataDir, 'placements.sqlite')
  const store: Store = bindMethods(openSqliteStore({ file, role: 'service', mayCreate: true }))
  /** What an operator was told: all of it, and what needs one at once. */
  const troubles: string[] = []
  const alarms: string[] = []
  const book = new Map<string, Order>()
  /** The keys of the orders that left, and the ids of those that a cancel was asked for. */
  const sent: string[] = []
  const canceled: string[] = []
  /** When it was searched, by the clock of the process. */
  const searchedAt: number[] = []

  const setOrder = (id: string, fields: Partial<Order> = {}): Order => {
    const order = { ...toOrder(id, clock.now()), ...book.get(id), ...fields }
    book.set(id, order)
    return order
  }
  const script = {
    /** What an order waits for before it may leave. */
    turn: () => Promise.resolve(),
    /** What becomes of an order that has left. */
    async answer({ clientOrderId }: NewOrder): Promise<PlaceAnswer> {
      return accept(setOrder(`ord_${sent.length}`, { clientOrderId }))
    },
    /** Whether a search sees all; may throw. */
    search: async () => ({ isComplete: true }),
    read: () => Promise.resolve(),
    async cancel(id: string): Promise<Order | null> {
      return setOrder(id, { status: 'CANCELED', state: 'CLOSED', isCancelable: false })
    },
  }
  const notAsked = () => Promise.reject(new Error('not asked here'))
  const none = Object.fromEntries(brokerCapabilities.map((name) => [name, false])) as BrokerCapabilities
  const broker: Broker = {
    id: 'BLUUM',
    capabilities: { ...none, ...given.capabilities },
    features: dialects.accounts.features,
    async orders(keys) {
      await script.read()
      return keys.map(({ id }) => book.get(id) ?? null)
    },
    pages: notAsked,
    accounts: notAsked,
    async scan() {
      searchedAt.push(clock.now())
      const { isComplete } = await script.search()
      return { orders: [...book.values()], isComplete }
    },
    unsupported: () => [],
    planLists: (statuses) => [statuses],
    async place(order, { beforeSend }) {
      await script.turn()
      await beforeSend()
      sent.push(order.clientOrderId)
      return await script.answer(order)
    },
    async cancel({ id }) {
      canceled.push(id)
      return await script.cancel(id)
    },
    close: () => Promise.resolve(),
  }

  const random = createRandom(2)
  /** One service more over the same store. */
  const serve = (): Commands => {
    const commands = createCommands({
      brokers: new Map([['BLUUM', broker]]),
      store,
      clock,
      random: random.next,
      times: { ...usual, ...given.times },
      trading: 'on',
      placementRate: null,
      onNotice: () => {},
      onTrouble(message) {
        troubles.push(message)
        if (message.startsWith('ALARM')) alarms.push(message)
      },
    })
    onTestFinished(async () => await ended(commands.close()))
    return commands
  }

  const pass = async (ms: number): Promise<void> => await world.run(world.now() + ms)
  /** What `work` comes to, with the time that it takes. */
  async function ended<T>(work: Promise<T>): Promise<T> {
    const state = { isOver: false }
    const end = (): void => void (state.isOver = true)
    work.then(end, end)
    for (let leftMs = 60_000; !state.isOver && leftMs > 0; leftMs--) await pass(1)
    if (!state.isOver) throw new Error('it does not end')
    return await work
  }

  onTestFinished(async () => {
    await store.close()
    rmSync(dataDir, { recursive: true })
  })
  const commands = serve()
  const place = (fields: Partial<NewOrder> = {}, wishes: object = {}, by = commands) =>
    by.place({ ...request, ...fields }, { sendBy: null, timeoutMs: null, acknowledged: [], ...wishes })
  return {
    world,
    clock,
    store,
    script,
    book,
    sent,
    canceled,
    searchedAt,
    troubles,
    alarms,
    commands,
    serve,
    setOrder,
    pass,
    ended,
    place,
    /** Places it and never hears of it. */
    async lose(fields: Partial<NewOrder> = {}, wishes: object = {}) {
      const { answer } = script
      script.answer = () => Promise.reject(lost)
      const result = await ended(place(fields, { timeoutMs: 1, ...wishes }))
      script.answer = answer
      expect(result).toMatchObject({ outcome: 'UNKNOWN' })
    },
    cancelById: (orderId: string, timeoutMs: number | null = null) =>
      commands.cancel({ orderId, accountId: null, clientOrderId: null }, timeoutMs),
    cancelByKey: (clientOrderId = request.clientOrderId, timeoutMs: number | null = null) =>
      commands.cancel({ orderId: null, accountId: request.accountId, clientOrderId }, timeoutMs),
    async record(clientOrderId = request.clientOrderId): Promise<Placement> {
      const found = await store.find({ broker: 'BLUUM', accountId: request.accountId, clientOrderId })
      if (found === null || isTombstone(found)) throw new Error('no record')
      return found
    },
  }
}

function toOrder(id: string, at: number): Order {
  return {
    id,
    broker: 'BLUUM',
    account: { id: 'acc_1', broker: 'BLUUM' },
    asset: { symbol: 'AAPL' },
    symbol: 'AAPL',
    securityType: null,
    legs: [],
    currency: null,
    clientOrderId: null,
    side: 'BUY',
    type: 'LIMIT',
    timeInForce: 'GTC',
    quantity: '5',
    notional: null,
    limitPrice: '10.00',
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    status: 'ACCEPTED',
    brokerStatus: 'accepted',
    state: 'OPEN',
    isCancelable: true,
    filledQuantity: '0',
    remainingQuantity: null,
    averagePrice: null,
    commission: null,
    commissionType: null,
    submittedAt: new Date(at).toISOString(),
    filledAt: null,
    canceledAt: null,
    rejectReason: null,
    isPartial: false,
  }
}

function accept(order: Order): PlaceAnswer {
  return { orderId: order.id, status: order.status, clientOrderId: null, order, differing: [], rejection: null }
}

const key1 = { clientOrderId: 'key-00001' }
const key2 = { clientOrderId: 'key-00002' }

// ---- cancels ----------------------------------------------------------------------------------------------------

describe('a cancel request', () => {
  test.each([
    ['RATE_LIMITED', throttled],
    ['BROKER_UNAVAILABLE', new UpstreamError('not_sent', 'no connection')],
  ])('is kept while the broker cannot be called, %s, and carried out afterwards', async (_code, error) => {
    const { place, ended, script, cancelById, canceled, pass, book, record } = start()
    await ended(place())
    const { cancel } = script
    script.cancel = () => Promise.reject(error)
    const message = expect.stringContaining('It is kept')
    expect(await ended(cancelById('ord_1'))).toMatchObject({ outcome: 'PENDING', orderId: 'ord_1', message })
    const posts = canceled.length
    expect((await record()).cancelSettledAt).toBeNull()
    script.cancel = cancel
    await pass(600_000)
    expect(canceled).toHaveLength(posts + 1)
    expect(book.get('ord_1')).toMatchObject({ status: 'CANCELED' })
    expect((await record()).cancelSettledAt).not.toBeNull()
  })

  test('is sent until the broker processes it, and all callers meanwhile get CancelPending', async () => {
    const { lose, ended, script, cancelById, cancelByKey, canceled, pass, setOrder, book, record } = start()
    await lose()
    expect(await ended(cancelByKey('key-00001', 100))).toMatchObject({ outcome: 'PENDING', orderId: null })
    const { cancel } = script
    script.cancel = () => Promise.reject(throttled)
    setOrder('ord_1', key1)
    await pass(2_000)
    expect(await record()).toMatchObject({ state: 'ACCEPTED', cancelSettledAt: null })
    expect(canceled).toEqual(['ord_1'])
    for (const ask of [() => cancelById('ord_1'), cancelByKey]) {
      expect(await ended(ask())).toMatchObject({ outcome: 'PENDING', orderId: 'ord_1', order: { status: 'ACCEPTED' } })
    }
    expect((await record()).cancelSettledAt).toBeNull()

    script.cancel = cancel
    const posts = canceled.length
    await pass(600_000)
    expect(book.get('ord_1')).toMatchObject({ status: 'CANCELED' })
    expect(canceled).toHaveLength(posts + 1)
    expect((await record()).cancelSettledAt).not.toBeNull()
  })

  test('is pending for a caller without time left when its order is found', async () => {
    const { lose, world, ended, script, cancelByKey, canceled, pass, setOrder } = start()
    await lose()
    setOrder('ord_1', key1)
    script.read = () => world.sleep(500)
    // It is found after a second.
    expect(await ended(cancelByKey('key-00001', 1_200))).toMatchObject({ outcome: 'PENDING' })
    expect(canceled).toEqual([])
    await pass(1_000)
    expect(canceled).toEqual(['ord_1'])
  })

  test('before the order has left keeps it from leaving, and spends its key', async () => {
    const { place, ended, world, script, cancelByKey, sent, pass, commands } = start()
    script.search = async () => {
      await world.sleep(200)
      return { isComplete: true }
    }
    const placed = place({ type: 'MARKET', limitPrice: null })
    await pass(50)
    const answered = cancelByKey()
    const notPlaced = {
      outcome: 'NOT_PLACED',
      notPlacedCode: 'CANCELED',
      certainty: 'PROVEN',
      retrySameKey: false,
      orderId: null,
    }
    expect(await ended(placed)).toMatchObject(notPlaced)
    expect(await ended(answered)).toMatchObject({ outcome: 'REFUSED', refusalCode: 'NOT_FOUND' })
    expect(await ended(place({ type: 'MARKET', limitPrice: null }))).toMatchObject(notPlaced)
    expect(await commands.placement('acc_1', 'key-00001')).toMatchObject({ state: 'NOT_PLACED', result: notPlaced })
    expect(sent).toEqual([])
  })

  test('is done for an order that counts as not placed and appears late', async () => {
    const { lose, ended, cancelByKey, canceled, pass, setOrder, record, book } = start()
    await lose()
    await pass(160_000)
    expect(await record()).toMatchObject({ state: 'NOT_PLACED', nextCheckAt: expect.any(Number) })
    expect(await ended(cancelByKey())).toMatchObject({ outcome: 'REFUSED', refusalCode: 'NOT_FOUND' })
    setOrder('ord_1', key1)
    await pass(310_000)
    expect(await record()).toMatchObject({ state: 'ACCEPTED', orderId: 'ord_1', cancelSettledAt: expect.any(Number) })
    expect(canceled).toEqual(['ord_1'])
    expect(book.get('ord_1')).toMatchObject({ status: 'CANCELED' })
  })

  test('by a key that is recorded during the search is about that order', async () => {
    const { place, ended, world, script, cancelByKey, canceled, pass } = start({ capabilities: { clientIdEcho: true } })
    script.search = async () => {
      await world.sleep(200)
      return { isComplete: true }
    }
    // The list was made before the order came in.
    const answered = cancelByKey()
    await pass(50)
    script.search = () => Promise.resolve({ isComplete: true })
    const { answer } = script
    script.answer = async (order) => {
      await world.sleep(500)
      return await answer(order)
    }
    expect(await ended(place())).toMatchObject({ outcome: 'PLACED', orderId: 'ord_1' })
    expect(await ended(answered)).toMatchObject({ outcome: 'CANCELED', orderId: 'ord_1' })
    expect(canceled).toEqual(['ord_1'])
  })
})

describe('a no to the second cancel, where the first may have been taken in', () => {
  const failed = new UpstreamError('failed', 'bad gateway', { status: 502 })
  const errors = {
    409: new UpstreamError('refused', 'conflict', { status: 409, effect: 'unknown', brokerCode: 'BLUM-409-001' }),
    422: new UpstreamError('refused', 'no', { status: 422, rejection: 'OTHER' }),
  }

  test.each([409, 422] as const)('%i is not the answer while the order is open', async (status) => {
    const { place, ended, world, script, cancelById, canceled, pass, setOrder, record } = start()
    await ended(place())
    script.cancel = () => Promise.reject(canceled.length === 1 ? failed : errors[status])
    world.schedule(world.now() + 15_000, () => setOrder('ord_1', { status: 'CANCELED', state: 'CLOSED' }))
    expect(await ended(cancelById('ord_1'))).toMatchObject({ outcome: 'PENDING', order: { status: 'ACCEPTED' } })
    expect(canceled).toHaveLength(2)
    expect((await record()).cancelSettledAt).toBeNull()
    await pass(60_000)
    expect((await record()).cancelSettledAt).not.toBeNull()
    expect(canceled).toHaveLength(2)
  })

  test.each([409, 422] as const)('%i: a cancel that comes of it is our own', async (status) => {
    const { place, ended, world, script, cancelById, canceled, setOrder } = start()
    await ended(place())
    script.cancel = async () => {
      if (canceled.length === 1) throw failed
      world.schedule(world.now() + 1_500, () => setOrder('ord_1', { status: 'CANCELED', state: 'CLOSED' }))
      throw errors[status]
    }
    expect(await ended(cancelById('ord_1'))).toMatchObject({ outcome: 'CANCELED', alreadyCanceled: false })
  })

  test('409: it was canceled between the two', async () => {
    const { place, ended, script, cancelById, canceled, setOrder } = start()
    await ended(place())
    script.cancel = async () => {
      if (canceled.length === 1) throw failed
      setOrder('ord_1', { status: 'CANCELED', state: 'CLOSED' })
      throw errors[409]
    }
    expect(await ended(cancelById('ord_1'))).toMatchObject({ outcome: 'CANCELED', alreadyCanceled: false })
  })

  test('409: the first and only no is the answer', async () => {
    const { place, ended, script, cancelById } = start()
    await ended(place())
    script.cancel = () => Promise.reject(errors[409])
    expect(await ended(cancelById('ord_1'))).toMatchObject({ outcome: 'REFUSED', refusalCode: 'BROKER_REFUSED' })
  })
})

// ---- placing ----------------------------------------------------------------------------------------------------

describe('one key', () => {
  test('is answered from its record with as many under way as can be; only a new one is refused', async () => {
    const { place, lose, ended, store, sent, commands } = start()
    await ended(place())
    await lose({ ...key2, quantity: '7' })

    const { find } = store
    const held = Promise.withResolvers<never>()
    store.find = (key) => (key.clientOrderId.startsWith('held') ? held.promise : find(key))
    const others = Array.from({ length: 1_000 }, (_, index) =>
      place({ clientOrderId: `held-${String(index).padStart(5, '0')}` }),
    )
    expect(await ended(place())).toMatchObject({ outcome: 'PLACED', orderId: 'ord_1', replayed: true })
    expect(await ended(place({ ...key2, quantity: '7' }, { timeoutMs: 1 }))).toMatchObject({ outcome: 'UNKNOWN' })
    const fresh = { clientOrderId: 'key-00003', quantity: '9' }
    expect(await ended(place(fresh))).toMatchObject({ outcome: 'NOT_PLACED', notPlacedCode: 'OVERLOADED' })
    expect(await commands.placement('acc_1', 'key-00003')).toBeNull()
    expect(sent).toEqual(['key-00001', 'key-00002'])

    held.reject(new StoreError('let go'))
    await ended(Promise.all(others))
  })

  test('in two services is sent once', async () => {
    const { place, ended, world, script, serve, sent, pass, commands, record } = start()
    const other = serve()
    const { answer } = script
    script.search = async () => {
      await world.sleep(30)
      return { isComplete: true }
    }
    script.answer = async (order) => {
      await world.sleep(20)
      return await answer(order)
    }
    const first = place()
    await pass(5)
    const second = place({}, {}, other)
    expect(await ended(second)).toMatchObject({ outcome: 'PLACED', orderId: 'ord_1' })
    // Nothing of this one was sent, but the key was.
    expect(await ended(first)).toMatchObject({ outcome: 'UNKNOWN' })
    expect(sent).toEqual(['key-00001'])
    expect(await record()).toMatchObject({ state: 'ACCEPTED', attempt: 2, sends: 1 })
    for (const by of [commands, other]) {
      expect(await ended(place({}, {}, by))).toMatchObject({ outcome: 'PLACED', orderId: 'ord_1', replayed: true })
    }
    expect(sent).toEqual(['key-00001'])
  })

  test('is not taken back during an attempt by a read of an earlier one', async () => {
    const { place, ended, world, script, serve, store, sent, pass, record, alarms } = start()
    const other = serve()
    const { answer, search } = script
    script.search = async () => {
      await world.sleep(4_000)
      return { isComplete: true }
    }
    const first = place()
    await pass(10)
    script.search = search
    // It reads what the first service has reserved, and acts on it a second later.
    const { findUnfinished } = store
    store.findUnfinished = async (after, limit) => {
      const left = await findUnfinished(after, limit)
      await world.sleep(1_000)
      return left
    }
    const started = other.start()
    await pass(10)
    script.answer = async (order) => {
      await world.sleep(2_000)
      return await answer(order)
    }
    const second = place({}, {}, other)
    await pass(10)
    expect(await record()).toMatchObject({ state: 'SENDING', attempt: 2 })
    await ended(started)
    expect(await record()).toMatchObject({ state: 'SENDING', attempt: 2 })
    expect(await ended(second)).toMatchObject({ outcome: 'PLACED', orderId: 'ord_1' })
    await ended(first)
    expect(await record()).toMatchObject({ state: 'ACCEPTED', attempt: 2 })
    expect(sent).toEqual(['key-00001'])
    expect(alarms).toEqual([])
  })

  test('gets no order but its own', async () => {
    const { place, ended, script, setOrder, book } = start()
    await ended(place({ ...key1 }))
    // The second is answered with the order of the first, and found by its key.
    script.answer = async () => {
      setOrder('ord_2', key2)
      return accept(book.get('ord_1') ?? setOrder('ord_1'))
    }
    const result = await ended(place(key2))
    expect(result).toMatchObject({ outcome: 'PLACED', orderId: 'ord_2' })
    expect(result.order?.id ?? 'ord_2').toBe('ord_2')
  })

  test('that waits for an equal order may be sent when that is known', async () => {
    const { place, lose, ended, setOrder, pass, sent, commands } = start()
    await lose()
    expect(await ended(place(key2))).toMatchObject({
      outcome: 'NOT_PLACED',
      notPlacedCode: 'BLOCKED_BY_UNRESOLVED',
      certainty: 'PROVEN',
      retrySameKey: true,
    })
    expect(await commands.placement('acc_1', 'key-00002')).toMatchObject({ state: 'IN_PROGRESS' })
    setOrder('ord_1', key1)
    await pass(10_000)
    expect(await ended(place(key2))).toMatchObject({ outcome: 'PLACED', orderId: 'ord_2' })
    expect(sent).toEqual(['key-00001', 'key-00002'])
  })

  test('with a rejected order stays NOT_PLACED, without an order, if only the tombstone is left', async () => {
    const { place, ended, clock, script, setOrder, store, commands, cancelByKey, canceled } = start()
    script.answer = async () => accept(setOrder('ord_1', { ...key1, status: 'REJECTED', state: 'CLOSED' }))
    expect(await ended(place())).toMatchObject({ outcome: 'REJECTED', orderId: 'ord_1' })
    expect(await store.expire(clock.now() + 1, 0, 10)).toBe(1)
    expect(await commands.placement('acc_1', 'key-00001')).toMatchObject({
      state: 'NOT_PLACED',
      orderId: null,
      result: { notPlacedCode: 'KEY_EXPIRED', orderId: null },
    })
    expect(await ended(cancelByKey())).toMatchObject({ outcome: 'REFUSED', refusalCode: 'NOT_FOUND' })
    expect(canceled).toEqual([])
  })
})

test('a cancel that cannot be recorded is done, and logged without the order id, which can contain the account', async () => {
  const { place, ended, store, cancelById, canceled, troubles } = start()
  for (const key of ['key-00001', 'key-00002']) {
    expect(await ended(place({ clientOrderId: key }))).toMatchObject({ outcome: 'PLACED' })
  }
  const { update, findByOrder } = store
  store.update = () => Promise.reject(new StoreError('full'))
  expect(await ended(cancelById('ord_1'))).toMatchObject({ outcome: 'CANCELED' })
  store.findByOrder = () => Promise.reject(new StoreError('full'))
  expect(await ended(cancelById('ord_2'))).toMatchObject({ outcome: 'CANCELED' })
  expect(canceled).toEqual(['ord_1', 'ord_2'])
  expect(troubles).toEqual([
    expect.stringMatching(/^the cancel of placement [0-9a-f-]{36} goes on without being recorded$/),
    'a cancel goes on without being recorded',
  ])
  Object.assign(store, { update, findByOrder })
})

describe('a service that stops', () => {
  test('and cannot record what became of an order answers that it is not known', async () => {
    const { place, ended, world, script, store, pass, commands } = start()
    const { answer } = script
    script.answer = async (order) => {
      await world.sleep(100)
      return await answer(order)
    }
    const placed = place()
    await pass(30)
    const { update } = store
    store.update = () => Promise.reject(new StoreError('full'))
    const closed = commands.close()
    expect(await ended(placed)).toMatchObject({ outcome: 'UNKNOWN', orderId: null })
    await ended(closed)
    store.update = update
  })

  test('while an order waits for its turn does not send it', async () => {
    const { place, ended, world, script, pass, sent, commands, record } = start()
    script.turn = () => world.sleep(100)
    const placed = place()
    await pass(30)
    const closed = commands.close()
    expect(await ended(placed)).toMatchObject({
      outcome: 'NOT_PLACED',
      notPlacedCode: 'SHUTTING_DOWN',
      certainty: 'PROVEN',
      retrySameKey: true,
    })
    await ended(closed)
    expect(sent).toEqual([])
    expect(await record()).toMatchObject({ state: 'NOT_SENT', sends: 0 })
  })
})

// ---- finding out --------------------------------------------------------------------------------------------------

describe('a search', () => {
  test('binds nothing by its looks while an equal order is without an outcome', async () => {
    const { lose, ended, cancelByKey, setOrder, pass, record, canceled, alarms, book } = start()
    // The first never arrives, and its caller wants out of it; the second does.
    await lose()
    expect(await ended(cancelByKey('key-00001', 100))).toMatchObject({ outcome: 'PENDING' })
    await lose(key2, { timeoutMs: 2_000, acknowledged: ['key-00001'] })
    setOrder('ord_1')
    await pass(200_000)
    for (const clientOrderId of ['key-00001', 'key-00002']) {
      expect(await record(clientOrderId)).toMatchObject({ state: 'AMBIGUOUS', orderId: null, foundBy: null })
    }
    expect(alarms).toHaveLength(2)
    expect(canceled).toEqual([])
    expect(book.get('ord_1')).toMatchObject({ status: 'ACCEPTED' })
  })

  test('for the second attempt uses nothing of the first', async () => {
    const times = { lookupMs: [10, 30, 80, 200, 450, 900, 1_500], settleMs: 1_200 }
    const { place, ended, world, clock, script, sent, searchedAt, pass, record } = start({ times })
    let endedAt = 0
    script.answer = async () => {
      if (sent.length === 1) {
        await world.sleep(220)
        throw throttled
      }
      await world.sleep(300)
      endedAt = clock.now()
      throw lost
    }
    expect(await ended(place({}, { timeoutMs: 10 }))).toMatchObject({ outcome: 'UNKNOWN' })
    await pass(430)
    expect(await record()).toMatchObject({ state: 'NOT_SENT', attempt: 1 })
    expect(await ended(place({}, { timeoutMs: 10 }))).toMatchObject({ outcome: 'UNKNOWN' })
    await pass(10_000)
    const { state, attempt, resolvedAt, evidence } = await record()
    expect({ state, attempt }).toEqual({ state: 'NOT_PLACED', attempt: 2 })
    expect(resolvedAt).toBeGreaterThanOrEqual(endedAt + 1_200)
    // Each looks twice, under the filters and without.
    const searches = searchedAt.filter((at) => at >= endedAt && at <= (resolvedAt ?? 0)).length / 2
    expect(evidence.emptyScans).toBe(searches)
  })

  test.each([
    ['fails', () => Promise.reject(unauthorized)],
    ['cannot see all', () => Promise.resolve({ isComplete: false })],
  ])('that always %s is reported once, and proves nothing', async (_, search) => {
    const { lose, script, pass, record, alarms } = start({ capabilities: { clientIdEcho: true } })
    script.search = search
    await lose()
    await pass(119_000)
    expect(alarms).toEqual([])
    await pass(60 * 120_000)
    expect(await record()).toMatchObject({ state: 'UNKNOWN' })
    expect(alarms).toHaveLength(1)
  })

  test('is announced with the time of the next query', async () => {
    const times = { lookupMs: [1_000, 5_000, 40_000] }
    const { place, ended, world, clock, script, searchedAt, pass, record, commands } = start({ times })
    // What takes time takes fractions of a ms.
    script.answer = async () => {
      await world.sleep(0.3)
      throw lost
    }
    script.search = async () => {
      await world.sleep(0.3)
      return { isComplete: true }
    }
    const at = { answered: 0 }
    const answered = place({}, { timeoutMs: 6_000 }).finally(() => (at.answered = clock.now()))
    const result = await ended(answered)
    const { nextCheckAt } = await record()
    expect(result).toMatchObject({ outcome: 'UNKNOWN', retryAfterMs: (nextCheckAt ?? 0) - at.answered })
    expect(await commands.placement('acc_1', 'key-00001')).toMatchObject({
      result: { retryAfterMs: (nextCheckAt ?? 0) - clock.now() },
    })
    searchedAt.length = 0
    await pass(40_000)
    expect(Math.abs((searchedAt[0] ?? 0) - (nextCheckAt ?? 0))).toBeLessThanOrEqual(1)
  })
})

describe('a late lookup', () => {
  test.each([
    ['fails', () => Promise.reject(unauthorized)],
    ['cannot see all', () => Promise.resolve({ isComplete: false })],
  ])('that %s is made again, and does not use the watch up', async (_, search) => {
    const { lose, script, pass, setOrder, record, alarms, book } = start({ times: { lateMs: [300_000, 900_000] } })
    await lose()
    await pass(160_000)
    expect(await record()).toMatchObject({ state: 'NOT_PLACED' })
    const working = script.search
    script.search = search
    await pass(2_000_000)
    expect(await record()).toMatchObject({ state: 'NOT_PLACED', nextCheckAt: expect.any(Number) })
    setOrder('ord_1', key1)
    script.search = working
    await pass(61_000)
    expect(await record()).toMatchObject({ state: 'ACCEPTED', orderId: 'ord_1', foundBy: 'CLIENT_ORDER_ID' })
    expect(alarms).toHaveLength(1)
    expect(book.get('ord_1')).toMatchObject({ status: 'ACCEPTED' })
  })

  test('tells of an order that could be it and does not say', async () => {
    const { lose, pass, setOrder, record, alarms } = start()
    await lose()
    await pass(160_000)
    expect(await record()).toMatchObject({ state: 'NOT_PLACED' })
    expect(alarms).toEqual([])
    setOrder('ord_1')
    await pass(2 * 86_400_000)
    expect(await record()).toMatchObject({ state: 'NOT_PLACED', orderId: null, nextCheckAt: null })
    expect(alarms).toHaveLength(1)
  })
})

// ---- the state machine --------------------------------------------------------------------------------------------

const checked = { type: 'checked', nextCheckAt: 99_000 } as const

test('only wanted orders are checked again', async () => {
  const { place, ended, record } = start()
  await ended(place())
  const placement = await record()
  const watched = placementStates.filter((state) =>
    [null, 1_000].some((nextCheckAt) => advance({ ...placement, state, nextCheckAt }, checked, 1) !== null),
  )
  expect(watched).toEqual(['UNKNOWN', 'NOT_PLACED'])
  expect(advance({ ...placement, state: 'NOT_PLACED', nextCheckAt: null }, checked, 1)).toBeNull()
})

test('an event of one attempt does not apply to another', async () => {
  const { place, ended, record } = start()
  await ended(place())
  const accepted = { ...(await record()), attempt: 2 }
  const outcome = { kind: 'not_sent', code: 'DEADLINE', message: '', retrySameKey: true, retryAfterMs: null } as const
  const failure = { kind: 'no_answer', status: null }
  for (const [attempt, isNews] of [
    [1, false],
    [2, true],
    [3, false],
  ] as const) {
    const reserved = { ...accepted, orderId: null, state: 'RESERVED' } as const
    const sending = { ...accepted, orderId: null, state: 'SENDING' } as const
    const steps = [
      advance(reserved, { type: 'sending', attempt, preImage: null }, 1),
      advance(reserved, { type: 'not_sent', attempt, outcome, left: false }, 1),
      advance(sending, { type: 'not_sent', attempt, outcome, left: true }, 1),
      advance(sending, { type: 'lost', attempt, failure }, 1),
      // A contradiction, if it is about the attempt that was accepted.
      advance(accepted, { type: 'not_sent', attempt, outcome, left: true }, 1),
    ]
    expect(steps.map((step) => step !== null)).toEqual(steps.map(() => isNews))
  }
})

test('a field that is added, and left out, makes no other order', () => {
  const later = { ...request, displayQuantity: null }
  expect(toFingerprint(later)).toBe(toFingerprint(request))
  expect(toFingerprint({ ...request, extendedHours: false })).not.toBe(toFingerprint(request))
})
