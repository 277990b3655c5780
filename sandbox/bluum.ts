// Bluum's accounts dialect over the exchange: paths, JSON and envelopes, read only from the vendor's document (the account
// generation, 2026-03). The orders of the control port use its words.

import { decimalPattern, isOneOf, isPositive, succeed, toTime } from './dialect.ts'
import type { Answer, BrokerRequest } from './dialect.ts'
import { accountStatuses, averagePrice, commissionTypes, orderStatuses, remainingQuantity } from './orders.ts'
import type { Exchange } from './exchange.ts'
import type { Account, Asset, NewOrder, Order, Position, Refusal } from './orders.ts'
import { noPath, noResource, parseFields, parseNewOrder, toProblem, unknownValue } from './front.ts'
import type { Front, Generation, PlacementWords, Problem } from './front.ts'

const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)$/
const words: PlacementWords = {
  quantity: 'qty',
  commissionTypes: new Map(commissionTypes.map((type) => [type, type])),
  texts: ['market', 'isin', 'figi'],
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

/** The order that a body asks for in this dialect, or the first thing wrong with it. */
function parsePlacement(text: string): NewOrder | Problem {
  const fields = parseFields(text)
  return fields instanceof Map ? parseNewOrder(fields, words) : fields
}

/** The dialect, and what the control port does to orders and accounts. */
export function createBluum(exchange: Exchange, front: Front) {
  return new BluumApi(exchange, front)
}

class BluumApi {
  readonly #exchange: Exchange
  readonly #front: Front
  readonly #switches
  readonly #generation: Generation
  readonly dialect

  constructor(exchange: Exchange, front: Front) {
    this.#exchange = exchange
    this.#front = front
    const { switches } = front
    this.#switches = switches
    this.#generation = {
      placementPath: /^\/v1\/trading\/accounts\/([^/?]+)\/orders(?:\?|$)/,
      rateHeaders: true,
      account: (id) => front.findAccount(id),
      fail: (problem) => this.#fail(problem),
      route: (request, parts, query) => this.#route(request, parts, query),
      parsePlacement,
      placeOptions: () => ({}),
      toOrderJson: (order) => toOrderJson(order),
    }
    this.dialect = this.#front.speak(this.#generation)
  }

  /** Fills an open order from the control port: the order, or a status and why not. */
  fill(orderId: string, fields: { quantity?: string; price?: string }): Order | Problem {
    for (const [name, value] of Object.entries(fields)) {
      if (!decimalPattern.test(value) || !isPositive(value)) {
        return { code: 'BLUM-400-001', message: `${name} must be a positive decimal string` }
      }
    }
    const order = this.#exchange.order(orderId)
    if (order === undefined) return { code: 'BLUM-404-001', message: `no order ${orderId}` }
    const filled = this.#exchange.fill(order, fields.quantity, fields.price)
    return typeof filled === 'string' ? { code: 'BLUM-409-003', message: filled } : filled
  }

  /** Puts an order into the book from the control port, to rest there: the order, or what is wrong with it. */
  insert(account: Account, fields: Record<string, unknown>): Order | Problem {
    const { submitted_at: submittedAt = null, ...rest } = fields
    const wanted = parsePlacement(JSON.stringify(rest))
    if ('code' in wanted) return wanted
    if (this.#exchange.asset(wanted.symbol) === undefined) return { code: 'BLUM-404-003', message: 'No such asset.' }
    if (submittedAt === null) return this.#exchange.insert(account.id, wanted, null)
    const at = typeof submittedAt === 'string' && instantPattern.test(submittedAt) ? Date.parse(submittedAt) : NaN
    if (Number.isNaN(at)) return { code: 'BLUM-400-001', message: 'submitted_at must be a time with its zone' }
    return this.#exchange.insert(account.id, wanted, at)
  }

  /** Sets the status of an order. Returns the order, or a problem. */
  setStatus(orderId: string, status: unknown): Order | Problem {
    const known = orderStatuses.filter((one) => one !== 'partially_filled')
    if (!isOneOf(known, status)) {
      return { code: 'BLUM-400-004', message: `status is one of ${known.join(', ')}; a part is filled by /fill` }
    }
    const order = this.#exchange.order(orderId)
    if (order === undefined) return { code: 'BLUM-404-001', message: `no order ${orderId}` }
    this.#exchange.setStatus(order, status)
    return order
  }

  /** Sets an account's state for refusal tests. Returns what is wrong, as text, having changed nothing. */
  setAccount(account: Account, change: { status?: unknown; cash?: unknown }): string | null {
    const { status, cash } = change
    if (status !== undefined && !isOneOf(accountStatuses, status))
      return `status is one of ${accountStatuses.join(', ')}`
    if (cash !== undefined && (typeof cash !== 'string' || !/^\d{1,30}(\.\d{1,2})?$/.test(cash))) {
      return 'cash is a decimal string with at most two decimals'
    }
    this.#exchange.setAccount(account, {
      ...(status === undefined ? {} : { status }),
      ...(cash === undefined ? {} : { cash }),
    })
    return null
  }

  #fail(problem: Problem): Answer {
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
    return { status, headers: {}, body: bodies[this.#switches.errorEnvelope] }
  }

  #refuse(no: Refusal | Problem): Answer {
    return this.#fail('refused' in no ? toProblem(no) : no)
  }

  #route(request: BrokerRequest, parts: readonly string[], query: URLSearchParams): Answer {
    const get = request.method === 'GET'
    const post = request.method === 'POST'
    const size = parts.length
    const [, area, second = '', third = '', fourth = '', fifth = '', sixth] = parts

    if (area === 'trading' && second === 'accounts' && fourth === 'orders') {
      if (size === 5 && get) return this.#withAccount(third, (account) => this.#list(account, query, request))
      if (size === 5 && post)
        return this.#front.once(
          request,
          (problem) => this.#fail(problem),
          () => this.#withAccount(third, (account) => this.#place(account, request)),
        )
      if (size === 7 && post && sixth === 'cancel') {
        return this.#front.once(
          request,
          (problem) => this.#fail(problem),
          () => this.#withAccount(third, (account) => this.#cancel(account, fifth, request)),
        )
      }
    }
    if (area === 'trading' && second === 'orders' && size === 4 && get) {
      const order = this.#front.read(third, request.whims)
      return order === undefined ? this.#fail(noResource) : succeed(this.#showOrder(order))
    }
    if (area === 'trading' && second === 'accounts' && fourth === 'positions' && get) {
      if (size === 5) return this.#withAccount(third, (account) => this.#listPositions(account, query))
      if (size === 6) return this.#withAccount(third, (account) => this.#readPosition(account, fifth, query))
    }
    if (area === 'accounts' && get) {
      if (size === 2) return succeed(this.#front.accounts().map((account) => this.toAccountJson(account)))
      if (size === 3) return this.#withAccount(second, (account) => succeed(this.toAccountJson(account)))
      if (size === 4 && third === 'wallets') return this.#withAccount(second, (account) => this.#listWallets(account))
    }
    if (area === 'assets' && size === 3 && get) {
      // "Ticker; trimmed and upper-cased by the server" (Bluum, 'Read one asset'). Orders take a ticker as it is.
      const asset = this.#exchange.asset(second.trim().toUpperCase())
      if (asset === undefined) return this.#fail({ code: 'BLUM-404-003', message: 'No such asset.' })
      return succeed({ status: 'success', data: this.#toAssetJson(asset) })
    }
    return this.#fail(noPath)
  }

  #withAccount(id: string, work: (account: Account) => Answer): Answer {
    const account = this.#front.findAccount(id)
    return account === undefined ? this.#fail(noResource) : work(account)
  }

  /** An order as the switches let a caller see it. */
  #showOrder(order: Order, inList = false): Record<string, unknown> {
    return this.#front.show(toOrderJson(order, inList && this.#switches.partialRows), inList)
  }

  #place(account: Account, request: BrokerRequest): Answer {
    const placed = this.#front.place(account, request, this.#generation)
    return 'id' in placed ? succeed(this.#showOrder(placed), 201) : this.#refuse(placed)
  }

  /** Success status and the answer for a final order are undocumented; 200 and BLUM-409-003 are the assumptions. */
  #cancel(account: Account, orderId: string, request: BrokerRequest): Answer {
    const canceled = this.#front.cancel(account, orderId, request.whims, this.#switches.cancels === 'later')
    return 'id' in canceled ? succeed(this.#showOrder(canceled)) : this.#refuse(canceled)
  }

  #list(account: Account, query: URLSearchParams, request: BrokerRequest): Answer {
    const window = this.#front.readWindow(query, 100)
    if ('code' in window) return this.#fail(window)
    const status = query.get('status')
    if (status !== null && !isOneOf(orderStatuses, status)) return this.#fail(unknownValue('status'))
    const keep = (order: Order): boolean => status === null || order.status === status
    const page = this.#front.list(account, query, request.whims, { ...window, keep })
    if ('code' in page) return this.#fail(page)
    const data = page.rows.map((order) => this.#showOrder(order, true))
    return succeed(this.#switches.listEnvelope === 'array' ? data : { object: 'list', data, has_more: page.hasMore })
  }

  /** A real answer also has contact, identity and agreement blocks, which these accounts lack. */
  toAccountJson(account: Account): Record<string, unknown> {
    return {
      id: account.id,
      account_number: account.number,
      status: account.status,
      crypto_status: null,
      currency: 'USD',
      balance: this.#exchange.cash(account).balance,
      last_equity: this.#exchange.equity(account),
      created_at: toTime(account.createdAt),
      account_type: 'individual',
      management_type: 'self_directed',
      trading_type: 'cash',
      enabled_assets: ['us_equity'],
    }
  }

  #listWallets(account: Account): Answer {
    const cash = this.#exchange.cash(account)
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
  #toPositionJson(position: Position, query: URLSearchParams): Record<string, unknown> {
    const worth = this.#exchange.worth(position)
    const at = toTime(this.#exchange.clock())
    return {
      id: position.id,
      account_id: position.accountId,
      symbol: position.symbol,
      asset_id: this.#exchange.asset(position.symbol)?.id,
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

  #listPositions(account: Account, query: URLSearchParams): Answer {
    const symbol = query.get('symbol')
    const found = this.#exchange
      .positions(account.id)
      .filter((position) => symbol === null || position.symbol === symbol)
    return succeed(found.map((position) => this.#toPositionJson(position, query)))
  }

  #readPosition(account: Account, id: string, query: URLSearchParams): Answer {
    const found = this.#exchange.positions(account.id).find((position) => position.id === id)
    return found === undefined ? this.#fail(noResource) : succeed(this.#toPositionJson(found, query))
  }

  #toAssetJson(asset: Asset): Record<string, unknown> {
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
      price: Number(this.#exchange.priceCents(asset.symbol)) / 100,
    }
  }
}
