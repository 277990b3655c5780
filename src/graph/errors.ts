// The codes of `errors[].extensions.code`, and the function that turns anything thrown into one of them. A caller's mistake and a
// broker's failure have codes of their own. Everything else is a bug: the client gets a request id, the log the cause.

import { GraphQLError, responsePathAsArray } from 'graphql'
import type { AnswerRefusal } from '../upstream/errors.ts'
import type { GraphQLResolveInfo } from 'graphql'
import { AccountNeeded, OrderWithheld, SearchEnded } from '../brokers/broker.ts'
import { UpstreamError } from '../upstream/errors.ts'

/** The codes of top-level errors and what each tells the caller; the README shows this table. */
export const errorCodes = {
  UNAUTHENTICATED: 'The request has no token, or the token is refused; the message says why. HTTP 401.',
  BAD_USER_INPUT: 'The request or one of its arguments cannot be used; the message names it and the fix.',
  FORBIDDEN: 'The caller may not do this, or could be a foreign web page; the message says what is missing.',
  CURSOR_INVALID: '`after` is not a cursor of this list; start again without it.',
  RATE_LIMITED:
    "The broker's rate is used up, or the caller's own; `retryAfterMs` says how long to wait, if that is known.",
  BROKER_UNAVAILABLE: 'The broker cannot be reached, fails, or refuses our credential.',
  BROKER_TIMEOUT: 'The broker did not answer in time.',
  DEADLINE_EXCEEDED: 'The time that the caller set with `x-request-timeout-ms` has passed.',
  BROKER_BAD_RESPONSE:
    "The broker's answer cannot be read, or lacks a required part. If it lacks a known order, the error has `retryAfterMs`.",
  PERSISTED_QUERY_NOT_FOUND:
    'No document has this id. Send its text, or add the document to the manifest if only trusted documents run.',
  PERSISTED_QUERY_NOT_SUPPORTED: 'This service has no manifest of trusted documents; send the text of each document.',
  QUERY_TOO_COMPLEX: 'The document exceeds a limit; the message says which one.',
  GRAPHQL_PARSE_FAILED: 'The document is not GraphQL.',
  GRAPHQL_VALIDATION_FAILED: 'The document does not fit the schema.',
  INTERNAL_SERVER_ERROR: 'A bug of ours; `requestId` finds it in the log.',
} as const
type ErrorCode = keyof typeof errorCodes

/** Ends the reads of a request when the time of its caller is over. */
export class DeadlineExceeded extends Error {
  override readonly name = 'DeadlineExceeded'
}

/** The error for what the caller asked and does not get. `message` names it and the fix. */
export function createInputError(
  message: string,
  code: 'BAD_USER_INPUT' | 'CURSOR_INVALID' | 'RATE_LIMITED' | 'FORBIDDEN' = 'BAD_USER_INPUT',
): Error {
  return new GraphQLError(message, { extensions: { code } })
}

const unauthenticated = { status: 401, headers: { 'www-authenticate': 'Bearer' } }

/** The caller lacks a permission, or did not prove its identity; the latter is HTTP 401 as well. */
export function createAccessError(code: 'UNAUTHENTICATED' | 'FORBIDDEN', message: string): GraphQLError {
  return new GraphQLError(message, {
    extensions: { code, ...(code === 'UNAUTHENTICATED' && { http: unauthenticated }) },
  })
}

/** The error for a caller who asks too often: HTTP 429, with the time to wait in the header too. */
export function createRateError(retryAfterMs: number): GraphQLError {
  return new GraphQLError(`You ask too often: wait ${retryAfterMs} ms before the next request.`, {
    extensions: {
      code: 'RATE_LIMITED',
      retryAfterMs,
      http: { status: 429, headers: { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) } },
    },
  })
}

/**
 * Returns anything thrown while a request was served as the client may see it. `isBug` says that the cause must be logged,
 * because the client does not get it. Never throws.
 */
export function toClientError(thrown: unknown): { error: GraphQLError; isBug: boolean } {
  const located = thrown instanceof GraphQLError ? thrown : undefined
  const cause = findCause(thrown)
  if (cause instanceof DeadlineExceeded) {
    const description = describe('DEADLINE_EXCEEDED', 'It took longer than x-request-timeout-ms allows.')
    return { error: locate(description, located), isBug: false }
  }
  if (cause instanceof AccountNeeded) return { error: locate(describeAccountNeeded(), located), isBug: false }
  if (cause instanceof OrderWithheld) return { error: locate(describeWithheld(cause), located), isBug: false }
  if (cause instanceof SearchEnded) return { error: locate(describeSearchEnded(cause), located), isBug: false }
  if (cause instanceof UpstreamError) return { error: locate(describeUpstream(cause), located), isBug: false }
  if (cause instanceof GraphQLError) {
    const error = withCode(cause, located ?? cause)
    error.message = shorten(error.message)
    return { error, isBug: false }
  }
  const masked = describe('INTERNAL_SERVER_ERROR', 'Something went wrong here. The request id finds it in the log.')
  return { error: locate(masked, located), isBug: true }
}

/** Returns why the broker's answer that caused `thrown` cannot be used; null if another error caused it. */
export function findRefusal(thrown: unknown): AnswerRefusal | null {
  const cause = findCause(thrown)
  return cause instanceof UpstreamError ? cause.refusal : null
}

/** Creates an error for an answer that lacks `what` because of a broker's failure, and keeps the rest. */
export function createPartialError(cause: UpstreamError, what: string, info: GraphQLResolveInfo): GraphQLError {
  const { message, extensions } = describeUpstream(cause)
  const { fieldNodes: nodes, path } = info
  return new GraphQLError(`${what} are missing here. ${message}`, {
    nodes,
    path: responsePathAsArray(path),
    extensions,
  })
}

interface Description {
  message: string
  extensions: Record<string, unknown>
}

function describeAccountNeeded(): Description {
  return describe(
    'BAD_USER_INPUT',
    'The broker reads an order only under its account, which is not known of this order: name its accountId (in an ' +
      'entity, account { id }), or list the orders of that account first.',
  )
}

function describeSearchEnded({ since }: SearchEnded): Description {
  const searched = since === null ? 'the newest orders of its account' : `the orders of its account since ${since}`
  return describe(
    'BROKER_BAD_RESPONSE',
    `This order is not among ${searched}. Older ones were not searched: list the orders of the account with a filter on submittedBefore.`,
  )
}

function describeWithheld({ ageMs, retryAfterMs }: OrderWithheld): Description {
  const seconds = Math.floor(ageMs / 1_000)
  return describe(
    'BROKER_BAD_RESPONSE',
    `The broker does not show this order now, but it was known to exist ${seconds} s ago. Read it again after retryAfterMs: if the broker still does not show it, the answer is null.`,
    retryAfterMs,
  )
}

// The broker's own words are not shown here: a read's trouble is its operator's, and the text may hold anything.
function describeUpstream(error: UpstreamError): Description {
  switch (error.kind) {
    case 'throttled':
      return describe('RATE_LIMITED', "The broker's rate is used up; wait before the next request.", error.retryAfterMs)
    case 'not_sent':
      return describe('BROKER_UNAVAILABLE', 'The broker cannot be reached.', error.retryAfterMs)
    case 'failed':
      return describe('BROKER_UNAVAILABLE', 'The broker failed to answer.', error.retryAfterMs)
    case 'no_answer':
      if (error.timedOut) return describe('BROKER_TIMEOUT', 'The broker did not answer in time.')
      if (error.status !== null) return describe('BROKER_BAD_RESPONSE', "The broker's answer was cut off.")
      return describe('BROKER_UNAVAILABLE', 'The broker ended the connection without an answer.')
    case 'refused':
      if (error.rejection === 'ACCOUNT_NOT_FOUND')
        return describe('BAD_USER_INPUT', 'The broker knows no such accountId.')
      if (error.rejection === null && error.status === 401) {
        return describe('BROKER_UNAVAILABLE', "The broker does not take this service's credential.")
      }
      // Brokers answer so if a right is missing, and some if the account belongs to another customer.
      if (error.rejection === null && error.status === 403) {
        return describe(
          'BROKER_UNAVAILABLE',
          "The broker does not let this service's credential do that, or not there.",
        )
      }
      return describe('BROKER_BAD_RESPONSE', 'The broker refused to answer the read.')
    case 'unreadable':
      return describe('BROKER_BAD_RESPONSE', "The broker's answer cannot be read.")
    default:
      return error.kind satisfies never
  }
}

function describe(code: ErrorCode, message: string, retryAfterMs: number | null = null): Description {
  return { message, extensions: retryAfterMs === null ? { code } : { code, retryAfterMs } }
}

function locate({ message, extensions }: Description, located: GraphQLError | undefined): GraphQLError {
  const { nodes = null, source = null, positions = null, path = null } = located ?? {}
  return new GraphQLError(message, { nodes, source, positions, path, extensions })
}

// graphql-js wraps what a resolver throws into an error with a path; what was thrown is what tells the story.
function findCause(thrown: unknown): unknown {
  let cause = thrown
  while (cause instanceof GraphQLError && cause.originalError) cause = cause.originalError
  return cause
}

// Messages of graphql quote the document, once for each mistake in it: ten mistakes in 90 KB made 900 KB. The mistake is named at
// the end of a message, and so is a suggestion, which is shorter than the part that is kept.
const messageLengthMax = 600
const messageHeadLength = 200

function shorten(message: string): string {
  if (message.length <= messageLengthMax) return message
  return `${message.slice(0, messageHeadLength)} … ${message.slice(messageHeadLength - messageLengthMax)}`
}

// Errors of graphql itself and of Yoga's request checks carry a message for the caller; some lack a code of ours. Those
// are about the HTTP request, so their status holds for every media type.
function withCode(cause: GraphQLError, located: GraphQLError): GraphQLError {
  if (typeof cause.extensions.code === 'string' && Object.hasOwn(errorCodes, cause.extensions.code)) return located
  const status = findHttpStatus(cause)
  const code: ErrorCode = status === 403 ? 'FORBIDDEN' : 'BAD_USER_INPUT'
  const extensions = status === null ? { code } : { code, http: { status } }
  return locate({ message: located.message, extensions }, located)
}

function findHttpStatus({ extensions: { http } }: GraphQLError): number | null {
  if (typeof http !== 'object' || http === null || !('status' in http)) return null
  return typeof http.status === 'number' ? http.status : null
}
