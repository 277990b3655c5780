// Which brokers this process speaks to, and as whom: those of the settings, or the embedded sandbox as all of them.

import { createAries } from '../brokers/aries/aries.ts'
import { createBluum } from '../brokers/bluum/bluum.ts'
import type { Broker } from '../brokers/broker.ts'
import type { OnNotice } from '../upstream/notices.ts'
import type { OAuthCredential } from '../brokers/aries/tokens.ts'
import type { Config } from '../config/config.ts'
import { toAriesId } from '../domain/order.ts'
import type { BrokerId } from '../domain/order.ts'
import { findProxy } from '../upstream/proxy.ts'
import type { Sandbox } from '../../sandbox/server.ts'

/** What a connection needs beside the settings. */
export interface ConnectionOptions {
  /** The embedded broker; null with real ones. */
  sandbox: Omit<Sandbox, 'close'> | null
  /** Whether calls stop for a while when the broker keeps failing. */
  breaker: boolean
  /** The account of an order of Bluum's where our records have it; null, or a throw, when they do not. */
  findAccount?: (orderId: string) => Promise<string | null>
  /** Receives notices about the broker for the operator. */
  onNotice?: OnNotice
}

/** The accounts of the embedded sandbox at a broker, by their ids here, the one to show first. */
export function listSandboxAccounts(
  id: BrokerId,
  { bluumApi }: Config,
  sandbox: Omit<Sandbox, 'close'>,
): readonly string[] {
  if (id === 'ARIES') return sandbox.aries.accounts.map((name) => toAriesId(name))
  return bluumApi === 'investors' ? sandbox.investors : sandbox.accounts
}

/** The adapter of a broker that is connected, or that the sandbox is. It connects to nothing before it is asked; the caller closes it. */
export function connect(id: BrokerId, config: Config, options: ConnectionOptions): Broker {
  return id === 'BLUUM' ? connectBluum(config, options) : connectAries(config, options)
}

function connectBluum(config: Config, { sandbox, breaker, findAccount, onNotice }: ConnectionOptions): Broker {
  const { bluum } = config
  return createBluum({
    url: bluum?.url ?? sandbox?.url ?? '',
    proxyUrl: bluum && findProxy(new URL(bluum.url), config.proxy),
    apiKey: bluum?.apiKey.reveal() ?? sandbox?.apiKey ?? '',
    apiSecret: bluum?.apiSecret.reveal() ?? sandbox?.apiSecret ?? '',
    api: config.bluumApi,
    requestsPerSecond: config.bluumRequestsPerSecond,
    capabilities: config.bluumCapabilities,
    breaker,
    ...(findAccount && { findAccount }),
    ...(onNotice && { onNotice }),
  })
}

function connectAries(config: Config, { sandbox, breaker, onNotice }: ConnectionOptions): Broker {
  const { aries } = config
  return createAries({
    url: aries?.url ?? sandbox?.aries.url ?? '',
    proxyUrl: aries && findProxy(new URL(aries.url), config.proxy),
    credential: toCredential(config, sandbox),
    accountField: config.ariesAccountField,
    tradingId: config.ariesTradingId ?? (aries === null ? sandbox?.aries.tradingId : undefined) ?? 'id',
    requestsPerSecond: config.ariesRequestsPerSecond,
    capabilities: config.ariesCapabilities,
    breaker,
    ...(onNotice && { onNotice }),
  })
}

function toCredential({ aries }: Config, sandbox: ConnectionOptions['sandbox']): OAuthCredential {
  const credential = aries?.credential
  if (credential === undefined) {
    const { clientId = '', clientSecret = '', refreshToken = '' } = sandbox?.aries ?? {}
    return { clientId, clientSecret, refreshToken }
  }
  if ('accessToken' in credential) return { accessToken: credential.accessToken.reveal() }
  const { clientId, clientSecret, refreshToken } = credential
  return { clientId, clientSecret: clientSecret.reveal(), refreshToken: refreshToken.reveal() }
}
