import { expect, it } from 'vitest'
import { createRefusalLog } from '../../src/server/refusals.ts'
import { limitBuy, startForTest } from '../harness.ts'

it('warns of each reason once a minute, with the number of suppressed lines, and logs all at debug', () => {
  const lines: object[] = []
  const note = (level: string) => (fields: object) => void lines.push({ level, ...fields })
  const log = { error: note('error'), warn: note('warn'), info: note('info'), debug: note('debug'), close: () => {} }
  let now = 0
  const noteRefusal = createRefusalLog(log, () => now)
  const byType = { reason: 'contentType', detail: 'the content-type text/html' } as const
  noteRefusal(byType, 'r1')
  noteRefusal(byType, 'r2')
  noteRefusal({ reason: 'field', detail: 'qty' }, 'r3')
  now = 60_000
  noteRefusal(byType, 'r4')
  expect(lines.filter((line) => 'level' in line && line.level === 'debug')).toHaveLength(4)
  expect(lines.filter((line) => 'level' in line && line.level === 'warn')).toEqual([
    { level: 'warn', requestId: 'r1', ...byType, suppressed: 0 },
    { level: 'warn', requestId: 'r3', reason: 'field', detail: 'qty', suppressed: 0 },
    { level: 'warn', requestId: 'r4', ...byType, suppressed: 1 },
  ])
})

it('logs why an answer or a field cannot be used, with the request id of the operation', async () => {
  const harness = await startForTest()
  const read = (): Promise<{ errors: unknown }> =>
    harness.run(
      'query ($id: ID!) { orders(accountId: $id, first: 2) { nodes { quantity } } }',
      { id: harness.accountId },
      { 'x-request-id': 'request-0001' },
    )
  const match = { method: 'GET', path: '/orders' }
  await harness.setRules({ match, fault: { kind: 'contentType', value: 'text/html' } })
  expect((await read()).errors).toBeDefined()
  await harness.setRules({ match, fault: { kind: 'setField', field: 'qty', value: 'many', row: 0 } })
  expect((await read()).errors).toBeDefined()
  const warned = harness.log().filter((line) => line.includes('"warn"') && line.includes('cannot be used'))
  expect(warned.map((line) => JSON.parse(line) as unknown)).toMatchObject([
    { requestId: 'request-0001', reason: 'contentType', detail: expect.stringContaining('text/html') },
    { requestId: 'request-0001', reason: 'field', detail: 'qty' },
  ])
})

it('logs why the answers to a placement and to lookups cannot be used', async () => {
  const harness = await startForTest({ PLACE_LOOKUP_MS: '20', PLACE_REPLY_MS: '300', BREAKER: 'off' })
  const warned = (): string[] =>
    harness
      .log()
      .filter((line) => line.includes('"warn"') && line.includes('cannot be used'))
      .map((line) => String((JSON.parse(line) as { reason: unknown }).reason))
  await harness.setRules(
    { match: { method: 'POST', path: '/orders$' }, fault: { kind: 'contentType', value: 'text/html' } },
    { match: { method: 'GET', path: '/orders' }, fault: { kind: 'invalidJson' } },
  )
  const place = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }'
  const { data } = await harness.run(place, { input: limitBuy(harness) })
  expect(data.placeOrder.outcome).toBe('UNKNOWN')
  expect(warned()).toEqual(expect.arrayContaining(['contentType', 'notJson']))
})
