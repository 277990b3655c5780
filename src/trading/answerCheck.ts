// Checks the broker's answer to a placement: whether the order that it names is certainly ours, from the records and, if they
// do not say, from one read of the order.

import { UpstreamError } from '../upstream/errors.ts'
import type { Broker, PlaceAnswer } from '../brokers/broker.ts'
import type { Tally } from '../upstream/readScope.ts'
import type { Clock } from '../domain/clock.ts'
import type { Order } from '../domain/order.ts'
import { StoreError } from '../store/store.ts'
import type { Store } from '../store/store.ts'
import { isConfirmed, judgeAnswer, mayOwn } from './placement/match.ts'
import type { AnswerVerdict } from './placement/match.ts'
import type { Placement } from './placement/placement.ts'

// Ms between two reads that are to confirm the order an answer named.
const confirmMs = { first: 250, longest: 2_000 }

/** Checks answers for one process. */
export class AnswerCheck {
  readonly #store: Store
  readonly #clock: Clock
  /** Aborts when the process stops. */
  readonly #closing: AbortSignal

  constructor({ store, clock, closing }: { store: Store; clock: Clock; closing: AbortSignal }) {
    this.#store = store
    this.#clock = clock
    this.#closing = closing
  }

  /** Judges the answer to the send of `placement`. If the store cannot be read, only a read of the order can confirm it. */
  async judge(placement: Placement, answer: PlaceAnswer): Promise<AnswerVerdict> {
    const { broker, accountId, opId, request } = placement
    const { clientOrderId } = answer
    const isOtherId = clientOrderId !== null && clientOrderId !== '' && clientOrderId !== request.clientOrderId
    try {
      const other = isOtherId ? await this.#store.find({ broker, accountId, clientOrderId }) : null
      const isOthers = other !== null && mayOwn(other, answer.orderId)
      const owner = isOthers ? other : await this.#store.findByOrder(broker, answer.orderId)
      return judgeAnswer(placement, answer, owner !== null && owner.opId !== opId)
    } catch (error) {
      if (error instanceof StoreError) return 'unconfirmed'
      throw error
    }
  }

  /**
   * Reads the order of an unconfirmed answer until `until` (monotonic ms), because the broker's reads may lag. Returns the order
   * if it is certainly that of the placement; null otherwise. `current` returns the last record of the placement.
   */
  async confirm(
    broker: Broker,
    orderId: string,
    { current, tally, until }: { current: () => Placement | null; tally: Tally; until: number },
  ): Promise<{ placement: Placement; order: Order } | null> {
    for (let waitMs = confirmMs.first; ; waitMs = Math.min(waitMs * 2, confirmMs.longest)) {
      const placement = current()
      // The lookups run meanwhile, and may have found the order.
      if (placement?.state !== 'UNKNOWN') return null
      const order = await this.#read(broker, { id: orderId, accountId: placement.accountId, tally }, until)
      if (order !== null) return (await this.#isOurs(placement, order)) ? { placement, order } : null
      if (this.#clock.monotonic() + waitMs >= until) return null
      await this.#clock.sleep(waitMs, this.#closing)
      if (this.#closing.aborted) return null
    }
  }

  /** Whether `order` is certainly that of `placement`; false if the store cannot be read. */
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

  async #read(
    broker: Broker,
    { id, accountId, tally }: { id: string; accountId: string; tally: Tally },
    until: number,
  ): Promise<Order | null> {
    const deadline = this.#clock.now() + Math.max(0, until - this.#clock.monotonic())
    const scope = { signal: this.#closing, deadline, isForCancel: false, caller: null, tally }
    const key = { broker: broker.id, id, accountId, mustBeWhole: true }
    try {
      const [order = null] = await broker.orders([key], scope)
      return order instanceof UpstreamError ? null : order
    } catch (error) {
      if (this.#closing.aborted) return null
      throw error
    }
  }
}
