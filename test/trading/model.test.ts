// Random sequences of what callers do and brokers do wrong, over HTTP, held against a small model of what must be true
// of each key. A failing sequence is shrunk and printed; the seed is fixed, so it comes again.

import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { openSqliteStore, toStoreFile } from '../../src/store/sqlite/sqliteStore.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { LoggedCall } from '../harness.ts'

const placeDocument = `mutation Place($input: PlaceOrderInput!) {
  placeOrder(input: $input) {
    outcome orderId order { id filledQuantity }
    ... on OrderInvalid { problems { code } }
    ... on OrderNotPlaced { certainty retrySameKey }
  }
}`
const cancelDocument = `mutation Cancel($input: CancelOrderInput!) {
  cancelOrder(input: $input) { outcome orderId order { id status filledQuantity } }
}`
const placementDocument = `query Placement($accountId: ID!, $clientOrderId: ID!) {
  placement(accountId: $accountId, clientOrderId: $clientOrderId) {
    state attempts orderId result { outcome orderId ... on OrderNotPlaced { certainty } }
  }
}`

// Short times: a lost order is found, or given up, while the sequence goes on.
const settings = {
  PLACE_LOOKUP_MS: '15,30,60',
  PLACE_SETTLE_MS: '120',
  PLACE_LATE_MS: '86400000',
  PLACE_REPLY_MS: '500',
  BREAKER: 'off',
}

/** What may go wrong with one POST, and whether it proves that nothing was processed, so that the key may be sent again. */
const faults: Record<string, { fault: object; mayRepeat?: true }> = {
  none: { fault: { kind: 'latency', ms: 0 } },
  slow: { fault: { kind: 'latency', ms: 40 } },
  lostBefore: { fault: { kind: 'rstAfterRead' } },
  lostAfter: { fault: { kind: 'rstAfterCommit' } },
  failedBefore: { fault: { kind: 'status', status: 502 } },
  failedAfter: { fault: { kind: 'status', status: 502, when: 'afterCommit' } },
  cut: { fault: { kind: 'truncate' } },
  garbled: { fault: { kind: 'setField', field: 'qty', value: '7' } },
  duplicate: { fault: { kind: 'status', status: 409, body: { code: 'BLUM-409-001', message: 'No.' } } },
  denied: { fault: { kind: 'status', status: 401, body: { code: 'BLUM-401-001', message: 'No.' } }, mayRepeat: true },
  refused: { fault: { kind: 'status', status: 422, body: { code: 'BLUM-422-001', message: 'No.' } } },
}

type Step =
  | { type: 'place'; key: number; quantity: string; fault: string; times: number }
  | { type: 'cancel'; key: number; by: 'key' | 'id'; fault: string }
  | { type: 'fill'; key: number; quantity: string }
  | { type: 'placement'; key: number }
  | { type: 'restart' }

const keys = 3
const key = fc.nat(keys - 1)
const fault = fc.constantFrom(...Object.keys(faults))
const steps = fc.array(
  fc.oneof(
    {
      weight: 24,
      arbitrary: fc.record({
        type: fc.constant('place' as const),
        key,
        quantity: fc.constantFrom('5', '5', '5.00', '6'),
        fault,
        times: fc.constantFrom(1, 1, 3),
      }),
    },
    {
      weight: 8,
      arbitrary: fc.record({ type: fc.constant('cancel' as const), key, by: fc.constantFrom('key', 'id'), fault }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ type: fc.constant('fill' as const), key, quantity: fc.constantFrom('1', '2') }),
    },
    { weight: 4, arbitrary: fc.record({ type: fc.constant('placement' as const), key }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('restart' as const) }) },
  ),
  { minLength: 1, maxLength: 8 },
)

/** What is true of one key, as far as the answers told. */
interface Known {
  accountId: string
  clientOrderId: string
  limitPrice: string
  quantity: string | null
  orderId: string | null
  /** Posts that proved that nothing was processed. */
  repeats: number
  isFinal: boolean
  filled: number
}

/** Runs `numRuns` sequences over a service of its own, and checks its store at the end. */
async function holdModel(seed: number, numRuns: number): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-model-'))
  const start = () => startHarness({ ...settings, DATA_DIR: dataDir })
  let harness = await start()
  let prices = 0
  let sequences = 0
  try {
    await fc.assert(fc.asyncProperty(steps, run), { seed, numRuns })
    await harness.close()
    const store = openSqliteStore({ file: toStoreFile(dataDir), role: 'operator', mayCreate: false })
    try {
      expect(await store.verifyAudit()).toMatchObject({ broken: null })
    } finally {
      await store.close()
    }
  } finally {
    await harness.close()
    rmSync(dataDir, { recursive: true, force: true })
  }

  async function booked({ accountId, clientOrderId }: Known): Promise<Record<string, unknown>[]> {
    return (await harness.book(accountId)).filter((order) => order['client_order_id'] === clientOrderId)
  }

  async function postsOf({ clientOrderId }: Known): Promise<LoggedCall[]> {
    return (await harness.calls()).filter(
      ({ method, path, body }) => method === 'POST' && path.endsWith('/orders') && body.includes(clientOrderId),
    )
  }

  async function ask(document: string, variables: object): Promise<Record<string, never>> {
    const answer = await harness.run(document, variables)
    expect(answer.errors).toBeUndefined()
    expect(answer.status).toBe(200)
    expect(answer.headers.has('retry-after')).toBe(false)
    return Object.values(answer.data as Record<string, never>)[0] ?? (null as never)
  }

  /** Holds one answer about a key against what was told of it before, and against its `orders` in the book by now. */
  function expectTrue(
    known: Known,
    told: Record<string, unknown>,
    quantity: string,
    orders: Record<string, unknown>[],
  ): void {
    expect(orders.length).toBeLessThanOrEqual(1)
    if (told['outcome'] === 'PLACED') {
      expect(orders).toMatchObject([{ id: told['orderId'], limit_price: known.limitPrice }])
      expect(Number(orders[0]?.['qty'])).toBe(Number(quantity))
      expect(known.orderId ?? told['orderId']).toBe(told['orderId'])
      known.orderId = String(told['orderId'])
    }
    if (told['outcome'] === 'REJECTED') expect(orders).toEqual([])
    if (told['outcome'] === 'NOT_PLACED') expect(orders).toEqual([])
  }

  async function place(known: Known, step: Extract<Step, { type: 'place' }>): Promise<void> {
    const { quantity, times } = step
    const made = faults[step.fault]
    const before = (await postsOf(known)).length
    await harness.setRules({ match: { method: 'POST', path: '/orders$', times: 1 }, fault: made?.fault })
    const { accountId, clientOrderId, limitPrice } = known
    const input = limitBuy(harness, { accountId, clientOrderId, limitPrice, quantity })
    const results = await Promise.all(Array.from({ length: times }, () => ask(placeDocument, { input })))
    // Another quantity is another order: refused as long as the first one is remembered.
    const isOther = known.quantity !== null && Number(known.quantity) !== Number(quantity)
    const orders = await booked(known)
    for (const told of results) {
      expect(told['outcome'] === 'INVALID').toBe(isOther)
      if (!isOther) expectTrue(known, told, quantity, orders)
    }
    if (!isOther) known.quantity = quantity
    const sent = (await postsOf(known)).length - before
    if (sent > 0 && made?.mayRepeat === true) known.repeats += sent
    expect(before + sent).toBeLessThanOrEqual(1 + known.repeats)
  }

  async function cancel(known: Known, step: Extract<Step, { type: 'cancel' }>): Promise<void> {
    await harness.setRules({ match: { method: 'POST', path: '/cancel$', times: 1 }, fault: faults[step.fault]?.fault })
    const { accountId, clientOrderId, orderId } = known
    const input = step.by === 'id' && orderId !== null ? { orderId } : { accountId, clientOrderId }
    const told: Record<string, unknown> = await ask(cancelDocument, { input })
    const [order] = await booked(known)
    if (told['outcome'] === 'CANCELED') {
      expect(order).toMatchObject({ id: told['orderId'], status: 'canceled' })
      known.isFinal = true
    }
    // Nothing that exists is told to be missing.
    if (told['outcome'] === 'REFUSED' && told['orderId'] === null) expect(order).toBeUndefined()
  }

  async function run(sequence: readonly Step[]): Promise<void> {
    await harness.setRules()
    await harness.clearCalls()
    // In turns: one has a long history and one a short one.
    const { accounts } = harness.sandbox
    const accountId = accounts[sequences++ % accounts.length] ?? ''
    const known: Known[] = Array.from({ length: keys }, () => ({
      accountId,
      clientOrderId: randomUUID(),
      limitPrice: `0.${String(++prices).padStart(5, '0')}`,
      quantity: null,
      orderId: null,
      repeats: 0,
      isFinal: false,
      filled: 0,
    }))
    for (const step of sequence) {
      if (step.type === 'restart') {
        await harness.close()
        harness = await start()
        continue
      }
      const one = known[step.key]
      if (!one) continue
      if (step.type === 'place') await place(one, step)
      if (step.type === 'cancel') await cancel(one, step)
      if (step.type === 'fill' && one.orderId !== null) {
        // Refused where it is final, or has less left.
        await harness.control('POST', `/orders/${one.orderId}/fill`, { quantity: step.quantity }).catch(() => {})
      }
      if (step.type === 'placement') {
        const told: Record<string, unknown> | null = await ask(placementDocument, one)
        expect(told === null).toBe(one.quantity === null)
        if (told !== null) expectTrue(one, Object(told['result']), one.quantity ?? '', await booked(one))
      }
    }
    await harness.setRules()
    for (const one of known) await expectSettled(one)
  }

  /** With a broker that behaves, each key comes to an outcome, and it is the book's. */
  async function expectSettled(known: Known): Promise<void> {
    const { accountId, clientOrderId } = known
    await vi.waitFor(
      async () => {
        const told: Record<string, unknown> | null = await ask(placementDocument, { accountId, clientOrderId })
        if (told === null) return expect(await booked(known)).toEqual([])
        const { outcome } = Object(told['result'])
        expect(outcome).not.toBe('UNKNOWN')
        const orders = await booked(known)
        expect(orders).toHaveLength(outcome === 'PLACED' ? 1 : 0)
        expectTrue(known, Object(told['result']), known.quantity ?? '', orders)
      },
      { timeout: 10_000, interval: 20 },
    )
    expect((await postsOf(known)).length).toBeLessThanOrEqual(1 + known.repeats)
  }
}

// Each waits most of the time for searches and answers, so several go on at once.
describe.concurrent('A32 any repeats of callers and faults of brokers', () => {
  test.each([20_261_120, 20_261_121, 20_261_122, 20_261_123, 20_261_124])(
    'each key is one order at most, and every answer is true (seed %i)',
    (seed) => holdModel(seed, Number(process.env['SEQUENCES'] ?? 200) / 5),
    120_000,
  )
})
