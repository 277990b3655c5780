// The vocabulary of the sandbox broker: accounts, orders, positions and assets, and what follows from an order alone.

import { compare, divide, multiply, round, subtract, toDecimal, toText } from './amounts.ts'

export const orderSides = ['buy', 'sell'] as const
export const orderTypes = ['market', 'limit', 'stop', 'stop_limit', 'trailing_stop'] as const
export const timesInForce = ['day', 'gtc', 'opg', 'cls', 'ioc', 'fok'] as const
export const orderStatuses = ['accepted', 'partially_filled', 'filled', 'canceled', 'rejected'] as const
export const commissionTypes = ['notional', 'qty', 'bps'] as const
export const accountStatuses = ['ACTIVE', 'INACTIVE', 'SUSPENDED', 'PENDING', 'SUBMITTED'] as const
/** How a closed market treats a new order: it waits, the request is refused, or the order is taken in as rejected. */
export const marketModes = ['open', 'closed-waits', 'closed-refuses', 'closed-rejects'] as const

export type OrderSide = (typeof orderSides)[number]
export type OrderType = (typeof orderTypes)[number]
type TimeInForce = (typeof timesInForce)[number]
export type OrderStatus = (typeof orderStatuses)[number]
type CommissionType = (typeof commissionTypes)[number]
export type AccountStatus = (typeof accountStatuses)[number]
export type MarketMode = (typeof marketModes)[number]
/** The broker through whose API an account and its orders are reached. */
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
  /** The kind of refusal, if the exchange refused it. */
  refused?: Refusal['refused']
  /** Canceled by its time in force, and not by a request. */
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
  /** The cost of all held shares. */
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

/** The storage of the state that must outlive the process. `transaction` may be nested; the outermost one commits. */
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
   * Problems that make a rejected order instead of a refusal: nothing; too little cash or shares, an untradable asset and a closed
   * market; or those and an account that may not trade, an unknown symbol and a short sale.
   */
  takeIn?: 'nothing' | 'tradable' | 'everything'
}

const dayMs = 86_400_000
// Each day is a trading day with one open and one close, without weekends and holidays.
const openOfDayMs = 14.5 * 3_600_000
const closeOfDayMs = 21 * 3_600_000

/** Whether an order may still trade. */
export function isOpen(order: Order): boolean {
  return order.status === 'accepted' || order.status === 'partially_filled'
}

/** Returns the shares still to trade; 0 for an order by cash amount before it fills. */
export function remainingQuantity(order: Order): string {
  if (order.quantity === null) return '0'
  // An order without fills keeps the digits that it was sent with: "10.50" stays "10.50".
  if (order.filledQuantity === '0') return order.quantity
  return toText(subtract(toDecimal(order.quantity), toDecimal(order.filledQuantity)))
}

/** Returns the average price: "0.00" before the first fill, exact if every fill had one price, else rounded to six decimals. */
export function averagePrice(order: Order): string {
  const quantity = toDecimal(order.filledQuantity)
  if (quantity.units === 0n) return '0.00'
  const value = toDecimal(order.filledValue)
  const average = divide(value, quantity, value.scale + order.filledQuantity.length + 7)
  const exact = compare(multiply(average, quantity), value) === 0
  return toText(exact ? average : round(average, 6), 2)
}

/** Returns the first such time of a day strictly after `afterMs`. */
function nextTimeOfDay(timeOfDayMs: number, afterMs: number): number {
  const today = Math.floor(afterMs / dayMs) * dayMs + timeOfDayMs
  return today > afterMs ? today : today + dayMs
}

/** Returns when the trading day decides about an order: day and cls at the next close, opg at the next open; null otherwise. */
export function deadlineOf(order: Pick<Order, 'timeInForce' | 'submittedAt'>): number | null {
  if (order.timeInForce === 'day' || order.timeInForce === 'cls') return nextTimeOfDay(closeOfDayMs, order.submittedAt)
  if (order.timeInForce === 'opg') return nextTimeOfDay(openOfDayMs, order.submittedAt)
  return null
}

/** Compares orders by age, oldest first, ties by id. */
export function byAge(a: Order, b: Order): number {
  return a.submittedAt - b.submittedAt || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
}
