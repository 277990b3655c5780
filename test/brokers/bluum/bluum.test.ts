// Bluum's accounts dialect in its three envelopes: what is special to it, against a server on loopback that answers what
// the case tells it to. What every adapter owes the house through its one interface is in brokers.contract.test.ts.
//
// The bodies in fixtures/bluum are the examples of Bluum's public API documentation (account generation, 2026-03), from
// its pages on placing, listing, reading and canceling an order, quoted as published: the answer to the placement has no
// currency, list rows have no extended_hours, and ids are `ord_…` where the reference declares UUIDs.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import * as fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { createBluum } from '../../../src/brokers/bluum/bluum.ts'
import { UpstreamError } from '../../../src/upstream/errors.ts'
import { createTally } from '../../../src/upstream/readScope.ts'
import type { Broker, Page, PageQuery, PlaceOptions, ScanQuery } from '../../../src/brokers/broker.ts'
import type { UpstreamEffect, UpstreamErrorKind } from '../../../src/upstream/errors.ts'
import type { ReadScope } from '../../../src/upstream/readScope.ts'
import type { NewOrder, Order, OrderKey, OrderRejectionCode } from '../../../src/domain/order.ts'

// ---- dialects ---------------------------------------------------------------------------------------------------

type Body = Record<string, unknown>

/** One column of the table: how an adapter is made, and how its broker wraps what a case wants to say. */
interface Dialect {
  name: string
  /** Whether its lists come in another envelope than those of the column before. */
  hasOwnLists: boolean
  createBroker(url: string): Broker
  list(rows: readonly unknown[], hasMore: boolean): unknown
  refusal(code: string, message: string): Body
}

// No breaker and no rate that matters: what a case is answered must not change what the adapter does next.
const createBroker = (url: string): Broker =>
  createBluum({
    url: `${url}/v1`,
    apiKey: 'key-1',
    apiSecret: 'secret:with:colons',
    requestsPerSecond: 100_000,
    breaker: false,
  })

const dialects: Dialect[] = [
  {
    name: 'Bluum accounts, as in the reference',
    hasOwnLists: true,
    createBroker,
    list: (rows) => rows,
    refusal: (code, message) => ({ code, message }),
  },
  {
    name: 'Bluum accounts, wrapped as in the newer pages',
    hasOwnLists: true,
    createBroker,
    list: (data, hasMore) => ({ object: 'list', url: '/orders', has_more: hasMore, data }),
    refusal: (code, message) => ({ error: { type: 'invalid_request_error', code, message, param: null } }),
  },
  {
    name: 'Bluum accounts, errors with a status',
    hasOwnLists: false,
    createBroker,
    list: (rows) => rows,
    refusal: (code, message) => ({ status: 'error', code, message }),
  },
]

// ---- the broker on loopback -------------------------------------------------------------------------------------

interface Seen {
  method: string
  path: string
  query: Record<string, string>
  headers: NodeJS.Dict<string | string[]>
  body: unknown
}

interface Reply {
  status: number
  headers: Record<string, string>
  text: string
}

type Answerer = (request: Seen) => Reply

const json = (body: unknown, status = 200, headers: Record<string, string> = {}): Reply =>
  raw(JSON.stringify(body), status, { 'content-type': 'application/json', ...headers })

const raw = (text: string, status = 200, headers: Record<string, string> = {}): Reply => ({
  status,
  headers: { 'content-type': 'application/json', ...headers },
  text,
})

const html = (status: number): Reply => raw('<h1>not the broker</h1>', status, { 'content-type': 'text/html' })

const requests: Seen[] = []
let answerer: Answerer = () => html(500)

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = ''
  for await (const chunk of request) text += String(chunk)
  const url = new URL(request.url ?? '/', 'http://broker')
  const seen: Seen = {
    method: request.method ?? '',
    path: url.pathname,
    query: Object.fromEntries(url.searchParams),
    headers: request.headers,
    body: text === '' ? undefined : (JSON.parse(text) as unknown),
  }
  requests.push(seen)
  const reply = answerer(seen)
  response.writeHead(reply.status, reply.headers).end(reply.text)
}

/** What a case works with: the adapter of its column, and what it says to the server. */
interface Bench {
  broker: Broker
  dialect: Dialect
  /** One reply a request, in their order. A request beyond the last reply gets a 500, which fails the case. */
  answer(...replies: Reply[]): void
  /** A reply for each request by what it asks. */
  answerBy(answerer: Answerer): void
  /** Serves pages of `rows` as its query asks; a filter in the query is ignored. */
  answerList(rows: readonly Body[]): void
  /** Serves pages of `rows`, whose rows leave out the fields `omitted`, and each of them whole by its id. */
  answerBook(rows: readonly Body[], omitted?: readonly string[]): void
  readOne(body: unknown): Promise<Order>
  readOneError(reply: Reply): Promise<UpstreamError>
  readPage(query?: Partial<PageQuery>): Promise<Page>
  placeError(reply: Reply, order?: NewOrder): Promise<UpstreamError>
}

/** Runs on an adapter of its own, which has seen nothing yet. */
async function withBroker<T>(dialect: Dialect, run: (broker: Broker) => Promise<T>): Promise<T> {
  const broker = dialect.createBroker(url)
  try {
    return await run(broker)
  } finally {
    await broker.close(1_000)
  }
}

function createBench(broker: Broker, dialect: Dialect): Bench {
  const bench: Bench = {
    broker,
    dialect,
    answer(...replies) {
      answerer = () => replies.shift() ?? html(500)
    },
    answerBy(by) {
      answerer = by
    },
    answerList(rows) {
      answerer = ({ query }) => {
        const start = Number(query.offset)
        const end = start + Number(query.limit)
        return json(dialect.list(rows.slice(start, end), end < rows.length))
      }
    },
    answerBook(rows, omitted = []) {
      const listPath = `/v1/trading/accounts/${accountId}/orders`
      answerer = ({ path, query }) => {
        if (path === listPath) {
          const start = Number(query.offset)
          const end = start + Number(query.limit)
          return json(
            dialect.list(
              rows.slice(start, end).map((row) => without(row, ...omitted)),
              end < rows.length,
            ),
          )
        }
        const row = rows.find(({ id }) => path === `/v1/trading/orders/${String(id)}`)
        return row === undefined ? json(dialect.refusal('BLUM-404-001', 'No such resource.'), 404) : json(row)
      }
    },
    async readOne(body) {
      bench.answer(typeof body === 'string' ? raw(body) : json(body))
      const [order] = await broker.orders([keyOf('ord_1')], createScope())
      if (!order || order instanceof UpstreamError) throw order ?? new Error('no order')
      return order
    },
    async readOneError(reply) {
      bench.answer(reply)
      const [order] = await broker.orders([keyOf('ord_1')], createScope())
      return requireError(order)
    },
    async readPage(query = {}) {
      const [page] = await broker.pages([toQuery(query)], createScope())
      if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
      return page
    },
    async placeError(reply, order = newOrder) {
      bench.answer(reply)
      // Of an adapter of its own, because a 429 holds back the next placement.
      return await withBroker(dialect, async (own) =>
        requireError(await own.place(order, toOptions()).catch((error: unknown) => error)),
      )
    },
  }
  return bench
}

// ---- values -----------------------------------------------------------------------------------------------------

const accountId = '3d0b0e65-35d3-4dcd-8df7-10286ebb4b4b'
const inAMinute = (): number => Date.now() + 60_000

const readFixture = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../fixtures/bluum/bluum.${name}.json`, import.meta.url), 'utf8'))

const createScope = (signal = new AbortController().signal): ReadScope => ({
  signal,
  deadline: inAMinute(),
  isForCancel: false,
  caller: null,
  tally: createTally(),
})

const toOptions = (idempotencyKey = 'op-1'): PlaceOptions => ({
  idempotencyKey,
  sendBy: inAMinute(),
  beforeSend: async () => {},
})

const keyOf = (id: string, hint: string | null = null, mustBeWhole = false): OrderKey => ({
  broker: 'BLUUM',
  id,
  accountId: hint,
  mustBeWhole,
})

const toQuery = (query: Partial<PageQuery>): PageQuery => ({
  broker: 'BLUUM',
  accountId,
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
})

/** A body that holds just what an order needs, and `fields`. */
const toBody = (fields: Body = {}): Body => ({
  id: 'ord_1',
  account_id: accountId,
  symbol: 'AAPL',
  side: 'buy',
  type: 'market',
  time_in_force: 'day',
  status: 'accepted',
  ...fields,
})

const toRows = (count: number, fields: Body = {}): Body[] =>
  Array.from({ length: count }, (_, index) => toBody({ id: `ord_${index + 1}`, ...fields }))

const without = (body: Body, ...fields: string[]): Body =>
  Object.fromEntries(Object.entries(body).filter(([field]) => !fields.includes(field)))

/** As `count` rows that were submitted one a minute, `ord_1` last: newest first. */
const toTimedRows = (count: number, fields: Body = {}): Body[] =>
  toRows(count, fields).map((row, index) => ({ ...row, submitted_at: timeOf(count - index) }))

const timeOf = (minute: number): string => `${new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString().slice(0, 19)}Z`

const idsOf = (page: Pick<Page, 'rows'>): (string | null)[] =>
  page.rows.map(({ order }) => (order instanceof UpstreamError ? null : order.id))

/** What was asked: the id of an order that was read singly, else the offset of a list. */
const asked = (): string[] =>
  requests.map(({ path, query }) => /^\/v1\/trading\/orders\/(.+)$/.exec(path)?.[1] ?? `list ${query.offset}`)

const ordersOf = (page: Page): Order[] =>
  page.rows.flatMap(({ order }) => (order instanceof UpstreamError ? [] : [order]))

function requireError(value: unknown): UpstreamError {
  if (value instanceof UpstreamError) return value
  throw value instanceof Error ? value : new Error(`no UpstreamError: ${JSON.stringify(value)}`)
}

/** The order of the vendor's example request. */
const newOrder: NewOrder = {
  accountId,
  clientOrderId: 'limitorder123',
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
  commission: '1.00',
  commissionType: 'NOTIONAL',
}

const exampleBase: Order = {
  id: 'ord_x9y8z7a6b5c4d3e2',
  broker: 'BLUUM',
  account: { id: accountId, broker: 'BLUUM' },
  asset: { symbol: 'AAPL' },
  symbol: 'AAPL',
  securityType: null,
  legs: [],
  currency: 'USD',
  clientOrderId: null,
  side: 'BUY',
  type: 'MARKET',
  timeInForce: 'DAY',
  quantity: '10',
  notional: null,
  limitPrice: null,
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: false,
  status: 'FILLED',
  brokerStatus: 'filled',
  state: 'CLOSED',
  isCancelable: false,
  filledQuantity: '10',
  remainingQuantity: '0',
  averagePrice: '175.50',
  commission: '1.00',
  commissionType: 'NOTIONAL',
  submittedAt: '2025-01-15T14:30:00Z',
  filledAt: '2025-01-15T14:30:15Z',
  canceledAt: null,
  rejectReason: null,
  isPartial: false,
}

// As the page shows them, oldest first.
const exampleRows: Order[] = [
  { ...exampleBase, extendedHours: null, commission: null, commissionType: null, isPartial: true },
  {
    ...exampleBase,
    id: 'ord_a1b2c3d4e5f6g7h8',
    asset: { symbol: 'MSFT' },
    symbol: 'MSFT',
    type: 'LIMIT',
    timeInForce: 'GTC',
    quantity: '5',
    limitPrice: '350.00',
    extendedHours: null,
    status: 'ACCEPTED',
    brokerStatus: 'accepted',
    state: 'OPEN',
    isCancelable: true,
    filledQuantity: '0',
    remainingQuantity: '5',
    averagePrice: null,
    commission: null,
    commissionType: null,
    submittedAt: '2025-01-15T15:00:00Z',
    filledAt: null,
    isPartial: true,
  },
]

const examplePlaced: Order = {
  ...exampleBase,
  currency: null,
  clientOrderId: 'limitorder123',
  type: 'LIMIT',
  quantity: '5',
  limitPrice: '175.00',
  extendedHours: null,
  status: 'ACCEPTED',
  brokerStatus: 'accepted',
  state: 'OPEN',
  isCancelable: true,
  filledQuantity: '0',
  remainingQuantity: '5',
  averagePrice: null,
  submittedAt: '2025-10-18T10:30:00Z',
  filledAt: null,
  isPartial: true,
}

const exampleCanceled: Order = {
  ...exampleBase,
  type: 'LIMIT',
  timeInForce: 'GTC',
  limitPrice: '175.00',
  status: 'CANCELED',
  brokerStatus: 'canceled',
  filledQuantity: '0',
  remainingQuantity: '10',
  averagePrice: null,
  commission: null,
  commissionType: null,
  filledAt: null,
  canceledAt: '2025-01-15T15:00:00Z',
}

const exampleListBody = readFixture('list.response') as Body[]
const placedBody = readFixture('place.response') as Body
const canceledBody = readFixture('cancel.response') as Body

const notIds = [
  '',
  '.',
  '..',
  '../accounts',
  'ord/1',
  'ord?1',
  'ord#1',
  'ord 1',
  'ord_1\n',
  '%2e%2e',
  'é',
  'x'.repeat(129),
]

// ---- the table --------------------------------------------------------------------------------------------------

type Case = (bench: Bench) => Promise<void>

const reads: Record<string, Case> = {
  "the vendor's example of one order means the same here, field by field": async ({ broker, answer }) => {
    answer(json(readFixture('get.response')))
    expect(await broker.orders([keyOf('ord_x9y8z7a6b5c4d3e2')], createScope())).toEqual([exampleBase])
    expect(requests.map(({ method, path, query }) => [method, path, query])).toEqual([
      ['GET', '/v1/trading/orders/ord_x9y8z7a6b5c4d3e2', {}],
    ])
  },

  'every call carries the credentials as HTTP Basic': async ({ broker, dialect, answerBy }) => {
    answerBy(({ path }) => json(path.endsWith('/orders') || path.endsWith('/accounts') ? dialect.list([], false) : {}))
    await broker.orders([keyOf('ord_1')], createScope())
    await broker.pages([toQuery({})], createScope())
    await broker.accounts(createScope())
    await broker.cancel(exampleCanceled, inAMinute())
    const expected = `Basic ${Buffer.from('key-1:secret:with:colons').toString('base64')}`
    expect(requests.map(({ headers }) => headers.authorization)).toEqual(Array(4).fill(expected))
  },

  'extended_hours and a commission type that are absent, null or empty have no value': async ({ readOne }) => {
    for (const value of [undefined, null, '']) {
      const order = await readOne(toBody({ extended_hours: value, commission_type: value }))
      expect(order).toMatchObject({ extendedHours: null, commissionType: null, securityType: null, legs: [] })
    }
  },

  'extended_hours that are no boolean are an Error, and a commission type that nobody knows is UNKNOWN': async ({
    readOne,
  }) => {
    for (const value of ['true', { strange: true }, 'constructor']) {
      const order = await readOne(toBody({ extended_hours: value, commission_type: value }))
      expect(order.extendedHours).toBeInstanceOf(UpstreamError)
      expect(order.commissionType).toBe('UNKNOWN')
    }
  },

  'the words of a status, a side, a type, a time in force and a commission type are ours': async ({ readOne }) => {
    const words = {
      status: {
        accepted: 'ACCEPTED',
        partially_filled: 'PARTIALLY_FILLED',
        filled: 'FILLED',
        canceled: 'CANCELED',
        rejected: 'REJECTED',
      },
      side: { buy: 'BUY', sell: 'SELL' },
      type: {
        market: 'MARKET',
        limit: 'LIMIT',
        stop: 'STOP',
        stop_limit: 'STOP_LIMIT',
        trailing_stop: 'TRAILING_STOP',
      },
      timeInForce: { day: 'DAY', gtc: 'GTC', opg: 'OPG', cls: 'CLS', ioc: 'IOC', fok: 'FOK' },
      commissionType: { notional: 'NOTIONAL', qty: 'QTY', bps: 'BPS' },
    }
    const names: Record<string, string> = { timeInForce: 'time_in_force', commissionType: 'commission_type' }
    for (const [field, table] of Object.entries(words)) {
      for (const [word, ours] of Object.entries(table)) {
        expect(await readOne(toBody({ [names[field] ?? field]: word }))).toHaveProperty(field, ours)
      }
    }
  },

  'a field that is required and has the wrong type fails the order': async ({ readOneError }) => {
    for (const field of ['id', 'symbol', 'account_id']) {
      for (const value of [{}, [], true]) {
        const error = await readOneError(json(toBody({ [field]: value })))
        expect(error).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
      }
    }
    for (const field of ['id', 'symbol', 'account_id', 'status']) {
      for (const value of [undefined, null]) {
        expect(await readOneError(json(toBody({ [field]: value })))).toMatchObject({ kind: 'unreadable' })
      }
    }
    for (const body of [null, [], [toBody()], 'text', 7, true]) {
      expect(await readOneError(json(body))).toMatchObject({ kind: 'unreadable' })
    }
  },

  'an answer for another order is unreadable (C16)': async ({ readOneError }) => {
    for (const id of ['ord_2', 'ORD_1', 'ord_10']) {
      expect(await readOneError(json(toBody({ id })))).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
    }
  },

  'only the code for a missing order makes it none': async ({ broker, dialect, answer, readOneError }) => {
    answer(json(dialect.refusal('BLUM-404-001', 'No such order.'), 404))
    expect(await broker.orders([keyOf('ord_1')], createScope())).toEqual([null])
    const other = await readOneError(json(dialect.refusal('BLUM-404-002', 'No such path.'), 404))
    expect(other).toMatchObject({ kind: 'refused', brokerCode: 'BLUM-404-002', rejection: null })
  },

  'a 404 that is not in the words of the broker never means that there is no such order': async ({ readOneError }) => {
    const foreign = [
      html(404),
      json({ message: 'no route' }, 404),
      json({ code: 404, message: 'no route' }, 404),
      json({ error: 'Not Found' }, 404),
      json({ code: 'NOT_FOUND' }, 404),
      json({ code: 'xBLUM-404-001' }, 404),
      json([{ code: 'BLUM-404-001' }], 404),
      json(null, 404),
      raw('', 404),
    ]
    for (const reply of foreign) {
      expect(await readOneError(reply), reply.text).toMatchObject({ kind: 'unreadable', status: 404 })
    }
  },

  'an order that fails among many fails alone, in its slot': async ({ broker, dialect, answerBy }) => {
    answerBy(({ path }) => {
      const id = path.split('/').at(-1)
      if (id === 'ord_2') return html(502)
      if (id === 'ord_3') return json(dialect.refusal('BLUM-404-001', 'No such order.'), 404)
      if (id === 'ord_4') return json(dialect.refusal('BLUM-429-001', 'Slow down.'), 429, { 'retry-after': '30' })
      return json(toBody({ id }))
    })
    const orders = await broker.orders(
      ['ord_1', 'ord_2', 'ord_3', 'ord_4', 'ord_5'].map((id) => keyOf(id)),
      createScope(),
    )
    expect(orders).toMatchObject([
      { id: 'ord_1' },
      { kind: 'failed', status: 502 },
      null,
      { kind: 'throttled', retryAfterMs: 30_000, brokerCode: 'BLUM-429-001' },
      { id: 'ord_5' },
    ])
  },

  'an account that is no id never becomes a path': async ({ broker }) => {
    for (const id of notIds) {
      const hinted = ['ord_1', 'ord_2', 'ord_3'].map((known) => keyOf(known, id))
      await expect(broker.orders(hinted, createScope())).rejects.toThrow(RangeError)
      const account = { id, broker: 'BLUUM' as const }
      await expect(broker.cancel({ ...exampleCanceled, account }, inAMinute())).rejects.toThrow(RangeError)
    }
    expect(requests).toEqual([])
  },
}

const lists: Record<string, Case> = {
  "the vendor's example of a list means the same here, newest first, and its rows are partial": async (bench) => {
    bench.answerList(exampleListBody)
    const page = await bench.readPage({ first: 50 })
    expect(page.rows.map(({ order }) => order)).toEqual(exampleRows.toReversed())
    expect(page).toMatchObject({ hasMore: false, isComplete: true, position: page.rows[1]?.position })
    expect(requests).toHaveLength(1)
  },

  'a row without extended_hours is partial, any other is whole': async (bench) => {
    const values = [undefined, false, true, null, 'yes']
    bench.answerList(values.map((extended_hours, index) => toBody({ id: `ord_${index}`, extended_hours })))
    expect(ordersOf(await bench.readPage()).map((order) => order.isPartial)).toEqual([true, ...Array(4).fill(false)])
  },

  'a list is asked with the status, symbol, side, limit and offset of the query': async (bench) => {
    bench.answerList(toTimedRows(40))
    // Until the order of the lists has shown, a call asks for as much as it can hold.
    const { rows } = await bench.readPage({ first: 30 })
    const after = rows.at(-1)?.position ?? ''
    bench.answerList([])
    await bench.readPage({ statuses: ['PARTIALLY_FILLED'], symbol: 'BRK.B', side: 'SELL', first: 20 })
    await bench.readPage({ after, first: 20 })
    await bench.readPage({ first: 20, wantsMore: false })
    await bench.readPage({ first: 100 })
    expect(requests.map(({ method, path }) => `${method} ${path}`)).toEqual(
      Array(5).fill(`GET /v1/trading/accounts/${accountId}/orders`),
    )
    expect(requests.map(({ query }) => query)).toEqual([
      { limit: '100', offset: '0' },
      { status: 'partially_filled', symbol: 'BRK.B', side: 'sell', limit: '21', offset: '0' },
      { limit: '21', offset: '30' },
      { limit: '20', offset: '0' },
      { limit: '100', offset: '0' },
    ])
  },

  'a list is an array or an object with data': async ({ answer, readPage }) => {
    for (const body of [toRows(2), { data: toRows(2) }, { object: 'list', data: toRows(2), has_more: false }]) {
      answer(json(body))
      expect(idsOf(await readPage())).toEqual(['ord_1', 'ord_2'])
    }
  },

  'what is no list is unreadable, never an empty one (C17)': async ({ broker, answer }) => {
    const replies = [json({}), json({ orders: [] }), json('[]'), json({ data: {} }), html(200)]
    for (const reply of replies) {
      answer(reply)
      expect(await broker.pages([toQuery({})], createScope()), reply.text).toMatchObject([{ kind: 'unreadable' }])
      answer(reply)
      await expect(broker.accounts(createScope())).rejects.toMatchObject({ kind: 'unreadable' })
    }
  },

  'rows that are no objects are errors alone, each of them': async ({ answer, dialect, readPage }) => {
    answer(json(dialect.list([null, null, 'row', 7, [], toBody()], false)))
    expect(idsOf(await readPage())).toEqual([null, null, null, null, null, 'ord_1'])
  },

  'a row without account_id belongs to the account whose list it is': async (bench) => {
    bench.answerList([without(toBody(), 'account_id')])
    expect((await bench.readPage()).rows[0]?.order).toMatchObject({ account: { id: accountId, broker: 'BLUUM' } })
  },

  'has_more true on a short page goes on': async ({ answer, readPage }) => {
    const [one, two, three, four] = toTimedRows(4)
    answer(json({ data: [one, two], has_more: true }), json({ data: [three, four], has_more: false }))
    const page = await readPage({ first: 4 })
    expect(idsOf(page)).toEqual(['ord_1', 'ord_2', 'ord_3', 'ord_4'])
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
    expect(requests.map(({ query }) => query)).toEqual([
      { limit: '100', offset: '0' },
      { limit: '3', offset: '2' },
    ])
  },

  'has_more decides about a full page without another call': async ({ answer, readPage }) => {
    for (const hasMore of [true, false]) {
      answer(json({ data: toRows(100), has_more: hasMore }))
      const page = await readPage({ first: 100 })
      expect(page.rows).toHaveLength(100)
      expect(page).toMatchObject({ hasMore, isComplete: true })
    }
    expect(requests).toHaveLength(2)
  },

  'has_more over an empty page proves no end': async ({ answer, readPage }) => {
    answer(json({ data: [], has_more: true }))
    expect(await readPage()).toEqual({ rows: [], hasMore: null, isComplete: false, position: null })
    expect(requests).toHaveLength(1)
  },

  'a broker that cuts its pages short and says so is read to the end, however it sorts': async (bench) => {
    const rows = toTimedRows(240)
    for (const sorted of [rows, rows.toReversed()]) {
      bench.answerBy(({ query }) => {
        const start = Number(query.offset)
        const end = start + Math.min(60, Number(query.limit))
        return json({ data: sorted.slice(start, end), has_more: end < rows.length })
      })
      await withBroker(bench.dialect, async (broker) => {
        const ids: (string | null)[] = []
        for (let after: string | null = null, hasMore: boolean | null = true; hasMore !== false;) {
          const [page] = await broker.pages([toQuery({ first: 100, after })], createScope())
          if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
          expect(page.isComplete).toBe(true)
          ids.push(...idsOf(page))
          ;({ position: after, hasMore } = page)
        }
        expect(ids).toEqual(rows.map(({ id }) => id))
      })
    }
  },

  'a list shorter than its page is one call, and two while the broker may cap its pages there': async (bench) => {
    const { answer, readPage } = bench
    const sizes = [
      [9, 1, null],
      [40, 2, null],
      [39, 1, 'AAPL'],
    ] as const
    for (const [size, calls, symbol] of sizes) {
      requests.length = 0
      answer(...[json(toRows(size)), json([])].slice(0, calls))
      const page = await readPage({ first: 100, symbol })
      expect(page.rows).toHaveLength(size)
      expect(page).toMatchObject({ hasMore: false, isComplete: true })
      expect(requests).toHaveLength(calls)
    }
  },

  'below the maximum, the row that tells of more is in the same call': async ({ answer, readPage }) => {
    answer(json(toTimedRows(2)), json(toTimedRows(11)))
    await readPage() // shows the order of the lists
    const page = await readPage({ first: 10 })
    expect(page.rows).toHaveLength(10)
    expect(page).toMatchObject({ hasMore: true, isComplete: true })
    expect(requests.map(({ query }) => query)).toEqual([
      { limit: '100', offset: '0' },
      { limit: '11', offset: '0' },
    ])
  },

  'a full page of 100 is one call when nobody wants to know of more': async ({ answer, readPage }) => {
    answer(json(toRows(100)))
    const page = await readPage({ first: 100, wantsMore: false })
    expect(page.rows).toHaveLength(100)
    expect(page).toMatchObject({ hasMore: null, isComplete: true })
    expect(requests).toHaveLength(1)
  },

  'a full page of 100 is a second call, for one row, when somebody does': async ({ answer, readPage }) => {
    for (const [rest, hasMore] of [
      [[], false],
      [[toBody({ id: 'ord_101', submitted_at: timeOf(0) })], true],
    ] as const) {
      requests.length = 0
      answer(json(toTimedRows(100)), json(rest))
      const page = await readPage({ first: 100 })
      expect(page.rows).toHaveLength(100)
      expect(page).toMatchObject({ hasMore, isComplete: true })
      expect(requests.map(({ query }) => query)).toEqual([
        { limit: '100', offset: '0' },
        { limit: '1', offset: '100' },
      ])
    }
  },

  'more rows than asked for are cut, and follow (C18)': async ({ answer, dialect, readPage }) => {
    for (const wantsMore of [true, false]) {
      answer(json(dialect.list(toRows(150), false)))
      const page = await readPage({ first: 100, wantsMore })
      expect(page.rows).toHaveLength(100)
      expect(page).toMatchObject({ hasMore: true, isComplete: true })
      requests.length = 0
      answer(json(dialect.list([], false)))
      await readPage({ after: page.rows.at(-1)?.position ?? '' })
      expect(requests.map(({ query }) => query.offset)).toEqual(['100'])
    }
  },

  'a row that comes twice is shown once (C18)': async (bench) => {
    bench.answerList([1, 1, 2, 1, 3, 3].map((n) => toBody({ id: `ord_${n}` })))
    const page = await bench.readPage({ first: 5 })
    expect(idsOf(page)).toEqual(['ord_1', 'ord_2', 'ord_3'])
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
  },

  'a broker that ignores the offset is not followed for ever': async ({ answerBy, readPage }) => {
    answerBy(() => json(toRows(100)))
    const page = await readPage({ first: 100 })
    expect(page.rows).toHaveLength(100)
    expect(page).toMatchObject({ hasMore: null, isComplete: false })
    expect(requests).toHaveLength(20)
  },

  'a filter that the broker ignores is applied here, and the search goes on (C21)': async (bench) => {
    const rows = toTimedRows(250)
    for (const index of [180, 240]) rows[index] = { ...rows[index], status: 'filled' }
    bench.answerList(rows)
    const page = await bench.readPage({ first: 2, statuses: ['FILLED'] })
    expect(idsOf(page)).toEqual(['ord_181', 'ord_241'])
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
    expect(requests.map(({ query }) => query.limit)).toEqual(['100', '100', '100'])
    expect(idsOf(await bench.readPage({ statuses: ['FILLED'], after: page.rows[0]?.position ?? '' }))).toEqual([
      'ord_241',
    ])
  },

  'a list resumed after any row goes on with the next one': async (bench) => {
    const timed = toTimedRows(7)
    // Rows without a time, newest first, and oldest first.
    for (const bodies of [toRows(7), timed, timed.toReversed()]) {
      bench.answerList(bodies)
      const { rows } = await bench.readPage()
      expect(idsOf({ rows })).toEqual(toRows(7).map(({ id }) => id))
      for (const [index, row] of rows.entries()) {
        const rest = await bench.readPage({ after: row.position })
        expect(idsOf(rest)).toEqual(idsOf({ rows }).slice(index + 1))
      }
      const two = await bench.readPage({ after: rows[1]?.position ?? '', first: 2 })
      expect(two.rows.map((row) => row.position)).toEqual(rows.slice(2, 4).map((row) => row.position))
    }
  },

  'a position that the adapter cannot have made is refused': async ({ broker }) => {
    const made = '1 2026-01-01T00:00:00Z abcdefgh'
    const foreign = [
      '',
      '1',
      '-1',
      '1.5',
      '1e3',
      '0x1',
      ' 1',
      '1234567890',
      'ord_1',
      ` ${made}`,
      `${made} `,
      `${made} abc`,
    ]
    for (const after of [...foreign, made.replace('Z', ''), made.replace('01', '99'), made.replace('h', '+')]) {
      await expect(broker.pages([toQuery({ after })], createScope())).rejects.toThrow(RangeError)
    }
    expect(requests).toEqual([])
  },

  'accounts are their ids alone, and what is no account is passed over': async ({ broker, dialect, answer }) => {
    const rows = [
      { id: accountId, account_number: '551207733', status: 'ACTIVE', contact: { email: 'a@example.com' } },
      { account_number: '1' },
      { id: null },
      { id: {} },
      { id: '' },
      { id: '../orders' },
      null,
      'c9f0f895-fb98-4b91-99f5-1fd0297e236d',
      { id: 'c9f0f895-fb98-4b91-99f5-1fd0297e236d', status: 'SUBMITTED' },
    ]
    answer(json(dialect.list(rows, false)))
    expect(await broker.accounts(createScope())).toEqual([accountId, 'c9f0f895-fb98-4b91-99f5-1fd0297e236d'])
    expect(requests.map(({ method, path, query }) => [method, path, query])).toEqual([['GET', '/v1/accounts', {}]])
  },
}

const otherAccountId = 'c9f0f895-fb98-4b91-99f5-1fd0297e236d'
const hintedKeys = (ids: readonly string[], hint: string = accountId): OrderKey[] => ids.map((id) => keyOf(id, hint))
const threeIds = ['ord_2', 'ord_5', 'ord_3']
// What lists may leave out, with values that only a single read then tells.
const partialFields = ['currency', 'client_order_id', 'extended_hours', 'commission', 'commission_type']
const partialValues: Body = {
  currency: 'USD',
  client_order_id: 'client-0001',
  extended_hours: true,
  commission: '1.00',
  commission_type: 'bps',
}

const batches: Record<string, Case> = {
  'three orders of one account are one call, for its list': async ({ broker, answerBook }) => {
    answerBook(toTimedRows(20, partialValues), partialFields)
    const scope = createScope()
    expect(await broker.orders(hintedKeys(threeIds), scope)).toMatchObject(
      threeIds.map((id) => ({ id, account: { id: accountId }, currency: null, isPartial: true })),
    )
    expect(asked()).toEqual(['list 0'])
    expect(scope.tally).toMatchObject({ calls: 1, batched: 3 })
  },

  'fewer than three are read singly, and are whole': async ({ broker, answerBook }) => {
    answerBook(toTimedRows(20, partialValues), partialFields)
    const scope = createScope()
    expect(await broker.orders(hintedKeys(['ord_2', 'ord_5']), scope)).toMatchObject(
      ['ord_2', 'ord_5'].map((id) => ({ id, currency: 'USD', isPartial: false })),
    )
    expect(asked().sort()).toEqual(['ord_2', 'ord_5'])
    expect(scope.tally).toMatchObject({ calls: 2, batched: 0 })
  },

  'an order read singly is whole, whatever the answer leaves out': async ({ readOne }) => {
    expect(await readOne(toBody())).toMatchObject({ extendedHours: null, isPartial: false })
  },

  'what the list does not have is read singly, in its slot': async ({ broker, dialect, answerBy }) => {
    answerBy(({ path }) => {
      if (path.endsWith('/ord_old')) return json(toBody({ id: 'ord_old' }))
      if (path.endsWith('/orders')) return json(dialect.list(toTimedRows(9), false))
      return json(dialect.refusal('BLUM-404-001', 'No such order.'), 404)
    })
    const scope = createScope()
    expect(await broker.orders(hintedKeys(['ord_none', 'ord_2', 'ord_old', 'ord_5', 'ord_3']), scope)).toMatchObject([
      null,
      { id: 'ord_2', isPartial: true },
      { id: 'ord_old', isPartial: false },
      { id: 'ord_5' },
      { id: 'ord_3' },
    ])
    expect(asked().sort()).toEqual(['list 0', 'ord_none', 'ord_old'])
    expect(scope.tally).toMatchObject({ calls: 3, batched: 3 })
  },

  'a row that cannot be read is no answer: its order is read singly': async ({ broker, dialect, answerBy }) => {
    answerBy(({ path }) =>
      path.endsWith('/orders')
        ? json(dialect.list([{ id: 'ord_2' }, ...toTimedRows(20).slice(2)], false))
        : json(toBody({ id: 'ord_2' })),
    )
    expect(await broker.orders(hintedKeys(threeIds), createScope())).toMatchObject(threeIds.map((id) => ({ id })))
    expect(asked()).toEqual(['list 0', 'ord_2'])
  },

  'orders that must be whole are always read singly': async ({ broker, answerBook }) => {
    answerBook(toTimedRows(20, partialValues), partialFields)
    const ids = ['ord_1', 'ord_2', 'ord_3', 'ord_4']
    const orders = await broker.orders(
      ids.map((id) => keyOf(id, accountId, true)),
      createScope(),
    )
    expect(orders).toMatchObject(ids.map((id) => ({ id, currency: 'USD', isPartial: false })))
    expect(asked().sort()).toEqual(ids)
  },

  'an order that must be whole is so beside one that need not be': async ({ broker, answerBook }) => {
    answerBook(toTimedRows(20, partialValues), partialFields)
    const keys = hintedKeys(threeIds)
    for (const whole of [keyOf('ord_5', accountId, true), keyOf('ord_5', null, true)]) {
      for (const asking of [
        [whole, ...keys],
        [...keys, whole],
      ]) {
        const orders = await broker.orders(asking, createScope())
        expect(orders).toMatchObject(asking.map((key) => ({ id: key.id, isPartial: !key.mustBeWhole })))
      }
    }
  },

  'a key that comes twice is answered twice and counted once': async ({ broker, answerBook }) => {
    answerBook(toTimedRows(20))
    const [two, five, three] = threeIds as [string, string, string]
    const again = [two, five, two, three, five, two]
    expect(await broker.orders(hintedKeys(again), createScope())).toMatchObject(again.map((id) => ({ id })))
    expect(asked()).toEqual(['list 0'])
    requests.length = 0
    expect(await broker.orders(hintedKeys([two, two, two]), createScope())).toMatchObject(
      [two, two, two].map((id) => ({ id })),
    )
    expect(asked()).toEqual([two])
  },

  'the account is known from an earlier answer': async ({ dialect, answerBook, answer }) => {
    const teachers: ((broker: Broker) => Promise<unknown>)[] = [
      (broker) => broker.pages([toQuery({})], createScope()),
      (broker) =>
        broker.orders(
          threeIds.map((id) => keyOf(id)),
          createScope(),
        ),
      (broker) => broker.orders(hintedKeys(threeIds), createScope()),
      async (broker) => {
        for (const id of threeIds) {
          answer(json({ id }, 201))
          await broker.place(newOrder, toOptions(`op-${id}`))
        }
      },
    ]
    for (const teach of teachers) {
      await withBroker(dialect, async (broker) => {
        answerBook(toTimedRows(20))
        await teach(broker)
        answerBook(toTimedRows(20))
        requests.length = 0
        const orders = await broker.orders(
          threeIds.map((id) => keyOf(id)),
          createScope(),
        )
        expect(orders).toMatchObject(threeIds.map((id) => ({ id })))
        expect(asked()).toEqual(['list 0'])
      })
    }
  },

  'orders of no known account are read singly, those of several accounts each in its list': async (bench) => {
    const { broker, dialect, answerBook, answerBy } = bench
    answerBook(toTimedRows(20))
    await broker.orders(
      threeIds.map((id) => keyOf(id)),
      createScope(),
    )
    expect(asked().sort()).toEqual(threeIds.toSorted())
    requests.length = 0
    answerBy(({ path }) => {
      const owner = path.split('/').at(-2)
      return json(
        dialect.list(
          toTimedRows(20, { account_id: owner }).map((row) => ({ ...row, id: `${String(row.id)}.${owner}` })),
          false,
        ),
      )
    })
    const keys = threeIds.flatMap((id) => [accountId, otherAccountId].map((owner) => keyOf(`${id}.${owner}`, owner)))
    expect(await broker.orders(keys, createScope())).toMatchObject(
      keys.map((key) => ({ id: key.id, account: { id: key.accountId } })),
    )
    expect(requests).toHaveLength(2)
  },

  'a wrong account costs one call: it is refused, or its list has none of them': async (bench) => {
    const { dialect, answerBook, answerBy } = bench
    const wrongLists = [
      json(dialect.refusal('BLUM-404-001', 'No such account.'), 404),
      json(dialect.refusal('BLUM-403-003', 'Not your account.'), 403),
      json(dialect.list([], false)),
      json(
        dialect.list(
          toTimedRows(20).map((row) => ({ ...row, id: `other_${String(row.id)}`, account_id: otherAccountId })),
          false,
        ),
      ),
      // Rows of another account than that of the list are errors, and no answer.
      json(dialect.list(toTimedRows(20), false)),
    ]
    for (const wrong of wrongLists) {
      requests.length = 0
      answerBook(toTimedRows(20))
      const right = answerer
      answerBy((request) => (request.path.includes(otherAccountId) ? wrong : right(request)))
      await withBroker(dialect, async (broker) => {
        const orders = await broker.orders(hintedKeys(threeIds, otherAccountId), createScope())
        expect(orders, wrong.text).toMatchObject(threeIds.map((id) => ({ id, account: { id: accountId } })))
      })
      expect(asked().sort()).toEqual(['list 0', ...threeIds.toSorted()])
    }
  },

  'a list that is throttled fails its orders with one error, and no storm of single reads': async (bench) => {
    const { dialect, answerBy } = bench
    const ids = toRows(50).map((row) => String(row.id))
    const slow = json(dialect.refusal('BLUM-429-001', 'Slow down.'), 429, { 'retry-after': '30' })
    answerBy(({ path }) => (path.endsWith('/orders') ? slow : json(toBody({ id: path.split('/').at(-1) }))))
    const orders = await withBroker(dialect, (broker) => broker.orders(hintedKeys(ids), createScope()))
    expect(orders).toMatchObject(ids.map(() => ({ kind: 'throttled' })))
    expect(new Set(orders).size).toBe(1)
    expect(asked()).toEqual(['list 0'])
  },

  'of a list that fails, ten orders an operation and account are read singly, the others fail as the list': async (
    bench,
  ) => {
    const { dialect, answerBy } = bench
    const ids = toRows(50).map((row) => String(row.id))
    // Too long a wait to be repeated.
    const down = { ...html(503), headers: { 'retry-after': '30' } }
    answerBy(({ path }) => (path.endsWith('/orders') ? down : json(toBody({ id: path.split('/').at(-1) }))))
    await withBroker(dialect, async (broker) => {
      const scope = createScope()
      const few = await broker.orders(hintedKeys(ids.slice(0, 4)), scope)
      expect(few).toMatchObject(ids.slice(0, 4).map((id) => ({ id, isPartial: false })))
      const orders = await broker.orders(hintedKeys(ids.slice(4)), scope)
      expect(orders.slice(0, 6)).toMatchObject(ids.slice(4, 10).map((id) => ({ id })))
      expect(orders.slice(6)).toMatchObject(ids.slice(10).map(() => ({ kind: 'failed', status: 503 })))
      expect(new Set(orders.slice(6)).size).toBe(1)
      expect(asked().filter((what) => what === 'list 0')).toHaveLength(2)
      expect(requests).toHaveLength(2 + 10)
      // Another operation has its own.
      expect(await broker.orders(hintedKeys(ids.slice(0, 4)), createScope())).toMatchObject(few)
    })
  },

  'of a list whose connection breaks, what fails singly has its own error': async ({ dialect, answerBy }) => {
    const ids = toRows(5).map((row) => String(row.id))
    answerBy(({ path }) => {
      if (path.endsWith('/orders'))
        return { ...html(200), text: '[', headers: { 'content-length': '9', connection: 'close' } }
      const id = path.split('/').at(-1)
      if (id === ids[1]) return json(dialect.refusal('BLUM-404-001', 'No such order.'), 404)
      return id === ids[2] ? json({}) : json(toBody({ id }))
    })
    await withBroker(dialect, async (broker) => {
      const orders = await broker.orders(hintedKeys(ids), createScope())
      expect(orders).toMatchObject([{ id: ids[0] }, null, { kind: 'unreadable' }, { id: ids[3] }, { id: ids[4] }])
    })
  },

  'a list that fails on a deeper page keeps what it had shown, and ten more are read singly': async (bench) => {
    const { broker, dialect, answerBy } = bench
    const rows = toTimedRows(240)
    const down = { ...html(500), headers: { 'retry-after': '30' } }
    answerBy(({ path, query }) => {
      if (!path.endsWith('/orders')) return json(toBody({ id: path.split('/').at(-1) }))
      return query.offset === '0' ? json(dialect.list(rows.slice(0, 100), true)) : down
    })
    const ids = rows.filter((_, index) => index % 4 === 0).map((row) => String(row.id))
    const orders = await broker.orders(hintedKeys(ids), createScope())
    expect(orders.map((order) => (order instanceof UpstreamError ? order.kind : order?.id))).toEqual([
      ...ids.slice(0, 35),
      ...Array(25).fill('failed'),
    ])
  },

  'a list that fails on its way fails only what it had not shown yet': async ({ broker, dialect, answerBy }) => {
    const rows = toTimedRows(240)
    const slow = json(dialect.refusal('BLUM-429-001', 'Slow down.'), 429, { 'retry-after': '30' })
    answerBy(({ query }) => (query.offset === '0' ? json(dialect.list(rows.slice(0, 100), true)) : slow))
    const ids = rows.filter((_, index) => index % 4 === 0).map((row) => String(row.id))
    const orders = await broker.orders(hintedKeys(ids), createScope())
    expect(orders.map((order) => (order instanceof UpstreamError ? order.kind : order?.id))).toEqual([
      ...ids.slice(0, 25),
      ...Array(35).fill('throttled'),
    ])
    expect(asked()).toEqual(['list 0', 'list 100'])
  },

  '100 of 240 orders are at most 3 calls, whichever they are and however the list is sorted': async (bench) => {
    const { dialect, answerBook } = bench
    const rows = toTimedRows(240)
    const picks: Record<string, Body[]> = {
      newest: rows.slice(0, 100),
      oldest: rows.slice(140),
      spread: rows.filter((_, index) => index % 12 < 5),
    }
    for (const sorted of [rows, rows.toReversed()]) {
      answerBook(sorted)
      for (const [pick, picked] of Object.entries(picks)) {
        const ids = picked.map((row) => String(row.id))
        expect(ids).toHaveLength(100)
        await withBroker(dialect, async (broker) => {
          // The first time it has seen nothing of the list, then it knows how it is sorted.
          for (const time of ['first', 'second']) {
            requests.length = 0
            const orders = await broker.orders(hintedKeys(ids), createScope())
            expect(orders.map((order) => !(order instanceof UpstreamError) && order?.id)).toEqual(ids)
            const which = `${pick}, ${sorted === rows ? 'newest' : 'oldest'} first, the ${time} time`
            expect(requests.length, which).toBeLessThanOrEqual(3)
          }
        })
      }
    }
  },

  'a search that finds nothing ends soon': async ({ broker, answerBook }) => {
    answerBook(toTimedRows(5_000))
    const ids = Array.from({ length: 3 }, (_, index) => `gone_${index}`)
    expect(await broker.orders(hintedKeys(ids), createScope())).toEqual([null, null, null])
    expect(asked().sort()).toEqual([...ids, 'list 0'])
    requests.length = 0
    const many = Array.from({ length: 40 }, (_, index) => `gone_${index}`)
    expect(await broker.orders(hintedKeys(many), createScope())).toEqual(Array(40).fill(null))
    expect(asked().filter((what) => what.startsWith('list'))).toHaveLength(3)
    expect(requests).toHaveLength(43)
  },
}

const intervals: Record<string, Case> = {
  'submittedAfter is inclusive, submittedBefore exclusive, to the last digit': async (bench) => {
    const times = ['10:00:00Z', '10:00:00.000000001Z', '10:00:01Z', '12:00:01.5+02:00', '10:00:02Z']
    const rows = times.map((time, index) => toBody({ id: `ord_${index}`, submitted_at: `2026-01-01T${time}` }))
    const at = (time: string) => `2026-01-01T${time}`
    for (const sorted of [rows, rows.toReversed()]) {
      bench.answerList(sorted)
      const read = async (after: string | null, before: string | null) =>
        idsOf(
          await bench.readPage({
            submittedAfter: after === null ? null : at(after),
            submittedBefore: before === null ? null : at(before),
          }),
        )
      expect(await read('10:00:01Z', null)).toEqual(['ord_4', 'ord_3', 'ord_2'])
      expect(await read('10:00:01.0Z', null)).toEqual(['ord_4', 'ord_3', 'ord_2'])
      expect(await read('10:00:01.000000001Z', null)).toEqual(['ord_4', 'ord_3'])
      expect(await read(null, '10:00:01Z')).toEqual(['ord_1', 'ord_0'])
      expect(await read(null, '10:00:00.000000001Z')).toEqual(['ord_0'])
      expect(await read('10:00:00.000000001Z', '10:00:01.5Z')).toEqual(['ord_2', 'ord_1'])
      expect(await read('10:00:01Z', '10:00:01Z')).toEqual([])
    }
  },

  'an interval is not asked of the broker, which knows none': async (bench) => {
    bench.answerList(toTimedRows(5))
    await bench.readPage({ submittedAfter: timeOf(1), submittedBefore: timeOf(4) })
    expect(requests.map(({ query }) => query)).toEqual([{ limit: '100', offset: '0' }])
  },

  'an order without a time counts as newest, and one whose time cannot be read is always shown': async (bench) => {
    const rows = [toBody({ id: 'ord_0' }), ...toTimedRows(3)]
    for (const submitted_at of [undefined, null, 'soon']) {
      bench.answerList(rows.map((row, index) => (index === 0 ? { ...row, submitted_at } : row)))
      expect(idsOf(await bench.readPage({ submittedAfter: timeOf(3) }))).toEqual(['ord_0', 'ord_1'])
      const before = await bench.readPage({ submittedBefore: timeOf(3) })
      expect(idsOf(before)).toEqual(submitted_at === 'soon' ? ['ord_0', 'ord_2', 'ord_3'] : ['ord_2', 'ord_3'])
      expect(before.isComplete).toBe(submitted_at !== 'soon')
    }
  },

  'a row that cannot be read is shown unless its time is outside': async (bench) => {
    bench.answerList([...toTimedRows(5).map((row) => without(row, 'symbol')), { id: 'ord_9' }])
    expect((await bench.readPage({ submittedAfter: timeOf(2), submittedBefore: timeOf(4) })).rows).toHaveLength(2)
    bench.answerList([{}, ...toTimedRows(5)])
    expect(idsOf(await bench.readPage({ submittedBefore: timeOf(3) }))).toEqual([null, 'ord_4', 'ord_5'])
  },

  'what a walk has given, or is newer, is left out; what has no readable time is not': async (bench) => {
    const timed = toTimedRows(5).map((row) => (row.id === 'ord_3' ? { ...row, submitted_at: timeOf(4) } : row))
    const rows = [{}, toBody({ id: 'ord_0' }), ...timed]
    // ord_2 and ord_3 are of one instant.
    for (const sorted of [rows, rows.toReversed()]) {
      bench.answerList(sorted)
      await withBroker(bench.dialect, async (broker) => {
        for (const [ids, expected] of [
          [['ord_2'], ['ord_3', 'ord_4', 'ord_5']],
          [
            ['ord_3', 'ord_2'],
            ['ord_4', 'ord_5'],
          ],
          [[], ['ord_2', 'ord_3', 'ord_4', 'ord_5']],
        ] as const) {
          const [page] = await broker.pages([toQuery({ olderThan: { at: timeOf(4), ids } })], createScope())
          if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
          expect(page).toMatchObject({ hasMore: false, isComplete: true })
          expect(idsOf(page).toSorted()).toEqual([null, 'ord_0', ...expected].toSorted())
        }
      })
    }
  },

  'a search ends at the first row that is too old': async (bench) => {
    const rows = toTimedRows(1_000)
    for (const sorted of [rows, rows.toReversed()]) {
      bench.answerList(sorted)
      await withBroker(bench.dialect, async (broker) => {
        const query = toQuery({ submittedAfter: timeOf(880), first: 100, wantsMore: true })
        const read = async (after: string | null): Promise<Page> => {
          const [page] = await broker.pages([{ ...query, after }], createScope())
          if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
          return page
        }
        const first = await read(null)
        expect(idsOf(first)).toEqual(rows.slice(0, 100).map(({ id }) => id))
        expect(first).toMatchObject({ hasMore: true, isComplete: true })
        requests.length = 0
        const rest = await read(first.rows.at(-1)?.position ?? '')
        expect(idsOf(rest)).toEqual(rows.slice(100, 121).map(({ id }) => id))
        expect(rest).toMatchObject({ hasMore: false, isComplete: true })
        expect(requests).toHaveLength(1)
      })
    }
  },

  'a search that is too long ends at 20 calls, says so, and can be gone on with': async (bench) => {
    const rows = toTimedRows(2_500)
    for (const sorted of [rows, rows.toReversed()]) {
      bench.answerList(sorted)
      await withBroker(bench.dialect, async (broker) => {
        const found: (string | null)[] = []
        let after: string | null = null
        for (let round = 1; round <= 2; round++) {
          requests.length = 0
          const query = toQuery({ submittedBefore: timeOf(21), first: 50, after })
          const [page] = await broker.pages([query], createScope())
          if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
          expect(requests.length).toBeLessThanOrEqual(20)
          expect(page).toMatchObject(
            round === 1
              ? { rows: [], hasMore: null, isComplete: false, position: expect.any(String) }
              : { hasMore: false, isComplete: true },
          )
          found.push(...idsOf(page))
          after = page.position
        }
        expect(found).toEqual(rows.slice(-20).map(({ id }) => id))
      })
    }
  },
}

const toScan = (query: Partial<ScanQuery> = {}): ScanQuery => ({
  accountId,
  symbol: 'AAPL',
  side: 'BUY',
  since: timeOf(0),
  purpose: 'lookup',
  ...query,
})

const scans: Record<string, Case> = {
  'a search finds every order of the list once, with what it leaves out left out': async ({ broker, answerBook }) => {
    const rows = toTimedRows(250, { client_order_id: 'limitorder123', extended_hours: false })
    answerBook(rows, ['client_order_id', 'extended_hours'])
    for (const purpose of ['snapshot', 'lookup'] as const) {
      const { orders, isComplete } = await broker.scan(toScan({ purpose }), createScope())
      expect(orders.map(({ id }) => id)).toEqual(rows.map(({ id }) => id))
      expect(orders[0]).toMatchObject({ account: { id: accountId }, clientOrderId: null, isPartial: true })
      expect(isComplete).toBe(true)
    }
  },
}

const placements: Record<string, Case> = {
  "the vendor's example request is what is sent for that order, and its answer the order": async ({
    broker,
    answer,
  }) => {
    answer(json(placedBody, 201))
    expect(await broker.place(newOrder, toOptions())).toEqual({
      orderId: 'ord_x9y8z7a6b5c4d3e2',
      status: 'ACCEPTED',
      clientOrderId: newOrder.clientOrderId,
      order: examplePlaced,
      differing: [],
      rejection: null,
    })
    expect(requests).toHaveLength(1)
    expect(requests[0]).toMatchObject({
      method: 'POST',
      path: `/v1/trading/accounts/${accountId}/orders`,
      query: {},
      headers: {
        'idempotency-key': 'op-1',
        'content-type': 'application/json',
        authorization: `Basic ${Buffer.from('key-1:secret:with:colons').toString('base64')}`,
      },
    })
    expect(requests[0]?.body).toEqual(readFixture('place.request'))
  },

  'every field of an order is sent in the words of the broker, decimals with their own digits': async ({
    broker,
    answer,
  }) => {
    answer(json({ id: 'ord_1' }, 201), json({ id: 'ord_2' }, 201))
    const full: NewOrder = {
      accountId,
      clientOrderId: 'client-0002',
      symbol: 'BRK.B',
      side: 'SELL',
      type: 'STOP_LIMIT',
      timeInForce: 'GTC',
      quantity: '0.1000000000000000055',
      notional: null,
      limitPrice: '11.050',
      stopPrice: '12345678901234567890',
      trailPercent: '3.5',
      trailPrice: '0.01',
      extendedHours: false,
      commission: '2.50',
      commissionType: 'BPS',
    }
    await broker.place(full, toOptions('op-2'))
    await broker.place(
      { ...newOrder, type: 'MARKET', quantity: null, notional: '250.00', limitPrice: null, extendedHours: true },
      toOptions('op-3'),
    )
    expect(requests.map(({ body }) => body)).toEqual([
      {
        symbol: 'BRK.B',
        qty: '0.1000000000000000055',
        side: 'sell',
        type: 'stop_limit',
        time_in_force: 'gtc',
        limit_price: '11.050',
        stop_price: '12345678901234567890',
        trail_percent: '3.5',
        trail_price: '0.01',
        extended_hours: false,
        client_order_id: 'client-0002',
        commission: '2.50',
        commission_type: 'bps',
      },
      {
        symbol: 'AAPL',
        notional: '250.00',
        side: 'buy',
        type: 'market',
        time_in_force: 'day',
        extended_hours: true,
        client_order_id: 'limitorder123',
        commission: '1.00',
        commission_type: 'notional',
      },
    ])
  },

  'another cash amount differs from what was sent': async ({ broker, answer }) => {
    const order: NewOrder = { ...newOrder, type: 'MARKET', quantity: null, notional: '250.00', limitPrice: null }
    answer(json({ id: 'ord_1', notional: '250.01' }, 201))
    expect(await broker.place(order, toOptions())).toMatchObject({ differing: ['notional'] })
    // The quantity that the broker made of a cash amount was not sent, so there is nothing to hold it against.
    answer(json({ id: 'ord_1', notional: '250', qty: '1.42' }, 201))
    expect(await broker.place(order, toOptions())).toMatchObject({ orderId: 'ord_1' })
  },

  'a refusal in a success is no refusal': async ({ placeError }) => {
    const error = await placeError(json({ status: 'error', code: 'BLUM-422-001', message: 'Not enough cash.' }, 200))
    expect(error).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
  },

  'an id alone is an accepted order, of which nothing else is known': async ({ broker, answer }) => {
    answer(
      json({ id: 'ord_1' }, 201),
      json(without(placedBody, 'status'), 201),
      json(without(placedBody, 'symbol'), 201),
    )
    expect(await broker.place(newOrder, toOptions())).toEqual({
      orderId: 'ord_1',
      status: 'UNKNOWN',
      clientOrderId: null,
      order: null,
      differing: [],
      rejection: null,
    })
    expect(await broker.place(newOrder, toOptions())).toMatchObject({ status: 'UNKNOWN', order: null })
    expect(await broker.place(newOrder, toOptions())).toMatchObject({ status: 'ACCEPTED', order: null })
  },

  'a success that says rejected is a rejection, whatever else it leaves out (A19)': async ({ broker, answer }) => {
    answer(json({ id: 'ord_1', status: 'rejected' }, 201))
    expect(await broker.place(newOrder, toOptions())).toEqual({
      orderId: 'ord_1',
      status: 'REJECTED',
      clientOrderId: null,
      order: null,
      differing: [],
      rejection: { code: 'OTHER', brokerCode: null, reason: null },
    })
  },

  'a refusal says when to come back, in milliseconds': async ({ dialect, placeError }) => {
    const limited = dialect.refusal('BLUM-429-001', 'Slow down.')
    const none = { kind: 'throttled', effect: 'none', brokerCode: 'BLUM-429-001', rejection: null }
    expect(await placeError(json(limited, 429, { 'retry-after': '2' }))).toMatchObject({ ...none, retryAfterMs: 2_000 })
    expect(await placeError(json(limited, 429))).toMatchObject({ ...none, retryAfterMs: null })
  },

  'a refusal in the words of other software proves nothing (A25)': async ({ placeError }) => {
    const replies = [
      json({ code: 403 }, 403),
      json({ code: '403', message: 'Forbidden' }, 403),
      json({ error: { code: 'access_denied' } }, 403),
      json({ error: { code: 'ACCESS_DENIED' } }, 403),
      json({ code: 'ACCESS_DENIED' }, 403),
      json({ status: 'error', code: 'access denied' }, 403),
      json({ status: 'error', code: 403 }, 403),
      json({ error: 'BLUM-403-002' }, 403),
      json({ message: 'BLUM-403-002' }, 403),
      json({ code: 'BLUM-403-0022' }, 403),
      json([], 403),
      json('BLUM-403-002', 403),
      html(403),
    ]
    for (const reply of replies) {
      const error = await placeError(reply)
      expect(error, reply.text).toMatchObject({
        kind: 'unreadable',
        effect: 'unknown',
        rejection: null,
        brokerCode: null,
      })
    }
    for (const reply of [html(429), json({ code: 429 }, 429)]) {
      const error = await placeError({ ...reply, headers: { ...reply.headers, 'retry-after': '1' } })
      expect(error).toMatchObject({ kind: 'throttled', effect: 'unknown', retryAfterMs: 1_000, brokerCode: null })
    }
  },

  'a word for a product that is not enabled counts only beside a status of error': async ({ placeError }) => {
    expect(await placeError(json({ status: 'error', code: 'PRODUCT_NOT_ENABLED' }, 403))).toMatchObject({
      kind: 'refused',
      effect: 'none',
      brokerCode: 'PRODUCT_NOT_ENABLED',
      rejection: null,
    })
    expect(await placeError(json({ code: 'PRODUCT_NOT_ENABLED' }, 403))).toMatchObject({ effect: 'unknown' })
  },
}

// Status, code, whether it is a final no to the order, and whether the order may exist all the same.
const refusals: [number, string, OrderRejectionCode | null, UpstreamEffect][] = [
  [400, 'BLUM-400-001', 'INVALID_ORDER', 'none'],
  [400, 'BLUM-400-004', 'INVALID_ORDER', 'none'],
  [400, 'BLUM-400-008', 'INVALID_ORDER', 'none'],
  [401, 'BLUM-401-001', null, 'none'],
  [401, 'BLUM-401-003', null, 'none'],
  [401, 'BLUM-401-005', null, 'none'],
  [403, 'BLUM-403-001', null, 'none'],
  [403, 'BLUM-403-002', 'ACCOUNT_NOT_APPROVED', 'none'],
  [403, 'BLUM-403-003', null, 'none'],
  [403, 'BLUM-403-004', 'ACCOUNT_RESTRICTED', 'none'],
  [403, 'BLUM-403-099', 'OTHER', 'none'],
  [404, 'BLUM-404-001', 'ACCOUNT_NOT_FOUND', 'none'],
  [404, 'BLUM-404-002', null, 'none'],
  [404, 'BLUM-404-003', 'ASSET_NOT_FOUND', 'none'],
  [404, 'BLUM-404-099', null, 'unknown'],
  [409, 'BLUM-409-001', null, 'unknown'],
  [409, 'BLUM-409-002', null, 'unknown'],
  [409, 'BLUM-409-003', null, 'unknown'],
  [409, 'BLUM-422-001', null, 'unknown'],
  [410, 'BLUM-410-001', null, 'unknown'],
  [413, 'BLUM-400-008', null, 'none'],
  [415, 'BLUM-415-001', null, 'none'],
  [422, 'BLUM-422-001', 'INSUFFICIENT_FUNDS', 'none'],
  [422, 'BLUM-422-002', 'MARKET_CLOSED', 'none'],
  [422, 'BLUM-422-003', 'ASSET_NOT_TRADABLE', 'none'],
  [422, 'BLUM-422-004', 'INSUFFICIENT_POSITION', 'none'],
  [422, 'BLUM-422-005', 'OTHER', 'none'],
  // Where status and code disagree, both have to say no.
  [422, 'BLUM-400-004', 'OTHER', 'none'],
  [422, 'BLUM-409-001', null, 'unknown'],
  [400, 'BLUM-409-002', null, 'unknown'],
  [400, 'BLUM-500-001', null, 'unknown'],
  [403, 'BLUM-401-003', null, 'unknown'],
]

for (const [status, code, rejection, effect] of refusals) {
  const meaning = rejection ?? (effect === 'none' ? 'not about the order' : 'no proof of anything')
  placements[`a placement answered ${status} ${code}: ${meaning}`] = async ({ dialect, placeError }) => {
    const error = await placeError(json(dialect.refusal(code, 'The reason.'), status))
    const kind: UpstreamErrorKind = 'refused'
    expect(error).toMatchObject({ kind, status, brokerCode: code, reason: 'The reason.', rejection, effect })
  }
}

const cancels: Record<string, Case> = {
  "the vendor's example of a cancel means the same here": async ({ broker, answer }) => {
    answer(json(canceledBody))
    const open: Order = { ...exampleCanceled, status: 'ACCEPTED', state: 'OPEN', isCancelable: true, canceledAt: null }
    expect(await broker.cancel(open, inAMinute())).toEqual(exampleCanceled)
    expect(requests).toHaveLength(1)
    expect(requests[0]).toMatchObject({
      method: 'POST',
      path: `/v1/trading/accounts/${accountId}/orders/ord_x9y8z7a6b5c4d3e2/cancel`,
      query: {},
      body: undefined,
    })
  },

  'a success that does not show the order says nothing about it': async ({ broker, answer }) => {
    const bodies = [
      { ...canceledBody, id: 'ord_other' },
      { ...canceledBody, account_id: 'c9f0f895-fb98-4b91-99f5-1fd0297e236d' },
      without(canceledBody, 'id'),
      without(canceledBody, 'status'),
      without(canceledBody, 'symbol'),
      [canceledBody],
      { success: true },
      {},
      'canceled',
      null,
    ]
    for (const body of bodies) {
      answer(json(body))
      expect(await broker.cancel(exampleCanceled, inAMinute()), JSON.stringify(body)).toBeNull()
    }
  },

  'a cancel that is refused keeps the code and the reason': async ({ broker, dialect, answer }) => {
    answer(
      json(dialect.refusal('BLUM-409-003', 'Order is already final.'), 409),
      json(dialect.refusal('BLUM-404-001', 'No such order.'), 404),
    )
    await expect(broker.cancel(exampleCanceled, inAMinute())).rejects.toMatchObject({
      kind: 'refused',
      status: 409,
      brokerCode: 'BLUM-409-003',
      reason: 'Order is already final.',
    })
    await expect(broker.cancel(exampleCanceled, inAMinute())).rejects.toMatchObject({
      kind: 'refused',
      brokerCode: 'BLUM-404-001',
    })
  },
}

// ---- laws -------------------------------------------------------------------------------------------------------

const valid: Body = {
  ...placedBody,
  id: 'ord_1',
  currency: 'USD',
  notional: '1.5',
  stop_price: '1',
  trail_percent: '2',
  trail_price: '3',
  extended_hours: true,
  filled_at: '2025-10-18T10:30:00.5+02:00',
  canceled_at: '2025-10-18T10:30:00Z',
  reject_reason: 'none',
}

const anyBody = fc.record(
  Object.fromEntries(
    Object.entries(valid).map(([field, value]) => [
      field,
      fc.oneof(
        { weight: 5, arbitrary: fc.constant(value) },
        fc.constantFrom<unknown[]>(undefined, null, '', 0, -1.5, 1e300, true, {}, [], [value], { [field]: value }),
        fc.string(),
        fc.jsonValue({ maxDepth: 2 }),
      ),
    ]),
  ),
)

const laws: Record<string, Case> = {
  'whatever a list leaves out, what its rows answer is what a single read answers': async (bench) => {
    const { broker, answerBook } = bench
    const partialNames = ['currency', 'clientOrderId', 'extendedHours', 'commission', 'commissionType']
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyBody, { minLength: 1, maxLength: 6 }),
        fc.subarray(partialFields),
        fc.boolean(),
        async (bodies, omitted, isOldestFirst) => {
          const rows = bodies.map((body, index) => ({
            ...body,
            id: `ord_${index}`,
            account_id: accountId,
            submitted_at: timeOf(isOldestFirst ? index : -index),
          }))
          answerBook(rows, omitted)
          const ids = rows.map(({ id }) => id)
          const listed = (await bench.readPage({ first: 100 })).rows.map(({ order }) => order)
          const batched = await broker.orders(hintedKeys(ids), createScope())
          const single = await broker.orders(
            ids.map((id) => keyOf(id, accountId, true)),
            createScope(),
          )
          expect(listed).toHaveLength(rows.length)
          for (const [index, order] of [...listed, ...batched].entries()) {
            // A row that cannot be read is as unreadable singly: nothing that an order needs is left out.
            if (order === null || order instanceof UpstreamError) continue
            const whole = single[ids.indexOf(order.id)]
            if (!whole || whole instanceof UpstreamError) throw whole ?? new Error(`no order ${order.id}`)
            expect(whole.isPartial).toBe(false)
            for (const [field, value] of Object.entries(order)) {
              if (field === 'isPartial' || (value === null && partialNames.includes(field))) continue
              expect(value, field).toEqual(whole[field as keyof Order])
            }
            // Without extended_hours the row says that it may lack the others; that is how a broker's list does it.
            if (omitted.includes('extended_hours') && index < listed.length) expect(order.isPartial).toBe(true)
            if (omitted.length === 0) expect({ ...order, isPartial: false }).toEqual(whole)
          }
        },
      ),
      { numRuns: 50 },
    )
  },
}

// ---- running it -------------------------------------------------------------------------------------------------

let server: Server
let url = ''

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

describe.each(dialects)('$name', (dialect) => {
  let broker: Broker

  beforeEach(() => {
    requests.length = 0
    answerer = () => html(500)
    broker = dialect.createBroker(url)
  })
  afterEach(() => broker.close(1_000))

  const ofLists = dialect.hasOwnLists ? { lists, batches, intervals, scans, laws } : {}
  for (const [group, cases] of Object.entries({ reads, placements, cancels, ...ofLists })) {
    describe(group, () => {
      for (const [name, run] of Object.entries(cases)) test(name, () => run(createBench(broker, dialect)))
    })
  }
})
