// One command for the whole: Blotter over its sandbox, the neighbour, a gateway over both, and a query across them.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readConfig } from '../../src/config/config.ts'
import { serve } from '../../src/cli/serve.ts'
import { accountsSdl, startAccounts } from './accounts.ts'
import type { Person } from './accounts.ts'
import { startGateway } from './gateway.ts'

/** The graph, and everything behind it. */
export interface Supergraph {
  /** The URL of the gateway. */
  url: string
  /** The control port of the sandbox broker, which has the log of its requests. */
  controlUrl: string
  people: readonly Person[]
  close(): Promise<void>
}

/** A query that needs both subgraphs: the neighbour knows whose accounts and orders these are, Blotter what they are. */
export const query = `query ($id: ID!) {
  user(id: $id) {
    name
    accounts {
      id
      orders(first: 2) {
        nodes { symbol side quantity status }
      }
    }
    notes {
      text
      order { symbol status filledQuantity averagePrice }
    }
  }
}`

/** Starts all of it, the gateway on `port` of loopback (0: a free one). The caller calls `close`. */
export async function startSupergraph(port: number): Promise<Supergraph> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-supergraph-'))
  const routerSecret = crypto.randomUUID()
  const blotter = await serve(
    readConfig({ PORT: '0', DATA_DIR: dataDir, ROUTER_SECRET: routerSecret, LOG_LEVEL: 'error' }),
  )
  const { sandbox } = blotter
  if (sandbox === null) throw new Error('the example runs over the sandbox')
  const people = toPeople(sandbox)
  const accounts = await startAccounts(people)
  const gateway = await startGateway(
    [
      {
        name: 'blotter',
        url: blotter.url,
        sdl: readFileSync(new URL('../../schema.graphql', import.meta.url), 'utf8'),
        headers: { 'x-router-secret': routerSecret },
      },
      { name: 'accounts', url: accounts.url, sdl: accountsSdl },
    ],
    port,
  )
  return {
    url: gateway.url,
    controlUrl: sandbox.controlUrl,
    people,
    async close() {
      await gateway.close()
      await accounts.close()
      await blotter.close()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

// A person with an account at each broker, and with a note about an order in each.
function toPeople({ accounts, demo, aries }: NonNullable<Awaited<ReturnType<typeof serve>>['sandbox']>): Person[] {
  const [atBluum = ''] = accounts
  const [name = ''] = aries.accounts
  const atAries = `aries:${name}`
  return [
    {
      id: 'user-1',
      name: 'A user with two accounts',
      accountIds: [atBluum, atAries],
      notes: [
        { text: 'Bought before the split.', orderId: demo.filledOrderId, accountId: atBluum },
        { text: 'Keep an eye on this one.', orderId: `${atAries}:${aries.demo.openOrderId}`, accountId: atAries },
      ],
    },
  ]
}

async function ask(url: string, variables: object): Promise<unknown> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  })
  return await response.json()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const supergraph = await startSupergraph(Number(process.env['PORT'] ?? 4100))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void supergraph.close().then(() => process.exit(0)))
  }
  const id = supergraph.people[0]?.id
  console.log(`The graph is on ${supergraph.url}. This query over both subgraphs:\n\n${query}\n\nis answered with:\n`)
  console.log(JSON.stringify(await ask(supergraph.url, { id }), null, 2))
  console.log('\nCtrl-C ends it.')
}
