// Every setting, read once from the environment into one frozen object. Whoever starts the service with five mistakes
// is told of five, by name and never by value: half of them are secrets.

import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { brokerCapabilities } from '../brokers/broker.ts'
import type { BrokerCapability } from '../brokers/broker.ts'
import { findMisspelt } from './misspelt.ts'
import { ManifestError, parseManifest } from './manifest.ts'
import { brokerIds } from '../domain/order.ts'
import type { BrokerId } from '../domain/order.ts'
import { findProxy } from '../upstream/proxy.ts'
import type { ProxySettings } from '../upstream/proxy.ts'

/** The settings of one process. Times in milliseconds. */
export interface Config {
  readonly host: string
  /** 0 lets the system pick one. */
  readonly port: number
  /** Host names that requests may name in addition to this machine's; checked only if `host` is a loopback address. */
  readonly publicHosts: readonly string[]
  /** How long an idle connection is kept, in ms. */
  readonly keepAliveMs: number
  /** Bluum's address and our key pair there; null where Bluum is not connected. */
  readonly bluum: { readonly url: string; readonly apiKey: Secret; readonly apiSecret: Secret } | null
  /** The generation of Bluum's API. */
  readonly bluumApi: (typeof bluumApis)[number]
  /** The published rate of the key pair; 80 % of it is used. */
  readonly bluumRequestsPerSecond: number
  /** What `certify` proved of that environment. */
  readonly bluumCapabilities: readonly BrokerCapability[]
  /** Aries' address and our credential there. Where Bluum is null too, the embedded sandbox is both. */
  readonly aries: { readonly url: string; readonly credential: AriesCredential } | null
  readonly ariesAccountField: (typeof ariesAccountFields)[number]
  /** Null where nobody has said which id it is: `id`, or whatever it is in the sandbox. */
  readonly ariesTradingId: (typeof ariesTradingIds)[number] | null
  /** Nobody publishes a rate; 80 % of this one is used. */
  readonly ariesRequestsPerSecond: number
  readonly ariesCapabilities: readonly BrokerCapability[]
  /** The proxy for brokers and for the keys of tokens; null without one. */
  readonly proxy: ProxySettings | null
  /** Whether calls stop for a while when the broker keeps failing. */
  readonly breaker: boolean
  /** Ports on loopback; 0 picks a free one. */
  readonly sandbox: { readonly seed: string; readonly port: number; readonly controlPort: number }
  /** Folder of what has to survive a restart. */
  readonly dataDir: string
  /** What a federation router has to show; null asks nobody. */
  readonly routerSecret: Secret | null
  readonly auth: Auth
  /** The origins whose pages may ask from a browser; none by default. */
  readonly corsOrigins: readonly string[]
  /** Null where none are named. */
  readonly trustedDocuments: TrustedDocuments | null
  readonly limits: Limits
  readonly graphiql: boolean
  readonly introspection: boolean
  /** Whether an empty store may be made where there is none. */
  readonly mayCreateStore: boolean
  /** Whether NODE_ENV is `production`. */
  readonly isProduction: boolean
  /** Whether placements are sent, and whether cancels are. */
  readonly trading: (typeof tradings)[number]
  readonly placing: Placing
  /** How long a stopping service continues to serve while `/ready` answers 503, in ms. */
  readonly drainMs: number
  /** Maximum time of a graceful stop after the drain, in ms. */
  readonly shutdownMs: number
  readonly logLevel: LogLevel
  /** Warnings for the operator about settings that can be used; one sentence each, without values. */
  readonly notices: readonly string[]
}

/** A token that somebody else keeps fresh, or what it takes to get one. */
type AriesCredential =
  | { readonly accessToken: Secret }
  | { readonly clientId: string; readonly clientSecret: Secret; readonly refreshToken: Secret }

/** Whether callers have to say who they are, and whose word is taken for it. */
type Auth =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'jwt'
      readonly issuer: string
      readonly audience: string
      /** The claim that lists the scopes of a token: its name or a dotted path; null for `scope` and `scp`. */
      readonly scopeClaim: string | null
      /** The claim that lists the accounts of a token: its name or a dotted path. */
      readonly accountsClaim: string
      readonly keys: { readonly url: string } | { readonly pem: string }
    }

/** The documents that frontends were built with. */
export interface TrustedDocuments {
  /** By the ids that requests send in place of them. */
  readonly texts: ReadonlyMap<string, string>
  /** Whether others are run beside them. */
  readonly mode: (typeof trustModes)[number]
}

/** How often a caller may ask, and an account be placed for; null without a bound. */
interface Limits {
  readonly operationsPerSecond: number | null
  readonly placementsPerSecond: number | null
}

/** The times of a placement; see PlaceTimes for what each is. */
interface Placing {
  readonly replyMs: number
  readonly settleMs: number
  readonly lookupMs: readonly number[]
  readonly lateMs: readonly number[]
  readonly sendByMs: { readonly market: number; readonly other: number }
  readonly assumeAbsent: boolean
}

const bluumApis = ['accounts', 'investors'] as const
/** What Aries' requests may call the account; the newer pages have the second name. */
const ariesAccountFields = ['accountId', 'tradingAccountId'] as const
/** Which of the ids in Aries' list of accounts may name an account to its order API. */
const ariesTradingIds = ['id', 'fdid', 'apex_account_id', 'sterling_account_id'] as const
const tradings = ['on', 'halted', 'read-only'] as const
const trustModes = ['allow', 'enforce'] as const

export type LogLevel = 'error' | 'warn' | 'info' | 'debug'

/** A secret that prints as `[secret]` wherever an object with it is printed; `reveal` is for the one who sends it. */
interface Secret {
  reveal(): string
  toString(): string
}

/** Settings that cannot be used: all problems, each naming its setting and what to write instead. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(`The settings cannot be used:\n${problems.map((problem) => `  ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/** The service cannot start with what it finds there; the message names the setting and needs no stack. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

// Settings that are described but not built yet. Ignoring one silently would be worse than not knowing it: a service
// that skips its DATABASE_URL keeps two stores, one that skips AUTH=jwt lets everybody in.
const notBuilt: Readonly<Record<string, string>> = {
  BLUUM_WEBHOOK_SECRET: 'webhooks',
  BLUUM_WEBHOOK_HEADER: 'webhooks',
  DATABASE_URL: 'the shared store',
  METRICS_PORT: 'metrics',
}

/**
 * Reads the settings from `env`; an empty value counts as unset. A secret may be in a file instead: `NAME_FILE`.
 * Throws ConfigError with every problem at once.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const problems: string[] = []
  // The names of all settings. Each name is added when it is read, set or not.
  const known = new Set(['NODE_ENV'])

  function read(name: string): string | undefined {
    known.add(name)
    const value = env[name]?.trim()
    return value === '' ? undefined : value
  }

  function readSecret(name: string): Secret | undefined {
    const file = read(`${name}_FILE`)
    const value = read(name)
    if (file !== undefined && value !== undefined) {
      problems.push(`${name} and ${name}_FILE are both set: keep one of them`)
      return undefined
    }
    if (file === undefined) return value === undefined ? undefined : toSecret(value)
    try {
      const text = readFileSync(file, 'utf8').trim()
      if (text === '') problems.push(`${name}_FILE names an empty file`)
      return toSecret(text)
    } catch {
      problems.push(`${name}_FILE names a file that cannot be read`)
      return undefined
    }
  }

  function readInteger(name: string, fallback: number, min: number, max: number): number {
    const value = read(name)
    if (value === undefined) return fallback
    const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN
    if (number >= min && number <= max) return number
    problems.push(`${name} must be a whole number from ${min} to ${max}`)
    return fallback
  }

  function readOptional<Choice extends string>(name: string, choices: readonly Choice[]): Choice | null {
    const value = read(name)
    if (value === undefined) return null
    const choice = choices.find((known) => known === value)
    if (choice === undefined) problems.push(`${name} must be ${choices.join(' or ')}`)
    return choice ?? null
  }

  function readChoice<Choice extends string>(name: string, fallback: Choice, choices: readonly Choice[]): Choice {
    return readOptional(name, choices) ?? fallback
  }

  // Milliseconds, ascending: a schedule that steps back is a slip of the pen.
  function readTimes(name: string, fallback: readonly number[], max: number): readonly number[] {
    const value = read(name)
    if (value === undefined) return fallback
    const times = value.split(',').map((text) => (/^\d{1,10}$/.test(text.trim()) ? Number(text) : Number.NaN))
    const isAscending = times.every((time, index) => time > (times[index - 1] ?? 0))
    if (times.length <= 20 && isAscending && times.every((time) => time <= max)) return Object.freeze(times)
    problems.push(`${name} must be at most 20 ascending whole numbers from 1 to ${max}, separated by commas`)
    return fallback
  }

  function readPair(name: string, fallback: readonly [number, number], max: number): readonly [number, number] {
    const value = read(name)
    if (value === undefined) return fallback
    const match = /^(\d{1,9})\s*,\s*(\d{1,9})$/.exec(value)
    const [first, second] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)]
    if (first >= 1 && second >= 1 && first <= max && second <= max) return [first, second]
    problems.push(`${name} must be two whole numbers from 1 to ${max}, separated by a comma: market orders, all others`)
    return fallback
  }

  function readCapabilities(name: string): readonly BrokerCapability[] {
    const words = (read(name) ?? '').split(',').map((word) => word.trim())
    const known = brokerCapabilities.filter((capability) => words.includes(capability))
    if (words.every((word) => word === '' || known.some((capability) => capability === word)))
      return Object.freeze(known)
    problems.push(
      `${name} must be some of ${brokerCapabilities.join(', ')}, separated by commas, as certify prints them`,
    )
    return []
  }

  for (const [name, feature] of Object.entries(notBuilt)) {
    for (const set of [name, `${name}_FILE`].filter((candidate) => read(candidate) !== undefined)) {
      problems.push(`${set} is set, but ${feature} is not built yet: unset it`)
    }
  }
  const telemetry = Object.keys(env).filter((name) => name.startsWith('OTEL_') && read(name) !== undefined)
  for (const name of telemetry) problems.push(`${name} is set, but tracing is not built yet: unset it`)

  const host = read('HOST') ?? '127.0.0.1'
  const bluum = readBluum()
  const aries = readAries()

  function readBluum(): Config['bluum'] {
    const url = read('BLUUM_URL')
    const apiKey = readSecret('BLUUM_API_KEY')
    const apiSecret = readSecret('BLUUM_API_SECRET')
    if (url === undefined) {
      if (apiKey || apiSecret) {
        problems.push('BLUUM_URL is missing, although a Bluum key is set: set it, or unset the key')
      }
      return null
    }
    if (!isBaseUrl(url)) {
      problems.push(
        'BLUUM_URL must be an https:// address with its version, such as https://api.bluumfinance.com/v1, ' +
          'without credentials, query or fragment (http:// is taken for loopback only)',
      )
    }
    if (!apiKey) problems.push('BLUUM_API_KEY is missing: BLUUM_URL needs the key pair of that environment')
    if (!apiSecret) problems.push('BLUUM_API_SECRET is missing: BLUUM_URL needs the key pair of that environment')
    return apiKey && apiSecret ? { url, apiKey, apiSecret } : null
  }

  function readAries(): Config['aries'] {
    const url = read('ARIES_URL')
    const clientId = read('ARIES_CLIENT_ID')
    const clientSecret = readSecret('ARIES_CLIENT_SECRET')
    const refreshToken = readSecret('ARIES_REFRESH_TOKEN')
    const accessToken = readSecret('ARIES_ACCESS_TOKEN')
    if (url === undefined) {
      if (clientId !== undefined || clientSecret || refreshToken || accessToken) {
        problems.push('ARIES_URL is missing, although a credential of Aries is set: set it, or unset the credential')
      }
      return null
    }
    // The paths name their versions: behind another one every call would be answered 404.
    if (!isBaseUrl(url) || /\/v\d+\/*$/.test(new URL(url).pathname)) {
      problems.push(
        'ARIES_URL must be an https:// address without a version, such as https://api.aries.com, ' +
          'without credentials, query or fragment (http:// is taken for loopback only)',
      )
    }
    const parts = { ARIES_CLIENT_ID: clientId, ARIES_CLIENT_SECRET: clientSecret, ARIES_REFRESH_TOKEN: refreshToken }
    const missing = Object.entries(parts).flatMap(([name, value]) => (value === undefined ? [name] : []))
    if (accessToken) {
      if (missing.length < 3) {
        problems.push('ARIES_ACCESS_TOKEN is set, and so is what refreshes one: keep one of them')
      }
      return { url, credential: Object.freeze({ accessToken }) }
    }
    for (const name of missing) {
      problems.push(
        `${name} is missing: ARIES_URL needs client id, client secret and refresh token, or ARIES_ACCESS_TOKEN`,
      )
    }
    if (clientId === undefined || !clientSecret || !refreshToken) return null
    return { url, credential: Object.freeze({ clientId, clientSecret, refreshToken }) }
  }

  // The name in lower case wins, as with curl. HTTP_PROXY is ignored, because only https:// calls leave this machine.
  function readProxy(): ProxySettings | null {
    const inCapitals = readSecret('HTTPS_PROXY')
    const inSmall = read('https_proxy')
    const bypass = (read('no_proxy') ?? read('NO_PROXY') ?? '').split(/[\s,]+/).filter((entry) => entry !== '')
    const text = inSmall ?? inCapitals?.reveal()
    if (text === undefined) return null
    const address = text.includes('://') ? text : `http://${text}`
    const proxy = toProxyUrl(address)
    const settings = { url: toSecret(address), host: proxy?.host ?? '', bypass: Object.freeze(bypass) }
    if (proxy !== null) return Object.freeze(settings)
    // Checks the form only if a target would use the proxy, because the variable may be set for other programs.
    const targets = [bluum?.url, aries?.url, auth.kind === 'jwt' && 'url' in auth.keys ? auth.keys.url : undefined]
    if (targets.some((url) => url !== undefined && URL.canParse(url) && findProxy(new URL(url), settings) !== null)) {
      problems.push(
        `${inSmall === undefined ? 'HTTPS_PROXY' : 'https_proxy'} must be the address of an HTTP proxy, such as ` +
          'http://proxy.example.com:3128, or http://user:password@… with a user name and a password in percent-encoding',
      )
    }
    return null
  }

  function readRouterSecret(): Secret | null {
    const secret = readSecret('ROUTER_SECRET')
    if (secret === undefined) return null
    // It travels as a header, where blanks at its ends and other characters get lost.
    if (!/^[\x21-\x7e]{16,}$/.test(secret.reveal())) {
      problems.push('ROUTER_SECRET must be at least 16 characters, letters, digits and signs of ASCII without blanks')
    }
    return secret
  }

  function readOrigins(): readonly string[] {
    const origins = (read('CORS_ORIGINS') ?? '').split(',').flatMap((text) => text.trim() || [])
    // As a browser writes it: in lower case, without a path, and without the port that its scheme has anyway.
    const isOrigin = (text: string): boolean => isBaseUrl(text) && new URL(text).origin === text
    if (!origins.every(isOrigin)) {
      problems.push(
        'CORS_ORIGINS must be origins such as https://app.example.com, in lower case, without a path or a slash at ' +
          'the end, separated by commas (http:// for loopback only)',
      )
    }
    return Object.freeze(origins)
  }

  function readPublicHosts(): readonly string[] {
    const hosts = (read('PUBLIC_HOSTS') ?? '').split(',').flatMap((text) => text.trim().toLowerCase() || [])
    const isHostName = (text: string): boolean =>
      URL.canParse(`http://${text}`) && new URL(`http://${text}`).hostname === text && !text.endsWith('.')
    if (!hosts.every(isHostName)) {
      problems.push(
        'PUBLIC_HOSTS must be host names such as orders.example.com, without a scheme, a port or a path, separated by commas',
      )
    }
    if (hosts.length > 0 && !isLoopback(host)) {
      problems.push(
        'PUBLIC_HOSTS has no effect unless HOST is a loopback address, because other addresses serve every name: unset it',
      )
    }
    return Object.freeze(hosts)
  }

  function readTrustedDocuments(): TrustedDocuments | null {
    const file = read('TRUSTED_DOCUMENTS')
    const mode = readChoice('TRUSTED_DOCUMENTS_MODE', 'enforce', trustModes)
    if (file === undefined) {
      if (read('TRUSTED_DOCUMENTS_MODE') !== undefined)
        problems.push('TRUSTED_DOCUMENTS_MODE has no meaning without TRUSTED_DOCUMENTS: unset it')
      return null
    }
    let text = ''
    try {
      text = readFileSync(file, 'utf8')
    } catch {
      // The empty text is refused as a manifest, in a message without the path.
    }
    try {
      return Object.freeze({ texts: parseManifest(text), mode })
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error
      problems.push(`TRUSTED_DOCUMENTS ${error.message}`)
      return null
    }
  }

  // Where nobody says who they are, a bound would be one for all of them together.
  function readLimit(name: string, usual: number): number | null {
    return auth.kind === 'none' && read(name) === undefined ? null : readInteger(name, usual, 1, 10_000)
  }

  function readPlacing(): Placing {
    const [market, other] = readPair('PLACE_SEND_BY_MS', [10_000, 30_000], 600_000)
    const day = 86_400_000
    return Object.freeze({
      replyMs: readInteger('PLACE_REPLY_MS', 10_000, 100, 30_000),
      settleMs: readInteger('PLACE_SETTLE_MS', 120_000, 100, day),
      lookupMs: readTimes('PLACE_LOOKUP_MS', [1_000, 3_000, 8_000, 20_000, 45_000, 90_000, 150_000], day),
      lateMs: readTimes('PLACE_LATE_MS', [300_000, 900_000, 3_600_000, day], 30 * day),
      sendByMs: Object.freeze({ market, other }),
      assumeAbsent: readChoice('PLACE_ASSUME_ABSENT', 'settle', ['settle', 'never']) === 'settle',
    })
  }

  const isSandbox = read('BLUUM_URL') === undefined && read('ARIES_URL') === undefined
  if (!isSandbox) {
    for (const name of ['SANDBOX_SEED', 'SANDBOX_PORT', 'SANDBOX_CONTROL_PORT']) {
      if (read(name) !== undefined) problems.push(`${name} has no meaning with a real broker: unset it`)
    }
  }

  function readSandbox(): Config['sandbox'] {
    const seed = read('SANDBOX_SEED') ?? 'blotter'
    const port = readInteger('SANDBOX_PORT', 0, 0, 65_535)
    const controlPort = readInteger('SANDBOX_CONTROL_PORT', 0, 0, 65_535)
    if (port !== 0 && port === controlPort) {
      problems.push(`SANDBOX_PORT and SANDBOX_CONTROL_PORT are both ${port}: set two ports, or 0 for a free one`)
    }
    return Object.freeze({ seed, port, controlPort })
  }

  const auth = readAuth()

  function readAuth(): Auth {
    const kind = readOptional('AUTH', ['none', 'jwt'])
    const issuer = read('JWT_ISSUER')
    const audience = read('JWT_AUDIENCE')
    const url = read('JWKS_URL')
    const pem = readSecret('JWT_PUBLIC_KEY')?.reveal()
    if (kind === null && read('AUTH') === undefined && !isSandbox) {
      problems.push('AUTH is missing: set AUTH=jwt, or AUTH=none, which needs a loopback HOST')
    }
    const scopeClaim = readClaimName('JWT_SCOPE_CLAIM')
    const accountsClaim = readClaimName('JWT_ACCOUNTS_CLAIM')
    const given = {
      JWT_ISSUER: issuer,
      JWT_AUDIENCE: audience,
      JWKS_URL: url,
      JWT_PUBLIC_KEY: pem,
      JWT_SCOPE_CLAIM: scopeClaim ?? undefined,
      JWT_ACCOUNTS_CLAIM: accountsClaim ?? undefined,
    }
    if (kind !== 'jwt') {
      for (const [name, value] of Object.entries(given)) {
        if (value !== undefined)
          problems.push(`${name} is set, but only AUTH=jwt looks at tokens: set it, or unset ${name}`)
      }
      return Object.freeze({ kind: 'none' })
    }
    if (issuer === undefined) problems.push('JWT_ISSUER is missing: AUTH=jwt takes the tokens of one issuer')
    if (audience === undefined)
      problems.push('JWT_AUDIENCE is missing: AUTH=jwt takes tokens that are meant for one audience')
    if ((url === undefined) === (pem === undefined)) {
      problems.push('JWKS_URL or JWT_PUBLIC_KEY has to be set, and not both: the keys of the issuer')
    }
    if (url !== undefined && !isBaseUrl(url)) {
      problems.push(
        'JWKS_URL must be an https:// address without credentials, query or fragment (http:// for loopback only)',
      )
    }
    if (pem !== undefined && !isPublicKey(pem))
      problems.push('JWT_PUBLIC_KEY must be a public key in PEM: Ed25519, P-256, P-384, or RSA of 2048 bits or more')
    const keys = pem === undefined ? { url: url ?? '' } : { pem }
    return Object.freeze({
      kind,
      issuer: issuer ?? '',
      audience: audience ?? '',
      scopeClaim,
      accountsClaim: accountsClaim ?? 'accounts',
      keys: Object.freeze(keys),
    })
  }

  function readClaimName(name: string): string | null {
    const claim = read(name)
    if (claim === undefined || /^[^\s,]{1,200}$/.test(claim)) return claim ?? null
    problems.push(`${name} must be the name of one claim, or a path to it such as realm_access.roles, without blanks`)
    return null
  }

  if (auth.kind === 'none' && read('AUTH') === 'none' && !isSandbox && !isLoopback(host)) {
    problems.push('AUTH=none lets every caller trade, so it needs the sandbox or a loopback HOST such as 127.0.0.1')
  }

  const isProduction = env['NODE_ENV'] === 'production'
  const hasStoreInit = readChoice('STORE_INIT', '0', ['0', '1']) === '1'

  const config: Omit<Config, 'notices'> = {
    host,
    port: readInteger('PORT', 4000, 0, 65_535),
    publicHosts: readPublicHosts(),
    keepAliveMs: readInteger('KEEP_ALIVE_MS', 65_000, 1_000, 3_600_000),
    bluum,
    bluumApi: readChoice('BLUUM_API', 'accounts', bluumApis),
    bluumRequestsPerSecond: readInteger('BLUUM_REQUESTS_PER_SECOND', isSandbox ? 1_000 : 10, 1, 10_000),
    bluumCapabilities: readCapabilities('BLUUM_CAPABILITIES'),
    aries,
    ariesAccountField: readChoice('ARIES_ACCOUNT_FIELD', 'accountId', ariesAccountFields),
    ariesTradingId: readOptional('ARIES_TRADING_ID', ariesTradingIds),
    ariesRequestsPerSecond: readInteger('ARIES_REQUESTS_PER_SECOND', isSandbox ? 1_000 : 10, 1, 10_000),
    ariesCapabilities: readCapabilities('ARIES_CAPABILITIES'),
    proxy: readProxy(),
    breaker: readChoice('BREAKER', 'on', ['on', 'off']) === 'on',
    sandbox: readSandbox(),
    dataDir: read('DATA_DIR') ?? '.blotter',
    routerSecret: readRouterSecret(),
    auth,
    corsOrigins: readOrigins(),
    trustedDocuments: readTrustedDocuments(),
    limits: Object.freeze({
      operationsPerSecond: readLimit('LIMIT_OPERATIONS_PER_SECOND', 20),
      placementsPerSecond: readLimit('LIMIT_PLACEMENTS_PER_SECOND', 5),
    }),
    graphiql: readChoice('GRAPHIQL', isSandbox ? 'on' : 'off', ['on', 'off']) === 'on',
    introspection: readChoice('INTROSPECTION', isSandbox ? 'on' : 'off', ['on', 'off']) === 'on',
    mayCreateStore: !isProduction || hasStoreInit,
    isProduction,
    trading: readChoice('TRADING', 'on', tradings),
    placing: readPlacing(),
    drainMs: readInteger('DRAIN_MS', 0, 0, 600_000),
    shutdownMs: readInteger('SHUTDOWN_MS', 35_000, 0, 600_000),
    logLevel: readChoice('LOG_LEVEL', 'info', ['error', 'warn', 'info', 'debug']),
  }
  // Runs last, because all names have been read by then.
  const misspelt = findMisspelt(env, known).map(
    ({ name, nearest }) => `${name} is set, but there is no such setting; the nearest name is ${nearest}.`,
  )
  // Lists misspelt names as well, because one of them may be the missing setting.
  if (problems.length > 0) throw new ConfigError([...problems, ...misspelt])
  return Object.freeze({ ...config, notices: Object.freeze(misspelt) })
}

/** Whether `config` names no broker, so that the embedded sandbox is all of them. */
export function isSandboxOnly({ bluum, aries }: Config): boolean {
  return bluum === null && aries === null
}

/** The brokers that `config` connects, the one to show first. */
export function listConnected(config: Config): BrokerId[] {
  return brokerIds.filter((id) => isSandboxOnly(config) || findUrl(id, config) !== null)
}

/** Where a broker is; null where it is not connected, or in the embedded sandbox. */
export function findUrl(id: BrokerId, { bluum, aries }: Config): URL | null {
  const url = (id === 'BLUUM' ? bluum : aries)?.url
  return url === undefined ? null : new URL(url)
}

function toSecret(text: string): Secret {
  const printed = '[secret]'
  const secret = { reveal: () => text, toString: () => printed, toJSON: () => printed }
  Object.defineProperty(secret, Symbol.for('nodejs.util.inspect.custom'), { value: () => printed })
  return Object.freeze(secret)
}

// One that no token can be verified with would show at the first token only.
function isPublicKey(pem: string): boolean {
  try {
    const { asymmetricKeyType: type, asymmetricKeyDetails: { namedCurve, modulusLength = 0 } = {} } =
      createPublicKey(pem)
    const isOfCurve = type === 'ed25519' || namedCurve === 'prime256v1' || namedCurve === 'secp384r1'
    return !/PRIVATE/.test(pem) && (isOfCurve || (type === 'rsa' && modulusLength >= 2_048))
  } catch {
    return false
  }
}

function toProxyUrl(address: string): URL | null {
  if (!URL.canParse(address)) return null
  const url = new URL(address)
  const isPlain = url.pathname === '/' && url.search === '' && url.hash === ''
  try {
    decodeURIComponent(url.username + url.password)
  } catch {
    return null
  }
  return isPlain && (url.protocol === 'http:' || url.protocol === 'https:') ? url : null
}

function isBaseUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const url = new URL(text)
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') return false
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))
}

/** Whether `host` names this machine alone. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host)
}
