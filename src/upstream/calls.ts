// The calls of one credential, and whether each is worth making: readers of the same thing share one call, no call
// leaves above the broker's rate, none goes to a broker that is down, and what failed is repeated only where a repeat
// is safe, likely to help and still in time. http.ts says what a call proved; here it is decided what to do about it.

import { UpstreamError } from './errors.ts'
import { type ReadScope, type Tally } from './readScope.ts'
import { createBreaker, createClosedBreaker, createRecentCount, type Breaker, type BreakerChange } from './breaker.ts'
import { createBudget, type Lane, type Place } from './budget.ts'
import type { Answer, Call, Http } from './http.ts'
import type { OnNotice } from './notices.ts'

/** What the calls of a credential are made of. */
export interface CallsOptions {
  /** Connections that carry this credential alone. `close` of the calls closes them. */
  http: Http
  /** The rate that the broker grants the credential; see BudgetOptions. */
  requestsPerSecond: number
  /** False never stops calling, however much fails. */
  breaker: boolean
  /** Called when a breaker opens or closes. */
  onNotice?: OnNotice
  /** From 0 up to 1; Math.random unless told. */
  random?: () => number
}

/** A GET, and how long it is worth. */
export interface ReadCall {
  /** As a Call's. */
  path: string
  query?: Readonly<Record<string, string>>
  /** As a Call's. */
  headers?: Readonly<Record<string, string>>
  /** That of cancels for what a cancel has to know first, which a scope that `isForCancel` sets by itself. */
  lane: Exclude<Lane, 'place'>
  times: ReadTimes
  /** Ids of the orders and accounts that the answer tells of: after a write to one of them the answer is old. */
  tags: readonly string[]
}

/** Milliseconds, the same for every broker. */
export const readTimes = {
  one: { firstByteMs: 3_000, attemptMs: 4_000, callerMs: 8_000, backoffMs: { first: 100, longest: 1_000 } },
  page: { firstByteMs: 5_000, attemptMs: 8_000, callerMs: 12_000, backoffMs: { first: 200, longest: 2_000 } },
} as const satisfies Record<string, ReadTimes>

/** A placement is given up late: ending the wait for an order that left makes an outcome unknown that was not. */
export const writeTimes = {
  place: { firstByteMs: null, attemptMs: 30_000 },
  cancel: { firstByteMs: 5_000, attemptMs: 8_000 },
} as const

/** Milliseconds. */
interface ReadTimes {
  firstByteMs: number
  attemptMs: number
  /** All attempts and the waits between them. */
  callerMs: number
  /** The wait before a repeat is drawn from 0 up to this, which doubles from `first` to `longest`. */
  backoffMs: { first: number; longest: number }
}

/** The calls of one credential. All errors are UpstreamErrors or the reason of a scope's signal. */
export interface Calls {
  /**
   * The answer to a GET. Readers of the same path, query and headers at the same time get the same answer object, which none of
   * them may change. It leaves in the first turn at the rate that the caller of one of them has; the reader that began pays
   * for all on its tally, and the others count `shared`. Nothing is kept once it has come, and a reader who comes after a
   * write has ended never gets what was asked before it; one who looks for a placement, before or after, never gets what was
   * asked before its own call.
   *
   * At most 3 attempts until the deadline of the scope or `callerMs`. A 429 that was not worth waiting for is returned
   * or thrown, as http.ts does; a place in the rate budget that cannot come in time is `throttled`, with the effect
   * `none`; an open breaker is `not_sent`; both at once and with `retryAfterMs`. The reads of a cancel pass a breaker,
   * and share only with each other.
   */
  read(call: ReadCall, scope: ReadScope): Promise<Answer>
  /**
   * Sends once or not at all; see Http. Waits at most 1.2 s for its place in the rate budget, else `throttled` with the
   * effect `none`; `not_sent` while the breaker for writes is not closed: an order is never what finds out whether the
   * broker is back. `tags` are the ids of the account and order that the write changes.
   *
   * With its place it calls `beforeSend`, which is to end soon, because it holds the place. When that throws, nothing is
   * sent and its error is thrown; else the call leaves within 2 s, which it has for a free connection, or is `not_sent`.
   */
  place(call: Call, sendBy: number, tags: readonly string[], beforeSend: () => Promise<void>): Promise<Answer>
  /** The same in the lane of cancels and past any breaker, with nothing before it and until `sendBy` for a connection. */
  cancel(call: Call, sendBy: number, tags: readonly string[]): Promise<Answer>
  /** Refuses what waits and what comes, waits for the calls in flight, closes the connections; `withinMs` as Http's. */
  close(withinMs?: number): Promise<void>
}

// One exchange that any number of readers wait for.
interface Flight {
  key: string
  call: ReadCall
  /** Of the reader that began. */
  deadline: number
  /** Who reads it: it leaves in the first turn that one of them has. */
  callers: Set<string | null>
  /** Asks for a place in the turn of one more of them; null unless it waits for one. */
  askAs: ((caller: string | null) => void) | null
  /** Of the reader that began, even when it has left. */
  tally: Tally
  controller: AbortController
  waiting: number
  wasSent: boolean
  /** With more time it might have ended better. */
  isCutShort: boolean
  promise: Promise<Answer>
}

const attemptsMax = 3
// Openings of a breaker that are logged. Their times are 5, 10, 20, 40 and 60 s; all later ones are 60 s.
const openingsToldMax = 5
// Repeats, next to the first attempts, over the last 10 s.
const repeatsShare = 0.1
const repeatsFree = 3
// With less time than this no answer can be expected; a repeat would cost a place in the rate budget for nothing.
const usefulMs = 100
const throttledMs = 1_000
// A little more than the window of the budget: a place that comes free next is worth waiting for.
const writeQueueMs = 1_200
// For a placement that has its place: a second until a connection is free, and one to connect.
const connectionMs = 2_000

/** Nothing is shared with other credentials: each has calls of its own. Sends nothing before it is asked. */
export function createCalls(options: CallsOptions): Calls {
  return new BrokerCalls(options)
}

class BrokerCalls implements Calls {
  readonly #options: CallsOptions
  readonly #http
  readonly #random
  readonly #budget
  readonly #readBreaker
  readonly #writeBreaker
  readonly #firstAttempts = createRecentCount(() => performance.now())
  readonly #repeats = createRecentCount(() => performance.now())
  // Those that a new reader may join, and those with nothing under way at the broker.
  readonly #flights = new Map<string, Flight>()
  readonly #idle = new Set<Flight>()
  #isClosed = false

  constructor(options: CallsOptions) {
    this.#options = options
    const { http } = options
    this.#http = http
    this.#random = options.random ?? Math.random
    this.#budget = createBudget({ perSecond: options.requestsPerSecond })
    this.#readBreaker = this.#makeBreaker('reads')
    this.#writeBreaker = this.#makeBreaker('writes')
  }

  place(call: Call, sendBy: number, tags: readonly string[], beforeSend: () => Promise<void>): Promise<Answer> {
    return this.#write('place', call, sendBy, tags, beforeSend)
  }

  cancel(call: Call, sendBy: number, tags: readonly string[]): Promise<Answer> {
    return this.#write('cancel', call, sendBy, tags)
  }

  close(withinMs?: number): Promise<void> {
    this.#isClosed = true
    for (const flight of this.#idle) flight.controller.abort(closedError())
    this.#budget.close()
    return this.#http.close(withinMs)
  }

  #makeBreaker(calls: 'reads' | 'writes'): Breaker {
    return this.#options.breaker
      ? createBreaker({ random: this.#random, onChange: (change) => this.#noteBreaker(calls, change) })
      : createClosedBreaker()
  }

  #noteBreaker(calls: 'reads' | 'writes', change: BreakerChange): void {
    if (change.state === 'closed') {
      const { downMs } = change
      return this.#options.onNotice?.(`the breaker for ${calls} closed because the broker answers again`, {
        fields: { calls, downMs },
      })
    }
    const { reason, openMs, openings } = change
    // While the broker stays down, a trial call fails every minute, which the log need not repeat.
    if (openings > openingsToldMax) return
    const message = openings === 1 ? 'opened: calls stop for a while' : 'opened again because the trial call failed'
    this.#options.onNotice?.(`the breaker for ${calls} ${message}`, { fields: { calls, reason, openMs } })
  }

  // ---- reads ----------------------------------------------------------------------------------------------------
  async read(asked: ReadCall, scope: ReadScope): Promise<Answer> {
    const call: ReadCall = scope.isForCancel ? { ...asked, lane: 'cancel' } : asked
    const deadline = Math.min(scope.deadline, Date.now() + call.times.callerMs)
    for (;;) {
      if (scope.signal.aborted) throw scope.signal.reason
      if (this.#isClosed) throw closedError()
      if (Date.now() >= deadline) {
        throw new UpstreamError('no_answer', "GET not made: its reader's time was over", {
          effect: 'none',
          timedOut: true,
        })
      }
      const isProbe = this.#mayProbe(call)
      const joined = isProbe ? undefined : this.#findFlight(call, asked.lane)
      const flight = joined ?? this.#startFlight(call, deadline, scope, isProbe)
      if (joined !== undefined) this.#joinTurns(joined, scope.caller)
      // Where it ended for want of a time that this reader has, this reader goes on by itself.
      const mayGoOn = (): boolean =>
        joined !== undefined && joined.isCutShort && deadline > joined.deadline && deadline - Date.now() >= usefulMs
      try {
        const answer = await this.#wait(flight, deadline, scope.signal)
        if (isThrottled(answer) && mayGoOn()) continue
        if (joined !== undefined) scope.tally.shared++
        return answer
      } catch (error) {
        if (!mayGoOn()) throw error
      }
    }
  }

  /** Whether this read is the one that finds out if the broker is back. Throws where it may not be made. */
  #mayProbe(call: ReadCall): boolean {
    if (this.#readBreaker.state() === 'closed') return false
    if (this.#readBreaker.tryProbe()) return true
    if (call.lane === 'cancel') return false
    throw new UpstreamError('not_sent', 'GET not sent: the breaker for reads is open', {
      retryAfterMs: this.#readBreaker.retryAfterMs(),
    })
  }

  // Nobody joins a flight that is worth less to it than one of its own. Looking for an order is evidence of when it was
  // looked for, also where a cancel does it: an order that came since the flight was asked would pass for one that is not
  // there, or was not there before. And the urgent wait in no lane but theirs, nor for a call that a breaker may take down.
  #findFlight(call: ReadCall, askedLane: ReadCall['lane']): Flight | undefined {
    const flight = this.#flights.get(toKey(call))
    if (flight === undefined) return undefined
    const isLook = askedLane === 'snapshot' || askedLane === 'lookup'
    if (isLook && flight.wasSent) return undefined
    if (isLook || call.lane === 'cancel') return flight.call.lane === call.lane ? flight : undefined
    return flight
  }

  #startFlight(call: ReadCall, deadline: number, { caller, tally }: ReadScope, isProbe: boolean): Flight {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const flight: Flight = {
      key: toKey(call),
      call,
      deadline,
      callers: new Set([caller]),
      askAs: null,
      tally,
      controller: new AbortController(),
      waiting: 0,
      wasSent: false,
      isCutShort: false,
      promise,
    }
    // All who waited may have left.
    promise.catch(() => {})
    // Takes the place of one that could not be joined: the later look is the better one for who comes next.
    this.#flights.set(flight.key, flight)
    this.#exchange(flight, isProbe)
      .finally(() => this.#detachFlight(flight))
      .then(resolve, reject)
    return flight
  }

  // Behind all that the one who began it waits for, a reader with little to ask would wait for nothing of its own.
  #joinTurns(flight: Flight, caller: string | null): void {
    if (flight.callers.has(caller)) return
    flight.callers.add(caller)
    flight.askAs?.(caller)
  }

  #detachFlight(flight: Flight): void {
    if (this.#flights.get(flight.key) === flight) this.#flights.delete(flight.key)
  }

  /** Until the flight has landed, `signal` aborts or the deadline passes: the last to leave ends the flight. */
  async #wait(flight: Flight, deadline: number, signal: AbortSignal): Promise<Answer> {
    const left = Promise.withResolvers<never>()
    const onAbort = (): void => left.reject(signal.reason)
    const onDeadline = (): void => left.reject(toWaitError(flight))
    // The flight's own deadline ends it by itself, and says more about why.
    const timer = deadline < flight.deadline ? setTimeout(onDeadline, deadline - Date.now()) : undefined
    signal.addEventListener('abort', onAbort)
    flight.waiting++
    try {
      return await Promise.race([flight.promise, left.promise])
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      flight.waiting--
      if (flight.waiting === 0) {
        this.#detachFlight(flight)
        flight.controller.abort(new Error('nobody waits for it any more'))
      }
    }
  }

  /** All attempts of one flight. */
  async #exchange(flight: Flight, isProbe: boolean): Promise<Answer> {
    let outcome = await this.#attempt(flight, isProbe)
    for (let repeat = 1; repeat < attemptsMax; repeat++) {
      const waitMs = this.#toRepeatWait(outcome, flight.call.times.backoffMs, repeat)
      if (waitMs === null || this.#isClosed) break
      // What the broker did says more than that a breaker has opened over it.
      if (this.#readBreaker.state() !== 'closed' && flight.call.lane !== 'cancel') break
      if (Date.now() + waitMs + usefulMs > flight.deadline) {
        flight.isCutShort = true
        break
      }
      if (!this.#mayRepeat()) break
      try {
        // A 429 has paused the budget for as long as it asked: there it is waited out.
        if (!isThrottled(outcome)) await this.#sleep(flight, waitMs)
        outcome = await this.#attempt(flight, false, true)
      } catch (error) {
        // It never left, for our own reasons; what the broker did is the better answer.
        if (error instanceof UpstreamError) break
        throw error
      }
    }
    if (outcome instanceof UpstreamError) throw outcome
    return outcome
  }

  /** One attempt and what came of it. Throws when it did not leave. */
  async #attempt(flight: Flight, isProbe: boolean, isRepeat = false): Promise<Answer | UpstreamError> {
    const { call, controller, tally } = flight
    const { signal } = controller
    let hasReported = false
    let place: Place | undefined
    try {
      place = await this.#queue(flight)
      signal.throwIfAborted()
      const leftMs = flight.deadline - Date.now()
      if (leftMs <= 0) {
        flight.isCutShort = true
        throw new UpstreamError('throttled', 'GET had no time left when its place came', {
          effect: 'none',
          retryAfterMs: throttledMs,
        })
      }
      const { path, times } = call
      const query = call.query === undefined ? {} : { query: call.query }
      const headers = call.headers === undefined ? {} : { headers: call.headers }
      const attemptMs = Math.min(times.attemptMs, leftMs)

      if (!isRepeat) this.#firstAttempts.add()
      flight.wasSent = true
      tally.calls++
      if (isRepeat) tally.retried++
      const openings = this.#readBreaker.openings()
      const startedAt = performance.now()
      const { firstByteMs } = times
      const onSent = place.sent
      let outcome: Answer | UpstreamError
      try {
        // What a cancel has to know takes its connections: reads that hang cannot hold it back.
        const sent: Call = { method: 'GET', path, ...query, ...headers, firstByteMs, attemptMs, signal, onSent }
        outcome = await (call.lane === 'cancel' ? this.#http.cancel(sent) : this.#http.read(sent))
      } catch (error) {
        if (!(error instanceof UpstreamError) || signal.aborted) throw error
        outcome = error
      } finally {
        tally.ms += performance.now() - startedAt
      }

      const timeout = outcome instanceof UpstreamError && outcome.timedOut ? outcome : null
      if (timeout !== null && attemptMs < times.attemptMs) flight.isCutShort = true
      outcome = withWait(outcome, this.#pauseIfThrottled(outcome))
      // A broker that was not given the time to answer has not failed; otherwise a caller in a hurry could open the
      // breaker for all.
      const isHurried = timeout?.kind === 'no_answer' && attemptMs < times.firstByteMs
      const health = isHurried ? null : toHealth(outcome)
      if (health !== null && openings === this.#readBreaker.openings()) {
        hasReported = true
        report(this.#readBreaker, health, outcome)
        if (this.#readBreaker.state() === 'open') this.#ground()
      }
      // An order is never a probe, so this is how the writes come back.
      if (health === true && this.#writeBreaker.state() === 'halfOpen') this.#writeBreaker.succeeded()
      return outcome
    } finally {
      // Last: what is granted now has heard of the pause and of the breaker.
      place?.release()
      if (isProbe && !hasReported) this.#readBreaker.leaveProbe()
    }
  }

  async #queue(flight: Flight): Promise<Place> {
    const { call, deadline, controller, callers } = flight
    const granted = Promise.withResolvers<Place>()
    let isGranted = false
    let asking = 0
    const take = (place: Place): void => {
      // The turn of another of its readers, which it does not need any more.
      if (isGranted) return place.release()
      isGranted = true
      granted.resolve(place)
    }
    const refuse = (error: unknown): void => {
      if (--asking === 0) granted.reject(error)
    }
    flight.askAs = (caller) => {
      asking++
      this.#budget.acquire(call.lane, deadline, controller.signal, caller).then(take, refuse)
    }
    this.#idle.add(flight)
    try {
      for (const caller of callers) flight.askAs(caller)
      return await granted.promise
    } catch (error) {
      if (error instanceof UpstreamError && error.kind === 'throttled') flight.isCutShort = true
      throw error
    } finally {
      flight.askAs = null
      this.#idle.delete(flight)
    }
  }

  async #sleep(flight: Flight, ms: number): Promise<void> {
    const { signal } = flight.controller
    this.#idle.add(flight)
    try {
      await new Promise<void>((resolve, reject) => {
        const onAbort = (): void => {
          clearTimeout(timer)
          reject(signal.reason)
        }
        const timer = setTimeout(() => {
          signal.removeEventListener('abort', onAbort)
          resolve()
        }, ms)
        signal.addEventListener('abort', onAbort, { once: true })
      })
    } finally {
      this.#idle.delete(flight)
    }
  }

  // Reads that still wait to leave when the breaker opens would each spend a place in the budget to be told so.
  #ground(): void {
    for (const flight of this.#idle) {
      if (flight.call.lane === 'cancel') continue
      this.#detachFlight(flight)
      flight.controller.abort(
        new UpstreamError('not_sent', 'GET not sent: the breaker for reads has opened', {
          retryAfterMs: this.#readBreaker.retryAfterMs(),
        }),
      )
    }
  }

  /**
   * The wait before a repeat, in ms; null where a repeat would bring the same. Full jitter, or those who failed
   * together would come back together.
   */
  #toRepeatWait(outcome: Answer | UpstreamError, backoffMs: ReadTimes['backoffMs'], repeat: number): number | null {
    if (isThrottled(outcome)) return outcome.retryAfterMs ?? throttledMs
    if (!(outcome instanceof UpstreamError) || isOwnDeadline(outcome)) return null
    if (outcome.kind === 'refused' || outcome.kind === 'unreadable') return null
    const jitterMs = this.#random() * Math.min(backoffMs.longest, backoffMs.first * 2 ** (repeat - 1))
    return Math.max(jitterMs, outcome.retryAfterMs ?? 0)
  }

  // Repeats help against a single fault and hurt a broker in trouble: of many that fail, few may be repeated.
  #mayRepeat(): boolean {
    if (this.#repeats.count() + 1 > this.#firstAttempts.count() * repeatsShare + repeatsFree) return false
    this.#repeats.add()
    return true
  }

  // ---- writes ---------------------------------------------------------------------------------------------------
  async #write(
    lane: Extract<Lane, 'place' | 'cancel'>,
    call: Call,
    sendBy: number,
    tags: readonly string[],
    beforeSend?: () => Promise<void>,
  ): Promise<Answer> {
    let place: Place | undefined
    try {
      if (lane === 'place') this.#refuseUnlessClosed()
      const now = Date.now()
      if (now >= sendBy) throw lateError()
      place = await this.#budget.acquire(lane, Math.min(now + writeQueueMs, sendBy))
      if (lane === 'place') this.#refuseUnlessClosed()
      await beforeSend?.()
      if (this.#isClosed) throw closedError()
      const readyAt = Date.now()
      if (readyAt >= sendBy) throw lateError()
      const openings = this.#writeBreaker.openings()
      const onSent = place.sent
      let outcome: Answer | UpstreamError
      try {
        outcome = await (lane === 'place'
          ? this.#http.write({ ...call, sendBy: Math.min(sendBy, readyAt + connectionMs), onSent })
          : this.#http.cancel({ ...call, sendBy, onSent }))
      } catch (error) {
        if (!(error instanceof UpstreamError)) throw error
        outcome = error
      }
      this.#pauseIfThrottled(outcome)
      const health = toHealth(outcome)
      if (health !== null && openings === this.#writeBreaker.openings()) {
        // Half open, it waits for a read, which harms nothing if the broker is not back.
        if (!health || this.#writeBreaker.state() === 'closed') report(this.#writeBreaker, health, outcome)
      }
      if (outcome instanceof UpstreamError) throw outcome
      return outcome
    } finally {
      place?.release()
      this.#detach(tags)
    }
  }

  #refuseUnlessClosed(): void {
    if (this.#writeBreaker.state() === 'closed') return
    throw new UpstreamError('not_sent', 'POST not sent: the breaker for writes is open', {
      retryAfterMs: this.#writeBreaker.retryAfterMs(),
    })
  }

  /** Readers from now on start anew; those who already wait asked before the write ended and may be told so. */
  #detach(tags: readonly string[]): void {
    for (const flight of this.#flights.values()) {
      if (flight.call.tags.some((tag) => tags.includes(tag))) this.#detachFlight(flight)
    }
  }

  /** Pauses the rate budget if the broker asked to wait. Returns the ms until the pause is over; null if there is none. */
  #pauseIfThrottled(outcome: Answer | UpstreamError): number | null {
    return isThrottled(outcome) ? this.#budget.pause(outcome.retryAfterMs ?? throttledMs) : null
  }
}

// Order does not count in a query. What was asked with a token that is refused by now is no answer to one with the next.
function toKey({ path, query: asked, headers = {} }: ReadCall): string {
  const query = new URLSearchParams(asked)
  query.sort()
  return JSON.stringify([path, query.toString(), Object.entries(headers)])
}

function report(breaker: Breaker, health: boolean, outcome: Answer | UpstreamError): void {
  if (health) breaker.succeeded()
  else breaker.failed(outcome instanceof UpstreamError ? outcome.kind : undefined)
}

/** Whether the broker is there and works; null where the outcome does not tell. */
function toHealth(outcome: Answer | UpstreamError): boolean | null {
  if (!(outcome instanceof UpstreamError)) return true
  switch (outcome.kind) {
    case 'not_sent':
      return isOwnDeadline(outcome) ? null : false
    case 'no_answer':
    case 'failed':
      return false
    case 'refused':
    case 'throttled':
    case 'unreadable':
      return true
    default:
      return outcome.kind satisfies never
  }
}

// The queue behind our own connections took too long, or `sendBy` passed in it. A connection that timed out has undici's
// error as its cause.
function isOwnDeadline(error: UpstreamError): boolean {
  return error.kind === 'not_sent' && error.timedOut && error.cause === undefined
}

/** Whether the broker asked to wait, in an envelope of its own or otherwise. */
function isThrottled(outcome: Answer | UpstreamError): boolean {
  return outcome instanceof UpstreamError ? outcome.kind === 'throttled' : outcome.status === 429
}

/** Returns a 429 with the pause of the rate budget as its wait if the broker gave no readable one. */
function withWait(outcome: Answer | UpstreamError, waitMs: number | null): Answer | UpstreamError {
  if (waitMs === null || outcome.retryAfterMs !== null) return outcome
  const retryAfterMs = Math.ceil(waitMs)
  return outcome instanceof UpstreamError ? outcome.withRetryAfter(retryAfterMs) : { ...outcome, retryAfterMs }
}

function lateError(): UpstreamError {
  return new UpstreamError('not_sent', 'not sent: its deadline had passed', { timedOut: true })
}

// What a reader is told whose deadline passes before that of the flight it joined.
function toWaitError(flight: Flight): UpstreamError {
  if (flight.wasSent) {
    return new UpstreamError('no_answer', "GET sent, no answer by the reader's deadline", { timedOut: true })
  }
  // The flight still counts on a place by its own deadline, or it would have been refused.
  return new UpstreamError('throttled', "GET had no place in the rate budget by the reader's deadline", {
    effect: 'none',
    retryAfterMs: Math.min(Math.max(1, flight.deadline - Date.now()), 60_000),
  })
}

function closedError(): UpstreamError {
  return new UpstreamError('not_sent', 'the calls to the broker are closed')
}
