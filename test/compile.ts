// Before the first test: what Node makes of the sources is kept, since the tests start the command some 150 times.

import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'

/**
 * Fills the cache that `vitest.config.ts` names, where it is not there yet. A process fills it as it ends by itself, and
 * most of those that tests start are killed.
 */
export default function fillCompileCache(): void {
  if (existsSync(process.env['NODE_COMPILE_CACHE'] ?? '')) return
  const source = "await import('./src/cli/serve.ts'); await import('./src/cli/operator.ts')"
  execFileSync(process.execPath, ['--input-type=module', '--eval', source], { stdio: 'ignore' })
}
