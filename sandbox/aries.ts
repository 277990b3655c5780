// Aries' order API over the exchange: its paths, words and envelopes, read only from the vendor's document (the reconstruction of
// 2026-06). It has no replacing, previews, balances, positions, symbols and legacy list.
//
// If the document says nothing, a comment says what we chose. If its pages contradict each other, a switch chooses.

import { createHash, randomBytes } from 'node:crypto'
import { compare, toDecimal } from './amounts.ts'
import {
  createRateLimit,
  decimalLengthMax,
  decimalPattern,
  isPositive,
  lagOfSwitchesMs,
  laterMs,
  succeed,
  toTime,
  withExtraRows,
} from './dialect.ts'
import type { Answer, Asked, BrokerRequest, Dialect } from './dialect.ts'
import { averagePrice, isOpen, remainingQuantity } from './orders.ts'
import { changeTerms, showClientOrderId, showSymbol } from './changes.ts'
import type { Exchange } from './exchange.ts'
import type { Account, AccountStatus, Leg, NewOrder, Order, OrderType, Refusal } from './orders.ts'
import type { Whims } from './faults.ts'
import { letters } from './seed.ts'
import type { Switches } from './switches.ts'
import type { Tokens } from './tokens.ts'

// --- words ---

type Side = 'BUY' | 'SELL' | 'SELL_SHORT' | 'BUY_TO_COVER'
type OrderStatus =
  | 'PENDING_NEW'
  | 'NEW'
  | 'PARTIALLY_FILLED'
  | 'FILLED'
  | 'CANCELED'
  | 'REJECTED'
  | 'EXPIRED'
  | 'PENDING_CANCEL'

const sides = new Map<unknown, Pick<NewOrder, 'side' | 'short'>>([
  ['BUY', { side: 'buy' }],
  ['SELL', { side: 'sell' }],
  ['SELL_SHORT', { side: 'sell', short: true }],
  ['BUY_TO_COVER', { side: 'buy', short: true }],
])

const orderTypes = new Map<unknown, OrderType>([
  ['MARKET', 'market'],
  ['LIMIT', 'limit'],
  ['STOP', 'stop'],
  ['STOP_LIMIT', 'stop_limit'],
])

const timesInForce = new Map<unknown, Pick<NewOrder, 'timeInForce' | 'extendedHours'>>([
  ['DAY', { timeInForce: 'day', extendedHours: false }],
  ['EXTENDED_HOURS', { timeInForce: 'day', extendedHours: true }],
  ['GTC', { timeInForce: 'gtc', extendedHours: false }],
  ['IOC', { timeInForce: 'ioc', extendedHours: false }],
  ['FOK', { timeInForce: 'fok', extendedHours: false }],
  ['AT_THE_OPENING', { timeInForce: 'opg', extendedHours: false }],
  ['AT_THE_CLOSE', { timeInForce: 'cls', extendedHours: false }],
])
const timeInForceNames: Record<NewOrder['timeInForce'], string> = {
  day: 'DAY',
  gtc: 'GTC',
  ioc: 'IOC',
  fok: 'FOK',
  opg: 'AT_THE_OPENING',
  cls: 'AT_THE_CLOSE',
}

const rights = new Map<unknown, Leg['right']>([
  ['PUT', 'put'],
  ['P', 'put'],
  ['CALL', 'call'],
  ['C', 'call'],
])

/** "no list of reasons is documented": of these only the first is in a sample. */
const rejectReasons: Record<Refusal['refused'], string> = {
  funds: 'INSUFFICIENT_BUYING_POWER',
  shares: 'INSUFFICIENT_SHARES',
  unknownAsset: 'UNKNOWN_SYMBOL',
  notTradable: 'NOT_TRADABLE',
  marketClosed: 'MARKET_CLOSED',
  accountNotApproved: 'ACCOUNT_NOT_APPROVED',
  accountRestricted: 'ACCOUNT_RESTRICTED',
  shortSale: 'SHORT_SALE_NOT_ALLOWED',
  final: 'ORDER_IS_FINAL',
}

/** Only OPEN is in a sample. */
const accountStatusNames: Record<AccountStatus, string> = {
  ACTIVE: 'OPEN',
  PENDING: 'PENDING',
  SUBMITTED: 'PENDING',
  SUSPENDED: 'RESTRICTED',
  INACTIVE: 'CLOSED',
}

const problemStatuses = { bad_request: 400, unauthorized: 401, forbidden: 403, not_found: 404, rate_limited: 429 }

// "Fields outside the required list can be absent when empty" (Aries, Order).
const requiredFields = [
  'clOrdId',
  'accountId',
  'symbol',
  'qty',
  'price',
  'stopPrice',
  'cumQty',
  'leavesQty',
  'avgPrice',
]

// Bluum has /v1/accounts too, but nothing of these three below it.
const pathPattern =
  /^\/(?:v1\/(?:orders|oauth2|users|marketdata)|v2|v1\/accounts\/[^/?]+\/(?:orders|positions|balances))(?:[/?]|$)/
const placementPattern = /^\/v1\/orders(?:\?|$)/
const tokenPath = '/v1/oauth2/token'
const instantPattern = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i
const datePattern = /^\d{4}-\d\d-\d\d$/
/** A root of up to six letters, a date, call or put, and a strike in thousandths. */
const optionSymbolPattern = /^[A-Z]{1,6} *\d{6}[CP]\d{8}$/
const minuteMs = 60_000
const dayMs = 86_400_000
const historyDaysMax = 90

/** Whether a request line speaks this dialect. */
export function isOfAries(url: string): boolean {
  return pathPattern.test(url)
}

/** Whether a request's body may hold a client's secrets: also one that missed the path of the tokens by a little. */
export function hasSecretBody(url: string): boolean {
  return /oauth|token/i.test(url)
}

/** An order's key in this dialect, and the id that the exchange has for it; none for what is no such key. */
export function toClOrdId(orderId: string): string {
  return orderId.replace(/^ord_/, 'ORDER-').toUpperCase()
}

export function fromClOrdId(clOrdId: string): string | null {
  return /^ORDER-[0-9A-Z]+$/.test(clOrdId) ? clOrdId.replace('ORDER-', 'ord_').toLowerCase() : null
}

// --- requests ---

/** The problem with a request; the message is for its sender. */
class BadRequest extends Error {
  override readonly name = 'BadRequest'
}

/** The fields of a body that have a value: whether null is one is not documented, and here it is not. */
function parseFields(body: string): ReadonlyMap<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    throw new BadRequest('Body is not JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new BadRequest('Body is not an object')
  return new Map<string, unknown>(Object.entries(value).filter(([, field]) => field !== null))
}

/** The text of a field; null where it is absent or empty. */
function readText(fields: ReadonlyMap<string, unknown>, name: string, lengthMax: number): string | null {
  const value = fields.get(name) ?? ''
  if (typeof value !== 'string') throw new BadRequest(`${name} must be text`)
  if (value.length > lengthMax) throw new BadRequest(`${name} is longer than ${lengthMax} characters`)
  return value === '' ? null : value
}

function requireText(fields: ReadonlyMap<string, unknown>, name: string, lengthMax: number): string {
  const text = readText(fields, name, lengthMax)
  if (text === null) throw new BadRequest(`${name} is missing`)
  return text
}

/** A positive decimal, digit for digit; null where it is absent. A JSON number has lost digits before we look. */
function readDecimal(fields: ReadonlyMap<string, unknown>, name: string): string | null {
  const value = fields.get(name)
  if (value === undefined || value === '') return null
  if (typeof value !== 'string' || !decimalPattern.test(value) || value.length > decimalLengthMax) {
    throw new BadRequest(`${name} must be a decimal string`)
  }
  if (!isPositive(value)) throw new BadRequest(`${name} must be positive`)
  return value
}

function requireDecimal(fields: ReadonlyMap<string, unknown>, name: string): string {
  const decimal = readDecimal(fields, name)
  if (decimal === null) throw new BadRequest(`${name} is missing`)
  return decimal
}

function readWord<T>(fields: ReadonlyMap<string, unknown>, name: string, words: ReadonlyMap<unknown, T>): T | null {
  if (!fields.has(name)) return null
  const meaning = words.get(fields.get(name))
  if (meaning === undefined) throw new BadRequest(`${name} is one of ${[...words.keys()].join(', ')}`)
  return meaning
}

function requireWord<T>(fields: ReadonlyMap<string, unknown>, name: string, words: ReadonlyMap<unknown, T>): T {
  const meaning = readWord(fields, name, words)
  if (meaning === null) throw new BadRequest(`${name} is missing`)
  return meaning
}

/** Ms since 1970 of an RFC 3339 time with its zone; what lies below a millisecond is cut. */
function parseInstant(text: string, name: string): number {
  const [, date = '', time = '', fraction = '', zone = ''] = instantPattern.exec(text) ?? []
  const at = Date.parse(`${date}T${time}${fraction.slice(0, 4)}${zone.toUpperCase()}`)
  // Date takes 30 February for 2 March.
  const wall = Date.parse(`${date}T${time}Z`)
  const exists = !Number.isNaN(wall) && new Date(wall).toISOString().startsWith(`${date}T${time}`)
  if (Number.isNaN(at) || !exists) throw new BadRequest(`${name} must be an RFC 3339 time with its zone`)
  return at
}

function readChoice(query: URLSearchParams, name: string, choices: readonly [string, string]): string {
  const value = query.get(name) ?? choices[0]
  if (!choices.includes(value)) throw new BadRequest(`${name} is one of ${choices.join(', ')}`)
  return value
}

function readWhole(query: URLSearchParams, name: string, byDefault: number, min: number, max: number): number {
  const text = query.get(name)
  if (text === null) return byDefault
  const value = /^\d{1,15}$/.test(text) ? Number(text) : -1
  if (value < min || value > max) throw new BadRequest(`${name} must be a whole number from ${min} to ${max}`)
  return value
}

interface CancelWish {
  accountId: string
  clOrdId: string
  symbol: string
  side: Pick<NewOrder, 'side' | 'short'> | null
  isOption: boolean
  right: Leg['right'] | null
  strike: string | null
  maturity: string | null
}

// --- answers ---

/** The words for an error are assumed: order endpoints publish no error body (Aries, Error). */
function fail(error: keyof typeof problemStatuses, message: string): Answer {
  return { status: problemStatuses[error], headers: {}, body: { error, message } }
}

function toSide({ side, short }: Order): Side {
  if (side === 'buy') return short === true ? 'BUY_TO_COVER' : 'BUY'
  return short === true ? 'SELL_SHORT' : 'SELL'
}

/** The spelling of the pending states is assumed, as in the vendor's document. */
function toStatus(order: Order): OrderStatus {
  if (isOpen(order) && order.cancelAt !== undefined) return 'PENDING_CANCEL'
  switch (order.status) {
    case 'accepted':
      return order.queued === true ? 'PENDING_NEW' : 'NEW'
    case 'partially_filled':
      return 'PARTIALLY_FILLED'
    case 'filled':
      return 'FILLED'
    case 'canceled':
      return order.expired === true ? 'EXPIRED' : 'CANCELED'
    case 'rejected':
      return 'REJECTED'
    default:
      return order.status satisfies never
  }
}

/** The quantities of an order, and its average price, which is 0 before the first fill. */
function toAmounts(order: Order): Record<string, string> {
  return {
    qty: order.quantity ?? '',
    cumQty: order.filledQuantity,
    leavesQty: isOpen(order) ? remainingQuantity(order) : '0',
    avgPrice: order.filledQuantity === '0' ? '0' : averagePrice(order),
  }
}

function toReasons(order: Order): { text: string; ordRejReason: string } {
  if (order.status !== 'rejected') return { text: '', ordRejReason: '' }
  const ordRejReason = order.refused === undefined ? 'OTHER' : rejectReasons[order.refused]
  return { text: order.rejectReason ?? '', ordRejReason }
}

function toLegJson({ side, ratio, right, strike, maturity, effect }: Leg): Record<string, unknown> {
  return {
    securityType: 'OPT',
    side: side.toUpperCase(),
    ratioQty: ratio,
    putCall: right.toUpperCase(),
    strikePrice: strike,
    maturity,
    positionEffect: effect.toUpperCase(),
  }
}

function endedAt(order: Order): number {
  return order.filledAt ?? order.canceledAt ?? order.changedAt ?? order.submittedAt
}

/** "The answer acknowledges receipt": returns a new order as it was taken in, before the market changed it. */
function asTakenIn(order: Order): Order {
  const { expired: _, ...rest } = order
  return { ...rest, status: 'accepted', filledQuantity: '0', filledValue: '0', filledAt: null, canceledAt: null }
}

/**
 * The order's place in a list as a whole number, as cursors are here. It does not say where: it is found again among the
 * account's orders, of which none goes. So it outlives a restart, and means nothing in another list.
 */
function toCursor(list: string, order: Order): number {
  const digest = createHash('sha256').update(`${list} ${order.accountId} ${order.id}`).digest()
  return 1 + digest.readUIntBE(0, 6)
}

/** The dialect. */
export function createAries(options: {
  exchange: Exchange
  switches: Readonly<Switches>
  tokens: Tokens
  requestsPerSecond: number
}): Dialect {
  return new AriesApi(options)
}

class AriesApi {
  readonly #exchange
  readonly #switches
  readonly #tokens
  readonly #rateLimit

  constructor(options: {
    exchange: Exchange
    switches: Readonly<Switches>
    tokens: Tokens
    requestsPerSecond: number
  }) {
    const { exchange, switches, tokens, requestsPerSecond } = options
    this.#exchange = exchange
    this.#switches = switches
    this.#tokens = tokens
    this.#rateLimit = createRateLimit(this.#exchange, requestsPerSecond)
  }

  refuse(status: number, message: string): Answer {
    const error = status === problemStatuses.rate_limited ? 'rate_limited' : 'internal_error'
    return { status, headers: {}, body: { error, message } }
  }

  idOf({ id }: Order): string {
    return toClOrdId(id)
  }

  answer(request: BrokerRequest): Answer {
    this.#exchange.catchUp()
    const [path = '', queryText = ''] = request.url.split('?', 2)
    if (path !== tokenPath && !this.#tokens.admits(request.headers['authorization'])) {
      return fail('unauthorized', 'Token is not valid')
    }
    if (this.#rateLimit.admit(request.whims.requestsPerSecond).over) {
      return { ...fail('rate_limited', 'Too many requests'), headers: { 'retry-after': '1' } }
    }
    if (request.body === null) return fail('bad_request', 'Body is too large')
    try {
      return this.#route(request, path, new URLSearchParams(queryText))
    } catch (error) {
      if (error instanceof BadRequest) return fail('bad_request', error.message)
      throw error
    }
  }

  #route(request: BrokerRequest, path: string, query: URLSearchParams): Answer {
    const { body, whims } = request
    switch (`${request.method} ${path}`) {
      case 'POST /v1/oauth2/token':
        return this.#issueTokens(body ?? '')
      case 'POST /v1/orders':
        return this.#place(body ?? '', whims)
      case 'POST /v1/orders/cancel':
        return this.#cancel(body ?? '', whims)
      case 'GET /v1/users/me/accounts':
        return succeed({ accounts: this.accounts().map((account) => this.#toAccountJson(account)) })
      default:
    }
    const [, id = '', list] = /^\/v2\/accounts\/([^/]+)\/(orders|orders\/history)$/.exec(path) ?? []
    if (request.method !== 'GET' || list === undefined) return fail('not_found', 'Path is not known')
    const account = this.#findAccount(id)
    // The lists document no 404. The answer is the same for an account of another client and for a missing one.
    if (account === undefined) return fail('forbidden', 'Account is not yours')
    return list === 'orders' ? this.#listActive(account, query, whims) : this.#listHistory(account, query, whims)
  }

  accounts(): readonly Account[] {
    return this.#exchange.accounts('aries')
  }

  #findAccount(id: string): Account | undefined {
    const account = this.#exchange.account(id)
    return account?.broker === 'aries' ? account : undefined
  }

  #issueTokens(body: string): Answer {
    const answered = this.#tokens.refresh(parseFields(body))
    return 'issued' in answered ? succeed(answered.issued) : fail(answered.error, answered.message)
  }

  // --- placing ---

  /** Exactly one of the two names may be given (Aries, AccountField). */
  #readAccountId(fields: ReadonlyMap<string, unknown>): string {
    const { ariesAccountField } = this.#switches
    const names = ariesAccountField === 'either' ? ['accountId', 'tradingAccountId'] : [ariesAccountField]
    const [name, ...others] = names.filter((known) => fields.has(known))
    if (name === undefined) throw new BadRequest(`${names.join(' or ')} is missing`)
    if (others.length > 0) throw new BadRequest(`Send either ${names.join(' or ')}`)
    return requireText(fields, name, 50)
  }

  /** Unknown fields are ignored, and so are prices that the type does not use. */
  #parsePlacement(body: string): { accountId: string; wanted: NewOrder } {
    const fields = parseFields(body)
    const accountId = this.#readAccountId(fields)
    const symbol = requireText(fields, 'symbol', 21)
    const side = requireWord(fields, 'side', sides)
    const type = requireWord(fields, 'type', orderTypes)
    const quantity = requireDecimal(fields, 'qty')
    const timeInForce = requireWord(fields, 'timeInForce', timesInForce)
    const clientOrderId = readText(fields, 'clientId', 50)
    const price = readDecimal(fields, 'price')
    const stopPrice = readDecimal(fields, 'stopPrice')
    const hasLimit = type === 'limit' || type === 'stop_limit'
    const hasStop = type === 'stop' || type === 'stop_limit'
    if (hasLimit && price === null) throw new BadRequest('price is missing')
    if (hasStop && stopPrice === null) throw new BadRequest('stopPrice is missing')
    if ((readText(fields, 'currency', 3) ?? 'USD') !== 'USD') throw new BadRequest('currency must be USD')
    readText(fields, 'exDestination', 10)
    const legs = fields.get('legs') ?? []
    if (!Array.isArray(legs)) throw new BadRequest('legs must be an array')
    if (legs.length > 0 || optionSymbolPattern.test(symbol)) throw new BadRequest('Option orders are not modelled here')
    return {
      accountId,
      wanted: {
        symbol,
        ...side,
        type,
        ...timeInForce,
        quantity,
        notional: null,
        limitPrice: hasLimit ? price : null,
        stopPrice: hasStop ? stopPrice : null,
        trailPercent: null,
        trailPrice: null,
        clientOrderId,
        commission: null,
        commissionType: null,
      },
    }
  }

  #custodyMs(): number {
    return this.#switches.ariesCustody === 'later' ? laterMs : 0
  }

  /**
   * "Uniqueness is not enforced as far as documented"; where it is, ours is a 400. For an account that is not the
   * client's, 403 is the one documented status that fits.
   */
  #place(body: string, { dedupe, commitDelayMs }: Whims): Answer {
    const { accountId, wanted } = this.#parsePlacement(body)
    const account = this.#findAccount(accountId)
    if (account === undefined) return fail('forbidden', 'Account is not yours')
    const { clientOrderId } = wanted
    const unique = clientOrderId !== null && (dedupe || this.#switches.clientOrderIds === 'unique')
    if (unique && this.#exchange.hasClientOrderId(account.id, clientOrderId)) {
      return fail('bad_request', 'clientId was used before')
    }
    const isKept = this.#switches.ariesRefusals === 'successFalse'
    const placed = this.#exchange.transaction(() =>
      this.#exchange.place(
        account,
        changeTerms(wanted, this.#switches.changedTerm, (symbol) => this.#exchange.priceCents(symbol)),
        {
          delayMs: commitDelayMs,
          custodyMs: this.#custodyMs(),
          takeIn: isKept ? 'everything' : 'nothing',
        },
      ),
    )
    if (!('id' in placed)) return fail('bad_request', placed.message)
    const isRejected = placed.status === 'rejected'
    if (isRejected && !isKept) return fail('bad_request', toReasons(placed).text)
    const order = isRejected ? placed : asTakenIn(placed)
    return succeed({
      success: !isRejected,
      clOrdId: toClOrdId(order.id),
      status: toStatus(order),
      symbol: showSymbol(order.symbol, this.#switches.changedTerm),
      side: toSide(order),
      ...toAmounts(order),
      ...(isRejected ? toReasons(order) : { text: 'Taken in', ordRejReason: '' }),
      transactTime: toTime(this.#exchange.clock()),
    })
  }

  placeTwin({ method, url, body }: Asked): void {
    if (!this.places(method, url)) return
    try {
      const { accountId, wanted } = this.#parsePlacement(body ?? '')
      const account = this.#findAccount(accountId)
      if (account === undefined) return
      this.#exchange.place(account, { ...wanted, clientOrderId: null }, { custodyMs: this.#custodyMs() })
    } catch (error) {
      // A request without an order gives no second order.
      if (!(error instanceof BadRequest)) throw error
    }
  }

  places(method: string, url: string): boolean {
    return method === 'POST' && placementPattern.test(url)
  }

  // --- canceling ---
  #parseCancel(body: string): CancelWish {
    const fields = parseFields(body)
    const accountId = this.#readAccountId(fields)
    const clOrdId = requireText(fields, 'origClOrdId', 100)
    const symbol = requireText(fields, 'symbol', 21)
    const needsSide = this.#switches.ariesSideOnCancel === 'required'
    const side = needsSide ? requireWord(fields, 'side', sides) : readWord(fields, 'side', sides)
    const securityTypes = new Map<unknown, 'CS' | 'OPT'>([
      ['CS', 'CS'],
      ['OPT', 'OPT'],
    ])
    if (this.#switches.ariesSecurityType === 'EQUITY') securityTypes.set('EQUITY', 'CS')
    const maturity = readText(fields, 'maturity', 10)
    if (maturity !== null && !datePattern.test(maturity)) throw new BadRequest('maturity must be a date')
    return {
      accountId,
      clOrdId,
      symbol,
      side,
      // Not required; so for options it must be there, or the request would be for stock.
      isOption: readWord(fields, 'securityType', securityTypes) === 'OPT',
      right: readWord(fields, 'putCall', rights),
      strike: readDecimal(fields, 'strikePrice'),
      maturity,
    }
  }

  /** The first field that says another thing than the order; null when all agree. */
  #findMismatch(order: Order, wish: CancelWish): string | null {
    if (wish.symbol !== showSymbol(order.symbol, this.#switches.changedTerm)) return 'symbol'
    const { side } = wish
    if (side !== null && (side.side !== order.side || side.short !== order.short)) return 'side'
    const { legs = [] } = order
    if (wish.isOption !== legs.length > 0) return 'securityType'
    const [leg, ...others] = legs
    // The document does not say what names the options of a spread, so no field does.
    if (leg === undefined || others.length > 0) return null
    if (wish.right !== leg.right) return 'putCall'
    // "60.00" in a request is "60" in a leg.
    if (wish.strike === null || compare(toDecimal(wish.strike), toDecimal(leg.strike)) !== 0) return 'strikePrice'
    return wish.maturity === leg.maturity ? null : 'maturity'
  }

  /** An order of another account answers like one that does not exist. */
  #cancel(body: string, { fillOnCancel, cancelDelayMs }: Whims): Answer {
    const wish = this.#parseCancel(body)
    const account = this.#findAccount(wish.accountId)
    if (account === undefined) return fail('forbidden', 'Account is not yours')
    const order = this.#exchange.order(fromClOrdId(wish.clOrdId) ?? '')
    if (order === undefined || order.accountId !== account.id) return fail('not_found', 'Order is not known')
    const mismatch = this.#findMismatch(order, wish)
    if (mismatch !== null) return this.#refuseCancel(order, `${mismatch} is not that of the order`)
    return this.#exchange.transaction(() => {
      if (fillOnCancel !== null) this.#exchange.fill(order, fillOnCancel.quantity)
      if (!isOpen(order)) {
        if (this.#switches.ariesCancelOfFinal === 'notFound') return fail('not_found', 'Order is not known')
        return this.#refuseCancel(order, `Order is already ${toStatus(order).toLowerCase()}`)
      }
      this.#exchange.cancel(order, cancelDelayMs ?? (this.#switches.ariesCancels === 'pending' ? laterMs : null))
      const text = isOpen(order) ? 'Cancel sent to the market' : 'Cancel processed'
      return succeed({ success: true, ...this.#toCancelIds(order), status: toStatus(order), text })
    })
  }

  #refuseCancel(order: Order, text: string): Answer {
    if (this.#switches.ariesRefusals === 'badRequest') return fail('bad_request', text)
    return succeed({ success: false, ...this.#toCancelIds(order), status: toStatus(order), text })
  }

  #toCancelIds(order: Order): { clOrdId: string; origClOrdId: string } {
    const origClOrdId = toClOrdId(order.id)
    const own = `ORDER-${randomBytes(8).toString('hex').toUpperCase()}`
    return { clOrdId: this.#switches.ariesCancelIds === 'own' ? own : origClOrdId, origClOrdId }
  }

  // --- lists ---
  #readLagMs(): number {
    return this.#switches.readLag === 'seconds' ? lagOfSwitchesMs : 0
  }

  #startOfToday(): number {
    return Math.floor(this.#exchange.clock() / dayMs) * dayMs
  }

  /** "List open orders and what ended today". The document does not say whose day; ours is that of UTC. */
  #listActive(account: Account, query: URLSearchParams, whims: Whims): Answer {
    const source = readChoice(query, 'source', ['cache', 'db'])
    const today = this.#startOfToday()
    const cacheLagMs = source === 'cache' && this.#switches.ariesCacheLag === 'seconds' ? lagOfSwitchesMs : 0
    return this.#list(account, query, whims, {
      // "Keep source the same while paging": a cursor of one source is not valid for the other.
      name: `active ${source}`,
      keep: (order) => isOpen(order) || endedAt(order) >= today,
      oldestFirst: this.#switches.ariesActiveOrder === 'oldestFirst',
      lagMs: Math.max(cacheLagMs, this.#readLagMs()),
    })
  }

  /** By the time of creation, from which `exclude_today` leaves out today too. */
  #listHistory(account: Account, query: URLSearchParams, whims: Whims): Answer {
    const now = this.#exchange.clock()
    const from = parseInstant(query.get('from') ?? '', 'from')
    const toText = query.get('to')
    const to = toText === null ? Math.floor(now / minuteMs) * minuteMs : parseInstant(toText, 'to')
    if (toText !== null && to < from) throw new BadRequest('to is before from')
    if (to - from > historyDaysMax * dayMs) throw new BadRequest(`to is more than ${historyDaysMax} days after from`)
    const order = readChoice(query, 'order_by', ['desc', 'asc'])
    const today = this.#startOfToday()
    const end = readChoice(query, 'exclude_today', ['false', 'true']) === 'true' ? Math.min(to, today - 1) : to
    const isShown = (one: Order): boolean => {
      if (one.status === 'rejected') return false
      return this.#switches.ariesHistory === 'all' || (!isOpen(one) && endedAt(one) < today)
    }
    return this.#list(account, query, whims, {
      name: `history ${order}`,
      keep: (one) => isShown(one) && (whims.ignoreFilter || (one.submittedAt >= from && one.submittedAt <= end)),
      oldestFirst: order === 'asc',
      lagMs: this.#readLagMs(),
    })
  }

  #list(
    account: Account,
    query: URLSearchParams,
    whims: Whims,
    wanted: { name: string; keep: (order: Order) => boolean; oldestFirst: boolean; lagMs: number },
  ): Answer {
    const { pageCap } = this.#switches
    const limit = Math.min(readWhole(query, 'limit', 50, 1, 500), pageCap === 0 ? 500 : pageCap)
    const cursor = readWhole(query, 'cursor', 0, 0, Number.MAX_SAFE_INTEGER)
    const isAnchor = (order: Order): boolean => toCursor(wanted.name, order) === cursor
    const after = cursor === 0 ? undefined : this.#exchange.page(account.id, isAnchor, { limit: 1 }).rows[0]
    if (cursor !== 0 && after === undefined) throw new BadRequest('cursor is not one of this list')
    const oldestFirst = whims.listOrder === null ? wanted.oldestFirst : whims.listOrder === 'oldestFirst'
    const lagMs = whims.listLagMs ?? wanted.lagMs
    const read = (count: number): { rows: Order[]; hasMore: boolean } =>
      this.#exchange.page(account.id, wanted.keep, { after, limit: count, oldestFirst, lagMs })
    // A rule that adds rows does not move the next page.
    const { rows: asked, hasMore } = read(limit)
    const last = asked.at(-1)
    const { rows } = whims.extraRows === 0 ? { rows: asked } : withExtraRows(limit, whims, read)
    return succeed({
      orders: rows.map((order) => this.#showOrder(order)),
      nextCursor: hasMore && last !== undefined ? toCursor(wanted.name, last) : 0,
    })
  }

  /** An order as the switches let a caller see it. */
  /** Returns a list row as the switches show it to a caller. */
  #showOrder(order: Order): Record<string, unknown> {
    const { clientId, ...fields } = this.toOrderJson(order)
    const isShown = typeof clientId === 'string' && this.#switches.clientOrderIdEcho === 'everywhere'
    return {
      ...fields,
      ...(isShown ? { clientId: showClientOrderId(clientId, this.#switches.clientOrderIdForm) } : {}),
      symbol: showSymbol(order.symbol, this.#switches.changedTerm),
    }
  }

  toOrderJson(order: Order): Record<string, unknown> {
    const { legs = [] } = order
    const fields: Record<string, unknown> = {
      clOrdId: toClOrdId(order.id),
      ordId: `ord-${letters(`broker side ${order.id}`, 12)}`,
      accountId: order.accountId,
      clientId: order.clientOrderId ?? '',
      symbol: order.symbol,
      side: toSide(order),
      // The control port can put a type here that this broker does not have.
      type: order.type.toUpperCase(),
      timeInForce:
        order.extendedHours && order.timeInForce === 'day' ? 'EXTENDED_HOURS' : timeInForceNames[order.timeInForce],
      price: order.limitPrice ?? '',
      stopPrice: order.stopPrice ?? '',
      ordStatus: toStatus(order),
      ...toAmounts(order),
      currency: 'USD',
      // The route of the one sample.
      exDestination: 'MNGD',
      ...toReasons(order),
      securityType: legs.length > 0 ? 'OPT' : this.#switches.ariesSecurityType,
      category: legs.length > 1 ? 'MULTI_LEG' : 'SINGLE_LEG',
      legs: legs.map(toLegJson),
      createdAt: toTime(order.submittedAt),
      updatedAt: toTime(Math.max(order.submittedAt, order.changedAt ?? endedAt(order))),
    }
    if (this.#switches.ariesEmpty === 'text') return fields
    const isEmpty = (value: unknown): boolean => value === '' || (Array.isArray(value) && value.length === 0)
    return Object.fromEntries(
      Object.entries(fields).filter(([name, value]) => requiredFields.includes(name) || !isEmpty(value)),
    )
  }

  /**
   * "Which of the returned identifiers the order endpoints expect as account is not stated": the one that a switch names
   * has the account's id, text even where the document has a number.
   */
  #toAccountJson(account: Account): Record<string, unknown> {
    const other = (column: string, length: number): string => letters(`${column} ${account.id}`, length).toUpperCase()
    return {
      id: Number(account.number),
      fdid: `FD${other('fdid', 10)}`,
      apex_account_id: `3AP${other('apex', 5)}`,
      sterling_account_id: `ST${other('sterling', 8)}`,
      [this.#switches.tradingId]: account.id,
      status: accountStatusNames[account.status],
      is_sim: true,
      account_type: 'INDIVIDUAL',
      account_class: 'CASH',
      created_at: toTime(account.createdAt),
      updated_at: toTime(account.createdAt),
    }
  }
}
