// What survives when the service is killed or stopped: the real process on a real file, with its broker in another
// process, whose request log and book are the judges.
//
// `KILLS=20 npx vitest run test/process/process.test.ts` runs G03 in its long form; `SEED=…` repeats a run that failed.

import { randomInt } from 'node:crypto'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
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

/** Begins to place, resolves when the broker has the order, and lets its caller be cut off. */
async function placeUntilSent(service: ServiceProcess, input: Buy): Promise<void> {
  place(service, input).catch(() => {})
  await eventually(async () => expect(await broker.sentKeys()).toContain(input.clientOrderId))
}

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
    expect(await broker.sentKeys()).toEqual([])
    const placed = await place(second, input)
    expect(placed).toMatchObject({ outcome: 'PLACED', replayed: false })
    expect(await place(second, input)).toEqual({ ...placed, replayed: true })
    expect(await broker.sentKeys()).toEqual([input.clientOrderId])
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
    expect(await broker.sentKeys()).toEqual([input.clientOrderId])
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
    expect(await broker.sentKeys()).toEqual([input.clientOrderId])
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
    expect(first.output()).toMatch(/"level":"warn".*"reason":"SIGTERM","msg":"stopped at once by a second signal"/)
    // Of the 35 s that a stop may take.
    expect(performance.now() - askedAt).toBeLessThan(10_000)

    const second = await startService(env)
    await eventually(async () => expect(await placementOf(second, input)).toMatchObject({ state: 'PLACED' }))
    expect(await broker.sentKeys()).toEqual([input.clientOrderId])
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
    expect(await broker.sentKeys()).toEqual([input.clientOrderId])
    expect(await verifyAudit(env.DATA_DIR)).toMatchObject({ placements: 1, broken: null })
  })

  test('serves everything but /ready for DRAIN_MS, mutations over new connections too, and no longer than until a bug', async () => {
    const env = { ...broker.env, DATA_DIR: makeDataDir(), DRAIN_MS: '600000' }
    const bug = 'process.on("SIGUSR2", () => { throw new Error("injected here") })'
    const service = await startService(env, ['--import', `data:text/javascript,${encodeURIComponent(bug)}`])
    const readiness = async (): Promise<number> => (await fetch(`${service.origin}/ready`)).status
    expect(await readiness()).toBe(200)
    service.signal('SIGTERM')
    await eventually(async () => expect(await readiness()).toBe(503))
    expect((await fetch(`${service.origin}/health`)).status).toBe(200)
    const input = restingBuy()
    expect(await place(service, input)).toMatchObject({ outcome: 'PLACED', replayed: false })
    expect(await placementOf(service, input)).toMatchObject({ state: 'PLACED' })
    // Over connections of their own, which end with their answers: a pool of connections moves to another process.
    expect((await fetch(`${service.origin}/ready`)).headers.get('connection')).toBe('close')
    expect(service.output()).toMatch(/"level":"info".*"reason":"SIGTERM","drainMs":600000.*"msg":"stopping"/)
    expect(service.output()).not.toContain('"msg":"stopped"')
    service.signal('SIGUSR2')
    expect(await service.exited).toBe(1)
    expect(service.output()).toContain('"msg":"stopped"')
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

  test.each([
    ['a rejection that nobody handled', 'void Promise.reject(new Error("injected here"))'],
    ['an error that nobody caught', 'throw new Error("injected here")'],
  ])('G11 by %s: says so, finishes what is under way, ends with 1, and the records are sound', async (_, bug) => {
    const env = { ...broker.env, DATA_DIR: makeDataDir() }
    const injection = `process.on("SIGUSR2", () => { ${bug} })`
    const first = await startService(env, ['--import', `data:text/javascript,${encodeURIComponent(injection)}`])
    const input = restingBuy()
    await broker.setRules({ match: onPlace, fault: { kind: 'latency', ms: 1_500 } })
    const placing = place(first, input)
    await eventually(async () => expect(await broker.sentKeys()).toContain(input.clientOrderId))
    first.signal('SIGUSR2')
    const placed = await placing
    expect(placed.outcome).toBe('PLACED')
    expect(await first.exited).toBe(1)
    expect(first.output()).toMatch(/"level":"error".*injected here.*ALARM: a bug that nothing caught/)
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
    const told = new Map<string, PlaceResult[]>()
    let service = await startService(env)
    let lives = 1
    let answers = 0
    let cutOff = 0
    const over = new AbortController()

    async function ask(input: Buy): Promise<PlaceResult | null> {
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
    async function runClient(own: Buy[]): Promise<void> {
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

  function isFinal({ outcome, retrySameKey }: PlaceResult): boolean {
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
