// Looking for the order of a placement in a list that nobody promises to be sorted, and that moves: what is found, what
// it costs, and above all when the search may say that it has missed nothing.

import { setTimeout as delay } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { createBluum } from '../../src/brokers/bluum/bluum.ts'
import type { BluumOptions } from '../../src/brokers/bluum/bluum.ts'
import { brokerCapabilities } from '../../src/brokers/broker.ts'
import { UpstreamError } from '../../src/upstream/errors.ts'
import { createTally } from '../../src/upstream/readScope.ts'
import type { Broker, Scan, ScanQuery } from '../../src/brokers/broker.ts'
import type { ReadScope } from '../../src/upstream/readScope.ts'
import { PageCap } from '../../src/brokers/pageCap.ts'
import { scanList } from '../../src/brokers/offsetScan.ts'
import type { ScanResult } from '../../src/brokers/offsetScan.ts'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox } from '../../sandbox/server.ts'

const listOrders = ['newestFirst', 'oldestFirst'] as const
const always = '0000-01-01T00:00:00Z'

const timeOf = (second: number): string =>
  `${new Date(Date.UTC(2026, 0, 1) + second * 1_000).toISOString().slice(0, 19)}Z`

// ---- a list by script -------------------------------------------------------------------------------------------

interface Row {
  id: string
  /** In seconds. */
  at: number
  hasTime?: false
  isReadable?: false
}

interface Book {
  /** As the broker lists them. Changed by `between`. */
  rows: Row[]
  /** The offsets that were asked for. */
  offsets: number[]
  limit?: number
  /** The most rows of an answer, whatever was asked for. */
  cap?: number
  says?: boolean | 'hasMore'
  /** Before the second call and each after it, which is the one that many. */
  between?: (call: number) => void
}

/** Rows of one second each, `r0` the oldest. */
function createBook(count: number, order: (typeof listOrders)[number] = 'newestFirst', more: Partial<Book> = {}): Book {
  const rows = Array.from({ length: count }, (_, index) => ({ id: `r${index}`, at: index }))
  return { rows: order === 'newestFirst' ? rows.toReversed() : rows, offsets: [], ...more }
}

function scanBook(
  book: Book,
  given: { since?: string; isNewestFirst?: boolean; isWanted?: (row: Row) => boolean; cap?: PageCap } = {},
): Promise<ScanResult<Row>> {
  const { since = always, isNewestFirst = false, isWanted = () => true, cap = new PageCap() } = given
  return scanList<Row>({
    cap,
    async fetch(offset, limit) {
      if (book.offsets.push(offset) > 1) book.between?.(book.offsets.length)
      const end = offset + Math.min(limit, book.cap ?? limit)
      return {
        rows: book.rows.slice(offset, end).map((row) => ({
          id: row.id,
          at: row.hasTime === false ? null : timeOf(row.at),
          value: row.isReadable === false ? new UpstreamError('unreadable', 'garbage') : row,
        })),
        hasMore: book.says === 'hasMore' ? end < book.rows.length : (book.says ?? null),
      }
    },
    limit: book.limit ?? 100,
    callsMax: 20,
    doubtsEnd: false,
    since,
    isNewestFirst,
    isWanted,
  })
}

const idsOf = (rows: readonly { id: string }[]): string[] => rows.map(({ id }) => id)

/** So many rows that came later than all of the book. */
const newRows = (count: number, from = 10_000): Row[] =>
  Array.from({ length: count }, (_, index) => ({ id: `new${from + index}`, at: from + index })).toReversed()

describe('a list that does not move', () => {
  const sizes = [
    [0, 1],
    [1, 1],
    // More rows than a page may be capped at without a word are looked behind, once.
    [9, 1],
    [99, 2],
    [100, 2],
    [101, 2],
    [190, 3],
    [250, 3],
  ] as const
  for (const order of listOrders) {
    test.each(sizes)(`of %i rows, ${order}, is searched whole in %i calls`, async (count, calls) => {
      for (const says of [undefined, 'hasMore'] as const) {
        const book = createBook(count, order, says === undefined ? {} : { says })
        const { values, isComplete } = await scanBook(book)
        expect(idsOf(values)).toEqual(idsOf(book.rows))
        expect(isComplete).toBe(true)
        expect(book.offsets).toEqual(
          [0, count === 99 ? 89 : 90, 180].slice(0, says !== undefined && count === 99 ? 1 : calls),
        )
      }
    })
  }

  test('asks once more behind a short page that may be cut, and no more once a longer page was seen', async () => {
    const cap = new PageCap()
    const short = createBook(40, 'oldestFirst')
    expect(await scanBook(short, { cap })).toMatchObject({ isComplete: true })
    expect(short.offsets).toEqual([0, 30])
    await scanBook(createBook(60, 'oldestFirst'), { cap })
    const again = createBook(40, 'oldestFirst')
    expect(await scanBook(again, { cap })).toMatchObject({ isComplete: true })
    expect(again.offsets).toEqual([0])
  })

  test.each(listOrders)('asks a list sorted %s for no more rows than a learnt page cap', async (order) => {
    const learnt: number[] = []
    const cap = new PageCap((rows) => learnt.push(rows))
    for (let round = 0; round < 2; round++) {
      const book = createBook(95, order, { cap: 40 })
      const { values, isComplete } = await scanBook(book, { cap })
      expect(isComplete).toBe(true)
      expect(idsOf(values).sort()).toEqual(idsOf(book.rows).sort())
    }
    expect(learnt).toEqual([40])
    expect(cap.toLimit(100)).toBe(40)
  })

  test('is searched to its end as far as 20 calls reach, and no further', async () => {
    const longest = createBook(1_809, 'oldestFirst')
    const { values, isComplete } = await scanBook(longest)
    expect([values.length, isComplete, longest.offsets.length]).toEqual([1_809, true, 20])
    for (const count of [1_810, 5_000]) {
      const longer = createBook(count, 'oldestFirst')
      const result = await scanBook(longer)
      expect([result.values.length, result.isComplete, longer.offsets.length]).toEqual([1_810, false, 20])
    }
  })

  test('in pages that the broker cuts short is searched whole, as long as it says that more follows', async () => {
    const book = createBook(130, 'oldestFirst', { cap: 40, says: 'hasMore' })
    const { values, isComplete } = await scanBook(book)
    expect([values.length, isComplete]).toEqual([130, true])
    expect(book.offsets).toEqual([0, 30, 60, 90])
    // So small that half of each page is all that can overlap.
    const tiny = createBook(20, 'oldestFirst', { cap: 3, says: 'hasMore' })
    expect(await scanBook(tiny)).toMatchObject({ isComplete: true })
    expect(tiny.offsets).toEqual([0, 2, 4, 6, 8, 10, 12, 14, 16, 18])
    // Rows one by one never join.
    expect(await scanBook(createBook(3, 'oldestFirst', { cap: 1, says: 'hasMore' }))).toMatchObject({
      isComplete: false,
    })
  })

  test('is not taken to end because the broker says so of a full page', async () => {
    const book = createBook(150, 'oldestFirst', { says: false })
    const { values, isComplete } = await scanBook(book)
    expect([values.length, isComplete]).toEqual([150, true])
  })

  test('is not complete where more is said to follow and no offset leads there', async () => {
    for (const count of [0, 50]) {
      const book = createBook(count, 'oldestFirst', { says: true })
      const { values, isComplete } = await scanBook(book)
      expect([values.length, isComplete]).toEqual([count, false])
      expect(book.offsets.length).toBeLessThan(20)
    }
  })

  test('is not complete where the offset does nothing', async () => {
    let calls = 0
    const row = { id: 'r1', at: timeOf(1), value: 'r1' }
    const rows = Array.from({ length: 100 }, (_, index) => ({ ...row, id: `r${index}` }))
    const fetch = async () => (calls++, { rows, hasMore: null })
    const options = {
      fetch,
      limit: 100,
      callsMax: 20,
      doubtsEnd: false,
      since: always,
      isNewestFirst: false,
      isWanted: () => true,
    }
    expect(await scanList<string>(options)).toMatchObject({ isComplete: false })
    expect(calls).toBe(20)
  })

  test('gives only the rows that are wanted, and is complete without the others', async () => {
    const book = createBook(250)
    const { values, isComplete } = await scanBook(book, { isWanted: ({ at }) => at % 50 === 0 })
    expect(idsOf(values)).toEqual(['r200', 'r150', 'r100', 'r50', 'r0'])
    expect(isComplete).toBe(true)
  })

  test('proves nothing if a read fails half way', async () => {
    const error = new UpstreamError('throttled', 'later')
    const book = createBook(250, 'newestFirst', {
      between(call) {
        if (call === 3) throw error
      },
    })
    await expect(scanBook(book)).rejects.toBe(error)
  })
})

describe('a row that cannot be read', () => {
  const withRow = (index: number, fields: Partial<Row>): Book => {
    const book = createBook(150, 'oldestFirst')
    book.rows = book.rows.map((row, place) => (place === index ? { ...row, ...fields } : row))
    return book
  }

  test.each([
    ['of the time that is searched', 60, {}, false],
    ['of the very first instant of it', 50, {}, false],
    ['of before', 49, {}, true],
    ['without a time', 49, { hasTime: false }, false],
  ] as const)('%s', async (_name, index, more, isComplete) => {
    const book = withRow(index, { isReadable: false, ...more })
    const result = await scanBook(book, { since: timeOf(50) })
    expect(result.values).toHaveLength(149)
    expect(result.isComplete).toBe(isComplete)
    expect(book.offsets).toEqual([0, 90])
  })

  test('does not join two pages', async () => {
    const book = createBook(150, 'oldestFirst')
    book.rows = book.rows.map((row, place) => (place >= 90 && place < 100 ? { ...row, isReadable: false } : row))
    expect(await scanBook(book, { since: timeOf(120) })).toMatchObject({ isComplete: false })
  })
})

describe('a list that moves', () => {
  test.each([
    [1, true],
    [50, true],
    [189, true],
    [190, false],
    [400, false],
  ])('newest first, by %i rows that come between two calls', async (count, isComplete) => {
    const book = createBook(150, 'newestFirst', {
      between(call) {
        if (call === 2) book.rows.unshift(...newRows(count))
      },
    })
    const before = idsOf(book.rows)
    const result = await scanBook(book)
    expect(result.isComplete).toBe(isComplete)
    if (isComplete) expect(idsOf(result.values)).toEqual(expect.arrayContaining(before))
  })

  test('oldest first, by rows that come at its end, which are found as well', async () => {
    const book = createBook(150, 'oldestFirst', {
      between: (call) => book.rows.push(...newRows(5, 10_000 * call).toReversed()),
    })
    const { values, isComplete } = await scanBook(book)
    expect(isComplete).toBe(true)
    expect(idsOf(values)).toEqual(idsOf(book.rows))
  })

  test.each([
    [1, true],
    [9, true],
    // None was stepped over here, but nothing shows it.
    [10, false],
    [11, false],
    [150, false],
  ])('by %i rows that leave between two calls', async (count, isComplete) => {
    for (const order of listOrders) {
      const book = createBook(150, order, {
        between(call) {
          if (call === 2) book.rows.splice(0, count)
        },
      })
      const result = await scanBook(book)
      expect(result.isComplete).toBe(isComplete)
      if (isComplete) expect(result.values).toHaveLength(150)
    }
  })

  test('gives each row once, as it was seen last', async () => {
    const book = createBook(150, 'oldestFirst', {
      between() {
        book.rows = book.rows.map((row) => ({ ...row, at: row.at + 1 }))
      },
    })
    const { values } = await scanBook(book)
    expect(values.map(({ id, at }) => [id, at])).toEqual(
      Array.from({ length: 150 }, (_, index) => [`r${index}`, index < 90 ? index : index + 1]),
    )
  })
})

describe('rows that are too old', () => {
  test.each([
    ['in the first page', 250, 1],
    // Its last row is of that very instant.
    ['just behind the first page', 200, 2],
    ['in the second page', 150, 2],
    ['nowhere', -1, 4],
  ])('ends the search where the list is seen to be newest first: %s', async (_name, since, calls) => {
    const book = createBook(300)
    const { values, isComplete } = await scanBook(book, { since: timeOf(since) })
    expect(isComplete).toBe(true)
    expect(book.offsets).toHaveLength(calls)
    const wanted = book.rows.filter(({ at }) => at >= since)
    expect(idsOf(values)).toEqual(expect.arrayContaining(idsOf(wanted)))
  })

  test('ends nothing in a list that is oldest first', async () => {
    const book = createBook(300, 'oldestFirst')
    const { values, isComplete } = await scanBook(book, { since: timeOf(290) })
    expect([values.length, isComplete, book.offsets.length]).toEqual([300, true, 4])
  })

  test('ends nothing in a list of one instant, unless the broker is certified to be newest first', async () => {
    const rows = createBook(300).rows.map((row) => ({ ...row, at: 5 }))
    for (const isNewestFirst of [false, true]) {
      const book = createBook(0, 'newestFirst', { rows })
      expect(await scanBook(book, { since: timeOf(6), isNewestFirst })).toMatchObject({ isComplete: true })
      expect(book.offsets).toHaveLength(isNewestFirst ? 1 : 4)
    }
  })

  const disorders: [string, (row: Row) => Partial<Row>][] = [
    ['one row stands out of order', ({ at }) => (at === 260 ? { at: 258 } : {})],
    ['one row has no time', ({ at }) => (at === 260 ? { hasTime: false } : {})],
    ['the second page goes back to newer rows', ({ at }) => (at < 200 ? { at: at + 70 } : {})],
  ]
  test.each(disorders)('ends nothing in a list in no order: %s', async (_name, change) => {
    for (const isNewestFirst of [false, true]) {
      const book = createBook(300)
      book.rows = book.rows.map((row) => ({ ...row, ...change(row) }))
      const { values, isComplete } = await scanBook(book, { since: timeOf(150), isNewestFirst })
      expect([values.length, isComplete, book.offsets.length]).toEqual([300, true, 4])
    }
  })

  test('does not make whole what was stepped over before', async () => {
    const book = createBook(300, 'newestFirst', {
      between(call) {
        if (call === 2) book.rows.splice(0, 20)
      },
    })
    expect(await scanBook(book, { since: timeOf(150) })).toMatchObject({ isComplete: false })
    expect(book.offsets).toHaveLength(2)
  })
})

// ---- laws -------------------------------------------------------------------------------------------------------

const changeArb = fc.record({
  kind: fc.constantFrom('front', 'back', 'beside', 'remove'),
  where: fc.nat(200),
  count: fc.integer({ min: 1, max: 12 }),
  isLater: fc.boolean(),
})
type Change = typeof changeArb extends fc.Arbitrary<infer T> ? T : never

/** What happens to a sorted list that stays sorted; `isGrowing`: nothing leaves, and all that comes, comes at an end. */
function changeBook(book: Book, change: Change, order: (typeof listOrders)[number], isGrowing: boolean): void {
  const { rows } = book
  const at = change.where % Math.max(1, rows.length)
  for (let i = 0; i < change.count; i++) {
    const id = `late ${book.offsets.length} ${change.kind} ${change.where} ${i} ${rows.length}`
    const isAtEnd = change.kind === 'front' || change.kind === 'back'
    if (isAtEnd || isGrowing) {
      const neighbour = (change.kind === 'front' ? rows[0] : rows.at(-1))?.at ?? 0
      const isNewEnd = (change.kind === 'front') === (order === 'newestFirst')
      const row: Row = { id, at: neighbour + (change.isLater ? (isNewEnd ? 1 : -1) : 0) }
      if (change.kind === 'front') rows.unshift(row)
      else rows.push(row)
    } else if (change.kind === 'beside') {
      rows.splice(at, 0, { id, at: rows[at]?.at ?? 0 })
    } else {
      rows.splice(at, 1)
    }
  }
}

test.each([
  ['only grows, at either end', true],
  ['grows and shrinks anywhere', false],
])('a search that says it is complete over a list that %s misses nothing', async (_name, isGrowing) => {
  let complete = 0
  let changed = 0
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        order: fc.constantFrom(...listOrders),
        steps: fc.array(fc.nat(2), { maxLength: 130, size: 'max' }),
        odd: fc.array(fc.record({ where: fc.nat(150), hasTime: fc.boolean(), isReadable: fc.boolean() }), {
          maxLength: 2,
        }),
        since: fc.nat(260),
        limit: fc.constantFrom(10, 10, 30, 100),
        cap: fc.constantFrom(1, 7, 100, 100, 100),
        isNewestFirst: fc.boolean(),
        changes: fc.array(fc.array(changeArb, { maxLength: 3 }), { maxLength: 20 }),
      }),
      async ({ order, steps, odd, since, limit, cap, isNewestFirst, changes }) => {
        let at = 0
        const rows = steps.map((step, index): Row => ({ id: `r${index}`, at: (at += step) }))
        for (const { where, hasTime, isReadable } of odd) {
          const row = rows[where]
          if (row && !hasTime) row.hasTime = false
          if (row && !isReadable) row.isReadable = false
        }
        const book: Book = {
          rows: order === 'newestFirst' ? rows.toReversed() : [...rows],
          offsets: [],
          limit,
          cap,
          // Else a page that the broker cuts short is its last.
          ...(cap < limit ? { says: 'hasMore' as const } : {}),
          between(call) {
            for (const change of changes[call - 2] ?? []) changeBook(book, change, order, isGrowing)
          },
        }
        const { values, isComplete } = await scanBook(book, {
          since: timeOf(since),
          isNewestFirst: isNewestFirst && order === 'newestFirst',
        })
        expect(new Set(idsOf(values)).size).toBe(values.length)
        expect(book.offsets.length).toBeLessThanOrEqual(20)
        if (!isComplete) return
        complete++
        if (book.offsets.length > 1 && changes.flat().length > 0) changed++
        const left = new Set(book.rows.map(({ id }) => id))
        const due = rows.filter((row) => row.at >= since && left.has(row.id))
        expect(idsOf(values)).toEqual(expect.arrayContaining(idsOf(due)))
      },
    ),
    { numRuns: 2_000, seed: 20_260_301 },
  )
  // It does say so often enough to mean something.
  expect(complete).toBeGreaterThan(600)
  expect(changed).toBeGreaterThan(100)
})

// ---- over the sandbox -------------------------------------------------------------------------------------------

describe('at Bluum', () => {
  let sandbox: Sandbox
  let accountId = ''

  beforeAll(async () => {
    sandbox = await startSandbox({ stateFile: ':memory:', seed: 'scan', requestsPerSecond: 100_000 })
    accountId = sandbox.accounts[0] ?? ''
  })
  afterAll(() => sandbox.close())
  beforeEach(async () => {
    await control('DELETE', '/rules')
    await control('PUT', '/switches', { listEnvelope: 'array' })
    await control('DELETE', `/book?account=${accountId}`)
    await control('DELETE', '/log')
  })

  async function control(method: string, path: string, body?: unknown): Promise<unknown> {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) }
    const response = await fetch(sandbox.controlUrl + path, init)
    if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`)
    return await response.json()
  }

  /** As many resting orders, a minute apart, oldest first. Their ids. */
  async function fill(count: number, fields: (index: number) => object = () => ({})): Promise<string[]> {
    const ids: string[] = []
    for (let index = 0; index < count; index++) {
      const order = (await control('POST', '/orders', {
        account: accountId,
        submitted_at: timeOf(index * 60),
        symbol: 'AAPL',
        side: 'buy',
        type: 'limit',
        time_in_force: 'gtc',
        qty: '1',
        limit_price: '10.00',
        ...fields(index),
      })) as { id: string }
      ids.push(order.id)
    }
    return ids
  }

  function connect(options: Partial<BluumOptions> = {}): Broker {
    const { url, apiKey, apiSecret } = sandbox
    const broker = createBluum({ url, apiKey, apiSecret, requestsPerSecond: 100_000, breaker: false, ...options })
    onTestFinished(() => broker.close(1_000))
    return broker
  }

  const createScope = (more: Partial<ReadScope> = {}): ReadScope => ({
    signal: new AbortController().signal,
    deadline: Date.now() + 60_000,
    isForCancel: false,
    caller: null,
    tally: createTally(),
    ...more,
  })

  const scan = (query: Partial<ScanQuery> = {}, broker = connect(), scope = createScope()): Promise<Scan> =>
    broker.scan({ accountId, symbol: 'AAPL', side: 'BUY', since: always, purpose: 'lookup', ...query }, scope)

  /** The queries of the lists that were asked for. */
  async function asked(): Promise<Record<string, string>[]> {
    const log = (await control('GET', '/log')) as { path: string }[]
    return log
      .filter(({ path }) => path.startsWith(`/v1/trading/accounts/${accountId}/orders`))
      .map(({ path }) => Object.fromEntries(new URL(path, 'http://broker').searchParams))
  }

  const setRules = (...rules: object[]): Promise<unknown> => control('PUT', '/rules', rules)

  test.each([0, 1, 101])('%i orders are all found in either sort order', async (count) => {
    const ids = await fill(count)
    for (const listEnvelope of ['array', 'object']) {
      await control('PUT', '/switches', { listEnvelope })
      for (const order of listOrders) {
        await setRules({ fault: { kind: 'listOrder', order } })
        for (const purpose of ['snapshot', 'lookup'] as const) {
          const { orders, isComplete } = await scan({ purpose })
          expect(idsOf(orders)).toEqual(order === 'oldestFirst' ? ids : ids.toReversed())
          expect(isComplete).toBe(true)
        }
      }
    }
  })

  test('is read by symbol and side, or whole, a hundred rows at a time', async () => {
    await fill(101, (index) => ({ side: index % 2 === 0 ? 'buy' : 'sell', symbol: index === 50 ? 'KO' : 'AAPL' }))
    expect((await scan({ symbol: 'KO', side: 'BUY' })).orders).toHaveLength(1)
    expect((await scan({ symbol: 'AAPL', side: 'SELL' })).orders).toHaveLength(50)
    expect((await scan({ symbol: null, side: null })).orders).toHaveLength(101)
    // Bluum has no word for it, so it cannot have kept it from any row.
    expect((await scan({ symbol: 'AAPL', side: 'SELL_SHORT' })).orders).toHaveLength(100)
    expect(await asked()).toEqual([
      { symbol: 'KO', side: 'buy', limit: '100', offset: '0' },
      { symbol: 'AAPL', side: 'sell', limit: '100', offset: '0' },
      // A page of 50 of 100 may have been cut short by the broker, so what follows it is looked at.
      { symbol: 'AAPL', side: 'sell', limit: '100', offset: '40' },
      { limit: '100', offset: '0' },
      { limit: '100', offset: '90' },
      { limit: '100', offset: '96' },
      { symbol: 'AAPL', limit: '100', offset: '0' },
      { symbol: 'AAPL', limit: '100', offset: '90' },
    ])
  })

  test('takes the order of the list on trust only where that is certified', async () => {
    await fill(150, () => ({ submitted_at: timeOf(0) }))
    await scan({ since: timeOf(1) })
    expect(await asked()).toHaveLength(3)
    await scan({ since: timeOf(1) }, connect({ capabilities: ['listNewestFirst'] }))
    expect(await asked()).toHaveLength(4)
  })

  test('goes on behind a page that the broker cut short without saying so', async () => {
    const ids = Array.from({ length: 120 }, (_, index) => `ord_${index}`)
    const cut = (offset: number, limit: number) => ids.slice(offset, offset + Math.min(limit, 50))
    const { values, isComplete } = await scanList({
      fetch: (offset, limit) =>
        Promise.resolve({ rows: cut(offset, limit).map((id) => ({ id, at: null, value: id })), hasMore: null }),
      limit: 100,
      callsMax: 20,
      doubtsEnd: true,
      since: timeOf(0),
      isNewestFirst: false,
      isWanted: () => true,
    })
    expect(isComplete).toBe(true)
    expect(values).toEqual(ids)
  })

  test('accepts pages beyond their limit, and repeated rows', async () => {
    const ids = await fill(120)
    await setRules({ fault: { kind: 'extraRows', rows: 8 } })
    const { orders, isComplete } = await scan()
    expect(isComplete).toBe(true)
    expect(idsOf(orders).sort()).toEqual(ids.toSorted())
  })

  test.each([
    [{ kind: 'invalidJson' }, 'unreadable'],
    [{ kind: 'rstAfterRead' }, 'no_answer'],
  ])('that has to stop half way is an error: %o', async (fault, kind) => {
    await fill(101)
    await setRules({ match: { path: 'offset=90' }, fault })
    await expect(scan()).rejects.toMatchObject({ name: 'UpstreamError', kind })
  })

  test('ends when no reader waits any more', async () => {
    await setRules({ fault: { kind: 'hang' } })
    const controller = new AbortController()
    const search = scan({}, connect(), createScope({ signal: controller.signal }))
    while ((await asked()).length === 0) await delay(5)
    controller.abort('gone')
    await expect(search).rejects.toBe('gone')
  })

  test('ends with the time that the order can wait for it', async () => {
    await setRules({ fault: { kind: 'hang' } })
    const search = scan({ purpose: 'snapshot' }, connect(), createScope({ deadline: Date.now() + 50 }))
    await expect(search).rejects.toMatchObject({ kind: 'no_answer', timedOut: true })
  })

  test('tells whose orders it has seen, so that reading them again takes one list', async () => {
    const ids = await fill(5)
    const broker = connect()
    await scan({}, broker)
    await control('DELETE', '/log')
    const keys = ids.map((id) => ({ broker: 'BLUUM' as const, id, accountId: null, mustBeWhole: false }))
    const orders = await broker.orders(keys, createScope())
    expect(orders).toHaveLength(5)
    expect(await control('GET', '/log')).toHaveLength(1)
  })

  test('refuses an id that would lead elsewhere', async () => {
    await expect(scan({ accountId: '../accounts' })).rejects.toThrow(RangeError)
    expect(await asked()).toEqual([])
  })

  test('is relied on for what was certified, and for nothing else', () => {
    expect(connect().capabilities).toEqual(Object.fromEntries(brokerCapabilities.map((name) => [name, false])))
    const { capabilities } = connect({ capabilities: ['clientIdEcho', 'stream'] })
    for (const name of brokerCapabilities) expect(capabilities[name]).toBe(name === 'clientIdEcho' || name === 'stream')
    expect(Object.isFrozen(capabilities)).toBe(true)
  })
})
