// The outcomes of placing and canceling as callers get them, and the outcome that follows from an answer of the broker. Pure.

import type { UpstreamError } from '../upstream/errors.ts'
import { isTombstone } from '../store/store.ts'
import type { Tombstone } from '../store/store.ts'
import type { NewOrder, Order, OrderRejectionCode } from '../domain/order.ts'
import type { NotSentOutcome, OrderMatch, Placement, RejectedOutcome, NotPlacedCode } from './placement/placement.ts'
import type { OrderInputProblem } from './validate.ts'

export type PlaceOrderOutcome = 'PLACED' | 'REJECTED' | 'INVALID' | 'NOT_PLACED' | 'UNKNOWN'

/** The result of `placeOrder`. `order` is null if it was not read; `orderId` is set whenever the order exists. */
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

/** The result of `cancelOrder`; `order` as it was read after the attempt, null if it could not be read. */
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

/**
 * Returns the outcome of a placement for a caller at `at` (epoch ms). `replayed`: another call began it. `order`: as the broker
 * just showed it; null if it has to be read.
 */
export function toPlaceResult(
  placement: Placement,
  { replayed, order, at }: { replayed: boolean; order: Order | null; at: number },
): PlaceOrderResult {
  const { clientOrderId, orderId, outcome, state } = placement
  switch (state) {
    case 'ACCEPTED': {
      const terms = placement.evidence.changes?.terms ?? []
      const changed = terms.length === 0 ? '' : ` The broker changed ${toList(terms)}: see \`order\`.`
      const message = `${replayed ? 'This order was placed before.' : 'The broker accepted the order.'}${changed}`
      return { clientOrderId, outcome: 'PLACED', orderId, order, message, replayed }
    }
    case 'REJECTED': {
      const { code, brokerCode, reason } =
        outcome?.kind === 'rejected' ? outcome : ({ code: 'OTHER', brokerCode: null, reason: null } as const)
      const message = 'The broker rejected the order. This key is spent; a new try needs a new clientOrderId.'
      const refusal = { rejectionCode: code, brokerCode, reason }
      return { clientOrderId, outcome: 'REJECTED', orderId, order, message, replayed, ...refusal }
    }
    case 'NOT_SENT':
      return toNotPlaced(clientOrderId, outcome?.kind === 'not_sent' ? outcome : stopped)
    case 'NOT_PLACED': {
      const message =
        'The order was sent but never appeared at the broker, so it counts as not placed. If it appears late, ' +
        '`placement` shows it. This key is used up.'
      const given = { code: 'NEVER_APPEARED', message, retrySameKey: false, retryAfterMs: null } as const
      return { ...toNotPlaced(clientOrderId, given), certainty: 'ASSUMED' }
    }
    case 'RESERVED':
    case 'SENDING':
    case 'UNKNOWN':
      return toUnknown(clientOrderId, toRetryAfterMs(placement, at))
    case 'AMBIGUOUS':
      return toUndecided(placement)
    default:
      return state satisfies never
  }
}

/** The result if an order may exist; `retryAfterMs` is null if another query is of no use. */
export function toUnknown(clientOrderId: string, retryAfterMs: number | null): OrderOutcomeUnknown {
  const message =
    'The order may have been sent, and its outcome is not known yet: it may exist. It is being looked for; ask ' +
    '`placement`, or repeat the mutation with the same clientOrderId, which never sends twice.'
  return { clientOrderId, outcome: 'UNKNOWN', orderId: null, order: null, message, retryAfterMs }
}

function toUndecided({ clientOrderId, evidence }: Placement): OrderOutcomeUnknown {
  const count = evidence.candidates?.length ?? 0
  const orders = count === 1 ? 'One order at the broker' : `${count} orders at the broker`
  const message =
    `${orders} could be this one, and Blotter cannot decide which. An operator has to decide with \`blotter placements\`; ` +
    'do not place the order again until then.'
  return { ...toUnknown(clientOrderId, null), message }
}

function toRetryAfterMs({ state, nextCheckAt }: Placement, at: number): number {
  if (state !== 'UNKNOWN') return 1_000
  // The schedule of the lookups is over, so the wait until the next one is long.
  if (nextCheckAt !== null && nextCheckAt < at - 60_000) return 30_000
  return Math.min(Math.max(1_000, (nextCheckAt ?? at) - at), 60_000)
}

/** The answer to a key of which only a tombstone is left. */
export function toExpired({ clientOrderId, orderId }: Tombstone): OrderNotPlaced {
  const message =
    'This clientOrderId was used so long ago that only the key is remembered; nothing was sent. Make a new one.'
  const given = { code: 'KEY_EXPIRED', message, retrySameKey: false, retryAfterMs: null } as const
  return { ...toNotPlaced(clientOrderId, given), certainty: 'ASSUMED', orderId }
}

/** The state of a placement, in the words of `placement`. */
export type OrderPlacementState = 'IN_PROGRESS' | 'UNKNOWN' | 'PLACED' | 'REJECTED' | 'NOT_PLACED'

/** The record of a `placeOrder`. Instants as RFC 3339 in UTC. */
export interface OrderPlacement {
  /** Opaque, for caches of clients; see `toPlacementId`. */
  id: string
  accountId: string
  clientOrderId: string
  state: OrderPlacementState
  attempts: number
  orderId: string | null
  foundBy: OrderMatch | null
  /** Number of orders that could be the one of the placement; null unless an operator has to decide. */
  candidateCount: number | null
  createdAt: string
  sentAt: string | null
  resolvedAt: string | null
  result: PlaceOrderResult
}

/** A record, or what is left of it, as the caller sees it at `at` (epoch ms). */
export function toOrderPlacement(found: Placement | Tombstone, at: number): OrderPlacement {
  const { accountId, clientOrderId, orderId, createdAt, resolvedAt } = found
  const id = toPlacementId(accountId, clientOrderId)
  const known = { id, accountId, clientOrderId, orderId, createdAt: toInstant(createdAt) }
  if (isTombstone(found)) {
    const state = orderId === null ? 'NOT_PLACED' : 'PLACED'
    const rest = {
      attempts: 1,
      foundBy: null,
      candidateCount: null,
      sentAt: null,
      resolvedAt: toInstant(found.resolvedAt),
    }
    return { ...known, ...rest, state, result: toExpired(found) }
  }
  const state = toOutsideState(found)
  return {
    ...known,
    state,
    attempts: found.sends,
    foundBy: found.foundBy,
    candidateCount: found.state === 'AMBIGUOUS' ? (found.evidence.candidates?.length ?? 0) : null,
    sentAt: found.lastSentAt === null ? null : toInstant(found.lastSentAt),
    resolvedAt: resolvedAt === null || state === 'IN_PROGRESS' ? null : toInstant(resolvedAt),
    result: toPlaceResult(found, { replayed: true, order: null, at }),
  }
}

// The prefix makes the id differ from those of orders and accounts, because some caches identify objects by their id alone.
function toPlacementId(accountId: string, clientOrderId: string): string {
  return `placement_${Buffer.from(JSON.stringify([accountId, clientOrderId])).toString('base64url')}`
}

function toInstant(ms: number): string {
  return new Date(ms).toISOString()
}

function toOutsideState({ state, outcome }: Placement): OrderPlacementState {
  switch (state) {
    case 'RESERVED':
    case 'SENDING':
      return 'IN_PROGRESS'
    case 'NOT_SENT':
      // Until its caller gives it up, it may be sent by a repeat.
      return outcome?.kind === 'not_sent' && !outcome.retrySameKey ? 'NOT_PLACED' : 'IN_PROGRESS'
    case 'UNKNOWN':
    case 'AMBIGUOUS':
      return 'UNKNOWN'
    case 'ACCEPTED':
      return 'PLACED'
    case 'REJECTED':
    case 'NOT_PLACED':
      return state
    default:
      return state satisfies never
  }
}

/** The answer to an input that nothing was sent for. */
export function toInvalid({ clientOrderId }: NewOrder, problems: OrderInputProblem[]): OrderInvalid {
  return { clientOrderId, outcome: 'INVALID', orderId: null, order: null, message: toSentence(problems), problems }
}

function toList(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}

/** One sentence for all problems of an input. */
export function toSentence(problems: readonly OrderInputProblem[]): string {
  const [problem] = problems
  if (problems.length === 1 && problem) return problem.message
  return `The input has ${problems.length} problems, each listed with its field; nothing was sent.`
}

/** The answer where no order exists, for it was never sent or never taken in; proven. */
export function toNotPlaced(
  clientOrderId: string,
  { code, message, retrySameKey, retryAfterMs }: Omit<NotSentOutcome, 'kind'>,
): OrderNotPlaced {
  return {
    clientOrderId,
    outcome: 'NOT_PLACED',
    orderId: null,
    order: null,
    message,
    notPlacedCode: code,
    certainty: 'PROVEN',
    retrySameKey,
    retryAfterMs,
  }
}

/** The end of an attempt that never reached the broker; the same key may be sent again. */
export function notSent(code: NotPlacedCode, message: string, retryAfterMs: number | null = null): NotSentOutcome {
  return { kind: 'not_sent', code, message, retrySameKey: true, retryAfterMs }
}

/** The outcome of a placement whose process ended before it was sent. */
export const stopped = notSent('SHUTTING_DOWN', 'The service stopped before the order was sent.')

/** The instant to send it by has passed: no repeat with the same instant will do better. */
export const tooLate: NotSentOutcome = {
  ...notSent('DEADLINE', 'The instant to send it by had passed; the order was not sent.'),
  retrySameKey: false,
}

/** Returns the outcome of an answer that proves that no order exists. `isTooLate` says that the caller's `sendBy` has passed. */
export function toRefused(error: UpstreamError, isTooLate: boolean): NotSentOutcome | RejectedOutcome {
  if (error.rejection !== null) {
    const { rejection: code, brokerCode, reason } = error
    return { kind: 'rejected', code, brokerCode, reason }
  }
  if (error.kind === 'throttled') {
    return notSent('RATE_LIMITED', 'The broker asks to wait; the order was not placed.', error.retryAfterMs ?? 1_000)
  }
  if (error.kind === 'not_sent') {
    if (isTooLate) return tooLate
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

/** Returns the result of a cancel of a final order. `alreadyCanceled` says that another cancel ended it. */
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
export function toCancelPending(orderId: string | null, order: Order | null): CancelPending {
  const message = 'The cancel was requested and is not confirmed; the order may still fill. Read it again.'
  return { outcome: 'PENDING', orderId, order, message, retryAfterMs: 2_000 }
}

/** The answer to a cancel that is kept because the broker could not be called. */
export function toCancelKept(orderId: string | null, order: Order | null): CancelPending {
  const message =
    'The cancel could not be sent to the broker yet. It is kept and sent as soon as possible, also after a restart of this ' +
    'service. The order may still fill; read it again after `retryAfterMs`.'
  return { outcome: 'PENDING', orderId, order, message, retryAfterMs: 5_000 }
}

/** Not canceled by this call. */
export function toCancelRefused(
  orderId: string | null,
  order: Order | null,
  refusalCode: CancelRefusalCode,
  message: string,
): CancelRefused {
  return { outcome: 'REFUSED', orderId, order, message, refusalCode, brokerCode: null, reason: null }
}

/** The result if no cancel call was made, or none that the broker processed. */
export function toUnreachable(orderId: string | null, order: Order | null, error: UpstreamError): CancelRefused {
  const { brokerCode, reason } = error
  if (error.kind === 'throttled') {
    const message = 'The broker asks to wait; the order was not canceled.'
    return { ...toCancelRefused(orderId, order, 'RATE_LIMITED', message), brokerCode, reason }
  }
  const message = 'The broker could not be called; nothing was canceled.'
  return { ...toCancelRefused(orderId, order, 'BROKER_UNAVAILABLE', message), brokerCode, reason }
}

/** The result if the caller's time was over before the order had been read, so that no cancel call was made. */
export function toUnread(orderId: string): CancelRefused {
  const message = 'The order could not be read in time, so nothing was canceled.'
  return toCancelRefused(orderId, null, 'BROKER_UNAVAILABLE', message)
}
