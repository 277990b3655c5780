// Observes what a broker can be relied on for: places a few small orders that cannot trade, reads, repeats and cancels them. One
// call at a time, because several capabilities are about the order of calls. All orders that were placed are canceled in the end.

import { randomBytes, randomUUID } from 'node:crypto'
import { brokerCapabilities } from '../brokers/broker.ts'
import { UpstreamError } from '../upstream/errors.ts'
import { createTally } from '../upstream/readScope.ts'
import type { Broker, BrokerCapability, PlaceAnswer, Scan, ScanQuery } from '../brokers/broker.ts'
import type { ReadScope } from '../upstream/readScope.ts'
import type { Clock } from '../domain/clock.ts'
import { isDecimal } from '../domain/decimal.ts'
import { compareInstants } from '../domain/instant.ts'
import type { NewOrder, Order } from '../domain/order.ts'
import { compareClientOrderIds } from '../trading/placement/clientOrderId.ts'
import { fitsTerms } from '../trading/placement/terms.ts'
import { findProblems } from '../trading/validate.ts'

export interface CertifyOptions {
  /** As it is: without anything before it that remembers orders. */
  broker: Broker
  accountId: string
  symbol: string
  /** Far below the market: all orders are buys, and none may trade. */
  limitPrice: string
  clock: Clock
  /** Told of each step before it is taken. */
  onStep: (text: string) => void
  /** Ends the probes early. The orders that were placed are canceled anyway. */
  signal: AbortSignal
}

/** The result of the probes. */
export interface Certificate {
  /** Each capability once; empty when the probes broke off. */
  findings: readonly Finding[]
  /** Why the probes broke off, as a sentence; null when they came to their end. */
  trouble: string | null
  /** Orders that were left at the broker, or may have been, as sentences. */
  leftovers: readonly string[]
}

interface Finding extends Verdict {
  capability: BrokerCapability
}

interface Verdict {
  holds: boolean
  /** The observation, in words. */
  seen: string
}

interface Sent {
  request: NewOrder
  orderId: string
}

/** How many orders are placed, and how many more are tried that a broker may turn into orders too. */
export const probeOrders = { placed: 3, tried: 3 } as const

// More than a second, so that a broker whose times are whole seconds tells the orders apart.
const apartMs = 1_100
// Wait after repeated requests, in ms, until their orders should show.
const settleMs = 5_000
const pollMs = 1_000
// For what takes its time to show, or to come true.
const waitMs = 30_000
// Of one call, and of all calls of one search.
const callMs = 15_000
const triesMax = 5
const cancelsMax = 3

/** The probes broke off for a reason that the message tells whole. */
class ProbeError extends Error {
  override readonly name = 'ProbeError'
}

const neverAborted = new AbortController().signal

/**
 * Tries `broker` with a few orders of one share and cancels them. Never throws. Takes some 10 s, and longer where the
 * broker is slow or its rate is small. Nothing else should use its credential meanwhile.
 */
export async function certify(options: CertifyOptions): Promise<Certificate> {
  return await createCertification(options).run()
}

function createCertification(options: CertifyOptions) {
  return new Certification(options)
}

class Certification {
  readonly #broker
  readonly #accountId
  readonly #symbol
  readonly #limitPrice
  readonly #clock
  readonly #onStep
  readonly #signal
  readonly #series = `certify-${randomBytes(6).toString('hex')}`
  readonly #since
  readonly #ourList
  readonly #wholeList
  // The ids in the list before. Nothing is placed before they are known.
  #before: ReadonlySet<string> = new Set()
  readonly #keysSent = new Set<string>()
  // Our orders, as they were seen last; null where an answer did not show the order.
  readonly #ours = new Map<string, Order | null>()
  // Client order ids of what was sent, and not answered in a way that tells what became of it.
  readonly #lost = new Set<string>()
  // Orders that came meanwhile, are like ours and do not say whose they are.
  readonly #suspects = new Set<string>()
  // How often reads right after a write showed it.
  readonly #looks = { shown: 0, missed: [] as string[] }

  constructor(options: CertifyOptions) {
    const { broker, accountId, symbol, limitPrice, clock, onStep, signal } = options
    this.#broker = broker
    this.#accountId = accountId
    this.#symbol = symbol
    this.#limitPrice = limitPrice
    this.#clock = clock
    this.#onStep = onStep
    this.#signal = signal
    this.#since = new Date(this.#clock.now() - 300_000).toISOString()
    this.#ourList = { symbol: this.#symbol, side: 'BUY' as const }
    this.#wholeList = { symbol: null, side: null }
  }

  async run(): Promise<Certificate> {
    let findings: readonly Finding[] = []
    let trouble: string | null = null
    try {
      findings = await this.#probe()
    } catch (error) {
      trouble = toSentence(error)
    }
    return { findings, trouble, leftovers: await this.#cleanUp() }
  }

  // ---- the probes -----------------------------------------------------------------------------------------------------
  async #probe(): Promise<Finding[]> {
    this.#refuseBadRequest()
    this.#onStep(`Reading the ${this.#symbol} buys of account ${this.#accountId}.`)
    const start = await this.#readList(this.#ourList)
    if (!start.isComplete) {
      throw new ProbeError(
        `The list of the account's ${this.#symbol} buys could not be read to its end, so our orders could not be separated from ` +
          'others. Try another --symbol, or an account with fewer orders.',
      )
    }
    this.#before = new Set(start.orders.map(({ id }) => id))

    const key = randomUUID()
    const first = await this.#placeAndLook('1', key)
    await this.#pause(apartMs)
    const second = await this.#placeAndLook('2', randomUUID())
    await this.#pause(apartMs)
    const third = await this.#placeAndLook('3', randomUUID())
    const mine = [first, second, third]

    this.#goOn()
    this.#onStep(
      'Placing again: the first order under its Idempotency-Key, another one under it, the second under a new one.',
    )
    const other = this.#toRequest('other')
    const sameAnswer = await this.#send(first.request, key)
    const otherAnswer = await this.#send(other, key)
    const twinAnswer = await this.#send(second.request, randomUUID())

    this.#onStep('Waiting for what the broker makes of that, and reading all of it.')
    const { rows, whole } = await this.#settle(mine)
    const singles: (Order | null)[] = []
    for (const { orderId } of mine) singles.push(await this.#readOne(orderId))
    const strangers = await this.#findStrangers(rows)
    // The order of an answer that could not be read would be among those.
    this.#lost.clear()
    const findExtra = (...requests: NewOrder[]): string[] => {
      const named = strangers.filter((order) =>
        requests.some(({ clientOrderId }) => clientOrderId === order.clientOrderId),
      )
      return [...named.map(({ id }) => id), ...this.#suspects]
    }
    const resting = {
      clientIdEcho: judgeEcho(mine, rows, singles),
      clientIdUnique: judgeTwin(second.orderId, twinAnswer, findExtra(second.request)),
      idempotencyKey: judgeKey(first.orderId, sameAnswer, otherAnswer, findExtra(first.request, other)),
      listNewestFirst: judgeOrder(mine, [rows, whole]),
    }
    const cancelAsync = await this.#cancelAndLook()
    const cancelIdempotent = await this.#cancelAgain(first.orderId)
    const verdicts: Record<BrokerCapability, Verdict> = {
      ...resting,
      cancelAsync,
      cancelIdempotent,
      readYourWrites: judgeLooks(this.#looks),
      lookupByClientId: toNo('not tried: no call is documented that finds an order by its client order id'),
      stream: toNo('not tried: nothing here makes use of it yet'),
    }
    return brokerCapabilities.map((capability) => ({ capability, ...verdicts[capability] }))
  }

  #refuseBadRequest(): void {
    const problems = isDecimal(this.#limitPrice)
      ? findProblems(this.#toRequest('1')).map(({ message }) => message)
      : ['--limit-price has to be a decimal number, such as 1.00.']
    if (problems.length > 0) throw new ProbeError(`Such an order cannot be placed: ${problems.join(' ')}`)
  }

  async #placeAndLook(name: string, idempotencyKey: string): Promise<Sent> {
    this.#goOn()
    this.#onStep(`Placing order ${name} of ${probeOrders.placed}, and reading it at once.`)
    const request = this.#toRequest(name)
    const answer = await this.#send(request, idempotencyKey)
    if (answer instanceof UpstreamError) throw answer
    const { orderId } = answer
    this.#look((await this.#readOne(orderId)) !== null, `order ${name} was placed and not found by its id`)
    const row = (await this.#readList(this.#ourList)).orders.find(({ id }) => id === orderId)
    this.#look(row !== undefined, `order ${name} was placed and not in the list`)
    return { request, orderId }
  }

  /** The rows of our list and of the account's, once the former shows all of ours, or when it should have. */
  async #settle(mine: readonly Sent[]): Promise<{ rows: Order[]; whole: Order[] }> {
    const until = this.#clock.monotonic() + waitMs
    for (let ms = settleMs; ; ms = pollMs) {
      await this.#pause(ms)
      const { orders: rows } = await this.#readList(this.#ourList)
      if (this.#clock.monotonic() >= until || mine.every(({ orderId }) => rows.some(({ id }) => id === orderId))) {
        return { rows, whole: (await this.#readList(this.#wholeList)).orders }
      }
    }
  }

  async #cancelAndLook(): Promise<Verdict> {
    let told = 0
    let open = 0
    for (const id of this.#ours.keys()) {
      this.#goOn()
      this.#onStep(`Canceling order ${id}, and reading it at once.`)
      const answer = await this.#cancel(await this.#toKnown(id))
      const isStillOpen = answer !== null && answer.state !== 'CLOSED'
      if (answer !== null) told++
      if (isStillOpen) open++
      // The cancel may come later, so the order may still be open.
      const isFitting = (order: Order | null): boolean =>
        order !== null && (isStillOpen || order.state === 'CLOSED' || order.status === 'PENDING_CANCEL')
      const single = await this.#readOne(id)
      this.#look(isFitting(single), `order ${id} was canceled, and ${single?.status ?? 'missing'} by its id`)
      const row = (await this.#readList(this.#ourList)).orders.find((listed) => listed.id === id) ?? null
      this.#look(isFitting(row), `order ${id} was canceled, and ${row?.status ?? 'missing'} in the list`)
    }
    this.#onStep('Waiting until all of them are canceled.')
    const until = this.#clock.monotonic() + waitMs
    for (const id of this.#ours.keys()) {
      while ((await this.#refresh(id))?.state !== 'CLOSED') {
        if (this.#clock.monotonic() >= until) throw new ProbeError(`Order ${id} was canceled, and is still open.`)
        await this.#pause(pollMs)
      }
    }
    if (told === 0) return toNo('no answer to a cancel showed the order')
    return { holds: open > 0, seen: `${open} of ${told} answers to cancels showed the order still open` }
  }

  async #cancelAgain(id: string): Promise<Verdict> {
    this.#onStep(`Canceling order ${id} once more.`)
    try {
      const answer = await this.#cancel(await this.#toKnown(id))
      const after = await this.#refresh(id)
      if (after?.state !== 'CLOSED') return toNo(`after a second cancel the order was ${after?.status ?? 'missing'}`)
      if (answer === null) return toYes('a second cancel was answered without an error, and without the order')
      const seen = `a second cancel was answered with the order, ${answer.status}`
      return { holds: answer.state === 'CLOSED', seen }
    } catch (error) {
      if (!(error instanceof UpstreamError) || error.kind !== 'refused') throw error
      return toNo(`a second cancel was refused with ${toWords(error)}`)
    }
  }

  #look(isShown: boolean, missed: string): void {
    if (isShown) this.#looks.shown++
    else this.#looks.missed.push(missed)
  }

  async #pause(ms: number): Promise<void> {
    await this.#clock.sleep(ms, this.#signal)
    this.#goOn()
  }

  #goOn(): void {
    if (this.#signal.aborted) throw new ProbeError('The probes were interrupted.')
  }

  // ---- calls to the broker --------------------------------------------------------------------------------------------
  #toRequest(name: string): NewOrder {
    return {
      accountId: this.#accountId,
      clientOrderId: `${this.#series}-${name}`,
      ...this.#ourList,
      type: 'LIMIT',
      // If it cannot be canceled, it ends with the day.
      timeInForce: 'DAY',
      quantity: '1',
      notional: null,
      limitPrice: this.#limitPrice,
      stopPrice: null,
      trailPercent: null,
      trailPrice: null,
      extendedHours: null,
      commission: null,
      commissionType: null,
    }
  }

  /** Sends `request`. Returns the broker's answer, also a refusal or an unreadable one. Throws without an answer. */
  async #send(request: NewOrder, idempotencyKey: string): Promise<PlaceAnswer | UpstreamError> {
    const { clientOrderId } = request
    this.#keysSent.add(clientOrderId)
    this.#lost.add(clientOrderId)
    const beforeSend = (): Promise<void> => Promise.resolve()
    try {
      const answer = await this.#patiently(() =>
        this.#broker.place(request, { idempotencyKey, sendBy: this.#clock.now() + callMs, beforeSend }),
      )
      this.#lost.delete(clientOrderId)
      if (this.#before.has(answer.orderId)) {
        throw new ProbeError(`The broker answered a placement with order ${answer.orderId}, which was there before.`)
      }
      this.#ours.set(answer.orderId, answer.order ?? this.#ours.get(answer.orderId) ?? null)
      if (answer.status === 'REJECTED') {
        throw new ProbeError(`The broker rejected an order: ${answer.rejection?.reason ?? 'it gave no reason'}.`)
      }
      return answer
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error
      // 409: there is one already, and what there is of ours is known.
      if (error.effect === 'none' || error.status === 409) this.#lost.delete(clientOrderId)
      if (error.kind === 'refused' || error.kind === 'unreadable') return error
      throw error
    }
  }

  async #cancel(order: Order): Promise<Order | null> {
    return await this.#patiently(() => this.#broker.cancel(order, this.#clock.now() + callMs))
  }

  /** The rows in the order of the list. */
  async #readList(list: Pick<ScanQuery, 'symbol' | 'side'>, isForCancel = false): Promise<Scan> {
    // As before a send: of a small rate, the share of lookups would not show what is there right after a write.
    const query = { accountId: this.#accountId, ...list, since: this.#since, purpose: 'snapshot' as const }
    return await this.#patiently(() => this.#broker.scan(query, this.#toScope(isForCancel)))
  }

  /** Reads one order by its id. Returns null if the broker has no such order. */
  async #readOne(id: string, isForCancel = false): Promise<Order | null> {
    const key = { broker: this.#broker.id, id, accountId: this.#accountId, mustBeWhole: true }
    return await this.#patiently(async () => {
      const [answer = null] = await this.#broker.orders([key], this.#toScope(isForCancel))
      if (answer instanceof UpstreamError) throw answer
      return answer
    })
  }

  // Our own signal ends no call: what is under way is soon over.
  #toScope(isForCancel: boolean): ReadScope {
    return {
      signal: neverAborted,
      deadline: this.#clock.now() + callMs,
      isForCancel,
      caller: null,
      tally: createTally(),
    }
  }

  // A small rate leaves little, and another program may be using it.
  async #patiently<T>(work: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await work()
      } catch (error) {
        const isLater = error instanceof UpstreamError && error.kind === 'throttled' && error.effect === 'none'
        if (!isLater || tries === triesMax) throw error
        await this.#clock.sleep(error.retryAfterMs ?? pollMs)
      }
    }
  }

  // ---- which orders are ours ------------------------------------------------------------------------------------------

  /** Those of `rows` that are ours though no answer named them. */
  async #findStrangers(rows: readonly Order[], isForCancel = false): Promise<Order[]> {
    const strangers: Order[] = []
    for (const row of rows.filter(({ id }) => !this.#before.has(id) && !this.#ours.has(id))) {
      const isAlike = fitsTerms(this.#toRequest('1'), row)
      const isTold = typeof row.clientOrderId === 'string'
      // A single read may tell whose it is where the list does not.
      const order = isTold || !isAlike ? row : ((await this.#readOne(row.id, isForCancel)) ?? row)
      if (typeof order.clientOrderId !== 'string') {
        if (isAlike) this.#suspects.add(order.id)
        continue
      }
      const key = this.#findKey(order.clientOrderId)
      if (key === null) continue
      this.#ours.set(order.id, order)
      this.#lost.delete(key)
      strangers.push(order)
    }
    return strangers
  }

  /** Returns the sent client order id that `theirs` is, unchanged or as the broker changed it; null if none matches. */
  #findKey(theirs: string): string | null {
    const isChanged = (key: string): boolean => compareClientOrderIds(key, theirs) === 'changed'
    return this.#keysSent.has(theirs) ? theirs : ([...this.#keysSent].find(isChanged) ?? null)
  }

  /** The order as it was seen last, or as soon as it can be read. */
  async #toKnown(id: string): Promise<Order> {
    const until = this.#clock.monotonic() + waitMs
    for (;;) {
      const order = this.#ours.get(id) ?? (await this.#refresh(id))
      if (order !== null) return order
      if (this.#clock.monotonic() >= until) throw new ProbeError(`Order ${id} was placed, and cannot be read.`)
      await this.#pause(pollMs)
    }
  }

  async #refresh(id: string, isForCancel = false): Promise<Order | null> {
    const order = await this.#readOne(id, isForCancel)
    if (order !== null) this.#ours.set(id, order)
    return order
  }

  // ---- leaving nothing behind -----------------------------------------------------------------------------------------

  /** Cancels our open orders, and returns those that remain. Never throws, and ignores the signal to end. */
  async #cleanUp(): Promise<string[]> {
    if (this.#keysSent.size === 0) return []
    const unread = await this.#findLost()
    const open: string[] = []
    for (const [id, order] of this.#ours) {
      const why = order?.state === 'CLOSED' ? null : await this.#end(id)
      if (why !== null) open.push(`Order ${id} may still be open: ${why} Cancel it by hand.`)
    }
    const traded = [...this.#ours].flatMap(([id, order]) => {
      const filled = order?.filledQuantity
      const hasTraded = order?.status === 'FILLED' || (typeof filled === 'string' && /[1-9]/.test(filled))
      return hasTraded ? [`Order ${id} has bought ${this.#symbol}: take a lower --limit-price.`] : []
    })
    const like = [...this.#suspects].map((id) => `Order ${id} is like ours and does not say whose it is: look at it.`)
    const missing = [...this.#lost].map(
      (key) => `A placement was not answered, and no order of it was found: look for the client order id ${key}.`,
    )
    return [...open, ...traded, ...like, ...missing, ...(unread === null ? [] : [unread])]
  }

  /** Looks for orders that no answer named; null once it has looked, else why it could not. */
  async #findLost(): Promise<string | null> {
    const until = this.#clock.monotonic() + waitMs
    for (;;) {
      let failure: string | null = null
      try {
        await this.#findStrangers((await this.#readList(this.#ourList, true)).orders, true)
      } catch (error) {
        failure = `The list cannot be read, so there may be more orders of ours. ${toSentence(error)}`
      }
      const isKnown = failure === null && (this.#lost.size === 0 || this.#suspects.size > 0)
      if (isKnown || this.#clock.monotonic() >= until) return failure
      await this.#clock.sleep(pollMs)
    }
  }

  /** Null once the broker says that the order is over, else why it may not be. */
  async #end(id: string): Promise<string | null> {
    this.#onStep(`Canceling order ${id}.`)
    const until = this.#clock.monotonic() + waitMs
    let why = 'the broker goes on showing it.'
    for (let cancels = 1; ; cancels++) {
      try {
        const order = this.#ours.get(id) ?? (await this.#refresh(id, true))
        if (order !== null && cancels <= cancelsMax) await this.#cancel(order)
      } catch (error) {
        // It may have been canceled before, and refuse this one; what is read next decides.
        why = toSentence(error)
      }
      try {
        if ((await this.#refresh(id, true))?.state === 'CLOSED') return null
      } catch (error) {
        why = toSentence(error)
      }
      if (this.#clock.monotonic() >= until) return why
      await this.#clock.sleep(pollMs)
    }
  }
}

// ---- verdicts ---------------------------------------------------------------------------------------------------------

function toYes(seen: string): Verdict {
  return { holds: true, seen }
}

function toNo(seen: string): Verdict {
  return { holds: false, seen }
}

function judgeEcho(mine: readonly Sent[], rows: readonly Order[], singles: readonly (Order | null)[]): Verdict {
  const count = (orders: readonly (Order | null)[]): number =>
    mine.filter(({ request, orderId }) =>
      orders.some((order) => order?.id === orderId && order.clientOrderId === request.clientOrderId),
    ).length
  const [listed, read] = [count(rows), count(singles)]
  return {
    holds: listed === mine.length && read === mine.length,
    seen:
      `${listed} of ${mine.length} rows of the list and ${read} of ${mine.length} single reads carried it unchanged` +
      describeChange(mine, [...rows, ...singles]),
  }
}

/** Describes how the broker changed a client order id; empty if it changed none. */
function describeChange(mine: readonly Sent[], orders: readonly (Order | null)[]): string {
  for (const { request, orderId } of mine) {
    const shown = orders.find(
      (order) => order?.id === orderId && typeof order.clientOrderId === 'string',
    )?.clientOrderId
    if (typeof shown !== 'string' || shown === request.clientOrderId) continue
    return `; the broker changes it: ${JSON.stringify(request.clientOrderId)} came back as ${JSON.stringify(shown)}`
  }
  return ''
}

/** `extra`: orders that came of it, or may have, and that no answer named. */
function judgeKey(
  first: string,
  same: PlaceAnswer | UpstreamError,
  other: PlaceAnswer | UpstreamError,
  extra: readonly string[],
): Verdict {
  if (same instanceof UpstreamError) return toNo(`the same order again was answered with ${toWords(same)}`)
  if (same.orderId !== first) return toNo(`the same order again became a second one, ${same.orderId}`)
  if (!(other instanceof UpstreamError) && other.orderId !== first) {
    return toNo(`another order under the same key became one too, ${other.orderId}`)
  }
  if (extra.length > 0) return toNo(`the list showed a further order, ${extra.join(', ')}`)
  const words = other instanceof UpstreamError ? toWords(other) : 'the first one'
  return toYes(`the same order again was answered with the first one, another order with ${words}`)
}

function judgeTwin(second: string, twin: PlaceAnswer | UpstreamError, extra: readonly string[]): Verdict {
  if (!(twin instanceof UpstreamError)) {
    return toNo(twin.orderId === second ? 'answered with the first order' : `it became a second order, ${twin.orderId}`)
  }
  if (twin.kind !== 'refused' || twin.status !== 409) return toNo(`answered with ${toWords(twin)}, which is no 409`)
  if (extra.length > 0) return toNo(`refused with ${toWords(twin)}, but the list showed ${extra.join(', ')}`)
  return toYes(`a second order under it was refused with ${toWords(twin)}`)
}

/** `mine`: as they were placed, the first one first. */
function judgeOrder(mine: readonly Sent[], lists: readonly (readonly Order[])[]): Verdict {
  const ids = mine.map(({ orderId }) => orderId)
  for (const list of lists) {
    const listed = list.filter(({ id }) => ids.includes(id))
    if (listed.length < ids.length) return toNo('not all of our orders were in the list')
    if (listed.some(({ id }, index) => id !== ids.at(-1 - index))) return toNo('our orders were not newest first')
    const times = list.map(({ submittedAt }) => (typeof submittedAt === 'string' ? submittedAt : null))
    if (times.includes(null)) return toNo('not all rows say when they were submitted')
    if (new Set(listed.map(({ submittedAt }) => submittedAt)).size < ids.length) {
      return toNo(`orders that were placed ${apartMs} ms apart have the same time`)
    }
    if (times.some((time, index) => isNewer(time, times[index - 1]))) return toNo('not all rows were newest first')
  }
  const [, whole = []] = lists
  return toYes(`${whole.length} rows were newest first, ours among them`)
}

function isNewer(time: string | null, than: string | null | undefined): boolean {
  return typeof time === 'string' && typeof than === 'string' && compareInstants(time, than) > 0
}

function judgeLooks({ shown, missed }: { shown: number; missed: readonly string[] }): Verdict {
  const total = shown + missed.length
  if (missed[0] === undefined) return toYes(`${total} of ${total} reads right after a write showed it`)
  return toNo(`${missed.length} of ${total} reads right after a write did not show it: ${missed[0]}`)
}

function toWords({ message, reason }: UpstreamError): string {
  return reason ? `${message} (${reason})` : message
}

function toSentence(error: unknown): string {
  if (error instanceof ProbeError) return error.message
  if (error instanceof UpstreamError) return `A call to the broker failed: ${toWords(error)}.`
  return `A bug of ours: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
}
