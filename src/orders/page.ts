// One page of a connection: the cursor taken apart and made, the lists of several statuses merged, the result cut.

import { createHash } from 'node:crypto'
import { pageSizeMax, UpstreamError } from '../brokers/broker.ts'
import type { Page, PageQuery, PageRow } from '../brokers/broker.ts'
import { createInputError } from '../errors.ts'
import type { Loaders } from './loaders.ts'
import { compareNewestFirst, rankOf, stateOf } from './order.ts'
import type { KnownOrderStatus, Order, OrderFilter, TradingAccount } from './order.ts'
import { isSymbol, symbolHelp } from './validate.ts'

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
 * whole page at once, so there is no second round.
 */
export async function readPage(
  loaders: Loaders,
  account: TradingAccount,
  { filter, first, after, wantsMore }: PageArguments,
): Promise<OrderConnection> {
  const size = first ?? pageSizeDefault
  if (size < 1 || size > pageSizeMax) throw createInputError(`first must be from 1 to ${pageSizeMax}.`)
  if (filter.symbol !== null && !isSymbol(filter.symbol)) throw createInputError(`filter.symbol: ${symbolHelp}`)
  const lists = toLists(loaders, account, filter)
  const positions = after === null ? lists.map(() => null) : decodeCursor(after, lists)
  const pages = await Promise.all(
    lists.map((list, index) =>
      loaders.page({
        ...list,
        after: positions[index] ?? null,
        first: size,
        // Below the maximum the one row more costs nothing, so pages that differ only in this stay one call.
        wantsMore: wantsMore || size < pageSizeMax,
      }),
    ),
  )
  return toConnection(pages, positions, size, lists, after !== null)
}

type List = Omit<PageQuery, 'after' | 'first' | 'wantsMore'>

// A broker filters by one status: so one list for each, or a single list when the filter keeps every status it has.
function toLists(loaders: Loaders, account: TradingAccount, filter: OrderFilter): List[] {
  const broker = loaders.broker(account.broker)
  const wanted = broker.statuses.filter(
    (status) =>
      (filter.statuses === null || filter.statuses.includes(status)) &&
      (filter.state === null || filter.state === stateOf(status)),
  )
  if (filter.side !== null && !broker.sides.includes(filter.side)) return []
  const all = filter.statuses === null && filter.state === null
  const statuses: (KnownOrderStatus | null)[] = all || wanted.length === broker.statuses.length ? [null] : wanted
  return statuses.map((status) => ({
    broker: broker.id,
    accountId: account.id,
    status,
    symbol: filter.symbol,
    side: filter.side,
  }))
}

function toConnection(
  pages: readonly Page[],
  start: readonly (string | null)[],
  size: number,
  lists: readonly List[],
  hasPreviousPage: boolean,
): OrderConnection {
  const positions = [...start]
  const taken = pages.map(() => 0)
  const edges: OrderConnection['edges'] = []
  while (edges.length < size) {
    const next = findNewest(pages, taken)
    if (next === null) break
    taken[next.list] = (taken[next.list] ?? 0) + 1
    positions[next.list] = next.row.position
    edges.push({ cursor: encodeCursor(positions, lists), node: next.row.order })
  }
  return {
    edges,
    nodes: edges.map((edge) => edge.node),
    pageInfo: {
      hasNextPage: pages.some((page, list) => page.rows.length > (taken[list] ?? 0) || page.hasMore === true),
      hasPreviousPage,
      startCursor: edges[0]?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
    isComplete: pages.every((page) => page.isComplete),
  }
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

// ---- cursors ----------------------------------------------------------------------------------------------------

// Version, the lists it belongs to, and where each of them goes on.
function encodeCursor(positions: readonly (string | null)[], lists: readonly List[]): string {
  return Buffer.from(JSON.stringify([1, toDigest(lists), positions])).toString('base64url')
}

function decodeCursor(cursor: string, lists: readonly List[]): (string | null)[] {
  const parsed = parseCursor(cursor)
  if (parsed === null || parsed.digest !== toDigest(lists) || parsed.positions.length !== lists.length) {
    throw createInputError(
      'after is not a cursor of this list: use an endCursor of the same account and filter, or leave it out to start again.',
      'CURSOR_INVALID',
    )
  }
  return parsed.positions
}

function parseCursor(cursor: string): { digest: unknown; positions: (string | null)[] } | null {
  if (!/^[\w-]{1,1000}$/.test(cursor)) return null
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    if (!Array.isArray(value) || value.length !== 3 || value[0] !== 1) return null
    const positions: unknown = value[2]
    if (!Array.isArray(positions)) return null
    const checked = positions.map((position) => {
      if (position === null || (typeof position === 'string' && /^\d{1,9}$/.test(position))) return position
      throw new SyntaxError('not a position')
    })
    return { digest: value[1], positions: checked }
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

function toDigest(lists: readonly List[]): string {
  return createHash('sha256').update(JSON.stringify(lists)).digest('base64url').slice(0, 16)
}
