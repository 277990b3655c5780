// An HTTP proxy of the kind that companies have between their machines and the world, which fails on request, and a server
// with TLS for it to tunnel to. Both on real sockets.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { connect } from 'node:net'
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { onTestFinished } from 'vitest'

const read = (name: string): string => readFileSync(new URL(`fixtures/tls/${name}`, import.meta.url), 'utf8')
const cert = read('cert.pem')
const key = read('key.pem')

/** The name that the certificate of these tests is valid for; localhost is the other one. */
export const brokerHost = 'broker.test'

/** Makes this process trust that certificate until the test is over. */
export function trustTestCertificate(): void {
  const usual = getCACertificates('default')
  setDefaultCACertificates([...usual, cert])
  onTestFinished(() => setDefaultCACertificates(usual))
}

/** What the proxy does with the next tunnels. */
export type ProxyMode =
  | { kind: 'pass' }
  /** Answers CONNECT with this status. */
  | { kind: 'status'; status: number }
  /** Takes CONNECT and never answers. */
  | { kind: 'hang' }
  /** Ends the connection at CONNECT. */
  | { kind: 'dieBeforeOpen' }
  /** Ends it in the middle of its answer. */
  | { kind: 'dieInAnswer' }
  /** Answers with something that is no HTTP. */
  | { kind: 'nonsense' }
  /** Opens the tunnel and ends it before TLS. */
  | { kind: 'dieOnceOpen' }
  /** Opens the tunnel and never passes a byte on. */
  | { kind: 'swallow' }
  /** Ends the tunnel as soon as the server has a whole request, before its answer. */
  | { kind: 'dieAfterRequest' }

export interface Proxy {
  port: number
  /** The head of every CONNECT so far. */
  heads: string[]
  mode: ProxyMode
  /** Ends every tunnel there is. */
  cut(): void
}

/** A proxy that tunnels every host to `target`; closed with the test. */
export async function startProxy(target: TlsServer): Promise<Proxy> {
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    sockets.add(client)
    client.on('error', () => {})
    client.once('close', () => sockets.delete(client))
    let head = ''
    const onData = (chunk: Buffer): void => {
      head += chunk.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      client.off('data', onData)
      proxy.heads.push(head)
      open(client)
    }
    client.on('data', onData)
  })

  function open(client: Socket): void {
    const { mode } = proxy
    const opened = 'HTTP/1.1 200 Connection established\r\n\r\n'
    switch (mode.kind) {
      case 'pass':
        return tunnel(client)
      case 'dieAfterRequest':
        target.onRequest = () => client.resetAndDestroy()
        return tunnel(client)
      case 'status':
        client.end(`HTTP/1.1 ${mode.status} No\r\ncontent-length: 4\r\n\r\nNo.\n`)
        return
      case 'hang':
        return
      case 'dieBeforeOpen':
        client.resetAndDestroy()
        return
      case 'dieInAnswer':
        client.end(opened.slice(0, 20))
        return
      case 'nonsense':
        client.end('SSH-2.0-OpenSSH_9.6\r\n')
        return
      case 'dieOnceOpen':
        client.end(opened)
        return
      case 'swallow':
        client.write(opened)
        client.resume()
        return
      default:
        mode satisfies never
    }
  }

  function tunnel(client: Socket): void {
    const upstream = connect(target.port, '127.0.0.1')
    sockets.add(upstream)
    upstream.on('error', () => {})
    upstream.once('close', () => {
      sockets.delete(upstream)
      client.destroy()
    })
    client.once('close', () => upstream.destroy())
    client.write('HTTP/1.1 200 Connection established\r\n\r\n')
    client.pipe(upstream).pipe(client)
  }

  const proxy: Proxy = {
    port: await listen(server),
    heads: [],
    mode: { kind: 'pass' },
    cut() {
      for (const socket of sockets) socket.resetAndDestroy()
    },
  }
  onTestFinished(() => {
    proxy.cut()
    server.close()
  })
  return proxy
}

/** The same proxy behind TLS, as `https://` in HTTPS_PROXY; its port. */
export async function startTlsFront({ port }: Proxy): Promise<number> {
  return (await startTlsServer(port)).port
}

interface TlsServer {
  port: number
  /** Called when a request with its body has come in; it is passed on only where this is null. */
  onRequest: (() => void) | null
}

/** Takes TLS off and passes everything on to a server on this machine; closed with the test. */
export async function startTlsServer(toPort: number): Promise<TlsServer> {
  const sockets = new Set<Socket>()
  const server = createTlsServer({ cert, key }, (secured: TLSSocket) => {
    sockets.add(secured)
    const plain = connect(toPort, '127.0.0.1')
    sockets.add(plain)
    for (const [socket, other] of [
      [secured, plain],
      [plain, secured],
    ] as const) {
      socket.on('error', () => {})
      socket.once('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
    }
    let seen = ''
    secured.on('data', (chunk: Buffer) => {
      seen += chunk.toString('latin1')
      const length = Number(/\r\ncontent-length: (\d+)\r\n/i.exec(seen)?.[1] ?? 0)
      const end = seen.indexOf('\r\n\r\n')
      plain.write(chunk)
      if (end < 0 || seen.length < end + 4 + length) return
      const isPost = seen.startsWith('POST')
      seen = ''
      if (isPost) tls.onRequest?.()
    })
    plain.pipe(secured)
  })
  server.on('tlsClientError', () => {})
  const tls: TlsServer = { port: await listen(server), onRequest: null }
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return tls
}

/** Listens on a free port of this machine. */
export async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
