// Aries' order API: its tokens, and its two lists of orders, which replace all other reads. The API has no read of one order and
// filters nothing, so every read goes through lists. ariesJson.ts parses them.
//
// After Aries' pages of 2026-06: "Authentication", "Active orders", "Order history", "Accounts". They publish no rate, and do not
// say whether the lists are consistent with each other.

import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { compareInstants, parseInstant, readInstant } from '../../domain/instant.ts'
import { compareNewestFirst, rankOf, stateOf } from '../../domain/order.ts'
import { isIdPart } from '../../domain/ids.ts'
import { accountName, accountOf, toAriesId } from './ids.ts'
import type { KnownOrderStatus, NewOrder, Order, OrderKey, OrderRank } from '../../domain/order.ts'
import {
  ariesFeatures,
  checkCancelAnswer,
  findUnsupportedByAries,
  isTokenRefused,
  parseList,
  parseNextCursor,
  parsePlaceAnswer,
  readOrder,
  takeBody,
  toCancelRequest,
  toRequest,
} from './ariesJson.ts'
import type { AriesList, AriesAccountField } from './ariesJson.ts'
import { isAskedFor, isUndatedFor, isSoughtBy, scanCallsMax, SearchEnded, toCapabilities } from '../broker.ts'
import { keepReadError, keepUpstreamError, UpstreamError } from '../../upstream/errors.ts'
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
} from '../broker.ts'
import type { ReadScope } from '../../upstream/readScope.ts'
import { createCalls } from '../../upstream/calls.ts'
import { readTimes, writeTimes } from '../../upstream/readCall.ts'
import type { ReadCall } from '../../upstream/readCall.ts'
import { isBody } from '../fields.ts'
import type { Body } from '../fields.ts'
import { createHttp, path } from '../../upstream/http.ts'
import type { Answer, Call } from '../../upstream/http.ts'
import { createCredentialWatch } from '../../upstream/notices.ts'
import type { OnNotice } from '../../upstream/notices.ts'
import { createTokens } from './tokens.ts'
import type { OAuthCredential } from './tokens.ts'

/** The fields of Aries' list of accounts that each hold an id of the account. */
export const ariesAccountIds = ['id', 'fdid', 'apex_account_id', 'sterling_account_id'] as const
type AriesAccountId = (typeof ariesAccountIds)[number]

/** The address and the credential of Aries. */
export interface AriesOptions {
  /** Base URL without a version, such as `https://api.aries.com`: the paths name theirs. */
  url: string
  /** The URL of the HTTP proxy to connect through; null or absent connects directly. */
  proxyUrl?: string | null
  credential: OAuthCredential
  accountField: AriesAccountField
  /** The id in the list of accounts that the order API takes; Aries does not document it. */
  tradingId: AriesAccountId
  /** No rate is published; 80 % of this one is used. */
  requestsPerSecond: number
  /** Whether calls stop for a while when the broker keeps failing. */
  breaker: boolean
  /** Capabilities that `certify` has observed; none by default. */
  capabilities?: readonly BrokerCapability[]
  /** Receives notices for the operator. */
  onNotice?: OnNotice
}

// ---- bounds -----------------------------------------------------------------------------------------------------

/** The most rows that a list answers with. */
const rowsMax = 500
// "At most 90 days after from." A second less, so that rounding to seconds stays within.
const windowMs = 90 * 86_400_000 - 1_000
// How far back the history of an account is read, in ms, if its opening date is not known.
const longAgoMs = 10 * 365 * 86_400_000
// Number of consecutive windows without an order that end one read of such an account. The cursor of a page continues there.
const emptyWindowsMax = 3
const dayMs = 86_400_000
// Calls that one read of a page, or of orders, may take.
const callsPerReadMax = 20
// So far the broker's clock may be ahead of ours: orders of its last minutes are in the list too.
const clockSkewMs = 300_000

/** The remaining calls of a read, and what it could not see. `isExceeded` is true if a bound ended it before the end. */
interface CallsLeft {
  left: number
  isExceeded: boolean
  /** Why the account's opening date could not be read; null if it was read or not needed. */
  openingFailure: UpstreamError | null
  /** The history is read from this instant on; null before the first window is read. */
  searchedSince: string | null
  /** A list came without a body or without its rows, which does not prove to a lookup that an order is absent. */
  isDoubtful: boolean
  /** `isDoubtful`, or a list came as a 204, which does not prove that one order read by its id is absent. */
  isUnsaid: boolean
}

function countCalls(most: number): CallsLeft {
  return {
    left: most,
    isExceeded: false,
    openingFailure: null,
    searchedSince: null,
    isDoubtful: false,
    isUnsaid: false,
  }
}

/** A row of a list. */
interface Row {
  /** As in our graph; of a row that cannot be read, what is known of it. */
  id: string
  /** When it was created, as `parseInstant` returns it; null where that cannot be read. */
  createdAt: string | null
  /** Its own creation time, or that of its neighbour in a list that is sorted by it. */
  at: string | null
  updatedAt: string | null
  value: Order | UpstreamError
}

/** Creates the adapter with connections of its own. Its creator closes it. Sends nothing by itself. */
export function createAries(options: AriesOptions): Broker {
  return new AriesAdapter(options)
}

class AriesAdapter implements Broker {
  readonly #accountField
  readonly #tradingId
  readonly #tokenHttp
  readonly #onNotice
  readonly #credential
  readonly #tokens
  readonly #calls
  // Facts of an order that never change: when it was created, and later that the active list no longer has it.
  readonly #known = new LRUCache<string, { at: string | null; isPast: boolean }>({
    maxSize: 50_000,
    sizeCalculation: () => 1,
  })
  // The columns of the list of accounts that were logged, because each is logged once.
  readonly #toldColumns = new Set<AriesAccountId | null>()
  #hasListed = false
  #hasToldRefused = false
  // By id in the list of accounts: its column, and when the account was opened.
  readonly #listed = new LRUCache<string, { column: AriesAccountId; openedAt: string | null }>({
    maxSize: 40_000,
    sizeCalculation: () => 1,
  })
  readonly id
  readonly capabilities
  readonly features
  readonly unsupported

  constructor(options: AriesOptions) {
    const { accountField, tradingId } = options
    this.#accountField = accountField
    this.#tradingId = tradingId
    const { url: baseUrl, proxyUrl = null } = options
    this.#tokenHttp = createHttp({ baseUrl, proxyUrl, headers: {}, writeConnections: 1 })
    this.#onNotice = options.onNotice ?? (() => {})
    this.#credential = createCredentialWatch(this.#onNotice)
    this.#tokens = createTokens({
      http: this.#tokenHttp,
      credential: options.credential,
      onNotice: this.#onNotice,
      onRefused: (reason) => this.#credential.refused(reason),
    })
    this.#calls = createCalls({
      onNotice: this.#onNotice,
      http: createHttp({ baseUrl, proxyUrl, headers: {} }),
      requestsPerSecond: options.requestsPerSecond,
      breaker: options.breaker,
    })
    this.id = 'ARIES'
    this.capabilities = toCapabilities(options.capabilities ?? [])
    this.features = ariesFeatures
    this.unsupported = findUnsupportedByAries
  }

  pages(queries: readonly PageQuery[], scope: ReadScope): Promise<(Page | UpstreamError)[]> {
    return Promise.all(queries.map((query) => this.#readPage(query, scope).catch(keepReadError(scope))))
  }

  accounts(scope: ReadScope): Promise<string[]> {
    return this.#readAccounts(scope)
  }

  // Its lists are filtered here, so one page reads all statuses.
  planLists(statuses: readonly KnownOrderStatus[]): (readonly KnownOrderStatus[])[] {
    return statuses.length === 0 ? [] : [statuses]
  }

  // Aries, "Place an order". It documents no idempotency key, so none is sent.
  async place(order: NewOrder, { sendBy, beforeSend }: PlaceOptions): Promise<PlaceAnswer> {
    const body = toRequest(order, this.#accountField)
    const call: Call = { method: 'POST', path: '/v1/orders', body, ...writeTimes.place }
    const send = (sent: Call): Promise<Answer> => this.#calls.place(sent, sendBy, [order.accountId], beforeSend)
    return parsePlaceAnswer(takeBody(await this.#write(call, send), 'place'), order)
  }

  // Aries, "Request order cancellation": the answer names no fill, so the order is read for it.
  async cancel(order: CancelTarget, sendBy: number): Promise<Order | null> {
    const body = toCancelRequest(order, this.#accountField)
    const call: Call = { method: 'POST', path: '/v1/orders/cancel', body, ...writeTimes.cancel }
    const send = (sent: Call): Promise<Answer> => this.#calls.cancel(sent, sendBy, [order.id, order.account.id])
    checkCancelAnswer(takeBody(await this.#write(call, send), 'cancel'), order)
    return null
  }

  async close(withinMs: number): Promise<void> {
    await Promise.all([this.#calls.close(withinMs), this.#tokenHttp.close(withinMs)])
  }

  // ---- calls ----------------------------------------------------------------------------------------------------

  // Aries, "Authentication": Bearer tokens of about an hour. A 401 is repeated once, with the next token.
  async #readList(call: ReadCall, name: 'orders' | 'accounts', scope: ReadScope): Promise<AriesList> {
    const token = await this.#tokens.current(scope.signal)
    const answer = await this.#calls.read(withToken(call, token), scope)
    const next = answer.status === 401 ? await this.#tokens.renew(token, scope.signal) : null
    const last = this.#note(next === null ? answer : await this.#calls.read(withToken(call, next), scope))
    return parseList(takeBody(last, 'read'), last.status, name)
  }

  /** Notes whether the answer accepts our credential. `answer` is the last one, because an expired token is replaced first. */
  #note(answer: Answer): Answer {
    if (answer.status === 401) this.#credential.refused('HTTP 401')
    if (answer.status < 400) this.#credential.accepted()
    return answer
  }

  async #write(call: Call, send: (call: Call) => Promise<Answer>): Promise<Answer> {
    const token = await this.#tokens.current()
    const answer = await send(withToken(call, token))
    // In Aries' own words, or a proxy may have said it after it had forwarded the order.
    if (!isTokenRefused(answer)) return this.#note(answer)
    // That no token is to be had says less than what the broker said.
    const next = await this.#tokens.renew(token).catch(() => null)
    return this.#note(next === null ? answer : await send(withToken(call, next)))
  }

  // ---- lists ----------------------------------------------------------------------------------------------------

  /** One page of a list, and the cursor of the next one; null behind the last. */
  async #readRows(
    call: Pick<ReadCall, 'path' | 'lane'> & { query: Record<string, string> },
    accountId: string,
    scope: ReadScope,
  ): Promise<Pick<AriesList, 'emptiness'> & { rows: Row[]; next: string | null }> {
    let list: AriesList
    try {
      list = await this.#readList({ ...call, times: readTimes.page, tags: [accountId] }, 'orders', scope)
    } catch (error) {
      if (isAccountRefused(error)) await this.#noteRefusedAccount(accountId, scope)
      throw error
    }
    const { rows, emptiness } = list
    return { rows: toRows(rows, accountId), next: parseNextCursor(list), emptiness }
  }

  /** Page by page behind `call`, each row as often as the broker shows it, to its end or to that of the calls. */
  async *#walk(
    call: Pick<ReadCall, 'path' | 'lane'> & { query: Record<string, string> },
    accountId: string,
    scope: ReadScope,
    counter: CallsLeft,
  ): AsyncGenerator<Row[], void> {
    for (let cursor: string | null = null; ;) {
      if (counter.left === 0) {
        counter.isExceeded = true
        return
      }
      counter.left--
      const query: Record<string, string> = cursor === null ? call.query : { ...call.query, cursor }
      const { rows, next, emptiness } = await this.#readRows({ ...call, query }, accountId, scope)
      if (emptiness === 'doubtful') counter.isDoubtful = true
      if (emptiness !== null) counter.isUnsaid = true
      yield rows
      if (next === null) return
      if (next === cursor) throw new UpstreamError('unreadable', 'Aries answered a list whose cursor does not move')
      cursor = next
    }
  }

  // Aries, "Active orders": all that are open, and what ended today, in no documented order.
  async #readActive(
    accountId: string,
    scope: ReadScope,
    { lane, counter, source }: { lane: ReadCall['lane']; counter: CallsLeft; source?: 'db' },
  ): Promise<Map<string, Row>> {
    const rows = new Map<string, Row>()
    const query = { limit: String(rowsMax), ...(source === undefined ? {} : { source }) }
    const activePath = path`/v2/accounts/${accountName(accountId)}/orders`
    for await (const page of this.#walk({ path: activePath, lane, query }, accountId, scope, counter)) {
      for (const row of page) {
        keepNewer(rows, row)
        this.#known.set(row.id, { at: row.createdAt, isPast: false })
      }
    }
    return rows
  }

  /**
   * Reads Aries' "Order history": by creation time, newest first, in windows of at most 90 days. The documents do not say
   * whether it includes the orders of the active list. It begins at `to` and ends at `from` or at the account's opening date;
   * both are rounded outwards to the second, because Aries may compare more digits than a row shows. Ends early and sets
   * `isExceeded` if no call is left, or after `emptyWindowsMax` empty windows of an account whose opening date is not known.
   */
  async *#walkHistory(
    accountId: string,
    scope: ReadScope,
    { from, to, limit, lane, counter }: HistoryQuery,
  ): AsyncGenerator<HistoryPart, void> {
    const historyPath = path`/v2/accounts/${accountName(accountId)}/orders/history`
    let end = Math.ceil(toMs(to) / 1_000) * 1_000
    let start = from === null ? -Infinity : Math.floor(toMs(from) / 1_000) * 1_000
    let oldest: string | null = null
    let isOpeningKnown = true
    let emptyWindows = 0
    for (let isFirst = true; start <= end; isFirst = false) {
      const windowStart = Math.max(end - windowMs, start)
      let isEmpty = true
      const query = { from: toText(windowStart), to: toText(end), limit: String(limit) }
      // Rows before the first one with a time were on an earlier page, because the list begins in its middle.
      let reached = isFirst ? null : toText(end)
      for await (const page of this.#walk({ path: historyPath, lane, query }, accountId, scope, counter)) {
        const rows = page.map((row) => ({ ...row, at: (reached = row.createdAt ?? reached) }))
        oldest = earlier(reached, oldest)
        if (rows.length > 0) isEmpty = false
        yield { rows, reached }
      }
      if (counter.isExceeded) return
      counter.searchedSince = toText(windowStart)
      yield { rows: [], reached: toText(windowStart) }
      // Read only now, because most orders that are queried are recent.
      if (isFirst && windowStart > start) {
        const opened = await this.#findStart(accountId, scope, { lane, counter, oldest })
        start = Math.max(start, opened.ms)
        isOpeningKnown = opened.isKnown
      }
      if (windowStart <= start) return
      emptyWindows = isEmpty ? emptyWindows + 1 : 0
      if (!isOpeningKnown && emptyWindows >= emptyWindowsMax) {
        counter.isExceeded = true
        return
      }
      end = windowStart
    }
  }

  /**
   * Returns the epoch ms from which on the account can have orders, rounded down to the second, and whether its opening date
   * is known. `oldest` is the creation time of the oldest order read; an opening date that is later is ignored.
   */
  async #findStart(
    accountId: string,
    scope: ReadScope,
    { lane, counter, oldest }: Pick<HistoryQuery, 'lane' | 'counter'> & { oldest: string | null },
  ): Promise<{ ms: number; isKnown: boolean }> {
    if (!this.#listed.has(accountId) && counter.left > 0) {
      counter.left--
      try {
        await this.#listAccounts(scope, lane)
        if (!this.#listed.has(accountId)) this.#noteColumn(null)
      } catch (error) {
        // The read goes on without the opening date, and may read more windows than it needs.
        counter.openingFailure = keepUpstreamError(error)
      }
    }
    const account = this.#listed.get(accountId)
    if (account && account.column !== this.#tradingId) this.#noteColumn(account.column)
    const opened = account?.openedAt ?? null
    // A day before: the clocks of two systems. A time that its orders contradict is not that of its opening.
    const openedMs = opened === null ? Infinity : toMs(opened) - dayMs
    const isKnown = openedMs <= (oldest === null ? Date.now() : toMs(oldest))
    const at = isKnown ? openedMs : Date.now() - longAgoMs
    return { ms: Math.floor(at / 1_000) * 1_000, isKnown }
  }

  // Aries, "Accounts". The documents do not say which of the ids an order takes, so the opening date is kept under each.
  async #listAccounts(scope: ReadScope, lane: ReadCall['lane']): Promise<Body[]> {
    const call: ReadCall = { path: '/v1/users/me/accounts', lane, times: readTimes.page, tags: [] }
    const { rows, emptiness } = await this.#readList(call, 'accounts', scope)
    this.#hasListed = emptiness === null
    const accounts = rows.filter(isBody)
    // The column of the setting comes last, so that it wins if two columns hold the same id.
    for (const column of [...ariesAccountIds.filter((name) => name !== this.#tradingId), this.#tradingId]) {
      for (const account of accounts) {
        const id = account[column]
        if (isIdPart(id)) this.#listed.set(toAriesId(id), { column, openedAt: readInstant(account['created_at']) })
      }
    }
    return accounts
  }

  async #readAccounts(scope: ReadScope): Promise<string[]> {
    const accounts = await this.#listAccounts(scope, 'list')
    const ids = new Set(accounts.flatMap(({ [this.#tradingId]: id }) => (isIdPart(id) ? [toAriesId(id)] : [])))
    // An empty list would hide that ARIES_TRADING_ID is wrong.
    if (ids.size === 0 && accounts.length > 0) {
      throw new UpstreamError('unreadable', `Aries lists accounts, and none of them has a readable ${this.#tradingId}`)
    }
    return [...ids]
  }

  // Logs once per column that a caller names an account by another column than ARIES_TRADING_ID.
  #noteColumn(column: AriesAccountId | null): void {
    if (this.#toldColumns.has(column)) return
    this.#toldColumns.add(column)
    this.#onNotice(
      column === null
        ? `callers name an account that Aries does not list under ${ariesAccountIds.join(', ')}, so the age of its oldest order is not known`
        : `ARIES_TRADING_ID is ${this.#tradingId}, and callers name an account by its ${column}: set ARIES_TRADING_ID=${column}`,
    )
  }

  // Logs once that the order API refuses the id that ARIES_TRADING_ID takes from the list of accounts. Ignores an account that
  // is not in the list, because that is a caller's mistake.
  async #noteRefusedAccount(accountId: string, scope: ReadScope): Promise<void> {
    if (this.#hasToldRefused) return
    if (!this.#hasListed) {
      // Reads the list only once, because it rarely changes and refusals may be frequent.
      this.#hasListed = true
      await this.#listAccounts(scope, 'list').catch(keepReadError(scope))
    }
    if (this.#listed.get(accountId)?.column !== this.#tradingId) return
    this.#hasToldRefused = true
    const others = ariesAccountIds.filter((column) => column !== this.#tradingId)
    this.#onNotice(
      `ARIES_TRADING_ID is ${this.#tradingId}, and Aries refuses requests for the orders of an account under that id: try another one (${others.join(', ')})`,
    )
  }

  // ---- orders by their ids ----------------------------------------------------------------------------------------
  async orders(keys: readonly OrderKey[], scope: ReadScope): Promise<(Order | null | UpstreamError)[]> {
    const ofAccounts = Map.groupBy(keys, ({ id }) => accountOf(id))
    const found = new Map<string, Order | null | UpstreamError>()
    await Promise.all(
      [...ofAccounts].map(async ([accountId, group]) => {
        // The id of an order names its account. If the reader named another one, the order is missing without a call.
        const asked = group.filter((key) => key.accountId === null || key.accountId === accountId)
        const ids = new Set(asked.map(({ id }) => id))
        if (ids.size > 0) await this.#findOrders(accountId, ids, found, scope)
      }),
    )
    return keys.map(({ id, accountId }) =>
      accountId === null || accountId === accountOf(id) ? (found.get(id) ?? null) : null,
    )
  }

  /** Looks for `ids` in the lists of their account until each is found, or cannot be there. */
  async #findOrders(
    accountId: string,
    ids: ReadonlySet<string>,
    found: Map<string, Order | null | UpstreamError>,
    scope: ReadScope,
  ): Promise<void> {
    const missing = new Set(ids)
    const counter = countCalls(callsPerReadMax)
    let hasNameless = false
    const take = (row: Row): void => {
      if (missing.delete(row.id)) found.set(row.id, row.value)
      if (row.id.startsWith(namelessPrefix)) hasNameless = true
    }
    const look = async (active: ReadonlyMap<string, Row> | null): Promise<void> => {
      const parts = this.#walkHistory(accountId, scope, {
        ...this.#toSpan(missing),
        limit: rowsMax,
        lane: 'read',
        counter,
      })
      for await (const { rows } of parts) {
        rows.forEach(take)
        if (active !== null) this.#notePast(rows, active)
        if (missing.size === 0) return
      }
      if (counter.isExceeded) throw counter.openingFailure ?? new SearchEnded(counter.searchedSince)
    }
    try {
      if ([...ids].every((id) => this.#known.get(id)?.isPast === true)) await look(null)
      if (missing.size > 0) {
        const active = await this.#readActive(accountId, scope, { lane: 'read', counter })
        for (const row of active.values()) take(row)
        if (missing.size > 0 && counter.isExceeded) {
          throw new UpstreamError('unreadable', 'the active orders of an account have no end')
        }
        if (missing.size > 0) await look(active)
      }
      if (missing.size > 0 && hasNameless) {
        throw new UpstreamError('unreadable', 'the order may be one whose clOrdId cannot be read')
      }
      if (missing.size > 0 && counter.isUnsaid) {
        throw new UpstreamError('unreadable', 'Aries answered a list without a body, so an order may be missing')
      }
      for (const id of missing) found.set(id, null)
    } catch (error) {
      const failure = keepReadError(scope)(error)
      for (const id of missing) found.set(id, failure)
    }
    scope.tally.batched += Math.max(0, ids.size - missing.size - 1)
  }

  // A final order that has left the active list never returns to it.
  #notePast(rows: readonly Row[], active: ReadonlyMap<string, Row>): void {
    for (const { id, createdAt, value } of rows) {
      if (active.has(id) || value instanceof UpstreamError || value.state !== 'CLOSED') continue
      this.#known.set(id, { at: createdAt, isPast: true })
    }
  }

  /** The span of time in which all of `ids` were created, as far as that is known. */
  #toSpan(ids: ReadonlySet<string>): { from: string | null; to: string } {
    const times = [...ids].map((id) => this.#known.get(id)?.at ?? null)
    const told = times.filter((at) => at !== null).toSorted(compareInstants)
    const [from] = told
    const to = told.at(-1)
    return from === undefined || to === undefined || told.length < times.length
      ? { from: null, to: soon() }
      : { from, to }
  }

  // ---- pages ------------------------------------------------------------------------------------------------------

  /**
   * Reads one page from both lists. The active list is read whole, because its sort order is not documented. The history is
   * read until none of its later rows can come before those of the page.
   */
  async #readPage(query: PageQuery, scope: ReadScope): Promise<Page> {
    const { accountId, statuses: wantedStatuses, first, wantsMore } = query
    const after = query.after === null ? null : parsePosition(query.after)
    const wanted = first + (wantsMore ? 1 : 0)
    const counter = countCalls(callsPerReadMax)
    const active = await this.#readActive(accountId, scope, { lane: 'list', counter })
    const rows = new Map(active)
    const mayBePast = wantedStatuses === null || wantedStatuses.some((status) => stateOf(status) === 'CLOSED')
    const isFiltered = wantedStatuses !== null || query.symbol !== null || query.side !== null
    // Nothing was created later than now, and a page would be spent on each few months until then.
    const to = earlier(earlier(after?.submittedAt ?? null, query.submittedBefore), soon())
    const walkFrom = (limit: number): AsyncGenerator<HistoryPart, void> =>
      this.#walkHistory(accountId, scope, { from: query.submittedAfter, to, limit, lane: 'list', counter })
    // A few more than are wanted, for those that the active list has too or that the last page gave.
    let limit = isFiltered ? rowsMax : Math.min(rowsMax, wanted + 2)
    let history = walkFrom(limit)
    let fullParts = 0

    let isAtEnd = !mayBePast
    let isSorted = true
    // Everything that was created later has been seen.
    let frontier: string | null = null
    for (;;) {
      const due = [...rows.values()]
        .filter((row) => isDue(row, query, after))
        .filter(({ at }) => isAtEnd || at === null || (frontier !== null && compareInstants(at, frontier) > 0))
        .toSorted((a, b) => compareNewestFirst(toRank(a), toRank(b)))
      if (isAtEnd || due.length >= wanted || counter.isExceeded) return toPage(due)
      const part = await history.next()
      if (part.done === true) {
        isAtEnd = !counter.isExceeded
        continue
      }
      this.#notePast(part.value.rows, active)
      if (part.value.rows.length >= limit && ++fullParts > 2 && limit < rowsMax) {
        // Many orders have the same second, and all of them are listed again on each page. A list keeps its limit to its end.
        limit = rowsMax
        history = walkFrom(limit)
        frontier = null
        continue
      }
      for (const row of part.value.rows) {
        // It should have come before: the list is in no order.
        const isLate = row.at !== null && frontier !== null && compareInstants(row.at, frontier) > 0
        if (isLate && !rows.has(row.id)) isSorted = false
        keepNewer(rows, row)
      }
      frontier = earlier(part.value.reached, frontier)
    }

    function toPage(due: readonly Row[]): Page {
      const shown = due.slice(0, first)
      const isUndated = shown.some(({ createdAt, value }) => isUndatedFor(query, createdAt, value))
      const isSearched = isSorted && !counter.isExceeded
      const isComplete = isSearched && !isUndated
      const given = shown.map((row) => ({ order: row.value, position: toPosition(toRank(row)) }))
      const hasMore = due.length > first ? true : isAtEnd && isSearched ? false : null
      const last = given.at(-1)?.position ?? query.after
      if (isSearched || due.length >= first || frontier === null)
        return { rows: given, hasMore, isComplete, position: last }
      // At the end of the search, all orders of that instant are still to come, except those that were given.
      const stop = { submittedAt: frontier, id: beforeAllIds }
      const isBehind = last !== null && compareNewestFirst(parsePosition(last), stop) > 0
      return { rows: given, hasMore, isComplete, position: isBehind ? last : toPosition(stop) }
    }
  }

  // ---- what became of a placement -----------------------------------------------------------------------------------
  async scan({ accountId, symbol, side, since, purpose }: ScanQuery, scope: ReadScope): Promise<Scan> {
    const counter = countCalls(scanCallsMax[purpose])
    // Aries filters nothing, so the second search of a lookup, which is made without filters to mistrust them, asks the
    // other of its two sources instead: none of them is said to be the fresher one.
    const source = symbol === null ? { source: 'db' as const } : {}
    // The active list first: an order that ends meanwhile is in the history then.
    const rows = await this.#readActive(accountId, scope, { lane: purpose, counter, ...source })
    const history = { from: since, to: soon(), limit: rowsMax, lane: purpose, counter }
    for await (const part of this.#walkHistory(accountId, scope, history)) {
      for (const row of part.rows) keepNewer(rows, row)
    }
    let isComplete = !counter.isExceeded && !counter.isDoubtful
    const orders: Order[] = []
    for (const { createdAt, value } of rows.values()) {
      if (value instanceof UpstreamError) {
        // A row without a readable time could be the order, unless the row itself says that it is too old.
        if (createdAt === null || compareInstants(createdAt, since) >= 0) isComplete = false
        continue
      }
      if (isSoughtBy({ symbol, side }, value)) orders.push(value)
    }
    return { orders: orders.toSorted((a, b) => compareNewestFirst(rankOf(a), rankOf(b))), isComplete }
  }
}

/** A page of the history. */
interface HistoryPart {
  rows: Row[]
  /** All orders that were created later have been read; null if that is not known. */
  reached: string | null
}

interface HistoryQuery {
  /** Instants, both inclusive; null: since the account was opened. */
  from: string | null
  to: string
  /** Rows a call. */
  limit: number
  lane: ReadCall['lane']
  counter: CallsLeft
}

/** Whether Aries answered that the account does not exist, or not for this credential. */
function isAccountRefused(error: unknown): boolean {
  if (!(error instanceof UpstreamError) || error.kind !== 'refused') return false
  return error.status === 403 || error.status === 404
}

function withToken<T extends ReadCall | Call>(call: T, token: string): T {
  return { ...call, headers: { ...call.headers, authorization: `Bearer ${token}` } }
}

// ---- times and places -------------------------------------------------------------------------------------------

/** Returns a time soon after now, rounded up to ten seconds, so that reads at about the same time share a call. */
function soon(): string {
  return toText(Math.ceil((Date.now() + clockSkewMs) / 10_000) * 10_000)
}

function toMs(instant: string): number {
  return Date.parse(instant)
}

function toText(ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z')
}

function earlier(a: string | null, b: string): string
function earlier(a: string | null, b: string | null): string | null
function earlier(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b
  return compareInstants(a, b) < 0 ? a : b
}

/** Ids sort descending within an instant, and none has this character. */
const beforeAllIds = '~'

function toPosition({ submittedAt, id }: OrderRank): string {
  return `${submittedAt ?? ''} ${id}`
}

function parsePosition(position: string): OrderRank {
  const [at = '', ...rest] = position.split(' ')
  const id = rest.join(' ')
  if (id === '' || (at !== '' && parseInstant(at) !== at)) throw new RangeError('not a position of a list')
  return { submittedAt: at === '' ? null : at, id }
}

function toRank({ at, id }: Row): OrderRank {
  return { submittedAt: at, id }
}

/** Whether a row belongs on a page after `after`. */
function isDue(row: Row, query: PageQuery, after: OrderRank | null): boolean {
  if (after !== null && compareNewestFirst(after, toRank(row)) >= 0) return false
  // Compares the row's own time and not its neighbour's, so that a row whose time cannot be read is shown.
  return isAskedFor({ ...row, submittedAt: row.createdAt }, query)
}

/** An order can be in both lists, or in two pages of one: what was changed later is what holds. */
function keepNewer(rows: Map<string, Row>, row: Row): void {
  const before = rows.get(row.id)
  if (before === undefined || isNewer(row, before)) rows.set(row.id, row)
}

function isNewer(row: Row, before: Row): boolean {
  if (row.value instanceof UpstreamError || before.value instanceof UpstreamError)
    return before.value instanceof UpstreamError
  if (row.updatedAt === null || before.updatedAt === null) return true
  const difference = compareInstants(row.updatedAt, before.updatedAt)
  // Times come in whole seconds, and in one of them an order can come and end, which it does once.
  return difference > 0 || (difference === 0 && row.value.state === 'CLOSED' && before.value.state !== 'CLOSED')
}

// ---- answers ----------------------------------------------------------------------------------------------------

function toRows(bodies: readonly unknown[], accountId: string): Row[] {
  return bodies.map((body) => {
    const { createdAt: created, updatedAt, clOrdId } = isBody(body) ? body : {}
    const createdAt = readInstant(created)
    const id = isIdPart(clOrdId) ? toAriesId(accountName(accountId), clOrdId) : toNamelessId(body)
    return { id, createdAt, at: createdAt, updatedAt: readInstant(updatedAt), value: readOrder(body, accountId) }
  })
}

const namelessPrefix = 'row '

// The id does not depend on the page, because the row may move to another page and be in both lists.
function toNamelessId(body: unknown): string {
  return `${namelessPrefix}${createHash('sha256').update(JSON.stringify(body)).digest('base64url').slice(0, 16)}`
}
