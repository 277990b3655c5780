// The `blotter` command as a person runs it: words in, words and an exit code out.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Sandbox } from '../sandbox/server.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

/** All that a process started by a test knows of the environment of the tests. */
export const bareEnv = {
  PATH: process.env['PATH'] ?? '',
  HOME: process.env['HOME'] ?? '',
  NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? '',
}

export interface Ended {
  code: number | null
  out: string
  err: string
}

export interface CommandOptions {
  env?: Record<string, string>
  nodeOptions?: readonly string[]
  /** Sends SIGINT once stdout matches. */
  interruptAt?: RegExp
}

/** Runs the command to its end. */
export async function runBlotter(args: readonly string[], options: CommandOptions = {}): Promise<Ended> {
  const { env = {}, nodeOptions = [], interruptAt } = options
  const child = spawn(process.execPath, [...nodeOptions, 'src/main.ts', ...args], {
    cwd: root,
    env: { ...bareEnv, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  let isInterrupted = false
  child.stderr.on('data', (chunk) => (err += String(chunk)))
  child.stdout.on('data', (chunk) => {
    out += String(chunk)
    if (isInterrupted || interruptAt?.test(out) !== true) return
    isInterrupted = true
    child.kill('SIGINT')
  })
  // Not 'exit', which may come before the last words.
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out, err }
}

/** A sandbox in a process of its own, as far as it tells of itself. */
export type SandboxApart = Omit<Sandbox, 'close'>

/** The last line of what `blotter sandbox` says when it is ready. */
export const greetingEnd = /trading ids .*\n/

/** The sandbox of which that is said. */
export function readGreeting(printed: string): SandboxApart {
  const find = (pattern: RegExp): string => pattern.exec(printed)?.[1] ?? ''
  return {
    url: find(/broker is on (\S+),/),
    controlUrl: find(/control port on (\S+)\.\n/),
    apiKey: find(/key +(\S+)/),
    apiSecret: find(/secret +(\S+)/),
    accounts: find(/accounts +(.*)/).split(', '),
    investors: [],
    demo: { filledOrderId: '', openOrderId: '', symbol: 'AAPL', limitPrice: '1.00' },
    aries: {
      url: find(/Aries on (\S+)/),
      clientId: find(/client id +(\S+)/),
      clientSecret: find(/client secret +(\S+)/),
      refreshToken: find(/refresh token +(\S+)/),
      accessToken: find(/access token +(\S+)/),
      accounts: find(/trading ids +(.*) \(/).split(', '),
      tradingId: find(/trading ids .*\((\w+)\)/) as Sandbox['aries']['tradingId'],
      demo: { filledOrderId: '', openOrderId: '' },
    },
  }
}
