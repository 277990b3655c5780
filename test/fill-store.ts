// A store as a service leaves it after a long life, made in a second: walking 10,000 placements through the service's
// own code would wait for the disk 30,000 times.

import { DatabaseSync } from 'node:sqlite'
import { brokerOf } from '../src/brokers/registry.ts'
import type { NewOrder } from '../src/domain/order.ts'
import { advance, createPlacement } from '../src/trading/placement/placement.ts'
import type { Placement, PlacementEvent } from '../src/trading/placement/placement.ts'
import { openSqliteStore } from '../src/store/sqlite/sqliteStore.ts'
import { hashAuditRow, hashRecord } from '../src/store/store.ts'

/** What the store is to remember. */
export interface Fill {
  /** Placed an hour ago. */
  placed: readonly NewOrder[]
  /** Sent just now, and without an answer. */
  lost: readonly NewOrder[]
}

/** Makes a store in `file`, which is not there yet. Its records and chains are sound: verifyAudit passes. */
export async function fillStore(file: string, { placed, lost }: Fill): Promise<void> {
  await openSqliteStore({ file, role: 'service', mayCreate: true }).close()
  const database = new DatabaseSync(file)
  const insertPlacement = database.prepare(
    `INSERT INTO placement (op_id, broker, account, client_order_id, fingerprint, state, version, order_id,
      next_check_at, cancel_pending, created_at, resolved_at, json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)`,
  )
  const insertAudit = database.prepare('INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  let made = 0

  function add(order: NewOrder, at: number, last: PlacementEvent): void {
    made++
    let placement: Placement = create(order, made, at)
    let prevHash = ''
    const audit = (from: Placement['state'] | null, detail: Record<string, unknown>): void => {
      const { opId, version: seq, state: to } = placement
      const principal = from === null ? 'caller' : 'service'
      const row = { opId, seq, at, principal, from, to, detail, recordHash: hashRecord(placement), prevHash }
      const hash = hashAuditRow(row)
      insertAudit.run(opId, seq, at, principal, from, to, JSON.stringify(detail), row.recordHash, prevHash, hash)
      prevHash = hash
    }
    audit(null, { event: 'created' })
    for (const event of [{ type: 'sending', attempt: 1, preImage: null } as const, last]) {
      const { state } = placement
      placement = advance(placement, event, at)?.placement ?? placement
      const { type, ...detail } = event
      audit(state, { event: type, ...detail })
    }
    const { opId, broker, accountId, clientOrderId, fingerprint } = placement
    const { state, version, orderId, nextCheckAt, createdAt, resolvedAt } = placement
    const key = [opId, broker, accountId, clientOrderId, fingerprint] as const
    const json = JSON.stringify(placement)
    insertPlacement.run(...key, state, version, orderId, nextCheckAt, createdAt, resolvedAt, json)
  }

  try {
    const now = Date.now()
    database.exec('BEGIN')
    for (const order of placed) {
      add(order, now - 3_600_000, { type: 'accepted', orderId: `ord_fill_${made}`, foundBy: 'RESPONSE' })
    }
    for (const order of lost)
      add(order, now, { type: 'lost', attempt: 1, failure: { kind: 'no_answer', status: null } })
    database.exec('COMMIT')
  } finally {
    database.close()
  }
}

function create(request: NewOrder, number: number, at: number): Placement {
  // Older than any that a service makes.
  const opId = `00000000-0000-7000-8000-${number.toString(16).padStart(12, '0')}`
  const broker = brokerOf(request.accountId)
  return createPlacement(request, { opId, broker, owner: 'an earlier process', sendBy: at + 30_000, at })
}
