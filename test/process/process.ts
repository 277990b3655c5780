// The service and its broker, each in a process of its own: the broker lives on, whatever is done to the service.

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished, vi } from 'vitest'
import { openSqliteStore } from '../../src/store/sqlite/sqliteStore.ts'
import type { AuditReport } from '../../src/store/store.ts'
import { createCanary } from '../canary.ts'
import { bareEnv, greetingEnd, readGreeting } from '../command.ts'
import type { SandboxApart } from '../command.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A call as the sandbox's request log shows it. */
interface BrokerCall {
  /** Epoch ms by the broker's clock. */
  at: number
  method: string
  path: string
  idempotencyKey: string | null
  /** Empty where the broker did not read it. */
  body: string
}

/** The sandbox broker; whoever started it calls `close`. */
export interface BrokerProcess {
  accountId: string
  /** Another one, in which nothing has been placed unless a test did. */
  otherAccountId: string
  /** What a service needs to find it. */
  env: Record<string, string>
  /** Any request to its control port; the parsed answer. */
  control(method: string, path: string, body?: unknown): Promise<unknown>
  /** Replaces all fault rules. */
  setRules(...rules: object[]): Promise<void>
  /** All calls since the log was cleared, oldest first. */
  calls(): Promise<BrokerCall[]>
  /** Of those the placements. */
  posts(): Promise<{ clientOrderId: string | null; idempotencyKey: string | null }[]>
  /** Their keys. */
  sentKeys(): Promise<(string | null)[]>
  /** The orders of the account under one key. */
  booked(clientOrderId: string): Promise<Record<string, unknown>[]>
  close(): Promise<void>
}

/** One run of the service. */
export interface ServiceProcess {
  /** Such as `http://127.0.0.1:4000`. */
  origin: string
  pid: number
  /** From the start of the process until it said that it is ready. */
  readyMs: number
  /** Of that, how long it could have run and the machine had no core for it. */
  heldUpMs: number
  /** All of stdout, and of stderr, so far. */
  output(): string
  complaints(): string
  /** Runs a document. Throws when the service is gone, and when the answer has errors. */
  // What a document asked for; tests know its shape.
  // oxlint-disable-next-line typescript/no-explicit-any
  run(query: string, variables?: object): Promise<any>
  signal(name: NodeJS.Signals): void
  /** The exit code; null when a signal ended it. */
  exited: Promise<number | null>
  /** `kill -9`; resolves when it is gone. */
  kill(): Promise<void>
}

/** A folder that is deleted when the test is over. */
export function makeDataDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-process-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

// All that were started here: no service may tell of any.
const started: SandboxApart[] = []

/** Starts the sandbox broker alone. */
export async function startBroker(): Promise<BrokerProcess> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-broker-'))
  const child = launch(['sandbox'], { DATA_DIR: dataDir })
  const sandbox = readGreeting(await child.waitFor(greetingEnd))
  started.push(sandbox)
  const { url, controlUrl, apiKey, apiSecret } = sandbox
  const [accountId = '', otherAccountId = ''] = sandbox.accounts

  async function control(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(controlUrl + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return text === '' ? undefined : (JSON.parse(text) as unknown)
  }
  const calls = async (): Promise<BrokerCall[]> => (await control('GET', '/log')) as BrokerCall[]

  const posts: BrokerProcess['posts'] = async () =>
    (await calls())
      .filter(({ method, path }) => method === 'POST' && path.endsWith('/orders'))
      .map(({ body, idempotencyKey }) => {
        const order = JSON.parse(body || '{}') as { client_order_id?: string }
        return { clientOrderId: order.client_order_id ?? null, idempotencyKey }
      })

  return {
    accountId,
    otherAccountId,
    env: {
      BLUUM_URL: url,
      BLUUM_API_KEY: apiKey,
      BLUUM_API_SECRET: apiSecret,
      // So that only the tests of the rate wait for it.
      BLUUM_REQUESTS_PER_SECOND: '1000',
      AUTH: 'none',
    },
    control,
    setRules: async (...rules) => void (await control('PUT', '/rules', rules)),
    calls,
    posts,
    sentKeys: async () => (await posts()).map(({ clientOrderId }) => clientOrderId),
    booked: async (clientOrderId) =>
      ((await control('GET', `/book?account=${accountId}`)) as Record<string, unknown>[]).filter(
        (order) => order['client_order_id'] === clientOrderId,
      ),
    async close() {
      child.process.kill('SIGTERM')
      await child.exited
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

/**
 * Starts the service and waits until it is ready. Throws with its words when it refuses. Ended with the test, which fails
 * when the service has told what it must not.
 */
export async function startService(
  env: Record<string, string>,
  nodeOptions: readonly string[] = [],
): Promise<ServiceProcess> {
  const startedAt = performance.now()
  const child = launch(['serve'], env, nodeOptions)
  const canary = createCanary()
  canary.knowSettings(env)
  for (const sandbox of started) canary.knowBroker(sandbox)
  onTestFinished(async () => {
    child.process.kill('SIGKILL')
    await child.exited
    // Its last line may be torn.
    canary.noteOutput(child.output().replace(/.+$/, ''))
    canary.noteOutput(child.complaints())
    canary.expectSilent()
  })
  const printed = await child.waitFor(/"msg":"ready"/)
  const readyMs = performance.now() - startedAt
  const heldUpMs = readHeldUpMs(child.process.pid)
  const url = /"url":"([^"]+)"/.exec(printed)?.[1] ?? ''
  return {
    origin: new URL(url).origin,
    pid: child.process.pid ?? 0,
    readyMs,
    heldUpMs,
    output: child.output,
    complaints: child.complaints,
    async run(query, variables) {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query, variables }),
      })
      const text = await response.text()
      canary.noteAnswer(response.headers, text)
      const { data, errors } = JSON.parse(text) as { data: unknown; errors?: unknown }
      if (errors !== undefined) throw new Error(`the answer has errors: ${JSON.stringify(errors)}`)
      return data
    },
    signal: (name) => void child.process.kill(name),
    exited: child.exited,
    async kill() {
      child.process.kill('SIGKILL')
      await child.exited
    },
  }
}

/** 0 where the system does not tell. */
function readHeldUpMs(pid: number | undefined): number {
  try {
    // Ns on a core, ns waiting for one, and turns.
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6
  } catch {
    return 0
  }
}

// ---- what is asked of it ---------------------------------------------------------------------------------------------

export interface PlaceResult {
  outcome: string
  orderId: string | null
  replayed?: boolean
  notPlacedCode?: string
  certainty?: string
  retrySameKey?: boolean
}

const resultFields = `outcome orderId ... on OrderPlaced { replayed } ... on OrderNotPlaced { notPlacedCode certainty retrySameKey }`
const placeDocument = `mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { ${resultFields} } }`
const placementDocument = `query ($accountId: ID!, $clientOrderId: ID!) {
  placement(accountId: $accountId, clientOrderId: $clientOrderId) { state attempts orderId foundBy result { ${resultFields} } }
}`

export type Buy = ReturnType<typeof makeRestingBuy>
/** A buy far below the market, under a key of its own. */
export function makeRestingBuy(accountId: string, quantity = '1') {
  return {
    accountId,
    clientOrderId: randomUUID(),
    symbol: 'AAPL',
    side: 'BUY' as const,
    type: 'LIMIT' as const,
    timeInForce: 'GTC' as const,
    quantity,
    limitPrice: '1.00',
  }
}

export async function place(service: Pick<ServiceProcess, 'run'>, input: object): Promise<PlaceResult> {
  return (await service.run(placeDocument, { input })).placeOrder as PlaceResult
}

interface Placement {
  state: string
  attempts: number
  orderId: string | null
  foundBy: string | null
  result: PlaceResult
}

export async function placementOf(
  service: Pick<ServiceProcess, 'run'>,
  { accountId, clientOrderId }: Buy,
): Promise<Placement> {
  return (await service.run(placementDocument, { accountId, clientOrderId })).placement as Placement
}

/** Waits for what ends in the background; generous, since it is bounded and not measured. */
export function eventually(check: () => Promise<void>, timeout = 15_000): Promise<void> {
  return vi.waitFor(check, { timeout, interval: 20 })
}

/** Checks all chains of a store, beside a service or without one. */
export async function verifyAudit(dataDir: string): Promise<AuditReport> {
  const store = openSqliteStore({ file: join(dataDir, 'placements.sqlite'), role: 'operator', mayCreate: false })
  try {
    return await store.verifyAudit()
  } finally {
    await store.close()
  }
}

export const onPlace = { method: 'POST', path: '/orders$' }
export const onList = { method: 'GET', path: '/orders\\?' }

// ---- a process -------------------------------------------------------------------------------------------------------

interface Child {
  process: ChildProcess
  output(): string
  complaints(): string
  exited: Promise<number | null>
  /** All of stdout once it matches; rejects when the process ends before. */
  waitFor(pattern: RegExp): Promise<string>
}

function launch(args: readonly string[], env: Record<string, string>, nodeOptions: readonly string[] = []): Child {
  const child = spawn(process.execPath, [...nodeOptions, 'src/main.ts', ...args], {
    cwd: root,
    env: { ...bareEnv, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  let complaints = ''
  child.stderr.on('data', (chunk) => (complaints += String(chunk)))
  // Not 'exit', which may come before the last words.
  const exited = once(child, 'close').then(([code]) => code as number | null)
  const { promise: printed, reject } = Promise.withResolvers<never>()
  printed.catch(() => {})
  void exited.then((code) => reject(new Error(`ended with ${code}: ${complaints}`)))
  const listeners = new Set<() => void>()
  child.stdout.on('data', (chunk) => {
    output += String(chunk)
    for (const listener of listeners) listener()
  })
  return {
    process: child,
    output: () => output,
    complaints: () => complaints,
    exited,
    async waitFor(pattern) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const look = (): void => void (pattern.test(output) && resolve())
      listeners.add(look)
      look()
      await Promise.race([promise, printed])
      listeners.delete(look)
      return output
    },
  }
}
