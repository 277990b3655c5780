// What a caller of `placeOrder` sees, and what reaches the broker. The broker's request log and its book are the judges:
// an answer alone could agree with itself.

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { UpstreamError } from '../../src/upstream/errors.ts'
import type { Broker, PlaceAnswer } from '../../src/brokers/broker.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'
import { createBluum } from '../../src/brokers/bluum/bluum.ts'
import { systemClock } from '../../src/domain/clock.ts'
import { createCommands } from '../../src/trading/placeOrder.ts'
import type { NewOrder } from '../../src/domain/order.ts'
import { openSqliteStore } from '../../src/store/sqlite/sqliteStore.ts'
import { limitBuy as limitBuyAt, startForTest, startHarness } from '../harness.ts'
import type { Answer, Harness, LoggedCall } from '../harness.ts'

interface Result {
  __typename: string
  outcome: string
  clientOrderId: string
  orderId: string | null
  order: Record<string, unknown> | null
  message: string
  replayed?: boolean
  rejectionCode?: string
  brokerCode?: string | null
  reason?: string | null
  notPlacedCode?: string
  certainty?: string
  retrySameKey?: boolean
  retryAfterMs?: number | null
  problems?: { field: string[]; code: string; message: string }[]
}

const resultFields = `
  __typename outcome clientOrderId orderId message
  order { id status clientOrderId quantity limitPrice }
  ... on OrderPlaced { replayed }
  ... on OrderRejected { replayed rejectionCode brokerCode reason }
  ... on OrderInvalid { problems { field code message } }
  ... on OrderNotPlaced { notPlacedCode certainty retrySameKey retryAfterMs }
  ... on OrderOutcomeUnknown { retryAfterMs }
`
const placementDocument = `query ($accountId: ID!, $clientOrderId: ID!) {
  placement(accountId: $accountId, clientOrderId: $clientOrderId) {
    state attempts orderId foundBy createdAt sentAt resolvedAt result { ${resultFields} }
  }
}`
const placeDocument = `mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { ${resultFields} } }`

let harness: Harness
/** A service that answers its callers soon, whatever the broker does. */
let hasty: Harness
beforeAll(async () => {
  // What is not answered is known soon: found, or taken for never placed.
  const soon = { PLACE_LOOKUP_MS: '30,60,120', PLACE_SETTLE_MS: '200' }
  harness = await startHarness({ ...soon, BREAKER: 'off' })
  hasty = await startHarness({ PLACE_REPLY_MS: '100', BREAKER: 'off' })
})
afterAll(() => Promise.all([harness.close(), hasty.close()]))

afterEach(async () => {
  await harness.setRules()
  await hasty.setRules()
  await harness.control('PUT', '/switches', { market: 'open', errorEnvelope: 'flat' })
  await harness.control('PUT', `/accounts/${harness.accountId}`, { status: 'ACTIVE' })
  await harness.clearCalls()
  await hasty.clearCalls()
})

/** A limit buy far below the market: it rests. What is given takes the place of its fields; null leaves one out. */
function limitBuy(fields: object = {}) {
  return limitBuyAt(harness, { quantity: '5', ...fields })
}

async function place(input: object, of = harness): Promise<Result> {
  const answer = await of.run(placeDocument, { input })
  expect(answer.errors).toBeUndefined()
  expect(answer.status).toBe(200)
  return answer.data.placeOrder as Result
}

/** The placements that reached the broker since its log was cleared. */
async function posts(of = harness): Promise<LoggedCall[]> {
  return (await of.calls()).filter(({ method, path }) => method === 'POST' && path.endsWith('/orders'))
}

async function booked(clientOrderId: string, of = harness, accountId = of.accountId) {
  return (await of.book(accountId)).filter((order) => order['client_order_id'] === clientOrderId)
}

/** Waits for what ends in the background. */
function eventually(check: () => Promise<void>): Promise<void> {
  return vi.waitFor(check, { timeout: 5_000, interval: 10 })
}

const onPlace = { method: 'POST', path: '/orders$' }
/** A rule for the next placement only. */
const onNextPlace = (fault: object): object => ({ match: { ...onPlace, times: 1 }, fault })
const onEachPlace = (fault: object): object => ({ match: onPlace, fault })
const bluumError = (code: string): object => ({ code, message: `The words for ${code}.` })

describe('a healthy broker', () => {
  test('A01 a key is sent once, and its repeats tell of the same order', async () => {
    const input = limitBuy()
    const results = [await place(input), await place(input), await place(input), await place(input)]
    expect(results.map(({ __typename }) => __typename)).toEqual(Array(4).fill('OrderPlaced'))
    expect(results.map(({ replayed }) => replayed)).toEqual([false, true, true, true])
    const book = await booked(input.clientOrderId)
    expect(book).toHaveLength(1)
    for (const { orderId, clientOrderId, order } of results) {
      expect(orderId).toBe(book[0]?.['id'])
      expect(clientOrderId).toBe(input.clientOrderId)
      expect(order).toMatchObject({ id: orderId, status: 'ACCEPTED', clientOrderId: input.clientOrderId })
    }
    expect(await posts()).toHaveLength(1)
  })

  test('A02 fifty at once with one key are one send, and one of them is not replayed', async () => {
    await harness.setRules(onEachPlace({ kind: 'latency', ms: 200 }))
    const input = limitBuy()
    const results = await Promise.all(Array.from({ length: 50 }, () => place(input)))
    expect(results.filter(({ replayed }) => replayed === false)).toHaveLength(1)
    expect(results.filter(({ replayed }) => replayed === true)).toHaveLength(49)
    expect(new Set(results.map(({ orderId }) => orderId)).size).toBe(1)
    expect(new Set(results.map(({ order }) => JSON.stringify(order))).size).toBe(1)
    expect(await posts()).toHaveLength(1)
    expect(await booked(input.clientOrderId)).toHaveLength(1)
  })

  test('fifty at once with keys of their own are fifty orders', async () => {
    const results = await Promise.all(Array.from({ length: 50 }, () => place(limitBuy({ quantity: '1' }))))
    expect(new Set(results.map(({ orderId }) => orderId)).size).toBe(50)
    expect(results.every(({ replayed }) => replayed === false)).toBe(true)
    expect(await posts()).toHaveLength(50)
  })

  test('A04 a key with another order is refused, and the first order stays as it is', async () => {
    const input = limitBuy()
    await place(input)
    const before = await booked(input.clientOrderId)
    await harness.clearCalls()
    for (const change of [
      { quantity: '6' },
      { limitPrice: '10.01' },
      { side: 'SELL' },
      { symbol: 'MSFT' },
      { timeInForce: 'DAY' },
      { extendedHours: true },
      { commission: '1' },
    ]) {
      const result = await place({ ...input, ...change })
      expect(result).toMatchObject({
        __typename: 'OrderInvalid',
        outcome: 'INVALID',
        orderId: null,
        problems: [{ field: ['input', 'clientOrderId'], code: 'KEY_REUSED' }],
      })
    }
    expect(await harness.calls()).toEqual([])
    expect(await booked(input.clientOrderId)).toEqual(before)
  })

  test('A05 the same order in other spellings is a repeat', async () => {
    const input = limitBuy({ quantity: '5', limitPrice: '10.5' })
    const { orderId } = await place(input)
    for (const change of [{ quantity: '5.0' }, { quantity: '5.00', limitPrice: '10.500' }]) {
      const backwards = Object.fromEntries(Object.entries({ ...input, ...change }).reverse())
      expect(await place(backwards)).toMatchObject({ __typename: 'OrderPlaced', replayed: true, orderId })
    }
    // An instant to send by is no part of what is ordered.
    expect(await place({ ...input, sendBy: '2020-01-01T00:00:00Z' })).toMatchObject({ replayed: true, orderId })
    expect(await posts()).toHaveLength(1)
  })

  test('A27 one key under two aliases of a document is one send', async () => {
    const input = limitBuy()
    const document = `mutation ($input: PlaceOrderInput!) {
      a: placeOrder(input: $input) { ${resultFields} }
      b: placeOrder(input: $input) { ${resultFields} }
    }`
    const { data } = await harness.run(document, { input })
    expect(data.a).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
    expect(data.b).toMatchObject({ __typename: 'OrderPlaced', replayed: true, orderId: data.a.orderId })
    expect(await posts()).toHaveLength(1)
  })

  test('A27 two keys in one document are two orders, and trouble with the first leaves the second alone', async () => {
    await harness.setRules(onNextPlace({ kind: 'rstAfterCommit' }))
    const document = `mutation ($a: PlaceOrderInput!, $b: PlaceOrderInput!) {
      a: placeOrder(input: $a) { __typename }
      b: placeOrder(input: $b) { __typename }
    }`
    const { data, errors } = await harness.run(document, { a: limitBuy(), b: limitBuy() })
    expect(errors).toBeUndefined()
    expect(data).toEqual({ a: { __typename: 'OrderPlaced' }, b: { __typename: 'OrderPlaced' } })
    expect(await posts()).toHaveLength(2)
  })

  test('the same key for another account is another placement', async () => {
    const [, secondAccount = ''] = harness.sandbox.accounts
    const input = limitBuy()
    const results = [await place(input), await place({ ...input, accountId: secondAccount })]
    expect(results).toMatchObject([{ replayed: false }, { replayed: false }])
    expect(results[0]?.orderId).not.toBe(results[1]?.orderId)
    expect((await posts()).map(({ path }) => path)).toEqual(
      [harness.accountId, secondAccount].map((account) => `/v1/trading/accounts/${account}/orders`),
    )
  })

  test("the caller's key goes as client_order_id, and a key of ours as Idempotency-Key", async () => {
    const first = limitBuy()
    const second = limitBuy()
    await place(first)
    await place(second)
    const sent = await posts()
    expect(sent.map(({ body }) => (JSON.parse(body) as Record<string, unknown>)['client_order_id'])).toEqual([
      first.clientOrderId,
      second.clientOrderId,
    ])
    const keys = sent.map(({ idempotencyKey }) => idempotencyKey)
    for (const key of keys) expect(key).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
    expect(new Set([...keys, first.clientOrderId, second.clientOrderId]).size).toBe(4)
  })

  test('every digit reaches the broker and comes back', async () => {
    const quantity = '0.000000001'
    const limitPrice = '123456789012345678901.123456780'
    const input = limitBuy({ side: 'SELL', quantity, limitPrice })
    const result = await place(input)
    expect(result).toMatchObject({ __typename: 'OrderPlaced', order: { quantity, limitPrice } })
    const [sent] = await posts()
    expect(sent?.body).toContain(`"qty":"${quantity}"`)
    expect(sent?.body).toContain(`"limit_price":"${limitPrice}"`)
    expect(await booked(input.clientOrderId)).toMatchObject([{ qty: quantity, limit_price: limitPrice }])
  })

  test('the order reaches the book digit by digit', async () => {
    // An account of its own, with cash for whatever is drawn.
    const [, accountId = ''] = harness.sandbox.accounts
    await harness.control('PUT', `/accounts/${accountId}`, { cash: '9'.repeat(28) })
    await fc.assert(
      fc.asyncProperty(validOrders, async (drawn) => {
        const input = { ...drawn, accountId, clientOrderId: randomUUID() }
        const result = await place(input)
        expect(result).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
        const book = await booked(input.clientOrderId, harness, accountId)
        expect(book).toMatchObject([{ ...toBluum(drawn), id: result.orderId }])
        const absent = decimalFields.filter((field) => drawn[field] === undefined).map((field) => bluumNames[field])
        for (const field of absent) expect(book[0]).not.toHaveProperty([field])
      }),
      { numRuns: 60 },
    )
  })
})

// ---- orders at random -------------------------------------------------------------------------------------------

const decimalFields = [
  'quantity',
  'notional',
  'limitPrice',
  'stopPrice',
  'trailPercent',
  'trailPrice',
  'commission',
] as const
const bluumNames = {
  quantity: 'qty',
  notional: 'notional',
  limitPrice: 'limit_price',
  stopPrice: 'stop_price',
  trailPercent: 'trail_percent',
  trailPrice: 'trail_price',
  commission: 'commission',
} as const
type DrawnOrder = Partial<Record<(typeof decimalFields)[number], string>> & {
  symbol: string
  side: string
  type: string
  timeInForce: string
  extendedHours?: boolean
  commissionType?: string
}

/** Positive, of so many digits at the most, zeros at the end included. */
function decimals(digits: { whole: number; fraction: number }): fc.Arbitrary<string> {
  const whole = fc.stringMatching(new RegExp(`^(0|[1-9]\\d{0,${digits.whole - 1}})$`))
  const fraction = fc.stringMatching(new RegExp(`^\\d{0,${digits.fraction}}$`))
  return fc
    .tuple(whole, fraction)
    .map(([left, right]) => (right === '' ? left : `${left}.${right}`))
    .filter((text) => /[1-9]/.test(text))
}

const prices = decimals({ whole: 9, fraction: 20 })
const validOrders: fc.Arbitrary<DrawnOrder> = fc
  .tuple(
    fc.record({
      symbol: fc.constantFrom('AAPL', 'MSFT', 'KO'),
      side: fc.constant('BUY'),
      timeInForce: fc.constantFrom('DAY', 'GTC', 'OPG', 'CLS', 'IOC', 'FOK'),
    }),
    fc.oneof(
      fc.record({ type: fc.constant('MARKET'), quantity: decimals({ whole: 6, fraction: 9 }) }),
      // A cash amount that buys next to nothing is rejected.
      fc.record({
        type: fc.constant('MARKET'),
        notional: decimals({ whole: 6, fraction: 6 }).map((text) => `1${text}`),
      }),
      fc
        .tuple(
          fc.oneof(
            fc.record({ type: fc.constant('LIMIT'), limitPrice: prices }),
            fc.record({ type: fc.constant('STOP'), stopPrice: prices }),
            fc.record({ type: fc.constant('STOP_LIMIT'), stopPrice: prices, limitPrice: prices }),
            fc.record({ type: fc.constant('TRAILING_STOP'), trailPercent: decimals({ whole: 2, fraction: 9 }) }),
            fc.record({ type: fc.constant('TRAILING_STOP'), trailPrice: prices }),
          ),
          decimals({ whole: 6, fraction: 30 }),
        )
        .map(([priced, quantity]) => ({ ...priced, quantity })),
    ),
    fc.oneof(
      fc.constant({}),
      fc.record({ commission: decimals({ whole: 3, fraction: 9 }) }),
      fc.record({
        commission: decimals({ whole: 3, fraction: 9 }),
        commissionType: fc.constantFrom('NOTIONAL', 'QTY'),
      }),
      fc.record({ commission: decimals({ whole: 3, fraction: 2 }), commissionType: fc.constant('BPS') }),
    ),
    fc.constantFrom({}, { extendedHours: true }, { extendedHours: false }),
  )
  .map(([always, priced, charged, hours]) => ({ ...always, ...priced, ...charged, ...hours }))

function toBluum(order: DrawnOrder): Record<string, unknown> {
  const { symbol, side, type, timeInForce, extendedHours = false, commissionType } = order
  return {
    symbol,
    side: side.toLowerCase(),
    type: type.toLowerCase(),
    time_in_force: timeInForce.toLowerCase(),
    extended_hours: extendedHours,
    ...(commissionType === undefined ? {} : { commission_type: commissionType.toLowerCase() }),
    ...Object.fromEntries(
      decimalFields.filter((field) => order[field] !== undefined).map((field) => [bluumNames[field], order[field]]),
    ),
  }
}

// ---- refusals ---------------------------------------------------------------------------------------------------

describe('the broker says no', () => {
  const refusals: { what: string; arrange?: object; market?: string; order: object; codes: [string, string] }[] = [
    { what: 'too little cash', order: { quantity: '1000000000000' }, codes: ['INSUFFICIENT_FUNDS', 'BLUM-422-001'] },
    {
      what: 'too few shares',
      order: { side: 'SELL', quantity: '1000000' },
      codes: ['INSUFFICIENT_POSITION', 'BLUM-422-004'],
    },
    { what: 'an unknown ticker', order: { symbol: 'ZZZZ' }, codes: ['ASSET_NOT_FOUND', 'BLUM-404-003'] },
    { what: 'a ticker that is not traded', order: { symbol: 'TWTR' }, codes: ['ASSET_NOT_TRADABLE', 'BLUM-422-003'] },
    {
      what: 'an account that is not approved',
      arrange: { status: 'PENDING' },
      order: {},
      codes: ['ACCOUNT_NOT_APPROVED', 'BLUM-403-002'],
    },
    {
      what: 'a restricted account',
      arrange: { status: 'SUSPENDED' },
      order: {},
      codes: ['ACCOUNT_RESTRICTED', 'BLUM-403-004'],
    },
    {
      what: 'an unknown account',
      order: { accountId: 'acc_missing' },
      codes: ['ACCOUNT_NOT_FOUND', 'BLUM-404-001'],
    },
    { what: 'a closed market', market: 'closed-refuses', order: {}, codes: ['MARKET_CLOSED', 'BLUM-422-002'] },
  ]

  describe.each(['flat', 'nested', 'status'])('in its %s envelope', (errorEnvelope) => {
    test.each(refusals)('A20 $what: OrderRejected, and the key is spent', async ({ arrange, market, order, codes }) => {
      await harness.control('PUT', '/switches', { errorEnvelope, ...(market === undefined ? {} : { market }) })
      if (arrange) await harness.control('PUT', `/accounts/${harness.accountId}`, arrange)
      const input = limitBuy(order)
      const first = await place(input)
      expect(first).toMatchObject({
        __typename: 'OrderRejected',
        outcome: 'REJECTED',
        replayed: false,
        rejectionCode: codes[0],
        brokerCode: codes[1],
        orderId: null,
        order: null,
      })
      expect(first.reason).toMatch(/\w/)

      // What was refused stays refused under its key, whatever has changed since.
      await harness.control('PUT', '/switches', { market: 'open' })
      await harness.control('PUT', `/accounts/${harness.accountId}`, { status: 'ACTIVE' })
      expect(await place(input)).toEqual({ ...first, replayed: true })
      expect(await posts()).toHaveLength(1)
      expect(await booked(input.clientOrderId)).toEqual([])
    })
  })

  test.each([
    [400, 'BLUM-400-005', 'INVALID_ORDER'],
    [422, 'BLUM-422-099', 'OTHER'],
    [403, 'BLUM-403-099', 'OTHER'],
  ])('%i %s: OrderRejected %s', async (status, code, rejectionCode) => {
    await harness.setRules(onEachPlace({ kind: 'status', status, body: bluumError(code) }))
    const result = await place(limitBuy())
    const reason = `The words for ${code}.`
    expect(result).toMatchObject({ __typename: 'OrderRejected', rejectionCode, brokerCode: code, reason })
  })

  test("the broker's words are cleaned and bounded", async () => {
    const message = `Line one\nline two\u001b[31m\u202e ${'x'.repeat(1_000)}`
    await harness.setRules(onNextPlace({ kind: 'status', status: 422, body: { code: 'BLUM-422-001', message } }))
    const { reason } = await place(limitBuy())
    expect(reason).toMatch(/^Line one line two \[31m {2}x+$/)
    expect(reason?.length).toBe(200)
  })

  test('A19 a success that says rejected is a rejection, with its reason and the id of the order', async () => {
    await harness.setRules(
      onNextPlace({ kind: 'setField', field: 'status', value: 'rejected' }),
      onNextPlace({ kind: 'setField', field: 'reject_reason', value: 'Price too far from the market.' }),
    )
    const input = limitBuy()
    const first = await place(input)
    expect(first).toMatchObject({
      __typename: 'OrderRejected',
      replayed: false,
      rejectionCode: 'OTHER',
      brokerCode: null,
      reason: 'Price too far from the market.',
      order: { status: 'REJECTED' },
    })
    const [order] = await booked(input.clientOrderId)
    expect(first.orderId).toBe(order?.['id'])
    expect(await place(input)).toMatchObject({
      __typename: 'OrderRejected',
      replayed: true,
      reason: first.reason,
      orderId: first.orderId,
    })
    expect(await posts()).toHaveLength(1)
  })

  test('A19 an order that a closed market takes in as rejected is a rejection', async () => {
    await harness.control('PUT', '/switches', { market: 'closed-rejects' })
    const input = limitBuy()
    const first = await place(input)
    expect(first).toMatchObject({ __typename: 'OrderRejected', reason: 'Market is closed.', replayed: false })
    expect(await place(input)).toEqual({ ...first, replayed: true })
    expect(await posts()).toHaveLength(1)
    expect(await booked(input.clientOrderId)).toMatchObject([{ status: 'rejected' }])
  })
})

// ---- proven not placed ------------------------------------------------------------------------------------------

describe('proven not placed', () => {
  test('A24 a closed port is reported, and the same key places once it is open', async () => {
    await harness.setRules({ match: {}, fault: { kind: 'refuse' } })
    const input = limitBuy()
    const proven = {
      __typename: 'OrderNotPlaced',
      outcome: 'NOT_PLACED',
      notPlacedCode: 'BROKER_UNAVAILABLE',
      certainty: 'PROVEN',
      retrySameKey: true,
      orderId: null,
      order: null,
    }
    expect(await place(input)).toMatchObject(proven)
    expect(await place(input)).toMatchObject(proven)
    await harness.setRules()
    const results = await Promise.all(Array.from({ length: 20 }, () => place(input)))
    expect(results.map(({ __typename }) => __typename)).toEqual(Array(20).fill('OrderPlaced'))
    expect(results.filter(({ replayed }) => replayed === false)).toHaveLength(1)
    expect(await posts()).toHaveLength(1)
    expect(await booked(input.clientOrderId)).toHaveLength(1)
  })

  test.each([
    ['with Retry-After', { 'retry-after': '1' }, 1_000],
    ['without Retry-After', {}, 1_000],
  ])('A22 a 429 %s says how long to wait, and the same key places later', async (_, headers, retryAfterMs) => {
    await harness.setRules(onNextPlace({ kind: 'status', status: 429, body: bluumError('BLUM-429-001'), headers }))
    const input = limitBuy()
    expect(await place(input)).toMatchObject({
      __typename: 'OrderNotPlaced',
      notPlacedCode: 'RATE_LIMITED',
      certainty: 'PROVEN',
      retrySameKey: true,
      retryAfterMs,
    })
    // Nothing here repeats a placement by itself, and nothing leaves before the time is over.
    expect(await posts()).toHaveLength(1)
    await eventually(async () => {
      expect(await place(input)).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
    })
    const sent = await posts()
    expect(sent).toHaveLength(2)
    expect(new Set(sent.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(1)
    expect(await booked(input.clientOrderId)).toHaveLength(1)
  })

  test('fifty at once that meet a 429 are one send', async () => {
    await harness.setRules(
      onEachPlace({ kind: 'latency', ms: 200 }),
      onNextPlace({ kind: 'status', status: 429, body: bluumError('BLUM-429-001') }),
    )
    const input = limitBuy()
    const results = await Promise.all(Array.from({ length: 50 }, () => place(input)))
    expect(new Set(results.map(({ notPlacedCode }) => notPlacedCode))).toEqual(new Set(['RATE_LIMITED']))
    expect(await posts()).toHaveLength(1)
    await eventually(async () => expect(await place(input)).toMatchObject({ __typename: 'OrderPlaced' }))
  })

  test.each([
    [401, 'BLUM-401-003', true],
    [403, 'BLUM-403-003', true],
    [404, 'BLUM-404-002', true],
    [413, 'BLUM-413-001', false],
    [415, 'BLUM-415-001', false],
  ])('%i %s is about us and not about the order', async (status, code, retrySameKey) => {
    await harness.setRules(onNextPlace({ kind: 'status', status, body: bluumError(code) }))
    const input = limitBuy()
    expect(await place(input)).toMatchObject({
      __typename: 'OrderNotPlaced',
      notPlacedCode: 'BROKER_UNAVAILABLE',
      certainty: 'PROVEN',
      retrySameKey,
    })
    expect(await booked(input.clientOrderId)).toEqual([])
    if (!retrySameKey) return
    expect(await place(input)).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
    expect(await booked(input.clientOrderId)).toHaveLength(1)
  })

  test('an order whose time to be sent has passed is not sent; a later instant sends it', async () => {
    const input = limitBuy()
    expect(await place({ ...input, sendBy: new Date(Date.now() - 1).toISOString() })).toMatchObject({
      __typename: 'OrderNotPlaced',
      notPlacedCode: 'DEADLINE',
      certainty: 'PROVEN',
      retrySameKey: false,
    })
    expect(await harness.calls()).toEqual([])
    const later = new Date(Date.now() + 60_000).toISOString()
    expect(await place({ ...input, sendBy: later })).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
    expect(await posts()).toHaveLength(1)
  })

  test('A28 behind busy connections an order is not sent after its time', async () => {
    // Eight is how many connections placements have; each is held until long after the ninth's time is over.
    await harness.setRules(onEachPlace({ kind: 'latency', ms: 1_500 }))
    const eight = Array.from({ length: 8 }, (_, index) =>
      place(limitBuy({ quantity: '1', limitPrice: `1${index}.00` })),
    )
    await eventually(async () => expect(await posts()).toHaveLength(8))
    const ninth = limitBuy({ sendBy: new Date(Date.now() + 100).toISOString() })
    expect(await place(ninth)).toMatchObject({
      __typename: 'OrderNotPlaced',
      notPlacedCode: 'DEADLINE',
      certainty: 'PROVEN',
      retrySameKey: false,
    })
    for (const result of await Promise.all(eight)) expect(result.__typename).toBe('OrderPlaced')
    // A connection that is free again would have taken the ninth before this one.
    await harness.setRules()
    await place(limitBuy())
    expect(await posts()).toHaveLength(9)
    expect(await booked(ninth.clientOrderId)).toEqual([])
  })
})

// ---- not known --------------------------------------------------------------------------------------------------

describe('not known', () => {
  const html = '<html><body>Request blocked</body></html>'
  const endings: { what: string; faults: object[]; inBook: 0 | 1; foundBy?: string }[] = [
    { what: 'a reset before the request was read', faults: [{ kind: 'rstBeforeRead' }], inBook: 0 },
    { what: 'a reset after the request was read', faults: [{ kind: 'rstAfterRead' }], inBook: 0 },
    { what: 'A06 a reset after the order was taken in', faults: [{ kind: 'rstAfterCommit' }], inBook: 1 },
    {
      what: 'A06 the end of the connection after the order was taken in',
      faults: [{ kind: 'finAfterCommit' }],
      inBook: 1,
    },
    {
      what: 'A08 a 502 before the order was taken in',
      faults: [{ kind: 'status', status: 502, body: html }],
      inBook: 0,
    },
    {
      what: 'a 503 that names a time to come back',
      faults: [{ kind: 'status', status: 503, headers: { 'retry-after': '1' } }],
      inBook: 0,
    },
    {
      what: 'a 500 in the words of the broker after the order was taken in',
      faults: [{ kind: 'status', status: 500, body: bluumError('BLUM-500-001'), when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'a 504 after the order was taken in',
      faults: [{ kind: 'status', status: 504, body: html, when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'a 408',
      faults: [{ kind: 'status', status: 408, body: bluumError('BLUM-408-001'), when: 'afterCommit' }],
      inBook: 1,
    },
    { what: 'A17 an answer cut in the middle', faults: [{ kind: 'truncate' }], inBook: 1 },
    { what: 'A17 an answer cut after its head', faults: [{ kind: 'truncate', bytes: 0 }], inBook: 1 },
    { what: 'A17 an empty answer', faults: [{ kind: 'emptyBody' }], inBook: 1 },
    { what: 'A17 a 204', faults: [{ kind: 'emptyBody', status: 204 }], inBook: 1 },
    { what: 'A17 broken JSON', faults: [{ kind: 'invalidJson' }], inBook: 1 },
    {
      what: 'a success in HTML',
      faults: [{ kind: 'status', status: 200, body: html, when: 'afterCommit' }],
      inBook: 1,
    },
    { what: 'a success that calls itself HTML', faults: [{ kind: 'contentType', value: 'text/html' }], inBook: 1 },
    {
      what: 'a success that is a list',
      faults: [{ kind: 'status', status: 200, body: [], when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'A18 an order of another quantity',
      faults: [{ kind: 'setField', field: 'qty', value: '6' }],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    {
      what: 'A18 an order of another key',
      faults: [{ kind: 'setField', field: 'client_order_id', value: 'someone-elses' }],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    {
      what: 'A18 an order of another ticker',
      faults: [{ kind: 'setField', field: 'symbol', value: 'MSFT' }],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    {
      what: 'A18 an order of the other side',
      faults: [{ kind: 'setField', field: 'side', value: 'sell' }],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    {
      what: 'A18 an order of another type',
      faults: [{ kind: 'setField', field: 'type', value: 'market' }],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    {
      what: 'A18 an order of another account',
      faults: [{ kind: 'setField', field: 'account_id', value: 'acc_other' }],
      inBook: 1,
    },
    {
      what: 'A18 a quantity that is none',
      faults: [{ kind: 'setField', field: 'qty', value: 'five' }],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    { what: 'A18 an order without an id', faults: [{ kind: 'dropField', field: 'id' }], inBook: 1 },
    { what: 'A18 an id that is null', faults: [{ kind: 'setField', field: 'id', value: null }], inBook: 1 },
    { what: 'A18 an empty id', faults: [{ kind: 'setField', field: 'id', value: '' }], inBook: 1 },
    { what: 'A18 an id that is an object', faults: [{ kind: 'setField', field: 'id', value: { id: 'x' } }], inBook: 1 },
    {
      what: 'A18 another order that says rejected',
      faults: [
        { kind: 'setField', field: 'client_order_id', value: 'someone-elses' },
        { kind: 'setField', field: 'status', value: 'rejected' },
      ],
      inBook: 1,
      foundBy: 'RESPONSE',
    },
    {
      what: 'A25 a 403 in HTML from something in between, after the order was taken in',
      faults: [{ kind: 'status', status: 403, body: html, when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'a 422 that is not in an envelope of the broker',
      faults: [{ kind: 'status', status: 422, body: { code: 422, message: 'No.' }, when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'a 401 that is not in an envelope of the broker',
      faults: [{ kind: 'status', status: 401, body: { error: 'unauthorized' }, when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'a 429 in HTML, after the order was taken in',
      faults: [{ kind: 'status', status: 429, body: html, headers: { 'retry-after': '1' }, when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'A21 a 409, after the order was taken in',
      faults: [{ kind: 'status', status: 409, body: bluumError('BLUM-409-001'), when: 'afterCommit' }],
      inBook: 1,
    },
    {
      what: 'a 409 that took nothing in',
      faults: [{ kind: 'status', status: 409, body: bluumError('BLUM-409-002') }],
      inBook: 0,
    },
  ]

  test.each(endings)(
    '$what: sent once, and found out what became of it',
    async ({ faults, inBook, foundBy = 'CLIENT_ORDER_ID' }) => {
      await harness.setRules(...faults.map(onNextPlace))
      const input = limitBuy()
      const outcome =
        inBook === 1
          ? { __typename: 'OrderPlaced', orderId: expect.any(String) }
          : {
              __typename: 'OrderNotPlaced',
              notPlacedCode: 'NEVER_APPEARED',
              certainty: 'ASSUMED',
              retrySameKey: false,
              orderId: null,
            }
      const answer = await harness.run(placeDocument, { input })
      expectData(answer)
      expect(answer.data.placeOrder).toMatchObject(outcome)
      expect(await booked(input.clientOrderId)).toHaveLength(inBook)

      expect(await place(input)).toMatchObject(outcome)
      expect(await place({ ...input, quantity: '5.0' })).toMatchObject(outcome)
      expect(await place({ ...input, quantity: '6' })).toMatchObject({ problems: [{ code: 'KEY_REUSED' }] })
      const { data } = await harness.run(placementDocument, input)
      expect(data.placement).toMatchObject({
        state: inBook === 1 ? 'PLACED' : 'NOT_PLACED',
        attempts: 1,
        foundBy: inBook === 1 ? foundBy : null,
      })
      expect(await posts()).toHaveLength(1)
      expect(await booked(input.clientOrderId)).toHaveLength(inBook)
    },
  )

  // An unknown outcome is data: some gateways repeat a mutation on an error status or a Retry-After.
  function expectData(answer: Answer): void {
    expect(answer.status).toBe(200)
    expect(answer.headers.has('retry-after')).toBe(false)
    expect(answer.errors).toBeUndefined()
  }

  function expectUnknown(answer: Answer, clientOrderId: string): void {
    expectData(answer)
    expect(answer.data.placeOrder).toEqual({
      __typename: 'OrderOutcomeUnknown',
      outcome: 'UNKNOWN',
      clientOrderId,
      orderId: null,
      order: null,
      message: expect.stringContaining('may exist'),
      retryAfterMs: expect.any(Number),
    })
  }

  test.each([301, 302, 303, 307, 308])('A23 a %i is not followed', async (status) => {
    let hits = 0
    const target = createServer((_request, response) => {
      hits++
      response.end('{}')
    })
    target.listen(0, '127.0.0.1')
    await once(target, 'listening')
    onTestFinished(() => void target.close())
    const location = `http://127.0.0.1:${(target.address() as AddressInfo).port}/v1/orders`
    await harness.setRules(onNextPlace({ kind: 'status', status, headers: { location } }))
    const input = limitBuy()
    expect(await place(input)).toMatchObject({ notPlacedCode: 'NEVER_APPEARED', certainty: 'ASSUMED' })
    expect(await place(input)).toMatchObject({ notPlacedCode: 'NEVER_APPEARED', certainty: 'ASSUMED' })
    expect(hits).toBe(0)
    expect(await posts()).toHaveLength(1)
  })

  test('the broker goes away with the order in its hands', async () => {
    await hasty.setRules(onNextPlace({ kind: 'refuse' }))
    const input = limitBuy({ accountId: hasty.accountId, quantity: '7' })
    expectUnknown(await hasty.run(placeDocument, { input }), input.clientOrderId)
    await hasty.setRules()
    expectUnknown(await hasty.run(placeDocument, { input }), input.clientOrderId)
    expect(await posts(hasty)).toHaveLength(1)
  })

  test.each(['beforeCommit', 'afterCommit'])(
    'A09 a caller is answered in time while the send lives on, hanging %s',
    async (when) => {
      await hasty.setRules(onEachPlace({ kind: 'hang', when, ms: 800 }))
      const input = limitBuy({ accountId: hasty.accountId })
      expectUnknown(await hasty.run(placeDocument, { input }), input.clientOrderId)
      expect(await posts(hasty)).toMatchObject([{ status: null }])
      const joined = await Promise.all([place(input, hasty), place(input, hasty)])
      expect(joined).toMatchObject([{ outcome: 'UNKNOWN' }, { outcome: 'UNKNOWN' }])

      let last: Result | undefined
      await eventually(async () => {
        last = await place(input, hasty)
        expect(last).toMatchObject({ __typename: 'OrderPlaced', replayed: true })
      })
      expect(await posts(hasty)).toHaveLength(1)
      expect(await booked(input.clientOrderId, hasty)).toMatchObject([{ id: last?.orderId }])
    },
  )

  test('a refusal that comes after its caller was answered is the answer to the repeat', async () => {
    await hasty.setRules(onEachPlace({ kind: 'latency', ms: 500 }))
    const input = limitBuy({ accountId: hasty.accountId, symbol: 'ZZZZ' })
    expect(await place(input, hasty)).toMatchObject({ outcome: 'UNKNOWN' })
    await eventually(async () => {
      const result = await place(input, hasty)
      expect(result).toMatchObject({ __typename: 'OrderRejected', rejectionCode: 'ASSET_NOT_FOUND', replayed: true })
    })
    expect(await posts(hasty)).toHaveLength(1)
  })
})

describe('an answer with less than an order', () => {
  test('an id is enough, and what is missing is read', async () => {
    const fields = ['account_id', 'symbol', 'side', 'type', 'qty', 'client_order_id', 'status', 'limit_price']
    await harness.setRules(...fields.map((field) => onNextPlace({ kind: 'dropField', field })))
    const input = limitBuy()
    const result = await place(input)
    const [order] = await booked(input.clientOrderId)
    expect(result).toMatchObject({
      __typename: 'OrderPlaced',
      orderId: order?.['id'],
      order: { id: order?.['id'], status: 'ACCEPTED', quantity: '5', limitPrice: '10.00' },
    })
  })

  test('an order that cannot be read now is placed anyway', async () => {
    await harness.setRules(onNextPlace({ kind: 'dropField', field: 'status' }), {
      match: { method: 'GET' },
      fault: { kind: 'status', status: 503 },
    })
    const input = limitBuy()
    const result = await place(input)
    const [order] = await booked(input.clientOrderId)
    expect(result).toMatchObject({ __typename: 'OrderPlaced', orderId: order?.['id'], order: null })
  })

  test.each(['5.0', '5.00000'])('the broker may write the quantity as %s', async (value) => {
    await harness.setRules(onNextPlace({ kind: 'setField', field: 'qty', value }))
    expect(await place(limitBuy())).toMatchObject({ __typename: 'OrderPlaced', order: { quantity: value } })
  })

  test('the broker may write the quantity as a number', async () => {
    await harness.setRules(onNextPlace({ kind: 'asNumber', field: 'qty', source: '0.5e1' }))
    expect(await place(limitBuy())).toMatchObject({ __typename: 'OrderPlaced', orderId: expect.any(String) })
  })

  test('a replay shows the order as it is now', async () => {
    const input = limitBuy()
    const { orderId } = await place(input)
    await harness.control('POST', `/orders/${orderId}/fill`, {})
    expect(await place(input)).toMatchObject({ replayed: true, order: { status: 'FILLED' } })
  })
})

// ---- callers and processes that leave ---------------------------------------------------------------------------

describe('leaving', () => {
  test('A26 a client that disconnects abandons no order', async () => {
    await harness.setRules(onEachPlace({ kind: 'latency', ms: 300 }))
    const input = limitBuy()
    const client = new AbortController()
    const answer = fetch(harness.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: placeDocument, variables: { input } }),
      signal: client.signal,
    })
    const left = expect(answer).rejects.toThrow()
    await eventually(async () => expect(await posts()).toHaveLength(1))
    client.abort()
    await left
    expect(await booked(input.clientOrderId)).toEqual([])
    await eventually(async () => expect(await booked(input.clientOrderId)).toHaveLength(1))
    expect(await place(input)).toMatchObject({ __typename: 'OrderPlaced', replayed: true })
    expect(await posts()).toMatchObject([{ status: 201 }])
  })

  test('a graceful stop finishes what is under way and takes nothing new', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'blotter-stop-'))
    onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
    const stopping = await startForTest({ DATA_DIR: dataDir })
    await stopping.setRules(onEachPlace({ kind: 'latency', ms: 400 }))
    const input = limitBuy({ accountId: stopping.accountId })
    const underWay = place(input, stopping)
    await eventually(async () => expect(await posts(stopping)).toHaveLength(1))

    const stopped = stopping.close()
    const late = limitBuy({ accountId: stopping.accountId })
    expect(await place(late, stopping)).toMatchObject({
      __typename: 'OrderNotPlaced',
      notPlacedCode: 'SHUTTING_DOWN',
      certainty: 'PROVEN',
      retrySameKey: true,
    })
    // One that was sent before is still told about.
    const [first, repeat] = await Promise.all([underWay, place(input, stopping)])
    expect(first).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
    expect(repeat).toMatchObject({ __typename: 'OrderPlaced', replayed: true, orderId: first.orderId })
    await stopped

    const restarted = await startForTest({ DATA_DIR: dataDir })
    expect(await booked(input.clientOrderId, restarted)).toMatchObject([{ id: first.orderId }])
    expect(await booked(late.clientOrderId, restarted)).toEqual([])
  })
})

// ---- what only a broker in memory can show ----------------------------------------------------------------------

describe('an adapter in memory', () => {
  const order: NewOrder = {
    accountId: 'acc_1',
    clientOrderId: 'key-00001',
    symbol: 'AAPL',
    side: 'BUY',
    type: 'LIMIT',
    timeInForce: 'GTC',
    quantity: '5',
    notional: null,
    limitPrice: '10.00',
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    commission: null,
    commissionType: null,
  }

  /**
   * The commands over an adapter that places as told, and the keys that left. So many sends before the last one are
   * refused unseen, as with a token that has expired.
   */
  function start(answer: (order: NewOrder) => Promise<PlaceAnswer>, refusals = 0, onRefusal?: () => Promise<unknown>) {
    const sent: string[] = []
    const onTrouble = vi.fn<(message: string, error: unknown) => void>()
    const notAsked = () => Promise.reject(new Error('not asked here'))
    const broker: Broker = {
      id: 'BLUUM',
      capabilities: createBluum({
        url: 'http://127.0.0.1:9',
        apiKey: '',
        apiSecret: '',
        requestsPerSecond: 1,
        breaker: false,
      }).capabilities,
      features: dialects.accounts.features,
      orders: notAsked,
      pages: notAsked,
      accounts: notAsked,
      scan: () => Promise.resolve({ orders: [], isComplete: true }),
      unsupported: () => [],
      planLists: (statuses) => [statuses],
      async place(placed, { beforeSend }) {
        for (let send = 1; ; send++) {
          await beforeSend()
          sent.push(placed.clientOrderId)
          if (send > refusals) return await answer(placed)
          await onRefusal?.()
        }
      },
      cancel: notAsked,
      close: () => Promise.resolve(),
    }
    const dataDir = mkdtempSync(join(tmpdir(), 'blotter-place-'))
    const store = openSqliteStore({ file: join(dataDir, 'placements.sqlite'), role: 'service', mayCreate: true })
    const never = 600_000
    const commands = createCommands({
      brokers: new Map([['BLUUM', broker]]),
      store,
      clock: systemClock,
      random: Math.random,
      times: {
        replyMs: 50,
        sendByMs: { market: never, other: never },
        lookupMs: [never],
        settleMs: never,
        lateMs: [never],
        assumeAbsent: true,
      },
      trading: 'on',
      placementRate: null,
      onTrouble,
      onNotice: () => {},
    })
    onTestFinished(async () => {
      await commands.close()
      await store.close()
      rmSync(dataDir, { recursive: true })
    })
    const wishes = { sendBy: null, timeoutMs: null, acknowledged: [] }
    return {
      commands,
      sent,
      onTrouble,
      // Each of another size: equal ones would be held back by those without an outcome.
      placeKey: (clientOrderId: string) =>
        commands.place({ ...order, clientOrderId, quantity: clientOrderId.replaceAll(/\D/g, '1') }, wishes),
    }
  }
  const accepted: PlaceAnswer = {
    orderId: 'ord_1',
    status: 'ACCEPTED',
    clientOrderId: null,
    order: null,
    differing: [],
    rejection: null,
  }

  test('A27 a bug in the middle of a placement leaves it unknown, tells the operator, and sends nothing again', async () => {
    const bug = new TypeError('a bug')
    const { placeKey, sent, onTrouble } = start(() => Promise.reject(bug))
    expect(await placeKey('key-00001')).toMatchObject({ outcome: 'UNKNOWN' })
    expect(await placeKey('key-00001')).toMatchObject({ outcome: 'UNKNOWN' })
    expect(sent).toEqual(['key-00001'])
    expect(onTrouble).toHaveBeenCalledExactlyOnceWith(expect.any(String), bug)
  })

  test('A18 an unreadable answer is logged for the operator', async () => {
    const nonsense = new UpstreamError('unreadable', 'about another order')
    const { placeKey, onTrouble } = start(() => Promise.reject(nonsense))
    expect(await placeKey('key-00001')).toMatchObject({ outcome: 'UNKNOWN' })
    expect(onTrouble).toHaveBeenCalledExactlyOnceWith(expect.any(String), nonsense)
  })

  test('an order that the broker refused unseen and that left once more has two attempts', async () => {
    const { placeKey, commands, sent } = start(() => Promise.resolve(accepted), 1)
    expect(await placeKey('key-00001')).toMatchObject({ outcome: 'PLACED', replayed: false })
    expect(sent).toEqual(['key-00001', 'key-00001'])
    expect(await commands.placement('acc_1', 'key-00001')).toMatchObject({ state: 'PLACED', attempts: 2 })
  })

  test('one that is canceled before it leaves once more does not', async () => {
    const input = { orderId: null, accountId: 'acc_1', clientOrderId: 'key-00001' }
    const { placeKey, commands, sent } = start(
      () => Promise.resolve(accepted),
      1,
      // Kept before it is answered, so that nobody has to wait for the answer.
      () => commands.cancel(input, 1),
    )
    expect(await placeKey('key-00001')).toMatchObject({ outcome: 'NOT_PLACED', notPlacedCode: 'CANCELED' })
    expect(sent).toEqual(['key-00001'])
    expect(await commands.placement('acc_1', 'key-00001')).toMatchObject({ state: 'NOT_PLACED', attempts: 1 })
  })

  test('one that comes to be sent once more while the service stops does not leave, and its key sends it later', async () => {
    const { placeKey, commands, sent } = start(
      () => Promise.resolve(accepted),
      1,
      () => Promise.resolve(void commands.close()),
    )
    expect(await placeKey('key-00001')).toMatchObject({
      outcome: 'NOT_PLACED',
      notPlacedCode: 'SHUTTING_DOWN',
      certainty: 'PROVEN',
      retrySameKey: true,
    })
    expect(sent).toEqual(['key-00001'])
  })

  test('with as many under way as can be, nothing new is recorded or sent', async () => {
    const { promise, resolve } = Promise.withResolvers<PlaceAnswer>()
    const { placeKey, sent } = start(() => promise)
    const keys = Array.from({ length: 1_000 }, (_, index) => `key-${String(index).padStart(5, '0')}`)
    const results = keys.map((key) => placeKey(key))
    expect(await placeKey('key-99999')).toMatchObject({
      outcome: 'NOT_PLACED',
      notPlacedCode: 'OVERLOADED',
      certainty: 'PROVEN',
      retrySameKey: true,
    })
    resolve(accepted)
    await Promise.all(results)
    expect(sent).not.toContain('key-99999')
  })

  test('closing waits for what is under way, and takes nothing new', async () => {
    const { promise, resolve } = Promise.withResolvers<PlaceAnswer>()
    const { commands, placeKey, sent } = start(() => promise)
    const first = placeKey('key-00001')
    await eventually(() => Promise.resolve(expect(sent).toHaveLength(1)))
    let isClosed = false
    const closed = commands.close().then(() => (isClosed = true))
    expect(await placeKey('key-00002')).toMatchObject({ outcome: 'NOT_PLACED', notPlacedCode: 'SHUTTING_DOWN' })
    await new Promise(setImmediate)
    expect(isClosed).toBe(false)
    resolve(accepted)
    expect(await first).toMatchObject({ outcome: 'PLACED', replayed: false })
    await closed
    expect(sent).toEqual(['key-00001'])
  })
})

// ---- inputs -----------------------------------------------------------------------------------------------------

describe('an input that breaks rules', () => {
  const bps = { commissionType: 'BPS' }
  const market = { type: 'MARKET', limitPrice: null }
  const stop = { type: 'STOP', limitPrice: null, stopPrice: '200' }
  const trailing = { type: 'TRAILING_STOP', limitPrice: null, trailPercent: '3.5' }
  const broken: [what: string, fields: object, ...problems: [field: string, code: string][]][] = [
    ['H03 neither quantity nor notional', { quantity: null }, ['quantity', 'REQUIRED']],
    ['H03 quantity and notional', { ...market, notional: '100' }, ['notional', 'CONFLICT']],
    ['H03 notional with a limit', { quantity: null, notional: '100' }, ['notional', 'NOT_ALLOWED']],
    [
      'H03 notional in a sale',
      { ...market, side: 'SELL', quantity: null, notional: '100' },
      ['notional', 'NOT_ALLOWED'],
    ],
    ['H03 both, and not allowed', { notional: '100' }, ['notional', 'CONFLICT'], ['notional', 'NOT_ALLOWED']],

    ['H03 MARKET with limitPrice', { type: 'MARKET' }, ['limitPrice', 'NOT_ALLOWED']],
    ['H03 MARKET with stopPrice', { ...market, stopPrice: '1' }, ['stopPrice', 'NOT_ALLOWED']],
    ['H03 MARKET with trailPercent', { ...market, trailPercent: '1' }, ['trailPercent', 'NOT_ALLOWED']],
    ['H03 MARKET with trailPrice', { ...market, trailPrice: '1' }, ['trailPrice', 'NOT_ALLOWED']],
    ['H03 LIMIT without limitPrice', { limitPrice: null }, ['limitPrice', 'REQUIRED']],
    ['H03 LIMIT with stopPrice', { stopPrice: '1' }, ['stopPrice', 'NOT_ALLOWED']],
    ['H03 LIMIT with trailPercent', { trailPercent: '1' }, ['trailPercent', 'NOT_ALLOWED']],
    ['H03 LIMIT with trailPrice', { trailPrice: '1' }, ['trailPrice', 'NOT_ALLOWED']],
    ['H03 STOP without stopPrice', { ...stop, stopPrice: null }, ['stopPrice', 'REQUIRED']],
    ['H03 STOP with limitPrice', { ...stop, limitPrice: '1' }, ['limitPrice', 'NOT_ALLOWED']],
    ['H03 STOP with trailPercent', { ...stop, trailPercent: '1' }, ['trailPercent', 'NOT_ALLOWED']],
    ['H03 STOP with trailPrice', { ...stop, trailPrice: '1' }, ['trailPrice', 'NOT_ALLOWED']],
    [
      'H03 STOP_LIMIT without its prices',
      { type: 'STOP_LIMIT', limitPrice: null },
      ['limitPrice', 'REQUIRED'],
      ['stopPrice', 'REQUIRED'],
    ],
    ['H03 STOP_LIMIT without stopPrice', { type: 'STOP_LIMIT' }, ['stopPrice', 'REQUIRED']],
    [
      'H03 STOP_LIMIT with trailPrice',
      { type: 'STOP_LIMIT', stopPrice: '9', trailPrice: '1' },
      ['trailPrice', 'NOT_ALLOWED'],
    ],
    [
      'H03 STOP_LIMIT with trailPercent',
      { type: 'STOP_LIMIT', stopPrice: '9', trailPercent: '1' },
      ['trailPercent', 'NOT_ALLOWED'],
    ],
    ['H03 TRAILING_STOP without a trail', { ...trailing, trailPercent: null }, ['trailPercent', 'REQUIRED']],
    ['H03 TRAILING_STOP with two trails', { ...trailing, trailPrice: '1' }, ['trailPrice', 'CONFLICT']],
    ['H03 TRAILING_STOP with limitPrice', { ...trailing, limitPrice: '1' }, ['limitPrice', 'NOT_ALLOWED']],
    ['H03 TRAILING_STOP with stopPrice', { ...trailing, stopPrice: '1' }, ['stopPrice', 'NOT_ALLOWED']],

    ['quantity zero', { quantity: '0.00' }, ['quantity', 'NOT_POSITIVE']],
    ['quantity below zero', { quantity: '-1' }, ['quantity', 'NOT_POSITIVE']],
    ['notional zero', { ...market, quantity: null, notional: '0' }, ['notional', 'NOT_POSITIVE']],
    ['limitPrice zero', { limitPrice: '0' }, ['limitPrice', 'NOT_POSITIVE']],
    ['stopPrice below zero', { ...stop, stopPrice: '-0.01' }, ['stopPrice', 'NOT_POSITIVE']],
    ['trailPercent zero', { ...trailing, trailPercent: '0' }, ['trailPercent', 'NOT_POSITIVE']],
    ['trailPrice below zero', { ...trailing, trailPercent: null, trailPrice: '-1' }, ['trailPrice', 'NOT_POSITIVE']],
    ['commission below zero', { commission: '-0.01' }, ['commission', 'NOT_POSITIVE']],
    ['commission of minus zero', { commission: '-0' }, ['commission', 'NOT_POSITIVE']],

    ['a quantity of 39 digits', { quantity: `1.${'0'.repeat(38)}` }, ['quantity', 'TOO_LONG']],
    ['a limitPrice of 39 digits', { limitPrice: '9'.repeat(39) }, ['limitPrice', 'TOO_LONG']],
    ['a commission of 39 digits', { commission: `0.${'1'.repeat(38)}` }, ['commission', 'TOO_LONG']],

    ['basis points with three decimals', { ...bps, commission: '1.125' }, ['commission', 'TOO_PRECISE']],
    ['commissionType without commission', { ...bps }, ['commission', 'REQUIRED']],

    ['H06 an empty key', { clientOrderId: '' }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key of 7', { clientOrderId: 'k'.repeat(7) }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key of 37', { clientOrderId: 'k'.repeat(37) }, ['clientOrderId', 'TOO_LONG']],
    ['H06 a key that begins with a hyphen', { clientOrderId: '-key-00001' }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key that begins with a point', { clientOrderId: '..key-0001' }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key with a blank', { clientOrderId: 'key 00001' }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key with a line break', { clientOrderId: 'key-00001\n' }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key with a slash', { clientOrderId: 'key/00001' }, ['clientOrderId', 'BAD_FORMAT']],
    ['H06 a key with a letter that is not ASCII', { clientOrderId: 'schlüssel' }, ['clientOrderId', 'BAD_FORMAT']],

    [
      'more keys acknowledged than there can be',
      { acknowledgeUnresolved: Array.from({ length: 101 }, (_, n) => `key-0000${n}`) },
      ['acknowledgeUnresolved', 'TOO_LONG'],
    ],
    [
      'a key acknowledged that is none',
      { acknowledgeUnresolved: ['key-00001', 'k'.repeat(5_000)] },
      ['acknowledgeUnresolved', 'BAD_FORMAT'],
    ],

    ['H05 a ticker in lower case', { symbol: 'aapl' }, ['symbol', 'BAD_FORMAT']],
    ['H05 a ticker with a Cyrillic letter', { symbol: 'ААPL' }, ['symbol', 'BAD_FORMAT']],
    ['H05 a ticker of 30 characters', { symbol: 'A'.repeat(30) }, ['symbol', 'BAD_FORMAT']],
    ['H05 no ticker', { symbol: '' }, ['symbol', 'BAD_FORMAT']],
    ['H05 a ticker with blanks', { symbol: ' AAPL' }, ['symbol', 'BAD_FORMAT']],
    ['H05 a ticker with a character of no width', { symbol: 'AAPL\u200b' }, ['symbol', 'BAD_FORMAT']],

    ['an account id that climbs a path', { accountId: '../accounts' }, ['accountId', 'BAD_FORMAT']],
    ['an account id of two points', { accountId: '..' }, ['accountId', 'BAD_FORMAT']],
    ['no account id', { accountId: '' }, ['accountId', 'BAD_FORMAT']],
    ['an order of Aries in the place of an account', { accountId: 'aries:ACC-1:1' }, ['accountId', 'BAD_FORMAT']],
    ['a side that the broker does not know', { side: 'SELL_SHORT' }, ['side', 'NOT_SUPPORTED']],
  ]

  test.each(broken)('%s', async (_, fields, ...problems) => {
    const result = await place(limitBuy(fields))
    expect(result).toMatchObject({ __typename: 'OrderInvalid', outcome: 'INVALID', orderId: null, order: null })
    expect(result.problems?.map(({ field, code }) => [field, code])).toEqual(
      problems.map(([field, code]) => [['input', field], code]),
    )
    for (const { message } of result.problems ?? []) expect(message).toMatch(/^[A-Z].*\.$|^\w+ (must|may) .*\.$/)
    expect(await harness.calls()).toEqual([])
  })

  test('H03 all problems come at once', async () => {
    const result = await place({
      accountId: '../x',
      clientOrderId: 'short',
      symbol: 'aapl',
      side: 'SELL_SHORT',
      type: 'STOP_LIMIT',
      timeInForce: 'GTC',
      quantity: '-1',
      notional: '0',
      trailPercent: '0',
      commission: '-1.005',
      commissionType: 'BPS',
    })
    const found = result.problems?.map(({ field, code }) => `${field.join('.')} ${code}`).sort()
    expect(found).toEqual(
      [
        'input.accountId BAD_FORMAT',
        'input.clientOrderId BAD_FORMAT',
        'input.symbol BAD_FORMAT',
        'input.side NOT_SUPPORTED',
        'input.notional CONFLICT',
        'input.notional NOT_ALLOWED',
        'input.limitPrice REQUIRED',
        'input.stopPrice REQUIRED',
        'input.trailPercent NOT_ALLOWED',
        'input.commission TOO_PRECISE',
        'input.quantity NOT_POSITIVE',
        'input.notional NOT_POSITIVE',
        'input.trailPercent NOT_POSITIVE',
        'input.commission NOT_POSITIVE',
      ].sort(),
    )
    expect(await harness.calls()).toEqual([])
  })

  test('a key is not spent by an input that was refused', async () => {
    const input = limitBuy()
    expect(await place({ ...input, quantity: '0' })).toMatchObject({ outcome: 'INVALID' })
    expect(await place(input)).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
  })

  test.each([8, 36])('H06 a key of %i characters is taken', async (length) => {
    const clientOrderId = `${length}-${randomUUID().replaceAll('-', '')}._-x`.slice(0, length)
    expect(clientOrderId).toHaveLength(length)
    expect(await place(limitBuy({ clientOrderId }))).toMatchObject({ __typename: 'OrderPlaced', clientOrderId })
    expect(await booked(clientOrderId)).toHaveLength(1)
  })

  test('H06 keys that differ in case are two keys', async () => {
    const id = randomUUID().slice(0, 8)
    const upper = await place(limitBuy({ clientOrderId: `Twin-${id}` }))
    const lower = await place(limitBuy({ clientOrderId: `twin-${id}` }))
    expect([upper, lower]).toMatchObject([{ replayed: false }, { replayed: false }])
    expect(upper.orderId).not.toBe(lower.orderId)
    expect(await posts()).toHaveLength(2)
  })

  test('values at their bounds are taken', async () => {
    const sale = { side: 'SELL', quantity: '1', limitPrice: '9'.repeat(38) }
    expect(await place(limitBuy(sale))).toMatchObject({
      __typename: 'OrderPlaced',
      order: { limitPrice: sale.limitPrice },
    })
    const charged = { commission: '1.25', ...bps }
    expect(await place(limitBuy(charged))).toMatchObject({ __typename: 'OrderPlaced' })
    expect(await place(limitBuy({ commission: '0' }))).toMatchObject({ __typename: 'OrderPlaced' })
  })
})

describe('H01 a decimal', () => {
  const variables: [value: unknown, becomes: string][] = [
    ['0', 'OrderInvalid NOT_POSITIVE'],
    ['-1', 'OrderInvalid NOT_POSITIVE'],
    ['9'.repeat(40), 'OrderInvalid TOO_LONG'],
    ['1e5', 'OrderInvalid BAD_FORMAT'],
    ['NaN', 'OrderInvalid BAD_FORMAT'],
    ['Infinity', 'OrderInvalid BAD_FORMAT'],
    ['1,000', 'OrderInvalid BAD_FORMAT'],
    ['+1', 'OrderInvalid BAD_FORMAT'],
    ['１', 'OrderInvalid BAD_FORMAT'],
    ['00.10', 'OrderInvalid BAD_FORMAT'],
    ['.5', 'OrderInvalid BAD_FORMAT'],
    ['5.', 'OrderInvalid BAD_FORMAT'],
    ['', 'OrderInvalid BAD_FORMAT'],
    [' 5', 'OrderInvalid BAD_FORMAT'],
    [' 10 ', 'OrderInvalid BAD_FORMAT'],
    ['1 000', 'OrderInvalid BAD_FORMAT'],
    ['１０', 'OrderInvalid BAD_FORMAT'],
    ['five', 'OrderInvalid BAD_FORMAT'],
    ['$5', 'OrderInvalid BAD_FORMAT'],
    ['5\u0000', 'OrderInvalid BAD_FORMAT'],
    ['5\n', 'OrderInvalid BAD_FORMAT'],
    ['-', 'OrderInvalid BAD_FORMAT'],
    ['0x5', 'OrderInvalid BAD_FORMAT'],
    ['9'.repeat(101), 'OrderInvalid BAD_FORMAT'],
    [0.1, 'BAD_USER_INPUT'],
    [1e21, 'BAD_USER_INPUT'],
    [2 ** 53, 'BAD_USER_INPUT'],
    [true, 'BAD_USER_INPUT'],
    [['5'], 'BAD_USER_INPUT'],
    [{ value: '5' }, 'BAD_USER_INPUT'],
    [10, 'BAD_USER_INPUT'],
    // What JSON.parse makes of 2.99999999999999999999.
    [JSON.parse('2.99999999999999999999'), 'BAD_USER_INPUT'],
    [1e3, 'BAD_USER_INPUT'],
    ['5', 'OrderPlaced 5'],
    ['0.10', 'OrderPlaced 0.10'],
    ['5.00', 'OrderPlaced 5.00'],
  ]
  test.each(variables)('as the variable %j: %s', async (quantity, becomes) => {
    await expectQuantity(await harness.run(placeDocument, { input: limitBuy({ quantity }) }), becomes)
  })

  const literals: [literal: string, becomes: string][] = [
    ['"5.50"', 'OrderPlaced 5.50'],
    ['10', 'OrderPlaced 10'],
    // Its digits are text in the document, so none is lost; the account has no such sum.
    ['12345678901234567890', 'OrderRejected 12345678901234567890'],
    ['-1', 'OrderInvalid NOT_POSITIVE'],
    ['"1e5"', 'OrderInvalid BAD_FORMAT'],
    ['"1,000"', 'OrderInvalid BAD_FORMAT'],
    ['""', 'OrderInvalid BAD_FORMAT'],
    ['1.5', 'GRAPHQL_VALIDATION_FAILED'],
    ['1e5', 'GRAPHQL_VALIDATION_FAILED'],
    ['5.0', 'GRAPHQL_VALIDATION_FAILED'],
    ['true', 'GRAPHQL_VALIDATION_FAILED'],
    ['FIVE', 'GRAPHQL_VALIDATION_FAILED'],
  ]
  test.each(literals)('as the literal %s: %s', async (literal, becomes) => {
    await expectQuantity(await harness.run(writeDocument(literal)), becomes)
  })

  async function expectQuantity(answer: Answer, becomes: string): Promise<void> {
    const [kind, detail] = becomes.split(' ')
    if (detail === undefined) {
      expect(answer.data?.placeOrder ?? null).toBeNull()
      expect(answer.errors).toMatchObject([{ extensions: { code: kind } }])
      // How to write it, and no word of what is inside.
      expect(answer.errors?.[0]?.message).toContain('write a string of plain digits such as "175.00"')
      expect(await harness.calls()).toEqual([])
      return
    }
    expect(answer.data.placeOrder.__typename).toBe(kind)
    if (kind === 'OrderInvalid') {
      expect(answer.data.placeOrder.problems).toMatchObject([{ field: ['input', 'quantity'], code: detail }])
      expect(await harness.calls()).toEqual([])
      return
    }
    const [sent] = await posts()
    expect(sent?.body).toContain(`"qty":"${detail}"`)
  }

  test('a float literal is refused because it loses digits', async () => {
    const { errors } = await harness.run(writeDocument('1.5'))
    expect(errors?.[0]?.message).toContain(
      '1.5 is a float, which loses digits on its way: write a string of plain digits such as "175.00"',
    )
    expect(await harness.calls()).toEqual([])
  })

  test('amounts as people type them are problems of their fields, with all other problems', async () => {
    const typed = { quantity: '1,000', limitPrice: '.5', stopPrice: '', commission: ' 10 ', symbol: 'aapl' }
    const { data, errors } = await harness.run(placeDocument, { input: limitBuy(typed) })
    expect(errors).toBeUndefined()
    const { problems } = data.placeOrder as Result
    expect(problems?.map(({ field, code }) => `${field.join('.')} ${code}`)).toEqual([
      'input.symbol BAD_FORMAT',
      'input.stopPrice NOT_ALLOWED',
      'input.quantity BAD_FORMAT',
      'input.limitPrice BAD_FORMAT',
      'input.stopPrice BAD_FORMAT',
      'input.commission BAD_FORMAT',
    ])
    expect(problems?.[2]?.message).toMatch(
      /^quantity is "1,000", which is not a decimal: write a string of plain digits/,
    )
    expect(await harness.calls()).toEqual([])
  })

  test('a number in the variables names its path', async () => {
    const { errors } = await harness.run(placeDocument, { input: limitBuy({ limitPrice: 3 }) })
    expect(errors?.[0]?.message).toContain('at "input.limitPrice"')
  })

  function writeDocument(quantity: string): string {
    return `mutation { placeOrder(input: {
      accountId: "${harness.accountId}", clientOrderId: "${randomUUID()}", symbol: "AAPL", side: BUY, type: LIMIT,
      timeInForce: GTC, limitPrice: "10.00", quantity: ${quantity}
    }) { ${resultFields} } }`
  }
})

describe('an instant to send by', () => {
  test.each(['tomorrow', '2026-03-09', '2026-03-09T15:02:11', '', 1_800_000_000])(
    'H04 %j is no instant, and nothing is sent',
    async (sendBy) => {
      const { data, errors } = await harness.run(placeDocument, { input: limitBuy({ sendBy }) })
      expect(data?.placeOrder ?? null).toBeNull()
      expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }])
      expect(await harness.calls()).toEqual([])
    },
  )

  test('H04 another zone is understood', async () => {
    // Past in its own zone, and not past if the zone were dropped.
    const anHourAgo = new Date(Date.now() - 3_600_000 + 5 * 3_600_000).toISOString().replace('Z', '+05:00')
    expect(await place(limitBuy({ sendBy: anHourAgo }))).toMatchObject({ notPlacedCode: 'DEADLINE' })
    expect(await harness.calls()).toEqual([])
  })
})
