// A neighbour of Blotter in a larger graph: who owns which trading account, and what people wrote about orders. It knows
// accounts and orders by their ids alone; everything else of them is Blotter's to tell.

import { createServer } from 'node:http'
// A neighbour has dependencies of its own. This one runs on the newest release, which Blotter's schema builder cannot use;
// in a package of its own the import is '@apollo/subgraph'.
import { buildSubgraphSchema } from '@apollo/subgraph-2.15'
import type { GraphQLSchemaModule } from '@apollo/subgraph-2.15'
import { parse } from 'graphql'
import type { GraphQLSchema } from 'graphql'
import { createYoga } from 'graphql-yoga'

/** The SDL of the neighbour. An order is named with its account, which spares Blotter a call to find it. */
export const accountsSdl = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])

  type Query {
    "One person; null if no person has this id."
    user(id: ID!): User
  }

  "A person who trades."
  type User @key(fields: "id") {
    id: ID!
    name: String!
    accounts: [TradingAccount!]!
    notes: [Note!]!
  }

  "Notes about an order."
  type Note {
    text: String!
    "Null when the order cannot be read."
    order: Order
  }

  type TradingAccount @key(fields: "id", resolvable: false) {
    id: ID!
  }

  type Order @key(fields: "id account { id }", resolvable: false) {
    id: ID!
    account: TradingAccount!
  }
`

/** A person with the accounts and orders that this subgraph knows of. */
export interface Person {
  id: string
  name: string
  accountIds: readonly string[]
  notes: readonly { text: string; orderId: string; accountId: string }[]
}

/** Serves the subgraph on a free port of loopback until the caller closes it. */
export async function startAccounts(
  people: readonly Person[],
  build: (modules: GraphQLSchemaModule[]) => GraphQLSchema = buildSubgraphSchema,
): Promise<{ url: string; close(): Promise<void> }> {
  const yoga = createYoga({
    // An array of modules, because 2.15 takes no single one. 2.14 takes both.
    schema: build([
      {
        typeDefs: parse(accountsSdl),
        resolvers: {
          Query: { user: (_: unknown, { id }: { id: string }) => findPerson(id) },
          User: {
            __resolveReference: ({ id }: { id: string }) => findPerson(id),
            accounts: ({ accountIds }: Person) => accountIds.map((id) => ({ id })),
            notes: ({ notes }: Person) =>
              notes.map(({ text, orderId, accountId }) => ({
                text,
                order: { id: orderId, account: { id: accountId } },
              })),
          },
        },
      },
    ]),
    logging: false,
  })
  const findPerson = (id: string): Person | null => people.find((person) => person.id === id) ?? null
  const server = createServer((request, response) => void yoga(request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('listening on no port')
  return {
    url: `http://127.0.0.1:${address.port}/graphql`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}
