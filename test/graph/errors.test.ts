// What a client is told when something goes wrong, and what only the log is told.

import { GraphQLError, locatedError } from 'graphql'
import { describe, expect, it } from 'vitest'
import { UpstreamError } from '../../src/upstream/errors.ts'
import type { UpstreamErrorKind, UpstreamFailure } from '../../src/upstream/errors.ts'
import { createInputError, toClientError } from '../../src/graph/errors.ts'

describe('an error of the broker', () => {
  const cases: [string, UpstreamErrorKind, UpstreamFailure, object][] = [
    ['not sent', 'not_sent', {}, { code: 'BROKER_UNAVAILABLE' }],
    ['failed', 'failed', { status: 503, retryAfterMs: 2_000 }, { code: 'BROKER_UNAVAILABLE', retryAfterMs: 2_000 }],
    ['throttled', 'throttled', { status: 429, retryAfterMs: 1_000 }, { code: 'RATE_LIMITED', retryAfterMs: 1_000 }],
    ['throttled without a time', 'throttled', { status: 429 }, { code: 'RATE_LIMITED' }],
    ['no answer in time', 'no_answer', { timedOut: true }, { code: 'BROKER_TIMEOUT' }],
    ['a cut answer', 'no_answer', { status: 200 }, { code: 'BROKER_BAD_RESPONSE' }],
    ['no answer', 'no_answer', {}, { code: 'BROKER_UNAVAILABLE' }],
    ['our credential refused', 'refused', { status: 401 }, { code: 'BROKER_UNAVAILABLE' }],
    ['our right refused', 'refused', { status: 403 }, { code: 'BROKER_UNAVAILABLE' }],
    ['an account unknown', 'refused', { status: 404, rejection: 'ACCOUNT_NOT_FOUND' }, { code: 'BAD_USER_INPUT' }],
    ['another refusal', 'refused', { status: 400 }, { code: 'BROKER_BAD_RESPONSE' }],
    ['unreadable', 'unreadable', { status: 200 }, { code: 'BROKER_BAD_RESPONSE' }],
  ]

  it.each(cases)('%s has its code, and nothing of what the broker sent', (_, kind, failure, extensions) => {
    const upstream = new UpstreamError(kind, 'HTTP detail', { reason: 'the words of the broker', ...failure })
    const { error, isBug } = toClientError(locatedError(upstream, undefined, ['a', 'order']))
    expect(isBug).toBe(false)
    expect(error.extensions).toEqual(extensions)
    expect(error.path).toEqual(['a', 'order'])
    expect(JSON.stringify(error)).not.toMatch(/words of the broker|HTTP detail/)
  })
})

describe('a bug', () => {
  it.each([
    new TypeError('secret detail'),
    new RangeError('secret detail'),
    'secret detail',
    null,
    undefined,
    { secret: 'detail' },
  ])('is masked for any thrown value (%o)', (thrown) => {
    const { error, isBug } = toClientError(
      thrown instanceof Error ? locatedError(thrown, undefined, ['order']) : thrown,
    )
    expect(isBug).toBe(true)
    expect(error.extensions).toEqual({ code: 'INTERNAL_SERVER_ERROR' })
    expect(JSON.stringify(error)).not.toContain('secret')
  })
})

describe('a mistake of the caller', () => {
  it('keeps its message and code', () => {
    const { error, isBug } = toClientError(locatedError(createInputError('first must be …'), undefined, ['orders']))
    expect(isBug).toBe(false)
    expect(error).toMatchObject({
      message: 'first must be …',
      path: ['orders'],
      extensions: { code: 'BAD_USER_INPUT' },
    })
  })

  it('is short, also if the message quotes a long input', () => {
    const { error } = toClientError(
      new GraphQLError(`Variable "$f" got ${'x'.repeat(90_000)}; Field "a" is not there.`),
    )
    expect(error.message).toMatch(/^Variable "\$f" got x+ … x+; Field "a" is not there\.$/)
    expect(error.message.length).toBeLessThan(700)
  })

  it('gets a code of ours where another library gave none or its own, and loses what that library added', () => {
    const thrown = new GraphQLError('POST body sent invalid JSON.', {
      extensions: { code: 'BAD_REQUEST', http: { status: 400 }, originalError: { message: 'at position 7' } },
    })
    expect(toClientError(thrown).error.extensions).toEqual({ code: 'BAD_USER_INPUT', http: { status: 400 } })
  })
})
