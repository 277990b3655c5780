// The interface of a broker. Everything that is peculiar to a broker's API stays behind it.

import { compareInstants } from '../domain/instant.ts'
import type {
  BrokerId,
  KnownOrderStatus,
  NewOrder,
  Order,
  OrderKey,
  OrderRejectionCode,
  OrderSideSent,
  OrderStatus,
  OrderTypeSent,
  TimeInForceSent,
} from '../domain/order.ts'

import { UpstreamError } from '../upstream/errors.ts'
import type { ReadScope } from '../upstream/readScope.ts'

/** The most rows of a list that one page may ask for. */
export const pageSizeMax = 100

/**
 * A broker's order API in our vocabulary. Reads are plural because only the adapter knows what its REST API can merge into
 * one call. Their answers have the length and order of the keys or queries, with an UpstreamError in each place that failed.
 * Created once per process; its creator calls `close`.
 */
export interface Broker {
  readonly id: BrokerId
  /** The behaviour that `certify` has observed of this broker, from the settings; nothing by default. */
  readonly capabilities: BrokerCapabilities
  readonly features: BrokerFeatures
  /**
   * Returns each order; null if the broker has no such order, AccountNeeded if the broker reads an order only under its account
   * and the account is not known.
   */
  orders(keys: readonly OrderKey[], scope: ReadScope): Promise<(Order | null | UpstreamError)[]>
  /**
   * Returns the lists that show all orders of `statuses`, as groups of statuses: each group is one list of the broker's API,
   * and no status is in two groups. Sends nothing.
   */
  planLists(statuses: readonly KnownOrderStatus[]): (readonly KnownOrderStatus[])[]
  /** Returns each page, newest first. Throws RangeError if the statuses of a query are not one group of `planLists`. */
  pages(queries: readonly PageQuery[], scope: ReadScope): Promise<(Page | UpstreamError)[]>
  /** Returns the ids of all accounts that the credential sees. Throws UpstreamError. */
  accounts(scope: ReadScope): Promise<string[]>
  /** Returns the fields of `order` that this broker does not support; empty if it supports all. Sends nothing. */
  unsupported(order: NewOrder): Unsupported[]
  /**
   * Returns the rows of one list for a placement, as its pre-send snapshot or for a lookup. Throws UpstreamError if a call
   * fails; the search then proves nothing.
   */
  scan(query: ScanQuery, scope: ReadScope): Promise<Scan>
  /**
   * Sends the order once; never starts after `sendBy` (epoch ms). `beforeSend` is awaited when the call has its permit, before
   * any byte leaves; if it throws, nothing is sent and its error is thrown. If the broker proves that it did not process the
   * order because a token had expired, the order is sent once more with the next token, and `beforeSend` is awaited again.
   * Throws UpstreamError, whose `effect` says whether an order may exist. Bounded by its own deadline, never by the caller's.
   */
  place(order: NewOrder, options: PlaceOptions): Promise<PlaceAnswer>
  /**
   * Sends one cancel call; never starts after `sendBy` (epoch ms). Resolves with the order as the answer shows it, or with
   * null if the answer does not show it. Throws UpstreamError.
   */
  cancel(target: CancelTarget, sendBy: number): Promise<Order | null>
  /** Closes the connections when the calls under way have ended, at the latest after `withinMs`. */
  close(withinMs: number): Promise<void>
}

/**
 * The broker features of one API, by its documents. A missing feature is refused before anything is sent, or its filter is
 * applied here. docs/reference/brokers.md is generated from this.
 */
export interface BrokerFeatures {
  /** The name of the broker in messages. */
  readonly name: string
  /** The statuses that the broker reports. A list of another status must not be requested. */
  readonly statuses: readonly KnownOrderStatus[]
  /** The sides that the broker knows. A list of another side must not be requested. */
  readonly sides: readonly OrderSideSent[]
  readonly types: readonly OrderTypeSent[]
  readonly timesInForce: readonly TimeInForceSent[]
  /** Fields of a placement that only some brokers accept. */
  readonly extras: readonly ('notional' | 'extendedHours' | 'commission')[]
  /** Filters of the broker's lists. Others are applied here, within a bounded search. */
  readonly filters: readonly ListFilterName[]
  /** How one order is read: by its id alone, by its id under its account, or only from lists. */
  readonly readsOne: 'byId' | 'underAccount' | 'inLists'
}

/** `submitted` is an interval of time. */
type ListFilterName = 'status' | 'symbol' | 'side' | 'submitted'

/** Returns the fields of `order` that `features` do not support; empty if it supports all. */
export function findUnsupported(features: BrokerFeatures, order: NewOrder): Unsupported[] {
  const { name, sides, types, timesInForce, extras } = features
  const found: Unsupported[] = []
  if (!sides.includes(order.side)) found.push({ field: 'side', message: `${name} takes ${toWords(sides)} only.` })
  if (!types.includes(order.type)) {
    found.push({ field: 'type', message: `${name} takes no ${order.type} orders: ${toWords(types)} only.` })
  }
  if (!timesInForce.includes(order.timeInForce)) {
    found.push({ field: 'timeInForce', message: `${name} takes ${toWords(timesInForce)} only.` })
  }
  if (order.notional !== null && !extras.includes('notional')) {
    found.push({ field: 'notional', message: `${name} takes no cash amounts; give quantity instead.` })
  }
  if (order.extendedHours === true && !extras.includes('extendedHours')) {
    found.push({ field: 'extendedHours', message: `${name} trades in regular hours only; leave extendedHours out.` })
  }
  for (const field of ['commission', 'commissionType'] as const) {
    if (order[field] === null || extras.includes('commission')) continue
    found.push({ field, message: `${name} takes no commission with an order; leave ${field} out.` })
  }
  return found
}

/** A field of an order that its broker does not support, and a message with the fix. */
export interface Unsupported {
  field: keyof NewOrder
  message: string
}

function toWords(values: readonly string[]): string {
  return values.length < 2 ? values.join() : `${values.slice(0, -1).join(', ')} and ${values.at(-1)}`
}

/** Returns `broker` with some of its methods replaced. Closing it closes `broker`. */
export function wrapBroker(broker: Broker, replaced: Partial<Broker>): Broker {
  return {
    id: broker.id,
    capabilities: broker.capabilities,
    features: broker.features,
    orders: (keys, scope) => broker.orders(keys, scope),
    planLists: (statuses) => broker.planLists(statuses),
    pages: (queries, scope) => broker.pages(queries, scope),
    accounts: (scope) => broker.accounts(scope),
    unsupported: (order) => broker.unsupported(order),
    scan: (query, scope) => broker.scan(query, scope),
    place: (order, options) => broker.place(order, options),
    cancel: (target, sendBy) => broker.cancel(target, sendBy),
    close: (withinMs) => broker.close(withinMs),
    ...replaced,
  }
}

/** The brokers of this process. A broker that is not configured is absent. */
export type Brokers = ReadonlyMap<BrokerId, Broker>

/** One list at a broker: of one account, of some statuses or of all, resumed after a position. */
export interface PageQuery {
  broker: BrokerId
  accountId: string
  /** One group of `planLists`; null for all orders. */
  statuses: readonly KnownOrderStatus[] | null
  symbol: string | null
  side: OrderSideSent | null
  /** Instants as `parseInstant` returns them; the first is inclusive, the second exclusive. */
  submittedAfter: string | null
  submittedBefore: string | null
  /** The position of a walk over several lists, because an order can move between them; null for one list. */
  olderThan: Boundary | null
  /** Opaque to all but the adapter that wrote it; null starts at the beginning. */
  after: string | null
  /** Rows wanted, 1 to `pageSizeMax`. */
  first: number
  /** Whether to find out if a row follows, even where that costs a call more. */
  wantsMore: boolean
}

/** Everything newer than the instant `at`, and the orders of that instant named here, has been given. */
export interface Boundary {
  at: string
  ids: readonly string[]
}

/** A row of a list with its times: instants as `parseInstant` returns them, null if they are not known. */
interface PlacedRow {
  id: string
  /** The time by which the list is sorted. */
  at: string | null
  submittedAt: string | null
  value: Order | UpstreamError
}

/**
 * Whether a row fits `query`, `after` aside. Checks every filter, because a broker may ignore those in the call. Keeps a row
 * that cannot be read if its time fits, and a row whose time cannot be read.
 */
export function isAskedFor({ id, at, submittedAt, value }: PlacedRow, query: PageQuery): boolean {
  const { statuses, symbol, side, submittedAfter, submittedBefore, olderThan } = query
  if (submittedAfter !== null && submittedAt !== null && compareInstants(submittedAt, submittedAfter) < 0) return false
  if (submittedBefore !== null && submittedAt !== null && compareInstants(submittedAt, submittedBefore) >= 0)
    return false
  if (value instanceof UpstreamError) return true
  // A missing time counts as newest. A time that cannot be read may be any.
  if (submittedBefore !== null && submittedAt === null && !(value.submittedAt instanceof Error)) return false
  if (olderThan !== null) {
    if (olderThan.ids.includes(id)) return false
    if (at !== null && compareInstants(at, olderThan.at) > 0) return false
  }
  if (statuses !== null && !statuses.some((status) => status === value.status)) return false
  return (symbol === null || value.symbol === symbol) && (side === null || value.side === side)
}

/** Whether a time filter could not be applied to the row because its time cannot be read, so that the page is not complete. */
export function isUndatedFor(
  { submittedAfter, submittedBefore }: PageQuery,
  submittedAt: string | null,
  value: Order | UpstreamError,
): boolean {
  if ((submittedAfter === null && submittedBefore === null) || submittedAt !== null) return false
  return value instanceof UpstreamError || value.submittedAt instanceof Error
}

export interface Page {
  rows: PageRow[]
  /** Whether a row follows the last one; null if that was not wanted and the answer does not show it. */
  hasMore: boolean | null
  /** False when a bound ended the search before the filter could be proved complete. */
  isComplete: boolean
  /** The position of the search, also without rows; null at the very start. */
  position: string | null
}

export interface PageRow {
  order: Order | UpstreamError
  /** Resumes the list after this row. */
  position: string
}

/** The capabilities of a broker. Each is false until `blotter certify` has observed it, because documents prove nothing. */
export type BrokerCapabilities = Readonly<Record<BrokerCapability, boolean>>

export const brokerCapabilities = [
  'clientIdEcho',
  'clientIdUnique',
  'idempotencyKey',
  'lookupByClientId',
  'listNewestFirst',
  'readYourWrites',
  'cancelIdempotent',
  'cancelAsync',
  'stream',
] as const
export type BrokerCapability = (typeof brokerCapabilities)[number]

/** Returns capabilities that are true for `proven` and false for all others. */
export function toCapabilities(proven: readonly BrokerCapability[]): BrokerCapabilities {
  const has = (name: BrokerCapability): boolean => proven.includes(name)
  return Object.freeze({
    clientIdEcho: has('clientIdEcho'),
    clientIdUnique: has('clientIdUnique'),
    idempotencyKey: has('idempotencyKey'),
    lookupByClientId: has('lookupByClientId'),
    listNewestFirst: has('listNewestFirst'),
    readYourWrites: has('readYourWrites'),
    cancelIdempotent: has('cancelIdempotent'),
    cancelAsync: has('cancelAsync'),
    stream: has('stream'),
  })
}

/** The list to search for the order of a placement. */
export interface ScanQuery {
  accountId: string
  /** Both null: the whole list of the account. */
  symbol: string | null
  side: OrderSideSent | null
  /** Orders submitted before this instant are not needed: the search may end there if the list is seen to be sorted. */
  since: string
  /**
   * `snapshot` is a pre-send snapshot, which is short. `lookup` reads many pages and takes at most a fifth of the rate.
   */
  purpose: 'snapshot' | 'lookup'
}

/** Whether `order` fits `query`. An unknown side fits every side. */
export function isSoughtBy({ symbol, side }: Pick<ScanQuery, 'symbol' | 'side'>, order: Order): boolean {
  return (
    (symbol === null || order.symbol === symbol) && (side === null || order.side === side || order.side === 'UNKNOWN')
  )
}

/**
 * Maximum calls of one search. The pre-send snapshot is short, because every placement pays for it. If it is incomplete, an
 * order that shows no client order id cannot be bound, and an operator has to decide.
 */
export const scanCallsMax = { snapshot: 3, lookup: 20 } as const

export interface Scan {
  /** Each order once, in the order of the list. Rows may lack fields that lists leave out, such as the client order id. */
  orders: Order[]
  /**
   * Whether no order that was submitted at `since` or later can be missing. False after too many pages, after a row that cannot
   * be read, or if pages do not join because the list moved.
   */
  isComplete: boolean
}

/**
 * The fields of an order that a cancel call needs. They come from an order that was read or from the record of its placement,
 * never from a caller.
 */
export type CancelTarget = Pick<Order, 'id' | 'account' | 'symbol' | 'side' | 'securityType' | 'legs'>

/** How a placement is sent. */
export interface PlaceOptions {
  idempotencyKey: string
  /** Epoch ms. */
  sendBy: number
  beforeSend: () => Promise<void>
}

/** The broker's answer to a placement that it accepted or rejected with an order. */
export interface PlaceAnswer {
  orderId: string
  status: OrderStatus
  /** The client order id as the answer shows it, empty text included; null if the answer has no such field. */
  clientOrderId: string | null
  /** The order, if the answer holds all that an order needs. */
  order: Order | null
  /** The fields of the answer that differ from what was sent or cannot be read, by the broker's names. */
  differing: readonly string[]
  /** Why it was rejected at once; null where its status is another one. */
  rejection: Rejection | null
}

/** A broker's no to an order. */
export interface Rejection {
  code: OrderRejectionCode
  /** The broker's own code. */
  brokerCode: string | null
  /** The broker's words, cleaned, at most 200 characters. */
  reason: string | null
}

/** No call was made, because the broker reads an order only under its account, which neither the key nor an earlier answer names. */
export class AccountNeeded extends UpstreamError {
  override readonly name = 'AccountNeeded'

  constructor() {
    super('not_sent', 'the broker reads an order only under its account, which is not known')
  }
}

/**
 * The broker has no such order, although an answer showed it, or a placement was bound to it, `ageMs` ago. After
 * `retryAfterMs` the order counts as missing. A caller that may not see its account gets the answer for a missing order.
 */
export class OrderWithheld extends UpstreamError {
  override readonly name = 'OrderWithheld'
  readonly accountId: string
  readonly ageMs: number

  constructor(accountId: string, { ageMs, retryAfterMs }: { ageMs: number; retryAfterMs: number }) {
    const seconds = Math.floor(ageMs / 1_000)
    super('unreadable', `the broker has no such order, which was known to exist ${seconds} s ago`, { retryAfterMs })
    this.accountId = accountId
    this.ageMs = ageMs
  }
}

/** The order is not in the lists that were read, and a bound ended the search before all lists were read. */
export class SearchEnded extends UpstreamError {
  override readonly name = 'SearchEnded'
  /** Orders created at this instant or later were searched; null if that is not known. */
  readonly since: string | null

  constructor(since: string | null) {
    super('unreadable', `the order is not among those that its account has had since ${since ?? 'its newest ones'}`)
    this.since = since
  }
}
