// The cases of a broker that misbehaves, over each dialect that the service speaks: one table of rows in words that no
// broker has a part in, and for each dialect one record of what the rows have to know of it. Through the front door,
// over the sandbox's real sockets; the broker's book and its request log are the judges.

import diagnostics from 'node:diagnostics_channel'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request as httpRequest } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { ask, calls, cancelPosts, expectEconomics, expectSoundStore, expectSteady, posts, write } from '../desk.ts'
import type { Call, PlaceInput, ShownOrder } from '../desk.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

// Most of a row is waiting.
vi.setConfig({ maxConcurrency: 8, testTimeout: 60_000 })

// ---- the dialects ------------------------------------------------------------------------------------------------------

type DialectName = "Bluum's accounts" | "Bluum's investors" | 'Aries'

type Json = Record<string, unknown>

/** What rows have to know of a dialect. */
interface Dialect {
  name: DialectName
  settings: Record<string, string>
  /** Its accounts, by their ids here. */
  accounts: (sandbox: Harness['sandbox']) => readonly string[]
  /** What the broker calls an account. */
  toTheirs: (accountId: string) => string
  /** An order of the book, by its id here. */
  toOurs: (order: Json) => string
  openOrderId: (sandbox: Harness['sandbox']) => string
  /** An id that no order has. */
  missing: (accountId: string) => string
  /** How lists and single reads are matched; placements and cancels have the same ends everywhere. */
  lists: string
  singles: string
  fields: Record<
    | 'id'
    | 'account'
    | 'side'
    | 'type'
    | 'timeInForce'
    | 'status'
    | 'quantity'
    | 'filledQuantity'
    | 'averagePrice'
    | 'submittedAt'
    | 'clientOrderId'
    | 'rejectReason',
    string
  >
  /** Its words for a side and for a status. */
  sell: string
  rejected: string
  /** The broker's own words for a status of HTTP. */
  refusal: (status: number) => unknown
  /** Answers to a placement that say no, each in another form. */
  noes: (reason: string) => [says: string, status: number, body: unknown][]
  /** Settings of the sandbox under which a placement that asks for too much is refused, each in another form. */
  refusing: Json[]
  /** A placement is answered with an order that is rejected. */
  rejecting: Json
}

const bluum = {
  toOurs: ({ id }: Json) => String(id),
  missing: () => 'ord_doesnotexist0000',
  refusal: (status: number) => {
    const types = new Map([
      [401, 'authentication_error'],
      [403, 'permission_error'],
      [429, 'rate_limit_error'],
    ])
    return { error: { type: types.get(status), code: `BLUM-${status}-001`, message: 'No.' } }
  },
  noes: (message: string): [string, number, unknown][] => {
    const code = 'BLUM-422-001'
    return [
      ['in a flat envelope', 422, { code, message }],
      ['in a nested envelope', 422, { error: { type: 'invalid_request_error', code, message } }],
      ['in an envelope with a status', 422, { status: 'error', code, message }],
    ]
  },
}

const dialects: Dialect[] = [
  {
    ...bluum,
    name: "Bluum's accounts",
    settings: {},
    accounts: (sandbox) => sandbox.accounts,
    toTheirs: (accountId) => accountId,
    openOrderId: (sandbox) => sandbox.demo.openOrderId,
    lists: '/trading/accounts/[^/]+/orders\\?',
    singles: '/trading/orders/',
    fields: {
      id: 'id',
      account: 'account_id',
      side: 'side',
      type: 'type',
      timeInForce: 'time_in_force',
      status: 'status',
      quantity: 'qty',
      filledQuantity: 'filled_qty',
      averagePrice: 'average_price',
      submittedAt: 'submitted_at',
      clientOrderId: 'client_order_id',
      rejectReason: 'reject_reason',
    },
    sell: 'sell',
    rejected: 'rejected',
    refusing: [{ errorEnvelope: 'flat' }, { errorEnvelope: 'nested' }, { errorEnvelope: 'status' }],
    rejecting: { market: 'closed-rejects' },
  },
  {
    ...bluum,
    name: "Bluum's investors",
    settings: { BLUUM_API: 'investors' },
    accounts: (sandbox) => sandbox.investors,
    toTheirs: (accountId) => accountId,
    openOrderId: (sandbox) => sandbox.demo.openOrderId,
    lists: '/investors/[^/]+/orders\\?',
    singles: '/investors/[^/]+/orders/[^/]+$',
    fields: {
      id: 'id',
      account: 'investor_id',
      side: 'side',
      type: 'type',
      timeInForce: 'time_in_force',
      status: 'status',
      quantity: 'quantity',
      filledQuantity: 'filled_quantity',
      averagePrice: 'average_price',
      submittedAt: 'submitted_at',
      clientOrderId: 'client_order_id',
      rejectReason: 'failure_reason',
    },
    sell: 'sell',
    rejected: 'failed',
    refusing: [{ refusals: 'http' }],
    rejecting: { market: 'closed-refuses', refusals: 'failedOrder', custody: 'atOnce' },
  },
  {
    name: 'Aries',
    settings: {},
    accounts: ({ aries }) => aries.accounts.map((account) => `aries:${account}`),
    toTheirs: (accountId) => accountId.replace('aries:', ''),
    toOurs: (order) => `aries:${String(order['account_id'])}:${String(order['aries_id'])}`,
    openOrderId: ({ aries }) => `aries:${aries.accounts[0]}:${aries.demo.openOrderId}`,
    missing: (accountId) => `${accountId}:ORDER-DOESNOTEXIST`,
    lists: '/v2/accounts/[^/]+/orders',
    // It has none: whoever reads an order looks through the lists.
    singles: '/v2/accounts/[^/]+/orders',
    fields: {
      id: 'clOrdId',
      account: 'accountId',
      side: 'side',
      type: 'type',
      timeInForce: 'timeInForce',
      status: 'ordStatus',
      quantity: 'qty',
      filledQuantity: 'cumQty',
      averagePrice: 'avgPrice',
      submittedAt: 'createdAt',
      clientOrderId: 'clientId',
      rejectReason: 'text',
    },
    sell: 'SELL',
    rejected: 'REJECTED',
    refusal: (status) => {
      const words = new Map([
        [401, 'unauthorized'],
        [403, 'forbidden'],
        [429, 'rate_limited'],
      ])
      return { error: words.get(status), message: 'No.' }
    },
    noes: (text) => [
      ['with a reason', 200, { success: false, text, ordRejReason: 'INSUFFICIENT_BUYING_POWER' }],
      ['with a status', 200, { success: false, status: 'REJECTED', text, ordRejReason: '' }],
      ['with a status of HTTP', 400, { error: 'bad_request', message: text }],
    ],
    refusing: [{ ariesRefusals: 'successFalse' }, { ariesRefusals: 'badRequest' }],
    rejecting: { market: 'closed-refuses', ariesRefusals: 'successFalse' },
  },
]

// ---- one row: a service, its broker, and all that was answered ----------------------------------------------------------

interface PlaceResult {
  __typename: string
  outcome: string
  orderId: string | null
  order: Json | null
  message: string
  replayed?: boolean
  certainty?: string
  rejectionCode?: string
  reason?: string | null
  retryAfterMs?: number | null
}

/** A key, and what was ever told of it. */
interface Told {
  input: PlaceInput
  orderIds: Set<string>
  isPlaced: boolean
  last: PlaceResult | null
}

interface Desk {
  dialect: Dialect
  harness: Harness
  accountId: string
  /** Another account of the same broker. */
  otherId: string
  dataDir: string
  /** Of the sandbox, as they were at first. */
  switches: unknown
  /** What the log had said before the row began. */
  logged: number
  told: Map<string, Told>
  shown: Map<string, ShownOrder[]>
  /** Keys of which a person has to decide, so that no search will. */
  forPerson: Set<string>
}

async function openDesk(dialect: Dialect, settings: Json, broker?: Harness['sandbox']): Promise<Desk> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-dialects-'))
  const harness = await startHarness({ ...dialect.settings, ...settings, DATA_DIR: dataDir }, broker)
  const [accountId = '', otherId = ''] = dialect.accounts(harness.sandbox)
  const seen = { told: new Map(), shown: new Map(), forPerson: new Set<string>() }
  const switches = await harness.control('GET', '/switches')
  return { dialect, harness, accountId, otherId, dataDir, switches, logged: 0, ...seen }
}

/** A desk whose accounts have no past. */
async function openEmptyDesk(dialect: Dialect, settings: Json): Promise<Desk> {
  const desk = await openDesk(dialect, settings)
  for (const account of [desk.accountId, desk.otherId]) {
    await desk.harness.control('DELETE', `/book?account=${dialect.toTheirs(account)}`)
  }
  return desk
}

async function closeDesk(desk: Desk): Promise<void> {
  await desk.harness.close()
  rmSync(desk.dataDir, { recursive: true, force: true })
}

/** Runs `work` at a desk of its own and holds against each other, at its end, all that was seen there. */
async function atDesk(
  dialect: Dialect,
  settings: Json,
  work: (desk: Desk) => Promise<void>,
  broker?: Harness['sandbox'],
): Promise<void> {
  const desk = await openDesk(dialect, settings, broker)
  try {
    await work(desk)
    await heal(desk)
    await expectSound(desk)
    await desk.harness.close()
    await expectSoundStore(desk)
  } finally {
    await closeDesk(desk)
  }
}

// Desks whose row is over, by their dialect and settings: to start one costs more than most rows.
const idle = new Map<string, Desk[]>()

/** As `atDesk`, at a desk where rows have been before and their orders are. */
async function atUsedDesk(dialect: Dialect, settings: Json, work: (desk: Desk) => Promise<void>): Promise<void> {
  const key = JSON.stringify([dialect.name, settings])
  const desk = idle.get(key)?.pop() ?? (await openEmptyDesk(dialect, settings))
  desk.logged = desk.harness.log().length
  let isSound = false
  try {
    await desk.harness.clearCalls()
    await work(desk)
    await heal(desk)
    await expectSound(desk)
    await desk.harness.control('PUT', '/switches', desk.switches)
    idle.set(key, [...(idle.get(key) ?? []), desk])
    isSound = true
  } finally {
    if (!isSound) await closeDesk(desk)
  }
}

afterAll(async () => {
  for (const desk of [...idle.values()].flat()) {
    await desk.harness.close()
    await expectSoundStore(desk)
    await closeDesk(desk)
  }
})

/** Stops the service and its broker and starts both on what they kept. No rule of the broker outlives it. */
async function restart(desk: Desk, settings: Json): Promise<void> {
  await desk.harness.close()
  desk.harness = await startHarness({ ...desk.dialect.settings, ...settings, DATA_DIR: desk.dataDir })
}

async function heal({ harness }: Desk): Promise<void> {
  await harness.setRules()
}

async function switchTo({ harness }: Desk, switches: Json): Promise<void> {
  await harness.control('PUT', '/switches', switches)
}

// ---- what is asked -------------------------------------------------------------------------------------------------------

const orderFields = 'id status state filledQuantity'
const placeFields = `
  __typename outcome clientOrderId orderId message order { ${orderFields} }
  ... on OrderPlaced { replayed }
  ... on OrderRejected { replayed rejectionCode brokerCode reason }
  ... on OrderInvalid { problems { field code } }
  ... on OrderNotPlaced { notPlacedCode certainty retrySameKey retryAfterMs }
  ... on OrderOutcomeUnknown { retryAfterMs }
`
const placeDocument = `mutation Place($input: PlaceOrderInput!) { placeOrder(input: $input) { ${placeFields} } }`
const placementDocument = `query Placement($accountId: ID!, $clientOrderId: ID!) {
  placement(accountId: $accountId, clientOrderId: $clientOrderId) {
    state attempts orderId foundBy result { ${placeFields} }
  }
}`
const cancelDocument = `mutation Cancel($input: CancelOrderInput!) {
  cancelOrder(input: $input) {
    __typename outcome orderId message order { ${orderFields} }
    ... on CancelConfirmed { alreadyCanceled }
    ... on CancelRefused { refusalCode brokerCode reason }
    ... on CancelInvalid { problems { field code } }
  }
}`
const readDocument = `query Read($id: ID!, $accountId: ID) {
  order(id: $id, accountId: $accountId) { ${orderFields} symbol quantity rejectReason }
}`
const listDocument = `query List($accountId: ID!, $first: Int, $after: String, $filter: OrderFilter) {
  orders(accountId: $accountId, first: $first, after: $after, filter: $filter) {
    nodes { ${orderFields} brokerStatus side type timeInForce quantity averagePrice submittedAt }
    isComplete pageInfo { hasNextPage endCursor }
  }
}`

/** A limit buy that rests, under a key of its own. */
function buy({ harness, accountId }: Desk, fields: object = {}): PlaceInput {
  return limitBuy(harness, { accountId, quantity: '5', ...fields })
}

async function place(desk: Desk, input: PlaceInput, timeoutMs: number | null = null): Promise<PlaceResult> {
  const result = (await write(desk, placeDocument, input, timeoutMs)) as PlaceResult
  // Another order under the same key tells nothing of the first.
  if (result.outcome === 'INVALID') return result
  const told = note(desk, input, result)
  if (result.certainty === 'PROVEN') expect(await booked(desk, input)).toEqual([])
  told.last = result
  return result
}

function note(desk: Desk, input: PlaceInput, { outcome, orderId }: Pick<PlaceResult, 'outcome' | 'orderId'>): Told {
  const { clientOrderId } = input
  const told = desk.told.get(clientOrderId) ?? { input, orderIds: new Set(), isPlaced: false, last: null }
  desk.told.set(clientOrderId, told)
  if (orderId !== null) told.orderIds.add(orderId)
  if (outcome === 'PLACED') told.isPlaced = true
  return told
}

async function cancel(desk: Desk, input: object, timeoutMs: number | null = null): Promise<Json> {
  return (await write(desk, cancelDocument, input, timeoutMs)) as Json
}

/** What became of a key. */
async function find(desk: Desk, { accountId, clientOrderId }: PlaceInput): Promise<Json & { result: PlaceResult }> {
  const { data, errors } = await ask(desk, placementDocument, { accountId, clientOrderId })
  expect(errors).toBeUndefined()
  const told = desk.told.get(clientOrderId)
  if (told) note(desk, told.input, data.placement.result)
  return data.placement as Json & { result: PlaceResult }
}

/** An order by its id and account: one of the dialects reads none without. */
function read(desk: Desk, id: string, timeoutMs: number | null = null): Promise<Answer> {
  return ask(desk, readDocument, { id, accountId: desk.accountId }, timeoutMs)
}

function list(desk: Desk, variables: object = {}): Promise<Answer> {
  return ask(desk, listDocument, { accountId: desk.accountId, ...variables })
}

function codesOf({ errors }: Answer): unknown[] {
  return errors?.map(({ extensions }) => extensions['code']) ?? []
}

/** Waits for what has to come. */
function eventually(check: () => Promise<void>, timeout = 12_000): Promise<void> {
  return vi.waitFor(check, { timeout, interval: 80 })
}

async function expectState(desk: Desk, input: PlaceInput, expected: object): Promise<void> {
  await eventually(async () => expect(await find(desk, input)).toMatchObject(expected))
}

// ---- what the broker knows -------------------------------------------------------------------------------------------------

async function reads(desk: Desk): Promise<Call[]> {
  return (await calls(desk)).filter(({ method }) => method === 'GET')
}

async function tokenCalls(desk: Desk): Promise<Call[]> {
  return (await calls(desk)).filter(({ path }) => path === '/v1/oauth2/token')
}

/** Every order of the account, in the control port's words, with the account's id here as `ours`. */
async function bookOf({ harness, dialect }: Desk, accountId: string): Promise<Json[]> {
  const book = await harness.book(dialect.toTheirs(accountId))
  return book.map((order) => ({ ...order, ours: accountId }))
}

async function booked(desk: Desk, { accountId, clientOrderId }: PlaceInput): Promise<Json[]> {
  return (await bookOf(desk, accountId)).filter((order) => order['client_order_id'] === clientOrderId)
}

/** An order of the account in the book, by its id here. */
async function inBook(desk: Desk, orderId: string): Promise<Json | undefined> {
  return (await bookOf(desk, desk.accountId)).find((order) => desk.dialect.toOurs(order) === orderId)
}

/** An order that came over another channel, as in the book. */
async function insert(desk: Desk, fields: object = {}): Promise<Json> {
  return (await desk.harness.control('POST', '/orders', {
    account: desk.dialect.toTheirs(desk.accountId),
    symbol: 'AAPL',
    side: 'buy',
    type: 'limit',
    time_in_force: 'gtc',
    qty: '5',
    limit_price: '10.00',
    ...fields,
  })) as Json
}

async function advance({ harness }: Desk, ms: number): Promise<void> {
  await harness.control('POST', '/advance', { ms })
}

function alarms({ harness, logged }: Desk): string[] {
  return harness
    .log()
    .slice(logged)
    .filter((line) => line.includes('ALARM'))
}

const html = '<html><body>Bad gateway</body></html>'
const failing = { kind: 'status', status: 502, body: html }

const onPlace = { method: 'POST', path: '/orders$' }
const onCancel = { method: 'POST', path: '/cancel$' }
const onLists = ({ dialect }: Desk) => ({ method: 'GET', path: dialect.lists })
const onSingles = ({ dialect }: Desk) => ({ method: 'GET', path: dialect.singles })
const rule = (match: object, fault: object): object => ({ match, fault })
/** The answer to the next placement is lost, after it was taken in. */
const loseAnswer = rule({ ...onPlace, times: 1 }, { kind: 'rstAfterCommit' })
const hideLists = (desk: Desk): object => rule(onLists(desk), { kind: 'status', status: 503 })

// By server, the connection of each of its requests, in the order in which they came in. Not by port: the system gives one
// that a closed server had to the next one, which would then be taken for a continuation of it.
const served = new Map<Server, Socket[]>()
const onRequest = (message: unknown): void => {
  const { server, socket } = message as { server: Server; socket: Socket }
  const before = served.get(server)
  if (before) before.push(socket)
  else served.set(server, [socket])
}
beforeAll(() => diagnostics.subscribe('http.server.request.start', onRequest))
afterAll(() => void diagnostics.unsubscribe('http.server.request.start', onRequest))

/** The connection that a call came in on, as the broker sees it. */
function socketOf({ harness }: Desk, { seq }: Call): Socket | undefined {
  const port = Number(new URL(harness.sandbox.url).port)
  const broker = [...served.keys()].find((server) => {
    const address = server.address()
    return typeof address === 'object' && address?.port === port
  })
  return broker && served.get(broker)?.[seq - 1]
}

/** Moves the monotonic clock on which breakers and tokens wait, so that nobody has to. */
function startClock(): { advance: (ms: number) => void } {
  const real = performance.now.bind(performance)
  let ahead = 0
  const spy = vi.spyOn(performance, 'now').mockImplementation(() => real() + ahead)
  onTestFinished(() => spy.mockRestore())
  return { advance: (ms) => void (ahead += ms) }
}

// ---- after every row ---------------------------------------------------------------------------------------------------------

async function expectSound(desk: Desk): Promise<void> {
  const { harness, dialect, told } = desk
  for (const { input } of told.values()) {
    if (desk.forPerson.has(input.clientOrderId)) continue
    await eventually(async () =>
      expect((await find(desk, input)).result.__typename, 'without an outcome').not.toBe('OrderOutcomeUnknown'),
    )
  }

  const accounts = dialect.accounts(harness.sandbox)
  const book = (await Promise.all(accounts.map((account) => bookOf(desk, account)))).flat()
  const keys = book.flatMap(({ account_id: account, client_order_id: key }) =>
    key === undefined ? [] : [JSON.stringify([account, key])],
  )
  expect(keys.length, 'two orders of the broker under one key').toBe(new Set(keys).size)

  for (const [key, { input, orderIds, isPlaced, last }] of told) {
    expect(orderIds.size, 'two order ids under one key').toBeLessThanOrEqual(1)
    const [orderId] = orderIds
    if (isPlaced)
      expectEconomics(
        book.find((order) => dialect.toOurs(order) === orderId),
        input,
      )
    const keyed = book.find((order) => order['client_order_id'] === key && order['ours'] === input.accountId)
    if (keyed && keyed['status'] !== 'rejected') {
      expect(last?.outcome, 'an order that exists was refused').not.toBe('REJECTED')
      expect(last?.certainty, 'an order that exists was proven not to').not.toBe('PROVEN')
    }
  }

  expectSteady(desk)
  desk.harness.expectSilent()
  const { data: alive } = await ask(desk, '{ tradingAccounts { id } }', {})
  expect(alive.tradingAccounts.map(({ id }: { id: string }) => id)).toEqual(expect.arrayContaining([...accounts]))
}

// ---- settings ------------------------------------------------------------------------------------------------------------------

const settleMs = 400
/** What became of an order is known soon: found, or taken for never placed. */
const soon = { PLACE_LOOKUP_MS: '50,100,200', PLACE_SETTLE_MS: String(settleMs), BREAKER: 'off' }
/** A broker that is certified to show the key: nothing has to be looked at before the send. */
const certified = { ...soon, BLUUM_CAPABILITIES: 'clientIdEcho', ARIES_CAPABILITIES: 'clientIdEcho' }
/** Of a caller who does not wait until it is known what became of it. */
const hasteMs = 150

const placed = { __typename: 'OrderPlaced', outcome: 'PLACED' }
const unknown = { __typename: 'OrderOutcomeUnknown', outcome: 'UNKNOWN', orderId: null, order: null }
const neverAppeared = { notPlacedCode: 'NEVER_APPEARED', certainty: 'ASSUMED', retrySameKey: false, orderId: null }
const found = { state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' }
const canceled = { __typename: 'CancelConfirmed', outcome: 'CANCELED', order: { status: 'CANCELED', state: 'CLOSED' } }
const pending = { __typename: 'CancelPending', outcome: 'PENDING' }
const notFound = { __typename: 'CancelRefused', refusalCode: 'NOT_FOUND', order: null }

/** Places an order whose answer will be lost, as a caller who does not wait until it is found out. */
async function loseOutcome(desk: Desk, input: PlaceInput): Promise<void> {
  expect(await place(desk, input, hasteMs)).toMatchObject(unknown)
  await expectState(desk, input, { state: 'UNKNOWN' })
}

const evil = `<b>No</b>\u001b[31m\u0000\r\n\u202e ${'x'.repeat(10_000)}`

/** Whether broker's words were made harmless, and are still its words. */
function expectTame(text: unknown): void {
  expect(text).toMatch(/^<b>No<\/b> \[31m +x{100}/)
  expect(text).not.toMatch(/[\p{Cc}\p{Cf}]/u)
  expect(String(text).length).toBeLessThanOrEqual(200)
}

/** When the first placement reached the broker. */
async function firstSentAt(desk: Desk): Promise<number> {
  return (await posts(desk))[0]?.at ?? Infinity
}

/** Cancels as a caller who leaves before it is done; on a busy machine also before it was asked for, and asks again. */
async function cancelInHaste(desk: Desk, orderId: string, order: object = { state: 'OPEN' }): Promise<void> {
  await eventually(async () =>
    expect(await cancel(desk, { orderId }, 1_000)).toMatchObject({ ...pending, orderId, order }),
  )
}

/** Places an order that rests, and clears the log. */
async function placeResting(desk: Desk, fields: object = {}): Promise<{ input: PlaceInput; orderId: string }> {
  const input = buy(desk, fields)
  const { orderId, outcome } = await place(desk, input)
  expect(outcome).toBe('PLACED')
  await desk.harness.clearCalls()
  return { input, orderId: orderId ?? '' }
}

// ---- the rows --------------------------------------------------------------------------------------------------------------------

interface Row {
  says: string
  settings?: Record<string, string>
  /** It moves the clock, or leaves behind what other rows would meet: a desk of its own, with the seeded past. */
  isApart?: true
  /** The dialects that cannot have it, and why. */
  not?: Partial<Record<DialectName, string>>
  work: (desk: Desk) => Promise<void>
}

const writingRows: Row[] = [
  {
    says: 'A01 A04 A05 a key is one order: repeats tell of it, also in other digits, and another order is refused',
    async work(desk) {
      const input = buy(desk)
      const results = []
      for (let time = 0; time < 4; time++) results.push(await place(desk, input))
      expect(results.map(({ replayed }) => replayed)).toEqual([false, true, true, true])
      expect(new Set(results.map(({ orderId }) => orderId)).size).toBe(1)
      for (const quantity of ['5.0', '5.00']) {
        const reordered = Object.fromEntries(Object.entries({ ...input, quantity }).toReversed()) as PlaceInput
        expect(await place(desk, reordered)).toMatchObject({ ...placed, replayed: true })
      }
      expect(await place(desk, { ...input, quantity: '6' })).toMatchObject({
        __typename: 'OrderInvalid',
        problems: [{ field: ['input', 'clientOrderId'], code: 'KEY_REUSED' }],
      })
      expect(await posts(desk)).toHaveLength(1)
      expect(await booked(desk, input)).toMatchObject([{ qty: '5' }])
    },
  },
  {
    says: 'A02 fifty at once are one order and one answer',
    async work(desk) {
      await desk.harness.setRules(rule(onPlace, { kind: 'latency', ms: 300 }))
      const input = buy(desk)
      const results = await Promise.all(Array.from({ length: 50 }, () => place(desk, input)))
      const [order] = await booked(desk, input)
      for (const result of results)
        expect(result).toMatchObject({ ...placed, orderId: desk.dialect.toOurs(order ?? {}) })
      expect(results.filter(({ replayed }) => replayed === false)).toHaveLength(1)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  ...['rstAfterCommit', 'finAfterCommit'].map((kind): Row => ({
    says: `A06 an answer that is lost (${kind}): unknown as long as the order cannot be looked for, then found by its key`,
    settings: certified,
    async work(desk) {
      await desk.harness.setRules(rule({ ...onPlace, times: 1 }, { kind }), hideLists(desk))
      const input = buy(desk)
      await loseOutcome(desk, input)
      await heal(desk)
      await expectState(desk, input, found)
      const [order] = await booked(desk, input)
      const orderId = desk.dialect.toOurs(order ?? {})
      expect(await place(desk, input)).toMatchObject({ ...placed, replayed: true, orderId })
      expect(await posts(desk)).toHaveLength(1)
    },
  })),
  {
    says: 'A06 an order that is not at the market yet: found, and bound',
    async work(desk) {
      await switchTo(desk, { custody: 'later', ariesCustody: 'later' })
      await desk.harness.setRules(loseAnswer)
      const input = buy(desk)
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A06 a market order that has filled at once: found',
    async work(desk) {
      const market = { type: 'MARKET', timeInForce: 'DAY', limitPrice: null }
      // Aries takes no cash amounts.
      const sizes = [{ quantity: '2' }, { quantity: null, notional: '100.50' }]
      for (const size of desk.dialect.name === 'Aries' ? sizes.slice(0, 1) : sizes) {
        await desk.harness.clearCalls()
        await desk.harness.setRules(loseAnswer)
        const input = buy(desk, { ...market, ...size })
        const { orderId } = await place(desk, input)
        expect(await find(desk, input)).toMatchObject(found)
        expect((await read(desk, orderId ?? '')).data.order).toMatchObject({ status: 'FILLED' })
        expect(await posts(desk)).toHaveLength(1)
      }
    },
  },
  {
    says: 'A06 B01 a service that was started again finds the order, and cancels it by its id alone',
    settings: certified,
    isApart: true,
    async work(desk) {
      await desk.harness.setRules(loseAnswer, hideLists(desk))
      const input = buy(desk)
      await loseOutcome(desk, input)
      await restart(desk, certified)
      await expectState(desk, input, found)
      expect(await posts(desk)).toEqual([])
      await restart(desk, certified)
      const { orderId } = await place(desk, input)
      expect(await cancel(desk, { orderId })).toMatchObject(canceled)
    },
  },
  {
    says: 'A06 B01 under every other spelling that the pages know: found by its key, and canceled',
    settings: { ...soon, ARIES_ACCOUNT_FIELD: 'tradingAccountId' },
    async work(desk) {
      await switchTo(desk, {
        idempotencyKeys: 'ignored',
        partialRows: true,
        restingStatus: 'pending',
        submittedAt: 'always',
        cancelSuccess: 202,
        emptyFields: 'null',
        envelopeKeys: 'guide',
        templateLeftovers: true,
        ariesAccountField: 'tradingAccountId',
        ariesSideOnCancel: 'optional',
        ariesCancelIds: 'original',
        ariesEmpty: 'absent',
        ariesSecurityType: 'EQUITY',
        ariesHistory: 'ended',
      })
      await desk.harness.setRules(loseAnswer)
      const input = buy(desk)
      const { orderId } = await place(desk, input)
      expect(await find(desk, input)).toMatchObject({ ...found, orderId })
      expect(await cancel(desk, { orderId, accountId: desk.accountId })).toMatchObject(canceled)
      expect(await booked(desk, input)).toMatchObject([{ status: 'canceled' }])
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A08 a 502 before the order was taken in: taken for never placed after the settle time, and a new key places',
    async work(desk) {
      await desk.harness.setRules(rule({ ...onPlace, times: 1 }, failing))
      const input = buy(desk)
      await place(desk, input)
      await expectState(desk, input, { state: 'NOT_PLACED', result: neverAppeared })
      const sentAt = await firstSentAt(desk)
      expect((await reads(desk)).at(-1)?.at).toBeGreaterThanOrEqual(sentAt + settleMs)
      expect(await place(desk, input)).toMatchObject(neverAppeared)
      expect(await posts(desk)).toHaveLength(1)
      const next = buy(desk)
      expect(await place(desk, next)).toMatchObject({ ...placed, replayed: false })
      expect(await posts(desk)).toHaveLength(2)
      expect(await booked(desk, input)).toEqual([])
    },
  },
  {
    says: 'A09 a caller in a hurry is told in time, and the order is found while its answer hangs',
    settings: certified,
    async work(desk) {
      await desk.harness.setRules(rule(onPlace, { kind: 'hang', when: 'afterCommit' }))
      const input = buy(desk)
      expect(await place(desk, input, 500)).toMatchObject(unknown)
      await expectState(desk, input, found)
      expect(await posts(desk)).toMatchObject([{ status: null }])
      await desk.harness.setRules({ match: {}, fault: { kind: 'refuse' } })
      await heal(desk)
      expect(await place(desk, input)).toMatchObject({ ...placed, replayed: true })
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A13 nobody shows the key, and an equal order came too: a person decides, nothing is bound, an alarm says so',
    isApart: true,
    async work(desk) {
      await switchTo(desk, { clientOrderIdEcho: 'nowhere' })
      await desk.harness.setRules(loseAnswer, rule({ ...onPlace, times: 1 }, { kind: 'twin' }))
      const input = buy(desk)
      desk.forPerson.add(input.clientOrderId)
      expect(await place(desk, input, hasteMs)).toMatchObject(unknown)
      await eventually(async () =>
        expect(alarms(desk)).toEqual([expect.stringContaining('an operator has to decide which order it is')]),
      )
      expect(await find(desk, input)).toMatchObject({ state: 'UNKNOWN', orderId: null, foundBy: null })
      expect(await place(desk, buy(desk))).toMatchObject({ notPlacedCode: 'BLOCKED_BY_UNRESOLVED' })
      expect(await posts(desk)).toHaveLength(1)
      const equal = (await bookOf(desk, desk.accountId)).filter((order) => order['limit_price'] === '10.00')
      expect(equal).toHaveLength(2)
    },
  },
  {
    says: 'A13 nobody shows the key: the only new order that is equal is bound, at the settle time and not before',
    async work(desk) {
      await switchTo(desk, { clientOrderIdEcho: 'nowhere' })
      const older = await insert(desk)
      await desk.harness.setRules(loseAnswer)
      const input = buy(desk)
      const result = await place(desk, input)
      expect(result).toMatchObject({ ...placed, replayed: false })
      expect(result.orderId).not.toBe(desk.dialect.toOurs(older))
      expect(await find(desk, input)).toMatchObject({ ...found, foundBy: 'FINGERPRINT' })
      expect((await reads(desk)).at(-1)?.at).toBeGreaterThanOrEqual((await firstSentAt(desk)) + settleMs)
      const [order] = await booked(desk, input)
      expect(result.orderId).toBe(desk.dialect.toOurs(order ?? {}))
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A13 nobody shows the key, and what was there before could not be seen: a person decides',
    isApart: true,
    async work(desk) {
      await switchTo(desk, { clientOrderIdEcho: 'nowhere' })
      const body = desk.dialect.refusal(403)
      await desk.harness.setRules(
        rule({ ...onLists(desk), times: 1 }, { kind: 'status', status: 403, body }),
        loseAnswer,
      )
      const input = buy(desk)
      desk.forPerson.add(input.clientOrderId)
      expect(await place(desk, input, hasteMs)).toMatchObject(unknown)
      await eventually(async () => expect(alarms(desk)).toHaveLength(1))
      expect(await find(desk, input)).toMatchObject({ state: 'UNKNOWN', orderId: null, foundBy: null })
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A13 only single reads show the key: an equal order that came too does not matter',
    not: { Aries: 'it reads no order singly' },
    async work(desk) {
      await switchTo(desk, { clientOrderIdEcho: 'singleReads' })
      await desk.harness.setRules(loseAnswer, rule({ ...onPlace, times: 1 }, { kind: 'twin' }))
      const input = buy(desk)
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(alarms(desk)).toEqual([])
    },
  },
  {
    says: 'A14 among 250 other orders, oldest first, with more coming in: found',
    isApart: true,
    async work(desk) {
      await switchTo(desk, { listOrder: 'oldestFirst', shortPages: true, ariesActiveOrder: 'oldestFirst' })
      for (let batch = 0; batch < 5; batch++) await Promise.all(Array.from({ length: 50 }, () => insert(desk)))
      await desk.harness.setRules(loseAnswer)
      const input = buy(desk)
      const over = new AbortController()
      const placing = place(desk, input).finally(() => over.abort())
      for (let more = 0; more < 40 && !over.signal.aborted; more++) await insert(desk)
      expect(await placing).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A15 lists lag by four fifths of the settle time: found',
    settings: { ...soon, PLACE_SETTLE_MS: '1000' },
    async work(desk) {
      await desk.harness.setRules(loseAnswer, rule(onLists(desk), { kind: 'listLag', ms: 800 }))
      const input = buy(desk)
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect((await reads(desk)).at(-1)?.at).toBeGreaterThanOrEqual((await firstSentAt(desk)) + 750)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A15 one of two sources lags for longer than the settle time: found in the other',
    not: {
      "Bluum's accounts": 'its lists have one source',
      "Bluum's investors": 'its lists have one source',
    },
    async work(desk) {
      await switchTo(desk, { ariesCacheLag: 'seconds', ariesHistory: 'ended' })
      await desk.harness.setRules(loseAnswer)
      const input = buy(desk)
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A15 the order enters the book later than its answer was lost: found',
    settings: { ...soon, PLACE_SETTLE_MS: '1000' },
    async work(desk) {
      await desk.harness.setRules(rule(onPlace, { kind: 'commitDelay', ms: 600 }), loseAnswer)
      const input = buy(desk)
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A17 a success that is cut, empty or no JSON is no outcome: found',
    settings: certified,
    async work(desk) {
      const faults = [
        { kind: 'truncate' },
        { kind: 'emptyBody' },
        { kind: 'emptyBody', status: 204 },
        { kind: 'invalidJson' },
        { kind: 'contentType', value: 'text/html' },
      ]
      for (const [index, fault] of faults.entries()) {
        await desk.harness.clearCalls()
        await desk.harness.setRules(rule(onPlace, fault))
        const input = buy(desk, { quantity: String(index + 1) })
        expect(await place(desk, input), fault.kind).toMatchObject(placed)
        expect(await find(desk, input), fault.kind).toMatchObject(found)
        expect(await posts(desk)).toHaveLength(1)
      }
    },
  },
  {
    says: 'A18 a success about another order is not believed: a read confirms the order, or it is found',
    settings: certified,
    async work(desk) {
      const { quantity, clientOrderId, id, side } = desk.dialect.fields
      const faults = [
        { kind: 'setField', field: quantity, value: '600' },
        { kind: 'setField', field: clientOrderId, value: 'key-of-somebody' },
        { kind: 'setField', field: 'symbol', value: 'KO' },
        { kind: 'setField', field: side, value: desk.dialect.sell },
        { kind: 'dropField', field: id },
        { kind: 'setField', field: id, value: { id: 'x' } },
      ]
      for (const [index, fault] of faults.entries()) {
        await desk.harness.clearCalls()
        await desk.harness.setRules(rule(onPlace, fault))
        const input = buy(desk, { quantity: String(index + 1) })
        expect(await place(desk, input), JSON.stringify(fault)).toMatchObject(placed)
        // An answer with an order id names the order to read.
        const foundBy = 'field' in fault && fault.field === id ? 'CLIENT_ORDER_ID' : 'RESPONSE'
        expect(await find(desk, input), JSON.stringify(fault)).toMatchObject({ ...found, foundBy })
        expect(await posts(desk)).toHaveLength(1)
      }
      expect(desk.harness.log().filter((line) => line.includes('is not known')).length).toBeGreaterThanOrEqual(1)
    },
  },
  {
    says: 'A19 a success that says rejected is a rejection, with its reason, and is told again',
    async work(desk) {
      await switchTo(desk, desk.dialect.rejecting)
      const input = buy(desk)
      const first = await place(desk, input)
      const [order] = await booked(desk, input)
      expect(order).toMatchObject({ status: 'rejected' })
      expect(first).toMatchObject({
        __typename: 'OrderRejected',
        replayed: false,
        orderId: desk.dialect.toOurs(order ?? {}),
        reason: expect.stringMatching(/closed/i),
      })
      expect(await place(desk, input)).toMatchObject({
        __typename: 'OrderRejected',
        replayed: true,
        reason: first.reason,
      })
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A19 a rejection whose answer is lost is found as one',
    async work(desk) {
      await switchTo(desk, desk.dialect.rejecting)
      await desk.harness.setRules(loseAnswer)
      const input = buy(desk)
      const first = await place(desk, input)
      const [order] = await booked(desk, input)
      expect(first).toMatchObject({ __typename: 'OrderRejected', orderId: desk.dialect.toOurs(order ?? {}) })
      expect(await find(desk, input)).toMatchObject({ ...found, state: 'REJECTED' })
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A19 an order that is taken in and fails afterwards is placed, and read as rejected with its reason',
    not: {
      "Bluum's accounts": 'it rejects before it answers',
      Aries: 'it rejects before it answers',
    },
    async work(desk) {
      await switchTo(desk, { ...desk.dialect.rejecting, custody: 'afterAnswer' })
      const input = buy(desk)
      const result = await place(desk, input)
      expect(result).toMatchObject({ ...placed, order: { state: 'OPEN' } })
      expect((await read(desk, result.orderId ?? '')).data.order).toMatchObject({
        status: 'REJECTED',
        state: 'CLOSED',
        rejectReason: expect.stringMatching(/closed/i),
      })
      expect(await place(desk, input)).toMatchObject({ ...placed, replayed: true, order: { status: 'REJECTED' } })
      expect(await cancel(desk, { orderId: result.orderId })).toMatchObject({ refusalCode: 'ALREADY_CLOSED' })
      expect(await cancelPosts(desk)).toEqual([])
    },
  },
  {
    says: 'A20 a no, in each form that the broker has for it, is a rejection and is told again',
    async work(desk) {
      for (const [index, switches] of desk.dialect.refusing.entries()) {
        await switchTo(desk, switches)
        const input = buy(desk, { quantity: `90000000${index}` })
        const result = await place(desk, input)
        expect(result, JSON.stringify(switches)).toMatchObject({ __typename: 'OrderRejected', replayed: false })
        expect(result.reason).not.toBe('')
        expect(await place(desk, input)).toMatchObject({ ...result, replayed: true })
      }
      expect(await posts(desk)).toHaveLength(desk.dialect.refusing.length)
      await desk.harness.clearCalls()
      const noes = desk.dialect.noes('Buying power too low')
      for (const [index, [says, status, body]] of noes.entries()) {
        await desk.harness.setRules(rule(onPlace, { kind: 'status', status, body }))
        const input = buy(desk, { quantity: String(index + 1) })
        const reason = 'Buying power too low'
        const result = await place(desk, input)
        expect(result, says).toMatchObject({ __typename: 'OrderRejected', replayed: false, reason })
        expect(await place(desk, input), says).toMatchObject({ ...result, replayed: true })
      }
      expect(await posts(desk)).toHaveLength(noes.length)
    },
  },
  {
    says: 'A20 a no that names no reason is none: whether there is an order is found out',
    not: {
      "Bluum's accounts": 'each of its refusals has a code',
      "Bluum's investors": 'each of its refusals has a code',
    },
    settings: certified,
    async work(desk) {
      const body = { success: false, text: 'Try again later' }
      await desk.harness.setRules(
        rule({ ...onPlace, times: 1 }, { kind: 'status', status: 200, body, when: 'afterCommit' }),
      )
      const input = buy(desk)
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A21 a key that another store has placed is told as placed, where the broker refuses it with a 409',
    isApart: true,
    not: { Aries: 'no page says that it knows a client id again, and its 400 is a no like any other' },
    async work(desk) {
      const input = buy(desk)
      const { orderId } = await place(desk, input)
      const { url, apiKey, apiSecret } = desk.harness.sandbox
      const env = { BLUUM_URL: url, BLUUM_API_KEY: apiKey, BLUUM_API_SECRET: apiSecret, AUTH: 'none' }
      const second = async (other: Desk): Promise<void> => {
        await other.harness.setRules(rule(onPlace, { kind: 'dedupe' }))
        expect(await place(other, input)).toMatchObject({ ...placed, orderId })
        expect(await find(other, input)).toMatchObject(found)
        expect((await posts(other)).map(({ status }) => status)).toEqual([201, 409])
        expect(await place(other, input)).toMatchObject({ ...placed, replayed: true, orderId })
        expect(await posts(other)).toHaveLength(2)
      }
      // There is no Aries there.
      await atDesk(desk.dialect, { ...soon, ...env }, second, desk.harness.sandbox)
    },
  },
  ...[401, 403, 429].map((status): Row => ({
    says: `A06 lists that answer ${status} are no evidence that there is no order`,
    settings: certified,
    async work(desk) {
      const refused = { kind: 'status', status, body: desk.dialect.refusal(status) }
      await desk.harness.setRules(loseAnswer, rule(onLists(desk), refused))
      const input = buy(desk)
      await loseOutcome(desk, input)
      const settledAt = (await firstSentAt(desk)) + settleMs
      await eventually(async () => {
        const late = (await reads(desk)).filter((call) => call.at >= settledAt && call.status === status)
        expect(late.length).toBeGreaterThanOrEqual(status === 429 ? 1 : 3)
      })
      expect(await find(desk, input)).toMatchObject({ state: 'UNKNOWN' })
      await heal(desk)
      await expectState(desk, input, found)
      expect(await posts(desk)).toHaveLength(1)
    },
  })),
  {
    says: 'C05 a list with a row that lost its id or its status is no evidence that there is no order',
    settings: certified,
    async work(desk) {
      const { id, status } = desk.dialect.fields
      for (const [index, field] of [id, status].entries()) {
        await desk.harness.clearCalls()
        // In each list: the newest row, which is the one that is looked for.
        await desk.harness.setRules(loseAnswer, rule(onLists(desk), { kind: 'dropField', field, row: 0 }))
        const input = buy(desk, { quantity: String(index + 1) })
        await loseOutcome(desk, input)
        const settledAt = (await firstSentAt(desk)) + settleMs
        await eventually(async () =>
          expect((await reads(desk)).filter(({ at }) => at >= settledAt).length).toBeGreaterThanOrEqual(6),
        )
        expect(await find(desk, input)).toMatchObject({ state: 'UNKNOWN' })
        await heal(desk)
        await expectState(desk, input, found)
      }
    },
  },
  {
    says: 'D13 a token that is refused right after its issue is replaced once; refused again, it is proof that nothing was placed, and the same key places later',
    isApart: true,
    not: {
      "Bluum's accounts": 'its key does not expire',
      "Bluum's investors": 'its key does not expire',
    },
    settings: certified,
    async work(desk) {
      const refuse = (times: number): Promise<void> =>
        desk.harness.setRules(
          rule({ ...onPlace, times }, { kind: 'status', status: 401, body: desk.dialect.refusal(401) }),
        )
      await refuse(2)
      const input = buy(desk)
      const first = await place(desk, input)
      expect(first).toMatchObject({ notPlacedCode: 'BROKER_UNAVAILABLE', certainty: 'PROVEN', retrySameKey: true })
      expect(await posts(desk)).toHaveLength(2)
      expect(await place(desk, input)).toMatchObject({ ...placed, replayed: false })
      expect(await posts(desk)).toHaveLength(3)
      expect(await booked(desk, input)).toHaveLength(1)
      expect(await tokenCalls(desk)).toHaveLength(2)
    },
  },
  {
    says: 'E15 what a rejection says is told as plain text, without control characters, and at most 200 of it',
    async work(desk) {
      for (const [index, [says, status, body]] of desk.dialect.noes(evil).entries()) {
        await desk.harness.setRules(rule(onPlace, { kind: 'status', status, body }))
        const result = await place(desk, buy(desk, { quantity: String(index + 1) }))
        expect(result.__typename, says).toBe('OrderRejected')
        expectTame(result.reason)
      }
      for (const line of desk.harness.log()) expect(line).not.toMatch(/x{201}/)
    },
  },
  {
    says: 'A22 a 429 is waited out or proven not placed, and the same key places later',
    async work(desk) {
      await desk.harness.setRules(rule({ ...onPlace, times: 1 }, { kind: 'retryAfter', value: '1' }))
      const input = buy(desk)
      const first = await place(desk, input)
      if (first.outcome !== 'PLACED') {
        expect(first).toMatchObject({ notPlacedCode: 'RATE_LIMITED', certainty: 'PROVEN' })
        expect(first.retryAfterMs).toBeGreaterThanOrEqual(1_000)
        await eventually(async () => expect(await place(desk, input)).toMatchObject(placed))
      }
      const [refused, sent, ...more] = await posts(desk)
      expect(more).toEqual([])
      expect((sent?.at ?? 0) - (refused?.at ?? 0)).toBeGreaterThanOrEqual(990)
      expect(await booked(desk, input)).toHaveLength(1)
    },
  },
  {
    says: 'A23 a redirect is not followed, whatever became of the order',
    settings: certified,
    async work(desk) {
      let hits = 0
      const target = createServer((_request, response) => {
        hits++
        response.end('{}')
      })
      target.listen(0, '127.0.0.1')
      await once(target, 'listening')
      const location = `http://127.0.0.1:${(target.address() as AddressInfo).port}/v1/orders`
      const redirect = { kind: 'status', status: 307, headers: { location } }
      await desk.harness.setRules(rule(onPlace, redirect))
      const lost = buy(desk)
      await place(desk, lost)
      await expectState(desk, lost, { state: 'NOT_PLACED', result: neverAppeared })
      await desk.harness.setRules(rule(onPlace, { ...redirect, when: 'afterCommit' }))
      const input = buy(desk, { quantity: '6' })
      expect(await place(desk, input)).toMatchObject(placed)
      expect(await find(desk, input)).toMatchObject(found)
      expect(hits).toBe(0)
      expect(await posts(desk)).toHaveLength(2)
      target.close()
    },
  },
  {
    says: 'A24 a closed port is proof that nothing was placed, and the same key places once it is open',
    async work(desk) {
      await desk.harness.setRules({ match: {}, fault: { kind: 'refuse' } })
      const input = buy(desk)
      const startedAt = performance.now()
      expect(await place(desk, input)).toMatchObject({
        notPlacedCode: 'BROKER_UNAVAILABLE',
        certainty: 'PROVEN',
        retrySameKey: true,
      })
      expect(performance.now() - startedAt).toBeLessThan(6_000)
      await heal(desk)
      await eventually(async () => expect(await place(desk, input)).toMatchObject(placed))
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A24 without a token nothing is sent, which is proof, and the same key places once there is one',
    not: {
      "Bluum's accounts": 'it has no tokens',
      "Bluum's investors": 'it has no tokens',
    },
    isApart: true,
    async work(desk) {
      const orderId = desk.dialect.openOrderId(desk.harness.sandbox)
      for (const status of [500, 401]) {
        await desk.harness.clearCalls()
        const body = { error: 'internal_error', message: 'Something broke' }
        await desk.harness.setRules(rule({ path: '/v1/oauth2/token' }, { kind: 'status', status, body }))
        const input = buy(desk, { quantity: String(status) })
        expect(await place(desk, input)).toMatchObject({
          notPlacedCode: 'BROKER_UNAVAILABLE',
          certainty: 'PROVEN',
          retrySameKey: true,
        })
        expect(await cancel(desk, { orderId })).toMatchObject({ __typename: 'CancelPending', orderId })
        expect((await calls(desk)).filter(({ path }) => path !== '/v1/oauth2/token')).toEqual([])
        await heal(desk)
        await eventually(async () => expect(await place(desk, input)).toMatchObject(placed))
        expect(await posts(desk)).toHaveLength(1)
        await desk.harness.control('POST', '/tokens/expire')
        // One that came just now is not asked for anew.
        if (status === 500) await restart(desk, soon)
      }
      await restart(desk, soon)
    },
  },
  {
    says: "A25 a refusal of something in between, after the order was taken in, is not the broker's: found",
    settings: certified,
    async work(desk) {
      const words = [
        '<html>Request blocked</html>',
        { error: 'blocked', code: 403, message: 'Request blocked' },
        {},
        [],
      ]
      for (const [index, status] of [400, 401, 403, 404, 413, 422, 429].entries()) {
        await desk.harness.clearCalls()
        const body = words[index % words.length]
        await desk.harness.setRules(rule(onPlace, { kind: 'status', status, body, when: 'afterCommit' }))
        const input = buy(desk, { quantity: String(index + 1) })
        await place(desk, input)
        await expectState(desk, input, found)
        expect(await posts(desk), String(status)).toHaveLength(1)
      }
    },
  },
  {
    says: 'A26 a client that leaves abandons no order',
    async work(desk) {
      await desk.harness.setRules(rule(onPlace, { kind: 'latency', ms: 400 }))
      const input = buy(desk)
      const client = httpRequest(desk.harness.url, {
        method: 'POST',
        agent: false,
        headers: { 'content-type': 'application/json' },
      })
      client.on('error', () => {})
      client.end(JSON.stringify({ query: placeDocument, variables: { input } }))
      await eventually(async () => expect(await posts(desk)).toHaveLength(1))
      client.destroy()
      note(desk, input, { outcome: 'UNKNOWN', orderId: null })
      await expectState(desk, input, { state: 'PLACED', attempts: 1 })
      expect(await place(desk, input)).toMatchObject({ ...placed, replayed: true })
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'A31 an equal order without an outcome keeps a new key from being sent, until a person acknowledges it',
    settings: certified,
    async work(desk) {
      await desk.harness.setRules(loseAnswer, hideLists(desk))
      const first = buy(desk)
      await loseOutcome(desk, first)
      const second = buy(desk, { quantity: '5.00' })
      expect(await place(desk, second)).toMatchObject({
        notPlacedCode: 'BLOCKED_BY_UNRESOLVED',
        certainty: 'PROVEN',
        retrySameKey: true,
        message: expect.stringContaining(first.clientOrderId),
      })
      expect(await posts(desk)).toHaveLength(1)
      // Neither another order nor the same one of another account is held up.
      expect(await place(desk, buy(desk, { quantity: '6' }))).toMatchObject(placed)
      expect(await place(desk, buy(desk, { accountId: desk.otherId }))).toMatchObject(placed)
      await desk.harness.clearCalls()
      const acknowledged = { ...second, acknowledgeUnresolved: [first.clientOrderId] }
      expect(await place(desk, acknowledged)).toMatchObject({ ...placed, replayed: false })
      expect(await posts(desk)).toHaveLength(1)
      await heal(desk)
      await expectState(desk, first, found)
    },
  },

  // ---- canceling

  {
    says: 'B01 B02 an open order is canceled with nothing filled, and again without asking',
    async work(desk) {
      const { orderId } = await placeResting(desk)
      expect(await cancel(desk, { orderId })).toMatchObject({
        ...canceled,
        alreadyCanceled: false,
        orderId,
        order: { ...canceled.order, filledQuantity: '0' },
      })
      expect(await inBook(desk, orderId)).toMatchObject({ status: 'canceled' })
      expect(await cancelPosts(desk)).toHaveLength(1)
      expect(await cancel(desk, { orderId })).toMatchObject({ ...canceled, alreadyCanceled: true })
      expect(await cancelPosts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'B04 what filled before the cancel took effect stays filled',
    async work(desk) {
      const { orderId } = await placeResting(desk, { quantity: '10' })
      await desk.harness.setRules(rule(onCancel, { kind: 'fillOnCancel', quantity: '3' }))
      expect(await cancel(desk, { orderId, accountId: desk.accountId })).toMatchObject({
        ...canceled,
        order: { ...canceled.order, filledQuantity: '3' },
      })
    },
  },
  {
    says: 'B04 an order that filled whole before is not canceled',
    async work(desk) {
      const { orderId } = await placeResting(desk, { quantity: '10' })
      await desk.harness.setRules(rule(onCancel, { kind: 'fillOnCancel' }))
      expect(await cancel(desk, { orderId })).toMatchObject({
        __typename: 'CancelRefused',
        refusalCode: 'ALREADY_FILLED',
        order: { status: 'FILLED', filledQuantity: '10' },
      })
    },
  },
  {
    says: 'B06 a cancel that takes effect later is pending until then, and never confirmed before',
    isApart: true,
    async work(desk) {
      const { orderId } = await placeResting(desk)
      await desk.harness.setRules(rule(onCancel, { kind: 'asyncCancel', ms: 60_000 }))
      await cancelInHaste(desk, orderId)
      expect(await inBook(desk, orderId)).toMatchObject({ status: 'accepted' })
      expect((await read(desk, orderId)).data.order).toMatchObject({ state: 'OPEN' })
      await advance(desk, 60_000)
      await eventually(async () => expect((await read(desk, orderId)).data.order).toMatchObject(canceled.order))
      expect(await cancel(desk, { orderId })).toMatchObject(canceled)
      expect((await cancelPosts(desk)).length).toBeLessThanOrEqual(2)
    },
  },
  {
    says: 'B06 a cancel that takes effect later, of an order that fills before, is refused: filled',
    isApart: true,
    async work(desk) {
      const { input, orderId } = await placeResting(desk)
      await desk.harness.setRules(rule(onCancel, { kind: 'asyncCancel', ms: 60_000 }))
      await cancelInHaste(desk, orderId)
      const [order] = await booked(desk, input)
      await desk.harness.control('POST', `/orders/${String(order?.['id'])}/fill`, {})
      await advance(desk, 60_000)
      expect(await cancel(desk, { orderId })).toMatchObject({
        __typename: 'CancelRefused',
        refusalCode: 'ALREADY_FILLED',
        order: { status: 'FILLED', filledQuantity: '5' },
      })
    },
  },
  {
    says: 'B07 a cancel that twice was not done is done the third time',
    async work(desk) {
      const { orderId } = await placeResting(desk)
      await desk.harness.setRules(rule({ ...onCancel, times: 2 }, failing))
      expect(await cancel(desk, { orderId })).toMatchObject(canceled)
      expect((await cancelPosts(desk)).map(({ status }) => status)).toEqual([502, 502, 200])
    },
  },
  {
    says: 'B07 a cancel that is never done is asked for three times and is not confirmed',
    isApart: true,
    settings: { ...soon, PLACE_REPLY_MS: '4000' },
    async work(desk) {
      const { orderId } = await placeResting(desk)
      await desk.harness.setRules(rule(onCancel, failing))
      expect(await cancel(desk, { orderId })).toMatchObject({ ...pending, order: { state: 'OPEN' } })
      expect(await cancelPosts(desk)).toHaveLength(3)
      expect(await inBook(desk, orderId)).toMatchObject({ status: 'accepted' })
    },
  },
  {
    says: 'B09 B13 an order of another account answers like a missing one, and nothing is asked',
    async work(desk) {
      const input = buy(desk, { accountId: desk.otherId })
      const { orderId } = await place(desk, input)
      await desk.harness.clearCalls()
      const missing = desk.dialect.missing(desk.accountId)
      const answer = await cancel(desk, { orderId: missing, accountId: desk.accountId })
      expect(answer).toMatchObject(notFound)
      // Aries has no single reads: it takes both lists, from when the account was opened.
      if (desk.dialect.name !== 'Aries') expect(await calls(desk)).toHaveLength(1)
      // By the id that it has, and by one under this account.
      const name = String(orderId).replace(desk.otherId, desk.accountId)
      for (const foreign of [orderId, name]) {
        const theirs = await cancel(desk, { orderId: foreign, accountId: desk.accountId })
        expect(theirs).toEqual({ ...answer, orderId: foreign })
      }
      expect(await cancelPosts(desk)).toEqual([])
      expect(await booked(desk, input)).toMatchObject([{ status: 'accepted' }])
    },
  },
  {
    says: 'B10 a cancel by its key of an order without an outcome is kept, and done once when it is found',
    settings: certified,
    async work(desk) {
      await desk.harness.setRules(loseAnswer, hideLists(desk))
      const input = buy(desk)
      await loseOutcome(desk, input)
      const { accountId, clientOrderId } = input
      const key = { accountId, clientOrderId }
      expect(await cancel(desk, key, hasteMs)).toMatchObject({ ...pending, orderId: null, order: null })
      await Promise.all(Array.from({ length: 5 }, () => cancel(desk, key, hasteMs)))
      expect(await cancelPosts(desk)).toEqual([])
      await heal(desk)
      await expectState(desk, input, found)
      await eventually(async () => expect(await booked(desk, input)).toMatchObject([{ status: 'canceled' }]))
      await eventually(async () => expect(await cancel(desk, key)).toMatchObject(canceled))
      expect(await cancelPosts(desk)).toHaveLength(1)
      expect(await posts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'B10 a cancel by a key that nobody recorded finds its order at the broker',
    async work(desk) {
      const { accountId, clientOrderId } = buy(desk)
      const order = await insert(desk, { client_order_id: clientOrderId })
      const orderId = desk.dialect.toOurs(order)
      expect(await cancel(desk, { accountId, clientOrderId })).toMatchObject({ ...canceled, orderId })
      expect(await cancelPosts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'B10 a cancel by a key that nobody recorded is not told to be missing where not all orders can be told',
    async work(desk) {
      const { accountId, clientOrderId } = buy(desk)
      await insert(desk, { client_order_id: clientOrderId })
      const blinds = [
        { kind: 'status', status: 503 },
        { kind: 'dropField', field: desk.dialect.fields.id, row: 0 },
        { kind: 'omitClientOrderId' },
      ]
      for (const blind of blinds) {
        await desk.harness.setRules(rule(onLists(desk), blind))
        expect(await cancel(desk, { accountId, clientOrderId }), blind.kind).toMatchObject({
          __typename: 'CancelRefused',
          refusalCode: 'BROKER_UNAVAILABLE',
        })
      }
      expect(await cancelPosts(desk)).toEqual([])
    },
  },
  {
    says: 'B13 an order that exists and that a replica denies is an error, and canceled by what its record knows',
    async work(desk) {
      const { orderId } = await placeResting(desk)
      const lag = { ms: 600_000 }
      await desk.harness.setRules(
        rule(onLists(desk), { kind: 'listLag', ...lag }),
        rule(onSingles(desk), { kind: 'getLag', ...lag }),
      )
      const answer = await read(desk, orderId)
      expect(answer.data).toEqual({ order: null })
      expect(codesOf(answer)).toEqual(['BROKER_BAD_RESPONSE'])
      expect(await cancel(desk, { orderId }, 1_000)).toMatchObject({ __typename: 'CancelPending', orderId })
      expect(await cancelPosts(desk)).toHaveLength(1)
      await heal(desk)
      await eventually(async () => expect(await cancel(desk, { orderId })).toMatchObject(canceled))
      expect(await cancelPosts(desk)).toHaveLength(1)
    },
  },
  {
    says: 'B11 fifty at once are at most two cancels and one answer',
    async work(desk) {
      const { orderId } = await placeResting(desk)
      await desk.harness.setRules(rule(onCancel, { kind: 'latency', ms: 300 }))
      const results = await Promise.all(Array.from({ length: 50 }, () => cancel(desk, { orderId })))
      for (const result of results) expect(result).toEqual(results[0])
      expect(results[0]).toMatchObject(canceled)
      expect((await cancelPosts(desk)).length).toBeLessThanOrEqual(2)
    },
  },
  {
    says: 'B12 a cancel that the broker refuses is refused with its reason, and the order stays open',
    not: {
      "Bluum's accounts": 'it says no to a cancel by the status of HTTP alone (orders.cancel.test.ts)',
      "Bluum's investors": 'it says no to a cancel by the status of HTTP alone (orders.cancel.test.ts)',
    },
    async work(desk) {
      const { orderId } = await placeResting(desk)
      const origClOrdId = orderId.split(':')[2]
      const text = 'Too late to cancel'
      const noes = [
        { status: 200, body: { success: false, clOrdId: 'ORDER-77', origClOrdId, status: 'NEW', text } },
        { status: 200, body: { success: false, text } },
        { status: 400, body: { error: 'bad_request', message: text } },
      ]
      for (const no of noes) {
        await desk.harness.clearCalls()
        await desk.harness.setRules(rule(onCancel, { kind: 'status', ...no }))
        expect(await cancel(desk, { orderId }), JSON.stringify(no)).toMatchObject({
          __typename: 'CancelRefused',
          refusalCode: 'BROKER_REFUSED',
          reason: text,
          order: { status: 'ACCEPTED', state: 'OPEN' },
        })
        expect(await cancelPosts(desk)).toHaveLength(1)
      }
      await heal(desk)
      expect(await cancel(desk, { orderId })).toMatchObject(canceled)
    },
  },
  {
    says: 'B12 a cancel of an order that has ended meanwhile is refused by the broker, and told by what the order became',
    async work(desk) {
      for (const form of [{ ariesCancelOfFinal: 'refused' }, { ariesCancelOfFinal: 'notFound' }]) {
        await switchTo(desk, form)
        const { orderId } = await placeResting(desk, { quantity: '3' })
        await desk.harness.setRules(rule(onCancel, { kind: 'fillOnCancel' }))
        expect(await cancel(desk, { orderId })).toMatchObject({
          refusalCode: 'ALREADY_FILLED',
          order: { status: 'FILLED' },
        })
        expect(await cancelPosts(desk)).toHaveLength(1)
      }
    },
  },
  {
    says: 'B12 a cancel that is pending at the broker is pending here, and its body says what the order is',
    isApart: true,
    not: {
      "Bluum's accounts": 'its cancels have no body',
      "Bluum's investors": 'its cancels have no body',
    },
    async work(desk) {
      const { orderId } = await placeResting(desk)
      await desk.harness.setRules(rule(onCancel, { kind: 'asyncCancel', ms: 60_000 }))
      await cancelInHaste(desk, orderId, { status: 'PENDING_CANCEL', state: 'OPEN' })
      const [, account, origClOrdId] = orderId.split(':')
      const [post, ...more] = await cancelPosts(desk)
      expect(more).toEqual([])
      expect(JSON.parse(post?.body ?? '')).toEqual({
        origClOrdId,
        accountId: account,
        symbol: 'AAPL',
        side: 'BUY',
        securityType: 'CS',
      })
      await advance(desk, 60_000)
      await eventually(async () => expect((await read(desk, orderId)).data.order).toMatchObject(canceled.order))
    },
  },
  {
    says: 'B12 a cancel of an option names its put or call, strike and maturity, and one of a spread its id alone',
    isApart: true,
    not: {
      "Bluum's accounts": 'it trades no options',
      "Bluum's investors": 'it trades no options',
    },
    async work(desk) {
      const { data } = await list(desk, { accountId: desk.otherId, first: 100, filter: { state: 'OPEN' } })
      const document = `query Legs($id: ID!) { order(id: $id) { symbol side legs { right strikePrice expiration } } }`
      let spreads = 0
      let options = 0
      for (const { id } of data.orders.nodes as { id: string }[]) {
        const { data: shown } = await ask(desk, document, { id })
        const { symbol, side, legs } = shown.order
        if (legs.length === 0) continue
        await desk.harness.clearCalls()
        expect(await cancel(desk, { orderId: id })).toMatchObject(canceled)
        const [post] = await cancelPosts(desk)
        const [, accountId, origClOrdId] = id.split(':')
        const [leg] = legs
        const option = { putCall: leg.right, strikePrice: leg.strikePrice, maturity: leg.expiration }
        expect(JSON.parse(post?.body ?? '')).toEqual({
          origClOrdId,
          accountId,
          symbol,
          side,
          securityType: 'OPT',
          ...(legs.length === 1 ? option : {}),
        })
        if (legs.length === 1) options++
        else spreads++
      }
      expect([options, spreads]).toEqual([3, 1])
    },
  },
  {
    says: 'B14 a fill that comes after CANCELED is shown, and is an alarm',
    isApart: true,
    async work(desk) {
      const { input, orderId } = await placeResting(desk)
      expect(await cancel(desk, { orderId })).toMatchObject({ ...canceled, order: { filledQuantity: '0' } })
      const [order] = await booked(desk, input)
      const path = `/orders/${String(order?.['id'])}`
      await desk.harness.control('POST', `${path}/status`, { status: 'accepted' })
      await desk.harness.control('POST', `${path}/fill`, { quantity: '2' })
      await desk.harness.control('POST', `${path}/status`, { status: 'canceled' })
      expect(alarms(desk)).toEqual([])
      expect((await read(desk, orderId)).data.order).toMatchObject({ status: 'CANCELED', filledQuantity: '2' })
      expect(alarms(desk)).toEqual([expect.stringContaining('filled further')])
    },
  },
]

// ---- reading ---------------------------------------------------------------------------------------------------------------------

/** A desk with eight orders in the account, newest first, and the seeded past in the other one. */
interface Room extends Desk {
  ids: string[]
}

interface ReadingRow extends Omit<Row, 'work'> {
  /** It uses up what a broker may be asked again, or waits: a room of its own, beside the others. */
  isApart?: true
  work: (room: Room) => Promise<void>
}

async function openRoom(dialect: Dialect, settings: Json): Promise<Room> {
  const desk = await openDesk(dialect, settings)
  const room = { ...desk, accountId: desk.otherId, otherId: desk.accountId, ids: [] as string[] }
  await room.harness.control('DELETE', `/book?account=${dialect.toTheirs(room.accountId)}`)
  // Else a row of Aries stands in both of its lists, and the garbled one is made good by the other.
  await switchTo(room, { ariesHistory: 'ended' })
  for (let age = 8; age > 0; age--) {
    const order = await insert(room, {
      submitted_at: new Date(Date.now() - age * 1_000).toISOString(),
      qty: String(age),
    })
    room.ids.unshift(dialect.toOurs(order))
  }
  return room
}

async function inRoom(room: Room, work: (room: Room) => Promise<void>): Promise<void> {
  await room.harness.clearCalls()
  await work(room)
  await heal(room)
  await eventually(async () => {
    const { data, errors } = await list(room)
    expect(errors).toBeUndefined()
    expect(data.orders.nodes.map(({ id }: ShownOrder) => id)).toEqual(room.ids)
  })
  room.harness.expectSilent()
}

async function inOwnRoom(dialect: Dialect, settings: Json, work: (room: Room) => Promise<void>): Promise<void> {
  const room = await openRoom(dialect, settings)
  try {
    await inRoom(room, work)
  } finally {
    await closeDesk(room)
  }
}

async function expectOne(room: Room, id: string): Promise<void> {
  const { data, errors } = await read(room, id)
  expect(errors).toBeUndefined()
  expect(data.order).toMatchObject({ id, status: 'ACCEPTED' })
}

async function expectNone(room: Room, id: string, code: string): Promise<Answer> {
  const answer = await read(room, id)
  expect(answer.data).toEqual({ order: null })
  expect(codesOf(answer)).toEqual([code])
  return answer
}

/** Whether a list of a broker of another generation is an error, as a whole or row by row, and not one without orders. */
function expectContractError({ data, errors }: Answer): void {
  expect(errors?.length).toBeGreaterThan(0)
  for (const { extensions } of errors ?? []) expect(extensions['code']).toBe('BROKER_BAD_RESPONSE')
  if (data.orders === null) return
  expect(data.orders.nodes.length).toBeGreaterThan(0)
  for (const node of data.orders.nodes) expect(node).toBeNull()
}

/** What the sandbox answers a client of Bluum. */
async function askBluum({ harness: { sandbox } }: Room, path: string): Promise<unknown> {
  const authorization = `Basic ${Buffer.from(`${sandbox.apiKey}:${sandbox.apiSecret}`).toString('base64')}`
  return await (await fetch(sandbox.url + path, { headers: { authorization } })).json()
}

const readingRows: ReadingRow[] = [
  {
    says: 'C02 a broker that fails once is asked again, and the caller sees data',
    isApart: true,
    async work(room) {
      await room.harness.setRules(rule({ ...onSingles(room), times: 1 }, failing))
      await expectOne(room, room.ids[0] ?? '')
      expect((await reads(room)).map(({ status }) => status)).toEqual([502, 200])
    },
  },
  {
    says: 'C03 a broker that fails each time is BROKER_UNAVAILABLE after at most three calls, without a word of its page',
    isApart: true,
    async work(room) {
      await room.harness.setRules({ fault: failing })
      const { errors } = await expectNone(room, room.ids[0] ?? '', 'BROKER_UNAVAILABLE')
      expect(JSON.stringify(errors)).not.toMatch(/<|gateway/i)
      expect((await calls(room)).length).toBeLessThanOrEqual(3)
    },
  },
  {
    says: 'C04 a body that is cut is asked for again as a whole, three times at the most',
    isApart: true,
    async work(room) {
      await room.harness.setRules(rule(onSingles(room), { kind: 'truncate' }))
      await expectNone(room, room.ids[0] ?? '', 'BROKER_BAD_RESPONSE')
      const asked = await reads(room)
      expect(asked.length).toBeLessThanOrEqual(3)
      for (const { headers } of asked) expect(headers).not.toHaveProperty('range')
    },
  },
  {
    says: 'C05 a row without its id, and one without its status, cost themselves alone',
    async work(room) {
      const { id, status } = room.dialect.fields
      await room.harness.setRules(
        rule(onLists(room), { kind: 'dropField', field: id, row: 2 }),
        rule(onLists(room), { kind: 'dropField', field: status, row: 5 }),
      )
      const { data, errors } = await list(room)
      const { nodes } = data.orders
      expect(nodes.filter((node: unknown) => node === null)).toHaveLength(2)
      expect(nodes.filter((node: unknown) => node !== null).map((node: ShownOrder) => node.id)).toEqual(
        room.ids.filter((_id, index) => index !== 2 && index !== 5),
      )
      expect(errors?.map((error) => error.extensions['code'])).toEqual(['BROKER_BAD_RESPONSE', 'BROKER_BAD_RESPONSE'])
    },
  },
  {
    says: 'C05 an order whose row lost its id is not told to be missing, nor its cancel',
    isApart: true,
    async work(room) {
      const [id = ''] = room.ids
      await room.harness.setRules(rule(onSingles(room), { kind: 'dropField', field: room.dialect.fields.id }))
      await expectNone(room, id, 'BROKER_BAD_RESPONSE')
      expect(await cancel(room, { orderId: id, accountId: room.accountId })).toMatchObject({
        __typename: 'CancelPending',
        message: expect.stringContaining('It is kept'),
      })
      expect(await cancelPosts(room)).toEqual([])
    },
  },
  {
    says: 'C07 a decimal that was sent as a number is exact to the last digit',
    async work(room) {
      const [id = ''] = room.ids
      for (const source of ['0.1000000000000000055', '12345678901234567890']) {
        const fault = { kind: 'asNumber', field: room.dialect.fields.quantity, source }
        await room.harness.setRules(rule(onSingles(room), fault))
        const { data, errors } = await read(room, id)
        expect(errors).toBeUndefined()
        expect(data.order.quantity).toBe(source)
      }
    },
  },
  {
    says: 'C08 objects and nulls in rows cost a field or a row, and no other',
    async work(room) {
      const { fields } = room.dialect
      const set = (row: number, field: keyof typeof fields | 'symbol', value: unknown): object =>
        rule(onLists(room), { kind: 'setField', row, field: field === 'symbol' ? field : fields[field], value })
      await room.harness.setRules(
        set(0, 'side', { word: 'buy' }),
        set(0, 'type', null),
        set(0, 'timeInForce', ['day']),
        set(1, 'status', { word: 'filled' }),
        set(2, 'filledQuantity', { amount: '1' }),
        set(3, 'status', null),
        set(4, 'symbol', null),
        set(5, 'id', { id: 'x' }),
        set(6, 'quantity', null),
        set(6, 'averagePrice', null),
      )
      const { data, errors } = await list(room)
      const { nodes } = data.orders
      expect(nodes.map((node: ShownOrder | null) => node?.id ?? null)).toEqual(
        room.ids.map((id, row) => ([3, 4, 5].includes(row) ? null : id)),
      )
      expect(nodes[0]).toMatchObject({ side: 'UNKNOWN', type: 'UNKNOWN', timeInForce: 'UNKNOWN' })
      expect(nodes[1]).toMatchObject({ status: 'UNKNOWN', brokerStatus: null, state: null })
      expect(nodes[2]).toMatchObject({ filledQuantity: null })
      expect(nodes[6]).toMatchObject({ quantity: null, averagePrice: null })
      expect(nodes[7]).toMatchObject({ side: 'BUY', type: 'LIMIT', quantity: '8' })
      expect(errors?.map((error) => error.path?.slice(2).join('.')).toSorted()).toEqual([
        '2.filledQuantity',
        '3',
        '4',
        '5',
      ])
      for (const error of errors ?? []) expect(error.extensions['code']).toBe('BROKER_BAD_RESPONSE')
    },
  },
  {
    says: 'C08 a time that cannot be read costs the time',
    async work(room) {
      for (const value of ['2026-03-09 15:02:11', 'yesterday', { time: 'now' }, 1_700]) {
        const fault = { kind: 'setField', row: 2, field: room.dialect.fields.submittedAt, value }
        await room.harness.setRules(rule(onLists(room), fault))
        const { data, errors } = await list(room)
        expect(data.orders.nodes.map(({ id }: ShownOrder) => id).toSorted()).toEqual(room.ids.toSorted())
        expect(errors).toMatchObject([{ extensions: { code: 'BROKER_BAD_RESPONSE' } }])
        expect(errors?.[0]?.path?.at(-1)).toBe('submittedAt')
      }
    },
  },
  {
    says: 'C09 two hundred fields that nobody knows change nothing',
    async work(room) {
      const [id = ''] = room.ids
      const before = [await read(room, id), await list(room)].map(({ data }) => data)
      await room.harness.setRules({ fault: { kind: 'extraFields', count: 200 } })
      const after = [await read(room, id), await list(room)]
      for (const { errors } of after) expect(errors).toBeUndefined()
      expect(after.map(({ data }) => data)).toEqual(before)
    },
  },
  {
    says: 'C13 JSON that says it is HTML is no answer',
    async work(room) {
      await room.harness.setRules(rule(onSingles(room), { kind: 'contentType', value: 'text/html' }))
      await expectNone(room, room.ids[0] ?? '', 'BROKER_BAD_RESPONSE')
    },
  },
  {
    says: 'C14 an answer that is no HTTP is an error, its connection is dropped, and the next one is fine',
    isApart: true,
    async work(room) {
      const [id = ''] = room.ids
      await expectOne(room, id)
      for (const how of ['twoContentLengths', 'hugeHeader', 'badChunk']) {
        await room.harness.clearCalls()
        await room.harness.setRules(rule(onSingles(room), { kind: 'badHeaders', how }))
        await expectNone(room, id, 'BROKER_BAD_RESPONSE')
        const asked = await reads(room)
        expect(asked.length).toBeLessThanOrEqual(3)
        await eventually(async () => expect(asked.every((call) => socketOf(room, call)?.destroyed)).toBe(true))
        await heal(room)
        await expectOne(room, id)
      }
    },
  },
  {
    says: 'C16 an answer about another order is no answer',
    not: { Aries: 'it has no answer about one order: what is not in its lists is missing' },
    async work(room) {
      const [id = '', other = ''] = room.ids
      await room.harness.setRules(rule(onSingles(room), { kind: 'setField', field: 'id', value: other }))
      const { errors } = await expectNone(room, id, 'BROKER_BAD_RESPONSE')
      expect(JSON.stringify(errors)).not.toContain(other)
    },
  },
  {
    says: 'C16 a row of another account is an error, and tells nothing of itself',
    async work(room) {
      const value = room.dialect.toTheirs(room.otherId)
      const fault = { kind: 'setField', row: 1, field: room.dialect.fields.account, value }
      await room.harness.setRules(rule(onLists(room), fault))
      const { data, errors } = await list(room)
      expect(data.orders.nodes.map((node: ShownOrder | null) => node?.id ?? null)).toEqual(
        room.ids.map((id, row) => (row === 1 ? null : id)),
      )
      expect(errors).toMatchObject([{ path: ['orders', 'nodes', 1], extensions: { code: 'BROKER_BAD_RESPONSE' } }])
      expect(JSON.stringify(errors)).not.toContain(value)
    },
  },
  {
    says: 'C16 an order of another account than the one named answers exactly like a missing one',
    async work(room) {
      const missing = await read(room, room.dialect.missing(room.accountId))
      const foreign = room.dialect.toOurs((await bookOf(room, room.otherId))[0] ?? {})
      // Whether it has been heard of before, or not.
      for (let time = 0; time < 2; time++) {
        const { status, data, errors } = await read(room, foreign)
        expect({ status, data, errors }).toEqual({ status: 200, data: { order: null }, errors: undefined })
        await list(room, { accountId: room.otherId, first: 1 })
      }
      expect(missing).toMatchObject({ status: 200, data: { order: null } })
    },
  },
  {
    says: 'C18 lists longer than asked for, with repeats, are walked to their end without a repeat or a gap',
    async work(room) {
      const plain = await walk(room, 30)
      expect(plain.length).toBeGreaterThan(60)
      await room.harness.setRules(rule(onLists(room), { kind: 'extraRows', rows: 6 }))
      expect(await walk(room, 30)).toEqual(plain)
      const { data } = await list(room, { accountId: room.otherId, first: 5 })
      expect(data.orders.nodes.map(({ id }: ShownOrder) => id)).toEqual(plain.slice(0, 5))
    },
  },
  {
    says: 'C20 an empty body and a 204 are no order, and an empty list',
    async work(room) {
      for (const fault of [{ kind: 'emptyBody' }, { kind: 'emptyBody', status: 204 }]) {
        await room.harness.setRules(rule(onSingles(room), fault), rule(onLists(room), fault))
        await expectNone(room, room.ids[0] ?? '', 'BROKER_BAD_RESPONSE')
        const { data, errors } = await list(room)
        expect(errors).toBeUndefined()
        expect(data.orders.nodes).toEqual([])
      }
    },
  },
  {
    says: 'C21 a broker that ignores the filter shows nothing that was not asked for',
    async work(room) {
      const accountId = room.otherId
      const { data: all } = await list(room, { accountId, first: 100 })
      const submittedAfter = all.orders.nodes[40].submittedAt
      for (const filter of [
        { statuses: ['FILLED'] },
        { statuses: ['FILLED'], submittedAfter },
        { symbol: 'AAPL', side: 'SELL' },
      ]) {
        const { data: plain } = await list(room, { accountId, first: 20, filter })
        expect(plain.orders.nodes.length).toBeGreaterThan(0)
        await room.harness.setRules(rule(onLists(room), { kind: 'ignoreFilter' }))
        const { data, errors } = await list(room, { accountId, first: 20, filter })
        expect(errors).toBeUndefined()
        expect(data.orders.nodes).toEqual(plain.orders.nodes)
        await heal(room)
      }
    },
  },
  {
    says: 'C22 one order under twenty aliases is one call',
    async work(room) {
      const [id = ''] = room.ids
      const aliases = Array.from(
        { length: 20 },
        (_, at) => `o${at}: order(id: $id, accountId: $accountId) { id status }`,
      )
      const document = `query Aliases($id: ID!, $accountId: ID) { ${aliases.join(' ')} }`
      const { data, errors } = await ask(room, document, { id, accountId: room.accountId })
      expect(errors).toBeUndefined()
      for (const order of Object.values(data)) expect(order).toMatchObject({ id })
      expect(await reads(room)).toHaveLength(1)
    },
  },
  {
    says: "D01 a caller's time that is over is DEADLINE_EXCEEDED, and ends the call at the broker",
    isApart: true,
    async work(room) {
      const [id = ''] = room.ids
      await expectOne(room, id)
      await room.harness.clearCalls()
      await room.harness.setRules(rule(onSingles(room), { kind: 'latency', ms: 20_000 }))
      const startedAt = performance.now()
      const answer = await read(room, id, 600)
      expect(performance.now() - startedAt).toBeLessThan(5_000)
      expect(answer.data).toEqual({ order: null })
      expect(codesOf(answer)).toEqual(['DEADLINE_EXCEEDED'])
      const asked = await reads(room)
      expect(asked).toHaveLength(1)
      await eventually(async () => expect(asked.every((call) => socketOf(room, call)?.destroyed)).toBe(true))
    },
  },
  {
    says: 'D02 a client that leaves ends its query at the broker',
    isApart: true,
    async work(room) {
      const [id = ''] = room.ids
      await expectOne(room, id)
      await room.harness.clearCalls()
      await room.harness.setRules(rule(onSingles(room), { kind: 'hang' }))
      const headers = { 'content-type': 'application/json' }
      const client = httpRequest(room.harness.url, { method: 'POST', agent: false, headers })
      client.on('error', () => {})
      client.end(JSON.stringify({ query: readDocument, variables: { id, accountId: room.accountId } }))
      await eventually(async () => expect(await reads(room)).toHaveLength(1))
      client.destroy()
      const asked = await reads(room)
      // By itself an attempt would end after three seconds without an answer.
      await eventually(async () => expect(asked.every((call) => socketOf(room, call)?.destroyed)).toBe(true), 2_500)
    },
  },
  {
    says: 'D04 a wait that is no number is a moment, one of a day is not waited for, and the time shown is bounded',
    isApart: true,
    async work(room) {
      const [id = ''] = room.ids
      for (const value of ['-1', 'abc', new Date(Date.now() + 1_000).toUTCString()]) {
        await room.harness.setRules(rule({ ...onSingles(room), times: 1 }, { kind: 'retryAfter', value }))
        await expectOne(room, id)
      }
      for (const value of ['99999', new Date(Date.now() + 3_600_000).toUTCString()]) {
        await room.harness.setRules(rule({ ...onSingles(room), times: 1 }, { kind: 'retryAfter', value, status: 503 }))
        const { errors } = await expectNone(room, id, 'BROKER_UNAVAILABLE')
        expect(errors?.[0]?.extensions['retryAfterMs']).toBeGreaterThan(59_000)
        expect(errors?.[0]?.extensions['retryAfterMs']).toBeLessThanOrEqual(60_000)
      }
    },
  },
  {
    says: 'E10 a 401 is BROKER_UNAVAILABLE after one call, and opens no breaker',
    settings: { ...soon, BREAKER: 'on' },
    isApart: true,
    async work(room) {
      const body = room.dialect.refusal(401)
      await room.harness.setRules(rule({ method: 'GET' }, { kind: 'status', status: 401, body }))
      for (const id of room.ids) await expectNone(room, id, 'BROKER_UNAVAILABLE')
      // On a machine that is so busy that the token grows old, one of them is repeated with the next.
      const renewals = Math.max(0, (await tokenCalls(room)).length - 1)
      expect((await reads(room)).length).toBeLessThanOrEqual(room.ids.length + renewals)
      await heal(room)
      await expectOne(room, room.ids[0] ?? '')
    },
  },
  {
    says: 'E15 why an order was rejected is told as plain text, without control characters, and at most 200 of it',
    isApart: true,
    async work(room) {
      const { status, rejectReason } = room.dialect.fields
      const set = (field: string, value: string): object =>
        rule({ method: 'GET', path: '/orders' }, { kind: 'setField', field, value })
      await room.harness.setRules(set(status, room.dialect.rejected), set(rejectReason, evil))
      const { data, errors } = await read(room, room.ids[0] ?? '')
      expect(errors).toBeUndefined()
      expect(data.order.status).toBe('REJECTED')
      expectTame(data.order.rejectReason)
    },
  },
  {
    says: 'C17 the list of an older release is a contract error, and no empty success; nor is an order in it missing',
    not: {
      "Bluum's accounts": 'the other generation is a row of its own',
      "Bluum's investors": 'the other generation is a row of its own',
    },
    async work(room) {
      const orders = (await bookOf(room, room.accountId)).map((order) => ({
        orderId: `ord-${String(order['id'])}`,
        clOrdId: order['aries_id'],
        accountId: order['account_id'],
        symbol: order['symbol'],
        side: 'BUY',
        orderType: 'LIMIT',
        status: 'WORKING',
        tif: 'GTC',
        quantity: order['qty'],
        filledQty: '0',
        price: order['limit_price'],
        createdAt: order['submitted_at'],
        updatedAt: order['submitted_at'],
      }))
      const [id = ''] = room.ids
      const availability = { available: true, source: 'cache' }
      for (const body of [
        { orders, availability },
        { orders, nextCursor: 0 },
      ]) {
        await room.harness.setRules(rule(onLists(room), { kind: 'status', status: 200, body }))
        expectContractError(await list(room))
        await expectNone(room, id, 'BROKER_BAD_RESPONSE')
      }
      // Where it says no clOrdId, no row can be told from the one that is looked for.
      const nameless = orders.map((order) => ({ ...order, clOrdId: undefined }))
      const body = { orders: nameless, nextCursor: 0 }
      await room.harness.setRules(rule(onLists(room), { kind: 'status', status: 200, body }))
      expectContractError(await list(room))
      await expectNone(room, `${room.accountId}:ORDER-UNHEARD`, 'BROKER_BAD_RESPONSE')
    },
  },
  {
    says: 'C17 a list and an order in the words of the other generation are contract errors, and no empty success',
    not: { Aries: 'its old list is a row of its own' },
    async work(room) {
      const isInvestors = room.dialect.name === "Bluum's investors"
      // For a cash amount, so that neither generation shows what it would be missed by first: a quantity.
      const cash = { type: 'MARKET', timeInForce: 'DAY', quantity: null, limitPrice: null, notional: '50.00' }
      const { orderId } = await place(room, buy(room, cash))
      const id = orderId ?? ''
      room.ids.unshift(id)
      const { accounts, investors } = room.harness.sandbox
      const ofAccounts = [`/trading/accounts/${accounts[1]}/orders`, `/trading/orders/${id}`]
      const ofInvestors = [`/investors/${investors[1]}/orders`, `/investors/${investors[1]}/orders/${id}`]
      const [orders = '', order = ''] = isInvestors ? ofAccounts : ofInvestors
      const answer = async (path: string) => ({ kind: 'status', status: 200, body: await askBluum(room, path) })
      await room.harness.setRules(rule(onLists(room), await answer(orders)), rule(onSingles(room), await answer(order)))
      expectContractError(await list(room))
      for (const one of [id, room.ids[3] ?? '']) {
        await expectNone(room, one, 'BROKER_BAD_RESPONSE')
      }
    },
  },
]

/** The ids of all orders of the other account, page by page. */
async function walk(room: Room, first: number): Promise<string[]> {
  const ids: string[] = []
  let after: string | null = null
  for (let page = 0; page < 20; page++) {
    const { data, errors }: Answer = await list(room, { accountId: room.otherId, first, after })
    expect(errors).toBeUndefined()
    ids.push(...data.orders.nodes.map(({ id }: ShownOrder) => id))
    if (!data.orders.pageInfo.hasNextPage) return ids
    after = data.orders.pageInfo.endCursor
  }
  throw new Error('the list has no end')
}

/** A row for each dialect that can have it. */
function rowsOf<R extends Omit<Row, 'work'>>(
  rows: readonly R[],
  names: readonly DialectName[],
): [title: string, dialect: Dialect, row: R][] {
  return dialects
    .filter(({ name }) => names.includes(name))
    .flatMap((dialect) =>
      rows
        .filter(({ not }) => not?.[dialect.name] === undefined)
        .map((row): [string, Dialect, R] => [`${row.says} (${dialect.name})`, dialect, row]),
    )
}

// Those of Bluum's accounts are in faults.write.test.ts and faults.read.test.ts; here it has what costs nothing.
const others: DialectName[] = ["Bluum's investors", 'Aries']

describe.concurrent('writing', () => {
  test.each(rowsOf(writingRows, others))('%s', (_, dialect, { settings = soon, isApart, work }) =>
    (isApart ? atDesk : atUsedDesk)(dialect, settings, work),
  )
})

describe.concurrent('reading, in a room of its own', () => {
  const rows = readingRows.filter(({ isApart }) => isApart === true)
  test.each(rowsOf(rows, others))('%s', (_, dialect, { settings = soon, work }) => inOwnRoom(dialect, settings, work))
})

describe.each(dialects)('reading, $name', (dialect) => {
  let room: Room
  beforeAll(async () => {
    room = await openRoom(dialect, soon)
  })
  afterAll(() => closeDesk(room))

  const rows = readingRows.filter(({ isApart }) => isApart !== true)
  test.each(rowsOf(rows, [dialect.name]))('%s', (_title, _dialect, { work }) => inRoom(room, work))
})

/** What waits for a clock, which is moved for all that run at the time: one after another. */
const waitingRows: Row[] = [
  {
    says: 'D04 a 429 that asks for a day is RATE_LIMITED, and the broker is left alone for a minute at the most',
    async work(desk) {
      const clock = startClock()
      const id = desk.dialect.openOrderId(desk.harness.sandbox)
      expect((await read(desk, id)).errors).toBeUndefined()
      await desk.harness.clearCalls()
      await desk.harness.setRules(rule({ ...onSingles(desk), times: 1 }, { kind: 'retryAfter', value: '99999' }))
      for (let time = 0; time < 3; time++) {
        const answer = await read(desk, id)
        expect(codesOf(answer)).toEqual(['RATE_LIMITED'])
        const retryAfterMs = answer.errors?.[0]?.extensions['retryAfterMs']
        expect(retryAfterMs).toBeGreaterThan(40_000)
        expect(retryAfterMs).toBeLessThanOrEqual(60_000)
      }
      expect(await reads(desk)).toHaveLength(1)
      clock.advance(60_001)
    },
  },
  {
    says: 'D13 a hundred reads at once with a token that has expired ask for one, and all are answered',
    not: {
      "Bluum's accounts": 'its key does not expire',
      "Bluum's investors": 'its key does not expire',
    },
    async work(desk) {
      const clock = startClock()
      // The history leaves out those that were rejected.
      const book = (await bookOf(desk, desk.accountId)).filter((order) => order['status'] !== 'rejected')
      const ids = book.slice(0, 100).map(desk.dialect.toOurs)
      const readAll = (): Promise<Answer[]> => Promise.all(ids.map((id) => read(desk, id)))
      const expectAll = (answers: Answer[]): void => {
        expect(answers).toHaveLength(100)
        for (const [index, { data, errors }] of answers.entries()) {
          expect(errors).toBeUndefined()
          expect(data.order).toMatchObject({ id: ids[index] })
        }
      }
      // None is there yet; then its time is over, as it was told; then the broker takes it back before that.
      const endings = [
        () => Promise.resolve(),
        () => Promise.resolve(clock.advance(3_600_000)),
        async () => {
          clock.advance(10_000)
          await desk.harness.control('POST', '/tokens/expire')
        },
      ]
      for (const end of endings) {
        await end()
        await desk.harness.clearCalls()
        expectAll(await readAll())
        expect((await tokenCalls(desk)).map(({ status }) => status)).toEqual([200])
      }

      for (const [status, callsMax] of [
        [500, 2],
        [401, 1],
      ]) {
        clock.advance(3_600_000)
        await desk.harness.clearCalls()
        // As a careless broker might: with what it was sent.
        const { refreshToken, clientSecret } = desk.harness.sandbox.aries
        const body = { error: 'internal_error', message: `${refreshToken} or ${clientSecret} is not valid` }
        await desk.harness.setRules(rule({ path: '/v1/oauth2/token' }, { kind: 'status', status, body }))
        for (const answer of await readAll()) {
          expect(answer.data).toEqual({ order: null })
          expect(codesOf(answer)).toEqual(['BROKER_UNAVAILABLE'])
        }
        // A failure stands for a second, and a hundred reads may take longer than that.
        expect((await tokenCalls(desk)).length).toBeLessThanOrEqual(4 * (callsMax ?? 0))
        expect(await reads(desk)).toEqual([])
        await heal(desk)
      }
      // It stands for five seconds where the credential was refused.
      clock.advance(5_000)
      expectAll(await readAll())
    },
  },
  {
    says: 'D13 a write with a token that has been taken back is sent once more, on the word of the broker alone',
    not: {
      "Bluum's accounts": 'its key does not expire',
      "Bluum's investors": 'its key does not expire',
    },
    settings: certified,
    async work(desk) {
      const clock = startClock()
      const { orderId } = await placeResting(desk)
      const answer = (body: unknown, when: string): object => ({ kind: 'status', status: 401, body, when })
      const own = answer(desk.dialect.refusal(401), 'beforeCommit')

      clock.advance(10_000)
      await desk.harness.setRules(rule({ ...onPlace, times: 1 }, own))
      const sentAgain = buy(desk, { quantity: '6' })
      expect(await place(desk, sentAgain)).toMatchObject({ ...placed, replayed: false })
      expect(await find(desk, sentAgain)).toMatchObject({ state: 'PLACED', attempts: 2, foundBy: 'RESPONSE' })
      expect(await booked(desk, sentAgain)).toHaveLength(1)
      expect(await tokenCalls(desk)).toHaveLength(1)

      // Of something in between, which had forwarded the order: it is looked for, and not sent again.
      for (const [index, body] of ['<html>Sign in</html>', { error: 'login_required' }].entries()) {
        clock.advance(10_000)
        await desk.harness.clearCalls()
        await desk.harness.setRules(rule({ ...onPlace, times: 1 }, answer(body, 'afterCommit')))
        const input = buy(desk, { quantity: String(index + 7) })
        await place(desk, input)
        await expectState(desk, input, found)
        expect(await posts(desk)).toHaveLength(1)
        expect(await booked(desk, input)).toHaveLength(1)
      }

      clock.advance(10_000)
      await desk.harness.clearCalls()
      await desk.harness.setRules(rule({ ...onCancel, times: 1 }, own))
      expect(await cancel(desk, { orderId })).toMatchObject(canceled)
      expect((await cancelPosts(desk)).map(({ status }) => status)).toEqual([401, 200])
    },
  },
  {
    says: 'D04 a broker that gives no token for a day is left alone for a minute at the most',
    not: {
      "Bluum's accounts": 'it has no tokens',
      "Bluum's investors": 'it has no tokens',
    },
    async work(desk) {
      const clock = startClock()
      const id = desk.dialect.openOrderId(desk.harness.sandbox)
      await desk.harness.setRules(rule({ path: '/v1/oauth2/token', times: 1 }, { kind: 'retryAfter', value: '99999' }))
      for (let time = 0; time < 3; time++) {
        const answer = await read(desk, id)
        expect(codesOf(answer)).toEqual(['RATE_LIMITED'])
        expect(answer.errors?.[0]?.extensions['retryAfterMs']).toBeLessThanOrEqual(60_000)
        clock.advance(5_000)
      }
      expect(await calls(desk)).toHaveLength(1)
      clock.advance(60_001)
      expect((await read(desk, id)).errors).toBeUndefined()
    },
  },
  {
    says: 'D14 a broker whose reads are given up for now is still asked to cancel',
    settings: { ...soon, BREAKER: 'on' },
    async work(desk) {
      const clock = startClock()
      const { orderId } = await placeResting(desk)
      await desk.harness.setRules(rule({ method: 'GET' }, failing))
      for (let time = 0; time < 3; time++) await read(desk, orderId)
      await heal(desk)
      await desk.harness.clearCalls()
      expect(codesOf(await read(desk, orderId))).toEqual(['BROKER_UNAVAILABLE'])
      expect(await calls(desk)).toEqual([])
      expect(await cancel(desk, { orderId, accountId: desk.accountId })).toMatchObject(canceled)
      expect(await cancelPosts(desk)).toHaveLength(1)
      clock.advance(6_001)
    },
  },
  {
    says: 'D15 a broker that failed placements is found well again by a read, never by an order',
    // Neither the look before each order nor the search for a lost one, which are reads, and would find out.
    settings: {
      ...certified,
      BREAKER: 'on',
      PLACE_LOOKUP_MS: '600000',
      PLACE_SETTLE_MS: '600000',
      PLACE_REPLY_MS: '1000',
    },
    async work(desk) {
      const clock = startClock()
      await desk.harness.setRules(rule(onPlace, failing))
      const lost = Array.from({ length: 5 }, (_, index) => buy(desk, { quantity: String(index + 1) }))
      for (const input of lost) {
        expect(await place(desk, input, hasteMs)).toMatchObject(unknown)
        desk.forPerson.add(input.clientOrderId)
      }
      await eventually(async () => expect((await posts(desk)).map(({ status }) => status)).toEqual(Array(5).fill(502)))
      await heal(desk)
      await desk.harness.clearCalls()
      const unsent = { notPlacedCode: 'BROKER_UNAVAILABLE', certainty: 'PROVEN', retrySameKey: true }
      const inputs = Array.from({ length: 5 }, (_, index) => buy(desk, { quantity: String(index + 10) }))
      const [first] = inputs
      if (first) expect(await place(desk, first)).toMatchObject(unsent)
      clock.advance(6_001)
      for (const result of await Promise.all(inputs.map((input) => place(desk, input)))) {
        expect(result).toMatchObject(unsent)
      }
      expect(await posts(desk)).toEqual([])
      expect((await read(desk, desk.dialect.openOrderId(desk.harness.sandbox))).errors).toBeUndefined()
      for (const input of inputs) expect(await place(desk, input)).toMatchObject(placed)
    },
  },
]

describe('waiting', () => {
  test.each(rowsOf(waitingRows, others))('%s', (_, dialect, { settings = soon, work }) =>
    atDesk(dialect, settings, work),
  )
})
