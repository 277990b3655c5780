// Exact numbers and instants as text, held against BigInt: what a broker wrote must come out with every digit.

import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { compareDecimals, countDigits, expandExponent, isDecimal, normalizeDecimal } from '../../src/domain/decimal.ts'
import { compareInstants, parseInstant } from '../../src/domain/instant.ts'

const notDecimals = [
  '',
  '-',
  '.',
  '.5',
  '5.',
  '+5',
  '--5',
  '5-',
  '1e5',
  '1,000',
  '1_000',
  '1 000',
  ' 5',
  '5 ',
  '5\n',
  '\n5',
  '0x10',
  'NaN',
  'Infinity',
  '１',
  '٣',
  '1.2.3',
  '5n',
  'null',
]

// A number apart from its spelling: `unscaled / 10^scale`.
interface Exact {
  unscaled: bigint
  scale: number
}

function toText({ unscaled, scale }: Exact): string {
  const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, '0')
  const point = digits.length - scale
  return `${unscaled < 0n ? '-' : ''}${digits.slice(0, point)}${scale === 0 ? '' : `.${digits.slice(point)}`}`
}

function readExact(text: string): Exact {
  const [whole = '', fraction = ''] = text.split('.')
  return { unscaled: BigInt(whole + fraction), scale: fraction.length }
}

function signOf(value: bigint): number {
  return value < 0n ? -1 : value > 0n ? 1 : 0
}

function compareExact(a: Exact, b: Exact): number {
  return signOf(a.unscaled * 10n ** BigInt(b.scale) - b.unscaled * 10n ** BigInt(a.scale))
}

const digitsMax = 10n ** 40n
const exact = fc.record({
  unscaled: fc.oneof(fc.bigInt(-digitsMax, digitsMax), fc.bigInt(-20n, 20n)),
  scale: fc.integer({ min: 0, max: 45 }),
})
// The same value may be written with zeros in front and, after a point, behind; zero may have a sign.
const spelling = fc.tuple(exact, fc.nat(3), fc.nat(3), fc.boolean()).map(([value, front, behind, signed]) => {
  const [, sign = '', whole = '', fraction = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(toText(value)) ?? []
  const rest = fraction + '0'.repeat(behind)
  const isZero = value.unscaled === 0n
  return {
    value,
    text: `${isZero && signed ? '-' : sign}${'0'.repeat(front)}${whole}${rest === '' ? '' : `.${rest}`}`,
  }
})

describe('a decimal', () => {
  test('is base-10 digits with at most a minus and one point', () => {
    for (const text of ['0', '-0', '5', '00.10', '-3', '175.00', '1'.repeat(500), `0.${'0'.repeat(500)}1`]) {
      expect(isDecimal(text), text).toBe(true)
    }
    for (const text of notDecimals) expect(isDecimal(text), JSON.stringify(text)).toBe(false)
  })

  test('is required by every calculation', () => {
    for (const text of notDecimals) {
      expect(() => normalizeDecimal(text), JSON.stringify(text)).toThrow(RangeError)
      expect(() => countDigits(text)).toThrow(RangeError)
      expect(() => compareDecimals(text, '1')).toThrow(RangeError)
      expect(() => compareDecimals('1', text)).toThrow(RangeError)
    }
  })

  test('counts digits as they are written', () => {
    expect(countDigits('175.00')).toEqual({ total: 5, fraction: 2 })
    expect(countDigits('-007')).toEqual({ total: 3, fraction: 0 })
    expect(countDigits('0.1000000000000000055')).toEqual({ total: 20, fraction: 19 })
  })

  test('has one normal spelling', () => {
    const spellings: Record<string, string[]> = {
      '5': ['5', '5.0', '05.00', '0005'],
      '0': ['0', '-0', '0.00', '-0.0', '000'],
      '0.1': ['0.1', '00.10'],
      '-0.1': ['-0.1', '-0.100'],
      '100': ['100', '100.0'],
      '0.1000000000000000055': ['0.1000000000000000055', '0.10000000000000000550'],
      '12345678901234567890': ['12345678901234567890', '012345678901234567890.0'],
    }
    for (const [normal, texts] of Object.entries(spellings)) {
      for (const text of texts) expect(normalizeDecimal(text), text).toBe(normal)
    }
  })

  test('has a normal spelling that stays the same', () => {
    fc.assert(
      fc.property(spelling, ({ value, text }) => {
        const normal = normalizeDecimal(text)
        expect(normalizeDecimal(normal)).toBe(normal)
        expect(compareExact(readExact(normal), value)).toBe(0)
        expect(normal).toMatch(/^(0|-?(0|[1-9]\d*)\.\d*[1-9]|-?[1-9]\d*)$/)
      }),
    )
  })

  test('has the same normal spelling as exactly the equal decimals', () => {
    const pair = fc.oneof(
      fc.tuple(spelling, spelling),
      spelling.map((one) => [one, { value: one.value, text: normalizeDecimal(one.text) }] as const),
    )
    fc.assert(
      fc.property(pair, ([a, b]) => {
        expect(normalizeDecimal(a.text) === normalizeDecimal(b.text)).toBe(compareDecimals(a.text, b.text) === 0)
      }),
    )
  })

  test('compares as the numbers do', () => {
    expect(compareDecimals('9', '10')).toBe(-1)
    expect(compareDecimals('-9', '-10')).toBe(1)
    expect(compareDecimals('0.00', '-0')).toBe(0)
    expect(compareDecimals('1.10', '1.1')).toBe(0)
    expect(compareDecimals('0.3', '0.30000000000000004')).toBe(-1)
  })

  test('compares as BigInt does over a common scale', () => {
    fc.assert(
      fc.property(spelling, spelling, (a, b) => {
        expect(compareDecimals(a.text, b.text)).toBe(compareExact(a.value, b.value))
      }),
      { numRuns: 500 },
    )
  })

  test('differs from its neighbour in the last digit, although a float sees one number', () => {
    fc.assert(
      fc.property(fc.bigInt(10n ** 30n, digitsMax), fc.nat(40), fc.boolean(), (digits, scale, negative) => {
        const sign = negative ? -1n : 1n
        const text = toText({ unscaled: sign * digits, scale })
        const next = toText({ unscaled: sign * digits + 1n, scale })
        // Now and then the border between two floats lies just there.
        fc.pre(Number(text) === Number(next))
        expect(compareDecimals(text, next)).toBe(-1)
        expect(compareDecimals(next, text)).toBe(1)
        expect(normalizeDecimal(text)).not.toBe(normalizeDecimal(next))
      }),
    )
  })

  test('has a total order', () => {
    fc.assert(
      fc.property(spelling, spelling, spelling, ({ text: a }, { text: b }, { text: c }) => {
        expect(compareDecimals(a, a)).toBe(0)
        expect(compareDecimals(a, b) + compareDecimals(b, a)).toBe(0)
        const [x, y, z] = [a, b, c].sort(compareDecimals)
        expect(compareDecimals(x ?? '', y ?? '')).toBeLessThanOrEqual(0)
        expect(compareDecimals(y ?? '', z ?? '')).toBeLessThanOrEqual(0)
        expect(compareDecimals(x ?? '', z ?? '')).toBeLessThanOrEqual(0)
      }),
    )
  })
})

describe('a number with an exponent', () => {
  test('is written out', () => {
    const written: Record<string, string> = {
      '1e-9': '0.000000001',
      '1E+3': '1000',
      '1e3': '1000',
      '1.50e+2': '150',
      '1.5e0': '1.5',
      '-1.25e1': '-12.5',
      '1.234e-2': '0.01234',
      '-1e-1': '-0.1',
      '0e0': '0',
      '0.0e-2': '0.000',
      '1e005': '100000',
      '1e-000009': '0.000000001',
      '1e40': `1${'0'.repeat(40)}`,
      '1e-40': `0.${'0'.repeat(39)}1`,
    }
    for (const [text, digits] of Object.entries(written)) expect(expandExponent(text), text).toBe(digits)
  })

  test('stays unchanged without an exponent', () => {
    for (const text of ['0', '-0.0', '175.00', '0.1000000000000000055', '12345678901234567890']) {
      expect(expandExponent(text)).toBe(text)
    }
  })

  test('is null if it is not a number, or has a size that no price has', () => {
    const numbers = ['1e41', '1e-41', '1e100', '1e99999999999', '9'.repeat(101), `1${'0'.repeat(99)}e1`]
    const nonsense = notDecimals.filter((text) => text !== '1e5')
    for (const text of [...numbers, ...nonsense, 'e5', '1e', '1e+', '.1e1', '1.e1', '1e1.5', '+1e1', '1e1\n', '1e１']) {
      expect(expandExponent(text), JSON.stringify(text)).toBeNull()
    }
  })

  test('keeps every digit', () => {
    fc.assert(
      fc.property(
        exact,
        fc.integer({ min: -40, max: 40 }),
        fc.constantFrom('e', 'E'),
        fc.constantFrom('', '+', '0', '-0', '+00'),
        (value, exponent, letter, dress) => {
          const power =
            exponent < 0 ? `-${dress.replace(/[+-]/, '')}${-exponent}` : `${dress.replace('-', '+')}${exponent}`
          const written = expandExponent(`${toText(value)}${letter}${power}`)
          if (written === null) throw new Error('not written out')
          expect(isDecimal(written)).toBe(true)
          // value * 10^exponent, with the power on whichever side keeps it whole.
          const up = BigInt(Math.max(0, exponent))
          const down = Math.max(0, -exponent)
          const expected = { unscaled: value.unscaled * 10n ** up, scale: value.scale + down }
          expect(compareExact(readExact(written.replace(/^-(?=[0.]*$)/, '')), expected)).toBe(0)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('has the value that JSON gives it, if a float can hold it', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e30, max: 1e30 }), (value) => {
        const written = expandExponent(JSON.stringify(value))
        if (Math.abs(value) >= 1e-30) expect(written).not.toBeNull()
        if (written !== null) expect(Math.abs(Number(written))).toBe(Math.abs(value))
      }),
    )
  })
})

// ---- instants ---------------------------------------------------------------------------------------------------

const second = fc
  .date({ min: new Date('0001-01-01T00:00:00Z'), max: new Date('9998-12-31T23:59:59Z'), noInvalidDate: true })
  .map((date) => Math.floor(date.getTime() / 1_000) * 1_000)
const fraction = fc.oneof(
  fc.constant(''),
  fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat(999_999_999)).map(([size, digits]) => {
    return `.${String(digits).padStart(9, '0').slice(0, size)}`
  }),
)
const offsetMinutes = fc.integer({ min: -(23 * 60 + 59), max: 23 * 60 + 59 })

const writeSecond = (ms: number): string => new Date(ms).toISOString().slice(0, 19)

function writeZone(minutes: number): string {
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60]
  return `${minutes < 0 ? '-' : '+'}${String(hours).padStart(2, '0')}:${String(rest).padStart(2, '0')}`
}

describe('an instant', () => {
  test('in UTC stays unchanged', () => {
    for (const text of [
      '2026-03-09T15:02:11Z',
      '2026-03-09T15:02:11.5Z',
      '2026-03-09T15:02:11.123456789Z',
      '2026-03-09T15:02:11.000Z',
      '2024-02-29T00:00:00Z',
      '0000-01-01T00:00:00Z',
      '9999-12-31T23:59:59.999999999Z',
    ]) {
      expect(parseInstant(text)).toBe(text)
    }
    expect(parseInstant('2026-03-09t15:02:11.25z')).toBe('2026-03-09T15:02:11.25Z')
  })

  test('in another zone is converted to UTC', () => {
    const written: Record<string, string> = {
      '2026-03-09T11:02:11-04:00': '2026-03-09T15:02:11Z',
      '2026-03-09T20:32:11.000000001+05:30': '2026-03-09T15:02:11.000000001Z',
      '2026-01-01T00:30:00+01:00': '2025-12-31T23:30:00Z',
      '2024-02-28T23:00:00-02:00': '2024-02-29T01:00:00Z',
      '2026-03-09T15:02:11+00:00': '2026-03-09T15:02:11Z',
      '2026-03-09T15:02:11-00:00': '2026-03-09T15:02:11Z',
      '2026-03-09T15:02:11+23:59': '2026-03-08T15:03:11Z',
    }
    for (const [text, utc] of Object.entries(written)) expect(parseInstant(text), text).toBe(utc)
  })

  test('is never guessed from a time without a zone (H04)', () => {
    for (const text of ['2026-03-09T15:02:11', '2026-03-09T15:02:11.5', '2026-03-09', '2026-03-09 15:02:11']) {
      expect(parseInstant(text), text).toBeNull()
    }
  })

  test('must have a day and a time that exist', () => {
    for (const text of [
      '2026-02-30T00:00:00Z',
      '2026-02-30T00:00:00+01:00',
      '2026-02-29T00:00:00Z',
      '2026-04-31T12:00:00Z',
      '2026-00-01T00:00:00Z',
      '2026-13-01T00:00:00Z',
      '2026-01-00T00:00:00Z',
      '2026-01-01T24:00:00Z',
      '2026-01-01T24:00:00+01:00',
      '2026-01-01T12:60:00Z',
      '2026-01-01T12:00:60Z',
      '2026-01-01T12:00:00+24:00',
      '2026-01-01T12:00:00+01:60',
    ]) {
      expect(parseInstant(text), text).toBeNull()
    }
  })

  test('exists on exactly the days of the calendar, leap years included', () => {
    for (const year of ['1900', '2000', '2024', '2026']) {
      for (let month = 0; month <= 13; month++) {
        for (let day = 0; day <= 32; day++) {
          const date = `${year}-${String(month).padStart(2, '0')}-${String(day).padStart(2, '0')}`
          const asUtc = new Date(`${date}T00:00:00Z`)
          const exists = !Number.isNaN(asUtc.getTime()) && asUtc.toISOString().startsWith(date)
          expect(parseInstant(`${date}T23:59:59Z`), date).toBe(exists ? `${date}T23:59:59Z` : null)
        }
      }
    }
  })

  test('is null for all other texts', () => {
    for (const text of [
      '',
      'now',
      '1736951400',
      '2026-03-09T15:02Z',
      '2026-03-09T15:02:11.Z',
      '2026-03-09T15:02:11.1234567890123Z',
      '2026-03-09T15:02:11,5Z',
      '2026-03-09 15:02:11Z',
      ' 2026-03-09T15:02:11Z',
      '2026-03-09T15:02:11Z\n',
      '2026-03-09T15:02:11ZZ',
      '2026-03-09T15:02:11+0100',
      '2026-03-09T15:02:11+01',
      '2026-03-09T15:02:11 UTC',
      '+002026-03-09T15:02:11Z',
      '-000001-03-09T15:02:11Z',
      '2026-3-9T15:02:11Z',
      '２０２６-03-09T15:02:11Z',
      'Mon, 09 Mar 2026 15:02:11 GMT',
    ]) {
      expect(parseInstant(text), JSON.stringify(text)).toBeNull()
    }
  })

  test('is null outside the years that RFC 3339 can write', () => {
    expect(parseInstant('9999-12-31T23:59:59-00:01')).toBeNull()
    expect(parseInstant('0000-01-01T00:00:00+00:01')).toBeNull()
    expect(parseInstant('9999-12-31T23:59:59+00:01')).toBe('9999-12-31T23:58:59Z')
    expect(parseInstant('0000-01-01T00:00:00-00:01')).toBe('0000-01-01T00:01:00Z')
  })

  test('is the same from every zone, with the digits of its fraction, and from its own text', () => {
    fc.assert(
      fc.property(second, fraction, offsetMinutes, (ms, digits, minutes) => {
        const localMs = ms + minutes * 60_000
        fc.pre(localMs >= Date.parse('0000-01-01T00:00:00Z'))
        const utc = `${writeSecond(ms)}${digits}Z`
        expect(parseInstant(`${writeSecond(localMs)}${digits}${writeZone(minutes)}`)).toBe(utc)
        expect(parseInstant(utc)).toBe(utc)
      }),
      { numRuns: 300 },
    )
  })

  test('is null or its own text for any input', () => {
    const nearly = fc.stringMatching(/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{0,10})?([Zz]|[+-]\d\d:\d\d)?$/)
    fc.assert(
      fc.property(fc.oneof(nearly, fc.string()), (text) => {
        const instant = parseInstant(text)
        if (instant !== null) expect(parseInstant(instant)).toBe(instant)
      }),
      { numRuns: 500 },
    )
  })

  test('comes before a later one, down to the nanosecond', () => {
    const instants = [
      '0000-01-01T00:00:00Z',
      '2026-03-09T15:02:10.999999999Z',
      '2026-03-09T15:02:11Z',
      '2026-03-09T15:02:11.000000001Z',
      '2026-03-09T15:02:11.09Z',
      '2026-03-09T15:02:11.1Z',
      '2026-03-09T15:02:12Z',
      '9999-12-31T23:59:59Z',
    ]
    for (const [index, earlier] of instants.entries()) {
      for (const later of instants.slice(index + 1)) {
        expect(compareInstants(earlier, later)).toBe(-1)
        expect(compareInstants(later, earlier)).toBe(1)
      }
    }
    expect(compareInstants('2026-03-09T15:02:11Z', '2026-03-09T15:02:11.000Z')).toBe(0)
    expect(compareInstants('2026-03-09T15:02:11.5Z', '2026-03-09T15:02:11.500000000Z')).toBe(0)
  })

  test('compares as its nanoseconds do', () => {
    const seconds = fc.oneof(
      second,
      fc.integer({ min: 1_700_000_000, max: 1_700_000_002 }).map((at) => at * 1_000),
    )
    const toNanoseconds = (ms: number, digits: string): bigint =>
      BigInt(ms) * 1_000_000n + BigInt(digits.slice(1).padEnd(9, '0'))
    fc.assert(
      fc.property(seconds, fraction, seconds, fraction, (ms, digits, otherMs, otherDigits) => {
        const order = compareInstants(`${writeSecond(ms)}${digits}Z`, `${writeSecond(otherMs)}${otherDigits}Z`)
        expect(order).toBe(signOf(toNanoseconds(ms, digits) - toNanoseconds(otherMs, otherDigits)))
      }),
      { numRuns: 300 },
    )
  })
})
