// The README is part of the product: its commands are run as printed, and answer what is printed.

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'
import { findBrokers, printBrokers } from './readme.brokers.ts'

const run = promisify(execFile)
const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const readme = read('README.md')

interface Block {
  language: string
  text: string
}
const blocks: Block[] = [...readme.matchAll(/^```(\w*)\n([^]*?)^```$/gm)].map(([, language = '', text = '']) => ({
  language,
  text,
}))

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(() => harness.close())

/** Runs a command of the README against the harness instead of the address that a reader has. */
async function runPrinted(command: string): Promise<string> {
  const here = command.replaceAll('http://localhost:4000/graphql', harness.url)
  const env = { PATH: process.env.PATH ?? '', CONTROL: harness.sandbox.controlUrl }
  return (await run('sh', ['-c', here], { env })).stdout
}

// Milliseconds differ from run to run.
function withoutTimes(json: string): unknown {
  return JSON.parse(json, (key, value: unknown) => (key === 'ms' ? 'some' : value))
}

describe('the README', () => {
  const answered = blocks.flatMap((block, index) => {
    const next = blocks[index + 1]
    return block.text.startsWith('curl') && next?.language === 'json' ? [[block.text, next.text] as const] : []
  })

  it('has commands with answers', () => {
    expect(answered.length).toBeGreaterThanOrEqual(3)
  })

  it.each(answered)('runs %s', async (command, answer) => {
    expect(withoutTimes(await runPrinted(command))).toEqual(withoutTimes(answer))
  })

  it('makes the sandbox lose an answer as it says', async () => {
    const rule = blocks.find((block) => block.text.includes('$CONTROL/rules'))?.text ?? ''
    await runPrinted(rule)
    const place =
      answered.find(([command]) => command.includes('placeOrder'))?.[0].replace('readme-0001', 'readme-0002') ?? ''
    expect(JSON.parse(await runPrinted(place))).toMatchObject({ data: { placeOrder: { __typename: 'OrderPlaced' } } })
    const asked = answered
      .find(([command]) => command.includes('placement('))?.[0]
      .replace('readme-0001', 'readme-0002')
    expect(JSON.parse(await runPrinted(asked ?? ''))).toEqual({
      data: { placement: { state: 'PLACED', attempts: 1, foundBy: 'CLIENT_ORDER_ID' } },
    })
    expect(await runPrinted('curl -s $CONTROL/book')).toContain('readme-0002')
  })

  it('shows code that a test runs', () => {
    const tested = (read('test/frontend/operations.ts') + read('test/frontend/frontend.test.ts')).replaceAll(
      /\s+/g,
      ' ',
    )
    const shown = blocks.filter((block) => block.language === 'ts')
    expect(shown.length).toBeGreaterThan(0)
    for (const block of shown) expect(tested).toContain(block.text.replaceAll(/\s+/g, ' ').trim())
  })

  it('names every setting of .env.example that is built', () => {
    const [built = ''] = read('.env.example').split(/^# Not built yet/m)
    const names = [...built.matchAll(/^#? ?([A-Z][A-Z_0-9]+)=/gm)].map((match) => match[1] ?? '')
    const page = read('docs/reference/settings.md')
    expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([])
  })

  it('tells what each broker can and cannot do; run `npm run generate` after a change', () => {
    expect(findBrokers(read('docs/reference/brokers.md'))).toBe(printBrokers())
  })

  it('counts the seeded orders rightly', async () => {
    const counts = await Promise.all(
      harness.sandbox.accounts.map(async (account) => (await harness.book(account)).length),
    )
    const seeded = counts.reduce((sum, count) => sum + count, 0)
    // Two orders were placed above.
    expect(harness.sandbox.accounts).toHaveLength(2)
    expect(readme).toMatch(new RegExp(`two accounts and\\s+${seeded - 2} orders`))
  })

  it('tells of no file that is not there', () => {
    const paths = [...readme.matchAll(/`?((?:src|test)\/[\w./-]+)`?/g)].map((match) => match[1] ?? '')
    expect(paths.length).toBeGreaterThan(5)
    for (const path of paths) expect(() => read(path), path).not.toThrow(/ENOENT/)
  })
})
