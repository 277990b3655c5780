// Takes up the placements that an earlier process left unfinished, and deletes expired records.

import type { Clock } from '../domain/clock.ts'
import { StoreError } from '../store/store.ts'
import type { Store } from '../store/store.ts'
import type { Cancels } from './cancelOrder.ts'
import { stopped } from './outcomes.ts'
import type { Placement } from './placement/placement.ts'
import type { Reconciler } from './reconciler.ts'
import type { OnTrouble, Records } from './records.ts'
import type { Unresolved } from './unresolved.ts'

interface RecoveryOptions {
  store: Store
  records: Records
  reconciler: Reconciler
  cancels: Cancels
  unresolved: Unresolved
  clock: Clock
  /** Names this process in the records. */
  owner: string
  /** Aborts when the process stops. */
  closing: AbortSignal
  onTrouble: OnTrouble
}

// Ms between two tries while the store fails.
const retryMs = { first: 250, longest: 5_000 }
const unfinishedPerPage = 200
// How long a key is kept, in ms: its record after the outcome, its tombstone after it was made.
const keptMs = { record: 90 * 86_400_000, tombstone: 180 * 86_400_000 }
const sweepMs = 3_600_000
// Maximum records deleted in one transaction.
const sweepMax = 500

/** The recovery of one process. */
export class Recovery {
  readonly #options: RecoveryOptions

  constructor(options: RecoveryOptions) {
    this.#options = options
  }

  /** Tries once to take up everything. Returns false if the store failed. */
  async tryAll(): Promise<boolean> {
    try {
      await this.#takeUpAll()
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#options.onTrouble('what was left unfinished cannot be taken up yet', error)
      return false
    }
  }

  /** Repeats `tryAll` until it succeeds or the process stops. */
  async repeat(): Promise<void> {
    const { clock, closing } = this.#options
    for (let waitMs = retryMs.first; !closing.aborted; waitMs = Math.min(waitMs * 2, retryMs.longest)) {
      await clock.sleep(waitMs, closing)
      if (closing.aborted || (await this.tryAll())) return
    }
  }

  /** Takes up one placement that an earlier process left, and returns its record. Throws StoreError. */
  async takeUp(left: Placement): Promise<Placement> {
    const { records, reconciler, cancels, unresolved, owner, onTrouble } = this.#options
    const { attempt } = left
    let current = left
    if (left.owner !== owner && left.state === 'RESERVED') {
      current = await records.change(left, { type: 'not_sent', attempt, outcome: stopped, left: false })
    }
    if (left.owner !== owner && left.state === 'SENDING') {
      current = await records.change(left, { type: 'lost', attempt, failure: { kind: 'stopped', status: null } })
    }
    if (current.state === 'UNKNOWN' || current.state === 'NOT_PLACED' || current.state === 'AMBIGUOUS') {
      reconciler.follow(current, null)
    }
    // The earlier process may have reported the placement as unknown.
    if (current.state === 'UNKNOWN' || current.state === 'AMBIGUOUS') unresolved.reported(current)
    if (current.state === 'AMBIGUOUS') {
      onTrouble(`ALARM: placement ${current.opId} waits for an operator: it is not known which order is its own`, null)
    }
    cancels.resume(current)
    return current
  }

  /** Deletes expired records and tombstones every hour, until the process stops. */
  async sweep(): Promise<void> {
    const { store, clock, closing } = this.#options
    const startedAt = clock.now() - clock.monotonic()
    while (!closing.aborted) {
      const at = clock.now()
      // Stops if the wall clock was set forward, because records would expire too early and their keys could be sent again.
      if (at - clock.monotonic() - startedAt > sweepMs) return
      const swept = await store.expire(at - keptMs.record, at - keptMs.tombstone, sweepMax).catch(() => 0)
      await clock.sleep(swept >= sweepMax ? retryMs.first : sweepMs, closing)
    }
  }

  /** Takes up all placements and cancel requests. Throws StoreError. */
  async #takeUpAll(): Promise<void> {
    const { store, cancels } = this.#options
    let after: string | null = null
    for (;;) {
      const page: Placement[] = await store.findUnfinished(after, unfinishedPerPage)
      for (const left of page) await this.takeUp(left)
      const last = page.at(-1)
      if (last === undefined || page.length < unfinishedPerPage) return await cancels.resumeKept()
      after = last.opId
    }
  }
}
