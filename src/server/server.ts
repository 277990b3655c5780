// The GraphQL server: Yoga's plugins in the order a request meets them.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { getOperationAST, GraphQLError, Kind, NoSchemaIntrospectionCustomRule, validate } from 'graphql'
import type { DocumentNode, GraphQLSchema, OperationDefinitionNode } from 'graphql'
import { createYoga } from 'graphql-yoga'
import type { GraphiQLOptions, GraphQLParams, Plugin, YogaInitialContext } from 'graphql-yoga'
import { LRUCache } from 'lru-cache'
import { createTally } from '../upstream/readScope.ts'
import type { Brokers } from '../brokers/broker.ts'
import type { Tally } from '../upstream/readScope.ts'
import type { Context } from '../graph/context.ts'
import type { TrustedDocuments } from '../config/config.ts'
import { documentParameters, useTrustedDocuments } from './trustedDocuments.ts'
import { createInputError, createRateError, DeadlineExceeded, findRefusal, toClientError } from '../graph/errors.ts'
import type { Caller } from '../graph/caller.ts'
import type { Identity } from './identity.ts'
import type { Commands } from '../trading/placeOrder.ts'
import { checkCost, checkText, errorsMax, findShapeErrors, parseWithin } from './queryLimits.ts'
import { exposedHeaders, safeHeaders, toRequestId } from './listener.ts'
import { Loaders } from '../graph/orders/loaders.ts'
import type { Cursors } from '../graph/orders/cursors.ts'
import type { Rate } from '../domain/rate.ts'
import type { NoteRefusal } from './refusals.ts'
import type { Log } from './telemetry.ts'

// All reads of a request together, where the caller does not say how long it waits.
const readsMs = 12_000

// Time by which our deadlines exceed that of the caller, which the signal ends. With equal times, the timer of a call could fire
// first, and the caller would get the error of a slow broker for its own short deadline.
const planningMs = 100

export interface ServerOptions {
  schema: GraphQLSchema
  brokers: Brokers
  commands: Commands
  cursors: Cursors
  log: Log
  /** Logs why a broker's answer could not be used for an operation. */
  noteRefusal: NoteRefusal
  identity: Identity
  /** The secret that a federation router sends in `x-router-secret`; null lets every router ask. */
  routerSecret: string | null
  introspection: boolean
  /** The origins whose pages may ask from a browser, each with its scheme; the page of GraphiQL needs none. */
  corsOrigins: readonly string[]
  trustedDocuments: TrustedDocuments | null
  /** How often a caller may ask; null without a bound. */
  rates: CallerRates | null
  /** The documents that GraphiQL opens with, one a tab; null serves no GraphiQL. */
  graphiqlTabs: readonly string[] | null
  /** Whether `/ready` says yes: false while the service stops. */
  isReady: () => boolean
}

/** Two bounds for each caller, so that one whose reads run wild can still cancel. */
export interface CallerRates {
  operations: Rate
  /** Documents that cancel and do nothing else. */
  cancels: Rate
}

/** The server as what a listener asks, and as a function of requests. The caller closes it. */
export interface Server {
  answer: RequestListener
  /** Bypasses the listener: the bound on bytes, the paths, the names of this machine. */
  fetch(request: Request): Promise<Response>
  close(): Promise<void>
}

/** The state of a request before it is parsed. */
interface RequestState {
  requestId: string
  startedAt: number
  operationName?: string
  /** Known from when the request's parameters were read. */
  caller?: Caller
  /** Whether it was let through as one that cancels, which shows when it is parsed. */
  passedAsCancel?: boolean
  tally: Tally
  /** Errors of an answer that keeps its data. */
  reported: GraphQLError[]
  /** Ends the wait of a caller that said how long it waits. */
  timer?: NodeJS.Timeout
}

/** Builds the server; it listens nowhere by itself. */
export function createServer(options: ServerOptions): Server {
  const { log } = options
  let graphiqlPage: Promise<Buffer<ArrayBuffer>> | null = null
  const yoga = createYoga<RequestState>({
    schema: options.schema,
    context: (state: YogaInitialContext & RequestState): Context => createContext(options, state),
    plugins: [
      useReadiness(options.isReady),
      useStartPage({ hasGraphiQL: options.graphiqlTabs !== null }),
      useSafeHeaders(),
      useJsonAnswers(),
      useNoForms(options.corsOrigins),
      useIdentity(options),
      useTrustedDocuments({
        documents: options.trustedDocuments,
        isFromRouter: (request) => hasShownSecret(options, request),
      }),
      useCallerRates(options.rates),
      useLimits(),
      ...(options.introspection ? [] : [useNoIntrospection()]),
      useResultShape(log, {
        mayExplain: options.graphiqlTabs !== null,
        maySuggest: options.introspection,
        noteRefusal: options.noteRefusal,
      }),
    ],
    graphqlEndpoint: '/graphql',
    extraParamNames: documentParameters,
    healthCheckEndpoint: '/health',
    graphiql: options.graphiqlTabs === null ? false : toGraphiQLOptions(options.graphiqlTabs),
    renderGraphiQL: (page) => (graphiqlPage ??= renderPage(page)),
    // Yoga's default reflects any origin, with credentials; and a list would tell other origins `null`, which is one too.
    cors: (request) => {
      const origin = options.corsOrigins.find((allowed) => allowed === request.headers.get('origin'))
      return origin === undefined ? false : { ...corsOptions, origin: [origin], allowedHeaders: readAsked(request) }
    },
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
    answer: (request, response) => void yoga(request, response, createState(request.headers['x-request-id'])),
    fetch: async (request) => await yoga.fetch(request, createState(request.headers.get('x-request-id'))),
    close: async () => {
      await yoga.dispose()
    },
  }
}

// Callers prove their identity with a token, never with a cookie.
const corsOptions = {
  credentials: false,
  methods: ['POST', 'GET'],
  exposedHeaders,
  maxAge: 600,
}

/**
 * Returns the headers that a preflight requests, at most 100. A listed origin may send any header, because tracing and client
 * libraries add headers, and a browser puts no credential into them on its own.
 */
function readAsked(request: Request): string[] {
  const asked = request.headers.get('access-control-request-headers') ?? ''
  const names = asked.split(',').map((name) => name.trim().toLowerCase())
  return names.filter((name) => /^[!#$%&'*+.^_`|~\da-z-]{1,100}$/.test(name)).slice(0, 100)
}

// The longest answer after which a connection is kept for the next request.
const keptBytesMax = 256_000

// GraphiQL is one page that brings its scripts, styles, fonts and workers inside itself, and asks this server alone.
const graphiqlPolicy =
  "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob: data:; style-src 'unsafe-inline'; " +
  "font-src data:; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// The reads of a request end when its client leaves, or when the time is over that it gave.
function createContext(options: ServerOptions, state: YogaInitialContext & RequestState): Context {
  const { request, requestId, caller, tally, reported } = state
  if (caller === undefined) throw new Error('a request came this far without a caller')
  const timeoutMs = parseTimeout(request.headers.get('x-request-timeout-ms'))
  const unwanted = new AbortController()
  // Not AbortSignal.any: the request's signal need not be one of Node's own.
  request.signal.addEventListener('abort', () => unwanted.abort(request.signal.reason), { once: true })
  if (timeoutMs !== null) {
    // Since it came: its identity may have taken its time.
    const leftMs = timeoutMs - (performance.now() - state.startedAt)
    state.timer = setTimeout(() => unwanted.abort(new DeadlineExceeded()), leftMs)
  }
  // Without a word from the caller, counted from the first read: a mutation may have taken its time before.
  let deadline = timeoutMs === null ? null : Date.now() + timeoutMs + planningMs
  const scope = {
    signal: unwanted.signal,
    get deadline() {
      return (deadline ??= Date.now() + readsMs)
    },
    isForCancel: false,
    caller: caller.id,
    tally,
  }
  return {
    requestId,
    timeoutMs,
    caller,
    loaders: new Loaders(options.brokers, scope, caller),
    cursors: options.cursors,
    routerTrouble: describeSecret(options, request),
    report: (error) => void reported.push(error),
    commands: options.commands,
    tally,
  }
}

// Of hashes, because only what is of one length can be compared without telling how much of it is right.
function hasShownSecret({ routerSecret: secret }: ServerOptions, request: Request): boolean {
  if (secret === null) return false
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(hash(secret), hash(request.headers.get('x-router-secret') ?? ''))
}

/** Describes what is wrong with the router's secret in a request, as a sentence; null if it is right or not configured. */
function describeSecret(options: ServerOptions, request: Request): string | null {
  if (options.routerSecret === null || hasShownSecret(options, request)) return null
  const isMissing = request.headers.get('x-router-secret') === null
  return isMissing ? 'The header x-router-secret is missing.' : 'The secret in the header x-router-secret is wrong.'
}

function parseTimeout(header: string | null): number | null {
  if (header === null) return null
  const timeoutMs = /^\d{1,6}$/.test(header) ? Number(header) : 0
  if (timeoutMs > 0) return timeoutMs
  throw createInputError('x-request-timeout-ms must be a whole number of milliseconds from 1 to 999999.')
}

function createState(requestId: string | string[] | null | undefined): RequestState {
  return {
    requestId: toRequestId(requestId),
    startedAt: performance.now(),
    tally: createTally(),
    reported: [],
  }
}

function estimateBytes(_document: unknown, text: string): number {
  return text.length * 20 + 1
}

// 9 MB, made when the first one asks and then the same bytes for all, however many wait to read them; served from the
// package, so that no browser needs another host.
async function renderPage(page: GraphiQLOptions): Promise<Buffer<ArrayBuffer>> {
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql')
  return Buffer.from(renderGraphiQL(page).replace('</title>', () => `</title><style>${stillTabs}</style>`))
}

// Stops GraphiQL from moving a tab that gets the focus. The tab would move between the press and the release of the mouse
// button, so that the browser would not report a click.
const stillTabs = '.graphiql-tab { transform: none !important }'

function toGraphiQLOptions(tabs: readonly string[]): GraphiQLOptions {
  return { title: 'Blotter', defaultTabs: tabs.map((query) => ({ query })) }
}

// ---- plugins ----------------------------------------------------------------------------------------------------

type ServerPlugin = Plugin<RequestState, RequestState>

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

// A person who opens the bare address in a browser looks for GraphiQL, or for where GraphQL is. Programs get JSON.
function useStartPage({ hasGraphiQL }: { hasGraphiQL: boolean }): ServerPlugin {
  return {
    onRequest({ request, url, endResponse, serverContext: { requestId }, fetchAPI: { Response: Answer } }) {
      if (url.pathname !== '/') return
      const isBrowser = request.method === 'GET' && request.headers.get('accept')?.includes('text/html') === true
      if (isBrowser && hasGraphiQL) {
        return endResponse(new Answer(null, { status: 302, headers: { location: '/graphql' } }))
      }
      if (isBrowser) {
        return endResponse(new Answer(startPage, { headers: { 'content-type': 'text/html; charset=utf-8' } }))
      }
      const error = {
        message: 'There is nothing here; GraphQL is at /graphql.',
        extensions: { code: 'BAD_USER_INPUT', requestId },
      }
      endResponse(Answer.json({ errors: [error] }, { status: 404 }))
    },
  }
}

const startPage = `<!doctype html>
<html lang="en">
<title>Blotter</title>
<p>This is Blotter, a GraphQL API over brokerage orders. Send GraphQL requests by POST to <code>/graphql</code>.</p>
<p>GraphiQL is off here; the setting <code>GRAPHIQL=on</code> serves it at <code>/graphql</code>.</p>
</html>
`

function useSafeHeaders(): ServerPlugin {
  return {
    onResponse({ response }) {
      for (const [name, value] of Object.entries(safeHeaders)) response.headers.set(name, value)
      const isPage = response.headers.get('content-type')?.startsWith('text/html')
      if (isPage) response.headers.set('content-security-policy', graphiqlPolicy)
      // The listener does not see bytes that the kernel has taken: a client that does not read them would keep the connection as
      // long as a good client may. No more than the kernel's own buffers is kept for it.
      const bytes = Number(response.headers.get('content-length'))
      if (bytes > keptBytesMax) response.headers.set('connection', 'close')
    },
  }
}

// Yoga would begin a stream for a client that takes nothing else, and run a mutation for one that takes nothing of ours
// before it says so.
function useJsonAnswers(): ServerPlugin {
  return {
    onRequestParse({ request, endResponse, serverContext: { requestId }, fetchAPI }) {
      const accept = request.headers.get('accept')
      if (takesJson(accept)) {
        // Removes the charset, because Yoga accepts only one spelling of it.
        if (accept?.includes('charset')) request.headers.set('accept', accept.replaceAll(utf8Pattern, ''))
        return
      }
      const extensions = { code: 'BAD_USER_INPUT', requestId }
      const error = { message: 'Answers are JSON: ask with accept: application/json.', extensions }
      endResponse(fetchAPI.Response.json({ errors: [error] }, { status: 406 }))
    },
  }
}

const utf8Pattern = /;\s*charset\s*=\s*"?utf-?8"?/gi

const jsonTypes = ['application/graphql-response+json', 'application/json', 'application/*', '*/*']

function takesJson(accept: string | null): boolean {
  if (!accept) return true
  return accept.split(',').some((each) => {
    const [type = '', ...parameters] = each.toLowerCase().replaceAll(/[\s"]/g, '').split(';')
    const isUnwanted = parameters.some((given) => /^q=0(\.0*)?$|^charset=(?!utf-?8$)/.test(given))
    return jsonTypes.includes(type) && !isUnwanted
  })
}

// Forms, plain text and bare GETs are what a foreign page can send without asking. The library's check for this names
// neither header nor fix, and lets other content types through to other parsers.
function useNoForms(corsOrigins: readonly string[]): ServerPlugin {
  return {
    onRequestParse({ request, requestParser, setRequestParser }) {
      if (request.method === 'POST') {
        const type = request.headers.get('content-type') ?? ''
        if (!/^application\/json\s*(;|$)/i.test(type)) {
          throw createHttpError(415, 'Send the request with content-type: application/json.')
        }
        return setRequestParser(parseJsonBody)
      }
      // Yoga refuses every other request.
      if (request.method !== 'GET') return
      if (!isFromOwnPage(request, corsOrigins) && !preflightHeaders.some((name) => request.headers.has(name))) {
        throw createHttpError(
          403,
          `A GET that is not from a page of this origin or of CORS_ORIGINS needs one of the headers ` +
            `${preflightHeaders.join(', ')}, with any value.`,
        )
      }
      setRequestParser((toParse) => {
        try {
          return requestParser?.(toParse) ?? {}
        } catch {
          throw createHttpError(400, 'The parameters variables and extensions have to be JSON.')
        }
      })
    },
  }
}

const preflightHeaders = ['x-graphql-yoga-csrf', 'apollo-require-preflight']

// Trusts both headers, because the browser sets them and a page cannot.
function isFromOwnPage({ headers }: Request, corsOrigins: readonly string[]): boolean {
  return headers.get('sec-fetch-site') === 'same-origin' || corsOrigins.includes(headers.get('origin') ?? '')
}

const bodyParameters = ['query', 'variables', 'operationName', 'extensions', ...documentParameters]

// Drops parameters that are not of GraphQL over HTTP, and a byte order mark, because clients send both.
async function parseJsonBody(request: Request): Promise<GraphQLParams> {
  const text = (await request.text()).replace(/^\uFEFF/, '')
  const body = parseJson(text)
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw createHttpError(400, 'The body must be one JSON object with a query; send each operation in its own request.')
  }
  return Object.fromEntries(Object.entries(body).filter(([name]) => bodyParameters.includes(name)))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw createHttpError(400, 'The body is not JSON.')
  }
}

function createHttpError(status: number, message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { http: { status } } })
}

// Runs before the document is read, so that a caller without a valid token learns nothing of the schema.
function useIdentity(options: ServerOptions): ServerPlugin {
  return {
    async onParams({ request, params, context }) {
      const authorization = request.headers.get('authorization')
      try {
        context.caller = await options.identity.identify(authorization, hasShownSecret(options, request))
      } catch (error) {
        throw toRouterError(error, params.query, describeSecret(options, request))
      }
    },
  }
}

// Adds what is wrong with the secret, because a router without its secret would otherwise get the error for a missing token.
function toRouterError(error: unknown, document: unknown, trouble: string | null): unknown {
  if (trouble === null || !(error instanceof GraphQLError)) return error
  if (typeof document !== 'string' || !/\b_(service|entities)\b/.test(document)) return error
  const message = `${trouble} \`_service\` and \`_entities\` need it; other documents need a token.`
  return new GraphQLError(message, { extensions: error.extensions })
}

// Without authentication, all requests count as one caller.
function useCallerRates(rates: CallerRates | null): ServerPlugin {
  if (rates === null) return {}
  const take = (rate: Rate, { caller }: RequestState): void => {
    const waitMs = rate.take(caller?.id ?? '')
    if (waitMs > 0) throw createRateError(waitMs)
  }
  return {
    // A refusal needs no parser. The document is not parsed yet, so the word alone makes it count as a cancel.
    onParams({ params, context }) {
      context.passedAsCancel = typeof params.query === 'string' && params.query.includes('cancelOrder')
      take(context.passedAsCancel ? rates.cancels : rates.operations, context)
    },
    onExecute({ args, setResultAndStopExecution }) {
      const state: RequestState = args.contextValue
      if (!state.passedAsCancel || isCancelOnly(getOperationAST(args.document, args.operationName))) return
      const refusal = findThrown(() => take(rates.operations, state))
      if (refusal) setResultAndStopExecution({ errors: [refusal] })
    },
  }
}

// A cancel that is written by hand or generated is in the operation, and not in a fragment.
function isCancelOnly(operation: OperationDefinitionNode | null | undefined): boolean {
  const selections = operation?.selectionSet.selections ?? []
  return selections.every((selection) => selection.kind === Kind.FIELD && selection.name.value === 'cancelOrder')
}

// Before the text is looked up or parsed, while it is parsed and validated, and with its variables before it is executed.
function useLimits(): ServerPlugin {
  return {
    onParams({ params }) {
      if (typeof params.query === 'string') checkText(params.query)
    },
    onParse({ setParseFn }) {
      setParseFn((source, parseOptions) => parseWithin(source, parseOptions))
    },
    onValidate({ setValidationFn }) {
      setValidationFn((schema, document, rules, _typeInfo, validateOptions) => {
        const errors = findShapeErrors(document)
        return errors.length > 0
          ? errors
          : validate(schema, document, rules, { ...validateOptions, maxErrors: errorsMax })
      })
    },
    onExecute({ args, setResultAndStopExecution }) {
      const operation = getOperationAST(args.document, args.operationName)
      if (!operation) return
      const state: RequestState = args.contextValue
      if (operation.name) state.operationName ??= operation.name.value.slice(0, operationNameLengthMax)
      const refusal = findThrown(() => checkCost(args.document, operation, args.variableValues ?? {}))
      if (refusal) setResultAndStopExecution({ errors: [refusal] })
    },
  }
}

// An error that is thrown before execution would end the request without an answer; here it becomes the answer.
function findThrown(check: () => void): GraphQLError | null {
  try {
    check()
    return null
  } catch (error) {
    if (error instanceof GraphQLError) return error
    throw error
  }
}

function useNoIntrospection(): ServerPlugin {
  return {
    onValidate({ addValidationRule }) {
      addValidationRule(NoSchemaIntrospectionCustomRule)
    },
  }
}

// Maximum characters of an operation name in the log.
const operationNameLengthMax = 100

// Every answer passes here. Its errors get their code and request id, bugs are logged with their cause and masked for the
// client, and the operation gets one log line. If GraphiQL is on, a caller may request the upstream costs.
function useResultShape(
  log: Log,
  { mayExplain, maySuggest, noteRefusal }: { mayExplain: boolean; maySuggest: boolean; noteRefusal: NoteRefusal },
): ServerPlugin {
  return {
    onParams({ params, context }) {
      if (typeof params.operationName === 'string') {
        context.operationName = params.operationName.slice(0, operationNameLengthMax)
      }
    },
    onResultProcess({ request, result, setResult, serverContext }) {
      if (Symbol.asyncIterator in result || Array.isArray(result)) return
      const { requestId, startedAt, operationName, caller, tally, reported, timer } = serverContext
      clearTimeout(timer)
      const ms = Math.round(performance.now() - startedAt)
      // The client has left, so its reads ended and no answer is sent.
      if (request.signal.aborted) return log.debug({ requestId, operationName, ms }, 'operation left by its client')
      const thrown = [...(result.errors ?? []), ...reported]
      // An answer without data has only the first errors, because the others add nothing.
      const told = result.data === undefined ? thrown.slice(0, errorsMax) : thrown
      const errors =
        told.length === 0
          ? undefined
          : told.map((each) => toAnswered(each, { requestId, log, maySuggest, noteRefusal }))
      const explained = mayExplain && request.headers.get('x-blotter-explain') === '1'
      setResult({
        ...result,
        ...(errors && { errors }),
        ...(explained && { extensions: { ...result.extensions, upstream: { ...tally, ms: Math.round(tally.ms) } } }),
      })
      const codes = errors && [...new Set(errors.map((error) => error.extensions.code))]
      log.info(
        { requestId, operationName, caller: caller?.id ?? undefined, ms, upstreamCalls: tally.calls, codes },
        'operation',
      )
    },
    onResponse({ response, serverContext }) {
      response.headers.set('x-request-id', serverContext.requestId)
    },
  }
}

function toAnswered(
  thrown: GraphQLError,
  {
    requestId,
    log,
    maySuggest,
    noteRefusal,
  }: {
    requestId: string
    log: Log
    maySuggest: boolean
    noteRefusal: NoteRefusal
  },
): GraphQLError {
  const { error, isBug } = toClientError(thrown)
  const refusal = findRefusal(thrown)
  if (refusal !== null) noteRefusal(refusal, requestId)
  // The suggestions of graphql reveal names of the schema, one guess at a time.
  if (!maySuggest) error.message = error.message.replaceAll(/ Did you mean [^?]*\?/g, '')
  if (isBug) log.error({ requestId, path: error.path, err: thrown.originalError ?? thrown }, 'a request met a bug')
  Object.assign(error.extensions, { requestId })
  // A bug in one field is an error of that field. Without a path the answer has no data, and HTTP has to say so.
  if (isBug && error.path === undefined) Object.assign(error.extensions, { http: { status: 500 } })
  return error
}
