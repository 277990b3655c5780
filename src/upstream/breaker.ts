// Whether a broker is worth calling at all. While it is down, a call costs its caller a timeout and the broker a
// request that it cannot serve; so after some failures nobody calls for a while, and then one call finds out.

/** What a breaker does not take from the process. */
export interface BreakerOptions {
  /** Milliseconds of any clock that does not step back; the process's monotonic one unless told. */
  now?: () => number
  /** From 0 up to 1; Math.random unless told. */
  random?: () => number
  /** Called after the breaker opens or closes; must not throw. */
  onChange?: (change: BreakerChange) => void
}

/** A change of a breaker's state. */
export type BreakerChange =
  /** `openings` counts from 1 since the breaker was last closed; each later one followed a trial call that failed. */
  | { readonly state: 'open'; readonly reason: string | null; readonly openMs: number; readonly openings: number }
  /** `downMs`: ms since the breaker first opened. */
  | { readonly state: 'closed'; readonly downMs: number }

type BreakerState = 'closed' | 'open' | 'halfOpen'

/** The breaker of one kind of call at one broker. It only decides; to ask it, and to tell it, is the caller's. */
export interface Breaker {
  /** `closed`: call. `open`: do not. `halfOpen`: only who gets `tryProbe` does. */
  state(): BreakerState
  /** How often it has opened. What came of a call that began before the last opening tells nothing new. */
  openings(): number
  /** Milliseconds until a call is worth a try, at least 1; 0 while closed. */
  retryAfterMs(): number
  /** A call reached the broker. Closes it when half open; tells nothing while open. */
  succeeded(): void
  /**
   * Records a call that did not reach the broker or found it failing, for `reason`. Opens the breaker again if it is half
   * open; does nothing if it is open.
   */
  failed(reason?: string): void
  /** True for one caller while half open, who then reports by `succeeded`, `failed` or `leaveProbe`. */
  tryProbe(): boolean
  /** The probe ended without telling anything: the next caller may be it. */
  leaveProbe(): void
}

const failuresInRowMax = 5
const callsMin = 20
const failedShare = 0.5
const openMsFirst = 5_000
const openMsLongest = 60_000
const openMsSpread = 0.2
// A probe is out, and how long it takes is not known.
const probeMs = 1_000

/** Closed at first. Holds no timer. */
export function createBreaker(options: BreakerOptions = {}): Breaker {
  const now = options.now ?? (() => performance.now())
  const random = options.random ?? Math.random
  const calls = createRecentCount(now)
  const failures = createRecentCount(now)
  let failuresInRow = 0
  let openUntil: number | null = null // null: closed
  let openMs = openMsFirst
  let opened = 0
  let isProbing = false
  // While the broker is down: since when, and how often the breaker has opened.
  let downSince = 0
  let openingsInRow = 0

  function state(): BreakerState {
    if (openUntil === null) return 'closed'
    return now() < openUntil ? 'open' : 'halfOpen'
  }

  function open(ms: number, reason: string | null): void {
    if (openUntil === null) {
      downSince = now()
      openingsInRow = 0
    }
    openingsInRow++
    openMs = ms
    openUntil = now() + ms * (1 - openMsSpread + 2 * openMsSpread * random())
    opened++
    isProbing = false
    options.onChange?.({ state: 'open', reason, openMs: Math.ceil(openUntil - now()), openings: openingsInRow })
  }

  return {
    state,
    openings: () => opened,

    retryAfterMs() {
      if (openUntil === null) return 0
      const leftMs = openUntil - now()
      return leftMs > 0 ? Math.ceil(leftMs) : probeMs
    },

    succeeded() {
      const before = state()
      if (before === 'open') return
      failuresInRow = 0
      if (before === 'closed') {
        calls.add()
        return
      }
      openUntil = null
      isProbing = false
      // What failed before it opened is settled; it must not open it again.
      calls.clear()
      failures.clear()
      options.onChange?.({ state: 'closed', downMs: Math.round(now() - downSince) })
    },

    failed(reason) {
      const before = state()
      if (before === 'open') return
      if (before === 'halfOpen') {
        open(Math.min(openMs * 2, openMsLongest), reason ?? null)
        return
      }
      failuresInRow++
      calls.add()
      failures.add()
      const isMostlyFailing = calls.count() >= callsMin && failures.count() >= calls.count() * failedShare
      if (failuresInRow >= failuresInRowMax || isMostlyFailing) open(openMsFirst, reason ?? null)
    },

    tryProbe() {
      if (isProbing || state() !== 'halfOpen') return false
      isProbing = true
      return true
    },

    leaveProbe() {
      isProbing = false
    },
  }
}

/** A breaker that never opens. */
export function createClosedBreaker(): Breaker {
  return {
    state: () => 'closed',
    openings: () => 0,
    retryAfterMs: () => 0,
    succeeded() {},
    failed() {},
    tryProbe: () => false,
    leaveProbe() {},
  }
}

/** How often something happened lately. */
export interface RecentCount {
  add(): void
  /** Of the last 10 s, to the second: what is older than 9 s may be left out. */
  count(): number
  clear(): void
}

const bucketMs = 1_000
const bucketsMax = 10

/** Zero at first; `now` in milliseconds. Holds ten numbers, however much happens. */
export function createRecentCount(now: () => number): RecentCount {
  const counts = new Map<number, number>() // by bucket, oldest first

  function forget(): number {
    const current = Math.floor(now() / bucketMs)
    for (const bucket of counts.keys()) {
      if (bucket > current - bucketsMax) break
      counts.delete(bucket)
    }
    return current
  }

  return {
    add() {
      const current = forget()
      counts.set(current, (counts.get(current) ?? 0) + 1)
    },
    count() {
      forget()
      let sum = 0
      for (const count of counts.values()) sum += count
      return sum
    },
    clear: () => counts.clear(),
  }
}
