// A service with its embedded broker, started as `npm start` does, and what tests ask of both.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { expect, onTestFinished } from 'vitest'
import { readConfig } from '../src/config/config.ts'
import { errorCodes } from '../src/graph/errors.ts'
import { serve } from '../src/cli/serve.ts'
import type { Sandbox } from '../sandbox/server.ts'
import { createCanary } from './canary.ts'
import { bareEnv, greetingEnd, readGreeting } from './command.ts'
import type { SandboxApart } from './command.ts'

/** A call as the sandbox's request log shows it. */
export interface LoggedCall {
  method: string
  path: string
  status: number | null
  idempotencyKey: string | null
  authorization: string | null
  headers: Record<string, string>
  body: string
}

export interface Answer {
  status: number
  headers: Headers
  // What a document asked for; tests know its shape.
  // oxlint-disable-next-line typescript/no-explicit-any
  data: any
  errors: { message: string; path?: (string | number)[]; extensions: Record<string, unknown> }[] | undefined
}

export interface Harness {
  url: string
  /** Where its store is. */
  dataDir: string
  sandbox: Omit<Sandbox, 'close'>
  /** The main demo account. */
  accountId: string
  fetch(request: Request): Promise<Response>
  /** Runs a document through the server's front door. */
  run(query: string, variables?: object, headers?: Record<string, string>): Promise<Answer>
  /** The broker's request log, oldest first, since it was last cleared. */
  calls(): Promise<LoggedCall[]>
  clearCalls(): Promise<void>
  /** Replaces all fault rules of the sandbox. */
  setRules(...rules: object[]): Promise<void>
  /** Any other request to the sandbox's control port; the parsed answer. */
  control(method: string, path: string, body?: unknown): Promise<unknown>
  /** Every order of the account at the broker, in the broker's own JSON, newest first. */
  book(accountId?: string): Promise<Record<string, unknown>[]>
  /** The service's log so far, one JSON line each. */
  log(): string[]
  /** Throws when an answer or the log, since this was last called, has told a secret or what else it must not. */
  expectSilent(): void
  /** Then expects it silent too. */
  close(): Promise<void>
}

/** Starts a service on free ports with a store of its own; closed when the test or file that started it is over. */
export async function startHarness(env: Record<string, string> = {}, apart?: SandboxApart): Promise<Harness> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-test-'))
  const lines: string[] = []
  const log = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const service = await serve(readConfig({ PORT: '0', DATA_DIR: dataDir, LOG_LEVEL: 'debug', ...env }), log)
  const sandbox = service.sandbox ?? apart
  if (!sandbox) throw new Error('the harness runs over the sandbox')
  const accountId = sandbox.accounts[0] ?? ''
  const canary = createCanary()
  canary.knowSettings(env)
  canary.knowBroker(sandbox)
  let noted = 0

  function expectSilent(): void {
    canary.noteOutput(lines.slice(noted).join(''))
    noted = lines.length
    canary.expectSilent()
  }

  async function ask(request: Request): Promise<Response> {
    canary.knowHeaders(request.headers)
    const response = await service.fetch(request)
    const { status, headers } = response
    const text = await response.text()
    canary.noteAnswer(headers, text)
    return new Response(text === '' ? null : text, { status, headers })
  }

  async function control(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(sandbox?.controlUrl + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return text === '' ? undefined : (JSON.parse(text) as unknown)
  }

  return {
    url: service.url,
    dataDir,
    sandbox,
    accountId,
    fetch: ask,
    async run(query, variables, headers) {
      const response = await ask(
        new Request(service.url, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...headers },
          body: JSON.stringify({ query, variables }),
        }),
      )
      const answer = (await response.json()) as Pick<Answer, 'data' | 'errors'>
      return { status: response.status, headers: response.headers, data: answer.data, errors: answer.errors }
    },
    calls: async () => (await control('GET', '/log')) as LoggedCall[],
    clearCalls: async () => void (await control('DELETE', '/log')),
    setRules: async (...rules) => void (await control('PUT', '/rules', rules)),
    control,
    book: async (account = accountId) =>
      (await control('GET', `/book?account=${account}`)) as Record<string, unknown>[],
    log: () => [...lines],
    expectSilent,
    async close() {
      await service.close()
      rmSync(dataDir, { recursive: true, force: true })
      expectSilent()
    },
  }
}

/**
 * A harness for one test whose broker runs in a process of its own: its clock and its log are then not held up by the
 * service's work, as they are when both share a process.
 */
export async function startForTestApart(env: Record<string, string> = {}): Promise<Harness> {
  const dataDir = mkdtempSync(join(tmpdir(), 'blotter-test-'))
  const child = spawn(process.execPath, ['src/main.ts', 'sandbox'], {
    cwd: new URL('..', import.meta.url),
    env: { ...bareEnv, DATA_DIR: dataDir, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(async () => {
    child.kill()
    await once(child, 'exit')
    rmSync(dataDir, { recursive: true, force: true })
  })
  let printed = ''
  for await (const chunk of child.stdout) {
    printed += String(chunk)
    if (greetingEnd.test(printed)) break
  }
  const sandbox = readGreeting(printed)
  const broker = { BLUUM_URL: sandbox.url, BLUUM_API_KEY: sandbox.apiKey, BLUUM_API_SECRET: sandbox.apiSecret }
  const harness = await startHarness({ ...env, ...broker, AUTH: 'none' }, sandbox)
  onTestFinished(() => harness.close())
  return harness
}

/** A harness for one test, closed when it is over. */
export async function startForTest(env?: Record<string, string>): Promise<Harness> {
  const harness = await startHarness(env)
  onTestFinished(() => harness.close())
  return harness
}

/** No answer may be anything else, whatever was asked: data, or errors of the closed list that the log can be searched by. */
export function expectLawful({ status, data, errors }: Pick<Answer, 'status' | 'data' | 'errors'>): void {
  expect([200, 400, 401, 403]).toContain(status)
  expect(data !== undefined || errors !== undefined, 'neither data nor errors').toBe(true)
  for (const { message, extensions } of errors ?? []) {
    expect(Object.keys(errorCodes)).toContain(extensions['code'])
    expect(extensions['code'], message).not.toBe('INTERNAL_SERVER_ERROR')
    expect(extensions['requestId']).toEqual(expect.any(String))
  }
}

/** The input of a limit buy far below the market, under a key of its own: it rests. */
export function limitBuy({ accountId }: Harness, fields: object = {}): PlaceInput {
  return {
    accountId,
    clientOrderId: randomUUID(),
    symbol: 'AAPL',
    side: 'BUY',
    type: 'LIMIT',
    timeInForce: 'GTC',
    quantity: '10',
    limitPrice: '10.00',
    ...fields,
  }
}

type PlaceInput = { accountId: string; clientOrderId: string } & Record<string, unknown>
