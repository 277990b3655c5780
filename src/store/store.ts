// The store: placements and the chain of their changes, which must survive a crash. Asynchronous, and without anything that only
// one process can do, so that a database which several processes share can implement it.

import { createHash } from 'node:crypto'
import type { BrokerId } from '../domain/order.ts'
import type { Placement, PlacementState } from '../trading/placement/placement.ts'

/** The key of a placement, as its caller gave it. */
export interface PlacementKey {
  broker: BrokerId
  accountId: string
  clientOrderId: string
}

/** The rest of an old placement with an outcome, which is enough to refuse its key. Instants in epoch ms. */
export interface Tombstone extends PlacementKey {
  opId: string
  fingerprint: string
  /** The id of the placed order; null without an order, or if it was rejected. */
  orderId: string | null
  createdAt: number
  resolvedAt: number
}

/**
 * The kept cancel request of an order that no placement is bound to. It is carried out only if the order belongs to
 * `accountId`. Instants in epoch ms.
 */
export interface CancelRequest {
  broker: BrokerId
  orderId: string
  accountId: string
  /** The caller that requested the cancel, as the audit names callers. */
  principal: string
  requestedAt: number
}

/** Names a cancel request. */
export type CancelKey = Pick<CancelRequest, 'broker' | 'orderId' | 'accountId'>

/** Maximum cancel requests kept for one account, and for all accounts together. */
export const cancelRequestsMax = { perAccount: 100, all: 1_000 } as const

/** One change of a placement, as it is kept with it. */
export interface AuditEntry {
  /** The author of the change: `caller`, `service` or `operator`. */
  principal: string
  from: PlacementState | null
  to: PlacementState
  /** The event, as JSON. Contains no credentials, and nothing of the order but its id. */
  detail: Readonly<Record<string, unknown>>
}

/** An entry in its chain. `seq` is the version that the placement had after the change; `at` in epoch ms. */
export interface AuditRow extends AuditEntry {
  opId: string
  seq: number
  at: number
  /** Hash of the whole placement after the change, so that a change of the record without the chain shows. */
  recordHash: string
  prevHash: string
  hash: string
}

/**
 * Placements and their audit. Every method may throw StoreError, which proves that nothing was changed. A change is on the disk
 * when its method resolves. The code that opened it calls `close`.
 */
export interface Store {
  /**
   * Keeps a new placement, whose version is 1, and its first audit row. False, with nothing changed, when its key
   * already has a placement or a tombstone.
   */
  insert(placement: Placement, entry: AuditEntry, at: number): Promise<boolean>
  /**
   * Puts `placement` in the place of the one with the version before, and adds its audit row, in one transaction.
   * False, with nothing changed, when the stored one has another version, or when its `orderId` belongs to another
   * placement of the account.
   */
  update(placement: Placement, entry: AuditEntry, at: number): Promise<boolean>
  read(opId: string): Promise<Placement | null>
  find(key: PlacementKey): Promise<Placement | Tombstone | null>
  /** The placement that `orderId` was bound to. */
  findByOrder(broker: BrokerId, orderId: string): Promise<Placement | null>
  /** Placements of the account with this fingerprint that are SENDING, UNKNOWN or AMBIGUOUS, oldest first, at most 100. */
  findDuplicateCandidates(broker: BrokerId, accountId: string, fingerprint: string): Promise<Placement[]>
  /** Returns all placements of the account that are SENDING, UNKNOWN or AMBIGUOUS, oldest first. */
  findUnresolved(broker: BrokerId, accountId: string): Promise<Placement[]>
  /** Returns those of `orderIds` that are bound to a placement other than `opId`. */
  findBound(broker: BrokerId, orderIds: readonly string[], opId: string): Promise<string[]>
  /**
   * Returns the placements that still need work, oldest first, from `after` (an opId) on, at most `limit`: RESERVED, SENDING,
   * UNKNOWN, AMBIGUOUS; NOT_PLACED with a `nextCheckAt`; and those with a cancel request that is not settled.
   */
  findUnfinished(after: string | null, limit: number): Promise<Placement[]>
  /**
   * Keeps a cancel request until it is settled. An earlier request for the same order and account stays. Returns false, and keeps
   * nothing, if `cancelRequestsMax` are kept already.
   */
  keepCancel(request: CancelRequest): Promise<boolean>
  /** Deletes the cancel request of an order and account, if it exists. */
  settleCancel(request: CancelKey): Promise<void>
  /** Returns all kept cancel requests, oldest first. */
  findCancels(): Promise<CancelRequest[]>
  /** The audit rows of one placement, in order. */
  readAudit(opId: string): Promise<AuditRow[]>
  /** Every chain of the store, checked; see AuditReport. */
  verifyAudit(): Promise<AuditReport>
  /**
   * Turns placements that were resolved before `resolvedBefore` into tombstones, and forgets tombstones created before
   * `createdBefore` with their audit rows; at most `limit` of each. Neither touches what `findUnfinished` finds. The
   * number of both.
   */
  expire(resolvedBefore: number, createdBefore: number, limit: number): Promise<number>
  close(): Promise<void>
}

/** The result of a check of all chains: the counts, and the first row or record that does not fit, if any. */
export interface AuditReport {
  placements: number
  rows: number
  /** `seq` 0 stands for the record itself. */
  broken: { opId: string; seq: number; what: string } | null
}

/** The store could not do it, and nothing was changed: locked, full, or its file gone. Another try may succeed. */
export class StoreError extends Error {
  override readonly name = 'StoreError'
}

/** Whether `found` is all that is left of a placement. */
export function isTombstone(found: Placement | Tombstone): found is Tombstone {
  return !('state' in found)
}

/** SHA-256, as hex, of a placement as JSON with its names sorted. */
export function hashRecord(placement: Placement): string {
  return toHash(toSorted(placement))
}

/** The hash of an audit row over all else that it holds, which is what chains it. */
export function hashAuditRow(row: Omit<AuditRow, 'hash'>): string {
  const { opId, seq, at, principal, from, to, detail, recordHash, prevHash } = row
  return toHash([prevHash, opId, seq, at, principal, from, to, toSorted(detail), recordHash])
}

function toHash(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex')
}

function toSorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toSorted)
  if (typeof value !== 'object' || value === null) return value
  const sorted = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(sorted.map(([name, inner]) => [name, toSorted(inner)]))
}
