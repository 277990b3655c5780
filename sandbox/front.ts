// The parts that both dialects of Bluum share: credentials, the rate limit, the answers kept for keys, the rules of placements, the
// deviations of lists and cancels. A generation of its API is paths, words and envelopes.
//
// If the vendor's documents say nothing, a comment says what we chose. If its pages contradict each other, a switch chooses.

import { createHash, randomBytes } from 'node:crypto'
import {
  createRateLimit,
  decimalLengthMax,
  decimalPattern,
  isOneOf,
  isPositive,
  lagOfSwitchesMs,
  laterMs,
  withExtraRows,
} from './dialect.ts'
import type { Answer, Asked, BrokerRequest, Dialect } from './dialect.ts'
import { changeTerms, showClientOrderId, showSymbol } from './changes.ts'
import { orderSides, orderTypes, timesInForce } from './orders.ts'
import type { Exchange } from './exchange.ts'
import type { Account, NewOrder, Order, PlaceOptions, Refusal } from './orders.ts'
import type { Whims } from './faults.ts'
import type { State } from './state.ts'
import type { Switches } from './switches.ts'

export interface Problem {
  code: string
  message: string
  param?: string
}

export interface Generation {
  /** The path that takes placements; its first group is the account's id in this dialect. */
  placementPath: RegExp
  /** Whether answers tell the rate limit in X-RateLimit headers. */
  rateHeaders: boolean
  account: (id: string) => Account | undefined
  fail: (problem: Problem) => Answer
  /** `parts` are the decoded segments of the path from v1 on; none of a path that is no good. */
  route: (request: BrokerRequest, parts: readonly string[], query: URLSearchParams) => Answer
  parsePlacement: (body: string) => NewOrder | Problem
  placeOptions: () => PlaceOptions
  toOrderJson: (order: Order) => Record<string, unknown>
}

/** The names of the fields and values of a placement in a dialect. */
export interface PlacementWords {
  quantity: string
  commissionTypes: ReadonlyMap<unknown, NonNullable<NewOrder['commissionType']>>
  /** Optional fields that must be text. */
  texts: readonly string[]
}

const idempotencyKeptMs = 24 * 3_600_000
const idempotencyKeyLengthMax = 255
const clientOrderIdLengthMax = 128

const refusalCodes: Record<Refusal['refused'], string> = {
  accountNotApproved: 'BLUM-403-002',
  accountRestricted: 'BLUM-403-004',
  unknownAsset: 'BLUM-404-003',
  final: 'BLUM-409-003',
  funds: 'BLUM-422-001',
  marketClosed: 'BLUM-422-002',
  notTradable: 'BLUM-422-003',
  shares: 'BLUM-422-004',
  // Bluum has no words to ask for one.
  shortSale: 'BLUM-422-004',
}

/** A refusal of the exchange in the vendor's catalogue of codes. */
export function toProblem(refusal: Refusal): Problem {
  return { code: refusalCodes[refusal.refused], message: refusal.message }
}

export const noResource: Problem = { code: 'BLUM-404-001', message: 'No such resource.' }
export const noPath: Problem = { code: 'BLUM-404-002', message: 'No such path.' }

/** The fields of a body that have a value, or what is wrong with it. */
export function parseFields(text: string): Map<string, unknown> | Problem {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    return { code: 'BLUM-400-003', message: 'Body is not JSON.' }
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    return { code: 'BLUM-400-003', message: 'Body is not a JSON object.' }
  }
  return new Map<string, unknown>(Object.entries(body).filter(([, value]) => value !== null))
}

/** The order that fields ask for, or the first thing wrong with it (Bluum, OrderRequest). Unknown fields are ignored. */
export function parseNewOrder(fields: ReadonlyMap<string, unknown>, words: PlacementWords): NewOrder | Problem {
  for (const param of ['symbol', 'side', 'type', 'time_in_force']) {
    if (!fields.has(param)) return missing(param)
  }
  for (const param of ['symbol', 'client_order_id', ...words.texts]) {
    const value = fields.get(param)
    if (value === undefined) continue
    if (typeof value !== 'string') return { code: 'BLUM-400-003', message: `${param} must be text.`, param }
  }
  const symbol = String(fields.get('symbol'))
  if (symbol === '') return missing('symbol')
  const side = fields.get('side')
  const type = fields.get('type')
  const timeInForce = fields.get('time_in_force')
  const commissionType = words.commissionTypes.get(fields.get('commission_type') ?? 'notional')
  if (!isOneOf(orderSides, side)) return unknownValue('side')
  if (!isOneOf(orderTypes, type)) return unknownValue('type')
  if (!isOneOf(timesInForce, timeInForce)) return unknownValue('time_in_force')
  if (commissionType === undefined) return unknownValue('commission_type')

  // Length rules of the client reference are not documented: our choice. Whether it is unique is a switch.
  const clientOrderId = fields.has('client_order_id') ? String(fields.get('client_order_id')) : null
  if (clientOrderId !== null && clientOrderId.length > clientOrderIdLengthMax) {
    const message = `client_order_id is longer than ${clientOrderIdLengthMax} characters.`
    return { code: 'BLUM-400-003', message, param: 'client_order_id' }
  }
  const extendedHours = fields.get('extended_hours') ?? false
  if (typeof extendedHours !== 'boolean') {
    return { code: 'BLUM-400-003', message: 'extended_hours must be true or false.', param: 'extended_hours' }
  }

  const decimals: Record<string, string | null> = {}
  for (const param of [
    words.quantity,
    'notional',
    'limit_price',
    'stop_price',
    'trail_percent',
    'trail_price',
    'commission',
  ]) {
    const value = fields.get(param)
    decimals[param] = null
    if (value === undefined) continue
    const code = param === words.quantity ? 'BLUM-400-006' : 'BLUM-400-005'
    // A JSON number is refused like any other text that is not a decimal string: digits would be lost before we look.
    if (typeof value !== 'string' || !decimalPattern.test(value) || value.length > decimalLengthMax) {
      return { code, message: `${param} must be a decimal string.`, param }
    }
    const positive = isPositive(value)
    const zeroCommission = param === 'commission' && !value.startsWith('-')
    if (!positive && !zeroCommission) return { code, message: `${param} must be positive.`, param }
    decimals[param] = value
  }
  const read = (param: string): string | null => decimals[param] ?? null
  const quantity = read(words.quantity)
  const notional = read('notional')
  if (quantity !== null && notional !== null) {
    return { code: 'BLUM-400-001', message: `Send either ${words.quantity} or notional.`, param: 'notional' }
  }
  if (quantity === null && notional === null) return missing(words.quantity)
  if (notional !== null && (side !== 'buy' || type !== 'market')) {
    return { code: 'BLUM-400-001', message: 'notional is for market buys only.', param: 'notional' }
  }
  if ((type === 'limit' || type === 'stop_limit') && read('limit_price') === null) return missing('limit_price')
  if ((type === 'stop' || type === 'stop_limit') && read('stop_price') === null) return missing('stop_price')
  if (type === 'trailing_stop' && read('trail_percent') === null && read('trail_price') === null) {
    return missing('trail_percent')
  }
  const commission = read('commission')
  if (commission !== null && commissionType === 'bps' && /\.\d{3,}$/.test(commission)) {
    return { code: 'BLUM-400-005', message: 'Basis points carry up to two decimals.', param: 'commission' }
  }
  return {
    symbol,
    side,
    type,
    timeInForce,
    quantity,
    notional,
    limitPrice: read('limit_price'),
    stopPrice: read('stop_price'),
    trailPercent: read('trail_percent'),
    trailPrice: read('trail_price'),
    extendedHours,
    clientOrderId,
    commission,
    commissionType: commission === null ? null : commissionType,
  }
}

function missing(param: string): Problem {
  return { code: 'BLUM-400-002', message: `Field ${param} is missing.`, param }
}

export function unknownValue(param: string): Problem {
  return { code: 'BLUM-400-004', message: `${param} has an unknown value.`, param }
}

function readWhole(
  query: URLSearchParams,
  name: string,
  byDefault: number,
  min: number,
  max: number,
): number | Problem {
  const text = query.get(name)
  if (text === null) return byDefault
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1
  if (value >= min && value <= max) return value
  return { code: 'BLUM-400-001', message: `${name} must be a whole number from ${min} to ${max}.`, param: name }
}

export type Front = ReturnType<typeof createFront>

/** The part between HTTP and the exchange that is the same in all dialects. */
export function createFront(options: {
  exchange: Exchange
  state: State
  switches: Readonly<Switches>
  apiKey: string
  apiSecret: string
  requestsPerSecond: number
}) {
  return new ApiFront(options)
}

class ApiFront {
  readonly #exchange
  readonly #state
  readonly switches
  readonly #authorization
  readonly #rateLimit

  constructor(options: {
    exchange: Exchange
    state: State
    switches: Readonly<Switches>
    apiKey: string
    apiSecret: string
    requestsPerSecond: number
  }) {
    const { exchange, state, switches, apiKey, apiSecret, requestsPerSecond } = options
    this.#exchange = exchange
    this.#state = state
    this.switches = switches
    this.#authorization = `${apiKey}:${apiSecret}`
    this.#rateLimit = createRateLimit(this.#exchange, requestsPerSecond)
  }

  /** The dialect that a generation is. */
  speak(generation: Generation): Dialect {
    return {
      answer: (request) => this.#answer(request, generation),
      places: (method, url) => method === 'POST' && generation.placementPath.test(url),
      placeTwin: (asked) => this.#placeTwin(asked, generation),
      refuse: (status, message) => generation.fail({ code: `BLUM-${status}-001`, message }),
      accounts: () => this.accounts(),
      idOf: ({ id }) => id,
      toOrderJson: generation.toOrderJson,
    }
  }

  accounts(): readonly Account[] {
    return this.#exchange.accounts('bluum')
  }

  findAccount(id: string): Account | undefined {
    const account = this.#exchange.account(id)
    return account?.broker === 'bluum' ? account : undefined
  }

  #answer(request: BrokerRequest, generation: Generation): Answer {
    this.#exchange.catchUp()
    const problem = this.#authorize(request)
    const answered = problem === null ? this.#limitRate(request, generation) : generation.fail(problem)
    answered.headers['x-request-id'] = `req_${randomBytes(12).toString('hex')}`
    return answered
  }

  /** Null when the credentials are right (Bluum, BasicAuth: the key as user name, the secret as password). */
  #authorize(request: BrokerRequest): Problem | null {
    const header = request.headers['authorization']
    if (header === undefined) return { code: 'BLUM-401-001', message: 'No Authorization header.' }
    const encoded = /^Basic ([A-Za-z0-9+/]+={0,2})$/i.exec(header)?.[1]
    const given = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString('utf8')
    if (!given.includes(':')) return { code: 'BLUM-401-002', message: 'Header is not valid Basic credentials.' }
    if (given !== this.#authorization) return { code: 'BLUM-401-003', message: 'Key or secret is wrong.' }
    return null
  }

  /** Of both dialects together. Requests refused for their credentials do not count. */
  #limitRate(request: BrokerRequest, generation: Generation): Answer {
    const { over, perSecond, remaining, resetsAt } = this.#rateLimit.admit(request.whims.requestsPerSecond)
    const answered = over ? this.#slowDown(generation) : this.#route(request, generation)
    if (over) answered.headers['retry-after'] = '1'
    if (generation.rateHeaders) {
      answered.headers['x-ratelimit-limit'] = String(perSecond)
      answered.headers['x-ratelimit-remaining'] = String(remaining)
      answered.headers['x-ratelimit-reset'] = String(Math.ceil(resetsAt / 1000))
    }
    return answered
  }

  #slowDown({ fail }: Generation): Answer {
    return fail({ code: 'BLUM-429-001', message: 'Slow down.' })
  }

  #route(request: BrokerRequest, generation: Generation): Answer {
    if (request.body === null) return generation.fail({ code: 'BLUM-400-008', message: 'Body is too large.' })
    const [path = '', queryText = ''] = request.url.split('?', 2)
    let parts: string[]
    try {
      parts = path.split('/').slice(1).map(decodeURIComponent)
    } catch {
      parts = []
    }
    const usable = parts[0] === 'v1' && !parts.includes('')
    return generation.route(request, usable ? parts : [], new URLSearchParams(queryText))
  }

  /**
   * Bluum, Idempotency-Key. Scope, length and what is kept are not documented. Ours: one space of keys for the key
   * pair, at most 255 characters; "the same body" means the same method, path and bytes; every answer that the work
   * gave is kept, refusals too, for 24 hours of the exchange's clock. Refusals for credentials or rate come earlier
   * and are not kept.
   */
  once(request: BrokerRequest, fail: Generation['fail'], work: () => Answer): Answer {
    const key = request.headers['idempotency-key'] ?? ''
    if (key === '' || this.switches.idempotencyKeys === 'ignored') return this.#exchange.transaction(work)
    if (key.length > idempotencyKeyLengthMax) {
      return fail({ code: 'BLUM-400-003', message: 'Idempotency-Key is too long.', param: 'Idempotency-Key' })
    }
    const at = this.#exchange.clock()
    const fingerprint = createHash('sha256').update(`${request.method} ${request.url}\n${request.body}`).digest('hex')
    const kept = this.#state.readAnswer(key)
    if (kept !== undefined && kept.keptAt > at - idempotencyKeptMs) {
      if (this.switches.idempotencyReuse === 'conflict') {
        return fail({ code: 'BLUM-409-001', message: 'Key was used before.', param: 'Idempotency-Key' })
      }
      if (kept.fingerprint !== fingerprint) {
        return fail({ code: 'BLUM-409-002', message: 'Key was used with another body.', param: 'Idempotency-Key' })
      }
      return { status: kept.status, headers: {}, body: JSON.parse(kept.body) }
    }
    return this.#exchange.transaction(() => {
      const answered = work()
      this.#state.forgetAnswers(at - idempotencyKeptMs)
      const { status, body } = answered
      this.#state.saveAnswer(key, { fingerprint, status, body: JSON.stringify(body), keptAt: at })
      return answered
    })
  }

  /** Whether an answer leaves out the client order id. */
  #hidesClientOrderId(inList: boolean): boolean {
    const { clientOrderIdEcho } = this.switches
    return clientOrderIdEcho === 'nowhere' || (inList && clientOrderIdEcho === 'singleReads')
  }

  /** Returns the fields of an order as the switches show them to a caller. */
  show(fields: Record<string, unknown>, inList: boolean): Record<string, unknown> {
    const { client_order_id: id, symbol, ...rest } = fields
    const isShown = id !== undefined && !this.#hidesClientOrderId(inList)
    return {
      ...rest,
      symbol: showSymbol(String(symbol), this.switches.changedTerm),
      ...(isShown && {
        client_order_id: typeof id === 'string' ? showClientOrderId(id, this.switches.clientOrderIdForm) : id,
      }),
    }
  }

  #lagMs(): number {
    return this.switches.readLag === 'seconds' ? lagOfSwitchesMs : 0
  }

  place(account: Account, request: BrokerRequest, generation: Generation): Order | Refusal | Problem {
    const wanted = generation.parsePlacement(request.body ?? '')
    if ('code' in wanted) return wanted
    const { dedupe, commitDelayMs } = request.whims
    const { clientOrderId } = wanted
    const unique = clientOrderId !== null && (dedupe || this.switches.clientOrderIds === 'unique')
    if (unique && this.#exchange.hasClientOrderId(account.id, clientOrderId)) {
      return { code: 'BLUM-409-001', message: 'Resource exists already.', param: 'client_order_id' }
    }
    const taken = changeTerms(wanted, this.switches.changedTerm, (symbol) => this.#exchange.priceCents(symbol))
    return this.#exchange.place(account, taken, { ...generation.placeOptions(), delayMs: commitDelayMs })
  }

  #placeTwin({ method, url, body }: Asked, generation: Generation): void {
    const id = method === 'POST' ? generation.placementPath.exec(url)?.[1] : undefined
    const account = id === undefined ? undefined : generation.account(id)
    const wanted = generation.parsePlacement(body ?? '')
    if (account === undefined || 'code' in wanted) return
    this.#exchange.place(account, { ...wanted, clientOrderId: null }, generation.placeOptions())
  }

  /** The order as it is now, or as the lag of single reads lets it be seen; undefined if it is not of these accounts. */
  read(orderId: string, whims: Whims, among = this.accounts()): Order | undefined {
    const order = this.#exchange.order(orderId, whims.getLagMs ?? this.#lagMs())
    return among.some(({ id }) => id === order?.accountId) ? order : undefined
  }

  /** An order of another account answers like one that does not exist. `later`: unless a rule says when. */
  cancel(account: Account, orderId: string, whims: Whims, later: boolean): Order | Refusal | Problem {
    const order = this.#exchange.order(orderId)
    if (order === undefined || order.accountId !== account.id) return noResource
    const { fillOnCancel } = whims
    if (fillOnCancel !== null) this.#exchange.fill(order, fillOnCancel.quantity)
    if (order.status === 'canceled' && this.switches.cancelOfCanceled === 'order') return order
    return this.#exchange.cancel(order, whims.cancelDelayMs ?? (later ? laterMs : null))
  }

  /** The window that a list's query asks for, or what is wrong with it. */
  readWindow(query: URLSearchParams, limitMax: number): { limit: number; offset: number } | Problem {
    const limit = readWhole(query, 'limit', 50, 1, limitMax)
    if (typeof limit !== 'number') return limit
    const offset = readWhole(query, 'offset', 0, 0, 999_999_999)
    const { pageCap } = this.switches
    return typeof offset === 'number' ? { limit: pageCap === 0 ? limit : Math.min(limit, pageCap), offset } : offset
  }

  /**
   * Bluum, 'List orders'. Undocumented, so chosen: newest first by submission unless switched, ties by id likewise; an
   * offset beyond the end is an empty page; filters are case sensitive; an unknown ticker matches nothing; unknown
   * parameters are ignored. `keep` is what the dialect filters besides.
   */
  list(
    account: Account,
    query: URLSearchParams,
    whims: Whims,
    wanted: { limit: number; offset: number; keep: (order: Order) => boolean },
  ): { rows: Order[]; hasMore: boolean } | Problem {
    const side = query.get('side')
    if (side !== null && !isOneOf(orderSides, side)) return unknownValue('side')
    const symbol = query.get('symbol')
    const passes = (order: Order): boolean =>
      (side === null || order.side === side) &&
      (symbol === null || showSymbol(order.symbol, this.switches.changedTerm) === symbol) &&
      wanted.keep(order)
    const { listOrder, ignoreFilter, listLagMs } = whims
    return withExtraRows(wanted.limit, whims, (limit) =>
      this.#exchange.page(account.id, ignoreFilter ? () => true : passes, {
        offset: wanted.offset,
        limit,
        oldestFirst: (listOrder ?? this.switches.listOrder) === 'oldestFirst',
        lagMs: listLagMs ?? this.#lagMs(),
      }),
    )
  }
}
