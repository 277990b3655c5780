// Warnings for the operator at the start of the service.

import { existsSync } from 'node:fs'
import type { Config } from './config.ts'
import { toStoreFile } from '../store/sqlite/sqliteStore.ts'

/**
 * Returns the warnings, one sentence each, without values of settings. It must be called before the store is created, because
 * it checks whether there is one.
 */
export function listNotices({ notices, isProduction, mayCreateStore, dataDir }: Config): string[] {
  const hasStore = existsSync(toStoreFile(dataDir))
  const ofStore =
    isProduction && mayCreateStore && hasStore
      ? 'STORE_INIT=1 is still set although there is a store: unset it. Otherwise, if the store were lost, an empty one would be created and orders could be sent again.'
      : !mayCreateStore && !hasStore
        ? 'There is no store in DATA_DIR, and with NODE_ENV=production the service does not create one: set STORE_INIT=1 for the first start, or restore the store if there was one.'
        : null
  return [...notices, ...(ofStore === null ? [] : [ofStore])]
}
