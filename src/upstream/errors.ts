// Failures of calls to a broker, and what each proves. A write may be sent again only after the effect `none`.

import type { OrderRejectionCode } from '../domain/order.ts'
import type { ReadScope } from './readScope.ts'

export type UpstreamErrorKind = 'not_sent' | 'refused' | 'throttled' | 'no_answer' | 'failed' | 'unreadable'

/** Whether the broker may have acted on the call: `none` is proven not to have, `unknown` is everything else. */
export type UpstreamEffect = 'none' | 'unknown'

const effects: Record<UpstreamErrorKind, UpstreamEffect> = {
  not_sent: 'none', // no connection, or no headers ever written: nothing left this process
  refused: 'none', // a whole answer in the broker's own envelope that says no
  throttled: 'none', // the same, saying later
  no_answer: 'unknown', // sent, then silence or a cut body
  failed: 'unknown', // a 5xx: these can also appear after the broker has acted
  unreadable: 'unknown', // an answer that may not come from the broker
}

/** Why an answer, a row or a field cannot be used. `detail` is logged, so it contains no order data. */
export interface AnswerRefusal {
  reason: 'contentType' | 'encoding' | 'redirect' | 'tooLarge' | 'noBody' | 'notJson' | 'notHttp' | 'field' | 'content'
  detail: string
}

/** Details of a failed call. */
export interface UpstreamFailure {
  /** Set only if it differs from the usual effect of the kind. */
  effect?: UpstreamEffect
  /** Whether a deadline of ours ended the wait. */
  timedOut?: boolean
  /** HTTP status, if the head of an answer was read. */
  status?: number
  /** The broker's own error code. */
  brokerCode?: string
  /** The broker's words, cleaned, at most 200 characters. */
  reason?: string
  /** The wait that the broker asked for, in ms. */
  retryAfterMs?: number
  /** The code of the broker's final rejection of an order; absent for other failures. */
  rejection?: OrderRejectionCode
  /** Why the answer, or a part of it, cannot be used. */
  refusal?: AnswerRefusal
  cause?: unknown
}

/** A call to a broker that did not end with a usable answer. `effect` says whether a write may be sent again. */
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

  /** `message` is for logs and contains nothing that the broker sent. */
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

/** The reader's signal ended a read. Of several reads, only those that were not answered yet fail with it. */
export class ReadEnded extends UpstreamError {
  override readonly name = 'ReadEnded'
  /** The reason of the signal. */
  readonly endReason: unknown

  constructor(reason: unknown) {
    super('no_answer', 'no reader waits for the answer any more', { effect: 'none' })
    this.endReason = reason
  }
}

/** Returns an UpstreamError as a value, for `catch`. Throws any other error, because it is a bug. */
export function keepUpstreamError(error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error
  throw error
}

/** Returns an UpstreamError, or a ReadEnded if the signal of `scope` ended the read, so that each of several reads fails alone. */
export function keepReadError({ signal }: ReadScope): (error: unknown) => UpstreamError {
  return (error) => (signal.aborted && error === signal.reason ? new ReadEnded(error) : keepUpstreamError(error))
}
