// The `blotter` command: turns the arguments into one command and runs it.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { ParseArgsOptionsConfig } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { ConfigError, readConfig, StartError } from './config/config.ts'
import { registry } from './brokers/registry.ts'
import { verifyAudit } from './cli/audit.ts'
import { certifyBroker } from './cli/certifyCommand.ts'
import { checkConfig } from './cli/checkConfig.ts'
import { OperatorError } from './cli/operator.ts'
import { listPlacements, resolvePlacement, showPlacement } from './cli/placements.ts'
import { startSandboxAlone } from './cli/sandbox.ts'
import type { Sandbox } from '../sandbox/server.ts'
import type { Service } from './cli/serve.ts'

const usage = `Usage: blotter COMMAND

  serve          the GraphQL server; over the embedded sandbox where no broker is configured
  check-config   say whether the settings can be used, and what is wrong with them
  print-schema [--api]
                 print the SDL of the subgraph; with --api that of the API alone, for frontend tools
  sandbox        run the sandbox broker alone

With or without a running service, on the store in DATA_DIR:

  placements [--json]
                 list the placements that are not resolved
  placements show PLACEMENT | ACCOUNT CLIENT_ORDER_ID
                 show one, with its audit
  placements resolve PLACEMENT (--order ORDER | --never-placed) --by NAME
                 resolve one by hand, after a check of the broker's own pages
  audit verify   check the audit of every placement

  --version      print the version

  certify --yes [--broker bluum|aries] [--sandbox] [--production] [--account ID] [--symbol AAPL] [--limit-price 1.00]
                 place a few small orders, cancel them, and print what the broker can be relied on for:
                 the BLUUM_CAPABILITIES or ARIES_CAPABILITIES to set
`

/** The command line cannot be understood; the message says why. */
class UsageError extends Error {
  override readonly name = 'UsageError'
}

async function run([command, ...args]: string[]): Promise<void> {
  switch (command) {
    case 'serve':
      parse(args, {})
      return await runService()
    case 'check-config':
      parse(args, {})
      return print(await checkConfig(process.env))
    case 'print-schema':
      return await runPrintSchema(parse(args, { api: { type: 'boolean', default: false } }).values.api)
    case 'sandbox':
      parse(args, {})
      return await runSandbox()
    case 'placements':
      return await runPlacements(args)
    case 'audit':
      if (parse(args, {}, { min: 1, max: 1, text: 'The command is audit verify.' }).words[0] !== 'verify') {
        throw new UsageError('The command is audit verify.')
      }
      return print(await verifyAudit(process.env))
    case 'certify':
      return await runCertify(args)
    case '--version':
      parse(args, {})
      return print(readVersion())
    case undefined:
    case 'help':
    case '--help':
      return print(usage)
    default:
      print(usage)
      throw new UsageError(`There is no command ${JSON.stringify(command)}.`)
  }
}

function readVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  return typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : ''
}

async function runPlacements(args: string[]): Promise<void> {
  const [verb, ...rest] = args
  if (verb === 'show') {
    const form = { min: 1, max: 2, text: 'Name PLACEMENT, or ACCOUNT CLIENT_ORDER_ID.' }
    const [name = '', clientOrderId = null] = parse(rest, {}, form).words
    return print(await showPlacement(process.env, name, clientOrderId))
  }
  if (verb === 'resolve') {
    const options = { order: { type: 'string' }, 'never-placed': { type: 'boolean' }, by: { type: 'string' } } as const
    const { words, values } = parse(rest, options, { min: 1, max: 1, text: 'Name the PLACEMENT.' })
    const [opId = ''] = words
    const { order, by, 'never-placed': isNeverPlaced = false } = values
    if ((order !== undefined) === isNeverPlaced) throw new UsageError('Give either --order ORDER or --never-placed.')
    if (by === undefined) throw new UsageError('Give --by NAME: who decides it.')
    return print(await resolvePlacement(process.env, { opId, orderId: order ?? null, by }))
  }
  const { json = false } = parse(args, { json: { type: 'boolean' } }).values
  // A pager that reads the list may end early.
  process.stdout.on('error', () => process.exit(0))
  await listPlacements(process.env, json, print)
}

async function runCertify(args: string[]): Promise<void> {
  const { values } = parse(args, {
    yes: { type: 'boolean', default: false },
    broker: { type: 'string' },
    sandbox: { type: 'boolean', default: false },
    production: { type: 'boolean', default: false },
    account: { type: 'string' },
    symbol: { type: 'string', default: 'AAPL' },
    'limit-price': { type: 'string', default: '1.00' },
  })
  const { account: accountId = null, 'limit-price': limitPrice, broker: named, ...others } = values
  const ids = registry.map(({ id }) => id)
  const broker = ids.find((id) => id.toLowerCase() === named?.toLowerCase()) ?? null
  if (named !== undefined && broker === null) throw new UsageError(`--broker is ${ids.join(' or ').toLowerCase()}.`)
  // The first signal ends the probes, which cancels what they placed; the second one does not wait for that.
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopping.signal.aborted) process.exit(1)
      stopping.abort()
    })
  }
  const isDone = await certifyBroker(
    process.env,
    { ...others, broker, accountId, limitPrice },
    { print, signal: stopping.signal },
  )
  process.exitCode = isDone ? 0 : 1
}

/** Parses `args`. Throws UsageError unless they match `options`, and have as many words as `form` allows. */
function parse<Options extends ParseArgsOptionsConfig>(args: string[], options: Options, form = noWords) {
  try {
    const { values, positionals: words } = parseArgs({ args, options, allowPositionals: true })
    if (words.length >= form.min && words.length <= form.max) return { values, words }
  } catch (error) {
    // Its first sentence says it; the others are advice for other programs.
    const isUsage = error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')
    throw isUsage ? new UsageError(`${error.message.split(/\.(?: |$)|\n/, 1)[0]}.`) : error
  }
  throw new UsageError(form.text)
}

const noWords = { min: 0, max: 0, text: 'This command takes options only.' }

// Loaded here, because the server and its schema take longer to load than other commands take to run.
async function runService(): Promise<void> {
  // By default a small heap may grow fourfold before it is collected, and junk of 90 KB a request makes it: 3,000 of those
  // left 130 to 180 MB of garbage in the process. So they leave a third of it, for a few percent of CPU.
  setFlagsFromString('--heap-growing-percent=35')
  const { serve } = await import('./cli/serve.ts')
  const service = await serve(readConfig(process.env))
  if (service.sandbox) print(toGreeting(service, service.sandbox))
  closeOnSignal(service)
  closeOnBug(service)
}

async function runPrintSchema(isApi: boolean): Promise<void> {
  const { createSchema, printApiSchema, printSchema } = await import('./graph/schema.ts')
  process.stdout.write((isApi ? printApiSchema : printSchema)(createSchema()))
}

async function runSandbox(): Promise<void> {
  const sandbox = await startSandboxAlone(process.env)
  // Before the address is printed, because a script that reads it may stop the sandbox at once.
  closeOnSignal(sandbox)
  print(`The sandbox broker is on ${sandbox.url}, its control port on ${sandbox.controlUrl}.
  key       ${sandbox.apiKey}
  secret    ${sandbox.apiSecret}
  accounts  ${sandbox.accounts.join(', ')}
It speaks Aries on ${sandbox.aries.url}
  client id      ${sandbox.aries.clientId}
  client secret  ${sandbox.aries.clientSecret}
  refresh token  ${sandbox.aries.refreshToken}
  access token   ${sandbox.aries.accessToken}
  trading ids    ${sandbox.aries.accounts.join(', ')} (${sandbox.aries.tradingId})`)
}

// Printed with the sandbox only. With a real broker stdout has nothing but the log.
function toGreeting({ url, accounts }: Service, sandbox: Sandbox): string {
  const [first, ...others] = accounts
  const query = `{ order(id: "${sandbox.demo.filledOrderId}", accountId: "${first?.ids[0]}") { id status symbol quantity averagePrice } }`
  return `Blotter is ready on ${url}
  GraphiQL  open the same address in a browser
  broker    the embedded sandbox on ${sandbox.url}, control port ${sandbox.controlUrl}
  accounts  ${first?.ids.join(', ')}
${others.map(({ broker, ids }) => `  ${`at ${broker}`.padEnd(8)}  ${ids.join(', ')}\n`).join('')}  try       curl -s ${url} -H 'content-type: application/json' -d '${JSON.stringify({ query })}'`
}

// The first signal stops gracefully, which is bounded; the second one does not wait.
function closeOnSignal(running: { close(signal: NodeJS.Signals): Promise<void>; log?: Service['log'] }): void {
  let isStopping = false
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (isStopping) {
        running.log?.warn({ reason: signal }, 'stopped at once by a second signal')
        process.exit(1)
      }
      isStopping = true
      running.close(signal).then(
        // The exit code is 0, unless a bug occurred during the stop.
        () => process.exit(),
        (error: unknown) => fail(error),
      )
    })
  }
}

// After an error that no code caught, the state of the process is not known. It accepts no more work, but finishes the work under
// way, because that may be an order. A second error ends it at once.
function closeOnBug({ log, close }: Service): void {
  let isStopping = false
  async function stop(bug: unknown): Promise<void> {
    log.error({ err: bug }, 'ALARM: a bug that nothing caught; the service stops')
    if (isStopping) process.exit(1)
    isStopping = true
    process.exitCode = 1
    await close('bug').catch(fail)
    process.exit(1)
  }
  process.on('unhandledRejection', (bug) => void stop(bug))
  process.on('uncaughtException', (bug) => void stop(bug))
}

function print(text: string): void {
  process.stdout.write(`${text.trimEnd()}\n`)
}

function fail(error: unknown): void {
  // Settings and words are the reader's to mend and have no story behind them; anything else keeps its stack.
  const isPlain = [ConfigError, StartError, OperatorError, UsageError].some((kind) => error instanceof kind)
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  process.stderr.write(`${isPlain ? message : stack}\n`)
  process.exit(1)
}

run(process.argv.slice(2)).catch(fail)
