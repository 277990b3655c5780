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

import { createBluum } from '../src/brokers/bluum.ts'
import { brokerCapabilities, createTally, UpstreamError } from '../src/brokers/broker.ts'
import type {
  Broker,
  Page,
  PageQuery,
  PlaceOptions,
  ReadScope,
  ScanQuery,
  UpstreamEffect,
  UpstreamErrorKind,
} from '../src/brokers/broker.ts'
import { isDecimal } from '../src/decimal.ts'
import { parseInstant } from '../src/instant.ts'
import { stateOf } from '../src/orders/order.ts'
import type { NewOrder, Order, OrderKey, OrderRejectionCode } from '../src/orders/order.ts'

// ---- dialects ---------------------------------------------------------------------------------------------------

type Body = Record<string, unknown>

/** One column of the table: how an adapter is made, and how its broker wraps what a case wants to say. */
interface Dialect {
  name: string
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
    createBroker,
    list: (rows) => rows,
    refusal: (code, message) => ({ code, message }),
  },
  {
    name: 'Bluum accounts, wrapped as in the newer pages',
    createBroker,
    list: (data, hasMore) => ({ object: 'list', url: '/orders', has_more: hasMore, data }),
    refusal: (code, message) => ({ error: { type: 'invalid_request_error', code, message, param: null } }),
  },
  {
    name: 'Bluum accounts, errors with a status',
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
  JSON.parse(readFileSync(new URL(`fixtures/bluum/bluum.${name}.json`, import.meta.url), 'utf8'))

const createScope = (signal = new AbortController().signal): ReadScope => ({
  signal,
  deadline: inAMinute(),
  isForCancel: false,
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

const decimalFields = {
  quantity: 'qty',
  notional: 'notional',
  limitPrice: 'limit_price',
  stopPrice: 'stop_price',
  trailPercent: 'trail_percent',
  trailPrice: 'trail_price',
  filledQuantity: 'filled_qty',
  remainingQuantity: 'remaining_qty',
  averagePrice: 'average_price',
  commission: 'commission',
} as const
const instantFields = { submittedAt: 'submitted_at', filledAt: 'filled_at', canceledAt: 'canceled_at' } as const
const textFields = { currency: 'currency', clientOrderId: 'client_order_id', rejectReason: 'reject_reason' } as const
const nullableFields = { ...decimalFields, ...instantFields, ...textFields, extendedHours: 'extended_hours' } as const

const fieldEntries = Object.entries(nullableFields) as [keyof typeof nullableFields, string][]

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

  'an id that is a UUID, an ord_… or has a colon comes back as it is': async ({ broker, answerBy }) => {
    const ids = ['8f14e45f-ceea-467a-9575-2f0a7c3d1b42', 'ord_k3m8q1t6w9z4n7r2', 'a:b', 'A.1']
    answerBy(({ path }) => json(toBody({ id: decodeURIComponent(path.split('/').at(-1) ?? '') })))
    const orders = await broker.orders(
      ids.map((id) => keyOf(id)),
      createScope(),
    )
    expect(orders.map((order) => order !== null && !(order instanceof Error) && order.id)).toEqual(ids)
  },

  'fields that are absent, null or empty have no value': async ({ readOne }) => {
    for (const value of [undefined, null, '']) {
      const fields = Object.fromEntries(
        [...Object.values(nullableFields), 'commission_type'].map((name) => [name, value]),
      )
      const order = await readOne(toBody(fields))
      for (const [field] of fieldEntries) expect(order, `${field} of ${value}`).toHaveProperty(field, null)
      expect(order).toMatchObject({ commissionType: null, securityType: null, legs: [] })
    }
  },

  'an average price of zero is none, however it is written': async ({ readOne }) => {
    for (const price of ['"0"', '"0.00"', '"-0.0"', '0', '0.0', '0e-9']) {
      const order = await readOne(JSON.stringify(toBody()).replace(/}$/, `,"average_price":${price}}`))
      expect(order.averagePrice).toBeNull()
    }
    expect((await readOne(toBody({ average_price: '0.01' }))).averagePrice).toBe('0.01')
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

  'a word nobody knows is UNKNOWN, and the status it stood for is kept': async ({ readOne }) => {
    for (const word of ['held', 'FILLED', 'constructor', '__proto__']) {
      const fields = { status: word, side: word, type: word, time_in_force: word, commission_type: word }
      expect(await readOne(toBody(fields))).toMatchObject({
        status: 'UNKNOWN',
        brokerStatus: word,
        state: null,
        isCancelable: true,
        side: 'UNKNOWN',
        type: 'UNKNOWN',
        timeInForce: 'UNKNOWN',
        commissionType: 'UNKNOWN',
      })
    }
  },

  'an object where a word belongs is UNKNOWN, and no status of the broker (C08)': async ({ readOne }) => {
    const fields = { status: { a: 1 }, side: {}, type: [], time_in_force: { b: 2 }, commission_type: {} }
    expect(await readOne(toBody(fields))).toMatchObject({
      status: 'UNKNOWN',
      brokerStatus: null,
      state: null,
      side: 'UNKNOWN',
      type: 'UNKNOWN',
      timeInForce: 'UNKNOWN',
      commissionType: 'UNKNOWN',
    })
  },

  'a nullable field of the wrong type is an Error in its place and costs nothing else (C08)': async ({ readOne }) => {
    for (const [field, name] of fieldEntries) {
      const order = await readOne(toBody({ [name]: { strange: true } }))
      expect(order[field], field).toBeInstanceOf(UpstreamError)
      expect(fieldEntries.filter(([other]) => order[other] !== null)).toEqual([[field, name]])
    }
  },

  'text that is no decimal, no instant and no boolean is an Error in its place': async ({ readOne }) => {
    for (const text of ['ten', '1,000', '+1', '１', '0x10', 'NaN', ' 1', '1e41', '9'.repeat(101)]) {
      expect((await readOne(toBody({ qty: text }))).quantity, text).toBeInstanceOf(UpstreamError)
    }
    for (const text of ['2025-01-15', '2025-01-15T14:30:00', '2025-02-30T00:00:00Z', 'soon', '1736951400']) {
      expect((await readOne(toBody({ filled_at: text }))).filledAt, text).toBeInstanceOf(UpstreamError)
    }
    expect((await readOne(toBody({ extended_hours: 'true' }))).extendedHours).toBeInstanceOf(UpstreamError)
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

  'a number in place of text keeps every digit (C07)': async ({ readOne }) => {
    const order = await readOne(
      `{"id":"ord_1","account_id":"${accountId}","symbol":"AAPL","status":"accepted","qty":0.1000000000000000055,` +
        '"notional":12345678901234567890,"limit_price":1e-9,"stop_price":1.50E+2,"trail_price":-0.10,"commission":1e005}',
    )
    expect(order).toMatchObject({
      quantity: '0.1000000000000000055',
      notional: '12345678901234567890',
      limitPrice: '0.000000001',
      stopPrice: '150',
      trailPrice: '-0.10',
      commission: '100000',
    })
  },

  'instants come in UTC with every digit of the second (H04)': async ({ readOne }) => {
    const order = await readOne(
      toBody({ submitted_at: '2025-01-15T09:30:00.123456789-05:00', filled_at: '2025-01-15T14:30:15Z' }),
    )
    expect(order).toMatchObject({ submittedAt: '2025-01-15T14:30:00.123456789Z', filledAt: '2025-01-15T14:30:15Z' })
  },

  'fields nobody knows are ignored (C09)': async ({ readOne }) => {
    const extra = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`extra_${index}`, { index }]))
    expect(await readOne(toBody(extra))).toEqual(await readOne(toBody()))
  },

  'control characters go and 200 characters stay of what a broker says (E15)': async ({ readOne }) => {
    const reason = `\u001b[31mno\r\n\u202efunds\u2028<b>${'x'.repeat(10_000)}`
    const order = await readOne(toBody({ reject_reason: reason, status: 'he\u0007ld' }))
    expect(order.rejectReason).toMatch(/^\[31mno funds <b>x+$/)
    expect(order.rejectReason).toHaveLength(200)
    expect(order.brokerStatus).toBe('he ld')
    const cut = await readOne(toBody({ reject_reason: `${'x'.repeat(199)}😀` }))
    expect(cut.rejectReason).toBe(`${'x'.repeat(199)}\ufffd`)
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

  'an id that is no id never becomes a path': async ({ broker }) => {
    for (const id of notIds) {
      await expect(broker.orders([keyOf(id)], createScope())).rejects.toThrow(RangeError)
      const hinted = ['ord_1', 'ord_2', 'ord_3'].map((known) => keyOf(known, id))
      await expect(broker.orders(hinted, createScope())).rejects.toThrow(RangeError)
      await expect(broker.pages([toQuery({ accountId: id })], createScope())).rejects.toThrow(RangeError)
      await expect(broker.place({ ...newOrder, accountId: id }, toOptions())).rejects.toThrow(RangeError)
      await expect(broker.cancel({ ...exampleCanceled, id }, inAMinute())).rejects.toThrow(RangeError)
      const account = { id, broker: 'BLUUM' as const }
      await expect(broker.cancel({ ...exampleCanceled, account }, inAMinute())).rejects.toThrow(RangeError)
    }
    expect(requests).toEqual([])
  },

  'reads that nobody waits for any more are not sent': async ({ broker }) => {
    const gone = createScope(AbortSignal.abort(new Error('the caller left')))
    await expect(broker.orders([keyOf('ord_1')], gone)).rejects.toThrow('the caller left')
    await expect(broker.pages([toQuery({})], gone)).rejects.toThrow('the caller left')
    await expect(broker.accounts(gone)).rejects.toThrow('the caller left')
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

  'every status and side it claims to know can be asked for': async (bench) => {
    bench.answerList([])
    for (const status of bench.broker.offer.statuses) await bench.readPage({ statuses: [status] })
    for (const side of bench.broker.offer.sides) await bench.readPage({ side })
    expect(requests).toHaveLength(bench.broker.offer.statuses.length + bench.broker.offer.sides.length)
  },

  'a list is an array or an object with data': async ({ answer, readPage }) => {
    for (const body of [toRows(2), { data: toRows(2) }, { object: 'list', data: toRows(2), has_more: false }]) {
      answer(json(body))
      expect(idsOf(await readPage())).toEqual(['ord_1', 'ord_2'])
    }
  },

  'what is no list is unreadable, never an empty one (C17)': async ({ broker, answer }) => {
    const replies = [json({}), json({ data: null }), json({ orders: [] }), json(null), json('[]'), raw(''), html(200)]
    for (const reply of replies) {
      answer(reply)
      expect(await broker.pages([toQuery({})], createScope()), reply.text).toMatchObject([{ kind: 'unreadable' }])
      answer(reply)
      await expect(broker.accounts(createScope())).rejects.toMatchObject({ kind: 'unreadable' })
    }
  },

  'a row without id, status or symbol is an error alone (C05)': async (bench) => {
    const rows = toRows(5)
    bench.answerList(
      rows.map((row, index) =>
        without(row, ...(index === 1 ? ['id'] : index === 2 ? ['status'] : index === 3 ? ['symbol'] : [])),
      ),
    )
    const page = await bench.readPage()
    expect(idsOf(page)).toEqual(['ord_1', null, null, null, 'ord_5'])
    expect(page.rows[1]).toMatchObject({ order: { kind: 'unreadable' } })
    expect(idsOf(await bench.readPage({ after: page.rows[1]?.position ?? '' }))).toEqual([null, null, 'ord_5'])
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
  },

  'rows that are no objects are errors alone, each of them': async ({ answer, dialect, readPage }) => {
    answer(json(dialect.list([null, null, 'row', 7, [], toBody()], false)))
    expect(idsOf(await readPage())).toEqual([null, null, null, null, null, 'ord_1'])
  },

  'a row of another account is an error (C16)': async (bench) => {
    bench.answerList([
      toBody({ id: 'ord_1', account_id: 'c9f0f895-fb98-4b91-99f5-1fd0297e236d' }),
      toBody({ id: 'ord_2' }),
    ])
    const page = await bench.readPage()
    expect(idsOf(page)).toEqual([null, 'ord_2'])
    expect(page.rows[0]?.order).toMatchObject({ kind: 'unreadable' })
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

  'a list shorter than its page is one call': async ({ answer, readPage }) => {
    answer(json(toRows(40)))
    const page = await readPage({ first: 100 })
    expect(page.rows).toHaveLength(40)
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
    expect(requests).toHaveLength(1)
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

  'every filter that the broker ignores is applied here': async (bench) => {
    bench.answerList([
      toBody({ id: 'ord_1', symbol: 'MSFT' }),
      toBody({ id: 'ord_2', side: 'sell' }),
      toBody({ id: 'ord_3', status: 'filled' }),
      toBody({ id: 'ord_4' }),
    ])
    expect(idsOf(await bench.readPage({ symbol: 'MSFT' }))).toEqual(['ord_1'])
    expect(idsOf(await bench.readPage({ side: 'SELL' }))).toEqual(['ord_2'])
    expect(idsOf(await bench.readPage({ statuses: ['FILLED'] }))).toEqual(['ord_3'])
    expect(idsOf(await bench.readPage({ symbol: 'AAPL', side: 'BUY', statuses: ['ACCEPTED'] }))).toEqual(['ord_4'])
  },

  'the search for rows that match ends at 20 calls, and says so': async ({ answerBy, dialect, readPage }) => {
    answerBy(({ query }) => {
      const start = Number(query.offset)
      const rows = Array.from({ length: Number(query.limit) }, (_, index) => toBody({ id: `ord_${start + index}` }))
      return json(dialect.list(rows, true))
    })
    const page = await readPage({ statuses: ['FILLED'] })
    expect(page).toEqual({ rows: [], hasMore: null, isComplete: false, position: expect.any(String) })
    expect(requests).toHaveLength(20)
    // What looks on from there does not look at the same rows again.
    const offsets = requests.map(({ query }) => Number(query.offset))
    requests.length = 0
    await readPage({ statuses: ['FILLED'], after: page.position })
    expect(Number(requests[0]?.query.offset)).toBeGreaterThanOrEqual(Math.max(...offsets))
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

  'pages answer in the order of the questions, a failed one in its slot': async ({ broker, dialect, answerBy }) => {
    answerBy(({ query }) => {
      if (query.symbol === 'B') return json(dialect.refusal('BLUM-403-004', 'Account state forbids this.'), 403)
      return json(dialect.list([toBody({ id: `ord_${query.symbol}`, symbol: query.symbol })], false))
    })
    const pages = await broker.pages(
      ['A', 'B', 'C'].map((symbol) => toQuery({ symbol })),
      createScope(),
    )
    expect(pages).toMatchObject([
      { rows: [{ order: { id: 'ord_A' } }] },
      { kind: 'refused', brokerCode: 'BLUM-403-004' },
      { rows: [{ order: { id: 'ord_C' } }] },
    ])
  },

  'an account that the broker does not know is an error, not an empty list': async ({ broker, dialect, answer }) => {
    answer(json(dialect.refusal('BLUM-404-001', 'No such account.'), 404))
    expect(await broker.pages([toQuery({})], createScope())).toMatchObject([
      { kind: 'refused', brokerCode: 'BLUM-404-001' },
    ])
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

  'accounts that cannot be read are an error': async ({ broker, dialect, answer }) => {
    answer(json(dialect.refusal('BLUM-401-003', 'Key or secret is wrong.'), 401))
    await expect(broker.accounts(createScope())).rejects.toMatchObject({ kind: 'refused', status: 401 })
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
      if (path.endsWith('/orders')) return json(dialect.list(toTimedRows(20), false))
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

  'a list that is not to be had fails its orders with one error, and no storm of single reads': async (bench) => {
    const { dialect, answerBy } = bench
    const ids = toRows(50).map((row) => String(row.id))
    const slow = json(dialect.refusal('BLUM-429-001', 'Slow down.'), 429, { 'retry-after': '30' })
    // Too long a wait to be repeated.
    const down = { ...html(503), headers: { 'retry-after': '30' } }
    for (const [unavailable, kind] of [
      [slow, 'throttled'],
      [down, 'failed'],
    ] as const) {
      requests.length = 0
      answerBy(({ path }) => (path.endsWith('/orders') ? unavailable : json(toBody({ id: path.split('/').at(-1) }))))
      const orders = await withBroker(dialect, (broker) => broker.orders(hintedKeys(ids), createScope()))
      expect(orders).toMatchObject(ids.map(() => ({ kind })))
      expect(new Set(orders).size).toBe(1)
      expect(asked()).toEqual(['list 0'])
    }
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

  'an order whose time nobody knows counts as newest': async (bench) => {
    const rows = [toBody({ id: 'ord_0' }), ...toTimedRows(3)]
    for (const submitted_at of [undefined, null, 'soon']) {
      bench.answerList(rows.map((row, index) => (index === 0 ? { ...row, submitted_at } : row)))
      expect(idsOf(await bench.readPage({ submittedAfter: timeOf(3) }))).toEqual(['ord_0', 'ord_1'])
      expect(idsOf(await bench.readPage({ submittedBefore: timeOf(3) }))).toEqual(['ord_2', 'ord_3'])
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
    for (const purpose of ['preImage', 'lookup'] as const) {
      const { orders, isComplete } = await broker.scan(toScan({ purpose }), createScope())
      expect(orders.map(({ id }) => id)).toEqual(rows.map(({ id }) => id))
      expect(orders[0]).toMatchObject({ account: { id: accountId }, clientOrderId: null, isPartial: true })
      expect(isComplete).toBe(true)
    }
  },

  'a search ends where all that follows is too old': async ({ broker, answerList }) => {
    const rows = toTimedRows(250)
    answerList(rows)
    const { orders, isComplete } = await broker.scan(toScan({ since: timeOf(200) }), createScope())
    expect(isComplete).toBe(true)
    expect(orders.map(({ id }) => id)).toEqual(expect.arrayContaining(rows.slice(0, 51).map(({ id }) => id)))
    expect(requests).toHaveLength(1)
  },

  'a search takes over no answer that was asked for before it': async ({ broker, answerList }) => {
    answerList(toTimedRows(3))
    for (const purpose of ['preImage', 'lookup'] as const) {
      const scope = createScope()
      const first = broker.scan(toScan({ purpose }), scope)
      // It has left by then, and has no answer yet, or has had it.
      await new Promise((resolve) => setImmediate(resolve))
      await Promise.all([first, broker.scan(toScan({ purpose }), scope)])
      expect(scope.tally).toMatchObject({ calls: 2, shared: 0 })
    }
  },

  'a row that cannot be read, or is of another account, makes a search incomplete': async ({ broker, answerList }) => {
    for (const bad of [
      { status: null },
      { symbol: '' },
      { id: '..' },
      { account_id: 'acc-2' },
      { submitted_at: 7, id: null },
    ]) {
      answerList(toTimedRows(5).map((row, index) => (index === 2 ? { ...row, ...bad } : row)))
      const { orders, isComplete } = await broker.scan(toScan(), createScope())
      expect([orders.length, isComplete], JSON.stringify(bad)).toEqual([4, false])
    }
  },

  'a row of another symbol or side is not what was looked for': async ({ broker, answerList }) => {
    answerList([...toTimedRows(2), toBody({ id: 'ord_3', symbol: 'KO' }), toBody({ id: 'ord_4', side: 'sell' })])
    const { orders, isComplete } = await broker.scan(toScan(), createScope())
    expect(orders.map(({ id }) => id)).toEqual(['ord_1', 'ord_2'])
    expect(isComplete).toBe(true)
  },

  'a search that has to stop is an error': async ({ dialect, answer }) => {
    const page = toTimedRows(100)
    for (const reply of [
      html(502),
      json({ object: 'order' }),
      json(dialect.refusal('BLUM-401-003', 'Key or secret is wrong.'), 401),
      json(dialect.refusal('BLUM-429-001', 'Slow down.'), 429, { 'retry-after': '60' }),
    ]) {
      answer(json(dialect.list(page, true)), reply, reply, reply)
      await withBroker(dialect, async (own) => {
        const error = await own.scan(toScan(), createScope()).catch((thrown: unknown) => thrown)
        expect(error, reply.text).toBeInstanceOf(UpstreamError)
      })
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
      order: examplePlaced,
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

  'what the broker cannot do is told before anything is sent': async ({ broker }) => {
    expect(broker.unsupported(newOrder)).toEqual([])
    expect(broker.unsupported({ ...newOrder, side: 'SELL' })).toEqual([])
    for (const side of ['SELL_SHORT', 'BUY_TO_COVER'] as const) {
      expect(broker.unsupported({ ...newOrder, side })).toMatchObject([{ field: 'side' }])
      await expect(broker.place({ ...newOrder, side }, toOptions())).rejects.toThrow(RangeError)
    }
    expect(requests).toEqual([])
  },

  'what has to be done before the order leaves is done once, and before': async ({ broker, answer }) => {
    answer(json(placedBody, 201))
    const seen: number[] = []
    const beforeSend = async (): Promise<void> => {
      await new Promise((resolve) => setImmediate(resolve))
      seen.push(requests.length)
    }
    await broker.place(newOrder, { ...toOptions(), beforeSend })
    expect(seen).toEqual([0])
    expect(requests).toHaveLength(1)
  },

  'what could not be done before the order leaves keeps it here': async ({ broker }) => {
    const error = new Error('no record')
    const beforeSend = (): Promise<void> => Promise.reject(error)
    await expect(broker.place(newOrder, { ...toOptions(), beforeSend })).rejects.toBe(error)
    expect(requests).toEqual([])
  },

  'an order that cannot be written down for the broker is not begun': async ({ broker }) => {
    let begun = 0
    const beforeSend = async (): Promise<void> => void begun++
    await expect(broker.place({ ...newOrder, side: 'SELL_SHORT' }, { ...toOptions(), beforeSend })).rejects.toThrow(
      RangeError,
    )
    expect(begun).toBe(0)
  },

  'nothing is taken for granted of a broker': async ({ broker }) => {
    expect(Object.values(broker.capabilities)).toEqual(brokerCapabilities.map(() => false))
  },

  'nothing is sent after its time': async ({ broker }) => {
    const late = await broker
      .place(newOrder, { ...toOptions(), sendBy: Date.now() - 1 })
      .catch((error: unknown) => error)
    expect(late).toMatchObject({ kind: 'not_sent', effect: 'none' })
    const lateCancel = await broker.cancel(exampleCanceled, Date.now() - 1).catch((error: unknown) => error)
    expect(lateCancel).toMatchObject({ kind: 'not_sent', effect: 'none' })
    expect(requests).toEqual([])
  },

  'an answer that repeats something else than was sent is about another order (A18)': async ({ placeError }) => {
    const others: Body[] = [
      { qty: '6' },
      { qty: '5.0000000000000000001' },
      { qty: { value: '5' } },
      { qty: 'five' },
      { symbol: 'MSFT' },
      { symbol: ['AAPL'] },
      { side: 'sell' },
      { type: 'market' },
      { account_id: 'c9f0f895-fb98-4b91-99f5-1fd0297e236d' },
      { client_order_id: 'limitorder124' },
      { client_order_id: 'LIMITORDER123' },
    ]
    for (const other of others) {
      const error = await placeError(json({ ...placedBody, ...other }, 201))
      expect(error, JSON.stringify(other)).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
    }
    const error = await placeError(json({ ...placedBody, status: 'rejected', qty: '6' }, 201))
    expect(error).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
  },

  'another cash amount is about another order': async ({ broker, answer, placeError }) => {
    const order: NewOrder = { ...newOrder, type: 'MARKET', quantity: null, notional: '250.00', limitPrice: null }
    expect(await placeError(json({ id: 'ord_1', notional: '250.01' }, 201), order)).toMatchObject({ effect: 'unknown' })
    // The quantity that the broker made of a cash amount was not sent, so there is nothing to hold it against.
    answer(json({ id: 'ord_1', notional: '250', qty: '1.42' }, 201))
    expect(await broker.place(order, toOptions())).toMatchObject({ orderId: 'ord_1' })
  },

  'a success without an order id is unknown (A17)': async ({ placeError }) => {
    const replies = [
      json(without(placedBody, 'id'), 201),
      json({ ...placedBody, id: null }, 201),
      json({ ...placedBody, id: '' }, 201),
      json({ ...placedBody, id: {} }, 201),
      json([placedBody], 201),
      json({ data: placedBody }, 201),
      json(null, 201),
      json({ status: 'error', code: 'BLUM-422-001', message: 'Not enough cash.' }, 200),
      raw('', 201),
      raw(JSON.stringify(placedBody).slice(0, -9), 201),
      html(200),
    ]
    for (const reply of replies) {
      expect(await placeError(reply), reply.text).toMatchObject({
        kind: 'unreadable',
        effect: 'unknown',
        rejection: null,
      })
    }
  },

  'numbers of one value are equal, however they are written': async ({ broker, answer }) => {
    for (const qty of ['"5"', '"5.0"', '"05.00"', '5', '5.0', '0.5e1']) {
      answer(raw(JSON.stringify(placedBody).replace('"qty":"5"', `"qty":${qty}`), 201))
      expect(await broker.place(newOrder, toOptions())).toMatchObject({ orderId: 'ord_x9y8z7a6b5c4d3e2' })
    }
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
      order: null,
      rejection: null,
    })
    expect(await broker.place(newOrder, toOptions())).toMatchObject({ status: 'UNKNOWN', order: null })
    expect(await broker.place(newOrder, toOptions())).toMatchObject({ status: 'ACCEPTED', order: null })
  },

  'fields that the answer leaves out or has null are not held against it': async ({ broker, answer }) => {
    for (const field of ['account_id', 'symbol', 'side', 'type', 'qty', 'client_order_id']) {
      answer(json(without(placedBody, field), 201), json({ ...placedBody, [field]: null }, 201))
      for (const _ of [1, 2]) {
        expect(await broker.place(newOrder, toOptions())).toMatchObject({ status: 'ACCEPTED' })
      }
    }
  },

  'a success that says rejected is a rejection with its reason (A19)': async ({ broker, answer }) => {
    const reject_reason = `Not\u0000enough cash.${'!'.repeat(300)}`
    answer(
      json({ ...placedBody, status: 'rejected', reject_reason }, 201),
      json({ id: 'ord_1', status: 'rejected' }, 201),
    )
    const answered = await broker.place(newOrder, toOptions())
    expect(answered).toMatchObject({ status: 'REJECTED', order: { status: 'REJECTED', state: 'CLOSED' } })
    expect(answered.rejection).toMatchObject({ code: 'OTHER', reason: expect.stringMatching(/^Not enough cash\.!+$/) })
    expect(answered.rejection?.reason).toHaveLength(200)
    expect(await broker.place(newOrder, toOptions())).toMatchObject({ status: 'REJECTED', order: null })
  },

  'the reason of a refusal is clean and short (E15)': async ({ dialect, placeError }) => {
    const message = `\u001b[2J<script>\r\n${'x'.repeat(10_000)}`
    const error = await placeError(json(dialect.refusal('BLUM-422-001', message), 422))
    expect(error.reason).toMatch(/^\[2J<script> x+$/)
    expect(error.reason).toHaveLength(200)
    expect(error.message).not.toContain('script')
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

  'a 5xx is unknown, even in the words of the broker': async ({ dialect, placeError }) => {
    for (const status of [500, 502, 503, 504]) {
      const error = await placeError(json(dialect.refusal('BLUM-500-001', 'Something broke.'), status))
      expect(error).toMatchObject({ kind: 'failed', effect: 'unknown', status, rejection: null })
    }
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

  'an order that is still open after its cancel is told as it is': async ({ broker, answer }) => {
    answer(json({ ...canceledBody, status: 'accepted', canceled_at: null }))
    expect(await broker.cancel(exampleCanceled, inAMinute())).toMatchObject({ status: 'ACCEPTED', state: 'OPEN' })
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

  'a success that is not JSON is unknown': async ({ broker, answer }) => {
    for (const reply of [raw('', 204), raw('', 200), raw('{', 200), html(200)]) {
      answer(reply)
      await expect(broker.cancel(exampleCanceled, inAMinute())).rejects.toMatchObject({ effect: 'unknown' })
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

const known = {
  side: ['BUY', 'SELL', 'UNKNOWN'],
  type: ['MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT', 'TRAILING_STOP', 'UNKNOWN'],
  timeInForce: ['DAY', 'GTC', 'OPG', 'CLS', 'IOC', 'FOK', 'UNKNOWN'],
  status: ['ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'REJECTED', 'UNKNOWN'],
  commissionType: ['NOTIONAL', 'QTY', 'BPS', 'UNKNOWN', null],
} as const

/** What is wrong with the shape of an order; empty for one that the graph can answer. */
function findFaults(order: Order): string[] {
  const faults: string[] = []
  const check = (field: string, holds: boolean): void => void (holds || faults.push(field))
  check('id', typeof order.id === 'string' && order.id !== '')
  check('symbol', typeof order.symbol === 'string' && order.symbol !== '' && order.asset?.symbol === order.symbol)
  check('account', typeof order.account.id === 'string' && order.account.id !== '' && order.account.broker === 'BLUUM')
  check('broker', order.broker === 'BLUUM')
  check('legs', Array.isArray(order.legs))
  check('state', order.state === stateOf(order.status))
  check('isCancelable', order.isCancelable === (order.state !== 'CLOSED'))
  check('brokerStatus', order.brokerStatus === null || typeof order.brokerStatus === 'string')
  for (const [field, words] of Object.entries(known) as [keyof typeof known, readonly (string | null)[]][]) {
    check(field, words.includes(order[field]))
  }
  for (const [field] of fieldEntries) {
    const value = order[field]
    if (value === null || value instanceof UpstreamError) continue
    if (field in decimalFields) check(field, typeof value === 'string' && isDecimal(value))
    else if (field in instantFields) check(field, typeof value === 'string' && parseInstant(value) === value)
    else check(field, typeof value === (field === 'extendedHours' ? 'boolean' : 'string'))
  }
  return faults
}

const laws: Record<string, Case> = {
  'whatever the bodies hold, reads never throw and an order never has a field of the wrong type': async (bench) => {
    const { broker, dialect } = bench
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof({ weight: 9, arbitrary: anyBody }, fc.jsonValue({ maxDepth: 1 })), {
          minLength: 1,
          maxLength: 8,
        }),
        fc.constantFrom(null, 'ACCEPTED' as const),
        async (bodies, status) => {
          bench.answerBy(({ path }) => json(path.endsWith('/orders') ? dialect.list(bodies, false) : bodies[0]))
          const [order] = await broker.orders([keyOf('ord_1')], createScope())
          if (!(order instanceof UpstreamError)) {
            if (!order) throw new Error('a success is never "no such order"')
            expect(order.id).toBe('ord_1')
            expect(findFaults(order)).toEqual([])
          }
          const page = await bench.readPage({ first: 100, statuses: status && [status] })
          expect(page.rows.length).toBeLessThanOrEqual(bodies.length)
          const orders = page.rows.flatMap((row) => (row.order instanceof UpstreamError ? [] : [row.order]))
          expect(new Set(orders.map(({ id }) => id)).size).toBe(orders.length)
          for (const row of orders) {
            expect(findFaults(row)).toEqual([])
            expect(row.account.id).toBe(accountId)
            if (status !== null) expect(row.status).toBe(status)
          }
        },
      ),
      { numRuns: 150 },
    )
  },

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

  'whatever a placement is answered, it is accepted only with an id and what was sent': async ({ broker, answer }) => {
    await fc.assert(
      fc.asyncProperty(anyBody, fc.constantFrom(200, 201, 400, 403, 404, 409, 422), async (body, status) => {
        answer(json(body, status))
        const placed = await broker.place(newOrder, toOptions()).catch((error: unknown) => requireError(error))
        if (placed instanceof UpstreamError) {
          // None of these bodies holds a code of the broker, so none proves that the order was refused.
          expect(placed).toMatchObject({ effect: 'unknown', rejection: null })
          return
        }
        expect(status).toBeLessThan(300)
        // A number in the place of an id is its digits; -1.5 is as good an id as any.
        expect(placed.orderId).toBe(String(body.id))
        const sent = readFixture('place.request') as Body
        for (const field of ['symbol', 'side', 'type', 'client_order_id']) {
          expect([undefined, null, sent[field]]).toContain(body[field])
        }
        expect([undefined, null, accountId]).toContain(body.account_id)
        if (placed.order) expect(findFaults(placed.order)).toEqual([])
      }),
      { numRuns: 150 },
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

  for (const [group, cases] of Object.entries({ reads, lists, batches, intervals, scans, placements, cancels, laws })) {
    describe(group, () => {
      for (const [name, run] of Object.entries(cases)) test(name, () => run(createBench(broker, dialect)))
    })
  }
})
