// The inputs and results of writes in the schema. A result is an interface with common fields and one type for each outcome: a
// simple client reads the common fields, a careful one switches on __typename, and a new outcome breaks neither.

import { builder } from '../builder.ts'
import type { Context } from '../context.ts'
import type {
  CancelConfirmed,
  CancelInvalid,
  CancelOrderOutcome,
  CancelOrderResult,
  CancelPending,
  CancelRefusalCode,
  CancelRefused,
  OrderInvalid,
  OrderNotPlaced,
  OrderOutcomeUnknown,
  OrderPlaced,
  OrderPlacement,
  OrderPlacementState,
  OrderRejected,
  PlaceOrderOutcome,
  PlaceOrderResult,
} from '../../trading/outcomes.ts'
import type { Order, OrderRejectionCode } from '../../domain/order.ts'
import { CommissionTypeInput, OrderObject, OrderSideInput, OrderTypeInput, TimeInForceInput } from '../orders/types.ts'
import type { NotPlacedCode, OrderMatch } from '../../trading/placement/placement.ts'
import type { OrderInputProblem, OrderInputProblemCode } from '../../trading/validate.ts'

type Described<Value extends string> = Record<Value, { description: string }>

// ---- problems of an input ---------------------------------------------------------------------------------------

const OrderInputProblemCodeEnum = builder.enumType('OrderInputProblemCode', {
  description: 'The kind of problem with a field of an input. May grow.',
  values: {
    REQUIRED: { description: 'It is missing.' },
    NOT_ALLOWED: { description: 'This kind of order does not take it.' },
    NOT_POSITIVE: { description: 'It has to be above zero.' },
    TOO_LONG: { description: 'It has too many characters or digits.' },
    TOO_PRECISE: { description: 'It has too many decimals.' },
    BAD_FORMAT: { description: 'It is not written as it has to be.' },
    CONFLICT: { description: 'It contradicts another field.' },
    NOT_SUPPORTED: { description: 'The broker of the account cannot do it.' },
    KEY_REUSED: { description: 'The clientOrderId was used for another order before.' },
  } satisfies Described<OrderInputProblemCode>,
})

const OrderInputProblemObject = builder.objectRef<OrderInputProblem>('OrderInputProblem').implement({
  description: 'One thing that is wrong with an input.',
  fields: (t) => ({
    field: t.exposeStringList('field', {
      nullable: false,
      description: 'Path to the field from the arguments of the mutation, such as ["input", "limitPrice"].',
    }),
    code: t.expose('code', { type: OrderInputProblemCodeEnum, nullable: false, description: 'To switch on.' }),
    message: t.exposeString('message', { nullable: false, description: 'The problem and its fix, for the user.' }),
  }),
})

// ---- placing ----------------------------------------------------------------------------------------------------

export const PlaceOrderInput = builder.inputType('PlaceOrderInput', {
  description: 'An order to place. All problems of an input come back together, as OrderInvalid.',
  fields: (t) => ({
    accountId: t.id({ required: true, description: 'The account to trade for.' }),
    clientOrderId: t.id({
      required: true,
      description:
        'Your key for this one intended order: 8 to 36 letters, digits and . _ - beginning with a letter or digit, such as ' +
        'a UUID. Make it when the form opens and keep it across every retry: the same key never sends twice, and a repeat ' +
        'tells what became of the first. It is remembered for at least 180 days.',
    }),
    symbol: t.string({ required: true, description: 'The ticker, in capitals, such as AAPL.' }),
    side: t.field({ type: OrderSideInput, required: true, description: 'Buy or sell.' }),
    type: t.field({ type: OrderTypeInput, required: true, description: 'When and at which price to trade.' }),
    timeInForce: t.field({ type: TimeInForceInput, required: true, description: 'How long the order stays.' }),
    quantity: t.field({ type: 'Decimal', description: 'Shares, above zero. Either this or `notional`.' }),
    notional: t.field({
      type: 'Decimal',
      description:
        'Cash amount in the currency of the account, above zero; for market buys only, instead of `quantity`.',
    }),
    limitPrice: t.field({
      type: 'Decimal',
      description:
        'Price of a share in the currency of the account; needed for LIMIT and STOP_LIMIT, refused for others.',
    }),
    stopPrice: t.field({
      type: 'Decimal',
      description:
        'Price of a share in the currency of the account; needed for STOP and STOP_LIMIT, refused for others.',
    }),
    trailPercent: t.field({
      type: 'Decimal',
      description: 'In percent: "3.5" is 3.5 %. TRAILING_STOP needs this or `trailPrice`; refused for others.',
    }),
    trailPrice: t.field({
      type: 'Decimal',
      description: 'In the currency of the account. TRAILING_STOP needs this or `trailPercent`; refused for others.',
    }),
    extendedHours: t.boolean({
      description: "May it trade outside regular hours? The broker's default when left out: no.",
    }),
    commission: t.field({ type: 'Decimal', description: 'Your charge to your customer, not below zero.' }),
    commissionType: t.field({
      type: CommissionTypeInput,
      description: "The unit of `commission`; if left out the broker's default: a flat amount.",
    }),
    sendBy: t.field({
      type: 'DateTime',
      description:
        'Never send the order after this instant. Without it, a market order is sent within 10 seconds after it arrived ' +
        'here or not at all, any other order within 30 seconds, unless this service is set otherwise.',
    }),
    acknowledgeUnresolved: t.idList({
      description:
        'The clientOrderIds of equal orders without an outcome (see BLOCKED_BY_UNRESOLVED) of which this order may turn ' +
        'out to be a duplicate, at most 100. Name them only if the user has confirmed it.',
    }),
  }),
})

const PlaceOrderOutcomeEnum = builder.enumType('PlaceOrderOutcome', {
  description: 'The outcome of a placement. May grow.',
  values: {
    PLACED: { description: 'The broker accepted the order.' },
    REJECTED: { description: 'The broker said no; there is no working order.' },
    INVALID: { description: 'Refused here; nothing was sent.' },
    NOT_PLACED: { description: 'No order exists.' },
    UNKNOWN: { description: 'It may have been sent, and whether an order exists is not known.' },
  } satisfies Described<PlaceOrderOutcome>,
})

const OrderRejectionCodeEnum = builder.enumType('OrderRejectionCode', {
  description: 'Why the broker said no. May grow.',
  values: {
    INSUFFICIENT_FUNDS: { description: 'Not enough cash.' },
    INSUFFICIENT_POSITION: { description: 'Not enough shares to sell.' },
    MARKET_CLOSED: { description: 'The market is closed and the broker does not let the order wait.' },
    ASSET_NOT_FOUND: { description: 'The broker knows no such ticker.' },
    ASSET_NOT_TRADABLE: { description: 'The broker knows the ticker and does not trade it, or not in this way.' },
    ACCOUNT_NOT_APPROVED: { description: 'The account has not passed its checks yet.' },
    ACCOUNT_RESTRICTED: { description: 'The account may not do this now.' },
    ACCOUNT_NOT_FOUND: { description: 'The broker knows no such account.' },
    INVALID_ORDER: { description: 'The broker calls the order malformed, see `reason`.' },
    OTHER: { description: 'Another reason, see `reason`.' },
  } satisfies Described<OrderRejectionCode>,
})

const NotPlacedCodeEnum = builder.enumType('NotPlacedCode', {
  description: 'Why no order was placed. May grow.',
  values: {
    BROKER_UNAVAILABLE: {
      description: 'The broker cannot be reached, or does not take the credential of this service.',
    },
    RATE_LIMITED: {
      description: 'The broker asked to wait, or too many orders of the account came at once; see `retryAfterMs`.',
    },
    DEADLINE: { description: 'It could not be sent in time.' },
    STORE_UNAVAILABLE: { description: 'It could not be recorded here, so it was not sent.' },
    SHUTTING_DOWN: { description: 'This service is stopping, or stopped before it sent the order.' },
    OVERLOADED: { description: 'Too many placements are under way.' },
    BLOCKED_BY_UNRESOLVED: {
      description: 'An equal order of this account is without an outcome; this one could be its duplicate.',
    },
    NEVER_APPEARED: { description: 'It was sent and never appeared at the broker.' },
    KEY_EXPIRED: { description: 'This clientOrderId was used so long ago that only the key is remembered.' },
    TRADING_HALTED: { description: 'Placing is switched off here.' },
    CANCELED: { description: 'A cancel was requested before the order was sent.' },
  } satisfies Described<NotPlacedCode>,
})

const PlacementCertaintyEnum = builder.enumType('PlacementCertainty', {
  description: 'How sure it is that no order exists.',
  values: {
    PROVEN: { description: 'It never reached the broker, or the broker said that it did not take it.' },
    ASSUMED: { description: 'Lookups did not find it until the settle time.' },
  },
})

export const PlaceOrderResultInterface = builder.interfaceRef<PlaceOrderResult>('PlaceOrderResult')
PlaceOrderResultInterface.implement({
  description:
    'The outcome of a placement. Switch on `__typename`, or on `outcome`; a new outcome may be added, so keep a default branch.',
  resolveType: (result) => placeResultNames[result.outcome],
  fields: (t) => ({
    clientOrderId: t.exposeID('clientOrderId', { nullable: false, description: 'The key of the placement.' }),
    outcome: t.expose('outcome', { type: PlaceOrderOutcomeEnum, nullable: false, description: 'The outcome.' }),
    orderId: t.exposeID('orderId', {
      description: 'The id of the order, whenever it is known to exist, even if it cannot be read just now.',
    }),
    order: t.field({
      type: OrderObject,
      description: 'The order; null if no order exists, or if it cannot be read now.',
      resolve: (result, _, context) => readOrder(result, context),
    }),
    message: t.exposeString('message', { nullable: false, description: 'One sentence for the user.' }),
  }),
})

const placeResultNames: Record<PlaceOrderOutcome, string> = {
  PLACED: 'OrderPlaced',
  REJECTED: 'OrderRejected',
  INVALID: 'OrderInvalid',
  NOT_PLACED: 'OrderNotPlaced',
  UNKNOWN: 'OrderOutcomeUnknown',
}

// An order that exists but cannot be read now does not make the placement fail, so it adds no error.
async function readOrder(result: PlaceOrderResult, context: Context): Promise<Order | null> {
  if (result.order !== null || result.orderId === null) return result.order
  return await context.loaders.order(result.orderId, null).catch(() => null)
}

const replayedDescription = 'True when this key had been answered or sent before; nothing was sent this time.'

builder.objectRef<OrderPlaced>('OrderPlaced').implement({
  description:
    'The broker accepted the order, which may not have filled yet. If the broker changed terms, such as the digits of the ' +
    'quantity, `message` names them and `order` shows the terms that apply.',
  interfaces: [PlaceOrderResultInterface],
  fields: (t) => ({
    replayed: t.exposeBoolean('replayed', { nullable: false, description: replayedDescription }),
  }),
})

builder.objectRef<OrderRejected>('OrderRejected').implement({
  description: 'The broker rejected the order. The key is used up: a new attempt needs a new clientOrderId.',
  interfaces: [PlaceOrderResultInterface],
  fields: (t) => ({
    replayed: t.exposeBoolean('replayed', { nullable: false, description: replayedDescription }),
    rejectionCode: t.expose('rejectionCode', {
      type: OrderRejectionCodeEnum,
      nullable: false,
      description: 'Why, to switch on.',
    }),
    brokerCode: t.exposeString('brokerCode', {
      description: "The broker's own code, such as BLUM-422-001; null if it gave none.",
    }),
    reason: t.exposeString('reason', {
      description: "The broker's words, plain text of at most 200 characters; null if it gave none.",
    }),
  }),
})

builder.objectRef<OrderInvalid>('OrderInvalid').implement({
  description:
    'Refused here, before anything was recorded or sent: mend the fields and send again with the same key, unless the ' +
    'problem is KEY_REUSED.',
  interfaces: [PlaceOrderResultInterface],
  fields: (t) => ({
    problems: t.expose('problems', {
      type: [OrderInputProblemObject],
      nullable: false,
      description: 'All problems, not the first.',
    }),
  }),
})

builder.objectRef<OrderNotPlaced>('OrderNotPlaced').implement({
  description: 'How certain it is that no order exists.',
  interfaces: [PlaceOrderResultInterface],
  fields: (t) => ({
    notPlacedCode: t.expose('notPlacedCode', {
      type: NotPlacedCodeEnum,
      nullable: false,
      description: 'Why, to switch on.',
    }),
    certainty: t.expose('certainty', {
      type: PlacementCertaintyEnum,
      nullable: false,
      description: 'How sure it is that no order exists.',
    }),
    retrySameKey: t.exposeBoolean('retrySameKey', {
      nullable: false,
      description: 'True: sending the same mutation again, with the same key, may place it.',
    }),
    retryAfterMs: t.exposeInt('retryAfterMs', {
      description:
        'Wait this long before you send it again, in milliseconds, as the broker said or as we guess; null if that is not known.',
    }),
  }),
})

builder.objectRef<OrderOutcomeUnknown>('OrderOutcomeUnknown').implement({
  description:
    'The order may have been sent, and its outcome is not known: it may exist. Do not show it as failed, and do not place it ' +
    'again under another key. Query `placement` for the outcome. `message` says whether this service looks for the order ' +
    'or an operator has to decide. Repeating the mutation with the same key is safe, because an order is never sent again ' +
    'while its outcome is unknown.',
  interfaces: [PlaceOrderResultInterface],
  fields: (t) => ({
    retryAfterMs: t.exposeInt('retryAfterMs', {
      description:
        'Milliseconds to wait before you query `placement` again or repeat the mutation with the same key; null if an ' +
        'operator has to decide which order it is.',
    }),
  }),
})

const OrderPlacementStateEnum = builder.enumType('OrderPlacementState', {
  description: 'The state of a placement. May grow.',
  values: {
    IN_PROGRESS: { description: 'Not sent yet, being sent, or not sent so far: its key may still place it.' },
    UNKNOWN: {
      description:
        'The order may have been sent, and its outcome is not known. This service looks for it; if `candidateCount` is set, ' +
        'an operator has to decide.',
    },
    PLACED: { description: 'The order exists. If the broker changed its terms, the `message` of `result` names them.' },
    REJECTED: { description: 'The broker said no.' },
    NOT_PLACED: { description: 'No order exists; see `result` for how sure that is.' },
  } satisfies Described<OrderPlacementState>,
})

const OrderMatchEnum = builder.enumType('OrderMatch', {
  description:
    'How this service found the order of a placement. May grow: treat a value that you do not know as another way.',
  values: {
    RESPONSE: { description: 'The broker answered the placement with it.' },
    CLIENT_ORDER_ID: {
      description: 'The order has the `clientOrderId` of the placement, as it was sent or as the broker changed it.',
    },
    IDEMPOTENCY_KEY: { description: 'The broker answered a repeat with the same key with it.' },
    FINGERPRINT: {
      description: "The only order of equal economics that was not there before: a conclusion, not the broker's word.",
    },
    OPERATOR: { description: 'A person said so.' },
  } satisfies Described<OrderMatch>,
})

export const OrderPlacementObject = builder.objectRef<OrderPlacement>('OrderPlacement').implement({
  description: 'The record of a `placeOrder`, also after a restart.',
  fields: (t) => ({
    id: t.exposeID('id', {
      nullable: false,
      description:
        'Opaque id, made of `accountId` and `clientOrderId`. It is the same on every read, so client caches can use it as a ' +
        'key. No argument accepts it.',
    }),
    accountId: t.exposeID('accountId', { nullable: false, description: 'The account that was traded for.' }),
    clientOrderId: t.exposeID('clientOrderId', { nullable: false, description: 'The key of the placement.' }),
    state: t.expose('state', { type: OrderPlacementStateEnum, nullable: false, description: 'The current state.' }),
    attempts: t.exposeInt('attempts', {
      nullable: false,
      description:
        'How often the order left this service or may have; a second time only after proof that the first was not processed.',
    }),
    orderId: t.exposeID('orderId', { description: 'The id of the order, once it is known to exist.' }),
    foundBy: t.expose('foundBy', {
      type: OrderMatchEnum,
      description: 'How the order was found; null until it is found.',
    }),
    candidateCount: t.exposeInt('candidateCount', {
      description:
        'Number of orders at the broker that could be the one of this placement; null unless an operator has to decide which ' +
        'it is.',
    }),
    createdAt: t.expose('createdAt', {
      type: 'DateTime',
      nullable: false,
      description: 'When the key came in first, UTC.',
    }),
    sentAt: t.expose('sentAt', { type: 'DateTime', description: 'When it was last sent, UTC; null if it never was.' }),
    resolvedAt: t.expose('resolvedAt', {
      type: 'DateTime',
      description: 'When its outcome was known, UTC; null until then.',
    }),
    result: t.expose('result', {
      type: PlaceOrderResultInterface,
      description: 'The result that `placeOrder` would return for the same input now.',
    }),
  }),
})

// ---- canceling --------------------------------------------------------------------------------------------------

export const CancelOrderInput = builder.inputType('CancelOrderInput', {
  description:
    'The order to cancel: `orderId`, or `accountId` with the `clientOrderId` that it was placed under, also while it is ' +
    'not known whether there is an order.',
  fields: (t) => ({
    orderId: t.id({ description: 'The id of the order.' }),
    accountId: t.id({
      description:
        'The account of the order; needed with `clientOrderId`, and where the broker reads an order only under its ' +
        'account, unless an answer here has named it before. When given, an order of another account answers like one ' +
        'that does not exist.',
    }),
    clientOrderId: t.id({ description: 'The key that the order was placed under, instead of `orderId`.' }),
  }),
})

const CancelOrderOutcomeEnum = builder.enumType('CancelOrderOutcome', {
  description: 'The outcome of a cancel. May grow.',
  values: {
    CANCELED: { description: 'The broker reports the order canceled.' },
    PENDING: {
      description: 'The cancel was sent, or is kept to be sent, and is not confirmed; the order may still fill.',
    },
    REFUSED: { description: 'The order was not canceled.' },
    INVALID: { description: 'Refused here; nothing was sent.' },
  } satisfies Described<CancelOrderOutcome>,
})

const CancelRefusalCodeEnum = builder.enumType('CancelRefusalCode', {
  description: 'Why an order was not canceled. May grow.',
  values: {
    ALREADY_FILLED: { description: 'It had filled before, see `order`.' },
    ALREADY_CLOSED: { description: 'It was final before without having filled: rejected, expired or replaced.' },
    NOT_FOUND: { description: 'There is no such order.' },
    BROKER_REFUSED: { description: 'The broker said no and the order is still open, see `reason`.' },
    BROKER_UNAVAILABLE: {
      description:
        'The broker could not be reached, and the cancel could not be kept, for example because the account is unknown.',
    },
    RATE_LIMITED: {
      description: 'The broker asked to wait, or its rate is used up, and the cancel could not be kept.',
    },
    SHUTTING_DOWN: { description: 'This service is stopping.' },
    READ_ONLY: { description: 'Canceling is switched off here.' },
  } satisfies Described<CancelRefusalCode>,
})

export const CancelOrderResultInterface = builder.interfaceRef<CancelOrderResult>('CancelOrderResult')
CancelOrderResultInterface.implement({
  description:
    'The outcome of a cancel. Switch on `__typename`, or on `outcome`; a new outcome may be added, so keep a default branch.',
  resolveType: (result) => cancelResultNames[result.outcome],
  fields: (t) => ({
    outcome: t.expose('outcome', { type: CancelOrderOutcomeEnum, nullable: false, description: 'The outcome.' }),
    orderId: t.exposeID('orderId', { description: 'The order that was to be canceled; null while it is not known.' }),
    order: t.expose('order', {
      type: OrderObject,
      description: 'The order as it was last read; null if it could not be read.',
    }),
    message: t.exposeString('message', { nullable: false, description: 'One sentence for the user.' }),
  }),
})

const cancelResultNames: Record<CancelOrderOutcome, string> = {
  CANCELED: 'CancelConfirmed',
  PENDING: 'CancelPending',
  REFUSED: 'CancelRefused',
  INVALID: 'CancelInvalid',
}

builder.objectRef<CancelConfirmed>('CancelConfirmed').implement({
  description: 'The broker reports the order canceled. `order` shows what had filled before.',
  interfaces: [CancelOrderResultInterface],
  fields: (t) => ({
    alreadyCanceled: t.exposeBoolean('alreadyCanceled', {
      nullable: false,
      description: 'True if the order was canceled before this call.',
    }),
  }),
})

builder.objectRef<CancelPending>('CancelPending').implement({
  description:
    'The cancel was sent, or is kept to be sent as soon as possible, and is not confirmed yet. The order may still ' +
    'fill.',
  interfaces: [CancelOrderResultInterface],
  fields: (t) => ({
    retryAfterMs: t.exposeInt('retryAfterMs', {
      description: 'Read the order again after this, in milliseconds; null if that is not known.',
    }),
  }),
})

builder.objectRef<CancelRefused>('CancelRefused').implement({
  description: 'The order was not canceled by this call.',
  interfaces: [CancelOrderResultInterface],
  fields: (t) => ({
    refusalCode: t.expose('refusalCode', {
      type: CancelRefusalCodeEnum,
      nullable: false,
      description: 'Why, to switch on.',
    }),
    brokerCode: t.exposeString('brokerCode', { description: "The broker's own code; null if it gave none." }),
    reason: t.exposeString('reason', {
      description: "The broker's words, plain text of at most 200 characters; null if it gave none.",
    }),
  }),
})

builder.objectRef<CancelInvalid>('CancelInvalid').implement({
  description: 'Refused here; nothing was sent.',
  interfaces: [CancelOrderResultInterface],
  fields: (t) => ({
    problems: t.expose('problems', {
      type: [OrderInputProblemObject],
      nullable: false,
      description: 'All problems, not the first.',
    }),
  }),
})
