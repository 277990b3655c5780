import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const tests = globSync('test/**/*.ts', { cwd: root }).map((path) => readFileSync(`${root}${path}`, 'utf8'))
const cases = [...readFileSync(`${root}test/cases.md`, 'utf8').matchAll(/^\| ([A-H]\d\d) +\| (.+?) +\|$/gm)]
// An id starts a title or follows another id; titles may be in a table.
const ids = new Set(
  tests.flatMap((text) =>
    [...text.matchAll(/['`"]((?:[A-H]\d\d[, ]+)+)/g)].flatMap(([, list]) => list?.match(/[A-H]\d\d/g) ?? []),
  ),
)

it('lists each case id that a test title starts with in test/cases.md', () => {
  const listed = new Set(cases.map(([, id]) => id))
  expect([...ids].filter((id) => !listed.has(id))).toEqual([])
})

it('has a test for each case of test/cases.md, unless the case needs replicas', () => {
  const open = cases.flatMap(([, id = '', text = '']) => (ids.has(id) || text.endsWith('(replicas).') ? [] : [id]))
  expect(cases.length).toBeGreaterThan(80)
  expect(open).toEqual([])
})
