// What a broker makes of an order by itself: another client order id, and other terms. Real brokers do each of these.

import { round, toDecimal, toText } from './amounts.ts'
import type { NewOrder } from './exchange.ts'

/** How answers show a client order id: as it was sent, behind a prefix, cut to ten characters, in capitals and so on. */
export const clientOrderIdForms = [
  'unchanged',
  'prefixed',
  'cut',
  'upperCase',
  'lowerCase',
  'noDashes',
  'empty',
] as const

/** Which term is changed: quantities are rounded, market orders get a limit, BRK.B is called BRK/B. */
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

/** The order that is taken in for the one that was asked for; `priceCents` is its market's. */
export function changeTerms(
  wanted: NewOrder,
  change: (typeof termChanges)[number],
  priceCents: (symbol: string) => bigint,
): NewOrder {
  if (change === 'quantity' && wanted.quantity !== null) {
    return { ...wanted, quantity: toText(round(toDecimal(wanted.quantity), quantityDecimals)) }
  }
  if (change === 'type' && wanted.type === 'market' && wanted.notional === null) {
    // Far enough beyond the market that it trades as the market order would have.
    const cents = (priceCents(wanted.symbol) * (wanted.side === 'buy' ? 110n : 90n)) / 100n
    const limitPrice = `${cents / 100n}.${String(cents % 100n).padStart(2, '0')}`
    return { ...wanted, type: 'limit', limitPrice }
  }
  return wanted
}
