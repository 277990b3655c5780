// What a service does about its store when it is started twice, loses its disk, or finds the store damaged, full or
// locked, and about a wall clock that is set: the real process on a real file, over a broker in another process.

import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { UpstreamError } from '../../src/upstream/errors.ts'
import type { Broker } from '../../src/brokers/broker.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'
import { systemClock } from '../../src/domain/clock.ts'
import type { Clock } from '../../src/domain/clock.ts'
import { createCommands } from '../../src/trading/placeOrder.ts'
import type { NewOrder } from '../../src/domain/order.ts'
import { openSqliteStore } from '../../src/store/sqlite/sqliteStore.ts'
import { fillStore } from '../fill-store.ts'
import { limitBuy, startForTest } from '../harness.ts'
import {
  eventually,
  makeDataDir,
  makeRestingBuy,
  onList,
  onPlace,
  place,
  placementOf,
  startBroker,
  startService,
  verifyAudit,
} from './process.ts'
import type { BrokerProcess, Buy, PlaceResult, ServiceProcess } from './process.ts'

let broker: BrokerProcess
beforeAll(async () => {
  broker = await startBroker()
})
afterAll(() => broker.close())

afterEach(async () => {
  await broker.setRules()
  await broker.control('DELETE', '/log')
})

/** A buy far below the market, under a key of its own. */
const restingBuy = (quantity?: string): Buy => makeRestingBuy(broker.accountId, quantity)

// ---- starting -------------------------------------------------------------------------------------------------------

describe('starting', () => {
  test('G04 a second process on the same store refuses, and the first goes on', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    const first = await startService(env)
    await expect(startService(env)).rejects.toThrow(
      /^ended with 1: the store \S+: another service has it open: stop that/,
    )
    expect(await place(first, restingBuy())).toMatchObject({ outcome: 'PLACED' })
    await first.kill()
    // What was killed holds no lock.
    expect(await place(await startService(env), restingBuy('2'))).toMatchObject({ outcome: 'PLACED' })
  })

  test('G04 of three that start at once on a new store, one does', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    const starts = await Promise.allSettled([startService(env), startService(env), startService(env)])
    const [only, ...others] = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
    expect(others).toEqual([])
    for (const start of starts) {
      if (start.status === 'rejected') expect(String(start.reason)).toMatch(/ended with 1: the store .* has it open/)
    }
    if (!only) throw new Error('none of them started')
    expect(await place(only, restingBuy())).toMatchObject({ outcome: 'PLACED' })
  })

  const isDamaged = 'it is damaged, so restore it from a backup'
  const damages: [what: string, damage: (bytes: Buffer) => Buffer, words: string][] = [
    ['whose head is damaged', (bytes) => bytes.fill(0x5a, 0, 100), isDamaged],
    ['of which a page is damaged', (bytes) => bytes.fill(0x5a, 4_096, 8_192), isDamaged],
    ['that is cut off', (bytes) => bytes.subarray(0, 8_192), isDamaged],
    ['that is a text', () => Buffer.from('not a database\n'.repeat(100)), isDamaged],
    ['that is another database', makeOtherDatabase, 'the file is something else, so name another, or restore it'],
  ]
  test.each(damages)('G04 a store %s: refuses to start, and leaves it as it is', async (_, damage, words) => {
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    const file = join(env.DATA_DIR, 'placements.sqlite')
    await fillStore(file, { placed: manyOrders(50), lost: [] })
    const bytes = damage(readFileSync(file))
    writeFileSync(file, bytes)
    const refusal = await startService(env).catch(String)
    expect(refusal).toMatch(/ended with 1: the store /)
    expect(refusal).toContain(words)
    expect(refusal).not.toMatch(/\n +at /)
    expect(readFileSync(file).equals(bytes)).toBe(true)
  })

  function makeOtherDatabase(): Buffer {
    const file = join(makeDataDir(), 'other.sqlite')
    const database = new DatabaseSync(file)
    database.exec('CREATE TABLE other (id INTEGER)')
    database.close()
    return readFileSync(file)
  }

  test('G04 in production an empty store is made only when told to', async () => {
    const env = { ...broker.env, DATA_DIR: join(makeDataDir(), 'store'), NODE_ENV: 'production' }
    await expect(startService(env)).rejects.toThrow(
      /^ended with 1: there is no store at \S+: set STORE_INIT=1 to create/,
    )
    expect(statSync(env.DATA_DIR, { throwIfNoEntry: false })).toBeUndefined()
    const first = await startService({ ...env, STORE_INIT: '1' })
    const input = restingBuy()
    const placed = await place(first, input)
    await first.kill()
    expect(await place(await startService(env), input)).toEqual({ ...placed, replayed: true })
  })

  test('G07 10,000 records and 50 without an outcome: ready soon, and looked for within their share', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir(), PLACE_LOOKUP_MS: '50,5000', BLUUM_REQUESTS_PER_SECOND: '25' }
    const accountId = broker.otherAccountId
    const lost = Array.from({ length: 50 }, (_, index) => ({ ...restingBuy(String(index + 1)), accountId }))
    for (const { clientOrderId, quantity } of lost) {
      const order = { symbol: 'AAPL', side: 'buy', type: 'limit', time_in_force: 'gtc', limit_price: '1.00' }
      const key = { client_order_id: clientOrderId }
      await broker.control('POST', '/orders', { account: accountId, ...order, ...key, qty: quantity })
    }
    const file = join(env.DATA_DIR, 'placements.sqlite')
    await fillStore(file, { placed: manyOrders(10_000), lost: lost.map(toNewOrder) })
    expect(await verifyAudit(env.DATA_DIR)).toEqual({ placements: 10_050, rows: 30_150, broken: null })

    // As on a machine that has not run it before.
    const service = await startService({ ...env, NODE_COMPILE_CACHE: '' })
    expect(service.readyMs - service.heldUpMs).toBeLessThan(3_000)
    const beganAt = performance.now()
    // It is not kept from its work meanwhile.
    expect(await place(service, restingBuy())).toMatchObject({ outcome: 'PLACED', replayed: false })
    const isFound = async (input: Buy): Promise<boolean> => (await placementOf(service, input)).state === 'PLACED'
    await vi.waitFor(async () => expect((await Promise.all(lost.map(isFound))).every(Boolean)).toBe(true), {
      timeout: 20_000,
      interval: 250,
    })
    const seconds = Math.round(performance.now() - beganAt) / 1_000
    // The look before that placement was in its own account.
    const lookups = (await broker.calls()).filter(({ path }) => path.includes(accountId)).map(({ at }) => at)
    expect(lookups.length).toBeLessThanOrEqual(4 * (1 + Math.floor((seconds + service.readyMs / 1_000) / 1.1)))
    // A fifth of 20 a second; one that is late on its way is followed sooner.
    for (const [index, at] of lookups.entries()) expect((lookups[index + 4] ?? Infinity) - at).toBeGreaterThan(700)
    const heldUpMs = Math.round(service.heldUpMs)
    const summary = { readyMs: Math.round(service.readyMs), heldUpMs, seconds, lookups: lookups.length }
    process.stdout.write(`G07 ${JSON.stringify(summary)}\n`)
  })

  test('G08 with the broker away, /health and /ready say yes and do not ask it', async () => {
    await broker.setRules({ match: {}, fault: { kind: 'refuse' } })
    const service = await startService({ ...broker.env, DATA_DIR: makeDataDir(), LOG_LEVEL: 'debug' })
    await expectWell()
    expect(countUpstreamCalls()).toBe(0)
    // Once it is known to be away, too.
    expect(await place(service, restingBuy())).toMatchObject({ notPlacedCode: 'BROKER_UNAVAILABLE' })
    const asked = countUpstreamCalls()
    expect(asked).toBeGreaterThan(0)
    await expectWell()
    expect(countUpstreamCalls()).toBe(asked)

    async function expectWell(): Promise<void> {
      for (const path of ['/health', '/ready']) {
        const answer = await fetch(service.origin + path)
        expect([path, answer.status]).toEqual([path, 200])
      }
    }
    function countUpstreamCalls(): number {
      return service.output().split('"upstream call"').length - 1
    }
  })
})

// ---- a store that cannot be written -----------------------------------------------------------------------------

const unrecorded = {
  outcome: 'NOT_PLACED',
  notPlacedCode: 'STORE_UNAVAILABLE',
  certainty: 'PROVEN',
  retrySameKey: true,
}

describe('a full disk', () => {
  test('G05 nothing is sent that cannot be recorded; the rest works, and all of it once there is room', async (context) => {
    const folder = mountSmallDisk()
    if (folder === null) {
      context.skip('a tmpfs cannot be mounted here: it takes root and CAP_SYS_ADMIN')
      return
    }
    const service = await startService({
      ...broker.env,
      DATA_DIR: folder,
      PLACE_REPLY_MS: '2000',
      PLACE_LOOKUP_MS: '200,600,1500',
    })
    const before = restingBuy('1000')
    const { orderId } = await place(service, before)

    // Some are anywhere on their way when the disk fills up.
    const slowly = { kind: 'latency', ms: 40 }
    await broker.setRules({ match: onPlace, fault: slowly }, { match: onList, fault: slowly })
    const underWay: { input: Buy; result: PlaceResult }[] = []
    const clients = Array.from({ length: 4 }, async (_, client) => {
      for (let number = 1, isRefused = false; !isRefused; number++) {
        const input = restingBuy(String(client * 200 + number))
        const result = await place(service, input)
        underWay.push({ input, result })
        isRefused = result.notPlacedCode === 'STORE_UNAVAILABLE'
      }
    })
    await eventually(() => Promise.resolve(expect(underWay.length).toBeGreaterThan(4)))
    const filler = join(folder, 'filler')
    fillDisk(filler)
    await Promise.all(clients)
    const allowed = ['PLACED', 'UNKNOWN', 'STORE_UNAVAILABLE']
    for (const { result } of underWay) expect(allowed).toContain(result.notPlacedCode ?? result.outcome)

    await broker.setRules()
    await broker.control('DELETE', '/log')
    const refused = Array.from({ length: 5 }, (_, index) => restingBuy(String(900 + index)))
    for (const input of refused) expect(await place(service, input)).toMatchObject(unrecorded)
    expect(await broker.sentKeys()).toEqual([])
    expect(await place(service, before)).toEqual({ outcome: 'PLACED', replayed: true, orderId })
    const read = await service.run('query ($id: ID!) { order(id: $id) { status } }', { id: orderId })
    expect(read).toEqual({ order: { status: 'ACCEPTED' } })
    const cancel = 'mutation ($id: ID!) { cancelOrder(input: { orderId: $id }) { outcome } }'
    expect(await service.run(cancel, { id: orderId })).toEqual({ cancelOrder: { outcome: 'CANCELED' } })

    rmSync(filler)
    for (const input of refused)
      expect(await place(service, input)).toMatchObject({ outcome: 'PLACED', replayed: false })
    for (const { input, result } of underWay) {
      const isProven = result.certainty === 'PROVEN'
      expect(await broker.booked(input.clientOrderId)).toHaveLength(isProven ? 0 : 1)
      if (isProven) expect(await place(service, input)).toMatchObject({ outcome: 'PLACED', replayed: false })
      else await eventually(async () => expect(await placementOf(service, input)).toMatchObject({ state: 'PLACED' }))
    }
    expect(await verifyAudit(folder)).toMatchObject({ placements: 1 + underWay.length + refused.length, broken: null })
    const outcomes = underWay.map(({ result }) => result.notPlacedCode ?? result.outcome)
    process.stdout.write(
      `G05 ${JSON.stringify(
        Object.groupBy(outcomes, (outcome) => outcome),
        toLength,
      )}\n`,
    )
  })

  function toLength(_: string, value: unknown): unknown {
    return Array.isArray(value) ? value.length : value
  }

  /**
   * A disk of 24 MB in memory, several times what the store's log grows to; null where this process may not mount one.
   * Unmounted when the test is over.
   */
  function mountSmallDisk(): string | null {
    const folder = join(makeDataDir(), 'disk')
    mkdirSync(folder)
    try {
      runProgram('mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', folder)
    } catch {
      return null
    }
    // Lazily: it goes when the last process that has a file open there has gone.
    onTestFinished(() => runProgram('umount', '-l', folder))
    return folder
  }

  function runProgram(name: string, ...args: string[]): void {
    execFileSync(name, args, { stdio: 'ignore' })
  }

  /** Writes until there is no room for a byte more. */
  function fillDisk(file: string): void {
    const to = openSync(file, 'w')
    try {
      for (const piece of [65_536, 4_096, 1]) {
        try {
          for (;;) writeSync(to, Buffer.alloc(piece))
        } catch (error) {
          expect(error).toMatchObject({ code: 'ENOSPC' })
        }
      }
    } finally {
      closeSync(to)
    }
  }
})

describe('a locked store', () => {
  /** Keeps everybody else from writing until `free` is called. */
  function lock(dataDir: string): { free(): void } {
    const database = new DatabaseSync(join(dataDir, 'placements.sqlite'))
    onTestFinished(() => void (database.isOpen && database.close()))
    database.exec('BEGIN IMMEDIATE')
    return { free: () => database.close() }
  }

  async function start(replyMs: number) {
    const harness = await startForTest({
      PLACE_REPLY_MS: String(replyMs),
      PLACE_LOOKUP_MS: '100,300,900',
      BREAKER: 'off',
    })
    const run: ServiceProcess['run'] = async (query, variables) => {
      const { data, errors } = await harness.run(query, variables)
      expect(errors).toBeUndefined()
      return data
    }
    const input = () => limitBuy(harness, { quantity: '1' }) as Buy
    const posts = async () => (await harness.calls()).filter(({ method }) => method === 'POST')
    return { ...harness, service: { run }, input, posts }
  }

  test('nothing is sent; reads go on; it works again without a restart', async () => {
    const { service, dataDir, input: make, posts } = await start(5_000)
    const before = make()
    const placed = await place(service, before)
    const input = make()
    const held = lock(dataDir)
    expect(await place(service, input)).toMatchObject(unrecorded)
    expect(await posts()).toHaveLength(1)
    expect(await place(service, before)).toEqual({ ...placed, replayed: true })
    expect(await placementOf(service, before)).toMatchObject({ state: 'PLACED' })
    const read = await service.run('query ($id: ID!) { order(id: $id) { status } }', { id: placed.orderId })
    expect(read).toEqual({ order: { status: 'ACCEPTED' } })
    held.free()
    expect(await place(service, input)).toMatchObject({ outcome: 'PLACED', replayed: false })
    expect(await posts()).toHaveLength(2)
    expect(await verifyAudit(dataDir)).toMatchObject({ placements: 2, broken: null })
  })

  test('locked between the record and the send: nothing is sent, and the same key sends later', async () => {
    const { service, dataDir, input: make, posts, setRules, calls } = await start(5_000)
    await setRules({ match: onList, fault: { kind: 'latency', ms: 400 } })
    const input = make()
    const placing = place(service, input)
    await eventually(async () => expect(await calls()).toHaveLength(1))
    const held = lock(dataDir)
    expect(await placing).toMatchObject(unrecorded)
    expect(await posts()).toEqual([])
    held.free()
    await setRules()
    expect(await place(service, input)).toMatchObject({ outcome: 'PLACED', replayed: false })
    expect(await posts()).toHaveLength(1)
  })

  test.each([
    ['answered', { kind: 'latency', ms: 100 }],
    ['lost', { kind: 'rstAfterCommit' }],
  ])('locked while a placement is at the broker, then %s: unknown until it can be recorded', async (_, fault) => {
    const { service, dataDir, input: make, posts, setRules, book } = await start(800)
    // Time to lock it before anything comes back.
    await setRules({ match: onPlace, fault: { kind: 'latency', ms: 400 } }, { match: onPlace, fault })
    const input = make()
    const placing = place(service, input)
    await eventually(async () => expect(await posts()).toHaveLength(1))
    const held = lock(dataDir)
    expect(await placing).toMatchObject({ outcome: 'UNKNOWN' })
    await setRules()
    expect(await place(service, input)).toMatchObject({ outcome: 'UNKNOWN' })
    expect(await placementOf(service, input)).toMatchObject({ state: 'IN_PROGRESS', result: { outcome: 'UNKNOWN' } })
    held.free()
    await eventually(async () => expect(await placementOf(service, input)).toMatchObject({ state: 'PLACED' }))
    const [order] = (await book()).filter((row) => row['client_order_id'] === input.clientOrderId)
    expect(await place(service, input)).toMatchObject({ outcome: 'PLACED', replayed: true, orderId: order?.['id'] })
    expect(await posts()).toHaveLength(1)
    expect(await verifyAudit(dataDir)).toMatchObject({ placements: 1, broken: null })
  })
})

// ---- a wall clock that is set ---------------------------------------------------------------------------------------

describe('a wall clock that jumps', () => {
  const settleMs = 700
  const hour = 3_600_000

  /** Commands over a broker that loses the answer and shows nothing, by a wall clock that can be set. */
  function start(file: string, wall: { offsetMs: number }) {
    const clock: Clock = { ...systemClock, now: () => Date.now() + wall.offsetMs }
    const notAsked = () => Promise.reject(new Error('not asked here'))
    let sends = 0
    const blind: Broker = {
      id: 'BLUUM',
      capabilities: {
        clientIdEcho: true,
        clientIdUnique: false,
        idempotencyKey: false,
        lookupByClientId: false,
        listNewestFirst: false,
        readYourWrites: false,
        cancelIdempotent: false,
        cancelAsync: false,
        stream: false,
      },
      features: dialects.accounts.features,
      orders: notAsked,
      pages: notAsked,
      accounts: notAsked,
      scan: () => Promise.resolve({ orders: [], isComplete: true }),
      unsupported: () => [],
      planLists: (statuses) => [statuses],
      async place(_, { beforeSend }) {
        await beforeSend()
        sends++
        throw new UpstreamError('no_answer', 'sent, no answer')
      },
      cancel: notAsked,
      close: () => Promise.resolve(),
    }
    const store = openSqliteStore({ file, role: 'service', mayCreate: true })
    const commands = createCommands({
      brokers: new Map([['BLUUM', blind]]),
      store,
      clock,
      random: Math.random,
      times: {
        replyMs: 50,
        sendByMs: { market: 10_000, other: 30_000 },
        lookupMs: [50, 100, 200, 400],
        settleMs,
        lateMs: [300_000],
        assumeAbsent: true,
      },
      trading: 'on',
      placementRate: null,
      onTrouble: () => {},
      onNotice: () => {},
    })
    let closing: Promise<void> | null = null
    const close = () => (closing ??= commands.close().then(() => store.close()))
    onTestFinished(close)
    return { commands, close, sends: () => sends }
  }

  /** How long after `beganAt` it was taken for never placed; looked at every few ms. */
  async function waitForAbsence({ commands }: ReturnType<typeof start>, order: NewOrder, beganAt: number) {
    const { accountId, clientOrderId } = order
    await vi.waitFor(
      async () => {
        expect(await commands.placement(accountId, clientOrderId)).toMatchObject({
          state: 'NOT_PLACED',
          result: { notPlacedCode: 'NEVER_APPEARED', certainty: 'ASSUMED' },
        })
      },
      { timeout: 15_000, interval: 5 },
    )
    return performance.now() - beganAt
  }

  const wishes = { sendBy: null, timeoutMs: null, acknowledged: [] }

  test.each([
    ['an hour ahead', hour],
    ['an hour back', -hour],
  ])('G09 %s while an outcome is searched for: given up no sooner and no later', async (_, jumpMs) => {
    const wall = { offsetMs: 0 }
    const running = start(join(makeDataDir(), 'placements.sqlite'), wall)
    await running.commands.start()
    const order = toNewOrder(restingBuy())
    const beganAt = performance.now()
    expect(await running.commands.place(order, wishes)).toMatchObject({ outcome: 'UNKNOWN' })
    wall.offsetMs = jumpMs
    expect(await waitForAbsence(running, order, beganAt)).toBeGreaterThanOrEqual(settleMs)
    expect(await running.commands.place(order, wishes)).toMatchObject({ notPlacedCode: 'NEVER_APPEARED' })
    expect(running.sends()).toBe(1)
  })

  test.each([
    ['an hour ahead', hour],
    ['an hour back', -hour],
  ])('G09 %s while the service is down: the lookups begin again', async (_, jumpMs) => {
    const wall = { offsetMs: 0 }
    const file = join(makeDataDir(), 'placements.sqlite')
    const first = start(file, wall)
    await first.commands.start()
    const order = toNewOrder(restingBuy())
    expect(await first.commands.place(order, wishes)).toMatchObject({ outcome: 'UNKNOWN' })
    await first.close()
    wall.offsetMs = jumpMs
    const second = start(file, wall)
    const beganAt = performance.now()
    await second.commands.start()
    expect(await waitForAbsence(second, order, beganAt)).toBeGreaterThanOrEqual(settleMs)
    expect(await second.commands.place(order, wishes)).toMatchObject({ notPlacedCode: 'NEVER_APPEARED' })
    expect(second.sends()).toBe(0)
  })
})
// ---- orders -----------------------------------------------------------------------------------------------------------

function toNewOrder(input: Buy): NewOrder {
  return {
    ...input,
    notional: null,
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    commission: null,
    commissionType: null,
  }
}

function manyOrders(count: number): NewOrder[] {
  return Array.from({ length: count }, () => toNewOrder(restingBuy()))
}
