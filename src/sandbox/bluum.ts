// Bluum's accounts dialect over the exchange: paths, credentials, JSON and codes, read from the vendor's document (the
// account generation, 2026-03) and from nothing else. Where the document is silent the comment says what we chose;
// where its pages contradict each other there is a switch.

import { createHash, randomBytes } from 'node:crypto'
import {
  accountStatuses,
  averagePrice,
  commissionTypes,
  marketModes,
  orderSides,
  orderStatuses,
  orderTypes,
  remainingQuantity,
  timesInForce,
} from './exchange.ts'
import type { Account, Asset, Exchange, NewOrder, Order, OrderFilter, Position, Refusal } from './exchange.ts'
import type { Whims } from './faults.ts'
import type { State } from './state.ts'

/** Where the vendor's pages disagree or are silent, what is done. Kept over a restart. */
const switchValues = {
  /** Orders outside market hours: they wait, are refused with BLUM-422-002, or are taken in as rejected. */
  market: marketModes,
  listEnvelope: ['array', 'object'],
  errorEnvelope: ['flat', 'nested', 'status'],
  /** A key used before, with the same request: its first answer again, or BLUM-409-001 for any reuse. */
  idempotencyReuse: ['replay', 'conflict'],
  /** Whether an Idempotency-Key is looked at: a broker may document it and place the order again. */
  idempotencyKeys: ['honored', 'ignored'],
  /** Whether an account may have a client_order_id twice, or a second one is refused with BLUM-409-001. */
  clientOrderIds: ['free', 'unique'],
  /** Which answers about an order carry its client_order_id; those to placements and cancels count as single reads. */
  clientOrderIdEcho: ['everywhere', 'singleReads', 'nowhere'],
  /** Whether list rows leave out extended_hours, commission, commission_type and client_order_id. */
  partialRows: [false, true],
  listOrder: ['newestFirst', 'oldestFirst'],
  /** Lists and single reads show orders as they are, or as they were two seconds ago on the exchange's clock. */
  readLag: ['none', 'seconds'],
  /** A cancel takes effect before it is answered, or a second later, answered with the order still open. */
  cancels: ['atOnce', 'later'],
  /** A cancel of a canceled order: BLUM-409-003, or 200 with the order. Of one that filled it is always the former. */
  cancelOfCanceled: ['conflict', 'order'],
} as const

export type Switches = { -readonly [Name in keyof typeof switchValues]: (typeof switchValues)[Name][number] }

export interface BluumRequest {
  method: string
  /** Path and query, as on the request line. */
  url: string
  /** Lower-case names. */
  headers: Readonly<Record<string, string>>
  /** Null when the body was larger than we read. */
  body: string | null
  whims: Whims
}

export interface Answer {
  status: number
  headers: Record<string, string>
  /** A JSON value. */
  body: unknown
}

interface Problem {
  code: string
  message: string
  param?: string
}

export const bodyBytesMax = 65_536
const idempotencyKeptMs = 24 * 3_600_000
const idempotencyKeyLengthMax = 255
const clientOrderIdLengthMax = 128
const readLagMs = 2000
const cancelLaterMs = 1000
const placementPath = /^\/v1\/trading\/accounts\/([^/?]+)\/orders(?:\?|$)/
const decimalLengthMax = 100
const decimalPattern = /^-?\d+(\.\d+)?$/
const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)$/

const refusalCodes: Record<Refusal['refused'], string> = {
  accountNotApproved: 'BLUM-403-002',
  accountRestricted: 'BLUM-403-004',
  unknownAsset: 'BLUM-404-003',
  final: 'BLUM-409-003',
  funds: 'BLUM-422-001',
  marketClosed: 'BLUM-422-002',
  notTradable: 'BLUM-422-003',
  shares: 'BLUM-422-004',
}

/** Examples show whole seconds on orders and milliseconds on accounts; both appear here, as the time has them. */
function toTime(ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z')
}

/** A field without a value is left out; only filled_at, canceled_at and reject_reason are null (Bluum, reading rules). */
function toOrderJson(order: Order, partial = false): Record<string, unknown> {
  const fields: Record<string, unknown> = {
    id: order.id,
    account_id: order.accountId,
    symbol: order.symbol,
    currency: 'USD',
    qty: order.quantity,
    notional: order.notional,
    side: order.side,
    type: order.type,
    time_in_force: order.timeInForce,
    limit_price: order.limitPrice,
    stop_price: order.stopPrice,
    trail_percent: order.trailPercent,
    trail_price: order.trailPrice,
    extended_hours: partial ? null : order.extendedHours,
    client_order_id: partial ? null : order.clientOrderId,
    status: order.status,
    filled_qty: order.filledQuantity,
    remaining_qty: remainingQuantity(order),
    average_price: averagePrice(order),
    commission: partial ? null : order.commission,
    commission_type: partial ? null : order.commissionType,
  }
  const present = Object.entries(fields).filter(([, value]) => value !== null)
  return {
    ...Object.fromEntries(present),
    submitted_at: toTime(order.submittedAt),
    filled_at: order.filledAt === null ? null : toTime(order.filledAt),
    canceled_at: order.canceledAt === null ? null : toTime(order.canceledAt),
    reject_reason: order.rejectReason,
  }
}

function isOneOf<T>(values: readonly T[], value: unknown): value is T {
  return values.some((known) => known === value)
}

/** The order a body asks for, or the first thing wrong with it (Bluum, OrderRequest). Unknown fields are ignored. */
function parseNewOrder(text: string): NewOrder | Problem {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    return { code: 'BLUM-400-003', message: 'Body is not JSON.' }
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    return { code: 'BLUM-400-003', message: 'Body is not a JSON object.' }
  }
  const fields = new Map<string, unknown>(Object.entries(body).filter(([, value]) => value !== null))

  for (const param of ['symbol', 'side', 'type', 'time_in_force']) {
    if (!fields.has(param)) return missing(param)
  }
  for (const param of ['symbol', 'market', 'isin', 'figi', 'client_order_id']) {
    const value = fields.get(param)
    if (value === undefined) continue
    if (typeof value !== 'string') return { code: 'BLUM-400-003', message: `${param} must be text.`, param }
  }
  const symbol = String(fields.get('symbol'))
  if (symbol === '') return missing('symbol')
  const side = fields.get('side')
  const type = fields.get('type')
  const timeInForce = fields.get('time_in_force')
  const commissionType = fields.get('commission_type') ?? 'notional'
  if (!isOneOf(orderSides, side)) return unknownValue('side')
  if (!isOneOf(orderTypes, type)) return unknownValue('type')
  if (!isOneOf(timesInForce, timeInForce)) return unknownValue('time_in_force')
  if (!isOneOf(commissionTypes, commissionType)) return unknownValue('commission_type')

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
  for (const param of ['qty', 'notional', 'limit_price', 'stop_price', 'trail_percent', 'trail_price', 'commission']) {
    const value = fields.get(param)
    decimals[param] = null
    if (value === undefined) continue
    const code = param === 'qty' ? 'BLUM-400-006' : 'BLUM-400-005'
    // A JSON number is refused like any other text that is not a decimal string: digits would be lost before we look.
    if (typeof value !== 'string' || !decimalPattern.test(value) || value.length > decimalLengthMax) {
      return { code, message: `${param} must be a decimal string.`, param }
    }
    const positive = !value.startsWith('-') && /[1-9]/.test(value)
    const zeroCommission = param === 'commission' && !value.startsWith('-')
    if (!positive && !zeroCommission) return { code, message: `${param} must be positive.`, param }
    decimals[param] = value
  }
  const read = (param: string): string | null => decimals[param] ?? null
  const quantity = read('qty')
  const notional = read('notional')
  if (quantity !== null && notional !== null) {
    return { code: 'BLUM-400-001', message: 'Send either qty or notional.', param: 'notional' }
  }
  if (quantity === null && notional === null) return missing('qty')
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

function unknownValue(param: string): Problem {
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

function succeed(body: unknown, status = 200): Answer {
  return { status, headers: {}, body }
}

/** The broker behind its HTTP front: `answer` turns one request into one answer and never throws for a caller's mistake. */
export function createBluum(options: {
  exchange: Exchange
  state: State
  apiKey: string
  apiSecret: string
  requestsPerSecond: number
}) {
  const { exchange, state, apiKey, apiSecret, requestsPerSecond } = options
  const authorization = `${apiKey}:${apiSecret}`
  const admitted: number[] = [] // times of the last second's requests, oldest first
  const switches: Switches = {
    market: 'open',
    listEnvelope: 'array',
    errorEnvelope: 'flat',
    idempotencyReuse: 'replay',
    idempotencyKeys: 'honored',
    clientOrderIds: 'free',
    clientOrderIdEcho: 'everywhere',
    partialRows: false,
    listOrder: 'newestFirst',
    readLag: 'none',
    cancels: 'atOnce',
    cancelOfCanceled: 'conflict',
  }
  setSwitches(JSON.parse(state.readSetting('switches') ?? '{}'))

  /** Merges what is given into the switches. Returns what is wrong with it, as text, having changed nothing. */
  function setSwitches(change: unknown): string | null {
    if (typeof change !== 'object' || change === null || Array.isArray(change)) return 'switches are an object'
    for (const [name, value] of Object.entries(change)) {
      if (!Object.hasOwn(switchValues, name)) {
        return `unknown switch "${name}"; there are ${Object.keys(switchValues).join(', ')}`
      }
      const known: readonly unknown[] =
        new Map<string, readonly unknown[]>(Object.entries(switchValues)).get(name) ?? []
      if (!known.includes(value))
        return `switch "${name}" is one of ${known.map((one) => JSON.stringify(one)).join(', ')}`
    }
    Object.assign(switches, change)
    exchange.transaction(() => state.saveSetting('switches', JSON.stringify(switches)))
    exchange.setMode(switches.market)
    return null
  }

  function fail(problem: Problem): Answer {
    const { code, message, param } = problem
    const status = Number(code.slice(5, 8))
    const types = new Map([
      [401, 'authentication_error'],
      [429, 'rate_limit_error'],
    ])
    const type = status >= 500 ? 'api_error' : (types.get(status) ?? 'invalid_request_error')
    const bodies = {
      flat: { code, message },
      nested: { error: { type, code, message, ...(param === undefined ? {} : { param }) } },
      status: { status: 'error', code, message },
    }
    return { status, headers: {}, body: bodies[switches.errorEnvelope] }
  }

  function refuse(refusal: Refusal): Answer {
    return fail({ code: refusalCodes[refusal.refused], message: refusal.message })
  }

  const noResource = (): Answer => fail({ code: 'BLUM-404-001', message: 'No such resource.' })

  /** What one request is answered with. All its changes are one transaction with the answer kept for its key. */
  function answer(request: BluumRequest): Answer {
    exchange.catchUp()
    const perSecond = request.whims.requestsPerSecond ?? requestsPerSecond
    const answered = authorize(request) ?? limitRate(perSecond, () => route(request))
    answered.headers['x-request-id'] = `req_${randomBytes(12).toString('hex')}`
    return answered
  }

  /** Null when the credentials are right (Bluum, BasicAuth: the key as user name, the secret as password). */
  function authorize(request: BluumRequest): Answer | null {
    const header = request.headers['authorization']
    if (header === undefined) return fail({ code: 'BLUM-401-001', message: 'No Authorization header.' })
    const encoded = /^Basic ([A-Za-z0-9+/]+={0,2})$/i.exec(header)?.[1]
    const given = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString('utf8')
    if (!given.includes(':')) return fail({ code: 'BLUM-401-002', message: 'Header is not valid Basic credentials.' })
    if (given !== authorization) return fail({ code: 'BLUM-401-003', message: 'Key or secret is wrong.' })
    return null
  }

  /**
   * The algorithm is not documented. Ours: no more than `perSecond` requests in any second, on the exchange's clock;
   * requests refused for it, or for their credentials, do not count.
   */
  function limitRate(perSecond: number, work: () => Answer): Answer {
    const at = exchange.clock()
    while (admitted[0] !== undefined && admitted[0] <= at - 1000) admitted.shift()
    const over = admitted.length >= perSecond
    if (!over) admitted.push(at)
    const answered = over ? fail({ code: 'BLUM-429-001', message: 'Slow down.' }) : work()
    if (over) answered.headers['retry-after'] = '1'
    answered.headers['x-ratelimit-limit'] = String(perSecond)
    answered.headers['x-ratelimit-remaining'] = String(Math.max(0, perSecond - admitted.length))
    answered.headers['x-ratelimit-reset'] = String(Math.ceil(((admitted[0] ?? at) + 1000) / 1000))
    return answered
  }

  function route(request: BluumRequest): Answer {
    if (request.body === null) return fail({ code: 'BLUM-400-008', message: 'Body is too large.' })
    const [path = '', queryText = ''] = request.url.split('?', 2)
    const query = new URLSearchParams(queryText)
    let parts: string[]
    try {
      parts = path.split('/').slice(1).map(decodeURIComponent)
    } catch {
      parts = []
    }
    const get = request.method === 'GET'
    const post = request.method === 'POST'
    const [version, area, second = '', third = '', fourth = '', fifth = '', sixth] = parts
    const size = version === 'v1' && !parts.includes('') ? parts.length : 0

    if (area === 'trading' && second === 'accounts' && fourth === 'orders') {
      if (size === 5 && get) return withAccount(third, (account) => list(account, query, request))
      if (size === 5 && post) return once(request, () => withAccount(third, (account) => place(account, request)))
      if (size === 7 && post && sixth === 'cancel') {
        return once(request, () => withAccount(third, (account) => cancel(account, fifth, request)))
      }
    }
    if (area === 'trading' && second === 'orders' && size === 4 && get) {
      const order = exchange.order(third, request.whims.getLagMs ?? lagMs())
      return order === undefined ? noResource() : succeed(showOrder(order))
    }
    if (area === 'trading' && second === 'accounts' && fourth === 'positions' && get) {
      if (size === 5) return withAccount(third, (account) => listPositions(account, query))
      if (size === 6) return withAccount(third, (account) => readPosition(account, fifth, query))
    }
    if (area === 'accounts' && get) {
      if (size === 2) return succeed(exchange.accounts().map(toAccountJson))
      if (size === 3) return withAccount(second, (account) => succeed(toAccountJson(account)))
      if (size === 4 && third === 'wallets') return withAccount(second, listWallets)
    }
    if (area === 'assets' && size === 3 && get) {
      // "Ticker; trimmed and upper-cased by the server" (Bluum, 'Read one asset'). Orders take a ticker as it is.
      const asset = exchange.asset(second.trim().toUpperCase())
      if (asset === undefined) return fail({ code: 'BLUM-404-003', message: 'No such asset.' })
      return succeed({ status: 'success', data: toAssetJson(asset) })
    }
    return fail({ code: 'BLUM-404-002', message: 'No such path.' })
  }

  function withAccount(id: string, work: (account: Account) => Answer): Answer {
    const account = exchange.account(id)
    return account === undefined ? noResource() : work(account)
  }

  /**
   * Bluum, Idempotency-Key. Scope, length and what is kept are not documented. Ours: one space of keys for the key
   * pair, at most 255 characters; "the same body" means the same method, path and bytes; every answer that the work
   * gave is kept, refusals too, for 24 hours of the exchange's clock. Refusals for credentials or rate come earlier
   * and are not kept.
   */
  function once(request: BluumRequest, work: () => Answer): Answer {
    const key = request.headers['idempotency-key'] ?? ''
    if (key === '' || switches.idempotencyKeys === 'ignored') return exchange.transaction(work)
    if (key.length > idempotencyKeyLengthMax) {
      return fail({ code: 'BLUM-400-003', message: 'Idempotency-Key is too long.', param: 'Idempotency-Key' })
    }
    const at = exchange.clock()
    const fingerprint = createHash('sha256').update(`${request.method} ${request.url}\n${request.body}`).digest('hex')
    const kept = state.readAnswer(key)
    if (kept !== undefined && kept.keptAt > at - idempotencyKeptMs) {
      if (switches.idempotencyReuse === 'conflict') {
        return fail({ code: 'BLUM-409-001', message: 'Key was used before.', param: 'Idempotency-Key' })
      }
      if (kept.fingerprint !== fingerprint) {
        return fail({ code: 'BLUM-409-002', message: 'Key was used with another body.', param: 'Idempotency-Key' })
      }
      return { status: kept.status, headers: {}, body: JSON.parse(kept.body) }
    }
    return exchange.transaction(() => {
      const answered = work()
      state.forgetAnswers(at - idempotencyKeptMs)
      const { status, body } = answered
      state.saveAnswer(key, { fingerprint, status, body: JSON.stringify(body), keptAt: at })
      return answered
    })
  }

  /** An order as the switches let a caller see it. */
  function showOrder(order: Order, inList = false): Record<string, unknown> {
    const fields = toOrderJson(order, inList && switches.partialRows)
    const { clientOrderIdEcho } = switches
    if (clientOrderIdEcho === 'nowhere' || (inList && clientOrderIdEcho === 'singleReads')) {
      delete fields['client_order_id']
    }
    return fields
  }

  const lagMs = (): number => (switches.readLag === 'seconds' ? readLagMs : 0)

  function place(account: Account, request: BluumRequest): Answer {
    const wanted = parseNewOrder(request.body ?? '')
    if ('code' in wanted) return fail(wanted)
    const { dedupe, commitDelayMs } = request.whims
    const { clientOrderId } = wanted
    const unique = clientOrderId !== null && (dedupe || switches.clientOrderIds === 'unique')
    if (unique && exchange.hasClientOrderId(account.id, clientOrderId)) {
      return fail({ code: 'BLUM-409-001', message: 'Resource exists already.', param: 'client_order_id' })
    }
    const placed = exchange.place(account, wanted, commitDelayMs)
    return 'refused' in placed ? refuse(placed) : succeed(showOrder(placed), 201)
  }

  /** An order of another account answers like one that does not exist. */
  function cancel(account: Account, orderId: string, request: BluumRequest): Answer {
    const order = exchange.order(orderId)
    if (order === undefined || order.accountId !== account.id) return noResource()
    const { fillOnCancel } = request.whims
    if (fillOnCancel !== null) exchange.fill(order, fillOnCancel.quantity)
    if (order.status === 'canceled' && switches.cancelOfCanceled === 'order') return succeed(showOrder(order))
    const delayMs = request.whims.cancelDelayMs ?? (switches.cancels === 'later' ? cancelLaterMs : null)
    const canceled = exchange.cancel(order, delayMs)
    // Success status and the answer for a final order are undocumented; 200 and BLUM-409-003 are the assumptions.
    return 'refused' in canceled ? refuse(canceled) : succeed(showOrder(canceled))
  }

  /**
   * Bluum, 'List orders'. Undocumented, so chosen: newest first by submitted_at unless switched, ties by id likewise;
   * an offset beyond the end is an empty page; filters are case sensitive; an unknown ticker matches nothing; unknown
   * parameters are ignored.
   */
  function list(account: Account, query: URLSearchParams, request: BluumRequest): Answer {
    const limit = readWhole(query, 'limit', 50, 1, 100)
    if (typeof limit !== 'number') return fail(limit)
    const offset = readWhole(query, 'offset', 0, 0, 999_999_999)
    if (typeof offset !== 'number') return fail(offset)
    const filter: OrderFilter = {}
    const status = query.get('status')
    if (status !== null) {
      if (!isOneOf(orderStatuses, status)) return fail(unknownValue('status'))
      filter.status = status
    }
    const side = query.get('side')
    if (side !== null) {
      if (!isOneOf(orderSides, side)) return fail(unknownValue('side'))
      filter.side = side
    }
    const symbol = query.get('symbol')
    if (symbol !== null) filter.symbol = symbol
    const { listOrder, ignoreFilter, extraRows, listLagMs } = request.whims
    // Half of the extra rows are the list's next ones; the others repeat its first ones, each beside its twin.
    const repeated = Math.ceil(extraRows / 2)
    const { rows, hasMore } = exchange.page(account.id, ignoreFilter ? {} : filter, {
      offset,
      limit: limit + extraRows - repeated,
      oldestFirst: (listOrder ?? switches.listOrder) === 'oldestFirst',
      lagMs: listLagMs ?? lagMs(),
    })
    const data = rows.flatMap((order, index) => {
      const row = showOrder(order, true)
      return index < repeated ? [row, row] : [row]
    })
    return succeed(switches.listEnvelope === 'array' ? data : { object: 'list', data, has_more: hasMore })
  }

  /** A real answer also carries contact, identity and agreement blocks; nobody lives behind these accounts. */
  function toAccountJson(account: Account): Record<string, unknown> {
    return {
      id: account.id,
      account_number: account.number,
      status: account.status,
      crypto_status: null,
      currency: 'USD',
      balance: exchange.cash(account).balance,
      last_equity: exchange.equity(account),
      created_at: toTime(account.createdAt),
      account_type: 'individual',
      management_type: 'self_directed',
      trading_type: 'cash',
      enabled_assets: ['us_equity'],
    }
  }

  function listWallets(account: Account): Answer {
    const cash = exchange.cash(account)
    const wallet = {
      wallet_id: account.walletId,
      currency: 'USD',
      balance: cash.balance,
      available_balance: cash.available,
      reserved_balance: cash.reserved,
      status: 'active',
      created_at: toTime(account.createdAt),
    }
    return succeed({ wallets: [wallet] })
  }

  /** The default of refresh_prices "was false, later true": ours is false, and prices are always of this moment. */
  function toPositionJson(position: Position, query: URLSearchParams): Record<string, unknown> {
    const worth = exchange.worth(position)
    const at = toTime(exchange.clock())
    return {
      id: position.id,
      account_id: position.accountId,
      symbol: position.symbol,
      asset_id: exchange.asset(position.symbol)?.id,
      currency: 'USD',
      quantity: position.quantity,
      average_cost_basis: worth.averageCost,
      total_cost_basis: worth.totalCost,
      current_price: worth.currentPrice,
      market_value: worth.marketValue,
      unrealized_pl: worth.unrealizedGain,
      // Percent, as in the reference examples; the guides show a fraction.
      unrealized_pl_percent: worth.unrealizedGainPercent,
      ...(query.get('refresh_prices') === 'true'
        ? { price_source: 'DATABASE', price_confidence: 'REAL_TIME', price_timestamp: at }
        : {}),
      last_transaction_at: toTime(position.changedAt),
      created_at: toTime(position.createdAt),
      updated_at: at,
    }
  }

  function listPositions(account: Account, query: URLSearchParams): Answer {
    const symbol = query.get('symbol')
    const found = exchange.positions(account.id).filter((position) => symbol === null || position.symbol === symbol)
    return succeed(found.map((position) => toPositionJson(position, query)))
  }

  function readPosition(account: Account, id: string, query: URLSearchParams): Answer {
    const found = exchange.positions(account.id).find((position) => position.id === id)
    return found === undefined ? noResource() : succeed(toPositionJson(found, query))
  }

  function toAssetJson(asset: Asset): Record<string, unknown> {
    return {
      id: asset.id,
      class: 'us_equity',
      market: asset.venue,
      symbol: asset.symbol,
      name: asset.name,
      status: asset.tradable ? 'active' : 'inactive',
      tradable: asset.tradable,
      marginable: false,
      shortable: false,
      easy_to_borrow: false,
      fractionable: asset.fractionable,
      currency: 'USD',
      // A JSON number by the vendor's own schema; for a quotient of cents it prints the exact digits.
      price: Number(exchange.priceCents(asset.symbol)) / 100,
    }
  }

  /** Every order of one account, or of all of them, newest first and complete, whatever the switches say. */
  function book(account?: Account): Record<string, unknown>[] {
    const accounts = account === undefined ? exchange.accounts() : [account]
    const all = accounts.flatMap(({ id }) => exchange.page(id, {}, { offset: 0, limit: Infinity }).rows)
    const newestFirst = all.sort((a, b) => b.submittedAt - a.submittedAt || (a.id < b.id ? 1 : -1))
    return newestFirst.map((order) => toOrderJson(order))
  }

  return {
    answer,
    book,
    /** "Later" before anything was looked at, credentials included, in the envelope of the moment. */
    throttle: (status: number): Answer => fail({ code: `BLUM-${status}-001`, message: 'Slow down.' }),
    /** The oldest order anywhere that the text does not name, as nobody will ask for it next; null if there is none. */
    strangeOrder: (text: string): Record<string, unknown> | null =>
      book().findLast(({ id }) => !text.includes(String(id))) ?? null,
    isPlacement: (method: string, url: string): boolean => method === 'POST' && placementPath.test(url),
    /** Another channel places the order that this request asks for, without a client order id. It may be refused. */
    placeTwin(method: string, url: string, body: string | null): void {
      const account = method === 'POST' ? exchange.account(placementPath.exec(url)?.[1] ?? '') : undefined
      const wanted = parseNewOrder(body ?? '')
      if (account !== undefined && !('code' in wanted)) exchange.place(account, { ...wanted, clientOrderId: null })
    },
    setSwitches,
    switches: (): Switches => ({ ...switches }),
    /** Fills an open order from the control port: the order, or a status and why not. */
    fill(orderId: string, fields: { quantity?: string; price?: string }): Record<string, unknown> | Problem {
      for (const [name, value] of Object.entries(fields)) {
        if (!decimalPattern.test(value) || value.startsWith('-') || !/[1-9]/.test(value)) {
          return { code: 'BLUM-400-001', message: `${name} must be a positive decimal string` }
        }
      }
      const order = exchange.order(orderId)
      if (order === undefined) return { code: 'BLUM-404-001', message: `no order ${orderId}` }
      const filled = exchange.fill(order, fields.quantity, fields.price)
      return typeof filled === 'string' ? { code: 'BLUM-409-003', message: filled } : toOrderJson(filled)
    },
    /** Puts an order into the book from the control port, to rest there: the order, or what is wrong with it. */
    insert(account: Account, fields: Record<string, unknown>): Record<string, unknown> | Problem {
      const { submitted_at: submittedAt = null, ...rest } = fields
      const wanted = parseNewOrder(JSON.stringify(rest))
      if ('code' in wanted) return wanted
      if (exchange.asset(wanted.symbol) === undefined) return { code: 'BLUM-404-003', message: 'No such asset.' }
      if (submittedAt === null) return toOrderJson(exchange.insert(account.id, wanted, null))
      const at = typeof submittedAt === 'string' && instantPattern.test(submittedAt) ? Date.parse(submittedAt) : NaN
      if (Number.isNaN(at)) return { code: 'BLUM-400-001', message: 'submitted_at must be a time with its zone' }
      return toOrderJson(exchange.insert(account.id, wanted, at))
    },
    /** Makes an order say what it is told: the order, or a status and why not. */
    setStatus(orderId: string, status: unknown): Record<string, unknown> | Problem {
      const known = orderStatuses.filter((one) => one !== 'partially_filled')
      if (!isOneOf(known, status)) {
        return { code: 'BLUM-400-004', message: `status is one of ${known.join(', ')}; a part is filled by /fill` }
      }
      const order = exchange.order(orderId)
      if (order === undefined) return { code: 'BLUM-404-001', message: `no order ${orderId}` }
      exchange.setStatus(order, status)
      return toOrderJson(order)
    },
    /** Sets an account's state for refusal tests. Returns what is wrong, as text, having changed nothing. */
    setAccount(account: Account, change: { status?: unknown; cash?: unknown }): string | null {
      const { status, cash } = change
      if (status !== undefined && !isOneOf(accountStatuses, status))
        return `status is one of ${accountStatuses.join(', ')}`
      if (cash !== undefined && (typeof cash !== 'string' || !/^\d{1,30}(\.\d{1,2})?$/.test(cash))) {
        return 'cash is a decimal string with at most two decimals'
      }
      exchange.setAccount(account, {
        ...(status === undefined ? {} : { status }),
        ...(cash === undefined ? {} : { cash }),
      })
      return null
    },
    toAccountJson,
  }
}
