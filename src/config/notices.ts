// What an operator should look at, although the service starts.

import { existsSync } from 'node:fs'
import type { Config } from './config.ts'
import { toStoreFile } from '../store/sqlite/sqliteStore.ts'

/** One sentence each, without values of settings. Looks whether there is a store, so it must come before one is made. */
export function listNotices({ notices, isProduction, mayCreateStore, dataDir }: Config): string[] {
  const hasStore = existsSync(toStoreFile(dataDir))
  const ofStore =
    isProduction && mayCreateStore && hasStore
      ? 'STORE_INIT=1 is still set although there is a store: unset it. If the store went missing, an empty one would be made, and orders could be sent again.'
      : !mayCreateStore && !hasStore
        ? 'There is no store in DATA_DIR, and with NODE_ENV=production the service makes none: set STORE_INIT=1 for the first start, or restore the store if there was one.'
        : null
  return [...notices, ...(ofStore === null ? [] : [ofStore])]
}
