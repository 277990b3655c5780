import { once } from 'node:events'
import diagnostics from 'node:diagnostics_channel'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { createServer as createSocketServer, type Server as SocketServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { inspect } from 'node:util'
import { gzipSync } from 'node:zlib'
import { Pool } from 'undici'
import { afterEach, describe, expect, test, vi } from 'vitest'

import { UpstreamError } from '../../src/upstream/errors.ts'
import { type Call, createHttp, type Http, type HttpOptions } from '../../src/upstream/http.ts'

// Long enough never to end a call that is meant to end otherwise.
const get: Call = { method: 'GET', path: '/orders', firstByteMs: null, attemptMs: 5_000 }
const post: Call = { method: 'POST', path: '/orders', body: { symbol: 'AAPL' }, firstByteMs: null, attemptMs: 5_000 }
const credential = 'Bearer top-secret'
const answerSecret = 'body-secret'

const cleanups: (() => Promise<unknown> | void)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

interface Upstream {
  url: string
  /** `POST /orders` and so on, in order of arrival. */
  hits: string[]
  requests: IncomingMessage[]
  sockets: Set<Socket>
  openMax: number
}

async function listen(server: Server | SocketServer): Promise<Upstream> {
  const upstream: Upstream = { url: '', hits: [], requests: [], sockets: new Set(), openMax: 0 }
  server.on('connection', (socket: Socket) => {
    upstream.sockets.add(socket)
    upstream.openMax = Math.max(upstream.openMax, upstream.sockets.size)
    socket.on('error', () => {})
    socket.on('close', () => upstream.sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  upstream.url = `http://127.0.0.1:${address.port}`
  cleanups.push(() => {
    for (const socket of upstream.sockets) socket.destroy()
    server.close()
  })
  return upstream
}

async function serve(listener: RequestListener): Promise<Upstream> {
  const server = createServer((request, response) => {
    upstream.hits.push(`${request.method} ${request.url}`)
    upstream.requests.push(request)
    listener(request, response)
  })
  const upstream = await listen(server)
  return upstream
}

function open(baseUrl: string, options: Partial<HttpOptions> = {}): Http {
  const http = createHttp({ baseUrl, headers: { Authorization: credential }, ...options })
  cleanups.push(() => http.close())
  return http
}

/** How the call failed. Every failure of this file is searched for what must not be in it. */
async function failureOf(promise: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await promise.then(
    (answer) => expect.unreachable(`answered: ${inspect(answer)}`),
    (error: unknown) => error,
  )
  if (!(error instanceof UpstreamError)) throw error
  const text = inspect(error, { depth: Infinity, showHidden: true }) + JSON.stringify(error)
  expect(text).not.toContain('secret')
  expect(text).not.toMatch(/authorization/i)
  return error
}

function whole(status: number, headers: Record<string, string | string[]>, body: string | Buffer): RequestListener {
  return (request, response) => {
    request.resume()
    response.writeHead(status, headers).end(body)
  }
}
const json = (status: number, body: string, headers: Record<string, string> = {}): RequestListener =>
  whole(status, { 'content-type': 'application/json', ...headers }, body)

/** The events of the channel while the test runs. */
function collect(channel: string): unknown[] {
  const events: unknown[] = []
  const onEvent = (event: unknown): void => void events.push(event)
  diagnostics.subscribe(channel, onEvent)
  cleanups.push(() => void diagnostics.unsubscribe(channel, onEvent))
  return events
}

/** Resolves when the headers of the next request of this process were handed to a socket. */
function headersSent(): Promise<void> {
  return new Promise((resolve) => {
    const onSend = (): void => {
      diagnostics.unsubscribe('undici:client:sendHeaders', onSend)
      resolve()
    }
    diagnostics.subscribe('undici:client:sendHeaders', onSend)
  })
}

/** A server that keeps each answer until it is told, and the answers it keeps. */
async function serveHeld(): Promise<{ upstream: Upstream; next: () => Promise<ServerResponse> }> {
  const held: ServerResponse[] = []
  const waiting: ((response: ServerResponse) => void)[] = []
  const upstream = await serve((request, response) => {
    request.resume()
    const give = waiting.shift()
    if (give === undefined) held.push(response)
    else give(response)
  })
  const next = (): Promise<ServerResponse> => {
    const response = held.shift()
    return response === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(response)
  }
  return { upstream, next }
}

function release(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
}

describe('the request', () => {
  test('a call goes to the base path with its query, its headers and its body as JSON', async () => {
    let body = ''
    const upstream = await serve((request, response) => {
      request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
      request.on('end', () => json(200, '{"ok":true}')(request, response))
    })
    const http = open(`${upstream.url}/v1/`)
    const answer = await http.write({
      ...post,
      query: { at: '2026-01-02T03:04:05Z', n: 'a&b' },
      headers: { 'X-Key': 'k' },
    })
    expect(answer).toEqual({ status: 200, body: { ok: true }, retryAfterMs: null })
    expect(upstream.hits).toEqual(['POST /v1/orders?at=2026-01-02T03%3A04%3A05Z&n=a%26b'])
    expect(JSON.parse(body)).toEqual({ symbol: 'AAPL' })
    expect(upstream.requests[0]?.headers).toMatchObject({
      accept: 'application/json',
      'accept-encoding': 'identity',
      authorization: credential,
      'content-type': 'application/json',
      'x-key': 'k',
      'x-request-id': expect.stringMatching(/^[0-9a-f-]{36}$/),
    })
  })

  test('a call without a body has no content-type, and its own headers win', async () => {
    const upstream = await serve(json(200, '[]'))
    await open(upstream.url).read({ ...get, headers: { authorization: 'Bearer other' } })
    expect(upstream.requests[0]?.headers['content-type']).toBeUndefined()
    expect(upstream.requests[0]?.headers.authorization).toBe('Bearer other')
  })
})

describe('onSent', () => {
  test('is called once, when the headers leave: not before there is a connection', async () => {
    const { upstream, next } = await serveHeld()
    const http = open(upstream.url, { writeConnections: 1 })
    const sent: string[] = []
    const busy = http.write({ ...post, onSent: () => sent.push('first') })
    expect(sent).toEqual([])
    const answer = await next()
    expect(sent).toEqual(['first'])
    const queued = http.write({ ...post, onSent: () => sent.push('second') })
    await delay(50)
    expect(sent).toEqual(['first'])
    release(answer)
    await busy
    release(await next())
    await queued
    expect(sent).toEqual(['first', 'second'])
    for (const way of ['read', 'cancel'] as const) {
      const answered = http[way]({ ...get, onSent: () => sent.push(way) })
      release(await next())
      await answered
    }
    expect(sent).toEqual(['first', 'second', 'read', 'cancel'])
  })

  test('is never called for what does not leave, nor later than its end', async () => {
    const onSent = vi.fn<() => void>()
    const { upstream, next } = await serveHeld()
    const http = open(upstream.url, { writeConnections: 1, readConnections: 1 })
    const busy = [http.write(post), http.read(get)]
    const answers = [await next(), await next()]
    await failureOf(http.write({ ...post, attemptMs: 50, onSent }))
    await failureOf(http.write({ ...post, sendBy: Date.now() + 20, onSent }))
    await failureOf(http.write({ ...post, sendBy: 0, onSent }))
    const controller = new AbortController()
    const left = http.read({ ...get, signal: controller.signal, onSent })
    controller.abort('left')
    await expect(left).rejects.toBe('left')
    answers.forEach(release)
    await Promise.all(busy)
    await http.close()
    await failureOf(http.write({ ...post, onSent }))
    await failureOf(open('http://127.0.0.1:1').write({ ...post, onSent }))
    expect(onSent).not.toHaveBeenCalled()
    expect(upstream.hits).toHaveLength(2)
  })
})

describe('an answer', () => {
  test('keeps the digits of every number', async () => {
    const digits = '123456789012345678901234567890'
    const upstream = await serve(
      json(
        200,
        `{"a":0.1000000000000000055,"b":[12345678901234567890,${digits},-1.50,1E400],"c":"1","d":null,"e":true}`,
      ),
    )
    expect((await open(upstream.url).read(get)).body).toEqual({
      a: '0.1000000000000000055',
      b: ['12345678901234567890', digits, '-1.50', '1E400'],
      c: '1',
      d: null,
      e: true,
    })
  })

  test.for([
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/problem+json',
    'text/plain',
    'text/json',
  ])('may call itself %s', async (type) => {
    const upstream = await serve(whole(200, { 'content-type': type }, '{"name":"Zoë"}'))
    expect((await open(upstream.url).read(get)).body).toEqual({ name: 'Zoë' })
  })

  test('of 4xx with a JSON body is returned, for the adapter to judge', async () => {
    const upstream = await serve(json(422, '{"code":"NO_FUNDS"}'))
    expect(await open(upstream.url).write(post)).toEqual({
      status: 422,
      body: { code: 'NO_FUNDS' },
      retryAfterMs: null,
    })
  })

  test('may take longer for its body than for its first byte', async () => {
    const upstream = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).write('[')
      setTimeout(() => response.end(']'), 150)
    })
    expect((await open(upstream.url).read({ ...get, firstByteMs: 75 })).body).toEqual([])
  })

  test('reads the wait from each form of Retry-After', async () => {
    const nowMs = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT')
    const cases: [string, number | null][] = [
      ['0', 0],
      ['2', 2_000],
      ['100000', 60_000],
      ['9'.repeat(400), 60_000],
      ['Wed, 21 Oct 2026 07:28:05 GMT', 5_000],
      ['Wed, 21 Oct 2026 09:28:05 GMT', 60_000],
      ['Wed, 21 Oct 2026 07:27:05 GMT', 0],
      ['Wed, 99 Oct 2026 07:27:05 GMT', null],
      ['-5', null],
      ['1.5', null],
      ['soon', null],
      ['', null],
    ]
    let value = ''
    const upstream = await serve((request, response) =>
      json(429, '{"code":"SLOW_DOWN"}', { 'retry-after': value })(request, response),
    )
    const http = open(upstream.url, { now: () => nowMs })
    for (const [text, expected] of cases) {
      value = text
      expect([text, (await http.read(get)).retryAfterMs]).toEqual([text, expected])
    }
  })
})

describe('nothing left the process', () => {
  test('when the port refuses the connection', async () => {
    const upstream = await serve(json(200, '{}'))
    const gone = createSocketServer()
    const { url } = await listen(gone)
    gone.close()
    await once(gone, 'close')
    expect(url).not.toBe(upstream.url)
    const failure = await failureOf(open(url).write(post))
    expect(failure).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: false, status: null })
    expect(failure.message).toBe('POST not sent: ECONNREFUSED')
    expect(failure.cause).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('when the name does not resolve', async () => {
    const failure = await failureOf(open('http://broker.invalid').write({ ...post, attemptMs: 500 }))
    expect(failure).toMatchObject({ kind: 'not_sent', effect: 'none' })
  })

  test('when the other side speaks no TLS', async () => {
    const upstream = await listen(createSocketServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')))
    const failure = await failureOf(open(upstream.url.replace('http:', 'https:')).write(post))
    expect(failure).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: false })
  })

  test('when the connection takes too long to be made, or longer than the attempt may last', async () => {
    const upstream = await listen(createSocketServer(() => {}))
    const http = open(upstream.url.replace('http:', 'https:'))
    const [slow, short] = await Promise.all([
      failureOf(http.write(post)),
      failureOf(http.write({ ...post, attemptMs: 50 })),
    ])
    expect(slow).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: true })
    expect(slow.message).toBe('POST not sent: UND_ERR_CONNECT_TIMEOUT')
    expect(short).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: true })
    expect(short.message).toBe('POST not sent: ATTEMPT_DEADLINE')
  })

  test('when it is too late to send at all', async () => {
    const upstream = await serve(json(200, '{}'))
    const failure = await failureOf(open(upstream.url, { now: () => 1_000 }).write({ ...post, sendBy: 1_000 }))
    expect(failure).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: true })
    expect(upstream.hits).toEqual([])
    expect(upstream.openMax).toBe(0)
  })

  test.for([
    ['sendBy', (): Call => ({ ...post, path: '/late', sendBy: Date.now() + 50 })],
    ['the attempt', (): Call => ({ ...post, path: '/late', attemptMs: 50, firstByteMs: 20 })],
  ] as const)('when a write queues behind busy connections until %s is over', async ([, toCall]) => {
    const { upstream, next } = await serveHeld()
    const http = open(upstream.url, { writeConnections: 2 })
    const busy = [http.write(post), http.write(post)]
    const answers = [await next(), await next()]
    const failure = await failureOf(http.write(toCall()))
    expect(failure).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: true, status: null })

    // The queue moves on without it, over the same connections.
    const after = [http.write({ ...post, path: '/next' }), http.write({ ...post, path: '/next' })]
    answers.forEach(release)
    await Promise.all(busy)
    release(await next())
    release(await next())
    await Promise.all(after)
    expect(upstream.hits).toEqual(['POST /orders', 'POST /orders', 'POST /next', 'POST /next'])
    expect(upstream.openMax).toBe(2)
    await http.close()
    expect(upstream.hits).toHaveLength(4)
  })

  test('when its turn in the queue comes too late but before any timer', async () => {
    let nowMs = 1_000
    const { upstream, next } = await serveHeld()
    const http = open(upstream.url, { writeConnections: 1, now: () => nowMs })
    const busy = http.write(post)
    const answer = await next()
    const late = failureOf(http.write({ ...post, path: '/late', sendBy: 100_000 }))
    nowMs = 100_000
    release(answer)
    await busy
    expect(await late).toMatchObject({ kind: 'not_sent', effect: 'none', timedOut: true })
    expect(upstream.hits).toEqual(['POST /orders'])
  })

  test('when the call is one that undici refuses, or comes after close', async () => {
    const upstream = await serve(json(200, '{}'))
    const http = open(upstream.url)
    const failure = await failureOf(http.write({ ...post, headers: { 'x-note': 'top-secret\r\nx-more: 1' } }))
    expect(failure).toMatchObject({ kind: 'not_sent', effect: 'none' })
    await http.close()
    expect(await failureOf(http.write(post))).toMatchObject({ kind: 'not_sent', effect: 'none' })
    expect(upstream.hits).toEqual([])
  })
})

describe('it may have happened', () => {
  test('when the connection is reset before the headers were read', async () => {
    const server = createSocketServer({ pauseOnConnect: true })
    const upstream = await listen(server)
    const [sent, accepted] = [headersSent(), once(server, 'connection')]
    const failure = failureOf(open(upstream.url).write(post))
    await sent
    await accepted
    for (const socket of upstream.sockets) socket.resetAndDestroy()
    expect(await failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: false, status: null })
  })

  test('when the connection is reset after the headers were read', async () => {
    const upstream = await serve((request) => request.socket.resetAndDestroy())
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: false, status: null })
    expect(failure.message).toBe('POST sent, no answer: ECONNRESET')
    expect(upstream.hits).toHaveLength(1)
  })

  test('when the connection ends without an answer', async () => {
    const upstream = await serve((request) => request.socket.end())
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: false, status: null })
    expect(upstream.hits).toHaveLength(1)
  })

  test('when no first byte comes in time', async () => {
    const { upstream } = await serveHeld()
    const failure = await failureOf(open(upstream.url).write({ ...post, firstByteMs: 50 }))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: true, status: null })
    expect(failure.message).toBe('POST sent, no answer: FIRST_BYTE_DEADLINE')
  })

  test('when an interim answer comes in time and the answer does not', async () => {
    const upstream = await serve((_request, response) => response.writeEarlyHints({ link: '</a>; rel=preload' }))
    const failure = await failureOf(open(upstream.url).write({ ...post, firstByteMs: 50 }))
    expect(failure).toMatchObject({ kind: 'no_answer', timedOut: true, status: null })
  })

  test('when nothing comes until the attempt is over', async () => {
    const { upstream } = await serveHeld()
    const failure = await failureOf(open(upstream.url).write({ ...post, attemptMs: 50 }))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: true, status: null })
  })

  test('when the head comes and the body never does', async () => {
    const upstream = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).flushHeaders()
    })
    const failure = await failureOf(open(upstream.url).write({ ...post, firstByteMs: 1_000, attemptMs: 100 }))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: true, status: 200 })
  })

  test('when the body drips longer than the attempt may last', async () => {
    const upstream = await serve((request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' })
      const drip = setInterval(() => response.write(' '), 10)
      request.on('close', () => clearInterval(drip))
    })
    const failure = await failureOf(open(upstream.url).write({ ...post, firstByteMs: 1_000, attemptMs: 150 }))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: true, status: 200 })
  })

  test.for<[string, (socket: Socket) => void]>([
    ['ends', (socket) => socket.end()],
    ['is reset', (socket) => socket.resetAndDestroy()],
  ])('when the connection %s in the middle of the body', async ([, cut]) => {
    const upstream = await serve((request, response) => {
      response.writeHead(201, { 'content-type': 'application/json', 'content-length': '100' })
      response.write(`{"id":"${answerSecret}`, () => cut(request.socket))
    })
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown', timedOut: false, status: 201 })
  })

  test.for([500, 502, 503, 504, 408])('when the status is %i, with any body', async (status) => {
    const upstream = await serve(json(status, `{"error":"${answerSecret}"}`, { 'retry-after': '3' }))
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'failed', effect: 'unknown', status, retryAfterMs: 3_000, timedOut: false })
    expect(failure.message).toBe(`POST answered with status ${status}`)
  })

  test.for(['close', 'keep-alive'])('when a 5xx has a body without end (connection: %s)', async (connection) => {
    const upstream = await serve(
      whole(503, { connection, 'retry-after': 'later', 'content-type': 'text/html' }, answerSecret.repeat(10_000)),
    )
    const failure = await failureOf(open(upstream.url, { responseBytesMax: 1_000 }).write(post))
    expect(failure).toMatchObject({ kind: 'failed', effect: 'unknown', status: 503, retryAfterMs: null })
  })

  test('when the body is larger than what is read of it', async () => {
    const upstream = await serve(json(200, JSON.stringify(answerSecret.repeat(10_000))))
    const failure = await failureOf(open(upstream.url, { responseBytesMax: 1_000 }).write(post))
    expect(failure).toMatchObject({ kind: 'unreadable', effect: 'unknown', status: 200 })
    await expect.poll(() => upstream.sockets.size).toBe(0)
  })

  test.for([301, 302, 303, 307, 308])('when the answer is a redirect (%i), which is not followed', async (status) => {
    const target = await serve(json(200, '{}'))
    const upstream = await serve(json(status, '{}', { location: `${target.url}/${answerSecret}` }))
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'unreadable', effect: 'unknown', status })
    expect(target.hits).toEqual([])
    expect(upstream.hits).toHaveLength(1)
  })

  const type = { 'content-type': 'application/json' }
  test.for<[string, number, Record<string, string | string[]>, string | Buffer]>([
    ['an HTML page under 4xx', 403, { 'content-type': 'text/html' }, `<p>${answerSecret}</p>`],
    ['JSON that calls itself HTML', 200, { 'content-type': 'text/html' }, '{"id":"1"}'],
    ['JSON of two types', 200, { 'content-type': 'application/json, text/html' }, '{"id":"1"}'],
    ['an empty body', 200, type, ''],
    ['an empty body of no type', 201, { 'content-length': '0' }, ''],
    ['an empty 404', 404, type, ''],
    ['204', 204, {}, ''],
    ['a body that is not JSON', 200, type, `{"id":"${answerSecret}" "1"}`],
    ['JSON that ends early', 200, type, '{"id":"1"'],
    ['JSON that is not UTF-8', 200, type, Buffer.from([0x22, 0xff, 0x22])],
    ['JSON nested beyond reason', 200, type, '['.repeat(200_000) + ']'.repeat(200_000)],
    ['a body that only claims to be gzip', 200, { ...type, 'content-encoding': 'gzip' }, '{"id":"1"}'],
    ['a body that only claims to be compressed', 200, { ...type, 'content-encoding': 'br' }, '{"id":"1"}'],
    ['an encoding named twice', 200, { ...type, 'content-encoding': ['identity', 'gzip'] }, gzipSync('{"id":"1"}')],
  ])('when the answer is %s', async ([, status, headers, body]) => {
    const upstream = await serve(whole(status, headers, body))
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'unreadable', effect: 'unknown', status, timedOut: false })
    expect(failure.cause).toBeUndefined()
  })

  test.for<[string, Record<string, string>, string]>([
    ['an HTML page', { 'content-type': 'text/html' }, '<p>later</p>'],
    ['no JSON after all', type, '<p>later</p>'],
    ['empty', {}, ''],
  ])('when a 429 is %s: it says when to come back and proves nothing', async ([, headers, body]) => {
    const upstream = await serve(whole(429, { ...headers, 'retry-after': '7' }, body))
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'throttled', effect: 'unknown', status: 429, retryAfterMs: 7_000 })
  })

  test('when the answer is not HTTP', async () => {
    const upstream = await listen(
      createSocketServer((socket) => socket.on('data', () => socket.end(`SSH-2.0-${answerSecret}\r\n`))),
    )
    const failure = await failureOf(open(upstream.url).write(post))
    expect(failure).toMatchObject({ kind: 'unreadable', effect: 'unknown', status: null })
  })
})

describe('a write', () => {
  test('is sent once when its connection dies at the moment it is used again', async () => {
    const uses = new Map<Socket, number>()
    const upstream = await serve((request, response) => {
      const use = (uses.get(request.socket) ?? 0) + 1
      uses.set(request.socket, use)
      if (use === 1) json(200, '{}')(request, response)
      else request.socket.destroy()
    })
    const http = open(upstream.url, { writeConnections: 1 })
    for (let round = 1; round <= 5; round += 1) {
      await http.write(post)
      expect(await failureOf(http.write(post))).toMatchObject({ kind: 'no_answer', effect: 'unknown' })
      expect(upstream.hits).toHaveLength(2 * round)
    }
  })

  test('is sent once, or provably not at all, when the server closes each connection after its answer', async () => {
    const upstream = await serve((request, response) => {
      request.resume()
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end('{}', () => request.socket.destroy())
    })
    const events = collect('blotter:upstream')
    const http = open(upstream.url, { writeConnections: 2 })
    for (let round = 0; round < 50; round += 1) {
      await Promise.allSettled([http.write(post), http.write(post), http.write(post)])
    }
    expect(events).toHaveLength(150)
    const seen = upstream.requests.map((request) => request.headers['x-request-id'])
    expect(new Set(seen).size).toBe(seen.length)
    const unsent = events.filter((event) => inspect(event).includes('not_sent'))
    for (const event of unsent) expect(event).not.toMatchObject({ requestId: expect.toBeOneOf(seen) })
    expect(seen.length).toBeLessThanOrEqual(150 - unsent.length)
    expect(seen.length).toBeGreaterThan(0)
  })

  test('is not sent again even where undici starts it again', async () => {
    // No such restart is known over HTTP/1.1, so this one is made up: the end of the connection is kept from the
    // handler, and the same request goes back into the pool.
    // oxlint-disable-next-line typescript/unbound-method -- called with its pool below
    const dispatch = Pool.prototype.dispatch
    const spy = vi.spyOn(Pool.prototype, 'dispatch').mockImplementation(function (this: Pool, request, handler) {
      const onResponseError = (): void => void dispatch.call(this, request, handler)
      return dispatch.call(this, request, { ...handler, onResponseError })
    })
    cleanups.push(() => spy.mockRestore())
    const upstream = await serve((request) => request.socket.destroy())
    const http = open(upstream.url)
    const failure = await failureOf(http.write(post))
    expect(failure).toMatchObject({ kind: 'no_answer', effect: 'unknown' })
    expect(failure.message).toBe('POST sent, no answer: SECOND_START')
    await http.close()
    expect(upstream.hits).toHaveLength(1)
  })

  test('does not look at the signal of its caller', async () => {
    const { upstream, next } = await serveHeld()
    const controller = new AbortController()
    const answer = open(upstream.url).write({ ...post, signal: controller.signal })
    const response = await next()
    controller.abort()
    release(response)
    expect((await answer).status).toBe(200)
  })

  test('gets through while reads hold all of their connections', async () => {
    const upstream = await serve((request, response) => {
      if (request.method === 'POST') json(200, '{}')(request, response)
    })
    const http = open(upstream.url, { readConnections: 2 })
    // The third gives up long before a connection comes free.
    const reads = [1_500, 1_500, 100].map((attemptMs) => failureOf(http.read({ ...get, attemptMs })))
    expect((await http.write(post)).status).toBe(200)
    const kinds = (await Promise.all(reads)).map((failure) => failure.kind)
    expect(kinds.sort()).toEqual(['no_answer', 'no_answer', 'not_sent'])
  })
})

describe('a read', () => {
  test("ends with its caller's own reason, and closes the upstream socket", async () => {
    const { upstream, next } = await serveHeld()
    const controller = new AbortController()
    const events = collect('blotter:upstream')
    const answer = open(upstream.url).read({ ...get, signal: controller.signal })
    const response = await next()
    const closed = once(response, 'close')
    const reason = new Error('the client went away')
    controller.abort(reason)
    await expect(answer).rejects.toBe(reason)
    await closed
    expect(events).toMatchObject([{ kind: null, status: null }])
  })

  test('ends in the middle of a body too', async () => {
    const controller = new AbortController()
    const upstream = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).write('[1,', () => controller.abort('gone'))
    })
    const answer = open(upstream.url).read({ ...get, signal: controller.signal })
    await expect(answer).rejects.toBe('gone')
    await expect.poll(() => upstream.sockets.size).toBe(0)
  })

  test('is not sent once its caller has gone', async () => {
    const { upstream, next } = await serveHeld()
    const http = open(upstream.url, { readConnections: 1 })
    await expect(http.read({ ...get, signal: AbortSignal.abort('gone') })).rejects.toBe('gone')
    const busy = http.read(get)
    const response = await next()
    const controller = new AbortController()
    const queued = http.read({ ...get, path: '/queued', signal: controller.signal })
    controller.abort('gone')
    await expect(queued).rejects.toBe('gone')
    release(response)
    await busy
    await http.close()
    expect(upstream.hits).toEqual(['GET /orders'])
  })
})

describe('connections', () => {
  test('are never more than configured', async () => {
    const upstream = await serve((request, response) => setImmediate(() => json(200, '{}')(request, response)))
    const http = open(upstream.url, { readConnections: 3, writeConnections: 2 })
    await Promise.all(Array.from({ length: 20 }, () => http.read(get)))
    expect(upstream.openMax).toBe(3)
    await Promise.all(Array.from({ length: 20 }, () => http.write(post)))
    expect(upstream.openMax).toBe(5)
  })

  test('are used again after answers that were refused', async () => {
    const statuses = [500, 302, 204, 403, 200]
    const upstream = await serve((request, response) =>
      whole(statuses[upstream.hits.length - 1] ?? 500, { 'content-type': 'text/html' }, 'x')(request, response),
    )
    const http = open(upstream.url, { writeConnections: 1 })
    for (const status of statuses) expect((await failureOf(http.write(post))).status).toBe(status)
    expect(upstream.openMax).toBe(1)
    expect(new Set(upstream.requests.map((request) => request.socket)).size).toBe(1)
  })

  test('close after the calls in flight, and leave no subscription behind', async () => {
    const { upstream, next } = await serveHeld()
    const http = open(upstream.url)
    const calls = [http.write(post), http.read(get)]
    const responses = [await next(), await next()]
    const order: string[] = []
    const closing = http.close().then(() => order.push('closed'))
    for (const call of calls) void call.then(() => order.push('answered'))
    responses.forEach(release)
    await closing
    expect(order).toEqual(['answered', 'answered', 'closed'])
    await http.close()
    await expect.poll(() => upstream.sockets.size).toBe(0)
    expect(diagnostics.hasSubscribers('undici:client:sendHeaders')).toBe(false)
  })
})

test('each attempt is published to subscribers, without headers or bodies', async () => {
  const statuses = [200, 503]
  const upstream = await serve((request, response) =>
    json(statuses[upstream.hits.length - 1] ?? 500, `"${answerSecret}"`)(request, response),
  )
  const events = collect('blotter:upstream')
  const http = open(upstream.url)
  await http.read({ ...get, query: { a: '1' } })
  await failureOf(http.write(post))
  const ids = upstream.requests.map((request) => request.headers['x-request-id'])
  const ms = expect.any(Number)
  expect(events).toEqual([
    { method: 'GET', path: '/orders', status: 200, kind: null, ms, requestId: ids[0], refusal: null },
    { method: 'POST', path: '/orders', status: 503, kind: 'failed', ms, requestId: ids[1], refusal: null },
  ])
})

test('no error holds a credential, a header or a body', async () => {
  const upstream = await serve(
    whole(
      200,
      { 'content-type': 'application/json', 'set-cookie': 'session=top-secret' },
      `{"token":"${answerSecret}"`,
    ),
  )
  const http = open(upstream.url, { headers: { authorization: credential, 'x-api-secret': 'top-secret' } })
  const failures = [
    await failureOf(http.read(get)),
    await failureOf(http.write({ ...post, body: { note: 'top-secret' } })),
    await failureOf(open(upstream.url, { responseBytesMax: 4 }).read(get)),
    await failureOf(open(upstream.url.replace('http:', 'https:')).write({ ...post, body: { note: 'top-secret' } })),
  ]
  for (const failure of failures) {
    expect(`${failure.message}\n${failure.stack}\n${inspect(failure.cause)}`).not.toContain('secret')
    // A plain error of ours: what undici hangs on to its own does not come along.
    if (failure.cause !== undefined) {
      expect(Object.getPrototypeOf(failure.cause)).toBe(Error.prototype)
      expect(Object.getOwnPropertyNames(failure.cause).sort()).toEqual(['code', 'message', 'stack'])
    }
  }
})
