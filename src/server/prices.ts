// The prices of fields, read from `@cost` and `@listSize` of the schema, so that routers and this service count the same.

import { isObjectType } from 'graphql'
import type { GraphQLSchema } from 'graphql'
import { createSchema } from '../graph/schema.ts'

/** The price of a field. */
export interface FieldPrice {
  /** Its own cost. */
  cost: number
  /** The argument that says how many rows it returns, and their number without it; null for a field without rows. */
  rows: { argument: string; byDefault: number } | null
}

// Lists whose length is that of a list argument, which `@listSize` cannot express.
const listArguments: Readonly<Record<string, FieldPrice['rows']>> = {
  ordersByIds: { argument: 'ids', byDefault: 1 },
  _entities: { argument: 'representations', byDefault: 1 },
}
// The field of references is made by the federation plugin, which takes no `@cost` for it.
const entitiesCost = 10

let prices: ReadonlyMap<string, FieldPrice> | null = null

/** Returns the prices by field name. Fields that cost nothing and return no list are absent. */
export function readPrices(): ReadonlyMap<string, FieldPrice> {
  return (prices ??= collectPrices(createSchema()))
}

function collectPrices(schema: GraphQLSchema): Map<string, FieldPrice> {
  const found = new Map<string, FieldPrice>([
    ['_entities', { cost: entitiesCost, rows: listArguments['_entities'] ?? null }],
  ])
  for (const type of Object.values(schema.getTypeMap())) {
    if (!isObjectType(type)) continue
    for (const field of Object.values(type.getFields())) {
      const { cost, listSize } = readDirectives(field.extensions['directives'])
      const [argument] = listSize?.slicingArguments ?? []
      const sized = argument === undefined ? null : { argument, byDefault: listSize?.assumedSize ?? 1 }
      const rows = listArguments[field.name] ?? sized
      if (cost === undefined && rows === null) continue
      found.set(field.name, { cost: cost?.weight ?? found.get(field.name)?.cost ?? 0, rows })
    }
  }
  return found
}

interface Directives {
  cost?: { weight: number }
  listSize?: { slicingArguments: string[]; assumedSize?: number }
}

// Pothos keeps the directives of a field as a list of names and arguments.
function readDirectives(extension: unknown): Directives {
  const list: { name: string; args: unknown }[] = Array.isArray(extension) ? extension : []
  return Object.fromEntries(list.map(({ name, args }) => [name, args]))
}
