// The settings of the service, by topic. The settings of a broker are in its folder. `.env.example` and
// docs/reference/settings.md are written from these tables: `npm run generate`.

import { createPublicKey } from 'node:crypto'
import * as z from 'zod'
import { registry } from '../brokers/registry.ts'
import { baseUrl, choice, integer, isBaseUrl, onOff, secret, text } from '../domain/setting.ts'
import type { SettingsTable } from '../domain/setting.ts'

const since = '0.1.0'
const dayMs = 86_400_000

export const listenerSettings = {
  PORT: {
    schema: integer(0, 65_535),
    default: '4000',
    description: 'Port of GraphQL. 0 picks a free one and prints it.',
    since,
  },
  HOST: { schema: text, default: '127.0.0.1', description: 'Address that the service listens on.', since },
  PUBLIC_HOSTS: {
    schema: list(
      isHostName,
      'must be host names such as orders.example.com, without a scheme, a port or a path, separated by commas',
      (host) => host.toLowerCase(),
    ),
    default: '',
    description:
      'Host names, separated by commas, that requests may use if HOST is a loopback address; for a proxy on this machine that ' +
      'keeps the header Host. Without them a loopback HOST answers only requests that name this machine.',
    since,
  },
  KEEP_ALIVE_MS: {
    schema: integer(1_000, 3_600_000),
    default: '65000',
    description:
      'Time that an idle connection is kept, in ms. It must be longer than the proxy or load balancer in front keeps its own ' +
      '(often 60 to 600 s), which may otherwise send a request on a connection that was just closed.',
    since,
  },
  CORS_ORIGINS: {
    // In the form that a browser sends: lower case, no path, no default port.
    schema: list(
      (origin) => isBaseUrl(origin) && new URL(origin).origin === origin,
      'must be origins such as https://app.example.com, in lower case, without a path or a slash at the end, separated by ' +
        'commas (http:// for loopback only)',
    ),
    default: '',
    description:
      'Origins whose pages may send requests from a browser, such as https://app.example.com, separated by commas. Tokens are ' +
      'accepted, cookies are not.',
    since,
  },
  GRAPHIQL: {
    schema: onOff,
    defaultNote: 'on with the sandbox, else off',
    description: '`on` or `off`: serves GraphiQL to browsers.',
    since,
  },
  INTROSPECTION: {
    schema: onOff,
    defaultNote: 'on with the sandbox, else off',
    description: '`on` or `off`: answers introspection queries.',
    since,
  },
  DRAIN_MS: {
    schema: integer(0, 600_000),
    default: '0',
    description:
      'Time that a service continues to serve after SIGTERM or SIGINT, in ms, while /ready answers 503. In Kubernetes at least ' +
      'the period of the readiness probe times its failureThreshold.',
    since,
  },
  SHUTDOWN_MS: {
    schema: integer(0, 600_000),
    default: '35000',
    description:
      'Maximum time to finish the writes under way after DRAIN_MS, in ms. In Kubernetes terminationGracePeriodSeconds must be ' +
      'longer than DRAIN_MS and SHUTDOWN_MS together.',
    since,
  },
  LOG_LEVEL: {
    schema: choice('error', 'warn', 'info', 'debug'),
    default: 'info',
    description: '`error`, `warn`, `info` or `debug`. The log is JSON lines on stdout.',
    since,
  },
} as const satisfies SettingsTable

export const authSettings = {
  AUTH: {
    schema: choice('none', 'jwt'),
    defaultNote: 'none with the sandbox; required with a real broker',
    description:
      '`jwt` accepts tokens of one issuer for one audience (EdDSA, Ed25519, ES256, ES384, RS256, RS384, RS512 or PS256). ' +
      '`none` lets every caller trade and, with a real broker, needs a loopback HOST.',
    since,
  },
  JWT_ISSUER: { schema: text, description: 'Issuer of the tokens (`iss`).', since },
  JWT_AUDIENCE: { schema: text, description: 'Audience of the tokens (`aud`).', since },
  JWKS_URL: {
    schema: baseUrl('must be an https:// address without credentials, query or fragment (http:// for loopback only)'),
    description: 'Address of the keys of the issuer, a JSON Web Key Set.',
    since,
  },
  JWT_PUBLIC_KEY: {
    schema: secret.refine(
      (pem) => isPublicKey(pem.reveal()),
      'must be a public key in PEM: Ed25519, P-256, P-384, or RSA of 2048 bits or more',
    ),
    isSecret: true,
    description: 'One public key in PEM, instead of JWKS_URL.',
    since,
  },
  JWT_SCOPE_CLAIM: {
    schema: claimName(),
    defaultNote: 'scope and scp',
    description:
      'Claim that lists orders:read, orders:place and orders:cancel, as text with blanks between the words or as an array. A ' +
      'name, or a path such as realm_access.roles.',
    since,
  },
  JWT_ACCOUNTS_CLAIM: {
    schema: claimName(),
    defaultNote: 'accounts',
    description: 'Claim that lists the account ids of the caller, or "*" for all accounts. A name or a path.',
    since,
  },
  ROUTER_SECRET: {
    // It travels as a header, which loses blanks at its ends and other characters.
    schema: secret.refine(
      (value) => /^[\x21-\x7e]{16,}$/.test(value.reveal()),
      'must be at least 16 characters, letters, digits and signs of ASCII without blanks',
    ),
    isSecret: true,
    description:
      'With it, `_service` and `_entities` answer only a router that sends it in the header x-router-secret. At least 16 ' +
      'characters.',
    since,
  },
} as const satisfies SettingsTable

export const limitSettings = {
  LIMIT_OPERATIONS_PER_SECOND: {
    schema: integer(1, 10_000),
    defaultNote: '20; no limit with AUTH=none',
    description:
      'Requests per second of a caller; twice as many at once. With AUTH=none one limit for all callers together.',
    since,
  },
  LIMIT_PLACEMENTS_PER_SECOND: {
    schema: integer(1, 10_000),
    defaultNote: '5; no limit with AUTH=none',
    description: 'Orders placed per second for an account. Repeats of a key do not count.',
    since,
  },
  TRUSTED_DOCUMENTS: {
    schema: text,
    description:
      'File with the manifest of the documents that frontends were built with: {"<id>": "<document>", …} from ' +
      "graphql-codegen's client preset or Relay's compiler, or Apollo's apollo-persisted-query-manifest.",
    since,
  },
  TRUSTED_DOCUMENTS_MODE: {
    schema: choice('allow', 'enforce'),
    defaultNote: 'enforce',
    description:
      '`enforce` refuses other documents, except from a router that sends ROUTER_SECRET. `allow` runs other documents too.',
    since,
  },
} as const satisfies SettingsTable

export const tradingSettings = {
  TRADING: {
    schema: choice('on', 'halted', 'read-only'),
    default: 'on',
    description: '`on`; `halted`: no placement is sent, cancels are; `read-only`: neither.',
    since,
  },
  PLACE_REPLY_MS: {
    schema: integer(100, 30_000),
    default: '10000',
    description: 'Time that a caller waits for the outcome of a placement or cancel, in ms. The write itself goes on.',
    since,
  },
  PLACE_SEND_BY_MS: {
    schema: pair(600_000),
    default: '10000,30000',
    description:
      'Maximum time between the request and the send of an order, in ms: market orders, all others. Later it is not sent.',
    since,
  },
  PLACE_LOOKUP_MS: {
    schema: schedule(dayMs),
    default: '1000,3000,8000,20000,45000,90000,150000',
    description: 'Times of the lookups for an order whose answer was lost, in ms after the send.',
    since,
  },
  PLACE_SETTLE_MS: {
    schema: integer(100, dayMs),
    default: '120000',
    description: 'Time after the send from which an order that lookups do not find counts as not placed, in ms.',
    since,
  },
  PLACE_LATE_MS: {
    schema: schedule(30 * dayMs),
    default: '300000,900000,3600000,86400000',
    description: 'Times of further lookups after that, in ms after the send.',
    since,
  },
  PLACE_ASSUME_ABSENT: {
    schema: choice('settle', 'never'),
    default: 'settle',
    description: '`settle`; with `never` only an operator concludes that an order was not placed.',
    since,
  },
} as const satisfies SettingsTable

export const storeSettings = {
  DATA_DIR: {
    schema: text,
    default: '.blotter',
    description: "Folder of what must survive a restart: the placements, and the sandbox's state.",
    since,
  },
  STORE_INIT: {
    schema: choice('0', '1'),
    default: '0',
    description:
      'With NODE_ENV=production an empty store of placements is created only with STORE_INIT=1, because a store that went ' +
      'missing must not be replaced: its keys would be sent again.',
    since,
  },
} as const satisfies SettingsTable

export const upstreamSettings = {
  BREAKER: {
    schema: onOff,
    default: 'on',
    description: '`on` or `off`: whether calls to a broker that keeps failing stop for a while.',
    since,
  },
  HTTPS_PROXY: {
    schema: secret,
    isSecret: true,
    alias: 'https_proxy',
    description:
      'HTTP proxy for brokers, their token address and JWKS_URL, which are reached by CONNECT: http://proxy.example.com:3128, ' +
      'or http://user:password@… with a user name and a password. The name in lower case wins.',
    since,
  },
  NO_PROXY: {
    schema: text,
    default: '',
    alias: 'no_proxy',
    description:
      'Hosts that are reached directly: names with their subdomains, addresses, networks such as 10.0.0.0/8, or * for all, ' +
      'separated by commas. This machine is always reached directly.',
    since,
  },
} as const satisfies SettingsTable

export const sandboxSettings = {
  SANDBOX_SEED: {
    schema: text,
    default: 'blotter',
    description: 'Seed of the sandbox: the same seed gives the same accounts, orders and prices.',
    since,
  },
  SANDBOX_PORT: {
    schema: integer(0, 65_535),
    default: '0',
    description: "Loopback port of the sandbox's broker API. 0 picks a free one.",
    since,
  },
  SANDBOX_CONTROL_PORT: {
    schema: integer(0, 65_535),
    default: '0',
    description: 'Loopback port where scripts set faults and read the book of orders. 0 picks a free one.',
    since,
  },
} as const satisfies SettingsTable

/**
 * Settings of features that are not built yet, with the feature. The service does not start with one of them, because a
 * service that ignores its DATABASE_URL would keep a second store.
 */
export const notBuilt: Readonly<Record<string, string>> = {
  BLUUM_WEBHOOK_SECRET: 'webhooks',
  BLUUM_WEBHOOK_HEADER: 'webhooks',
  DATABASE_URL: 'the shared store',
  METRICS_PORT: 'metrics',
}

/** A topic of settings in `.env.example` and in docs/reference/settings.md. */
interface Topic {
  title: string
  table: SettingsTable
}

/** Returns all topics, in the order of the documents. */
export function listTopics(): Topic[] {
  return [
    { title: 'Listening', table: listenerSettings },
    ...registry.map(({ name, settings }) => ({ title: `Broker: ${name}`, table: settings })),
    { title: 'Calls to brokers', table: upstreamSettings },
    { title: 'Callers', table: authSettings },
    { title: 'Limits', table: limitSettings },
    { title: 'Placing and canceling', table: tradingSettings },
    { title: 'Store', table: storeSettings },
    { title: 'Sandbox', table: sandboxSettings },
  ]
}

// ---- forms that only one topic uses -------------------------------------------------------------------------------------

function list(isAllowed: (item: string) => boolean, message: string, normalize = (item: string): string => item) {
  return z.string().transform((value, context): readonly string[] => {
    const items = value.split(',').flatMap((item) => normalize(item.trim()) || [])
    if (items.every(isAllowed)) return Object.freeze(items)
    context.addIssue(message)
    return z.NEVER
  })
}

function isHostName(host: string): boolean {
  return URL.canParse(`http://${host}`) && new URL(`http://${host}`).hostname === host && !host.endsWith('.')
}

function claimName() {
  return z
    .string()
    .regex(
      /^[^\s,]{1,200}$/,
      'must be the name of one claim, or a path to it such as realm_access.roles, without blanks',
    )
}

// Ascending, because a schedule that goes back is a mistake.
function schedule(max: number) {
  return z.string().transform((value, context): readonly number[] => {
    const times = value.split(',').map((item) => (/^\d{1,10}$/.test(item.trim()) ? Number(item) : Number.NaN))
    const isAscending = times.every((time, index) => time > (times[index - 1] ?? 0))
    if (times.length <= 20 && isAscending && times.every((time) => time <= max)) return Object.freeze(times)
    context.addIssue(`must be at most 20 ascending whole numbers from 1 to ${max}, separated by commas`)
    return z.NEVER
  })
}

function pair(max: number) {
  return z.string().transform((value, context): readonly [number, number] => {
    const [, first, second] = /^(\d{1,9})\s*,\s*(\d{1,9})$/.exec(value) ?? []
    const numbers: [number, number] = [Number(first ?? 0), Number(second ?? 0)]
    if (numbers.every((number) => number >= 1 && number <= max)) return Object.freeze(numbers)
    context.addIssue(`must be two whole numbers from 1 to ${max}, separated by a comma: market orders, all others`)
    return z.NEVER
  })
}

// Checked at the start, because otherwise a key that verifies no token would show with the first token.
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
