// What survives when the service is killed, stopped, started twice, or loses its disk: the real process on a real file,
// with its broker in another process, whose request log and book are the judges.
//
// `KILLS=20 npx vitest run test/process.test.ts` runs G03 in its long form; `SEED=…` repeats a run that failed.

import { execFileSync } from 'node:child_process'
import { randomInt, randomUUID } from 'node:crypto'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { UpstreamError } from '../src/brokers/broker.ts'
import type { Broker } from '../src/brokers/broker.ts'
import { dialects } from '../src/brokers/dialects.ts'
import { systemClock } from '../src/clock.ts'
import type { Clock } from '../src/clock.ts'
import { createCommands } from '../src/orders/commands.ts'
import type { NewOrder } from '../src/orders/order.ts'
import { openSqliteStore } from '../src/store/sqlite.ts'
import type { AuditReport } from '../src/store/store.ts'
import { fillStore } from './fill-store.ts'
import { limitBuy, startForTest } from './harness.ts'
import { makeDataDir, startBroker, startService } from './process.ts'
import type { BrokerProcess, ServiceProcess } from './process.ts'

interface Result {
  outcome: string
  orderId: string | null
  replayed?: boolean
  notPlacedCode?: string
  certainty?: string
  retrySameKey?: boolean
}

const resultFields = `outcome orderId ... on OrderPlaced { replayed } ... on OrderNotPlaced { notPlacedCode certainty retrySameKey }`
const placeDocument = `mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { ${resultFields} } }`
const placementDocument = `query ($accountId: ID!, $clientOrderId: ID!) {
  placement(accountId: $accountId, clientOrderId: $clientOrderId) { state attempts orderId foundBy result { ${resultFields} } }
}`

let broker: BrokerProcess
beforeAll(async () => {
  broker = await startBroker()
})
afterAll(() => broker.close())

afterEach(async () => {
  await broker.setRules()
  await broker.control('DELETE', '/log')
})

type Input = ReturnType<typeof restingBuy>
/** A buy far below the market, under a key of its own. */
function restingBuy(quantity = '1') {
  return {
    accountId: broker.accountId,
    clientOrderId: randomUUID(),
    symbol: 'AAPL',
    side: 'BUY' as const,
    type: 'LIMIT' as const,
    timeInForce: 'GTC' as const,
    quantity,
    limitPrice: '1.00',
  }
}

async function place(service: Pick<ServiceProcess, 'run'>, input: object): Promise<Result> {
  return (await service.run(placeDocument, { input })).placeOrder as Result
}

interface Placement {
  state: string
  attempts: number
  orderId: string | null
  foundBy: string | null
  result: Result
}

async function placementOf(
  service: Pick<ServiceProcess, 'run'>,
  { accountId, clientOrderId }: Input,
): Promise<Placement> {
  return (await service.run(placementDocument, { accountId, clientOrderId })).placement as Placement
}

/** Waits for what ends in the background; generous, since it is bounded and not measured. */
function eventually(check: () => Promise<void>, timeout = 15_000): Promise<void> {
  return vi.waitFor(check, { timeout, interval: 20 })
}

/** Begins to place, resolves when the broker has the order, and lets its caller be cut off. */
async function placeUntilSent(service: ServiceProcess, input: Input): Promise<void> {
  place(service, input).catch(() => {})
  await eventually(async () => expect(await sentKeys()).toContain(input.clientOrderId))
}

/** The keys of the placements that reached the broker, oldest first. */
async function sentKeys(): Promise<(string | null)[]> {
  return (await broker.posts()).map(({ clientOrderId }) => clientOrderId)
}

/** Checks all chains of a store, beside a service or without one. */
async function verifyAudit(dataDir: string): Promise<AuditReport> {
  const store = openSqliteStore({ file: join(dataDir, 'placements.sqlite'), role: 'operator', mayCreate: false })
  try {
    return await store.verifyAudit()
  } finally {
    await store.close()
  }
}

const onPlace = { method: 'POST', path: '/orders$' }
const onList = { method: 'GET', path: '/orders\\?' }

// ---- killed and stopped -----------------------------------------------------------------------------------------

describe('killed', () => {
  test('A11 before the order left: proven from the record, and the same key sends once', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    await broker.setRules({ match: onList, fault: { kind: 'hang' } })
    const first = await startService(env)
    const input = restingBuy()
    place(first, input).catch(() => {})
    await eventually(async () => expect((await broker.calls()).map(({ method }) => method)).toEqual(['GET']))
    expect(await placementOf(first, input)).toMatchObject({ state: 'IN_PROGRESS', result: { outcome: 'UNKNOWN' } })
    await first.kill()
    await broker.setRules()

    const second = await startService(env)
    const proven = { outcome: 'NOT_PLACED', certainty: 'PROVEN', retrySameKey: true, orderId: null }
    expect(await placementOf(second, input)).toMatchObject({ attempts: 0, result: proven })
    expect(await sentKeys()).toEqual([])
    const placed = await place(second, input)
    expect(placed).toMatchObject({ outcome: 'PLACED', replayed: false })
    expect(await place(second, input)).toEqual({ ...placed, replayed: true })
    expect(await sentKeys()).toEqual([input.clientOrderId])
    expect(await broker.booked(input.clientOrderId)).toMatchObject([{ id: placed.orderId }])
    expect(await verifyAudit(env.DATA_DIR)).toMatchObject({ placements: 1, broken: null })
  })

  test.each([
    ['with the order taken in and no answer', { kind: 'hang', when: 'afterCommit' }],
    ['with an order that the broker takes in only later', { kind: 'latency', ms: 1_500 }],
  ])('100 ms after the broker got it, %s: found after the restart', async (_, fault) => {
    // The times are those of the settings without a word: the first look is a second after the restart.
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    await broker.setRules({ match: onPlace, fault })
    const first = await startService(env)
    const input = restingBuy()
    await placeUntilSent(first, input)
    await sleep(100)
    await first.kill()

    const second = await startService(env)
    await eventually(async () => expect(await placementOf(second, input)).toMatchObject({ state: 'PLACED' }), 10_000)
    const { orderId, foundBy, attempts } = await placementOf(second, input)
    expect({ foundBy, attempts }).toEqual({ foundBy: 'CLIENT_ORDER_ID', attempts: 1 })
    expect(await place(second, input)).toMatchObject({ outcome: 'PLACED', replayed: true, orderId })
    expect(await sentKeys()).toEqual([input.clientOrderId])
    expect(await broker.booked(input.clientOrderId)).toMatchObject([{ id: orderId }])
  })

  test('a repeat that comes at once after the restart joins, and sends nothing', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir(), PLACE_REPLY_MS: '300', PLACE_LOOKUP_MS: '2500' }
    await broker.setRules({ match: onPlace, fault: { kind: 'hang', when: 'afterCommit' } })
    const first = await startService(env)
    const input = restingBuy()
    await placeUntilSent(first, input)
    await first.kill()
    const second = await startService(env)
    const repeats = await Promise.all(Array.from({ length: 20 }, () => place(second, input)))
    expect(new Set(repeats.map(({ outcome }) => outcome))).toEqual(new Set(['UNKNOWN']))
    await eventually(async () =>
      expect(await place(second, input)).toMatchObject({ outcome: 'PLACED', replayed: true }),
    )
    expect(await sentKeys()).toEqual([input.clientOrderId])
  })
})

describe('stopped', () => {
  test('G02 twice while a POST hangs: ends at once, and the order is found after the restart', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir(), PLACE_LOOKUP_MS: '50,200,800' }
    await broker.setRules({ match: onPlace, fault: { kind: 'hang', when: 'afterCommit' } })
    const first = await startService(env)
    const input = restingBuy()
    await placeUntilSent(first, input)
    first.signal('SIGTERM')
    await eventually(() => expect(fetch(`${first.origin}/health`)).rejects.toThrow())
    const askedAt = performance.now()
    first.signal('SIGTERM')
    expect(await first.exited).toBe(1)
    // Of the 35 s that a stop may take.
    expect(performance.now() - askedAt).toBeLessThan(10_000)

    const second = await startService(env)
    await eventually(async () => expect(await placementOf(second, input)).toMatchObject({ state: 'PLACED' }))
    expect(await sentKeys()).toEqual([input.clientOrderId])
    await second.kill()
    expect(readStates(env.DATA_DIR)).toEqual(['RESERVED', 'SENDING', 'UNKNOWN', 'ACCEPTED'])
  })

  test('G02 once while a POST hangs: ends within SHUTDOWN_MS with 0, and the order is found after the restart', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir(), PLACE_LOOKUP_MS: '50,200,800', SHUTDOWN_MS: '500' }
    await broker.setRules({ match: onPlace, fault: { kind: 'hang', when: 'afterCommit' } })
    const first = await startService(env)
    const input = restingBuy()
    await placeUntilSent(first, input)
    const askedAt = performance.now()
    first.signal('SIGTERM')
    expect(await first.exited).toBe(0)
    expect(performance.now() - askedAt).toBeLessThan(10_000)
    expect(first.complaints()).toBe('')

    const second = await startService(env)
    await eventually(async () => expect(await placementOf(second, input)).toMatchObject({ state: 'PLACED' }))
    expect(await sentKeys()).toEqual([input.clientOrderId])
    expect(await verifyAudit(env.DATA_DIR)).toMatchObject({ placements: 1, broken: null })
  })

  /** The states that the one placement of a store went through. */
  function readStates(dataDir: string): unknown[] {
    const database = new DatabaseSync(join(dataDir, 'placements.sqlite'), { readOnly: true })
    try {
      const rows = database.prepare('SELECT to_state FROM audit ORDER BY op_id, seq').all()
      return [...new Set(rows.map((row) => row['to_state']))]
    } finally {
      database.close()
    }
  }

  test('G11 by a rejection that nobody handled: says so, ends with 1, and the records are sound', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    const injection = 'process.on("SIGUSR2", () => void Promise.reject(new Error("injected here")))'
    const first = await startService(env, ['--import', `data:text/javascript,${encodeURIComponent(injection)}`])
    const input = restingBuy()
    const placed = await place(first, input)
    first.signal('SIGUSR2')
    expect(await first.exited).toBe(1)
    expect(first.complaints()).toContain('injected here')
    const second = await startService(env)
    expect(await place(second, input)).toEqual({ ...placed, replayed: true })
    expect(await verifyAudit(env.DATA_DIR)).toMatchObject({ placements: 1, broken: null })
  })
})

// ---- many kills, at random ------------------------------------------------------------------------------------------

describe('killed again and again', () => {
  const kills = Number(process.env['KILLS'] ?? 7)
  const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31))
  // An answer is waited for, and an order looked for, within what a service lives here.
  const times = { PLACE_REPLY_MS: '600', PLACE_LOOKUP_MS: '50,150,400,800', PLACE_SETTLE_MS: '1600', BREAKER: 'off' }
  const clientsCount = 4
  const keysPerLife = 12
  const timeout = 60_000 + kills * 5_000

  test(`G03 E12 no order is doubled, lost or lied about (KILLS=${kills} SEED=${seed})`, { timeout }, async () => {
    const random = createRandom(seed)
    const env = { ...broker.env, ...times, DATA_DIR: makeDataDir() }
    await broker.setRules(...drawRules(random))
    // Each of another quantity: an equal one would be held back.
    const inputs = Array.from({ length: kills * keysPerLife }, (_, index) => restingBuy(String(index + 1)))
    const bookedBefore = (await readBook()).length
    const told = new Map<string, Result[]>()
    let service = await startService(env)
    let lives = 1
    let answers = 0
    let cutOff = 0
    const over = new AbortController()

    async function ask(input: Input): Promise<Result | null> {
      const result = await place(service, input).catch((error: unknown) => {
        // A service that was killed is no news. An answer that has errors is.
        if (String(error).includes('has errors')) throw error
        return null
      })
      if (result === null) cutOff++
      else answers++
      if (result !== null) told.set(input.clientOrderId, [...(told.get(input.clientOrderId) ?? []), result])
      return result
    }

    // Each key has one client, which alone can say when nothing of it is under way. Each life has its share of new keys.
    async function runClient(own: Input[]): Promise<void> {
      let next = 0
      while (!over.signal.aborted) {
        const isRepeat = next >= (own.length * lives) / kills || (next > 0 && random() < 0.3)
        const input = own[isRepeat ? Math.floor(random() * next) : next++]
        if (input === undefined) return
        const isDouble = random() < 0.2
        const [result] = await Promise.all([ask(input), isDouble ? ask(input) : null])
        if (!isDouble && result?.certainty === 'PROVEN') expect(await broker.booked(input.clientOrderId)).toEqual([])
        await sleep(20 + random() * 60)
      }
    }

    const clients = Promise.all(
      Array.from({ length: clientsCount }, (_, client) =>
        runClient(inputs.filter((__, index) => index % clientsCount === client)),
      ),
    )
    // Its failure is told in the end.
    clients.catch(() => {})
    for (; lives <= kills; lives++) {
      await sleep(100 + random() * 1_000)
      await service.kill()
      service = await startService(env)
    }
    over.abort()
    await clients

    // Healed. Each key is sent once more, and all is known soon after.
    await broker.setRules()
    for (const input of inputs) await ask(input)
    await eventually(async () => {
      const placements = await Promise.all(inputs.map((input) => placementOf(service, input)))
      const open = placements.filter(({ state }) => state === 'UNKNOWN' || state === 'IN_PROGRESS')
      expect(open).toEqual([])
    }, 20_000)
    for (const input of inputs) await ask(input)
    await service.kill()
    const audit = await verifyAudit(env.DATA_DIR)
    expect(audit).toMatchObject({ placements: inputs.length, broken: null })
    service = await startService(env)

    const book = await readBook()
    const posts = await broker.posts()
    const counts: Record<string, number> = {}
    for (const input of inputs) {
      const { clientOrderId, quantity } = input
      const orders = book.filter((order) => order['client_order_id'] === clientOrderId)
      const sent = posts.filter((post) => post.clientOrderId === clientOrderId)
      const { state, attempts, orderId, result } = await placementOf(service, input)
      counts[state] = (counts[state] ?? 0) + 1
      const what = `${clientOrderId}, ${quantity} shares`
      expect(['PLACED', 'REJECTED', 'NOT_PLACED'], what).toContain(state)
      const found = orders.map(({ id, qty }) => [id, qty])
      expect(found, what).toEqual(state === 'PLACED' ? [[orderId, quantity]] : [])
      // None of the faults proves, after the POST, that it was not processed; so none may be sent again.
      expect(sent.length, what).toBeLessThanOrEqual(Math.min(1, attempts))
      // What was said once holds: one order for ever, and one end.
      const final = (told.get(clientOrderId) ?? []).filter((one) => isFinal(one))
      const ends = new Set(final.map((one) => `${one.outcome} ${one.orderId}`))
      expect(ends, what).toEqual(new Set([`${result.outcome} ${orderId}`]))
      expect(final.filter(({ replayed }) => replayed === false).length, what).toBeLessThanOrEqual(1)
    }
    // Also those of which the broker read no more than the head.
    expect(new Set(posts.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(posts.length)
    expect(book.length - bookedBefore).toBe(counts['PLACED'] ?? 0)
    expect(counts['PLACED']).toBeGreaterThan(0)
    const summary = { kills, seed, answers, cutOff, posts: posts.length, ...counts, auditRows: audit.rows }
    process.stdout.write(`G03 ${JSON.stringify(summary)}\n`)
  })

  async function readBook(): Promise<Record<string, unknown>[]> {
    return (await broker.control('GET', `/book?account=${broker.accountId}`)) as Record<string, unknown>[]
  }

  function isFinal({ outcome, retrySameKey }: Result): boolean {
    return outcome !== 'UNKNOWN' && retrySameKey !== true
  }

  /** What happens to the nth placement, and to the nth look, whoever makes them. */
  function drawRules(random: () => number): object[] {
    const html = '<html><body>Bad gateway</body></html>'
    const body = { code: 'BLUM-422-001', message: 'No.' }
    const ends: object[][] = [
      [{ kind: 'rstAfterCommit' }],
      [{ kind: 'rstAfterCommit' }],
      [{ kind: 'rstBeforeRead' }],
      [{ kind: 'rstAfterRead' }, { kind: 'commitDelay', ms: 400 }],
      [{ kind: 'finAfterCommit' }],
      [{ kind: 'status', status: 502, body: html }],
      [{ kind: 'status', status: 502, body: html, when: 'afterCommit' }],
      [{ kind: 'status', status: 422, body }],
      [{ kind: 'hang', when: 'afterCommit', ms: 900 }],
      [{ kind: 'hang', when: 'beforeCommit', ms: 900 }],
      [{ kind: 'latency', ms: 300 }],
      [{ kind: 'latency', ms: 30 }],
    ]
    const looks: object[] = [
      { kind: 'latency', ms: 200 },
      { kind: 'latency', ms: 30 },
      { kind: 'status', status: 502, body: html },
      { kind: 'rstAfterRead' },
      { kind: 'listLag', ms: 300 },
    ]
    const draw = <T>(from: readonly T[]): T | undefined => from[Math.floor(random() * from.length)]
    const rules: object[] = []
    for (let nth = 1; nth <= kills * keysPerLife; nth++) {
      if (random() < 0.35) continue
      for (const fault of draw(ends) ?? []) rules.push({ match: { ...onPlace, nth }, fault })
    }
    for (let nth = 1; nth <= 400; nth++) {
      if (random() < 0.3) rules.push({ match: { ...onList, nth }, fault: draw(looks) })
    }
    return rules
  }
})

/** Mulberry32: from 0 up to 1, the same for the same seed. */
function createRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

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
    expect(service.readyMs).toBeLessThan(3_000)
    const beganAt = performance.now()
    // It is not kept from its work meanwhile.
    expect(await place(service, restingBuy())).toMatchObject({ outcome: 'PLACED', replayed: false })
    const isFound = async (input: Input): Promise<boolean> => (await placementOf(service, input)).state === 'PLACED'
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
    const summary = { readyMs: Math.round(service.readyMs), seconds, lookups: lookups.length }
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
    const underWay: { input: Input; result: Result }[] = []
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
    expect(await sentKeys()).toEqual([])
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
    const input = () => limitBuy(harness, { quantity: '1' }) as Input
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
      offer: dialects.accounts.offer,
      orders: notAsked,
      pages: notAsked,
      accounts: notAsked,
      scan: () => Promise.resolve({ orders: [], isComplete: true }),
      unsupported: () => [],
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
      onTrouble: () => {},
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
  ])('G09 %s while the service is down: the search begins anew', async (_, jumpMs) => {
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

function toNewOrder(input: Input): NewOrder {
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
