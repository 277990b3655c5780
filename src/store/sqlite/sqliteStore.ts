// The store in one SQLite file, for a service that runs once: no server to run, and a copy of the file is a backup. Each
// method blocks the event loop for its few reads, and each that changes something for one fsync.

import { existsSync, mkdirSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { SQLOutputValue, StatementSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import { placementStates } from '../../trading/placement/placement.ts'
import type { Placement, PlacementState } from '../../trading/placement/placement.ts'
import { cancelRequestsMax, hashAuditRow, hashRecord, StoreError } from '../store.ts'
import type { AuditEntry, AuditReport, AuditRow, CancelRequest, PlacementKey, Store, Tombstone } from '../store.ts'

export interface SqliteStoreOptions {
  file: string
  /** There is one service to a file. An operator works beside it, or without it, and never creates a file. */
  role: 'service' | 'operator'
  /** Whether the service may begin with an empty store, which remembers no key that was used before. */
  mayCreate: boolean
}

/** Where the store of a DATA_DIR is. */
export function toStoreFile(dataDir: string): string {
  return join(dataDir, 'placements.sqlite')
}

/** The store cannot be opened. The message is one sentence that names the file and says what to do. */
export class StoreOpenError extends Error {
  override readonly name = 'StoreOpenError'
}

// "Blot". Tells a store from any other SQLite file, such as the sandbox's in the same directory.
const applicationId = 0x426c6f74

// Each brings a file from the format of its index to the next. What has been released is never edited, only added to.
const migrations = [
  `CREATE TABLE placement (
    op_id TEXT PRIMARY KEY, broker TEXT NOT NULL, account TEXT NOT NULL, client_order_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL, state TEXT NOT NULL, version INTEGER NOT NULL, order_id TEXT, next_check_at INTEGER,
    cancel_pending INTEGER NOT NULL, created_at INTEGER NOT NULL, resolved_at INTEGER, json TEXT NOT NULL,
    unfinished INTEGER AS (state IN ('RESERVED', 'SENDING', 'UNKNOWN', 'AMBIGUOUS')
      OR (state = 'NOT_PLACED' AND next_check_at IS NOT NULL) OR cancel_pending),
    unresolved INTEGER AS (state IN ('SENDING', 'UNKNOWN', 'AMBIGUOUS')),
    UNIQUE (broker, account, client_order_id)
  ) STRICT;
  CREATE UNIQUE INDEX placement_order ON placement (broker, order_id, account) WHERE order_id IS NOT NULL;
  CREATE INDEX placement_unfinished ON placement (op_id) WHERE unfinished;
  CREATE INDEX placement_unresolved ON placement (broker, account, fingerprint, op_id) WHERE unresolved;
  CREATE INDEX placement_age ON placement (resolved_at) WHERE resolved_at IS NOT NULL;
  CREATE TABLE audit (
    op_id TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, principal TEXT NOT NULL, from_state TEXT,
    to_state TEXT NOT NULL, detail TEXT NOT NULL, record_hash TEXT NOT NULL, prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL, PRIMARY KEY (op_id, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE tombstone (
    op_id TEXT PRIMARY KEY, broker TEXT NOT NULL, account TEXT NOT NULL, client_order_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL, version INTEGER NOT NULL, order_id TEXT, created_at INTEGER NOT NULL,
    resolved_at INTEGER NOT NULL, UNIQUE (broker, account, client_order_id)
  ) STRICT;
  CREATE INDEX tombstone_age ON tombstone (created_at);`,
  `CREATE TABLE cancel_request (
    broker TEXT NOT NULL, order_id TEXT NOT NULL, account TEXT NOT NULL, principal TEXT NOT NULL,
    requested_at INTEGER NOT NULL, PRIMARY KEY (broker, order_id, account)
  ) STRICT, WITHOUT ROWID;`,
]

const formatNow = migrations.length

// Waiting for a lock stops the event loop, so it is given up soon: a StoreError is answered, and may be tried again.
const busyTimeoutMs = 100

const SQLITE_BUSY = 5
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26

const unresolvedMax = 100

// A chain is checked in one go, many of them with the event loop in between.
const opsCheckedAtOnce = 100

/**
 * Opens the store in `file`; the service also takes its lock, which the kernel frees however the process ends, and
 * brings an older file up to date. The caller closes it. Throws StoreOpenError, with nothing left open.
 */
export function openSqliteStore(options: SqliteStoreOptions): Store {
  const { file, role, mayCreate } = options
  const isService = role === 'service'
  let owner: DatabaseSync | null = null
  let database: DatabaseSync | null = null
  try {
    if (isService && mayCreate) mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    // A file without a byte holds no key either, whether its creation was cut short or its contents are lost.
    else if (!statSync(file, { throwIfNoEntry: false })?.size) {
      const hint = isService
        ? 'set STORE_INIT=1 to create one, or DATA_DIR to where it is'
        : 'set DATA_DIR to where it is'
      throw new StoreOpenError(`there is no store at ${file}: ${hint}`)
    }
    // As SQLite does for its log: were the lock beside a link, the same store could be opened twice.
    const realFile = existsSync(file) ? realpathSync(file) : file
    if (isService) {
      owner = takeOwnership(file, `${realFile}.owner`)
      createFile(realFile)
    }
    database = new DatabaseSync(realFile, { timeout: busyTimeoutMs })
    prepareFile(database, options)
    return createStore(realFile, database, owner)
  } catch (error) {
    database?.close()
    owner?.close()
    throw toOpenError(file, error)
  }
}

/** Keeps a second service out: whoever has a transaction open on this empty file owns the store beside it. */
function takeOwnership(file: string, ownerFile: string): DatabaseSync {
  createFile(ownerFile)
  const owner = new DatabaseSync(ownerFile, { timeout: 0 })
  try {
    // A lock on the store itself would keep operators out too. This one writes nothing: a full disk does not keep the
    // service from starting, and a process that was killed leaves nothing to clean up.
    owner.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    return owner
  } catch (error) {
    owner.close()
    const reason = isBusy(error)
      ? 'another service has it open: stop that one, or give this one a DATA_DIR of its own'
      : `${ownerFile} cannot be locked: delete that file once no service runs on the store`
    throw new StoreOpenError(`the store ${file}: ${reason}`, { cause: error })
  }
}

/** Creates an empty file that only its owner reads, unless it is there. */
function createFile(path: string): void {
  try {
    // Never opens one that is there: closing it again would drop the locks that this process has on it.
    writeFileSync(path, '', { flag: 'wx', mode: 0o600 })
  } catch (error) {
    if (!existsSync(path)) throw error
  }
}

/** Refuses what is no sound store; makes one of an empty file, and one of this format of an older one. */
function prepareFile(database: DatabaseSync, { file, role, mayCreate }: SqliteStoreOptions): void {
  const read = (pragma: string): unknown => Object.values(database.prepare(`PRAGMA ${pragma}`).get() ?? {})[0]
  const refuse = (reason: string): never => {
    throw new StoreOpenError(`the store ${file}: ${reason}`)
  }
  const format = Number(read('user_version'))
  const isEmpty = format === 0 && database.prepare('SELECT 1 FROM sqlite_schema').get() === undefined
  const isOurs = isEmpty ? role === 'service' && mayCreate : read('application_id') === applicationId
  if (!isOurs) refuse('the file is something else, so name another, or restore it from a backup')
  if (format > formatNow) {
    refuse(
      `it has format ${format}, and this version knows ${formatNow}: run the version that wrote it, or a newer one`,
    )
  }
  if (format < formatNow && role === 'operator') {
    refuse(`it has the older format ${format}: start the service, which brings it up to date`)
  }
  // Not quick_check, which takes half the time: a key that its index has lost would be free to be sent again.
  const damage = read('integrity_check(1)')
  if (damage !== 'ok') refuse(`it is damaged, so restore it from a backup (${String(damage)})`)
  // Each commit is on the disk when it returns. A log that grew while an operator read for long shrinks again.
  database.exec('PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216')
  for (const [index, migration] of migrations.entries()) {
    if (index < format) continue
    transact(database, 'BEGIN IMMEDIATE', () => {
      database.exec(`${migration}; PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${index + 1}`)
    })
  }
  // After the migrations: until then an empty file stays without a byte, and counts as none.
  if (role === 'service' && read('journal_mode = WAL') !== 'wal') {
    refuse('its file system cannot hold it: give it a DATA_DIR on a local disk')
  }
}

function createStore(file: string, database: DatabaseSync, owner: DatabaseSync | null): Store {
  // The log is there from the first read on.
  database.exec('SELECT 1 FROM placement LIMIT 1')
  const files = [file, `${file}-wal`, ...(owner === null ? [] : [`${file}.owner`])]
  const identities = files.map(toIdentity)

  const placements = (rest: string): StatementSync => database.prepare(`SELECT json FROM placement WHERE ${rest}`)
  const ofKey = 'broker = ? AND account = ? AND client_order_id = ?'
  const readByOp = placements('op_id = ?')
  const readByKey = placements(ofKey)
  const readByOrder = placements('broker = ? AND order_id = ? ORDER BY op_id')
  const readTwins = placements(
    `unresolved AND broker = ? AND account = ? AND fingerprint = ? ORDER BY op_id LIMIT ${unresolvedMax}`,
  )
  const readUnresolved = placements('unresolved AND broker = ? AND account = ? ORDER BY op_id')
  const readUnfinished = placements('unfinished AND op_id > ? ORDER BY op_id LIMIT ?')
  const readBound = database.prepare(
    'SELECT DISTINCT order_id FROM placement WHERE broker = ? AND order_id IN (SELECT value FROM json_each(?)) AND op_id <> ?',
  )
  const insertPlacement = database.prepare(
    `INSERT INTO placement (${columns.join()}) SELECT ${columns.map((name) => `:${name}`).join()}
     WHERE NOT EXISTS (SELECT 1 FROM tombstone
       WHERE broker = :broker AND account = :account AND client_order_id = :client_order_id)
     ON CONFLICT (broker, account, client_order_id) DO NOTHING`,
  )
  const updatePlacement = database.prepare(
    `UPDATE placement SET ${columns.map((name) => `${name} = :${name}`).join()}
     WHERE op_id = :op_id AND version = :version - 1 AND NOT EXISTS (SELECT 1 FROM placement
       WHERE broker = :broker AND order_id = :order_id AND account = :account AND op_id <> :op_id)`,
  )
  const readTombstone = database.prepare(`SELECT * FROM tombstone WHERE ${ofKey}`)
  const readLastHash = database.prepare('SELECT hash FROM audit WHERE op_id = ? ORDER BY seq DESC LIMIT 1')
  const insertAudit = database.prepare('INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  const readChain = database.prepare('SELECT * FROM audit WHERE op_id = ? ORDER BY seq')
  const readOps = database.prepare(
    `SELECT op_id FROM placement WHERE op_id > :after UNION SELECT op_id FROM audit WHERE op_id > :after
     UNION SELECT op_id FROM tombstone WHERE op_id > :after ORDER BY op_id LIMIT ${opsCheckedAtOnce}`,
  )
  const readColumns = database.prepare(`SELECT ${columns.join()} FROM placement WHERE op_id = ?`)
  const readTombstoneByOp = database.prepare('SELECT * FROM tombstone WHERE op_id = ?')
  const readResolved = database.prepare(
    'SELECT op_id FROM placement WHERE resolved_at < ? AND NOT unfinished ORDER BY resolved_at, op_id LIMIT ?',
  )
  const insertTombstone = database.prepare(
    `INSERT INTO tombstone SELECT op_id, broker, account, client_order_id, fingerprint, version,
       CASE state WHEN 'ACCEPTED' THEN order_id END, created_at, resolved_at FROM placement WHERE op_id = ?`,
  )
  const deletePlacement = database.prepare('DELETE FROM placement WHERE op_id = ?')
  const readForgettable = database.prepare(
    'SELECT op_id FROM tombstone WHERE created_at < ? ORDER BY created_at, op_id LIMIT ?',
  )
  const deleteTombstone = database.prepare('DELETE FROM tombstone WHERE op_id = ?')
  const readCancel = database.prepare('SELECT 1 FROM cancel_request WHERE broker = ? AND order_id = ? AND account = ?')
  const countCancels = database.prepare(
    'SELECT count(*) AS all_kept, count(*) FILTER (WHERE account = ?) AS of_account FROM cancel_request',
  )
  const insertCancel = database.prepare('INSERT INTO cancel_request VALUES (?, ?, ?, ?, ?)')
  const deleteCancel = database.prepare('DELETE FROM cancel_request WHERE broker = ? AND order_id = ? AND account = ?')
  const readCancels = database.prepare('SELECT * FROM cancel_request ORDER BY requested_at, order_id, account')
  const deleteChain = database.prepare('DELETE FROM audit WHERE op_id = ?')

  return {
    insert: (placement, entry, at) => write(() => keep(insertPlacement, placement, entry, at)),
    update: (placement, entry, at) => write(() => keep(updatePlacement, placement, entry, at)),
    read: (opId) => attempt(() => toPlacement(readByOp.get(opId))),
    find: (key) => attempt(() => find(key)),
    findByOrder: (broker, orderId) => attempt(() => toPlacement(readByOrder.get(broker, orderId))),
    findTwins: (broker, accountId, fingerprint) =>
      attempt(() => readTwins.all(broker, accountId, fingerprint).map(parsePlacement)),
    findUnresolved: (broker, accountId) => attempt(() => readUnresolved.all(broker, accountId).map(parsePlacement)),
    findBound: (broker, orderIds, opId) =>
      attempt(() => readBound.all(broker, JSON.stringify(orderIds), opId).map((row) => String(row.order_id))),
    findUnfinished: (after, limit) => attempt(() => readUnfinished.all(after ?? '', limit).map(parsePlacement)),
    keepCancel: ({ broker, orderId, accountId, principal, requestedAt }) =>
      write(() => {
        if (readCancel.get(broker, orderId, accountId) !== undefined) return true
        const { all_kept: kept, of_account: ofAccount } = countCancels.get(accountId) ?? {}
        if (Number(kept) >= cancelRequestsMax.all || Number(ofAccount) >= cancelRequestsMax.perAccount) return false
        insertCancel.run(broker, orderId, accountId, principal, requestedAt)
        return true
      }),
    settleCancel: ({ broker, orderId, accountId }) => write(() => void deleteCancel.run(broker, orderId, accountId)),
    findCancels: () => attempt(() => readCancels.all().map(parseCancelRequest)),
    readAudit: (opId) => attempt(() => readChain.all(opId).map(parseAuditRow)),
    async verifyAudit() {
      const report: AuditReport = { placements: 0, rows: 0, broken: null }
      let checked: string[] = []
      do {
        const after = checked.at(-1) ?? ''
        // One transaction, so that nobody writes between a row and its record.
        checked = await attempt(() => transact(database, 'BEGIN', () => verifyFrom(after, report)))
        await setImmediate()
      } while (checked.length > 0 && report.broken === null)
      return report
    },
    expire: (resolvedBefore, createdBefore, limit) =>
      write(() => {
        const resolved = readResolved.all(resolvedBefore, limit)
        for (const { op_id: opId = null } of resolved) {
          insertTombstone.run(opId)
          deletePlacement.run(opId)
        }
        const forgotten = readForgettable.all(createdBefore, limit)
        for (const { op_id: opId = null } of forgotten) {
          deleteChain.run(opId)
          deleteTombstone.run(opId)
        }
        return resolved.length + forgotten.length
      }),
    close: () =>
      attempt(() => {
        try {
          if (database.isOpen) database.close()
        } finally {
          if (owner?.isOpen === true) owner.close()
        }
      }),
  }

  async function attempt<T>(work: () => T): Promise<T> {
    try {
      return work()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new StoreError(`the store ${file}: ${reason}`, { cause: error })
    }
  }

  function write<T>(work: () => T): Promise<T> {
    return attempt(() => {
      // SQLite writes on into a file that was deleted or replaced, where nobody will ever find it.
      if (files.some((path, index) => toIdentity(path) !== identities[index])) {
        throw new Error('its file was moved, deleted or replaced while it was open')
      }
      return transact(database, 'BEGIN IMMEDIATE', work)
    })
  }

  function keep(statement: StatementSync, placement: Placement, entry: AuditEntry, at: number): boolean {
    if (statement.run(toColumns(placement)).changes === 0) return false
    const { opId, version: seq } = placement
    const { principal, from, to, detail } = entry
    const prevHash = String(readLastHash.get(opId)?.hash ?? '')
    const row = { opId, seq, at, principal, from, to, detail, recordHash: hashRecord(placement), prevHash }
    const detailJson = JSON.stringify(detail)
    insertAudit.run(opId, seq, at, principal, from, to, detailJson, row.recordHash, prevHash, hashAuditRow(row))
    return true
  }

  function find(key: PlacementKey): Placement | Tombstone | null {
    const { broker, accountId, clientOrderId } = key
    const placement = toPlacement(readByKey.get(broker, accountId, clientOrderId))
    if (placement !== null) return placement
    const row = readTombstone.get(broker, accountId, clientOrderId)
    if (row === undefined) return null
    return {
      broker,
      accountId,
      clientOrderId,
      opId: String(row.op_id),
      fingerprint: String(row.fingerprint),
      orderId: row.order_id === null ? null : String(row.order_id),
      createdAt: Number(row.created_at),
      resolvedAt: Number(row.resolved_at),
    }
  }

  /** Checks the next chains after that of `after` and adds them to `report`. Returns whose they are; none at the end. */
  function verifyFrom(after: string, report: AuditReport): string[] {
    const opIds = readOps.all({ after }).map((row) => String(row.op_id))
    for (const opId of opIds) {
      const found = verify(opId, report)
      if (found === null) continue
      report.broken = { opId, ...found }
      break
    }
    return opIds
  }

  function verify(opId: string, report: AuditReport): { seq: number; what: string } | null {
    let seq = 0
    let last: AuditRow | null = null
    for (const stored of readChain.iterate(opId)) {
      seq += 1
      report.rows += 1
      if (stored.seq !== seq) return { seq, what: 'the row is missing' }
      const row = parseOrNull(() => parseAuditRow(stored))
      if (row === null) return { seq, what: 'the row cannot be read' }
      if (row.prevHash !== (last?.hash ?? '')) return { seq, what: 'the row does not follow the one before' }
      if (row.hash !== hashAuditRow(row) || JSON.stringify(row.detail) !== stored.detail) {
        return { seq, what: 'the row was changed' }
      }
      last = row
    }
    const record = readColumns.get(opId)
    if (record === undefined) {
      const version = readTombstoneByOp.get(opId)?.version
      if (version === seq) return null
      return Number(version) > seq
        ? { seq: seq + 1, what: 'the row is missing' }
        : { seq: 0, what: 'the record is missing' }
    }
    report.placements += 1
    const placement = parseOrNull(() => parsePlacement(record))
    const written = parseOrNull(() => placement && toColumns(placement))
    if (placement === null || written === null) return { seq: 0, what: 'the record cannot be read' }
    const differing = columns.find((name) => record[name] !== written[name])
    if (differing !== undefined) return { seq: 0, what: `the record's ${differing} was changed` }
    if (placement.version > seq) return { seq: seq + 1, what: 'the row is missing' }
    if (placement.version < seq) return { seq: 0, what: 'the record is older than its last row' }
    if (hashRecord(placement) !== last?.recordHash) return { seq: 0, what: 'the record was changed' }
    return null
  }
}

/** Runs `work` as one transaction, all of it or nothing. */
function transact<T>(database: DatabaseSync, begin: 'BEGIN' | 'BEGIN IMMEDIATE', work: () => T): T {
  const undo = (): void => {
    if (database.isTransaction) database.exec('ROLLBACK')
  }
  // Should the last undoing itself have failed.
  undo()
  database.exec(begin)
  try {
    const result = work()
    database.exec('COMMIT')
    return result
  } finally {
    // Some failures end the transaction by themselves, others, of a COMMIT too, leave it open.
    undo()
  }
}

const columns = (
  'op_id broker account client_order_id fingerprint state version order_id next_check_at cancel_pending created_at ' +
  'resolved_at json'
).split(' ')

function toColumns(placement: Placement): Record<string, string | number | null> {
  return {
    op_id: placement.opId,
    broker: placement.broker,
    account: placement.accountId,
    client_order_id: placement.clientOrderId,
    fingerprint: placement.fingerprint,
    state: placement.state,
    version: placement.version,
    order_id: placement.orderId,
    next_check_at: placement.nextCheckAt,
    cancel_pending: placement.cancelRequestedAt !== null && placement.cancelSettledAt === null ? 1 : 0,
    created_at: placement.createdAt,
    resolved_at: placement.resolvedAt,
    json: JSON.stringify(placement),
  }
}

type Row = Record<string, SQLOutputValue>

function toPlacement(row: Row | undefined): Placement | null {
  return row === undefined ? null : parsePlacement(row)
}

// JSON of our own writing is taken to have the type that was written, here and for an audit row's detail; whether
// somebody else wrote into it is for verifyAudit to find.
function parsePlacement(row: Row): Placement {
  return JSON.parse(String(row.json))
}

function parseCancelRequest(row: Row): CancelRequest {
  return {
    broker: String(row.broker),
    orderId: String(row.order_id),
    accountId: String(row.account),
    principal: String(row.principal),
    requestedAt: Number(row.requested_at),
  }
}

function parseAuditRow(row: Row): AuditRow {
  return {
    opId: String(row.op_id),
    seq: Number(row.seq),
    at: Number(row.at),
    principal: String(row.principal),
    from: row.from_state === null ? null : parseState(row.from_state),
    to: parseState(row.to_state),
    detail: JSON.parse(String(row.detail)),
    recordHash: String(row.record_hash),
    prevHash: String(row.prev_hash),
    hash: String(row.hash),
  }
}

function parseState(word: unknown): PlacementState {
  const state = placementStates.find((known) => known === word)
  if (state === undefined) throw new Error(`${String(word)} is not a state of a placement`)
  return state
}

function parseOrNull<T>(parse: () => T): T | null {
  try {
    return parse()
  } catch {
    return null
  }
}

/** Tells a file from another that took its path; null when there is none. */
function toIdentity(path: string): string | null {
  const found = statSync(path, { throwIfNoEntry: false })
  return found === undefined ? null : `${found.dev}:${found.ino}`
}

function toOpenError(file: string, error: unknown): StoreOpenError {
  if (error instanceof StoreOpenError) return error
  const found = error instanceof Error ? error.message : String(error)
  const code = toResultCode(error)
  const reason = isBusy(error)
    ? 'another program has it locked: stop that one and try again'
    : code === SQLITE_CORRUPT || code === SQLITE_NOTADB
      ? `it is damaged, so restore it from a backup (${found})`
      : `it cannot be opened: check DATA_DIR, its permissions and the space on its disk (${found})`
  return new StoreOpenError(`the store ${file}: ${reason}`, { cause: error })
}

/** SQLite's primary result code; 0 for anything else. */
function toResultCode(error: unknown): number {
  return error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0
}

function isBusy(error: unknown): boolean {
  return toResultCode(error) === SQLITE_BUSY
}
