// The real process, as a person starts it: what it prints, how it stops, and when it refuses to start.

import { execFile, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import { bareEnv } from '../command.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

function makeDataDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'blotter-start-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

interface Running {
  process: ChildProcess
  /** All of stdout so far. */
  output(): string
  url: string
  controlUrl: string
  /** The exit code; null when a signal ended it. */
  exited: Promise<number | null>
}

/** Starts a command and waits for the line that says it is ready. Ended when the test is over. */
async function start(command: string, args: string[], env: Record<string, string>): Promise<Running> {
  const child = spawn(command, args, {
    cwd: root,
    env: { ...bareEnv, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: npm does not pass a SIGKILL on to the server.
    detached: true,
  })
  const exited = once(child, 'exit').then(([code]) => code as number | null)
  onTestFinished(async () => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL')
    } catch {
      // Over already.
    }
    await exited
  })
  let output = ''
  let complaints = ''
  child.stderr.on('data', (chunk) => (complaints += String(chunk)))
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      output += String(chunk)
      if (/^ {2}try .*\n/m.test(output)) resolve()
    })
    void exited.then((code) => reject(new Error(`ended with ${code}: ${complaints}`)))
  })
  return {
    process: child,
    output: () => output,
    url: /ready on (\S+)/.exec(output)?.[1] ?? '',
    controlUrl: /control port (\S+)/.exec(output)?.[1] ?? '',
    exited,
  }
}

const startServer = (env: Record<string, string>) => start(process.execPath, ['src/main.ts', 'serve'], env)

/** Runs a command to its end; both outputs and the exit code. */
async function finish(
  args: string[],
  env: Record<string, string>,
): Promise<{ code: number; out: string; err: string }> {
  const options = { cwd: root, env: { ...bareEnv, PORT: '0', ...env } }
  try {
    const { stdout, stderr } = await run(process.execPath, ['src/main.ts', ...args], options)
    return { code: 0, out: stdout, err: stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, out: stdout, err: stderr }
  }
}

async function ask(url: string, query: string, variables?: object): Promise<{ data: Record<string, never> }> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  })
  return (await response.json()) as { data: Record<string, never> }
}

describe('npm start', () => {
  it('prints the address, the demo accounts and a curl that works as printed', async () => {
    const { output, url } = await start('npm', ['start', '--silent'], { DATA_DIR: makeDataDir() })
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/graphql$/)
    expect(output()).toMatch(/^ {2}accounts +[0-9a-f-]{36}, [0-9a-f-]{36}$/m)
    const curl = /^ {2}try +(curl .*)$/m.exec(output())?.[1] ?? ''
    const { stdout } = await run('sh', ['-c', curl])
    expect(JSON.parse(stdout)).toMatchObject({
      data: { order: { id: expect.stringMatching(/^ord_/), status: 'FILLED' } },
    })
  })

  it('ends with npm, and leaves no server behind', async () => {
    const { process: npm, exited, url } = await start('npm', ['start', '--silent'], { DATA_DIR: makeDataDir() })
    npm.kill('SIGTERM')
    await exited
    await expect(fetch(url)).rejects.toThrow('fetch failed')
  })
})

describe('serve', () => {
  it('G12 connects to nothing but loopback, and looks up no name', async () => {
    const spy = `
      import dns from 'node:dns'; import net from 'node:net'
      const tell = (what) => process.stdout.write('OUTBOUND ' + JSON.stringify(what) + '\\n')
      const { connect } = net.Socket.prototype
      net.Socket.prototype.connect = function (...args) {
        const target = Array.isArray(args[0]) ? args[0][0] : args[0]
        tell(target?.host ?? target?.path ?? 'unknown')
        return connect.apply(this, args)
      }
      const { lookup } = dns
      dns.lookup = function (name, ...rest) { tell('lookup ' + name); return lookup.call(this, name, ...rest) }`
    const running = await start(
      process.execPath,
      ['--import', `data:text/javascript,${encodeURIComponent(spy)}`, 'src/main.ts', 'serve'],
      { DATA_DIR: makeDataDir() },
    )
    await ask(running.url, '{ tradingAccounts { orders(first: 1) { nodes { id } } } }')
    await fetch(running.url, { headers: { accept: 'text/html' } }).then((page) => page.text())
    const targets = [...running.output().matchAll(/^OUTBOUND (.*)$/gm)].map((match) => match[1])
    expect(targets).toContain('"127.0.0.1"')
    // Listening on an address passes through lookup too, which asks nobody.
    expect(targets.filter((target) => !/^"(lookup )?127\.0\.0\.1"$/.test(target ?? ''))).toEqual([])
  })

  it('drains after SIGTERM, finishes a placement that is under way, logs both and exits 0', async () => {
    const running = await startServer({ DATA_DIR: makeDataDir(), DRAIN_MS: '100' })
    const accountId = /accounts +(\S+),/.exec(running.output())?.[1]
    const rule = { match: { method: 'POST' }, fault: { kind: 'latency', ms: 700 } }
    await fetch(`${running.controlUrl}/rules`, { method: 'PUT', body: JSON.stringify([rule]) })
    const input = {
      accountId,
      clientOrderId: 'stopping-0001',
      symbol: 'AAPL',
      side: 'BUY',
      type: 'LIMIT',
      timeInForce: 'GTC',
      quantity: '1',
      limitPrice: '1.00',
    }
    const placing = ask(
      running.url,
      'mutation P($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome orderId } }',
      { input },
    )
    // Only once the broker has the order is it under way.
    await expect
      .poll(async () => (await (await fetch(`${running.controlUrl}/log`)).text()).includes('stopping-0001'), {
        timeout: 10_000,
      })
      .toBe(true)
    running.process.kill('SIGTERM')
    expect(await placing).toEqual({
      data: { placeOrder: { outcome: 'PLACED', orderId: expect.stringMatching(/^ord_/) } },
    })
    expect(await running.exited).toBe(0)
    expect(running.output()).toMatch(
      /"drainMs":100,"shutdownMs":35000,"unresolved":0,"msg":"stopping"[^]*"ms":\d+,"unresolved":0,"msg":"stopped"/,
    )
  })

  it('stops within SHUTDOWN_MS, also if a call hangs', async () => {
    const running = await startServer({ DATA_DIR: makeDataDir(), SHUTDOWN_MS: '300' })
    const accountId = /accounts +(\S+),/.exec(running.output())?.[1]
    const rule = { match: { method: 'POST' }, fault: { kind: 'hang' } }
    await fetch(`${running.controlUrl}/rules`, { method: 'PUT', body: JSON.stringify([rule]) })
    const placing = ask(
      running.url,
      `mutation { placeOrder(input: {accountId: "${accountId}", clientOrderId: "hanging-0001", symbol: "AAPL", side: BUY,
        type: LIMIT, timeInForce: GTC, quantity: "1", limitPrice: "1.00"}) { outcome } }`,
    ).catch(() => null)
    await expect
      .poll(async () => (await (await fetch(`${running.controlUrl}/log`)).text()).includes('hanging-0001'), {
        timeout: 10_000,
      })
      .toBe(true)
    running.process.kill('SIGTERM')
    // Far below the 30 s that a placement may take.
    const ended = await Promise.race([
      running.exited,
      new Promise((resolve) => setTimeout(resolve, 10_000, 'too late')),
    ])
    expect(ended).toBe(0)
    await placing
  })

  it('keeps the orders of the sandbox over a restart', async () => {
    const env = { DATA_DIR: makeDataDir() }
    const first = await startServer(env)
    const accountId = /accounts +(\S+),/.exec(first.output())?.[1]
    const placed = await ask(
      first.url,
      `mutation { placeOrder(input: {accountId: "${accountId}", clientOrderId: "restart-0001", symbol: "AAPL", side: BUY,
        type: LIMIT, timeInForce: GTC, quantity: "1", limitPrice: "1.00"}) { orderId } }`,
    )
    const { orderId } = placed.data.placeOrder as unknown as { orderId: string }
    first.process.kill('SIGTERM')
    expect(await first.exited).toBe(0)
    const second = await startServer(env)
    expect(await ask(second.url, `{ order(id: "${orderId}") { status clientOrderId } }`)).toEqual({
      data: { order: { status: 'ACCEPTED', clientOrderId: 'restart-0001' } },
    })
  })

  it('G10 refuses settings that cannot be used, by name and never by value', async () => {
    const { code, out, err } = await finish(['serve'], { BLUUM_URL: 'http://evil.example', BLUUM_API_KEY: 'hidden' })
    expect(code).toBe(1)
    expect(out).toBe('')
    expect(err).toMatch(/BLUUM_URL must be[^]*BLUUM_API_SECRET is missing[^]*AUTH is missing/)
    expect(err).not.toMatch(/evil|hidden|at readConfig/)
  })

  it('says which port is taken, and leaves nothing running', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    onTestFinished(() => void taken.close())
    await once(taken, 'listening')
    const port = String((taken.address() as { port: number }).port)
    const { code, err } = await finish(['serve'], { PORT: port, DATA_DIR: makeDataDir() })
    expect(code).toBe(1)
    expect(err).toContain(`PORT ${port}`)
  })

  it('refuses a seed that the kept state was not made with', async () => {
    const env = { DATA_DIR: makeDataDir() }
    const first = await startServer({ ...env, SANDBOX_SEED: 'one' })
    first.process.kill('SIGTERM')
    await first.exited
    const { code, err } = await finish(['serve'], { ...env, SANDBOX_SEED: 'two' })
    expect(code).toBe(1)
    expect(err).toMatch(/SANDBOX_SEED/)
    expect(err).toMatch(/DATA_DIR/)
  })
})

describe('on an older Node', () => {
  /** The first Node on PATH that is too old to run the service, outside of node_modules; null if there is none. */
  async function findOldNode(): Promise<string | null> {
    for (const folder of bareEnv.PATH.split(':').filter((path) => !path.includes('node_modules'))) {
      const version = await run(join(folder, 'node'), ['-p', 'process.versions.node']).catch(() => null)
      const [major = 99] = version?.stdout.split('.').map(Number) ?? []
      if (major < 24) return join(folder, 'node')
    }
    return null
  }

  const fake = 'Object.defineProperty(process, "versions", { value: { ...process.versions, node: "24.10.3" } })'

  it('each command says which one is needed and how to get it, and nothing else', async () => {
    const options = { cwd: root, env: bareEnv }
    const old = await findOldNode()
    const commands: [string, string[]][] = [
      [process.execPath, ['--import', `data:text/javascript,${encodeURIComponent(fake)}`, 'src/blotter.js']],
      ...(old === null ? [] : [[old, ['src/blotter.js']] satisfies [string, string[]]]),
    ]
    for (const [node, args] of commands) {
      for (const command of ['serve', '--version', 'check-config']) {
        const ended = await run(node, [...args, command], options).then(
          () => expect.unreachable(`${node} ran ${command}`),
          (error: unknown) => error as { code: number; stdout: string; stderr: string },
        )
        expect({ code: ended.code, out: ended.stdout }).toEqual({ code: 1, out: '' })
        expect(ended.stderr).toMatch(/^Blotter needs Node 24\.11 or newer, and this is Node \d+\.\d+\.\d+ \(/)
        expect(ended.stderr).toMatch(/npm start[^]*--omit=dev[^]*nodejs\.org/)
        expect(ended.stderr).not.toMatch(/ERR_|\n {4}at /)
      }
    }
  })

  it('and on this one runs the command', async () => {
    const { stdout } = await run(process.execPath, ['src/blotter.js', '--version'], { cwd: root, env: bareEnv })
    expect(stdout).toBe('0.1.0\n')
  })
})

describe('the other commands', () => {
  it('check-config says that settings can be used, or what is wrong with them', async () => {
    expect((await finish(['check-config'], {})).out).toContain('can be used')
    const wrong = await finish(['check-config'], { PORT: 'x' })
    expect(wrong.code).toBe(1)
    expect(wrong.err).toContain('PORT must be')
  })

  it('check-config and the log of a start report misspelt names and STORE_INIT', async () => {
    const env = { DATA_DIR: makeDataDir(), NODE_ENV: 'production', TRADNG: 'hidden' }
    const before = await finish(['check-config'], env)
    expect(before.code).toBe(0)
    expect(before.out).toMatch(
      /can be used[^]*\nWarning: TRADNG is set, [^\n]* TRADING\.\nWarning: There is no store in DATA_DIR/,
    )
    expect((await finish(['serve'], env)).err).toContain('STORE_INIT')
    const running = await startServer({ ...env, STORE_INIT: '1' })
    expect(running.output()).toMatch(/"level":"warn","time":"[^"]*","msg":"TRADNG is set, [^"]* TRADING\."/)
    expect(running.output()).not.toMatch(/hidden|STORE_INIT/)
    const after = await finish(['check-config'], { ...env, STORE_INIT: '1' })
    expect(after.out).toMatch(
      /\nWarning: TRADNG [^\n]*\nWarning: STORE_INIT=1 is still set although there is a store: unset it/,
    )
    expect((await finish(['check-config'], { ...env, TRADNG: '' })).out).not.toContain('Warning')
  })

  it('--version prints the version', async () => {
    expect((await finish(['--version'], {})).out).toBe('0.1.0\n')
  })

  it('print-schema prints the SDL, with --api that of the API without federation', async () => {
    expect((await finish(['print-schema'], {})).out).toContain('type Order @key')
    expect((await finish(['print-schema', '--api'], {})).out).toContain('type Order {')
  })

  it('an unknown command is an error that shows the commands', async () => {
    const { code, out, err } = await finish(['trade'], {})
    expect(code).toBe(1)
    expect(out).toContain('Usage: blotter COMMAND')
    expect(err).toContain('"trade"')
  })
})
