// Rate limits by key, so that no caller uses up the share of the others.

import { LRUCache } from 'lru-cache'
import type { Clock } from './clock.ts'

/** A rate limit for each of many keys. */
export interface Rate {
  /**
   * Takes one for `key` and returns 0 if the rate allows it now. Otherwise takes nothing, and returns the ms to wait, at
   * least 1. Remembers the 10,000 keys that were used last; a forgotten key starts again with its whole burst.
   */
  take(key: string): number
}

const keysMax = 10_000

/** Creates a limit of `perSecond` for each key, and up to `burst` at once; both at least 1. */
export function createRate(perSecond: number, burst: number, clock: Pick<Clock, 'monotonic'>): Rate {
  const everyMs = 1_000 / perSecond
  // By key, the instant at which its whole burst is available again. The time until then is the part that is used.
  const restoredAt = new LRUCache<string, number>({ max: keysMax })
  return {
    take(key) {
      const now = clock.monotonic()
      const from = Math.max(now, restoredAt.get(key) ?? now)
      const waitMs = from - now - (burst - 1) * everyMs
      if (waitMs > 0) return Math.ceil(waitMs)
      restoredAt.set(key, from + everyMs)
      return 0
    },
  }
}
