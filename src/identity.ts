// Who is calling, and what they may do. A token is checked whole before anything of it is believed; what it does not
// grant is answered like what does not exist, or refused before anybody is asked.

import { createHash, createPublicKey } from 'node:crypto'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'
import type { JWTPayload, JWTVerifyGetKey } from 'jose'
import type { Config } from './config.ts'
import { createAccessError } from './errors.ts'

type Scope = 'orders:read' | 'orders:place' | 'orders:cancel'

/** A caller of one request. */
export interface Caller {
  /** Names the caller in logs and in the audit, without telling who it is; null where nobody has to say who they are. */
  readonly id: string | null
  /** The accounts that the caller may see, where they are listed; null: all that the brokers show. */
  readonly accountIds: readonly string[] | null
  /** Whether an account is one of the caller's. */
  sees(accountId: string): boolean
  /** Throws a GraphQLError, FORBIDDEN, unless the caller was granted `scope`. */
  require(scope: Scope): void
}

/** Tells who is calling, from the header Authorization. */
export interface Identity {
  /**
   * Throws a GraphQLError, UNAUTHENTICATED, whose status is 401. Asks nobody but the issuer for its keys. A router that has
   * shown its secret may come for the schema without a token, and reads nothing else then.
   */
  identify(authorization: string | null, hasShownRouterSecret: boolean): Promise<Caller>
}

const everybody: Caller = { id: null, accountIds: null, sees: () => true, require() {} }

const noToken = 'Send a token of the issuer: authorization: Bearer <token>.'

const router: Caller = {
  id: null,
  accountIds: [],
  sees: () => false,
  require() {
    throw createAccessError('UNAUTHENTICATED', noToken)
  },
}

// Those whose keys cannot be taken for another kind's: with HS256 a public key would be a secret.
const algorithms = { ed25519: 'EdDSA', ec: 'ES256', rsa: 'RS256' }
const clockToleranceSeconds = 30
const keysMs = { maxAge: 600_000, timeout: 3_000, cooldown: 30_000 }

/**
 * Asks for no key before a token comes. Throws TypeError for a public key that is none. `onTrouble` hears when the issuer's
 * keys cannot be had, once until they can: every token is refused meanwhile, and no caller is told why.
 */
export function createIdentity(auth: Config['auth'], onTrouble: (reason: string) => void): Identity {
  if (auth.kind === 'none') return { identify: () => Promise.resolve(everybody) }
  const { issuer, audience, keys } = auth
  const options = {
    issuer,
    audience,
    // A key that is not for the algorithm of the token cannot even be tried.
    algorithms: 'pem' in keys ? listAlgorithms(keys.pem) : Object.values(algorithms),
    clockTolerance: clockToleranceSeconds,
    requiredClaims: ['exp', 'sub'],
  }
  const findKey = toKeys(keys)
  let isTroubled = false
  return {
    async identify(authorization, hasShownRouterSecret) {
      if (authorization === null && hasShownRouterSecret) return router
      const token = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(authorization ?? '')?.[1]
      if (token === undefined) {
        throw createAccessError('UNAUTHENTICATED', noToken)
      }
      try {
        const { payload } = await jwtVerify(token, findKey, options)
        isTroubled = false
        return toCaller({ ...payload, sub: requireSubject(payload) })
      } catch (error) {
        const trouble = 'url' in keys ? toIssuerTrouble(error) : null
        if (trouble !== null && !isTroubled) onTrouble(trouble)
        isTroubled ||= trouble !== null
        // Whatever it is, it is about the token or about the keys of its issuer: an outage there is no bug of ours. Which
        // check it was tells the owner of a token what to mend, and who forges one nothing that is secret.
        throw createAccessError('UNAUTHENTICATED', `The token is not taken: ${toReason(error)}.`)
      }
    },
  }
}

type Keys = Extract<Config['auth'], { kind: 'jwt' }>['keys']

function toKeys(keys: Keys): JWTVerifyGetKey {
  if ('url' in keys) {
    const { maxAge: cacheMaxAge, timeout: timeoutDuration, cooldown: cooldownDuration } = keysMs
    return createRemoteJWKSet(new URL(keys.url), { cacheMaxAge, timeoutDuration, cooldownDuration })
  }
  const key = createPublicKey(keys.pem)
  return () => Promise.resolve(key)
}

function listAlgorithms(pem: string): string[] {
  const { asymmetricKeyType } = createPublicKey(pem)
  return Object.entries(algorithms).flatMap(([type, name]) => (type === asymmetricKeyType ? [name] : []))
}

// All who are nobody would be one caller to the log and to the audit.
function requireSubject(payload: JWTPayload): string {
  const { sub }: { sub?: unknown } = payload
  if (typeof sub === 'string' && sub !== '') return sub
  throw new errors.JWTClaimValidationFailed('not a name', payload, 'sub')
}

// What is about the keys' address and not about a token: no answer, or one that holds no keys that can be used.
function toIssuerTrouble(error: unknown): string | null {
  if (!(error instanceof Error)) return String(error)
  if (!(error instanceof errors.JOSEError)) return error.cause instanceof Error ? error.cause.message : error.message
  const isOfKeys = error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid
  return isOfKeys || error.code === errors.JOSEError.code ? error.message : null
}

function toReason(error: unknown): string {
  if (!(error instanceof errors.JOSEError)) return 'the keys of its issuer cannot be had or used'
  if (error instanceof errors.JWTExpired) return 'it has expired'
  if (error instanceof errors.JWTClaimValidationFailed) return `its claim ${error.claim} does not fit`
  if (error instanceof errors.JWKSTimeout) return 'its issuer does not answer'
  if (error instanceof errors.JWKSNoMatchingKey) return 'its issuer has no such key'
  return 'it cannot be verified'
}

function toCaller({
  iss = '',
  sub,
  scope,
  accounts,
}: JWTPayload & { sub: string; scope?: unknown; accounts?: unknown }): Caller {
  const granted = new Set(typeof scope === 'string' ? scope.split(' ') : [])
  const listed = Array.isArray(accounts) ? accounts.filter((id): id is string => typeof id === 'string') : []
  const accountIds = listed.includes('*') ? null : listed
  const own = new Set(accountIds)
  return {
    id: createHash('sha256')
      .update(JSON.stringify([iss, sub]))
      .digest('hex')
      .slice(0, 16),
    accountIds,
    sees: (accountId) => accountIds === null || own.has(accountId),
    require(wanted) {
      if (granted.has(wanted)) return
      throw createAccessError('FORBIDDEN', `The token lacks the scope ${wanted}.`)
    },
  }
}
