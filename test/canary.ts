// What must not leave the service, looked for in everything that does: the answers of a whole test file, with their headers,
// and every line that was logged. The helpers that start a service hold one of these to each.

/** Notes what goes in and out of one service. */
export interface Canary {
  /** The secrets of this environment, by the names of their settings. */
  knowSettings(env: Readonly<Record<string, string>>): void
  /** The broker's secrets, and what it calls its accounts. */
  knowBroker(broker: KnownBroker): void
  /** What somebody sent to be let in. */
  knowHeaders(headers: Headers): void
  /** An answer as its client got it. */
  noteAnswer(headers: Headers, text: string): void
  /** What was written to stdout or stderr: whole lines. */
  noteOutput(lines: string): void
  /** Throws when something was told since this was last called; names what, and where. */
  expectSilent(): void
}

interface KnownBroker {
  apiKey: string
  apiSecret: string
  accounts: readonly string[]
  investors: readonly string[]
  aries: { clientSecret: string; refreshToken: string; accessToken: string; accounts: readonly string[] }
}

// Shorter ones are words that stand in honest sentences.
const secretLengthMin = 6
// Around what was found.
const excerptLength = 80

const secretSetting = /(?:_SECRET|_TOKEN|_API_KEY|_PRIVATE_KEY|_PASSWORD)$/
// As the sandbox issues them, and as PEM begins.
const secretForms: [what: string, form: RegExp][] = [
  ['a token of the sandbox', /\b(?:access|refresh)_[0-9a-f]{32}/],
  ['a private key', /-----BEGIN [A-Z ]*PRIVATE KEY/],
]
const stackFrame = /\bat (?:\S+ )*\(?(?:file|node):|node_modules|\/src\/|\\n {4}at /
const html = /<\s*\/?\s*(?:!doctype|html|head|body|title|script|h1|center)\b/i
// What ends a line or moves a terminal's cursor or the reader's eye, beside the line feed at the end.
// oxlint-disable-next-line no-control-regex
const control = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/

/** A canary of one service, which knows no secret yet. */
export function createCanary(): Canary {
  // What it is, by the text.
  const secrets = new Map<string, string>()
  const accountIds = new Set<string>()
  let found: string[] = []

  function know(what: string, secret: string): void {
    if (secret.length >= secretLengthMin) secrets.set(secret, what)
  }

  function look(where: string, text: string): void {
    for (const [secret, what] of secrets) lookFor(what, text.indexOf(secret), { where, text })
    for (const [what, form] of secretForms) lookFor(what, text.search(form), { where, text })
  }

  function lookFor(what: string, at: number, { where, text }: { where: string; text: string }): void {
    if (at < 0) return
    const excerpt = text.slice(Math.max(0, at - excerptLength), at + excerptLength)
    found.push(`${what} in ${where}: ${JSON.stringify(excerpt)}`)
  }

  function lookAtBody(text: string): void {
    look('an answer', text)
    const body = parseJson(text)
    // A page of ours is no JSON, and full of scripts.
    if (body === undefined) return
    const told = JSON.stringify(body, (key, value: unknown) => (isOfBroker(key) ? undefined : value))
    for (const [what, form] of [
      ['a stack frame', stackFrame],
      ['HTML', html],
    ] as const) {
      lookFor(what, told.search(form), { where: 'an answer', text: told })
    }
  }

  function lookAtLine(line: string): void {
    look('the output', line)
    // Beside the log there is what a person reads: the greeting names the sandbox's accounts.
    if (!line.startsWith('{')) return
    const where = 'a log line'
    const entry = parseJson(line)
    if (entry === undefined) found.push(`no JSON as ${where}: ${JSON.stringify(line.slice(0, excerptLength))}`)
    lookFor('a control character', line.search(control), { where, text: line })
    // An alarm names its order, whose id at Aries has the account in it: a person has to find it.
    if (isAlarm(entry)) return
    for (const id of accountIds) lookFor('the id of an account', line.indexOf(id), { where, text: line })
  }

  return {
    knowSettings(env) {
      for (const [name, value] of Object.entries(env)) if (secretSetting.test(name)) know(name, value)
    },
    knowBroker({ apiKey, apiSecret, accounts, investors, aries }) {
      know('the API key', apiKey)
      know('the API secret', apiSecret)
      know('the credential of Bluum', Buffer.from(`${apiKey}:${apiSecret}`).toString('base64'))
      know('the client secret of Aries', aries.clientSecret)
      know('the refresh token of Aries', aries.refreshToken)
      know('the access token of Aries', aries.accessToken)
      for (const id of [...accounts, ...investors, ...aries.accounts]) if (id !== '') accountIds.add(id)
    },
    knowHeaders(headers) {
      for (const name of ['authorization', 'x-router-secret']) {
        const value = headers.get(name) ?? ''
        // A scheme alone is no secret.
        if (/^(?:Bearer|Basic) *$/i.test(value)) continue
        know(`what was sent as ${name}`, value)
        know(`what was sent as ${name}`, value.replace(/^\S+ /, ''))
      }
    },
    noteAnswer(headers, text) {
      for (const [name, value] of headers) look(`the header ${name} of an answer`, value)
      lookAtBody(text)
    },
    noteOutput(lines) {
      for (const line of lines.split('\n')) lookAtLine(line)
    },
    expectSilent() {
      const told = found
      found = []
      if (told.length > 0) throw new Error(`The service told what it must not:\n${told.slice(0, 20).join('\n')}`)
    },
  }
}

// These carry a broker's own words, which may be anything.
function isOfBroker(key: string): boolean {
  return key === 'reason' || key === 'rejectReason'
}

function isAlarm(entry: unknown): boolean {
  return typeof entry === 'object' && entry !== null && 'msg' in entry && String(entry.msg).startsWith('ALARM')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
