// What the fault tests put through one service, and what is held against each other at its end: all that was answered, the
// broker's request log, the record and its audit.

import { expect } from 'vitest'
import { compareDecimals } from '../src/domain/decimal.ts'
import { openSqliteStore, toStoreFile } from '../src/store/sqlite/sqliteStore.ts'
import type { limitBuy, Answer, Harness, LoggedCall } from './harness.ts'

export type PlaceInput = ReturnType<typeof limitBuy>

export interface ShownOrder {
  id: string
  status: string
  state: string | null
  filledQuantity: string | null
}

/** A call with what the broker's log says of when and how it came in. */
export interface Call extends LoggedCall {
  at: number
  /** Requests are numbered from 1 as they come in. */
  seq: number
}

/** A service, and the orders that it ever showed. */
interface Asked {
  harness: Harness
  /** Each order as it was shown, one after another. */
  shown: Map<string, ShownOrder[]>
}

/** Asks, and keeps the answer for the end. */
export async function ask(
  desk: Asked,
  query: string,
  variables: object,
  timeoutMs: number | null = null,
): Promise<Answer> {
  const headers = timeoutMs === null ? {} : { 'x-request-timeout-ms': String(timeoutMs) }
  const answer = await desk.harness.run(query, variables, headers)
  noteOrders(desk, answer.data)
  return answer
}

function noteOrders(desk: Asked, value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  if (isShownOrder(value)) desk.shown.set(value.id, [...(desk.shown.get(value.id) ?? []), value])
  for (const inner of Object.values(value)) noteOrders(desk, inner)
}

function isShownOrder(value: object): value is ShownOrder {
  return 'id' in value && 'status' in value && 'filledQuantity' in value
}

/** A write. Whatever its outcome, it is data: some gateways repeat a mutation on an error status or a Retry-After. */
export async function write(desk: Asked, document: string, input: object, timeoutMs: number | null): Promise<unknown> {
  const { status, headers, data, errors } = await ask(desk, document, { input }, timeoutMs)
  expect(errors).toBeUndefined()
  expect(status).toBe(200)
  expect(headers.has('retry-after')).toBe(false)
  return data.placeOrder ?? data.cancelOrder
}

/** What reached the broker since its log was cleared. */
export async function calls({ harness }: Pick<Asked, 'harness'>): Promise<Call[]> {
  return (await harness.calls()) as Call[]
}

/** The placements among them. */
export async function posts(desk: Pick<Asked, 'harness'>): Promise<Call[]> {
  return (await calls(desk)).filter(({ method, path }) => method === 'POST' && path.endsWith('/orders'))
}

export async function cancelPosts(desk: Pick<Asked, 'harness'>): Promise<Call[]> {
  return (await calls(desk)).filter(({ method, path }) => method === 'POST' && path.endsWith('/cancel'))
}

/** No fill was taken back and nothing final reopened. */
export function expectSteady({ shown }: Asked): void {
  for (const orders of shown.values()) {
    for (const [index, order] of orders.entries()) {
      const before = orders[index - 1]
      if (!before) continue
      const fell = compareDecimals(order.filledQuantity ?? '0', before.filledQuantity ?? '0')
      expect(fell, 'a filled quantity fell').toBeGreaterThanOrEqual(0)
      if (before.state !== 'CLOSED') continue
      expect(order.state, 'a final order reopened').toBe('CLOSED')
      if (fell === 0) expect(order.status).toBe(before.status)
    }
  }
}

/** The broker has what was asked for, in the words of its control port. */
export function expectEconomics(order: Record<string, unknown> | undefined, input: PlaceInput): void {
  expect(order, 'an order that was told to be placed').toMatchObject({
    symbol: input['symbol'],
    side: String(input['side']).toLowerCase(),
    type: String(input['type']).toLowerCase(),
    time_in_force: String(input['timeInForce']).toLowerCase(),
  })
  for (const [field, name] of [
    ['quantity', 'qty'],
    ['notional', 'notional'],
    ['limitPrice', 'limit_price'],
  ] as const) {
    const sent = input[field]
    if (typeof sent === 'string') expect(compareDecimals(String(order?.[name]), sent), field).toBe(0)
  }
}

/** The audit of a closed service is whole, and no key but those for a person is without an outcome. */
export async function expectSoundStore(desk: {
  dataDir: string
  told: ReadonlyMap<string, unknown>
  forPerson: ReadonlySet<string>
}): Promise<void> {
  const store = openSqliteStore({ file: toStoreFile(desk.dataDir), role: 'operator', mayCreate: false })
  try {
    const { broken, placements } = await store.verifyAudit()
    expect(broken).toBeNull()
    expect(placements).toBeLessThanOrEqual(desk.told.size)
    const unfinished = await store.findUnfinished(null, 100)
    const open = unfinished.filter(({ state }) => ['RESERVED', 'SENDING', 'UNKNOWN', 'AMBIGUOUS'].includes(state))
    expect(open.map(({ clientOrderId }) => clientOrderId)).toEqual([...desk.forPerson])
  } finally {
    await store.close()
  }
}
