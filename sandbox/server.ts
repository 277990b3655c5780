// The sandbox over HTTP: the broker's own port, and a control port where tests move the clock, fill orders, read the
// book and the log, and order misbehaviour. Both listen on loopback only.

import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { createAries, fromClOrdId, hasSecretBody, isOfAries, toClOrdId } from './aries.ts'
import { createBluum } from './bluum.ts'
import { bodyBytesMax } from './dialect.ts'
import type { Dialect } from './dialect.ts'
import { Exchange } from './exchange.ts'
import type { Account, Order } from './orders.ts'
import { createFront } from './front.ts'
import { createFaults, run } from './faults.ts'
import { createInvestors, isOfInvestors, toInvestorId } from './investors.ts'
import { RequestLog } from './requestLog.ts'
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
  /** Rate of the key pair; 1000 by default. */
  requestsPerSecond?: number
  apiKey?: string
  apiSecret?: string
  /** Ms since 1970, Date.now by default. `POST /advance` adds to it. */
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
  /** The access to Aries' dialect of the same broker. Its accounts and orders are not those of Bluum. */
  aries: Credentials & {
    /** The base URL, without /v1. */
    url: string
    /** The column of an account that names it in order calls, as the switch was at the start. */
    tradingId: Switches['tradingId']
    /** Ids of the seeded accounts, the one to show first; the second has orders for options. */
    accounts: readonly string[]
    /** clOrdIds of orders of the first account. */
    demo: { filledOrderId: string; openOrderId: string }
  }
  /** Stops both listeners, ends every connection, closes the file. May be called again. */
  close(): Promise<void>
}

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

/** The fields of each body of the control port; bodies that are not listed are checked elsewhere. */
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
  return await createSandboxServer(options).start()
}

function createSandboxServer(options: SandboxOptions) {
  return new SandboxServer(options)
}

class SandboxServer {
  readonly #options: SandboxOptions
  readonly #apiKey
  readonly #apiSecret
  readonly #seeded
  readonly #state
  readonly #exchange
  readonly #switches
  readonly #bluum
  readonly #investors
  readonly #tokens
  readonly #aries
  readonly #faults
  readonly #log
  #connections = 0
  readonly #connectionNumbers = new WeakMap<Socket, number>()
  readonly #sockets = new Set<Socket>()
  readonly #ending = new AbortController()
  readonly #broker
  readonly #control
  // --- the listener, which a fault may take away ---
  #brokerPort
  #shutting: Promise<unknown> | null = null
  // --- the whole ---
  #closing: Promise<void> | null = null

  constructor(options: SandboxOptions) {
    this.#options = options
    const { stateFile, seed, requestsPerSecond = 1000, apiKey = 'sandbox-key', apiSecret = 'sandbox-secret' } = options
    this.#apiKey = apiKey
    this.#apiSecret = apiSecret
    const now = options.now ?? Date.now
    const market = createMarket(seed)
    this.#seeded = seedHistory(seed, market)
    this.#state = openState(stateFile, seed, Math.floor(now()), () => this.#seeded)
    this.#exchange = new Exchange({ ledger: this.#state, market, now })
    this.#switches = createSwitches(this.#state.readSetting('switches') ?? null, (values) => {
      this.#exchange.transaction(() => this.#state.saveSetting('switches', JSON.stringify(values)))
      this.#exchange.setMode(values.market)
    })
    const front = createFront({
      exchange: this.#exchange,
      state: this.#state,
      switches: this.#switches.values,
      apiKey: this.#apiKey,
      apiSecret: this.#apiSecret,
      requestsPerSecond,
    })
    this.#bluum = createBluum(this.#exchange, front)
    this.#investors = createInvestors(this.#exchange, front)
    this.#tokens = createTokens({
      credentials: ariesCredentials,
      switches: this.#switches.values,
      clock: () => this.#exchange.clock(),
    })
    this.#aries = createAries({
      exchange: this.#exchange,
      switches: this.#switches.values,
      tokens: this.#tokens,
      requestsPerSecond,
    })
    this.#faults = createFaults((url) => {
      const named = this.#findAccount(/\/(?:accounts|investors)\/([^/?]+)/.exec(url)?.[1] ?? '')?.id
      const owner = this.#exchange.order(/\/orders\/([^/?]+)/.exec(url)?.[1] ?? '')?.accountId
      return [named, owner].flatMap((id) => (id === undefined ? [] : [id, toInvestorId(id)]))
    })
    this.#log = new RequestLog(now)
    this.#broker = createServer((request, response) => {
      const entry = this.#log.add(request, this.#connectionNumbers.get(request.socket) ?? 0)
      const { method, path: url } = entry
      const plan = this.#faults.plan(method, url)
      const dialect = this.#dialectOf(url)
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
          // The rest of a body that was not read cannot share the connection with the next request.
          if (body === null) answer.headers['connection'] = 'close'
          return answer
        },
        places: dialect.places(method, url),
        placeTwin: () => dialect.placeTwin({ method, url, body }),
        throttle: (status) => dialect.refuse(status, 'Slow down.'),
        strangeOrder: (text) => {
          // The oldest order that is not named, because it is the least likely one to be requested next.
          const order = this.#readBook(dialect.accounts()).findLast((one) => !(url + text).includes(dialect.idOf(one)))
          return order === undefined ? null : dialect.toOrderJson(order)
        },
        closing: this.#ending.signal,
        refuse: () => this.#shut(),
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
    this.#broker.on('connection', (socket: Socket) => this.#connectionNumbers.set(socket, ++this.#connections))
    this.#control = createServer((request, response) => {
      this.#answerControl(request, response).catch((error: unknown) => {
        if (!response.headersSent) sendJson(response, 500, { message: String(error) })
      })
    })
    for (const server of [this.#broker, this.#control]) {
      server.keepAliveTimeout = 60_000
      server.on('connection', (socket: Socket) => {
        this.#sockets.add(socket)
        socket.once('close', () => this.#sockets.delete(socket))
      })
    }
    this.#brokerPort = options.port ?? 0
  }

  async start(): Promise<Sandbox> {
    try {
      await listen(this.#broker, this.#brokerPort)
      this.#brokerPort = portOf(this.#broker)
      await listen(this.#control, this.#options.controlPort ?? 0)
    } catch (error) {
      await this.#close()
      throw error
    }
    return {
      url: `http://127.0.0.1:${this.#brokerPort}/v1`,
      controlUrl: `http://127.0.0.1:${portOf(this.#control)}`,
      apiKey: this.#apiKey,
      apiSecret: this.#apiSecret,
      accounts: this.#seeded.bluum.accounts.map(({ id }) => id),
      investors: this.#seeded.bluum.accounts.map(({ id }) => toInvestorId(id)),
      demo: { ...this.#seeded.bluum.demo, ...this.#seeded.resting },
      aries: {
        url: `http://127.0.0.1:${this.#brokerPort}`,
        ...ariesCredentials,
        tradingId: this.#switches.values.tradingId,
        accounts: this.#seeded.aries.accounts.map(({ id }) => id),
        demo: {
          filledOrderId: toClOrdId(this.#seeded.aries.demo.filledOrderId),
          openOrderId: toClOrdId(this.#seeded.aries.demo.openOrderId),
        },
      },
      close: () => (this.#closing ??= this.#close()),
    }
  }

  #dialectOf(url: string): Dialect {
    return isOfAries(url) ? this.#aries : isOfInvestors(url) ? this.#investors.dialect : this.#bluum.dialect
  }

  #findAccount(id: string): Account | undefined {
    return this.#exchange.account(id) ?? this.#investors.accountOf(id)
  }

  /** Closes the broker's listener and its connections at once. */
  #shut(): void {
    if (this.#shutting !== null || !this.#broker.listening) return
    this.#shutting = new Promise((resolve) => this.#broker.close(resolve))
    for (const socket of this.#sockets) if (this.#connectionNumbers.has(socket)) socket.destroy()
  }

  async #reopen(): Promise<void> {
    if (this.#shutting === null) return
    await this.#shutting
    this.#shutting = null
    await listen(this.#broker, this.#brokerPort)
  }

  async #setRules(body: unknown): Promise<void> {
    this.#faults.replace(body)
    await this.#reopen()
    if (this.#faults.refusesAll()) {
      this.#shut()
      await this.#shutting
    }
  }

  // --- the control port ---
  async #answerControl(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page in a browser can send requests to the port, under a name that it made point at loopback.
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
    const account = this.#findAccount(String(accountId))

    const known = controlFields.get(verb === '' ? area : `${area} ${verb}`)
    const unknown = [...fields.keys()].find((name) => known?.includes(name) === false)
    if (known !== undefined && unknown !== undefined) {
      return sendJson(response, 400, { message: `unknown field "${unknown}"; there are ${known.join(', ')}` })
    }

    switch (`${request.method} /${area}`) {
      case 'GET /rules':
        return sendJson(response, 200, this.#faults.list())
      case 'PUT /rules':
      case 'DELETE /rules':
        try {
          await this.#setRules(request.method === 'PUT' ? body : [])
        } catch (error) {
          return sendJson(response, 400, { message: error instanceof Error ? error.message : String(error) })
        }
        return sendJson(response, 200, this.#faults.list())
      case 'GET /log':
        return sendJson(response, 200, this.#log.list())
      case 'DELETE /log':
        this.#log.clear()
        return sendJson(response, 200, [])
      case 'GET /load':
        return sendJson(response, 200, this.#log.load())
      case 'GET /book':
        if (query.includes('account=') && account === undefined)
          return sendJson(response, 404, { message: 'no such account' })
        return sendJson(
          response,
          200,
          this.#readBook(account === undefined ? this.#exchange.accounts() : [account]).map((order) =>
            this.#toBookJson(order),
          ),
        )
      case 'DELETE /book':
        if (account === undefined) return sendJson(response, 404, { message: 'no such account' })
        this.#exchange.clear(account.id)
        return sendJson(response, 200, [])
      case 'GET /clock':
        return sendJson(response, 200, { now: this.#exchange.clock() })
      case 'POST /advance': {
        const ms = fields.get('ms')
        if (typeof ms !== 'number' || !Number.isInteger(ms) || ms < 0 || ms > advanceMsMax) {
          return sendJson(response, 400, { message: `ms is a whole number from 0 to ${advanceMsMax}` })
        }
        this.#exchange.advance(ms)
        return sendJson(response, 200, { now: this.#exchange.clock() })
      }
      case 'GET /switches':
        return sendJson(response, 200, this.#switches.values)
      case 'PUT /switches': {
        const problem = this.#switches.set(body)
        return problem === null
          ? sendJson(response, 200, this.#switches.values)
          : sendJson(response, 400, { message: problem })
      }
      case 'POST /orders': {
        if (id === '' && account === undefined) return sendJson(response, 404, { message: 'no such account' })
        const order = this.#changeBook(account, id, verb, fields)
        if (order === null) break
        return 'code' in order
          ? sendJson(response, Number(order.code.slice(5, 8)), { message: order.message })
          : sendJson(response, 200, this.#toBookJson(order))
      }
      case 'PUT /accounts': {
        if (account === undefined) return sendJson(response, 404, { message: 'no such account' })
        const problem = this.#bluum.setAccount(account, { status: fields.get('status'), cash: fields.get('cash') })
        return problem === null
          ? sendJson(response, 200, this.#bluum.toAccountJson(account))
          : sendJson(response, 400, { message: problem })
      }
      case 'POST /tokens':
        if (id !== 'expire' && id !== 'restore') break
        this.#tokens[id]()
        return sendJson(response, 200, {})
      default:
    }
    return sendJson(response, 404, { message: `the control port has no ${request.method} ${path}` })
  }

  /** Returns every order of the accounts, newest first and complete, independent of the switches. */
  #readBook(accounts: readonly Account[]): Order[] {
    const all = accounts.flatMap(({ id }) => this.#exchange.page(id, () => true, { limit: Infinity }).rows)
    return all.sort((a, b) => b.submittedAt - a.submittedAt || (a.id < b.id ? 1 : -1))
  }

  /** In the words of Bluum's accounts dialect, whosever order it is. */
  #toBookJson(order: Order): Record<string, unknown> {
    const isAries = this.#exchange.account(order.accountId)?.broker === 'aries'
    return { ...this.#bluum.dialect.toOrderJson(order), ...(isAries ? { aries_id: toClOrdId(order.id) } : {}) }
  }

  /** Inserts, fills or changes an order: the order, or a problem with its code; null when there is no such verb. */
  #changeBook(account: Account | undefined, id: string, verb: string, fields: Map<string, unknown>) {
    if (id === '' && account !== undefined) {
      fields.delete('account')
      return this.#bluum.insert(account, Object.fromEntries(fields))
    }
    if (verb === 'status') return this.#bluum.setStatus(id, fields.get('status'))
    if (verb !== 'fill') return null
    const wanted: { quantity?: string; price?: string } = {}
    for (const name of ['quantity', 'price'] as const) {
      if (fields.has(name)) wanted[name] = String(fields.get(name))
    }
    return this.#bluum.fill(id, wanted)
  }

  async #close(): Promise<void> {
    this.#ending.abort()
    const servers = [this.#broker, this.#control].filter((server) => server.listening)
    const closed = servers.map((server) => new Promise((resolve) => server.close(resolve)))
    for (const socket of this.#sockets) socket.destroy()
    await Promise.all([...closed, this.#shutting])
    this.#state.close()
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
