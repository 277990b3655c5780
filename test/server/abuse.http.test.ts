// What no honest client sends: over real sockets, byte by byte where a client library would not send it.

import { connect } from 'node:net'
import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { afterEach, beforeAll, afterAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { limitBuy, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'
import { makeDataDir, startService } from '../process/process.ts'
import type { ServiceProcess } from '../process/process.ts'

let harness: Harness
let linesBefore = 0

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(() => harness.close())

beforeEach(async () => {
  linesBefore = harness.log().length
  await harness.clearCalls()
})

// Whatever was sent: it was no bug, polluted nothing, and the service lives.
afterEach(async () => {
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  const answer = await post('{"query":"{ __typename }"}')
  expect([answer.status, await answer.json()]).toEqual([200, { data: { __typename: 'Query' } }])
  const lines = harness.log().slice(linesBefore)
  expect(lines.filter((line) => line.includes('"level":"error"') || line.includes('"level":"fatal"'))).toEqual([])
})

const json = { 'content-type': 'application/json' }
function post(body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(harness.url, { method: 'POST', headers: { ...json, ...headers }, body })
}

interface Heard {
  text: string
  /** Whether the service closed the connection, with a word or without. */
  isClosed: boolean
  isReset: boolean
}

/** Sends the parts one after the other, then reads until the service closes the connection or `isEnough`. */
function send(
  parts: string | readonly (string | Buffer)[],
  isEnough: (text: string) => boolean = () => false,
  url = harness.url,
): Promise<Heard> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve) => {
    let text = ''
    let isReset = false
    const socket = connect(Number(port), hostname)
    socket.setNoDelay(true)
    for (const part of typeof parts === 'string' ? [parts] : parts) socket.write(part)
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      if (!isEnough(text)) return
      resolve({ text, isClosed: false, isReset })
      socket.destroy()
    })
    // A close that leaves bytes unread is a reset here; what was answered before is there all the same.
    socket.on('error', () => (isReset = true))
    socket.on('close', () => resolve({ text, isClosed: true, isReset }))
  })
}

/** The memory that a service has, and the most that it ever had, in MB. */
function readMemory({ pid }: Pick<ServiceProcess, 'pid'>): { nowMb: number; peakMb: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const [nowMb = 0, peakMb = 0] = ['VmRSS', 'VmHWM'].map(
    (name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024,
  )
  return { nowMb, peakMb }
}

function toStatuses(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
}

/** A request that would ask the broker if anything ran it. */
function readOrder(extra = ''): string {
  const body = JSON.stringify({ query: `{ order(id: "${harness.sandbox.demo.filledOrderId}") { id } }` })
  return `POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${extra}Content-Length: ${body.length}\r\n\r\n${body}`
}

describe('bodies', () => {
  it('F15 50 MB in chunks are refused early, and memory stays flat', async () => {
    const service = await startService({ DATA_DIR: makeDataDir() })
    await service.run('{ __typename }')
    const before = readMemory(service).peakMb
    const head = 'POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    const chunk = `${(1_000_000).toString(16)}\r\n${'x'.repeat(1_000_000)}\r\n`
    for (let round = 0; round < 5; round += 1) {
      const parts = [`${head}Transfer-Encoding: chunked\r\n\r\n`, ...Array.from({ length: 50 }, () => chunk)]
      // Never ended: what is answered is answered before the end.
      const { text } = await send(parts, (heard) => heard.includes('too large'), service.origin)
      expect(toStatuses(text)).toEqual([413])
    }
    // A client that sends all of it before it reads is not reset in the middle.
    const whole = [`${head}Transfer-Encoding: chunked\r\n\r\n`, ...Array.from({ length: 50 }, () => chunk), '0\r\n\r\n']
    const { text, isClosed, isReset } = await send(whole, undefined, service.origin)
    expect([toStatuses(text), isClosed, isReset]).toEqual([[413], true, false])
    expect(await service.run('{ __typename }')).toEqual({ __typename: 'Query' })
    expect(readMemory(service).peakMb - before).toBeLessThan(60)
  })

  it('3,000 different documents of 90 KB leave nothing behind', async () => {
    const service = await startService({ DATA_DIR: makeDataDir() })
    const sendMany = async (bodies: readonly string[]): Promise<void> => {
      for (let sent = 0; sent < bodies.length; sent += 8) {
        const some = bodies.slice(sent, sent + 8).map(async (body) => {
          const response = await fetch(`${service.origin}/graphql`, { method: 'POST', headers: json, body })
          await response.arrayBuffer()
        })
        await Promise.all(some)
      }
    }
    const toDocument = (index: number): object => {
      const pad = 'x'.repeat(80_000)
      if (index % 3 === 0) return { query: `{ f${index} ${'status '.repeat(12_800)} }` }
      if (index % 3 === 1) return { query: `{ a${index}: __typename } #${'x'.repeat(9_000)}`, variables: { pad } }
      return { query: `{ __typename }`, operationName: `n${index}${pad}`, extensions: { pad: index } }
    }
    const small = Array.from({ length: 300 }, (_, index) => JSON.stringify({ query: `{ a${index}: __typename }` }))
    await sendMany(small)
    const before = readMemory(service).nowMb
    await sendMany(Array.from({ length: 3_000 }, (_, index) => JSON.stringify(toDocument(index))))
    expect(readMemory(service).nowMb - before).toBeLessThan(100)
  })

  it('F15 a body that is too large is refused before it is sent, where the client waits for 100 Continue', async () => {
    const head =
      'POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n'
    const refused = await send(`${head}Content-Length: 50000000\r\n\r\n`)
    expect(toStatuses(refused.text)).toEqual([413])
    const body = '{"query":"{ __typename }"}'
    const taken = await send([`${head}Connection: close\r\nContent-Length: ${body.length}\r\n\r\n`, body])
    expect(toStatuses(taken.text)).toEqual([100, 200])
  })

  it('F18 bad JSON and bad UTF-8 are the mistake of the caller', async () => {
    const bodies = [
      '',
      '{',
      '[',
      'null',
      '1',
      '"x"',
      '[]',
      '[[]]',
      '{}',
      '{"query":1}',
      '{"query":null}',
      '{"query":{}}',
      '{"query":"{ __typename }","variables":[]}',
      '{"query":"{ __typename }","variables":"x"}',
      '{"query":"{ __typename }","extensions":[]}',
      '{"query":"{ __typename }","operationName":{}}',
      '{"query":"{ __typename }"',
      '{"query":"{ __typename }"}}',
      "{'query':'{ __typename }'}",
      '{"query":"\\ud800"}',
      '{"query":"{ __typename }","other":1}',
      '\0',
      '[[[[',
      '{"query":"{ __typename }","variables":{"a":1e999}}',
    ]
    for (const body of bodies) {
      const { status } = await post(body)
      expect([body, status < 500]).toEqual([body, true])
    }
    for (const bytes of [
      [0xff, 0xfe, 0x7b],
      [0xc3, 0x28],
      [0xed, 0xa0, 0x80],
      [...Buffer.from('{"query":"{ a'), 0x80, 0xff, ...Buffer.from(' }"}')],
    ])
      expect(await (await post(new Uint8Array(bytes))).json()).toMatchObject({
        errors: [{ extensions: { code: expect.stringMatching(/BAD_USER_INPUT|PARSE_FAILED/) } }],
      })
    for (const query of [
      'query={__typename}&variables={',
      'query={__typename}&extensions=[[',
      'query=%ff',
      'variables=1',
      'query={__typename}&variables=1',
      'query={__typename}&variables=null',
      'query=%',
      'query={__typename}&variables=%7B%22__proto__%22%3A%7B%22polluted%22%3A1%7D%7D',
    ]) {
      const { status } = await fetch(`${harness.url}?${query}`, { headers: { 'apollo-require-preflight': '1' } })
      expect([query, status < 500]).toEqual([query, true])
    }
    const noJson = await fetch(`${harness.url}?query={__typename}&variables={`, {
      headers: { 'apollo-require-preflight': '1' },
    })
    expect([noJson.status, await noJson.json()]).toMatchObject([
      400,
      { errors: [{ message: expect.stringContaining('variables'), extensions: { code: 'BAD_USER_INPUT' } }] },
    ])
    expect(await harness.calls()).toEqual([])
  })

  it('F18 arrays and objects of any depth are no bug, at any place', async () => {
    const entities = 'query ($x: [_Any!]!) { _entities(representations: $x) { __typename } }'
    const orders = 'query ($x: [ID!]!) { ordersByIds(ids: $x) { id } }'
    const placeOrder = 'mutation ($x: PlaceOrderInput!) { placeOrder(input: $x) { outcome } }'
    const placing = (text: string) => JSON.stringify(limitBuy(harness)).replace('"10.00"', text)
    const arrays = '['.repeat(49_000) + ']'.repeat(49_000)
    const objects = '{"a":'.repeat(16_000) + '1' + '}'.repeat(16_000)
    for (const deep of [arrays, objects]) {
      const asked = [
        [entities, deep],
        [entities, `[${deep}]`],
        [entities, `[{"__typename":"Order","id":${deep}}]`],
        [orders, deep],
        [orders, `[${deep}]`],
        [placeOrder, deep],
        [placeOrder, placing(deep)],
        ['{ __typename }', deep],
      ]
      for (const [query, variable] of asked) {
        const response = await post(`{"query":${JSON.stringify(query)},"variables":{"x":${variable}}}`)
        expect([query, response.status < 500]).toEqual([query, true])
        expect(await response.text()).not.toContain('INTERNAL_SERVER_ERROR')
      }
      for (const place of ['variables', 'extensions', 'operationName', 'query', 'other']) {
        const { status } = await post(`{"query":"{ __typename }","${place}":${deep}}`)
        expect(status).toBeLessThan(500)
      }
    }
    expect((await post('['.repeat(100_000))).status).toBe(400)
    expect(await harness.calls()).toEqual([])
  })

  it('F18 keys that reach for prototypes change nothing, and of a key that is there twice one counts', async () => {
    const evil = [
      '"__proto__":{"polluted":1}',
      '"constructor":{"prototype":{"polluted":1}}',
      '"prototype":{"polluted":1}',
    ]
    const id = harness.sandbox.demo.filledOrderId
    for (const pair of [...evil, evil.join()]) {
      for (const body of [
        `{"query":"{ __typename }",${pair}}`,
        `{${pair},"query":"{ __typename }","variables":{${pair}},"extensions":{${pair}}}`,
        `{"query":"{ __typename }","variables":{${pair}}}`,
        `{"query":"{ __typename }","extensions":{${pair}}}`,
        `{"query":"query ($x: [_Any!]!) { _entities(representations: $x) { __typename } }","variables":{"x":[{${pair},"__typename":"__proto__"}]}}`,
        `{"query":"mutation ($x: PlaceOrderInput!) { placeOrder(input: $x) { outcome } }","variables":{"x":{${pair}}}}`,
        `{"query":"query ($__proto__: Int, $constructor: Int) { __typename }","variables":{${pair}}}`,
        `{"query":"query A { __typename }","operationName":"__proto__"}`,
      ]) {
        expect((await post(body)).status).toBeLessThan(500)
        expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
      }
    }
    expect(await harness.calls()).toEqual([])
    const twice = await post(
      `{"query":"{ nope }","query":"query ($id: ID!) { order(id: $id) { id } }","variables":{"id":"x","id":"${id}"}}`,
    )
    expect(await twice.json()).toEqual({ data: { order: { id } } })
  })
})

describe('answers', () => {
  const mutation = () =>
    JSON.stringify({
      query: 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }',
      variables: { input: limitBuy(harness) },
    })

  it.each([
    'text/event-stream',
    'multipart/mixed',
    'multipart/mixed; deferSpec=20220824',
    'text/html',
    'text/plain, image/*',
    'application/xml',
    'application/json; charset=utf-16',
    'application/json;q=0',
    'nonsense',
    ',',
  ])('F19 a client that accepts only %s is refused with the fix, and nothing runs', async (accept) => {
    const query = '{ __typename }'
    const deferred = '{ ... @defer { __typename } }'
    const headers = { accept, 'apollo-require-preflight': '1' }
    const responses = [
      await post(mutation(), { accept }),
      await post(JSON.stringify({ query }), { accept }),
      await post(JSON.stringify({ query: deferred }), { accept }),
      // A browser that takes HTML gets the page of GraphiQL.
      ...(accept === 'text/html' ? [] : [await fetch(`${harness.url}?query=${query}`, { headers })]),
    ]
    for (const response of responses) {
      expect([response.status, response.headers.get('content-type')]).toEqual([406, 'application/json; charset=utf-8'])
      const requestId = response.headers.get('x-request-id')
      expect(requestId).toMatch(/./)
      expect(response.headers.get('cache-control')).toBe('no-store')
      expect(await response.json()).toEqual({
        errors: [
          {
            message: expect.stringContaining('accept: application/json'),
            extensions: { code: 'BAD_USER_INPUT', requestId },
          },
        ],
      })
    }
    expect(await harness.calls()).toEqual([])
  })

  it.each([
    '*/*',
    'application/*',
    'application/json',
    'application/graphql-response+json',
    'APPLICATION/JSON;charset=UTF-8',
    'text/event-stream, application/json',
    'application/json, text/event-stream',
    'multipart/mixed;deferSpec=20220824, application/graphql-response+json;q=0.9, */*;q=0.1',
    'text/event-stream, */*;q=0.1',
  ])('F19 a client that accepts %s gets JSON', async (accept) => {
    const response = await post('{"query":"{ __typename }"}', { accept })
    expect(response.headers.get('content-type')).toMatch(/^application\/(graphql-response\+)?json/)
    expect([response.status, await response.json()]).toEqual([200, { data: { __typename: 'Query' } }])
  })

  it('F19 a document with @defer or @stream is an error, and no stream', async () => {
    for (const query of ['{ ... @defer { __typename } }', '{ tradingAccounts @stream(initialCount: 0) { id } }']) {
      const response = await post(JSON.stringify({ query }), { accept: 'multipart/mixed, application/json' })
      expect(response.headers.get('content-type')).toMatch(/^application\/json/)
      expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }] })
    }
  })

  it('F22 of several operations none is run when none is named, or one that is not there', async () => {
    const input = JSON.stringify(limitBuy(harness))
      .replaceAll(/"(\w+)":/g, '$1:')
      .replace(/side:"BUY"/, 'side:BUY')
    const fixed = input.replace('type:"LIMIT"', 'type:LIMIT').replace('timeInForce:"GTC"', 'timeInForce:GTC')
    const read = `order(id: "${harness.sandbox.demo.filledOrderId}") { id }`
    const write = `placeOrder(input: ${fixed}) { outcome }`
    const documents = [
      `query A { ${read} } query B { ${read} }`,
      `mutation A { ${write} } mutation B { ${write} }`,
      `query A { ${read} } mutation B { ${write} }`,
    ]
    for (const query of documents) {
      for (const operationName of [undefined, null, '', 'C', 'a', 'A ', '__proto__', 'constructor']) {
        const response = await post(JSON.stringify({ query, operationName }))
        expect(response.status).toBe(400)
        const { data, errors } = (await response.json()) as { data?: unknown; errors: unknown[] }
        expect([data, errors.length]).toEqual([undefined, 1])
      }
    }
    expect((await post(JSON.stringify({ query: `mutation A { ${write} }`, operationName: 'B' }))).status).toBe(400)
    expect(await harness.calls()).toEqual([])
    // The documents themselves are good.
    const named = await post(JSON.stringify({ query: documents[2], operationName: 'B' }))
    expect(await named.json()).toEqual({ data: { placeOrder: { outcome: 'PLACED' } } })
  })
})

describe('requests that two readers could read differently', () => {
  const head = 'POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
  const body = '{"query":"{ __typename }"}'
  const length = `Content-Length: ${body.length}\r\n`

  it.each([
    ['a length and chunks', `${head}${length}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['chunks and a length', `${head}Transfer-Encoding: chunked\r\n${length}\r\n0\r\n\r\n`],
    ['two lengths', `${head}${length}Content-Length: 5\r\n\r\n${body}`],
    ['the same length twice', `${head}${length}${length}\r\n${body}`],
    ['a list of lengths', `${head}Content-Length: 26, 26\r\n\r\n${body}`],
    ['a folded header', `${head}X-A: 1\r\n Content-Length: 5\r\n${length}\r\n${body}`],
    ['a folded length', `${head}Content-Length:\r\n 26\r\n\r\n${body}`],
    ['a negative length', `${head}Content-Length: -1\r\n\r\n${body}`],
    ['a hexadecimal length', `${head}Content-Length: 0x1a\r\n\r\n${body}`],
    ['a length with a sign', `${head}Content-Length: +26\r\n\r\n${body}`],
    ['a length beyond numbers', `${head}Content-Length: 99999999999999999999999\r\n\r\n${body}`],
    ['no length after its name', `${head}Content-Length: \r\n\r\n${body}`],
    ['a space before the colon', `${head}Content-Length : 26\r\n\r\n${body}`],
    ['a space in a name', `${head}Content Length: 26\r\n\r\n${body}`],
    ['a bare LF', `${head.replaceAll('\r', '')}${length.replace('\r', '')}\n${body}`],
    ['a bare LF behind a header', `${head}X-A: 1\n${length}\r\n${body}`],
    ['a bare CR in a header', `${head}X-A: 1\r${length}\r\n${body}`],
    ['a NUL in a header', `${head}X-A: a\0b\r\n${length}\r\n${body}`],
    ['a NUL in a name', `${head}X\0A: a\r\n${length}\r\n${body}`],
    ['garbage for the size of a chunk', `${head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n${body}\r\n0\r\n\r\n`],
    ['a negative size of a chunk', `${head}Transfer-Encoding: chunked\r\n\r\n-1\r\n${body}\r\n0\r\n\r\n`],
    ['a size of a chunk beyond numbers', `${head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n${body}`],
    ['a chunk longer than its size', `${head}Transfer-Encoding: chunked\r\n\r\n5\r\n${body}\r\n0\r\n\r\n`],
    ['chunks that end with a bare LF', `${head}Transfer-Encoding: chunked\r\n\r\n1a\n${body}\n0\n\n`],
    ['another coding behind chunks', `${head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`],
    ['a coding that is none', `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    ['a method that is none', `GRAPH /graphql HTTP/1.1\r\nHost: localhost\r\n\r\n`],
    ['no method', `/graphql HTTP/1.1\r\nHost: localhost\r\n\r\n`],
    ['a version that is none', `GET /graphql HTTP/9.9\r\nHost: localhost\r\n\r\n`],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['no host', `GET /health HTTP/1.1\r\n\r\n`],
  ])('F23 %s: refused and closed, and nothing behind it is run', async (_name, bytes) => {
    const { text, isClosed } = await send([Buffer.from(bytes + readOrder(), 'latin1')])
    expect(toStatuses(text)).toEqual([400])
    expect(isClosed).toBe(true)
    expect(await harness.calls()).toEqual([])
  })
})

describe('methods and targets', () => {
  const query = () => encodeURIComponent(`{ order(id: "${harness.sandbox.demo.filledOrderId}") { id } }`)

  it.each(['HEAD', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'OPTIONS', 'PROPFIND', 'QUERY', 'SEARCH', 'LINK'])(
    'F24 %s runs nothing',
    async (method) => {
      const headers =
        'Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nApollo-Require-Preflight: 1\r\n'
      const [, body = ''] = readOrder().split('\r\n\r\n')
      for (const bytes of [
        `${method} /graphql?query=${query()} HTTP/1.1\r\n${headers}\r\n`,
        `${method} /graphql HTTP/1.1\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`,
        `${method} /graphql HTTP/1.1\r\n${headers.replace(/Apollo.*\r\n/, '')}Accept: text/event-stream\r\n\r\n`,
      ]) {
        const { text } = await send(bytes)
        expect(toStatuses(text)).toHaveLength(1)
        expect([204, 405, 406]).toContain(toStatuses(text)[0])
      }
      expect(await harness.calls()).toEqual([])
    },
  )

  it('F24 CONNECT is closed', async () => {
    for (const target of ['evil.example:443', 'localhost:4000', '/graphql']) {
      const { text, isClosed } = await send(`CONNECT ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n${readOrder()}`)
      expect([toStatuses(text).filter((status) => status < 400), isClosed]).toEqual([[], true])
    }
    expect(await harness.calls()).toEqual([])
  })

  it.each([
    '/graphql/../x',
    '/x/../graphql',
    '/graphql/.',
    '//graphql',
    '/graphql/',
    '/x/graphql',
    '/x?a=/graphql',
    '/GraphQL',
    '/%67raphql',
    '/graphql%00',
    '/graphql;a=b',
    '\\graphql',
    '/\\evil.example/graphql',
    '//evil.example/graphql',
    'http://evil.example/graphql',
    'http://localhost/graphql',
    'https://localhost:4000/graphql',
    'http://localhost@evil.example/graphql',
    'file:///graphql',
    '*',
    'graphql',
    '@evil.example/graphql',
    ':80/graphql',
    '.evil.example/graphql',
  ])('F24 there is nothing at %s', async (target) => {
    const rest = readOrder('Connection: close\r\n').replace('POST /graphql', '')
    const marked = 'HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nApollo-Require-Preflight: 1\r\n'
    for (const bytes of [
      `POST ${target}${rest}`,
      `GET ${target}${target.includes('?') ? '&' : '?'}query=${query()} ${marked}\r\n`,
      `GET ${target} ${marked}Accept: text/html\r\n\r\n`,
      `OPTIONS ${target} ${marked}\r\n`,
    ]) {
      const { text } = await send(bytes)
      expect(toStatuses(text)).toHaveLength(1)
      expect([400, 404]).toContain(toStatuses(text)[0])
      expect(text).not.toMatch(/node_modules|GraphiQL/)
    }
    expect(await harness.calls()).toEqual([])
  })

  it.each([
    ['evil.example', 403],
    ['localhost.evil.example', 403],
    ['localhost@evil.example', 400],
    ['evil.example@localhost', 400],
    ['localhost:4000/graphql?', 400],
    ['localhost/x', 400],
    ['localhost#', 400],
    ['localhost:99999', 400],
    ['localhost:x', 400],
    ['a b', 400],
    ['[::1', 400],
    ['%6cocalhost', 400],
    ['', 400],
    ['"', 400],
  ])('F24 the host %j is refused', async (host, status) => {
    const { text } = await send(readOrder('Connection: close\r\n').replace('localhost', host))
    expect(toStatuses(text)).toEqual([status])
    expect(await harness.calls()).toEqual([])
  })
})

describe('connections', () => {
  it('D12 memory is bounded where many ask for a page of 9 MB and read nothing, one by one or all at once', async () => {
    const service = await startService({ DATA_DIR: makeDataDir() })
    const { hostname, port } = new URL(service.origin)
    const ask = 'GET /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n'
    for (const times of [1, 100]) {
      for (let client = 0; client < 100 / times + 1; client += 1) {
        const socket = connect(Number(port), hostname)
        socket.on('error', () => {})
        socket.pause()
        socket.write(ask.repeat(times))
        onTestFinished(() => void socket.destroy())
      }
    }
    // Behind all of them.
    for (let round = 0; round < 20; round += 1) expect(await service.run('{ __typename }')).toBeDefined()
    expect(readMemory(service).peakMb).toBeLessThan(600)
  })

  it('D12 no connection is kept after a large answer, of which the kernel may hold all for a client that reads nothing', async () => {
    const page = await send('GET /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n')
    expect([toStatuses(page.text), page.isClosed, page.isReset]).toEqual([[200], true, false])
    expect(page.text.length).toBeGreaterThan(1_000_000)
    const small = await send(readOrder(), (heard) => heard.endsWith('}}}'))
    expect(small.text).toMatch(/^Connection: keep-alive\r$/im)
  })

  it('a thousand requests that come at once are answered one by one', async () => {
    const ask = 'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'
    const { text } = await send(`${ask.repeat(999)}${readOrder('Connection: close\r\n')}`)
    expect(toStatuses(text)).toEqual(Array.from({ length: 1_000 }, () => 200))
    expect(await harness.calls()).toHaveLength(1)
  })

  it('headers have a bound, in number and in size', async () => {
    const many = Array.from({ length: 2_000 }, (_, at) => `X-${at}: 1\r\n`).join('')
    const large = `X-Large: ${'x'.repeat(20_000)}\r\n`
    for (const headers of [many, large, `Authorization: Bearer ${'a'.repeat(20_000)}\r\n`]) {
      const { text, isClosed } = await send(readOrder(headers))
      expect([toStatuses(text), isClosed]).toEqual([[431], true])
    }
    const target = await send(`GET /graphql?query=${'x'.repeat(20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    expect(toStatuses(target.text)).toEqual([431])
    expect(await harness.calls()).toEqual([])
  })

  it('an upgrade is not made', async () => {
    for (const protocol of ['websocket', 'h2c', 'TLS/1.0']) {
      const headers = `Connection: Upgrade, close\r\nUpgrade: ${protocol}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n`
      const { text } = await send(`GET /graphql HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`)
      expect(toStatuses(text)).toEqual([403])
    }
  })

  it('an unknown expectation is refused', async () => {
    const { text } = await send(readOrder('Connection: close\r\nExpect: the-moon\r\n'))
    expect(toStatuses(text)).toEqual([417])
    expect(await harness.calls()).toEqual([])
  })

  it('of several tokens none is put together with another', async () => {
    const tokens = 'Authorization: Bearer a\r\nAuthorization: Bearer b\r\nauthorization: Basic Og==\r\n'
    const { text } = await send(readOrder(`Connection: close\r\n${tokens}`))
    expect(toStatuses(text)).toHaveLength(1)
    expect(toStatuses(text)[0]).toBeLessThan(500)
  })
})

describe('garbage', () => {
  const statuses = [100, 200, 204, 400, 403, 404, 405, 406, 408, 413, 414, 415, 417, 431]
  const mostly = <T>(common: fc.Arbitrary<T>, seldom: fc.Arbitrary<T>): fc.Arbitrary<T> =>
    fc.oneof({ weight: 8, arbitrary: common }, { weight: 1, arbitrary: seldom })
  const names = ['Accept', 'Content-Type', 'Expect', 'Connection', 'Upgrade', 'Origin', 'X-Request-Id', 'Authorization']
  const oddNames = [
    'Apollo-Require-Preflight',
    'Cookie',
    'Range',
    'TE',
    'Content-Encoding',
    'X-Request-Timeout-Ms',
    'Trailer',
  ]
  const name = mostly(
    fc.constantFrom(...names, ...oddNames),
    fc.oneof(
      fc.constantFrom('Content-Length', 'Transfer-Encoding', 'Host'),
      fc.string({ unit: 'binary-ascii', maxLength: 20 }),
    ),
  )
  const values = [
    'application/json',
    'text/event-stream',
    'text/html',
    '*/*',
    'localhost',
    '0',
    '1e3',
    'chunked',
    'gzip',
  ]
  const oddValues = ['keep-alive', '100-continue', 'websocket', 'null', '', 'bytes=0-', '"', 'é', '../..', 'Bearer x']
  const value = mostly(fc.constantFrom(...values, ...oddValues), fc.string({ unit: 'binary', maxLength: 60 }))
  const target = mostly(
    fc.constantFrom(
      '/graphql',
      '/graphql',
      '/graphql?query={__typename}',
      '/graphql?query=%7B',
      '/graphql?variables=[',
      '/health',
      '/ready',
    ),
    fc.oneof(
      fc.constantFrom('*', '//graphql', '/'),
      fc.webUrl({ withQueryParameters: true }),
      fc.string({ unit: 'binary-ascii', maxLength: 40 }).map((text) => `/graphql?${text}`),
      fc.string({ unit: 'binary', maxLength: 40 }),
    ),
  )
  const method = mostly(
    fc.constantFrom('POST', 'POST', 'GET', 'OPTIONS', 'HEAD', 'PUT', 'TRACE'),
    fc.oneof(fc.constantFrom('CONNECT', 'M-SEARCH'), fc.string({ unit: 'binary-ascii', maxLength: 10 })),
  )
  const body = fc.oneof(
    fc.constantFrom('', '{"query":"{ __typename }"}', '{"query":"{ nope }"}', '{"query":"subscription { x }"}'),
    fc.json({ maxDepth: 4 }),
    fc
      .record(
        { query: fc.anything(), variables: fc.anything(), operationName: fc.anything(), extensions: fc.anything() },
        { requiredKeys: [] },
      )
      .map((value) => {
        try {
          return JSON.stringify(value) ?? ''
        } catch {
          return '{'
        }
      }),
    fc.string({ unit: 'binary', maxLength: 200 }),
  )
  const request = fc
    .record({
      method,
      target,
      headers: fc.array(fc.tuple(name, value), { maxLength: 4 }),
      body,
      isPlain: mostly(fc.constant(true), fc.constant(false)),
      framing: mostly(fc.constantFrom('length', 'chunked'), fc.constantFrom('none', 'both', 'wrong')),
    })
    .map(({ method, target, headers, body, isPlain, framing }) => {
      const bytes = Buffer.byteLength(body)
      const framed = {
        length: [`Content-Length: ${bytes}`],
        chunked: ['Transfer-Encoding: chunked'],
        none: [],
        both: [`Content-Length: ${bytes}`, 'Transfer-Encoding: chunked'],
        wrong: [`Content-Length: ${bytes + 3}`],
      }[framing]
      const sent = framing === 'chunked' || framing === 'both' ? `${bytes.toString(16)}\r\n${body}\r\n0\r\n\r\n` : body
      const usual = isPlain ? ['Host: localhost', 'Content-Type: application/json'] : []
      const lines = [...usual, ...headers.map(([name, value]) => `${name}: ${value}`), ...framed]
      return Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n${sent}`)
    })
  const sent = fc.record({
    requests: fc.array(request, { minLength: 1, maxLength: 3 }),
    cuts: fc.array(fc.nat(2_000), { maxLength: 5 }),
    noise: mostly(fc.constant(null), fc.record({ at: fc.nat(2_000), bytes: fc.uint8Array({ maxLength: 20 }) })),
    keptBytes: mostly(fc.constant(null), fc.nat(1_000)),
  })

  it('gets an HTTP answer with a 4xx, or none, without a call to a broker', async () => {
    const counts = new Map<number, number>()
    await fc.assert(
      fc.asyncProperty(sent, async ({ requests, cuts, noise, keptBytes }) => {
        let bytes = Buffer.concat(requests)
        if (noise) bytes = Buffer.concat([bytes.subarray(0, noise.at), noise.bytes, bytes.subarray(noise.at)])
        if (keptBytes !== null) bytes = bytes.subarray(0, keptBytes)
        const ends = [...cuts.filter((cut) => cut < bytes.length).toSorted((a, b) => a - b), bytes.length]
        const parts = ends.map((end, at) => bytes.subarray(ends[at - 1] ?? 0, end))
        const text = await sendAndEnd(parts)
        for (const status of parseAnswers(text)) {
          expect(statuses).toContain(status)
          counts.set(status, (counts.get(status) ?? 0) + 1)
        }
        expect((await fetch(new URL('/health', harness.url))).status).toBe(200)
      }),
      { seed: 20_261, numRuns: 300 },
    )
    console.log(`answers to garbage: ${JSON.stringify(Object.fromEntries(counts))}`)
    // Garbage of one kind alone would prove little.
    expect(counts.size).toBeGreaterThan(5)
    expect(await harness.calls()).toEqual([])
  })

  /** Sends all, says that no more comes, and reads what there is. */
  function sendAndEnd(parts: readonly Buffer[]): Promise<string> {
    const { hostname, port } = new URL(harness.url)
    return new Promise((resolve) => {
      let text = ''
      const socket = connect(Number(port), hostname)
      socket.setNoDelay(true)
      for (const part of parts) socket.write(part)
      socket.end()
      socket.on('data', (chunk) => (text += chunk.toString('latin1')))
      socket.on('error', () => {})
      socket.on('close', () => resolve(text))
    })
  }

  /** The statuses of all answers. Throws where anything else came than one answer after the other. */
  function parseAnswers(text: string): number[] {
    const found: number[] = []
    let rest = text
    while (rest !== '') {
      const [, head = '', status = ''] =
        /^(HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n(?:[\w-]+: [^\r\n]*\r\n)*\r\n)/.exec(rest) ?? []
      expect(head, rest).not.toBe('')
      found.push(Number(status))
      rest = rest.slice(head.length)
      const chunked = /^transfer-encoding: chunked/im.test(head)
      const end = chunked ? rest.indexOf('0\r\n\r\n') + 5 : Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0)
      // HEAD tells of a body that does not come.
      rest = rest.startsWith('HTTP/1.1 ') ? rest : rest.slice(end)
    }
    return found
  }
})
