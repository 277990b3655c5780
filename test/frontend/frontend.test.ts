// A frontend over HTTP: its typed operations, generated from schema.graphql, against the real address.

import { afterAll, beforeAll, expect, it } from 'vitest'
import { request } from './client.ts'
import { CancelOrder, ListOrders, PlaceOrder, ReadOrder } from './operations.ts'
import { startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(() => harness.close())

it('lists open orders, places one, reads it and cancels it, all typed', async () => {
  const { url, accountId } = harness
  const { orders } = await request(url, ListOrders, { accountId, filter: { state: 'OPEN' }, first: 5 })
  expect(orders?.nodes).toHaveLength(5)
  expect(orders?.nodes.every((order) => order?.status === 'ACCEPTED' || order?.status === 'PARTIALLY_FILLED')).toBe(
    true,
  )

  const input = {
    accountId,
    clientOrderId: crypto.randomUUID(),
    symbol: 'AAPL',
    side: 'BUY',
    type: 'LIMIT',
    timeInForce: 'DAY',
    quantity: '5',
    limitPrice: '1.00',
  } as const
  const { placeOrder } = await request(url, PlaceOrder, { input })
  if (placeOrder?.__typename !== 'OrderPlaced') throw new Error(placeOrder?.message)
  // The union of outcomes is narrowed: `replayed` exists on this one only.
  expect(placeOrder.replayed).toBe(false)

  const id = placeOrder.orderId ?? ''
  const { order } = await request(url, ReadOrder, { id })
  expect(order).toEqual({ id, status: 'ACCEPTED', isCancelable: true, averagePrice: null })

  const { cancelOrder } = await request(url, CancelOrder, { input: { orderId: id } })
  expect(cancelOrder).toMatchObject({
    __typename: 'CancelConfirmed',
    order: { status: 'CANCELED', filledQuantity: '0' },
  })
})

it('gets a typed list of problems for a form that is not right', async () => {
  const input = {
    accountId: harness.accountId,
    clientOrderId: crypto.randomUUID(),
    symbol: 'AAPL',
    side: 'BUY',
    type: 'STOP',
    timeInForce: 'DAY',
    quantity: '0',
  } as const
  const { placeOrder } = await request(harness.url, PlaceOrder, { input })
  if (placeOrder?.__typename !== 'OrderInvalid') throw new Error(placeOrder?.message)
  expect(placeOrder.problems.map(({ field, code }) => [field.join('.'), code])).toEqual([
    ['input.stopPrice', 'REQUIRED'],
    ['input.quantity', 'NOT_POSITIVE'],
  ])
})
