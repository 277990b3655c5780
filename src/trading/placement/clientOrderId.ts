// Compares the client order id of an order with the one that was sent. Brokers change client order ids: they add a prefix,
// cut them to their own length, change their case or drop their dashes. Pure.

import type { Field } from '../../domain/order.ts'

/**
 * How the broker's client order id relates to ours:
 *
 * - `exact`: the same text.
 * - `changed`: the same letters and digits in another case, with other separators or after a prefix. It identifies the order
 *   like `exact`, unless two of our own ids differ only in those.
 * - `cut`: the first 8 or more characters of ours, also after a prefix, or the last 8 or more. It is only a hint, because ids
 *   of one series are alike.
 * - `other`: another id.
 * - `none`: the broker shows no id.
 */
export type ClientOrderIdMatch = 'exact' | 'changed' | 'cut' | 'other' | 'none'

/** Minimum characters of our id in a prefixed or cut one. Fewer match by chance too often. */
const keptMin = 8

/** How `theirs` relates to `ours`. A field that cannot be read counts as `none`. */
export function compareClientOrderIds(ours: string, theirs: Field<string>): ClientOrderIdMatch {
  if (typeof theirs !== 'string' || theirs === '') return 'none'
  if (theirs === ours) return 'exact'
  const [mine, said] = [toLettersAndDigits(ours), toLettersAndDigits(theirs)]
  if (mine === said || (mine.length >= keptMin && said.endsWith(mine))) return 'changed'
  // Compares with and without separators, because a broker may cut the id before or after it drops them.
  const spellings = [
    [said, mine],
    [theirs.toLowerCase(), ours.toLowerCase()],
  ] as const
  return spellings.some(([shown, whole]) => isCutOf(shown, whole)) ? 'cut' : 'other'
}

function toLettersAndDigits(id: string): string {
  return id.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, '')
}

/** Whether `text` is the last `keptMin` or more characters of `whole`, or ends with the first `keptMin` or more. */
function isCutOf(text: string, whole: string): boolean {
  if (text.length >= keptMin && whole.endsWith(text)) return true
  for (let kept = Math.min(text.length, whole.length); kept >= keptMin; kept--) {
    if (text.endsWith(whole.slice(0, kept))) return true
  }
  return false
}
