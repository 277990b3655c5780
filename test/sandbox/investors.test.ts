import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox, SandboxOptions } from '../../sandbox/server.ts'

type Json = Record<string, unknown>

const noon = Date.UTC(2026, 5, 1, 12)
const uuid = '6f1c9f0e-0000-4000-8000-000000000000'
const directory = mkdtempSync(join(tmpdir(), 'sandbox-investors-'))
afterAll(() => rmSync(directory, { recursive: true }))

let clock = noon
let sandbox: Sandbox

function start(options: Partial<SandboxOptions> = {}): Promise<Sandbox> {
  return startSandbox({ stateFile: ':memory:', seed: 'test', now: () => clock, ...options })
}

interface Answered {
  status: number
  headers: Headers
  text: string
  body: Json
  rows: Json[]
}

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

async function read(response: Response): Promise<Answered> {
  const { status, headers } = response
  const text = await response.text()
  const parsed: unknown = text === '' ? undefined : JSON.parse(text)
  const body = isJson(parsed) ? parsed : {}
  const { data } = body
  const rows: unknown[] = Array.isArray(parsed) ? parsed : Array.isArray(data) ? data : []
  return { status, headers, text, body, rows: rows.filter(isJson) }
}

async function ask(
  path: string,
  init: { method?: string; body?: unknown; headers?: Record<string, string>; of?: Sandbox } = {},
): Promise<Answered> {
  const { of = sandbox, method = 'GET', body, headers } = init
  const authorization = `Basic ${btoa(`${of.apiKey}:${of.apiSecret}`)}`
  const sent = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }
  return read(await fetch(of.url + path, { method, headers: { authorization, ...headers }, ...sent }))
}

async function control(method: string, path: string, body?: unknown): Promise<Answered> {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) }
  return read(await fetch(sandbox.controlUrl + path, init))
}

const account = (): string => sandbox.accounts[0] ?? ''
const investor = (): string => sandbox.investors[0] ?? ''
const orders = (of = investor()): string => `/investors/${of}/orders`

/** A limit buy far below the market: it rests. */
const resting = {
  symbol: 'AAPL',
  side: 'buy',
  type: 'limit',
  time_in_force: 'gtc',
  quantity: '10',
  limit_price: '95.00',
}
const market = { symbol: 'KO', side: 'buy', type: 'market', time_in_force: 'day', quantity: '2' }
const mine = { ...resting, client_order_id: 'mine' }

function place(body: unknown, headers: Record<string, string> = {}): Promise<Answered> {
  return ask(orders(), { method: 'POST', body, headers })
}

const idOf = (placed: Answered): string => String(placed.body['id'])

async function now(placed: Answered): Promise<Json> {
  return (await ask(`${orders()}/${idOf(placed)}`)).body
}

function cancel(placed: Answered, headers: Record<string, string> = {}): Promise<Answered> {
  return ask(`${orders()}/${idOf(placed)}/cancel`, { method: 'POST', headers })
}

const rules = (...list: unknown[]): Promise<Answered> => control('PUT', '/rules', list)
const switchTo = (switches: Json): Promise<Answered> => control('PUT', '/switches', switches)
const advance = (ms: number): Promise<Answered> => control('POST', '/advance', { ms })
const setStatus = (id: string, status: string): Promise<Answered> => control('POST', `/orders/${id}/status`, { status })

/** The envelope of an error without its message. */
function errorOf({ status, body }: Answered): unknown[] {
  const error = body['error']
  const { type, code, message, param } = isJson(error) ? error : {}
  expect(message).toEqual(expect.any(String))
  expect(Object.keys(body)).toEqual(['error'])
  return param === undefined ? [status, type, code] : [status, type, code, param]
}

async function inBook(): Promise<number> {
  const { rows } = await control('GET', `/book?account=${investor()}`)
  return rows.filter((row) => row['client_order_id'] === 'mine').length
}

beforeEach(async () => {
  clock = noon
  sandbox = await start()
})
afterEach(() => sandbox.close())

describe('investors', () => {
  test('every account is an investor, with an id that never changes and is not its own', async () => {
    expect(sandbox.investors).toHaveLength(sandbox.accounts.length)
    for (const id of sandbox.investors) expect(id).toMatch(/^inv_[0-9a-z]{26}$/)
    const twin = await start()
    const other = await start({ seed: 'other' })
    try {
      expect(twin.investors).toEqual(sandbox.investors)
      expect(new Set([...other.investors, ...sandbox.investors]).size).toBe(4)
    } finally {
      await twin.close()
      await other.close()
    }
  })

  test('a list of them has the envelope of all lists, and each of them a path', async () => {
    const { status, body, rows } = await ask('/investors')
    expect([status, body]).toEqual([200, { object: 'list', url: '/v1/investors', has_more: false, data: rows }])
    expect(rows.map((row) => row['id'])).toEqual(sandbox.investors)
    expect(rows[0]).toEqual({
      id: investor(),
      object: 'investor',
      created: Date.UTC(2026, 0, 2, 9) / 1000,
      livemode: false,
      metadata: {},
      status: 'active',
      account_type: 'individual',
      management_type: 'self_directed',
      account_number: expect.stringMatching(/^\d{9}$/),
      currency: 'USD',
      balance: '1000000.00',
      buying_power: expect.stringMatching(/^\d+\.\d\d$/),
      cash_withdrawable: expect.stringMatching(/^\d+\.\d\d$/),
      last_equity: expect.stringMatching(/^\d+\.\d\d$/),
      crypto_status: null,
      trading_type: 'cash',
    })
    expect((await ask(`/investors/${investor()}`)).body).toEqual(rows[0])
  })

  test('they come in pages', async () => {
    const first = await ask('/investors?limit=1')
    expect([first.body['has_more'], first.rows.map((row) => row['id'])]).toEqual([true, [sandbox.investors[0]]])
    const last = await ask('/investors?limit=1&offset=1')
    expect([last.body['has_more'], last.rows.map((row) => row['id'])]).toEqual([false, [sandbox.investors[1]]])
    expect((await ask('/investors?offset=2')).rows).toEqual([])
    expect(errorOf(await ask('/investors?limit=201'))).toEqual([400, 'invalid_request_error', 'BLUM-400-001', 'limit'])
  })

  test.each([
    ['ACTIVE', 'active', 'cash', undefined],
    ['SUSPENDED', 'suspended', 'cash', 'BLUM-403-004'],
    ['INACTIVE', 'closed', 'cash', 'BLUM-403-004'],
    ['PENDING', 'onboarding', null, 'BLUM-403-002'],
    ['SUBMITTED', 'under_review', null, 'BLUM-403-002'],
  ])('an account that is %s is an investor %s', async (status, shown, tradingType, code) => {
    expect((await control('PUT', `/accounts/${investor()}`, { status })).status).toBe(200)
    const { body } = await ask(`/investors/${investor()}`)
    expect([body['status'], body['trading_type']]).toEqual([shown, tradingType])
    const approved = tradingType !== null
    expect([body['account_number'] === null, body['buying_power'] === '0']).toEqual([!approved, !approved])
    const placed = await place(resting)
    if (code === undefined) expect(placed.status).toBe(201)
    else expect(errorOf(placed)).toEqual([403, 'permission_error', code])
  })
})

describe('paths, credentials and ids', () => {
  test('errors have one envelope, independent of the other dialect', async () => {
    await switchTo({ errorEnvelope: 'flat', listEnvelope: 'array' })
    const code = async (headers: Record<string, string>): Promise<unknown[]> =>
      errorOf(await read(await fetch(`${sandbox.url}/investors`, { headers })))
    expect(await code({})).toEqual([401, 'authentication_error', 'BLUM-401-001'])
    expect(await code({ authorization: 'Bearer abc' })).toEqual([401, 'authentication_error', 'BLUM-401-002'])
    expect(await code({ authorization: `Basic ${btoa('sandbox-key:wrong')}` })).toEqual([
      401,
      'authentication_error',
      'BLUM-401-003',
    ])
    expect((await ask('/investors')).body['object']).toBe('list')
  })

  test.each([
    ['GET', '/investors/'],
    ['POST', '/investors'],
    ['GET', '/investors/%E0%A4%A'],
    ['PUT', '/investors/ID/orders'],
    ['GET', '/investors/ID/orders/ord_0/cancel'],
    ['DELETE', '/investors/ID/orders/ord_0'],
    ['POST', '/investors/ID/order-estimates'],
    ['GET', '/investors/ID/positions'],
  ])('an unknown path is BLUM-404-002: %s %s', async (method, path) => {
    const answered = await ask(path.replace('ID', investor()), { method })
    expect(errorOf(answered)).toEqual([404, 'not_found_error', 'BLUM-404-002'])
  })

  test.each([
    ['GET', `/investors/${uuid}`],
    ['GET', `/investors/${uuid}/orders`],
    ['POST', `/investors/${uuid}/orders`],
    ['GET', `/investors/${uuid}/orders/ord_0`],
    ['POST', `/investors/inv_-/orders/ord_0/cancel`],
    ['GET', '/investors/inv_/orders'],
    ['GET', '/investors/ord_0/orders'],
  ])('a bare uuid, or another kind of id, is no investor: %s %s', async (method, path) => {
    expect(errorOf(await ask(path, { method, body: method === 'POST' ? resting : undefined }))).toEqual([
      400,
      'invalid_request_error',
      'BLUM-400-003',
      'investor_id',
    ])
  })

  test('the account behind an investor is no investor, and a bare uuid is no order', async () => {
    expect(errorOf(await ask(orders(account())))[2]).toBe('BLUM-400-003')
    for (const [method, path] of [
      ['GET', `${orders()}/${uuid}`],
      ['POST', `${orders()}/${uuid}/cancel`],
    ] as const) {
      expect(errorOf(await ask(path, { method }))).toEqual([400, 'invalid_request_error', 'BLUM-400-003', 'order_id'])
    }
  })

  test("unknown investors and orders, and another investor's order, answer 404 alike", async () => {
    const nobody = `inv_${'0'.repeat(26)}`
    const foreign = `${orders(sandbox.investors[1])}/${sandbox.demo.openOrderId}`
    const answers = [
      await ask(`/investors/${nobody}`),
      await ask(orders(nobody)),
      await ask(`${orders(nobody)}/${sandbox.demo.openOrderId}`),
      await ask(orders(nobody), { method: 'POST', body: resting }),
      await ask(`${orders()}/ord_0`),
      await ask(foreign),
      await ask(`${foreign}/cancel`, { method: 'POST' }),
    ]
    for (const answer of answers) expect(errorOf(answer)).toEqual([404, 'not_found_error', 'BLUM-404-001'])
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
    expect((await ask(`${orders()}/${sandbox.demo.openOrderId}`)).body['status']).toBe('open')
  })

  test('the rate limit is one for both dialects, and only Retry-After tells of it', async () => {
    const slow = await start({ requestsPerSecond: 2 })
    try {
      expect((await ask('/accounts', { of: slow })).status).toBe(200)
      const second = await ask('/investors', { of: slow })
      expect([second.status, second.headers.get('x-ratelimit-limit')]).toEqual([200, null])
      const third = await ask('/investors', { of: slow })
      expect(errorOf(third)).toEqual([429, 'rate_limit_error', 'BLUM-429-001'])
      expect(third.headers.get('retry-after')).toBe('1')
      expect(third.headers.get('x-request-id')).toMatch(/^req_/)
      clock += 1000
      expect((await ask('/investors', { of: slow })).status).toBe(200)
    } finally {
      await slow.close()
    }
  })
})

describe('placing', () => {
  test('the answer is 201 with the order as it was sent, pending and not yet at the custodian', async () => {
    const sent = { ...mine, commission: '1.00', commission_type: 'per_share', extended_hours: true }
    const { status, body } = await place({ ...sent, class: 'equity', country: 'US', wallet_currency: 'USD' })
    expect(status).toBe(201)
    const taken = {
      id: expect.stringMatching(/^ord_[0-9a-z]+$/),
      object: 'order',
      created: noon / 1000,
      livemode: false,
      metadata: {},
      investor_id: investor(),
      class: 'equity',
      currency: 'USD',
      ...sent,
      status: 'pending',
      filled_quantity: '0',
      remaining_quantity: '10',
      average_price: '0.00',
      submitted_at: null,
      filled_at: null,
      cancelled_at: null,
      failure_reason: null,
    }
    expect(body).toEqual(taken)
    const open = { ...body, status: 'open', submitted_at: '2026-06-01T12:00:00Z' }
    expect((await ask(`${orders()}/${String(body['id'])}`)).body).toEqual(open)
    expect((await ask(`${orders()}?limit=1`)).rows).toEqual([open])
  })

  test('an order that fills at once is answered as pending and found filled', async () => {
    const placed = await place(market)
    expect(placed.body).toMatchObject({ status: 'pending', filled_quantity: '0', average_price: '0.00' })
    expect(await now(placed)).toMatchObject({
      status: 'filled',
      filled_quantity: '2',
      remaining_quantity: '0',
      average_price: expect.stringMatching(/^\d+\.\d\d$/),
      submitted_at: '2026-06-01T12:00:00Z',
      filled_at: '2026-06-01T12:00:00Z',
    })
    const { quantity: _, ...rest } = market
    const amount = await place({ ...rest, notional: '100.00' })
    expect(amount.body).toMatchObject({ notional: '100.00', remaining_quantity: '0' })
    expect(amount.body).not.toHaveProperty('quantity')
    expect((await now(amount))['status']).toBe('filled')
  })

  test.each([
    [{ type: 'limit', limit_price: '0.123456789012345678901234567891', quantity: '0.000000001' }],
    [{ type: 'stop', side: 'sell', stop_price: '50.00', quantity: '1' }],
    [{ type: 'stop_limit', side: 'sell', stop_price: '50.00', limit_price: '49.50', quantity: '1' }],
    [{ type: 'trailing_stop', side: 'sell', trail_percent: '60', quantity: '1.50' }],
    [{ type: 'trailing_stop', side: 'sell', trail_price: '100.0', quantity: '1' }],
  ])('the digits of every type are kept: %j', async (fields) => {
    const sent = { symbol: 'AAPL', side: 'buy', time_in_force: 'gtc', ...fields }
    const placed = await place(sent)
    expect(placed.status).toBe(201)
    expect(await now(placed)).toMatchObject({ ...sent, status: 'open', remaining_quantity: fields.quantity })
  })

  test.each([
    ['BLUM-400-003', undefined, 'not json', '{"symbol":'],
    ['BLUM-400-003', undefined, 'not an object', '[]'],
    ['BLUM-400-002', 'time_in_force', 'no time in force', { ...market, time_in_force: null }],
    ['BLUM-400-002', 'quantity', 'no size', { ...market, quantity: null }],
    ['BLUM-400-002', 'quantity', 'the size under its old name', { ...market, quantity: null, qty: '2' }],
    ['BLUM-400-002', 'limit_price', 'no limit price', { ...market, type: 'limit' }],
    ['BLUM-400-002', 'stop_price', 'no stop price', { ...market, type: 'stop' }],
    ['BLUM-400-002', 'trail_percent', 'no trail', { ...market, type: 'trailing_stop' }],
    ['BLUM-400-004', 'type', 'an unknown type', { ...market, type: 'iceberg' }],
    [
      'BLUM-400-004',
      'commission_type',
      'an old commission type',
      { ...market, commission: '1', commission_type: 'qty' },
    ],
    ['BLUM-400-004', 'wallet_currency', 'an unknown wallet', { ...market, wallet_currency: 'CHF' }],
    ['BLUM-422-001', 'wallet_currency', 'a wallet that nobody has', { ...market, wallet_currency: 'NGN' }],
    ['BLUM-400-003', 'class', 'a class that is no text', { ...market, class: 1 }],
    ['BLUM-400-001', 'notional', 'both sizes', { ...market, notional: '5' }],
    ['BLUM-400-001', 'notional', 'a sell by amount', { ...market, side: 'sell', quantity: null, notional: '5' }],
    ['BLUM-400-005', 'notional', 'a negative amount', { ...market, quantity: null, notional: '-5' }],
    ['BLUM-400-006', 'quantity', 'a zero quantity', { ...market, quantity: '0.00' }],
    ['BLUM-400-006', 'quantity', 'a quantity that is a number', { ...market, quantity: 2 }],
    ['BLUM-400-008', undefined, 'a large body', { ...market, market: 'x'.repeat(70_000) }],
    ['BLUM-404-003', 'symbol', 'an unknown asset', { ...market, symbol: 'NOPE' }],
    ['BLUM-422-003', 'symbol', 'an untradable asset', { ...market, symbol: 'TWTR' }],
    ['BLUM-422-001', undefined, 'more than the cash', { ...market, quantity: '100000' }],
    ['BLUM-422-004', 'quantity', 'more than the shares', { ...market, side: 'sell', quantity: '100000' }],
  ])('%s with param %s refuses %s and books nothing', async (code, param, _, body) => {
    const before = (await control('GET', '/book')).text
    const status = Number(code.slice(5, 8))
    const type = status === 404 ? 'not_found_error' : 'invalid_request_error'
    const expected = param === undefined ? [status, type, code] : [status, type, code, param]
    expect(errorOf(await place(body))).toEqual(expected)
    expect((await control('GET', '/book')).text).toBe(before)
  })

  test('a closed market refuses, or fails the order after it was taken in', async () => {
    await switchTo({ market: 'closed-refuses' })
    expect(errorOf(await place(market))).toEqual([422, 'invalid_request_error', 'BLUM-422-002'])
    await switchTo({ market: 'closed-rejects' })
    const placed = await place(market)
    expect([placed.status, placed.body['status'], placed.body['failure_reason']]).toEqual([201, 'pending', null])
    expect(await now(placed)).toMatchObject({ status: 'failed', failure_reason: 'Market is closed.' })
  })
})

describe('statuses', () => {
  test('an order is open, partial, filled, cancelled or failed, and its times tell when', async () => {
    const placed = await place(mine)
    const status = async (): Promise<unknown> => (await now(placed))['status']
    expect(await status()).toBe('open')
    await control('POST', `/orders/${idOf(placed)}/fill`, { quantity: '3' })
    expect(await now(placed)).toMatchObject({
      status: 'partial',
      filled_quantity: '3',
      remaining_quantity: '7',
      average_price: '95.00',
      filled_at: null,
    })
    await control('POST', `/orders/${idOf(placed)}/fill`)
    expect(await now(placed)).toMatchObject({ status: 'filled', filled_at: '2026-06-01T12:00:00Z', cancelled_at: null })
    await setStatus(idOf(placed), 'canceled')
    expect(await now(placed)).toMatchObject({
      status: 'cancelled',
      cancelled_at: '2026-06-01T12:00:00Z',
      filled_at: null,
    })
    await setStatus(idOf(placed), 'rejected')
    expect(await now(placed)).toMatchObject({ status: 'failed', failure_reason: 'Rejected from outside.' })
  })

  test('an unfilled day order ends as cancelled', async () => {
    const placed = await place({ ...resting, time_in_force: 'day' })
    await advance(9 * 3_600_000)
    expect(await now(placed)).toMatchObject({ status: 'cancelled', cancelled_at: '2026-06-01T21:00:00Z' })
  })
})

describe('lists', () => {
  test('pages join without gap or repeat, newest first, until there is no more', async () => {
    const rows: Json[] = []
    for (;;) {
      const page = await ask(`${orders()}?limit=70&offset=${rows.length}`)
      const { object, url } = page.body
      expect([object, url]).toEqual(['list', `/v1${orders()}`])
      rows.push(...page.rows)
      if (page.body['has_more'] !== true) break
      expect(page.rows).toHaveLength(70)
    }
    const { rows: book } = await control('GET', `/book?account=${account()}`)
    expect(rows.map((row) => row['id'])).toEqual(book.map((row) => row['id']))
    expect((await ask(orders())).rows).toHaveLength(50)
    expect((await ask(`${orders()}?limit=200`)).rows).toHaveLength(200)
    expect((await ask(`${orders()}?offset=5000`)).body).toMatchObject({ has_more: false, data: [] })
    for (const row of rows) {
      expect(row).toMatchObject({ object: 'order', investor_id: investor(), class: 'equity', livemode: false })
    }
  })

  test.each([
    ['filled', ['filled']],
    ['partial', ['partially_filled']],
    ['cancelled', ['canceled']],
    ['failed', ['rejected']],
    ['open', ['accepted', 'partially_filled']],
    ['pending', []],
  ])('the filter %s finds what the accounts dialect calls %j', async (status, names) => {
    const { rows } = await ask(`${orders()}?status=${status}&limit=200`)
    const { rows: book } = await control('GET', `/book?account=${account()}`)
    const wanted = book.filter((row) => names.includes(String(row['status'])))
    expect(rows.map((row) => row['id'])).toEqual(wanted.map((row) => row['id']))
    if (status !== 'open') expect(rows.every((row) => row['status'] === status)).toBe(true)
  })

  test('filters by status, symbol, side and class combine', async () => {
    const { rows } = await ask(`${orders()}?status=filled&symbol=AAPL&side=sell&class=equity&limit=100`)
    expect(rows.length).toBeGreaterThan(5)
    for (const row of rows) expect(row).toMatchObject({ status: 'filled', symbol: 'AAPL', side: 'sell' })
    expect((await ask(`${orders()}?symbol=aapl`)).rows).toEqual([])
    expect((await ask(`${orders()}?class=bond`)).body).toMatchObject({ has_more: false, data: [] })
  })

  test.each([
    ['limit', 'limit=0'],
    ['limit', 'limit=201'],
    ['limit', 'limit=x'],
    ['limit', 'limit='],
    ['offset', 'offset=-1'],
    ['status', 'status=accepted'],
    ['status', 'status=canceled'],
    ['side', 'side=BUY'],
  ])('a bad %s is refused: %s', async (param, query) => {
    const [status, type, code, named] = errorOf(await ask(`${orders()}?${query}`))
    expect([status, type, named]).toEqual([400, 'invalid_request_error', param])
    expect(code).toMatch(/^BLUM-400-/)
  })
})

describe('canceling', () => {
  test('is requested first and done a second later, and asking again changes nothing', async () => {
    const placed = await place(mine)
    const asked = await cancel(placed)
    expect([asked.status, asked.body]).toEqual([200, await now(placed)])
    expect(asked.body).toMatchObject({ status: 'open', cancelled_at: null })
    await advance(999)
    expect((await cancel(placed)).body).toEqual(asked.body)
    await advance(1)
    expect(await now(placed)).toMatchObject({
      status: 'cancelled',
      cancelled_at: '2026-06-01T12:00:01Z',
      remaining_quantity: '10',
    })
    expect(errorOf(await cancel(placed))).toEqual([409, 'conflict_error', 'BLUM-409-003'])
  })

  test('a fill can come before it, in part or whole', async () => {
    const [part, whole] = [await place(resting), await place(resting)]
    await control('POST', `/orders/${idOf(part)}/fill`, { quantity: '3' })
    expect((await cancel(part)).body).toMatchObject({ status: 'partial', filled_quantity: '3' })
    await cancel(whole)
    await control('POST', `/orders/${idOf(whole)}/fill`)
    await advance(1000)
    expect(await now(part)).toMatchObject({
      status: 'cancelled',
      filled_quantity: '3',
      average_price: '95.00',
      filled_at: null,
    })
    expect((await now(whole))['status']).toBe('filled')
  })
})

describe('idempotency', () => {
  const key = { 'idempotency-key': 'k1' }

  test('the same key and body answer the first response again, and book once', async () => {
    const first = await place(mine, key)
    await control('POST', `/orders/${idOf(first)}/fill`)
    const second = await place(mine, key)
    expect([second.status, second.text, await inBook()]).toEqual([201, first.text, 1])
    await advance(86_400_000)
    expect((await place(mine, key)).body['id']).not.toBe(first.body['id'])
  })

  test('the same key with another body, or in the other dialect, is an idempotency error', async () => {
    await place(mine, key)
    const other = await place({ ...mine, quantity: '11' }, key)
    expect(errorOf(other)).toEqual([409, 'idempotency_error', 'BLUM-409-002', 'Idempotency-Key'])
    const { quantity, ...rest } = mine
    const path = `/trading/accounts/${account()}/orders`
    const across = await ask(path, { method: 'POST', body: { ...rest, qty: quantity }, headers: key })
    expect([across.status, across.body['code']]).toEqual([409, 'BLUM-409-002'])
    expect(await inBook()).toBe(1)
  })

  test('a repeated cancel with its key answers as the first, done or not', async () => {
    const placed = await place(mine)
    const first = await cancel(placed, key)
    await advance(5000)
    expect((await cancel(placed, key)).text).toBe(first.text)
  })
})

describe('one order in both dialects', () => {
  test('is the same, under the names of each', async () => {
    const path = `/trading/accounts/${account()}/orders`
    const { quantity, ...rest } = mine
    const sent = { ...rest, qty: quantity, commission: '0.01', commission_type: 'qty' }
    const placed = await ask(path, { method: 'POST', body: sent })
    await control('POST', `/orders/${idOf(placed)}/fill`, { quantity: '4' })
    const older = (await ask(`/trading/orders/${idOf(placed)}`)).body
    const newer = await now(placed)
    expect(newer).toMatchObject({
      id: older['id'],
      investor_id: investor(),
      quantity: older['qty'],
      filled_quantity: older['filled_qty'],
      remaining_quantity: older['remaining_qty'],
      average_price: older['average_price'],
      submitted_at: older['submitted_at'],
      client_order_id: 'mine',
      commission_type: 'per_share',
    })
    expect([older['status'], newer['status']]).toEqual(['partially_filled', 'partial'])
    expect((await ask(`${orders()}?limit=1`)).rows).toEqual([newer])
    expect((await ask(`${orders(sandbox.investors[1])}?limit=200`)).rows.some((row) => row['id'] === older['id'])).toBe(
      false,
    )
    await cancel(placed)
    expect((await ask(`/trading/orders/${idOf(placed)}`)).body['status']).toBe('partially_filled')
    await ask(`${path}/${idOf(placed)}/cancel`, { method: 'POST' })
    expect((await now(placed))['status']).toBe('cancelled')
  })

  test('placed in this one it fills, holds cash and is listed in the other', async () => {
    const placed = await place(mine)
    const { rows } = await ask(`/trading/accounts/${account()}/orders?limit=1`)
    expect(rows[0]).toMatchObject({
      id: idOf(placed),
      account_id: account(),
      qty: '10',
      status: 'accepted',
      client_order_id: 'mine',
      submitted_at: '2026-06-01T12:00:00Z',
    })
    const { wallets } = (await ask(`/accounts/${account()}/wallets`)).body
    const [wallet] = Array.isArray(wallets) ? wallets.filter(isJson) : []
    expect((await ask(`/investors/${investor()}`)).body['buying_power']).toBe(wallet?.['available_balance'])
  })

  test('the control port takes the ids of both', async () => {
    const book = await control('GET', `/book?account=${investor()}`)
    expect(book.text).toBe((await control('GET', `/book?account=${account()}`)).text)
    expect(book.rows.length).toBeGreaterThan(200)
    const wanted = { symbol: 'KO', side: 'buy', type: 'limit', time_in_force: 'gtc', qty: '1', limit_price: '1.00' }
    const inserted = await control('POST', '/orders', { account: investor(), ...wanted })
    expect(inserted.body['account_id']).toBe(account())
    expect(await now(inserted)).toMatchObject({ status: 'open', quantity: '1' })
    expect((await control('DELETE', `/book?account=${investor()}`)).status).toBe(200)
    expect((await ask(orders())).rows).toEqual([])
    expect((await control('GET', '/book?account=inv_0')).status).toBe(404)
  })
})

describe('faults', () => {
  test('strike by path, and by account under either id', async () => {
    const fault = { kind: 'status', status: 503 }
    const status = async (path: string): Promise<number> => (await ask(path)).status
    await rules({ match: { path: '^/v1/investors/[^/]+/orders\\?' }, fault })
    expect([await status(`${orders()}?limit=1`), await status(orders())]).toEqual([503, 200])
    for (const id of [account(), investor()]) {
      await rules({ match: { account: id }, fault })
      expect([
        await status(orders()),
        await status(`/trading/accounts/${account()}/orders`),
        await status(`/trading/orders/${sandbox.demo.openOrderId}`),
        await status(orders(sandbox.investors[1])),
      ]).toEqual([503, 503, 503, 200])
    }
  })

  test('change the rows of a list and the one order of a read', async () => {
    await rules(
      { fault: { kind: 'setField', field: 'status', value: 'frozen' } },
      { fault: { kind: 'dropField', field: 'quantity', row: 1 } },
      { fault: { kind: 'asNumber', field: 'filled_quantity', source: '1e400' } },
      { fault: { kind: 'omitClientOrderId' } },
      { fault: { kind: 'extraFields', count: 3 } },
    )
    const { text, rows } = await ask(`${orders()}?limit=4`)
    expect(rows.map((row) => row['status'])).toEqual(['frozen', 'frozen', 'frozen', 'frozen'])
    expect(rows.filter((row) => 'client_order_id' in row)).toEqual([])
    expect(rows[1]).not.toHaveProperty('quantity')
    expect(text).toContain('"filled_quantity":1e400')
    const single = (await ask(`${orders()}/${sandbox.demo.openOrderId}`)).body
    expect(single).toMatchObject({ status: 'frozen', unknown_field_2: true })
  })

  test('lists come oldest first, unfiltered, too long, or from the past', async () => {
    const all = (await ask(`${orders()}?limit=8`)).rows
    await rules({ fault: { kind: 'listOrder', order: 'oldestFirst' } })
    expect((await ask(`${orders()}?limit=1`)).rows[0]?.['created']).toBeLessThan(Date.UTC(2026, 0, 7) / 1000)
    await rules({ fault: { kind: 'ignoreFilter' } })
    expect((await ask(`${orders()}?limit=8&status=failed&symbol=NOPE&class=bond`)).rows).toEqual(all)
    await rules({ fault: { kind: 'extraRows' } })
    const [a, b, c, d, e, f] = all
    expect((await ask(`${orders()}?limit=4`)).rows).toEqual([a, a, b, b, c, d, e, f])
    await rules({ fault: { kind: 'listLag', ms: 1000 } }, { fault: { kind: 'getLag', ms: 2000 } })
    const placed = await place(mine)
    const seen = async (): Promise<unknown[]> => [
      (await ask(`${orders()}?limit=1`)).rows[0]?.['id'] === placed.body['id'],
      (await ask(`${orders()}/${idOf(placed)}`)).status,
    ]
    expect(await seen()).toEqual([false, 404])
    await advance(1000)
    expect(await seen()).toEqual([true, 404])
    await advance(1000)
    expect(await seen()).toEqual([true, 200])
  })

  test('an answer is lost after the order was placed, and the order is there', async () => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'rstAfterCommit' } })
    await expect(place(mine)).rejects.toThrow()
    expect(await inBook()).toBe(1)
  })

  test('a placement enters the book later, comes twice, or is refused as a duplicate', async () => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'commitDelay', ms: 3000 } })
    const placed = await place(mine)
    expect([placed.status, placed.body['status']]).toEqual([201, 'pending'])
    expect((await ask(`${orders()}/${idOf(placed)}`)).status).toBe(404)
    await advance(3000)
    expect((await now(placed))['status']).toBe('open')
    await rules({ fault: { kind: 'dedupe' } })
    expect(errorOf(await place(mine))).toEqual([409, 'conflict_error', 'BLUM-409-001', 'client_order_id'])
    await control('DELETE', `/book?account=${account()}`)
    await rules({ fault: { kind: 'twin' } })
    await place(mine)
    const ids = (await ask(orders())).rows.map((row) => row['client_order_id'])
    expect(ids.sort()).toEqual(['mine', undefined])
  })

  test('a cancel is done when the rule says, or overtaken by a fill', async () => {
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'asyncCancel', ms: 5000 } })
    const placed = await place(mine)
    await cancel(placed)
    await advance(4999)
    expect((await now(placed))['status']).toBe('open')
    await advance(1)
    expect((await now(placed))['status']).toBe('cancelled')
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'fillOnCancel' } })
    const other = await place(mine)
    expect(errorOf(await cancel(other))[2]).toBe('BLUM-409-003')
    expect((await now(other))['status']).toBe('filled')
  })

  test('retryAfter refuses in the envelope, and maxRps limits', async () => {
    await rules({ fault: { kind: 'retryAfter', value: '7' } })
    const refused = await place(mine)
    expect(errorOf(refused)).toEqual([429, 'rate_limit_error', 'BLUM-429-001'])
    expect(refused.headers.get('retry-after')).toBe('7')
    await rules({ fault: { kind: 'maxRps', perSecond: 0 } })
    expect(errorOf(await ask(orders()))).toEqual([429, 'rate_limit_error', 'BLUM-429-001'])
    expect(await inBook()).toBe(0)
  })
})

describe('switches', () => {
  test('custody later: pending for a second, to the millisecond, and only then it trades', async () => {
    await switchTo({ custody: 'later' })
    const [rests, fills] = [await place(mine), await place(market)]
    const ioc = await place({ ...resting, time_in_force: 'ioc' })
    const statuses = async (): Promise<unknown[]> => [
      (await now(rests))['status'],
      (await now(fills))['status'],
      (await now(ioc))['status'],
    ]
    expect((await ask(`${orders()}?status=pending`)).rows.map((row) => row['id']).sort()).toEqual(
      [rests, fills, ioc].map(idOf).sort(),
    )
    await advance(999)
    expect(await statuses()).toEqual(['pending', 'pending', 'pending'])
    expect((await now(rests))['submitted_at']).toBeNull()
    await advance(1)
    expect(await statuses()).toEqual(['open', 'filled', 'cancelled'])
    expect(await now(fills)).toMatchObject({
      created: noon / 1000,
      submitted_at: '2026-06-01T12:00:01Z',
      filled_at: '2026-06-01T12:00:01Z',
    })
    expect((await ask(`${orders()}?status=pending`)).rows).toEqual([])
  })

  test('custody later: an order canceled before never got there, one filled from outside did', async () => {
    await switchTo({ custody: 'later', investorCancels: 'atOnce' })
    const [gone, filled] = [await place(mine), await place(resting)]
    await cancel(gone)
    await advance(500)
    await control('POST', `/orders/${idOf(filled)}/fill`, { quantity: '1' })
    await advance(5000)
    expect(await now(gone)).toMatchObject({ status: 'cancelled', submitted_at: null })
    expect(await now(filled)).toMatchObject({ status: 'partial', submitted_at: '2026-06-01T12:00:00.500Z' })
  })

  test('custody later survives a restart, and trades what was due while it was down', async () => {
    const stateFile = join(directory, 'custody.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    await switchTo({ custody: 'later' })
    const [rests, fills] = [await place(mine), await place(market)]
    await sandbox.close()
    clock += 400
    sandbox = await start({ stateFile })
    expect([(await now(rests))['status'], (await now(fills))['status']]).toEqual(['pending', 'pending'])
    await sandbox.close()
    clock += 5000
    sandbox = await start({ stateFile })
    expect(await now(rests)).toMatchObject({ status: 'open', submitted_at: '2026-06-01T12:00:01Z' })
    expect(await now(fills)).toMatchObject({ status: 'filled', filled_at: '2026-06-01T12:00:01Z' })
  })

  test('custody later under commitDelay counts from when the order enters the book', async () => {
    await switchTo({ custody: 'later' })
    await rules({ match: { method: 'POST' }, fault: { kind: 'commitDelay', ms: 250 } })
    const placed = await place(market)
    await advance(250)
    expect((await now(placed))['status']).toBe('pending')
    await advance(1000)
    expect(await now(placed)).toMatchObject({ status: 'filled', submitted_at: '2026-06-01T12:00:01.250Z' })
  })

  test('custody atOnce: the answer to a placement is the order as it is', async () => {
    await switchTo({ custody: 'atOnce' })
    expect((await place(market)).body).toMatchObject({ status: 'filled', submitted_at: '2026-06-01T12:00:00Z' })
    const placed = await place(mine)
    expect(placed.body).toEqual(await now(placed))
  })

  test('a resting order is pending where no order is ever open, and submitted_at can be there from the start', async () => {
    await switchTo({ restingStatus: 'pending', submittedAt: 'always' })
    const placed = await place(mine)
    expect(placed.body).toMatchObject({ status: 'pending', submitted_at: '2026-06-01T12:00:00Z' })
    expect(await now(placed)).toEqual(placed.body)
    const count = async (status: string): Promise<number> =>
      (await ask(`${orders()}?status=${status}&limit=200`)).rows.length
    expect(await count('open')).toBe((await count('pending')) + (await count('partial')))
  })

  test('a cancel is done before it is answered, or answers 202', async () => {
    await switchTo({ investorCancels: 'atOnce', cancelSuccess: 202, cancelOfCanceled: 'order' })
    const placed = await place(mine)
    const first = await cancel(placed)
    expect([first.status, first.body['status']]).toEqual([202, 'cancelled'])
    const again = await cancel(placed)
    expect([again.status, again.body]).toEqual([202, first.body])
  })

  test.each([
    ['Not enough cash.', { ...market, quantity: '100000' }],
    ['Not enough shares to sell.', { ...market, side: 'sell', quantity: '100000' }],
    ['Asset cannot be traded.', { ...market, symbol: 'TWTR' }],
  ])('a business rule makes an order that fails: %s', async (reason, body) => {
    await switchTo({ refusals: 'failedOrder' })
    const before = (await ask(`/investors/${investor()}`)).body
    const placed = await place(body)
    expect([placed.status, placed.body['status']]).toEqual([201, 'pending'])
    expect(await now(placed)).toMatchObject({
      status: 'failed',
      filled_quantity: '0',
      average_price: '0.00',
      submitted_at: null,
      failure_reason: reason,
    })
    expect((await ask(`/investors/${investor()}`)).body).toEqual(before)
    expect(errorOf(await place({ ...market, symbol: 'NOPE' }))[2]).toBe('BLUM-404-003')
  })

  test('words of the accounts dialect are taken', async () => {
    await switchTo({ accountsWords: 'taken' })
    const { quantity, ...rest } = mine
    const placed = await place({ ...rest, qty: quantity, commission: '1', commission_type: 'qty' })
    expect([placed.status, placed.body['quantity'], placed.body['commission_type']]).toEqual([201, '10', 'per_share'])
    const { rows } = await ask(`${orders()}?status=accepted&limit=1`)
    expect([rows[0]?.['id'], rows[0]?.['status']]).toEqual([idOf(placed), 'open'])
    expect((await ask(`${orders()}?status=canceled&limit=200`)).text).toBe(
      (await ask(`${orders()}?status=cancelled&limit=200`)).text,
    )
  })

  test('a limit above 100 is refused, and pages with more behind them are short', async () => {
    await switchTo({ listLimitMax: 100, shortPages: true })
    expect(errorOf(await ask(`${orders()}?limit=101`))[3]).toBe('limit')
    const seen: unknown[] = []
    for (let more: unknown = true; more === true;) {
      const { rows, body } = await ask(`${orders()}?limit=99&offset=${seen.length}`)
      more = body['has_more']
      if (more === true) expect(rows).toHaveLength(50)
      seen.push(...rows.map((row) => row['id']))
    }
    expect(seen).toEqual((await control('GET', `/book?account=${account()}`)).rows.map((row) => row['id']))
  })

  test('fields without a value are null, and of the envelope only what the guide shows is there', async () => {
    await switchTo({ emptyFields: 'null', envelopeKeys: 'guide' })
    const placed = await place(resting)
    const empty = [
      'notional',
      'stop_price',
      'client_order_id',
      'commission',
      'commission_type',
      'settlement_date',
      'bond',
    ]
    for (const field of empty) expect(placed.body[field]).toBeNull()
    for (const field of ['created', 'livemode', 'investor_id']) expect(placed.body).not.toHaveProperty(field)
  })

  test('reads carry what the samples have left over from a template', async () => {
    await switchTo({ templateLeftovers: true })
    const { body, rows } = await ask(`${orders()}?limit=1`)
    expect([body['url'], rows[0]?.['object']]).toEqual([`/v1/investors/${investor()}/deposits`, 'investor'])
    expect((await ask(`${orders()}/${sandbox.demo.openOrderId}`)).body['object']).toBe('investor')
    expect((await place(mine)).body['object']).toBe('order')
  })

  test('those of both dialects hold here too', async () => {
    await switchTo({
      clientOrderIds: 'unique',
      clientOrderIdEcho: 'singleReads',
      partialRows: true,
      readLag: 'seconds',
    })
    const placed = await place(mine)
    expect(placed.body['client_order_id']).toBe('mine')
    expect(errorOf(await place(mine))[2]).toBe('BLUM-409-001')
    expect((await ask(`${orders()}/${idOf(placed)}`)).status).toBe(404)
    await advance(2000)
    const [row] = (await ask(`${orders()}?limit=1`)).rows
    expect(row).toMatchObject({ id: idOf(placed), status: 'open' })
    for (const field of ['client_order_id', 'extended_hours']) expect(row).not.toHaveProperty(field)
    await switchTo({ idempotencyKeys: 'ignored', clientOrderIds: 'free', listOrder: 'oldestFirst' })
    for (let i = 0; i < 2; i++) await place(mine, { 'idempotency-key': 'k' })
    expect(await inBook()).toBe(3)
  })
})
