// Cancels of orders that the broker does not show, or that it cannot be asked to cancel: asked for by what the record knows,
// or kept and asked for later, also after a restart.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { openSqliteStore, toStoreFile } from '../../src/store/sqlite/sqliteStore.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

const placeDocument = `mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { __typename orderId } }`
const cancelDocument = `mutation ($input: CancelOrderInput!) {
  cancelOrder(input: $input) {
    __typename orderId message order { status }
    ... on CancelRefused { refusalCode }
    ... on CancelConfirmed { alreadyCanceled }
  }
}`

interface Column {
  harness: Harness
  accountId: string
  /** An open order that was not placed here. */
  openOrderId: string
}

const dialects = ['accounts', 'investors', 'aries'] as const
const columns = new Map<string, Column>()

beforeAll(async () => {
  const env = { BREAKER: 'off', BLUUM_REQUESTS_PER_SECOND: '500', ARIES_REQUESTS_PER_SECOND: '500' }
  const [accounts, investors] = await Promise.all([startHarness(env), startHarness({ ...env, BLUUM_API: 'investors' })])
  const { demo, aries, investors: ids } = accounts.sandbox
  columns.set('accounts', { harness: accounts, accountId: accounts.accountId, openOrderId: demo.openOrderId })
  columns.set('investors', { harness: investors, accountId: ids[0] ?? '', openOrderId: demo.openOrderId })
  const name = aries.accounts[0] ?? ''
  await investors.control('PUT', '/switches', { investorCancels: 'atOnce' })
  columns.set('aries', { harness: accounts, accountId: `aries:${name}`, openOrderId: await findOpen(accounts, name) })
})
afterAll(() => Promise.all(['accounts', 'investors'].map((name) => columnOf(name).harness.close())))

afterEach(async () => {
  for (const { harness } of columns.values()) {
    await harness.setRules()
    await harness.control('PUT', '/switches', {
      readLag: 'none',
      investorCancels: 'atOnce',
      clientOrderIdForm: 'unchanged',
    })
    await harness.clearCalls()
  }
})

function columnOf(name: string): Column {
  const column = columns.get(name)
  if (!column) throw new Error(`no column ${name}`)
  return column
}

async function findOpen(harness: Harness, account: string): Promise<string> {
  const { data } = await harness.run(
    `{ orders(accountId: "aries:${account}", filter: {state: OPEN}, first: 1) { nodes { id } } }`,
  )
  return data.orders.nodes[0].id
}

async function placeResting({ harness, accountId }: Column) {
  const input = limitBuy(harness, { accountId })
  const { data } = await harness.run(placeDocument, { input })
  expect(data.placeOrder).toMatchObject({ __typename: 'OrderPlaced' })
  return { accountId, clientOrderId: input.clientOrderId, orderId: String(data.placeOrder.orderId) }
}

async function cancel({ harness }: Column, input: object, timeoutMs: number | null = null) {
  const headers = timeoutMs === null ? {} : { 'x-request-timeout-ms': String(timeoutMs) }
  const { data, errors, status } = await harness.run(cancelDocument, { input }, headers)
  expect([errors, status]).toEqual([undefined, 200])
  return data.cancelOrder
}

async function countCancels({ harness }: Column): Promise<number> {
  return (await harness.calls()).filter(({ method, path }) => method === 'POST' && path.endsWith('/cancel')).length
}

async function statusOf({ harness }: Column, orderId: string, accountId: string): Promise<string> {
  const { data } = await harness.run(
    'query ($id: ID!, $accountId: ID) { order(id: $id, accountId: $accountId) { status } }',
    {
      id: orderId,
      accountId,
    },
  )
  return data.order.status
}

const kept = { __typename: 'CancelPending', message: expect.stringContaining('It is kept') }

describe.each(dialects)('over %s, a cancel right after placing while the reads of the broker lag', (name) => {
  test.each(['orderId', 'clientOrderId'])('by %s is sent with the terms of the record', async (by) => {
    const column = columnOf(name)
    const { harness } = column
    await harness.control('PUT', '/switches', { readLag: 'seconds' })
    const { orderId, accountId, clientOrderId } = await placeResting(column)
    await harness.clearCalls()
    const input = by === 'orderId' ? { orderId } : { accountId, clientOrderId }
    // The answer of Aries says nothing of the order, so its reads decide, and they lag.
    const result = await cancel(column, input, name === 'aries' ? 300 : null)
    expect(result.__typename).toBe(name === 'aries' ? 'CancelPending' : 'CancelConfirmed')
    expect(result).toMatchObject({ orderId })
    expect(await countCancels(column)).toBe(1)
    await harness.control('POST', '/advance', { ms: 5_000 })
    expect(await statusOf(column, orderId, accountId)).toBe('CANCELED')
    expect(await cancel(column, { orderId, accountId })).toMatchObject({ __typename: 'CancelConfirmed', orderId })
    expect(await countCancels(column)).toBe(1)
  })
})

describe.each(dialects)('over %s, a cancel that cannot be sent', (name) => {
  test('is kept with the record of its placement, and done at the next try', async () => {
    const column = columnOf(name)
    const { orderId, accountId, clientOrderId } = await placeResting(column)
    await column.harness.setRules({ match: {}, fault: { kind: 'refuse' } })
    expect(await cancel(column, { orderId })).toMatchObject({ ...kept, orderId })
    expect(await cancel(column, { accountId, clientOrderId })).toMatchObject({ ...kept, orderId })
    expect(await countCancels(column)).toBe(0)
    await column.harness.setRules()
    expect(['CancelConfirmed', 'CancelPending']).toContain((await cancel(column, { orderId })).__typename)
    expect(await countCancels(column)).toBe(1)
  })

  test('is kept in the store for an order that was not placed here, and forgotten once it is answered', async () => {
    const column = columnOf(name)
    const { harness, openOrderId: orderId, accountId } = column
    const file = toStoreFile(harness.dataDir)
    await harness.setRules({ match: {}, fault: { kind: 'status', status: 503 } })
    expect(await cancel(column, { orderId, accountId })).toMatchObject({ ...kept, orderId })
    expect(await cancel(column, { orderId, accountId })).toMatchObject({ ...kept, orderId })
    expect(await readKept(file)).toMatchObject([{ orderId, accountId }])
    expect(await countCancels(column)).toBe(0)
    await harness.setRules()
    expect(['CancelConfirmed', 'CancelPending']).toContain((await cancel(column, { orderId, accountId })).__typename)
    await vi.waitFor(
      async () => expect(await cancel(column, { orderId, accountId })).toMatchObject({ alreadyCanceled: true }),
      8_000,
    )
    expect(await readKept(file)).toEqual([])
  })
})

test('a cancel that the broker never accepted is made again, with and without a record', async () => {
  const env = { BREAKER: 'off', BLUUM_REQUESTS_PER_SECOND: '500', PLACE_REPLY_MS: '700' }
  const harness = await startHarness(env)
  onTestFinished(() => harness.close())
  const { accountId } = harness
  const column = { harness, accountId, openOrderId: harness.sandbox.demo.openOrderId }
  const placed = await placeResting(column)
  await harness.setRules({ match: { method: 'POST', path: 'cancel' }, fault: { kind: 'rstBeforeRead' } })
  const inputs = [
    { orderId: placed.orderId, accountId },
    { orderId: column.openOrderId, accountId },
  ]
  for (const input of inputs) {
    expect(await cancel(column, input)).toMatchObject({ __typename: 'CancelPending', orderId: input.orderId })
  }
  await harness.setRules()
  for (const { orderId } of inputs) {
    await vi.waitFor(async () => expect(await statusOf(column, orderId, accountId)).toBe('CANCELED'), {
      timeout: 15_000,
      interval: 100,
    })
  }
})

test('a cancel of an order without a known account is refused, because it could not be kept', async () => {
  const column = columnOf('accounts')
  await column.harness.setRules({ match: {}, fault: { kind: 'status', status: 503 } })
  const refused = { __typename: 'CancelRefused', refusalCode: 'BROKER_UNAVAILABLE' }
  expect(await cancel(column, { orderId: 'ord_unheard_of' })).toMatchObject(refused)
})

test('a search of Aries that cannot see every order keeps the cancel', async () => {
  const column = columnOf('aries')
  // The row without an id could be the order.
  await column.harness.setRules({
    match: { method: 'GET' },
    fault: { kind: 'setField', field: 'clOrdId', value: '', row: 0 },
  })
  const orderId = `${column.accountId}:ORDER-UNSEEN-1`
  expect(await cancel(column, { orderId })).toMatchObject({ ...kept, orderId })
  await column.harness.setRules()
  // Complete lists do not have it.
  expect(await cancel(column, { orderId })).toMatchObject({ __typename: 'CancelRefused', refusalCode: 'NOT_FOUND' })
  expect(await readKept(toStoreFile(column.harness.dataDir))).toEqual([])
})

test('a kept cancel is carried out after a restart, once, and only for an order of the account that was named', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-kept-'))
  onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
  const file = toStoreFile(dataDir)
  const first = await startHarness({ BREAKER: 'off', DATA_DIR: dataDir })
  const { demo, accounts } = first.sandbox
  const [accountId = '', otherId = ''] = accounts
  const column = { harness: first, accountId, openOrderId: demo.openOrderId }
  const resting = await placeResting(column)
  await first.setRules({ match: {}, fault: { kind: 'status', status: 503 } })
  expect(await cancel(column, { orderId: demo.openOrderId, accountId })).toMatchObject(kept)
  // An order of the account, under another account's id.
  const foreign = await findOther(column, resting.orderId)
  expect(await cancel(column, { orderId: foreign, accountId: otherId })).toMatchObject(kept)
  expect(await readKept(file)).toHaveLength(2)
  await first.close()

  const second = await startHarness({ BREAKER: 'off', DATA_DIR: dataDir })
  onTestFinished(() => second.close())
  await vi.waitFor(async () => expect(await readKept(file)).toEqual([]), { timeout: 15_000, interval: 100 })
  const again = { ...column, harness: second }
  expect(await countCancels(again)).toBe(1)
  expect(await statusOf(again, demo.openOrderId, accountId)).toBe('CANCELED')
})

/** An order of the account that was not placed here and is not the one of the demo. */
async function findOther({ harness, openOrderId }: Column, placedId: string): Promise<string> {
  const rows = await harness.book()
  return String(rows.find(({ id, status }) => status === 'accepted' && id !== openOrderId && id !== placedId)?.['id'])
}

test('a cancel by a key that only another spelling of is there says so, and cancels nothing', async () => {
  const column = columnOf('accounts')
  const clientOrderId = 'Mixed-Case-0001'
  await column.harness.control('POST', '/orders', {
    account: column.accountId,
    symbol: 'AAPL',
    side: 'buy',
    type: 'limit',
    time_in_force: 'gtc',
    qty: '1',
    limit_price: '1.00',
    client_order_id: clientOrderId,
  })
  const result = await cancel(column, { accountId: column.accountId, clientOrderId: 'mixed-case-0001' })
  expect(result).toMatchObject({ __typename: 'CancelRefused', refusalCode: 'NOT_FOUND' })
  expect(result.message).toMatch(
    /One order of the account has a similar one, such as order ord_\w+; if it is yours, cancel it by its orderId/,
  )
  expect(await countCancels(column)).toBe(0)
})

/** The cancel requests in a store, as an operator reads it beside the service. */
async function readKept(file: string) {
  const store = openSqliteStore({ file, role: 'operator', mayCreate: false })
  try {
    return await store.findCancels()
  } finally {
    await store.close()
  }
}
