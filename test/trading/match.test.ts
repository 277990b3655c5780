// How the order of a placement is recognized: by its client order id, its terms, and whether it is new.

import { describe, expect, test } from 'vitest'

import type { PlaceAnswer } from '../../src/brokers/broker.ts'
import { compareClientOrderIds } from '../../src/trading/placement/clientOrderId.ts'
import { findMatch, isConfirmed, judgeAnswer, mayOwn, toChanges } from '../../src/trading/placement/match.ts'
import type { Match, Surroundings } from '../../src/trading/placement/match.ts'
import { stateOf } from '../../src/domain/order.ts'
import type { NewOrder, Order } from '../../src/domain/order.ts'
import { createPlacement } from '../../src/trading/placement/placement.ts'
import type { Placement } from '../../src/trading/placement/placement.ts'
import { findDifferingTerms, fitsTerms } from '../../src/trading/placement/terms.ts'

const createdAt = Date.parse('2026-03-10T15:00:00Z')

const request: NewOrder = {
  accountId: 'acc_1',
  clientOrderId: 'key-00001',
  symbol: 'AAPL',
  side: 'BUY',
  type: 'LIMIT',
  timeInForce: 'GTC',
  quantity: '5',
  notional: null,
  limitPrice: '10.00',
  stopPrice: null,
  trailPercent: null,
  trailPrice: null,
  extendedHours: null,
  commission: null,
  commissionType: null,
}

/** A placement without an outcome. */
function createUnknown(change: Partial<Placement> = {}, order: Partial<NewOrder> = {}): Placement {
  const wanted = { ...request, ...order }
  const given = { opId: `op of ${wanted.clientOrderId}`, broker: 'BLUUM', owner: 'P1', sendBy: createdAt } as const
  return { ...createPlacement(wanted, { ...given, at: createdAt }), state: 'UNKNOWN', ...change }
}

const alone: Surroundings = { whole: new Set(), taken: new Set(), rivals: [] }

describe('compareClientOrderIds', () => {
  test.each([
    ['form-0001', 'form-0001', 'exact'],
    ['form-0001', 'FORM-0001', 'changed'],
    ['form-0001', 'form0001', 'changed'],
    ['form-0001', 'form_0001', 'changed'],
    ['form-0001', 'FORM 0001', 'changed'],
    ['form-0001', 'PTR1-form-0001', 'changed'],
    ['form-0001', 'ptr1form0001', 'changed'],
    ['form-0001', ' form-0001', 'changed'],
    ['form-0001-abcdef', 'form-0001-ab', 'cut'],
    ['form-0001-abcdef', 'form-000', 'cut'],
    ['form-0001-abcdef', 'FORM0001', 'cut'],
    ['form-0001-abcdef', 'PTR1-form-0001-ab', 'cut'],
    ['form-0001-abcdef', 'form-00', 'other'],
    ['form-0001', 'form-0002', 'other'],
    ['form-0001', 'form-00011', 'other'],
    ['form-0001-abcdef', '0001-abcdef', 'cut'],
    ['form-0001-abcdef', '1-abcdef', 'cut'],
    ['form-0001-abcdef', '-abcdef', 'other'],
    ['form-0001-abcdef', 'X-0001-abcdef', 'other'],
    // Seven letters and digits are too few to be known behind a prefix, and enough if they are all there is.
    ['a.b.c.d.e', 'x-a.b.c.d.e', 'cut'],
    ['a-b-c-d-e', 'abcde', 'changed'],
    ['form-0001', '', 'none'],
    ['form-0001', null, 'none'],
    ['form-0001', new Error('unreadable'), 'none'],
  ] as const)('ours %j and theirs %j: %s', (ours, theirs, expected) => {
    expect(compareClientOrderIds(ours, theirs)).toBe(expected)
  })
})

describe('findDifferingTerms', () => {
  test.each<[string, Partial<Order>, string[], boolean]>([
    ['the same order', {}, [], true],
    ['other digits of the same amounts', { quantity: '5.000', limitPrice: '10' }, [], true],
    [
      'words that are unknown, and amounts that are missing',
      { type: 'UNKNOWN', side: 'UNKNOWN', quantity: null },
      [],
      true,
    ],
    ['an amount that cannot be read', { limitPrice: new Error('unreadable') }, [], true],
    ['another quantity', { quantity: '4.9' }, ['quantity'], false],
    ['another type with another price', { type: 'STOP_LIMIT', limitPrice: '11' }, ['type', 'limitPrice'], false],
    ['another spelling of the symbol', { symbol: 'AAP/L' }, ['symbol'], true],
    ['another symbol', { symbol: 'MSFT' }, ['symbol'], false],
    ['an option on the symbol', { securityType: 'OPTION' }, ['symbol'], false],
  ])('of %s', (_, change, expected, fits) => {
    const order = createOrder('ord_1', change)
    expect(findDifferingTerms(request, order)).toEqual(expected)
    expect(fitsTerms(request, order)).toBe(fits)
  })
})

function createOrder(id: string, change: Partial<Order> = {}): Order {
  const status = 'ACCEPTED'
  return {
    id,
    broker: 'BLUUM',
    account: { id: 'acc_1', broker: 'BLUUM' },
    asset: { symbol: 'AAPL' },
    symbol: 'AAPL',
    securityType: null,
    legs: [],
    currency: 'USD',
    clientOrderId: null,
    side: 'BUY',
    type: 'LIMIT',
    timeInForce: 'GTC',
    quantity: '5.0',
    notional: null,
    limitPrice: '10',
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: false,
    status,
    brokerStatus: 'accepted',
    state: stateOf(status),
    isCancelable: true,
    filledQuantity: '0',
    remainingQuantity: '5',
    averagePrice: null,
    commission: null,
    commissionType: null,
    submittedAt: '2026-03-10T15:00:00.100Z',
    filledAt: null,
    canceledAt: null,
    rejectReason: null,
    isPartial: true,
    ...change,
  }
}

describe('findMatch', () => {
  const mine = { clientOrderId: 'key-00001' }
  const others = { clientOrderId: 'key-00002' }
  const garbled = new Error('a garbled field')
  const leg = {
    symbol: null,
    securityType: null,
    side: null,
    ratio: '1',
    right: null,
    strikePrice: null,
    expiration: null,
  }
  const cases: {
    name: string
    orders: Order[]
    whole?: string[]
    taken?: string[]
    rivals?: Placement[]
    placement?: Partial<Placement>
    foundBy?: string
    preImage?: Placement['preImage']
    expected: { kind: string; ids: string[] }
  }[] = [
    { name: 'no order', orders: [], expected: { kind: 'none', ids: [] } },
    { name: 'the key', orders: [createOrder('ord_1', mine)], expected: { kind: 'found', ids: ['ord_1'] } },
    {
      name: 'the key, among equal orders without one and with others',
      orders: [createOrder('ord_1'), createOrder('ord_2', mine), createOrder('ord_3', others)],
      expected: { kind: 'found', ids: ['ord_2'] },
    },
    {
      name: 'the key, rejected by the broker',
      orders: [createOrder('ord_1', { ...mine, status: 'REJECTED', state: 'CLOSED' })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key, though it was there before',
      orders: [createOrder('ord_1', mine)],
      preImage: { orderIds: ['ord_1'], isComplete: true },
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key with another quantity, though it was there before the send',
      orders: [createOrder('ord_1', { ...mine, quantity: '6' })],
      preImage: { orderIds: ['ord_1'], isComplete: true },
      expected: { kind: 'candidates', ids: ['ord_1'] },
    },
    {
      name: 'the key twice',
      orders: [createOrder('ord_1', mine), createOrder('ord_2', mine)],
      expected: { kind: 'candidates', ids: ['ord_1', 'ord_2'] },
    },
    {
      name: 'the key with another quantity, in a list',
      orders: [createOrder('ord_1', { ...mine, quantity: '6' })],
      expected: { kind: 'unread', ids: ['ord_1'] },
    },
    {
      name: 'the key with another quantity, read by its id',
      orders: [createOrder('ord_1', { ...mine, quantity: '6' })],
      whole: ['ord_1'],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key with another side, beside an equal order without a key',
      orders: [createOrder('ord_1', { ...mine, side: 'SELL' }), createOrder('ord_2')],
      whole: ['ord_1'],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key with words that are not known, and without what was sent',
      orders: [createOrder('ord_1', { ...mine, type: 'UNKNOWN', side: 'UNKNOWN', limitPrice: null })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key with a garbled price',
      orders: [createOrder('ord_1', { ...mine, limitPrice: garbled })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key in another case',
      orders: [createOrder('ord_1', { clientOrderId: 'KEY-00001' })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key in another case, though the order was there before the send',
      orders: [createOrder('ord_1', { clientOrderId: 'KEY-00001' })],
      preImage: { orderIds: ['ord_1'], isComplete: true },
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'the key behind a prefix, with another quantity',
      orders: [createOrder('ord_1', { clientOrderId: 'PTR-key-00001', quantity: '4' })],
      whole: ['ord_1'],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key as it is before the key in another case',
      orders: [createOrder('ord_1', { clientOrderId: 'KEY-00001' }), createOrder('ord_2', mine)],
      expected: { kind: 'found', ids: ['ord_2'] },
    },
    {
      name: 'the key in another case twice',
      orders: [
        createOrder('ord_1', { clientOrderId: 'KEY-00001' }),
        createOrder('ord_2', { clientOrderId: 'PTR-key-00001' }),
      ],
      expected: { kind: 'candidates', ids: ['ord_1', 'ord_2'] },
    },
    {
      name: 'the key cut to eight characters',
      orders: [createOrder('ord_1', { clientOrderId: 'key-0000' })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the key cut to eight characters, with another quantity',
      orders: [createOrder('ord_1', { clientOrderId: 'key-0000', quantity: '4' })],
      expected: { kind: 'candidates', ids: ['ord_1'] },
    },
    {
      name: 'the key cut to what another unresolved equal placement begins with too',
      orders: [createOrder('ord_1', { clientOrderId: 'key-0000' })],
      rivals: [createUnknown({}, { clientOrderId: 'key-00002' })],
      expected: { kind: 'candidates', ids: ['ord_1'] },
    },
    {
      name: 'the key cut to what another unresolved placement of other terms begins with too',
      orders: [createOrder('ord_1', { clientOrderId: 'key-0000' })],
      rivals: [createUnknown({}, { clientOrderId: 'key-00002', quantity: '9' })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'a cut key that fits another unresolved placement better',
      orders: [createOrder('ord_1', { clientOrderId: 'key-0000', quantity: '9' })],
      rivals: [createUnknown({}, { clientOrderId: 'key-00002', quantity: '9' })],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'the key in another case, which is exactly the key of another placement',
      orders: [createOrder('ord_1', { clientOrderId: 'KEY-00001' })],
      taken: ['ord_1'],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'the order id that was answered, under an id of somebody else',
      orders: [createOrder('ord_1', { clientOrderId: 'broker-7' })],
      placement: { evidence: { answeredOrderId: 'ord_1' } },
      foundBy: 'RESPONSE',
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'the order id that was answered, without an id, in a list',
      orders: [createOrder('ord_1')],
      placement: { evidence: { answeredOrderId: 'ord_1' } },
      expected: { kind: 'unread', ids: ['ord_1'] },
    },
    {
      name: 'the order id that was answered, with other terms and nothing of the key',
      orders: [createOrder('ord_1', { clientOrderId: 'broker-7', quantity: '4' })],
      placement: { evidence: { answeredOrderId: 'ord_1' } },
      whole: ['ord_1'],
      expected: { kind: 'candidates', ids: ['ord_1'] },
    },
    {
      name: 'the same terms under an id of somebody else',
      orders: [createOrder('ord_1', others)],
      expected: { kind: 'strays', ids: ['ord_1'] },
    },
    {
      name: 'the same terms in another spelling of the symbol under an id of somebody else',
      orders: [createOrder('ord_1', { ...others, symbol: 'AAP.L' })],
      expected: { kind: 'strays', ids: ['ord_1'] },
    },
    {
      name: 'other terms under an id of somebody else',
      orders: [createOrder('ord_1', { ...others, quantity: '4' })],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'the same terms under an id of somebody else, though the order was there before the send',
      orders: [createOrder('ord_1', others)],
      preImage: { orderIds: ['ord_1'], isComplete: true },
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'the same terms under the exact key of another placement',
      orders: [createOrder('ord_1', others)],
      taken: ['ord_1'],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'no key and another quantity, in a list that may leave keys out',
      orders: [createOrder('ord_1', { quantity: '4' })],
      expected: { kind: 'unread', ids: ['ord_1'] },
    },
    {
      name: 'the key in another account',
      orders: [createOrder('ord_1', { ...mine, account: { id: 'acc_2', broker: 'BLUUM' } })],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'no keys, in a list',
      orders: [createOrder('ord_1'), createOrder('ord_2', { symbol: 'MSFT' }), createOrder('ord_3')],
      expected: { kind: 'unread', ids: ['ord_1', 'ord_3'] },
    },
    {
      name: 'no keys, one of two read by its id',
      orders: [createOrder('ord_1'), createOrder('ord_2')],
      whole: ['ord_1'],
      expected: { kind: 'unread', ids: ['ord_2'] },
    },
    {
      name: 'no keys, all read by their ids',
      orders: [createOrder('ord_1'), createOrder('ord_2')],
      whole: ['ord_1', 'ord_2'],
      expected: { kind: 'candidates', ids: ['ord_1', 'ord_2'] },
    },
    {
      name: 'an unreadable key, read by its id',
      orders: [createOrder('ord_1', { clientOrderId: garbled })],
      whole: ['ord_1'],
      expected: { kind: 'candidates', ids: ['ord_1'] },
    },
    {
      name: 'no key, but it was there before',
      orders: [createOrder('ord_1'), createOrder('ord_2')],
      whole: ['ord_1', 'ord_2'],
      preImage: { orderIds: ['ord_1'], isComplete: true },
      expected: { kind: 'candidates', ids: ['ord_2'] },
    },
    {
      name: 'no key, and another price',
      orders: [createOrder('ord_1', { limitPrice: '10.01' })],
      whole: ['ord_1'],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'submitted six minutes before the record',
      orders: [createOrder('ord_1', { submittedAt: '2026-03-10T14:54:00Z' })],
      whole: ['ord_1'],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'the key, submitted six minutes before the record',
      orders: [createOrder('ord_1', { ...mine, submittedAt: '2026-03-10T14:54:00Z' })],
      expected: { kind: 'candidates', ids: ['ord_1'] },
    },
    {
      name: 'the key, and the key six minutes before the record',
      orders: [createOrder('ord_1', { ...mine, submittedAt: '2026-03-10T14:54:00Z' }), createOrder('ord_2', mine)],
      expected: { kind: 'found', ids: ['ord_2'] },
    },
    {
      name: 'submitted five minutes before the record',
      orders: [createOrder('ord_1', { ...mine, submittedAt: '2026-03-10T14:55:00Z' })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'submitted an hour after the record',
      orders: [createOrder('ord_1', { ...mine, submittedAt: '2026-03-10T16:00:00Z' })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'submitted at a time that cannot be read',
      orders: [createOrder('ord_1', { ...mine, submittedAt: garbled })],
      expected: { kind: 'found', ids: ['ord_1'] },
    },
    {
      name: 'nothing but an option on the same ticker',
      orders: [createOrder('ord_1', { securityType: 'OPTION' })],
      whole: ['ord_1'],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'nothing but an order with legs, whatever it says it is',
      orders: [createOrder('ord_1', { legs: [leg] })],
      whole: ['ord_1'],
      expected: { kind: 'none', ids: [] },
    },
    {
      name: 'bound to another placement',
      orders: [createOrder('ord_1'), createOrder('ord_2', mine)],
      whole: ['ord_1', 'ord_2'],
      taken: ['ord_1', 'ord_2'],
      expected: { kind: 'none', ids: [] },
    },
  ]

  test.each(cases)('$name: $expected', (one) => {
    const { orders, whole = [], taken = [], rivals = [], preImage = null, expected, foundBy = 'CLIENT_ORDER_ID' } = one
    const around = { whole: new Set(whole), taken: new Set(taken), rivals }
    const match = findMatch(createUnknown({ preImage, ...one.placement }), orders, around)
    expect({ kind: match.kind, ids: idsOf(match) }).toEqual(expected)
    if (match.kind === 'found') expect(match.foundBy).toBe(foundBy)
  })

  test('a quantity that the broker adds to a cash order is no difference', () => {
    const cash = { ...request, type: 'MARKET' as const, quantity: null, notional: '50', limitPrice: null }
    const order = createOrder('ord_1', {
      ...mine,
      type: 'MARKET',
      quantity: '0.2857',
      notional: '50.00',
      limitPrice: null,
    })
    expect(findMatch({ ...createUnknown(), request: cash }, [order], alone).kind).toBe('found')
  })
})

test('an order left to another placement is no evidence of absence', () => {
  const rival = createUnknown({}, { clientOrderId: 'KEY-00001' })
  const order = createOrder('ord_1', { clientOrderId: 'KEY-00001' })
  const around = { ...alone, whole: new Set(['ord_1']), rivals: [rival] }
  expect(findMatch(createUnknown(), [order], around)).toEqual({ kind: 'rivals', orders: [order] })
  expect(findMatch(rival, [order], { ...around, rivals: [createUnknown()] }).kind).toBe('found')
})

test('exactly our key with other terms beats the changed key of another placement', () => {
  const rival = createUnknown({}, { clientOrderId: 'KEY-00001', quantity: '4' })
  const order = createOrder('ord_1', { clientOrderId: 'key-00001', quantity: '4' })
  const around = { ...alone, whole: new Set(['ord_1']), rivals: [rival] }
  expect(findMatch(createUnknown(), [order], around).kind).toBe('found')
})

test('a changed key on an order of another symbol is not ours', () => {
  const order = createOrder('ord_1', { clientOrderId: 'KEY-00001', symbol: 'MSFT' })
  expect(findMatch(createUnknown(), [order], { ...alone, whole: new Set(['ord_1']) }).kind).toBe('none')
})

function idsOf(match: Match): string[] {
  switch (match.kind) {
    case 'found':
      return [match.order.id]
    case 'unread':
      return match.orderIds
    case 'candidates':
    case 'strays':
    case 'rivals':
      return match.orders.map(({ id }) => id)
    case 'none':
      return []
    default:
      return match satisfies never
  }
}

describe('judgeAnswer', () => {
  const answer = (change: Partial<PlaceAnswer>): PlaceAnswer => ({
    orderId: 'ord_1',
    status: 'ACCEPTED',
    clientOrderId: 'key-00001',
    order: null,
    differing: [],
    rejection: null,
    ...change,
  })
  const there = { preImage: { orderIds: ['ord_1'], isComplete: true } }

  test.each<[string, Partial<PlaceAnswer>, string]>([
    ['our key, and nothing differs', {}, 'ours'],
    ['no key, and nothing differs', { clientOrderId: null }, 'ours'],
    ['our key with other terms', { order: createOrder('ord_1', { quantity: '4' }) }, 'unconfirmed'],
    ['our key with a field that differs, and no order', { differing: ['qty'] }, 'unconfirmed'],
    ['our key with a field that cannot be read', { differing: ['side'], order: createOrder('ord_1') }, 'unconfirmed'],
    ['our key in another case', { clientOrderId: 'KEY-00001' }, 'unconfirmed'],
    ['an empty key', { clientOrderId: '' }, 'unconfirmed'],
    ['an id of the broker', { clientOrderId: 'broker-7' }, 'unconfirmed'],
  ])('%s: %s', (_, change, expected) => {
    expect(judgeAnswer(createUnknown(), answer(change), false)).toBe(expected)
    expect(judgeAnswer(createUnknown(), answer(change), true)).toBe('contradiction')
  })

  test('contradicts an order that was there before the send, unless it has our key', () => {
    expect(judgeAnswer(createUnknown(there), answer({ clientOrderId: null }), false)).toBe('contradiction')
    expect(judgeAnswer(createUnknown(there), answer({ clientOrderId: 'broker-7' }), false)).toBe('contradiction')
    expect(judgeAnswer(createUnknown(there), answer({}), false)).toBe('ours')
  })

  test.each<[string, Partial<Order>, boolean]>([
    ['our key, whatever the terms', { clientOrderId: 'key-00001', quantity: '4' }, true],
    ['our key behind a prefix, whatever the terms', { clientOrderId: 'PTR1-key-00001', type: 'MARKET' }, true],
    ['our key cut, whatever the terms', { clientOrderId: 'key-0000', quantity: '4' }, true],
    ['no key and our terms', {}, true],
    ['an id of the broker and our terms', { clientOrderId: 'broker-7' }, true],
    ['no key and other terms', { quantity: '4' }, false],
    ['an id of the broker and other terms', { clientOrderId: 'broker-7', quantity: '4' }, false],
    ['our terms, submitted long before the send', { submittedAt: '2026-03-10T14:00:00Z' }, false],
  ])('a read confirms an order with %s: %j', (_, change, expected) => {
    expect(isConfirmed(createUnknown(), createOrder('ord_1', change), [])).toBe(expected)
  })

  test('a read confirms no order that fits another unresolved placement as well', () => {
    const rival = createUnknown({}, { clientOrderId: 'KEY-00001' })
    const order = createOrder('ord_1', { clientOrderId: 'key00001' })
    expect(isConfirmed(createUnknown(), order, [rival])).toBe(false)
    expect(isConfirmed(createUnknown(), createOrder('ord_1', { clientOrderId: 'key-00001' }), [rival])).toBe(true)
  })
})

describe('mayOwn', () => {
  test.each<[string, Partial<Placement>, boolean]>([
    ['was never sent', { state: 'NOT_SENT' }, false],
    ['is about to be sent', { state: 'RESERVED' }, false],
    ['was refused', { state: 'REJECTED' }, false],
    ['is being sent', { state: 'SENDING' }, true],
    ['is unknown', { state: 'UNKNOWN' }, true],
    ['counts as not placed', { state: 'NOT_PLACED' }, true],
    ['has the order', { state: 'ACCEPTED', orderId: 'ord_1' }, true],
    ['has another order', { state: 'ACCEPTED', orderId: 'ord_2' }, false],
  ])('a placement that %s: %j', (_, change, expected) => {
    expect(mayOwn(createUnknown(change), 'ord_1')).toBe(expected)
  })

  test('a tombstone owns only the order that it names', () => {
    const tombstone = { ...createUnknown(), orderId: null, resolvedAt: createdAt, state: undefined }
    const { state: _, ...kept } = tombstone
    expect(mayOwn(kept, 'ord_1')).toBe(false)
    expect(mayOwn({ ...kept, orderId: 'ord_1' }, 'ord_1')).toBe(true)
  })
})

test('toChanges names what the broker changed, and is null if it changed nothing', () => {
  const mine = { clientOrderId: 'key-00001' }
  expect(toChanges(request, createOrder('ord_1', mine))).toBeNull()
  expect(toChanges(request, createOrder('ord_1'))).toBeNull()
  expect(toChanges(request, createOrder('ord_1', { ...mine, quantity: '4', symbol: 'AAP/L' }))).toEqual({
    terms: ['symbol', 'quantity'],
    clientOrderId: null,
  })
  expect(toChanges(request, createOrder('ord_1', { clientOrderId: 'PTR1-key-00001' }))).toEqual({
    terms: [],
    clientOrderId: 'changed',
  })
})
