// Measures the cost of durable records: placements, each with three commits that are on the disk, next to reads of one order, in
// the same run; repeats of a key; and a start with many records next to a start with none.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { NewOrder } from '../src/domain/order.ts'
import { fillStore } from '../test/fill-store.ts'

/** The services and the load that the parent of the bench started. */
interface WritesOptions {
  /** Of two services over the same broker: one looks at the list before it sends, the other need not. */
  urls: { looking: string; certified: string }
  /** Callers that each send their bodies in turn, over and over, for `ms`; the requests answered in a second. */
  rate: (url: string, callers: readonly (readonly string[])[], ms: number) => Promise<number>
  accountId: string
  /** Orders to read, one for each caller: those who read the same one at once would share a call. */
  orderIds: readonly string[]
  roundMs: number
  /** Settings of a service over the broker. */
  env: Record<string, string>
  /** Of this bench, to be deleted by its parent. */
  dataDir: string
}

const callersCount = 8
const rounds = 3
const starts = 5
const records = { placed: 10_000, lost: 50 }
// More than can be placed in a round.
const bodiesPerCaller = 4_000

/** Medians over the rounds: placements and repeats for each read, and the ms until a service is ready. */
interface WriteFigures {
  looking: number
  certified: number
  repeats: number
  emptyStartMs: number
  fullStartMs: number
}

/** Takes 20 rounds and 10 starts. */
export async function measureWrites(options: WritesOptions): Promise<WriteFigures> {
  const { urls, accountId, roundMs } = options
  const orderIds = options.orderIds.slice(0, callersCount)
  const reads = orderIds.map((id) => [JSON.stringify({ query: `{ order(id: "${id}") { id status } }` })])
  const figures = { looking: [] as number[], certified: [] as number[], repeats: [] as number[] }
  // The first two warm up: a placement goes through much code.
  for (let round = -1; round <= rounds; round++) {
    const readRate = await options.rate(urls.looking, reads, roundMs)
    const bodies = toPlaceBodies(accountId)
    const looking = await options.rate(urls.looking, bodies, roundMs)
    const certified = await options.rate(urls.certified, toPlaceBodies(accountId), roundMs)
    const sentBefore = bodies.map(([first = '']) => [first])
    const repeats = await options.rate(urls.looking, sentBefore, roundMs)
    if (round < 1) continue
    figures.looking.push(looking / readRate)
    figures.certified.push(certified / readRate)
    figures.repeats.push(repeats / readRate)
  }
  const full = join(options.dataDir, 'full')
  await fillStore(join(full, 'placements.sqlite'), {
    placed: Array.from({ length: records.placed }, () => toOrder(accountId)),
    lost: Array.from({ length: records.lost }, () => toOrder(accountId)),
  })
  const emptyMs: number[] = []
  const fullMs: number[] = []
  for (let start = 0; start < starts; start++) {
    emptyMs.push(await measureStart(options.env, join(options.dataDir, `empty-${start}`)))
    fullMs.push(await measureStart(options.env, full))
  }
  return {
    looking: toMedian(figures.looking),
    certified: toMedian(figures.certified),
    repeats: toMedian(figures.repeats),
    emptyStartMs: toMedian(emptyMs),
    fullStartMs: toMedian(fullMs),
  }
}

// ---- orders -------------------------------------------------------------------------------------------------------

let made = 0

// Each at a price of its own: equal orders without an outcome would hold each other back.
function toOrder(accountId: string): NewOrder {
  made++
  return {
    accountId,
    clientOrderId: randomUUID(),
    symbol: 'AAPL',
    side: 'BUY',
    type: 'LIMIT',
    // No order stays open, because a broker with thousands of open orders would change the figures.
    timeInForce: 'IOC',
    quantity: '0.001',
    notional: null,
    limitPrice: `0.${String(made).padStart(7, '0')}`,
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    commission: null,
    commissionType: null,
  }
}

function toPlaceBodies(accountId: string): string[][] {
  const toBodies = () => Array.from({ length: bodiesPerCaller }, () => toPlaceBody(accountId))
  return Array.from({ length: callersCount }, toBodies)
}

function toPlaceBody(accountId: string): string {
  const { clientOrderId, symbol, side, type, timeInForce, quantity, limitPrice } = toOrder(accountId)
  const input = { accountId, clientOrderId, symbol, side, type, timeInForce, quantity, limitPrice }
  const query = 'mutation Place($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome orderId } }'
  return JSON.stringify({ query, variables: { input } })
}

// ---- starts -------------------------------------------------------------------------------------------------------

/** Ms from the start of a process until it says that it is ready. */
async function measureStart(env: Record<string, string>, dataDir: string): Promise<number> {
  const startedAt = performance.now()
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url))
  const child = spawn(process.execPath, [main, 'serve'], {
    env: { PORT: '0', AUTH: 'none', DATA_DIR: dataDir, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    for await (const chunk of child.stdout) {
      if (String(chunk).includes('"msg":"ready"')) return performance.now() - startedAt
    }
    throw new Error('the service has ended before it was ready')
  } finally {
    child.kill('SIGKILL')
  }
}

/** The middle of `values`. */
export function toMedian(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] ?? 0) + (sorted[Math.floor(middle)] ?? 0)) / 2
}
