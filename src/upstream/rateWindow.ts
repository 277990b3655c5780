// The calls that count against a rate: those that were sent within the last window, and those that hold a permit.

/** Length of a window in ms: a second, and a tenth of a second for calls that reach the broker closer together than they left. */
export const windowMs = 1_100

/** The calls of one lane, or of all lanes. Times are monotonic ms. */
export class RateWindow {
  /** Times of sent calls, oldest first. Those before `#start` have left the window. */
  #sentAt: number[] = []
  #start = 0
  /** Permits whose calls have not been sent yet. */
  #unsent = 0

  /** Number of calls that count. */
  get count(): number {
    return this.#sentAt.length - this.#start + this.#unsent
  }

  /** Counts a permit. */
  grant(): void {
    this.#unsent++
  }

  /** The call of a permit was sent at `at`. */
  send(at: number): void {
    this.#unsent--
    this.#sentAt.push(at)
  }

  /** A permit ends without a call. */
  giveBack(): void {
    this.#unsent--
  }

  /** Forgets the calls that left the window before `at`. */
  forget(at: number): void {
    while ((this.#sentAt[this.#start] ?? Infinity) + windowMs <= at) this.#start++
    // Removing one by one would move the whole array for each call of a high rate.
    if (this.#start * 2 < this.#sentAt.length) return
    this.#sentAt = this.#sentAt.slice(this.#start)
    this.#start = 0
  }

  /**
   * Returns when one of `permits` is free, at `base` or later, if `countAhead(n)` other calls take one in the nth window from now:
   * each permit that is taken is free a window later. Calls that have not been sent yet count as sent at `at`.
   */
  findFree(permits: number, at: number, base: number, countAhead: (window: number) => number): number {
    const { count } = this
    let index = count + countAhead(0)
    let window = 0
    while (index >= count) {
      if (index < permits) return base + window * windowMs
      window++
      index += countAhead(window) - permits
    }
    return Math.max((this.#sentAt[this.#start + index] ?? at) + window * windowMs, base + (window - 1) * windowMs)
  }
}
