// The word list of `npm run check`: phrases that are almost always wrong in this project, each with a replacement.
// The list applies to prose only: comments and strings of code, descriptions of the schema, docs, and titles of tests.

import { existsSync, globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const files = [
  'src/**/*.{ts,js}',
  'sandbox/**/*.{ts,md}',
  'examples/**/*.{ts,md}',
  'bench/**/*.ts',
  '*.ts',
  '.env.example',
  'docs/**/*.md',
  'CONTRIBUTING.md',
  'schema.graphql',
  'test/**/*.test.ts',
  'test/cases.md',
]

const be = '(?:is|are|was|were|be|been|being)(?: (?:not|never|only|then|also|still))?'

// A blank in a phrase also stands for a line break, because sentences go on in the next line of a comment.
const phrases: [phrase: string, write: string][] = [
  // Passive verbs of conversation.
  [`${be} told`, '"receives", "returns", or the name of the call'],
  [`${be} asked`, '"is called", "is queried", "is requested"'],
  ['(?:taken|takes|take|took) for (?:a|an|the|one|none|granted)', '"treated as", "read as"'],
  ['(?:is|are|was|were) none', '"if there is no …", "no … exists"'],
  ['unless told', '"by default"'],
  ['(?:is|are|was|were|be|been) looked (?:at|for|through)', '"is read", "is checked", "is searched"'],
  ['hears? (?:of|so)', '"receives"'],
  // Words that are rare in technical English.
  ['bears?|borne', '"has", "contains"'],
  ['beside', '"next to", "in addition to"'],
  ['anew', '"again"'],
  ['singly', '"one by one"'],
  ['in vain', '"without success", "without a result"'],
  ['stands(?! for)', '"is", "is listed", "remains"'],
  ['all the same', '"anyway", "still"'],
  ['for want of', '"because there is no …"'],
  ['for ever', '"forever", "without end"'],
  ['unasked', '"unrequested"'],
  ['lest|hence|thereby|thus|upon', '"otherwise", "therefore", "so", "on"'],
  // Pronouns that hide who acts.
  ['whatever|whichever|wherever', '"any", "each", or the list of cases'],
  ['whoever|nobody|somebody|someone|anybody|no one', 'caller, client, router, operator, broker or process'],
  // Former names of terms in the glossary, docs/concepts.md.
  ['wish|wishes|wished', '"cancel request"'],
  ['places? in the rate budget', '"permit"'],
  ['pre-?images?', '"pre-send snapshot"'],
  ['twins?', '"duplicate candidate", "duplicate"'],
  ['(?<!in[ -])flights?', '"shared read"'],
  ["(?:the|an|its|broker's|this|that|each|every) offers?(?! (?:a|an|the|no) )", '"broker features"'],
  ['(?:a|the|each|every|first|second|third|last|next|late|complete) look', '"lookup"'],
]

/** Words that begin a clause where a sentence begins. A question may begin so. */
const openings = 'What|Who|Whom|Whose|Which|Where(?! to )|Of (?:those|these|the|a|an|each)|So many|None'

const spread = (phrase: string): string => phrase.replaceAll(' ', String.raw`\s+`)

const list: [pattern: RegExp, write: string][] = [
  ...phrases.map(([phrase, write]): [RegExp, string] => [
    new RegExp(String.raw`\b(?:${spread(phrase)})\b`, 'gi'),
    write,
  ]),
  [
    new RegExp(String.raw`(?<=^\s*|[.:;!?]["')]*\s+|\n\s*\n\s*)(?:${spread(openings)})\b(?![^.!]*\?)`, 'g'),
    'the noun first, then an active verb',
  ],
]

/** A run of prose at `offset` of its file. Everything else in it, such as comment markers, is replaced by blanks. */
interface Piece {
  offset: number
  text: string
}

const blank = (text: string): string => text.replaceAll(/[^\n]/g, ' ')
const withoutCode = (text: string): string => text.replaceAll(/`[^`\n]*`/g, (code) => `x${blank(code.slice(1))}`)

// A run of line comments is one comment. Regular expressions are matched only so that their quotes do not begin a string.
const tokens = new RegExp(
  [
    String.raw`(?<comment>//[^\n]*(?:\n[ \t]*//[^\n]*)*|/\*[^]*?\*/)`,
    String.raw`(?<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|${'`'}(?:\\[^]|\$\{(?:[^{}${'`'}]|${'`[^`]*`'}|\{[^{}]*\})*\}|[^\\${'`'}])*${'`'})`,
    String.raw`(?<=(?:[=(,:!&|?[{};>]|return)\s*)/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+/[a-z]*`,
  ].join('|'),
  'g',
)
const interpolation = /\$\{(?:[^{}`]|`[^`]*`|\{[^{}]*\})*\}/g

function* proseOfCode(source: string): Generator<Piece> {
  for (const { index: offset, groups } of source.matchAll(tokens)) {
    const { comment, string } = groups ?? {}
    if (comment !== undefined) {
      const text = comment.replaceAll(/(?<=^|\n)[ \t]*(?:\/\/|\/\*+|\*\/|\*)|\*\/$/g, blank)
      yield { offset, text: withoutCode(text) }
    }
    // A string without a blank is a name.
    if (string !== undefined && /\S\s\S/.test(string)) {
      yield { offset: offset + 1, text: withoutCode(string.slice(1, -1).replaceAll(interpolation, blank)) }
    }
  }
}

function* titlesOfTests(source: string): Generator<Piece> {
  for (const { index, groups } of source.matchAll(tokens)) {
    const isTitle = /(?:\b(?:it|describe|test)(?:\.\w+)*\(|\)\()\s*$/.test(source.slice(Math.max(0, index - 80), index))
    if (groups?.['string'] === undefined || !isTitle) continue
    // A case id such as C22 comes first; a title continues the name of its test, so that it has no capital.
    const text = groups['string'].slice(1, -1).replace(/^(?:[A-Z]\d\d[,:]? )*/, blank)
    yield { offset: index + 1, text: withoutCode(text.replace(/\b[a-z]/, (letter) => letter.toUpperCase())) }
  }
}

function* proseOfSchema(source: string): Generator<Piece> {
  for (const { 0: text, index: offset } of source.matchAll(/"""[^]*?"""|"[^"\n]+"|#[^\n]*/g)) {
    yield { offset, text: withoutCode(text.replaceAll(/^["#]+|"+$/g, blank)) }
  }
}

// A paragraph, a list item, a heading and a cell of a table are each a piece.
function* proseOfDocs(source: string): Generator<Piece> {
  const prose = withoutCode(source.replaceAll(/^ *```[^]*?^ *```$/gm, blank))
  for (const { 0: text, index: offset } of prose.matchAll(/[^|\n](?:(?!\n\s*\n|\n\s*(?:[-*#|]|\d+\.))[^|])*/g)) {
    yield { offset, text: text.replace(/^\s*(?:[-*#]+|\d+\.)\s/, blank) }
  }
}

function proseOf(path: string, source: string): Iterable<Piece> {
  if (path.startsWith('test/') && path.endsWith('.ts')) return titlesOfTests(source)
  if (path.endsWith('.md')) return proseOfDocs(source)
  return path.endsWith('.graphql') ? proseOfSchema(source) : proseOfCode(source)
}

/** The lines of `source` that have a phrase of the list, as `path:line: "phrase": write …`. */
export function findPhrases(path: string, source: string): string[] {
  return [...proseOf(path, source)]
    .flatMap(({ offset, text }) =>
      list.flatMap(([pattern, write]) =>
        [...text.matchAll(pattern)].map((hit) => ({
          at: offset + hit.index,
          found: hit[0].replaceAll(/\s+/g, ' '),
          write,
        })),
      ),
    )
    .toSorted((a, b) => a.at - b.at)
    .map(({ at, found, write }) => `${path}:${source.slice(0, at).split('\n').length}: "${found}": write ${write}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const paths = globSync(files, { exclude: ['**/node_modules/**'] }).filter((path) => existsSync(path))
  const found = paths.flatMap((path) => findPhrases(path, readFileSync(path, 'utf8')))
  for (const line of found) console.error(line)
  if (found.length > 0) {
    console.error(`${found.length} phrases of the word list (test/docs/words.ts). Names of code go in backticks.`)
    process.exitCode = 1
  }
}
