// Places orders. A key is recorded before anything leaves, and sent once; it is sent again only after proof that the first send
// was not processed. An outcome that is not known is reported as unknown, never as a failure.

import { LRUCache } from 'lru-cache'
import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, Brokers, PlaceAnswer } from '../brokers/broker.ts'
import type { Tally } from '../upstream/readScope.ts'
import { within } from '../domain/clock.ts'
import type { Clock } from '../domain/clock.ts'
import type { Rate } from '../domain/rate.ts'
import { isTombstone, StoreError } from '../store/store.ts'
import type { PlacementKey, Store, Tombstone } from '../store/store.ts'
import { createCancels } from './cancelOrder.ts'
import type { Cancels } from './cancelOrder.ts'
import { brokerOf } from '../brokers/registry.ts'
import type { BrokerId, NewOrder, Order } from '../domain/order.ts'
import {
  notSent,
  stopped,
  tooLate,
  toExpired,
  toInvalid,
  toNotPlaced,
  toOrderPlacement,
  toPlaceResult,
  toRefused,
  toUnknown,
} from './outcomes.ts'
import type { OrderPlacement, PlaceOrderResult } from './outcomes.ts'
import { isConfirmed, judgeAnswer, mayOwn, toChanges, toSearchedSince } from './placement/match.ts'
import type { AnswerVerdict } from './placement/match.ts'
import { createPlacement, isSettled, isWished, toFingerprint, unwanted } from './placement/placement.ts'
import type { NotSentOutcome, Placement, PreSendSnapshot } from './placement/placement.ts'
import { createReconciler, toOutcome } from './reconciler.ts'
import type { LookupTimes } from './reconciler.ts'
import { createRecords } from './records.ts'
import type { OnTrouble } from './records.ts'
import { createUnresolved } from './unresolved.ts'
import type { UnresolvedListener } from './unresolved.ts'
import { createProblem, findProblems, findUnacknowledgeable } from './validate.ts'

/** The writes of a process. They continue if the caller disconnects. */
export interface Commands extends Pick<Cancels, 'cancel'> {
  /**
   * Takes up the placements that an earlier process left unfinished. Resolves after the first try, and repeats it while the
   * store fails. Must be called once, before the first write.
   */
  start(): Promise<void>
  /** Places `order` unless its key has been used. Never throws if the broker or the store fails. */
  place(order: NewOrder, wishes: PlaceWishes): Promise<PlaceOrderResult>
  /** Returns the placement of a key; null if the key was never used. Throws StoreError if the store cannot be read. */
  placement(accountId: string, clientOrderId: string): Promise<OrderPlacement | null>
  /** Number of placements without an outcome. */
  unresolved(): number
  /** Refuses further writes. Resolves when those under way have ended and are stored. */
  close(): Promise<void>
}

/** Options of a caller for one placement. */
interface PlaceWishes {
  /** The order is not sent at this instant or later, in epoch ms; null leaves the limit to the settings. */
  sendBy: number | null
  /** How long the caller waits, in ms, at most `replyMs`; null waits for `replyMs`. */
  timeoutMs: number | null
  /** Keys of the duplicate candidates that the caller acknowledges. */
  acknowledged: readonly string[]
  /** The caller, as the audit names it; `caller` by default. */
  principal?: string
  /** Counts the upstream calls of the send; absent counts none. */
  tally?: Tally
}

export interface CommandsOptions {
  brokers: Brokers
  store: Store
  clock: Clock
  /**
   * Returns a number from 0 up to 1 that is hard to guess, because it makes the ids that a broker sees as Idempotency-Key. It
   * also spreads the waits between cancel calls.
   */
  random: () => number
  times: PlaceTimes
  /** Rate of placements per account; null if unlimited. */
  placementRate: Rate | null
  /** `halted` sends no placements; `read-only` sends no cancels either. */
  trading: 'on' | 'halted' | 'read-only'
  onTrouble: OnTrouble
  /** Receives the number of placements without an outcome, and the outcome of each that was reported as unknown. */
  unresolved?: UnresolvedListener
  /** Receives notices for the operator that need no action. They hold no order data. */
  onNotice: (message: string, fields: { broker: BrokerId; placement: string }) => void
}

export interface PlaceTimes extends LookupTimes {
  /** Maximum time that a caller waits for an outcome, in ms; the write itself continues. */
  replyMs: number
  /** Maximum time between the request and the send, in ms: of market orders, and of all others. */
  sendByMs: { market: number; other: number }
}

// The work of the first caller of a key, which later callers with the same key join.
interface Flight {
  fingerprint: string
  /** Resolves when it is known whether this key has a record. */
  opened: Promise<Opened>
  /** Resolves when the send has ended; lookups may continue. */
  ended: Promise<unknown>
  /** Resolved when the outcome is known, which a lookup may find before the send ends. */
  settled: PromiseWithResolvers<void>
  /** The last record of the placement. */
  placement: Placement | null
  /** Whether a caller was answered before its outcome was known. */
  wasLeft: boolean
  /** The order as the broker's answer showed it. */
  order: Order | null
  /** The outcome if the placement could not be recorded; null otherwise. */
  unrecorded: NotSentOutcome | null
}

type Opened = { kind: 'ours' } | { kind: 'before' } | { kind: 'answer'; answer: (order: NewOrder) => PlaceOrderResult }

// Maximum keys under way at once; more are refused before anything is recorded.
const flightsMax = 1_000
const twinWaitMs = 1_000
// Maximum time for the pre-send snapshot, in ms. Without it, an order that shows no client order id cannot be bound.
const snapshotMs = 5_000
// Ms between two reads that are to confirm the order an answer named.
const confirmMs = { first: 250, longest: 2_000 }
const restartMs = { first: 250, longest: 5_000 }
const unfinishedPerPage = 200
// How long a key is kept, in ms: its record after the outcome, its tombstone after it was made.
const keptMs = { record: 90 * 86_400_000, tombstone: 180 * 86_400_000 }
const sweepMs = 3_600_000
const sweepMax = 500

/** The writes over `brokers`, kept in `store`. The caller closes it, before both. */
export function createCommands(options: CommandsOptions): Commands {
  return new TradingCommands(options)
}

class TradingCommands implements Commands {
  readonly #options: CommandsOptions
  readonly #brokers
  readonly #store
  readonly #clock
  readonly #times
  readonly #trading
  readonly #onTrouble
  readonly #owner
  readonly #records
  readonly #reconciler
  readonly #cancels
  readonly #unresolved
  readonly #flights = new Map<string, Flight>()
  readonly #changingBrokers = new Set<BrokerId>()
  readonly #notedPlacements = new LRUCache<string, true>({ maxSize: 1_000, sizeCalculation: () => 1 })
  readonly #closing = new AbortController()
  #housework: Promise<unknown> = Promise.resolve()

  constructor(options: CommandsOptions) {
    this.#options = options
    const { brokers, store, clock, times, trading, onTrouble } = options
    this.#brokers = brokers
    this.#store = store
    this.#clock = clock
    this.#times = times
    this.#trading = trading
    this.#onTrouble = onTrouble
    this.#owner = toUuidV7(this.#clock.now(), options.random)
    this.#records = createRecords(this.#store, this.#clock, this.#onTrouble)
    this.#reconciler = createReconciler({
      brokers: this.#brokers,
      store: this.#store,
      records: this.#records,
      clock: this.#clock,
      times: this.#times,
      onTrouble: this.#onTrouble,
    })
    this.#cancels = createCancels({
      brokers: this.#brokers,
      store: this.#store,
      records: this.#records,
      clock: this.#clock,
      random: options.random,
      replyMs: this.#times.replyMs,
      lateMs: this.#times.lateMs,
      isAllowed: this.#trading !== 'read-only',
      onTrouble: this.#onTrouble,
    })
    this.#unresolved = createUnresolved(
      this.#records,
      this.#clock,
      options.unresolved ?? { onCount() {}, onResolved() {} },
    )
    this.#records.listen((placement, from) => {
      const flight = this.#flights.get(toKeyText(placement))
      if (flight?.placement?.opId === placement.opId) {
        flight.placement = placement
        if (isSettled(placement)) flight.settled.resolve()
      }
      if (placement.state !== 'ACCEPTED' || from === 'ACCEPTED') return
      // The send and a lookup may both find the order, and each would log the change.
      if (this.#notedPlacements.get(placement.opId) === undefined) this.#noteChanges(placement)
      this.#notedPlacements.set(placement.opId, true)
      // A cancel may have been requested while the outcome was unknown.
      this.#cancels.resume(placement)
    })
  }

  cancel(...[input, timeoutMs, by]: Parameters<Cancels['cancel']>): ReturnType<Cancels['cancel']> {
    return this.#cancels.cancel(input, timeoutMs, by)
  }

  unresolved(): number {
    return this.#unresolved.count()
  }

  async start(): Promise<void> {
    const isDone = await this.#isTakenUp()
    this.#housework = Promise.all([isDone ? null : this.#takeUpUntilDone(), this.#sweep()])
  }

  async close(): Promise<void> {
    this.#closing.abort()
    // Callers that wait for a lookup are answered now. What cannot be stored is found out after the restart.
    this.#records.close()
    while (this.#flights.size > 0) await Promise.allSettled([...this.#flights.values()].map(({ ended }) => ended))
    await Promise.all([this.#cancels.close(), this.#reconciler.close(), this.#housework])
  }

  // ---- what the caller sees ---------------------------------------------------------------------------------------
  async place(order: NewOrder, wishes: PlaceWishes): Promise<PlaceOrderResult> {
    const until = this.#clock.monotonic() + Math.min(this.#times.replyMs, wishes.timeoutMs ?? this.#times.replyMs)
    const problems = [...findProblems(order), ...findUnacknowledgeable(wishes.acknowledged)]
    const broker = this.#brokers.get(brokerOf(order.accountId))
    if (!broker)
      problems.push(createProblem('accountId', 'NOT_SUPPORTED', 'The broker of this account is not connected here.'))
    for (const { field, message } of broker?.unsupported(order) ?? []) {
      problems.push(createProblem(field, 'NOT_SUPPORTED', message))
    }
    if (problems.length > 0 || !broker) return toInvalid(order, problems)

    const key = toKeyText({ ...order, broker: broker.id })
    const fingerprint = toFingerprint(order)
    const joined = this.#flights.get(key)
    if (joined && joined.fingerprint !== fingerprint) return toKeyReused(order)
    const flight = joined ?? this.#startFlight(broker, order, { key, fingerprint, wishes })

    const opened = await within<Opened | null>(this.#clock, until, flight.opened, () => null)
    if (opened?.kind === 'answer') return opened.answer(order)
    const replayed = joined !== undefined || opened?.kind !== 'ours'
    await within<unknown>(this.#clock, until, Promise.race([flight.ended, flight.settled.promise]), () => {})
    if (flight.unrecorded !== null) return toNotPlaced(order.clientOrderId, flight.unrecorded)
    if (this.#flights.get(key) === flight) flight.wasLeft = true

    let placement = flight.placement
    if (placement === null) return toUnknown(order.clientOrderId, 1_000)
    // The send may still be answered, but its caller no longer waits, so lookups start.
    if (placement.state === 'SENDING' && this.#flights.get(key) === flight)
      this.#reconciler.follow(placement, flight.ended)
    const isFresh = this.#clock.now() < (placement.lastSentAt ?? 0) + this.#times.replyMs
    if (placement.state === 'UNKNOWN' && isFresh) placement = await this.#records.settled(placement, until)
    // The caller gets UNKNOWN for RESERVED as well, but nothing has been sent, so the operator need not know.
    if (placement.state !== 'RESERVED') this.#unresolved.reported(placement)
    // Shows the answer's order only if it is the order of the placement.
    const shown = flight.order?.id === placement.orderId ? flight.order : null
    return toPlaceResult(placement, { replayed, order: shown, at: this.#clock.now() })
  }

  async placement(accountId: string, clientOrderId: string): Promise<OrderPlacement | null> {
    const key = { broker: brokerOf(accountId), accountId, clientOrderId }
    const found = await this.#store.find(key)
    const at = this.#clock.now()
    if (found !== null && !isTombstone(found) && (found.state === 'UNKNOWN' || found.state === 'AMBIGUOUS')) {
      this.#unresolved.reported(found)
    }
    if (found === null || isTombstone(found) || found.state !== 'RESERVED' || this.#flights.has(toKeyText(key))) {
      return found && toOrderPlacement(found, at)
    }
    // No process sends this placement, because its process ended or could not record its outcome.
    const outcome = found.owner === this.#owner ? unrecordable : stopped
    return toOrderPlacement({ ...found, state: 'NOT_SENT', outcome }, at)
  }

  // ---- one key at a time --------------------------------------------------------------------------------------------
  #startFlight(
    broker: Broker,
    order: NewOrder,
    { key, fingerprint, wishes }: { key: string; fingerprint: string; wishes: PlaceWishes },
  ): Flight {
    const opened = this.#open(broker, order, fingerprint, wishes)
    const flight: Flight = {
      fingerprint,
      opened: opened.then(({ state }) => state),
      ended: Promise.resolve(),
      settled: Promise.withResolvers(),
      placement: null,
      wasLeft: false,
      order: null,
      unrecorded: null,
    }
    flight.ended = this.#sendOnce(broker, opened, wishes, flight).finally(() => this.#flights.delete(key))
    // Handles the rejection here as well, because without a waiting caller it would end the process.
    flight.ended.catch((error: unknown) => this.#onTrouble('a placement met a bug', error))
    this.#flights.set(key, flight)
    return flight
  }

  /** Finds or creates the record of a key, and returns whether it is to be sent now. */
  async #open(broker: Broker, order: NewOrder, fingerprint: string, wishes: PlaceWishes): Promise<Opening> {
    const { accountId, clientOrderId } = order
    const key: PlacementKey = { broker: broker.id, accountId, clientOrderId }
    for (;;) {
      let found: Placement | Tombstone | null
      try {
        found = await this.#store.find(key)
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        this.#onTrouble('the records cannot be read', error)
        // The key may have been sent before, so the outcome is unknown.
        return toAnswer(({ clientOrderId: id }) => toUnknown(id, 1_000))
      }
      if (found !== null && found.fingerprint !== fingerprint) return toAnswer(toKeyReused)
      if (found !== null && isTombstone(found)) {
        const tombstone = found
        return toAnswer(() => toExpired(tombstone))
      }
      if (found !== null && !mayBeSent(found)) {
        // The process that sent it has ended, and the placement was not taken up since.
        const isOrphan = found.state === 'SENDING' && found.owner !== this.#owner
        return { placement: isOrphan ? await this.#takeUp(found).catch(() => found) : found, state: { kind: 'before' } }
      }
      const refusal = this.#refuse(accountId, wishes)
      if (refusal !== null) return toAnswer(({ clientOrderId: id }) => toNotPlaced(id, refusal))
      try {
        const opened = await this.#reserve(broker, order, { wishes, found })
        if (opened !== null) return { placement: opened, state: { kind: 'ours' } }
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        this.#onTrouble('a placement cannot be recorded', error)
        return toAnswer(({ clientOrderId: id }) => toNotPlaced(id, unrecordable))
      }
    }
  }

  /** Returns why a new placement is refused before it is recorded; null if it is not. Joins and repeats are not checked. */
  #refuse(accountId: string, { sendBy }: PlaceWishes): NotSentOutcome | null {
    if (this.#closing.signal.aborted) {
      return notSent('SHUTTING_DOWN', 'The service is stopping; the order was not sent.')
    }
    if (this.#trading !== 'on')
      return notSent('TRADING_HALTED', 'Placing is switched off here; the order was not sent.')
    if (sendBy !== null && this.#clock.now() >= sendBy) return tooLate
    if (this.#flights.size > flightsMax) return crowded
    const waitMs = this.#options.placementRate?.take(accountId) ?? 0
    return waitMs === 0
      ? null
      : notSent('RATE_LIMITED', 'Too many orders of this account at once; it was not sent.', waitMs)
  }

  /** Returns the RESERVED record; null if another process has just created one. Throws StoreError. */
  async #reserve(
    broker: Broker,
    request: NewOrder,
    { wishes, found }: { wishes: PlaceWishes; found: Placement | null },
  ): Promise<Placement | null> {
    const { acknowledged, principal = 'caller' } = wishes
    const at = this.#clock.now()
    const usual = at + (request.type === 'MARKET' ? this.#times.sendByMs.market : this.#times.sendByMs.other)
    const sendBy = Math.min(usual, wishes.sendBy ?? usual)
    if (found !== null) {
      const reserved = await this.#records.change(
        found,
        { type: 'reserved', owner: this.#owner, sendBy, acknowledged },
        principal,
      )
      return reserved.state === 'RESERVED' && reserved.owner === this.#owner ? reserved : null
    }
    const opId = toUuidV7(at, this.#options.random)
    const made = createPlacement(request, { opId, broker: broker.id, owner: this.#owner, sendBy, at })
    return (await this.#records.insert(made, acknowledged, principal)) ? made : null
  }

  async #sendOnce(broker: Broker, opened: Promise<Opening>, wishes: PlaceWishes, flight: Flight): Promise<void> {
    const { placement: known, state } = await opened
    flight.placement = known
    if (state.kind === 'ours' && known !== null) await this.#send(broker, known, wishes, flight)
  }

  // ---- sending --------------------------------------------------------------------------------------------------------

  /** Sends a RESERVED placement, until it has an outcome or is UNKNOWN. */
  async #send(broker: Broker, reserved: Placement, wishes: PlaceWishes, flight: Flight): Promise<void> {
    const { request, opId, sendBy, attempt } = reserved
    const keepNotSent = async (outcome: NotSentOutcome, left = false): Promise<void> => {
      flight.placement = await this.#records.insist(reserved, { type: 'not_sent', attempt, outcome, left })
    }
    const { tally = createTally() } = wishes
    let hasBegun = false
    try {
      const twin = await this.#findTwin(reserved, wishes.acknowledged)
      if (twin !== null) return await keepNotSent(toBlocked(twin))
      const preImage = await this.#readSnapshot(broker, reserved, tally)
      // Checks again, because another placement may have been lost during the snapshot.
      const later = await this.#findTwin(reserved, wishes.acknowledged)
      if (later !== null) return await keepNotSent(toBlocked(later))
      if (this.#closing.signal.aborted) return await keepNotSent(stopped)
      if (this.#clock.now() >= sendBy) return await keepNotSent(tooLateFor(wishes))
      const answer = await broker.place(request, {
        idempotencyKey: opId,
        sendBy,
        beforeSend: async () => {
          if (this.#closing.signal.aborted) throw new NotToBeSent(stopped)
          const sending = hasBegun
            ? await this.#records.change(flight.placement ?? reserved, { type: 'sent_again', attempt })
            : await this.#records.change(reserved, { type: 'sending', attempt, preImage })
          if (isWished(sending)) throw new NotToBeSent(unwanted)
          // Another process sends the placement unless this step was recorded.
          const isOurs = sending.state === 'SENDING' && sending.attempt === attempt && sending.owner === this.#owner
          if (!isOurs) {
            flight.placement = sending
            throw new NotToBeSent(null)
          }
          flight.placement = sending
          hasBegun = true
          // Starts the lookups for a caller that left before the send.
          if (flight.wasLeft) this.#reconciler.follow(sending, flight.ended)
        },
      })
      tally.calls++
      const verdict = await this.#judge(flight.placement ?? reserved, answer).catch((error: unknown) => {
        if (!(error instanceof StoreError)) throw error
        // The records that could contradict the answer cannot be read now, so a later read confirms it.
        return 'unconfirmed' as const
      })
      if (verdict === 'contradiction') return await this.#lose('contradiction', null, flight)
      if (verdict === 'unconfirmed') return await this.#confirm(broker, answer.orderId, { flight, tally })
      flight.order = answer.order
      const { orderId, rejection } = answer
      const foundBy = 'RESPONSE' as const
      const no = rejection ?? { code: 'OTHER' as const, brokerCode: null, reason: null }
      flight.placement = await this.#records.insist(
        flight.placement ?? reserved,
        answer.status === 'REJECTED'
          ? { type: 'rejected', outcome: { kind: 'rejected', ...no }, orderId, foundBy }
          : { type: 'accepted', orderId, foundBy },
      )
      // The answered order id belongs to another key, so the answer was about another order.
      if (flight.placement.state === 'SENDING') await this.#lose('contradiction', null, flight)
    } catch (error) {
      if (hasBegun && error instanceof UpstreamError && error.kind !== 'not_sent') tally.calls++
      // If it had begun, the order left once and the broker did not process it.
      if (error instanceof NotToBeSent) {
        return error.outcome === null ? undefined : await keepNotSent(error.outcome, hasBegun)
      }
      if (!hasBegun && error instanceof StoreError) {
        flight.unrecorded = unrecordable
        this.#onTrouble('a placement cannot be recorded', error)
        // Ignores a failure, because a placement that stays RESERVED is not sent.
        const event = { type: 'not_sent' as const, attempt, outcome: unrecordable, left: false }
        await this.#records.change(reserved, event).catch(() => {})
        return
      }
      if (error instanceof UpstreamError && error.effect === 'none') {
        const refused = toRefused(error, wishes.sendBy !== null && this.#clock.now() >= wishes.sendBy)
        if (refused.kind === 'not_sent') return await keepNotSent(refused, error.kind !== 'not_sent')
        const event = { type: 'rejected' as const, outcome: refused, orderId: null, foundBy: null }
        flight.placement = await this.#records.insist(flight.placement ?? reserved, event)
        return
      }
      if (!hasBegun) {
        // A bug of ours, before anything can have left.
        await keepNotSent(notSent('BROKER_UNAVAILABLE', 'The order could not be sent.'))
        throw error
      }
      // A bug of ours may also end here. It may have occurred after the bytes left, so the outcome is unknown.
      if (!(error instanceof StoreError)) this.#onTrouble(`the outcome of placement ${opId} is not known`, error)
      const isAnswer = error instanceof UpstreamError
      await this.#lose(isAnswer ? error.kind : 'bug', isAnswer ? error.status : null, flight)
    }
  }

  /** Judges the answer to the send of `placement`. Throws StoreError if the store cannot be read. */
  async #judge(placement: Placement, answer: PlaceAnswer): Promise<AnswerVerdict> {
    const { broker, accountId, opId, request } = placement
    const { clientOrderId } = answer
    const isOtherId = clientOrderId !== null && clientOrderId !== '' && clientOrderId !== request.clientOrderId
    const other = isOtherId ? await this.#store.find({ broker, accountId, clientOrderId }) : null
    const isOthers = other !== null && mayOwn(other, answer.orderId)
    const owner = isOthers ? other : await this.#store.findByOrder(broker, answer.orderId)
    return judgeAnswer(placement, answer, owner !== null && owner.opId !== opId)
  }

  /**
   * Reads the order that an unconfirmed answer named, and binds it if it is ours. Repeats the read for at most `replyMs`,
   * because the broker's reads may lag. The lookups run meanwhile and know the order id as well.
   */
  async #confirm(broker: Broker, orderId: string, { flight, tally }: { flight: Flight; tally: Tally }): Promise<void> {
    await this.#lose('unconfirmed', null, flight, orderId)
    const until = this.#clock.monotonic() + this.#times.replyMs
    for (let waitMs = confirmMs.first; ; waitMs = Math.min(waitMs * 2, confirmMs.longest)) {
      const { placement } = flight
      if (placement?.state !== 'UNKNOWN') return
      const order = await this.#readOrder(broker, { id: orderId, accountId: placement.accountId, tally }, until)
      if (order !== null) {
        if (!(await this.#isOurs(placement, order))) return
        flight.order = order
        const event = toOutcome(order, 'RESPONSE', toChanges(placement.request, order))
        flight.placement = await this.#records.insist(placement, event)
        return
      }
      if (this.#clock.monotonic() + waitMs >= until) return
      await this.#clock.sleep(waitMs, this.#closing.signal)
      if (this.#closing.signal.aborted) return
    }
  }

  /** Whether `order`, which our answer named, is certainly the one of `placement`; false if the store cannot be read. */
  async #isOurs(placement: Placement, order: Order): Promise<boolean> {
    const { broker, accountId, opId } = placement
    const { clientOrderId } = order
    try {
      const rivals = (await this.#store.findUnresolved(broker, accountId)).filter((other) => other.opId !== opId)
      if (!isConfirmed(placement, order, rivals)) return false
      if (typeof clientOrderId !== 'string') return true
      const owner = await this.#store.find({ broker, accountId, clientOrderId })
      return owner === null || owner.opId === opId || !mayOwn(owner, order.id)
    } catch (error) {
      if (error instanceof StoreError) return false
      throw error
    }
  }

  async #readOrder(
    broker: Broker,
    { id, accountId, tally }: { id: string; accountId: string; tally: Tally },
    until: number,
  ): Promise<Order | null> {
    const deadline = this.#clock.now() + Math.max(0, until - this.#clock.monotonic())
    const scope = { signal: this.#closing.signal, deadline, isForCancel: false, caller: null, tally }
    const key = { broker: broker.id, id, accountId, mustBeWhole: true }
    try {
      const [order = null] = await broker.orders([key], scope)
      return order instanceof UpstreamError ? null : order
    } catch (error) {
      if (this.#closing.signal.aborted) return null
      throw error
    }
  }

  /** Logs once per broker that it changes client order ids, and once per placement which terms the broker changed. */
  #noteChanges({ broker, opId, evidence }: Placement): void {
    const { terms = [], clientOrderId = null } = evidence.changes ?? {}
    const about = { broker, placement: opId }
    if (clientOrderId !== null && !this.#changingBrokers.has(broker)) {
      this.#changingBrokers.add(broker)
      this.#options.onNotice(
        'the broker changes client order ids; its orders are matched by the part that it keeps',
        about,
      )
    }
    if (terms.length > 0) this.#options.onNotice(`the broker changed terms of an order: ${terms.join(', ')}`, about)
  }

  async #lose(
    kind: string,
    status: number | null,
    flight: Flight,
    answeredOrderId: string | null = null,
  ): Promise<void> {
    const { placement: sent } = flight
    if (sent === null) return
    const answered = answeredOrderId === null ? {} : { answeredOrderId }
    const event = { type: 'lost' as const, attempt: sent.attempt, failure: { kind, status }, ...answered }
    flight.placement = await this.#records.insist(sent, event)
    if (flight.placement.state === 'UNKNOWN') this.#reconciler.follow(flight.placement, null)
  }

  /**
   * Returns a duplicate candidate: an unresolved placement with the same terms under another key, which may be the same button
   * pressed again. Waits up to a second for its outcome. Returns null if there is none. Throws StoreError.
   */
  async #findTwin(reserved: Placement, acknowledged: readonly string[]): Promise<Placement | null> {
    const { broker, accountId, fingerprint, opId } = reserved
    const isTwin = (other: Placement): boolean => other.opId !== opId && !acknowledged.includes(other.clientOrderId)
    const until = this.#clock.monotonic() + twinWaitMs
    for (;;) {
      const twins = (await this.#store.findTwins(broker, accountId, fingerprint)).filter(isTwin)
      const [twin] = twins
      if (twin === undefined || this.#clock.monotonic() >= until || this.#closing.signal.aborted) return twin ?? null
      await this.#records.settled(twin, until)
    }
  }

  /** Takes the pre-send snapshot; returns null if it is not needed or could not be read. */
  async #readSnapshot(
    broker: Broker,
    { request, createdAt, sendBy }: Placement,
    tally: Tally,
  ): Promise<PreSendSnapshot | null> {
    if (broker.capabilities.clientIdEcho) return null
    const { accountId, symbol, side } = request
    const query = { accountId, symbol, side, since: toSearchedSince(createdAt), purpose: 'snapshot' as const }
    const deadline = Math.min(this.#clock.now() + snapshotMs, sendBy)
    const late = new AbortController()
    const scope = {
      signal: AbortSignal.any([late.signal, this.#closing.signal]),
      deadline,
      isForCancel: false,
      caller: null,
      tally,
    }
    const work = broker.scan(query, scope).then(
      ({ orders, isComplete }) => ({ orderIds: orders.map(({ id }) => id), isComplete }),
      () => null,
    )
    const until = this.#clock.monotonic() + (deadline - this.#clock.now())
    const preImage = await within<PreSendSnapshot | null>(this.#clock, until, work, () => null)
    late.abort(new Error('the order cannot wait for it'))
    return preImage
  }

  // ---- after a restart ------------------------------------------------------------------------------------------------

  /** Takes up all placements and cancel requests that an earlier process left. Throws StoreError. */
  async #takeUpAll(): Promise<void> {
    let after: string | null = null
    for (;;) {
      const page: Placement[] = await this.#store.findUnfinished(after, unfinishedPerPage)
      for (const left of page) await this.#takeUp(left)
      const last = page.at(-1)
      if (last === undefined || page.length < unfinishedPerPage) return await this.#cancels.resumeKept()
      after = last.opId
    }
  }

  /** Takes up one placement that an earlier process left, and returns its record. Throws StoreError. */
  async #takeUp(left: Placement): Promise<Placement> {
    const { attempt } = left
    let current = left
    if (left.owner !== this.#owner && left.state === 'RESERVED') {
      current = await this.#records.change(left, { type: 'not_sent', attempt, outcome: stopped, left: false })
    }
    if (left.owner !== this.#owner && left.state === 'SENDING') {
      current = await this.#records.change(left, { type: 'lost', attempt, failure: { kind: 'stopped', status: null } })
    }
    if (current.state === 'UNKNOWN' || current.state === 'NOT_PLACED' || current.state === 'AMBIGUOUS') {
      this.#reconciler.follow(current, null)
    }
    // The earlier process may have reported the placement as unknown.
    if (current.state === 'UNKNOWN' || current.state === 'AMBIGUOUS') this.#unresolved.reported(current)
    if (current.state === 'AMBIGUOUS') {
      this.#onTrouble(
        `ALARM: placement ${current.opId} waits for an operator: it is not known which order is its own`,
        null,
      )
    }
    this.#cancels.resume(current)
    return current
  }

  async #takeUpUntilDone(): Promise<void> {
    for (
      let waitMs = restartMs.first;
      !this.#closing.signal.aborted;
      waitMs = Math.min(waitMs * 2, restartMs.longest)
    ) {
      await this.#clock.sleep(waitMs, this.#closing.signal)
      if (this.#closing.signal.aborted || (await this.#isTakenUp())) return
    }
  }

  async #isTakenUp(): Promise<boolean> {
    try {
      await this.#takeUpAll()
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#onTrouble('what was left unfinished cannot be taken up yet', error)
      return false
    }
  }

  /** Deletes expired records and tombstones every hour. */
  async #sweep(): Promise<void> {
    const startedAt = this.#clock.now() - this.#clock.monotonic()
    while (!this.#closing.signal.aborted) {
      const at = this.#clock.now()
      // Stops if the wall clock was set forward, because records would expire too early and their keys could be sent again.
      if (at - this.#clock.monotonic() - startedAt > sweepMs) return
      const swept = await this.#store.expire(at - keptMs.record, at - keptMs.tombstone, sweepMax).catch(() => 0)
      await this.#clock.sleep(swept >= sweepMax ? restartMs.first : sweepMs, this.#closing.signal)
    }
  }
}

interface Opening {
  placement: Placement | null
  state: Opened
}

function toAnswer(answer: (order: NewOrder) => PlaceOrderResult): Opening {
  return { placement: null, state: { kind: 'answer', answer } }
}

function toKeyText({ broker, accountId, clientOrderId }: PlacementKey): string {
  return JSON.stringify([broker, accountId, clientOrderId])
}

function toKeyReused(order: NewOrder): PlaceOrderResult {
  const help = 'This clientOrderId was used for another order; make a new one for each order you intend.'
  return toInvalid(order, [createProblem('clientOrderId', 'KEY_REUSED', help)])
}

/** Thrown just before a send that must not happen. `outcome` is null if another process has taken up the placement. */
class NotToBeSent extends Error {
  override readonly name = 'NotToBeSent'
  readonly outcome: NotSentOutcome | null

  constructor(outcome: NotSentOutcome | null) {
    super(outcome?.message ?? 'another process has taken up the placement')
    this.outcome = outcome
  }
}

// A repeat sends a placement that was not sent, unless a caller has canceled it, which uses up the key.
function mayBeSent({ state, outcome }: Placement): boolean {
  if (state === 'RESERVED') return true
  return state === 'NOT_SENT' && !(outcome?.kind === 'not_sent' && outcome.code === 'CANCELED')
}

const crowded = notSent('OVERLOADED', 'Too many placements are under way here; the order was not sent.', 1_000)

const unrecordable = notSent('STORE_UNAVAILABLE', 'The order could not be recorded here, so it was not sent.', 1_000)

// A repeat has the same `sendBy` of its caller, so it is too late again; our own limit starts again with the repeat.
function tooLateFor({ sendBy }: PlaceWishes): NotSentOutcome {
  if (sendBy !== null) return tooLate
  return notSent('DEADLINE', 'The order could not be sent in time, so it was not sent.')
}

function toBlocked({ clientOrderId }: Placement): NotSentOutcome {
  const message =
    `An equal order of this account, clientOrderId ${clientOrderId}, is without an outcome: this could be its duplicate, ` +
    'and was not sent. Wait for that outcome, or name its key in acknowledgeUnresolved to send this one anyway.'
  return notSent('BLOCKED_BY_UNRESOLVED', message)
}

/** A UUID that sorts by `at` (epoch ms); RFC 9562, version 7. */
function toUuidV7(at: number, random: () => number): string {
  const time = at.toString(16).padStart(12, '0')
  const toHex = (digits: number): string =>
    Math.floor(random() * 16 ** digits)
      .toString(16)
      .padStart(digits, '0')
  const variant = (8 + Math.floor(random() * 4)).toString(16)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${toHex(3)}-${variant}${toHex(3)}-${toHex(6)}${toHex(6)}`
}
