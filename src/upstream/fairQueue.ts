// A queue in which callers take turns, so that a caller that asks for much does not keep the others waiting.

/** The waiters of one lane. */
export class FairQueue<Waiter extends { readonly caller: string | null }> {
  /** Waiters by caller: first the caller whose turn is next; of each caller in the order in which they came. */
  readonly #turns = new Map<string | null, Set<Waiter>>()
  #length = 0

  /** Number of waiters. */
  get length(): number {
    return this.#length
  }

  /** The waiter whose turn is next. */
  get first(): Waiter | undefined {
    const [waiters] = this.#turns.values()
    return waiters?.values().next().value
  }

  /**
   * Adds a waiter. A caller without other waiters has the last turn, also if it waited before: it cannot pass others by leaving
   * and coming back, and nothing is kept of a caller that does not wait.
   */
  add(waiter: Waiter): void {
    const own = this.#turns.get(waiter.caller)
    if (own === undefined) this.#turns.set(waiter.caller, new Set([waiter]))
    else own.add(waiter)
    this.#length++
  }

  /** Removes a waiter, if it still waits. */
  remove(waiter: Waiter): void {
    const own = this.#turns.get(waiter.caller)
    if (own?.delete(waiter) !== true) return
    if (own.size === 0) this.#turns.delete(waiter.caller)
    this.#length--
  }

  /** Moves a caller behind all others, after one of its calls has left. */
  passTurn(caller: string | null): void {
    const own = this.#turns.get(caller)
    if (own === undefined) return
    this.#turns.delete(caller)
    this.#turns.set(caller, own)
  }

  /**
   * Returns the number of waiters that leave before one that comes for `caller` now, if no more come: all of its own, and of
   * each other caller as many as it has turns until then.
   */
  countAhead(caller: string | null): number {
    const own = this.#turns.get(caller)?.size ?? 0
    let ahead = own
    // Callers whose turn is before that of `caller` have one turn more. If `caller` does not wait yet, all of them have.
    let turnsUntilThen = own + 1
    for (const [other, waiters] of this.#turns) {
      if (other === caller) turnsUntilThen = own
      else ahead += Math.min(waiters.size, turnsUntilThen)
    }
    return ahead
  }

  /** Returns all waiters. */
  *[Symbol.iterator](): Generator<Waiter> {
    for (const waiters of this.#turns.values()) yield* waiters
  }
}
