// A third broker takes a folder and a line in the registry: the toy broker is read, placed at and canceled at over HTTP.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { brokerOf, registry } from '../../src/brokers/registry.ts'
import type { Service } from '../../src/cli/serve.ts'
import { readConfig } from '../../src/config/config.ts'
import { toyEntry } from './toy.ts'

// Before the schema is loaded, which has a value for each broker.
registry.push(toyEntry)

describe('a broker that is only added to the registry', () => {
  let service: Service
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-toy-'))

  beforeAll(async () => {
    const { serve } = await import('../../src/cli/serve.ts')
    const env = { PORT: '0', AUTH: 'none', DATA_DIR: dataDir, TOY_URL: 'http://127.0.0.1:9' }
    service = await serve(readConfig(env), new PassThrough().resume())
  })

  afterAll(async () => {
    await service.close()
    rmSync(dataDir, { recursive: true })
  })

  async function ask(query: string): Promise<Record<string, unknown>> {
    const response = await fetch(service.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query }),
    })
    const { data, errors } = (await response.json()) as { data: Record<string, unknown>; errors?: unknown }
    expect(errors).toBeUndefined()
    return data
  }

  it('is read by id, by account, by filter and page by page', async () => {
    expect(brokerOf('toy:A1:1')).toBe('TOY')
    expect(await ask('{ tradingAccounts { id broker } order(id: "toy:A1:1") { symbol status broker } }')).toEqual({
      tradingAccounts: [{ id: 'toy:A1', broker: 'TOY' }],
      order: { symbol: 'AAPL', status: 'FILLED', broker: 'TOY' },
    })
    expect(
      await ask(`{
        all: orders(accountId: "toy:A1") { nodes { id } pageInfo { hasNextPage } }
        open: orders(accountId: "toy:A1", filter: {state: OPEN}) { nodes { symbol } }
        first: orders(accountId: "toy:A1", first: 1) { nodes { id } pageInfo { hasNextPage } }
      }`),
    ).toEqual({
      all: { nodes: [{ id: 'toy:A1:2' }, { id: 'toy:A1:1' }], pageInfo: { hasNextPage: false } },
      open: { nodes: [{ symbol: 'MSFT' }] },
      first: { nodes: [{ id: 'toy:A1:2' }], pageInfo: { hasNextPage: true } },
    })
  })

  it('takes an order once, and cancels it by its key', async () => {
    const place = `mutation { placeOrder(input: {accountId: "toy:A1", clientOrderId: "toy-0001", symbol: "KO", side: BUY,
      type: LIMIT, timeInForce: DAY, quantity: "1", limitPrice: "1.00"}) { __typename order { id status } } }`
    const placed = { placeOrder: { __typename: 'OrderPlaced', order: { id: 'toy:A1:3', status: 'ACCEPTED' } } }
    expect(await ask(place)).toEqual(placed)
    expect(await ask(place)).toEqual(placed)
    expect(
      await ask(`mutation { cancelOrder(input: {accountId: "toy:A1", clientOrderId: "toy-0001"}) {
        __typename order { id status } } }`),
    ).toEqual({ cancelOrder: { __typename: 'CancelConfirmed', order: { id: 'toy:A1:3', status: 'CANCELED' } } })
  })

  it('refuses what it does not support by field', async () => {
    expect(
      await ask(`mutation { placeOrder(input: {accountId: "toy:A1", clientOrderId: "toy-0002", symbol: "KO", side: BUY,
      type: LIMIT, timeInForce: GTC, quantity: "1", limitPrice: "1.00"}) {
        __typename ... on OrderInvalid { problems { field message } } } }`),
    ).toEqual({
      placeOrder: {
        __typename: 'OrderInvalid',
        problems: [{ field: ['input', 'timeInForce'], message: 'Toy takes DAY only.' }],
      },
    })
  })
})
