// Cancels orders: sends at most three cancel calls at a time, and confirms a cancel only when the broker shows it. A cancel
// call may be repeated because it names one order. A fill may race it, so the order is read until its status is final. If the
// broker accepted none of the calls, the cancel is made again later.
//
// The order is read before the first call, because a final order needs none. If the broker's reads lag or fail, the target
// comes from the record of the placement instead. If the broker cannot be called, the cancel request is kept: in the record
// of the placement, or in a record of its own (cancelRequests.ts).

import { AccountNeeded, OrderWithheld } from '../brokers/broker.ts'
import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, Brokers, CancelTarget } from '../brokers/broker.ts'
import type { Tally } from '../upstream/readScope.ts'
import { within } from '../domain/clock.ts'
import type { Clock } from '../domain/clock.ts'
import { isTombstone, StoreError } from '../store/store.ts'
import type { CancelKey, Store } from '../store/store.ts'
import { CancelCalls } from './cancelCalls.ts'
import type { CancelProgress } from './cancelCalls.ts'
import { createCancelRequests, listTries } from './cancelRequests.ts'
import { compareClientOrderIds } from './placement/clientOrderId.ts'
import { accountInOrderId, brokerOf } from '../brokers/registry.ts'
import type { Order } from '../domain/order.ts'
import {
  toCancelKept,
  toCancelPending,
  toCancelRefused,
  toFinal,
  toSentence,
  toUnreachable,
  toUnread,
} from './outcomes.ts'
import type { CancelOrderResult, CancelRefused } from './outcomes.ts'
import { isSettled, isCancelPending } from './placement/placement.ts'
import type { Placement } from './placement/placement.ts'
import type { OnTrouble, Records } from './records.ts'
import { createProblem, findCancelProblems } from './validate.ts'
import type { CancelInput } from './validate.ts'

/** The caller that cancels. */
interface Canceler {
  /** As the audit names it. */
  principal: string
  /** Whether the caller may see an account. It gets the answer for missing orders for all other accounts. */
  sees: (accountId: string) => boolean
  /** Counts the upstream calls of the cancel; absent counts none. */
  tally?: Tally
}

const anybody: Canceler = { principal: 'caller', sees: () => true }
// Cancels on behalf of a caller that was allowed to cancel the order.
const ourselves: Canceler = { principal: 'service', sees: () => true }

interface PlacementCancel {
  accountId: string
  clientOrderId: string
  by: Canceler
}

export interface CancelsOptions {
  brokers: Brokers
  store: Store
  records: Records
  clock: Clock
  /** From 0 up to 1. */
  random: () => number
  /** The longest a caller waits, in ms. */
  replyMs: number
  /** When the order of an unconfirmed cancel is read again, in ms after the cancel was requested, ascending. */
  lateMs: readonly number[]
  /** False refuses every cancel as READ_ONLY. */
  isAllowed: boolean
  onTrouble: OnTrouble
}

/** The cancels of a process. Its creator calls `close`. */
export interface Cancels {
  /** Cancels the order. Callers that cancel it at the same time share the outcome. */
  cancel(input: CancelInput, timeoutMs: number | null, by?: Canceler): Promise<CancelOrderResult>
  /** Resumes a cancel that was requested and is not settled: after a restart, or because the order was found only now. */
  resume(placement: Placement): void
  /** Resumes the cancel requests that an earlier process kept. Throws StoreError. */
  resumeKept(): Promise<void>
  /** Takes no further cancels and resolves when those under way have ended. */
  close(): Promise<void>
}

/** One cancel of an order. It runs when a caller that may see the order has joined. */
interface CancelTask extends CancelProgress {
  /** The account that its first caller named; null if none. */
  accountId: string | null
  /** The placement that is bound to the order; null if no placement is, or if the store cannot be read. */
  placement: Promise<Placement | null>
  /** The order before the cancel, or why it could not be read. */
  before: Promise<Order | null | UpstreamError>
  result: Promise<CancelOrderResult> | null
}

/** An order to cancel, and the caller who cancels it. */
interface Target {
  orderId: string
  accountId: string | null
  by: Canceler
}

/** A caller that waits for a cancel. */
interface Caller {
  task: CancelTask
  /** Whether the caller got its answer before a cancel call was made for it. */
  hasLeft: boolean
  /** Whether the caller may see the order's account. */
  isOwner: boolean
}

// Maximum time of one read of the order, before or after the cancel.
const readMs = 8_000
// Maximum time of the read before the cancel if the record of the placement can replace it.
const readBeforeMs = 1_000

/** The cancels over `brokers`. */
export function createCancels(options: CancelsOptions): Cancels {
  return new OrderCancels(options)
}

class OrderCancels implements Cancels {
  readonly #options: CancelsOptions
  readonly #brokers
  readonly #store
  readonly #records
  readonly #clock
  readonly #replyMs
  readonly #onTrouble
  readonly #tasks = new Map<string, CancelTask>()
  readonly #followed = new Map<string, Promise<void>>()
  // Ids of the placements with a cancel request for which the broker accepted no cancel call yet.
  readonly #unsent = new Set<string>()
  readonly #underWay = new Set<Promise<unknown>>()
  readonly #closing = new AbortController()
  readonly #requests
  readonly #calls: CancelCalls

  constructor(options: CancelsOptions) {
    this.#options = options
    const { brokers, store, records, clock, random, replyMs, onTrouble } = options
    this.#brokers = brokers
    this.#store = store
    this.#records = records
    this.#clock = clock
    this.#calls = new CancelCalls(clock, random)
    this.#replyMs = replyMs
    this.#onTrouble = onTrouble
    this.#requests = createCancelRequests({
      store: this.#store,
      clock: this.#clock,
      lateMs: options.lateMs,
      onTrouble: this.#onTrouble,
      cancel: async ({ broker: id, orderId, accountId, principal }) => {
        const broker = this.#brokers.get(id)
        if (!broker || !this.#options.isAllowed) return null
        const by = { principal, sees: (account: string) => account === accountId }
        return await this.#cancelById(broker, { orderId, accountId, by }, this.#clock.monotonic() + this.#replyMs)
      },
    })
  }

  resumeKept(): Promise<void> {
    return this.#requests.resume()
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#requests.close()
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay)
    await Promise.allSettled(this.#followed.values())
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work)
    // Handles both outcomes, so that a failed cancel leaves no unhandled rejection.
    work.then(
      () => this.#underWay.delete(work),
      () => this.#underWay.delete(work),
    )
    return work
  }

  async cancel(input: CancelInput, timeoutMs: number | null, by: Canceler = anybody): Promise<CancelOrderResult> {
    const { orderId, accountId, clientOrderId } = input
    const problems = findCancelProblems(input)
    const named = orderId ?? accountId
    const broker = named === null ? undefined : this.#brokers.get(brokerOf(named))
    if (problems.length === 0 && !broker) {
      const field = orderId === null ? 'accountId' : 'orderId'
      problems.push(createProblem(field, 'NOT_SUPPORTED', 'The broker of this order is not connected here.'))
    }
    if (!broker || problems.length > 0) {
      return { outcome: 'INVALID', orderId, order: null, message: toSentence(problems), problems }
    }
    if (!this.#options.isAllowed) {
      const message = 'This service only reads at the moment; nothing was canceled.'
      return toCancelRefused(orderId, null, 'READ_ONLY', message)
    }
    const until = this.#clock.monotonic() + Math.min(this.#replyMs, timeoutMs ?? this.#replyMs)
    if (orderId !== null) return await this.#cancelById(broker, { orderId, accountId, by }, until)
    // The answer is the same as for an unused key of the caller's own account.
    if (!by.sees(accountId ?? '')) return toNeverPlaced()
    return await this.#cancelByKey(
      broker,
      { accountId: accountId ?? '', clientOrderId: clientOrderId ?? '', by },
      until,
    )
  }

  // ---- by its id --------------------------------------------------------------------------------------------------
  async #cancelById(
    broker: Broker,
    { orderId, accountId, by }: { orderId: string; accountId: string | null; by: Canceler },
    until: number,
  ): Promise<CancelOrderResult> {
    if (this.#closing.signal.aborted && !this.#tasks.has(orderId)) return toStopping(orderId)
    const task = this.#tasks.get(orderId) ?? this.#startTask(broker, { orderId, accountId, by })
    const caller: Caller = { task, hasLeft: false, isOwner: false }
    const target = { orderId, accountId, by }
    const result = await within<CancelOrderResult | null>(
      this.#clock,
      until,
      this.#join(broker, caller, target),
      () => null,
    )
    if (result !== null) return result
    // The caller's time has run out.
    if (caller.task.hasCalled && caller.isOwner) return toCancelPending(orderId, caller.task.seen)
    const placement = await this.#findOwnPlacement(caller.task, target)
    const isKept = placement !== null && (await this.#recordRequest(placement, by)) !== null
    // The cancel continues without its caller.
    if (isKept) return toCancelKept(orderId, caller.task.seen)
    caller.hasLeft = true
    return await this.#keepRequest(broker, target, toUnread(orderId))
  }

  /** Returns the placement that is bound to the order, if the caller may cancel it; null otherwise. */
  async #findOwnPlacement(task: CancelTask, { accountId, by }: Target): Promise<Placement | null> {
    const placement = await task.placement
    if (placement === null || !by.sees(placement.accountId)) return null
    return accountId === null || accountId === placement.accountId ? placement : null
  }

  /** Keeps the cancel request if the order's account is known and the caller may see it; returns `refusal` otherwise. */
  async #keepRequest(broker: Broker, target: Target, refusal: CancelOrderResult): Promise<CancelOrderResult> {
    const { orderId, by } = target
    const accountId = accountInOrderId(orderId) ?? target.accountId
    if (accountId === null || !by.sees(accountId) || this.#closing.signal.aborted) return refusal
    const { principal } = by
    const request = { broker: broker.id, orderId, accountId, principal, requestedAt: this.#clock.now() }
    try {
      const placement = await this.#store.findByOrder(broker.id, orderId)
      // The order belongs to another account, and the caller may see that one too.
      if (placement !== null && placement.accountId !== accountId && by.sees(placement.accountId)) return refusal
      return (await this.#requests.keep(request)) ? toCancelKept(orderId, null) : refusal
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#onTrouble('a cancel request could not be kept', error)
      return refusal
    }
  }

  #startTask(broker: Broker, { orderId, accountId, by }: Target): CancelTask {
    const deadline = this.#clock.monotonic() + this.#replyMs
    const placement = this.#findPlacement(broker, orderId)
    const { tally = createTally() } = by
    const before = this.#track(this.#readBefore(broker, { orderId, accountId, placement, tally }, deadline))
    const task: CancelTask = {
      accountId,
      placement,
      before,
      result: null,
      seen: null,
      hasCalled: false,
      isAccepted: false,
      deadline,
      tally,
    }
    this.#tasks.set(orderId, task)
    const forget = (): void => {
      if (this.#tasks.get(orderId) === task) this.#tasks.delete(orderId)
    }
    // A caller that joins runs the cancel as soon as the order has been read. If no caller did, the cancel ends there.
    const forgetWhenRun = (): void => void (task.result ?? Promise.resolve()).then(forget, forget)
    before.then(() => setImmediate(forgetWhenRun), forget)
    return task
  }

  async #readBefore(
    broker: Broker,
    {
      orderId,
      accountId,
      placement,
      tally,
    }: Pick<Target, 'orderId' | 'accountId'> & Pick<CancelTask, 'placement' | 'tally'>,
    deadline: number,
  ): Promise<Order | null | UpstreamError> {
    const known = await placement
    const until = known === null ? deadline : Math.min(deadline, this.#clock.monotonic() + readBeforeMs)
    const key = { id: orderId, accountId: accountId ?? known?.accountId ?? null }
    return await this.#calls.readOrder(broker, key, until, tally)
  }

  async #join(broker: Broker, caller: Caller, target: Target): Promise<CancelOrderResult> {
    const { orderId, accountId, by } = target
    let before = await caller.task.before
    if ((before === null || before instanceof AccountNeeded) && caller.task.accountId !== accountId) {
      // The order was read under another account, which proves nothing if the broker reads orders only under their account.
      if (caller.hasLeft) return toUnread(orderId)
      caller.task = this.#startTask(broker, target)
      before = await caller.task.before
    }
    if (before instanceof AccountNeeded) return toAccountNeeded(orderId)
    const toMissing = () => toCancelRefused(orderId, null, 'NOT_FOUND', 'There is no such order.')
    if (before === null) {
      // Complete lists lack the order, and the broker has not shown it for longer than its replicas lag.
      const placement = await this.#findOwnPlacement(caller.task, target)
      if (placement !== null && isCancelPending(placement)) await this.#settle(placement, null)
      const keptFor = accountInOrderId(orderId) ?? accountId
      if (keptFor !== null && by.sees(keptFor)) {
        await this.#requests.settle({ broker: broker.id, orderId, accountId: keptFor })
      }
      return toMissing()
    }
    // An order of another account gets the answer for a missing order. If the order can be found only with its account, that
    // answer would reveal that it exists, so the caller has to name the account instead.
    const isFindable = accountId !== null || broker.features.readsOne !== 'underAccount'
    const toForeign = () => (isFindable ? toMissing() : toAccountNeeded(orderId))
    if (before instanceof OrderWithheld) {
      const isOther = accountId !== null && accountId !== before.accountId
      if (isOther || !by.sees(before.accountId)) return toForeign()
    }
    const { task } = caller
    if (before instanceof UpstreamError) {
      const placement = await this.#findOwnPlacement(task, target)
      if (placement === null) {
        // An order of another account gets the same answer as an unknown order, so that the answer reveals nothing.
        if (!isFindable && (await task.placement) !== null) return toAccountNeeded(orderId)
        if (caller.hasLeft) return toUnread(orderId)
        return await this.#keepRequest(broker, withAccount(target, before), toUnreachable(orderId, null, before))
      }
      caller.isOwner = true
      return await (task.result ??= this.#track(
        this.#run(broker, toTarget(placement, orderId), { task, by, before: null }),
      ))
    }
    const isTheirs = (accountId === null || before.account.id === accountId) && by.sees(before.account.id)
    if (!isTheirs) return toForeign()
    caller.isOwner = true
    // No cancel call is made for a caller whose answer said that none was made.
    if (caller.hasLeft && task.result === null) return toUnread(orderId)
    return await (task.result ??= this.#track(this.#run(broker, before, { task, by, before })))
  }

  /** Cancels the order. `before` is the order as it was read; null if only the record of its placement is known. */
  async #run(
    broker: Broker,
    target: CancelTarget,
    { task, by, before }: { task: CancelTask; by: Canceler; before: Order | null },
  ): Promise<CancelOrderResult> {
    task.seen = before
    const placement = await task.placement
    if (before?.state === 'CLOSED') {
      if (placement !== null && isCancelPending(placement)) await this.#settle(placement, before)
      await this.#requests.settle(toCancelKey(broker, target))
      return toFinal(before, true)
    }
    const requested = placement === null ? null : await this.#recordRequest(placement, by)
    const result = await this.#calls.run(broker, target, task)
    // Without an answer that accepts the cancel call, it may have been lost, so it is made again.
    const isUnanswered = result.outcome === 'PENDING' && !task.isAccepted
    if (requested === null) {
      // The record cannot be written, so it cannot keep the cancel request either.
      if (placement !== null) return result
      if (!wasNotSent(result) && !isUnanswered) {
        if (result.outcome !== 'PENDING') await this.#requests.settle(toCancelKey(broker, target))
        return result
      }
      const kept = await this.#keepRequest(broker, { orderId: target.id, accountId: target.account.id, by }, result)
      return isUnanswered ? result : kept
    }
    if (wasNotSent(result)) {
      this.#unsent.add(requested.opId)
      this.#followUp(broker, requested)
      return toCancelKept(target.id, task.seen)
    }
    if (isUnanswered) this.#unsent.add(requested.opId)
    else this.#unsent.delete(requested.opId)
    if (result.outcome === 'PENDING') this.#followUp(broker, requested)
    else await this.#settle(requested, result.order)
    return result
  }

  // ---- by the key of its placement ----------------------------------------------------------------------------------
  async #cancelByKey(broker: Broker, key: PlacementCancel, until: number): Promise<CancelOrderResult> {
    const { accountId, clientOrderId, by } = key
    if (this.#closing.signal.aborted) return toStopping(null)
    try {
      const found = await this.#store.find({ broker: broker.id, accountId, clientOrderId })
      if (found === null) return await this.#cancelUnrecorded(broker, key, until)
      if (isTombstone(found)) {
        return found.orderId === null
          ? toNeverPlaced()
          : await this.#cancelById(broker, { orderId: found.orderId, accountId, by }, until)
      }
      const recorded = isSettled(found)
        ? found
        : await this.#records.change(found, { type: 'cancel_requested' }, by.principal)
      // With the request recorded, the order is canceled as soon as the send or a lookup finds it.
      const placement = isSettled(recorded) ? recorded : await this.#records.settled(recorded, until)
      if (placement.orderId !== null) {
        return await this.#cancelById(broker, { orderId: placement.orderId, accountId, by }, until)
      }
      if (placement.state === 'NOT_PLACED' && placement.nextCheckAt !== null) {
        // If the order appears late, it is canceled then.
        await this.#records.change(placement, { type: 'cancel_requested' }, by.principal)
      }
      return isSettled(placement) ? toNeverPlaced() : toCancelPending(null, null)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#onTrouble('a cancel by its key could not be looked up or kept', error)
      const message =
        'The record of this placement cannot be reached; nothing was canceled. Cancel by orderId, or ask again.'
      return toCancelRefused(null, null, 'BROKER_UNAVAILABLE', message)
    }
  }

  /** Cancels by a key without a record. The order may have been placed elsewhere, or before a store was lost. */
  async #cancelUnrecorded(broker: Broker, key: PlacementCancel, until: number): Promise<CancelOrderResult> {
    const { accountId, clientOrderId, by } = key
    const query = { accountId, symbol: null, side: null, since: '0000-01-01T00:00:00Z', purpose: 'lookup' as const }
    try {
      const scan = await broker.scan(query, { ...this.#calls.toScope(until, by.tally), isForCancel: false })
      // The placement may have been recorded meanwhile.
      const found = await this.#store.find({ broker: broker.id, accountId, clientOrderId })
      if (found !== null) return await this.#cancelByKey(broker, key, until)
      const named = scan.orders.filter((row) => row.clientOrderId === clientOrderId)
      const order = named.find(({ state }) => state !== 'CLOSED') ?? named[0]
      if (order) return await this.#cancelById(broker, { orderId: order.id, accountId, by }, until)
      const alike = scan.orders.filter((row) => isMaybeOf(clientOrderId, row))
      if (alike.length > 0) return toCancelRefused(null, null, 'NOT_FOUND', toAlikeMessage(alike))
      // An order that shows no client order id may be the one with this key.
      if (scan.isComplete && scan.orders.every((row) => typeof row.clientOrderId === 'string')) return toNeverPlaced()
      const message =
        'No order with this clientOrderId was found, but not all orders could be read; nothing was canceled. ' +
        'Cancel by orderId.'
      return toCancelRefused(null, null, 'BROKER_UNAVAILABLE', message)
    } catch (error) {
      if (error instanceof UpstreamError) return toUnreachable(null, null, error)
      throw error
    }
  }

  // ---- what is kept of it -------------------------------------------------------------------------------------------

  // Returns null if the store cannot be read, because a cancel must not wait for our records.
  async #findPlacement(broker: Broker, orderId: string): Promise<Placement | null> {
    return await this.#store.findByOrder(broker.id, orderId).catch(this.#noteUnrecorded('a cancel'))
  }

  async #recordRequest(placement: Placement, by: Canceler): Promise<Placement | null> {
    const event = { type: 'cancel_requested' as const }
    return await this.#records.change(placement, event, by.principal).catch(this.#noteUnrecorded(toName(placement)))
  }

  #noteUnrecorded(what: string): (error: unknown) => null {
    return (error) => {
      this.#onTrouble(`${what} goes on without being recorded`, error)
      return null
    }
  }

  async #settle(requested: Placement, order: Order | null): Promise<void> {
    const event = { type: 'cancel_settled' as const, orderStatus: order?.status ?? 'UNKNOWN' }
    await this.#records.change(requested, event).catch(this.#noteUnrecorded(toName(requested)))
  }

  // ---- going on without the caller ----------------------------------------------------------------------------------
  #followUp(broker: Broker, requested: Placement): void {
    const { opId } = requested
    if (this.#followed.has(opId) || this.#closing.signal.aborted) return
    const work = this.#watch(broker, requested)
      .catch((error: unknown) => this.#onTrouble(`${toName(requested)} is not looked after any more`, error))
      .finally(() => {
        this.#followed.delete(opId)
        this.#unsent.delete(opId)
      })
    this.#followed.set(opId, work)
  }

  /**
   * Reads the order until it is final, so that later callers get the outcome of the cancel. Cancels it again as long as the
   * broker accepted no cancel call.
   */
  async #watch(broker: Broker, requested: Placement): Promise<void> {
    const { orderId } = requested
    if (orderId === null) return
    const beganAt = this.#clock.monotonic()
    for (const dueMs of listTries(this.#options.lateMs, () => this.#unsent.has(requested.opId))) {
      await this.#clock.sleep(beganAt + dueMs - this.#clock.monotonic(), this.#closing.signal)
      if (this.#closing.signal.aborted) return
      // The cancel may have been settled meanwhile, and is not sent again then.
      const current = await this.#store.read(requested.opId).catch(() => requested)
      if (current === null || !isCancelPending(current)) return
      if (this.#unsent.has(requested.opId)) {
        await this.#cancelById(
          broker,
          { orderId, accountId: requested.accountId, by: ourselves },
          this.#clock.monotonic() + this.#replyMs,
        )
        continue
      }
      const key = { id: orderId, accountId: requested.accountId }
      const order = await this.#calls.readOrder(broker, key, this.#clock.monotonic() + readMs)
      if (order === null || order instanceof UpstreamError || order.state !== 'CLOSED') continue
      return await this.#settle(requested, order)
    }
    this.#onTrouble(`ALARM: ${toName(requested)} was never confirmed`, null)
  }

  resume(placement: Placement): void {
    const { orderId } = placement
    const broker = this.#brokers.get(placement.broker)
    if (!broker || orderId === null || !isCancelPending(placement)) return
    if (this.#closing.signal.aborted || !this.#options.isAllowed) return
    this.#track(this.#carryOut(broker, placement, orderId)).catch((error: unknown) =>
      this.#onTrouble(`${toName(placement)} broke off`, error),
    )
  }

  async #carryOut(broker: Broker, requested: Placement, orderId: string): Promise<void> {
    const target = { orderId, accountId: requested.accountId, by: ourselves }
    const result = await this.#cancelById(broker, target, this.#clock.monotonic() + this.#replyMs)
    if (!wasNotSent(result)) return
    this.#unsent.add(requested.opId)
    this.#followUp(broker, requested)
  }
}

// Names a cancel in the log by its placement, because the id of an order at Aries names its account.
function toName({ opId }: Placement): string {
  return `the cancel of placement ${opId}`
}

/** Whether the cancel was not sent, or the broker did not process it. */
function wasNotSent(result: CancelOrderResult): result is CancelRefused {
  if (result.outcome !== 'REFUSED') return false
  return result.refusalCode === 'BROKER_UNAVAILABLE' || result.refusalCode === 'RATE_LIMITED'
}

function toCancelKey(broker: Broker, { id, account }: CancelTarget): CancelKey {
  return { broker: broker.id, orderId: id, accountId: account.id }
}

/** Makes the cancel target from the record of a placement. Blotter places only shares and funds, so there are no legs. */
function toTarget({ broker, accountId, request }: Placement, id: string): CancelTarget {
  const { symbol, side } = request
  return { id, account: { id: accountId, broker }, symbol, side, securityType: 'EQUITY', legs: [] }
}

/** Returns `target` with the account that showed the order before; unchanged if `error` names no account. */
function withAccount(target: Target, error: UpstreamError): Target {
  return error instanceof OrderWithheld ? { ...target, accountId: error.accountId } : target
}

/** Whether the client order id of `order` may be `clientOrderId` as the broker changed it. */
function isMaybeOf(clientOrderId: string, order: Order): boolean {
  const match = compareClientOrderIds(clientOrderId, order.clientOrderId)
  return match === 'changed' || match === 'cut'
}

function toAlikeMessage(alike: readonly Order[]): string {
  const [order] = alike
  const count = alike.length === 1 ? 'One order of the account has' : `${alike.length} orders of the account have`
  return (
    `No order has exactly this clientOrderId, so nothing was canceled. ${count} a similar one, such as order ` +
    `${order?.id ?? ''}; if it is yours, cancel it by its orderId.`
  )
}

function toAccountNeeded(orderId: string): CancelOrderResult {
  const help = 'The broker reads an order only under its account, which is not known of this order: give its accountId.'
  const problems = [createProblem('accountId', 'REQUIRED', help)]
  return { outcome: 'INVALID', orderId, order: null, message: toSentence(problems), problems }
}

function toStopping(orderId: string | null): CancelOrderResult {
  return toCancelRefused(orderId, null, 'SHUTTING_DOWN', 'The service is stopping; nothing was canceled.')
}

function toNeverPlaced(): CancelOrderResult {
  return toCancelRefused(null, null, 'NOT_FOUND', 'No order was placed under this clientOrderId.')
}
