import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

// For the processes that tests start and for vitest's own: half of what it takes to start one is compiling.
process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(new URL('node_modules/.cache/compile', import.meta.url))

export default defineConfig({
  // Vitest would load graphql's ES module build beside the CommonJS one that Yoga and the federation packages
  // load, and graphql refuses a schema "from another module or realm".
  resolve: { alias: { graphql: 'graphql/index.js' } },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/compile.ts',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Most tests wait for sockets and clocks: more of them at once than there are cores.
    maxWorkers: 3,
  },
})
