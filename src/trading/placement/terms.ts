// Compares the terms of a broker's order with those that were sent. Pure.

import { compareDecimals } from '../../domain/decimal.ts'
import type { Field, NewOrder, Order } from '../../domain/order.ts'

const words = ['side', 'type', 'timeInForce'] as const
const amounts = ['quantity', 'notional', 'limitPrice', 'stopPrice', 'trailPercent', 'trailPrice'] as const

/** A term that brokers repeat in their answers. Excludes the commission, because brokers report the one that they charged. */
export type OrderTerm = 'symbol' | (typeof words)[number] | (typeof amounts)[number]

/**
 * Returns the terms of `order` that differ from `request`; empty if all fit. A term never differs if the broker left it out, if
 * it cannot be read, or if it was not sent.
 */
export function findDifferingTerms(request: NewOrder, order: Order): OrderTerm[] {
  const differing: OrderTerm[] = []
  // Blotter places no options, and the order of an option shows the ticker of its underlying.
  if (order.symbol !== request.symbol || isOption(order)) differing.push('symbol')
  for (const word of words) if (order[word] !== 'UNKNOWN' && order[word] !== request[word]) differing.push(word)
  for (const amount of amounts) if (!isSameAmount(request[amount], order[amount])) differing.push(amount)
  return differing
}

/** Whether the terms of `order` fit `request`. Spellings of a symbol are equal: BRK.B, BRK/B, BRK B. */
export function fitsTerms(request: NewOrder, order: Order): boolean {
  return isSameSymbol(request, order) && findDifferingTerms(request, order).every((term) => term === 'symbol')
}

/** Whether both orders have the same symbol, in any spelling. */
export function isSameSymbol(request: NewOrder, order: Order): boolean {
  return !isOption(order) && toLetters(order.symbol) === toLetters(request.symbol)
}

/** Whether both orders are on the same side; true if the broker's side is unknown. */
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
