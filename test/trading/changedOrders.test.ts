// Brokers that change what they are sent: the client order id, or a term. Whatever they change, an order is placed once, and
// its placement ends as what the broker's book has.

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { limitBuy, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

const placed = `
  __typename message orderId
  order { id symbol type quantity limitPrice clientOrderId }
  ... on OrderPlaced { replayed }
  ... on OrderOutcomeUnknown { retryAfterMs }`
const placeDocument = `mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { ${placed} } }`
const placementDocument = `query ($accountId: ID!, $clientOrderId: ID!) {
  placement(accountId: $accountId, clientOrderId: $clientOrderId) {
    state attempts orderId foundBy candidateCount result { ${placed} }
  }
}`
const cancelDocument = `mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) { __typename orderId } }`

interface Column {
  name: string
  harness: Harness
  accountId: string
  /** Where placements go. */
  path: string
}

const soon = {
  PLACE_LOOKUP_MS: '30,60,120',
  PLACE_SETTLE_MS: '250',
  PLACE_REPLY_MS: '500',
  BREAKER: 'off',
  // Lookups take a fifth of the rate at most.
  BLUUM_REQUESTS_PER_SECOND: '500',
  ARIES_REQUESTS_PER_SECOND: '500',
}
const columns: Column[] = []
beforeAll(async () => {
  const [accounts, investors] = await Promise.all([
    startHarness(soon),
    startHarness({ ...soon, BLUUM_API: 'investors' }),
  ])
  columns.push(
    { name: 'accounts', harness: accounts, accountId: accounts.accountId, path: '/orders$' },
    { name: 'investors', harness: investors, accountId: investors.sandbox.investors[0] ?? '', path: '/orders$' },
    { name: 'aries', harness: accounts, accountId: `aries:${accounts.sandbox.aries.accounts[0]}`, path: '/v1/orders$' },
  )
})
afterAll(() => Promise.all(columns.slice(0, 2).map(({ harness }) => harness.close())))

const unchanged = {
  clientOrderIdForm: 'unchanged',
  changedTerm: 'none',
  clientOrderIdEcho: 'everywhere',
  readLag: 'none',
}
afterEach(async () => {
  for (const { harness } of columns) {
    await harness.setRules()
    await harness.control('PUT', '/switches', unchanged)
    await harness.clearCalls()
  }
})

const dialects = ['accounts', 'investors', 'aries'] as const

function columnOf(name: string): Column {
  const column = columns.find((one) => one.name === name)
  if (!column) throw new Error(`no column ${name}`)
  return column
}

function inputOf({ harness, accountId }: Column, fields: object = {}) {
  return limitBuy(harness, { accountId, quantity: '5', ...fields })
}

async function place({ harness }: Column, input: object) {
  const { data, errors } = await harness.run(placeDocument, { input })
  expect(errors).toBeUndefined()
  return data.placeOrder
}

async function readPlacement({ harness }: Column, { accountId, clientOrderId }: ReturnType<typeof inputOf>) {
  return (await harness.run(placementDocument, { accountId, clientOrderId })).data.placement
}

/** The placement once it is settled, or left to an operator. */
async function settled(column: Column, input: ReturnType<typeof inputOf>) {
  return await vi.waitFor(
    async () => {
      const placement = await readPlacement(column, input)
      expect(placement.state !== 'UNKNOWN' || placement.candidateCount !== null).toBe(true)
      expect(placement.state).not.toBe('IN_PROGRESS')
      return placement
    },
    { timeout: 8_000, interval: 20 },
  )
}

/** What the broker has of the key, as it came in. */
async function booked({ harness, accountId }: Column, { clientOrderId }: { clientOrderId: string }) {
  const rows = await harness.book(accountId.replace(/^aries:/, ''))
  return rows.filter((row) => row['client_order_id'] === clientOrderId)
}

async function countPosts({ harness, path }: Column): Promise<number> {
  const pattern = new RegExp(path)
  return (await harness.calls()).filter((call) => call.method === 'POST' && pattern.test(call.path)).length
}

const lostAnswer = ({ path }: Column) => ({
  match: { method: 'POST', path, times: 1 },
  fault: { kind: 'rstAfterCommit' },
})

describe.each(dialects)('over %s, a broker that changes client order ids', (name) => {
  test.each(['prefixed', 'cut', 'upperCase', 'lowerCase', 'noDashes', 'empty'])(
    '%s places once and says so',
    async (form) => {
      const column = columnOf(name)
      await column.harness.control('PUT', '/switches', { clientOrderIdForm: form })
      const input = inputOf(column, { clientOrderId: `Form-${form}-0001` })
      expect(await place(column, input)).toMatchObject({ __typename: 'OrderPlaced', replayed: false })
      expect(await readPlacement(column, input)).toMatchObject({ state: 'PLACED', attempts: 1, foundBy: 'RESPONSE' })
      expect(await place(column, input)).toMatchObject({ __typename: 'OrderPlaced', replayed: true })
      expect(await booked(column, input)).toHaveLength(1)
      expect(await countPosts(column)).toBe(1)
    },
  )

  test.each(['prefixed', 'cut', 'upperCase', 'lowerCase', 'noDashes'])(
    '%s is found after a lost answer',
    async (form) => {
      const column = columnOf(name)
      await column.harness.control('PUT', '/switches', { clientOrderIdForm: form })
      await column.harness.setRules(lostAnswer(column))
      const input = inputOf(column, { clientOrderId: `Lost-${form}-0001` })
      await place(column, input)
      expect(await settled(column, input)).toMatchObject({ state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' })
      expect(await booked(column, input)).toHaveLength(1)
      const { accountId, clientOrderId } = input
      const { data } = await column.harness.run(cancelDocument, { input: { accountId, clientOrderId } })
      expect(data.cancelOrder.__typename).toMatch(/^Cancel(Confirmed|Pending)$/)
      expect(data.cancelOrder.orderId).toBe((await readPlacement(column, input)).orderId)
    },
  )

  test('a key that was never sent does not take the order of the key that differs from it in its case', async () => {
    const column = columnOf(name)
    await column.harness.control('PUT', '/switches', { clientOrderIdForm: 'upperCase' })
    // The reads fail until the second key is held back.
    await column.harness.setRules(lostAnswer(column), {
      match: { method: 'GET' },
      fault: { kind: 'status', status: 400 },
    })
    const first = inputOf(column, { clientOrderId: `twin-${name}-0001`, quantity: '8' })
    const second = { ...first, clientOrderId: first.clientOrderId.toUpperCase() }
    await place(column, first)
    await place(column, second)
    const isHeldBack = async () =>
      expect((await readPlacement(column, second)).result.__typename).toBe('OrderNotPlaced')
    await vi.waitFor(isHeldBack, { timeout: 8_000, interval: 20 })
    await column.harness.setRules()
    expect(await settled(column, first)).toMatchObject({ state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' })
    expect(await countPosts(column)).toBe(1)
  })

  test('two equal orders whose ids are cut alike are never mixed up: an operator decides', async () => {
    const column = columnOf(name)
    await column.harness.control('PUT', '/switches', { clientOrderIdForm: 'cut' })
    const [first, second] = [
      inputOf(column, { clientOrderId: 'series-2026-0001', quantity: '6' }),
      inputOf(column, {
        clientOrderId: 'series-2026-0002',
        quantity: '6',
        acknowledgeUnresolved: ['series-2026-0001'],
      }),
    ]
    await column.harness.setRules({
      match: { method: 'POST', path: column.path, times: 2 },
      fault: { kind: 'rstAfterCommit' },
    })
    await Promise.all([place(column, first), place(column, second)])
    for (const input of [first, second]) {
      const placement = await settled(column, input)
      expect(placement).toMatchObject({ state: 'UNKNOWN', candidateCount: 2, orderId: null })
      expect(placement.result.message).toContain('An operator has to decide with `blotter placements`')
      expect(placement.result.retryAfterMs).toBeNull()
    }
  })
})

describe.each(dialects)('over %s, a broker that changes terms', (name) => {
  const rounded = { quantity: '0.123456789123', type: 'LIMIT' }
  test.each([
    ['quantity', rounded, ['quantity'], { quantity: '0.123456789' }],
    ['type', { type: 'MARKET', timeInForce: 'DAY', limitPrice: null, quantity: '1' }, ['type'], { type: 'LIMIT' }],
    ['symbol', { symbol: 'BRK.B', quantity: '1' }, ['symbol'], { symbol: 'BRK/B' }],
  ])('%s is placed, and the message names the term', async (change, fields, terms, shown) => {
    const column = columnOf(name)
    await column.harness.control('PUT', '/switches', { changedTerm: change })
    // The answer of Aries leaves out the type, so it shows nothing of that change.
    const isSeen = !(name === 'aries' && change === 'type')
    const input = inputOf(column, { ...fields, clientOrderId: `term-${change}-0001` })
    const before = column.harness.log().length
    const result = await place(column, input)
    expect(result).toMatchObject({ __typename: 'OrderPlaced', order: isSeen ? shown : {} })
    if (isSeen)
      expect(result.message).toBe(`The broker accepted the order. The broker changed ${terms.join()}: see \`order\`.`)
    expect(await readPlacement(column, input)).toMatchObject({ state: 'PLACED', attempts: 1, foundBy: 'RESPONSE' })
    const notice = `the broker changed terms of an order: ${terms.join()}`
    const lines = column.harness
      .log()
      .slice(before)
      .filter((line) => line.includes(notice))
    expect(lines).toHaveLength(isSeen ? 1 : 0)
    expect(await countPosts(column)).toBe(1)

    // The same after a lost answer: found by its key, under terms that differ, in the lists of all three.
    await column.harness.setRules(lostAnswer(column))
    const lost = inputOf(column, { ...fields, clientOrderId: `term-${change}-0002` })
    await place(column, lost)
    const placement = await settled(column, lost)
    expect(placement).toMatchObject({ state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' })
    expect(placement.result.message).toBe(
      `This order was placed before. The broker changed ${terms.join()}: see \`order\`.`,
    )
    expect(placement.result.order).toMatchObject(shown)
    expect(await booked(column, lost)).toHaveLength(1)
  })
})

describe.each(dialects)('over %s, absence', (name) => {
  test('is not concluded while a new order with the same terms is there under another id', async () => {
    const column = columnOf(name)
    const input = inputOf(column, { clientOrderId: 'stray-place-0001', quantity: '7' })
    // The broker gives the order an id of its own, and the answer is lost.
    await column.harness.control('PUT', '/switches', { clientOrderIdForm: 'empty' })
    const field = name === 'aries' ? 'clientId' : 'client_order_id'
    await column.harness.setRules(lostAnswer(column), {
      match: { method: 'GET' },
      fault: { kind: 'setField', field, value: 'broker-own-id' },
    })
    await place(column, input)
    const placement = await settled(column, input)
    expect(placement).toMatchObject({ state: 'UNKNOWN', candidateCount: 1 })
    expect(placement.result.message).toContain('One order at the broker could be this one')
    expect(
      column.harness.log().some((line) => line.includes('ALARM: an operator has to decide which order it is')),
    ).toBe(true)
    // A new key for the same order is held back meanwhile.
    const again = await place(column, { ...input, clientOrderId: 'stray-place-0002' })
    expect(again.__typename).not.toBe('OrderPlaced')
    expect(await countPosts(column)).toBe(1)
    expect(await booked(column, input)).toHaveLength(1)
  })
})
