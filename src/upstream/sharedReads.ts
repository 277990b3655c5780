// Shared reads: readers of the same thing at the same time wait for one upstream call.

import { UpstreamError } from './errors.ts'
import type { Answer } from './http.ts'
import type { ReadCall } from './readCall.ts'
import type { ReadScope, Tally } from './readScope.ts'

/** One upstream call that any number of readers wait for. */
export interface SharedRead {
  readonly key: string
  readonly call: ReadCall
  /** Epoch ms of the reader that started it. */
  readonly deadline: number
  /** The callers of its readers. It leaves in the first turn of one of them. */
  readonly callers: Set<string | null>
  /** Waits for a permit in the turn of one more caller; null unless it waits for a permit. */
  askAs: ((caller: string | null) => void) | null
  /** The tally of the reader that started it, also after that reader has left. */
  readonly tally: Tally
  readonly controller: AbortController
  /** Number of readers that wait. */
  waiting: number
  wasSent: boolean
  /** Whether it might have ended better with more time. */
  isCutShort: boolean
  readonly answer: Promise<Answer>
}

/** The reads of one credential that later readers may join. */
export class SharedReads {
  readonly #reads = new Map<string, SharedRead>()

  /**
   * Returns a read that a new reader may join, if one is under way. A lookup joins only what has not been sent, because
   * its evidence is the time of the call: an order that was placed after an earlier call would seem to be absent. A read of a
   * cancel joins only its own kind, because it waits in another lane and passes the breaker.
   */
  find(call: ReadCall, askedLane: ReadCall['lane']): SharedRead | undefined {
    const read = this.#reads.get(toKey(call))
    if (read === undefined) return undefined
    const isLookup = askedLane === 'snapshot' || askedLane === 'lookup'
    if (isLookup && read.wasSent) return undefined
    if (isLookup || call.lane === 'cancel') return read.call.lane === call.lane ? read : undefined
    return read
  }

  /** Starts a read with `run`. It replaces one that could not be joined, because the later read is the newer state. */
  start(
    call: ReadCall,
    deadline: number,
    { caller, tally }: ReadScope,
    run: (read: SharedRead) => Promise<Answer>,
  ): SharedRead {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const read: SharedRead = {
      key: toKey(call),
      call,
      deadline,
      callers: new Set([caller]),
      askAs: null,
      tally,
      controller: new AbortController(),
      waiting: 0,
      wasSent: false,
      isCutShort: false,
      answer: promise,
    }
    // All readers may have left.
    promise.catch(() => {})
    this.#reads.set(read.key, read)
    run(read)
      .finally(() => this.detach(read))
      .then(resolve, reject)
    return read
  }

  /**
   * Adds the caller of a reader that joins. Without it, a caller with one read would wait behind all reads of the caller that
   * started this one.
   */
  join(read: SharedRead, caller: string | null): void {
    if (read.callers.has(caller)) return
    read.callers.add(caller)
    read.askAs?.(caller)
  }

  /** Waits for the answer until `signal` aborts or `deadline` (epoch ms). The last reader that leaves ends the read. */
  async wait(read: SharedRead, deadline: number, signal: AbortSignal): Promise<Answer> {
    const left = Promise.withResolvers<never>()
    const onAbort = (): void => left.reject(signal.reason)
    const onDeadline = (): void => left.reject(toWaitError(read))
    // The read's own deadline ends it with a more precise error.
    const timer = deadline < read.deadline ? setTimeout(onDeadline, deadline - Date.now()) : undefined
    signal.addEventListener('abort', onAbort)
    read.waiting++
    try {
      return await Promise.race([read.answer, left.promise])
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      read.waiting--
      if (read.waiting === 0) {
        this.detach(read)
        read.controller.abort(new Error('no reader waits for it any more'))
      }
    }
  }

  /** Lets no further reader join `read`. */
  detach(read: SharedRead): void {
    if (this.#reads.get(read.key) === read) this.#reads.delete(read.key)
  }

  /**
   * Lets no further reader join the reads about one of `tags`, after a write to it. Readers that already wait asked before the
   * write ended, and may get the state before it.
   */
  detachTagged(tags: readonly string[]): void {
    for (const read of this.#reads.values()) {
      if (read.call.tags.some((tag) => tags.includes(tag))) this.detach(read)
    }
  }
}

// The order of the query does not matter. Headers count, because the answer to a refused token does not answer the next one.
function toKey({ path, query: asked, headers = {} }: ReadCall): string {
  const query = new URLSearchParams(asked)
  query.sort()
  return JSON.stringify([path, query.toString(), Object.entries(headers)])
}

// The error of a reader whose deadline passes before that of the read it joined.
function toWaitError(read: SharedRead): UpstreamError {
  if (read.wasSent) {
    return new UpstreamError('no_answer', "GET sent, no answer by the reader's deadline", { timedOut: true })
  }
  // The read still expects a permit by its own deadline, or it would have been refused.
  return new UpstreamError('throttled', "GET had no permit of the rate budget by the reader's deadline", {
    effect: 'none',
    retryAfterMs: Math.min(Math.max(1, read.deadline - Date.now()), 60_000),
  })
}
