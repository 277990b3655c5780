// `blotter sandbox`: runs the sandbox broker alone.

import { join } from 'node:path'
import { readConfig } from '../config/config.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import type { Env } from './operator.ts'

/** Starts the sandbox alone, with the settings that `serve` gives it. The caller closes it. */
export async function startSandboxAlone(env: Env): Promise<Sandbox> {
  const { dataDir, sandbox, brokers } = readConfig(env)
  const [first] = brokers.values()
  const stateFile = join(dataDir, 'sandbox.sqlite')
  const { startSandbox } = await import('../../sandbox/server.ts')
  return await startSandbox({ ...sandbox, stateFile, requestsPerSecond: first?.requestsPerSecond ?? 1_000 })
}
