// Apollo Client over Blotter: what its cache has to know of the graph.

import { ApolloClient, HttpLink, InMemoryCache } from '@apollo/client'
import { relayStylePagination } from '@apollo/client/utilities'

// TypeScript has to know the defaults, because the type of an answer follows from them: its data may be there in part.
declare module '@apollo/client' {
  namespace ApolloClient {
    namespace DeclareDefaultOptions {
      interface Query {
        errorPolicy: 'all'
      }
      interface WatchQuery {
        errorPolicy: 'all'
      }
      interface Mutate {
        errorPolicy: 'all'
      }
    }
  }
}

/** Creates a client of the service at `uri`. The caller stops it. */
export function createApolloClient(uri: string): ApolloClient {
  return new ApolloClient({
    link: new HttpLink({ uri }),
    cache: new InMemoryCache({
      possibleTypes: {
        PlaceOrderResult: ['OrderPlaced', 'OrderRejected', 'OrderInvalid', 'OrderNotPlaced', 'OrderOutcomeUnknown'],
        CancelOrderResult: ['CancelConfirmed', 'CancelPending', 'CancelRefused', 'CancelInvalid'],
      },
      typePolicies: {
        Query: { fields: { orders: relayStylePagination(['accountId', 'filter']) } },
        TradingAccount: { fields: { orders: relayStylePagination(['filter']) } },
        // Everything else that can be cached by a key has an `id`.
        Asset: { keyFields: ['symbol'] },
      },
    }),
    defaultOptions: {
      query: { errorPolicy: 'all' },
      watchQuery: { errorPolicy: 'all' },
      mutate: { errorPolicy: 'all' },
    },
  })
}
