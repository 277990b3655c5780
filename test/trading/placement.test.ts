// The state machine of a placement, every state under every event. What runs the machine is walked through in
// placement.simulation.test.ts.

import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { compareDecimals } from '../../src/domain/decimal.ts'
import type { NewOrder } from '../../src/domain/order.ts'
import { advance, isSettled, placementStates, toFingerprint, maySend } from '../../src/trading/placement/placement.ts'
import type {
  NotSentOutcome,
  Placement,
  PlacementEvent,
  PlacementState,
  RejectedOutcome,
} from '../../src/trading/placement/placement.ts'

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

const createdAt = Date.parse('2026-03-10T15:00:00Z')
const at = createdAt + 5_000

const notSent: NotSentOutcome = {
  kind: 'not_sent',
  code: 'BROKER_UNAVAILABLE',
  message: 'not sent',
  retrySameKey: true,
  retryAfterMs: null,
}
const rejected: RejectedOutcome = { kind: 'rejected', code: 'OTHER', brokerCode: null, reason: null }

const fresh: Placement = {
  opId: '019cd843-0000-7000-8000-000000000000',
  broker: 'BLUUM',
  accountId: 'acc_1',
  clientOrderId: 'key-00001',
  fingerprint: toFingerprint(request),
  request,
  state: 'RESERVED',
  attempt: 1,
  sends: 0,
  owner: 'P1',
  version: 1,
  sendBy: createdAt + 30_000,
  firstSentAt: null,
  lastSentAt: null,
  preImage: null,
  orderId: null,
  foundBy: null,
  outcome: null,
  evidence: {},
  cancelRequestedAt: null,
  cancelSettledAt: null,
  nextCheckAt: null,
  createdAt,
  resolvedAt: null,
}

const sent: Partial<Placement> = { sends: 1, firstSentAt: createdAt + 1, lastSentAt: createdAt + 1 }
const bound: Partial<Placement> = { orderId: 'ord_1', foundBy: 'RESPONSE' }

/** As the machine leaves it in each state. */
const inState: Record<PlacementState, Placement> = {
  RESERVED: fresh,
  SENDING: { ...fresh, ...sent, state: 'SENDING', version: 2 },
  NOT_SENT: { ...fresh, state: 'NOT_SENT', version: 2, outcome: notSent, resolvedAt: createdAt + 2 },
  ACCEPTED: { ...fresh, ...sent, ...bound, state: 'ACCEPTED', version: 3, resolvedAt: createdAt + 2 },
  REJECTED: { ...fresh, ...sent, state: 'REJECTED', version: 3, outcome: rejected, resolvedAt: createdAt + 2 },
  UNKNOWN: { ...fresh, ...sent, state: 'UNKNOWN', version: 3, nextCheckAt: at + 1_000 },
  AMBIGUOUS: { ...fresh, ...sent, state: 'AMBIGUOUS', version: 4 },
  NOT_PLACED: {
    ...fresh,
    ...sent,
    state: 'NOT_PLACED',
    version: 4,
    nextCheckAt: at + 1_000,
    resolvedAt: createdAt + 2,
  },
}

const events = {
  reserved: { type: 'reserved', owner: 'P2', sendBy: at + 30_000, acknowledged: [] },
  sending: { type: 'sending', attempt: 1, preImage: { orderIds: ['ord_0'], isComplete: true } },
  sent_again: { type: 'sent_again', attempt: 1 },
  'accepted, its order': { type: 'accepted', orderId: 'ord_1', foundBy: 'CLIENT_ORDER_ID' },
  'accepted, another order': { type: 'accepted', orderId: 'ord_2', foundBy: 'CLIENT_ORDER_ID' },
  rejected: { type: 'rejected', outcome: rejected, orderId: null, foundBy: null },
  'not_sent, never left': { type: 'not_sent', attempt: 1, outcome: notSent, left: false },
  'not_sent, not processed': { type: 'not_sent', attempt: 1, outcome: notSent, left: true },
  lost: { type: 'lost', attempt: 1, failure: { kind: 'no_answer', status: null } },
  absent: { type: 'absent', emptyScans: 3, nextCheckAt: at + 300_000 },
  ambiguous: { type: 'ambiguous', candidates: ['ord_1', 'ord_2'] },
  'resolved, an order': { type: 'resolved', orderId: 'ord_1', by: 'a person' },
  'resolved, none': { type: 'resolved', orderId: null, by: 'a person' },
  'checked, again later': { type: 'checked', nextCheckAt: at + 60_000 },
  'checked, never again': { type: 'checked', nextCheckAt: null },
  cancel_requested: { type: 'cancel_requested' },
  cancel_settled: { type: 'cancel_settled', orderStatus: 'CANCELED' },
} as const satisfies Record<string, PlacementEvent>

// What becomes of it, in the order of the states below. `-`: nothing. `=`: it stays in its state, and changes. `!`: with
// an alarm; alone, nothing changes.
const columns = 'RESERVED SENDING NOT_SENT ACCEPTED REJECTED UNKNOWN AMBIGUOUS NOT_PLACED'
const table: Record<keyof typeof events, string> = {
  reserved: '= - RESERVED - - - - -',
  sending: 'SENDING - - - - - - -',
  sent_again: '- = - - - - - -',
  'accepted, its order': '! ACCEPTED ! - ! ACCEPTED ACCEPTED ACCEPTED!',
  'accepted, another order': '! ACCEPTED ! ! ! ACCEPTED ACCEPTED ACCEPTED!',
  rejected: '- REJECTED - ! - REJECTED REJECTED REJECTED!',
  'not_sent, never left': 'NOT_SENT NOT_SENT - ! - - - -',
  'not_sent, not processed': 'NOT_SENT NOT_SENT - ! - - - -',
  lost: '- UNKNOWN - - - - - -',
  absent: '- - - - - NOT_PLACED - -',
  ambiguous: '- - - - - AMBIGUOUS! - -',
  'resolved, an order': '- - - - - ACCEPTED ACCEPTED ACCEPTED',
  'resolved, none': '- - - - - NOT_PLACED NOT_PLACED -',
  'checked, again later': '- - - - - = - =',
  'checked, never again': '- - - - - = - =',
  cancel_requested: '= = - = - = = =',
  cancel_settled: '- - - - - - - -',
}

describe('advance', () => {
  const cases = Object.entries(table).flatMap(([name, row]) =>
    row.split(' ').map((expected, index) => {
      const state = columns.split(' ')[index] as PlacementState
      return { name: name as keyof typeof events, state, expected }
    }),
  )

  test('the table has every state and every event', () => {
    expect(columns.split(' ').toSorted()).toEqual(placementStates.toSorted())
    expect(cases).toHaveLength(placementStates.length * Object.keys(events).length)
  })

  test.each(cases)('$state, $name: $expected', ({ name, state, expected }) => {
    const before = inState[state]
    const step = advance(before, events[name], at)
    if (expected === '-') return expect(step).toBeNull()
    const to = expected.replace('!', '')
    expect(step?.alarm ?? null).toEqual(expected.includes('!') ? expect.any(String) : null)
    if (to === '') return expect(step?.placement).toBe(before)
    expect(step?.placement).not.toBe(before)
    expect(step?.placement.state).toBe(to === '=' ? state : to)
    expect(step?.placement.version).toBe(before.version + 1)
  })

  test('a cancel request is kept once, settled once, and may be made again', () => {
    const step = (placement: Placement, event: PlacementEvent): Placement =>
      advance(placement, event, at)?.placement ?? placement
    const wished = step(inState.UNKNOWN, events.cancel_requested)
    expect(wished).toMatchObject({ cancelRequestedAt: at, cancelSettledAt: null })
    expect(advance(wished, events.cancel_requested, at + 1)).toBeNull()
    const settled = step(wished, events.cancel_settled)
    expect(settled.cancelSettledAt).toBe(at)
    expect(advance(settled, events.cancel_settled, at + 1)).toBeNull()
    expect(step(settled, events.cancel_requested)).toMatchObject({ cancelSettledAt: null })
  })

  test.each([
    ['RESERVED', 'not_sent, never left'],
    ['SENDING', 'not_sent, not processed'],
    ['SENDING', 'rejected'],
    ['UNKNOWN', 'rejected'],
    ['UNKNOWN', 'resolved, none'],
    ['NOT_PLACED', 'checked, never again'],
  ] as const)('a cancel request ends without an order now or later: %s, %s', (state, name) => {
    const wished = { ...inState[state], cancelRequestedAt: createdAt + 3 }
    expect(advance(wished, events[name], at)?.placement.cancelSettledAt).toBe(at)
  })

  test.each([
    ['SENDING', 'lost'],
    ['SENDING', 'accepted, its order'],
    ['UNKNOWN', 'accepted, its order'],
    ['UNKNOWN', 'absent'],
    ['NOT_PLACED', 'accepted, its order'],
  ] as const)('a cancel request remains while an order may exist: %s, %s', (state, name) => {
    const wished = { ...inState[state], cancelRequestedAt: createdAt + 3 }
    const next = advance(wished, events[name], at)?.placement
    expect(next).toMatchObject({ cancelRequestedAt: createdAt + 3, cancelSettledAt: null })
  })

  test('a canceled placement is not sent', () => {
    const wished = { ...inState.RESERVED, cancelRequestedAt: createdAt + 3 }
    expect(advance(wished, events.sending, at)).toBeNull()
    const again = { ...inState.SENDING, cancelRequestedAt: createdAt + 3 }
    expect(advance(again, events.sent_again, at)).toBeNull()
  })

  test('news of an earlier attempt is no news of this one', () => {
    for (const before of Object.values(inState)) {
      for (const name of [
        'sending',
        'sent_again',
        'not_sent, never left',
        'not_sent, not processed',
        'lost',
      ] as const) {
        expect(advance({ ...before, attempt: 2 }, events[name], at)).toBeNull()
      }
    }
  })

  test('a watch that has ended does not begin again', () => {
    const over = { ...inState.NOT_PLACED, nextCheckAt: null }
    expect(advance(over, events['checked, again later'], at)).toBeNull()
  })

  test('a placement that never left counts as not sent, and one that was not processed as sent', () => {
    const never = advance(inState.SENDING, events['not_sent, never left'], at)?.placement
    expect(never).toMatchObject({ sends: 0, firstSentAt: null, lastSentAt: null })
    const refused = advance(inState.SENDING, events['not_sent, not processed'], at)?.placement
    expect(refused).toMatchObject({ sends: 1, firstSentAt: createdAt + 1, lastSentAt: createdAt + 1 })
  })

  test('a repeated send is counted, and not if it did not leave', () => {
    const again = advance(inState.SENDING, events.sent_again, at)?.placement ?? inState.SENDING
    expect(again).toMatchObject({ state: 'SENDING', sends: 2, firstSentAt: createdAt + 1, lastSentAt: at })
    expect(advance(again, events['not_sent, never left'], at)?.placement).toMatchObject({ sends: 1 })
    expect(advance(again, events['not_sent, not processed'], at)?.placement).toMatchObject({ sends: 2 })
  })

  test('a new attempt has a new bound and a new owner, and forgets what the last one came to', () => {
    const again = advance(inState.NOT_SENT, events.reserved, at)?.placement
    expect(again).toMatchObject({ attempt: 2, owner: 'P2', sendBy: at + 30_000, outcome: null, resolvedAt: null })
  })

  const anyEvent = fc.constantFrom<PlacementEvent>(...Object.values(events))
  const anyWalk = fc.array(anyEvent, { maxLength: 30 })

  test('every walk: one version a step, the two final states kept, and an instant of resolution where it is settled', () => {
    fc.assert(
      fc.property(anyWalk, (walk) => {
        let placement = fresh
        let now = createdAt
        for (const told of walk) {
          const event = { ...told, attempt: placement.attempt }
          const step = advance(placement, event, ++now)
          if (step === null || step.placement === placement) continue
          const { state, version, orderId } = placement
          const next = step.placement
          expect(next.version).toBe(version + 1)
          if (state === 'ACCEPTED' || state === 'REJECTED') expect(next.state).toBe(state)
          if (orderId !== null) expect(next.orderId).toBe(orderId)
          expect(next.resolvedAt !== null).toBe(isSettled(next))
          expect(next.state === 'ACCEPTED').toBe(next.state !== 'REJECTED' && next.orderId !== null)
          const outcome = { NOT_SENT: 'not_sent', REJECTED: 'rejected' }[next.state as string] ?? null
          expect(next.outcome?.kind ?? null).toBe(outcome)
          expect(next.sends > 0).toBe(next.firstSentAt !== null)
          expect(next).toMatchObject({ opId: fresh.opId, fingerprint: fresh.fingerprint, createdAt, request })
          placement = next
        }
      }),
      { numRuns: 2_000 },
    )
  })

  test('every walk: what may have left is not sent again', () => {
    fc.assert(
      fc.property(anyWalk, (walk) => {
        let placement = fresh
        let isOut = false
        for (const told of walk) {
          const event = { ...told, attempt: placement.attempt }
          const step = advance(placement, event, at)
          if (step === null || step.placement === placement) continue
          placement = step.placement
          if (event.type === 'sending') {
            expect(isOut).toBe(false)
            isOut = true
          }
          // The one proof there is.
          if (event.type === 'not_sent') isOut = false
        }
      }),
      { numRuns: 2_000 },
    )
  })

  test('changes nothing if its outcome is repeated', () => {
    for (const before of Object.values(inState)) {
      for (const event of Object.values(events)) {
        const once = advance(before, event, at)
        if (once === null || once.placement === before) continue
        // These happen as often as they are told.
        if (event.type === 'reserved' || event.type === 'sent_again') continue
        const twice = advance(once.placement, event, at + 1)
        expect(twice === null || twice.placement === once.placement).toBe(true)
      }
    }
  })
})

// ---- economics ------------------------------------------------------------------------------------------------------

describe('toFingerprint', () => {
  const digits = fc.bigInt({ min: 1n, max: 10n ** 12n })
  const decimal = fc.tuple(digits, fc.integer({ min: 0, max: 8 })).map(([value, scale]) => {
    const text = String(value).padStart(scale + 1, '0')
    return scale === 0 ? text : `${text.slice(0, -scale)}.${text.slice(-scale)}`
  })
  const spelled = fc.tuple(decimal, fc.nat({ max: 3 }), fc.nat({ max: 3 })).map(([text, before, after]) => ({
    text,
    other: '0'.repeat(before) + text + (text.includes('.') ? '' : after > 0 ? '.' : '') + '0'.repeat(after),
  }))

  test('is the same for equal decimals, with any digits and order of fields', () => {
    fc.assert(
      fc.property(spelled, spelled, (quantity, limitPrice) => {
        const one = toFingerprint({ ...request, quantity: quantity.text, limitPrice: limitPrice.text })
        const fields = Object.entries({ ...request, quantity: quantity.other, limitPrice: limitPrice.other })
        const other = toFingerprint(Object.fromEntries(fields.toReversed()) as unknown as NewOrder)
        expect(other).toBe(one)
      }),
    )
  })

  test('differs for decimals that differ', () => {
    fc.assert(
      fc.property(decimal, decimal, (a, b) => {
        const isSame = toFingerprint({ ...request, quantity: a }) === toFingerprint({ ...request, quantity: b })
        expect(isSame).toBe(compareDecimals(a, b) === 0)
      }),
    )
  })

  test.each<Partial<NewOrder>>([
    { accountId: 'acc_2' },
    { symbol: 'MSFT' },
    { side: 'SELL' },
    { type: 'STOP' },
    { timeInForce: 'DAY' },
    { quantity: null, notional: '5' },
    { limitPrice: null, stopPrice: '10.00' },
    { trailPercent: '1' },
    { trailPrice: '1' },
    { extendedHours: true },
    { extendedHours: false },
    { commission: '1' },
    { commissionType: 'BPS' },
  ])('differs for %j', (change) => {
    expect(toFingerprint({ ...request, ...change })).not.toBe(toFingerprint(request))
  })

  test('leaves the key out', () => {
    expect(toFingerprint({ ...request, clientOrderId: 'key-00002' })).toBe(toFingerprint(request))
  })
})

describe('may be sent', () => {
  const canceled: NotSentOutcome = { ...notSent, code: 'CANCELED', retrySameKey: false }

  test.each([
    ['RESERVED', null, true],
    ['NOT_SENT', notSent, true],
    ['NOT_SENT', canceled, false],
    ['SENDING', null, false],
    ['UNKNOWN', null, false],
    ['AMBIGUOUS', null, false],
    ['NOT_PLACED', null, false],
    ['ACCEPTED', null, false],
    ['REJECTED', { kind: 'rejected', code: 'OTHER', brokerCode: null, reason: null }, false],
  ] as const)('%s with the outcome %j: %s', (state, outcome, expected) => {
    expect(maySend({ state, outcome })).toBe(expected)
  })
})
