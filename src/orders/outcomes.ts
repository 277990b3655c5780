// What became of a write, as it is told: the outcomes of placing and canceling, and which of them an answer of the broker
// amounts to. Pure.

import type { PlaceAnswer, UpstreamError } from '../brokers/broker.ts'
import type { NewOrder, Order, OrderRejectionCode } from './order.ts'
import type { OrderInputProblem } from './validate.ts'

export type PlaceOrderOutcome = 'PLACED' | 'REJECTED' | 'INVALID' | 'NOT_PLACED' | 'UNKNOWN'

export type NotPlacedCode =
  | 'BROKER_UNAVAILABLE'
  | 'RATE_LIMITED'
  | 'DEADLINE'
  | 'STORE_UNAVAILABLE'
  | 'SHUTTING_DOWN'
  | 'OVERLOADED'
  | 'BLOCKED_BY_UNRESOLVED'
  | 'NEVER_APPEARED'
  | 'KEY_EXPIRED'
  | 'TRADING_HALTED'

/** What `placeOrder` answers. `order` is null where it is not at hand; `orderId` is set whenever the order exists. */
interface PlaceResult {
  clientOrderId: string
  outcome: PlaceOrderOutcome
  orderId: string | null
  order: Order | null
  message: string
}
export interface OrderPlaced extends PlaceResult {
  outcome: 'PLACED'
  replayed: boolean
}
export interface OrderRejected extends PlaceResult {
  outcome: 'REJECTED'
  replayed: boolean
  rejectionCode: OrderRejectionCode
  brokerCode: string | null
  reason: string | null
}
export interface OrderInvalid extends PlaceResult {
  outcome: 'INVALID'
  problems: OrderInputProblem[]
}
export interface OrderNotPlaced extends PlaceResult {
  outcome: 'NOT_PLACED'
  notPlacedCode: NotPlacedCode
  certainty: 'PROVEN' | 'ASSUMED'
  retrySameKey: boolean
  retryAfterMs: number | null
}
export interface OrderOutcomeUnknown extends PlaceResult {
  outcome: 'UNKNOWN'
  retryAfterMs: number | null
}
export type PlaceOrderResult = OrderPlaced | OrderRejected | OrderInvalid | OrderNotPlaced | OrderOutcomeUnknown

export type CancelOrderOutcome = 'CANCELED' | 'PENDING' | 'REFUSED' | 'INVALID'

export type CancelRefusalCode =
  | 'ALREADY_FILLED'
  | 'ALREADY_CLOSED'
  | 'NOT_FOUND'
  | 'BROKER_REFUSED'
  | 'BROKER_UNAVAILABLE'
  | 'RATE_LIMITED'
  | 'SHUTTING_DOWN'
  | 'READ_ONLY'

/** What `cancelOrder` answers; `order` as it was read after the attempt, null where it could not be. */
interface CancelResult {
  outcome: CancelOrderOutcome
  orderId: string | null
  order: Order | null
  message: string
}
export interface CancelConfirmed extends CancelResult {
  outcome: 'CANCELED'
  alreadyCanceled: boolean
}
export interface CancelPending extends CancelResult {
  outcome: 'PENDING'
  retryAfterMs: number | null
}
export interface CancelRefused extends CancelResult {
  outcome: 'REFUSED'
  refusalCode: CancelRefusalCode
  brokerCode: string | null
  reason: string | null
}
export interface CancelInvalid extends CancelResult {
  outcome: 'INVALID'
  problems: OrderInputProblem[]
}
export type CancelOrderResult = CancelConfirmed | CancelPending | CancelRefused | CancelInvalid

// ---- placing --------------------------------------------------------------------------------------------------------

/** How an attempt to place ended. */
export type Settled =
  | { state: 'placed'; answer: PlaceAnswer }
  | {
      state: 'rejected'
      code: OrderRejectionCode
      brokerCode: string | null
      reason: string | null
      answer: PlaceAnswer | null
    }
  | NotSent
  | { state: 'unknown' }

interface NotSent {
  state: 'not_sent'
  code: NotPlacedCode
  message: string
  retrySameKey: boolean
  retryAfterMs: number | null
}

/** The same without the order as it was then, which is old when the key is repeated. */
export function withoutOrder(settled: Settled): Settled {
  if (settled.state === 'placed') return { ...settled, answer: { ...settled.answer, order: null } }
  if (settled.state !== 'rejected' || settled.answer === null) return settled
  return { ...settled, answer: { ...settled.answer, order: null } }
}

/** What the caller is told of an attempt. `isJoining`: it had begun before; `wasSettled`: it had ended before. */
export function toPlaceResult(
  order: NewOrder,
  settled: Settled,
  isJoining: boolean,
  wasSettled: boolean,
): PlaceOrderResult {
  const { clientOrderId } = order
  switch (settled.state) {
    case 'placed':
      return {
        clientOrderId,
        outcome: 'PLACED',
        orderId: settled.answer.orderId,
        // What was answered then is old now; a replay's order is read anew where it is selected.
        order: wasSettled ? null : settled.answer.order,
        message: isJoining ? 'This order had been placed before.' : 'The broker took the order in.',
        replayed: isJoining,
      }
    case 'rejected':
      return {
        clientOrderId,
        outcome: 'REJECTED',
        orderId: settled.answer?.orderId ?? null,
        order: wasSettled ? null : (settled.answer?.order ?? null),
        message: 'The broker rejected the order. This key is spent; a new try needs a new clientOrderId.',
        replayed: isJoining,
        rejectionCode: settled.code,
        brokerCode: settled.brokerCode,
        reason: settled.reason,
      }
    case 'not_sent':
      return { ...toNotPlaced(order, settled.code, settled.message), ...pickRetry(settled) }
    case 'unknown':
      return {
        clientOrderId,
        outcome: 'UNKNOWN',
        orderId: null,
        order: null,
        message:
          'The order may have been sent, and its outcome is not known: it may exist. Look for this clientOrderId among the orders of the account before you place it under another one.',
        retryAfterMs: 5_000,
      }
    default:
      return settled satisfies never
  }
}

function pickRetry({ retrySameKey, retryAfterMs }: { retrySameKey: boolean; retryAfterMs: number | null }) {
  return { retrySameKey, retryAfterMs }
}

/** The answer to an input that nothing was sent for. */
export function toInvalid({ clientOrderId }: NewOrder, problems: OrderInputProblem[]): OrderInvalid {
  return { clientOrderId, outcome: 'INVALID', orderId: null, order: null, message: toSentence(problems), problems }
}

/** One sentence for all problems of an input. */
export function toSentence(problems: readonly OrderInputProblem[]): string {
  const [problem] = problems
  if (problems.length === 1 && problem) return problem.message
  return `The input has ${problems.length} problems, each listed with its field; nothing was sent.`
}

/** The answer where nothing was even tried; the same key may be sent again. */
export function toNotPlaced(
  { clientOrderId }: NewOrder,
  notPlacedCode: NotPlacedCode,
  message: string,
): OrderNotPlaced {
  return {
    clientOrderId,
    outcome: 'NOT_PLACED',
    orderId: null,
    order: null,
    message,
    notPlacedCode,
    certainty: 'PROVEN',
    retrySameKey: true,
    retryAfterMs: null,
  }
}

/** The end of an attempt that never reached the broker; the same key may be sent again. */
export function notSent(code: NotPlacedCode, message: string, retryAfterMs: number | null = null): NotSent {
  return { state: 'not_sent', code, message, retrySameKey: true, retryAfterMs }
}

/** The end of an attempt that proves that no order exists; `callerSendBy` is the caller's own instant, epoch ms. */
export function toRefused(error: UpstreamError, callerSendBy: number | null): Settled {
  if (error.rejection !== null) {
    const { rejection: code, brokerCode, reason } = error
    return { state: 'rejected', code, brokerCode, reason, answer: null }
  }
  if (error.kind === 'throttled') {
    return notSent('RATE_LIMITED', 'The broker asks to wait; the order was not placed.', error.retryAfterMs ?? 1_000)
  }
  if (error.kind === 'not_sent' && callerSendBy !== null && Date.now() >= callerSendBy) {
    const message = 'No connection was free before the instant to send it by; the order was not sent.'
    return { ...notSent('DEADLINE', message), retrySameKey: false }
  }
  if (error.kind === 'not_sent') {
    const message = 'The broker cannot be reached; the order was not sent.'
    return notSent('BROKER_UNAVAILABLE', message, error.retryAfterMs)
  }
  // 413 and 415 will not get better by sending the same again.
  const retrySameKey = error.status !== 413 && error.status !== 415
  const message =
    "The broker did not look at the order: it does not take this service's request, credential or address."
  return { ...notSent('BROKER_UNAVAILABLE', message), retrySameKey }
}

// ---- canceling ------------------------------------------------------------------------------------------------------

/**
 * Whether a refusal speaks of this order or its account, or may do so; the others speak of us, and the cancel was not
 * looked at.
 */
export function isAboutTheOrder(error: UpstreamError): boolean {
  return error.kind === 'refused' && (error.rejection !== null || error.effect === 'unknown')
}

/** What a final order means for its cancel; `alreadyCanceled` where the cancel was not ours. */
export function toFinal(order: Order, alreadyCanceled: boolean): CancelOrderResult {
  const { id } = order
  if (order.status === 'CANCELED') {
    const message = alreadyCanceled ? 'The order was canceled already.' : 'The broker reports the order canceled.'
    return { outcome: 'CANCELED', orderId: id, order, message, alreadyCanceled }
  }
  if (order.status === 'FILLED') {
    return toCancelRefused(id, order, 'ALREADY_FILLED', 'The order had filled before it could be canceled.')
  }
  return toCancelRefused(id, order, 'ALREADY_CLOSED', 'The order was closed before it could be canceled.')
}

/** Asked for and not confirmed. */
export function toCancelPending(orderId: string, order: Order | null): CancelPending {
  const message = 'The cancel was asked for and is not confirmed; the order may still fill. Read it again.'
  return { outcome: 'PENDING', orderId, order, message, retryAfterMs: 2_000 }
}

/** Not canceled by this call. */
export function toCancelRefused(
  orderId: string,
  order: Order | null,
  refusalCode: CancelRefusalCode,
  message: string,
): CancelRefused {
  return { outcome: 'REFUSED', orderId, order, message, refusalCode, brokerCode: null, reason: null }
}

/** Nothing was asked of the broker, or nothing that it looked at. */
export function toUnreachable(orderId: string, order: Order | null, error: UpstreamError): CancelRefused {
  const { brokerCode, reason } = error
  if (error.kind === 'throttled') {
    const message = 'The broker asks to wait; the order was not canceled.'
    return { ...toCancelRefused(orderId, order, 'RATE_LIMITED', message), brokerCode, reason }
  }
  const message = 'The broker could not be asked; nothing was canceled.'
  return { ...toCancelRefused(orderId, order, 'BROKER_UNAVAILABLE', message), brokerCode, reason }
}

/** The caller's time was over before the order had been read, so that nothing was asked of the broker. */
export function toUnread(orderId: string): CancelRefused {
  const message = 'The order could not be read in time, so nothing was canceled.'
  return toCancelRefused(orderId, null, 'BROKER_UNAVAILABLE', message)
}
