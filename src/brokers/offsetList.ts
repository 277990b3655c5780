// Reads a list with `limit` and `offset` page by page, from the newest row to the oldest, without repeating or missing a row.
// Rows move while the list is read, and its sort order is not documented.
//
// A position holds the offset of the last row, and its time and id, because the row may have moved. A page resumes at the
// offset, checks that it is next to that row, and moves until it is. The sort order is observed: a list that is sorted newest
// first is read from the front, one that is sorted oldest first from the end, whose offset is searched for once and kept.

import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { compareInstants, parseInstant } from '../domain/instant.ts'
import { PageCap, pageCapMin } from './pageCap.ts'
import type { PageVerdict } from './pageCap.ts'

/** A row with what places it in the list. */
export interface ListRow<T> {
  id: string
  /** When it was submitted, as `parseInstant` returned it; null if that is not known. */
  at: string | null
  value: T
}

/** The broker's answer for `limit` rows from `offset` on. */
export interface ListAnswer<T> {
  /** Each row once. */
  rows: ListRow<T>[]
  /** Number of rows that the broker sent, repeated ones included; the length of `rows` if absent. */
  sent?: number
  /** Whether more rows follow, as the broker states it; null if it does not. */
  hasMore: boolean | null
  /** True if the answer has no body or no rows field, which does not prove to a lookup that an order is absent. */
  isDoubtful?: boolean
}

/** Observations of an adapter about its broker's lists, kept across requests. Holds no rows. */
export interface ListMemory {
  direction: 'newestFirst' | 'oldestFirst' | null
  readonly cap: PageCap
  /** Offset of the end of each list when it was last read from its end. */
  readonly ends: LRUCache<string, number>
  /** Most rows seen of each list that rows do not leave. */
  readonly reached: LRUCache<string, number>
}

/** Creates an empty memory for at most 1,000 lists. `onCap` is called with each page cap that is learnt, in rows. */
export function createListMemory(onCap?: (rows: number) => void): ListMemory {
  return {
    direction: null,
    cap: new PageCap(onCap),
    ends: new LRUCache({ max: 1_000 }),
    reached: new LRUCache({ max: 1_000 }),
  }
}

export interface ListQuery<T> {
  /** Names the list in the memory: same account, same filter. */
  key: string
  /** Asks the broker; throws what the read throws. `limit` is at most `limitMax`. */
  fetch: (offset: number, limit: number) => Promise<ListAnswer<T>>
  limitMax: number
  /** Whether rows can enter and leave in its middle, as they do in a list of one status. */
  mayMove: boolean
  /** A position that an earlier page gave, or null for the newest row. */
  after: string | null
  /** Rows wanted, at least 1. */
  first: number
  /** Whether to find out if a row follows, even where that takes a call more. */
  wantsMore: boolean
  /** True if the rows have to be filtered here, because the broker cannot filter by all that is wanted. */
  searches: boolean
  /** Decides on a row: `end` says that it and all older rows are not wanted. */
  judge: (row: ListRow<T>) => 'take' | 'drop' | 'end'
}

export interface ListPage<T> {
  rows: { row: ListRow<T>; position: string }[]
  /** Whether a wanted row follows; null if that was not wanted and the answer does not show it. */
  hasMore: boolean | null
  /** False when the bound on calls, or a list in no order, ended the search: rows may be missing. */
  isComplete: boolean
  /** The position of the search, also without rows; null at the very start. */
  position: string | null
}

// The most calls that one page may take; a broker that ignores filters is not followed through its whole history.
const callsPerPageMax = 20

// Steps the other way, and none the known way, that show that a list has turned round.
const stepsToTurn = 3

// Maximum rows of one instant that a position names. Beyond that, offsets alone separate them.
const tiesMax = 200

interface Anchor {
  offset: number
  /** The assumed direction of the list when the offset was read. In a list of the other direction the offset is useless. */
  isUp: boolean
  /** The instant of its row; null if no row of the list has one. */
  at: string | null
  /** The rows of that instant which were given, by digest. */
  given: string[]
}

/** Reads one page. Throws RangeError for a position that this file did not make, and the errors of `fetch`. */
export async function readListPage<T>(query: ListQuery<T>, memory: ListMemory): Promise<ListPage<T>> {
  const start = query.after === null ? null : parsePosition(query.after)
  const reader = createReader(query, memory)
  const wanted = query.first + (query.wantsMore ? 1 : 0)
  const rows: ListPage<T>['rows'] = []
  const seen = new Set<string>()
  let mustSearch = query.searches
  // The last row looked at, and the last one that the page leaves behind it.
  let last = start
  let left = start
  for (;;) {
    const block = await reader.readAfter(last, mustSearch ? query.limitMax : wanted - rows.length)
    if (block === null) return finish(null, false)
    let unread = block.rows.length
    for (const { row, offset, at } of block.rows) {
      if (rows.length === wanted) break
      unread--
      // A row that is newer than the last row was added since. In an unsorted list it may still belong on the page.
      const from = reader.isSorted() ? last : start
      if (seen.has(row.id) || (from !== null && !comesAfter(at, row.id, from))) continue
      const verdict = query.judge(row)
      if (verdict === 'end') return finish(false, reader.isSorted())
      seen.add(row.id)
      last = advance(last, { offset, isUp: block.isUp, at, id: row.id })
      if (verdict === 'drop') mustSearch = true
      else rows.push({ row, position: toPosition(last) })
      if (rows.length <= query.first) left = last
    }
    if (rows.length > query.first) return finish(true, reader.isSorted())
    const isLast = block.isLast && unread === 0
    const hasMore = isLast ? false : mustSearch || unread > 0 ? null : block.hasMore
    if (isLast) return finish(hasMore, reader.isSorted())
    if (rows.length === query.first && (hasMore !== null || !query.wantsMore)) return finish(hasMore, reader.isSorted())
    // The next block begins after this one, even if the last rows of this one did not belong on the page.
    if (last !== null) last = { ...last, offset: block.edge, isUp: block.isUp }
  }

  function finish(hasMore: boolean | null, isComplete: boolean): ListPage<T> {
    return {
      rows: rows.slice(0, query.first),
      hasMore,
      isComplete,
      position: left === null ? query.after : toPosition(left),
    }
  }
}

// ---- blocks of rows, from newer to older ----------------------------------------------------------------------------

interface Block<T> {
  rows: Placed<T>[]
  /** Nothing older follows. */
  isLast: boolean
  /** Whether rows follow, where the broker or the offset says so. */
  hasMore: boolean | null
  /** The offset of the oldest row of the block. */
  edge: number
  /** Whether older rows have larger offsets: the list is sorted newest first, as far as it is known. */
  isUp: boolean
}

/** One answer, as the reader needs it. */
interface Fetched<T> {
  rows: Placed<T>[]
  hasMore: boolean | null
  verdict: PageVerdict
  /** An earlier short page that this answer proves to be the last one of the list; null otherwise. */
  whole: ShortPage<T> | null
}

/** A page with fewer rows than its limit; `start` and `end` are offsets. */
interface ShortPage<T> {
  rows: Placed<T>[]
  sent: number
  start: number
  end: number
}

function createReader<T>(query: ListQuery<T>, memory: ListMemory) {
  return new BlockReader(query, memory)
}

class BlockReader<T> {
  readonly #query: ListQuery<T>
  readonly #memory: ListMemory
  readonly #mayMove
  readonly #cap
  #calls = 0
  #isSorted = true
  #hasTurned = false
  // Most rows that this reader has seen of the list.
  #reach = 0
  // A short page that may be cut, until a later call shows what follows it.
  #doubtful: ShortPage<T> | null = null

  constructor(query: ListQuery<T>, memory: ListMemory) {
    this.#query = query
    this.#memory = memory
    const { mayMove } = query
    this.#mayMove = mayMove
    const { cap } = memory
    this.#cap = cap
  }

  isSorted() {
    return this.#isSorted
  }

  // Returns null once the bound on calls is reached.
  async #fetch(offset: number, limit: number): Promise<Fetched<T> | null> {
    if (this.#calls === callsPerPageMax) return null
    this.#calls++
    const { rows: answered, sent = answered.length, hasMore } = await this.#query.fetch(offset, limit)
    this.#observe(answered)
    const end = offset + answered.length
    const known = this.#mayMove ? 0 : (this.#memory.reached.get(this.#query.key) ?? 0)
    if (answered.length > 0) {
      this.#reach = Math.max(this.#reach, end)
      if (!this.#mayMove) this.#memory.reached.set(this.#query.key, Math.max(known, end))
    }
    const last = answered.at(-1)
    let verdict = this.#cap.judge({ rows: sent, limit, hasMore })
    // The list had more rows before, so the broker may have begun to cap its pages.
    const hadMore = known > end && sent >= pageCapMin
    if (verdict === 'end' && hasMore === null && hadMore) verdict = 'doubt'
    if (verdict === 'doubt' && this.#keepsItsEnd() && last && this.#cap.isLastRow(this.#query.key, last.id))
      verdict = 'end'
    const rows = place(answered, offset)
    const whole = this.#settleDoubt(rows, offset, limit)
    // All rows were shown before, so the broker ignores the offset and has no other rows.
    if (verdict === 'doubt' && whole !== null) verdict = 'end'
    if (verdict === 'doubt') this.#doubtful = { rows, sent, start: offset, end }
    return { rows, hasMore, verdict, whole }
  }

  // Learns the page cap if new rows follow the page in doubt. Returns that page if this answer proves it to be the last one.
  #settleDoubt(rows: readonly Placed<T>[], offset: number, limit: number): ShortPage<T> | null {
    if (this.#doubtful === null) return null
    const { rows: shown, sent, end } = this.#doubtful
    const ids = new Set(shown.map(({ row }) => row.id))
    const page = this.#doubtful
    if (rows.some((each) => each.offset >= end && !ids.has(each.row.id))) {
      this.#cap.learn(sent)
      this.#doubtful = null
      return null
    }
    if (offset > end || offset + limit <= end) return null
    this.#doubtful = null
    const last = shown.at(-1)
    if (!this.#mayMove) this.#memory.reached.set(this.#query.key, end)
    if (last && this.#keepsItsEnd()) this.#cap.keepLastRow(this.#query.key, last.row.id)
    return page
  }

  // Whether the last row of the list stays the last one.
  #keepsItsEnd(): boolean {
    return !this.#mayMove && this.#isSorted && this.#memory.direction === 'newestFirst'
  }

  #limitOf(wanted: number): number {
    return this.#cap.toLimit(Math.min(this.#query.limitMax, wanted))
  }

  #observe(rows: readonly ListRow<T>[]): void {
    const { older, newer } = countSteps(rows)
    if (older > 0 && newer > 0) this.#isSorted = false
    const observed = older > newer ? 'newestFirst' : newer > older ? 'oldestFirst' : null
    if (observed === null || observed === this.#memory.direction) return
    if (this.#memory.direction === null) {
      this.#memory.direction = observed
    } else if (this.#isSorted && !this.#hasTurned && older + newer >= stepsToTurn) {
      this.#memory.direction = observed
      this.#hasTurned = true
    } else {
      // Rather a row that is a little out of place than a list that has turned round.
      this.#isSorted = false
    }
  }

  /** The rows behind `from`, about `count` of them; some of them may stand before it. Null at the bound on calls. */
  async readAfter(from: Anchor | null, count: number): Promise<Block<T> | null> {
    const isUp = this.#memory.direction !== 'oldestFirst'
    // An offset from a list of the other direction is useless, so the rows are read from the newest one.
    const known = from?.isUp === isUp ? from : null
    const block = isUp ? await this.#readUp(known, count) : await this.#readDown(known, count)
    if (block === null || isUp === (this.#memory.direction !== 'oldestFirst')) return block && { ...block, isUp }
    // The list is sorted the other way, as only this call showed. A whole list is reversed; otherwise it is read again.
    if (isUp && block.isLast && block.rows[0]?.offset === 0) {
      return { ...block, rows: block.rows.toReversed(), isUp: false }
    }
    return await this.readAfter(from, count)
  }

  // Newest first: towards larger offsets.
  async #readUp(from: Anchor | null, count: number): Promise<Omit<Block<T>, 'isUp'> | null> {
    let start = from === null ? 0 : this.#mayMove ? from.offset : from.offset + 1
    // As much as a call can hold while the order of the list is not known: it shows in rows of different times.
    let wanted =
      this.#memory.direction === null ? this.#query.limitMax : count + (this.#mayMove && from !== null ? 1 : 0)
    for (let step = 10; ; step *= 3) {
      const answer = await this.#fetch(start, this.#limitOf(wanted))
      if (answer === null) return null
      const { rows, hasMore, verdict } = answer
      if (from !== null && this.#mayMove && start > 0 && !isJoined(rows[0], from)) {
        // Rows have left before the anchor, so the rows behind it are before its offset now.
        start = Math.max(0, start - step)
        wanted = this.#query.limitMax
        continue
      }
      // Nothing, and more to come: no offset leads there.
      if (rows.length === 0 && hasMore === true) return null
      return { rows, isLast: verdict === 'end', hasMore, edge: rows.at(-1)?.offset ?? start }
    }
  }

  // Oldest first: towards smaller offsets.
  async #readDown(from: Anchor | null, count: number): Promise<Omit<Block<T>, 'isUp'> | null> {
    if (from === null) return await this.#readEnd(count)
    // With the row it left off at, also in a list that rows only enter: one that arrives late enters in its middle.
    let end = from.offset + 1
    let size = this.#limitOf(count + 1)
    for (let step = 10; ; step = Math.min(step * 3, this.#limitOf(this.#query.limitMax) - 1)) {
      const start = Math.max(0, end - size)
      if (start === end) return { rows: [], isLast: true, hasMore: false, edge: 0 }
      const answer = await this.#fetch(start, end - start)
      if (answer === null) return null
      const { rows, hasMore, verdict } = answer
      const isShort = rows.length > 0 && rows.length < end - start
      const mayBeCut = verdict === 'maybe' || verdict === 'doubt'
      if (isShort && (hasMore === true || (mayBeCut && !isJoined(rows.at(-1), from)))) {
        // The broker cuts its pages below the limit, so the rows next to the anchor are still missing.
        size = rows.length
        continue
      }
      if (rows.length === end - start && !isJoined(rows.at(-1), from)) {
        // Rows have entered before the anchor, so the older rows are behind its offset now.
        end += step
        size = this.#limitOf(this.#query.limitMax)
        continue
      }
      return { rows: rows.toReversed(), isLast: start === 0, hasMore: start > 0, edge: start }
    }
  }

  // The newest rows of a list that is sorted oldest first: from where it ended the last time, or by doubling steps
  // until one overshoots, then halving between.
  async #readEnd(count: number): Promise<Omit<Block<T>, 'isUp'> | null> {
    // One row less than the maximum, so that a full answer is short of the limit and so shows that it is the end.
    const sizeOf = (): number => Math.min(this.#cap.toPageSize(this.#query.limitMax) - 1, count)
    let start = Math.max(this.#reach, (this.#memory.ends.get(this.#query.key) ?? 0) - sizeOf())
    let [lower, upper, step] = [this.#reach, Number.POSITIVE_INFINITY, this.#query.limitMax]
    for (;;) {
      const limit = this.#limitOf(this.#query.limitMax)
      const answer = await this.#fetch(start, limit)
      if (answer === null) return null
      const { rows, verdict, whole } = answer
      if (whole !== null && whole.end === start) return this.#toEnd(whole)
      if (rows.length > 0 && verdict === 'doubt') {
        lower = start + rows.length
        start = lower
      } else if (rows.length > 0 && verdict !== 'end') {
        lower = start + rows.length
        start = upper === Number.POSITIVE_INFINITY ? start + step : Math.floor((lower + upper) / 2)
        step *= 2
        if (upper - lower <= this.#cap.toPageSize(limit)) start = lower
      } else if (rows.length > 0 || start === 0) {
        return this.#toEnd({ rows, start })
      } else if (start > lower) {
        upper = start
        start = upper - lower <= this.#cap.toPageSize(limit) ? lower : Math.floor((lower + upper) / 2)
      } else {
        // The list ends exactly here, and the wanted rows are before it.
        start = Math.max(0, start - sizeOf())
        ;[lower, upper, step] = [start, Number.POSITIVE_INFINITY, this.#query.limitMax]
      }
    }
  }

  #toEnd({ rows, start }: Pick<ShortPage<T>, 'rows' | 'start'>): Omit<Block<T>, 'isUp'> {
    this.#memory.ends.set(this.#query.key, start + rows.length)
    return { rows: rows.toReversed(), isLast: start === 0, hasMore: start > 0, edge: start }
  }
}

// How often a run of rows steps to an older and to a newer one.
function countSteps<T>(rows: readonly ListRow<T>[]): { older: number; newer: number } {
  let older = 0
  let newer = 0
  let before: string | null = null
  for (const { at } of rows) {
    if (at === null) continue
    const difference = before === null ? 0 : compareInstants(at, before)
    if (difference < 0) older++
    if (difference > 0) newer++
    before = at
  }
  return { older, newer }
}

// ---- places ---------------------------------------------------------------------------------------------------------

interface Placed<T> {
  row: ListRow<T>
  offset: number
  at: string | null
}

// A row without a readable time takes the time of its neighbour.
function place<T>(rows: readonly ListRow<T>[], offset: number): Placed<T>[] {
  const placed = rows.map((row, index) => ({ row, offset: offset + index, at: row.at }))
  for (let index = 1; index < placed.length; index++) {
    const [before, here] = [placed[index - 1], placed[index]]
    if (here && before) here.at ??= before.at
  }
  for (let index = placed.length - 2; index >= 0; index--) {
    const [here, behind] = [placed[index], placed[index + 1]]
    if (here && behind) here.at ??= behind.at
  }
  return placed
}

// Whether a row is older than the anchor, or of the same instant and not given yet.
function comesAfter(at: string | null, id: string, anchor: Anchor): boolean {
  if (at === null || anchor.at === null) return !anchor.given.includes(toDigest(id))
  const difference = compareInstants(at, anchor.at)
  return difference < 0 || (difference === 0 && !anchor.given.includes(toDigest(id)))
}

// Whether the row shows that nothing between it and the anchor can be missing: it was given, or is newer.
function isJoined<T>(placed: Placed<T> | undefined, anchor: Anchor): boolean {
  return placed !== undefined && !comesAfter(placed.at, placed.row.id, anchor)
}

function advance(anchor: Anchor | null, row: { offset: number; isUp: boolean; at: string | null; id: string }): Anchor {
  const { offset, isUp, at, id } = row
  const isSameInstant = anchor !== null && anchor.at === at
  return { offset, isUp, at, given: [...(isSameInstant ? anchor.given : []), toDigest(id)].slice(-tiesMax) }
}

function toDigest(id: string): string {
  return createHash('sha256').update(id).digest('base64url').slice(0, 8)
}

function toPosition({ offset, isUp, at, given }: Anchor): string {
  return [isUp ? offset : `-${offset}`, at ?? '', ...given].join(' ')
}

function parsePosition(position: string): Anchor {
  const [offset = '', at = '', ...given] = position.split(' ')
  const match = /^(-?)(\d{1,9})$/.exec(offset)
  const isMade = given.length > 0 && given.every((digest) => /^[\w-]{8}$/.test(digest))
  if (!match || !isMade || (at !== '' && parseInstant(at) !== at)) throw new RangeError('not a position of a list')
  return { offset: Number(match[2]), isUp: match[1] === '', at: at === '' ? null : at, given }
}
