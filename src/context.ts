// What a resolver may touch, built once per request.

import type { Commands } from './orders/commands.ts'
import type { Loaders } from './orders/loaders.ts'

export interface Context {
  /** Names this request in the log and in every error of its answer. */
  readonly requestId: string
  /** Reads of this request; they end when the client leaves. */
  readonly loaders: Loaders
  /** Writes; they outlive the client. */
  readonly commands: Commands
}
