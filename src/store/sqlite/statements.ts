// The SQL statements of the store, prepared once.

import type { DatabaseSync, StatementSync } from 'node:sqlite'

/** The prepared statements of one store. They end with the database. */
export type Statements = ReturnType<typeof prepareStatements>

/** Columns of a placement, in the order of the table; the record itself is `json`. */
export const columns = (
  'op_id broker account client_order_id fingerprint state version order_id next_check_at cancel_pending created_at ' +
  'resolved_at json'
).split(' ')

// Maximum unresolved placements that are compared with a new one.
const unresolvedMax = 100

// Placements whose audit is checked in one transaction.
const opsCheckedAtOnce = 100

/** Prepares all statements. Throws an error of SQLite if the file has another format. */
export function prepareStatements(database: DatabaseSync) {
  const placements = (rest: string): StatementSync => database.prepare(`SELECT json FROM placement WHERE ${rest}`)
  const ofKey = 'broker = ? AND account = ? AND client_order_id = ?'
  return {
    readByOp: placements('op_id = ?'),
    readByKey: placements(ofKey),
    readByOrder: placements('broker = ? AND order_id = ? ORDER BY op_id'),
    readDuplicateCandidates: placements(
      `unresolved AND broker = ? AND account = ? AND fingerprint = ? ORDER BY op_id LIMIT ${unresolvedMax}`,
    ),
    readUnresolved: placements('unresolved AND broker = ? AND account = ? ORDER BY op_id'),
    readUnfinished: placements('unfinished AND op_id > ? ORDER BY op_id LIMIT ?'),
    readBound: database.prepare(
      'SELECT DISTINCT order_id FROM placement WHERE broker = ? AND order_id IN (SELECT value FROM json_each(?)) AND op_id <> ?',
    ),
    insertPlacement: database.prepare(
      `INSERT INTO placement (${columns.join()}) SELECT ${columns.map((name) => `:${name}`).join()}
     WHERE NOT EXISTS (SELECT 1 FROM tombstone
       WHERE broker = :broker AND account = :account AND client_order_id = :client_order_id)
     ON CONFLICT (broker, account, client_order_id) DO NOTHING`,
    ),
    updatePlacement: database.prepare(
      `UPDATE placement SET ${columns.map((name) => `${name} = :${name}`).join()}
     WHERE op_id = :op_id AND version = :version - 1 AND NOT EXISTS (SELECT 1 FROM placement
       WHERE broker = :broker AND order_id = :order_id AND account = :account AND op_id <> :op_id)`,
    ),
    readTombstone: database.prepare(`SELECT * FROM tombstone WHERE ${ofKey}`),
    readLastHash: database.prepare('SELECT hash FROM audit WHERE op_id = ? ORDER BY seq DESC LIMIT 1'),
    insertAudit: database.prepare('INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'),
    readChain: database.prepare('SELECT * FROM audit WHERE op_id = ? ORDER BY seq'),
    readOps: database.prepare(
      `SELECT op_id FROM placement WHERE op_id > :after UNION SELECT op_id FROM audit WHERE op_id > :after
     UNION SELECT op_id FROM tombstone WHERE op_id > :after ORDER BY op_id LIMIT ${opsCheckedAtOnce}`,
    ),
    readColumns: database.prepare(`SELECT ${columns.join()} FROM placement WHERE op_id = ?`),
    readTombstoneByOp: database.prepare('SELECT * FROM tombstone WHERE op_id = ?'),
    readResolved: database.prepare(
      'SELECT op_id FROM placement WHERE resolved_at < ? AND NOT unfinished ORDER BY resolved_at, op_id LIMIT ?',
    ),
    insertTombstone: database.prepare(
      `INSERT INTO tombstone SELECT op_id, broker, account, client_order_id, fingerprint, version,
       CASE state WHEN 'ACCEPTED' THEN order_id END, created_at, resolved_at FROM placement WHERE op_id = ?`,
    ),
    deletePlacement: database.prepare('DELETE FROM placement WHERE op_id = ?'),
    readForgettable: database.prepare(
      'SELECT op_id FROM tombstone WHERE created_at < ? ORDER BY created_at, op_id LIMIT ?',
    ),
    deleteTombstone: database.prepare('DELETE FROM tombstone WHERE op_id = ?'),
    readCancel: database.prepare('SELECT 1 FROM cancel_request WHERE broker = ? AND order_id = ? AND account = ?'),
    countCancels: database.prepare(
      'SELECT count(*) AS all_kept, count(*) FILTER (WHERE account = ?) AS of_account FROM cancel_request',
    ),
    insertCancel: database.prepare('INSERT INTO cancel_request VALUES (?, ?, ?, ?, ?)'),
    deleteCancel: database.prepare('DELETE FROM cancel_request WHERE broker = ? AND order_id = ? AND account = ?'),
    readCancels: database.prepare('SELECT * FROM cancel_request ORDER BY requested_at, order_id, account'),
    deleteChain: database.prepare('DELETE FROM audit WHERE op_id = ?'),
  }
}
