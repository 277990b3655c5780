// `blotter certify`: chooses the broker and the account, checks that real orders are wanted, and prints the certificate.

import { brokerCapabilities } from '../brokers/broker.ts'
import type { Broker } from '../brokers/broker.ts'
import { registry } from '../brokers/registry.ts'
import { findUrl, isSandboxOnly, listConnected, readConfig } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import { systemClock } from '../domain/clock.ts'
import type { BrokerId } from '../domain/order.ts'
import { isLoopback } from '../domain/setting.ts'
import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'

import { connectBroker } from './connect.ts'
import { certify, probeOrders } from './certify.ts'
import type { Certificate } from './certify.ts'
import { OperatorError, toTable } from './operator.ts'
import type { Env } from './operator.ts'

export interface CertifyWishes {
  /** Null: the only one that is connected, or Bluum in the sandbox. */
  broker: BrokerId | null
  /** Tries the command on an embedded sandbox. */
  sandbox: boolean
  /** False only says what would be done. */
  yes: boolean
  production: boolean
  /** Null: the only one there is, or the first one of the sandbox. */
  accountId: string | null
  symbol: string
  limitPrice: string
}

/**
 * Finds out what the configured broker can be relied on for, and prints it. True when it came to its end and left nothing
 * behind. Throws ConfigError, and OperatorError where nothing was done; connects to nothing before it is sure to be wanted.
 */
export async function certifyBroker(
  env: Env,
  wishes: CertifyWishes,
  { print, signal }: { print: (text: string) => void; signal: AbortSignal },
): Promise<boolean> {
  const config = readConfig(env)
  const id = chooseBroker(config, wishes)
  const host = findUrl(id, config)?.hostname ?? null
  const isProduction =
    host !== null && !isLoopback(host) && !registry.some(({ sandboxHosts }) => sandboxHosts.includes(host))
  if (isProduction && !wishes.production) {
    throw new OperatorError(
      `${host} is no sandbox that is known here, so real orders would be placed. Give --production if that is meant.`,
    )
  }
  if (!wishes.yes) {
    throw new OperatorError(toPlan(host ?? 'an embedded sandbox', wishes))
  }

  // Loaded here, because it takes longer to load than the other commands take to run.
  const { startSandbox } = await import('../../sandbox/server.ts')
  const settings = config.brokers.get(id)
  const { seed } = config.sandbox
  const requestsPerSecond = settings?.requestsPerSecond ?? 1_000
  const sandbox = host === null ? await startSandbox({ stateFile: ':memory:', seed, requestsPerSecond }) : null
  // The breaker is off, because the last calls cancel what the first ones placed and must be sent. Notices are printed, because
  // a refresh token that is replaced here is one that the service cannot use any more.
  const broker = connectBroker(id, config, {
    sandbox,
    breaker: false,
    onNotice: (message) => print(`Mind: ${message}.`),
  })
  try {
    const accountId =
      wishes.accountId ?? (sandbox && settings?.listSandboxAccounts(sandbox)[0]) ?? (await findOnlyAccount(broker))
    const { symbol, limitPrice } = wishes
    const certificate = await certify({
      broker,
      accountId,
      symbol,
      limitPrice,
      clock: systemClock,
      onStep: print,
      signal,
    })
    print(toReport(id, certificate))
    return certificate.trouble === null && certificate.leftovers.length === 0
  } finally {
    await broker.close(0)
    await sandbox?.close()
  }
}

/** The broker that is meant. Throws OperatorError where that is not clear. */
function chooseBroker(config: Config, { broker, sandbox }: CertifyWishes): BrokerId {
  const isSandbox = isSandboxOnly(config)
  if (!isSandbox && sandbox) {
    throw new OperatorError(
      'A real broker is set, so leave out --sandbox; or unset its URL to try the command on the sandbox.',
    )
  }
  if (isSandbox && !sandbox) {
    throw new OperatorError(
      `${registry.map((entry) => `${entry.id}_URL`).join(' and ')} are not set: set the one of the broker to certify, or give --sandbox to try the command.`,
    )
  }
  const connected = listConnected(config)
  if (broker !== null && !connected.includes(broker)) throw new OperatorError(`${broker}_URL is not set.`)
  const [first] = connected
  if (broker === null && !isSandbox && connected.length > 1) {
    throw new OperatorError(
      `Several brokers are connected: name one with --broker, ${connected.join(' or ').toLowerCase()}.`,
    )
  }
  const chosen = broker ?? first
  if (chosen === undefined) throw new OperatorError('No broker is connected.')
  return chosen
}

function toPlan(where: string, { accountId, symbol, limitPrice }: CertifyWishes): string {
  const { placed, tried } = probeOrders
  return `Nothing was done. With --yes, on ${where}:
  ${placed} limit orders for the day, each to buy 1 ${symbol} at ${limitPrice}, are placed in ${accountId === null ? 'the account' : `account ${accountId}`};
  ${tried} repeats of them are tried, which a broker may turn into up to ${tried} more of the kind;
  all of them are read, and canceled at the end.
The price has to be far below the market, so that none of them trades: see --limit-price.
Stop the service meanwhile: both together would use more than the broker's rate.`
}

async function findOnlyAccount(broker: Broker): Promise<string> {
  const scope = {
    signal: new AbortController().signal,
    deadline: Date.now() + 15_000,
    isForCancel: false,
    caller: null,
    tally: createTally(),
  }
  const accounts = await broker.accounts(scope).catch((error: unknown) => {
    if (error instanceof UpstreamError) throw new OperatorError(`The accounts cannot be read: ${error.message}.`)
    throw error
  })
  const [only] = accounts
  if (only !== undefined && accounts.length === 1) return only
  throw new OperatorError(
    accounts.length === 0
      ? 'The credential sees no account. Name one with --account.'
      : `The credential sees ${accounts.length} accounts. Name the one to use with --account.`,
  )
}

function toReport(id: BrokerId, { findings, trouble, leftovers }: Certificate): string {
  const table = toTable(
    findings.map(({ capability, holds, seen }) => ({ capability, holds: holds ? 'yes' : 'no', seen })),
  )
  const proven = brokerCapabilities.filter((name) =>
    findings.some(({ capability, holds }) => holds && capability === name),
  )
  return [
    ...(trouble === null
      ? ['', table, '', `${id}_CAPABILITIES=${proven.join(',')}`]
      : [`\nNothing is certified. ${trouble}`]),
    ...(leftovers.length === 0 ? [] : ['', 'Left behind at the broker:', ...leftovers.map((text) => `  ${text}`)]),
  ].join('\n')
}
