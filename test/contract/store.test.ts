// What every store must do, as one table of tests that each implementation passes; then what is SQLite's own.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import * as fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { placementStates } from '../../src/trading/placement/placement.ts'
import type { Placement, PlacementState } from '../../src/trading/placement/placement.ts'
import { openSqliteStore, StoreOpenError } from '../../src/store/sqlite/sqliteStore.ts'
import { cancelRequestsMax, isTombstone, StoreError } from '../../src/store/store.ts'
import type { AuditEntry, Store, Tombstone } from '../../src/store/store.ts'

// ---- what the tests store -------------------------------------------------------------------------------------------

/** Grows with `n` as UUIDv7 grows with time. */
function toOpId(n: number): string {
  return `0198c0de-${n.toString(16).padStart(4, '0')}-7000-8000-000000000000`
}

function makePlacement(n: number, change: Partial<Placement> = {}): Placement {
  const accountId = change.accountId ?? 'acc-1'
  const clientOrderId = change.clientOrderId ?? `desk-key-${n}`
  return {
    opId: toOpId(n),
    broker: 'BLUUM',
    accountId,
    clientOrderId,
    fingerprint: 'f'.repeat(64),
    request: {
      accountId,
      clientOrderId,
      symbol: 'AAPL',
      side: 'BUY',
      type: 'LIMIT',
      timeInForce: 'DAY',
      quantity: '10',
      notional: null,
      limitPrice: '187.50',
      stopPrice: null,
      trailPercent: null,
      trailPrice: null,
      extendedHours: false,
      commission: null,
      commissionType: null,
    },
    state: 'RESERVED',
    attempt: 1,
    sends: 0,
    owner: 'owner-1',
    version: 1,
    sendBy: 40_000,
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
    createdAt: 10_000 + n,
    resolvedAt: null,
    ...change,
  }
}

function makeEntry(from: PlacementState | null, to: PlacementState): AuditEntry {
  return { principal: 'caller', from, to, detail: { event: to.toLowerCase(), note: 'ünï "quoted" \n' } }
}

/** The record after `change`, one version on. */
function step(placement: Placement, change: Partial<Placement>): Placement {
  return { ...placement, ...change, version: placement.version + 1 }
}

/** Keeps `change` of `placement`, which must be the stored one. */
async function advance(
  store: Store,
  placement: Placement,
  change: Partial<Placement>,
  at = 20_000,
): Promise<Placement> {
  const next = step(placement, change)
  expect(await store.update(next, makeEntry(placement.state, next.state), at)).toBe(true)
  return next
}

async function insert(store: Store, placement: Placement, at = 10_000): Promise<Placement> {
  expect(await store.insert(placement, makeEntry(null, placement.state), at)).toBe(true)
  return placement
}

/** A placement that went all the way: three versions. */
async function place(store: Store, n: number, change: Partial<Placement> = {}): Promise<Placement> {
  const reserved = await insert(store, makePlacement(n))
  const sending = await advance(store, reserved, {
    state: 'SENDING',
    sends: 1,
    firstSentAt: 11_000,
    lastSentAt: 11_000,
  })
  const accepted = { state: 'ACCEPTED', orderId: `order-${n}`, foundBy: 'RESPONSE', resolvedAt: 12_000 } as const
  return advance(store, sending, { ...accepted, ...change })
}

// ---- the implementations --------------------------------------------------------------------------------------------

interface Opened {
  store: Store
  /** Another process's view of the same records. */
  other: Store
  /** Goes behind the store's back, into tables that all implementations have. */
  tamper(sql: string, ...values: (string | number | null)[]): void
  look(sql: string, ...values: (string | number | null)[]): Record<string, unknown>[]
}

interface Implementation {
  name: string
  /** A new, empty store of its own, closed and removed when the test is over. */
  open(): Opened
}

function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-store-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

function openService(file: string, mayCreate = true): Store {
  const store = openSqliteStore({ file, role: 'service', mayCreate })
  onTestFinished(() => store.close())
  return store
}

function openOperator(file: string): Store {
  const store = openSqliteStore({ file, role: 'operator', mayCreate: false })
  onTestFinished(() => store.close())
  return store
}

function openRaw(file: string): DatabaseSync {
  const database = new DatabaseSync(file)
  onTestFinished(() => {
    if (database.isOpen) database.close()
  })
  return database
}

const sqlite: Implementation = {
  name: 'sqlite',
  open() {
    const file = join(makeFolder(), 'store.sqlite')
    const store = openService(file)
    const other = openOperator(file)
    const raw = openRaw(file)
    // What is tampered with a thousand times need not reach the disk.
    raw.exec('PRAGMA synchronous = OFF')
    return {
      store,
      other,
      tamper(sql, ...values) {
        raw.prepare(sql).run(...values)
      },
      look: (sql, ...values) => raw.prepare(sql).all(...values),
    }
  },
}

const implementations = [sqlite]

// ---- the contract ---------------------------------------------------------------------------------------------------

describe.each(implementations)('the store on $name', ({ open }) => {
  test('gives back what was inserted, by its id and by its key', async () => {
    const { store, other } = open()
    const placement = await insert(
      store,
      makePlacement(1, {
        preImage: { orderIds: ['a', 'b'], isComplete: false },
        outcome: {
          kind: 'not_sent',
          code: 'DEADLINE',
          message: 'late — “too” late',
          retrySameKey: true,
          retryAfterMs: null,
        },
        evidence: { failure: { kind: 'no_answer', status: null }, emptyScans: 2, candidates: ['x'] },
      }),
    )
    for (const reader of [store, other]) {
      expect(await reader.read(placement.opId)).toEqual(placement)
      expect(await reader.find(placement)).toEqual(placement)
    }
  })

  test('knows nothing of what was never inserted', async () => {
    const { store } = open()
    await insert(store, makePlacement(1))
    expect(await store.read(toOpId(2))).toBeNull()
    expect(await store.find(makePlacement(2))).toBeNull()
    expect(await store.findByOrder('BLUUM', 'order-1')).toBeNull()
    expect(await store.readAudit(toOpId(2))).toEqual([])
    expect(await store.update(step(makePlacement(2), {}), makeEntry(null, 'RESERVED'), 1)).toBe(false)
  })

  test('takes a key once', async () => {
    const { store, other } = open()
    const first = await insert(store, makePlacement(1))
    const again = makePlacement(2, { clientOrderId: first.clientOrderId })
    expect(await store.insert(again, makeEntry(null, 'RESERVED'), 1)).toBe(false)
    expect(await other.insert(again, makeEntry(null, 'RESERVED'), 1)).toBe(false)
    expect(await store.insert(first, makeEntry(null, 'RESERVED'), 1)).toBe(false)
    expect(await store.find(again)).toEqual(first)
    expect(await store.read(again.opId)).toBeNull()
    expect(await store.readAudit(again.opId)).toEqual([])
  })

  test('tells keys apart by case, by account and by broker', async () => {
    const { store } = open()
    const twins = [
      await insert(store, makePlacement(1, { clientOrderId: 'desk-key-a' })),
      await insert(store, makePlacement(2, { clientOrderId: 'DESK-KEY-A' })),
      await insert(store, makePlacement(3, { clientOrderId: 'desk-key-a', accountId: 'acc-2' })),
      await insert(store, makePlacement(4, { clientOrderId: 'desk-key-a', accountId: 'ACC-1' })),
      await insert(store, makePlacement(5, { clientOrderId: 'desk-key-a', broker: 'ARIES' })),
    ]
    for (const twin of twins) expect(await store.find(twin)).toEqual(twin)
  })

  test('accepts a write only of the latest version', async () => {
    const { store, other } = open()
    const reserved = await insert(store, makePlacement(1))
    const sending = await advance(store, reserved, { state: 'SENDING' })
    const stale = step(reserved, { state: 'NOT_SENT' })
    expect(await other.update(stale, makeEntry('RESERVED', 'NOT_SENT'), 3)).toBe(false)
    expect(await store.update(sending, makeEntry('SENDING', 'SENDING'), 3)).toBe(false)
    const early = { ...sending, version: 4 }
    expect(await store.update(early, makeEntry('SENDING', 'SENDING'), 3)).toBe(false)
    expect(await store.read(reserved.opId)).toEqual(sending)
    expect(await store.readAudit(reserved.opId)).toHaveLength(2)
  })

  test('lets one of two writers at the same time win', async () => {
    const { store, other } = open()
    const reserved = await insert(store, makePlacement(1))
    const mine = step(reserved, { state: 'SENDING', owner: 'mine' })
    const theirs = step(reserved, { state: 'SENDING', owner: 'theirs' })
    const entry = makeEntry('RESERVED', 'SENDING')
    const won = await Promise.all([
      store.update(mine, entry, 1),
      other.update(theirs, entry, 1),
      store.update(mine, entry, 1),
    ])
    expect(won.filter(Boolean)).toHaveLength(1)
    expect(await store.read(reserved.opId)).toEqual(won[1] ? theirs : mine)
    expect(await store.readAudit(reserved.opId)).toHaveLength(2)
  })

  test('binds an order of an account to one placement only', async () => {
    const { store } = open()
    const first = await place(store, 1)
    const second = await insert(store, makePlacement(2))
    const bound = step(second, { state: 'ACCEPTED', orderId: first.orderId })
    expect(await store.update(bound, makeEntry('RESERVED', 'ACCEPTED'), 1)).toBe(false)
    expect(await store.read(second.opId)).toEqual(second)
    expect(await store.readAudit(second.opId)).toHaveLength(1)
    // The owner of the order changes on, and ids of another account or broker are other orders.
    await advance(store, first, { cancelRequestedAt: 1 })
    for (const [n, place] of [
      [3, { accountId: 'acc-2' }],
      [4, { broker: 'ARIES' }],
    ] as const) {
      await advance(store, await insert(store, makePlacement(n, place)), { orderId: first.orderId })
    }
  })

  test('finds the placement of an order', async () => {
    const { store } = open()
    await place(store, 1)
    const second = await place(store, 2)
    expect(await store.findByOrder('BLUUM', 'order-2')).toEqual(second)
    expect(await store.findByOrder('ARIES', 'order-2')).toBeNull()
    expect(await store.findByOrder('BLUUM', 'ORDER-2')).toBeNull()
  })

  test('tells which orders belong to other placements', async () => {
    const { store } = open()
    for (const n of [1, 2, 3]) await place(store, n)
    const asked = ['order-3', 'order-1', 'order-9', 'order-1', 'ORDER-2']
    expect((await store.findBound('BLUUM', asked, toOpId(9))).toSorted()).toEqual(['order-1', 'order-3'])
    expect(await store.findBound('BLUUM', asked, toOpId(1))).toEqual(['order-3'])
    expect(await store.findBound('ARIES', asked, toOpId(9))).toEqual([])
    expect(await store.findBound('BLUUM', [], toOpId(9))).toEqual([])
    const many = Array.from({ length: 2000 }, (_, n) => `order-${n}`)
    expect(await store.findBound('BLUUM', many, toOpId(9))).toHaveLength(3)
  })

  test('finds the duplicate candidates of a placement, oldest first', async () => {
    const { store } = open()
    for (const [index, state] of placementStates.entries()) await insert(store, makePlacement(90 - index, { state }))
    await insert(store, makePlacement(91, { state: 'UNKNOWN', accountId: 'acc-2' }))
    await insert(store, makePlacement(92, { state: 'UNKNOWN', broker: 'ARIES' }))
    await insert(store, makePlacement(93, { state: 'UNKNOWN', fingerprint: 'e'.repeat(64) }))
    const twins = await store.findDuplicateCandidates('BLUUM', 'acc-1', 'f'.repeat(64))
    expect(twins.map(({ state }) => state)).toEqual(['AMBIGUOUS', 'UNKNOWN', 'SENDING'])
    expect(twins[0]).toEqual(await store.read(twins[0]?.opId ?? ''))
  })

  test('finds the unresolved placements of an account with any terms, oldest first', async () => {
    const { store } = open()
    for (const [index, state] of placementStates.entries()) await insert(store, makePlacement(90 - index, { state }))
    await insert(store, makePlacement(91, { state: 'UNKNOWN', accountId: 'acc-2' }))
    await insert(store, makePlacement(92, { state: 'UNKNOWN', broker: 'ARIES' }))
    await insert(store, makePlacement(93, { state: 'UNKNOWN', fingerprint: 'e'.repeat(64) }))
    const found = await store.findUnresolved('BLUUM', 'acc-1')
    expect(found.map(({ state }) => state)).toEqual(['AMBIGUOUS', 'UNKNOWN', 'SENDING', 'UNKNOWN'])
  })

  test('keeps a cancel request once for each order until it is settled', async () => {
    const { store } = open()
    const request = {
      broker: 'BLUUM' as const,
      orderId: 'ord-1',
      accountId: 'acc-1',
      principal: 'caller',
      requestedAt: 5,
    }
    expect(await store.keepCancel(request)).toBe(true)
    expect(await store.keepCancel({ ...request, requestedAt: 6 })).toBe(true)
    // An order id may be used by several accounts, and a request that names the wrong account must not replace the right one.
    const elsewhere = { ...request, accountId: 'acc-2', requestedAt: 7 }
    expect(await store.keepCancel(elsewhere)).toBe(true)
    expect(await store.keepCancel({ ...request, broker: 'ARIES', requestedAt: 4 })).toBe(true)
    expect(await store.findCancels()).toEqual([{ ...request, broker: 'ARIES', requestedAt: 4 }, request, elsewhere])
    await store.settleCancel({ ...request, broker: 'ARIES' })
    await store.settleCancel({ ...request, orderId: 'ord-unknown' })
    await store.settleCancel(elsewhere)
    expect(await store.findCancels()).toEqual([request])
  })

  test('keeps no more cancel requests than its bounds, of one account and of all', async () => {
    const { store } = open()
    const keep = (n: number, accountId: string): Promise<boolean> =>
      store.keepCancel({ broker: 'BLUUM', orderId: `ord-${n}`, accountId, principal: 'caller', requestedAt: n })
    const { all, perAccount } = cancelRequestsMax
    for (let n = 0; n < perAccount; n++) expect(await keep(n, 'acc-0')).toBe(true)
    expect(await keep(perAccount, 'acc-0')).toBe(false)
    // One that is kept already stays kept.
    expect(await keep(0, 'acc-0')).toBe(true)
    for (let n = perAccount; n < all; n++) expect(await keep(n, `acc-${Math.floor(n / perAccount)}`)).toBe(true)
    expect(await keep(all, 'acc-new')).toBe(false)
    expect(await store.findCancels()).toHaveLength(all)
  })

  test('finds at most 100 duplicate candidates', async () => {
    const { store } = open()
    for (let n = 0; n < 101; n++) await insert(store, makePlacement(n, { state: 'UNKNOWN' }))
    const twins = await store.findDuplicateCandidates('BLUUM', 'acc-1', 'f'.repeat(64))
    expect(twins.map(({ opId }) => opId)).toEqual(Array.from({ length: 100 }, (_, n) => toOpId(n)))
  })

  test('pages through what is unfinished, oldest first, and leaves the rest alone', async () => {
    const { store } = open()
    const unfinished: Partial<Placement>[] = [
      { state: 'RESERVED' },
      { state: 'SENDING' },
      { state: 'UNKNOWN' },
      { state: 'AMBIGUOUS' },
      { state: 'NOT_PLACED', nextCheckAt: 1, resolvedAt: 1 },
      { state: 'ACCEPTED', resolvedAt: 1, cancelRequestedAt: 0 },
      { state: 'REJECTED', resolvedAt: 1, cancelRequestedAt: 2 },
    ]
    const finished: Partial<Placement>[] = [
      { state: 'NOT_SENT', resolvedAt: 1 },
      { state: 'ACCEPTED', resolvedAt: 1, nextCheckAt: 5 },
      { state: 'REJECTED', resolvedAt: 1 },
      { state: 'NOT_PLACED', resolvedAt: 1 },
      { state: 'ACCEPTED', resolvedAt: 1, cancelRequestedAt: 1, cancelSettledAt: 2 },
    ]
    // The youngest is inserted first.
    const all = [...unfinished, ...finished].map((change, n) => makePlacement(n % 2 === 0 ? n : 50 - n, change))
    for (const placement of all.toReversed()) await insert(store, placement)
    const expected = all.slice(0, unfinished.length).toSorted((a, b) => (a.opId < b.opId ? -1 : 1))
    expect(await store.findUnfinished(null, 100)).toEqual(expected)
    const paged: Placement[] = []
    for (;;) {
      const page = await store.findUnfinished(paged.at(-1)?.opId ?? null, 3)
      expect(page.length).toBeLessThanOrEqual(3)
      if (page.length === 0) break
      paged.push(...page)
    }
    expect(paged).toEqual(expected)
  })

  test('no longer finds as unfinished what was finished meanwhile', async () => {
    const { store } = open()
    const unknown = await insert(store, makePlacement(1, { state: 'UNKNOWN' }))
    const notPlaced = await advance(store, unknown, { state: 'NOT_PLACED', nextCheckAt: 9, resolvedAt: 5 })
    expect(await store.findDuplicateCandidates('BLUUM', 'acc-1', unknown.fingerprint)).toEqual([])
    expect(await store.findUnfinished(null, 9)).toEqual([notPlaced])
    const checked = await advance(store, notPlaced, { nextCheckAt: null })
    expect(await store.findUnfinished(null, 9)).toEqual([])
    const wished = await advance(store, checked, { cancelRequestedAt: 10 })
    expect(await store.findUnfinished(null, 9)).toEqual([wished])
    await advance(store, wished, { cancelSettledAt: 11 })
    expect(await store.findUnfinished(null, 9)).toEqual([])
  })

  test('chains an audit row to each change', async () => {
    const { store, other } = open()
    const placement = await place(store, 1)
    await place(store, 2)
    const rows = await store.readAudit(placement.opId)
    expect(rows).toMatchObject([
      { opId: placement.opId, seq: 1, at: 10_000, from: null, to: 'RESERVED', prevHash: '', ...entryParts('RESERVED') },
      { seq: 2, at: 20_000, from: 'RESERVED', to: 'SENDING', prevHash: rows[0]?.hash, ...entryParts('SENDING') },
      { seq: 3, at: 20_000, from: 'SENDING', to: 'ACCEPTED', prevHash: rows[1]?.hash, ...entryParts('ACCEPTED') },
    ])
    expect(await other.readAudit(placement.opId)).toEqual(rows)
    expect(await store.verifyAudit()).toEqual({ placements: 2, rows: 6, broken: null })
  })

  test('keeps a change and its audit row together or neither of them', async () => {
    const { store, tamper } = open()
    const reserved = await insert(store, makePlacement(1))
    tamper(`CREATE TRIGGER refused BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'not today'); END`)
    const sending = step(reserved, { state: 'SENDING' })
    await expect(store.update(sending, makeEntry('RESERVED', 'SENDING'), 1)).rejects.toThrow(/not today/)
    await expect(store.insert(makePlacement(2), makeEntry(null, 'RESERVED'), 1)).rejects.toThrow(StoreError)
    expect(await store.read(reserved.opId)).toEqual(reserved)
    expect(await store.find(makePlacement(2))).toBeNull()
    tamper('DROP TRIGGER refused')
    expect(await store.update(sending, makeEntry('RESERVED', 'SENDING'), 1)).toBe(true)
    expect(await store.verifyAudit()).toEqual({ placements: 1, rows: 2, broken: null })
  })

  test('leaves of what is long resolved a tombstone, which still refuses the key', async () => {
    const { store, other } = open()
    const old = await place(store, 1, { resolvedAt: 100 })
    const young = await place(store, 2, { resolvedAt: 200 })
    const chain = await store.readAudit(old.opId)
    expect(await store.expire(200, 0, 10)).toBe(1)
    const { opId, broker, accountId, clientOrderId, fingerprint, orderId, createdAt } = old
    const tombstone = { opId, broker, accountId, clientOrderId, fingerprint, orderId, createdAt, resolvedAt: 100 }
    expect(await other.find(old)).toEqual(tombstone)
    expect(await store.find(old).then((found) => found !== null && isTombstone(found))).toBe(true)
    expect(await store.read(old.opId)).toBeNull()
    expect(await store.findByOrder('BLUUM', 'order-1')).toBeNull()
    expect(await store.readAudit(old.opId)).toEqual(chain)
    expect(await store.read(young.opId)).toEqual(young)
    const again = makePlacement(3, { clientOrderId: old.clientOrderId })
    expect(await store.insert(again, makeEntry(null, 'RESERVED'), 1)).toBe(false)
    expect(await store.update(step(old, {}), makeEntry('ACCEPTED', 'ACCEPTED'), 1)).toBe(false)
    await insert(store, makePlacement(4, { clientOrderId: old.clientOrderId.toUpperCase() }))
    expect(await store.verifyAudit()).toEqual({ placements: 2, rows: 7, broken: null })
  })

  test('forgets a tombstone with its chain only when it was created long enough ago', async () => {
    const { store } = open()
    const first = await place(store, 1, { resolvedAt: 100, createdAt: 50 })
    const second = await place(store, 2, { resolvedAt: 100, createdAt: 60 })
    expect(await store.expire(200, 50, 10)).toBe(2)
    expect(await store.expire(200, 60, 10)).toBe(1)
    expect(await store.find(first)).toBeNull()
    expect(await store.readAudit(first.opId)).toEqual([])
    expect(await store.find(second)).toMatchObject({ opId: second.opId })
    expect(await store.verifyAudit()).toEqual({ placements: 0, rows: 3, broken: null })
    await insert(store, makePlacement(3, { clientOrderId: first.clientOrderId }))
  })

  test('never expires a record that still needs work, or has no outcome', async () => {
    const { store } = open()
    const kept = [
      makePlacement(1, { state: 'NOT_PLACED', nextCheckAt: 500, resolvedAt: 1 }),
      makePlacement(2, { state: 'ACCEPTED', cancelRequestedAt: 1, resolvedAt: 1 }),
      makePlacement(3, { state: 'UNKNOWN', resolvedAt: 1 }),
      makePlacement(4, { state: 'NOT_SENT', resolvedAt: null }),
    ]
    for (const placement of kept) await insert(store, placement)
    expect(await store.expire(1e15, 1e15, 10)).toBe(0)
    for (const placement of kept) expect(await store.find(placement)).toEqual(placement)
  })

  test('expires at most the given number at once, the oldest first', async () => {
    const { store } = open()
    for (const n of [1, 2, 3, 4, 5]) await insert(store, makePlacement(n, { state: 'NOT_SENT', resolvedAt: 100 - n }))
    expect(await store.expire(1000, 0, 2)).toBe(2)
    const isLeft = async (n: number): Promise<boolean> => (await store.read(toOpId(n))) !== null
    expect(await Promise.all([1, 2, 3, 4, 5].map(isLeft))).toEqual([true, true, true, false, false])
    // One more becomes a tombstone, and of the three then, one is forgotten.
    expect(await store.expire(1000, 1e15, 1)).toBe(2)
    expect(await store.expire(1000, 1e15, 10)).toBe(2 + 4)
    expect(await store.verifyAudit()).toEqual({ placements: 0, rows: 0, broken: null })
  })

  test('rejects, and never throws, when a method is called after close; closing twice is fine', async () => {
    const { store } = open()
    const placement = await insert(store, makePlacement(1))
    await store.close()
    await store.close()
    const entry = makeEntry(null, 'RESERVED')
    const calls = [
      () => store.insert(placement, entry, 1),
      () => store.update(placement, entry, 1),
      () => store.read('x'),
      () => store.find(placement),
      () => store.findByOrder('BLUUM', 'x'),
      () => store.findDuplicateCandidates('BLUUM', 'x', 'x'),
      () => store.findBound('BLUUM', ['x'], 'x'),
      () => store.findUnfinished(null, 1),
      () => store.readAudit('x'),
      () => store.verifyAudit(),
      () => store.expire(1, 1, 1),
    ]
    for (const call of calls) {
      const answer = call()
      await expect(answer).rejects.toThrow(StoreError)
    }
  })

  // ---- E12: the chain shows what was changed behind its back --------------------------------------------------------

  test('E12 fails at the row or record with one flipped byte, at any position', async () => {
    const { store, tamper, look } = open()
    // Their names stay different from each other's, whichever is changed.
    for (const n of [1, 4, 8]) await place(store, n)
    expect(await store.verifyAudit()).toEqual({ placements: 3, rows: 9, broken: null })
    const opId = toOpId(4)
    const places = [
      {
        table: 'audit',
        seq: 2,
        where: 'op_id = ? AND seq = 2',
        columns: ['detail', 'hash', 'prev_hash', 'record_hash', 'principal', 'to_state'],
      },
      {
        table: 'audit',
        seq: 3,
        where: 'op_id = ? AND seq = 3',
        columns: ['detail', 'hash', 'record_hash', 'from_state'],
      },
      {
        table: 'placement',
        seq: 0,
        where: 'op_id = ?',
        columns: ['json', 'order_id', 'client_order_id', 'account', 'fingerprint', 'state'],
      },
    ]
    for (const { table, seq, where, columns } of places) {
      for (const column of columns) {
        const text = String(look(`SELECT ${column} AS text FROM ${table} WHERE ${where}`, opId)[0]?.['text'])
        for (let at = 0; at < text.length; at++) {
          const flipped = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1)
          tamper(`UPDATE ${table} SET ${column} = ? WHERE ${where}`, flipped, opId)
          const { broken } = await store.verifyAudit()
          expect(broken, `${column} ${flipped}`).toMatchObject({ opId, seq })
        }
        tamper(`UPDATE ${table} SET ${column} = ? WHERE ${where}`, text, opId)
      }
    }
    expect(await store.verifyAudit()).toEqual({ placements: 3, rows: 9, broken: null })
  })

  const tampered: [string, string[], { n: number; seq: number }][] = [
    ['an instant of a row', ['UPDATE audit SET at = at + 1 WHERE op_id = :2 AND seq = 1'], { n: 2, seq: 1 }],
    ['a number of a record', ['UPDATE placement SET version = 4 WHERE op_id = :2'], { n: 2, seq: 0 }],
    ['an instant of a record', ['UPDATE placement SET resolved_at = NULL WHERE op_id = :2'], { n: 2, seq: 0 }],
    ['whether a cancel is pending', ['UPDATE placement SET cancel_pending = 1 WHERE op_id = :2'], { n: 2, seq: 0 }],
    ['a row that is gone from the middle', ['DELETE FROM audit WHERE op_id = :2 AND seq = 2'], { n: 2, seq: 2 }],
    ['a row that is gone from the front', ['DELETE FROM audit WHERE op_id = :2 AND seq = 1'], { n: 2, seq: 1 }],
    ['a row that is gone from the end', ['DELETE FROM audit WHERE op_id = :2 AND seq = 3'], { n: 2, seq: 3 }],
    ['a chain that is gone', ['DELETE FROM audit WHERE op_id = :2'], { n: 2, seq: 1 }],
    ['a record that is gone', ['DELETE FROM placement WHERE op_id = :2'], { n: 2, seq: 0 }],
    ['a detail that is no JSON', [`UPDATE audit SET detail = '{' WHERE op_id = :2 AND seq = 3`], { n: 2, seq: 3 }],
    ['a record that is no JSON', [`UPDATE placement SET json = '{' WHERE op_id = :2`], { n: 2, seq: 0 }],
    ['a record that is JSON of nothing', [`UPDATE placement SET json = 'null' WHERE op_id = :2`], { n: 2, seq: 0 }],
    [
      'a record that was put back to what it was',
      [
        `UPDATE placement SET version = 2, state = 'SENDING', order_id = NULL, resolved_at = NULL, json = json_replace(json,
          '$.version', 2, '$.state', 'SENDING', '$.orderId', NULL, '$.resolvedAt', NULL) WHERE op_id = :2`,
      ],
      { n: 2, seq: 0 },
    ],
    [
      'two rows that changed places between their chains',
      [
        `UPDATE audit SET op_id = 'aside' WHERE op_id = :1 AND seq = 2`,
        `UPDATE audit SET op_id = :1 WHERE op_id = :2 AND seq = 2`,
        `UPDATE audit SET op_id = :2 WHERE op_id = 'aside'`,
      ],
      { n: 1, seq: 2 },
    ],
    [
      'two rows of a chain that changed places',
      [
        'UPDATE audit SET seq = 9 WHERE op_id = :2 AND seq = 2',
        'UPDATE audit SET seq = 2 WHERE op_id = :2 AND seq = 3',
        'UPDATE audit SET seq = 3 WHERE op_id = :2 AND seq = 9',
      ],
      { n: 2, seq: 2 },
    ],
    [
      'a row that was added',
      [
        `INSERT INTO audit SELECT op_id, 4, at, principal, from_state, to_state, detail, record_hash, hash, hash
        FROM audit WHERE op_id = :2 AND seq = 3`,
      ],
      { n: 2, seq: 4 },
    ],
  ]
  test.each(tampered)('E12 notices %s', async (_, statements, { n, seq }) => {
    const { store, tamper } = open()
    for (const n of [1, 2, 3]) await place(store, n)
    for (const sql of statements) tamper(sql.replace(/:(\d)/g, (_, digit) => `'${toOpId(Number(digit))}'`))
    expect((await store.verifyAudit()).broken).toMatchObject({ opId: toOpId(n), seq })
  })

  test('E12 notices a chain that lost rows after its record became a tombstone, and one that lost its tombstone', async () => {
    const { store, tamper } = open()
    for (const n of [1, 2, 3]) await place(store, n, { resolvedAt: 1 })
    await store.expire(100, 0, 10)
    expect(await store.verifyAudit()).toEqual({ placements: 0, rows: 9, broken: null })
    tamper('DELETE FROM tombstone WHERE op_id = ?', toOpId(3))
    expect((await store.verifyAudit()).broken).toMatchObject({ opId: toOpId(3), seq: 0 })
    tamper('DELETE FROM audit WHERE op_id = ? AND seq = 3', toOpId(2))
    expect((await store.verifyAudit()).broken).toMatchObject({ opId: toOpId(2), seq: 3 })
    tamper('DELETE FROM audit WHERE op_id = ?', toOpId(1))
    expect((await store.verifyAudit()).broken).toMatchObject({ opId: toOpId(1), seq: 1 })
  })

  test('E12 goes through more chains than it looks at in one go, while others write', async () => {
    const { store, other } = open()
    for (let n = 0; n < 250; n++) await insert(other, makePlacement(n, { state: 'UNKNOWN' }))
    const verified = store.verifyAudit()
    for (let n = 0; n < 250; n++) {
      await advance(n % 2 === 0 ? store : other, makePlacement(n, { state: 'UNKNOWN' }), { state: 'AMBIGUOUS' })
    }
    expect(await verified).toMatchObject({ placements: 250, broken: null })
    expect(await store.verifyAudit()).toEqual({ placements: 250, rows: 500, broken: null })
  })

  // ---- against a model ----------------------------------------------------------------------------------------------

  test('behaves like a store of a few lines in memory, for any calls', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyAct, { minLength: 1, maxLength: 25 }), async (acts) => {
        const { store, other } = open()
        const model = createModel()
        for (const act of acts) expect(await perform(act, other)).toEqual(await perform(act, model))
        for (const look of looks) expect(await look(store)).toEqual(await look(model))
        expect((await store.verifyAudit()).broken).toBeNull()
        await Promise.all([store.close(), other.close()])
      }),
      { numRuns: 100 },
    )
  })
})

function entryParts(to: PlacementState): Partial<AuditEntry> {
  const { principal, detail } = makeEntry(null, to)
  return { principal, detail }
}

type Act =
  | { type: 'insert'; n: number; key: number }
  | { type: 'update'; n: number; stale: number; change: Partial<Placement> }
  | { type: 'expire'; resolvedBefore: number; createdBefore: number; limit: number }

// Few of each, so that acts meet.
const keys = ['desk-key-a', 'DESK-KEY-A', 'desk-key-b', 'desk-key-c']
const anyN = fc.nat({ max: 5 })
const anyInstant = fc.option(fc.nat({ max: 4 }), { nil: null })
const anyAct: fc.Arbitrary<Act> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant('insert'), n: anyN, key: fc.nat({ max: keys.length - 1 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('update'),
      n: anyN,
      stale: fc.constantFrom(0, 0, 0, 1, -1),
      change: fc.record({
        state: fc.constantFrom(...placementStates),
        orderId: fc.constantFrom(null, null, 'order-1', 'order-2'),
        nextCheckAt: anyInstant,
        cancelRequestedAt: anyInstant,
        cancelSettledAt: anyInstant,
        resolvedAt: anyInstant,
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('expire'),
      resolvedBefore: fc.nat({ max: 5 }),
      createdBefore: fc.nat({ max: 6 }),
      limit: fc.integer({ min: 1, max: 3 }),
    }),
  },
)

/** What the tests ask of a store, or of the model of one. */
type Asked = Pick<
  Store,
  | 'insert'
  | 'update'
  | 'read'
  | 'find'
  | 'findByOrder'
  | 'findDuplicateCandidates'
  | 'findUnresolved'
  | 'findBound'
  | 'findUnfinished'
  | 'expire'
> & {
  readAudit(opId: string): Promise<{ seq: number }[]>
}

async function perform(act: Act, store: Asked): Promise<boolean | number> {
  switch (act.type) {
    case 'insert': {
      // An opId is never used twice, so a record of another key has another one.
      const n = act.n * keys.length + act.key
      const placement = makePlacement(n, { clientOrderId: keys[act.key] ?? '', createdAt: act.n })
      if ((await store.readAudit(placement.opId)).length > 0) return false
      return store.insert(placement, makeEntry(null, 'RESERVED'), act.n)
    }
    case 'update': {
      const [placement] = (await store.findUnfinished(null, 100)).slice(act.n)
      if (placement === undefined) return false
      const next = { ...step(placement, act.change), version: placement.version + 1 + act.stale }
      return store.update(next, makeEntry(placement.state, next.state), act.n)
    }
    case 'expire':
      return store.expire(act.resolvedBefore, act.createdBefore, act.limit)
    default:
      return act satisfies never
  }
}

const allOps = Array.from({ length: 24 }, (_, n) => toOpId(n))
const looks: ((store: Asked) => Promise<unknown>)[] = [
  (store) => Promise.all(allOps.map((opId) => store.read(opId))),
  (store) => Promise.all(allOps.map(async (opId) => (await store.readAudit(opId)).map(({ seq }) => seq))),
  (store) =>
    Promise.all(keys.map((clientOrderId) => store.find({ broker: 'BLUUM', accountId: 'acc-1', clientOrderId }))),
  (store) => Promise.all(['order-1', 'order-2'].map((orderId) => store.findByOrder('BLUUM', orderId))),
  async (store) => (await store.findBound('BLUUM', ['order-1', 'order-2'], toOpId(0))).toSorted(),
  (store) => store.findDuplicateCandidates('BLUUM', 'acc-1', 'f'.repeat(64)),
  (store) => store.findUnresolved('BLUUM', 'acc-1'),
  (store) => store.findUnfinished(toOpId(3), 2),
]

function createModel(): Asked {
  let placements: Placement[] = []
  let tombstones: Tombstone[] = []
  const chains = new Map<string, { seq: number }[]>()
  const isOpen = ({ state }: Placement): boolean => ['SENDING', 'UNKNOWN', 'AMBIGUOUS'].includes(state)
  const isUnfinished = (placement: Placement): boolean => {
    const { state, nextCheckAt, cancelRequestedAt, cancelSettledAt } = placement
    if (isOpen(placement) || state === 'RESERVED') return true
    return (state === 'NOT_PLACED' && nextCheckAt !== null) || (cancelRequestedAt !== null && cancelSettledAt === null)
  }
  const inOrder = <T extends { opId: string }>(list: T[]): T[] => list.toSorted((a, b) => (a.opId < b.opId ? -1 : 1))
  const find = ({ clientOrderId }: { clientOrderId: string }): Placement | Tombstone | null =>
    [...placements, ...tombstones].find((kept) => kept.clientOrderId === clientOrderId) ?? null
  return {
    insert: async (placement) => {
      if (find(placement) !== null) return false
      placements.push(placement)
      chains.set(placement.opId, [{ seq: 1 }])
      return true
    },
    update: async (placement) => {
      const { opId, orderId, version } = placement
      const index = placements.findIndex((kept) => kept.opId === opId && kept.version === version - 1)
      const isBound = orderId !== null && placements.some((kept) => kept.orderId === orderId && kept.opId !== opId)
      if (index === -1 || isBound) return false
      placements[index] = placement
      chains.get(opId)?.push({ seq: version })
      return true
    },
    read: async (opId) => placements.find((kept) => kept.opId === opId) ?? null,
    find: async (key) => find(key),
    findByOrder: async (_, orderId) => placements.find((kept) => kept.orderId === orderId) ?? null,
    findDuplicateCandidates: async () => inOrder(placements.filter(isOpen)),
    findUnresolved: async () => inOrder(placements.filter(isOpen)),
    findBound: async (_, orderIds, opId) =>
      orderIds.filter((id) => placements.some((kept) => kept.orderId === id && kept.opId !== opId)),
    findUnfinished: async (after, limit) =>
      inOrder(placements.filter((kept) => isUnfinished(kept) && kept.opId > (after ?? ''))).slice(0, limit),
    readAudit: async (opId) => chains.get(opId) ?? [],
    expire: async (resolvedBefore, createdBefore, limit) => {
      const resolved = inOrder(placements)
        .filter((kept) => !isUnfinished(kept) && kept.resolvedAt !== null && kept.resolvedAt < resolvedBefore)
        .toSorted((a, b) => (a.resolvedAt ?? 0) - (b.resolvedAt ?? 0))
        .slice(0, limit)
      placements = placements.filter((kept) => !resolved.includes(kept))
      for (const kept of resolved) {
        const { opId, state, broker, accountId, clientOrderId, fingerprint, orderId, createdAt, resolvedAt } = kept
        const key = { broker, accountId, clientOrderId }
        const placed = state === 'ACCEPTED' ? orderId : null
        tombstones.push({ opId, ...key, fingerprint, orderId: placed, createdAt, resolvedAt: resolvedAt ?? 0 })
      }
      const forgotten = inOrder(tombstones)
        .filter(({ createdAt }) => createdAt < createdBefore)
        .toSorted((a, b) => a.createdAt - b.createdAt)
        .slice(0, limit)
      tombstones = tombstones.filter((kept) => !forgotten.includes(kept))
      for (const { opId } of forgotten) chains.delete(opId)
      return resolved.length + forgotten.length
    },
  }
}

// ---- SQLite's own ---------------------------------------------------------------------------------------------------

const module = new URL('../../src/store/sqlite/sqliteStore.ts', import.meta.url).href

/** Runs `script` in a process of its own, with `openSqliteStore` and `file` at hand, until it has printed a line. */
async function startProcess(
  file: string,
  script: string,
): Promise<{ output: () => string; kill: () => Promise<void> }> {
  const source = `import { openSqliteStore } from ${JSON.stringify(module)}; const file = ${JSON.stringify(file)}; ${script}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  let complaints = ''
  child.stderr.on('data', (chunk) => (complaints += String(chunk)))
  const exited = once(child, 'exit')
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  onTestFinished(kill)
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      output += String(chunk)
      if (output.includes('\n')) resolve()
    })
    void exited.then(() => reject(new Error(`ended: ${complaints}`)))
  })
  return { output: () => output, kill }
}

function refusalOf(open: () => unknown): string {
  try {
    open()
  } catch (error) {
    expect(error).toBeInstanceOf(StoreOpenError)
    return (error as Error).message
  }
  throw new Error('it was opened')
}

/** A closed store with `count` placements. */
async function makeStore(file: string, count: number): Promise<Placement[]> {
  const store = openService(file)
  const placements: Placement[] = []
  for (let n = 1; n <= count; n++) placements.push(await place(store, n))
  await store.close()
  return placements
}

describe('a store file', () => {
  test('keeps everything over a close', async () => {
    const file = join(makeFolder(), 'deep', 'er', 'store.sqlite')
    const placements = await makeStore(file, 3)
    const store = openService(file, false)
    for (const placement of placements) expect(await store.find(placement)).toEqual(placement)
    expect(await store.verifyAudit()).toEqual({ placements: 3, rows: 9, broken: null })
    expect(await store.insert(makePlacement(1), makeEntry(null, 'RESERVED'), 1)).toBe(false)
  })

  test('is for the eyes of its owner only', () => {
    const folder = join(makeFolder(), 'data')
    const file = join(folder, 'store.sqlite')
    openService(file)
    expect(readdirSync(folder).toSorted()).toEqual(['', '-shm', '-wal', '.owner'].map((end) => `store.sqlite${end}`))
    for (const name of readdirSync(folder)) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600)
    expect(statSync(folder).mode & 0o777).toBe(0o700)
  })

  test('E12 keeps what was answered before kill -9, and its chains', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const script = `
      const store = openSqliteStore({ file, role: 'service', mayCreate: true })
      const placement = ${JSON.stringify(makePlacement(0))}
      const entry = { principal: 'caller', from: null, to: 'RESERVED', detail: {} }
      for (let n = 1; ; n++) {
        const opId = placement.opId.slice(0, 9) + n.toString(16).padStart(4, '0') + placement.opId.slice(13)
        const next = { ...placement, opId, clientOrderId: 'desk-key-' + n }
        await store.insert(next, entry, 1)
        await store.update({ ...next, version: 2 }, entry, 2)
        if (!process.stdout.write(opId + '\\n')) await new Promise((resolve) => process.stdout.once('drain', resolve))
      }`
    const child = await startProcess(file, script)
    await child.kill()
    const answered = child.output().split('\n').slice(0, -1)
    const store = openService(file, false)
    expect(answered.length).toBeGreaterThan(0)
    for (const opId of answered) expect(await store.read(opId)).toMatchObject({ opId, version: 2 })
    expect((await store.verifyAudit()).broken).toBeNull()
  })

  test('G04 is refused to a second service, until the first one closes it', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const first = openService(file)
    await place(first, 1)
    expect(refusalOf(() => openService(file))).toBe(
      `the store ${file}: another service has it open: stop that one, or give this one a DATA_DIR of its own`,
    )
    // The refusal took nothing from the first, nor left anything open.
    await place(first, 2)
    expect(refusalOf(() => openService(file, false))).toContain('another service has it open')
    await first.close()
    expect(await openService(file).read(toOpId(2))).not.toBeNull()
  })

  test('G04 is refused to a second service in another process, until that one is killed', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const child = await startProcess(
      file,
      `const store = openSqliteStore({ file, role: 'service', mayCreate: true }); console.log('open'); setInterval(() => store, 1e6)`,
    )
    expect(refusalOf(() => openService(file))).toContain('another service has it open')
    await child.kill()
    await place(openService(file), 1)
  })

  test('G04 is refused to a second service that comes by a link', () => {
    const folder = makeFolder()
    const file = join(folder, 'store.sqlite')
    openService(file)
    symlinkSync(file, join(folder, 'link.sqlite'))
    expect(refusalOf(() => openService(join(folder, 'link.sqlite')))).toContain('another service has it open')
  })

  test('G04 is refused where it is missing and may not be created, and nothing is created', () => {
    const folder = makeFolder()
    const file = join(folder, 'data', 'store.sqlite')
    expect(refusalOf(() => openService(file, false))).toBe(
      `there is no store at ${file}: set STORE_INIT=1 to create one, or DATA_DIR to where it is`,
    )
    expect(refusalOf(() => openOperator(file))).toBe(`there is no store at ${file}: set DATA_DIR to where it is`)
    expect(refusalOf(() => openSqliteStore({ file, role: 'operator', mayCreate: true }))).toContain('there is no store')
    expect(readdirSync(folder)).toEqual([])
  })

  test('G04 is refused as missing when it lost all its bytes, unless one may be created', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    await makeStore(file, 1)
    truncateSync(file, 0)
    expect(refusalOf(() => openService(file, false))).toContain('there is no store at')
    expect(refusalOf(() => openOperator(file))).toContain('there is no store at')
    expect(await openService(file).find(makePlacement(1))).toBeNull()
  })

  const damages: [string, (file: string) => void][] = [
    ['holds garbage', (file) => writeFileSync(file, Buffer.alloc(20_000, 'garbage '))],
    ['was cut off', (file) => truncateSync(file, statSync(file).size - 4096)],
    ['was cut off within a page', (file) => truncateSync(file, 5000)],
    [
      'has garbage in its middle',
      (file) => {
        const bytes = readFileSync(file)
        bytes.fill(0xa5, 8192, 12_288)
        writeFileSync(file, bytes)
      },
    ],
    [
      'has an index that lost a key, which would be free again',
      (file) => {
        const raw = new DatabaseSync(file)
        const index = `SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_placement_2'`
        const page = Number(raw.prepare(index).get()?.['rootpage'])
        raw.close()
        const bytes = readFileSync(file)
        const at = bytes.indexOf('desk-key-7', (page - 1) * 4096)
        expect(at).toBeLessThan(page * 4096)
        bytes.write('desk-key-?', at)
        writeFileSync(file, bytes)
      },
    ],
  ]
  test.each(damages)('G04 is refused when it %s, and nothing stays open', async (_, damage) => {
    const file = join(makeFolder(), 'store.sqlite')
    await makeStore(file, 20)
    const healthy = readFileSync(file)
    damage(file)
    for (const open of [() => openService(file), () => openService(file, false), () => openOperator(file)]) {
      expect(refusalOf(open)).toContain(`the store ${file}: it is damaged, so restore it from a backup (`)
    }
    for (const end of ['-wal', '-shm']) rmSync(file + end, { force: true })
    writeFileSync(file, healthy)
    expect(await openService(file, false).verifyAudit()).toMatchObject({ placements: 20, broken: null })
  })

  test('E12 never gives another answer because a bit of it flipped, unless its check fails', async () => {
    const folder = makeFolder()
    const file = join(folder, 'store.sqlite')
    await makeStore(file, 3)
    const healthy = readFileSync(file)
    const copy = join(folder, 'copy.sqlite')
    const answersOf = async (store: Store): Promise<unknown> => {
      const found = [1, 2, 3].map((n) => store.find(makePlacement(n)))
      const others = [store.findUnfinished(null, 10), store.findByOrder('BLUUM', 'order-2'), store.readAudit(toOpId(2))]
      return { answers: await Promise.all([...found, ...others]), report: await store.verifyAudit() }
    }
    const original = openService(file)
    const answers = await answersOf(original)
    await original.close()
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: healthy.length - 1 }), fc.nat({ max: 7 }), async (at, bit) => {
        const bytes = Buffer.from(healthy)
        bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << bit), at)
        for (const end of ['-wal', '-shm']) rmSync(copy + end, { force: true })
        writeFileSync(copy, bytes)
        let store: Store
        try {
          store = openSqliteStore({ file: copy, role: 'service', mayCreate: false })
        } catch (error) {
          expect(error).toBeInstanceOf(StoreOpenError)
          return
        }
        try {
          const { broken } = await store.verifyAudit().catch((error: unknown) => {
            expect(error).toBeInstanceOf(StoreError)
            return { broken: error }
          })
          if (broken === null) expect(await answersOf(store)).toEqual(answers)
        } finally {
          await store.close()
        }
      }),
      { numRuns: 200 },
    )
  })

  test('G04 is refused when it belongs to something else', () => {
    const file = join(makeFolder(), 'store.sqlite')
    openRaw(file).exec('CREATE TABLE account (id TEXT); PRAGMA user_version = 1')
    for (const open of [() => openService(file), () => openOperator(file)]) {
      expect(refusalOf(open)).toContain('the file is something else')
    }
    expect(openRaw(file).prepare('SELECT name FROM sqlite_schema').all()).toEqual([{ name: 'account' }])
  })

  test('G04 is refused while another program has all of it locked', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    await makeStore(file, 1)
    const raw = openRaw(file)
    raw.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; SELECT * FROM placement')
    for (const open of [() => openService(file), () => openOperator(file)]) {
      expect(refusalOf(open)).toBe(`the store ${file}: another program has it locked: stop that one and try again`)
    }
    raw.close()
    openService(file)
  })

  test('G04 is refused when it cannot be opened at all', () => {
    const folder = makeFolder()
    mkdirSync(join(folder, 'store.sqlite'))
    expect(refusalOf(() => openService(join(folder, 'store.sqlite')))).toContain('it cannot be opened: check DATA_DIR')
    writeFileSync(join(folder, 'file'), 'x')
    expect(refusalOf(() => openService(join(folder, 'file', 'store.sqlite')))).toContain('it cannot be opened')
  })

  test('G04 is refused when a newer version wrote it, and left as it is', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    await makeStore(file, 1)
    const raw = openRaw(file)
    const now = Number(raw.prepare('PRAGMA user_version').get()?.['user_version'])
    raw.exec(`PRAGMA user_version = ${now + 1}`)
    for (const open of [() => openService(file), () => openOperator(file)]) {
      expect(refusalOf(open)).toBe(
        `the store ${file}: it has format ${now + 1}, and this version knows ${now}: run the version that wrote it, or a newer one`,
      )
    }
    raw.exec('PRAGMA user_version = 0')
    expect(refusalOf(() => openOperator(file))).toContain('it has the older format 0: start the service')
    raw.exec(`PRAGMA user_version = ${now}`)
    expect(await openService(file).read(toOpId(1))).not.toBeNull()
  })

  test('is migrated once', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    await makeStore(file, 1)
    const exec = vi.spyOn(DatabaseSync.prototype, 'exec')
    onTestFinished(() => exec.mockRestore())
    const store = openService(file)
    expect(exec.mock.calls.filter(([sql]) => /CREATE|ALTER|user_version =/.test(sql))).toEqual([])
    expect(await store.read(toOpId(1))).not.toBeNull()
    expect(openRaw(file).prepare('PRAGMA user_version').get()).toEqual({ user_version: 2 })
  })

  test('is created whole or not at all', () => {
    const file = join(makeFolder(), 'store.sqlite')
    const exec = vi.spyOn(DatabaseSync.prototype, 'exec').mockImplementation(function (this: DatabaseSync, sql) {
      if (sql === 'COMMIT') throw new Error('the disk caught fire')
      this.prepare(sql.includes('CREATE') ? 'CREATE TABLE half (id TEXT)' : (sql.split(';')[0] ?? '')).run()
    })
    onTestFinished(() => exec.mockRestore())
    expect(refusalOf(() => openService(file))).toContain('it cannot be opened')
    exec.mockRestore()
    expect(statSync(file).size).toBe(0)
    expect(refusalOf(() => openService(file, false))).toContain('there is no store')
    openService(file)
  })

  test('serves an operator next to the service, which then finds its version stale', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const service = openService(file)
    const unknown = await insert(service, makePlacement(1, { state: 'UNKNOWN' }))
    const operator = openOperator(file)
    expect(await operator.findUnfinished(null, 10)).toEqual([unknown])
    const decided = await advance(operator, unknown, { state: 'NOT_PLACED', resolvedAt: 5 })
    const late = step(unknown, { state: 'AMBIGUOUS' })
    expect(await service.update(late, makeEntry('UNKNOWN', 'AMBIGUOUS'), 1)).toBe(false)
    expect(await service.read(unknown.opId)).toEqual(decided)
    await operator.close()
    await advance(service, decided, { nextCheckAt: 7 })
    expect(await service.verifyAudit()).toEqual({ placements: 1, rows: 3, broken: null })
  })

  test('serves an operator without a service, and lets one start meanwhile', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const [placement] = await makeStore(file, 1)
    const operator = openOperator(file)
    const service = openService(file, false)
    expect(await operator.read(toOpId(1))).toEqual(placement)
    await place(service, 2)
    expect(await operator.read(toOpId(2))).not.toBeNull()
  })

  test('answers a write with a StoreError while another program has it locked, still reads, and writes afterwards', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const store = openService(file)
    const placement = await place(store, 1)
    const raw = openRaw(file)
    raw.exec('BEGIN IMMEDIATE')
    const entry = makeEntry(null, 'RESERVED')
    for (const write of [
      store.insert(makePlacement(2), entry, 1),
      store.update(step(placement, {}), entry, 1),
      store.expire(1e15, 0, 1),
    ]) {
      await expect(write).rejects.toThrow(StoreError)
    }
    expect(await store.find(placement)).toEqual(placement)
    expect(await store.verifyAudit()).toMatchObject({ placements: 1, broken: null })
    raw.exec('ROLLBACK')
    await place(store, 2)
    await advance(store, placement, {})
  })

  test('answers writes with a StoreError while it is moved away, deleted or replaced, and writes once it is back', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    const store = openService(file)
    const placement = await place(store, 1)
    for (const lost of ['', '-wal', '.owner']) {
      renameSync(file + lost, `${file}.aside`)
      const write = store.update(step(placement, {}), makeEntry('ACCEPTED', 'ACCEPTED'), 1)
      await expect(write).rejects.toThrow(`the store ${file}: its file was moved, deleted or replaced`)
      writeFileSync(file + lost, '')
      await expect(store.insert(makePlacement(2), makeEntry(null, 'RESERVED'), 1)).rejects.toThrow(StoreError)
      expect(await store.find(placement)).toEqual(placement)
      renameSync(`${file}.aside`, file + lost)
    }
    await place(store, 2)
    expect(await store.verifyAudit()).toEqual({ placements: 2, rows: 6, broken: null })
  })

  test('answers writes with a StoreError when it may have no more pages, still reads, and writes when it may', async () => {
    const file = join(makeFolder(), 'store.sqlite')
    // The limit belongs to the connection, which only a look over the store's shoulder gives.
    const prepare = vi.spyOn(DatabaseSync.prototype, 'prepare')
    const store = openService(file)
    const connection = prepare.mock.contexts.at(-1) as DatabaseSync | undefined
    prepare.mockRestore()
    if (connection === undefined) throw new Error('nothing was prepared')
    connection.exec('PRAGMA max_page_count = 1')
    await fillAndFree(store, () => connection.exec('PRAGMA max_page_count = 1000000'))
    expect(connection.isTransaction).toBe(false)
  })

  test('answers writes with a StoreError while the disk is full, still reads, and writes when there is room', async ({
    skip,
  }) => {
    const folder = makeFolder()
    try {
      execFileSync('/bin/mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], { stdio: 'ignore' })
    } catch {
      skip('mounting a small disk is not permitted here')
    }
    try {
      const file = join(folder, 'store.sqlite')
      const store = openSqliteStore({ file, role: 'service', mayCreate: true })
      const ballast = join(folder, 'ballast')
      try {
        for (let size = 1; ; size++) writeFileSync(ballast, Buffer.alloc(4096), { flag: 'a' })
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' })
      }
      await fillAndFree(store, () => rmSync(ballast))
      await store.close()
      expect(await openService(file, false).verifyAudit()).toMatchObject({ broken: null })
    } finally {
      execFileSync('/bin/umount', ['--lazy', folder])
    }
  })
})

/** Inserts until the store is full, then frees room and goes on with what was refused. */
async function fillAndFree(store: Store, free: () => void): Promise<void> {
  const entry = makeEntry(null, 'RESERVED')
  let count = 0
  const fill = async (): Promise<void> => {
    for (; count < 5000; count++) await store.insert(makePlacement(count + 1), entry, 1)
  }
  const failure: unknown = await fill().catch((error: unknown) => error)
  expect(failure).toBeInstanceOf(StoreError)
  expect(failure).toMatchObject({ cause: { code: 'ERR_SQLITE_ERROR', errcode: 13 } })
  const refused = makePlacement(count + 1)
  await expect(store.insert(refused, entry, 1)).rejects.toThrow(StoreError)
  expect(await store.find(refused)).toBeNull()
  expect(await store.readAudit(refused.opId)).toEqual([])
  if (count > 0) expect(await store.find(makePlacement(count))).toEqual(makePlacement(count))
  expect(await store.verifyAudit()).toEqual({ placements: count, rows: count, broken: null })
  free()
  await advance(store, await insert(store, refused), { state: 'SENDING' })
  expect(await store.verifyAudit()).toEqual({ placements: count + 1, rows: count + 2, broken: null })
}
