/* eslint-disable */
/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
import type { DocumentTypeDecoration } from '@graphql-typed-document-node/core';
/** The order to cancel: `orderId`, or `accountId` with the `clientOrderId` that it was placed under, also while it is not known whether there is an order. */
export type CancelOrderInput = {
  /** The account of the order; needed with `clientOrderId`, and where the broker reads an order only under its account, unless an answer here has named it before. When given, an order of another account answers like one that does not exist. */
  accountId?: string | null | undefined;
  /** The key that the order was placed under, instead of `orderId`. */
  clientOrderId?: string | null | undefined;
  /** The id of the order. */
  orderId?: string | null | undefined;
};

/** The unit of a commission. */
export type CommissionTypeInput =
  /** Basis points of the traded value: 1 is 0.01 %. At most two decimals. */
  | 'BPS'
  /** A flat amount for the order, in its currency. */
  | 'NOTIONAL'
  /** An amount for each share, in the currency of the order. */
  | 'QTY';

/** The orders to list. All given parts must match; a part that is left out matches every order. */
export type OrderFilter = {
  /** The side of the order. */
  side?: OrderSideInput | null | undefined;
  /** Only orders that may still trade, or only final ones. An order whose status is UNKNOWN is neither: it shows in lists without `state` and `statuses` only. */
  state?: OrderStateFilter | null | undefined;
  /** Any of these. An empty list matches nothing. A status that the broker does not know matches nothing. Statuses that the broker lists separately cost one upstream call each. */
  statuses?: Array<OrderStatusFilter> | null | undefined;
  /** Submitted at this instant or later. The search is bounded, see `isComplete`. */
  submittedAfter?: string | null | undefined;
  /** Submitted before this instant. The search is bounded, see `isComplete`. */
  submittedBefore?: string | null | undefined;
  /** The symbol exactly as orders show it, such as AAPL or BRK B: 1 to 200 printable characters. */
  symbol?: string | null | undefined;
};

/** The kind of problem with a field of an input. May grow. */
export type OrderInputProblemCode =
  /** It is not written as it has to be. */
  | 'BAD_FORMAT'
  /** It contradicts another field. */
  | 'CONFLICT'
  /** The clientOrderId was used for another order before. */
  | 'KEY_REUSED'
  /** This kind of order does not take it. */
  | 'NOT_ALLOWED'
  /** It has to be above zero. */
  | 'NOT_POSITIVE'
  /** The broker of the account cannot do it. */
  | 'NOT_SUPPORTED'
  /** It is missing. */
  | 'REQUIRED'
  /** It has too many characters or digits. */
  | 'TOO_LONG'
  /** It has too many decimals. */
  | 'TOO_PRECISE';

/** The side of an order. May grow: treat a value you do not know like UNKNOWN. */
export type OrderSide =
  /** Buy. */
  | 'BUY'
  /** Buy back what was sold short. */
  | 'BUY_TO_COVER'
  /** Sell what the account holds. */
  | 'SELL'
  /** Sell what the account does not hold. */
  | 'SELL_SHORT'
  /** The broker used a word that this API does not know yet. */
  | 'UNKNOWN';

/** The side of a new order. A broker may support only some of them. */
export type OrderSideInput =
  /** Buy. */
  | 'BUY'
  /** Buy back what was sold short. */
  | 'BUY_TO_COVER'
  /** Sell what the account holds. */
  | 'SELL'
  /** Sell what the account does not hold. */
  | 'SELL_SHORT';

/** Orders that may still trade, or those that are final. */
export type OrderStateFilter =
  /** It is final: filled, canceled, rejected, expired or replaced. */
  | 'CLOSED'
  /** It may still trade. */
  | 'OPEN';

/** The state of an order. Not every broker reports all of them: Bluum knows ACCEPTED, PARTIALLY_FILLED, FILLED, CANCELED and REJECTED only. May grow: treat a value you do not know like UNKNOWN. */
export type OrderStatus =
  /** Working, nothing filled. */
  | 'ACCEPTED'
  /** Canceled; what had filled before stays filled. Final. */
  | 'CANCELED'
  /** Its time in force ended; what had filled before stays filled. Final. */
  | 'EXPIRED'
  /** Filled completely. Final. */
  | 'FILLED'
  /** Working, a part has filled. */
  | 'PARTIALLY_FILLED'
  /** Received and not yet accepted. */
  | 'PENDING'
  /** A cancel was requested and is not confirmed; the order may still fill. */
  | 'PENDING_CANCEL'
  /** A change was requested and is not confirmed; the order may still fill. */
  | 'PENDING_REPLACE'
  /** Refused by the broker, see `rejectReason`. Final. */
  | 'REJECTED'
  /** Another order took its place. Final. */
  | 'REPLACED'
  /** The broker used a word that this API does not know yet. */
  | 'UNKNOWN';

/** A status to look for. */
export type OrderStatusFilter =
  /** Working, nothing filled. */
  | 'ACCEPTED'
  /** Canceled; what had filled before stays filled. Final. */
  | 'CANCELED'
  /** Its time in force ended; what had filled before stays filled. Final. */
  | 'EXPIRED'
  /** Filled completely. Final. */
  | 'FILLED'
  /** Working, a part has filled. */
  | 'PARTIALLY_FILLED'
  /** Received and not yet accepted. */
  | 'PENDING'
  /** A cancel was requested and is not confirmed; the order may still fill. */
  | 'PENDING_CANCEL'
  /** A change was requested and is not confirmed; the order may still fill. */
  | 'PENDING_REPLACE'
  /** Refused by the broker, see `rejectReason`. Final. */
  | 'REJECTED'
  /** Another order took its place. Final. */
  | 'REPLACED';

/** When and at which price an order is to trade. */
export type OrderTypeInput =
  /** Trades at `limitPrice` or better. */
  | 'LIMIT'
  /** Trades at once at the price of the market. */
  | 'MARKET'
  /** Becomes a market order when the market reaches `stopPrice`. */
  | 'STOP'
  /** Becomes a limit order at `limitPrice` when the market reaches `stopPrice`. */
  | 'STOP_LIMIT'
  /** A stop that follows the market at a distance of `trailPercent` or `trailPrice`. */
  | 'TRAILING_STOP';

/** An order to place. All problems of an input come back together, as OrderInvalid. */
export type PlaceOrderInput = {
  /** The account to trade for. */
  accountId: string;
  /** The clientOrderIds of equal orders without an outcome (see BLOCKED_BY_UNRESOLVED) of which this order may turn out to be a duplicate, at most 100. Name them only if the user has confirmed it. */
  acknowledgeUnresolved?: Array<string> | null | undefined;
  /** Your key for this one intended order: 8 to 36 letters, digits and . _ - beginning with a letter or digit, such as a UUID. Make it when the form opens and keep it across every retry: the same key never sends twice, and a repeat tells what became of the first. It is remembered for at least 180 days. */
  clientOrderId: string;
  /** Your charge to your customer, not below zero. */
  commission?: string | null | undefined;
  /** The unit of `commission`; if left out the broker's default: a flat amount. */
  commissionType?: CommissionTypeInput | null | undefined;
  /** May it trade outside regular hours? The broker's default when left out: no. */
  extendedHours?: boolean | null | undefined;
  /** Price of a share in the currency of the account; needed for LIMIT and STOP_LIMIT, refused for others. */
  limitPrice?: string | null | undefined;
  /** Cash amount in the currency of the account, above zero; for market buys only, instead of `quantity`. */
  notional?: string | null | undefined;
  /** Shares, above zero. Either this or `notional`. */
  quantity?: string | null | undefined;
  /** Never send the order after this instant. Without it, a market order is sent within 10 seconds after it arrived here or not at all, any other order within 30 seconds, unless this service is set otherwise. */
  sendBy?: string | null | undefined;
  /** Buy or sell. */
  side: OrderSideInput;
  /** Price of a share in the currency of the account; needed for STOP and STOP_LIMIT, refused for others. */
  stopPrice?: string | null | undefined;
  /** The ticker, in capitals, such as AAPL. */
  symbol: string;
  /** How long the order stays. */
  timeInForce: TimeInForceInput;
  /** In percent: "3.5" is 3.5 %. TRAILING_STOP needs this or `trailPrice`; refused for others. */
  trailPercent?: string | null | undefined;
  /** In the currency of the account. TRAILING_STOP needs this or `trailPercent`; refused for others. */
  trailPrice?: string | null | undefined;
  /** When and at which price to trade. */
  type: OrderTypeInput;
};

/** How long an order is to stay. */
export type TimeInForceInput =
  /** In the closing auction only. */
  | 'CLS'
  /** Until the end of the trading day. */
  | 'DAY'
  /** At once and completely, or not at all. */
  | 'FOK'
  /** Until it fills or is canceled. */
  | 'GTC'
  /** At once, as far as possible; the rest is canceled. */
  | 'IOC'
  /** In the opening auction only. */
  | 'OPG';

export type ListOrdersQueryVariables = Exact<{
  accountId: string;
  filter?: OrderFilter | null | undefined;
  first?: number | null | undefined;
  after?: string | null | undefined;
}>;


export type ListOrdersQuery = { orders: { nodes: Array<{ id: string, symbol: string, side: OrderSide, status: OrderStatus, quantity: string | null, filledQuantity: string | null, submittedAt: string | null } | null>, pageInfo: { hasNextPage: boolean, endCursor: string | null } } | null };

export type ReadOrderQueryVariables = Exact<{
  id: string;
}>;


export type ReadOrderQuery = { order: { id: string, status: OrderStatus, isCancelable: boolean, averagePrice: string | null } | null };

export type PlaceOrderMutationVariables = Exact<{
  input: PlaceOrderInput;
}>;


export type PlaceOrderMutation = { placeOrder:
    | { __typename: 'OrderInvalid', message: string, orderId: string | null, problems: Array<{ field: Array<string>, code: OrderInputProblemCode, message: string }> }
    | { __typename: 'OrderNotPlaced', retrySameKey: boolean, message: string, orderId: string | null }
    | { __typename: 'OrderOutcomeUnknown', message: string, orderId: string | null }
    | { __typename: 'OrderPlaced', replayed: boolean, message: string, orderId: string | null }
    | { __typename: 'OrderRejected', message: string, orderId: string | null }
   | null };

export type CancelOrderMutationVariables = Exact<{
  input: CancelOrderInput;
}>;


export type CancelOrderMutation = { cancelOrder:
    | { __typename: 'CancelConfirmed', message: string, order: { status: OrderStatus, filledQuantity: string | null } | null }
    | { __typename: 'CancelInvalid', message: string, order: { status: OrderStatus, filledQuantity: string | null } | null }
    | { __typename: 'CancelPending', message: string, order: { status: OrderStatus, filledQuantity: string | null } | null }
    | { __typename: 'CancelRefused', message: string, order: { status: OrderStatus, filledQuantity: string | null } | null }
   | null };

export class TypedDocumentString<TResult, TVariables>
  extends String
  implements DocumentTypeDecoration<TResult, TVariables>
{
  __apiType?: NonNullable<DocumentTypeDecoration<TResult, TVariables>['__apiType']>;
  private value: string;
  public __meta__?: Record<string, any> | undefined;

  constructor(value: string, __meta__?: Record<string, any> | undefined) {
    super(value);
    this.value = value;
    this.__meta__ = __meta__;
  }

  override toString(): string & DocumentTypeDecoration<TResult, TVariables> {
    return this.value;
  }
}

export const ListOrdersDocument = new TypedDocumentString(`
    query ListOrders($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {
  orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {
    nodes {
      id
      symbol
      side
      status
      quantity
      filledQuantity
      submittedAt
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
    `, {"hash":"sha256:ad692d7e19a6d9cbe7289295c61630b7368024c58db6a42a6cb626983ec38534"}) as unknown as TypedDocumentString<ListOrdersQuery, ListOrdersQueryVariables>;
export const ReadOrderDocument = new TypedDocumentString(`
    query ReadOrder($id: ID!) {
  order(id: $id) {
    id
    status
    isCancelable
    averagePrice
  }
}
    `, {"hash":"sha256:7c090c557ecf4b103854c1cbfccb6ee9f6033c1f01dcded333c9dd5495d63001"}) as unknown as TypedDocumentString<ReadOrderQuery, ReadOrderQueryVariables>;
export const PlaceOrderDocument = new TypedDocumentString(`
    mutation PlaceOrder($input: PlaceOrderInput!) {
  placeOrder(input: $input) {
    __typename
    message
    orderId
    ... on OrderPlaced {
      replayed
    }
    ... on OrderInvalid {
      problems {
        field
        code
        message
      }
    }
    ... on OrderNotPlaced {
      retrySameKey
    }
  }
}
    `, {"hash":"sha256:6fe328b4f1c7dd42636d7fb906a4fabe63785999e0803e172545d1acc65f32a2"}) as unknown as TypedDocumentString<PlaceOrderMutation, PlaceOrderMutationVariables>;
export const CancelOrderDocument = new TypedDocumentString(`
    mutation CancelOrder($input: CancelOrderInput!) {
  cancelOrder(input: $input) {
    __typename
    message
    order {
      status
      filledQuantity
    }
  }
}
    `, {"hash":"sha256:fac63660ce81dc451404393a7ed2280f2da816166f80dacf2a2cb005316e4f9a"}) as unknown as TypedDocumentString<CancelOrderMutation, CancelOrderMutationVariables>;