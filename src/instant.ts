// Instants as RFC 3339 text in UTC. They stay text because a JavaScript Date drops what lies below a millisecond,
// and two orders may differ in just that.

const instantPattern = /^(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/

/**
 * The same instant in UTC (`2026-03-09T15:02:11Z`), fraction digits kept, or null when `text` is not an RFC 3339
 * date-time: a time without a zone is not an instant, and guessing its zone would move an order by hours.
 */
export function parseInstant(text: string): string | null {
  const match = instantPattern.exec(text)
  if (!match) return null
  const [, date, time, fraction = '', zone] = match
  // Checked by its way back: Date would turn 30 February into 2 March without a word.
  const asUtc = new Date(`${date}T${time}Z`)
  if (Number.isNaN(asUtc.getTime()) || asUtc.toISOString().slice(0, 19) !== `${date}T${time}`) return null
  if (zone === 'Z' || zone === 'z') return `${date}T${time}${fraction}Z`
  const shifted = new Date(`${date}T${time}${zone}`)
  if (Number.isNaN(shifted.getTime())) return null
  // The zone may lead out of the years 0000 to 9999, which RFC 3339 cannot write.
  const utc = /^(\d{4}-.{14})\.000Z$/.exec(shifted.toISOString())?.[1]
  return utc === undefined ? null : `${utc}${fraction}Z`
}

/** Below zero, zero or above it, as instant `a` is before, at or after `b`. Both as `parseInstant` returned them. */
export function compareInstants(a: string, b: string): number {
  const left = toSortable(a)
  const right = toSortable(b)
  return left < right ? -1 : left > right ? 1 : 0
}

function toSortable(instant: string): string {
  const fraction = instant.slice(20, -1)
  return instant.slice(0, 19) + fraction.padEnd(9, '0')
}
