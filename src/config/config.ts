// Reads all settings once, from the environment, into one frozen object. Reports all problems at once, by name and never by
// value, because half of the settings are secrets.

import { readFileSync } from 'node:fs'
import type { BrokerConfig } from '../brokers/entry.ts'
import { registry } from '../brokers/registry.ts'
import type { BrokerId } from '../domain/order.ts'
import { isLoopback, isSet, listNames, readTable, toSecret } from '../domain/setting.ts'
import type { Env, Secret, Values } from '../domain/setting.ts'
import { findProxy } from '../upstream/proxy.ts'
import type { ProxySettings } from '../upstream/proxy.ts'
import { ManifestError, parseManifest } from './manifest.ts'
import { findMisspelt } from './misspelt.ts'
import {
  authSettings,
  limitSettings,
  listenerSettings,
  listTopics,
  notBuilt,
  sandboxSettings,
  storeSettings,
  tradingSettings,
  upstreamSettings,
} from './settings.ts'

/** The settings of one process. Times in ms. */
export interface Config {
  readonly host: string
  /** 0 lets the system pick a port. */
  readonly port: number
  /** Host names that requests may name in addition to this machine's; checked only if `host` is a loopback address. */
  readonly publicHosts: readonly string[]
  /** Time that an idle connection is kept. */
  readonly keepAliveMs: number
  /** Each broker of the registry, configured or not. */
  readonly brokers: ReadonlyMap<BrokerId, BrokerConfig>
  /** The proxy for brokers and for the keys of tokens; null without one. */
  readonly proxy: ProxySettings | null
  /** Whether calls stop for a while if the broker keeps failing. */
  readonly breaker: boolean
  /** Ports on loopback; 0 picks a free one. */
  readonly sandbox: { readonly seed: string; readonly port: number; readonly controlPort: number }
  /** Folder of what must survive a restart. */
  readonly dataDir: string
  /** The secret that a federation router has to send; null lets every router ask. */
  readonly routerSecret: Secret | null
  readonly auth: Auth
  /** The origins whose pages may send requests from a browser. */
  readonly corsOrigins: readonly string[]
  /** Null without a manifest. */
  readonly trustedDocuments: TrustedDocuments | null
  readonly limits: Limits
  readonly graphiql: boolean
  readonly introspection: boolean
  /** Whether an empty store may be created if DATA_DIR has no store. */
  readonly mayCreateStore: boolean
  /** Whether NODE_ENV is `production`. */
  readonly isProduction: boolean
  /** Whether placements are sent, and whether cancels are. */
  readonly trading: Values<typeof tradingSettings>['TRADING']
  readonly placing: Placing
  /** Time that a stopping service continues to serve while `/ready` answers 503. */
  readonly drainMs: number
  /** Maximum time of a graceful stop after the drain. */
  readonly shutdownMs: number
  readonly logLevel: LogLevel
  /** Warnings for the operator about settings that can be used; one sentence each, without values. */
  readonly notices: readonly string[]
}

/** Whether callers need a token, and which tokens are accepted. */
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
  /** By the ids that requests send instead. */
  readonly texts: ReadonlyMap<string, string>
  /** `allow` also runs other documents. */
  readonly mode: 'allow' | 'enforce'
}

/** Rates of a caller and of an account; null without a limit. */
interface Limits {
  readonly operationsPerSecond: number | null
  readonly placementsPerSecond: number | null
}

/** The times of a placement; see PlaceTimes for the meaning of each. */
interface Placing {
  readonly replyMs: number
  readonly settleMs: number
  readonly lookupMs: readonly number[]
  readonly lateMs: readonly number[]
  readonly sendByMs: { readonly market: number; readonly other: number }
  readonly assumeAbsent: boolean
}

export type LogLevel = Values<typeof listenerSettings>['LOG_LEVEL']

/** Settings that cannot be used. `problems` are sentences that begin with the setting and say what to write instead. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(`The settings cannot be used:\n${problems.map((problem) => `  ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/** The service cannot start with the files or ports that it finds. The message names the setting and needs no stack. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** Reads the settings from `env`; an empty value counts as not set. Throws ConfigError with all problems. */
export function readConfig(env: Env): Config {
  const problems = listNotBuilt(env)
  const isSandbox = !registry.some(({ id }) => isSet(env, `${id}_URL`))
  const brokers = new Map(registry.map((entry) => [entry.id, entry.configure(env, problems, isSandbox)]))
  const listening = readTable(listenerSettings, env, problems)
  const store = readTable(storeSettings, env, problems)
  const limits = readTable(limitSettings, env, problems)
  const upstream = readTable(upstreamSettings, env, problems)
  const callers = readTable(authSettings, env, problems)
  const auth = readAuth(callers, env, problems)
  checkExposure(auth, listening.HOST, { env, isSandbox, problems })
  if (listening.PUBLIC_HOSTS.length > 0 && !isLoopback(listening.HOST)) {
    problems.push(
      'PUBLIC_HOSTS has no effect unless HOST is a loopback address, because other addresses serve every name: unset it',
    )
  }
  const isProduction = env['NODE_ENV'] === 'production'
  // Without tokens a limit would be one for all callers together.
  const usualLimit = (limit: number): number | null => (auth.kind === 'none' ? null : limit)
  const addresses = [...brokers.values()].flatMap(({ url }) => url ?? [])
  const targets = [...addresses, ...(auth.kind === 'jwt' && 'url' in auth.keys ? [auth.keys.url] : [])]

  const config: Omit<Config, 'notices'> = {
    host: listening.HOST,
    port: listening.PORT,
    publicHosts: listening.PUBLIC_HOSTS,
    keepAliveMs: listening.KEEP_ALIVE_MS,
    brokers,
    proxy: readProxy(upstream, targets, problems),
    breaker: upstream.BREAKER,
    sandbox: readSandbox(env, isSandbox, problems),
    dataDir: store.DATA_DIR,
    routerSecret: callers.ROUTER_SECRET ?? null,
    auth,
    corsOrigins: listening.CORS_ORIGINS,
    trustedDocuments: readTrustedDocuments(limits, env, problems),
    limits: Object.freeze({
      operationsPerSecond: limits.LIMIT_OPERATIONS_PER_SECOND ?? usualLimit(20),
      placementsPerSecond: limits.LIMIT_PLACEMENTS_PER_SECOND ?? usualLimit(5),
    }),
    graphiql: listening.GRAPHIQL ?? isSandbox,
    introspection: listening.INTROSPECTION ?? isSandbox,
    mayCreateStore: !isProduction || store.STORE_INIT === '1',
    isProduction,
    ...readTrading(env, problems),
    drainMs: listening.DRAIN_MS,
    shutdownMs: listening.SHUTDOWN_MS,
    logLevel: listening.LOG_LEVEL,
  }
  const misspelt = findMisspelt(env, listKnownNames()).map(
    ({ name, nearest }) => `${name} is set, but there is no such setting; the nearest name is ${nearest}.`,
  )
  // Lists misspelt names as well, because one of them may be the missing setting.
  if (problems.length > 0) throw new ConfigError([...problems, ...misspelt])
  return Object.freeze({ ...config, notices: Object.freeze(misspelt) })
}

/** Whether no broker is configured, so that the embedded sandbox takes the place of all brokers. */
export function isSandboxOnly({ brokers }: Config): boolean {
  return [...brokers.values()].every(({ url }) => url === null)
}

/** Returns the brokers that `config` connects, the one to show first. */
export function listConnected(config: Config): BrokerId[] {
  const isSandbox = isSandboxOnly(config)
  return [...config.brokers].flatMap(([id, { url, isInSandbox }]) => ((isSandbox ? isInSandbox : url) ? id : []))
}

/** Returns the address of a broker; null if it is not configured. */
export function findUrl(id: BrokerId, { brokers }: Config): URL | null {
  const url = brokers.get(id)?.url ?? null
  return url === null ? null : new URL(url)
}

// ---- topics -------------------------------------------------------------------------------------------------------------

function listNotBuilt(env: Env): string[] {
  const features = Object.entries(notBuilt).flatMap(([name, feature]) =>
    [name, `${name}_FILE`]
      .filter((candidate) => isSet(env, candidate))
      .map((set) => `${set} is set, but ${feature} is not built yet: unset it`),
  )
  const telemetry = Object.keys(env).filter((name) => name.startsWith('OTEL_') && isSet(env, name))
  return [...features, ...telemetry.map((name) => `${name} is set, but tracing is not built yet: unset it`)]
}

function listKnownNames(): Set<string> {
  const tables = listTopics().flatMap(({ table }) => listNames(table))
  return new Set(['NODE_ENV', ...tables, ...Object.keys(notBuilt).flatMap((name) => [name, `${name}_FILE`])])
}

function readAuth(values: Values<typeof authSettings>, env: Env, problems: string[]): Auth {
  if (values.AUTH !== 'jwt') {
    const names = Object.keys(authSettings).filter((name) => name.startsWith('JW'))
    for (const name of names.filter((each) => isSet(env, each) || isSet(env, `${each}_FILE`))) {
      problems.push(`${name} is set, but only AUTH=jwt looks at tokens: set it, or unset ${name}`)
    }
    return Object.freeze({ kind: 'none' })
  }
  const { JWT_ISSUER: issuer, JWT_AUDIENCE: audience, JWKS_URL: url, JWT_PUBLIC_KEY: pem } = values
  if (issuer === undefined) problems.push('JWT_ISSUER is missing: AUTH=jwt takes the tokens of one issuer')
  if (audience === undefined)
    problems.push('JWT_AUDIENCE is missing: AUTH=jwt takes tokens that are meant for one audience')
  const hasKey = isSet(env, 'JWT_PUBLIC_KEY') || isSet(env, 'JWT_PUBLIC_KEY_FILE')
  if (isSet(env, 'JWKS_URL') === hasKey) {
    problems.push('JWKS_URL or JWT_PUBLIC_KEY has to be set, and not both: the keys of the issuer')
  }
  const keys = pem === undefined ? { url: url ?? '' } : { pem: pem.reveal() }
  return Object.freeze({
    kind: 'jwt',
    issuer: issuer ?? '',
    audience: audience ?? '',
    scopeClaim: values.JWT_SCOPE_CLAIM ?? null,
    accountsClaim: values.JWT_ACCOUNTS_CLAIM ?? 'accounts',
    keys: Object.freeze(keys),
  })
}

/** With a real broker, callers need tokens, or the service listens on this machine only. Otherwise strangers could trade. */
function checkExposure(
  auth: Auth,
  host: string,
  { env, isSandbox, problems }: { env: Env; isSandbox: boolean; problems: string[] },
): void {
  if (isSandbox || auth.kind === 'jwt') return
  if (!isSet(env, 'AUTH')) problems.push('AUTH is missing: set AUTH=jwt, or AUTH=none, which needs a loopback HOST')
  else if (env['AUTH']?.trim() === 'none' && !isLoopback(host)) {
    problems.push('AUTH=none lets every caller trade, so it needs the sandbox or a loopback HOST such as 127.0.0.1')
  }
}

// HTTP_PROXY is ignored, because only https:// calls leave this machine.
function readProxy(
  { HTTPS_PROXY: secret, NO_PROXY: list }: Values<typeof upstreamSettings>,
  targets: readonly string[],
  problems: string[],
): ProxySettings | null {
  if (secret === undefined) return null
  const address = secret.reveal().includes('://') ? secret.reveal() : `http://${secret.reveal()}`
  const proxy = toProxyUrl(address)
  const bypass = list.split(/[\s,]+/).filter((entry) => entry !== '')
  const settings = { url: toSecret(address), host: proxy?.host ?? '', bypass: Object.freeze(bypass) }
  if (proxy !== null) return Object.freeze(settings)
  // Checks the form only if a target would use the proxy, because the variable may be set for other programs.
  if (targets.some((url) => URL.canParse(url) && findProxy(new URL(url), settings) !== null)) {
    problems.push(
      'HTTPS_PROXY must be the address of an HTTP proxy, such as http://proxy.example.com:3128, or ' +
        'http://user:password@… with a user name and a password in percent-encoding',
    )
  }
  return null
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

function readSandbox(env: Env, isSandbox: boolean, problems: string[]): Config['sandbox'] {
  const values = readTable(sandboxSettings, env, problems)
  const { SANDBOX_SEED: seed, SANDBOX_PORT: port, SANDBOX_CONTROL_PORT: controlPort } = values
  for (const name of Object.keys(sandboxSettings)) {
    if (!isSandbox && isSet(env, name)) problems.push(`${name} has no meaning with a real broker: unset it`)
  }
  if (port !== 0 && port === controlPort) {
    problems.push(`SANDBOX_PORT and SANDBOX_CONTROL_PORT are both ${port}: set two ports, or 0 for a free one`)
  }
  return Object.freeze({ seed, port, controlPort })
}

function readTrustedDocuments(
  { TRUSTED_DOCUMENTS: file, TRUSTED_DOCUMENTS_MODE: mode }: Values<typeof limitSettings>,
  env: Env,
  problems: string[],
): TrustedDocuments | null {
  if (file === undefined) {
    if (isSet(env, 'TRUSTED_DOCUMENTS_MODE')) {
      problems.push('TRUSTED_DOCUMENTS_MODE has no meaning without TRUSTED_DOCUMENTS: unset it')
    }
    return null
  }
  let text = ''
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    // The empty text is refused as a manifest, in a message without the path.
  }
  try {
    return Object.freeze({ texts: parseManifest(text), mode: mode ?? 'enforce' })
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error
    problems.push(`TRUSTED_DOCUMENTS ${error.message}`)
    return null
  }
}

function readTrading(env: Env, problems: string[]): Pick<Config, 'trading' | 'placing'> {
  const values = readTable(tradingSettings, env, problems)
  const [market, other] = values.PLACE_SEND_BY_MS
  const placing = Object.freeze({
    replyMs: values.PLACE_REPLY_MS,
    settleMs: values.PLACE_SETTLE_MS,
    lookupMs: values.PLACE_LOOKUP_MS,
    lateMs: values.PLACE_LATE_MS,
    sendByMs: Object.freeze({ market, other }),
    assumeAbsent: values.PLACE_ASSUME_ABSENT === 'settle',
  })
  return { trading: values.TRADING, placing }
}
