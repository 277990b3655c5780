// Learns the page cap of a broker: the most rows it puts on one page, even if `limit` is larger. A capped page in the middle of
// a list looks like the last one. So a short page counts as the last one only if the broker states that, if a longer page has
// been seen, if it has fewer than `pageCapMin` rows, or if one more call finds no rows after it.

import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'

/** Whether rows follow a page: `maybe` after a full page, `doubt` after a short one that may be cut. */
export type PageVerdict = 'end' | 'more' | 'maybe' | 'doubt'

/** A page as the broker sent it. */
interface SentPage {
  /** Number of rows, repeated ones included. */
  rows: number
  /** The `limit` of the call. */
  limit: number
  /** Whether more rows follow, as the broker states it; null if it does not. */
  hasMore: boolean | null
}

// Minimum page cap of a broker, in rows; a shorter page is never cut.
export const pageCapMin = 10

/** The page cap of one kind of list, such as orders. An adapter creates one for each kind. */
export class PageCap {
  /** Rows of the longest page seen since the cap was last learnt. */
  #longest = 0
  /** Rows of a short page that other rows followed; confirmed once another short page has the same number of rows. */
  #cap: { rows: number; isConfirmed: boolean } | null = null
  /** Digest of the last row of each list whose end is known, by the name of the list. */
  readonly #lastRows = new LRUCache<string, string>({ max: 1_000 })
  readonly #onLearn: (rows: number) => void

  /** `onLearn` is called with each cap that is learnt, in rows. */
  constructor(onLearn: (rows: number) => void = () => {}) {
    this.#onLearn = onLearn
  }

  /** Returns the limit for a call that wants `wanted` rows: at most the cap, once it is confirmed. */
  toLimit(wanted: number): number {
    return this.#cap?.isConfirmed === true ? Math.min(wanted, this.#cap.rows) : wanted
  }

  /** Returns the rows to expect for `limit`: at most the cap, confirmed or not. */
  toPageSize(limit: number): number {
    return this.#cap === null ? limit : Math.min(limit, this.#cap.rows)
  }

  /** Records a page, and returns whether rows follow it. */
  judge({ rows, limit, hasMore }: SentPage): PageVerdict {
    this.#note(rows, limit)
    if (hasMore !== null) return hasMore ? 'more' : 'end'
    if (this.isFull(rows, limit)) return 'maybe'
    return rows < pageCapMin || rows < this.#longest ? 'end' : 'doubt'
  }

  /** Whether a page with `rows` rows is as long as the broker makes a page for `limit`. */
  isFull(rows: number, limit: number): boolean {
    return rows >= this.toPageSize(limit)
  }

  /** Learns a cap of `rows`, because other rows followed a page in doubt, even if a longer page was seen before. */
  learn(rows: number): void {
    if (this.#cap !== null && this.#cap.rows <= rows) return
    // A new row at the end of a list looks like a cap, so a longer page undoes this.
    this.#cap = { rows, isConfirmed: false }
    this.#longest = rows
    this.#onLearn(rows)
  }

  /** Records that `last` is the last row of a list. Only for a list that is sorted newest first and that rows do not leave. */
  keepLastRow(list: string, last: string): void {
    this.#lastRows.set(list, toDigest(last))
  }

  isLastRow(list: string, last: string): boolean {
    return this.#lastRows.get(list) === toDigest(last)
  }

  #note(rows: number, limit: number): void {
    this.#longest = Math.max(this.#longest, rows)
    if (this.#cap === null) return
    // A full page proves only that the cap is not smaller.
    if (rows > this.#cap.rows) this.#cap = rows < limit ? { rows, isConfirmed: false } : null
    else if (rows === this.#cap.rows && rows < limit) this.#cap.isConfirmed = true
  }
}

// Keeps a digest and not the id, because a string cut from an answer may keep the whole body in memory.
function toDigest(id: string): string {
  return createHash('sha256').update(id).digest('base64url').slice(0, 16)
}
