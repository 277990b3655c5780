// The cache keys of reads: a field that a key leaves out would give two aliases one answer.

import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import type { PageQuery } from '../../src/brokers/broker.ts'
import { toKey } from '../../src/graph/orders/loaders.ts'

const text = fc.option(fc.string({ maxLength: 3 }), { nil: null })
const status = fc.constantFrom('ACCEPTED' as const, 'FILLED' as const)
const query: fc.Arbitrary<PageQuery> = fc.record({
  broker: fc.constantFrom('BLUUM' as const, 'ARIES' as const),
  accountId: fc.string({ maxLength: 3 }),
  statuses: fc.option(fc.array(status, { minLength: 1, maxLength: 2 }), { nil: null }),
  symbol: text,
  side: fc.constantFrom(null, 'BUY' as const),
  submittedAfter: text,
  submittedBefore: text,
  olderThan: fc.option(fc.record({ at: fc.string({ maxLength: 3 }), ids: fc.array(fc.string({ maxLength: 2 })) }), {
    nil: null,
  }),
  after: text,
  first: fc.integer({ min: 1, max: 3 }),
  wantsMore: fc.boolean(),
})

it('gives equal queries one key, and queries that differ in any field two', () => {
  fc.assert(
    fc.property(query, query, (a, b) => {
      expect(toKey(structuredClone(a))).toBe(toKey(a))
      for (const field of Object.keys(a) as (keyof PageQuery)[]) {
        const changed = { ...a, [field]: b[field] }
        const isEqual = JSON.stringify(a[field]) === JSON.stringify(b[field])
        expect(toKey(changed) === toKey(a), field).toBe(isEqual)
      }
    }),
  )
})
