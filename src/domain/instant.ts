// Instants as RFC 3339 text in UTC. They stay text because a JavaScript Date drops digits below a millisecond, and two orders
// may differ only in those.

import { expandExponent } from './decimal.ts'

const instantPattern = /^(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(\.\d{1,12})?([Zz]|[+-]\d{2}:\d{2})$/

// An instant that `parseInstant` returns unchanged; only 29 February needs the calendar. A test without captures takes a
// twentieth of the time of the full check, and each row of a list has two to four instants.
const plainInstant =
  /^\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,12})?Z$/

/**
 * Returns the instant in UTC (`2026-03-09T15:02:11Z`) with its fraction digits; null if `text` is not an RFC 3339 date-time.
 * A time without a zone is not an instant, because a wrong guess of its zone would move an order by hours.
 */
export function parseInstant(text: string): string | null {
  if (plainInstant.test(text)) return text
  const match = instantPattern.exec(text)
  if (!match) return null
  const [, date, time, fraction = '', zone] = match
  // Compared with the written date, because Date would turn 30 February into 2 March silently.
  const asUtc = new Date(`${date}T${time}Z`)
  if (Number.isNaN(asUtc.getTime()) || asUtc.toISOString().slice(0, 19) !== `${date}T${time}`) return null
  if (zone === 'Z' || zone === 'z') return `${date}T${time}${fraction}Z`
  const shifted = new Date(`${date}T${time}${zone}`)
  if (Number.isNaN(shifted.getTime())) return null
  // With its zone the year may be outside 0000 to 9999, which RFC 3339 cannot write.
  const utc = /^(\d{4}-.{14})\.000Z$/.exec(shifted.toISOString())?.[1]
  return utc === undefined ? null : `${utc}${fraction}Z`
}

/** Returns a number below, equal to or above 0 if `a` is before, at or after `b`. Both as `parseInstant` returned them. */
export function compareInstants(a: string, b: string): number {
  // Texts without a fraction sort as their instants do.
  if (a.length === 20 && b.length === 20) return a < b ? -1 : a > b ? 1 : 0
  const left = toSortable(a)
  const right = toSortable(b)
  return left < right ? -1 : left > right ? 1 : 0
}

function toSortable(instant: string): string {
  const fraction = instant.slice(20, -1)
  return instant.slice(0, 19) + fraction.padEnd(12, '0')
}

const looseInstantPattern =
  /^(\d{4}-\d{2}-\d{2})(?:[Tt]| {1,2})(\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,12}))? ?(?:([Zz]|UTC|GMT)|([+\-\u2212]\d{2})(?::?(\d{2}))?)$/
const httpDatePattern = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/
const epochPattern = /^(\d{9,19})(?:\.(\d{1,12}))?$/
// An epoch time may count s, ms, µs or ns. Within these years a number can be an instant in only one of these units, because
// each differs from the next by a factor of 1,000.
const epochSeconds = { first: 946_684_800, end: 4_102_444_800 } // 2000 to 2099
const epochUnitDigits = [0, 3, 6, 9]

/**
 * Reads an instant that a broker wrote, in the form of `parseInstant` and with at most 12 digits after the second. Returns null
 * if the text is not an instant; a time without a zone is not one. In addition to RFC 3339 it accepts offsets such as `+0000`
 * and `+00`, `UTC`, a blank for the `T`, a decimal comma, missing seconds, HTTP dates, and epoch times of 2000 to 2099.
 */
export function readInstant(value: unknown): string | null {
  if (typeof value !== 'string' || value.length > 60) return null
  if (plainInstant.test(value)) return value
  const text = value.trim()
  const match = looseInstantPattern.exec(text)
  if (match !== null) {
    const [, date = '', minute = '', second = ':00', fraction = '', utc, hours = '', minutes = '00'] = match
    // A fraction without seconds is a fraction of a minute, which is refused.
    if (match[3] === undefined && fraction !== '') return null
    const zone = utc === undefined ? `${hours.replace('\u2212', '-')}:${minutes}` : 'Z'
    return parseInstant(`${date}T${minute}${second}${fraction === '' ? '' : `.${fraction}`}${zone}`)
  }
  if (httpDatePattern.test(text)) {
    const date = new Date(text)
    return Number.isNaN(date.getTime()) || date.toUTCString() !== text ? null : toInstant(date.getTime() / 1_000, '')
  }
  return readEpoch(text)
}

function readEpoch(text: string): string | null {
  const [, digits = '', more = ''] = epochPattern.exec(expandExponent(text) ?? '') ?? []
  for (const unitDigits of epochUnitDigits) {
    const end = digits.length - unitDigits
    const seconds = Number(digits.slice(0, Math.max(0, end)))
    if (seconds < epochSeconds.first || seconds >= epochSeconds.end) continue
    return toInstant(seconds, (digits.slice(end) + more).slice(0, 12).replace(/0+$/, ''))
  }
  return null
}

function toInstant(seconds: number, fraction: string): string {
  const text = new Date(seconds * 1_000).toISOString().slice(0, 19)
  return `${text}${fraction === '' ? '' : `.${fraction}`}Z`
}
