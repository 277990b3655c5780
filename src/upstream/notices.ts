// Notices about a broker for the operator: one per change, not one per call.

/**
 * Receives notices for the operator. Message and fields hold no secret, no account and no order. The level is `warn` by
 * default; the message of an `error` begins with ALARM.
 */
export type OnNotice = (message: string, details?: NoticeDetails) => void

interface NoticeDetails {
  readonly level?: 'error' | 'warn' | 'info'
  readonly fields?: Readonly<Record<string, string | number | null>>
}

/** Tracks whether a broker accepts our credential. */
export interface CredentialWatch {
  /** The broker refused the credential; `reason` is its status and code, such as `HTTP 401 BLUM-401-003`. */
  refused(reason: string): void
  /** The broker accepted the credential for a call. */
  accepted(): void
}

// Minimum ms between two alarms. If only some replicas of a broker refuse, the alarms would otherwise fill the log.
const alarmEveryMs = 60_000

/** Raises one alarm until the credential is accepted again, and at most one a minute. `now` returns monotonic ms. */
export function createCredentialWatch(
  onNotice: OnNotice,
  now: () => number = () => performance.now(),
): CredentialWatch {
  let refusedAt: number | null = null
  let alarmedAt = -Infinity
  return {
    refused(reason) {
      if (refusedAt !== null || now() < alarmedAt + alarmEveryMs) return
      refusedAt = alarmedAt = now()
      const message =
        'ALARM: the broker refuses our credential, so nothing can be read, placed or canceled there; renew it'
      onNotice(message, { level: 'error', fields: { reason } })
    },
    accepted() {
      if (refusedAt === null) return
      const refusedMs = Math.round(now() - refusedAt)
      refusedAt = null
      onNotice('the broker accepts our credential again', { fields: { refusedMs } })
    },
  }
}
