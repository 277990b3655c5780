// The `blotter` command: a subcommand in, one thing done.

import { ConfigError, readConfig } from './config.ts'
import { checkConfig, printSubgraph, startSandboxAlone } from './operator.ts'
import { serve, StartError } from './serve.ts'
import type { Sandbox } from './sandbox/server.ts'

const usage = `Usage: blotter COMMAND

  serve          the GraphQL server; over the embedded sandbox where no broker is configured
  check-config   say whether the settings can be used, and what is wrong with them
  print-schema   print the subgraph's SDL
  sandbox        run the sandbox broker alone
`

async function run(command: string | undefined): Promise<void> {
  switch (command) {
    case 'serve':
      return await runService()
    case 'check-config':
      return print(checkConfig(process.env))
    case 'print-schema':
      return void process.stdout.write(printSubgraph())
    case 'sandbox':
      return await runSandbox()
    case undefined:
    case 'help':
    case '--help':
      return print(usage)
    default:
      print(usage)
      throw new StartError(`There is no command ${JSON.stringify(command)}.`)
  }
}

async function runService(): Promise<void> {
  const service = await serve(readConfig(process.env))
  if (service.sandbox) print(toGreeting(service.url, service.sandbox))
  closeOnSignal(service)
}

async function runSandbox(): Promise<void> {
  const sandbox = await startSandboxAlone(process.env)
  print(`The sandbox broker is on ${sandbox.url}, its control port on ${sandbox.controlUrl}.
  key       ${sandbox.apiKey}
  secret    ${sandbox.apiSecret}
  accounts  ${sandbox.accounts.join(', ')}`)
  closeOnSignal(sandbox)
}

// For a person who tries it; with a real broker stdout carries the log alone.
function toGreeting(url: string, sandbox: Sandbox): string {
  const query = `{ order(id: "${sandbox.demo.filledOrderId}") { id status symbol quantity averagePrice } }`
  return `Blotter is ready on ${url}
  GraphiQL  open the same address in a browser
  broker    the embedded sandbox on ${sandbox.url}, control port ${sandbox.controlUrl}
  accounts  ${sandbox.accounts.join(', ')}
  try       curl -s ${url} -H 'content-type: application/json' -d '${JSON.stringify({ query })}'`
}

// The first signal stops gracefully, which is bounded; the second one does not wait.
function closeOnSignal(running: { close(): Promise<void> }): void {
  let isStopping = false
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (isStopping) process.exit(1)
      isStopping = true
      running.close().then(
        () => process.exit(0),
        (error: unknown) => fail(error),
      )
    })
  }
}

function print(text: string): void {
  process.stdout.write(`${text.trimEnd()}\n`)
}

function fail(error: unknown): void {
  // Settings are the reader's to mend and have no story behind them; anything else keeps its stack.
  const isPlain = error instanceof ConfigError || error instanceof StartError
  const text = isPlain ? error.message : error instanceof Error ? error.stack : String(error)
  process.stderr.write(`${text}\n`)
  process.exit(1)
}

run(process.argv[2]).catch(fail)
