// A small exchange: accounts, orders, holds and fills under an injected clock and market. It knows no HTTP. It has no timers: every
// call first brings the book up to the present, so that an order that crossed in between is found filled at the time when it
// crossed.
//
// Money and quantities are bigints with a decimal scale, never a Number. Cash moves in whole cents: the cost of a buy is rounded up
// and the proceeds of a sell are rounded down, over the whole value of the order and not per fill, so that a hold always covers its
// order.

import { randomInt } from 'node:crypto'
import {
  add,
  ceilCents,
  compare,
  divide,
  floorCents,
  fromCents,
  isWhole,
  multiply,
  round,
  subtract,
  toDecimal,
  toText,
  zero,
} from './amounts.ts'
import type { Decimal } from './amounts.ts'
import { Book } from './book.ts'
import type { Window } from './book.ts'
import { Holds, toHold } from './holds.ts'
import { byAge, deadlineOf, isOpen, remainingQuantity } from './orders.ts'
import type {
  Account,
  AccountStatus,
  Asset,
  Broker,
  Ledger,
  Market,
  MarketMode,
  NewOrder,
  Order,
  OrderStatus,
  PlaceOptions,
  Position,
  Refusal,
} from './orders.ts'

// A limit order of this many shares or more finds only half of them at first; the rest fills in a later second.
const largeOrderShares = 1000n
// Maximum prices that one catch-up looks at, over any stretch of time, besides each open or close that matters.
const samplesMax = 500

/** Returns a new id: the prefix and so many lower-case letters and digits. Random, so that a wiped state repeats none. */
function newId(prefix: string, length: number): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789'
  let id = prefix
  for (let i = 0; i < length; i++) id += alphabet[randomInt(alphabet.length)]
  return id
}

function isAuction(order: Order): boolean {
  return order.timeInForce === 'opg' || order.timeInForce === 'cls'
}

/**
 * Opens the book kept in `ledger`. The caller closes the ledger. Time is `now()` plus an offset that `advance` grows;
 * it never runs backwards, and starts no earlier than the book's last evaluation, also after a restart.
 */
export class Exchange {
  readonly #ledger
  readonly #market
  readonly #now
  readonly #accounts = new Map<string, Account>()
  readonly #book = new Book()
  readonly #holds = new Holds()
  readonly #positions = new Map<string, Map<string, Position>>() // by account and symbol
  #mode: MarketMode = 'open'
  #offsetMs = 0
  #evaluatedAt = 0
  #latest = 0

  constructor(options: { ledger: Ledger; market: Market; now: () => number }) {
    const { ledger, market, now } = options
    this.#ledger = ledger
    this.#market = market
    this.#now = now
    this.#readLedger()
  }

  asset(symbol: string): Asset | undefined {
    return this.#market.asset(symbol)
  }

  /** The market's price of a known symbol now, in cents. */
  priceCents(symbol: string): bigint {
    return this.#market.priceCents(symbol, this.clock())
  }

  /** Those of one broker, or all of them. */
  accounts(broker?: Broker): readonly Account[] {
    return [...this.#accounts.values()].filter((account) => broker === undefined || account.broker === broker)
  }

  account(id: string): Account | undefined {
    return this.#accounts.get(id)
  }

  /** The order now, or as it was `lagMs` ago; the past is a copy and cannot be changed. */
  order(id: string, lagMs = 0): Order | undefined {
    this.catchUp()
    const order = this.#book.find(id)
    return order === undefined || lagMs === 0 ? order : this.#book.asOf(order, this.clock() - lagMs)
  }

  /** Whether the account has an order with this client order id, of any status, in its book or to come. */
  hasClientOrderId(accountId: string, clientOrderId: string): boolean {
    return this.#book.hasClientOrderId(accountId, clientOrderId)
  }

  positions(accountId: string): readonly Position[] {
    this.catchUp()
    return [...(this.#positions.get(accountId)?.values() ?? [])].sort((a, b) => (a.symbol < b.symbol ? -1 : 1))
  }

  /** An account's cash and holdings together, at the market's prices now. */
  equity(account: Account): string {
    let total = fromCents(BigInt(account.cashCents))
    for (const position of this.#positions.get(account.id)?.values() ?? []) {
      total = add(total, multiply(toDecimal(position.quantity), this.#price(position.symbol, this.clock())))
    }
    return toText(round(total, 2), 2)
  }

  /** Orders that wait trade from this moment on; prices while the market was closed do not count. */
  setMode(next: MarketMode): void {
    this.catchUp()
    this.#mode = next
  }

  setAccount(account: Account, change: { status?: AccountStatus; cash?: string }): void {
    this.transaction(() => {
      if (change.status !== undefined) account.status = change.status
      if (change.cash !== undefined) account.cashCents = String(floorCents(toDecimal(change.cash)))
      this.#ledger.saveAccount(account)
    })
  }

  /** Moves the clock forward and everything with it. */
  advance(ms: number): void {
    this.catchUp()
    this.#offsetMs += ms
    this.transaction(() => this.#ledger.saveClock(this.#offsetMs, this.#evaluatedAt))
    this.catchUp()
  }

  #readLedger(): void {
    this.#accounts.clear()
    this.#positions.clear()
    this.#book.reset()
    this.#holds.clear()
    const loaded = this.#ledger.load()
    for (const account of loaded.accounts) {
      this.#accounts.set(account.id, account)
      this.#book.addAccount(account.id)
      this.#positions.set(account.id, new Map())
    }
    for (const position of loaded.positions) this.#positions.get(position.accountId)?.set(position.symbol, position)
    for (const order of loaded.orders.sort(byAge)) {
      this.#holds.update(order)
      if (order.coming === true) {
        this.#book.coming.add(order)
        continue
      }
      this.#book.enter(order)
      // The file has no earlier states, so a reader of the past sees the present state.
      this.#book.remember(order, order.submittedAt)
    }
    this.#evaluatedAt = loaded.evaluatedAt
    this.#offsetMs = Math.max(loaded.offsetMs, this.#evaluatedAt - this.#now())
    this.#latest = Math.max(this.#latest, this.#evaluatedAt)
  }

  #leaveQueue(order: Order, at: number): void {
    if (order.queued === true) order.custodyAt = at
    delete order.queued
  }

  /** Runs `work` in one transaction. When it throws, memory is read again from the file, which kept nothing of it. */
  transaction<T>(work: () => T): T {
    try {
      return this.#ledger.transaction(work)
    } catch (error) {
      this.#readLedger()
      throw error
    }
  }

  /** The exchange's time, ms since 1970. */
  clock(): number {
    this.#latest = Math.max(this.#latest, Math.floor(this.#now() + this.#offsetMs))
    return this.#latest
  }

  // --- holds ---
  #freeShares(order: Order): Decimal {
    const owned = toDecimal(this.#positions.get(order.accountId)?.get(order.symbol)?.quantity ?? '0')
    return this.#holds.freeShares(order, owned)
  }

  /** To be called after every change of an order that a caller can see; `at` is when it changed. */
  #save(order: Order, at: number): void {
    order.changedAt = at
    this.#book.watch(order)
    this.#holds.update(order)
    this.#book.remember(order, at)
    this.#ledger.saveOrder(order)
  }

  // --- fills ---
  #price(symbol: string, at: number): Decimal {
    return fromCents(this.#market.priceCents(symbol, at))
  }

  #endCanceled(order: Order, at: number): void {
    order.status = 'canceled'
    order.canceledAt = at
    this.#save(order, at)
  }

  #endRejected(order: Order, at: number, refused: Refusal['refused'], reason: string): void {
    order.status = 'rejected'
    order.rejectReason = reason
    order.refused = refused
    this.#save(order, at)
  }

  /** Day orders and auctions. An ioc or fok that finds nothing is canceled, as FIX has it. */
  #expire(order: Order, at: number): void {
    order.expired = true
    this.#endCanceled(order, at)
  }

  /** Trades `quantity` at `at`. False, with nothing changed, when the account's free cash does not cover it. */
  #trade(order: Order, quantity: Decimal, tradePrice: Decimal, at: number): boolean {
    const account = this.#accounts.get(order.accountId)
    if (account === undefined) throw new Error(`order ${order.id} belongs to no account`)
    const moves = order.legs === undefined
    const valueBefore = toDecimal(order.filledValue)
    const value = add(valueBefore, multiply(quantity, tradePrice))
    const cash = BigInt(account.cashCents)
    if (moves && order.side === 'buy') {
      const cost = ceilCents(value) - ceilCents(valueBefore)
      if (cost > this.#holds.freeCents(account) + this.#holds.centsOf(order)) return false
      account.cashCents = String(cash - cost)
    } else if (moves) {
      account.cashCents = String(cash + floorCents(value) - floorCents(valueBefore))
    }
    const filled = add(toDecimal(order.filledQuantity), quantity)
    const whole = order.quantity === null || compare(filled, toDecimal(order.quantity)) === 0
    order.filledValue = toText(value)
    order.filledQuantity = whole && order.quantity !== null ? order.quantity : toText(filled)
    order.status = whole ? 'filled' : 'partially_filled'
    if (whole) order.filledAt = at
    this.#leaveQueue(order, at)
    this.#ledger.saveAccount(account)
    if (moves) this.#settle(order, quantity, tradePrice, at)
    this.#save(order, at)
    return true
  }

  #settle(order: Order, quantity: Decimal, tradePrice: Decimal, at: number): void {
    const held = this.#positions.get(order.accountId)
    if (held === undefined) throw new Error(`order ${order.id} belongs to no account`)
    let position = held.get(order.symbol)
    if (position === undefined) {
      const id = newId('pos_', 16)
      const { accountId, symbol } = order
      position = { id, accountId, symbol, quantity: '0', cost: '0', createdAt: at, changedAt: at }
      held.set(symbol, position)
    }
    const before = toDecimal(position.quantity)
    const cost = toDecimal(position.cost)
    if (order.side === 'buy') {
      position.quantity = toText(add(before, quantity))
      position.cost = toText(add(cost, multiply(quantity, tradePrice)))
    } else {
      position.quantity = toText(subtract(before, quantity))
      // Average cost: what is sold takes its share of the cost with it.
      const sold = before.units === 0n ? zero : divide(multiply(cost, quantity), before, 12)
      position.cost = toText(subtract(cost, sold))
    }
    position.changedAt = at
    if (position.quantity === '0') {
      held.delete(order.symbol)
      this.#ledger.removePosition(position)
    } else {
      this.#ledger.savePosition(position)
    }
  }

  /** Trades `quantity`, or ends an order whose account can no longer pay for it. */
  #execute(order: Order, quantity: Decimal, tradePrice: Decimal, at: number): void {
    if (this.#trade(order, quantity, tradePrice, at)) return
    if (order.filledQuantity !== '0') this.#endCanceled(order, at)
    else this.#endRejected(order, at, 'funds', 'Not enough cash when the order came to trade.')
  }

  /** Whether the order would trade at the market's price now. Moves a trailing stop's best price and a stop's trigger. */
  #crosses(order: Order, marketPrice: Decimal): boolean {
    const buying = order.side === 'buy'
    const reached = (stop: Decimal): boolean =>
      buying ? compare(marketPrice, stop) >= 0 : compare(marketPrice, stop) <= 0
    const within = (limit: string | null): boolean => {
      const difference = compare(marketPrice, toDecimal(limit ?? '0'))
      return buying ? difference <= 0 : difference >= 0
    }
    switch (order.type) {
      case 'market':
        return true
      case 'limit':
        return within(order.limitPrice)
      case 'stop':
        return reached(toDecimal(order.stopPrice ?? '0'))
      case 'stop_limit':
        if (!order.triggered && reached(toDecimal(order.stopPrice ?? '0'))) {
          order.triggered = true
          this.#ledger.saveOrder(order)
        }
        return order.triggered && within(order.limitPrice)
      case 'trailing_stop': {
        const seen = order.bestPriceCents === null ? marketPrice : fromCents(BigInt(order.bestPriceCents))
        const better = buying ? compare(marketPrice, seen) < 0 : compare(marketPrice, seen) > 0
        const best = better ? marketPrice : seen
        if (better || order.bestPriceCents === null) {
          order.bestPriceCents = best.units.toString()
          this.#ledger.saveOrder(order)
        }
        const trail = this.#trailOf(order, best)
        return reached(buying ? add(best, trail) : subtract(best, trail))
      }
      default:
        return order.type satisfies never
    }
  }

  /** The distance a trailing stop keeps from its best price. With both trails given, the percentage counts. */
  #trailOf(order: NewOrder, best: Decimal): Decimal {
    if (order.trailPercent === null) return toDecimal(order.trailPrice ?? '0')
    return multiply(best, multiply(toDecimal(order.trailPercent), { units: 1n, scale: 2 }))
  }

  /** One look at one open order at one time while the market is open. */
  #attempt(order: Order, at: number): void {
    const marketPrice = this.#price(order.symbol, at)
    if (!this.#crosses(order, marketPrice)) return
    if (order.notional !== null) {
      const quantity = divide(toDecimal(order.notional), marketPrice, 9)
      if (quantity.units === 0n)
        this.#endRejected(order, at, 'notTradable', 'The amount buys less than a billionth of a share.')
      else this.#execute(order, quantity, marketPrice, at)
      return
    }
    const remaining = toDecimal(remainingQuantity(order))
    const limited = order.type === 'limit' || order.type === 'stop_limit'
    const large =
      limited && order.status === 'accepted' && compare(remaining, { units: largeOrderShares, scale: 0 }) >= 0
    if (!large) this.#execute(order, remaining, marketPrice, at)
    // Fill-or-kill does not find all it wants, so it takes nothing.
    else if (order.timeInForce !== 'fok')
      this.#execute(order, divide(remaining, { units: 2n, scale: 0 }, 0), marketPrice, at)
  }

  #evaluate(order: Order, at: number): void {
    if (!isOpen(order) || order.queued === true || at <= order.submittedAt) return
    const deadline = deadlineOf(order)
    if (isAuction(order)) {
      if (deadline === null || at < deadline) return
      if (this.#mode === 'open') this.#attempt(order, deadline)
      if (isOpen(order)) this.#expire(order, deadline)
    } else if (deadline !== null && at >= deadline) {
      this.#expire(order, deadline)
    } else if (this.#mode === 'open') {
      this.#attempt(order, at)
    }
  }

  /**
   * Brings the book up to the clock. Prices change once a second. A longer stretch is checked at no more than 500 evenly spread
   * seconds, and at every open or close that decides about an order, so a short spike can be missed. A delayed order or cancel
   * takes effect, and an order reaches the custodian, at its own millisecond; fills before that stay.
   */
  catchUp(): void {
    const at = this.clock()
    const seconds = Math.floor(at / 1000) - Math.floor(this.#evaluatedAt / 1000)
    const cancels = [...this.#book.canceling].map(({ cancelAt = 0 }) => cancelAt).filter((time) => time <= at)
    const arrivals = [...this.#book.coming].filter((order) => order.submittedAt <= at)
    const reaching = [...this.#book.queued, ...arrivals]
      .map(({ custodyAt = Infinity }) => custodyAt)
      .filter((time) => time <= at)
    if (seconds <= 0 && cancels.length === 0 && arrivals.length === 0 && reaching.length === 0) return
    this.transaction(() => {
      const times = new Set<number>()
      const watched = [...this.#book.open, ...arrivals]
      if (watched.length > 0 && seconds > 0) {
        const stepMs = Math.ceil(seconds / samplesMax) * 1000
        const last = Math.floor(at / 1000) * 1000
        for (let time = Math.floor(this.#evaluatedAt / 1000) * 1000 + stepMs; time < last; time += stepMs)
          times.add(time)
        times.add(last)
        for (const order of watched) {
          const deadline = deadlineOf(order)
          if (deadline !== null && deadline > this.#evaluatedAt && deadline <= at) times.add(deadline)
        }
      }
      const moments = new Set([...times, ...cancels, ...reaching, ...arrivals.map(({ submittedAt }) => submittedAt)])
      for (const time of [...moments].sort((a, b) => a - b)) {
        for (const order of this.#book.canceling) if ((order.cancelAt ?? at) <= time) this.#endCanceled(order, time)
        for (const order of arrivals) if (order.submittedAt === time) this.#arrive(order)
        for (const order of this.#book.queued) if ((order.custodyAt ?? Infinity) <= time) this.#reach(order, time)
        if (times.has(time)) for (const order of this.#book.open) this.#evaluate(order, time)
      }
      this.#evaluatedAt = at
      this.#ledger.saveClock(this.#offsetMs, this.#evaluatedAt)
    })
  }

  // --- what a caller does ---

  /** Takes the order in, holds its cash or shares, and fills what fills at once; or says why not, changing nothing. */
  place(account: Account, wanted: NewOrder, options: PlaceOptions = {}): Order | Refusal {
    const { delayMs = null, custodyMs = 0, takeIn = 'nothing' } = options
    this.catchUp()
    const at = this.clock()
    const barred = this.#bar(account, wanted)
    if (barred !== null && takeIn !== 'everything') return barred

    const submittedAt = at + (delayMs ?? 0)
    const order: Order = {
      ...wanted,
      id: newId('ord_', 16),
      accountId: account.id,
      status: 'accepted',
      filledQuantity: '0',
      filledValue: '0',
      submittedAt,
      filledAt: null,
      canceledAt: null,
      rejectReason: null,
      heldPrice: barred === null ? toText(this.#priceToHold(wanted, at)) : '0',
      triggered: false,
      bestPriceCents: null,
    }
    if (custodyMs > 0) {
      order.queued = true
      order.custodyAt = submittedAt + custodyMs
    }
    const refusal = barred ?? this.#refuse(account, order)
    if (refusal !== null && takeIn === 'nothing') return refusal
    if (refusal !== null) {
      order.status = 'rejected'
      order.rejectReason = refusal.message
      order.refused = refusal.refused
      order.queued = true
    }

    this.transaction(() => {
      if (delayMs === null) return this.#arrive(order)
      order.coming = true
      this.#book.coming.add(order)
      this.#holds.update(order)
      this.#ledger.saveOrder(order)
    })
    return order
  }

  /** Returns why such an order is not possible for any account; null if it is possible. */
  #bar(account: Account, wanted: NewOrder): Refusal | null {
    if (account.status === 'PENDING' || account.status === 'SUBMITTED') {
      return { refused: 'accountNotApproved', message: 'Account has not passed verification.' }
    }
    if (account.status !== 'ACTIVE') return { refused: 'accountRestricted', message: 'Account state forbids this.' }
    if (this.#market.asset(wanted.symbol) === undefined) return { refused: 'unknownAsset', message: 'No such asset.' }
    if (wanted.short === true) return { refused: 'shortSale', message: 'A cash account borrows no shares.' }
    return null
  }

  /** Why the market or the account cannot take this order; null when they can. */
  #refuse(account: Account, order: Order): Refusal | null {
    const asset = this.#market.asset(order.symbol)
    if (asset === undefined) throw new Error(`order ${order.id} is for no asset`)
    const whole = order.quantity !== null && isWhole(toDecimal(order.quantity))
    if (!asset.tradable) return { refused: 'notTradable', message: 'Asset cannot be traded.' }
    if (!asset.fractionable && !whole) return { refused: 'notTradable', message: 'Asset trades in whole shares only.' }
    if (this.#mode === 'closed-refuses') return { refused: 'marketClosed', message: 'Market is closed.' }
    const needs = toHold(order)
    if (needs.cents > 0n && needs.cents > this.#holds.freeCents(account))
      return { refused: 'funds', message: 'Not enough cash.' }
    if (compare(needs.shares, this.#freeShares(order)) > 0)
      return { refused: 'shares', message: 'Not enough shares to sell.' }
    return null
  }

  /** An order's first moment in the book. */
  #arrive(order: Order): void {
    const at = order.submittedAt
    this.#book.coming.delete(order)
    delete order.coming
    if (this.#mode === 'closed-rejects' && isOpen(order)) {
      order.status = 'rejected'
      order.rejectReason = 'Market is closed.'
      order.refused = 'marketClosed'
    }
    this.#book.enter(order)
    this.#save(order, at)
    if (order.queued !== true) this.#attemptFirst(order, at)
  }

  /** An order's first moment at the custodian. */
  #reach(order: Order, at: number): void {
    this.#leaveQueue(order, at)
    this.#save(order, at)
    const deadline = deadlineOf(order)
    if (deadline === null || at < deadline) this.#attemptFirst(order, at)
  }

  /** Tries to fill an order for the first time, which is the only time for ioc and fok. */
  #attemptFirst(order: Order, at: number): void {
    if (!isOpen(order) || isAuction(order)) return
    if (this.#mode === 'open') this.#attempt(order, at)
    const immediate = order.timeInForce === 'ioc' || order.timeInForce === 'fok'
    if (immediate && isOpen(order)) this.#endCanceled(order, at)
  }

  /**
   * The most a share is expected to cost. Only a limit is a promise: a market or stop order is held at the market's
   * price of the moment (or its stop, if higher) and ends rejected if the account cannot pay when it trades.
   */
  #priceToHold(order: NewOrder, at: number): Decimal {
    const marketPrice = this.#price(order.symbol, at)
    switch (order.type) {
      case 'limit':
      case 'stop_limit':
        return toDecimal(order.limitPrice ?? '0')
      case 'market':
        return marketPrice
      case 'stop': {
        const stop = toDecimal(order.stopPrice ?? '0')
        return compare(stop, marketPrice) > 0 ? stop : marketPrice
      }
      case 'trailing_stop':
        return add(marketPrice, this.#trailOf(order, marketPrice))
      default:
        return order.type satisfies never
    }
  }

  /**
   * Ends an open order and releases what it held; what had filled stays filled. With `delayMs` the order lives on for so
   * long and may fill meanwhile; asking again then changes nothing.
   */
  cancel(order: Order, delayMs: number | null = null): Order | Refusal {
    this.catchUp()
    if (!isOpen(order)) return { refused: 'final', message: `Order is already final: ${order.status}.` }
    this.transaction(() => {
      if (delayMs === null) return this.#endCanceled(order, this.clock())
      if (order.cancelAt !== undefined) return
      order.cancelAt = this.clock() + delayMs
      this.#save(order, this.clock())
    })
    return order
  }

  /**
   * Fills an open order from outside, independent of the market: by `quantity` (the whole rest by default) at `price` (the market's,
   * or the limit if the market is beyond it). Returns a text with the reason if that is not possible.
   */
  fill(order: Order, quantity?: string, atPrice?: string): Order | string {
    this.catchUp()
    const at = this.clock()
    if (!isOpen(order)) return `order ${order.id} is ${order.status}`
    const marketPrice = this.#price(order.symbol, at)
    const limit = order.limitPrice === null ? null : toDecimal(order.limitPrice)
    // The price of the underlying does not give the price of an option.
    const beyond =
      limit !== null && (order.legs !== undefined || (order.side === 'buy') === compare(marketPrice, limit) > 0)
    const tradePrice = atPrice !== undefined ? toDecimal(atPrice) : limit !== null && beyond ? limit : marketPrice
    if (order.notional !== null && quantity !== undefined) return 'an order by cash amount fills whole or not at all'
    const all =
      order.notional === null ? toDecimal(remainingQuantity(order)) : divide(toDecimal(order.notional), tradePrice, 9)
    const wanted = quantity === undefined ? all : toDecimal(quantity)
    if (compare(wanted, all) > 0) return `order ${order.id} has only ${toText(all)} left to fill`
    if (wanted.units === 0n) return 'nothing to fill'
    const sells = order.manual === true && order.side === 'sell' && order.legs === undefined
    const uncovered = sells && compare(wanted, this.#freeShares(order)) > 0
    if (uncovered) return 'the account has not enough shares'
    return this.transaction(() => this.#trade(order, wanted, tradePrice, at))
      ? order
      : 'the account has not enough cash'
  }

  /** Puts an order into the book without checks. It rests until it is moved from outside. */
  insert(accountId: string, wanted: NewOrder, submittedAt: number | null): Order {
    this.catchUp()
    const at = this.clock()
    const order: Order = {
      ...wanted,
      id: newId('ord_', 16),
      accountId,
      status: 'accepted',
      filledQuantity: '0',
      filledValue: '0',
      submittedAt: submittedAt ?? at,
      filledAt: null,
      canceledAt: null,
      rejectReason: null,
      heldPrice: '0',
      triggered: false,
      bestPriceCents: null,
      manual: true,
    }
    this.transaction(() => {
      this.#book.enter(order)
      this.#save(order, at)
    })
    return order
  }

  /**
   * Sets the status of an order, also of a final one, which then changes only from outside. Neither cash nor shares move. Accepted
   * and rejected mean that nothing filled. Filled means all of it, the rest at its limit or else at the market's price. Canceled
   * keeps what had filled, unless that was all.
   */
  setStatus(order: Order, status: Exclude<OrderStatus, 'partially_filled'>): void {
    this.catchUp()
    const at = this.clock()
    this.transaction(() => {
      if (status === 'filled' && order.status !== 'filled') {
        const restPrice = order.limitPrice === null ? this.#price(order.symbol, at) : toDecimal(order.limitPrice)
        const quantity = order.quantity ?? toText(divide(toDecimal(order.notional ?? '0'), restPrice, 9))
        const rest = subtract(toDecimal(quantity), toDecimal(order.filledQuantity))
        order.filledValue = toText(add(toDecimal(order.filledValue), multiply(rest, restPrice)))
        order.filledQuantity = quantity
        order.filledAt = at
      }
      if (status === 'accepted' || status === 'rejected' || (status === 'canceled' && order.status === 'filled')) {
        order.filledQuantity = '0'
        order.filledValue = '0'
      }
      if (status !== 'filled') order.filledAt = null
      order.canceledAt = status === 'canceled' ? at : null
      order.rejectReason = status === 'rejected' ? 'Rejected from outside.' : null
      order.status = status
      order.manual = true
      delete order.expired
      delete order.refused
      delete order.cancelAt
      this.#leaveQueue(order, at)
      this.#save(order, at)
    })
  }

  /** Removes all orders of an account with their holds, those to come too. Their trades remain. */
  clear(accountId: string): void {
    this.catchUp()
    this.transaction(() => {
      for (const order of this.#book.removeAll(accountId)) {
        // A final order holds nothing, and the market does not look at it.
        order.status = 'canceled'
        this.#book.watch(order)
        this.#holds.update(order)
        this.#ledger.removeOrder(order)
      }
    })
  }

  /**
   * One page of an account's orders that `keep` keeps, newest first (ties by id, descending) unless asked otherwise: those
   * behind so many of them, or those whose place is behind the order `after`, which need not be kept itself.
   */
  page(accountId: string, keep: (order: Order) => boolean, window: Window): { rows: Order[]; hasMore: boolean } {
    this.catchUp()
    return this.#book.page(accountId, keep, window, this.clock())
  }

  /** An account's cash, in cents as decimal text with two decimals: all of it, what is held, and what is free. */
  cash(account: Account): { balance: string; reserved: string; available: string } {
    this.catchUp()
    return {
      balance: toText(fromCents(BigInt(account.cashCents)), 2),
      reserved: toText(fromCents(this.#holds.heldCents(account.id)), 2),
      available: toText(fromCents(this.#holds.freeCents(account)), 2),
    }
  }

  /** A holding with its worth at the market's price now; money is rounded to cents, the average cost to six decimals. */
  worth(position: Position) {
    const quantity = toDecimal(position.quantity)
    const cost = toDecimal(position.cost)
    const current = this.#price(position.symbol, this.clock())
    const value = multiply(quantity, current)
    const gain = subtract(value, cost)
    const percent = cost.units === 0n ? zero : divide(multiply(gain, { units: 100n, scale: 0 }), cost, 4)
    return {
      averageCost: toText(round(divide(cost, quantity, 12), 6), 2),
      totalCost: toText(round(cost, 2), 2),
      currentPrice: toText(current, 2),
      marketValue: toText(round(value, 2), 2),
      unrealizedGain: toText(round(gain, 2), 2),
      unrealizedGainPercent: toText(round(percent, 2), 2),
    }
  }
}
