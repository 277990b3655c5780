// `blotter placements`: lists the unresolved placements, shows one with its audit, and resolves one by hand.

import { brokerOf, isOrderId } from '../brokers/registry.ts'
import type { NewOrder } from '../domain/order.ts'
import { advance } from '../trading/placement/placement.ts'
import type { Placement, PlacementEvent } from '../trading/placement/placement.ts'
import { isTombstone } from '../store/store.ts'
import type { AuditRow, Store, Tombstone } from '../store/store.ts'
import { systemClock } from '../domain/clock.ts'
import { OperatorError, toList, toTable, withStore } from './operator.ts'
import type { Env } from './operator.ts'

const placementsPerRead = 200
// Maximum rows of the table. Its columns are as wide as the longest cell, so all rows are read before the first is printed.
const tableRowsMax = 1_000

/**
 * Prints every unresolved placement, oldest first: as a table, or as JSON, one line each. Throws ConfigError, and OperatorError
 * if the store cannot be read.
 */
export async function listPlacements(env: Env, asJson: boolean, print: (text: string) => void): Promise<void> {
  await withStore(env, async (store) => {
    const rows: Placement[] = []
    let after: string | null = null
    for (;;) {
      const read: Placement[] = await store.findUnfinished(after, placementsPerRead)
      if (asJson) for (const placement of read) print(JSON.stringify(placement))
      else rows.push(...read)
      after = read.at(-1)?.opId ?? null
      if (read.length < placementsPerRead || rows.length > tableRowsMax) break
    }
    if (asJson) return
    if (rows.length === 0) return print('Nothing is unresolved.')
    print(toTable(rows.slice(0, tableRowsMax).map(toRow)))
    if (rows.length > tableRowsMax) print(`There are more than ${tableRowsMax}: --json prints all of them.`)
  })
}

/** Returns one placement with its audit rows. `name` is its opId, or its account if there is a client order id. */
export async function showPlacement(env: Env, name: string, clientOrderId: string | null): Promise<string> {
  return await withStore(env, async (store) => {
    const found =
      clientOrderId === null
        ? await store.read(name)
        : await store.find({ broker: brokerOf(name), accountId: name, clientOrderId })
    if (found === null) {
      throw new OperatorError(
        clientOrderId === null
          ? `There is no placement ${name}. It may be named by its account and client order id too.`
          : `There is no placement of account ${name} with the client order id ${clientOrderId}.`,
      )
    }
    const fields = isTombstone(found) ? describeTombstone(found) : describePlacement(found)
    const audit = (await store.readAudit(found.opId)).map(toAuditRow)
    return `${toList(fields)}\n\n${toTable(audit)}`
  })
}

/** The decision of an operator about a placement. */
export interface Resolution {
  opId: string
  /** The order at the broker; null if the placement was never placed. */
  orderId: string | null
  /** The name of the person who decides. */
  by: string
}

/** Resolves a placement whose outcome is unknown, and returns a report. Throws OperatorError if nothing was changed. */
export async function resolvePlacement(env: Env, { opId, orderId, by }: Resolution): Promise<string> {
  if (!/^[^\p{C}]{1,100}$/u.test(by)) throw new OperatorError('--by takes a name of at most 100 characters.')
  return await withStore(env, async (store) => {
    const { found, resolved } = await decide(store, { opId, orderId, by })
    const candidates = found.evidence.candidates ?? []
    return [
      `Placement ${opId} was ${found.state} and is ${resolved.state} now, ` +
        `${orderId === null ? 'without an order' : `order ${orderId}`}, on the word of ${by}.`,
      ...(orderId !== null && candidates.length > 0 && !candidates.includes(orderId)
        ? [`The order is not one of the candidates: ${candidates.join(', ')}.`]
        : []),
      ...(orderId !== null && isCancelWanted(resolved)
        ? [
            'Its cancel was requested, and is sent when the service starts next. To have it sooner, cancel the order now.',
          ]
        : []),
    ].join('\n')
  })
}

/** Changes the record. If the service changes it at the same time, the later of the two fails and reads the new state. */
async function decide(store: Store, { opId, orderId, by }: Resolution) {
  const event: PlacementEvent = { type: 'resolved', orderId, by }
  for (let attempt = 1; ; attempt++) {
    const found = await store.read(opId)
    if (found === null) throw new OperatorError(`There is no placement ${opId}.`)
    const at = systemClock.now()
    const resolved = advance(found, event, at)?.placement
    if (resolved === undefined) throw toRefusal(found)
    if (orderId !== null) await checkOrder(store, found, orderId)
    const { type, ...detail } = event
    const entry = { principal: 'operator', from: found.state, to: resolved.state, detail: { event: type, ...detail } }
    if (await store.update(resolved, entry, at)) return { found, resolved }
    if (attempt === decisionsMax) throw new OperatorError(`Placement ${opId} changes all the time; try again.`)
  }
}

// Attempts, because each lookup of the service changes the record.
const decisionsMax = 5

function toRefusal({ opId, state, orderId, nextCheckAt }: Placement): OperatorError {
  const order = orderId === null ? '' : `, order ${orderId}`
  switch (state) {
    case 'RESERVED':
    case 'SENDING':
      return new OperatorError(
        `Placement ${opId} is ${state}: the service is about to know more, or will when it starts next. Nothing was changed.`,
      )
    case 'NOT_PLACED': {
      const watch = nextCheckAt === null ? '' : `; the next lookup is at ${toTime(nextCheckAt)}`
      return new OperatorError(`Placement ${opId} counts as not placed already${watch}. Nothing was changed.`)
    }
    case 'NOT_SENT':
    case 'ACCEPTED':
    case 'REJECTED':
      return new OperatorError(`Placement ${opId} is settled: ${state}${order}. Nothing was changed.`)
    case 'UNKNOWN':
    case 'AMBIGUOUS':
      return new OperatorError(`Placement ${opId} is still ${state}: that order belongs to another one by now.`)
    default:
      return state satisfies never
  }
}

async function checkOrder(store: Store, { broker, opId }: Placement, orderId: string): Promise<void> {
  if (!isOrderId(orderId) || brokerOf(orderId) !== broker) {
    throw new OperatorError(`${JSON.stringify(orderId)} cannot be an order of ${broker}. Nothing was changed.`)
  }
  const bound = await store.findByOrder(broker, orderId)
  if (bound === null || bound.opId === opId) return
  throw new OperatorError(
    `Order ${orderId} belongs to placement ${bound.opId} of account ${bound.accountId}, client order id ` +
      `${bound.clientOrderId}. Nothing was changed.`,
  )
}

// ---- tables and lists ---------------------------------------------------------------------------------------------------

function toRow(placement: Placement): Record<string, string> {
  const { opId, state, broker, accountId, clientOrderId, request, lastSentAt, nextCheckAt, evidence } = placement
  return {
    placement: opId,
    state,
    broker,
    account: accountId,
    'client order id': clientOrderId,
    order: toOrderLine(request),
    sent: toTime(lastSentAt),
    'next lookup': toTime(nextCheckAt),
    'cancel requested': isCancelWanted(placement) ? toTime(placement.cancelRequestedAt) : '',
    candidates: evidence.candidates?.join(' ') ?? '',
  }
}

function describePlacement(placement: Placement): Record<string, string> {
  const { opId, state, attempt, sends, broker, accountId, clientOrderId, request, orderId, foundBy } = placement
  const { outcome, evidence, preImage, cancelSettledAt } = placement
  return {
    placement: opId,
    state,
    broker,
    account: accountId,
    'client order id': clientOrderId,
    order: toOrderLine(request),
    "broker's order": orderId === null ? '' : `${orderId}, found by ${foundBy ?? 'nothing'}`,
    outcome: outcome === null ? '' : JSON.stringify(outcome),
    evidence: Object.keys(evidence).length === 0 ? '' : JSON.stringify(evidence),
    attempts: `${attempt}, sent ${sends} times`,
    created: toTime(placement.createdAt),
    'first sent': toTime(placement.firstSentAt),
    'last sent': toTime(placement.lastSentAt),
    'seen before':
      preImage === null ? '' : `${preImage.orderIds.length} orders${preImage.isComplete ? '' : ' or more'}`,
    'next lookup': toTime(placement.nextCheckAt),
    resolved: toTime(placement.resolvedAt),
    'cancel requested': toTime(placement.cancelRequestedAt),
    'cancel settled': toTime(cancelSettledAt),
  }
}

function describeTombstone(tombstone: Tombstone): Record<string, string> {
  return {
    placement: tombstone.opId,
    state: 'expired: this is what is left of it',
    broker: tombstone.broker,
    account: tombstone.accountId,
    'client order id': tombstone.clientOrderId,
    "broker's order": tombstone.orderId ?? '',
    created: toTime(tombstone.createdAt),
    resolved: toTime(tombstone.resolvedAt),
  }
}

function toAuditRow({ seq, at, principal, from, to, detail }: AuditRow): Record<string, string> {
  const change = from === null || from === to ? to : `${from} → ${to}`
  return { row: String(seq), at: toTime(at), who: principal, state: change, what: JSON.stringify(detail) }
}

/** The order in one line, such as `BUY 10 AAPL LIMIT 10.00 GTC`. */
function toOrderLine(order: NewOrder): string {
  const size = order.quantity ?? `for ${order.notional ?? '?'}`
  const prices = [
    order.limitPrice,
    order.stopPrice === null ? null : `stop ${order.stopPrice}`,
    order.trailPercent === null ? null : `trail ${order.trailPercent} %`,
    order.trailPrice === null ? null : `trail ${order.trailPrice}`,
  ].filter((price) => price !== null)
  return [order.side, size, order.symbol, order.type, ...prices, order.timeInForce].join(' ')
}

function isCancelWanted({ cancelRequestedAt, cancelSettledAt }: Placement): boolean {
  return cancelRequestedAt !== null && cancelSettledAt === null
}

function toTime(ms: number | null): string {
  return ms === null ? '' : new Date(ms).toISOString()
}
