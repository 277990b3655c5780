// Aries' ids in the graph: `aries:<account>` and `aries:<account>:<order>`, with the names that Aries gives them.

import { spellId, splitId } from '../../domain/ids.ts'

/** The beginning of Aries' ids. */
export const ariesPrefix = 'aries:'

/** Returns the id of an account or of one of its orders. */
export function toAriesId(...names: readonly [account: string] | readonly [account: string, order: string]): string {
  return spellId(ariesPrefix, names)
}

/** Returns Aries' own name of an account. Throws RangeError if the id is not one of its accounts. */
export function accountName(accountId: string): string {
  const [name, ...rest] = splitId(ariesPrefix, accountId) ?? []
  if (name === undefined || rest.length > 0) throw new RangeError('not an account of Aries')
  return name
}

/** Returns the id of the account that an order id names. Throws RangeError if the id is not one of Aries' orders. */
export function accountOf(orderId: string): string {
  return toAriesId(orderNames(orderId)[0])
}

/** Returns Aries' own names in an order id. Throws RangeError if the id is not one of its orders. */
export function orderNames(orderId: string): [account: string, order: string] {
  const [account, order, ...rest] = splitId(ariesPrefix, orderId) ?? []
  if (account === undefined || order === undefined || rest.length > 0) throw new RangeError('not an order of Aries')
  return [account, order]
}
