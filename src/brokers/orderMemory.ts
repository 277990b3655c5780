// The order memory: the last state of each order that was shown. The replicas of a broker lag behind each other, so without it
// a filled quantity could fall and a final status could reopen. An answer that is older than an earlier one is replaced by it.
//
//   shown before   answer           its fill    shown                                      alarm
//   open           open             less        as before
//   open           open             else        the answer
//   open           final            less        its status, the larger fill                smallerFinal
//   open           final            else        the answer
//   final          open             more        the status as before, the larger fill      openAfterFinal
//   final          open             else        as before
//   final          final            less        as before
//   final          final            more        the answer                                 filledAfterFinal
//   final          the same         else        the answer
//   final          another final    else        as before                                  otherFinal
//
// UNKNOWN counts as open. A fill is compared with the largest fill shown before; a fill that is missing or cannot be read
// counts as equal. If the final answer before had no fill, a larger fill is new and does not contradict it: an open answer is
// then only old, and only another final status raises an alarm.
//
// `open, then final with less` is not an old answer, because an open answer is never newer than a final one. So both orders in
// which such a pair can arrive end the same way, and an order does not stay open because its fill was corrected downwards.
//
// A known order that the broker does not have counts as missing only after the time by which the replicas may lag:
//
//   last known to exist   why the broker may not have it     shown
//   never                 –                                  no order
//   less than 120 s ago   its replica does not have it yet   OrderWithheld
//   longer ago            replaced or removed elsewhere      no order
//
// An order is known to exist if an answer showed it or a placement is bound to it. An adapter answers that an order is missing
// only after the single read, or complete lists, that would have shown it.

import { LRUCache } from 'lru-cache'
import { systemClock } from '../domain/clock.ts'
import type { Clock } from '../domain/clock.ts'
import { OrderWithheld, wrapBroker } from './broker.ts'
import { UpstreamError } from '../upstream/errors.ts'
import type { Broker, Page, PageQuery, PageRow } from './broker.ts'
import { compareDecimals, isDecimal } from '../domain/decimal.ts'
import type { Order, OrderKey } from '../domain/order.ts'

/** The order that a placement is bound to, from the record of the placement. */
export interface BoundOrder {
  accountId: string
  /** Epoch ms at which the placement was bound to the order. */
  boundAt: number
}

interface SeenOptions {
  /** Returns the bound order; null if no placement is bound to it. May throw if the store cannot be read. */
  findBound: (orderId: string) => Promise<BoundOrder | null>
  /** Defaults to the clock of the process. */
  clock?: Clock
  /** Told when answers contradict each other beyond age: once an order and kind, as long as the order is remembered. */
  onAlarm: (message: string, fields: { orderId: string }) => void
  /** Orders remembered at the most; the one not read for longest is forgotten first. */
  ordersMax?: number
}

/**
 * Returns `broker` with the order memory: each order in its answers is merged with its last state, in a copy. Drops a list row
 * if its merged order no longer has a requested status. Answers OrderWithheld instead of a missing order if the order was
 * shown, or a placement was bound to it, within the last 120 s, and an UpstreamError if `findBound` throws. Closing it closes
 * `broker`.
 */
export function rememberOrders(broker: Broker, options: SeenOptions): Broker {
  const { findBound, onAlarm, clock = systemClock, ordersMax = 20_000 } = options
  // Not `max`, which sets room for all of them aside at once.
  const memory = new LRUCache<string, Seen>({ maxSize: ordersMax, sizeCalculation: () => 1 })

  function merge(order: Order): Order {
    const seen = memory.get(order.id)
    if (!seen) {
      remember(order)
      return order
    }
    seen.shownAt = clock.monotonic()
    // As nearly every time: a page has a hundred of them.
    if (seen.accountId === order.account.id && isEqual(order, seen.shown)) return order
    // Of two accounts nothing is merged: what one owns must not show in the other.
    if (seen.accountId !== order.account.id) {
      raise(seen, 'otherAccount')
      return order
    }
    const verdict = judge(order, seen)
    if (verdict.alarm !== null) raise(seen, verdict.alarm)
    const isTaken = verdict.status === 'answer' && verdict.fill === 'answer'
    const isAlike = isTaken && agrees(order, seen.shown)
    const merged = isAlike
      ? combine(order, seen.shown, (told, known) => told ?? known)
      : {
          ...toStatusPart(verdict.status === 'answer' ? order : seen.shown),
          ...toFillPart(verdict.fill === 'answer' ? order : seen.shown),
        }
    // A value of another status or fill does not replace a garbled field.
    const shown = withoutErrors(merged, isAlike ? seen.shown : nothing)
    if (!isEqual(shown, seen.shown)) seen.shown = structuredClone(shown)
    if (compareFill(order, seen) === 'more') seen.filled = structuredClone(readFill(order))
    return isEqual(merged, order) ? order : { ...order, ...merged }
  }

  function remember(order: Order): void {
    // A copy: a string out of an answer can be a window onto the whole of its body, and would keep it all in memory.
    const seen: Seen = structuredClone({
      id: order.id,
      accountId: order.account.id,
      shown: withoutErrors(order, nothing),
      filled: readFill(order),
      shownAt: clock.monotonic(),
      alarms: [],
    })
    memory.set(seen.id, seen)
  }

  function raise(seen: Seen, alarm: Contradiction): void {
    if (seen.alarms.includes(alarm)) return
    seen.alarms.push(alarm)
    onAlarm(contradictions[alarm], { orderId: seen.id })
  }

  function mergePage(page: Page, statuses: PageQuery['statuses']): Page {
    const rows = page.rows.flatMap((row): PageRow[] => {
      if (row.order instanceof UpstreamError) return [row]
      const order = merge(row.order)
      return statuses === null || statuses.some((status) => status === order.status) ? [{ ...row, order }] : []
    })
    return { ...page, rows }
  }

  // The broker has no such order, which may be the answer of a replica that does not have it yet.
  async function checkMissing({ id, accountId }: OrderKey): Promise<null | UpstreamError> {
    const seen = memory.get(id)
    const shown = seen && { accountId: seen.accountId, ageMs: clock.monotonic() - seen.shownAt }
    if (shown && shown.ageMs < lagMs) return toMissing(shown)
    try {
      const bound = await findBound(id)
      return bound && toMissing({ accountId: bound.accountId, ageMs: clock.now() - bound.boundAt })
    } catch (cause) {
      return new UpstreamError('unreadable', 'the broker knows no such order, and our own record cannot be read', {
        cause,
      })
    }

    function toMissing(known: { accountId: string; ageMs: number }): OrderWithheld | null {
      if (accountId !== null && known.accountId !== accountId) return null
      // The age is negative if the wall clock was set back.
      const ageMs = Math.max(0, known.ageMs)
      return ageMs < lagMs
        ? new OrderWithheld(known.accountId, { ageMs, retryAfterMs: Math.ceil(lagMs - ageMs) })
        : null
    }
  }

  return wrapBroker(broker, {
    async orders(keys, scope) {
      const answers = await broker.orders(keys, scope)
      return await Promise.all(
        answers.map(async (answer, index) => {
          const key = keys[index]
          if (answer === null) return key ? await checkMissing(key) : null
          return answer instanceof UpstreamError ? answer : merge(answer)
        }),
      )
    },

    async pages(queries, scope) {
      const pages = await broker.pages(queries, scope)
      return pages.map((page, index) =>
        page instanceof UpstreamError ? page : mergePage(page, queries[index]?.statuses ?? null),
      )
    },

    async scan(query, scope) {
      const scan = await broker.scan(query, scope)
      return { ...scan, orders: scan.orders.map(merge) }
    },

    async place(order, options) {
      const answer = await broker.place(order, options)
      const { clientOrderId, differing } = answer
      // An answer that differs from what was sent may be about another order, so the memory does not keep it.
      if (differing.length > 0 || (clientOrderId !== null && clientOrderId !== order.clientOrderId)) return answer
      if (answer.order === null) return answer
      const placed = merge(answer.order)
      return { ...answer, order: placed, status: placed.status }
    },

    async cancel(order, sendBy) {
      const answer = await broker.cancel(order, sendBy)
      return answer === null ? null : merge(answer)
    },
  })
}

// Maximum lag between the replicas of a broker, in ms.
const lagMs = 120_000

const contradictions = {
  smallerFinal: 'the broker tells an order final with a smaller fill than it told before',
  openAfterFinal: 'the broker tells an order open that it told final, with a larger fill',
  filledAfterFinal: 'an order filled further after the broker told it final',
  otherFinal: 'the broker tells another final status of an order than it told before',
  otherAccount: 'the broker tells an order in another account than before',
} as const
type Contradiction = keyof typeof contradictions

interface Seen {
  id: string
  accountId: string
  /** As it was last shown; holds no Errors. */
  shown: Moving
  /** The largest fill that any answer showed; `shown` lacks it if the status has changed since without a fill. */
  filled: string | null
  /** Monotonic ms of the last answer that showed the order. */
  shownAt: number
  alarms: Contradiction[]
}

// ---- which of the two is newer --------------------------------------------------------------------------------------

interface Verdict {
  status: 'before' | 'answer'
  fill: 'before' | 'answer'
  alarm: Contradiction | null
}

const stale: Verdict = { status: 'before', fill: 'before', alarm: null }
const fresh: Verdict = { status: 'answer', fill: 'answer', alarm: null }

// The table above.
function judge(answer: Moving, seen: Seen): Verdict {
  const { shown } = seen
  const fill = compareFill(answer, seen)
  const wasTold = shown.filledQuantity !== null
  if (shown.state !== 'CLOSED') {
    if (fill !== 'less') return fresh
    return answer.state === 'CLOSED' ? { status: 'answer', fill: 'before', alarm: 'smallerFinal' } : stale
  }
  if (answer.state !== 'CLOSED') {
    return fill === 'more' && wasTold ? { status: 'before', fill: 'answer', alarm: 'openAfterFinal' } : stale
  }
  if (fill === 'less') return stale
  const isSame = answer.status === shown.status
  if (fill === 'more') return { ...fresh, alarm: wasTold ? 'filledAfterFinal' : isSame ? null : 'otherFinal' }
  return isSame ? fresh : { ...stale, alarm: 'otherFinal' }
}

// No answer showed a fill yet, and every order begins with none.
function compareFill(answer: Moving, seen: Seen): 'less' | 'equal' | 'more' | 'untold' {
  const told = readFill(answer)
  if (told === null) return 'untold'
  const difference = compareDecimals(told, seen.filled ?? '0')
  return difference < 0 ? 'less' : difference > 0 ? 'more' : 'equal'
}

function readFill({ filledQuantity }: Moving): string | null {
  return filledQuantity instanceof Error ? null : filledQuantity
}

// Whether the answer shows only what was shown before, or less. A field that it leaves out keeps its value, because a list may
// lack what a single read showed of the same status and fill.
function agrees(answer: Moving, shown: Moving): boolean {
  return movingFields.every((field) => {
    const told = answer[field]
    const known = shown[field]
    return told === null || told instanceof Error || known === null || isSameValue(told, known)
  })
}

function isSameValue(a: unknown, b: unknown): boolean {
  if (a === b) return true
  if (typeof a !== 'string' || typeof b !== 'string' || !isDecimal(a) || !isDecimal(b)) return false
  return compareDecimals(a, b) === 0
}

// ---- what moves of an order -----------------------------------------------------------------------------------------

// Its commission does not: that is a term it was placed under, not what its fills cost.
const statusFields = ['status', 'brokerStatus', 'state', 'isCancelable', 'canceledAt', 'rejectReason'] as const
const fillFields = ['filledQuantity', 'remainingQuantity', 'averagePrice', 'filledAt'] as const
const movingFields = [...statusFields, ...fillFields] as const

type StatusPart = Pick<Order, (typeof statusFields)[number]>
type FillPart = Pick<Order, (typeof fillFields)[number]>
type Moving = StatusPart & FillPart

const nothing: Moving = {
  status: 'UNKNOWN',
  brokerStatus: null,
  state: null,
  isCancelable: true,
  canceledAt: null,
  rejectReason: null,
  filledQuantity: null,
  remainingQuantity: null,
  averagePrice: null,
  filledAt: null,
}

function toStatusPart({ status, brokerStatus, state, isCancelable, canceledAt, rejectReason }: StatusPart): StatusPart {
  return { status, brokerStatus, state, isCancelable, canceledAt, rejectReason }
}

function toFillPart({ filledQuantity, remainingQuantity, averagePrice, filledAt }: FillPart): FillPart {
  return { filledQuantity, remainingQuantity, averagePrice, filledAt }
}

function combine(told: Moving, known: Moving, choose: <T>(told: T, known: T) => T): Moving {
  return {
    status: choose(told.status, known.status),
    brokerStatus: choose(told.brokerStatus, known.brokerStatus),
    state: choose(told.state, known.state),
    isCancelable: choose(told.isCancelable, known.isCancelable),
    canceledAt: choose(told.canceledAt, known.canceledAt),
    rejectReason: choose(told.rejectReason, known.rejectReason),
    filledQuantity: choose(told.filledQuantity, known.filledQuantity),
    remainingQuantity: choose(told.remainingQuantity, known.remainingQuantity),
    averagePrice: choose(told.averagePrice, known.averagePrice),
    filledAt: choose(told.filledAt, known.filledAt),
  }
}

function withoutErrors(told: Moving, instead: Moving): Moving {
  return combine(told, instead, (value, other) => (value instanceof Error ? other : value))
}

function isEqual(a: Moving, b: Moving): boolean {
  return movingFields.every((field) => a[field] === b[field])
}
