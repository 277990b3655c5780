// The identity and the permissions of a caller. A token is verified whole before any of its claims is used. An account that it
// does not grant is answered like one that does not exist, or refused before any call to a broker.

import { createHash, createPublicKey } from 'node:crypto'
import { createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose'
import type { FetchImplementation, JWTPayload, JWTVerifyGetKey } from 'jose'
import type { GraphQLError } from 'graphql'
import { Agent } from 'undici'
import { createTunnels } from '../upstream/tunnel.ts'
import type { Config } from '../config/config.ts'
import type { Caller } from '../graph/caller.ts'
import { createAccessError } from '../graph/errors.ts'
import { isAccountId } from '../brokers/registry.ts'
import { findProxy } from '../upstream/proxy.ts'

/** Tells who is calling, from the header Authorization. */
export interface Identity {
  /**
   * Throws a GraphQLError, UNAUTHENTICATED, with status 401. Calls only the issuer, for its keys. A router with the right
   * secret may read the schema without a token, and nothing else.
   */
  identify(authorization: string | null, hasShownRouterSecret: boolean): Promise<Caller>
}

const refuse = (message: string): GraphQLError => createAccessError('FORBIDDEN', message)

const everybody: Caller = { id: null, accountIds: null, sees: () => true, refuse, require() {} }

const noToken = 'Send a token of the issuer: authorization: Bearer <token>.'

const router: Caller = {
  id: null,
  accountIds: [],
  sees: () => false,
  refuse,
  require() {
    throw createAccessError('UNAUTHENTICATED', noToken)
  },
}

// Accepted algorithms by the type of the key or its curve. HMAC is excluded, because HS256 would use a public key as a secret.
const algorithms: Readonly<Record<string, readonly string[]>> = {
  ed25519: ['EdDSA', 'Ed25519'],
  prime256v1: ['ES256'],
  secp384r1: ['ES384'],
  rsa: ['RS256', 'RS384', 'RS512', 'PS256'],
}
const clockToleranceSeconds = 30
const keysBytesMax = 1_000_000
const keysMs = { maxAge: 600_000, timeout: 3_000, cooldown: 30_000 }

/** Receives problems with tokens for the operator. No call names a token or its caller. */
export interface IdentityListener {
  /**
   * The issuer's keys cannot be fetched, so every token is refused. The callers' errors do not have the reason. Called once
   * until the keys can be fetched again.
   */
  onKeysTrouble(reason: string): void
  /** A verified token grants no scope or no account, because a claim is missing or has another form. Called once per reason. */
  onClaimTrouble(reason: string): void
}

/**
 * Creates the check of tokens. Fetches the keys when the first token arrives, through `proxy` unless that excludes their
 * address. Throws TypeError if the public key is not a key.
 */
export function createIdentity(
  auth: Config['auth'],
  listener: IdentityListener,
  proxy: Config['proxy'] = null,
): Identity {
  if (auth.kind === 'none') return { identify: () => Promise.resolve(everybody) }
  const { issuer, audience, keys } = auth
  // Holds few reasons, because each names a claim of the settings and one of two faults.
  const reported = new Set<string>()
  const options = {
    issuer,
    audience,
    // A key that is not for the algorithm of the token cannot even be tried.
    algorithms: 'pem' in keys ? listAlgorithms(keys.pem) : Object.values(algorithms).flat(),
    clockTolerance: clockToleranceSeconds,
    requiredClaims: ['exp', 'sub'],
  }
  const findKey = toKeys(keys, proxy)
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
        const grants = readGrants(payload, auth)
        for (const reason of [grants.scopes, grants.accounts].flatMap(({ trouble }) => trouble ?? [])) {
          if (!reported.has(reason)) listener.onClaimTrouble(reason)
          reported.add(reason)
        }
        return toCaller(requireSubject(payload), payload.iss ?? '', grants)
      } catch (error) {
        const trouble = 'url' in keys ? toIssuerTrouble(error) : null
        if (trouble !== null && !isTroubled) listener.onKeysTrouble(trouble)
        isTroubled ||= trouble !== null
        // The error is about the token or about the keys of its issuer, so it is not a bug. The failed check tells the owner of
        // a token what to mend, and reveals no secret to others.
        throw createAccessError('UNAUTHENTICATED', `The token is not taken: ${toReason(error)}.`)
      }
    },
  }
}

type Keys = Extract<Config['auth'], { kind: 'jwt' }>['keys']

function toKeys(keys: Keys, proxy: Config['proxy']): JWTVerifyGetKey {
  if ('url' in keys) {
    const url = new URL(keys.url)
    const proxyUrl = findProxy(url, proxy)
    const through = proxyUrl === null ? {} : { [customFetch]: fetchThrough(proxyUrl) }
    const { maxAge: cacheMaxAge, timeout: timeoutDuration, cooldown: cooldownDuration } = keysMs
    return createRemoteJWKSet(url, { cacheMaxAge, timeoutDuration, cooldownDuration, ...through })
  }
  const key = createPublicKey(keys.pem)
  return () => Promise.resolve(key)
}

function fetchThrough(proxyUrl: string): FetchImplementation {
  // Keeps no connection, because keys are fetched only every ten minutes.
  const agent = new Agent({ connect: createTunnels(proxyUrl), pipelining: 0, maxResponseSize: keysBytesMax })
  return async (address, { headers, signal }) => {
    const { origin, pathname } = new URL(address)
    const answer = await agent.request({
      origin,
      path: pathname,
      method: 'GET',
      headers: Object.fromEntries(headers),
      signal,
    })
    return new Response(await answer.body.text(), { status: answer.statusCode })
  }
}

function listAlgorithms(pem: string): string[] {
  const { asymmetricKeyType: type = '', asymmetricKeyDetails: { namedCurve } = {} } = createPublicKey(pem)
  return [...(algorithms[namedCurve ?? type] ?? [])]
}

// Throws if the token has no subject, because all such callers would be one in the log and in the audit.
function requireSubject(payload: JWTPayload): string {
  const { sub }: { sub?: unknown } = payload
  if (typeof sub === 'string' && sub !== '') return sub
  throw new errors.JWTClaimValidationFailed('not a name', payload, 'sub')
}

// Failures of the address of the keys, and not of a token: no answer, or an answer without usable keys.
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

// ---- what a token grants ----------------------------------------------------------------------------------------------

/** Returns the words that a claim lists. `trouble` says why the list is empty if the claim is missing or has another form. */
interface Grant {
  words: readonly string[]
  trouble: string | null
  /** False if the claim is missing. A token without the claim for accounts is accepted and has no accounts. */
  isPresent: boolean
}

interface Grants {
  scopes: Grant
  accounts: Grant
}

type Claims = Pick<Extract<Config['auth'], { kind: 'jwt' }>, 'scopeClaim' | 'accountsClaim'>

// Identity providers use one of these by default.
const usualScopeClaims = ['scope', 'scp']

function readGrants(payload: JWTPayload, { scopeClaim, accountsClaim }: Claims): Grants {
  const scopes = readGrant(payload, scopeClaim === null ? usualScopeClaims : [scopeClaim], {
    what: 'scope',
    form: 'text with blanks between the scopes, or an array of text',
    // Some providers put all scopes into one text within an array.
    split: (texts) => texts.flatMap(toWords),
  })
  const accounts = readGrant(payload, [accountsClaim], {
    what: 'account',
    form: 'text with blanks or commas between the account ids, or an array of them; `*` means all accounts',
    split: (texts, isList) => (isList ? texts : texts.flatMap(toWords)).filter((id) => id === '*' || isAccountId(id)),
  })
  return { scopes, accounts }
}

/** Returns the words of all claims with these names. */
function readGrant(
  payload: JWTPayload,
  names: readonly string[],
  { what, form, split }: { what: string; form: string; split: (texts: string[], isList: boolean) => string[] },
): Grant {
  const words: string[] = []
  const unreadable: string[] = []
  let isPresent = false
  for (const name of names) {
    const value = findClaim(payload, name)
    if (value === undefined || value === null) continue
    isPresent = true
    const values: unknown[] = Array.isArray(value) ? value : [value]
    const texts = values.filter((text) => typeof text === 'string')
    const read = split(texts, Array.isArray(value))
    words.push(...read)
    // Empty text and an empty array are valid forms that list nothing.
    const isEmpty = values.every((text) => typeof text === 'string' && text.trim() === '')
    if (read.length === 0 && !isEmpty) unreadable.push(name)
  }
  const trouble =
    words.length > 0
      ? null
      : unreadable.length > 0
        ? `The token grants no ${what}, because its claim ${unreadable.join(' and ')} is not ${form}.`
        : isPresent
          ? null
          : `The token grants no ${what}, because it has no claim ${names.join(' or ')}, which must be ${form}.`
  return { words, trouble, isPresent }
}

function toWords(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '')
}

/**
 * Returns the claim with this name or at this dotted path; undefined if the token has no such claim. A name may contain dots,
 * such as `https://example.com/accounts`, so the longest name is tried first.
 */
function findClaim(claims: object, path: string): unknown {
  if (Object.hasOwn(claims, path)) return Reflect.get(claims, path)
  for (let dot = path.lastIndexOf('.'); dot > 0; dot = path.lastIndexOf('.', dot - 1)) {
    const name = path.slice(0, dot)
    const inner: unknown = Object.hasOwn(claims, name) ? Reflect.get(claims, name) : null
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) continue
    const found = findClaim(inner, path.slice(dot + 1))
    if (found !== undefined) return found
  }
  return undefined
}

function toCaller(subject: string, issuer: string, { scopes, accounts }: Grants): Caller {
  const granted = new Set(scopes.words)
  const accountIds = accounts.words.includes('*') ? null : accounts.words
  const own = new Set(accountIds)
  return {
    id: createHash('sha256')
      .update(JSON.stringify([issuer, subject]))
      .digest('hex')
      .slice(0, 16),
    accountIds,
    sees: (accountId) => accountIds === null || own.has(accountId),
    refuse: (message) => refuse(accounts.trouble === null ? message : `${message} ${accounts.trouble}`),
    require(wanted) {
      if (!granted.has(wanted)) {
        throw createAccessError('FORBIDDEN', scopes.trouble ?? `The token lacks the scope ${wanted}.`)
      }
      // Without this error every account would be refused or missing, which hides the cause from the caller.
      if (accounts.isPresent && accounts.trouble !== null) throw createAccessError('FORBIDDEN', accounts.trouble)
    },
  }
}
