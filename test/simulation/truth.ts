// What has to be true, whatever goes wrong: every answer and every record is held against what the model broker knows.
//
//    1  at most one order for each key, and for each wish whose caller went on to another key only when told that
//       there was none
//    2  every OrderPlaced exists, with equal economics
//    3  no OrderRejected and no PROVEN OrderNotPlaced of a POST that becomes an order
//    4  no ASSUMED one either
//    5  nothing is left without an outcome once all is well and the settle time over
//    6  one key, one order, one outcome, for ever
//    7  nothing is sent at or after its send_by, unrecorded, or again without proof that it was not processed
//    8  a cancel is confirmed only of what is canceled; what is shown of an order goes back on nothing
//    9  a cancel that is kept is asked for when its order is found; what was canceled before it left stays here
//   10  the audit fits
//   11  the service stops when told to, in time
//   12  every call is answered in time
//   13  no order is sent while an equal one was without an outcome, unless a caller acknowledged that one

import { UpstreamError } from '../../src/upstream/errors.ts'
import { compareDecimals } from '../../src/domain/decimal.ts'
import type { NewOrder, Order } from '../../src/domain/order.ts'
import type {
  CancelOrderResult,
  CancelRefusalCode,
  OrderPlacement,
  PlaceOrderResult,
} from '../../src/trading/outcomes.ts'
import { isCancelPending } from '../../src/trading/placement/placement.ts'
import type { Placement, PlacementState } from '../../src/trading/placement/placement.ts'
import { isTombstone, StoreError } from '../../src/store/store.ts'
import type { Store } from '../../src/store/store.ts'
import { createExchange, isEqualRequest, isOpen } from './model.ts'
import type { Exchange, ModelOrder, Post } from './model.ts'
import type { Intent, Plan, Sabotage } from './plan.ts'
import type { Process, World } from './world.ts'

/** All that is known of one key. */
export interface KeyFacts {
  readonly clientOrderId: string
  readonly intent: Intent
  /** As callers gave them, and until when each of them let it be sent. */
  requests: NewOrder[]
  bounds: (number | null)[]
  openCalls: number
  /** As it was recorded last. */
  state: PlacementState | null
  request: NewOrder | null
  sendBy: number
  reservedAt: number
  /** Since when it may exist without anybody knowing. */
  unresolvedAt: number
  /** Keys that its callers acknowledged. */
  acknowledged: Set<string>
  posts: Post[]
  orders: ModelOrder[]
  /** What callers were told. */
  orderId: string | null
  claims: Claim[]
  /** When somebody was first told that it was placed, or that it was rejected. */
  placedAt: number
  rejectedAt: number
  firsts: number
  /** Somebody was told that its cancel is pending, when its order was not known yet. */
  isCancelKept: boolean
  cancelCalls: number
}

// An answer that rules an order out.
interface Claim {
  at: number
  what: string
  isProof: boolean
}

/** A call of a client. */
interface Call {
  beganAt: number
  process: Process
}

export interface Truth {
  readonly exchange: Exchange
  readonly keys: ReadonlyMap<string, KeyFacts>
  readonly counts: ReadonlyMap<string, number>
  count(what: string, by?: number): void
  createKey(intent: Intent): KeyFacts
  noteChange(placement: Placement): void
  checkPlace(key: KeyFacts, result: PlaceOrderResult, call: Call & { request: NewOrder | null }): void
  checkPlacement(key: KeyFacts, placement: OrderPlacement, call: Call): void
  checkCancel(key: KeyFacts, result: CancelOrderResult, call: Call & { isById: boolean; isWrong: boolean }): void
  checkRead(order: Order | null | UpstreamError, orderId: string, call: Call): void
  checkTrouble(process: Process, message: string, error: unknown): void
  /** Once all is well and the settle time is over. */
  checkRecords(store: Store, lives: number): Promise<void>
  checkKeptCancel(key: KeyFacts): void
  /** What a person who knows all says of it: its order, or null where it has none that was not told of another key. */
  decide(key: KeyFacts): string | null
}

/** Knows everything, from the beginning of the world. */
export function createTruth(world: World, plan: Plan, sabotage: Sabotage | null): Truth {
  const { traits, times } = plan
  const counts = new Map<string, number>()
  const keys = new Map<string, KeyFacts>()
  const decided = new Set<KeyFacts>()
  const keyOfOrder = new Map<string, string>()
  const shown = new WeakMap<Process, Map<string, { at: number; order: Order }[]>>()

  // Where others place equal orders that nothing tells from ours, one may be taken for ours: the window W2.
  const isIndistinct =
    plan.foreign === 'nameless' ||
    (plan.foreign === 'named' && (traits.ids === 'none' || traits.changes.ids === 'empty'))
  const isW2 = isIndistinct && !traits.isCertified

  // Equal orders of ours cannot be told from each other: no id shows, or only what all our ids have in common.
  const isBlind = traits.ids === 'none' || traits.changes.ids === 'empty' || traits.changes.ids === 'cut'

  if (traits.changes.ids !== 'kept') count(`broker: client order ids ${traits.changes.ids}`)
  if (traits.changes.terms !== 'kept') count(`broker: ${traits.changes.terms} changed`)
  const exchange = createExchange(world, traits, { onPost: checkPost, onCommit: checkCommit, count })

  function count(what: string, by = 1): void {
    counts.set(what, (counts.get(what) ?? 0) + by)
  }

  /** Whether it can be told which of our orders is this key's: not where no id shows and equal ones are about. */
  function isExact(key: KeyFacts): boolean {
    if (isW2) return false
    if (!isBlind) return true
    const { request } = key.intent
    return [...keys.values()].every((other) => other === key || !isEqualRequest(other.intent.request, request))
  }

  // ---- what is recorded and sent ------------------------------------------------------------------------------------

  function noteChange(placement: Placement): void {
    const { clientOrderId, state, version, sendBy, request } = placement
    const key = keys.get(clientOrderId)
    if (!key) return
    if (state === 'RESERVED' && sendBy !== key.sendBy) {
      const usualMs = times.sendByMs[request.type === 'MARKET' ? 'market' : 'other']
      // A clock that was set back between the two makes any of them look long.
      const isUsual = plan.jumps.length > 0 || sendBy <= world.wallNow() + usualMs
      const isAllowed = key.bounds.some((bound) => bound === null || sendBy <= bound)
      if (!isUsual || !isAllowed) world.fail(7, `${clientOrderId} may be sent for too long`)
      key.sendBy = sendBy
    }
    if (key.state !== state) count(`state: ${state}`)
    if (key.state === 'RESERVED' && state === 'SENDING' && isCancelPending(placement)) {
      world.fail(9, `${clientOrderId} is about to be sent, and was canceled before`)
    }
    if (state === 'RESERVED' && key.state !== 'RESERVED') key.reservedAt = world.now()
    const isUnresolved = state === 'SENDING' || state === 'UNKNOWN' || state === 'AMBIGUOUS'
    key.unresolvedAt = isUnresolved ? Math.min(key.unresolvedAt, world.now()) : Infinity
    key.request = request
    const isFinal = key.state === 'ACCEPTED' || key.state === 'REJECTED'
    if (isFinal && state !== key.state && sabotage !== 'forgets') {
      world.fail(6, `${clientOrderId} went from ${key.state} to ${state} at version ${version}`)
    }
    // A wish is about one attempt: it ends where there is no order, and none to come.
    if (state === 'NOT_SENT') key.isCancelKept = false
    key.state = state
  }

  function checkPost(post: Post): void {
    const { clientOrderId } = post.request
    const key = keys.get(clientOrderId)
    count('POSTs')
    if (!key) return world.fail(7, `${clientOrderId} is sent, and nobody asked for it`)
    const unproven = key.posts.find(({ isProven }) => !isProven)
    if (unproven) {
      count('duplicates')
      world.fail(7, `${clientOrderId} is sent again, though the POST at ${unproven.sentAt} was never disproved`)
    }
    if (world.wallNow() >= post.sendBy) world.fail(7, `${clientOrderId} is sent at or after its send_by`)
    if (post.sendBy !== key.sendBy) world.fail(7, `${clientOrderId} is sent with another send_by than was recorded`)
    if (key.state !== 'SENDING')
      world.fail(7, `${clientOrderId} is sent while its record says ${key.state ?? 'nothing'}`)
    if (!key.requests.some((request) => isEqualRequest(request, post.request))) {
      world.fail(2, `${clientOrderId} is sent with other economics than anybody gave`)
    }
    const twin = [...keys.values()].find(
      (other) =>
        other !== key &&
        other.unresolvedAt < key.reservedAt &&
        other.request !== null &&
        isEqualRequest(other.request, post.request) &&
        !key.acknowledged.has(other.clientOrderId),
    )
    if (twin) world.fail(13, `${clientOrderId} is sent while its twin ${twin.clientOrderId} is ${twin.state ?? ''}`)
    key.posts.push(post)
  }

  function checkCommit(order: ModelOrder, { request, sentAt }: Post): void {
    const key = keys.get(request.clientOrderId)
    if (!key) return
    count('orders')
    key.orders.push(order)
    if (key.orders.length > 1) {
      count('duplicates')
      world.fail(1, `${key.clientOrderId} has ${key.orders.length} orders at the broker`)
    }
    for (const claim of key.claims) if (sentAt < claim.at) deny(key, claim, order)
    if (plan.isW1 || isW2) return
    const mine = [...keys.values()].filter(
      ({ intent }) => intent === key.intent || (isBlind && isEqualRequest(intent.request, request)),
    )
    const alive = mine.flatMap(({ orders }) => orders).filter((one) => !isRefused(one))
    const wishes = new Set(mine.map(({ intent }) => intent))
    if (alive.length > wishes.size) {
      count('duplicates')
      world.fail(1, `${wishes.size} wishes have become ${alive.length} orders, the last of them ${order.id}`)
    }
  }

  function claim(key: KeyFacts, what: string, isProof: boolean): void {
    if (!isProof && (plan.isW1 || !isExact(key))) return
    const made = { at: world.now(), what, isProof }
    key.claims.push(made)
    for (const order of key.orders) if (order.post && order.post.sentAt < made.at) deny(key, made, order)
  }

  function deny({ clientOrderId }: KeyFacts, { what, isProof }: Claim, order: ModelOrder): void {
    if (isRefused(order)) return
    count(isProof ? 'false not-placed (proven)' : 'false not-placed (assumed)')
    world.fail(isProof ? 3 : 4, `${clientOrderId} was answered ${what}, and ${order.id} exists`)
  }

  // ---- what is told of a placement ----------------------------------------------------------------------------------

  function checkPlace(key: KeyFacts, result: PlaceOrderResult, call: Call & { request: NewOrder | null }): void {
    const { clientOrderId, outcome, orderId, order } = result
    const { request, beganAt } = call
    const code = result.outcome === 'NOT_PLACED' ? ` ${result.certainty} ${result.notPlacedCode}` : ''
    world.note(`told ${clientOrderId} ${outcome}${code} ${orderId ?? ''}`)
    count(`${request ? 'place' : 'placement'}: ${outcome}${code}`)
    if (clientOrderId !== key.clientOrderId) world.fail(6, `${key.clientOrderId} was answered as ${clientOrderId}`)
    if (order !== null && order.id !== orderId)
      world.fail(2, `an answer for ${orderId ?? 'no order'} holds ${order.id}`)
    if (order !== null) checkShown(order, call)
    const goesBack = (before: number, what: string): void => {
      if (before <= beganAt) world.fail(6, `${clientOrderId} was ${what} before, and is ${outcome}${code} now`)
    }
    switch (result.outcome) {
      case 'PLACED':
        goesBack(key.rejectedAt, 'rejected')
        key.placedAt = Math.min(key.placedAt, world.now())
        if (!result.replayed && ++key.firsts > 1) world.fail(6, `${clientOrderId} was placed for the first time twice`)
        if (orderId === null) world.fail(2, `${clientOrderId} is placed without an order id`)
        else checkBound(key, orderId, request)
        break
      case 'REJECTED':
        goesBack(key.placedAt, 'placed')
        key.rejectedAt = Math.min(key.rejectedAt, world.now())
        if (orderId !== null) checkBound(key, orderId, request)
        if (orderId === null || isExact(key)) claim(key, outcome, true)
        break
      case 'NOT_PLACED':
        if (result.retryAfterMs !== null && !(result.retryAfterMs <= 60_000)) world.fail(6, 'a wait beyond all reason')
        // What is forgotten is not denied: its order is named.
        if (result.notPlacedCode !== 'KEY_EXPIRED') {
          goesBack(key.placedAt, 'placed')
          goesBack(key.rejectedAt, 'rejected')
          claim(key, `${outcome}${code}`, result.certainty === 'PROVEN')
        }
        if (result.notPlacedCode === 'NEVER_APPEARED' && !times.assumeAbsent && !decided.has(key))
          world.fail(4, 'nobody may assume that')
        break
      case 'INVALID':
        if (key.requests.every((other) => request && isEqualRequest(other, request))) {
          world.fail(6, `${clientOrderId} was refused: ${result.message}`)
        }
        break
      case 'UNKNOWN':
        break
      default:
        result satisfies never
    }
  }

  function checkPlacement(key: KeyFacts, placement: OrderPlacement, call: Call): void {
    const { clientOrderId, state, result, attempts, orderId } = placement
    checkPlace(key, result, { ...call, request: null })
    const sent = key.posts.filter(({ sentAt }) => sentAt < world.now()).length
    const isForgotten = result.outcome === 'NOT_PLACED' && result.notPlacedCode === 'KEY_EXPIRED'
    if (attempts < sent && !isForgotten) {
      world.fail(7, `${clientOrderId} tells ${attempts} attempts and was sent ${sent} times`)
    }
    if (state === 'PLACED' && orderId === null) world.fail(2, `${clientOrderId} is PLACED without an order id`)
  }

  function checkBound(key: KeyFacts, orderId: string, request: NewOrder | null): void {
    const { clientOrderId } = key
    const order = exchange.find(orderId)
    if (!order) return world.fail(2, `${clientOrderId} is placed as ${orderId}, which does not exist`)
    const wanted = request === null ? key.requests : [request]
    if (!wanted.some((one) => isEqualRequest(one, order.request))) {
      world.fail(2, `${clientOrderId} is placed as ${orderId}, which is another order`)
    }
    if (isExact(key) && order.post?.request.clientOrderId !== clientOrderId) {
      world.fail(2, `${clientOrderId} is placed as ${orderId}, which came by ${order.clientOrderId ?? 'no key'}`)
    }
    if (key.orderId !== null && key.orderId !== orderId) {
      world.fail(6, `${clientOrderId} was ${key.orderId} and is ${orderId} now`)
    }
    const owner = keyOfOrder.get(orderId) ?? clientOrderId
    if (owner !== clientOrderId) world.fail(6, `${orderId} is told of ${owner} and of ${clientOrderId}`)
    key.orderId = orderId
    keyOfOrder.set(orderId, clientOrderId)
  }

  // ---- what is told of an order -------------------------------------------------------------------------------------

  // By one who asks when the answer before is there, for as long as the process lives that remembers.
  function checkShown(order: Order, { process, beganAt }: Call): void {
    const { id, state, status } = order
    const all = shown.get(process) ?? new Map<string, { at: number; order: Order }[]>()
    shown.set(process, all)
    const seen = all.get(id) ?? []
    all.set(id, seen)
    const before = seen.findLast(({ at }) => at <= beganAt)?.order
    seen.push({ at: world.now(), order })
    const truth = exchange.find(id)
    const filled = String(order.filledQuantity)
    const most = Number(truth?.request.quantity ?? '7') * (truth?.versions.at(-1)?.filled ?? 0)
    if (Number(filled) > most) world.fail(8, `${id} is shown with ${filled} filled, and is not`)
    if (!before) return
    if (compareDecimals(filled, String(before.filledQuantity)) < 0) {
      world.fail(8, `${id} is shown with ${filled} filled after ${String(before.filledQuantity)}`)
    }
    if (before.state === 'CLOSED' && state !== 'CLOSED')
      world.fail(8, `${id} is shown ${status} after ${before.status}`)
  }

  function checkCancel(
    key: KeyFacts,
    result: CancelOrderResult,
    call: Call & { isById: boolean; isWrong: boolean },
  ): void {
    const { outcome, orderId, order } = result
    const { isById, isWrong } = call
    const code = result.outcome === 'REFUSED' ? ` ${result.refusalCode}` : ''
    world.note(`told cancel ${key.clientOrderId} ${outcome}${code} ${orderId ?? ''}`)
    count(`cancel: ${outcome}${code}`)
    if (order !== null) checkShown(order, call)
    if (orderId !== null && !isById) checkBound(key, orderId, null)
    if (isWrong && (outcome !== 'REFUSED' || order !== null)) {
      world.fail(8, `the cancel of ${orderId ?? ''} under another account was answered ${outcome}`)
    }
    const truth = exchange.find(orderId ?? '')
    switch (result.outcome) {
      case 'CANCELED':
        if (!truth?.versions.some(({ status }) => status === 'CANCELED')) {
          world.fail(8, `${orderId ?? ''} is confirmed canceled, and is ${truth?.versions.at(-1)?.status ?? 'missing'}`)
        }
        if (order?.status !== 'CANCELED') world.fail(8, `${orderId ?? ''} is confirmed without a canceled order`)
        break
      case 'PENDING':
        key.isCancelKept ||= orderId === null && key.state !== 'NOT_SENT'
        break
      case 'REFUSED':
        checkCancelRefused(key, result.refusalCode, { ...call, truth })
        break
      case 'INVALID':
        world.fail(8, `the cancel of ${key.clientOrderId} was refused as invalid: ${result.message}`)
        break
      default:
        result satisfies never
    }
  }

  function checkCancelRefused(
    key: KeyFacts,
    code: CancelRefusalCode,
    call: Call & { isById: boolean; isWrong: boolean; truth: ModelOrder | undefined },
  ): void {
    const { beganAt, isById, isWrong, truth } = call
    if (code === 'ALREADY_FILLED' && !truth?.versions.some(({ status }) => status === 'FILLED')) {
      world.fail(8, `${truth?.id ?? ''} is told filled and is not`)
    }
    if (code === 'NOT_FOUND' && !isWrong) {
      if (isById) world.fail(8, `${key.orderId ?? ''}, which is bound, was not found to be canceled`)
      const missed = key.orders.find((order) => order.post && order.post.sentAt < beganAt && !isRefused(order))
      if (missed && isExact(key) && !plan.isW1) {
        world.fail(4, `the cancel of ${key.clientOrderId} was told that there is no order, and there is ${missed.id}`)
      }
    }
    if (!isById || !['BROKER_UNAVAILABLE', 'RATE_LIMITED', 'SHUTTING_DOWN'].includes(code)) return
    const asked = exchange.cancelPosts.find(
      (post) => post.orderId === key.orderId && post.sentAt >= beganAt && post.sentAt < world.now() && !post.isProven,
    )
    if (asked) world.fail(8, `the cancel of ${asked.orderId} was told that nothing was asked, and something was`)
  }

  // ---- what is left ---------------------------------------------------------------------------------------------------

  async function checkRecords(store: Store, lives: number): Promise<void> {
    for (const key of keys.values()) {
      if (key.requests.length === 0) continue
      count('placements')
      const { clientOrderId, intent } = key
      const found = await store.find({ broker: 'BLUUM', accountId: intent.request.accountId, clientOrderId })
      if (found === null) checkMissing(key, 'no record')
      else if (!isTombstone(found)) checkRecord(key, found)
      const asked = exchange.cancelPosts.filter(({ orderId }) => orderId === key.orderId).length
      if (asked > 3 * (key.cancelCalls + lives))
        world.fail(8, `the cancel of ${clientOrderId} was asked for ${asked} times`)
    }
  }

  function checkRecord(key: KeyFacts, found: Placement): void {
    const { clientOrderId } = key
    const { state, foundBy, orderId, nextCheckAt } = found
    if (foundBy) count(`found by ${foundBy}`)
    // Strict: nobody assumes, so what never was is not known.
    const mayBeUnknown = !times.assumeAbsent && (key.orders.length === 0 || !isExact(key))
    // Equal orders under ids of somebody else keep absence from being concluded.
    const mayBeAmbiguous = isIndistinct || isBlind || plan.foreign === 'named' || traits.changes.ids === 'unrelated'
    // What is RESERVED is sent by nobody but a repeat, and told as not sent; see the end of the history.
    const isLeft = state === 'SENDING' || (state === 'UNKNOWN' && !mayBeUnknown)
    if (isLeft || (state === 'AMBIGUOUS' && !mayBeAmbiguous)) {
      count('left unresolved')
      world.fail(5, `${clientOrderId} is left ${state}`)
    }
    if (state === 'AMBIGUOUS') count(traits.isCertified ? 'left ambiguous, certified' : 'left ambiguous')
    if (orderId !== null) checkBound(key, orderId, null)
    checkMissing(key, state)
    const isOver = state === 'NOT_SENT' || state === 'REJECTED' || (state === 'NOT_PLACED' && nextCheckAt === null)
    if (isCancelPending(found) && isOver && orderId === null) {
      world.fail(9, `${clientOrderId} is ${state}, and the wish to cancel it will never be settled`)
    }
    checkKeptCancel(key)
  }

  function checkKeptCancel(key: KeyFacts): void {
    const [order] = key.orders
    if (!order || !key.isCancelKept || !isExact(key) || key.state !== 'ACCEPTED' || !isOpen(order)) return
    const asked = exchange.cancelPosts.filter((post) => post.orderId === order.id)
    // Asked for when it was found, it may still have been lost or refused.
    if (asked.some(({ isProven }) => !isProven)) return count('kept cancels that came to nothing')
    world.fail(9, `${order.id} is open, though its cancel was kept; asked for ${asked.length} times`)
  }

  function checkMissing(key: KeyFacts, state: string): void {
    const [order] = key.orders
    // Without an id of ours, the late watch has nothing to know a late order by.
    if (!order || !isExact(key) || (plan.isW1 && (isBlind || traits.changes.ids === 'unrelated'))) return
    const isKnown = state === 'ACCEPTED' || state === 'AMBIGUOUS' || (state === 'REJECTED' && isRefused(order))
    if (!isKnown) world.fail(4, `${order.id} exists, and the record of ${key.clientOrderId} says ${state}`)
  }

  return {
    exchange,
    keys,
    counts,
    count,

    createKey(intent) {
      const clientOrderId = `key-${String(keys.size + 1).padStart(5, '0')}`
      const key: KeyFacts = {
        clientOrderId,
        intent,
        requests: [],
        bounds: [],
        openCalls: 0,
        state: null,
        request: null,
        sendBy: 0,
        reservedAt: Infinity,
        unresolvedAt: Infinity,
        acknowledged: new Set(),
        posts: [],
        orders: [],
        orderId: null,
        claims: [],
        placedAt: Infinity,
        rejectedAt: Infinity,
        firsts: 0,
        isCancelKept: false,
        cancelCalls: 0,
      }
      keys.set(clientOrderId, key)
      return key
    },

    noteChange,
    checkPlace,
    checkPlacement,
    checkCancel,

    checkRead(order, orderId, call) {
      if (order === null) world.fail(8, `${orderId}, which is bound, was answered as missing`)
      else if (!(order instanceof UpstreamError)) checkShown(order, call)
    },

    // What a person may hear of, and what only a bug can say.
    checkTrouble(process, message, error) {
      const said = error instanceof Error ? `${error.name}: ${error.message}` : JSON.stringify(error)
      world.note(`${process.name} TROUBLE ${message} ${said}`)
      const isExpected = error === null || error instanceof StoreError || error instanceof UpstreamError
      if (!isExpected) world.fail(0, `${message}: ${said}`)
      const alarm = /^ALARM: (.*)$/u.exec(message)?.[1]
      if (alarm === undefined) return
      count(`alarm: ${alarm.replace(/: placement.*/u, '').replace(/[0-9a-f]{8}-[0-9a-f-]+|ord_\d+/gu, '…')}`)
      const isContradiction =
        /second order|refused an order|did not process|claimed by two|that counted as not placed/u.test(alarm)
      if (isContradiction && !isW2 && !plan.isW1 && !isBlind) world.fail(6, message)
    },

    checkRecords,
    checkKeptCancel,

    decide(key) {
      const { clientOrderId, orders } = key
      decided.add(key)
      const own = orders.find(({ id }) => (keyOfOrder.get(id) ?? clientOrderId) === clientOrderId)
      return own?.id ?? null
    },
  }
}

// Rejected from the beginning: the broker has a row of it, and no order that could trade.
function isRefused({ versions }: ModelOrder): boolean {
  return versions[0].status === 'REJECTED'
}
