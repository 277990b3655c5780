// Bluum's investors dialect over the exchange: paths, JSON and envelopes, read from the vendor's document (the investor
// generation, 2026-07) and from nothing else. Order estimates, positions, wallets, transactions and assets are not here.
//
// How ids of one generation become ids of the other is not published. Ours: an investor's id follows from its account's,
// and an order has one id in both.

import { isOneOf, laterMs, succeed, toTime } from './dialect.ts'
import type { Answer, BrokerRequest } from './dialect.ts'
import { averagePrice, isOpen, orderStatuses, remainingQuantity } from './orders.ts'
import type { Exchange } from './exchange.ts'
import type { Account, AccountStatus, NewOrder, Order, Refusal } from './orders.ts'
import { noPath, noResource, parseFields, parseNewOrder, toProblem, unknownValue } from './front.ts'
import type { Front, Generation, PlacementWords, Problem } from './front.ts'
import { letters } from './seed.ts'

const orderStatusFilters = ['open', 'pending', 'filled', 'partial', 'cancelled', 'failed'] as const
type OrderStatus = (typeof orderStatusFilters)[number]

// The default, and the two decimals of basis points, are documented for the accounts generation only and kept here.
const words: PlacementWords = {
  quantity: 'quantity',
  commissionTypes: new Map([
    ['notional', 'notional'],
    ['per_share', 'qty'],
    ['bps', 'bps'],
  ]),
  texts: ['market', 'isin', 'figi', 'class', 'country'],
}
const wordsWithAccounts: PlacementWords = {
  ...words,
  commissionTypes: new Map([...words.commissionTypes, ['qty', 'qty']]),
}
const walletCurrencies = ['USD', 'NGN', 'GBP', 'EUR', 'KES']
// All that trades here.
const assetClass = 'equity'
const pathPattern = /^\/v1\/investors(?:[/?]|$)/

/** The vendor's pairs are marked as assumed; what cannot trade any more is closed here. */
const investorStatuses: Record<AccountStatus, string> = {
  ACTIVE: 'active',
  SUSPENDED: 'suspended',
  PENDING: 'onboarding',
  SUBMITTED: 'under_review',
  INACTIVE: 'closed',
}

const commissionTypeNames: Record<NonNullable<NewOrder['commissionType']>, string> = {
  notional: 'notional',
  qty: 'per_share',
  bps: 'bps',
}

const errorTypes = new Map([
  [400, 'invalid_request_error'],
  [401, 'authentication_error'],
  [403, 'permission_error'],
  [404, 'not_found_error'],
  [409, 'conflict_error'],
  [422, 'invalid_request_error'],
  [429, 'rate_limit_error'],
])

const refusalParams = new Map<Refusal['refused'], string>([
  ['unknownAsset', 'symbol'],
  ['notTradable', 'symbol'],
  ['shares', 'quantity'],
])

/** Whether a request line speaks this dialect. */
export function isOfInvestors(url: string): boolean {
  return pathPattern.test(url)
}

/** The investor that an account is in this dialect: always the same, for any seed and after any restart. */
export function toInvestorId(accountId: string): string {
  return `inv_${letters(`investor ${accountId}`, 26)}`
}

/** Returns a new order as it was taken in, before the market changed it. */
function asTakenIn(order: Order): Order {
  const untouched = { filledQuantity: '0', filledValue: '0', filledAt: null, canceledAt: null, rejectReason: null }
  return { ...order, ...untouched, status: 'accepted', queued: true }
}

/** Types of codes are assumed from their names, as in the vendor's document. */
function fail({ code, message, param }: Problem): Answer {
  const status = Number(code.slice(5, 8))
  const type = code === 'BLUM-409-002' ? 'idempotency_error' : (errorTypes.get(status) ?? 'api_error')
  return { status, headers: {}, body: { error: { type, code, message, ...(param === undefined ? {} : { param }) } } }
}

function refuse(no: Refusal | Problem): Answer {
  if (!('refused' in no)) return fail(no)
  const param = refusalParams.get(no.refused)
  return fail({ ...toProblem(no), ...(param === undefined ? {} : { param }) })
}

/** "A bare uuid in place of a prefixed id answers 400"; ours: so does anything else that is not prefix and letters. */
function checkId(id: string, prefix: 'inv_' | 'ord_', param: string): Problem | null {
  if (id.startsWith(prefix) && /^[0-9A-Za-z]+$/.test(id.slice(prefix.length))) return null
  return { code: 'BLUM-400-003', message: `An ${prefix} id is expected.`, param }
}

/** The dialect. Null and absent mean the same to it in requests. */
export function createInvestors(exchange: Exchange, front: Front) {
  return new InvestorsApi(exchange, front)
}

class InvestorsApi {
  readonly #exchange: Exchange
  readonly #front: Front
  readonly #switches
  readonly #accountIds
  readonly #generation: Generation
  readonly dialect

  constructor(exchange: Exchange, front: Front) {
    this.#exchange = exchange
    this.#front = front
    const { switches } = front
    this.#switches = switches
    this.#accountIds = new Map(front.accounts().map(({ id }) => [toInvestorId(id), id]))
    this.#generation = {
      placementPath: /^\/v1\/investors\/([^/?]+)\/orders(?:\?|$)/,
      // The pages of this generation name no headers for the limit but Retry-After.
      rateHeaders: false,
      account: (investorId) => this.accountOf(investorId),
      fail,
      route: (request, parts, query) => this.#route(request, parts, query),
      parsePlacement: (text) => this.#parsePlacement(text),
      placeOptions: () => ({
        custodyMs: this.#switches.custody === 'later' ? laterMs : 0,
        takeIn: this.#switches.refusals === 'failedOrder' ? 'tradable' : 'nothing',
      }),
      toOrderJson: (order) => this.#toOrderJson(order),
    }
    this.dialect = this.#front.speak(this.#generation)
  }

  #route(request: BrokerRequest, parts: readonly string[], query: URLSearchParams): Answer {
    const { whims } = request
    const get = request.method === 'GET'
    const post = request.method === 'POST'
    const size = parts.length
    const [, area, investorId = '', third, orderId = '', fifth] = parts
    const withOrder = (work: (account: Account) => Answer): Answer => {
      const problem = checkId(orderId, 'ord_', 'order_id')
      return this.#withInvestor(investorId, (account) => (problem === null ? work(account) : fail(problem)))
    }

    if (area !== 'investors') return fail(noPath)
    if (size === 2 && get) return this.#listInvestors(query)
    if (size === 3 && get) return this.#withInvestor(investorId, (account) => succeed(this.#toInvestorJson(account)))
    if (third !== 'orders') return fail(noPath)
    if (size === 4 && get) return this.#withInvestor(investorId, (account) => this.#list(account, query, request))
    if (size === 4 && post) {
      return this.#front.once(request, fail, () =>
        this.#withInvestor(investorId, (account) => this.#place(account, request)),
      )
    }
    if (size === 5 && get) {
      return withOrder((account) => {
        const order = this.#front.read(orderId, whims, [account])
        return order === undefined ? fail(noResource) : succeed(this.#asRead(this.#showOrder(order)))
      })
    }
    if (size === 6 && post && fifth === 'cancel') {
      return this.#front.once(request, fail, () =>
        withOrder((account) => {
          const canceled = this.#front.cancel(account, orderId, whims, this.#switches.investorCancels === 'later')
          // The present state of the order, which does not show a cancel under way. Only this success can be a 202.
          return 'id' in canceled ? succeed(this.#showOrder(canceled), this.#switches.cancelSuccess) : refuse(canceled)
        }),
      )
    }
    return fail(noPath)
  }

  accountOf(investorId: string): Account | undefined {
    return this.#exchange.account(this.#accountIds.get(investorId) ?? '')
  }

  #withInvestor(id: string, work: (account: Account) => Answer): Answer {
    const problem = checkId(id, 'inv_', 'investor_id')
    if (problem !== null) return fail(problem)
    const account = this.accountOf(id)
    return account === undefined ? fail(noResource) : work(account)
  }

  // --- orders ---
  #toStatus(order: Order): OrderStatus {
    switch (order.status) {
      case 'accepted':
        return order.queued === true ? 'pending' : this.#switches.restingStatus
      case 'partially_filled':
        return 'partial'
      case 'filled':
        return 'filled'
      case 'canceled':
        return 'cancelled'
      case 'rejected':
        return 'failed'
      default:
        return order.status satisfies never
    }
  }

  #toSubmittedAt(order: Order): string | null {
    if (order.queued !== true) return toTime(order.custodyAt ?? order.submittedAt)
    return this.#switches.submittedAt === 'always' ? toTime(order.submittedAt) : null
  }

  /** Null or absent: the document does not say which one a field uses, so a switch chooses. */
  #toOrderJson(order: Order): Record<string, unknown> {
    const { commissionType, filledAt, canceledAt } = order
    const reference = this.#switches.envelopeKeys === 'reference'
    const fields: Record<string, unknown> = {
      id: order.id,
      object: 'order',
      ...(reference ? { created: Math.floor(order.submittedAt / 1000), livemode: false } : {}),
      metadata: {},
      ...(reference ? { investor_id: toInvestorId(order.accountId) } : {}),
      symbol: order.symbol,
      class: assetClass,
      currency: 'USD',
      quantity: order.quantity,
      notional: order.notional,
      side: order.side,
      type: order.type,
      time_in_force: order.timeInForce,
      limit_price: order.limitPrice,
      stop_price: order.stopPrice,
      trail_percent: order.trailPercent,
      trail_price: order.trailPrice,
      extended_hours: order.extendedHours,
      client_order_id: order.clientOrderId,
      status: this.#toStatus(order),
      filled_quantity: order.filledQuantity,
      remaining_quantity: remainingQuantity(order),
      average_price: averagePrice(order),
      commission: order.commission,
      commission_type: commissionType === null ? null : commissionTypeNames[commissionType],
      settlement_date: null,
      bond: null,
    }
    const shown = Object.entries(fields).filter(([, value]) => value !== null || this.#switches.emptyFields === 'null')
    return {
      ...Object.fromEntries(shown),
      submitted_at: this.#toSubmittedAt(order),
      filled_at: filledAt === null ? null : toTime(filledAt),
      cancelled_at: canceledAt === null ? null : toTime(canceledAt),
      failure_reason: order.rejectReason,
    }
  }

  /** An order as the switches let a caller see it. */
  #showOrder(order: Order, inList = false): Record<string, unknown> {
    const fields = this.#front.show(this.#toOrderJson(order), inList)
    if (!inList || !this.#switches.partialRows) return fields
    for (const name of ['extended_hours', 'commission', 'commission_type', 'client_order_id']) delete fields[name]
    return fields
  }

  #asRead(fields: Record<string, unknown>): Record<string, unknown> {
    return this.#switches.templateLeftovers ? { ...fields, object: 'investor' } : fields
  }

  #parsePlacement(text: string): NewOrder | Problem {
    const fields = parseFields(text)
    if (!(fields instanceof Map)) return fields
    const old = this.#switches.accountsWords === 'taken'
    if (old && !fields.has('quantity') && fields.has('qty')) fields.set('quantity', fields.get('qty'))
    const wanted = parseNewOrder(fields, old ? wordsWithAccounts : words)
    if ('code' in wanted) return wanted
    const currency = fields.get('wallet_currency') ?? 'USD'
    if (typeof currency !== 'string' || !walletCurrencies.includes(currency)) return unknownValue('wallet_currency')
    // No investor has another wallet, and the document does not say what an empty one answers.
    if (currency === 'USD') return wanted
    return { code: 'BLUM-422-001', message: `No ${currency} wallet.`, param: 'wallet_currency' }
  }

  /** "The answer is the new order, normally pending"; what fills at once is found filled by the next read. */
  #place(account: Account, request: BrokerRequest): Answer {
    const placed = this.#front.place(account, request, this.#generation)
    if (!('id' in placed)) return refuse(placed)
    return succeed(this.#showOrder(this.#switches.custody === 'atOnce' ? placed : asTakenIn(placed)), 201)
  }

  #list(account: Account, query: URLSearchParams, request: BrokerRequest): Answer {
    const window = this.#front.readWindow(query, this.#switches.listLimitMax)
    if ('code' in window) return fail(window)
    const status = query.get('status')
    const old = this.#switches.accountsWords === 'taken' ? orderStatuses : []
    const known: readonly string[] = [...orderStatusFilters, ...old]
    if (status !== null && !known.includes(status)) return fail(unknownValue('status'))
    const assets = query.get('class')
    const hasStatus = (order: Order): boolean => {
      if (status === null) return true
      if (status === 'open') return isOpen(order)
      return this.#toStatus(order) === status || (isOneOf<string>(old, status) && order.status === status)
    }
    const limit = this.#switches.shortPages ? Math.ceil(window.limit / 2) : window.limit
    const keep = (order: Order): boolean => (assets === null || assets === assetClass) && hasStatus(order)
    const page = this.#front.list(account, query, request.whims, { limit, offset: window.offset, keep })
    if ('code' in page) return fail(page)
    const path = `investors/${toInvestorId(account.id)}/${this.#switches.templateLeftovers ? 'deposits' : 'orders'}`
    return this.#toList(
      path,
      page.hasMore,
      page.rows.map((order) => this.#asRead(this.#showOrder(order, true))),
    )
  }

  /** There is no total. The url is the path without its query, as in the samples. */
  #toList(path: string, hasMore: boolean, data: readonly unknown[]): Answer {
    return succeed({ object: 'list', url: `/v1/${path}`, has_more: hasMore, data })
  }

  // --- investors ---

  /** Filters and order of this list are not documented. Ours: none, and the one to show first. */
  #listInvestors(query: URLSearchParams): Answer {
    const window = this.#front.readWindow(query, this.#switches.listLimitMax)
    if ('code' in window) return fail(window)
    const end = window.offset + window.limit
    const all = this.#front.accounts()
    return this.#toList(
      'investors',
      end < all.length,
      all.slice(window.offset, end).map((account) => this.#toInvestorJson(account)),
    )
  }

  /** A real answer also has personal data, which these investors lack. */
  #toInvestorJson(account: Account): Record<string, unknown> {
    const cash = this.#exchange.cash(account)
    // The custodian's account comes with the approval.
    const approved = account.status !== 'PENDING' && account.status !== 'SUBMITTED'
    return {
      id: toInvestorId(account.id),
      object: 'investor',
      created: Math.floor(account.createdAt / 1000),
      livemode: false,
      metadata: {},
      status: investorStatuses[account.status],
      account_type: 'individual',
      management_type: 'self_directed',
      account_number: approved ? account.number : null,
      currency: 'USD',
      balance: cash.balance,
      buying_power: approved ? cash.available : '0',
      cash_withdrawable: approved ? cash.available : '0',
      last_equity: this.#exchange.equity(account),
      crypto_status: null,
      trading_type: approved ? 'cash' : null,
    }
  }
}
