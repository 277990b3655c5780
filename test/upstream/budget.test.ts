import { getEventListeners } from 'node:events'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { UpstreamError } from '../../src/upstream/errors.ts'
import { type Budget, createBudget, type Lane, type Permit } from '../../src/upstream/budget.ts'

const lanes: readonly Lane[] = ['cancel', 'place', 'snapshot', 'lookup', 'read', 'list']
const windowMs = 1_100

const budgets: Budget[] = []
beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  for (const budget of budgets.splice(0)) budget.close()
  expect(vi.getTimerCount(), 'timers left behind').toBe(0)
  vi.useRealTimers()
})

function open(perSecond: number): Budget {
  const budget = createBudget({ perSecond })
  budgets.push(budget)
  return budget
}

interface Wish {
  lane: Lane
  caller: string | null
  askedAt: number
  deadline: number
  /** Set by the end. */
  grantedAt: number | null
  place: Permit | null
  sentAt: number | null
  error: unknown
  endedAt: number | null
}

function send(wish: Wish): void {
  wish.sentAt = performance.now()
  wish.place?.sent()
}

/** Asks, and writes down when and how it ended. What is granted is sent at once unless `use` does otherwise. */
function ask(
  budget: Budget,
  lane: Lane,
  withinMs = 60_000,
  signal?: AbortSignal,
  use = send,
  caller: string | null = null,
): Wish {
  const askedAt = performance.now()
  const wish: Wish = {
    lane,
    caller,
    askedAt,
    deadline: askedAt + withinMs,
    grantedAt: null,
    place: null,
    sentAt: null,
    error: null,
    endedAt: null,
  }
  const follow = async (): Promise<void> => {
    try {
      wish.place = await budget.acquire(lane, Date.now() + withinMs, signal, caller)
      wish.grantedAt = wish.endedAt = performance.now()
      use(wish)
    } catch (error) {
      wish.error = error
      wish.endedAt = performance.now()
    }
  }
  void follow()
  return wish
}

const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0)

function granted(wishes: readonly Wish[]): Wish[] {
  return wishes.filter((wish) => wish.grantedAt !== null)
}

/** The most that were sent in any `ms` that begin with one of them. */
function mostWithin(wishes: readonly Wish[], ms: number): number {
  const times = wishes.flatMap(({ sentAt }) => sentAt ?? [])
  return Math.max(0, ...times.map((start) => times.filter((time) => time >= start && time < start + ms).length))
}

function throttledOf(wish: Wish): UpstreamError {
  expect(wish.error).toBeInstanceOf(UpstreamError)
  const error = wish.error as UpstreamError
  expect(error).toMatchObject({ kind: 'throttled', effect: 'none' })
  expect(error.retryAfterMs).toBeGreaterThanOrEqual(1)
  expect(error.retryAfterMs).toBeLessThanOrEqual(60_000)
  expect(Number.isInteger(error.retryAfterMs)).toBe(true)
  return error
}

describe('places', () => {
  test.each([
    [10, 8],
    [25, 20],
    [1_000, 800],
    [4, 3],
  ])('%i a second: %i calls leave at once, two of them only if they cancel', async (perSecond, limit) => {
    const budget = open(perSecond)
    const places = Array.from({ length: limit }, () => ask(budget, 'place'))
    const cancels = Array.from({ length: 3 }, () => ask(budget, 'cancel'))
    await settle()
    expect(granted(places)).toHaveLength(limit - 2)
    expect(granted(cancels)).toHaveLength(2)
    await vi.advanceTimersByTimeAsync(windowMs - 1)
    expect(granted([...places, ...cancels])).toHaveLength(limit)
    await vi.advanceTimersByTimeAsync(1)
    expect(granted(cancels)).toHaveLength(3)
  })

  test.each([
    [1, 1],
    [2, 1],
    [3, 2],
  ])('%i a second: %i calls leave, one of them may be any, and cancels go first', async (perSecond, limit) => {
    const budget = open(perSecond)
    const first = [ask(budget, 'list'), ask(budget, 'list')]
    await settle()
    expect(granted(first)).toHaveLength(1)
    const cancels = Array.from({ length: 4 }, () => ask(budget, 'cancel'))
    await settle()
    expect(granted(cancels)).toHaveLength(limit - 1)
    await vi.advanceTimersByTimeAsync(windowMs * 5)
    expect(granted([...first, ...cancels])).toHaveLength(6)
    expect(first[1]?.grantedAt).toBeGreaterThan(Math.max(...cancels.map((cancel) => cancel.grantedAt ?? Infinity)))
    expect(mostWithin([...first, ...cancels], windowMs)).toBe(limit)
    await vi.advanceTimersByTimeAsync(windowMs)
    budget.pause(0)
    const again = [ask(budget, 'list'), ask(budget, 'cancel')]
    await settle()
    expect(granted(again)).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(windowMs)
    expect(granted(again)).toHaveLength(2)
  })

  test('cancels may take all of them', async () => {
    const budget = open(10)
    const cancels = Array.from({ length: 10 }, () => ask(budget, 'cancel'))
    await settle()
    expect(granted(cancels)).toHaveLength(8)
  })

  test('the higher lane goes first, in a lane the one that came first', async () => {
    const budget = open(25)
    for (let i = 0; i < 18; i++) ask(budget, 'place')
    const order: string[] = []
    for (const lane of [...lanes].reverse()) {
      for (const name of [`${lane} 1`, `${lane} 2`, `${lane} 3`]) {
        ask(budget, lane, 60_000, undefined, (wish) => {
          order.push(name)
          send(wish)
        })
      }
    }
    await vi.advanceTimersByTimeAsync(10_000)
    // Two cancels have places of their own and need not wait for the rest to be there.
    expect(order).toEqual(lanes.flatMap((lane) => [`${lane} 1`, `${lane} 2`, `${lane} 3`]))
  })

  test('reads do not take the last places in one burst, so that they do not come free in one', async () => {
    const budget = open(25)
    const reads = Array.from({ length: 200 }, () => ask(budget, 'read'))
    await vi.advanceTimersByTimeAsync(8_000)
    const times = granted(reads).map((read) => read.grantedAt ?? 0)
    const gaps = times.slice(1).map((time, index) => time - (times[index] ?? 0))
    expect(Math.max(...gaps)).toBeLessThan(800)
    expect(granted(reads).length).toBeGreaterThan(((25 * 0.8 - 2) * 7_000) / windowMs)
    expect(mostWithin(reads, windowMs)).toBeLessThanOrEqual(18)
  })

  test('a cancel in a flood of 500 reads leaves at once, and so does the next', async () => {
    const budget = open(25)
    const reads = Array.from({ length: 500 }, () => ask(budget, 'list'))
    await vi.advanceTimersByTimeAsync(3_210)
    const cancels = [ask(budget, 'cancel'), ask(budget, 'cancel')]
    await settle()
    expect(cancels.map((cancel) => (cancel.grantedAt ?? Infinity) - cancel.askedAt)).toEqual([0, 0])
    expect(mostWithin([...reads, ...cancels], windowMs)).toBeLessThanOrEqual(20)
  })

  test('200 reads a second leave a placement a place within a second, from the first second on', async () => {
    const budget = open(25)
    const all: Wish[] = []
    const places: Wish[] = []
    for (let ms = 0; ms < 20_000; ms += 5) {
      all.push(ask(budget, 'read', 8_000))
      if (ms % 500 === 245) places.push(ask(budget, 'place', 1_000))
      await vi.advanceTimersByTimeAsync(5)
    }
    await vi.advanceTimersByTimeAsync(10_000)
    expect(granted(places)).toHaveLength(40)
    expect(mostWithin([...all, ...places], 1_000)).toBeLessThanOrEqual(20)
    // Nobody hangs on: a read was served in its time or refused at once.
    for (const read of all) if (read.grantedAt === null) throttledOf(read)
  })
})

describe('a share', () => {
  const sharesOf = (perSecond: number): Record<'lookup' | 'snapshot', number> => {
    const limit = Math.max(1, Math.floor(perSecond * 0.8))
    return {
      lookup: Math.max(1, Math.floor(limit / 5)),
      snapshot: Math.max(1, Math.floor(Math.max(1, limit - 2) / 2)),
    }
  }

  test.each([1, 4, 10, 25, 100, 1_000])(
    '%i a second: lookups take a fifth of the places in every second, and all of that',
    async (perSecond) => {
      const share = sharesOf(perSecond).lookup
      const budget = open(perSecond)
      const lookups = Array.from({ length: share * 10 }, () => ask(budget, 'lookup'))
      await vi.advanceTimersByTimeAsync(windowMs * 9)
      expect(granted(lookups)).toHaveLength(share * 10)
      expect(mostWithin(lookups, windowMs)).toBe(share)
    },
  )

  test.each([1, 4, 10, 25, 100, 1_000])(
    '%i a second: looks before placements take half of what placements may, and all of that',
    async (perSecond) => {
      const share = sharesOf(perSecond).snapshot
      const budget = open(perSecond)
      const looks = Array.from({ length: share * 10 }, () => ask(budget, 'snapshot'))
      await vi.advanceTimersByTimeAsync(windowMs * 9)
      expect(granted(looks)).toHaveLength(share * 10)
      expect(mostWithin(looks, windowMs)).toBe(share)
    },
  )

  test('of looks before placements is not taken at the pace of reads', async () => {
    const budget = open(25)
    const all = [...Array<Lane>(9).fill('place'), ...Array<Lane>(9).fill('snapshot')].map((lane) => ask(budget, lane))
    await settle()
    expect(granted(all)).toHaveLength(18)
  })

  test('that is used up holds back no lower lane, however many wait for it', async () => {
    const budget = open(25)
    const lookups = Array.from({ length: 100 }, () => ask(budget, 'lookup'))
    // Three quarters of the places leave at once, the rest at the pace of reads: nothing else is in their way.
    const reads = Array.from({ length: 13 }, () => ask(budget, 'read', 600))
    await settle()
    expect(granted(lookups)).toHaveLength(4)
    expect(granted(reads).length).toBeGreaterThanOrEqual(9)
    await vi.advanceTimersByTimeAsync(599)
    expect(granted(reads)).toHaveLength(13)
    expect(granted(lookups)).toHaveLength(4)
    // And it is theirs again a window later, before all reads.
    const more = Array.from({ length: 100 }, () => ask(budget, 'list', 8_000))
    await vi.advanceTimersByTimeAsync(windowMs - 599)
    expect(granted(lookups)).toHaveLength(8)
    expect(mostWithin([...lookups, ...reads, ...more], windowMs)).toBeLessThanOrEqual(18)
  })

  test('is of what is left after a 429', async () => {
    const budget = open(100)
    budget.pause(1_000)
    const lookups = Array.from({ length: 100 }, () => ask(budget, 'lookup'))
    const reads = Array.from({ length: 10 }, () => ask(budget, 'read', 1_001))
    await vi.advanceTimersByTimeAsync(999)
    expect(granted([...lookups, ...reads])).toHaveLength(0)
    await vi.advanceTimersByTimeAsync(1)
    expect(granted(lookups)).toHaveLength(8)
    expect(granted(reads)).toHaveLength(10)
  })

  test('that cannot serve a lookup by its deadline refuses it at once, and says when it can', async () => {
    const budget = open(25)
    for (let i = 0; i < 4; i++) ask(budget, 'lookup')
    await vi.advanceTimersByTimeAsync(100)
    const hurried = ask(budget, 'lookup', 1_000)
    await settle()
    expect(hurried.endedAt).toBe(hurried.askedAt)
    expect(throttledOf(hurried).retryAfterMs).toBe(1_000)
    const patient = Array.from({ length: 9 }, () => ask(budget, 'lookup', 1_000 + 2 * windowMs))
    await settle()
    expect(patient.map(({ endedAt }) => endedAt)).toEqual([...Array<null>(8).fill(null), patient[8]?.askedAt])
    expect(throttledOf(patient[8] as Wish).retryAfterMs).toBe(1_000 + 2 * windowMs)
    await vi.advanceTimersByTimeAsync(1_000 + windowMs)
    expect(granted(patient)).toHaveLength(8)
  })

  test('has the place of a lookup that was never sent back at once', async () => {
    const budget = open(10)
    const slow = ask(budget, 'lookup', 60_000, undefined, () => {})
    const next = ask(budget, 'lookup')
    await vi.advanceTimersByTimeAsync(3_000)
    expect(next.grantedAt).toBeNull()
    slow.place?.release()
    await settle()
    expect(next.grantedAt).toBe(next.askedAt + 3_000)
  })

  test.each([10, 25, 100])(
    '%i a second: many placements that look first, all at once, and each that has looked leaves',
    async (perSecond) => {
      const budget = open(perSecond)
      const looks: Wish[] = []
      const places: Wish[] = []
      for (let i = 0; i < 200; i++) {
        looks.push(
          ask(budget, 'snapshot', 5_000, undefined, (look) => {
            send(look)
            setTimeout(() => places.push(ask(budget, 'place', 1_000)), 20)
          }),
        )
      }
      await vi.advanceTimersByTimeAsync(10_000)
      expect(granted(looks).length).toBeGreaterThanOrEqual(Math.min(200, sharesOf(perSecond).snapshot * 5))
      expect(granted(places)).toHaveLength(granted(looks).length)
    },
  )
})

describe('a place', () => {
  const keep = (): void => {}

  test('counts from when the call was sent, and until then', async () => {
    const budget = open(10)
    const slow = Array.from({ length: 6 }, () => ask(budget, 'place', 60_000, undefined, keep))
    const next = ask(budget, 'place', 10_000)
    await vi.advanceTimersByTimeAsync(3_000)
    expect(granted(slow)).toHaveLength(6)
    expect(next.endedAt).toBeNull()
    for (const wish of slow) send(wish)
    await vi.advanceTimersByTimeAsync(windowMs - 1)
    expect(next.endedAt).toBeNull()
    await vi.advanceTimersByTimeAsync(1)
    expect(next.grantedAt).not.toBeNull()
  })

  test('is free at once if its call was not sent, for the first in the queue', async () => {
    const budget = open(10)
    const slow = Array.from({ length: 6 }, () => ask(budget, 'place', 60_000, undefined, keep))
    const list = ask(budget, 'list')
    const next = ask(budget, 'place', 10_000)
    await vi.advanceTimersByTimeAsync(10)
    slow[3]?.place?.release()
    await settle()
    expect(next.grantedAt).toBe(next.askedAt + 10)
    expect(list.grantedAt).toBeNull()
  })

  test('is one permit, also if `sent` and `release` are called more often', async () => {
    const budget = open(10)
    const sent = ask(budget, 'place')
    const over = ask(budget, 'place', 60_000, undefined, keep)
    await settle()
    for (let i = 0; i < 3; i++) {
      sent.place?.release()
      sent.place?.sent()
      over.place?.release()
      over.place?.sent()
    }
    const others = Array.from({ length: 10 }, () => ask(budget, 'cancel'))
    await settle()
    expect(granted(others)).toHaveLength(7)
    await vi.advanceTimersByTimeAsync(windowMs)
    expect(granted(others)).toHaveLength(10)
  })

  test('that is not used yet is expected a window from now, again at the deadline', async () => {
    const budget = open(10)
    const slow = Array.from({ length: 6 }, () => ask(budget, 'place', 60_000, undefined, keep))
    await vi.advanceTimersByTimeAsync(500)
    const hurried = ask(budget, 'place', 1_000)
    const patient = ask(budget, 'place', 2_000)
    await settle()
    expect(hurried.endedAt).toBe(hurried.askedAt)
    expect(throttledOf(hurried).retryAfterMs).toBe(windowMs)
    expect(patient.endedAt).toBeNull()
    for (const wish of slow.slice(1)) send(wish)
    await vi.advanceTimersByTimeAsync(300)
    // Those that were sent come free first.
    const sooner = ask(budget, 'cancel', 700)
    const third = [ask(budget, 'cancel', 700), ask(budget, 'cancel', 700), ask(budget, 'cancel', 801)]
    await settle()
    expect([sooner, ...third].map((wish) => wish.grantedAt !== null)).toEqual([true, true, false, false])
    expect(throttledOf(third[1] as Wish).retryAfterMs).toBe(800)
    await vi.advanceTimersByTimeAsync(800)
    expect(third[2]?.grantedAt).not.toBeNull()
    await vi.advanceTimersByTimeAsync(900)
    expect(patient.endedAt).not.toBeNull()
  })

  test('is left for placements where reads are granted and not sent, as when their connections hang', async () => {
    const budget = open(100)
    const reads = Array.from({ length: 1_000 }, () => ask(budget, 'read', 8_000, undefined, keep))
    await vi.advanceTimersByTimeAsync(3_000)
    const place = ask(budget, 'place', 1_000)
    const look = ask(budget, 'snapshot', 1_000)
    await settle()
    expect(place.grantedAt).toBe(place.askedAt)
    expect(look.grantedAt).toBe(look.askedAt)
    // All the same, the reads go on as soon as they can.
    const before = granted(reads)
    for (const read of before) send(read)
    await vi.advanceTimersByTimeAsync(windowMs * 2)
    expect(granted(reads).length).toBeGreaterThan(before.length + 50)
  })
})

describe('callers', () => {
  interface Asking {
    lane?: Lane
    withinMs?: number
    signal?: AbortSignal
    /** Called when it has left. */
    onLeft?: () => void
  }

  /** One budget, the callers of those who left, in that order, and a way to ask in the name of each. */
  function openFor(perSecond: number) {
    const budget = open(perSecond)
    const order: (string | null)[] = []
    const askAs = (caller: string | null, count: number, asking: Asking = {}): Wish[] => {
      const { lane = 'read', withinMs, signal, onLeft } = asking
      const use = (wish: Wish): void => {
        send(wish)
        order.push(caller)
        onLeft?.()
      }
      return Array.from({ length: count }, () => ask(budget, lane, withinMs, signal, use, caller))
    }
    return { budget, order, askAs }
  }

  test('one who asks for much keeps another waiting for one turn', async () => {
    const { order, askAs } = openFor(25)
    askAs('much', 200)
    await vi.advanceTimersByTimeAsync(3_000)
    for (let i = 0; i < 5; i++) {
      const before = order.length
      const [little] = askAs('little', 1)
      await vi.advanceTimersByTimeAsync(500)
      expect(little?.grantedAt).not.toBeNull()
      expect(order.slice(before, before + 2)).toEqual(['much', 'little'])
    }
  })

  test.each(lanes)('take turns in the lane %s, and each of them in the order in which it came', async (lane) => {
    const { budget, order, askAs } = openFor(25)
    budget.pause(1_000)
    const a = askAs('a', 4, { lane })
    askAs('b', 1, { lane })
    askAs(null, 2, { lane })
    askAs('c', 3, { lane })
    await vi.advanceTimersByTimeAsync(10_000)
    expect(order).toEqual(['a', 'b', null, 'c', 'a', null, 'c', 'a', 'c', 'a'])
    const times = a.map(({ grantedAt }) => grantedAt ?? Infinity)
    expect(times).toEqual([...times].sort((one, other) => one - other))
  })

  test('do not take turns across lanes', async () => {
    const { budget, order, askAs } = openFor(25)
    budget.pause(1_000)
    askAs('list', 1, { lane: 'list' })
    askAs('read', 20)
    await vi.advanceTimersByTimeAsync(10_000)
    expect(order.indexOf('list')).toBe(20)
  })

  test('one alone has the whole rate, and so has null', async () => {
    const left: number[][] = []
    for (const caller of ['alone', null]) {
      const { askAs } = openFor(25)
      const startedAt = performance.now()
      const reads = askAs(caller, 200)
      await vi.advanceTimersByTimeAsync(8_000)
      left.push(granted(reads).map(({ grantedAt }) => (grantedAt ?? 0) - startedAt))
    }
    expect(left[0]?.length).toBeGreaterThan(100)
    expect(left[0]).toEqual(left[1])
  })

  test('one who asks for more than can leave in time is refused, and another is not', async () => {
    // Placements leave at no pace of their own, so that what is expected of them is exact.
    const lane = 'place'
    const { order, askAs } = openFor(10)
    const flood = askAs('much', 200, { lane, withinMs: 8_000 })
    await settle()
    const refused = flood.filter(({ error }) => error !== null)
    expect(refused).toHaveLength(200 - 6 * 8)
    for (const wish of refused) throttledOf(wish)
    const before = order.length
    const little = askAs('little', 3, { lane, withinMs: 2_000 })
    await vi.advanceTimersByTimeAsync(2_000)
    expect(granted(little)).toHaveLength(3)
    expect(order.slice(before, before + 6)).toEqual(['much', 'little', 'much', 'little', 'much', 'little'])
    // As many of those that were admitted before hear at their deadline that they were overtaken.
    await vi.advanceTimersByTimeAsync(5_999)
    const overtaken = flood.filter(({ endedAt }) => endedAt === null)
    expect(overtaken).toHaveLength(3)
    await vi.advanceTimersByTimeAsync(1)
    for (const wish of overtaken) throttledOf(wish)
  })

  test('one that leaves and comes back passes no waiter', async () => {
    const lane = 'place'
    // One at a time.
    const { budget, order, askAs } = openFor(4)
    budget.pause(1_000)
    let controller = new AbortController()
    askAs('restless', 1, { lane, signal: controller.signal })
    askAs('a', 10, { lane })
    askAs('b', 10, { lane })
    // Nor by coming back whenever it has left.
    const again = (): void => void askAs('restless', 1, { lane, onLeft: again })
    for (let i = 0; i < 20; i++) {
      controller.abort('left')
      controller = new AbortController()
      askAs('restless', 1, { lane, signal: controller.signal, onLeft: again })
    }
    await vi.advanceTimersByTimeAsync(1_000 + 11 * windowMs)
    expect(order).toEqual(Array.from({ length: 4 }, () => ['a', 'b', 'restless']).flat())
  })

  test('each of many has its place soon, however many one of them has waiting', async () => {
    const { askAs } = openFor(1_000)
    askAs('much', 5_000, { withinMs: 12_000 })
    await vi.advanceTimersByTimeAsync(500)
    const many = Array.from({ length: 500 }, (_, index) => askAs(`little ${index}`, 1, { withinMs: 1_000 }))
    await vi.advanceTimersByTimeAsync(1_000)
    expect(granted(many.flat())).toHaveLength(500)
  })
})

describe('deadlines', () => {
  test('a call whose place cannot come by its deadline is refused at once and told when to come', async () => {
    const budget = open(10)
    for (let i = 0; i < 6; i++) ask(budget, 'list')
    await vi.advanceTimersByTimeAsync(500)
    for (let i = 0; i < 6; i++) ask(budget, 'place')
    const late = ask(budget, 'place', 900)
    await settle()
    expect(late.endedAt).toBe(late.askedAt)
    const again = throttledOf(late).retryAfterMs ?? 0
    // As told, it is served.
    const patient = ask(budget, 'place', again + 1)
    await vi.advanceTimersByTimeAsync(again)
    expect(patient.grantedAt).not.toBeNull()
  })

  test('a call that others overtake is refused when its deadline passes', async () => {
    const budget = open(10)
    for (let i = 0; i < 6; i++) ask(budget, 'place')
    const list = ask(budget, 'list', 1_500)
    await vi.advanceTimersByTimeAsync(100)
    for (let i = 0; i < 12; i++) ask(budget, 'place')
    await vi.advanceTimersByTimeAsync(1_399)
    expect(list.endedAt).toBeNull()
    await vi.advanceTimersByTimeAsync(1)
    throttledOf(list)
  })

  test('a deadline that has passed is refused although there are places', async () => {
    const late = ask(open(10), 'cancel', 0)
    await settle()
    throttledOf(late)
  })

  test('the queue is no longer than what can leave within 60 s, however patient the callers are', async () => {
    const budget = open(10)
    const reads = Array.from({ length: 2_000 }, () => ask(budget, 'list', 86_400_000))
    await settle()
    const waiting = reads.filter((read) => read.endedAt === null)
    expect(waiting.length).toBeLessThanOrEqual(55 * 8)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(reads.every((read) => read.endedAt !== null)).toBe(true)
  })

  test('nor are the queues of many callers: each has no more waiting than leave before its next', async () => {
    const budget = open(10)
    const lane = 'place'
    const lengths: number[] = []
    for (let i = 0; i < 5; i++) {
      const patient = Array.from({ length: 500 }, () => ask(budget, lane, 86_400_000, undefined, send, `caller ${i}`))
      await settle()
      lengths.push(patient.filter((wish) => wish.endedAt === null).length)
    }
    const most = 55 * 6
    for (const [index, length] of lengths.entries()) {
      expect(length).toBeGreaterThan(most / (index + 1) - 10)
      expect(length).toBeLessThanOrEqual(most / (index + 1) + 1)
    }
  })

  test('a step of the wall clock opens no place', async () => {
    const budget = open(10)
    for (let i = 0; i < 6; i++) ask(budget, 'place')
    vi.setSystemTime(Date.now() + 3_600_000)
    const next = ask(budget, 'place')
    await vi.advanceTimersByTimeAsync(windowMs - 1)
    expect(next.endedAt).toBeNull()
    await vi.advanceTimersByTimeAsync(1)
    expect(next.grantedAt).not.toBeNull()
  })

  test('the caller that leaves gets its own reason and frees its place in the queue', async () => {
    const budget = open(10)
    for (let i = 0; i < 6; i++) ask(budget, 'place')
    const controller = new AbortController()
    const reason = new Error('gone')
    const leaving = Array.from({ length: 100 }, () => ask(budget, 'place', 60_000, controller.signal))
    const staying = ask(budget, 'list')
    controller.abort(reason)
    await vi.advanceTimersByTimeAsync(windowMs)
    expect(new Set(leaving.map((wish) => wish.error))).toEqual(new Set([reason]))
    expect(staying.grantedAt).toBe(staying.askedAt + windowMs)
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    const served = new AbortController()
    ask(budget, 'cancel', 1_000, served.signal)
    await settle()
    expect(getEventListeners(served.signal, 'abort')).toEqual([])
    const gone = ask(budget, 'cancel', 1_000, controller.signal)
    await settle()
    expect(gone.error).toBe(reason)
  })
})

describe('pauses', () => {
  test('nothing leaves in a pause, then half as much, then step by step as much as before', async () => {
    const budget = open(25)
    budget.pause(2_000)
    const cancels = Array.from({ length: 400 }, () => ask(budget, 'cancel'))
    await vi.advanceTimersByTimeAsync(1_999)
    expect(granted(cancels)).toHaveLength(0)
    await vi.advanceTimersByTimeAsync(1)
    expect(granted(cancels)).toHaveLength(10)
    await vi.advanceTimersByTimeAsync(15_000)
    const before = granted(cancels).length
    await vi.advanceTimersByTimeAsync(windowMs)
    expect(granted(cancels).length - before).toBe(20)
    expect(mostWithin(cancels, windowMs)).toBeLessThanOrEqual(20)
  })

  test('a call in a pause that cannot wait for its end is refused at once, also with permits taken before', async () => {
    const budget = open(10)
    for (let i = 0; i < 6; i++) ask(budget, 'place')
    await vi.advanceTimersByTimeAsync(10)
    budget.pause(3_000)
    const hurried = ask(budget, 'place', 2_000)
    await settle()
    expect(throttledOf(hurried).retryAfterMs).toBe(3_000)
    const patient = ask(budget, 'place', 3_500)
    await vi.advanceTimersByTimeAsync(3_000)
    expect(patient.grantedAt).toBe(patient.askedAt + 3_000)
  })

  test('many 429s of one burst halve once, and the longest wait holds', async () => {
    const budget = open(25)
    for (const ms of [100, 1_500, 300, 0, 700]) budget.pause(ms)
    const cancels = Array.from({ length: 30 }, () => ask(budget, 'cancel'))
    await vi.advanceTimersByTimeAsync(1_499)
    expect(granted(cancels)).toHaveLength(0)
    await vi.advanceTimersByTimeAsync(1)
    expect(granted(cancels)).toHaveLength(10)
  })

  test('however often it is halved, reads and cancels still leave', async () => {
    const budget = open(10)
    for (let i = 0; i < 20; i++) {
      budget.pause(1_200)
      await vi.advanceTimersByTimeAsync(1_200)
    }
    budget.pause(1_200)
    const wishes = [ask(budget, 'list'), ask(budget, 'cancel'), ask(budget, 'cancel'), ask(budget, 'cancel')]
    await vi.advanceTimersByTimeAsync(1_200)
    expect(wishes.map((wish) => wish.grantedAt !== null)).toEqual([false, true, true, true])
    await vi.advanceTimersByTimeAsync(windowMs)
    expect(wishes[0]?.grantedAt).not.toBeNull()
  })

  test('a pause of an hour is one of a minute, and a call that cannot wait is refused at once', async () => {
    const budget = open(10)
    budget.pause(3_600_000)
    const cancel = ask(budget, 'cancel', 1_000)
    await settle()
    expect(throttledOf(cancel).retryAfterMs).toBe(60_000)
    await vi.advanceTimersByTimeAsync(60_000)
    const next = ask(budget, 'cancel', 1_000)
    await settle()
    expect(next.grantedAt).not.toBeNull()
  })
})

test('closed, it refuses who waits and who comes', async () => {
  const budget = open(10)
  const wishes = Array.from({ length: 20 }, () => ask(budget, 'list'))
  budget.close()
  wishes.push(ask(budget, 'cancel'))
  await settle()
  const refused = wishes.filter((wish) => wish.grantedAt === null)
  expect(refused).toHaveLength(20 - 4 + 1)
  for (const wish of refused) expect(wish.error).toMatchObject({ kind: 'not_sent', effect: 'none' })
})

// ---- laws -------------------------------------------------------------------------------------------------------

type Step =
  | {
      kind: 'ask'
      lane: Lane
      count: number
      withinMs: number
      abortAfterMs: number | null
      /** From the grant to the headers, or to the end of a call without. */
      useAfterMs: number
      isNeverSent: boolean
    }
  | { kind: 'pause'; ms: number }
  | { kind: 'wait'; ms: number }

const stepArb: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('ask' as const),
      lane: fc.constantFrom(...lanes),
      count: fc.integer({ min: 1, max: 30 }),
      withinMs: fc.integer({ min: 0, max: 15_000 }),
      abortAfterMs: fc.option(fc.integer({ min: 0, max: 3_000 }), { freq: 4 }),
      useAfterMs: fc.oneof(fc.constant(0), fc.nat(1_500)),
      isNeverSent: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('pause' as const), ms: fc.integer({ min: 0, max: 4_000 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 2_500 }) }),
  },
)

test('any calls, sent at any time: the limit holds in every second, and each is answered by its deadline', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 40 }),
      fc.array(stepArb, { minLength: 1, maxLength: 40, size: 'max' }),
      async (perSecond, steps) => {
        const limit = Math.max(1, Math.floor(perSecond * 0.8))
        const budget = createBudget({ perSecond })
        const wishes: Wish[] = []
        const pauses: { from: number; to: number; before: Set<Wish> }[] = []
        for (const step of steps) {
          if (step.kind === 'wait') await vi.advanceTimersByTimeAsync(step.ms)
          else if (step.kind === 'pause') {
            await settle()
            const from = performance.now()
            // What was granted in this very millisecond is not what the pause is about.
            pauses.push({ from, to: from + step.ms, before: new Set(granted(wishes)) })
            budget.pause(step.ms)
          } else {
            const controller = new AbortController()
            // Each a little later than the one before.
            const use = (wish: Wish, index: number): void => {
              const end = (): void => {
                if (!step.isNeverSent) send(wish)
                wish.place?.release()
              }
              if (step.useAfterMs === 0) end()
              else setTimeout(end, (step.useAfterMs + index * 37) % 1_500)
            }
            for (let i = 0; i < step.count; i++) {
              wishes.push(ask(budget, step.lane, step.withinMs, controller.signal, (wish) => use(wish, i)))
            }
            if (step.abortAfterMs !== null) setTimeout(() => controller.abort('left'), step.abortAfterMs)
          }
        }
        await vi.advanceTimersByTimeAsync(15_000 + 1_500 + 20_000)
        // No place was lost: all of them are there again.
        const last = Array.from({ length: limit + 1 }, () => ask(budget, 'cancel', 15_000))
        await settle()
        expect(granted(last)).toHaveLength(limit)
        await vi.advanceTimersByTimeAsync(windowMs)
        expect(granted(last)).toHaveLength(limit + 1)
        budget.close()
        await settle()

        expect(mostWithin(wishes, windowMs)).toBeLessThanOrEqual(limit)
        expect(
          mostWithin(
            wishes.filter((wish) => wish.lane !== 'cancel'),
            windowMs,
          ),
        ).toBeLessThanOrEqual(Math.max(1, limit - 2))
        for (const [lane, share] of [
          ['lookup', limit / 5],
          ['snapshot', Math.max(1, limit - 2) / 2],
        ] as const) {
          const ofLane = wishes.filter((wish) => wish.lane === lane)
          expect(mostWithin(ofLane, windowMs)).toBeLessThanOrEqual(Math.max(1, Math.floor(share)))
        }
        for (const wish of wishes) {
          expect(wish.endedAt).not.toBeNull()
          expect(wish.endedAt).toBeLessThanOrEqual(wish.deadline)
          if (wish.grantedAt === null && wish.error !== 'left') throttledOf(wish)
        }
        for (const { from, to, before } of pauses) {
          const escaped = granted(wishes).filter((wish) => {
            const at = wish.grantedAt ?? 0
            return at >= from && at < to && !before.has(wish)
          })
          expect(escaped).toEqual([])
        }
        // In a lane nobody is overtaken by who came later and was as patient.
        for (const lane of lanes) {
          const times = granted(wishes.filter((wish) => wish.lane === lane)).map((wish) => wish.grantedAt ?? 0)
          expect(times).toEqual([...times].sort((a, b) => a - b))
        }
        expect(vi.getTimerCount()).toBe(0)
      },
    ),
    { numRuns: 150, seed: 20_251_120 },
  )
})

test('however late calls are sent, or not at all: who waits is served as fast as places come free', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 40 }),
      fc.array(fc.record({ afterMs: fc.nat(1_500), isSent: fc.boolean() }), { minLength: 1, maxLength: 50 }),
      fc.constantFrom<Lane>('place', 'snapshot', 'lookup'),
      async (perSecond, uses, lane) => {
        const budget = createBudget({ perSecond })
        let used = 0
        const use = (wish: Wish): void => {
          const { afterMs, isSent } = uses[used++ % uses.length] ?? { afterMs: 0, isSent: true }
          setTimeout(() => {
            if (isSent) send(wish)
            wish.place?.release()
          }, afterMs)
        }
        const limit = Math.max(1, Math.floor(perSecond * 0.8))
        const all = Math.max(1, limit - 2)
        const places =
          lane === 'place' ? all : Math.max(1, lane === 'snapshot' ? Math.floor(all / 2) : Math.floor(limit / 5))
        // At worst each place is taken for the longest time between grant and sending, and a window.
        const wishes = Array.from({ length: places * 10 }, () => ask(budget, lane, 60_000, undefined, use))
        await vi.advanceTimersByTimeAsync(10 * (1_500 + windowMs))
        expect(granted(wishes)).toHaveLength(wishes.length)
        expect(mostWithin(wishes, windowMs)).toBeLessThanOrEqual(places)
        budget.close()
      },
    ),
    { numRuns: 60, seed: 3 },
  )
})

test('with any flood the first two cancels of a second leave at once', async () => {
  await fc.assert(
    fc.asyncProperty(
      // With fewer there are no places kept for them.
      fc.integer({ min: 4, max: 60 }),
      fc.array(fc.record({ lane: fc.constantFrom(...lanes.slice(1)), atMs: fc.nat(3_000) }), {
        maxLength: 500,
        size: 'max',
      }),
      fc.array(fc.integer({ min: windowMs, max: 3_000 }), { minLength: 1, maxLength: 4, size: 'max' }),
      async (perSecond, flood, gaps) => {
        const budget = createBudget({ perSecond })
        for (const { lane, atMs } of flood) setTimeout(() => ask(budget, lane, 8_000), atMs)
        for (const gapMs of gaps) {
          await vi.advanceTimersByTimeAsync(gapMs)
          const cancels = [ask(budget, 'cancel', 1_000), ask(budget, 'cancel', 1_000)]
          await settle()
          expect(cancels.map((cancel) => (cancel.grantedAt ?? Infinity) - cancel.askedAt)).toEqual([0, 0])
        }
        await vi.advanceTimersByTimeAsync(12_000)
        budget.close()
      },
    ),
    { numRuns: 60, seed: 7 },
  )
})

const callerArb = fc.constantFrom<string | null>('a', 'b', 'c', null)

test('with any arrivals and departures, the next caller of a lane is the one that has waited longest since its last turn', async () => {
  const arrivalArb = fc.record({
    caller: callerArb,
    lane: fc.constantFrom(...lanes),
    count: fc.integer({ min: 1, max: 20 }),
    withinMs: fc.integer({ min: 0, max: 15_000 }),
    leavesAfterMs: fc.option(fc.nat(3_000), { freq: 2 }),
    waitMs: fc.oneof(fc.constant(0), fc.nat(2_000)),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 40 }),
      fc.array(arrivalArb, { minLength: 1, maxLength: 30, size: 'max' }),
      async (perSecond, arrivals) => {
        const budget = createBudget({ perSecond })
        const wishes: Wish[] = []
        // In the order in which they came.
        const waiting: Wish[] = []
        // Since when a caller in a lane has waited for its turn, counted in what happened.
        const since = new Map<string, number>()
        let happened = 0
        const toKey = ({ lane, caller }: Wish): string => `${lane} ${caller}`
        const leave = (wish: Wish): void => {
          waiting.splice(waiting.indexOf(wish), 1)
          if (!waiting.some((other) => toKey(other) === toKey(wish))) since.delete(toKey(wish))
        }
        const forgetEnded = (): void => {
          for (const wish of waiting.filter(({ error }) => error !== null)) leave(wish)
        }
        const outOfTurn: Wish[] = []
        const use = (wish: Wish): void => {
          forgetEnded()
          const ofLane = waiting.filter(({ lane }) => lane === wish.lane)
          const next = Math.min(...ofLane.map((other) => since.get(toKey(other)) ?? NaN))
          const first = ofLane.find((other) => since.get(toKey(other)) === next)
          if (first !== wish) outOfTurn.push(wish)
          since.set(toKey(wish), happened++)
          leave(wish)
          send(wish)
        }
        for (const { caller, lane, count, withinMs, leavesAfterMs, waitMs } of arrivals) {
          const controller = new AbortController()
          if (leavesAfterMs !== null) setTimeout(() => controller.abort('left'), leavesAfterMs)
          for (let i = 0; i < count; i++) {
            const wish = ask(budget, lane, withinMs, controller.signal, use, caller)
            wishes.push(wish)
            waiting.push(wish)
            if (!since.has(toKey(wish))) since.set(toKey(wish), happened++)
            await settle()
            forgetEnded()
          }
          await vi.advanceTimersByTimeAsync(waitMs)
          forgetEnded()
        }
        await vi.advanceTimersByTimeAsync(15_000)
        budget.close()
        expect(outOfTurn).toEqual([])
        expect(mostWithin(wishes, windowMs)).toBeLessThanOrEqual(Math.max(1, Math.floor(perSecond * 0.8)))
        for (const wish of wishes) {
          expect(wish.endedAt).not.toBeNull()
          expect(wish.endedAt).toBeLessThanOrEqual(wish.deadline)
        }
      },
    ),
    { numRuns: 60, seed: 11 },
  )
})

test('without later calls, an admitted call leaves in time, and a refused one would have left when its error says', async () => {
  const arrivalArb = fc.record({
    caller: callerArb,
    count: fc.integer({ min: 1, max: 20 }),
    withinMs: fc.integer({ min: 0, max: 15_000 }),
    waitMs: fc.oneof(fc.constant(0), fc.nat(1_500)),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 40 }),
      // Those that leave at no pace of their own: of others it is not exact.
      fc.constantFrom<Lane>('cancel', 'place', 'snapshot'),
      fc.array(arrivalArb, { minLength: 1, maxLength: 20, size: 'max' }),
      callerArb,
      async (perSecond, lane, arrivals, last) => {
        const budget = createBudget({ perSecond })
        const wishes: Wish[] = []
        for (const { caller, count, withinMs, waitMs } of arrivals) {
          for (let i = 0; i < count; i++) wishes.push(ask(budget, lane, withinMs, undefined, send, caller))
          await vi.advanceTimersByTimeAsync(waitMs)
        }
        const refused = ask(budget, lane, 0, undefined, send, last)
        await settle()
        const retryAfterMs = throttledOf(refused).retryAfterMs ?? NaN
        const admitted = ask(budget, lane, retryAfterMs + 1, undefined, send, last)
        wishes.push(admitted)
        await vi.advanceTimersByTimeAsync(60_000)
        budget.close()
        const waitedMs = (admitted.grantedAt ?? Infinity) - admitted.askedAt
        expect(waitedMs).toBeLessThanOrEqual(retryAfterMs)
        // Each that was admitted and had to be refused was overtaken by a later one, of another caller.
        const overtaken = wishes.filter(({ error, askedAt, endedAt }) => error !== null && endedAt !== askedAt)
        for (const wish of overtaken) {
          const later = wishes.slice(wishes.indexOf(wish) + 1).filter(({ caller }) => caller !== wish.caller)
          expect(later.some(({ grantedAt }) => grantedAt !== null && grantedAt <= wish.deadline)).toBe(true)
        }
        // Those that were ahead and were refused have made it sooner. And no answer says less than 1.
        const isExact = overtaken.every(({ endedAt }) => (endedAt ?? Infinity) <= admitted.askedAt)
        if (isExact) expect(Math.max(1, waitedMs)).toBe(retryAfterMs)
      },
    ),
    { numRuns: 150, seed: 13 },
  )
})
