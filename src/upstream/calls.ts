// The upstream calls of one credential. A read is shared, waits for a permit, is sent, and may be repeated; a write waits for a
// permit and is sent once. http.ts says what a call proved, and this file decides what to do about it:
//
//   sharedReads  readers of the same thing share one call      budget   no call leaves above the broker's rate
//   breaker      no call goes to a broker that is down         retry    which failed reads are repeated

import { createBreaker, createClosedBreaker, type Breaker, type BreakerChange } from './breaker.ts'
import { createBudget, type Budget, type Lane, type Permit } from './budget.ts'
import { UpstreamError } from './errors.ts'
import type { Answer, Call, Http } from './http.ts'
import type { OnNotice } from './notices.ts'
import { isThrottled, throttledMs, toHealth, withWait } from './outcome.ts'
import type { Outcome } from './outcome.ts'
import type { ReadCall } from './readCall.ts'
import type { ReadScope } from './readScope.ts'
import { attemptsMax, RetryPolicy } from './retry.ts'
import { SharedReads } from './sharedReads.ts'
import type { SharedRead } from './sharedReads.ts'

/** The parts that the calls of a credential use. */
export interface CallsOptions {
  /** Connections that carry this credential alone. `close` of the calls closes them. */
  http: Http
  /** The rate that the broker grants the credential; see BudgetOptions. */
  requestsPerSecond: number
  /** False lets calls go on, however many fail. */
  breaker: boolean
  /** Called when a breaker opens or closes. */
  onNotice?: OnNotice
  /** Returns a number from 0 up to 1; Math.random by default. */
  random?: () => number
}

/** The calls of one credential. All errors are UpstreamErrors, or the reason of a scope's signal. */
export interface Calls {
  /**
   * Returns the answer to a GET.
   *
   * - Readers of the same path, query and headers at the same time get the same answer object, which none of them may change.
   *   The call leaves in the first turn of one of their callers. It counts on the tally of the reader that started it, and as
   *   `shared` on those of the others.
   * - No answer is kept. A reader that comes after a write has ended never gets an answer from before it. A snapshot or lookup
   *   never gets an answer to a call that was sent before it came.
   * - At most 3 attempts, until the deadline of the scope or `callerMs`. A 429 that is not worth waiting for is returned or
   *   thrown, as http.ts does.
   * - Throws `throttled` with effect `none` if no permit can come in time, and `not_sent` if the breaker is open: both at once,
   *   with `retryAfterMs`. Reads of a cancel pass the breaker, and share only with each other.
   */
  read(call: ReadCall, scope: ReadScope): Promise<Answer>
  /**
   * Sends once or not at all; see Http. Waits at most 1.2 s for a permit, then throws `throttled` with effect `none`. Throws
   * `not_sent` unless the breaker for writes is closed, because an order must not be the probe that shows whether the broker
   * is back. `tags` are the ids of the account and order that the write changes.
   *
   * Awaits `beforeSend` while it holds the permit, so it should end soon. If `beforeSend` throws, nothing is sent and its error
   * is thrown. Otherwise the call leaves within 2 s, which it has for a free connection, or throws `not_sent`.
   */
  place(call: Call, sendBy: number, tags: readonly string[], beforeSend: () => Promise<void>): Promise<Answer>
  /** Sends a cancel once or not at all, past any breaker. It has until `sendBy` for a permit and a connection. */
  cancel(call: Call, sendBy: number, tags: readonly string[]): Promise<Answer>
  /** Rejects all waiting and later calls, waits for those under way, and closes the connections; `withinMs` as for Http. */
  close(withinMs?: number): Promise<void>
}

// Openings of a breaker that are logged. Their times are 5, 10, 20, 40 and 60 s; all later ones are 60 s.
const openingsToldMax = 5
// Minimum time for an attempt, in ms. No answer can be expected in less, so the attempt would cost a permit for nothing.
const usefulMs = 100
// Maximum wait of a write for a permit, in ms: a little more than a window, so that the next free permit is worth waiting for.
const writeQueueMs = 1_200
// Maximum time of a placement with a permit until it leaves, in ms: a second until a connection is free, and one to connect.
const connectionMs = 2_000

/** Creates the calls of one credential. Sends nothing by itself. */
export function createCalls(options: CallsOptions): Calls {
  return new BrokerCalls(options)
}

class BrokerCalls implements Calls {
  readonly #options: CallsOptions
  readonly #http: Http
  readonly #budget: Budget
  readonly #readBreaker: Breaker
  readonly #writeBreaker: Breaker
  readonly #retry: RetryPolicy
  readonly #shared = new SharedReads()
  /** Reads with nothing under way at the broker. */
  readonly #idle = new Set<SharedRead>()
  #isClosed = false

  constructor(options: CallsOptions) {
    this.#options = options
    const { http } = options
    this.#http = http
    this.#retry = new RetryPolicy(options.random ?? Math.random)
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
    for (const read of this.#idle) read.controller.abort(closedError())
    this.#budget.close()
    return this.#http.close(withinMs)
  }

  #makeBreaker(calls: 'reads' | 'writes'): Breaker {
    return this.#options.breaker
      ? createBreaker({
          random: this.#options.random ?? Math.random,
          onChange: (change) => this.#noteBreaker(calls, change),
        })
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
      const joined = isProbe ? undefined : this.#shared.find(call, asked.lane)
      const read = joined ?? this.#shared.start(call, deadline, scope, (started) => this.#exchange(started, isProbe))
      if (joined !== undefined) this.#shared.join(joined, scope.caller)
      // If the shared read ended for lack of time, a reader with a later deadline starts another one.
      const mayGoOn = (): boolean =>
        joined !== undefined && joined.isCutShort && deadline > joined.deadline && deadline - Date.now() >= usefulMs
      try {
        const answer = await this.#shared.wait(read, deadline, scope.signal)
        if (isThrottled(answer) && mayGoOn()) continue
        if (joined !== undefined) scope.tally.shared++
        return answer
      } catch (error) {
        if (!mayGoOn()) throw error
      }
    }
  }

  /** Whether this read is the probe that shows if the broker is back. Throws if the breaker lets no read pass. */
  #mayProbe(call: ReadCall): boolean {
    if (this.#readBreaker.state() === 'closed') return false
    if (this.#readBreaker.tryProbe()) return true
    if (call.lane === 'cancel') return false
    throw new UpstreamError('not_sent', 'GET not sent: the breaker for reads is open', {
      retryAfterMs: this.#readBreaker.retryAfterMs(),
    })
  }

  /** Makes all attempts of one shared read. */
  async #exchange(read: SharedRead, isProbe: boolean): Promise<Answer> {
    let outcome = await this.#attempt(read, isProbe)
    for (let repeat = 1; repeat < attemptsMax; repeat++) {
      const waitMs = this.#retry.toWait(outcome, read.call.times.backoffMs, repeat)
      if (waitMs === null || this.#isClosed) break
      // The last outcome says more than the error of a breaker that has opened.
      if (this.#readBreaker.state() !== 'closed' && read.call.lane !== 'cancel') break
      if (Date.now() + waitMs + usefulMs > read.deadline) {
        read.isCutShort = true
        break
      }
      if (!this.#retry.tryRepeat()) break
      try {
        // A 429 has paused the rate budget for its wait, so the wait is spent in the queue of the budget.
        if (!isThrottled(outcome)) await this.#sleep(read, waitMs)
        outcome = await this.#attempt(read, false, true)
      } catch (error) {
        // The repeat never left, for our own reasons. The broker's outcome says more.
        if (error instanceof UpstreamError) break
        throw error
      }
    }
    if (outcome instanceof UpstreamError) throw outcome
    return outcome
  }

  /** Makes one attempt and returns its outcome. Throws if the call did not leave. */
  async #attempt(read: SharedRead, isProbe: boolean, isRepeat = false): Promise<Outcome> {
    const { call, controller, tally } = read
    const { signal } = controller
    let hasReported = false
    let permit: Permit | undefined
    try {
      permit = await this.#queue(read)
      signal.throwIfAborted()
      const leftMs = read.deadline - Date.now()
      if (leftMs <= 0) {
        read.isCutShort = true
        throw new UpstreamError('throttled', 'GET had no time left when its permit came', {
          effect: 'none',
          retryAfterMs: throttledMs,
        })
      }
      const { path, times } = call
      const query = call.query === undefined ? {} : { query: call.query }
      const headers = call.headers === undefined ? {} : { headers: call.headers }
      const attemptMs = Math.min(times.attemptMs, leftMs)

      if (!isRepeat) this.#retry.noteFirstAttempt()
      read.wasSent = true
      tally.calls++
      if (isRepeat) tally.retried++
      const openings = this.#readBreaker.openings()
      const startedAt = performance.now()
      const { firstByteMs } = times
      const onSent = permit.sent
      let outcome: Outcome
      try {
        // Reads of a cancel use the connections of cancels, so that reads that hang cannot hold them back.
        const sent: Call = { method: 'GET', path, ...query, ...headers, firstByteMs, attemptMs, signal, onSent }
        outcome = await (call.lane === 'cancel' ? this.#http.cancel(sent) : this.#http.read(sent))
      } catch (error) {
        if (!(error instanceof UpstreamError) || signal.aborted) throw error
        outcome = error
      } finally {
        tally.ms += performance.now() - startedAt
      }

      const timeout = outcome instanceof UpstreamError && outcome.timedOut ? outcome : null
      if (timeout !== null && attemptMs < times.attemptMs) read.isCutShort = true
      outcome = withWait(outcome, this.#pauseIfThrottled(outcome))
      // A broker that had too little time to answer has not failed. Otherwise a caller with a short deadline could open the
      // breaker for all callers.
      const isHurried = timeout?.kind === 'no_answer' && attemptMs < times.firstByteMs
      const health = isHurried ? null : toHealth(outcome)
      if (health !== null && openings === this.#readBreaker.openings()) {
        hasReported = true
        report(this.#readBreaker, health, outcome)
        if (this.#readBreaker.state() === 'open') this.#endWaiting()
      }
      // An order is never a probe, so a read that succeeds closes the breaker for writes.
      if (health === true && this.#writeBreaker.state() === 'halfOpen') this.#writeBreaker.succeeded()
      return outcome
    } finally {
      // Released last, so that the next permit is granted after the pause and the breaker are known.
      permit?.release()
      if (isProbe && !hasReported) this.#readBreaker.leaveProbe()
    }
  }

  async #queue(read: SharedRead): Promise<Permit> {
    const { call, deadline, controller, callers } = read
    const granted = Promise.withResolvers<Permit>()
    let isGranted = false
    let asking = 0
    const take = (permit: Permit): void => {
      // A permit in the turn of another reader, which is no longer needed.
      if (isGranted) return permit.release()
      isGranted = true
      granted.resolve(permit)
    }
    const refuse = (error: unknown): void => {
      if (--asking === 0) granted.reject(error)
    }
    read.askAs = (caller) => {
      asking++
      this.#budget.acquire(call.lane, deadline, controller.signal, caller).then(take, refuse)
    }
    this.#idle.add(read)
    try {
      for (const caller of callers) read.askAs(caller)
      return await granted.promise
    } catch (error) {
      if (error instanceof UpstreamError && error.kind === 'throttled') read.isCutShort = true
      throw error
    } finally {
      read.askAs = null
      this.#idle.delete(read)
    }
  }

  async #sleep(read: SharedRead, ms: number): Promise<void> {
    const { signal } = read.controller
    this.#idle.add(read)
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
      this.#idle.delete(read)
    }
  }

  // Ends the reads that wait when the breaker opens, because each would spend a permit to fail.
  #endWaiting(): void {
    for (const read of this.#idle) {
      if (read.call.lane === 'cancel') continue
      this.#shared.detach(read)
      read.controller.abort(
        new UpstreamError('not_sent', 'GET not sent: the breaker for reads has opened', {
          retryAfterMs: this.#readBreaker.retryAfterMs(),
        }),
      )
    }
  }

  // ---- writes ---------------------------------------------------------------------------------------------------
  async #write(
    lane: Extract<Lane, 'place' | 'cancel'>,
    call: Call,
    sendBy: number,
    tags: readonly string[],
    beforeSend?: () => Promise<void>,
  ): Promise<Answer> {
    let permit: Permit | undefined
    try {
      if (lane === 'place') this.#refuseUnlessClosed()
      const now = Date.now()
      if (now >= sendBy) throw lateError()
      permit = await this.#budget.acquire(lane, Math.min(now + writeQueueMs, sendBy))
      if (lane === 'place') this.#refuseUnlessClosed()
      await beforeSend?.()
      if (this.#isClosed) throw closedError()
      const readyAt = Date.now()
      if (readyAt >= sendBy) throw lateError()
      const openings = this.#writeBreaker.openings()
      const onSent = permit.sent
      let outcome: Outcome
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
        // A half-open breaker waits for a read, because a failed read does no harm.
        if (!health || this.#writeBreaker.state() === 'closed') report(this.#writeBreaker, health, outcome)
      }
      if (outcome instanceof UpstreamError) throw outcome
      return outcome
    } finally {
      permit?.release()
      this.#shared.detachTagged(tags)
    }
  }

  #refuseUnlessClosed(): void {
    if (this.#writeBreaker.state() === 'closed') return
    throw new UpstreamError('not_sent', 'POST not sent: the breaker for writes is open', {
      retryAfterMs: this.#writeBreaker.retryAfterMs(),
    })
  }

  /** Pauses the rate budget if the broker asked to wait. Returns the ms until the pause is over; null without a pause. */
  #pauseIfThrottled(outcome: Outcome): number | null {
    return isThrottled(outcome) ? this.#budget.pause(outcome.retryAfterMs ?? throttledMs) : null
  }
}

function report(breaker: Breaker, health: boolean, outcome: Outcome): void {
  if (health) breaker.succeeded()
  else breaker.failed(outcome instanceof UpstreamError ? outcome.kind : undefined)
}

function lateError(): UpstreamError {
  return new UpstreamError('not_sent', 'not sent: its deadline had passed', { timedOut: true })
}

function closedError(): UpstreamError {
  return new UpstreamError('not_sent', 'the calls to the broker are closed')
}
