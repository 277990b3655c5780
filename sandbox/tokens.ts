// Aries' OAuth tokens (POST /v1/oauth2/token): which ones are valid on the exchange's clock. They live in memory: a
// restart knows the two fixed ones only, as at the first start.

import { randomBytes } from 'node:crypto'
import type { Switches } from './switches.ts'

/** The credentials that a client gets once, and sends at every start. */
export interface Credentials {
  clientId: string
  clientSecret: string
  /** Never expires, and may be used again unless refresh tokens are rotated. */
  refreshToken: string
  /** Never expires by itself: for those who have no use for refreshing. */
  accessToken: string
}

/** The request is not one; or the client, or its token, is not known. */
interface TokenProblem {
  error: 'bad_request' | 'unauthorized'
  message: string
}

// "refresh tokens 30 days" (Aries, 'Exchange a code or a refresh token for an access token').
const refreshTokenSeconds = 30 * 86_400
// Maximum tokens of each kind; the oldest are removed first.
const tokensMax = 1000

export type Tokens = ReturnType<typeof createTokens>

export function createTokens(options: { credentials: Credentials; switches: Readonly<Switches>; clock: () => number }) {
  const { credentials, switches, clock } = options
  // Until when each is valid, the oldest first.
  const accessTokens = new Map<string, number>()
  const refreshTokens = new Map<string, number>()
  restore()

  /** Makes the two fixed tokens valid again. */
  function restore(): void {
    accessTokens.set(credentials.accessToken, Infinity)
    refreshTokens.set(credentials.refreshToken, Infinity)
  }

  function issue(tokens: Map<string, number>, prefix: string, seconds: number): string {
    const token = `${prefix}_${randomBytes(16).toString('hex')}`
    tokens.set(token, clock() + seconds * 1000)
    if (tokens.size > tokensMax) {
      const oldest = [...tokens].find(([, validUntil]) => validUntil !== Infinity)?.[0] ?? ''
      tokens.delete(oldest)
    }
    return token
  }

  function isValid(tokens: Map<string, number>, token: string): boolean {
    return (tokens.get(token) ?? 0) > clock()
  }

  return {
    /** Whether an Authorization header admits. The scheme's case is free (RFC 9110). Any number of tokens is valid at once. */
    admits(header: string | undefined): boolean {
      const token = /^Bearer ([^ ]+)$/i.exec(header ?? '')?.[1]
      return token !== undefined && isValid(accessTokens, token)
    },
    /**
     * Answers a token request. The only grant is the refresh token, because the sandbox has no sign-in that gives a code. The
     * document does not say whether a wrong secret or token answers 400 or 401; ours is 401 for both.
     */
    refresh(fields: ReadonlyMap<string, unknown>): { issued: Record<string, unknown> } | TokenProblem {
      const read = (name: string): string => {
        const value = fields.get(name)
        return typeof value === 'string' ? value : ''
      }
      for (const name of ['grant_type', 'client_id']) {
        if (read(name) === '') return { error: 'bad_request', message: `${name} is missing` }
      }
      if (read('grant_type') !== 'refresh_token') {
        return { error: 'bad_request', message: 'grant_type must be refresh_token: no codes are given here' }
      }
      for (const name of ['client_secret', 'refresh_token']) {
        if (read(name) === '') return { error: 'bad_request', message: `${name} is missing` }
      }
      if (read('client_id') !== credentials.clientId || read('client_secret') !== credentials.clientSecret) {
        return { error: 'unauthorized', message: 'Client is not known' }
      }
      const given = read('refresh_token')
      if (!isValid(refreshTokens, given)) return { error: 'unauthorized', message: 'Refresh token is not valid' }
      const rotates = switches.ariesRefreshTokens === 'rotated'
      if (rotates) refreshTokens.delete(given)
      const issued = {
        access_token: issue(accessTokens, 'access', switches.ariesTokenSeconds),
        refresh_token: rotates ? issue(refreshTokens, 'refresh', refreshTokenSeconds) : given,
        token_type: 'Bearer',
        expires_in: switches.ariesTokenSeconds,
        refresh_token_expires_in: refreshTokenSeconds,
        scope: 'order:execution order:information account:information',
      }
      return { issued }
    },
    /** Ends every access token at once, the fixed one too. Refreshing goes on. */
    expire: (): void => accessTokens.clear(),
    restore,
  }
}
