import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox, SandboxOptions } from '../../sandbox/server.ts'

type Json = Record<string, unknown>

const noon = Date.UTC(2026, 5, 1, 12)
const directory = mkdtempSync(join(tmpdir(), 'sandbox-'))
afterAll(() => rmSync(directory, { recursive: true }))

let clock = noon
let sandbox: Sandbox

function start(options: Partial<SandboxOptions> = {}): Promise<Sandbox> {
  return startSandbox({ stateFile: ':memory:', seed: 'test', now: () => clock, ...options })
}

function credentials({ apiKey, apiSecret }: Sandbox): string {
  return `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}`
}

interface Answered {
  status: number
  headers: Headers
  text: string
  body: Json
  rows: Json[]
}

async function ask(
  path: string,
  init: { method?: string; body?: unknown; headers?: Record<string, string>; signal?: AbortSignal; of?: Sandbox } = {},
): Promise<Answered> {
  const { of = sandbox, method = 'GET', body, headers, signal } = init
  const response = await fetch(of.url + path, {
    method,
    headers: { authorization: credentials(of), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  })
  const text = await response.text()
  const parsed: unknown = text.startsWith('{') || text.startsWith('[') ? tryParse(text) : undefined
  const rows: Json[] = Array.isArray(parsed) ? parsed : []
  return { status: response.status, headers: response.headers, text, body: isJson(parsed) ? parsed : {}, rows }
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

async function control(method: string, path: string, body?: unknown, of = sandbox): Promise<Answered> {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) }
  const response = await fetch(of.controlUrl + path, init)
  const text = await response.text()
  const parsed: unknown = JSON.parse(text)
  const rows: Json[] = Array.isArray(parsed) ? parsed : []
  return { status: response.status, headers: response.headers, text, body: isJson(parsed) ? parsed : {}, rows }
}

const account = (): string => sandbox.accounts[0] ?? ''
const orders = (of = account()): string => `/trading/accounts/${of}/orders`

/** A limit buy far below the market: it rests. */
const resting = { symbol: 'AAPL', side: 'buy', type: 'limit', time_in_force: 'gtc', qty: '10', limit_price: '95.00' }
const market = { symbol: 'KO', side: 'buy', type: 'market', time_in_force: 'day', qty: '2' }

function place(body: unknown, headers: Record<string, string> = {}): Promise<Answered> {
  return ask(orders(), { method: 'POST', body, headers })
}

function rules(...list: unknown[]): Promise<Answered> {
  return control('PUT', '/rules', list)
}

async function booked(clientOrderId: string): Promise<Json | undefined> {
  const { rows } = await control('GET', `/book?account=${account()}`)
  return rows.find((row) => row['client_order_id'] === clientOrderId)
}

async function wallet(): Promise<Json> {
  const { body } = await ask(`/accounts/${account()}/wallets`)
  const wallets: unknown = body['wallets']
  const first: unknown = Array.isArray(wallets) ? wallets[0] : undefined
  return isJson(first) ? first : {}
}

async function position(symbol: string): Promise<Json | undefined> {
  return (await ask(`/trading/accounts/${account()}/positions?symbol=${symbol}`)).rows[0]
}

async function priceOf(symbol: string, of = sandbox): Promise<number> {
  const { data } = (await ask(`/assets/${symbol}`, { of })).body
  return isJson(data) ? Number(data['price']) : Number.NaN
}

/** Sends one request on a socket of its own: what came back, and whether the end was a FIN or a reset. */
async function raw(method: string, path: string, body = ''): Promise<{ text: string; end: 'fin' | 'reset' }> {
  const { hostname, port, pathname } = new URL(sandbox.url)
  const socket = connect(Number(port), hostname)
  let text = ''
  let end: 'fin' | 'reset' = 'fin'
  socket.on('data', (chunk) => (text += chunk.toString()))
  socket.on('error', () => (end = 'reset'))
  socket.write(
    `${method} ${pathname}${path} HTTP/1.1\r\nhost: ${hostname}\r\nauthorization: ${credentials(sandbox)}\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  )
  await new Promise((resolve) => socket.once('close', resolve))
  return { text, end }
}

/** A socket that stays: `get` sends a request, `seen` is all that came, once it matches. */
function openSocket(): { get: (path: string) => void; seen: (pattern: RegExp) => Promise<string> } {
  const { hostname, port, pathname } = new URL(sandbox.url)
  const socket = connect(Number(port), hostname)
  let text = ''
  let look = (): void => undefined
  socket.on('data', (chunk) => {
    text += chunk.toString()
    look()
  })
  onTestFinished(() => void socket.destroy())
  return {
    get: (path) =>
      void socket.write(
        `GET ${pathname}${path} HTTP/1.1\r\nhost: ${hostname}\r\nauthorization: ${credentials(sandbox)}\r\n\r\n`,
      ),
    seen: (pattern) =>
      new Promise((resolve) => {
        look = () => {
          if (pattern.test(text)) resolve(text)
        }
        look()
      }),
  }
}

/** Asks until it is so. Each look is at least one round trip, so no timer is needed. */
async function until(look: () => Promise<boolean>): Promise<void> {
  for (let looks = 0; looks < 10_000; looks++) if (await look()) return
  throw new Error('it never became so')
}

/** The first request in the broker's log that matches, once it is there. */
async function logged(find: (entry: Json) => boolean): Promise<Json> {
  let found: Json | undefined
  await until(async () => {
    found = (await control('GET', '/log')).rows.find(find)
    return found !== undefined
  })
  return found ?? {}
}

async function codeFor(authorization: string | null): Promise<unknown[]> {
  const headers: Record<string, string> = authorization === null ? {} : { authorization }
  const response = await fetch(`${sandbox.url}/accounts`, { headers })
  const body: unknown = await response.json()
  return [response.status, isJson(body) ? body['code'] : null]
}

async function errorAs(errorEnvelope: string): Promise<Json> {
  await control('PUT', '/switches', { errorEnvelope })
  return (await place({ ...resting, side: 'hold' })).body
}

async function statusOf(path: string): Promise<number> {
  return (await ask(path)).status
}

function hours(count: number): Promise<Answered> {
  return control('POST', '/advance', { ms: count * 3_600_000 })
}

async function read(answered: Answered): Promise<Json> {
  return (await ask(`/trading/orders/${String(answered.body['id'])}`)).body
}

function cancel(placed: Answered): Promise<Answered> {
  return ask(`${orders()}/${String(placed.body['id'])}/cancel`, { method: 'POST' })
}

/** Money of two decimals as whole cents. */
function cents(text: unknown): bigint {
  return BigInt(String(text).replace('.', ''))
}

beforeEach(async () => {
  clock = noon
  sandbox = await start()
})
afterEach(() => sandbox.close())

describe('the seeded past', () => {
  test('two active accounts with a long past, of every status, type, side and time in force', async () => {
    const { rows } = await ask('/accounts')
    expect(rows.map((row) => [row['id'], row['status'], row['currency'], row['balance']])).toEqual([
      [sandbox.accounts[0], 'ACTIVE', 'USD', '1000000.00'],
      [sandbox.accounts[1], 'ACTIVE', 'USD', '250000.00'],
    ])
    const main = (await control('GET', `/book?account=${account()}`)).rows
    const all = (await control('GET', '/book')).rows
    expect(main.length).toBeGreaterThanOrEqual(200)
    expect(all.length).toBeGreaterThanOrEqual(main.length + 30)
    const values = (name: string): number => new Set(main.map((row) => row[name])).size
    expect([values('status'), values('type'), values('time_in_force'), values('side')]).toEqual([5, 5, 6, 2])
    for (const field of ['notional', 'client_order_id', 'commission']) {
      expect(main.some((row) => row[field] !== undefined)).toBe(true)
    }
    expect(values('submitted_at')).toBeLessThan(main.length)
    expect(main.filter((row) => row['symbol'] === 'AAPL' && row['side'] === 'buy').length).toBeGreaterThan(60)
  })

  test('no seeded order, nor what it filled, lies after the first request', async () => {
    const { rows } = await control('GET', '/book')
    const { now } = (await control('GET', '/clock')).body
    for (const row of rows) {
      for (const field of ['submitted_at', 'filled_at', 'canceled_at']) {
        const time = row[field]
        if (typeof time === 'string') expect(Date.parse(time)).toBeLessThan(Number(now))
      }
    }
  })

  test('open seeded orders still rest after ten years', async () => {
    const open = async (): Promise<number> =>
      (await control('GET', '/book')).rows.filter((row) =>
        ['accepted', 'partially_filled'].includes(String(row['status'])),
      ).length
    const before = await open()
    expect(before).toBeGreaterThan(20)
    await control('POST', '/advance', { ms: 10 * 365 * 86_400_000 })
    expect(await open()).toBe(before)
  })

  test('the demo names a filled order, an open one and a price at which a buy rests', async () => {
    const { demo } = sandbox
    expect((await ask(`/trading/orders/${demo.filledOrderId}`)).body['status']).toBe('filled')
    expect((await ask(`/trading/orders/${demo.openOrderId}`)).body['status']).toBe('accepted')
    const placed = await place({ ...resting, symbol: demo.symbol, limit_price: demo.limitPrice })
    expect(placed.body['status']).toBe('accepted')
  })

  test('the same seed tells the same story, and another seed another one', async () => {
    const twin = await start()
    const other = await start({ seed: 'other' })
    try {
      expect(twin.accounts).toEqual(sandbox.accounts)
      expect(twin.demo).toEqual(sandbox.demo)
      const book = (await control('GET', '/book')).text
      expect((await control('GET', '/book', undefined, twin)).text).toBe(book)
      for (const hours of [1, 30, 1000]) {
        clock = noon + hours * 3_600_000
        for (const symbol of ['AAPL', 'KO']) expect(await priceOf(symbol, twin)).toBe(await priceOf(symbol))
      }
      expect(other.accounts).not.toEqual(sandbox.accounts)
      expect((await control('GET', '/book', undefined, other)).text).not.toBe(book)
      expect(await priceOf('AAPL', other)).not.toBe(await priceOf('AAPL'))
    } finally {
      await twin.close()
      await other.close()
    }
  })

  test.each(['', 'a', 'demo', 'żółw', 'x'.repeat(500)])('any seed works: %j', async (seed) => {
    const other = await start({ seed })
    try {
      const { rows } = await control('GET', `/book?account=${other.accounts[0]}`, undefined, other)
      expect(new Set(rows.map((row) => row['status'])).size).toBe(5)
    } finally {
      await other.close()
    }
  })

  test('a clock that is before the past starts after it', async () => {
    const early = await start({ now: () => 0 })
    try {
      const { now } = (await control('GET', '/clock', undefined, early)).body
      expect(Number(now)).toBeGreaterThan(Date.UTC(2026, 2, 1))
    } finally {
      await early.close()
    }
  })
})

describe('credentials, paths and envelopes', () => {
  test('missing, malformed and wrong credentials have three codes', async () => {
    expect(await codeFor(null)).toEqual([401, 'BLUM-401-001'])
    expect(await codeFor('Bearer abc')).toEqual([401, 'BLUM-401-002'])
    expect(await codeFor(`Basic ${btoa('no colon')}`)).toEqual([401, 'BLUM-401-002'])
    expect(await codeFor(`Basic ${btoa('sandbox-key:wrong')}`)).toEqual([401, 'BLUM-401-003'])
  })

  test.each(['/nothing', '/trading/orders', '/accounts/', '/accounts/%E0%A4%A', '/../accounts'])(
    'an unknown path is BLUM-404-002: %s',
    async (path) => {
      const answered = await ask(path)
      expect([answered.status, answered.body['code']]).toEqual([404, 'BLUM-404-002'])
    },
  )

  test('unknown accounts, orders and assets answer 404', async () => {
    const codes = await Promise.all(
      [orders('nobody'), '/accounts/nobody', '/accounts/nobody/wallets', '/trading/orders/ord_0', '/assets/NOPE'].map(
        async (path) => (await ask(path)).body['code'],
      ),
    )
    expect(codes).toEqual(['BLUM-404-001', 'BLUM-404-001', 'BLUM-404-001', 'BLUM-404-001', 'BLUM-404-003'])
  })

  test('every answer has a request id of its own', async () => {
    const ids = await Promise.all([ask('/accounts'), ask('/nothing'), place({})])
    expect(new Set(ids.map(({ headers }) => headers.get('x-request-id'))).size).toBe(3)
  })

  test('errors come flat, nested or with a status, as the switch says', async () => {
    const error = { code: 'BLUM-400-004', message: 'side has an unknown value.' }
    expect(await errorAs('flat')).toEqual(error)
    expect(await errorAs('nested')).toEqual({ error: { type: 'invalid_request_error', ...error, param: 'side' } })
    expect(await errorAs('status')).toEqual({ status: 'error', ...error })
  })

  test('an unknown switch, or value of one, is refused and changes nothing', async () => {
    const before = (await control('GET', '/switches')).body
    expect(before['market']).toBe('open')
    for (const body of [{ weather: 'fine' }, { market: 'shut' }, { partialRows: 'yes' }, [], { toString: 1 }]) {
      const answered = await control('PUT', '/switches', body)
      expect(answered.status).toBe(400)
      expect(answered.body['message']).toMatch(/switch/)
    }
    expect((await control('GET', '/switches')).body).toEqual(before)
  })

  test('an asset is found in any case, with its price as a number', async () => {
    const { body } = await ask('/assets/%20aapl%20')
    expect(body).toMatchObject({ status: 'success', data: { symbol: 'AAPL', tradable: true, fractionable: true } })
    expect(await priceOf('BRK.B')).toBeGreaterThan(300)
  })
})

describe('reading orders', () => {
  test('a list is newest first with ties by id, and its pages join without gap or repeat', async () => {
    const pages: Json[] = []
    for (let offset = 0; ; offset += 70) {
      const { rows } = await ask(`${orders()}?limit=70&offset=${offset}`)
      pages.push(...rows)
      if (rows.length < 70) break
    }
    const keys = pages.map((row) => `${Date.parse(String(row['submitted_at']))} ${String(row['id'])}`)
    expect(keys).toEqual([...keys].sort().reverse())
    expect(keys.length).toBe((await control('GET', `/book?account=${account()}`)).rows.length)
    expect((await ask(orders())).rows.length).toBe(50)
    expect((await ask(`${orders()}?offset=5000`)).rows).toEqual([])
  })

  test('filters by status, symbol and side combine', async () => {
    const { rows } = await ask(`${orders()}?status=filled&symbol=AAPL&side=sell&limit=100`)
    expect(rows.length).toBeGreaterThan(5)
    for (const row of rows) expect(row).toMatchObject({ status: 'filled', symbol: 'AAPL', side: 'sell' })
    expect((await ask(`${orders()}?symbol=aapl`)).rows).toEqual([])
  })

  test.each([
    'limit=0',
    'limit=101',
    'limit=x',
    'limit=1.5',
    'limit=',
    'offset=-1',
    'offset=x',
    'status=open',
    'side=BUY',
  ])('a list refuses %s with 400', async (query) => {
    const answered = await ask(`${orders()}?${query}`)
    expect(answered.status).toBe(400)
    expect(answered.body['code']).toMatch(/^BLUM-400-/)
  })

  test('a list can come wrapped, and its rows partial', async () => {
    await control('PUT', '/switches', { listEnvelope: 'object', partialRows: true })
    const { body } = await ask(`${orders()}?limit=2`)
    expect(body).toMatchObject({ object: 'list', has_more: true })
    const { data } = body
    for (const row of Array.isArray(data) ? data : []) {
      for (const field of ['extended_hours', 'commission', 'commission_type', 'client_order_id']) {
        expect(row).not.toHaveProperty(field)
      }
    }
    const rest = await ask(`${orders()}?limit=100&offset=200`)
    expect(rest.body['has_more']).toBe(false)
    expect((await ask(`/trading/orders/${sandbox.demo.openOrderId}`)).body).toHaveProperty('extended_hours')
  })
})

describe('placing', () => {
  test('a resting order answers 201 with every field as it was sent', async () => {
    const sent = { ...resting, client_order_id: 'mine', commission: '1.00', extended_hours: true }
    const { status, body } = await place(sent)
    expect(status).toBe(201)
    expect(body).toEqual({
      id: expect.stringMatching(/^ord_[a-z0-9]{16}$/),
      account_id: account(),
      currency: 'USD',
      ...sent,
      commission_type: 'notional',
      status: 'accepted',
      filled_qty: '0',
      remaining_qty: '10',
      average_price: '0.00',
      submitted_at: '2026-06-01T12:00:00Z',
      filled_at: null,
      canceled_at: null,
      reject_reason: null,
    })
    expect((await ask(`/trading/orders/${String(body['id'])}`)).body).toEqual(body)
    expect((await ask(`${orders()}?limit=1`)).rows).toEqual([body])
  })

  test('decimals keep every digit they were sent with', async () => {
    const long = '0.123456789012345678901234567891'
    const sent = { ...resting, qty: '0.000000001', limit_price: long }
    const { body } = await place(sent)
    expect(body).toMatchObject({ qty: '0.000000001', remaining_qty: '0.000000001', limit_price: long })
    const filled = await control('POST', `/orders/${String(body['id'])}/fill`)
    expect(filled.body).toMatchObject({ filled_qty: '0.000000001', remaining_qty: '0', average_price: long })
    expect((await place({ ...resting, qty: '10.50' })).body).toMatchObject({ qty: '10.50', remaining_qty: '10.50' })
  })

  test('a market order fills at once at the price of the moment, in exact cents', async () => {
    const before = await wallet()
    const price = await priceOf('KO')
    const { body } = await place(market)
    expect(body).toMatchObject({
      status: 'filled',
      filled_qty: '2',
      remaining_qty: '0',
      average_price: price.toFixed(2),
      filled_at: '2026-06-01T12:00:00Z',
    })
    const spent = cents(before['balance']) - cents((await wallet())['balance'])
    expect(spent).toBe(2n * BigInt(Math.round(price * 100)))
  })

  test('an order by cash amount buys what the amount allows, to nine decimals', async () => {
    const { qty: _, ...rest } = market
    const { body } = await place({ ...rest, notional: '100.00' })
    const billionths = (100_00n * 1_000_000_000n) / BigInt(Math.round((await priceOf('KO')) * 100))
    expect(body).toMatchObject({ notional: '100.00', status: 'filled', remaining_qty: '0' })
    expect(body).not.toHaveProperty('qty')
    const [whole = '', fraction = ''] = String(body['filled_qty']).split('.')
    expect(BigInt(whole + fraction.padEnd(9, '0'))).toBe(billionths)
  })

  test.each([
    ['BLUM-400-003', 'not json', '{"symbol":'],
    ['BLUM-400-003', 'not an object', '[]'],
    ['BLUM-400-002', 'no symbol', { ...market, symbol: undefined }],
    ['BLUM-400-002', 'no time in force', { ...market, time_in_force: undefined }],
    ['BLUM-400-002', 'no size', { ...market, qty: undefined }],
    ['BLUM-400-002', 'no limit price', { ...market, type: 'limit' }],
    ['BLUM-400-002', 'no stop price', { ...market, type: 'stop' }],
    ['BLUM-400-002', 'no trail', { ...market, type: 'trailing_stop' }],
    ['BLUM-400-004', 'an unknown type', { ...market, type: 'iceberg' }],
    ['BLUM-400-004', 'an unknown time in force', { ...market, time_in_force: 'gtd' }],
    ['BLUM-400-001', 'both sizes', { ...market, notional: '5' }],
    ['BLUM-400-001', 'a sell by amount', { ...market, side: 'sell', qty: undefined, notional: '5' }],
    ['BLUM-400-005', 'a negative amount', { ...market, qty: undefined, notional: '-5' }],
    ['BLUM-400-005', 'an exponent', { ...resting, limit_price: '1e2' }],
    ['BLUM-400-006', 'a zero quantity', { ...market, qty: '0.00' }],
    ['BLUM-400-006', 'a quantity that is a number', { ...market, qty: 2 }],
    ['BLUM-400-006', 'a quantity without digits before the point', { ...market, qty: '.5' }],
    ['BLUM-400-003', 'a long client reference', { ...market, client_order_id: 'x'.repeat(129) }],
    ['BLUM-400-003', 'a flag that is text', { ...market, extended_hours: 'yes' }],
    ['BLUM-400-008', 'a large body', { ...market, market: 'x'.repeat(70_000) }],
    ['BLUM-404-003', 'an unknown asset', { ...market, symbol: 'NOPE' }],
    ['BLUM-422-003', 'an untradable asset', { ...market, symbol: 'TWTR' }],
    [
      'BLUM-422-003',
      'an amount of a whole-share asset',
      { ...market, symbol: 'BRK.B', qty: undefined, notional: '500' },
    ],
    ['BLUM-422-003', 'a fraction of a whole-share asset', { ...market, symbol: 'BRK.B', qty: '0.5' }],
    ['BLUM-422-001', 'more than the cash', { ...market, qty: '100000' }],
    ['BLUM-422-004', 'more than the shares', { ...market, side: 'sell', qty: '100000' }],
  ])('%s refuses %s and books nothing', async (code, _, body) => {
    const before = (await control('GET', '/book')).text
    const answered = await place(body)
    expect([answered.status, answered.body['code']]).toEqual([Number(code.slice(5, 8)), code])
    expect((await control('GET', '/book')).text).toBe(before)
  })

  test('an account that may not trade refuses by its state', async () => {
    const code = async (status: string): Promise<unknown> => {
      await control('PUT', `/accounts/${account()}`, { status })
      return (await place(market)).body['code']
    }
    expect(await code('PENDING')).toBe('BLUM-403-002')
    expect(await code('SUBMITTED')).toBe('BLUM-403-002')
    expect(await code('SUSPENDED')).toBe('BLUM-403-004')
    expect(await code('INACTIVE')).toBe('BLUM-403-004')
    expect((await control('PUT', `/accounts/${account()}`, { status: 'GONE' })).status).toBe(400)
    expect((await control('PUT', `/accounts/${account()}`, { money: '5' })).status).toBe(400)
    expect(await code('ACTIVE')).toBeUndefined()
  })

  test('a closed market lets orders wait, refuses them or rejects them, as the switch says', async () => {
    await control('PUT', '/switches', { market: 'closed-refuses' })
    expect((await place(market)).body['code']).toBe('BLUM-422-002')
    await control('PUT', '/switches', { market: 'closed-rejects' })
    expect((await place(market)).body).toMatchObject({ status: 'rejected', reject_reason: 'Market is closed.' })
    await control('PUT', '/switches', { market: 'closed-waits' })
    const { body } = await place(market)
    expect(body).toMatchObject({ status: 'accepted', filled_qty: '0', remaining_qty: '2' })
    await control('POST', '/advance', { ms: 5000 })
    expect((await ask(`/trading/orders/${String(body['id'])}`)).body['status']).toBe('accepted')
    await control('PUT', '/switches', { market: 'open' })
    await control('POST', '/advance', { ms: 1000 })
    expect((await ask(`/trading/orders/${String(body['id'])}`)).body['status']).toBe('filled')
  })

  test('a waiting order whose account has become too poor ends rejected with a reason', async () => {
    await control('PUT', '/switches', { market: 'closed-waits' })
    const { body } = await place(market)
    await control('PUT', `/accounts/${account()}`, { cash: '0' })
    await control('PUT', '/switches', { market: 'open' })
    await control('POST', '/advance', { ms: 1000 })
    const { body: ended } = await ask(`/trading/orders/${String(body['id'])}`)
    expect(ended).toMatchObject({ status: 'rejected', filled_qty: '0', remaining_qty: '2', filled_at: null })
    expect(ended['reject_reason']).toMatch(/cash/)
  })
})

describe('holds', () => {
  test('an open buy reserves cash, and canceling it releases all of it', async () => {
    const before = await wallet()
    const { body } = await place({ ...resting, qty: '3', limit_price: '95.005' })
    const held = await wallet()
    expect(held['balance']).toBe(before['balance'])
    expect(cents(held['reserved_balance']) - cents(before['reserved_balance'])).toBe(28502n)
    expect(cents(held['available_balance']) + cents(held['reserved_balance'])).toBe(cents(held['balance']))
    await ask(`${orders()}/${String(body['id'])}/cancel`, { method: 'POST' })
    expect(await wallet()).toEqual(before)
  })

  test('cash that is held cannot be spent twice', async () => {
    const { available_balance: available } = await wallet()
    const half = { ...resting, qty: '1', limit_price: String(available) }
    expect((await place({ ...resting, qty: '1', limit_price: '0.01' })).status).toBe(201)
    expect((await place(half)).body['code']).toBe('BLUM-422-001')
  })

  test('shares that are held cannot be sold twice', async () => {
    const held = String((await position('MSFT'))?.['quantity'])
    const sell = { ...resting, symbol: 'MSFT', side: 'sell', limit_price: '9999', qty: held }
    const { status, body } = await place(sell)
    expect(status).toBe(201)
    expect((await place({ ...sell, qty: '0.000000001' })).body['code']).toBe('BLUM-422-004')
    await ask(`${orders()}/${String(body['id'])}/cancel`, { method: 'POST' })
    expect((await place({ ...sell, type: 'market' })).body['status']).toBe('filled')
    expect(await position('MSFT')).toBeUndefined()
  })

  test('a part that fills below the limit frees what it did not need', async () => {
    const before = await wallet()
    const { body } = await place(resting)
    await control('POST', `/orders/${String(body['id'])}/fill`, { quantity: '4', price: '90' })
    const after = await wallet()
    expect(cents(before['balance']) - cents(after['balance'])).toBe(36_000n)
    expect(cents(after['reserved_balance']) - cents(before['reserved_balance'])).toBe(57_000n)
  })
})

describe('the books', () => {
  test('after any placements, fills and cancels each order costs its value to the cent and no hold is left over', async () => {
    let drawn = 7
    const draw = (below: number): number => {
      drawn = (drawn * 1_103_515_245 + 12_345) % 2_147_483_648
      return Math.floor((drawn / 2_147_483_648) * below)
    }
    const other = sandbox.accounts[1] ?? ''
    const seeded = new Set((await control('GET', `/book?account=${other}`)).rows.map((row) => row['id']))
    const walletOf = async (): Promise<Json> => {
      const { wallets } = (await ask(`/accounts/${other}/wallets`)).body
      const first: unknown = Array.isArray(wallets) ? wallets[0] : undefined
      return isJson(first) ? first : {}
    }
    const before = await walletOf()
    for (let step = 0; step < 60; step++) {
      const qty = `${draw(3)}.${String(1 + draw(999)).padStart(3, '0')}`
      const side = draw(3) === 0 ? 'sell' : 'buy'
      const limit_price = side === 'sell' ? `900.${draw(1000)}1` : `20.${draw(1000)}1`
      const body = draw(3) === 0 ? { ...market, qty, side } : { ...resting, symbol: 'KO', qty, side, limit_price }
      const placed = await ask(orders(other), { method: 'POST', body })
      expect([201, 422]).toContain(placed.status)
      const path = `/orders/${String(placed.body['id'])}/fill`
      // Whatever the market says, the control port fills an order that rests at its limit.
      if (placed.body['status'] === 'accepted' && draw(3) > 0) {
        await control('POST', path, { quantity: '0.0007' })
        if (draw(2) === 0) await control('POST', path)
      }
      const wallet = await walletOf()
      expect(cents(wallet['available_balance']) + cents(wallet['reserved_balance'])).toBe(cents(wallet['balance']))
    }
    let spent = 0n
    for (const row of (await control('GET', `/book?account=${other}`)).rows) {
      if (seeded.has(row['id'])) continue
      if (['accepted', 'partially_filled'].includes(String(row['status']))) {
        await ask(`${orders(other)}/${String(row['id'])}/cancel`, { method: 'POST' })
      }
      const [quantity = '', price = ''] = [row['filled_qty'], row['average_price']].map(String)
      const scale = (quantity.split('.')[1] ?? '').length + (price.split('.')[1] ?? '').length
      const units = BigInt(quantity.replace('.', '')) * BigInt(price.replace('.', '')) * 100n
      const unit = 10n ** BigInt(scale)
      spent += row['side'] === 'buy' ? (units + unit - 1n) / unit : -(units / unit)
    }
    const after = await walletOf()
    expect(cents(before['balance']) - cents(after['balance'])).toBe(spent)
    expect(after['reserved_balance']).toBe(before['reserved_balance'])
  })
})

describe('fills over time', () => {
  test.each([
    ['limit', { limit_price: 0.99 }],
    ['stop', { stop_price: 1.01 }],
    ['stop_limit', { stop_price: 1.005, limit_price: 1.02 }],
  ])('a %s buy rests until the price crosses, then fills within its terms', async (type, factors) => {
    const price = await priceOf('AAPL')
    const prices = Object.entries(factors).map(([name, factor]) => [name, (price * factor).toFixed(2)] as const)
    const placed = await place({ ...resting, limit_price: undefined, type, ...Object.fromEntries(prices) })
    expect(placed.body['status']).toBe('accepted')
    await hours(24 * 60)
    const filled = await read(placed)
    expect(filled).toMatchObject({ status: 'filled', filled_qty: '10', remaining_qty: '0' })
    expect(Date.parse(String(filled['filled_at']))).toBeGreaterThan(noon)
    const limit = Object.fromEntries(prices)['limit_price']
    if (limit !== undefined) expect(Number(filled['average_price'])).toBeLessThanOrEqual(Number(limit))
    const stop = Object.fromEntries(prices)['stop_price']
    if (limit === undefined) expect(Number(filled['average_price'])).toBeGreaterThanOrEqual(Number(stop))
  })

  test.each([{ trail_percent: '1' }, { trail_price: '2.00' }])(
    'a trailing stop sell %j follows the price up, then fills',
    async (trail) => {
      const sell = { ...resting, side: 'sell', type: 'trailing_stop', limit_price: undefined, ...trail }
      const placed = await place(sell)
      expect(placed.body).toMatchObject({ status: 'accepted', ...trail })
      await hours(24 * 60)
      expect(await read(placed)).toMatchObject({ status: 'filled', filled_qty: '10' })
    },
  )

  test('a large limit order fills in two steps', async () => {
    await control('PUT', `/accounts/${account()}`, { cash: '90000000' })
    const placed = await place({ ...resting, symbol: 'F', qty: '1001', limit_price: '100' })
    expect(placed.body).toMatchObject({
      status: 'partially_filled',
      filled_qty: '500',
      remaining_qty: '501',
      filled_at: null,
    })
    await control('POST', '/advance', { ms: 1000 })
    expect(await read(placed)).toMatchObject({ status: 'filled', filled_qty: '1001', remaining_qty: '0' })
  })

  test('ioc takes what it finds and fok all or nothing; what is left is canceled', async () => {
    await control('PUT', `/accounts/${account()}`, { cash: '90000000' })
    const large = { ...resting, symbol: 'F', qty: '2000', limit_price: '100' }
    expect((await place({ ...large, time_in_force: 'ioc' })).body).toMatchObject({
      status: 'canceled',
      filled_qty: '1000',
    })
    expect((await place({ ...large, time_in_force: 'fok' })).body).toMatchObject({
      status: 'canceled',
      filled_qty: '0',
    })
    expect((await place({ ...resting, time_in_force: 'fok' })).body).toMatchObject({
      status: 'canceled',
      filled_qty: '0',
    })
    expect((await place({ ...market, time_in_force: 'fok' })).body['status']).toBe('filled')
  })

  test('an unfilled day order is canceled at 21:00 UTC and stays so', async () => {
    const placed = await place({ ...resting, time_in_force: 'day' })
    await hours(8)
    expect((await read(placed))['status']).toBe('accepted')
    await hours(30)
    expect(await read(placed)).toMatchObject({
      status: 'canceled',
      canceled_at: '2026-06-01T21:00:00Z',
      remaining_qty: '10',
    })
  })

  test('opg and cls wait for the next 14:30 and 21:00 UTC, and fill there or are canceled', async () => {
    const opening = await place({ ...market, time_in_force: 'opg' })
    const closing = await place({ ...market, time_in_force: 'cls' })
    const far = await place({ ...resting, time_in_force: 'opg' })
    expect([opening.body['status'], closing.body['status']]).toEqual(['accepted', 'accepted'])
    await hours(3)
    expect(await read(opening)).toMatchObject({ status: 'filled', filled_at: '2026-06-01T14:30:00Z' })
    expect(await read(far)).toMatchObject({ status: 'canceled', canceled_at: '2026-06-01T14:30:00Z' })
    expect((await read(closing))['status']).toBe('accepted')
    await hours(7)
    expect(await read(closing)).toMatchObject({ status: 'filled', filled_at: '2026-06-01T21:00:00Z' })
  })

  test('the control port fills an open order in parts at given prices, and the average is exact', async () => {
    const placed = await place(resting)
    const path = `/orders/${String(placed.body['id'])}/fill`
    const part = await control('POST', path, { quantity: '3', price: '90.10' })
    expect(part.body).toMatchObject({
      status: 'partially_filled',
      filled_qty: '3',
      remaining_qty: '7',
      average_price: '90.10',
    })
    expect((await control('POST', path, { quantity: '7.1' })).status).toBe(409)
    expect((await control('POST', path, { quantity: '-1' })).status).toBe(400)
    expect((await control('POST', path, { shares: '1' })).status).toBe(400)
    const whole = await control('POST', path)
    // The rest fills at the limit: (3 x 90.10 + 7 x 95.00) / 10.
    expect(whole.body).toMatchObject({ status: 'filled', filled_qty: '10', average_price: '93.53' })
    expect((await control('POST', path)).status).toBe(409)
    expect((await control('POST', '/orders/ord_0/fill')).status).toBe(404)
  })
})

describe('canceling', () => {
  test('an open order answers 200 canceled, with what had filled unchanged', async () => {
    const { body } = await place(resting)
    const id = String(body['id'])
    await control('POST', `/orders/${id}/fill`, { quantity: '3' })
    const canceled = await ask(`${orders()}/${id}/cancel`, { method: 'POST' })
    expect(canceled.status).toBe(200)
    expect(canceled.body).toMatchObject({
      status: 'canceled',
      filled_qty: '3',
      remaining_qty: '7',
      average_price: '95.00',
      canceled_at: '2026-06-01T12:00:00Z',
    })
    const again = await ask(`${orders()}/${id}/cancel`, { method: 'POST' })
    expect([again.status, again.body['code']]).toEqual([409, 'BLUM-409-003'])
  })

  test("another account's order answers like one that does not exist", async () => {
    const path = `${orders(sandbox.accounts[1])}/${sandbox.demo.openOrderId}/cancel`
    const foreign = await ask(path, { method: 'POST' })
    const missing = await ask(`${orders()}/ord_0/cancel`, { method: 'POST' })
    expect([foreign.status, foreign.text]).toEqual([404, missing.text])
    expect((await ask(`/trading/orders/${sandbox.demo.openOrderId}`)).body['status']).toBe('accepted')
  })
})

describe('idempotency', () => {
  const key = { 'idempotency-key': 'k1' }

  test('the same key and body answer the first response again, and book once', async () => {
    const sent = { ...resting, client_order_id: 'once' }
    const first = await place(sent, key)
    await control('POST', `/orders/${String(first.body['id'])}/fill`)
    const second = await place(sent, key)
    expect([second.status, second.text]).toEqual([201, first.text])
    const { rows } = await control('GET', '/book')
    expect(rows.filter((row) => row['client_order_id'] === 'once').length).toBe(1)
  })

  test('the same key with another body is BLUM-409-002', async () => {
    await place(resting, key)
    const other = await place({ ...resting, qty: '11' }, key)
    expect([other.status, other.body['code']]).toEqual([409, 'BLUM-409-002'])
  })

  test('any reuse is BLUM-409-001 when the switch says so', async () => {
    await control('PUT', '/switches', { idempotencyReuse: 'conflict' })
    await place(resting, key)
    const other = await place(resting, key)
    expect([other.status, other.body['code']]).toEqual([409, 'BLUM-409-001'])
  })

  test('a refusal is kept too, and a key is forgotten after 24 hours', async () => {
    const poor = { ...resting, qty: '99999999' }
    const first = await place(poor, key)
    await control('PUT', `/accounts/${account()}`, { cash: '99999999999' })
    expect((await place(poor, key)).text).toBe(first.text)
    await control('POST', '/advance', { ms: 86_400_000 })
    expect((await place(poor, key)).status).toBe(201)
  })
})

describe('the capabilities of a broker, by switch', () => {
  const mine = { ...resting, client_order_id: 'mine' }
  const key = { 'idempotency-key': 'k1' }
  const newest = async (): Promise<Json | undefined> => (await ask(`${orders()}?limit=1`)).rows[0]
  const count = async (): Promise<number> =>
    (await control('GET', '/book')).rows.filter((row) => row['client_order_id'] === 'mine').length

  test('keys that are ignored place again, and are not kept', async () => {
    await control('PUT', '/switches', { idempotencyKeys: 'ignored' })
    const [first, second] = [await place(mine, key), await place(mine, key)]
    expect([first.status, second.status, await count()]).toEqual([201, 201, 2])
    expect(second.body['id']).not.toBe(first.body['id'])
    expect((await place({ ...mine, qty: '11' }, key)).status).toBe(201)
    await control('PUT', '/switches', { idempotencyKeys: 'honored' })
    const third = await place(mine, key)
    expect((await place(mine, key)).text).toBe(third.text)
    expect(await count()).toBe(4)
  })

  test('a client order id is free for any order, or refused if an order of the account has it, in any status', async () => {
    await place(mine)
    const second = await place(mine)
    expect([second.status, await count()]).toEqual([201, 2])
    await control('PUT', '/switches', { clientOrderIds: 'unique' })
    await cancel(second)
    const third = await place({ ...mine, symbol: 'KO', limit_price: '31.00' })
    expect([third.status, third.body]).toEqual([409, { code: 'BLUM-409-001', message: 'Resource exists already.' }])
    const others = [
      await place(resting),
      await place(resting),
      await place({ ...mine, client_order_id: 'Mine' }),
      await ask(orders(sandbox.accounts[1]), { method: 'POST', body: mine }),
    ]
    expect(others.map(({ status }) => status)).toEqual([201, 201, 201, 201])
    expect(await count()).toBe(3)
  })

  test('unique ids leave the first answer of a key as it is', async () => {
    await control('PUT', '/switches', { clientOrderIds: 'unique' })
    const first = await place(mine, key)
    expect((await place(mine, key)).text).toBe(first.text)
    expect((await place(mine, { 'idempotency-key': 'k2' })).body['code']).toBe('BLUM-409-001')
    await control('PUT', '/switches', { idempotencyKeys: 'ignored' })
    expect((await place(mine, key)).body['code']).toBe('BLUM-409-001')
    expect(await count()).toBe(1)
  })

  test.each([
    ['everywhere', ['mine', 'mine', 'mine', 'mine']],
    ['singleReads', ['mine', undefined, 'mine', 'mine']],
    ['nowhere', [undefined, undefined, undefined, undefined]],
  ])('the client order id echoes %s, and the control port always has it', async (clientOrderIdEcho, ids) => {
    await control('PUT', '/switches', { clientOrderIdEcho })
    const placed = await place(mine)
    const row = await newest()
    const answers = [placed.body, row, await read(placed), (await cancel(placed)).body]
    expect(answers.map((answer) => answer?.['client_order_id'])).toEqual(ids)
    expect(new Set(answers.map((answer) => answer?.['id'])).size).toBe(1)
    expect(row).toHaveProperty('extended_hours')
    expect(await booked('mine')).toMatchObject({ id: placed.body['id'] })
  })

  test('lists come oldest first, unless a rule says otherwise', async () => {
    await control('PUT', '/switches', { listOrder: 'oldestFirst' })
    const placed = await place(mine)
    expect(Date.parse(String((await newest())?.['submitted_at']))).toBeLessThan(Date.UTC(2026, 0, 7))
    await rules({ fault: { kind: 'listOrder', order: 'newestFirst' } })
    expect(await newest()).toEqual(placed.body)
  })

  test('reads lag by two seconds, unless a rule says otherwise; a cancel sees the present', async () => {
    await control('PUT', '/switches', { readLag: 'seconds' })
    const placed = await place(mine)
    const seen = async (): Promise<unknown[]> => [
      (await newest())?.['id'] === placed.body['id'],
      (await read(placed))['status'],
    ]
    await control('POST', '/advance', { ms: 1999 })
    expect(await seen()).toEqual([false, undefined])
    await rules({ fault: { kind: 'listLag', ms: 0 } })
    expect(await seen()).toEqual([true, undefined])
    await rules({ fault: { kind: 'getLag', ms: 0 } })
    expect(await seen()).toEqual([false, 'accepted'])
    await rules()
    expect((await cancel(placed)).body['status']).toBe('canceled')
    await control('POST', '/advance', { ms: 1 })
    expect(await seen()).toEqual([true, 'accepted'])
    await control('POST', '/advance', { ms: 1998 })
    expect(await seen()).toEqual([true, 'accepted'])
    await control('POST', '/advance', { ms: 1 })
    expect(await seen()).toEqual([true, 'canceled'])
  })

  test('a cancel takes effect a second later, unless a rule says otherwise', async () => {
    await control('PUT', '/switches', { cancels: 'later' })
    const placed = await place(mine)
    const taken = await cancel(placed)
    expect([taken.status, taken.body]).toEqual([200, placed.body])
    await control('POST', '/advance', { ms: 999 })
    expect((await read(placed))['status']).toBe('accepted')
    await control('POST', '/advance', { ms: 1 })
    expect(await read(placed)).toMatchObject({ status: 'canceled', canceled_at: '2026-06-01T12:00:01Z' })
    await rules({ fault: { kind: 'asyncCancel', ms: 3000 } })
    const other = await place(mine)
    await cancel(other)
    await control('POST', '/advance', { ms: 2999 })
    expect((await read(other))['status']).toBe('accepted')
    await control('POST', '/advance', { ms: 1 })
    expect((await read(other))['status']).toBe('canceled')
  })

  test('a cancel of a canceled order can answer with it; a cancel of a filled or rejected order is always refused', async () => {
    await control('PUT', '/switches', { cancelOfCanceled: 'order' })
    const placed = await place(mine)
    const first = await cancel(placed)
    await control('POST', '/advance', { ms: 5000 })
    const again = await cancel(placed)
    expect([again.status, again.body]).toEqual([200, first.body])
    for (const status of ['filled', 'rejected']) {
      await control('POST', `/orders/${String(placed.body['id'])}/status`, { status })
      const refused = await cancel(placed)
      expect([refused.status, refused.body['code']]).toEqual([409, 'BLUM-409-003'])
    }
  })
})

describe('the rate limit', () => {
  test('more requests in a second than allowed are 429 with Retry-After, until the second has passed', async () => {
    const slow = await start({ requestsPerSecond: 3 })
    try {
      const statuses = async (count: number): Promise<number[]> => {
        const answered: number[] = []
        for (let i = 0; i < count; i++) answered.push((await ask('/accounts', { of: slow })).status)
        return answered
      }
      expect(await statuses(4)).toEqual([200, 200, 200, 429])
      const { headers, body } = await ask('/accounts', { of: slow })
      expect(body['code']).toBe('BLUM-429-001')
      expect([
        headers.get('retry-after'),
        headers.get('x-ratelimit-limit'),
        headers.get('x-ratelimit-remaining'),
      ]).toEqual(['1', '3', '0'])
      expect(headers.get('x-ratelimit-reset')).toBe(String(noon / 1000 + 1))
      clock += 999
      expect(await statuses(1)).toEqual([429])
      clock += 1
      expect(await statuses(4)).toEqual([200, 200, 200, 429])
    } finally {
      await slow.close()
    }
  })
})

describe('a restart', () => {
  test('keeps orders, cash, holds, keys, switches and the clock', async () => {
    const stateFile = join(directory, 'deep', 'er', 'restart.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    const sent = { ...resting, client_order_id: 'kept' }
    const placed = await place(sent, { 'idempotency-key': 'k' })
    await place(market)
    await control('POST', `/orders/${String(placed.body['id'])}/fill`, { quantity: '1' })
    await control('PUT', '/switches', { listEnvelope: 'object', clientOrderIds: 'unique', cancels: 'later' })
    await control('POST', '/advance', { ms: 12_345 })
    const before = await Promise.all(
      ['/book', '/clock', '/switches'].map(async (path) => (await control('GET', path)).text),
    )
    const cash = await wallet()
    const { accounts, demo } = sandbox
    await sandbox.close()
    await sandbox.close()

    sandbox = await start({ stateFile })
    expect(
      await Promise.all(['/book', '/clock', '/switches'].map(async (path) => (await control('GET', path)).text)),
    ).toEqual(before)
    expect(await wallet()).toEqual(cash)
    expect([sandbox.accounts, sandbox.demo]).toEqual([accounts, demo])
    expect((await place(sent, { 'idempotency-key': 'k' })).text).toBe(placed.text)
  })

  test('finds at the next start what crossed while it was down', async () => {
    const stateFile = join(directory, 'down.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    const { body } = await place({ ...resting, limit_price: ((await priceOf('AAPL')) * 0.99).toFixed(2) })
    await sandbox.close()
    clock += 60 * 86_400_000
    sandbox = await start({ stateFile })
    const filled = (await ask(`/trading/orders/${String(body['id'])}`)).body
    expect(filled['status']).toBe('filled')
    expect(Date.parse(String(filled['filled_at']))).toBeLessThan(clock)
  })

  test('with another seed, or while another process runs, says what to do', async () => {
    const stateFile = join(directory, 'seed.db')
    const first = await start({ stateFile })
    await expect(start({ stateFile })).rejects.toThrow(/another process.*DATA_DIR/)
    await first.close()
    await expect(start({ stateFile, seed: 'other' })).rejects.toThrow(/SANDBOX_SEED "test".*DATA_DIR/)
    const again = await start({ stateFile })
    await again.close()
  })

  test('a port that is taken fails the start and leaves the file free', async () => {
    const stateFile = join(directory, 'port.db')
    const port = Number(new URL(sandbox.url).port)
    await expect(start({ stateFile, port })).rejects.toThrow(/EADDRINUSE/)
    const other = await start({ stateFile })
    await other.close()
  })
})

describe('the control port', () => {
  test('logs each request with its connection, status, key and body, but only a hash of its credentials', async () => {
    await place(resting, { 'idempotency-key': 'k' })
    await ask('/nothing')
    const { rows } = await control('GET', '/log')
    expect(rows).toHaveLength(2)
    expect(rows[0]).toMatchObject({
      seq: 1,
      at: noon,
      connection: 1,
      method: 'POST',
      path: `/v1${orders()}`,
      status: 201,
      authorization: expect.stringMatching(/^[0-9a-f]{64}$/),
      idempotencyKey: 'k',
      body: JSON.stringify(resting),
    })
    expect(rows[0]?.['headers']).not.toHaveProperty('authorization')
    expect(rows[1]).toMatchObject({ seq: 2, status: 404 })
    await control('DELETE', '/log')
    expect((await control('GET', '/log')).rows).toEqual([])
  })

  test('a web page cannot use it', async () => {
    const response = await fetch(`${sandbox.controlUrl}/clock`, { headers: { origin: 'http://example.com' } })
    expect(response.status).toBe(403)
  })

  test.each([
    [{}, /not an array/],
    [[{}], /rules\[0\]\.fault/],
    [[{ fault: { kind: 'explode' } }], /rules\[0\]\.fault\.kind is one of latency/],
    [[{ fault: { kind: 'latency' } }], /ms is missing/],
    [[{ fault: { kind: 'latency', ms: -1 } }], /ms is not a whole number/],
    [[{ fault: { kind: 'hang', when: 'later' } }], /when is one of/],
    [[{ fault: { kind: 'hang' }, match: { path: '(' } }], /path is not a regular expression/],
    [[{ fault: { kind: 'hang' }, match: { nth: 0 } }], /nth/],
    [[{ fault: { kind: 'hang' }, match: { host: 'x' } }], /match\.host is unknown/],
    [[{ fault: { kind: 'hang', field: 'x' } }], /fault\.field is unknown/],
    [[{ fault: { kind: 'status', status: 99 } }], /status/],
    [[{ fault: { kind: 'status', status: 500, headers: { a: 'b\nc' } } }], /headers\.a cannot be sent/],
    [[{ fault: { kind: 'asNumber', field: 'qty', source: '1,5' } }], /source/],
    [[{ fault: { kind: 'huge' } }], /bytes is missing/],
    [[{ fault: { kind: 'gzipBomb', bytes: 2 ** 31 } }], /bytes is not a whole number/],
    [[{ fault: { kind: 'badHeaders', how: 'badly' } }], /how is one of/],
    [[{ fault: { kind: 'extraRows', rows: 0 } }], /rows/],
    [[{ fault: { kind: 'extraFields', count: 1e9 } }], /count/],
    [[{ fault: { kind: 'maxRps', perSecond: 0.5 } }], /perSecond/],
    [[{ fault: { kind: 'retryAfter', value: 5 } }], /value is not text/],
    [[{ fault: { kind: 'retryAfter', value: '1\n2' } }], /value cannot be sent/],
    [[{ fault: { kind: 'listLag', rows: 1 } }], /rows is unknown/],
    [[{ fault: { kind: 'commitDelay' } }], /ms is missing/],
    [[{ fault: { kind: 'commitDelay', ms: 3_600_001 } }], /ms is not a whole number/],
    [[{ fault: { kind: 'twin', ms: 1 } }], /ms is unknown/],
  ])('an invalid rule is refused by name and the rules stay: %j', async (body, message) => {
    const kept = [{ match: { path: 'nowhere' }, fault: { kind: 'hang' } }]
    await rules(...kept)
    const answered = await control('PUT', '/rules', body)
    expect(answered.status).toBe(400)
    expect(answered.body['message']).toMatch(message)
    expect((await control('GET', '/rules')).rows).toEqual(kept)
    await control('DELETE', '/rules')
    expect((await control('GET', '/rules')).rows).toEqual([])
  })

  const inserted = { ...resting, client_order_id: 'inserted' }
  function insert(fields: Json = {}): Promise<Answered> {
    return control('POST', '/orders', { account: account(), ...inserted, ...fields })
  }

  test('an inserted order rests at its place in the list, holds nothing and moves only from outside', async () => {
    const before = await wallet()
    const now = await insert({ qty: '1000000', limit_price: '9999' })
    expect(now.body).toMatchObject({
      id: expect.stringMatching(/^ord_/),
      account_id: account(),
      ...inserted,
      qty: '1000000',
      limit_price: '9999',
      status: 'accepted',
      remaining_qty: '1000000',
      submitted_at: '2026-06-01T12:00:00Z',
    })
    const old = await insert({ submitted_at: '2026-01-01T02:00:00.5+02:00', time_in_force: 'day' })
    expect(old.body['submitted_at']).toBe('2026-01-01T00:00:00.500Z')
    const { rows } = await control('GET', `/book?account=${account()}`)
    expect([rows[0], rows.at(-1)]).toEqual([now.body, old.body])
    expect(await wallet()).toEqual(before)
    await hours(48)
    expect([(await read(now))['status'], (await read(old))['status']]).toEqual(['accepted', 'accepted'])
    const filled = await control('POST', `/orders/${String(old.body['id'])}/fill`)
    expect(filled.body).toMatchObject({ status: 'filled', filled_qty: '10', average_price: '95.00' })
    expect((await cancel(now)).body['status']).toBe('canceled')
  })

  test('an inserted order is as asked: of either side, of another type, with no reference', async () => {
    const wanted = { symbol: 'KO', side: 'sell', type: 'market', time_in_force: 'day', qty: '2' }
    const { body } = await control('POST', '/orders', { account: account(), ...wanted })
    expect(body).toMatchObject({ ...wanted, status: 'accepted', submitted_at: '2026-06-01T12:00:00Z' })
    expect(body).not.toHaveProperty('client_order_id')
    expect((await ask(`${orders()}?limit=1`)).rows).toEqual([body])
  })

  test('an insert that makes no order is refused, and a fill that the account cannot cover too', async () => {
    const statuses = [
      { account: 'nobody' },
      { symbol: 'NOPE' },
      { limit_price: undefined },
      { submitted_at: '2026-01-01T00:00:00' },
      { submitted_at: '2026-13-01T00:00:00Z' },
      { status: 'filled' },
    ].map(async (fields) => (await insert(fields)).status)
    expect(await Promise.all(statuses)).toEqual([404, 404, 400, 400, 400, 400])
    const sell = await insert({ side: 'sell', qty: '1000000' })
    const fill = await control('POST', `/orders/${String(sell.body['id'])}/fill`)
    expect([fill.status, fill.body['message']]).toEqual([409, 'the account has not enough shares'])
  })

  const at = '2026-06-01T12:00:00Z'
  test.each([
    [[], 'filled', { filled_qty: '10', remaining_qty: '0', average_price: '93.00', filled_at: at }],
    [[], 'canceled', { filled_qty: '4', remaining_qty: '6', average_price: '90.00', canceled_at: at }],
    [[], 'rejected', { filled_qty: '0', remaining_qty: '10', reject_reason: 'Rejected from outside.' }],
    [[], 'accepted', { filled_qty: '0', remaining_qty: '10', average_price: '0.00' }],
    [['canceled'], 'accepted', { filled_qty: '0', remaining_qty: '10', average_price: '0.00' }],
    [['canceled'], 'filled', { filled_qty: '10', remaining_qty: '0', average_price: '93.00', filled_at: at }],
    [['filled'], 'canceled', { filled_qty: '0', remaining_qty: '10', average_price: '0.00', canceled_at: at }],
    [['rejected'], 'filled', { filled_qty: '10', remaining_qty: '0', average_price: '95.00', filled_at: at }],
  ])('an order of ten, four filled, set to %j and then %s, has quantities that fit', async (first, last, fields) => {
    const { body } = await insert()
    const path = `/orders/${String(body['id'])}`
    await control('POST', `${path}/fill`, { quantity: '4', price: '90' })
    const cash = await wallet()
    for (const status of first) await control('POST', `${path}/status`, { status })
    const set = await control('POST', `${path}/status`, { status: last })
    const empty = { filled_at: null, canceled_at: null, reject_reason: null }
    expect(set.body).toMatchObject({ status: last, ...empty, ...fields })
    expect((await ask(`/trading${path}`)).body).toEqual(set.body)
    expect(await wallet()).toEqual(cash)
  })

  test('an unknown status, or one without an order, is refused', async () => {
    const path = `/orders/${sandbox.demo.openOrderId}/status`
    expect((await control('POST', path, { status: 'partially_filled' })).status).toBe(400)
    expect((await control('POST', path, { state: 'filled' })).status).toBe(400)
    expect((await control('POST', '/orders/ord_0/status', { status: 'filled' })).status).toBe(404)
    expect((await control('POST', '/orders/ord_0/nothing', {})).status).toBe(404)
  })

  test('the book of an account can be emptied, with its holds and for good', async () => {
    const stateFile = join(directory, 'emptied.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    const others = (await control('GET', `/book?account=${sandbox.accounts[1]}`)).rows
    await place(resting)
    expect((await control('DELETE', '/book')).status).toBe(404)
    expect((await control('DELETE', `/book?account=${account()}`)).rows).toEqual([])
    expect((await control('GET', '/book')).rows.filter((row) => !('aries_id' in row))).toEqual(others)
    expect(await wallet()).toMatchObject({ reserved_balance: '0.00' })
    expect(await statusOf(`/trading/orders/${sandbox.demo.openOrderId}`)).toBe(404)
    const { body } = await insert()
    await sandbox.close()
    sandbox = await start({ stateFile })
    expect((await ask(orders())).rows).toEqual([body])
    expect(await wallet()).toMatchObject({ reserved_balance: '0.00' })
  })

  test('tells the load as the broker saw it, since the log was cleared', async () => {
    const load = async (): Promise<Json> => (await control('GET', '/load')).body
    const send = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) await ask('/accounts')
    }
    await rules({ match: { times: 1 }, fault: { kind: 'status', status: 503 } })
    await send(3)
    clock += 999
    await send(2)
    expect(await load()).toEqual({ maxInAnySecond: 5, total: 5 })
    clock += 1
    await send(4)
    expect(await load()).toEqual({ maxInAnySecond: 6, total: 9 })
    await control('DELETE', '/log')
    expect(await load()).toEqual({ maxInAnySecond: 0, total: 0 })
    await send(1)
    expect(await load()).toEqual({ maxInAnySecond: 1, total: 1 })
  })
})

describe('faults', () => {
  const mine = { ...resting, client_order_id: 'mine' }
  const body = JSON.stringify(mine)

  test('rules match by method, path, account, nth and times', async () => {
    const fault = { kind: 'status', status: 503 }
    await rules({ match: { method: 'get', path: 'limit=1$' }, fault })
    expect([await statusOf(`${orders()}?limit=1`), await statusOf(`${orders()}?limit=2`)]).toEqual([503, 200])
    await rules({ match: { account: sandbox.accounts[0] }, fault })
    expect([await statusOf(orders()), await statusOf(orders(sandbox.accounts[1]))]).toEqual([503, 200])
    expect(await statusOf(`/trading/orders/${sandbox.demo.openOrderId}`)).toBe(503)
    await rules({ match: { nth: 2 }, fault })
    expect([await statusOf('/accounts'), await statusOf('/accounts'), await statusOf('/accounts')]).toEqual([
      200, 503, 200,
    ])
    await rules({ match: { times: 2 }, fault })
    expect([await statusOf('/accounts'), await statusOf('/accounts'), await statusOf('/accounts')]).toEqual([
      503, 503, 200,
    ])
  })

  test('the first ending applies, with every latency and change of the answer', async () => {
    await rules(
      { fault: { kind: 'latency', ms: 1 } },
      { match: { times: 1 }, fault: { kind: 'status', status: 502 } },
      { match: { times: 1 }, fault: { kind: 'status', status: 504 } },
      { fault: { kind: 'setField', field: 'status', value: 'rejected' } },
      { fault: { kind: 'dropField', field: 'qty' } },
    )
    const path = `/trading/orders/${sandbox.demo.openOrderId}`
    expect((await ask(path)).status).toBe(502)
    expect((await ask(path)).status).toBe(504)
    const third = await ask(path)
    expect([third.status, third.body['status'], third.body['qty']]).toEqual([200, 'rejected', undefined])
  })

  test('refuse closes the port and every connection until the rules change', async () => {
    await ask('/accounts')
    await rules({ fault: { kind: 'refuse' } })
    const error: unknown = await ask('/accounts').catch((problem: unknown) => problem)
    expect(error).toMatchObject({ cause: { code: 'ECONNREFUSED' } })
    await rules()
    expect((await ask('/accounts')).status).toBe(200)
  })

  test('refuse with a match strikes at the request that matches', async () => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'refuse' } })
    expect((await ask('/accounts')).status).toBe(200)
    await expect(place(mine)).rejects.toThrow()
    await expect(ask('/accounts')).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } })
    await control('DELETE', '/rules')
    expect((await ask('/accounts')).status).toBe(200)
    expect(await booked('mine')).toBeUndefined()
  })

  test.each([
    ['rstBeforeRead', 'reset', false],
    ['rstAfterRead', 'reset', false],
    ['rstAfterCommit', 'reset', true],
    ['finAfterCommit', 'fin', true],
  ])('%s ends the connection with a %s and no answer; booked: %j', async (kind, end, commits) => {
    await rules({ match: { method: 'POST' }, fault: { kind } })
    expect(await raw('POST', orders(), body)).toEqual({ text: '', end })
    expect((await booked('mine')) !== undefined).toBe(commits)
    expect(await logged((entry) => entry['method'] === 'POST')).toMatchObject({ status: null })
  })

  test.each([
    ['beforeCommit', false],
    ['afterCommit', true],
  ])('a status %s answers it with the given body and headers; booked: %j', async (when, commits) => {
    await rules({ fault: { kind: 'status', status: 403, body: '<h1>no</h1>', headers: { 'retry-after': '7' }, when } })
    const answered = await place(mine)
    expect([answered.status, answered.text, answered.headers.get('retry-after')]).toEqual([403, '<h1>no</h1>', '7'])
    expect(answered.headers.get('content-type')).toBe('text/html')
    expect((await booked('mine')) !== undefined).toBe(commits)
    await rules({
      fault: { kind: 'status', status: 400, body: { code: 'X' }, contentType: 'application/problem+json' },
    })
    const other = await place(mine)
    expect([other.body, other.headers.get('content-type')]).toEqual([{ code: 'X' }, 'application/problem+json'])
    await rules({ fault: { kind: 'status', status: 204 } })
    expect((await place(mine)).status).toBe(204)
  })

  test.each([
    ['beforeCommit', false],
    ['afterCommit', true],
  ])('a hang %s never answers and is forgotten when the caller leaves; booked: %j', async (when, commits) => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'hang', when } })
    const leave = new AbortController()
    const hanging = ask(orders(), { method: 'POST', body: mine, signal: leave.signal })
    await logged((entry) => entry['body'] === body)
    leave.abort()
    await expect(hanging).rejects.toThrow()
    expect((await booked('mine')) !== undefined).toBe(commits)
  })

  test('a hang with an end goes on to answer', async () => {
    await rules({ fault: { kind: 'hang', ms: 1 } }, { fault: { kind: 'latency', ms: 1 } })
    expect((await place(mine)).status).toBe(201)
  })

  test('a caller that leaves during a latency is served when it is over', async () => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'latency', ms: 100 } })
    const leave = new AbortController()
    const slow = ask(orders(), { method: 'POST', body: mine, signal: leave.signal })
    const settled = Promise.allSettled([slow])
    await logged((entry) => entry['body'] === body)
    leave.abort()
    await settled
    await until(async () => (await booked('mine')) !== undefined)
  })

  test('closing the sandbox ends a latency, and nothing is booked for it', async () => {
    const stateFile = join(directory, 'latency.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    await rules({ match: { method: 'POST' }, fault: { kind: 'latency', ms: 3_600_000 } })
    const slow = expect(place(mine)).rejects.toThrow()
    await logged((entry) => entry['body'] === body)
    await sandbox.close()
    await slow
    sandbox = await start({ stateFile })
    expect(await booked('mine')).toBeUndefined()
  })

  test('truncate promises the whole length and breaks off', async () => {
    const path = `/trading/orders/${sandbox.demo.openOrderId}`
    const whole = (await ask(path)).text
    await rules({ fault: { kind: 'truncate', bytes: 10 } })
    const { text } = await raw('GET', path)
    expect(text).toContain(`content-length: ${whole.length}`)
    expect(text.split('\r\n\r\n')[1]).toBe(whole.slice(0, 10))
    await expect(ask(path)).rejects.toThrow()
    await rules({ fault: { kind: 'truncate', bytes: 0 } })
    expect((await raw('GET', path)).text).toMatch(/^HTTP\/1.1 200[^]*\r\n\r\n$/)
  })

  test('drip sends the head at once and the body slowly, and closing the sandbox ends it', async () => {
    await rules({ match: { times: 1 }, fault: { kind: 'drip', bytesPerSecond: 1_000_000 } })
    expect((await ask(orders())).rows).toHaveLength(50)
    await rules({ fault: { kind: 'drip', bytesPerSecond: 0.001 } })
    const response = await fetch(`${sandbox.url}/accounts`, { headers: { authorization: credentials(sandbox) } })
    expect(response.status).toBe(200)
    const reading = response.text()
    await Promise.all([expect(reading).rejects.toThrow(), sandbox.close()])
  })

  test('closing the sandbox ends a hanging request', async () => {
    await rules({ fault: { kind: 'hang' } })
    const hanging = ask('/accounts')
    const failed = expect(hanging).rejects.toThrow()
    await logged(() => true)
    await sandbox.close()
    await failed
  })

  test('setField, dropField and asNumber change one row or all of them, digit by digit', async () => {
    await rules(
      { fault: { kind: 'setField', field: 'status', value: null, row: 1 } },
      { fault: { kind: 'dropField', field: 'id', row: 2 } },
      { fault: { kind: 'asNumber', field: 'filled_qty', source: '0.1000000000000000055' } },
    )
    const list = await ask(`${orders()}?limit=3`)
    expect(list.rows.map((row) => [row['status'] === null, row['id'] === undefined])).toEqual([
      [false, false],
      [true, false],
      [false, true],
    ])
    expect(list.text.match(/"filled_qty":0\.1000000000000000055,/g)).toHaveLength(3)
    await control('PUT', '/switches', { listEnvelope: 'object' })
    expect((await ask(`${orders()}?limit=3`)).text).toContain('"filled_qty":0.1000000000000000055,')
    await rules({ fault: { kind: 'asNumber', field: 'qty' } })
    expect((await place({ ...mine, qty: '12345.678900000000000000001', limit_price: '0.5' })).text).toContain(
      '"qty":12345.678900000000000000001,',
    )
    expect(await booked('mine')).toMatchObject({ qty: '12345.678900000000000000001' })
  })

  test('a list can come oldest first, page by page', async () => {
    await rules({ fault: { kind: 'listOrder', order: 'oldestFirst' } })
    const { rows: first } = await ask(`${orders()}?limit=2`)
    const { rows: second } = await ask(`${orders()}?limit=2&offset=2`)
    const times = [...first, ...second].map((row) => Date.parse(String(row['submitted_at'])))
    expect(times).toEqual([...times].sort((a, b) => a - b))
    expect(times[0]).toBeLessThan(Date.UTC(2026, 0, 7))
  })

  test('a fill can overtake a cancel, in part or whole', async () => {
    await rules({ match: { path: '/cancel$', times: 1 }, fault: { kind: 'fillOnCancel', quantity: '3' } })
    const first = await place(resting)
    expect((await cancel(first)).body).toMatchObject({ status: 'canceled', filled_qty: '3', remaining_qty: '7' })
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'fillOnCancel' } })
    const second = await place(resting)
    expect((await cancel(second)).body['code']).toBe('BLUM-409-003')
    expect(await read(second)).toMatchObject({ status: 'filled', filled_qty: '10' })
  })

  test('emptyBody, contentType and invalidJson spoil the answer of work that was done', async () => {
    await rules(
      { match: { nth: 1 }, fault: { kind: 'emptyBody' } },
      { match: { nth: 2 }, fault: { kind: 'emptyBody', status: 204 } },
    )
    const empty = await place({ ...mine, client_order_id: 'a' })
    expect([empty.status, empty.text]).toEqual([201, ''])
    expect((await place({ ...mine, client_order_id: 'b' })).status).toBe(204)
    await rules({ fault: { kind: 'contentType', value: 'text/html' } })
    const html = await place({ ...mine, client_order_id: 'c' })
    expect([html.headers.get('content-type'), html.body['client_order_id']]).toEqual(['text/html', 'c'])
    await rules({ fault: { kind: 'invalidJson' } })
    const invalid = await place({ ...mine, client_order_id: 'd' })
    expect(invalid.status).toBe(201)
    expect(() => JSON.parse(invalid.text)).toThrow()
    for (const id of ['a', 'b', 'c', 'd']) expect(await booked(id)).toBeDefined()
  })

  test('huge pads the true answer to the byte, and does not run ahead of a reader who stops', async () => {
    const path = `/trading/orders/${sandbox.demo.openOrderId}`
    const { body: order } = await ask(path)
    await rules({ match: { path: 'orders/' }, fault: { kind: 'huge', bytes: 50_000_000 } })
    const before = process.memoryUsage().rss
    const stalled = await fetch(sandbox.url + path, { headers: { authorization: credentials(sandbox) } })
    const reader = stalled.body?.getReader()
    await reader?.read()
    for (let looks = 0; looks < 50; looks++) await control('GET', '/clock')
    expect(process.memoryUsage().rss - before).toBeLessThan(30_000_000)
    await reader?.cancel()
    const { status, headers, text, body } = await ask(path)
    expect([status, headers.get('content-length'), text.length]).toEqual([200, null, 50_000_000])
    expect(body).toEqual(order)
    expect(() => JSON.parse(text.slice(0, -1))).toThrow()
    expect(await statusOf('/accounts')).toBe(200)
    await rules({ fault: { kind: 'huge', bytes: 1 } })
    expect((await ask(path)).body).toEqual(order)
  })

  test('gzipBomb is small on the wire and unfolds to the true answer, padded to the byte', async () => {
    const path = `/trading/orders/${sandbox.demo.openOrderId}`
    const { body: order } = await ask(path)
    await rules({ match: { path: 'orders/' }, fault: { kind: 'gzipBomb', bytes: 20_000_000 } })
    const { text: wire } = await raw('GET', path)
    expect(wire).toContain('content-encoding: gzip')
    expect(Number(/content-length: (\d+)/.exec(wire)?.[1])).toBeLessThan(50_000)
    const { text, body } = await ask(path)
    expect([text.length, body]).toEqual([20_000_000, order])
    expect((await ask(`/trading/orders/${sandbox.demo.filledOrderId}`)).body['status']).toBe('filled')
    expect(await statusOf('/accounts')).toBe(200)
  })

  test.each([
    ['twoContentLengths', /\r\ncontent-length: (\d+)\r\ncontent-length: (?!\1\r)\d+\r\n/],
    ['hugeHeader', /^(?=[^]{40960,}\r\n\r\n)HTTP\/1.1 200 OK\r\n/],
    ['badChunk', /\r\n\r\n[0-9a-f]+\r\n\{[^]*\r\nxyz\r\n/],
  ])('badHeaders %s cannot be read, and a client that reuses the connection is served', async (how, bytes) => {
    const path = `/trading/orders/${sandbox.demo.openOrderId}`
    await rules({ match: { path: 'orders/', times: 3 }, fault: { kind: 'badHeaders', how } })
    expect((await raw('GET', path)).text).toMatch(bytes)
    await expect(ask(path)).rejects.toThrow()
    const careless = openSocket()
    careless.get(path)
    await careless.seen(/\r\n\r\n[^]*"id":/)
    careless.get(path)
    await careless.seen(/HTTP\/1.1[^]*\r\n\r\n[^]*HTTP\/1.1 200 OK\r\n[^]*"id":[^]*\}$/)
    const { rows } = await control('GET', '/log')
    expect(rows.slice(-2).map((row) => row['status'])).toEqual([200, 200])
    expect(rows.at(-1)?.['connection']).toBe(rows.at(-2)?.['connection'])
    expect((await ask(path)).body['id']).toBe(sandbox.demo.openOrderId)
  })

  test('extraResponse sends a whole second answer with another order', async () => {
    const { filledOrderId, openOrderId } = sandbox.demo
    await rules({ match: { times: 1 }, fault: { kind: 'extraResponse' } })
    const socket = openSocket()
    socket.get(`/trading/orders/${openOrderId}`)
    const pair = await socket.seen(/HTTP\/1.1 200 [^]*HTTP\/1.1 200 [^]*\}$/)
    const [, first = '', second = ''] = pair.split('HTTP/1.1 200 OK\r\n')
    const lengths = [first, second].map((one) => Number(/content-length: (\d+)/.exec(one)?.[1]))
    expect(lengths).toEqual([first, second].map((one) => one.split('\r\n\r\n')[1]?.length))
    expect(first).toContain(`"id":"${openOrderId}"`)
    expect(second).toMatch(/"id":"ord_/)
    expect(second).not.toContain(openOrderId)
    socket.get(`/trading/orders/${filledOrderId}`)
    await socket.seen(RegExp(`"id":"${filledOrderId}"[^]*\\}$`))
  })

  test('extraResponse with a delay can look like the answer to the next request', async () => {
    const { filledOrderId, openOrderId } = sandbox.demo
    await rules(
      { match: { nth: 1 }, fault: { kind: 'extraResponse', ms: 20 } },
      { match: { nth: 2 }, fault: { kind: 'hang' } },
    )
    const socket = openSocket()
    socket.get(`/trading/orders/${openOrderId}`)
    await socket.seen(/\}$/)
    socket.get(`/trading/orders/${filledOrderId}`)
    const two = await socket.seen(/HTTP\/1.1 200 [^]*HTTP\/1.1 200 [^]*\}$/)
    const ids = [...two.matchAll(/"id":"(ord_\w+)"/g)].map(([, id]) => id)
    expect(ids).toEqual([openOrderId, expect.not.stringMatching(`${openOrderId}|${filledOrderId}`)])
  })

  test('ignoreFilter answers the list that was not filtered, within limit and offset', async () => {
    const { rows: all } = await ask(`${orders()}?limit=7&offset=3`)
    await rules({ fault: { kind: 'ignoreFilter' } })
    const filtered = `${orders()}?limit=7&offset=3&status=filled&symbol=AAPL&side=sell`
    expect((await ask(filtered)).rows).toEqual(all)
    expect(await statusOf(`${orders()}?status=open`)).toBe(400)
    await rules()
    expect((await ask(filtered)).rows).not.toEqual(all)
  })

  test('extraRows answers more than the limit, and some rows twice', async () => {
    const { rows } = await ask(`${orders()}?limit=8`)
    await rules({ fault: { kind: 'extraRows' } })
    const [a, b, c, d, e, f] = rows
    expect((await ask(`${orders()}?limit=4`)).rows).toEqual([a, a, b, b, c, d, e, f])
    await rules({ fault: { kind: 'extraRows', rows: 7 } })
    expect((await ask(`${orders()}?limit=4`)).rows).toHaveLength(11)
    expect((await ask(`${orders()}?limit=100&offset=9999`)).rows).toEqual([])
  })

  test('extraFields puts that many unknown fields on every order', async () => {
    const path = `/trading/orders/${sandbox.demo.openOrderId}`
    const { body } = await ask(path)
    await rules({ fault: { kind: 'extraFields', count: 200 } })
    const single = (await ask(path)).body
    expect(single).toMatchObject(body)
    const { rows } = await ask(`${orders()}?limit=3`)
    for (const row of [single, ...rows]) {
      expect(Object.keys(row).filter((name) => name.startsWith('unknown_field_'))).toHaveLength(200)
    }
  })

  test('listLag and getLag show the past: what came since is missing, what changed since is not', async () => {
    const find = async (query = ''): Promise<unknown> =>
      (await ask(`${orders()}?limit=1${query}`)).rows.find((row) => row['client_order_id'] === 'mine')?.['status']
    const placed = await place(mine)
    const path = `/trading/orders/${String(placed.body['id'])}`
    await rules({ fault: { kind: 'listLag', ms: 1000 } })
    clock += 999
    expect([await find(), await statusOf(path)]).toEqual([undefined, 200])
    await rules({ fault: { kind: 'getLag', ms: 1000 } })
    expect([await find(), await statusOf(path)]).toEqual(['accepted', 404])
    await rules({ fault: { kind: 'listLag', ms: 1000 } }, { fault: { kind: 'getLag', ms: 1000 } })
    clock += 1
    expect([await find(), (await read(placed))['status']]).toEqual(['accepted', 'accepted'])
    await control('POST', `/orders/${String(placed.body['id'])}/fill`)
    clock += 999
    expect([await find(), (await read(placed))['status']]).toEqual(['accepted', 'accepted'])
    expect([await find('&status=accepted'), await find('&status=filled')]).toEqual(['accepted', undefined])
    clock += 1
    expect([await find(), (await read(placed))['status']]).toEqual(['filled', 'filled'])
    expect(await find('&status=filled')).toBe('filled')
    const other = await control('POST', '/orders', {
      account: account(),
      ...mine,
      submitted_at: '2026-01-01T00:00:00Z',
    })
    expect(await statusOf(`/trading/orders/${String(other.body['id'])}`)).toBe(404)
  })

  test('the past of an order beyond its last 16 states is its first state, never a later one', async () => {
    const placed = await place({ ...mine, qty: '30' })
    for (let part = 0; part < 20; part++) {
      clock += 1
      await control('POST', `/orders/${String(placed.body['id'])}/fill`, { quantity: '1' })
    }
    const filled: unknown[] = []
    for (const ms of [0, 1, 15, 16, 19, 20]) {
      await rules({ fault: { kind: 'getLag', ms } })
      filled.push((await read(placed))['filled_qty'])
    }
    expect(filled).toEqual(['20', '19', '5', '0', '0', '0'])
  })

  test('maxRps is the rate limit of matching requests, while the rule is set', async () => {
    await rules({ match: { path: 'orders' }, fault: { kind: 'maxRps', perSecond: 2 } })
    const statuses = [await statusOf(orders()), await statusOf(orders()), await statusOf(orders())]
    expect([...statuses, await statusOf('/accounts')]).toEqual([200, 200, 429, 200])
    const { headers, body } = await ask(orders())
    expect([body['code'], headers.get('retry-after'), headers.get('x-ratelimit-limit')]).toEqual([
      'BLUM-429-001',
      '1',
      '2',
    ])
    expect(headers.get('x-ratelimit-remaining')).toBe('0')
    clock += 1000
    expect([await statusOf(orders()), await statusOf(orders()), await statusOf(orders())]).toEqual([200, 200, 429])
    await rules()
    expect(await statusOf(orders())).toBe(200)
  })

  test.each(['Wed, 21 Oct 2026 07:28:00 GMT', '-1', 'abc', '99999', ''])(
    "retryAfter refuses with this header in the broker's envelope, and nothing is done: %j",
    async (value) => {
      await rules({ match: { times: 1 }, fault: { kind: 'retryAfter', value } })
      const { status, headers, body: refusal } = await place(mine)
      expect([status, headers.get('retry-after'), refusal['code']]).toEqual([429, value, 'BLUM-429-001'])
      expect(await booked('mine')).toBeUndefined()
      expect((await place(mine)).status).toBe(201)
    },
  )

  test('retryAfter comes with another status too', async () => {
    await control('PUT', '/switches', { errorEnvelope: 'nested' })
    await rules({ fault: { kind: 'retryAfter', value: '2', status: 503 } })
    const answered = await ask(orders())
    expect([answered.status, answered.headers.get('retry-after')]).toEqual([503, '2'])
    expect(answered.body).toEqual({ error: { type: 'api_error', code: 'BLUM-503-001', message: 'Slow down.' } })
  })

  test('an asyncCancel is taken in at once and takes effect later, to the millisecond', async () => {
    const before = await wallet()
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'asyncCancel', ms: 3250 } })
    const placed = await place(resting)
    const taken = await cancel(placed)
    expect([taken.status, taken.body]).toEqual([200, placed.body])
    clock += 3000
    expect((await cancel(placed)).body['status']).toBe('accepted')
    clock += 249
    expect((await read(placed))['status']).toBe('accepted')
    clock += 1
    expect(await read(placed)).toMatchObject({ status: 'canceled', canceled_at: '2026-06-01T12:00:03.250Z' })
    expect(await wallet()).toEqual(before)
    expect((await cancel(placed)).body['code']).toBe('BLUM-409-003')
  })

  test('an order may fill before its asyncCancel takes effect, in part or whole', async () => {
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'asyncCancel', ms: 1_800_000 } })
    const part = await place(resting)
    const whole = await place({ ...resting, limit_price: ((await priceOf('AAPL')) - 0.01).toFixed(2) })
    await cancel(part)
    await cancel(whole)
    await control('POST', `/orders/${String(part.body['id'])}/fill`, { quantity: '4' })
    await control('POST', '/advance', { ms: 3_600_000 })
    expect(await read(part)).toMatchObject({
      status: 'canceled',
      filled_qty: '4',
      canceled_at: '2026-06-01T12:30:00Z',
    })
    const filled = await read(whole)
    expect(filled).toMatchObject({ status: 'filled', canceled_at: null })
    expect(Date.parse(String(filled['filled_at']))).toBeLessThan(noon + 1_800_000)
  })

  test('an asyncCancel survives a restart', async () => {
    const stateFile = join(directory, 'cancel.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'asyncCancel', ms: 500 } })
    const placed = await place(resting)
    await cancel(placed)
    await sandbox.close()
    clock += 10_000
    sandbox = await start({ stateFile })
    expect(await read(placed)).toMatchObject({ status: 'canceled', canceled_at: '2026-06-01T12:00:00.500Z' })
  })

  const later = { match: { method: 'POST' }, fault: { kind: 'commitDelay', ms: 3250 } }

  test('a commitDelay answers 201 at once with an order that enters the book later, to the millisecond', async () => {
    await rules(later)
    const placed = await place(mine)
    const submitted_at = '2026-06-01T12:00:03.250Z'
    expect([placed.status, placed.body]).toEqual([
      201,
      expect.objectContaining({ ...mine, status: 'accepted', submitted_at }),
    ])
    const path = `/trading/orders/${String(placed.body['id'])}`
    await control('POST', '/advance', { ms: 3249 })
    const between = await place({ ...mine, client_order_id: 'between' })
    expect([await statusOf(path), (await cancel(placed)).status, await booked('mine')]).toEqual([404, 404, undefined])
    await control('POST', '/advance', { ms: 1 })
    expect([(await ask(path)).body, (await ask(`${orders()}?limit=1`)).rows]).toEqual([placed.body, [placed.body]])
    await control('POST', '/advance', { ms: 3249 })
    expect((await ask(`${orders()}?limit=2`)).rows[0]).toEqual(between.body)
    expect((await cancel(placed)).body['status']).toBe('canceled')
  })

  test.each([
    { kind: 'rstAfterRead' },
    { kind: 'rstAfterCommit' },
    { kind: 'finAfterCommit' },
    { kind: 'status', status: 502, body: '<h1>no</h1>' },
    { kind: 'status', status: 403, when: 'afterCommit' },
    { kind: 'truncate' },
    { kind: 'emptyBody' },
    { kind: 'invalidJson' },
  ])('an order with commitDelay comes once, after any end of its request: %j', async (fault) => {
    await rules({ fault }, later)
    await raw('POST', orders(), body)
    await control('POST', '/advance', { ms: 3249 })
    expect(await booked('mine')).toBeUndefined()
    await control('POST', '/advance', { ms: 1 })
    const { rows } = await control('GET', '/book')
    expect(rows.filter((row) => row['client_order_id'] === 'mine')).toHaveLength(1)
  })

  test.each(['beforeCommit', 'afterCommit'])('an order under commitDelay comes during a hang %s', async (when) => {
    await rules(later, { match: { method: 'POST' }, fault: { kind: 'hang', when } })
    const leave = new AbortController()
    const hanging = ask(orders(), { method: 'POST', body: mine, signal: leave.signal })
    const settled = Promise.allSettled([hanging])
    await logged((entry) => entry['body'] === body)
    await control('POST', '/advance', { ms: 3250 })
    expect(await booked('mine')).toBeDefined()
    leave.abort()
    await settled
  })

  test('a request that was refused or never read gives no order', async () => {
    const ends = [{ kind: 'rstBeforeRead' }, { kind: 'retryAfter', value: '1' }]
    for (const fault of ends) {
      await rules(later, { fault })
      await raw('POST', orders(), body)
    }
    await rules(later)
    expect((await place({ ...mine, qty: '100000' })).body['code']).toBe('BLUM-422-001')
    expect((await place({ ...mine, side: 'hold' })).body['code']).toBe('BLUM-400-004')
    await control('POST', '/advance', { ms: 10_000 })
    expect(await booked('mine')).toBeUndefined()
  })

  test('a commitDelay that matches a cancel too does not carry it past its end', async () => {
    const placed = await place(mine)
    await rules(later, { fault: { kind: 'status', status: 502 } })
    expect((await cancel(placed)).status).toBe(502)
    await rules()
    expect((await read(placed))['status']).toBe('accepted')
  })

  test('an order under commitDelay is held when it is taken in, and trades from its first moment in the book', async () => {
    for (const id of sandbox.accounts) await control('DELETE', `/book?account=${id}`)
    const before = await wallet()
    await rules(later)
    const bought = await place(market)
    const rest = await place({ ...resting, time_in_force: 'ioc' })
    const day = await place({ ...resting, time_in_force: 'day' })
    expect([bought, rest, day].map((placed) => placed.body['status'])).toEqual(['accepted', 'accepted', 'accepted'])
    const held = await wallet()
    expect(held['balance']).toBe(before['balance'])
    expect(cents(held['reserved_balance']) - cents(before['reserved_balance'])).toBeGreaterThan(190_000n)
    await hours(48)
    expect(await read(bought)).toMatchObject({ status: 'filled', filled_at: '2026-06-01T12:00:03.250Z' })
    expect(await read(rest)).toMatchObject({ status: 'canceled', canceled_at: '2026-06-01T12:00:03.250Z' })
    expect(await read(day)).toMatchObject({ status: 'canceled', canceled_at: '2026-06-01T21:00:00Z' })
    expect((await wallet())['reserved_balance']).toBe(before['reserved_balance'])
  })

  test('an order to come is known by its key and its client order id', async () => {
    const key = { 'idempotency-key': 'k1' }
    await rules(later, { fault: { kind: 'dedupe' } })
    const first = await place(mine, key)
    expect((await place(mine, key)).text).toBe(first.text)
    expect((await place(mine)).body['code']).toBe('BLUM-409-001')
    expect((await ask(orders(sandbox.accounts[1]), { method: 'POST', body: mine })).status).toBe(201)
    await control('POST', '/advance', { ms: 10_000 })
    expect(await booked('mine')).toEqual(first.body)
  })

  test('an order to come survives a restart, and goes when the book is emptied', async () => {
    const stateFile = join(directory, 'coming.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    await rules(later)
    const placed = await place(mine)
    const held = await wallet()
    await sandbox.close()
    sandbox = await start({ stateFile })
    expect([await booked('mine'), await wallet()]).toEqual([undefined, held])
    await sandbox.close()
    clock += 10_000
    sandbox = await start({ stateFile })
    expect(await booked('mine')).toEqual(placed.body)
    await rules(later)
    await place(mine)
    await control('DELETE', `/book?account=${account()}`)
    await control('POST', '/advance', { ms: 10_000 })
    expect(await booked('mine')).toBeUndefined()
    await sandbox.close()
    sandbox = await start({ stateFile })
    expect(await booked('mine')).toBeUndefined()
    expect((await wallet())['reserved_balance']).toBe('0.00')
  })

  test('omitClientOrderId leaves it out of lists, of single reads or of both, as the match says', async () => {
    const placed = await place(mine)
    const seen = async (): Promise<unknown[]> => {
      const { rows } = await ask(`${orders()}?limit=1`)
      return [rows[0]?.['client_order_id'], (await read(placed))['client_order_id'], rows[0]?.['id']]
    }
    const { id } = placed.body
    await rules({ match: { path: '/orders\\?' }, fault: { kind: 'omitClientOrderId' } })
    expect(await seen()).toEqual([undefined, 'mine', id])
    await rules({ match: { path: '/orders/' }, fault: { kind: 'omitClientOrderId' } })
    expect(await seen()).toEqual(['mine', undefined, id])
    await rules({ match: { method: 'GET' }, fault: { kind: 'omitClientOrderId' } })
    expect(await seen()).toEqual([undefined, undefined, id])
    expect((await place({ ...mine, client_order_id: 'other' })).body['client_order_id']).toBe('other')
  })

  test('dedupe refuses a client order id of the account, while the rule is set', async () => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'dedupe' } })
    expect((await place(mine)).status).toBe(201)
    const second = await place(mine)
    expect([second.status, second.body['code']]).toEqual([409, 'BLUM-409-001'])
    expect((await ask(orders(sandbox.accounts[1]), { method: 'POST', body: mine })).status).toBe(201)
    await rules()
    expect((await place(mine)).status).toBe(201)
  })

  const twin = { match: { method: 'POST', times: 1 }, fault: { kind: 'twin' } }
  async function recent(): Promise<Json[]> {
    const { rows } = await control('GET', `/book?account=${account()}`)
    return rows.filter((row) => Date.parse(String(row['submitted_at'])) >= noon)
  }

  test('a second order differs from the requested one in its ids only', async () => {
    await rules(twin, { match: { method: 'POST' }, fault: { kind: 'rstAfterCommit' } })
    expect(await raw('POST', orders(), body)).toEqual({ text: '', end: 'reset' })
    const rows = await recent()
    expect(rows.map((row) => row['client_order_id']).sort()).toEqual(['mine', undefined])
    const [one, other] = rows.map((row) => ({ ...row, id: 'any', client_order_id: 'any' }))
    expect(one).toEqual(other)
    await rules(twin)
    await place(market)
    expect((await recent()).map((row) => row['status'])).toEqual(expect.arrayContaining(['filled', 'filled']))
    expect(await recent()).toHaveLength(4)
  })

  test.each([
    [{ kind: 'rstBeforeRead' }, []],
    [{ kind: 'rstAfterRead' }, [undefined]],
    [{ kind: 'status', status: 502 }, [undefined]],
    [{ kind: 'retryAfter', value: '1' }, [undefined]],
    [{ kind: 'status', status: 502, when: 'afterCommit' }, ['mine', undefined]],
    [{ kind: 'truncate' }, ['mine', undefined]],
  ])('a second order comes with any end of a request that was read: %j', async (fault, ids) => {
    await rules({ fault }, twin)
    await raw('POST', orders(), body)
    expect((await recent()).map((row) => row['client_order_id']).sort()).toEqual(ids)
  })

  test('a second order with commitDelay comes before the order, and only for requests that place one', async () => {
    await rules(twin, later)
    const placed = await place(mine)
    const [only, ...others] = await recent()
    expect(only).toMatchObject({ ...resting, submitted_at: '2026-06-01T12:00:00Z' })
    expect(only).not.toHaveProperty('client_order_id')
    expect(others).toEqual([])
    await control('POST', '/advance', { ms: 3250 })
    expect(await recent()).toEqual([placed.body, only])
    await rules({ fault: { kind: 'twin' } })
    expect((await place({ ...mine, side: 'hold' })).status).toBe(400)
    await ask(orders())
    await cancel(placed)
    expect(await recent()).toHaveLength(2)
  })
})

test('the sandbox imports nothing of ours and no package', () => {
  const folder = new URL('../../sandbox/', import.meta.url)
  for (const file of readdirSync(folder)) {
    const text = readFileSync(new URL(file, folder), 'utf8')
    for (const [, from = ''] of text.matchAll(/from '([^']+)'/g)) expect(from).toMatch(/^(node:|\.\/[a-zA-Z]+\.ts$)/)
  }
})
