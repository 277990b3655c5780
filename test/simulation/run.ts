// One history: the real commands over the real store, between callers and a broker out of a seed. As a program, many:
//
//   node test/simulation/run.ts [count] [first seed]

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createTally } from '../../src/upstream/readScope.ts'
import type { Broker } from '../../src/brokers/broker.ts'
import { createCommands } from '../../src/trading/placeOrder.ts'
import type { Commands } from '../../src/trading/placeOrder.ts'
import type { NewOrder } from '../../src/domain/order.ts'
import type { OrderPlacement, PlaceOrderResult } from '../../src/trading/outcomes.ts'
import { createRecords } from '../../src/trading/records.ts'
import { rememberOrders } from '../../src/brokers/orderMemory.ts'
import { openSqliteStore } from '../../src/store/sqlite/sqliteStore.ts'
import { isTombstone, StoreError } from '../../src/store/store.ts'
import type { Store } from '../../src/store/store.ts'
import { createModelBroker } from './model.ts'
import { createChanges, createPlan, unchanged } from './plan.ts'
import type { Intent, Plan, Sabotage } from './plan.ts'
import { createTruth } from './truth.ts'
import type { KeyFacts, Truth } from './truth.ts'
import { createProcess, createRandom, createStoreGate, createWorld, Violation } from './world.ts'
import type { Process, StoreFault, World } from './world.ts'

/** What happened, in numbers, and a hash of every line of it. */
export interface Outcome {
  counts: ReadonlyMap<string, number>
  hash: string
}

/** Runs the history of `seed`. Throws a Violation, with the seed and what happened last, when a promise is broken. */
export async function simulate(
  seed: number,
  sabotage: Sabotage | null = null,
  { tailLines = 40, mayChange = true } = {},
): Promise<Outcome> {
  const random = createRandom(seed)
  // From a sequence of its own, so that a seed means the same history with a broker that changes nothing.
  const changes = mayChange ? createChanges(createRandom(seed + 2 ** 31)) : unchanged
  const plan = createPlan(random, sabotage, changes)
  const world = createWorld(createRandom(Math.floor(random.next() * 2 ** 32)))
  const truth = createTruth(world, plan, sabotage)
  // In memory where there is such a place: what a crash may lose is for the model to say, and not for the disk.
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'blotter-simulation-'))
  const house = createHouse(world, { plan, truth, directory, forgets: sabotage === 'forgets' })
  try {
    createClients(world, plan, { truth, house })
    await runHistory(world, plan, { truth, house })
    return { counts: truth.counts, hash: world.hash() }
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    const { invariant, message } = error
    throw new Violation(invariant, `seed ${seed} breaks ${invariant}: ${message}\n${world.tail(tailLines).join('\n')}`)
  } finally {
    await house.close()
    rmSync(directory, { recursive: true, force: true })
  }
}

// ---- the service, life after life -----------------------------------------------------------------------------------

interface Service {
  process: Process
  commands: Commands
  broker: Broker
}

/** What became of a call: `lost` where the process died over it, or was not there. */
type Reply<T> = { kind: 'told'; result: T; process: Process } | { kind: 'lost' } | { kind: 'store' }

interface House {
  store(): Store
  lives(): number
  /** Ends when an answer is there; `limitMs` is when it has to be. */
  call<T>(what: string, limitMs: number, work: (service: Service) => Promise<T>): Promise<Reply<T>>
  freeze(ms: number): void
  /** Stops the service in good order; it starts again. */
  stop(): Promise<void>
  /** From now on nothing goes wrong. */
  heal(): void
  /** Stops it for good. */
  end(): Promise<void>
  /** Whatever is under way. */
  close(): Promise<void>
}

function createHouse(world: World, given: { plan: Plan; truth: Truth; directory: string; forgets: boolean }): House {
  const { plan, truth, directory } = given
  const { random } = world
  const outstanding = new Set<() => void>()
  let service: (Service & { isUp: boolean; isStopping: boolean }) | null = null
  let lives = 0
  let isHealed = false
  let isOver = false
  let store = openStore()

  function openStore(): Store {
    const name = given.forgets ? `placements-${lives}.sqlite` : 'placements.sqlite'
    return openSqliteStore({ file: join(directory, name), role: 'service', mayCreate: true })
  }

  function fault(): StoreFault {
    if (isHealed) return 'none'
    const now = world.now()
    return plan.storeFaults.find(({ fromMs, toMs }) => fromMs <= now && now < toMs)?.fault ?? 'none'
  }

  // Wired as serve.ts does it.
  async function start(): Promise<void> {
    const process = createProcess(world, `P${++lives}`, plan.crashes)
    world.note(`${process.name} STARTS`)
    const gated = createStoreGate(world, process, {
      store: () => store,
      fault,
      latencyMs: () => plan.storeLatencyMs,
      onFault: (name) => truth.count(`store fault: ${name}`),
      onChange: truth.noteChange,
    })
    const { exchange } = truth
    const model = createModelBroker(world, { exchange, traits: plan.traits, process, isCalm: () => isHealed })
    const broker = rememberOrders(model, {
      async findBound(orderId) {
        const placement = await gated.findByOrder('BLUUM', orderId)
        return placement && { accountId: placement.accountId, boundAt: placement.resolvedAt ?? placement.createdAt }
      },
      clock: process.clock,
      onAlarm: (message) => truth.checkTrouble(process, `ALARM: ${message}`, null),
    })
    const commands = createCommands({
      brokers: new Map([[broker.id, broker]]),
      store: gated,
      clock: process.clock,
      random: random.next,
      times: plan.times,
      trading: 'on',
      placementRate: null,
      onTrouble: (message, error) => process.isAlive() && truth.checkTrouble(process, message, error),
      onNotice: (message) => truth.count(`notice: ${message}`),
    })
    const started = { process, commands, broker, isUp: false, isStopping: false }
    service = started
    process.onDeath((why) => {
      started.isUp = false
      for (const lose of outstanding) lose()
      if (isOver) return
      truth.count('restarts')
      truth.count(`death: ${why}`)
      world.schedule(world.now() + (isHealed ? 100 : random.pick([10, 1_000, random.between(0, 60_000)])), restart)
    })
    await commands.start()
    started.isUp = process.isAlive()
  }

  function restart(): void {
    if (isOver) return
    // What was committed is there again, and nothing else.
    void store.close()
    store = openStore()
    begin()
  }

  function begin(): void {
    start().catch((error: unknown) => world.fail(0, `the start threw ${String(error)}`))
  }

  begin()
  return {
    store: () => store,
    lives: () => lives,

    call: (what, limitMs, work) =>
      new Promise((resolve) => {
        if (!service?.isUp) {
          resolve({ kind: 'lost' })
          return
        }
        const { process } = service
        const beganAt = world.now()
        world.note(`client ${what}`)
        const end = (reply: Parameters<typeof resolve>[0]): void => {
          takeBack()
          outstanding.delete(lose)
          resolve(reply)
        }
        const lose = (): void => end({ kind: 'lost' })
        outstanding.add(lose)
        const takeBack = world.schedule(beganAt + limitMs, () => {
          if (process.frozenUntil() < beganAt) world.fail(12, `no answer after ${limitMs} ms: ${what}`)
        })
        work(service).then(
          (result) => process.isAlive() && end({ kind: 'told', result, process }),
          (error: unknown) => {
            if (!process.isAlive()) return
            if (!(error instanceof StoreError)) world.fail(0, `${what} threw ${String(error)}`)
            end({ kind: 'store' })
          },
        )
      }),

    freeze: (ms) => service?.process.freeze(ms),

    async stop() {
      const stopped = service
      if (!stopped?.isUp || stopped.isStopping) return
      const { process, commands } = stopped
      stopped.isStopping = true
      truth.count('stops')
      world.note(`${process.name} STOPS`)
      // A POST in flight, or a cancel; all else gives up.
      const limitMs = 45_000
      const beganAt = world.now()
      const takeBack = world.schedule(beganAt + limitMs, () => {
        if (process.frozenUntil() < beganAt) world.fail(11, `${process.name} has not stopped after ${limitMs} ms`)
      })
      process.onDeath(takeBack)
      await commands.close()
      process.die('stopped')
    },

    heal() {
      world.note('everything is well from here on')
      isHealed = true
      plan.crashes.length = 0
    },

    async end() {
      isOver = true
      let isClosed = false
      void service?.commands.close().then(() => (isClosed = true))
      await world.run(world.now() + 1_000)
      if (!isClosed) world.fail(11, 'the service does not stop when nothing is under way')
    },

    async close() {
      isOver = true
      service?.process.die('the history is over')
      await store.close()
    },
  }
}

// ---- its callers ----------------------------------------------------------------------------------------------------

/** The calls that a caller makes, each of them checked. Null where nothing was answered. */
interface Caller {
  /** `isCareful`: with all the time there is, and the order as it was meant. */
  place(key: KeyFacts, isCareful: boolean): Promise<PlaceOrderResult | null>
  ask(key: KeyFacts): Promise<OrderPlacement | null>
  cancel(key: KeyFacts): Promise<void>
  read(key: KeyFacts): Promise<void>
}

interface Given {
  truth: Truth
  house: House
}

function createCaller(world: World, plan: Plan, { truth, house }: Given): Caller {
  const { random } = world
  const { times, storeLatencyMs } = plan

  // A caller's time, and that of the calls to the store at the end of an answer, which no deadline bounds.
  const toLimit = (timeoutMs: number | null): number =>
    Math.min(times.replyMs, timeoutMs ?? times.replyMs) + 250 + 20 * storeLatencyMs

  return {
    async place(key, isCareful) {
      const { intent, clientOrderId } = key
      const request: NewOrder = { ...intent.request, clientOrderId }
      if (request.quantity !== null) {
        const isOther = intent.isSloppy && !isCareful && random.chance(0.4)
        request.quantity = isOther ? '99' : request.quantity + random.pick(['', '.0', '.00'])
      }
      const timeoutMs = random.chance(0.4) && !isCareful ? random.between(50, 10_000) : null
      const bound = Math.floor(world.wallNow()) + random.between(-500, 20_000)
      const sendBy = random.chance(0.3) && !isCareful ? bound : null
      const acknowledged = intent.acknowledges ? [...truth.keys.keys()].filter(() => random.chance(0.7)) : []
      key.requests.push(request)
      key.bounds.push(sendBy)
      for (const other of acknowledged) key.acknowledged.add(other)
      key.openCalls++
      truth.count('calls: place')
      const beganAt = world.now()
      const what = `place ${clientOrderId} ${request.quantity ?? '-'} within ${timeoutMs ?? 'any'} by ${sendBy ?? 'any'}`
      const reply = await house.call(what, toLimit(timeoutMs), ({ commands }) =>
        commands.place(request, { timeoutMs, sendBy, acknowledged }),
      )
      key.openCalls--
      if (reply.kind === 'store') world.fail(12, `placing ${clientOrderId} threw a StoreError`)
      if (reply.kind !== 'told') return null
      truth.checkPlace(key, reply.result, { request, beganAt, process: reply.process })
      return reply.result
    },

    async ask(key) {
      const { clientOrderId, intent } = key
      const beganAt = world.now()
      truth.count('calls: placement')
      const reply = await house.call(`placement ${clientOrderId}`, toLimit(0), ({ commands }) =>
        commands.placement(intent.request.accountId, clientOrderId),
      )
      if (reply.kind !== 'told' || reply.result === null) return null
      truth.checkPlacement(key, reply.result, { beganAt, process: reply.process })
      return reply.result
    },

    async cancel(key) {
      const { clientOrderId, orderId, intent } = key
      const { accountId } = intent.request
      const timeoutMs = random.chance(0.4) ? random.between(50, 10_000) : null
      const isById = orderId !== null && random.chance(0.5)
      const isWrong = isById && random.chance(0.1)
      const input = isById
        ? { orderId, accountId: isWrong ? 'acc_9' : random.pick([accountId, null]), clientOrderId: null }
        : { orderId: null, accountId, clientOrderId }
      const beganAt = world.now()
      key.cancelCalls++
      truth.count('calls: cancel')
      const what = `cancel ${isById ? orderId : clientOrderId}${isWrong ? ' of another account' : ''}`
      const reply = await house.call(what, toLimit(timeoutMs), ({ commands }) => commands.cancel(input, timeoutMs))
      if (reply.kind === 'store') world.fail(12, `canceling ${clientOrderId} threw a StoreError`)
      if (reply.kind !== 'told') return
      truth.checkCancel(key, reply.result, { beganAt, process: reply.process, isById, isWrong })
    },

    async read({ orderId, intent }) {
      if (orderId === null) return
      const { signal } = new AbortController()
      const scope = {
        signal,
        deadline: world.wallNow() + 4_000,
        isForCancel: false,
        caller: null,
        tally: createTally(),
      }
      const asked = { broker: 'BLUUM' as const, id: orderId, accountId: intent.request.accountId, mustBeWhole: false }
      const beganAt = world.now()
      truth.count('calls: read')
      const reply = await house.call(`read ${orderId}`, 60_000, ({ broker }) => broker.orders([asked], scope))
      if (reply.kind !== 'told') return
      truth.checkRead(reply.result[0] ?? null, orderId, { beganAt, process: reply.process })
    },
  }
}

function createClients(world: World, plan: Plan, given: Given): void {
  const { truth } = given
  const { random } = world
  const { place, ask, cancel, read } = createCaller(world, plan, given)

  async function pursue(intent: Intent): Promise<void> {
    const first = truth.createKey(intent)
    let key = first
    for (const ms of intent.cancelsMs) {
      world.schedule(world.now() + ms, () => {
        const asked = key
        void cancel(asked).then(() => (random.chance(0.5) ? read(asked) : undefined))
      })
    }
    await Promise.all(
      intent.callsMs.map(async (ms) => {
        await world.sleep(ms)
        await place(first, false)
        if (random.chance(0.3)) await ask(first)
        if (random.chance(0.3)) await read(first)
      }),
    )
    if (intent.isSloppy) return
    for (let tries = 1; tries < intent.keys && (await isGone(key)); tries++) {
      // It was told that there is no order, so it may try again under a new key.
      key = truth.createKey(intent)
      await place(key, false)
    }
  }

  /** Asks, with patience, until it is told what became of the key; true where no order exists. */
  async function isGone(key: KeyFacts): Promise<boolean> {
    for (let asked = 0; asked < 40; asked++) {
      await world.sleep(random.between(100, 20_000))
      if (random.chance(0.5)) {
        const { state } = (await ask(key)) ?? {}
        if (state === 'PLACED') return false
        if (state === 'REJECTED' || state === 'NOT_PLACED') return true
        continue
      }
      const result = await place(key, false)
      if (result?.outcome === 'PLACED') return false
      if (result?.outcome === 'REJECTED') return true
      if (result?.outcome === 'NOT_PLACED' && (random.chance(0.5) || !result.retrySameKey)) return true
    }
    return false
  }

  for (const intent of plan.intents) {
    world.schedule(intent.startMs, () => {
      pursue(intent).catch((error: unknown) => world.fail(0, `a client threw ${String(error)}`))
    })
    for (let left = plan.foreign === 'none' ? 0 : random.between(0, 2); left > 0; left--) {
      const at = intent.startMs + random.pick([0, random.between(0, 3_000), random.between(0, 100_000)])
      const clientOrderId = plan.foreign === 'named' ? `other-${at}-${left}` : null
      world.schedule(at, () => truth.exchange.insertForeign(intent.request, clientOrderId))
    }
  }
}

// ---- from the beginning to the end ----------------------------------------------------------------------------------

const minute = 60_000
const hour = 60 * minute
const day = 24 * hour

async function runHistory(world: World, plan: Plan, given: Given): Promise<void> {
  const { truth, house } = given
  for (const at of plan.stopsMs) world.schedule(at, () => void house.stop())
  for (const { atMs, ms } of plan.freezes) world.schedule(atMs, () => house.freeze(ms))
  for (const { atMs, aheadMs } of plan.jumps) {
    world.schedule(atMs, () => {
      world.note(`the wall clock is set ${aheadMs} ms ahead`)
      world.setWall(aheadMs)
    })
  }
  for (const at of plan.personMs) world.schedule(at, () => void decide(world, given, false))
  await world.run(plan.healMs)
  house.heal()
  // A send that hangs ends; then the settle time, and three lookups behind it, each at its longest.
  await world.run(world.now() + 40_000 + plan.times.settleMs + 4 * minute + (plan.isW1 ? 2 * hour : 0))
  await truth.checkRecords(house.store(), house.lives())
  await decide(world, given, true)
  await world.run(world.now() + 2 * minute)
  for (const key of truth.keys.values()) truth.checkKeptCancel(key)

  // What became of each key is what anybody is told who asks again, and nothing is sent again.
  const { place, ask } = createCaller(world, plan, given)
  for (const key of truth.keys.values()) {
    if (key.openCalls > 0 || key.state === null) continue
    // What may still be sent is not repeated: its caller may have gone on to another key.
    if (key.state === 'NOT_SENT' || key.state === 'RESERVED') {
      const check = async (): Promise<void> => {
        const { result } = (await ask(key)) ?? {}
        if (result?.outcome !== 'NOT_PLACED')
          world.fail(5, `${key.clientOrderId} is ${key.state ?? ''} and not told so`)
      }
      void check()
      continue
    }
    const sent = key.posts.length
    const check = async (): Promise<void> => {
      const result = await place(key, true)
      if (key.posts.length > sent) world.fail(7, `${key.clientOrderId} was sent again in the end`)
      if (result === null) world.fail(12, `${key.clientOrderId} got no answer in the end`)
      if (result?.outcome === 'UNKNOWN') world.fail(5, `${key.clientOrderId} is not known in the end`)
    }
    void check()
  }
  await world.run(world.now() + 20_000)
  if (plan.ages) await runAges(world, place, given)
  await house.end()
  const { broken, rows } = await house.store().verifyAudit()
  if (broken) world.fail(10, `the audit of ${broken.opId} is broken: ${broken.what}`)
  truth.count('audit rows', rows)
  await world.run(world.now())
}

/** A person decides, and knows all: beside the service, as `blotter placements` does. */
async function decide(world: World, { truth, house }: Given, saysNever: boolean): Promise<void> {
  const { clock } = createProcess(world, 'person', [])
  const records = createRecords(house.store(), clock, (message) => world.note(`person: ${message}`))
  for (const key of truth.keys.values()) {
    const { clientOrderId, intent, state } = key
    const orderId = truth.decide(key)
    if ((state !== 'AMBIGUOUS' && state !== 'UNKNOWN') || (orderId === null && !saysNever)) continue
    const found = await house.store().find({ broker: 'BLUUM', accountId: intent.request.accountId, clientOrderId })
    if (found === null || isTombstone(found)) continue
    world.note(`person resolves ${clientOrderId} as ${orderId ?? 'never placed'}`)
    const resolved = await records.change(found, { type: 'resolved', orderId, by: 'a person' }, 'operator')
    truth.noteChange(resolved)
    if (resolved.foundBy === 'OPERATOR') truth.count('found by a person')
  }
}

/** A hundred days later a record is a tombstone, and its key still spent. */
async function runAges(world: World, place: Caller['place'], { truth, house }: Given): Promise<void> {
  // Over a restart: a clock that leaps ahead while the service runs is not believed.
  void house.stop()
  await world.run(world.now() + 50)
  world.setWall(100 * day)
  await world.run(world.now() + 3 * hour)
  for (const key of truth.keys.values()) {
    const { clientOrderId, intent, state, orderId } = key
    if (state === null || intent.isSloppy || key.openCalls > 0) continue
    const found = await house.store().find({ broker: 'BLUUM', accountId: intent.request.accountId, clientOrderId })
    if (found === null) world.fail(6, `${clientOrderId} is forgotten after 100 days`)
    // What somebody still looks after is kept, such as a cancel that never settled.
    if (found === null || !isTombstone(found)) continue
    truth.count('keys that grew old')
    const sent = key.posts.length
    const check = async (): Promise<void> => {
      const result = await place(key, true)
      const isExpired = result?.outcome === 'NOT_PLACED' && result.notPlacedCode === 'KEY_EXPIRED'
      if (!isExpired || key.posts.length > sent) world.fail(7, `${clientOrderId} is taken for new after 100 days`)
      // A tombstone names orders that exist.
      else if (result.orderId !== (state === 'REJECTED' ? null : orderId))
        world.fail(6, `${clientOrderId} has lost its order with age`)
    }
    void check()
    await world.run(world.now() + 20_000)
  }
}

// ---- as a program ---------------------------------------------------------------------------------------------------

async function main(count: number, first: number): Promise<void> {
  const totals = new Map<string, number>()
  const beganAt = performance.now()
  for (let seed = first; seed < first + count; seed++) {
    // Of one alone, all that happened.
    const { counts } = await simulate(seed, null, count === 1 ? { tailLines: Infinity } : {})
    for (const [what, times] of counts) totals.set(what, (totals.get(what) ?? 0) + times)
  }
  const seconds = ((performance.now() - beganAt) / 1_000).toFixed(1)
  console.log(`${count} histories from seed ${first} in ${seconds} s, and no promise broken\n`)
  for (const what of ['placements', 'POSTs', 'orders', 'restarts', 'stops', 'audit rows']) print(what, totals)
  console.log()
  for (const what of ['duplicates', 'false not-placed (proven)', 'false not-placed (assumed)', 'left unresolved']) {
    print(what, totals)
  }
  const groups =
    'calls,place fate,read fate,cancel fate,store fault,death,state,place,placement,cancel,alarm,notice,broker'.split(
      ',',
    )
  for (const group of groups) {
    console.log(`\n${group}`)
    const names = [...totals.keys()].filter((what) => what.startsWith(`${group}: `)).sort()
    for (const what of names) console.log(`  ${String(totals.get(what)).padStart(7)}  ${what.slice(group.length + 2)}`)
  }
  console.log('\nrest')
  for (const what of [...totals.keys()].filter((name) => !name.includes(': ')).sort()) print(what, totals)
}

function print(what: string, totals: ReadonlyMap<string, number>): void {
  console.log(`  ${String(totals.get(what) ?? 0).padStart(7)}  ${what}`)
}

if (import.meta.main) {
  const [count = '2000', first = '1'] = process.argv.slice(2)
  try {
    await main(Number(count), Number(first))
  } catch (error) {
    console.error(error instanceof Violation ? error.message : error)
    process.exitCode = 1
  }
}
