// Maps the words of brokers to ours. Brokers spell the same word differently, such as `canceled` and `Cancelled`, or
// `PENDING_CANCEL` and `pendingCancel`, so words are compared without case and separators.

import type { KnownOrderStatus, OrderStatus } from '../domain/order.ts'

type Words<Ours extends string> = Readonly<Record<string, Ours>>

// Folded spellings of each table, made on its first use.
const foldedTables = new WeakMap<object, Map<string, string>>()

/** Returns a word without case and separators. */
function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[\s._/-]+/g, '')
}

/** Maps a broker's word by `table`, in any case and with any separators; UNKNOWN if it is not text or not in the table. */
export function parseWord<Ours extends string>(table: Words<Ours>, word: unknown): Ours | 'UNKNOWN' {
  if (typeof word !== 'string' || word.length > 64) return 'UNKNOWN'
  if (Object.hasOwn(table, word)) return table[word] ?? 'UNKNOWN'
  let folded = foldedTables.get(table)
  if (folded === undefined) {
    folded = new Map(Object.entries(table).map(([key]) => [fold(key), key]))
    foldedTables.set(table, folded)
  }
  const key = folded.get(fold(word))
  return (key === undefined ? undefined : table[key]) ?? 'UNKNOWN'
}

// The status words of both generations of Bluum's API, of Alpaca, FIX and Aries. An order that waits for the next session is
// open.
const commonStatuses: Words<KnownOrderStatus> = {
  pending: 'PENDING',
  pending_new: 'PENDING',
  held: 'PENDING',
  new: 'ACCEPTED',
  accepted: 'ACCEPTED',
  accepted_for_bidding: 'ACCEPTED',
  open: 'ACCEPTED',
  working: 'ACCEPTED',
  live: 'ACCEPTED',
  done_for_day: 'ACCEPTED',
  stopped: 'ACCEPTED',
  suspended: 'ACCEPTED',
  partial: 'PARTIALLY_FILLED',
  partial_fill: 'PARTIALLY_FILLED',
  partial_filled: 'PARTIALLY_FILLED',
  partially_filled: 'PARTIALLY_FILLED',
  filled: 'FILLED',
  fully_filled: 'FILLED',
  pending_cancel: 'PENDING_CANCEL',
  cancel_pending: 'PENDING_CANCEL',
  canceling: 'PENDING_CANCEL',
  cancelling: 'PENDING_CANCEL',
  canceled: 'CANCELED',
  cancelled: 'CANCELED',
  pending_replace: 'PENDING_REPLACE',
  replace_pending: 'PENDING_REPLACE',
  replaced: 'REPLACED',
  superseded: 'REPLACED',
  rejected: 'REJECTED',
  failed: 'REJECTED',
  expired: 'EXPIRED',
}

/** Maps a status by the broker's own table, then by the words that brokers share. */
export function parseStatus(own: Words<KnownOrderStatus>, word: unknown): OrderStatus {
  const status = parseWord(own, word)
  return status === 'UNKNOWN' ? parseWord(commonStatuses, word) : status
}
