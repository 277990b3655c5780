// The `blotter` command as a person runs it: words in, words and an exit code out.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

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
