// The sandbox's one SQLite file: the exchange's ledger, the answers kept for idempotency keys, and a few settings.
// Rows hold JSON of our own writing; the exchange works in memory and reads the file once, at the start.

import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Account, Ledger, Order, Position } from './orders.ts'
import type { Seeded } from './seed.ts'

// Raised when the meaning of stored rows changes. A file of the format before, which had Bluum's accounts only, is brought
// to this one; any other is refused with the way out.
const formatVersion = '2'
const formatBefore = '1'

/** An answer given under an idempotency key. `fingerprint` stands for the request it was given to. */
interface KeptAnswer {
  fingerprint: string
  status: number
  body: string
  keptAt: number
}

export interface State extends Ledger {
  readAnswer(key: string): KeptAnswer | undefined
  saveAnswer(key: string, answer: KeptAnswer): void
  forgetAnswers(keptBefore: number): void
  readSetting(name: string): string | undefined
  saveSetting(name: string, value: string): void
  close(): void
}

/**
 * Opens the file, creating it with its directory, and fills a new one from `seeded()` at time `nowMs`. The caller
 * closes it. Throws when the file belongs to another seed or format, or when another process has it open.
 */
export function openState(file: string, seed: string, nowMs: number, seeded: () => Seeded): State {
  if (file !== ':memory:') mkdirSync(dirname(file), { recursive: true })
  const database = new DatabaseSync(file)
  try {
    // The exchange keeps the book in memory, so a second process on the same file would sell the same shares twice.
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    database.exec(`
      BEGIN IMMEDIATE;
      CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, rank INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS position (id TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS answer (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL,
        body TEXT NOT NULL, keptAt INTEGER NOT NULL) STRICT;
      CREATE INDEX IF NOT EXISTS answerAge ON answer (keptAt);
      COMMIT`)
  } catch (error) {
    database.close()
    const locked = error instanceof Error && error.message.includes('locked')
    const reason = locked ? 'another process has it open; each needs a DATA_DIR of its own' : 'it is not a usable file'
    throw new Error(`sandbox state ${file}: ${reason}`, { cause: error })
  }

  const readSettingRow = database.prepare('SELECT value FROM setting WHERE name = ?')
  const saveSettingRow = database.prepare('INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)')
  const saveAccountRow = database.prepare(
    `INSERT INTO account (id, rank, json) VALUES (?, (SELECT count(*) FROM account), ?)
     ON CONFLICT (id) DO UPDATE SET json = excluded.json`,
  )
  const savePositionRow = database.prepare('INSERT OR REPLACE INTO position (id, json) VALUES (?, ?)')
  const removePositionRow = database.prepare('DELETE FROM position WHERE id = ?')
  const saveOrderRow = database.prepare('INSERT OR REPLACE INTO orders (id, json) VALUES (?, ?)')
  const removeOrderRow = database.prepare('DELETE FROM orders WHERE id = ?')
  const readAnswerRow = database.prepare('SELECT fingerprint, status, body, keptAt FROM answer WHERE key = ?')
  const saveAnswerRow = database.prepare(
    'INSERT OR REPLACE INTO answer (key, fingerprint, status, body, keptAt) VALUES (?, ?, ?, ?, ?)',
  )
  const forgetAnswerRows = database.prepare('DELETE FROM answer WHERE keptAt < ?')

  /** Every row of a table, as written by us: this is the one place that trusts the file's JSON to have its type. */
  function rows<T>(table: string, order: string): T[] {
    const found = database.prepare(`SELECT json FROM ${table} ORDER BY ${order}`).all()
    return found.map((row): T => JSON.parse(String(row.json)))
  }

  const state: State = {
    load() {
      return {
        accounts: rows<Account>('account', 'rank'),
        positions: rows<Position>('position', 'id'),
        orders: rows<Order>('orders', 'id'),
        offsetMs: Number(state.readSetting('offsetMs') ?? 0),
        evaluatedAt: Number(state.readSetting('evaluatedAt') ?? 0),
      }
    },
    saveAccount: (account) => void saveAccountRow.run(account.id, JSON.stringify(account)),
    savePosition: (position) => void savePositionRow.run(position.id, JSON.stringify(position)),
    removePosition: (position) => void removePositionRow.run(position.id),
    saveOrder: (order) => void saveOrderRow.run(order.id, JSON.stringify(order)),
    removeOrder: (order) => void removeOrderRow.run(order.id),
    saveClock(offsetMs, evaluatedAt) {
      saveSettingRow.run('offsetMs', String(offsetMs))
      saveSettingRow.run('evaluatedAt', String(evaluatedAt))
    },
    transaction(work) {
      if (database.isTransaction) return work()
      database.exec('BEGIN IMMEDIATE')
      try {
        const result = work()
        database.exec('COMMIT')
        return result
      } catch (error) {
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    },
    readAnswer(key) {
      const row = readAnswerRow.get(key)
      if (row === undefined) return undefined
      const { fingerprint, status, body, keptAt } = row
      return { fingerprint: String(fingerprint), status: Number(status), body: String(body), keptAt: Number(keptAt) }
    },
    saveAnswer: (key, { fingerprint, status, body, keptAt }) =>
      void saveAnswerRow.run(key, fingerprint, status, body, keptAt),
    forgetAnswers: (keptBefore) => void forgetAnswerRows.run(keptBefore),
    readSetting(name) {
      const row = readSettingRow.get(name)
      return row === undefined ? undefined : String(row.value)
    },
    saveSetting: (name, value) => void saveSettingRow.run(name, value),
    close: () => database.close(),
  }

  try {
    fillOrCheck()
  } catch (error) {
    database.close()
    throw error
  }
  return state

  function fillOrCheck(): void {
    const madeWith = state.readSetting('seed')
    if (madeWith === undefined) {
      const { bluum, aries } = seeded()
      const orders = [...bluum.orders, ...aries.orders]
      const lastAt = Math.max(...orders.map((order) => order.canceledAt ?? order.filledAt ?? order.submittedAt))
      state.transaction(() => {
        state.saveSetting('seed', seed)
        state.saveSetting('format', formatVersion)
        savePast(bluum)
        savePast(aries)
        // The exchange opens after its past, so a clock before that is moved forward.
        state.saveClock(0, Math.max(nowMs, lastAt + 1000))
      })
      return
    }
    const format = state.readSetting('format')
    if (format !== formatVersion && format !== formatBefore) {
      throw new Error(
        `sandbox state ${file} has an older format: point DATA_DIR at another directory, or delete the file to start over`,
      )
    }
    if (madeWith !== seed) {
      throw new Error(
        `sandbox state ${file} was made with SANDBOX_SEED "${madeWith}", not "${seed}": set SANDBOX_SEED back to it, ` +
          'point DATA_DIR at another directory, or delete the file to start over',
      )
    }
    if (format === formatBefore) {
      state.transaction(() => {
        for (const account of rows<Account>('account', 'rank')) state.saveAccount({ ...account, broker: 'bluum' })
        savePast(seeded().aries)
        state.saveSetting('format', formatVersion)
      })
    }
  }

  function savePast({ accounts, positions, orders }: Seeded['bluum']): void {
    for (const account of accounts) state.saveAccount(account)
    for (const position of positions) state.savePosition(position)
    for (const order of orders) state.saveOrder(order)
  }
}
