// What the log tells an operator: one line per change, however many calls meet it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { createCredentialWatch } from '../../src/upstream/notices.ts'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

interface Line {
  level: string
  msg: string
  [field: string]: unknown
}

const lines = (harness: Harness, about: RegExp): Line[] =>
  harness
    .log()
    .map((line) => JSON.parse(line) as Line)
    .filter(({ msg }) => about.test(msg))

async function read(harness: Harness, times: number, accountId = harness.accountId): Promise<void> {
  const query = 'query ($id: ID!) { orders(accountId: $id, first: 1) { nodes { id } } }'
  for (let count = 0; count < times; count++) await harness.run(query, { id: accountId })
}

const down = { match: { method: 'GET' }, fault: { kind: 'status', status: 503, body: 'down' } }

describe('a broker that fails', () => {
  it('is a warning once, however many reads fail', async () => {
    const harness = await startHarness()
    onTestFinished(() => harness.close())
    await harness.setRules(down)
    await read(harness, 41)
    const told = lines(harness, /breaker/)
    expect(told).toEqual([
      expect.objectContaining({
        level: 'warn',
        broker: 'BLUUM',
        calls: 'reads',
        reason: 'failed',
        openMs: expect.any(Number),
        msg: 'the breaker for reads opened: calls stop for a while',
      }),
    ])
  })
})

describe('a credential that the broker refuses', () => {
  const bluum401 = { code: 'BLUM-401-005', message: 'Key has expired.' }
  const aries401 = { error: 'unauthorized', message: 'Token has been revoked.' }
  let harness: Harness

  beforeAll(async () => {
    harness = await startHarness({ BREAKER: 'off' })
  })
  afterAll(() => harness.close())
  afterEach(() => harness.setRules())

  const places = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }'
  const refuse = (body: object) => ({ match: {}, fault: { kind: 'status', status: 401, body } })

  it.each([
    ['BLUUM', 'HTTP 401 BLUM-401-005', bluum401],
    // A token that is refused right after its issue is replaced once, and the token address refuses as well.
    ['ARIES', 'the broker gives no token: HTTP 401', aries401],
  ])('at %s is an alarm once, and one line when it is accepted again', async (broker, reason, body) => {
    const accountId = broker === 'BLUUM' ? harness.accountId : `aries:${harness.sandbox.aries.accounts[0]}`
    const own = (about: RegExp): Line[] => lines(harness, about).filter((line) => line['broker'] === broker)
    await read(harness, 1, accountId)
    await harness.setRules(refuse(body))
    await read(harness, 5, accountId)
    await harness.run(places, { input: limitBuy(harness, { accountId }) })
    expect(own(/credential/)).toEqual([
      expect.objectContaining({
        level: 'error',
        reason,
        msg: expect.stringMatching(/^ALARM: the broker refuses our credential/),
      }),
    ])
    await harness.setRules()
    await read(harness, 3, accountId)
    expect(own(/credential/).slice(1)).toEqual([
      expect.objectContaining({
        level: 'warn',
        refusedMs: expect.any(Number),
        msg: 'the broker accepts our credential again',
      }),
    ])
  })

  it('that only some replicas of a broker refuse is an alarm once a minute', () => {
    let at = 0
    const told: string[] = []
    const watch = createCredentialWatch(
      (message) => told.push(message.slice(0, 27)),
      () => at,
    )
    for (at = 0; at < 120_000; at += 1_000) {
      watch.refused('HTTP 401')
      watch.accepted()
    }
    const pair = ['ALARM: the broker refuses o', 'the broker accepts our cred']
    expect(told).toEqual([...pair, ...pair])
  })

  it('raises the same alarm at the token address, and none for an expired token', async () => {
    const sandbox = await startSandbox({ stateFile: ':memory:', seed: 'tokens' })
    onTestFinished(() => sandbox.close())
    const { url, clientId, clientSecret, tradingId } = sandbox.aries
    const env = {
      ARIES_URL: url,
      ARIES_CLIENT_ID: clientId,
      ARIES_CLIENT_SECRET: clientSecret,
      ARIES_REFRESH_TOKEN: 'refresh_that_is_not_known',
      ARIES_TRADING_ID: tradingId,
      AUTH: 'none',
    }
    const wrong = await startHarness(env, sandbox)
    onTestFinished(() => wrong.close())
    await read(wrong, 4, `aries:${sandbox.aries.accounts[0]}`)
    expect(lines(wrong, /credential/)).toEqual([
      expect.objectContaining({ level: 'error', broker: 'ARIES', reason: 'the broker gives no token: HTTP 401' }),
    ])
    const accountId = `aries:${harness.sandbox.aries.accounts[0]}`
    const before = lines(harness, /credential/).length
    await read(harness, 1, accountId)
    await harness.control('POST', '/tokens/expire')
    await read(harness, 2, accountId)
    expect(lines(harness, /credential/)).toHaveLength(before)
  })
})

describe('placements without an outcome', () => {
  const place = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }'
  const find = 'query ($a: ID!, $k: ID!) { placement(accountId: $a, clientOrderId: $k) { state } }'
  const counts = (harness: Harness): unknown[] =>
    lines(harness, /^placements without an outcome$/).map(({ level, unresolved }) => [level, unresolved])
  const lose = { match: { method: 'POST', path: '/orders$' }, fault: { kind: 'rstAfterCommit' } }

  it('are counted at the start, when there are more or fewer, and at the stop; and each resolution is a line', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'blotter-operations-'))
    onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
    const sandbox: Sandbox = await startSandbox({ stateFile: ':memory:', seed: 'operations' })
    onTestFinished(() => sandbox.close())
    const env = {
      BLUUM_URL: sandbox.url,
      BLUUM_API_KEY: sandbox.apiKey,
      BLUUM_API_SECRET: sandbox.apiSecret,
      BLUUM_REQUESTS_PER_SECOND: '1000',
      AUTH: 'none',
      BREAKER: 'off',
      DATA_DIR: dataDir,
      PLACE_REPLY_MS: '100',
      PLACE_LOOKUP_MS: '50,100,200,400,800,1200',
      SHUTDOWN_MS: '2000',
    }
    const first = await startHarness(env, sandbox)
    expect(counts(first)).toEqual([['info', 0]])
    await first.setRules(lose, down)
    const inputs = ['3', '5', '7'].map((quantity) => limitBuy(first, { quantity }))
    const placed = await Promise.all(inputs.map(async (input) => (await first.run(place, { input })).data.placeOrder))
    expect(placed).toEqual(inputs.map(() => ({ outcome: 'UNKNOWN' })))
    // The first one at once, the others together a second later.
    await expect
      .poll(() => counts(first), { timeout: 5_000 })
      .toEqual([
        ['info', 0],
        ['warn', 1],
        ['warn', 3],
      ])
    await first.close()
    expect(lines(first, /^(stopping|stopped)$/)).toMatchObject([
      { level: 'info', unresolved: 3, reason: 'close', msg: 'stopping' },
      { level: 'info', unresolved: 3, reason: 'close', ms: expect.any(Number), msg: 'stopped' },
    ])

    const second = await startHarness(env, sandbox)
    onTestFinished(() => second.close())
    expect(counts(second)).toEqual([['warn', 3]])
    await second.setRules()
    const resolved = (): Line[] => lines(second, /reported as unknown is resolved/)
    await expect.poll(() => resolved().length, { timeout: 10_000 }).toBe(3)
    for (const line of resolved()) {
      expect(line).toMatchObject({
        level: 'info',
        placement: expect.stringMatching(/^[0-9a-f-]{36}$/),
        broker: 'BLUUM',
        outcome: 'PLACED',
        foundBy: 'CLIENT_ORDER_ID',
        afterMs: expect.any(Number),
      })
    }
    await expect.poll(() => counts(second).at(-1), { timeout: 5_000 }).toEqual(['info', 0])
    expect(counts(second).length).toBeLessThanOrEqual(3)
    for (const { clientOrderId } of inputs) {
      const { data } = await second.run(find, { a: second.accountId, k: clientOrderId })
      expect(data.placement.state).toBe('PLACED')
      expect(second.log().join('')).not.toContain(clientOrderId)
    }
  })

  it('that no caller got as unknown are resolved without a line', async () => {
    const harness = await startHarness({ PLACE_LOOKUP_MS: '20,100' })
    onTestFinished(() => harness.close())
    await harness.setRules({ ...lose, match: { ...lose.match, times: 1 } })
    expect((await harness.run(place, { input: limitBuy(harness) })).data.placeOrder.outcome).toBe('PLACED')
    expect(lines(harness, /reported as unknown is resolved/)).toEqual([])
  })
})
