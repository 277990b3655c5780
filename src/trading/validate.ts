// The rules of placements and cancels, checked before anything is recorded or sent. All problems are returned at once, so that a
// form can mark all fields. Pure.

import { compareDecimals, countDigits, decimalDigitsMax, decimalHelp, isWrittenDecimal } from '../domain/decimal.ts'
import { isAccountId, isOrderId } from '../brokers/registry.ts'
import { isIdPart } from '../domain/ids.ts'
import type { NewOrder, OrderTypeSent } from '../domain/order.ts'

export type OrderInputProblemCode =
  | 'REQUIRED'
  | 'NOT_ALLOWED'
  | 'NOT_POSITIVE'
  | 'TOO_LONG'
  | 'TOO_PRECISE'
  | 'BAD_FORMAT'
  | 'CONFLICT'
  | 'NOT_SUPPORTED'
  | 'KEY_REUSED'

/** A problem with one field of an input: the path to the field, a code, and a message with the fix. */
export interface OrderInputProblem {
  field: string[]
  code: OrderInputProblemCode
  message: string
}

/** A problem with one field of a mutation's `input`. */
export function createProblem(field: string, code: OrderInputProblemCode, message: string): OrderInputProblem {
  return { field: ['input', field], code, message }
}

/** The form that `isSymbol` takes, for the message that refuses another one. */
const symbolHelp =
  'write the ticker in capitals as the exchange lists it, such as AAPL or BRK.B: letters A–Z, digits and . - / only, at most 20.'

/** Whether `text` can be a ticker. Lower case is refused rather than raised: some exchanges tell tickers apart by it. */
function isSymbol(text: string): boolean {
  return /^[A-Z0-9][A-Z0-9./-]{0,19}$/.test(text)
}

/** Whether an order can show `text` as its symbol. Adapters remove characters that cannot be printed. */
export function isShownSymbol(text: string): boolean {
  return /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]{1,200}$/u.test(text) && text.trim() === text && text.isWellFormed()
}

/** Describes what is wrong with a symbol that `isSymbol` refuses, and the accepted form. */
function describeSymbol(text: string): string {
  const refused = [...new Set(text.match(/[^A-Z0-9./-]/gu))].slice(0, 5).map((each) => JSON.stringify(each))
  const what = refused.length > 0 ? `Symbol may not contain ${refused.join(', ')}` : 'Symbol cannot be read'
  return `${what}: ${symbolHelp}`
}

type PriceField = 'limitPrice' | 'stopPrice' | 'trailPercent' | 'trailPrice'

// The prices that each type takes. A trailing stop takes one of its two.
const pricesOf: Record<OrderTypeSent, readonly PriceField[]> = {
  MARKET: [],
  LIMIT: ['limitPrice'],
  STOP: ['stopPrice'],
  STOP_LIMIT: ['limitPrice', 'stopPrice'],
  TRAILING_STOP: ['trailPercent', 'trailPrice'],
}

/** Returns the problems of a placement that can be found without a call to the broker or the store; empty if none. */
export function findProblems(order: NewOrder): OrderInputProblem[] {
  return [
    ...checkAccount(order.accountId),
    ...checkKey(order.clientOrderId),
    ...(isSymbol(order.symbol) ? [] : [createProblem('symbol', 'BAD_FORMAT', describeSymbol(order.symbol))]),
    ...checkSize(order),
    ...checkPrices(order),
    ...checkCommission(order),
    ...checkDecimals(order),
  ]
}

function checkAccount(accountId: string): OrderInputProblem[] {
  return isAccountId(accountId)
    ? []
    : [
        createProblem(
          'accountId',
          'BAD_FORMAT',
          'This cannot be an account id; `tradingAccounts` lists those that can be.',
        ),
      ]
}

function checkKey(clientOrderId: string): OrderInputProblem[] {
  const help = 'use 8 to 36 letters, digits and . _ - beginning with a letter or digit; a UUID fits.'
  if (clientOrderId.length > 36) return [createProblem('clientOrderId', 'TOO_LONG', `Too long: ${help}`)]
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{7,35}$/.test(clientOrderId)) return []
  return [createProblem('clientOrderId', 'BAD_FORMAT', `Not a client order id: ${help}`)]
}

// They are kept with the order, and none that could have been used is longer.
const acknowledgedMax = 100

/** Returns the problems of the keys that a placement acknowledges. */
export function findUnacknowledgeable(keys: readonly string[]): OrderInputProblem[] {
  const field = 'acknowledgeUnresolved'
  if (keys.length > acknowledgedMax) return [createProblem(field, 'TOO_LONG', `At most ${acknowledgedMax} keys.`)]
  if (keys.every((key) => checkKey(key).length === 0)) return []
  return [createProblem(field, 'BAD_FORMAT', 'Name the clientOrderId of each order as it was placed.')]
}

function checkSize({ quantity, notional, side, type }: NewOrder): OrderInputProblem[] {
  if (quantity === null && notional === null) {
    return [createProblem('quantity', 'REQUIRED', 'Give quantity, or notional for a market buy.')]
  }
  const problems: OrderInputProblem[] = []
  if (quantity !== null && notional !== null) {
    problems.push(createProblem('notional', 'CONFLICT', 'Give quantity or notional, not both.'))
  }
  if (notional !== null && (side !== 'BUY' || type !== 'MARKET')) {
    problems.push(createProblem('notional', 'NOT_ALLOWED', 'Notional is for market buys only; give quantity instead.'))
  }
  return problems
}

function checkPrices(order: NewOrder): OrderInputProblem[] {
  const taken = pricesOf[order.type]
  const problems: OrderInputProblem[] = []
  for (const field of ['limitPrice', 'stopPrice', 'trailPercent', 'trailPrice'] as const) {
    if (order[field] !== null && !taken.includes(field)) {
      problems.push(createProblem(field, 'NOT_ALLOWED', `A ${order.type} order takes no ${field}; leave it out.`))
    }
    if (order[field] === null && taken.includes(field) && order.type !== 'TRAILING_STOP') {
      problems.push(createProblem(field, 'REQUIRED', `A ${order.type} order needs ${field}.`))
    }
  }
  if (order.type !== 'TRAILING_STOP') return problems
  if (order.trailPercent === null && order.trailPrice === null) {
    problems.push(createProblem('trailPercent', 'REQUIRED', 'A TRAILING_STOP order needs trailPercent or trailPrice.'))
  }
  if (order.trailPercent !== null && order.trailPrice !== null) {
    problems.push(createProblem('trailPrice', 'CONFLICT', 'Give trailPercent or trailPrice, not both.'))
  }
  return problems
}

function checkCommission({ commission, commissionType }: NewOrder): OrderInputProblem[] {
  if (commission === null) {
    if (commissionType === null) return []
    return [createProblem('commission', 'REQUIRED', 'A commissionType needs a commission.')]
  }
  if (commissionType === 'BPS' && isWrittenDecimal(commission) && countDigits(commission).fraction > 2) {
    return [createProblem('commission', 'TOO_PRECISE', 'Basis points take at most 2 decimals.')]
  }
  return []
}

const sizes = ['quantity', 'notional', 'limitPrice', 'stopPrice', 'trailPercent', 'trailPrice'] as const

function checkDecimals(order: NewOrder): OrderInputProblem[] {
  return [...sizes, 'commission' as const].flatMap((field) => {
    const value = order[field]
    return value === null ? [] : checkDecimal(field, value)
  })
}

function checkDecimal(field: (typeof sizes)[number] | 'commission', value: string): OrderInputProblem[] {
  if (!isWrittenDecimal(value)) {
    return [createProblem(field, 'BAD_FORMAT', `${field} is ${quote(value)}, which is not a decimal: ${decimalHelp}`)]
  }
  const problems: OrderInputProblem[] = []
  // Refuses minus zero too, because brokers accept no sign in a commission.
  if (field === 'commission' && value.startsWith('-')) {
    problems.push(createProblem(field, 'NOT_POSITIVE', 'commission must not be negative.'))
  }
  if (field !== 'commission' && compareDecimals(value, '0') <= 0) {
    problems.push(createProblem(field, 'NOT_POSITIVE', `${field} must be above zero.`))
  }
  if (countDigits(value).total > decimalDigitsMax) {
    problems.push(createProblem(field, 'TOO_LONG', `${field} may have at most ${decimalDigitsMax} digits.`))
  }
  return problems
}

const quotedCharactersMax = 40

/** Quotes a caller's text in a message: at most 40 characters, without control and direction characters. */
function quote(text: string): string {
  const shown = text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '�')
  const isShort = shown.length <= quotedCharactersMax
  return JSON.stringify(isShort ? shown : `${shown.slice(0, quotedCharactersMax)}…`.toWellFormed())
}

/** The order to cancel: by its id, or by the key of its placement. */
export interface CancelInput {
  orderId: string | null
  accountId: string | null
  clientOrderId: string | null
}

/** Returns the problems of a cancel; empty if it names one order. */
export function findCancelProblems({ orderId, accountId, clientOrderId }: CancelInput): OrderInputProblem[] {
  const problems: OrderInputProblem[] = []
  if (orderId === null && clientOrderId === null) {
    problems.push(createProblem('orderId', 'REQUIRED', 'Give the orderId, or the accountId with the clientOrderId.'))
  }
  if (orderId !== null && clientOrderId !== null) {
    problems.push(createProblem('clientOrderId', 'CONFLICT', 'Give the orderId or the clientOrderId, not both.'))
  }
  if (orderId === null && clientOrderId !== null && accountId === null) {
    problems.push(createProblem('accountId', 'REQUIRED', 'A clientOrderId needs the accountId that it was used for.'))
  }
  const garbled = (field: string, source: string): void => {
    problems.push(createProblem(field, 'BAD_FORMAT', `This cannot be an id: take ${source}.`))
  }
  if (orderId !== null && !isOrderId(orderId)) garbled('orderId', 'the `id` of an order as it was answered')
  if (accountId !== null && !isAccountId(accountId)) garbled('accountId', 'one that `tradingAccounts` lists')
  if (clientOrderId !== null && !isIdPart(clientOrderId)) garbled('clientOrderId', 'the one the order was placed with')
  return problems
}
