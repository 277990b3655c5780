// What a history is made of, all of it out of its seed: a broker with its traits, what callers want and when, and what
// goes wrong. Each kind of fault is left out of most histories, or the frequent ones would hide what the rare ones do.

import type { createCommands } from '../../src/trading/placeOrder.ts'
import type { NewOrder } from '../../src/domain/order.ts'
import { cancelFates, idChanges, placeFates, readFates, termChanges } from './model.ts'
import type { Changes, Traits } from './model.ts'
import type { CrashPlan, Random, StoreFault } from './world.ts'

/** What is deliberately wrong, to see that it is noticed. */
export type Sabotage =
  /** The store is empty after a crash. */
  | 'forgets'
  /** The broker takes orders in after the settle time. */
  | 'late'
  /** The service waits for no settle time. */
  | 'hasty'
  /** The broker says "too many" and takes the order in all the same. */
  | 'proof'
  /** The broker says "canceled" and does nothing. */
  | 'canceled'
  /** The broker gives orders ids of its own and changes their terms, so that nothing is left to know them by. */
  | 'unrecognizable'
  /** The service's clock is an hour ahead of the broker's, which is more than it allows for. */
  | 'fast'

/** A wish of a caller: one order that it wants, under one key after another. */
export interface Intent {
  request: NewOrder
  startMs: number
  /** When each of the calls with the first key is made, in ms after the start. */
  callsMs: number[]
  /** How many keys the caller tries, where it is told that nothing exists. */
  keys: number
  /** Some of its calls come with another order under the same key. */
  isSloppy: boolean
  /** It names other keys as acknowledged. */
  acknowledges: boolean
  /** Ms after the start. */
  cancelsMs: number[]
}

type PlaceTimes = Parameters<typeof createCommands>[0]['times']

export interface Plan {
  traits: Traits
  times: PlaceTimes
  /** Orders of another channel, equal to those of the intents, with ids of their own or without. */
  foreign: 'none' | 'named' | 'nameless'
  /** An order may be later than the settle time: the window W1. */
  isW1: boolean
  intents: Intent[]
  crashes: CrashPlan[]
  /** When the service is stopped in good order. */
  stopsMs: number[]
  freezes: { atMs: number; ms: number }[]
  jumps: { atMs: number; aheadMs: number }[]
  storeFaults: { fromMs: number; toMs: number; fault: StoreFault }[]
  storeLatencyMs: number
  /** When a person looks at what is not known, and says which order it became where it became one. */
  personMs: number[]
  healMs: number
  /** The last step is to wait until keys are forgotten. */
  ages: boolean
}

const minute = 60_000
const hour = 60 * minute

const usualTimes: PlaceTimes = {
  replyMs: 10_000,
  settleMs: 120_000,
  lookupMs: [1_000, 3_000, 8_000, 20_000, 45_000, 90_000, 150_000],
  lateMs: [5 * minute, 15 * minute, hour, 24 * hour],
  sendByMs: { market: 10_000, other: 30_000 },
  assumeAbsent: true,
}

const gatesOfInterest = [
  'store.insert',
  'store.insert done',
  'store.update',
  'store.update done',
  'store.find done',
  'store.findDuplicateCandidates done',
  'store.findUnfinished done',
  'store.read',
  'place',
  'place recorded',
  'place answered',
  'place failed',
  'place refused',
  'scan there',
  'scan back',
  'scan all',
  'order back',
  'cancel',
  'cancel there',
  'cancel back',
  'sleep',
  'wake',
] as const

/** The plan that `random` makes, with `sabotage` built in. */
export function createPlan(random: Random, sabotage: Sabotage | null, changes: Changes): Plan {
  const times = createTimes(random)
  const isW1 = random.chance(0.04) && sabotage === null
  const endMs = random.between(5, 120) * 1_000
  const at = (): number => random.between(0, endMs)
  const some = <T>(most: number, create: () => T): T[] => Array.from({ length: random.between(0, most) }, create)
  const isRough = random.chance(0.75)
  const plan: Plan = {
    traits: createTraits(random, times.settleMs, changes),
    times,
    foreign: random.draw({ none: 3, named: 1, nameless: 1 }),
    isW1,
    intents: createIntents(random, endMs),
    crashes: isRough ? some(4, () => createCrash(random, at())) : [],
    stopsMs: random.chance(0.2) ? some(2, at) : [],
    freezes: random.chance(0.15) ? some(3, () => ({ atMs: at(), ms: random.between(100, 20_000) })) : [],
    // Back and forth, but never ahead of the broker's clock: that is the sabotage `fast`.
    jumps: random.chance(0.3) ? some(3, () => ({ atMs: at(), aheadMs: random.pick([-hour, -hour, 0, -minute]) })) : [],
    storeFaults: random.chance(0.4) ? some(3, () => createStoreFault(random, at())) : [],
    storeLatencyMs: random.pick([0, 0, 0, 3, 40]),
    personMs: random.chance(0.15) ? some(2, at) : [],
    healMs: endMs + random.between(0, 60_000),
    ages: random.chance(0.1),
  }
  const { traits } = plan
  if (isW1 || sabotage === 'late') {
    traits.lateShare = 3
    traits.place.late += 4
  }
  if (sabotage === 'forgets') plan.crashes.push(...some(4, () => createCrash(random, at())))
  if (sabotage === 'hasty') Object.assign(times, { settleMs: 0, lookupMs: [1, 2, 3] })
  if (sabotage === 'proof') traits.place.throttled += 5
  if (sabotage === 'unrecognizable') traits.changes = { ids: 'unrelated', terms: 'quantity' }
  if (sabotage === 'proof' || sabotage === 'canceled') traits.lie = sabotage
  if (sabotage === 'fast') plan.jumps = [{ atMs: 0, aheadMs: hour }]
  return plan
}

function createTimes(random: Random): PlaceTimes {
  const times = { ...usualTimes, assumeAbsent: !random.chance(0.05) }
  if (random.chance(0.7)) return times
  const settleMs = random.between(10_000, 60_000)
  return { ...times, settleMs, lookupMs: [1_000, 3_000, 8_000] }
}

/** A broker that changes ids or terms, in some of the histories. */
export function createChanges(random: Random): Changes {
  if (random.chance(0.6)) return unchanged
  const ids = random.pick(idChanges)
  // Changed terms are drawn only where the id is left to know an order by: the others are a window that stays open.
  const isKnown = ids === 'kept' || ids === 'prefixed' || ids === 'upperCase' || ids === 'noDashes'
  return { ids, terms: isKnown ? random.pick(termChanges) : 'kept' }
}

export const unchanged: Changes = { ids: 'kept', terms: 'kept' }

function createTraits(random: Random, settleMs: number, drawn: Changes): Traits {
  const ids = random.draw({ list: 4, mixed: 1, single: 3, none: 2 })
  const isCertified = ids === 'list' && random.chance(0.5)
  return {
    ids,
    // A broker that shows no ids has none to change, and its terms are all that is left.
    changes: ids === 'none' ? unchanged : drawn,
    isCertified: isCertified && drawn.ids === 'kept',
    settleMs,
    lateShare: random.pick([0, 0.1, 0.8]),
    lagShare: random.pick([0, 0, 0.05, 0.8]),
    staleMs: random.pick([0, 0, 2_000, 20_000]),
    latencyMs: random.pick([0, 20, 300, 2_000]),
    place: createWeights(random, placeFates, random.pick([0, 1, 4])),
    read: createWeights(random, readFates, random.pick([0, 0.3, 1])),
    cancel: createWeights(random, cancelFates, random.pick([0, 1, 4])),
    fillShare: random.pick([0, 0.3, 0.8]),
    lateFillShare: random.pick([0, 0.3]),
    breaksFilters: random.chance(0.1),
    lie: 'none',
  }
}

/** Some of the fates, each as likely as it comes; the first of them in any case. */
function createWeights<Name extends string>(
  random: Random,
  names: readonly Name[],
  strength: number,
): Record<Name, number> {
  const weights = names.map((name, index) => {
    const weight = random.chance(0.4) ? random.next() * strength : 0
    return [name, index === 0 ? 4 : weight] as const
  })
  return Object.fromEntries(weights) as Record<Name, number>
}

function createCrash(random: Random, fromMs: number): CrashPlan {
  if (random.chance(0.4)) return { fromMs, gate: null, skip: random.between(0, 40) }
  return { fromMs, gate: random.pick(gatesOfInterest), skip: random.between(0, 3) }
}

function createStoreFault(random: Random, fromMs: number): Plan['storeFaults'][number] {
  const fault = random.pick(['writes', 'all', 'flaky'] as const)
  return { fromMs, toMs: fromMs + random.pick([50, 500, 5_000, 30_000]), fault }
}

// Few, so that equal orders under different keys are common.
const economics: readonly Partial<NewOrder>[] = [
  { symbol: 'AAPL', side: 'BUY', type: 'LIMIT', quantity: '5', limitPrice: '10.0' },
  { symbol: 'AAPL', side: 'BUY', type: 'LIMIT', quantity: '6', limitPrice: '10.0' },
  { symbol: 'AAPL', side: 'SELL', type: 'MARKET', timeInForce: 'DAY', quantity: '3' },
  { symbol: 'MSFT', side: 'BUY', type: 'MARKET', timeInForce: 'DAY', notional: '250' },
]

function createIntents(random: Random, endMs: number): Intent[] {
  const kinds = random.between(1, economics.length)
  return Array.from({ length: random.pick([1, 2, 3, 6]) }, () => ({
    request: createRequest(random.pick(['acc_1', 'acc_1', 'acc_2']), economics[random.between(0, kinds - 1)] ?? {}),
    startMs: random.between(0, endMs / 2),
    callsMs: Array.from({ length: random.pick([1, 2, 3, 5]) }, (_, index) => {
      if (index === 0 || random.chance(0.3)) return 0
      return random.between(0, random.pick([12_000, 200_000]))
    }),
    keys: random.pick([1, 1, 2, 3]),
    isSloppy: random.chance(0.1),
    acknowledges: random.chance(0.3),
    cancelsMs: random.chance(0.5)
      ? Array.from({ length: random.between(1, 3) }, () => random.between(0, random.pick([5_000, 150_000])))
      : [],
  }))
}

function createRequest(accountId: string, change: Partial<NewOrder>): NewOrder {
  return {
    accountId,
    clientOrderId: '',
    symbol: 'AAPL',
    side: 'BUY',
    type: 'LIMIT',
    timeInForce: 'GTC',
    quantity: null,
    notional: null,
    limitPrice: null,
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    commission: null,
    commissionType: null,
    ...change,
  }
}
