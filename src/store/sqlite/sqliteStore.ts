// The store in one SQLite file, for a service that runs once: no server to run, and a copy of the file is a backup. Each
// method blocks the event loop for its few reads, and each that changes something for one fsync.

import { existsSync, mkdirSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { SQLOutputValue, StatementSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import { columns, prepareStatements } from './statements.ts'
import type { Statements } from './statements.ts'
import { placementStates } from '../../trading/placement/placement.ts'
import type { Placement, PlacementState } from '../../trading/placement/placement.ts'
import { cancelRequestsMax, hashAuditRow, hashRecord, StoreError } from '../store.ts'
import type {
  AuditEntry,
  AuditReport,
  AuditRow,
  CancelKey,
  CancelRequest,
  PlacementKey,
  Store,
  Tombstone,
} from '../store.ts'
import type { BrokerId } from '../../domain/order.ts'

export interface SqliteStoreOptions {
  file: string
  /** A file has one service. An operator uses it with or without the service, and never creates a file. */
  role: 'service' | 'operator'
  /** Whether the service may begin with an empty store, which remembers no key that was used before. */
  mayCreate: boolean
}

/** Returns the path of the store of a DATA_DIR. */
export function toStoreFile(dataDir: string): string {
  return join(dataDir, 'placements.sqlite')
}

/** The store cannot be opened. The message is one sentence that names the file and says what to do. */
export class StoreOpenError extends Error {
  override readonly name = 'StoreOpenError'
}

// "Blot". Tells a store from any other SQLite file, such as the sandbox's in the same directory.
const applicationId = 0x426c6f74

// Each migration brings a file from the format of its index to the next. A released one is never edited.
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
    // Like SQLite for its log: with a lock next to a link, the same store could be opened twice.
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

/** Keeps a second service out: the process with a transaction open on this empty file owns the store. */
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
  return new SqliteStore(file, database, owner)
}

class SqliteStore implements Store {
  readonly #file: string
  readonly #database: DatabaseSync
  readonly #owner: DatabaseSync | null
  readonly #files
  readonly #identities
  readonly #sql: Statements

  constructor(file: string, database: DatabaseSync, owner: DatabaseSync | null) {
    this.#file = file
    this.#database = database
    this.#owner = owner
    // The log is there from the first read on.
    database.exec('SELECT 1 FROM placement LIMIT 1')
    this.#files = [file, `${file}-wal`, ...(owner === null ? [] : [`${file}.owner`])]
    this.#identities = this.#files.map(toIdentity)
    this.#sql = prepareStatements(database)
  }

  insert(placement: Placement, entry: AuditEntry, at: number): Promise<boolean> {
    return this.#write(() => this.#keep(this.#sql.insertPlacement, placement, entry, at))
  }

  update(placement: Placement, entry: AuditEntry, at: number): Promise<boolean> {
    return this.#write(() => this.#keep(this.#sql.updatePlacement, placement, entry, at))
  }

  read(opId: string): Promise<Placement | null> {
    return this.#attempt(() => toPlacement(this.#sql.readByOp.get(opId)))
  }

  find(key: PlacementKey): Promise<Placement | Tombstone | null> {
    return this.#attempt(() => this.#find(key))
  }

  findByOrder(broker: BrokerId, orderId: string): Promise<Placement | null> {
    return this.#attempt(() => toPlacement(this.#sql.readByOrder.get(broker, orderId)))
  }

  findDuplicateCandidates(broker: BrokerId, accountId: string, fingerprint: string): Promise<Placement[]> {
    return this.#attempt(() =>
      this.#sql.readDuplicateCandidates.all(broker, accountId, fingerprint).map(parsePlacement),
    )
  }

  findUnresolved(broker: BrokerId, accountId: string): Promise<Placement[]> {
    return this.#attempt(() => this.#sql.readUnresolved.all(broker, accountId).map(parsePlacement))
  }

  findBound(broker: BrokerId, orderIds: readonly string[], opId: string): Promise<string[]> {
    return this.#attempt(() =>
      this.#sql.readBound.all(broker, JSON.stringify(orderIds), opId).map((row) => String(row.order_id)),
    )
  }

  findUnfinished(after: string | null, limit: number): Promise<Placement[]> {
    return this.#attempt(() => this.#sql.readUnfinished.all(after ?? '', limit).map(parsePlacement))
  }

  keepCancel({ broker, orderId, accountId, principal, requestedAt }: CancelRequest): Promise<boolean> {
    return this.#write(() => {
      if (this.#sql.readCancel.get(broker, orderId, accountId) !== undefined) return true
      const { all_kept: kept, of_account: ofAccount } = this.#sql.countCancels.get(accountId) ?? {}
      if (Number(kept) >= cancelRequestsMax.all || Number(ofAccount) >= cancelRequestsMax.perAccount) return false
      this.#sql.insertCancel.run(broker, orderId, accountId, principal, requestedAt)
      return true
    })
  }

  settleCancel({ broker, orderId, accountId }: CancelKey): Promise<void> {
    return this.#write(() => void this.#sql.deleteCancel.run(broker, orderId, accountId))
  }

  findCancels(): Promise<CancelRequest[]> {
    return this.#attempt(() => this.#sql.readCancels.all().map(parseCancelRequest))
  }

  readAudit(opId: string): Promise<AuditRow[]> {
    return this.#attempt(() => this.#sql.readChain.all(opId).map(parseAuditRow))
  }

  async verifyAudit(): Promise<AuditReport> {
    const report: AuditReport = { placements: 0, rows: 0, broken: null }
    let checked: string[] = []
    do {
      const after = checked.at(-1) ?? ''
      // One transaction, so that no write comes between a row and its record.
      checked = await this.#attempt(() => transact(this.#database, 'BEGIN', () => this.#verifyFrom(after, report)))
      await setImmediate()
    } while (checked.length > 0 && report.broken === null)
    return report
  }

  expire(resolvedBefore: number, createdBefore: number, limit: number): Promise<number> {
    return this.#write(() => {
      const resolved = this.#sql.readResolved.all(resolvedBefore, limit)
      for (const { op_id: opId = null } of resolved) {
        this.#sql.insertTombstone.run(opId)
        this.#sql.deletePlacement.run(opId)
      }
      const forgotten = this.#sql.readForgettable.all(createdBefore, limit)
      for (const { op_id: opId = null } of forgotten) {
        this.#sql.deleteChain.run(opId)
        this.#sql.deleteTombstone.run(opId)
      }
      return resolved.length + forgotten.length
    })
  }

  close(): Promise<void> {
    return this.#attempt(() => {
      try {
        if (this.#database.isOpen) this.#database.close()
      } finally {
        if (this.#owner?.isOpen === true) this.#owner.close()
      }
    })
  }

  async #attempt<T>(work: () => T): Promise<T> {
    try {
      return work()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new StoreError(`the store ${this.#file}: ${reason}`, { cause: error })
    }
  }

  #write<T>(work: () => T): Promise<T> {
    return this.#attempt(() => {
      // SQLite goes on writing into a file that was deleted or replaced, where it would be lost.
      if (this.#files.some((path, index) => toIdentity(path) !== this.#identities[index])) {
        throw new Error('its file was moved, deleted or replaced while it was open')
      }
      return transact(this.#database, 'BEGIN IMMEDIATE', work)
    })
  }

  #keep(statement: StatementSync, placement: Placement, entry: AuditEntry, at: number): boolean {
    if (statement.run(toColumns(placement)).changes === 0) return false
    const { opId, version: seq } = placement
    const { principal, from, to, detail } = entry
    const prevHash = String(this.#sql.readLastHash.get(opId)?.hash ?? '')
    const row = { opId, seq, at, principal, from, to, detail, recordHash: hashRecord(placement), prevHash }
    const detailJson = JSON.stringify(detail)
    this.#sql.insertAudit.run(
      opId,
      seq,
      at,
      principal,
      from,
      to,
      detailJson,
      row.recordHash,
      prevHash,
      hashAuditRow(row),
    )
    return true
  }

  #find(key: PlacementKey): Placement | Tombstone | null {
    const { broker, accountId, clientOrderId } = key
    const placement = toPlacement(this.#sql.readByKey.get(broker, accountId, clientOrderId))
    if (placement !== null) return placement
    const row = this.#sql.readTombstone.get(broker, accountId, clientOrderId)
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
  #verifyFrom(after: string, report: AuditReport): string[] {
    const opIds = this.#sql.readOps.all({ after }).map((row) => String(row.op_id))
    for (const opId of opIds) {
      const found = this.#verify(opId, report)
      if (found === null) continue
      report.broken = { opId, ...found }
      break
    }
    return opIds
  }

  #verify(opId: string, report: AuditReport): { seq: number; what: string } | null {
    let seq = 0
    let last: AuditRow | null = null
    for (const stored of this.#sql.readChain.iterate(opId)) {
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
    const record = this.#sql.readColumns.get(opId)
    if (record === undefined) {
      const version = this.#sql.readTombstoneByOp.get(opId)?.version
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

// JSON in the store has the type that was written, here and for the detail of an audit row. verifyAudit finds changes by other
// programs.
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

/** Returns an identity that differs from that of a file which took its path; null if the file does not exist. */
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
