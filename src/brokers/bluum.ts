// Bluum's trading API, accounts generation: its paths, credentials, JSON and error codes, and our vocabulary. Bluum
// declares no field of an order required, its pages contradict each other, and its ids are UUIDs on one page and
// `ord_…` on the next; so nothing is taken for granted here, and nothing of it is known outside.

import { LRUCache } from 'lru-cache'
import { compareDecimals, expandExponent, isDecimal } from '../decimal.ts'
import { compareInstants, parseInstant } from '../instant.ts'
import { brokerOf, isId, rankOf, stateOf } from '../orders/order.ts'
import type {
  CommissionType,
  Field,
  KnownOrderStatus,
  NewOrder,
  Order,
  OrderKey,
  OrderRejectionCode,
  OrderSide,
  OrderStatus,
  OrderType,
  TimeInForce,
} from '../orders/order.ts'
import { pageSizeMax, UpstreamError } from './broker.ts'
import type {
  Broker,
  BrokerCapabilities,
  BrokerCapability,
  Page,
  PageQuery,
  PlaceAnswer,
  ReadScope,
  Scan,
  ScanQuery,
} from './broker.ts'
import { createCalls } from './calls.ts'
import type { ReadCall } from './calls.ts'
import { createHttp } from './http.ts'
import type { Answer, Call } from './http.ts'
import { readListPage, createListMemory } from './list.ts'
import type { ListAnswer, ListRow } from './list.ts'
import { scanList } from './scan.ts'

/** Where Bluum is and who we are there. */
export interface BluumOptions {
  /** Base URL with its version, such as `https://api.bluumfinance.com/v1`. */
  url: string
  apiKey: string
  apiSecret: string
  /** The published rate of the key pair; 80 % of it is used. */
  requestsPerSecond: number
  /** Whether calls stop for a while when the broker keeps failing. */
  breaker: boolean
  /** What `certify` has seen this broker do; nothing unless told. */
  capabilities?: readonly BrokerCapability[]
}

// Milliseconds: the first byte of an answer, the whole attempt with its body, all attempts together.
const readOneTimes = {
  firstByteMs: 3_000,
  attemptMs: 4_000,
  callerMs: 8_000,
  backoffMs: { first: 100, longest: 1_000 },
}
const readPageTimes = {
  firstByteMs: 5_000,
  attemptMs: 8_000,
  callerMs: 12_000,
  backoffMs: { first: 200, longest: 2_000 },
}
// A placement is given up late: ending the wait for an order that left makes an outcome unknown that was not.
const placeTimes = { firstByteMs: null, attemptMs: 30_000 }
const cancelTimes = { firstByteMs: 5_000, attemptMs: 8_000 }

// Every order pays for the look before it, so that one is short. Where it does not show all that is there, an order
// that bears no client order id cannot be told from its likes, and a person has to.
const scanCallsMax = { preImage: 3, lookup: 20 }

// From so many orders of one account on, one list is asked before single reads: it answers most of them at once, and
// costs one call in vain where it answers none.
const batchMin = 3
// Calls for lists that may be in vain beside the first, for each order that is still missing.
const vainShare = 0.05

/** The adapter over connections of its own; the caller closes it. Sends nothing before it is asked. */
export function createBluum(options: BluumOptions): Broker {
  const calls = createCalls({
    http: createHttp({
      baseUrl: options.url,
      headers: {
        authorization: `Basic ${Buffer.from(`${options.apiKey}:${options.apiSecret}`).toString('base64')}`,
      },
    }),
    requestsPerSecond: options.requestsPerSecond,
    breaker: options.breaker,
  })
  const capabilities = toCapabilities(options.capabilities ?? [])
  const memory = createListMemory()
  // What never changes of an order: its account, and when it was submitted. Not the order itself, which does.
  const owners = new LRUCache<string, { accountId: string; at: string | null }>({ max: 50_000 })
  // When the oldest of the newest orders of an account was submitted, as many as one call lists. It only moves on.
  const recentSince = new LRUCache<string, string>({ max: 10_000 })

  // Whether the first call to the list of its account cannot show the order.
  function isKnownOld(id: string): boolean {
    const owner = owners.get(id)
    const since = owner && recentSince.get(owner.accountId)
    return since !== undefined && typeof owner?.at === 'string' && compareInstants(owner.at, since) < 0
  }

  async function read(call: ReadCall, scope: ReadScope): Promise<unknown> {
    return takeBody(await calls.read(call, scope))
  }

  // Bluum, "Read one order": the path carries no account, and an order of another tenant answers 404.
  async function readOrder(id: string, scope: ReadScope): Promise<Order | null> {
    try {
      const call: ReadCall = { path: path`/trading/orders/${id}`, lane: 'one', times: readOneTimes, tags: [id] }
      const order = parseOrder(await read(call, scope), null)
      if (order.id !== id) throw new UpstreamError('unreadable', 'Bluum answered with another order')
      owners.set(id, { accountId: order.account.id, at: rankOf(order).submittedAt })
      return { ...order, isPartial: false }
    } catch (error) {
      if (error instanceof UpstreamError && error.brokerCode === 'BLUM-404-001') return null
      throw error
    }
  }

  // Bluum has no batch read. Orders of one account are looked for in its list, the misses are read singly.
  async function readOrders(keys: readonly OrderKey[], scope: ReadScope): Promise<(Order | null | UpstreamError)[]> {
    const answers = new Map<OrderKey, Order | null | UpstreamError>()
    const groups = Map.groupBy(keys, (key) =>
      key.mustBeWhole ? null : (owners.get(key.id)?.accountId ?? key.accountId),
    )
    await Promise.all(
      [...groups].map(async ([accountId, group]) => {
        const ids = new Set(group.map((key) => key.id))
        const found: Map<string, Order | null | UpstreamError> =
          accountId !== null && isWorthList(ids) ? await findInList(accountId, ids, scope) : new Map()
        await Promise.all(
          [...ids]
            .filter((id) => !found.has(id))
            .map(async (id) => found.set(id, await readOrder(id, scope).catch(keepUpstreamError))),
        )
        for (const key of group) answers.set(key, found.get(key.id) ?? null)
      }),
    )
    return keys.map((key) => answers.get(key) ?? null)
  }

  // A few old orders are cheaper to read singly; many are worth a search, wherever they are.
  function isWorthList(ids: ReadonlySet<string>): boolean {
    const recent = [...ids].filter((id) => !isKnownOld(id))
    return recent.length >= batchMin || ids.size * vainShare >= 1
  }

  // Call by call, as long as those in vain are few beside the single reads that the next one may save. A row counts
  // whichever call shows it, also one that only looks where the list ends.
  async function findInList(
    accountId: string,
    ids: ReadonlySet<string>,
    scope: ReadScope,
  ): Promise<Map<string, Order | UpstreamError>> {
    const found = new Map<string, Order | UpstreamError>()
    const missing = new Set(ids)
    const list = toList(accountId, wholeList, scope)
    let vain = 0
    try {
      await readListPage(
        {
          ...list,
          after: null,
          first: 1,
          wantsMore: false,
          searches: true,
          async fetch(offset, limit) {
            const answer = await list.fetch(offset, limit)
            let hits = 0
            for (const { id, value } of answer.rows) {
              if (value instanceof UpstreamError || !missing.delete(id)) continue
              found.set(id, value)
              hits++
            }
            scope.tally.batched += hits
            if (hits < 2) vain++
            const oldest = answer.rows.at(-1)?.at
            const isNewest = offset === 0 && answer.rows.length === pageSizeMax && memory.direction === 'newestFirst'
            if (isNewest && typeof oldest === 'string') recentSince.set(accountId, oldest)
            return answer
          },
          // No row is for a page; what a call showed has been looked at.
          judge: () => (missing.size < batchMin - 1 || vain > missing.size * vainShare ? 'end' : 'drop'),
        },
        memory,
      )
    } catch (error) {
      const failure = keepUpstreamError(error)
      // A list that is refused says nothing of the orders, because the account was named by a caller; and one that
      // cannot be read may be the list's trouble alone. Any other trouble would meet each single read as well, at the
      // price of one call each.
      if (failure.kind !== 'refused' && failure.kind !== 'unreadable') for (const id of missing) found.set(id, failure)
    }
    return found
  }

  // Bluum, "List orders": limit and offset, one status a call, neither total nor next link, no documented order.
  function toList(accountId: string, filter: ListFilter, scope: ReadScope, lane: ReadCall['lane'] = 'list') {
    const listPath = path`/trading/accounts/${accountId}/orders`
    const words = toListFilter(filter)
    return {
      key: JSON.stringify([accountId, words]),
      limitMax: pageSizeMax,
      mayMove: filter.status !== null,
      async fetch(offset: number, limit: number): Promise<ListAnswer<Order | UpstreamError>> {
        const query = { ...words, limit: String(limit), offset: String(offset) }
        const body = await read({ path: listPath, query, lane, times: readPageTimes, tags: [accountId] }, scope)
        const list = parseList(body)
        const all = list.rows.map((row, index) => toListRow(row, accountId, offset + index))
        // A row that comes again takes no place in the list: counted, it would hide one behind it.
        const unique = [...new Map(all.map((row) => [row.id, row])).values()]
        const rows = unique.slice(0, limit)
        for (const { id, at, value } of rows) {
          if (!(value instanceof UpstreamError)) owners.set(id, { accountId, at })
        }
        // Rows that were cut off, or a full answer with repeats: the list goes on here, whatever the broker says.
        const isLonger = all.length > limit || (unique.length < all.length && all.length === limit)
        return { rows, hasMore: isLonger ? true : list.hasMore }
      },
    }
  }

  async function readPage(query: PageQuery, scope: ReadScope): Promise<Page> {
    const { status, symbol, side, submittedAfter, submittedBefore, olderThan } = query
    const page = await readListPage<Order | UpstreamError>(
      {
        ...toList(query.accountId, query, scope),
        after: query.after,
        first: query.first,
        wantsMore: query.wantsMore,
        searches: submittedAfter !== null || submittedBefore !== null,
        judge({ at, value: order }) {
          if (submittedAfter !== null && at !== null && compareInstants(at, submittedAfter) < 0) return 'end'
          if (submittedBefore !== null && at !== null && compareInstants(at, submittedBefore) >= 0) return 'drop'
          if (order instanceof UpstreamError) return 'take'
          if (olderThan !== null && at !== null) {
            const difference = compareInstants(at, olderThan.at)
            if (difference > 0 || (difference === 0 && olderThan.ids.includes(order.id))) return 'drop'
          }
          // A time that is not known counts as newest.
          if (submittedBefore !== null && at === null) return 'drop'
          // A broker that ignores the filter shows nothing that was not asked for.
          if (status !== null && order.status !== status) return 'drop'
          if (symbol !== null && order.symbol !== symbol) return 'drop'
          if (side !== null && order.side !== side) return 'drop'
          return 'take'
        },
      },
      memory,
    )
    return { ...page, rows: page.rows.map(({ row, position }) => ({ order: row.value, position })) }
  }

  async function scan({ accountId, symbol, side, since, purpose }: ScanQuery, scope: ReadScope): Promise<Scan> {
    const filter: ListFilter = { status: null, symbol, side: side !== null && side in sidesSent ? side : null }
    const { values, isComplete } = await scanList<Order>({
      fetch: toList(accountId, filter, scope, purpose).fetch,
      limit: pageSizeMax,
      callsMax: scanCallsMax[purpose],
      doubtsEnd: purpose === 'lookup',
      since,
      isNewestFirst: capabilities.listNewestFirst,
      // A side that cannot be told may be the one that is wanted.
      isWanted: (order) =>
        (filter.symbol === null || order.symbol === filter.symbol) &&
        (filter.side === null || order.side === filter.side || order.side === 'UNKNOWN'),
    })
    return { orders: values, isComplete }
  }

  return {
    id: 'BLUUM',
    capabilities,
    statuses: Object.values(statuses),
    sides: ['BUY', 'SELL'],

    orders: readOrders,
    pages: (queries, scope) => Promise.all(queries.map((query) => readPage(query, scope).catch(keepUpstreamError))),

    async accounts(scope) {
      const list = parseList(await read({ path: path`/accounts`, lane: 'list', times: readPageTimes, tags: [] }, scope))
      return list.rows.flatMap((row) => (isRecord(row) && isBluumId(row.id) ? [row.id] : []))
    },

    unsupported(order) {
      if (order.side in sidesSent) return []
      return [{ field: 'side', message: 'Bluum takes BUY and SELL only.' }]
    },

    scan,

    async place(order, { idempotencyKey, sendBy, beforeSend }) {
      const call: Call = {
        method: 'POST',
        path: path`/trading/accounts/${order.accountId}/orders`,
        headers: { 'idempotency-key': idempotencyKey },
        body: toRequest(order),
        ...placeTimes,
      }
      const answer = parsePlaceAnswer(takeBody(await calls.place(call, sendBy, [order.accountId], beforeSend)), order)
      owners.set(answer.orderId, { accountId: order.accountId, at: null })
      return answer
    },

    // Bluum, "Cancel an order": no body; the success status and the answer for a final order are not documented.
    async cancel({ id, account }, sendBy) {
      const cancelPath = path`/trading/accounts/${account.id}/orders/${id}/cancel`
      const call: Call = { method: 'POST', path: cancelPath, ...cancelTimes }
      const body = takeBody(await calls.cancel(call, sendBy, [id, account.id]))
      if (!isRecord(body) || body.id !== id) return null
      const canceled = readWhole(body, account.id)
      return canceled?.account.id === account.id ? canceled : null
    },

    close: (withinMs) => calls.close(withinMs),
  }
}

function toCapabilities(proven: readonly BrokerCapability[]): BrokerCapabilities {
  const has = (name: BrokerCapability): boolean => proven.includes(name)
  return Object.freeze({
    clientIdEcho: has('clientIdEcho'),
    clientIdUnique: has('clientIdUnique'),
    idempotencyKey: has('idempotencyKey'),
    lookupByClientId: has('lookupByClientId'),
    listNewestFirst: has('listNewestFirst'),
    readYourWrites: has('readYourWrites'),
    cancelIdempotent: has('cancelIdempotent'),
    cancelAsync: has('cancelAsync'),
    stream: has('stream'),
  })
}

// ---- paths ------------------------------------------------------------------------------------------------------

// The one place where a path is made. Ids have been checked at the door; whoever forgot that ends here, before a `..`
// turns one call into another under the broker's key.
function path(texts: TemplateStringsArray, ...ids: string[]): string {
  return texts.reduce((made, text, index) => {
    const id = ids[index - 1] ?? ''
    if (!isId(id)) throw new RangeError('not an id: refused as a part of a path')
    return made + encodeURIComponent(id) + text
  })
}

type ListFilter = Pick<PageQuery, 'status' | 'symbol' | 'side'>

const wholeList: ListFilter = { status: null, symbol: null, side: null }

function toListFilter({ status, symbol, side }: ListFilter): Record<string, string> {
  return {
    ...(status === null ? {} : { status: wordOf(statuses, status) }),
    ...(symbol === null ? {} : { symbol }),
    ...(side === null ? {} : { side: wordOf(sides, side) }),
  }
}

// ---- words ------------------------------------------------------------------------------------------------------

// Bluum, "OrderStatus": there is no expired state; an unfilled day order ends as canceled.
const statuses = {
  accepted: 'ACCEPTED',
  partially_filled: 'PARTIALLY_FILLED',
  filled: 'FILLED',
  canceled: 'CANCELED',
  rejected: 'REJECTED',
} as const satisfies Record<string, KnownOrderStatus>

const sides = { buy: 'BUY', sell: 'SELL' } as const satisfies Record<string, OrderSide>
const sidesSent: Partial<Record<OrderSide, string>> = { BUY: 'buy', SELL: 'sell' }
const types = {
  market: 'MARKET',
  limit: 'LIMIT',
  stop: 'STOP',
  stop_limit: 'STOP_LIMIT',
  trailing_stop: 'TRAILING_STOP',
} as const satisfies Record<string, OrderType>
const timesInForce = {
  day: 'DAY',
  gtc: 'GTC',
  opg: 'OPG',
  cls: 'CLS',
  ioc: 'IOC',
  fok: 'FOK',
} as const satisfies Record<string, TimeInForce>
const commissionTypes = { notional: 'NOTIONAL', qty: 'QTY', bps: 'BPS' } as const satisfies Record<
  string,
  CommissionType
>

function wordOf<Ours extends string>(table: Readonly<Record<string, Ours>>, ours: string): string {
  const found = Object.entries(table).find(([, value]) => value === ours)
  if (!found) throw new RangeError(`Bluum has no word for ${ours}`)
  return found[0]
}

function parseWord<Ours extends string>(table: Readonly<Record<string, Ours>>, word: unknown): Ours | 'UNKNOWN' {
  return (typeof word === 'string' && Object.hasOwn(table, word) ? table[word] : undefined) ?? 'UNKNOWN'
}

// ---- answers ----------------------------------------------------------------------------------------------------

type Body = Readonly<Record<string, unknown>>

function isRecord(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function keepUpstreamError(error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error
  throw error
}

/** The body of a success; throws what a refusal means. */
function takeBody(answer: Answer): unknown {
  if (answer.status < 400) return answer.body
  throw toRefusal(answer)
}

// A list is a bare array in the reference and `{object, data, has_more}` in the vendor's newer pages.
function parseList(body: unknown): { rows: readonly unknown[]; hasMore: boolean | null } {
  if (Array.isArray(body)) return { rows: body, hasMore: null }
  if (isRecord(body) && Array.isArray(body.data)) {
    return { rows: body.data, hasMore: typeof body.has_more === 'boolean' ? body.has_more : null }
  }
  throw new UpstreamError('unreadable', 'Bluum answered a list that is none')
}

// A row that cannot be read keeps its place: by its own id and time where it has them, else by where it stands.
function toListRow(body: unknown, accountId: string, offset: number): ListRow<Order | UpstreamError> {
  try {
    const order = parseOrder(body, accountId)
    if (order.account.id !== accountId) {
      throw new UpstreamError('unreadable', 'Bluum listed an order of another account')
    }
    return { id: order.id, at: rankOf(order).submittedAt, value: order }
  } catch (error) {
    const { id, submitted_at: time } = isRecord(body) ? body : {}
    return {
      id: typeof id === 'string' ? id : `row ${offset}`,
      at: typeof time === 'string' ? parseInstant(time) : null,
      value: keepUpstreamError(error),
    }
  }
}

/** One order. `accountId`: whose list or path it came from, null where the answer itself has to say. */
function parseOrder(body: unknown, accountId: string | null): Order {
  if (!isRecord(body)) throw new UpstreamError('unreadable', 'Bluum answered an order that is none')
  const id = requireId(body, 'id')
  const symbol = requireText(body, 'symbol')
  const owner = body.account_id === undefined || body.account_id === null ? accountId : requireId(body, 'account_id')
  if (owner === null) throw new UpstreamError('unreadable', 'Bluum answered an order without account_id')
  if (body.status === undefined || body.status === null) {
    throw new UpstreamError('unreadable', 'Bluum answered an order without status')
  }
  const status: OrderStatus = parseWord(statuses, body.status)
  const state = stateOf(status)
  return {
    id,
    broker: 'BLUUM',
    account: { id: owner, broker: 'BLUUM' },
    asset: { symbol },
    symbol,
    securityType: null,
    legs: [],
    currency: parseText(body, 'currency'),
    clientOrderId: parseText(body, 'client_order_id'),
    side: parseWord(sides, body.side),
    type: parseWord(types, body.type),
    timeInForce: parseWord(timesInForce, body.time_in_force),
    quantity: parseDecimal(body, 'qty'),
    notional: parseDecimal(body, 'notional'),
    limitPrice: parseDecimal(body, 'limit_price'),
    stopPrice: parseDecimal(body, 'stop_price'),
    trailPercent: parseDecimal(body, 'trail_percent'),
    trailPrice: parseDecimal(body, 'trail_price'),
    extendedHours: parseBoolean(body, 'extended_hours'),
    status,
    brokerStatus: typeof body.status === 'string' ? cleanText(body.status) : null,
    state,
    isCancelable: state !== 'CLOSED',
    filledQuantity: parseDecimal(body, 'filled_qty'),
    remainingQuantity: parseDecimal(body, 'remaining_qty'),
    averagePrice: zeroToNull(parseDecimal(body, 'average_price')),
    commission: parseDecimal(body, 'commission'),
    commissionType:
      body.commission_type === undefined || body.commission_type === null || body.commission_type === ''
        ? null
        : parseWord(commissionTypes, body.commission_type),
    submittedAt: parseTime(body, 'submitted_at'),
    filledAt: parseTime(body, 'filled_at'),
    canceledAt: parseTime(body, 'canceled_at'),
    rejectReason: parseText(body, 'reject_reason'),
    // Bluum's examples of lists leave out what they leave out together with extended_hours.
    isPartial: body.extended_hours === undefined,
  }
}

// What cannot be an id of ours could be shown and never be read or canceled, or would lead to another broker.
function isBluumId(id: unknown): id is string {
  return isId(id) && brokerOf(id) === 'BLUUM'
}

function requireId(body: Body, field: string): string {
  const value = body[field]
  if (isBluumId(value)) return value
  throw new UpstreamError('unreadable', `Bluum answered an order without a readable ${field}`)
}

function requireText(body: Body, field: string): string {
  const value = body[field]
  const text = typeof value === 'string' ? cleanText(value) : ''
  if (text !== '') return text
  throw new UpstreamError('unreadable', `Bluum answered an order without a readable ${field}`)
}

// What is absent, null or an empty string has no value: Bluum leaves fields without one out, or sends null.
function parseField<T>(body: Body, field: string, parse: (value: unknown) => T | null): Field<T> {
  const value = body[field]
  if (value === undefined || value === null || value === '') return null
  return parse(value) ?? new UpstreamError('unreadable', `Bluum answered an order whose ${field} cannot be read`)
}

function parseText(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? cleanText(value) : null))
}

// Numbers arrive as the text of their digits (http.ts), so a broker that drops the quotes loses nothing.
function parseDecimal(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? expandExponent(value) : null))
}

function parseBoolean(body: Body, field: string): Field<boolean> {
  return parseField(body, field, (value) => (typeof value === 'boolean' ? value : null))
}

function parseTime(body: Body, field: string): Field<string> {
  return parseField(body, field, (value) => (typeof value === 'string' ? parseInstant(value) : null))
}

// Bluum, "Order": average_price is '0.00' until the first fill. Nothing trades at zero.
function zeroToNull(price: Field<string>): Field<string> {
  return typeof price === 'string' && compareDecimals(price, '0') === 0 ? null : price
}

// A broker's free text: what a terminal or a log could take for a command goes, and so does what is too long to show.
function cleanText(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .slice(0, 200)
    .toWellFormed() // the cut may go through a pair of surrogates
}

// ---- placing ----------------------------------------------------------------------------------------------------

function toRequest(order: NewOrder): Record<string, unknown> {
  const body = {
    symbol: order.symbol,
    qty: order.quantity,
    notional: order.notional,
    side: wordOf(sides, order.side),
    type: wordOf(types, order.type),
    time_in_force: wordOf(timesInForce, order.timeInForce),
    limit_price: order.limitPrice,
    stop_price: order.stopPrice,
    trail_percent: order.trailPercent,
    trail_price: order.trailPrice,
    extended_hours: order.extendedHours,
    client_order_id: order.clientOrderId,
    commission: order.commission,
    commission_type: order.commissionType === null ? null : wordOf(commissionTypes, order.commissionType),
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

// Accepted only if the answer is about this order: an id, and whatever else it repeats equal to what was sent. An
// answer about another order says nothing about ours.
function parsePlaceAnswer(body: unknown, sent: NewOrder): PlaceAnswer {
  if (!isRecord(body) || !isBluumId(body.id)) {
    throw new UpstreamError('unreadable', 'Bluum answered a placement without an order id')
  }
  const request: Body = { account_id: sent.accountId, ...toRequest(sent) }
  for (const field of [...textsCompared, ...decimalsCompared]) {
    const answered = body[field]
    if (answered === undefined || answered === null || request[field] === undefined) continue
    const isDecimalField = decimalsCompared.includes(field)
    if (isDecimalField ? !equalDecimals(answered, request[field]) : answered !== request[field]) {
      throw new UpstreamError('unreadable', `Bluum answered a placement with another ${field}`)
    }
  }
  const order = readWhole(body, sent.accountId)
  return {
    orderId: body.id,
    status: order?.status ?? parseWord(statuses, body.status),
    order,
    rejectReason: typeof body.reject_reason === 'string' ? cleanText(body.reject_reason) || null : null,
  }
}

const textsCompared = ['account_id', 'symbol', 'side', 'type', 'client_order_id']
const decimalsCompared = ['qty', 'notional']

function equalDecimals(a: unknown, b: unknown): boolean {
  const left = typeof a === 'string' ? expandExponent(a) : null
  return left !== null && typeof b === 'string' && isDecimal(b) && compareDecimals(left, b) === 0
}

function readWhole(body: Body, accountId: string): Order | null {
  try {
    return parseOrder(body, accountId)
  } catch (error) {
    if (error instanceof UpstreamError) return null
    throw error
  }
}

// ---- refusals ---------------------------------------------------------------------------------------------------

// Bluum's refusals of an order, by its own codes; where a code is not listed, by its HTTP status. A code carries a
// status too (Bluum, "Error"), and one that says something else than no to this order is no refusal of it: a 422 with
// BLUM-409-001 still means that the order may exist.
const rejections: Readonly<Record<string, OrderRejectionCode>> = {
  'BLUM-403-002': 'ACCOUNT_NOT_APPROVED',
  'BLUM-403-004': 'ACCOUNT_RESTRICTED',
  'BLUM-404-001': 'ACCOUNT_NOT_FOUND',
  'BLUM-404-003': 'ASSET_NOT_FOUND',
  'BLUM-422-001': 'INSUFFICIENT_FUNDS',
  'BLUM-422-002': 'MARKET_CLOSED',
  'BLUM-422-003': 'ASSET_NOT_TRADABLE',
  'BLUM-422-004': 'INSUFFICIENT_POSITION',
  '400': 'INVALID_ORDER',
  '403': 'OTHER',
  '422': 'OTHER',
}

// These are about our key, our plan or our address, not about the order: it was not looked at.
const notAboutTheOrder = new Set(['BLUM-403-001', 'BLUM-403-003', 'BLUM-404-002', 'PRODUCT_NOT_ENABLED'])

function toRefusal(answer: Answer): UpstreamError {
  const { status } = answer
  const envelope = parseEnvelope(answer.body)
  const wait = answer.retryAfterMs === null ? {} : { retryAfterMs: answer.retryAfterMs }
  if (envelope === null) {
    // A proxy may answer 4xx after it has forwarded the request, so without Bluum's envelope a refusal proves nothing.
    const kind = status === 429 ? 'throttled' : 'unreadable'
    return new UpstreamError(kind, `HTTP ${status} without Bluum's error envelope`, {
      status,
      effect: 'unknown',
      ...wait,
    })
  }
  const { code, reason } = envelope
  const known = { status, brokerCode: code, reason }
  const text = `HTTP ${status} ${code}`
  if (status === 429) return new UpstreamError('throttled', text, { ...known, ...wait })
  // 409: the key or the order exists already, so an earlier attempt may have been taken in.
  if (status === 409) return new UpstreamError('refused', text, { ...known, effect: 'unknown' })
  if (status === 401 || status === 413 || status === 415 || notAboutTheOrder.has(code)) {
    return new UpstreamError('refused', text, known)
  }
  const codeStatus = /^BLUM-(\d{3})-/.exec(code)?.[1] ?? String(status)
  const rejection = rejections[code] ?? (rejections[codeStatus] && rejections[String(status)])
  if (rejection === undefined) return new UpstreamError('refused', text, { ...known, effect: 'unknown' })
  return new UpstreamError('refused', text, { ...known, rejection })
}

// Three shapes are in use: {code, message}, {error: {type, code, message, param}} and {status: 'error', code, message}.
// Only Bluum's own codes make one: other software in between also answers {"code": 403}.
function parseEnvelope(body: unknown): { code: string; reason: string } | null {
  if (!isRecord(body)) return null
  const inner = isRecord(body.error) ? body.error : body
  const { code, message } = inner
  if (typeof code !== 'string') return null
  if (!/^BLUM-\d{3}-\d{3}$/.test(code) && !(body.status === 'error' && /^[A-Z][A-Z_]{2,63}$/.test(code))) return null
  return { code, reason: typeof message === 'string' ? cleanText(message) : '' }
}
