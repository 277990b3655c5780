// Bluum's trading API, accounts generation: its paths, credentials, JSON and error codes, and our vocabulary. Bluum
// declares no field of an order required, its pages contradict each other, and its ids are UUIDs on one page and
// `ord_…` on the next; so nothing is taken for granted here, and nothing of it is known outside.

import { compareDecimals, expandExponent, isDecimal } from '../decimal.ts'
import { parseInstant } from '../instant.ts'
import { stateOf } from '../orders/order.ts'
import type {
  CommissionType,
  Field,
  KnownOrderStatus,
  NewOrder,
  Order,
  OrderKey,
  OrderRejectionCode,
  OrderSide,
  OrderStatus,
  OrderType,
  TimeInForce,
} from '../orders/order.ts'
import { brokerOf, isId, pageSizeMax, UpstreamError } from './broker.ts'
import type { Broker, Page, PageQuery, PageRow, PlaceAnswer } from './broker.ts'
import { createHttp } from './http.ts'
import type { Answer, Call } from './http.ts'

/** Where Bluum is and who we are there. */
export interface BluumOptions {
  /** Base URL with its version, such as `https://api.bluumfinance.com/v1`. */
  url: string
  apiKey: string
  apiSecret: string
}

// Milliseconds: the first byte of an answer, and the whole attempt with its body.
const readOneTimes = { firstByteMs: 3_000, attemptMs: 4_000 }
const readPageTimes = { firstByteMs: 5_000, attemptMs: 8_000 }
// A placement is given up late: ending the wait for an order that left makes an outcome unknown that was not.
const placeTimes = { firstByteMs: null, attemptMs: 30_000 }
const cancelTimes = { firstByteMs: 5_000, attemptMs: 8_000 }

// A broker that ignores a filter, or cuts its pages short, must not be followed through its whole history.
const callsPerPageMax = 20

/** The adapter over a pool of its own; the caller closes it. Sends nothing before it is asked. */
export function createBluum(options: BluumOptions): Broker {
  const http = createHttp({
    baseUrl: options.url,
    headers: {
      authorization: `Basic ${Buffer.from(`${options.apiKey}:${options.apiSecret}`).toString('base64')}`,
    },
  })

  async function read(call: Omit<Call, 'method'>): Promise<unknown> {
    return takeBody(await http.read({ method: 'GET', ...call }))
  }

  // Bluum, "Read one order": the path carries no account, and an order of another tenant answers 404.
  async function readOrder(key: OrderKey, signal: AbortSignal): Promise<Order | null> {
    try {
      const order = parseOrder(await read({ path: path`/trading/orders/${key.id}`, ...readOneTimes, signal }), null)
      if (order.id !== key.id) throw new UpstreamError('unreadable', 'Bluum answered with another order')
      return order
    } catch (error) {
      if (error instanceof UpstreamError && error.brokerCode === 'BLUM-404-001') return null
      throw error
    }
  }

  // Bluum, "List orders": limit and offset, one status a call, neither total nor next link. Newest first is what was
  // observed; the page documents no order.
  async function readPage(query: PageQuery, signal: AbortSignal): Promise<Page> {
    const wanted = query.first + (query.wantsMore ? 1 : 0)
    const rows: PageRow[] = []
    const seen = new Set<string>()
    let offset = query.after === null ? 0 : parsePosition(query.after)
    let limit = Math.min(pageSizeMax, wanted)
    let mustSearch = false
    for (let calls = 0; calls < callsPerPageMax; calls++) {
      const list = parseList(
        await read({
          path: path`/trading/accounts/${query.accountId}/orders`,
          query: toListQuery(query, limit, offset),
          ...readPageTimes,
          signal,
        }),
      )
      const answered = list.rows.slice(0, limit)
      // Rows that were cut off: the list goes on here, whatever the broker says of what follows its own page.
      const follows = list.rows.length > limit ? true : list.hasMore
      for (const [index, body] of answered.entries()) {
        const row = parseRow(body, query, String(offset + index + 1))
        const id = row === null ? null : toRowId(row, body)
        if (row === null || id === null || seen.has(id)) {
          mustSearch = true
          continue
        }
        seen.add(id)
        rows.push(row)
      }
      offset += answered.length
      const ended = follows === null ? answered.length < limit : !follows
      if (rows.length > query.first) return { rows: rows.slice(0, query.first), hasMore: true, isComplete: true }
      if (ended) return { rows, hasMore: false, isComplete: true }
      // Nothing, and more to come: no offset leads there, and the list has not been shown to be at its end.
      if (answered.length === 0) break
      // Where rows had to be dropped, what follows may have to be as well.
      const hasMore = mustSearch ? null : follows
      if (rows.length === query.first && (hasMore === true || !query.wantsMore)) {
        return { rows, hasMore, isComplete: true }
      }
      // Just what is missing, unless rows had to be dropped: then there may be few to find among many.
      limit = mustSearch ? pageSizeMax : Math.min(pageSizeMax, wanted - rows.length)
    }
    return { rows, hasMore: null, isComplete: false }
  }

  return {
    id: 'BLUUM',
    statuses: Object.values(statuses),
    sides: ['BUY', 'SELL'],

    orders: (keys, signal) => Promise.all(keys.map((key) => readOrder(key, signal).catch(keepUpstreamError))),
    pages: (queries, signal) => Promise.all(queries.map((query) => readPage(query, signal).catch(keepUpstreamError))),

    async accounts(signal) {
      const list = parseList(await read({ path: path`/accounts`, ...readPageTimes, signal }))
      return list.rows.flatMap((row) => (isRecord(row) && isBluumId(row.id) ? [row.id] : []))
    },

    unsupported(order) {
      if (order.side in sidesSent) return []
      return [{ field: 'side', message: 'Bluum takes BUY and SELL only.' }]
    },

    async place(order, idempotencyKey, sendBy) {
      const answer = await http.write({
        method: 'POST',
        path: path`/trading/accounts/${order.accountId}/orders`,
        headers: { 'idempotency-key': idempotencyKey },
        body: toRequest(order),
        ...placeTimes,
        sendBy,
      })
      return parsePlaceAnswer(takeBody(answer), order)
    },

    // Bluum, "Cancel an order": no body; the success status and the answer for a final order are not documented.
    async cancel(order, sendBy) {
      const answer = await http.cancel({
        method: 'POST',
        path: path`/trading/accounts/${order.account.id}/orders/${order.id}/cancel`,
        ...cancelTimes,
        sendBy,
      })
      const body = takeBody(answer)
      if (!isRecord(body) || body.id !== order.id) return null
      const canceled = readWhole(body, order.account.id)
      return canceled?.account.id === order.account.id ? canceled : null
    },

    close: () => http.close(),
  }
}

// ---- paths ------------------------------------------------------------------------------------------------------

// The one place where a path is made. Ids have been checked at the door; whoever forgot that ends here, before a `..`
// turns one call into another under the broker's key.
function path(texts: TemplateStringsArray, ...ids: string[]): string {
  return texts.reduce((made, text, index) => {
    const id = ids[index - 1] ?? ''
    if (!isId(id)) throw new RangeError('not an id: refused as a part of a path')
    return made + encodeURIComponent(id) + text
  })
}

function toListQuery(query: PageQuery, limit: number, offset: number): Record<string, string> {
  return {
    ...(query.status === null ? {} : { status: wordOf(statuses, query.status) }),
    ...(query.symbol === null ? {} : { symbol: query.symbol }),
    ...(query.side === null ? {} : { side: wordOf(sides, query.side) }),
    limit: String(limit),
    offset: String(offset),
  }
}

function parsePosition(position: string): number {
  if (!/^\d{1,9}$/.test(position)) throw new RangeError('not a position of Bluum')
  return Number(position)
}

// ---- words ------------------------------------------------------------------------------------------------------

// Bluum, "OrderStatus": there is no expired state; an unfilled day order ends as canceled.
const statuses = {
  accepted: 'ACCEPTED',
  partially_filled: 'PARTIALLY_FILLED',
  filled: 'FILLED',
  canceled: 'CANCELED',
  rejected: 'REJECTED',
} as const satisfies Record<string, KnownOrderStatus>

const sides = { buy: 'BUY', sell: 'SELL' } as const satisfies Record<string, OrderSide>
const sidesSent: Partial<Record<OrderSide, string>> = { BUY: 'buy', SELL: 'sell' }
const types = {
  market: 'MARKET',
  limit: 'LIMIT',
  stop: 'STOP',
  stop_limit: 'STOP_LIMIT',
  trailing_stop: 'TRAILING_STOP',
} as const satisfies Record<string, OrderType>
const timesInForce = {
  day: 'DAY',
  gtc: 'GTC',
  opg: 'OPG',
  cls: 'CLS',
  ioc: 'IOC',
  fok: 'FOK',
} as const satisfies Record<string, TimeInForce>
const commissionTypes = { notional: 'NOTIONAL', qty: 'QTY', bps: 'BPS' } as const satisfies Record<
  string,
  CommissionType
>

function wordOf<Ours extends string>(table: Readonly<Record<string, Ours>>, ours: string): string {
  const found = Object.entries(table).find(([, value]) => value === ours)
  if (!found) throw new RangeError(`Bluum has no word for ${ours}`)
  return found[0]
}

function parseWord<Ours extends string>(table: Readonly<Record<string, Ours>>, word: unknown): Ours | 'UNKNOWN' {
  return (typeof word === 'string' && Object.hasOwn(table, word) ? table[word] : undefined) ?? 'UNKNOWN'
}

// ---- answers ----------------------------------------------------------------------------------------------------

type Body = Readonly<Record<string, unknown>>

function isRecord(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function keepUpstreamError(error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error
  throw error
}

/** The body of a success; throws what a refusal means. */
function takeBody(answer: Answer): unknown {
  if (answer.status < 400) return answer.body
  throw toRefusal(answer)
}

// A list is a bare array in the reference and `{object, data, has_more}` in the vendor's newer pages.
function parseList(body: unknown): { rows: readonly unknown[]; hasMore: boolean | null } {
  if (Array.isArray(body)) return { rows: body, hasMore: null }
  if (isRecord(body) && Array.isArray(body.data)) {
    return { rows: body.data, hasMore: typeof body.has_more === 'boolean' ? body.has_more : null }
  }
  throw new UpstreamError('unreadable', 'Bluum answered a list that is none')
}

// Null: a row that the filter should have kept away.
function parseRow(body: unknown, query: PageQuery, position: string): PageRow | null {
  try {
    const order = parseOrder(body, query.accountId)
    if (order.account.id !== query.accountId) {
      throw new UpstreamError('unreadable', 'Bluum listed an order of another account')
    }
    if (query.status !== null && order.status !== query.status) return null
    if (query.symbol !== null && order.symbol !== query.symbol) return null
    if (query.side !== null && order.side !== query.side) return null
    return { order, position, isPartial: isRecord(body) && body.extended_hours === undefined }
  } catch (error) {
    return { order: keepUpstreamError(error), position, isPartial: true }
  }
}

function toRowId(row: PageRow, body: unknown): string {
  if (!(row.order instanceof UpstreamError)) return row.order.id
  return isRecord(body) && typeof body.id === 'string' ? body.id : `row ${row.position}`
}

/** One order. `accountId`: whose list or path it came from, null where the answer itself has to say. */
function parseOrder(body: unknown, accountId: string | null): Order {
  if (!isRecord(body)) throw new UpstreamError('unreadable', 'Bluum answered an order that is none')
  const id = requireId(body, 'id')
  const symbol = requireText(body, 'symbol')
  const owner = body.account_id === undefined || body.account_id === null ? accountId : requireId(body, 'account_id')
  if (owner === null) throw new UpstreamError('unreadable', 'Bluum answered an order without account_id')
  if (body.status === undefined || body.status === null) {
    throw new UpstreamError('unreadable', 'Bluum answered an order without status')
  }
  const status: OrderStatus = parseWord(statuses, body.status)
  const state = stateOf(status)
  return {
    id,
    broker: 'BLUUM',
    account: { id: owner, broker: 'BLUUM' },
    asset: { symbol },
    symbol,
    securityType: null,
    legs: [],
    currency: parseText(body, 'currency'),
    clientOrderId: parseText(body, 'client_order_id'),
    side: parseWord(sides, body.side),
    type: parseWord(types, body.type),
    timeInForce: parseWord(timesInForce, body.time_in_force),
    quantity: parseDecimal(body, 'qty'),
    notional: parseDecimal(body, 'notional'),
    limitPrice: parseDecimal(body, 'limit_price'),
    stopPrice: parseDecimal(body, 'stop_price'),
    trailPercent: parseDecimal(body, 'trail_percent'),
    trailPrice: parseDecimal(body, 'trail_price'),
    extendedHours: parseBoolean(body, 'extended_hours'),
    status,
    brokerStatus: typeof body.status === 'string' ? cleanText(body.status) : null,
    state,
    isCancelable: state !== 'CLOSED',
    filledQuantity: parseDecimal(body, 'filled_qty'),
    remainingQuantity: parseDecimal(body, 'remaining_qty'),
    averagePrice: zeroToNull(parseDecimal(body, 'average_price')),
    commission: parseDecimal(body, 'commission'),
    commissionType:
      body.commission_type === undefined || body.commission_type === null || body.commission_type === ''
        ? null
        : parseWord(commissionTypes, body.commission_type),
    submittedAt: parseTime(body, 'submitted_at'),
    filledAt: parseTime(body, 'filled_at'),
    canceledAt: parseTime(body, 'canceled_at'),
    rejectReason: parseText(body, 'reject_reason'),
  }
}

// What cannot be an id of ours could be shown and never be read or canceled, or would lead to another broker.
function isBluumId(id: unknown): id is string {
  return typeof id === 'string' && isId(id) && brokerOf(id) === 'BLUUM'
}

function requireId(body: Body, field: string): string {
  const value = body[field]
  if (isBluumId(value)) return value
  throw new UpstreamError('unreadable', `Bluum answered an order without a readable ${field}`)
}

function requireText(body: Body, field: string): string {
  const value = body[field]
  if (typeof value === 'string' && value !== '') return value
  throw new UpstreamError('unreadable', `Bluum answered an order without a readable ${field}`)
}

// What is absent, null or an empty string has no value: Bluum leaves fields without one out, or sends null.
function parseField<T>(body: Body, field: string, parse: (value: unknown) => T | null): Field<T> {
  const value = body[field]
  if (value === undefined || value === null || value === '') return null
  return parse(value) ?? new UpstreamError('unreadable', `Bluum answered an order whose ${field} cannot be read`)
}

function parseText(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? cleanText(value) : null))
}

// Numbers arrive as the text of their digits (http.ts), so a broker that drops the quotes loses nothing.
function parseDecimal(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? expandExponent(value) : null))
}

function parseBoolean(body: Body, field: string): Field<boolean> {
  return parseField(body, field, (value) => (typeof value === 'boolean' ? value : null))
}

function parseTime(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? parseInstant(value) : null))
}

// Bluum, "Order": average_price is '0.00' until the first fill. Nothing trades at zero.
function zeroToNull(price: Field<string>): Field<string> {
  return typeof price === 'string' && compareDecimals(price, '0') === 0 ? null : price
}

// A broker's free text: what a terminal or a log could take for a command goes, and so does what is too long to show.
function cleanText(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .slice(0, 200)
    .toWellFormed() // the cut may go through a pair of surrogates
}

// ---- placing ----------------------------------------------------------------------------------------------------

function toRequest(order: NewOrder): Record<string, unknown> {
  const body = {
    symbol: order.symbol,
    qty: order.quantity,
    notional: order.notional,
    side: wordOf(sides, order.side),
    type: wordOf(types, order.type),
    time_in_force: wordOf(timesInForce, order.timeInForce),
    limit_price: order.limitPrice,
    stop_price: order.stopPrice,
    trail_percent: order.trailPercent,
    trail_price: order.trailPrice,
    extended_hours: order.extendedHours,
    client_order_id: order.clientOrderId,
    commission: order.commission,
    commission_type: order.commissionType === null ? null : wordOf(commissionTypes, order.commissionType),
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

// Accepted only if the answer is about this order: an id, and whatever else it repeats equal to what was sent. An
// answer about another order says nothing about ours.
function parsePlaceAnswer(body: unknown, sent: NewOrder): PlaceAnswer {
  if (!isRecord(body) || !isBluumId(body.id)) {
    throw new UpstreamError('unreadable', 'Bluum answered a placement without an order id')
  }
  const request: Body = { account_id: sent.accountId, ...toRequest(sent) }
  for (const field of [...textsCompared, ...decimalsCompared]) {
    const answered = body[field]
    if (answered === undefined || answered === null || request[field] === undefined) continue
    const isDecimalField = decimalsCompared.includes(field)
    if (isDecimalField ? !equalDecimals(answered, request[field]) : answered !== request[field]) {
      throw new UpstreamError('unreadable', `Bluum answered a placement with another ${field}`)
    }
  }
  const order = readWhole(body, sent.accountId)
  return {
    orderId: body.id,
    status: order?.status ?? parseWord(statuses, body.status),
    order,
    rejectReason: typeof body.reject_reason === 'string' ? cleanText(body.reject_reason) || null : null,
  }
}

const textsCompared = ['account_id', 'symbol', 'side', 'type', 'client_order_id']
const decimalsCompared = ['qty', 'notional']

function equalDecimals(a: unknown, b: unknown): boolean {
  const left = typeof a === 'string' ? expandExponent(a) : null
  return left !== null && typeof b === 'string' && isDecimal(b) && compareDecimals(left, b) === 0
}

function readWhole(body: Body, accountId: string): Order | null {
  try {
    return parseOrder(body, accountId)
  } catch (error) {
    if (error instanceof UpstreamError) return null
    throw error
  }
}

// ---- refusals ---------------------------------------------------------------------------------------------------

// Bluum's refusals of an order, by its own codes; where a code is not listed, by its HTTP status. A code carries a
// status too (Bluum, "Error"), and one that says something else than no to this order is no refusal of it: a 422 with
// BLUM-409-001 still means that the order may exist.
const rejections: Readonly<Record<string, OrderRejectionCode>> = {
  'BLUM-403-002': 'ACCOUNT_NOT_APPROVED',
  'BLUM-403-004': 'ACCOUNT_RESTRICTED',
  'BLUM-404-001': 'ACCOUNT_NOT_FOUND',
  'BLUM-404-003': 'ASSET_NOT_FOUND',
  'BLUM-422-001': 'INSUFFICIENT_FUNDS',
  'BLUM-422-002': 'MARKET_CLOSED',
  'BLUM-422-003': 'ASSET_NOT_TRADABLE',
  'BLUM-422-004': 'INSUFFICIENT_POSITION',
  '400': 'INVALID_ORDER',
  '403': 'OTHER',
  '422': 'OTHER',
}

// These are about our key, our plan or our address, not about the order: it was not looked at.
const notAboutTheOrder = new Set(['BLUM-403-001', 'BLUM-403-003', 'BLUM-404-002', 'PRODUCT_NOT_ENABLED'])

function toRefusal(answer: Answer): UpstreamError {
  const { status } = answer
  const envelope = parseEnvelope(answer.body)
  const wait = answer.retryAfterMs === null ? {} : { retryAfterMs: answer.retryAfterMs }
  if (envelope === null) {
    // A proxy may answer 4xx after it has forwarded the request, so without Bluum's envelope a refusal proves nothing.
    const kind = status === 429 ? 'throttled' : 'unreadable'
    return new UpstreamError(kind, `HTTP ${status} without Bluum's error envelope`, {
      status,
      effect: 'unknown',
      ...wait,
    })
  }
  const { code, reason } = envelope
  const known = { status, brokerCode: code, reason }
  const text = `HTTP ${status} ${code}`
  if (status === 429) return new UpstreamError('throttled', text, { ...known, ...wait })
  // 409: the key or the order exists already, so an earlier attempt may have been taken in.
  if (status === 409) return new UpstreamError('refused', text, { ...known, effect: 'unknown' })
  if (status === 401 || status === 413 || status === 415 || notAboutTheOrder.has(code)) {
    return new UpstreamError('refused', text, known)
  }
  const codeStatus = /^BLUM-(\d{3})-/.exec(code)?.[1] ?? String(status)
  const rejection = rejections[code] ?? (rejections[codeStatus] && rejections[String(status)])
  if (rejection === undefined) return new UpstreamError('refused', text, { ...known, effect: 'unknown' })
  return new UpstreamError('refused', text, { ...known, rejection })
}

// Three shapes are in use: {code, message}, {error: {type, code, message, param}} and {status: 'error', code, message}.
// Only Bluum's own codes make one: other software in between also answers {"code": 403}.
function parseEnvelope(body: unknown): { code: string; reason: string } | null {
  if (!isRecord(body)) return null
  const inner = isRecord(body.error) ? body.error : body
  const { code, message } = inner
  if (typeof code !== 'string') return null
  if (!/^BLUM-\d{3}-\d{3}$/.test(code) && !(body.status === 'error' && /^[A-Z][A-Z_]{2,63}$/.test(code))) return null
  return { code, reason: typeof message === 'string' ? cleanText(message) : '' }
}
