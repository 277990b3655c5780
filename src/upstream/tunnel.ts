// Connects through an HTTP proxy: a CONNECT tunnel with TLS to the broker inside, so the proxy sees only the broker's name. The
// tunnel is opened with node:http and not by undici, because undici's event for sent headers must concern only requests to the
// broker: it proves whether a request left.

import { request as requestHttp } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { request as requestHttps } from 'node:https'
import { isIP } from 'node:net'
import type { Socket } from 'node:net'
import { buildConnector } from 'undici'

/** No tunnel could be opened, so nothing was sent to the broker. The code says why, without a name or a secret. */
class TunnelError extends Error {
  override readonly name = 'TunnelError'
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/**
 * Connects to https:// origins through the proxy at `proxyUrl`. Its user name and password become the header
 * Proxy-Authorization and never appear in an error. Each connection has its own tunnel. It opens within `openMs`, TLS included,
 * or fails with an error whose code is `PROXY_STATUS_<status>`, `PROXY_TIMEOUT`, `PROXY_<code of node>`, or the code of TLS to
 * the broker. Throws TypeError if `proxyUrl` is not a URL.
 */
export function createTunnels(proxyUrl: string, openMs = 2_000): buildConnector.connector {
  const proxy = new URL(proxyUrl)
  const proxyHost = proxy.hostname.replace(/^\[(.*)\]$/, '$1')
  const authorization = toAuthorization(proxy)
  // No timeout of its own, because the deadline below covers TLS as well.
  const startTls = buildConnector({ timeout: 0, allowH2: false })

  return (options, callback) => {
    let socket: Socket | null = null
    let isOver = false
    const finish = (error: Error | null, connected: Socket | null): void => {
      clearTimeout(timer)
      if (isOver) {
        connected?.destroy()
        return
      }
      isOver = true
      if (error !== null || connected === null) callback(error ?? new TunnelError('PROXY_CLOSED', 'no tunnel'), null)
      else callback(null, connected)
    }
    const timer = setTimeout(() => {
      finish(new TunnelError('PROXY_TIMEOUT', 'the tunnel through the proxy was not open in time'), null)
      connecting.destroy()
      socket?.destroy()
    }, openMs)

    const target = `${options.hostname.includes(':') ? `[${options.hostname}]` : options.hostname}:${options.port || 443}`
    const connecting = (proxy.protocol === 'https:' ? requestHttps : requestHttp)({
      method: 'CONNECT',
      hostname: proxyHost,
      // Otherwise node:https verifies the proxy against the header host, which is the broker's. An address is no name.
      servername: isIP(proxyHost) === 0 ? proxyHost : '',
      port: proxy.port === '' ? (proxy.protocol === 'https:' ? 443 : 80) : Number(proxy.port),
      path: target,
      headers: {
        host: target,
        connection: 'keep-alive',
        'proxy-connection': 'keep-alive',
        ...(authorization !== null && { 'proxy-authorization': authorization }),
      },
      // A new connection, because it becomes the tunnel.
      agent: false,
    })
    connecting.once('error', (error: NodeJS.ErrnoException) => {
      finish(new TunnelError(`PROXY_${error.code ?? error.name}`, `the proxy cannot be used: ${error.message}`), null)
    })
    // Node emits this event for an answer of any status.
    connecting.once('connect', ({ statusCode = 0 }: IncomingMessage, opened: Socket, head: Buffer) => {
      opened.on('error', () => {})
      if (isOver || statusCode < 200 || statusCode > 299) {
        opened.destroy()
        finish(
          new TunnelError(`PROXY_STATUS_${statusCode}`, `the proxy answered CONNECT with status ${statusCode}`),
          null,
        )
        return
      }
      socket = opened
      if (head.length > 0) opened.unshift(head)
      startTls({ ...options, httpSocket: opened }, (...[error, secured]) => finish(error, secured))
    })
    connecting.end()
  }
}

function toAuthorization({ username, password }: URL): string | null {
  if (username === '' && password === '') return null
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return `Basic ${Buffer.from(credentials).toString('base64')}`
}
