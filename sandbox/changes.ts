// Changes that a broker makes to an order on its own: to its client order id and to its terms. Real brokers make each of these.

import { round, toDecimal, toText } from './amounts.ts'
import type { NewOrder } from './orders.ts'

/** How answers show a client order id: as it was sent, with a prefix, cut to ten characters, in capitals and so on. */
export const clientOrderIdForms = [
  'unchanged',
  'prefixed',
  'cut',
  'upperCase',
  'lowerCase',
  'noDashes',
  'empty',
] as const

/** The term that is changed: quantities are rounded, market orders get a limit, BRK.B becomes BRK/B. */
export const termChanges = ['none', 'quantity', 'type', 'symbol'] as const

const cutLength = 10
const quantityDecimals = 9

export function showClientOrderId(id: string, form: (typeof clientOrderIdForms)[number]): string {
  switch (form) {
    case 'unchanged':
      return id
    case 'prefixed':
      return `PTR1-${id}`
    case 'cut':
      return id.slice(0, cutLength)
    case 'upperCase':
      return id.toUpperCase()
    case 'lowerCase':
      return id.toLowerCase()
    case 'noDashes':
      return id.replaceAll('-', '')
    case 'empty':
      return ''
    default:
      return form satisfies never
  }
}

export function showSymbol(symbol: string, change: (typeof termChanges)[number]): string {
  return change === 'symbol' ? symbol.replaceAll('.', '/') : symbol
}

/** Returns the order that the broker accepts instead of `wanted`. `priceCents` returns the market price of a symbol. */
export function changeTerms(
  wanted: NewOrder,
  change: (typeof termChanges)[number],
  priceCents: (symbol: string) => bigint,
): NewOrder {
  if (change === 'quantity' && wanted.quantity !== null) {
    return { ...wanted, quantity: toText(round(toDecimal(wanted.quantity), quantityDecimals)) }
  }
  if (change === 'type' && wanted.type === 'market' && wanted.notional === null) {
    // Sets the limit far enough beyond the market that the order trades like the market order.
    const cents = (priceCents(wanted.symbol) * (wanted.side === 'buy' ? 110n : 90n)) / 100n
    const limitPrice = `${cents / 100n}.${String(cents % 100n).padStart(2, '0')}`
    return { ...wanted, type: 'limit', limitPrice }
  }
  return wanted
}
