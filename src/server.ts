// The GraphQL server: Yoga's plugins in the order a request meets them, and the node:http listener in front of them.

import { randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { useCSRFPrevention } from '@graphql-yoga/plugin-csrf-prevention'
import { GraphQLError, NoSchemaIntrospectionCustomRule } from 'graphql'
import type { DocumentNode, GraphQLSchema } from 'graphql'
import { createYoga } from 'graphql-yoga'
import type { GraphiQLOptions, Plugin, YogaInitialContext } from 'graphql-yoga'
import { LRUCache } from 'lru-cache'
import type { Brokers } from './brokers/broker.ts'
import type { Context } from './context.ts'
import { toClientError } from './errors.ts'
import type { Commands } from './orders/commands.ts'
import { createLoaders } from './orders/loaders.ts'
import type { Log } from './telemetry.ts'

// Of a request.
const bodyBytesMax = 100_000

export interface ServerOptions {
  schema: GraphQLSchema
  brokers: Brokers
  commands: Commands
  log: Log
  introspection: boolean
  /** The documents that GraphiQL opens with, one a tab; null serves no GraphiQL. */
  graphiqlTabs: readonly string[] | null
  /** Whether `/ready` says yes: false while the service stops. */
  isReady: () => boolean
}

/** The server as a listener for node:http, and as a function of requests. The caller closes it. */
export interface Server {
  listener: RequestListener
  /** Bypasses what only a socket has: the bound on bytes. */
  fetch(request: Request): Promise<Response>
  close(): Promise<void>
}

/** What is known of a request before it is parsed. */
interface RequestState {
  requestId: string
  startedAt: number
  operationName?: string
}

/** Builds the server; it listens nowhere by itself. */
export function createServer(options: ServerOptions): Server {
  const { log } = options
  const yoga = createYoga<RequestState>({
    schema: options.schema,
    context: ({ request, requestId }: YogaInitialContext & RequestState): Context => ({
      requestId,
      loaders: createLoaders(options.brokers, request.signal),
      commands: options.commands,
    }),
    plugins: [
      useReadiness(options.isReady),
      useJsonOnly(),
      useCSRFPrevention({ requestHeaders: ['x-graphql-yoga-csrf', 'apollo-require-preflight'] }),
      ...(options.introspection ? [] : [useNoIntrospection()]),
      useResultShape(log),
    ],
    graphqlEndpoint: '/graphql',
    healthCheckEndpoint: '/health',
    graphiql: options.graphiqlTabs === null ? false : toGraphiQLOptions(options.graphiqlTabs),
    // A page of 18 MB, loaded when the first one asks; served from the package, so that no browser needs another host.
    renderGraphiQL: async (page) => (await import('@graphql-yoga/render-graphiql')).renderGraphiQL(page),
    // Yoga's default reflects any origin, with credentials.
    cors: false,
    multipart: false,
    // Counted in the listener: Yoga's own count costs a third of a small request.
    maxRequestBodySize: false,
    landingPage: false,
    logging: false,
    // By the text of the document, bounded by number and size, because junk costs memory too; failures are not kept.
    parserAndValidationCache: {
      documentCache: new LRUCache<string, DocumentNode>({
        max: 256,
        maxSize: 8_000_000,
        sizeCalculation: estimateBytes,
      }),
      errorCache: { get: () => undefined, set: () => undefined },
      validationCache: true,
    },
    // Every error takes its form in useResultShape, also one that never reached execution.
    maskedErrors: false,
  })

  return {
    listener: (request, response) => void listen(request, response),
    fetch: async (request) => await yoga.fetch(request, createState(request.headers.get('x-request-id'))),
    close: async () => {
      await yoga.dispose()
    },
  }

  async function listen(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const header = request.headers['x-request-id']
    const state = createState(typeof header === 'string' ? header : null)
    if (!(await boundBody(request))) return refuseBody(response, state.requestId)
    await yoga(request, response, state)
  }
}

// The node:http parser holds a body to its content-length; one without is read here, up to the bound.
async function boundBody(request: IncomingMessage & { body?: Buffer }): Promise<boolean> {
  const length = request.headers['content-length']
  if (length !== undefined) return Number(length) <= bodyBytesMax
  if (request.headers['transfer-encoding'] === undefined) return true
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of request) {
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes > bodyBytesMax) return false
    }
  } catch {
    // The client is gone in the middle of its body; nobody reads what is answered.
    return false
  }
  // Yoga takes a body that was read before from here.
  request.body = Buffer.concat(chunks)
  return true
}

function refuseBody(response: ServerResponse, requestId: string): void {
  const error = {
    message: `The body is too large: at most ${bodyBytesMax} bytes.`,
    extensions: { code: 'BAD_USER_INPUT', requestId },
  }
  response.writeHead(413, { 'content-type': 'application/json', connection: 'close', 'x-request-id': requestId })
  response.end(JSON.stringify({ errors: [error] }))
}

function createState(requestId: string | null): RequestState {
  const isSane = requestId !== null && /^[\w.:-]{1,64}$/.test(requestId)
  return { requestId: isSane ? requestId : randomUUID(), startedAt: performance.now() }
}

function estimateBytes(_document: unknown, text: string): number {
  return text.length * 20 + 1
}

function toGraphiQLOptions(tabs: readonly string[]): GraphiQLOptions {
  return { title: 'Blotter', defaultTabs: tabs.map((query) => ({ query })) }
}

// ---- plugins ----------------------------------------------------------------------------------------------------

type ServerPlugin = Plugin<object, RequestState>

// Neither this nor /health asks a broker: they speak of this process alone.
function useReadiness(isReady: () => boolean): ServerPlugin {
  return {
    onRequest({ url, endResponse, fetchAPI }) {
      if (url.pathname !== '/ready') return
      const ready = isReady()
      endResponse(new fetchAPI.Response(ready ? 'ready\n' : 'stopping\n', { status: ready ? 200 : 503 }))
    },
  }
}

// Forms and plain text are what a foreign page can send without asking.
function useJsonOnly(): ServerPlugin {
  return {
    onRequestParse({ request }) {
      const type = request.headers.get('content-type') ?? ''
      if (request.method !== 'POST' || /^application\/json\s*(;|$)/i.test(type)) return
      throw new GraphQLError('Send the request with content-type: application/json.', {
        extensions: { http: { status: 415 } },
      })
    },
  }
}

function useNoIntrospection(): ServerPlugin {
  return {
    onValidate({ addValidationRule }) {
      addValidationRule(NoSchemaIntrospectionCustomRule)
    },
  }
}

// Every answer leaves through here: its errors get their code and request id, what is a bug is logged with its cause
// and told to nobody else, and one line tells of the operation.
function useResultShape(log: Log): ServerPlugin {
  return {
    onParams({ params, context }) {
      if (typeof params.operationName === 'string') context.operationName = params.operationName.slice(0, 100)
    },
    onResultProcess({ result, setResult, serverContext }) {
      if (Symbol.asyncIterator in result || Array.isArray(result)) return
      const { requestId, startedAt, operationName } = serverContext
      const errors = result.errors?.map((thrown) => toAnswered(thrown, requestId, log))
      if (errors) setResult({ ...result, errors })
      const codes = errors && [...new Set(errors.map((error) => error.extensions.code))]
      log.info({ requestId, operationName, ms: Math.round(performance.now() - startedAt), codes }, 'operation')
    },
    onResponse({ response, serverContext }) {
      response.headers.set('x-request-id', serverContext.requestId)
    },
  }
}

function toAnswered(thrown: GraphQLError, requestId: string, log: Log): GraphQLError {
  const { error, isBug } = toClientError(thrown)
  if (isBug) log.error({ requestId, path: error.path, err: thrown.originalError ?? thrown }, 'a request met a bug')
  Object.assign(error.extensions, { requestId })
  // A bug beside data is told beside it; without a path there is no data, and HTTP has to say so.
  if (isBug && error.path === undefined) Object.assign(error.extensions, { http: { status: 500 } })
  return error
}
