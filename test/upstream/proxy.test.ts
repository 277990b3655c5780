// Brokers behind an HTTP proxy: what leaves passes through a tunnel, and what a broken tunnel proves.

import { createServer } from 'node:http'
import { inspect } from 'node:util'
import { exportJWK } from 'jose'
import { describe, expect, it, onTestFinished } from 'vitest'
import { UpstreamError } from '../../src/upstream/errors.ts'
import { createHttp } from '../../src/upstream/http.ts'
import type { Call, Http, HttpOptions } from '../../src/upstream/http.ts'
import { createIdentity } from '../../src/server/identity.ts'
import { checkConfig } from '../../src/cli/checkConfig.ts'
import { findProxy, isBypassed } from '../../src/upstream/proxy.ts'
import { startSandbox } from '../../sandbox/server.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'
import { all, audience, issuer, keys, sign } from '../issuer.ts'
import { brokerHost, listen, startProxy, startTlsFront, startTlsServer, trustTestCertificate } from '../proxy.ts'
import type { Proxy, ProxyMode } from '../proxy.ts'

const user = 'the-user'
const password = 'p@ss:word/secret'
const credentials = `${user}:${encodeURIComponent(password)}`
const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
const post: Call = { method: 'POST', path: '/orders', body: { symbol: 'AAPL' }, firstByteMs: null, attemptMs: 8_000 }

/** A server behind TLS, a proxy before it, and calls through that; all closed with the test. */
async function startBehindProxy(): Promise<{ http: Http; proxy: Proxy; hits: string[]; sent: () => number }> {
  trustTestCertificate()
  const hits: string[] = []
  const server = createServer((request, response) => {
    hits.push(`${request.method} ${request.url}`)
    request.resume()
    response.setHeader('content-type', 'application/json').end('{"ok":true}')
  })
  const port = await listen(server)
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const target = await startTlsServer(port)
  const proxy = await startProxy(target)
  const http = openThrough(`http://${credentials}@127.0.0.1:${proxy.port}`)
  return { http, proxy, hits, sent: () => sentCount }
}

let sentCount = 0
const countSent = (): void => void sentCount++

function openThrough(proxyUrl: string, host = brokerHost, options: Partial<HttpOptions> = {}): Http {
  const http = createHttp({ baseUrl: `https://${host}/v1`, headers: {}, proxyUrl, writeConnections: 1, ...options })
  onTestFinished(() => http.close(0))
  return http
}

async function failureOf(work: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await work.then(
    () => expect.unreachable('it was answered'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof UpstreamError)) throw error
  const text = inspect(error, { depth: Infinity, showHidden: true })
  for (const secret of [password, encodeURIComponent(password), authorization, user]) expect(text).not.toContain(secret)
  return error
}

describe('a call through a proxy', () => {
  it('goes through one tunnel to the name of the broker, with the credential of the proxy', async () => {
    const { http, proxy, hits } = await startBehindProxy()
    sentCount = 0
    for (let count = 0; count < 3; count++) {
      expect((await http.write({ ...post, onSent: countSent })).body).toEqual({ ok: true })
    }
    // Once a call: the tunnel's own request is none.
    expect(sentCount).toBe(3)
    expect(hits).toEqual(Array.from({ length: 3 }, () => 'POST /v1/orders'))
    expect(proxy.heads).toHaveLength(1)
    expect(proxy.heads[0]).toMatch(/^CONNECT broker\.test:443 HTTP\/1\.1\r\n/)
    expect(proxy.heads[0]).toMatch(/\r\nhost: broker\.test:443\r\n/i)
    expect(proxy.heads[0]).toContain(`roxy-authorization: ${authorization}\r\n`)
  })

  it('has a tunnel for each connection, and no more than it may have', async () => {
    const { http, proxy } = await startBehindProxy()
    await Promise.all([http.write(post), http.write(post), http.write(post), http.cancel(post)])
    expect(proxy.heads).toHaveLength(2)
  })

  it('may reach the proxy itself by TLS, verified against the name of the proxy', async () => {
    const { proxy, hits } = await startBehindProxy()
    const port = await startTlsFront(proxy)
    const named = await failureOf(openThrough(`https://${credentials}@127.0.0.1:${port}`).write(post))
    expect(named).toMatchObject({ kind: 'not_sent', effect: 'none' })
    expect(named.message).toBe('POST not sent: PROXY_ERR_TLS_CERT_ALTNAME_INVALID')
    expect([hits, proxy.heads]).toEqual([[], []])
    // The only name of this machine that needs no resolver.
    const trusted = openThrough(`https://${credentials}@localhost:${port}`)
    expect((await trusted.write(post)).status).toBe(200)
    expect(proxy.heads).toHaveLength(1)
  })

  it('goes to the broker whose certificate has its name, and to no other', async () => {
    const { proxy, hits } = await startBehindProxy()
    const http = openThrough(`http://${credentials}@127.0.0.1:${proxy.port}`, 'other.test')
    sentCount = 0
    const error = await failureOf(http.write({ ...post, onSent: countSent }))
    expect(error).toMatchObject({ kind: 'not_sent', effect: 'none' })
    expect(error.message).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
    expect([hits, sentCount]).toEqual([[], 0])
  })

  it.each<[mode: ProxyMode, code: string, timedOut?: boolean]>([
    [{ kind: 'status', status: 407 }, 'PROXY_STATUS_407'],
    [{ kind: 'status', status: 502 }, 'PROXY_STATUS_502'],
    [{ kind: 'status', status: 403 }, 'PROXY_STATUS_403'],
    [{ kind: 'status', status: 302 }, 'PROXY_STATUS_302'],
    [{ kind: 'dieBeforeOpen' }, 'PROXY_ECONNRESET'],
    [{ kind: 'dieInAnswer' }, 'PROXY_ECONNRESET'],
    [{ kind: 'nonsense' }, 'PROXY_HPE_INVALID_CONSTANT'],
    [{ kind: 'dieOnceOpen' }, 'ECONNRESET'],
    [{ kind: 'hang' }, 'PROXY_TIMEOUT', true],
    [{ kind: 'swallow' }, 'PROXY_TIMEOUT', true],
  ])('is proven not sent if the proxy does %j, and is sent once it works', async (mode, code, timedOut = false) => {
    const { http: usual, proxy, hits } = await startBehindProxy()
    const hasty = (): Http => openThrough(`http://127.0.0.1:${proxy.port}`, brokerHost, { tunnelMs: 200 })
    const http = timedOut ? hasty() : usual
    proxy.mode = mode
    sentCount = 0
    const errors = await Promise.all([1, 2].map(() => failureOf(http.write({ ...post, onSent: countSent }))))
    for (const error of errors) {
      expect(error).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut })
      expect(error.message).toBe(`POST not sent: ${code}`)
    }
    expect([hits, sentCount]).toEqual([[], 0])
    proxy.mode = { kind: 'pass' }
    expect((await (timedOut ? usual : http).write({ ...post, onSent: countSent })).status).toBe(200)
    expect([hits.length, sentCount]).toEqual([1, 1])
  })

  it('is proven not sent if there is no proxy', async () => {
    const error = await failureOf(openThrough(`http://${credentials}@127.0.0.1:1`).write(post))
    expect(error).toMatchObject({ kind: 'not_sent', effect: 'none', message: 'POST not sent: PROXY_ECONNREFUSED' })
  })

  it('has an unknown outcome if the tunnel dies after the request', async () => {
    const { http, proxy, hits } = await startBehindProxy()
    proxy.mode = { kind: 'dieAfterRequest' }
    sentCount = 0
    const error = await failureOf(http.write({ ...post, onSent: countSent }))
    expect(error).toMatchObject({ kind: 'no_answer', effect: 'unknown' })
    expect(sentCount).toBe(1)
    await expect.poll(() => hits).toEqual(['POST /v1/orders'])
  })

  it('takes another tunnel if the one that waited has been cut', async () => {
    const { http, proxy, hits } = await startBehindProxy()
    await http.write(post)
    proxy.cut()
    await expect
      .poll(
        async () =>
          await http.write(post).then(
            () => 'sent',
            (error: unknown) => (error as UpstreamError).kind,
          ),
      )
      .toBe('sent')
    expect(proxy.heads).toHaveLength(2)
    expect(new Set(hits)).toEqual(new Set(['POST /v1/orders']))
  })
})

describe('an order behind a proxy', () => {
  async function startTrading(): Promise<{ harness: Harness; proxy: Proxy }> {
    trustTestCertificate()
    const sandbox = await startSandbox({ stateFile: ':memory:', seed: 'proxy' })
    onTestFinished(() => sandbox.close())
    const proxy = await startProxy(await startTlsServer(Number(new URL(sandbox.url).port)))
    const harness = await startHarness(
      {
        BLUUM_URL: `https://${brokerHost}/v1`,
        BLUUM_API_KEY: sandbox.apiKey,
        BLUUM_API_SECRET: sandbox.apiSecret,
        BLUUM_REQUESTS_PER_SECOND: '1000',
        HTTPS_PROXY: `http://${credentials}@127.0.0.1:${proxy.port}`,
        AUTH: 'none',
        BREAKER: 'off',
        PLACE_LOOKUP_MS: '50,200,800',
      },
      sandbox,
    )
    onTestFinished(async () => {
      const lines = harness.log().join('')
      await harness.close()
      for (const secret of [password, encodeURIComponent(password), authorization]) expect(lines).not.toContain(secret)
    })
    return { harness, proxy }
  }

  const place =
    'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome ... on OrderNotPlaced { certainty retrySameKey } } }'
  const find =
    'query ($accountId: ID!, $key: ID!) { placement(accountId: $accountId, clientOrderId: $key) { state attempts foundBy } }'
  const posts = async (harness: Harness): Promise<number> =>
    (await harness.calls()).filter(({ method }) => method === 'POST').length

  it('is proven not placed while no tunnel opens or stays, and the same key places it later', async () => {
    const { harness, proxy } = await startTrading()
    const input = limitBuy(harness)
    const modes: ProxyMode[] = [
      { kind: 'status', status: 407 },
      { kind: 'status', status: 502 },
      { kind: 'dieBeforeOpen' },
      { kind: 'dieOnceOpen' },
    ]
    for (const mode of modes) {
      proxy.mode = mode
      const { data } = await harness.run(place, { input })
      expect(data.placeOrder, mode.kind).toEqual({ outcome: 'NOT_PLACED', certainty: 'PROVEN', retrySameKey: true })
    }
    expect(await posts(harness)).toBe(0)
    proxy.mode = { kind: 'pass' }
    expect((await harness.run(place, { input })).data.placeOrder).toEqual({ outcome: 'PLACED' })
    expect(await posts(harness)).toBe(1)
  })

  it('is found by a lookup, and sent once, if the tunnel dies after the request', async () => {
    const { harness, proxy } = await startTrading()
    const input = limitBuy(harness)
    proxy.mode = { kind: 'dieAfterRequest' }
    const placing = harness.run(place, { input })
    await expect.poll(async () => await posts(harness)).toBe(1)
    proxy.mode = { kind: 'pass' }
    expect((await placing).data.placeOrder).toEqual({ outcome: 'PLACED' })
    const found = await harness.run(find, { accountId: input.accountId, key: input.clientOrderId })
    expect(found.data.placement).toEqual({ state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' })
    expect(await posts(harness)).toBe(1)
  })

  it('at Aries gets its token through the tunnel as well', async () => {
    trustTestCertificate()
    const sandbox = await startSandbox({ stateFile: ':memory:', seed: 'proxy' })
    onTestFinished(() => sandbox.close())
    const { url, clientId, clientSecret, refreshToken, tradingId, accounts } = sandbox.aries
    const proxy = await startProxy(await startTlsServer(Number(new URL(url).port)))
    const env = {
      ARIES_URL: `https://${brokerHost}`,
      ARIES_CLIENT_ID: clientId,
      ARIES_CLIENT_SECRET: clientSecret,
      ARIES_REFRESH_TOKEN: refreshToken,
      ARIES_TRADING_ID: tradingId,
      https_proxy: `127.0.0.1:${proxy.port}`,
      AUTH: 'none',
    }
    const harness = await startHarness(env, sandbox)
    onTestFinished(() => harness.close())
    const query = `{ orders(accountId: "aries:${accounts[0]}", first: 1) { nodes { id } } }`
    expect((await harness.run(query)).data.orders.nodes).toHaveLength(1)
    expect((await harness.calls()).map(({ path }) => path)).toContainEqual(expect.stringContaining('oauth2/token'))
    for (const head of proxy.heads) expect(head).toMatch(/^CONNECT broker\.test:443 /)
    // One for tokens and one for reads at least.
    expect(proxy.heads.length).toBeGreaterThanOrEqual(2)
  })
})

describe('the keys of an issuer', () => {
  it('are fetched through the proxy, and the trouble with a proxy that refuses names no credential', async () => {
    trustTestCertificate()
    const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'key-1', alg: 'ES256' }
    const server = createServer((_request, response) => response.end(JSON.stringify({ keys: [jwk] })))
    const port = await listen(server)
    onTestFinished(() => void server.close())
    const proxy = await startProxy(await startTlsServer(port))
    const proxyUrl = `http://${credentials}@127.0.0.1:${proxy.port}`
    const troubles: string[] = []
    const identity = createIdentity(
      {
        kind: 'jwt',
        issuer,
        audience,
        scopeClaim: null,
        accountsClaim: 'accounts',
        keys: { url: `https://${brokerHost}/keys` },
      },
      { onKeysTrouble: (reason) => troubles.push(reason), onClaimTrouble() {} },
      { url: { reveal: () => proxyUrl }, host: `127.0.0.1:${proxy.port}`, bypass: [] },
    )
    const bearer = `Bearer ${await sign(all, { kid: 'key-1' })}`
    proxy.mode = { kind: 'status', status: 407 }
    await expect(identity.identify(bearer, false)).rejects.toThrow('the keys of its issuer cannot be had')
    expect(troubles).toEqual(['the proxy answered CONNECT with status 407'])
    proxy.mode = { kind: 'pass' }
    expect((await identity.identify(bearer, false)).accountIds).toBeNull()
    expect(proxy.heads.at(-1)).toMatch(/^CONNECT broker\.test:443 /)
  })
})

describe('the addresses that go through the proxy', () => {
  const proxy = (...bypass: string[]) => ({ url: { reveal: () => 'http://proxy' }, host: 'proxy', bypass })

  it.each([
    'http://127.0.0.1:4000',
    'https://localhost',
    'https://127.1.2.3',
    'https://[::1]:8443',
    'https://a.localhost',
  ])('%s never does, because it is this machine', (url) => expect(findProxy(new URL(url), proxy())).toBeNull())

  it('others do, if there is one', () => {
    expect(findProxy(new URL('https://api.example.com/v1'), proxy())).toBe('http://proxy')
    expect(findProxy(new URL('https://api.example.com/v1'), proxy('other.example'))).toBe('http://proxy')
    expect(findProxy(new URL('https://api.example.com/v1'), null)).toBeNull()
  })

  it.each([
    ['https://api.example.com', 'example.com', true],
    ['https://api.example.com', '.example.com', true],
    ['https://example.com', '.example.com', true],
    ['https://api.example.com', '*.example.com', true],
    ['https://example.com', '*.example.com', false],
    ['https://API.Example.com', 'api.EXAMPLE.com.', true],
    ['https://notexample.com', 'example.com', false],
    ['https://example.com.evil.example', 'example.com', false],
    ['https://api.example.com', '*', true],
    ['https://api.example.com', 'api.example.com:443', true],
    ['https://api.example.com:8443', 'api.example.com:443', false],
    ['https://api.example.com:8443', 'api.example.com', true],
    ['https://10.1.2.3', '10.0.0.0/8', true],
    ['https://11.1.2.3', '10.0.0.0/8', false],
    ['https://10.1.2.3', '10.1.2.3', true],
    ['https://10.1.2.3', '2.3', false],
    ['https://10.1.2.3', '10.0.0.0/99', false],
    ['https://[2001:db8::1]', '2001:db8::1', true],
    ['https://[2001:db8::1]', '[2001:db8::1]:443', true],
    ['https://[2001:db8::1]', '2001:db8::/32', true],
    ['https://api.example.com', '10.0.0.0/8', false],
    ['https://api.example.com', '.', false],
  ])('%s is left out by %s: %s', (url, entry, expected) => {
    expect(isBypassed(new URL(url), ['nothing.example', entry])).toBe(expected)
  })

  it('are listed by check-config, with the host of the proxy only', async () => {
    const env = {
      BLUUM_URL: 'https://api.example.com/v1',
      BLUUM_API_KEY: 'the-key',
      BLUUM_API_SECRET: 'the-secret',
      AUTH: 'jwt',
      JWT_ISSUER: issuer,
      JWT_AUDIENCE: audience,
      JWKS_URL: 'https://keys.example.org/keys',
      HTTPS_PROXY: `http://${credentials}@proxy.example.com:3128`,
    }
    const all = await checkConfig(env)
    expect(all).toContain(
      'The service reaches api.example.com and keys.example.org through the proxy proxy.example.com:3128.',
    )
    expect(all).not.toMatch(/the-user|secret|ss:word/)
    expect(await checkConfig({ ...env, NO_PROXY: 'example.org' })).toContain(
      'through the proxy proxy.example.com:3128, and keys.example.org directly.',
    )
    expect(await checkConfig({ ...env, NO_PROXY: '*' })).not.toContain('proxy')
    expect(await checkConfig({ ...env, no_proxy: 'example.com, .example.org' })).not.toContain('proxy')
    expect(await checkConfig({ ...env, https_proxy: 'other.example:8080' })).toContain(
      'through the proxy other.example:8080',
    )
    expect(await checkConfig({ HTTPS_PROXY: 'http://proxy.example.com:3128' })).not.toContain('proxy')
  })

  it.each([
    'socks5://hidden.example:1080',
    'http://hidden.example/path',
    'hidden example',
    'http://hid%zzden@proxy.example',
  ])('HTTPS_PROXY=%s is refused where it would be used, without its value', async (value) => {
    const env = { ARIES_URL: 'https://api.example.com', ARIES_ACCESS_TOKEN: 'the-token', AUTH: 'none' }
    const wrong = await checkConfig({ ...env, HTTPS_PROXY: value }).catch(String)
    expect(wrong).toMatch(
      /\n {2}HTTPS_PROXY must be the address of an HTTP proxy, such as http:\/\/proxy\.example\.com:3128/,
    )
    expect(wrong).not.toMatch(/hid/)
    expect(await checkConfig({ ...env, HTTPS_PROXY: value, NO_PROXY: 'example.com' })).toContain('can be used')
    expect(await checkConfig({ HTTPS_PROXY: value })).toContain('can be used')
  })
})
