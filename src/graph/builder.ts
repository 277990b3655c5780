// The Pothos builder: plugins, scalars and what a resolver's context is. It defines no object type.

import SchemaBuilder from '@pothos/core'
import DirectivePlugin from '@pothos/plugin-directives'
import FederationPlugin from '@pothos/plugin-federation'
import ScopeAuthPlugin from '@pothos/plugin-scope-auth'
import { GraphQLError, Kind, print } from 'graphql'
import type { ValueNode } from 'graphql'
import type { Scope } from './caller.ts'
import type { Context } from './context.ts'
import { decimalHelp } from '../domain/decimal.ts'
import { parseInstant } from '../domain/instant.ts'

interface Types {
  Context: Context
  AuthScopes: {
    /** The scope that a token needs for a field. */
    scope: Scope
  }
  Scalars: {
    ID: { Input: string; Output: string }
    Decimal: { Input: string; Output: string }
    DateTime: { Input: string; Output: string }
  }
  Directives: {
    listSize: {
      locations: 'FIELD_DEFINITION'
      args: {
        assumedSize: number
        slicingArguments: string[]
        sizedFields: string[]
        requireOneSlicingArgument: boolean
      }
    }
  }
}

export const builder = new SchemaBuilder<Types>({
  plugins: [ScopeAuthPlugin, FederationPlugin, DirectivePlugin],
  scopeAuth: {
    // Synchronous, because a field that waits for a promise would miss the batch of its loader.
    authScopes: ({ caller }) => ({
      scope(scope) {
        caller.require(scope)
        return true
      },
    }),
  },
})

export type BuilderTypes = typeof builder.$inferSchemaTypes

builder.queryType({ description: 'Reads. Each root field can fail alone: it is then null with an error of its own.' })
builder.mutationType({
  description: 'Writes. Outcomes are data, not errors: switch on `__typename` or `outcome`. Every outcome is HTTP 200.',
})

builder.scalarType('Decimal', {
  specifiedByURL: 'https://www.w3.org/TR/xmlschema11-2/#decimal',
  description:
    'An exact base-10 number as a string, such as "175.00" or "0.000000001": digits with an optional minus and point, ' +
    'no exponent, no separators, no superfluous leading zeros. Every digit reaches the broker, and every digit of the ' +
    "broker's comes back. In variables it must be a string: a JSON number is refused, because it may have lost digits " +
    'before it arrived. Inline, a whole number may be written without quotes; a float is refused. A string that is not a ' +
    'decimal is reported as a problem of its field, together with all other problems.',
  serialize: String,
  // The string is checked with the rest of the input, so that all problems are reported at once.
  parseValue(value) {
    if (typeof value === 'string') return value
    const found = typeof value === 'number' ? 'A JSON number may have lost digits' : 'This is no decimal'
    throw new GraphQLError(`${found}: ${decimalHelp}`)
  },
  parseLiteral(node: ValueNode) {
    if (node.kind === Kind.STRING || node.kind === Kind.INT) return node.value
    const found = node.kind === Kind.FLOAT ? 'is a float, which loses digits on its way' : 'is no Decimal'
    throw new GraphQLError(`${print(node)} ${found}: ${decimalHelp}`, { nodes: node })
  },
})

const instantHelp = 'write an RFC 3339 instant with its zone, such as "2026-03-09T15:02:11Z"'

builder.scalarType('DateTime', {
  specifiedByURL: 'https://www.rfc-editor.org/rfc/rfc3339#section-5.6',
  description:
    'An instant, RFC 3339, always answered in UTC: "2026-03-09T15:02:11Z". Fractions of a second are kept as the broker ' +
    'gave them. An input may carry another zone, and must carry one.',
  serialize: String,
  parseValue: (value) => toInstant(value, null),
  // Passes the node, so that the error has its location in the document. An error in the variables has their path.
  parseLiteral: (node: ValueNode) => toInstant(node.kind === Kind.STRING ? node.value : null, node),
})

function toInstant(value: unknown, node: ValueNode | null): string {
  const instant = typeof value === 'string' && value.length <= 40 ? parseInstant(value) : null
  if (instant === null) throw new GraphQLError(`Not an instant: ${instantHelp}.`, { nodes: node })
  return instant
}
