// The error, the access to the store and the tables that the operator's commands share.

import { readConfig } from '../config/config.ts'
import { openSqliteStore, StoreOpenError, toStoreFile } from '../store/sqlite/sqliteStore.ts'
import { StoreError } from '../store/store.ts'
import type { Store } from '../store/store.ts'

/** The environment of a command. */
export type Env = NodeJS.ProcessEnv

/** A command cannot be carried out, or it found something wrong. The message is complete and needs no stack. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError'
}

export async function withStore<T>(env: Env, work: (store: Store) => Promise<T>): Promise<T> {
  const file = toStoreFile(readConfig(env).dataDir)
  let store: Store | null = null
  try {
    store = openSqliteStore({ file, role: 'operator', mayCreate: false })
    return await work(store)
  } catch (error) {
    if (error instanceof StoreOpenError || error instanceof StoreError) throw new OperatorError(error.message)
    throw error
  } finally {
    await store?.close()
  }
}

/** Rows of equal names under their heads, without the columns that are empty throughout. */
export function toTable(rows: readonly Record<string, string>[]): string {
  const names = Object.keys(rows[0] ?? {}).filter((name) => rows.some((row) => row[name] !== ''))
  const lines = [names, ...rows.map((row) => names.map((name) => row[name] ?? ''))]
  const widths = names.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** One line for each that has a value. */
export function toList(fields: Record<string, string>): string {
  const shown = Object.entries(fields).filter(([, value]) => value !== '')
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}
