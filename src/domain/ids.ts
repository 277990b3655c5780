// Ids of accounts and orders as text. A broker's own names go into paths of its API, so each is checked before it is used.

// A name such as `..` survives encodeURIComponent and would turn a cancel's path into another call under the broker's key.
const partPattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/

/** Whether `text` can be a broker's own name: 1 to 128 letters, digits and `. _ : -`, beginning with a letter or digit. */
export function isIdPart(text: unknown): text is string {
  return typeof text === 'string' && partPattern.test(text)
}

/** Returns the id that `prefix` and a broker's own names make: `aries:<account>` or `aries:<account>:<order>`. */
export function spellId(prefix: string, parts: readonly string[]): string {
  return prefix + parts.map(encodeURIComponent).join(':')
}

/**
 * Returns the broker's own names in an id that begins with `prefix`; null if `id` is not such an id. Accepts one spelling only:
 * with two spellings an account would be two accounts, and a key that was used in one could be sent again in the other.
 */
export function splitId(prefix: string, id: string): string[] | null {
  if (!id.startsWith(prefix)) return null
  const parts = id.slice(prefix.length).split(':').map(decode)
  return parts.every((part): part is string => isIdPart(part)) && id === spellId(prefix, parts) ? parts : null
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch {
    return null
  }
}
