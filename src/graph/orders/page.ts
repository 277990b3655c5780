// Reads one page of a connection: plans its lists, merges their rows newest first, and cuts the page.

import { pageSizeMax } from '../../brokers/broker.ts'
import { UpstreamError } from '../../upstream/errors.ts'
import type { Boundary, Page, PageRow } from '../../brokers/broker.ts'
import { createInputError } from '../errors.ts'
import type { Cursors, List, WalkPosition } from './cursors.ts'
import type { Loaders } from './loaders.ts'
import { compareNewestFirst, rankOf, stateOf } from '../../domain/order.ts'
import type { Order, OrderFilter, TradingAccount } from '../../domain/order.ts'
import { isShownSymbol } from '../../trading/validate.ts'

/** Rows of a page by default. */
export const pageSizeDefault = 50

/** A page of an account's orders, with the fields of the graph. An order that cannot be read is the error that says why. */
export interface OrderConnection {
  edges: { cursor: string; node: Order | UpstreamError }[]
  nodes: (Order | UpstreamError)[]
  pageInfo: { hasNextPage: boolean; hasPreviousPage: boolean; startCursor: string | null; endCursor: string | null }
  isComplete: boolean
}

/** The arguments of a page; null if the caller left one out. */
export interface PageArguments {
  filter: OrderFilter
  first: number | null
  after: string | null
  /** Whether `hasNextPage` is selected. On a page of 100 it can cost one more call. */
  wantsMore: boolean
}

/**
 * Reads one page. Each list is read for the whole page, so there is no second round. Throws UpstreamError if a list cannot be
 * read, and a GraphQLError for invalid arguments.
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
  // One after the other, in the order in which an order changes its status. An order that changes it meanwhile is then in at
  // least one of the lists.
  for (const [index, list] of lists.entries()) {
    const page = await loaders.page({
      ...list,
      after: start.positions[index] ?? null,
      olderThan: start.boundary,
      first: size,
      // One more row costs nothing below the maximum. Without it, pages that differ only in this would be two calls.
      wantsMore: wantsMore || size < pageSizeMax,
    })
    pages.push(page)
  }
  return toConnection(pages, start, size, after !== null, (place) => cursors.encode(place, lists))
}

/** Returns the lists that show the orders of `filter`; none if no order can match. */
function toLists(loaders: Loaders, account: TradingAccount, filter: OrderFilter): List[] {
  const broker = loaders.broker(account.broker)
  const { features } = broker
  if (filter.side !== null && !features.sides.includes(filter.side)) return []
  // A list without a status also has the orders of an unknown status.
  const isAll = filter.statuses === null && filter.state === null
  const wanted = features.statuses.filter(
    (status) =>
      (filter.statuses === null || filter.statuses.includes(status)) &&
      (filter.state === null || filter.state === stateOf(status)),
  )
  return (isAll ? [null] : broker.planLists(wanted)).map((statuses) => ({
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
  start: WalkPosition,
  size: number,
  hasPreviousPage: boolean,
  toCursor: (place: WalkPosition) => string,
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
      // The order moved from one list to the next between the two reads. The later read is the newer state.
      known.node = order
      continue
    }
    if (!(order instanceof UpstreamError) && pages.length > 1) boundary = advance(boundary, order)
    const edge = toEdge(order, { positions: [...positions], boundary }, toCursor)
    if (!(order instanceof UpstreamError)) given.set(order.id, edge)
    edges.push(edge)
  }
  const isComplete = pages.every((page) => page.isComplete)
  // Rows that were read and did not match are not read again.
  const ends = pages.map((page, list) => (page.rows.length === taken[list] ? page.position : (positions[list] ?? null)))
  // An empty page can have a next page: its search ended early, or all its rows were dropped.
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

// A cursor is made when its field is read, because most documents select one cursor of a page.
function toEdge(
  node: Order | UpstreamError,
  place: WalkPosition,
  toCursor: (place: WalkPosition) => string,
): OrderConnection['edges'][number] {
  return {
    node,
    get cursor() {
      return toCursor(place)
    },
  }
}

// Maximum ids in a boundary. Beyond that, the positions alone separate orders of one instant.
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

// A row that cannot be read comes first, because otherwise it would hold back its list.
function isNewer(a: PageRow, b: PageRow): boolean {
  if (a.order instanceof UpstreamError) return !(b.order instanceof UpstreamError)
  if (b.order instanceof UpstreamError) return false
  return compareNewestFirst(rankOf(a.order), rankOf(b.order)) < 0
}
