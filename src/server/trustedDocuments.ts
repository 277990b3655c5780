// Trusted documents: the operations that frontends were built with, by the ids of their build. All of them are checked at the
// start, so that a document that no longer fits the schema shows before a user sends it.

import { usePersistedOperations } from '@graphql-yoga/plugin-persisted-operations'
import { GraphQLError, Kind, NoSchemaIntrospectionCustomRule, specifiedRules, validate } from 'graphql'
import type { GraphQLSchema } from 'graphql'
import type { Plugin } from 'graphql-yoga'
import { StartError } from '../config/config.ts'
import type { TrustedDocuments } from '../config/config.ts'
import { checkText, errorsMax, findShapeErrors, parseWithin } from './queryLimits.ts'

/**
 * Throws StartError, naming TRUSTED_DOCUMENTS and the first ten of its documents that this service would refuse, each with
 * the reason: it cannot be parsed, does not fit `schema`, or is beyond a limit.
 */
export function checkDocuments({ texts }: TrustedDocuments, schema: GraphQLSchema, introspection: boolean): void {
  const rules = [...specifiedRules, ...(introspection ? [] : [NoSchemaIntrospectionCustomRule])]
  const problems = [...texts].flatMap(([id, text]) => {
    const problem = findProblem(text)
    return problem === null ? [] : [`  ${id}: ${problem}`]
  })
  if (problems.length === 0) return
  const more = problems.length > errorsMax ? [`  and ${problems.length - errorsMax} more`] : []
  const told = [...problems.slice(0, errorsMax), ...more].join('\n')
  throw new StartError(`TRUSTED_DOCUMENTS has documents that would be refused:\n${told}`)

  function findProblem(text: string): string | null {
    try {
      checkText(text)
      const document = parseWithin(text)
      if (!document.definitions.some(({ kind }) => kind === Kind.OPERATION_DEFINITION)) return 'It has no operation.'
      const [problem] = [...findShapeErrors(document), ...validate(schema, document, rules, { maxErrors: 1 })]
      return problem?.message ?? null
    } catch (error) {
      if (error instanceof GraphQLError) return error.message
      throw error
    }
  }
}

interface TrustOptions {
  documents: TrustedDocuments | null
  /** Whether a request comes from the federation router, which writes its documents itself and is trusted with any. */
  isFromRouter: (request: Request) => boolean
}

/** Puts the text of a trusted document where a request names its id, and refuses others where only those are run. */
export function useTrustedDocuments({ documents, isFromRouter }: TrustOptions): Plugin {
  return usePersistedOperations({
    // A hash may be named by its algorithm in the manifest, and by itself where the request says which one it is.
    getPersistedOperation: (id) => documents?.texts.get(id) ?? documents?.texts.get(`sha256:${id}`) ?? null,
    allowArbitraryOperations: (request) => documents?.mode !== 'enforce' || isFromRouter(request),
    extractPersistedOperationId: findDocumentId,
    customErrors: {
      notFound: () => createNotFound(documents),
      keyNotFound: () =>
        new GraphQLError('Send a document as query, or the id of a trusted one as documentId.', {
          extensions: { code: 'BAD_USER_INPUT', http: { status: 400 } },
        }),
      persistedQueryOnly: () =>
        createRefusal(
          'FORBIDDEN',
          'Only trusted documents are run here: send the id of one as documentId, and no query.',
        ),
    },
  })
}

/** The parameters that may name a document, in addition to the four of every request: those of GraphQL over HTTP and Relay. */
export const documentParameters = ['documentId', 'doc_id', 'id']

// Apollo's clients, urql's and those of graphql-codegen's pages send it as a hash among the extensions.
function findDocumentId(params: object, { method, url }: Request): string | null {
  // Only the usual four fields of a GET have been read.
  const named = method === 'GET' ? Object.fromEntries(new URL(url).searchParams) : {}
  const { documentId, doc_id: relayId, id: name, extensions }: Record<string, unknown> = { ...named, ...params }
  const persisted = isObject(extensions) && isObject(extensions['persistedQuery']) ? extensions['persistedQuery'] : {}
  const id = documentId ?? relayId ?? persisted['sha256Hash'] ?? name
  return typeof id === 'string' ? id : null
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

// Uses the exact words of Apollo's server, because @urql/exchange-persisted compares the message and not the code. The client
// then sends the text, which runs in `allow` mode and is not kept. Without a manifest no id is known, so clients must not send
// one again.
function createNotFound(documents: TrustedDocuments | null): GraphQLError {
  if (documents === null) return createRefusal('PERSISTED_QUERY_NOT_SUPPORTED', 'PersistedQueryNotSupported')
  if (documents.mode !== 'enforce') return createRefusal('PERSISTED_QUERY_NOT_FOUND', 'PersistedQueryNotFound')
  const help = 'No trusted document has this id: add the document to the manifest of TRUSTED_DOCUMENTS.'
  return createRefusal('PERSISTED_QUERY_NOT_FOUND', help)
}

function createRefusal(code: string, message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code } })
}
