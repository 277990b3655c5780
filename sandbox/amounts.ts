// Exact amounts: money, prices and quantities as whole numbers of a decimal unit, never as a JavaScript number. The exchange's
// own, because a mistake that it shared with what it tests would show nowhere.

/** `units` of 10 to the power of minus `scale`: 1.50 is 150 of scale 2. */
export interface Decimal {
  readonly units: bigint
  readonly scale: number
}

export const zero: Decimal = { units: 0n, scale: 0 }

/** Throws on anything that is not a plain decimal; the dialect has checked what callers send. */
export function toDecimal(text: string): Decimal {
  if (!/^-?\d+(\.\d+)?$/.test(text)) throw new Error(`not a decimal: ${text}`)
  const point = text.indexOf('.')
  if (point < 0) return { units: BigInt(text), scale: 0 }
  return { units: BigInt(text.slice(0, point) + text.slice(point + 1)), scale: text.length - point - 1 }
}

function power(digits: number): bigint {
  return 10n ** BigInt(digits)
}

/** Zeros at the end go, down to `scaleMin` decimals. */
export function toText(value: Decimal, scaleMin = 0): string {
  const sign = value.units < 0n ? '-' : ''
  const digits = (value.units < 0n ? -value.units : value.units).toString().padStart(value.scale + 1, '0')
  const whole = digits.slice(0, digits.length - value.scale)
  let fraction = digits.slice(digits.length - value.scale)
  let end = fraction.length
  while (end > scaleMin && fraction[end - 1] === '0') end--
  fraction = fraction.slice(0, end).padEnd(scaleMin, '0')
  return fraction === '' ? sign + whole : `${sign}${whole}.${fraction}`
}

/** An amount of whole cents. */
export function fromCents(cents: bigint): Decimal {
  return { units: cents, scale: 2 }
}

/** Exact, with the larger of the two scales. */
export function add(a: Decimal, b: Decimal): Decimal {
  const scale = Math.max(a.scale, b.scale)
  return { units: a.units * power(scale - a.scale) + b.units * power(scale - b.scale), scale }
}

/** Exact, with the larger of the two scales. */
export function subtract(a: Decimal, b: Decimal): Decimal {
  return add(a, { units: -b.units, scale: b.scale })
}

/** Exact, with the sum of the two scales. */
export function multiply(a: Decimal, b: Decimal): Decimal {
  return { units: a.units * b.units, scale: a.scale + b.scale }
}

/** The quotient cut to `scale` decimals, towards zero. */
export function divide(a: Decimal, b: Decimal, scale: number): Decimal {
  return { units: (a.units * power(scale + b.scale)) / (b.units * power(a.scale)), scale }
}

/** Negative, zero or positive as a is below, equal to or above b. */
export function compare(a: Decimal, b: Decimal): number {
  const difference = subtract(a, b).units
  return difference < 0n ? -1 : difference > 0n ? 1 : 0
}

/** Whole cents, never above the value. Values here are not negative. */
export function floorCents(value: Decimal): bigint {
  return (value.units * 100n) / power(value.scale)
}

/** Whole cents, never below the value. */
export function ceilCents(value: Decimal): bigint {
  const unit = power(value.scale)
  return (value.units * 100n + unit - 1n) / unit
}

/** Half a unit of the last kept decimal goes away from zero. */
export function round(value: Decimal, scale: number): Decimal {
  if (value.scale <= scale) return value
  const unit = power(value.scale - scale)
  const half = value.units < 0n ? -unit / 2n : unit / 2n
  return { units: (value.units + half) / unit, scale }
}

/** Whether no digit follows the point. */
export function isWhole(value: Decimal): boolean {
  return value.units % power(value.scale) === 0n
}

// --- views of an order ---
