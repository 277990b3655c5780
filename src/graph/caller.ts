// The caller of a request, and its permissions. The server reads both from the token.

import type { GraphQLError } from 'graphql'

/** A permission of a token. */
export type Scope = 'orders:read' | 'orders:place' | 'orders:cancel'

/** A caller of one request. */
export interface Caller {
  /** Names the caller in logs and in the audit, without revealing its identity; null if callers need no token. */
  readonly id: string | null
  /** The accounts that the caller may see, where they are listed; null: all that the brokers show. */
  readonly accountIds: readonly string[] | null
  /** Whether an account is one of the caller's. */
  sees(accountId: string): boolean
  /** Creates the error for an account of another caller: `message`, and which claim lists no accounts if that is the cause. */
  refuse(message: string): GraphQLError
  /** Throws a GraphQLError, FORBIDDEN, unless the caller was granted `scope`. */
  require(scope: Scope): void
}
