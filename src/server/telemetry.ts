// The log: JSON lines on stdout. It subscribes to events, and the code that works does not call it.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { pino } from 'pino'
import type { LogLevel } from '../config/config.ts'

/** Writes one JSON line each. Fields must hold no variables, headers, bodies or account ids. */
export interface Log {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
  /** Stops listening to the channels; lines can still be written. */
  close(): void
}

// JSON escapes only the control characters of ASCII. Others move the cursor of a terminal too, end a line for some readers, or
// reverse the text around them, and text of a caller, such as the name of an operation, can contain them.
const unprintable = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

/** A log at `level` that also tells of every upstream call, at debug. The caller closes it. */
export function createLog(level: LogLevel, destination: NodeJS.WritableStream): Log {
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: ['headers', '*.headers', 'authorization', '*.authorization'],
    },
    {
      // All of them stand inside of strings.
      write: (line: string) => void destination.write(line.replaceAll(unprintable, toEscape)),
    },
  )
  // Without its path, which names accounts and orders.
  const onUpstreamCall = (message: unknown) =>
    logger.debug({ upstream: { ...Object(message), path: undefined } }, 'upstream call')
  subscribe('blotter:upstream', onUpstreamCall)
  return {
    error: (fields, message) => logger.error(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    info: (fields, message) => logger.info(fields, message),
    debug: (fields, message) => logger.debug(fields, message),
    close: () => void unsubscribe('blotter:upstream', onUpstreamCall),
  }
}

function toEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
