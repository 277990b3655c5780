// Parses a broker's JSON. If the text is not valid JSON, only the values that cannot be read are lost, because otherwise one
// `NaN` in one row would cost a whole page of orders.

/** Why a text is not JSON, and where. Quotes nothing of the text. */
export class NotJson extends Error {
  override readonly name = 'NotJson'
}

/** Replaces a value that cannot be read. It is not text, a number or a boolean, so every field parser refuses it. */
const unreadable = '{}'

/**
 * Parses JSON text in UTF-8. Each number becomes the text of its digits. Bare words that are not JSON (`NaN`, `.5`, `None`) and
 * strings with bad escapes become `{}`; control characters inside strings are kept. Throws NotJson for any other text that is
 * not JSON, with the byte at which the structure breaks if there is one. The time is linear in the length.
 */
export function parseJson(bytes: Buffer): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new NotJson('not UTF-8')
  }
  try {
    return parseStrictly(text)
  } catch (error) {
    if (error instanceof RangeError) throw new NotJson('nested too deep')
  }
  try {
    return parseStrictly(repair(text))
  } catch (error) {
    if (error instanceof NotJson) throw error
    throw new NotJson(error instanceof RangeError ? 'nested too deep' : 'not JSON')
  }
}

// Keeps each number as the digits that the broker wrote, because a double cannot hold every price. Throws RangeError if the
// nesting is too deep.
function parseStrictly(text: string): unknown {
  const body: unknown = JSON.parse(text)
  // Skips the reviver if there are no numbers, because it takes several times as long as the parse.
  if (!hasNumber(body)) return body
  return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) =>
    typeof value === 'number' ? context?.source : value,
  )
}

function hasNumber(value: unknown): boolean {
  if (typeof value === 'number') return true
  return typeof value === 'object' && value !== null && Object.values(value).some(hasNumber)
}

const depthMax = 1_000
// The end of a bare word.
const wordEnd = /[\s{}[\],:"]/g
const blank = /\s/

type Expected = 'value' | 'valueOrEnd' | 'key' | 'keyOrEnd' | 'colon' | 'commaOrEnd' | 'nothing'

/** Returns the text with each unreadable value replaced. Throws NotJson with the first byte at which the structure breaks. */
function repair(text: string): string {
  const parts: string[] = []
  const open: ('{' | '[')[] = []
  let expected: Expected = 'value'
  let at = 0
  const fail = (): never => {
    throw new NotJson(`not JSON at byte ${Buffer.byteLength(text.slice(0, at))}`)
  }
  const behindValue = (): Expected => (open.length === 0 ? 'nothing' : 'commaOrEnd')

  while (at < text.length) {
    const character = text[at] ?? ''
    if (blank.test(character)) {
      at++
      continue
    }
    const takesValue = expected === 'value' || expected === 'valueOrEnd'
    let part = character
    let end = at + 1
    if (character === '{' || character === '[') {
      if (!takesValue || open.length === depthMax) fail()
      open.push(character)
      expected = character === '{' ? 'keyOrEnd' : 'valueOrEnd'
    } else if (character === '}' || character === ']') {
      const isObject = character === '}'
      // A member without a value.
      if (isObject && expected === 'value' && parts.at(-1) === ':') part = unreadable + part
      else if (expected !== 'commaOrEnd' && expected !== (isObject ? 'keyOrEnd' : 'valueOrEnd')) fail()
      if (open.pop() !== (isObject ? '{' : '[')) fail()
      expected = behindValue()
    } else if (character === ',') {
      if (expected === 'value' && parts.at(-1) === ':') part = `${unreadable},`
      else if (expected !== 'commaOrEnd') fail()
      expected = open.at(-1) === '{' ? 'key' : 'value'
    } else if (character === ':') {
      if (expected !== 'colon') fail()
      expected = 'value'
    } else if (character === '"') {
      const isKey = expected === 'key' || expected === 'keyOrEnd'
      if (!isKey && !takesValue) fail()
      end = findStringEnd(text, at)
      if (end === -1) fail()
      part = repairString(text.slice(at, end), isKey)
      if (isKey) expected = 'colon'
      else expected = behindValue()
    } else {
      // A bare word outside brackets is not a damaged answer.
      if (!takesValue || open.length === 0) fail()
      wordEnd.lastIndex = at
      end = wordEnd.exec(text)?.index ?? text.length
      const word = text.slice(at, end)
      part = isJson(word) ? word : unreadable
      expected = behindValue()
    }
    parts.push(part)
    at = end
  }
  if (expected !== 'nothing') fail()
  return parts.join('')
}

/** Returns the index after the quote that ends the string; -1 if the string does not end. */
function findStringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x5c) at++
    else if (code === 0x22) return at + 1
  }
  return -1
}

function repairString(quoted: string, isKey: boolean): string {
  // oxlint-disable-next-line no-control-regex
  const escaped = quoted.replaceAll(/[\u0000-\u001f]/g, (character) => JSON.stringify(character).slice(1, -1))
  if (isJson(escaped)) return escaped
  // A field name that cannot be read stays a name, but one that no parser knows.
  return isKey ? JSON.stringify(quoted) : unreadable
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
