// The context that resolvers share, created once per request.

import type { GraphQLError } from 'graphql'
import type { Tally } from '../upstream/readScope.ts'
import type { Caller } from './caller.ts'
import type { Commands } from '../trading/placeOrder.ts'
import type { Loaders } from './orders/loaders.ts'
import type { Cursors } from './orders/cursors.ts'

export interface Context {
  /** Names this request in the log and in every error of its answer. */
  readonly requestId: string
  /** The caller of the request. */
  readonly caller: Caller
  /** How long the caller waits, in ms, where it said so with `x-request-timeout-ms`. */
  readonly timeoutMs: number | null
  /** Reads of this request; they end when the client leaves. */
  readonly loaders: Loaders
  readonly cursors: Cursors
  /** Why the caller may not query as a federation router, as a sentence; null if it may. */
  readonly routerTrouble: string | null
  /** Adds an error to an answer that keeps its data. */
  readonly report: (error: GraphQLError) => void
  /** Writes; they outlive the client. */
  readonly commands: Commands
  /** Upstream calls of this request, including those of its writes. */
  readonly tally: Tally
}
