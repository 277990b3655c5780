// The docs are part of the product: a printed command answers as printed, code is code that a test runs, and each link,
// path, setting and limit exists.

import { execFile } from 'node:child_process'
import { existsSync, globSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'
import { generated, replacePart } from './generate.ts'
import { printEnvExample } from './printSettings.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

// The README first: its commands place and cancel the order that the guides show.
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  ...globSync('docs/**/*.md', { cwd: root }).toSorted(),
  'examples/supergraph/README.md',
  'sandbox/README.md',
].map((path) => ({ path, text: read(path) }))
const textOf = (path: string): string => pages.find((page) => page.path === path)?.text ?? ''

interface Block {
  page: string
  language: string
  text: string
}
const blocks: Block[] = pages.flatMap(({ path: page, text }) =>
  [...text.matchAll(/^```(\w*)\n([^]*?)^```$/gm)].map(([, language = '', content = '']) => ({
    page,
    language,
    text: content,
  })),
)

/** The commands that are followed by their answer. */
const answered = blocks.flatMap((block, index) => {
  const next = blocks[index + 1]
  const isAnswer = next?.language === 'json' && next.page === block.page
  return block.text.startsWith('curl') && isAnswer ? [{ page: block.page, command: block.text, answer: next.text }] : []
})

const withoutSpace = (text: string): string => text.replaceAll(/\s+/g, ' ').trim()

// Milliseconds differ from run to run.
function withoutTimes(json: string): unknown {
  return JSON.parse(json, (key, value: unknown) => (key === 'ms' ? 'some' : value))
}

describe('the commands of the docs', () => {
  let harness: Harness
  beforeAll(async () => {
    harness = await startHarness()
  })
  afterAll(() => harness.close())

  /** Runs a printed command against the harness instead of the address that a reader has. */
  async function runPrinted(command: string): Promise<string> {
    const here = command.replaceAll('http://localhost:4000/graphql', harness.url)
    const env = { PATH: process.env['PATH'] ?? '', CONTROL: harness.sandbox.controlUrl }
    return (await run('sh', ['-c', here], { env })).stdout
  }

  const findCommand = (part: string): string => answered.find(({ command }) => command.includes(part))?.command ?? ''

  it('counts the seeded orders as the README does', async () => {
    const counts = await Promise.all(
      harness.sandbox.accounts.map(async (account) => (await harness.book(account)).length),
    )
    const seeded = counts.reduce((sum, count) => sum + count, 0)
    expect(harness.sandbox.accounts).toHaveLength(2)
    expect(textOf('README.md')).toMatch(new RegExp(`two accounts and\\s+${seeded} orders`))
  })

  it('are found in the README and in guides', () => {
    expect(answered.length).toBeGreaterThanOrEqual(8)
  })

  it.each(answered)('answers as $page prints: $command', async ({ command, answer }) => {
    expect(withoutTimes(await runPrinted(command))).toEqual(withoutTimes(answer))
  })

  it('makes the sandbox lose an answer as docs/guides/sandbox-faults.md describes', async () => {
    const rule = blocks.find(({ text }) => text.includes('$CONTROL/rules'))?.text ?? ''
    await runPrinted(rule)
    const place = findCommand('placeOrder').replace('readme-0001', 'readme-0002')
    expect(JSON.parse(await runPrinted(place))).toMatchObject({ data: { placeOrder: { __typename: 'OrderPlaced' } } })
    const query = findCommand('placement(').replace('readme-0001', 'readme-0002')
    expect(JSON.parse(await runPrinted(query))).toEqual({
      data: { placement: { state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' } },
    })
    expect(await runPrinted('curl -s $CONTROL/book')).toContain('readme-0002')
  })
})

describe('the text of the docs', () => {
  it('prints only TypeScript that a test runs', () => {
    const sources = [
      ...globSync('examples/clients/*.ts', { cwd: root }),
      ...globSync('test/frontend/*.ts', { cwd: root }),
    ]
    const tested = sources.map((path) => withoutSpace(read(path))).join(' ')
    const printed = blocks.filter(({ page, language }) => language === 'ts' && page.startsWith('docs/'))
    expect(printed.length).toBeGreaterThanOrEqual(8)
    for (const { text } of printed) expect(tested).toContain(withoutSpace(text))
  })

  it('has the generated parts as `npm run generate` writes them', () => {
    expect(read('.env.example')).toBe(printEnvExample())
    for (const { name, page, print } of generated) {
      expect(textOf(page), page).toBe(replacePart(textOf(page), name, print()))
    }
  })

  it('has the value of each limit that it names', () => {
    const sources = globSync('src/**/*.ts', { cwd: root }).map(read).join('\n')
    const rows = [...textOf('docs/reference/limits.md').matchAll(/^\| (.+) \| ([\d,]+) \| `(\w+)` \|$/gm)]
    expect(rows.length).toBeGreaterThan(20)
    for (const [row, , value = '', name = ''] of rows) {
      const values = [...sources.matchAll(new RegExp(`\\b${name}\\]?\\s*(?:[=:]|\\?\\?)\\s*([\\d_]+)`, 'g'))].map(
        (found) => Number(found[1]?.replaceAll('_', '')),
      )
      expect(values, row).toContain(Number(value.replaceAll(',', '')))
    }
  })

  it('has the drawing of placements that the state machine has', () => {
    const [, drawing = ''] = /^```\n([^]*?)^```$/m.exec(textOf('docs/design/placement.md')) ?? []
    const comments = globSync('src/trading/placement/*.ts', { cwd: root }).map(read).join('\n')
    const lines = drawing.trimEnd().split('\n')
    expect(lines.length).toBeGreaterThan(5)
    for (const line of lines)
      expect(comments).toContain(`// ${line.trimStart().length === line.length ? ' ' : ''}${line}`)
  })

  it('links to pages and headings that exist', () => {
    const broken = pages.flatMap(({ path, text }) =>
      [...text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)].flatMap(([link, target = '', anchor]) => {
        const file = target === '' ? path : join(dirname(path), target)
        if (!existsSync(join(root, file))) return [`${path}: ${link}`]
        return anchor === undefined || listAnchors(read(file)).includes(anchor) ? [] : [`${path}: ${link}`]
      }),
    )
    expect(broken).toEqual([])
  })

  it('names paths that exist', () => {
    const missing = pages.flatMap(({ path, text }) =>
      [
        ...text
          .replaceAll(/^```\w[^]*?^```$/gm, '')
          .matchAll(/(?<![\w./-])(?:src|sandbox|test|docs|bench|examples)\/[\w./-]*[\w/]/g),
      ].flatMap(([named]) => (existsSync(join(root, named)) ? [] : [`${path}: ${named}`])),
    )
    expect(missing).toEqual([])
  })

  it('keeps the README short enough to be read at once', () => {
    expect(textOf('README.md').split('\n').length).toBeLessThan(140)
  })

  it('maps each folder of src in the README', () => {
    const folders = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
    for (const { name } of folders) expect(textOf('README.md')).toContain(`src/${name}/ `)
  })

  it('has a page for each link of the README, and a link for each page', () => {
    const linked = new Set([...textOf('README.md').matchAll(/\]\((docs\/[^)#]+)/g)].map(([, target]) => target))
    expect(pages.filter(({ path }) => path.startsWith('docs/') && !linked.has(path))).toEqual([])
  })
})

/** The anchors of the headings of a page, as GitHub makes them. */
function listAnchors(text: string): string[] {
  return [...text.replaceAll(/^```[^]*?^```$/gm, '').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}
