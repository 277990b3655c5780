// The circuit breaker: after some failures calls to a broker stop for a while, and then one call, the probe, shows whether it is
// back. While a broker is down, a call costs its caller a timeout and the broker a request that it cannot serve.

/** The clock and the randomness of a breaker, for tests. */
export interface BreakerOptions {
  /** Monotonic ms; the clock of the process by default. */
  now?: () => number
  /** Returns a number from 0 up to 1; Math.random by default. */
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

/** The breaker of one kind of call at one broker. It decides; its caller asks before each call and reports the outcome. */
export interface Breaker {
  /** `closed` lets all calls pass, `open` none, `halfOpen` only the probe that `tryProbe` grants. */
  state(): BreakerState
  /** Number of openings. The outcome of a call that began before the last opening is not reported, because it is old. */
  openings(): number
  /** Ms until a call may succeed, at least 1; 0 if the breaker is closed. */
  retryAfterMs(): number
  /** Reports that a call reached the broker. Closes the breaker if it is half open; does nothing if it is open. */
  succeeded(): void
  /**
   * Records a call that did not reach the broker or found it failing, for `reason`. Opens the breaker again if it is half
   * open; does nothing if it is open.
   */
  failed(reason?: string): void
  /** Returns true for one caller while half open, which then reports with `succeeded`, `failed` or `leaveProbe`. */
  tryProbe(): boolean
  /** The probe ended without an outcome, so the next caller may be the probe. */
  leaveProbe(): void
}

const failuresInRowMax = 5
const callsMin = 20
const failedShare = 0.5
const openMsFirst = 5_000
const openMsLongest = 60_000
const openMsSpread = 0.2
// Wait that is reported while a probe is under way, because its duration is not known.
const probeMs = 1_000

/** Creates a closed breaker. It sets no timer. */
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
  // Since when the broker is down, and how often the breaker has opened since.
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
    // Failures from before it opened must not open it again.
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

/** Counts events of the last 10 s. */
export interface RecentCount {
  add(): void
  /** Returns the number of events of the last 10 s, in buckets of a second: events older than 9 s may be left out. */
  count(): number
  clear(): void
}

const bucketMs = 1_000
const bucketsMax = 10

/** Creates a count of zero. `now` returns monotonic ms. Holds at most ten numbers. */
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
