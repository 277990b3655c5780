// The server as HTTP clients meet it: over real sockets where a socket matters.

import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import { auditServer } from 'graphql-http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { limitBuy, startForTest, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(() => harness.close())

function post(body: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(harness.url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body })
}

/** The codes of the errors in an answer. */
async function codesOf(response: Response): Promise<unknown[]> {
  const { errors = [] } = (await response.json()) as { errors?: { extensions: { code: unknown } }[] }
  return errors.map(({ extensions }) => extensions.code)
}

/** Sends raw bytes and returns all that comes back until the server closes, or until `enough` says so. */
function sendRaw(text: string, enough: (answer: string) => boolean): Promise<string> {
  const { hostname, port } = new URL(harness.url)
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect(Number(port), hostname, () => socket.write(text))
    socket.on('data', (chunk) => {
      answer += chunk.toString()
      if (enough(answer)) socket.destroy()
    })
    socket.on('close', () => resolve(answer))
    socket.on('error', reject)
  })
}

describe('GraphQL over HTTP', () => {
  it('F17 passes every audit of graphql-http, SHOULD and MAY included', async () => {
    const results = await auditServer({
      url: harness.url,
      // A GET has to say that it is not a form; the audits do not know that.
      fetchFn: (url: string, init?: RequestInit) =>
        fetch(url, { ...init, headers: { 'x-graphql-yoga-csrf': '1', ...(init?.headers as Record<string, string>) } }),
    })
    expect(results.length).toBeGreaterThanOrEqual(60)
    const failed = results
      .filter((result) => result.status !== 'ok')
      .map(({ id, name, status }) => `${status} ${id} ${name}`)
    expect(failed).toEqual([])
  })

  it('answers a GET query that is marked as no form, and refuses one that is not', async () => {
    const url = `${harness.url}?query=${encodeURIComponent('{ __typename }')}`
    const marked = await fetch(url, { headers: { 'apollo-require-preflight': '1' } })
    expect(await marked.json()).toEqual({ data: { __typename: 'Query' } })
    const unmarked = await fetch(url)
    expect(unmarked.status).toBe(403)
    expect(await unmarked.json()).toMatchObject({ errors: [{ extensions: { code: 'FORBIDDEN' } }] })
  })

  it('names the headers that mark a GET', async () => {
    const unmarked = await fetch(`${harness.url}?query={__typename}`)
    expect(await unmarked.json()).toMatchObject({
      errors: [{ message: expect.stringMatching(/x-graphql-yoga-csrf.*apollo-require-preflight/) }],
    })
  })

  it('answers only to names of this machine, so that no foreign page reaches it through a name of its own', async () => {
    const request = (host: string) =>
      sendRaw(`GET /health HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`, () => false)
    expect(await request('evil.example')).toMatch(/^HTTP\/1\.1 403 [^]*"FORBIDDEN"/)
    expect(await request('127.0.0.1.evil.example:4000')).toMatch(/^HTTP\/1\.1 403 /)
    for (const host of ['localhost:4000', '127.0.0.1', '[::1]:4000'])
      expect(await request(host)).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('F13 refuses a mutation by GET', async () => {
    const query = 'mutation { cancelOrder(input: {}) { message } }'
    const response = await fetch(`${harness.url}?query=${encodeURIComponent(query)}`, {
      headers: { 'x-graphql-yoga-csrf': '1' },
    })
    expect(response.status).toBe(405)
  })

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/graphql',
  ])('refuses a body of %s with any headers', async (type) => {
    const response = await post('query={__typename}', { 'content-type': type, 'x-graphql-yoga-csrf': '1' })
    expect(response.status).toBe(415)
    expect(await response.json()).toMatchObject({ errors: [{ message: expect.stringContaining('application/json') }] })
  })

  it('lets no foreign origin read an answer', async () => {
    for (const origin of ['https://evil.example', 'null']) {
      const response = await post('{"query":"{ __typename }"}', { origin })
      expect(response.headers.get('access-control-allow-origin')).toBeNull()
    }
  })

  it('F14 lets the pages of its list read answers and ask with a token, and no others', async () => {
    const allowed = ['https://app.example.com', 'http://localhost:5173']
    const open = await startForTest({ CORS_ORIGINS: allowed.join(', ') })
    const ask = async (origin: string, method: string) =>
      await fetch(open.url, {
        method,
        headers: {
          origin,
          ...(method === 'POST'
            ? { 'content-type': 'application/json' }
            : { 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }),
        },
        ...(method === 'POST' && { body: '{"query":"{ __typename }"}' }),
      })
    for (const origin of allowed) {
      for (const method of ['POST', 'OPTIONS']) {
        const { status, headers } = await ask(origin, method)
        expect([status, headers.get('access-control-allow-origin')]).toEqual([method === 'POST' ? 200 : 204, origin])
        expect(headers.get('access-control-allow-credentials')).toBeNull()
        if (method === 'OPTIONS') expect(headers.get('access-control-allow-headers')).toContain('authorization')
      }
    }
    const others = ['https://evil.example', 'null', 'https://app.example.com.evil.example', 'https://x.app.example.com']
    for (const origin of [...others, 'http://app.example.com', 'https://app.example.com:8443']) {
      for (const method of ['POST', 'OPTIONS']) {
        const { headers } = await ask(origin, method)
        expect([...headers.keys()].filter((name) => name.startsWith('access-control-'))).toEqual([])
      }
    }
  })

  it('says with every answer that it is neither kept nor shown inside another page', async () => {
    const origin = new URL(harness.url).origin
    const answers = [
      await post('{"query":"{ __typename }"}'),
      await post('{"query":'),
      await post('x'.repeat(256_001)),
      await fetch(`${origin}/health`),
      await fetch(`${origin}/ready`),
      await fetch(`${origin}/nowhere`),
      await fetch(harness.url, { headers: { accept: 'text/html' } }),
    ]
    // The page of GraphiQL is too long to wait in a socket: unread, it would hold up the end of the service.
    for (const answer of answers) await answer.arrayBuffer()
    expect(answers.map(({ status }) => status)).toEqual([200, 400, 413, 200, 200, 404, 200])
    for (const { headers } of answers) {
      expect(headers.get('cache-control')).toBe('no-store')
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('referrer-policy')).toBe('no-referrer')
      expect(headers.get('cross-origin-resource-policy')).toBe('same-origin')
      expect(headers.get('content-security-policy')).toMatch(/^default-src 'none';.* frame-ancestors 'none'$/)
    }
    const policies = answers.map(({ headers }) => headers.get('content-security-policy'))
    expect(policies.filter((policy) => policy?.includes('script-src'))).toEqual([policies.at(-1)])
  })

  it.each([
    ['an extra id', { id: 'AppQuery', query: '{ __typename }' }],
    ['parameters of its own', { query: '{ __typename }', cacheConfig: { force: true }, key: 7, queryId: null }],
  ])('takes a request with %s, as clients send it', async (_, body) => {
    const response = await post(JSON.stringify(body))
    expect([response.status, await response.json()]).toEqual([200, { data: { __typename: 'Query' } }])
  })

  it('takes a body behind a byte order mark', async () => {
    const response = await post('\uFEFF{"query":"{ __typename }"}')
    expect([response.status, await response.json()]).toEqual([200, { data: { __typename: 'Query' } }])
  })

  it.each([
    'application/json; charset="utf-8"',
    'application/json;charset=UTF-8',
    'application/graphql-response+json; charset="UTF-8"',
    'text/html, application/json;q=0.5',
  ])('answers accept: %s in JSON', async (accept) => {
    const response = await post('{"query":"{ __typename }"}', { accept })
    expect([response.status, await response.json()]).toEqual([200, { data: { __typename: 'Query' } }])
  })

  it('still refuses another charset', async () => {
    expect((await post('{"query":"{ __typename }"}', { accept: 'application/json; charset="latin1"' })).status).toBe(
      406,
    )
  })

  it('takes a body in gzip, and holds it to the same bound after decoding', async () => {
    const zipped = (text: string, encoding = 'gzip') =>
      fetch(harness.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-encoding': encoding },
        body: gzipSync(text),
      })
    for (const encoding of ['gzip', 'x-gzip', 'GZIP']) {
      const response = await zipped('{"query":"{ __typename }"}', encoding)
      expect([response.status, await response.json()]).toEqual([200, { data: { __typename: 'Query' } }])
    }
    // 60 MB in 60 KB.
    const bomb = await zipped(' '.repeat(60_000_000))
    expect([bomb.status, await codesOf(bomb)]).toEqual([413, ['BAD_USER_INPUT']])
    const plain = await post('{"query":"{ __typename }"}', { 'content-encoding': 'gzip' })
    expect([plain.status, await codesOf(plain)]).toEqual([400, ['BAD_USER_INPUT']])
    for (const encoding of ['br', 'deflate', 'zstd', 'gzip, gzip']) {
      const refused = await zipped('{"query":"{ __typename }"}', encoding)
      expect([refused.status, refused.headers.get('accept-encoding')]).toEqual([415, 'gzip'])
      expect(await refused.text()).toContain('send it in gzip, or as it is')
    }
    expect((await post('{"query":"{ __typename }"}', { 'content-encoding': 'identity' })).status).toBe(200)
  })

  it('takes a GET from a page of its own origin or of a listed one, and no other without our header', async () => {
    const open = await startForTest({ CORS_ORIGINS: 'https://app.example.com' })
    const get = async (headers: Record<string, string>, query = '{ __typename }') =>
      (await open.fetch(new Request(`${open.url}?query=${encodeURIComponent(query)}`, { headers }))).status
    expect(await get({ 'sec-fetch-site': 'same-origin' })).toBe(200)
    expect(await get({ origin: 'https://app.example.com', 'sec-fetch-site': 'cross-site' })).toBe(200)
    expect(await get({ 'apollo-require-preflight': 'x' })).toBe(200)
    for (const site of ['cross-site', 'same-site', 'none']) expect(await get({ 'sec-fetch-site': site })).toBe(403)
    expect(await get({ origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' })).toBe(403)
    expect(await get({ origin: 'null' })).toBe(403)
    expect(await get({})).toBe(403)
    // A mutation by GET stays refused from anywhere.
    const mutation = 'mutation { cancelOrder(input: { orderId: "x" }) { outcome } }'
    expect(await get({ 'sec-fetch-site': 'same-origin' }, mutation)).toBe(405)
  })

  it('lets listed origins send any headers of their preflight, and read refusals', async () => {
    const open = await startForTest({ CORS_ORIGINS: 'https://app.example.com' })
    const asked = 'baggage, sentry-trace, traceparent, apollographql-client-name, x-anything-else'
    const preflight = (origin: string) =>
      fetch(open.url, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
      })
    const allowed = (await preflight('https://app.example.com')).headers.get('access-control-allow-headers')
    expect(allowed?.split(/, ?/)).toEqual(asked.split(', '))
    expect((await preflight('https://evil.example')).headers.get('access-control-allow-headers')).toBeNull()

    const refusals: [number, string, RequestInit][] = [
      [404, '/nowhere', {}],
      [413, '/graphql', { method: 'POST', body: 'x'.repeat(256_001) }],
      [415, '/graphql', { method: 'POST', body: 'x', headers: { 'content-encoding': 'br' } }],
      [415, '/graphql', { method: 'POST', body: 'x', headers: { 'content-type': 'text/plain' } }],
      [400, '/graphql', { method: 'POST', body: '{', headers: { 'content-type': 'application/json' } }],
    ]
    for (const [status, path, init] of refusals) {
      for (const origin of ['https://app.example.com', 'https://evil.example']) {
        const { headers, status: answered } = await fetch(new URL(path, open.url), {
          ...init,
          headers: [...Object.entries(init.headers ?? {}), ['origin', origin]],
        })
        expect([path, answered]).toEqual([path, status])
        const isListed = origin === 'https://app.example.com'
        expect(headers.get('access-control-allow-origin')).toBe(isListed ? origin : null)
        if (isListed) expect(headers.get('access-control-expose-headers')).toContain('x-request-id')
      }
    }
  })

  it('takes 1,000 entities with their accounts and the longest ids of each dialect in one request', async () => {
    const query = 'query ($r: [_Any!]!) { _entities(representations: $r) { ... on Order { id } } }'
    const uuid = '446a904b-9861-4adf-80fb-10a3dfa267c7'
    for (const [id, account] of [
      [uuid, uuid],
      [uuid, 'inv_01k3v9c7m2x5r8t4w6z1b0d3fh'],
      [`aries:${uuid}:${uuid}`, `aries:${uuid}`],
    ]) {
      const one = { __typename: 'Order', id, account: { __typename: 'TradingAccount', id: account } }
      const body = JSON.stringify({ query, variables: { r: Array.from({ length: 1_000 }, () => one) } })
      const response = await post(body, { 'x-request-timeout-ms': '1' })
      expect([body.length > 100_000, response.status]).toEqual([true, 200])
    }
  })

  it('leads a browser that opens the bare address to GraphiQL, or to a page that says where GraphQL is', async () => {
    const origin = new URL(harness.url).origin
    const browser = { headers: { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' }, redirect: 'manual' } as const
    const redirect = await fetch(`${origin}/`, browser)
    expect([redirect.status, redirect.headers.get('location')]).toEqual([302, '/graphql'])
    const closed = await startForTest({ GRAPHIQL: 'off' })
    const page = await fetch(new URL('/', closed.url), browser)
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8'])
    expect(await page.text()).toContain('<code>/graphql</code>')
    const program = await fetch(`${origin}/`)
    expect([program.status, await codesOf(program)]).toEqual([404, ['BAD_USER_INPUT']])
    expect((await fetch(`${origin}/`, { method: 'POST', body: '{}' })).status).toBe(404)
  })

  it('F08 refuses an array of operations', async () => {
    const response = await post('[{"query":"{ __typename }"},{"query":"{ __typename }"}]')
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'BAD_USER_INPUT' } }] })
  })

  it('answers what is no JSON with a code and a request id, and without what broke', async () => {
    const response = await post('{"query":')
    expect(response.status).toBe(400)
    const { errors } = (await response.json()) as { errors: { extensions: object }[] }
    expect(Object.keys(errors[0]?.extensions ?? {}).toSorted()).toEqual(['code', 'requestId'])
  })
})

describe('the size of a body', () => {
  const document = (bytes: number) => {
    const shell = JSON.stringify({ query: '{ __typename }', extensions: { pad: '' } })
    return shell.replace('"pad":""', `"pad":"${'x'.repeat(bytes - shell.length)}"`)
  }

  it('F15 takes 256,000 bytes and refuses one more, by its length', async () => {
    expect((await post(document(256_000))).status).toBe(200)
    const refused = await post(document(256_001))
    expect(refused.status).toBe(413)
    expect(await refused.json()).toMatchObject({ errors: [{ message: expect.stringContaining('256000 bytes') }] })
  })

  it('takes a body in chunks, and refuses one that grows past the bound before it ends', async () => {
    const head = `POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`
    const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
    const small = await sendRaw(`${head}${chunk('{"query":"{ __ty')}${chunk('pename }"}')}0\r\n\r\n`, (answer) =>
      answer.includes('Query'),
    )
    expect(small).toMatch(/^HTTP\/1\.1 200 /)
    // Never ended: the answer comes all the same.
    const large = await sendRaw(`${head}${chunk('x'.repeat(150_000))}${chunk('x'.repeat(150_000))}`, (answer) =>
      answer.includes('too large'),
    )
    expect(large).toMatch(/^HTTP\/1\.1 413 /)
  })
})

describe('request ids', () => {
  it('echoes a sane one in the answer and in its errors', async () => {
    const response = await post('{"query":"{ nope }"}', { 'x-request-id': 'desk-7:42' })
    expect(response.headers.get('x-request-id')).toBe('desk-7:42')
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { requestId: 'desk-7:42' } }] })
  })

  it('makes one if it is missing, or could forge a log line', async () => {
    const own = await post('{"query":"{ __typename }"}')
    expect(own.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    const forged = await post('{"query":"{ __typename }"}', { 'x-request-id': 'a b{"level":"error"}' })
    expect(forged.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })
})

describe('the log', () => {
  it('has one line for an operation, with its request id, codes and nothing of the document', async () => {
    const quiet = await startForTest({ LOG_LEVEL: 'info' })
    const query = 'query Desk($id: ID!) { order(id: $id) { id } }'
    await quiet.fetch(
      new Request(quiet.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-request-id': 'desk-8' },
        body: JSON.stringify({ query, variables: { id: '../private' }, operationName: 'Desk' }),
      }),
    )
    const lines = quiet.log().map((line) => JSON.parse(line) as { msg: string })
    expect(lines.filter(({ msg }) => msg === 'operation')).toEqual([
      {
        level: 'info',
        time: expect.any(String),
        requestId: 'desk-8',
        operationName: 'Desk',
        ms: expect.any(Number),
        upstreamCalls: 0,
        codes: ['BAD_USER_INPUT'],
        msg: 'operation',
      },
    ])
  })

  it('names an operation by its document if the request does not, and counts the upstream calls of its writes', async () => {
    const query = 'mutation FromTheText($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }'
    await harness.run(query, { input: limitBuy(harness) })
    const lines = harness.log().map((line) => JSON.parse(line) as Record<string, unknown>)
    // The snapshot before the send, and the send.
    expect(lines.findLast(({ msg }) => msg === 'operation')).toMatchObject({
      operationName: 'FromTheText',
      upstreamCalls: 2,
    })
    const orderId = harness.sandbox.demo.openOrderId
    await harness.run(`mutation { cancelOrder(input: { orderId: "${orderId}" }) { orderId } }`)
    const last = harness.log().map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(last.findLast(({ msg }) => msg === 'operation')).toMatchObject({ upstreamCalls: 2 })
    expect(last.findLast(({ msg }) => msg === 'operation')).not.toHaveProperty('operationName')
  })

  it('tells of upstream calls at debug, and never of credentials', async () => {
    await harness.run(`{ order(id: "${harness.sandbox.demo.filledOrderId}") { id } }`)
    const text = harness.log().join('')
    expect(text).toContain('"msg":"upstream call"')
    expect(text).not.toContain(harness.sandbox.apiSecret)
    expect(text).not.toContain(Buffer.from(`${harness.sandbox.apiKey}:${harness.sandbox.apiSecret}`).toString('base64'))
  })
})

describe('a client that leaves', () => {
  it('D02 ends its reads, and is no bug in the log', async () => {
    await harness.setRules({ match: { method: 'GET' }, fault: { kind: 'latency', ms: 400 } })
    await harness.clearCalls()
    const before = harness.log().length
    const leaving = new AbortController()
    const query = `{ order(id: "${harness.sandbox.demo.filledOrderId}") { id } }`
    const answer = fetch(harness.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query }),
      signal: leaving.signal,
    })
    await expect.poll(async () => (await harness.calls()).length).toBe(1)
    leaving.abort()
    await expect(answer).rejects.toThrow('aborted')
    await expect
      .poll(() =>
        harness
          .log()
          .slice(before)
          .map((line) => JSON.parse(line) as { msg: string; level: string }),
      )
      .toContainEqual(expect.objectContaining({ msg: 'operation left by its client', level: 'debug' }))
    expect(harness.log().slice(before).join('')).not.toContain('"level":"error"')
    await harness.setRules()
  })
})

describe('malformed representations', () => {
  it.each([
    [{ __typename: 'Order' }],
    [{ __typename: 'Order', id: null }],
    [{ __typename: 'Order', id: 7 }],
    [{ __typename: 'Order', id: 'ord_1', account: { id: 7 } }],
    [{ __typename: 'TradingAccount', id: { a: 1 } }],
    [{ __typename: 'Nothing', id: 'x' }],
  ])('%j is the mistake of the caller', async (representation) => {
    const { errors } = await harness.run(
      'query E($representations: [_Any!]!) { _entities(representations: $representations) { __typename } }',
      { representations: [representation] },
    )
    expect(errors?.map((error) => error.extensions.code)).toEqual(['BAD_USER_INPUT'])
  })
})

describe('a router', () => {
  const entities =
    'query E($representations: [_Any!]!) { _entities(representations: $representations) { ... on Order { id } } }'
  const order = () => ({ __typename: 'Order', id: harness.sandbox.demo.filledOrderId })

  it('E14 needs its secret for the fields of routers, in any document', async () => {
    const secret = 'a-secret-of-the-router'
    const guarded = await startForTest({ ROUTER_SECRET: secret })
    const representations = [{ ...order(), id: guarded.sandbox.demo.filledOrderId }]
    const asked: [string, object][] = [
      ['{ _service { sdl } }', {}],
      ['{ a: _service { sdl } ...Others } fragment Others on Query { b: _service { sdl } }', {}],
      [entities, { representations }],
    ]
    for (const [query, variables] of asked) {
      for (const shown of [undefined, '', 'a-secret-of-the-routes', `${secret}x`]) {
        const refused = await guarded.run(query, variables, shown === undefined ? {} : { 'x-router-secret': shown })
        expect(Object.values(refused.data ?? { none: null }).every((value) => value === null)).toBe(true)
        expect(new Set(refused.errors?.map(({ extensions }) => extensions.code))).toEqual(new Set(['FORBIDDEN']))
        expect(JSON.stringify(refused.errors)).not.toContain(secret)
      }
      const taken = await guarded.run(query, variables, { 'x-router-secret': secret })
      expect(taken.errors).toBeUndefined()
    }
    expect((await guarded.calls()).length).toBe(1)
    const ordinary = await guarded.run(`{ order(id: "${guarded.sandbox.demo.filledOrderId}") { status } }`)
    expect(ordinary.data).toEqual({ order: { status: 'FILLED' } })
    expect(guarded.log().join('')).not.toContain(secret)
  })

  it('gets the SDL without introspection', async () => {
    const closed = await startForTest({ INTROSPECTION: 'off', GRAPHIQL: 'off' })
    const { data, errors } = await closed.run('{ _service { sdl } }')
    expect(errors).toBeUndefined()
    expect(data._service.sdl).toContain('type Order')
  })

  it('may ask for a thousand entities at once, which are one call where they are one order, and for no more', async () => {
    await harness.clearCalls()
    const { data } = await harness.run(entities, { representations: Array.from({ length: 1_000 }, order) })
    expect(data._entities).toEqual(Array.from({ length: 1_000 }, () => ({ id: order().id })))
    expect(await harness.calls()).toHaveLength(1)
    const { errors } = await harness.run(entities, { representations: Array.from({ length: 1_001 }, order) })
    expect(errors).toMatchObject([
      { message: expect.stringContaining('at most 1000'), extensions: { code: 'BAD_USER_INPUT' } },
    ])
  })
})

describe('health', () => {
  it('says that it lives and that it may take traffic, and asks no broker', async () => {
    await harness.clearCalls()
    await harness.setRules({ fault: { kind: 'refuse' } })
    for (const path of ['/health', '/ready']) {
      const response = await fetch(new URL(path, harness.url))
      expect(response.status).toBe(200)
    }
    await harness.setRules()
    expect(await harness.calls()).toEqual([])
  })

  it('answers 404 for unknown paths', async () => {
    expect((await fetch(new URL('/nope', harness.url))).status).toBe(404)
    expect((await fetch(new URL('/', harness.url))).status).toBe(404)
  })
})

describe('introspection and GraphiQL', () => {
  const introspection = '{ __schema { queryType { name } } }'

  it('are there over the sandbox', async () => {
    expect((await harness.run(introspection)).data).toEqual({ __schema: { queryType: { name: 'Query' } } })
    const page = await fetch(harness.url, { headers: { accept: 'text/html' } })
    const html = await page.text()
    expect(html).toContain('YogaGraphiQL')
    // Everything the page runs is in it: no script and no style from elsewhere.
    expect(html).not.toMatch(/<(script|link)[^>]+(src|href)="https?:/)
  })

  it('are gone when switched off, and __typename stays', async () => {
    const closed = await startForTest({ GRAPHIQL: 'off', INTROSPECTION: 'off' })
    const { data, errors } = await closed.run(introspection)
    expect(data).toBeUndefined()
    expect(errors?.[0]?.extensions.code).toBe('GRAPHQL_VALIDATION_FAILED')
    expect((await closed.run('{ __typename }')).data).toEqual({ __typename: 'Query' })
    const page = await fetch(closed.url, { headers: { accept: 'text/html' } })
    expect(await page.text()).not.toContain('YogaGraphiQL')
  })
})
