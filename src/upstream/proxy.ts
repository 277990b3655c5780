// Decides which addresses are reached through the HTTP proxy of the environment.

import { BlockList, isIP } from 'node:net'

/** The proxy of the settings. */
export interface ProxySettings {
  /** The proxy's URL, which may hold a user name and a password. */
  readonly url: { reveal(): string }
  /** Host and port of the proxy, for messages. */
  readonly host: string
  /** The entries of NO_PROXY, which are reached directly: names with their subdomains, addresses, networks, or `*` for all. */
  readonly bypass: readonly string[]
}

/**
 * Returns the URL of the proxy for `target`; null if the target is reached directly. That is the case without a proxy, if
 * NO_PROXY names the target, if it is this machine, and for http://, because only https:// calls leave this machine.
 */
export function findProxy(target: URL, proxy: ProxySettings | null): string | null {
  if (proxy === null || target.protocol !== 'https:' || isLoopbackName(target.hostname)) return null
  return isBypassed(target, proxy.bypass) ? null : proxy.url.reveal()
}

/** Whether one of `entries` names the host of `target`. The entries have the forms of curl's NO_PROXY. */
export function isBypassed(target: URL, entries: readonly string[]): boolean {
  const host = toBareHost(target.hostname)
  const port = target.port === '' ? '443' : target.port
  return entries.some((text) => {
    const entry = text.toLowerCase()
    if (entry.includes('/')) return isInNetwork(host, entry)
    // The colons of a bare IPv6 address are not followed by a port.
    const withPort = isIP(entry) === 0 ? /^(.+):(\d+)$/.exec(entry) : null
    if (withPort && withPort[2] !== port) return false
    const name = toBareHost(withPort?.[1] ?? entry)
    if (name === '*') return true
    if (name.startsWith('*.')) return host.endsWith(name.slice(1))
    const parent = name.replace(/^\./, '')
    return parent !== '' && (host === parent || (isIP(host) === 0 && host.endsWith(`.${parent}`)))
  })
}

function isInNetwork(host: string, network: string): boolean {
  const [address = '', bits = ''] = network.split('/')
  const family = toFamily(address)
  if (family === null || toFamily(host) !== family || !/^\d{1,3}$/.test(bits)) return false
  if (Number(bits) > (family === 'ipv4' ? 32 : 128)) return false
  const list = new BlockList()
  list.addSubnet(toBareHost(address), Number(bits), family)
  return list.check(host, family)
}

function toFamily(address: string): 'ipv4' | 'ipv6' | null {
  const version = isIP(toBareHost(address))
  return version === 4 ? 'ipv4' : version === 6 ? 'ipv6' : null
}

// Removes the brackets of an IPv6 address and the dot at the end of a full name.
function toBareHost(host: string): string {
  return host
    .toLowerCase()
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/(.)\.$/, '$1')
}

function isLoopbackName(hostname: string): boolean {
  const host = toBareHost(hostname)
  return host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}
