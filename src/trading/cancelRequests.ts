// Keeps the cancel requests of orders that no placement is bound to, when the broker could not be called. The store holds
// each request, and the cancel is repeated until it is settled.

import type { Clock } from '../domain/clock.ts'
import type { CancelKey, CancelRequest, Store } from '../store/store.ts'
import type { CancelOrderResult } from './outcomes.ts'
import type { OnTrouble } from './records.ts'

interface CancelRequestsOptions {
  store: Store
  clock: Clock
  /** The last is when a cancel that was never confirmed is given up, in ms after this process took it up; ascending. */
  lateMs: readonly number[]
  onTrouble: OnTrouble
  /** Cancels the order, if it belongs to the account of the request; null if its broker is not connected here. */
  cancel: (request: CancelRequest) => Promise<CancelOrderResult | null>
}

/** The kept cancel requests of a process. Its creator calls `close`. */
export interface CancelRequests {
  /**
   * Keeps `request` and cancels its order when the broker can be called. Returns false, and keeps nothing, if
   * `cancelRequestsMax` are kept already. Throws StoreError.
   */
  keep(request: CancelRequest): Promise<boolean>
  /** Deletes the cancel request of an order that is final or whose cancel was answered; does nothing without one. */
  settle(key: CancelKey): Promise<void>
  /** Carries out the cancel requests that an earlier process kept. Throws StoreError. */
  resume(): Promise<void>
  close(): Promise<void>
}

const retryMs = 5_000
const soonMs = 120_000
const unaskedMs = 60_000

export function createCancelRequests({
  store,
  clock,
  lateMs,
  onTrouble,
  cancel,
}: CancelRequestsOptions): CancelRequests {
  // The running work by broker, order and account; `over` ends it.
  const followed = new Map<string, { work: Promise<void>; over: AbortController }>()
  let isClosed = false

  function follow(request: CancelRequest): void {
    const name = toName(request)
    if (followed.has(name) || isClosed) return
    const over = new AbortController()
    const work = carryOut(request, over.signal)
      .catch((error: unknown) => onTrouble('a kept cancel request is not carried out any more', error))
      .finally(() => followed.get(name)?.over === over && followed.delete(name))
    followed.set(name, { work, over })
  }

  async function carryOut(request: CancelRequest, over: AbortSignal): Promise<void> {
    const beganAt = clock.monotonic()
    for (const dueMs of listTries(lateMs, () => true)) {
      await clock.sleep(beganAt + dueMs - clock.monotonic(), over)
      if (over.aborted) return
      const result = await cancel(request)
      if (over.aborted) return
      if (result !== null && result.outcome !== 'PENDING' && !isForLater(result)) return await settle(request)
    }
    onTrouble('ALARM: a kept cancel request was never confirmed; look for the order at the broker', null)
    await settle(request)
  }

  async function settle(key: CancelKey): Promise<void> {
    const name = toName(key)
    const kept = followed.get(name)
    if (kept === undefined) return
    followed.delete(name)
    kept.over.abort()
    await store.settleCancel(key).catch((error: unknown) => {
      // A restart repeats the cancel, which ends with the first read because the order is final.
      onTrouble('a kept cancel request could not be recorded as settled', error)
    })
  }

  return {
    async keep(request) {
      if (!(await store.keepCancel(request))) return false
      follow(request)
      return true
    },
    settle,
    async resume() {
      for (const request of await store.findCancels()) follow(request)
    },
    async close() {
      isClosed = true
      const under = [...followed.values()]
      for (const { over } of under) over.abort()
      await Promise.allSettled(under.map(({ work }) => work))
    },
  }
}

/** Whether the broker did not process the cancel, so that it must be repeated. */
function isForLater(result: CancelOrderResult): boolean {
  if (result.outcome !== 'REFUSED') return false
  return ['BROKER_UNAVAILABLE', 'RATE_LIMITED', 'SHUTTING_DOWN', 'READ_ONLY'].includes(result.refusalCode)
}

/**
 * Ms after the beginning at which an unconfirmed cancel is checked: every 5 s for two minutes, and then every minute while
 * `isUnasked`, because the cancel has not reached the broker; otherwise at `lateMs`. Ends with the last of `lateMs`.
 */
export function* listTries(lateMs: readonly number[], isUnasked: () => boolean): Generator<number> {
  let dueMs = 0
  while (dueMs < soonMs) yield (dueMs += retryMs)
  for (;;) {
    const next = lateMs.find((ms) => ms > dueMs)
    if (next === undefined) return
    dueMs = isUnasked() ? Math.min(next, dueMs + unaskedMs) : next
    yield dueMs
  }
}

function toName({ broker, orderId, accountId }: CancelKey): string {
  return JSON.stringify([broker, orderId, accountId])
}
