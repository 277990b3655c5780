// Documents and inputs of somebody who means no good, or whose program is broken: what they may cost, reach and forge. The
// answer is lawful each time, one of the closed list of codes or none, and the broker hears of nothing that was refused.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { errorCodes } from '../src/errors.ts'
import { limitBuy, startForTest, startHarness } from './harness.ts'
import type { Answer, Harness } from './harness.ts'

/** One that shows its schema to nobody. */
let closed: Harness

beforeAll(async () => {
  closed = await startHarness({ INTROSPECTION: 'off', GRAPHIQL: 'off' })
})
afterAll(() => closed.close())
beforeEach(() => closed.clearCalls())

/** No answer may be anything else, whatever was asked. */
function expectLawful({ status, data, errors }: Answer): void {
  expect([200, 400, 401, 403]).toContain(status)
  expect(data !== undefined || errors !== undefined, 'neither data nor errors').toBe(true)
  for (const { message, extensions } of errors ?? []) {
    expect(Object.keys(errorCodes)).toContain(extensions['code'])
    expect(extensions['code'], message).not.toBe('INTERNAL_SERVER_ERROR')
    expect(extensions['requestId']).toEqual(expect.any(String))
  }
}

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

describe('entities of a gateway that is none', () => {
  const query = 'query ($r: [_Any!]!) { _entities(representations: $r) { __typename ... on Order { id } } }'
  const missing = { __typename: 'Order', id: 'ord_nobody' }

  it.each<[what: string, representation: unknown]>([
    ['a type that nobody knows', { __typename: 'Nobody' }],
    ['no type', {}],
    ['a type that is no word', { __typename: { a: 1 } }],
    ['a type of the language', { __typename: '__Schema' }],
    ['a word of JavaScript', { __typename: 'constructor' }],
    ['another word of it', { __typename: '__proto__' }],
    ['a type that is no entity', { __typename: 'PageInfo' }],
    ['the type of all reads', { __typename: 'Query' }],
    ['an interface', { __typename: 'PlaceOrderResult', outcome: 'PLACED' }],
    ['an input', { __typename: 'PlaceOrderInput' }],
    ['a scalar', { __typename: 'Decimal' }],
    ['a number', 7],
    ['a text', 'Order'],
    ['a list', [{ __typename: 'Order', id: 'ord_1' }]],
    ['an id that is none', { __typename: 'Order', id: '..' }],
  ])('fail each by itself, whatever stands beside them, and end no process: %s', async (_, representation) => {
    // Those before and after it are asked for at once, and one of them fails later than it does.
    const r = [{ __typename: 'Order', id: '../x' }, missing, representation, missing]
    const answer = await closed.run(query, { r })
    expectLawful(answer)
    expect(answer.data).toEqual({ _entities: [null, null, null, null] })
    expect(answer.errors?.map(({ path }) => path?.join('.')).toSorted()).toEqual(['_entities.0', '_entities.2'])
    // A promise that nobody holds is told of after this turn, and fails the run of the tests as it would end a service.
    await new Promise((resolve) => void setImmediate(resolve))
  })
})
