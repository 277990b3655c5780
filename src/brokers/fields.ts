// A broker's JSON, field by field. Brokers leave fields out, send null or an empty text, drop the quotes of a decimal, or
// send what cannot be read at all; one garbled field costs that field and nothing else.

import { compareDecimals, expandExponent, isDecimal } from '../domain/decimal.ts'
import { readInstant } from '../domain/instant.ts'
import type { Field } from '../domain/order.ts'
import { UpstreamError } from '../upstream/errors.ts'
import { parseWord } from './words.ts'

/** A JSON object as a broker sent it, its numbers as the text of their digits (http.ts). */
export type Body = Readonly<Record<string, unknown>>

/** Whether `value` is a JSON object. */
export function isBody(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// Each `parse…` returns null if the field has no value, and an UpstreamError as its value if it cannot be read.

/** Returns the text of a required field. Throws UpstreamError if it is missing, empty or not text. */
export function requireText(body: Body, field: string): string {
  const value = body[field]
  const text = typeof value === 'string' ? cleanText(value) : ''
  if (text !== '') return text
  const message = `the broker answered an order without a readable ${field}`
  throw new UpstreamError('unreadable', message, { refusal: { reason: 'field', detail: field } })
}

/** A text, cleaned. */
export function parseText(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? cleanText(value) : null))
}

/** A decimal, also one that was sent as a number. */
export function parseDecimal(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? expandExponent(value) : null))
}

/** Parses a boolean; text is not accepted. */
export function parseBoolean(body: Body, field: string): Field<boolean> {
  return parseField(body, field, (value) => (typeof value === 'boolean' ? value : null))
}

/** An instant in UTC. A time without a zone cannot be read. */
export function parseTime(body: Body, field: string): Field<string> {
  return parseField(body, field, readInstant)
}

/** Whether a field has no value: it is absent, null or empty text. Brokers do not document which of them they use. */
export function isAbsent(value: unknown): boolean {
  return value === undefined || value === null || value === ''
}

function parseField<T>(body: Body, field: string, parse: (value: unknown) => T | null): Field<T> {
  const value = body[field]
  if (isAbsent(value)) return null
  const message = `the broker answered an order whose ${field} cannot be read`
  return parse(value) ?? new UpstreamError('unreadable', message, { refusal: { reason: 'field', detail: field } })
}

/** An average price before the first fill is sent as zero; nothing trades at zero. */
export function zeroToNull(price: Field<string>): Field<string> {
  return typeof price === 'string' && compareDecimals(price, '0') === 0 ? null : price
}

/** Whether two decimals from JSON have the same value; false if one is not a decimal. */
export function equalDecimals(a: unknown, b: unknown): boolean {
  const left = typeof a === 'string' ? expandExponent(a) : null
  return left !== null && typeof b === 'string' && isDecimal(b) && compareDecimals(left, b) === 0
}

/** Maps a broker's word like `parseWord`; returns null if the field has no value. */
export function parseOptionalWord<Ours extends string>(
  table: Readonly<Record<string, Ours>>,
  word: unknown,
): Ours | 'UNKNOWN' | null {
  return isAbsent(word) ? null : parseWord(table, word)
}

/** The broker's word, the first one where it has several. Throws RangeError: what it lacks is refused before. */
export function wordOf<Ours extends string>(table: Readonly<Record<string, Ours>>, ours: string): string {
  const found = Object.entries(table).find(([, value]) => value === ours)
  if (!found) throw new RangeError(`the broker has no word for ${ours}`)
  return found[0]
}

/** Cleans a broker's free text: removes what a terminal or a log could read as a command, and cuts it to 200 characters. */
export function cleanText(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .slice(0, 200)
    .toWellFormed() // the cut may go through a pair of surrogates
}
