// A small exchange: accounts, orders, holds and fills under an injected clock and market. It imports nothing of
// ours and knows no HTTP. Nothing here runs by itself: every call first brings the book up to the clock's now, so an
// order that crossed while nobody looked is found filled at the time it crossed.
//
// Money and quantities are bigints with a decimal scale; a Number never holds one. Cash moves in whole cents: what a
// buy costs is rounded up, what a sell brings is rounded down, over the order's whole value and not fill by fill, so
// a hold always covers its order.

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

export const orderSides = ['buy', 'sell'] as const
export const orderTypes = ['market', 'limit', 'stop', 'stop_limit', 'trailing_stop'] as const
export const timesInForce = ['day', 'gtc', 'opg', 'cls', 'ioc', 'fok'] as const
export const orderStatuses = ['accepted', 'partially_filled', 'filled', 'canceled', 'rejected'] as const
export const commissionTypes = ['notional', 'qty', 'bps'] as const
export const accountStatuses = ['ACTIVE', 'INACTIVE', 'SUSPENDED', 'PENDING', 'SUBMITTED'] as const
/** What the closed market does with a new order: let it wait, refuse the request, or take it in as rejected. */
export const marketModes = ['open', 'closed-waits', 'closed-refuses', 'closed-rejects'] as const

export type OrderSide = (typeof orderSides)[number]
export type OrderType = (typeof orderTypes)[number]
type TimeInForce = (typeof timesInForce)[number]
type OrderStatus = (typeof orderStatuses)[number]
type CommissionType = (typeof commissionTypes)[number]
export type AccountStatus = (typeof accountStatuses)[number]
type MarketMode = (typeof marketModes)[number]
/** Whose API an account and its orders are reached by. */
export type Broker = 'bluum' | 'aries'

/** A wanted order whose shape has been checked: exactly one of quantity and notional, prices where the type needs them. */
export interface NewOrder {
  symbol: string
  side: OrderSide
  type: OrderType
  timeInForce: TimeInForce
  quantity: string | null
  notional: string | null
  limitPrice: string | null
  stopPrice: string | null
  trailPercent: string | null
  trailPrice: string | null
  extendedHours: boolean
  clientOrderId: string | null
  commission: string | null
  commissionType: CommissionType | null
  /** A sell of shares that are borrowed, or a buy that gives them back: every account here is a cash account. */
  short?: true
}

/** One option of an order. */
export interface Leg {
  side: OrderSide
  /** Contracts of this leg for each one of the order. */
  ratio: string
  right: 'put' | 'call'
  strike: string
  /** A date, such as 2026-09-18. */
  maturity: string
  effect: 'open' | 'close'
}

/** An order. Decimals are text exactly as the caller sent them; times are ms since 1970. */
export interface Order extends NewOrder {
  id: string
  accountId: string
  status: OrderStatus
  filledQuantity: string
  /** Sum of price x quantity over all fills, exact. */
  filledValue: string
  submittedAt: number
  filledAt: number | null
  canceledAt: number | null
  rejectReason: string | null
  /** What kind of no the reason is, where the exchange said it. */
  refused?: Refusal['refused']
  /** Canceled by its time in force, not by anybody. */
  expired?: true
  /** When a caller last saw it change; of the seeded past that is not kept. */
  changedAt?: number
  /**
   * It is an order for options on its symbol. Options have no market here, so it is always manual, and filling it moves
   * neither cash nor shares.
   */
  legs?: readonly Leg[]
  /** The price at which cash is held for the unfilled part of a buy by quantity. */
  heldPrice: string
  /** A stop_limit whose stop was reached is a limit order from then on. */
  triggered: boolean
  /** The best price, in cents, that a trailing stop has seen. */
  bestPriceCents: string | null
  /** Taken in, and unknown to every reader until it enters the book at submittedAt. */
  coming?: true
  /** In the book, and not yet at the custodian: it does not trade. One that failed before stays so. */
  queued?: true
  /** When the custodian has it, where that is not when it was submitted. */
  custodyAt?: number
  /** When a cancel that was taken in takes effect; until then the order lives on. */
  cancelAt?: number
  /** Moved only from outside: it holds nothing, never trades by itself and outlives its day. */
  manual?: true
}

export interface Account {
  id: string
  broker: Broker
  number: string
  walletId: string
  status: AccountStatus
  cashCents: string
  createdAt: number
}

export interface Position {
  id: string
  accountId: string
  symbol: string
  quantity: string
  /** What the held shares cost in all. */
  cost: string
  createdAt: number
  changedAt: number
}

export interface Asset {
  id: string
  symbol: string
  name: string
  venue: string
  tradable: boolean
  fractionable: boolean
}

/** The instruments and their price at any time, in cents; the same question always has the same answer. */
export interface Market {
  asset(symbol: string): Asset | undefined
  priceCents(symbol: string, atMs: number): bigint
}

/** Where the exchange keeps what must outlive the process. `transaction` may be nested; the outermost one commits. */
export interface Ledger {
  load(): { accounts: Account[]; positions: Position[]; orders: Order[]; offsetMs: number; evaluatedAt: number }
  saveAccount(account: Account): void
  savePosition(position: Position): void
  removePosition(position: Position): void
  saveOrder(order: Order): void
  removeOrder(order: Order): void
  saveClock(offsetMs: number, evaluatedAt: number): void
  transaction<T>(work: () => T): T
}

/** Why the exchange says no. The dialect turns it into the broker's code. */
export interface Refusal {
  refused:
    | 'accountNotApproved'
    | 'accountRestricted'
    | 'unknownAsset'
    | 'notTradable'
    | 'marketClosed'
    | 'funds'
    | 'shares'
    | 'shortSale'
    | 'final'
  message: string
}

export interface PlaceOptions {
  /** The order is held and answered now, and enters the book, as submitted then, so long afterwards. */
  delayMs?: number | null
  /** The order reaches the custodian, where it trades, so long after it was submitted. */
  custodyMs?: number
  /**
   * What makes a rejected order, not a refusal: nothing; too little cash or shares, an untradable asset and a closed
   * market; or those and an account that may not trade, an unknown symbol and a short sale.
   */
  takeIn?: 'nothing' | 'tradable' | 'everything'
}

// A limit order of this many shares or more finds only half of them at first; the rest fills in a later second.
const largeOrderShares = 1000n
// A catch-up over any stretch of time looks at the price at most this often (plus once per open or close that matters).
const samplesMax = 500
const dayMs = 86_400_000
// Of each order the first state is remembered and this many of its latest, for readers who see the past.
const versionsMax = 16
// Every day is a trading day with one open and one close: there are no weekends or holidays here.
const openOfDayMs = 14.5 * 3_600_000
const closeOfDayMs = 21 * 3_600_000

export function isOpen(order: Order): boolean {
  return order.status === 'accepted' || order.status === 'partially_filled'
}

/** Shares still to trade. Nobody knows them for an order by cash amount before it fills, so there it is 0. */
export function remainingQuantity(order: Order): string {
  if (order.quantity === null) return '0'
  // Untouched orders answer with the digits they were sent with: "10.50" stays "10.50".
  if (order.filledQuantity === '0') return order.quantity
  return toText(subtract(toDecimal(order.quantity), toDecimal(order.filledQuantity)))
}

/** "0.00" before the first fill; exact when every fill had one price, else rounded to six decimals. */
export function averagePrice(order: Order): string {
  const quantity = toDecimal(order.filledQuantity)
  if (quantity.units === 0n) return '0.00'
  const value = toDecimal(order.filledValue)
  const average = divide(value, quantity, value.scale + order.filledQuantity.length + 7)
  const exact = compare(multiply(average, quantity), value) === 0
  return toText(exact ? average : round(average, 6), 2)
}

/** A new identifier: the prefix and so many lower-case letters and digits. Random, so a wiped state repeats none. */
function newId(prefix: string, length: number): string {
  const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789'
  let id = prefix
  for (let i = 0; i < length; i++) id += alphabet[randomInt(alphabet.length)]
  return id
}

/** The first 14:30 or 21:00 UTC strictly after `afterMs`. */
function nextTimeOfDay(timeOfDayMs: number, afterMs: number): number {
  const today = Math.floor(afterMs / dayMs) * dayMs + timeOfDayMs
  return today > afterMs ? today : today + dayMs
}

/** When the trading day decides about this order: day and cls at the next close, opg at the next open. */
export function deadlineOf(order: Pick<Order, 'timeInForce' | 'submittedAt'>): number | null {
  if (order.timeInForce === 'day' || order.timeInForce === 'cls') return nextTimeOfDay(closeOfDayMs, order.submittedAt)
  if (order.timeInForce === 'opg') return nextTimeOfDay(openOfDayMs, order.submittedAt)
  return null
}

function isAuction(order: Order): boolean {
  return order.timeInForce === 'opg' || order.timeInForce === 'cls'
}

export type Exchange = ReturnType<typeof createExchange>

/**
 * Opens the book kept in `ledger`. The caller closes the ledger. Time is `now()` plus an offset that `advance` grows;
 * it never runs backwards, and starts no earlier than the book's last evaluation, also after a restart.
 */
export function createExchange(options: { ledger: Ledger; market: Market; now: () => number }) {
  return new SandboxExchange(options)
}

class SandboxExchange implements Exchange {
  readonly #ledger
  readonly #market
  readonly #now
  readonly #accounts = new Map<string, Account>()
  readonly #orders = new Map<string, Order>()
  readonly #books = new Map<string, Order[]>() // per account, oldest first, ties by id
  readonly #positions = new Map<string, Map<string, Position>>() // per account, by symbol
  readonly #open = new Set<Order>() // those the market decides about, in the order of submission
  readonly #canceling = new Set<Order>() // open orders with a cancelAt
  readonly #coming = new Set<Order>() // orders not yet in any book
  readonly #queued = new Set<Order>() // open orders not yet at the custodian
  readonly #versions = new Map<string, { at: number; order: Order }[]>() // per order, oldest first
  readonly #heldCents = new Map<string, bigint>() // per account
  readonly #heldShares = new Map<string, Decimal>() // per account and symbol
  readonly #holds = new Map<string, { cents: bigint; shares: Decimal }>() // per open order
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
    const order = this.#orders.get(id)
    return order === undefined ? undefined : this.#asOf(order, lagMs)
  }

  /** Whether the account has an order with this reference, of whatever status, in its book or to come. */
  hasClientOrderId(accountId: string, clientOrderId: string): boolean {
    const taken = (order: Order): boolean => order.accountId === accountId && order.clientOrderId === clientOrderId
    return this.#books.get(accountId)?.some(taken) === true || [...this.#coming].some(taken)
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

  /** Orders that wait are looked at again from this moment on; what the price did while closed is past. */
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
    for (const map of [
      this.#accounts,
      this.#orders,
      this.#books,
      this.#positions,
      this.#heldCents,
      this.#heldShares,
      this.#holds,
      this.#versions,
    ])
      map.clear()
    this.#open.clear()
    this.#canceling.clear()
    this.#coming.clear()
    this.#queued.clear()
    const loaded = this.#ledger.load()
    for (const account of loaded.accounts) {
      this.#accounts.set(account.id, account)
      this.#books.set(account.id, [])
      this.#positions.set(account.id, new Map())
    }
    for (const position of loaded.positions) this.#positions.get(position.accountId)?.set(position.symbol, position)
    for (const order of loaded.orders.sort((a, b) => this.#byAge(a, b))) {
      this.#hold(order)
      if (order.coming === true) {
        this.#coming.add(order)
        continue
      }
      this.#enter(order)
      // What it went through before is not on file: to a reader of the past it was always like this.
      this.#remember(order, order.submittedAt)
    }
    this.#evaluatedAt = loaded.evaluatedAt
    this.#offsetMs = Math.max(loaded.offsetMs, this.#evaluatedAt - this.#now())
    this.#latest = Math.max(this.#latest, this.#evaluatedAt)
  }

  #byAge(a: Order, b: Order): number {
    return a.submittedAt - b.submittedAt || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
  }

  #enter(order: Order): void {
    this.#orders.set(order.id, order)
    const book = this.#books.get(order.accountId)
    if (book === undefined) throw new Error(`order ${order.id} belongs to no account`)
    let place = book.length
    for (; place > 0; place--) {
      const before = book[place - 1]
      if (before === undefined || this.#byAge(before, order) < 0) break
    }
    book.splice(place, 0, order)
    this.#watch(order)
  }

  #leaveQueue(order: Order, at: number): void {
    if (order.queued === true) order.custodyAt = at
    delete order.queued
  }

  #watch(order: Order): void {
    if (isOpen(order) && order.manual !== true) this.#open.add(order)
    else this.#open.delete(order)
    if (isOpen(order) && order.cancelAt !== undefined) this.#canceling.add(order)
    else this.#canceling.delete(order)
    if (isOpen(order) && order.queued === true) this.#queued.add(order)
    else this.#queued.delete(order)
  }

  /** Keeps the order's state as of `at`. In memory only: a restart forgets all but the present. */
  #remember(order: Order, at: number): void {
    const kept = this.#versions.get(order.id) ?? []
    this.#versions.set(order.id, kept)
    kept.push({ at, order: { ...order } })
    // The first stays, as it tells when the order came; a reader of what is dropped here sees a state still older.
    if (kept.length > versionsMax + 1) kept.splice(1, 1)
  }

  /** The order as it was `lagMs` ago; undefined if it had not come yet. */
  #asOf(order: Order, lagMs: number): Order | undefined {
    if (lagMs === 0) return order
    const at = this.clock() - lagMs
    return this.#versions.get(order.id)?.findLast((version) => version.at <= at)?.order
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
  #wantedHold(order: Order): { cents: bigint; shares: Decimal } {
    if (!isOpen(order) || order.manual === true) return { cents: 0n, shares: zero }
    if (order.side === 'sell') return { cents: 0n, shares: toDecimal(remainingQuantity(order)) }
    if (order.notional !== null) return { cents: ceilCents(toDecimal(order.notional)), shares: zero }
    const spent = toDecimal(order.filledValue)
    const rest = multiply(toDecimal(remainingQuantity(order)), toDecimal(order.heldPrice))
    return { cents: ceilCents(add(spent, rest)) - ceilCents(spent), shares: zero }
  }

  /** Makes the account's holds match what the order needs now; to be called after every change of an order. */
  #hold(order: Order): void {
    const before = this.#holds.get(order.id) ?? { cents: 0n, shares: zero }
    const after = this.#wantedHold(order)
    const shareKey = `${order.accountId} ${order.symbol}`
    this.#heldCents.set(order.accountId, (this.#heldCents.get(order.accountId) ?? 0n) - before.cents + after.cents)
    this.#heldShares.set(shareKey, add(subtract(this.#heldShares.get(shareKey) ?? zero, before.shares), after.shares))
    if (isOpen(order)) this.#holds.set(order.id, after)
    else this.#holds.delete(order.id)
  }

  #freeCents(account: Account): bigint {
    return BigInt(account.cashCents) - (this.#heldCents.get(account.id) ?? 0n)
  }

  #freeShares({ accountId, symbol }: Order): Decimal {
    const owned = toDecimal(this.#positions.get(accountId)?.get(symbol)?.quantity ?? '0')
    return subtract(owned, this.#heldShares.get(`${accountId} ${symbol}`) ?? zero)
  }

  /** To be called after every change of an order that a caller can see; `at` is when it changed. */
  #save(order: Order, at: number): void {
    order.changedAt = at
    this.#watch(order)
    this.#hold(order)
    this.#remember(order, at)
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
      if (cost > this.#freeCents(account) + (this.#holds.get(order.id)?.cents ?? 0n)) return false
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
   * Brings the book up to the clock. Prices change once a second; a longer stretch is looked at in at most 500 evenly
   * spread seconds, and at every open or close that decides about an order, so a short spike can be missed. An order
   * or a cancel that was taken in takes effect, and an order reaches the custodian, at its own millisecond; what would
   * have filled before has filled.
   */
  catchUp(): void {
    const at = this.clock()
    const seconds = Math.floor(at / 1000) - Math.floor(this.#evaluatedAt / 1000)
    const cancels = [...this.#canceling].map(({ cancelAt = 0 }) => cancelAt).filter((time) => time <= at)
    const arrivals = [...this.#coming].filter((order) => order.submittedAt <= at)
    const reaching = [...this.#queued, ...arrivals]
      .map(({ custodyAt = Infinity }) => custodyAt)
      .filter((time) => time <= at)
    if (seconds <= 0 && cancels.length === 0 && arrivals.length === 0 && reaching.length === 0) return
    this.transaction(() => {
      const times = new Set<number>()
      const watched = [...this.#open, ...arrivals]
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
        for (const order of this.#canceling) if ((order.cancelAt ?? at) <= time) this.#endCanceled(order, time)
        for (const order of arrivals) if (order.submittedAt === time) this.#arrive(order)
        for (const order of this.#queued) if ((order.custodyAt ?? Infinity) <= time) this.#reach(order, time)
        if (times.has(time)) for (const order of this.#open) this.#evaluate(order, time)
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
      this.#coming.add(order)
      this.#hold(order)
      this.#ledger.saveOrder(order)
    })
    return order
  }

  /** Why there can be no such order at all, whatever the account has; null when there can. */
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
    const needs = this.#wantedHold(order)
    if (needs.cents > 0n && needs.cents > this.#freeCents(account))
      return { refused: 'funds', message: 'Not enough cash.' }
    if (compare(needs.shares, this.#freeShares(order)) > 0)
      return { refused: 'shares', message: 'Not enough shares to sell.' }
    return null
  }

  /** An order's first moment in the book. */
  #arrive(order: Order): void {
    const at = order.submittedAt
    this.#coming.delete(order)
    delete order.coming
    if (this.#mode === 'closed-rejects' && isOpen(order)) {
      order.status = 'rejected'
      order.rejectReason = 'Market is closed.'
      order.refused = 'marketClosed'
    }
    this.#enter(order)
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

  /** The first look at an order, which is the only one that ioc and fok get. */
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
   * Fills an open order from outside, whatever the market says: by `quantity` (all that is left by default) at `price`
   * (the market's, or the limit where the market is beyond it). Returns why not, as text, when it cannot.
   */
  fill(order: Order, quantity?: string, atPrice?: string): Order | string {
    this.catchUp()
    const at = this.clock()
    if (!isOpen(order)) return `order ${order.id} is ${order.status}`
    const marketPrice = this.#price(order.symbol, at)
    const limit = order.limitPrice === null ? null : toDecimal(order.limitPrice)
    // What an option is worth is nothing that its underlying's price tells.
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

  /** Puts an order into the book as it is, whatever it costs and whenever it came: it rests until moved from outside. */
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
      this.#enter(order)
      this.#save(order, at)
    })
    return order
  }

  /**
   * Makes the order say what it is told, final or not before, and leaves it to be moved only from outside. Neither cash
   * nor shares move. Accepted and rejected mean nothing filled; filled means all of it, the rest at its limit or else
   * the market's price; canceled keeps what had filled of it, unless that was all.
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

  /** Removes every order of an account with its holds, those to come too. What they traded stays traded. */
  clear(accountId: string): void {
    this.catchUp()
    this.transaction(() => {
      const unborn = [...this.#coming].filter((order) => order.accountId === accountId)
      for (const order of [...(this.#books.get(accountId)?.splice(0) ?? []), ...unborn]) {
        // An order that is final holds nothing and nobody watches it.
        order.status = 'canceled'
        this.#watch(order)
        this.#coming.delete(order)
        this.#hold(order)
        this.#orders.delete(order.id)
        this.#versions.delete(order.id)
        this.#ledger.removeOrder(order)
      }
    })
  }

  /**
   * One page of an account's orders that `keep` keeps, newest first (ties by id, descending) unless asked otherwise: those
   * behind so many of them, or those whose place is behind the order `after`, which need not be kept itself.
   */
  page(
    accountId: string,
    keep: (order: Order) => boolean,
    window: { offset?: number; after?: Order | undefined; limit: number; oldestFirst?: boolean; lagMs?: number },
  ): { rows: Order[]; hasMore: boolean } {
    this.catchUp()
    const { offset = 0, after, oldestFirst = false } = window
    const book = this.#books.get(accountId) ?? []
    const rows: Order[] = []
    let skipped = 0
    for (let i = 0; i < book.length; i++) {
      const present = book[oldestFirst ? i : book.length - 1 - i]
      if (present !== undefined && after !== undefined) {
        const place = this.#byAge(present, after)
        if (oldestFirst ? place <= 0 : place >= 0) continue
      }
      const order = present === undefined ? undefined : this.#asOf(present, window.lagMs ?? 0)
      if (order === undefined || !keep(order)) continue
      if (skipped < offset) {
        skipped++
        continue
      }
      if (rows.length === window.limit) return { rows, hasMore: true }
      rows.push(order)
    }
    return { rows, hasMore: false }
  }

  /** An account's cash, in cents as decimal text with two decimals: all of it, what is held, and what is free. */
  cash(account: Account): { balance: string; reserved: string; available: string } {
    this.catchUp()
    return {
      balance: toText(fromCents(BigInt(account.cashCents)), 2),
      reserved: toText(fromCents(this.#heldCents.get(account.id) ?? 0n), 2),
      available: toText(fromCents(this.#freeCents(account)), 2),
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
