// The reads of one request. What means the same thing under several aliases, in fragments and in entities is one
// call; nothing here outlives the request, because orders are live data.

import DataLoader from 'dataloader'
import { AccountNeeded, OrderWithheld } from '../../brokers/broker.ts'
import { keepUpstreamError, ReadEnded, UpstreamError } from '../../upstream/errors.ts'
import type { Broker, Brokers, Page, PageQuery } from '../../brokers/broker.ts'
import type { ReadScope } from '../../upstream/readScope.ts'
import { createInputError } from '../errors.ts'
import type { Caller } from '../caller.ts'
import { brokerOf, isAccountId, isOrderId } from '../../domain/order.ts'
import type { BrokerId, Order, OrderKey, PartialField, TradingAccount } from '../../domain/order.ts'

/**
 * The loaders of one request, which show its caller nothing of anybody else's accounts. All of them throw UpstreamError, and
 * a GraphQLError for an id that cannot be one or for what the caller may not read.
 */
export interface Loaders {
  /**
   * The order; null when the broker knows none of this id, knows it under another account than `accountId`, or it is not one
   * of the caller's. `argument` is what the caller knows the id as; `id` unless given.
   */
  order(id: string, accountId: string | null, argument?: string): Promise<Order | null>
  /** A field that a list left out, by a single read of the order; throws where the broker garbled it. */
  completed<Name extends PartialField>(order: PartialOrder, field: Name): Promise<Exclude<Order[Name], Error>>
  page(query: PageQuery): Promise<Page>
  /** The account of the caller's that `id` names: whether its broker knows it shows when its orders are read. */
  account(id: string, argument: string): TradingAccount
  /** The same, null for one that is not the caller's. */
  findAccount(id: string, argument: string): TradingAccount | null
  /** Every account of the caller's, and which brokers could not tell. Throws where none could. */
  accounts(): Promise<{ accounts: TradingAccount[]; failures: ReadonlyMap<BrokerId, UpstreamError> }>
  /** The broker of an account or order that has passed `account` or `order`. */
  broker(id: BrokerId): Broker
  /** After a write: nothing stands that was read before it, and of the order what the broker said of it now, if it did. */
  renew(order: Order | null): void
}

type PartialOrder = Pick<Order, PartialField | 'id' | 'account'>

// Single reads that one operation may take to complete rows of lists: beyond, a page of 100 would cost 100 calls.
const completionsMax = 10

/** Loaders over `brokers` for one request, on behalf of `scope`. */
export function createLoaders(brokers: Brokers, scope: ReadScope, caller: Caller): Loaders {
  // By account too: a broker that reads orders under their account knows none of them under another one.
  const orders = new DataLoader<OrderKey, Order | null, string>(
    (keys) => splitByBroker(keys, (broker, group) => broker.orders(group, scope)),
    { cacheKeyFn: ({ id, accountId }) => `${id} ${accountId ?? ''}` },
  )
  const wholeOrders = new DataLoader<OrderKey, Order | null, string>(
    (keys) => splitByBroker(keys, (broker, group) => broker.orders(group, scope)),
    { cacheKeyFn: (key) => key.id },
  )
  const pages = new DataLoader<PageQuery, Page, string>(
    (queries) => splitByBroker(mergeEqual(queries), (broker, group) => broker.pages(group, scope)),
    { cacheKeyFn: toCacheKey },
  )
  let allAccounts: ReturnType<Loaders['accounts']> | null = null
  const completed = new Set<string>()
  const askedById = new Set<string>()

  async function splitByBroker<Question extends { broker: BrokerId }, Answer>(
    questions: readonly Question[],
    ask: (broker: Broker, group: readonly Question[]) => Promise<readonly (Answer | UpstreamError)[]>,
  ): Promise<(Answer | Error)[]> {
    const answers = new Map<Question, Answer | UpstreamError>()
    const groups = Map.groupBy(new Set(questions), (question) => question.broker)
    await Promise.all(
      [...groups].map(async ([id, group]) => {
        const answered = await ask(requireBroker(id), group)
        for (const [index, question] of group.entries()) {
          const answer = answered[index]
          if (answer !== undefined) answers.set(question, answer)
        }
      }),
    )
    return questions.map((question) => {
      const answer = answers.get(question)
      if (answer === undefined) throw new Error('an adapter answered fewer questions than it was asked')
      // Who asked is told why its reads ended, in its own words.
      return answer instanceof ReadEnded && answer.endReason instanceof Error ? answer.endReason : answer
    })
  }

  // A broker that is down takes its own accounts away, and not those of the others.
  async function readAccounts(): ReturnType<Loaders['accounts']> {
    const known = caller.accountIds?.filter((id) => isAccountId(id) && brokers.has(brokerOf(id)))
    if (known) return { accounts: known.map((id) => ({ id, broker: brokerOf(id) })), failures: new Map() }
    const failures = new Map<BrokerId, UpstreamError>()
    const lists = await Promise.all(
      [...brokers.values()].map(async ({ id: broker, accounts }) => {
        const ids = await accounts(scope).catch(keepUpstreamError)
        if (!(ids instanceof UpstreamError)) return ids.map((id): TradingAccount => ({ id, broker }))
        failures.set(broker, ids)
        return []
      }),
    )
    const [failure] = failures.values()
    if (failure !== undefined && failures.size === brokers.size) throw failure
    return { accounts: lists.flat(), failures }
  }

  /** From now on the order is answered as it is, whoever asks for it, with its account or without. */
  function prime(order: Order): void {
    const key = { broker: order.broker, id: order.id, mustBeWhole: false }
    orders.prime({ ...key, accountId: order.account.id }, order).prime({ ...key, accountId: null }, order)
  }

  function requireBroker(id: BrokerId): Broker {
    const broker = brokers.get(id)
    if (!broker) throw new Error(`no broker ${id}`)
    return broker
  }

  function findBroker(id: string, argument: string, kind: 'order' | 'account'): BrokerId {
    if (!(kind === 'order' ? isOrderId(id) : isAccountId(id))) {
      // A representation of an entity may hold anything in the place of an id.
      const isOfAries = typeof id === 'string' && brokerOf(id) === 'ARIES'
      const form = isOfAries ? `aries:<account>${kind === 'order' ? ':<order>' : ''}, where each part has` : 'ids have'
      throw createInputError(
        `${argument} is not an id of an ${kind}: ${form} letters, digits and . _ : - only, at most 128, a letter or digit first.`,
      )
    }
    const broker = brokerOf(id)
    if (!brokers.has(broker))
      throw createInputError(`${argument} names a broker that is not connected here: ${broker}.`)
    return broker
  }

  function findAccount(id: string, argument: string): TradingAccount | null {
    caller.require('orders:read')
    const broker = findBroker(id, argument, 'account')
    return caller.sees(id) ? { id, broker } : null
  }

  return {
    async order(id, accountId, argument = 'id') {
      caller.require('orders:read')
      if (accountId !== null) findBroker(accountId, 'accountId', 'account')
      const key = { broker: findBroker(id, argument, 'order'), id, accountId, mustBeWhole: false }
      // Whatever is there, it is nothing to this caller.
      if (accountId !== null && !caller.sees(accountId)) return null
      askedById.add(id)
      const order = await orders.load(key).catch((error: unknown) => {
        if (error instanceof OrderWithheld) return error
        throw error
      })
      if (order === null) return null
      const owner = order instanceof OrderWithheld ? order.accountId : order.account.id
      if (accountId !== null && owner !== accountId) return null
      if (caller.sees(owner)) {
        if (order instanceof OrderWithheld) throw order
        return order
      }
      // As an order answers that nobody knows, where it cannot be asked for without its account.
      if (accountId === null && requireBroker(key.broker).offer.readsOne === 'underAccount') throw new AccountNeeded()
      return null
    },

    async completed(order, field) {
      const { id, account } = order
      // Who asks for an order by its id has asked for that read.
      if (!askedById.has(id) && !completed.has(id)) {
        if (completed.size === completionsMax) {
          throw createInputError(
            `The broker's list leaves ${field} out, and at most ${completionsMax} rows an operation are read singly for it: ask for fewer rows, or for the order by its id.`,
            'RATE_LIMITED',
          )
        }
        completed.add(id)
      }
      const whole = await wholeOrders.load({ broker: brokerOf(id), id, accountId: account.id, mustBeWhole: true })
      return fieldOf(whole ?? order, field)
    },

    async page(query) {
      // Here, because an account is reached through the orders of a write too, for which this right is not needed.
      caller.require('orders:read')
      if (!caller.sees(query.accountId)) throw caller.refuse('This is not one of your accounts.')
      const page = await pages.load(query)
      for (const { order } of page.rows) {
        if (!(order instanceof UpstreamError)) prime(order)
      }
      return page
    },

    account(id, argument) {
      const account = findAccount(id, argument)
      if (account !== null) return account
      throw caller.refuse(`${argument} is not one of your accounts.`)
    },

    findAccount,

    async accounts() {
      caller.require('orders:read')
      return await (allAccounts ??= readAccounts())
    },

    broker: requireBroker,

    renew(order) {
      // Lists show the order too, and other orders of its account may have moved with it.
      orders.clearAll()
      wholeOrders.clearAll()
      pages.clearAll()
      if (order !== null) prime(order)
    },
  }
}

function fieldOf<Name extends PartialField>(order: PartialOrder, field: Name): Exclude<Order[Name], Error>
function fieldOf(order: PartialOrder, field: PartialField): string | boolean | null {
  const value = order[field]
  if (value instanceof Error) throw value
  return value
}

// Pages that differ only in whether they want to know if a row follows become one question, asked for both.
function mergeEqual(queries: readonly PageQuery[]): PageQuery[] {
  const merged = new Map<string, PageQuery>()
  for (const query of queries) {
    const key = toCacheKey({ ...query, wantsMore: true })
    const wantsMore = query.wantsMore || merged.get(key)?.wantsMore === true
    merged.set(key, { ...query, wantsMore })
  }
  return queries.map((query) => merged.get(toCacheKey({ ...query, wantsMore: true })) ?? query)
}

function toCacheKey(query: PageQuery): string {
  const { accountId, statuses, symbol, side, submittedAfter, submittedBefore, olderThan, after, first, wantsMore } =
    query
  const filter = [statuses, symbol, side, submittedAfter, submittedBefore]
  return JSON.stringify([accountId, filter, olderThan, after, first, wantsMore])
}
