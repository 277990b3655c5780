// What an operator has to know about a broker: one notice per change, not one per call.

/**
 * Called with what an operator has to know. Message and fields hold no secret, no account and no order. The level defaults
 * to `warn`; the message of an `error` begins with ALARM.
 */
export type OnNotice = (message: string, details?: NoticeDetails) => void

interface NoticeDetails {
  readonly level?: 'error' | 'warn' | 'info'
  readonly fields?: Readonly<Record<string, string | number | null>>
}

/** Follows whether a broker accepts our credential. */
export interface CredentialWatch {
  /** An answer refused the credential; `reason` is in the words of the protocol, such as `HTTP 401 BLUM-401-003`. */
  refused(reason: string): void
  /** The broker accepted the credential for a call. */
  accepted(): void
}

// A broker some of whose replicas refuse would otherwise fill the log.
const alarmEveryMs = 60_000

/** Raises the alarm once until the credential is accepted again, and at most once a minute. `now` in ms that only grow. */
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
