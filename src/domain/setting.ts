// A setting of the service: its form, its default and its description. Each topic and each broker has a table of them, from
// which the environment is read, and `.env.example` and docs/reference/settings.md are written.

import { readFileSync } from 'node:fs'
import * as z from 'zod'

/** One row of a settings table. */
export interface Setting<Schema extends z.ZodType = z.ZodType> {
  /** Parses the text of the environment. Its messages must not contain the value, and follow the setting's name. */
  readonly schema: Schema
  /** The text that is used if the setting is not set. */
  readonly default?: string
  /** The default in words, if it depends on other settings. */
  readonly defaultNote?: string
  /** For operators: what it does, its unit and its bounds, in one or two sentences. */
  readonly description: string
  /** The version that introduced it. */
  readonly since: string
  /** Whether `NAME_FILE` may name a file that holds the value. */
  readonly isSecret?: true
  /** A name that other programs use for the same setting, and that wins. */
  readonly alias?: string
}

/** Settings by their names in the environment. */
export type SettingsTable = Readonly<Record<string, Setting>>

/** The values of a table. A setting without a default is undefined if it is not set, or cannot be used. */
export type Values<Table extends SettingsTable> = {
  readonly [Name in keyof Table]: Table[Name] extends { readonly default: string }
    ? z.output<Table[Name]['schema']>
    : z.output<Table[Name]['schema']> | undefined
}

export type Env = Readonly<Record<string, string | undefined>>

/** A secret, which prints as `[secret]`. `reveal` returns it. */
export interface Secret {
  reveal(): string
  toString(): string
}

/** Wraps a secret. */
export function toSecret(text: string): Secret {
  const printed = '[secret]'
  const secret = { reveal: () => text, toString: () => printed, toJSON: () => printed }
  Object.defineProperty(secret, Symbol.for('nodejs.util.inspect.custom'), { value: () => printed })
  return Object.freeze(secret)
}

/** Whether a setting is set. Empty text counts as not set. */
export function isSet(env: Env, name: string): boolean {
  return (env[name] ?? '').trim() !== ''
}

/** Returns the names that a table reads from the environment, `NAME_FILE` and aliases included. */
export function listNames(table: SettingsTable): string[] {
  return Object.entries(table).flatMap(([name, { isSecret, alias }]) => [
    ...(isSecret ? [`${name}_FILE`] : []),
    name,
    ...(alias === undefined ? [] : [alias]),
  ])
}

/** Reads the values of a table from `env`. Adds a problem for each that cannot be used, by name and without its value. */
export function readTable<Table extends SettingsTable>(table: Table, env: Env, problems: string[]): Values<Table> {
  const values: Record<string, unknown> = {}
  for (const [name, setting] of Object.entries(table)) {
    const text = readText(name, setting, env, problems) ?? setting.default
    if (text === undefined) continue
    const parsed = setting.schema.safeParse(text)
    if (parsed.success) {
      values[name] = parsed.data
      continue
    }
    problems.push(`${name} ${parsed.error.issues[0]?.message}`)
    // The problem stops the start. Until then the other settings are checked with the default.
    if (setting.default !== undefined) values[name] = setting.schema.parse(setting.default)
  }
  // Each value was parsed by the schema of its row.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return values as Values<Table>
}

function readText(name: string, { isSecret, alias }: Setting, env: Env, problems: string[]): string | undefined {
  const read = (key: string): string | undefined => (isSet(env, key) ? env[key]?.trim() : undefined)
  const value = (alias === undefined ? undefined : read(alias)) ?? read(name)
  const file = isSecret ? read(`${name}_FILE`) : undefined
  if (file === undefined) return value
  if (value !== undefined) {
    problems.push(`${name} and ${name}_FILE are both set: keep one of them`)
    return undefined
  }
  try {
    const text = readFileSync(file, 'utf8').trim()
    if (text === '') problems.push(`${name}_FILE names an empty file`)
    return text
  } catch {
    problems.push(`${name}_FILE names a file that cannot be read`)
    return undefined
  }
}

// ---- forms of settings ----------------------------------------------------------------------------------------------

/** Any text. */
export const text = z.string()

/** A secret. */
export const secret = z.string().transform(toSecret)

/** A whole number from `min` to `max`. */
export function integer(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`
  return z
    .string()
    .regex(/^\d{1,9}$/, message)
    .transform(Number)
    .refine((number) => number >= min && number <= max, message)
}

/** One of several words. */
export function choice<const Words extends readonly [string, ...string[]]>(...words: Words) {
  return z.enum(words, { error: `must be ${words.join(' or ')}` })
}

/** `on` or `off`, as a boolean. */
export const onOff = choice('on', 'off').transform((word) => word === 'on')

/** Words of a list, separated by commas, in the order of `known`. */
export function wordsOf<const Known extends readonly string[]>(known: Known, hint: string) {
  return z.string().transform((list, context): readonly Known[number][] => {
    const words = list.split(',').map((word) => word.trim())
    const found = known.filter((word) => words.includes(word))
    if (words.every((word) => word === '' || found.some((each) => each === word))) return Object.freeze(found)
    context.addIssue(`must be some of ${known.join(', ')}, separated by commas, ${hint}`)
    return z.NEVER
  })
}

/** An address that calls are sent to: https, or http on loopback, without credentials, query and fragment. */
export function baseUrl(message: string, isAllowed: (url: URL) => boolean = () => true) {
  return z.string().refine((address) => isBaseUrl(address) && isAllowed(new URL(address)), message)
}

/** Whether `address` is an https address, or an http address on loopback, without credentials, query and fragment. */
export function isBaseUrl(address: string): boolean {
  if (!URL.canParse(address)) return false
  const url = new URL(address)
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') return false
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))
}

/** Whether `host` names this machine alone. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host)
}
