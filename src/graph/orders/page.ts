// One page of a connection: the cursor taken apart and made, the lists of several statuses merged, the result cut.

import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import { pageSizeMax } from '../../brokers/broker.ts'
import { UpstreamError } from '../../upstream/errors.ts'
import type { Boundary, Page, PageQuery, PageRow } from '../../brokers/broker.ts'
import { createInputError } from '../errors.ts'
import type { Loaders } from './loaders.ts'
import { compareNewestFirst, rankOf, stateOf } from '../../domain/order.ts'
import type { Order, OrderFilter, TradingAccount } from '../../domain/order.ts'
import { isShownSymbol } from '../../trading/validate.ts'

const pageSizeDefault = 50

/** A page of an account's orders as the graph shows it. An order that cannot be read is the error that says why. */
export interface OrderConnection {
  edges: { cursor: string; node: Order | UpstreamError }[]
  nodes: (Order | UpstreamError)[]
  pageInfo: { hasNextPage: boolean; hasPreviousPage: boolean; startCursor: string | null; endCursor: string | null }
  isComplete: boolean
}

/** What a page is asked with; null where the caller left it out. */
export interface PageArguments {
  filter: OrderFilter
  first: number | null
  after: string | null
  /** Whether `hasNextPage` was selected: on a full page it can cost one call more. */
  wantsMore: boolean
}

/**
 * Reads one page. Throws UpstreamError, and a GraphQLError for arguments that cannot be used. Asks every list for the
 * whole page, so there is no second round.
 */
export async function readPage(
  { loaders, cursors }: { loaders: Loaders; cursors: Cursors },
  account: TradingAccount,
  { filter, first, after, wantsMore }: PageArguments,
): Promise<OrderConnection> {
  const size = first ?? pageSizeDefault
  if (size < 1 || size > pageSizeMax) throw createInputError(`first must be from 1 to ${pageSizeMax}.`)
  if (filter.symbol !== null && !isShownSymbol(filter.symbol)) {
    throw createInputError(
      '`filter.symbol` must be a symbol as orders show it: 1 to 200 printable characters, without leading or trailing blanks.',
    )
  }
  const lists = toLists(loaders, account, filter)
  const start = after === null ? { positions: lists.map(() => null), boundary: null } : cursors.decode(after, lists)
  const pages: Page[] = []
  // One after the other, in the order in which an order moves on: one that moves meanwhile is then seen at least once.
  for (const [index, list] of lists.entries()) {
    const page = await loaders.page({
      ...list,
      after: start.positions[index] ?? null,
      olderThan: start.boundary,
      first: size,
      // Below the maximum the one row more costs nothing, so pages that differ only in this stay one call.
      wantsMore: wantsMore || size < pageSizeMax,
    })
    pages.push(page)
  }
  return toConnection(pages, start, size, after !== null, (place) => cursors.encode(place, lists))
}

type List = Omit<PageQuery, 'after' | 'olderThan' | 'first' | 'wantsMore'>

/** Where a walk stands in its lists. */
interface Place {
  positions: readonly (string | null)[]
  /** Kept where there are several lists, because an order can move from one to another. */
  boundary: Boundary | null
}

// Where the broker filters by status it does so by one, so one list for each; else, and without a filter, a single one,
// which also has the orders of an unknown status.
function toLists(loaders: Loaders, account: TradingAccount, filter: OrderFilter): List[] {
  const broker = loaders.broker(account.broker)
  const { offer } = broker
  const wanted = offer.statuses.filter(
    (status) =>
      (filter.statuses === null || filter.statuses.includes(status)) &&
      (filter.state === null || filter.state === stateOf(status)),
  )
  if (filter.side !== null && !offer.sides.includes(filter.side)) return []
  const isAll = filter.statuses === null && filter.state === null
  const isSplit = offer.filters.includes('status')
  const lists = isAll ? [null] : isSplit ? wanted.map((status) => [status]) : wanted.length > 0 ? [wanted] : []
  return lists.map((statuses) => ({
    broker: broker.id,
    accountId: account.id,
    statuses,
    symbol: filter.symbol,
    side: filter.side,
    submittedAfter: filter.submittedAfter,
    submittedBefore: filter.submittedBefore,
  }))
}

function toConnection(
  pages: readonly Page[],
  start: Place,
  size: number,
  hasPreviousPage: boolean,
  toCursor: (place: Place) => string,
): OrderConnection {
  const positions = [...start.positions]
  const taken = pages.map(() => 0)
  const given = new Map<string, OrderConnection['edges'][number]>()
  const edges: OrderConnection['edges'] = []
  let boundary = start.boundary
  while (edges.length < size) {
    const next = findNewest(pages, taken)
    if (next === null) break
    const { order, position } = next.row
    taken[next.list] = (taken[next.list] ?? 0) + 1
    positions[next.list] = position
    const known = order instanceof UpstreamError ? undefined : given.get(order.id)
    if (known) {
      // It moved from one list to the next between the two reads; the later one is what holds.
      known.node = order
      continue
    }
    if (!(order instanceof UpstreamError) && pages.length > 1) boundary = advance(boundary, order)
    const edge = toEdge(order, { positions: [...positions], boundary }, toCursor)
    if (!(order instanceof UpstreamError)) given.set(order.id, edge)
    edges.push(edge)
  }
  const isComplete = pages.every((page) => page.isComplete)
  // What was looked at need not be looked at again, whether or not anything was found there.
  const ends = pages.map((page, list) => (page.rows.length === taken[list] ? page.position : (positions[list] ?? null)))
  // A page can be empty and be followed: a search that ended early, or rows that were old and have been dropped.
  const mayFollow = !isComplete || pages.some((page) => page.hasMore === true)
  return {
    edges,
    nodes: edges.map((edge) => edge.node),
    pageInfo: {
      hasPreviousPage,
      hasNextPage: pages.some((page, list) => page.rows.length > (taken[list] ?? 0) || page.hasMore === true),
      get startCursor() {
        return edges[0]?.cursor ?? null
      },
      get endCursor() {
        const isAtLastEdge = edges.length > 0 ? isComplete : !mayFollow
        return isAtLastEdge ? (edges.at(-1)?.cursor ?? null) : toCursor({ positions: ends, boundary })
      },
    },
    isComplete,
  }
}

// A cursor is made when it is read: most documents select one of a page.
function toEdge(
  node: Order | UpstreamError,
  place: Place,
  toCursor: (place: Place) => string,
): OrderConnection['edges'][number] {
  return {
    node,
    get cursor() {
      return toCursor(place)
    },
  }
}

// More orders of one instant are told apart by the positions alone.
const boundaryIdsMax = 100

function advance(boundary: Boundary | null, order: Order): Boundary | null {
  const at = rankOf(order).submittedAt
  if (at === null) return boundary
  const ids = boundary?.at === at ? boundary.ids : []
  return { at, ids: [...ids, order.id].slice(-boundaryIdsMax) }
}

function findNewest(pages: readonly Page[], taken: readonly number[]): { list: number; row: PageRow } | null {
  let newest: { list: number; row: PageRow } | null = null
  for (const [list, page] of pages.entries()) {
    const row = page.rows[taken[list] ?? 0]
    if (row && (newest === null || isNewer(row, newest.row))) newest = { list, row }
  }
  return newest
}

// A row that cannot be read goes first: it must not hold back the list it stands in.
function isNewer(a: PageRow, b: PageRow): boolean {
  if (a.order instanceof UpstreamError) return !(b.order instanceof UpstreamError)
  if (b.order instanceof UpstreamError) return false
  return compareNewestFirst(rankOf(a.order), rankOf(b.order)) < 0
}

// ---- cursors --------------------------------------------------------------------------------------------------------

/** Writes and reads cursors: opaque, bound to their lists, and ours alone. Made once per process. */
export interface Cursors {
  encode(place: Place, lists: readonly List[]): string
  /** Throws a GraphQLError, CURSOR_INVALID, for what is not a cursor of these lists. */
  decode(cursor: string, lists: readonly List[]): Place
}

const version = 1
const signatureBytes = 12
// What a page of several lists with long ties needs at most.
const cursorCharactersMax = 30_000

/**
 * Cursors under a key that `secret` gives: the same secret reads them after a restart and in every replica, and without
 * it nobody can make one.
 */
export function createCursors(secret: string): Cursors {
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'blotter cursor', 32))

  function sign(text: string, lists: readonly List[]): Buffer {
    return createHmac('sha256', key)
      .update(JSON.stringify([version, lists]))
      .update(text)
      .digest()
      .subarray(0, signatureBytes)
  }

  return {
    encode({ positions, boundary }, lists) {
      const text = JSON.stringify([positions, boundary])
      return Buffer.concat([Buffer.from([version]), sign(text, lists), Buffer.from(text)]).toString('base64url')
    },

    decode(cursor, lists) {
      const bytes = Buffer.from(cursor.slice(0, cursorCharactersMax), 'base64url')
      // The decoder passes over what is no base64url; here a cursor has one spelling.
      const place = bytes.toString('base64url') === cursor ? open(bytes, lists) : null
      if (place !== null) return place
      throw createInputError(
        'after is not a cursor of this list: use an endCursor of the same account and filter, or leave it out to start again.',
        'CURSOR_INVALID',
      )
    },
  }

  function open(bytes: Buffer, lists: readonly List[]): Place | null {
    const signature = bytes.subarray(1, 1 + signatureBytes)
    const text = bytes.subarray(1 + signatureBytes).toString()
    if (bytes[0] !== version || signature.length !== signatureBytes) return null
    if (!timingSafeEqual(signature, sign(text, lists))) return null
    // What carries the signature was written above.
    const [positions, boundary]: [Place['positions'], Place['boundary']] = JSON.parse(text)
    return { positions, boundary }
  }
}
