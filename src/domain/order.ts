// The vocabulary of orders. Pure: values in, values out. Every word here is ours; what a broker calls the same thing
// ends at its adapter.

import { compareInstants } from './instant.ts'

export const brokerIds = ['BLUUM', 'ARIES'] as const
export type BrokerId = (typeof brokerIds)[number]

// `…Sent`: what a caller may ask for. Answers may also say UNKNOWN, for a broker's word that is not known here.
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

/** Whether an order of this status may still trade; null for UNKNOWN, which nobody but the broker can tell. */
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
 * A nullable field of an order: its value, null where the broker does not say, or the Error that tells why what the
 * broker said cannot be read. graphql-js answers an Error found in a field's place with null and that error, so one
 * garbled field costs the frontend that field and nothing else.
 */
export type Field<T> = T | null | Error

/** An account as far as the order graph knows it: the broker's name for it, and which broker that is. */
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
 * One order as its broker told it. Decimals are strings with the broker's own digits, instants RFC 3339 in UTC.
 * Fields bear the names of the graph, so that GraphQL reads them as they are. Not frozen: federation writes
 * `__typename` onto entities.
 */
export interface Order {
  id: string
  broker: BrokerId
  account: TradingAccount
  /** Null where its ticker names another instrument: an option bears that of what it is on. */
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
  /** The answer that it comes from may lack each PartialField, which a single read of it would tell. */
  isPartial: boolean
}

/** What lists and answers to writes may leave out of an order. */
export type PartialField = 'currency' | 'clientOrderId' | 'extendedHours' | 'commission' | 'commissionType'

/**
 * What names an order at its broker. `accountId` is a hint, null when nobody has named the account: a broker that
 * reads orders only under their account needs it, the others read without.
 */
export interface OrderKey {
  broker: BrokerId
  id: string
  accountId: string | null
  /** Whether the order has to come from a single read, because an answer that leaves fields out is at hand. */
  mustBeWhole: boolean
}

/** Which orders a list asks for; an absent part keeps everything. `statuses` and `state` both have to hold. */
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

/** What sorts a list of orders: newest first, ties by id; an order whose time of submission is not known is newest. */
export function compareNewestFirst(a: OrderRank, b: OrderRank): number {
  if (a.submittedAt !== b.submittedAt) {
    if (a.submittedAt === null) return -1
    if (b.submittedAt === null) return 1
    const byTime = compareInstants(b.submittedAt, a.submittedAt)
    if (byTime !== 0) return byTime
  }
  return a.id < b.id ? 1 : a.id > b.id ? -1 : 0
}

/** An order's place in a list: the two things lists are sorted by. */
export interface OrderRank {
  submittedAt: string | null
  id: string
}

/** The rank of an order; a time that cannot be read counts as not known. */
export function rankOf(order: Order): OrderRank {
  return { submittedAt: typeof order.submittedAt === 'string' ? order.submittedAt : null, id: order.id }
}

// ---- ids --------------------------------------------------------------------------------------------------------

// Ours and the brokers' ids alike: a part such as `..` survives encodeURIComponent and would turn a cancel's path into
// another call under the broker's key.
const partPattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/

/** Whether `text` can be a broker's own name of something: letters, digits and `. _ : -`, at most 128, a letter or digit first. */
export function isIdPart(text: unknown): text is string {
  return typeof text === 'string' && partPattern.test(text)
}

const ariesPrefix = 'aries:'

/** Which broker an id of ours belongs to: `aries:` ids to Aries, all others to Bluum, whose ids pass as they are. */
export function brokerOf(id: string): BrokerId {
  return id.startsWith(ariesPrefix) ? 'ARIES' : 'BLUUM'
}

/** Returns the account that an order id names; null for Bluum's ids, which name none. */
export function accountInOrderId(orderId: string): string | null {
  const [account, order] = splitId(orderId) ?? []
  return account === undefined || order === undefined ? null : toAriesId(account)
}

/** Whether `id` can name an account here. */
export function isAccountId(id: unknown): id is string {
  return typeof id === 'string' && splitId(id)?.length === 1
}

/** Whether `id` can name an order here: at Aries by its account and its own name, at Bluum by its own alone. */
export function isOrderId(id: unknown): id is string {
  return typeof id === 'string' && splitId(id)?.length === (brokerOf(id) === 'ARIES' ? 2 : 1)
}

/** Aries' account, or one of its orders, by the names that they have there: `aries:<account>`, `aries:<account>:<order>`. */
export function toAriesId(...parts: readonly [account: string] | readonly [account: string, order: string]): string {
  return spell(parts)
}

/**
 * The broker's own names in an id, decoded; null for what can be no id. One thing has one spelling: with two of them an
 * account would be two, and a key that was used in one could be sent again in the other.
 */
export function splitId(id: string): string[] | null {
  if (brokerOf(id) === 'BLUUM') return isIdPart(id) ? [id] : null
  const parts = id.slice(ariesPrefix.length).split(':').map(decode)
  return parts.every((part): part is string => isIdPart(part)) && id === spell(parts) ? parts : null
}

function spell(parts: readonly string[]): string {
  return ariesPrefix + parts.map(encodeURIComponent).join(':')
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch {
    return null
  }
}
