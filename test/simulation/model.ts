// A broker as a model: orders that exist or do not, and a network in front of them that loses, delays and garbles.
// It knows the truth, and shows no more of it than its traits allow.

import { UpstreamError } from '../../src/upstream/errors.ts'
import type { Broker, BrokerCapabilities, PlaceAnswer, Scan } from '../../src/brokers/broker.ts'
import type { ReadScope } from '../../src/upstream/readScope.ts'
import { dialects } from '../../src/brokers/bluum/dialects.ts'
import { compareDecimals } from '../../src/domain/decimal.ts'
import { stateOf } from '../../src/domain/order.ts'
import type { NewOrder, Order, OrderStatus } from '../../src/domain/order.ts'
import type { Process, World } from './world.ts'

// ---- what it is like --------------------------------------------------------------------------------------------

/** What can become of a POST, `…Before` and `…After` its commit. */
export const placeFates = [
  'fine',
  'slow',
  'bodyless',
  'rejected',
  'queueFull',
  'notSent',
  'lost',
  'hangBefore',
  'hangAfter',
  'answerLost',
  'late',
  'failedBefore',
  'failedAfter',
  'throttled',
  'refused',
  'unauthorized',
  'tooLarge',
  'conflictBefore',
  'conflictAfter',
  'unreadable',
] as const
type PlaceFate = (typeof placeFates)[number]

/** What can become of a read. `partial` is for lists, `missing` for single reads. */
export const readFates = [
  'fine',
  'slow',
  'partial',
  'missing',
  'throttled',
  'unauthorized',
  'failed',
  'hang',
  'notSent',
] as const
type ReadFate = (typeof readFates)[number]

export const cancelFates = [
  'fine',
  'bodyless',
  'pending',
  'pendingBodyless',
  'fillsFirst',
  'notSent',
  'lost',
  'hangBefore',
  'answerLost',
  'failedBefore',
  'failedAfter',
  'throttled',
  'refused',
  'conflict',
] as const
type CancelFate = (typeof cancelFates)[number]

/** What the broker makes of client order ids, and of terms. `unrelated` is an id of its own. */
export const idChanges = ['kept', 'prefixed', 'cut', 'upperCase', 'noDashes', 'empty', 'unrelated'] as const
export const termChanges = ['kept', 'quantity', 'type', 'symbol'] as const

export interface Changes {
  ids: (typeof idChanges)[number]
  terms: (typeof termChanges)[number]
}

export interface Traits {
  changes: Changes
  /** Where the client order id is shown: in lists, in some rows of them, only by single reads, or nowhere. */
  ids: 'list' | 'mixed' | 'single' | 'none'
  /** Whether the service is told that lists show it. */
  isCertified: boolean
  settleMs: number
  /** How late an order may be taken in after its POST has ended, and how long lists may lack it: shares of settleMs. */
  lateShare: number
  lagShare: number
  /** How old a single read may be, in ms. */
  staleMs: number
  latencyMs: number
  place: Record<PlaceFate, number>
  read: Record<ReadFate, number>
  cancel: Record<CancelFate, number>
  fillShare: number
  lateFillShare: number
  /** Whether a filtered list may lack what it should show. */
  breaksFilters: boolean
  /** Lies that no broker may tell, to see whether anybody notices. */
  lie: 'none' | 'proof' | 'canceled'
}

// ---- the truth ----------------------------------------------------------------------------------------------------

interface Version {
  at: number
  status: OrderStatus
  filled: number
}

export interface ModelOrder {
  id: string
  accountId: string
  clientOrderId: string | null
  request: NewOrder
  /** The POST that it came by; null where another channel placed it. */
  post: Post | null
  committedAt: number
  /** From then on lists show it. */
  visibleAt: number
  hidesIdInLists: boolean
  versions: [Version, ...Version[]]
}

/** A placement that left the service. */
export interface Post {
  request: NewOrder
  idempotencyKey: string
  sendBy: number
  sentAt: number
  /** When its connection ended, whoever ended it. */
  endedAt: number | null
  /** Whether the process lived to hear the proof that it was not processed. */
  isProven: boolean
  order: ModelOrder | null
}

interface CancelPost {
  orderId: string
  sentAt: number
  /** Whether the broker said that it had not looked at it. */
  isProven: boolean
}

export interface ExchangeHooks {
  onPost: (post: Post) => void
  onCommit: (order: ModelOrder, post: Post) => void
  count: (what: string) => void
}

export interface Exchange {
  readonly orders: ModelOrder[]
  readonly posts: Post[]
  readonly cancelPosts: CancelPost[]
  /** For the summary. */
  count: ExchangeHooks['count']
  find(id: string): ModelOrder | undefined
  receive(post: Post, fate: { commitsAfterMs: number | null; lateMs: number | null; status: OrderStatus }): void
  end(post: Post): void
  /** An order that another channel places now. */
  insertForeign(request: NewOrder, clientOrderId: string | null): void
  /** Cancels it if it is open. */
  cancel(order: ModelOrder): void
  fill(order: ModelOrder, share: number): void
}

/** The newest version of `order` at `at`. */
function versionAt(order: ModelOrder, at: number): Version {
  return order.versions.findLast((version) => version.at <= at) ?? order.versions[0]
}

export function isOpen(order: ModelOrder): boolean {
  return stateOf(order.versions.at(-1)?.status ?? 'UNKNOWN') !== 'CLOSED'
}

// An order shows at the latest so long, as a share of settleMs, after its POST has ended.
const shownByShare = 0.9

export function createExchange(world: World, traits: Traits, hooks: ExchangeHooks): Exchange {
  const { random } = world
  const orders: ModelOrder[] = []
  const byId = new Map<string, ModelOrder>()
  const posts: Post[] = []
  const cancelPosts: CancelPost[] = []
  // What is yet to be taken in: when, if its connection lasts, and how long after its end, if that is set.
  const awaited = new Map<Post, { at: number; lateMs: number | null; status: OrderStatus; takeBack: () => void }>()

  function add(request: NewOrder, post: Post | null, status: OrderStatus, clientOrderId: string | null): ModelOrder {
    const committedAt = world.now()
    const lagMs = traits.lagShare * traits.settleMs * random.next()
    const endedAt = post?.endedAt ?? committedAt
    const latest = Math.max(committedAt, endedAt + shownByShare * traits.settleMs)
    const order: ModelOrder = {
      id: `ord_${orders.length + 1}`,
      accountId: request.accountId,
      clientOrderId,
      request,
      post,
      committedAt,
      visibleAt: Math.min(committedAt + lagMs, latest),
      hidesIdInLists: traits.ids === 'mixed' ? random.chance(0.5) : traits.ids !== 'list',
      versions: [{ at: committedAt, status, filled: 0 }],
    }
    orders.push(order)
    byId.set(order.id, order)
    const shown = (order.visibleAt / 1_000).toFixed(3)
    world.note(`broker TAKES IN ${order.id} ${clientOrderId ?? '(no key)'} ${status}, in lists from ${shown}`)
    if (status !== 'REJECTED') scheduleFills(order)
    return order
  }

  function scheduleFills(order: ModelOrder): void {
    if (!random.chance(traits.fillShare)) return
    const firstMs = random.between(0, 60_000)
    world.schedule(world.now() + firstMs, () => fill(order, random.chance(0.5) ? 1 : 0.4))
    if (random.chance(0.5)) world.schedule(world.now() + firstMs + random.between(0, 60_000), () => fill(order, 1))
  }

  function change(order: ModelOrder, status: OrderStatus, filled: number): void {
    order.versions.push({ at: world.now(), status, filled })
    world.note(`broker ${order.id} is ${status} ${filled}`)
  }

  function fill(order: ModelOrder, share: number): void {
    const { filled, status } = versionAt(order, world.now())
    if (!isOpen(order) || share <= filled) return
    change(order, share === 1 ? 'FILLED' : status === 'PENDING_CANCEL' ? status : 'PARTIALLY_FILLED', share)
  }

  function cancel(order: ModelOrder): void {
    if (!isOpen(order)) return
    const { filled } = versionAt(order, world.now())
    change(order, 'CANCELED', filled)
    if (!random.chance(traits.lateFillShare)) return
    // A fill that was on its way when it was canceled.
    world.schedule(world.now() + random.between(100, 20_000), () => {
      change(order, 'CANCELED', filled + (1 - filled) / 2)
    })
  }

  function commit(post: Post, status: OrderStatus): void {
    awaited.delete(post)
    post.order = add(post.request, post, status, post.request.clientOrderId)
    hooks.onCommit(post.order, post)
  }

  return {
    orders,
    posts,
    cancelPosts,
    count: hooks.count,
    find: (id) => byId.get(id),

    receive(post, { commitsAfterMs, lateMs, status }) {
      posts.push(post)
      hooks.onPost(post)
      if (commitsAfterMs === 0) return commit(post, status)
      if (commitsAfterMs === null && lateMs === null) return
      const at = commitsAfterMs === null ? Infinity : world.now() + commitsAfterMs
      const takeBack = at === Infinity ? () => {} : world.schedule(at, () => commit(post, status))
      awaited.set(post, { at, lateMs, status, takeBack })
    },

    end(post) {
      if (post.endedAt !== null) return
      post.endedAt = world.now()
      const waiting = awaited.get(post)
      if (!waiting) return
      waiting.takeBack()
      // Whoever ended it, the broker is no later than it ever is.
      const lateMs = waiting.lateMs ?? Math.min(waiting.at - world.now(), traits.lateShare * traits.settleMs)
      waiting.takeBack = world.schedule(world.now() + lateMs, () => commit(post, waiting.status))
    },

    insertForeign(request, clientOrderId) {
      add(request, null, 'ACCEPTED', clientOrderId)
    },

    cancel,
    fill,
  }
}

// ---- what it shows --------------------------------------------------------------------------------------------------

const none: BrokerCapabilities = {
  clientIdEcho: false,
  clientIdUnique: false,
  idempotencyKey: false,
  lookupByClientId: false,
  listNewestFirst: false,
  readYourWrites: false,
  cancelIdempotent: false,
  cancelAsync: false,
  stream: false,
}

/** The broker as one process reaches it; `isCalm`: from then on nothing goes wrong. */
export function createModelBroker(
  world: World,
  {
    exchange,
    traits,
    process,
    isCalm,
  }: { exchange: Exchange; traits: Traits; process: Process; isCalm: () => boolean },
): Broker {
  const { random } = world
  const { clock } = process

  /** Waits as long as a call takes; throws when its caller has gone, or when its time is over. */
  async function travel(ms: number, gate: string, until: number, signal?: AbortSignal): Promise<void> {
    const left = until - world.now()
    await process.wait(Math.min(ms, left), gate, signal)
    signal?.throwIfAborted()
    if (ms >= left) throw new UpstreamError('no_answer', 'the time for the call is over', { timedOut: true })
  }

  function latency(): number {
    return traits.latencyMs === 0 ? 0 : random.between(1, traits.latencyMs)
  }

  function drawRead(): ReadFate {
    return isCalm() ? 'fine' : random.draw(traits.read)
  }

  /** The way to the broker, and whatever goes wrong on it; returns the fate where it may still matter. */
  async function reach(name: string, scope: ReadScope): Promise<{ fate: ReadFate; until: number }> {
    scope.signal.throwIfAborted()
    await process.pass(name)
    const until = world.now() + Math.max(0, scope.deadline - clock.now())
    const fate = drawRead()
    if (fate !== 'fine') world.note(`${process.name} ${name} ${fate}`)
    exchange.count(`read fate: ${fate}`)
    scope.tally.calls++
    await travel(fate === 'slow' ? random.between(500, 12_000) : latency(), `${name} there`, until, scope.signal)
    if (fate === 'hang') await travel(60_000, `${name} hung`, until, scope.signal)
    if (fate === 'throttled') throw new UpstreamError('throttled', 'too many', { status: 429, retryAfterMs: 1_000 })
    if (fate === 'unauthorized') throw new UpstreamError('refused', 'who are you', { status: 401 })
    if (fate === 'failed') throw new UpstreamError('failed', 'broken', { status: 502 })
    if (fate === 'notSent') throw new UpstreamError('not_sent', 'no connection')
    return { fate, until }
  }

  async function readOne(id: string, scope: ReadScope): Promise<Order | null | UpstreamError> {
    try {
      const { fate, until } = await reach('order', scope)
      const order = exchange.find(id)
      const staleMs = isCalm() ? 0 : random.next() * traits.staleMs
      const seenAt = world.now() - staleMs
      const isMissing =
        order === undefined ||
        fate === 'missing' ||
        seenAt < order.committedAt ||
        (world.now() < order.visibleAt && random.chance(0.3))
      const answer = isMissing ? null : show(order, versionAt(order, seenAt), false)
      await travel(latency(), 'order back', until, scope.signal)
      return answer
    } catch (error) {
      if (error instanceof UpstreamError) return error
      throw error
    }
  }

  function show(order: ModelOrder, { status, filled }: Version, isRow: boolean): Order {
    const { request, committedAt, accountId, clientOrderId } = order
    const state = stateOf(status)
    const isNamed = isRow ? !order.hidesIdInLists : traits.ids !== 'none'
    // Ids of other channels come back as they went in.
    const shownId = order.post === null ? clientOrderId : changeId(clientOrderId, order.id, traits.changes.ids)
    const terms = changeTerms(request, traits.changes.terms)
    const quantity = request.quantity ?? '7'
    const filledQuantity = String(Number(quantity) * filled)
    return {
      id: order.id,
      broker: 'BLUUM',
      account: { id: accountId, broker: 'BLUUM' },
      asset: { symbol: terms.symbol },
      symbol: terms.symbol,
      securityType: null,
      legs: [],
      currency: isRow ? null : 'USD',
      clientOrderId: isNamed ? shownId || null : null,
      side: request.side,
      type: terms.type,
      timeInForce: request.timeInForce,
      // As it spells them: not as it was told.
      quantity: terms.quantity === null ? Number(quantity).toFixed(2) : Number(terms.quantity).toFixed(3),
      notional: request.notional,
      limitPrice: request.limitPrice === null ? null : `${request.limitPrice}0`,
      stopPrice: null,
      trailPercent: null,
      trailPrice: null,
      extendedHours: isRow ? null : false,
      status,
      brokerStatus: status.toLowerCase(),
      state,
      isCancelable: state !== 'CLOSED',
      filledQuantity,
      remainingQuantity: null,
      averagePrice: null,
      commission: null,
      commissionType: null,
      submittedAt: new Date(Math.floor(world.brokerNow() - world.now() + committedAt)).toISOString(),
      filledAt: null,
      canceledAt: null,
      rejectReason: status === 'REJECTED' ? 'no' : null,
      isPartial: isRow,
    }
  }

  return {
    id: 'BLUUM',
    capabilities: { ...none, clientIdEcho: traits.isCertified },
    features: dialects.accounts.features,
    unsupported: () => [],
    planLists: (statuses) => [statuses],
    pages: () => Promise.reject(new Error('nobody pages here')),
    accounts: () => Promise.resolve([]),
    close: () => Promise.resolve(),

    orders: (keys, scope) => Promise.all(keys.map(({ id }) => readOne(id, scope))),

    async scan({ accountId, symbol, side, since }, scope): Promise<Scan> {
      const name = symbol === null ? 'scan all' : 'scan'
      const { fate, until } = await reach(name, scope)
      const takesOlder = random.chance(0.5)
      const showsFiltered = symbol === null || isCalm() || !traits.breaksFilters || random.chance(0.3)
      const wanted = exchange.orders.filter(
        (order) =>
          order.accountId === accountId &&
          order.visibleAt <= world.now() &&
          (symbol === null || changeTerms(order.request, traits.changes.terms).symbol === symbol) &&
          (side === null || order.request.side === side) &&
          (takesOlder || world.brokerNow() - world.now() + order.committedAt >= Date.parse(since)),
      )
      const isPartial = fate === 'partial'
      const orders = (showsFiltered ? wanted : [])
        .filter(() => !isPartial || random.chance(0.5))
        .map((order) => show(order, versionAt(order, world.now()), true))
      world.note(`${process.name} ${name} shows ${orders.map(({ id }) => id).join(' ')}${isPartial ? ' PARTIAL' : ''}`)
      await travel(latency(), `${name} back`, until, scope.signal)
      return { orders, isComplete: !isPartial }
    },

    async place(request, { idempotencyKey, sendBy, beforeSend }): Promise<PlaceAnswer> {
      await process.pass('place')
      const fate = isCalm() ? 'fine' : random.draw(traits.place)
      world.note(`${process.name} place ${request.clientOrderId} ${fate}`)
      exchange.count(`place fate: ${fate}`)
      const isLate = (): boolean => clock.now() >= sendBy
      const refuseToSend = (why: string): never => {
        throw new UpstreamError('not_sent', why)
      }
      if (!isCalm() && random.chance(0.3)) await process.wait(random.between(1, 1_000), 'place queued')
      if (fate === 'queueFull') refuseToSend('no token came free')
      if (isLate()) refuseToSend('it is too late')
      await beforeSend()
      await process.pass('place recorded')
      if (isLate()) refuseToSend('it is too late now')
      if (fate === 'notSent') {
        await process.wait(random.between(0, 1_000), 'place unconnected')
        refuseToSend('no connection')
      }
      const sentAt = world.now()
      const post: Post = { request, idempotencyKey, sendBy, sentAt, endedAt: null, isProven: false, order: null }
      const end = (): void => exchange.end(post)
      process.onDeath(end)
      try {
        return await post_(post, fate)
      } catch (error) {
        if (error instanceof UpstreamError && error.effect === 'none') post.isProven = true
        throw error
      } finally {
        end()
      }
    },

    async cancel(order, sendBy): Promise<Order | null> {
      await process.pass('cancel')
      const fate = isCalm() ? 'fine' : random.draw(traits.cancel)
      world.note(`${process.name} cancel ${order.id} ${fate}`)
      exchange.count(`cancel fate: ${fate}`)
      if (clock.now() >= sendBy) throw new UpstreamError('not_sent', 'it is too late')
      if (fate === 'notSent') throw new UpstreamError('not_sent', 'no connection')
      const post: CancelPost = { orderId: order.id, sentAt: world.now(), isProven: false }
      exchange.cancelPosts.push(post)
      const until = world.now() + 8_000
      const known = exchange.find(order.id)
      await travel(latency(), 'cancel there', until)
      if (fate === 'lost') throw new UpstreamError('no_answer', 'reset')
      if (fate === 'hangBefore') await travel(60_000, 'cancel hung', until)
      if (fate === 'failedBefore') throw new UpstreamError('failed', 'broken', { status: 503 })
      if (fate === 'throttled') {
        post.isProven = true
        throw new UpstreamError('throttled', 'too many', { status: 429 })
      }
      if (known === undefined) throw new UpstreamError('refused', 'no such order', { status: 404, effect: 'unknown' })
      if (fate === 'conflict') throw new UpstreamError('refused', 'busy', { status: 409, effect: 'unknown' })
      if (fate === 'fillsFirst') exchange.fill(known, random.chance(0.5) ? 1 : 0.7)
      if (fate === 'refused' || !isOpen(known)) {
        await travel(latency(), 'cancel refused', until)
        throw new UpstreamError('refused', 'it cannot be canceled', { status: 422, rejection: 'OTHER' })
      }
      if (fate === 'pending' || fate === 'pendingBodyless') {
        const { filled } = versionAt(known, world.now())
        known.versions.push({ at: world.now(), status: 'PENDING_CANCEL', filled })
        world.schedule(world.now() + random.between(100, 60_000), () => exchange.cancel(known))
      } else if (traits.lie !== 'canceled') {
        exchange.cancel(known)
      }
      const truth = versionAt(known, world.now())
      const told: Version = traits.lie === 'canceled' ? { ...truth, status: 'CANCELED' } : truth
      await travel(latency(), 'cancel back', until)
      if (fate === 'answerLost') throw new UpstreamError('no_answer', 'reset')
      if (fate === 'failedAfter') throw new UpstreamError('failed', 'broken', { status: 504 })
      return fate === 'bodyless' || fate === 'pendingBodyless' ? null : show(known, told, false)
    },
  }

  async function post_(post: Post, fate: PlaceFate): Promise<PlaceAnswer> {
    const lateMs = random.next() * traits.lateShare * traits.settleMs
    const soonMs = latency()
    const hangMs = 30_000
    const status: OrderStatus = fate === 'rejected' ? 'REJECTED' : 'ACCEPTED'
    const take = (commitsAfterMs: number | null, late: number | null = null): void =>
      exchange.receive(post, { commitsAfterMs, lateMs: late, status })
    const fail = (kind: 'no_answer' | 'failed' | 'unreadable'): never => {
      throw new UpstreamError(kind, fate, kind === 'failed' ? { status: random.pick([500, 502, 503, 504]) } : {})
    }
    switch (fate) {
      case 'fine':
      case 'bodyless':
      case 'rejected': {
        take(soonMs)
        await process.wait(soonMs + latency(), 'place answered')
        break
      }
      case 'slow': {
        const ms = random.between(1_000, hangMs - 1_000)
        take(Math.floor(ms * random.next()))
        await process.wait(ms, 'place answered')
        break
      }
      case 'lost': {
        take(null)
        await process.wait(soonMs, 'place failed')
        return fail('no_answer')
      }
      case 'hangBefore': {
        take(null)
        await process.wait(hangMs, 'place failed')
        return fail('no_answer')
      }
      case 'hangAfter': {
        // Beyond the end: late, then.
        take(Math.floor(random.next() * (hangMs + lateMs)))
        await process.wait(hangMs, 'place failed')
        return fail('no_answer')
      }
      case 'answerLost': {
        take(soonMs)
        await process.wait(soonMs + latency(), 'place failed')
        return fail('no_answer')
      }
      case 'late': {
        take(null, lateMs)
        await process.wait(soonMs, 'place failed')
        return fail(random.pick(['no_answer', 'failed', 'unreadable']))
      }
      case 'failedBefore': {
        take(null)
        await process.wait(soonMs, 'place failed')
        return fail('failed')
      }
      case 'failedAfter': {
        take(soonMs)
        await process.wait(soonMs + latency(), 'place failed')
        return fail('failed')
      }
      case 'unreadable': {
        take(soonMs)
        await process.wait(soonMs + latency(), 'place failed')
        return fail('unreadable')
      }
      case 'conflictBefore':
      case 'conflictAfter': {
        take(fate === 'conflictAfter' ? soonMs : null)
        await process.wait(soonMs + latency(), 'place failed')
        throw new UpstreamError('refused', 'a duplicate, it says', { status: 409, effect: 'unknown' })
      }
      case 'throttled': {
        take(traits.lie === 'proof' ? soonMs : null)
        await process.wait(soonMs + latency(), 'place refused')
        throw new UpstreamError('throttled', 'too many', { status: 429, retryAfterMs: 1_000 })
      }
      case 'refused': {
        take(null)
        await process.wait(soonMs + latency(), 'place refused')
        throw new UpstreamError('refused', 'no', { status: 422, rejection: 'INSUFFICIENT_FUNDS', brokerCode: 'X-1' })
      }
      case 'unauthorized': {
        take(null)
        await process.wait(soonMs + latency(), 'place refused')
        throw new UpstreamError('refused', 'who are you', { status: 401 })
      }
      case 'tooLarge': {
        take(null)
        await process.wait(soonMs + latency(), 'place refused')
        throw new UpstreamError('refused', 'too large', { status: 413 })
      }
      case 'queueFull':
      case 'notSent':
        throw new Error('it never left')
      default:
        return fate satisfies never
    }
    const { order } = post
    if (order === null) throw new Error('the broker answered before it had the order')
    const { id } = order
    const version = versionAt(order, world.now())
    const shown = fate === 'bodyless' ? null : show(order, version, false)
    const rejection = version.status === 'REJECTED' ? { code: 'OTHER' as const, brokerCode: null, reason: 'no' } : null
    const said = shown === null || traits.ids === 'none' ? null : changeId(order.clientOrderId, id, traits.changes.ids)
    return { orderId: id, status: version.status, clientOrderId: said, order: shown, differing: [], rejection }
  }
}

function changeId(id: string | null, orderId: string, change: Changes['ids']): string | null {
  if (id === null) return null
  switch (change) {
    case 'kept':
      return id
    case 'prefixed':
      return `PTR1-${id}`
    case 'cut':
      return id.slice(0, 8)
    case 'upperCase':
      return id.toUpperCase()
    case 'noDashes':
      return id.replaceAll('-', '')
    case 'empty':
      return ''
    case 'unrelated':
      return `broker-${orderId}`
    default:
      return change satisfies never
  }
}

function changeTerms(request: NewOrder, change: Changes['terms']): Pick<NewOrder, 'symbol' | 'type' | 'quantity'> {
  const { symbol, type, quantity } = request
  switch (change) {
    case 'kept':
      return { symbol, type, quantity }
    case 'quantity':
      return { symbol, type, quantity: quantity === null ? null : String(Number(quantity) - 0.125) }
    case 'type':
      return { symbol, type: type === 'MARKET' ? 'LIMIT' : type, quantity }
    case 'symbol':
      return { symbol: `${symbol.slice(0, 2)}/${symbol.slice(2)}`, type, quantity }
    default:
      return change satisfies never
  }
}

/** Whether the two are the same wish, their keys aside. */
export function isEqualRequest(a: NewOrder, b: NewOrder): boolean {
  const words = ['accountId', 'symbol', 'side', 'type', 'timeInForce'] as const
  const decimals = ['quantity', 'notional', 'limitPrice'] as const
  return (
    words.every((field) => a[field] === b[field]) &&
    decimals.every((field) => {
      const left = a[field]
      const right = b[field]
      return left === null || right === null ? left === right : compareDecimals(left, right) === 0
    })
  )
}
