// The sandbox over HTTP: the broker's own port, and a control port where tests move the clock, fill orders, read the
// book and the log, and order misbehaviour. Both listen on loopback only.

import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { createAries, fromClOrdId, hasSecretBody, isOfAries, toClOrdId } from './aries.ts'
import { createBluum } from './bluum.ts'
import { bodyBytesMax } from './dialect.ts'
import type { Dialect } from './dialect.ts'
import { createExchange } from './exchange.ts'
import type { Account, Order } from './exchange.ts'
import { createFront } from './front.ts'
import { createFaults, run } from './faults.ts'
import { createInvestors, isOfInvestors, toInvestorId } from './investors.ts'
import { createMarket, seedHistory } from './seed.ts'
import { openState } from './state.ts'
import { createSwitches } from './switches.ts'
import type { Switches } from './switches.ts'
import { createTokens } from './tokens.ts'
import type { Credentials } from './tokens.ts'

export interface SandboxOptions {
  /** Path of the SQLite file, or ':memory:'. Its directory is created. */
  stateFile: string
  /** The same seed gives the same accounts, orders and prices. */
  seed: string
  /** The broker's loopback port; 0, the default, picks a free one. */
  port?: number
  /** The loopback port of the control API; 0, the default, picks a free one. */
  controlPort?: number
  /** Of the key pair; 1000 by default. */
  requestsPerSecond?: number
  apiKey?: string
  apiSecret?: string
  /** Ms since 1970, Date.now by default. What `POST /advance` adds comes on top. */
  now?: () => number
}

export interface Sandbox {
  /** The base URL of the broker, with /v1. */
  url: string
  controlUrl: string
  apiKey: string
  apiSecret: string
  /** Ids of the seeded accounts, the one to show first. */
  accounts: readonly string[]
  /** The same accounts, in the same order, by their ids in the investors dialect. */
  investors: readonly string[]
  /** Orders of the first account, and a limit price far below the market for a buy that rests. */
  demo: { filledOrderId: string; openOrderId: string; symbol: string; limitPrice: string }
  /** What Aries' dialect of the same broker is used with. Its accounts and orders are not those of Bluum. */
  aries: Credentials & {
    /** The base URL, without /v1. */
    url: string
    /** Which column of an account names it in order calls, as the switch was at the start. */
    tradingId: Switches['tradingId']
    /** Ids of the seeded accounts, the one to show first; the second has orders for options. */
    accounts: readonly string[]
    /** clOrdIds of orders of the first account. */
    demo: { filledOrderId: string; openOrderId: string }
  }
  /** Stops both listeners, ends every connection, closes the file. May be called again. */
  close(): Promise<void>
}

interface LogEntry {
  seq: number
  /** Ms since 1970 by the process's clock, without what was advanced. */
  at: number
  /** Connections are numbered from 1 as they are opened. */
  connection: number
  method: string
  path: string
  /** Null while unanswered, and for ever if it never was. */
  status: number | null
  /** SHA-256 of the Authorization header, as hex. */
  authorization: string | null
  idempotencyKey: string | null
  headers: Record<string, string>
  /** At most 16 KiB of it; none of a request for tokens, which has secrets in it. */
  body: string
}

const logEntriesMax = 20_000
const logBodyLengthMax = 16_384
/** Of Aries' one client. */
const ariesCredentials: Credentials = {
  clientId: 'sandbox-client',
  clientSecret: 'sandbox-client-secret',
  refreshToken: 'sandbox-refresh',
  accessToken: 'sandbox-access',
}
const controlBodyBytesMax = 67_108_864
const advanceMsMax = 10 * 366 * 86_400_000

/** The fields that the control port knows in a body; where nothing is said, the body is looked at elsewhere. */
const controlFields = new Map<string, readonly string[]>([
  ['advance', ['ms']],
  ['orders fill', ['quantity', 'price']],
  ['orders status', ['status']],
  [
    'orders',
    ['account', 'submitted_at', 'symbol', 'side', 'type', 'time_in_force', 'qty', 'limit_price', 'client_order_id'],
  ],
  ['accounts', ['status', 'cash']],
])

/** Starts the broker and its control port. Throws when the state file cannot be used or a port is taken. */
export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { stateFile, seed, requestsPerSecond = 1000, apiKey = 'sandbox-key', apiSecret = 'sandbox-secret' } = options
  const now = options.now ?? Date.now
  const market = createMarket(seed)
  const seeded = seedHistory(seed, market)
  const state = openState(stateFile, seed, Math.floor(now()), () => seeded)
  const exchange = createExchange({ ledger: state, market, now })
  const switches = createSwitches(state.readSetting('switches') ?? null, (values) => {
    exchange.transaction(() => state.saveSetting('switches', JSON.stringify(values)))
    exchange.setMode(values.market)
  })
  const front = createFront({ exchange, state, switches: switches.values, apiKey, apiSecret, requestsPerSecond })
  const bluum = createBluum(exchange, front)
  const investors = createInvestors(exchange, front)
  const tokens = createTokens({
    credentials: ariesCredentials,
    switches: switches.values,
    clock: () => exchange.clock(),
  })
  const aries = createAries({ exchange, switches: switches.values, tokens, requestsPerSecond })
  const dialectOf = (url: string): Dialect =>
    isOfAries(url) ? aries : isOfInvestors(url) ? investors.dialect : bluum.dialect
  const findAccount = (id: string): Account | undefined => exchange.account(id) ?? investors.accountOf(id)
  const faults = createFaults((url) => {
    const named = findAccount(/\/(?:accounts|investors)\/([^/?]+)/.exec(url)?.[1] ?? '')?.id
    const owner = exchange.order(/\/orders\/([^/?]+)/.exec(url)?.[1] ?? '')?.accountId
    return [named, owner].flatMap((id) => (id === undefined ? [] : [id, toInvestorId(id)]))
  })

  const log: LogEntry[] = []
  // The load since the log was cleared, which outlives the entries that the log lets go.
  let load = { total: 0, maxInAnySecond: 0, recent: [] as number[] }
  let requests = 0
  let connections = 0
  const connectionNumbers = new WeakMap<Socket, number>()
  const sockets = new Set<Socket>()
  const ending = new AbortController()

  const broker = createServer((request, response) => {
    const entry = logRequest(request)
    const { method, path: url } = entry
    const plan = faults.plan(method, url)
    const dialect = dialectOf(url)
    let body: string | null = null
    run(plan, {
      response,
      async read() {
        const read = await readBody(request, bodyBytesMax)
        body = read.text
        entry.body = hasSecretBody(url) ? '' : (body ?? '').slice(0, logBodyLengthMax)
        return read.whole
      },
      work() {
        const headers = { ...entry.headers }
        if (request.headers.authorization !== undefined) headers['authorization'] = request.headers.authorization
        const answer = dialect.answer({ method, url, headers, body, whims: plan.whims })
        // What is left of a body that nobody read cannot share the connection with the next request.
        if (body === null) answer.headers['connection'] = 'close'
        return answer
      },
      places: dialect.places(method, url),
      placeTwin: () => dialect.placeTwin({ method, url, body }),
      throttle: (status) => dialect.refuse(status, 'Slow down.'),
      strangeOrder(text) {
        // The oldest one that is not named, as nobody will ask for it next.
        const order = readBook(dialect.accounts()).findLast((one) => !(url + text).includes(dialect.idOf(one)))
        return order === undefined ? null : dialect.toOrderJson(order)
      },
      closing: ending.signal,
      refuse: shut,
      answering(status) {
        if (!response.destroyed) entry.status = status
      },
    }).catch((error: unknown) => {
      // A bug of ours, or a full disk: nothing was committed.
      process.emitWarning(`sandbox: ${entry.method} ${entry.path}: ${String(error)}`)
      if (response.headersSent) response.destroy()
      else sendJson(response, 500, dialect.refuse(500, 'Something broke.').body)
      entry.status = 500
    })
  })
  broker.on('connection', (socket: Socket) => connectionNumbers.set(socket, ++connections))
  const control = createServer((request, response) => {
    answerControl(request, response).catch((error: unknown) => {
      if (!response.headersSent) sendJson(response, 500, { message: String(error) })
    })
  })
  for (const server of [broker, control]) {
    server.keepAliveTimeout = 60_000
    server.on('connection', (socket: Socket) => {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    })
  }

  function logRequest(request: IncomingMessage): LogEntry {
    const headers: Record<string, string> = {}
    for (const [name, value] of Object.entries(request.headers)) {
      if (name !== 'authorization' && value !== undefined)
        headers[name] = Array.isArray(value) ? value.join(', ') : value
    }
    const { authorization } = request.headers
    const entry: LogEntry = {
      seq: ++requests,
      at: Math.floor(now()),
      connection: connectionNumbers.get(request.socket) ?? 0,
      method: request.method ?? '',
      path: request.url ?? '',
      status: null,
      authorization: authorization === undefined ? null : createHash('sha256').update(authorization).digest('hex'),
      idempotencyKey: headers['idempotency-key'] ?? null,
      headers,
      body: '',
    }
    load.total++
    while (load.recent[0] !== undefined && load.recent[0] <= entry.at - 1000) load.recent.shift()
    load.recent.push(entry.at)
    load.maxInAnySecond = Math.max(load.maxInAnySecond, load.recent.length)
    log.push(entry)
    // Cutting in pieces spares every request past the limit from moving the whole array.
    if (log.length > logEntriesMax + 1000) log.splice(0, log.length - logEntriesMax)
    return entry
  }

  // --- the listener, which a fault may take away ---

  let brokerPort = options.port ?? 0
  let shutting: Promise<unknown> | null = null

  /** Closes the broker's listener and its connections at once. */
  function shut(): void {
    if (shutting !== null || !broker.listening) return
    shutting = new Promise((resolve) => broker.close(resolve))
    for (const socket of sockets) if (connectionNumbers.has(socket)) socket.destroy()
  }

  async function reopen(): Promise<void> {
    if (shutting === null) return
    await shutting
    shutting = null
    await listen(broker, brokerPort)
  }

  async function setRules(body: unknown): Promise<void> {
    faults.replace(body)
    await reopen()
    if (faults.refusesAll()) {
      shut()
      await shutting
    }
  }

  // --- the control port ---

  async function answerControl(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page in somebody's browser can send requests here, under a name that it made point at loopback.
    const host = (request.headers.host ?? '').replace(/:\d+$/, '')
    const foreign = request.headers.origin !== undefined || (host !== '127.0.0.1' && host !== 'localhost')
    if (foreign) return sendJson(response, 403, { message: 'the control port is for local tools, not for web pages' })
    const read = await readBody(request, controlBodyBytesMax)
    if (read.text === null) return sendJson(response, 400, { message: 'the body is too large' })
    let body: unknown
    try {
      body = read.text === '' ? undefined : JSON.parse(read.text)
    } catch {
      return sendJson(response, 400, { message: 'the body is not JSON' })
    }
    const [path = '', query = ''] = (request.url ?? '').split('?', 2)
    const [, area = '', named = '', verb = ''] = path.split('/')
    // An order may be named by either id of it.
    const id = fromClOrdId(named) ?? named
    const fields = new Map<string, unknown>(
      typeof body === 'object' && body !== null && !Array.isArray(body) ? Object.entries(body) : [],
    )
    const accountId =
      area === 'book' ? new URLSearchParams(query).get('account') : area === 'orders' ? fields.get('account') : id
    const account = findAccount(String(accountId))

    const known = controlFields.get(verb === '' ? area : `${area} ${verb}`)
    const unknown = [...fields.keys()].find((name) => known?.includes(name) === false)
    if (known !== undefined && unknown !== undefined) {
      return sendJson(response, 400, { message: `unknown field "${unknown}"; there are ${known.join(', ')}` })
    }

    switch (`${request.method} /${area}`) {
      case 'GET /rules':
        return sendJson(response, 200, faults.list())
      case 'PUT /rules':
      case 'DELETE /rules':
        try {
          await setRules(request.method === 'PUT' ? body : [])
        } catch (error) {
          return sendJson(response, 400, { message: error instanceof Error ? error.message : String(error) })
        }
        return sendJson(response, 200, faults.list())
      case 'GET /log':
        return sendJson(response, 200, log.slice(-logEntriesMax))
      case 'DELETE /log':
        log.length = 0
        load = { total: 0, maxInAnySecond: 0, recent: [] }
        return sendJson(response, 200, [])
      case 'GET /load':
        return sendJson(response, 200, { maxInAnySecond: load.maxInAnySecond, total: load.total })
      case 'GET /book':
        if (query.includes('account=') && account === undefined)
          return sendJson(response, 404, { message: 'no such account' })
        return sendJson(
          response,
          200,
          readBook(account === undefined ? exchange.accounts() : [account]).map(toBookJson),
        )
      case 'DELETE /book':
        if (account === undefined) return sendJson(response, 404, { message: 'no such account' })
        exchange.clear(account.id)
        return sendJson(response, 200, [])
      case 'GET /clock':
        return sendJson(response, 200, { now: exchange.clock() })
      case 'POST /advance': {
        const ms = fields.get('ms')
        if (typeof ms !== 'number' || !Number.isInteger(ms) || ms < 0 || ms > advanceMsMax) {
          return sendJson(response, 400, { message: `ms is a whole number from 0 to ${advanceMsMax}` })
        }
        exchange.advance(ms)
        return sendJson(response, 200, { now: exchange.clock() })
      }
      case 'GET /switches':
        return sendJson(response, 200, switches.values)
      case 'PUT /switches': {
        const problem = switches.set(body)
        return problem === null
          ? sendJson(response, 200, switches.values)
          : sendJson(response, 400, { message: problem })
      }
      case 'POST /orders': {
        if (id === '' && account === undefined) return sendJson(response, 404, { message: 'no such account' })
        const order = changeBook(account, id, verb, fields)
        if (order === null) break
        return 'code' in order
          ? sendJson(response, Number(order.code.slice(5, 8)), { message: order.message })
          : sendJson(response, 200, toBookJson(order))
      }
      case 'PUT /accounts': {
        if (account === undefined) return sendJson(response, 404, { message: 'no such account' })
        const problem = bluum.setAccount(account, { status: fields.get('status'), cash: fields.get('cash') })
        return problem === null
          ? sendJson(response, 200, bluum.toAccountJson(account))
          : sendJson(response, 400, { message: problem })
      }
      case 'POST /tokens':
        if (id !== 'expire' && id !== 'restore') break
        tokens[id]()
        return sendJson(response, 200, {})
      default:
    }
    return sendJson(response, 404, { message: `the control port has no ${request.method} ${path}` })
  }

  /** Every order of the accounts, newest first and complete, whatever the switches say. */
  function readBook(accounts: readonly Account[]): Order[] {
    const all = accounts.flatMap(({ id }) => exchange.page(id, () => true, { limit: Infinity }).rows)
    return all.sort((a, b) => b.submittedAt - a.submittedAt || (a.id < b.id ? 1 : -1))
  }

  /** In the words of Bluum's accounts dialect, whosever order it is. */
  function toBookJson(order: Order): Record<string, unknown> {
    const isAries = exchange.account(order.accountId)?.broker === 'aries'
    return { ...bluum.dialect.toOrderJson(order), ...(isAries ? { aries_id: toClOrdId(order.id) } : {}) }
  }

  /** Inserts, fills or changes an order: the order, or a problem with its code; null when there is no such verb. */
  function changeBook(account: Account | undefined, id: string, verb: string, fields: Map<string, unknown>) {
    if (id === '' && account !== undefined) {
      fields.delete('account')
      return bluum.insert(account, Object.fromEntries(fields))
    }
    if (verb === 'status') return bluum.setStatus(id, fields.get('status'))
    if (verb !== 'fill') return null
    const wanted: { quantity?: string; price?: string } = {}
    for (const name of ['quantity', 'price'] as const) {
      if (fields.has(name)) wanted[name] = String(fields.get(name))
    }
    return bluum.fill(id, wanted)
  }

  // --- the whole ---

  let closing: Promise<void> | null = null

  async function close(): Promise<void> {
    ending.abort()
    const servers = [broker, control].filter((server) => server.listening)
    const closed = servers.map((server) => new Promise((resolve) => server.close(resolve)))
    for (const socket of sockets) socket.destroy()
    await Promise.all([...closed, shutting])
    state.close()
  }

  try {
    await listen(broker, brokerPort)
    brokerPort = portOf(broker)
    await listen(control, options.controlPort ?? 0)
  } catch (error) {
    await close()
    throw error
  }
  return {
    url: `http://127.0.0.1:${brokerPort}/v1`,
    controlUrl: `http://127.0.0.1:${portOf(control)}`,
    apiKey,
    apiSecret,
    accounts: seeded.bluum.accounts.map(({ id }) => id),
    investors: seeded.bluum.accounts.map(({ id }) => toInvestorId(id)),
    demo: { ...seeded.bluum.demo, ...seeded.resting },
    aries: {
      url: `http://127.0.0.1:${brokerPort}`,
      ...ariesCredentials,
      tradingId: switches.values.tradingId,
      accounts: seeded.aries.accounts.map(({ id }) => id),
      demo: {
        filledOrderId: toClOrdId(seeded.aries.demo.filledOrderId),
        openOrderId: toClOrdId(seeded.aries.demo.openOrderId),
      },
    },
    close: () => (closing ??= close()),
  }
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the listener has no port')
  return address.port
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

/** The body as text, null if longer than `bytesMax` (the rest is let go by unread). Not whole when the caller left. */
function readBody(request: IncomingMessage, bytesMax: number): Promise<{ text: string | null; whole: boolean }> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= bytesMax) chunks.push(chunk)
      else resolve({ text: null, whole: true })
    })
    request.once('end', () => resolve({ text: Buffer.concat(chunks).toString('utf8'), whole: true }))
    request.once('error', () => resolve({ text: '', whole: false }))
    request.once('close', () => resolve({ text: '', whole: false }))
  })
}
