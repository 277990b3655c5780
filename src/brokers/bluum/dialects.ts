// Bluum's trading API in its two generations, one table each: paths, names of fields, words, and what its refusals are
// about. Host, version and credentials are the same for both, so nothing but a setting tells which one is spoken. The
// adapter in bluum.ts knows no other difference between them.
//
// As Bluum's pages stood in 2026-03 and in 2026-07: "Order", "List orders", "Cancel an order", "Error".

import { readInstant } from '../../domain/instant.ts'
import type {
  CommissionType,
  KnownOrderStatus,
  OrderRejectionCode,
  OrderSide,
  OrderType,
  TimeInForce,
} from '../../domain/order.ts'
import type { BrokerFeatures } from '../broker.ts'
import { path } from '../../upstream/http.ts'

/** By what its paths begin with: `/trading/accounts/…`, or the newer `/investors/…`. */
export type BluumApi = 'accounts' | 'investors'

/** The features, paths and words of one generation of the API. */
export interface Dialect {
  features: BrokerFeatures
  paths: {
    accounts: string
    orders: (accountId: string) => string
    /** Null if the path needs the account and it is not known. */
    order: (id: string, accountId: string | null) => string | null
    cancel: (id: string, accountId: string) => string
  }
  /** Whether the list of accounts comes in pages; else one answer holds all. */
  pagesAccounts: boolean
  /** The fields that the generations name differently; all others have the same name in both. */
  fields: {
    accountId: string
    quantity: string
    filledQuantity: string
    remainingQuantity: string
    canceledAt: string
    rejectReason: string
  }
  statuses: Readonly<Record<string, KnownOrderStatus>>
  /** Words that mean another status once something has filled. */
  statusesOnceFilled: Readonly<Record<string, KnownOrderStatus>>
  /** The list that shows the orders of a status. */
  statusFilters: Readonly<Partial<Record<KnownOrderStatus, StatusFilter>>>
  commissionTypes: Readonly<Record<string, CommissionType>>
  /** The instant that lists are taken to be sorted by, as `parseInstant` returns it; null where the row has none. */
  readListedAt: (row: Readonly<Record<string, unknown>>) => string | null
  /** How much later than that an order can be submitted, in ms. */
  submittedLaterMs: number
  /** The subject of a refused field of the request or its path, if that is not the order. */
  paramsAbout: Readonly<Record<string, 'account' | 'orderId'>>
  /** Whether an id has the form of another broker's ids. */
  isForeignId: (id: string) => boolean
}

/** A value of the list's parameter `status`. */
export interface StatusFilter {
  word: string
  /** Whether such a list also has orders of other statuses. */
  isGroup: boolean
}

const features: Omit<BrokerFeatures, 'readsOne'> = {
  name: 'Bluum',
  statuses: ['ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'REJECTED'],
  sides: ['BUY', 'SELL'],
  types: ['MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT', 'TRAILING_STOP'],
  timesInForce: ['DAY', 'GTC', 'OPG', 'CLS', 'IOC', 'FOK'],
  extras: ['notional', 'extendedHours', 'commission'],
  filters: ['status', 'symbol', 'side'],
}

const accounts: Omit<Dialect, 'isForeignId'> = {
  features: { ...features, readsOne: 'byId' },
  paths: {
    accounts: '/accounts',
    orders: (accountId) => path`/trading/accounts/${accountId}/orders`,
    // The path carries no account.
    order: (id) => path`/trading/orders/${id}`,
    cancel: (id, accountId) => path`/trading/accounts/${accountId}/orders/${id}/cancel`,
  },
  pagesAccounts: false,
  fields: {
    accountId: 'account_id',
    quantity: 'qty',
    filledQuantity: 'filled_qty',
    remainingQuantity: 'remaining_qty',
    canceledAt: 'canceled_at',
    rejectReason: 'reject_reason',
  },
  // There is no expired state; an unfilled day order ends as canceled.
  statuses: {
    accepted: 'ACCEPTED',
    partially_filled: 'PARTIALLY_FILLED',
    filled: 'FILLED',
    canceled: 'CANCELED',
    rejected: 'REJECTED',
  },
  statusesOnceFilled: {},
  statusFilters: {
    ACCEPTED: { word: 'accepted', isGroup: false },
    PARTIALLY_FILLED: { word: 'partially_filled', isGroup: false },
    FILLED: { word: 'filled', isGroup: false },
    CANCELED: { word: 'canceled', isGroup: false },
    REJECTED: { word: 'rejected', isGroup: false },
  },
  commissionTypes: { notional: 'NOTIONAL', qty: 'QTY', bps: 'BPS' },
  readListedAt: ({ submitted_at: time }) => readInstant(time),
  submittedLaterMs: 0,
  paramsAbout: {},
}

const investors: Omit<Dialect, 'isForeignId'> = {
  features: { ...features, readsOne: 'underAccount' },
  paths: {
    accounts: '/investors',
    orders: (accountId) => path`/investors/${accountId}/orders`,
    order: (id, accountId) => (accountId === null ? null : path`/investors/${accountId}/orders/${id}`),
    cancel: (id, accountId) => path`/investors/${accountId}/orders/${id}/cancel`,
  },
  pagesAccounts: true,
  fields: {
    accountId: 'investor_id',
    quantity: 'quantity',
    filledQuantity: 'filled_quantity',
    remainingQuantity: 'remaining_quantity',
    canceledAt: 'cancelled_at',
    rejectReason: 'failure_reason',
  },
  // `pending` is ACCEPTED and not PENDING, as in its mapping: some pages have no `open` for an order, so that an order which rests
  // at the market is still `pending`, and a list of working orders must contain it.
  statuses: {
    pending: 'ACCEPTED',
    open: 'ACCEPTED',
    partial: 'PARTIALLY_FILLED',
    filled: 'FILLED',
    cancelled: 'CANCELED',
    failed: 'REJECTED',
  },
  statusesOnceFilled: { open: 'PARTIALLY_FILLED' },
  // As a filter `open` is a group, all that is not final, and what is working may be called `pending`, `open` or `partial`.
  statusFilters: {
    ACCEPTED: { word: 'open', isGroup: true },
    PARTIALLY_FILLED: { word: 'open', isGroup: true },
    FILLED: { word: 'filled', isGroup: false },
    CANCELED: { word: 'cancelled', isGroup: false },
    REJECTED: { word: 'failed', isGroup: false },
  },
  commissionTypes: { notional: 'NOTIONAL', per_share: 'QTY', bps: 'BPS' },
  // Every order has been created, while `submitted_at` comes with the custodian and in no order that a list has to follow.
  readListedAt: ({ created, submitted_at: time }) => readInstant(created) ?? readInstant(time),
  // An order for the next open waits over a long weekend at most.
  submittedLaterMs: 5 * 86_400_000,
  // A bare UUID in the place of an id answers 400.
  paramsAbout: { investor_id: 'account', order_id: 'orderId' },
}

export const dialects: Readonly<Record<BluumApi, Omit<Dialect, 'isForeignId'>>> = { accounts, investors }

// ---- what both have in common -----------------------------------------------------------------------------------

export const sides = { buy: 'BUY', sell: 'SELL' } as const satisfies Record<string, OrderSide>
export const types = {
  market: 'MARKET',
  limit: 'LIMIT',
  stop: 'STOP',
  stop_limit: 'STOP_LIMIT',
  trailing_stop: 'TRAILING_STOP',
} as const satisfies Record<string, OrderType>
export const timesInForce = {
  day: 'DAY',
  gtc: 'GTC',
  opg: 'OPG',
  cls: 'CLS',
  ioc: 'IOC',
  fok: 'FOK',
} as const satisfies Record<string, TimeInForce>

/** No order of this id, or none that the credential sees. */
export const noSuchResource = 'BLUM-404-001'

// One catalogue of codes for both generations (Bluum, "Error").

/**
 * Bluum's refusals of an order, by its own codes; where a code is not listed, by its HTTP status. A code carries a
 * status too, and one that says something else than no to this order is no refusal of it: a 422 with BLUM-409-001 still
 * means that the order may exist.
 */
export const rejections: Readonly<Record<string, OrderRejectionCode>> = {
  'BLUM-403-002': 'ACCOUNT_NOT_APPROVED',
  'BLUM-403-004': 'ACCOUNT_RESTRICTED',
  'BLUM-404-001': 'ACCOUNT_NOT_FOUND',
  'BLUM-404-003': 'ASSET_NOT_FOUND',
  'BLUM-422-001': 'INSUFFICIENT_FUNDS',
  'BLUM-422-002': 'MARKET_CLOSED',
  'BLUM-422-003': 'ASSET_NOT_TRADABLE',
  'BLUM-422-004': 'INSUFFICIENT_POSITION',
  '400': 'INVALID_ORDER',
  '403': 'OTHER',
  '422': 'OTHER',
}

/** These are about our key, our plan or our address, not about the order: it was not looked at. */
export const notAboutTheOrder: ReadonlySet<string> = new Set([
  'BLUM-403-001',
  'BLUM-403-003',
  'BLUM-404-002',
  'PRODUCT_NOT_ENABLED',
])

/**
 * Types of errors that are not a rejection of the order. Bluum does not document which type goes with which code, so a type can
 * only cancel a rejection, never make one.
 */
export const typesInDoubt: ReadonlySet<string> = new Set([
  'api_error',
  'authentication_error',
  'conflict_error',
  'idempotency_error',
  'rate_limit_error',
])
