// Makes one HTTP call to a broker. Each call has a deadline, and each failure says what it proves: whether anything can have left
// this process, and whether the answer comes from the broker. Nothing is sent twice, because calls.ts decides on repeats.

import { randomUUID } from 'node:crypto'
import diagnostics from 'node:diagnostics_channel'
import { promisify } from 'node:util'
import { gunzip, inflate, inflateRaw } from 'node:zlib'
import { type Dispatcher, Pool } from 'undici'

import { isIdPart } from '../domain/ids.ts'
import { UpstreamError, type AnswerRefusal, type UpstreamErrorKind, type UpstreamFailure } from './errors.ts'
import { NotJson, parseJson } from './json.ts'
import { createTunnels } from './tunnel.ts'

/** The options that all calls to one broker share. */
export interface HttpOptions {
  /** Origin and path prefix, such as `https://api.example.com/v1`; a call's path is appended to the prefix. */
  baseUrl: string
  /** Sent with every call, the credential among them. No error of this module holds them. */
  headers: Readonly<Record<string, string>>
  /** Maximum connections of reads, at least 1; 64 by default. */
  readConnections?: number
  /** Maximum connections of writes, at least 1; 8 by default. Reads cannot take them. */
  writeConnections?: number
  /** Maximum connections of cancels, at least 1; 4 by default. Placements that hang cannot hold them back. */
  cancelConnections?: number
  /** Maximum body of an answer, in bytes; 4 MiB by default. */
  responseBytesMax?: number
  /** The URL of an HTTP proxy that tunnels to the broker, with its credential if needed; null or absent connects directly. */
  proxyUrl?: string | null
  /** Maximum time to open a tunnel through the proxy, in ms; 2,000 by default. */
  tunnelMs?: number
  /** Epoch ms, for `sendBy` and for a `Retry-After` that is a date; the system's clock by default. */
  now?: () => number
}

/** One call. Paths and headers hold printable characters only; the adapter encodes values. */
export interface Call {
  method: 'GET' | 'POST'
  /** Begins with `/`, encoded, without a query. */
  path: string
  query?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  body?: Readonly<Record<string, unknown>>
  /** Replace those that are sent with every call. */
  headers?: Readonly<Record<string, string>>
  /** Maximum time from when the headers left to the head of the answer, in ms; null for no limit but `attemptMs`. */
  firstByteMs: number | null
  /** Maximum time of the attempt, in ms: queue, connection, answer and its body. */
  attemptMs: number
  /** Ends a read if the caller leaves. A write ignores it, because ending a write makes its outcome unknown. */
  signal?: AbortSignal
  /** The headers do not leave at this instant or later, in epoch ms. */
  sendBy?: number
  /** Called when the headers leave: at most once, and never for a call that ends as `not_sent`. Must not throw. */
  onSent?: () => void
}

/** A whole answer with a 2xx or 4xx status and a JSON body or none. The adapter decides whether a 4xx comes from the broker. */
export interface Answer {
  status: number
  /**
   * The parsed body: each number is the string of its digits, and each value that cannot be read is `{}` (json.ts). Undefined
   * for a GET answered with 2xx and no body: a 204, or no bytes.
   */
  body: unknown
  /** From `Retry-After`, 0 to 60,000; null if there is no readable one. */
  retryAfterMs: number | null
}

/** Three sets of connections to one broker. */
export interface Http {
  /** Sends once over the connections of reads. Throws UpstreamError, or the reason of `signal` if that ended it. */
  read(call: Call): Promise<Answer>
  /** Sends at most once over the connections of writes. Throws UpstreamError, whose `effect` is proven. */
  write(call: Call): Promise<Answer>
  /** Sends at most once over the connections of cancels, which the reads of a cancel use too. */
  cancel(call: Call): Promise<Answer>
  /**
   * Waits for the calls under way, each of which has a deadline, and closes all connections. After `withinMs`, calls that are
   * still under way end like a broken connection. May be repeated.
   */
  close(withinMs?: number): Promise<void>
}

/**
 * Makes the path of a call. Throws RangeError if an id was not checked before, because a `..` could turn the call into another
 * one under the broker's key.
 */
export function path(texts: TemplateStringsArray, ...ids: string[]): string {
  return texts.reduce((made, text, index) => {
    const id = ids[index - 1] ?? ''
    if (!isIdPart(id)) throw new RangeError('not an id: refused as a part of a path')
    return made + encodeURIComponent(id) + text
  })
}

// Published for each finished attempt. `kind` is null for an answer, and for a read whose caller left.
interface UpstreamCallEvent {
  method: Call['method']
  path: string
  status: number | null
  kind: UpstreamErrorKind | null
  ms: number
  requestId: string
  /** Why the answer cannot be used. */
  refusal: AnswerRefusal | null
}

interface Head {
  status: number
  contentType: string | null
  contentEncoding: string | null
  retryAfterMs: number | null
}

// The end of an exchange without a whole answer. The cause is absent if a deadline of ours ended it.
interface Break {
  code: string
  timedOut: boolean
  cause?: Error
}

const connectTimeoutMs = 1_000
const retryAfterMsMax = 60_000

const upstreamChannel = diagnostics.channel('blotter:upstream')
const sendHeadersChannel = 'undici:client:sendHeaders'

/**
 * Creates a client, which opens no connection before the first call. Throws TypeError if `baseUrl` is not a URL. Its creator
 * calls `close`, which also ends its subscription to undici's diagnostics.
 */
export function createHttp(options: HttpOptions): Http {
  return new HttpClient(options)
}

class HttpClient implements Http {
  readonly #options: HttpOptions
  readonly #pathPrefix
  readonly #now
  readonly #poolOptions
  readonly #readPool
  readonly #writePool
  readonly #cancelPool
  // The only proof that bytes went to a socket. undici's `onRequestStart` proves nothing, because it is also called for a
  // request that is dropped from the queue. The channel belongs to the process, so it also has events of other clients.
  readonly #sentListeners = new Map<string, () => void>()
  #closed: Promise<void> | null = null
  readonly #onSendHeaders = (message: unknown): void => {
    const requestId = findRequestId(message)
    if (requestId !== null) this.#sentListeners.get(requestId)?.()
  }

  constructor(options: HttpOptions) {
    this.#options = options
    const url = new URL(options.baseUrl)
    this.#pathPrefix = url.pathname.replace(/\/$/, '')
    this.#now = options.now ?? Date.now
    this.#poolOptions = {
      // Over HTTP/2 undici repeats a refused POST by itself. With pipelining, one answer that hangs would hold up the calls
      // behind it after their headers have left.
      allowH2: false,
      pipelining: 1,
      connectTimeout: connectTimeoutMs,
      maxResponseSize: options.responseBytesMax ?? 4 * 1024 * 1024,
      // Off, because they measure silence, which a slow drip never reaches, and are coarse. Each attempt has its own timers.
      headersTimeout: 0,
      bodyTimeout: 0,
      ...(options.proxyUrl && { connect: createTunnels(options.proxyUrl, options.tunnelMs) }),
    } satisfies Pool.Options
    this.#readPool = new Pool(url.origin, { ...this.#poolOptions, connections: options.readConnections ?? 64 })
    this.#writePool = new Pool(url.origin, { ...this.#poolOptions, connections: options.writeConnections ?? 8 })
    this.#cancelPool = new Pool(url.origin, { ...this.#poolOptions, connections: options.cancelConnections ?? 4 })
    diagnostics.subscribe(sendHeadersChannel, this.#onSendHeaders)
  }

  read(call: Call): Promise<Answer> {
    return this.#attempt(this.#readPool, call, call.signal)
  }

  write(call: Call): Promise<Answer> {
    return this.#attempt(this.#writePool, call, undefined)
  }

  cancel(call: Call): Promise<Answer> {
    return this.#attempt(this.#cancelPool, call, call.method === 'GET' ? call.signal : undefined)
  }

  close(withinMs?: number): Promise<void> {
    return (this.#closed ??= this.#closeOnce(withinMs))
  }

  #toRequest(call: Call, requestId: string): Dispatcher.DispatchOptions {
    const headers: Record<string, string> = {}
    for (const [name, value] of Object.entries(this.#options.headers)) headers[name.toLowerCase()] = value
    for (const [name, value] of Object.entries(call.headers ?? {})) headers[name.toLowerCase()] = value
    headers['accept'] = 'application/json'
    // Not compressed, because a few KB could expand to far more than the size that is checked on the wire.
    headers['accept-encoding'] = 'identity'
    headers['x-request-id'] = requestId
    if (call.body !== undefined) headers['content-type'] = 'application/json'
    const query = new URLSearchParams(call.query).toString()
    return {
      method: call.method,
      path: this.#pathPrefix + call.path + (query === '' ? '' : `?${query}`),
      headers,
      body: call.body === undefined ? null : JSON.stringify(call.body),
    }
  }

  /** Makes one request. Settles once, and by `attemptMs` at the latest. */
  #exchange(pool: Pool, call: Call, requestId: string, signal: AbortSignal | undefined): Promise<Answer> {
    const request = this.#toRequest(call, requestId)
    return new Promise((resolve, reject) => {
      let controller: Dispatcher.DispatchController | null = null
      let sent = false
      let head: Head | null = null
      // Set if the head alone decides. The body is then read and dropped, so that the connection can be used again.
      let refusal: UpstreamError | null = null
      let settled = false
      let firstByteTimer: NodeJS.Timeout | undefined
      const chunks: Buffer[] = []

      const isLate = (): boolean => call.sendBy !== undefined && this.#now() >= call.sendBy

      const settle = (): boolean => {
        if (settled) return false
        settled = true
        clearTimeout(attemptTimer)
        clearTimeout(sendByTimer)
        clearTimeout(firstByteTimer)
        signal?.removeEventListener('abort', onAbort)
        this.#sentListeners.delete(requestId)
        return true
      }
      const fail = (end: Break): void => {
        if (settle()) reject(refusal ?? toBreakError(call.method, sent, head, end))
      }
      // Settles first, so that undici's error for the abort does not count as the broker's failure. A request that still waits
      // in a queue has no controller, because undici cannot remove it; `onRequestStart` refuses it later.
      const expire = (code: string): void => {
        fail({ code, timedOut: true })
        controller?.abort(new Error(code))
      }
      const onAbort = (): void => {
        if (!settle()) return
        reject(signal?.reason)
        controller?.abort(new Error('aborted by the caller'))
      }

      const attemptTimer = setTimeout(() => expire('ATTEMPT_DEADLINE'), call.attemptMs)
      const sendByMs = call.sendBy === undefined ? Infinity : call.sendBy - this.#now()
      // A longer timer is not set, because the attempt ends before it, and Node fires timers beyond 2^31 ms at once.
      const sendByTimer =
        sendByMs < call.attemptMs ? setTimeout(() => expire('SEND_BY_DEADLINE'), Math.max(0, sendByMs)) : undefined

      if (signal?.aborted === true) {
        onAbort()
        return
      }
      signal?.addEventListener('abort', onAbort)
      if (isLate()) {
        expire('SEND_BY_DEADLINE')
        return
      }

      this.#sentListeners.set(requestId, () => {
        sent = true
        clearTimeout(sendByTimer)
        call.onSent?.()
        // Measured from here, because the time in our queue is not the broker's.
        if (call.firstByteMs !== null) {
          firstByteTimer = setTimeout(() => expire('FIRST_BYTE_DEADLINE'), call.firstByteMs)
        }
      })

      pool.dispatch(request, {
        // Runs right before the headers are written, so this is the last moment to stop them. A throw drops the request and
        // leaves the connection to the next one; an abort would destroy the connection.
        onRequestStart(started) {
          if (settled) throw new Error('over before it was sent')
          if (isLate()) {
            // Checked here as well as by the timer, because after a pause of the process the queue may run before the timers.
            fail({ code: 'SEND_BY_DEADLINE', timedOut: true })
            throw new Error('too late to be sent')
          }
          // undici puts a request back into its queue after some ends of a connection. That cannot happen to a request that is
          // alone on an HTTP/1.1 connection, as here. If it happens, the call ends here.
          if (controller !== null) {
            fail({ code: 'SECOND_START', timedOut: false })
            throw new Error('started a second time')
          }
          controller = started
        },
        onResponseStart: (_controller, status, headers) => {
          if (status < 200) return
          clearTimeout(firstByteTimer)
          head = {
            status,
            contentType: toSingle(headers['content-type']),
            contentEncoding: toSingle(headers['content-encoding']),
            retryAfterMs: parseRetryAfterMs(toSingle(headers['retry-after']), this.#now()),
          }
          refusal = refuseHead(call.method, head)
        },
        onResponseData(_controller, chunk) {
          if (refusal === null) chunks.push(chunk)
        },
        onResponseEnd: () => {
          if (!settle()) return
          if (refusal !== null) reject(refusal)
          else if (head === null) reject(new Error('undici ended an answer that it had not begun'))
          else
            readAnswer(call.method, head, Buffer.concat(chunks), this.#poolOptions.maxResponseSize).then(
              resolve,
              reject,
            )
        },
        onResponseError(_controller, error) {
          fail(toBreak(error))
        },
      })
    })
  }

  async #attempt(pool: Pool, call: Call, signal: AbortSignal | undefined): Promise<Answer> {
    const requestId = randomUUID()
    const startedAt = performance.now()
    let status: number | null = null
    let kind: UpstreamErrorKind | null = null
    let refusal: AnswerRefusal | null = null
    try {
      const answer = await this.#exchange(pool, call, requestId, signal)
      status = answer.status
      return answer
    } catch (error) {
      if (error instanceof UpstreamError) {
        status = error.status
        kind = error.kind
        refusal = error.refusal
      }
      throw error
    } finally {
      if (upstreamChannel.hasSubscribers) {
        const ms = performance.now() - startedAt
        const event: UpstreamCallEvent = { method: call.method, path: call.path, status, kind, ms, requestId, refusal }
        upstreamChannel.publish(event)
      }
    }
  }

  async #closeOnce(withinMs: number | undefined): Promise<void> {
    const pools = [this.#readPool, this.#writePool, this.#cancelPool]
    const destroy = (): void => void Promise.all(pools.map((pool) => pool.destroy()))
    const timer = withinMs === undefined ? undefined : setTimeout(destroy, withinMs)
    await Promise.all(pools.map((pool) => pool.close().catch(() => {})))
    clearTimeout(timer)
    diagnostics.unsubscribe(sendHeadersChannel, this.#onSendHeaders)
  }
}

// undici publishes the text of the head as it goes to the socket. Header values cannot contain a line break, so only the header
// itself matches.
function findRequestId(message: unknown): string | null {
  if (typeof message !== 'object' || message === null || !('headers' in message)) return null
  if (typeof message.headers !== 'string') return null
  return /\r\nx-request-id: ([0-9a-f-]{36})\r\n/.exec(message.headers)?.[1] ?? null
}

// A header that comes twice is a list, which none of the headers read here may be, so it is ignored.
function toSingle(value: string | string[] | undefined): string | null {
  return Array.isArray(value) ? value.join(', ') : (value ?? null)
}

// Refuses an answer by its head alone.
function refuseHead(method: string, head: Head): UpstreamError | null {
  const { status } = head
  // 408 counts as a 5xx, because a proxy may answer it after it has forwarded the request.
  if (status >= 500 || status === 408) {
    return new UpstreamError('failed', `${method} answered with status ${status}`, toFailure(head))
  }
  if (status >= 300 && status < 400)
    return toUnreadable(method, head, { reason: 'redirect', detail: 'a redirect, which is never followed' })
  if (toDecoding(head) === null) {
    const encoding = cleanHeader(head.contentEncoding ?? '')
    return toUnreadable(method, head, { reason: 'encoding', detail: `the content-encoding ${encoding}` })
  }
  // A 204 never has a body, even if its headers announce one.
  if (status === 204) return null
  const mediaType = (head.contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
  if (!jsonTypes.test(mediaType)) {
    return toUnreadable(method, head, { reason: 'contentType', detail: `the content-type ${cleanHeader(mediaType)}` })
  }
  return null
}

// Content types whose body is parsed: gateways send JSON as plain text or without a type. HTML is refused even if it parses.
const jsonTypes = /^(|text\/plain|(application|text)\/(x-)?json|[a-z]+\/[^\s/,]+\+json)$/

type Decoding = 'identity' | 'gzip' | 'deflate'

/** Returns how the body is encoded, because a broker may ignore that we accept only identity; null if it cannot be decoded. */
function toDecoding({ contentEncoding }: Head): Decoding | null {
  const name = (contentEncoding ?? '').trim().toLowerCase()
  if (name === '' || name === 'identity') return 'identity'
  if (name === 'gzip' || name === 'x-gzip') return 'gzip'
  return name === 'deflate' ? 'deflate' : null
}

// Cleans a header for the log, because the peer controls its text.
function cleanHeader(value: string): string {
  return value.replaceAll(/[^a-z0-9!#$&^_.+/ ,;=-]/gi, '?').slice(0, 60)
}

async function readAnswer(method: string, head: Head, received: Buffer, bytesMax: number): Promise<Answer> {
  const { status, retryAfterMs } = head
  const isRead = method === 'GET' && status < 300
  if (status === 204 && isRead) return { status, body: undefined, retryAfterMs }
  let bytes = received
  try {
    bytes = await decode(received, toDecoding(head) ?? 'identity', bytesMax)
  } catch (error) {
    const isTooLong = Object(error).code === 'ERR_BUFFER_TOO_LARGE'
    const encoding = head.contentEncoding ?? ''
    throw toUnreadable(
      method,
      head,
      isTooLong
        ? { reason: 'tooLarge', detail: `a body that ${cleanHeader(encoding)} unfolds to more than ${bytesMax} bytes` }
        : { reason: 'encoding', detail: `a body that is not ${cleanHeader(encoding)}` },
    )
  }
  if (isBlank(bytes)) {
    if (isRead) return { status, body: undefined, retryAfterMs }
    throw toUnreadable(method, head, { reason: 'noBody', detail: 'an empty body' })
  }
  try {
    return { status, body: parseJson(bytes), retryAfterMs }
  } catch (error) {
    // Without the parser's error, which quotes the body.
    if (!(error instanceof NotJson)) throw error
    throw toUnreadable(method, head, { reason: 'notJson', detail: `a body that is ${error.message}` })
  }
}

function isBlank(bytes: Buffer): boolean {
  return bytes.length < 64 && bytes.toString('latin1').trim() === ''
}

const [unzip, inflateZlib, inflateBare] = [promisify(gunzip), promisify(inflate), promisify(inflateRaw)]

/** Decodes a body. Throws zlib's errors: ERR_BUFFER_TOO_LARGE if the result exceeds `bytesMax`. */
async function decode(bytes: Buffer, decoding: Decoding, bytesMax: number): Promise<Buffer> {
  if (decoding === 'identity' || bytes.length === 0) return bytes
  const bounds = { maxOutputLength: bytesMax }
  if (decoding === 'gzip') {
    // The last four bytes are the decoded length. A body that is too long by them is not decoded, so it takes no memory.
    const isGzip = bytes.length >= 18 && bytes.readUInt16BE(0) === 0x1f8b
    const length = isGzip ? bytes.readUInt32LE(bytes.length - 4) : 0
    if (length > bytesMax) throw Object.assign(new Error('too long'), { code: 'ERR_BUFFER_TOO_LARGE' })
    return await unzip(bytes, bounds)
  }
  // `deflate` is a zlib stream in the standard, but some servers send a raw one. A zlib stream begins with a checked header.
  const [first = 0, second = 0] = bytes
  const isZlib = (first & 0x0f) === 8 && (first * 256 + second) % 31 === 0
  return await (isZlib ? inflateZlib : inflateBare)(bytes, bounds)
}

// A 429 without the broker's envelope still says when to come back. It may come from a proxy that had forwarded the request, so it
// proves nothing.
function toUnreadable(method: string, head: Head, refusal: AnswerRefusal): UpstreamError {
  const message = `${method} answered with status ${head.status} and ${refusal.detail}`
  const failure = { ...toFailure(head), refusal }
  if (head.status === 429) return new UpstreamError('throttled', message, { ...failure, effect: 'unknown' })
  return new UpstreamError('unreadable', message, failure)
}

function toBreakError(method: string, sent: boolean, head: Head | null, end: Break): UpstreamError {
  const failure: UpstreamFailure = {
    ...(head === null ? {} : toFailure(head)),
    ...(end.cause === undefined ? {} : { cause: end.cause }),
    timedOut: end.timedOut,
  }
  if (!sent) return new UpstreamError('not_sent', `${method} not sent: ${end.code}`, failure)
  if (head === null) {
    // An answer came, but it is not HTTP, its head has no end, or it gives two lengths.
    const isNonsense = /^(HPE_|HTTPParserError$|UND_ERR_(HEADERS_OVERFLOW|RES_CONTENT_LENGTH_MISMATCH)$)/.test(end.code)
    if (isNonsense) {
      const refusal: AnswerRefusal = { reason: 'notHttp', detail: `nonsense: ${end.code}` }
      return new UpstreamError('unreadable', `${method} answered with nonsense: ${end.code}`, { ...failure, refusal })
    }
    return new UpstreamError('no_answer', `${method} sent, no answer: ${end.code}`, failure)
  }
  if (end.code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') {
    return new UpstreamError('unreadable', `${method} answered with status ${head.status} and too large a body`, {
      ...failure,
      refusal: { reason: 'tooLarge', detail: 'too large a body' },
    })
  }
  return new UpstreamError('no_answer', `${method} answered with status ${head.status}, cut: ${end.code}`, failure)
}

function toFailure(head: Head): UpstreamFailure {
  return { status: head.status, ...(head.retryAfterMs === null ? {} : { retryAfterMs: head.retryAfterMs }) }
}

// Copies message and code into an error of ours, because undici's errors refer to sockets, headers and parts of the body, which
// would reach the log.
function toBreak(error: Error): Break {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  const cause = Object.assign(new Error(error.message), { code })
  return { code, timedOut: code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'PROXY_TIMEOUT', cause }
}

const httpDatePattern = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/

// Whole seconds, or a date in the one form that HTTP allows. The pattern is checked first, because `Date.parse` accepts nearly
// any text as a date, such as `-5`.
function parseRetryAfterMs(value: string | null, nowMs: number): number | null {
  if (value === null) return null
  const text = value.trim()
  const ms = /^\d+$/.test(text) ? Number(text) * 1_000 : httpDatePattern.test(text) ? Date.parse(text) - nowMs : NaN
  return Number.isNaN(ms) ? null : Math.min(Math.max(0, ms), retryAfterMsMax)
}
