// The interface of a dialect, and what all dialects share: the rate limit, the effect of a rule on a list, and a few words. A dialect
// is the paths, credentials, words and envelopes of one broker's document.

import type { Exchange } from './exchange.ts'
import type { Account, Order } from './orders.ts'
import type { Whims } from './faults.ts'

/** A request as it came. */
export interface Asked {
  method: string
  /** Path and query, as on the request line. */
  url: string
  /** Null when the body was larger than we read. */
  body: string | null
}

export interface BrokerRequest extends Asked {
  /** Lower-case names. */
  headers: Readonly<Record<string, string>>
  whims: Whims
}

export interface Answer {
  status: number
  headers: Record<string, string>
  /** A JSON value. */
  body: unknown
}

export interface Dialect {
  /** Answers one request. Never throws for a caller's mistake. All its changes are one transaction. */
  answer(request: BrokerRequest): Answer
  /** Whether the request asks for a new order. */
  places(method: string, url: string): boolean
  /** Another channel places the order that a request asks for, without a client order id. It may be refused. */
  placeTwin(asked: Asked): void
  /** The broker's own words for a 429 or a 5xx. */
  refuse(status: number, message: string): Answer
  /** Those whose orders this dialect tells of. */
  accounts(): readonly Account[]
  /** Returns the id of an order in this dialect. */
  idOf(order: Order): string
  toOrderJson(order: Order): Record<string, unknown>
}

export const bodyBytesMax = 65_536
export const decimalPattern = /^-?\d+(\.\d+)?$/
export const decimalLengthMax = 100
/** How far behind the lags and how late the delays of the switches are, on the exchange's clock. */
export const lagOfSwitchesMs = 2000
export const laterMs = 1000

/** Examples of every broker show whole seconds, and milliseconds in places; both appear here, as the time has them. */
export function toTime(ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z')
}

export function isOneOf<T>(values: readonly T[], value: unknown): value is T {
  return values.some((known) => known === value)
}

export function isPositive(decimal: string): boolean {
  return !decimal.startsWith('-') && /[1-9]/.test(decimal)
}

export function succeed(body: unknown, status = 200): Answer {
  return { status, headers: {}, body }
}

/**
 * The rate limit of one credential: no more requests than allowed in any second of the exchange's clock. No broker
 * documents how it counts. Ours: what was refused does not count.
 */
export function createRateLimit(exchange: Exchange, requestsPerSecond: number) {
  const admitted: number[] = [] // times of the last second's requests, oldest first
  return {
    /** Counts a request, unless it is one too many. `wish` takes the place of the usual limit. */
    admit(wish: number | null): { over: boolean; perSecond: number; remaining: number; resetsAt: number } {
      const perSecond = wish ?? requestsPerSecond
      const at = exchange.clock()
      while (admitted[0] !== undefined && admitted[0] <= at - 1000) admitted.shift()
      const over = admitted.length >= perSecond
      if (!over) admitted.push(at)
      const remaining = Math.max(0, perSecond - admitted.length)
      return { over, perSecond, remaining, resetsAt: (admitted[0] ?? at) + 1000 }
    },
  }
}

/**
 * Returns a page of a list with too many rows: half of the additional rows are the next ones of the list; the others repeat its
 * first ones, each next to the original. `read` reads a page of a number of rows.
 */
export function withExtraRows<Page extends { rows: Order[] }>(
  limit: number,
  { extraRows }: Whims,
  read: (limit: number) => Page,
): Page {
  const repeated = Math.ceil(extraRows / 2)
  const page = read(limit + extraRows - repeated)
  return { ...page, rows: page.rows.flatMap((order, index) => (index < repeated ? [order, order] : [order])) }
}
