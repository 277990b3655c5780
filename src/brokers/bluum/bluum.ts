// Bluum's trading API: credentials, JSON, error codes. dialects.ts holds the differences between its two generations. Bluum
// declares no field of an order required, its pages contradict each other, and its ids are UUIDs on one page and `ord_…` on the
// next, so every field is checked here.

import { LRUCache } from 'lru-cache'
import { compareDecimals } from '../../domain/decimal.ts'
import { compareInstants } from '../../domain/instant.ts'
import { isIdPart } from '../../domain/ids.ts'
import { rankOf, stateOf } from '../../domain/order.ts'
import type { KnownOrderStatus, NewOrder, Order, OrderKey, OrderStatus } from '../../domain/order.ts'
import {
  AccountNeeded,
  findUnsupported,
  isAskedFor,
  isUndatedFor,
  isSoughtBy,
  pageSizeMax,
  scanCallsMax,
  toCapabilities,
} from '../broker.ts'
import { keepReadError, keepUpstreamError, ReadEnded, UpstreamError } from '../../upstream/errors.ts'
import type {
  Broker,
  BrokerCapability,
  CancelTarget,
  Page,
  PageQuery,
  PlaceAnswer,
  PlaceOptions,
  Scan,
  ScanQuery,
  Unsupported,
} from '../broker.ts'
import type { ReadScope } from '../../upstream/readScope.ts'
import { createCalls } from '../../upstream/calls.ts'
import { readTimes, writeTimes } from '../../upstream/readCall.ts'
import type { ReadCall } from '../../upstream/readCall.ts'
import {
  dialects,
  noSuchResource,
  notAboutTheOrder,
  rejections,
  sides,
  timesInForce,
  types,
  typesInDoubt,
} from './dialects.ts'
import type { BluumApi, Dialect, StatusFilter } from './dialects.ts'
import {
  cleanText,
  equalDecimals,
  isBody,
  parseBoolean,
  parseDecimal,
  parseOptionalWord,
  parseText,
  parseTime,
  requireText,
  wordOf,
  zeroToNull,
} from '../fields.ts'
import type { Body } from '../fields.ts'
import { createHttp } from '../../upstream/http.ts'
import { createCredentialWatch } from '../../upstream/notices.ts'
import type { OnNotice } from '../../upstream/notices.ts'
import type { Answer, Call } from '../../upstream/http.ts'
import { readListPage, createListMemory } from '../offsetList.ts'
import type { ListAnswer, ListRow } from '../offsetList.ts'
import { PageCap } from '../pageCap.ts'
import { scanList } from '../offsetScan.ts'
import { parseStatus, parseWord } from '../words.ts'

/** The address and the credential of Bluum. */
export interface BluumOptions {
  /** Base URL with its version, such as `https://api.bluumfinance.com/v1`. */
  url: string
  /** The URL of the HTTP proxy to connect through; null or absent connects directly. */
  proxyUrl?: string | null
  apiKey: string
  apiSecret: string
  /** The generation of the API; `accounts` by default. */
  api?: BluumApi
  /** The published rate of the key pair; 80 % of it is used. */
  requestsPerSecond: number
  /** Whether calls stop for a while when the broker keeps failing. */
  breaker: boolean
  /** Capabilities that `certify` has observed; none by default. */
  capabilities?: readonly BrokerCapability[]
  /**
   * Returns the account of an order from our records; null if they have none. A failure counts as null. Called if neither the
   * reader nor an earlier answer names the account, and the read needs it or may use its list.
   */
  findAccount?: (orderId: string) => Promise<string | null>
  /** Whether an id has the form of another broker's ids. Bluum's own ids pass as they are, so such an id would lead there. */
  isForeignId?: (id: string) => boolean
  /** Receives notices for the operator. */
  onNotice?: OnNotice
}

// Minimum orders of one account that are read from its list first. The list answers most of them in one call; if it has none,
// that call is wasted.
const batchMin = 3
// Wasted list calls allowed after the first, per order that is still missing.
const vainShare = 0.05

// Error codes that refuse the key for every request, like status 401. This one: production access is not granted.
const keyRefusals: ReadonlySet<string> = new Set(['BLUM-403-003'])

// Maximum single reads per operation and account after the account's list has failed: enough for the details that a page
// shows, and few for a broker in trouble.
const singlesMax = 10
// Share of the deadline that the list may use. The rest is left for single reads.
const listShare = 0.75
// Minimum time left for a single read, in ms; an answer is not expected in less.
const usefulMs = 100

// A list of accounts longer than so many calls is not followed to its end.
const accountCallsMax = 50

/** Creates the adapter with connections of its own. Its creator closes it. Sends nothing by itself. */
export function createBluum(options: BluumOptions): Broker {
  return new BluumAdapter(options)
}

class BluumAdapter implements Broker {
  readonly #options: BluumOptions
  readonly #dialect: Dialect
  readonly #onNotice
  readonly #credential
  readonly #calls
  readonly capabilities
  // Lists of orders and of accounts may have different caps.
  readonly #memory
  readonly #accountPages
  // Facts of an order that never change: its account, and when it was submitted. Each counts 1, because `max` would reserve room
  // for all of them at once.
  readonly #owners = new LRUCache<string, { accountId: string; at: string | null }>({
    maxSize: 50_000,
    sizeCalculation: () => 1,
  })
  // By operation and account: the single reads left after the account's list has failed.
  readonly #singlesLeft = new WeakMap<ReadScope, Map<string, number>>()
  // When the oldest of the newest orders of an account was submitted, as many as one call lists. It only moves on.
  readonly #recentSince = new LRUCache<string, string>({ maxSize: 10_000, sizeCalculation: () => 1 })
  readonly id
  readonly features

  constructor(options: BluumOptions) {
    this.#options = options
    this.#dialect = { ...dialects[options.api ?? 'accounts'], isForeignId: options.isForeignId ?? (() => false) }
    this.#onNotice = options.onNotice ?? (() => {})
    this.#credential = createCredentialWatch(this.#onNotice)
    this.#calls = createCalls({
      onNotice: this.#onNotice,
      http: createHttp({
        baseUrl: options.url,
        proxyUrl: options.proxyUrl ?? null,
        headers: {
          authorization: `Basic ${Buffer.from(`${options.apiKey}:${options.apiSecret}`).toString('base64')}`,
        },
      }),
      requestsPerSecond: options.requestsPerSecond,
      breaker: options.breaker,
    })
    this.capabilities = toCapabilities(options.capabilities ?? [])
    this.#memory = createListMemory(this.#noteCap('order'))
    this.#accountPages = new PageCap(this.#noteCap('account'))
    this.id = 'BLUUM'
    this.features = this.#dialect.features
  }

  pages(queries: readonly PageQuery[], scope: ReadScope): Promise<(Page | UpstreamError)[]> {
    return Promise.all(queries.map((query) => this.#readPage(query, scope).catch(keepReadError(scope))))
  }

  unsupported(order: NewOrder): Unsupported[] {
    return findUnsupported(this.#dialect.features, order)
  }

  planLists(statuses: readonly KnownOrderStatus[]): (readonly KnownOrderStatus[])[] {
    return [...Map.groupBy(statuses, (status) => toStatusFilter([status], this.#dialect).word).values()]
  }

  async place(order: NewOrder, { idempotencyKey, sendBy, beforeSend }: PlaceOptions): Promise<PlaceAnswer> {
    const call: Call = {
      method: 'POST',
      path: this.#dialect.paths.orders(order.accountId),
      headers: { 'idempotency-key': idempotencyKey },
      body: toRequest(order, this.#dialect),
      ...writeTimes.place,
    }
    const body = takeBody(
      await this.#watch(this.#calls.place(call, sendBy, [order.accountId], beforeSend)),
      this.#dialect,
    )
    const answer = parsePlaceAnswer(body, order, this.#dialect)
    this.#owners.set(answer.orderId, { accountId: order.accountId, at: null })
    return answer
  }

  // Bluum, "Cancel an order": no body; the success status and the answer for a final order are not documented. The
  // newer generation confirms the request only, and shows the order as it still is.
  async cancel({ id, account }: CancelTarget, sendBy: number): Promise<Order | null> {
    const cancelPath = this.#dialect.paths.cancel(id, account.id)
    const call: Call = { method: 'POST', path: cancelPath, ...writeTimes.cancel }
    const body = takeBody(await this.#watch(this.#calls.cancel(call, sendBy, [id, account.id])), this.#dialect)
    if (!isBody(body) || body.id !== id) return null
    const canceled = readWhole(body, account.id, this.#dialect)
    return canceled?.account.id === account.id ? canceled : null
  }

  close(withinMs: number): Promise<void> {
    return this.#calls.close(withinMs)
  }

  #noteCap(list: string) {
    return (rows: number) => {
      this.#onNotice(`Bluum caps the pages of its ${list} lists at ${rows} rows, even if limit is larger`)
    }
  }

  // Whether the first call to the list of its account cannot show the order.
  #isKnownOld(id: string): boolean {
    const owner = this.#owners.get(id)
    const since = owner && this.#recentSince.get(owner.accountId)
    return since !== undefined && typeof owner?.at === 'string' && compareInstants(owner.at, since) < 0
  }

  async #readList(call: ReadCall, scope: ReadScope): Promise<List> {
    const answer = await this.#watch(this.#calls.read(call, scope))
    return parseList(takeBody(answer, this.#dialect), answer.status)
  }

  /** Notes whether the answer accepts our key pair. */
  async #watch(asked: Promise<Answer>): Promise<Answer> {
    try {
      const answer = await asked
      if (answer.status < 400) this.#credential.accepted()
      const code = parseEnvelope(answer.body)?.code ?? ''
      if (answer.status === 401 || keyRefusals.has(code))
        this.#credential.refused(`HTTP ${answer.status} ${code}`.trim())
      return answer
    } catch (error) {
      if (error instanceof UpstreamError && error.status === 401) this.#credential.refused('HTTP 401')
      throw error
    }
  }

  // Bluum, "Read one order": an order of another tenant, or account, answers 404.
  async #readOrder(id: string, accountId: string | null, scope: ReadScope): Promise<Order | null> {
    const orderPath = this.#dialect.paths.order(id, accountId)
    if (orderPath === null) throw new AccountNeeded()
    try {
      const call: ReadCall = { path: orderPath, lane: 'read', times: readTimes.one, tags: [id] }
      const answer = await this.#watch(this.#calls.read(call, scope))
      if (isNoOrderId(answer, this.#dialect)) return null
      const body = takeBody(answer, this.#dialect)
      const order = parseOrder(body, accountId, this.#dialect)
      if (order.id !== id) throw new UpstreamError('unreadable', 'Bluum answered with another order')
      this.#owners.set(id, { accountId: order.account.id, at: readListedAt(body, this.#dialect) })
      return { ...order, isPartial: false }
    } catch (error) {
      if (error instanceof UpstreamError && error.brokerCode === noSuchResource) return null
      throw error
    }
  }

  // Bluum has no batch read. Orders of one account are read from its list, and those that it lacks one by one.
  async orders(keys: readonly OrderKey[], scope: ReadScope): Promise<(Order | null | UpstreamError)[]> {
    const answers = new Map<OrderKey, Order | null | UpstreamError>()
    const { accountOf, isHearsay } = await this.#findAccounts(keys)
    const groups = Map.groupBy(keys, (key) => `${key.mustBeWhole} ${accountOf(key)}`)
    await Promise.all(
      [...groups.values()].map(async (group) => {
        const [first] = group
        if (first === undefined) return
        const accountId = accountOf(first)
        const ids = new Set(group.map((key) => key.id))
        const isListed = !first.mustBeWhole && accountId !== null && this.#isWorthList(ids)
        const { found, failure } = isListed
          ? await this.#findInList(accountId, ids, scope)
          : { found: new Map<string, Order | null | UpstreamError>(), failure: null }
        const missing = [...ids].filter((id) => !found.has(id))
        const singleMax =
          failure === null || accountId === null
            ? Infinity
            : this.#takeSingles(failure, accountId, missing.length, scope)
        await Promise.all(
          missing.map(async (id, index) => {
            const isRead = failure === null || index < singleMax
            found.set(id, isRead ? await this.#readOrder(id, accountId, scope).catch(keepReadError(scope)) : failure)
          }),
        )
        for (const key of group) {
          const answer = found.get(key.id) ?? null
          // The account came from another key of the request, so "no such order" does not answer a key without an account.
          answers.set(key, answer === null && isHearsay.has(key) ? new AccountNeeded() : answer)
        }
      }),
    )
    return keys.map((key) => answers.get(key) ?? null)
  }

  /** Returns how many of `wanted` single reads may replace a list that failed, and counts them. */
  #takeSingles(failure: UpstreamError, accountId: string, wanted: number, scope: ReadScope): number {
    if (!isOfListAlone(failure) || scope.deadline - Date.now() < usefulMs) return 0
    const left = this.#singlesLeft.get(scope) ?? new Map<string, number>()
    this.#singlesLeft.set(scope, left)
    const before = left.get(accountId) ?? singlesMax
    const taken = Math.min(wanted, before)
    left.set(accountId, before - taken)
    return taken
  }

  /**
   * Returns the account of each key: from an earlier answer, from the key itself, from our records, or from another key with
   * the same order. The last source is hearsay if the broker reads an order only under its account.
   */
  async #findAccounts(keys: readonly OrderKey[]) {
    const told = new Map<OrderKey, string>()
    const isHearsay = new Set<OrderKey>()
    // Our own records cost no call, and a list that they lead to spares one for each order.
    const isNeeded = keys.length >= batchMin || this.#dialect.features.readsOne === 'underAccount'
    const said = new Map(keys.flatMap(({ id, accountId }) => (accountId === null ? [] : [[id, accountId]])))
    await Promise.all(
      keys.map(async (key) => {
        const known =
          this.#owners.get(key.id)?.accountId ?? key.accountId ?? (isNeeded ? await this.#findRecorded(key.id) : null)
        const accountId = known ?? said.get(key.id)
        if (accountId !== undefined) told.set(key, accountId)
        if (known === null && this.#dialect.paths.order(key.id, null) === null) isHearsay.add(key)
      }),
    )
    return { accountOf: (key: OrderKey) => told.get(key) ?? null, isHearsay }
  }

  async #findRecorded(id: string): Promise<string | null> {
    return (await this.#options.findAccount?.(id).catch(() => null)) ?? null
  }

  // A few old orders are cheaper to read one by one; many are worth a search of the list.
  #isWorthList(ids: ReadonlySet<string>): boolean {
    const recent = [...ids].filter((id) => !this.#isKnownOld(id))
    return recent.length >= batchMin || ids.size * vainShare >= 1
  }

  // Reads the list call by call, while wasted calls are few compared with the single reads that the next call may save. A row
  // counts even if its call only searches for the end of the list.
  async #findInList(
    accountId: string,
    ids: ReadonlySet<string>,
    scope: ReadScope,
  ): Promise<{ found: Map<string, Order | null | UpstreamError>; failure: UpstreamError | null }> {
    const found = new Map<string, Order | null | UpstreamError>()
    const missing = new Set(ids)
    const now = Date.now()
    const deadline = now + (scope.deadline - now) * listShare
    const list = this.#toList(accountId, wholeList, { ...scope, deadline })
    let vain = 0
    try {
      await readListPage(
        {
          ...list,
          after: null,
          first: 1,
          wantsMore: false,
          searches: true,
          fetch: async (offset, limit) => {
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
            const isNewest =
              offset === 0 &&
              this.#memory.cap.isFull(answer.rows.length, pageSizeMax) &&
              this.#memory.direction === 'newestFirst'
            if (isNewest && typeof oldest === 'string') this.#recentSince.set(accountId, oldest)
            return answer
          },
          // No row is for a page, because the rows of each call were checked above.
          judge: () => (missing.size < batchMin - 1 || vain > missing.size * vainShare ? 'end' : 'drop'),
        },
        this.#memory,
      )
    } catch (error) {
      const failure = keepReadError(scope)(error)
      // A refused list proves nothing about the orders, because a caller may have named a wrong account. If the list cannot be
      // parsed, each order can still be read by its id.
      return { found, failure: failure.kind === 'refused' || failure.kind === 'unreadable' ? null : failure }
    }
    return { found, failure: null }
  }

  // Bluum, "List orders": limit and offset, one word for the status, neither total nor next link, no documented order.
  #toList(accountId: string, filter: ListFilter, scope: ReadScope, lane: ReadCall['lane'] = 'list') {
    const listPath = this.#dialect.paths.orders(accountId)
    const words = toListFilter(filter)
    return {
      key: JSON.stringify([accountId, words]),
      limitMax: pageSizeMax,
      mayMove: filter.status !== null,
      fetch: async (offset: number, limit: number): Promise<ListAnswer<Order | UpstreamError>> => {
        const query = { ...words, limit: String(limit), offset: String(offset) }
        const call: ReadCall = { path: listPath, query, lane, times: readTimes.page, tags: [accountId] }
        const list = await this.#readList(call, scope)
        const all = list.rows.map((row, index) => toListRow(row, accountId, offset + index, this.#dialect))
        // A row that comes again takes no place in the list: counted, it would hide one behind it.
        const unique = [...new Map(all.map((row) => [row.id, row])).values()]
        const rows = unique.slice(0, limit)
        for (const { id, at, value } of rows) {
          if (!(value instanceof UpstreamError)) this.#owners.set(id, { accountId, at })
        }
        // If rows were cut off, or a full answer has repeats, the list goes on here, also if the broker says otherwise.
        const isLonger = all.length > limit || (unique.length < all.length && all.length === limit)
        return { rows, sent: all.length, hasMore: isLonger ? true : list.hasMore, isDoubtful: list.isDoubtful }
      },
    }
  }

  async #readPage(query: PageQuery, scope: ReadScope): Promise<Page> {
    const { symbol, side, submittedAfter, submittedBefore } = query
    const status = query.statuses && toStatusFilter(query.statuses, this.#dialect)
    // No row that is listed from here on can have been submitted in time.
    const listedAfter = submittedAfter === null ? null : toEarlier(submittedAfter, this.#dialect.submittedLaterMs)
    const page = await readListPage<Order | UpstreamError>(
      {
        ...this.#toList(query.accountId, { status, symbol, side }, scope),
        after: query.after,
        first: query.first,
        wantsMore: query.wantsMore,
        searches:
          submittedAfter !== null ||
          submittedBefore !== null ||
          status?.isGroup === true ||
          (symbol !== null && !isSentAsFilter(symbol)),
        judge(row) {
          const { at, value } = row
          if (listedAfter !== null && at !== null && compareInstants(at, listedAfter) < 0) return 'end'
          return isAskedFor({ ...row, submittedAt: toSubmittedAt(at, value) }, query) ? 'take' : 'drop'
        },
      },
      this.#memory,
    )
    const isUndated = page.rows.some(({ row }) => isUndatedFor(query, toSubmittedAt(row.at, row.value), row.value))
    const rows = page.rows.map(({ row, position }) => ({ order: row.value, position }))
    return { ...page, rows, isComplete: page.isComplete && !isUndated }
  }

  async scan({ accountId, symbol, side, since, purpose }: ScanQuery, scope: ReadScope): Promise<Scan> {
    const filter: ListFilter = {
      status: null,
      symbol,
      side: side !== null && this.#dialect.features.sides.includes(side) ? side : null,
    }
    const { key, fetch } = this.#toList(accountId, filter, scope, purpose)
    const { values, isComplete } = await scanList<Order>({
      key,
      fetch,
      cap: this.#memory.cap,
      limit: pageSizeMax,
      callsMax: scanCallsMax[purpose],
      doubtsEnd: purpose === 'lookup',
      since,
      isNewestFirst: this.capabilities.listNewestFirst,
      isWanted: (order) => isSoughtBy(filter, order),
    })
    return { orders: values, isComplete }
  }

  async accounts(scope: ReadScope): Promise<string[]> {
    const ids = new Set<string>()
    // Rows of a short page that may be cut; the next call reads what follows it.
    let doubtful: number | null = null
    for (let call = 1, offset = 0; call <= accountCallsMax; call++) {
      const limit = this.#accountPages.toLimit(pageSizeMax)
      const query = { limit: String(limit), offset: String(offset) }
      const page: ReadCall = { path: this.#dialect.paths.accounts, lane: 'list', times: readTimes.page, tags: [] }
      const list = await this.#readList(this.#dialect.pagesAccounts ? { ...page, query } : page, scope)
      const before = ids.size
      for (const row of list.rows) if (isBody(row) && isBluumId(row.id, this.#dialect)) ids.add(row.id)
      if (!this.#dialect.pagesAccounts) return [...ids]
      if (doubtful !== null && ids.size > before) this.#accountPages.learn(doubtful)
      const { length } = list.rows
      const verdict = this.#accountPages.judge({ rows: length, limit, hasMore: list.hasMore })
      const isAllKnown = doubtful !== null && ids.size === before && list.hasMore === null
      if (verdict === 'end' || isAllKnown) return [...ids]
      doubtful = verdict === 'doubt' ? length : null
      if (length === 0) break
      offset += length
    }
    throw new UpstreamError('unreadable', 'Bluum answered a list of accounts that does not end')
  }
}

/** Whether single reads may succeed although the list failed. */
function isOfListAlone(failure: UpstreamError): boolean {
  if (failure instanceof ReadEnded) return false
  switch (failure.kind) {
    case 'failed':
    case 'no_answer':
    case 'unreadable':
    case 'refused':
      return true
    // A used-up rate, an open breaker or an unreachable broker would fail each single read as well.
    case 'throttled':
    case 'not_sent':
      return false
    default:
      return failure.kind satisfies never
  }
}

// ---- lists ------------------------------------------------------------------------------------------------------

interface ListFilter extends Pick<PageQuery, 'symbol' | 'side'> {
  status: StatusFilter | null
}

// Sends only a symbol that looks like a ticker, because the broker may refuse any other. The adapter filters the rows anyway.
function isSentAsFilter(symbol: string | null): symbol is string {
  return symbol !== null && /^[A-Z0-9][A-Z0-9./-]{0,19}$/.test(symbol)
}

const wholeList: ListFilter = { status: null, symbol: null, side: null }

/** Returns the filter of the list that shows all `statuses`. Throws RangeError if no single list does. */
function toStatusFilter(statuses: readonly KnownOrderStatus[], { statusFilters }: Dialect): StatusFilter {
  const [filter, ...others] = statuses.map((status) => statusFilters[status])
  if (filter !== undefined && others.every((other) => other?.word === filter.word)) return filter
  throw new RangeError(`Bluum has no list of exactly these statuses: ${statuses.join(', ')}`)
}

function toListFilter({ status, symbol, side }: ListFilter): Record<string, string> {
  return {
    ...(status === null ? {} : { status: status.word }),
    ...(isSentAsFilter(symbol) ? { symbol } : {}),
    ...(side === null ? {} : { side: wordOf(sides, side) }),
  }
}

// ---- answers ----------------------------------------------------------------------------------------------------

/** The body of a success; throws what a refusal means. */
function takeBody(answer: Answer, dialect: Dialect): unknown {
  if (answer.status < 400) return answer.body
  throw toRefusal(answer, dialect)
}

interface List {
  rows: readonly unknown[]
  /** Whether more rows follow, as the broker states it; null if it does not. */
  hasMore: boolean | null
  /** The list is empty because the answer has no body or no rows; the broker did not state that the account has no orders. */
  isDoubtful: boolean
}

// A list is a bare array in the reference and `{object, data, has_more}` in the vendor's newer pages. An empty one may also
// be null, an envelope with null or without rows, a 204 or an answer without a body.
function parseList(body: unknown, status: number): List {
  if (Array.isArray(body)) return { rows: body, hasMore: null, isDoubtful: false }
  if (body === undefined) return { rows: [], hasMore: false, isDoubtful: status !== 204 }
  if (body === null) return { rows: [], hasMore: false, isDoubtful: false }
  if (isBody(body)) {
    const hasMore = typeof body.has_more === 'boolean' ? body.has_more : null
    if (Array.isArray(body.data)) return { rows: body.data, hasMore, isDoubtful: false }
    const isNull = body.data === null || (body.data === undefined && body.orders === null)
    if (isNull) return { rows: [], hasMore: hasMore ?? false, isDoubtful: false }
    const hasNoRows = body.data === undefined && body.object === 'list'
    if (hasNoRows) return { rows: [], hasMore: hasMore ?? false, isDoubtful: true }
  }
  throw new UpstreamError('unreadable', 'Bluum answered something that is not a list')
}

// A row that cannot be read keeps its place in the list: by its own id and time if it has them, else by its index.
function toListRow(body: unknown, accountId: string, offset: number, dialect: Dialect): ListRow<Order | UpstreamError> {
  const at = readListedAt(body, dialect)
  try {
    const order = parseOrder(body, accountId, dialect)
    if (order.account.id !== accountId) {
      throw new UpstreamError('unreadable', 'Bluum listed an order of another account')
    }
    return { id: order.id, at, value: order }
  } catch (error) {
    const id = isBody(body) ? body.id : undefined
    return { id: typeof id === 'string' ? id : `row ${offset}`, at, value: keepUpstreamError(error) }
  }
}

function readListedAt(body: unknown, { readListedAt: read }: Dialect): string | null {
  return isBody(body) ? read(body) : null
}

/** Returns when the order was submitted; the time in its list row if the order cannot be read. */
function toSubmittedAt(listedAt: string | null, value: Order | UpstreamError): string | null {
  return value instanceof UpstreamError ? listedAt : rankOf(value).submittedAt
}

function toEarlier(instant: string, ms: number): string {
  return ms === 0 ? instant : new Date(Date.parse(instant) - ms).toISOString()
}

/** One order. `accountId`: whose list or path it came from, null where the answer itself has to say. */
function parseOrder(body: unknown, accountId: string | null, dialect: Dialect): Order {
  const { fields } = dialect
  if (!isBody(body)) throw new UpstreamError('unreadable', 'Bluum answered something that is not an order')
  refuseOtherDialect(body, fields)
  const id = requireId(body, 'id', dialect)
  const symbol = requireText(body, 'symbol')
  const told = body[fields.accountId]
  const owner = told === undefined || told === null ? accountId : requireId(body, fields.accountId, dialect)
  if (owner === null) throw new UpstreamError('unreadable', `Bluum answered an order without ${fields.accountId}`)
  if (body.status === undefined || body.status === null) {
    throw new UpstreamError('unreadable', 'Bluum answered an order without status')
  }
  const filledQuantity = parseDecimal(body, fields.filledQuantity)
  const hasFilled = typeof filledQuantity === 'string' && compareDecimals(filledQuantity, '0') > 0
  const onceFilled = hasFilled ? parseWord(dialect.statusesOnceFilled, body.status) : 'UNKNOWN'
  const status: OrderStatus = onceFilled === 'UNKNOWN' ? parseStatus(dialect.statuses, body.status) : onceFilled
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
    quantity: parseDecimal(body, fields.quantity),
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
    filledQuantity,
    remainingQuantity: parseDecimal(body, fields.remainingQuantity),
    averagePrice: zeroToNull(parseDecimal(body, 'average_price')),
    commission: parseDecimal(body, 'commission'),
    commissionType: parseOptionalWord(dialect.commissionTypes, body.commission_type),
    submittedAt: parseTime(body, 'submitted_at'),
    filledAt: parseTime(body, 'filled_at'),
    canceledAt: parseTime(body, fields.canceledAt),
    rejectReason: parseText(body, fields.rejectReason),
    // Bluum's examples of lists leave out what they leave out together with extended_hours.
    isPartial: body.extended_hours === undefined,
  }
}

// Read in the words of this generation, an order of the other generation would have no size. For a cash amount, which has one name
// in both, the filled part would be missing.
function refuseOtherDialect(body: Body, fields: Dialect['fields']): void {
  const sizes = ['quantity', 'filledQuantity', 'remainingQuantity'] as const
  const isOther = (dialect: Pick<Dialect, 'fields'>): boolean =>
    sizes.some((size) => body[fields[size]] === undefined && body[dialect.fields[size]] !== undefined)
  if (body[fields.quantity] !== undefined || !Object.values(dialects).some(isOther)) return
  throw new UpstreamError(
    'unreadable',
    'Bluum answered in the words of its other API: BLUUM_API may have to be changed',
  )
}

// An order with another id could be shown, but not read or canceled.
function isBluumId(id: unknown, { isForeignId }: Dialect): id is string {
  return isIdPart(id) && !isForeignId(id)
}

function requireId(body: Body, field: string, dialect: Dialect): string {
  const value = body[field]
  if (isBluumId(value, dialect)) return value
  throw new UpstreamError('unreadable', `Bluum answered an order without a readable ${field}`)
}

// ---- placing ----------------------------------------------------------------------------------------------------

function toRequest(order: NewOrder, { fields, commissionTypes }: Dialect): Record<string, unknown> {
  const body = {
    symbol: order.symbol,
    [fields.quantity]: order.quantity,
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

// Parses the answer to a placement. The caller has to judge whether it is about the order that was sent. Throws UpstreamError
// if the answer names another account.
function parsePlaceAnswer(body: unknown, sent: NewOrder, dialect: Dialect): PlaceAnswer {
  const { fields } = dialect
  if (!isBody(body) || !isBluumId(body.id, dialect)) {
    throw new UpstreamError('unreadable', 'Bluum answered a placement without an order id')
  }
  const account = body[fields.accountId]
  if (!isNothing(account) && account !== sent.accountId) {
    throw new UpstreamError('unreadable', `Bluum answered a placement with another ${fields.accountId}`)
  }
  const request: Body = toRequest(sent, dialect)
  const isShown = (field: string): boolean => !isNothing(body[field]) && request[field] !== undefined
  const decimals = [fields.quantity, 'notional', 'limit_price', 'stop_price', 'trail_percent', 'trail_price']
  const differing = decimals.filter((field) => isShown(field) && !equalDecimals(body[field], request[field]))
  if (isShown('symbol') && body.symbol !== sent.symbol) differing.push('symbol')
  if (isShown('side') && parseWord(sides, body.side) !== sent.side) differing.push('side')
  if (isShown('type') && parseWord(types, body.type) !== sent.type) differing.push('type')
  const order = readWhole(body, sent.accountId, dialect)
  const status = order?.status ?? parseStatus(dialect.statuses, body.status)
  const told = body[fields.rejectReason]
  const reason = typeof told === 'string' ? cleanText(told) || null : null
  const rejection = status === 'REJECTED' ? { code: 'OTHER' as const, brokerCode: null, reason } : null
  const shownId = body.client_order_id
  // A client order id that is not text counts as empty, which differs from the one that was sent.
  const clientOrderId = isNothing(shownId) ? null : typeof shownId === 'string' ? shownId : ''
  return { orderId: body.id, status, clientOrderId, order, differing, rejection }
}

/** Whether a field is missing or null. Empty text is a value here. */
function isNothing(value: unknown): value is undefined | null {
  return value === undefined || value === null
}

function readWhole(body: Body, accountId: string, dialect: Dialect): Order | null {
  try {
    return parseOrder(body, accountId, dialect)
  } catch (error) {
    if (error instanceof UpstreamError) return null
    throw error
  }
}

// ---- refusals ---------------------------------------------------------------------------------------------------

function toRefusal(answer: Answer, { paramsAbout }: Dialect): UpstreamError {
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
  const { code, type, param, reason } = envelope
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
  if (rejection === undefined || typesInDoubt.has(type))
    return new UpstreamError('refused', text, { ...known, effect: 'unknown' })
  if (status === 400 && paramsAbout[param] === 'account') {
    return new UpstreamError('refused', text, { ...known, rejection: 'ACCOUNT_NOT_FOUND' })
  }
  return new UpstreamError('refused', text, { ...known, rejection })
}

/** Whether the answer says that the id of the order in the path can be none, so that no order has it. */
function isNoOrderId({ status, body }: Answer, { paramsAbout }: Dialect): boolean {
  return status === 400 && paramsAbout[parseEnvelope(body)?.param ?? ''] === 'orderId'
}

interface Envelope {
  code: string
  /** Empty where the shape has none, as are the others. */
  type: string
  /** The field of the request or of its path that is refused. */
  param: string
  reason: string
}

// Three shapes are in use: {code, message}, {error: {type, code, message, param}} and {status: 'error', code, message}.
// Only Bluum's own codes make one: other software in between also answers {"code": 403}.
function parseEnvelope(body: unknown): Envelope | null {
  if (!isBody(body)) return null
  const inner = isBody(body.error) ? body.error : body
  const { code, message, type, param } = inner
  if (typeof code !== 'string') return null
  if (!/^BLUM-\d{3}-\d{3}$/.test(code) && !(body.status === 'error' && /^[A-Z][A-Z_]{2,63}$/.test(code))) return null
  return {
    code,
    type: typeof type === 'string' ? type : '',
    param: typeof param === 'string' ? param : '',
    reason: typeof message === 'string' ? cleanText(message) : '',
  }
}
