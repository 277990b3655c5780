// A broker in the registry: everything that the rest of the service has to know about it.

import type { BrokerId } from '../domain/order.ts'
import { isSet, readTable } from '../domain/setting.ts'
import type { Env, Secret, SettingsTable, Values } from '../domain/setting.ts'
import type { OnNotice } from '../upstream/notices.ts'
import type { Broker, BrokerFeatures } from './broker.ts'

/** A broker of the registry. */
export interface BrokerEntry {
  /** The value of the enum `Broker`, and the beginning of the names of its settings, among them `<id>_URL`. */
  readonly id: BrokerId
  /** The name in messages. */
  readonly name: string
  /** The description of the enum value, for frontend engineers. */
  readonly description: string
  readonly ids: IdForm
  /** The APIs that the adapter speaks, for docs/reference/brokers.md. */
  readonly apis: readonly { readonly title: string; readonly features: BrokerFeatures }[]
  /** Hosts at which `certify` may place orders without `--production`. */
  readonly sandboxHosts: readonly string[]
  readonly settings: SettingsTable
  /** Reads the settings, and adds a problem for each that cannot be used. `isSandbox` says that no broker is configured. */
  configure(env: Env, problems: string[], isSandbox: boolean): BrokerConfig
}

/** The form of a broker's ids in the graph. */
interface IdForm {
  /** The beginning of its ids, such as `aries:`; empty for the one broker whose ids pass as they are. */
  readonly prefix: string
  /** Whether the id of an order names its account too: `<prefix><account>:<order>`. Needs a prefix. */
  readonly orderNamesAccount: boolean
}

/** The settings of one broker. */
export interface BrokerConfig {
  /** The address of the broker; null if it is not configured. */
  readonly url: string | null
  /** Whether the embedded sandbox can take its place. */
  readonly isInSandbox: boolean
  /** The rate that the broker grants the credential; 80 % of it is used. */
  readonly requestsPerSecond: number
  /** A secret of this deployment; null if the broker is not configured. */
  readonly secret: Secret | null
  /** The values of its settings, by name. Secrets print as `[secret]`. */
  readonly values: Readonly<Record<string, unknown>>
  /** Warnings for `check-config`, one sentence each. */
  readonly warnings: readonly string[]
  /** Returns the accounts of the embedded sandbox at this broker, the one to show first. */
  listSandboxAccounts(sandbox: SandboxAccess): readonly string[]
  /** Returns the adapter, which connects with its first call. The caller closes it. */
  connect(options: ConnectOptions): Broker
}

/** The addresses, credentials and accounts of the embedded sandbox. */
interface SandboxAccess {
  readonly url: string
  readonly apiKey: string
  readonly apiSecret: string
  /** Accounts of Bluum's accounts API. */
  readonly accounts: readonly string[]
  /** Accounts of Bluum's investors API. */
  readonly investors: readonly string[]
  readonly aries: {
    readonly url: string
    readonly clientId: string
    readonly clientSecret: string
    readonly refreshToken: string
    readonly accounts: readonly string[]
    /** The id of the list of accounts that the order API takes. */
    readonly tradingId: string
  }
}

/** The connections and callbacks that an adapter needs in addition to its settings. */
export interface ConnectOptions {
  /** Null with a real broker. */
  readonly sandbox: SandboxAccess | null
  /** Whether an id has the form of another broker's ids. */
  readonly isForeignId: (id: string) => boolean
  /** Returns the URL of the HTTP proxy for an address; null to connect directly. */
  readonly findProxy: (url: URL) => string | null
  /** Whether calls stop for a while if the broker keeps failing. */
  readonly breaker: boolean
  /** Returns the account of an order from our records; null if they have none. */
  readonly findAccount?: (orderId: string) => Promise<string | null>
  /** Receives notices for the operator. */
  readonly onNotice?: OnNotice
}

/** Creates an entry whose settings are read from its own table. */
export function defineBroker<Table extends SettingsTable>(
  entry: Omit<BrokerEntry, 'settings' | 'configure'> & {
    settings: Table
    /** `isConfigured` says that the setting `<id>_URL` is set, also if it cannot be used. */
    configure(
      values: Values<Table>,
      problems: string[],
      context: { isSandbox: boolean; isConfigured: boolean },
    ): Omit<BrokerConfig, 'values'>
  },
): BrokerEntry {
  const { configure, settings } = entry
  return {
    ...entry,
    configure(env, problems, isSandbox) {
      const context = { isSandbox, isConfigured: isSet(env, `${entry.id}_URL`) }
      const values = readTable(settings, env, problems)
      return Object.freeze({ ...configure(values, problems, context), values: Object.freeze(values) })
    },
  }
}
