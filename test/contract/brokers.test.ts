// What every broker adapter owes the house through its one interface: one table of named cases, run against each adapter
// and dialect. A case tells neutral facts: what is in the broker's book, how the broker misbehaves, what is asked, and what
// the interface has to answer. A column is a small broker on loopback that says these facts in its own paths, words,
// envelopes and lists. What a broker cannot do, a case learns from its features. What is special to a broker is in its own file.

import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createAries } from '../../src/brokers/aries/aries.ts'
import { judgeAnswer } from '../../src/trading/placement/match.ts'
import { createPlacement } from '../../src/trading/placement/placement.ts'
import type { Placement } from '../../src/trading/placement/placement.ts'
import { createBluum } from '../../src/brokers/bluum/bluum.ts'
import { pageSizeMax, scanCallsMax } from '../../src/brokers/broker.ts'
import { ReadEnded, UpstreamError } from '../../src/upstream/errors.ts'
import { createTally } from '../../src/upstream/readScope.ts'
import type { Broker, Page, PageQuery, PlaceAnswer, PlaceOptions, ScanQuery } from '../../src/brokers/broker.ts'
import type { ReadScope } from '../../src/upstream/readScope.ts'
import { isDecimal } from '../../src/domain/decimal.ts'
import { parseInstant } from '../../src/domain/instant.ts'
import { compareNewestFirst, stateOf } from '../../src/domain/order.ts'
import { brokerOf } from '../../src/brokers/registry.ts'
import type {
  KnownOrderStatus,
  NewOrder,
  Order,
  OrderKey,
  OrderSideSent,
  OrderTypeSent,
  TimeInForceSent,
} from '../../src/domain/order.ts'

// ---- facts ------------------------------------------------------------------------------------------------------

type Body = Record<string, unknown>

/** What an order has, by the names of the graph; `account` is what its row says. */
type FieldName =
  | 'id'
  | 'account'
  | 'symbol'
  | 'side'
  | 'type'
  | 'timeInForce'
  | 'status'
  | (typeof decimals | typeof instants | typeof texts)[number]
  | 'extendedHours'

const decimals = [
  'quantity',
  'notional',
  'limitPrice',
  'stopPrice',
  'trailPercent',
  'trailPrice',
  'filledQuantity',
  'remainingQuantity',
  'averagePrice',
  'commission',
] as const
const instants = ['submittedAt', 'filledAt', 'canceledAt'] as const
const texts = ['currency', 'clientOrderId', 'rejectReason'] as const
const nullable = [...decimals, ...instants, ...texts] as const

/** One order in the book of the broker. */
interface Fact {
  /** The broker's own name of it. */
  id: string
  /** In whose list it is: of the first account or of the second. */
  owner: 0 | 1
  symbol: string
  side: OrderSideSent
  type: OrderTypeSent
  timeInForce: TimeInForceSent
  extendedHours: boolean
  quantity: string
  limitPrice: string | null
  stopPrice: string | null
  status: KnownOrderStatus
  filledQuantity: string
  averagePrice: string | null
  createdAt: string
  clientOrderId: string | null
  rejectReason: string | null
  /** What the broker says in the place of a field; undefined leaves the field out. */
  raw: Partial<Record<FieldName, unknown>>
  /** What it says beside what an order has. */
  extra: Body
}

/** The broker's book, and how it misbehaves. */
interface Book {
  facts: Fact[]
  /** Of a list whose order nobody documents. */
  isOldestFirst: boolean
  ignoresFilters: boolean
  ignoresLimit: boolean
  /** Each row comes twice. */
  repeatsRows: boolean
  /** The most rows of an answer, whatever was asked for. */
  cap: number
  /** Whether a list that can be a bare array is one, which does not say that more follows. */
  isSilent: boolean
  /** Before each answer with a list. */
  beforeList: () => void
  /** Told in the place of what the book says. */
  reply: ((request: Seen) => Reply | null) | null
}

const createBook = (): Book => ({
  facts: [],
  isOldestFirst: false,
  ignoresFilters: false,
  ignoresLimit: false,
  repeatsRows: false,
  cap: Infinity,
  isSilent: false,
  beforeList: () => {},
  reply: null,
})

const day = 86_400_000
// In the past two days, by the clock that the adapters have: none of them has to look far.
const start = Math.floor(Date.now() / 60_000) * 60_000 - 2 * day
const timeOf = (minute: number): string => `${new Date(start + minute * 60_000).toISOString().slice(0, 19)}Z`

const toFact = (id: string, minute: number, fields: Partial<Fact> = {}): Fact => ({
  id,
  owner: 0,
  symbol: 'AAPL',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'DAY',
  extendedHours: false,
  quantity: '10',
  limitPrice: '175.00',
  stopPrice: null,
  status: 'FILLED',
  filledQuantity: '0',
  averagePrice: null,
  createdAt: timeOf(minute),
  clientOrderId: null,
  rejectReason: null,
  raw: {},
  extra: {},
  ...fields,
})

/** As many orders, a minute apart, `ord_1` the newest. */
const toFacts = (count: number, fields: Partial<Fact> = {}): Fact[] =>
  Array.from({ length: count }, (_, index) => toFact(`ord_${index + 1}`, count - index, fields))

const byRank = (a: Fact, b: Fact): number =>
  compareNewestFirst({ submittedAt: a.createdAt, id: a.id }, { submittedAt: b.createdAt, id: b.id })

const newOrder: NewOrder = {
  accountId: '',
  clientOrderId: 'client-0001',
  symbol: 'AAPL',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'DAY',
  quantity: '5',
  notional: null,
  limitPrice: '175.00',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: null,
  commission: null,
  commissionType: null,
}

// ---- the wire ---------------------------------------------------------------------------------------------------

interface Seen {
  method: string
  path: string
  query: Record<string, string>
  body: unknown
}

interface Reply {
  status: number
  headers: Record<string, string>
  text: string
  /** Sent in the place of the text. */
  bytes?: Buffer
  /** The connection breaks: before the head of the answer, or in the middle of its body. */
  cut?: 'before' | 'within'
}

// `num:1.50` becomes the number 1.50, with these digits.
const json = (body: unknown, status = 200, headers: Record<string, string> = {}): Reply =>
  raw(JSON.stringify(body).replaceAll(/"num:([^"]*)"/g, '$1'), status, headers)

const raw = (text: string, status = 200, headers: Record<string, string> = {}): Reply => ({
  status,
  headers: { 'content-type': 'application/json', ...headers },
  text,
})

const html = (status: number): Reply => raw('<h1>not the broker</h1>', status, { 'content-type': 'text/html' })
// Longer than a read would wait to be repeated.
const later = { 'retry-after': '30' }

const proxies = (status: number): Reply[] => [
  html(status),
  json({ message: 'no route' }, status),
  json({ code: status, message: 'Forbidden' }, status),
  json({ error: { code: 'access_denied' } }, status),
  json({ error: 'Forbidden', message: 'Forbidden' }, status),
  json({ status: 'error', code: 'access denied' }, status),
  json([], status),
  json(null, status),
  raw('', status),
]

type Refusal = 'invalid' | 'unauthorized' | 'forbidden' | 'missing' | 'limited' | 'broken' | 'final' | 'funds'

const reason = 'The words of the broker.'

// ---- columns ----------------------------------------------------------------------------------------------------

interface Column {
  name: string
  /** Whether it differs from the column before in its lists alone. */
  hasOwnListsOnly: boolean
  createBroker(url: string): Broker
  /** Our ids of two accounts. */
  accounts: readonly [string, string]
  /** Our id of an order, by the broker's own. */
  toId(id: string, owner?: 0 | 1): string
  /** What the broker calls what it can tell. */
  fields: Partial<Record<FieldName, string>>
  words: {
    status: Record<string, KnownOrderStatus>
    side: Record<string, OrderSideSent>
    type: Record<string, OrderTypeSent>
    timeInForce: Record<string, TimeInForceSent>
  }
  toRow(fact: Fact): Body
  /** Answers from the book; null for what the column does not know. */
  answer(request: Seen, book: Book): Reply | null
  toRequest(order: NewOrder): Body
  /** The answer to a placement, and the fields in which it repeats the order. */
  toPlaced(order: NewOrder, fields?: Partial<Fact>): Body
  echoes: readonly ('account' | 'symbol' | 'side' | 'type' | 'quantity' | 'clientOrderId')[]
  toCanceled(fact: Fact, isDone: boolean): Body
  toRefusal(refusal: Refusal): Reply
  positionsOfOthers: readonly string[]
}

const wordOf = <Ours>(table: Record<string, Ours>, ours: Ours): string =>
  Object.entries(table).find(([, value]) => value === ours)?.[0] ?? 'no word'

const rest = ({ quantity, filledQuantity }: Fact): string => String(Number(quantity) - Number(filledQuantity))
const isFinal = ({ status }: Fact): boolean => stateOf(status) === 'CLOSED'

function toRowOf(column: Pick<Column, 'fields' | 'words' | 'accounts'>, fact: Fact, more: Body, none: unknown): Body {
  const { fields, words } = column
  const account = column.accounts[fact.owner]
  const values: Partial<Record<FieldName, unknown>> = {
    id: fact.id,
    account: account.slice(account.indexOf(':') + 1),
    symbol: fact.symbol,
    side: wordOf(words.side, fact.side),
    type: wordOf(words.type, fact.type),
    timeInForce: wordOf(words.timeInForce, fact.timeInForce),
    status: wordOf(words.status, fact.status),
    quantity: fact.quantity,
    limitPrice: fact.limitPrice ?? none,
    stopPrice: fact.stopPrice ?? none,
    filledQuantity: fact.filledQuantity,
    averagePrice: fact.averagePrice ?? '0',
    currency: 'USD',
    clientOrderId: fact.clientOrderId ?? none,
    rejectReason: fact.rejectReason ?? none,
    submittedAt: fact.createdAt,
  }
  const row: Body = {}
  for (const [field, value] of Object.entries(values)) {
    const name = fields[field as FieldName]
    if (name !== undefined) row[name] = value
  }
  Object.assign(row, more, fact.extra)
  for (const [field, value] of Object.entries(fact.raw)) {
    const name = fields[field as FieldName]
    if (name !== undefined) row[name] = value
  }
  return row
}

/** The rows that a list behind an offset answers with, and whether more follow. */
function cut<T>(all: readonly T[], offset: number, limit: number, book: Book): { rows: T[]; next: number | null } {
  const count = book.ignoresLimit ? all.length : Math.min(limit, book.cap)
  const rows = all.slice(offset, offset + count)
  const next = offset + rows.length < all.length ? offset + rows.length : null
  return { rows: book.repeatsRows ? rows.flatMap((row) => [row, row]) : rows, next }
}

// Bluum, as its pages stood in 2026-03 and 2026-07: "Order", "List orders", "Place an order", "Cancel an order", "Error".
interface BluumWords {
  name: string
  api: 'accounts' | 'investors'
  accounts: readonly [string, string]
  fields: Column['fields']
  statuses: Record<string, KnownOrderStatus>
}

function createBluumColumn({ name, api, accounts, fields, statuses }: BluumWords): Column {
  const isOlder = api === 'accounts'
  const listPath = isOlder ? '/v1/trading/accounts/' : '/v1/investors/'
  const words = {
    status: statuses,
    side: { buy: 'BUY', sell: 'SELL' },
    type: {
      market: 'MARKET',
      limit: 'LIMIT',
      stop: 'STOP',
      stop_limit: 'STOP_LIMIT',
      trailing_stop: 'TRAILING_STOP',
    },
    timeInForce: { day: 'DAY', gtc: 'GTC', opg: 'OPG', cls: 'CLS', ioc: 'IOC', fok: 'FOK' },
  } as const
  const column: Column = {
    name,
    hasOwnListsOnly: false,
    createBroker: (url) =>
      createBluum({
        url: `${url}/v1`,
        api,
        apiKey: 'key',
        apiSecret: 'secret',
        requestsPerSecond: 100_000,
        breaker: false,
      }),
    accounts,
    toId: (id) => id,
    fields,
    words,
    toRow: (fact) =>
      toRowOf(
        column,
        fact,
        {
          extended_hours: fact.extendedHours,
          [fields.remainingQuantity ?? '']: rest(fact),
          ...(isOlder ? {} : { object: 'order' }),
          // A row that does not say when it was submitted does not say it by its creation either.
          ...(isOlder || 'submittedAt' in fact.raw ? {} : { created: Math.floor(Date.parse(fact.createdAt) / 1_000) }),
        },
        null,
      ),
    answer({ method, path, query }, book) {
      if (method === 'GET' && path === (isOlder ? '/v1/accounts' : '/v1/investors')) {
        return toList(
          accounts.map((id) => ({ id })),
          false,
        )
      }
      const single = isOlder ? /^\/v1\/trading\/orders\/([^/]+)$/ : /^\/v1\/investors\/[^/]+\/orders\/([^/]+)$/
      const id = single.exec(path)?.[1]
      if (method === 'GET' && id !== undefined) {
        const fact = book.facts.find((each) => each.id === decodeURIComponent(id))
        if (fact === undefined || (!isOlder && !path.includes(accounts[fact.owner]))) return column.toRefusal('missing')
        return json(column.toRow(fact))
      }
      const owner = accounts.findIndex((account) => path === `${listPath}${account}/orders`)
      if (method !== 'GET') return null
      if (owner === -1) return column.toRefusal('missing')
      book.beforeList()
      const sorted = book.facts.filter((fact) => fact.owner === owner).toSorted(byRank)
      if (book.isOldestFirst) sorted.reverse()
      const group = ['ACCEPTED', 'PARTIALLY_FILLED']
      const kept = sorted.filter(({ status, symbol, side }) => {
        if (book.ignoresFilters) return true
        const isAsked = !isOlder && query['status'] === 'open' ? group.includes(status) : undefined
        return (
          (query['status'] === undefined || (isAsked ?? statuses[query['status']] === status)) &&
          (query['symbol'] === undefined || query['symbol'] === symbol) &&
          (query['side'] === undefined || query['side'] === wordOf<string>(words.side, side))
        )
      })
      const { rows, next } = cut(kept, Number(query['offset']), Number(query['limit']), book)
      return toList(
        rows.map((fact) => column.toRow(fact)),
        next !== null,
        book,
      )
    },
    toRequest: (order) => ({
      symbol: order.symbol,
      ...(order.quantity === null ? {} : { [fields.quantity ?? '']: order.quantity }),
      side: wordOf<string>(words.side, order.side),
      type: wordOf<string>(words.type, order.type),
      time_in_force: wordOf<string>(words.timeInForce, order.timeInForce),
      ...(order.limitPrice === null ? {} : { limit_price: order.limitPrice }),
      ...(order.stopPrice === null ? {} : { stop_price: order.stopPrice }),
      ...(order.extendedHours === null ? {} : { extended_hours: order.extendedHours }),
      client_order_id: order.clientOrderId,
    }),
    toPlaced: (order, given = {}) => column.toRow(toPlacedFact(order, given)),
    echoes: ['account', 'symbol', 'side', 'type', 'quantity', 'clientOrderId'],
    toCanceled: (fact, isDone) => column.toRow(isDone ? { ...fact, status: 'CANCELED' } : fact),
    toRefusal(refusal) {
      const [status, code] = bluumRefusals[refusal]
      const known = { code, message: reason }
      const type = 'invalid_request_error'
      return json(isOlder ? known : { error: { type, ...known } }, status, refusal === 'limited' ? later : {})
    },
    positionsOfOthers: [`${timeOf(1)} aries:A:B`, '1', '-1', 'ord_1', ' 1 x'],
  }
  // The older dialect answers with a bare array on some pages, and as the newer one on others: where it cuts its pages
  // short and is not to be silent about it, it has to.
  const toList = (rows: readonly unknown[], hasMore: boolean, { cap, isSilent } = createBook()): Reply =>
    json(isSilent || (isOlder && cap === Infinity) ? rows : { object: 'list', url: '/', has_more: hasMore, data: rows })
  return column
}

const bluumRefusals: Record<Refusal, [number, string]> = {
  invalid: [400, 'BLUM-400-001'],
  unauthorized: [401, 'BLUM-401-003'],
  forbidden: [403, 'BLUM-403-001'],
  missing: [404, 'BLUM-404-001'],
  limited: [429, 'BLUM-429-001'],
  broken: [500, 'BLUM-500-001'],
  final: [409, 'BLUM-409-003'],
  funds: [422, 'BLUM-422-001'],
}

const bluumFields: Column['fields'] = {
  id: 'id',
  symbol: 'symbol',
  side: 'side',
  type: 'type',
  timeInForce: 'time_in_force',
  status: 'status',
  notional: 'notional',
  limitPrice: 'limit_price',
  stopPrice: 'stop_price',
  trailPercent: 'trail_percent',
  trailPrice: 'trail_price',
  averagePrice: 'average_price',
  commission: 'commission',
  currency: 'currency',
  clientOrderId: 'client_order_id',
  submittedAt: 'submitted_at',
  filledAt: 'filled_at',
  extendedHours: 'extended_hours',
}

// Aries, as its pages stood in 2026-06: "Active orders", "Order history", "Place an order", "Request order cancellation".
interface AriesWords {
  name: string
  accountField: 'accountId' | 'tradingAccountId'
  isRefreshed: boolean
  /** Whether the history has what the active list has too. */
  historyHasAll: boolean
}

function createAriesColumn({ name, accountField, isRefreshed, historyHasAll }: AriesWords): Column {
  const names = ['ACC-4471', 'ACC-4472'] as const
  const fields: Column['fields'] = {
    id: 'clOrdId',
    account: 'accountId',
    symbol: 'symbol',
    side: 'side',
    type: 'type',
    timeInForce: 'timeInForce',
    status: 'ordStatus',
    quantity: 'qty',
    limitPrice: 'price',
    stopPrice: 'stopPrice',
    filledQuantity: 'cumQty',
    remainingQuantity: 'leavesQty',
    averagePrice: 'avgPrice',
    currency: 'currency',
    clientOrderId: 'clientId',
    rejectReason: 'text',
    submittedAt: 'createdAt',
  }
  const words = {
    status: {
      PENDING_NEW: 'PENDING',
      NEW: 'ACCEPTED',
      PARTIALLY_FILLED: 'PARTIALLY_FILLED',
      PENDING_CANCEL: 'PENDING_CANCEL',
      PENDING_REPLACE: 'PENDING_REPLACE',
      FILLED: 'FILLED',
      CANCELED: 'CANCELED',
      REJECTED: 'REJECTED',
      EXPIRED: 'EXPIRED',
      REPLACED: 'REPLACED',
    },
    side: { BUY: 'BUY', SELL: 'SELL', SELL_SHORT: 'SELL_SHORT', BUY_TO_COVER: 'BUY_TO_COVER' },
    type: { MARKET: 'MARKET', LIMIT: 'LIMIT', STOP: 'STOP', STOP_LIMIT: 'STOP_LIMIT' },
    timeInForce: { DAY: 'DAY', GTC: 'GTC', IOC: 'IOC', FOK: 'FOK', AT_THE_OPENING: 'OPG', AT_THE_CLOSE: 'CLS' },
  } as const
  // What is open, and some of what has ended: it may have done so today.
  const isActive = (fact: Fact): boolean => !isFinal(fact) || Number(/\d+$/.exec(fact.id)?.[0] ?? 0) % 3 === 0
  const column: Column = {
    name,
    hasOwnListsOnly: !historyHasAll,
    createBroker: (url) =>
      createAries({
        url,
        credential: isRefreshed
          ? { clientId: 'client', clientSecret: 'secret', refreshToken: 'refresh' }
          : { accessToken: 'access' },
        accountField,
        tradingId: 'apex_account_id',
        requestsPerSecond: 100_000,
        breaker: false,
      }),
    accounts: [`aries:${names[0]}`, `aries:${names[1]}`],
    toId: (id, owner = 0) => `aries:${names[owner]}:${encodeURIComponent(id)}`,
    fields,
    words,
    toRow: (fact) =>
      toRowOf(
        column,
        fact,
        {
          ordId: `broker-${fact.id}`,
          leavesQty: isFinal(fact) ? '0' : rest(fact),
          ...(fact.extendedHours ? { timeInForce: 'EXTENDED_HOURS' } : {}),
          ordRejReason: '',
          securityType: 'CS',
          category: 'SINGLE_LEG',
          legs: [],
          updatedAt: fact.createdAt,
        },
        '',
      ),
    answer({ method, path, query }, book) {
      if (path === '/v1/oauth2/token') return json({ access_token: 'access', token_type: 'Bearer', expires_in: 3_600 })
      if (method !== 'GET') return null
      if (path === '/v1/users/me/accounts') {
        const created_at = new Date(start - 30 * day).toISOString()
        return json({
          accounts: names.map((id, index) => ({ id: index, fdid: `F-${id}`, apex_account_id: id, created_at })),
        })
      }
      const [, account = '', verb] = /^\/v2\/accounts\/([^/]+)\/orders(\/history)?$/.exec(path) ?? []
      const owner = names.findIndex((each) => each === account)
      if (owner === -1) return column.toRefusal('missing')
      book.beforeList()
      let sorted = book.facts.filter((fact) => fact.owner === owner).toSorted(byRank)
      if (verb === undefined) {
        sorted = sorted.filter(isActive)
        if (book.isOldestFirst) sorted.reverse()
      } else {
        const { from = '', to = '' } = query
        const isWindow = Date.parse(to) - Date.parse(from) <= 90 * day && [from, to].every((at) => at.endsWith('Z'))
        if (!isWindow) return column.toRefusal('invalid')
        const isIn = ({ createdAt }: Fact): boolean =>
          Date.parse(from) <= Date.parse(createdAt) && Date.parse(createdAt) <= Date.parse(to)
        sorted = sorted.filter((fact) => isIn(fact) && (historyHasAll || !isActive(fact)))
      }
      const { cursor = '0', limit = '50' } = query
      if (Number(limit) < 1 || Number(limit) > 500) return column.toRefusal('invalid')
      const { rows, next } = cut(sorted, Number(cursor), Number(limit), book)
      return json({ orders: rows.map((fact) => column.toRow(fact)), nextCursor: next ?? 0 })
    },
    toRequest: (order) => ({
      [accountField]: order.accountId.slice('aries:'.length),
      symbol: order.symbol,
      side: order.side,
      type: order.type,
      qty: order.quantity,
      ...(order.limitPrice === null ? {} : { price: order.limitPrice }),
      ...(order.stopPrice === null ? {} : { stopPrice: order.stopPrice }),
      timeInForce:
        order.extendedHours === true ? 'EXTENDED_HOURS' : wordOf<string>(words.timeInForce, order.timeInForce),
      clientId: order.clientOrderId,
    }),
    toPlaced(order, given = {}) {
      const fact = toPlacedFact(order, given)
      const { clOrdId, ordStatus, symbol, side, qty, cumQty, leavesQty, avgPrice, createdAt, text } = column.toRow(fact)
      const told: Body = {
        success: fact.status !== 'REJECTED',
        clOrdId,
        status: ordStatus,
        symbol,
        side,
        qty,
        cumQty,
        leavesQty,
        avgPrice,
        text,
        ordRejReason: fact.status === 'REJECTED' ? 'NO_REASON' : '',
        transactTime: createdAt,
      }
      for (const [field, value] of Object.entries(fact.raw)) {
        told[field === 'status' ? 'status' : (fields[field as FieldName] ?? '')] = value
      }
      return told
    },
    // Neither account, type nor client id by its example; where they are there they have to be right.
    echoes: ['account', 'symbol', 'side', 'type', 'quantity', 'clientOrderId'],
    toCanceled: (fact, isDone) => ({
      success: true,
      clOrdId: 'cancel-1',
      origClOrdId: fact.raw.id ?? fact.id,
      status: isDone ? 'CANCELED' : 'PENDING_CANCEL',
      text: 'Cancel processed',
    }),
    toRefusal(refusal) {
      if (refusal === 'final') return json({ success: false, origClOrdId: 'ord_1', status: 'FILLED', text: reason })
      if (refusal === 'funds') {
        return json({
          success: false,
          status: 'REJECTED',
          text: reason,
          ordRejReason: 'INSUFFICIENT_BUYING_POWER',
        })
      }
      const [status, error] = ariesRefusals[refusal]
      return json({ error, message: reason }, status, refusal === 'limited' ? later : {})
    },
    positionsOfOthers: [`1 ${timeOf(1)} abcdefgh`, '1', 'x y', '', 'ord_1'],
  }
  return column
}

const ariesRefusals: Record<Exclude<Refusal, 'final' | 'funds'>, [number, string]> = {
  invalid: [400, 'bad_request'],
  unauthorized: [401, 'unauthorized'],
  forbidden: [403, 'forbidden'],
  missing: [404, 'not_found'],
  limited: [429, 'rate_limited'],
  broken: [500, 'internal_error'],
}

function toPlacedFact(order: NewOrder, given: Partial<Fact>): Fact {
  const { symbol, side, type, timeInForce, limitPrice, stopPrice, clientOrderId } = order
  const { quantity, extendedHours } = order
  return toFact('ord_1', 1, {
    symbol,
    side,
    type,
    timeInForce,
    limitPrice,
    stopPrice,
    clientOrderId,
    quantity: quantity ?? '0',
    extendedHours: extendedHours ?? false,
    status: 'ACCEPTED',
    ...given,
  })
}

const columns: Column[] = [
  createBluumColumn({
    name: 'Bluum accounts',
    api: 'accounts',
    accounts: ['3d0b0e65-35d3-4dcd-8df7-10286ebb4b4b', 'c9f0f895-fb98-4b91-99f5-1fd0297e236d'],
    fields: {
      ...bluumFields,
      account: 'account_id',
      quantity: 'qty',
      filledQuantity: 'filled_qty',
      remainingQuantity: 'remaining_qty',
      canceledAt: 'canceled_at',
      rejectReason: 'reject_reason',
    },
    statuses: {
      accepted: 'ACCEPTED',
      partially_filled: 'PARTIALLY_FILLED',
      filled: 'FILLED',
      canceled: 'CANCELED',
      rejected: 'REJECTED',
    },
  }),
  createBluumColumn({
    name: 'Bluum investors',
    api: 'investors',
    accounts: ['inv_01k3v9c7m2x5r8t4w6z1b0d3fh', 'inv_01k3v9e1p6s0y2n7q4g8j5a9kc'],
    fields: {
      ...bluumFields,
      account: 'investor_id',
      quantity: 'quantity',
      filledQuantity: 'filled_quantity',
      remainingQuantity: 'remaining_quantity',
      canceledAt: 'cancelled_at',
      rejectReason: 'failure_reason',
    },
    statuses: {
      open: 'ACCEPTED',
      partial: 'PARTIALLY_FILLED',
      filled: 'FILLED',
      cancelled: 'CANCELED',
      failed: 'REJECTED',
    },
  }),
  createAriesColumn({
    name: 'Aries, its history with all orders',
    accountField: 'accountId',
    isRefreshed: true,
    historyHasAll: true,
  }),
  createAriesColumn({
    name: 'Aries, its history with what the active list lacks',
    accountField: 'tradingAccountId',
    isRefreshed: false,
    historyHasAll: false,
  }),
]

// ---- the bench --------------------------------------------------------------------------------------------------

const requests: Seen[] = []
let current: { column: Column; book: Book } | null = null
let server: Server
let url = ''

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = ''
  for await (const chunk of request) text += String(chunk)
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://broker')
  const seen: Seen = {
    method: request.method ?? '',
    path: pathname,
    query: Object.fromEntries(searchParams),
    body: text === '' ? undefined : (JSON.parse(text) as unknown),
  }
  const isToken = pathname.endsWith('/token')
  if (!isToken) requests.push(seen)
  const told = isToken ? null : current?.book.reply?.(seen)
  const reply = told ?? current?.column.answer(seen, current.book) ?? html(500)
  if (reply.cut === 'before') {
    response.destroy()
    return
  }
  const sent = reply.bytes ?? Buffer.from(reply.text)
  const length = String(sent.length + (reply.cut === 'within' ? 1 : 0))
  response.writeHead(
    reply.status,
    reply.status === 204 ? reply.headers : { ...reply.headers, 'content-length': length },
  )
  if (reply.cut === 'within') response.write(sent, () => response.destroy())
  else response.end(sent)
}

beforeAll(async () => {
  server = createServer((request, response) => void serve(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  url = `http://127.0.0.1:${address.port}`
})

afterAll(() => {
  server.closeAllConnections()
  server.close()
})

const inAMinute = (): number => Date.now() + 60_000

const createScope = (signal = new AbortController().signal): ReadScope => ({
  signal,
  deadline: inAMinute(),
  isForCancel: false,
  caller: null,
  tally: createTally(),
})

const toOptions = (options: Partial<PlaceOptions> = {}): PlaceOptions => ({
  idempotencyKey: 'op-1',
  sendBy: inAMinute(),
  beforeSend: async () => {},
  ...options,
})

/** A placement of `order` that is being sent. */
function toPlacement(order: NewOrder): Placement {
  const given = { opId: 'op', broker: brokerOf(order.accountId), owner: 'P1', sendBy: Date.now(), at: Date.now() }
  return createPlacement(order, given)
}

function requireError(value: unknown): UpstreamError {
  if (value instanceof UpstreamError) return value
  throw value instanceof Error ? value : new Error(`no UpstreamError: ${JSON.stringify(value)}`)
}

const errorOf = (work: Promise<unknown>): Promise<UpstreamError> =>
  work.then(requireError, (error: unknown) => requireError(error))

const idsOf = (page: Pick<Page, 'rows'>): (string | null)[] =>
  page.rows.map(({ order }) => (order instanceof UpstreamError ? null : order.id))

interface Bench {
  column: Column
  broker: Broker
  book: Book
  account: string
  order: NewOrder
  keyOf(id: string, owner?: 0 | 1 | null): OrderKey
  toQuery(query?: Partial<PageQuery>): PageQuery
  /** The order of this one fact, read by its id. */
  readOne(fields?: Partial<Fact>): Promise<Order>
  readPage(query?: Partial<PageQuery>): Promise<Page>
  /** All rows behind a query, page by page; each page has to bring the walk on. */
  walk(query?: Partial<PageQuery>, betweenPages?: () => void): Promise<(string | null)[]>
  scan(query?: Partial<ScanQuery>): Promise<{ ids: string[]; isComplete: boolean }>
  /** Of an adapter of its own, because a 429 holds back what comes after it. */
  apart<T>(run: (broker: Broker) => Promise<T>): Promise<T>
  say(...replies: Reply[]): void
  place(order?: NewOrder, options?: Partial<PlaceOptions>): Promise<PlaceAnswer>
  cancel(fact?: Fact): Promise<Order | null>
  /** Our ids of these facts, newest first. */
  toIds(facts: readonly Fact[]): string[]
}

function createBench(column: Column, broker: Broker, book: Book): Bench {
  const account = column.accounts[0]
  const order: NewOrder = { ...newOrder, accountId: account }
  const bench: Bench = {
    column,
    broker,
    book,
    account,
    order,
    keyOf: (id, owner = 0) => ({
      broker: broker.id,
      id: column.toId(id, owner ?? 0),
      accountId: owner === null ? null : column.accounts[owner],
      mustBeWhole: false,
    }),
    toQuery: (query = {}) => ({
      broker: broker.id,
      accountId: account,
      statuses: null,
      symbol: null,
      side: null,
      submittedAfter: null,
      submittedBefore: null,
      olderThan: null,
      after: null,
      first: 10,
      wantsMore: true,
      ...query,
    }),
    async readOne(fields = {}) {
      book.facts = [toFact('ord_1', 1, fields)]
      const [read] = await broker.orders([bench.keyOf('ord_1')], createScope())
      if (!read || read instanceof UpstreamError) throw read ?? new Error('no order')
      return read
    },
    async readPage(query) {
      const [page] = await broker.pages([bench.toQuery(query)], createScope())
      if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
      return page
    },
    async walk(query, betweenPages = () => {}) {
      const ids: (string | null)[] = []
      let after = query?.after ?? null
      for (let round = 1; round <= 200; round++) {
        const page = await bench.readPage({ ...query, after })
        ids.push(...idsOf(page))
        if (page.isComplete && page.hasMore === false) return ids
        expect(page.position).not.toBe(after)
        after = page.position
        betweenPages()
      }
      throw new Error('a walk without an end')
    },
    async scan(query = {}) {
      const scan = await broker.scan(
        { accountId: account, symbol: 'AAPL', side: 'BUY', since: timeOf(0), purpose: 'lookup', ...query },
        createScope(),
      )
      return { ids: scan.orders.map(({ id }) => id), isComplete: scan.isComplete }
    },
    async apart(run) {
      const own = column.createBroker(url)
      try {
        return await run(own)
      } finally {
        await own.close(1_000)
      }
    },
    say(...replies) {
      const left = [...replies]
      book.reply = () => (left.length > 1 ? left.shift() : left[0]) ?? null
    },
    place: (placed = order, options = {}) => broker.place(placed, toOptions(options)),
    async cancel(fact = toFact('ord_1', 1, { status: 'ACCEPTED' })) {
      const { reply } = book
      book.reply = null
      book.facts = [fact]
      const [read] = await broker.orders([bench.keyOf(fact.id)], createScope())
      if (!read || read instanceof UpstreamError) throw read ?? new Error('no order')
      requests.length = 0
      book.reply = reply
      return await broker.cancel(read, inAMinute())
    },
    toIds: (facts) => facts.toSorted(byRank).map(({ id, owner }) => column.toId(id, owner)),
  }
  return bench
}

// ---- the table --------------------------------------------------------------------------------------------------

type Case = (bench: Bench) => Promise<void>

const notIds = ['', '.', '..', '../accounts', 'ord/1', 'ord?1', 'ord 1', 'ord_1\n', '%2e%2e', 'é', 'x'.repeat(129)]

const toExpected = ({ broker, column }: Bench, fact: Fact): Partial<Order> => ({
  id: column.toId(fact.id, fact.owner),
  broker: broker.id,
  account: { id: column.accounts[fact.owner], broker: broker.id },
  asset: { symbol: fact.symbol },
  symbol: fact.symbol,
  legs: [],
  currency: 'USD',
  side: fact.side,
  type: fact.type,
  timeInForce: fact.timeInForce,
  quantity: fact.quantity,
  notional: null,
  limitPrice: fact.limitPrice,
  stopPrice: fact.stopPrice,
  trailPercent: null,
  trailPrice: null,
  extendedHours: fact.extendedHours,
  status: fact.status,
  brokerStatus: wordOf(column.words.status, fact.status),
  state: stateOf(fact.status),
  isCancelable: !isFinal(fact),
  filledQuantity: fact.filledQuantity,
  remainingQuantity: rest(fact),
  averagePrice: fact.averagePrice,
  commission: null,
  commissionType: null,
  clientOrderId: fact.clientOrderId,
  submittedAt: fact.createdAt,
  filledAt: null,
  canceledAt: null,
  rejectReason: fact.rejectReason,
  isPartial: false,
})

const reads: Record<string, Case> = {
  'an order means the same, field by field, in each status, side, type and time in force of its features': async (
    bench,
  ) => {
    const { broker, book } = bench
    const { statuses, sides, types, timesInForce } = broker.features
    const count = Math.max(statuses.length, sides.length, types.length, timesInForce.length)
    const at = <T>(values: readonly T[], index: number): T => values[index % values.length] as T
    book.facts = Array.from({ length: count }, (_, index) => {
      const type = at(types, index)
      const status = at(statuses, index)
      return toFact(`ord_${index + 1}`, index, {
        status,
        side: at(sides, index),
        type,
        timeInForce: at(timesInForce, index),
        extendedHours: at(timesInForce, index) === 'DAY',
        quantity: '30',
        limitPrice: type.endsWith('LIMIT') ? '12.50' : null,
        stopPrice: type.startsWith('STOP') ? '0.010' : null,
        // What is working and has filled in part is no longer only accepted.
        filledQuantity: status === 'ACCEPTED' || index % 2 === 0 ? '0' : '18',
        averagePrice: status === 'ACCEPTED' || index % 2 === 0 ? null : '12.49',
        clientOrderId: index % 3 === 0 ? `client-000${index}` : null,
        rejectReason: status === 'REJECTED' ? 'Not enough cash.' : null,
      })
    })
    const expected = book.facts.map((fact) => toExpected(bench, fact))
    for (const [index, fact] of book.facts.entries()) {
      expect(await broker.orders([bench.keyOf(fact.id)], createScope())).toMatchObject([expected[index]])
    }
    const { rows } = await bench.readPage({ first: 100 })
    expect(rows.map(({ order }) => order)).toMatchObject(expected.toReversed())
  },

  'an id that nobody has is none, where it was looked for': async ({ broker, book, keyOf }) => {
    book.facts = toFacts(5)
    expect(await broker.orders([keyOf('ord_9')], createScope())).toEqual([null])
    expect(await broker.orders([keyOf('ord_9', 1)], createScope())).toEqual([null])
    expect(requests.length).toBeGreaterThan(0)
  },

  'an order is never told as one of an account that it is not of': async ({ broker, book, column, keyOf }) => {
    book.facts = [toFact('ord_1', 1)]
    const right = keyOf('ord_1')
    const wrong = { ...right, accountId: column.accounts[1] }
    const own = { account: { id: column.accounts[0] } }
    // Where an order is read by its id alone, the answer tells whose it is; else there is none in that account.
    const none = broker.features.readsOne === 'byId' ? own : null
    expect(await broker.orders([wrong], createScope())).toMatchObject([none])
    expect(await broker.orders([wrong, right, wrong], createScope())).toMatchObject([none, own, none])
  },

  'answers stand as the questions do: twice, missing, and of two accounts': async ({ broker, book, column, keyOf }) => {
    book.facts = [...toFacts(9), toFact('ord_20', 20, { owner: 1 }), toFact('ord_21', 21, { owner: 1 })]
    const asked = [
      ['ord_3', 0],
      ['ord_20', 1],
      ['ord_none', 0],
      ['ord_3', 0],
      ['ord_1', 0],
      ['ord_21', 1],
      ['ord_9', 0],
      ['ord_none', 0],
    ] as const
    const orders = await broker.orders(
      asked.map(([id, owner]) => keyOf(id, owner)),
      createScope(),
    )
    expect(orders.map((order) => (order instanceof UpstreamError ? order : (order?.id ?? null)))).toEqual(
      asked.map(([id, owner]) => (id === 'ord_none' ? null : column.toId(id, owner))),
    )
    expect(await broker.orders([], createScope())).toEqual([])
  },

  'a hundred orders of one account are few calls': async ({ broker, book, column, keyOf }) => {
    book.facts = toFacts(100)
    const scope = createScope()
    const orders = await broker.orders(
      book.facts.map(({ id }) => keyOf(id)),
      scope,
    )
    expect(orders.map((order) => !(order instanceof UpstreamError) && order?.id)).toEqual(
      book.facts.map(({ id }) => column.toId(id)),
    )
    expect(requests.length).toBeLessThanOrEqual(3)
    expect(scope.tally.calls).toBe(requests.length)
    expect(scope.tally.batched).toBeGreaterThanOrEqual(97)
  },

  'reads an empty list however it is spelled, and never an order that way': async ({
    book,
    broker,
    say,
    scan,
    ...bench
  }) => {
    const replies: [Reply, boolean][] = [
      [json([]), true],
      [json(null), true],
      [json({ orders: null, data: null, accounts: null, nextCursor: null }), true],
      [json({ data: null }), true],
      [json({ object: 'list', has_more: false, data: [], orders: [], accounts: [], nextCursor: '' }), true],
      [json({ data: [], orders: [], accounts: [] }), true],
      [raw('', 204), true],
      [raw('', 204, { 'content-type': 'text/html' }), true],
      // Nothing at all proves nothing to a search.
      [raw(''), false],
      [raw(' \n'), false],
      [json({ object: 'list', has_more: false, nextCursor: '0' }), false],
    ]
    for (const [reply, isProof] of replies) {
      const name = `${reply.status} ${reply.text}`
      // Aries' accounts say since when there can be orders.
      book.reply = ({ path }) => (/\/(accounts|investors)$/.test(path) ? null : reply)
      const empty = { rows: [], hasMore: false, isComplete: true }
      expect(await broker.pages([bench.toQuery()], createScope()), name).toMatchObject([empty])
      expect(await scan(), name).toEqual({ ids: [], isComplete: isProof })
      const [order] = await broker.orders([bench.keyOf('ord_1')], createScope())
      const isAbsent = broker.features.readsOne === 'inLists' && isProof && reply.status === 200
      if (isAbsent) expect(order, name).toBeNull()
      else expect(order, name).toMatchObject({ kind: 'unreadable' })
      say(reply)
      expect(await broker.accounts(createScope()), name).toEqual([])
    }
  },

  'reads JSON in other wrappings and encodings, and refuses HTML and what it cannot decode': async (bench) => {
    const { book, column, readPage, toIds, account } = bench
    book.facts = toFacts(3)
    const isList = ({ path }: Seen): boolean => path.includes(account.replace('aries:', ''))
    const send = (change: (reply: Reply) => Reply): void => {
      book.reply = (seen) => {
        const told = isList(seen) ? column.answer(seen, book) : null
        return told && change(told)
      }
    }
    const typed =
      (type: string | null) =>
      (reply: Reply): Reply => {
        const { 'content-type': _, ...headers } = reply.headers
        return { ...reply, headers: type === null ? headers : { ...headers, 'content-type': type } }
      }
    const types = [
      'text/plain',
      'text/json; charset=utf-8',
      'application/problem+json',
      'application/vnd.api+json',
      null,
    ]
    for (const type of types) {
      send(typed(type))
      expect(idsOf(await readPage()), String(type)).toEqual(toIds(book.facts))
    }
    const encoded =
      (name: string, encode: (text: string) => Buffer) =>
      (reply: Reply): Reply => ({
        ...reply,
        headers: { ...reply.headers, 'content-encoding': name },
        bytes: encode(reply.text),
      })
    for (const [name, encode] of [
      ['gzip', gzipSync],
      ['X-GZip', gzipSync],
      ['deflate', deflateSync],
      ['deflate', deflateRawSync],
    ] as const) {
      send(encoded(name, encode))
      expect(idsOf(await readPage()), name).toEqual(toIds(book.facts))
    }
    const bomb = gzipSync(`[${' '.repeat(8_000_000)}]`)
    for (const [change, reason, detail] of [
      [typed('text/html'), 'contentType', 'text/html'],
      [encoded('br', Buffer.from), 'encoding', 'br'],
      [encoded('gzip', Buffer.from), 'encoding', 'gzip'],
      [encoded('gzip', () => bomb), 'tooLarge', 'gzip'],
      [(reply: Reply): Reply => ({ ...reply, text: '{"a": 1]' }), 'notJson', 'byte 7'],
    ] as const) {
      send(change)
      const error = await errorOf(readPage())
      expect(error, detail).toMatchObject({ kind: 'unreadable', refusal: { reason } })
      expect(error.refusal?.detail).toContain(detail)
    }
  },

  'a value that is no JSON costs its field, and neither its order nor its page': async (bench) => {
    const { book, column, readPage, readOne, toIds } = bench
    const words = ['NaN', 'Infinity', '-Infinity', 'undefined', '.5', '+1', '01', '1.', 'None', 'True', '', '"\\x"']
    const whole = await readOne({ createdAt: timeOf(5), status: 'ACCEPTED' })
    for (const word of words) {
      // `num:` is taken off when the text is made.
      const raws = { quantity: `num:${word.replaceAll('"', '@')}` }
      book.reply = (seen) => {
        const reply = column.answer(seen, book)
        return reply && { ...reply, text: reply.text.replaceAll('@', '"') }
      }
      const order = await readOne({ createdAt: timeOf(5), status: 'ACCEPTED', raw: raws })
      expect(order.quantity, word).toBeInstanceOf(UpstreamError)
      expect(order, word).toEqual({ ...whole, quantity: order.quantity })
      book.facts = toFacts(5).map((fact, index) => (index === 2 ? { ...fact, raw: raws } : fact))
      const page = await readPage()
      expect(idsOf(page), word).toEqual(toIds(book.facts))
      expect(page.isComplete).toBe(true)
    }
    // A control character costs nothing.
    book.reply = (seen) => {
      const reply = column.answer(seen, book)
      return reply && { ...reply, text: reply.text.replaceAll('USD', 'U\tSD') }
    }
    expect(await readOne({ createdAt: timeOf(5) })).toMatchObject({ currency: 'U SD' })
  },

  'what is no answer is never an empty one: orders, pages and accounts (C17, C20)': async ({
    broker,
    say,
    ...bench
  }) => {
    const replies = [
      raw('{'),
      raw('[NaN'),
      html(200),
      json('[]'),
      json({}),
      json({ orders: {}, data: {}, accounts: {} }),
    ]
    for (const reply of replies) {
      say(reply)
      const [order] = await broker.orders([bench.keyOf('ord_1')], createScope())
      expect(order, reply.text).toMatchObject({ kind: 'unreadable' })
      expect(await broker.pages([bench.toQuery()], createScope())).toMatchObject([{ kind: 'unreadable' }])
      await expect(broker.accounts(createScope())).rejects.toMatchObject({ kind: 'unreadable' })
    }
  },

  'fields that are absent, null or empty have no value': async ({ readOne }) => {
    for (const value of [undefined, null, '']) {
      const order = await readOne({ raw: Object.fromEntries(nullable.map((field) => [field, value])) })
      for (const field of nullable) expect(order, `${field} of ${value}`).toHaveProperty(field, null)
    }
  },

  'a nullable field of the wrong type is an Error in its place, or null, and costs nothing else (C08)': async (
    bench,
  ) => {
    const whole = await bench.readOne({ status: 'ACCEPTED', averagePrice: '1' })
    for (const field of nullable) {
      if (bench.column.fields[field] === undefined || field === 'rejectReason') continue
      const order = await bench.readOne({ status: 'ACCEPTED', averagePrice: '1', raw: { [field]: { strange: true } } })
      expect(order[field], field).toBeInstanceOf(UpstreamError)
      expect({ ...order, [field]: null }).toEqual({ ...whole, [field]: null })
    }
  },

  'text that is no decimal and no instant with a zone is an Error in its place (H04)': async ({ readOne }) => {
    for (const text of ['ten', '1,000', '+1', '１', '0x10', 'NaN', ' 1', '1e41', '9'.repeat(101)]) {
      expect((await readOne({ raw: { quantity: text } })).quantity, text).toBeInstanceOf(UpstreamError)
    }
    for (const text of ['2025-01-15', '2025-01-15T14:30:00', '2025-02-30T00:00:00Z', 'soon']) {
      expect((await readOne({ raw: { submittedAt: text } })).submittedAt, text).toBeInstanceOf(UpstreamError)
    }
  },

  'a field that an order cannot be without, absent or of the wrong type, fails the order alone (C05, C08)': async ({
    book,
    readPage,
    toIds,
  }) => {
    for (const field of ['id', 'symbol', 'status'] as const) {
      for (const value of field === 'status' ? [undefined, null] : [undefined, null, {}, [], true, '']) {
        const facts = toFacts(4)
        book.facts = facts.map((fact, index) => (index === 1 ? { ...fact, raw: { [field]: value } } : fact))
        const page = await readPage()
        const ids: (string | null)[] = toIds(facts)
        ids[1] = null
        expect(idsOf(page), `${field} ${JSON.stringify(value)}`).toEqual(ids)
        expect(page.rows[1]?.order).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
        expect(page).toMatchObject({ hasMore: false, isComplete: true })
      }
    }
  },

  'a row of another account is an error in its place (C16)': async ({ column, book, readPage }) => {
    book.facts = toFacts(3).map((fact, index) =>
      index === 0 ? { ...fact, raw: { account: column.accounts[1].replace('aries:', '') } } : fact,
    )
    const page = await readPage()
    expect(idsOf(page)).toEqual([null, column.toId('ord_2'), column.toId('ord_3')])
    expect(page.rows[0]?.order).toMatchObject({ kind: 'unreadable' })
  },

  'a word that nobody knows is UNKNOWN, and the status it stood for is kept': async ({ readOne }) => {
    for (const word of ['CROSSED', 'constructor', '__proto__', 'fill', 'x'.repeat(65)]) {
      expect(await readOne({ raw: { status: word, side: word, type: word, timeInForce: word } })).toMatchObject({
        status: 'UNKNOWN',
        brokerStatus: word,
        state: null,
        isCancelable: true,
        side: 'UNKNOWN',
        type: 'UNKNOWN',
        timeInForce: 'UNKNOWN',
      })
    }
  },

  'what is no word is UNKNOWN, in a list too, and fails nothing (C08)': async ({ book, broker, readOne, readPage }) => {
    const garbled = { status: { a: 1 }, side: {}, type: [], timeInForce: { b: 2 } }
    const unknown = { status: 'UNKNOWN', state: null, side: 'UNKNOWN', type: 'UNKNOWN', timeInForce: 'UNKNOWN' }
    expect(await readOne({ raw: garbled })).toMatchObject({ ...unknown, brokerStatus: null })
    book.facts = [toFact('ord_2', 2, { status: 'ACCEPTED', raw: garbled }), toFact('ord_1', 1)]
    const { rows } = await readPage()
    expect(rows.map(({ order }) => order)).toMatchObject([unknown, { status: 'FILLED' }])
    expect(broker.features.statuses).not.toContain('UNKNOWN')
  },

  'decimals keep every digit, quoted or not, and exponents are written out (C07)': async ({ readOne }) => {
    const digits = {
      '12345678901234567890': '12345678901234567890',
      '0.1000000000000000055': '0.1000000000000000055',
      '-0.10': '-0.10',
      '1e-9': '0.000000001',
      '1.50E+2': '150',
      '1e005': '100000',
    }
    for (const [written, expected] of Object.entries(digits)) {
      for (const value of [written, `num:${written}`]) {
        const order = await readOne({ raw: { quantity: value, limitPrice: value, averagePrice: value } })
        expect(order, value).toMatchObject({ quantity: expected, limitPrice: expected, averagePrice: expected })
      }
    }
  },

  'an average price of zero is none, however it is written': async ({ readOne }) => {
    for (const price of ['0', '0.00', '-0.0', 'num:0', 'num:0.0', 'num:0e-9']) {
      expect((await readOne({ raw: { averagePrice: price } })).averagePrice, price).toBeNull()
    }
  },

  'instants come in UTC with every digit of the second (H04)': async ({ readOne }) => {
    const minute = timeOf(0).slice(0, 17)
    const written = `${new Date(start - 5 * 3_600_000).toISOString().slice(0, 17)}07.123456789-05:00`
    expect((await readOne({ createdAt: written })).submittedAt).toBe(`${minute}07.123456789Z`)
  },

  'reads an instant in each form that brokers write, and none without a zone': async ({ readOne, column }) => {
    const [date = '', clock = ''] = timeOf(0).slice(0, -1).split('T')
    const seconds = String(Date.parse(timeOf(0)) / 1_000)
    const at = (more: string): string => `${date}T${clock}${more}`
    const forms: [unknown, string][] = [
      [`${at('')}+0000`, at('Z')],
      [`${at('')}+00`, at('Z')],
      [`${at('')}-00:00`, at('Z')],
      [`${date} ${clock}Z`, at('Z')],
      [`${date} ${clock} UTC`, at('Z')],
      [`${date}t${clock.slice(0, 5)}z`, at('Z')],
      [at('.123456789012Z'), at('.123456789012Z')],
      [at(',5+0000'), at('.5Z')],
      [new Date(Date.parse(timeOf(0))).toUTCString(), at('Z')],
      [seconds, at('Z')],
      [`num:${seconds}`, at('Z')],
      [`num:${seconds}.25`, at('.25Z')],
      [`num:${seconds}123`, at('.123Z')],
      [`${seconds}000`, at('Z')],
      [`num:${seconds}123456`, at('.123456Z')],
      [`num:${seconds}123456789`, at('.123456789Z')],
    ]
    for (const [value, instant] of forms) {
      expect(
        (await readOne({ createdAt: timeOf(0), raw: { submittedAt: value } })).submittedAt,
        `${column.name} ${String(value)}`,
      ).toBe(instant)
    }
    for (const value of [
      at(''),
      `${date} ${clock}.5`,
      'num:0',
      'num:-1',
      'num:12345',
      '20260309',
      at('.1234567890123Z'),
    ]) {
      expect((await readOne({ createdAt: timeOf(0), raw: { submittedAt: value } })).submittedAt, value).toBeInstanceOf(
        UpstreamError,
      )
    }
  },

  'reads a status in any case and with any separators': async ({ readOne }) => {
    const spellings: Partial<Record<KnownOrderStatus, string[]>> = {
      CANCELED: ['cancelled', 'CANCELED', 'Cancelled'],
      FILLED: ['Filled', 'FILLED', 'fully-filled'],
      EXPIRED: ['expired', 'EXPIRED'],
      PENDING_CANCEL: ['pending_cancel', 'pendingCancel', 'PENDING-CANCEL'],
      ACCEPTED: ['done_for_day', 'DoneForDay', 'New', 'accepted'],
      REPLACED: ['replaced', 'Replaced'],
      PARTIALLY_FILLED: ['partially filled', 'PartiallyFilled', 'PARTIAL'],
      REJECTED: ['Rejected', 'FAILED'],
    }
    for (const [status, words] of Object.entries(spellings)) {
      for (const word of words) {
        expect(await readOne({ raw: { status: word } }), word).toMatchObject({ status, brokerStatus: word })
      }
    }
    expect(await readOne({ raw: { side: 'Sell', type: 'Stop-Limit', timeInForce: 'Ioc' } })).toMatchObject({
      side: 'SELL',
      type: 'STOP_LIMIT',
      timeInForce: 'IOC',
    })
  },

  'says how long to wait after a 429 that does not say it': async ({ apart, account, keyOf, toQuery, column, say }) => {
    for (const headers of [{}, { 'retry-after': 'soon' }, { 'retry-after': '-5' }]) {
      for (const reply of [
        { ...column.toRefusal('limited'), headers: { 'content-type': 'application/json', ...headers } },
        { ...html(429), headers },
      ]) {
        say(reply)
        // A deadline within the wait, so that no read is repeated.
        const scope = (): ReadScope => ({ ...createScope(), deadline: Date.now() + 900 })
        const limited = { kind: 'throttled', retryAfterMs: expect.any(Number) }
        expect(await apart((own) => own.orders([keyOf('ord_1')], scope()))).toMatchObject([limited])
        expect(await apart((own) => own.pages([toQuery()], scope()))).toMatchObject([limited])
        await expect(apart((own) => own.accounts(scope()))).rejects.toMatchObject(limited)
        const since = timeOf(0)
        const search = { accountId: account, symbol: null, side: null, since, purpose: 'lookup' } as const
        await expect(apart((own) => own.scan(search, scope()))).rejects.toMatchObject(limited)
      }
    }
  },

  'fields that nobody knows are ignored (C09)': async ({ readOne }) => {
    const extra = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`extra_${index}`, { index }]))
    expect(await readOne({ extra })).toEqual(await readOne())
  },

  'text is cleaned: control characters go and 200 characters stay (E15)': async ({ readOne }) => {
    const dirty = `\u001b[31mno\r\n\u202efunds\u2028<b>${'x'.repeat(10_000)}`
    const order = await readOne({ status: 'REJECTED', rejectReason: dirty, raw: { clientOrderId: 'a\u0000b' } })
    expect(order.rejectReason).toMatch(/^\[31mno funds <b>x+$/)
    expect(order.rejectReason).toHaveLength(200)
    expect(order.clientOrderId).toBe('a b')
    expect((await readOne({ raw: { status: 'HE\u0007LD' } })).brokerStatus).toBe('HE LD')
    const split = await readOne({ status: 'REJECTED', rejectReason: `${'x'.repeat(199)}😀` })
    expect(split.rejectReason).toBe(`${'x'.repeat(199)}\ufffd`)
  },

  'an id of letters, digits and . _ : - comes back as it is': async ({ broker, book, column, keyOf }) => {
    const ids = ['8f14e45f-ceea-467a-9575-2f0a7c3d1b42', 'ord_k3m8q1t6w9z4n7r2', 'a:b', 'A.1', '1', 'x'.repeat(100)]
    book.facts = ids.map((id, index) => toFact(id, index))
    const orders = await broker.orders(
      ids.map((id) => keyOf(id)),
      createScope(),
    )
    expect(orders).toMatchObject(ids.map((id) => ({ id: column.toId(id) })))
  },

  'an id that is none never becomes a path, nor a part of a body': async (bench) => {
    const { broker, order, column, keyOf, toQuery } = bench
    const known = { ...(await bench.readOne()), status: 'ACCEPTED' } as Order
    requests.length = 0
    for (const id of notIds) {
      const [orderId, accountId] = brokerOf(column.toId('x')) === 'ARIES' ? [`aries:A:${id}`, `aries:${id}`] : [id, id]
      await expect(broker.orders([{ ...keyOf('x'), id: orderId }], createScope())).rejects.toThrow(RangeError)
      await expect(broker.pages([toQuery({ accountId })], createScope())).rejects.toThrow(RangeError)
      await expect(bench.scan({ accountId })).rejects.toThrow(RangeError)
      await expect(broker.place({ ...order, accountId }, toOptions())).rejects.toThrow(RangeError)
      await expect(broker.cancel({ ...known, id: orderId }, inAMinute())).rejects.toThrow(RangeError)
    }
    expect(requests).toEqual([])
  },

  'reads that nobody waits for any more are not sent, and say why they ended, each alone': async ({
    broker,
    keyOf,
    toQuery,
  }) => {
    const reason = new Error('the caller left')
    const gone = createScope(AbortSignal.abort(reason))
    for (const ended of [
      ...(await broker.orders([keyOf('ord_1'), keyOf('ord_2')], gone)),
      ...(await broker.pages([toQuery()], gone)),
    ]) {
      expect(ended).toBeInstanceOf(ReadEnded)
      expect(ended).toMatchObject({ endReason: reason, effect: 'none' })
    }
    await expect(broker.accounts(gone)).rejects.toThrow('the caller left')
    expect(requests).toEqual([])
  },

  'accounts are their ids alone, each once': async ({ broker, column }) => {
    expect(await broker.accounts(createScope())).toEqual(column.accounts)
    expect(requests).toHaveLength(1)
  },
}

// Four of one minute, then one alone: pages end in the middle of an instant.
const toTied = (count: number, fields: Partial<Fact> = {}): Fact[] =>
  Array.from({ length: count }, (_, index) =>
    toFact(`ord_${index + 1}`, count - index, { ...fields, createdAt: timeOf(count - Math.floor(index / 4) * 4) }),
  )

const pages: Record<string, Case> = {
  'rows come newest first, ties by id, whatever the page size, and each once': async ({ book, toIds, walk }) => {
    book.facts = toTied(15).map((fact, index) => ({ ...fact, status: index % 5 === 0 ? 'ACCEPTED' : 'FILLED' }))
    for (const first of [1, 4, 14, 15, 16, 100]) {
      expect(await walk({ first }), `${first} a page`).toEqual(toIds(book.facts))
    }
  },

  'so they do where a list whose order nobody documents stands the other way round': async ({ book, toIds, walk }) => {
    book.facts = toTied(15).map((fact, index) => ({ ...fact, status: index % 5 === 0 ? 'ACCEPTED' : 'FILLED' }))
    book.isOldestFirst = true
    for (const first of [1, 4, 14, 15, 16, 100]) {
      expect(await walk({ first }), `${first} a page`).toEqual(toIds(book.facts))
    }
  },

  'a walk gives each row once, also while orders arrive and end between two pages': async ({ book, toIds, walk }) => {
    for (const first of [1, 3, 10]) {
      let arrived = 0
      book.facts = toTied(17, { status: 'ACCEPTED' })
      const ids = toIds(book.facts)
      const walked = await walk({ first }, () => {
        arrived++
        book.facts.push(toFact(`late_${arrived}`, 100 + arrived, { status: arrived % 2 === 0 ? 'FILLED' : 'ACCEPTED' }))
        const fact = book.facts[arrived % 17]
        if (fact) fact.status = 'FILLED'
      })
      expect(walked, `${first} a page`).toEqual(ids)
    }
  },

  'a list resumed after any row goes on with the next one': async ({ book, readPage, toIds }) => {
    book.facts = toTied(9)
    const { rows } = await readPage()
    for (const [index, { position }] of rows.entries()) {
      expect(idsOf(await readPage({ after: position }))).toEqual(toIds(book.facts).slice(index + 1))
      const two = await readPage({ after: position, first: 2 })
      expect(two.rows.map((row) => row.position)).toEqual(rows.slice(index + 1, index + 3).map((row) => row.position))
    }
  },

  'a page of rows is one call or two, and says whether more follow': async ({ book, readPage, toIds }) => {
    book.facts = toFacts(150)
    const ids = toIds(book.facts)
    for (const first of [1, 2, 99, 100]) {
      const page = await readPage({ first })
      expect(idsOf(page)).toEqual(ids.slice(0, first))
      expect(page).toMatchObject({ hasMore: true, isComplete: true, position: page.rows.at(-1)?.position })
      requests.length = 0
      const hasty = await readPage({ first, wantsMore: false })
      expect(idsOf(hasty)).toEqual(ids.slice(0, first))
      expect(hasty.hasMore).not.toBe(false)
      expect(requests.length).toBeLessThanOrEqual(2)
    }
    const last = await readPage({ first: 50, after: (await readPage({ first: 100 })).rows.at(-1)?.position ?? '' })
    expect(idsOf(last)).toEqual(ids.slice(100))
    expect(last).toMatchObject({ hasMore: false, isComplete: true })
    expect(pageSizeMax).toBe(100)
  },

  'an empty list is a page of nothing, and complete': async ({ readPage }) => {
    expect(await readPage()).toMatchObject({ rows: [], hasMore: false, isComplete: true })
  },

  'more rows than were asked for are cut, and follow (C18)': async ({ book, readPage, toIds, walk }) => {
    book.facts = toFacts(30)
    book.ignoresLimit = true
    for (const wantsMore of [true, false]) {
      const page = await readPage({ first: 7, wantsMore })
      expect(idsOf(page)).toEqual(toIds(book.facts).slice(0, 7))
      expect(page).toMatchObject({ hasMore: true, isComplete: true })
    }
    expect(await walk({ first: 7 })).toEqual(toIds(book.facts))
  },

  'a row that comes twice is shown once (C18)': async ({ book, toIds, walk }) => {
    book.facts = toFacts(30)
    book.repeatsRows = true
    for (const first of [3, 100]) expect(await walk({ first })).toEqual(toIds(book.facts))
  },

  'a broker that cuts its pages short and says so is read to the end': async ({ book, toIds, walk }) => {
    book.facts = toFacts(50)
    book.cap = 7
    for (const first of [5, 20, 100]) expect(await walk({ first })).toEqual(toIds(book.facts))
  },

  'a broker that cuts its pages short and says nothing of it is read to the end': async (bench) => {
    const { account, apart, book, broker, column, keyOf, readPage, toIds } = bench
    book.isSilent = true
    for (const [count, cap, isOldestFirst] of [
      [120, 50, false],
      [120, 50, true],
      [60, 37, true],
      [45, 11, false],
    ] as const) {
      // Each order is open, so that the active list of Aries has it; where a list holds one status, all have it.
      book.facts = toFacts(count, { status: 'ACCEPTED' })
      Object.assign(book, { cap, isOldestFirst })
      const expected = toIds(book.facts)
      for (const query of [{}, { statuses: ['ACCEPTED' as const] }]) {
        await apart(async (own) => {
          const { walk: walkApart } = createBench(column, own, book)
          expect(await walkApart({ ...query, first: 100 })).toEqual(expected)
          expect(await walkApart({ ...query, first: 17 })).toEqual(expected)
        })
      }
      await apart(async (own) => {
        const keys = book.facts.map(({ id }) => keyOf(id))
        const orders = await own.orders(keys, createScope())
        expect(orders.map((order) => (order instanceof UpstreamError ? null : order?.id))).toEqual(
          keys.map(({ id }) => id),
        )
        for (const purpose of ['lookup', 'snapshot'] as const) {
          const found = await own.scan(
            { accountId: account, symbol: null, side: null, since: timeOf(0), purpose },
            createScope(),
          )
          if (found.isComplete) expect(found.orders.map(({ id }) => id).sort()).toEqual(expected.toSorted())
          else expect(purpose).toBe('snapshot')
        }
      })
    }
    // Where nothing is cut, a short page costs one call more at the most, and none once a longer one was seen.
    Object.assign(book, { cap: Infinity, isOldestFirst: false })
    book.facts = [...toFacts(60, { status: 'ACCEPTED' }), ...toFacts(100, { status: 'ACCEPTED', owner: 1 })]
    await readPage({ first: 100, accountId: column.accounts[1] })
    requests.length = 0
    expect(await readPage({ first: 100 })).toMatchObject({ hasMore: false, isComplete: true })
    // Aries is asked for both of its lists.
    expect(requests).toHaveLength(broker.id === 'ARIES' ? 2 : 1)
  },

  'rows that cannot be read are errors, and hold up no other': async ({ book, column, toIds, walk }) => {
    for (const lost of [['symbol'], ['status', 'submittedAt'], ['id'], ['id', 'symbol', 'submittedAt']] as const) {
      const facts = toFacts(12)
      book.facts = facts.map((fact, index) =>
        index % 4 === 1 ? { ...fact, raw: Object.fromEntries(lost.map((field) => [field, undefined])) } : fact,
      )
      const expected = toIds(facts).filter((_, index) => index % 4 !== 1)
      for (const first of [1, 5, 100]) {
        const walked = await walk({ first })
        expect(
          walked.filter((id) => id !== null),
          `${column.name} ${lost.join()} ${first}`,
        ).toEqual(expected)
        expect(walked.filter((id) => id === null).length).toBeGreaterThanOrEqual(first === 100 ? 3 : 1)
      }
    }
  },

  'a row whose time cannot be read takes nobody else out of the walk': async ({ book, toIds, walk }) => {
    for (const [status, cap] of [
      ['ACCEPTED', Infinity],
      ['FILLED', Infinity],
      ['FILLED', 3],
    ] as const) {
      const facts = toFacts(12, { status })
      book.cap = cap
      for (const first of [1, 3, 100]) {
        book.facts = facts.map((fact, index) => (index % 4 === 1 ? { ...fact, raw: { submittedAt: 'soon' } } : fact))
        expect([...(await walk({ first }))].sort(), `${status} ${first}`).toEqual(toIds(facts).toSorted())
      }
    }
  },

  'a broker that never ends its list is not followed for ever': async ({ broker, column, say, toQuery }) => {
    const rows = toFacts(20).map((fact) => column.toRow(fact))
    say(json({ data: rows, orders: rows, has_more: true, nextCursor: 'num:7', accounts: [] }))
    const [page] = await broker.pages([toQuery({ first: 100 })], createScope())
    if (!(page instanceof UpstreamError)) expect(page).toMatchObject({ isComplete: false })
    expect(requests.length).toBeLessThanOrEqual(20)
  },

  'a position that the adapter cannot have made is refused': async ({ broker, column, toQuery }) => {
    for (const after of column.positionsOfOthers) {
      await expect(broker.pages([toQuery({ after })], createScope()), after).rejects.toThrow(RangeError)
    }
    expect(requests).toEqual([])
  },

  'pages answer in the order of the questions, a failed one in its slot': async ({ broker, book, column, toQuery }) => {
    book.facts = [...toFacts(3), toFact('ord_9', 9, { owner: 1 })]
    const name = column.accounts[0].replace('aries:', '')
    book.reply = ({ path }) => (path.includes(name) ? column.toRefusal('forbidden') : null)
    const asked = await broker.pages(
      [1, 0, 1].map((owner) => toQuery({ accountId: column.accounts[owner as 0 | 1] })),
      createScope(),
    )
    const row = { rows: [{ order: { id: column.toId('ord_9', 1) } }] }
    expect(asked).toMatchObject([row, { kind: 'refused', status: 403 }, row])
  },

  'an account that the broker does not know is an error, not an empty list': async ({
    broker,
    column,
    say,
    toQuery,
  }) => {
    say(column.toRefusal('missing'))
    expect(await broker.pages([toQuery()], createScope())).toMatchObject([
      { kind: 'refused', effect: 'none', rejection: 'ACCOUNT_NOT_FOUND' },
    ])
  },
}

const mixed = (broker: Broker): Fact[] =>
  Array.from({ length: 40 }, (_, index) =>
    toFact(`ord_${index + 1}`, 40 - index, {
      status: broker.features.statuses[index % broker.features.statuses.length] as KnownOrderStatus,
      side: broker.features.sides[Math.floor(index / 2) % broker.features.sides.length] as OrderSideSent,
      symbol: index % 3 === 0 ? 'BRK.B' : 'AAPL',
    }),
  )

/** Returns sets of statuses that a caller may want. */
const toWantedStatuses = ({ features: { statuses } }: Broker): readonly (readonly KnownOrderStatus[])[] => [
  ...statuses.map((status) => [status]),
  statuses.filter((status) => stateOf(status) === 'OPEN'),
  statuses.filter((status) => stateOf(status) === 'CLOSED'),
  ['PARTIALLY_FILLED', 'FILLED'],
  statuses,
]

/** Returns the statuses of each list that the broker has. */
const toStatusSets = (broker: Broker): readonly (readonly KnownOrderStatus[])[] =>
  toWantedStatuses(broker).flatMap((wanted) => broker.planLists(wanted))

/** Whether filters are ignored: what a broker cannot be asked for, it has no filter for. */
const ignoring = ({ features }: Broker): readonly boolean[] =>
  features.filters.includes('symbol') ? [false, true] : [false]

const filters: Record<string, Case> = {
  'plans lists that show each wanted status once, and no list if no status is wanted': async ({ broker }) => {
    for (const wanted of toWantedStatuses(broker)) {
      const lists = broker.planLists(wanted)
      expect(lists.flat().toSorted(), wanted.join()).toEqual(wanted.toSorted())
      expect(lists.every((list) => list.length > 0)).toBe(true)
    }
    expect(broker.planLists([])).toEqual([])
  },

  'a list of any status, side or symbol holds just those, and each of them': async ({ book, broker, toIds, walk }) => {
    for (const ignoresFilters of ignoring(broker)) {
      // Ignored or not: what was not asked for is never shown (C21).
      book.ignoresFilters = ignoresFilters
      book.facts = mixed(broker)
      for (const statuses of toStatusSets(broker)) {
        const expected = book.facts.filter(({ status }) => statuses.includes(status))
        expect(await walk({ statuses, first: 4 }), statuses.join()).toEqual(toIds(expected))
      }
      for (const side of broker.features.sides) {
        expect(await walk({ side })).toEqual(toIds(book.facts.filter((fact) => fact.side === side)))
      }
      expect(await walk({ symbol: 'BRK.B' })).toEqual(toIds(book.facts.filter(({ symbol }) => symbol === 'BRK.B')))
      expect(await walk({ symbol: 'F' })).toEqual([])
    }
  },

  'a list can be filtered by each symbol that it can show': async ({ book, toIds, walk }) => {
    const symbols = ['BRK B', 'M&M', 'aapl', 'AAPL  260116C00250000', 'Ünï', 'a=b&c', '100%', 'AAPL']
    book.facts = symbols.map((symbol, index) => toFact(`ord_${index + 1}`, index, { symbol }))
    for (const [index, symbol] of symbols.entries()) {
      expect(await walk({ symbol }), symbol).toEqual(toIds(book.facts.slice(index, index + 1)))
    }
  },

  'filters hold together': async ({ book, broker, toIds, walk }) => {
    book.facts = mixed(broker)
    for (const ignoresFilters of ignoring(broker)) {
      book.ignoresFilters = ignoresFilters
      for (const statuses of toStatusSets(broker)) {
        const query = {
          statuses,
          symbol: 'AAPL',
          side: 'BUY' as const,
          submittedAfter: timeOf(5),
          submittedBefore: timeOf(35),
        }
        const expected = book.facts.filter(
          ({ status, symbol, side, createdAt }) =>
            statuses.includes(status) &&
            symbol === 'AAPL' &&
            side === 'BUY' &&
            createdAt >= timeOf(5) &&
            createdAt < timeOf(35),
        )
        expect(await walk({ ...query, first: 2 }), statuses.join()).toEqual(toIds(expected))
      }
    }
  },

  'submittedAfter is inclusive, submittedBefore exclusive, to the last digit': async ({ book, column, walk }) => {
    const at = (text: string): string => timeOf(10).replace('00Z', `${text}Z`)
    const times = ['00', '00.000000001', '01', '01.5', '02']
    for (const status of ['ACCEPTED', 'FILLED'] as const) {
      book.facts = times.map((time, index) => toFact(`ord_${index}1`, 0, { status, createdAt: at(time) }))
      const read = async (after: string | null, before: string | null): Promise<(string | null)[]> =>
        await walk({
          submittedAfter: after === null ? null : at(after),
          submittedBefore: before === null ? null : at(before),
        })
      const ids = (...indexes: number[]): string[] => indexes.map((index) => column.toId(`ord_${index}1`))
      expect(await read('01', null)).toEqual(ids(4, 3, 2))
      expect(await read('01.0', null)).toEqual(ids(4, 3, 2))
      expect(await read('01.000000001', null)).toEqual(ids(4, 3))
      expect(await read(null, '01')).toEqual(ids(1, 0))
      expect(await read(null, '00.000000001')).toEqual(ids(0))
      expect(await read('00.000000001', '01.5')).toEqual(ids(2, 1))
      expect(await read('01', '01')).toEqual([])
    }
  },

  'an interval that has not ended yet, or not begun, is answered at once': async ({ book, toIds, walk }) => {
    book.facts = toFacts(5)
    expect(await walk({ submittedBefore: '2999-01-01T00:00:00Z' })).toEqual(toIds(book.facts))
    expect(requests.length).toBeLessThanOrEqual(3)
    requests.length = 0
    expect(await walk({ submittedAfter: '2999-01-01T00:00:00Z' })).toEqual([])
    expect(requests.length).toBeLessThanOrEqual(3)
  },

  'what a walk over several lists has given, or is newer, is left out': async ({ book, column, readPage }) => {
    const facts = toFacts(5).map((fact) => (fact.id === 'ord_3' ? { ...fact, createdAt: timeOf(4) } : fact))
    book.facts = facts
    for (const [ids, expected] of [
      [['ord_2'], ['ord_3', 'ord_4', 'ord_5']],
      [
        ['ord_3', 'ord_2'],
        ['ord_4', 'ord_5'],
      ],
      [[], ['ord_3', 'ord_2', 'ord_4', 'ord_5']],
    ] as const) {
      const olderThan = { at: timeOf(4), ids: ids.map((id) => column.toId(id)) }
      const page = await readPage({ olderThan })
      expect(page).toMatchObject({ hasMore: false, isComplete: true })
      expect(idsOf(page)).toEqual(expected.map((id) => column.toId(id)))
    }
  },

  'a row whose time cannot be read is shown, and a filter by time makes its page incomplete': async (bench) => {
    const { book, broker, column, readPage, walk } = bench
    const ids = (...names: number[]): string[] => names.map((name) => column.toId(`ord_${name}`))
    for (const status of ['ACCEPTED', 'FILLED'] as const) {
      const facts = toFacts(4, { status })
      book.facts = facts.map((fact, index) => (index === 0 ? { ...fact, raw: { submittedAt: 'soon' } } : fact))
      expect(await walk({ submittedAfter: timeOf(3) })).toEqual(ids(1, 2))
      // A history that the broker itself cuts off does not have the row.
      const isCutThere = broker.features.filters.includes('submitted') && status === 'FILLED'
      const before = await walk({ submittedBefore: timeOf(3) })
      expect([...before].sort()).toEqual(isCutThere ? ids(3, 4) : ids(1, 3, 4))
      for (const filter of [{ submittedAfter: timeOf(3) }, { submittedBefore: timeOf(3) }]) {
        if (isCutThere && 'submittedBefore' in filter) continue
        const page = await readPage({ ...filter, statuses: [status] })
        const row = page.rows.find(({ order }) => !(order instanceof UpstreamError) && order.id === ids(1)[0])
        expect(row?.order).toMatchObject({ submittedAt: expect.any(UpstreamError) })
        expect(page, JSON.stringify(filter)).toMatchObject({ hasMore: false, isComplete: false })
      }
      expect(await readPage()).toMatchObject({ hasMore: false, isComplete: true })
    }
  },

  'a search that is too long ends within its calls, says so, and can be gone on with to its end': async (bench) => {
    const { book, readPage, toIds } = bench
    book.facts = toFacts(300).map((fact, index) => (index % 149 === 120 ? { ...fact, symbol: 'KO' } : fact))
    book.ignoresFilters = true
    book.cap = 10
    const found: (string | null)[] = []
    let rounds = 0
    for (let after: string | null = null; ;) {
      requests.length = 0
      const page: Page = await readPage({ symbol: 'KO', after, first: 5 })
      expect(requests.length).toBeLessThanOrEqual(20)
      found.push(...idsOf(page))
      rounds++
      if (page.isComplete) {
        expect(page.hasMore).toBe(false)
        break
      }
      expect(page.hasMore).not.toBe(false)
      expect(page.position).not.toBe(after)
      after = page.position
      expect(rounds).toBeLessThan(8)
    }
    expect(rounds).toBeGreaterThan(1)
    expect(found).toEqual(toIds(book.facts.filter(({ symbol }) => symbol === 'KO')))
  },
}

// Status, and what it proves in the broker's own words: of a read, a placement and a scan alike.
const refusals: [Refusal, Partial<UpstreamError>][] = [
  ['invalid', { kind: 'refused', effect: 'none', status: 400, rejection: 'INVALID_ORDER', reason }],
  ['unauthorized', { kind: 'refused', effect: 'none', status: 401, rejection: null, reason }],
  ['forbidden', { kind: 'refused', effect: 'none', status: 403, rejection: null, reason }],
  ['limited', { kind: 'throttled', effect: 'none', status: 429, rejection: null, retryAfterMs: 30_000 }],
  ['broken', { kind: 'failed', effect: 'unknown', status: 500, rejection: null }],
]

const errors: Record<string, Case> = {
  'a proxy that answers in the place of the broker proves nothing (A25)': async ({
    apart,
    keyOf,
    order,
    say,
    toQuery,
  }) => {
    await apart(async (broker) => {
      for (const status of [400, 401, 403, 404, 409, 422]) {
        for (const reply of proxies(status)) {
          say(reply)
          requests.length = 0
          const placed = await errorOf(broker.place(order, toOptions()))
          expect(placed, `${status} ${reply.text}`).toMatchObject({
            kind: 'unreadable',
            effect: 'unknown',
            status,
            rejection: null,
            brokerCode: null,
          })
          expect(requests, `${status} ${reply.text}`).toHaveLength(1)
          if (status !== 404) continue
          // Least of all that there is no such order, or an empty account.
          expect(await broker.orders([keyOf('ord_1')], createScope())).toMatchObject([{ kind: 'unreadable' }])
          expect(await broker.pages([toQuery()], createScope())).toMatchObject([{ kind: 'unreadable' }])
        }
      }
    })
  },

  'a proxy that asks to wait is obeyed, and believed no more than that': async ({ apart, order, say }) => {
    for (const reply of [html(429), json({ code: 429 }, 429)]) {
      say({ ...reply, headers: { ...reply.headers, 'retry-after': '2' } })
      const error = await apart((own) => errorOf(own.place(order, toOptions())))
      expect(error).toMatchObject({ kind: 'throttled', effect: 'unknown', retryAfterMs: 2_000, brokerCode: null })
    }
  },

  'a 408, a 5xx and a redirect are unknown, even in the words of the broker (A23)': async ({ column, place, say }) => {
    const words = column.toRefusal('invalid')
    for (const status of [408, 500, 502, 503, 504]) {
      for (const reply of [{ ...words, status }, html(status)]) {
        say(reply)
        expect(await errorOf(place())).toMatchObject({ kind: 'failed', effect: 'unknown', status, rejection: null })
      }
    }
    for (const status of [301, 302, 307, 308]) {
      requests.length = 0
      say({ ...words, status, headers: { ...words.headers, location: '/elsewhere' } })
      expect(await errorOf(place())).toMatchObject({ kind: 'unreadable', effect: 'unknown', status })
      expect(requests.length).toBe(1)
    }
  },

  'the reason of a refusal is clean and short, and no part of the message (E15)': async ({ column, place, say }) => {
    const dirty = `\\u001b[2J<script>\\r\\n${'x'.repeat(10_000)}`
    const words = column.toRefusal('invalid')
    say({ ...words, text: words.text.replace(reason, dirty) })
    const error = await errorOf(place())
    expect(error.reason).toMatch(/^\[2J<script> x+$/)
    expect(error.reason).toHaveLength(200)
    expect(error.message).not.toContain('script')
  },
}

for (const [refusal, expected] of refusals) {
  errors[`a read that is answered "${refusal}" says what it proves`] = async ({
    apart,
    column,
    keyOf,
    say,
    toQuery,
  }) => {
    const reply = column.toRefusal(refusal)
    say({ ...reply, headers: { ...reply.headers, ...later } })
    const [one] = await apart((own) => own.orders([keyOf('ord_1')], createScope()))
    expect(one).toMatchObject(expected)
    const [page] = await apart((own) => own.pages([toQuery()], createScope()))
    expect(page).toMatchObject(expected)
    expect(await apart((own) => errorOf(own.accounts(createScope())))).toMatchObject(expected)
  }
  errors[`a placement that is answered "${refusal}" says what it proves`] = async ({ apart, column, order, say }) => {
    say(column.toRefusal(refusal))
    expect(await apart((own) => errorOf(own.place(order, toOptions())))).toMatchObject(expected)
  }
}

const scans: Record<string, Case> = {
  'a search finds every order of the list once, and is complete': async ({ book, scan, toIds }) => {
    book.facts = toTied(120, { status: 'ACCEPTED' })
    book.facts.forEach((fact, index) => (fact.status = index % 2 === 0 ? 'ACCEPTED' : 'FILLED'))
    for (const purpose of ['snapshot', 'lookup'] as const) {
      const { ids, isComplete } = await scan({ purpose })
      expect(ids.toSorted()).toEqual(toIds(book.facts).toSorted())
      expect(isComplete).toBe(true)
    }
    expect((await scan({ symbol: null, side: null })).ids).toHaveLength(120)
  },

  'a search gives the wanted rows only, those whose side nobody can tell among them': async ({
    book,
    broker,
    column,
    scan,
  }) => {
    for (const ignoresFilters of ignoring(broker)) {
      book.ignoresFilters = ignoresFilters
      book.facts = [
        toFact('ord_4', 4),
        toFact('ord_3', 3, { symbol: 'KO' }),
        toFact('ord_2', 2, { side: 'SELL' }),
        toFact('ord_1', 1, { raw: { side: 'NEITHER' } }),
      ]
      const { ids, isComplete } = await scan()
      expect(ids).toEqual([column.toId('ord_4'), column.toId('ord_1')])
      expect(isComplete).toBe(true)
      expect((await scan({ symbol: 'KO' })).ids).toEqual([column.toId('ord_3')])
      expect((await scan({ symbol: null, side: null })).ids).toHaveLength(4)
    }
  },

  'a search need not look at what was submitted before, and misses nothing since': async ({ book, scan, toIds }) => {
    book.facts = toFacts(200)
    const { ids, isComplete } = await scan({ since: timeOf(150) })
    expect(isComplete).toBe(true)
    expect(ids).toEqual(expect.arrayContaining(toIds(book.facts).slice(0, 51)))
    expect(requests.length).toBeLessThanOrEqual(2)
  },

  'a row that cannot be read makes a search incomplete, unless it says that it is too old': async (bench) => {
    const { book, column, scan } = bench
    const own = timeOf(3)
    for (const status of ['ACCEPTED', 'FILLED'] as const) {
      for (const [garbled, since, isComplete] of [
        [{ status: undefined }, timeOf(0), false],
        [{ symbol: '' }, own, false],
        [{ id: '..' }, own, false],
        [{ id: undefined, submittedAt: 'soon' }, timeOf(0), false],
        // Its neighbours are too old; it says nothing of itself.
        [{ symbol: undefined, submittedAt: undefined }, timeOf(4), false],
        [{ id: undefined, submittedAt: null }, timeOf(5), false],
        [{ account: column.accounts[1].replace('aries:', '') }, timeOf(0), false],
        [{ symbol: undefined }, timeOf(4), true],
      ] as const) {
        for (const isOldestFirst of [false, true]) {
          book.isOldestFirst = isOldestFirst
          book.facts = toFacts(5, { status }).map((fact, index) => ({ ...fact, id: `ord_${index * 3}` }))
          book.facts[2] = { ...(book.facts[2] as Fact), raw: garbled }
          const found = await scan({ since, symbol: null, side: null })
          // What has ended may be in a list that begins at `since`, which the broker keeps it out of.
          expect(found.isComplete, `${status} ${JSON.stringify(garbled)} since ${since}`).toBe(isComplete)
        }
      }
    }
  },

  'a search that is too long is not complete, and ends': async ({ book, scan }) => {
    book.facts = toFacts(300, { status: 'ACCEPTED' })
    book.cap = 10
    for (const purpose of ['snapshot', 'lookup'] as const) {
      requests.length = 0
      const { isComplete } = await scan({ purpose, symbol: null, side: null })
      expect(isComplete).toBe(false)
      expect(requests).toHaveLength(scanCallsMax[purpose])
    }
  },

  'a search takes over no answer that was asked for before it': async ({ book, broker, account }) => {
    book.facts = toFacts(3)
    for (const purpose of ['snapshot', 'lookup'] as const) {
      requests.length = 0
      const query = { accountId: account, symbol: 'AAPL', side: 'BUY', since: timeOf(0), purpose } as const
      const first = broker.scan(query, createScope())
      while (requests.length === 0) await new Promise((resolve) => setImmediate(resolve))
      await Promise.all([first, broker.scan(query, createScope())])
      const [list] = requests
      expect(requests.filter(({ path }) => path === list?.path)).toHaveLength(2)
    }
  },

  'a search that has to stop is an error, also half way': async ({ apart, book, column, account }) => {
    const query = { accountId: account, symbol: null, side: null, since: timeOf(0), purpose: 'lookup' } as const
    book.facts = toFacts(40)
    book.cap = 20
    for (const broken of [
      { ...html(502), headers: later },
      json({}),
      column.toRefusal('unauthorized'),
      column.toRefusal('limited'),
    ]) {
      for (const calls of [0, 1]) {
        requests.length = 0
        book.reply = () => (requests.length > calls ? broken : null)
        await apart(async (own) => void (await errorOf(own.scan(query, createScope()))))
      }
    }
  },
}

/** An order of each type, side and time in force that the broker supports. */
function toOffered({ broker, order }: Bench): NewOrder[] {
  const { types, sides, timesInForce } = broker.features
  return types
    .filter((type) => type !== 'TRAILING_STOP')
    .flatMap((type) =>
      timesInForce.map((timeInForce, index) => ({
        ...order,
        type,
        timeInForce,
        side: sides[index % sides.length] as OrderSideSent,
        limitPrice: type.endsWith('LIMIT') ? '11.050' : null,
        stopPrice: type.startsWith('STOP') ? '12345678901234567890' : null,
        quantity: '0.1000000000000000055',
        extendedHours: timeInForce === 'DAY' && type === 'LIMIT' ? true : null,
      })),
    )
}

const lostReplies: Record<string, Reply> = {
  'the connection breaks before the answer': { ...json({}), cut: 'before' },
  'the connection breaks within the answer': {
    ...json({ id: 'ord_1', clOrdId: 'ord_1', success: true }),
    cut: 'within',
  },
}

const placements: Record<string, Case> = {
  'each order that the offer has is sent in the words of the broker, decimals with their own digits': async (bench) => {
    const { broker, column, place, say } = bench
    for (const order of toOffered(bench)) {
      expect(broker.unsupported(order)).toEqual([])
      requests.length = 0
      say(json(column.toPlaced(order), 201))
      const placed = await place(order)
      expect(placed).toMatchObject({ orderId: column.toId('ord_1'), status: 'ACCEPTED', rejection: null })
      const { side, type, timeInForce, quantity, limitPrice, stopPrice, clientOrderId, symbol } = order
      expect(placed.order).toMatchObject({
        id: column.toId('ord_1'),
        account: { id: order.accountId },
        asset: { symbol },
        symbol,
        side,
        type,
        timeInForce,
        quantity,
        limitPrice,
        stopPrice,
        clientOrderId,
        extendedHours: order.extendedHours ?? false,
        status: 'ACCEPTED',
        state: 'OPEN',
        isCancelable: true,
        filledQuantity: '0',
        averagePrice: null,
        submittedAt: timeOf(1),
        rejectReason: null,
      })
      expect(requests.map(({ method, body }) => [method, body])).toEqual([['POST', column.toRequest(order)]])
    }
  },

  'rejects each field that the broker does not support by name, and sends nothing': async ({
    broker,
    order,
    place,
  }) => {
    const { features } = broker
    const lacking: [keyof NewOrder, Partial<NewOrder>][] = []
    for (const side of ['BUY', 'SELL', 'SELL_SHORT', 'BUY_TO_COVER'] as const) {
      if (!features.sides.includes(side)) lacking.push(['side', { side }])
    }
    for (const type of ['MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT', 'TRAILING_STOP'] as const) {
      if (!features.types.includes(type)) lacking.push(['type', { type }])
    }
    for (const timeInForce of ['DAY', 'GTC', 'OPG', 'CLS', 'IOC', 'FOK'] as const) {
      if (!features.timesInForce.includes(timeInForce)) lacking.push(['timeInForce', { timeInForce }])
    }
    const extras = {
      notional: { notional: '250.00', quantity: null },
      extendedHours: { extendedHours: true },
      commission: { commission: '1.00', commissionType: 'NOTIONAL' },
    } as const
    for (const [extra, fields] of Object.entries(extras)) {
      const isOffered = features.extras.some((each) => each === extra)
      if (isOffered) expect(broker.unsupported({ ...order, ...fields })).toEqual([])
      else lacking.push([extra as keyof NewOrder, fields])
    }
    let begun = 0
    const beforeSend = async (): Promise<void> => void begun++
    for (const [field, fields] of lacking) {
      const found = broker.unsupported({ ...order, ...fields })
      expect(found.map((each) => each.field)).toContain(field)
      for (const { message } of found) expect(message).toMatch(/^[A-Z].*\.$/)
      // Whoever has not asked is not served with an order that lacks it.
      await expect(place({ ...order, ...fields }, { beforeSend }), field).rejects.toThrow(RangeError)
    }
    expect(lacking.length).toBeGreaterThan(0)
    expect([begun, requests.length]).toEqual([0, 0])
  },

  'what has to be done before the order leaves is done once, and before': async ({ column, order, place, say }) => {
    say(json(column.toPlaced(order), 201))
    const seen: number[] = []
    await place(order, {
      async beforeSend() {
        await new Promise((resolve) => setImmediate(resolve))
        seen.push(requests.length)
      },
    })
    expect([seen, requests.length]).toEqual([[0], 1])
  },

  'what could not be done before the order leaves keeps it here': async ({ order, place }) => {
    const error = new Error('no record')
    await expect(place(order, { beforeSend: () => Promise.reject(error) })).rejects.toBe(error)
    expect(requests).toEqual([])
  },

  'nothing is sent after its time, and a cancel neither': async ({ broker, order, place, readOne }) => {
    const open = await readOne({ status: 'ACCEPTED' })
    requests.length = 0
    const late = { kind: 'not_sent', effect: 'none' }
    expect(await errorOf(place(order, { sendBy: Date.now() - 1 }))).toMatchObject(late)
    expect(await errorOf(broker.cancel(open, Date.now() - 1))).toMatchObject(late)
    expect(requests).toEqual([])
  },

  'an answer that repeats anything else than was sent is not believed by itself (A18)': async (bench) => {
    const { column, order, place, say } = bench
    const others: Partial<Record<FieldName, readonly unknown[]>> = {
      account: [column.accounts[1].replace('aries:', '')],
      symbol: ['MSFT', ['AAPL']],
      side: [wordOf<string>(column.words.side, 'SELL'), 'NEITHER'],
      type: [wordOf<string>(column.words.type, 'MARKET')],
      quantity: ['6', '5.0000000000000000001', { value: '5' }, 'five', '-5', 'num:50'],
      clientOrderId: ['client-0002', 'CLIENT-0001', { id: 'client-0001' }],
    }
    for (const field of column.echoes) {
      for (const value of others[field] ?? []) {
        for (const status of ['ACCEPTED', 'REJECTED'] as const) {
          say(json(column.toPlaced(order, { status, raw: { [field]: value } }), 201))
          const said = `${field} ${JSON.stringify(value)}`
          if (field === 'account') {
            const unknown = { kind: 'unreadable', effect: 'unknown', rejection: null }
            expect(await errorOf(place()), said).toMatchObject(unknown)
            continue
          }
          expect(judgeAnswer(toPlacement(order), await place(), false), said).toBe('unconfirmed')
        }
      }
    }
  },

  'an answer with a changed client order id, or with other terms, is confirmed by a read and never a contradiction':
    async (bench) => {
      const { column, order, place, say } = bench
      const changes: Partial<Record<FieldName, readonly string[]>> = {
        clientOrderId: [
          `PTR1-${order.clientOrderId}`,
          order.clientOrderId.toUpperCase(),
          order.clientOrderId.slice(0, 9),
        ],
        quantity: ['4.999999999'],
        symbol: ['AAP/L'],
        type: [wordOf<string>(column.words.type, 'MARKET')],
      }
      for (const field of column.echoes) {
        for (const value of changes[field] ?? []) {
          say(json(column.toPlaced(order, { raw: { [field]: value } }), 201))
          const said = await place()
          expect(said.orderId, `${field} ${value}`).toBe(column.toId('ord_1'))
          expect(judgeAnswer(toPlacement(order), said, false), `${field} ${value}`).toBe('unconfirmed')
          expect(judgeAnswer(toPlacement(order), said, true), `${field} ${value}`).toBe('contradiction')
        }
      }
    },

  'what an answer leaves out or has null is not held against it, nor other digits': async (bench) => {
    const { column, order, place, say } = bench
    for (const field of column.echoes) {
      for (const value of [undefined, null]) {
        say(json(column.toPlaced(order, { raw: { [field]: value } }), 201))
        expect(await place(), field).toMatchObject({ orderId: column.toId('ord_1'), status: 'ACCEPTED' })
      }
    }
    for (const quantity of ['5', '5.0', '05.00', 'num:5', 'num:5.0', 'num:0.5e1']) {
      say(json(column.toPlaced(order, { raw: { quantity } }), 201))
      expect(await place(), quantity).toMatchObject({ orderId: column.toId('ord_1') })
    }
  },

  'a success without an id, or that cannot be read, is unknown (A17)': async ({ column, order, place, say }) => {
    const whole = column.toPlaced(order)
    const replies = [
      ...[undefined, null, '', {}, [], '..', 'a b'].map((id) => json(column.toPlaced(order, { raw: { id } }), 201)),
      json([whole], 201),
      json({ data: whole }, 201),
      json({}, 201),
      json(null, 201),
      json('ord_1', 201),
      raw('', 201),
      raw('', 204),
      raw(JSON.stringify(whole).slice(0, -9), 201),
      html(200),
    ]
    for (const reply of replies) {
      say(reply)
      const error = await errorOf(place())
      expect(error, reply.text).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
    }
  },

  'a status that nobody knows is an order all the same': async ({ column, order, place, say }) => {
    say(json(column.toPlaced(order, { raw: { status: 'CROSSED' } }), 201))
    expect(await place()).toMatchObject({ orderId: column.toId('ord_1'), status: 'UNKNOWN', rejection: null })
  },

  'an order that is filled at once is told so': async ({ column, order, place, say }) => {
    say(json(column.toPlaced(order, { status: 'FILLED', filledQuantity: '5', averagePrice: '174.99' }), 201))
    expect(await place()).toMatchObject({
      status: 'FILLED',
      order: { status: 'FILLED', filledQuantity: '5', remainingQuantity: '0', averagePrice: '174.99' },
    })
  },

  'an order that is rejected at once is told with the reason, clean and short (A19)': async (bench) => {
    const { column, order, place, say } = bench
    const rejectReason = `Not\u0000enough cash.${'!'.repeat(300)}`
    say(json(column.toPlaced(order, { status: 'REJECTED', rejectReason }), 201))
    const answer = await place()
    expect(answer).toMatchObject({
      orderId: column.toId('ord_1'),
      status: 'REJECTED',
      order: { status: 'REJECTED', state: 'CLOSED', isCancelable: false },
      rejection: { code: 'OTHER', reason: expect.stringMatching(/^Not enough cash\.!+$/) as string },
    })
    expect(answer.rejection?.reason).toHaveLength(200)
  },

  'an order that the broker refuses is refused, with a code of ours (A20)': async ({ column, place, say }) => {
    say(column.toRefusal('funds'))
    expect(await errorOf(place())).toMatchObject({
      kind: 'refused',
      effect: 'none',
      rejection: 'INSUFFICIENT_FUNDS',
      reason,
    })
  },

  'nothing is taken for granted of a broker': async ({ broker }) => {
    expect(new Set(Object.values(broker.capabilities))).toEqual(new Set([false]))
  },
}

for (const [what, reply] of Object.entries(lostReplies)) {
  placements[`a placement is unknown where ${what} (A06)`] = async ({ place, say }) => {
    say(reply)
    expect(await errorOf(place())).toMatchObject({ kind: 'no_answer', effect: 'unknown', rejection: null })
    expect(requests).toHaveLength(1)
  }
}

const cancels: Record<string, Case> = {
  'a cancel that is done is the canceled order, or nothing, and never an error': async ({ cancel, column, say }) => {
    const fact = toFact('ord_1', 1, { status: 'PARTIALLY_FILLED', filledQuantity: '3' })
    say(json(column.toCanceled(fact, true)))
    const canceled = await cancel(fact)
    if (canceled !== null)
      expect(canceled).toMatchObject({ id: column.toId('ord_1'), status: 'CANCELED', filledQuantity: '3' })
    expect(requests.map(({ method }) => method)).toEqual(['POST'])
  },

  'a cancel that is only requested is the order as it still is, or nothing': async ({ cancel, column, say }) => {
    const fact = toFact('ord_1', 1, { status: 'ACCEPTED' })
    say(json(column.toCanceled(fact, false), 202))
    const asked = await cancel(fact)
    if (asked !== null) expect(asked).toMatchObject({ status: 'ACCEPTED', state: 'OPEN' })
  },

  'a cancel of an order that is final is refused, in doubt, with the reason': async ({ cancel, column, say }) => {
    say(column.toRefusal('final'))
    expect(await errorOf(cancel())).toMatchObject({ kind: 'refused', effect: 'unknown', rejection: null, reason })
  },

  'a cancel of an order that the broker does not know is refused': async ({ cancel, column, say }) => {
    say(column.toRefusal('missing'))
    expect(await errorOf(cancel())).toMatchObject({ kind: 'refused', status: 404, reason })
  },

  'an answer about another order never cancels this one': async ({ cancel, column, say }) => {
    const other = column.toCanceled(toFact('ord_2', 2), true)
    for (const body of [other, [other], {}, 'canceled', null, { status: 'canceled' }, { status: 'CANCELED' }]) {
      say(json(body))
      const answer = await cancel().catch((error: unknown) => requireError(error))
      if (answer instanceof UpstreamError) expect(answer).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
      else expect(answer).toBeNull()
    }
  },

  'an answer that cannot be read, or is lost, is unknown, and so is a proxy': async ({ cancel, say }) => {
    for (const reply of [
      raw('', 204),
      raw(''),
      raw('{'),
      html(200),
      html(502),
      ...proxies(403),
      ...Object.values(lostReplies),
    ]) {
      say(reply)
      expect(await errorOf(cancel()), reply.text).toMatchObject({ effect: 'unknown', rejection: null })
      expect(requests, reply.text).toHaveLength(1)
    }
  },
}

// ---- laws -------------------------------------------------------------------------------------------------------

const anything = fc.oneof(
  fc.constantFrom<unknown[]>(undefined, null, '', 0, -1.5, 1e300, true, {}, [], 'UNKNOWN', '..', 'ord_1', timeOf(3)),
  fc.string(),
  fc.jsonValue({ maxDepth: 2 }),
)

const garblable = [
  'id',
  'account',
  'symbol',
  'side',
  'type',
  'timeInForce',
  'status',
  'extendedHours',
  ...nullable,
] as const

const anyRaw: fc.Arbitrary<Fact['raw']> = fc.dictionary(fc.constantFrom(...garblable), anything, {
  maxKeys: 6,
  noNullPrototype: true,
})

const anyFact = (broker: Broker): fc.Arbitrary<Fact> =>
  fc
    .record({
      minute: fc.nat(8),
      status: fc.constantFrom(...broker.features.statuses),
      side: fc.constantFrom(...broker.features.sides),
      raw: fc.oneof({ weight: 2, arbitrary: anyRaw }, fc.constant({})),
    })
    .map(({ minute, ...fields }) => toFact('', minute, fields))

const withIds = (facts: readonly Fact[]): Fact[] => facts.map((fact, index) => ({ ...fact, id: `ord_${index + 1}` }))

const words = {
  side: ['BUY', 'SELL', 'SELL_SHORT', 'BUY_TO_COVER', 'UNKNOWN'],
  type: ['MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT', 'TRAILING_STOP', 'UNKNOWN'],
  timeInForce: ['DAY', 'GTC', 'OPG', 'CLS', 'IOC', 'FOK', 'UNKNOWN'],
  commissionType: ['NOTIONAL', 'QTY', 'BPS', 'UNKNOWN', null],
  securityType: ['EQUITY', 'OPTION', 'UNKNOWN', null],
} as const

/** What is wrong with the shape of an order; empty for one that the graph can answer. */
function findFaults(order: Order, { broker }: Bench): string[] {
  const faults: string[] = []
  const check = (field: string, holds: boolean): void => void (holds || faults.push(field))
  check('id', brokerOf(order.id) === broker.id)
  check('symbol', typeof order.symbol === 'string' && order.symbol !== '')
  check('asset', order.asset === null ? order.securityType === 'OPTION' : order.asset.symbol === order.symbol)
  check('account', order.account.broker === broker.id && order.account.id !== '')
  check('broker', order.broker === broker.id)
  check('legs', Array.isArray(order.legs))
  check('status', order.status === 'UNKNOWN' || broker.features.statuses.includes(order.status))
  check('state', order.state === stateOf(order.status))
  check('isCancelable', order.isCancelable === (order.state !== 'CLOSED'))
  check('brokerStatus', order.brokerStatus === null || typeof order.brokerStatus === 'string')
  for (const [field, known] of Object.entries(words) as [keyof typeof words, readonly (string | null)[]][]) {
    check(field, known.includes(order[field]))
  }
  for (const field of [...nullable, 'extendedHours'] as const) {
    const value = order[field]
    if (value === null || value instanceof UpstreamError) continue
    if (field === 'extendedHours') check(field, typeof value === 'boolean')
    else if (decimals.some((each) => each === field)) check(field, typeof value === 'string' && isDecimal(value))
    else if (instants.some((each) => each === field))
      check(field, typeof value === 'string' && parseInstant(value) === value)
    else check(field, typeof value === 'string')
  }
  return faults
}

const laws: Record<string, Case> = {
  'whatever the bodies hold, reads never throw and an order never has a field of the wrong type': async (bench) => {
    const { book, broker, keyOf, account } = bench
    const statuses = [null, ...broker.features.statuses]
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyFact(broker), { minLength: 1, maxLength: 6 }),
        fc.constantFrom(...statuses),
        async (facts, status) => {
          book.facts = withIds(facts)
          const keys = book.facts.map(({ id }) => keyOf(id))
          const orders = await broker.orders(keys, createScope())
          for (const [index, order] of orders.entries()) {
            if (order === null || order instanceof UpstreamError) continue
            expect(order.id).toBe(keys[index]?.id)
            expect(findFaults(order, bench)).toEqual([])
          }
          const page = await bench.readPage({ first: 100, statuses: status && [status] })
          const told = page.rows.flatMap(({ order }) => (order instanceof UpstreamError ? [] : [order]))
          expect(new Set(told.map(({ id }) => id)).size).toBe(told.length)
          for (const order of told) {
            expect(findFaults(order, bench)).toEqual([])
            expect(order.account.id).toBe(account)
            if (status !== null) expect(order.status).toBe(status)
          }
          // What a search calls complete has all that can be read, and nothing that cannot.
          const { ids, isComplete } = await bench.scan({ symbol: null, side: null })
          if (isComplete)
            expect(ids).toEqual(expect.arrayContaining(told.filter(() => status === null).map(({ id }) => id)))
        },
      ),
      { numRuns: 30 },
    )
  },

  'whatever a placement is answered, it is accepted only with an id and what was sent': async (bench) => {
    const { broker, column, order, say } = bench
    const echoed = fc.constantFrom(...(['id', 'status', ...column.echoes] as const))
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(echoed, anything, { maxKeys: 4, noNullPrototype: true }),
        fc.constantFrom(200, 201, 400, 403, 404, 409, 422),
        async (changed, status) => {
          const body = column.toPlaced(order, { raw: changed })
          say(json(body, status))
          const placed = await broker.place(order, toOptions()).catch((error: unknown) => requireError(error))
          if (placed instanceof UpstreamError) {
            // None of these bodies is a refusal of the broker's, so none proves that there is no order.
            expect(placed).toMatchObject({ effect: 'unknown', rejection: null })
            return
          }
          expect(status).toBeLessThan(300)
          const sent = column.toPlaced(order)
          expect(placed.orderId).toBe(column.toId('id' in changed ? String(changed['id']) : 'ord_1'))
          // An answer with anything else is confirmed by a read first.
          if (judgeAnswer(toPlacement(order), placed, false) !== 'ours') return
          for (const field of ['symbol', 'side', 'clientOrderId'] as const) {
            if (!(field in changed)) continue
            expect([undefined, null, '', sent[column.fields[field] ?? ''] ?? order.clientOrderId]).toContain(
              changed[field],
            )
          }
          expect(placed.rejection).toBeNull()
          if (placed.order) expect(findFaults(placed.order, bench)).toEqual([])
        },
      ),
      { numRuns: 40 },
    )
  },

  'merged pages neither lose nor repeat, whatever arrives and ends meanwhile': async (bench) => {
    const { apart, book, broker, column, toIds } = bench
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyFact(broker), { maxLength: 14 }),
        fc.integer({ min: 1, max: 8 }),
        fc.array(fc.nat(40), { maxLength: 6 }),
        fc.boolean(),
        async (facts, first, changes, isOldestFirst) => {
          const given = withIds(facts.map((fact) => ({ ...fact, raw: {} })))
          book.facts = [...given]
          book.isOldestFirst = isOldestFirst
          let step = 0
          // Of an adapter of its own: how a list stands is learned once.
          const walked = await apart((own) =>
            createBench(column, own, book).walk({ first }, () => {
              const change = changes[step++]
              if (change === undefined) return
              book.facts.push(toFact(`late_${step}`, 100 + step, { status: change % 2 === 0 ? 'ACCEPTED' : 'FILLED' }))
              const fact = given[change % Math.max(1, given.length)]
              if (fact) fact.status = 'FILLED'
            }),
          )
          expect([...walked].sort()).toEqual(toIds(given).toSorted())
          // Ties of a list that is read behind an offset stand as the broker has them.
          const times = new Map(given.map(({ id, createdAt }) => [column.toId(id), createdAt]))
          const walkedTimes = walked.map((id) => times.get(id ?? '') ?? '')
          expect(walkedTimes).toEqual(walkedTimes.toSorted().reverse())
        },
      ),
      { numRuns: 15 },
    )
  },
}

// ---- running it -------------------------------------------------------------------------------------------------

describe.each(columns)('$name', (column) => {
  let broker: Broker
  let book: Book

  beforeEach(() => {
    requests.length = 0
    book = createBook()
    current = { column, book }
    broker = column.createBroker(url)
  })
  afterEach(() => broker.close(1_000))

  const ofLists = { reads, pages, filters, scans, laws }
  const groups = column.hasOwnListsOnly ? ofLists : { ...ofLists, errors, placements, cancels }
  for (const [group, cases] of Object.entries(groups)) {
    describe(group, () => {
      for (const [name, run] of Object.entries(cases)) test(name, () => run(createBench(column, broker, book)))
    })
  }
})
