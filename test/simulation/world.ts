// A world without waiting: time that jumps from one event to the next, randomness out of a seed, and processes that can
// die or freeze wherever they wait. Same seed, same world, to the last line of its trace.

import { createHash } from 'node:crypto'
import type { Clock } from '../../src/domain/clock.ts'
import { StoreError } from '../../src/store/store.ts'
import type { AuditEntry, Store } from '../../src/store/store.ts'
import type { Placement } from '../../src/trading/placement/placement.ts'

// ---- chance -----------------------------------------------------------------------------------------------------

/** Choices that a seed decides. */
export interface Random {
  /** From 0 up to 1. */
  next(): number
  chance(probability: number): boolean
  /** Whole, both ends included. */
  between(least: number, most: number): number
  pick<T>(choices: readonly [T, ...T[]]): T
  /** By the weights. */
  draw<Name extends string>(weights: Readonly<Record<Name, number>>): Name
}

/** mulberry32. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  return {
    next,
    chance: (probability) => next() < probability,
    between: (least, most) => least + Math.floor(next() * (most - least + 1)),
    pick: (choices) => choices[Math.floor(next() * choices.length)] ?? choices[0],
    draw<Name extends string>(weights: Readonly<Record<Name, number>>): Name {
      const entries = Object.entries<number>(weights) as [Name, number][]
      let left = next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
      for (const [name, weight] of entries) {
        left -= weight
        if (left < 0) return name
      }
      throw new Error('no weights')
    },
  }
}

// ---- time -------------------------------------------------------------------------------------------------------

/** What breaks a promise of the service, with the number of the invariant. */
export class Violation extends Error {
  override readonly name = 'Violation'
  readonly invariant: number

  constructor(invariant: number, message: string) {
    super(message)
    this.invariant = invariant
  }
}

export interface World {
  readonly random: Random
  /** True ms since the beginning, which no clock of a process shows. */
  now(): number
  /** True epoch ms, as the broker has it. */
  brokerNow(): number
  /** Epoch ms by the wall clock of the machine that the processes run on. */
  wallNow(): number
  /** Sets that wall clock, in ms ahead of the true time. */
  setWall(aheadMs: number): void
  /** Runs `work` at `at`; what it returns takes it back. */
  schedule(at: number, work: () => void): () => void
  sleep(ms: number): Promise<void>
  /** Lets everything happen up to `until`; throws the first Violation. */
  run(until: number): Promise<void>
  fail(invariant: number, message: string): void
  note(line: string): void
  /** The last `count` lines of what happened. */
  tail(count: number): string[]
  /** Of every line so far. */
  hash(): string
}

// A Tuesday; any instant does.
const epoch = Date.parse('2026-03-10T15:00:00Z')

interface Timer {
  at: number
  order: number
  work: (() => void) | null
}

/** An empty world at time zero. */
export function createWorld(random: Random): World {
  const timers: Timer[] = []
  const lines: string[] = []
  let now = 0
  let aheadMs = 0
  let scheduled = 0
  let violation: Violation | null = null

  const isBefore = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

  function push(timer: Timer): void {
    let index = timers.push(timer) - 1
    while (index > 0) {
      const parent = (index - 1) >> 1
      const above = timers[parent]
      if (above === undefined || isBefore(above, timer)) break
      timers[index] = above
      index = parent
    }
    timers[index] = timer
  }

  function pop(): void {
    const last = timers.pop()
    if (last === undefined || timers.length === 0) return
    let index = 0
    for (;;) {
      let child = 2 * index + 1
      let below = timers[child]
      const right = timers[child + 1]
      if (below !== undefined && right !== undefined && isBefore(right, below)) {
        below = right
        child++
      }
      if (below === undefined || isBefore(last, below)) break
      timers[index] = below
      index = child
    }
    timers[index] = last
  }

  function schedule(at: number, work: () => void): () => void {
    const timer: Timer = { at: Math.max(now, at), order: scheduled++, work }
    push(timer)
    return () => void (timer.work = null)
  }

  const world: World = {
    random,
    now: () => now,
    brokerNow: () => epoch + now,
    wallNow: () => epoch + now + aheadMs,
    setWall: (ms) => void (aheadMs = ms),
    schedule,
    sleep: (ms) => new Promise((resolve) => void schedule(now + ms, resolve)),
    async run(until) {
      for (;;) {
        // Twice: what the first turn sets for the next one has run as well then. All else is microtasks.
        await new Promise(setImmediate)
        await new Promise(setImmediate)
        if (violation !== null) throw violation
        const next = timers[0]
        if (next === undefined || next.at > until) {
          now = Math.max(now, until)
          return
        }
        pop()
        now = next.at
        next.work?.()
      }
    },
    fail(invariant, message) {
      world.note(`VIOLATION ${invariant}: ${message}`)
      violation ??= new Violation(invariant, message)
    },
    note: (line) => void lines.push(`${(now / 1_000).toFixed(3)} ${line}`),
    tail: (count) => lines.slice(-count),
    hash: () => createHash('sha256').update(lines.join('\n')).digest('hex'),
  }
  return world
}

// ---- a process --------------------------------------------------------------------------------------------------

/** When a process dies: once `skip` gates of that name, or any, have been passed from `fromMs` on. */
export interface CrashPlan {
  fromMs: number
  gate: string | null
  skip: number
}

/** One life of the service. Whatever it waits for passes a gate, and a gate may be its end. */
export interface Process {
  readonly name: string
  readonly clock: Clock
  isAlive(): boolean
  /** Resolves at once, or after a freeze, or never. */
  pass(gate: string): Promise<void>
  /** Waits, and then passes the gate. An abort ends the wait. */
  wait(ms: number, gate: string, signal?: AbortSignal): Promise<void>
  /** From now on none of its promises is ever resolved. */
  die(why: string): void
  onDeath(listener: (why: string) => void): void
  /** Nothing reaches it for so long, as if it had been stopped and continued. */
  freeze(ms: number): void
  /** When it was frozen last, or is until. */
  frozenUntil(): number
}

/** Begins now. It takes the crashes that are due for itself. */
export function createProcess(world: World, name: string, crashes: CrashPlan[]): Process {
  const startedAt = world.now()
  const origin = 1_000 * world.random.next()
  const listeners: ((why: string) => void)[] = []
  let isDead = false
  let frozenUntil = -1

  function isLast(gate: string): boolean {
    const plan = crashes.find(({ fromMs, gate: named }) => fromMs <= world.now() && (named === null || named === gate))
    if (!plan || plan.skip-- > 0) return false
    crashes.splice(crashes.indexOf(plan), 1)
    return true
  }

  function die(why: string): void {
    if (isDead) return
    isDead = true
    world.note(`${name} DIES: ${why}`)
    for (const listener of listeners) listener(why)
  }

  function pass(gate: string): Promise<void> {
    if (isDead) return never()
    if (isLast(gate)) {
      die(`at ${gate}`)
      return never()
    }
    if (world.now() >= frozenUntil) return Promise.resolve()
    return new Promise((resolve) => void world.schedule(frozenUntil, () => void (isDead || resolve())))
  }

  async function wait(ms: number, gate: string, signal?: AbortSignal): Promise<void> {
    if (isDead) return await never()
    if (ms > 0 && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          takeBack()
          signal?.removeEventListener('abort', wake)
          resolve()
        }
        const takeBack = world.schedule(world.now() + ms, wake)
        signal?.addEventListener('abort', wake)
      })
    }
    await pass(gate)
  }

  return {
    name,
    clock: {
      now: () => Math.floor(world.wallNow()),
      monotonic: () => origin + world.now() - startedAt,
      async sleep(ms, signal) {
        await pass('sleep')
        await wait(ms, 'wake', signal)
      },
    },
    isAlive: () => !isDead,
    pass,
    wait,
    die,
    onDeath: (listener) => void listeners.push(listener),
    freeze(ms) {
      world.note(`${name} freezes for ${ms} ms`)
      frozenUntil = world.now() + ms
    },
    frozenUntil: () => frozenUntil,
  }
}

function never(): Promise<never> {
  return new Promise(() => {})
}

// ---- its store --------------------------------------------------------------------------------------------------

/** How the store fails at the moment. `flaky`: about every other call. */
export type StoreFault = 'none' | 'writes' | 'all' | 'flaky'

export interface StoreGate {
  store: () => Store
  fault: () => StoreFault
  /** The longest that it takes for one call, in ms. */
  latencyMs: () => number
  /** Told of each call that fails. */
  onFault: (name: string) => void
  /** Told of each change when it has been made. */
  onChange: (placement: Placement, entry: AuditEntry) => void
}

/** The real store as a process sees it. What it throws has changed nothing; what it commits stays, whoever dies. */
export function createStoreGate(world: World, process: Process, gate: StoreGate): Store {
  async function call<T>(name: string, isWrite: boolean, work: (store: Store) => Promise<T>): Promise<T> {
    await process.pass(`store.${name}`)
    const latencyMs = gate.latencyMs()
    if (latencyMs > 0) await process.wait(world.random.between(0, latencyMs), `store.${name} wait`)
    const fault = gate.fault()
    if (fault === 'all' || (fault === 'writes' && isWrite) || (fault === 'flaky' && world.random.chance(0.5))) {
      world.note(`${process.name} store.${name} FAILS`)
      gate.onFault(name)
      await process.pass(`store.${name} failed`)
      throw new StoreError('the store fails, as it was told to')
    }
    const result = await work(gate.store())
    // Committed, and the process may not live to hear of it.
    await process.pass(`store.${name} done`)
    return result
  }

  async function keep(
    name: 'insert' | 'update',
    placement: Placement,
    entry: AuditEntry,
    at: number,
  ): Promise<boolean> {
    return await call(name, true, async (store) => {
      const isKept = await store[name](placement, entry, at)
      const { clientOrderId, version, state } = placement
      const event = String(entry.detail.event)
      world.note(
        `${process.name} store.${name} ${clientOrderId} v${version} ${event} ${state} ${isKept ? '' : 'CONFLICT'}`,
      )
      if (isKept) gate.onChange(placement, entry)
      return isKept
    })
  }

  return {
    insert: (placement, entry, at) => keep('insert', placement, entry, at),
    update: (placement, entry, at) => keep('update', placement, entry, at),
    read: (opId) => call('read', false, (store) => store.read(opId)),
    find: (key) => call('find', false, (store) => store.find(key)),
    findByOrder: (broker, orderId) => call('findByOrder', false, (store) => store.findByOrder(broker, orderId)),
    findDuplicateCandidates: (broker, accountId, fingerprint) =>
      call('findDuplicateCandidates', false, (store) => store.findDuplicateCandidates(broker, accountId, fingerprint)),
    findUnresolved: (broker, accountId) =>
      call('findUnresolved', false, (store) => store.findUnresolved(broker, accountId)),
    findBound: (broker, orderIds, opId) => call('findBound', false, (store) => store.findBound(broker, orderIds, opId)),
    findUnfinished: (after, limit) => call('findUnfinished', false, (store) => store.findUnfinished(after, limit)),
    keepCancel: (request) => call('keepCancel', true, (store) => store.keepCancel(request)),
    settleCancel: (request) => call('settleCancel', true, (store) => store.settleCancel(request)),
    findCancels: () => call('findCancels', false, (store) => store.findCancels()),
    readAudit: (opId) => call('readAudit', false, (store) => store.readAudit(opId)),
    verifyAudit: () => call('verifyAudit', false, (store) => store.verifyAudit()),
    expire: (resolvedBefore, createdBefore, limit) =>
      call('expire', true, (store) => store.expire(resolvedBefore, createdBefore, limit)),
    close: () => Promise.resolve(),
  }
}
