// The table of docs/reference/brokers.md, made from the features that the adapters declare. `npm run generate`
// writes it, and a test compares the page with it.

import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { ariesFeatures } from '../../src/brokers/aries/ariesJson.ts'
import type { BrokerFeatures } from '../../src/brokers/broker.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'

const columns: [heading: string, features: BrokerFeatures][] = [
  ['Bluum, `accounts`', dialects.accounts.features],
  ['Bluum, `investors`', dialects.investors.features],
  ['Aries', ariesFeatures],
]

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

/** The table, in Markdown. */
export function printBrokers(): string {
  const lines = [
    ['', ...columns.map(([heading]) => heading)],
    ['---', ...columns.map(() => '---')],
    ...rows.map(([heading, cell]) => [heading, ...columns.map(([, features]) => cell(features))]),
  ]
  return lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('')
}

const section = /(<!-- brokers: written by npm run generate -->\n)([^]*?)(<!-- \/brokers -->)/

/** The table as it stands in `readme`; null where it has no place there. */
export function findBrokers(readme: string): string | null {
  return section.exec(readme)?.[2] ?? null
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = new URL('../../docs/reference/brokers.md', import.meta.url)
  const readme = readFileSync(file, 'utf8')
  writeFileSync(
    file,
    readme.replace(section, (_, begin: string, __, end: string) => begin + printBrokers() + end),
  )
}
