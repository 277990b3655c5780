// The real commands over the real store, in a world where everything goes wrong that may; see simulation/. A seed that
// fails prints itself and what happened last; `node test/simulation/run.ts 1 <seed>` tells all of it.

import { describe, expect, test } from 'vitest'

import type { Sabotage } from './simulation/plan.ts'
import { simulate } from './simulation/run.ts'
import { Violation } from './simulation/world.ts'

// Seeds that have failed once, each with what it had found. They mean what they did for as long as plan.ts stays as it is.
const failedOnce: number[] = []

async function findBroken(seed: number, sabotage: Sabotage): Promise<number | null> {
  try {
    await simulate(seed, sabotage)
    return null
  } catch (error) {
    if (error instanceof Violation) return error.invariant
    throw error
  }
}

describe('in a world where everything goes wrong that may', () => {
  test('two hundred histories keep every promise', async () => {
    for (let seed = 1; seed <= 200; seed++) await simulate(seed)
  })

  test.each(failedOnce)('so does seed %i, which did not always', async (seed) => {
    await simulate(seed)
  })

  test('the same seed is the same history, to the last line', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const [first, second] = [await simulate(seed), await simulate(seed)]
      expect(second.hash).toBe(first.hash)
      expect(second.counts).toEqual(first.counts)
    }
  })

  test.each<[Sabotage, string, number[]]>([
    ['forgets', 'a store that is empty after a crash', [1, 7]],
    ['late', 'a broker that takes orders in after the settle time', [4]],
    ['hasty', 'a service that waits for no settle time', [4]],
    ['fast', 'a clock an hour ahead of the broker', [4]],
    ['proof', 'a broker that refuses what it takes in', [3]],
    ['canceled', 'a broker that confirms a cancel and does nothing', [8]],
  ])('%s is noticed: %s', async (sabotage, _, invariants) => {
    const broken = new Set<number>()
    for (let seed = 1; seed <= 60; seed++) {
      const invariant = await findBroken(seed, sabotage)
      if (invariant !== null) broken.add(invariant)
      if (invariants.some((expected) => broken.has(expected))) return
    }
    expect.fail(`broken were only ${[...broken].join(', ')}`)
  })
})
