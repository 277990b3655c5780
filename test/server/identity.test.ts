// Who is calling and what they may do: tokens that are not what they look like, accounts of somebody else on every path, and
// rights that a token lacks. What is refused asks no broker.

import { createHmac, generateKeyPairSync } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { accountsSdl, startAccounts } from '../../examples/supergraph/accounts.ts'
import { startGateway } from '../../examples/supergraph/gateway.ts'
import { createIdentity } from '../../src/server/identity.ts'
import { limitBuy, startHarness } from '../harness.ts'
import type { Answer, Harness } from '../harness.ts'
import { all, audience, issuer, keys, pem, sign, tokenEnv } from '../issuer.ts'

const others = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const edwards = generateKeyPairSync('ed25519')

let harness: Harness
/** Of the two accounts of Bluum the one that callers here have, and the one that they have not. */
let own = ''
let foreign = ''
let ownOrder = ''
let foreignOrder = ''

beforeAll(async () => {
  harness = await startHarness({ ...tokenEnv, LIMIT_OPERATIONS_PER_SECOND: '10000' })
  ;[own = '', foreign = ''] = harness.sandbox.accounts
  ownOrder = String((await harness.book(own))[0]?.['id'])
  foreignOrder = String((await harness.book(foreign))[0]?.['id'])
})
afterAll(() => harness.close())
beforeEach(() => harness.clearCalls())

async function ask(token: string | null, query: string, variables: object = {}): Promise<Answer> {
  return await harness.run(query, variables, token === null ? {} : { authorization: `Bearer ${token}` })
}

const codesOf = ({ errors }: Answer): unknown[] => (errors ?? []).map(({ extensions }) => extensions['code'])

describe('a token', () => {
  const query = '{ tradingAccounts { id } }'

  it('that is good lets its caller in, who is named in the log by a hash', async () => {
    const { data, errors } = await ask(await sign(all), query)
    expect(errors).toBeUndefined()
    expect(data.tradingAccounts).toHaveLength(4)
    expect(harness.log().at(-1)).toMatch(/"caller":"[0-9a-f]{16}"/)
    expect(harness.log().join('')).not.toContain('somebody')
  })

  it('tells a router that its secret is missing or wrong, instead of asking it for a token', async () => {
    const guarded = await startHarness({ ...tokenEnv, ROUTER_SECRET: 'the-secret-of-the-router-0001' })
    onTestFinished(() => guarded.close())
    for (const query of ['{ _service { sdl } }', '{ _entities(representations: []) { __typename } }']) {
      const missing = await guarded.run(query)
      expect(missing.status).toBe(401)
      const help = '`_service` and `_entities` need it; other documents need a token.'
      expect(missing.errors?.[0]?.message).toBe(`The header x-router-secret is missing. ${help}`)
      const wrong = await guarded.run(query, {}, { 'x-router-secret': 'nope' })
      expect(wrong.errors?.[0]?.message).toBe(`The secret in the header x-router-secret is wrong. ${help}`)
      const withToken = await guarded.run(query, {}, { authorization: `Bearer ${await sign(all)}` })
      expect(withToken.errors?.[0]?.message).toMatch(
        /^The header x-router-secret is missing\. _(service|entities) needs/,
      )
    }
    expect((await guarded.run('{ __typename }')).errors?.[0]?.message).not.toContain('x-router-secret')
  })

  it('E01 is needed', async () => {
    for (const headers of [{}, { authorization: '' }, { authorization: 'Basic abc' }, { authorization: 'Bearer' }]) {
      const answer = await harness.run(query, {}, headers)
      expect([answer.status, codesOf(answer)]).toEqual([401, ['UNAUTHENTICATED']])
    }
    expect(await harness.calls()).toEqual([])
  })

  const none = (claims: object) =>
    `${[{ alg: 'none' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')}.`
  // The public key taken for a secret.
  const confused = (claims: object, secret = pem) => {
    const text = [{ alg: 'HS256' }, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`
  }
  const payload = { iss: issuer, aud: audience, sub: 'x', exp: Math.floor(Date.now() / 1_000) + 300, ...all }

  it.each<[what: string, make: () => Promise<string> | string]>([
    ['of no algorithm', () => none(payload)],
    ['of no algorithm, with a signature', () => `${none(payload)}abc`],
    ['signed with our public key', () => confused(payload)],
    ['of another key', () => sign(all, { key: others.privateKey })],
    ['of another issuer', () => sign({ ...all, iss: 'https://evil.example.com' })],
    ['for another audience', () => sign({ ...all, aud: 'somebody-else' })],
    ['that has expired', () => sign(all, { expiresIn: -60 })],
    ['that does not expire', () => sign(all, { expiresIn: null })],
    ['that is not valid yet', () => sign(all, { notBefore: 60 })],
    ['that names nobody', () => sign({ ...all, sub: undefined as never })],
    ['that names nobody in words', () => sign({ ...all, sub: '' })],
    ['that names no one person', () => sign({ ...all, sub: {} as never })],
    ['of an algorithm that is not our key’s', () => sign(all, { key: rsa.privateKey, alg: 'RS256' })],
    ['of another curve than our key’s', () => sign(all, { key: edwards.privateKey, alg: 'EdDSA' })],
    ['that was changed', async () => (await sign(all)).replace(/\.(.{10})/, '.AAAAAAAAAA')],
    ['that is cut', async () => (await sign(all)).slice(0, -8)],
  ])('E06 %s is not taken', async (_, make) => {
    const token = await make()
    const answer = await ask(token, query)
    expect([answer.status, codesOf(answer)]).toEqual([401, ['UNAUTHENTICATED']])
    expect(await harness.calls()).toEqual([])
    expect(JSON.stringify(answer.errors) + harness.log().join('')).not.toContain(token)
  })

  it.each<[alg: string, pair: { publicKey: KeyObject; privateKey: KeyObject }]>([
    ['EdDSA', edwards],
    ['Ed25519', edwards],
    ['ES256', keys],
    ['ES384', generateKeyPairSync('ec', { namedCurve: 'P-384' })],
    ['RS256', rsa],
    ['RS384', rsa],
    ['RS512', rsa],
    ['PS256', rsa],
  ])(
    'is taken if it is signed with %s by our key, in PEM or as its issuer publishes it',
    async (alg, { publicKey, privateKey }) => {
      const base = { kind: 'jwt' as const, issuer, audience, scopeClaim: null, accountsClaim: 'accounts' }
      const token = await sign(all, { key: privateKey, alg, kid: 'key-1' })
      const published = { keys: [{ ...(await exportJWK(publicKey)), kid: 'key-1' }] }
      const server = createServer((_request, response) => response.end(JSON.stringify(published)))
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      onTestFinished(() => void server.close())
      const { port } = server.address() as AddressInfo
      const inPem = publicKey.export({ type: 'spki', format: 'pem' })
      for (const ours of [{ pem: inPem }, { url: `http://127.0.0.1:${port}/keys` }]) {
        const identity = createIdentity({ ...base, keys: ours }, { onKeysTrouble() {}, onClaimTrouble() {} })
        expect((await identity.identify(`Bearer ${token}`, false)).sees('any')).toBe(true)
        // HMAC over the public key, under the same key id.
        const confusing = confused(payload, inPem)
        await expect(identity.identify(`Bearer ${confusing}`, false)).rejects.toThrow('The token is not taken')
      }
    },
  )

  it('E06 may be half a minute off, as clocks are', async () => {
    expect(codesOf(await ask(await sign(all, { expiresIn: -20 }), query))).toEqual([])
    expect(codesOf(await ask(await sign(all, { notBefore: 20 }), query))).toEqual([])
  })

  it('is verified with the keys that its issuer publishes, which are fetched once', async () => {
    let fetched = 0
    const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'key-1', alg: 'ES256', use: 'sig' }
    const server = createServer((_request, response) => {
      fetched++
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: [jwk] }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const env = { AUTH: 'jwt', JWT_ISSUER: issuer, JWT_AUDIENCE: audience }
    const published = await startHarness({ ...env, JWKS_URL: `http://127.0.0.1:${address.port}/jwks` })
    const askPublished = async (token: string) => await published.run(query, {}, { authorization: `Bearer ${token}` })
    expect(codesOf(await askPublished(await sign(all, { kid: 'key-1' })))).toEqual([])
    expect(codesOf(await askPublished(await sign(all, { kid: 'key-1' })))).toEqual([])
    expect(codesOf(await askPublished(await sign(all, { kid: 'key-2' })))).toEqual(['UNAUTHENTICATED'])
    expect(fetched).toBe(1)
    await published.close()
    server.closeAllConnections()
    server.close()
  })

  it.each([
    ['is not there', null],
    ['answers no JSON', '<html>'],
    ['publishes no key', '{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}'],
  ])('is not taken where its issuer %s, which is no bug of ours', async (_, body) => {
    const server = createServer((_request, response) => response.end(body))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    if (body === null) await new Promise((resolve) => server.close(resolve))
    const env = { AUTH: 'jwt', JWT_ISSUER: issuer, JWT_AUDIENCE: audience }
    const published = await startHarness({ ...env, JWKS_URL: `http://127.0.0.1:${address.port}/jwks` })
    const token = await sign(all)
    const answer = await published.run(query, {}, { authorization: `Bearer ${token}` })
    expect([answer.status, codesOf(answer)]).toEqual([401, ['UNAUTHENTICATED']])
    expect(codesOf(await published.run(query, {}, { authorization: `Bearer ${token}` }))).toEqual(['UNAUTHENTICATED'])
    const lines = published.log().join('')
    expect(lines).not.toMatch(/"level":"error"/)
    // Once, and not for each token: who forges them could fill the log.
    expect(lines.match(/the keys at JWKS_URL cannot be fetched/g)).toHaveLength(1)
    await published.close()
    server.closeAllConnections()
    server.close()
  })

  it('may be missing for a router that sends its secret, for the schema alone', async () => {
    const secret = 'the-secret-of-the-router'
    const guarded = await startHarness({ ...tokenEnv, ROUTER_SECRET: secret })
    const shown = { 'x-router-secret': secret }
    expect(codesOf(await guarded.run('{ _service { sdl } }', {}, shown))).toEqual([])
    expect(codesOf(await guarded.run(query, {}, shown))).toEqual(['UNAUTHENTICATED'])
    expect(codesOf(await guarded.run('{ _service { sdl } }'))).toEqual(['UNAUTHENTICATED'])
    await guarded.close()
  })
})

describe('an account of another caller', () => {
  let token = ''
  beforeAll(async () => {
    token = await sign({ ...all, accounts: [own] })
  })

  it('is not in the list of accounts, which is the token’s and asks no broker', async () => {
    const { data } = await ask(token, '{ tradingAccounts { id broker } }')
    expect(data.tradingAccounts).toEqual([{ id: own, broker: 'BLUUM' }])
    expect(await harness.calls()).toEqual([])
  })

  it('E03 is refused by its id, whether it exists or not, without a call', async () => {
    const query = 'query ($id: ID!) { orders(accountId: $id) { nodes { id } } }'
    const answers = [await ask(token, query, { id: foreign }), await ask(token, query, { id: 'no-such-account' })]
    for (const answer of answers) {
      expect(answer.data).toEqual({ orders: null })
      expect(answer.errors).toMatchObject([
        { message: 'accountId is not one of your accounts.', extensions: { code: 'FORBIDDEN' } },
      ])
    }
    const account = 'query ($id: ID!) { tradingAccount(id: $id) { id } }'
    expect((await ask(token, account, { id: foreign })).data).toEqual({ tradingAccount: null })
    expect((await ask(token, account, { id: own })).data).toEqual({ tradingAccount: { id: own } })
    expect(await harness.calls()).toEqual([])
  })

  it('shows none of its orders by their ids, which answer like unknown ids', async () => {
    const missing = 'ord_nobodyhasthisone'
    const query = `query ($id: ID!, $ids: [ID!]!, $r: [_Any!]!) {
      order(id: $id) { id }
      ordersByIds(ids: $ids) { id }
      _entities(representations: $r) { ... on Order { id symbol } }
    }`
    const answers: unknown[] = []
    const calls: number[] = []
    for (const id of [foreignOrder, missing]) {
      await harness.clearCalls()
      const { data, errors } = await ask(token, query, { id, ids: [id, ownOrder], r: [{ __typename: 'Order', id }] })
      answers.push({ data, errors })
      calls.push((await harness.calls()).length)
    }
    expect(answers[0]).toEqual({
      data: { order: null, ordersByIds: [null, { id: ownOrder }], _entities: [null] },
      errors: undefined,
    })
    expect(answers[1]).toEqual(answers[0])
    expect(calls[1]).toBe(calls[0])
  })

  it('answers an order that the broker denies for a while like an unknown one', async () => {
    const query = 'query ($id: ID!) { order(id: $id) { id } }'
    const canceling = 'mutation ($id: ID!) { cancelOrder(input: { orderId: $id }) { __typename outcome message } }'
    const everybody = await sign(all)
    // From here on it is known to exist.
    expect((await ask(everybody, query, { id: foreignOrder })).data.order).toEqual({ id: foreignOrder })
    const missing = 'ord_nobodyhasthis'
    await harness.setRules({
      match: { method: 'GET', path: foreignOrder },
      fault: { kind: 'status', status: 404, body: { code: 'BLUM-404-001', message: 'Order not found' } },
    })
    onTestFinished(() => harness.setRules())
    for (const document of [query, canceling]) {
      const [hidden, unknown] = [
        await ask(token, document, { id: foreignOrder }),
        await ask(token, document, { id: missing }),
      ]
      expect([hidden.data, hidden.errors]).toEqual([unknown.data, unknown.errors])
    }
    // Who has the account is told that it is there.
    expect(codesOf(await ask(everybody, query, { id: foreignOrder }))).toEqual(['BROKER_BAD_RESPONSE'])
  })

  it('named with an order or an entity makes no call', async () => {
    const query = `query ($id: ID!, $accountId: ID!, $r: [_Any!]!) {
      order(id: $id, accountId: $accountId) { id }
      _entities(representations: $r) { ... on Order { id } ... on TradingAccount { id orders { nodes { id } } } }
    }`
    const { data, errors } = await ask(token, query, {
      id: foreignOrder,
      accountId: foreign,
      r: [
        { __typename: 'Order', id: foreignOrder, account: { id: foreign } },
        { __typename: 'TradingAccount', id: foreign },
      ],
    })
    expect(errors).toBeUndefined()
    expect(data).toEqual({ order: null, _entities: [null, null] })
    expect(await harness.calls()).toEqual([])
  })

  it('shows none of its orders to a reference that comes through a gateway either, which passes the token on', async () => {
    const failing = String((await harness.book(own))[1]?.['id'])
    const ids = { own: ownOrder, failing, unknown: 'ord_nobodyhasthis', foreign: foreignOrder }
    const notes = Object.entries(ids).map(([text, orderId]) => ({ text, orderId, accountId: own }))
    const accounts = await startAccounts([{ id: 'user-1', name: 'somebody', accountIds: [own, foreign], notes }])
    onTestFinished(() => accounts.close())
    const sdl = readFileSync(new URL('../../schema.graphql', import.meta.url), 'utf8')
    const gateway = await startGateway(
      [
        { name: 'blotter', url: harness.url, sdl },
        { name: 'accounts', url: accounts.url, sdl: accountsSdl },
      ],
      0,
    )
    onTestFinished(() => gateway.close())
    await harness.setRules(
      { match: { path: '/accounts/[^/]+/orders' }, fault: { kind: 'status', status: 404, body: 'not here' } },
      { match: { path: failing }, fault: { kind: 'status', status: 500, body: 'down' } },
    )
    onTestFinished(() => harness.setRules())
    const response = await fetch(gateway.url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${await sign({ ...all, accounts: [own] })}`,
      },
      body: JSON.stringify({ query: '{ user(id: "user-1") { name notes { text order { id symbol } } } }' }),
    })
    const { data, errors } = (await response.json()) as Pick<Answer, 'data' | 'errors'>
    expect(data.user.name).toBe('somebody')
    expect(data.user.notes.map((note: { order: { id: string } | null }) => note.order?.id)).toEqual([
      ownOrder,
      undefined,
      undefined,
      undefined,
    ])
    expect(errors).toMatchObject([{ extensions: { code: 'BROKER_UNAVAILABLE' } }])
  })

  it('takes no order and tells of none that was placed in it', async () => {
    const placing = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }'
    const input = limitBuy(harness, { accountId: foreign })
    expect((await ask(await sign(all), placing, { input })).data.placeOrder).toEqual({ outcome: 'PLACED' })
    await harness.clearCalls()
    const again = await ask(token, placing, { input })
    expect([again.data, codesOf(again)]).toEqual([{ placeOrder: null }, ['FORBIDDEN']])
    const placement =
      'query ($accountId: ID!, $key: ID!) { placement(accountId: $accountId, clientOrderId: $key) { state } }'
    const told = await ask(token, placement, { accountId: foreign, key: input.clientOrderId })
    expect([told.data, told.errors]).toEqual([{ placement: null }, undefined])
    expect(await harness.calls()).toEqual([])
  })

  it('B09 keeps its orders: a cancel answers like one of an unknown order, and makes no cancel call', async () => {
    const canceling = `mutation ($input: CancelOrderInput!) {
      cancelOrder(input: $input) { __typename outcome message order { id } ... on CancelRefused { refusalCode } }
    }`
    const input = limitBuy(harness, { accountId: foreign })
    const owner = await sign({ ...all, accounts: [foreign] })
    const placed = await ask(owner, 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }', {
      input,
    })
    const { orderId } = placed.data.placeOrder
    const answers: unknown[] = []
    for (const target of [
      { orderId },
      { orderId: 'ord_nobodyhasthisone' },
      { orderId, accountId: foreign },
      { orderId, accountId: own },
    ]) {
      answers.push((await ask(token, canceling, { input: target })).data.cancelOrder)
    }
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
    expect(answers[0]).toMatchObject({ __typename: 'CancelRefused', refusalCode: 'NOT_FOUND', order: null })
    const byKey = [input.clientOrderId, 'a-key-of-nobody'].map(async (clientOrderId) =>
      ask(token, canceling, { input: { accountId: foreign, clientOrderId } }),
    )
    const [known, unknown] = await Promise.all(byKey)
    expect(known?.data).toEqual(unknown?.data)
    expect(known?.data.cancelOrder).toMatchObject({ refusalCode: 'NOT_FOUND' })
    expect((await harness.calls()).filter(({ method, path }) => method === 'POST' && path.endsWith('/cancel'))).toEqual(
      [],
    )
    const book = await harness.book(foreign)
    expect(book.find(({ id }) => id === orderId)).toMatchObject({ status: 'accepted' })
  })

  it('B09 nor does a cancel that joins the one of the owner show anything', async () => {
    const canceling = 'mutation ($input: CancelOrderInput!) { cancelOrder(input: $input) { outcome order { id } } }'
    const input = limitBuy(harness, { accountId: foreign })
    const owner = await sign({ ...all, accounts: [foreign] })
    const placed = await ask(owner, 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }', {
      input,
    })
    const target = { input: { orderId: placed.data.placeOrder.orderId } }
    const [theirs, ours] = await Promise.all([ask(owner, canceling, target), ask(token, canceling, target)])
    expect(theirs.data.cancelOrder).toMatchObject({ outcome: 'CANCELED' })
    expect(ours.data.cancelOrder).toEqual({ outcome: 'REFUSED', order: null })
  })
})

it.each([
  ['answers', []],
  ['fails', [{ match: { method: 'GET' }, fault: { kind: 'status', status: 400 } }]],
])(
  'B09 if a broker reads an order only under its account and %s, a cancel does not reveal that it exists',
  async (_, rules) => {
    const investors = await startHarness({ ...tokenEnv, BLUUM_API: 'investors', BREAKER: 'off' })
    const [mine = '', theirs = ''] = investors.sandbox.investors
    const askThere = async (token: string, query: string, variables: object) =>
      await investors.run(query, variables, { authorization: `Bearer ${token}` })
    const placed = await askThere(
      await sign(all),
      'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }',
      { input: limitBuy(investors, { accountId: theirs }) },
    )
    await investors.setRules(...rules)
    const token = await sign({ ...all, accounts: [mine] })
    const canceling = `mutation ($input: CancelOrderInput!) {
    cancelOrder(input: $input) { outcome message ... on CancelInvalid { problems { field } } }
  }`
    const answers = [placed.data.placeOrder.orderId, 'ord_nobodyhasthisone'].map(async (orderId) => [
      (await askThere(token, canceling, { input: { orderId } })).data,
      (await askThere(token, canceling, { input: { orderId, accountId: mine } })).data,
      (await askThere(token, canceling, { input: { orderId, accountId: theirs } })).data,
    ])
    const [known, unknown] = await Promise.all(answers)
    expect(placed.data.placeOrder.orderId).toEqual(expect.any(String))
    expect(known).toEqual(unknown)
    await investors.close()
  },
)

describe('the rate of a broker', () => {
  it('is shared in turns: who asks for much keeps another caller waiting for no more than a few calls', async () => {
    const slow = await startHarness({ ...tokenEnv, BLUUM_REQUESTS_PER_SECOND: '25' })
    onTestFinished(() => slow.close())
    const ids = (await slow.book()).map(({ id }) => String(id)).slice(0, 46)
    const wanted = ids.pop()
    const askAs = async (token: string, of: string[]) =>
      await slow.run(
        `{ ${of.map((id, index) => `o${index}: order(id: "${id}") { id }`).join(' ')} }`,
        {},
        { authorization: `Bearer ${token}` },
      )
    const [much, little] = [await sign({ ...all, sub: 'much' }), await sign({ ...all, sub: 'little' })]
    await slow.clearCalls()
    const flood = [0, 15, 30].map((start) => askAs(much, ids.slice(start, start + 15)))
    // More of them leave only as places come free.
    await expect.poll(async () => (await slow.calls()).length, { timeout: 5_000 }).toBeGreaterThan(12)
    const ahead = (await slow.calls()).length
    const answer = await askAs(little, [String(wanted)])
    expect(answer.data).toEqual({ o0: { id: wanted } })
    for (const { errors } of await Promise.all(flood)) expect(errors).toBeUndefined()
    const calls = await slow.calls()
    expect(calls).toHaveLength(46)
    const at = calls.findIndex(({ path }) => path.includes(String(wanted)))
    expect(at - ahead).toBeLessThanOrEqual(4)
    expect(calls.length - at).toBeGreaterThan(20)
  })
})

describe('a right', () => {
  it.each([
    [
      'orders:place',
      'orders:read orders:cancel',
      'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }',
    ],
    [
      'orders:cancel',
      'orders:read orders:place',
      'mutation ($cancel: CancelOrderInput!) { cancelOrder(input: $cancel) { outcome } }',
    ],
    ['orders:read', 'orders:place orders:cancel', 'query ($id: ID!) { order(id: $id) { id } }'],
    ['orders:read', 'orders:readonly', 'query ($ids: [ID!]!) { ordersByIds(ids: $ids) { id } }'],
    ['orders:read', '', 'query ($accountId: ID!) { orders(accountId: $accountId) { isComplete } }'],
    ['orders:read', 'orders:place', '{ tradingAccounts { id } }'],
    ['orders:read', 'orders:place', 'query ($accountId: ID!) { tradingAccount(id: $accountId) { id } }'],
    [
      'orders:read',
      'orders:place',
      'query ($accountId: ID!) { placement(accountId: $accountId, clientOrderId: "key-00001") { state } }',
    ],
    ['orders:read', 'orders:place', 'query ($r: [_Any!]!) { _entities(representations: $r) { __typename } }'],
  ])('E11 %s that the token lacks ("%s") is refused without a call: %#', async (scope, granted, query) => {
    const token = await sign({ ...all, scope: granted })
    const input = limitBuy(harness)
    const answer = await ask(token, query, {
      ...(query.includes('$input') && { input }),
      ...(query.includes('$cancel') && { cancel: { orderId: ownOrder } }),
      ...(query.includes('$id:') && { id: ownOrder }),
      ...(query.includes('$ids') && { ids: [ownOrder] }),
      ...(query.includes('$accountId') && { accountId: own }),
      ...(query.includes('$r:') && { r: [{ __typename: 'Order', id: ownOrder }] }),
    })
    expect(new Set(codesOf(answer))).toEqual(new Set(['FORBIDDEN']))
    expect(answer.errors?.[0]?.message).toContain(scope)
    expect(await harness.calls()).toEqual([])
    const kept = await ask(
      await sign(all),
      'query ($a: ID!, $k: ID!) { placement(accountId: $a, clientOrderId: $k) { state } }',
      {
        a: own,
        k: input.clientOrderId,
      },
    )
    expect(kept.data).toEqual({ placement: null })
  })

  it('to place alone shows the order that was placed', async () => {
    const token = await sign({ ...all, scope: 'orders:place' })
    const { data } = await ask(
      token,
      'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { order { symbol } } }',
      {
        input: limitBuy(harness),
      },
    )
    expect(data.placeOrder.order).toEqual({ symbol: 'AAPL' })
  })

  it.each([
    ['orders:place', 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { order { ...Others } } }'],
    ['orders:cancel', 'mutation ($cancel: CancelOrderInput!) { cancelOrder(input: $cancel) { order { ...Others } } }'],
  ])(
    'E11 %s alone shows no further order of the account, through the order of its result either',
    async (scope, query) => {
      const { data } = await ask(
        await sign(all),
        'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { orderId } }',
        { input: limitBuy(harness) },
      )
      await harness.clearCalls()
      const others = 'fragment Others on Order { symbol account { id orders(first: 2) { nodes { id } } } }'
      const answer = await ask(await sign({ ...all, scope }), `${query} ${others}`, {
        ...(query.includes('$input') && { input: limitBuy(harness, { quantity: '11' }) }),
        ...(query.includes('$cancel') && { cancel: { orderId: data.placeOrder.orderId } }),
      })
      expect(codesOf(answer)).toEqual(['FORBIDDEN'])
      expect(JSON.stringify(answer.data)).toContain(`"symbol":"AAPL","account":{"id":"${own}","orders":null}`)
      expect((await harness.calls()).map(({ path }) => path)).not.toContainEqual(expect.stringMatching(/limit=[23]\b/))
    },
  )

  const listAccounts = '{ tradingAccounts { id } }'
  const messagesOf = ({ errors }: Answer): string[] => (errors ?? []).map(({ message }) => message)

  it.each([undefined, null, '', 'orders', 'orders:readx', 'xorders:read', {}, [], 7, true, [['orders:read']]])(
    'is not in a scope that does not name it: %j',
    async (scope) => {
      const answer = await ask(await sign({ accounts: ['*'], scope }), listAccounts)
      expect(codesOf(answer)).toEqual(['FORBIDDEN'])
    },
  )

  it.each<[claims: object]>([
    [{ scope: 'orders:read' }],
    [{ scope: 'openid  orders:read\tprofile' }],
    [{ scope: 'openid,orders:read, profile' }],
    [{ scope: ['openid', 'orders:read'] }],
    [{ scope: ['openid orders:read'] }],
    [{ scp: 'openid orders:read' }],
    [{ scp: ['orders:read'] }],
    [{ scope: 'openid', scp: ['orders:read'] }],
    [{ scope: {}, scp: 'orders:read' }],
  ])('is in a scope as identity providers write it: %j', async (claims) => {
    expect((await ask(await sign({ accounts: ['*'], ...claims }), listAccounts)).data.tradingAccounts).toHaveLength(4)
  })

  it.each<[claims: object, message: string]>([
    [{}, 'The token grants no scope, because it has no claim scope or scp, which must be'],
    [{ scope: null }, 'The token grants no scope, because it has no claim scope or scp'],
    [{ scope: { read: true } }, 'The token grants no scope, because its claim scope is not text'],
    [{ scp: [{ name: 'orders:read' }] }, 'The token grants no scope, because its claim scp is not text'],
    [{ scope: 7, scp: true }, 'The token grants no scope, because its claim scope and scp is not text'],
    [{ scope: 'openid' }, 'The token lacks the scope orders:read.'],
    [{ scope: '' }, 'The token lacks the scope orders:read.'],
  ])('that is missing is explained by the claim that should grant it: %j', async (claims, message) => {
    const before = harness.log().length
    const token = await sign({ accounts: ['*'], ...claims })
    const answers = [await ask(token, listAccounts), await ask(token, listAccounts)]
    for (const answer of answers) expect(messagesOf(answer)).toEqual([expect.stringContaining(message)])
    expect(JSON.stringify(answers) + harness.log().slice(before).join('')).not.toContain(token)
  })

  it('that no claim grants is logged once per reason', async () => {
    const guarded = await startHarness(tokenEnv)
    const asking = async (claims: object): Promise<void> => {
      await guarded.run(listAccounts, {}, { authorization: `Bearer ${await sign({ ...all, ...claims })}` })
    }
    for (const claims of [{ scope: 1 }, { scope: [2] }, { accounts: {} }, { accounts: 3 }, {}, { accounts: null }]) {
      await asking(claims)
    }
    const lines = guarded.log().filter((line) => line.includes('grants nothing'))
    expect(lines).toHaveLength(3)
    expect(lines[0]).toMatch(
      /"level":"warn","time":"[^"]*","reason":"The token grants no scope, because its claim scope /,
    )
    expect(lines[1]).toContain('because its claim accounts is not')
    expect(lines[2]).toContain('because it has no claim accounts')
    await guarded.close()
  })

  it.each([undefined, null, [], '', ' '])(
    'to no account is what a token without accounts gives: %j',
    async (accounts) => {
      const { data } = await ask(await sign({ ...all, accounts }), listAccounts)
      expect(data.tradingAccounts).toEqual([])
    },
  )

  it('to an account that a token without the claim lacks is refused with the name of the claim', async () => {
    const token = await sign({ scope: all.scope })
    const because = 'The token grants no account, because it has no claim accounts, which must be text with'
    const asked = await ask(token, 'query ($id: ID!) { orders(accountId: $id) { nodes { id } } }', { id: own })
    expect(messagesOf(asked)).toEqual([expect.stringContaining(`accountId is not one of your accounts. ${because}`)])
    const placing = 'mutation ($input: PlaceOrderInput!) { placeOrder(input: $input) { outcome } }'
    const placed = await ask(token, placing, { input: limitBuy(harness, { accountId: own }) })
    expect(messagesOf(placed)).toEqual([expect.stringContaining(`nothing was placed. ${because}`)])
    expect(await harness.calls()).toEqual([])
  })

  it.each([{}, { a: true }, [1], 7, true, '["x"]', [['x']], '../x'])(
    'to no account is what another form of accounts gives, and the error names the claim: %j',
    async (accounts) => {
      for (const query of [listAccounts, `{ order(id: "${ownOrder}") { id } }`]) {
        const answer = await ask(await sign({ ...all, accounts }), query)
        expect(codesOf(answer)).toEqual(['FORBIDDEN'])
        expect(messagesOf(answer)[0]).toMatch(
          /^The token grants no account, because its claim accounts is not text with/,
        )
      }
      expect(await harness.calls()).toEqual([])
    },
  )

  it('to accounts may be text with blanks or commas, or an array', async () => {
    for (const accounts of [own, `${own} ${foreign}`, `${own}, ${foreign}`, [own, foreign], [own, 7]]) {
      const { data } = await ask(await sign({ ...all, accounts }), listAccounts)
      const ids = data.tradingAccounts.map(({ id }: { id: string }) => id)
      expect(ids).toEqual(JSON.stringify(accounts).includes(foreign) ? [own, foreign] : [own])
    }
    for (const accounts of ['*', ['*'], `* ${own}`]) {
      expect((await ask(await sign({ ...all, accounts }), listAccounts)).data.tradingAccounts).toHaveLength(4)
    }
  })

  it.each<[scopeClaim: string, accountsClaim: string, claims: (own: string) => object]>([
    ['permissions', 'trading_accounts', (id) => ({ permissions: ['orders:read'], trading_accounts: id })],
    [
      'realm_access.roles',
      'https://example.com/accounts',
      (id) => ({ realm_access: { roles: ['orders:read'] }, 'https://example.com/accounts': [id] }),
    ],
    [
      'resource_access.my.client.roles',
      'https://example.com/claims.accounts.ids',
      (id) => ({
        resource_access: { 'my.client': { roles: ['orders:read'] } },
        'https://example.com/claims': { 'accounts.ids': [id] },
      }),
    ],
    ['a.b', 'c.d', (id) => ({ 'a.b': 'orders:read', a: { b: 'none' }, 'c.d': id, c: { d: '*' } })],
  ])('is granted by the claims %s and %s, if those are named', async (scopeClaim, accountsClaim, claims) => {
    const guarded = await startHarness({ ...tokenEnv, JWT_SCOPE_CLAIM: scopeClaim, JWT_ACCOUNTS_CLAIM: accountsClaim })
    const asking = async (payload: object): Promise<Answer> =>
      await guarded.run(listAccounts, {}, { authorization: `Bearer ${await sign({ ...payload })}` })
    const [id = ''] = guarded.sandbox.accounts
    expect((await asking(claims(id))).data).toEqual({ tradingAccounts: [{ id }] })
    // The usual ones grant nothing then.
    expect(messagesOf(await asking(all))).toEqual([expect.stringContaining(`no claim ${scopeClaim}`)])
    await guarded.close()
  })
})
