// Lists that move while they are read: a walk over them gives every row that was there at the start and still matches
// exactly once, in order, with a bounded number of calls, whichever way the broker sorts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createListMemory, readListPage } from '../../src/brokers/offsetList.ts'
import type { ListMemory, ListPage, ListRow } from '../../src/brokers/offsetList.ts'

interface Row {
  id: string
  at: string
  status: 'open' | 'done'
}

const limitMax = 10

/** A broker's book of rows, newest last, behind limit and offset. */
function createBook(
  order: 'newestFirst' | 'oldestFirst',
  says: 'nothing' | 'hasMore' = 'nothing',
  { cap = Infinity, most = limitMax } = {},
) {
  const rows: Row[] = []
  let clock = Date.UTC(2026, 0, 1)
  let counter = 0
  let calls = 0
  return {
    rows,
    calls: () => calls,
    /** `later` is 0 for a row of the same second as the one before. */
    add(later: number, status: Row['status'] = 'open') {
      clock += later * 1_000
      // Ids in no order, so that nothing can lean on them.
      const id = `ord_${((counter++ * 7_919) % 10_007).toString(36)}`
      rows.push({ id, at: `${new Date(clock).toISOString().slice(0, 19)}Z`, status })
    },
    /** A row of the same instant as another, wherever that is. */
    addLate(which: number) {
      const at = which % Math.max(1, rows.length)
      const beside = rows[at]
      if (beside) rows.splice(at, 0, { id: `late_${counter++}`, at: beside.at, status: 'open' })
    },
    async list(filter: Row['status'] | null, offset: number, limit: number) {
      calls++
      expect(limit).toBeGreaterThan(0)
      expect(limit).toBeLessThanOrEqual(most)
      const matching = rows.filter((row) => filter === null || row.status === filter)
      const sorted = order === 'newestFirst' ? matching.toReversed() : matching
      const page = sorted.slice(offset, offset + Math.min(limit, cap))
      return {
        rows: page.map((row) => ({ id: row.id, at: row.at, value: row })),
        hasMore: says === 'hasMore' ? offset + limit < sorted.length : null,
      }
    },
  }
}

type Book = ReturnType<typeof createBook>

function readPage(
  book: Book,
  memory: ListMemory,
  filter: Row['status'] | null,
  page: {
    after: string | null
    first: number
    wantsMore?: boolean
    judge?: (row: ListRow<Row>) => 'take' | 'drop' | 'end'
    most?: number
    key?: string
  },
): Promise<ListPage<Row>> {
  return readListPage<Row>(
    {
      key: page.key ?? String(filter),
      fetch: (offset, limit) => book.list(filter, offset, limit),
      limitMax: page.most ?? limitMax,
      mayMove: filter !== null,
      after: page.after,
      first: page.first,
      wantsMore: page.wantsMore ?? true,
      searches: page.judge !== undefined,
      judge: page.judge ?? (() => 'take'),
    },
    memory,
  )
}

const idsOf = (page: ListPage<Row>) => page.rows.map(({ row }) => row.id)

const orders = ['newestFirst', 'oldestFirst'] as const

describe.each(orders)('a list sorted %s', (order) => {
  it('is read newest first', async () => {
    const book = createBook(order)
    for (let index = 0; index < 25; index++) book.add(1)
    const page = await readPage(book, createListMemory(), null, { after: null, first: 7 })
    expect(idsOf(page)).toEqual(
      book.rows
        .slice(-7)
        .reverse()
        .map((row) => row.id),
    )
    expect(page).toMatchObject({ hasMore: true, isComplete: true })
  })

  it('takes one call a page, once its order and end have been seen', async () => {
    const book = createBook(order)
    for (let index = 0; index < 95; index++) book.add(1)
    const memory = createListMemory()
    await readPage(book, memory, null, { after: null, first: 5 })
    let before = book.calls()
    const first = await readPage(book, memory, null, { after: null, first: 9 })
    expect(book.calls() - before).toBe(1)
    before = book.calls()
    const second = await readPage(book, memory, null, { after: first.rows.at(-1)?.position ?? '', first: 9 })
    expect(book.calls() - before).toBe(1)
    expect([...idsOf(first), ...idsOf(second)]).toEqual(
      book.rows
        .slice(-18)
        .reverse()
        .map((row) => row.id),
    )
    // Rows that have come since are found at the end without looking for it again.
    for (let index = 0; index < 3; index++) book.add(1)
    before = book.calls()
    const again = await readPage(book, memory, null, { after: null, first: 5 })
    expect(book.calls() - before).toBe(1)
    expect(idsOf(again)).toEqual(
      book.rows
        .slice(-5)
        .reverse()
        .map((row) => row.id),
    )
  })

  it('is empty where there is nothing', async () => {
    const page = await readPage(createBook(order), createListMemory(), null, { after: null, first: 3 })
    expect(page).toEqual({ rows: [], hasMore: false, isComplete: true, position: null })
  })

  it('resumes after any row', async () => {
    const book = createBook(order)
    for (let index = 0; index < 20; index++) book.add(index % 3)
    const memory = createListMemory()
    const whole = await readPage(book, memory, 'open', { after: null, first: 20 })
    expect(whole.rows).toHaveLength(20)
    for (const [index, { position }] of whole.rows.entries()) {
      const rest = await readPage(book, memory, 'open', { after: position, first: 20 })
      expect(idsOf(rest)).toEqual(idsOf(whole).slice(index + 1))
      expect(rest.hasMore).toBe(false)
    }
  })

  it('stops where no older row is wanted, and goes on where nothing was found within the bound', async () => {
    const book = createBook(order)
    for (let index = 0; index < 500; index++) book.add(1)
    const memory = createListMemory()
    const from = book.rows[40]?.at ?? ''
    const judge = ({ at }: ListRow<Row>) =>
      (at ?? '') > from ? 'drop' : (at ?? '') < (book.rows[30]?.at ?? '') ? 'end' : 'take'
    const found: string[] = []
    let after: string | null = null
    for (let round = 0; round < 20; round++) {
      const page: ListPage<Row> = await readPage(book, memory, null, { after, first: 4, judge })
      found.push(...idsOf(page))
      if (page.isComplete && page.hasMore === false) break
      if (page.rows.length < 4) expect(page.isComplete).toBe(false)
      expect(page.position).not.toBe(after)
      after = page.position
    }
    expect(found).toEqual(
      book.rows
        .slice(30, 41)
        .reverse()
        .map((row) => row.id),
    )
  })

  const change = fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('add' as const), later: fc.integer({ min: 0, max: 2 }) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('done' as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('open' as const), which: fc.nat() }) },
    // A row of long ago that arrives only now.
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('late' as const), which: fc.nat() }) },
  )
  const scenario = fc.record({
    // Seconds between rows; runs of zeros are rows of one instant.
    rows: fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 80 }),
    says: fc.constantFrom('nothing' as const, 'hasMore' as const),
    filter: fc.constantFrom(null, 'open' as const, 'done' as const),
    sizes: fc.array(fc.integer({ min: 1, max: 25 }), { minLength: 1, maxLength: 5 }),
    wantsMore: fc.boolean(),
    // What happens between two calls to the broker, also in the middle of a page.
    changes: fc.array(fc.array(change, { maxLength: 4 }), { maxLength: 60 }),
    isKnown: fc.boolean(),
  })

  it('gives every row that was there and still matches exactly once, while rows come and go', async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async ({ rows, says, filter, sizes, wantsMore, changes, isKnown }) => {
        const book = createBook(order, says)
        for (const [index, later] of rows.entries()) book.add(later, index % 3 === 0 ? 'done' : 'open')
        const memory = createListMemory()
        if (isKnown) await readPage(book, memory, filter, { after: null, first: 3 })
        const matches = (row: Row) => filter === null || row.status === filter
        const atStart = book.rows.filter(matches).map((row) => row.id)
        // Rows that left the list at any time need not be given; the others must be.
        const left = new Set<string>()
        let moment = 0
        const list = book.list.bind(book)
        book.list = async (...request) => {
          const answer = await list(...request)
          for (const step of changes[moment++] ?? []) {
            if (step.kind === 'add') book.add(step.later)
            else if (step.kind === 'late') book.addLate(step.which)
            else {
              const row = book.rows[step.which % Math.max(1, book.rows.length)]
              if (row) row.status = step.kind
            }
          }
          for (const row of book.rows) if (!matches(row)) left.add(row.id)
          return answer
        }
        const given: string[] = []
        let after: string | null = null
        for (let pageIndex = 0; ; pageIndex++) {
          expect(pageIndex).toBeLessThan(400)
          const before = book.calls()
          const first = sizes[pageIndex % sizes.length] ?? 5
          const page: ListPage<Row> = await readPage(book, memory, filter, { after, first, wantsMore })
          expect(book.calls() - before).toBeLessThanOrEqual(20)
          expect(page.isComplete).toBe(true)
          expect(page.rows.length).toBeLessThanOrEqual(first)
          if (page.hasMore === true) expect(page.rows.length).toBe(first)
          if (wantsMore && page.rows.length === first) expect(page.hasMore).not.toBe(null)
          given.push(...idsOf(page))
          if (page.hasMore === false || page.rows.length === 0) break
          after = page.rows.at(-1)?.position ?? after
        }
        expect(new Set(given).size).toBe(given.length)
        const missing = atStart.filter((id) => !left.has(id) && !given.includes(id))
        expect(missing).toEqual([])
        // Newest first, rows of one instant in any order.
        const times = given.map((id) => book.rows.find((row) => row.id === id)?.at ?? '')
        expect(times).toEqual([...times].sort().reverse())
      }),
      { numRuns: 400 },
    )
  })
})

describe.each(orders)('a list sorted %s whose broker caps its pages and says nothing of it', (order) => {
  const most = 100

  function fill(count: number, cap: number, later: () => number = () => 1) {
    const book = createBook(order, 'nothing', { cap, most })
    for (let index = 0; index < count; index++) book.add(later(), index % 3 === 0 ? 'done' : 'open')
    return book
  }
  const newestOf = (book: Book, count: number, filter: Row['status'] | null = null) =>
    book.rows
      .filter(({ status }) => filter === null || status === filter)
      .slice(-count)
      .reverse()
      .map(({ id }) => id)

  it.each([
    [280, 50],
    [120, 37],
    [101, 99],
    [51, 50],
    [50, 50],
    [30, 10],
  ])('gives all of %i rows over a cap of %i, newest first', async (count, cap) => {
    const caps: number[] = []
    const book = fill(count, cap)
    const memory = createListMemory((rows) => caps.push(rows))
    const given: string[] = []
    for (let after: string | null = null; ;) {
      const page: ListPage<Row> = await readPage(book, memory, null, { after, first: 100, most })
      expect(page.isComplete).toBe(true)
      given.push(...idsOf(page))
      if (page.hasMore !== true) break
      after = page.position
    }
    expect(given).toEqual(newestOf(book, count))
    expect(caps).toEqual(count === cap ? [] : [cap])
  })

  it('costs two calls for a page of 100 over a cap of 50, once it is known', async () => {
    const book = fill(280, 50)
    const memory = createListMemory()
    await readPage(book, memory, null, { after: null, first: 100, most })
    await readPage(book, memory, null, { after: null, first: 100, most })
    const before = book.calls()
    const page = await readPage(book, memory, null, { after: null, first: 100, wantsMore: false, most })
    expect(idsOf(page)).toEqual(newestOf(book, 100))
    // Sorted oldest first, the end has to be seen as well.
    expect(book.calls() - before).toBeLessThanOrEqual(order === 'newestFirst' ? 2 : 3)
  })

  it('costs one call more for a short list that may be cut, and none once a longer page was seen', async () => {
    const memory = createListMemory()
    const cost = async (book: Book, key: string, filter: 'open' | null = null) => {
      const before = book.calls()
      const page = await readPage(book, memory, filter, { after: null, first: 100, most, key })
      expect(idsOf(page)).toEqual(newestOf(book, 100, filter))
      expect(page).toMatchObject({ hasMore: false, isComplete: true })
      return book.calls() - before
    }
    const short = fill(40, Infinity)
    expect(await cost(short, 'a')).toBe(2)
    expect(await cost(fill(60, Infinity), 'b', 'open')).toBe(2)
    await cost(fill(60, Infinity), 'c')
    expect(await cost(fill(40, Infinity), 'b', 'open')).toBe(1)
    expect(await cost(short, 'a')).toBe(1)
    expect(await cost(fill(50, Infinity), 'd')).toBe(1)
    expect(await cost(fill(9, Infinity), 'c')).toBe(1)
  })

  it('is read to its end also where the broker begins to cap its pages, or caps them lower, later on', async () => {
    const caps: number[] = []
    const memory = createListMemory((rows) => caps.push(rows))
    for (const cap of [Infinity, 50, 25]) {
      const book = fill(240, cap)
      for (let round = 0; round < 2; round++) {
        const given: string[] = []
        for (let after: string | null = null; ;) {
          const page: ListPage<Row> = await readPage(book, memory, null, { after, first: 100, most })
          given.push(...idsOf(page))
          if (page.hasMore !== true) break
          after = page.position
        }
        expect(given).toEqual(newestOf(book, 240))
      }
    }
    expect(caps).toEqual([50, 25])
  })

  it('is believed to have become shorter after one call more', async () => {
    const memory = createListMemory()
    for (const count of [240, 40])
      await readPage(fill(count, Infinity), memory, null, { after: null, first: 100, most })
    const book = fill(40, Infinity)
    expect(await readPage(book, memory, null, { after: null, first: 100, most })).toMatchObject({ hasMore: false })
    expect(book.calls()).toBe(1)
  })

  it('learns no cap from a page that is as long as its limit', async () => {
    const caps: number[] = []
    const memory = createListMemory((rows) => caps.push(rows))
    const book = fill(100, Infinity)
    await readPage(book, memory, null, { after: null, first: 100, most })
    const before = book.calls()
    for (const first of [20, 60, 99]) {
      const page = await readPage(book, memory, null, { after: null, first, most })
      expect(page).toMatchObject({ hasMore: true, isComplete: true })
    }
    expect(book.calls() - before).toBe(3)
    expect(caps).toEqual([])
  })

  it('takes a cap back that a row which came meanwhile made up', async () => {
    const book = fill(30, Infinity)
    const memory = createListMemory()
    const list = book.list.bind(book)
    let calls = 0
    book.list = async (...request) => {
      const answer = await list(...request)
      if (calls++ === 0) book.add(1)
      return answer
    }
    const page = await readPage(book, memory, null, { after: null, first: 100, most })
    expect(page.isComplete).toBe(true)
    for (let index = 0; index < 100; index++) book.add(1)
    await readPage(book, memory, null, { after: null, first: 100, most })
    const before = book.calls()
    await readPage(book, memory, null, { after: null, first: 99, wantsMore: false, most })
    expect(book.calls() - before).toBe(1)
    expect(memory.cap.toLimit(most)).toBe(most)
  })

  it('gives every row once from any cursor, also one made before the cap was known', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          steps: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 0, maxLength: 150, size: 'max' }),
          // Below, a page of 100 can come to the bound on calls, and says so.
          cap: fc.constantFrom(15, 25, 37, 50),
          filter: fc.constantFrom(null, 'open' as const, 'done' as const),
          sizes: fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 4 }),
          wantsMore: fc.boolean(),
          forgets: fc.boolean(),
        }),
        async ({ steps, cap, filter, sizes, wantsMore, forgets }) => {
          // The order of the list shows at both ends, else a page may be over before it is known.
          const left = [...Array.from({ length: 5 }, () => 1), ...steps, ...Array.from({ length: 5 }, () => 1)]
          const book = fill(left.length, cap, () => left.pop() ?? 0)
          let memory = createListMemory()
          const given: string[] = []
          let after: string | null = null
          for (let round = 0; round < 200; round++) {
            const first = sizes[round % sizes.length] ?? 5
            const page: ListPage<Row> = await readPage(book, memory, filter, { after, first, wantsMore, most })
            expect(page.isComplete).toBe(true)
            given.push(...idsOf(page))
            if (page.hasMore === false || page.rows.length === 0) break
            after = page.rows.at(-1)?.position ?? after
            // Another process goes on: it knows the order of the list only from the rows that it sees.
            if (forgets) memory = { ...createListMemory(), direction: memory.direction }
          }
          expect(new Set(given).size).toBe(given.length)
          const due = book.rows.filter(({ status }) => filter === null || status === filter).map(({ id }) => id)
          expect([...given].sort()).toEqual(due.sort())
        },
      ),
      { numRuns: 150 },
    )
  })
})

it('reads a short list twice, and no more, if the broker ignores the offset', async () => {
  const rows = Array.from({ length: 30 }, (_, index) => ({ id: `ord_${index}`, at: null, value: null }))
  let calls = 0
  const page = await readListPage(
    {
      key: '',
      fetch: () => Promise.resolve({ rows: calls++ < 9 ? rows : [], hasMore: null }),
      limitMax: 100,
      mayMove: false,
      after: null,
      first: 50,
      wantsMore: true,
      searches: false,
      judge: () => 'take',
    },
    createListMemory(),
  )
  expect([page.rows.length, page.hasMore, page.isComplete, calls]).toEqual([30, false, true, 2])
})

describe('a row that is a little out of place', () => {
  it.each(orders)('does not turn a list sorted %s round, and empties no page', async (order) => {
    const book = createBook(order)
    for (let index = 0; index < 40; index++) book.add(2)
    const memory = createListMemory()
    await readPage(book, memory, null, { after: null, first: 5 })
    const [newest, second] = [book.rows.at(-1), book.rows.at(-2)]
    if (newest && second) [newest.at, second.at] = [second.at, newest.at]
    for (const first of [1, 2, 5]) {
      const before = book.calls()
      const page = await readPage(book, memory, null, { after: null, first })
      expect(page.rows).toHaveLength(first)
      expect(book.calls() - before).toBeLessThanOrEqual(2)
    }
    expect(memory.direction).toBe(order)
  })
})

describe('a list in no order', () => {
  it('is given as the broker has it, and not called complete', async () => {
    const times = [3, 1, 2, 5, 4].map((second) => `2026-01-01T00:00:0${second}Z`)
    const rows = times.map((at, index) => ({ id: `ord_${index}`, at, value: null }))
    const page = await readListPage(
      {
        key: '',
        fetch: (offset, limit) => Promise.resolve({ rows: rows.slice(offset, offset + limit), hasMore: null }),
        limitMax,
        mayMove: false,
        after: null,
        first: 5,
        wantsMore: true,
        searches: false,
        judge: () => 'take',
      },
      createListMemory(),
    )
    expect(page.rows.map(({ row }) => row.id)).toEqual(rows.map((row) => row.id))
    expect(page.isComplete).toBe(false)
  })
})

it('a position that another adapter made is refused', async () => {
  const book = createBook('newestFirst')
  await expect(readPage(book, createListMemory(), null, { after: 'cursor-7', first: 1 })).rejects.toThrow(RangeError)
})
