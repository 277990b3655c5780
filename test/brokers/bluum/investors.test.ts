// Bluum's investors dialect: what the adapter says in it and how it reads the answers, and what differs for a caller of
// the graph. What all adapters have in common is in brokers.contract.test.ts, what both dialects have in brokers.bluum.test.ts.
//
// The bodies in fixtures/bluum-investors are the examples of our description of Bluum's API, investor generation, as it
// stood in 2026-07, quoted whole. Each file is named after its page and example:
// `orders.cancel.done` is the example `done` of "Ask for an order to be canceled"; errors.json has the examples of all
// error answers.

import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'

import { createBluum } from '../../../src/brokers/bluum/bluum.ts'
import type { BluumOptions } from '../../../src/brokers/bluum/bluum.ts'
import { AccountNeeded } from '../../../src/brokers/broker.ts'
import { UpstreamError } from '../../../src/upstream/errors.ts'
import { createTally } from '../../../src/upstream/readScope.ts'
import type { Broker, Page, PageQuery } from '../../../src/brokers/broker.ts'
import type { ReadScope } from '../../../src/upstream/readScope.ts'
import { readConfig } from '../../../src/config/config.ts'
import type { NewOrder, Order, OrderKey } from '../../../src/domain/order.ts'
import { serve } from '../../../src/cli/serve.ts'

type Body = Record<string, unknown>

const read = (name: string): Body =>
  JSON.parse(readFileSync(new URL(`../../fixtures/bluum-investors/${name}.json`, import.meta.url), 'utf8')) as Body

const investor = 'inv_01k3v9c7m2x5r8t4w6z1b0d3fh'
const otherInvestor = 'inv_01k3v9e1p6s0y2n7q4g8j5a9kc'
const uuid = '8f14e45f-ceea-467a-9575-2f0a7c3d1b42'

// ---- the broker on loopback -----------------------------------------------------------------------------------------

interface Seen {
  method: string
  path: string
  query: Record<string, string>
  idempotencyKey: string | undefined
  body: unknown
}

interface Reply {
  status: number
  body: unknown
  headers?: Record<string, string>
}

const requests: Seen[] = []
let answerer: (request: Seen) => Reply = () => ({ status: 500, body: {} })
let server: Server
let url = ''

async function answerRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = ''
  for await (const chunk of request) text += String(chunk)
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://broker')
  const key = request.headers['idempotency-key']
  const seen: Seen = {
    method: request.method ?? '',
    path: pathname,
    query: Object.fromEntries(searchParams),
    idempotencyKey: typeof key === 'string' ? key : undefined,
    body: text === '' ? undefined : (JSON.parse(text) as unknown),
  }
  requests.push(seen)
  const { status, body, headers } = answerer(seen)
  response
    .writeHead(status, { 'content-type': 'application/json', ...headers })
    .end(typeof body === 'string' ? body : JSON.stringify(body))
}

beforeAll(async () => {
  server = createServer((request, response) => void answerRequest(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  url = `http://127.0.0.1:${address.port}/v1`
})

afterAll(() => {
  server.closeAllConnections()
  server.close()
})

beforeEach(() => {
  requests.length = 0
  answerer = () => ({ status: 500, body: {} })
})

const ok = (body: unknown, status = 200): Reply => ({ status, body })
const listOf = (data: readonly unknown[], hasMore = false): Body => ({
  object: 'list',
  url: '/',
  has_more: hasMore,
  data,
})
const fail = (status: number, code: string, type = 'invalid_request_error', param?: string): Reply => ({
  status,
  body: { error: { type, code, message: 'The words of the broker.', param } },
})

/** One reply a request, in their order. */
function answer(...replies: Reply[]): void {
  answerer = () => replies.shift() ?? { status: 500, body: {} }
}

const statusesOfOpen = ['pending', 'open', 'partial']

/** The API over these orders of `investor`, each read under its account only, listed as they stand here. */
function answerBook(rows: readonly Body[]): void {
  answerer = ({ method, path, query }) => {
    const [, , account, , id, verb] = path.slice('/v1'.length).split('/')
    if (account !== investor) return fail(404, 'BLUM-404-001', 'not_found_error')
    if (id !== undefined) {
      const row = rows.find((each) => each['id'] === id)
      if (row === undefined) return fail(404, 'BLUM-404-001', 'not_found_error')
      return method === 'GET' || verb === 'cancel' ? ok(row) : fail(404, 'BLUM-404-002', 'not_found_error')
    }
    const kept = rows.filter(({ status }) => {
      if (query['status'] === undefined) return true
      return query['status'] === 'open' ? statusesOfOpen.includes(String(status)) : status === query['status']
    })
    const start = Number(query['offset'])
    const end = start + Number(query['limit'])
    return ok(listOf(kept.slice(start, end), end < kept.length))
  }
}

// ---- values -----------------------------------------------------------------------------------------------------------

/** An adapter of its own, closed with its test. */
function connect(options: Partial<BluumOptions> = {}): Broker {
  const broker = createBluum({
    isForeignId: (id) => id.startsWith('aries:'),
    url,
    apiKey: 'key',
    apiSecret: 'secret',
    api: 'investors',
    requestsPerSecond: 100_000,
    breaker: false,
    ...options,
  })
  onTestFinished(() => broker.close(1_000))
  return broker
}

const createScope = (): ReadScope => ({
  signal: new AbortController().signal,
  deadline: Date.now() + 60_000,
  isForCancel: false,
  caller: null,
  tally: createTally(),
})

const keyOf = (id: string, accountId: string | null = investor, mustBeWhole = false): OrderKey => ({
  broker: 'BLUUM',
  id,
  accountId,
  mustBeWhole,
})

async function readOne(broker: Broker, body: Body): Promise<Order> {
  answer(ok(body))
  const [order] = await broker.orders([keyOf(String(body['id']))], createScope())
  if (!order || order instanceof UpstreamError) throw order ?? new Error('no order')
  return order
}

async function readPage(broker: Broker, query: Partial<PageQuery> = {}): Promise<Page> {
  const whole: PageQuery = {
    broker: 'BLUUM',
    accountId: investor,
    statuses: null,
    symbol: null,
    side: null,
    submittedAfter: null,
    submittedBefore: null,
    olderThan: null,
    after: null,
    first: 10,
    wantsMore: false,
    ...query,
  }
  const [page] = await broker.pages([whole], createScope())
  if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
  return page
}

const ordersOf = (page: Page): Order[] =>
  page.rows.flatMap(({ order }) => (order instanceof UpstreamError ? [] : [order]))
const idsOf = (page: Page): string[] => ordersOf(page).map(({ id }) => id)

const start = Date.UTC(2026, 5, 10, 14) / 1_000
const timeOf = (second: number): string => `${new Date((start + second) * 1_000).toISOString().slice(0, 19)}Z`

/** What an order needs, created at `second`, and `fields`. */
const toRow = (id: string, second: number, fields: Body = {}): Body => ({
  id,
  object: 'order',
  created: start + second,
  investor_id: investor,
  symbol: 'KO',
  side: 'buy',
  type: 'market',
  time_in_force: 'day',
  extended_hours: false,
  status: 'filled',
  submitted_at: timeOf(second),
  ...fields,
})

const partlyFilled = read('orders.get.partlyFilled')
const orderId = String(partlyFilled['id'])

const partlyFilledOrder: Order = {
  id: 'ord_01k5a3r6w9b2d5g8k1n4q7t0vx',
  broker: 'BLUUM',
  account: { id: investor, broker: 'BLUUM' },
  asset: { symbol: 'NVDA' },
  symbol: 'NVDA',
  securityType: null,
  legs: [],
  currency: 'USD',
  clientOrderId: null,
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'DAY',
  quantity: '30',
  notional: null,
  limitPrice: '121.00',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: false,
  status: 'PARTIALLY_FILLED',
  brokerStatus: 'partial',
  state: 'OPEN',
  isCancelable: true,
  filledQuantity: '18',
  remainingQuantity: '12',
  averagePrice: '120.97',
  commission: null,
  commissionType: null,
  submittedAt: '2026-06-10T15:02:01Z',
  filledAt: null,
  canceledAt: null,
  rejectReason: null,
  isPartial: false,
}

/** The order of the example `limit` of "Place an order". */
const newOrder: NewOrder = {
  accountId: investor,
  clientOrderId: 'graph-000417',
  symbol: 'KO',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'GTC',
  quantity: '40',
  notional: null,
  limitPrice: '58.25',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: null,
  commission: '0.75',
  commissionType: 'NOTIONAL',
}

const place = (broker: Broker, order = newOrder) =>
  broker.place(order, { idempotencyKey: 'op-1', sendBy: Date.now() + 60_000, beforeSend: async () => {} })

async function placeError(reply: Reply): Promise<UpstreamError> {
  answer(reply)
  return await errorOf(place(connect()))
}

async function errorOf(work: Promise<unknown>): Promise<UpstreamError> {
  const thrown = await work.then(
    () => new Error('no error'),
    (error: unknown) => error,
  )
  if (thrown instanceof UpstreamError) return thrown
  throw thrown
}

// ---- the adapter ------------------------------------------------------------------------------------------------------

describe('one order', () => {
  it('means the same here, field by field, and is read under its account', async () => {
    expect(await readOne(connect(), partlyFilled)).toEqual(partlyFilledOrder)
    expect(requests.map(({ method, path }) => `${method} ${path}`)).toEqual([
      `GET /v1/investors/${investor}/orders/${orderId}`,
    ])
  })

  it('that failed is rejected, with the reason and without a time of submission', async () => {
    expect(await readOne(connect(), read('orders.get.failed'))).toMatchObject({
      status: 'REJECTED',
      brokerStatus: 'failed',
      state: 'CLOSED',
      rejectReason: 'Not enough cash.',
      submittedAt: null,
      averagePrice: null,
    })
  })

  it.each([
    ['pending', '0', 'ACCEPTED', 'OPEN'],
    ['open', '0', 'ACCEPTED', 'OPEN'],
    ['open', null, 'ACCEPTED', 'OPEN'],
    ['open', '0.001', 'PARTIALLY_FILLED', 'OPEN'],
    ['partial', '1', 'PARTIALLY_FILLED', 'OPEN'],
    ['filled', '5', 'FILLED', 'CLOSED'],
    ['cancelled', '1', 'CANCELED', 'CLOSED'],
    ['failed', '0', 'REJECTED', 'CLOSED'],
    // Words of the older generation, other spellings, and a word of none.
    ['canceled', '0', 'CANCELED', 'CLOSED'],
    ['accepted', '0', 'ACCEPTED', 'OPEN'],
    ['OPEN', '0.001', 'PARTIALLY_FILLED', 'OPEN'],
    ['Pending', '0', 'ACCEPTED', 'OPEN'],
    ['constructor', '1', 'UNKNOWN', null],
  ])('%s with %s filled is %s', async (word, filled, status, state) => {
    const order = await readOne(connect(), { ...partlyFilled, status: word, filled_quantity: filled })
    expect(order).toMatchObject({ status, state, brokerStatus: word, isCancelable: state !== 'CLOSED' })
  })

  it('keeps the digits of the broker, quoted or not, and takes no field of the older generation for one', async () => {
    const body = `{"id":"ord_1","investor_id":"${investor}","symbol":"F","side":"short","type":"iceberg","time_in_force":"day",
      "status":"filled","quantity":12345678901234567890.10,"filled_quantity":"1e-3","remaining_quantity":"0.0000",
      "average_price":"0.0000","commission":"0.010","commission_type":"per_share","qty":"1","filled_qty":"2",
      "canceled_at":"2026-01-01T00:00:00Z","reject_reason":"old","cancelled_at":"2026-06-10T17:02:00+02:00"}`
    answerer = () => ({ status: 200, body })
    const [order] = await connect().orders([keyOf('ord_1')], createScope())
    expect(order).toMatchObject({
      side: 'UNKNOWN',
      type: 'UNKNOWN',
      quantity: '12345678901234567890.10',
      filledQuantity: '0.001',
      remainingQuantity: '0.0000',
      averagePrice: null,
      commission: '0.010',
      commissionType: 'QTY',
      canceledAt: '2026-06-10T15:02:00Z',
      rejectReason: null,
    })
  })

  it('without investor_id is of the account it was read under, and one garbled field costs that field', async () => {
    const { investor_id: _, ...rest } = partlyFilled
    const order = await readOne(connect(), { ...rest, quantity: 'many', cancelled_at: 'soon' })
    expect(order.account.id).toBe(investor)
    expect(order.quantity).toBeInstanceOf(UpstreamError)
    expect(order.canceledAt).toBeInstanceOf(UpstreamError)
    expect(order.filledQuantity).toBe('18')
  })

  it('is null if the broker has no such order, or says that the id is malformed', async () => {
    const broker = connect()
    answer(fail(404, 'BLUM-404-001', 'not_found_error'), fail(400, 'BLUM-400-003', 'invalid_request_error', 'order_id'))
    expect(await broker.orders([keyOf('ord_9')], createScope())).toEqual([null])
    expect(await broker.orders([keyOf(uuid)], createScope())).toEqual([null])
  })

  it('is refused by the broker for an account with a malformed id', async () => {
    answer({ status: 400, body: read('errors')['BadRequest.bareUuid'] })
    const [error] = await connect().orders([keyOf(orderId, uuid)], createScope())
    expect(error).toMatchObject({ kind: 'refused', rejection: 'ACCOUNT_NOT_FOUND' })
  })
})

describe('an order without a known account', () => {
  it('is not read', async () => {
    const answers = await connect().orders([keyOf(orderId, null), keyOf('ord_2', null, true)], createScope())
    expect(answers).toEqual([expect.any(AccountNeeded), expect.any(AccountNeeded)])
    expect(requests).toEqual([])
  })

  it.each([
    ['read', (broker: Broker) => broker.orders([keyOf(orderId)], createScope())],
    ['listed', (broker: Broker) => readPage(broker)],
  ])('is read once it has been %s', async (_, see) => {
    answerBook([partlyFilled])
    const broker = connect()
    await see(broker)
    expect(await broker.orders([keyOf(orderId, null)], createScope())).toEqual([partlyFilledOrder])
  })

  it('is read once it has been placed', async () => {
    const broker = connect()
    answer(ok(read('orders.place.pending'), 201), ok(read('orders.place.pending')))
    const { orderId: placed } = await place(broker)
    expect(await broker.orders([keyOf(placed, null)], createScope())).toMatchObject([{ id: placed }])
  })

  it('is read with another key that names the account, but takes no absence from it', async () => {
    const broker = connect()
    answerBook([partlyFilled])
    expect(await broker.orders([keyOf(orderId, null), keyOf(orderId)], createScope())).toEqual([
      partlyFilledOrder,
      partlyFilledOrder,
    ])
    expect(requests).toHaveLength(1)
    const wrong = [keyOf('ord_9', null), keyOf('ord_9', otherInvestor)]
    expect(await broker.orders(wrong, createScope())).toEqual([expect.any(AccountNeeded), null])
  })

  it('is read under the account of its record, which is read once', async () => {
    answerBook([partlyFilled])
    const asked: string[] = []
    const broker = connect({
      async findAccount(id) {
        asked.push(id)
        if (id === 'ord_8') throw new Error('the records cannot be reached')
        return id === orderId ? investor : null
      },
    })
    const keys = [keyOf(orderId, null), keyOf('ord_7', null), keyOf('ord_8', null)]
    expect(await broker.orders(keys, createScope())).toEqual([
      partlyFilledOrder,
      expect.any(AccountNeeded),
      expect.any(AccountNeeded),
    ])
    await broker.orders([keyOf(orderId, null)], createScope())
    expect(asked).toEqual([orderId, 'ord_7', 'ord_8'])
  })

  it('is not searched under its record if a key names another account', async () => {
    answerBook([partlyFilled])
    const broker = connect({ findAccount: async () => otherInvestor })
    expect(await broker.orders([keyOf(orderId, null)], createScope())).toEqual([null])
    expect(await broker.orders([keyOf(orderId)], createScope())).toEqual([partlyFilledOrder])
  })

  it('is null if the account is known and the broker has no such order in it', async () => {
    const broker = connect()
    await readOne(broker, partlyFilled)
    answer(fail(404, 'BLUM-404-001', 'not_found_error'))
    expect(await broker.orders([keyOf(orderId, null)], createScope())).toEqual([null])
  })

  it('named under two accounts is read under each', async () => {
    answerBook([partlyFilled])
    const keys = [keyOf(orderId, otherInvestor), keyOf(orderId)]
    expect(await connect().orders(keys, createScope())).toEqual([null, partlyFilledOrder])
  })
})

describe('lists', () => {
  it('the example of a page means the same here; what the custodian does not have yet has no time', async () => {
    answer(ok(read('orders.list.page')), ok(read('orders.list.empty')))
    const page = await readPage(connect(), { first: 2 })
    expect(page.hasMore).toBe(true)
    expect(ordersOf(page)).toMatchObject([
      {
        id: 'ord_01k5a2f8q3h6j9m1p4s7v0x2zc',
        clientOrderId: 'graph-000417',
        status: 'ACCEPTED',
        brokerStatus: 'pending',
        quantity: '40',
        filledQuantity: '0',
        averagePrice: null,
        submittedAt: null,
        isPartial: false,
      },
      {
        id: 'ord_01k59ybd4n7r0t3w6y9c2e5gkm',
        status: 'FILLED',
        side: 'SELL',
        averagePrice: '11.42',
        submittedAt: '2026-06-10T14:30:01Z',
      },
    ])
    expect(requests).toMatchObject([{ path: `/v1/investors/${investor}/orders`, query: { limit: '100', offset: '0' } }])
  })

  it('an empty one is a page of nothing', async () => {
    answer(ok(read('orders.list.empty')))
    expect(await readPage(connect(), { accountId: otherInvestor })).toMatchObject({
      rows: [],
      hasMore: false,
      isComplete: true,
    })
  })

  it.each([
    ['ACCEPTED', 'open', ['ord_pending', 'ord_open']],
    ['PARTIALLY_FILLED', 'open', ['ord_opened', 'ord_partial']],
    ['FILLED', 'filled', ['ord_filled']],
    ['CANCELED', 'cancelled', ['ord_cancelled']],
    ['REJECTED', 'failed', ['ord_failed']],
  ] as const)('of %s asks for %s and keeps what is that', async (status, word, ids) => {
    answerBook([
      toRow('ord_pending', 7, { status: 'pending', submitted_at: null }),
      toRow('ord_opened', 6, { status: 'open', filled_quantity: '2' }),
      toRow('ord_open', 5, { status: 'open', filled_quantity: '0' }),
      toRow('ord_partial', 4, { status: 'partial', filled_quantity: '2' }),
      toRow('ord_filled', 3),
      toRow('ord_cancelled', 2, { status: 'cancelled' }),
      toRow('ord_failed', 1, { status: 'failed', submitted_at: null }),
    ])
    const page = await readPage(connect(), { statuses: [status], symbol: 'KO', side: 'BUY', wantsMore: true })
    expect(idsOf(page)).toEqual(ids)
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
    expect(requests.map(({ query }) => query)).toMatchObject([{ status: word, symbol: 'KO', side: 'buy' }])
  })

  it('returns no row of another status for a group', async () => {
    const rows = Array.from({ length: 100 }, (_, index) => toRow(`ord_${index}`, -index, { status: 'open' }))
    answerBook([...rows, toRow('ord_partial', -100, { status: 'partial' })])
    const page = await readPage(connect(), { statuses: ['ACCEPTED'], first: 100, wantsMore: true })
    expect(page.rows).toHaveLength(100)
    expect(page.hasMore).toBe(false)
  })

  it('knows the statuses that it can report, each once', () => {
    expect(connect().features.statuses).toEqual(['ACCEPTED', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'REJECTED'])
  })

  it('an interval goes by the submission, though the list goes by the creation', async () => {
    const night = 12 * 3_600
    answerBook([
      toRow('ord_late', 100, { status: 'pending', submitted_at: null }),
      toRow('ord_today', 50),
      // Placed in the evening, sent on when the market opened.
      toRow('ord_evening', 40 - night, { submitted_at: timeOf(40) }),
      toRow('ord_yesterday', 30 - night),
      toRow('ord_last_week', -8 * 86_400),
      toRow('ord_ages_ago', -80 * 86_400),
    ])
    const after = await readPage(connect(), { submittedAfter: timeOf(0), wantsMore: true })
    expect(idsOf(after)).toEqual(['ord_late', 'ord_today', 'ord_evening'])
    expect(after).toMatchObject({ hasMore: false, isComplete: true })
    expect(idsOf(await readPage(connect(), { submittedBefore: timeOf(50) }))).toEqual([
      'ord_evening',
      'ord_yesterday',
      'ord_last_week',
      'ord_ages_ago',
    ])
  })

  it('gives each order once across lists, and leaves out none', async () => {
    answerBook([
      toRow('ord_newer', 9),
      toRow('ord_given', 4, { submitted_at: timeOf(5) }),
      // Created before the boundary and submitted after it.
      toRow('ord_due', 3, { submitted_at: timeOf(6) }),
    ])
    const olderThan = { at: timeOf(5), ids: ['ord_given'] }
    expect(idsOf(await readPage(connect(), { statuses: ['FILLED'], olderThan }))).toEqual(['ord_due'])
  })

  it('a search ends where the list was created before, with orders on top that no custodian has yet', async () => {
    const rows = Array.from({ length: 500 }, (_, index) =>
      toRow(`ord_${index}`, -index, index % 3 === 0 ? { status: 'pending', submitted_at: null } : {}),
    )
    answerBook(rows)
    const query = { accountId: investor, symbol: 'KO', side: 'BUY', since: timeOf(-50), purpose: 'lookup' } as const
    const { orders, isComplete } = await connect().scan(query, createScope())
    expect(isComplete).toBe(true)
    expect(orders.length).toBeGreaterThanOrEqual(51)
    expect(requests).toHaveLength(1)
  })

  it.each([
    ['unknown', fail(404, 'BLUM-404-001', 'not_found_error'), { rejection: 'ACCOUNT_NOT_FOUND' }],
    ['a bare UUID', { status: 400, body: read('errors')['BadRequest.bareUuid'] }, { rejection: 'ACCOUNT_NOT_FOUND' }],
    ['not ours', { status: 403, body: read('errors')['Forbidden.permissions'] }, { rejection: null, status: 403 }],
    ['no path', { status: 404, body: read('errors')['NotFound.endpoint'] }, { rejection: null, status: 404 }],
  ])('refuses an account that is %s', async (_, reply, expected) => {
    answerer = () => reply
    expect(await errorOf(readPage(connect()))).toMatchObject({ kind: 'refused', ...expected })
  })
})

describe('accounts', () => {
  it.each([
    // [accounts, rows on a page, calls, calls once that is known]
    [120, 50, 3, 3],
    [60, 25, 3, 3],
    [50, 50, 2, 2],
    [9, 50, 1, 1],
    [120, 100, 2, 2],
  ])('%i of them in bare arrays of at most %i are all listed', async (count, cap, calls, later) => {
    const ids = Array.from({ length: count }, (_, index) => `inv_${index}`)
    const notices: string[] = []
    const broker = connect({ onNotice: (notice) => notices.push(notice) })
    answerer = ({ query: { limit, offset } }) => {
      const from = Number(offset)
      return ok(ids.slice(from, from + Math.min(Number(limit), cap)).map((id) => ({ id })))
    }
    for (const most of [calls, later]) {
      requests.length = 0
      expect(await broker.accounts(createScope())).toEqual(ids)
      expect(requests).toHaveLength(most)
    }
    expect(notices).toHaveLength(count > cap && cap < 100 ? 1 : 0)
  })

  it('are listed once if a bare array ignores the offset', async () => {
    answerer = () => ok(Array.from({ length: 30 }, (_, index) => ({ id: `inv_${index}` })))
    expect(await connect().accounts(createScope())).toHaveLength(30)
    expect(requests).toHaveLength(2)
  })

  it('are the investors in any state, by id only', async () => {
    answer(ok(read('investors.list.two')))
    expect(await connect().accounts(createScope())).toEqual([investor, otherInvestor])
    expect(requests).toMatchObject([{ path: '/v1/investors', query: { limit: '100', offset: '0' } }])
  })

  it('come page by page, each once', async () => {
    const ids = Array.from({ length: 250 }, (_, index) => `inv_${index}`)
    answerer = ({ query }) => {
      const offset = Number(query['offset'])
      // Somebody new stands first from the second call on.
      const all = offset === 0 ? ids : ['inv_new', ...ids]
      const rows = all.slice(offset, offset + 100).map((id) => ({ id, object: 'investor', status: 'active' }))
      return ok(listOf(rows, offset + 100 < all.length))
    }
    expect(await connect().accounts(createScope())).toEqual(ids)
    expect(requests.map(({ query }) => query['offset'])).toEqual(['0', '100', '200'])
  })

  it.each([
    ['with pages that are empty', 1, () => []],
    ['for ever', 50, (offset: number) => [{ id: `inv_${offset}` }]],
  ])('that go on %s are unreadable, after %i calls', async (_, calls, rowsAt) => {
    answerer = ({ query }) => ok(listOf(rowsAt(Number(query['offset'])), true))
    expect(await errorOf(connect().accounts(createScope()))).toMatchObject({ kind: 'unreadable' })
    expect(requests).toHaveLength(calls)
  })
})

describe('placing', () => {
  it('sends the example as it is published, and takes the example of its answer', async () => {
    answer(ok(read('orders.place.pending'), 201))
    expect(await place(connect())).toMatchObject({
      orderId: 'ord_01k5a2f8q3h6j9m1p4s7v0x2zc',
      status: 'ACCEPTED',
      rejection: null,
      order: { quantity: '40', commission: '0.75', commissionType: 'NOTIONAL', submittedAt: null, isPartial: true },
    })
    expect(requests).toEqual([
      {
        method: 'POST',
        path: `/v1/investors/${investor}/orders`,
        query: {},
        idempotencyKey: 'op-1',
        body: read('orders.place.limit.request'),
      },
    ])
  })

  it('calls a commission for each share per_share, and a cash amount notional', async () => {
    answer(ok({ id: 'ord_1' }))
    const order = { ...newOrder, quantity: null, notional: '250.00', commissionType: 'QTY' } as const
    expect(await place(connect(), order)).toMatchObject({ orderId: 'ord_1', status: 'UNKNOWN', order: null })
    const body = requests[0]?.body
    expect(body).toMatchObject({ notional: '250.00', commission_type: 'per_share' })
    expect(body).not.toHaveProperty('quantity')
    expect(body).not.toHaveProperty('qty')
  })

  it('an answer with the id of something else says nothing about this order', async () => {
    const error = await placeError(ok({ ...read('orders.place.pending'), id: 'aries:1' }, 201))
    expect(error).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
  })

  it.each([
    ['BadRequest.generic', 400, 'none', 'INVALID_ORDER'],
    ['BadRequest.missingField', 400, 'none', 'INVALID_ORDER'],
    ['BadRequest.bareUuid', 400, 'none', 'ACCOUNT_NOT_FOUND'],
    ['BadRequest.badEnum', 400, 'none', 'INVALID_ORDER'],
    ['BadRequest.badAmount', 400, 'none', 'INVALID_ORDER'],
    ['BadRequest.badQuantity', 400, 'none', 'INVALID_ORDER'],
    ['Unauthorized.missing', 401, 'none', null],
    ['Unauthorized.malformed', 401, 'none', null],
    ['Unauthorized.wrong', 401, 'none', null],
    ['Unauthorized.inactive', 401, 'none', null],
    ['Unauthorized.expired', 401, 'none', null],
    ['Forbidden.permissions', 403, 'none', null],
    ['Forbidden.notApproved', 403, 'none', 'ACCOUNT_NOT_APPROVED'],
    ['Forbidden.productionOnly', 403, 'none', null],
    ['Forbidden.investorState', 403, 'none', 'ACCOUNT_RESTRICTED'],
    ['Forbidden.product', 403, 'none', null],
    ['NotFound.resource', 404, 'none', 'ACCOUNT_NOT_FOUND'],
    ['NotFound.endpoint', 404, 'none', null],
    ['NotFound.asset', 404, 'none', 'ASSET_NOT_FOUND'],
    ['Conflict.duplicate', 409, 'unknown', null],
    ['Conflict.idempotency', 409, 'unknown', null],
    ['Conflict.state', 409, 'unknown', null],
    ['Unprocessable.funds', 422, 'none', 'INSUFFICIENT_FUNDS'],
    ['Unprocessable.closed', 422, 'none', 'MARKET_CLOSED'],
    ['Unprocessable.notTradable', 422, 'none', 'ASSET_NOT_TRADABLE'],
    ['Unprocessable.position', 422, 'none', 'INSUFFICIENT_POSITION'],
    ['RateLimited.limited', 429, 'none', null],
    ['ServerError.internal', 500, 'unknown', null],
    ['ServerError.external', 503, 'unknown', null],
  ])('%s with %i: effect %s, rejection %s', async (name, status, effect, rejection) => {
    expect(await placeError({ status, body: read('errors')[name] })).toMatchObject({ effect, rejection })
  })

  it.each(['api_error', 'authentication_error', 'conflict_error', 'idempotency_error', 'rate_limit_error'])(
    'a refusal whose type is %s is no proof that there is no order',
    async (type) => {
      const error = await placeError(fail(422, 'BLUM-422-001', type))
      expect(error).toMatchObject({ kind: 'refused', effect: 'unknown', rejection: null })
    },
  )

  it.each(['invalid_request_error', 'permission_error', 'not_found_error', 'a_new_error', ''])(
    'a refusal whose type is %j goes by its code',
    async (type) => {
      const error = await placeError(fail(422, 'BLUM-422-001', type))
      expect(error).toMatchObject({ effect: 'none', rejection: 'INSUFFICIENT_FUNDS', brokerCode: 'BLUM-422-001' })
      expect(error.reason).toBe('The words of the broker.')
    },
  )
})

describe('canceling', () => {
  const cancel = (broker: Broker) => broker.cancel(partlyFilledOrder, Date.now() + 60_000)

  it.each([200, 202])('that is only requested shows the order as it still is (%i)', async (status) => {
    answer(ok(read('orders.cancel.stillOpen'), status))
    expect(await cancel(connect())).toMatchObject({ status: 'PARTIALLY_FILLED', state: 'OPEN', filledQuantity: '18' })
    expect(requests).toEqual([
      {
        method: 'POST',
        path: `/v1/investors/${investor}/orders/${orderId}/cancel`,
        query: {},
        idempotencyKey: undefined,
        body: undefined,
      },
    ])
  })

  it('that is done at once shows when', async () => {
    const done = read('orders.cancel.done')
    answer(ok(done))
    const order = { ...partlyFilledOrder, id: String(done['id']) }
    expect(await connect().cancel(order, Date.now() + 60_000)).toMatchObject({
      status: 'CANCELED',
      state: 'CLOSED',
      canceledAt: '2026-06-10T15:02:00Z',
    })
  })

  it.each([
    ['another order', read('orders.cancel.done')],
    ['another account', { ...read('orders.cancel.stillOpen'), investor_id: otherInvestor }],
    ['nothing', {}],
    ['a list', []],
  ])('an answer with %s says nothing', async (_, body) => {
    answer(ok(body))
    expect(await cancel(connect())).toBeNull()
  })
})

// ---- the graph over it ------------------------------------------------------------------------------------------------

interface Front {
  // What a document asked for; tests know its shape.
  // oxlint-disable-next-line typescript/no-explicit-any
  run(query: string): Promise<{ data: any; errors?: { message: string; extensions: Record<string, unknown> }[] }>
  close(): Promise<void>
}

const makeFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-investors-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A service over the scripted broker, closed with its test. */
async function startService(dataDir = makeFolder()): Promise<Front> {
  const env = {
    PORT: '0',
    DATA_DIR: dataDir,
    BLUUM_URL: url,
    BLUUM_API_KEY: 'key',
    BLUUM_API_SECRET: 'secret',
    BLUUM_API: 'investors',
    BLUUM_REQUESTS_PER_SECOND: '1000',
    AUTH: 'none',
    PLACE_REPLY_MS: '600',
    SHUTDOWN_MS: '0',
  }
  const service = await serve(readConfig(env), new Writable({ write: (_chunk, _encoding, done) => done() }))
  onTestFinished(() => service.close())
  return {
    async run(query) {
      const headers = { 'content-type': 'application/json' }
      const body = JSON.stringify({ query })
      const response = await service.fetch(new Request(service.url, { method: 'POST', headers, body }))
      return (await response.json()) as Awaited<ReturnType<Front['run']>>
    },
    close: () => service.close(),
  }
}

const toPlace = `mutation {
  placeOrder(input: {
    accountId: "${investor}", clientOrderId: "graph-000417", symbol: "KO", side: BUY, type: LIMIT, timeInForce: GTC,
    quantity: "40", limitPrice: "58.25", commission: "0.75", commissionType: NOTIONAL
  }) { __typename orderId order { status submittedAt } }
}`

const toCancel = (input: string): string => `cancelOrder(input: { ${input} }) {
  __typename orderId order { status } ... on CancelInvalid { problems { field code message } } }`

describe('the graph', () => {
  it('needs the account of an unknown order, and no longer once it is known', async () => {
    answerBook([partlyFilled])
    const { run } = await startService()
    const unnamed = await run(`{ order(id: "${orderId}") { status } ordersByIds(ids: ["${orderId}"]) { status } }`)
    expect(unnamed.data).toEqual({ order: null, ordersByIds: [null] })
    for (const error of unnamed.errors ?? []) {
      expect(error.extensions).toMatchObject({ code: 'BAD_USER_INPUT' })
      expect(error.message).toContain('accountId')
    }
    expect(unnamed.errors).toHaveLength(2)
    expect(requests).toEqual([])
    const named = await run(`{ order(id: "${orderId}", accountId: "${investor}") { status } }`)
    expect(named).toEqual({ data: { order: { status: 'PARTIALLY_FILLED' } } })
    expect(await run(`{ order(id: "${orderId}") { status } }`)).toEqual(named)
  })

  it('takes the account out of the representation of an entity', async () => {
    answerBook([partlyFilled])
    const { run } = await startService()
    const toEntity = (fields: string): string =>
      `{ _entities(representations: [{ __typename: "Order", id: "${orderId}"${fields} }]) { ... on Order { status } } }`
    expect((await run(toEntity(''))).errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }])
    expect(await run(toEntity(`, account: { id: "${investor}" }`))).toEqual({
      data: { _entities: [{ status: 'PARTIALLY_FILLED' }] },
    })
  })

  it('one alias with another account takes nothing from its neighbours', async () => {
    answerBook([partlyFilled])
    const { run } = await startService()
    const order = (account: string): string => `order(id: "${orderId}", accountId: "${account}") { status }`
    const [right, wrong] = [order(investor), order(otherInvestor)]
    expect(await run(`{ a: ${wrong} b: ${right} c: ${wrong} }`)).toEqual({
      data: { a: null, b: { status: 'PARTIALLY_FILLED' }, c: null },
    })
    expect(await run(`{ none: order(id: "ord_9", accountId: "${investor}") { id } }`)).toEqual({ data: { none: null } })
  })

  it('says that an account does not exist', async () => {
    answerer = () => ({ status: 400, body: read('errors')['BadRequest.bareUuid'] })
    const { run } = await startService()
    const { errors } = await run(`{ orders(accountId: "${uuid}") { nodes { id } } }`)
    expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }])
  })

  it('finds what it placed itself, also after a restart', async () => {
    const placed = read('orders.place.pending')
    answerBook([])
    const book = answerer
    answerer = (request) => (request.method === 'POST' ? ok(placed, 201) : book(request))
    const folder = makeFolder()
    const before = await startService(folder)
    expect(await before.run(toPlace)).toEqual({
      data: {
        placeOrder: {
          __typename: 'OrderPlaced',
          orderId: placed['id'],
          order: { status: 'ACCEPTED', submittedAt: null },
        },
      },
    })
    await before.close()

    answerBook([placed])
    const { run } = await startService(folder)
    expect(await run(`{ order(id: "${String(placed['id'])}") { status } }`)).toEqual({
      data: { order: { status: 'ACCEPTED' } },
    })
  })

  it('a cancel of an order without a known account needs it', async () => {
    answerBook([partlyFilled])
    const { run } = await startService()
    const { data } = await run(`mutation { ${toCancel(`orderId: "${orderId}"`)} }`)
    expect(data.cancelOrder).toEqual({
      __typename: 'CancelInvalid',
      orderId,
      order: null,
      problems: [
        { field: ['input', 'accountId'], code: 'REQUIRED', message: expect.stringContaining('accountId') as string },
      ],
    })
    expect(requests).toEqual([])
  })

  it('a cancel that is requested and not done is pending', async () => {
    answerBook([partlyFilled])
    const { run } = await startService()
    const { data } = await run(`mutation { ${toCancel(`orderId: "${orderId}", accountId: "${investor}"`)} }`)
    expect(data.cancelOrder).toMatchObject({ __typename: 'CancelPending', order: { status: 'PARTIALLY_FILLED' } })
    expect(requests.filter(({ method }) => method === 'POST')).toHaveLength(1)
  })

  it('a cancel is confirmed once the order shows it', async () => {
    let hasAsked = false
    answerer = ({ method }) => {
      const body = hasAsked && method === 'GET' ? { ...partlyFilled, status: 'cancelled' } : partlyFilled
      hasAsked ||= method === 'POST'
      return ok(body)
    }
    const { run } = await startService()
    const { data } = await run(`mutation { ${toCancel(`orderId: "${orderId}", accountId: "${investor}"`)} }`)
    expect(data.cancelOrder).toMatchObject({ __typename: 'CancelConfirmed', order: { status: 'CANCELED' } })
  })

  it('a cancel with another account at the same time does not disturb the right one', async () => {
    answerBook([partlyFilled])
    const { run } = await startService()
    const cancelIn = (account: string) =>
      run(`mutation { ${toCancel(`orderId: "${orderId}", accountId: "${account}"`)} }`)
    const cancels = await Promise.all([
      cancelIn(otherInvestor),
      cancelIn(investor),
      cancelIn(otherInvestor),
      // Once the first of them are over.
      new Promise((resolve) => setTimeout(resolve, 200)).then(() => cancelIn(investor)),
    ])
    expect(cancels.map(({ data }) => data.cancelOrder.__typename)).toEqual([
      'CancelRefused',
      'CancelPending',
      'CancelRefused',
      'CancelPending',
    ])
    expect(requests.filter(({ method }) => method === 'POST')).toHaveLength(1)
  })
})
