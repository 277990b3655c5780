// What a failed call to a broker proves. `effect` is what a write has to look at before it may be sent again.

import type { OrderRejectionCode } from '../domain/order.ts'
import type { ReadScope } from './readScope.ts'

export type UpstreamErrorKind = 'not_sent' | 'refused' | 'throttled' | 'no_answer' | 'failed' | 'unreadable'

/** Whether the broker may have acted on the call: `none` is proven, `unknown` is everything else. */
export type UpstreamEffect = 'none' | 'unknown'

const effects: Record<UpstreamErrorKind, UpstreamEffect> = {
  not_sent: 'none', // no connection, or no headers ever written: nothing left this process
  refused: 'none', // a whole answer in the broker's own envelope that says no
  throttled: 'none', // the same, saying later
  no_answer: 'unknown', // sent, then silence or a cut body
  failed: 'unknown', // a 5xx: these can also appear after the broker has acted
  unreadable: 'unknown', // an answer that we cannot take for the broker's word
}

/** Why an answer, a row or a field cannot be used. `detail` holds no order data: it is logged. */
export interface AnswerRefusal {
  reason: 'contentType' | 'encoding' | 'redirect' | 'tooLarge' | 'noBody' | 'notJson' | 'notHttp' | 'field' | 'content'
  detail: string
}

/** What more is known of a failed call. */
export interface UpstreamFailure {
  /** Set only where the kind's own effect does not hold. */
  effect?: UpstreamEffect
  /** A deadline of ours ended the wait. */
  timedOut?: boolean
  /** HTTP status, once the head of an answer was seen. */
  status?: number
  /** The broker's own error code. */
  brokerCode?: string
  /** The broker's words, cleaned, at most 200 characters. */
  reason?: string
  /** How long the broker asked to wait, in ms. */
  retryAfterMs?: number
  /** Set when this is the broker's final no to an order, and which no it is. */
  rejection?: OrderRejectionCode
  /** Why the answer, or a part of it, cannot be used. */
  refusal?: AnswerRefusal
  cause?: unknown
}

/** A call to a broker that did not end with a usable answer. `effect` is what a write has to look at. */
export class UpstreamError extends Error {
  override readonly name: string = 'UpstreamError'
  readonly kind: UpstreamErrorKind
  readonly effect: UpstreamEffect
  readonly timedOut: boolean
  readonly status: number | null
  readonly brokerCode: string | null
  readonly reason: string | null
  readonly retryAfterMs: number | null
  readonly rejection: OrderRejectionCode | null
  readonly refusal: AnswerRefusal | null

  /** `message` is for logs and says what happened, without what the broker sent. */
  constructor(kind: UpstreamErrorKind, message: string, failure: UpstreamFailure = {}) {
    super(message, failure.cause === undefined ? undefined : { cause: failure.cause })
    this.kind = kind
    this.effect = failure.effect ?? effects[kind]
    this.timedOut = failure.timedOut ?? false
    this.status = failure.status ?? null
    this.brokerCode = failure.brokerCode ?? null
    this.reason = failure.reason ?? null
    this.retryAfterMs = failure.retryAfterMs ?? null
    this.rejection = failure.rejection ?? null
    // An adapter's message says what is wrong with the content, and quotes nothing that the broker sent.
    this.refusal = failure.refusal ?? (kind === 'unreadable' ? { reason: 'content', detail: message } : null)
  }

  /** Returns the same failure with another wait, in ms. */
  withRetryAfter(retryAfterMs: number): UpstreamError {
    const { kind, message, effect, timedOut, status, brokerCode, reason, rejection, refusal, cause } = this
    return new UpstreamError(kind, message, {
      effect,
      timedOut,
      ...(status === null ? {} : { status }),
      ...(brokerCode === null ? {} : { brokerCode }),
      ...(reason === null ? {} : { reason }),
      ...(rejection === null ? {} : { rejection }),
      ...(refusal === null ? {} : { refusal }),
      ...(cause === undefined ? {} : { cause }),
      retryAfterMs,
    })
  }
}

/** The reader's signal has ended a read; one of several that ended so fails alone, and those that were answered stand. */
export class ReadEnded extends UpstreamError {
  override readonly name = 'ReadEnded'
  /** The reason of the signal. */
  readonly endReason: unknown

  constructor(reason: unknown) {
    super('no_answer', 'nobody waits for the read any more', { effect: 'none' })
    this.endReason = reason
  }
}

/** For a `catch` where trouble of the broker is a value, and anything else a bug. */
export function keepUpstreamError(error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error
  throw error
}

/** The same for one of several reads on behalf of `scope`, of which each is to fail alone. */
export function keepReadError({ signal }: ReadScope): (error: unknown) => UpstreamError {
  return (error) => (signal.aborted && error === signal.reason ? new ReadEnded(error) : keepUpstreamError(error))
}
