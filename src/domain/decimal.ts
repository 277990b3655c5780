// Exact base-10 numbers as strings. Amounts are never JavaScript numbers, because those change `0.1 + 0.2` and
// `12345678901234567890`.

const decimalPattern = /^(-?)(\d+)(?:\.(\d+))?$/

/** Maximum digits that a caller may send, before and after the point together; SQL's DECIMAL(38) holds as many. */
export const decimalDigitsMax = 38

const expandLengthMax = 100

/** The accepted form, for messages that refuse another one. */
export const decimalHelp =
  'write a string of plain digits such as "175.00", with a digit before and after the point, and without separators, blanks, exponent, plus sign or leading zeros.'

/**
 * Whether a caller may send `text`: a decimal without leading zeros and with at most 100 characters, which is more than any
 * field accepts.
 */
export function isWrittenDecimal(text: string): boolean {
  return text.length <= expandLengthMax && isDecimal(text) && !/^-?0\d/.test(text)
}

/** Whether `text` is plain base-10 digits, such as `175.00` or `-3`: no exponent, sign `+`, blanks or separators. */
export function isDecimal(text: string): boolean {
  return decimalPattern.test(text)
}

/** Returns the number of digits, leading zeros included, and of those after the point. Throws RangeError if not a decimal. */
export function countDigits(text: string): { total: number; fraction: number } {
  const { whole, fraction } = split(text)
  return { total: whole.length + fraction.length, fraction: fraction.length }
}

/** Returns the shortest spelling of a value: `5` for `5`, `5.0` and `05.00`. Throws RangeError if not a decimal. */
export function normalizeDecimal(text: string): string {
  const { negative, whole, fraction } = split(text)
  const integer = whole.replace(/^0+(?=\d)/, '')
  const rest = fraction.replace(/0+$/, '')
  const digits = rest === '' ? integer : `${integer}.${rest}`
  return negative && digits !== '0' ? `-${digits}` : digits
}

// Doubles distinguish any two decimals of at most 15 digits, in a third of the time that BigInt takes.
function isShort(text: string): boolean {
  return text.length <= 15 && isDecimal(text)
}

/** Returns a number below, equal to or above 0 if `a` is less than, equal to or greater than `b`. Throws RangeError if one is not a decimal. */
export function compareDecimals(a: string, b: string): number {
  if (isShort(a) && isShort(b)) {
    const difference = Number(a) - Number(b)
    return difference < 0 ? -1 : difference > 0 ? 1 : 0
  }
  const left = split(a)
  const right = split(b)
  const scale = Math.max(left.fraction.length, right.fraction.length)
  const difference = toScaled(left, scale) - toScaled(right, scale)
  return difference < 0n ? -1 : difference > 0n ? 1 : 0
}

/** Returns `a` minus `b`, with as many digits after the point as the longer one has. Throws RangeError if one is not a decimal. */
export function subtractDecimals(a: string, b: string): string {
  const left = split(a)
  const right = split(b)
  const scale = Math.max(left.fraction.length, right.fraction.length)
  const difference = toScaled(left, scale) - toScaled(right, scale)
  const digits = String(difference < 0n ? -difference : difference).padStart(scale + 1, '0')
  const point = digits.length - scale
  const sign = difference < 0n ? '-' : ''
  return sign + digits.slice(0, point) + (scale === 0 ? '' : `.${digits.slice(point)}`)
}

interface Parts {
  negative: boolean
  whole: string
  fraction: string
}

function split(text: string): Parts {
  const match = decimalPattern.exec(text)
  if (!match) throw new RangeError('not a base-10 number')
  return { negative: match[1] === '-', whole: match[2] ?? '', fraction: match[3] ?? '' }
}

function toScaled({ negative, whole, fraction }: Parts, scale: number): bigint {
  const magnitude = BigInt(whole + fraction.padEnd(scale, '0'))
  return negative ? -magnitude : magnitude
}

/**
 * Writes out the digits of a JSON number: `0.000000001` for `1e-9`. Returns null if `text` is not a number, has an exponent
 * beyond ±40 or more than 100 characters: such a value is more likely wrong than a price, and comparing millions of digits
 * would delay all other requests.
 */
export function expandExponent(text: string): string | null {
  if (text.length > expandLengthMax) return null
  if (isDecimal(text)) return text
  const match = /^(-?)(\d+)(?:\.(\d+))?[eE]([+-]?0*\d{1,2})$/.exec(text)
  if (!match) return null
  const [, sign = '', whole = '', fraction = '', power = ''] = match
  const exponent = Number(power)
  if (Math.abs(exponent) > 40) return null
  const digits = whole + fraction
  const point = whole.length + exponent
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`
  if (point >= digits.length) return sign + digits.padEnd(point, '0').replace(/^0+(?=\d)/, '')
  return `${sign}${digits.slice(0, point).replace(/^0+(?=\d)/, '')}.${digits.slice(point)}`
}
