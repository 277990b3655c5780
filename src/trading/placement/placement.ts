// The record of a placement and its state machine: a record and what happened in, the next record out. Pure, so that a
// simulation can walk all of it; who runs it keeps each step in the store before it goes on.
//
//   RESERVED ── not sent ──► NOT_SENT ── the same key again ──► RESERVED
//      │ sending
//   SENDING ─┬─ accepted ──► ACCEPTED      ├─ rejected ──► REJECTED
//            ├─ not sent ──► NOT_SENT      └─ lost ──────► UNKNOWN
//   UNKNOWN ─┬─ found ─────► ACCEPTED or REJECTED
//            ├─ absent ────► NOT_PLACED ── found late ──► ACCEPTED or REJECTED, with an alarm
//            └─ ambiguous ─► AMBIGUOUS ─── a person decides ──► ACCEPTED or NOT_PLACED

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
/** Where a placement stands; the drawing above says how it moves. */
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
 * What is known of one key, written before the first byte leaves. Instants in epoch ms. Plain JSON throughout, without
 * credentials; frozen nowhere and changed by nobody: each step makes a new one.
 */
export interface Placement {
  /** UUIDv7. Sent as the Idempotency-Key: a caller's key could come back after the broker has forgotten it. */
  opId: string
  broker: BrokerId
  accountId: string
  /** The caller's key; unique with broker and account. */
  clientOrderId: string
  /** SHA-256 of what was ordered, as hex; see `toFingerprint`. */
  fingerprint: string
  request: NewOrder
  state: PlacementState
  /** How often it was taken up, from 1. */
  attempt: number
  /** How often it left this service or may have. */
  sends: number
  /** The process that took it up: what another one left RESERVED or SENDING ended with it. */
  owner: string
  /** From 1, one more with each change; the audit row of a change bears the same number. */
  version: number
  /** From this instant on it may not be sent. */
  sendBy: number
  firstSentAt: number | null
  lastSentAt: number | null
  /** Orders of this symbol and side that were there before it was sent; null where nobody looked. */
  preImage: PreImage | null
  /** The broker's order, from the moment it is known to exist. */
  orderId: string | null
  foundBy: OrderMatch | null
  /** Why it was not sent, or how the broker refused it; null in every other state. */
  outcome: NotSentOutcome | RejectedOutcome | null
  evidence: Evidence
  /** When a caller asked to cancel it, and when that ended: with a final status, or with the broker's no. */
  cancelRequestedAt: number | null
  cancelSettledAt: number | null
  /** When it is looked for again; null when nobody will. */
  nextCheckAt: number | null
  createdAt: number
  /** When its outcome was known, by evidence or by assumption; null until then. */
  resolvedAt: number | null
}

export interface PreImage {
  orderIds: string[]
  /** Whether these are all that could be mistaken for it. */
  isComplete: boolean
}

export interface NotSentOutcome {
  kind: 'not_sent'
  code: NotPlacedCode
  message: string
  retrySameKey: boolean
  retryAfterMs: number | null
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
  /** What the broker changed of the order; absent if it changed nothing. */
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

/** What can happen to a placement. News of an attempt says of which one: a later one may be under way by then. */
export type PlacementEvent =
  /** `acknowledged`: keys of unresolved equal orders of which it may be a duplicate, as its caller says. */
  | { type: 'reserved'; owner: string; sendBy: number; acknowledged: readonly string[] }
  | { type: 'sending'; attempt: number; preImage: PreImage | null }
  /** `changes`: absent if the broker changed nothing. */
  | { type: 'accepted'; orderId: string; foundBy: OrderMatch; changes?: BrokerChanges }
  | { type: 'rejected'; outcome: RejectedOutcome; orderId: string | null; foundBy: OrderMatch | null }
  /** The broker proved that it did not look at the first send; it leaves once more. */
  | { type: 'sent_again'; attempt: number }
  /** `left`: the call reached the broker, which proved that it did not process it. */
  | { type: 'not_sent'; attempt: number; outcome: NotSentOutcome; left: boolean }
  /** `answeredOrderId`: the order id of an unconfirmed answer. */
  | { type: 'lost'; attempt: number; failure: { kind: string; status: number | null }; answeredOrderId?: string }
  | { type: 'absent'; emptyScans: number; nextCheckAt: number | null }
  | { type: 'ambiguous'; candidates: string[] }
  /** A person has looked: the order it became, or null when there is none. `by` is who it was. */
  | { type: 'resolved'; orderId: string | null; by: string }
  | { type: 'checked'; nextCheckAt: number | null }
  | { type: 'cancel_requested' }
  | { type: 'cancel_settled'; orderStatus: string }

/** The next record, and what a person should hear of. */
export interface Step {
  /** The same one where only an alarm came of it. */
  placement: Placement
  /** Set when what happened contradicts what was known or assumed. */
  alarm: string | null
}

/**
 * What `event` makes of `placement` at `at` (epoch ms); null where it changes nothing, as news of an outcome that is
 * known already. Never leaves ACCEPTED or REJECTED.
 */
export function advance(placement: Placement, event: PlacementEvent, at: number): Step | null {
  const { state } = placement
  const isOpen = state === 'SENDING' || state === 'UNKNOWN' || state === 'AMBIGUOUS'
  const contradict = (alarm: string): Step => ({ placement, alarm })
  const isPending = isWished(placement)
  // There is no order that the wish could be about, now or by a later attempt.
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
      // What nobody wants any more does not leave.
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
      const alarm = isLate ? 'an order that was taken for never placed exists' : null
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
      const alarm = state === 'NOT_PLACED' ? 'an order that was taken for never placed was rejected' : null
      return to({ state: 'REJECTED', ...known, ...wishSettled }, alarm)
    }
    case 'not_sent': {
      if (event.attempt !== placement.attempt) return null
      if (state === 'ACCEPTED') return contradict('the broker has an order that it said it did not process')
      if (state !== 'RESERVED' && state !== 'SENDING') return null
      const sends = placement.sends - (state === 'SENDING' && !event.left ? 1 : 0)
      const unsent = sends === 0 ? { firstSentAt: null, lastSentAt: null } : {}
      const known = { outcome: event.outcome, sends, ...unsent, nextCheckAt: null, resolvedAt: at }
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
      // A person who has said that there is none has ended the watch.
      if (state !== 'UNKNOWN' && (state !== 'NOT_PLACED' || placement.nextCheckAt === null)) return null
      // With the last search for an order that was never placed, nobody can find it any more.
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

/** Whether its cancel was asked for, and nobody knows yet what came of it. */
export function isWished({ cancelRequestedAt, cancelSettledAt }: Placement): boolean {
  return cancelRequestedAt !== null && cancelSettledAt === null
}

/** Whether nobody will learn more of it by waiting for the send or for a search. */
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
 * SHA-256, as hex, of all that an order is but its key, so that a repeat is told from another order. Decimals count by
 * their value: 5, 5.0 and 5.00 are the same.
 */
export function toFingerprint(order: NewOrder): string {
  const economics = new Map<string, unknown>(Object.entries(order))
  economics.delete('clientOrderId')
  for (const field of decimalFields) economics.set(field, normalize(order[field]))
  // Without what was left out, so that a field which is added later changes no fingerprint.
  for (const [field, value] of economics) if (value === null) economics.delete(field)
  // Sorted, so that it is the order's and not the code's: a record outlives both.
  const sorted = [...economics].toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex')
}

function normalize(decimal: string | null): string | null {
  return decimal === null ? null : normalizeDecimal(decimal)
}
