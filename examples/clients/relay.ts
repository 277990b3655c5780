// Relay over Blotter: its environment.

import { Environment, Network, RecordSource, Store } from 'relay-runtime'

/** Creates an environment over the service at `url`. */
export function createRelayEnvironment(url: string): Environment {
  return new Environment({
    network: Network.create(async ({ text, name }, variables) => {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query: text, operationName: name, variables }),
      })
      return await response.json()
    }),
    store: new Store(new RecordSource()),
    // Relay knows records by `id` alone; with the name of the type no two brokers can collide.
    getDataID: ({ id, symbol }, typeName) => {
      if (typeName === 'Asset' && symbol !== undefined) return `Asset:${symbol}`
      return id === undefined ? null : `${typeName}:${id}`
    },
  })
}
