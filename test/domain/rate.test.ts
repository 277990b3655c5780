// How often a caller may ask, and an account be placed for. Nobody takes from the others what all of them share.

import { describe, expect, it } from 'vitest'
import { createRate } from '../../src/domain/rate.ts'
import { limitBuy, startForTest } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'
import { all, sign, tokenEnv } from '../issuer.ts'

describe('a rate', () => {
  const start = (perSecond: number, burst: number) => {
    let at = 5_000
    const rate = createRate(perSecond, burst, { monotonic: () => at })
    return { take: rate.take, pass: (ms: number) => void (at += ms) }
  }

  it('allows a burst at once, and then its rate per second', () => {
    const { take, pass } = start(20, 40)
    const takeMany = (count: number) => Array.from({ length: count }, () => take('a')).filter((ms) => ms === 0).length
    expect(takeMany(100)).toBe(40)
    pass(1_000)
    expect(takeMany(100)).toBe(20)
    pass(60_000)
    expect(takeMany(100)).toBe(40)
  })

  it('returns the wait to the millisecond', () => {
    const { take, pass } = start(5, 1)
    expect(take('a')).toBe(0)
    expect(take('a')).toBe(200)
    pass(199)
    expect(take('a')).toBe(1)
    pass(1)
    expect(take('a')).toBe(0)
  })

  it('takes nothing if it refuses, so that a caller that repeats is not refused without end', () => {
    const { take, pass } = start(1, 1)
    expect(take('a')).toBe(0)
    for (let asked = 0; asked < 1_000; asked++) expect(take('a')).toBe(1_000)
    pass(1_000)
    expect(take('a')).toBe(0)
  })

  it('counts each key separately', () => {
    const { take } = start(1, 1)
    expect([take('a'), take('b'), take('a'), take('b')]).toEqual([0, 0, 1_000, 1_000])
  })

  it('remembers a bounded number of keys', () => {
    const { take } = start(1, 1)
    for (let index = 0; index < 10_001; index++) expect(take(`key ${index}`)).toBe(0)
    expect(take('key 10000')).toBe(1_000)
    expect(take('key 0')).toBe(0)
  })
})

const read = '{ tradingAccounts { id } }'
const cancel = 'mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) { outcome } }'
const place = `mutation ($input: PlaceOrderInput!) {
  placeOrder(input: $input) {
    __typename outcome ... on OrderPlaced { replayed } ... on OrderNotPlaced { notPlacedCode certainty retrySameKey retryAfterMs }
  }
}`

const codesOf = ({ errors }: Answer): unknown[] => (errors ?? []).map(({ extensions }) => extensions['code'])

async function askAs(harness: Harness, subject: string, query: string, variables: object = {}): Promise<Answer> {
  return await harness.run(query, variables, { authorization: `Bearer ${await sign({ ...all, sub: subject })}` })
}

describe('a caller above its rate', () => {
  it('D10 is refused with the time to wait, before the document is parsed, and other callers are not', async () => {
    const harness = await startForTest({ ...tokenEnv, LIMIT_OPERATIONS_PER_SECOND: '1' })
    const flood = await Promise.all(Array.from({ length: 50 }, () => askAs(harness, 'flooder', read)))
    const refused = flood.filter(({ status }) => status === 429)
    expect(refused.length).toBeGreaterThan(0)
    expect(flood.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(2)
    for (const { data, errors, headers } of refused) {
      expect(data).toBeUndefined()
      expect(errors).toMatchObject([{ message: expect.stringMatching(/^You ask too often: wait \d+ ms/) }])
      const { code, retryAfterMs } = errors?.[0]?.extensions ?? {}
      expect(code).toBe('RATE_LIMITED')
      expect(retryAfterMs).toBeGreaterThan(0)
      expect(retryAfterMs).toBeLessThanOrEqual(1_000)
      expect(headers.get('retry-after')).toBe('1')
    }
    const other = await askAs(harness, 'another', read)
    expect([other.status, codesOf(other)]).toEqual([200, []])
    const [junk] = await Promise.all(Array.from({ length: 20 }, () => askAs(harness, 'flooder', '{ nonsense')))
    expect(junk && codesOf(junk)).toEqual(['RATE_LIMITED'])
  })

  it('can still cancel, but cannot read in a document that cancels', async () => {
    const harness = await startForTest({ ...tokenEnv, LIMIT_OPERATIONS_PER_SECOND: '1' })
    const orderId = harness.sandbox.demo.openOrderId
    await Promise.all(Array.from({ length: 50 }, () => askAs(harness, 'flooder', read)))
    const disguised = await Promise.all(
      Array.from({ length: 10 }, () => askAs(harness, 'flooder', `# cancelOrder\n${read}`)),
    )
    expect(disguised.flatMap(codesOf)).toContain('RATE_LIMITED')
    expect(disguised.every(({ data }) => !data?.tradingAccounts)).toBe(true)
    const another = await startForTest({ ...tokenEnv, LIMIT_OPERATIONS_PER_SECOND: '1' })
    await Promise.all(Array.from({ length: 50 }, () => askAs(another, 'flooder', read)))
    const canceled = await askAs(another, 'flooder', cancel, { input: { orderId } })
    expect(canceled.data).toEqual({ cancelOrder: { outcome: 'CANCELED' } })
  })

  it('is not refused without authentication, unless a limit is set', async () => {
    const free = await startForTest()
    const answers = await Promise.all(Array.from({ length: 100 }, () => free.run('{ __typename }')))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    const limited = await startForTest({ LIMIT_OPERATIONS_PER_SECOND: '1' })
    const some = await Promise.all(Array.from({ length: 20 }, () => limited.run('{ __typename }')))
    expect(some.flatMap(codesOf)).toContain('RATE_LIMITED')
  })
})

describe('an account above its rate of placements', () => {
  it('gets no more orders than its limit, and proof that the others were not placed', async () => {
    const harness = await startForTest({ LIMIT_PLACEMENTS_PER_SECOND: '1' })
    const inputs = Array.from({ length: 10 }, (_, index) => limitBuy(harness, { limitPrice: `${index + 1}.00` }))
    const placed = (await Promise.all(inputs.map((input) => harness.run(place, { input })))).map(
      ({ data }) => data.placeOrder as Record<string, unknown>,
    )
    const refused = inputs.filter((_, index) => placed[index]?.['outcome'] === 'NOT_PLACED')
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.length).toBeLessThan(10)
    for (const result of placed.filter(({ outcome }) => outcome === 'NOT_PLACED')) {
      expect(result).toEqual({
        __typename: 'OrderNotPlaced',
        outcome: 'NOT_PLACED',
        notPlacedCode: 'RATE_LIMITED',
        certainty: 'PROVEN',
        retrySameKey: true,
        retryAfterMs: expect.any(Number),
      })
      expect(result['retryAfterMs']).toBeLessThanOrEqual(1_000)
    }
    const posts = (await harness.calls()).filter(({ method }) => method === 'POST')
    expect(posts).toHaveLength(inputs.length - refused.length)
    // Nothing was recorded of what was refused.
    const asking =
      'query ($accountId: ID!, $key: ID!) { placement(accountId: $accountId, clientOrderId: $key) { state } }'
    for (const { accountId, clientOrderId } of refused) {
      expect((await harness.run(asking, { accountId, key: clientOrderId })).data).toEqual({ placement: null })
    }

    // Repeats are free, and so is another account.
    const [first] = inputs.filter((_, index) => placed[index]?.['outcome'] === 'PLACED')
    const repeats = await Promise.all(Array.from({ length: 20 }, () => harness.run(place, { input: first })))
    expect(repeats.map(({ data }) => [data.placeOrder.outcome, data.placeOrder.replayed])).toEqual(
      repeats.map(() => ['PLACED', true]),
    )
    const elsewhere = limitBuy(harness, { accountId: harness.sandbox.accounts[1] })
    expect((await harness.run(place, { input: elsewhere })).data.placeOrder.outcome).toBe('PLACED')
  })

  it('can place again with the same client order id', async () => {
    const harness = await startForTest({ LIMIT_PLACEMENTS_PER_SECOND: '1' })
    const [first, second] = [limitBuy(harness), limitBuy(harness, { limitPrice: '1.00' })]
    const placing = async (input: object): Promise<string> =>
      (await harness.run(place, { input })).data.placeOrder.outcome
    await Promise.all([placing(first), placing(second)])
    for (const input of [first, second])
      await expect.poll(async () => await placing(input), { timeout: 10_000 }).toBe('PLACED')
  })
})
