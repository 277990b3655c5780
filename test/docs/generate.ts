// Writes `.env.example` and the generated parts of docs/reference. Run by `npm run generate`.

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { errorCodes } from '../../src/graph/errors.ts'
import { printBrokers } from './printBrokers.ts'
import { printEnvExample, printSettings } from './printSettings.ts'

const root = new URL('../../', import.meta.url)

/** The generated parts: the name in their markers, the page, and their text. */
export const generated: { name: string; page: string; print: () => string }[] = [
  { name: 'brokers', page: 'docs/reference/brokers.md', print: printBrokers },
  { name: 'settings', page: 'docs/reference/settings.md', print: printSettings },
  { name: 'errors', page: 'docs/reference/errors.md', print: printErrors },
  { name: 'commands', page: 'docs/reference/cli.md', print: printCommands },
]

function printErrors(): string {
  const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |\n`)
  return `| code | meaning |\n| --- | --- |\n${rows.join('')}`
}

function printCommands(): string {
  const main = fileURLToPath(new URL('src/main.ts', root))
  return `\`\`\`text\n${execFileSync(process.execPath, [main, 'help'], { encoding: 'utf8' })}\`\`\`\n`
}

/** Returns `text` with the part `name` replaced by `content`. Throws if `text` has no such part. */
export function replacePart(text: string, name: string, content: string): string {
  const part = new RegExp(`(<!-- ${name}: written by npm run generate -->\n)[^]*?(<!-- /${name} -->)`)
  if (!part.test(text)) throw new Error(`the page has no part ${name}`)
  return text.replace(part, (_, begin: string, end: string) => begin + content + end)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('.env.example', root), printEnvExample())
  for (const { name, page, print } of generated) {
    const file = new URL(page, root)
    writeFileSync(file, replacePart(readFileSync(file, 'utf8'), name, print()))
  }
}
