import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox, SandboxOptions } from '../../sandbox/server.ts'
import { runBlotter } from '../command.ts'

type Json = Record<string, unknown>

const noon = Date.UTC(2026, 5, 1, 12)
const dayMs = 86_400_000
const directory = mkdtempSync(join(tmpdir(), 'sandbox-aries-'))
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
  const rows: unknown = Array.isArray(parsed) ? parsed : (body['orders'] ?? body['accounts'])
  return { status, headers, text, body, rows: Array.isArray(rows) ? rows.filter(isJson) : [] }
}

/** Null for `token`: without one. */
async function ask(
  path: string,
  init: { method?: string; body?: unknown; token?: string | null; of?: Sandbox } = {},
): Promise<Answered> {
  const { of = sandbox, method = 'GET', body, token = of.aries.accessToken } = init
  const headers: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` }
  const sent = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }
  return read(await fetch(of.aries.url + path, { method, headers, ...sent }))
}

async function control(method: string, path: string, body?: unknown): Promise<Answered> {
  const init = body === undefined ? { method } : { method, body: JSON.stringify(body) }
  return read(await fetch(sandbox.controlUrl + path, init))
}

/** A request to Bluum's accounts dialect of the same broker. */
async function askBluum(path: string, init: RequestInit = {}): Promise<Answered> {
  const authorization = `Basic ${btoa(`${sandbox.apiKey}:${sandbox.apiSecret}`)}`
  return read(await fetch(sandbox.url + path, { headers: { authorization }, ...init }))
}

const account = (): string => sandbox.aries.accounts[0] ?? ''
const optionsAccount = (): string => sandbox.aries.accounts[1] ?? ''
const active = (of = account()): string => `/v2/accounts/${of}/orders`
const history = (query = 'from=2026-03-10T00:00:00Z', of = account()): string => `${active(of)}/history?${query}`

/** A limit buy far below the market: it rests. */
const resting = { symbol: 'AAPL', side: 'BUY', type: 'LIMIT', qty: '10', timeInForce: 'GTC', price: '95.00' }
const market = { symbol: 'KO', side: 'BUY', type: 'MARKET', qty: '2', timeInForce: 'DAY' }

function place(fields: Json, of = account()): Promise<Answered> {
  return ask('/v1/orders', { method: 'POST', body: { accountId: of, ...fields } })
}

const idOf = (placed: Answered): string => String(placed.body['clOrdId'])

/** The order as the active list has it. */
async function now(placed: Answered): Promise<Json> {
  return (await ask(`${active()}?limit=500&source=db`)).rows.find((row) => row['clOrdId'] === idOf(placed)) ?? {}
}

function cancel(clOrdId: string, fields: Json = {}): Promise<Answered> {
  const body = {
    origClOrdId: clOrdId,
    accountId: account(),
    symbol: 'AAPL',
    side: 'BUY',
    securityType: 'CS',
    ...fields,
  }
  return ask('/v1/orders/cancel', { method: 'POST', body })
}

const rules = (...list: unknown[]): Promise<Answered> => control('PUT', '/rules', list)
const advance = (ms: number): Promise<Answered> => control('POST', '/advance', { ms })
const setStatus = (id: string, status: string): Promise<Answered> => control('POST', `/orders/${id}/status`, { status })

async function switchTo(switches: Json): Promise<void> {
  expect((await control('PUT', '/switches', switches)).status).toBe(200)
}

/** The status and the error's code; the message is text. */
function errorOf({ status, body }: Answered): unknown[] {
  expect(Object.keys(body)).toEqual(['error', 'message'])
  expect(body['message']).toEqual(expect.stringMatching(/./))
  return [status, body['error']]
}

const idsOf = ({ rows }: Answered): unknown[] => rows.map((row) => row['clOrdId'])

/** Every id of a list, read in pages; `between` runs after each. */
async function readAll(path: string, limit: number, between = async (): Promise<void> => {}): Promise<unknown[]> {
  const ids: unknown[] = []
  let cursor: unknown = 0
  do {
    const page = await ask(`${path}${path.includes('?') ? '&' : '?'}limit=${limit}&cursor=${String(cursor)}`)
    expect(page.status).toBe(200)
    expect(page.rows.length).toBeLessThanOrEqual(limit)
    ids.push(...idsOf(page))
    cursor = page.body['nextCursor']
    expect(Number.isSafeInteger(cursor)).toBe(true)
    await between()
  } while (cursor !== 0)
  return ids
}

async function refresh(fields: Json = {}): Promise<Answered> {
  const { clientId, clientSecret, refreshToken } = sandbox.aries
  const body = {
    grant_type: 'refresh_token',
    client_id: clientId,
    client_secret: clientSecret,
    refresh_token: refreshToken,
    ...fields,
  }
  return ask('/v1/oauth2/token', { method: 'POST', body, token: null })
}

const statusWith = async (token: unknown): Promise<number> =>
  (await ask('/v1/users/me/accounts', { token: String(token) })).status

beforeEach(async () => {
  clock = noon
  sandbox = await start()
})
afterEach(() => sandbox.close())

describe('accounts', () => {
  test('there are two, named in their own way, fixed for a seed, and of no other dialect', async () => {
    expect(sandbox.aries.accounts).toHaveLength(2)
    for (const id of sandbox.aries.accounts) expect(id).toMatch(/^ACC-\d{4}$/)
    const [twin, other] = [await start(), await start({ seed: 'other' })]
    try {
      expect(twin.aries.accounts).toEqual(sandbox.aries.accounts)
      expect(twin.aries.demo).toEqual(sandbox.aries.demo)
      expect(other.aries.accounts).not.toEqual(sandbox.aries.accounts)
    } finally {
      await twin.close()
      await other.close()
    }
    expect((await askBluum('/accounts')).rows.map((row) => row['id'])).toEqual(sandbox.accounts)
    expect((await askBluum(`/accounts/${account()}`)).status).toBe(404)
    expect((await askBluum(`/trading/accounts/${account()}/orders`)).status).toBe(404)
    const investors = (await askBluum('/investors')).body['data']
    expect(investors).toHaveLength(2)
    expect(errorOf(await ask(active(sandbox.accounts[0])))).toEqual([403, 'forbidden'])
  })

  test("no dialect reads or cancels another one's orders", async () => {
    const { rows } = await control('GET', `/book?account=${account()}`)
    const own = rows.find((row) => row['aries_id'] === sandbox.aries.demo.openOrderId)
    expect((await askBluum(`/trading/orders/${String(own?.['id'])}`)).status).toBe(404)
    const foreign = sandbox.demo.openOrderId.replace('ord_', 'ORDER-').toUpperCase()
    expect(errorOf(await cancel(foreign))).toEqual([404, 'not_found'])
  })

  test('each row has every id that the document knows, all different, and came before its first order', async () => {
    const { rows, body } = await ask('/v1/users/me/accounts')
    expect(Object.keys(body)).toEqual(['accounts'])
    expect(rows[0]).toEqual({
      id: expect.any(Number),
      fdid: expect.stringMatching(/^FD/),
      apex_account_id: account(),
      sterling_account_id: expect.stringMatching(/^ST/),
      status: 'OPEN',
      is_sim: true,
      account_type: 'INDIVIDUAL',
      account_class: 'CASH',
      created_at: '2026-01-02T09:00:00Z',
      updated_at: '2026-01-02T09:00:00Z',
    })
    const names = ['id', 'fdid', 'apex_account_id', 'sterling_account_id']
    expect(new Set(rows.flatMap((row) => names.map((name) => row[name]))).size).toBe(8)
    const first = (await ask(history('from=2026-01-01T00:00:00Z&to=2026-04-01T00:00:00Z&order_by=asc&limit=1'))).rows[0]
    expect(Date.parse(String(first?.['createdAt']))).toBeGreaterThan(Date.UTC(2026, 0, 2, 9))
  })

  test.each(['id', 'fdid', 'apex_account_id', 'sterling_account_id'])(
    'tradingId chooses the id of order calls: %s',
    async (tradingId) => {
      await switchTo({ tradingId })
      const { rows } = await ask('/v1/users/me/accounts')
      expect(rows.map((row) => row[tradingId])).toEqual(sandbox.aries.accounts)
      for (const row of rows) expect(Object.values(row).filter((value) => value === row[tradingId])).toHaveLength(1)
    },
  )

  test('the first has a long past and resting orders, the second options on both sides of their end', async () => {
    const book = (await control('GET', `/book?account=${account()}`)).rows
    expect(book).toHaveLength(120)
    for (const { submitted_at: at } of book) expect(at).toMatch(/^2026-0[123]-/)
    const open = (await ask(active())).rows
    expect(new Set(open.map((row) => row['ordStatus']))).toEqual(new Set(['NEW', 'PARTIALLY_FILLED']))
    const past = (await ask(history('from=2026-01-01T00:00:00Z&to=2026-04-01T00:00:00Z&limit=500'))).rows
    expect(new Set(past.map((row) => row['ordStatus']))).toEqual(
      new Set(['NEW', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'EXPIRED']),
    )
    expect(new Set(past.map((row) => row['type']))).toEqual(new Set(['MARKET', 'LIMIT', 'STOP', 'STOP_LIMIT']))
    expect(new Set(past.map((row) => row['timeInForce']))).toEqual(
      new Set(['DAY', 'GTC', 'IOC', 'FOK', 'EXTENDED_HOURS', 'AT_THE_OPENING', 'AT_THE_CLOSE']),
    )
    const find = (id: string): Json | undefined => past.find((row) => row['clOrdId'] === id)
    expect(find(sandbox.aries.demo.filledOrderId)).toMatchObject({ ordStatus: 'FILLED', leavesQty: '0' })
    expect(find(sandbox.aries.demo.openOrderId)).toMatchObject({ ordStatus: 'NEW', type: 'LIMIT' })

    const second = (await ask(history('from=2026-01-01T00:00:00Z&to=2026-04-01T00:00:00Z&limit=500', optionsAccount())))
      .rows
    const options = second.filter((row) => row['securityType'] === 'OPT')
    expect(second.length).toBeGreaterThan(options.length)
    expect(options.map((row) => [row['category'], row['ordStatus']])).toEqual([
      ['MULTI_LEG', 'NEW'],
      ['SINGLE_LEG', 'NEW'],
      ['SINGLE_LEG', 'PARTIALLY_FILLED'],
      ['SINGLE_LEG', 'NEW'],
      ['SINGLE_LEG', 'CANCELED'],
      ['SINGLE_LEG', 'FILLED'],
    ])
    const leg = { securityType: 'OPT', ratioQty: '1', putCall: 'CALL', maturity: '2026-09-18', positionEffect: 'OPEN' }
    expect(options[0]?.['legs']).toEqual([
      { ...leg, side: 'BUY', strikePrice: '60' },
      { ...leg, side: 'SELL', strikePrice: '62.5' },
    ])
    expect(options[4]).toMatchObject({ symbol: 'KO', legs: [{ putCall: 'PUT', strikePrice: '55' }] })
  })
})

describe('credentials and paths', () => {
  test('a token is needed everywhere but where tokens are given', async () => {
    for (const path of [
      '/v1/users/me/accounts',
      '/v1/orders',
      '/v1/orders/cancel',
      active(),
      history(),
      '/v2/nothing',
    ]) {
      const method = path.startsWith('/v1/orders') ? 'POST' : 'GET'
      expect(errorOf(await ask(path, { method, token: null }))).toEqual([401, 'unauthorized'])
      expect(errorOf(await ask(path, { method, token: 'wrong' }))).toEqual([401, 'unauthorized'])
    }
    const basic = { authorization: `Basic ${btoa(`${sandbox.apiKey}:${sandbox.apiSecret}`)}` }
    expect((await fetch(`${sandbox.aries.url}/v1/users/me/accounts`, { headers: basic })).status).toBe(401)
    const lower = { authorization: `bearer ${sandbox.aries.accessToken}` }
    expect((await fetch(`${sandbox.aries.url}/v1/users/me/accounts`, { headers: lower })).status).toBe(200)
  })

  test.each([
    ['POST', '/v1/orders/replace'],
    ['POST', '/v1/orders/preview'],
    ['GET', '/v1/orders'],
    ['GET', '/v1/accounts/ID/orders'],
    ['GET', '/v1/accounts/ID/positions'],
    ['GET', '/v1/accounts/ID/balances'],
    ['GET', '/v1/marketdata/search?query=KO'],
    ['POST', '/v2/accounts/ID/orders'],
    ['GET', '/v2/accounts/ID'],
    ['GET', '/v1/oauth2/authorize'],
  ])('a missing path is 404 in the shape of all errors: %s %s', async (method, path) => {
    expect(errorOf(await ask(path.replace('ID', account()), { method }))).toEqual([404, 'not_found'])
  })

  test('an account that is not there is refused as one that is not yours', async () => {
    for (const path of [active('ACC-0000'), history(undefined, 'ACC-0000')]) {
      expect(errorOf(await ask(path))).toEqual([403, 'forbidden'])
    }
    expect(errorOf(await place(resting, 'ACC-0000'))).toEqual([403, 'forbidden'])
    expect(errorOf(await cancel(sandbox.aries.demo.openOrderId, { accountId: 'ACC-0000' }))).toEqual([403, 'forbidden'])
  })

  test('a body that is too large is refused', async () => {
    expect(errorOf(await place({ ...resting, text: 'x'.repeat(70_000) }))).toEqual([400, 'bad_request'])
  })

  test("the rate limit is of this credential alone, and does not count Bluum's requests", async () => {
    await sandbox.close()
    sandbox = await start({ requestsPerSecond: 2 })
    for (let i = 0; i < 2; i++) expect((await askBluum('/accounts')).status).toBe(200)
    for (let i = 0; i < 2; i++) expect((await ask('/v1/users/me/accounts')).status).toBe(200)
    const third = await ask('/v1/users/me/accounts')
    expect(errorOf(third)).toEqual([429, 'rate_limited'])
    expect(third.headers.get('retry-after')).toBe('1')
    clock += 1000
    expect((await ask('/v1/users/me/accounts')).status).toBe(200)
  })
})

describe('tokens', () => {
  test('a refresh gives one that is valid as long as it says, in addition to earlier ones', async () => {
    const first = await refresh()
    expect([first.status, first.body]).toEqual([
      200,
      {
        access_token: expect.stringMatching(/^access_[0-9a-f]{32}$/),
        refresh_token: sandbox.aries.refreshToken,
        token_type: 'Bearer',
        expires_in: 3600,
        refresh_token_expires_in: 2_592_000,
        scope: expect.stringContaining('order:execution'),
      },
    ])
    await advance(1_800_000)
    const second = await refresh()
    expect(second.body['access_token']).not.toBe(first.body['access_token'])
    await advance(1_799_999)
    expect(await statusWith(first.body['access_token'])).toBe(200)
    await advance(1)
    expect(await statusWith(first.body['access_token'])).toBe(401)
    expect(await statusWith(second.body['access_token'])).toBe(200)
    expect(await statusWith(sandbox.aries.accessToken)).toBe(200)
  })

  test.each([
    [401, 'unauthorized', { client_id: 'somebody' }],
    [401, 'unauthorized', { client_secret: 'wrong' }],
    [401, 'unauthorized', { refresh_token: 'wrong' }],
    [400, 'bad_request', { client_id: null }],
    [400, 'bad_request', { client_secret: null }],
    [400, 'bad_request', { refresh_token: null }],
    [400, 'bad_request', { grant_type: null }],
    [400, 'bad_request', { grant_type: 'authorization_code', code: 'code_1' }],
    [400, 'bad_request', { grant_type: 'client_credentials' }],
  ])('anything wrong is %i %s: %j', async (status, error, fields) => {
    expect(errorOf(await refresh(fields))).toEqual([status, error])
  })

  test('a form is no JSON', async () => {
    const body = 'grant_type=refresh_token&client_id=sandbox-client'
    expect(errorOf(await ask('/v1/oauth2/token', { method: 'POST', body, token: null }))).toEqual([400, 'bad_request'])
  })

  test('the control port ends all of them at once, and brings the fixed one back', async () => {
    const { access_token: issued } = (await refresh()).body
    expect((await control('POST', '/tokens/expire')).status).toBe(200)
    expect([await statusWith(issued), await statusWith(sandbox.aries.accessToken)]).toEqual([401, 401])
    expect(await statusWith((await refresh()).body['access_token'])).toBe(200)
    expect((await control('POST', '/tokens/restore')).status).toBe(200)
    expect([await statusWith(issued), await statusWith(sandbox.aries.accessToken)]).toEqual([401, 200])
    expect((await control('POST', '/tokens/forge')).status).toBe(404)
  })

  test('a restart forgets them, and knows the fixed ones', async () => {
    const stateFile = join(directory, 'tokens.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    const { access_token: issued } = (await refresh()).body
    await control('POST', '/tokens/expire')
    await sandbox.close()
    sandbox = await start({ stateFile })
    expect([await statusWith(issued), await statusWith(sandbox.aries.accessToken)]).toEqual([401, 200])
    expect((await refresh()).status).toBe(200)
  })

  test('ariesRefreshTokens rotated: each refresh gives another refresh token and ends the one used', async () => {
    await switchTo({ ariesRefreshTokens: 'rotated' })
    const { refresh_token: second } = (await refresh()).body
    expect(second).toMatch(/^refresh_[0-9a-f]{32}$/)
    expect(errorOf(await refresh())).toEqual([401, 'unauthorized'])
    const { refresh_token: third } = (await refresh({ refresh_token: second })).body
    await advance(30 * dayMs)
    expect(errorOf(await refresh({ refresh_token: third }))).toEqual([401, 'unauthorized'])
    await control('POST', '/tokens/restore')
    expect((await refresh()).status).toBe(200)
  })

  test('ariesTokenSeconds: a token lives for a minute', async () => {
    await switchTo({ ariesTokenSeconds: 60 })
    const { body } = await refresh()
    expect(body['expires_in']).toBe(60)
    await advance(60_000)
    expect(await statusWith(body['access_token'])).toBe(401)
  })

  test('the log shows token requests without their secrets', async () => {
    const { body } = await refresh()
    const form = `client_secret=${sandbox.aries.clientSecret}`
    await ask('/v1/oauth2/token/', { method: 'POST', body: form, token: null })
    await ask('/v1/OAuth2/Token', { method: 'POST', body: form, token: null })
    await statusWith(body['access_token'])
    const { rows, text } = await control('GET', '/log')
    expect(rows[0]).toMatchObject({ method: 'POST', path: '/v1/oauth2/token', status: 200, body: '' })
    expect(rows[3]).toMatchObject({ authorization: expect.stringMatching(/^[0-9a-f]{64}$/) })
    const { clientSecret, refreshToken } = sandbox.aries
    for (const secret of [clientSecret, refreshToken, String(body['access_token'])]) expect(text).not.toContain(secret)
  })
})

describe('placing', () => {
  test('the answer acknowledges receipt, and the active list has the order as it was sent', async () => {
    const placed = await place({ ...resting, clientId: 'mine', currency: 'USD', exDestination: 'ARCA', legs: [] })
    expect([placed.status, placed.body]).toEqual([
      200,
      {
        success: true,
        clOrdId: expect.stringMatching(/^ORDER-[0-9A-Z]{16}$/),
        status: 'NEW',
        symbol: 'AAPL',
        side: 'BUY',
        qty: '10',
        cumQty: '0',
        leavesQty: '10',
        avgPrice: '0',
        text: 'Taken in',
        ordRejReason: '',
        transactTime: '2026-06-01T12:00:00Z',
      },
    ])
    expect(await now(placed)).toEqual({
      clOrdId: idOf(placed),
      ordId: expect.stringMatching(/^ord-[0-9a-z]{12}$/),
      accountId: account(),
      clientId: 'mine',
      symbol: 'AAPL',
      side: 'BUY',
      type: 'LIMIT',
      timeInForce: 'GTC',
      qty: '10',
      price: '95.00',
      stopPrice: '',
      ordStatus: 'NEW',
      cumQty: '0',
      leavesQty: '10',
      avgPrice: '0',
      currency: 'USD',
      exDestination: 'MNGD',
      text: '',
      ordRejReason: '',
      securityType: 'CS',
      category: 'SINGLE_LEG',
      legs: [],
      createdAt: '2026-06-01T12:00:00Z',
      updatedAt: '2026-06-01T12:00:00Z',
    })
  })

  test('an order that fills at once is acknowledged as new, and found filled', async () => {
    const placed = await place(market)
    expect(placed.body).toMatchObject({ success: true, status: 'NEW', cumQty: '0', leavesQty: '2', avgPrice: '0' })
    expect(await now(placed)).toMatchObject({
      ordStatus: 'FILLED',
      qty: '2',
      cumQty: '2',
      leavesQty: '0',
      avgPrice: expect.stringMatching(/^\d+\.\d\d$/),
      price: '',
      clientId: '',
    })
  })

  test.each([
    [{ type: 'LIMIT', price: '0.123456789012345678901234567891', qty: '0.000000001' }],
    [{ type: 'STOP', side: 'SELL', stopPrice: '50.00', qty: '1.50' }],
    [{ type: 'STOP_LIMIT', side: 'SELL', stopPrice: '50.00', price: '49.50', qty: '1' }],
  ])('the digits of every type are kept: %j', async (fields) => {
    const sent = { symbol: 'AAPL', side: 'BUY', timeInForce: 'GTC', ...fields }
    expect(await now(await place(sent))).toMatchObject({ ...sent, ordStatus: 'NEW', leavesQty: fields.qty })
  })

  test.each(['DAY', 'GTC', 'EXTENDED_HOURS', 'AT_THE_OPENING', 'AT_THE_CLOSE'])(
    'every time in force comes back as it was sent: %s',
    async (timeInForce) => {
      expect((await now(await place({ ...resting, timeInForce })))['timeInForce']).toBe(timeInForce)
    },
  )

  test('an order ended by its day has expired, one that finds nothing at once was canceled', async () => {
    const day = await place({ ...resting, timeInForce: 'EXTENDED_HOURS' })
    const close = await place({ ...resting, timeInForce: 'AT_THE_CLOSE' })
    const [ioc, fok] = [
      await place({ ...resting, timeInForce: 'IOC' }),
      await place({ ...resting, timeInForce: 'FOK' }),
    ]
    await advance(9 * 3_600_000)
    const expired = { ordStatus: 'EXPIRED', leavesQty: '0', updatedAt: '2026-06-01T21:00:00Z' }
    for (const placed of [day, close]) expect(await now(placed)).toMatchObject(expired)
    for (const placed of [ioc, fok]) expect((await now(placed))['ordStatus']).toBe('CANCELED')
    // Bluum's words, which know no such status, say what they always said.
    const { rows } = await control('GET', `/book?account=${account()}`)
    expect(rows.find((row) => row['aries_id'] === idOf(day))).toMatchObject({ status: 'canceled' })
  })

  test.each([
    ['not JSON', '{"symbol":'],
    ['not an object', '[]'],
    ['no account', { accountId: null }],
    ['two accounts', { tradingAccountId: 'ACC-1' }],
    ['no symbol', { symbol: '' }],
    ['a long symbol', { symbol: 'A'.repeat(22) }],
    ['no side', { side: null }],
    ['an unknown side', { side: 'buy' }],
    ['no type', { type: null }],
    ['a type of another broker', { type: 'TRAILING_STOP' }],
    ['no time in force', { timeInForce: null }],
    ['an unknown time in force', { timeInForce: 'GTD' }],
    ['no quantity', { qty: null }],
    ['a number as quantity', { qty: 10 }],
    ['an exponent', { qty: '1e3' }],
    ['a quantity of nothing', { qty: '0.00' }],
    ['a negative price', { price: '-1' }],
    ['no price', { price: '' }],
    ['no stop price', { type: 'STOP' }],
    ['a long client id', { clientId: 'x'.repeat(51) }],
    ['a number as client id', { clientId: 7 }],
    ['another currency', { currency: 'EUR' }],
    ['legs that are no list', { legs: {} }],
    ['an option', { legs: [{ securityType: 'OPT' }] }],
    ['the symbol of an option', { symbol: 'AAPL  260918C00200000' }],
  ])('a request that is no order is 400: %s', async (_, fields) => {
    const body = typeof fields === 'string' ? fields : { accountId: account(), ...resting, ...fields }
    expect(errorOf(await ask('/v1/orders', { method: 'POST', body }))).toEqual([400, 'bad_request'])
    expect((await control('GET', `/book?account=${account()}`)).rows).toHaveLength(120)
  })

  test('a client id may be used again, and has at most 50 characters', async () => {
    const clientId = 'x'.repeat(50)
    const placed = [await place({ ...resting, clientId }), await place({ ...resting, clientId })]
    for (const one of placed) expect((await now(one))['clientId']).toBe(clientId)
  })

  const refusals = [
    ['INSUFFICIENT_BUYING_POWER', { ...market, qty: '100000' }],
    ['INSUFFICIENT_SHARES', { ...market, side: 'SELL', qty: '100000' }],
    ['UNKNOWN_SYMBOL', { ...market, symbol: 'NOPE' }],
    ['UNKNOWN_SYMBOL', { ...resting, symbol: 'NOPE' }],
    ['NOT_TRADABLE', { ...market, symbol: 'TWTR' }],
    ['NOT_TRADABLE', { ...market, symbol: 'BRK.B', qty: '0.5' }],
    ['SHORT_SALE_NOT_ALLOWED', { ...market, side: 'SELL_SHORT' }],
    ['SHORT_SALE_NOT_ALLOWED', { ...market, side: 'BUY_TO_COVER' }],
  ] as const

  test.each(refusals)('a refusal is a rejected order of today, and no past one: %s %j', async (reason, fields) => {
    const placed = await place({ ...fields, clientId: 'mine' })
    expect([placed.status, placed.body]).toMatchObject([
      200,
      {
        success: false,
        clOrdId: expect.stringMatching(/^ORDER-/),
        status: 'REJECTED',
        side: fields.side,
        qty: fields.qty,
        cumQty: '0',
        leavesQty: '0',
        avgPrice: '0',
        text: expect.stringMatching(/./),
        ordRejReason: reason,
      },
    ])
    expect(await now(placed)).toMatchObject({
      ordStatus: 'REJECTED',
      clientId: 'mine',
      side: fields.side,
      ordRejReason: reason,
      text: placed.body['text'],
      leavesQty: '0',
    })
    await advance(60_000)
    expect(idsOf(await ask(history()))).not.toContain(idOf(placed))
    await advance(dayMs)
    expect(await now(placed)).toEqual({})
  })

  test.each([
    ['PENDING', 'PENDING', 'ACCOUNT_NOT_APPROVED'],
    ['SUBMITTED', 'PENDING', 'ACCOUNT_NOT_APPROVED'],
    ['SUSPENDED', 'RESTRICTED', 'ACCOUNT_RESTRICTED'],
    ['INACTIVE', 'CLOSED', 'ACCOUNT_RESTRICTED'],
  ])('an account that is %s is shown as %s and its orders are rejected', async (status, shown, reason) => {
    await control('PUT', `/accounts/${account()}`, { status })
    expect((await ask('/v1/users/me/accounts')).rows[0]?.['status']).toBe(shown)
    const placed = await place(resting)
    expect(placed.body).toMatchObject({ success: false, status: 'REJECTED', ordRejReason: reason })
    expect((await now(placed))['ordStatus']).toBe('REJECTED')
  })

  test.each(refusals)('ariesRefusals badRequest: 400, and no order of it anywhere: %s %j', async (_, fields) => {
    await switchTo({ ariesRefusals: 'badRequest' })
    expect(errorOf(await place(fields))).toEqual([400, 'bad_request'])
    expect((await control('GET', `/book?account=${account()}`)).rows).toHaveLength(120)
  })

  test.each(['closed-refuses', 'closed-rejects'])('market %s: rejected, as the market is closed', async (mode) => {
    await switchTo({ market: mode })
    const placed = await place(market)
    expect(placed.body).toMatchObject({ success: false, status: 'REJECTED', ordRejReason: 'MARKET_CLOSED' })
    await switchTo({ ariesRefusals: 'badRequest' })
    expect(errorOf(await place(market))).toEqual([400, 'bad_request'])
  })

  test('market closed-waits: it rests until the market opens', async () => {
    await switchTo({ market: 'closed-waits' })
    const placed = await place({ ...market, timeInForce: 'GTC' })
    expect((await now(placed))['ordStatus']).toBe('NEW')
    await switchTo({ market: 'open' })
    await advance(1000)
    expect((await now(placed))['ordStatus']).toBe('FILLED')
  })

  test('an order that the control port rejects has a reason too', async () => {
    const placed = await place(resting)
    await setStatus(idOf(placed), 'rejected')
    expect(await now(placed)).toMatchObject({ ordStatus: 'REJECTED', ordRejReason: 'OTHER', text: expect.any(String) })
  })
})

describe('the active list', () => {
  test('has what is open and what ended today, newest first', async () => {
    const before = idsOf(await ask(active()))
    const [rests, fills] = [await place(resting), await place(market)]
    const ids = idsOf(await ask(active()))
    expect(ids.slice(2)).toEqual(before)
    expect(ids.slice(0, 2).sort()).toEqual([idOf(rests), idOf(fills)].sort())
    // Noon is twelve hours from the end of the day.
    await advance(dayMs / 2 - 1)
    expect(idsOf(await ask(active()))).toContain(idOf(fills))
    await advance(1)
    const tomorrow = idsOf(await ask(active()))
    expect([tomorrow.includes(idOf(fills)), tomorrow.includes(idOf(rests))]).toEqual([false, true])
    // An order of the past that ends today is among them.
    const { openOrderId } = sandbox.aries.demo
    await setStatus(openOrderId, 'filled')
    expect(idsOf(await ask(active()))).toContain(openOrderId)
  })

  test('comes in pages, and what comes between two of them neither repeats nor hides a row', async () => {
    const all = idsOf(await ask(`${active()}?limit=500`))
    expect(all).toHaveLength(10)
    for (const limit of [1, 3, 10]) expect(await readAll(active(), limit)).toEqual(all)
    const seen = await readAll(active(), 3, async () => void (await place(resting)))
    expect(seen).toEqual(all)
    expect((await ask(active())).body['nextCursor']).toBe(0)
  })

  test('a page goes on behind an order that has left the list', async () => {
    const first = await ask(`${active()}?limit=3`)
    const all = idsOf(await ask(active()))
    await setStatus(String(first.rows[2]?.['clOrdId']), 'filled')
    await advance(dayMs)
    const next = await ask(`${active()}?limit=3&cursor=${String(first.body['nextCursor'])}`)
    expect(idsOf(next)).toEqual(all.slice(3, 6))
  })

  test('a cursor outlives a restart', async () => {
    const stateFile = join(directory, 'cursor.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    const all = idsOf(await ask(active()))
    const { body } = await ask(`${active()}?limit=4`)
    await sandbox.close()
    sandbox = await start({ stateFile })
    expect(idsOf(await ask(`${active()}?cursor=${String(body['nextCursor'])}`))).toEqual(all.slice(4))
  })

  test('a cursor of another source, list, order or account is refused', async () => {
    const cursor = async (path: string): Promise<string> => String((await ask(path)).body['nextCursor'])
    const cache = await cursor(`${active()}?limit=1`)
    expect((await ask(`${active()}?source=cache&cursor=${cache}`)).status).toBe(200)
    const past = 'from=2026-03-10T00:00:00Z&limit=1'
    for (const path of [
      `${active()}?source=db&cursor=${cache}`,
      `${active(optionsAccount())}?cursor=${cache}`,
      history(`${past}&cursor=${cache}`),
      `${active()}?cursor=${await cursor(history(past))}`,
      history(`${past}&order_by=asc&cursor=${await cursor(history(past))}`),
      `${active()}?cursor=1`,
    ]) {
      expect(errorOf(await ask(path))).toEqual([400, 'bad_request'])
    }
  })

  test.each(['limit=0', 'limit=501', 'limit=x', 'limit=-1', 'cursor=-1', 'cursor=abc', 'cursor=1.5', 'source=both'])(
    'a wrong parameter is 400: %s',
    async (query) => {
      expect(errorOf(await ask(`${active()}?${query}`))).toEqual([400, 'bad_request'])
      if (!query.startsWith('source')) {
        expect(errorOf(await ask(history(`from=2026-03-10T00:00:00Z&${query}`)))).toEqual([400, 'bad_request'])
      }
    },
  )
})

describe('history', () => {
  const quarter = 'from=2026-01-01T00:00:00Z&to=2026-03-31T23:59:59Z'

  test('has the orders of its window by creation, newest first, and no rejected one', async () => {
    const book = (await control('GET', `/book?account=${account()}`)).rows
    const expected = book.filter((row) => row['status'] !== 'rejected').map((row) => row['aries_id'])
    expect(idsOf(await ask(history(`${quarter}&limit=500`)))).toEqual(expected)
    expect(idsOf(await ask(history(`${quarter}&limit=500&order_by=asc`)))).toEqual(expected.toReversed())
    for (const order of ['desc', 'asc']) {
      const seen = await readAll(history(`${quarter}&order_by=${order}`), 17, async () => void (await place(resting)))
      expect(seen).toEqual(order === 'asc' ? expected.toReversed() : expected)
    }
    expect((await ask(history(quarter))).rows).toHaveLength(50)
  })

  test('both ends of the window belong to it, and any zone will do', async () => {
    const placed = await place(resting)
    const at = '2026-06-01T12:00:00'
    const has = async (query: string): Promise<boolean> => idsOf(await ask(history(query))).includes(idOf(placed))
    expect(await has(`from=${at}Z&to=${at}Z`)).toBe(true)
    expect(await has(`from=${at}.001Z&to=2026-06-01T13:00:00Z`)).toBe(false)
    expect(await has(`from=2026-06-01T00:00:00Z&to=2026-06-01T11:59:59.999Z`)).toBe(false)
    const zone = encodeURIComponent('+02:00')
    expect(await has(`from=2026-06-01T14:00:00${zone}&to=2026-06-01T14:00:00${zone}`)).toBe(true)
    expect(await has(`from=2026-06-01t07:00:00-05:00&to=2026-06-01t12:00:00.999999999z`)).toBe(true)
  })

  test('without an end it ends with the last full minute', async () => {
    clock += 59_000
    const placed = await place(resting)
    const has = async (): Promise<boolean> => idsOf(await ask(history())).includes(idOf(placed))
    expect(await has()).toBe(false)
    await advance(999)
    expect(await has()).toBe(false)
    await advance(1)
    expect(await has()).toBe(true)
    expect((await ask(history('from=2026-06-01T12:01:30Z'))).rows).toEqual([])
  })

  test('today can be left out', async () => {
    const placed = await place(resting)
    const to = 'to=2026-06-02T00:00:00Z'
    const has = async (query: string): Promise<boolean> =>
      idsOf(await ask(history(`from=2026-05-20T00:00:00Z&${to}&${query}`))).includes(idOf(placed))
    expect([await has('exclude_today=false'), await has('exclude_today=true')]).toEqual([true, false])
    await advance(dayMs)
    expect(await has('exclude_today=true')).toBe(true)
  })

  test.each([
    ['no start', 'to=2026-03-01T00:00:00Z'],
    ['no zone', 'from=2026-03-01T00:00:00'],
    ['a date', 'from=2026-03-01'],
    ['no such day', 'from=2026-02-30T00:00:00Z'],
    ['no such hour', 'from=2026-02-20T25:00:00Z'],
    ['a number', 'from=1772323200'],
    ['a plus that became a space', 'from=2026-05-01T00:00:00+02:00'],
    ['an end without a zone', 'from=2026-05-01T00:00:00Z&to=2026-05-02T00:00:00'],
    ['an end before the start', 'from=2026-05-01T00:00:00Z&to=2026-04-30T23:59:59Z'],
    ['more than 90 days', 'from=2026-01-01T00:00:00Z&to=2026-04-01T00:00:00.001Z'],
    ['more than 90 days until now', 'from=2026-03-01T00:00:00Z'],
    ['an unknown order', 'from=2026-05-01T00:00:00Z&order_by=newest'],
    ['a wrong truth', 'from=2026-05-01T00:00:00Z&exclude_today=1'],
  ])('a wrong window is 400: %s', async (_, query) => {
    expect(errorOf(await ask(history(query)))).toEqual([400, 'bad_request'])
  })

  test('90 days to the millisecond are allowed', async () => {
    expect((await ask(history('from=2026-01-01T00:00:00Z&to=2026-04-01T00:00:00Z'))).status).toBe(200)
  })
})

describe('canceling', () => {
  test('a cancel has an id of its own, takes effect, and keeps what had filled', async () => {
    const placed = await place(resting)
    await control('POST', `/orders/${idOf(placed)}/fill`, { quantity: '4' })
    const canceled = await cancel(idOf(placed))
    expect([canceled.status, canceled.body]).toEqual([
      200,
      {
        success: true,
        clOrdId: expect.stringMatching(/^ORDER-[0-9A-Z]{16}$/),
        origClOrdId: idOf(placed),
        status: 'CANCELED',
        text: 'Cancel processed',
      },
    ])
    expect(idOf(canceled)).not.toBe(idOf(placed))
    expect(await now(placed)).toMatchObject({ ordStatus: 'CANCELED', cumQty: '4', leavesQty: '0' })
  })

  test.each([
    ['symbol', { symbol: 'KO' }],
    ['side', { side: 'SELL' }],
    ['side', { side: 'BUY_TO_COVER' }],
    ['securityType', { securityType: 'OPT', putCall: 'CALL', strikePrice: '150', maturity: '2026-09-18' }],
  ])('another %s than that of the order is refused, and the order stays: %j', async (name, fields) => {
    const placed = await place(resting)
    const refused = await cancel(idOf(placed), fields)
    expect([refused.status, refused.body]).toMatchObject([
      200,
      { success: false, origClOrdId: idOf(placed), status: 'NEW', text: `${name} is not that of the order` },
    ])
    expect((await now(placed))['ordStatus']).toBe('NEW')
    await switchTo({ ariesRefusals: 'badRequest' })
    expect(errorOf(await cancel(idOf(placed), fields))).toEqual([400, 'bad_request'])
    expect((await cancel(idOf(placed), { securityType: null })).body['success']).toBe(true)
  })

  test("an unknown order and another account's answer alike", async () => {
    const placed = await place(resting)
    const answers = [
      await cancel('ORDER-0000'),
      await cancel('anything'),
      await cancel(idOf(placed).toLowerCase()),
      await cancel(idOf(placed), { accountId: optionsAccount() }),
    ]
    for (const answer of answers) expect(errorOf(answer)).toEqual([404, 'not_found'])
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
    expect((await now(placed))['ordStatus']).toBe('NEW')
  })

  test.each([
    ['no order', { origClOrdId: null }],
    ['no account', { accountId: null }],
    ['no symbol', { symbol: null }],
    ['no side', { side: null }],
    ['an unknown side', { side: 'HOLD' }],
    ['an unknown kind of security', { securityType: 'FUT' }],
    ['an unknown right', { putCall: 'BOTH' }],
    ['a strike that is no decimal', { strikePrice: '1,5' }],
    ['a maturity that is no date', { maturity: '260918' }],
  ])('a request that is no cancel is 400: %s', async (_, fields) => {
    expect(errorOf(await cancel(sandbox.aries.demo.openOrderId, fields))).toEqual([400, 'bad_request'])
  })

  test.each([
    ['filled', 'FILLED'],
    ['canceled', 'CANCELED'],
    ['rejected', 'REJECTED'],
  ])('a cancel of an order that is %s is refused with its status', async (status, shown) => {
    const placed = await place(resting)
    await setStatus(idOf(placed), status)
    const refused = await cancel(idOf(placed))
    expect([refused.status, refused.body]).toMatchObject([
      200,
      { success: false, origClOrdId: idOf(placed), status: shown, text: `Order is already ${status}` },
    ])
    await switchTo({ ariesCancelOfFinal: 'notFound' })
    expect(errorOf(await cancel(idOf(placed)))).toEqual([404, 'not_found'])
    await switchTo({ ariesCancelOfFinal: 'refused', ariesRefusals: 'badRequest' })
    expect(errorOf(await cancel(idOf(placed)))).toEqual([400, 'bad_request'])
  })

  test('ariesSideOnCancel optional: a side need not be said, and is checked if it is', async () => {
    await switchTo({ ariesSideOnCancel: 'optional' })
    const placed = await place(resting)
    expect((await cancel(idOf(placed), { side: 'SELL' })).body['success']).toBe(false)
    expect((await cancel(idOf(placed), { side: null })).body['success']).toBe(true)
  })

  test('ariesCancelIds original: the answer repeats the id of the order', async () => {
    await switchTo({ ariesCancelIds: 'original' })
    const placed = await place(resting)
    expect((await cancel(idOf(placed))).body).toMatchObject({ clOrdId: idOf(placed), origClOrdId: idOf(placed) })
  })

  test('ariesCancels pending: the outcome is open for a second, in which the order can still fill', async () => {
    await switchTo({ ariesCancels: 'pending' })
    const [first, second] = [await place(resting), await place(resting)]
    for (const placed of [first, second, second]) {
      const { body } = await cancel(idOf(placed))
      expect(body).toMatchObject({ success: true, status: 'PENDING_CANCEL', text: 'Cancel sent to the market' })
    }
    expect(await now(first)).toMatchObject({ ordStatus: 'PENDING_CANCEL', leavesQty: '10' })
    await control('POST', `/orders/${idOf(first)}/fill`, {})
    await advance(999)
    expect([(await now(first))['ordStatus'], (await now(second))['ordStatus']]).toEqual(['FILLED', 'PENDING_CANCEL'])
    await advance(1)
    expect([(await now(first))['ordStatus'], (await now(second))['ordStatus']]).toEqual(['FILLED', 'CANCELED'])
  })
})

describe('orders for options', () => {
  const single = { symbol: 'AAPL', side: 'BUY', securityType: 'OPT' }
  const call = { ...single, putCall: 'CALL', strikePrice: '200', maturity: '2026-09-18' }

  /** The id of the open order for a call, a put or a spread. */
  async function find(right: string, legs = 1): Promise<string> {
    const { rows } = await ask(active(optionsAccount()))
    const found = rows.find(({ legs: all, symbol }) => {
      const list: unknown[] = Array.isArray(all) ? all : []
      const [first] = list
      return list.length === legs && isJson(first) && first['putCall'] === right && (legs > 1 || symbol === 'AAPL')
    })
    return String(found?.['clOrdId'])
  }

  test.each([
    ['putCall', { putCall: 'PUT' }],
    ['putCall', { putCall: null }],
    ['strikePrice', { strikePrice: '200.5' }],
    ['strikePrice', { strikePrice: null }],
    ['maturity', { maturity: '2026-09-19' }],
    ['maturity', { maturity: null }],
    ['securityType', { securityType: 'CS' }],
    ['securityType', { securityType: null }],
  ])('a cancel that names another option is refused for its %s: %j', async (name, fields) => {
    const id = await find('CALL')
    const { body } = await cancel(id, { accountId: optionsAccount(), ...call, ...fields })
    expect(body).toMatchObject({ success: false, status: 'NEW', text: `${name} is not that of the order` })
  })

  test.each([
    ['CALL', '200.00'],
    ['C', '0200'],
  ])(
    'a cancel names the option by its right, its strike as a number, and its maturity: %s %s',
    async (putCall, strike) => {
      const id = await find('CALL')
      const named = { accountId: optionsAccount(), ...call, putCall, strikePrice: strike }
      expect((await cancel(id, named)).body).toMatchObject({ success: true, status: 'CANCELED' })
    },
  )

  test('a put that has filled in part, and a spread, can be canceled too', async () => {
    const put = { ...call, putCall: 'P', strikePrice: '150.0' }
    expect((await cancel(await find('PUT'), { accountId: optionsAccount(), ...put })).body['status']).toBe('CANCELED')
    const spread = { accountId: optionsAccount(), symbol: 'KO', side: 'BUY', securityType: 'OPT' }
    expect((await cancel(await find('CALL', 2), spread)).body['status']).toBe('CANCELED')
  })

  test('they are filled from outside, at their limit, and neither cash nor shares move', async () => {
    const before = (await control('PUT', `/accounts/${optionsAccount()}`, {})).text
    const id = await find('CALL')
    await control('POST', `/orders/${id}/fill`, { quantity: '1' })
    const shown = async (): Promise<Json | undefined> =>
      (await ask(active(optionsAccount()))).rows.find((row) => row['clOrdId'] === id)
    expect(await shown()).toMatchObject({
      ordStatus: 'PARTIALLY_FILLED',
      cumQty: '1',
      leavesQty: '1',
      avgPrice: '6.15',
    })
    expect((await control('POST', `/orders/${id}/fill`, { price: '6.05' })).status).toBe(200)
    expect(await shown()).toMatchObject({ ordStatus: 'FILLED', cumQty: '2', avgPrice: '6.10' })
    await setStatus(id, 'canceled')
    expect(await shown()).toMatchObject({ ordStatus: 'CANCELED' })
    expect((await control('PUT', `/accounts/${optionsAccount()}`, {})).text).toBe(before)
  })
})

describe('the control port', () => {
  test('tells an account in the words of the accounts dialect, with the id that Aries has for each order', async () => {
    const placed = await place({ ...resting, clientId: 'mine' })
    const { rows } = await control('GET', `/book?account=${account()}`)
    expect(rows[0]).toMatchObject({
      id: expect.stringMatching(/^ord_/),
      aries_id: idOf(placed),
      account_id: account(),
      client_order_id: 'mine',
      status: 'accepted',
      qty: '10',
      limit_price: '95.00',
    })
    const ofBluum = (await control('GET', `/book?account=${sandbox.accounts[0]}`)).rows
    expect(ofBluum.filter((row) => 'aries_id' in row)).toEqual([])
  })

  test('puts orders into its accounts, fills and changes them by either id, and empties its book', async () => {
    const wanted = { symbol: 'KO', side: 'buy', type: 'limit', time_in_force: 'day', qty: '3', limit_price: '1.00' }
    const inserted = await control('POST', '/orders', { account: account(), client_order_id: 'theirs', ...wanted })
    expect(inserted.body).toMatchObject({ account_id: account(), aries_id: expect.stringMatching(/^ORDER-/) })
    const { id, aries_id: clOrdId } = inserted.body
    const shown = async (): Promise<Json | undefined> =>
      (await ask(active())).rows.find((row) => row['clOrdId'] === clOrdId)
    expect(await shown()).toMatchObject({ clientId: 'theirs', symbol: 'KO', ordStatus: 'NEW', timeInForce: 'DAY' })
    await control('POST', `/orders/${String(clOrdId)}/fill`, { quantity: '1' })
    expect(await shown()).toMatchObject({ ordStatus: 'PARTIALLY_FILLED', cumQty: '1' })
    expect((await setStatus(String(id), 'filled')).body['aries_id']).toBe(clOrdId)
    expect((await shown())?.['ordStatus']).toBe('FILLED')
    await control('DELETE', `/book?account=${account()}`)
    expect((await ask(active())).rows).toEqual([])
    expect((await askBluum(`/trading/orders/${sandbox.demo.openOrderId}`)).status).toBe(200)
  })

  test('an unknown switch, or value of one, is refused', async () => {
    expect((await control('PUT', '/switches', { ariesCancels: 'never' })).status).toBe(400)
    expect((await control('PUT', '/switches', { ariesWhims: 'all' })).status).toBe(400)
  })
})

describe('switches', () => {
  test.each([
    ['accountId', 'tradingAccountId'],
    ['tradingAccountId', 'accountId'],
  ])('ariesAccountField %s: the account has this name and no other', async (known, unknown) => {
    const post = (body: Json): Promise<Answered> => ask('/v1/orders', { method: 'POST', body })
    const old = { [unknown]: account(), ...resting }
    const placed = await post(old)
    expect(placed.status).toBe(200)
    await switchTo({ ariesAccountField: known })
    expect(errorOf(await post(old))).toEqual([400, 'bad_request'])
    expect((await post({ [known]: account(), ...resting })).body['success']).toBe(true)
    const fields = { accountId: null, [unknown]: account() }
    expect(errorOf(await cancel(idOf(placed), fields))).toEqual([400, 'bad_request'])
    expect((await cancel(idOf(placed), { accountId: null, [known]: account() })).body['success']).toBe(true)
  })

  test('ariesEmpty absent: what has no value is left out, unless it must be there', async () => {
    await switchTo({ ariesEmpty: 'absent' })
    const shown = await now(await place(market))
    for (const name of ['clientId', 'text', 'ordRejReason', 'legs']) expect(shown).not.toHaveProperty(name)
    expect(shown).toMatchObject({ price: '', stopPrice: '', securityType: 'CS' })
  })

  test('ariesSecurityType EQUITY: stock has its older name, which a cancel may use too', async () => {
    const placed = await place(resting)
    expect(errorOf(await cancel(idOf(placed), { securityType: 'EQUITY' }))).toEqual([400, 'bad_request'])
    await switchTo({ ariesSecurityType: 'EQUITY' })
    expect((await now(placed))['securityType']).toBe('EQUITY')
    expect((await cancel(idOf(placed), { securityType: 'EQUITY' })).body['success']).toBe(true)
  })

  test('ariesCustody later: pending for a second, and only then it trades', async () => {
    await switchTo({ ariesCustody: 'later' })
    const placed = await place(market)
    expect(placed.body['status']).toBe('PENDING_NEW')
    await advance(999)
    expect((await now(placed))['ordStatus']).toBe('PENDING_NEW')
    await advance(1)
    expect((await now(placed))['ordStatus']).toBe('FILLED')
  })

  test('ariesHistory ended: what the active list has is not in it', async () => {
    const window = 'from=2026-03-10T00:00:00Z&to=2026-06-03T00:00:00Z&limit=500'
    const [rests, fills] = [await place(resting), await place(market)]
    const ids = async (): Promise<unknown[]> => idsOf(await ask(history(window)))
    expect(await ids()).toEqual(expect.arrayContaining([idOf(rests), idOf(fills)]))
    await switchTo({ ariesHistory: 'ended' })
    const shown = new Set(idsOf(await ask(active())))
    expect((await ids()).filter((id) => shown.has(id))).toEqual([])
    await advance(dayMs)
    expect((await ids()).includes(idOf(fills))).toBe(true)
  })

  test('ariesActiveOrder oldestFirst: the list, and its pages, are the other way round', async () => {
    const all = idsOf(await ask(active()))
    await switchTo({ ariesActiveOrder: 'oldestFirst' })
    expect(await readAll(active(), 3)).toEqual(all.toReversed())
    const placed = await place(resting)
    expect((await readAll(active(), 3)).at(-1)).toBe(idOf(placed))
  })

  test('ariesCacheLag seconds: the cache is two seconds behind, the database is not', async () => {
    await switchTo({ ariesCacheLag: 'seconds' })
    const placed = await place(resting)
    const has = async (query: string): Promise<boolean> => idsOf(await ask(active() + query)).includes(idOf(placed))
    expect([await has(''), await has('?source=cache'), await has('?source=db')]).toEqual([false, false, true])
    await advance(1999)
    expect(await has('')).toBe(false)
    await advance(1)
    expect(await has('')).toBe(true)
    await cancel(idOf(placed))
    const status = async (): Promise<unknown> =>
      (await ask(active())).rows.find((row) => row['clOrdId'] === idOf(placed))?.['ordStatus']
    expect(await status()).toBe('NEW')
    await advance(2000)
    expect(await status()).toBe('CANCELED')
  })

  test('those of every dialect hold here too', async () => {
    await switchTo({ readLag: 'seconds', clientOrderIdEcho: 'nowhere', clientOrderIds: 'unique' })
    const placed = await place({ ...resting, clientId: 'mine' })
    expect(errorOf(await place({ ...resting, clientId: 'mine' }))).toEqual([400, 'bad_request'])
    expect(await now(placed)).toEqual({})
    await advance(2000)
    const shown = await now(placed)
    expect(shown['ordStatus']).toBe('NEW')
    expect(shown).not.toHaveProperty('clientId')
  })

  test('outlive a restart, as do the orders', async () => {
    const stateFile = join(directory, 'switches.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    await switchTo({ ariesCancels: 'pending', tradingId: 'fdid' })
    const placed = await place({ ...resting, clientId: 'mine' })
    const before = (await ask(active())).text
    await sandbox.close()
    sandbox = await start({ stateFile })
    expect(sandbox.aries.tradingId).toBe('fdid')
    expect((await ask(active())).text).toBe(before)
    expect((await cancel(idOf(placed))).body['status']).toBe('PENDING_CANCEL')
  })
})

describe('faults', () => {
  test('strike by path, and by account where the path names it', async () => {
    const fault = { kind: 'status', status: 503 }
    await rules({ match: { account: account() }, fault })
    expect([
      (await ask(active())).status,
      (await ask(history())).status,
      (await ask(active(optionsAccount()))).status,
      // Whose placement it is stands in the body, which is read too late for that.
      (await place(resting)).status,
    ]).toEqual([503, 503, 200, 200])
    await rules({ match: { path: '^/v1/oauth2/' }, fault: { ...fault, status: 401, body: { error: 'unauthorized' } } })
    expect([(await refresh()).status, (await place(resting)).status]).toEqual([401, 200])
  })

  test('change the rows of a list and the answer to a placement', async () => {
    await rules(
      { fault: { kind: 'setField', field: 'ordStatus', value: 'FROZEN' } },
      { fault: { kind: 'dropField', field: 'qty', row: 1 } },
      { fault: { kind: 'asNumber', field: 'cumQty', source: '1e400' } },
      { fault: { kind: 'omitClientOrderId' } },
      { fault: { kind: 'extraFields', count: 3 } },
    )
    const { text, rows } = await ask(`${active()}?limit=4`)
    expect(rows.map((row) => row['ordStatus'])).toEqual(['FROZEN', 'FROZEN', 'FROZEN', 'FROZEN'])
    expect(rows.filter((row) => 'clientId' in row)).toEqual([])
    expect(rows.map((row) => 'qty' in row)).toEqual([true, false, true, true])
    expect(text).toContain('"cumQty":1e400')
    expect((await place(resting)).body).toMatchObject({ success: true, unknown_field_2: true })
    await rules({ fault: { kind: 'setField', field: 'status', value: 'FROZEN' } })
    expect((await ask('/v1/users/me/accounts')).rows.map((row) => row['status'])).toEqual(['FROZEN', 'FROZEN'])
  })

  test('lists come the other way round, too long, beyond their window, or from the past', async () => {
    const all = idsOf(await ask(active()))
    await rules({ fault: { kind: 'listOrder', order: 'oldestFirst' } })
    expect(await readAll(active(), 4)).toEqual(all.toReversed())
    expect((await ask(history('from=2026-03-10T00:00:00Z&limit=2'))).rows.map((row) => row['createdAt'])).toEqual(
      (await ask(history('from=2026-03-10T00:00:00Z&limit=2&order_by=asc'))).rows.map((row) => row['createdAt']),
    )
    await rules({ fault: { kind: 'extraRows' } })
    const [a, b, c, d, e, f] = all
    const long = await ask(`${active()}?limit=4`)
    expect(idsOf(long)).toEqual([a, a, b, b, c, d, e, f])
    await rules()
    expect(idsOf(await ask(`${active()}?limit=1&cursor=${String(long.body['nextCursor'])}`))).toEqual([e])
    await rules({ fault: { kind: 'ignoreFilter' } })
    expect((await ask(history('from=2026-05-01T00:00:00Z&limit=500'))).rows.length).toBeGreaterThan(100)
    await rules({ fault: { kind: 'listLag', ms: 1000 } })
    clock += 60_000 - (clock % 60_000)
    const placed = await place(resting)
    const seen = async (): Promise<boolean[]> =>
      (await Promise.all([ask(active()), ask(history('from=2026-06-01T00:00:00Z'))])).map((page) =>
        idsOf(page).includes(idOf(placed)),
      )
    expect(await seen()).toEqual([false, false])
    await advance(1000)
    expect(await seen()).toEqual([true, true])
  })

  test('an answer is lost after the order was placed, and the order is there', async () => {
    await rules({ match: { method: 'POST' }, fault: { kind: 'rstAfterCommit' } })
    await expect(place({ ...resting, clientId: 'mine' })).rejects.toThrow()
    expect((await ask(active())).rows[0]?.['clientId']).toBe('mine')
  })

  test.each([
    [{ kind: 'truncate' }],
    [{ kind: 'invalidJson' }],
    [{ kind: 'emptyBody' }],
    [{ kind: 'finAfterCommit' }],
    [{ kind: 'badHeaders', how: 'twoContentLengths' }],
    [{ kind: 'status', status: 502, body: '<html>', when: 'afterCommit' }],
  ])('an answer that says nothing of the order leaves it in the book: %j', async (fault) => {
    await rules({ match: { method: 'POST' }, fault })
    await place({ ...resting, clientId: 'mine' }).then(
      ({ body }) => expect(body).not.toHaveProperty('clOrdId'),
      (error: unknown) => expect(error).toBeInstanceOf(Error),
    )
    expect((await ask(active())).rows.filter((row) => row['clientId'] === 'mine')).toHaveLength(1)
  })

  test('a placement enters the book later, after any end of its request', async () => {
    await rules(
      { match: { method: 'POST' }, fault: { kind: 'commitDelay', ms: 3000 } },
      { match: { method: 'POST', nth: 2 }, fault: { kind: 'rstAfterRead' } },
    )
    const placed = await place(resting)
    expect(placed.body).toMatchObject({ success: true, status: 'NEW', transactTime: '2026-06-01T12:00:00Z' })
    await expect(place({ ...resting, clientId: 'mine' })).rejects.toThrow()
    expect(await now(placed)).toEqual({})
    await rules()
    expect(errorOf(await cancel(idOf(placed)))).toEqual([404, 'not_found'])
    await advance(3000)
    expect((await now(placed))['createdAt']).toBe('2026-06-01T12:00:03Z')
    expect((await ask(active())).rows.filter((row) => row['clientId'] === 'mine')).toHaveLength(1)
  })

  test('a placement comes twice, or is refused as a duplicate', async () => {
    await rules({ fault: { kind: 'twin' } })
    await place({ ...resting, clientId: 'mine' })
    await ask(active())
    expect((await place({ ...resting, side: 'HOLD' })).status).toBe(400)
    expect((await ask(`${active()}?limit=2`)).rows.map((row) => row['clientId']).sort()).toEqual(['', 'mine'])
    await rules({ fault: { kind: 'dedupe' } })
    expect(errorOf(await place({ ...resting, clientId: 'mine' }))).toEqual([400, 'bad_request'])
    expect((await place(resting)).status).toBe(200)
  })

  test('a cancel is done when the rule says, or overtaken by a fill', async () => {
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'asyncCancel', ms: 5000 } })
    const placed = await place(resting)
    expect((await cancel(idOf(placed))).body).toMatchObject({ success: true, status: 'PENDING_CANCEL' })
    await advance(4999)
    expect((await now(placed))['ordStatus']).toBe('PENDING_CANCEL')
    await advance(1)
    expect((await now(placed))['ordStatus']).toBe('CANCELED')
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'fillOnCancel', quantity: '3' } })
    const part = await place(resting)
    expect((await cancel(idOf(part))).body).toMatchObject({ success: true, status: 'CANCELED' })
    expect((await now(part))['cumQty']).toBe('3')
    await rules({ match: { path: '/cancel$' }, fault: { kind: 'fillOnCancel' } })
    const whole = await place(resting)
    expect((await cancel(idOf(whole))).body).toMatchObject({ success: false, status: 'FILLED' })
  })

  test("retryAfter and maxRps refuse in Aries' shape", async () => {
    await rules({ fault: { kind: 'retryAfter', value: '7' } })
    const refused = await place(resting)
    expect(errorOf(refused)).toEqual([429, 'rate_limited'])
    expect(refused.headers.get('retry-after')).toBe('7')
    await rules({ fault: { kind: 'retryAfter', value: '7', status: 503 } })
    expect(errorOf(await place(resting))).toEqual([503, 'internal_error'])
    await rules({ fault: { kind: 'maxRps', perSecond: 0 } })
    expect(errorOf(await ask(active()))).toEqual([429, 'rate_limited'])
    await rules()
    expect((await control('GET', `/book?account=${account()}`)).rows).toHaveLength(120)
  })

  test('a second answer behind the true one is an order of Aries', async () => {
    await rules({ match: { path: 'users' }, fault: { kind: 'extraResponse' } })
    const { hostname, port } = new URL(sandbox.aries.url)
    const socket = connect(Number(port), hostname)
    const text = await new Promise<string>((resolve) => {
      let seen = ''
      socket.on('data', (chunk) => {
        seen += chunk.toString()
        if (seen.includes('updatedAt')) resolve(seen)
      })
      socket.write(
        `GET /v1/users/me/accounts HTTP/1.1\r\nhost: ${hostname}\r\nauthorization: Bearer ${sandbox.aries.accessToken}\r\n\r\n`,
      )
    })
    socket.destroy()
    expect(text.split('HTTP/1.1 200 OK')).toHaveLength(3)
    expect(text).toContain('"clOrdId":"ORDER-')
  })
})

test('run alone, it prints what a client of Aries needs', async () => {
  const dataDir = join(directory, 'alone')
  const { code, out } = await runBlotter(['sandbox'], { env: { DATA_DIR: dataDir }, interruptAt: /trading ids .*\n/ })
  expect(code).toBe(0)
  expect(out).toMatch(/It speaks Aries on http:\/\/127\.0\.0\.1:\d+\n/)
  const { clientId, clientSecret, refreshToken, accessToken } = sandbox.aries
  for (const word of [clientId, clientSecret, refreshToken, accessToken]) expect(out).toContain(` ${word}\n`)
  expect(out).toMatch(/trading ids {4}ACC-\d{4}, ACC-\d{4} \(apex_account_id\)\n/)
})

describe('a state file of the format before', () => {
  /** Makes a file what it was before there was Aries. */
  function makeOld(file: string): void {
    const database = new DatabaseSync(file)
    database.exec(`
      DELETE FROM orders WHERE json ->> 'accountId' LIKE 'ACC-%';
      DELETE FROM position WHERE json ->> 'accountId' LIKE 'ACC-%';
      DELETE FROM account WHERE id LIKE 'ACC-%';
      UPDATE account SET json = json_remove(json, '$.broker');
      UPDATE setting SET value = '1' WHERE name = 'format'`)
    database.close()
  }

  test("gets the accounts of Aries, keeps what it had, and is of today's format then", async () => {
    const stateFile = join(directory, 'old.db')
    await sandbox.close()
    sandbox = await start({ stateFile })
    const body = JSON.stringify({
      symbol: 'AAPL',
      side: 'buy',
      type: 'limit',
      time_in_force: 'gtc',
      qty: '1',
      limit_price: '95.00',
    })
    await askBluum(`/trading/accounts/${sandbox.accounts[0]}/orders`, {
      method: 'POST',
      body,
      headers: { authorization: `Basic ${btoa(`${sandbox.apiKey}:${sandbox.apiSecret}`)}` },
    })
    await advance(5000)
    const bluum = async (): Promise<string[]> =>
      Promise.all(sandbox.accounts.map(async (id) => (await control('GET', `/book?account=${id}`)).text))
    const before = await bluum()
    const aries = (await ask(active())).text
    await sandbox.close()
    makeOld(stateFile)

    sandbox = await start({ stateFile })
    expect(await bluum()).toEqual(before)
    expect((await ask(active())).text).toBe(aries)
    expect((await askBluum('/accounts')).rows.map((row) => row['id'])).toEqual(sandbox.accounts)
    const placed = await place(resting)
    await sandbox.close()
    const database = new DatabaseSync(stateFile)
    expect(database.prepare("SELECT value FROM setting WHERE name = 'format'").get()?.['value']).toBe('2')
    database.close()
    sandbox = await start({ stateFile })
    expect((await now(placed))['ordStatus']).toBe('NEW')
  })

  test('of another seed, or of a format yet to come, is left alone', async () => {
    const stateFile = join(directory, 'seed.db')
    await (await start({ stateFile })).close()
    makeOld(stateFile)
    await expect(start({ stateFile, seed: 'other' })).rejects.toThrow(/SANDBOX_SEED "test"/)
    const database = new DatabaseSync(stateFile)
    expect(database.prepare('SELECT count(*) AS count FROM account').get()?.['count']).toBe(2)
    database.exec("UPDATE setting SET value = '3' WHERE name = 'format'")
    database.close()
    await expect(start({ stateFile })).rejects.toThrow(/format/)
  })
})
