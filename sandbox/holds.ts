// Holds: the cash and the shares that open orders keep back, so that no order trades what another one needs.

import { add, ceilCents, multiply, subtract, toDecimal, zero } from './amounts.ts'
import type { Decimal } from './amounts.ts'
import { isOpen, remainingQuantity } from './orders.ts'
import type { Account, Order } from './orders.ts'

interface Hold {
  cents: bigint
  shares: Decimal
}

/** The holds of all accounts. */
export class Holds {
  /** Held cents by account. */
  readonly #cents = new Map<string, bigint>()
  /** Held shares by account and symbol. */
  readonly #shares = new Map<string, Decimal>()
  /** By open order. */
  readonly #byOrder = new Map<string, Hold>()

  /** Makes the holds of the account match what the order needs now. Must be called after each change of an order. */
  update(order: Order): void {
    const before = this.#byOrder.get(order.id) ?? { cents: 0n, shares: zero }
    const after = toHold(order)
    const shareKey = `${order.accountId} ${order.symbol}`
    this.#cents.set(order.accountId, (this.#cents.get(order.accountId) ?? 0n) - before.cents + after.cents)
    this.#shares.set(shareKey, add(subtract(this.#shares.get(shareKey) ?? zero, before.shares), after.shares))
    if (isOpen(order)) this.#byOrder.set(order.id, after)
    else this.#byOrder.delete(order.id)
  }

  /** Returns the held cents of an account. */
  heldCents(accountId: string): bigint {
    return this.#cents.get(accountId) ?? 0n
  }

  /** Returns the cents that one order holds. */
  centsOf(order: Order): bigint {
    return this.#byOrder.get(order.id)?.cents ?? 0n
  }

  /** Returns the cents of an account that no order holds. */
  freeCents(account: Account): bigint {
    return BigInt(account.cashCents) - this.heldCents(account.id)
  }

  /** Returns the shares of a symbol that no order holds, out of `owned`. */
  freeShares({ accountId, symbol }: Order, owned: Decimal): Decimal {
    return subtract(owned, this.#shares.get(`${accountId} ${symbol}`) ?? zero)
  }

  /** Forgets all holds. */
  clear(): void {
    this.#cents.clear()
    this.#shares.clear()
    this.#byOrder.clear()
  }
}

/** Returns the cash or shares that an order keeps back now. */
export function toHold(order: Order): Hold {
  if (!isOpen(order) || order.manual === true) return { cents: 0n, shares: zero }
  if (order.side === 'sell') return { cents: 0n, shares: toDecimal(remainingQuantity(order)) }
  if (order.notional !== null) return { cents: ceilCents(toDecimal(order.notional)), shares: zero }
  const spent = toDecimal(order.filledValue)
  const rest = multiply(toDecimal(remainingQuantity(order)), toDecimal(order.heldPrice))
  return { cents: ceilCents(add(spent, rest)) - ceilCents(spent), shares: zero }
}
