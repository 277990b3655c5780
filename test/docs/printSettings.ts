// `.env.example` and the tables of docs/reference/settings.md, made from the settings tables.

import { listTopics, notBuilt, sandboxSettings } from '../../src/config/settings.ts'
import type { Setting } from '../../src/domain/setting.ts'

/** Returns the tables in Markdown, one for each topic. */
export function printSettings(): string {
  return listTopics()
    .map(({ title, table }) => {
      const rows = Object.entries(table).map(
        ([name, setting]) =>
          `| \`${name}\` | ${describeDefault(setting)} | ${describe(setting)} | ${setting.since} |\n`,
      )
      return `## ${title}\n\n| name | default | meaning | since |\n| --- | --- | --- | --- |\n${rows.join('')}`
    })
    .join('\n')
}

function describeDefault({ default: value, defaultNote }: Setting): string {
  if (defaultNote !== undefined) return defaultNote
  return value === undefined || value === '' ? '–' : `\`${value}\``
}

function describe({ description, isSecret }: Setting): string {
  const text = isSecret ? `${description} May be in a file: \`…_FILE\`.` : description
  return text.replaceAll('|', '\\|')
}

/** Returns the whole `.env.example`. */
export function printEnvExample(): string {
  const topics = listTopics().map(({ title, table }) => {
    const settings = Object.entries(table).map(([name, setting]) => {
      const file = setting.isSecret ? ` ${name}_FILE may name a file instead.` : ''
      const note = setting.defaultNote === undefined ? '' : ` Default: ${setting.defaultNote}.`
      // Set, the sandbox's settings would be refused as soon as a real broker is configured.
      const isOptional = (setting.default ?? '') === '' || table === sandboxSettings
      return `${toComment(setting.description.replaceAll('`', '') + file + note)}${isOptional ? '# ' : ''}${name}=${setting.default ?? ''}\n`
    })
    return `# ---- ${title} ----\n\n${settings.join('\n')}`
  })
  const later = Object.entries(notBuilt).map(([name, feature]) => `# ${name}=   (${feature})\n`)
  return `# All settings with their defaults. None is required: without any, Blotter runs over its embedded sandbox.
# Settings come from the environment: copy this file to .env, edit it, then \`set -a; . ./.env; set +a; npm start\`.

${topics.join('\n')}
# Not built yet. The service does not start if one of these is set.
${later.join('')}`
}

function toComment(text: string): string {
  const lines: string[] = []
  let line = '#'
  for (const word of text.split(' ')) {
    if (line.length + word.length > 125) {
      lines.push(line)
      line = '#'
    }
    line += ` ${word}`
  }
  return [...lines, line, ''].join('\n')
}
