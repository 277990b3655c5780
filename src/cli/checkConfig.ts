// `blotter check-config`: says whether the settings can be used, without a call to a broker.

import { findUrl, listConnected, readConfig } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import { listNotices } from '../config/notices.ts'
import { findProxy } from '../upstream/proxy.ts'
import type { Env } from './operator.ts'

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
  const warnings = [...listNotices(config), ...listBrokerWarnings(config)].map((notice) => `Warning: ${notice}`)
  return [summary, ...describeProxy(config), ...warnings].join('\n')
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

function listBrokerWarnings(config: Config): readonly string[] {
  return listConnected(config).flatMap((id) => config.brokers.get(id)?.warnings ?? [])
}
