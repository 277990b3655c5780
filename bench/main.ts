// `npm run bench` compares upstream calls and speed with a plain Yoga and DataLoader server (peer.ts), over the same sandbox,
// in the same run, on the same machine. It prints ratios only, because an absolute figure would describe the machine.
//
// The broker, Blotter, the peer and the load each have a process of their own, which is this file again with `--child`.
// A child answers one message at a time and ends with its parent, also if the parent is killed.

import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual, parseArgs } from 'node:util'
import type { Pool } from 'undici'
import { measureAbuse } from './abuse.ts'
import type { Flood, FloodResult } from './abuse.ts'
import type { PeerOptions } from './peer.ts'
import { measureWrites, toMedian } from './writes.ts'

const roundsCount = 4
// Rounds before the measured ones, because code that is not compiled yet would change the figures.
const warmUpRounds = 2
const secondsDefault = 10
// The peer makes more than 10,000 calls a second and must not be limited. Blotter's setting allows at most 10,000, which it
// does not reach.
const unlimitedPerSecond = 1_000_000
const blotterPerSecondMax = 10_000
const publishedPerSecond = 25
const publishedMs = 5_000
// The Retry-After of the broker.
const refusedWaitMs = 1_000

const usage = `Usage: npm run bench -- [--seconds N]

  --seconds N  how long the part at full speed puts load on the machine, 2 to 120; ${secondsDefault} by default.
               The part at the published rate takes ${publishedMs / 1000} seconds more.
`

interface Upstream {
  url: string
  controlUrl: string
  apiKey: string
  apiSecret: string
  accounts: readonly string[]
}

interface BlotterOptions {
  upstream: Upstream
  requestsPerSecond: number
  dataDir: string
  capabilities: string
  /** Further settings. */
  env?: Record<string, string>
}

/** Requests until one of the bounds is met. */
interface Job {
  url: string
  /** For each caller the bodies that it sends, over and over, one after the other. */
  callers: readonly (readonly string[])[]
  headers?: Record<string, string>
  /** All callers ask at the same moment, and again when all have their answers. */
  isTogether: boolean
  requestsMax: number
  msMax: number
  /** Refusals are expected: the caller waits a second after one, and what is not answered in time does not count. */
  isLimited: boolean
}

interface JobResult {
  /** Requests answered in full. */
  answered: number
  /** Requests answered with an error in it. */
  refused: number
  ms: number
  /** The last full answer. */
  sample: string
}

interface Row {
  name: string
  callers: readonly (readonly string[])[]
  isTogether: boolean
}

// ---- children -----------------------------------------------------------------------------------------------------

const roles = {
  /** Starts a sandbox for each rate, all of the same seed: same accounts, same orders. */
  async broker(rates: readonly number[]): Promise<Upstream[]> {
    const { startSandbox } = await import('../sandbox/server.ts')
    const sandboxes = rates.map((requestsPerSecond) =>
      startSandbox({ stateFile: ':memory:', seed: 'blotter', requestsPerSecond }),
    )
    return (await Promise.all(sandboxes)).map(({ url, controlUrl, apiKey, apiSecret, accounts }) => {
      return { url, controlUrl, apiKey, apiSecret, accounts }
    })
  },

  /** Starts the services, as `npm start` does, and returns the CPU time of the process. */
  async blotter(options: readonly BlotterOptions[]): Promise<{ urls: string[]; cpuMs: number }> {
    const { readConfig } = await import('../src/config/config.ts')
    const { serve } = await import('../src/cli/serve.ts')
    const services = options.map(({ upstream, requestsPerSecond, dataDir, capabilities, env }) =>
      serve(
        readConfig({
          PORT: '0',
          AUTH: 'none',
          BLUUM_URL: upstream.url,
          BLUUM_API_KEY: upstream.apiKey,
          BLUUM_API_SECRET: upstream.apiSecret,
          BLUUM_REQUESTS_PER_SECOND: String(requestsPerSecond),
          BLUUM_CAPABILITIES: capabilities,
          DATA_DIR: dataDir,
          ...env,
        }),
      ),
    )
    return { urls: (await Promise.all(services)).map(({ url }) => url), cpuMs: readCpuMs() }
  },

  async peer(options: readonly PeerOptions[]): Promise<{ urls: string[]; cpuMs: number }> {
    const { startPeer } = await import('./peer.ts')
    return { urls: await Promise.all(options.map(startPeer)), cpuMs: readCpuMs() }
  },

  /** Runs the jobs at the same time. */
  async load(jobs: readonly Job[]): Promise<JobResult[]> {
    const { Pool } = await import('undici')
    return await Promise.all(
      jobs.map(async (job) => {
        const pool = new Pool(new URL(job.url).origin, { connections: job.callers.length })
        try {
          // Opens the connections, which is not what is measured.
          await Promise.all(job.callers.map(async () => await (await get(pool, '/health')).body.dump()))
          return await runJob(job, pool)
        } finally {
          await pool.destroy()
        }
      }),
    )
  },

  /** Sends at a steady pace without waiting for answers, of which it takes all. */
  async flood({ url, headers, bodies, perSecond, requests }: Flood): Promise<FloodResult> {
    const { Pool } = await import('undici')
    const { origin, pathname: path } = new URL(url)
    const pool = new Pool(origin, { connections: 64 })
    const result: FloodResult = { statuses: {}, latenciesMs: [] }
    const startedAt = performance.now()
    const sent: Promise<void>[] = []
    const send = async (body: string, dueAt: number): Promise<void> => {
      const answer = await pool.request({
        method: 'POST',
        path,
        headers: { ...headers, 'content-type': 'application/json' },
        body,
      })
      await answer.body.dump()
      result.statuses[answer.statusCode] = (result.statuses[answer.statusCode] ?? 0) + 1
      result.latenciesMs.push(performance.now() - dueAt)
    }
    try {
      for (let index = 0; index < requests; index++) {
        const dueAt = startedAt + (index * 1_000) / perSecond
        const waitMs = dueAt - performance.now()
        if (waitMs > 0) await sleep(waitMs)
        sent.push(send(bodies[index % bodies.length] ?? '', dueAt))
      }
      await Promise.all(sent)
    } finally {
      await pool.destroy()
    }
    return result
  },
}

type Roles = typeof roles
type Ask<Name extends keyof Roles> = (message: Parameters<Roles[Name]>[0]) => ReturnType<Roles[Name]>

function readCpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

function get(pool: Pool, path: string) {
  return pool.request({ method: 'GET', path })
}

async function runJob(job: Job, pool: Pool): Promise<JobResult> {
  const { pathname } = new URL(job.url)
  const startedAt = performance.now()
  const result: JobResult = { answered: 0, refused: 0, ms: 0, sample: '' }
  const end = new AbortController()
  const timer = setTimeout(() => end.abort(), job.msMax)
  let sent = 0

  const isOver = (): boolean => end.signal.aborted || sent >= job.requestsMax

  async function ask(body: string): Promise<void> {
    sent++
    const { statusCode, body: answer } = await pool.request({
      method: 'POST',
      path: pathname,
      headers: { ...job.headers, 'content-type': 'application/json' },
      body,
      signal: job.isLimited ? end.signal : null,
    })
    const text = await answer.text()
    if (statusCode === 200 && !text.includes('"errors":')) {
      result.answered++
      result.sample = text
      return
    }
    if (!job.isLimited) throw new Error(`${job.url} answered ${statusCode} ${text.slice(0, 500)}`)
    result.refused++
    await sleep(refusedWaitMs, undefined, { signal: end.signal })
  }

  async function runCaller(bodies: readonly string[]): Promise<void> {
    for (let turn = 0; !isOver(); turn++) await ask(bodies[turn % bodies.length] ?? '')
  }

  async function runTogether(): Promise<void> {
    for (let turn = 0; !isOver(); turn++) {
      await Promise.all(job.callers.map((bodies) => ask(bodies[turn % bodies.length] ?? '')))
    }
  }

  try {
    await (job.isTogether ? runTogether() : Promise.all(job.callers.map(runCaller)))
  } catch (error) {
    if (!job.isLimited || !end.signal.aborted) throw error
  } finally {
    clearTimeout(timer)
  }
  return { ...result, ms: performance.now() - startedAt }
}

function runChild(name: string): void {
  const role = Object.entries(roles).find(([known]) => known === name)?.[1]
  if (role === undefined) throw new Error(`there is no role ${name}`)
  process.once('disconnect', () => process.exit())
  // A terminal sends Ctrl-C to all of them; the parent ends its children.
  process.on('SIGINT', () => {})
  process.on('message', (message) => {
    // Both ends are this file.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    role(message as never).then(
      (answer) => process.send?.({ answer }),
      (error: unknown) => process.send?.({ error: error instanceof Error ? error.stack : String(error) }),
    )
  })
}

/** Starts a child. Returns a function that sends it a message, and rejects if the child fails or ends. */
function startChild<Name extends keyof Roles>(name: Name, children: Set<ChildProcess>): Ask<Name> {
  const child = fork(fileURLToPath(import.meta.url), ['--child', name], {
    env: { ...process.env, NODE_ENV: 'production' },
    // A service's log is written, at the price of writing it, to nowhere.
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    serialization: 'advanced',
  })
  children.add(child)
  // Both ends are this file.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return (async (message: NonNullable<Parameters<ChildProcess['send']>[0]>) => {
    const ended = new AbortController()
    const onExit = (): void => ended.abort()
    child.once('exit', onExit)
    child.send(message)
    try {
      const [reply] = await once(child, 'message', { signal: ended.signal })
      if ('error' in reply) throw new Error(`${name}: ${reply.error}`)
      return reply.answer
    } catch (error) {
      throw ended.signal.aborted ? new Error(`the process of the ${name} has ended`, { cause: error }) : error
    } finally {
      child.off('exit', onExit)
    }
  }) as Ask<Name>
}

// ---- documents ----------------------------------------------------------------------------------------------------

// Fields that the vendor's examples of lists show, so that a row of a list answers them.
const shortFields = 'id status symbol side quantity filledQuantity averagePrice submittedAt'
const scalarFields = `id broker symbol securityType currency clientOrderId side type timeInForce quantity notional
  limitPrice stopPrice trailPercent trailPrice extendedHours status brokerStatus state isCancelable filledQuantity
  remainingQuantity averagePrice commission commissionType submittedAt filledAt canceledAt rejectReason`

function toOrderBody(id: string): string {
  return JSON.stringify({ query: `query Order($id: ID!) { order(id: $id) { ${scalarFields} } }`, variables: { id } })
}

function toPageBody(accountId: string, first: number): string {
  const query = `query Page($accountId: ID!, $first: Int!) {
    orders(accountId: $accountId, first: $first) { nodes { ${scalarFields} } pageInfo { hasNextPage endCursor } }
  }`
  return JSON.stringify({ query, variables: { accountId, first } })
}

/** Each of the ids under two aliases. */
function toAliasesBody(accountId: string, ids: readonly string[]): string {
  const variables = ids.map((_, index) => `$id${index}: ID!`).join(', ')
  const aliases = [...ids, ...ids].map(
    (_, index) => `a${index}: order(id: $id${index % ids.length}, accountId: $accountId) { ${shortFields} }`,
  )
  return JSON.stringify({
    query: `query Aliases($accountId: ID!, ${variables}) { ${aliases.join('\n')} }`,
    variables: { accountId, ...Object.fromEntries(ids.map((id, index) => [`id${index}`, id])) },
  })
}

function toEntitiesBody(accountId: string, ids: readonly string[]): string {
  const query = `query Entities($representations: [_Any!]!) {
    _entities(representations: $representations) { ... on Order { ${shortFields} } }
  }`
  const representations = ids.map((id) => ({ __typename: 'Order', id, account: { id: accountId } }))
  return JSON.stringify({ query, variables: { representations } })
}

/** `count` of the items, evenly over all of them. */
function spread<T>(items: readonly T[], count: number): T[] {
  return items.filter(
    (_, index) => Math.floor((index * count) / items.length) !== Math.floor(((index - 1) * count) / items.length),
  )
}

const [pageLength, accountLength] = [100, 240]

/** `books`: for each account the ids of its orders, the newest first. */
function createRows(books: ReadonlyMap<string, readonly string[]>): Row[] {
  const [[mainId, mainIds] = ['', []]] = books
  // Callers who ask for the same thing at the same moment share calls with Blotter. That is row (e) alone: in the others
  // no two callers have an order, a size of page or an account in common.
  const byAccount = (toBody: (accountId: string, ids: readonly string[]) => string) =>
    [...books].map(([accountId, ids]) => [toBody(accountId, ids)])
  const alone = { isTogether: false }
  return [
    {
      name: '(a) one order',
      callers: Array.from({ length: 8 }, (_, caller) =>
        mainIds.filter((_, index) => index % 8 === caller).map(toOrderBody),
      ),
      ...alone,
    },
    {
      name: '(b) a page of 50 (46 to 54)',
      callers: [46, 47, 48, 49, 51, 52, 53, 54].map((first) => [toPageBody(mainId, first)]),
      ...alone,
    },
    {
      name: '(c) 20 aliases of 10 orders, recent',
      callers: byAccount((accountId, ids) => toAliasesBody(accountId, spread(ids.slice(0, pageLength), 10))),
      ...alone,
    },
    {
      name: '(c) the same, none among the newest 100',
      callers: byAccount((accountId, ids) => toAliasesBody(accountId, spread(ids.slice(pageLength), 10))),
      ...alone,
    },
    {
      name: `(d) 100 entities, any of ${accountLength} orders`,
      callers: byAccount((accountId, ids) => toEntitiesBody(accountId, spread(ids, 100))),
      ...alone,
    },
    {
      name: '(e) 50 callers of one page at once',
      callers: Array.from({ length: 50 }, () => [toPageBody(mainId, 50)]),
      isTogether: true,
    },
  ]
}

// ---- measuring ----------------------------------------------------------------------------------------------------

async function control({ controlUrl }: Upstream, method: string, path: string, body?: object): Promise<unknown[]> {
  const response = await fetch(controlUrl + path, { method, ...(body && { body: JSON.stringify(body) }) })
  const answer: unknown = await response.json()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`)
  return Array.isArray(answer) ? answer : [answer]
}

function readField(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? Object.entries(value).find(([key]) => key === name)?.[1]
    : undefined
}

/** The orders of both accounts. The sandbox's second one is short: it is filled up to the length of the first. */
async function readBooks(upstream: Upstream): Promise<Map<string, string[]>> {
  const books = new Map<string, string[]>()
  for (const account of upstream.accounts.slice(0, 2)) {
    const path = `/book?account=${account}`
    for (let left = accountLength - (await control(upstream, 'GET', path)).length; left > 0; left--) {
      const submittedAt = new Date(Date.UTC(2026, 2, 31) + left * 60_000).toISOString()
      const kind = { symbol: 'AAPL', side: 'buy', type: 'limit', time_in_force: 'gtc', qty: '1', limit_price: '90.00' }
      await control(upstream, 'POST', '/orders', { account, submitted_at: submittedAt, ...kind })
    }
    const rows = await control(upstream, 'GET', path)
    books.set(account, rows.map((row) => String(readField(row, 'id'))).slice(0, accountLength))
  }
  return books
}

/** Returns the calls that a request of the row costs, and its answer. */
async function countCalls(row: Row, url: string, upstream: Upstream, load: Ask<'load'>) {
  const bodies = row.callers.flat()
  await control(upstream, 'DELETE', '/log')
  const [result] = await load([
    {
      url,
      callers: row.isTogether ? row.callers : [bodies],
      isTogether: row.isTogether,
      requestsMax: row.isTogether ? row.callers.length * 10 : Math.max(10, Math.min(40, bodies.length)),
      msMax: 60_000,
      isLimited: false,
    },
  ])
  if (!result) throw new Error('the load has no result')
  const log = await control(upstream, 'GET', '/log')
  if (log.some((entry) => readField(entry, 'status') !== 200)) throw new Error('the broker did not answer every call')
  const answer: unknown = JSON.parse(result.sample, (key, value: unknown) => (key === 'endCursor' ? null : value))
  return { calls: log.length / result.answered, answer }
}

interface Server {
  url: string
  readCpuMs(): Promise<number>
}

/** Blotter and the peer. */
type Servers = readonly [Server, Server]

/** Requests a second, and the server's CPU a request. */
async function measure({ url, readCpuMs }: Server, { callers, isTogether }: Row, ms: number, load: Ask<'load'>) {
  const before = await readCpuMs()
  const [result] = await load([{ url, callers, isTogether, requestsMax: Infinity, msMax: ms, isLimited: false }])
  if (!result) throw new Error('the load has no result')
  return { rate: (result.answered / result.ms) * 1_000, cpuMs: ((await readCpuMs()) - before) / result.answered }
}

/** Both figures of Blotter next to those of the peer, round by round. */
async function compare(row: Row, [ours, theirs]: Servers, slotMs: number, load: Ask<'load'>) {
  const rates: number[] = []
  const cpus: number[] = []
  for (let round = 0; round < roundsCount; round++) {
    // Taking turns at being first keeps a drift of the machine from favouring one of them.
    const first = await measure(round % 2 === 0 ? ours : theirs, row, slotMs, load)
    const second = await measure(round % 2 === 0 ? theirs : ours, row, slotMs, load)
    const [mine, other] = round % 2 === 0 ? [first, second] : [second, first]
    rates.push(mine.rate / other.rate)
    cpus.push(mine.cpuMs / other.cpuMs)
  }
  return { rates, cpus }
}

// ---- the parent -----------------------------------------------------------------------------------------------------

async function bench(seconds: number, dataDir: string, children: Set<ChildProcess>): Promise<void> {
  const broker = startChild('broker', children)
  const blotter = startChild('blotter', children)
  const peer = startChild('peer', children)
  const load = startChild('load', children)

  // At the published rate each document has a broker for each server, so that all can run at the same time.
  const [fast, ...limited] = await broker([unlimitedPerSecond, ...Array.from({ length: 6 }, () => publishedPerSecond)])
  if (!fast) throw new Error('no sandbox has started')
  const toBlotter = (upstream: Upstream, requestsPerSecond: number, capabilities = ''): BlotterOptions => ({
    upstream,
    requestsPerSecond,
    dataDir: join(dataDir, `${new URL(upstream.url).port}${capabilities}`),
    capabilities,
  })
  const toPeer = ({ url, apiKey, apiSecret }: Upstream, retries: boolean) => ({ url, apiKey, apiSecret, retries })
  const [blotters, peers] = await Promise.all([
    blotter([
      toBlotter(fast, blotterPerSecondMax),
      ...limited.slice(0, 2).map((upstream) => toBlotter(upstream, publishedPerSecond)),
      toBlotter(fast, blotterPerSecondMax, 'clientIdEcho'),
    ]),
    peer([
      toPeer(fast, false),
      ...limited.slice(2, 4).map((upstream) => toPeer(upstream, false)),
      ...limited.slice(4, 6).map((upstream) => toPeer(upstream, true)),
    ]),
  ])
  const servers: Servers = [
    { url: blotters.urls[0] ?? '', readCpuMs: async () => (await blotter([])).cpuMs },
    { url: peers.urls[0] ?? '', readCpuMs: async () => (await peer([])).cpuMs },
  ]
  const rows = createRows(await readBooks(fast))

  print(`Blotter next to a peer: GraphQL Yoga, DataLoader and undici, without limits, identity or log.
${availableParallelism()} cores, Node ${process.versions.node}; the broker, each server and the load are a process each and share the cores.

At full speed (above 1.00 Blotter has more of it; median of ${roundsCount} rounds, lowest to highest)
${toLine('', 'upstream calls a request', 'requests a second', 'CPU a request')}
${toLine('', 'Blotter      peer', 'Blotter / peer', 'Blotter / peer')}`)
  const slotMs = (seconds * 1_000) / (rows.length * servers.length * (warmUpRounds + roundsCount))
  for (const row of rows) {
    for (const server of servers) await measure(server, row, slotMs * warmUpRounds, load)
  }
  for (const row of rows) {
    const [ours, theirs] = [
      await countCalls(row, servers[0].url, fast, load),
      await countCalls(row, servers[1].url, fast, load),
    ]
    // Servers that answer different things do not do the same work.
    if (!isDeepStrictEqual(ours.answer, theirs.answer)) throw new Error(`the answers differ: ${row.name}`)
    const { rates, cpus } = await compare(row, servers, slotMs, load)
    const range = `(${Math.min(...rates).toFixed(2)} to ${Math.max(...rates).toFixed(2)})`
    print(
      toLine(
        row.name,
        `${ours.calls.toFixed(2).padStart(7)}${theirs.calls.toFixed(2).padStart(10)}`,
        `${toMedian(rates).toFixed(2)} ${range.padStart(16)}`,
        toMedian(cpus).toFixed(2),
      ),
    )
  }

  const urls = [...blotters.urls.slice(1, 3), ...peers.urls.slice(1)]
  const bodies = [rows[2], rows[4]].map((row) => row?.callers[0] ?? [])
  const results = await load(
    urls.map((url, index) => ({
      url,
      callers: [bodies[index % 2] ?? []],
      isTogether: false,
      requestsMax: Infinity,
      msMax: publishedMs,
      isLimited: true,
    })),
  )
  const cells = await Promise.all(
    results.map(async ({ answered, refused }, index) => {
      const log = limited[index] ? await control(limited[index], 'GET', '/log') : []
      const throttled = log.filter((entry) => readField(entry, 'status') === 429)
      return `${answered} (${refused}; ${log.length}, ${throttled.length})`
    }),
  )
  print(`
At the published rate of ${publishedPerSecond} calls a second: one caller for ${publishedMs / 1000} s, who waits ${refusedWaitMs / 1000} s when refused
Requests answered in full (refused; calls upstream, of them answered 429)
${toLine('', 'Blotter', 'peer', 'peer that retries')}
${toLine(rows[2]?.name ?? '', cells[0] ?? '', cells[2] ?? '', cells[4] ?? '')}
${toLine(rows[4]?.name ?? '', cells[1] ?? '', cells[3] ?? '', cells[5] ?? '')}`)

  const [account = '', other = ''] = fast.accounts
  const writes = await measureWrites({
    urls: { looking: blotters.urls[0] ?? '', certified: blotters.urls[3] ?? '' },
    async rate(url, callers, msMax) {
      const [result] = await load([{ url, callers, isTogether: false, requestsMax: Infinity, msMax, isLimited: false }])
      return result === undefined ? 0 : (result.answered / result.ms) * 1_000
    },
    accountId: other,
    orderIds: (await readBooks(fast)).get(account) ?? [],
    roundMs: seconds * 100,
    env: { BLUUM_URL: fast.url, BLUUM_API_KEY: fast.apiKey, BLUUM_API_SECRET: fast.apiSecret },
    dataDir: join(dataDir, 'writes'),
  })
  print(`
Writing: three commits on the disk for each placement (requests a second for each read of one order)
placements, with a pre-send snapshot each            ${writes.looking.toFixed(2)}
placements, if clientIdEcho is certified             ${writes.certified.toFixed(2)}
repeats of a key                                     ${writes.repeats.toFixed(2)}
A start with 10,000 records, 50 of them unknown: ready after ${Math.round(writes.fullStartMs)} ms, with none after ${Math.round(writes.emptyStartMs)} ms`)

  const orderIds = (await readBooks(fast)).get(account) ?? []
  await benchAbuse(fast, seconds, { dataDir: join(dataDir, 'abuse'), children, orderIds })
}

async function benchAbuse(
  upstream: Upstream,
  seconds: number,
  { dataDir, children, orderIds }: { dataDir: string; children: Set<ChildProcess>; orderIds: readonly string[] },
): Promise<void> {
  // Separate services, with authentication and all limits, in separate processes, because the memory of the others would be
  // counted.
  const guarded = startChild('blotter', children)
  const { all, sign, tokenEnv } = await import('../test/issuer.ts')
  const toGuarded = (name: string, limits: Record<string, string>): BlotterOptions => ({
    upstream,
    requestsPerSecond: blotterPerSecondMax,
    dataDir: join(dataDir, name),
    capabilities: '',
    env: { ...tokenEnv, ...limits },
  })
  const unbounded = { LIMIT_OPERATIONS_PER_SECOND: '10000' }
  const { urls } = await guarded([toGuarded('open', unbounded), toGuarded('limited', {})])
  const [open = '', limited = ''] = urls
  const [load, flood, floodBeside] = [
    startChild('load', children),
    startChild('flood', children),
    startChild('flood', children),
  ]
  const figures = await measureAbuse({
    open: { url: open, readCpuMs: async () => (await guarded([])).cpuMs },
    limited: { url: limited },
    headersOf: async (name) => ({ authorization: `Bearer ${await sign({ ...all, sub: name })}` }),
    flood,
    floodBeside,
    async rate(url, callers, headers, msMax) {
      const bounds = { isTogether: false, requestsMax: Infinity, msMax, isLimited: false }
      const [result] = await load([{ url, callers, headers, ...bounds }])
      return result === undefined ? 0 : (result.answered / result.ms) * 1_000
    },
    orderIds,
    roundMs: seconds * 200,
  })
  const kinds = [...figures.refusedMs].map(
    ([kind, ms]) => `${`CPU of a document that is refused: ${kind}`.padEnd(75)}${ms.toFixed(1).padStart(6)} ms`,
  )
  print(`
Abuse, with tokens and all limits
${kinds.join('\n')}
Requests a second during 100 of those a second, divided by without          ${figures.throughput.toFixed(2)}
A caller's wait (p95) during 300 requests a second of another, divided by without ${figures.wait.toFixed(1)}; refused of the flood: ${(figures.floodRefused * 100).toFixed(0)} %`)
}

function toLine(name: string, first: string, second: string, third: string): string {
  return `${name.padEnd(41)}${first.padStart(24)}${second.padStart(24)}${third.padStart(20)}`
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

async function runBench(seconds: number): Promise<void> {
  const children = new Set<ChildProcess>()
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-bench-'))
  const stop = (): void => {
    for (const child of children) child.kill('SIGKILL')
    rmSync(dataDir, { recursive: true, force: true })
  }
  process.once('exit', stop)
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(signal, () => process.exit(code))
  }
  await bench(seconds, dataDir, children)
  process.exit()
}

function parseSeconds(): number | null {
  try {
    const { values } = parseArgs({ options: { seconds: { type: 'string' } } })
    const seconds = Number(values.seconds ?? secondsDefault)
    return seconds >= 2 && seconds <= 120 ? seconds : null
  } catch {
    return null
  }
}

const [flag, child] = process.argv.slice(2)
if (flag === '--child') {
  runChild(child ?? '')
} else {
  const seconds = parseSeconds()
  if (seconds === null) {
    process.stderr.write(usage)
    process.exit(2)
  }
  runBench(seconds).catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
    process.exit(1)
  })
}
