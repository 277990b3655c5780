// The record of a placement and its state machine, which makes the next record from a record and an event. Pure, so that a
// simulation can reach every state. The caller stores each step before it continues.
//
//   RESERVED ── not sent ──► NOT_SENT ── the same key again ──► RESERVED
//      │ sending
//   SENDING ─┬─ accepted ──► ACCEPTED      ├─ rejected ──► REJECTED
//            ├─ not sent ──► NOT_SENT      └─ lost ──────► UNKNOWN
//   UNKNOWN ─┬─ found ─────► ACCEPTED or REJECTED
//            ├─ absent ────► NOT_PLACED ── found late ──► ACCEPTED or REJECTED, with an alarm
//            └─ ambiguous ─► AMBIGUOUS ── an operator decides ► ACCEPTED or NOT_PLACED

import { createHash } from 'node:crypto'
import { normalizeDecimal } from '../../domain/decimal.ts'
import type { BrokerId, NewOrder, OrderRejectionCode } from '../../domain/order.ts'
import type { OrderTerm } from './terms.ts'

export const placementStates = [
  'RESERVED',
  'SENDING',
  'NOT_SENT',
  'ACCEPTED',
  'REJECTED',
  'UNKNOWN',
  'AMBIGUOUS',
  'NOT_PLACED',
] as const
/** The state of a placement; the drawing above shows the transitions. */
export type PlacementState = (typeof placementStates)[number]

/** How an order was recognised as the one of a placement. */
export type OrderMatch = 'RESPONSE' | 'CLIENT_ORDER_ID' | 'IDEMPOTENCY_KEY' | 'FINGERPRINT' | 'OPERATOR'

/** Why an order was not placed, where this service decided or found it out. */
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
  | 'CANCELED'

/**
 * The record of one client order id, stored before the first byte leaves. Instants in epoch ms. It is plain JSON without
 * credentials, and is never changed: each step makes a new record.
 */
export interface Placement {
  /** UUIDv7, sent as the Idempotency-Key, because a caller could repeat its own key after the broker has forgotten it. */
  opId: string
  broker: BrokerId
  accountId: string
  /** The caller's key; unique with broker and account. */
  clientOrderId: string
  /** SHA-256 of what was ordered, as hex; see `toFingerprint`. */
  fingerprint: string
  request: NewOrder
  state: PlacementState
  /** Number of attempts to send it, from 1. */
  attempt: number
  /** Number of times it was sent or may have been. */
  sends: number
  /** The process that runs the attempt. Its attempt has ended if it is another one than this process. */
  owner: string
  /** Number of the record, from 1; the audit row of a change has the same number. */
  version: number
  /** It may not be sent at this instant or later. */
  sendBy: number
  firstSentAt: number | null
  lastSentAt: number | null
  /** The pre-send snapshot of the orders of this symbol and side; null if none was taken. */
  preImage: PreSendSnapshot | null
  /** The broker's order; null until it is known to exist. */
  orderId: string | null
  foundBy: OrderMatch | null
  /** Why it was not sent, or how the broker refused it; null in every other state. */
  outcome: NotSentOutcome | RejectedOutcome | null
  evidence: Evidence
  /** When a caller requested its cancel, and when the cancel ended: with a final status, or refused by the broker. */
  cancelRequestedAt: number | null
  cancelSettledAt: number | null
  /** When the next lookup runs; null if none will. */
  nextCheckAt: number | null
  createdAt: number
  /** When it got its outcome, proven or assumed; null until then. */
  resolvedAt: number | null
}

export interface PreSendSnapshot {
  orderIds: string[]
  /** Whether these are all orders that could be mistaken for its own. */
  isComplete: boolean
}

export interface NotSentOutcome {
  kind: 'not_sent'
  code: NotPlacedCode
  message: string
  retrySameKey: boolean
  retryAfterMs: number | null
}

/** The outcome of a placement that was canceled before it was sent. */
export const canceledBeforeSend: NotSentOutcome = {
  kind: 'not_sent',
  code: 'CANCELED',
  message: 'It was canceled before it was placed, so it is not sent. This key is spent.',
  retrySameKey: false,
  retryAfterMs: null,
}

export interface RejectedOutcome {
  kind: 'rejected'
  code: OrderRejectionCode
  brokerCode: string | null
  reason: string | null
}

/** How the broker's order differs from what was sent. */
export interface BrokerChanges {
  terms: OrderTerm[]
  /** How its client order id differs; null if it does not differ or the broker does not show it. */
  clientOrderId: 'changed' | 'cut' | 'other' | null
}

interface Evidence {
  /** How the send ended without an answer; `status` is null if no response head arrived. */
  failure?: { kind: string; status: number | null }
  /** The order id of an unconfirmed answer. */
  answeredOrderId?: string
  /** The changes of the order by the broker; absent if it changed nothing. */
  changes?: BrokerChanges
  /** Number of complete lookups that did not find its order. */
  emptyScans?: number
  /** Ids of the orders that could each be its own. */
  candidates?: string[]
}

/** A new placement, RESERVED by `owner` at `at` (epoch ms). */
export function createPlacement(
  request: NewOrder,
  { opId, broker, owner, sendBy, at }: Pick<Placement, 'opId' | 'broker' | 'owner' | 'sendBy'> & { at: number },
): Placement {
  return {
    opId,
    broker,
    accountId: request.accountId,
    clientOrderId: request.clientOrderId,
    fingerprint: toFingerprint(request),
    request,
    state: 'RESERVED',
    attempt: 1,
    sends: 0,
    owner,
    version: 1,
    sendBy,
    firstSentAt: null,
    lastSentAt: null,
    preImage: null,
    orderId: null,
    foundBy: null,
    outcome: null,
    evidence: {},
    cancelRequestedAt: null,
    cancelSettledAt: null,
    nextCheckAt: null,
    createdAt: at,
    resolvedAt: null,
  }
}

/** The events of a placement. An event of an attempt has its number, because a later attempt may be under way. */
export type PlacementEvent =
  /** `acknowledged`: keys of duplicate candidates that its caller has acknowledged. */
  | { type: 'reserved'; owner: string; sendBy: number; acknowledged: readonly string[] }
  | { type: 'sending'; attempt: number; preImage: PreSendSnapshot | null }
  /** `changes`: absent if the broker changed nothing. */
  | { type: 'accepted'; orderId: string; foundBy: OrderMatch; changes?: BrokerChanges }
  | { type: 'rejected'; outcome: RejectedOutcome; orderId: string | null; foundBy: OrderMatch | null }
  /** The broker proved that it did not process the first send, and the order is sent once more. */
  | { type: 'sent_again'; attempt: number }
  /** `left`: the call reached the broker, which proved that it did not process it. */
  | { type: 'not_sent'; attempt: number; outcome: NotSentOutcome; left: boolean }
  /** `answeredOrderId`: the order id of an unconfirmed answer. */
  | { type: 'lost'; attempt: number; failure: { kind: string; status: number | null }; answeredOrderId?: string }
  | { type: 'absent'; emptyScans: number; nextCheckAt: number | null }
  | { type: 'ambiguous'; candidates: string[] }
  /** An operator has decided: the order of the placement, or null if it has no order. `by` names the operator. */
  | { type: 'resolved'; orderId: string | null; by: string }
  | { type: 'checked'; nextCheckAt: number | null }
  | { type: 'cancel_requested' }
  | { type: 'cancel_settled'; orderStatus: string }

/** The next record, and the alarm for the operator. */
export interface Step {
  /** The next record; the same record if the event only raises an alarm. */
  placement: Placement
  /** Set if the event contradicts what was known or assumed; null otherwise. */
  alarm: string | null
}

/**
 * Applies `event` to `placement` at `at` (epoch ms). Returns null if it changes nothing, such as an outcome that is known
 * already. Never leaves ACCEPTED or REJECTED.
 */
export function advance(placement: Placement, event: PlacementEvent, at: number): Step | null {
  const { state } = placement
  const isOpen = state === 'SENDING' || state === 'UNKNOWN' || state === 'AMBIGUOUS'
  const contradict = (alarm: string): Step => ({ placement, alarm })
  const isPending = isCancelPending(placement)
  // No order exists that the cancel request could be about, now or by a later attempt.
  const wishSettled = isPending ? { cancelSettledAt: at } : {}
  const to = (change: Partial<Placement>, alarm: string | null = null): Step => ({
    placement: { ...placement, ...change, version: placement.version + 1 },
    alarm,
  })
  switch (event.type) {
    case 'reserved': {
      if (state !== 'NOT_SENT' && state !== 'RESERVED') return null
      const { owner, sendBy } = event
      const attempt = placement.attempt + 1
      return to({ state: 'RESERVED', attempt, owner, sendBy, preImage: null, outcome: null, resolvedAt: null })
    }
    case 'sending': {
      if (state !== 'RESERVED' || event.attempt !== placement.attempt) return null
      // A placement with a cancel request is not sent.
      if (isPending) return null
      const { preImage } = event
      const firstSentAt = placement.firstSentAt ?? at
      return to({ state: 'SENDING', preImage, firstSentAt, lastSentAt: at, sends: placement.sends + 1 })
    }
    case 'sent_again': {
      if (state !== 'SENDING' || event.attempt !== placement.attempt || isPending) return null
      return to({ lastSentAt: at, sends: placement.sends + 1 })
    }
    case 'accepted': {
      const { orderId, foundBy } = event
      const isLate = state === 'NOT_PLACED'
      if (!isOpen && !isLate) {
        return placement.orderId === orderId ? null : contradict('the broker has a second order for a placement')
      }
      const alarm = isLate ? 'an order that counted as not placed exists' : null
      const { changes } = event
      const evidence = changes ? { evidence: { ...placement.evidence, changes } } : {}
      const found = { orderId, foundBy, outcome: null, nextCheckAt: null, resolvedAt: at, ...evidence }
      return to({ state: 'ACCEPTED', ...found }, alarm)
    }
    case 'rejected': {
      if (state === 'ACCEPTED') return contradict('the broker refused an order that it has')
      if (!isOpen && state !== 'NOT_PLACED') return null
      const { outcome, orderId, foundBy } = event
      const known = { orderId, foundBy, outcome, nextCheckAt: null, resolvedAt: at }
      const alarm = state === 'NOT_PLACED' ? 'an order that counted as not placed was rejected' : null
      return to({ state: 'REJECTED', ...known, ...wishSettled }, alarm)
    }
    case 'not_sent': {
      if (event.attempt !== placement.attempt) return null
      if (state === 'ACCEPTED') return contradict('the broker has an order that it said it did not process')
      if (state !== 'RESERVED' && state !== 'SENDING') return null
      const sends = placement.sends - (state === 'SENDING' && !event.left ? 1 : 0)
      const unsent = sends === 0 ? { firstSentAt: null, lastSentAt: null } : {}
      // A repeat of the key must not send an order that was canceled meanwhile.
      const outcome = isPending && state === 'SENDING' ? canceledBeforeSend : event.outcome
      const known = { outcome, sends, ...unsent, nextCheckAt: null, resolvedAt: at }
      return to({ state: 'NOT_SENT', ...known, ...wishSettled })
    }
    case 'lost': {
      if (state !== 'SENDING' || event.attempt !== placement.attempt) return null
      const { failure, answeredOrderId } = event
      return to({
        state: 'UNKNOWN',
        evidence: { failure, ...(answeredOrderId === undefined ? {} : { answeredOrderId }) },
      })
    }
    case 'absent': {
      if (state !== 'UNKNOWN') return null
      const evidence = { ...placement.evidence, emptyScans: event.emptyScans }
      const { nextCheckAt } = event
      const known = { evidence, nextCheckAt, resolvedAt: at, ...(nextCheckAt === null ? wishSettled : {}) }
      return to({ state: 'NOT_PLACED', ...known })
    }
    case 'ambiguous': {
      if (state !== 'UNKNOWN') return null
      const evidence = { ...placement.evidence, candidates: event.candidates }
      return to({ state: 'AMBIGUOUS', evidence, nextCheckAt: null }, 'an operator has to decide which order it is')
    }
    case 'resolved': {
      if (state !== 'UNKNOWN' && state !== 'AMBIGUOUS' && state !== 'NOT_PLACED') return null
      if (event.orderId === null) {
        if (state === 'NOT_PLACED') return null
        return to({ state: 'NOT_PLACED', nextCheckAt: null, resolvedAt: at, ...wishSettled })
      }
      const found = { orderId: event.orderId, foundBy: 'OPERATOR' as const }
      return to({ state: 'ACCEPTED', ...found, outcome: null, nextCheckAt: null, resolvedAt: at })
    }
    case 'checked':
      if (event.nextCheckAt === placement.nextCheckAt) return null
      // An operator who decided that there is no order has ended the late lookups.
      if (state !== 'UNKNOWN' && (state !== 'NOT_PLACED' || placement.nextCheckAt === null)) return null
      // The last late lookup also ends the cancel request, because no lookup can find the order later.
      return to({
        nextCheckAt: event.nextCheckAt,
        ...(event.nextCheckAt === null && state === 'NOT_PLACED' ? wishSettled : {}),
      })
    case 'cancel_requested': {
      const isGone = isSettled(placement) && placement.orderId === null && placement.nextCheckAt === null
      if (isPending || isGone) return null
      return to({ cancelRequestedAt: at, cancelSettledAt: null })
    }
    case 'cancel_settled':
      return isPending ? to({ cancelSettledAt: at }) : null
    default:
      return event satisfies never
  }
}

/** Whether the placement has a cancel request that is not settled. */
export function isCancelPending({ cancelRequestedAt, cancelSettledAt }: Placement): boolean {
  return cancelRequestedAt !== null && cancelSettledAt === null
}

/** Whether the placement has an outcome, so that a caller need not wait for the send or a lookup. */
export function isSettled({ state }: Placement): boolean {
  switch (state) {
    case 'NOT_SENT':
    case 'ACCEPTED':
    case 'REJECTED':
    case 'NOT_PLACED':
      return true
    case 'RESERVED':
    case 'SENDING':
    case 'UNKNOWN':
    case 'AMBIGUOUS':
      return false
    default:
      return state satisfies never
  }
}

const decimalFields = [
  'quantity',
  'notional',
  'limitPrice',
  'stopPrice',
  'trailPercent',
  'trailPrice',
  'commission',
] as const

/**
 * Returns the SHA-256, as hex, of all fields of an order except its key. It distinguishes a repeat from another order. Decimals
 * count by their value: 5, 5.0 and 5.00 are equal.
 */
export function toFingerprint(order: NewOrder): string {
  const economics = new Map<string, unknown>(Object.entries(order))
  economics.delete('clientOrderId')
  for (const field of decimalFields) economics.set(field, normalize(order[field]))
  // Drops absent fields, so that a field that is added later changes no fingerprint.
  for (const [field, value] of economics) if (value === null) economics.delete(field)
  // Sorted, because the order of the fields in the code may change and records outlive it.
  const sorted = [...economics].toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex')
}

function normalize(decimal: string | null): string | null {
  return decimal === null ? null : normalizeDecimal(decimal)
}

/**
 * Whether a placement may be sent, for the first time or again: only if no order can exist under its key, and no caller has
 * canceled it.
 *
 *   RESERVED                    yes   nothing has left
 *   NOT_SENT                    yes   proven that no order exists
 *   NOT_SENT, CANCELED          no    the cancel used up the key
 *   SENDING, UNKNOWN, AMBIGUOUS no    an order may exist
 *   NOT_PLACED                  no    assumed only; a new key is needed
 *   ACCEPTED, REJECTED          no    the outcome is final
 */
export function maySend({ state, outcome }: Pick<Placement, 'state' | 'outcome'>): boolean {
  switch (state) {
    case 'RESERVED':
      return true
    case 'NOT_SENT':
      return !(outcome?.kind === 'not_sent' && outcome.code === 'CANCELED')
    case 'SENDING':
    case 'UNKNOWN':
    case 'AMBIGUOUS':
    case 'NOT_PLACED':
    case 'ACCEPTED':
    case 'REJECTED':
      return false
    default:
      return state satisfies never
  }
}
