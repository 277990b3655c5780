// The rate budget of one credential. A broker counts the requests of a key pair, whoever they are for, so all calls of
// a credential pass here, and those that matter more pass first. A call that cannot leave in time hears so at once:
// waiting for a refusal helps nobody, and it keeps the queue as short as the time that its callers have.

import { UpstreamError } from './broker.ts'

// The most urgent first.
const lanes = ['cancel', 'place', 'lookup', 'one', 'list'] as const
/** What a call is for, and so how urgent it is: cancel, place, lookup, read of one, list. */
export type Lane = (typeof lanes)[number]

/** How much the broker grants. */
export interface BudgetOptions {
  /**
   * The rate that the broker grants the credential, in requests a second; 80 % of it are used, but at least 1. Below 4
   * too few are left to keep places for cancels: those then only go first.
   */
  perSecond: number
}

/**
 * Where a call counts against the rate: from when it is granted until a window after it was sent, since a connection may
 * take its time and the broker counts what arrives. Whoever holds one calls `release` in the end, sent or not.
 */
export interface Place {
  /** The headers leave now. Only the first call does anything, and none after `release`. */
  sent(): void
  /** The call is over: one that was never sent gives its place back at once. Does nothing after `sent`. */
  release(): void
}

/** The places in time in which the calls of one credential may leave. */
export interface Budget {
  /**
   * Resolves when a call may leave, which it should then do at once. The higher lane goes first, in a lane the one that
   * came first. Rejects with an UpstreamError, `throttled` with the effect `none` and a `retryAfterMs` of 1 to 60,000,
   * at once if the place cannot come by `deadline` (epoch ms) and else when the deadline passes; a deadline more than
   * 60 s away counts as one in 60 s. Rejects with the reason of `signal` when that aborts, which frees the place.
   *
   * No lane holds more waiters than the places that come within 60 s, 55 × the limit, since one more is refused.
   */
  acquire(lane: Lane, deadline: number, signal?: AbortSignal): Promise<Place>
  /**
   * The broker said 429: none is granted for `ms` (at most 60,000), no cancel either, and then half as many as before.
   * What was taken away comes back step by step within 20 s. The 429s of one burst halve once.
   */
  pause(ms: number): void
  /** Refuses who waits and who comes, as `not_sent`, and leaves no timer behind. */
  close(): void
}

interface Waiter {
  lane: Lane
  /** By the clock of `performance.now`, as are all times in here but the deadlines that come in. */
  deadline: number
  /** It may go. */
  resolve: (place: Place) => void
  /** Its deadline has passed. */
  expire: () => void
  reject: (error: unknown) => void
}

// A second as the broker may see it: what travels slowly, and is followed by something prompt, comes closer than it left.
const windowMs = 1_100
const waitMsMax = 60_000
const pauseMsMax = 60_000
// Other lanes leave these free at any time, so that a cancel never queues behind a flood of reads.
const cancelPlaces = 2
const recoveryStepMs = 1_000
const recoveryStepsMax = 20

/** Whoever made it calls `close`. */
export function createBudget(options: BudgetOptions): Budget {
  const limitMax = Math.max(1, Math.floor((options.perSecond * 4) / 5))
  // Halved to fewer, they would leave no lane but that of the cancels a place.
  const limitMin = limitMax > cancelPlaces ? cancelPlaces + 1 : 1
  const recoveryStep = Math.ceil(limitMax / recoveryStepsMax)
  const queues = new Map<Lane, Set<Waiter>>(lanes.map((lane) => [lane, new Set()]))
  // When the calls of the last window were sent, oldest first. With those granted and not yet sent, never more than
  // `limitMax`.
  const sentAt: number[] = []
  let unsent = 0
  let unsentReads = 0
  let lastPacedAt = -Infinity
  let pausedUntil = -Infinity
  let limitAfterPause = limitMax
  let halvedAt = -Infinity
  let timer: NodeJS.Timeout | undefined
  let isClosed = false

  // Not the wall clock: a step of it would open the window early, or shut it for an hour.
  const now = (): number => performance.now()

  function limitAt(at: number): number {
    const steps = Math.max(0, Math.floor((at - pausedUntil) / recoveryStepMs))
    return Math.min(limitMax, limitAfterPause + steps * recoveryStep)
  }

  function placesOf(lane: Lane, at: number): number {
    const limit = limitAt(Math.max(at, pausedUntil))
    return lane === 'cancel' ? limit : Math.max(1, limit - cancelPlaces)
  }

  function forgetSent(at: number): void {
    while (sentAt[0] !== undefined && sentAt[0] + windowMs <= at) sentAt.shift()
  }

  const countTaken = (): number => sentAt.length + unsent

  // When the window has a place for a call of `lane`, if `ahead` others go before it and no more come: each place that
  // is taken comes free a window later. Exact but for the places that a pause took and that are still coming back, and for
  // the calls that are not sent yet: they are expected to be sent now.
  function estimate(lane: Lane, ahead: number, at: number): number {
    const base = Math.max(at, pausedUntil)
    const places = placesOf(lane, at)
    const taken = countTaken()
    let index = taken + ahead
    let waitMs = 0
    while (index >= taken) {
      if (index < places) return base + waitMs
      index -= places
      waitMs += windowMs
    }
    return Math.max((sentAt[index] ?? at) + waitMs, base + waitMs - windowMs)
  }

  // Reads that take the last quarter of the places leave one by one. Leaving all at once, they would come free all at
  // once a second later, for ever, and a placement that comes between would find no place for the whole of it.
  function paceAt(lane: Lane, at: number): number {
    if (!isRead(lane)) return at
    const places = placesOf(lane, at)
    const atOnce = Math.max(1, Math.floor(places * 0.75))
    // Nor do they take it while so many reads are not sent: where the connections for reads hang, no read leaves any
    // sooner for its place, and placements, which have connections of their own, would find none.
    if (unsentReads >= atOnce) return at + windowMs
    if (countTaken() < atOnce) return at
    return lastPacedAt + windowMs / places
  }

  function countAhead(lane: Lane): number {
    let ahead = 0
    for (const [other, queue] of queues) {
      ahead += queue.size
      if (other === lane) break
    }
    return ahead
  }

  function refuse(lane: Lane, until: number, at: number): UpstreamError {
    const retryAfterMs = Math.min(Math.max(1, Math.ceil(until - at)), waitMsMax)
    return new UpstreamError('throttled', `no place for a call (${lane}) in the rate budget in time`, {
      effect: 'none',
      retryAfterMs,
    })
  }

  function findNext(): Waiter | undefined {
    for (const queue of queues.values()) for (const waiter of queue) return waiter
    return undefined
  }

  function takePlace(lane: Lane): Place {
    const read = isRead(lane) ? 1 : 0
    let isUnsent = true
    unsent++
    unsentReads += read
    const end = (wasSent: boolean): void => {
      if (!isUnsent) return
      isUnsent = false
      unsent--
      unsentReads -= read
      if (wasSent) sentAt.push(now())
      pump()
    }
    return { sent: () => end(true), release: () => end(false) }
  }

  /** Lets leave what may, and wakes up again when the next one may. */
  function pump(): void {
    clearTimeout(timer)
    for (;;) {
      const at = now()
      forgetSent(at)
      // No lower lane may leave before it: what holds back a lane holds back those below as well.
      const next = findNext()
      if (next === undefined) return
      // Its timer is late, as after a pause of the process.
      if (next.deadline <= at) {
        next.expire()
        continue
      }
      const readyAt = Math.max(estimate(next.lane, 0, at), paceAt(next.lane, at))
      if (readyAt > at) {
        timer = setTimeout(pump, Math.ceil(readyAt - at))
        return
      }
      if (isRead(next.lane)) lastPacedAt = at
      next.resolve(takePlace(next.lane))
    }
  }

  function acquire(lane: Lane, deadline: number, signal?: AbortSignal): Promise<Place> {
    return new Promise((resolve, reject) => {
      const at = now()
      const leftMs = Math.min(deadline - Date.now(), waitMsMax)
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      if (isClosed) {
        reject(closedError())
        return
      }
      forgetSent(at)
      const ahead = countAhead(lane)
      const expected = estimate(lane, ahead, at)
      if (expected >= at + leftMs) {
        reject(refuse(lane, expected, at))
        return
      }

      const queue = queues.get(lane)
      const waiter: Waiter = {
        lane,
        deadline: at + leftMs,
        resolve(place) {
          leave()
          resolve(place)
        },
        expire() {
          const lateAt = now()
          forgetSent(lateAt)
          waiter.reject(refuse(lane, estimate(lane, countAhead(lane), lateAt), lateAt))
        },
        reject(error) {
          leave()
          reject(error)
        },
      }
      const leave = (): void => {
        queue?.delete(waiter)
        clearTimeout(deadlineTimer)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        waiter.reject(signal?.reason)
        pump()
      }
      const onDeadline = (): void => {
        waiter.expire()
        pump()
      }
      const deadlineTimer = setTimeout(onDeadline, leftMs)
      signal?.addEventListener('abort', onAbort)
      queue?.add(waiter)
      pump()
    })
  }

  return {
    acquire,

    pause(ms) {
      const at = now()
      // Calls that left before the first 429 came back tell of the same excess, not of a new one.
      if (at >= Math.max(pausedUntil, halvedAt + windowMs)) {
        limitAfterPause = Math.max(limitMin, Math.floor(limitAt(at) / 2))
        halvedAt = at
        pausedUntil = at
      }
      pausedUntil = Math.max(pausedUntil, at + Math.min(Math.max(0, ms), pauseMsMax))
      pump()
    },

    close() {
      isClosed = true
      clearTimeout(timer)
      for (const queue of queues.values()) for (const waiter of queue) waiter.reject(closedError())
    },
  }
}

function isRead(lane: Lane): boolean {
  return lane !== 'cancel' && lane !== 'place'
}

function closedError(): UpstreamError {
  return new UpstreamError('not_sent', 'the calls to the broker are closed')
}
