// The log of the requests that the broker received, and its load.

import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/** One request. */
export interface LogEntry {
  seq: number
  /** Ms since 1970 by the clock of the process, without what was advanced. */
  at: number
  /** Connections are numbered from 1 in the order in which they were opened. */
  connection: number
  method: string
  path: string
  /** Null until the request is answered. */
  status: number | null
  /** SHA-256 of the Authorization header, as hex. */
  authorization: string | null
  idempotencyKey: string | null
  headers: Record<string, string>
  /** At most 16 KiB; empty for a token request, because its body holds secrets. */
  body: string
}

const entriesMax = 20_000

/** The newest 20,000 requests, and the load since the log was cleared. */
export class RequestLog {
  readonly #now: () => number
  readonly #entries: LogEntry[] = []
  #requests = 0
  #total = 0
  #maxInAnySecond = 0
  /** Times of the requests of the last second. */
  #recent: number[] = []

  /** `now` returns ms since 1970. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Adds a request, and returns its entry, in which the answer is noted later. */
  add(request: IncomingMessage, connection: number): LogEntry {
    const headers: Record<string, string> = {}
    for (const [name, value] of Object.entries(request.headers)) {
      if (name !== 'authorization' && value !== undefined)
        headers[name] = Array.isArray(value) ? value.join(', ') : value
    }
    const { authorization } = request.headers
    const entry: LogEntry = {
      seq: ++this.#requests,
      at: Math.floor(this.#now()),
      connection,
      method: request.method ?? '',
      path: request.url ?? '',
      status: null,
      authorization: authorization === undefined ? null : createHash('sha256').update(authorization).digest('hex'),
      idempotencyKey: headers['idempotency-key'] ?? null,
      headers,
      body: '',
    }
    this.#total++
    while (this.#recent[0] !== undefined && this.#recent[0] <= entry.at - 1000) this.#recent.shift()
    this.#recent.push(entry.at)
    this.#maxInAnySecond = Math.max(this.#maxInAnySecond, this.#recent.length)
    this.#entries.push(entry)
    // Removes a thousand at once, because removing one moves the whole array.
    if (this.#entries.length > entriesMax + 1000) this.#entries.splice(0, this.#entries.length - entriesMax)
    return entry
  }

  /** Returns the entries, oldest first. */
  list(): LogEntry[] {
    return this.#entries.slice(-entriesMax)
  }

  /** Returns the number of requests since the log was cleared, and the most of them in any second. */
  load(): { maxInAnySecond: number; total: number } {
    return { maxInAnySecond: this.#maxInAnySecond, total: this.#total }
  }

  /** Forgets all requests. */
  clear(): void {
    this.#entries.length = 0
    this.#total = 0
    this.#maxInAnySecond = 0
    this.#recent = []
  }
}
