// The schema: the features, each imported for its effect on the builder, and how the whole is printed.

import { Kind, defaultFieldResolver, graphqlSync, isUnionType, parse, print, specifiedDirectives, visit } from 'graphql'
import type { DocumentNode, GraphQLField, GraphQLSchema } from 'graphql'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { createInputError } from './errors.ts'
import { takeTurn } from './orders/rowTurns.ts'
import './trading/mutations.ts'
import './orders/queries.ts'

let built: GraphQLSchema | null = null

/** The executable schema: a federation subgraph, the same one on every call, since it holds nothing of a service. */
export function createSchema(): GraphQLSchema {
  return (built ??= buildSchema())
}

function buildSchema(): GraphQLSchema {
  const schema = builder.toSubGraphSchema({
    linkUrl: 'https://specs.apollo.dev/federation/v2.9',
    federationDirectives: ['@key', '@shareable', '@cost', '@listSize'],
  })
  const union = schema.getType('_Entity')
  const entities = new Set(isUnionType(union) ? union.getTypes().map(({ name }) => name) : [])
  const fields = schema.getQueryType()?.getFields() ?? {}
  for (const name of ['_service', '_entities']) {
    const field = fields[name]
    if (field === undefined) throw new Error(`the subgraph has no ${name}`)
    guardForRouter(field, entities)
  }
  return schema
}

// A router does not split them.
const representationsMax = 1_000

// Checked at the fields, so that the check holds for every document and every way in.
function guardForRouter(
  field: GraphQLField<unknown, Context, { representations?: unknown[] }>,
  entities: ReadonlySet<unknown>,
): void {
  const { name, resolve = defaultFieldResolver } = field
  field.resolve = (source, args, context, info) => {
    if (context.routerTrouble !== null) {
      throw createInputError(`${context.routerTrouble} ${name} needs the secret of the router.`, 'FORBIDDEN')
    }
    if ((args.representations?.length ?? 0) > representationsMax) {
      throw createInputError(`representations: at most ${representationsMax} at once.`)
    }
    if (args.representations === undefined) return resolve(source, args, context, info)
    // Resolved one by one. The library throws at the first reference of an unknown type and drops the promises of those before
    // it. A promise that rejects later would be unhandled, which ends the process.
    return args.representations.map(async (representation) => {
      if (!entities.has(toTypeName(representation))) {
        throw createInputError('representations: each needs the __typename of an entity of this graph.')
      }
      const resolved: unknown = await resolve(source, { representations: [representation] }, context, info)
      // Awaits the entity before the turn, because a rejection without a handler would end the process.
      const entity: unknown = Array.isArray(resolved) ? await resolved[0] : null
      const turn = takeTurn(1)
      if (turn) await turn
      return entity
    })
  }
}

function toTypeName(representation: unknown): unknown {
  return typeof representation === 'object' && representation !== null && '__typename' in representation
    ? representation.__typename
    : null
}

/** The SDL of the subgraph as `_service` answers it, sorted, so that a change shows as the lines it changes. */
export function printSchema(schema: GraphQLSchema): string {
  const { data, errors } = graphqlSync({
    schema,
    source: '{ _service { sdl } }',
    contextValue: { routerTrouble: null },
  })
  const service: unknown = data?._service
  if (errors || typeof service !== 'object' || service === null || !('sdl' in service)) {
    throw new Error('the schema does not print itself', { cause: errors?.[0] })
  }
  return `${print(sortDocument(parse(String(service.sdl))))}\n`
}

/**
 * Returns the SDL of the API in plain GraphQL, for frontend tools: without the parts that only federation routers read. It is
 * sorted like the SDL of the subgraph.
 */
export function printApiSchema(schema: GraphQLSchema): string {
  const { definitions } = parse(printSchema(schema))
  const kept = definitions.filter((node) => {
    if (node.kind === Kind.SCHEMA_EXTENSION || node.kind === Kind.DIRECTIVE_DEFINITION) return false
    return !('name' in node && node.name && isOfFederation(node.name.value))
  })
  const document = visit({ kind: Kind.DOCUMENT, definitions: kept } satisfies DocumentNode, {
    FieldDefinition: (node) => (isOfFederation(node.name.value) ? null : undefined),
    Directive: ({ name }) => (specifiedDirectiveNames.has(name.value) ? undefined : null),
  })
  return `${print(document)}\n`
}

const specifiedDirectiveNames = new Set(specifiedDirectives.map(({ name }) => name))

// Whether federation reserves the name, such as `_Any`, `_service` and `federation__FieldSet`.
function isOfFederation(name: string): boolean {
  return /^(_|federation__|link__)/.test(name)
}

function sortDocument(document: DocumentNode): DocumentNode {
  const byName = <Node extends { name: { value: string } }>(nodes: readonly Node[] | undefined) =>
    nodes && [...nodes].sort((a, b) => (a.name.value < b.name.value ? -1 : 1))
  const sorted = visit(document, {
    ObjectTypeDefinition: { leave: (node) => ({ ...node, fields: byName(node.fields) }) },
    InterfaceTypeDefinition: { leave: (node) => ({ ...node, fields: byName(node.fields) }) },
    InputObjectTypeDefinition: { leave: (node) => ({ ...node, fields: byName(node.fields) }) },
    EnumTypeDefinition: { leave: (node) => ({ ...node, values: byName(node.values) }) },
    FieldDefinition: { leave: (node) => ({ ...node, arguments: byName(node.arguments) }) },
  })
  const keyOf = (node: DocumentNode['definitions'][number]) =>
    node.kind === Kind.SCHEMA_EXTENSION ? '' : 'name' in node && node.name ? node.name.value : ' '
  return { ...sorted, definitions: [...sorted.definitions].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)) }
}
