// The process: settings in, a listening service out, and an end that abandons no order.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker, Brokers } from '../brokers/broker.ts'
import type { OnNotice } from '../upstream/notices.ts'
import { systemClock } from '../domain/clock.ts'
import { isSandboxOnly, listConnected, StartError } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import { brokerOf, registry } from '../brokers/registry.ts'
import { isLoopback } from '../domain/setting.ts'
import { connectBroker } from './connect.ts'
import { listTabs } from '../server/graphiqlTabs.ts'
import type { Demo } from '../server/graphiqlTabs.ts'
import { checkDocuments } from '../server/trustedDocuments.ts'
import { createIdentity } from '../server/identity.ts'
import type { IdentityListener } from '../server/identity.ts'
import { createListener } from '../server/listener.ts'
import { listNotices } from '../config/notices.ts'
import { createCommands } from '../trading/placeOrder.ts'
import type { BrokerId } from '../domain/order.ts'
import { createCursors } from '../graph/orders/cursors.ts'
import { rememberOrders } from '../brokers/orderMemory.ts'
import type { BoundOrder } from '../brokers/orderMemory.ts'
import { createRate } from '../domain/rate.ts'
import type { Rate } from '../domain/rate.ts'
import { createRefusalLog, noteWriteRefusals } from '../server/refusals.ts'
import { createSchema } from '../graph/schema.ts'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import { createServer } from '../server/server.ts'
import type { CallerRates, Server } from '../server/server.ts'
import { openSqliteStore, StoreOpenError, toStoreFile } from '../store/sqlite/sqliteStore.ts'
import { StoreError } from '../store/store.ts'
import type { Store } from '../store/store.ts'
import { createLog } from '../server/telemetry.ts'
import type { Log } from '../server/telemetry.ts'

/** A running service. */
export interface Service {
  /** The address of GraphQL, such as `http://127.0.0.1:4000/graphql`. */
  url: string
  /** The embedded broker; null with a real one. */
  sandbox: Sandbox | null
  /** The accounts of the embedded sandbox by broker, the one to show first; empty with a real broker. */
  accounts: readonly { broker: string; ids: readonly string[] }[]
  log: Log
  fetch: Server['fetch']
  /**
   * Stops gracefully. First everything is served for `drainMs`, while `/ready` answers 503; this is skipped after a bug. Then
   * the service accepts no new work, finishes the writes under way within `shutdownMs`, and closes everything. `reason` is
   * logged.
   */
  close(reason?: StopReason): Promise<void>
}

/** Why a service stops. */
type StopReason = NodeJS.Signals | 'bug' | 'close'

/**
 * Starts the service, with the embedded sandbox where no broker is configured. Throws when the port is taken or the
 * sandbox's state cannot be used; nothing is left running then. The log goes to `logTo`, one JSON line each.
 */
export async function serve(config: Config, logTo: NodeJS.WritableStream = process.stdout): Promise<Service> {
  const log = createLog(config.logLevel, logTo)
  const onTrouble = (message: string, error: unknown): void => {
    // A full disk is no place for a stack with every placement that it refuses.
    if (error instanceof StoreError) log.error({ reason: error.message }, message)
    else log.error(error === null ? {} : { err: error }, message)
  }
  const { operationsPerSecond, placementsPerSecond } = config.limits
  const noteRefusal = createRefusalLog(log)
  const schema = createSchema()
  if (config.trustedDocuments) checkDocuments(config.trustedDocuments, schema, config.introspection)
  const notices = listNotices(config)
  const store = openStore(config)
  for (const notice of notices) log.warn({}, notice)
  const sandbox = isSandboxOnly(config) ? await startEmbedded(config).catch(closeStore) : null
  const brokers: Brokers = new Map(listConnected(config).map((id) => [id, connectRemembering(id)]))
  const countLog = createCountLog(log)
  const commands = createCommands({
    brokers,
    store,
    clock: systemClock,
    random: () => (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32,
    times: config.placing,
    trading: config.trading,
    placementRate:
      placementsPerSecond === null ? null : createRate(placementsPerSecond, placementsPerSecond, systemClock),
    onTrouble,
    unresolved: {
      onCount: (count) => countLog.note(count),
      onResolved: (resolution) =>
        log.info({ ...resolution }, 'a placement whose outcome had been reported as unknown is resolved'),
    },
    onNotice: (message, fields) => log.warn(fields, message),
  })
  await commands.start()
  countLog.start(commands.unresolved())
  const identityListener: IdentityListener = {
    onKeysTrouble: (reason) =>
      log.warn({ reason }, 'the keys at JWKS_URL cannot be fetched; every token is refused until they can'),
    onClaimTrouble: (reason) =>
      log.warn(
        { reason },
        'a token that was verified grants nothing; JWT_SCOPE_CLAIM and JWT_ACCOUNTS_CLAIM name its claims',
      ),
  }
  let isStopping = false
  const server = createServer({
    schema,
    brokers,
    commands,
    cursors: createCursors(toCursorSecret(config, sandbox)),
    log,
    noteRefusal,
    identity: createIdentity(config.auth, identityListener, config.proxy),
    routerSecret: config.routerSecret?.reveal() ?? null,
    introspection: config.introspection,
    corsOrigins: config.corsOrigins,
    trustedDocuments: config.trustedDocuments,
    rates: operationsPerSecond === null ? null : createCallerRates(operationsPerSecond),
    graphiqlTabs: config.graphiql ? listTabs(sandbox && toDemo(sandbox, brokers)) : null,
    isReady: () => !isStopping,
  })
  const listener = createListener(server.answer, {
    corsOrigins: config.corsOrigins,
    isLoopbackOnly: isLoopback(config.host),
    publicHosts: config.publicHosts,
    keepAliveMs: config.keepAliveMs,
  })

  function connectRemembering(id: BrokerId): Broker {
    const findBound = async (orderId: string): Promise<BoundOrder | null> => {
      const placement = await store.findByOrder(id, orderId)
      return placement && { accountId: placement.accountId, boundAt: placement.resolvedAt ?? placement.createdAt }
    }
    const findAccount = async (orderId: string): Promise<string | null> => (await findBound(orderId))?.accountId ?? null
    const onNotice: OnNotice = (message, { level = 'warn', fields } = {}) =>
      log[level]({ broker: id, ...fields }, message)
    const broker = connectBroker(id, config, { sandbox, breaker: config.breaker, findAccount, onNotice })
    return rememberOrders(noteWriteRefusals(broker, noteRefusal), {
      findBound,
      onAlarm: (message, { orderId }) => log.error({ orderId }, `ALARM: ${message}`),
    })
  }

  async function closeStore(error: unknown): Promise<never> {
    await store.close()
    throw error
  }

  async function closeAll(withinMs: number): Promise<void> {
    countLog.close()
    listener.closeAll()
    await server.close()
    await Promise.all([...brokers.values()].map((broker) => broker.close(withinMs)))
    await sandbox?.close()
    await store.close()
    log.close()
  }

  let url: string
  try {
    url = `${await listener.listen(config.port, config.host)}/graphql`
  } catch (error) {
    await commands.close()
    await closeAll(0)
    throw new StartError(`PORT ${config.port} on HOST ${config.host} cannot be listened on: ${describe(error)}`)
  }

  log.info({ url, broker: sandbox ? 'sandbox' : [...brokers.keys()].join(', ').toLowerCase() }, 'ready')

  let closing: Promise<void> | null = null
  const draining = new AbortController()
  async function stop(reason: StopReason): Promise<void> {
    const startedAt = performance.now()
    const drainMs = reason === 'bug' ? 0 : config.drainMs
    isStopping = true
    const { shutdownMs } = config
    log.info({ reason, drainMs, shutdownMs, unresolved: commands.unresolved() }, 'stopping')
    if (drainMs > 0) {
      listener.drain()
      await sleep(drainMs, undefined, { signal: draining.signal }).catch(() => {})
    }
    const deadline = Date.now() + config.shutdownMs
    await within(config.shutdownMs, Promise.all([listener.stop(), commands.close()]))
    await closeAll(Math.max(0, deadline - Date.now()))
    const ms = Math.round(performance.now() - startedAt)
    log.info({ reason, ms, unresolved: commands.unresolved() }, 'stopped')
  }

  return {
    url,
    sandbox,
    accounts: registry.flatMap(({ id, name }) => {
      const settings = sandbox && brokers.has(id) ? config.brokers.get(id) : null
      return sandbox && settings ? { broker: name, ids: settings.listSandboxAccounts(sandbox) } : []
    }),
    log,
    fetch: server.fetch,
    close(reason = 'close') {
      if (reason === 'bug') draining.abort()
      return (closing ??= stop(reason))
    },
  }
}

// Minimum ms between two log lines about the number of placements without an outcome.
const countEveryMs = 1_000

/** Logs the number of placements without an outcome at the start and when it changes, at most once a second. */
function createCountLog(log: Log) {
  let count = 0
  let logged = 0
  let hasStarted = false
  let timer: NodeJS.Timeout | undefined

  function write(): void {
    logged = count
    log[count > 0 ? 'warn' : 'info']({ unresolved: count }, 'placements without an outcome')
  }

  return {
    note(changed: number): void {
      count = changed
      if (!hasStarted || timer !== undefined || count === logged) return
      write()
      timer = setTimeout(() => {
        timer = undefined
        this.note(count)
      }, countEveryMs).unref()
    },
    start(initial: number): void {
      hasStarted = true
      count = initial
      write()
    },
    close(): void {
      hasStarted = false
      clearTimeout(timer)
    },
  }
}

// Twice as many at once as in a second: a page that opens asks for several things.
function createCallerRates(perSecond: number): CallerRates {
  const create = (): Rate => createRate(perSecond, 2 * perSecond, systemClock)
  return { operations: create(), cancels: create() }
}

function describe(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await Promise.race([work, promise])
  clearTimeout(timer)
}

function openStore({ dataDir, mayCreateStore }: Config): Store {
  try {
    return openSqliteStore({ file: toStoreFile(dataDir), role: 'service', mayCreate: mayCreateStore })
  } catch (error) {
    if (error instanceof StoreOpenError) throw new StartError(error.message)
    throw error
  }
}

// Its accounts are shown by their ids in the API that is configured.
async function startEmbedded(config: Config): Promise<Sandbox> {
  const { dataDir, sandbox, brokers } = config
  // The sandbox has one rate, that of the broker which is shown first.
  const [first] = brokers.values()
  try {
    const embedded = await startSandbox({
      stateFile: join(dataDir, 'sandbox.sqlite'),
      seed: sandbox.seed,
      port: sandbox.port,
      controlPort: sandbox.controlPort,
      requestsPerSecond: first?.requestsPerSecond ?? 1_000,
    })
    return { ...embedded, accounts: first?.listSandboxAccounts(embedded) ?? [] }
  } catch (error) {
    throw new StartError(`The sandbox cannot start: ${error instanceof Error ? error.message : String(error)}`)
  }
}

// Cursors remain valid after a restart with the same secret, and each deployment has its own.
function toCursorSecret({ brokers }: Config, sandbox: Sandbox | null): string {
  const [secret] = [...brokers.values()].flatMap((broker) => broker.secret ?? [])
  return sandbox?.apiSecret ?? secret?.reveal() ?? ''
}

function toDemo({ accounts, demo }: Sandbox, brokers: Brokers): Demo {
  const accountId = accounts[0] ?? ''
  const readsOne = brokers.get(brokerOf(accountId))?.features.readsOne
  return { ...demo, accountId, needsAccount: readsOne === 'underAccount' }
}
