// Compares the client order id of an order with the one that was sent. Brokers change it: they put a prefix in front, cut
// it to their own length, change its case or drop its dashes. Pure.

import type { Field } from '../../domain/order.ts'

/**
 * How a broker's client order id relates to ours:
 *
 * - `exact`: the same text.
 * - `changed`: the same letters and digits in another case or with other separators, also behind a prefix. As good as
 *   `exact` unless two of our own ids are alike.
 * - `cut`: the beginning of ours, at least 8 characters of it, also behind a prefix; or its end, if at least 8 characters
 *   are left. A hint, because ids of one series are alike.
 * - `other`: another id.
 * - `none`: the broker shows none.
 */
export type ClientOrderIdMatch = 'exact' | 'changed' | 'cut' | 'other' | 'none'

/** Characters of ours that have to be left of a prefixed or cut id. Fewer are too easily alike by chance. */
const keptMin = 8

/** How `theirs` relates to `ours`. A field that cannot be read counts as `none`. */
export function compareClientOrderIds(ours: string, theirs: Field<string>): ClientOrderIdMatch {
  if (typeof theirs !== 'string' || theirs === '') return 'none'
  if (theirs === ours) return 'exact'
  const [mine, said] = [toLettersAndDigits(ours), toLettersAndDigits(theirs)]
  if (mine === said || (mine.length >= keptMin && said.endsWith(mine))) return 'changed'
  // Both spellings, because a cut counts characters before or after the separators are dropped.
  const spellings = [
    [said, mine],
    [theirs.toLowerCase(), ours.toLowerCase()],
  ] as const
  return spellings.some(([shown, whole]) => isCutOf(shown, whole)) ? 'cut' : 'other'
}

function toLettersAndDigits(id: string): string {
  return id.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, '')
}

/** Whether `text` is the end of `whole`, or ends with its beginning; at least `keptMin` characters of it. */
function isCutOf(text: string, whole: string): boolean {
  if (text.length >= keptMin && whole.endsWith(text)) return true
  for (let kept = Math.min(text.length, whole.length); kept >= keptMin; kept--) {
    if (text.endsWith(whole.slice(0, kept))) return true
  }
  return false
}
