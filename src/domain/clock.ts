// The clock of the writes. It is injected, so that a test can run an hour in a millisecond.

import { setTimeout as wait } from 'node:timers/promises'

/** The time that writes use. */
export interface Clock {
  /** Epoch ms of the wall clock, which may be set forward or back: for instants that are shown, stored or given by a caller. */
  now(): number
  /** Ms since the start of the process, which only grow: for deadlines and waits. */
  monotonic(): number
  /** Resolves after `ms` of `monotonic`, or at once if `signal` aborts or has aborted. Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

// Node fires timers beyond 2^31 ms at once.
const timerMsMax = 2 ** 31 - 1

/** The clock of the process. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    const until = performance.now() + ms
    try {
      for (let left = ms; left > 0; left = until - performance.now()) {
        await wait(Math.min(left, timerMsMax), undefined, signal && { signal })
      }
    } catch {
      // It was aborted; `wait` throws nothing else.
    }
  },
}

/** Returns the result of `work`, or `otherwise()` if it has not ended at `until` (monotonic ms). The work itself continues. */
export async function within<T>(clock: Clock, until: number, work: Promise<T>, otherwise: () => T): Promise<T> {
  const timer = new AbortController()
  const late = clock.sleep(until - clock.monotonic(), timer.signal).then(() => null)
  try {
    const first = await Promise.race([work.then((value) => ({ value })), late])
    return first === null ? otherwise() : first.value
  } finally {
    timer.abort()
  }
}
