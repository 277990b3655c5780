// On whose behalf reads are made, until when, and what they cost.

/** On whose behalf reads are made: until when they are wanted, and what they cost. One for each request. */
export interface ReadScope {
  /** Aborts when no reader waits any more; a read then throws its reason. */
  readonly signal: AbortSignal
  /** Epoch ms by which the caller wants everything. */
  readonly deadline: number
  /** The reads belong to a cancel: they go before all others, and past a breaker. */
  readonly isForCancel: boolean
  /**
   * Names the caller, because callers take turns at the rate. Null if callers need no token, and for the service's own reads; all
   * of these are one caller.
   */
  readonly caller: string | null
  readonly tally: Tally
}

/** The upstream cost of the reads of a request so far. The upstream layer counts; the answer shows it on request. */
export interface Tally {
  /** Calls that left for a broker, repeats included. */
  calls: number
  /** Total ms of the calls of reads. */
  ms: number
  /** Reads answered by a call that another request had under way. */
  shared: number
  /** Orders answered by a list instead of a call of their own. */
  batched: number
  /** Calls that repeated a failed one. */
  retried: number
}

/** A tally of nothing yet. */
export function createTally(): Tally {
  return { calls: 0, ms: 0, shared: 0, batched: 0, retried: 0 }
}
