// The end of one attempt, and what it says about the broker.

import { UpstreamError } from './errors.ts'
import type { Answer } from './http.ts'

/** An answer, or the error of a call without one. */
export type Outcome = Answer | UpstreamError

/** Wait after a 429 that does not say how long, in ms. */
export const throttledMs = 1_000

/** Whether the broker works; null if the outcome does not show it. */
export function toHealth(outcome: Outcome): boolean | null {
  if (!(outcome instanceof UpstreamError)) return true
  switch (outcome.kind) {
    case 'not_sent':
      return isOwnDeadline(outcome) ? null : false
    case 'no_answer':
    case 'failed':
      return false
    case 'refused':
    case 'throttled':
    case 'unreadable':
      return true
    default:
      return outcome.kind satisfies never
  }
}

/**
 * Whether the wait for one of our connections took too long, or `sendBy` passed in it. If a connection timed out, the error
 * has undici's error as its cause.
 */
export function isOwnDeadline(error: UpstreamError): boolean {
  return error.kind === 'not_sent' && error.timedOut && error.cause === undefined
}

/** Whether the broker asked to wait, with or without its own envelope. */
export function isThrottled(outcome: Outcome): boolean {
  return outcome instanceof UpstreamError ? outcome.kind === 'throttled' : outcome.status === 429
}

/** Returns a 429 with the pause of the rate budget as its wait if the broker gave no readable one. */
export function withWait(outcome: Outcome, waitMs: number | null): Outcome {
  if (waitMs === null || outcome.retryAfterMs !== null) return outcome
  const retryAfterMs = Math.ceil(waitMs)
  return outcome instanceof UpstreamError ? outcome.withRetryAfter(retryAfterMs) : { ...outcome, retryAfterMs }
}
