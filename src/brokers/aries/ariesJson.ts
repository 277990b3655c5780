// Translates Aries' JSON: words, orders, requests and refusals. Pure.
//
// After Aries' pages of 2026-06: "Place an order", "Request order cancellation", "Active orders", "Order history". They publish no
// error body for orders, and do not say whether a refusal of an order has a status of its own.

import { compareDecimals, subtractDecimals } from '../../domain/decimal.ts'
import { stateOf } from '../../domain/order.ts'
import { isIdPart } from '../../domain/ids.ts'
import { accountName, orderNames, toAriesId } from './ids.ts'
import type {
  Field,
  KnownOrderStatus,
  NewOrder,
  OptionRight,
  Order,
  OrderLeg,
  OrderRejectionCode,
  OrderSide,
  OrderStatus,
  OrderType,
  SecurityType,
  TimeInForce,
} from '../../domain/order.ts'
import { findUnsupported } from '../broker.ts'
import { keepUpstreamError, UpstreamError } from '../../upstream/errors.ts'
import type { BrokerFeatures, CancelTarget, PlaceAnswer, Rejection, Unsupported } from '../broker.ts'
import {
  cleanText,
  equalDecimals,
  isAbsent,
  isBody,
  parseDecimal,
  parseOptionalWord,
  parseText,
  parseTime,
  requireText,
  wordOf,
  zeroToNull,
} from '../fields.ts'
import type { Body } from '../fields.ts'
import type { Answer } from '../../upstream/http.ts'
import { parseStatus, parseWord } from '../words.ts'

/** The name of the account in requests. The newer pages have the second name. */
export type AriesAccountField = 'accountId' | 'tradingAccountId'

/** The features of this API. */
export const ariesFeatures: BrokerFeatures = {
  name: 'Aries',
  statuses: [
    'PENDING',
    'ACCEPTED',
    'PARTIALLY_FILLED',
    'PENDING_CANCEL',
    'PENDING_REPLACE',
    'FILLED',
    'CANCELED',
    'REJECTED',
    'EXPIRED',
    'REPLACED',
  ],
  sides: ['BUY', 'SELL', 'SELL_SHORT', 'BUY_TO_COVER'],
  types: ['MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT'],
  timesInForce: ['DAY', 'GTC', 'OPG', 'CLS', 'IOC', 'FOK'],
  extras: ['extendedHours'],
  filters: ['submitted'],
  readsOne: 'inLists',
}

// ---- words ------------------------------------------------------------------------------------------------------

// Pending cancels and replaces are announced without their spelling; these are FIX's. WORKING is of the oldest list.
const statuses: Readonly<Record<string, KnownOrderStatus>> = {
  PENDING_NEW: 'PENDING',
  NEW: 'ACCEPTED',
  WORKING: 'ACCEPTED',
  PARTIALLY_FILLED: 'PARTIALLY_FILLED',
  PENDING_CANCEL: 'PENDING_CANCEL',
  PENDING_REPLACE: 'PENDING_REPLACE',
  FILLED: 'FILLED',
  CANCELED: 'CANCELED',
  REJECTED: 'REJECTED',
  EXPIRED: 'EXPIRED',
  REPLACED: 'REPLACED',
  SUPERSEDED: 'REPLACED',
}
const sides = {
  BUY: 'BUY',
  SELL: 'SELL',
  SELL_SHORT: 'SELL_SHORT',
  BUY_TO_COVER: 'BUY_TO_COVER',
} as const satisfies Record<string, OrderSide>
const legSides: Readonly<Record<string, OrderSide>> = { ...sides, B: 'BUY', S: 'SELL' }
const types = {
  MARKET: 'MARKET',
  LIMIT: 'LIMIT',
  STOP: 'STOP',
  STOP_LIMIT: 'STOP_LIMIT',
} as const satisfies Record<string, OrderType>
// "The last three appear on some pages only."
const timesInForce = {
  DAY: 'DAY',
  GTC: 'GTC',
  IOC: 'IOC',
  FOK: 'FOK',
  EXTENDED_HOURS: 'DAY',
  AT_THE_OPENING: 'OPG',
  AT_THE_CLOSE: 'CLS',
} as const satisfies Record<string, TimeInForce>
const extendedHours = 'EXTENDED_HOURS'
const extendedWords = { [extendedHours]: 'DAY' } as const
const securityTypes = { CS: 'EQUITY', OPT: 'OPTION', EQUITY: 'EQUITY' } as const satisfies Record<string, SecurityType>
const rights = { CALL: 'CALL', PUT: 'PUT', C: 'CALL', P: 'PUT' } as const satisfies Record<string, OptionRight>
// Aries documents no list of reasons. This one is from an example.
const rejections: Readonly<Record<string, OrderRejectionCode>> = {
  INSUFFICIENT_BUYING_POWER: 'INSUFFICIENT_FUNDS',
}

// ---- orders -----------------------------------------------------------------------------------------------------

/** Returns one order of the lists of `accountId`, or why the row cannot be read. */
export function readOrder(body: unknown, accountId: string): Order | UpstreamError {
  try {
    return parseOrder(body, accountId)
  } catch (error) {
    return keepUpstreamError(error)
  }
}

/** Parses one order of the lists of `accountId`. Throws UpstreamError if it is not an order. */
function parseOrder(body: unknown, accountId: string): Order {
  if (!isBody(body)) throw new UpstreamError('unreadable', 'Aries answered something that is not an order')
  const { clOrdId } = body
  if (!isIdPart(clOrdId)) throw new UpstreamError('unreadable', 'Aries answered an order without a readable clOrdId')
  const told = body['accountId'] ?? body['tradingAccountId']
  if (told !== undefined && told !== null && told !== accountName(accountId)) {
    throw new UpstreamError('unreadable', 'Aries listed an order of another account')
  }
  const symbol = requireText(body, 'symbol')
  const word = body['ordStatus']
  if (word === undefined || word === null) {
    throw new UpstreamError('unreadable', 'Aries answered an order without ordStatus')
  }
  const status = parseStatus(statuses, word)
  const state = stateOf(status)
  const quantity = parseDecimal(body, 'qty')
  const filledQuantity = parseDecimal(body, 'cumQty')
  const timeInForce = parseWord(timesInForce, body['timeInForce'])
  const securityType = parseOptionalWord(securityTypes, body['securityType'])
  return {
    id: toAriesId(accountName(accountId), clOrdId),
    broker: 'ARIES',
    account: { id: accountId, broker: 'ARIES' },
    // The symbol of an option is the ticker of its underlying.
    asset: securityType === 'OPTION' ? null : { symbol },
    symbol,
    securityType,
    legs: parseLegs(body['legs']),
    currency: parseText(body, 'currency'),
    clientOrderId: parseText(body, 'clientId'),
    side: parseWord(sides, body['side']),
    type: parseWord(types, body['type']),
    timeInForce,
    quantity,
    notional: null,
    limitPrice: parseDecimal(body, 'price'),
    stopPrice: parseDecimal(body, 'stopPrice'),
    trailPercent: null,
    trailPrice: null,
    extendedHours: timeInForce === 'UNKNOWN' ? null : parseWord(extendedWords, body['timeInForce']) === 'DAY',
    status,
    brokerStatus: typeof word === 'string' ? cleanText(word) : null,
    state,
    isCancelable: state !== 'CLOSED',
    filledQuantity,
    remainingQuantity: state === 'CLOSED' ? subtract(quantity, filledQuantity) : parseDecimal(body, 'leavesQty'),
    averagePrice: zeroToNull(parseDecimal(body, 'avgPrice')),
    commission: null,
    commissionType: null,
    submittedAt: parseTime(body, 'createdAt'),
    // It tells when the order last changed, not when it filled.
    filledAt: null,
    canceledAt: null,
    rejectReason: status === 'REJECTED' ? readReason(body) : null,
    isPartial: false,
  }
}

// `leavesQty` is what is open, and so 0 once an order is final; what had not filled then is the difference.
function subtract(quantity: Field<string>, filled: Field<string>): Field<string> {
  if (typeof quantity !== 'string' || typeof filled !== 'string') return null
  return compareDecimals(filled, quantity) <= 0 ? subtractDecimals(quantity, filled) : null
}

function parseLegs(legs: unknown): OrderLeg[] {
  return Array.isArray(legs) ? legs.filter(isBody).map(parseLeg) : []
}

function parseLeg(leg: Body): OrderLeg {
  const { securityType, side, putCall, maturity } = leg
  return {
    symbol: readable(parseText(leg, 'symbol')),
    securityType: parseOptionalWord(securityTypes, securityType),
    side: parseOptionalWord(legSides, side),
    ratio: readable(parseDecimal(leg, 'ratioQty')),
    right: parseOptionalWord(rights, putCall),
    strikePrice: readable(parseDecimal(leg, 'strikePrice')),
    expiration: typeof maturity === 'string' && /^\d{4}-\d{2}-\d{2}$/.test(maturity) ? maturity : null,
  }
}

function readable(value: Field<string>): string | null {
  return value instanceof Error ? null : value
}

function readReason(body: Body): string | null {
  const { text, ordRejReason } = body
  for (const words of [text, ordRejReason]) {
    const reason = typeof words === 'string' ? cleanText(words) : ''
    if (reason !== '') return reason
  }
  return null
}

// ---- lists ------------------------------------------------------------------------------------------------------

/** A list of orders or accounts. */
export interface AriesList {
  rows: readonly unknown[]
  nextCursor: unknown
  /**
   * How an empty list came that does not state that it is empty: `noContent` for a 204, `doubtful` for an answer without a body
   * or without its rows, which proves less. Null for all other lists.
   */
  emptiness: 'noContent' | 'doubtful' | null
}

/**
 * Parses a list. An empty list may be an array, null, an envelope with null or without rows, a 204 or no body. Throws
 * UpstreamError if the body is not a list.
 */
export function parseList(body: unknown, status: number, name: 'orders' | 'accounts'): AriesList {
  if (body === undefined) {
    return { rows: [], nextCursor: null, emptiness: status === 204 ? 'noContent' : 'doubtful' }
  }
  if (body === null || (Array.isArray(body) && body.length === 0))
    return { rows: [], nextCursor: null, emptiness: null }
  if (isBody(body)) {
    const { nextCursor } = body
    const rows = body[name]
    if (Array.isArray(rows)) return { rows, nextCursor, emptiness: null }
    if (rows === null || (rows === undefined && body['data'] === null)) return { rows: [], nextCursor, emptiness: null }
    // Aries may leave out a field without a value.
    if (rows === undefined && nextCursor !== undefined) return { rows: [], nextCursor, emptiness: 'doubtful' }
  }
  throw new UpstreamError('unreadable', `Aries answered something that is not a list of ${name}`)
}

/**
 * Returns the cursor of the next page; null at the end, which Aries writes as 0, null, empty text, or an empty page without the
 * field. Throws UpstreamError if the field holds anything else that is not a cursor.
 */
export function parseNextCursor({ rows, nextCursor }: AriesList): string | null {
  if (nextCursor === null || nextCursor === '') return null
  if (nextCursor === undefined && rows.length === 0) return null
  if (typeof nextCursor === 'string' && /^\d{1,20}$/.test(nextCursor))
    return /^0+$/.test(nextCursor) ? null : nextCursor
  throw new UpstreamError('unreadable', 'Aries answered a list without a readable nextCursor')
}

// ---- placing ----------------------------------------------------------------------------------------------------

// The OSI symbol of an option, which the newer release takes in the place of a ticker.
const optionSymbol = /^[A-Z]{1,6}\d{6}[CP]\d{8}$/

/** Returns the fields of `order` that Aries does not support, as `Broker.unsupported`. */
export function findUnsupportedByAries(order: NewOrder): Unsupported[] {
  const { symbol, timeInForce, extendedHours: isExtended } = order
  const found = findUnsupported(ariesFeatures, order)
  if (isExtended === true && timeInForce !== 'DAY') {
    found.push({ field: 'extendedHours', message: 'Aries takes extended hours with DAY only.' })
  }
  if (optionSymbol.test(symbol)) {
    found.push({ field: 'symbol', message: 'Options cannot be placed here; give the ticker of a share or fund.' })
  }
  return found
}

/** Throws RangeError for what `findUnsupportedByAries` names: left out, it would make another order. */
export function toRequest(order: NewOrder, accountField: AriesAccountField): Record<string, unknown> {
  if (findUnsupportedByAries(order).length > 0) throw new RangeError('an order that Aries does not take')
  const body = {
    [accountField]: accountName(order.accountId),
    symbol: order.symbol,
    side: wordOf(sides, order.side),
    type: wordOf(types, order.type),
    qty: order.quantity,
    price: order.limitPrice,
    stopPrice: order.stopPrice,
    timeInForce: order.extendedHours === true ? extendedHours : wordOf(timesInForce, order.timeInForce),
    // Aries names its orders itself; this is where ours shows, if it shows.
    clientId: order.clientOrderId,
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

/**
 * Parses the answer to a placement; Aries' example has neither account nor type. The caller has to judge whether the answer is
 * about the order that was sent. The documents do not say whether a refusal may come with HTTP status 200. An answer counts as
 * one if its order status is REJECTED, or if it has no known status, `success: false` and a reason. Throws UpstreamError if the
 * answer cannot be read, names another account, or is a refusal without an order id.
 */
export function parsePlaceAnswer(body: unknown, sent: NewOrder): PlaceAnswer {
  if (!isBody(body)) throw new UpstreamError('unreadable', 'Aries answered a placement with no object')
  const { qty, success, clOrdId, clientId } = body
  const account = accountName(sent.accountId)
  if ([body['accountId'], body['tradingAccountId']].some((name) => !isAbsent(name) && name !== account)) {
    throw new UpstreamError('unreadable', 'Aries answered a placement with another account')
  }
  const { symbol, side, type } = sent
  const shows = { symbol: body['symbol'], side: parseWord(sides, body['side']), type: parseWord(types, body['type']) }
  const differing = Object.entries({ symbol, side, type })
    .filter(([field, value]) => !isAbsent(body[field]) && new Map(Object.entries(shows)).get(field) !== value)
    .map(([field]) => field)
  if (!isAbsent(qty) && !equalDecimals(qty, sent.quantity)) differing.push('qty')
  // Aries writes a field without a value as empty text.
  const clientOrderId = isAbsent(clientId) ? null : typeof clientId === 'string' ? clientId : ''
  const shown = { clientOrderId, differing }
  const status = parseStatus(statuses, body['status'])
  const isRefused = isRefusal(body, status)
  if (isIdPart(clOrdId) && (isRefused || (success === true && status !== 'REJECTED'))) {
    const order = toPlacedOrder(body, sent, isRefused)
    const orderId = toAriesId(account, clOrdId)
    if (isRefused) return { ...shown, orderId, status: 'REJECTED', order, rejection: toRejection(body) }
    return { ...shown, orderId, status, order, rejection: null }
  }
  if (!isRefused) throw new UpstreamError('unreadable', 'Aries answered a placement without success or clOrdId')
  // A refusal that repeats other values than were sent may be about another order, and it has no order id to read.
  if (differing.length > 0 || (clientOrderId !== null && clientOrderId !== sent.clientOrderId)) {
    throw new UpstreamError('unreadable', 'Aries refused another order than was sent')
  }
  const { code, brokerCode, reason } = toRejection(body)
  throw new UpstreamError('refused', 'Aries refused an order', {
    status: 200,
    rejection: code,
    ...(brokerCode === null ? {} : { brokerCode }),
    ...(reason === null ? {} : { reason }),
  })
}

// An answer that contradicts itself is not a refusal: an order that has filled or has another status exists.
function isRefusal(body: Body, status: OrderStatus): boolean {
  const filled = parseDecimal(body, 'cumQty')
  if (typeof filled === 'string' && compareDecimals(filled, '0') !== 0) return false
  return status === 'REJECTED' || (status === 'UNKNOWN' && body['success'] === false && readRejectCode(body) !== null)
}

// Fields that the answer leaves out have the values that were sent. Without legs it is an equity order. A list shows its currency.
function toPlacedOrder(body: Body, sent: NewOrder, isRefused: boolean): Order | null {
  const { clientId, type, timeInForce, price, stopPrice, qty, symbol, side } = toRequest(sent, 'accountId')
  const row = {
    clientId,
    type,
    timeInForce,
    price,
    stopPrice,
    qty,
    symbol,
    side,
    securityType: 'CS',
    createdAt: body['transactTime'],
    ...Object.fromEntries(Object.entries(body).filter(([, value]) => !isAbsent(value))),
    ordStatus: isRefused ? 'REJECTED' : body['status'],
  }
  const order = readOrder(row, sent.accountId)
  return order instanceof UpstreamError ? null : { ...order, isPartial: true }
}

function toRejection(body: Body): Rejection {
  const brokerCode = readRejectCode(body)
  const code = parseWord(rejections, brokerCode)
  return { code: code === 'UNKNOWN' ? 'OTHER' : code, brokerCode, reason: readReason(body) }
}

function readRejectCode({ ordRejReason }: Body): string | null {
  return typeof ordRejReason === 'string' ? cleanText(ordRejReason) || null : null
}

// ---- canceling --------------------------------------------------------------------------------------------------

/** All of it from the order: "the account and symbol have to match the original order". */
export function toCancelRequest(order: CancelTarget, accountField: AriesAccountField): Record<string, unknown> {
  const [account, origClOrdId] = orderNames(order.id)
  const { side, securityType, legs } = order
  const [leg, ...others] = legs
  // A cancel has room for one leg, and no page tells what one of a spread holds: that is named by its id alone.
  const option = leg !== undefined && others.length === 0 ? leg : null
  const body = {
    origClOrdId,
    [accountField]: account,
    symbol: order.symbol,
    side: side === 'UNKNOWN' ? null : wordOf(sides, side),
    securityType: securityType === null || securityType === 'UNKNOWN' ? null : wordOf(securityTypes, securityType),
    putCall: option?.right === undefined || option.right === 'UNKNOWN' ? null : option.right,
    strikePrice: option?.strikePrice ?? null,
    maturity: option?.expiration ?? null,
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

/**
 * Checks the answer to a cancel. Its status does not matter, because the order is read. Throws UpstreamError if the broker refused
 * or answered something else; its effect is `unknown` in both cases.
 */
export function checkCancelAnswer(body: unknown, { id }: Pick<Order, 'id'>): void {
  const { success, origClOrdId } = isBody(body) ? body : {}
  const isOther = !isAbsent(origClOrdId) && origClOrdId !== orderNames(id)[1]
  if (!isBody(body) || isOther || typeof success !== 'boolean') {
    throw new UpstreamError('unreadable', 'Aries answered a cancel with something else')
  }
  if (success) return
  const reason = readReason(body)
  throw new UpstreamError('refused', 'Aries refused a cancel', {
    status: 200,
    // An earlier one may have been taken in, and be why.
    effect: 'unknown',
    ...(reason === null ? {} : { reason }),
  })
}

// ---- refusals ---------------------------------------------------------------------------------------------------

type Purpose = 'read' | 'place' | 'cancel'

/** The body of a success; throws the UpstreamError that a refusal means, which for a 404 depends on `purpose`. */
export function takeBody(answer: Answer, purpose: Purpose): unknown {
  if (answer.status < 400) return answer.body
  throw toRefusal(answer, purpose)
}

// The one shape of an error, `{error, message}`, is of an older page about users; none is published for orders. Only the
// words that it has for each status, with a message, make it Aries': other software in between answers in such a shape too.
const errorWords = new Map([
  [400, 'bad_request'],
  [401, 'unauthorized'],
  [403, 'forbidden'],
  [404, 'not_found'],
  [429, 'rate_limited'],
])

/** Whether Aries refused the token itself, which proves that it did not process the request. */
export function isTokenRefused(answer: Answer): boolean {
  return readErrorWord(answer) === 'unauthorized'
}

function readErrorWord({ status, body }: Answer): string | null {
  const { error: word, message } = isBody(body) ? body : {}
  return typeof word === 'string' && typeof message === 'string' && errorWords.get(status) === word ? word : null
}

function toRefusal(answer: Answer, purpose: Purpose): UpstreamError {
  const { status, body, retryAfterMs } = answer
  const wait = retryAfterMs === null ? {} : { retryAfterMs }
  const word = readErrorWord(answer)
  if (!isBody(body) || word === null) {
    // A proxy may answer 4xx after it has forwarded the request, so without Aries' own words a refusal proves nothing.
    const kind = status === 429 ? 'throttled' : 'unreadable'
    return new UpstreamError(kind, `HTTP ${status} without Aries' error`, { status, effect: 'unknown', ...wait })
  }
  const { message } = body
  const reason = typeof message === 'string' ? cleanText(message) : ''
  const said = { status, brokerCode: word, ...(reason === '' ? {} : { reason }) }
  const text = `HTTP ${status} ${word}`
  switch (word) {
    case 'rate_limited':
      return new UpstreamError('throttled', text, { ...said, ...wait })
    case 'bad_request':
      return new UpstreamError('refused', text, { ...said, rejection: 'INVALID_ORDER' })
    case 'not_found':
      // No page mentions this answer for a placement, so its meaning is not known.
      if (purpose === 'read') return new UpstreamError('refused', text, { ...said, rejection: 'ACCOUNT_NOT_FOUND' })
      return new UpstreamError('refused', text, { ...said, effect: 'unknown' })
    default:
      // About our token or its scopes: the order was not looked at.
      return new UpstreamError('refused', text, said)
  }
}
