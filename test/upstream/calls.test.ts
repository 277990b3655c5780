import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { UpstreamError } from '../../src/upstream/errors.ts'
import { createTally, type ReadScope } from '../../src/upstream/readScope.ts'
import { createBreaker } from '../../src/upstream/breaker.ts'
import { type Calls, type CallsOptions, createCalls } from '../../src/upstream/calls.ts'
import type { ReadCall } from '../../src/upstream/readCall.ts'
import { type Answer, type Call, createHttp, type Http } from '../../src/upstream/http.ts'

const one: ReadCall = {
  path: '/orders/ord_1',
  lane: 'read',
  times: { firstByteMs: 3_000, attemptMs: 4_000, callerMs: 8_000, backoffMs: { first: 100, longest: 1_000 } },
  tags: ['ord_1', 'acc_1'],
}
const list: ReadCall = {
  path: '/accounts/acc_1/orders',
  query: { limit: '50', offset: '0' },
  lane: 'list',
  times: { firstByteMs: 5_000, attemptMs: 8_000, callerMs: 12_000, backoffMs: { first: 200, longest: 2_000 } },
  tags: ['acc_1'],
}
const post: Call = { method: 'POST', path: '/orders', body: {}, firstByteMs: null, attemptMs: 30_000 }
const cancel: Call = { method: 'POST', path: '/orders/ord_1/cancel', firstByteMs: 5_000, attemptMs: 8_000 }

// ---- a broker by script -----------------------------------------------------------------------------------------

interface Sent {
  way: 'read' | 'write' | 'cancel'
  call: Call
  at: number
  isAborted: boolean
}
interface Reply {
  /** When the headers leave; at once unless told. They never leave for a call that ends as `not_sent`. */
  sentAfterMs?: number
  afterMs?: number
  /** How it ends; absent: never by itself, so the deadlines of the call do. */
  end?: { status?: number; retryAfterMs?: number } | UpstreamError
}
type Script = (sent: Sent, index: number) => Reply
const ok: Script = () => ({ afterMs: 50, end: {} })
const hang: Script = () => ({})
const fail: Script = () => ({ afterMs: 10, end: failed() })

function failed(more: { retryAfterMs?: number } = {}): UpstreamError {
  return new UpstreamError('failed', 'answered with status 502', { status: 502, ...more })
}

function refusedConnection(): UpstreamError {
  return new UpstreamError('not_sent', 'ECONNREFUSED', { cause: new Error('ECONNREFUSED') })
}

interface FakeHttp extends Http {
  sent: Sent[]
  script: Script
  closed: number
  /** When the headers of each call left that did. */
  leftAt: number[]
}

/** Keeps the promises of http.ts about deadlines and signals, and answers as the script says. */
function createFakeHttp(script: Script): FakeHttp {
  function send(way: Sent['way'], call: Call): Promise<Answer> {
    const sent: Sent = { way, call, at: performance.now(), isAborted: false }
    const reply = http.script(sent, http.sent.push(sent) - 1)
    return new Promise((resolve, reject) => {
      const signal = call.method === 'GET' ? call.signal : undefined
      const timers: NodeJS.Timeout[] = []
      const settle = (): void => {
        for (const timer of timers) clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        settle()
        sent.isAborted = true
        reject(signal?.reason as Error)
      }
      let hasLeft = false
      const expire = (): void => {
        settle()
        reject(new UpstreamError(hasLeft ? 'no_answer' : 'not_sent', 'DEADLINE', { timedOut: true }))
      }
      timers.push(setTimeout(expire, Math.min(call.firstByteMs ?? Infinity, call.attemptMs)))
      signal?.addEventListener('abort', onAbort)
      if (signal?.aborted === true) onAbort()
      const { end } = reply
      if (!(end instanceof UpstreamError && end.kind === 'not_sent') && call.signal?.aborted !== true) {
        const leave = (): void => {
          hasLeft = true
          http.leftAt.push(performance.now())
          call.onSent?.()
        }
        if (reply.sentAfterMs === undefined) leave()
        else timers.push(setTimeout(leave, reply.sentAfterMs))
      }
      if (end === undefined) return
      const finish = (): void => {
        settle()
        if (end instanceof UpstreamError) reject(end)
        else resolve({ status: end.status ?? 200, body: { at: sent.at }, retryAfterMs: end.retryAfterMs ?? null })
      }
      timers.push(setTimeout(finish, reply.afterMs ?? 0))
    })
  }
  const http: FakeHttp = {
    sent: [],
    script,
    closed: 0,
    leftAt: [],
    read: (call) => send('read', call),
    write: (call) => send('write', call),
    cancel: (call) => send('cancel', call),
    close: async () => {
      http.closed++
    },
  }
  return http
}

const opened: Calls[] = []
beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(async () => {
  for (const calls of opened.splice(0)) await calls.close()
  vi.useRealTimers()
})

function open(script: Script, options: Partial<CallsOptions> = {}): { http: FakeHttp; calls: Calls } {
  const http = createFakeHttp(script)
  // The longest jitter unless a test is about it.
  const calls = createCalls({ http, requestsPerSecond: 1_000, breaker: true, random: () => 0.5, ...options })
  opened.push(calls)
  return { http, calls }
}

interface Reader extends ReadScope {
  leave: (reason?: unknown) => void
}

function reader(withinMs = 60_000, isForCancel = false, caller: string | null = null): Reader {
  const controller = new AbortController()
  return {
    signal: controller.signal,
    deadline: Date.now() + withinMs,
    isForCancel,
    caller,
    tally: createTally(),
    leave: (reason = new Error('left')) => controller.abort(reason),
  }
}

interface Watched<T> {
  value: T | null
  error: unknown
  /** Milliseconds it took. */
  tookMs: number | null
}

function watch<T>(promise: Promise<T>): Watched<T> {
  const startedAt = performance.now()
  const watched: Watched<T> = { value: null, error: null, tookMs: null }
  const follow = async (): Promise<void> => {
    try {
      watched.value = await promise
    } catch (error) {
      watched.error = error
    }
    watched.tookMs = performance.now() - startedAt
  }
  void follow()
  return watched
}

/** When each call left, from the first one on. */
function sentAfter(http: FakeHttp): number[] {
  return http.sent.map(({ at }) => at - (http.sent[0]?.at ?? 0))
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms)
const inSeconds = (seconds: number): number => Date.now() + seconds * 1_000

const nothing = async (): Promise<void> => {}
const write = (calls: Calls, way: 'place' | 'cancel', tags: string[] = []): Promise<Answer> =>
  way === 'place' ? calls.place(post, inSeconds(10), tags, nothing) : calls.cancel(cancel, inSeconds(10), tags)

/** Fails reads until the breaker opens. */
async function trip(calls: Calls, http: FakeHttp): Promise<void> {
  const before = http.script
  http.script = () => ({ end: refusedConnection() })
  for (let i = 0; i < 5; i++) watch(calls.read({ ...one, path: `/trip/${i}` }, reader(50)))
  await pass(1)
  http.script = before
  http.sent.length = 0
}

async function tripWrites(calls: Calls, http: FakeHttp): Promise<void> {
  const before = http.script
  http.script = () => ({ end: failed() })
  for (let i = 0; i < 5; i++) watch(calls.place(post, inSeconds(10), [], nothing))
  await pass(1)
  http.script = before
  http.sent.length = 0
}

const breakerOpen = { name: 'UpstreamError', kind: 'not_sent', effect: 'none' }
const throttled = { name: 'UpstreamError', kind: 'throttled', effect: 'none' }

// ---- single flight ----------------------------------------------------------------------------------------------

describe('readers of the same thing', () => {
  test('share one call, one answer and one bill', async () => {
    const { http, calls } = open(ok)
    const scopes = Array.from({ length: 50 }, () => reader())
    const answers = scopes.map((scope, index) =>
      watch(calls.read(index % 2 === 0 ? list : { ...list, query: { offset: '0', limit: '50' } }, scope)),
    )
    await pass(50)
    expect(http.sent).toHaveLength(1)
    expect(new Set(answers.map((answer) => answer.value)).size).toBe(1)
    expect(scopes[0]?.tally).toEqual({ ...createTally(), calls: 1, ms: 50 })
    for (const scope of scopes.slice(1)) expect(scope.tally).toEqual({ ...createTally(), shared: 1 })
  })

  test('share nothing with who reads another path, query or credential', async () => {
    const { http, calls } = open(ok)
    const other = open(ok)
    watch(calls.read(list, reader()))
    watch(calls.read({ ...list, path: '/accounts/acc_2/orders' }, reader()))
    watch(calls.read({ ...list, query: { limit: '50', offset: '50' } }, reader()))
    watch(other.calls.read(list, reader()))
    await pass(50)
    expect(http.sent).toHaveLength(3)
    expect(other.http.sent).toHaveLength(1)
  })

  test('no answer is kept: a reader after the answer makes a new call', async () => {
    const { http, calls } = open(ok)
    watch(calls.read(one, reader()))
    await pass(50)
    watch(calls.read(one, reader()))
    await pass(50)
    expect(http.sent).toHaveLength(2)
  })

  test('no answer is kept at all: a reader that reads again on the answer makes a new call', async () => {
    const { http, calls } = open(ok)
    const again = watch(calls.read(one, reader()).then(() => calls.read(one, reader())))
    const others = [watch(calls.read(one, reader())), watch(calls.read(one, reader()))]
    await pass(50)
    expect(others.map(({ value }) => value !== null)).toEqual([true, true])
    expect(again.value).toBeNull()
    await pass(50)
    expect(again.value).not.toBeNull()
    expect(http.sent).toHaveLength(2)
  })

  test('nothing is kept of a failure either', async () => {
    const { http, calls } = open(() => ({ end: new UpstreamError('unreadable', 'garbage') }))
    const answers = [watch(calls.read(one, reader())), watch(calls.read(one, reader()))]
    await pass(0)
    for (const { error } of answers) expect(error).toMatchObject({ kind: 'unreadable' })
    watch(calls.read(one, reader()))
    await pass(0)
    expect(http.sent).toHaveLength(2)
  })

  test('the first one leaves: it hears its own reason, the others get the answer, the call goes on its bill', async () => {
    const { http, calls } = open(ok)
    const leader = reader()
    const follower = reader()
    const reason = new Error('closed tab')
    const led = watch(calls.read(one, leader))
    const followed = watch(calls.read(one, follower))
    await pass(10)
    leader.leave(reason)
    await pass(0)
    expect(led.error).toBe(reason)
    await pass(40)
    expect(followed.value).not.toBeNull()
    expect(http.sent).toHaveLength(1)
    expect(http.sent[0]?.isAborted).toBe(false)
    expect(leader.tally.calls).toBe(1)
    expect(follower.tally).toEqual({ ...createTally(), shared: 1 })
  })

  test('a later one leaves: only its own wait ends', async () => {
    const { http, calls } = open(ok)
    const follower = reader()
    const led = watch(calls.read(one, reader()))
    const followed = watch(calls.read(one, follower))
    await pass(10)
    follower.leave('gone')
    await pass(0)
    expect(followed.error).toBe('gone')
    await pass(40)
    expect(led.value).not.toBeNull()
    expect(http.sent[0]?.isAborted).toBe(false)
  })

  test('all leave: the call ends, and a later reader makes a new call', async () => {
    const { http, calls } = open(ok)
    const scopes = [reader(), reader(), reader()]
    for (const scope of scopes) watch(calls.read(one, scope))
    await pass(10)
    for (const scope of scopes) scope.leave()
    await pass(0)
    expect(http.sent[0]?.isAborted).toBe(true)
    const next = watch(calls.read(one, reader()))
    await pass(50)
    expect(next.value).not.toBeNull()
    expect(http.sent).toHaveLength(2)
  })

  test('all leave while it waits for a place: nothing is sent', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 6; i++) watch(calls.read({ ...one, path: `/orders/${i}` }, reader()))
    const scope = reader()
    watch(calls.read(one, scope))
    await pass(10)
    scope.leave()
    await pass(5_000)
    expect(http.sent).toHaveLength(6)
    expect(scope.tally.calls).toBe(0)
  })

  test('all leave between two attempts: there is no second', async () => {
    const { http, calls } = open(fail)
    const scope = reader()
    watch(calls.read(one, scope))
    await pass(20)
    scope.leave()
    await pass(5_000)
    expect(http.sent).toHaveLength(1)
  })

  test('a reader that left before the call began sends nothing', async () => {
    const { http, calls } = open(ok)
    const scope = reader()
    scope.leave('early')
    await expect(calls.read(one, scope)).rejects.toBe('early')
    expect(http.sent).toHaveLength(0)
  })

  test('the deadline of a later one ends its own wait only', async () => {
    const { http, calls } = open(() => ({ afterMs: 1_000, end: {} }))
    const led = watch(calls.read(one, reader()))
    const followed = watch(calls.read(one, reader(300)))
    await pass(300)
    expect(followed).toMatchObject({ tookMs: 300, error: { kind: 'no_answer', timedOut: true } })
    await pass(700)
    expect(led.value).not.toBeNull()
    expect(http.sent).toHaveLength(1)
  })

  test('the deadline of a later one passes while the call waits for its place: it was the rate', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 6; i++) watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    const led = watch(calls.read(one, reader(2_000)))
    const followed = watch(calls.read(one, reader(300)))
    await pass(300)
    expect(followed).toMatchObject({ tookMs: 300, error: { ...throttled, retryAfterMs: 1_700 } })
    await pass(900)
    expect(led.value).not.toBeNull()
    expect(http.sent).toHaveLength(7)
  })

  test('the deadline of the first one ends its call; those with more time share another', async () => {
    const { http, calls } = open((_sent, index) => (index === 0 ? {} : { afterMs: 50, end: {} }))
    const led = watch(calls.read(one, reader(500)))
    const scopes = [reader(), reader(), reader()]
    const followed = scopes.map((scope) => watch(calls.read(one, scope)))
    await pass(500)
    expect(led.error).toMatchObject({ kind: 'no_answer', timedOut: true })
    await pass(50)
    expect(followed.map(({ value }) => value !== null)).toEqual([true, true, true])
    expect(http.sent).toHaveLength(2)
    expect(scopes.map(({ tally }) => [tally.calls, tally.shared])).toEqual([
      [1, 0],
      [0, 1],
      [0, 1],
    ])
  })

  test('the first one cannot get a place in its time; one with more time can', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 6; i++) watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    const hurried = watch(calls.read(one, reader(500)))
    const patient = watch(calls.read(one, reader()))
    await pass(0)
    expect(hurried).toMatchObject({ tookMs: 0, error: throttled })
    await pass(1_150)
    expect(patient.value).not.toBeNull()
    expect(http.sent.filter(({ way }) => way === 'read')).toHaveLength(1)
  })

  test('the first one cannot wait out a 429; one with more time does', async () => {
    const { http, calls } = open((_sent, index) => ({
      afterMs: 10,
      end: index === 0 ? { status: 429, retryAfterMs: 2_000 } : {},
    }))
    const hurried = watch(calls.read(one, reader(1_000)))
    const patient = watch(calls.read(one, reader()))
    await pass(10)
    expect(hurried.value).toMatchObject({ status: 429, retryAfterMs: 2_000 })
    await pass(1_999)
    expect(http.sent).toHaveLength(1)
    await pass(11)
    expect(patient.value).toMatchObject({ status: 200 })
  })

  test('a failure that more time would not have helped is everyone’s', async () => {
    const { http, calls } = open(() => ({ end: new UpstreamError('unreadable', 'garbage') }))
    const answers = [watch(calls.read(one, reader(500))), watch(calls.read(one, reader()))]
    await pass(10)
    for (const { error } of answers) expect(error).toMatchObject({ kind: 'unreadable' })
    expect(http.sent).toHaveLength(1)
  })

  test.each(['lookup', 'snapshot'] as const)(
    'a lookup (%s) shares no call from before it, but one of its kind that has not left yet',
    async (lane) => {
      const { http, calls } = open(ok)
      const look: ReadCall = { ...list, lane }
      watch(calls.read(list, reader()))
      await pass(10)
      watch(calls.read(look, reader()))
      watch(calls.read(look, reader()))
      await pass(10)
      expect(http.sent).toHaveLength(2)
      watch(calls.read(look, reader()))
      // Who only reads may have what was asked just now.
      watch(calls.read(list, reader()))
      await pass(100)
      expect(http.sent).toHaveLength(3)
    },
  )

  test.each(['lookup', 'snapshot'] as const)(
    'a lookup of a cancel (%s) shares no call from before it either',
    async (lane) => {
      const { http, calls } = open(ok)
      const look: ReadCall = { ...list, lane }
      watch(calls.read(look, reader(Infinity, true)))
      await pass(10)
      watch(calls.read(look, reader(Infinity, true)))
      await pass(10)
      expect(http.sent.map(({ way }) => way)).toEqual(['cancel', 'cancel'])
      watch(calls.read(list, reader(Infinity, true)))
      await pass(10)
      expect(http.sent).toHaveLength(2)
    },
  )

  test('a snapshot waits no longer than allowed, for its permit as for its answer', async () => {
    const { http, calls } = open(hang, { requestsPerSecond: 10 })
    const look: ReadCall = { ...list, lane: 'snapshot' }
    const slow = watch(calls.read(look, reader(400)))
    await pass(400)
    expect(slow).toMatchObject({ tookMs: 400, error: { kind: 'no_answer', timedOut: true } })
    expect(http.sent.map(({ way }) => way)).toEqual(['read'])
    for (let i = 0; i < 6; i++) watch(write(calls, 'place'))
    await pass(0)
    const refused = watch(calls.read(look, reader(600)))
    await pass(0)
    expect(refused).toMatchObject({ tookMs: 0, error: throttled })
  })

  test('with any arrivals and departures each reader is answered once and in time, and no call is made without a reader', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            path: fc.constantFrom('/a', '/b', '/c'),
            atMs: fc.nat(3_000),
            withinMs: fc.integer({ min: 1, max: 4_000 }),
            leaveAfterMs: fc.option(fc.nat(1_000)),
          }),
          { minLength: 1, maxLength: 60, size: 'max' },
        ),
        fc.array(fc.constantFrom(20, 400, 1_500, null), { minLength: 1, maxLength: 20, size: 'max' }),
        async (arrivals, delays) => {
          const { http, calls } = open(
            (_sent, index) => {
              const afterMs = delays[index % delays.length] ?? null
              return afterMs === null ? {} : { afterMs, end: {} }
            },
            { breaker: false },
          )
          const scopes: { scope: Reader; read: Watched<Answer>; withinMs: number }[] = []
          for (const { path, atMs, withinMs, leaveAfterMs } of arrivals) {
            setTimeout(() => {
              const scope = reader(withinMs)
              scopes.push({ scope, read: watch(calls.read({ ...one, path }, scope)), withinMs })
              if (leaveAfterMs !== null) setTimeout(() => scope.leave('left'), leaveAfterMs)
            }, atMs)
          }
          await pass(10_000)
          expect(scopes).toHaveLength(arrivals.length)
          let calledFor = 0
          for (const { scope, read, withinMs } of scopes) {
            expect(read.tookMs).toBeLessThanOrEqual(withinMs)
            if (read.value === null && read.error !== 'left') expect(read.error).toBeInstanceOf(UpstreamError)
            calledFor += scope.tally.calls
          }
          expect(calledFor).toBe(http.sent.length)
          await calls.close()
          expect(vi.getTimerCount()).toBe(0)
        },
      ),
      { numRuns: 60, seed: 11 },
    )
  })
})

describe('a write', () => {
  test.each(['place', 'cancel'] as const)(
    'by %s detaches what reads its order or account when it ends',
    async (way) => {
      const { http, calls } = open((sent) => ({ afterMs: sent.way === 'read' ? 1_000 : 100, end: {} }))
      const unrelated: ReadCall = { ...one, path: '/orders/ord_2', tags: ['ord_2', 'acc_2'] }
      const old = [watch(calls.read(one, reader())), watch(calls.read(list, reader()))]
      watch(calls.read(unrelated, reader()))
      watch(write(calls, way, ['acc_1']))
      await pass(50)
      // Not before: what is asked while the write is under way may see either.
      watch(calls.read(one, reader()))
      expect(http.sent).toHaveLength(4)
      await pass(50)
      const fresh = watch(calls.read(one, reader()))
      watch(calls.read(one, reader()))
      watch(calls.read(unrelated, reader()))
      await pass(900)
      expect(http.sent).toHaveLength(5)
      for (const { value } of old) expect(value).not.toBeNull()
      expect(fresh.value).toBeNull()
      // The old flight has landed; the new one is still there to be joined.
      watch(calls.read(one, reader()))
      await pass(100)
      expect(fresh.value).not.toBeNull()
      expect(http.sent).toHaveLength(5)
    },
  )

  test('detaches also when it fails', async () => {
    const { http, calls } = open((sent) =>
      sent.way === 'read' ? { afterMs: 1_000, end: {} } : { afterMs: 10, end: failed() },
    )
    watch(calls.read(one, reader()))
    watch(calls.cancel(cancel, inSeconds(10), ['ord_1']))
    await pass(20)
    watch(calls.read(one, reader()))
    await pass(0)
    expect(http.sent.filter(({ way }) => way === 'read')).toHaveLength(2)
  })

  test('is sent once, however it fails; a cancel by its latest moment, a placement within 2 s', async () => {
    const { http, calls } = open(fail)
    const sendBy = inSeconds(10)
    const soon = inSeconds(2)
    await Promise.all([
      expect(calls.place(post, sendBy, [], nothing)).rejects.toMatchObject({ kind: 'failed', effect: 'unknown' }),
      expect(calls.cancel(cancel, sendBy, [])).rejects.toMatchObject({ kind: 'failed', effect: 'unknown' }),
      pass(20_000),
    ])
    expect(http.sent.map(({ way, call }) => [way, call])).toEqual([
      ['write', { ...post, sendBy: soon, onSent: expect.any(Function) as unknown }],
      ['cancel', { ...cancel, sendBy, onSent: expect.any(Function) as unknown }],
    ])
  })

  test('that finds no place within 1 s, or by its latest moment, has not left', async () => {
    const { http, calls } = open(() => ({ end: { status: 429, retryAfterMs: 5_000 } }), { requestsPerSecond: 10 })
    const first = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    // The answer is the adapter's to name.
    expect(first.value).toMatchObject({ status: 429, retryAfterMs: 5_000 })
    const blocked = [
      watch(calls.place(post, inSeconds(10), [], nothing)),
      watch(calls.cancel(cancel, inSeconds(10), [])),
      watch(calls.place(post, Date.now() + 100, [], nothing)),
    ]
    await pass(0)
    for (const { error } of blocked) expect(error).toMatchObject({ ...throttled, retryAfterMs: 5_000 })
    const late = watch(calls.place(post, Date.now(), [], nothing))
    await pass(0)
    expect(late.error).toMatchObject({ kind: 'not_sent', timedOut: true })
    expect(http.sent).toHaveLength(1)
  })

  test('leaves by `sendBy` if that is sooner than 2 s', async () => {
    const { http, calls } = open(ok)
    const sendBy = Date.now() + 1_999
    watch(calls.place(post, sendBy, [], nothing))
    await pass(0)
    expect(http.sent[0]?.call.sendBy).toBe(sendBy)
  })

  test('waits in its lane: cancels before placements before reads', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 30; i++) watch(calls.read({ ...list, path: `/lists/${i}` }, reader()))
    await pass(950)
    watch(calls.place(post, inSeconds(10), [], nothing))
    for (let i = 0; i < 3; i++) watch(calls.cancel(cancel, inSeconds(10), []))
    const before = http.sent.length
    await pass(1_000)
    expect(http.sent.slice(before, before + 4).map(({ way }) => way)).toEqual(['cancel', 'cancel', 'cancel', 'write'])
  })
})

describe('the callback before a placement', () => {
  /** Counts how often it is begun, and ends when it is told. */
  function hold() {
    const end = Promise.withResolvers<void>()
    const held = { begun: 0, end, beforeSend: () => (held.begun++, end.promise) }
    return held
  }

  test('begins once, when its turn in the rate has come, and the order leaves when it is over', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 6; i++) watch(write(calls, 'place'))
    await pass(200)
    const held = hold()
    const placed = watch(calls.place(post, inSeconds(30), [], held.beforeSend))
    await pass(899)
    expect(held.begun).toBe(0)
    await pass(1)
    expect(held.begun).toBe(1)
    await pass(5_000)
    expect(http.sent).toHaveLength(6)
    held.end.resolve()
    await pass(50)
    expect(held.begun).toBe(1)
    expect(placed.value).not.toBeNull()
    // The 2 s for a connection begin here, whatever came before.
    expect(http.sent[6]?.call.sendBy).toBe(Date.now() - 50 + 2_000)
  })

  test('holds the place of the order until it is over', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    const held = Array.from({ length: 6 }, hold)
    for (const { beforeSend } of held) watch(calls.place(post, inSeconds(30), [], beforeSend))
    await pass(5_000)
    const beside = watch(calls.place(post, inSeconds(30), [], nothing))
    await pass(1_200)
    expect(beside.error).toMatchObject(throttled)
    held[2]?.end.reject(new Error('no record'))
    await pass(0)
    const next = watch(calls.place(post, inSeconds(30), [], nothing))
    await pass(50)
    expect(next.value).not.toBeNull()
    expect(http.sent).toHaveLength(1)
  })

  test('fails: nothing leaves, and its own error is thrown', async () => {
    const { http, calls } = open(ok)
    const error = new Error('no record')
    const refused = watch(calls.place(post, inSeconds(10), [], () => Promise.reject(error)))
    await pass(0)
    expect(refused.error).toBe(error)
    expect(http.sent).toHaveLength(0)
  })

  test('says nothing of the broker when it fails', async () => {
    const { calls } = open(ok)
    const error = failed()
    for (let i = 0; i < 30; i++) watch(calls.place(post, inSeconds(10), [], () => Promise.reject(error)))
    await pass(0)
    const placed = watch(write(calls, 'place'))
    await pass(50)
    expect(placed.value).not.toBeNull()
  })

  test('outlasts the latest moment of the order: nothing leaves', async () => {
    const { http, calls } = open(ok)
    const held = hold()
    const late = watch(calls.place(post, Date.now() + 500, [], held.beforeSend))
    await pass(500)
    held.end.resolve()
    await pass(0)
    expect(late.error).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: true })
    expect(http.sent).toHaveLength(0)
  })

  test('is not begun for an order that is refused before', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    const held = hold()
    const late = watch(calls.place(post, Date.now(), [], held.beforeSend))
    await tripWrites(calls, http)
    const down = watch(calls.place(post, inSeconds(10), [], held.beforeSend))
    const busy = open(() => ({ end: { status: 429, retryAfterMs: 5_000 } }))
    watch(write(busy.calls, 'place'))
    await pass(0)
    const full = watch(busy.calls.place(post, inSeconds(10), [], held.beforeSend))
    await pass(0)
    expect([late, down, full].map(({ error }) => (error as UpstreamError).effect)).toEqual(['none', 'none', 'none'])
    expect(held.begun).toBe(0)
  })

  test('is under way when the calls are closed: nothing leaves', async () => {
    const { http, calls } = open(ok)
    const held = hold()
    const refused = watch(calls.place(post, inSeconds(10), [], held.beforeSend))
    await pass(0)
    await calls.close()
    held.end.resolve()
    await pass(0)
    expect(refused.error).toMatchObject({ kind: 'not_sent', effect: 'none' })
    expect(http.sent).toHaveLength(0)
  })
})

// ---- time, repeats and the rate ---------------------------------------------------------------------------------

describe('a read', () => {
  test('passes on how long it may take, cut to what is left', async () => {
    const { http, calls } = open(hang)
    const slow = watch(calls.read(one, reader()))
    watch(calls.read({ ...list }, reader(1_500)))
    await pass(20_000)
    expect(http.sent[0]?.call).toMatchObject({ method: 'GET', path: one.path, firstByteMs: 3_000, attemptMs: 4_000 })
    expect(http.sent[1]?.call).toMatchObject({ query: list.query, firstByteMs: 5_000, attemptMs: 1_500 })
    expect(slow.error).toMatchObject({ kind: 'no_answer', timedOut: true })
    expect(slow.tookMs).toBeLessThanOrEqual(8_000)
    const lefts = http.sent.filter(({ call }) => call.path === one.path).map(({ at, call }) => at + call.attemptMs)
    for (const end of lefts) expect(end - (http.sent[0]?.at ?? 0)).toBeLessThanOrEqual(8_000)
  })

  test('is not begun after its deadline', async () => {
    const { http, calls } = open(ok)
    await expect(calls.read(one, reader(0))).rejects.toMatchObject({ kind: 'no_answer', timedOut: true })
    expect(http.sent).toHaveLength(0)
  })

  test.each([
    ['a 5xx', failed()],
    ['no connection', refusedConnection()],
    ['no answer', new UpstreamError('no_answer', 'ECONNRESET')],
  ])('is tried 3 times after %s, with jitter between', async (_name, error) => {
    const { http, calls } = open(() => ({ afterMs: 10, end: error }))
    const scope = reader()
    const read = watch(calls.read(one, scope))
    await pass(10_000)
    expect(sentAfter(http)).toEqual([0, 10 + 50, 10 + 50 + 10 + 100])
    expect(read.error).toBe(error)
    expect(scope.tally).toEqual({ ...createTally(), calls: 3, ms: 30, retried: 2 })
  })

  test('jitter is full and never more than the longest', async () => {
    const shortest = open(fail, { random: () => 0 })
    watch(shortest.calls.read(one, reader()))
    const longest = open(fail, { random: () => 0.999 })
    const times = { ...one.times, backoffMs: { first: 600, longest: 1_000 } }
    watch(longest.calls.read({ ...one, times }, reader()))
    await pass(10_000)
    expect(shortest.http.sent).toHaveLength(3)
    expect(sentAfter(shortest.http).at(-1)).toBeLessThan(30)
    expect(sentAfter(longest.http)).toEqual([0, 10 + 599, 10 + 599 + 10 + 999])
  })

  test('is answered by the repeat (C02)', async () => {
    const { http, calls } = open((_sent, index) => ({ afterMs: 10, end: index === 0 ? failed() : {} }))
    const scope = reader()
    const read = watch(calls.read(one, scope))
    await pass(1_000)
    expect(read.value).toMatchObject({ status: 200 })
    expect(http.sent).toHaveLength(2)
    expect(scope.tally).toMatchObject({ calls: 2, retried: 1, ms: 20 })
  })

  test.each([
    ['refused', new UpstreamError('refused', 'no', { status: 403 })],
    ['unreadable', new UpstreamError('unreadable', 'garbage')],
    ['kept in our own queue', new UpstreamError('not_sent', 'ATTEMPT_DEADLINE', { timedOut: true })],
  ])('is not repeated when %s', async (_name, error) => {
    const { http, calls } = open(() => ({ end: error }))
    const read = watch(calls.read(one, reader()))
    await pass(5_000)
    expect(read.error).toBe(error)
    expect(http.sent).toHaveLength(1)
  })

  test.each([400, 401, 404, 422])('with an answer of %i is not repeated', async (status) => {
    const { http, calls } = open(() => ({ end: { status } }))
    const read = watch(calls.read(one, reader()))
    await pass(5_000)
    expect(read.value).toMatchObject({ status })
    expect(http.sent).toHaveLength(1)
  })

  test('is not repeated when the deadline has no room for it', async () => {
    const { http, calls } = open(fail)
    const read = watch(calls.read(one, reader(120)))
    await pass(1_000)
    expect(read).toMatchObject({ tookMs: 10, error: { kind: 'failed' } })
    expect(http.sent).toHaveLength(1)
  })

  test('waits out Retry-After of a 503 that fits, and fails at once where it does not', async () => {
    const { http, calls } = open((_sent, index) => ({
      afterMs: 10,
      end: index === 1 ? {} : failed({ retryAfterMs: 3_000 }),
    }))
    const patient = watch(calls.read(one, reader()))
    await pass(3_020)
    expect(sentAfter(http)).toEqual([0, 3_010])
    expect(patient.value).not.toBeNull()
    const hurried = watch(calls.read(one, reader(2_000)))
    await pass(10)
    expect(hurried.error).toMatchObject({ kind: 'failed', retryAfterMs: 3_000 })
  })

  test.each([
    ['in the broker’s envelope', { status: 429, retryAfterMs: 1_500 }],
    ['of a proxy', new UpstreamError('throttled', '429', { status: 429, retryAfterMs: 1_500, effect: 'unknown' })],
  ])('waits out a 429 %s, and all calls with it', async (_name, end) => {
    const { http, calls } = open((_sent, index) => ({ afterMs: 10, end: index === 0 ? end : {} }))
    const scope = reader()
    const read = watch(calls.read(one, scope))
    await pass(10)
    const other = watch(calls.read(list, reader()))
    const hurried = watch(calls.read({ ...one, path: '/orders/ord_2' }, reader(1_000)))
    await pass(0)
    expect(hurried.error).toMatchObject({ ...throttled, retryAfterMs: 1_500 })
    await pass(1_499)
    expect(http.sent).toHaveLength(1)
    await pass(11)
    expect(read.value).toMatchObject({ status: 200 })
    expect(other.value).toMatchObject({ status: 200 })
    expect(scope.tally).toMatchObject({ calls: 2, retried: 1 })
  })

  test('is given the 429 at once where it cannot be waited out', async () => {
    const { http, calls } = open(() => ({ end: { status: 429, retryAfterMs: 60_000 } }))
    const scope = reader()
    const reads = [watch(calls.read(one, scope)), watch(calls.read(one, scope))]
    await pass(0)
    for (const { value } of reads) expect(value).toMatchObject({ status: 429, retryAfterMs: 60_000 })
    expect(http.sent).toHaveLength(1)
  })

  test('is given the error of a 429 that no broker’s envelope came with', async () => {
    const error = new UpstreamError('throttled', '429', { status: 429, retryAfterMs: 9_000 })
    const { calls } = open(() => ({ end: error }))
    const read = watch(calls.read(one, reader()))
    await pass(0)
    expect(read.error).toBe(error)
  })

  test('after a 429 without Retry-After a second passes; after three it is given up', async () => {
    const { http, calls } = open(() => ({ afterMs: 10, end: { status: 429 } }))
    const read = watch(calls.read(one, reader()))
    await pass(10_000)
    expect(sentAfter(http)).toEqual([0, 1_010, 2_020])
    expect(read.value).toMatchObject({ status: 429, retryAfterMs: 1_000 })
  })

  test('never leaves above 80 % of the rate, and is refused at once when its place cannot come in time', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    const reads = Array.from({ length: 500 }, (_, i) => watch(calls.read({ ...list, path: `/lists/${i}` }, reader())))
    await pass(0)
    const refused = reads.filter(({ error }) => error !== null)
    expect(refused.length).toBeGreaterThan(400)
    for (const { error } of refused) expect(error).toMatchObject(throttled)
    await pass(12_000)
    expect(reads.every(({ tookMs }) => tookMs !== null)).toBe(true)
    expect(reads.filter(({ value }) => value !== null).length).toBeGreaterThan(60)
    for (const { at } of http.sent) {
      expect(http.sent.filter((other) => other.at >= at && other.at < at + 1_000).length).toBeLessThanOrEqual(8)
    }
  })

  /** A caller wants 30 lists where 8 a second may leave, and has had those of the first second. */
  async function openFlooded() {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    const readAs = (caller: string | null, path: string) =>
      watch(calls.read({ ...list, path }, reader(Infinity, false, caller)))
    for (let i = 0; i < 30; i++) readAs('much', `/much/${i}`)
    await pass(1_000)
    return { http, before: http.sent.length, readAs }
  }

  test('takes turns with those of other callers', async () => {
    const { http, before, readAs } = await openFlooded()
    readAs('little', '/little')
    readAs(null, '/nobody')
    await pass(1_000)
    const paths = http.sent.slice(before, before + 4).map(({ call }) => call.path)
    expect(paths).toEqual([`/much/${before}`, '/little', '/nobody', `/much/${before + 1}`])
  })

  test('leaves in the turn of any of its readers, and takes no second place for the others', async () => {
    const { http, before, readAs } = await openFlooded()
    const shared = [readAs('little', '/much/29'), readAs('little', '/much/29'), readAs(null, '/much/29')]
    await pass(1_000)
    expect(http.sent.slice(before, before + 2).map(({ call }) => call.path)).toContain('/much/29')
    for (const { value } of shared) expect(value).toMatchObject({ status: 200 })
    await pass(10_000)
    expect(http.sent).toHaveLength(30)
    for (const { at } of http.sent) {
      expect(http.sent.filter((other) => other.at >= at && other.at < at + 1_000).length).toBeLessThanOrEqual(8)
    }
  })

  test('counts from when its headers leave, however long a connection takes', async () => {
    let random = 1
    const { http, calls } = open(
      () => {
        random = (random * 16_807) % 2_147_483_647
        return { sentAfterMs: random % 1_500, afterMs: 1_600, end: {} }
      },
      { requestsPerSecond: 10 },
    )
    for (let ms = 0; ms < 20_000; ms += 50) {
      watch(calls.read({ ...one, path: `/orders/${ms}` }, reader()))
      if (ms % 400 === 0) watch(calls.place(post, inSeconds(10), [], nothing))
      if (ms % 700 === 0) watch(calls.cancel(cancel, inSeconds(10), []))
      await pass(50)
    }
    await pass(10_000)
    for (const at of http.leftAt) {
      expect(http.leftAt.filter((other) => other >= at && other < at + 1_000).length).toBeLessThanOrEqual(8)
    }
    expect(http.leftAt.length).toBeGreaterThan(60)
  })

  test('few are repeated when everything fails: at most 1.1 × the demand and 3 a second', async () => {
    const { http, calls } = open(fail, { breaker: false, requestsPerSecond: 1_000 })
    const demand: number[] = []
    for (let ms = 0; ms < 20_000; ms += 25) {
      watch(calls.read({ ...one, path: `/orders/${ms}` }, reader()))
      demand.push(performance.now())
      await pass(25)
    }
    await pass(10_000)
    expect(http.sent.length).toBeLessThanOrEqual(1.1 * demand.length + 3 * 3)
    const within = (times: readonly number[], from: number): number =>
      times.filter((time) => time >= from && time < from + 1_000).length
    const sentAt = http.sent.map(({ at }) => at)
    const start = demand[0] ?? 0
    for (let second = 0; second < 20; second++) {
      const from = start + second * 1_000
      expect(within(sentAt, from)).toBeLessThanOrEqual(1.1 * within(demand, from) + 3)
    }
  })
})

// ---- places -----------------------------------------------------------------------------------------------------

describe('the place of a call that never left', () => {
  // Twice as many as there are places, so that a lost one is missed.
  const times = 16

  /** All 8 places of 10 a second are there: as many cancels leave at once, and a ninth does not. */
  async function expectAllFree({ http, calls }: ReturnType<typeof open>): Promise<void> {
    http.script = ok
    const before = http.sent.length
    for (let i = 0; i < 9; i++) watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(0)
    expect(http.sent.length - before).toBe(8)
  }
  const unsent: [string, UpstreamError][] = [
    ['a connection that is refused', refusedConnection()],
    ['a connection that times out', new UpstreamError('not_sent', 'x', { timedOut: true, cause: new Error('x') })],
    ['our own queue', new UpstreamError('not_sent', 'ATTEMPT_DEADLINE', { timedOut: true })],
  ]

  test.each(unsent)('is free at once: reads, placements and cancels after %s', async (_name, end) => {
    for (const way of ['read', 'place', 'cancel'] as const) {
      const opened = open(() => ({ end }), { requestsPerSecond: 10, breaker: false })
      const { calls } = opened
      for (let i = 0; i < times; i++) {
        const call = way === 'read' ? calls.read({ ...one, path: `/orders/${i}` }, reader(90)) : write(calls, way)
        await Promise.all([expect(call).rejects.toBe(end), pass(0)])
      }
      expect(opened.http.sent).toHaveLength(times)
      await expectAllFree(opened)
    }
  })

  test('is free at once, and is held until then', async () => {
    const { http, calls } = open(() => ({ sentAfterMs: 60_000, end: {}, afterMs: 60_000 }), { requestsPerSecond: 10 })
    const scopes = Array.from({ length: 8 }, () => reader(Infinity, true))
    scopes.forEach((scope, i) => watch(calls.read({ ...one, path: `/orders/${i}` }, scope)))
    await pass(2_000)
    const waiting = watch(calls.read({ ...one, path: '/orders/9' }, reader(Infinity, true)))
    await pass(500)
    expect(http.sent).toHaveLength(8)
    scopes[5]?.leave()
    await pass(0)
    expect(http.sent).toHaveLength(9)
    expect(waiting.tookMs).toBeNull()
  })

  test('is free at once when the reader leaves, before or after it is given to the connections', async () => {
    const opened = open(() => ({ sentAfterMs: 1_000, afterMs: 2_000, end: {} }), { requestsPerSecond: 10 })
    for (let i = 0; i < times; i++) {
      const scope = reader()
      const read = watch(opened.calls.read(one, scope))
      // Some in the very tick in which the place is granted.
      if (i % 2 === 0) await pass(20)
      scope.leave('left')
      await pass(0)
      expect(read.error).toBe('left')
    }
    await expectAllFree(opened)
  })

  test('is free at once when the deadline has passed by the time it is granted', async () => {
    const opened = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < times; i++) {
      const read = watch(opened.calls.read(one, reader(50)))
      vi.setSystemTime(Date.now() + 1_000)
      await pass(0)
      expect(read.error).toMatchObject({ kind: 'throttled', effect: 'none' })
    }
    expect(opened.http.sent).toHaveLength(0)
    await expectAllFree(opened)
  })

  test('is free at once when what comes before the placement fails or lasts too long', async () => {
    const opened = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < times; i++) {
      const failing = watch(opened.calls.place(post, inSeconds(10), [], () => Promise.reject(new Error('no record'))))
      await pass(0)
      expect(failing.error).toEqual(new Error('no record'))
      const slow = new Promise<void>((resolve) => setTimeout(resolve, 100))
      const late = watch(opened.calls.place(post, Date.now() + 50, [], () => slow))
      await pass(100)
      expect(late.error).toMatchObject({ kind: 'not_sent', timedOut: true })
    }
    expect(opened.http.sent).toHaveLength(0)
    await expectAllFree(opened)
  })

  test('is free at once when the breaker refuses a placement that has got it', async () => {
    const opened = open(() => ({ afterMs: 150, end: failed() }), { requestsPerSecond: 10 })
    for (let i = 0; i < 6; i++) watch(opened.calls.place(post, inSeconds(10), [], nothing))
    await pass(120)
    const waiting = Array.from({ length: 4 }, () => watch(opened.calls.place(post, inSeconds(10), [], nothing)))
    await pass(980)
    for (const { tookMs, error } of waiting) {
      expect(tookMs).toBe(980)
      expect(error).toMatchObject(breakerOpen)
    }
    expect(opened.http.sent).toHaveLength(6)
    await expectAllFree(opened)
  })

  test('is never lost, with any outcome of the calls', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            way: fc.constantFrom('read', 'cancelRead', 'place', 'cancel'),
            atMs: fc.nat(8_000),
            withinMs: fc.integer({ min: 1, max: 4_000 }),
            leaveAfterMs: fc.option(fc.nat(2_000)),
            before: fc.record({ takesMs: fc.constantFrom(0, 0, 200, 3_000), fails: fc.boolean() }),
          }),
          { minLength: 1, maxLength: 60, size: 'max' },
        ),
        fc.array(
          fc.record({
            sentAfterMs: fc.option(fc.nat(1_500), { nil: undefined }),
            moreMs: fc.nat(1_000),
            end: fc.constantFrom<Reply['end']>(
              undefined,
              {},
              { status: 422 },
              { status: 429, retryAfterMs: 300 },
              failed(),
              new UpstreamError('no_answer', 'ECONNRESET'),
              ...unsent.map(([, error]) => error),
            ),
          }),
          { minLength: 1, maxLength: 20, size: 'max' },
        ),
        fc.boolean(),
        async (arrivals, replies, breaker) => {
          const opened = open(
            (_sent, index) => {
              const { sentAfterMs, moreMs, end } = replies[index % replies.length] ?? { moreMs: 0 }
              return {
                ...(sentAfterMs === undefined ? {} : { sentAfterMs }),
                ...(end === undefined ? {} : { end }),
                afterMs: (sentAfterMs ?? 0) + moreMs,
              }
            },
            { requestsPerSecond: 10, breaker },
          )
          const { http, calls } = opened
          arrivals.forEach(({ way, atMs, withinMs, leaveAfterMs, before }, index) => {
            const beforeSend = async (): Promise<void> => {
              if (before.takesMs > 0) await new Promise((resolve) => setTimeout(resolve, before.takesMs))
              if (before.fails) throw new Error('no record')
            }
            setTimeout(() => {
              if (way === 'place') watch(calls.place(post, Date.now() + withinMs, [], beforeSend))
              else if (way === 'cancel') watch(calls.cancel(cancel, Date.now() + withinMs, []))
              else {
                const scope = reader(withinMs, way === 'cancelRead')
                watch(calls.read({ ...one, path: `/orders/${index % 30}` }, scope))
                if (leaveAfterMs !== null) setTimeout(() => scope.leave('left'), leaveAfterMs)
              }
            }, atMs)
          })
          // The longest attempt is over, and a budget that was halved is whole again.
          await pass(8_000 + 30_000 + 25_000)
          for (const at of http.leftAt) {
            expect(http.leftAt.filter((other) => other >= at && other < at + 1_000).length).toBeLessThanOrEqual(8)
          }
          await expectAllFree(opened)
          await pass(10_000)
          await calls.close()
          expect(vi.getTimerCount()).toBe(0)
        },
      ),
      { numRuns: 100, seed: 5 },
    )
  })
})

// ---- breaker ----------------------------------------------------------------------------------------------------

describe('the breaker', () => {
  function make(random = 0.5) {
    let at = 0
    const breaker = createBreaker({ now: () => at, random: () => random })
    const wait = (ms: number): void => {
      at += ms
    }
    const failTimes = (times: number): void => {
      for (let i = 0; i < times; i++) breaker.failed()
    }
    return { breaker, wait, failTimes }
  }

  test('opens after 5 failures in a row', () => {
    const { breaker, failTimes } = make()
    failTimes(4)
    breaker.succeeded()
    failTimes(4)
    expect(breaker.state()).toBe('closed')
    expect(breaker.retryAfterMs()).toBe(0)
    breaker.failed()
    expect(breaker.state()).toBe('open')
    expect(breaker.retryAfterMs()).toBe(5_000)
    expect(breaker.openings()).toBe(1)
  })

  test('opens when half of 20 calls failed within 10 s, not when they are older', () => {
    const { breaker, wait } = make()
    for (let i = 0; i < 9; i++) {
      breaker.succeeded()
      breaker.failed()
    }
    breaker.succeeded()
    expect(breaker.state()).toBe('closed')
    const later = make()
    for (let i = 0; i < 9; i++) {
      later.breaker.succeeded()
      later.breaker.failed()
    }
    later.wait(11_000)
    later.breaker.succeeded()
    later.breaker.failed()
    expect(later.breaker.state()).toBe('closed')
    wait(5_000)
    breaker.failed()
    expect(breaker.state()).toBe('open')
  })

  test('stays closed while more than half succeed', () => {
    const { breaker, wait } = make()
    for (let i = 0; i < 200; i++) {
      if (i % 5 < 3) breaker.succeeded()
      else breaker.failed()
      wait(20)
    }
    expect(breaker.state()).toBe('closed')
  })

  test('is open for 5 s, then twice as long after each failed probe, up to 60 s, spread by 20 %', () => {
    for (const [random, factor] of [
      [0, 0.8],
      [0.5, 1],
      [0.999_999_999, 1.2],
    ] as const) {
      const { breaker, wait, failTimes } = make(random)
      failTimes(5)
      for (const ms of [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]) {
        expect(breaker.retryAfterMs()).toBe(Math.ceil(Math.round(ms * factor)))
        wait(ms * factor - 1)
        expect(breaker.state()).toBe('open')
        expect(breaker.tryProbe()).toBe(false)
        wait(2)
        expect(breaker.state()).toBe('halfOpen')
        expect(breaker.tryProbe()).toBe(true)
        breaker.failed()
      }
    }
  })

  test('failures from before it closed do not count after', () => {
    const { breaker, wait, failTimes } = make()
    for (let i = 0; i < 30; i++) breaker.succeeded()
    failTimes(5)
    wait(5_000)
    breaker.succeeded()
    for (let i = 0; i < 10; i++) {
      breaker.succeeded()
      breaker.failed()
    }
    expect(breaker.state()).toBe('open')
  })

  test('half open it lets one probe out, whose success closes it and resets all', () => {
    const { breaker, wait, failTimes } = make()
    failTimes(5)
    // Stragglers change nothing while it is open.
    wait(1_000)
    failTimes(5)
    breaker.succeeded()
    wait(4_000)
    expect([breaker.tryProbe(), breaker.tryProbe()]).toEqual([true, false])
    expect(breaker.retryAfterMs()).toBeGreaterThan(0)
    breaker.leaveProbe()
    expect([breaker.tryProbe(), breaker.tryProbe()]).toEqual([true, false])
    breaker.succeeded()
    expect(breaker.state()).toBe('closed')
    expect(breaker.tryProbe()).toBe(false)
    failTimes(4)
    expect(breaker.state()).toBe('closed')
    breaker.failed()
    expect(breaker.retryAfterMs()).toBe(5_000)
  })
})

describe('the notices of a breaker', () => {
  test('name the reason of each opening, and how long it was down when it closes', () => {
    let at = 0
    const changes: object[] = []
    const breaker = createBreaker({ now: () => at, random: () => 0.5, onChange: (change) => changes.push(change) })
    for (let i = 0; i < 9; i++) breaker.failed('no_answer')
    at += 5_000
    breaker.tryProbe()
    breaker.failed('failed')
    at += 10_000
    breaker.tryProbe()
    breaker.succeeded()
    breaker.succeeded()
    for (let i = 0; i < 5; i++) breaker.failed()
    expect(changes).toEqual([
      { state: 'open', reason: 'no_answer', openMs: 5_000, openings: 1 },
      { state: 'open', reason: 'failed', openMs: 10_000, openings: 2 },
      { state: 'closed', downMs: 15_000 },
      { state: 'open', reason: null, openMs: 5_000, openings: 1 },
    ])
  })

  test('are few in a long outage, for reads and for writes, and one when the broker is back', async () => {
    const notices: string[] = []
    const onNotice: CallsOptions['onNotice'] = (message, { fields } = {}) =>
      notices.push(`${message} ${fields?.['calls']} ${fields?.['reason'] ?? ''}`.trim())
    const { http, calls } = open(ok, { onNotice })
    await tripWrites(calls, http)
    await trip(calls, http)
    http.script = () => ({ end: refusedConnection() })
    for (let minutes = 0; minutes < 30; minutes++) {
      watch(calls.read(one, reader(50)))
      await pass(60_000)
    }
    http.script = ok
    await pass(60_000)
    watch(calls.read(one, reader()))
    await pass(60_000)
    watch(calls.read(one, reader()))
    await pass(100)
    expect(notices).toEqual([
      'the breaker for writes opened: calls stop for a while writes failed',
      'the breaker for reads opened: calls stop for a while reads not_sent',
      ...Array.from(
        { length: 4 },
        () => 'the breaker for reads opened again because the trial call failed reads not_sent',
      ),
      'the breaker for reads closed because the broker answers again reads',
      'the breaker for writes closed because the broker answers again writes',
    ])
  })
})

describe('reads of a broker that is down', () => {
  test('fail at once without a call once the breaker is open; one probe brings them back (D05)', async () => {
    const { http, calls } = open(hang)
    const reads: Watched<Answer>[] = []
    for (let ms = 0; ms < 20_000; ms += 50) {
      reads.push(watch(calls.read({ ...one, path: `/orders/${ms}` }, reader())))
      await pass(50)
    }
    await pass(0)
    const firstRefused = reads.findIndex(({ tookMs }) => tookMs === 0)
    expect(firstRefused * 50).toBeGreaterThan(0)
    expect(firstRefused * 50).toBeLessThanOrEqual(10_000)
    const probes = reads.slice(firstRefused).filter(({ tookMs }) => tookMs !== 0)
    expect(probes.length).toBeGreaterThan(0)
    expect(probes.length).toBeLessThanOrEqual(3)
    expect(sentAfter(http).filter((ms) => ms >= firstRefused * 50)).toHaveLength(probes.length)

    http.script = ok
    await pass(10_000)
    const probe = watch(calls.read(one, reader()))
    const beside = watch(calls.read(one, reader()))
    await pass(0)
    expect(beside).toMatchObject({ tookMs: 0, error: breakerOpen })
    await pass(50)
    expect(probe.value).not.toBeNull()
    const healed = watch(calls.read(one, reader()))
    await pass(50)
    expect(healed.value).not.toBeNull()
  })

  test('get the time to come back', async () => {
    const { http, calls } = open(ok)
    await trip(calls, http)
    const read = watch(calls.read(one, reader()))
    await pass(0)
    expect(read.error).toMatchObject({ ...breakerOpen, retryAfterMs: expect.any(Number) as number })
    expect((read.error as UpstreamError).retryAfterMs).toBeGreaterThan(4_900)
    expect(http.sent).toHaveLength(0)
  })

  test('do not join a call that hangs on from before', async () => {
    const { http, calls } = open(hang)
    watch(calls.read(one, reader()))
    await trip(calls, http)
    const read = watch(calls.read(one, reader()))
    await pass(0)
    expect(read).toMatchObject({ tookMs: 0, error: breakerOpen })
  })

  test('that wait for their place when it opens fail then', async () => {
    const { http, calls } = open(() => ({ afterMs: 100, end: refusedConnection() }), { requestsPerSecond: 10 })
    const reads = Array.from({ length: 20 }, (_, i) => watch(calls.read({ ...list, path: `/${i}` }, reader(11_000))))
    await pass(2_500)
    expect(reads.every(({ tookMs }) => tookMs !== null)).toBe(true)
    const before = http.sent.length
    await pass(2_000)
    expect(http.sent).toHaveLength(before)
  })

  test('a probe that leaves, or gets no place, lets the next one be it', async () => {
    const { http, calls } = open(hang)
    await trip(calls, http)
    await pass(5_000)
    const probe = reader()
    watch(calls.read(one, probe))
    await pass(10)
    probe.leave()
    await pass(0)
    http.script = () => ({ end: { status: 429, retryAfterMs: 4_000 } })
    const write = watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(0)
    expect(write.value).toMatchObject({ status: 429 })
    const noPlace = watch(calls.read(one, reader(1_000)))
    await pass(0)
    expect(noPlace.error).toMatchObject(throttled)
    http.script = ok
    const next = watch(calls.read(one, reader()))
    await pass(4_050)
    expect(next.value).not.toBeNull()
  })

  test('a probe is not repeated, and its failure keeps the rest away twice as long', async () => {
    const { http, calls } = open(fail)
    await trip(calls, http)
    await pass(5_000)
    const probe = watch(calls.read(one, reader()))
    await pass(1_000)
    expect(probe.error).toMatchObject({ kind: 'failed' })
    expect(http.sent).toHaveLength(1)
    await pass(8_900)
    const early = watch(calls.read(one, reader()))
    await pass(0)
    expect(early.error).toMatchObject(breakerOpen)
    await pass(200)
    watch(calls.read(one, reader()))
    await pass(0)
    expect(http.sent).toHaveLength(2)
  })

  test.each([
    ['half open', 4_950],
    ['closed again', 4_200],
  ])('a call that began before it opened says nothing about the broker now, %s', async (_name, probedAt) => {
    const { http, calls } = open(hang, { random: () => 0 })
    for (let i = 0; i < 8; i++) watch(calls.read({ ...list, path: `/${i}` }, reader()))
    await pass(100)
    await trip(calls, http)
    http.script = ok
    // Open until 4,101 ms; what hangs is given up at 5,000.
    await pass(probedAt - 101)
    const probe = probedAt < 4_500 ? watch(calls.read(one, reader())) : null
    await pass(5_010 - probedAt)
    const after = watch(calls.read(one, reader()))
    await pass(50)
    if (probe !== null) expect(probe.value).not.toBeNull()
    expect(after.value).not.toBeNull()
  })

  test.each([
    ['refusals', new UpstreamError('refused', 'no', { status: 401 })],
    ['garbage', new UpstreamError('unreadable', 'garbage')],
    ['our own queue', new UpstreamError('not_sent', 'ATTEMPT_DEADLINE', { timedOut: true })],
  ])('%s do not open it (E10)', async (_name, error) => {
    const { http, calls } = open(() => ({ end: error }))
    for (let i = 0; i < 30; i++) {
      watch(calls.read(one, reader()))
      await pass(10)
    }
    expect(http.sent).toHaveLength(30)
  })

  test('nor do 429s', async () => {
    const { http, calls } = open(() => ({ end: { status: 429, retryAfterMs: 0 } }))
    for (let i = 0; i < 10; i++) {
      watch(calls.read(one, reader()))
      await pass(1_000)
    }
    expect(http.sent.length).toBeGreaterThanOrEqual(10)
  })

  test('nor do callers who give a broker no time to answer', async () => {
    const { http, calls } = open(() => ({ afterMs: 200, end: {} }))
    for (let i = 0; i < 30; i++) watch(calls.read({ ...one, path: `/orders/${i}` }, reader(50)))
    await pass(100)
    const read = watch(calls.read(one, reader()))
    await pass(200)
    expect(read.value).not.toBeNull()
    expect(http.sent).toHaveLength(31)
  })

  test('connections that time out do', async () => {
    const error = new UpstreamError('not_sent', 'connect', { timedOut: true, cause: new Error('connect timeout') })
    const { http, calls } = open(() => ({ end: error }))
    for (let i = 0; i < 30; i++) {
      watch(calls.read({ ...one, path: `/orders/${i}` }, reader()))
      await pass(10)
    }
    expect(http.sent).toHaveLength(5)
  })

  test('with the breaker off, every read is tried', async () => {
    const { http, calls } = open(fail, { breaker: false })
    for (let i = 0; i < 100; i++) {
      watch(calls.read({ ...one, path: `/orders/${i}` }, reader()))
      watch(calls.place(post, inSeconds(10), [], nothing))
      await pass(20)
    }
    expect(http.sent.length).toBeGreaterThanOrEqual(200)
  })

  test('the breaker of one credential is not another’s', async () => {
    const { http, calls } = open(ok)
    const other = open(ok)
    await trip(calls, http)
    const read = watch(other.calls.read(one, reader()))
    await pass(50)
    expect(read.value).not.toBeNull()
  })
})

describe('writes to a broker that is down', () => {
  test('cancels are tried with open breakers (D14)', async () => {
    const { http, calls } = open(ok)
    await trip(calls, http)
    await tripWrites(calls, http)
    const tried = watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(50)
    expect(tried.value).not.toBeNull()
    await pass(5_000)
    const again = watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(50)
    expect(again.value).not.toBeNull()
  })

  test('the reads of a cancel pass the breaker too, and go first', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 30; i++) watch(calls.read({ ...list, path: `/lists/${i}` }, reader()))
    // Waits behind them: no cancel joins it there.
    const ordinary = watch(calls.read(one, reader()))
    await pass(100)
    const first = [watch(calls.read(one, reader(Infinity, true))), watch(calls.read(one, reader(Infinity, true)))]
    await pass(50)
    expect(first.map(({ value }) => value !== null)).toEqual([true, true])
    expect(ordinary.tookMs).toBeNull()
    expect(http.sent.filter(({ call }) => call.path === one.path)).toHaveLength(1)

    const down = open(ok)
    await trip(down.calls, down.http)
    const past = watch(down.calls.read(one, reader(Infinity, true)))
    const refused = watch(down.calls.read(one, reader()))
    await pass(50)
    expect(past.value).not.toBeNull()
    expect(refused.error).toMatchObject(breakerOpen)
    down.http.script = (_sent, index) => ({ afterMs: 10, end: index === 1 ? failed() : {} })
    const repeated = watch(down.calls.read(one, reader(Infinity, true)))
    await pass(100)
    expect(repeated.value).not.toBeNull()
  })

  test('the breaker does not end a waiting read of a cancel', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    for (let i = 0; i < 8; i++) watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(0)
    http.script = () => ({ afterMs: 10, end: refusedConnection() })
    const reads = Array.from({ length: 6 }, (_, i) =>
      watch(calls.read({ ...one, path: `/orders/${i}` }, reader(Infinity, true))),
    )
    await pass(1_120)
    http.script = ok
    await pass(3_000)
    expect(reads.map(({ tookMs }) => tookMs !== null)).toEqual(reads.map(() => true))
    expect(http.sent.length).toBeGreaterThanOrEqual(8 + 6 + 1)
    expect(reads.filter(({ value }) => value !== null).length).toBeGreaterThan(0)
    for (const { error } of reads) if (error !== null) expect((error as Error).message).not.toMatch(/breaker/)
  })

  test('placements look only at the breaker for writes', async () => {
    const { http, calls } = open(ok)
    await trip(calls, http)
    const placed = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(50)
    expect(placed.value).not.toBeNull()
    await tripWrites(calls, http)
    const refused = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    expect(refused.error).toMatchObject(breakerOpen)
    expect((refused.error as UpstreamError).retryAfterMs).toBeGreaterThan(4_900)
    expect(http.sent).toHaveLength(0)
  })

  test('placements are refused at once while it is open, and take no place from others', async () => {
    const { http, calls } = open(ok, { requestsPerSecond: 10 })
    await tripWrites(calls, http)
    const refused = Array.from({ length: 20 }, () => watch(calls.place(post, inSeconds(10), [], nothing)))
    await pass(0)
    for (const { error } of refused) expect(error).toMatchObject(breakerOpen)
    await pass(1_100)
    const reads = Array.from({ length: 4 }, (_, i) => watch(calls.read({ ...one, path: `/orders/${i}` }, reader())))
    await pass(50)
    expect(reads.every(({ value }) => value !== null)).toBe(true)
  })

  test('a placement that waited for its place while it opened does not leave', async () => {
    const { http, calls } = open(() => ({ afterMs: 150, end: failed() }), { requestsPerSecond: 10 })
    for (let i = 0; i < 6; i++) watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(120)
    const waiting = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(500)
    expect(waiting.tookMs).toBeNull()
    await pass(500)
    expect(waiting.error).toMatchObject(breakerOpen)
    expect(http.sent).toHaveLength(6)
  })

  test('no placement is a probe: they come back when a read has been answered (D15)', async () => {
    const { http, calls } = open(ok)
    await tripWrites(calls, http)
    // A read while it is open closes nothing: it says little about writes, and the time has not passed.
    watch(calls.read(one, reader()))
    await pass(60)
    await pass(5_000)
    http.sent.length = 0
    for (let i = 0; i < 100; i++) {
      const refused = watch(calls.place(post, inSeconds(10), [], nothing))
      await pass(100)
      expect(refused.error).toMatchObject(breakerOpen)
    }
    // Nor is it a cancel that closes it.
    watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(60)
    const still = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    expect(still.error).toMatchObject(breakerOpen)
    expect(http.sent.map(({ way }) => way)).toEqual(['cancel'])
    watch(calls.read(one, reader()))
    await pass(50)
    const placed = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(50)
    expect(placed.value).not.toBeNull()
  })

  test('cancels that fail count as writes; refusals of orders do not', async () => {
    const { http, calls } = open((sent) => ({ end: sent.way === 'cancel' ? failed() : { status: 422 } }))
    for (let i = 0; i < 30; i++) watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    const refused = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    expect(refused.value).toMatchObject({ status: 422 })
    for (let i = 0; i < 5; i++) watch(calls.cancel(cancel, inSeconds(10), []))
    await pass(0)
    const next = watch(calls.place(post, inSeconds(10), [], nothing))
    await pass(0)
    expect(next.error).toMatchObject(breakerOpen)
    // And reads know nothing of it.
    http.script = ok
    const read = watch(calls.read(one, reader()))
    await pass(50)
    expect(read.value).not.toBeNull()
  })

  test('a latest moment that passed in the queue of connections does not count', async () => {
    const error = new UpstreamError('not_sent', 'SEND_BY_DEADLINE', { timedOut: true })
    const { http, calls } = open(() => ({ end: error }))
    for (let i = 0; i < 10; i++) {
      watch(calls.place(post, inSeconds(10), [], nothing))
      await pass(10)
    }
    expect(http.sent).toHaveLength(10)
  })
})

test('closed, it refuses what waits and what comes, repeats nothing, and closes the connections', async () => {
  const { http, calls } = open(
    (_sent, index) => (index === 0 ? { end: failed() } : { afterMs: 100, end: index === 1 ? failed() : {} }),
    { requestsPerSecond: 10, random: () => 0.999 },
  )
  const inBackoff = watch(calls.read(one, reader()))
  await pass(1)
  const reads = Array.from({ length: 10 }, (_, i) => watch(calls.read({ ...list, path: `/lists/${i}` }, reader())))
  await pass(1)
  await calls.close()
  const refused = [watch(calls.read(one, reader())), watch(calls.cancel(cancel, inSeconds(10), []))]
  await pass(0)
  expect(http.closed).toBe(1)
  for (const { error } of refused) expect(error).toMatchObject({ kind: 'not_sent', effect: 'none' })
  expect(inBackoff.error).toMatchObject({ kind: 'failed' })
  const inFlight = reads.slice(0, http.sent.length - 1)
  for (const { error } of reads.slice(inFlight.length)) expect(error).toMatchObject({ kind: 'not_sent' })
  await pass(100)
  // The calls in flight were not cut.
  expect(inFlight[0]?.error).toMatchObject({ kind: 'failed' })
  expect(inFlight.slice(1).every(({ value }) => value !== null)).toBe(true)
  expect(vi.getTimerCount()).toBe(0)
})

// ---- over real sockets ------------------------------------------------------------------------------------------

test('over HTTP: one request for all readers, which the last to leave cuts off', async () => {
  vi.useRealTimers()
  const hits: string[] = []
  const arrivals = Promise.withResolvers<void>()
  const cut = Promise.withResolvers<void>()
  const server = createServer((request, response) => {
    hits.push(`${request.method} ${request.url}`)
    if (request.url?.startsWith('/v1/slow') === true) {
      response.on('close', cut.resolve)
      arrivals.resolve()
      return
    }
    response.setHeader('content-type', 'application/json').end('{"price": 1.10}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const http = createHttp({ baseUrl: `http://127.0.0.1:${address.port}/v1`, headers: {} })
  const calls = createCalls({ http, requestsPerSecond: 1_000, breaker: true })
  try {
    const answers = await Promise.all(Array.from({ length: 50 }, () => calls.read(list, reader())))
    expect(hits).toEqual(['GET /v1/accounts/acc_1/orders?limit=50&offset=0'])
    expect(answers[49]).toEqual({ status: 200, body: { price: '1.10' }, retryAfterMs: null })

    const scopes = [reader(), reader()]
    const reads = scopes.map((scope) => watch(calls.read({ ...one, path: '/slow' }, scope)))
    await arrivals.promise
    scopes[0]?.leave('first')
    await delay(20)
    expect(reads.map(({ error }) => error)).toEqual(['first', null])
    scopes[1]?.leave('second')
    await cut.promise
    expect(reads.map(({ error }) => error)).toEqual(['first', 'second'])
    expect(hits).toHaveLength(2)
  } finally {
    await calls.close()
    server.closeAllConnections()
    server.close()
  }
})
