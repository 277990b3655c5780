// Placing and canceling: everything between an input and a truthful outcome. An order leaves this service once for
// each key; what became of it is told as it is known, and "not known" is an answer of its own, never a failure.
//
// What was sent is remembered in this process only, for as long as it lives: a restart forgets it, and with it the
// promise.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createTally, UpstreamError } from '../brokers/broker.ts'
import type { Broker, Brokers } from '../brokers/broker.ts'
import { normalizeDecimal } from '../decimal.ts'
import { brokerOf, isId } from './order.ts'
import type { NewOrder, Order } from './order.ts'
import {
  isAboutTheOrder,
  notSent,
  toCancelPending,
  toCancelRefused,
  toFinal,
  toInvalid,
  toNotPlaced,
  toPlaceResult,
  toRefused,
  toSentence,
  toUnreachable,
  toUnread,
  withoutOrder,
} from './outcomes.ts'
import type { CancelOrderResult, PlaceOrderResult, Settled } from './outcomes.ts'
import { createProblem, findProblems } from './validate.ts'
import type { OrderInputProblem } from './validate.ts'

/** The writes of a process. Nothing here depends on the caller's connection: a closed tab abandons no order. */
export interface Commands {
  /**
   * Places `order` unless its key has been used; never sends after `sendBy` (epoch ms, null for the usual bound). The
   * caller's own wait, `timeoutMs`, shortens the usual one.
   */
  place(order: NewOrder, sendBy: number | null, timeoutMs: number | null): Promise<PlaceOrderResult>
  /** Cancels the order; who asks while its cancel is under way shares the outcome. */
  cancel(input: CancelInput, timeoutMs: number | null): Promise<CancelOrderResult>
  /** Takes no further writes and resolves when those under way have ended. */
  close(): Promise<void>
}

interface CancelInput {
  orderId: string | null
  accountId: string | null
}

export interface CommandOptions {
  brokers: Brokers
  /** The longest a caller waits for an outcome, in ms; the write itself goes on. */
  replyMs: number
  /** Told of what a person should look at: a bug, or an answer that breaks the broker's contract. */
  onTrouble: (message: string, error: unknown) => void
  /** Keys remembered at the most; with that many, placements under new keys are refused as OVERLOADED. */
  recordsMax?: number
}

// Reads of an order after its cancel, until it is final.
const cancelPollMs = { first: 250, longest: 2_000 }

// An order is never sent late: if it finds neither a place in the rate nor a free connection in this time, it stays here.
const sendWithinMs = 2_000

const neverAborted = new AbortController().signal

interface PlacementRecord {
  economics: string
  /** Sent as the Idempotency-Key: ours, because a caller's key could come back after the broker forgot it. */
  operationId: string
  attempt: Promise<Settled>
  settled: Settled | null
}

/** The writes over `brokers`. The caller closes it, before the brokers. */
export function createCommands({ brokers, replyMs, onTrouble, recordsMax = 100_000 }: CommandOptions): Commands {
  const records = new Map<string, PlacementRecord>()
  const cancels = new Map<string, CancelFlight>()
  const underWay = new Set<Promise<unknown>>()
  let isClosing = false

  function track<T>(work: Promise<T>): Promise<T> {
    underWay.add(work)
    // Both ways out, so that a write that failed leaves no unhandled rejection behind its caller's back.
    work.then(
      () => underWay.delete(work),
      () => underWay.delete(work),
    )
    return work
  }

  // ---- placing --------------------------------------------------------------------------------------------------

  async function place(order: NewOrder, sendBy: number | null, timeoutMs: number | null): Promise<PlaceOrderResult> {
    const problems = findProblems(order)
    const broker = brokers.get(brokerOf(order.accountId))
    if (!broker)
      problems.push(createProblem('accountId', 'NOT_SUPPORTED', 'The broker of this account is not connected here.'))
    for (const { field, message } of broker?.unsupported(order) ?? []) {
      problems.push(createProblem(field, 'NOT_SUPPORTED', message))
    }
    if (problems.length > 0 || !broker) return toInvalid(order, problems)

    const key = JSON.stringify([broker.id, order.accountId, order.clientOrderId])
    const economics = toEconomics(order)
    let record = records.get(key)
    if (record && record.economics !== economics) {
      const help = 'This clientOrderId was used for another order; make a new one for each order you intend.'
      return toInvalid(order, [createProblem('clientOrderId', 'KEY_REUSED', help)])
    }
    const isJoining = record !== undefined && record.settled?.state !== 'not_sent'
    if (!record || !isJoining) {
      if (isClosing) return toNotPlaced(order, 'SHUTTING_DOWN', 'The service is stopping; the order was not sent.')
      if (!record && !makeRoom()) {
        return toNotPlaced(
          order,
          'OVERLOADED',
          'This process remembers as many keys as it can; the order was not sent.',
        )
      }
      record = startAttempt(broker, order, { key, economics, sendBy, operationId: record?.operationId ?? randomUUID() })
    }
    const wasSettled = record.settled !== null
    const settled = await withinReply<Settled>(record.attempt, timeoutMs, () => ({ state: 'unknown' }))
    return toPlaceResult(order, settled, isJoining, wasSettled)
  }

  function startAttempt(
    broker: Broker,
    order: NewOrder,
    given: { key: string; economics: string; sendBy: number | null; operationId: string },
  ): PlacementRecord {
    const record: PlacementRecord = {
      economics: given.economics,
      operationId: given.operationId,
      settled: null,
      attempt: track(attempt(broker, order, given.operationId, given.sendBy)),
    }
    // Set anew, so that the order of the map is the order in which keys were last sent.
    records.delete(given.key)
    records.set(given.key, record)
    void keepOutcome(record)
    return record
  }

  // Who repeats the key later reads the order anew, so it need not be kept for as long as the key is.
  async function keepOutcome(record: PlacementRecord): Promise<void> {
    record.settled = withoutOrder(await record.attempt)
    record.attempt = Promise.resolve(record.settled)
  }

  async function attempt(
    broker: Broker,
    order: NewOrder,
    operationId: string,
    callerSendBy: number | null,
  ): Promise<Settled> {
    const now = Date.now()
    // Its own message, and no retry: the same mutation carries the same instant.
    if (callerSendBy !== null && now >= callerSendBy) {
      const message = 'The instant to send it by had passed; the order was not sent.'
      return { ...notSent('DEADLINE', message), retrySameKey: false }
    }
    const usual = now + sendWithinMs
    const sendBy = Math.min(usual, callerSendBy ?? usual)
    try {
      const answer = await broker.place(order, operationId, sendBy)
      if (answer.status !== 'REJECTED') return { state: 'placed', answer }
      return { state: 'rejected', code: 'OTHER', brokerCode: null, reason: answer.rejectReason, answer }
    } catch (error) {
      if (error instanceof UpstreamError && error.effect === 'none') return toRefused(error, callerSendBy)
      // Also a bug of ours: it may have struck after the bytes left.
      onTrouble(`the outcome of placement ${operationId} is not known`, error)
      return { state: 'unknown' }
    }
  }

  // Forgets the oldest key of which nothing was ever sent. No other key is forgotten: its repeat would send again.
  function makeRoom(): boolean {
    if (records.size < recordsMax) return true
    for (const [key, { settled }] of records) {
      if (settled?.state === 'not_sent') return records.delete(key)
    }
    return false
  }

  // ---- canceling ------------------------------------------------------------------------------------------------

  async function cancel({ orderId, accountId }: CancelInput, timeoutMs: number | null): Promise<CancelOrderResult> {
    const problems: OrderInputProblem[] = []
    if (orderId === null)
      problems.push(createProblem('orderId', 'REQUIRED', 'Give the orderId of the order to cancel.'))
    for (const [field, id] of Object.entries({ orderId, accountId })) {
      if (id !== null && !isId(id)) problems.push(createProblem(field, 'BAD_FORMAT', `This cannot be an id: ${field}.`))
    }
    const broker = orderId === null ? undefined : brokers.get(brokerOf(orderId))
    if (problems.length === 0 && !broker) {
      problems.push(createProblem('orderId', 'NOT_SUPPORTED', 'The broker of this order is not connected here.'))
    }
    if (orderId === null || !broker || problems.length > 0) {
      return { outcome: 'INVALID', orderId, order: null, message: toSentence(problems), problems }
    }
    if (isClosing && !cancels.has(orderId)) {
      return toCancelRefused(orderId, null, 'SHUTTING_DOWN', 'The service is stopping; nothing was canceled.')
    }
    const flight = cancels.get(orderId) ?? startCancel(broker, orderId)
    const caller = { hasLeft: false }
    return await withinReply(joinCancel(flight, orderId, accountId, caller), timeoutMs, () => {
      if (flight.isAsked) return toCancelPending(orderId, flight.seen)
      caller.hasLeft = true
      return toUnread(orderId)
    })
  }

  function startCancel(broker: Broker, orderId: string): CancelFlight {
    const deadline = Date.now() + replyMs
    const flight: CancelFlight = {
      before: track(readOrder(broker, orderId, deadline)),
      result: null,
      seen: null,
      isAsked: false,
      run: (before) => track(runCancel(broker, before, flight, deadline)),
    }
    cancels.set(orderId, flight)
    const forget = () => cancels.delete(orderId)
    // Whoever joins runs it at once when the order has been read; with nobody to run it, it is over then.
    const forgetWhenRun = () => void (flight.result ?? Promise.resolve()).then(forget, forget)
    flight.before.then(() => setImmediate(forgetWhenRun), forget)
    return flight
  }

  async function joinCancel(
    flight: CancelFlight,
    orderId: string,
    accountId: string | null,
    caller: { hasLeft: boolean },
  ): Promise<CancelOrderResult> {
    const before = await flight.before
    if (before instanceof UpstreamError) return toUnreachable(orderId, null, before)
    // Also for an order of another account: it answers exactly like one that does not exist.
    if (before === null || (accountId !== null && before.account.id !== accountId)) {
      return toCancelRefused(orderId, null, 'NOT_FOUND', 'There is no such order.')
    }
    // Nothing is asked of the broker for a caller who was told that nothing was.
    if (caller.hasLeft && flight.result === null) return toUnread(orderId)
    return await (flight.result ??= flight.run(before))
  }

  async function runCancel(
    broker: Broker,
    before: Order,
    flight: CancelFlight,
    deadline: number,
  ): Promise<CancelOrderResult> {
    const { id } = before
    flight.seen = before
    if (before.state === 'CLOSED') return toFinal(before, true)

    flight.isAsked = true
    const answer = await askToCancel(broker, before, deadline)
    if (answer instanceof UpstreamError && answer.effect === 'none' && !isAboutTheOrder(answer)) {
      return toUnreachable(id, before, answer)
    }
    const isRefused = answer instanceof UpstreamError && isAboutTheOrder(answer)
    if (answer !== null && !(answer instanceof UpstreamError)) {
      flight.seen = answer
      if (answer.state === 'CLOSED') return toFinal(answer, false)
    }
    // Whatever the broker answered: what it says of the order now decides.
    for (let waitMs = cancelPollMs.first; ; waitMs = Math.min(waitMs * 2, cancelPollMs.longest)) {
      const after = await readOrder(broker, id, deadline)
      if (after !== null && !(after instanceof UpstreamError)) {
        flight.seen = after
        if (after.state === 'CLOSED') return toFinal(after, isRefused)
        if (isRefused) {
          const { brokerCode, reason } = answer
          const message = 'The broker refused to cancel the order; it is still open.'
          return { ...toCancelRefused(id, after, 'BROKER_REFUSED', message), brokerCode, reason }
        }
      }
      if (Date.now() + waitMs >= deadline) return toCancelPending(id, flight.seen)
      await sleep(waitMs)
    }
  }

  // The caller's wait ends before the write's.
  async function withinReply<T>(work: Promise<T>, timeoutMs: number | null, otherwise: () => T): Promise<T> {
    const timer = new AbortController()
    const late = sleep(Math.min(replyMs, timeoutMs ?? replyMs), undefined, { signal: timer.signal }).then(otherwise)
    try {
      return await Promise.race([work, late])
    } finally {
      timer.abort()
      late.catch(() => {})
    }
  }

  return {
    place,
    cancel,
    async close() {
      isClosing = true
      while (underWay.size > 0) await Promise.allSettled(underWay)
    },
  }
}

// One cancel of an order. It runs once somebody whose order it is has joined.
interface CancelFlight {
  before: Promise<Order | null | UpstreamError>
  result: Promise<CancelOrderResult> | null
  /** The order as it was last read. */
  seen: Order | null
  /** Whether the broker may have been asked for the cancel. */
  isAsked: boolean
  run(before: Order): Promise<CancelOrderResult>
}

async function askToCancel(broker: Broker, order: Order, deadline: number): Promise<Order | null | UpstreamError> {
  try {
    return await broker.cancel(order, deadline)
  } catch (error) {
    if (error instanceof UpstreamError) return error
    throw error
  }
}

async function readOrder(broker: Broker, id: string, deadline: number): Promise<Order | null | UpstreamError> {
  const key = { broker: broker.id, id, accountId: null, mustBeWhole: false }
  const scope = { signal: neverAborted, deadline, isForCancel: true, tally: createTally() }
  const [order] = await broker.orders([key], scope)
  if (order === undefined) throw new Error('an adapter answered fewer orders than it was asked for')
  return order
}

// The canonical form of what is ordered: 5, 5.0 and 5.00 shares are the same order.
function toEconomics(order: NewOrder): string {
  const { clientOrderId: _, ...economics } = order
  const decimals = new Set([
    'quantity',
    'notional',
    'limitPrice',
    'stopPrice',
    'trailPercent',
    'trailPrice',
    'commission',
  ])
  return JSON.stringify(economics, (name, value: unknown) =>
    decimals.has(name) && typeof value === 'string' ? normalizeDecimal(value) : value,
  )
}
