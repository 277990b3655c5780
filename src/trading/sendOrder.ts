// Sends the order of one placement, at most once. The result says what the broker may have: only after `notSent` may the
// placement be sent again.

import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, PlaceAnswer } from '../brokers/broker.ts'
import type { Tally } from '../upstream/readScope.ts'
import { within } from '../domain/clock.ts'
import type { Clock } from '../domain/clock.ts'
import { StoreError } from '../store/store.ts'
import type { Store } from '../store/store.ts'
import { notSent, stopped, tooLate, toRefused } from './outcomes.ts'
import { toSearchedSince } from './placement/match.ts'
import { canceledBeforeSend, isCancelPending } from './placement/placement.ts'
import type { NotSentOutcome, Placement, PreSendSnapshot, RejectedOutcome } from './placement/placement.ts'
import type { OnTrouble, Records } from './records.ts'

/** How a send ended. */
export type SendResult =
  /** The broker answered with an order, which it may have rejected. */
  | { kind: 'sent'; answer: PlaceAnswer }
  /**
   * No order can exist. `hasLeft` says that the request left and the broker proved that it did not process the order.
   * `isRecorded` is false if the store failed before the send, so that the placement is still RESERVED.
   */
  | { kind: 'notSent'; outcome: NotSentOutcome; hasLeft: boolean; isRecorded: boolean }
  /** The broker refused the order. */
  | { kind: 'rejected'; outcome: RejectedOutcome }
  /** An order may exist. */
  | { kind: 'unknown'; failure: { kind: string; status: number | null } }
  /** Another process has taken up the placement, and sends it. */
  | { kind: 'takenOver' }

/** How the caller of the order wants it sent. */
export interface SendOptions {
  /** Epoch ms of the caller from which on the order is not sent; null leaves the limit to the placement. */
  sendBy: number | null
  /** Keys of the duplicate candidates that the caller acknowledges. */
  acknowledged: readonly string[]
  /** Counts the upstream calls of the send. */
  tally?: Tally | undefined
  /** Receives the record each time that the send changes it. */
  onRecord: (placement: Placement) => void
}

interface SenderOptions {
  store: Store
  records: Records
  clock: Clock
  /** Names this process in the records. */
  owner: string
  /** Aborts when the process stops. Nothing is sent then. */
  closing: AbortSignal
  onTrouble: OnTrouble
}

// Maximum time that a send waits for the outcome of a duplicate candidate, in ms.
const candidateWaitMs = 1_000
// Maximum time for the pre-send snapshot, in ms. Without it, an order that shows no client order id cannot be bound.
const snapshotMs = 5_000

/** The outcome of a placement that could not be recorded. */
export const unrecordable = notSent(
  'STORE_UNAVAILABLE',
  'The order could not be recorded here, so it was not sent.',
  1_000,
)

/** Sends orders for one process. */
export class OrderSender {
  readonly #store: Store
  readonly #records: Records
  readonly #clock: Clock
  readonly #owner: string
  readonly #closing: AbortSignal
  readonly #onTrouble: OnTrouble

  constructor({ store, records, clock, owner, closing, onTrouble }: SenderOptions) {
    this.#store = store
    this.#records = records
    this.#clock = clock
    this.#owner = owner
    this.#closing = closing
    this.#onTrouble = onTrouble
  }

  /** Sends a RESERVED placement. Throws only if a bug occurs before anything can have left. */
  async send(broker: Broker, reserved: Placement, options: SendOptions): Promise<SendResult> {
    const { opId, sendBy } = reserved
    const { tally = createTally() } = options
    const sending: Sending = { record: reserved, hasBegun: false }
    try {
      const snapshot = await this.#prepare(broker, reserved, { ...options, tally })
      if (this.#clock.now() >= sendBy) throw new NotToBeSent(tooLateFor(options))
      const answer = await broker.place(reserved.request, {
        idempotencyKey: opId,
        sendBy,
        beforeSend: () => this.#recordSend(sending, snapshot, options),
      })
      tally.calls++
      return { kind: 'sent', answer }
    } catch (error) {
      const { hasBegun } = sending
      if (hasBegun && error instanceof UpstreamError && error.kind !== 'not_sent') tally.calls++
      return this.#explain(error, { opId, hasBegun, options })
    }
  }

  /** Checks for duplicate candidates and takes the pre-send snapshot. Throws NotToBeSent, and StoreError. */
  async #prepare(
    broker: Broker,
    reserved: Placement,
    { acknowledged, tally }: SendOptions & { tally: Tally },
  ): Promise<PreSendSnapshot | null> {
    await this.#refuseDuplicate(reserved, acknowledged)
    const snapshot = await this.#readSnapshot(broker, reserved, tally)
    // Checks again, because the answer of another placement may have been lost during the snapshot.
    await this.#refuseDuplicate(reserved, acknowledged)
    if (this.#closing.aborted) throw new NotToBeSent(stopped)
    return snapshot
  }

  /** Records that the order leaves now. Throws NotToBeSent, or StoreError if that cannot be recorded. */
  async #recordSend(
    sending: Sending,
    preImage: PreSendSnapshot | null,
    { onRecord }: Pick<SendOptions, 'onRecord'>,
  ): Promise<void> {
    if (this.#closing.aborted) throw new NotToBeSent(stopped)
    const { record, hasBegun } = sending
    const { attempt } = record
    const changed = hasBegun
      ? await this.#records.change(record, { type: 'sent_again', attempt })
      : await this.#records.change(record, { type: 'sending', attempt, preImage })
    if (isCancelPending(changed)) throw new NotToBeSent(canceledBeforeSend)
    sending.record = changed
    onRecord(changed)
    // Another process sends the placement unless this step was recorded.
    const isOurs = changed.state === 'SENDING' && changed.attempt === attempt && changed.owner === this.#owner
    if (!isOurs) throw new NotToBeSent(null)
    sending.hasBegun = true
  }

  /** Returns what a send that failed leaves behind. Throws a bug that occurred before the order can have left. */
  #explain(
    error: unknown,
    { opId, hasBegun, options }: { opId: string; hasBegun: boolean; options: SendOptions },
  ): SendResult {
    if (error instanceof NotToBeSent) {
      // If the send had begun, the order left once and the broker proved that it did not process it.
      return error.outcome === null
        ? { kind: 'takenOver' }
        : { kind: 'notSent', outcome: error.outcome, hasLeft: hasBegun, isRecorded: true }
    }
    if (!hasBegun && error instanceof StoreError) {
      this.#onTrouble('a placement cannot be recorded', error)
      return { kind: 'notSent', outcome: unrecordable, hasLeft: false, isRecorded: false }
    }
    if (error instanceof UpstreamError && error.effect === 'none') {
      const outcome = toRefused(error, options.sendBy !== null && this.#clock.now() >= options.sendBy)
      return outcome.kind === 'not_sent'
        ? { kind: 'notSent', outcome, hasLeft: error.kind !== 'not_sent', isRecorded: true }
        : { kind: 'rejected', outcome }
    }
    if (!hasBegun) throw error
    // A bug may also end here. It may have occurred after the bytes left, so the outcome is unknown.
    if (!(error instanceof StoreError)) this.#onTrouble(`the outcome of placement ${opId} is not known`, error)
    const isAnswer = error instanceof UpstreamError
    return {
      kind: 'unknown',
      failure: { kind: isAnswer ? error.kind : 'bug', status: isAnswer ? error.status : null },
    }
  }

  /**
   * Throws NotToBeSent if there is a duplicate candidate: an unresolved placement with the same terms under another key, which
   * may come from a second press of the same button. Waits up to a second for its outcome. Throws StoreError.
   */
  async #refuseDuplicate(reserved: Placement, acknowledged: readonly string[]): Promise<void> {
    const { broker, accountId, fingerprint, opId } = reserved
    const until = this.#clock.monotonic() + candidateWaitMs
    for (;;) {
      const equal = await this.#store.findDuplicateCandidates(broker, accountId, fingerprint)
      const candidate = equal.find((other) => other.opId !== opId && !acknowledged.includes(other.clientOrderId))
      if (candidate === undefined) return
      if (this.#clock.monotonic() >= until || this.#closing.aborted) throw new NotToBeSent(toBlocked(candidate))
      await this.#records.settled(candidate, until)
    }
  }

  /** Takes the pre-send snapshot. Returns null if it is not needed or could not be read in time. */
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
    const signal = AbortSignal.any([late.signal, this.#closing])
    const scope = { signal, deadline, isForCancel: false, caller: null, tally }
    const work = broker.scan(query, scope).then(
      ({ orders, isComplete }) => ({ orderIds: orders.map(({ id }) => id), isComplete }),
      () => null,
    )
    const until = this.#clock.monotonic() + (deadline - this.#clock.now())
    const snapshot = await within<PreSendSnapshot | null>(this.#clock, until, work, () => null)
    late.abort(new Error('the order cannot wait for it'))
    return snapshot
  }
}

interface Sending {
  /** The last record of the placement. */
  record: Placement
  /** Whether the send is recorded, so that bytes may have left. */
  hasBegun: boolean
}

/** Thrown before a send that must not happen. `outcome` is null if another process has taken up the placement. */
class NotToBeSent extends Error {
  override readonly name = 'NotToBeSent'
  readonly outcome: NotSentOutcome | null

  constructor(outcome: NotSentOutcome | null) {
    super(outcome?.message ?? 'another process has taken up the placement')
    this.outcome = outcome
  }
}

// With a `sendBy` of the caller, a repeat is too late again; our own limit starts again with the repeat.
function tooLateFor({ sendBy }: Pick<SendOptions, 'sendBy'>): NotSentOutcome {
  if (sendBy !== null) return tooLate
  return notSent('DEADLINE', 'The order could not be sent in time, so it was not sent.')
}

function toBlocked({ clientOrderId }: Placement): NotSentOutcome {
  const message =
    `An equal order of this account, clientOrderId ${clientOrderId}, is without an outcome: this could be its duplicate, ` +
    'and was not sent. Wait for that outcome, or name its key in acknowledgeUnresolved to send this one anyway.'
  return notSent('BLOCKED_BY_UNRESOLVED', message)
}
