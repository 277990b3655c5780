// The Pothos builder: plugins, scalars and what a resolver's context is. It defines no object type.

import SchemaBuilder from '@pothos/core'
import DirectivePlugin from '@pothos/plugin-directives'
import FederationPlugin from '@pothos/plugin-federation'
import { GraphQLError, Kind, print } from 'graphql'
import type { ValueNode } from 'graphql'
import type { Context } from './context.ts'
import { isDecimal } from './decimal.ts'
import { parseInstant } from './instant.ts'

interface Types {
  Context: Context
  Scalars: {
    ID: { Input: string; Output: string }
    Decimal: { Input: string; Output: string }
    DateTime: { Input: string; Output: string }
  }
  Directives: {
    listSize: {
      locations: 'FIELD_DEFINITION'
      args: { slicingArguments: string[]; sizedFields: string[]; requireOneSlicingArgument: boolean }
    }
  }
}

export const builder = new SchemaBuilder<Types>({
  plugins: [FederationPlugin, DirectivePlugin],
})

export type BuilderTypes = typeof builder.$inferSchemaTypes

builder.queryType({ description: 'Reads. Each root field can fail alone: it is then null with an error of its own.' })
builder.mutationType({
  description:
    'Writes. What becomes of one is data, never an error: switch on `__typename` or `outcome`. Every outcome is HTTP 200.',
})

const decimalHelp = 'write it as a string of plain digits, such as "175.00"'

builder.scalarType('Decimal', {
  description:
    'An exact base-10 number as a string, such as "175.00" or "0.000000001": digits with an optional minus and point, ' +
    'no exponent, no separators, no superfluous leading zeros. Every digit reaches the broker, and every digit of the ' +
    "broker's comes back. Whole numbers may be sent without quotes; a float literal or JSON float is refused, because " +
    'it would have lost digits before it arrived.',
  serialize: String,
  parseValue(value) {
    if (typeof value === 'string') return parseDecimal(value)
    if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value)
    if (typeof value === 'number') throw new GraphQLError(`A number may have lost digits on its way: ${decimalHelp}.`)
    throw new GraphQLError(`Not a decimal: ${decimalHelp}.`)
  },
  parseLiteral(node: ValueNode) {
    if (node.kind === Kind.STRING || node.kind === Kind.INT) return parseDecimal(node.value, node)
    const found = print(node)
    if (node.kind !== Kind.FLOAT) throw new GraphQLError(`${found} is no Decimal: ${decimalHelp}.`, { nodes: node })
    throw new GraphQLError(`${found} is a float literal, which loses digits: ${decimalHelp}.`, { nodes: node })
  },
})

function parseDecimal(text: string, node: ValueNode | null = null): string {
  // Longer than any bound a field has, so that the field can name its own; short enough to be no burden.
  if (text.length <= 100 && isDecimal(text) && !/^-?0\d/.test(text)) return text
  throw new GraphQLError(`Not a decimal: ${decimalHelp}.`, { nodes: node })
}

const instantHelp = 'write an RFC 3339 instant with its zone, such as "2026-03-09T15:02:11Z"'

builder.scalarType('DateTime', {
  description:
    'An instant, RFC 3339, always answered in UTC: "2026-03-09T15:02:11Z". Fractions of a second are kept as the broker ' +
    'gave them. An input may carry another zone, and must carry one.',
  serialize: String,
  parseValue(value) {
    const instant = typeof value === 'string' && value.length <= 40 ? parseInstant(value) : null
    if (instant === null) throw new GraphQLError(`Not an instant: ${instantHelp}.`)
    return instant
  },
})
