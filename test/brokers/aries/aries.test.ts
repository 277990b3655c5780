// Aries: what is special to its adapter, each against a server on loopback that answers what the test tells it to. What it
// has in common with the other adapters is in brokers.contract.test.ts.
//
// The bodies in fixtures/aries named cancel… are the examples of Aries' public API documentation, from its page on
// canceling an order, quoted as published. The others are the examples of our description of Aries' API as it stood in
// 2026-06, quoted whole, each named after its page and example: `orders.cancel.pending` is the example
// `pending` of "Ask for an order to be canceled"; errors.json has the examples of all error answers.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { inspect } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createAries } from '../../../src/brokers/aries/aries.ts'
import type { AriesOptions } from '../../../src/brokers/aries/aries.ts'
import { scanCallsMax } from '../../../src/brokers/broker.ts'
import { UpstreamError } from '../../../src/upstream/errors.ts'
import { createTally } from '../../../src/upstream/readScope.ts'
import type {
  Broker,
  Page,
  PageQuery,
  PlaceAnswer,
  PlaceOptions,
  Scan,
  ScanQuery,
} from '../../../src/brokers/broker.ts'
import type { ReadScope } from '../../../src/upstream/readScope.ts'
import { createHttp } from '../../../src/upstream/http.ts'
import { createTokens } from '../../../src/brokers/aries/tokens.ts'
import type { OAuthCredential, Tokens } from '../../../src/brokers/aries/tokens.ts'
import type { NewOrder, Order, OrderKey } from '../../../src/domain/order.ts'

type Body = Record<string, unknown>

const read = (name: string): Body =>
  JSON.parse(readFileSync(new URL(`../../fixtures/aries/${name}.json`, import.meta.url), 'utf8')) as Body

// ---- the broker on loopback -----------------------------------------------------------------------------------------

interface Seen {
  method: string
  path: string
  query: Record<string, string>
  authorization: string | undefined
  body: unknown
}

interface Reply {
  status: number
  body: unknown
  headers?: Record<string, string>
}

type Answerer = (request: Seen) => Reply | 'cut' | Promise<Reply | 'cut'>

const tokenPath = '/v1/oauth2/token'
const requests: Seen[] = []
const broken: Reply = { status: 500, body: {} }
let answerer: Answerer = () => broken
let server: Server
let url = ''

async function answerRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = ''
  for await (const chunk of request) text += String(chunk)
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://broker')
  const seen: Seen = {
    method: request.method ?? '',
    path: pathname,
    query: Object.fromEntries(searchParams),
    authorization: request.headers.authorization,
    body: text === '' ? undefined : (JSON.parse(text) as unknown),
  }
  requests.push(seen)
  const reply = await answerer(seen)
  if (reply === 'cut') {
    response.destroy()
    return
  }
  response
    .writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers })
    .end(typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body))
}

beforeAll(async () => {
  server = createServer((request, response) => void answerRequest(request, response))
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

beforeEach(() => {
  requests.length = 0
  answerer = () => broken
})

const ok = (body: unknown, status = 200): Reply => ({ status, body })
const refusal = (status: number, name: string): Reply => ({ status, body: read('errors')[name] })
const unauthorized = refusal(401, 'Unauthorized.token')

/** One reply a request, in their order. */
function answer(...replies: (Reply | 'cut')[]): void {
  answerer = () => replies.shift() ?? broken
}

/** What the lists of the account hold, and how they come. */
interface Lists {
  active?: readonly Body[]
  history?: readonly Body[]
  /** The most rows of an answer. */
  cap?: number
  openedAt?: string | null
}

const isHistory = ({ path }: Seen): boolean => path.endsWith('/history')
const isAccounts = ({ path }: Seen): boolean => path === '/v1/users/me/accounts'

/** Both lists, by their documents: the history newest first and of one window, a page behind a cursor. */
function serveLists({ active = [], history = [], cap = 500, openedAt = daysAgo(30) }: Lists): Answerer {
  return (request) => {
    const { method, query, path } = request
    if (path === tokenPath) return ok(read('token.issued'))
    if (isAccounts(request)) return ok({ accounts: [{ id: 7, apex_account_id: 'ACC-4471', created_at: openedAt }] })
    if (method !== 'GET' || !path.startsWith('/v2/accounts/ACC-4471/orders')) return refusal(404, 'NotFound.order')
    let rows = [...active]
    if (isHistory(request)) {
      const [from, to] = [Date.parse(query['from'] ?? ''), Date.parse(query['to'] ?? '')]
      if (!(to - from <= 90 * day)) return refusal(400, 'BadRequest.invalid')
      rows = history
        .filter(({ createdAt, listedAt }) => {
          const at = Date.parse(String(listedAt ?? createdAt))
          return from <= at && at <= to
        })
        .toSorted((a, b) =>
          String(a['listedAt'] ?? a['createdAt']) < String(b['listedAt'] ?? b['createdAt']) ? 1 : -1,
        )
    }
    const start = Number(query['cursor'] ?? 0)
    const end = start + Math.min(cap, Number(query['limit']))
    return ok({ orders: rows.slice(start, end), nextCursor: end < rows.length ? end : 0 })
  }
}

/** What was asked for: `active`, `history`, `accounts`, or the method and path of anything else. */
const asked = (): string[] =>
  requests.map((request) => {
    if (isAccounts(request)) return 'accounts'
    if (isHistory(request)) return 'history'
    return request.path.endsWith('/orders') && request.method === 'GET' ? 'active' : `${request.method} ${request.path}`
  })

// ---- values -----------------------------------------------------------------------------------------------------------

const day = 86_400_000
const now = Math.floor(Date.now() / 1_000) * 1_000
const toText = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z')
const daysAgo = (days: number): string => toText(now - days * day)
const secondsAgo = (seconds: number): string => toText(now - seconds * 1_000)

const account = 'aries:ACC-4471'
const idOf = (name: string): string => `${account}:${name}`

/** What an order of a list has, created so many seconds ago, and `fields`; `listedAt` is what the broker sorts it by. */
const toRow = (clOrdId: string, age: number, fields: Body = {}): Body => ({
  clOrdId,
  accountId: 'ACC-4471',
  symbol: 'KO',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'DAY',
  qty: '40',
  price: '58.25',
  stopPrice: '',
  ordStatus: 'FILLED',
  cumQty: '40',
  leavesQty: '0',
  avgPrice: '58.25',
  createdAt: secondsAgo(age),
  updatedAt: secondsAgo(age),
  ...fields,
})

/** An adapter of its own, closed with its test. */
function connect(options: Partial<AriesOptions> = {}): Broker {
  const broker = createAries({
    url,
    credential: { accessToken: 'access' },
    accountField: 'accountId',
    tradingId: 'apex_account_id',
    requestsPerSecond: 100_000,
    breaker: false,
    ...options,
  })
  onTestFinished(() => broker.close(1_000))
  return broker
}

const createScope = (signal = new AbortController().signal): ReadScope => ({
  signal,
  deadline: Date.now() + 60_000,
  isForCancel: false,
  caller: null,
  tally: createTally(),
})

const keyOf = (name: string): OrderKey => ({ broker: 'ARIES', id: idOf(name), accountId: account, mustBeWhole: false })

const readOrders = (broker: Broker, ...names: string[]): Promise<(Order | null | UpstreamError)[]> =>
  broker.orders(names.map(keyOf), createScope())

async function readOne(broker: Broker, name: string): Promise<Order> {
  const [order] = await readOrders(broker, name)
  if (!order || order instanceof UpstreamError) throw order ?? new Error('no order')
  return order
}

async function readPage(broker: Broker, query: Partial<PageQuery> = {}): Promise<Page> {
  const [page] = await broker.pages([toQuery(query)], createScope())
  if (!page || page instanceof UpstreamError) throw page ?? new Error('no page')
  return page
}

const toQuery = (query: Partial<PageQuery> = {}): PageQuery => ({
  broker: 'ARIES',
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
})

const namesOf = (page: Page): string[] =>
  page.rows.map(({ order }) => (order instanceof UpstreamError ? order.kind : order.id.slice(account.length + 1)))

/** The names of all rows, page by page. */
async function walk(broker: Broker, query: Partial<PageQuery> = {}): Promise<string[]> {
  const names: string[] = []
  let after: string | null = null
  for (let round = 1; round <= 300; round++) {
    const page: Page = await readPage(broker, { ...query, after })
    names.push(...namesOf(page))
    if (page.isComplete && page.hasMore === false) return names
    expect(page.position).not.toBe(after)
    after = page.position
  }
  throw new Error('a walk without an end')
}

const scan = (broker: Broker, query: Partial<ScanQuery> = {}): Promise<Scan> =>
  broker.scan(
    { accountId: account, symbol: 'KO', side: 'BUY', since: secondsAgo(600), purpose: 'lookup', ...query },
    createScope(),
  )

/** The order of the example `equityLimit` of "Place an order". */
const newOrder: NewOrder = {
  accountId: account,
  clientOrderId: 'graph-1',
  symbol: 'KO',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'DAY',
  quantity: '40',
  notional: null,
  limitPrice: '58.25',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: null,
  commission: null,
  commissionType: null,
}

const place = (broker: Broker, order = newOrder, options: Partial<PlaceOptions> = {}): Promise<PlaceAnswer> =>
  broker.place(order, {
    idempotencyKey: 'op-1',
    sendBy: Date.now() + 60_000,
    beforeSend: async () => {},
    ...options,
  })

async function errorOf(work: Promise<unknown>): Promise<UpstreamError> {
  const thrown = await work.then(
    (value) => new Error(`no error: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  )
  if (thrown instanceof UpstreamError) return thrown
  throw thrown
}

// ---- orders -----------------------------------------------------------------------------------------------------------

const partlyFilled: Order = {
  id: idOf('ORDER-20260309-0041'),
  broker: 'ARIES',
  account: { id: account, broker: 'ARIES' },
  asset: { symbol: 'KO' },
  symbol: 'KO',
  securityType: 'EQUITY',
  legs: [],
  currency: 'USD',
  clientOrderId: 'graph-1',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'DAY',
  quantity: '40',
  notional: null,
  limitPrice: '58.25',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: false,
  status: 'PARTIALLY_FILLED',
  brokerStatus: 'PARTIALLY_FILLED',
  state: 'OPEN',
  isCancelable: true,
  filledQuantity: '15',
  remainingQuantity: '25',
  averagePrice: '58.24',
  commission: null,
  commissionType: null,
  submittedAt: '2026-03-09T15:02:11Z',
  filledAt: null,
  canceledAt: null,
  rejectReason: null,
  isPartial: false,
}

const optionLeg: Body = {
  securityType: 'OPT',
  side: 'BUY',
  ratioQty: '1',
  putCall: 'CALL',
  strikePrice: '60.00',
  maturity: '2026-09-18',
  positionEffect: 'OPEN',
}

describe('an order', () => {
  it('is mapped field by field, as in the example', async () => {
    const page = read('orders.list.page')
    answerer = (request) => ok(isHistory(request) ? { orders: [], nextCursor: 0 } : page)
    expect(await readOne(connect(), 'ORDER-20260309-0041')).toEqual(partlyFilled)
    expect(requests.map(({ method, path, query }) => ({ method, path, query }))).toEqual([
      { method: 'GET', path: '/v2/accounts/ACC-4471/orders', query: { limit: '500' } },
    ])
  })

  it('has a colon of its name percent-encoded in its id', async () => {
    for (const name of ['a:b', 'A.1', 'x_y-z', '2026:03:09-0041']) {
      answerer = serveLists({ active: [toRow(name, 5, { ordStatus: 'NEW' })] })
      const id = `aries:ACC-4471:${name.replaceAll(':', '%3A')}`
      const keys = [{ broker: 'ARIES' as const, id, accountId: null, mustBeWhole: false }]
      expect(await connect().orders(keys, createScope())).toMatchObject([{ id, account: { id: account } }])
      expect(namesOf(await readPage(connect()))).toEqual([name.replaceAll(':', '%3A')])
    }
    // An unencoded colon would name another order.
    const keys = [{ broker: 'ARIES' as const, id: 'aries:ACC-4471:a:b', accountId: null, mustBeWhole: false }]
    await expect(connect().orders(keys, createScope())).rejects.toThrow(RangeError)
  })

  it('has no asset if it is a single option, and shows its leg', async () => {
    answerer = serveLists({ active: [toRow('opt', 5, { securityType: 'OPT', legs: [optionLeg] })] })
    expect(await readOne(connect(), 'opt')).toMatchObject({
      asset: null,
      symbol: 'KO',
      securityType: 'OPTION',
      legs: [
        {
          symbol: null,
          securityType: 'OPTION',
          side: 'BUY',
          ratio: '1',
          right: 'CALL',
          strikePrice: '60.00',
          expiration: '2026-09-18',
        },
      ],
    })
  })

  it('shows each leg of a spread, in long words and in short ones', async () => {
    const legs = [
      { ...optionLeg, side: 'B', putCall: 'P', symbol: 'KO', strikePrice: '62.5' },
      { ...optionLeg, side: 'S', putCall: 'C', ratioQty: '2' },
      { ...optionLeg, side: 'SELL', putCall: 'PUT', maturity: 'soon', strikePrice: {} },
      { ...optionLeg, side: 'X', putCall: 'X', securityType: 'X', ratioQty: '' },
    ]
    answerer = serveLists({ active: [toRow('spread', 5, { securityType: 'OPT', category: 'MULTI_LEG', legs })] })
    expect((await readOne(connect(), 'spread')).legs).toMatchObject([
      { symbol: 'KO', side: 'BUY', right: 'PUT', strikePrice: '62.5' },
      { side: 'SELL', right: 'CALL', ratio: '2' },
      { side: 'SELL', right: 'PUT', expiration: null, strikePrice: null },
      { side: 'UNKNOWN', right: 'UNKNOWN', securityType: 'UNKNOWN', ratio: null },
    ])
  })

  it.each([
    ['CS', 'EQUITY', true],
    ['EQUITY', 'EQUITY', true],
    ['OPT', 'OPTION', false],
    ['FUT', 'UNKNOWN', true],
    [undefined, null, true],
    ['', null, true],
  ])('maps securityType %j to %j', async (word, securityType, hasAsset) => {
    answerer = serveLists({ active: [toRow('a', 5, { securityType: word })] })
    const order = await readOne(connect(), 'a')
    expect([order.securityType, order.asset !== null]).toEqual([securityType, hasAsset])
  })

  it.each([
    ['EXTENDED_HOURS', 'DAY', true],
    ['DAY', 'DAY', false],
    ['AT_THE_OPENING', 'OPG', false],
    ['AT_THE_CLOSE', 'CLS', false],
    ['GTX', 'UNKNOWN', null],
    [undefined, 'UNKNOWN', null],
  ])('maps timeInForce %j to %s, extended hours %j', async (word, timeInForce, extendedHours) => {
    answerer = serveLists({ active: [toRow('a', 5, { timeInForce: word })] })
    expect(await readOne(connect(), 'a')).toMatchObject({ timeInForce, extendedHours })
  })

  it.each([
    ['PENDING_NEW', 'PENDING', 'OPEN'],
    ['NEW', 'ACCEPTED', 'OPEN'],
    ['WORKING', 'ACCEPTED', 'OPEN'],
    ['PARTIALLY_FILLED', 'PARTIALLY_FILLED', 'OPEN'],
    ['PENDING_CANCEL', 'PENDING_CANCEL', 'OPEN'],
    ['PENDING_REPLACE', 'PENDING_REPLACE', 'OPEN'],
    ['FILLED', 'FILLED', 'CLOSED'],
    ['CANCELED', 'CANCELED', 'CLOSED'],
    ['REJECTED', 'REJECTED', 'CLOSED'],
    ['EXPIRED', 'EXPIRED', 'CLOSED'],
    ['REPLACED', 'REPLACED', 'CLOSED'],
    ['SUPERSEDED', 'REPLACED', 'CLOSED'],
    ['DONE_FOR_DAY', 'ACCEPTED', 'OPEN'],
    ['CALCULATED', 'UNKNOWN', null],
    ['', 'UNKNOWN', null],
  ])('maps ordStatus %j to %s', async (word, status, state) => {
    answerer = serveLists({ active: [toRow('a', 5, { ordStatus: word, qty: '40', cumQty: '15', leavesQty: '7' })] })
    expect(await readOne(connect(), 'a')).toMatchObject({
      status,
      state,
      // Of what is final, `leavesQty` is 0, whatever had not filled.
      remainingQuantity: state === 'CLOSED' ? '25' : '7',
    })
  })

  it('that is final has no rest where the figures make none', async () => {
    for (const fields of [{ qty: '' }, { cumQty: 'many' }, { qty: '10', cumQty: '11' }]) {
      answerer = serveLists({ active: [toRow('a', 5, { ordStatus: 'CANCELED', leavesQty: '9', ...fields })] })
      expect((await readOne(connect(), 'a')).remainingQuantity).toBeNull()
    }
    answerer = serveLists({ active: [toRow('a', 5, { ordStatus: 'CANCELED', qty: '1.5', cumQty: '0.25' })] })
    expect((await readOne(connect(), 'a')).remainingQuantity).toBe('1.25')
  })

  it('that is rejected tells why: in words, else by the code', async () => {
    const rejected = { ordStatus: 'REJECTED', ordRejReason: 'NO_CASH' }
    answerer = serveLists({
      active: [toRow('a', 5, { ...rejected, text: 'Not enough.' }), toRow('b', 5, { ...rejected, text: '' })],
    })
    expect(await readOrders(connect(), 'a', 'b')).toMatchObject([
      { rejectReason: 'Not enough.' },
      { rejectReason: 'NO_CASH' },
    ])
  })
})

// ---- the two lists ------------------------------------------------------------------------------------------------------

describe('the two lists', () => {
  it.each([
    ['the active one', 20, 10, 'ACCEPTED'],
    ['the history', 10, 20, 'FILLED'],
  ])('have an order twice, and %s holds where it was changed later', async (_, inActive, inHistory, status) => {
    answerer = serveLists({
      active: [toRow('a', 60, { ordStatus: 'NEW', cumQty: '0', updatedAt: secondsAgo(40 - inActive) })],
      history: [toRow('a', 60, { updatedAt: secondsAgo(40 - inHistory) })],
    })
    const page = await readPage(connect())
    expect(page.rows.map(({ order }) => order)).toMatchObject([{ status }])
    expect((await scan(connect())).orders).toMatchObject([{ status }])
  })

  it('have an order twice, changed in one second: what has ended does not come back', async () => {
    const times = { createdAt: secondsAgo(60), updatedAt: secondsAgo(60) }
    const open = toRow('a', 60, { ...times, ordStatus: 'NEW', cumQty: '0', leavesQty: '40' })
    const filled = toRow('a', 60, times)
    for (const lists of [
      { active: [open], history: [filled] },
      { active: [filled], history: [open] },
      { active: [{ ...filled, ordStatus: undefined }], history: [filled] },
    ]) {
      answerer = serveLists(lists)
      expect((await readPage(connect())).rows.map(({ order }) => order)).toMatchObject([{ status: 'FILLED' }])
      expect((await scan(connect())).orders).toMatchObject([{ status: 'FILLED' }])
    }
  })

  it('are read with cursors to their ends, 500 rows per call', async () => {
    const active = Array.from({ length: 7 }, (_, index) => toRow(`a${index}`, index, { ordStatus: 'NEW' }))
    const history = Array.from({ length: 7 }, (_, index) => toRow(`h${index}`, 100 + index))
    answerer = serveLists({ active, history, cap: 3 })
    const { orders, isComplete } = await scan(connect())
    expect([orders.length, isComplete]).toEqual([14, true])
    expect(asked()).toEqual(['active', 'active', 'active', 'history', 'history', 'history'])
    expect(requests.map(({ query }) => query['cursor'])).toEqual([undefined, '3', '6', undefined, '3', '6'])
    for (const { query } of requests) expect(query['limit']).toBe('500')
  })

  it('cannot be read if their cursor does not move or is malformed, and the reads end', async () => {
    for (const nextCursor of [7, -1, 1.5, 'next', undefined, {}, true]) {
      answerer = () => ok({ orders: [toRow('a', 5)], nextCursor })
      requests.length = 0
      expect(await errorOf(scan(connect()))).toMatchObject({ kind: 'unreadable' })
      expect(requests.length).toBeLessThanOrEqual(2)
      expect(await connect().pages([toQuery()], createScope())).toMatchObject([{ kind: 'unreadable' }])
      expect(await readOrders(connect(), 'b')).toMatchObject([{ kind: 'unreadable' }])
    }
  })

  it('end with a cursor of zero, in digits of any kind, and with none', async () => {
    for (const nextCursor of ['0', '00', 0, null, '', undefined]) {
      const lists = serveLists({})
      answerer = (request) => (isAccounts(request) ? lists(request) : ok({ orders: [], nextCursor }))
      expect(await readOrders(connect(), 'b')).toEqual([null])
    }
  })

  it('keep a cursor of more digits than a double has', async () => {
    answerer = ({ query }) =>
      ok(query['cursor'] === undefined ? '{"orders":[],"nextCursor":9007199254740993}' : '{"orders":[],"nextCursor":0}')
    await scan(connect())
    expect(requests.map(({ query }) => query['cursor'])).toEqual([
      undefined,
      '9007199254740993',
      undefined,
      '9007199254740993',
    ])
  })

  it('are read from the second below to the second above, in adjoining windows of at most 90 days', async () => {
    const old = toRow('old', 0, { createdAt: daysAgo(299), updatedAt: daysAgo(299) })
    answerer = serveLists({ history: [old], openedAt: daysAgo(300) })
    expect(await readOne(connect(), 'old')).toMatchObject({ status: 'FILLED' })
    const windows = requests.filter(isHistory).map(({ query }) => query)
    expect(windows).toHaveLength(4)
    for (const [index, { from = '', to = '' }] of windows.entries()) {
      expect(Date.parse(to) - Date.parse(from)).toBeLessThanOrEqual(90 * day)
      for (const at of [from, to]) expect(at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
      if (index > 0) expect(to).toBe(windows[index - 1]?.['from'])
    }
    // A little later than now, by the broker's clock.
    expect(Date.parse(windows[0]?.['to'] ?? '')).toBeGreaterThan(now)
    requests.length = 0
    const query = { submittedAfter: '2026-03-09T15:02:11.25Z', submittedBefore: '2026-03-09T15:02:13.000000001Z' }
    await readPage(connect(), query)
    expect(requests.filter(isHistory).map(({ query: { from, to } }) => [from, to])).toEqual([
      // Milliseconds are all that a clock counts in; the nanosecond is in the second that is asked for.
      ['2026-03-09T15:02:11Z', expect.stringMatching(/^2026-03-09T15:02:1[34]Z$/) as string],
    ])
  })

  it('are read back to the opening of the account, and a recent account takes one window', async () => {
    answerer = serveLists({ openedAt: daysAgo(200) })
    expect(await readOrders(connect(), 'none')).toEqual([null])
    expect(asked()).toEqual(['active', 'history', 'accounts', 'history', 'history'])
    requests.length = 0
    answerer = serveLists({ openedAt: daysAgo(5) })
    expect(await readOrders(connect(), 'none')).toEqual([null])
    expect(asked().filter((what) => what === 'history')).toHaveLength(1)
  })

  it.each([
    ['later than orders that it has', daysAgo(10)],
    ['later than now', daysAgo(-400)],
  ])('are read further back if the account was opened %s', async (_, openedAt) => {
    const old = toRow('old', 0, { createdAt: daysAgo(300), updatedAt: daysAgo(300) })
    answerer = serveLists({ history: [toRow('new', 0, { createdAt: daysAgo(80) }), old], openedAt })
    expect(await readOne(connect(), 'old')).toMatchObject({ status: 'FILLED' })
  })

  it('end without a known opening of the account, and then prove no absence', async () => {
    for (const openedAt of [null, 'soon']) {
      answerer = serveLists({ openedAt })
      requests.length = 0
      const broker = connect()
      expect(await readOrders(broker, 'none')).toMatchObject([{ name: 'SearchEnded', kind: 'unreadable' }])
      expect(asked()).toEqual(['active', 'history', 'accounts', 'history', 'history'])
      // The list of accounts is not asked again for what it does not say.
      requests.length = 0
      await readOrders(broker, 'none')
      expect(asked()).toEqual(['active', 'history', 'history', 'history'])
    }
  })

  it('end behind three empty windows where the opening date is not known, and go on behind the cursor', async () => {
    const old = toRow('old', 0, { createdAt: daysAgo(800), updatedAt: daysAgo(800) })
    answerer = serveLists({ history: [toRow('new', 60), old], openedAt: null })
    const broker = connect()
    const page = await readPage(broker, { first: 10 })
    expect(page).toMatchObject({ isComplete: false, hasMore: null })
    expect(page.rows).toHaveLength(1)
    // The active list, the window of the new order, the list of accounts and three empty windows.
    expect(requests).toHaveLength(6)
    const given: string[] = []
    let after = page.position
    for (let round = 0; given.length === 0; round++) {
      expect(round).toBeLessThan(4)
      requests.length = 0
      const next = await readPage(broker, { first: 10, after })
      expect(requests.length).toBeLessThanOrEqual(6)
      expect(next.position).not.toBe(after)
      after = next.position
      given.push(...next.rows.map(({ order }) => (order instanceof UpstreamError ? 'error' : order.id)))
    }
    expect(given).toEqual([idOf('old')])
  })

  it('are an error of the list of accounts where that is why the opening date is not known', async () => {
    const serving = serveLists({})
    answerer = (request) =>
      isAccounts(request) ? { ...refusal(403, 'NotFound.order'), status: 403 } : serving(request)
    expect(await readOrders(connect(), 'none')).toMatchObject([{ status: 403 }])
  })

  it('are gone on with to the end where one search is too short', async () => {
    const old = toRow('old', 0, { createdAt: daysAgo(3_000), updatedAt: daysAgo(3_000) })
    answerer = serveLists({ history: [toRow('new', 60), old], openedAt: daysAgo(3_100) })
    expect(await walk(connect())).toEqual(['new', 'old'])
  })

  it('tell what is past: it costs one call from then on, to the second', async () => {
    answerer = serveLists({ history: [toRow('a', 86_400), toRow('b', 90_000)], active: [toRow('c', 5)] })
    const broker = connect()
    await readOrders(broker, 'a', 'b')
    requests.length = 0
    expect(await readOrders(broker, 'a')).toMatchObject([{ id: idOf('a') }])
    expect(requests.map(({ query: { from, to } }) => [from, to])).toEqual([[secondsAgo(86_400), secondsAgo(86_400)]])
    requests.length = 0
    expect(await readOrders(broker, 'a', 'b')).toMatchObject([{ id: idOf('a') }, { id: idOf('b') }])
    expect(asked()).toEqual(['history'])
  })

  it('never take what is open, or has ended today, for past', async () => {
    const broker = connect()
    answerer = serveLists({ active: [toRow('a', 60)], history: [toRow('a', 60), toRow('b', 60, { ordStatus: 'NEW' })] })
    await readOrders(broker, 'a', 'b')
    requests.length = 0
    await readOrders(broker, 'a')
    await readOrders(broker, 'b')
    expect(asked()).toEqual(['active', 'active', 'history'])
  })

  it('look on where what was past is not there any more', async () => {
    const broker = connect()
    answerer = serveLists({ history: [toRow('a', 60)] })
    await readOne(broker, 'a')
    answerer = serveLists({ active: [toRow('a', 60, { ordStatus: 'NEW' })] })
    expect(await readOne(broker, 'a')).toMatchObject({ status: 'ACCEPTED' })
  })

  it('answer 100 orders of one account in two calls, in both lists', async () => {
    const active = Array.from({ length: 50 }, (_, index) => toRow(`a${index}`, index, { ordStatus: 'NEW' }))
    const history = Array.from({ length: 400 }, (_, index) => toRow(`h${index}`, 86_400 + index))
    answerer = serveLists({ active, history })
    const names = [...active.keys()]
      .map((index) => `a${index}`)
      .concat([...active.keys()].map((index) => `h${index * 8}`))
    const scope = createScope()
    const orders = await connect().orders(names.map(keyOf), scope)
    expect(orders).toMatchObject(names.map((name) => ({ id: idOf(name) })))
    expect(scope.tally).toMatchObject({ calls: 2, batched: 99 })
  })

  it('read only the active one for open orders', async () => {
    answerer = serveLists({
      active: [toRow('a', 5, { ordStatus: 'NEW' }), toRow('b', 6), toRow('c', 7, { ordStatus: 'PENDING_CANCEL' })],
      history: [toRow('d', 8)],
    })
    const page = await readPage(connect(), { statuses: ['ACCEPTED', 'PENDING_CANCEL'] })
    expect(namesOf(page)).toEqual(['a', 'c'])
    expect(page).toMatchObject({ hasMore: false, isComplete: true })
    expect(asked()).toEqual(['active'])
  })

  it('that fail fail their own orders only', async () => {
    const lists = serveLists({ active: [toRow('a', 5)] })
    answerer = (request) => (isHistory(request) ? { ...broken, headers: { 'retry-after': '30' } } : lists(request))
    expect(await readOrders(connect(), 'a', 'b')).toMatchObject([{ id: idOf('a') }, { kind: 'failed' }])
  })

  it('are read from the other source in the second pass of a search', async () => {
    const active = Array.from({ length: 5 }, (_, index) => toRow(`a${index}`, index))
    answerer = serveLists({ active, cap: 2 })
    await scan(connect())
    await scan(connect(), { symbol: null, side: null })
    const sources = requests.filter((request) => !isHistory(request)).map(({ query }) => query['source'])
    expect(sources).toEqual([undefined, undefined, undefined, 'db', 'db', 'db'])
  })

  it('are read in this order, so that what ends between the two is in one of them', async () => {
    const row = toRow('a', 60, { ordStatus: 'NEW' })
    for (const look of [
      (broker: Broker) => scan(broker).then(({ orders }) => orders.length),
      (broker: Broker) => readPage(broker).then(({ rows }) => rows.length),
      (broker: Broker) => readOne(broker, 'a').then(() => 1),
    ]) {
      let hasEnded = false
      answerer = (request) => {
        const lists = hasEnded ? { history: [{ ...row, ordStatus: 'FILLED' }] } : { active: [row] }
        hasEnded = true
        return serveLists(lists)(request)
      }
      expect(await look(connect())).toBe(1)
    }
  })

  it.each(['snapshot', 'lookup'] as const)(
    'that are too long for a search (%s) show that it is not complete',
    async (purpose) => {
      const rows = Array.from({ length: 120 }, (_, index) => toRow(`o${index}`, index))
      for (const lists of [
        { active: rows },
        { history: rows },
        { active: rows.slice(0, 10), history: rows.slice(10) },
      ]) {
        answerer = serveLists({ ...lists, cap: 5 })
        requests.length = 0
        const { orders, isComplete } = await scan(connect(), { purpose })
        expect([orders.length > 0, isComplete, requests.length]).toEqual([true, false, scanCallsMax[purpose]])
      }
    },
  )
})

describe('accounts', () => {
  const accounts = [
    { id: 7, fdid: 'F-1', apex_account_id: 'ACC-4471', sterling_account_id: 'S:1', status: 'OPEN' },
    { id: 8, fdid: 'F-2', apex_account_id: null, sterling_account_id: '../S', status: 'CLOSED' },
    null,
    'ACC-4473',
    { id: 7, fdid: 'F-1', apex_account_id: 'ACC-4471', sterling_account_id: 'S:1' },
  ]

  it.each([
    ['id', ['aries:7', 'aries:8']],
    ['fdid', ['aries:F-1', 'aries:F-2']],
    ['apex_account_id', [account]],
    ['sterling_account_id', ['aries:S%3A1']],
  ] as const)('are named by their %s, each once', async (tradingId, ids) => {
    answer(ok({ accounts }))
    expect(await connect({ tradingId }).accounts(createScope())).toEqual(ids)
    expect(requests).toMatchObject([{ path: '/v1/users/me/accounts', query: {}, authorization: 'Bearer access' }])
  })

  it('without a usable id are an error, and an empty list is empty', async () => {
    answer(ok({ accounts: [{ id: 7 }, { fdid: '..' }] }), ok({ accounts: [] }))
    const broker = connect({ tradingId: 'fdid' })
    expect(await errorOf(broker.accounts(createScope()))).toMatchObject({
      kind: 'unreadable',
      message: expect.stringContaining('fdid') as string,
    })
    expect(await broker.accounts(createScope())).toEqual([])
  })
})

describe('the account that callers name', () => {
  const columns = {
    id: 'ACC-4471',
    fdid: 'ACC-4471',
    apex_account_id: 'ACC-4471',
    sterling_account_id: 'ACC-4471',
  }
  const others = { id: 7, fdid: 'F-1', apex_account_id: '3AP1', sterling_account_id: 'ST1' }

  function serve(accounts: readonly unknown[]): void {
    const serving = serveLists({})
    answerer = (request) => (isAccounts(request) ? ok({ accounts }) : serving(request))
  }

  it.each(Object.keys(columns) as (keyof typeof columns)[])(
    'is found under its %s with any setting, and the operator gets one notice about the setting',
    async (column) => {
      for (const tradingId of ['id', 'fdid'] as const) {
        serve([
          { ...others, created_at: daysAgo(3_000) },
          { ...others, [column]: columns[column], created_at: daysAgo(200) },
        ])
        const notices: string[] = []
        const broker = connect({ tradingId, onNotice: (notice) => notices.push(notice) })
        requests.length = 0
        expect(await readOrders(broker, 'none')).toEqual([null])
        expect(asked()).toEqual(['active', 'history', 'accounts', 'history', 'history'])
        expect(await readPage(broker, { first: 10 })).toMatchObject({ rows: [], isComplete: true, hasMore: false })
        expect(asked()).toHaveLength(9)
        expect(notices).toEqual(
          column === tradingId ? [] : [expect.stringContaining(`ARIES_TRADING_ID is ${tradingId}`) as string],
        )
        if (column !== tradingId) expect(notices[0]).toContain(`ARIES_TRADING_ID=${column}`)
        expect(notices.join()).not.toContain('ACC-4471')
      }
    },
  )

  it('is noticed also where the list of accounts was read before for something else', async () => {
    serve([{ ...others, apex_account_id: 'ACC-4471', created_at: daysAgo(5) }])
    const notices: string[] = []
    const broker = connect({ tradingId: 'fdid', onNotice: (notice) => notices.push(notice) })
    await broker.accounts(createScope())
    expect(notices).toEqual([])
    await readOrders(broker, 'none')
    expect(notices).toHaveLength(1)
  })

  it('is under another id: the operator gets one notice, and few calls are made', async () => {
    serve([{ ...others, created_at: daysAgo(200) }])
    const notices: string[] = []
    const broker = connect({ onNotice: (notice) => notices.push(notice) })
    for (let round = 0; round < 3; round++) {
      requests.length = 0
      expect(await readOrders(broker, 'none')).toMatchObject([{ name: 'SearchEnded' }])
      expect(requests.length).toBeLessThanOrEqual(5)
    }
    expect(notices).toEqual([expect.stringContaining('does not list under id, fdid') as string])
    expect(notices.join()).not.toContain('ACC-4471')
  })
})

// ---- placing -----------------------------------------------------------------------------------------------------------

describe('placing', () => {
  it('sends the examples as they are published', async () => {
    const { clientId: _, ...stop } = { clientId: '', ...read('orders.place.equityStop.request') }
    answer(ok(read('orders.place.accepted')), ok({ success: true, clOrdId: 'o2' }))
    await place(connect())
    await place(connect(), {
      ...newOrder,
      clientOrderId: 'graph-2',
      symbol: 'F',
      side: 'SELL',
      type: 'STOP',
      quantity: '100',
      limitPrice: null,
      stopPrice: '11.20',
      timeInForce: 'GTC',
    })
    expect(requests.map(({ method, path, query, body }) => ({ method, path, query, body }))).toEqual([
      { method: 'POST', path: '/v1/orders', query: {}, body: read('orders.place.equityLimit.request') },
      { method: 'POST', path: '/v1/orders', query: {}, body: { ...stop, clientId: 'graph-2' } },
    ])
  })

  it('names the account as the setting says', async () => {
    answer(ok(read('orders.place.accepted')))
    await place(connect({ accountField: 'tradingAccountId' }))
    const { accountId, ...rest } = read('orders.place.equityLimit.request')
    expect(requests[0]?.body).toEqual({ ...rest, tradingAccountId: accountId })
  })

  it('takes the example of an answer: what it leaves out is what was sent', async () => {
    answer(ok(read('orders.place.accepted')))
    expect(await place(connect())).toEqual({
      clientOrderId: null,
      differing: [],
      orderId: idOf('ORDER-20260309-0041'),
      status: 'ACCEPTED',
      rejection: null,
      order: {
        ...partlyFilled,
        currency: null,
        status: 'ACCEPTED',
        brokerStatus: 'NEW',
        filledQuantity: '0',
        remainingQuantity: '40',
        averagePrice: null,
        isPartial: true,
      },
    })
  })

  it('takes an answer of an id alone for an order, of which only its status is not known', async () => {
    answer(ok({ success: true, clOrdId: 'a:b' }))
    expect(await place(connect())).toMatchObject({
      orderId: idOf('a%3Ab'),
      status: 'UNKNOWN',
      order: null,
      rejection: null,
    })
  })

  it('takes the example of a refusal for a rejection, with the order that it names', async () => {
    const body = { ...read('orders.place.refused'), qty: '40' }
    answer(ok(body))
    expect(await place(connect())).toMatchObject({
      orderId: idOf('ORDER-20260309-0042'),
      status: 'REJECTED',
      order: { status: 'REJECTED', quantity: '40', rejectReason: 'Buying power too low' },
      rejection: {
        code: 'INSUFFICIENT_FUNDS',
        brokerCode: 'INSUFFICIENT_BUYING_POWER',
        reason: 'Buying power too low',
      },
    })
    // As it stands it is about an order of another size.
    answer(ok(read('orders.place.refused')))
    expect(await place(connect())).toMatchObject({ differing: ['qty'] })
  })

  const said = { success: false, symbol: 'KO', qty: '40' }
  it.each([
    ['a reason and no id', { ...said, ordRejReason: 'HALTED', text: 'Halted.' }, 'HALTED', 'Halted.'],
    ['a reason and no words', { ...said, ordRejReason: 'HALTED' }, 'HALTED', 'HALTED'],
    ['the status alone', { ...said, status: 'REJECTED' }, null, null],
    ['the status and an id that is none', { ...said, status: 'REJECTED', clOrdId: '' }, null, null],
    ['the status of a success', { success: true, status: 'REJECTED', ordRejReason: '' }, null, null],
    [
      'a status that nobody knows, and a reason',
      { ...said, status: 'FAILED', ordRejReason: 'HALTED' },
      'HALTED',
      'HALTED',
    ],
  ])('is refused by %s', async (_, body, brokerCode, reason) => {
    answer(ok(body))
    expect(await errorOf(place(connect()))).toMatchObject({
      kind: 'refused',
      effect: 'none',
      rejection: 'OTHER',
      brokerCode,
      reason,
    })
  })

  it.each([
    ['an id', { ...said, ordRejReason: 'HALTED', clOrdId: 'o1' }],
    ['an id and the status', { ...said, status: 'REJECTED', clOrdId: 'o1' }],
  ])('is rejected at once by a refusal with %s', async (_, body) => {
    answer(ok(body))
    expect(await place(connect())).toMatchObject({
      orderId: idOf('o1'),
      status: 'REJECTED',
      order: { status: 'REJECTED', brokerStatus: 'REJECTED', state: 'CLOSED' },
      rejection: { code: 'OTHER' },
    })
  })

  it.each([
    ['no reason', said],
    ['an id and no reason', { ...said, clOrdId: 'o1' }],
    ['an empty reason', { ...said, ordRejReason: '' }],
    ['the status of an order that lives', { ...said, clOrdId: 'o1', status: 'NEW' }],
    ['a reason, and the status of an order that lives', { ...said, ordRejReason: 'HALTED', status: 'PENDING_NEW' }],
    [
      'a reason, and the status of one that is done',
      { ...said, ordRejReason: 'HALTED', clOrdId: 'o1', status: 'FILLED' },
    ],
    ['a reason, and a fill', { ...said, ordRejReason: 'HALTED', cumQty: '15' }],
    ['the status, and a fill', { ...said, status: 'REJECTED', clOrdId: 'o1', cumQty: '0.001' }],
    ['a success, the status, and a fill', { ...said, success: true, status: 'REJECTED', clOrdId: 'o1', cumQty: '1' }],
    ['a reason that is no word', { ...said, ordRejReason: {} }],
    ['a reason of blanks', { ...said, ordRejReason: ' \t' }],
    ['no success', { clOrdId: 'o1', symbol: 'KO' }],
    ['a success that is no word', { ...said, success: 'true', clOrdId: 'o1' }],
  ])('is not known to be refused by %s', async (_, body) => {
    answer(ok(body))
    expect(await errorOf(place(connect()))).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
  })

  it.each([
    ['BadRequest.invalid', 400, 'refused', 'none', 'INVALID_ORDER'],
    ['Unauthorized.token', 401, 'refused', 'none', null],
    ['Forbidden.scope', 403, 'refused', 'none', null],
    ['NotFound.order', 404, 'refused', 'unknown', null],
    ['RateLimited.limited', 429, 'throttled', 'none', null],
    ['ServerError.internal', 500, 'failed', 'unknown', null],
    // The words of another status.
    ['BadRequest.invalid', 403, 'unreadable', 'unknown', null],
    ['Unauthorized.token', 400, 'unreadable', 'unknown', null],
    ['BadRequest.invalid', 409, 'unreadable', 'unknown', null],
    ['BadRequest.invalid', 422, 'unreadable', 'unknown', null],
  ])('%s with %i is %s, effect %s, rejection %s', async (name, status, kind, effect, rejection) => {
    answer(refusal(status, name))
    expect(await errorOf(place(connect()))).toMatchObject({ kind, effect, rejection, status })
  })

  it('takes a word without a message for no refusal of Aries, which has both', async () => {
    for (const [name, status] of [
      ['BadRequest.invalid', 400],
      ['Unauthorized.token', 401],
      ['Forbidden.scope', 403],
      ['RateLimited.limited', 429],
    ] as const) {
      const { error } = read('errors')[name] as Body
      for (const message of [undefined, null, {}, ['no']]) {
        answer({ status, body: { error, message } })
        expect(await errorOf(place(connect()))).toMatchObject({ effect: 'unknown', rejection: null, brokerCode: null })
      }
    }
  })

  it('does not take what Aries does not have', () => {
    const fieldsOf = (fields: Partial<NewOrder>): string[] =>
      connect()
        .unsupported({ ...newOrder, ...fields })
        .map(({ field }) => field)
    expect(fieldsOf({})).toEqual([])
    expect(fieldsOf({ extendedHours: true })).toEqual([])
    expect(fieldsOf({ extendedHours: false, timeInForce: 'GTC' })).toEqual([])
    for (const timeInForce of ['GTC', 'OPG', 'CLS', 'IOC', 'FOK'] as const) {
      expect(fieldsOf({ extendedHours: true, timeInForce })).toEqual(['extendedHours'])
    }
    expect(fieldsOf({ notional: '250.00', quantity: null })).toEqual(['notional'])
    expect(fieldsOf({ type: 'TRAILING_STOP', trailPercent: '1' })).toEqual(['type'])
    expect(fieldsOf({ commission: '1', commissionType: 'BPS' })).toEqual(['commission', 'commissionType'])
    for (const symbol of ['KO260918C00060000', 'A260918P00000500', 'GOOGLE260918C00060000']) {
      expect(fieldsOf({ symbol })).toEqual(['symbol'])
    }
    for (const symbol of ['KO', 'BRK.B', 'C', 'KO26']) expect(fieldsOf({ symbol })).toEqual([])
    expect(requests).toEqual([])
  })

  it.each([
    ['another account', { accountId: 'ACC-4472' }],
    ['another account, by its newer name', { tradingAccountId: 'ACC-4472' }],
    ['an account that is none', { accountId: {} }],
  ])('an answer with %s is about another order, accepted or rejected', async (_, fields) => {
    for (const status of ['NEW', 'REJECTED']) {
      answer(ok({ ...read('orders.place.accepted'), status, ...fields }))
      expect(await errorOf(place(connect()))).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
    }
    answer(ok({ ...read('orders.place.accepted'), accountId: 'ACC-4471', tradingAccountId: '', type: 'LIMIT' }))
    expect(await place(connect())).toMatchObject({ status: 'ACCEPTED', order: { type: 'LIMIT' } })
  })
})

// ---- canceling ----------------------------------------------------------------------------------------------------------

describe('canceling', () => {
  const cancel = (broker: Broker, order: Order): Promise<Order | null> => broker.cancel(order, Date.now() + 60_000)

  /** The order of that body, as the list shows it. */
  async function readFor(
    body: Body,
    legs: readonly Body[] = [],
    accountField: AriesOptions['accountField'] = 'accountId',
  ) {
    const { origClOrdId, accountId, symbol, side, securityType } = body
    const name = String(accountId)
    answerer = ({ path }) =>
      ok({
        orders:
          path === `/v2/accounts/${name}/orders`
            ? [toRow(String(origClOrdId), 5, { accountId, symbol, side, securityType, legs, ordStatus: 'NEW' })]
            : [],
        nextCursor: 0,
      })
    const broker = connect({ accountField })
    const id = `aries:${name}:${String(origClOrdId)}`
    const [order] = await broker.orders([{ broker: 'ARIES', id, accountId: null, mustBeWhole: false }], createScope())
    if (!order || order instanceof UpstreamError) throw order ?? new Error('no order')
    requests.length = 0
    return { broker, order }
  }

  it.each(['cancel.request', 'orders.cancel.equity.request'])(
    'sends the example %s, all of it from the order',
    async (name) => {
      const { broker, order } = await readFor(read(name))
      const { origClOrdId } = read(name)
      answer(ok({ ...read('cancel.response'), origClOrdId }))
      expect(await cancel(broker, order)).toBeNull()
      expect(requests.map(({ method, path, body }) => ({ method, path, body }))).toEqual([
        { method: 'POST', path: '/v1/orders/cancel', body: read(name) },
      ])
    },
  )

  it.each(['cancel-option.request', 'orders.cancel.option.request'])(
    'sends the example %s, the option in it',
    async (name) => {
      const example = read(name)
      const { putCall, strikePrice, maturity, side } = example
      for (const word of [putCall, String(putCall).slice(0, 1)]) {
        const leg = {
          securityType: 'OPT',
          side,
          ratioQty: '1',
          putCall: word,
          strikePrice,
          maturity,
          positionEffect: 'CLOSE',
        }
        const { broker, order } = await readFor(example, [leg])
        answer(ok({ success: true, origClOrdId: example['origClOrdId'], status: 'CANCELED' }))
        expect(await cancel(broker, order)).toBeNull()
        expect(requests.map(({ body }) => body)).toEqual([example])
      }
    },
  )

  it('names the account as the setting says, and a spread by its id alone', async () => {
    const example = read('orders.cancel.option.request')
    const { broker, order } = await readFor(example, [optionLeg, optionLeg], 'tradingAccountId')
    answer(ok(read('orders.cancel.canceled')))
    await cancel(broker, order).catch(() => {})
    const { origClOrdId, accountId, symbol, side, securityType } = example
    expect(requests[0]?.body).toEqual({ origClOrdId, tradingAccountId: accountId, symbol, side, securityType })
  })

  it('says nothing that the order does not tell', async () => {
    answer(ok({ success: true, status: 'CANCELED' }))
    const bare: Order = { ...partlyFilled, side: 'UNKNOWN', securityType: 'UNKNOWN' }
    expect(await cancel(connect(), bare)).toBeNull()
    expect(requests[0]?.body).toEqual({ origClOrdId: 'ORDER-20260309-0041', accountId: 'ACC-4471', symbol: 'KO' })
  })

  it.each(['canceled', 'pending'])(
    'takes the example %s, and leaves it to a read what became of the order',
    async (name) => {
      answer(ok(read(`orders.cancel.${name}`)))
      expect(await cancel(connect(), partlyFilled)).toBeNull()
    },
  )

  it('takes the example of a refusal for one, in doubt', async () => {
    answer(ok(read('orders.cancel.refused')))
    expect(await errorOf(cancel(connect(), partlyFilled))).toMatchObject({
      kind: 'refused',
      effect: 'unknown',
      reason: 'Order is already filled',
    })
  })

  it.each([
    ['another order', { success: true, origClOrdId: 'ORDER-1' }],
    ['no success', { origClOrdId: 'ORDER-20260309-0041', status: 'CANCELED' }],
    ['a success that is no word', { success: 'yes' }],
    ['nothing', {}],
    ['a list', []],
    ['null', null],
  ])('an answer with %s is unreadable', async (_, body) => {
    answer(ok(body))
    expect(await errorOf(cancel(connect(), partlyFilled))).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
  })

  it.each([
    ['BadRequest.invalid', 400, 'none'],
    ['Unauthorized.token', 401, 'none'],
    ['Forbidden.scope', 403, 'none'],
    ['NotFound.order', 404, 'unknown'],
    ['RateLimited.limited', 429, 'none'],
    ['ServerError.internal', 500, 'unknown'],
  ])('%s with %i has the effect %s', async (name, status, effect) => {
    answer(refusal(status, name))
    expect(await errorOf(cancel(connect(), partlyFilled))).toMatchObject({ effect, status })
  })
})

// ---- tokens -------------------------------------------------------------------------------------------------------------

const credential: OAuthCredential = {
  clientId: 'client_ogx0001',
  clientSecret: 'secret_ogx0001',
  refreshToken: 'refresh_5d0a',
}
const secrets = /secret_|refresh_|access_|Bearer/

const isToken = ({ path }: Seen): boolean => path === tokenPath
const tokenRequests = (): Seen[] => requests.filter(isToken)
const issued = (value: string, fields: Body = {}): Reply =>
  ok({ ...read('token.issued'), access_token: value, ...fields })

/** Tokens by a clock that `pass` moves; the pause before a second attempt is none. */
function startTokens(by: OAuthCredential = credential): { tokens: Tokens; notices: string[]; pass(ms: number): void } {
  const http = createHttp({ baseUrl: url, headers: {}, writeConnections: 1 })
  onTestFinished(() => http.close(0))
  const wait = globalThis.setTimeout
  const spy = vi.spyOn(globalThis, 'setTimeout')
  spy.mockImplementation(((run: () => void, ms: number) => wait(run, ms === 200 ? 0 : ms)) as typeof setTimeout)
  onTestFinished(() => spy.mockRestore())
  const notices: string[] = []
  let at = 1_000
  const tokens = createTokens({ http, credential: by, onNotice: (notice) => notices.push(notice), now: () => at })
  return { tokens, notices, pass: (ms) => void (at += ms) }
}

/** Lets the process's monotonic clock run on by so much. */
function passTime(ms: number): void {
  shiftMs += ms
  const spy = vi.spyOn(performance, 'now').mockImplementation(() => clock() + shiftMs)
  onTestFinished(() => spy.mockRestore())
}

const clock = performance.now.bind(performance)
let shiftMs = 0

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}

describe('a token', () => {
  it('is requested once, at its first use, for all callers, as in the example', async () => {
    const { tokens } = startTokens()
    expect(requests).toEqual([])
    answer(ok(read('token.issued')))
    const all = await Promise.all(Array.from({ length: 100 }, () => tokens.current()))
    expect(new Set(all)).toEqual(new Set(['access_9c1e']))
    expect(requests).toEqual([
      {
        method: 'POST',
        path: tokenPath,
        query: {},
        authorization: undefined,
        body: read('token.refresh.request'),
      },
    ])
  })

  it('that cannot be had is one notice until one is issued again, however many calls need it', async () => {
    const { tokens, notices, pass } = startTokens()
    answer({ status: 503, body: {} })
    for (let count = 0; count < 5; count++) {
      await expect(tokens.current()).rejects.toMatchObject({ kind: 'not_sent' })
      pass(10_000)
    }
    expect(notices).toEqual(['an access token cannot be obtained, so nothing can be sent to the broker'])
    answer(issued('access_1'), issued('access_2'))
    await tokens.current()
    pass(7_200_000)
    await tokens.current()
    expect(notices.slice(1)).toEqual(['access tokens can be obtained again'])
  })

  it('is refreshed in the background before it expires, without a waiting call', async () => {
    const { tokens, pass } = startTokens()
    answer(issued('access_1'), issued('access_2'))
    await tokens.current()
    pass(3_539_000)
    expect(await tokens.current()).toBe('access_1')
    expect(requests).toHaveLength(1)
    pass(2_000)
    expect(await Promise.all([tokens.current(), tokens.current()])).toEqual(['access_1', 'access_1'])
    let value = ''
    await until(() => (void tokens.current().then((fresh) => (value = fresh)), value === 'access_2'))
    expect(requests).toHaveLength(2)
  })

  it('serves on while its refresh in the background fails, and is not used once it has expired', async () => {
    const { tokens, pass } = startTokens()
    answer(issued('access_1'), refusal(400, 'BadRequest.invalid'), issued('access_3'))
    await tokens.current()
    pass(3_550_000)
    expect(await tokens.current()).toBe('access_1')
    await errorOf(tokens.renew('access_1'))
    expect(await tokens.current()).toBe('access_1')
    expect(requests).toHaveLength(2)
    pass(41_000)
    expect(await tokens.current()).toBe('access_3')
  })

  it.each([undefined, null, '', 'an hour', -1, 1.5, {}, 0, '0'])(
    'that expires in %j is used until it is refused',
    async (expires_in) => {
      const { tokens, pass } = startTokens()
      answer(issued('access_1', { expires_in }), issued('access_2'))
      await tokens.current()
      pass(1_000_000_000)
      expect(await tokens.current()).toBe('access_1')
      expect(await tokens.renew('access_1')).toBe('access_2')
    },
  )

  it('that was refused is refreshed once for all, and not where a newer one is there', async () => {
    const { tokens, pass } = startTokens()
    answer(issued('access_1'), issued('access_2'))
    await tokens.current()
    pass(60_000)
    expect(await Promise.all([tokens.renew('access_1'), tokens.renew('access_1')])).toEqual(['access_2', 'access_2'])
    expect(await tokens.renew('access_1')).toBe('access_2')
    expect(await tokens.current()).toBe('access_2')
    expect(requests).toHaveLength(2)
  })

  it('that is refused right after its issue is refreshed once, for all who were refused', async () => {
    const { tokens, pass } = startTokens()
    answer(issued('access_1'), issued('access_2'), issued('access_3'), issued('access_4'))
    await tokens.current()
    pass(1)
    const renewed = await Promise.all(Array.from({ length: 50 }, () => tokens.renew('access_1')))
    expect(new Set(renewed)).toEqual(new Set(['access_2']))
    expect(await tokens.renew('access_1')).toBe('access_2')
    expect(requests).toHaveLength(2)
  })

  it('that replaces a refused one is not replaced again for 5 s: such a broker refuses every token', async () => {
    const { tokens, pass } = startTokens()
    answer(issued('access_1'), issued('access_2'), issued('access_3'), issued('access_4'))
    await tokens.current()
    await tokens.renew('access_1')
    for (const ms of [0, 1, 4_998]) {
      pass(ms)
      expect(await Promise.all([tokens.renew('access_2'), tokens.renew('access_2')])).toEqual([null, null])
    }
    expect(requests).toHaveLength(2)
    pass(1)
    expect(await tokens.renew('access_2')).toBe('access_3')
    expect(await tokens.renew('access_3')).toBeNull()
    expect(requests).toHaveLength(3)
  })

  it('is refreshed though the broker issues the same one again, and that once', async () => {
    const { tokens } = startTokens()
    answer(issued('access_1'), issued('access_1'))
    await tokens.current()
    expect(await Promise.all([tokens.renew('access_1'), tokens.renew('access_1')])).toEqual(['access_1', 'access_1'])
    expect(await tokens.renew('access_1')).toBeNull()
    expect(requests).toHaveLength(2)
  })

  it('that was refreshed because it was about to expire is refreshed again if it is refused at once', async () => {
    const { tokens, pass } = startTokens()
    answer(issued('access_1'), issued('access_2'), issued('access_3'))
    await tokens.current()
    pass(3_600_000)
    await tokens.current()
    expect(await tokens.renew('access_2')).toBe('access_3')
    expect(await tokens.renew('access_3')).toBeNull()
    expect(requests).toHaveLength(3)
  })

  it('that another system refreshes is used as it is', async () => {
    const { tokens } = startTokens({ accessToken: 'access_given' })
    expect(await tokens.current()).toBe('access_given')
    expect(await tokens.renew('access_given')).toBeNull()
    expect(requests).toEqual([])
  })

  it('is requested once more if its answer is lost', async () => {
    const { tokens } = startTokens()
    answer('cut', issued('access_2'))
    expect(await tokens.current()).toBe('access_2')
    expect(requests).toHaveLength(2)
  })

  it.each([
    ['is refused', refusal(400, 'BadRequest.invalid'), { kind: 'refused', status: 401 }, 1],
    ['is refused with 401', unauthorized, { kind: 'refused', status: 401 }, 1],
    [
      'has to wait',
      { ...refusal(429, 'RateLimited.limited'), headers: { 'retry-after': '7' } },
      { kind: 'throttled', retryAfterMs: 7_000 },
      1,
    ],
    [
      'has to wait for a proxy',
      { status: 429, body: '<h1>slow</h1>', headers: { 'content-type': 'text/html', 'retry-after': '7' } },
      { kind: 'throttled', retryAfterMs: 7_000 },
      1,
    ],
    ['fails', refusal(500, 'ServerError.internal'), { kind: 'not_sent', status: 500 }, 2],
    ['is lost', 'cut' as const, { kind: 'not_sent' }, 2],
    ['is junk', ok('{"access_token":"access_1'), { kind: 'not_sent' }, 2],
    ['is none', ok({ ...read('token.issued'), access_token: undefined }), { kind: 'not_sent' }, 2],
    ['cannot be a header', ok({ ...read('token.issued'), access_token: 'access_1\r\nx: y' }), { kind: 'not_sent' }, 2],
    [
      'is a page',
      { status: 200, body: '<h1>access_1</h1>', headers: { 'content-type': 'text/html' } },
      { kind: 'not_sent' },
      2,
    ],
  ])('that %s is one clear error for all, and not a request for each', async (_, reply, expected, calls) => {
    const { tokens, notices, pass } = startTokens()
    answerer = () => reply
    const errors = await Promise.all(Array.from({ length: 100 }, () => errorOf(tokens.current())))
    expect(new Set(errors).size).toBe(1)
    expect(errors[0]).toMatchObject({ ...expected, effect: 'none', rejection: null })
    expect(await errorOf(tokens.current())).toBe(errors[0])
    expect(await errorOf(tokens.renew('access_0'))).toBe(errors[0])
    expect(requests).toHaveLength(calls)
    expect(inspect([errors, notices], { depth: 10, showHidden: true })).not.toMatch(secrets)
    // It is tried anew before long.
    pass(7_000)
    answer(issued('access_2'))
    expect(await tokens.current()).toBe('access_2')
  })

  it('is not requested again before the wait that the broker asked for', async () => {
    const { tokens, pass } = startTokens()
    answer({ ...refusal(429, 'RateLimited.limited'), headers: { 'retry-after': '30' } }, issued('access_2'))
    await errorOf(tokens.current())
    pass(29_999)
    await errorOf(tokens.current())
    expect(requests).toHaveLength(1)
    pass(1)
    expect(await tokens.current()).toBe('access_2')
  })

  it('comes with a new refresh token, which is used from then on and told of', async () => {
    const { tokens, notices, pass } = startTokens()
    answer(
      issued('access_1', { refresh_token: 'refresh_2' }),
      issued('access_2', { refresh_token: undefined }),
      issued('access_3'),
    )
    for (const value of ['access_1', 'access_2', 'access_3']) {
      expect(await tokens.current()).toBe(value)
      pass(3_600_000)
    }
    expect(requests.map(({ body }) => (body as Body)['refresh_token'])).toEqual([
      'refresh_5d0a',
      'refresh_2',
      'refresh_2',
    ])
    expect(notices.length).toBeGreaterThan(0)
    expect(notices.join()).not.toMatch(/secret_|refresh_|access_/)
  })

  it('is waited for by the others when one who waits leaves', async () => {
    const { tokens } = startTokens()
    const gate = Promise.withResolvers<Reply>()
    answerer = () => gate.promise
    const leaver = new AbortController()
    const left = tokens.current(leaver.signal)
    const others = [tokens.current(), tokens.current(new AbortController().signal)]
    await until(() => requests.length === 1)
    leaver.abort(new Error('the caller left'))
    await expect(left).rejects.toThrow('the caller left')
    await expect(tokens.current(leaver.signal)).rejects.toThrow('the caller left')
    gate.resolve(issued('access_1'))
    expect(await Promise.all(others)).toEqual(['access_1', 'access_1'])
    expect(requests).toHaveLength(1)
  })
})

describe('calls with a token', () => {
  /** Issues `access_1`, `access_2` and so on, takes the last one only, and answers lists of nothing. */
  function serveTokens(): { expire(): void } {
    let count = 0
    let valid = ''
    answerer = (request) => {
      if (isToken(request)) return issued((valid = `access_${++count}`))
      if (request.authorization !== `Bearer ${valid}`) return unauthorized
      if (request.method === 'POST') return ok({ ...read('orders.place.accepted'), origClOrdId: undefined })
      return isAccounts(request) ? ok({ accounts: [] }) : ok({ orders: [], nextCursor: 0 })
    }
    return { expire: () => void (valid = 'none') }
  }

  const queries = Array.from({ length: 100 }, (_, index) =>
    toQuery({ accountId: `aries:A${index}`, statuses: ['ACCEPTED'], wantsMore: false }),
  )

  it('that has expired make 100 reads one refresh, and each is repeated once (D13)', async () => {
    const { expire } = serveTokens()
    const broker = connect({ credential })
    await broker.accounts(createScope())
    expire()
    passTime(60_000)
    requests.length = 0
    const pages = await broker.pages(queries, createScope())
    expect(pages).toMatchObject(queries.map(() => ({ rows: [], isComplete: true })))
    expect(tokenRequests()).toHaveLength(1)
    expect(requests).toHaveLength(201)
  })

  it('that is refused right after its issue makes 100 reads one refresh, and every read succeeds', async () => {
    const { expire } = serveTokens()
    const broker = connect({ credential })
    await broker.accounts(createScope())
    expire()
    requests.length = 0
    const pages = await broker.pages(queries, createScope())
    expect(pages).toMatchObject(queries.map(() => ({ rows: [], isComplete: true })))
    expect(tokenRequests()).toHaveLength(1)
    expect(requests).toHaveLength(201)
  })

  it('that are all refused make one refresh for 100 reads, and none for the next 100', async () => {
    serveTokens()
    const broker = connect({ credential })
    await broker.accounts(createScope())
    const serving = answerer
    answerer = (request) => (isToken(request) ? serving(request) : unauthorized)
    requests.length = 0
    for (let round = 0; round < 2; round++) {
      const pages = await broker.pages(queries, createScope())
      expect(pages).toMatchObject(queries.map(() => ({ kind: 'refused', effect: 'none', status: 401 })))
      expect(tokenRequests()).toHaveLength(1)
    }
    expect(requests).toHaveLength(301)
  })

  it('that cannot be refreshed make 100 reads one clear error (D13)', async () => {
    const { expire } = serveTokens()
    const notices: string[] = []
    const broker = connect({ credential, onNotice: (notice) => notices.push(notice) })
    await broker.accounts(createScope())
    expire()
    passTime(60_000)
    const serving = answerer
    answerer = (request) => (isToken(request) ? refusal(400, 'BadRequest.invalid') : serving(request))
    requests.length = 0
    const pages = await broker.pages(queries, createScope())
    expect(pages).toMatchObject(queries.map(() => ({ kind: 'refused', effect: 'none', status: 401 })))
    expect(tokenRequests()).toHaveLength(1)
    expect(requests).toHaveLength(101)
    expect(inspect([pages, notices], { depth: 10, showHidden: true })).not.toMatch(secrets)
  })

  it.each([
    ['a read', (broker: Broker) => broker.accounts(createScope())],
    ['a search', (broker: Broker) => scan(broker)],
    ['a placement', (broker: Broker) => place(broker)],
    ['a cancel', (broker: Broker) => broker.cancel(partlyFilled, Date.now() + 60_000)],
  ])('%s that is refused is repeated once with the next token, and never twice', async (_, call) => {
    answer(issued('access_1'), unauthorized, issued('access_2'), unauthorized, issued('access_3'), ok({}))
    const broker = connect({ credential })
    const serving = answerer
    answerer = (request) => {
      // Else it would have come just before it was refused.
      if (!isToken(request)) passTime(60_000)
      return serving(request)
    }
    const error = await errorOf(call(broker))
    expect(error).toMatchObject({ kind: 'refused', effect: 'none', status: 401, rejection: null })
    expect(requests.map(({ authorization }) => authorization)).toEqual([
      undefined,
      'Bearer access_1',
      undefined,
      'Bearer access_2',
    ])
    expect(inspect(error, { depth: 10, showHidden: true })).not.toMatch(secrets)
  })

  it('a placement whose token had expired is sent once more, and prepared for twice', async () => {
    const { expire } = serveTokens()
    const broker = connect({ credential })
    await broker.accounts(createScope())
    expire()
    passTime(60_000)
    requests.length = 0
    const sent: number[] = []
    const beforeSend = async (): Promise<void> => {
      await new Promise((resolve) => setImmediate(resolve))
      sent.push(requests.filter(({ path }) => path === '/v1/orders').length)
    }
    expect(await place(broker, newOrder, { beforeSend })).toMatchObject({ status: 'ACCEPTED' })
    expect(sent).toEqual([0, 1])
    const posts = requests.filter(({ path }) => path === '/v1/orders')
    expect(posts.map(({ authorization }) => authorization)).toEqual(['Bearer access_1', 'Bearer access_2'])
    expect(posts[1]?.body).toEqual(posts[0]?.body)
  })

  it('a placement that may not be sent again, or not in time, stays proven not to be', async () => {
    const { expire } = serveTokens()
    const broker = connect({ credential })
    await broker.accounts(createScope())
    expire()
    passTime(60_000)
    let count = 0
    const error = new Error('the record was changed')
    const beforeSend = async (): Promise<void> => {
      if (++count === 2) throw error
    }
    await expect(place(broker, newOrder, { beforeSend })).rejects.toBe(error)
    expire()
    passTime(60_000)
    const serving = answerer
    answerer = (request) => {
      if (isToken(request)) {
        const late = Date.now() + 120_000
        const spy = vi.spyOn(Date, 'now').mockImplementation(() => late)
        onTestFinished(() => spy.mockRestore())
      }
      return serving(request)
    }
    expect(await errorOf(place(broker))).toMatchObject({ kind: 'not_sent', effect: 'none' })
    expect(requests.filter(({ path }) => path === '/v1/orders')).toHaveLength(2)
  })

  it("a placement keeps the broker's answer if no next token is available", async () => {
    for (const by of [credential, { accessToken: 'access_1' }]) {
      requests.length = 0
      answerer = (request) => (isToken(request) && tokenRequests().length === 1 ? issued('access_1') : unauthorized)
      const error = await errorOf(place(connect({ credential: by })))
      expect(error).toMatchObject({ kind: 'refused', effect: 'none', status: 401, brokerCode: 'unauthorized' })
      expect(requests.filter(({ path }) => path === '/v1/orders')).toHaveLength(1)
    }
  })

  it.each([[{ message: 'Unauthorized' }], [{ error: 'Unauthorized', message: 'no' }], [{ code: 401 }], [[]], [null]])(
    'a placement that a proxy answers with 401 and %j is not sent again: it may have been passed on',
    async (body) => {
      answerer = (request) => (isToken(request) ? issued(`access_${tokenRequests().length}`) : { status: 401, body })
      const broker = connect({ credential })
      await errorOf(broker.accounts(createScope()))
      passTime(60_000)
      const error = await errorOf(place(broker))
      expect(error).toMatchObject({ kind: 'unreadable', effect: 'unknown', rejection: null })
      expect(requests.filter(({ path }) => path === '/v1/orders')).toHaveLength(1)
    },
  )

  it('a placement for which there is no token is not begun', async () => {
    answerer = () => unauthorized
    let begun = 0
    const beforeSend = async (): Promise<void> => void begun++
    const error = await errorOf(place(connect({ credential }), newOrder, { beforeSend }))
    expect(error).toMatchObject({ effect: 'none', rejection: null, status: 401 })
    expect([begun, requests.length]).toEqual([0, 1])
  })

  it('end only by their own reader while they wait for it', async () => {
    const gate = Promise.withResolvers<Reply>()
    answerer = (request) => (isToken(request) ? gate.promise : ok({ accounts: [] }))
    const broker = connect({ credential })
    const leaver = new AbortController()
    const left = broker.accounts(createScope(leaver.signal))
    const stays = broker.accounts(createScope())
    await until(() => requests.length === 1)
    leaver.abort(new Error('the caller left'))
    await expect(left).rejects.toThrow('the caller left')
    gate.resolve(issued('access_1'))
    expect(await stays).toEqual([])
  })

  it('that cannot be written into a header fail without telling it', async () => {
    const broker = connect({ credential: { accessToken: 'access_\n1' } })
    const error: unknown = await broker.accounts(createScope()).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(Error)
    expect(inspect(error, { depth: 10, showHidden: true })).not.toMatch(/access_/)
  })
})

// ---- rows that do not tell enough --------------------------------------------------------------------------------------

describe('a row that does not say when it came', () => {
  const timeless = { createdAt: 'soon', updatedAt: undefined }

  it.each([
    ['active', (row: Body): Lists => ({ active: [toRow('old', 7_200), row, toRow('older', 7_300)] })],
    ['history', (row: Body): Lists => ({ history: [toRow('new', 60), { ...row, listedAt: secondsAgo(120) }] })],
  ])(
    'and cannot be read leaves a search incomplete, though its neighbours in the %s list tell theirs',
    async (_, make) => {
      answerer = serveLists(make(toRow('lost', 0, { ...timeless, ordStatus: undefined })))
      expect(await scan(connect(), { since: secondsAgo(3_600) })).toMatchObject({ isComplete: false })
    },
  )

  it('is found again after it has left the active list, from any place in it', async () => {
    const broker = connect()
    answerer = serveLists({ active: [toRow('other', 60), toRow('wanted', 0, { ...timeless, ordStatus: 'NEW' })] })
    expect(await readOne(broker, 'wanted')).toMatchObject({ status: 'ACCEPTED' })
    answerer = serveLists({ history: [toRow('other', 60), toRow('wanted', 86_400)] })
    expect(await readOne(broker, 'wanted')).toMatchObject({ status: 'FILLED' })
  })

  it('is not left out if it is first on a page of the history', async () => {
    const history = Array.from({ length: 12 }, (_, index) => toRow(`o${index}`, index * 60))
    for (const index of [3, 6, 7]) {
      history[index] = { ...history[index], ...timeless, listedAt: secondsAgo(index * 60) }
    }
    answerer = serveLists({ history, cap: 3 })
    for (const first of [1, 4, 100]) {
      expect((await walk(connect(), { first })).sort()).toEqual(history.map(({ clOrdId }) => clOrdId).sort())
    }
  })

  it('counts as newest in the active list, which is in no order, and is given once in a walk over several', async () => {
    answerer = serveLists({
      active: [toRow('b', 60, { ordStatus: 'NEW' }), toRow('a', 0, { ...timeless, ordStatus: 'NEW' })],
    })
    const broker = connect()
    expect(namesOf(await readPage(broker, { statuses: ['ACCEPTED'] }))).toEqual(['a', 'b'])
    const olderThan = { at: secondsAgo(30), ids: [idOf('a')] }
    expect(namesOf(await readPage(broker, { statuses: ['ACCEPTED'], olderThan }))).toEqual(['b'])
  })
})

describe('a row without a readable id', () => {
  it.each(['active', 'history'] as const)(
    'in the %s list may be the wanted order, so that no absence is proven',
    async (list) => {
      for (const clOrdId of [undefined, null, '', '../x', {}]) {
        const rows = [toRow('a', 60), toRow('b', 70, { clOrdId })]
        answerer = serveLists({ [list]: rows })
        const [found, none] = await readOrders(connect(), 'a', 'none')
        expect(found).toMatchObject({ id: idOf('a') })
        expect(none).toMatchObject({ kind: 'unreadable', effect: 'unknown' })
      }
    },
  )
})

// ---- searches that have to end -----------------------------------------------------------------------------------------

describe('a search', () => {
  it('begins now for an interval that ends in the far future', async () => {
    answerer = serveLists({ history: [toRow('a', 60)] })
    for (const submittedBefore of ['2999-01-01T00:00:00Z', '9999-12-31T23:59:59Z']) {
      requests.length = 0
      const page = await readPage(connect(), { submittedBefore })
      expect(namesOf(page)).toEqual(['a'])
      expect(page).toMatchObject({ isComplete: true, hasMore: false })
      expect(requests.length).toBeLessThanOrEqual(3)
    }
  })

  it('goes through more orders of one second than a few small pages hold', async () => {
    const createdAt = secondsAgo(60).replace('Z', '.25Z')
    const names = Array.from({ length: 85 }, (_, index) => `o${100 + index}`).reverse()
    answerer = serveLists({ history: names.map((name) => toRow(name, 0, { createdAt })) })
    expect(await walk(connect(), { first: 1 })).toEqual(names)
  })

  it('never goes back behind what it has given, also where it cannot come to its end', async () => {
    const active = Array.from({ length: 120 }, (_, index) =>
      toRow(`o${String(index).padStart(3, '0')}`, index, { ordStatus: 'NEW' }),
    )
    answerer = serveLists({ active, cap: 5 })
    const names: string[] = []
    let after: string | null = null
    for (let round = 1; round <= 5; round++) {
      const page: Page = await readPage(connect(), { statuses: ['ACCEPTED'], first: 30, after })
      expect(page.isComplete).toBe(false)
      expect(page.hasMore).not.toBe(false)
      names.push(...namesOf(page))
      after = page.position
    }
    // As many as 20 calls show.
    expect(names).toEqual(active.slice(0, 100).map(({ clOrdId }) => clOrdId))
  })
})
