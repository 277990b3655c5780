// The canary that every test of a service carries bites: each kind of what it watches for is told to one, and heard of.

import { expect, it } from 'vitest'
import { createCanary } from '../canary.ts'
import type { Canary } from '../canary.ts'
import { startHarness } from '../harness.ts'

const token = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl'
const credential = Buffer.from('the-key:the-secret').toString('base64')

function create(): Canary {
  const canary = createCanary()
  canary.knowSettings({
    ROUTER_SECRET: 'secret-of-the-router',
    ARIES_ACCESS_TOKEN: 'token-of-the-setting',
    SIGNING_PRIVATE_KEY: 'key-of-the-setting',
    JWT_ISSUER: 'https://issuer.example.com',
    BLUUM_API_SECRET: 'short',
  })
  canary.knowBroker({
    apiKey: 'the-key',
    apiSecret: 'the-secret',
    accounts: ['446a904b-9861-4adf-80fb-10a3dfa267c7'],
    investors: ['inv_0lwyb1d8fwh6'],
    aries: {
      clientSecret: 'secret-of-the-client',
      refreshToken: 'token-to-refresh',
      accessToken: 'token-to-read',
      accounts: ['ACC-6413'],
    },
  })
  canary.knowHeaders(new Headers({ authorization: `Bearer ${token}`, 'x-router-secret': 'what-was-tried' }))
  return canary
}

const secrets: [what: string, secret: string][] = [
  ['the key of the API', 'the-key'],
  ['its secret', 'the-secret'],
  ['both, as they are sent', credential],
  ['the client secret of Aries', 'secret-of-the-client'],
  ['its refresh token', 'token-to-refresh'],
  ['its access token', 'token-to-read'],
  ['an access token of the sandbox', `access_${'0123456789abcdef'.repeat(2)}`],
  ['a refresh token of the sandbox', `refresh_${'0123456789abcdef'.repeat(2)}`],
  ['the secret of the router, as it is set', 'secret-of-the-router'],
  ['another token that is set', 'token-of-the-setting'],
  ['a key that is set', 'key-of-the-setting'],
  ['a key in PEM', '-----BEGIN EC PRIVATE KEY-----'],
  ['the header authorization of a caller', `Bearer ${token}`],
  ['the token in it', token],
  ['the header x-router-secret of a caller', 'what-was-tried'],
]

const plain = new Headers({ 'content-type': 'application/json' })
const toBody = (message: string): string => JSON.stringify({ data: { order: { id: 'ord_1' } }, errors: [{ message }] })
const toLine = (fields: object): string => `${JSON.stringify({ level: 'info', msg: 'operation', ...fields })}\n`

it.each(secrets)('hears %s in every output', (_, secret) => {
  const inText = `before ${secret} after`
  const tellings: ((canary: Canary) => void)[] = [
    (canary) => canary.noteAnswer(plain, toBody(inText)),
    (canary) => canary.noteAnswer(new Headers({ 'x-note': inText }), toBody('fine')),
    (canary) => canary.noteAnswer(plain, JSON.stringify({ data: { placeOrder: { reason: inText } } })),
    (canary) => canary.noteAnswer(new Headers({ 'content-type': 'text/html' }), `<html>${inText}</html>`),
    (canary) => canary.noteOutput(toLine({ err: { stack: inText } })),
    (canary) => canary.noteOutput(toLine({ msg: `ALARM: ${inText}` })),
    (canary) => canary.noteOutput(`Blotter is ready\n  ${inText}\n`),
  ]
  for (const tell of tellings) {
    const canary = create()
    tell(canary)
    expect(() => canary.expectSilent()).toThrow(/told what it must not:\n.+ in (?:an answer|the header|the output)/)
    // Told once.
    canary.expectSilent()
  }
})

it.each([
  ['a frame of a stack', 'TypeError: no\n    at run (file:///app/src/main.ts:1:1)'],
  ['another one', 'at async file:///app/main.ts:1:1'],
  ['a path of a package', '/app/node_modules/graphql/index.js'],
  ['a path of ours', '/app/src/server.ts'],
  ['a page of a broker', '<html><body>Bad gateway</body></html>'],
  ['another one', '<!DOCTYPE html>'],
])('hears %s in an answer', (_, text) => {
  const canary = create()
  canary.noteAnswer(plain, toBody(text))
  expect(() => canary.expectSilent()).toThrow(/a stack frame|HTML/)
})

it.each([
  [
    'an account of Bluum',
    toLine({ path: '/accounts/446a904b-9861-4adf-80fb-10a3dfa267c7/orders' }),
    'id of an account',
  ],
  ['an investor', toLine({ investor: 'inv_0lwyb1d8fwh6' }), 'id of an account'],
  ['an account of Aries, in the id of an order', toLine({ orderId: 'aries.ACC-6413.ORDER-1' }), 'id of an account'],
  ['a line that is no JSON', '{"level":"info"\n', 'no JSON'],
  ['an escape of a terminal', `{"msg":"\u001b[2J"}\n`, 'control character'],
  ['one of a single byte', `{"msg":"\u009b2J"}\n`, 'control character'],
  ['a separator of lines', `{"msg":"\u2028"}\n`, 'control character'],
  ['a text that turns round', `{"msg":"\u202e"}\n`, 'control character'],
])('hears %s in the log', (_, line, problem) => {
  const canary = create()
  canary.noteOutput(line)
  expect(() => canary.expectSilent()).toThrow(problem)
})

it('is silent about harmless output', () => {
  const canary = create()
  // A broker's own words, our name for an order, the setting that is no secret, and what is too short to be one.
  canary.noteAnswer(plain, JSON.stringify({ data: { placeOrder: { reason: '<html>no</html>', orderId: 'ord_1' } } }))
  canary.noteAnswer(plain, JSON.stringify({ data: { order: { rejectReason: '<b>/src/</b>', account: 'ACC-6413' } } }))
  canary.noteAnswer(plain, toBody('https://issuer.example.com asks for a short answer at noon'))
  canary.noteAnswer(
    new Headers({ 'content-type': 'text/html' }),
    '<html><script>at file://node_modules</script></html>',
  )
  canary.noteOutput(toLine({ msg: 'ALARM: the cancel of order aries.ACC-6413.ORDER-1 was never confirmed' }))
  canary.noteOutput(toLine({ err: { stack: 'Error: x\n    at run (file:///app/src/main.ts:1:1)' } }))
  canary.noteOutput('Blotter is ready\n  accounts  446a904b-9861-4adf-80fb-10a3dfa267c7\n')
  canary.expectSilent()
})

it('is carried by every service of a test, which cannot be closed without it', async () => {
  const harness = await startHarness()
  await harness.run('{ __typename }', {}, { authorization: 'nobody_knows_this' })
  harness.expectSilent()
  // Names of a document come back in errors, so that a caller's own secret is the easiest one to have told.
  await harness.run('{ nobody_knows_this }')
  await expect(harness.close()).rejects.toThrow('what was sent as authorization in an answer')
})
