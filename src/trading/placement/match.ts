// Finds the order of a placement: in the answer to its send, and among the orders of its account. Pure.
//
// A match rests on three properties of an order: its client order id (clientOrderId.ts), its terms (terms.ts), and whether it
// is new. An order is new if the pre-send snapshot lacks it and it was not submitted before the placement was made, with 5
// minutes allowed for a difference between the clocks. `answered` means that the answer to our send had the order's id.
//
//   client order id        new    terms fit   result
//   exact                  yes    –           ours
//   exact                  no     yes         ours, if it was not submitted before the placement was made
//   exact                  no     no          a candidate: the id was used elsewhere, or the clocks differ more
//   changed                yes    –           ours, if the symbol and the side are the same
//   cut                    yes    yes         ours
//   cut, answered          yes    no          ours
//   cut                    yes    no          a candidate
//   other, none: answered  yes    yes         ours
//   other, none: answered  yes    no          a candidate
//   none                   yes    yes         a candidate; the only one may be bound as FINGERPRINT at the settle time, if
//                                             the broker shows no client order id of any order of the account
//   other                  yes    yes         a stray: never bound, but the placement is not concluded to be absent
//   anything else                             not ours
//
// An order is never ours if it is bound to another placement or has exactly the client order id of another one that may have
// been sent. If it fits another unresolved placement better, it is left to that one; if it fits several equally well, it is a
// candidate. An order left to another placement may still be ours, so it is no evidence of absence.

import type { PlaceAnswer } from '../../brokers/broker.ts'
import { compareInstants } from '../../domain/instant.ts'
import { compareClientOrderIds } from './clientOrderId.ts'
import type { ClientOrderIdMatch } from './clientOrderId.ts'
import type { NewOrder, Order } from '../../domain/order.ts'
import { isTombstone } from '../../store/store.ts'
import type { Tombstone } from '../../store/store.ts'
import type { BrokerChanges, OrderMatch, Placement } from './placement.ts'
import { findDifferingTerms, fitsTerms, isSameSide, isSameSymbol } from './terms.ts'

/** The result of a lookup for a placement. */
export type Match =
  | { kind: 'found'; order: Order; foundBy: OrderMatch; changes: BrokerChanges | null }
  /** Orders to read by id first, because lists may leave out client order ids, and differing terms need a second read. */
  | { kind: 'unread'; orderIds: string[] }
  /**
   * Orders that could each be the one of the placement. `isBindable` is true if their terms are all that the broker shows of
   * them: it shows no client order id of any order of the account.
   */
  | { kind: 'candidates'; orders: Order[]; isBindable: boolean }
  /** New orders with the same terms and a client order id that is not ours. */
  | { kind: 'strays'; orders: Order[] }
  /** New orders with the same terms that fit other unresolved placements better. */
  | { kind: 'rivals'; orders: Order[] }
  | { kind: 'none' }

/** The orders and placements around a placement during a lookup. */
export interface Surroundings {
  /** Ids of the orders that were read by id. */
  whole: ReadonlySet<string>
  /** Ids of the orders that belong to other placements: bound to one, or with exactly its client order id. */
  taken: ReadonlySet<string>
  /** The other unresolved placements of the account. */
  rivals: readonly Placement[]
}

// Maximum difference between a broker's clock and ours, in ms.
const clockSkewMs = 300_000

/** Finds the order of `placement` among `orders` by the table above. */
export function findMatch(placement: Placement, orders: readonly Order[], around: Surroundings): Match {
  const { request } = placement
  const free = orders.filter(({ id, account }) => account.id === placement.accountId && !around.taken.has(id))
  const possible = free.map((order) => toRow(placement, order)).filter((row) => row.idMatch === 'exact' || row.isNew)
  const rows = possible.filter((row) => !isLeftToRival(row, around.rivals))

  for (const isClaimed of claims) {
    const claimed = rows.filter((row) => isClaimed(row, placement))
    const [row] = claimed
    if (row === undefined) continue
    if (claimed.length > 1 || isContested(row, around.rivals)) return toCandidates(claimed)
    const isSure = row.differing.length === 0 && row.idMatch !== 'none'
    if (isSure || around.whole.has(row.order.id)) return toFound(row, placement)
    return { kind: 'unread', orderIds: [row.order.id] }
  }

  const nameless = rows.filter(({ idMatch }) => idMatch === 'none')
  // Includes orders whose terms differ, because a broker that changes terms may show the client order id only when an order is
  // read by id.
  const unread = nameless
    .filter(({ order }) => !around.whole.has(order.id))
    .filter((row) => isAnswered(row, placement) || isForSameTrade(row, request))
  if (unread.length > 0) return { kind: 'unread', orderIds: unread.map(({ order }) => order.id) }
  // Any of these may be ours, so the placement must not be concluded to be absent.
  const doubtful = rows.filter(
    (row) =>
      row.idMatch === 'exact' ||
      row.idMatch === 'cut' ||
      (row.idMatch === 'changed' && row.fits) ||
      isAnswered(row, placement),
  )
  if (doubtful.length > 0) return toCandidates(doubtful)
  const alike = nameless.filter(({ fits }) => fits)
  // A broker that shows the client order ids of other orders would show ours as well.
  const showsIds = orders.some(({ clientOrderId }) => typeof clientOrderId === 'string')
  if (alike.length > 0) return toCandidates(alike, !showsIds)
  const strays = rows.filter(({ idMatch, fits }) => idMatch === 'other' && fits)
  if (strays.length > 0) return { kind: 'strays', orders: strays.map(({ order }) => order) }
  const left = possible.filter((row) => row.fits && row.idMatch !== 'other' && isLeftToRival(row, around.rivals))
  return left.length > 0 ? { kind: 'rivals', orders: left.map(({ order }) => order) } : { kind: 'none' }
}

interface Row {
  order: Order
  idMatch: ClientOrderIdMatch
  differing: BrokerChanges['terms']
  fits: boolean
  isRecent: boolean
  isNew: boolean
}

function toRow(placement: Placement, order: Order): Row {
  const { request, preImage } = placement
  const isRecent =
    typeof order.submittedAt !== 'string' ||
    compareInstants(order.submittedAt, toSearchedSince(placement.createdAt)) >= 0
  return {
    order,
    idMatch: compareClientOrderIds(request.clientOrderId, order.clientOrderId),
    differing: findDifferingTerms(request, order),
    fits: fitsTerms(request, order),
    isRecent,
    isNew: isRecent && preImage?.orderIds.includes(order.id) !== true,
  }
}

type Rule = (row: Row, placement: Placement) => boolean

const isAnswered: Rule = ({ order }, { evidence }) => order.id === evidence.answeredOrderId

/** The rules that make a row ours, strongest first. A rule applies only if no row meets a stronger one. */
const claims: readonly Rule[] = [
  ({ idMatch, isRecent, isNew, fits }) => idMatch === 'exact' && isRecent && (isNew || fits),
  (row, placement) => isAnswered(row, placement) && (row.fits || row.idMatch === 'changed' || row.idMatch === 'cut'),
  (row, { request }) => row.idMatch === 'changed' && isForSameTrade(row, request),
  ({ idMatch, fits }) => idMatch === 'cut' && fits,
]

function isForSameTrade({ order }: Row, request: NewOrder): boolean {
  return isSameSymbol(request, order) && isSameSide(request, order)
}

// ---- rivals -----------------------------------------------------------------------------------------------------

/** Rank of an order for a placement by its client order id: [with other terms, with the same terms]. 0 is no match. */
const ranks = { exact: [6, 6], changed: [1, 4], cut: [0, 3], other: [0, 0], none: [0, 0] } as const

function toRank(idMatch: ClientOrderIdMatch, fits: boolean): number {
  return ranks[idMatch][fits ? 1 : 0]
}

function toBestRank(order: Order, rivals: readonly Placement[]): number {
  const toRivalRank = ({ request }: Placement): number =>
    toRank(compareClientOrderIds(request.clientOrderId, order.clientOrderId), fitsTerms(request, order))
  return Math.max(0, ...rivals.map(toRivalRank))
}

function isLeftToRival({ order, idMatch, fits }: Row, rivals: readonly Placement[]): boolean {
  return toBestRank(order, rivals) > toRank(idMatch, fits)
}

function isContested({ order, idMatch, fits }: Row, rivals: readonly Placement[]): boolean {
  const rank = toRank(idMatch, fits)
  return rank > 0 && toBestRank(order, rivals) === rank
}

// ---- results ----------------------------------------------------------------------------------------------------

function toCandidates(rows: readonly Row[], isBindable = false): Match {
  return { kind: 'candidates', orders: rows.map(({ order }) => order), isBindable }
}

function toFound(row: Row, placement: Placement): Match {
  const byId = row.idMatch === 'exact' || row.idMatch === 'changed' || row.idMatch === 'cut'
  const foundBy = isAnswered(row, placement) ? 'RESPONSE' : byId ? 'CLIENT_ORDER_ID' : 'FINGERPRINT'
  return { kind: 'found', order: row.order, foundBy, changes: toChanges(placement.request, row.order) }
}

/** Returns what the broker changed of `request`; null if it changed nothing. */
export function toChanges(request: NewOrder, order: Order): BrokerChanges | null {
  const terms = findDifferingTerms(request, order)
  const idMatch = compareClientOrderIds(request.clientOrderId, order.clientOrderId)
  const clientOrderId = idMatch === 'exact' || idMatch === 'none' ? null : idMatch
  return terms.length === 0 && clientOrderId === null ? null : { terms, clientOrderId }
}

/**
 * Returns the client order ids of `orders` to look up in the store: if another placement has exactly that id, the order is not
 * the one of `placement`.
 */
export function listIdsToCheck(placement: Placement, orders: readonly Order[]): string[] {
  const ids = orders
    .map((order) => toRow(placement, order))
    .filter(({ idMatch, fits }) => idMatch === 'changed' || idMatch === 'cut' || (idMatch === 'other' && fits))
    .map(({ order }) => String(order.clientOrderId))
  return [...new Set(ids)]
}

/** Returns the earliest instant at which the order of a placement created at `createdAt` (epoch ms) can have been submitted. */
export function toSearchedSince(createdAt: number): string {
  return new Date(createdAt - clockSkewMs).toISOString()
}

/**
 * Whether the order `orderId` may be the one of `other`, the placement that has exactly its client order id. False if `other`
 * was never sent, because then the broker changed the client order id of another placement to that one.
 */
export function mayOwn(other: Placement | Tombstone, orderId: string): boolean {
  if (other.orderId !== null) return other.orderId === orderId
  return !isTombstone(other) && ['SENDING', 'UNKNOWN', 'AMBIGUOUS', 'NOT_PLACED'].includes(other.state)
}

// ---- the answer to a send -----------------------------------------------------------------------------------------

/**
 * The verdict on the answer to a send:
 *
 * - `ours`: the order of the placement.
 * - `unconfirmed`: an order with another client order id or other terms than were sent; a read has to confirm that it is ours.
 * - `contradiction`: the order of another placement, or an order that existed before the send.
 */
export type AnswerVerdict = 'ours' | 'unconfirmed' | 'contradiction'

/** Judges `answer`. `isTaken` is true if its order, or exactly its client order id, belongs to another placement. */
export function judgeAnswer({ request, preImage }: Placement, answer: PlaceAnswer, isTaken: boolean): AnswerVerdict {
  const { orderId, clientOrderId } = answer
  const isExact = clientOrderId === request.clientOrderId
  const wasThere = preImage?.orderIds.includes(orderId) === true
  if (isTaken || (wasThere && !isExact)) return 'contradiction'
  const differs =
    answer.differing.length > 0 || (answer.order !== null && findDifferingTerms(request, answer.order).length > 0)
  return (isExact || clientOrderId === null) && !differs ? 'ours' : 'unconfirmed'
}

/**
 * Whether `order` is the order of `placement`, once it was read because the answer to our send named it. False if it fits one
 * of `rivals`, the other unresolved placements of the account, at least as well.
 */
export function isConfirmed(placement: Placement, order: Order, rivals: readonly Placement[]): boolean {
  const row = toRow(placement, order)
  const { idMatch, isNew, fits } = row
  if (isLeftToRival(row, rivals) || isContested(row, rivals)) return false
  if (idMatch === 'exact' && fits) return true
  return isNew && (idMatch === 'exact' || idMatch === 'changed' || idMatch === 'cut' || fits)
}
