// Finds the outcome of a placement whose answer was lost. Lookups search for its order at the broker, often at first, until the
// order is found or has been missing for so long that it counts as not placed. Late lookups follow for a day, because a broker
// may show an order late.

import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, Brokers, Scan, ScanQuery } from '../brokers/broker.ts'
import type { ReadScope } from '../upstream/readScope.ts'
import type { Clock } from '../domain/clock.ts'
import { StoreError } from '../store/store.ts'
import type { Store } from '../store/store.ts'
import type { Order } from '../domain/order.ts'
import { findMatch, listIdsToCheck, mayOwn, toSearchedSince } from './placement/match.ts'
import type { Match } from './placement/match.ts'
import type { BrokerChanges, OrderMatch, Placement, PlacementEvent } from './placement/placement.ts'
import type { OnTrouble, Records } from './records.ts'
import { findDifferingTerms, fitsTerms } from './placement/terms.ts'

/** When lookups run, in ms. */
export interface LookupTimes {
  /** After the send ended without an answer, ascending; one more is added at `settleMs` if none is as late. */
  lookupMs: readonly number[]
  /** An order that was not found this long after the last byte can have left counts as not placed. */
  settleMs: number
  /** After a placement counts as not placed, ascending. */
  lateMs: readonly number[]
  /** If false, only an operator concludes that an order was not placed. */
  assumeAbsent: boolean
}

export interface ReconcilerOptions {
  brokers: Brokers
  store: Store
  records: Records
  clock: Clock
  times: LookupTimes
  onTrouble: OnTrouble
}

/** Runs the lookups for all placements of the process. Its creator calls `close`. */
export interface Reconciler {
  /**
   * Runs lookups for `placement` until its outcome is known, and afterwards if it was only assumed. Does nothing if this
   * attempt is followed already. `sendEnded` resolves when the send has ended; null if it has ended already.
   */
  follow(placement: Placement, sendEnded: Promise<unknown> | null): void
  /** Ends all lookups, and resolves when none is under way. */
  close(): Promise<void>
}

// Maximum lookups at the same time. Each makes many calls, and all together take at most a fifth of the broker's rate.
const searchesMax = 4
// Maximum time of one lookup, its waits for the rate included.
const searchMs = 60_000
const emptyScansMin = 3
// Ms between two checks whether an operator has decided.
const personMs = 10_000
const repeatMs = { shortest: 250, longest: 60_000 }

/** Creates a reconciler. It runs no lookup before `follow` is called. */
export function createReconciler(options: ReconcilerOptions): Reconciler {
  return new LookupReconciler(options)
}

class LookupReconciler implements Reconciler {
  readonly #brokers
  readonly #store
  readonly #records
  readonly #clock
  readonly #times
  readonly #onTrouble
  readonly #followed = new Map<string, { attempt: number; work: Promise<void> }>()
  readonly #closing = new AbortController()
  readonly #turns: (() => void)[] = []
  #searches = 0

  constructor(options: ReconcilerOptions) {
    const { brokers, store, records, clock, times, onTrouble } = options
    this.#brokers = brokers
    this.#store = store
    this.#records = records
    this.#clock = clock
    this.#times = times
    this.#onTrouble = onTrouble
  }

  async close(): Promise<void> {
    this.#closing.abort()
    for (const turn of this.#turns.splice(0)) turn()
    await Promise.allSettled([...this.#followed.values()].map(({ work }) => work))
  }

  follow(placement: Placement, sendEnded: Promise<unknown> | null): void {
    const { opId, attempt } = placement
    // An earlier attempt does not count, because its lookups prove nothing about this one.
    if (this.#followed.get(opId)?.attempt === attempt || this.#closing.signal.aborted) return
    const work = this.#run(placement, sendEnded)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#onTrouble(`the search for placement ${opId} broke off`, error)
      })
      .finally(() => this.#followed.get(opId)?.attempt === attempt && this.#followed.delete(opId))
    this.#followed.set(opId, { attempt, work })
  }

  async #run(placement: Placement, sendEnded: Promise<unknown> | null): Promise<void> {
    let current: Placement | null = placement
    if (current.state === 'SENDING' || current.state === 'UNKNOWN') {
      current = await this.#searchUntilSettled(current, sendEnded)
    }
    if (current?.state === 'AMBIGUOUS') await this.#awaitPerson(current)
    if (current?.state === 'NOT_PLACED') await this.#watchLate(current)
  }

  /** Waits until an operator has decided. The operator's command changes the store, so this reads it again and again. */
  async #awaitPerson(placement: Placement): Promise<void> {
    let current = placement
    while (current.state === 'AMBIGUOUS' && !this.#closing.signal.aborted) {
      await this.#clock.sleep(personMs, this.#closing.signal)
      if (!this.#closing.signal.aborted) current = await this.#records.refresh(current).catch(() => current)
    }
  }

  /** Returns the placement once it is settled or an operator has to decide; null if the service stops. */
  async #searchUntilSettled(start: Placement, sendEnded: Promise<unknown> | null): Promise<Placement | null> {
    // When the last byte can have left at the latest. By the clock that only grows: a wall clock that is set forward
    // would make an hour of two seconds, and an order that is on its way a missing one.
    let endedAt: number | null = sendEnded === null ? this.#clock.monotonic() : null
    const markEnd = (): void => void (endedAt = this.#clock.monotonic())
    sendEnded?.then(markEnd, markEnd)
    const beganAt = this.#clock.monotonic()
    let placement = start
    let emptyScans = 0
    let hasTold = false
    for (const dueMs of this.#listLookups()) {
      const waitMs = beganAt + dueMs - this.#clock.monotonic()
      // A slow lookup makes up for those that were due meanwhile.
      if (waitMs < -repeatMs.shortest) continue
      placement = await this.#noteCheck(placement, dueMs, waitMs)
      await this.#clock.sleep(waitMs, this.#closing.signal)
      if (this.#closing.signal.aborted) return null
      const begunAt = this.#clock.monotonic()
      const search = await this.#inTurn(() => this.#look(placement))
      if (this.#closing.signal.aborted) return null
      const isOverdue = endedAt !== null && begunAt >= endedAt + this.#times.settleMs
      if (search !== null) placement = search.placement
      if (placement.attempt !== start.attempt) return null
      if (placement.state !== 'SENDING' && placement.state !== 'UNKNOWN') return placement
      // A list that was not read to its end proves nothing, and neither does one that was read before the last byte had left.
      const isEvidence = search !== null && search.isComplete && endedAt !== null && begunAt >= endedAt
      const match: Match = search?.match ?? { kind: 'none' }
      if (isEvidence && match.kind === 'none') emptyScans++
      const event = isEvidence && isOverdue ? await this.#conclude(placement, match, emptyScans) : toFound(match)
      if (event !== null) placement = await this.#records.insist(placement, event)
      // Still unknown where the order turned out to be another placement's: that one is passed over from now on.
      if (placement.state !== 'SENDING' && placement.state !== 'UNKNOWN') return placement
      // Evidence of absence that is allowed to decide will, with the next searches.
      if (isOverdue && !hasTold && !(isEvidence && this.#times.assumeAbsent)) {
        const reason = isEvidence ? 'it never appeared' : 'the searches for it fail, or cannot see all orders'
        this.#onTrouble(
          `ALARM: placement ${placement.opId} is without an outcome, because ${reason}; look for it`,
          null,
        )
        hasTold = true
      }
    }
    return null
  }

  /** Yields ms after the beginning, without end: the schedule, the settle time, and then steps of the settle time. */
  *#listLookups(): Generator<number> {
    const { lookupMs, settleMs } = this.#times
    yield* lookupMs
    let last = lookupMs.at(-1) ?? 0
    if (last < settleMs) yield (last = settleMs)
    for (;;) yield (last += Math.min(Math.max(settleMs / 4, repeatMs.shortest), repeatMs.longest))
  }

  /** The searches after an assumption that it was never placed. */
  async #watchLate(placement: Placement): Promise<void> {
    let current = placement
    let hasTold = false
    while (current.state === 'NOT_PLACED' && current.nextCheckAt !== null) {
      await this.#clock.sleep(current.nextCheckAt - this.#clock.now(), this.#closing.signal)
      if (this.#closing.signal.aborted) return
      const search = await this.#inTurn(() => this.#look(current))
      if (this.#closing.signal.aborted) return
      current = search?.placement ?? current
      const event = search && toFound(search.match)
      if (event !== null) {
        current = await this.#records.insist(current, event)
        continue
      }
      const { kind } = search?.match ?? { kind: 'none' }
      if (kind !== 'none' && kind !== 'unread' && !hasTold) {
        this.#onTrouble(`ALARM: placement ${current.opId} counted as not placed, but an order could be its own`, null)
        hasTold = true
      }
      // A search that could not see all has not been made.
      if (search === null || !search.isComplete) {
        await this.#clock.sleep(Math.min(repeatMs.longest, this.#times.lateMs[0] ?? 0), this.#closing.signal)
        continue
      }
      const resolvedAt = current.resolvedAt ?? current.createdAt
      const later = this.#times.lateMs.map((ms) => resolvedAt + ms).find((at) => at > this.#clock.now())
      current = await this.#records.insist(current, { type: 'checked', nextCheckAt: later ?? null })
    }
  }

  /** Returns the event that a complete lookup at the settle time leads to; null if it decides nothing. */
  async #conclude(placement: Placement, match: Match, emptyScans: number): Promise<PlacementEvent | null> {
    try {
      if (match.kind === 'candidates') {
        return choose(placement, match, await this.#hasUnresolvedCandidate(placement, match.orders))
      }
      if (match.kind === 'strays') return toAmbiguous(match.orders)
    } catch (error) {
      // The store cannot be read now, so the next lookup decides.
      if (error instanceof StoreError) return null
      throw error
    }
    if (match.kind !== 'none' || emptyScans < emptyScansMin || !this.#times.assumeAbsent) return toFound(match)
    const [firstLateMs] = this.#times.lateMs
    return {
      type: 'absent',
      emptyScans,
      nextCheckAt: firstLateMs === undefined ? null : this.#clock.now() + firstLateMs,
    }
  }

  // An order without a client order id cannot be bound while its terms fit another unresolved placement.
  async #hasUnresolvedCandidate(placement: Placement, orders: readonly Order[]): Promise<boolean> {
    const rivals = await this.#findRivals(placement)
    return rivals.some(({ request }) => orders.some((order) => fitsTerms(request, order)))
  }

  /** Returns the other unresolved placements of the account. Throws StoreError. */
  async #findRivals({ broker, accountId, opId }: Placement): Promise<Placement[]> {
    return (await this.#store.findUnresolved(broker, accountId)).filter((other) => other.opId !== opId)
  }

  // Records when the next lookup runs, for the `retryAfterMs` of callers. A failed write is not repeated.
  async #noteCheck(placement: Placement, dueMs: number, waitMs: number): Promise<Placement> {
    const isScheduled = dueMs <= Math.max(this.#times.settleMs, this.#times.lookupMs.at(-1) ?? 0)
    if (placement.state !== 'UNKNOWN' || !isScheduled) return placement
    const nextCheckAt = Math.ceil(this.#clock.now() + Math.max(0, waitMs))
    try {
      return await this.#records.change(placement, { type: 'checked', nextCheckAt })
    } catch (error) {
      if (error instanceof StoreError) return placement
      throw error
    }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#searches >= searchesMax) await new Promise<void>((resolve) => this.#turns.push(resolve))
    else this.#searches++
    try {
      return await work()
    } finally {
      const next = this.#turns.shift()
      if (next) next()
      else this.#searches--
    }
  }

  /** Runs one lookup. Returns its result with the current placement; null if the lookup failed. */
  async #look(known: Placement): Promise<{ placement: Placement; match: Match; isComplete: boolean } | null> {
    const broker = this.#brokers.get(known.broker)
    if (!broker || this.#closing.signal.aborted) return null
    try {
      const placement = await this.#records.refresh(known)
      if (placement.state !== 'SENDING' && placement.state !== 'UNKNOWN' && placement.state !== 'NOT_PLACED') {
        return { placement, match: { kind: 'none' }, isComplete: false }
      }
      const { symbol, side } = placement.request
      const scope = this.#toScope()
      const narrow = await this.#searchList(broker, placement, { symbol, side }, scope)
      const isAbsent = ['none', 'strays', 'rivals'].includes(narrow.match.kind)
      if (!isAbsent || !narrow.isComplete) return { placement, ...narrow }
      // A second lookup without the filter, because a broker may filter wrongly or spell the symbol in its own way.
      return { placement, ...(await this.#searchList(broker, placement, { symbol: null, side: null }, scope)) }
    } catch (error) {
      // A failed call to the broker or the store proves nothing.
      if (error instanceof UpstreamError || error instanceof StoreError || this.#closing.signal.aborted) return null
      throw error
    }
  }

  async #searchList(
    broker: Broker,
    placement: Placement,
    filter: Pick<ScanQuery, 'symbol' | 'side'>,
    scope: ReadScope,
  ): Promise<{ match: Match; isComplete: boolean }> {
    const { accountId, createdAt, evidence } = placement
    const query = { accountId, ...filter, since: toSearchedSince(createdAt), purpose: 'lookup' as const }
    const scan: Scan = await broker.scan(query, scope)
    // The answer to the send may have named an order that lists do not show yet.
    const { answeredOrderId = null } = evidence
    const isListed = answeredOrderId === null || scan.orders.some(({ id }) => id === answeredOrderId)
    const named = await this.#readWhole(broker, accountId, isListed ? [] : [answeredOrderId], scope)
    const found = [...scan.orders, ...named.orders]
    const isComplete = scan.isComplete && named.isComplete
    const around = {
      whole: new Set(named.orders.map(({ id }) => id)),
      taken: await this.#findTaken(broker, placement, found),
      rivals: await this.#findRivals(placement),
    }
    const match = findMatch(placement, found, around)
    if (match.kind !== 'unread') return { match, isComplete }

    const read = await this.#readWhole(broker, accountId, match.orderIds, scope)
    const whole = new Map([...named.orders, ...read.orders].map((order) => [order.id, order]))
    const orders = found.map((order) => whole.get(order.id) ?? order)
    const taken = await this.#findTaken(broker, placement, orders)
    const again = findMatch(placement, orders, { ...around, taken, whole: new Set(whole.keys()) })
    return { match: again, isComplete: isComplete && again.kind !== 'unread' }
  }

  /** Reads orders by id, with all their fields. `isComplete` is false if a read failed. */
  async #readWhole(
    broker: Broker,
    accountId: string,
    orderIds: readonly string[],
    scope: ReadScope,
  ): Promise<{ orders: Order[]; isComplete: boolean }> {
    if (orderIds.length === 0) return { orders: [], isComplete: true }
    const keys = orderIds.map((id) => ({ broker: broker.id, id, accountId, mustBeWhole: true }))
    const answers = await broker.orders(keys, scope)
    const orders = answers.filter((answer): answer is Order => answer !== null && !(answer instanceof UpstreamError))
    return { orders, isComplete: !answers.some((answer) => answer instanceof UpstreamError) }
  }

  /** Returns the ids of the orders that belong to other placements. Throws StoreError. */
  async #findTaken(broker: Broker, placement: Placement, orders: readonly Order[]): Promise<Set<string>> {
    const { accountId } = placement
    const ids = orders.map(({ id }) => id)
    const taken = new Set(await this.#store.findBound(broker.id, ids, placement.opId))
    for (const clientOrderId of listIdsToCheck(placement, orders)) {
      const other = await this.#store.find({ broker: broker.id, accountId, clientOrderId })
      const bearers = orders.filter((order) => order.clientOrderId === clientOrderId && !taken.has(order.id))
      const [order] = bearers
      // If several orders share the client order id, at most one of them belongs to that placement.
      if (other === null || order === undefined || bearers.length > 1) continue
      if (mayOwn(other, order.id)) taken.add(order.id)
    }
    return taken
  }

  #toScope(): ReadScope {
    const deadline = this.#clock.now() + searchMs
    return { signal: this.#closing.signal, deadline, isForCancel: false, caller: null, tally: createTally() }
  }
}

function toFound(match: Match): PlacementEvent | null {
  if (match.kind !== 'found') return null
  const { order, foundBy, changes } = match
  return toOutcome(order, foundBy, changes)
}

/** Returns the event for a placement whose order is `order`: accepted, or rejected if that is its status. */
export function toOutcome(order: Order, foundBy: OrderMatch, changes: BrokerChanges | null): PlacementEvent {
  if (order.status !== 'REJECTED') {
    return { type: 'accepted', orderId: order.id, foundBy, ...(changes === null ? {} : { changes }) }
  }
  const reason = typeof order.rejectReason === 'string' ? order.rejectReason : null
  const outcome = { kind: 'rejected' as const, code: 'OTHER' as const, brokerCode: null, reason }
  return { type: 'rejected', outcome, orderId: order.id, foundBy }
}

// Called only at the settle time, because until then the right order may be missing from the candidates.
function choose(
  { request, preImage }: Placement,
  { orders, isBindable }: Extract<Match, { kind: 'candidates' }>,
  hasCandidate: boolean,
): PlacementEvent | null {
  const [order] = orders
  const isOnly = order !== undefined && orders.length === 1 && isBindable && !hasCandidate
  const isSure = isOnly && findDifferingTerms(request, order).length === 0 && preImage?.isComplete === true
  return isSure ? toOutcome(order, 'FINGERPRINT', null) : toAmbiguous(orders)
}

function toAmbiguous(orders: readonly Order[]): PlacementEvent {
  return { type: 'ambiguous', candidates: orders.map(({ id }) => id) }
}
