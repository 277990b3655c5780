import { defineConfig } from 'vitest/config'

export default defineConfig({
  // Vitest would load graphql's ES module build beside the CommonJS one that Yoga and the federation packages
  // load, and graphql refuses a schema "from another module or realm".
  resolve: { alias: { graphql: 'graphql/index.js' } },
  // Most tests wait for sockets and clocks: more of them at once than there are cores.
  test: { include: ['test/**/*.test.ts'], testTimeout: 30_000, hookTimeout: 30_000, maxWorkers: 3 },
})
