// Cursors of order lists: opaque text that holds a position in each list of a page, signed together with the lists.

import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { Boundary, PageQuery } from '../../brokers/broker.ts'
import { createInputError } from '../errors.ts'

/** A list of a page, without its position and size. */
export type List = Omit<PageQuery, 'after' | 'olderThan' | 'first' | 'wantsMore'>

/** The position of a walk through the lists of a page. */
export interface WalkPosition {
  /** One for each list. */
  positions: readonly (string | null)[]
  /** Kept if there are several lists, because an order can move from one list to another. */
  boundary: Boundary | null
}

/** Writes and reads cursors. Made once per process. */
export interface Cursors {
  encode(place: WalkPosition, lists: readonly List[]): string
  /** Throws a GraphQLError with CURSOR_INVALID if the text is not a cursor of these lists. */
  decode(cursor: string, lists: readonly List[]): WalkPosition
}

const version = 1
const signatureBytes = 12
// Maximum length of a cursor: a page of several lists with many orders of one instant.
const cursorCharactersMax = 30_000

/**
 * Creates cursors that are signed with a key derived from `secret`. Every process with the same secret reads them, also after
 * a restart, and a caller cannot make one.
 */
export function createCursors(secret: string): Cursors {
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'blotter cursor', 32))

  function sign(text: string, lists: readonly List[]): Buffer {
    return createHmac('sha256', key)
      .update(JSON.stringify([version, lists]))
      .update(text)
      .digest()
      .subarray(0, signatureBytes)
  }

  return {
    encode({ positions, boundary }, lists) {
      const text = JSON.stringify([positions, boundary])
      return Buffer.concat([Buffer.from([version]), sign(text, lists), Buffer.from(text)]).toString('base64url')
    },

    decode(cursor, lists) {
      const bytes = Buffer.from(cursor.slice(0, cursorCharactersMax), 'base64url')
      // The decoder ignores characters that are not base64url, so the text is compared with its own encoding.
      const place = bytes.toString('base64url') === cursor ? open(bytes, lists) : null
      if (place !== null) return place
      throw createInputError(
        'after is not a cursor of this list: use an endCursor of the same account and filter, or leave it out to start again.',
        'CURSOR_INVALID',
      )
    },
  }

  function open(bytes: Buffer, lists: readonly List[]): WalkPosition | null {
    const signature = bytes.subarray(1, 1 + signatureBytes)
    const text = bytes.subarray(1 + signatureBytes).toString()
    if (bytes[0] !== version || signature.length !== signatureBytes) return null
    if (!timingSafeEqual(signature, sign(text, lists))) return null
    // Signed text was written by `encode`.
    const [positions, boundary]: [WalkPosition['positions'], WalkPosition['boundary']] = JSON.parse(text)
    return { positions, boundary }
  }
}
