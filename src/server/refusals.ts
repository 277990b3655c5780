// Logs why a broker's answer, or a part of it, cannot be used: always at debug, and once a minute per reason at warn, because a
// broker that is down for an hour would otherwise fill the log.

import { UpstreamError } from '../upstream/errors.ts'
import { wrapBroker } from '../brokers/broker.ts'
import type { Broker } from '../brokers/broker.ts'
import type { AnswerRefusal } from '../upstream/errors.ts'
import type { Log } from './telemetry.ts'

const warnEveryMs = 60_000

/** Logs why an answer cannot be used. `requestId` is that of the operation; undefined if the call was for no operation. */
export type NoteRefusal = (refusal: AnswerRefusal, requestId: string | undefined) => void

/** Creates the log of refusals. `now` returns monotonic ms. */
export function createRefusalLog(log: Log, now: () => number = () => performance.now()): NoteRefusal {
  const warned = new Map<AnswerRefusal['reason'], { at: number; suppressed: number }>()
  return ({ reason, detail }, requestId) => {
    const message = "a broker's answer cannot be used"
    log.debug({ requestId, reason, detail }, message)
    const last = warned.get(reason)
    if (last !== undefined && now() < last.at + warnEveryMs) {
      last.suppressed++
      return
    }
    warned.set(reason, { at: now(), suppressed: 0 })
    log.warn({ requestId, reason, detail, suppressed: last?.suppressed ?? 0 }, message)
  }
}

/**
 * Returns `broker` with a log of the answers to placements, cancels and lookups that cannot be used. The server logs those to
 * reads when it answers their operation.
 */
export function noteWriteRefusals(broker: Broker, noteRefusal: NoteRefusal): Broker {
  async function noted<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      if (error instanceof UpstreamError && error.refusal !== null) noteRefusal(error.refusal, undefined)
      throw error
    }
  }
  return wrapBroker(broker, {
    scan: (query, scope) => noted(broker.scan(query, scope)),
    place: (order, options) => noted(broker.place(order, options)),
    cancel: (target, sendBy) => noted(broker.cancel(target, sendBy)),
  })
}
