// How often somebody may do something, so that no caller takes from the others what all of them share.

import { LRUCache } from 'lru-cache'
import type { Clock } from './clock.ts'

/** A bound on how often, for each of many keys by itself. */
export interface Rate {
  /**
   * Takes one for `key`: 0 when it may go now, else after how many ms (from 1 on) the next one may, and nothing is
   * taken. Of keys it remembers the 10,000 that came last; one that was forgotten starts anew.
   */
  take(key: string): number
}

const keysMax = 10_000

/** `perSecond` of each key as time goes on, and up to `burst` at once, both from 1 on. */
export function createRate(perSecond: number, burst: number, clock: Pick<Clock, 'monotonic'>): Rate {
  const everyMs = 1_000 / perSecond
  // By key, the instant from which on all of its burst is there again: what it has used is the time until then.
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
