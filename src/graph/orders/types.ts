// Orders and accounts as GraphQL shows them. The descriptions are what a frontend engineer reads in GraphiQL.

import { ImplementableObjectRef } from '@pothos/core'
import type { BuilderTypes } from '../builder.ts'
import { builder } from '../builder.ts'
import type { Context } from '../context.ts'
import type {
  CommissionType,
  CommissionTypeSent,
  KnownOrderStatus,
  Order,
  OrderLeg,
  OrderSide,
  OrderSideSent,
  OrderState,
  OrderType,
  OrderTypeSent,
  OptionRight,
  PartialField,
  SecurityType,
  TimeInForce,
  TimeInForceSent,
  TradingAccount,
} from '../../domain/order.ts'
import { registry } from '../../brokers/registry.ts'
import type { OrderConnection } from './page.ts'

type Described<Value extends string> = Record<Value, { description: string }>

// ---- enums ------------------------------------------------------------------------------------------------------
// Enums of answers have UNKNOWN and may grow. Inputs have enums of their own, so that no caller can send UNKNOWN.

const unknown = { UNKNOWN: { description: 'The broker used a word that this API does not know yet.' } }

export const BrokerEnum = builder.enumType('Broker', {
  description: 'A broker behind this API. May grow: keep a default branch for a broker that you do not know.',
  values: Object.fromEntries(registry.map(({ id, description }) => [id, { value: id, description }])),
})

const sides = {
  BUY: { description: 'Buy.' },
  SELL: { description: 'Sell what the account holds.' },
  SELL_SHORT: { description: 'Sell what the account does not hold.' },
  BUY_TO_COVER: { description: 'Buy back what was sold short.' },
} satisfies Described<OrderSideSent>

const OrderSideEnum = builder.enumType('OrderSide', {
  description: 'The side of an order. May grow: treat a value you do not know like UNKNOWN.',
  values: { ...sides, ...unknown } satisfies Described<OrderSide>,
})
export const OrderSideInput = builder.enumType('OrderSideInput', {
  description: 'The side of a new order. A broker may support only some of them.',
  values: sides,
})

const types = {
  MARKET: { description: 'Trades at once at the price of the market.' },
  LIMIT: { description: 'Trades at `limitPrice` or better.' },
  STOP: { description: 'Becomes a market order when the market reaches `stopPrice`.' },
  STOP_LIMIT: { description: 'Becomes a limit order at `limitPrice` when the market reaches `stopPrice`.' },
  TRAILING_STOP: {
    description: 'A stop that follows the market at a distance of `trailPercent` or `trailPrice`.',
  },
} satisfies Described<OrderTypeSent>

const OrderTypeEnum = builder.enumType('OrderType', {
  description: 'When and at which price an order trades. May grow: treat a value you do not know like UNKNOWN.',
  values: { ...types, ...unknown } satisfies Described<OrderType>,
})
export const OrderTypeInput = builder.enumType('OrderTypeInput', {
  description: 'When and at which price an order is to trade.',
  values: types,
})

const timesInForce = {
  DAY: { description: 'Until the end of the trading day.' },
  GTC: { description: 'Until it fills or is canceled.' },
  OPG: { description: 'In the opening auction only.' },
  CLS: { description: 'In the closing auction only.' },
  IOC: { description: 'At once, as far as possible; the rest is canceled.' },
  FOK: { description: 'At once and completely, or not at all.' },
} satisfies Described<TimeInForceSent>

const TimeInForceEnum = builder.enumType('TimeInForce', {
  description: 'How long an order stays. May grow: treat a value you do not know like UNKNOWN.',
  values: { ...timesInForce, ...unknown } satisfies Described<TimeInForce>,
})
export const TimeInForceInput = builder.enumType('TimeInForceInput', {
  description: 'How long an order is to stay.',
  values: timesInForce,
})

const commissionTypes = {
  NOTIONAL: { description: 'A flat amount for the order, in its currency.' },
  QTY: { description: 'An amount for each share, in the currency of the order.' },
  BPS: { description: 'Basis points of the traded value: 1 is 0.01 %. At most two decimals.' },
} satisfies Described<CommissionTypeSent>

const CommissionTypeEnum = builder.enumType('CommissionType', {
  description: 'The unit of a commission. May grow: treat a value you do not know like UNKNOWN.',
  values: { ...commissionTypes, ...unknown } satisfies Described<CommissionType>,
})
export const CommissionTypeInput = builder.enumType('CommissionTypeInput', {
  description: 'The unit of a commission.',
  values: commissionTypes,
})

const statuses = {
  PENDING: { description: 'Received and not yet accepted.' },
  ACCEPTED: { description: 'Working, nothing filled.' },
  PARTIALLY_FILLED: { description: 'Working, a part has filled.' },
  PENDING_CANCEL: { description: 'A cancel was requested and is not confirmed; the order may still fill.' },
  PENDING_REPLACE: { description: 'A change was requested and is not confirmed; the order may still fill.' },
  FILLED: { description: 'Filled completely. Final.' },
  CANCELED: { description: 'Canceled; what had filled before stays filled. Final.' },
  REJECTED: { description: 'Refused by the broker, see `rejectReason`. Final.' },
  EXPIRED: { description: 'Its time in force ended; what had filled before stays filled. Final.' },
  REPLACED: { description: 'Another order took its place. Final.' },
} satisfies Described<KnownOrderStatus>

const OrderStatusEnum = builder.enumType('OrderStatus', {
  description:
    'The state of an order. Not every broker reports all of them: Bluum knows ACCEPTED, PARTIALLY_FILLED, FILLED, CANCELED ' +
    'and REJECTED only. May grow: treat a value you do not know like UNKNOWN.',
  values: { ...statuses, ...unknown },
})
const OrderStatusFilter = builder.enumType('OrderStatusFilter', {
  description: 'A status to look for.',
  values: statuses,
})

const states = {
  OPEN: { description: 'It may still trade.' },
  CLOSED: { description: 'It is final: filled, canceled, rejected, expired or replaced.' },
} satisfies Described<OrderState>

const OrderStateEnum = builder.enumType('OrderState', {
  description: 'Whether an order may still trade.',
  values: states,
})
const OrderStateFilter = builder.enumType('OrderStateFilter', {
  description: 'Orders that may still trade, or those that are final.',
  values: states,
})

const SecurityTypeEnum = builder.enumType('SecurityType', {
  description: 'The kind of instrument that an order trades. May grow: treat a value you do not know like UNKNOWN.',
  values: {
    EQUITY: { description: 'A share or a fund that trades like one.' },
    OPTION: { description: 'An option contract.' },
    ...unknown,
  } satisfies Described<SecurityType>,
})

const OptionRightEnum = builder.enumType('OptionRight', {
  description: 'The right that an option gives. May grow: treat a value you do not know like UNKNOWN.',
  values: {
    CALL: { description: 'The right to buy.' },
    PUT: { description: 'The right to sell.' },
    ...unknown,
  } satisfies Described<OptionRight>,
})

// ---- objects ----------------------------------------------------------------------------------------------------

/** An object as its fields are read: an Error in a field's place is answered by graphql-js, not by the field. */
type Readable<T> = {
  [Name in keyof T]: T[Name] extends (infer Item)[] ? Exclude<Item, Error>[] : Exclude<T[Name], Error>
}

export const OrderObject = new ImplementableObjectRef<BuilderTypes, Order, Readable<Order>>(builder, 'Order')
export const TradingAccountObject = builder.objectRef<TradingAccount>('TradingAccount')
const OrderLegObject = builder.objectRef<OrderLeg>('OrderLeg')
const AssetObject = builder.objectRef<NonNullable<Order['asset']>>('Asset')

AssetObject.implement({
  description: 'An instrument, by its ticker. Other subgraphs of a federated graph add what they know of it.',
  fields: (t) => ({
    symbol: t.exposeString('symbol', { nullable: false, description: 'The ticker, such as AAPL.' }),
  }),
})
builder.asEntity(AssetObject, {
  key: builder.keyDirective(builder.selection<{ symbol: string }>('symbol'), false),
  resolveReference: (reference) => reference,
})

OrderLegObject.implement({
  description: 'One leg of an option order.',
  fields: (t) => ({
    symbol: t.exposeString('symbol', {
      description: 'The ticker of the underlying; null if the broker does not report it.',
    }),
    securityType: t.expose('securityType', {
      type: SecurityTypeEnum,
      description: 'The kind of instrument; null if the broker does not report it.',
    }),
    side: t.expose('side', {
      type: OrderSideEnum,
      description: 'The side of the leg; null if the broker does not report it.',
    }),
    ratio: t.expose('ratio', {
      type: 'Decimal',
      description: 'Contracts of this leg for one of the order; null if the broker does not report it.',
    }),
    right: t.expose('right', { type: OptionRightEnum, description: 'Call or put; null for a leg of shares.' }),
    strikePrice: t.expose('strikePrice', {
      type: 'Decimal',
      description: 'Strike, in the currency of the order; null for a leg of shares.',
    }),
    expiration: t.exposeString('expiration', {
      description: 'Last day of the contract, YYYY-MM-DD in the time zone of its exchange; null for a leg of shares.',
    }),
  }),
})

// No promise where the row tells it: a page has hundreds of such fields.
function complete<Name extends PartialField>(order: Readable<Order>, field: Name, { loaders }: Context) {
  const value = order[field]
  return value !== null || !order.isPartial ? value : loaders.completed(order, field)
}

// Fields that a list may leave out (PartialField) are read from the order itself if they are selected and missing.
OrderObject.implement({
  description:
    'An order as its broker tells it now. Amounts are exact decimal strings with the digits of the broker, times are in ' +
    'UTC. A nullable field that the broker garbled is null with an error of its own.',
  fields: (t) => ({
    id: t.exposeID('id', {
      nullable: false,
      description: 'Opaque. It names the order, and so its broker, in this whole graph; keep it as it is.',
    }),
    broker: t.expose('broker', { type: BrokerEnum, nullable: false, description: 'The broker that has the order.' }),
    account: t.expose('account', {
      type: TradingAccountObject,
      nullable: false,
      description: 'The account that the order trades for.',
    }),
    asset: t.expose('asset', {
      type: AssetObject,
      description: 'The instrument, to be completed by other subgraphs. Null where no ticker names it, as an option.',
    }),
    symbol: t.exposeString('symbol', {
      nullable: false,
      description: 'The ticker as the broker writes it, such as AAPL; of an option, that of what it is on.',
    }),
    securityType: t.expose('securityType', {
      type: SecurityTypeEnum,
      description: 'The kind of instrument; null if the broker does not report it; Bluum never does.',
    }),
    legs: t.expose('legs', {
      type: [OrderLegObject],
      nullable: false,
      description: 'The legs of an option order; empty for everything else.',
    }),
    currency: t.string({
      resolve: (order, _, context) => complete(order, 'currency', context),
      description: 'ISO 4217 code of all amounts of this order, such as USD; null if the broker does not report it.',
    }),
    clientOrderId: t.id({
      resolve: (order, _, context) => complete(order, 'clientOrderId', context),
      description:
        'The key that the order was placed with; null for one placed without, or where the broker does not say.',
    }),
    side: t.expose('side', { type: OrderSideEnum, nullable: false, description: 'Buy or sell.' }),
    type: t.expose('type', { type: OrderTypeEnum, nullable: false, description: 'When and at which price it trades.' }),
    timeInForce: t.expose('timeInForce', { type: TimeInForceEnum, nullable: false, description: 'How long it stays.' }),
    quantity: t.expose('quantity', {
      type: 'Decimal',
      description: 'Ordered, in shares (contracts for options). Null for an order by `notional` until the broker says.',
    }),
    notional: t.expose('notional', {
      type: 'Decimal',
      description: 'Ordered cash amount, in `currency`. Null for an order by `quantity`.',
    }),
    limitPrice: t.expose('limitPrice', {
      type: 'Decimal',
      description: 'The worst price for a share, in `currency`. Null for types that have none.',
    }),
    stopPrice: t.expose('stopPrice', {
      type: 'Decimal',
      description: 'The price that sets the order off, in `currency`. Null for types that have none.',
    }),
    trailPercent: t.expose('trailPercent', {
      type: 'Decimal',
      description: 'Distance of a trailing stop, in percent: "3.5" is 3.5 %. Null for other orders.',
    }),
    trailPrice: t.expose('trailPrice', {
      type: 'Decimal',
      description: 'Distance of a trailing stop, in `currency`. Null for other orders.',
    }),
    extendedHours: t.boolean({
      resolve: (order, _, context) => complete(order, 'extendedHours', context),
      description: 'Whether it may trade outside regular hours; null if the broker does not report it.',
    }),
    status: t.expose('status', { type: OrderStatusEnum, nullable: false, description: 'The current state.' }),
    brokerStatus: t.exposeString('brokerStatus', {
      description: "The broker's own word for `status`; null if it did not send a word.",
    }),
    state: t.expose('state', {
      type: OrderStateEnum,
      description: 'Whether it may still trade; null when `status` is UNKNOWN.',
    }),
    isCancelable: t.exposeBoolean('isCancelable', {
      nullable: false,
      description: 'Whether a cancel makes sense. True also for an UNKNOWN status: only the broker can refuse it then.',
    }),
    filledQuantity: t.expose('filledQuantity', {
      type: 'Decimal',
      description: 'Filled so far, in shares (contracts for options); null if the broker does not report it.',
    }),
    remainingQuantity: t.expose('remainingQuantity', {
      type: 'Decimal',
      description:
        'Not filled, in shares (contracts for options). An order that was canceled keeps what it had left. Null where the ' +
        'broker does not say.',
    }),
    averagePrice: t.expose('averagePrice', {
      type: 'Decimal',
      description: 'Average price of the filled shares, in `currency`. Null until something has filled.',
    }),
    commission: t.field({
      type: 'Decimal',
      resolve: (order, _, context) => complete(order, 'commission', context),
      description:
        'Commission, in the unit of `commissionType`. Null without a commission, or if the broker does not report it.',
    }),
    commissionType: t.field({
      type: CommissionTypeEnum,
      resolve: (order, _, context) => complete(order, 'commissionType', context),
      description: 'The unit of `commission`; null if the broker does not report it.',
    }),
    submittedAt: t.expose('submittedAt', {
      type: 'DateTime',
      description: 'When the broker got it, UTC; null if the broker does not report it.',
    }),
    filledAt: t.expose('filledAt', {
      type: 'DateTime',
      description: 'When it had filled completely, UTC; null until then, and where the broker does not say, as Aries.',
    }),
    canceledAt: t.expose('canceledAt', {
      type: 'DateTime',
      description: 'When it was canceled, UTC; null until then, and where the broker does not say, as Aries.',
    }),
    rejectReason: t.exposeString('rejectReason', {
      description:
        "The broker's words on why it was rejected, plain text of at most 200 characters; null if it was not rejected.",
    }),
  }),
})

builder.asEntity(OrderObject, {
  key: [
    builder.selection<{ id: string }>('id'),
    builder.selection<{ id: string; account: { id: string } }>('id account { id }'),
  ],
  // Async, because a synchronous throw would null the whole answer instead of this entity.
  resolveReference: async ({ id, account }: { id: string; account?: { id: string } }, { caller, loaders }) => {
    caller.require('orders:read')
    return await loaders.order(id, account?.id ?? null)
  },
})

// ---- lists ------------------------------------------------------------------------------------------------------

export const OrderFilterInput = builder.inputType('OrderFilter', {
  description: 'The orders to list. All given parts must match; a part that is left out matches every order.',
  fields: (t) => ({
    statuses: t.field({
      type: [OrderStatusFilter],
      description:
        'Any of these. An empty list matches nothing. A status that the broker does not know matches nothing. Statuses ' +
        'that the broker lists separately cost one upstream call each.',
    }),
    state: t.field({
      type: OrderStateFilter,
      description:
        'Only orders that may still trade, or only final ones. An order whose status is UNKNOWN is neither: it shows in ' +
        'lists without `state` and `statuses` only.',
    }),
    symbol: t.string({
      description: 'The symbol exactly as orders show it, such as AAPL or BRK B: 1 to 200 printable characters.',
    }),
    side: t.field({ type: OrderSideInput, description: 'The side of the order.' }),
    submittedAfter: t.field({
      type: 'DateTime',
      description: 'Submitted at this instant or later. The search is bounded, see `isComplete`.',
    }),
    submittedBefore: t.field({
      type: 'DateTime',
      description: 'Submitted before this instant. The search is bounded, see `isComplete`.',
    }),
  }),
})

const PageInfoObject = builder.objectRef<OrderConnection['pageInfo']>('PageInfo').implement({
  description: 'The position of a page in its list.',
  shareable: true,
  fields: (t) => ({
    hasNextPage: t.exposeBoolean('hasNextPage', {
      nullable: false,
      description: 'Whether a row follows. On a page of 100 selecting it can cost one more upstream call.',
    }),
    hasPreviousPage: t.exposeBoolean('hasPreviousPage', {
      nullable: false,
      description: 'Whether this page was requested with a cursor.',
    }),
    startCursor: t.exposeString('startCursor', { description: 'Cursor of the first row; null on an empty page.' }),
    endCursor: t.exposeString('endCursor', {
      description:
        'For `after` of the next page; null without a next page. If `isComplete` is false it continues the search, ' +
        'also from a page without rows.',
    }),
  }),
})

type OrderEdge = OrderConnection['edges'][number]

const OrderEdgeObject = new ImplementableObjectRef<BuilderTypes, OrderEdge, Readable<OrderEdge>>(
  builder,
  'OrderEdge',
).implement({
  description: 'A row of a list of orders.',
  fields: (t) => ({
    cursor: t.exposeString('cursor', {
      nullable: false,
      description: 'Opaque; goes into `after` of the same list, with the same account and filter.',
    }),
    node: t.expose('node', {
      type: OrderObject,
      description: 'The order; null with an error of its own when its row cannot be read.',
    }),
  }),
})

export const OrderConnectionObject = new ImplementableObjectRef<
  BuilderTypes,
  OrderConnection,
  Readable<OrderConnection>
>(builder, 'OrderConnection').implement({
  description: 'A page of orders, newest first. There is no total: no broker tells one.',
  fields: (t) => ({
    edges: t.expose('edges', { type: [OrderEdgeObject], nullable: false, description: 'The rows with their cursors.' }),
    nodes: t.expose('nodes', {
      type: [OrderObject],
      nullable: { list: false, items: true },
      description: 'The orders alone. One that cannot be read is null with an error of its own; the others stand.',
    }),
    pageInfo: t.expose('pageInfo', { type: PageInfoObject, nullable: false, description: 'The position of the page.' }),
    isComplete: t.exposeBoolean('isComplete', {
      nullable: false,
      description:
        'False when a bound ended the search before the filter could be proved complete, or when the broker lists in no ' +
        'order: rows may be missing from this page. Go on from `endCursor` to look further.',
    }),
  }),
})
