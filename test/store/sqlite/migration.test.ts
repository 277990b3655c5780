import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test } from 'vitest'
import { openSqliteStore } from '../../../src/store/sqlite/sqliteStore.ts'

/** A store of format 1, which had no cancel requests. */
function createOldStore(): string {
  const directory = mkdtempSync(join(tmpdir(), 'blotter-migration-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const file = join(directory, 'placements.sqlite')
  const store = openSqliteStore({ file, role: 'service', mayCreate: true })
  void store.close()
  const database = new DatabaseSync(file)
  database.exec('DROP TABLE cancel_request; PRAGMA user_version = 1')
  database.close()
  return file
}

test('G06 migrates a store of the previous format when the service opens it', async () => {
  const store = openSqliteStore({ file: createOldStore(), role: 'service', mayCreate: false })
  const request = { broker: 'BLUUM', orderId: 'ord_1', accountId: 'a', principal: 'caller', requestedAt: 1 } as const
  expect(await store.keepCancel(request)).toBe(true)
  expect(await store.findCancels()).toEqual([request])
  await store.close()
})

test('G06 refuses a store of the previous format to an operator command, and names the fix', () => {
  const file = createOldStore()
  expect(() => openSqliteStore({ file, role: 'operator', mayCreate: false })).toThrow(
    /older format 1: start the service/,
  )
})
