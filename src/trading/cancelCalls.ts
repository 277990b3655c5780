// The cancel calls of one order: sends at most three, and reads the order until it is final.

import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, CancelTarget } from '../brokers/broker.ts'
import type { ReadScope, Tally } from '../upstream/readScope.ts'
import type { Clock } from '../domain/clock.ts'
import type { Order } from '../domain/order.ts'
import { isAboutTheOrder, toCancelPending, toCancelRefused, toFinal, toUnreachable } from './outcomes.ts'
import type { CancelOrderResult } from './outcomes.ts'

/** The progress of one cancel, which its callers read while it runs. */
export interface CancelProgress {
  /** The order as it was last read; null before. */
  seen: Order | null
  /** Whether a cancel call was made. */
  hasCalled: boolean
  /** Whether the broker accepted a cancel call, or probably did. */
  isAccepted: boolean
  /** Monotonic ms. */
  deadline: number
  /** Counts the upstream calls for the first caller. */
  tally: Tally
}

const cancelCallsMax = 3
const backoffMs = { first: 200, longest: 1_000 }
const pollMs = { first: 250, longest: 2_000 }

const neverAborted = new AbortController().signal

/** Sends cancel calls and reads orders for one process. */
export class CancelCalls {
  readonly #clock: Clock
  readonly #random: () => number

  /** `random` returns a number from 0 up to 1. */
  constructor(clock: Clock, random: () => number) {
    this.#clock = clock
    this.#random = random
  }

  /** Sends a cancel call, reads the order, and repeats both until the order is final or the deadline has passed. */
  async run(broker: Broker, target: CancelTarget, task: CancelProgress): Promise<CancelOrderResult> {
    const { id } = target
    const { deadline } = task
    task.hasCalled = true
    let refusal: UpstreamError | null = null
    let unreached: UpstreamError | null = null
    let hasReached = false
    // Whether an earlier call may have reached the order. A refusal or a canceled order may then be the result of that call.
    let mayBeTaken = false
    let mayAskAgain = true
    let calls = 0
    for (let waitMs = pollMs.first; ; waitMs = Math.min(waitMs * 2, pollMs.longest)) {
      if (mayAskAgain && calls < cancelCallsMax) {
        calls++
        const answer = await this.#send(broker, target, task)
        // A refusal after a call that may have reached the order is probably the result of that call.
        task.isAccepted ||= !(answer instanceof UpstreamError) || (mayBeTaken && isRefusal(answer))
        if (answer !== null && !(answer instanceof UpstreamError)) {
          task.seen = answer
          if (answer.state === 'CLOSED') return toFinal(answer, false)
        }
        const isUnreached = answer instanceof UpstreamError && answer.effect === 'none' && !isAboutTheOrder(answer)
        hasReached ||= !isUnreached
        unreached = isUnreached ? answer : null
        refusal = answer instanceof UpstreamError && isAboutTheOrder(answer) && !mayBeTaken ? answer : null
        mayBeTaken ||= !isUnreached && refusal === null
        // A cancel that was accepted or refused is not sent again, and neither is one that cannot succeed by a repeat.
        mayAskAgain =
          answer instanceof UpstreamError && !isAboutTheOrder(answer) && (!isUnreached || answer.kind === 'not_sent')
        if (unreached !== null && !hasReached && (!mayAskAgain || calls === cancelCallsMax)) {
          return toUnreachable(id, task.seen, unreached)
        }
      }
      // The state of the order decides, and not the answer to the cancel call.
      if (unreached === null || hasReached) {
        const after = await this.readOrder(broker, { id, accountId: target.account.id }, deadline, task.tally)
        if (after !== null && !(after instanceof UpstreamError)) {
          task.seen = after
          if (after.state === 'CLOSED') return toFinal(after, refusal !== null)
          if (refusal !== null) {
            const { brokerCode, reason } = refusal
            const message = 'The broker refused to cancel the order; the last read still shows it as open.'
            return { ...toCancelRefused(id, after, 'BROKER_REFUSED', message), brokerCode, reason }
          }
        }
      }
      // Full jitter before the next call, because cancels that failed together would otherwise be repeated together.
      const pauseMs =
        mayAskAgain && calls < cancelCallsMax
          ? this.#random() * Math.min(backoffMs.longest, backoffMs.first * 2 ** (calls - 1))
          : waitMs
      if (this.#clock.monotonic() + pauseMs >= deadline) {
        if (unreached !== null && !hasReached) return toUnreachable(id, task.seen, unreached)
        return toCancelPending(id, task.seen)
      }
      await this.#clock.sleep(pauseMs)
    }
  }

  async #send(
    broker: Broker,
    order: CancelTarget,
    { deadline, tally }: CancelProgress,
  ): Promise<Order | null | UpstreamError> {
    try {
      const answer = await broker.cancel(order, this.#toEpoch(deadline))
      tally.calls++
      return answer
    } catch (error) {
      if (error instanceof UpstreamError && error.kind !== 'not_sent') tally.calls++
      if (error instanceof UpstreamError) return error
      throw error
    }
  }

  /** Reads an order until `deadline`, in monotonic ms. Returns null if the broker has no such order. */
  async readOrder(
    broker: Broker,
    { id, accountId }: { id: string; accountId: string | null },
    deadline: number,
    tally?: Tally,
  ): Promise<Order | null | UpstreamError> {
    const key = { broker: broker.id, id, accountId, mustBeWhole: false }
    const [order = null] = await broker.orders([key], this.toScope(deadline, tally))
    return order
  }

  /** Returns the scope of the reads of a cancel, which nothing but `deadline` (monotonic ms) ends. */
  toScope(deadline: number, tally = createTally()): ReadScope {
    return { signal: neverAborted, deadline: this.#toEpoch(deadline), isForCancel: true, caller: null, tally }
  }

  #toEpoch(deadline: number): number {
    return this.#clock.now() + Math.max(0, deadline - this.#clock.monotonic())
  }
}

/** Whether the broker refused to cancel an order that it knows. */
function isRefusal(error: UpstreamError): boolean {
  return isAboutTheOrder(error) && error.status !== 404
}
