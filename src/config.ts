// Every setting, read once from the environment into one frozen object. Whoever starts the service with five mistakes
// is told of five, by name and never by value: half of them are secrets.

import { readFileSync } from 'node:fs'

/** The settings of one process. Times in milliseconds. */
export interface Config {
  readonly host: string
  /** 0 lets the system pick one. */
  readonly port: number
  /** Bluum's address and our key pair there; null runs the embedded sandbox instead. */
  readonly bluum: { readonly url: string; readonly apiKey: Secret; readonly apiSecret: Secret } | null
  /** The published rate of the key pair; 80 % of it is used. */
  readonly bluumRequestsPerSecond: number
  /** Whether calls stop for a while when the broker keeps failing. */
  readonly breaker: boolean
  readonly sandbox: { readonly seed: string; readonly port: number }
  /** Folder of what has to survive a restart. */
  readonly dataDir: string
  readonly graphiql: boolean
  readonly introspection: boolean
  /** Bound of the caller's wait for a placement or a cancel. */
  readonly placeReplyMs: number
  /** Bound of a graceful stop. */
  readonly shutdownMs: number
  readonly logLevel: LogLevel
}

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

// Settings that are described but not built yet. Ignoring one silently would be worse than not knowing it: a service
// that skips its DATABASE_URL keeps two stores, one that skips AUTH=jwt lets everybody in.
const notBuilt: Readonly<Record<string, string>> = {
  BLUUM_CAPABILITIES: 'certified capabilities',
  BLUUM_WEBHOOK_SECRET: 'webhooks',
  BLUUM_WEBHOOK_HEADER: 'webhooks',
  ARIES_URL: 'the Aries adapter',
  ARIES_CLIENT_ID: 'the Aries adapter',
  ARIES_CLIENT_SECRET: 'the Aries adapter',
  ARIES_REFRESH_TOKEN: 'the Aries adapter',
  ARIES_ACCESS_TOKEN: 'the Aries adapter',
  ARIES_ACCOUNT_FIELD: 'the Aries adapter',
  ARIES_CAPABILITIES: 'the Aries adapter',
  DATABASE_URL: 'the shared store',
  STORE_INIT: 'the durable store',
  JWT_ISSUER: 'sign-in by token',
  JWT_AUDIENCE: 'sign-in by token',
  JWKS_URL: 'sign-in by token',
  JWT_PUBLIC_KEY: 'sign-in by token',
  ROUTER_SECRET: 'the router secret',
  CORS_ORIGINS: 'CORS',
  TRUSTED_DOCUMENTS: 'trusted documents',
  TRUSTED_DOCUMENTS_MODE: 'trusted documents',
  TRADING: 'the trading switch',
  PLACE_SETTLE_MS: 'the durable record of placements',
  PLACE_LOOKUP_MS: 'the durable record of placements',
  PLACE_LATE_MS: 'the durable record of placements',
  PLACE_SEND_BY_MS: 'the durable record of placements',
  PLACE_ASSUME_ABSENT: 'the durable record of placements',
  LIMIT_OPERATIONS_PER_SECOND: 'limits per caller',
  LIMIT_PLACEMENTS_PER_SECOND: 'limits per caller',
  METRICS_PORT: 'metrics',
}

/**
 * Reads the settings from `env`; an empty value counts as unset. A secret may be in a file instead: `NAME_FILE`.
 * Throws ConfigError with every problem at once.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const problems: string[] = []

  function read(name: string): string | undefined {
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

  function readChoice<Choice extends string>(name: string, fallback: Choice, choices: readonly Choice[]): Choice {
    const value = read(name)
    if (value === undefined) return fallback
    const choice = choices.find((known) => known === value)
    if (choice !== undefined) return choice
    problems.push(`${name} must be ${choices.join(' or ')}`)
    return fallback
  }

  for (const [name, feature] of Object.entries(notBuilt)) {
    for (const set of [name, `${name}_FILE`].filter((candidate) => read(candidate) !== undefined)) {
      problems.push(`${set} is set, but ${feature} is not built yet: unset it`)
    }
  }
  const telemetry = Object.keys(env).filter((name) => name.startsWith('OTEL_') && read(name) !== undefined)
  for (const name of telemetry) problems.push(`${name} is set, but tracing is not built yet: unset it`)
  if (read('BLUUM_API') !== undefined && read('BLUUM_API') !== 'accounts') {
    problems.push('BLUUM_API must be accounts: the investors dialect is not built yet')
  }

  const host = read('HOST') ?? '127.0.0.1'
  const bluum = readBluum()

  function readBluum(): Config['bluum'] {
    const url = read('BLUUM_URL')
    const apiKey = readSecret('BLUUM_API_KEY')
    const apiSecret = readSecret('BLUUM_API_SECRET')
    if (url === undefined) {
      if (apiKey || apiSecret) {
        problems.push('BLUUM_URL is missing, although a Bluum key is set: set it, or unset the key for the sandbox')
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

  const isSandbox = read('BLUUM_URL') === undefined
  if (!isSandbox) {
    for (const name of ['SANDBOX_SEED', 'SANDBOX_PORT']) {
      if (read(name) !== undefined) problems.push(`${name} has no meaning with BLUUM_URL: unset one of them`)
    }
  }

  const auth = read('AUTH')
  if (auth === undefined && !isSandbox) problems.push('AUTH is missing: set AUTH=none, which needs a loopback HOST')
  if (auth !== undefined && auth !== 'none') {
    problems.push('AUTH must be none: sign-in by token is not built yet')
  }
  if (auth === 'none' && !isSandbox && !isLoopback(host)) {
    problems.push('AUTH=none lets every caller trade, so it needs the sandbox or a loopback HOST such as 127.0.0.1')
  }

  const config: Config = {
    host,
    port: readInteger('PORT', 4000, 0, 65_535),
    bluum,
    bluumRequestsPerSecond: readInteger('BLUUM_REQUESTS_PER_SECOND', isSandbox ? 1_000 : 10, 1, 10_000),
    breaker: readChoice('BREAKER', 'on', ['on', 'off']) === 'on',
    sandbox: Object.freeze({
      seed: read('SANDBOX_SEED') ?? 'blotter',
      port: readInteger('SANDBOX_PORT', 0, 0, 65_535),
    }),
    dataDir: read('DATA_DIR') ?? '.blotter',
    graphiql: readChoice('GRAPHIQL', isSandbox ? 'on' : 'off', ['on', 'off']) === 'on',
    introspection: readChoice('INTROSPECTION', isSandbox ? 'on' : 'off', ['on', 'off']) === 'on',
    placeReplyMs: readInteger('PLACE_REPLY_MS', 10_000, 100, 30_000),
    shutdownMs: readInteger('SHUTDOWN_MS', 35_000, 0, 600_000),
    logLevel: readChoice('LOG_LEVEL', 'info', ['error', 'warn', 'info', 'debug']),
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return Object.freeze(config)
}

function toSecret(text: string): Secret {
  const printed = '[secret]'
  const secret = { reveal: () => text, toString: () => printed, toJSON: () => printed }
  Object.defineProperty(secret, Symbol.for('nodejs.util.inspect.custom'), { value: () => printed })
  return Object.freeze(secret)
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
