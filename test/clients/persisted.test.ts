// Clients that name a document by its hash first, as their users install them, against a service with a manifest.

import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { ApolloClient, HttpLink, InMemoryCache } from '@apollo/client'
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries'
import { Client, fetchExchange } from '@urql/core'
import { persistedExchange } from '@urql/exchange-persisted'
import { parse } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ReadOrder } from '../frontend/operations.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

const manifest = fileURLToPath(new URL('../frontend/generated/persisted-documents.json', import.meta.url))

let harness: Harness
let variables: { id: string }

beforeAll(async () => {
  harness = await startHarness({ TRUSTED_DOCUMENTS: manifest, TRUSTED_DOCUMENTS_MODE: 'allow' })
  variables = { id: harness.sandbox.demo.filledOrderId }
})
afterAll(() => harness.close())

const readStatus = parse('query ReadStatus($id: ID!) { order(id: $id) { id status } }')
const placeOrder = parse('mutation Place($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }')

/** What the client sent so far: whether each body had the text of its document, and the first message of the answer. */
const sent: { hasText: boolean; message: string | undefined }[] = []

async function fetchNoted(input: string | URL | Request, init?: RequestInit): Promise<Response> {
  const request = new Request(input, init)
  const hasText = 'query' in ((await request.clone().json()) as object)
  const response = await harness.fetch(request)
  const answer = (await response.clone().json()) as { errors?: { message: string }[] }
  sent.push({ hasText, message: answer.errors?.[0]?.message })
  return response
}

const askedTwice = [
  { hasText: false, message: 'PersistedQueryNotFound' },
  { hasText: true, message: undefined },
]

describe('a client that sends the hash of an unknown document sends its text after the answer', () => {
  it('@urql/exchange-persisted, for queries and mutations', async () => {
    const client = new Client({
      url: harness.url,
      preferGetMethod: false,
      fetch: fetchNoted,
      exchanges: [persistedExchange({ preferGetForPersistedQueries: false, enableForMutation: true }), fetchExchange],
    })
    sent.length = 0
    const read = await client.query(readStatus, variables).toPromise()
    expect(read.error).toBeUndefined()
    expect(read.data).toEqual({ order: { id: variables.id, status: 'FILLED' } })
    expect(sent).toEqual(askedTwice)

    sent.length = 0
    const placed = await client.mutation(placeOrder, { input: limitBuy(harness) }).toPromise()
    expect(placed.data).toMatchObject({ placeOrder: { outcome: 'PLACED' } })
    expect(sent).toEqual(askedTwice)
  })

  it("Apollo Client's persisted queries link, for queries and mutations", async () => {
    const all = { errorPolicy: 'all' } as const
    const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
    const client = new ApolloClient({
      link: new PersistedQueryLink({ sha256 }).concat(new HttpLink({ uri: harness.url, fetch: fetchNoted })),
      cache: new InMemoryCache(),
      defaultOptions: { query: all, watchQuery: all, mutate: all },
    })
    sent.length = 0
    const { data } = await client.query({ query: readStatus, variables })
    expect(data).toEqual({ order: { id: variables.id, status: 'FILLED', __typename: 'Order' } })
    expect(sent).toEqual(askedTwice)

    sent.length = 0
    const placed = await client.mutate({ mutation: placeOrder, variables: { input: limitBuy(harness) } })
    expect(placed.data).toMatchObject({ placeOrder: { outcome: 'PLACED' } })
    expect(sent).toEqual(askedTwice)
    client.stop()
  })
})

describe('a client that sends the hash of a trusted document', () => {
  it('asks for it once', async () => {
    const client = new Client({
      url: harness.url,
      preferGetMethod: false,
      fetch: fetchNoted,
      exchanges: [
        persistedExchange({
          preferGetForPersistedQueries: false,
          generateHash: async () => String(ReadOrder.__meta__?.['hash']),
        }),
        fetchExchange,
      ],
    })
    sent.length = 0
    const { data, error } = await client.query(ReadOrder.toString(), variables).toPromise()
    expect(error).toBeUndefined()
    expect(data).toMatchObject({ order: { id: variables.id, status: 'FILLED' } })
    expect(sent).toEqual([{ hasText: false, message: undefined }])
  })
})
