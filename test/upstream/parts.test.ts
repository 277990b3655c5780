// The parts of the calls to a broker, each alone: turns, the rate window, repeats and shared reads.

import { describe, expect, it } from 'vitest'
import { UpstreamError } from '../../src/upstream/errors.ts'
import { FairQueue } from '../../src/upstream/fairQueue.ts'
import type { Answer } from '../../src/upstream/http.ts'
import { RateWindow, windowMs } from '../../src/upstream/rateWindow.ts'
import { readTimes } from '../../src/upstream/readCall.ts'
import type { ReadCall } from '../../src/upstream/readCall.ts'
import { createTally } from '../../src/upstream/readScope.ts'
import { RetryPolicy } from '../../src/upstream/retry.ts'
import { SharedReads } from '../../src/upstream/sharedReads.ts'

describe('the fair queue', () => {
  it('gives callers turns, and each caller its oldest waiter first', () => {
    const queue = new FairQueue<{ caller: string; name: string }>()
    for (const name of ['a1', 'a2', 'a3', 'b1', 'c1', 'b2']) queue.add({ caller: name.charAt(0), name })
    expect(queue.countAhead('d')).toBe(3)
    expect(queue.countAhead('a')).toBe(6)
    const order: string[] = []
    for (let { first } = queue; first !== undefined; { first } = queue) {
      order.push(first.name)
      queue.remove(first)
      queue.passTurn(first.caller)
    }
    expect(order).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3'])
    expect(queue.length).toBe(0)
  })

  it('does not let a caller pass others by leaving and coming back', () => {
    const queue = new FairQueue<{ caller: string }>()
    const [early, late] = [{ caller: 'a' }, { caller: 'b' }]
    queue.add(early)
    queue.add(late)
    queue.remove(early)
    queue.add(early)
    expect(queue.first).toBe(late)
  })
})

describe('the rate window', () => {
  it('counts permits until a window after their calls were sent', () => {
    const window = new RateWindow()
    window.grant()
    window.grant()
    window.grant()
    window.giveBack()
    window.send(1_000)
    expect(window.count).toBe(2)
    window.forget(1_000 + windowMs - 1)
    expect(window.count).toBe(2)
    window.forget(1_000 + windowMs)
    expect(window.count).toBe(1)
  })

  it('says when the next permit is free, behind the calls ahead', () => {
    const window = new RateWindow()
    for (const at of [0, 100, 200]) {
      window.grant()
      window.send(at)
    }
    const findFree = (permits: number, ahead: number) =>
      window.findFree(permits, 300, 300, (n) => (n === 0 ? ahead : 0))
    expect(findFree(4, 0)).toBe(300)
    expect(findFree(3, 0)).toBe(windowMs)
    expect(findFree(3, 2)).toBe(200 + windowMs)
    expect(findFree(3, 3)).toBe(2 * windowMs)
  })

  it('forgets many calls, and keeps count of the others', () => {
    const window = new RateWindow()
    for (let at = 0; at < 10_000; at++) {
      window.grant()
      window.send(at)
      window.forget(at)
    }
    expect(window.count).toBe(windowMs)
    expect(window.findFree(windowMs, 9_999, 9_999, () => 0)).toBe(10_000)
  })
})

describe('the retry policy', () => {
  const backoffMs = { first: 100, longest: 1_000 }
  const noAnswer = new UpstreamError('no_answer', 'silence')

  it('waits longer with each repeat, at random, up to the longest wait', () => {
    const policy = new RetryPolicy(() => 0.5)
    expect([1, 2, 3, 10].map((repeat) => policy.toWait(noAnswer, backoffMs, repeat))).toEqual([50, 100, 200, 500])
  })

  it('waits at least as long as the broker asked for', () => {
    const policy = new RetryPolicy(() => 0)
    expect(policy.toWait(new UpstreamError('failed', '503', { retryAfterMs: 700 }), backoffMs, 1)).toBe(700)
    expect(policy.toWait({ status: 429, body: null, retryAfterMs: null }, backoffMs, 1)).toBe(1_000)
  })

  it.each([
    ['an answer', { status: 200, body: {}, retryAfterMs: null } satisfies Answer],
    ['a refusal', new UpstreamError('refused', 'no')],
    ['nonsense', new UpstreamError('unreadable', 'HTML')],
    ['a wait in our own queue', new UpstreamError('not_sent', 'late', { timedOut: true })],
  ])('does not repeat after %s', (_, outcome) => {
    expect(new RetryPolicy(() => 0).toWait(outcome, backoffMs, 1)).toBeNull()
  })

  it('repeats 3 reads and a tenth of the first attempts in 10 s', () => {
    let now = 0
    const policy = new RetryPolicy(
      () => 0,
      () => now,
    )
    for (let read = 0; read < 20; read++) policy.noteFirstAttempt()
    const count = (): number => Array.from({ length: 50 }, () => policy.tryRepeat()).filter(Boolean).length
    expect(count()).toBe(5)
    expect(count()).toBe(0)
    now = 11_000
    expect(count()).toBe(3)
  })
})

describe('shared reads', () => {
  const call: ReadCall = { path: '/orders/1', lane: 'read', times: readTimes.one, tags: ['1'] }
  const answer: Answer = { status: 200, body: {}, retryAfterMs: null }
  const scope = (caller: string | null = null) => ({
    signal: new AbortController().signal,
    deadline: Date.now() + 60_000,
    isForCancel: false,
    caller,
    tally: createTally(),
  })

  it('gives readers of the same thing one call, and later readers another', async () => {
    const reads = new SharedReads()
    const { promise, resolve } = Promise.withResolvers<Answer>()
    const read = reads.start(call, scope().deadline, scope(), () => promise)
    expect(reads.find({ ...call, query: {} }, 'read')).toBe(read)
    const waits = [1, 2].map(() => reads.wait(read, read.deadline, scope().signal))
    resolve(answer)
    expect(await Promise.all(waits)).toEqual([answer, answer])
    expect(reads.find(call, 'read')).toBeUndefined()
  })

  it('lets no lookup join a read that was sent, and no reader join after a write', () => {
    const reads = new SharedReads()
    const read = reads.start(call, scope().deadline, scope(), () => new Promise(() => {}))
    read.wasSent = true
    expect(reads.find(call, 'lookup')).toBeUndefined()
    expect(reads.find(call, 'read')).toBe(read)
    reads.detachTagged(['2'])
    expect(reads.find(call, 'read')).toBe(read)
    reads.detachTagged(['1'])
    expect(reads.find(call, 'read')).toBeUndefined()
  })

  it('ends the call when the last reader has left', async () => {
    const reads = new SharedReads()
    const read = reads.start(call, scope().deadline, scope(), () => new Promise(() => {}))
    const [first, second] = [new AbortController(), new AbortController()]
    const waits = [first, second].map(({ signal }) => reads.wait(read, read.deadline, signal).catch((reason) => reason))
    first.abort('first')
    expect(await waits[0]).toBe('first')
    expect(read.controller.signal.aborted).toBe(false)
    second.abort('second')
    expect(await waits[1]).toBe('second')
    expect(read.controller.signal.aborted).toBe(true)
  })

  it('waits in the turn of each caller that joins, once', () => {
    const reads = new SharedReads()
    const read = reads.start(call, scope().deadline, scope('a'), () => new Promise(() => {}))
    const asked: (string | null)[] = []
    read.askAs = (caller) => void asked.push(caller)
    for (const caller of ['a', 'b', 'b', null]) reads.join(read, caller)
    expect(asked).toEqual(['b', null])
  })
})
