// What a caller of `cancelOrder` sees, and what reaches the broker. A cancel is confirmed only when the broker's book
// says so; the book and the request log are asked each time.

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { limitBuy, startForTest, startHarness } from '../harness.ts'
import type { Harness, LoggedCall } from '../harness.ts'

interface Result {
  __typename: string
  outcome: string
  orderId: string | null
  order: Record<string, unknown> | null
  message: string
  alreadyCanceled?: boolean
  retryAfterMs?: number | null
  refusalCode?: string
  brokerCode?: string | null
  reason?: string | null
  problems?: { field: string[]; code: string; message: string }[]
}

const resultFields = `
  __typename outcome orderId message
  order { id status state isCancelable quantity filledQuantity canceledAt }
  ... on CancelConfirmed { alreadyCanceled }
  ... on CancelPending { retryAfterMs }
  ... on CancelRefused { refusalCode brokerCode reason }
  ... on CancelInvalid { problems { field code message } }
`
const cancelDocument = `mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) { ${resultFields} } }`
const placeDocument = `mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome orderId } }`

let harness: Harness
/** A service that answers its callers soon, whatever the broker does. */
let hasty: Harness
beforeAll(async () => {
  harness = await startHarness({ BREAKER: 'off' })
  hasty = await startHarness({ PLACE_REPLY_MS: '300', BREAKER: 'off' })
})
afterAll(() => Promise.all([harness.close(), hasty.close()]))

afterEach(async () => {
  await harness.setRules()
  await hasty.setRules()
  await harness.control('PUT', '/switches', { market: 'open', errorEnvelope: 'flat' })
  await harness.clearCalls()
  await hasty.clearCalls()
})

/** Places an order that rests, and clears the log. Its id. */
async function placeResting(of = harness): Promise<string> {
  const { data } = await of.run(placeDocument, { input: limitBuy(of) })
  expect(data.placeOrder.outcome).toBe('PLACED')
  await of.clearCalls()
  return data.placeOrder.orderId as string
}

async function cancel(input: object, of = harness): Promise<Result> {
  const answer = await of.run(cancelDocument, { input })
  expect(answer.errors).toBeUndefined()
  expect(answer.status).toBe(200)
  expect(answer.headers.has('retry-after')).toBe(false)
  return answer.data.cancelOrder as Result
}

/** The cancels that reached the broker since its log was cleared. */
async function cancels(of = harness): Promise<LoggedCall[]> {
  return (await of.calls()).filter(({ method }) => method === 'POST')
}

async function statusInBook(orderId: string, of = harness): Promise<unknown> {
  return (await of.book()).find((order) => order['id'] === orderId)?.['status']
}

const onCancel = { method: 'POST', path: '/cancel$' }
/** A rule for the next cancel only. */
const onNextCancel = (fault: object): object => ({ match: { ...onCancel, times: 1 }, fault })
const onEachCancel = (fault: object): object => ({ match: onCancel, fault })
const bluumError = (code: string): object => ({ code, message: `The words for ${code}.` })

const kept = { __typename: 'CancelPending', message: expect.stringContaining('It is kept') }
const confirmed = {
  __typename: 'CancelConfirmed',
  outcome: 'CANCELED',
  alreadyCanceled: false,
  order: { status: 'CANCELED', state: 'CLOSED', isCancelable: false },
}

describe('a healthy broker', () => {
  test('B01 an open order is canceled, with nothing filled', async () => {
    const orderId = await placeResting()
    const result = await cancel({ orderId })
    expect(result).toMatchObject({ ...confirmed, orderId, order: { ...confirmed.order, filledQuantity: '0' } })
    expect(result.order?.['canceledAt']).toMatch(/Z$/)
    expect(await statusInBook(orderId)).toBe('canceled')
    expect((await harness.calls()).map(({ method, path }) => `${method} ${path}`)).toEqual([
      `GET /v1/trading/orders/${orderId}`,
      `POST /v1/trading/accounts/${harness.accountId}/orders/${orderId}/cancel`,
    ])
  })

  test('B02 canceling again is harmless and asks for nothing', async () => {
    const orderId = await placeResting()
    const first = await cancel({ orderId })
    await harness.clearCalls()
    const again = await cancel({ orderId })
    expect(again).toMatchObject({ ...confirmed, alreadyCanceled: true, orderId })
    expect(again.order).toEqual(first.order)
    expect(await cancels()).toEqual([])
  })

  test('the account may be named', async () => {
    const orderId = await placeResting()
    expect(await cancel({ orderId, accountId: harness.accountId })).toMatchObject({ ...confirmed, orderId })
    expect(await cancels()).toHaveLength(1)
  })

  test.each(['3', '9.999999999'])('B04 the filled part stays filled: %s', async (quantity) => {
    const orderId = await placeResting()
    await harness.control('POST', `/orders/${orderId}/fill`, { quantity })
    expect(await cancel({ orderId })).toMatchObject({
      ...confirmed,
      order: { ...confirmed.order, filledQuantity: quantity, quantity: '10' },
    })
  })

  test('an order that fills while its cancel is on its way is refused as filled', async () => {
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'fillOnCancel' }))
    expect(await cancel({ orderId })).toMatchObject({
      __typename: 'CancelRefused',
      outcome: 'REFUSED',
      refusalCode: 'ALREADY_FILLED',
      orderId,
      order: { id: orderId, status: 'FILLED', filledQuantity: '10' },
    })
    expect(await cancels()).toHaveLength(1)
  })

  test('an order that fills in part while its cancel is on its way is canceled with that part', async () => {
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'fillOnCancel', quantity: '4' }))
    expect(await cancel({ orderId })).toMatchObject({
      ...confirmed,
      order: { ...confirmed.order, filledQuantity: '4' },
    })
  })

  test('a filled order is refused without asking', async () => {
    const orderId = await placeResting()
    await harness.control('POST', `/orders/${orderId}/fill`, {})
    expect(await cancel({ orderId })).toMatchObject({
      __typename: 'CancelRefused',
      refusalCode: 'ALREADY_FILLED',
      order: { status: 'FILLED', filledQuantity: '10' },
    })
    expect(await cancels()).toEqual([])
  })

  test('a rejected order is refused without asking', async () => {
    await harness.control('PUT', '/switches', { market: 'closed-rejects' })
    const { data } = await harness.run(placeDocument, { input: limitBuy(harness) })
    await harness.clearCalls()
    expect(data.placeOrder.outcome).toBe('REJECTED')
    expect(await cancel({ orderId: data.placeOrder.orderId })).toMatchObject({
      __typename: 'CancelRefused',
      refusalCode: 'ALREADY_CLOSED',
      order: { status: 'REJECTED' },
    })
    expect(await cancels()).toEqual([])
  })

  test('B11 fifty at once are one cancel with one answer', async () => {
    const orderId = await placeResting()
    await harness.setRules(onEachCancel({ kind: 'latency', ms: 200 }))
    const results = await Promise.all(Array.from({ length: 50 }, () => cancel({ orderId })))
    expect(results[0]).toMatchObject({ ...confirmed, orderId })
    expect(new Set(results.map((result) => JSON.stringify(result))).size).toBe(1)
    expect(await cancels()).toHaveLength(1)
  })

  test('B11 with and without the account at once: all get CancelConfirmed', async () => {
    const orderId = await placeResting()
    await harness.setRules(onEachCancel({ kind: 'latency', ms: 200 }))
    const inputs = [{ orderId }, { orderId, accountId: harness.accountId }]
    const results = await Promise.all(Array.from({ length: 20 }, (_, index) => cancel(inputs[index % 2] ?? {})))
    for (const result of results) expect(result).toMatchObject({ outcome: 'CANCELED', orderId })
    expect((await cancels()).length).toBeLessThanOrEqual(2)
  })

  test('later fields of the document see the order canceled', async () => {
    const input = limitBuy(harness)
    const { data: placed } = await harness.run(placeDocument, { input })
    const { orderId } = placed.placeOrder
    const document = `mutation ($place: PlaceOrderInput!, $cancel: CancelOrderInput!) {
      before: placeOrder(input: $place) { order { status } }
      cancel: cancelOrder(input: $cancel) { outcome order { status } }
      after: placeOrder(input: $place) { order { status canceledAt } }
      again: cancelOrder(input: $cancel) { outcome ... on CancelConfirmed { alreadyCanceled } }
    }`
    const { data, errors } = await harness.run(document, { place: input, cancel: { orderId } })
    expect(errors).toBeUndefined()
    expect(data).toMatchObject({
      before: { order: { status: 'ACCEPTED' } },
      cancel: { outcome: 'CANCELED', order: { status: 'CANCELED' } },
      after: { order: { status: 'CANCELED', canceledAt: expect.stringMatching(/Z$/) } },
      again: { outcome: 'CANCELED', alreadyCanceled: true },
    })
    expect(await cancels()).toHaveLength(2) // The placement, and one cancel.
  })
})

describe('an order that is not there', () => {
  const missing = {
    __typename: 'CancelRefused',
    outcome: 'REFUSED',
    refusalCode: 'NOT_FOUND',
    brokerCode: null,
    reason: null,
    order: null,
  }

  test('B13 a missing order is not found after one read', async () => {
    expect(await cancel({ orderId: 'ord_missing' })).toMatchObject({ ...missing, orderId: 'ord_missing' })
    expect(await harness.calls()).toMatchObject([{ method: 'GET', status: 404 }])
  })

  test("B09 another account's order answers exactly like a missing one, and stays open", async () => {
    const [, otherAccount = ''] = harness.sandbox.accounts
    const orderId = await placeResting()
    const foreign = await cancel({ orderId, accountId: otherAccount })
    expect(await cancels()).toEqual([])
    const absent = await cancel({ orderId: 'ord_missing', accountId: otherAccount })
    expect(foreign).toEqual({ ...absent, orderId })
    expect(absent).toMatchObject(missing)
    expect(await statusInBook(orderId)).toBe('accepted')
  })

  test('B09 a foreign cancel in between neither shares nor spoils the one of the owner', async () => {
    const [, otherAccount = ''] = harness.sandbox.accounts
    const orderId = await placeResting()
    await harness.setRules({ match: { method: 'GET' }, fault: { kind: 'latency', ms: 100 } })
    const [foreign, own, any] = await Promise.all([
      cancel({ orderId, accountId: otherAccount }),
      cancel({ orderId, accountId: harness.accountId }),
      cancel({ orderId }),
    ])
    expect(foreign).toMatchObject(missing)
    expect(own).toMatchObject({ outcome: 'CANCELED' })
    expect(any).toMatchObject({ outcome: 'CANCELED' })
  })
})

describe('an input that breaks rules', () => {
  const broken: [what: string, input: object, ...problems: [field: string, code: string][]][] = [
    ['no order id', {}, ['orderId', 'REQUIRED']],
    ['an order id that is null', { orderId: null }, ['orderId', 'REQUIRED']],
    ['an empty order id', { orderId: '' }, ['orderId', 'BAD_FORMAT']],
    ['an order id that climbs a path', { orderId: '../x' }, ['orderId', 'BAD_FORMAT']],
    ['an order id that climbs a path encoded', { orderId: '..%2Fx' }, ['orderId', 'BAD_FORMAT']],
    ['an order id of two points', { orderId: '..' }, ['orderId', 'BAD_FORMAT']],
    ['an order id with a path inside', { orderId: 'ord_1/../ord_2' }, ['orderId', 'BAD_FORMAT']],
    ['an order id with a query', { orderId: 'ord_1?x=1' }, ['orderId', 'BAD_FORMAT']],
    ['an order id with a line break', { orderId: 'ord_1\r\nx: y' }, ['orderId', 'BAD_FORMAT']],
    ['an order id of 129 characters', { orderId: 'o'.repeat(129) }, ['orderId', 'BAD_FORMAT']],
    ['an account id that climbs a path', { orderId: 'ord_1', accountId: '../x' }, ['accountId', 'BAD_FORMAT']],
    ['two bad ids', { orderId: '..', accountId: '' }, ['orderId', 'BAD_FORMAT'], ['accountId', 'BAD_FORMAT']],
    ['only a bad account id', { accountId: '../x' }, ['orderId', 'REQUIRED'], ['accountId', 'BAD_FORMAT']],
    ['an account of Aries in the place of an order', { orderId: 'aries:ACC-1' }, ['orderId', 'BAD_FORMAT']],
  ]
  test.each(broken)('%s', async (_, input, ...problems) => {
    const result = await cancel(input)
    expect(result).toMatchObject({ __typename: 'CancelInvalid', outcome: 'INVALID', order: null })
    expect(result.problems?.map(({ field, code }) => [field, code])).toEqual(
      problems.map(([field, code]) => [['input', field], code]),
    )
    expect(await harness.calls()).toEqual([])
  })
})

describe('the broker says no', () => {
  test.each(['flat', 'nested', 'status'])('a 409 while the order is open, in its %s envelope', async (shape) => {
    const { code, message } = { code: 'BLUM-409-003', message: 'Cannot be canceled now.' }
    const body = {
      flat: { code, message },
      nested: { error: { type: 'invalid_request_error', code, message } },
      status: { status: 'error', code, message },
    }[shape]
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'status', status: 409, body }))
    expect(await cancel({ orderId })).toMatchObject({
      __typename: 'CancelRefused',
      refusalCode: 'BROKER_REFUSED',
      brokerCode: code,
      reason: message,
      orderId,
      order: { status: 'ACCEPTED', isCancelable: true },
    })
    expect(await cancels()).toHaveLength(1)
    expect(await cancel({ orderId })).toMatchObject(confirmed)
  })

  test.each([
    [403, 'BLUM-403-004'],
    [404, 'BLUM-404-001'],
    [422, 'BLUM-422-099'],
  ])('a %i %s about the order, which stays open', async (status, code) => {
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'status', status, body: bluumError(code) }))
    expect(await cancel({ orderId })).toMatchObject({
      __typename: 'CancelRefused',
      refusalCode: 'BROKER_REFUSED',
      brokerCode: code,
      reason: `The words for ${code}.`,
      order: { status: 'ACCEPTED' },
    })
  })

  test.each([
    [401, 'BLUM-401-003'],
    [403, 'BLUM-403-001'],
    [404, 'BLUM-404-002'],
  ])('a %i %s about us: the cancel is kept, and the next one asks again', async (status, code) => {
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'status', status, body: bluumError(code) }))
    expect(await cancel({ orderId })).toMatchObject({ ...kept, order: { status: 'ACCEPTED' } })
    expect(await statusInBook(orderId)).toBe('accepted')
    expect(await cancel({ orderId })).toMatchObject(confirmed)
  })

  test('a 429: the cancel is kept, and the next one asks again', async () => {
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'status', status: 429, body: bluumError('BLUM-429-001') }))
    expect(await cancel({ orderId })).toMatchObject(kept)
    expect(await statusInBook(orderId)).toBe('accepted')
    expect(await cancel({ orderId })).toMatchObject(confirmed)
  })
})

describe('an answer that does not tell', () => {
  const html = '<html><body>Bad gateway</body></html>'
  const afterCommit: [what: string, ...faults: object[]][] = [
    ['a reset', { kind: 'rstAfterCommit' }],
    ['the end of the connection', { kind: 'finAfterCommit' }],
    ['an answer cut in the middle', { kind: 'truncate' }],
    ['an empty answer', { kind: 'emptyBody' }],
    ['a 204', { kind: 'emptyBody', status: 204 }],
    ['broken JSON', { kind: 'invalidJson' }],
    ['a 502', { kind: 'status', status: 502, body: html, when: 'afterCommit' }],
    ['a success in HTML', { kind: 'status', status: 200, body: html, when: 'afterCommit' }],
    ['a 202 with an empty object', { kind: 'status', status: 202, body: {}, when: 'afterCommit' }],
    ['a 403 in HTML', { kind: 'status', status: 403, body: html, when: 'afterCommit' }],
    ['a 429 in HTML', { kind: 'status', status: 429, body: html, when: 'afterCommit' }],
    ['a 408', { kind: 'status', status: 408, when: 'afterCommit' }],
    ['a redirect', { kind: 'status', status: 307, headers: { location: '/v1/elsewhere' }, when: 'afterCommit' }],
    ['an order that still says accepted', { kind: 'setField', field: 'status', value: 'accepted' }],
    ['an order of a status that is not known', { kind: 'setField', field: 'status', value: 'pending_cancel' }],
    ['an order without a status', { kind: 'dropField', field: 'status' }],
    ['another order', { kind: 'setField', field: 'id', value: 'ord_other' }],
    [
      'another order that has filled',
      { kind: 'setField', field: 'id', value: 'ord_other' },
      { kind: 'setField', field: 'status', value: 'filled' },
    ],
  ]
  test.each(afterCommit)('%s, after the cancel was done: it is read back and confirmed', async (_, ...faults) => {
    const orderId = await placeResting()
    await harness.setRules(...faults.map(onNextCancel))
    expect(await cancel({ orderId })).toMatchObject({
      ...confirmed,
      orderId,
      order: { ...confirmed.order, id: orderId },
    })
    expect(await cancels()).toHaveLength(1)
    expect(await statusInBook(orderId)).toBe('canceled')
  })

  test('the reads after it may fail for a while', async () => {
    const orderId = await placeResting()
    await harness.setRules(onNextCancel({ kind: 'rstAfterCommit' }), {
      match: { method: 'GET', path: '/orders/', nth: 2 },
      fault: { kind: 'status', status: 503 },
    })
    expect(await cancel({ orderId })).toMatchObject(confirmed)
    expect(await cancels()).toHaveLength(1)
  })

  test.each([
    ['a reset before it was read', { kind: 'rstBeforeRead' }],
    ['a reset after it was read', { kind: 'rstAfterRead' }],
    ['a 502', { kind: 'status', status: 502, body: html }],
    ['a success in HTML', { kind: 'status', status: 200, body: html }],
    [
      'a success that names another order',
      { kind: 'status', status: 200, body: { id: 'ord_other', status: 'canceled' } },
    ],
    ['a success that says only that', { kind: 'status', status: 200, body: { status: 'canceled' } }],
    ['a 403 in HTML', { kind: 'status', status: 403, body: html }],
  ])('B07 %s, and the cancel was not done: pending, never confirmed while it is open', async (_, fault) => {
    const orderId = await placeResting(hasty)
    await hasty.setRules(onEachCancel(fault))
    expect(await cancel({ orderId }, hasty)).toMatchObject({
      __typename: 'CancelPending',
      outcome: 'PENDING',
      orderId,
      order: { id: orderId, status: 'ACCEPTED', isCancelable: true },
      retryAfterMs: expect.any(Number),
    })
    expect(await statusInBook(orderId, hasty)).toBe('accepted')
    expect((await cancels(hasty)).length).toBeLessThanOrEqual(3)
    await hasty.setRules()
    await vi.waitFor(async () => expect(await cancel({ orderId }, hasty)).toMatchObject({ outcome: 'CANCELED' }), 5_000)
    expect(await statusInBook(orderId, hasty)).toBe('canceled')
  })

  test.each(['beforeCommit', 'afterCommit'])(
    'a caller is answered in time while the cancel lives on, hanging %s',
    async (when) => {
      const orderId = await placeResting(hasty)
      await hasty.setRules(onEachCancel({ kind: 'hang', when, ms: 900 }))
      expect(await cancel({ orderId }, hasty)).toMatchObject({ __typename: 'CancelPending', order: { id: orderId } })
      expect(await cancels(hasty)).toMatchObject([{ status: null }])
      await vi.waitFor(
        async () => expect(await cancel({ orderId }, hasty)).toMatchObject({ outcome: 'CANCELED' }),
        5_000,
      )
      expect(await statusInBook(orderId, hasty)).toBe('canceled')
      expect(await cancels(hasty)).toHaveLength(1)
    },
  )

  test('an order that fills without an answer is reported as filled', async () => {
    const orderId = await placeResting()
    await harness.setRules(onEachCancel({ kind: 'rstAfterRead' }))
    const canceling = cancel({ orderId })
    await vi.waitFor(async () => expect((await cancels()).length).toBeGreaterThan(0), 5_000)
    await harness.control('POST', `/orders/${orderId}/fill`, {})
    expect(await canceling).toMatchObject({
      __typename: 'CancelRefused',
      refusalCode: 'ALREADY_FILLED',
      order: { status: 'FILLED', filledQuantity: '10' },
    })
  })
})

describe('a broker that cannot be reached', () => {
  test('a closed port: the cancel is kept, and done by the next one', async () => {
    const orderId = await placeResting()
    await harness.setRules({ match: {}, fault: { kind: 'refuse' } })
    expect(await cancel({ orderId })).toMatchObject({ ...kept, orderId, order: null })
    await harness.setRules()
    expect(await statusInBook(orderId)).toBe('accepted')
    expect(await cancel({ orderId })).toMatchObject(confirmed)
    expect(await cancels()).toHaveLength(1)
  })

  test('an order that cannot be read is canceled by what its record knows', async () => {
    const orderId = await placeResting()
    await harness.setRules({ match: { method: 'GET' }, fault: { kind: 'status', status: 503 } })
    expect(await cancel({ orderId })).toMatchObject(confirmed)
    expect(await cancels()).toHaveLength(1)
  })

  test('gone with the cancel in its hands: pending, with the order as it was seen', async () => {
    const orderId = await placeResting(hasty)
    await hasty.setRules(onNextCancel({ kind: 'refuse' }))
    expect(await cancel({ orderId }, hasty)).toMatchObject({
      __typename: 'CancelPending',
      orderId,
      order: { id: orderId, status: 'ACCEPTED' },
    })
    await hasty.setRules()
    expect(await statusInBook(orderId, hasty)).toBe('accepted')
  })
})

test('a graceful stop finishes the cancel under way and takes no new one', async () => {
  const stopping = await startForTest()
  const orderId = await placeResting(stopping)
  const otherId = await placeResting(stopping)
  await stopping.setRules(onEachCancel({ kind: 'latency', ms: 300 }))
  const underWay = cancel({ orderId }, stopping)
  await vi.waitFor(async () => expect(await cancels(stopping)).toHaveLength(1), 5_000)
  const stopped = stopping.close()
  expect(await cancel({ orderId: otherId }, stopping)).toMatchObject({
    __typename: 'CancelRefused',
    refusalCode: 'SHUTTING_DOWN',
    orderId: otherId,
  })
  expect(await underWay).toMatchObject({ ...confirmed, orderId })
  await stopped
})

test('a cancel that was reported as not sent is not sent later', async () => {
  const own = await startForTest()
  const id = own.sandbox.demo.openOrderId
  await own.setRules({ match: { method: 'GET' }, fault: { kind: 'latency', ms: 600 } })
  const answer = await own.run(
    `mutation { cancelOrder(input: { orderId: "${id}" }) { __typename message } }`,
    {},
    { 'x-request-timeout-ms': '200' },
  )
  expect(answer.data.cancelOrder).toMatchObject({
    __typename: 'CancelRefused',
    message: expect.stringContaining('nothing was canceled'),
  })
  // The read that came too late has been answered, and what it would have led to has not happened.
  await expect
    .poll(async () => (await own.calls()).every((call) => call.status !== null), { timeout: 5_000 })
    .toBe(true)
  await own.setRules()
  const after = await own.run(`{ order(id: "${id}") { status } }`)
  expect(after.data.order.status).not.toBe('CANCELED')
  expect((await own.calls()).filter((call) => call.method === 'POST')).toEqual([])
})
