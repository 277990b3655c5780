// What a person does beside the service, with the command itself: on a store as a service left it, and on one that a
// service has open.

import { readFileSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/domain/clock.ts'
import { createPlacement } from '../../src/trading/placement/placement.ts'
import type { Placement, PlacementEvent } from '../../src/trading/placement/placement.ts'
import { createRecords } from '../../src/trading/records.ts'
import { openSqliteStore } from '../../src/store/sqlite/sqliteStore.ts'
import { runBlotter } from '../command.ts'
import type { Ended } from '../command.ts'
import { limitBuy, startForTest } from '../harness.ts'
import type { Harness } from '../harness.ts'

/** What the command is asked of the store in `dataDir`. */
function ask(dataDir: string, ...args: string[]): Promise<Ended> {
  return runBlotter(args, { env: { DATA_DIR: dataDir } })
}

function toOpId(n: number): string {
  return `0198c0de-${n.toString(16).padStart(4, '0')}-7000-8000-000000000000`
}

function create(n: number, change: Partial<Placement> = {}): Placement {
  const accountId = 'acc-1'
  const clientOrderId = `desk-key-${n}`
  const request = {
    accountId,
    clientOrderId,
    symbol: 'AAPL',
    side: 'BUY' as const,
    type: 'LIMIT' as const,
    timeInForce: 'GTC' as const,
    quantity: '10',
    notional: null,
    limitPrice: '187.50',
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    commission: null,
    commissionType: null,
    ...change.request,
  }
  const at = Date.UTC(2026, 2, 1, 12)
  const made = { opId: toOpId(n), broker: 'BLUUM' as const, owner: 'gone', sendBy: at + 30_000, at }
  return {
    ...createPlacement(request, made),
    ...change,
    request,
  }
}

const sending: PlacementEvent = {
  type: 'sending',
  attempt: 1,
  preImage: { orderIds: ['ord_before'], isComplete: true },
}
const lost: PlacementEvent = { type: 'lost', attempt: 1, failure: { kind: 'no_answer', status: null } }
const ambiguous: PlacementEvent = { type: 'ambiguous', candidates: ['ord_a', 'ord_b'] }
const absent: PlacementEvent = { type: 'absent', emptyScans: 3, nextCheckAt: Date.UTC(2026, 2, 1, 13) }
const refused: PlacementEvent = {
  type: 'rejected',
  outcome: { kind: 'rejected', code: 'INSUFFICIENT_FUNDS', brokerCode: 'BLUM-422-001', reason: 'Not enough cash.' },
  orderId: null,
  foundBy: null,
}
const stopped: PlacementEvent = {
  type: 'not_sent',
  attempt: 1,
  outcome: { kind: 'not_sent', code: 'SHUTTING_DOWN', message: '', retrySameKey: true, retryAfterMs: null },
  left: false,
}

function accepted(orderId: string): PlacementEvent {
  return { type: 'accepted', orderId, foundBy: 'RESPONSE' }
}

/** A store in which each entry is a placement with what happened to it, numbered from 1; its directory. */
async function fill(...histories: PlacementEvent[][]): Promise<string> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-operator-'))
  onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
  const store = openSqliteStore({ file: join(dataDir, 'placements.sqlite'), role: 'service', mayCreate: true })
  const records = createRecords(store, systemClock, () => {})
  for (const [index, events] of histories.entries()) {
    let placement = create(index + 1)
    await records.insert(placement, [], 'caller')
    for (const event of events) placement = await records.change(placement, event)
  }
  await store.close()
  return dataDir
}

const unknown = [sending, lost]

/** What the store holds of a placement: how it stands, and its last audit row. */
async function inspect(dataDir: string, opId: string) {
  const store = openSqliteStore({ file: join(dataDir, 'placements.sqlite'), role: 'operator', mayCreate: false })
  const placement = await store.read(opId)
  const last = (await store.readAudit(opId)).at(-1)
  await store.close()
  return { placement, last }
}

describe('blotter placements', () => {
  it('lists what is not resolved, and nothing else', async () => {
    const dataDir = await fill(
      [],
      [sending],
      unknown,
      [...unknown, ambiguous],
      [...unknown, absent],
      [sending, accepted('ord_1'), { type: 'cancel_requested' }],
      // Settled, each in its way.
      [sending, accepted('ord_2')],
      [sending, refused],
      [stopped],
      [...unknown, absent, { type: 'checked', nextCheckAt: null }],
    )
    const { code, out, err } = await ask(dataDir, 'placements')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const [head, ...rows] = out.trimEnd().split('\n')
    expect(head).toMatch(
      /^placement +state +broker +account +client order id +order +sent +next lookup +cancel requested +candidates$/,
    )
    expect(rows.map((row) => row.split(/ {2,}/).slice(0, 2))).toEqual(
      ['RESERVED', 'SENDING', 'UNKNOWN', 'AMBIGUOUS', 'NOT_PLACED', 'ACCEPTED'].map((state, index) => [
        toOpId(index + 1),
        state,
      ]),
    )
    expect(rows[3]).toMatch(/ BLUUM +acc-1 +desk-key-4 +BUY 10 AAPL LIMIT 187\.50 GTC +2\S+Z +ord_a ord_b$/)
    expect(rows[4]).toContain('2026-03-01T13:00:00.000Z')
    expect(rows[5]).toMatch(/ 2\S+Z +2\S+Z$/)
  })

  it('prints them as JSON lines, as they are kept', async () => {
    const dataDir = await fill([sending, accepted('ord_1')], unknown, [...unknown, ambiguous])
    const { code, out } = await ask(dataDir, 'placements', '--json')
    expect(code).toBe(0)
    const placements = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Placement)
    expect(placements.map(({ opId, state }) => [opId, state])).toEqual([
      [toOpId(2), 'UNKNOWN'],
      [toOpId(3), 'AMBIGUOUS'],
    ])
    expect(placements[0]?.request).toMatchObject({ symbol: 'AAPL', quantity: '10' })
  })

  it('shows more than one read of the store gives', async () => {
    const dataDir = await fill(...Array.from({ length: 450 }, () => []))
    expect((await ask(dataDir, 'placements')).out.trimEnd().split('\n')).toHaveLength(451)
    expect((await ask(dataDir, 'placements', '--json')).out.trimEnd().split('\n')).toHaveLength(450)
  })

  it('says that nothing is unresolved', async () => {
    const dataDir = await fill([sending, accepted('ord_1')])
    expect(await ask(dataDir, 'placements')).toEqual({ code: 0, out: 'Nothing is unresolved.\n', err: '' })
    expect(await ask(dataDir, 'placements', '--json')).toEqual({ code: 0, out: '', err: '' })
  })

  it('never makes a store', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'blotter-operator-'))
    onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
    for (const args of [['placements'], ['audit', 'verify'], ['placements', 'show', 'x']]) {
      const { code, out, err } = await ask(dataDir, ...args)
      expect({ code, out }).toEqual({ code: 1, out: '' })
      expect(err).toMatch(/^there is no store at .*: set DATA_DIR to where it is\n$/)
    }
  })
})

describe('blotter placements show', () => {
  it('shows one with its audit, by its id or by its key', async () => {
    const dataDir = await fill([...unknown, ambiguous])
    const { code, out } = await ask(dataDir, 'placements', 'show', toOpId(1))
    expect(code).toBe(0)
    expect(out).toMatch(/^state +AMBIGUOUS$/m)
    expect(out).toMatch(/^order +BUY 10 AAPL LIMIT 187\.50 GTC$/m)
    expect(out).toMatch(/^evidence +.*"candidates":\["ord_a","ord_b"\]/m)
    expect(out).toMatch(/^seen before +1 orders$/m)
    expect(out).toMatch(/^1 +2\S+Z +caller +RESERVED +\{"event":"created","acknowledged":\[\]\}$/m)
    expect(out).toMatch(/^2 +2\S+Z +service +RESERVED → SENDING +\{"event":"sending"/m)
    expect(out).toMatch(/^4 +2\S+Z +service +UNKNOWN → AMBIGUOUS +\{"event":"ambiguous"/m)
    expect((await ask(dataDir, 'placements', 'show', 'acc-1', 'desk-key-1')).out).toBe(out)
  })

  it('shows what is left of one that expired', async () => {
    const dataDir = await fill([sending, accepted('ord_1')])
    const store = openSqliteStore({ file: join(dataDir, 'placements.sqlite'), role: 'service', mayCreate: false })
    await store.expire(Date.now() + 1_000, 0, 10)
    await store.close()
    const { code, out } = await ask(dataDir, 'placements', 'show', 'acc-1', 'desk-key-1')
    expect(code).toBe(0)
    expect(out).toMatch(/^state +expired/m)
    expect(out).toMatch(/^broker's order +ord_1$/m)
    expect(out).toMatch(/^3 .*SENDING → ACCEPTED/m)
  })

  it('says that no placement is unresolved', async () => {
    const dataDir = await fill()
    const byId = await ask(dataDir, 'placements', 'show', toOpId(7))
    expect(byId).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringContaining(`There is no placement ${toOpId(7)}.`),
    })
    const byKey = await ask(dataDir, 'placements', 'show', 'acc-1', 'desk-key-7')
    expect(byKey).toMatchObject({ code: 1, out: '', err: expect.stringContaining('client order id desk-key-7') })
  })
})

describe('blotter placements resolve', () => {
  it('binds an order, whether nothing was found, too much, or nothing in time', async () => {
    const dataDir = await fill(unknown, [...unknown, ambiguous], [...unknown, absent])
    for (const [index, state] of ['UNKNOWN', 'AMBIGUOUS', 'NOT_PLACED'].entries()) {
      const opId = toOpId(index + 1)
      const order = ['ord_x', 'ord_a', 'ord_y'][index] ?? ''
      const { code, out } = await ask(dataDir, 'placements', 'resolve', opId, '--order', order, '--by', 'Ada Lovelace')
      expect(code).toBe(0)
      expect(out).toBe(
        `Placement ${opId} was ${state} and is ACCEPTED now, order ${order}, on the word of Ada Lovelace.\n`,
      )
      expect(await inspect(dataDir, opId)).toMatchObject({
        placement: { state: 'ACCEPTED', orderId: order, foundBy: 'OPERATOR', nextCheckAt: null },
        last: { principal: 'operator', detail: { event: 'resolved', orderId: order, by: 'Ada Lovelace' } },
      })
    }
    expect((await ask(dataDir, 'placements')).out).toBe('Nothing is unresolved.\n')
    expect((await ask(dataDir, 'audit', 'verify')).code).toBe(0)
  })

  it('lets one of two people decide', async () => {
    const dataDir = await fill(unknown)
    const resolve = (order: string) =>
      ask(dataDir, 'placements', 'resolve', toOpId(1), '--order', order, '--by', `who chose ${order}`)
    const ended = await Promise.all([resolve('ord_a'), resolve('ord_b')])
    expect(ended.map(({ code }) => code).toSorted()).toEqual([0, 1])
    const winner = ended[0].code === 0 ? 'ord_a' : 'ord_b'
    const { placement, last } = await inspect(dataDir, toOpId(1))
    expect(placement).toMatchObject({ orderId: winner, version: 4 })
    expect(last?.detail).toMatchObject({ by: `who chose ${winner}` })
  })

  it('settles as never placed', async () => {
    const dataDir = await fill(unknown, [...unknown, ambiguous])
    for (const [index, state] of ['UNKNOWN', 'AMBIGUOUS'].entries()) {
      const opId = toOpId(index + 1)
      const { code, out } = await ask(dataDir, 'placements', 'resolve', opId, '--never-placed', '--by', 'ada')
      expect(code).toBe(0)
      expect(out).toBe(`Placement ${opId} was ${state} and is NOT_PLACED now, without an order, on the word of ada.\n`)
    }
    expect((await ask(dataDir, 'placements')).out).toBe('Nothing is unresolved.\n')
  })

  it('warns if the order is not one of the candidates, or if a cancel waits', async () => {
    const dataDir = await fill([...unknown, ambiguous, { type: 'cancel_requested' }])
    const { code, out } = await ask(dataDir, 'placements', 'resolve', toOpId(1), '--order', 'ord_c', '--by', 'ada')
    expect(code).toBe(0)
    expect(out).toContain('The order is not one of the candidates: ord_a, ord_b.')
    expect(out).toContain('cancel the order now')
  })

  it('changes nothing of one whose outcome is known, or soon will be', async () => {
    const dataDir = await fill([], [sending], [stopped], [sending, accepted('ord_1')], [sending, refused])
    const answers = [
      'is RESERVED: the service is about to know more',
      'is SENDING: the service is about to know more',
      'is settled: NOT_SENT.',
      'is settled: ACCEPTED, order ord_1.',
      'is settled: REJECTED.',
    ]
    for (const [index, words] of answers.entries()) {
      const opId = toOpId(index + 1)
      const before = await inspect(dataDir, opId)
      const how = index % 2 === 0 ? ['--order', 'ord_9'] : ['--never-placed']
      const { code, out, err } = await ask(dataDir, 'placements', 'resolve', opId, ...how, '--by', 'ada')
      expect({ code, out }).toEqual({ code: 1, out: '' })
      expect(err).toContain(words)
      expect(await inspect(dataDir, opId)).toEqual(before)
    }
  })

  it('refuses what is settled by now, another order, and what cannot be one', async () => {
    const dataDir = await fill([sending, accepted('ord_1')], unknown, [...unknown, absent])
    const resolve = (opId: string, ...how: string[]) =>
      ask(dataDir, 'placements', 'resolve', opId, ...how, '--by', 'ada')
    const bound = await resolve(toOpId(2), '--order', 'ord_1')
    expect(bound).toMatchObject({ code: 1, out: '' })
    expect(bound.err).toContain(
      `Order ord_1 belongs to placement ${toOpId(1)} of account acc-1, client order id desk-key-1`,
    )
    const strange = await resolve(toOpId(2), '--order', 'aries:acc:1')
    expect(strange).toMatchObject({ code: 1, out: '', err: expect.stringContaining('cannot be an order of BLUUM') })
    const absentAlready = await resolve(toOpId(3), '--never-placed')
    expect(absentAlready).toMatchObject({ code: 1, out: '' })
    expect(absentAlready.err).toContain('counts as not placed already; the next lookup is at 2026-03-01T13:00:00.000Z')
    expect(await resolve(toOpId(4), '--never-placed')).toMatchObject({ code: 1, out: '' })
    expect((await resolve(toOpId(2), '--order', 'ord_2')).code).toBe(0)
    const again = await resolve(toOpId(2), '--order', 'ord_2')
    expect(again).toMatchObject({ code: 1, out: '', err: expect.stringContaining('is settled: ACCEPTED, order ord_2') })
  })

  it.each([
    [['a', 'b'], 'Name the PLACEMENT.'],
    [['a', '--by', 'ada'], 'Give either --order ORDER or --never-placed.'],
    [['a', '--order', 'x', '--never-placed', '--by', 'ada'], 'Give either --order ORDER or --never-placed.'],
    [['a', '--order', 'x'], 'Give --by NAME: who decides it.'],
    [['a', '--order', 'x', '--by', 'a\u0007b'], '--by takes a name of at most 100 characters.'],
    [['a', '--force'], "Unknown option '--force'."],
  ])('refuses %j', async (args, words) => {
    expect(await ask('/nowhere', 'placements', 'resolve', ...args)).toEqual({ code: 1, out: '', err: `${words}\n` })
  })
})

describe('blotter audit verify', () => {
  it('E12 passes, and names the row in which a byte was changed', async () => {
    const dataDir = await fill([sending, accepted('ord_1')], [...unknown, ambiguous], [])
    expect(await ask(dataDir, 'audit', 'verify')).toEqual({
      code: 0,
      out: 'The audit is whole: 3 placements, 8 audit rows.\n',
      err: '',
    })
    const file = join(dataDir, 'placements.sqlite')
    const bytes = readFileSync(file)
    // A word of a detail, which stands nowhere else in the file.
    const at = bytes.indexOf('"event":"lost"')
    expect(at).toBeGreaterThan(0)
    bytes[at + 9] = (bytes[at + 9] ?? 0) ^ 1
    writeFileSync(file, bytes)
    const { code, out, err } = await ask(dataDir, 'audit', 'verify')
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err).toMatch(`The audit is broken at placement ${toOpId(2)}, audit row 3: the row was changed.`)
  })

  it('tells a record that was changed behind the audit', async () => {
    const dataDir = await fill(unknown)
    const file = join(dataDir, 'placements.sqlite')
    const bytes = readFileSync(file)
    const at = bytes.indexOf('"limitPrice":"187.50"')
    bytes.write('9', at + 14)
    writeFileSync(file, bytes)
    const { code, err } = await ask(dataDir, 'audit', 'verify')
    expect(code).toBe(1)
    expect(err).toContain(`placement ${toOpId(1)}, its record: the record was changed.`)
  })
})

describe('during a running service', () => {
  const place = 'mutation P($input: PlaceOrderInput!) { placeOrder(input: $input) { __typename } }'
  const read = `query ($accountId: ID!, $key: ID!) {
    placement(accountId: $accountId, clientOrderId: $key) { state foundBy orderId }
  }`

  /** A service that has lost the answer to an order, and does not look for it before the test is over. */
  async function startAndLose(fault: object): Promise<{ harness: Harness; key: string }> {
    const harness = await startForTest({ PLACE_LOOKUP_MS: '3600000', PLACE_REPLY_MS: '100' })
    await harness.setRules({ match: { method: 'POST' }, fault })
    const input = limitBuy(harness)
    const { data } = await harness.run(place, { input })
    expect(data.placeOrder.__typename).toBe('OrderOutcomeUnknown')
    return { harness, key: input.clientOrderId }
  }

  async function findOpId({ dataDir }: Harness): Promise<string> {
    const { out } = await ask(dataDir, 'placements', '--json')
    return (JSON.parse(out) as Placement).opId
  }

  it('shows what is unresolved, and what a person decides is what the service tells from then on', async () => {
    const { harness, key } = await startAndLose({ kind: 'rstAfterCommit' })
    const opId = await findOpId(harness)
    const [order] = await harness.book()
    const orderId = String(order?.['id'])
    const { code } = await ask(harness.dataDir, 'placements', 'resolve', opId, '--order', orderId, '--by', 'ada')
    expect(code).toBe(0)
    const { data } = await harness.run(read, { accountId: harness.accountId, key })
    expect(data.placement).toEqual({ state: 'PLACED', foundBy: 'OPERATOR', orderId })
    expect((await ask(harness.dataDir, 'audit', 'verify')).out).toContain('The audit is whole: 1 placements')
  })

  it('settles as never placed what the broker never got', async () => {
    const { harness, key } = await startAndLose({ kind: 'rstAfterRead' })
    const opId = await findOpId(harness)
    expect((await ask(harness.dataDir, 'placements', 'resolve', opId, '--never-placed', '--by', 'ada')).code).toBe(0)
    const { data } = await harness.run(read, { accountId: harness.accountId, key })
    expect(data.placement).toEqual({ state: 'NOT_PLACED', foundBy: null, orderId: null })
    expect((await ask(harness.dataDir, 'placements')).out).toBe('Nothing is unresolved.\n')
  })
})

describe('blotter', () => {
  it.each([
    [['serve', '--port', '1'], "Unknown option '--port'."],
    [['check-config', 'now'], 'This command takes options only.'],
    [['placements', 'list'], 'This command takes options only.'],
    [['placements', 'show'], 'Name PLACEMENT, or ACCOUNT CLIENT_ORDER_ID.'],
    [['audit', 'check'], 'The command is audit verify.'],
    [['certify', 'AAPL'], 'This command takes options only.'],
  ])('refuses %j', async (args, words) => {
    expect(await ask('/nowhere', ...args)).toEqual({ code: 1, out: '', err: `${words}\n` })
  })
})
