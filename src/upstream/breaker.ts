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
  return new CircuitBreaker(options)
}

class CircuitBreaker implements Breaker {
  readonly #options
  readonly #now
  readonly #random
  readonly #calls
  readonly #failures
  #failuresInRow = 0
  #openUntil: number | null = null // null: closed
  #openMs = openMsFirst
  #opened = 0
  #isProbing = false
  // While the broker is down: since when, and how often the breaker has opened.
  #downSince = 0
  #openingsInRow = 0

  constructor(options: BreakerOptions = {}) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.#random = options.random ?? Math.random
    this.#calls = createRecentCount(this.#now)
    this.#failures = createRecentCount(this.#now)
  }

  openings(): number {
    return this.#opened
  }

  retryAfterMs(): number {
    if (this.#openUntil === null) return 0
    const leftMs = this.#openUntil - this.#now()
    return leftMs > 0 ? Math.ceil(leftMs) : probeMs
  }

  succeeded(): void {
    const before = this.state()
    if (before === 'open') return
    this.#failuresInRow = 0
    if (before === 'closed') {
      this.#calls.add()
      return
    }
    this.#openUntil = null
    this.#isProbing = false
    // What failed before it opened is settled; it must not open it again.
    this.#calls.clear()
    this.#failures.clear()
    this.#options.onChange?.({ state: 'closed', downMs: Math.round(this.#now() - this.#downSince) })
  }

  failed(reason?: string): void {
    const before = this.state()
    if (before === 'open') return
    if (before === 'halfOpen') {
      this.#open(Math.min(this.#openMs * 2, openMsLongest), reason ?? null)
      return
    }
    this.#failuresInRow++
    this.#calls.add()
    this.#failures.add()
    const isMostlyFailing =
      this.#calls.count() >= callsMin && this.#failures.count() >= this.#calls.count() * failedShare
    if (this.#failuresInRow >= failuresInRowMax || isMostlyFailing) this.#open(openMsFirst, reason ?? null)
  }

  tryProbe(): boolean {
    if (this.#isProbing || this.state() !== 'halfOpen') return false
    this.#isProbing = true
    return true
  }

  leaveProbe(): void {
    this.#isProbing = false
  }

  state(): BreakerState {
    if (this.#openUntil === null) return 'closed'
    return this.#now() < this.#openUntil ? 'open' : 'halfOpen'
  }

  #open(ms: number, reason: string | null): void {
    if (this.#openUntil === null) {
      this.#downSince = this.#now()
      this.#openingsInRow = 0
    }
    this.#openingsInRow++
    this.#openMs = ms
    this.#openUntil = this.#now() + ms * (1 - openMsSpread + 2 * openMsSpread * this.#random())
    this.#opened++
    this.#isProbing = false
    this.#options.onChange?.({
      state: 'open',
      reason,
      openMs: Math.ceil(this.#openUntil - this.#now()),
      openings: this.#openingsInRow,
    })
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
