// A read of a broker, and the times of reads and writes.

import type { Lane } from './budget.ts'

/** A GET. */
export interface ReadCall {
  /** As a Call's. */
  path: string
  query?: Readonly<Record<string, string>>
  /** As a Call's. */
  headers?: Readonly<Record<string, string>>
  /** The lane of the rate budget. Reads with a scope `isForCancel` take that of cancels. */
  lane: Exclude<Lane, 'place'>
  times: ReadTimes
  /** Ids of the orders and accounts in the answer. A write to one of them makes the answer old. */
  tags: readonly string[]
}

/** Times of reads, in ms. */
export const readTimes = {
  one: { firstByteMs: 3_000, attemptMs: 4_000, callerMs: 8_000, backoffMs: { first: 100, longest: 1_000 } },
  page: { firstByteMs: 5_000, attemptMs: 8_000, callerMs: 12_000, backoffMs: { first: 200, longest: 2_000 } },
} as const satisfies Record<string, ReadTimes>

/** Times of writes, in ms. A placement waits long, because a wait that ends early makes an outcome unknown. */
export const writeTimes = {
  place: { firstByteMs: null, attemptMs: 30_000 },
  cancel: { firstByteMs: 5_000, attemptMs: 8_000 },
} as const

/** Times of a read, in ms. */
export interface ReadTimes {
  firstByteMs: number
  attemptMs: number
  /** Of all attempts and the waits between them. */
  callerMs: number
  /** Maximum wait before a repeat, which doubles from `first` to `longest`. The wait is random between 0 and that. */
  backoffMs: { first: number; longest: number }
}
