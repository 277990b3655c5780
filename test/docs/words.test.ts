import { describe, expect, it } from 'vitest'
import { findPhrases } from './words.ts'

const lines = (path: string, source: string) => findPhrases(path, source).map((found) => found.split(': write')[0])

describe('the word list', () => {
  it('finds a phrase that goes on in the next line of a comment', () => {
    expect(lines('src/a.ts', 'const a = 1\n  // The caller is\n  // told so.\n')).toEqual(['src/a.ts:2: "is told"'])
  })

  it('finds a clause at the start of a comment, a sentence and a string', () => {
    const source = `/** What it is. */\n// A call. Where it ends.\nconst text = 'Who may call.'\n`
    expect(lines('src/a.ts', source)).toEqual(['src/a.ts:1: "What"', 'src/a.ts:2: "Where"', 'src/a.ts:3: "Who"'])
  })

  it('ignores identifiers, names in strings, code in backticks, interpolations and regular expressions', () => {
    const source = [
      'const nobody = offer.anew',
      "const kind = 'whatever'",
      '// The field `nobody`.',
      'const text = `a text with ${nobody} in it`',
      "const quote = /it's/g // It's a quote.",
      'const ratio = a / b / c',
    ].join('\n')
    expect(lines('src/a.ts', source)).toEqual([])
  })

  it('allows questions, and "in flight"', () => {
    expect(lines('src/a.ts', '// Which broker has the order?\n// Three calls are in flight.')).toEqual([])
  })

  it('reads only the titles of a test file', () => {
    const source = "// Nobody reads this.\nit('C22 what it does', () => {})\nit.each([])('is told %s', () => {})\n"
    expect(lines('test/a.test.ts', source)).toEqual(['test/a.test.ts:2: "What"', 'test/a.test.ts:3: "Is told"'])
  })

  it('reads paragraphs, list items and cells of the docs, but no code', () => {
    const source =
      '# Title\n\n- Whatever.\n\n| a | Which one |\n\n```sh\nnobody\n```\n\nIt stands\nfor a word, beside it.\n'
    expect(lines('docs/a.md', source)).toEqual([
      'docs/a.md:3: "Whatever"',
      'docs/a.md:5: "Which"',
      'docs/a.md:12: "beside"',
    ])
  })
})
