// Documents and inputs of somebody who means no good, or whose program is broken: what they may cost, reach and forge. The
// answer is lawful each time, one of the closed list of codes or none, and the broker hears of nothing that was refused.

import { describe, expect, it } from 'vitest'
import { limitBuy, startForTest } from './harness.ts'
import type { Harness } from './harness.ts'

describe('E05 what one document writes and then reads', () => {
  const shown = 'order { id status account { orders(first: 20) { nodes { id status } } } }'
  const document = `mutation ($first: CancelOrderInput!, $second: CancelOrderInput!, $third: PlaceOrderInput!) {
    one: cancelOrder(input: $first) { outcome ${shown} }
    two: cancelOrder(input: $second) { outcome ${shown} }
    three: placeOrder(input: $third) { outcome ${shown} }
    again: cancelOrder(input: $first) { outcome ${shown} }
  }`
  const place = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }'

  it.each([
    ["Bluum's accounts", {}, (harness: Harness) => harness.accountId],
    ["Bluum's investors", { BLUUM_API: 'investors' }, (harness: Harness) => harness.accountId],
    ['Aries', {}, (harness: Harness) => `aries:${harness.sandbox.aries.accounts[0]}`],
  ])('is what the writes before it made of it (%s)', async (_, env, toAccount) => {
    const harness = await startForTest(env)
    const accountId = toAccount(harness)
    const buy = (quantity: string) => limitBuy(harness, { accountId, quantity })
    const ids: string[] = []
    for (const quantity of ['1', '2']) {
      ids.push((await harness.run(place, { input: buy(quantity) })).data.placeOrder.orderId)
    }
    const [first, second] = ids.map((orderId) => ({ orderId, accountId }))
    const { data, errors } = await harness.run(document, { first, second, third: buy('3') })
    expect(errors).toBeUndefined()
    const { id: third } = data.three.order

    const [open, canceled] = ['ACCEPTED', 'CANCELED']
    const steps: [string, string, Record<string, string>][] = [
      ['one', canceled, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: open }],
      ['two', canceled, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: canceled }],
      ['three', open, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: canceled, [third]: open }],
      ['again', canceled, { [ids[0] ?? '']: canceled, [ids[1] ?? '']: canceled, [third]: open }],
    ]
    for (const [alias, status, listed] of steps) {
      const { order } = data[alias]
      expect([alias, order.status]).toEqual([alias, status])
      const nodes: { id: string; status: string }[] = order.account.orders.nodes
      const states = Object.fromEntries(nodes.filter(({ id }) => id in listed).map((node) => [node.id, node.status]))
      expect([alias, states]).toEqual([alias, listed])
    }
  })
})
