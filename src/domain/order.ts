// The vocabulary of orders: types and pure functions. All words are ours; a broker's words stop at its adapter.

import { compareInstants } from './instant.ts'

/** The id of a broker of the registry (brokers/registry.ts), a value of the enum `Broker`. */
export type BrokerId = string

// `…Sent`: the values that a caller may send. Answers may also have UNKNOWN, for a broker's word that is not known here.
export type OrderSideSent = 'BUY' | 'SELL' | 'SELL_SHORT' | 'BUY_TO_COVER'
export type OrderSide = OrderSideSent | 'UNKNOWN'

export type OrderTypeSent = 'MARKET' | 'LIMIT' | 'STOP' | 'STOP_LIMIT' | 'TRAILING_STOP'
export type OrderType = OrderTypeSent | 'UNKNOWN'

export type TimeInForceSent = 'DAY' | 'GTC' | 'OPG' | 'CLS' | 'IOC' | 'FOK'
export type TimeInForce = TimeInForceSent | 'UNKNOWN'

export type CommissionTypeSent = 'NOTIONAL' | 'QTY' | 'BPS'
export type CommissionType = CommissionTypeSent | 'UNKNOWN'

export type KnownOrderStatus =
  | 'PENDING'
  | 'ACCEPTED'
  | 'PARTIALLY_FILLED'
  | 'PENDING_CANCEL'
  | 'PENDING_REPLACE'
  | 'FILLED'
  | 'CANCELED'
  | 'REJECTED'
  | 'EXPIRED'
  | 'REPLACED'
export type OrderStatus = KnownOrderStatus | 'UNKNOWN'

export type OrderState = 'OPEN' | 'CLOSED'

export type SecurityType = 'EQUITY' | 'OPTION' | 'UNKNOWN'
export type OptionRight = 'CALL' | 'PUT' | 'UNKNOWN'

/** Whether an order of this status may still trade; null for UNKNOWN, because only the broker knows. */
export function stateOf(status: OrderStatus): OrderState | null {
  switch (status) {
    case 'PENDING':
    case 'ACCEPTED':
    case 'PARTIALLY_FILLED':
    case 'PENDING_CANCEL':
    case 'PENDING_REPLACE':
      return 'OPEN'
    case 'FILLED':
    case 'CANCELED':
    case 'REJECTED':
    case 'EXPIRED':
    case 'REPLACED':
      return 'CLOSED'
    case 'UNKNOWN':
      return null
    default:
      return status satisfies never
  }
}

/**
 * A nullable field of an order: its value, null if the broker does not report it, or the Error that says why the broker's
 * value cannot be read. graphql-js answers an Error in a field with null and that error, so the other fields of the order are
 * still answered.
 */
export type Field<T> = T | null | Error

/** An account: its id here, and its broker. */
export interface TradingAccount {
  id: string
  broker: BrokerId
}

export interface OrderLeg {
  symbol: string | null
  securityType: SecurityType | null
  side: OrderSide | null
  ratio: string | null
  right: OptionRight | null
  strikePrice: string | null
  expiration: string | null
}

/**
 * One order as its broker reported it. Decimals are strings with the broker's own digits, instants RFC 3339 in UTC. Fields
 * have the names of the graph, so that GraphQL reads them without a resolver. Not frozen, because federation writes
 * `__typename` onto entities.
 */
export interface Order {
  id: string
  broker: BrokerId
  account: TradingAccount
  /** Null if its ticker names another instrument: an option has the ticker of its underlying. */
  asset: { symbol: string } | null
  symbol: string
  securityType: SecurityType | null
  legs: OrderLeg[]
  currency: Field<string>
  clientOrderId: Field<string>
  side: OrderSide
  type: OrderType
  timeInForce: TimeInForce
  quantity: Field<string>
  notional: Field<string>
  limitPrice: Field<string>
  stopPrice: Field<string>
  trailPercent: Field<string>
  trailPrice: Field<string>
  extendedHours: Field<boolean>
  status: OrderStatus
  brokerStatus: string | null
  state: OrderState | null
  isCancelable: boolean
  filledQuantity: Field<string>
  remainingQuantity: Field<string>
  averagePrice: Field<string>
  commission: Field<string>
  commissionType: CommissionType | null
  submittedAt: Field<string>
  filledAt: Field<string>
  canceledAt: Field<string>
  rejectReason: Field<string>
  /** Whether the answer that it comes from may lack each PartialField, which a single read has. */
  isPartial: boolean
}

/** Fields that lists and answers to writes may leave out. */
export type PartialField = 'currency' | 'clientOrderId' | 'extendedHours' | 'commission' | 'commissionType'

/**
 * Names an order at its broker. `accountId` is null if the caller has not named the account; only a broker that reads orders
 * under their account needs it.
 */
export interface OrderKey {
  broker: BrokerId
  id: string
  accountId: string | null
  /** Whether the order has to come from a single read, because the answer at hand leaves fields out. */
  mustBeWhole: boolean
}

/** The filter of an order list. A part that is null keeps all orders, and all other parts have to hold. */
export interface OrderFilter {
  statuses: readonly KnownOrderStatus[] | null
  state: OrderState | null
  symbol: string | null
  side: OrderSideSent | null
  /** Instants in UTC; the first is inclusive, the second exclusive. */
  submittedAfter: string | null
  submittedBefore: string | null
}

/** An order to place, after validation. Decimals with the caller's own digits. */
export interface NewOrder {
  accountId: string
  clientOrderId: string
  symbol: string
  side: OrderSideSent
  type: OrderTypeSent
  timeInForce: TimeInForceSent
  quantity: string | null
  notional: string | null
  limitPrice: string | null
  stopPrice: string | null
  trailPercent: string | null
  trailPrice: string | null
  extendedHours: boolean | null
  commission: string | null
  commissionType: CommissionTypeSent | null
}

export type OrderRejectionCode =
  | 'INSUFFICIENT_FUNDS'
  | 'INSUFFICIENT_POSITION'
  | 'MARKET_CLOSED'
  | 'ASSET_NOT_FOUND'
  | 'ASSET_NOT_TRADABLE'
  | 'ACCOUNT_NOT_APPROVED'
  | 'ACCOUNT_RESTRICTED'
  | 'ACCOUNT_NOT_FOUND'
  | 'INVALID_ORDER'
  | 'OTHER'

/** Compares for a list of orders: newest first, ties by id. An order without a known time of submission is newest. */
export function compareNewestFirst(a: OrderRank, b: OrderRank): number {
  if (a.submittedAt !== b.submittedAt) {
    if (a.submittedAt === null) return -1
    if (b.submittedAt === null) return 1
    const byTime = compareInstants(b.submittedAt, a.submittedAt)
    if (byTime !== 0) return byTime
  }
  return a.id < b.id ? 1 : a.id > b.id ? -1 : 0
}

/** The values that lists are sorted by. */
export interface OrderRank {
  submittedAt: string | null
  id: string
}

/** The rank of an order; a time that cannot be read counts as not known. */
export function rankOf(order: Order): OrderRank {
  return { submittedAt: typeof order.submittedAt === 'string' ? order.submittedAt : null, id: order.id }
}
