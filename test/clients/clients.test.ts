// Real clients over the running service, set up as docs/guides/typed-client.md prints it.

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gql } from '@apollo/client'
import type { TypedDocumentNode } from '@apollo/client'
import { generate } from '@graphql-codegen/cli'
import { loadConfig } from 'graphql-config'
import relayRuntime from 'relay-runtime'
import type { GraphQLTaggedNode } from 'relay-runtime'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createApolloClient } from '../../examples/clients/apollo.ts'
import codegen from '../../examples/clients/codegen.ts'
import { createRelayEnvironment } from '../../examples/clients/relay.ts'
import { createUrqlClient } from '../../examples/clients/urql.ts'
import { limitBuy, startForTest, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

const run = promisify(execFile)
const require = createRequire(import.meta.url)
const toPath = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** The code blocks of the page. */
const blocks = [
  ...readFileSync(toPath('docs/guides/typed-client.md'), 'utf8').matchAll(/^```(\w+)\n([^]*?)^```$/gm),
].map(([, language = '', text = '']) => ({ language, text }))
const blocksOf = (language: string): string[] =>
  blocks.filter((block) => block.language === language).map(({ text }) => text)

let harness: Harness
beforeAll(async () => {
  harness = await startHarness()
})
afterAll(() => harness.close())

/** A folder of a frontend with the schema, removed after the test. */
function makeProject(): string {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-client-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  cpSync(toPath('schema.api.graphql'), join(folder, 'schema.api.graphql'))
  mkdirSync(join(folder, 'src'))
  symlinkSync(toPath('node_modules'), join(folder, 'node_modules'))
  return folder
}

const ordersText = `
  query Orders($accountId: ID!, $first: Int, $after: String) {
    orders(accountId: $accountId, first: $first, after: $after) {
      edges { cursor node { id symbol status asset { symbol } legs { ratio } account { id } } }
      pageInfo { hasNextPage endCursor }
      isComplete
    }
  }
`
const placeText = `
  mutation Place($input: PlaceOrderInput!) {
    placeOrder(input: $input) { __typename outcome order { id symbol status asset { symbol } legs { ratio } account { id } } }
  }
`
const cancelText =
  'mutation Cancel($id: ID!) { cancelOrder(input: { orderId: $id }) { __typename order { id status } } }'
const placeDocument: TypedDocumentNode<{ placeOrder: { order: { id: string } } }> = gql(placeText)
const placementText = `
  query Placement($accountId: ID!, $clientOrderId: ID!) {
    placement(accountId: $accountId, clientOrderId: $clientOrderId) { id state orderId }
  }
`

const placementDocument: TypedDocumentNode<{ placement: { id: string } }> = gql(placementText)

interface Page {
  orders: {
    edges: { node: { id: string; status: string } }[]
    pageInfo: { hasNextPage: boolean; endCursor: string }
  }
}
const idsOf = (page: Page | null | undefined): string[] => (page?.orders.edges ?? []).map(({ node }) => node.id)

async function newestIds(count: number): Promise<string[]> {
  return (await harness.book()).slice(0, count).map(({ id }) => String(id))
}

describe('Apollo Client', () => {
  it('19 pages a list by its edges, places, and shows the changed order in its cache', async () => {
    const client = createApolloClient(harness.url)
    onTestFinished(() => client.stop())
    const variables = { accountId: harness.accountId, first: 2 }
    const list = client.watchQuery<Page>({ query: gql(ordersText), variables })
    const subscription = list.subscribe(() => {})
    onTestFinished(() => subscription.unsubscribe())
    const first = await list.refetch()
    const endCursor = first.data?.orders.pageInfo.endCursor
    await list.fetchMore({ variables: { after: endCursor } })
    const shown = (): Page | null => client.readQuery<Page>({ query: gql(ordersText), variables })
    expect(idsOf(shown())).toEqual(await newestIds(4))

    const input = limitBuy(harness)
    const { data: placed } = await client.mutate({
      mutation: placeDocument,
      variables: { input },
      refetchQueries: ['Orders'],
      awaitRefetchQueries: true,
    })
    const id = placed?.placeOrder?.order?.id ?? ''
    expect(idsOf(shown())).toContain(id)
    await client.mutate({ mutation: gql(cancelText), variables: { id } })
    expect(shown()?.orders.edges.find(({ node }) => node.id === id)?.node.status).toBe('CANCELED')

    const asked = {
      query: placementDocument,
      variables: { accountId: harness.accountId, clientOrderId: input.clientOrderId },
    }
    const { data } = await client.query(asked)
    const cache = client.cache.extract() as Record<string, unknown>
    expect(cache[`OrderPlacement:${data?.placement?.id}`]).toMatchObject({ state: 'PLACED', orderId: id })
    expect(cache[`Order:${id}`]).toMatchObject({ status: 'CANCELED', asset: { __ref: 'Asset:{"symbol":"AAPL"}' } })
  })

  it('23f keeps the data of an answer with an error', async () => {
    const client = createApolloClient(harness.url)
    onTestFinished(() => client.stop())
    const query = gql('query ($good: ID!, $bad: ID!) { good: order(id: $good) { id } bad: order(id: $bad) { id } }')
    const [bad = ''] = await newestIds(1)
    const good = harness.sandbox.demo.filledOrderId
    await harness.setRules({ match: { path: bad }, fault: { kind: 'status', status: 403, body: 'no' } })
    onTestFinished(() => harness.setRules())
    const { data, error } = await client.query({ query, variables: { good, bad } })
    expect(data).toMatchObject({ good: { id: good }, bad: null })
    expect(error?.message).toContain('broker')
  })
})

describe('urql', () => {
  it('19 pages a list by its edges, places, and shows the changed order in its cache, without a warning', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {})
    onTestFinished(() => warn.mockRestore())
    const client = createUrqlClient(harness.url)
    const base = { accountId: harness.accountId, first: 2 }
    const pages: (Page | undefined)[] = []
    const read = async (after: string | null): Promise<Page | undefined> => {
      const { data, error } = await client.query<Page>(ordersText, { ...base, after }).toPromise()
      expect(error).toBeUndefined()
      return data
    }
    const first = await read(null)
    const second = await read(first?.orders.pageInfo.endCursor ?? null)
    expect(idsOf(second)).toEqual(await newestIds(4))

    const input = limitBuy(harness)
    const placed = await client.mutation<{ placeOrder: { order: { id: string } } }>(placeText, { input }).toPromise()
    const id = placed.data?.placeOrder.order.id ?? ''
    expect(idsOf(await read(null))[0]).toBe(id)

    const list = client.query<Page>(ordersText, { ...base, after: null }).subscribe(({ data }) => pages.push(data))
    await client.mutation(cancelText, { id }).toPromise()
    list.unsubscribe()
    expect(pages.at(-1)?.orders.edges[0]?.node).toMatchObject({ id, status: 'CANCELED' })

    const key = { accountId: harness.accountId, clientOrderId: input.clientOrderId }
    const { data } = await client.query(placementText, key).toPromise()
    expect(data).toMatchObject({ placement: { state: 'PLACED', orderId: id } })
    expect(warn.mock.calls.map((call) => String(call[0]))).toEqual([])
  })
})

describe('Relay', () => {
  const { createOperationDescriptor, fetchQuery, commitMutation } = relayRuntime

  it('16 19 compiles with relay-compiler, pages, places, and shows the changed order in its store', async () => {
    const folder = makeProject()
    const documents = blocksOf('graphql')
      .join('\n')
      .split(/\n(?=fragment |query |mutation )/)
    const tags = documents.map((document) => `graphql\`${document}\``).join('\n')
    writeFileSync(join(folder, 'src/OrderList.js'), `const { graphql } = require('relay-runtime')\n${tags}\n`)
    const [config = ''] = blocksOf('json')
    // CommonJS without types, because this test loads what the compiler writes.
    const settings = { ...(JSON.parse(config) as object), language: 'javascript', eagerEsModules: false }
    writeFileSync(join(folder, 'relay.config.json'), JSON.stringify(settings))
    const { stdout } = await run(require('relay-compiler') as string, ['relay.config.json'], { cwd: folder })
    expect(stdout).not.toMatch(/error/i)
    const generated = join(folder, 'src/__generated__')
    expect(readdirSync(generated)).toContain('OrderListPage.graphql.js')
    writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }')
    const load = (name: string): GraphQLTaggedNode =>
      require(join(generated, `${name}.graphql.js`)) as GraphQLTaggedNode

    const environment = createRelayEnvironment(harness.url)
    const { accountId } = harness
    const read = async (document: GraphQLTaggedNode, variables: object): Promise<void> => {
      await fetchQuery(environment, document, variables as Record<string, unknown>).toPromise()
    }
    await read(load('OrderListQuery'), { accountId })
    const records = (): Record<string, Record<string, unknown>> =>
      JSON.parse(JSON.stringify(environment.getStore().getSource())) as Record<string, Record<string, unknown>>
    const connection = (): { edges: { __refs: string[] }; pageInfo: { __ref: string } } => {
      const [name = ''] = Object.keys(records()).filter((key) => key.includes('__OrderList_orders'))
      return records()[name] as never
    }
    const ids = (): unknown[] =>
      connection().edges.__refs.map((ref) => {
        const node = records()[ref]?.['node'] as { __ref: string }
        return records()[node.__ref]?.['id']
      })
    // What is read stays in the store while a component shows it.
    const operation = createOperationDescriptor(load('OrderListQuery') as never, { accountId })
    const retained = environment.retain(operation)
    onTestFinished(() => retained.dispose())
    const cursor = records()[connection().pageInfo.__ref]?.['endCursor']
    await read(load('OrderListPage'), { accountId, count: 2, cursor })
    expect(ids()).toEqual(await newestIds(4))

    const commit = (name: string, input: object): Promise<Record<string, never>> =>
      new Promise((resolve, reject) => {
        commitMutation(environment, {
          mutation: load(name),
          variables: { input },
          onCompleted: (response) => resolve(response as never),
          onError: reject,
        })
      })
    const { placeOrder } = (await commit('PlaceOrderMutation', limitBuy(harness))) as {
      placeOrder?: { order: { id: string } }
    }
    const id = placeOrder?.order.id ?? ''
    await read(load('OrderListQuery'), { accountId })
    expect(ids()[0]).toBe(id)
    await commit('CancelOrderMutation', { orderId: id })
    expect(records()[`Order:${id}`]).toMatchObject({ id, status: 'CANCELED' })
  })
})

describe('OrderPlacement.id', () => {
  it('19 is the same on every read and differs between keys, accounts and brokers', async () => {
    const accountIds = [...harness.sandbox.accounts, `aries:${harness.sandbox.aries.accounts[0]}`]
    const clientOrderId = 'placement-id.1'
    const keys = [
      ...accountIds.map((accountId) => ({ accountId, clientOrderId })),
      { accountId: harness.accountId, clientOrderId: 'placement-id.2' },
    ]
    const ids: string[] = []
    for (const key of keys) {
      await harness.run(placeText, { input: limitBuy(harness, key) })
      const first = await harness.run(placementText, key)
      const second = await harness.run(placementText, key)
      expect(first.data.placement).toEqual({ id: expect.any(String), state: 'PLACED', orderId: expect.any(String) })
      expect(second.data.placement.id).toBe(first.data.placement.id)
      ids.push(first.data.placement.id)
    }
    expect(new Set(ids).size).toBe(keys.length)
  })
})

describe('graphql-codegen', () => {
  it('23f types amounts as strings', async () => {
    const folder = makeProject()
    const tag =
      "import { graphql } from '../gql'\nexport const Price = graphql(`query Price($id: ID!) { order(id: $id) { limitPrice submittedAt } }`)\n"
    writeFileSync(join(folder, 'src/price.ts'), tag)
    const files = (await generate({ ...codegen, cwd: folder, silent: true }, false)) as {
      filename: string
      content: string
    }[]
    const types = files.find(({ filename }) => filename.endsWith('graphql.ts'))?.content ?? ''
    expect(types).toMatch(/limitPrice\??: string \| null/)
    expect(types).toMatch(/submittedAt\??: string \| null/)
  })

  it('23f finds the schema by .graphqlrc.yml', async () => {
    const folder = makeProject()
    const [text = ''] = blocksOf('yaml')
    writeFileSync(join(folder, '.graphqlrc.yml'), text)
    const config = await loadConfig({ rootDir: folder })
    const schema = await config?.getDefault().getSchema('string')
    expect(schema).toContain('tradingAccounts')
  })
})

describe('SANDBOX_CONTROL_PORT', () => {
  it('23f fixes the address where scripts set faults', async () => {
    const free = createServer().listen(0, '127.0.0.1')
    await once(free, 'listening')
    const { port } = free.address() as { port: number }
    await promisify(free.close.bind(free))()
    const { sandbox } = await startForTest({ SANDBOX_CONTROL_PORT: String(port) })
    expect(sandbox.controlUrl).toBe(`http://127.0.0.1:${port}`)
    const response = await fetch(`http://127.0.0.1:${port}/rules`, { method: 'PUT', body: '[]' })
    expect(response.ok).toBe(true)
  })
})
