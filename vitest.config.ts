import { existsSync, statfsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { BaseSequencer } from 'vitest/node'
import type { TestSpecification } from 'vitest/node'

// For the processes that tests start and for vitest's own: half of what it takes to start one is compiling.
process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(new URL('node_modules/.cache/compile', import.meta.url))

// Stores wait for the disk at every commit, and what else the machine does makes that long. No test is about a disk that
// forgets what was written, so where memory has the room, stores are kept there.
const memory = '/dev/shm'
if (process.env['TMPDIR'] === undefined && existsSync(memory)) {
  const { bavail, bsize } = statfsSync(memory)
  if (bavail * bsize > 2 ** 30) process.env['TMPDIR'] = memory
}

/** The files that take longest go first: where none has run before, vitest goes by size, and waits for them at the end. */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { long = [], short = [] } = Object.groupBy(await super.sort(files), ({ moduleId }) =>
      /\/(?:process\/process|process\/store|faults\/read|trading\/model|server\/slow\.http)\.test\.ts$/.test(moduleId)
        ? 'long'
        : 'short',
    )
    return [...long, ...short]
  }
}

export default defineConfig({
  // Vitest would load graphql's ES module build in addition to the CommonJS one that Yoga and the federation packages
  // load, and graphql refuses a schema "from another module or realm".
  resolve: { alias: { graphql: 'graphql/index.js' } },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/compile.ts',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    sequence: { sequencer: LongFirst },
    // Most tests wait for sockets and clocks: more of them at once than there are cores.
    maxWorkers: 4,
  },
})
