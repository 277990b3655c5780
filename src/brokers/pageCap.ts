// The most rows that a broker puts on one page, whatever `limit` asks for. A broker that caps its pages and says nothing
// of it sends a short page in the middle of a list, which looks like the end. A short page is taken for the end only if
// the broker says so, if a longer page has been seen, or if nothing follows it; so the doubt costs one call, and none
// once a longer page has been seen.

import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'

/** What a page says about the rest of its list: `maybe` for a full page, `doubt` for a short one that may be cut. */
export type PageVerdict = 'end' | 'more' | 'maybe' | 'doubt'

/** A page as the broker sent it. */
interface SentPage {
  /** Rows, repeated ones included. */
  rows: number
  /** Rows asked for. */
  limit: number
  /** The broker's word; null if it gives none. */
  hasMore: boolean | null
}

// No broker caps its pages below this.
export const pageCapMin = 10

/** What has been learnt of the pages of one kind of list, such as the orders of accounts. Made once for each adapter. */
export class PageCap {
  /** Rows of the longest page seen. */
  #longest = 0
  /** Rows of a page that others followed though it was short; confirmed once a second page has ended at the same count. */
  #cap: { rows: number; isConfirmed: boolean } | null = null
  /** The last row of lists whose end was looked up, as a digest, by the name of the list. */
  readonly #lastRows = new LRUCache<string, string>({ max: 1_000 })
  readonly #onLearn: (rows: number) => void

  /** `onLearn` is called with the cap when it has been learnt. */
  constructor(onLearn: (rows: number) => void = () => {}) {
    this.#onLearn = onLearn
  }

  /** Rows to ask for, where `wanted` are wanted: no more than the broker sends. */
  toLimit(wanted: number): number {
    return this.#cap?.isConfirmed === true ? Math.min(wanted, this.#cap.rows) : wanted
  }

  /** Rows to expect on a page of `limit`: a cap counts here also while it is not confirmed. */
  toPageSize(limit: number): number {
    return this.#cap === null ? limit : Math.min(limit, this.#cap.rows)
  }

  /** Takes note of a page, and says whether the list goes on behind it. */
  judge({ rows, limit, hasMore }: SentPage): PageVerdict {
    this.#note(rows, limit)
    if (hasMore !== null) return hasMore ? 'more' : 'end'
    if (this.isFull(rows, limit)) return 'maybe'
    return rows < pageCapMin || rows < this.#longest ? 'end' : 'doubt'
  }

  /** Whether a page of so many rows holds all that the broker puts on one. */
  isFull(rows: number, limit: number): boolean {
    return rows >= this.toPageSize(limit)
  }

  /** Rows followed a page in doubt, whatever longer pages were seen before. */
  learn(rows: number): void {
    if (this.#cap !== null && this.#cap.rows <= rows) return
    // A row that came meanwhile looks the same in a list that grows at its end, so a longer page takes this back.
    this.#cap = { rows, isConfirmed: false }
    this.#longest = rows
    this.#onLearn(rows)
  }

  /** Nothing followed the row `last` of a list that is sorted newest first, out of which no row moves. */
  keepLastRow(list: string, last: string): void {
    this.#lastRows.set(list, toDigest(last))
  }

  isLastRow(list: string, last: string): boolean {
    return this.#lastRows.get(list) === toDigest(last)
  }

  #note(rows: number, limit: number): void {
    this.#longest = Math.max(this.#longest, rows)
    if (this.#cap === null) return
    // A full page says of the cap only that it is not smaller.
    if (rows > this.#cap.rows) this.#cap = rows < limit ? { rows, isConfirmed: false } : null
    else if (rows === this.#cap.rows && rows < limit) this.#cap.isConfirmed = true
  }
}

// A string out of an answer can keep the whole of its body in memory.
function toDigest(id: string): string {
  return createHash('sha256').update(id).digest('base64url').slice(0, 16)
}
