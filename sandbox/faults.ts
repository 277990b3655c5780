// Misbehaviour by rule: slow, cut, refused, lost, garbled. It knows HTTP and JSON, not orders.
//
// For one request, every matching rule counts it. Rules that still have effect then apply as follows: all latencies
// add up; all changes to the answer (setField, dropField, omitClientOrderId, asNumber, extraFields, contentType) are
// made in the rules' order; whims, which only the broker's dialect can act out, are passed on, the last rule of a kind
// deciding; and of the faults that decide how the request ends, only the first applies. A rule's `times` is used up
// only when it applied.

import { validateHeaderName, validateHeaderValue } from 'node:http'
import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'

const moments = ['beforeCommit', 'afterCommit'] as const
const listOrders = ['newestFirst', 'oldestFirst'] as const
const brokenHeads = ['twoContentLengths', 'hugeHeader', 'badChunk'] as const

/** The fields of each kind of fault; those with an exclamation mark must be given. */
const faultKinds = {
  latency: ['ms!'],
  hang: ['when', 'ms'],
  refuse: [],
  rstBeforeRead: [],
  rstAfterRead: [],
  rstAfterCommit: [],
  finAfterCommit: [],
  status: ['status!', 'body', 'contentType', 'headers', 'when'],
  truncate: ['bytes'],
  drip: ['bytesPerSecond!'],
  setField: ['field!', 'value!', 'row'],
  dropField: ['field!', 'row'],
  /**
   * dropField of client_order_id, which is clientId for Aries; the rule's match says whether from lists, from single reads
   * or from every answer.
   */
  omitClientOrderId: [],
  asNumber: ['field!', 'source', 'row'],
  listOrder: ['order!'],
  fillOnCancel: ['quantity'],
  emptyBody: ['status'],
  contentType: ['value!'],
  invalidJson: [],
  /** The true answer, padded inside its last bracket to so many bytes; chunked, so no length warns of it. */
  huge: ['bytes!'],
  /** The same as a small gzip body, also if the request does not accept it. */
  gzipBomb: ['bytes!'],
  /** The true answer under two different lengths, behind 40 KB of headers, or with a chunk whose size is no number. */
  badHeaders: ['how!'],
  /** The true answer, and behind it a second 200 with another order: in the same write, or `ms` later. */
  extraResponse: ['ms'],
  /** A refusal before the request is processed, 429 by default, in the broker's envelope with this Retry-After. */
  retryAfter: ['value!', 'status'],
  /** Adds so many unknown fields, of every JSON type, to each row or to the one object of the answer. */
  extraFields: ['count!'],
  /** Status, symbol and side of a list's query, or the times of a history's, are checked and then ignored. */
  ignoreFilter: [],
  /** Adds so many rows (4 by default) beyond the list's limit: half are its next ones, the others repeat its first ones. */
  extraRows: ['rows'],
  /** Lists, or single reads (Aries has none), show orders as they were so long ago on the exchange's clock. */
  listLag: ['ms!'],
  getLag: ['ms!'],
  /** Limits requests per second of the exchange's clock to this number, instead of the usual limit. */
  maxRps: ['perSecond!'],
  /**
   * A cancel answers 200 with the order still open, which Aries calls PENDING_CANCEL, and takes effect so long afterwards
   * on the exchange's clock.
   */
  asyncCancel: ['ms!'],
  /**
   * A placement is checked and answered at once, with an order that cannot be read yet, or ends as another rule says. The order
   * enters the book so long afterwards on the exchange's clock, and was submitted then. It comes after any end that follows the
   * reading of the body, also after `beforeCommit`, so that only the answer is lost. After a retryAfter it does not come.
   */
  commitDelay: ['ms!'],
  /**
   * A placement is refused, with 409 or Aries' 400, if its account has, or is about to have, an order with its client
   * order id.
   */
  dedupe: [],
  /**
   * Just before a placement is processed, or ends before that, an order with the same terms but without a client order id comes from
   * another channel and trades like any other order. It does not come if the body is not read.
   */
  twin: [],
} as const

type FaultKind = keyof typeof faultKinds

interface Fault {
  kind: FaultKind
  ms?: number
  when?: (typeof moments)[number]
  status?: number
  body?: unknown
  contentType?: string
  headers?: Record<string, string>
  bytes?: number
  bytesPerSecond?: number
  field?: string
  value?: unknown
  row?: number
  source?: string
  order?: (typeof listOrders)[number]
  quantity?: string
  how?: (typeof brokenHeads)[number]
  count?: number
  rows?: number
  perSecond?: number
}

interface Match {
  method?: string
  /** A regular expression, tried on path and query. */
  path?: string
  /**
   * The account whose path, or whose order's path, it is, under any of its ids. Aries names the account of a placement
   * or a cancel in the body, which is not read yet when rules are matched: those have no account here.
   */
  account?: string
  nth?: number
  times?: number
}

interface Rule {
  match: Match
  fault: Fault
}

/** The deviations of a dialect for one request. */
export interface Whims {
  /** Null, here and in both lags: as the switches have it. */
  listOrder: (typeof listOrders)[number] | null
  ignoreFilter: boolean
  /** Beyond a list's limit. */
  extraRows: number
  listLagMs: number | null
  getLagMs: number | null
  /** Just before a cancel, by all that is left unless it says how much. */
  fillOnCancel: { quantity?: string } | null
  /** Null: a cancel takes effect when the switches say. */
  cancelDelayMs: number | null
  /** Null: a placement enters the book before it is answered. */
  commitDelayMs: number | null
  /** Client order ids are unique, independent of the switches. */
  dedupe: boolean
  /** Null: the usual rate limit holds. */
  requestsPerSecond: number | null
}

/** How one request will be treated. */
export interface Plan {
  latencyMs: number
  twin: boolean
  end: Fault | null
  changes: readonly Fault[]
  whims: Whims
}

interface Answer {
  status: number
  headers: Record<string, string>
  body: unknown
}

/** One request in the hands of the faults. */
export interface Call {
  response: ServerResponse
  /** Resolves when the body has been read: false if the caller went away first. */
  read: () => Promise<boolean>
  /** Processes the request. Its effect is permanent. */
  work: () => Answer
  /** Whether the request asks for a new order. */
  places: boolean
  /** Places the requested order as another channel would; does nothing if the request asks for no order. */
  placeTwin: () => void
  /** The broker's own refusal for too many requests, with nothing done. */
  throttle: (status: number) => Answer
  /** Returns JSON of an order that the request and the text do not name; null if no such order exists. */
  strangeOrder: (text: string) => unknown
  /** Closes the listener and every connection. */
  refuse: () => void
  /** Aborts when the sandbox closes. */
  closing: AbortSignal
  /** Told of the status just before it is sent. */
  answering: (status: number) => void
}

const rulesMax = 1000
const msMax = 3_600_000
const bodyTextMax = 67_108_864
const bytesMax = 1_073_741_824
const rowsMax = 1000
const fieldsMax = 10_000
const packedMax = 16

// --- rules ---

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isWhole(value: unknown, min: number, max: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
}

function isText(value: unknown, pattern = /^/): value is string {
  return typeof value === 'string' && value.length <= bodyTextMax && pattern.test(value)
}

function isOneOf<T>(values: readonly T[], value: unknown): value is T {
  return values.some((known) => known === value)
}

/** Throws an Error that names the rule and the field. */
function parseRule(value: unknown, at: string): Rule {
  if (!isRecord(value)) throw new Error(`${at} is not an object`)
  refuseUnknown(value, ['match', 'fault'], at)
  return { match: parseMatch(value['match'] ?? {}, `${at}.match`), fault: parseFault(value['fault'], `${at}.fault`) }
}

function refuseUnknown(value: Record<string, unknown>, known: readonly string[], at: string): void {
  for (const name of Object.keys(value)) {
    if (!known.includes(name)) throw new Error(`${at}.${name} is unknown; there are ${known.join(', ') || 'no fields'}`)
  }
}

function parseMatch(value: unknown, at: string): Match {
  if (!isRecord(value)) throw new Error(`${at} is not an object`)
  refuseUnknown(value, ['method', 'path', 'account', 'nth', 'times'], at)
  const match: Match = {}
  const { method, path, account, nth, times } = value
  if (method !== undefined) {
    if (!isText(method, /^[A-Za-z]+$/)) throw new Error(`${at}.method is not an HTTP method`)
    match.method = method.toUpperCase()
  }
  if (path !== undefined) {
    if (!isText(path)) throw new Error(`${at}.path is not text`)
    try {
      RegExp(path)
    } catch {
      throw new Error(`${at}.path is not a regular expression`)
    }
    match.path = path
  }
  if (account !== undefined) {
    if (!isText(account)) throw new Error(`${at}.account is not text`)
    match.account = account
  }
  if (nth !== undefined) {
    if (!isWhole(nth, 1, 1e9)) throw new Error(`${at}.nth is not a whole number from 1`)
    match.nth = nth
  }
  if (times !== undefined) {
    if (!isWhole(times, 1, 1e9)) throw new Error(`${at}.times is not a whole number from 1`)
    match.times = times
  }
  return match
}

function parseFault(value: unknown, at: string): Fault {
  if (!isRecord(value)) throw new Error(`${at} is not an object`)
  const kind = Object.keys(faultKinds).find((known): known is FaultKind => known === value['kind'])
  if (kind === undefined) throw new Error(`${at}.kind is one of ${Object.keys(faultKinds).join(', ')}`)
  const names: readonly string[] = faultKinds[kind]
  refuseUnknown(value, ['kind', ...names.map((name) => name.replace('!', ''))], at)
  for (const name of names) {
    if (name.endsWith('!') && !Object.hasOwn(value, name.slice(0, -1)))
      throw new Error(`${at}.${name.slice(0, -1)} is missing`)
  }
  const fault: Fault = { kind }
  const { ms, when, status, contentType, headers, bytes, bytesPerSecond, field, row, source, order, quantity } = value
  const { how, count, rows, perSecond } = value
  if (ms !== undefined) {
    if (!isWhole(ms, 0, msMax)) throw new Error(`${at}.ms is not a whole number from 0 to ${msMax}`)
    fault.ms = ms
  }
  if (when !== undefined) {
    if (!isOneOf(moments, when)) throw new Error(`${at}.when is one of ${moments.join(', ')}`)
    fault.when = when
  }
  if (status !== undefined) {
    if (!isWhole(status, 200, 599)) throw new Error(`${at}.status is not a whole number from 200 to 599`)
    fault.status = status
  }
  if (contentType !== undefined) fault.contentType = parseHeader('content-type', contentType, `${at}.contentType`)
  if (headers !== undefined) {
    if (!isRecord(headers)) throw new Error(`${at}.headers is not an object`)
    fault.headers = {}
    for (const [name, text] of Object.entries(headers)) {
      fault.headers[name] = parseHeader(name, text, `${at}.headers.${name}`)
    }
  }
  if (bytes !== undefined) {
    if (!isWhole(bytes, 0, bytesMax)) throw new Error(`${at}.bytes is not a whole number from 0 to ${bytesMax}`)
    fault.bytes = bytes
  }
  if (bytesPerSecond !== undefined) {
    const usable = typeof bytesPerSecond === 'number' && bytesPerSecond >= 0.001 && bytesPerSecond <= 1e9
    if (!usable) throw new Error(`${at}.bytesPerSecond is not a number from 0.001 to 1e9`)
    fault.bytesPerSecond = bytesPerSecond
  }
  if (field !== undefined) {
    if (!isText(field, /./)) throw new Error(`${at}.field is not a name`)
    fault.field = field
  }
  if (row !== undefined) {
    if (!isWhole(row, 0, 1e9)) throw new Error(`${at}.row is not a whole number from 0`)
    fault.row = row
  }
  if (source !== undefined) {
    if (!isText(source, numberToken)) throw new Error(`${at}.source is not a JSON number, as text`)
    fault.source = source
  }
  if (order !== undefined) {
    if (!isOneOf(listOrders, order)) throw new Error(`${at}.order is one of ${listOrders.join(', ')}`)
    fault.order = order
  }
  if (quantity !== undefined) {
    if (!isText(quantity, /^(?=.*[1-9])\d{1,50}(\.\d{1,50})?$/))
      throw new Error(`${at}.quantity is not a positive decimal string`)
    fault.quantity = quantity
  }
  if (how !== undefined) {
    if (!isOneOf(brokenHeads, how)) throw new Error(`${at}.how is one of ${brokenHeads.join(', ')}`)
    fault.how = how
  }
  if (count !== undefined) {
    if (!isWhole(count, 0, fieldsMax)) throw new Error(`${at}.count is not a whole number from 0 to ${fieldsMax}`)
    fault.count = count
  }
  if (rows !== undefined) {
    if (!isWhole(rows, 1, rowsMax)) throw new Error(`${at}.rows is not a whole number from 1 to ${rowsMax}`)
    fault.rows = rows
  }
  if (perSecond !== undefined) {
    if (!isWhole(perSecond, 0, 1e9)) throw new Error(`${at}.perSecond is not a whole number from 0`)
    fault.perSecond = perSecond
  }
  if (kind === 'retryAfter') fault.value = parseHeader('retry-after', value['value'], `${at}.value`)
  else if (kind === 'contentType') fault.value = parseHeader('content-type', value['value'], `${at}.value`)
  else if (Object.hasOwn(value, 'value')) fault.value = value['value']
  if (Object.hasOwn(value, 'body')) fault.body = value['body']
  return fault
}

const numberToken = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/

function parseHeader(name: string, value: unknown, at: string): string {
  if (typeof value !== 'string') throw new Error(`${at} is not text`)
  try {
    validateHeaderName(name)
    validateHeaderValue(name, value)
  } catch {
    throw new Error(`${at} cannot be sent as a header`)
  }
  return value
}

/** The rules in force. `accountNames` tells every id of the account that a request is about; none when it has none. */
export function createFaults(accountNames: (url: string) => readonly string[]) {
  let rules: { rule: Rule; path: RegExp | null; seen: number; applied: number }[] = []

  return {
    /** Replaces all rules and resets the counts. Throws an Error that names the problem, and then changes nothing. */
    replace(body: unknown): void {
      if (!Array.isArray(body)) throw new Error('rules is not an array')
      if (body.length > rulesMax) throw new Error(`more than ${rulesMax} rules`)
      rules = body.map((value: unknown, index) => {
        const rule = parseRule(value, `rules[${index}]`)
        return { rule, path: rule.match.path === undefined ? null : RegExp(rule.match.path), seen: 0, applied: 0 }
      })
    },
    list: (): Rule[] => rules.map(({ rule }) => rule),
    /** Whether a rule refuses every connection, independent of the request. */
    refusesAll: (): boolean =>
      rules.some(({ rule }) => rule.fault.kind === 'refuse' && Object.keys(rule.match).length === 0),
    /** Counts the request for every rule and says what is to happen to it. To be called once per request. */
    plan(method: string, url: string): Plan {
      const plan = { latencyMs: 0, twin: false, end: null as Fault | null, changes: [] as Fault[] }
      const whims: Whims = {
        listOrder: null,
        ignoreFilter: false,
        extraRows: 0,
        listLagMs: null,
        getLagMs: null,
        fillOnCancel: null,
        cancelDelayMs: null,
        commitDelayMs: null,
        dedupe: false,
        requestsPerSecond: null,
      }
      for (const entry of rules) {
        const { match, fault } = entry.rule
        if (match.method !== undefined && match.method !== method) continue
        if (entry.path !== null && !entry.path.test(url)) continue
        const { account } = match
        if (account !== undefined && !url.includes(account) && !accountNames(url).includes(account)) continue
        entry.seen++
        if (match.nth !== undefined && entry.seen !== match.nth) continue
        if (match.times !== undefined && entry.applied >= match.times) continue
        switch (fault.kind) {
          case 'latency':
            plan.latencyMs += fault.ms ?? 0
            break
          case 'setField':
          case 'dropField':
          case 'asNumber':
          case 'extraFields':
          case 'contentType':
            plan.changes.push(fault)
            break
          case 'omitClientOrderId':
            plan.changes.push({ kind: 'dropField', field: 'client_order_id' }, { kind: 'dropField', field: 'clientId' })
            break
          case 'twin':
            plan.twin = true
            break
          case 'listOrder':
            whims.listOrder = fault.order ?? null
            break
          case 'ignoreFilter':
            whims.ignoreFilter = true
            break
          case 'extraRows':
            whims.extraRows = fault.rows ?? 4
            break
          case 'listLag':
            whims.listLagMs = fault.ms ?? 0
            break
          case 'getLag':
            whims.getLagMs = fault.ms ?? 0
            break
          case 'maxRps':
            whims.requestsPerSecond = fault.perSecond ?? null
            break
          case 'asyncCancel':
            whims.cancelDelayMs = fault.ms ?? 0
            break
          case 'commitDelay':
            whims.commitDelayMs = fault.ms ?? 0
            break
          case 'dedupe':
            whims.dedupe = true
            break
          case 'fillOnCancel':
            whims.fillOnCancel = fault.quantity === undefined ? {} : { quantity: fault.quantity }
            break
          case 'hang':
          case 'refuse':
          case 'rstBeforeRead':
          case 'rstAfterRead':
          case 'rstAfterCommit':
          case 'finAfterCommit':
          case 'status':
          case 'truncate':
          case 'drip':
          case 'emptyBody':
          case 'invalidJson':
          case 'huge':
          case 'gzipBomb':
          case 'badHeaders':
          case 'extraResponse':
          case 'retryAfter':
            if (plan.end !== null) continue
            plan.end = fault
            break
          default:
            fault.kind satisfies never
        }
        entry.applied++
      }
      return { ...plan, whims }
    },
  }
}

// --- one request ---

/** Waits `ms`, or without end. Returns true when the time is over, false as soon as the caller has left. */
function pause(response: ServerResponse, ms: number | null): Promise<boolean> {
  return new Promise((resolve) => {
    if (response.destroyed || response.socket === null || response.socket.destroyed) {
      resolve(false)
      return
    }
    const timer = ms === null ? undefined : setTimeout(finish, ms, true)
    const left = (): void => finish(false)
    response.once('close', left)
    function finish(over: boolean): void {
      clearTimeout(timer)
      response.off('close', left)
      resolve(over)
    }
  })
}

/** Waits `ms`, whether or not the caller stays. False as soon as the sandbox closes. */
function delay(ms: number, closing: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(finish, ms, true)
    const closed = (): void => finish(false)
    closing.addEventListener('abort', closed)
    function finish(over: boolean): void {
      clearTimeout(timer)
      closing.removeEventListener('abort', closed)
      resolve(over)
    }
  })
}

/**
 * Takes one request to its end as planned. The work of a caller who leaves during a latency is still done when it is
 * over, as a slow server would that has read the whole request; one who leaves during a hang is forgotten.
 */
export async function run(plan: Plan, call: Call): Promise<void> {
  const { response } = call
  const { socket } = response
  const fault = plan.end
  const when = fault?.when ?? 'beforeCommit'
  if (fault?.kind === 'refuse') {
    call.refuse()
    return
  }
  if (fault?.kind === 'rstBeforeRead') {
    socket?.resetAndDestroy()
    return
  }
  if (!(await call.read())) return
  if (plan.latencyMs > 0 && !(await delay(plan.latencyMs, call.closing))) return
  if (plan.twin) call.placeTwin()
  if (fault?.kind === 'retryAfter') {
    const { status, headers, body } = call.throttle(fault.status ?? 429)
    const type = 'application/json; charset=utf-8'
    const all = { 'content-type': type, ...headers, 'retry-after': String(fault.value) }
    send(call, status, all, Buffer.from(JSON.stringify(body), 'utf8'))
    return
  }
  // An order that enters the book later comes after any end of its request, so it is taken in before.
  const taken = plan.whims.commitDelayMs !== null && call.places ? call.work() : null
  if (fault?.kind === 'rstAfterRead') {
    socket?.resetAndDestroy()
    return
  }
  if (fault?.kind === 'hang' && when === 'beforeCommit' && !(await pause(response, fault.ms ?? null))) return
  if (fault?.kind === 'status' && when === 'beforeCommit') {
    sendStatus(fault, call)
    return
  }

  const answer = taken ?? call.work()
  const headers: Record<string, string> = { 'content-type': 'application/json; charset=utf-8', ...answer.headers }
  const body = Buffer.from(changeBody(plan.changes, answer), 'utf8')
  for (const change of plan.changes) if (change.kind === 'contentType') headers['content-type'] = String(change.value)

  const kind = fault?.kind
  if (kind === 'rstAfterCommit') {
    socket?.resetAndDestroy()
  } else if (kind === 'finAfterCommit') {
    socket?.destroySoon()
  } else if (fault?.kind === 'status') {
    sendStatus(fault, call)
  } else if (kind === 'truncate') {
    const part = body.subarray(0, Math.min(fault?.bytes ?? Math.floor(body.length / 2), body.length - 1))
    call.answering(answer.status)
    response.writeHead(answer.status, { ...headers, 'content-length': String(body.length) })
    // If the part is empty, only flushing sends the head.
    response.flushHeaders()
    response.write(part, () => socket?.destroySoon())
  } else if (kind === 'drip') {
    await drip(call, answer.status, headers, body, fault?.bytesPerSecond ?? 1)
  } else if (kind === 'huge') {
    call.answering(answer.status)
    response.writeHead(answer.status, headers)
    // A caller who has had enough leaves on the way; that is no failure of ours.
    await pipeline(Readable.from(pad(body, fault?.bytes ?? 0)), response).catch(() => {})
  } else if (fault?.kind === 'gzipBomb') {
    send(call, answer.status, { ...headers, 'content-encoding': 'gzip' }, await pack(fault, body))
  } else if (fault?.kind === 'badHeaders') {
    sendBroken(fault, call, answer.status, headers, body)
  } else if (fault?.kind === 'extraResponse') {
    await sendTwice(fault, call, answer.status, headers, body)
  } else if (kind === 'emptyBody') {
    send(call, fault?.status ?? answer.status, headers, Buffer.alloc(0))
  } else if (kind === 'invalidJson') {
    // Has the right length, and is readable almost to the end.
    send(call, answer.status, headers, Buffer.concat([body.subarray(0, -1), Buffer.from(',')]))
  } else {
    const hangs = kind === 'hang' && when === 'afterCommit'
    if (hangs && !(await pause(response, fault?.ms ?? null))) return
    send(call, answer.status, headers, body)
  }
}

function send(call: Call, status: number, headers: Record<string, string>, body: Buffer): void {
  const bodiless = status === 204 || status === 304
  call.answering(status)
  call.response.writeHead(status, bodiless ? headers : { ...headers, 'content-length': String(body.length) })
  call.response.end(bodiless ? undefined : body)
}

function sendStatus(fault: Fault, call: Call): void {
  const text = typeof fault.body === 'string' ? fault.body : fault.body === undefined ? '' : JSON.stringify(fault.body)
  const type = fault.contentType ?? (typeof fault.body === 'string' ? 'text/html' : 'application/json; charset=utf-8')
  send(call, fault.status ?? 500, { 'content-type': type, ...fault.headers }, Buffer.from(text, 'utf8'))
}

const spaces = Buffer.alloc(65_536, ' ')

/**
 * The text of a JSON object or array with spaces before its last character, so that it is still the same JSON, and so
 * that no part of it is: a reader who stops at a limit has nothing to parse.
 */
function* pad(body: Buffer, bytes: number): Generator<Buffer> {
  yield body.subarray(0, -1)
  for (let left = bytes - body.length; left > 0; left -= spaces.length) yield spaces.subarray(0, left)
  yield body.subarray(-1)
}

// Per rule, so they go when it goes: a body of many megabytes takes a good part of a second to pack.
const packed = new WeakMap<Fault, Map<string, Promise<Buffer>>>()

function pack(fault: Fault, body: Buffer): Promise<Buffer> {
  const kept = packed.get(fault) ?? new Map<string, Promise<Buffer>>()
  packed.set(fault, kept)
  const text = body.toString('utf8')
  const known = kept.get(text)
  if (known !== undefined) return known
  if (kept.size >= packedMax) kept.clear()
  const made = gather(Readable.from(pad(body, fault.bytes ?? 0)))
  kept.set(text, made)
  return made
}

async function gather(source: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  await pipeline(source, createGzip(), async (output: AsyncIterable<Buffer>) => {
    for await (const chunk of output) chunks.push(chunk)
  })
  return Buffer.concat(chunks)
}

/** Leaves the connection open, so that a client that reuses it gets an answer. */
function sendBroken(fault: Fault, call: Call, status: number, headers: Record<string, string>, body: Buffer): void {
  const { response } = call
  const { socket } = response
  call.answering(status)
  if (fault.how === 'badChunk') {
    const half = body.length >> 1
    response.writeHead(status, { ...headers, 'transfer-encoding': 'chunked' })
    response.flushHeaders()
    socket?.write(`${half.toString(16)}\r\n${body.toString('latin1', 0, half)}\r\nxyz\r\n`, 'latin1')
    socket?.write(body.subarray(half))
    socket?.write('\r\n')
    response.end()
    return
  }
  // A flat list is written as it is, twice the same name or not.
  const length = ['content-length', String(body.length)]
  const more =
    fault.how === 'hugeHeader'
      ? Array.from({ length: 40 }, (_, index) => [`x-padding-${index}`, 'x'.repeat(1024)]).flat()
      : ['content-length', String(body.length >> 1)]
  response.writeHead(status, [...Object.entries(headers).flat(), ...length, ...more])
  response.end(body)
}

async function sendTwice(
  fault: Fault,
  call: Call,
  status: number,
  headers: Record<string, string>,
  body: Buffer,
): Promise<void> {
  const { response } = call
  const { socket } = response
  const order = JSON.stringify(call.strangeOrder(body.toString('utf8')))
  const extra = Buffer.from(
    'HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n' +
      `content-length: ${Buffer.byteLength(order)}\r\n\r\n${order}`,
  )
  call.answering(status)
  response.writeHead(status, { ...headers, 'content-length': String(body.length) })
  if (fault.ms === undefined) {
    // One write, longer than promised, so that both arrive together and no request can come between.
    response.end(Buffer.concat([body, extra]))
    return
  }
  response.end(body)
  if ((await delay(fault.ms, call.closing)) && socket?.writable === true) socket.write(extra)
}

async function drip(
  call: Call,
  status: number,
  headers: Record<string, string>,
  body: Buffer,
  bytesPerSecond: number,
): Promise<void> {
  call.answering(status)
  call.response.writeHead(status, { ...headers, 'content-length': String(body.length) })
  call.response.flushHeaders()
  // A byte at a time when slow, larger pieces fifty times a second when not.
  const piece = Math.max(1, Math.floor(bytesPerSecond / 50))
  for (let at = 0; at < body.length; at += piece) {
    if (!(await pause(call.response, Math.min(msMax, (1000 * piece) / bytesPerSecond)))) return
    call.response.write(body.subarray(at, at + piece))
  }
  call.response.end()
}

/** The body's text with the changed fields. Only successes are changed: an error has none of their fields. */
function changeBody(changes: readonly Fault[], answer: { status: number; body: unknown }): string {
  if (changes.length === 0 || answer.status >= 300) return JSON.stringify(answer.body)
  const body: unknown = structuredClone(answer.body)
  const printed: string[] = []
  const marker = 'number to print '
  for (const { kind, field = '', value, row, source, count = 0 } of changes) {
    for (const [index, item] of rowsOf(body).entries()) {
      if (!isRecord(item) || (row !== undefined && row !== index)) continue
      if (kind === 'extraFields') addUnknown(item, count)
      if (kind === 'setField') item[field] = value
      if (kind === 'dropField') delete item[field]
      if (kind === 'asNumber') {
        const digits = source ?? String(item[field])
        // A Number cannot hold every digit, so the token takes the place of a marker once the text is made.
        if (numberToken.test(digits)) item[field] = `${marker}${printed.push(digits) - 1}`
      }
    }
  }
  return JSON.stringify(body).replaceAll(
    RegExp(`"${marker}(\\d+)"`, 'g'),
    (_, index) => printed[Number(index)] ?? 'null',
  )
}

function addUnknown(item: Record<string, unknown>, count: number): void {
  const values = ['text', 12.5, true, null, { nested: ['deep'] }, []]
  for (let i = 0; i < count; i++) item[`unknown_field_${i}`] = values[i % values.length]
}

function rowsOf(body: unknown): unknown[] {
  if (Array.isArray(body)) return body
  if (!isRecord(body)) return [body]
  // Bluum's lists, and Aries'.
  return [body['data'], body['orders'], body['accounts']].find(Array.isArray) ?? [body]
}
