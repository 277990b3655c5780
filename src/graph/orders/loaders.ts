// The reads of one request. Equal reads under several aliases, in fragments and in entities share one call. Nothing is kept
// after the request, because orders change at any time.

import DataLoader from 'dataloader'
import { AccountNeeded, OrderWithheld } from '../../brokers/broker.ts'
import { keepUpstreamError, ReadEnded, UpstreamError } from '../../upstream/errors.ts'
import type { Broker, Brokers, Page, PageQuery } from '../../brokers/broker.ts'
import type { ReadScope } from '../../upstream/readScope.ts'
import { createInputError } from '../errors.ts'
import type { Caller } from '../caller.ts'
import { brokerOf, describeIds, isAccountId, isOrderId } from '../../brokers/registry.ts'
import type { BrokerId, Order, OrderKey, PartialField, TradingAccount } from '../../domain/order.ts'

/** The accounts of a caller, and the brokers that could not list theirs. */
export interface AccountList {
  accounts: TradingAccount[]
  failures: ReadonlyMap<BrokerId, UpstreamError>
}

type PartialOrder = Pick<Order, PartialField | 'id' | 'account'>

// Maximum list rows completed by single reads per operation. Without it, a page of 100 could cost 100 calls.
const completionsMax = 10

/**
 * The loaders of one request. They show nothing of other callers' accounts. Each method throws UpstreamError if a broker
 * cannot be read, and a GraphQLError if an id is malformed.
 */
export class Loaders {
  readonly #brokers: Brokers
  readonly #scope: ReadScope
  readonly #caller: Caller
  readonly #orders: DataLoader<OrderKey, Order | null, string>
  /** Orders from single reads only. */
  readonly #wholeOrders: DataLoader<OrderKey, Order | null, string>
  readonly #pages: DataLoader<PageQuery, Page, string>
  #accounts: Promise<AccountList> | null = null
  /** Ids of the list rows that were completed by a single read. */
  readonly #completed = new Set<string>()
  /** Ids that the operation asked for as single orders. */
  readonly #askedById = new Set<string>()

  constructor(brokers: Brokers, scope: ReadScope, caller: Caller) {
    this.#brokers = brokers
    this.#scope = scope
    this.#caller = caller
    const readOrders = (keys: readonly OrderKey[]) =>
      this.#readByBroker(keys, (broker, group) => broker.orders(group, scope))
    this.#orders = new DataLoader(readOrders, { cacheKeyFn: toKey })
    this.#wholeOrders = new DataLoader(readOrders, { cacheKeyFn: toKey })
    this.#pages = new DataLoader<PageQuery, Page, string>(
      (queries) => this.#readByBroker(mergeEqual(queries), (broker, group) => broker.pages(group, scope)),
      { cacheKeyFn: toKey },
    )
  }

  /**
   * Returns the order; null if the broker has no such order, if it belongs to another account than `accountId`, or if it is
   * not one of the caller's. `argument` names the id in messages.
   */
  async order(id: string, accountId: string | null, argument = 'id'): Promise<Order | null> {
    if (accountId !== null) this.#requireBrokerOf(accountId, 'accountId', 'account')
    const broker = this.#requireBrokerOf(id, argument, 'order')
    if (accountId !== null && !this.#caller.sees(accountId)) return null
    this.#askedById.add(id)
    const order = await this.#orders.load(toOrderKey(broker, id, accountId)).catch((error: unknown) => {
      if (error instanceof OrderWithheld) return error
      throw error
    })
    if (order === null) return null
    const owner = order instanceof OrderWithheld ? order.accountId : order.account.id
    if (accountId !== null && owner !== accountId) return null
    if (this.#caller.sees(owner)) {
      if (order instanceof OrderWithheld) throw order
      return order
    }
    // The same answer as for an unknown order at a broker that needs the account, so that it does not show that the order exists.
    if (accountId === null && this.broker(broker).features.readsOne === 'underAccount') throw new AccountNeeded()
    return null
  }

  /** Returns a field that a list left out, from a single read of the order. Throws if the broker's value cannot be read. */
  async completed<Name extends PartialField>(order: PartialOrder, field: Name): Promise<Exclude<Order[Name], Error>> {
    const { id, account } = order
    // An order that was queried by its id has a read of its own anyway.
    if (!this.#askedById.has(id) && !this.#completed.has(id)) {
      if (this.#completed.size === completionsMax) {
        throw createInputError(
          `The broker's list leaves out ${field}, and at most ${completionsMax} rows per operation are completed by a read of their own: select fewer rows, or query the order by its id.`,
          'RATE_LIMITED',
        )
      }
      this.#completed.add(id)
    }
    const key = { ...toOrderKey(brokerOf(id), id, account.id), mustBeWhole: true }
    const whole = await this.#wholeOrders.load(key)
    return fieldOf(whole ?? order, field)
  }

  /** Returns one page of a list. */
  async page(query: PageQuery): Promise<Page> {
    if (!this.#caller.sees(query.accountId)) throw this.#caller.refuse('This is not one of your accounts.')
    const page = await this.#pages.load(query)
    for (const { order } of page.rows) {
      if (!(order instanceof UpstreamError)) this.#prime(order)
    }
    return page
  }

  /** Returns the caller's account of this id, without a call: whether the broker knows it shows when its orders are read. */
  account(id: string, argument: string): TradingAccount {
    const account = this.findAccount(id, argument)
    if (account !== null) return account
    throw this.#caller.refuse(`${argument} is not one of your accounts.`)
  }

  /** Returns the caller's account of this id, without a call; null if it is not one of the caller's. */
  findAccount(id: string, argument: string): TradingAccount | null {
    const broker = this.#requireBrokerOf(id, argument, 'account')
    return this.#caller.sees(id) ? { id, broker } : null
  }

  /** Returns all accounts of the caller. Throws if no broker could list its accounts. */
  async accounts(): Promise<AccountList> {
    return await (this.#accounts ??= this.#readAccounts())
  }

  /** Returns a connected broker, such as that of an account which `account` returned. */
  broker(id: BrokerId): Broker {
    const broker = this.#brokers.get(id)
    if (!broker) throw new Error(`no broker ${id}`)
    return broker
  }

  /** Forgets all orders and pages that were read before a write, and keeps `order` as the broker showed it after the write. */
  renew(order: Order | null): void {
    // Lists show the order too, and other orders of the account may have changed with it.
    this.#orders.clearAll()
    this.#wholeOrders.clearAll()
    this.#pages.clearAll()
    if (order !== null) this.#prime(order)
  }

  /** Answers later reads of the order from `order`, with its account or without. */
  #prime(order: Order): void {
    const { broker, id, account } = order
    this.#orders.prime(toOrderKey(broker, id, account.id), order).prime(toOrderKey(broker, id, null), order)
  }

  async #readByBroker<Query extends { broker: BrokerId }, Result>(
    queries: readonly Query[],
    read: (broker: Broker, group: readonly Query[]) => Promise<readonly (Result | UpstreamError)[]>,
  ): Promise<(Result | Error)[]> {
    const results = new Map<Query, Result | UpstreamError>()
    const groups = Map.groupBy(new Set(queries), (query) => query.broker)
    await Promise.all(
      [...groups].map(async ([id, group]) => {
        const answers = await read(this.broker(id), group)
        for (const [index, query] of group.entries()) {
          const answer = answers[index]
          if (answer !== undefined) results.set(query, answer)
        }
      }),
    )
    return queries.map((query) => {
      const result = results.get(query)
      if (result === undefined) throw new Error('an adapter returned fewer answers than it had queries')
      // The reason why the reads of this request ended, such as its deadline, says more than the read that it ended.
      return result instanceof ReadEnded && result.endReason instanceof Error ? result.endReason : result
    })
  }

  // If a broker is down, only its own accounts are missing.
  async #readAccounts(): Promise<AccountList> {
    const known = this.#caller.accountIds?.filter((id) => isAccountId(id) && this.#brokers.has(brokerOf(id)))
    if (known) return { accounts: known.map((id) => ({ id, broker: brokerOf(id) })), failures: new Map() }
    const failures = new Map<BrokerId, UpstreamError>()
    const lists = await Promise.all(
      [...this.#brokers.values()].map(async (broker) => {
        const ids = await broker.accounts(this.#scope).catch(keepUpstreamError)
        if (!(ids instanceof UpstreamError)) return ids.map((id): TradingAccount => ({ id, broker: broker.id }))
        failures.set(broker.id, ids)
        return []
      }),
    )
    const [failure] = failures.values()
    if (failure !== undefined && failures.size === this.#brokers.size) throw failure
    return { accounts: lists.flat(), failures }
  }

  #requireBrokerOf(id: string, argument: string, kind: 'order' | 'account'): BrokerId {
    if (!(kind === 'order' ? isOrderId(id) : isAccountId(id))) {
      // A representation of an entity may hold any value in the place of an id.
      throw createInputError(`${argument} is not an id of an ${kind}: ${describeIds(id, kind)}.`)
    }
    const broker = brokerOf(id)
    if (this.#brokers.has(broker)) return broker
    throw createInputError(`${argument} names a broker that is not connected here: ${broker}.`)
  }
}

function toOrderKey(broker: BrokerId, id: string, accountId: string | null): OrderKey {
  return { broker, id, accountId, mustBeWhole: false }
}

/**
 * Returns the cache key of a read: its whole value, so that no field can be forgotten. Two fields in another order give two
 * keys, which costs a call but never a wrong answer.
 */
export function toKey(read: OrderKey | PageQuery): string {
  return JSON.stringify(read)
}

function fieldOf<Name extends PartialField>(order: PartialOrder, field: Name): Exclude<Order[Name], Error>
function fieldOf(order: PartialOrder, field: PartialField): string | boolean | null {
  const value = order[field]
  if (value instanceof Error) throw value
  return value
}

/** Merges queries that differ only in `wantsMore` into one that wants it if one of them does. */
function mergeEqual(queries: readonly PageQuery[]): PageQuery[] {
  const merged = new Map<string, PageQuery>()
  const keys = queries.map((query) => toKey({ ...query, wantsMore: true }))
  for (const [index, query] of queries.entries()) {
    const key = keys[index] ?? ''
    const wantsMore = query.wantsMore || merged.get(key)?.wantsMore === true
    merged.set(key, { ...query, wantsMore })
  }
  return queries.map((query, index) => merged.get(keys[index] ?? '') ?? query)
}
