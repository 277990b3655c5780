// Why answers of brokers, or parts of them, cannot be used: at debug each time, at warn once a minute for each reason,
// because a broker that is down for an hour would otherwise fill the log.

import type { AnswerRefusal } from './brokers/broker.ts'
import type { Log } from './telemetry.ts'

const warnEveryMs = 60_000

/** Notes why an answer for the operation `requestId` cannot be used. */
export type NoteRefusal = (refusal: AnswerRefusal, requestId: string) => void

/** `now` in ms that only grow. */
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
