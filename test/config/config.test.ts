// Settings: read once, every problem told at once, by name and never by value.

import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Config } from '../../src/config/config.ts'
import { ConfigError, readConfig, findUrl, isSandboxOnly, listConnected } from '../../src/config/config.ts'
import type { Secret } from '../../src/domain/setting.ts'
import { listTopics, notBuilt } from '../../src/config/settings.ts'
import { checkConfig } from '../../src/cli/checkConfig.ts'

const real = {
  BLUUM_URL: 'https://api.example.com/v1',
  BLUUM_API_KEY: 'the-key',
  BLUUM_API_SECRET: 'the-secret',
  AUTH: 'none',
}

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    readConfig(env)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

const valuesOf = (id: string, env: Record<string, string>) => readConfig(env).brokers.get(id)?.values

const reveal = (id: string, env: Record<string, string>, name: string) =>
  (valuesOf(id, env)?.[name] as Secret | undefined)?.reveal()

function writeTemporary(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-config-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'secret'), text)
  return join(folder, 'secret')
}

describe('without any setting', () => {
  it('runs the sandbox on loopback with GraphiQL', () => {
    const { brokers, ...config } = readConfig({})
    expect(
      [...brokers.values()].map(({ url, requestsPerSecond, values }) => ({ url, requestsPerSecond, values })),
    ).toEqual([
      { url: null, requestsPerSecond: 1_000, values: { BLUUM_API: 'accounts', BLUUM_CAPABILITIES: [] } },
      { url: null, requestsPerSecond: 1_000, values: { ARIES_ACCOUNT_FIELD: 'accountId', ARIES_CAPABILITIES: [] } },
    ])
    expect(config).toEqual({
      host: '127.0.0.1',
      port: 4000,
      publicHosts: [],
      keepAliveMs: 65_000,
      proxy: null,
      breaker: true,
      sandbox: { seed: 'blotter', port: 0, controlPort: 0 },
      dataDir: '.blotter',
      routerSecret: null,
      auth: { kind: 'none' },
      corsOrigins: [],
      trustedDocuments: null,
      limits: { operationsPerSecond: null, placementsPerSecond: null },
      graphiql: true,
      introspection: true,
      mayCreateStore: true,
      isProduction: false,
      trading: 'on',
      placing: {
        replyMs: 10_000,
        settleMs: 120_000,
        lookupMs: [1_000, 3_000, 8_000, 20_000, 45_000, 90_000, 150_000],
        lateMs: [300_000, 900_000, 3_600_000, 86_400_000],
        sendByMs: { market: 10_000, other: 30_000 },
        assumeAbsent: true,
      },
      drainMs: 0,
      shutdownMs: 35_000,
      logLevel: 'info',
      notices: [],
    })
  })

  it('is frozen, and an empty value counts as unset', () => {
    expect(Object.isFrozen(readConfig({}))).toBe(true)
    const empty = readConfig({ PORT: '', AUTH: ' ', BLUUM_URL: '', DATABASE_URL: '' })
    expect(JSON.stringify(empty)).toBe(JSON.stringify(readConfig({})))
    expect(valuesOf('BLUUM', { BLUUM_URL: '' })).toEqual(valuesOf('BLUUM', {}))
  })
})

describe('with Bluum', () => {
  it('keeps the key pair out of sight, and GraphiQL and introspection off', () => {
    const config = readConfig(real)
    const bluum = config.brokers.get('BLUUM')
    expect(reveal('BLUUM', real, 'BLUUM_API_KEY')).toBe('the-key')
    expect(bluum?.secret?.reveal()).toBe('the-secret')
    expect(config).toMatchObject({ graphiql: false, introspection: false })
    expect(bluum?.requestsPerSecond).toBe(10)
    for (const printed of [inspect(config, { depth: 9 }), JSON.stringify([...config.brokers]), String(bluum?.secret)]) {
      expect(printed).not.toMatch(/the-key|the-secret/)
      expect(printed).toContain('[secret]')
    }
  })

  it('speaks the generation of the API that is named, with the sandbox too', () => {
    expect(valuesOf('BLUUM', real)).toMatchObject({ BLUUM_API: 'accounts' })
    expect(valuesOf('BLUUM', { ...real, BLUUM_API: 'investors' })).toMatchObject({ BLUUM_API: 'investors' })
    expect(valuesOf('BLUUM', { BLUUM_API: 'investors' })).toMatchObject({ BLUUM_API: 'investors' })
  })

  it('takes a secret from a file', () => {
    const { BLUUM_API_SECRET: _, ...rest } = real
    const env = { ...rest, BLUUM_API_SECRET_FILE: writeTemporary('from-a-file\n') }
    expect(reveal('BLUUM', env, 'BLUUM_API_SECRET')).toBe('from-a-file')
  })

  it.each(['http://127.0.0.1:8080/v1', 'http://localhost:8080/v1', 'http://[::1]:8080/v1'])('takes %s', (url) => {
    expect(readConfig({ ...real, BLUUM_URL: url }).brokers.get('BLUUM')?.url).toBe(url)
  })

  it.each([
    'http://api.example.com/v1',
    'http://127.0.0.1.example.com/v1',
    'ftp://127.0.0.1/v1',
    'api.example.com',
    'https://user:password@api.example.com/v1',
    'https://api.example.com/v1?x=1',
  ])('G10 refuses %s', (url) => {
    expect(problemsOf({ ...real, BLUUM_URL: url })).toEqual([expect.stringMatching(/^BLUUM_URL must be/)])
  })
})

describe('with Aries', () => {
  const refreshed = {
    ARIES_URL: 'https://api.aries.com',
    ARIES_CLIENT_ID: 'client-1',
    ARIES_CLIENT_SECRET: 'the-client-secret',
    ARIES_REFRESH_TOKEN: 'the-refresh-token',
    AUTH: 'none',
  }
  const given = { ARIES_URL: 'https://api.aries.com', ARIES_ACCESS_TOKEN: 'the-access-token', AUTH: 'none' }

  it.each([refreshed, given])('is no sandbox, and keeps its secrets out of sight', (env) => {
    const config = readConfig(env)
    expect(config.graphiql).toBe(false)
    expect([config.brokers.get('BLUUM')?.url, config.brokers.get('ARIES')?.requestsPerSecond]).toEqual([null, 10])
    expect([isSandboxOnly(config), listConnected(config), findUrl('ARIES', config)?.host]).toEqual([
      false,
      ['ARIES'],
      'api.aries.com',
    ])
    for (const printed of [inspect(config, { depth: 9 }), JSON.stringify([...config.brokers])]) {
      expect(printed).not.toMatch(/the-client-secret|the-refresh-token|the-access-token/)
      expect(printed).toContain('[secret]')
    }
  })

  it('together with Bluum connects both', () => {
    expect(listConnected(readConfig({ ...real, ...refreshed }))).toEqual(['BLUUM', 'ARIES'])
    expect(listConnected(readConfig(real))).toEqual(['BLUUM'])
    expect(listConnected(readConfig({}))).toEqual(['BLUUM', 'ARIES'])
  })

  it('says what its pages leave open', () => {
    expect(
      valuesOf('ARIES', {
        ...refreshed,
        ARIES_ACCOUNT_FIELD: 'tradingAccountId',
        ARIES_TRADING_ID: 'apex_account_id',
        ARIES_REQUESTS_PER_SECOND: '5',
        ARIES_CAPABILITIES: 'clientIdEcho',
      }),
    ).toMatchObject({
      ARIES_ACCOUNT_FIELD: 'tradingAccountId',
      ARIES_TRADING_ID: 'apex_account_id',
      ARIES_REQUESTS_PER_SECOND: 5,
      ARIES_CAPABILITIES: ['clientIdEcho'],
    })
  })

  it('has a warning in check-config without ARIES_TRADING_ID', async () => {
    for (const env of [refreshed, given, { ...real, ...given }]) {
      expect(await checkConfig(env)).toMatch(/\nWarning: ARIES_TRADING_ID is not set/)
      expect(await checkConfig({ ...env, ARIES_TRADING_ID: 'id' })).not.toContain('ARIES_TRADING_ID')
    }
    for (const env of [real, {}]) expect(await checkConfig(env)).not.toContain('ARIES_TRADING_ID')
  })

  it.each([
    [{ ARIES_CLIENT_ID: 'client-1' }, ['ARIES_URL']],
    [{ ARIES_ACCESS_TOKEN: 'x' }, ['ARIES_URL']],
    [
      { ARIES_URL: 'https://api.aries.com', AUTH: 'none' },
      ['ARIES_CLIENT_ID', 'ARIES_CLIENT_SECRET', 'ARIES_REFRESH_TOKEN'],
    ],
    [{ ...refreshed, ARIES_REFRESH_TOKEN: '' }, ['ARIES_REFRESH_TOKEN']],
    [{ ...refreshed, ARIES_ACCESS_TOKEN: 'x' }, ['ARIES_ACCESS_TOKEN']],
    [{ ...refreshed, ARIES_URL: 'http://api.aries.com' }, ['ARIES_URL']],
    [{ ...refreshed, ARIES_URL: 'https://api.aries.com/v1' }, ['ARIES_URL']],
    [{ ...refreshed, ARIES_URL: 'https://api.aries.com/v2/' }, ['ARIES_URL']],
    [{ ...refreshed, AUTH: '' }, ['AUTH']],
    [{ ...refreshed, HOST: '0.0.0.0' }, ['AUTH=none']],
    [{ ...refreshed, SANDBOX_SEED: 'x' }, ['SANDBOX_SEED']],
    [{ ARIES_ACCOUNT_FIELD: 'account' }, ['ARIES_ACCOUNT_FIELD']],
    [{ ARIES_TRADING_ID: 'number' }, ['ARIES_TRADING_ID']],
    [{ ARIES_CAPABILITIES: 'magic' }, ['ARIES_CAPABILITIES']],
  ])('%j names %j', (env, names) => {
    const problems = problemsOf(env)
    expect(problems.map((problem) => problem.split(' ')[0])).toEqual(names)
    expect(problems.join()).not.toMatch(/the-client-secret|the-refresh-token/)
  })
})

describe('problems', () => {
  it('G10 come all at once, by name and never by value', () => {
    const problems = problemsOf({
      PORT: 'eighty-thousand',
      LOG_LEVEL: 'chatty',
      GRAPHIQL: 'maybe',
      BLUUM_URL: 'http://evil.example.com/v1',
      BLUUM_API_KEY: 'the-key',
      AUTH: 'trust-me',
      SHUTDOWN_MS: '-1',
      DATABASE_URL: 'postgres://user:the-password@db/x',
    })
    const names = problems.map((problem) => problem.split(' ')[0])
    expect(names.toSorted()).toEqual(
      [
        'AUTH',
        'BLUUM_API_SECRET',
        'BLUUM_URL',
        'DATABASE_URL',
        'GRAPHIQL',
        'LOG_LEVEL',
        'PORT',
        'SHUTDOWN_MS',
      ].toSorted(),
    )
    expect(problems.join('\n')).not.toMatch(/eighty|chatty|maybe|evil|the-key|trust-me|the-password/)
  })

  it('never contain the value of any setting', () => {
    for (const name of listTopics().flatMap(({ table }) => Object.keys(table))) {
      for (const value of ['hidden value,%', 'https://hidden:value@example.com/#%', `hidden${'x'.repeat(5_000)}`]) {
        expect(problemsOf({ ...real, [name]: value }).join(), name).not.toContain('hidden')
      }
    }
  })

  it.each([
    [{ BLUUM_URL: real.BLUUM_URL, AUTH: 'none' }, ['BLUUM_API_KEY', 'BLUUM_API_SECRET']],
    [{ BLUUM_API_KEY: 'the-key' }, ['BLUUM_URL']],
    [{ ...real, AUTH: '' }, ['AUTH']],
    [{ ...real, HOST: '0.0.0.0' }, ['AUTH=none']],
    [{ ...real, SANDBOX_SEED: 'x' }, ['SANDBOX_SEED']],
    [{ ...real, SANDBOX_CONTROL_PORT: '4001' }, ['SANDBOX_CONTROL_PORT']],
    [{ SANDBOX_PORT: '4001', SANDBOX_CONTROL_PORT: '4001' }, ['SANDBOX_PORT']],
    [{ ...real, BLUUM_API_SECRET_FILE: '/nowhere' }, ['BLUUM_API_SECRET', 'BLUUM_API_SECRET']],
    [{ BLUUM_API: 'orders' }, ['BLUUM_API']],
    [{ PORT: '65536' }, ['PORT']],
    [{ PORT: '4e3' }, ['PORT']],
    [{ PLACE_REPLY_MS: '99' }, ['PLACE_REPLY_MS']],
    [{ PLACE_LOOKUP_MS: '1000,500' }, ['PLACE_LOOKUP_MS']],
    [{ PLACE_LATE_MS: '1000,soon' }, ['PLACE_LATE_MS']],
    [{ PLACE_SEND_BY_MS: '1000' }, ['PLACE_SEND_BY_MS']],
    [{ PLACE_ASSUME_ABSENT: 'sometimes' }, ['PLACE_ASSUME_ABSENT']],
    [{ BLUUM_CAPABILITIES: 'clientIdEcho,magic' }, ['BLUUM_CAPABILITIES']],
    [{ TRADING: 'off' }, ['TRADING']],
    [{ CORS_ORIGINS: '*' }, ['CORS_ORIGINS']],
    [{ CORS_ORIGINS: 'https://app.example.com, https://other.example.com/' }, ['CORS_ORIGINS']],
    [{ CORS_ORIGINS: 'http://app.example.com' }, ['CORS_ORIGINS']],
    [{ CORS_ORIGINS: 'null' }, ['CORS_ORIGINS']],
    [{ ROUTER_SECRET: 'too-short' }, ['ROUTER_SECRET']],
    [{ ROUTER_SECRET: 'with a blank in the middle' }, ['ROUTER_SECRET']],
    [{ NODE_ENV: 'production', STORE_INIT: 'yes' }, ['STORE_INIT']],
    [{ OTEL_SERVICE_NAME: 'x' }, ['OTEL_SERVICE_NAME']],
  ])('%j names %j', (env, names) => {
    expect(problemsOf(env).map((problem) => problem.split(' ')[0])).toEqual(names)
  })
})

describe('sign-in', () => {
  const pem = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' })
  const jwt = { AUTH: 'jwt', JWT_ISSUER: 'https://issuer.example.com', JWT_AUDIENCE: 'blotter' }

  it('by token takes one issuer, one audience, and its keys from an address or as one key', () => {
    const claims = { scopeClaim: null, accountsClaim: 'accounts' }
    const known = { kind: 'jwt', issuer: 'https://issuer.example.com', audience: 'blotter', ...claims }
    const url = 'https://issuer.example.com/keys'
    expect(readConfig({ ...jwt, JWKS_URL: url }).auth).toEqual({ ...known, keys: { url } })
    expect(readConfig({ ...jwt, JWT_PUBLIC_KEY_FILE: writeTemporary(pem) }).auth).toEqual({
      ...known,
      keys: { pem: pem.trim() },
    })
    for (const { publicKey } of [
      generateKeyPairSync('ec', { namedCurve: 'P-256' }),
      generateKeyPairSync('ec', { namedCurve: 'P-384' }),
      generateKeyPairSync('rsa', { modulusLength: 2_048 }),
    ]) {
      const other = publicKey.export({ type: 'spki', format: 'pem' })
      expect(readConfig({ ...jwt, JWT_PUBLIC_KEY: other }).auth).toEqual({ ...known, keys: { pem: other.trim() } })
    }
    expect(
      readConfig({ ...jwt, JWKS_URL: url, JWT_SCOPE_CLAIM: 'realm_access.roles', JWT_ACCOUNTS_CLAIM: 'https://x/a' })
        .auth,
    ).toMatchObject({ scopeClaim: 'realm_access.roles', accountsClaim: 'https://x/a' })
    // Whoever signs in may come from elsewhere.
    expect(readConfig({ ...real, ...jwt, JWKS_URL: url, HOST: '0.0.0.0' }).host).toBe('0.0.0.0')
  })

  it.each([
    [{ AUTH: 'jwt' }, ['JWT_ISSUER', 'JWT_AUDIENCE', 'JWKS_URL']],
    [jwt, ['JWKS_URL']],
    [{ ...jwt, JWKS_URL: 'https://x.example.com', JWT_PUBLIC_KEY: pem }, ['JWKS_URL']],
    [{ ...jwt, JWKS_URL: 'http://x.example.com/keys' }, ['JWKS_URL']],
    [{ ...jwt, JWT_PUBLIC_KEY: 'no key' }, ['JWT_PUBLIC_KEY']],
    [
      {
        ...jwt,
        JWT_PUBLIC_KEY: generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }),
      },
      ['JWT_PUBLIC_KEY'],
    ],
    ...[
      generateKeyPairSync('ec', { namedCurve: 'P-521' }),
      generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
      generateKeyPairSync('x25519'),
      generateKeyPairSync('rsa', { modulusLength: 1_024 }),
    ].map(({ publicKey }): [Record<string, string>, string[]] => [
      { ...jwt, JWT_PUBLIC_KEY: publicKey.export({ type: 'spki', format: 'pem' }) },
      ['JWT_PUBLIC_KEY'],
    ]),
    [{ JWT_ISSUER: 'https://issuer.example.com' }, ['JWT_ISSUER']],
    [{ AUTH: 'none', JWKS_URL: 'https://x.example.com' }, ['JWKS_URL']],
    [{ JWT_SCOPE_CLAIM: 'roles', JWT_ACCOUNTS_CLAIM: 'a.b' }, ['JWT_SCOPE_CLAIM', 'JWT_ACCOUNTS_CLAIM']],
    [{ ...jwt, JWT_PUBLIC_KEY: pem, JWT_SCOPE_CLAIM: 'scope scp' }, ['JWT_SCOPE_CLAIM']],
    [{ AUTH: 'basic' }, ['AUTH']],
  ])('G10 %j names %j', (env, names) => {
    const problems = problemsOf(env)
    expect(problems.map((problem) => problem.split(' ')[0])).toEqual(names)
    expect(problems.join()).not.toContain('BEGIN')
  })
})

describe('placing', () => {
  it('takes its times, its switch and what was certified', () => {
    const config = readConfig({
      PLACE_LOOKUP_MS: '100, 200',
      PLACE_SETTLE_MS: '500',
      PLACE_LATE_MS: '1000',
      PLACE_SEND_BY_MS: '2000,4000',
      PLACE_ASSUME_ABSENT: 'never',
      TRADING: 'halted',
      BLUUM_CAPABILITIES: 'listNewestFirst,clientIdEcho',
    })
    expect(config.placing).toEqual({
      replyMs: 10_000,
      settleMs: 500,
      lookupMs: [100, 200],
      lateMs: [1_000],
      sendByMs: { market: 2_000, other: 4_000 },
      assumeAbsent: false,
    })
    expect(config.trading).toBe('halted')
    expect(config.brokers.get('BLUUM')?.values).toMatchObject({
      BLUUM_CAPABILITIES: ['clientIdEcho', 'listNewestFirst'],
    })
  })

  it('makes an empty store in production only when told to', () => {
    expect(readConfig({ NODE_ENV: 'production' }).mayCreateStore).toBe(false)
    expect(readConfig({ NODE_ENV: 'production', STORE_INIT: '1' }).mayCreateStore).toBe(true)
    expect(readConfig({ NODE_ENV: 'development' }).mayCreateStore).toBe(true)
  })
})

describe('names that are no settings', () => {
  const told = (env: Record<string, string>) => readConfig(env).notices

  it.each([
    ['PLACE_REPLY', 'PLACE_REPLY_MS'],
    ['PLACE_SETTLE_SECONDS', 'PLACE_SETTLE_MS'],
    ['LIMIT_OPERATIONS', 'LIMIT_OPERATIONS_PER_SECOND'],
    ['JWT_SCOPES_CLAIM', 'JWT_SCOPE_CLAIM'],
    ['BLUUM_KEY', 'BLUUM_API_KEY'],
    ['BLUUM_API_KEYFILE', 'BLUUM_API_KEY_FILE'],
    ['ARIES_CLIENTID', 'ARIES_CLIENT_ID'],
    ['TRUSTED_DOCUMENT', 'TRUSTED_DOCUMENTS'],
    ['CORS_ORIGIN', 'CORS_ORIGINS'],
    ['SANDBOX_SED', 'SANDBOX_SEED'],
    ['TRADNG', 'TRADING'],
    ['PLACEMENT_REPLY_MS', 'PLACE_REPLY_MS'],
    ['LIMITS_OPERATIONS_PER_SECOND', 'LIMIT_OPERATIONS_PER_SECOND'],
    ['BLOOM_URL', 'BLUUM_URL'],
    ['KEEPALIVE_MS', 'KEEP_ALIVE_MS'],
    ['STORE_INT', 'STORE_INIT'],
    ['HTTPS_PROXXY', 'HTTPS_PROXY'],
    ['trading', 'TRADING'],
    ['LOGLEVEL', 'LOG_LEVEL'],
    ['DATADIR', 'DATA_DIR'],
    ['log-level', 'LOG_LEVEL'],
    ['DRIAN_MS', 'DRAIN_MS'],
    ['ROUTER_SECRETS', 'ROUTER_SECRET'],
    ['port', 'PORT'],
  ])('%s is reported with the nearest name, %s, and without its value', (name, nearest) => {
    expect(told({ [name]: 'hidden' })).toEqual([
      `${name} is set, but there is no such setting; the nearest name is ${nearest}.`,
    ])
  })

  it('are listed after the problems, because one of them may be the cause', () => {
    expect(problemsOf({ BLUUM_URL: 'https://api.example.com/v1', BLUUM_API_KEYS: 'hidden', AUTH: 'none' })).toEqual([
      expect.stringMatching(/^BLUUM_API_KEY is missing/),
      expect.stringMatching(/^BLUUM_API_SECRET is missing/),
      expect.stringMatching(/^BLUUM_API_KEYS is set, but .* BLUUM_API_KEY\.$/),
    ])
  })

  it('of other programs are left alone, and so are those without a value', () => {
    const env = {
      PATH: '/bin',
      HTTP_PROXY: 'http://proxy.example:3128',
      all_proxy: 'socks5://proxy.example',
      NODE_ENV: 'development',
      NODE_OPTIONS: '--enable-source-maps',
      npm_config_loglevel: 'error',
      HOSTNAME: 'pod-1',
      POST: 'x',
      PLACEHOLDER: 'x',
      FTP_PROXY: 'x',
      BLOTTER_PORT: 'tcp://10.0.0.1:4000',
      ARIES_DB_SERVICE_HOST: '10.0.0.2',
      ARIES_DB_PORT: 'tcp://10.0.0.2:5432',
      ARIES_DB_PORT_5432_TCP_ADDR: '10.0.0.2',
      PLACE_REPLY: ' ',
    }
    expect(told(env)).toEqual([])
  })
})

describe('the listener', () => {
  it('takes how long it drains and keeps connections, and the names of a proxy in front', () => {
    const env = {
      DRAIN_MS: '15000',
      KEEP_ALIVE_MS: '620000',
      PUBLIC_HOSTS: 'Orders.example.com, 10.0.0.7,[2001:db8::1]',
    }
    expect(readConfig(env)).toMatchObject({
      drainMs: 15_000,
      keepAliveMs: 620_000,
      publicHosts: ['orders.example.com', '10.0.0.7', '[2001:db8::1]'],
    })
  })

  it.each([
    [{ DRAIN_MS: '600001' }, /^DRAIN_MS must be a whole number from 0 to 600000$/],
    [{ DRAIN_MS: '15s' }, /^DRAIN_MS must be/],
    [{ KEEP_ALIVE_MS: '999' }, /^KEEP_ALIVE_MS must be a whole number from 1000 to 3600000$/],
    [{ PUBLIC_HOSTS: 'https://hidden.example' }, /^PUBLIC_HOSTS must be host names/],
    [{ PUBLIC_HOSTS: 'hidden.example:443' }, /^PUBLIC_HOSTS must be host names/],
    [{ PUBLIC_HOSTS: '*.hidden.example/x' }, /^PUBLIC_HOSTS must be host names/],
    [{ PUBLIC_HOSTS: 'hidden.example', HOST: '0.0.0.0' }, /^PUBLIC_HOSTS has no effect unless HOST is a loopback/],
  ])('refuses %j', (env, problem) => {
    const problems = problemsOf(env)
    expect(problems).toEqual([expect.stringMatching(problem)])
    expect(problems.join('')).not.toContain('hidden')
  })
})

describe('.env.example', () => {
  const text = readFileSync(new URL('../../.env.example', import.meta.url), 'utf8')
  const listed = [...text.matchAll(/^#? ?([A-Z][A-Z_0-9]+)=/gm)].map((match) => match[1] ?? '')
  const [built = '', later = ''] = text.split(/^# Not built yet.*$/m)

  it('lists every setting once', () => {
    const names = listTopics().flatMap(({ table }) => Object.keys(table))
    expect(listed.toSorted()).toEqual([...names, ...Object.keys(notBuilt)].toSorted())
  })

  it('can be used as it is, alone and with a real broker', () => {
    const lines = built.split('\n').filter((line) => /^[A-Z]/.test(line))
    const env = Object.fromEntries(lines.map((line) => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)]))
    const withoutBrokers = (config: Config) => ({ ...config, brokers: null })
    expect(withoutBrokers(readConfig(env))).toEqual(withoutBrokers(readConfig({})))
    expect(withoutBrokers(readConfig({ ...env, ...real }))).toEqual(withoutBrokers(readConfig(real)))
  })

  it('says truly what is not built: each of those refuses to start', () => {
    const names = (part: string) => [...part.matchAll(/^#? ?([A-Z][A-Z_0-9]+)=/gm)].map((match) => match[1] ?? '')
    expect(names(later).length).toBeGreaterThan(0)
    for (const name of names(later)) {
      expect(problemsOf({ [name]: '1' })).toEqual([
        expect.stringMatching(new RegExp(`^${name} is set, but .+ is not built yet`)),
      ])
    }
    for (const name of names(built)) expect(problemsOf({ [name]: '1' }).join()).not.toContain('not built yet: unset')
  })
})
