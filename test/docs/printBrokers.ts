// The table of docs/reference/brokers.md, made from the features that the brokers of the registry declare.

import type { BrokerFeatures } from '../../src/brokers/broker.ts'
import { registry } from '../../src/brokers/registry.ts'

const apis = registry.flatMap((entry) => entry.apis)

const all = (values: readonly string[]): string => values.join(', ')
const yes = (holds: boolean): string => (holds ? 'yes' : 'no')

const rows: [heading: string, cell: (features: BrokerFeatures) => string][] = [
  ['sides', ({ sides }) => all(sides)],
  ['order types', ({ types }) => all(types)],
  ['times in force', ({ timesInForce }) => all(timesInForce)],
  ['by cash amount (`notional`)', ({ extras }) => yes(extras.includes('notional'))],
  ['`extendedHours`', ({ extras }) => yes(extras.includes('extendedHours'))],
  ['`commission` with an order', ({ extras }) => yes(extras.includes('commission'))],
  ['statuses it reports', ({ statuses }) => all(statuses)],
  ['lists filtered there by', ({ filters }) => all(filters)],
  ['reads one order', ({ readsOne }) => readings[readsOne]],
]

const readings: Record<BrokerFeatures['readsOne'], string> = {
  byId: 'by its id',
  underAccount: 'by its id, under its account',
  inLists: 'only by looking through lists',
}

/** Returns the table in Markdown. */
export function printBrokers(): string {
  const lines = [
    ['', ...apis.map(({ title }) => title)],
    ['---', ...apis.map(() => '---')],
    ...rows.map(([heading, cell]) => [heading, ...apis.map(({ features }) => cell(features))]),
  ]
  return lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('')
}
