// The book of orders: the orders of each account in time order, those that the market or the clock has to look at, and the past
// states of each order for readers that lag.

import { byAge, isOpen } from './orders.ts'
import type { Order } from './orders.ts'

/** A part of an account's orders. */
export interface Window {
  offset?: number
  /** The page begins behind this order, which need not be in the list itself. */
  after?: Order | undefined
  limit: number
  oldestFirst?: boolean
  lagMs?: number
}

// Past states kept of each order: the first one, and this many of the latest.
const versionsMax = 16

/** The orders of all accounts. */
export class Book {
  readonly #orders = new Map<string, Order>()
  /** By account, oldest first, ties by id. */
  readonly #byAccount = new Map<string, Order[]>()
  /** By order, oldest first. In memory only: a restart forgets all but the present. */
  readonly #versions = new Map<string, { at: number; order: Order }[]>()
  /** Open orders about which the market decides, in the order of submission. */
  readonly open = new Set<Order>()
  /** Open orders with a `cancelAt`. */
  readonly canceling = new Set<Order>()
  /** Orders that enter the book later. */
  readonly coming = new Set<Order>()
  /** Open orders that have not reached the custodian. */
  readonly queued = new Set<Order>()

  /** Forgets everything. */
  reset(): void {
    for (const kept of [this.#orders, this.#byAccount, this.#versions]) kept.clear()
    for (const kept of [this.open, this.canceling, this.coming, this.queued]) kept.clear()
  }

  /** Adds an account without orders. */
  addAccount(accountId: string): void {
    this.#byAccount.set(accountId, [])
  }

  /** Returns an order of the book. */
  find(id: string): Order | undefined {
    return this.#orders.get(id)
  }

  /** Whether the account has an order with this client order id, in the book or to come. */
  hasClientOrderId(accountId: string, clientOrderId: string): boolean {
    const taken = (order: Order): boolean => order.accountId === accountId && order.clientOrderId === clientOrderId
    return this.#byAccount.get(accountId)?.some(taken) === true || [...this.coming].some(taken)
  }

  /** Adds an order. */
  enter(order: Order): void {
    this.#orders.set(order.id, order)
    const orders = this.#byAccount.get(order.accountId)
    if (orders === undefined) throw new Error(`order ${order.id} belongs to no account`)
    let index = orders.length
    for (; index > 0; index--) {
      const before = orders[index - 1]
      if (before === undefined || byAge(before, order) < 0) break
    }
    orders.splice(index, 0, order)
    this.watch(order)
  }

  /** Updates the sets after a change of an order. */
  watch(order: Order): void {
    const put = (set: Set<Order>, belongs: boolean): void => void (belongs ? set.add(order) : set.delete(order))
    put(this.open, isOpen(order) && order.manual !== true)
    put(this.canceling, isOpen(order) && order.cancelAt !== undefined)
    put(this.queued, isOpen(order) && order.queued === true)
  }

  /** Keeps the state of an order as of `at`. */
  remember(order: Order, at: number): void {
    const kept = this.#versions.get(order.id) ?? []
    this.#versions.set(order.id, kept)
    kept.push({ at, order: { ...order } })
    // The first state stays, because it shows when the order came. A reader of a dropped state gets an older one.
    if (kept.length > versionsMax + 1) kept.splice(1, 1)
  }

  /** Returns the order as it was at `at`; undefined if it had not come yet. The past is a copy. */
  asOf(order: Order, at: number): Order | undefined {
    return this.#versions.get(order.id)?.findLast((version) => version.at <= at)?.order
  }

  /** Removes all orders of an account, those to come too, and returns them. */
  removeAll(accountId: string): Order[] {
    const unborn = [...this.coming].filter((order) => order.accountId === accountId)
    const removed = [...(this.#byAccount.get(accountId)?.splice(0) ?? []), ...unborn]
    for (const order of removed) {
      this.coming.delete(order)
      this.#orders.delete(order.id)
      this.#versions.delete(order.id)
    }
    return removed
  }

  /** Returns one page of the account's orders that `keep` keeps, newest first by default. `now` is the exchange's time. */
  page(
    accountId: string,
    keep: (order: Order) => boolean,
    { offset = 0, after, limit, oldestFirst = false, lagMs = 0 }: Window,
    now: number,
  ): { rows: Order[]; hasMore: boolean } {
    const orders = this.#byAccount.get(accountId) ?? []
    const rows: Order[] = []
    let skipped = 0
    for (let i = 0; i < orders.length; i++) {
      const present = orders[oldestFirst ? i : orders.length - 1 - i]
      if (present !== undefined && after !== undefined) {
        const distance = byAge(present, after)
        if (oldestFirst ? distance <= 0 : distance >= 0) continue
      }
      const order = present === undefined || lagMs === 0 ? present : this.asOf(present, now - lagMs)
      if (order === undefined || !keep(order)) continue
      if (skipped < offset) {
        skipped++
        continue
      }
      if (rows.length === limit) return { rows, hasMore: true }
      rows.push(order)
    }
    return { rows, hasMore: false }
  }
}
