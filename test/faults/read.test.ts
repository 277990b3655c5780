// A broker that misbehaves and callers that press, as reads meet them: the cases of groups C and D by their ids, through
// the front door, over real sockets. After each of them the service answers an ordinary read.

import diagnostics from 'node:diagnostics_channel'
import { request as httpRequest } from 'node:http'
import type { ClientRequest } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { limitBuy, startForTest, startForTestApart, startHarness } from '../harness.ts'
import type { Answer, Harness, LoggedCall } from '../harness.ts'

/** A call with what the broker's log says of when and where it came in. */
interface Call extends LoggedCall {
  at: number
  connection: number
}

let harness: Harness
beforeAll(async () => {
  harness = await startHarness({ BREAKER: 'off' })
})
afterAll(() => harness.close())
afterEach(async () => {
  await harness.setRules()
  await expectAlive(harness)
  await harness.clearCalls()
})

const onOne = { path: '/trading/orders/' }
const onList = { path: '/orders\\?' }
const htmlFailure = { kind: 'status', status: 502, body: '<h1>Bad gateway</h1>', when: 'beforeCommit' }

const demoId = (of = harness): string => of.sandbox.demo.filledOrderId

function readOne(id: string, of = harness, headers?: Record<string, string>): Promise<Answer> {
  return of.run('query Read($id: ID!) { order(id: $id) { id status symbol } }', { id }, headers)
}

function codesOf(answer: Answer): unknown[] {
  return answer.errors?.map((error) => error.extensions.code) ?? []
}

async function callsOf(of = harness): Promise<Call[]> {
  return (await of.calls()) as Call[]
}

async function idsOf(of = harness): Promise<string[]> {
  return (await of.book()).map((order) => String(order['id']))
}

async function expectAlive(of: Harness): Promise<void> {
  const { data, errors } = await readOne(demoId(of), of)
  expect(errors).toBeUndefined()
  expect(data.order).toMatchObject({ id: demoId(of), status: 'FILLED' })
}

const placeDocument = `mutation Place($input: PlaceOrderInput!) {
  placeOrder(input: $input) { outcome orderId ... on OrderNotPlaced { notPlacedCode certainty retrySameKey retryAfterMs } }
}`

let prices = 0

async function place(of: Harness): Promise<Record<string, unknown>> {
  // Each at a price of its own: equal ones without an outcome hold each other back.
  const { data, errors } = await of.run(placeDocument, { input: limitBuy(of, { limitPrice: `${++prices}.00` }) })
  expect(errors).toBeUndefined()
  return data.placeOrder as Record<string, unknown>
}

async function placementsAt(of: Harness): Promise<Call[]> {
  return (await callsOf(of)).filter(({ method, path }) => method === 'POST' && path.endsWith('/orders'))
}

/** The broker's ends of the connections that are opened from now on. */
function watchConnections(of: Harness): Socket[] {
  const port = Number(new URL(of.sandbox.url).port)
  const sockets: Socket[] = []
  const onSocket = (message: unknown): void => {
    const { socket } = message as { socket: Socket }
    if (socket.localPort === port) sockets.push(socket)
  }
  diagnostics.subscribe('net.server.socket', onSocket)
  onTestFinished(() => void diagnostics.unsubscribe('net.server.socket', onSocket))
  return sockets
}

async function expectAllClosed(sockets: readonly Socket[], timeout: number): Promise<void> {
  expect(sockets.length).toBeGreaterThan(0)
  await expect.poll(() => sockets.every((socket) => socket.destroyed), { timeout, interval: 10 }).toBe(true)
}

/** A client with a connection of its own, which it can take away; its answer is nobody's business. */
function startClient(of: Harness, query: string, variables: object): ClientRequest {
  const client = httpRequest(of.url, {
    method: 'POST',
    agent: false,
    headers: { 'content-type': 'application/json' },
  })
  client.on('error', () => {})
  client.end(JSON.stringify({ query, variables }))
  return client
}

/** Moves the monotonic clock on which breakers wait, so that nobody has to. */
function startClock(): { advance: (ms: number) => void } {
  const real = performance.now.bind(performance)
  let ahead = 0
  const spy = vi.spyOn(performance, 'now').mockImplementation(() => real() + ahead)
  onTestFinished(() => spy.mockRestore())
  return { advance: (ms) => void (ahead += ms) }
}

describe('a broker that fails', () => {
  it('C02 once is repeated, and the caller gets data', async () => {
    const own = await startForTest({ BREAKER: 'off' })
    await own.setRules({ match: { ...onOne, times: 1 }, fault: htmlFailure })
    const { data, errors } = await readOne(demoId(own), own)
    expect(errors).toBeUndefined()
    expect(data.order.id).toBe(demoId(own))
    expect((await callsOf(own)).map((call) => call.status)).toEqual([502, 200])
  })

  it('C03 each time is BROKER_UNAVAILABLE after at most three calls, without a word of its page', async () => {
    const own = await startForTest()
    await own.setRules({ fault: htmlFailure })
    const answer = await readOne(demoId(own), own)
    expect(answer.data).toEqual({ order: null })
    expect(codesOf(answer)).toEqual(['BROKER_UNAVAILABLE'])
    expect(JSON.stringify(answer.errors)).not.toMatch(/<|gateway/i)
    expect(await own.calls()).toHaveLength(3)
    await own.setRules()
    await expectAlive(own)
  })

  it('always gets at most 1.1 times the calls that callers need, and 3 more', async () => {
    const own = await startForTest({ BREAKER: 'off' })
    await own.setRules({ fault: htmlFailure })
    const answers: Promise<Answer>[] = []
    for (let tick = 0; tick < 30; tick++) {
      for (let index = 0; index < 5; index++) answers.push(readOne(`ord_${tick}_${index}`, own))
      await sleep(100)
    }
    for (const answer of await Promise.all(answers)) expect(codesOf(answer)).toEqual(['BROKER_UNAVAILABLE'])
    const calls = await callsOf(own)
    expect(calls.length).toBeGreaterThanOrEqual(answers.length)
    // Less than ten seconds, and so within the one allowance of three.
    expect(calls.length).toBeLessThanOrEqual(1.1 * answers.length + 3)
    await own.setRules()
    await expectAlive(own)
  })

  it.each(['refuse', 'hang'])(
    'D05 at every read (%s) is left alone, until one read finds out that it is back',
    async (kind) => {
      const own = await startForTest()
      const clock = startClock()
      await expectAlive(own)
      await own.setRules({ fault: { kind } })
      const first = await Promise.all(Array.from({ length: 20 }, (_, index) => readOne(`ord_${index}`, own)))
      for (const answer of first) expect(['BROKER_UNAVAILABLE', 'BROKER_TIMEOUT']).toContain(codesOf(answer)[0])
      await own.setRules()
      await own.clearCalls()
      const refused = await readOne(demoId(own), own)
      expect(refused.errors?.[0]?.extensions).toMatchObject({
        code: 'BROKER_UNAVAILABLE',
        retryAfterMs: expect.toSatisfy((ms: number) => ms > 0 && ms <= 6_000),
      })
      expect(await own.calls()).toEqual([])
      clock.advance(6_001)
      await own.setRules({ match: { nth: 1 }, fault: { kind: 'latency', ms: 300 } })
      const probed = await Promise.all(Array.from({ length: 20 }, (_, index) => readOne(`ord_${index}`, own)))
      expect(probed.filter((answer) => answer.errors === undefined)).toHaveLength(1)
      expect((await own.calls()).map((call) => call.method)).toEqual(['GET'])
      await expectAlive(own)
    },
  )

  it('D05 for a while is not called while the breaker is open, and heals within ten seconds by a single read', async () => {
    const own = await startForTest()
    await own.setRules({ fault: htmlFailure })
    for (let index = 0; index < 3; index++) await readOne(`ord_${index}`, own)
    const opened = await own.calls()
    expect(opened.length).toBeGreaterThanOrEqual(5)
    expect(opened.length).toBeLessThanOrEqual(3 * 3)
    await own.clearCalls()

    const startedAt = performance.now()
    const refused = await Promise.all(Array.from({ length: 200 }, (_, index) => readOne(`ord_${index}`, own)))
    expect(performance.now() - startedAt).toBeLessThan(3_000)
    for (const { errors } of refused) {
      expect(errors?.[0]?.extensions.code).toBe('BROKER_UNAVAILABLE')
      expect(errors?.[0]?.extensions.retryAfterMs).toBeGreaterThan(0)
      expect(errors?.[0]?.extensions.retryAfterMs).toBeLessThanOrEqual(6_000)
    }
    expect(await own.calls()).toEqual([])

    await own.setRules()
    const healed = expect.poll(async () => (await readOne(demoId(own), own)).errors, { timeout: 10_000, interval: 50 })
    await healed.toBeUndefined()
    expect((await own.calls()).map((call) => call.method)).toEqual(['GET'])
    await expectAlive(own)
  })

  it('D14 at reads still gets cancels', async () => {
    const own = await startForTest()
    const clock = startClock()
    await own.setRules({ match: { method: 'GET' }, fault: htmlFailure })
    for (let index = 0; index < 3; index++) await readOne(`ord_${index}`, own)
    await own.setRules()
    await own.clearCalls()
    expect(codesOf(await readOne(demoId(own), own))).toEqual(['BROKER_UNAVAILABLE'])
    expect(await own.calls()).toEqual([])
    const { data, errors } = await own.run(
      'mutation Cancel($id: ID!) { cancelOrder(input: { orderId: $id }) { outcome message } }',
      { id: own.sandbox.demo.openOrderId },
    )
    expect(errors).toBeUndefined()
    expect(data.cancelOrder).toMatchObject({ outcome: 'CANCELED' })
    expect((await own.calls()).filter((call) => call.method === 'POST')).toHaveLength(1)
    clock.advance(6_001)
    await expectAlive(own)
  })

  it('D15 at placements is found well again by a read, never by an order', async () => {
    // Without the look before each order, and without looking for the lost ones: both are reads, and would find out.
    const own = await startForTest({
      BLUUM_CAPABILITIES: 'clientIdEcho',
      PLACE_LOOKUP_MS: '600000',
      PLACE_REPLY_MS: '100',
    })
    const clock = startClock()
    await own.setRules({ match: { method: 'POST' }, fault: htmlFailure })
    for (let index = 0; index < 5; index++) expect(await place(own)).toMatchObject({ outcome: 'UNKNOWN' })
    await own.setRules()
    await own.clearCalls()
    const unsent = {
      outcome: 'NOT_PLACED',
      orderId: null,
      notPlacedCode: 'BROKER_UNAVAILABLE',
      certainty: 'PROVEN',
      retrySameKey: true,
      retryAfterMs: expect.any(Number),
    }
    expect(await place(own)).toEqual(unsent)
    clock.advance(6_001)
    for (const result of await Promise.all(Array.from({ length: 5 }, () => place(own)))) expect(result).toEqual(unsent)
    expect(await placementsAt(own)).toEqual([])
    await expectAlive(own)
    expect(await place(own)).toMatchObject({ outcome: 'PLACED' })
    expect(await placementsAt(own)).toHaveLength(1)
  })

  it.each([
    ['a date', () => new Date(Date.now() + 2_000).toUTCString()],
    ['-1', () => '-1'],
    ['abc', () => 'abc'],
  ])('D04 and says to wait until %s is given a moment, then asked again', async (_, value) => {
    const own = await startForTest({ BREAKER: 'off' })
    await own.setRules({ match: { ...onOne, times: 1 }, fault: { kind: 'retryAfter', value: value() } })
    await expectAlive(own)
    const [first, second, ...more] = await callsOf(own)
    expect(more).toEqual([])
    const waitedMs = (second?.at ?? 0) - (first?.at ?? 0)
    expect(waitedMs).toBeGreaterThanOrEqual(900)
    expect(waitedMs).toBeLessThan(6_000)
  })

  it.each([
    ['99999 seconds', () => '99999'],
    ['a date in an hour', () => new Date(Date.now() + 3_600_000).toUTCString()],
    ['a number without end', () => '9'.repeat(400)],
  ])('D04 and says to wait for %s is not waited for, and the time shown is bounded', async (_, value) => {
    const own = await startForTest({ BREAKER: 'off' })
    await own.setRules({ match: { ...onOne, times: 1 }, fault: { kind: 'retryAfter', value: value() } })
    for (const isSent of [true, false]) {
      const startedAt = performance.now()
      const answer = await readOne(demoId(own), own)
      expect(performance.now() - startedAt).toBeLessThan(2_000)
      expect(codesOf(answer)).toEqual(['RATE_LIMITED'])
      const { retryAfterMs } = answer.errors?.[0]?.extensions ?? {}
      expect(retryAfterMs).toBeGreaterThan(isSent ? 59_999 : 50_000)
      expect(retryAfterMs).toBeLessThanOrEqual(60_000)
    }
    expect(await own.calls()).toHaveLength(1)
    // What this broker asked for holds for all of its key; the process serves what needs no broker.
    expect((await own.run('{ __typename }')).data).toEqual({ __typename: 'Query' })
  })

  it('D04 and is away for a day, as it says, is not waited for, and the time shown is bounded', async () => {
    const own = await startForTest()
    await own.setRules({ match: { ...onOne, times: 1 }, fault: { kind: 'retryAfter', value: '86400', status: 503 } })
    const answer = await readOne(demoId(own), own)
    expect(answer.errors?.[0]?.extensions).toMatchObject({ code: 'BROKER_UNAVAILABLE', retryAfterMs: 60_000 })
    expect(await own.calls()).toHaveLength(1)
    await expectAlive(own)
  })
})

describe('garbage', () => {
  it('C04 a body that is cut is read again as a whole, three times at most', async () => {
    const own = await startForTest()
    await own.setRules({ match: onOne, fault: { kind: 'truncate' } })
    const answer = await readOne(demoId(own), own)
    expect(answer.data).toEqual({ order: null })
    expect(codesOf(answer)).toEqual(['BROKER_BAD_RESPONSE'])
    const calls = await own.calls()
    expect(calls.length).toBeLessThanOrEqual(3)
    for (const { headers } of calls) {
      expect(headers).not.toHaveProperty('range')
      expect(headers).not.toHaveProperty('if-range')
    }
    await own.setRules()
    await expectAlive(own)
  })

  it('C08 objects and nulls in rows cost a field or a row, and no other', async () => {
    const ids = await idsOf()
    const set = (row: number, field: string, value: unknown) => ({
      match: onList,
      fault: { kind: 'setField', row, field, value },
    })
    await harness.setRules(
      set(0, 'side', { word: 'buy' }),
      set(0, 'type', null),
      set(0, 'time_in_force', ['day']),
      set(1, 'status', { word: 'filled' }),
      set(2, 'filled_qty', { amount: '1' }),
      set(2, 'submitted_at', { time: 'now' }),
      set(3, 'status', null),
      set(4, 'symbol', null),
      set(5, 'id', { id: ids[5] }),
      set(6, 'qty', null),
      set(6, 'average_price', null),
    )
    const { data, errors } = await harness.run(
      `query L($accountId: ID!) { orders(accountId: $accountId, first: 8) {
        nodes { id symbol side type timeInForce status brokerStatus state quantity filledQuantity averagePrice submittedAt }
      } }`,
      { accountId: harness.accountId },
    )
    const { nodes } = data.orders
    expect(nodes.map((node: { id: string } | null) => node?.id ?? null)).toEqual(
      ids.slice(0, 8).map((id, row) => ([3, 4, 5].includes(row) ? null : id)),
    )
    expect(nodes[0]).toMatchObject({ side: 'UNKNOWN', type: 'UNKNOWN', timeInForce: 'UNKNOWN' })
    expect(nodes[1]).toMatchObject({ status: 'UNKNOWN', brokerStatus: null, state: null })
    expect(nodes[2]).toMatchObject({ filledQuantity: null, submittedAt: null })
    expect(nodes[6]).toMatchObject({ quantity: null, averagePrice: null })
    expect(nodes[7]).toMatchObject({ id: ids[7], side: expect.stringMatching(/^(BUY|SELL)$/) })
    expect(errors?.map((error) => error.path?.slice(2).join('.')).toSorted()).toEqual([
      '2.filledQuantity',
      '2.submittedAt',
      '3',
      '4',
      '5',
    ])
    for (const error of errors ?? []) expect(error.extensions.code).toBe('BROKER_BAD_RESPONSE')
  })

  it('C09 two hundred unknown fields change nothing', async () => {
    const document = `query Both($id: ID!, $accountId: ID!) {
      order(id: $id) { id status quantity filledQuantity averagePrice submittedAt }
      orders(accountId: $accountId, first: 20) { nodes { id status quantity submittedAt } }
    }`
    const variables = { id: demoId(), accountId: harness.accountId }
    const plain = await harness.run(document, variables)
    expect(plain.errors).toBeUndefined()
    await harness.setRules({ fault: { kind: 'extraFields', count: 200 } })
    const padded = await harness.run(document, variables)
    expect(padded.errors).toBeUndefined()
    expect(padded.data).toEqual(plain.data)
  })

  it('C10 fifty megabytes are cut at the cap, and cost no memory', async () => {
    const sockets = watchConnections(harness)
    await harness.setRules({ match: onOne, fault: { kind: 'huge', bytes: 50_000_000 } })
    // Once before it counts: buffers and code of the first time stay.
    await readOne(demoId())
    await harness.clearCalls()
    const before = process.memoryUsage.rss()
    for (let round = 0; round < 4; round++) {
      const answer = await readOne(demoId())
      expect(answer.data).toEqual({ order: null })
      expect(codesOf(answer)).toEqual(['BROKER_BAD_RESPONSE'])
    }
    expect(process.memoryUsage.rss() - before).toBeLessThan(60_000_000)
    expect(await harness.calls()).toHaveLength(4)
    await expectAllClosed(sockets, 5_000)
    for (const socket of sockets) expect(socket.bytesWritten).toBeLessThan(25_000_000)
  })

  it('C11 a drip ends with the time that the caller gave', async () => {
    const sockets = watchConnections(harness)
    await harness.setRules({ match: onOne, fault: { kind: 'drip', bytesPerSecond: 1 } })
    const startedAt = performance.now()
    const answers = await Promise.all(
      (await idsOf()).slice(0, 10).map((id) => readOne(id, harness, { 'x-request-timeout-ms': '400' })),
    )
    expect(performance.now() - startedAt).toBeLessThan(2_500)
    for (const answer of answers) expect(codesOf(answer)).toEqual(['DEADLINE_EXCEEDED'])
    expect(await harness.calls()).toHaveLength(10)
    await expectAllClosed(sockets, 2_000)
  })

  it('C11 a drip ends with its attempt and is repeated if the caller has more time', async () => {
    await harness.setRules({ match: { ...onOne, times: 1 }, fault: { kind: 'drip', bytesPerSecond: 1 } })
    await expectAlive(harness)
    const [first, second, ...more] = await callsOf()
    expect(more).toEqual([])
    // Four seconds and a short wait; without that bound it would take as many seconds as the order has characters.
    const waitedMs = (second?.at ?? 0) - (first?.at ?? 0)
    expect(waitedMs).toBeGreaterThanOrEqual(3_900)
    expect(waitedMs).toBeLessThan(7_000)
  })

  it('C12 a gzip bomb is refused, and memory stays flat', async () => {
    await harness.setRules({ match: onOne, fault: { kind: 'gzipBomb', bytes: 100_000_000 } })
    await readOne(demoId())
    await harness.clearCalls()
    const before = process.memoryUsage.rss()
    for (let round = 0; round < 20; round++) expect(codesOf(await readOne(demoId()))).toEqual(['BROKER_BAD_RESPONSE'])
    expect(process.memoryUsage.rss() - before).toBeLessThan(40_000_000)
    const calls = await harness.calls()
    expect(calls).toHaveLength(20)
    for (const { headers } of calls) expect(headers['accept-encoding']).toBe('identity')
  })

  it.each(['twoContentLengths', 'hugeHeader', 'badChunk'])(
    'C14 an answer that is no HTTP (%s) is an error, its connection is dropped, and the next one is fine',
    async (how) => {
      const own = await startForTest({ BREAKER: 'off' })
      const sockets = watchConnections(own)
      await own.setRules({ match: onOne, fault: { kind: 'badHeaders', how } })
      const answer = await readOne(demoId(own), own)
      expect(answer.data).toEqual({ order: null })
      expect(codesOf(answer)).toEqual(['BROKER_BAD_RESPONSE'])
      expect((await own.calls()).length).toBeLessThanOrEqual(3)
      await expectAllClosed(sockets, 2_000)
      await own.setRules()
      await expectAlive(own)
    },
  )

  it('C15 a second answer behind the first is not the answer to the next read', async () => {
    const own = await startForTest({ BREAKER: 'off' })
    const [first = '', second = ''] = await idsOf(own)
    await own.setRules({ match: { ...onOne, nth: 1 }, fault: { kind: 'extraResponse' } })
    const one = await readOne(first, own)
    expect(one.data.order).toMatchObject({ id: first })
    const two = await readOne(second, own)
    expect(two.errors).toBeUndefined()
    expect(two.data.order).toMatchObject({ id: second })
    const list = await own.run('query L($id: ID!) { orders(accountId: $id, first: 1) { nodes { id } } }', {
      id: own.accountId,
    })
    expect(list.data.orders.nodes).toEqual([{ id: first }])
    await expectAlive(own)
  })

  it('C15 a second answer while the next read waits on the same socket is an error, not data', async () => {
    const own = await startForTest({ BREAKER: 'off' })
    const [first = '', second = '', third = ''] = await idsOf(own)
    await own.setRules(
      { match: { ...onOne, nth: 1 }, fault: { kind: 'extraResponse', ms: 200 } },
      { match: { ...onOne, nth: 2 }, fault: { kind: 'latency', ms: 500 } },
    )
    expect((await readOne(first, own)).data.order).toMatchObject({ id: first })
    // Time for the connection to be free again, or the next read opens one of its own.
    const [before] = await callsOf(own)
    const two = await readOne(second, own)
    const [, after] = await callsOf(own)
    expect(after?.connection).toBe(before?.connection)
    expect(two.data).toEqual({ order: null })
    expect(codesOf(two)).toEqual(['BROKER_BAD_RESPONSE'])
    // Its own answer is still to come on that socket: it is not taken for that of a third.
    const three = await readOne(third, own)
    expect(three.data.order?.id ?? third).toBe(third)
    await expect.poll(async () => (await readOne(demoId(own), own)).data.order?.id).toBe(demoId(own))
  })

  it('C16 an answer about another order is no answer', async () => {
    const [, other] = await idsOf()
    await harness.setRules({ match: onOne, fault: { kind: 'setField', field: 'id', value: other } })
    const answer = await readOne(demoId())
    expect(answer.data).toEqual({ order: null })
    expect(codesOf(answer)).toEqual(['BROKER_BAD_RESPONSE'])
    expect(JSON.stringify(answer.errors)).not.toContain(other)
    expect(await harness.calls()).toHaveLength(1)
  })

  it('C16 a row of another account is an error, and tells nothing of itself', async () => {
    const ids = await idsOf()
    const stranger = harness.sandbox.accounts[1] ?? ''
    await harness.setRules({ match: onList, fault: { kind: 'setField', row: 1, field: 'account_id', value: stranger } })
    const answer = await harness.run(
      'query L($id: ID!) { orders(accountId: $id, first: 4) { nodes { id account { id } } } }',
      { id: harness.accountId },
    )
    const account = { id: harness.accountId }
    expect(answer.data.orders.nodes).toEqual([
      { id: ids[0], account },
      null,
      { id: ids[2], account },
      { id: ids[3], account },
    ])
    expect(answer.errors).toHaveLength(1)
    expect(answer.errors?.[0]).toMatchObject({
      path: ['orders', 'nodes', 1],
      extensions: { code: 'BROKER_BAD_RESPONSE' },
    })
    expect(JSON.stringify(answer.errors)).not.toMatch(RegExp(`${stranger}|${ids[1]}`))
  })

  it('C16 an order of another account than the one named answers exactly like a missing one', async () => {
    const document = 'query Read($id: ID!, $accountId: ID!) { order(id: $id, accountId: $accountId) { id } }'
    const accountId = harness.accountId
    const missing = await harness.run(document, { id: 'ord_doesnotexist0000', accountId })
    const stranger = harness.sandbox.accounts[1] ?? ''
    const [foreign = ''] = (await harness.book(stranger)).map((order) => String(order['id']))
    const theirs = await harness.run(document, { id: foreign, accountId })
    await harness.setRules({ match: onOne, fault: { kind: 'setField', field: 'account_id', value: stranger } })
    const garbled = await harness.run(document, { id: demoId(), accountId })
    for (const { status, data, errors } of [missing, theirs, garbled]) {
      expect({ status, data, errors }).toEqual({ status: 200, data: { order: null }, errors: undefined })
    }
  })

  it.each([1, 5, 99, 100])(
    'C18 a list longer than asked for, with repeats, is cut to %i rows, each once',
    async (first) => {
      const ids = await idsOf()
      await harness.setRules({ match: onList, fault: { kind: 'extraRows', rows: 6 } })
      const { data, errors } = await harness.run(
        `query L($id: ID!, $first: Int) { orders(accountId: $id, first: $first) {
        nodes { id } pageInfo { hasNextPage }
      } }`,
        { id: harness.accountId, first },
      )
      expect(errors).toBeUndefined()
      const shown = data.orders.nodes.map((node: { id: string }) => node.id)
      expect(shown).toEqual(ids.slice(0, first))
      expect(data.orders.pageInfo.hasNextPage).toBe(true)
      expect((await harness.calls()).length).toBeLessThanOrEqual(2)
    },
  )

  it('C18 such a list is walked to its end without a repeat or a gap', async () => {
    const ids = await idsOf()
    await harness.setRules({ match: onList, fault: { kind: 'extraRows' } })
    const walked: string[] = []
    let after: string | null = null
    for (let page = 0; page < 20; page++) {
      const { data, errors }: Answer = await harness.run(
        `query L($id: ID!, $after: String) { orders(accountId: $id, first: 30, after: $after) {
          nodes { id } pageInfo { hasNextPage endCursor }
        } }`,
        { id: harness.accountId, after },
      )
      expect(errors).toBeUndefined()
      walked.push(...data.orders.nodes.map((node: { id: string }) => node.id))
      after = data.orders.pageInfo.hasNextPage ? data.orders.pageInfo.endCursor : null
      if (after === null) break
    }
    expect(walked).toEqual(ids)
  })
})

describe('the time of a caller', () => {
  it('D01 that is over is DEADLINE_EXCEEDED, and ends the call at the broker', async () => {
    const sockets = watchConnections(harness)
    await harness.setRules({ match: onOne, fault: { kind: 'latency', ms: 3_000 } })
    const startedAt = performance.now()
    // More than one: which of two timers for the same instant fires first is not to be left to chance.
    const answers = await Promise.all(
      Array.from({ length: 40 }, async (_, index) => {
        await sleep(index)
        return await readOne(`ord_${index}`, harness, { 'x-request-timeout-ms': '300' })
      }),
    )
    expect(performance.now() - startedAt).toBeLessThan(2_000)
    for (const answer of answers) {
      expect(answer.data).toEqual({ order: null })
      expect(codesOf(answer)).toEqual(['DEADLINE_EXCEEDED'])
    }
    expect(await harness.calls()).toHaveLength(40)
    await expectAllClosed(sockets, 2_000)
  })

  it.each(['0', '-1', 'abc', '', '1.5', '1e3', '0x10', '1000000', 'Infinity', '500, 500'])(
    'D01 of %j is refused, and the header named',
    async (value) => {
      const { data, errors } = await readOne(demoId(), harness, { 'x-request-timeout-ms': value })
      expect(data?.order ?? null).toBeNull()
      expect(errors).toHaveLength(1)
      expect(errors?.[0]).toMatchObject({
        message: expect.stringContaining('x-request-timeout-ms'),
        extensions: { code: 'BAD_USER_INPUT' },
      })
      expect(await harness.calls()).toEqual([])
    },
  )

  it('D02 a client that leaves ends its query at the broker', async () => {
    const sockets = watchConnections(harness)
    await harness.setRules({ match: onOne, fault: { kind: 'hang' } })
    const ids = (await idsOf()).slice(0, 5)
    const clients = ids.map((id) => startClient(harness, 'query Left($id: ID!) { order(id: $id) { id } }', { id }))
    await expect.poll(async () => (await harness.calls()).length).toBe(5)
    for (const client of clients) client.destroy()
    // By itself an attempt would end after three seconds without an answer.
    await expectAllClosed(sockets, 2_000)
    await expect.poll(() => harness.log().filter((line) => line.includes('left by its client')).length).toBe(5)
    expect(await harness.calls()).toHaveLength(5)
  })

  it('D02 a client that leaves does not end what another waits for', async () => {
    await harness.setRules({ match: onOne, fault: { kind: 'latency', ms: 400 } })
    const client = startClient(harness, 'query Left($id: ID!) { order(id: $id) { id } }', { id: demoId() })
    await expect.poll(async () => (await harness.calls()).length).toBe(1)
    const staying = readOne(demoId())
    await sleep(50)
    client.destroy()
    expect((await staying).data.order.id).toBe(demoId())
    expect(await harness.calls()).toHaveLength(1)
  })

  it('D02 a client that leaves does not end its mutation', async () => {
    await harness.setRules({ match: { method: 'POST' }, fault: { kind: 'latency', ms: 400 } })
    const input = limitBuy(harness)
    const client = startClient(harness, placeDocument, { input })
    await expect.poll(async () => (await placementsAt(harness)).length).toBe(1)
    client.destroy()
    await expect.poll(async () => (await placementsAt(harness))[0]?.status, { timeout: 3_000 }).toBe(201)
    const { data } = await harness.run(placeDocument, { input })
    expect(data.placeOrder).toMatchObject({ outcome: 'PLACED' })
    expect(await placementsAt(harness)).toHaveLength(1)
  })
})

describe('load', () => {
  it('D07 far above the rate keeps the broker below its limit, and placements come first', async () => {
    const own = await startForTestApart({ BLUUM_REQUESTS_PER_SECOND: '25' })
    await own.setRules({ fault: { kind: 'maxRps', perSecond: 25 } })
    const ids = (await idsOf(own)).slice(0, 200)
    const isAlive = async (): Promise<boolean> => (await readOne(ids[0] ?? '', own)).errors === undefined
    expect(await isAlive()).toBe(true)
    await own.clearCalls()
    const reads: Promise<Answer>[] = []
    const placements: Promise<Record<string, unknown>>[] = []
    for (let tick = 0; tick < 60; tick++) {
      for (let index = 0; index < 10; index++) {
        const id = ids[(tick * 10 + index) % ids.length] ?? ''
        reads.push(readOne(id, own, { 'x-request-timeout-ms': '1000' }))
      }
      if (tick % 10 === 5) placements.push(place(own))
      await sleep(50)
    }
    for (const placed of await Promise.all(placements)) expect(placed).toMatchObject({ outcome: 'PLACED' })
    const codes = (await Promise.all(reads)).map((answer) => codesOf(answer)[0] ?? 'ok')
    expect(codes.filter((code) => code === 'ok').length).toBeGreaterThan(20)
    for (const code of new Set(codes)) expect(['ok', 'RATE_LIMITED', 'DEADLINE_EXCEEDED']).toContain(code)
    const calls = await callsOf(own)
    expect(calls.filter((call) => call.status === 429)).toEqual([])
    expect(await placementsAt(own)).toHaveLength(placements.length)
    const load = (await own.control('GET', '/load')) as { maxInAnySecond: number }
    expect(load.maxInAnySecond).toBeLessThanOrEqual(20)
    await expect.poll(isAlive, { timeout: 5_000 }).toBe(true)
  })

  it('D09 four times what the rate allows loses little of it, and refuses the rest at once', async () => {
    const own = await startForTestApart({ BLUUM_REQUESTS_PER_SECOND: '25' })
    const ids = (await idsOf(own)).slice(0, 240)
    const seconds = 3
    const answers: Promise<{ code: unknown; ms: number }>[] = []
    // 80 different reads a second, whatever comes of those before.
    for (let tick = 0; tick < seconds * 20; tick++) {
      for (const id of ids.slice(tick * 4, tick * 4 + 4)) {
        const startedAt = performance.now()
        const answer = readOne(id, own, { 'x-request-timeout-ms': '1500' })
        answers.push(answer.then((read) => ({ code: codesOf(read)[0] ?? 'ok', ms: performance.now() - startedAt })))
      }
      await sleep(50)
    }
    const ended = await Promise.all(answers)
    const served = ended.filter(({ code }) => code === 'ok').length
    expect(served).toBeGreaterThanOrEqual(0.7 * 20 * seconds)
    const refusals = ended.filter(({ code }) => code === 'RATE_LIMITED').map(({ ms }) => ms)
    expect(refusals.length).toBeGreaterThan(60)
    // Far above what it takes, far below the wait that it spares; a few may be refused while they wait.
    expect(refusals.toSorted((a, b) => a - b)[Math.floor(refusals.length * 0.9)]).toBeLessThan(500)
    await expect.poll(async () => (await readOne(ids[0] ?? '', own)).errors, { timeout: 5_000 }).toBeUndefined()
  })

  it('D08 of 500 clients at once reaches a slow broker over at most 64 connections', async () => {
    const own = await startForTest()
    const booked = await idsOf(own)
    const ids = Array.from({ length: 500 }, (_, index) => booked[index] ?? `ord_${index}`)
    await own.clearCalls()
    await own.setRules({ match: onOne, fault: { kind: 'latency', ms: 150 } })
    const answers = await Promise.all(
      ids.map(async (id) => {
        const response = await fetch(own.url, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ query: `{ order(id: "${id}") { id } }` }),
        })
        return (await response.json()) as Answer
      }),
    )
    for (const [index, { data, errors }] of answers.entries()) {
      expect(errors).toBeUndefined()
      expect(data.order).toEqual(index < booked.length ? { id: ids[index] } : null)
    }
    const calls = await callsOf(own)
    expect(calls).toHaveLength(500)
    const connections = new Set(calls.map((call) => call.connection)).size
    expect(connections).toBeGreaterThan(8)
    expect(connections).toBeLessThanOrEqual(64)
    await expectAlive(own)
  })
})
