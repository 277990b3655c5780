// What a document may cost before any resolver runs, by every way of making it cost more than it looks.

import { getOperationAST, parse } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkCost } from '../../src/server/queryLimits.ts'
import { startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

let harness: Harness
let closed: Harness

beforeAll(async () => {
  harness = await startHarness()
  closed = await startHarness({ INTROSPECTION: 'off', GRAPHIQL: 'off' })
})
afterAll(() => Promise.all([harness.close(), closed.close()]))

/** Refused before a resolver ran, with this code and a word of why; asks no broker. */
async function expectRefused(document: string, code: string, message: RegExp, variables: object = {}): Promise<void> {
  await closed.clearCalls()
  const { data, errors } = await closed.run(document, variables)
  expect(data).toBeUndefined()
  expect(errors?.map(({ extensions }) => extensions['code'])).toContain(code)
  expect(errors?.map((error) => error.message).join('\n')).toMatch(message)
  expect(errors?.length).toBeLessThanOrEqual(10)
  expect(await closed.calls()).toEqual([])
}

/** An order, its account, that one's orders and so on: so many levels below the root field. */
function toDeep(levels: number, end = 'id'): string {
  const names = Array.from({ length: levels - 2 }, (_, index) => ['account', 'orders', 'nodes'][index % 3])
  return `{ order(id: "x") ${names.map((name) => `{ ${name} `).join('')}{ ${end} }${' }'.repeat(names.length)} }`
}
const times = (count: number, make: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => make(index)).join(' ')

describe('the size of a document', () => {
  it('is bounded in characters, before it is parsed', async () => {
    await expectRefused(`{ __typename } #${'x'.repeat(10_000)}`, 'QUERY_TOO_COMPLEX', /10000 characters/)
    expect((await closed.run(`{ __typename } #${'x'.repeat(9_900)}`)).errors).toBeUndefined()
  })

  it.each([1_001, 3_000])('F02 %i tokens are refused while they are parsed', async (tokens) => {
    await expectRefused(`{ ${times(tokens - 2, () => 'a')} }`, 'QUERY_TOO_COMPLEX', /1000 tokens/)
  })

  it('F01 a depth of thousands is refused, and is no bug', async () => {
    await expectRefused(`{ ${'a{'.repeat(4_900)}`, 'QUERY_TOO_COMPLEX', /1000 tokens/)
  })
})

describe('the shape of a document', () => {
  it('is bounded in depth, fragments included', async () => {
    await expectRefused(toDeep(9, '__typename'), 'QUERY_TOO_COMPLEX', /more than 8 levels of fields/)
    await expectRefused(
      `${toDeep(5, '...A')} fragment A on Order { account { ...B } } fragment B on TradingAccount { orders { nodes { account { id } } } }`,
      'QUERY_TOO_COMPLEX',
      /more than 8 levels of fields/,
    )
    expect((await closed.run(toDeep(8, '__typename'))).errors).toBeUndefined()
  })

  it('F04 is bounded in aliases and in root fields', async () => {
    await expectRefused(
      `{ ${times(100, (index) => `a${index}: __typename`)} }`,
      'QUERY_TOO_COMPLEX',
      /more than 30 aliases/,
    )
    await expectRefused(
      `{ order(id: "x") { ${times(31, (index) => `a${index}: id`)} } }`,
      'QUERY_TOO_COMPLEX',
      /more than 30 aliases/,
    )
    await expectRefused(
      `{ ${times(31, () => '__typename')} }`,
      'QUERY_TOO_COMPLEX',
      /more than 30 root fields of a query/,
    )
    const cancels = times(6, (index) => `a${index}: cancelOrder(input: { orderId: "x" }) { outcome }`)
    await expectRefused(`mutation { ${cancels} }`, 'QUERY_TOO_COMPLEX', /more than 5 root fields of a mutation/)
    await expectRefused(
      `mutation { ...A ...B } fragment A on Mutation { ${times(3, (index) => `a${index}: __typename`)} } fragment B on Mutation { ${times(3, (index) => `b${index}: __typename`)} }`,
      'QUERY_TOO_COMPLEX',
      /more than 5 root fields of a mutation/,
    )
  })

  it('F09 is bounded in directives, and unknown ones are refused', async () => {
    await expectRefused(
      `{ ${times(11, (index) => `a${index}: __typename @skip(if: false)`)} }`,
      'QUERY_TOO_COMPLEX',
      /more than 10 directives/,
    )
    await expectRefused(
      `{ __typename ${times(100, () => '@skip(if: false)')} }`,
      'QUERY_TOO_COMPLEX',
      /more than 10 directives/,
    )
    await expectRefused('{ __typename @skip(if: false) @skip(if: false) }', 'GRAPHQL_VALIDATION_FAILED', /@skip/)
    await expectRefused('{ __typename @unheard }', 'GRAPHQL_VALIDATION_FAILED', /@unheard/)
  })

  it('F05 circular and missing fragments are named', async () => {
    await expectRefused(
      '{ ...A } fragment A on Query { ...A }',
      'GRAPHQL_VALIDATION_FAILED',
      /spread fragment "A" within itself/,
    )
    await expectRefused(
      '{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }',
      'GRAPHQL_VALIDATION_FAILED',
      /within itself/,
    )
    await expectRefused('{ ...Nobody }', 'GRAPHQL_VALIDATION_FAILED', /Unknown fragment "Nobody"/)
  })

  it('F06 a ladder of fragments is measured once a rung, and refused', async () => {
    const rungs = times(
      40,
      (index) => `fragment F${index} on Order { a${index}: id ...F${index + 1} ...F${index + 1} }`,
    )
    const ladder = `{ order(id: "x") { ...F0 } } ${rungs} fragment F40 on Order { id }`
    await expectRefused(ladder, 'QUERY_TOO_COMPLEX', /more than 30 aliases/)
  })

  it('GraphiQL’s introspection passes where introspection is on, deep as it is', async () => {
    const { getIntrospectionQuery } = await import('graphql')
    expect((await harness.run(getIntrospectionQuery())).errors).toBeUndefined()
    await expectRefused(getIntrospectionQuery(), 'GRAPHQL_VALIDATION_FAILED', /introspection/)
  })

  it('introspection lifts the limit of depth of no other field', async () => {
    const deep = toDeep(9, '__typename').slice(1)
    for (const document of [
      `{ __schema { queryType { name } } ${deep}`,
      `{ ...S ${deep} fragment S on Query { __type(name: "Order") { name } }`,
    ]) {
      const { data, errors } = await harness.run(document)
      expect(data).toBeUndefined()
      expect(errors?.map(({ message }) => message).join()).toMatch(/more than 8 levels of fields/)
    }
  })
})

describe('the price of an operation', () => {
  const price = (document: string, variables: object = {}): string => {
    const parsed = parse(document)
    const operation = getOperationAST(parsed)
    if (!operation) throw new Error('no operation')
    try {
      checkCost(parsed, operation, variables as Record<string, unknown>)
      return 'taken'
    } catch (error) {
      return /costs (\d+)/.exec(String(error))?.[1] ?? String(error)
    }
  }
  const page = (name: string, first: string) => `${name}: orders(accountId: "x", first: ${first}) { isComplete }`

  it.each([
    ['five pages of ninety', `{ ${times(5, (index) => page(`p${index}`, '90'))} }`, {}, 'taken'],
    ['five pages of ninety-one', `{ ${times(5, (index) => page(`p${index}`, '91'))} }`, {}, '505'],
    [
      'nine pages of fifty, which is the default',
      `{ ${times(9, (index) => `p${index}: orders(accountId: "x") { isComplete }`)} }`,
      {},
      '540',
    ],
    [
      'five pages as a variable asks',
      `query ($n: Int) { ${times(5, (index) => page(`p${index}`, '$n'))} }`,
      { n: 91 },
      '505',
    ],
    [
      'five pages of a variable that is left out',
      `query ($n: Int) { ${times(5, (index) => page(`p${index}`, '$n'))} }`,
      {},
      'taken',
    ],
    ['fifty orders', `{ ${times(50, (index) => `o${index}: order(id: "x") { id }`)} }`, {}, 'taken'],
    ['fifty-one orders', `{ ${times(51, (index) => `o${index}: order(id: "x") { id }`)} }`, {}, '510'],
    [
      'ids as a variable has them',
      'query ($ids: [ID!]!) { a: ordersByIds(ids: $ids) { id } b: ordersByIds(ids: $ids) { id } }',
      { ids: Array(241).fill('x') },
      '502',
    ],
    [
      'five pages of a variable that says itself what holds where it is left out',
      `query ($n: Int = 91) { ${times(5, (index) => page(`p${index}`, '$n'))} }`,
      {},
      '505',
    ],
    [
      'ids that stand in the variable itself',
      `query ($ids: [ID!]! = [${times(100, () => '"x"')}]) { ${times(5, (index) => `o${index}: ordersByIds(ids: $ids) { id }`)} }`,
      {},
      '550',
    ],
    [
      'an id that is no list and is taken for one',
      `query ($ids: [ID!]!) { ${times(46, (index) => `o${index}: ordersByIds(ids: $ids) { id }`)} }`,
      { ids: 'x' },
      '506',
    ],
    [
      'a fragment as often as it is spread',
      `{ a: tradingAccounts { ...P } b: tradingAccounts { ...P } c: tradingAccounts { ...P } d: tradingAccounts { ...P } e: tradingAccounts { ...P } } fragment P on TradingAccount { orders(first: 90) { isComplete } }`,
      {},
      '550',
    ],
    [
      'a lie about the number of rows',
      `{ ${times(5, (index) => page(`p${index}`, '-1000'))} ${times(5, (index) => page(`q${index}`, '100'))} }`,
      {},
      '600',
    ],
    [
      'a variable that lies',
      `query ($n: Int) { ${page('a', '$n')} ${times(5, (index) => page(`q${index}`, '90'))} }`,
      { n: -1000 },
      '560',
    ],
  ])('%s: %#', (_, document, variables, expected) => {
    expect(price(document, variables)).toBe(expected)
  })

  it('is taken with the variables of each request, though the document is kept', async () => {
    const document = `query ($n: Int) { ${times(5, (index) => page(`p${index}`, '$n').replace('"x"', `"${harness.accountId}"`))} }`
    expect((await harness.run(document, { n: 2 })).errors).toBeUndefined()
    const { errors } = await harness.run(document, { n: 100 })
    expect(errors).toMatchObject([
      { message: expect.stringContaining('costs 550'), extensions: { code: 'QUERY_TOO_COMPLEX' } },
    ])
    expect((await harness.run(document, { n: 2 })).errors).toBeUndefined()
  })

  it('counts what a gateway asks for too', async () => {
    const pages = `query ($r: [_Any!]!) { _entities(representations: $r) { ... on TradingAccount { ${times(5, (index) => `p${index}: orders(first: 100) { isComplete }`)} } } }`
    await expectRefused(pages, 'QUERY_TOO_COMPLEX', /costs 560/, { r: [{ __typename: 'TradingAccount', id: 'x' }] })
  })
})

describe('the rows of an answer', () => {
  const thrice = times(3, (index) => `p${index}: orders(first: 100) { nodes { id } }`)
  const accounts = (count: number) => Array.from({ length: count }, () => ({ __typename: 'TradingAccount', id: 'x' }))

  it.each([
    ['a page for each row of a page', `{ orders(accountId: "x", first: 100) { nodes { account { ${thrice} } } } }`, {}],
    [
      'a page for each id',
      `query ($ids: [ID!]!) { ordersByIds(ids: $ids) { ...R } } fragment R on Order { account { ${thrice} } }`,
      { ids: Array(100).fill('x') },
    ],
    [
      'pages for each entity',
      `query ($r: [_Any!]!) { _entities(representations: $r) { ... on TradingAccount { ${thrice} } } }`,
      { r: accounts(1_000) },
    ],
    [
      'rows that stand in variables',
      'query ($n: Int = 100, $r: [_Any!]!) { _entities(representations: $r) { ... on TradingAccount { orders(first: $n) { nodes { id } } } } }',
      { r: accounts(1_000) },
    ],
  ])('are bounded where lists stand in lists: %s', async (_, document, variables) => {
    await expectRefused(document, 'QUERY_TOO_COMPLEX', /more than 5000 rows/, variables)
  })

  it('leave room for what a router asks for', async () => {
    const one = 'query ($r: [_Any!]!) { _entities(representations: $r) { ... on TradingAccount { id } } }'
    expect((await harness.run(one, { r: accounts(1_000) })).errors).toBeUndefined()
    const pages =
      'query ($r: [_Any!]!) { _entities(representations: $r) { ... on TradingAccount { orders(first: 100) { nodes { id } } } } }'
    const r = accounts(49).map((reference) => ({ ...reference, id: harness.accountId }))
    expect((await harness.run(pages, { r })).errors).toBeUndefined()
  })

  it('are completed a few hundred in a turn of the event loop, with other requests in between', async () => {
    const pages =
      'query ($r: [_Any!]!) { _entities(representations: $r) { ... on TradingAccount { orders(first: 99) { nodes { id status } } } } }'
    const r = accounts(50).map((reference) => ({ ...reference, id: harness.accountId }))
    const progress = { isDone: false }
    const large = harness.run(pages, { r }).finally(() => (progress.isDone = true))
    let answered = 0
    // Asks again as soon as it is answered, for as long as the large answer takes.
    while (!progress.isDone) {
      await (await fetch(new URL('/health', harness.url))).text()
      if (!progress.isDone) answered++
    }
    expect((await large).errors).toBeUndefined()
    // 4,950 rows are at least 12 turns.
    expect(answered).toBeGreaterThanOrEqual(5)
  })
})

describe('the messages about a bad document', () => {
  it('F25 is at most ten errors, in few words', async () => {
    const { errors } = await closed.run(`{ ${times(300, (index) => `unknown${index}`)} }`)
    expect(errors?.length).toBeLessThanOrEqual(10)
    expect(JSON.stringify(errors).length).toBeLessThan(32_000)
  })

  it.each([
    ['a field', '{ ordr(id: "x") { id } }', {}],
    ['an argument', '{ order(idd: "x") { id } }', {}],
    ['a value', '{ orders(accountId: "x", filter: { side: BYU }) { isComplete } }', {}],
    ['a field of an input', '{ orders(accountId: "x", filter: { sid: BUY }) { isComplete } }', {}],
    [
      'a value in the variables',
      'query ($f: OrderFilter) { orders(accountId: "x", filter: $f) { isComplete } }',
      { f: { side: 'BYU' } },
    ],
    [
      'a field in the variables',
      'query ($f: OrderFilter) { orders(accountId: "x", filter: $f) { isComplete } }',
      { f: { sid: 'BUY' } },
    ],
    ['a type', 'query ($f: OrderFiltr) { orders(accountId: "x", filter: $f) { isComplete } }', {}],
    ['a directive', '{ __typename @skp(if: true) }', {}],
    ['a fragment', '{ ...Abc } fragment Abd on Query { __typename }', {}],
  ])('F10 no name is suggested where introspection is off: %s', async (_, document, variables) => {
    const { errors } = await closed.run(document, variables)
    expect(errors?.length).toBeGreaterThan(0)
    expect(JSON.stringify(errors)).not.toMatch(/Did you mean|BUY_TO_COVER|"OrderFilter"\?/)
  })

  it('F10 names are suggested over the sandbox, where GraphiQL shows them anyway', async () => {
    const { errors } = await harness.run('{ ordr(id: "x") { id } }')
    expect(errors?.[0]?.message).toContain('Did you mean "order"')
  })

  it('all errors of an answer with data are reported', async () => {
    const ids = Array.from({ length: 20 }, (_, index) => `../${index}`)
    const { data, errors } = await closed.run('query ($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }', { ids })
    expect(data.ordersByIds).toEqual(ids.map(() => null))
    expect(errors).toHaveLength(20)
  })
})
