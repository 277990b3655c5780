// What certify finds out of a broker, over the sandbox with its switches, and that it leaves nothing behind.
//
// `COMBINATIONS=all npx vitest run test/cli/certify.test.ts` tries all of the switches' 768 combinations.

import { describe, expect, it, onTestFinished } from 'vitest'
import { createBluum } from '../../src/brokers/bluum/bluum.ts'
import { brokerCapabilities, wrapBroker } from '../../src/brokers/broker.ts'
import type { Broker, BrokerCapability } from '../../src/brokers/broker.ts'
import { certify } from '../../src/cli/certify.ts'
import type { Certificate, CertifyOptions } from '../../src/cli/certify.ts'
import type { Clock } from '../../src/domain/clock.ts'
import { startSandbox } from '../../sandbox/server.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import { runBlotter } from '../command.ts'

/** Switches of the sandbox, each with the value that it starts with first. */
const switches = {
  clientOrderIdEcho: ['everywhere', 'singleReads', 'nowhere'],
  partialRows: [false, true],
  clientOrderIds: ['free', 'unique'],
  idempotencyKeys: ['honored', 'ignored'],
  idempotencyReuse: ['replay', 'conflict'],
  listOrder: ['newestFirst', 'oldestFirst'],
  readLag: ['none', 'seconds'],
  cancels: ['atOnce', 'later'],
  cancelOfCanceled: ['conflict', 'order'],
} as const
type Switches = { [Name in keyof typeof switches]: (typeof switches)[Name][number] }

function expected(set: Switches): BrokerCapability[] {
  const holds: Record<BrokerCapability, boolean> = {
    clientIdEcho: set.clientOrderIdEcho === 'everywhere' && !set.partialRows,
    clientIdUnique: set.clientOrderIds === 'unique',
    idempotencyKey: set.idempotencyKeys === 'honored' && set.idempotencyReuse === 'replay',
    lookupByClientId: false,
    listNewestFirst: set.listOrder === 'newestFirst',
    readYourWrites: set.readLag === 'none',
    cancelIdempotent: set.cancelOfCanceled === 'order',
    cancelAsync: set.cancels === 'later',
    stream: false,
  }
  return brokerCapabilities.filter((capability) => holds[capability])
}

// Every 27th is enough for any three switches to meet in each of their combinations.
function combine(step: number): Switches[] {
  let all: Record<string, unknown>[] = [{}]
  for (const [name, values] of Object.entries(switches)) {
    all = all.flatMap((set) => values.map((value) => ({ ...set, [name]: value })))
  }
  return all.filter((_, index) => index % step === 0) as Switches[]
}

interface Booked {
  id: string
  status: string
  client_order_id?: string
}

interface Bench {
  sandbox: Sandbox
  broker: Broker
  clock: Clock
  accountId: string
  control(method: string, path: string, body?: unknown): Promise<unknown>
  setRules(...rules: object[]): Promise<void>
  /** The account's orders at the broker that were placed since the bench stands, newest first. */
  book(): Promise<Booked[]>
  certify(options?: Partial<CertifyOptions>): Promise<Certificate>
}

/** A sandbox and an adapter, and a clock that waits by moving the sandbox's. */
async function setUp(): Promise<Bench> {
  // From two in the afternoon on, so that the orders' day does not end meanwhile.
  const dayMs = 86_400_000
  const aheadMs = (dayMs + 14 * 3_600_000 - (Date.now() % dayMs)) % dayMs
  const sandbox = await startSandbox({ stateFile: ':memory:', seed: 'certify', now: () => Date.now() + aheadMs })
  const { url, apiKey, apiSecret, controlUrl, accounts } = sandbox
  const broker = createBluum({ url, apiKey, apiSecret, requestsPerSecond: 1_000, breaker: false })
  onTestFinished(async () => {
    await broker.close(0)
    await sandbox.close()
  })
  const accountId = accounts[0] ?? ''

  async function control(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(controlUrl + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return JSON.parse(text)
  }

  let sleptMs = aheadMs
  const clock: Clock = {
    now: () => Date.now() + sleptMs,
    monotonic: () => performance.now() + sleptMs,
    async sleep(ms, signal) {
      if (signal?.aborted) return
      sleptMs += Math.ceil(ms)
      await control('POST', '/advance', { ms: Math.ceil(ms) })
    },
  }
  const readBook = async () => (await control('GET', `/book?account=${accountId}`)) as Booked[]
  const before = new Set((await readBook()).map(({ id }) => id))
  const { signal } = new AbortController()
  return {
    sandbox,
    broker,
    clock,
    accountId,
    control,
    setRules: async (...rules) => void (await control('PUT', '/rules', rules)),
    book: async () => (await readBook()).filter(({ id }) => !before.has(id)),
    certify: (options) =>
      certify({ broker, accountId, symbol: 'AAPL', limitPrice: '1.00', clock, onStep: () => {}, signal, ...options }),
  }
}

function openOf(orders: readonly Booked[]): Booked[] {
  return orders.filter(({ status }) => status !== 'canceled')
}

const placements = { method: 'POST', path: '/orders$' }
const cancels = { method: 'POST', path: '/cancel$' }

function proven({ findings }: Certificate): BrokerCapability[] {
  return findings.filter(({ holds }) => holds).map(({ capability }) => capability)
}

describe('certify', () => {
  it('observes each capability, with any other behaviour of the broker', async () => {
    const bench = await setUp()
    for (const [index, set] of combine(process.env['COMBINATIONS'] === 'all' ? 1 : 27).entries()) {
      await bench.control('DELETE', `/book?account=${bench.accountId}`)
      const envelopes = {
        listEnvelope: ['array', 'object'][index % 2],
        errorEnvelope: ['flat', 'nested', 'status'][index % 3],
      }
      await bench.control('PUT', '/switches', { ...set, ...envelopes })
      const certificate = await bench.certify()
      const words = JSON.stringify([set, certificate])
      expect(certificate, words).toMatchObject({ trouble: null, leftovers: [] })
      expect(proven(certificate), words).toEqual(expected(set))
      const book = await bench.book()
      expect(book.length).toBeGreaterThanOrEqual(3)
      expect(openOf(book), words).toEqual([])
    }
  }, 300_000)

  it('W9 does not trust a key that only looks honored', async () => {
    const bench = await setUp()
    // An equal order from elsewhere, just when the first order is sent again: it could be what became of that.
    await bench.setRules({ match: { ...placements, nth: 4 }, fault: { kind: 'twin' } })
    const certificate = await bench.certify()
    expect(proven(certificate)).not.toContain('idempotencyKey')
    const [stranger] = openOf(await bench.book())
    expect(stranger).not.toHaveProperty('client_order_id')
    expect(certificate.leftovers).toEqual([expect.stringContaining(`Order ${stranger?.id} is like ours`)])
  })

  it('finds and cancels an order whose answer was lost', async () => {
    const bench = await setUp()
    await bench.setRules({ match: { ...placements, nth: 2 }, fault: { kind: 'rstAfterCommit' } })
    const certificate = await bench.certify()
    expect(certificate).toEqual({ findings: [], trouble: expect.stringContaining('failed'), leftovers: [] })
    const book = await bench.book()
    expect(book).toHaveLength(2)
    expect(openOf(book)).toEqual([])
  })

  it('waits for an order that comes late', async () => {
    const bench = await setUp()
    await bench.setRules(
      { match: { ...placements, nth: 2 }, fault: { kind: 'commitDelay', ms: 9_000 } },
      { match: { ...placements, nth: 2 }, fault: { kind: 'rstAfterCommit' } },
    )
    expect(await bench.certify()).toMatchObject({ leftovers: [] })
    const book = await bench.book()
    expect(book).toHaveLength(2)
    expect(openOf(book)).toEqual([])
  })

  it('names the order that could be its own, and leaves it alone', async () => {
    const bench = await setUp()
    await bench.control('PUT', '/switches', { clientOrderIdEcho: 'nowhere' })
    await bench.setRules({ match: { ...placements, nth: 2 }, fault: { kind: 'rstAfterCommit' } })
    const { leftovers } = await bench.certify()
    const [left, ...others] = openOf(await bench.book())
    expect(others).toEqual([])
    expect(leftovers).toEqual([
      expect.stringContaining(`Order ${left?.id} is like ours`),
      expect.stringContaining(`look for the client order id ${left?.client_order_id}`),
    ])
  })

  it.each([
    ['prefixed', /the broker changes it: "certify-\w+-1" came back as "PTR1-certify-\w+-1"/],
    ['noDashes', /the broker changes it: "certify-\w+-1" came back as "certify\w+1"/],
    ['empty', /^0 of 3 rows of the list and 0 of 3 single reads carried it unchanged$/],
  ])('reports that the broker returns client order ids %s, and certifies no echo', async (form, seen) => {
    const bench = await setUp()
    await bench.control('PUT', '/switches', { clientOrderIdForm: form })
    const { findings, leftovers } = await bench.certify()
    const echo = findings.find(({ capability }) => capability === 'clientIdEcho')
    expect(echo).toMatchObject({ holds: false, seen: expect.stringMatching(seen) })
    expect(leftovers).toEqual([])
    expect(openOf(await bench.book())).toEqual([])
  })

  it('cancels again what the broker failed to cancel', async () => {
    const bench = await setUp()
    await bench.setRules({ match: { ...cancels, times: 2 }, fault: { kind: 'status', status: 503 } })
    const { findings, trouble, leftovers } = await bench.certify()
    expect({ findings, leftovers }).toEqual({ findings: [], leftovers: [] })
    expect(trouble).toContain('status 503')
    expect(openOf(await bench.book())).toEqual([])
  })

  it('says which orders it could not cancel', async () => {
    const bench = await setUp()
    await bench.setRules({ match: cancels, fault: { kind: 'status', status: 503 } })
    const { leftovers } = await bench.certify()
    const open = openOf(await bench.book())
    expect(open.length).toBeGreaterThan(3)
    expect(leftovers).toHaveLength(open.length)
    for (const { id } of open) {
      expect(leftovers).toContainEqual(expect.stringMatching(`^Order ${id} may still be open: .*503.* Cancel it`))
    }
  })

  it('says that an order traded', async () => {
    const bench = await setUp()
    const { trouble, leftovers } = await bench.certify({ limitPrice: '1000.00' })
    const book = await bench.book()
    expect(trouble).toContain('BLUM-409-003')
    expect(leftovers).toEqual(
      book.toReversed().map(({ id }) => expect.stringContaining(`Order ${id} has bought AAPL`) as string),
    )
  })

  it('stops when it is interrupted, and still cancels', async () => {
    const bench = await setUp()
    const stopping = new AbortController()
    const onStep = (text: string): void => void (text.includes('order 2') && stopping.abort())
    const certificate = await bench.certify({ onStep, signal: stopping.signal })
    expect(certificate).toEqual({ findings: [], trouble: 'The probes were interrupted.', leftovers: [] })
    const book = await bench.book()
    expect(book).toHaveLength(2)
    expect(openOf(book)).toEqual([])
  })

  it('waits when the broker says later', async () => {
    const bench = await setUp()
    // A budget takes its pause by the real clock.
    const fault = { kind: 'retryAfter', value: '1' }
    await bench.setRules({ match: { ...placements, nth: 2 }, fault }, { match: { method: 'GET', nth: 9 }, fault })
    expect(await bench.certify()).toMatchObject({ trouble: null, leftovers: [] })
  })

  it.each([
    ['an order that the broker refuses', {}, 'BLUM-422-001'],
    ['a price that is none', { limitPrice: 'cheap' }, '--limit-price has to be'],
    ['a price of nothing', { limitPrice: '0' }, 'above zero'],
    ['a symbol that is none', { symbol: 'aapl' }, 'write the ticker in capitals'],
    ['an account that is none', { accountId: '../x' }, 'cannot be an account id'],
    ['an account that is not there', { accountId: 'acc-404' }, 'BLUM-404-001'],
  ])('breaks off over %s, with nothing placed', async (_, options, words) => {
    const bench = await setUp()
    await bench.control('PUT', `/accounts/${bench.accountId}`, { cash: '0' })
    expect(await bench.certify(options)).toEqual({
      findings: [],
      trouble: expect.stringContaining(words),
      leftovers: [],
    })
    expect(await bench.book()).toEqual([])
  })

  it('breaks off if its orders could not be separated from others', async () => {
    const bench = await setUp()
    const broker = wrapBroker(bench.broker, { scan: () => Promise.resolve({ orders: [], isComplete: false }) })
    expect((await bench.certify({ broker })).trouble).toContain('could not be read to its end')
    expect(await bench.book()).toEqual([])
  })

  it('cancels also after a bug of its own, and shows it', async () => {
    const bench = await setUp()
    const broker = wrapBroker(bench.broker, { orders: () => Promise.reject(new TypeError('oops')) })
    const { trouble, leftovers } = await bench.certify({ broker })
    expect(trouble).toMatch(/A bug of ours: TypeError: oops/)
    expect(leftovers).toEqual([expect.stringContaining('may still be open')])
    expect(openOf(await bench.book())).toEqual([])
  })
})

describe('blotter certify', () => {
  const keys = { BLUUM_API_KEY: 'hidden-key', BLUUM_API_SECRET: 'hidden-secret', AUTH: 'none' }
  // Tells of every connection and every name that is looked up.
  const spy = `
    import dns from 'node:dns'; import net from 'node:net'
    const tell = (what) => process.stdout.write('OUTBOUND ' + what + '\\n')
    const { connect } = net.Socket.prototype
    net.Socket.prototype.connect = function (...args) { tell('connect'); return connect.apply(this, args) }
    const { lookup } = dns
    dns.lookup = function (name, ...rest) { tell('lookup ' + name); return lookup.call(this, name, ...rest) }`
  const nodeOptions = ['--import', `data:text/javascript,${encodeURIComponent(spy)}`]

  it.each([
    'api.bluumfinance.com',
    'service.bluumfinance.com',
    'api.bluum.finance',
    'broker.example',
    'sandbox.api.bluum.finance.',
  ])('takes %s for production, and connects to nothing', async (host) => {
    const env = { ...keys, BLUUM_URL: `https://${host}/v1` }
    const { code, out, err } = await runBlotter(['certify', '--yes'], { env, nodeOptions })
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err).toContain(`${host} is no sandbox that is known here`)
    expect(err).not.toContain('hidden')
  })

  it.each([
    ['sandbox.api.bluumfinance.com', []],
    ['test-service.bluumfinance.com', []],
    ['sandbox.api.bluum.finance', []],
    ['api.bluumfinance.com', ['--production']],
  ])('without --yes only says what it would do on %s', async (host, flags) => {
    const env = { ...keys, BLUUM_URL: `https://${host}/v1` }
    const args = ['certify', ...flags, '--symbol', 'KO', '--limit-price', '2.50', '--account', 'acc-1']
    const { code, out, err } = await runBlotter(args, { env, nodeOptions })
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err).toContain('Nothing was done')
    expect(err).toContain(host)
    expect(err).toContain('3 limit orders for the day, each to buy 1 KO at 2.50, are placed in account acc-1')
  })

  it('needs a broker, or --sandbox', async () => {
    expect(await runBlotter(['certify', '--yes'])).toMatchObject({ code: 1, err: expect.stringContaining('--sandbox') })
    const env = { ...keys, BLUUM_URL: 'https://sandbox.api.bluumfinance.com/v1' }
    const both = await runBlotter(['certify', '--yes', '--sandbox'], { env })
    expect(both).toMatchObject({ code: 1, err: expect.stringContaining('leave out --sandbox') })
  })

  function toEnv({ url, apiKey, apiSecret }: Sandbox): Record<string, string> {
    const pair = { BLUUM_API_KEY: apiKey, BLUUM_API_SECRET: apiSecret }
    return { ...pair, BLUUM_URL: url, BLUUM_REQUESTS_PER_SECOND: '1000', AUTH: 'none' }
  }

  it('prints what it saw, and the setting', async () => {
    const { sandbox, book } = await setUp()
    const [accountId = ''] = sandbox.accounts
    const env = toEnv(sandbox)
    const { code, out, err } = await runBlotter(['certify', '--yes', '--account', accountId], { env })
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toMatch(/^clientIdEcho +yes +3 of 3 rows/m)
    expect(out).toMatch(/^clientIdUnique +no +it became a second order, ord_/m)
    expect(out).toMatch(/^BLUUM_CAPABILITIES=clientIdEcho,idempotencyKey,listNewestFirst,readYourWrites$/m)
    expect(out).not.toContain(sandbox.apiSecret)
    expect(openOf(await book())).toEqual([])
    // As the service reads it.
    const [setting = ''] = /^BLUUM_CAPABILITIES=.*$/m.exec(out) ?? []
    const [name = '', value = ''] = setting.split('=')
    expect(await runBlotter(['check-config'], { env: { ...env, [name]: value } })).toMatchObject({ code: 0 })
  })

  it('cancels what it placed when it is interrupted', async () => {
    const { sandbox, book } = await setUp()
    const [accountId = ''] = sandbox.accounts
    const args = ['certify', '--yes', '--account', accountId]
    const { code, out } = await runBlotter(args, { env: toEnv(sandbox), interruptAt: /order 2/ })
    expect(code).toBe(1)
    expect(out).toContain('Nothing is certified. The probes were interrupted.')
    const orders = await book()
    expect(orders.length).toBeGreaterThan(0)
    expect(openOf(orders)).toEqual([])
  })

  it('asks which account where there are several', async () => {
    const { sandbox, book } = await setUp()
    const { code, err } = await runBlotter(['certify', '--yes'], { env: toEnv(sandbox) })
    expect({ code, err }).toEqual({
      code: 1,
      err: 'The credential sees 2 accounts. Name the one to use with --account.\n',
    })
    expect(await book()).toEqual([])
  })
})
