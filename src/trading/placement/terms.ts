// Compares the terms of an order at a broker with what was sent. Pure.

import { compareDecimals } from '../../domain/decimal.ts'
import type { Field, NewOrder, Order } from '../../domain/order.ts'

const words = ['side', 'type', 'timeInForce'] as const
const amounts = ['quantity', 'notional', 'limitPrice', 'stopPrice', 'trailPercent', 'trailPrice'] as const

/** A term of an order that brokers repeat. The commission is none of them: brokers report what they charged. */
export type OrderTerm = 'symbol' | (typeof words)[number] | (typeof amounts)[number]

/**
 * The terms that `order` has otherwise than `request`; empty if all fit. A term that the broker leaves out, that cannot be
 * read or that was not sent differs from nothing.
 */
export function findDifferingTerms(request: NewOrder, order: Order): OrderTerm[] {
  const differing: OrderTerm[] = []
  // No option is placed here, and the order of one shows the ticker of its underlying.
  if (order.symbol !== request.symbol || isOption(order)) differing.push('symbol')
  for (const word of words) if (order[word] !== 'UNKNOWN' && order[word] !== request[word]) differing.push(word)
  for (const amount of amounts) if (!isSameAmount(request[amount], order[amount])) differing.push(amount)
  return differing
}

/** Whether `order` could be the one of `request` by its terms. Spellings of a symbol count as one: BRK.B, BRK/B, BRK B. */
export function fitsTerms(request: NewOrder, order: Order): boolean {
  return isSameSymbol(request, order) && findDifferingTerms(request, order).every((term) => term === 'symbol')
}

/** Whether both are orders for one symbol, however it is spelled. */
export function isSameSymbol(request: NewOrder, order: Order): boolean {
  return !isOption(order) && toLetters(order.symbol) === toLetters(request.symbol)
}

/** Whether both are on one side of the market, as far as the broker says. */
export function isSameSide(request: NewOrder, order: Order): boolean {
  return order.side === 'UNKNOWN' || order.side === request.side
}

function isOption({ securityType, legs }: Order): boolean {
  return securityType === 'OPTION' || legs.length > 0
}

function isSameAmount(sent: string | null, said: Field<string>): boolean {
  return sent === null || typeof said !== 'string' || compareDecimals(sent, said) === 0
}

function toLetters(symbol: string): string {
  return symbol.toUpperCase().replaceAll(/[^\p{L}\p{N}]/gu, '')
}
