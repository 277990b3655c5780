// Trusted documents, as the builds of frontends write them down and as their clients name them.

import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { readConfig } from '../../src/config/config.ts'
import { checkConfig } from '../../src/cli/checkConfig.ts'
import { PlaceOrder, ReadOrder } from '../frontend/operations.ts'
import { limitBuy, startForTest, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'

// What graphql-codegen's client preset wrote for the operations in test/frontend.
const manifest = fileURLToPath(new URL('../frontend/generated/persisted-documents.json', import.meta.url))
const idOf = (document: { __meta__?: Record<string, unknown> | undefined }): string =>
  String(document.__meta__?.['hash'])
const readId = idOf(ReadOrder)

function write(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-documents-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'manifest.json'), text)
  return join(folder, 'manifest.json')
}

type Asked = Pick<Answer, 'status' | 'data' | 'errors'>

async function post({ fetch, url }: Harness, body: object, headers: Record<string, string> = {}): Promise<Asked> {
  const response = await fetch(
    new Request(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    }),
  )
  return { status: response.status, ...((await response.json()) as Pick<Answer, 'data' | 'errors'>) }
}

const codesOf = ({ errors }: Asked): unknown[] => (errors ?? []).map(({ extensions }) => extensions['code'])

describe('with only trusted documents', () => {
  let harness: Harness
  let variables: { id: string }

  beforeAll(async () => {
    harness = await startHarness({ TRUSTED_DOCUMENTS: manifest, ROUTER_SECRET: 'the-secret-of-the-router' })
    variables = { id: harness.sandbox.demo.filledOrderId }
  })
  afterAll(() => harness.close())

  const persisted = (sha256Hash: string) => ({ extensions: { persistedQuery: { version: 1, sha256Hash } } })

  it.each([
    ['documentId, as GraphQL over HTTP has it', { documentId: readId }],
    ['the hash, as graphql-codegen and urql send it', persisted(readId)],
    ['the hash alone, as Apollo sends it', persisted(readId.replace('sha256:', ''))],
    ['doc_id, as Relay sends it', { doc_id: readId, query: null }],
  ])('one is run by %s', async (_, named) => {
    const { data, errors } = await post(harness, { ...named, variables })
    expect(errors).toBeUndefined()
    expect(data.order).toMatchObject({ id: variables.id, status: 'FILLED' })
  })

  it('one is run by a GET', async () => {
    const query = new URLSearchParams({ documentId: readId, variables: JSON.stringify(variables) })
    const response = await harness.fetch(
      new Request(`${harness.url}?${query}`, { headers: { 'apollo-require-preflight': '1' } }),
    )
    expect(await response.json()).toMatchObject({ data: { order: { status: 'FILLED' } } })
  })

  it('an order is placed by one, and not by a GET', async () => {
    const input = limitBuy(harness)
    const { data } = await post(harness, { documentId: idOf(PlaceOrder), variables: { input } })
    expect(data.placeOrder.__typename).toBe('OrderPlaced')
    const query = new URLSearchParams({ documentId: idOf(PlaceOrder), variables: JSON.stringify({ input }) })
    const headers = { 'apollo-require-preflight': '1' }
    expect((await harness.fetch(new Request(`${harness.url}?${query}`, { headers }))).status).toBe(405)
  })

  it('all others are refused without a call', async () => {
    await harness.clearCalls()
    for (const query of [String(ReadOrder), '{ __typename }', '{ __schema { types { name } } }', '{ nonsense', '{']) {
      const answer = await post(harness, { query, variables })
      expect(answer.data).toBeUndefined()
      expect(answer.errors).toMatchObject([
        { message: expect.stringContaining('documentId'), extensions: { code: 'FORBIDDEN' } },
      ])
    }
    // A text beside the id of another document is not taken for that one.
    expect(codesOf(await post(harness, { query: '{ __typename }', documentId: readId }))).toEqual(['FORBIDDEN'])
    expect(await harness.calls()).toEqual([])
  })

  it('a router that shows its secret writes its own', async () => {
    const query = '{ _service { sdl } }'
    expect(codesOf(await post(harness, { query }))).toEqual(['FORBIDDEN'])
    expect(codesOf(await post(harness, { query }, { 'x-router-secret': 'another-secret-of-a-router' }))).toEqual([
      'FORBIDDEN',
    ])
    const taken = await post(harness, { query }, { 'x-router-secret': 'the-secret-of-the-router' })
    expect(taken.data._service.sdl).toContain('type Order')
  })

  it.each(['sha256:0000', '__proto__', 'constructor', 'toString', ''])('no document has the id %j', async (id) => {
    for (const named of [{ documentId: id }, persisted(id)]) {
      expect(codesOf(await post(harness, { ...named, variables }))).toEqual(['PERSISTED_QUERY_NOT_FOUND'])
    }
  })

  it.each([
    {},
    { documentId: 7 },
    { documentId: null },
    { documentId: { a: 1 } },
    { extensions: { persistedQuery: 1 } },
  ])('without an id it says what to send: %j', async (named) => {
    const { status, errors } = await post(harness, { ...named, variables })
    expect(status).toBe(400)
    expect(errors).toMatchObject([{ message: expect.stringContaining('documentId') }])
  })

  it('they are held to the limits of every document', async () => {
    const pages = Array.from({ length: 5 }, (_, index) => `p${index}: orders(accountId: "x", first: $n) { isComplete }`)
    const file = write(JSON.stringify({ pages: `query ($n: Int!) { ${pages.join(' ')} }` }))
    const limited = await startForTest({ TRUSTED_DOCUMENTS: file, TRUSTED_DOCUMENTS_MODE: 'enforce' })
    expect(codesOf(await post(limited, { documentId: 'pages', variables: { n: 100 } }))).toEqual(['QUERY_TOO_COMPLEX'])
  })
})

describe('with other documents as well', () => {
  it('a document is taken by its id or as it is, and an unknown id does not keep a text from being run', async () => {
    const harness = await startForTest({ TRUSTED_DOCUMENTS: manifest, TRUSTED_DOCUMENTS_MODE: 'allow' })
    const variables = { id: harness.sandbox.demo.filledOrderId }
    expect((await post(harness, { documentId: readId, variables })).data.order.status).toBe('FILLED')
    expect((await post(harness, { query: '{ __typename }' })).data).toEqual({ __typename: 'Query' })
    expect((await post(harness, { query: '{ __typename }', documentId: 'unknown' })).data).toBeDefined()
    expect(codesOf(await post(harness, { documentId: 'unknown' }))).toEqual(['PERSISTED_QUERY_NOT_FOUND'])
  })

  it('F21 no document is registered by sending it with its hash', async () => {
    const harness = await startForTest()
    for (let index = 0; index < 300; index++) {
      const query = `{ __typename a${index}: __typename }`
      const sha256Hash = createHash('sha256').update(query).digest('hex')
      const extensions = { persistedQuery: { version: 1, sha256Hash } }
      expect((await post(harness, { query, extensions })).data).toBeDefined()
      if (index % 100 === 0) {
        expect(codesOf(await post(harness, { extensions }))).toEqual(['PERSISTED_QUERY_NOT_SUPPORTED'])
      }
    }
  })
})

describe('a manifest', () => {
  it('is Relay’s too: its ids are what its compiler makes of a document', async () => {
    const text = 'query ReadOrderQuery(\n  $id: ID!\n) {\n  order(id: $id) {\n    id\n    status\n  }\n}\n'
    const id = createHash('md5').update(text).digest('hex')
    const harness = await startForTest({ TRUSTED_DOCUMENTS: write(JSON.stringify({ [id]: text })) })
    const variables = { id: harness.sandbox.demo.filledOrderId }
    const { data } = await post(harness, { doc_id: id, variables })
    expect(data).toEqual({ order: { id: variables.id, status: 'FILLED' } })
  })

  // As Apollo's generator writes them: `__typename` in each selection, the SHA-256 of the body as the id.
  const apolloBodies = {
    ReadOrder:
      'query ReadOrder($id: ID!) {\n  order(id: $id) {\n    ...OrderLine\n    __typename\n  }\n}\n\nfragment OrderLine on Order {\n  id\n  status\n  __typename\n}',
    PlaceOrder:
      'mutation PlaceOrder($input: PlaceOrderInput!) {\n  placeOrder(input: $input) {\n    outcome\n    __typename\n  }\n}',
  }
  const toApolloManifest = () => ({
    format: 'apollo-persisted-query-manifest',
    version: 1,
    operations: Object.entries(apolloBodies).map(([name, body]) => ({
      id: createHash('sha256').update(body).digest('hex'),
      name,
      type: body.split(' ')[0],
      body,
    })),
  })

  it("is Apollo's too, whose clients send the id as a hash, in a POST or a GET", async () => {
    const [reading, placing] = toApolloManifest().operations
    const harness = await startForTest({ TRUSTED_DOCUMENTS: write(JSON.stringify(toApolloManifest(), null, 2)) })
    const variables = { id: harness.sandbox.demo.filledOrderId }
    const order = { __typename: 'Order', id: variables.id, status: 'FILLED' }
    const toExtensions = (sha256Hash = '') => ({ persistedQuery: { version: 1, sha256Hash } })
    const named = { operationName: 'ReadOrder', variables, extensions: toExtensions(reading?.id) }
    expect((await post(harness, named)).data).toEqual({ order })
    const query = new URLSearchParams({
      operationName: 'ReadOrder',
      variables: JSON.stringify(variables),
      extensions: JSON.stringify(toExtensions(reading?.id)),
    })
    const headers = { 'apollo-require-preflight': 'true' }
    const response = await harness.fetch(new Request(`${harness.url}?${query}`, { headers }))
    expect(await response.json()).toEqual({ data: { order } })
    const input = limitBuy(harness)
    const placed = await post(harness, { variables: { input }, extensions: toExtensions(placing?.id) })
    expect(placed.data).toEqual({ placeOrder: { __typename: 'OrderPlaced', outcome: 'PLACED' } })
    // Its body as a query is not the id of it.
    expect(codesOf(await post(harness, { query: apolloBodies.ReadOrder, variables }))).toEqual(['FORBIDDEN'])
  })

  it("of Apollo's may have any ids, as its generator can make them, and a byte order mark", async () => {
    const operations = [{ id: 'orders/read@1', name: 'T', type: 'query', body: '{ __typename }', clientName: null }]
    const text = `\uFEFF${JSON.stringify({ ...toApolloManifest(), operations })}`
    const { trustedDocuments } = readConfig({ TRUSTED_DOCUMENTS: write(text) })
    expect([...(trustedDocuments?.texts ?? [])]).toEqual([['orders/read@1', '{ __typename }']])
    expect(
      readConfig({ TRUSTED_DOCUMENTS: write('{"format": "{ a: __typename }"}') }).trustedDocuments?.texts.size,
    ).toBe(1)
  })

  it.each<[what: string, change: object, problem: RegExp]>([
    ['another format', { format: 'hidden' }, /"format" is not "apollo-persisted-query-manifest"/],
    ['no format', { format: undefined }, /"format" is not/],
    ['another version', { version: 2 }, /"version" is not 1/],
    ['a version in words', { version: '1' }, /"version" is not 1/],
    ['no operations', { operations: [] }, /without "operations"/],
    ['operations by their ids', { operations: { hidden: 'hidden' } }, /without "operations"/],
    ['operations left out', { operations: undefined }, /without "operations"/],
    ['an operation without a body', { operations: [{ id: 'hidden' }] }, /operation 1 of 1 lacks an "id" or a "body"/],
    ['an operation without an id', { operations: [{ body: 'hidden' }] }, /operation 1 of 1 lacks/],
    ['an operation that is a text', { operations: ['hidden'] }, /operation 1 of 1 lacks/],
    [
      'one id for two bodies',
      { operations: ['a', 'b'].map((body) => ({ id: 'hidden', body })) },
      /operation 2 of 2 has the id of another one/,
    ],
  ])("of Apollo's with %s is a problem of the settings that says what was expected", (_, change, problem) => {
    const TRUSTED_DOCUMENTS = write(JSON.stringify({ ...toApolloManifest(), ...change }))
    expect(() => readConfig({ TRUSTED_DOCUMENTS })).toThrow(problem)
    expect(() => readConfig({ TRUSTED_DOCUMENTS })).toThrow(
      /^The settings cannot be used:\n {2}TRUSTED_DOCUMENTS names/,
    )
    expect(() => readConfig({ TRUSTED_DOCUMENTS })).not.toThrow(/hidden/)
  })

  it.each([
    ['is not there', null],
    ['is no JSON', '{"a": '],
    ['is a list', '["{ __typename }"]'],
    ['has something else than texts', '{"a": {"text": "{ __typename }"}}'],
    ['is empty', '{}'],
  ])('that %s is a problem of the settings, named with all others', async (_, text) => {
    const file = text === null ? '/nowhere/manifest.json' : write(text)
    const env = { TRUSTED_DOCUMENTS: file, PORT: 'x' }
    expect(() => readConfig(env)).toThrow(
      /PORT must be[^]*TRUSTED_DOCUMENTS (must name a JSON file|names)|TRUSTED_DOCUMENTS (must name a JSON file|names)[^]*PORT/,
    )
    expect(() => readConfig(env)).not.toThrow(file)
  })

  it('names the problem of each document at the start', async () => {
    const many = Array.from({ length: 12 }, (_, index) => [`many-${index}`, '{ unknown }'])
    const documents = {
      good: '{ __typename }',
      broken: '{ order(id: ',
      misspelt: '{ ordr(id: "x") { id } }',
      deep: `{ ${'order(id: "x") { account { '.repeat(1)}orders { nodes { account { orders { nodes { account { orders { nodes { id } } } } } } } } } } }`,
      long: `{ ${'a: __typename '.repeat(1_000)} }`,
      fragment: 'fragment F on Order { id }',
    }
    const problemsOf = async (file: string): Promise<string> =>
      await checkConfig({ TRUSTED_DOCUMENTS: file }).then(
        () => '',
        (error: unknown) => String(error),
      )
    const problems = await problemsOf(write(JSON.stringify(documents)))
    expect(problems).toMatch(/TRUSTED_DOCUMENTS has documents that would be refused/)
    for (const [id, problem] of [
      ['broken', 'Syntax Error'],
      ['misspelt', 'Cannot query field'],
      ['deep', 'more than 8 levels'],
      ['long', 'more than 10000 characters'],
      ['fragment', 'no operation'],
    ]) {
      expect(problems).toMatch(new RegExp(`\n {2}${id}: .*${problem}`))
    }
    expect(problems).not.toContain('good')
    await expect(startHarness({ TRUSTED_DOCUMENTS: write(JSON.stringify(documents)) })).rejects.toThrow('misspelt')
    expect(await problemsOf(write(JSON.stringify(Object.fromEntries(many))))).toMatch(/\n {2}and 2 more$/)
    expect(await problemsOf(manifest)).toBe('')
  })

  it('that introspects is refused where introspection is off', async () => {
    const file = write('{"types": "{ __schema { types { name } } }"}')
    await expect(checkConfig({ TRUSTED_DOCUMENTS: file, INTROSPECTION: 'off' })).rejects.toThrow(
      /types: .*introspection/,
    )
    await expect(checkConfig({ TRUSTED_DOCUMENTS: file })).resolves.toContain('can be used')
  })

  it('needs to be named where its mode is', () => {
    expect(() => readConfig({ TRUSTED_DOCUMENTS_MODE: 'allow' })).toThrow(/TRUSTED_DOCUMENTS_MODE has no meaning/)
    expect(() => readConfig({ TRUSTED_DOCUMENTS: manifest, TRUSTED_DOCUMENTS_MODE: 'block' })).toThrow(
      /allow or enforce/,
    )
    expect(readFileSync(manifest, 'utf8')).toContain(readId)
  })
})
