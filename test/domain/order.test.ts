// The ids of this graph: whose they are, what they are made of, and that each thing has one spelling.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isIdPart, splitId as splitPrefixed } from '../../src/domain/ids.ts'
import { brokerOf, isAccountId, isOrderId } from '../../src/brokers/registry.ts'
import { toAriesId } from '../../src/brokers/aries/ids.ts'

/** Returns the broker's own names in an id; null if it is malformed. */
const splitId = (id: string): string[] | null =>
  brokerOf(id) === 'ARIES' ? splitPrefixed('aries:', id) : isIdPart(id) ? [id] : null

describe('an id', () => {
  it.each([
    ['ord_x9y8z7a6b5c4d3e2', 'BLUUM', ['ord_x9y8z7a6b5c4d3e2']],
    ['3d0b0e65-35d3-4dcd-8df7-10286ebb4b4b', 'BLUUM', ['3d0b0e65-35d3-4dcd-8df7-10286ebb4b4b']],
    ['aries', 'BLUUM', ['aries']],
    ['a:b', 'BLUUM', ['a:b']],
    ['aries:ACC-4471', 'ARIES', ['ACC-4471']],
    ['aries:ACC-4471:ORDER-20260309-0041', 'ARIES', ['ACC-4471', 'ORDER-20260309-0041']],
    ['aries:A%3A1:b%3Ac', 'ARIES', ['A:1', 'b:c']],
  ])('%s is of %s', (id, broker, parts) => {
    expect(brokerOf(id)).toBe(broker)
    expect(splitId(id)).toEqual(parts)
  })

  it.each([
    '',
    '.',
    '..',
    '../accounts',
    'a/b',
    'a b',
    'a%2e',
    'a'.repeat(129),
    'aries:',
    'aries::',
    'aries:..',
    'aries:%2e%2e:x',
    'aries:A/B:x',
    'aries:A%2FB',
    'aries:A:',
    'aries:%',
    'aries:%ff',
    `aries:${'a'.repeat(129)}`,
  ])('%s is not an id', (id) => {
    expect(splitId(id)).toBeNull()
    expect(isOrderId(id) || isAccountId(id)).toBe(false)
  })

  // With two spellings an account would be two, and a key could be sent in both.
  it.each(['aries:%41CC', 'aries:ACC%2D1', 'aries:A%3a1', 'ARIES:ACC-1:x%20'])(
    '%s is not a second spelling of an id',
    (id) => {
      expect(splitId(id)).toBeNull()
    },
  )

  it('names an account or an order, at Aries by its parts', () => {
    expect([isAccountId('aries:A'), isOrderId('aries:A'), isAccountId('aries:A:1'), isOrderId('aries:A:1')]).toEqual([
      true,
      false,
      false,
      true,
    ])
    expect([isAccountId('aries:A:1:2'), isOrderId('aries:A:1:2')]).toEqual([false, false])
    expect([isAccountId('x'), isOrderId('x'), isAccountId(1), isOrderId(undefined)]).toEqual([true, true, false, false])
  })

  it('splits into the parts that it was made of', () => {
    const part = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,50}$/)
    fc.assert(
      fc.property(part, part, (account, order) => {
        expect(splitId(toAriesId(account))).toEqual([account])
        expect(splitId(toAriesId(account, order))).toEqual([account, order])
        expect(isOrderId(toAriesId(account, order))).toBe(true)
      }),
    )
    expect(isIdPart('a:b')).toBe(true)
  })

  it('is an order id, an account id or neither for any text, and never throws', () => {
    fc.assert(
      fc.property(fc.string(), fc.boolean(), (text, isAries) => {
        const id = isAries ? `aries:${text}` : text
        const parts = splitId(id)
        for (const name of parts ?? []) expect(isIdPart(name)).toBe(true)
        expect(isOrderId(id) && parts === null).toBe(false)
      }),
    )
  })
})
