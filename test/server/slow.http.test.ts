// Clients that send as slowly as they can, in a file of its own because it takes as long as they are suffered.

import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { startHarness } from '../harness.ts'
import type { Harness } from '../harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(() => harness.close())

const byteMs = 500

/** Sends `head` at once, and of `rest` a byte now and then. */
function sendSlowly(head: string, rest: string): Socket {
  const { hostname, port } = new URL(harness.url)
  const socket = connect(Number(port), hostname, () => socket.write(head))
  let sent = 0
  const timer = setInterval(() => socket.writable && socket.write(rest.charAt(sent++ % rest.length)), byteMs)
  socket.on('error', () => {})
  socket.on('close', () => clearInterval(timer))
  socket.resume()
  onTestFinished(() => void socket.destroy())
  return socket
}

it('D11 300 clients that send headers or bodies byte by byte are closed, and others are served meanwhile', async () => {
  const head = 'POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
  const slow = Array.from({ length: 300 }, (_, at) => {
    if (at % 2 === 0) return sendSlowly(head, 'X-Slow: a\r\n')
    return at % 4 === 1
      ? sendSlowly(`${head}Content-Length: 90000\r\n\r\n`, ' ')
      : sendSlowly(`${head}Transfer-Encoding: chunked\r\n\r\n`, '1\r\n \r\n')
  })
  const startedAt = performance.now()
  const seconds: number[] = []
  for (const socket of slow) socket.on('close', () => seconds.push((performance.now() - startedAt) / 1000))
  let answered = 0
  const timeout = 60_000
  await expect
    .poll(
      async () => {
        const { status } = await fetch(harness.url, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ query: `{ order(id: "${harness.sandbox.demo.filledOrderId}") { status } }` }),
        })
        expect(status).toBe(200)
        answered += 1
        return seconds.length
      },
      { timeout, interval: 200 },
    )
    .toBe(slow.length)
  console.log(
    `D11 closed after ${Math.min(...seconds).toFixed(1)} to ${Math.max(...seconds).toFixed(1)} s; ${answered} others answered`,
  )
  expect(answered).toBeGreaterThan(5)
}, 70_000)
