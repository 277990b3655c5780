// Two subgraphs as one graph: composed, and served by @apollo/gateway over HTTP.

import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { ApolloGateway, RemoteGraphQLDataSource } from '@apollo/gateway'
import { composeServices } from '@theguild/federation-composition'
import { getOperationAST, parse, print } from 'graphql'
import { createYoga } from 'graphql-yoga'
import type { Plugin, YogaInitialContext } from 'graphql-yoga'

/** A service of the graph. */
export interface Subgraph {
  name: string
  url: string
  sdl: string
  /** Headers sent with each request to it, in addition to the forwarded ones. */
  headers?: Readonly<Record<string, string>>
}

/** Starts a gateway over `subgraphs`. The caller calls `close`. */
export interface Gateway {
  url: string
  close(): Promise<void>
}

// The caller's token, how long it waits, and the id of the request in every log.
const forwarded = ['authorization', 'x-request-timeout-ms', 'x-request-id']

/** The supergraph's SDL. Throws an Error that holds all that the composer has against it. */
export function compose(subgraphs: readonly Subgraph[]): string {
  const { supergraphSdl, errors } = composeServices(
    subgraphs.map(({ name, url, sdl }) => ({ name, url, typeDefs: parse(sdl) })),
  )
  if (supergraphSdl !== undefined) return supergraphSdl
  throw new Error(`the subgraphs do not compose:\n${errors?.map(({ message }) => message).join('\n')}`)
}

/** Listens on `port` of loopback, 0 for a free one. */
export async function startGateway(subgraphs: readonly Subgraph[], port: number): Promise<Gateway> {
  const gateway = new ApolloGateway({
    supergraphSdl: compose(subgraphs),
    buildService: ({ name, url = '' }) =>
      new RemoteGraphQLDataSource<Partial<YogaInitialContext>>({
        url,
        willSendRequest({ request, context }) {
          for (const header of forwarded) {
            const value = context.request?.headers.get(header)
            if (typeof value === 'string') request.http?.headers.set(header, value)
          }
          const own = subgraphs.find((subgraph) => subgraph.name === name)?.headers ?? {}
          for (const [header, value] of Object.entries(own)) request.http?.headers.set(header, value)
        },
      }),
    logger: { debug() {}, info() {}, warn: console.warn, error: console.error },
  })
  const { schema, executor } = await gateway.load()
  const yoga = createYoga({ schema, plugins: [useExecutor(executor)], maskedErrors: false, logging: false })
  const server = createServer((request, response) => void yoga(request, response))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('listening on no port')
  return {
    url: `http://127.0.0.1:${address.port}/graphql`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
      await gateway.stop()
    },
  }
}

type Executor = Awaited<ReturnType<ApolloGateway['load']>>['executor']
type Request = Parameters<Executor>[0]

// The gateway plans and asks; parsing and validating stay Yoga's. It was made to run in another server, and takes what
// that one would give it.
function useExecutor(executor: Executor): Plugin {
  const unused: Pick<Request, 'logger' | 'cache' | 'metrics' | 'schemaHash' | 'overallCachePolicy'> = {
    logger: console,
    cache: { get: async () => undefined, set: async () => {}, delete: async () => {} },
    metrics: {},
    schemaHash: '' as Request['schemaHash'],
    overallCachePolicy: undefined,
  }
  return {
    onExecute({ args, setExecuteFn }) {
      const { document, schema, contextValue: context, operationName, variableValues: variables } = args
      setExecuteFn(async () => {
        const operation = getOperationAST(document, operationName)
        if (!operation) throw new Error('the document was validated, and has no operation to run')
        const source = print(document)
        return await executor({
          ...unused,
          document,
          operation,
          schema,
          context,
          operationName: operationName ?? null,
          source,
          queryHash: createHash('sha256').update(source).digest('hex'),
          request: { query: source, variables: variables ?? {} },
        })
      })
    },
  }
}
