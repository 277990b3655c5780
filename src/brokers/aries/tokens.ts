// The access token of an OAuth2 credential, refreshed once for all who need it: before it expires, or when the broker
// refuses it. No error and no log line of this module holds a token.

import { UpstreamError } from '../../upstream/errors.ts'
import { isBody } from '../fields.ts'
import type { Answer, Http } from '../../upstream/http.ts'
import type { OnNotice } from '../../upstream/notices.ts'

/** A token that another system refreshes, or the credential to get one. */
export type OAuthCredential = { accessToken: string } | { clientId: string; clientSecret: string; refreshToken: string }

export interface TokensOptions {
  /** Sends to the broker that issues the tokens; the caller closes it. */
  http: Http
  credential: OAuthCredential
  /** Receives notices for the operator. */
  onNotice: OnNotice
  /** Called each time the broker refuses to issue a token to this credential. */
  onRefused?: (reason: string) => void
  /** Monotonic ms; the clock of the process by default. */
  now?: () => number
}

export interface Tokens {
  /**
   * The token for a call that is made now; waits only where the last one has expired. Throws the reason of `signal` when
   * that aborts, and else UpstreamError, always with the effect `none`: the call it was for has not been made.
   */
  current(signal?: AbortSignal): Promise<string>
  /**
   * Returns another token than `refused`. Returns null if the token cannot be refreshed, or if it replaced a refused one less
   * than 5 s ago, because the broker then refuses more than this token. Throws like `current`.
   */
  renew(refused: string, signal?: AbortSignal): Promise<string | null>
}

interface Token {
  value: string
  /** From then on it is refreshed in the background, and from then on it is not used any more. */
  renewAt: number
  expiresAt: number
  issuedAt: number
  /** Whether the token was requested because the broker refused the one before it. */
  isReplacement: boolean
}

type IssuedToken = Omit<Token, 'isReplacement'>

// Aries, "Exchange a code or a refresh token": a JSON body, tokens of about an hour.
const tokenPath = '/v1/oauth2/token'
const attemptsMax = 2
const backoffMs = 200
const times = { firstByteMs: 3_000, attemptMs: 4_000, allMs: 4_000 }
// By so much, at the most, it is refreshed before it expires, and is not used any more.
const marginMs = { renew: 60_000, use: 10_000 }
// A replacement that is refused within this many ms of its issue is not replaced again, because a broker that refuses every
// token would otherwise get a token request for each call.
const freshMs = 5_000
// Time in ms for which a failure is reused, so that many callers do not make many token requests. A refused credential will be
// refused again.
const failureMs = { refused: 5_000, other: 1_000 }

/** Asks for no token before one is needed. */
export function createTokens({
  http,
  credential,
  onNotice,
  onRefused,
  now = () => performance.now(),
}: TokensOptions): Tokens {
  if ('accessToken' in credential) {
    const { accessToken } = credential
    return { current: () => Promise.resolve(accessToken), renew: () => Promise.resolve(null) }
  }
  const { clientId, clientSecret } = credential
  let { refreshToken } = credential
  let token: Token | null = null
  let refreshing: Promise<string> | null = null
  // Whether the token request under way replaces a refused token.
  let isReplacing = false
  // Whether a notice has told the operator that token requests fail.
  let isFailing = false
  let failure: { error: unknown; until: number } | null = null

  // Logs the failure, because every call needs a token and no breaker covers the token address.
  function noteFailure(error: unknown): void {
    isFailing = true
    const reason = error instanceof UpstreamError ? error.message : String(error)
    onNotice('an access token cannot be obtained, so nothing can be sent to the broker', { fields: { reason } })
  }

  function refresh(isReplacement = false): Promise<string> {
    if (refreshing !== null || failure === null || now() >= failure.until) isReplacing ||= isReplacement
    if (refreshing !== null) return refreshing
    if (failure !== null && now() < failure.until) return Promise.reject(failure.error)
    refreshing = exchange()
      .then(
        (fresh) => {
          failure = null
          token = { ...fresh, isReplacement: isReplacing }
          if (isFailing) onNotice('access tokens can be obtained again')
          isFailing = false
          return fresh.value
        },
        (error: unknown) => {
          const isRefused = error instanceof UpstreamError && error.kind === 'refused'
          if (isRefused) onRefused?.(error.message)
          else if (!isFailing) noteFailure(error)
          failure = { error, until: now() + toStandingMs(error) }
          throw error
        },
      )
      .finally(() => {
        refreshing = null
        isReplacing = false
      })
    return refreshing
  }

  async function exchange(): Promise<IssuedToken> {
    const until = now() + times.allMs
    for (let attempt = 1; ; attempt++) {
      try {
        return takeToken(await post(Math.min(times.attemptMs, until - now())))
      } catch (error) {
        const isWorthRepeat = error instanceof UpstreamError && error.kind !== 'refused' && error.kind !== 'throttled'
        if (!isWorthRepeat || attempt === attemptsMax || now() + 2 * backoffMs >= until) throw toTokenError(error)
        await new Promise((resolve) => setTimeout(resolve, backoffMs))
      }
    }
  }

  async function post(attemptMs: number): Promise<Answer> {
    return await http.write({
      method: 'POST',
      path: tokenPath,
      body: {
        grant_type: 'refresh_token',
        client_id: clientId,
        client_secret: clientSecret,
        refresh_token: refreshToken,
      },
      firstByteMs: Math.min(times.firstByteMs, attemptMs),
      attemptMs,
    })
  }

  function takeToken({ status, body, retryAfterMs }: Answer): IssuedToken {
    if (status === 429) {
      const wait = { retryAfterMs: retryAfterMs ?? failureMs.other }
      throw new UpstreamError('throttled', 'the broker asks to wait with the next token', { status, ...wait })
    }
    if (status >= 400) throw new UpstreamError('refused', `the broker gives no token: HTTP ${status}`, { status: 401 })
    const { access_token: value, refresh_token: next, expires_in: lifetime } = isBody(body) ? body : {}
    // It becomes a header.
    if (typeof value !== 'string' || !/^[\x21-\x7e]{1,8192}$/.test(value)) {
      throw new UpstreamError('unreadable', 'the broker answered without a readable access token', { status })
    }
    if (typeof next === 'string' && next !== '' && next !== refreshToken) {
      refreshToken = next
      onNotice(
        'the broker has given out a new refresh token, which lives in this process only: after a restart the one of the settings is used again, and may be refused',
      )
    }
    const issuedAt = now()
    const lifetimeMs =
      typeof lifetime === 'string' && /^0*[1-9]\d{0,8}$/.test(lifetime) ? Number(lifetime) * 1_000 : Infinity
    const expiresAt = issuedAt + lifetimeMs - Math.min(marginMs.use, lifetimeMs / 10)
    const renewAt = issuedAt + lifetimeMs - Math.min(marginMs.renew, lifetimeMs / 4)
    return { value, issuedAt, expiresAt, renewAt }
  }

  return {
    async current(signal) {
      const at = now()
      if (token === null || at >= token.expiresAt) return await unlessAborted(refresh(), signal)
      // Refreshes in the background while the token is valid, so that no call waits for the next one or fails with it.
      if (at >= token.renewAt) refresh().catch(() => {})
      return token.value
    },

    async renew(refused, signal) {
      if (token !== null && token.value !== refused) return token.value
      if (token?.isReplacement === true && now() < token.issuedAt + freshMs) return null
      return await unlessAborted(refresh(true), signal)
    },
  }
}

function toStandingMs(error: unknown): number {
  if (!(error instanceof UpstreamError)) return failureMs.other
  const shortestMs = error.kind === 'refused' ? failureMs.refused : failureMs.other
  return Math.max(shortestMs, error.retryAfterMs ?? 0)
}

// After any failure of the token request, the call that needs the token has not been made.
function toTokenError(error: unknown): unknown {
  if (!(error instanceof UpstreamError)) return error
  const { kind, status } = error
  // No token is requested before that time.
  const retryAfterMs = error.retryAfterMs ?? (kind === 'throttled' ? failureMs.other : null)
  const known = {
    effect: 'none' as const,
    ...(status === null ? {} : { status }),
    ...(retryAfterMs === null ? {} : { retryAfterMs }),
  }
  if (kind === 'refused' || kind === 'throttled') return new UpstreamError(kind, error.message, known)
  return new UpstreamError('not_sent', `no access token: ${error.message}`, { ...known, cause: error })
}

/** `work`, or the reason of `signal` as soon as that aborts; `work` goes on for the others. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await work
  work.catch(() => {})
  const left = Promise.withResolvers<never>()
  const onAbort = (): void => left.reject(signal.reason)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort)
  try {
    return await Promise.race([work, left.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
