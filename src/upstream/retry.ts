// Repeats of failed reads: only if a repeat can bring another outcome, and few of many that fail, because repeats help against a
// single fault and hurt a broker in trouble.

import { createRecentCount } from './breaker.ts'
import { UpstreamError } from './errors.ts'
import { isOwnDeadline, isThrottled, throttledMs } from './outcome.ts'
import type { Outcome } from './outcome.ts'
import type { ReadTimes } from './readCall.ts'

/** Maximum attempts of one read. */
export const attemptsMax = 3

// Maximum repeats in 10 s: a share of the first attempts, and a few more.
const repeatsShare = 0.1
const repeatsFree = 3

/** Decides on the repeats of one credential. */
export class RetryPolicy {
  readonly #random: () => number
  readonly #firstAttempts
  readonly #repeats

  /** `random` returns a number from 0 up to 1, `now` monotonic ms. */
  constructor(random: () => number, now: () => number = () => performance.now()) {
    this.#random = random
    this.#firstAttempts = createRecentCount(now)
    this.#repeats = createRecentCount(now)
  }

  /** Counts the first attempt of a read. */
  noteFirstAttempt(): void {
    this.#firstAttempts.add()
  }

  /**
   * Returns the wait before repeat number `repeat`, in ms; null if a repeat would bring the same outcome. The wait is random,
   * because otherwise reads that failed together would come back together.
   */
  toWait(outcome: Outcome, backoffMs: ReadTimes['backoffMs'], repeat: number): number | null {
    if (isThrottled(outcome)) return outcome.retryAfterMs ?? throttledMs
    if (!(outcome instanceof UpstreamError) || isOwnDeadline(outcome)) return null
    if (outcome.kind === 'refused' || outcome.kind === 'unreadable') return null
    const jitterMs = this.#random() * Math.min(backoffMs.longest, backoffMs.first * 2 ** (repeat - 1))
    return Math.max(jitterMs, outcome.retryAfterMs ?? 0)
  }

  /** Counts a repeat and returns true, unless there were too many in the last 10 s. */
  tryRepeat(): boolean {
    if (this.#repeats.count() + 1 > this.#firstAttempts.count() * repeatsShare + repeatsFree) return false
    this.#repeats.add()
    return true
  }
}
