// Clients that do not read, over real sockets, with a Yoga of its own behind the listener: how Yoga sends an answer is
// half of the matter.

import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { createSchema, createYoga } from 'graphql-yoga'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createListener } from '../../src/server/listener.ts'
import type { ListenerOptions } from '../../src/server/listener.ts'

interface Listening {
  /** Asks for a field, so many times, and reads nothing; closed with the test. */
  ask(field: string, times?: number): Socket
  /** The listener's ends of all connections that asked for anything, the first first. */
  sockets: Socket[]
  /** How many answers were made. */
  made(): number
  /** How much of them waits to be sent. */
  unsentBytes(): number
  /** The most that it was after any answer. */
  unsentBytesSeen(): number
  /** Lets the field `held` be answered. */
  release(): void
}

// Beyond what a kernel takes for one connection: what waits, waits in the process.
const largeBytes = 10_000_000

async function startListener(options: Partial<ListenerOptions> = {}): Promise<Listening> {
  let made = 0
  let unsentBytesSeen = 0
  const held = Promise.withResolvers<string>()
  const sockets: Socket[] = []
  const countUnsent = (): number =>
    sockets.reduce((bytes, socket) => bytes + (socket.destroyed ? 0 : socket.writableLength), 0)
  const yoga = createYoga({
    logging: false,
    schema: createSchema({
      typeDefs: 'type Query { large: String small: String held: String }',
      resolvers: {
        Query: { large: () => 'x'.repeat(largeBytes), small: () => 'small', held: async () => await held.promise },
      },
    }),
    plugins: [
      {
        onResponse() {
          made += 1
          // After it was written.
          setImmediate(() => (unsentBytesSeen = Math.max(unsentBytesSeen, countUnsent())))
        },
      },
    ],
  })
  const listener = createListener(
    (request, response) => {
      if (!sockets.includes(request.socket)) sockets.push(request.socket)
      void yoga(request, response)
    },
    { isLoopbackOnly: true, ...options },
  )
  onTestFinished(() => listener.closeAll())
  const { port } = new URL(await listener.listen(0, '127.0.0.1'))
  return {
    ask(field, times = 1) {
      const client = connect(Number(port), '127.0.0.1')
      client.on('error', () => {})
      client.pause()
      onTestFinished(() => void client.destroy())
      client.write(`GET /graphql?query={${field}} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(times))
      return client
    },
    sockets,
    made: () => made,
    unsentBytes: countUnsent,
    unsentBytesSeen: () => unsentBytesSeen,
    release: () => held.resolve('released'),
  }
}

/** Reads until all of it is enough. */
async function read(client: Socket, isEnough: (text: string) => boolean): Promise<string> {
  let text = ''
  client.on('data', (chunk) => (text += String(chunk)))
  client.resume()
  await expect.poll(() => isEnough(text), generous).toBe(true)
  return text
}

const includes =
  (part: string) =>
  (text: string): boolean =>
    text.includes(part)
const generous = { timeout: 20_000, interval: 10 }

describe('a client that does not read its answer', () => {
  it('D12 is closed, and one that waits long for its answer is not', async () => {
    const listening = await startListener({ sendMs: 500 })
    const patient = listening.ask('held')
    await expect.poll(() => listening.sockets.length, generous).toBe(1)
    listening.ask('large')
    await expect.poll(() => listening.unsentBytes(), generous).toBeGreaterThan(0)
    await expect.poll(() => listening.sockets[1]?.destroyed, generous).toBe(true)
    expect(listening.unsentBytes()).toBe(0)
    // By now the other one has waited for longer than an answer may be under way.
    listening.release()
    expect(await read(patient, includes('released'))).toMatch(/^HTTP\/1\.1 200 /)
    expect(listening.sockets[0]?.destroyed).toBe(false)
  })

  it('D12 is closed too when it reads on and on, and hardly anything', async () => {
    const listening = await startListener({ sendMs: 500 })
    const client = listening.ask('large')
    let bytes = 0
    client.on('data', (chunk) => {
      bytes += chunk.length
      client.pause()
    })
    const reading = setInterval(() => client.resume(), 20)
    onTestFinished(() => clearInterval(reading))
    await expect.poll(() => listening.sockets[0]?.destroyed, generous).toBe(true)
    expect(bytes).toBeGreaterThan(0)
    expect(bytes).toBeLessThan(largeBytes)
  })

  it('D12 makes room for others: of many the ones that have waited longest are given up', async () => {
    const listening = await startListener({ unsentBytesMax: 3.5 * largeBytes })
    const clients = Array.from({ length: 20 }, () => listening.ask('large'))
    await expect.poll(() => listening.made(), generous).toBe(20)
    await expect.poll(() => listening.unsentBytes(), generous).toBeLessThanOrEqual(3.5 * largeBytes)
    // One answer more than the bound is made before it is seen.
    expect(listening.unsentBytesSeen()).toBeLessThan(4.5 * largeBytes + 1_000)
    const kept = listening.sockets.map(({ destroyed }) => !destroyed)
    expect(kept.filter(Boolean).length).toBeGreaterThanOrEqual(3)
    expect(kept.slice(-3)).toEqual([true, true, true])
    // Whoever begins to read gets all of it.
    const last = listening.sockets.at(-1)
    const client = clients.find(({ localPort }) => localPort === last?.remotePort)
    expect((await read(client!, (text) => text.endsWith('"}}'))).length).toBeGreaterThan(largeBytes)
  })
})

describe('a client that does not wait for its answers', () => {
  it('gets them one by one: the next is made when the one before was read', async () => {
    const listening = await startListener()
    const client = listening.ask('large', 50)
    await expect.poll(() => listening.unsentBytes(), generous).toBeGreaterThan(0)
    await read(listening.ask('small'), includes('small'))
    expect(listening.made()).toBe(2)
    client.resume()
    await expect.poll(() => listening.made(), generous).toBe(51)
  })

  it('gets a thousand of them in order', async () => {
    const listening = await startListener()
    const isWhole = (text: string): boolean => text.split('"}}').length === 1_001
    const text = await read(listening.ask('small', 1_000), isWhole)
    expect(text.match(/HTTP\/1\.1 200 /g)).toHaveLength(1_000)
  })

  it('is closed where more requests would wait than are kept', async () => {
    const listening = await startListener()
    const client = listening.ask('held', 10_100)
    await expect.poll(() => listening.sockets[0]?.destroyed, generous).toBe(true)
    client.destroy()
    listening.release()
    await read(listening.ask('small'), includes('small'))
    expect(listening.sockets).toHaveLength(2)
  })

  it('has nothing run that comes behind an answer that ends the connection', async () => {
    const listening = await startListener()
    const client = listening.ask('held')
    await expect.poll(() => listening.sockets.length, generous).toBe(1)
    client.write('GET /graphql?query={small} HTTP/1.1\r\nHost: evil.example\r\n\r\n')
    client.write('GET /graphql?query={small} HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(3))
    listening.release()
    client.resume()
    await once(client, 'close')
    expect(listening.made()).toBe(1)
  })
})

describe('a listener that a proxy on this machine serves to others', () => {
  it('answers the names of PUBLIC_HOSTS and of this machine, and no others', async () => {
    const listening = await startListener({ publicHosts: ['orders.example.com', '10.0.0.7'] })
    const askAs = async (host: string): Promise<string> => {
      const client = listening.ask('small', 0)
      client.write(`GET /graphql?query={small} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
      return await read(client, (text) => /\r\n\r\n\S/.test(text))
    }
    for (const host of ['orders.example.com', 'Orders.Example.COM:8443', '10.0.0.7', 'localhost:4000', '[::1]'])
      expect(await askAs(host), host).toMatch(/^HTTP\/1\.1 200 /)
    for (const host of ['evil.example', 'orders.example.com.evil.example', 'x.orders.example.com', '10.0.0.70'])
      expect(await askAs(host), host).toMatch(/^HTTP\/1\.1 403 [^]*PUBLIC_HOSTS/)
    expect(listening.made()).toBe(5)
  })
})

describe('a connection without a request', () => {
  it('is kept as long as is set, which its answers say', async () => {
    const listening = await startListener({ keepAliveMs: 600_000 })
    const client = listening.ask('small')
    expect(await read(client, includes('"small"'))).toMatch(/keep-alive: timeout=600\r\n/i)
    client.write('GET /graphql?query={small} HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await expect.poll(() => listening.made(), generous).toBe(2)
  })

  it('is closed after that', async () => {
    const listening = await startListener({ keepAliveMs: 100 })
    const client = listening.ask('small')
    client.resume()
    await once(client, 'close')
    expect(listening.made()).toBe(1)
  })
})

describe('a listener that others than this machine reach', () => {
  it('F24 takes every name of a host, and no other text', async () => {
    const listening = await startListener({ isLoopbackOnly: false })
    const askAs = async (host: string): Promise<string> => {
      const client = listening.ask('small', 0)
      client.write(`GET /graphql?query={small} HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)
      return await read(client, (text) => /\r\n\r\n\S/.test(text))
    }
    for (const host of ['orders.example', 'orders.example:4000', '10.0.0.7', '[2001:db8::1]:80', 'a_b.example'])
      expect(await askAs(`Host: ${host}\r\n`)).toMatch(/^HTTP\/1\.1 200 /)
    for (const host of ['a b', 'x/graphql?', 'user@x', 'x:y', 'x:99999', '[::1', '', '%', 'x#'])
      expect(await askAs(`Host: ${host}\r\n`)).toMatch(/^HTTP\/1\.1 400 [^]*"BAD_USER_INPUT"/)
    expect(await askAs('')).toMatch(/^HTTP\/1\.1 400 /)
    expect(listening.made()).toBe(5)
  })
})
