// Documents, texts and variables that nobody thought of: drawn from our own schema, from valid documents by random edits,
// and from all that JSON can say. Each answer is lawful, no request is a bug, what was refused reached no broker, and no
// two orders stand under one key at the end.

import * as fc from 'fast-check'
import { getNamedType, isCompositeType, isEnumType, isInputObjectType, isListType, isNonNullType } from 'graphql'
import type { GraphQLCompositeType, GraphQLField, GraphQLInputType } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSchema } from '../../src/graph/schema.ts'
import { expectLawful, limitBuy, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

const schema = createSchema()
// The same cases each time.
const seed = 20_260_310

let harness: Harness
/** What ids of accounts, orders and placements are drawn from: those that there are, and a few that there cannot be. */
let ids: Readonly<Record<string, readonly string[]>> = {}

beforeAll(async () => {
  harness = await startHarness()
  const { accounts, aries, demo } = harness.sandbox
  const ofAries = aries.accounts.map((id) => `aries:${id}`)
  const accountIds = [...accounts, ...ofAries]
  const orderIds = [demo.filledOrderId, demo.openOrderId, `${ofAries[0]}:${aries.demo.openOrderId}`]
  const keys = ['fuzz-key-0001', 'fuzz-key-0002', 'fuzz-key-0003']
  const others = ['ord_nobody', '', '..', 'a/b', '\u202e', 'x'.repeat(200)]
  ids = { accountId: accountIds, orderId: orderIds, clientOrderId: keys, id: [...accountIds, ...orderIds, ...others] }
})
afterAll(() => harness.close())

const idsOfAll = (): string[] => Object.values(ids).flat()

/** Sends `body` and holds what came of it against what has to be so of every request. */
async function expectSound(body: object): Promise<void> {
  await harness.clearCalls()
  const before = harness.log().length
  const response = await harness.fetch(
    new Request(harness.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }),
  )
  const { data, errors } = (await response.json()) as Pick<Answer, 'data' | 'errors'>
  expectLawful({ status: response.status, data, errors })
  const lines = harness
    .log()
    .slice(before)
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines.filter(({ level }) => level === 'error')).toEqual([])
  const told = lines.filter(({ msg }) => msg === 'operation')
  expect(told).toHaveLength(1)
  if (data !== undefined) return
  expect(told).toMatchObject([{ upstreamCalls: 0 }])
  expect((await harness.calls()).filter(({ method }) => method === 'POST')).toEqual([])
}

async function expectOneOrderPerKey(): Promise<void> {
  const { accounts, aries } = harness.sandbox
  for (const account of [...accounts, ...aries.accounts]) {
    const keys = (await harness.book(account)).flatMap((order) => order['client_order_id'] ?? [])
    expect(keys).toHaveLength(new Set(keys).size)
  }
}

// ---- drawing -----------------------------------------------------------------------------------------------------------

type Generate = fc.GeneratorValue

/** A word of an enum, which is written without quotes. */
class Word {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
  toJSON(): string {
    return this.text
  }
}

// What makes a document another one.
const pieces = [
  ...'{ } ( ) [ ] : $ @ ! ... " """ # & | , - 0 -0 .5 1e999 99999999999999999999 \\u{110000} é'.split(' '),
  ...'null true on fragment query mutation subscription extend __schema __typename'.split(' '),
  '\n',
  '\u0000',
  '\ufeff',
  '\u2028',
  '\ud800',
]

function createDraw(generate: Generate) {
  const below = (count: number): number => generate(fc.nat, count - 1)
  const chance = (percent: number): boolean => below(100) < percent
  // Else nearly all would be refused for a first mistake, and never show what comes after one.
  const isCareful = chance(60)
  const slips = (percent: number): boolean => !isCareful && chance(percent)
  function pick<T>(list: readonly T[]): T {
    const drawn = list[below(list.length)]
    if (drawn === undefined) throw new Error('nothing to draw from')
    return drawn
  }

  /** A value of an input type; here and there one of another. */
  function value(type: GraphQLInputType, name = 'id'): unknown {
    if (isNonNullType(type)) return value(type.ofType, name)
    if (slips(6)) return pick<unknown>([null, 1, -0.5, true, 'x', new Word('NONE'), [], {}, [[{}]], { nobody: [1] }])
    if (isListType(type)) return Array.from({ length: below(4) }, () => value(type.ofType, name))
    if (isInputObjectType(type)) {
      if (type.name === 'PlaceOrderInput' && chance(50)) return placeable()
      const fields = Object.values(type.getFields()).filter((field) => isNonNullType(field.type) || chance(30))
      const entries = fields
        .filter(() => !slips(3))
        .map((field): [string, unknown] => [field.name, value(field.type, field.name)])
      return Object.fromEntries(slips(3) ? [...entries, ['nobody', 1]] : entries)
    }
    if (isEnumType(type)) return new Word(pick(type.getValues()).name)
    switch (getNamedType(type).name) {
      case 'ID':
        return slips(10) ? below(1_000) : pick((!slips(10) && ids[name]) || idsOfAll())
      case 'Int':
        return pick(isCareful ? [1, 2, 10, 100, 101, 0, -1] : [2 ** 31, 1.5, -(2 ** 31), 1e21])
      case 'Boolean':
        return chance(50)
      case 'Decimal':
        return pick<unknown>(
          isCareful ? ['1', '10.00', '0.000000001', 5, '0'] : ['-1', 1.5, '1e9', '9'.repeat(40), '٣'],
        )
      case 'DateTime':
        return pick(isCareful ? ['2026-03-09T15:02:11Z', '2099-01-01T00:00:00+14:00'] : ['2026-02-30T00:00:00Z', 'now'])
      case '_Any':
        return { __typename: pick(['Order', 'TradingAccount', 'Asset', 'PageInfo', 'Nobody']), id: pick(idsOfAll()) }
      default:
        return pick(isCareful ? ['AAPL', 'KO'] : ['aapl', '', '\u0000', 'x'.repeat(300)])
    }
  }

  /** An order that can be placed, under one of a few keys: most of them for another order than before. */
  function placeable(): object {
    const words = { side: new Word('BUY'), type: new Word('LIMIT'), timeInForce: new Word(pick(['GTC', 'DAY'])) }
    const clientOrderId = pick(ids['clientOrderId'] ?? [])
    return { ...limitBuy(harness), ...words, clientOrderId, quantity: pick(['1', '2']) }
  }

  /** A document of our schema with its variables; most are valid but for what they are about. */
  function request(): object {
    const variables: Record<string, unknown> = {}
    const declared: string[] = []
    const fragments: string[] = []
    let aliases = 0
    const word = slips(3) ? 'subscription' : chance(65) ? 'query' : 'mutation'
    const root = (word === 'mutation' ? schema.getMutationType() : schema.getQueryType()) ?? fail()

    function literal(drawn: unknown): string {
      if (drawn instanceof Word) return drawn.text
      if (Array.isArray(drawn)) return `[${drawn.map(literal).join(' ')}]`
      if (typeof drawn !== 'object' || drawn === null) return JSON.stringify(drawn)
      return `{${Object.entries(drawn)
        .map(([name, inner]) => `${name}: ${literal(inner)}`)
        .join(' ')}}`
    }

    function argument(name: string, type: GraphQLInputType): string {
      if (!chance(30)) return literal(value(type, name))
      const variable = `v${declared.length}`
      declared.push(`$${variable}: ${slips(5) ? pick(['ID', 'Int!', '[String]', 'Order', 'Nobody']) : String(type)}`)
      if (!slips(8)) variables[variable] = value(type, name)
      return `$${variable}`
    }

    function directives(): string {
      if (slips(3)) return pick([' @skip(if: 1)', ' @nobody', ' @include'])
      return chance(5) ? pick([' @include(if: true)', ' @skip(if: false)']) : ''
    }

    function field({ name, type, args }: GraphQLField<unknown, unknown>, depth: number): string {
      // Fields of one name and other arguments cannot stand beside each other.
      const alias = slips(10) ? `a${below(3)}: ` : args.length > 0 ? `a${aliases++}: ` : ''
      const given = args
        .filter(({ type: argumentType }) => (isNonNullType(argumentType) ? !slips(2) : chance(35)))
        .map((each) => `${each.name}: ${argument(each.name, each.type)}`)
      if (slips(1)) given.push('nobody: 1')
      const named = getNamedType(type)
      const inner = isCompositeType(named) && !slips(1) ? ` ${selections(named, depth + 1)}` : ''
      return `${alias}${name}${given.length > 0 ? `(${given.join(' ')})` : ''}${directives()}${inner}`
    }

    function selection(type: GraphQLCompositeType, depth: number): string {
      const fields = 'getFields' in type ? Object.values(type.getFields()) : []
      const leaves = fields.filter((each) => !isCompositeType(getNamedType(each.type)))
      const open = depth < 9 ? fields : leaves
      if (open.length === 0 || chance(6)) return slips(20) ? 'nobody' : '__typename'
      if (depth < 9 && chance(12)) {
        const on = !slips(20) ? type : (schema.getType(pick(['Order', 'PageInfo', 'OrderPlaced', 'Query'])) ?? type)
        const body = selections(isCompositeType(on) ? on : type, depth)
        if (chance(50)) return `... on ${on.name}${directives()} ${body}`
        const own = fragments.push(`fragment F${fragments.length} on ${on.name} ${body}`) - 1
        return `...F${slips(10) ? own + 1 : own}`
      }
      return field(pick(open), depth)
    }

    function selections(type: GraphQLCompositeType, depth: number): string {
      return `{ ${Array.from({ length: 1 + below(3) }, () => selection(type, depth)).join(' ')} }`
    }

    const body = selections(root, 1)
    const head = declared.length > 0 ? `(${declared.join(' ')})` : ''
    const others = slips(3) ? ' query Other { __typename }' : ''
    return { query: `${word} Drawn${head} ${body} ${fragments.join(' ')}${others}`, variables, operationName: 'Drawn' }
  }

  /** `text` with a few pieces of it taken out, put in twice, or replaced. */
  function edited(text: string): string {
    let result = text
    for (let edits = chance(60) ? 1 : 2 + below(3); edits > 0; edits--) {
      // A few characters, or from one word to another.
      const words = [...result.matchAll(/\w+/g)]
      const { index: at = 0, 0: found = '' } = chance(50) ? pick(words) : { index: below(result.length + 1), 0: '' }
      const end = Math.min(result.length, at + (found === '' ? below(6) : found.length))
      const piece = chance(60) ? pick(['', pick(words)[0], result.slice(at, end).repeat(2)]) : pick(pieces)
      result = result.slice(0, at) + piece + result.slice(end)
    }
    return result
  }

  /** `sample` with some of its parts replaced by whatever JSON can say. */
  function distorted(sample: unknown): unknown {
    if (chance(5)) return generate(fc.jsonValue, { maxDepth: 3 })
    if (Array.isArray(sample)) return sample.map(distorted)
    if (typeof sample !== 'object' || sample === null) return sample
    const entries = Object.entries(sample).map(([name, inner]): [string, unknown] => [name, distorted(inner)])
    if (slips(8)) entries.push([pick(['__proto__', 'constructor', 'nobody', '']), generate(fc.jsonValue)])
    return Object.fromEntries(entries)
  }

  return { pick, request, edited, distorted }
}

function fail(): never {
  throw new Error('the schema has no such type')
}

async function expectAlways(runs: number, make: (draw: ReturnType<typeof createDraw>) => object): Promise<void> {
  const property = fc.asyncProperty(fc.gen(), async (generate) => await expectSound(make(createDraw(generate))))
  await fc.assert(property, { seed, numRuns: runs })
  await expectOneOrderPerKey()
}

// ---- valid ones, to begin with -------------------------------------------------------------------------------------------

const place = `mutation Place($input: PlaceOrderInput!) {
  placeOrder(input: $input) { __typename outcome message orderId order { id status account { id } } ... on OrderInvalid { problems { field code } } }
}`
const cancel = `mutation Cancel($input: CancelOrderInput!) {
  cancelOrder(input: $input) { outcome order { id status } ... on CancelRefused { refusalCode } }
}`
const list = `query List($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {
  orders(accountId: $accountId, filter: $filter, first: $first, after: $after) { nodes { id symbol } pageInfo { endCursor } }
}`
const read = `query Read($id: ID!, $accountId: ID!, $ids: [ID!]!) {
  order(id: $id, accountId: $accountId) { ...Shown } ordersByIds(ids: $ids) { ...Shown } tradingAccount(id: $accountId) { id }
} fragment Shown on Order { id status legs @skip(if: false) { symbol } }`
const entities = `query Entities($representations: [_Any!]!) {
  _entities(representations: $representations) { __typename ... on Order { id status } ... on TradingAccount { orders(first: 2) { isComplete } } }
}`
const placement = `query Placement($accountId: ID!, $key: ID!) {
  placement(accountId: $accountId, clientOrderId: $key) { state result { outcome } }
}`

function listValid(): { query: string; variables: object }[] {
  const { accountId, sandbox } = harness
  const { openOrderId, filledOrderId } = sandbox.demo
  const filter = { statuses: ['FILLED'], symbol: 'AAPL', side: 'BUY', submittedAfter: '2026-03-09T15:02:11Z' }
  const representations = [
    { __typename: 'Order', id: openOrderId, account: { id: accountId } },
    { __typename: 'TradingAccount', id: accountId },
  ]
  return [
    {
      query: place,
      variables: { input: limitBuy(harness, { clientOrderId: 'fuzz-key-0004', sendBy: '2099-01-01T00:00:00Z' }) },
    },
    { query: cancel, variables: { input: { accountId, orderId: openOrderId } } },
    { query: cancel, variables: { input: { accountId, clientOrderId: 'fuzz-key-0004' } } },
    { query: list, variables: { accountId, filter, first: 3, after: null } },
    { query: read, variables: { id: filledOrderId, accountId, ids: [filledOrderId, openOrderId] } },
    { query: entities, variables: { representations } },
    { query: placement, variables: { accountId, key: 'fuzz-key-0004' } },
  ]
}

describe('any document', () => {
  it('begins with what is fine', async () => {
    for (const { query, variables } of listValid()) {
      const { errors } = await harness.run(query, variables)
      expect(errors).toBeUndefined()
    }
  })

  it('is answered lawfully: documents drawn from the schema', async () => {
    await expectAlways(200, ({ request }) => request())
  })

  it('is answered lawfully: valid documents with random edits', async () => {
    await expectAlways(200, ({ pick, edited }) => {
      const { query, variables } = pick(listValid())
      return { query: edited(query), variables }
    })
  })

  it('is answered lawfully: variables of any JSON', async () => {
    await expectAlways(200, ({ pick, distorted }) => {
      const { query, variables } = pick(listValid())
      return { query, variables: distorted(variables) }
    })
  })

  it('is answered lawfully: requests of any JSON', async () => {
    await expectAlways(60, ({ pick, distorted }) => {
      const drawn = distorted({ ...pick(listValid()), operationName: null, extensions: {} })
      return typeof drawn === 'object' && drawn !== null ? drawn : { query: drawn }
    })
  })
})
