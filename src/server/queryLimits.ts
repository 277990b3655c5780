// Limits of documents, checked before any resolver runs: size, shape and price. A document is measured once per text, however
// often its fragments are used. Its price is kept as a formula, because `first` and `ids` may be variables.

import { GraphQLError, Kind, OperationTypeNode, parse } from 'graphql'
import type {
  ArgumentNode,
  ConstValueNode,
  DocumentNode,
  FieldNode,
  FragmentDefinitionNode,
  OperationDefinitionNode,
  ParseOptions,
  SelectionSetNode,
  Source,
} from 'graphql'
import { readPrices } from './prices.ts'
import type { FieldPrice } from './prices.ts'

/** Characters of a document's text, before it is looked up or parsed. */
const documentCharactersMax = 10_000
/** Tokens of it, while it is parsed. */
const tokensMax = 1_000
/** Maximum length of the messages about a document that does not fit the schema. */
export const errorsMax = 10

const depthMax = 8
const aliasesMax = 30
const directivesMax = 10
const rootFieldsMax = {
  [OperationTypeNode.QUERY]: 30,
  [OperationTypeNode.MUTATION]: 5,
  [OperationTypeNode.SUBSCRIPTION]: 1,
}
const costMax = 500
// Maximum rows of all lists of an answer together; a row within a row counts each time. The price cannot bound them, because it
// counts the work of brokers, which rows of one account share. This many rows are 3 MB, whose JSON takes 20 ms in one piece.
const rowsMax = 5_000

/** The measure of a selection, its fragments included. */
interface Measure {
  depth: number
  aliases: number
  directives: number
  fields: number
  cost: number
  /** The terms that the variables add to the cost. */
  terms: Term[]
  /** Whether it has a list of rows. */
  hasRows: boolean
  /** Whether lists stand in lists. */
  nests: boolean
}

/** The value of a variable, or how many it holds. */
interface Term {
  variable: string
  kind: 'number' | 'length'
  /** The value if the variable is absent. */
  byDefault: number
}

const nothing: Measure = {
  depth: 0,
  aliases: 0,
  directives: 0,
  fields: 0,
  cost: 0,
  terms: [],
  hasRows: false,
  nests: false,
}
// Beyond all limits, and far from where numbers lose count.
const countMax = 1_000_000
const termsMax = 1_000

/** Throws a GraphQLError if the text is too long to be parsed. */
export function checkText(text: string): void {
  if (text.length <= documentCharactersMax) return
  throw createLimitError(
    `The document has more than ${documentCharactersMax} characters: split it, or send fewer fields.`,
  )
}

/** Parses `text`. Throws GraphQLError: QUERY_TOO_COMPLEX for more than `tokensMax` tokens, a syntax error otherwise. */
export function parseWithin(text: string | Source, options: ParseOptions = {}): DocumentNode {
  try {
    return parse(text, { ...options, maxTokens: tokensMax })
  } catch (error) {
    // graphql-js tells this limit only by its message.
    if (!(error instanceof GraphQLError) || !/contains more tha[nt] \d+ tokens/.test(error.message)) throw error
    throw createLimitError(`The document has more than ${tokensMax} tokens: split it, or send fewer fields.`)
  }
}

/**
 * Returns what exceeds a limit in the shape of the operations. Must be called before validation, which compares fields with
 * fields and takes ten times as long for a document that is refused anyway.
 */
export function findShapeErrors(document: DocumentNode): GraphQLError[] {
  return document.definitions.flatMap((operation) => {
    if (operation.kind !== Kind.OPERATION_DEFINITION) return []
    const { depth, aliases, directives, fields } = measure(document, operation)
    const rootMax = rootFieldsMax[operation.operation]
    const limits: [name: string, found: number, max: number][] = [
      ['levels of fields', depth, depthMax],
      ['aliases', aliases, aliasesMax],
      ['directives', directives, directivesMax],
      [`root fields of a ${operation.operation}`, fields, rootMax],
    ]
    return limits.flatMap(([name, found, max]) =>
      found > max ? [createLimitError(`The document has more than ${max} ${name}: split it.`, operation)] : [],
    )
  })
}

// With the parsed document, which lives as long as its text is cached.
const prices = new WeakMap<OperationDefinitionNode, Pick<Measure, 'cost' | 'terms' | 'nests'>>()

/** Throws a GraphQLError for an operation whose price or rows, with these variables, are above the limit. */
export function checkCost(
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: Readonly<Record<string, unknown>>,
): void {
  let price = prices.get(operation)
  if (price === undefined) prices.set(operation, (price = measure(document, operation)))
  let { cost } = price
  for (const { variable, kind, byDefault } of price.terms) {
    const value = Object.hasOwn(variables, variable) ? variables[variable] : undefined
    // A value that is not a list counts as a list of one.
    if (kind === 'length') cost += value === undefined ? byDefault : Array.isArray(value) ? value.length : 1
    else cost += typeof value === 'number' && value > 0 ? value : byDefault
  }
  // Few documents have lists in lists, and only those are checked with each request.
  if (cost <= costMax && price.nests && countRows(document, operation, variables) > rowsMax) {
    throw createLimitError(
      `This operation asks for more than ${rowsMax} rows, those of lists within lists counted each time: ask for fewer.`,
      operation,
    )
  }
  if (cost <= costMax) return
  const message =
    `This operation costs ${Math.min(cost, countMax)}, and ${costMax} is the most: an order and a page cost 10, each row of ` +
    'a page and each id 1, a write 50. Ask for fewer rows, or in several requests.'
  throw createLimitError(message, operation)
}

function measure(document: DocumentNode, operation: OperationDefinitionNode): Measure {
  const fragments = findFragments(document)
  // Each once: a ladder of them would otherwise be climbed as often as it has ways.
  const measured = new Map<string, Measure>()
  const found = measureSelections(operation.selectionSet, fragments, measured)
  // The variables come as they were sent: where one is left out, what the operation says instead is not among them.
  const defaults = findDefaults(operation)
  const terms = found.terms.map((term) => ({ ...term, byDefault: countDefault(term, defaults.get(term.variable)) }))
  return { ...found, terms, directives: found.directives + (operation.directives?.length ?? 0) }
}

function findFragments({ definitions }: DocumentNode): Map<string, FragmentDefinitionNode> {
  const fragments = definitions.filter((definition) => definition.kind === Kind.FRAGMENT_DEFINITION)
  return new Map(fragments.map((fragment) => [fragment.name.value, fragment]))
}

function findDefaults({ variableDefinitions }: OperationDefinitionNode): Map<string, ConstValueNode | undefined> {
  return new Map(variableDefinitions?.map(({ variable, defaultValue }) => [variable.name.value, defaultValue]))
}

/** Returns the most rows that the answer to a valid operation can have, up to `countMax`. */
function countRows(
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: Readonly<Record<string, unknown>>,
): number {
  const fragments = findFragments(document)
  const defaults = findDefaults(operation)
  const counted = new Map<string, number>()

  function countIn(selectionSet: SelectionSetNode | undefined): number {
    let rows = 0
    for (const selection of selectionSet?.selections ?? []) {
      if (selection.kind === Kind.FRAGMENT_SPREAD) {
        const name = selection.name.value
        const found = counted.get(name) ?? countIn(fragments.get(name)?.selectionSet)
        counted.set(name, found)
        rows += found
      } else if (selection.kind === Kind.FIELD && rowsOf(selection.name.value) !== null) {
        rows += countOf(selection) * (1 + countIn(selection.selectionSet))
      } else rows += countIn(selection.selectionSet)
    }
    return Math.min(countMax, rows)
  }

  function countOf({ name: { value: field }, arguments: given }: FieldNode): number {
    const rows = rowsOf(field)
    const argument = given?.find(({ name: { value } }) => value === rows?.argument)?.value
    const name = argument?.kind === Kind.VARIABLE ? argument.name.value : null
    const sent = name !== null && Object.hasOwn(variables, name) ? variables[name] : undefined
    if (Array.isArray(sent)) return sent.length
    if (typeof sent === 'number') return sent > 0 ? sent : 0
    const node = name === null ? argument : sent === undefined ? defaults.get(name) : undefined
    if (node?.kind === Kind.LIST) return node.values.length
    if (node?.kind === Kind.INT) return toCount(node.value)
    return rows?.byDefault ?? 1
  }

  return countIn(operation.selectionSet)
}

function countDefault({ kind, byDefault }: Term, value: ConstValueNode | undefined): number {
  if (value === undefined) return byDefault
  if (kind === 'length') return value.kind === Kind.LIST ? value.values.length : 1
  return value.kind === Kind.INT && Number(value.value) > 0 ? toCount(value.value) : byDefault
}

function measureSelections(
  selectionSet: SelectionSetNode | undefined,
  fragments: ReadonlyMap<string, FragmentDefinitionNode>,
  measured: Map<string, Measure>,
): Measure {
  let total = nothing
  for (const selection of selectionSet?.selections ?? []) {
    const directives = selection.directives?.length ?? 0
    if (selection.kind === Kind.FIELD) {
      const inner = measureSelections(selection.selectionSet, fragments, measured)
      const name = selection.name.value
      const { cost, terms } = priceField(name, selection.arguments ?? [])
      total = add(total, {
        // Introspection may go deeper, as GraphiQL's own document does, but brings no other fields along.
        depth: name === '__schema' || name === '__type' ? 1 : inner.depth + 1,
        aliases: inner.aliases + (selection.alias === undefined ? 0 : 1),
        directives: inner.directives + directives,
        fields: 1,
        cost: inner.cost + cost,
        terms: [...inner.terms, ...terms],
        hasRows: inner.hasRows || rowsOf(name) !== null,
        nests: inner.nests || (inner.hasRows && rowsOf(name) !== null),
      })
    } else {
      const inner =
        selection.kind === Kind.INLINE_FRAGMENT
          ? measureSelections(selection.selectionSet, fragments, measured)
          : measureFragment(selection.name.value, fragments, measured)
      total = add(total, { ...inner, directives: inner.directives + directives })
    }
  }
  return total
}

function measureFragment(
  name: string,
  fragments: ReadonlyMap<string, FragmentDefinitionNode>,
  measured: Map<string, Measure>,
): Measure {
  const known = measured.get(name)
  if (known !== undefined) return known
  // A fragment that spreads itself, and one that is not there, are for the rules that know them.
  measured.set(name, nothing)
  const found = measureSelections(fragments.get(name)?.selectionSet, fragments, measured)
  measured.set(name, found)
  return found
}

function add(a: Measure, b: Measure): Measure {
  const sum = (left: number, right: number): number => Math.min(countMax, left + right)
  return {
    depth: Math.max(a.depth, b.depth),
    aliases: sum(a.aliases, b.aliases),
    directives: sum(a.directives, b.directives),
    fields: sum(a.fields, b.fields),
    cost: sum(a.cost, b.cost),
    // More of them than a document has fields come of fragments that are used again and again.
    terms: a.terms.length + b.terms.length > termsMax ? a.terms : [...a.terms, ...b.terms],
    hasRows: a.hasRows || b.hasRows,
    nests: a.nests || b.nests,
  }
}

function priceField(name: string, given: readonly ArgumentNode[]): Pick<Measure, 'cost' | 'terms'> {
  const { cost, rows } = readPrices().get(name) ?? { cost: 0, rows: null }
  // The price of a reference does not count its representations, because routers send as many as the query needs.
  if (rows === null || name === '_entities') return { cost, terms: [] }
  const value = given.find(({ name: { value: argument } }) => argument === rows.argument)?.value
  const isList = rows.argument === 'ids'
  if (value?.kind === Kind.VARIABLE) {
    const kind = isList ? 'length' : 'number'
    return { cost, terms: [{ variable: value.name.value, kind, byDefault: isList ? 0 : rows.byDefault }] }
  }
  if (value?.kind === Kind.LIST) return { cost: cost + value.values.length, terms: [] }
  return { cost: cost + (value?.kind === Kind.INT ? toCount(value.value) : rows.byDefault), terms: [] }
}

/** Returns the rows of a field; null if it returns no rows that count. */
function rowsOf(name: string): FieldPrice['rows'] {
  return readPrices().get(name)?.rows ?? null
}

function toCount(digits: string): number {
  const value = Number(digits)
  return value > 0 ? Math.min(value, countMax) : 0
}

function createLimitError(message: string, node?: OperationDefinitionNode): GraphQLError {
  return new GraphQLError(message, { extensions: { code: 'QUERY_TOO_COMPLEX' }, ...(node && { nodes: [node] }) })
}
