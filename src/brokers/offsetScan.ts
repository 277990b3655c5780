// Searches a list with `limit` and `offset` for the order of a placement. Unlike a page, a search has to know whether it can
// have missed a row, because an order that is absent from the list is given up. So the calls overlap, and a search is
// incomplete if they do not join.
//
// A search cannot detect a row that moves from the unread part of the list into the part already read. That can happen only if
// the list is sorted by a value that changes. One search is therefore never enough.

import { compareInstants } from '../domain/instant.ts'
import { UpstreamError } from '../upstream/errors.ts'
import type { ListAnswer } from './offsetList.ts'
import { PageCap, pageCapMin } from './pageCap.ts'

/** The list of a search, and the rows it looks for. */
export interface ScanListOptions<T> {
  /** Makes one call; throws what the read throws. A row that cannot be read is an UpstreamError. */
  fetch: (offset: number, limit: number) => Promise<ListAnswer<T | UpstreamError>>
  /** Rows per call. */
  limit: number
  /** Maximum calls; the search is then incomplete. */
  callsMax: number
  /** Names the list in `cap`: same account, same filter. */
  key?: string
  /** The broker's page cap, shared by all readers of its lists; nothing is known if absent. */
  cap?: PageCap
  /** Whether every short page may be cut, even if `cap` has seen a longer one. */
  doubtsEnd: boolean
  /** An instant as `parseInstant` returns it: rows of before need not be found, but may be. */
  since: string
  /** Whether the broker is certified to list the newest row first; else the rows have to show it. */
  isNewestFirst: boolean
  /** False for a row that a filter should have kept out, where the broker ignored it. */
  isWanted: (value: T) => boolean
}

/** The result of a search. */
export interface ScanResult<T> {
  /** Each row once, as it was seen last. */
  values: T[]
  /** Whether no wanted row of `since` or later can be missing that was in the list all the while. */
  isComplete: boolean
}

// Maximum rows that may leave the list between two calls so that the pages still join.
const overlapMax = 10

/** Searches the list. Throws the errors of `fetch`; a search that throws proves nothing. */
export async function scanList<T>(options: ScanListOptions<T>): Promise<ScanResult<T>> {
  const { fetch, limit, callsMax, doubtsEnd, since, isNewestFirst, isWanted } = options
  const { key = '', cap = new PageCap() } = options
  const found = new Map<string, T>()
  const seen = new Set<string>()
  let isWhole = true
  // Whether the rows of each page stood from the newest to the oldest: pages that join are then in order together.
  let isSorted = true
  let newest: string | null = null
  let oldest: string | null = null

  const finish = (isAtEnd: boolean): ScanResult<T> => ({
    values: [...found.values()],
    isComplete: isAtEnd && isWhole,
  })

  let offset = 0
  // A short page that may be cut, until the next call: the number of its rows, and the id of the last one.
  let doubtful: { sent: number; last: string | undefined } | null = null
  for (let call = 1; call <= callsMax; call++) {
    const asked = cap.toLimit(limit)
    const { rows, sent = rows.length, hasMore, isDoubtful = false } = await fetch(offset, asked)
    if (isDoubtful) isWhole = false
    // Rows of this page that an earlier one showed prove that none between the two was stepped over.
    if (call > 1 && !rows.some(({ id, value }) => seen.has(id) && !(value instanceof UpstreamError))) isWhole = false
    const hasNew = rows.some(({ id }) => !seen.has(id))
    let before: string | null = null
    for (const { id, at, value } of rows) {
      if (value instanceof UpstreamError) {
        // A row without a readable time could be the order, unless the row itself says that it is too old.
        if (at === null || compareInstants(at, since) >= 0) isWhole = false
      } else if (isWanted(value)) {
        found.set(id, value)
      }
      if (at === null || isNewer(at, before)) isSorted = false
      newest ??= at
      oldest = before = at
      seen.add(id)
    }

    const isSeenSorted = isSorted && (isNewestFirst || isNewer(newest, oldest))
    if (doubtful !== null && hasNew) cap.learn(doubtful.sent)
    if (doubtful?.last !== undefined && !hasNew && isSeenSorted) cap.keepLastRow(key, doubtful.last)
    const verdict = cap.judge({ rows: sent, limit: asked, hasMore })
    const last = rows.at(-1)?.id
    const isKnownEnd = isSeenSorted && last !== undefined && cap.isLastRow(key, last)
    const mayBeCut = verdict === 'doubt' && !isKnownEnd
    // The broker's word that more follows counts. Its word that nothing does is not needed: that shows by itself.
    const isShort = hasMore !== true && !cap.isFull(sent, asked)
    const isDoubted = hasMore === null && hasNew && rows.length >= pageCapMin && (doubtsEnd || mayBeCut)
    if (isShort && !isDoubted) return finish(true)
    doubtful = isShort ? { sent, last } : null
    // Nothing, and more to come: no offset leads there.
    if (rows.length === 0) return finish(false)
    if (isSeenSorted && oldest !== null && compareInstants(oldest, since) < 0) return finish(true)
    // Half of a page that the broker cut short, so that the search always moves on.
    offset += rows.length - Math.min(overlapMax, Math.floor(rows.length / 2))
  }
  return finish(false)
}

function isNewer(at: string | null, than: string | null): boolean {
  return at !== null && than !== null && compareInstants(at, than) > 0
}
