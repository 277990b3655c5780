// urql with Graphcache over Blotter: what its cache has to know of the graph.

import { Client, fetchExchange } from '@urql/core'
import { cacheExchange } from '@urql/exchange-graphcache'
import { relayPagination } from '@urql/exchange-graphcache/extras'

/** Creates a client of the service at `url`. */
export function createUrqlClient(url: string): Client {
  return new Client({
    url,
    preferGetMethod: false,
    exchanges: [
      cacheExchange({
        keys: {
          Asset: ({ symbol }) => (typeof symbol === 'string' ? symbol : null),
          // Parts of their order, list or result: they have no key of their own.
          OrderLeg: () => null,
          OrderConnection: () => null,
          OrderEdge: () => null,
          PageInfo: () => null,
          OrderInputProblem: () => null,
          OrderPlaced: () => null,
          OrderRejected: () => null,
          OrderInvalid: () => null,
          OrderNotPlaced: () => null,
          OrderOutcomeUnknown: () => null,
          CancelConfirmed: () => null,
          CancelPending: () => null,
          CancelRefused: () => null,
          CancelInvalid: () => null,
        },
        resolvers: {
          Query: { orders: relayPagination() },
          TradingAccount: { orders: relayPagination() },
        },
        updates: {
          Mutation: {
            // A new order may belong to any list, so the lists are read again.
            placeOrder(_result, _args, cache) {
              for (const { fieldName, fieldKey } of cache.inspectFields('Query')) {
                if (fieldName === 'orders') cache.invalidate('Query', fieldKey)
              }
            },
          },
        },
      }),
      fetchExchange,
    ],
  })
}
