// What a person runs beside the service.

import { join } from 'node:path'
import { readConfig } from './config.ts'
import { createSchema, printSchema } from './schema.ts'
import { startSandbox } from './sandbox/server.ts'
import type { Sandbox } from './sandbox/server.ts'

/** Reads the settings as `serve` would, and says that they can be used. Throws ConfigError. */
export function checkConfig(env: NodeJS.ProcessEnv): string {
  const config = readConfig(env)
  const upstream = config.bluum === null ? 'the embedded sandbox' : new URL(config.bluum.url).host
  return `The settings can be used: GraphQL on ${config.host}:${config.port} over ${upstream}.`
}

/** The subgraph's SDL, as schema.graphql holds it. */
export function printSubgraph(): string {
  return printSchema(createSchema())
}

/** Starts the sandbox alone, with the settings that `serve` gives it. The caller closes it. */
export function startSandboxAlone(env: NodeJS.ProcessEnv): Promise<Sandbox> {
  const { dataDir, sandbox, bluumRequestsPerSecond: requestsPerSecond } = readConfig(env)
  const stateFile = join(dataDir, 'sandbox.sqlite')
  return startSandbox({ stateFile, seed: sandbox.seed, port: sandbox.port, requestsPerSecond })
}
