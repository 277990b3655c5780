// Time as the work sees it, so that a test can run an hour in a millisecond and stop the world between two steps.

import { setTimeout as wait } from 'node:timers/promises'

/** What writes take their time from. */
export interface Clock {
  /** Epoch ms by the wall clock, which somebody may set: for instants that are shown, stored or given by a caller. */
  now(): number
  /** Ms that only ever grow, from an origin of this process: for everything that is waited for. */
  monotonic(): number
  /** Resolves after `ms`, counted by `monotonic`; at once when `signal` aborts, or has aborted. Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

// Node fires timers beyond 2^31 ms at once.
const timerMsMax = 2 ** 31 - 1

/** The process's own clock. */
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
      // Aborted: there is nothing else that it throws.
    }
  },
}

/** What `work` comes to, or `otherwise()` when it is not over at `until` (monotonic ms); the work itself goes on. */
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
