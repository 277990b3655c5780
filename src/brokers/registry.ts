// The brokers of this service. A third broker is a folder and a line here: see docs/guides/add-a-broker.md.

import { isIdPart, spellId, splitId } from '../domain/ids.ts'
import type { BrokerId } from '../domain/order.ts'
import { ariesEntry } from './aries/entry.ts'
import { bluumEntry } from './bluum/entry.ts'
import type { BrokerEntry } from './entry.ts'

/** All brokers, the one to show first. Exactly one of them has ids without a prefix. */
export const registry: BrokerEntry[] = [bluumEntry, ariesEntry]

/** Returns the broker whose ids `id` looks like. Says nothing about whether there is such an account or order. */
export function brokerOf(id: string): BrokerId {
  return entryOf(id).id
}

/** Whether `id` can name an account. */
export function isAccountId(id: unknown): id is string {
  return typeof id === 'string' && partsOf(id)?.length === 1
}

/** Whether `id` can name an order. */
export function isOrderId(id: unknown): id is string {
  return typeof id === 'string' && partsOf(id)?.length === (entryOf(id).ids.orderNamesAccount ? 2 : 1)
}

/** Returns the account that the id of an order names; null if ids of that broker name none. */
export function accountInOrderId(orderId: string): string | null {
  const { prefix } = entryOf(orderId).ids
  const [account, order] = partsOf(orderId) ?? []
  return account === undefined || order === undefined ? null : spellId(prefix, [account])
}

/** Returns the form of ids in words, for the message that refuses one. */
export function describeIds(id: unknown, kind: 'account' | 'order'): string {
  const { prefix, orderNamesAccount } = entryOf(typeof id === 'string' ? id : '').ids
  const names = kind === 'order' && orderNamesAccount ? '<account>:<order>' : `<${kind}>`
  const form = prefix === '' ? 'ids have' : `${prefix}${names}, where each part has`
  return `${form} letters, digits and . _ : - only, at most 128, a letter or digit first`
}

function entryOf(id: string): BrokerEntry {
  const entry =
    registry.find(({ ids }) => ids.prefix !== '' && id.startsWith(ids.prefix)) ??
    registry.find(({ ids }) => ids.prefix === '')
  if (entry === undefined) throw new Error('no broker of the registry has ids without a prefix')
  return entry
}

/** Returns the broker's own names in an id; null if it is malformed. */
function partsOf(id: string): string[] | null {
  const { prefix } = entryOf(id).ids
  if (prefix === '') return isIdPart(id) ? [id] : null
  return splitId(prefix, id)
}
