// What a change of schema.graphql breaks: for clients, as graphql-js tells it, and for the graph that it is federated into.
// `npm run schema:diff [REVISION]` holds the file against the one of a revision, the last commit's unless told.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { buildSchema, findBreakingChanges, findDangerousChanges, Kind, parse, print } from 'graphql'

/** One sentence for each change that breaks somebody, and for each that may surprise. */
export interface SchemaDiff {
  breaking: string[]
  dangerous: string[]
}

/** What has become of `before`. Throws GraphQLError for what is no SDL. */
export function diffSchemas(before: string, after: string): SchemaDiff {
  const [old, fresh] = [before, after].map((sdl) => buildSchema(sdl, { assumeValidSDL: true }))
  if (old === undefined || fresh === undefined) throw new Error('two schemas make two')
  const describe = (changes: { description: string }[]): string[] => changes.map(({ description }) => `${description}.`)
  const promises = new Set(listPromises(after))
  return {
    breaking: [
      ...describe(findBreakingChanges(old, fresh)),
      ...listPromises(before)
        .filter((promise) => !promises.has(promise))
        .map((promise) => `${promise} was removed, which other subgraphs may rely on.`),
    ],
    dangerous: describe(findDangerousChanges(old, fresh)),
  }
}

// Other subgraphs name entities by their keys, and define what is shareable too.
function listPromises(sdl: string): string[] {
  return parse(sdl).definitions.flatMap((definition) =>
    definition.kind === Kind.OBJECT_TYPE_DEFINITION
      ? (definition.directives ?? [])
          .filter(({ name }) => name.value === 'key' || name.value === 'shareable')
          .map((directive) => `${print(directive)} of ${definition.name.value}`)
      : [],
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const revision = process.argv[2] ?? 'HEAD'
  const before = execFileSync('git', ['show', `${revision}:schema.graphql`], { encoding: 'utf8' })
  const after = readFileSync(new URL('../../schema.graphql', import.meta.url), 'utf8')
  const { breaking, dangerous } = diffSchemas(before, after)
  for (const text of breaking) console.log(`breaking   ${text}`)
  for (const text of dangerous) console.log(`dangerous  ${text}`)
  if (breaking.length + dangerous.length === 0)
    console.log(`Nothing that schema.graphql of ${revision} promised is broken.`)
  process.exitCode = breaking.length > 0 ? 1 : 0
}
