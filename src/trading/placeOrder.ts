// Places orders. A key is recorded before anything leaves, and sent once; it is sent again only after proof that the first send
// was not processed. An outcome that is not known is reported as unknown, never as a failure.
//
//   placeOrder  records a key, joins or replays it, and answers the caller
//   sendOrder   sends it once                     answerCheck  checks what the broker answered
//   reconciler  finds out lost outcomes           recovery     takes up what an earlier process left

import { LRUCache } from 'lru-cache'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, Brokers, PlaceAnswer } from '../brokers/broker.ts'
import type { Tally } from '../upstream/readScope.ts'
import { within } from '../domain/clock.ts'
import type { Clock } from '../domain/clock.ts'
import type { Rate } from '../domain/rate.ts'
import { isTombstone, StoreError } from '../store/store.ts'
import type { PlacementKey, Store, Tombstone } from '../store/store.ts'
import { AnswerCheck } from './answerCheck.ts'
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
  toUnknown,
} from './outcomes.ts'
import type { OrderPlacement, PlaceOrderResult } from './outcomes.ts'
import { toChanges } from './placement/match.ts'
import { createPlacement, isSettled, maySend, toFingerprint } from './placement/placement.ts'
import type { NotSentOutcome, Placement } from './placement/placement.ts'
import { createReconciler, toOutcome } from './reconciler.ts'
import type { LookupTimes, Reconciler } from './reconciler.ts'
import { createRecords } from './records.ts'
import type { OnTrouble, Records } from './records.ts'
import { Recovery } from './recovery.ts'
import { OrderSender, unrecordable } from './sendOrder.ts'
import { createUnresolved } from './unresolved.ts'
import type { Unresolved, UnresolvedListener } from './unresolved.ts'
import { createProblem, findProblems, findUnacknowledgeable } from './validate.ts'

/** The writes of a process. They continue if the caller disconnects. */
export interface Commands extends Pick<Cancels, 'cancel'> {
  /**
   * Takes up the placements that an earlier process left unfinished. Resolves after the first try, and repeats it while the
   * store fails. Must be called once, before the first write.
   */
  start(): Promise<void>
  /** Places `order` unless its key has been used. Never throws if the broker or the store fails. */
  place(order: NewOrder, options: CallerOptions): Promise<PlaceOrderResult>
  /** Returns the placement of a key; null if the key was never used. Throws StoreError if the store cannot be read. */
  placement(accountId: string, clientOrderId: string): Promise<OrderPlacement | null>
  /** Number of placements without an outcome. */
  unresolved(): number
  /** Refuses further writes. Resolves when those under way have ended and are stored. */
  close(): Promise<void>
}

/** Options of a caller for one placement. */
interface CallerOptions {
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

/** The work on one key, which the first caller starts and later callers with the same key join. */
interface PlaceTask {
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
const tasksMax = 1_000
/** The writes over `brokers`, kept in `store`. The caller closes it, before both. */
export function createCommands(options: CommandsOptions): Commands {
  return new TradingCommands(options)
}

class TradingCommands implements Commands {
  readonly #options: CommandsOptions
  readonly #brokers: Brokers
  readonly #store: Store
  readonly #clock: Clock
  readonly #times: PlaceTimes
  readonly #onTrouble: OnTrouble
  /** Names this process in the records. */
  readonly #owner: string
  readonly #closing = new AbortController()
  readonly #records: Records
  readonly #sender: OrderSender
  readonly #answers: AnswerCheck
  readonly #reconciler: Reconciler
  readonly #cancels: Cancels
  readonly #unresolved: Unresolved
  readonly #recovery: Recovery
  /** Keys under way. */
  readonly #tasks = new Map<string, PlaceTask>()
  /** Brokers that were logged as changing client order ids. */
  readonly #changingBrokers = new Set<BrokerId>()
  /** Placements whose changed terms were logged. */
  readonly #notedPlacements = new LRUCache<string, true>({ maxSize: 1_000, sizeCalculation: () => 1 })
  #housework: Promise<unknown> = Promise.resolve()

  constructor(options: CommandsOptions) {
    const { brokers, store, clock, times, onTrouble, random } = options
    this.#options = options
    this.#brokers = brokers
    this.#store = store
    this.#clock = clock
    this.#times = times
    this.#onTrouble = onTrouble
    this.#owner = toUuidV7(clock.now(), random)
    const closing = this.#closing.signal
    const records = createRecords(store, clock, onTrouble)
    const shared = { brokers, store, records, clock, owner: this.#owner, closing, onTrouble }
    this.#records = records
    this.#sender = new OrderSender(shared)
    this.#answers = new AnswerCheck(shared)
    this.#reconciler = createReconciler({ ...shared, times })
    this.#cancels = createCancels({
      ...shared,
      random,
      replyMs: times.replyMs,
      lateMs: times.lateMs,
      isAllowed: options.trading !== 'read-only',
    })
    this.#unresolved = createUnresolved(records, clock, options.unresolved ?? { onCount() {}, onResolved() {} })
    this.#recovery = new Recovery({
      ...shared,
      reconciler: this.#reconciler,
      cancels: this.#cancels,
      unresolved: this.#unresolved,
    })
    this.#records.listen((placement, from) => {
      const task = this.#tasks.get(toKeyText(placement))
      if (task?.placement?.opId === placement.opId) {
        task.placement = placement
        if (isSettled(placement)) task.settled.resolve()
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
    const isDone = await this.#recovery.tryAll()
    this.#housework = Promise.all([isDone ? null : this.#recovery.repeat(), this.#recovery.sweep()])
  }

  async close(): Promise<void> {
    this.#closing.abort()
    // Callers that wait for a lookup are answered now. Outcomes that cannot be stored are found out after the restart.
    this.#records.close()
    while (this.#tasks.size > 0) await Promise.allSettled([...this.#tasks.values()].map(({ ended }) => ended))
    await Promise.all([this.#cancels.close(), this.#reconciler.close(), this.#housework])
  }

  // ---- what the caller sees ---------------------------------------------------------------------------------------
  async place(order: NewOrder, options: CallerOptions): Promise<PlaceOrderResult> {
    const until = this.#clock.monotonic() + Math.min(this.#times.replyMs, options.timeoutMs ?? this.#times.replyMs)
    const problems = [...findProblems(order), ...findUnacknowledgeable(options.acknowledged)]
    const broker = this.#brokers.get(brokerOf(order.accountId))
    if (!broker)
      problems.push(createProblem('accountId', 'NOT_SUPPORTED', 'The broker of this account is not connected here.'))
    for (const { field, message } of broker?.unsupported(order) ?? []) {
      problems.push(createProblem(field, 'NOT_SUPPORTED', message))
    }
    if (problems.length > 0 || !broker) return toInvalid(order, problems)

    const key = toKeyText({ ...order, broker: broker.id })
    const fingerprint = toFingerprint(order)
    const joined = this.#tasks.get(key)
    if (joined && joined.fingerprint !== fingerprint) return toKeyReused(order)
    const task = joined ?? this.#startTask(broker, order, { key, fingerprint, options })

    const opened = await within<Opened | null>(this.#clock, until, task.opened, () => null)
    if (opened?.kind === 'answer') return opened.answer(order)
    const replayed = joined !== undefined || opened?.kind !== 'ours'
    await within<unknown>(this.#clock, until, Promise.race([task.ended, task.settled.promise]), () => {})
    if (task.unrecorded !== null) return toNotPlaced(order.clientOrderId, task.unrecorded)
    if (this.#tasks.get(key) === task) task.wasLeft = true

    let placement = task.placement
    if (placement === null) return toUnknown(order.clientOrderId, 1_000)
    // The send may still be answered, but its caller no longer waits, so lookups start.
    if (placement.state === 'SENDING' && this.#tasks.get(key) === task) this.#reconciler.follow(placement, task.ended)
    const isFresh = this.#clock.now() < (placement.lastSentAt ?? 0) + this.#times.replyMs
    if (placement.state === 'UNKNOWN' && isFresh) placement = await this.#records.settled(placement, until)
    // The caller gets UNKNOWN for RESERVED as well, but nothing has been sent, so the operator need not know.
    if (placement.state !== 'RESERVED') this.#unresolved.reported(placement)
    // Shows the answer's order only if it is the order of the placement.
    const shown = task.order?.id === placement.orderId ? task.order : null
    return toPlaceResult(placement, { replayed, order: shown, at: this.#clock.now() })
  }

  async placement(accountId: string, clientOrderId: string): Promise<OrderPlacement | null> {
    const key = { broker: brokerOf(accountId), accountId, clientOrderId }
    const found = await this.#store.find(key)
    const at = this.#clock.now()
    if (found !== null && !isTombstone(found) && (found.state === 'UNKNOWN' || found.state === 'AMBIGUOUS')) {
      this.#unresolved.reported(found)
    }
    if (found === null || isTombstone(found) || found.state !== 'RESERVED' || this.#tasks.has(toKeyText(key))) {
      return found && toOrderPlacement(found, at)
    }
    // No process sends this placement, because its process ended or could not record its outcome.
    const outcome = found.owner === this.#owner ? unrecordable : stopped
    return toOrderPlacement({ ...found, state: 'NOT_SENT', outcome }, at)
  }

  // ---- one key at a time --------------------------------------------------------------------------------------------
  #startTask(
    broker: Broker,
    order: NewOrder,
    { key, fingerprint, options }: { key: string; fingerprint: string; options: CallerOptions },
  ): PlaceTask {
    const opened = this.#open(broker, order, fingerprint, options)
    const task: PlaceTask = {
      fingerprint,
      opened: opened.then(({ state }) => state),
      ended: Promise.resolve(),
      settled: Promise.withResolvers(),
      placement: null,
      wasLeft: false,
      order: null,
      unrecorded: null,
    }
    task.ended = this.#sendOnce(broker, opened, options, task).finally(() => this.#tasks.delete(key))
    // Handles the rejection here as well, because without a waiting caller it would end the process.
    task.ended.catch((error: unknown) => this.#onTrouble('a placement met a bug', error))
    this.#tasks.set(key, task)
    return task
  }

  /** Finds or creates the record of a key, and returns whether it is to be sent now. */
  async #open(broker: Broker, order: NewOrder, fingerprint: string, options: CallerOptions): Promise<Opening> {
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
      if (found !== null && !maySend(found)) {
        // The process that sent it has ended, and the placement was not taken up since.
        const isOrphan = found.state === 'SENDING' && found.owner !== this.#owner
        return {
          placement: isOrphan ? await this.#recovery.takeUp(found).catch(() => found) : found,
          state: { kind: 'before' },
        }
      }
      const refusal = this.#refuse(accountId, options)
      if (refusal !== null) return toAnswer(({ clientOrderId: id }) => toNotPlaced(id, refusal))
      try {
        const opened = await this.#reserve(broker, order, { options, found })
        if (opened !== null) return { placement: opened, state: { kind: 'ours' } }
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        this.#onTrouble('a placement cannot be recorded', error)
        return toAnswer(({ clientOrderId: id }) => toNotPlaced(id, unrecordable))
      }
    }
  }

  /** Returns why a new placement is refused before it is recorded; null if it is not. Joins and repeats are not checked. */
  #refuse(accountId: string, { sendBy }: CallerOptions): NotSentOutcome | null {
    if (this.#closing.signal.aborted) {
      return notSent('SHUTTING_DOWN', 'The service is stopping; the order was not sent.')
    }
    if (this.#options.trading !== 'on')
      return notSent('TRADING_HALTED', 'Placing is switched off here; the order was not sent.')
    if (sendBy !== null && this.#clock.now() >= sendBy) return tooLate
    if (this.#tasks.size > tasksMax) return crowded
    const waitMs = this.#options.placementRate?.take(accountId) ?? 0
    return waitMs === 0
      ? null
      : notSent('RATE_LIMITED', 'Too many orders of this account at once; it was not sent.', waitMs)
  }

  /** Returns the RESERVED record; null if another process has just created one. Throws StoreError. */
  async #reserve(
    broker: Broker,
    request: NewOrder,
    { options, found }: { options: CallerOptions; found: Placement | null },
  ): Promise<Placement | null> {
    const { acknowledged, principal = 'caller' } = options
    const at = this.#clock.now()
    const usual = at + (request.type === 'MARKET' ? this.#times.sendByMs.market : this.#times.sendByMs.other)
    const sendBy = Math.min(usual, options.sendBy ?? usual)
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

  async #sendOnce(broker: Broker, opened: Promise<Opening>, caller: CallerOptions, task: PlaceTask): Promise<void> {
    const { placement: known, state } = await opened
    task.placement = known
    if (state.kind === 'ours' && known !== null) await this.#send(broker, known, caller, task)
  }

  // ---- sending --------------------------------------------------------------------------------------------------------

  /** Sends a RESERVED placement, and records how the send ended. */
  async #send(broker: Broker, reserved: Placement, caller: CallerOptions, task: PlaceTask): Promise<void> {
    const { attempt } = reserved
    const { sendBy, acknowledged, tally = createTally() } = caller
    const onRecord = (placement: Placement): void => {
      task.placement = placement
      const isOurs = placement.state === 'SENDING' && placement.owner === this.#owner
      // Starts the lookups for a caller that left before the send.
      if (task.wasLeft && isOurs) this.#reconciler.follow(placement, task.ended)
    }
    const result = await this.#sender.send(broker, reserved, { sendBy, acknowledged, tally, onRecord })
    switch (result.kind) {
      case 'sent':
        return await this.#conclude(broker, reserved, result.answer, { task, tally })
      case 'notSent': {
        const { outcome, hasLeft: left, isRecorded } = result
        if (!isRecorded) task.unrecorded = outcome
        const event = { type: 'not_sent' as const, attempt, outcome, left }
        // Without a record, a failure is ignored, because a placement that stays RESERVED is not sent.
        if (isRecorded) task.placement = await this.#records.insist(reserved, event)
        else await this.#records.change(reserved, event).catch(() => {})
        return
      }
      case 'rejected': {
        const event = { type: 'rejected' as const, outcome: result.outcome, orderId: null, foundBy: null }
        task.placement = await this.#records.insist(task.placement ?? reserved, event)
        return
      }
      case 'unknown':
        return await this.#lose(result.failure, task)
      case 'takenOver':
        return
      default:
        return result satisfies never
    }
  }

  /** Records the outcome that the broker's answer names, once it is certain that the answer is about this order. */
  async #conclude(
    broker: Broker,
    reserved: Placement,
    answer: PlaceAnswer,
    { task, tally }: { task: PlaceTask; tally: Tally },
  ): Promise<void> {
    try {
      const verdict = await this.#answers.judge(task.placement ?? reserved, answer)
      if (verdict === 'contradiction') return await this.#lose({ kind: 'contradiction', status: null }, task)
      if (verdict === 'unconfirmed') return await this.#confirm(broker, answer.orderId, { task, tally })
      task.order = answer.order
      const { orderId, rejection } = answer
      const foundBy = 'RESPONSE' as const
      const no = rejection ?? { code: 'OTHER' as const, brokerCode: null, reason: null }
      task.placement = await this.#records.insist(
        task.placement ?? reserved,
        answer.status === 'REJECTED'
          ? { type: 'rejected', outcome: { kind: 'rejected', ...no }, orderId, foundBy }
          : { type: 'accepted', orderId, foundBy },
      )
      // The answered order id belongs to another key, so the answer was about another order.
      if (task.placement.state === 'SENDING') await this.#lose({ kind: 'contradiction', status: null }, task)
    } catch (error) {
      // A bug of ours after the send.
      this.#onTrouble(`the outcome of placement ${reserved.opId} is not known`, error)
      await this.#lose({ kind: 'bug', status: null }, task)
    }
  }

  /** Binds the order of an unconfirmed answer if a read shows that it is ours. The lookups run meanwhile and know its id. */
  async #confirm(broker: Broker, orderId: string, { task, tally }: { task: PlaceTask; tally: Tally }): Promise<void> {
    await this.#lose({ kind: 'unconfirmed', status: null }, task, orderId)
    const until = this.#clock.monotonic() + this.#times.replyMs
    const current = (): Placement | null => task.placement
    const confirmed = await this.#answers.confirm(broker, orderId, { current, tally, until })
    if (confirmed === null) return
    const { placement, order } = confirmed
    task.order = order
    task.placement = await this.#records.insist(
      placement,
      toOutcome(order, 'RESPONSE', toChanges(placement.request, order)),
    )
  }

  /** Records that the outcome is unknown, and starts the lookups. */
  async #lose(
    failure: { kind: string; status: number | null },
    task: PlaceTask,
    answeredOrderId: string | null = null,
  ): Promise<void> {
    const { placement: sent } = task
    if (sent === null) return
    const answered = answeredOrderId === null ? {} : { answeredOrderId }
    const event = { type: 'lost' as const, attempt: sent.attempt, failure, ...answered }
    task.placement = await this.#records.insist(sent, event)
    if (task.placement.state === 'UNKNOWN') this.#reconciler.follow(task.placement, null)
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

const crowded = notSent('OVERLOADED', 'Too many placements are under way here; the order was not sent.', 1_000)

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
