// Reports placements without an outcome to the operator: their number, and the outcome of each that was reported as unknown.

import type { Clock } from '../domain/clock.ts'
import type { BrokerId } from '../domain/order.ts'
import { isSettled } from './placement/placement.ts'
import type { Placement } from './placement/placement.ts'
import type { Records } from './records.ts'

/** The outcome of a placement that had been reported as unknown. */
interface Resolution {
  placement: string
  broker: BrokerId
  outcome: 'PLACED' | 'REJECTED' | 'NOT_PLACED'
  /** How its order was found; null if no order was found. */
  foundBy: Placement['foundBy']
  /** Ms since the placement was first sent, or since it was recorded if it was not sent. */
  afterMs: number
}

export interface UnresolvedListener {
  /** Called with the number of placements without an outcome after each change. */
  onCount(count: number): void
  onResolved(resolution: Resolution): void
}

/** The placements without an outcome: UNKNOWN, AMBIGUOUS, and those still being sent whose caller got UNKNOWN. */
export interface Unresolved {
  count(): number
  /** Records that a caller got UNKNOWN for `placement`, from this process or possibly from an earlier one. */
  reported(placement: Placement): void
}

/** Follows all changes of placements through `records`. */
export function createUnresolved(records: Records, clock: Clock, listener: UnresolvedListener): Unresolved {
  // By placement id: whether it was reported as unknown.
  const unresolved = new Map<string, boolean>()

  function note({ opId }: Placement, isReported: boolean): void {
    const isNew = !unresolved.has(opId)
    unresolved.set(opId, isReported || unresolved.get(opId) === true)
    if (isNew) listener.onCount(unresolved.size)
  }

  records.listen((placement) => {
    const { opId, state, broker, foundBy, firstSentAt, createdAt } = placement
    if (state === 'UNKNOWN' || state === 'AMBIGUOUS') return note(placement, false)
    const isReported = unresolved.get(opId)
    if (isReported === undefined || !isSettled(placement)) return
    unresolved.delete(opId)
    if (isReported) {
      const outcome = state === 'ACCEPTED' ? 'PLACED' : state === 'REJECTED' ? 'REJECTED' : 'NOT_PLACED'
      const afterMs = clock.now() - (firstSentAt ?? createdAt)
      listener.onResolved({ placement: opId, broker, outcome, foundBy, afterMs })
    }
    listener.onCount(unresolved.size)
  })

  return {
    count: () => unresolved.size,
    reported(placement) {
      if (!isSettled(placement)) note(placement, true)
    },
  }
}
