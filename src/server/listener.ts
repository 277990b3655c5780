// The node:http listener: what a socket may do before GraphQL is involved.

import { randomUUID } from 'node:crypto'
import { createServer as createHttpServer } from 'node:http'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setImmediate as waitForTurn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { isLoopback } from '../domain/setting.ts'

// Maximum bytes of a request body after it is decoded. A router may request 1,000 entities at once; each has an id, an account
// and type names, which are 205 bytes with the longest ids in use.
const bodyBytesMax = 256_000

// Compared letter by letter. Yoga accepts every path that ends like that of GraphQL, also behind a `?`, and makes its URL from the
// header host and a target that may name another host. A URL that cannot be parsed is then a 500 with a stack.
const paths = ['/graphql', '/health', '/ready', '/']

// Of requests that wait for the answer to one before them, on all connections together.
const waitingMax = 10_000

// Interval of the search for answers that no client reads.
const watchMs = 250

export interface ListenerOptions {
  /** Whether only this machine is served: then a request has to name it, or a foreign page could reach through a name. */
  isLoopbackOnly: boolean
  /** Host names that requests may use if `isLoopbackOnly`, in lower case and without a port; none by default. */
  publicHosts?: readonly string[]
  /** Origins whose pages may read refusals; none by default. */
  corsOrigins?: readonly string[]
  /** How long an idle connection is kept, in ms; 65,000 by default. */
  keepAliveMs?: number
  /** How long the sending of one answer may take; 30 s if it is not given. */
  sendMs?: number
  /** How much of all answers together may wait to be sent; 128 MB if it is not given. */
  unsentBytesMax?: number
}

export interface Listener {
  /** Resolves to the origin that is listened on, such as `http://127.0.0.1:4000`; rejects when it cannot be. */
  listen(port: number, host: string): Promise<string>
  /** Continues to serve, but closes each connection after its answer, so that clients connect to other processes. */
  drain(): void
  /** Takes no new connection; resolves when the last of those there are has its answer. */
  stop(): Promise<void>
  /** Closes all connections at once. */
  closeAll(): void
}

/**
 * Creates a listener that answers with `answer`. A body that came without its length is read into `request.body`, where Yoga
 * expects it.
 */
export function createListener(answer: RequestListener, options: ListenerOptions): Listener {
  const { isLoopbackOnly, publicHosts = [], corsOrigins = [], keepAliveMs = 65_000 } = options
  const { sendMs = 30_000, unsentBytesMax = 128_000_000 } = options
  // By connection, what it asked and has no whole answer to: the first is under way, the others wait.
  const lines = new Map<Socket, { response: ServerResponse; start: () => void }[]>()
  // Since when the answer that is under way is being sent, the longest first.
  const sending = new Map<Socket, number>()
  let isDraining = false
  let isStopping = false
  const http = createHttpServer(
    {
      headersTimeout: 10_000,
      // With the interval of the check, a client that sends its request byte by byte is closed within 15 s.
      requestTimeout: 13_000,
      connectionsCheckingInterval: 2_000,
      keepAliveTimeout: keepAliveMs,
      maxHeaderSize: 16_384,
      // Checked in `admit`, because node refuses a request without it but passes on the requests that came behind it.
      requireHostHeader: false,
    },
    lineUp,
  )
  http.on('checkContinue', lineUp)
  http.on('checkExpectation', lineUp)
  http.maxConnections = 1_000
  http.on('connection', (socket) => {
    lines.set(socket, [])
    socket.once('close', () => lines.delete(socket))
  })
  const watch = setInterval(giveUpUnread, watchMs).unref()

  // Requests that a client sends without waiting for answers are served one by one. Hundreds of requests fit into one read, and
  // their answers would all be made before the first one could be sent.
  function lineUp(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request
    const line = lines.get(socket)
    if (line === undefined) return
    line.push({ response, start: () => void admit(request, response) })
    response.once('close', () => {
      line.shift()
      sending.delete(socket)
      // Nothing that came behind the last answer of a connection is run.
      if (socket.writable) line[0]?.start()
      // A connection that carried the last answer of a stopping service would be kept alive for a minute otherwise.
      if (isStopping) setImmediate(() => http.closeIdleConnections())
    })
    if (line.length === 1) line[0]?.start()
    else if (countWaiting() > waitingMax) socket.destroy()
  }

  function countWaiting(): number {
    let waiting = 0
    for (const line of lines.values()) waiting += Math.max(0, line.length - 1)
    return waiting
  }

  // A client that does not read its answer, or reads it byte by byte, would keep it in memory without end. The check runs outside of
  // the answer, because Yoga's promise settles only when all is sent, and node's timeout of a socket would cut a placement that
  // waits for its broker. Bytes that the kernel has taken count as sent. Returns whether it gave up an answer.
  function giveUpUnread(): boolean {
    const now = performance.now()
    let unsentBytes = 0
    for (const [socket, line] of lines) {
      unsentBytes += socket.writableLength
      if (line[0]?.response.headersSent && !sending.has(socket)) sending.set(socket, now)
    }
    let hasGivenUp = false
    for (const [socket, since] of sending) {
      if (now - since < sendMs && unsentBytes <= unsentBytesMax) break
      unsentBytes -= socket.writableLength
      socket.destroy()
      sending.delete(socket)
      lines.delete(socket)
      hasGivenUp = true
    }
    return hasGivenUp
  }

  async function admit(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Keeps the connection while other requests wait on it, because they would get no answer.
    if (isDraining && lines.get(request.socket)?.length === 1) response.shouldKeepAlive = false
    // The memory of what is given up is free only after the turn of the event loop.
    while (giveUpUnread()) await waitForTurn()
    const { host, expect } = request.headers
    if (host === undefined ? request.httpVersion === '1.1' : !isHost(host)) {
      return refuse(request, response, 400, 'BAD_USER_INPUT', 'The header host has to be a name or an address.')
    }
    const hostName = toHostName(host)
    if (isLoopbackOnly && !isLoopback(hostName) && !publicHosts.includes(hostName)) {
      const message = 'The header host must name this machine, such as localhost, or a host of PUBLIC_HOSTS.'
      return refuse(request, response, 403, 'FORBIDDEN', message)
    }
    if (!paths.includes(request.url?.split('?', 1)[0] ?? '')) {
      return refuse(request, response, 404, 'BAD_USER_INPUT', `There is nothing here; GraphQL is at ${paths[0]}.`)
    }
    if (expect !== undefined && !/^100-continue$/i.test(expect)) {
      return refuse(request, response, 417, 'BAD_USER_INPUT', 'The header expect may only be 100-continue.')
    }
    const problem = await readBody(request, response)
    if (problem !== null) return refuse(request, response, problem.status, 'BAD_USER_INPUT', problem.message)
    answer(request, response)
  }

  function refuse(
    request: IncomingMessage,
    response: ServerResponse,
    status: number,
    code: string,
    message: string,
  ): void {
    const { origin } = request.headers
    const isListed = origin !== undefined && corsOrigins.includes(origin)
    sendRefusal(request, response, { status, code, message, allowOrigin: isListed ? origin : null })
  }

  return {
    async listen(port, host) {
      await new Promise<void>((resolve, reject) => {
        http.once('error', reject)
        http.listen(port, host, () => resolve())
      })
      const address = http.address()
      if (address === null || typeof address === 'string') throw new Error('listening on no port')
      return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`
    },
    drain() {
      isDraining = true
    },
    async stop() {
      isStopping = true
      // Connections that carry nothing go first; those under way get their answers.
      http.closeIdleConnections()
      await new Promise<void>((resolve) => http.close(() => resolve()))
    },
    closeAll() {
      clearInterval(watch)
      http.closeAllConnections()
    },
  }
}

/** No answer is kept, shown inside another page or taken for anything else than it says. */
export const safeHeaders = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
}

/** Returns the caller's own id of its request; a new one without it, or if it could forge a log line. */
export function toRequestId(header: string | string[] | null | undefined): string {
  return typeof header === 'string' && /^[\w.:-]{1,64}$/.test(header) ? header : randomUUID()
}

const gunzipWithin = promisify(gunzip)

interface BodyProblem {
  status: 400 | 413 | 415
  message: string
}

const tooLarge: BodyProblem = { status: 413, message: `The body is too large: at most ${bodyBytesMax} bytes.` }

/**
 * Limits the size of the body, and decodes gzip. Leaves a body with a length and without an encoding to Yoga, because node:http
 * enforces the length. Returns what is wrong with the body; null if nothing is.
 */
async function readBody(
  request: IncomingMessage & { body?: Buffer },
  response: ServerResponse,
): Promise<BodyProblem | null> {
  const { 'content-length': length, 'content-encoding': encoding = 'identity', expect } = request.headers
  if (Number(length) > bodyBytesMax) return tooLarge
  const isGzip = /^(x-)?gzip$/i.test(encoding.trim())
  if (!isGzip && !/^(identity)?$/i.test(encoding.trim())) {
    return { status: 415, message: 'The body has an unknown content-encoding: send it in gzip, or as it is.' }
  }
  if (expect !== undefined && request.httpVersion === '1.1') response.writeContinue()
  const hasNone = length === undefined && request.headers['transfer-encoding'] === undefined
  if (hasNone || (length !== undefined && !isGzip)) return null
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes > bodyBytesMax) return tooLarge
    }
  } catch {
    // The client left before the end of its body, so it does not read this answer.
    return tooLarge
  }
  const body = Buffer.concat(chunks)
  if (!isGzip) {
    // Yoga reads a body that was consumed before from this field.
    request.body = body
    return null
  }
  try {
    request.body = await gunzipWithin(body, { maxOutputLength: bodyBytesMax })
    return null
  } catch (error) {
    const isBomb = error instanceof RangeError
    return isBomb ? tooLarge : { status: 400, message: 'The body is not in gzip, as its content-encoding says.' }
  }
}

interface Refusal {
  status: number
  code: string
  message: string
  /** The origin whose pages may read the refusal; null if none. */
  allowOrigin: string | null
}

function sendRefusal(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  const { status, code, message, allowOrigin } = refusal
  const requestId = toRequestId(request.headers['x-request-id'])
  const body = JSON.stringify({ errors: [{ message, extensions: { code, requestId } }] })
  response.writeHead(status, {
    ...safeHeaders,
    ...(allowOrigin !== null && {
      'access-control-allow-origin': allowOrigin,
      'access-control-expose-headers': exposedHeaders.join(', '),
      vary: 'Origin',
    }),
    ...(status === 415 && { 'accept-encoding': 'gzip' }),
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    'x-request-id': requestId,
  })
  if (request.readableEnded || request.headers.expect !== undefined) return void response.end(body)
  // The end closes the connection, and a client that still sends its body would be reset before it reads the answer. Bytes until
  // then are dropped, and the client may send for as long as any request may.
  if (request.method !== 'HEAD') response.write(body)
  request.once('end', () => response.end()).resume()
}

/** The response headers that pages of a listed origin may read. */
export const exposedHeaders = ['x-request-id', 'retry-after']

function isHost(host: string): boolean {
  return /^([\w.-]+|\[[\da-f:.]+\])(:\d*)?$/i.test(host) && URL.canParse(`http://${host}`)
}

function toHostName(host: string | undefined): string {
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : ''
}
