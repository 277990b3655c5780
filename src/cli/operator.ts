// What a person runs beside the service.

import { join } from 'node:path'
import { brokerCapabilities } from '../brokers/broker.ts'
import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker } from '../brokers/broker.ts'
import { certify, probeOrders } from './certify.ts'
import type { Certificate } from './certify.ts'
import { systemClock } from '../domain/clock.ts'
import { findUrl, isLoopback, isSandboxOnly, listConnected, readConfig } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import { findProxy } from '../upstream/proxy.ts'
import { listNotices } from '../config/notices.ts'
import { brokerOf, isOrderId } from '../domain/order.ts'
import type { BrokerId, NewOrder } from '../domain/order.ts'
import { advance } from '../trading/placement/placement.ts'
import type { Placement, PlacementEvent } from '../trading/placement/placement.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import { openSqliteStore, StoreOpenError, toStoreFile } from '../store/sqlite/sqliteStore.ts'
import { isTombstone, StoreError } from '../store/store.ts'
import type { AuditRow, Store, Tombstone } from '../store/store.ts'

type Env = NodeJS.ProcessEnv

/** What was asked for cannot be done, or shows that something is wrong; the message says it whole. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError'
}

/**
 * Reads the settings like `serve`. Returns a summary and warnings about settings that look wrong. Throws ConfigError, and
 * StartError if a trusted document cannot run.
 */
export async function checkConfig(env: Env): Promise<string> {
  const config = readConfig(env)
  if (config.trustedDocuments) {
    // Loaded here: the schema takes longer to load than the settings to read.
    const [{ createSchema }, { checkDocuments }] = await Promise.all([
      import('../graph/schema.ts'),
      import('../server/trustedDocuments.ts'),
    ])
    checkDocuments(config.trustedDocuments, createSchema(), config.introspection)
  }
  const hosts = listConnected(config).flatMap((id) => findUrl(id, config)?.host ?? [])
  const upstream = hosts.length === 0 ? 'the embedded sandbox' : hosts.join(' and ')
  const summary = `The settings can be used: GraphQL on ${config.host}:${config.port} over ${upstream}.`
  const warnings = [...listNotices(config), ...describeTradingId(config)].map((notice) => `Warning: ${notice}`)
  return [summary, ...describeProxy(config), ...warnings].join('\n')
}

// Checks this without calling Aries, because a token request may invalidate the refresh token of the settings.
function describeTradingId({ aries, ariesTradingId }: Config): string[] {
  if (aries === null || ariesTradingId !== null) return []
  return [
    "ARIES_TRADING_ID is not set, so accounts are listed by their id in Aries' list of accounts. Aries does not document which of its ids its order API takes: set the one that your callers use, even if it is id. A running service logs a warning when a read shows that callers use another one.",
  ]
}

// Prints only the host of the proxy, because the rest of its address may be a secret.
function describeProxy(config: Config): string[] {
  const { proxy, auth } = config
  const brokers = listConnected(config).flatMap((id) => findUrl(id, config) ?? [])
  const targets = [...brokers, ...(auth.kind === 'jwt' && 'url' in auth.keys ? [new URL(auth.keys.url)] : [])]
  const proxied = targets.filter((target) => findProxy(target, proxy) !== null)
  if (proxy === null || proxied.length === 0) return []
  const direct = targets.filter((target) => !proxied.includes(target))
  const toHosts = (urls: readonly URL[]): string => [...new Set(urls.map(({ host }) => host))].join(' and ')
  const rest = direct.length === 0 ? '' : `, and ${toHosts(direct)} directly`
  return [`The service reaches ${toHosts(proxied)} through the proxy ${proxy.host}${rest}.`]
}

/** Starts the sandbox alone, with the settings that `serve` gives it. The caller closes it. */
export async function startSandboxAlone(env: Env): Promise<Sandbox> {
  const { dataDir, sandbox, bluumRequestsPerSecond: requestsPerSecond } = readConfig(env)
  const stateFile = join(dataDir, 'sandbox.sqlite')
  const { startSandbox } = await import('../../sandbox/server.ts')
  return await startSandbox({ ...sandbox, stateFile, requestsPerSecond })
}

// ---- placements -------------------------------------------------------------------------------------------------------

const placementsPerRead = 200
// A table has to know its rows before it is printed, and nobody reads more of it.
const tableRowsMax = 1_000

/**
 * Every placement that somebody still has to do something about, oldest first: as a table, or as JSON, one line each.
 * Throws ConfigError and OperatorError, as all that reads the store.
 */
export async function listPlacements(env: Env, asJson: boolean, print: (text: string) => void): Promise<void> {
  await withStore(env, async (store) => {
    const rows: Placement[] = []
    let after: string | null = null
    for (;;) {
      const read: Placement[] = await store.findUnfinished(after, placementsPerRead)
      if (asJson) for (const placement of read) print(JSON.stringify(placement))
      else rows.push(...read)
      after = read.at(-1)?.opId ?? null
      if (read.length < placementsPerRead || rows.length > tableRowsMax) break
    }
    if (asJson) return
    if (rows.length === 0) return print('Nothing is unresolved.')
    print(toTable(rows.slice(0, tableRowsMax).map(toRow)))
    if (rows.length > tableRowsMax) print(`There are more than ${tableRowsMax}: --json prints all of them.`)
  })
}

/** One placement with its audit rows, named by its opId or by its account and client order id. */
export async function showPlacement(env: Env, name: string, clientOrderId: string | null): Promise<string> {
  return await withStore(env, async (store) => {
    const found =
      clientOrderId === null
        ? await store.read(name)
        : await store.find({ broker: brokerOf(name), accountId: name, clientOrderId })
    if (found === null) {
      throw new OperatorError(
        clientOrderId === null
          ? `There is no placement ${name}. It may be named by its account and client order id too.`
          : `There is no placement of account ${name} with the client order id ${clientOrderId}.`,
      )
    }
    const fields = isTombstone(found) ? describeTombstone(found) : describePlacement(found)
    const audit = (await store.readAudit(found.opId)).map(toAuditRow)
    return `${toList(fields)}\n\n${toTable(audit)}`
  })
}

/** What a person has found out about a placement. */
export interface Resolution {
  opId: string
  /** The broker's order that it became; null: it was never placed. */
  orderId: string | null
  /** Who says so. */
  by: string
}

/** Settles a placement whose outcome is not known, for good. Returns what it did; throws OperatorError where it did not. */
export async function resolvePlacement(env: Env, { opId, orderId, by }: Resolution): Promise<string> {
  if (!/^[^\p{C}]{1,100}$/u.test(by)) throw new OperatorError('--by takes a name of at most 100 characters.')
  return await withStore(env, async (store) => {
    const { found, resolved } = await decide(store, { opId, orderId, by })
    const candidates = found.evidence.candidates ?? []
    return [
      `Placement ${opId} was ${found.state} and is ${resolved.state} now, ` +
        `${orderId === null ? 'without an order' : `order ${orderId}`}, on the word of ${by}.`,
      ...(orderId !== null && candidates.length > 0 && !candidates.includes(orderId)
        ? [`The order is none of those that were found: ${candidates.join(', ')}.`]
        : []),
      ...(orderId !== null && isCancelWanted(resolved)
        ? [
            'Its cancel was asked for, and is sent when the service starts next; to have it sooner, cancel the order now.',
          ]
        : []),
    ].join('\n')
  })
}

/** The step itself: whoever comes second, a person or the service, is told what has become of it meanwhile. */
async function decide(store: Store, { opId, orderId, by }: Resolution) {
  const event: PlacementEvent = { type: 'resolved', orderId, by }
  for (let attempt = 1; ; attempt++) {
    const found = await store.read(opId)
    if (found === null) throw new OperatorError(`There is no placement ${opId}.`)
    const at = systemClock.now()
    const resolved = advance(found, event, at)?.placement
    if (resolved === undefined) throw toRefusal(found)
    if (orderId !== null) await checkOrder(store, found, orderId)
    const { type, ...detail } = event
    const entry = { principal: 'operator', from: found.state, to: resolved.state, detail: { event: type, ...detail } }
    if (await store.update(resolved, entry, at)) return { found, resolved }
    if (attempt === decisionsMax) throw new OperatorError(`Placement ${opId} changes all the time; try again.`)
  }
}

// A service that looks for it changes it now and then.
const decisionsMax = 5

function toRefusal({ opId, state, orderId, nextCheckAt }: Placement): OperatorError {
  const order = orderId === null ? '' : `, order ${orderId}`
  switch (state) {
    case 'RESERVED':
    case 'SENDING':
      return new OperatorError(
        `Placement ${opId} is ${state}: the service is about to know more, or will when it starts next. Nothing was changed.`,
      )
    case 'NOT_PLACED': {
      const watch = nextCheckAt === null ? '' : `; it is looked for again at ${toTime(nextCheckAt)}`
      return new OperatorError(`Placement ${opId} counts as not placed already${watch}. Nothing was changed.`)
    }
    case 'NOT_SENT':
    case 'ACCEPTED':
    case 'REJECTED':
      return new OperatorError(`Placement ${opId} is settled: ${state}${order}. Nothing was changed.`)
    case 'UNKNOWN':
    case 'AMBIGUOUS':
      return new OperatorError(`Placement ${opId} is still ${state}: that order belongs to another one by now.`)
    default:
      return state satisfies never
  }
}

async function checkOrder(store: Store, { broker, opId }: Placement, orderId: string): Promise<void> {
  if (!isOrderId(orderId) || brokerOf(orderId) !== broker) {
    throw new OperatorError(`${JSON.stringify(orderId)} cannot be an order of ${broker}. Nothing was changed.`)
  }
  const bound = await store.findByOrder(broker, orderId)
  if (bound === null || bound.opId === opId) return
  throw new OperatorError(
    `Order ${orderId} belongs to placement ${bound.opId} of account ${bound.accountId}, client order id ` +
      `${bound.clientOrderId}. Nothing was changed.`,
  )
}

/** Checks every chain of the audit. Returns the counts; throws OperatorError that names the first row which does not fit. */
export async function verifyAudit(env: Env): Promise<string> {
  return await withStore(env, async (store) => {
    const { placements, rows, broken } = await store.verifyAudit()
    const counts = `${placements} placements, ${rows} audit rows`
    if (broken === null) return `The audit is whole: ${counts}.`
    const place = broken.seq === 0 ? 'its record' : `audit row ${broken.seq}`
    throw new OperatorError(
      `The audit is broken at placement ${broken.opId}, ${place}: ${broken.what}. Read: ${counts}.`,
    )
  })
}

async function withStore<T>(env: Env, work: (store: Store) => Promise<T>): Promise<T> {
  const file = toStoreFile(readConfig(env).dataDir)
  let store: Store | null = null
  try {
    store = openSqliteStore({ file, role: 'operator', mayCreate: false })
    return await work(store)
  } catch (error) {
    if (error instanceof StoreOpenError || error instanceof StoreError) throw new OperatorError(error.message)
    throw error
  } finally {
    await store?.close()
  }
}

// ---- as a person reads it ---------------------------------------------------------------------------------------------

function toRow(placement: Placement): Record<string, string> {
  const { opId, state, broker, accountId, clientOrderId, request, lastSentAt, nextCheckAt, evidence } = placement
  return {
    placement: opId,
    state,
    broker,
    account: accountId,
    'client order id': clientOrderId,
    order: toOrderLine(request),
    sent: toTime(lastSentAt),
    'next look': toTime(nextCheckAt),
    'cancel asked': isCancelWanted(placement) ? toTime(placement.cancelRequestedAt) : '',
    candidates: evidence.candidates?.join(' ') ?? '',
  }
}

function describePlacement(placement: Placement): Record<string, string> {
  const { opId, state, attempt, sends, broker, accountId, clientOrderId, request, orderId, foundBy } = placement
  const { outcome, evidence, preImage, cancelSettledAt } = placement
  return {
    placement: opId,
    state,
    broker,
    account: accountId,
    'client order id': clientOrderId,
    order: toOrderLine(request),
    "broker's order": orderId === null ? '' : `${orderId}, found by ${foundBy ?? 'nothing'}`,
    outcome: outcome === null ? '' : JSON.stringify(outcome),
    evidence: Object.keys(evidence).length === 0 ? '' : JSON.stringify(evidence),
    attempts: `${attempt}, sent ${sends} times`,
    created: toTime(placement.createdAt),
    'first sent': toTime(placement.firstSentAt),
    'last sent': toTime(placement.lastSentAt),
    'seen before':
      preImage === null ? '' : `${preImage.orderIds.length} orders${preImage.isComplete ? '' : ' or more'}`,
    'next look': toTime(placement.nextCheckAt),
    resolved: toTime(placement.resolvedAt),
    'cancel asked': toTime(placement.cancelRequestedAt),
    'cancel settled': toTime(cancelSettledAt),
  }
}

function describeTombstone(tombstone: Tombstone): Record<string, string> {
  return {
    placement: tombstone.opId,
    state: 'expired: this is what is left of it',
    broker: tombstone.broker,
    account: tombstone.accountId,
    'client order id': tombstone.clientOrderId,
    "broker's order": tombstone.orderId ?? '',
    created: toTime(tombstone.createdAt),
    resolved: toTime(tombstone.resolvedAt),
  }
}

function toAuditRow({ seq, at, principal, from, to, detail }: AuditRow): Record<string, string> {
  const change = from === null || from === to ? to : `${from} → ${to}`
  return { row: String(seq), at: toTime(at), who: principal, state: change, what: JSON.stringify(detail) }
}

/** The order in one line, such as `BUY 10 AAPL LIMIT 10.00 GTC`. */
function toOrderLine(order: NewOrder): string {
  const size = order.quantity ?? `for ${order.notional ?? '?'}`
  const prices = [
    order.limitPrice,
    order.stopPrice === null ? null : `stop ${order.stopPrice}`,
    order.trailPercent === null ? null : `trail ${order.trailPercent} %`,
    order.trailPrice === null ? null : `trail ${order.trailPrice}`,
  ].filter((price) => price !== null)
  return [order.side, size, order.symbol, order.type, ...prices, order.timeInForce].join(' ')
}

function isCancelWanted({ cancelRequestedAt, cancelSettledAt }: Placement): boolean {
  return cancelRequestedAt !== null && cancelSettledAt === null
}

function toTime(ms: number | null): string {
  return ms === null ? '' : new Date(ms).toISOString()
}

/** Rows of equal names under their heads, without the columns that are empty throughout. */
function toTable(rows: readonly Record<string, string>[]): string {
  const names = Object.keys(rows[0] ?? {}).filter((name) => rows.some((row) => row[name] !== ''))
  const lines = [names, ...rows.map((row) => names.map((name) => row[name] ?? ''))]
  const widths = names.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** One line for each that has a value. */
function toList(fields: Record<string, string>): string {
  const shown = Object.entries(fields).filter(([, value]) => value !== '')
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}

// ---- certify ----------------------------------------------------------------------------------------------------------

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

// Where orders are play money. Every other host that is not this machine counts as production.
const sandboxHosts = ['sandbox.api.bluumfinance.com', 'test-service.bluumfinance.com', 'sandbox.api.bluum.finance']

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
  const isProduction = host !== null && !isLoopback(host) && !sandboxHosts.includes(host)
  if (isProduction && !wishes.production) {
    throw new OperatorError(
      `${host} is no sandbox that is known here, so real orders would be placed. Give --production if that is meant.`,
    )
  }
  if (!wishes.yes) {
    throw new OperatorError(toPlan(host ?? 'an embedded sandbox', wishes))
  }

  // Loaded here: they take longer to load than the other commands to run.
  const { connect, listSandboxAccounts } = await import('./connections.ts')
  const { startSandbox } = await import('../../sandbox/server.ts')
  const { bluumRequestsPerSecond: requestsPerSecond } = config
  const { seed } = config.sandbox
  const sandbox = host === null ? await startSandbox({ stateFile: ':memory:', seed, requestsPerSecond }) : null
  // A few calls, one after the other, of which the last ones have to be made.
  // A refresh token that is replaced here is one that the service cannot use any more.
  const broker = connect(id, config, { sandbox, breaker: false, onNotice: (message) => print(`Mind: ${message}.`) })
  try {
    const accountId =
      wishes.accountId ?? (sandbox && listSandboxAccounts(id, config, sandbox)[0]) ?? (await findOnlyAccount(broker))
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
      'Neither BLUUM_URL nor ARIES_URL is set: set it to certify that broker, or give --sandbox to try the command.',
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
  return broker ?? first ?? 'BLUUM'
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
