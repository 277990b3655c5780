// The rate budget of one credential. A broker counts the requests of a key pair, so all calls of a credential need a permit of
// this budget. Lanes with a higher priority go first, and callers take turns within a lane. A call that cannot get a permit
// before its deadline is refused at once, so that its caller does not wait for a refusal.
//
//   rateWindow  which calls count against the rate now      fairQueue  whose turn is next in a lane

import { UpstreamError } from './errors.ts'
import { FairQueue } from './fairQueue.ts'
import { RateWindow, windowMs } from './rateWindow.ts'

// The most urgent first.
const lanes = ['cancel', 'place', 'snapshot', 'lookup', 'read', 'list'] as const
/** A priority class of calls: cancels, placements, pre-send snapshots, lookups, reads of one order, lists. */
export type Lane = (typeof lanes)[number]

/** The rate of a credential. */
export interface BudgetOptions {
  /**
   * The rate that the broker grants the credential, in requests per second; 80 % of it are used, but at least 1. Below 4 it is
   * too small to keep permits free for cancels, which then only go first.
   */
  perSecond: number
}

/**
 * The right to make one call now. It counts against the rate from when it is granted until a window after the call was sent,
 * because a connection may take its time and the broker counts what arrives. Its holder calls `release` in the end, sent or not.
 */
export interface Permit {
  /** The headers leave now. Only the first call of it counts, and none after `release`. */
  sent(): void
  /** The call is over. A permit that was not used is free again at once. Does nothing after `sent`. */
  release(): void
}

/** The permits of one credential. */
export interface Budget {
  /**
   * Resolves when the call may leave, which it then does at once. A higher lane goes first, unless it has used up its share:
   * snapshots have half of the permits that placements may take, lookups a fifth of all, each at least one. Within a lane the
   * callers take turns; of each caller the oldest call goes first. Null is a caller like any other.
   *
   * Rejects with an UpstreamError, `throttled` with effect `none` and a `retryAfterMs` of 1 to 60,000: at once if no permit
   * can come by `deadline` (epoch ms, at most 60 s away), otherwise when the deadline passes, because calls that come later may
   * go first. Rejects with the reason of `signal` if that aborts.
   *
   * A caller has at most as many waiters in a lane as there are permits within 60 s, 55 × the limit. The caller with the
   * second most has about half as many at most, the third a third, and so on.
   */
  acquire(lane: Lane, deadline: number, signal?: AbortSignal, caller?: string | null): Promise<Permit>
  /**
   * The broker answered 429: no permit is granted for `ms` (at most 60,000), not for cancels either, and then half as many as
   * before, which grow back step by step within 20 s. The 429s of one burst halve the limit once. Returns the ms until the
   * pause is over, which is longer than `ms` if an earlier 429 still pauses the calls.
   */
  pause(ms: number): number
  /** Rejects all waiters and all later calls, as `not_sent`. Leaves no timer behind. */
  close(): void
}

/** A call that waits for a permit. Times are monotonic ms. */
interface Waiter {
  readonly lane: Lane
  readonly caller: string | null
  readonly deadline: number
  readonly grant: (permit: Permit) => void
  /** Rejects it as too late. */
  readonly expire: () => void
  readonly reject: (error: unknown) => void
}

/** The waiters of a lane, and the calls that it made. */
interface LaneState {
  readonly queue: FairQueue<Waiter>
  readonly window: RateWindow
}

const waitMsMax = 60_000
const pauseMsMax = 60_000
// Permits that the other lanes leave free at any time, so that a cancel never queues behind a flood of reads.
const cancelPermits = 2
// Share of the permits that reads take at once. They take the rest one by one.
const burstShare = 0.75
const recoveryStepMs = 1_000
const recoveryStepsMax = 20

/** Creates a budget. Its creator calls `close`. */
export function createBudget(options: BudgetOptions): Budget {
  return new RateBudget(options)
}

class RateBudget implements Budget {
  readonly #limitMax: number
  /** Smallest limit after 429s. With fewer permits, only cancels would get one. */
  readonly #limitMin: number
  readonly #recoveryStep: number
  readonly #lanes: Record<Lane, LaneState> = {
    cancel: createLane(),
    place: createLane(),
    snapshot: createLane(),
    lookup: createLane(),
    read: createLane(),
    list: createLane(),
  }
  /** The calls of all lanes together, at most `#limitMax`. */
  readonly #window = new RateWindow()
  /** Permits of reads whose calls have not been sent yet. */
  #unsentReads = 0
  #lastPacedAt = -Infinity
  #pausedUntil = -Infinity
  #limitAfterPause: number
  #halvedAt = -Infinity
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: BudgetOptions) {
    this.#limitMax = Math.max(1, Math.floor((options.perSecond * 4) / 5))
    this.#limitMin = this.#limitMax > cancelPermits ? cancelPermits + 1 : 1
    this.#recoveryStep = Math.ceil(this.#limitMax / recoveryStepsMax)
    this.#limitAfterPause = this.#limitMax
  }

  acquire(lane: Lane, deadline: number, signal?: AbortSignal, caller: string | null = null): Promise<Permit> {
    return new Promise((resolve, reject) => {
      const at = this.#now()
      const leftMs = Math.min(deadline - Date.now(), waitMsMax)
      if (signal?.aborted === true) return reject(signal.reason)
      if (this.#isClosed) return reject(closedError())
      this.#forgetSent(at)
      const expected = this.#estimate(lane, caller, at)
      if (expected >= at + leftMs) return reject(refuse(lane, expected, at))

      const { queue } = this.#lanes[lane]
      const waiter: Waiter = {
        lane,
        caller,
        deadline: at + leftMs,
        grant: (permit) => {
          leave()
          resolve(permit)
        },
        expire: () => {
          const lateAt = this.#now()
          this.#forgetSent(lateAt)
          waiter.reject(refuse(lane, this.#estimate(lane, caller, lateAt), lateAt))
        },
        reject: (error) => {
          leave()
          reject(error)
        },
      }
      const leave = (): void => {
        queue.remove(waiter)
        clearTimeout(deadlineTimer)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        waiter.reject(signal?.reason)
        this.#pump()
      }
      const onDeadline = (): void => {
        waiter.expire()
        this.#pump()
      }
      const deadlineTimer = setTimeout(onDeadline, leftMs)
      signal?.addEventListener('abort', onAbort)
      queue.add(waiter)
      this.#pump()
    })
  }

  pause(ms: number): number {
    const at = this.#now()
    // Calls that left before the first 429 came back show the same excess, not a new one.
    if (at >= Math.max(this.#pausedUntil, this.#halvedAt + windowMs)) {
      this.#limitAfterPause = Math.max(this.#limitMin, Math.floor(this.#limitAt(at) / 2))
      this.#halvedAt = at
      this.#pausedUntil = at
    }
    this.#pausedUntil = Math.max(this.#pausedUntil, at + Math.min(Math.max(0, ms), pauseMsMax))
    this.#pump()
    return this.#pausedUntil - at
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    for (const lane of lanes) {
      for (const waiter of this.#lanes[lane].queue) waiter.reject(closedError())
    }
  }

  // ---- granting -------------------------------------------------------------------------------------------------------

  /** Grants the permits that are free, and wakes up when the next one is. */
  #pump(): void {
    clearTimeout(this.#timer)
    for (;;) {
      const at = this.#now()
      this.#forgetSent(at)
      const next = this.#findNext(at)
      if (typeof next === 'number') {
        if (next !== Infinity) this.#timer = setTimeout(() => this.#pump(), Math.ceil(next - at))
        return
      }
      // Its timer is late, for example after a pause of the process.
      if (next.deadline <= at) {
        next.expire()
        continue
      }
      if (isPaced(next.lane)) this.#lastPacedAt = at
      next.grant(this.#createPermit(next.lane))
      this.#lanes[next.lane].queue.passTurn(next.caller)
    }
  }

  /** Returns the waiter that leaves now, or when to look again; Infinity if there is no waiter. */
  #findNext(at: number): Waiter | number {
    let againAt = Infinity
    for (const lane of lanes) {
      const { queue, window } = this.#lanes[lane]
      const { first } = queue
      if (first === undefined) continue
      const shareAt = this.#findFree(window, this.#shareOf(lane, at), at, countNone)
      if (shareAt > at) {
        againAt = Math.min(againAt, shareAt)
        continue
      }
      // No lower lane may leave before it, because everything else that holds back a lane also holds back those below it.
      const freeAt = this.#findFree(this.#window, this.#permitsOf(lane, at), at, countNone)
      const readyAt = Math.max(freeAt, this.#paceAt(lane, at))
      return readyAt > at ? Math.min(againAt, readyAt) : first
    }
    return againAt
  }

  #createPermit(lane: Lane): Permit {
    const windows = [this.#window, this.#lanes[lane].window]
    const reads = isPaced(lane) ? 1 : 0
    let isUnsent = true
    for (const window of windows) window.grant()
    this.#unsentReads += reads
    const end = (wasSent: boolean): void => {
      if (!isUnsent) return
      isUnsent = false
      this.#unsentReads -= reads
      const at = this.#now()
      for (const window of windows) {
        if (wasSent) window.send(at)
        else window.giveBack()
      }
      this.#pump()
    }
    return { sent: () => end(true), release: () => end(false) }
  }

  /**
   * Returns when a read may leave as far as the pace is concerned. Reads take the last quarter of the permits one by one,
   * because otherwise these would all be free at once a second later, again and again, and a placement that comes in between
   * would find no permit for that second.
   */
  #paceAt(lane: Lane, at: number): number {
    if (!isPaced(lane)) return at
    const permits = this.#permitsOf(lane, at)
    const atOnce = Math.max(1, Math.floor(permits * burstShare))
    // Nor do they take it while so many reads have not been sent. If the connections for reads hang, a permit lets no read
    // leave sooner, and placements, which have connections of their own, would find none.
    if (this.#unsentReads >= atOnce) return at + windowMs
    if (this.#window.count < atOnce) return at
    return this.#lastPacedAt + windowMs / permits
  }

  // ---- limits ---------------------------------------------------------------------------------------------------------

  // Not the wall clock, because a step of it would open the window early, or close it for an hour.
  #now(): number {
    return performance.now()
  }

  #limitAt(at: number): number {
    const steps = Math.max(0, Math.floor((at - this.#pausedUntil) / recoveryStepMs))
    return Math.min(this.#limitMax, this.#limitAfterPause + steps * this.#recoveryStep)
  }

  /** Returns the number of permits that a lane and those above it may take together. */
  #permitsOf(lane: Lane, at: number): number {
    const limit = this.#limitAt(Math.max(at, this.#pausedUntil))
    return lane === 'cancel' ? limit : Math.max(1, limit - cancelPermits)
  }

  /**
   * Returns the number of permits that a lane may take. A snapshot is followed by its placement, which does not wait long: if
   * many orders come at once and their snapshots took all permits, no placement would get one in time.
   */
  #shareOf(lane: Lane, at: number): number {
    if (lane === 'snapshot') return Math.max(1, Math.floor(this.#permitsOf(lane, at) / 2))
    if (lane === 'lookup') return Math.max(1, Math.floor(this.#limitAt(Math.max(at, this.#pausedUntil)) / 5))
    return this.#permitsOf(lane, at)
  }

  #forgetSent(at: number): void {
    this.#window.forget(at)
    for (const lane of lanes) this.#lanes[lane].window.forget(at)
  }

  // ---- estimates ------------------------------------------------------------------------------------------------------

  /** Returns when a call of `caller` in `lane` can leave if no more come. */
  #estimate(lane: Lane, caller: string | null, at: number): number {
    const { queue, window: own } = this.#lanes[lane]
    const ahead = queue.countAhead(caller)
    const ofAll = this.#findFree(this.#window, this.#permitsOf(lane, at), at, (window) =>
      this.#countLeaving(lane, ahead, window, at),
    )
    const ofShare = this.#findFree(own, this.#shareOf(lane, at), at, (window) => (window === 0 ? ahead : 0))
    return Math.max(ofAll, ofShare)
  }

  /**
   * Returns how many of those `ahead` in `lane`, and of the waiters in higher lanes, take a permit in the nth window from now.
   * Waiters beyond the share of their lane leave in a later window, and hold back nothing until then.
   */
  #countLeaving(lane: Lane, ahead: number, window: number, at: number): number {
    let leaving = 0
    for (const other of lanes) {
      const { queue, window: own } = this.#lanes[other]
      const share = this.#shareOf(other, at)
      const first = Math.max(0, share - own.count)
      const before = window === 0 ? 0 : first + (window - 1) * share
      const queued = other === lane ? ahead : queue.length
      leaving += Math.min(Math.max(0, queued - before), window === 0 ? first : share)
      if (other === lane) break
    }
    return leaving
  }

  // Exact, except for the permits that a pause took and that are still coming back.
  #findFree(window: RateWindow, permits: number, at: number, countAhead: (window: number) => number): number {
    return window.findFree(permits, at, Math.max(at, this.#pausedUntil), countAhead)
  }
}

// A snapshot goes with its placement.
function isPaced(lane: Lane): boolean {
  return lane !== 'cancel' && lane !== 'place' && lane !== 'snapshot'
}

function createLane(): LaneState {
  return { queue: new FairQueue(), window: new RateWindow() }
}

function countNone(): number {
  return 0
}

function refuse(lane: Lane, until: number, at: number): UpstreamError {
  const retryAfterMs = Math.min(Math.max(1, Math.ceil(until - at)), waitMsMax)
  return new UpstreamError('throttled', `no permit for a call (${lane}) in the rate budget in time`, {
    effect: 'none',
    retryAfterMs,
  })
}

function closedError(): UpstreamError {
  return new UpstreamError('not_sent', 'the calls to the broker are closed')
}
