// The placements of this process as they change. The state machine decides each change, the store keeps it with its audit row, and
// only then those that wait for it are notified.

import type { Clock } from '../domain/clock.ts'
import { StoreError } from '../store/store.ts'
import type { AuditEntry, Store } from '../store/store.ts'
import { advance, isSettled } from './placement/placement.ts'
import type { Placement, PlacementEvent, PlacementState } from './placement/placement.ts'

/** Receives what an operator should check: a bug, a contradiction, an answer that breaks the broker's contract. */
export type OnTrouble = (message: string, error: unknown) => void

/** The one way in which placements change here. */
export interface Records {
  /**
   * Keeps a new placement, whose caller acknowledges the unresolved equal orders of these keys; false when its key has
   * one. Throws StoreError, and then nothing was kept.
   */
  insert(placement: Placement, acknowledged: readonly string[], principal: AuditEntry['principal']): Promise<boolean>
  /**
   * Applies `event` to the newest state of `placement`, also if the caller knows an older one. Returns the placement after it, which is
   * unchanged if the event does not apply. Throws StoreError, and then nothing was changed.
   */
  change(placement: Placement, event: PlacementEvent, principal?: AuditEntry['principal']): Promise<Placement>
  /**
   * The same, tried until the store takes it: for what has happened and cannot be taken back. From `close` on it is
   * tried once, and resolves with the placement as it was.
   */
  insist(placement: Placement, event: PlacementEvent): Promise<Placement>
  /** Returns the placement as it is stored, and notifies the listeners if another process changed it. Throws StoreError. */
  refresh(placement: Placement): Promise<Placement>
  /**
   * The placement once its outcome is known, or as it was known last at `until` (monotonic ms). Hears only of what
   * happens in this process.
   */
  settled(placement: Placement, until: number): Promise<Placement>
  /** Calls `listener` after each change with what the placement is now, and the state that it was in before. */
  listen(listener: (placement: Placement, from: PlacementState) => void): void
  /** Lets go of who waits and of what is insisted on. */
  close(): void
}

const retryMs = { first: 100, longest: 5_000 }

/** Its creator calls `close`, before that of the store. */
export function createRecords(store: Store, clock: Clock, onTrouble: OnTrouble): Records {
  const waiting = new Map<string, Set<(placement: Placement) => void>>()
  const listeners: ((placement: Placement, from: PlacementState) => void)[] = []
  const closing = new AbortController()

  function tell(placement: Placement, from: PlacementState): void {
    if (isSettled(placement)) for (const resolve of waiting.get(placement.opId) ?? []) resolve(placement)
    for (const listener of listeners) listener(placement, from)
  }

  async function change(
    placement: Placement,
    event: PlacementEvent,
    principal: AuditEntry['principal'] = 'service',
  ): Promise<Placement> {
    let current = placement
    for (;;) {
      const at = clock.now()
      const step = advance(current, event, at)
      const next = step?.placement
      if (next === undefined) return current
      if (next !== current) {
        const { type, ...detail } = event
        const entry = { principal, from: current.state, to: next.state, detail: { event: type, ...detail } }
        if (!(await store.update(next, entry, at))) {
          const stored = await store.read(current.opId)
          if (stored === null) throw new StoreError(`placement ${current.opId} is gone`)
          if (stored.version === current.version) {
            alarm('one order of the broker is claimed by two placements', current)
            return current
          }
          // An operator may have resolved it with another process, which shows only here.
          if (stored.state !== current.state) tell(stored, current.state)
          current = stored
          continue
        }
        tell(next, current.state)
      }
      if (step?.alarm) alarm(step.alarm, next)
      return next
    }
  }

  function alarm(message: string, { opId, orderId, state }: Placement): void {
    onTrouble(`ALARM: ${message}: placement ${opId}, ${state}, order ${orderId ?? 'none'}`, null)
  }

  return {
    async insert(placement, acknowledged, principal) {
      const detail = { event: 'created', acknowledged }
      const entry = { principal, from: null, to: placement.state, detail }
      return await store.insert(placement, entry, placement.createdAt)
    },

    change,

    async insist(placement, event) {
      for (let waitMs = retryMs.first; ; waitMs = Math.min(waitMs * 2, retryMs.longest)) {
        try {
          return await change(placement, event)
        } catch (error) {
          if (!(error instanceof StoreError)) throw error
          if (waitMs === retryMs.first) onTrouble(`placement ${placement.opId} cannot be recorded; trying on`, error)
          await clock.sleep(waitMs, closing.signal)
          if (closing.signal.aborted) return placement
        }
      }
    },

    async refresh(placement) {
      const stored = (await store.read(placement.opId)) ?? placement
      if (stored.version !== placement.version) tell(stored, placement.state)
      return stored
    },

    async settled(placement, until) {
      const { opId } = placement
      const outcome = Promise.withResolvers<Placement>()
      const late = new AbortController()
      const waiters = waiting.get(opId) ?? new Set()
      waiting.set(opId, waiters.add(outcome.resolve))
      const read = async (): Promise<Placement> => (await store.read(opId).catch(() => null)) ?? placement
      try {
        // Read after it waits, or a change between the two would be missed.
        const current = await read()
        if (isSettled(current) || closing.signal.aborted) return current
        const signal = AbortSignal.any([late.signal, closing.signal])
        const isLate = clock.sleep(until - clock.monotonic(), signal).then(() => null)
        return (await Promise.race([outcome.promise, isLate])) ?? (await read())
      } finally {
        late.abort()
        waiters.delete(outcome.resolve)
        if (waiters.size === 0) waiting.delete(opId)
      }
    },

    listen: (listener) => void listeners.push(listener),

    close: () => closing.abort(),
  }
}
