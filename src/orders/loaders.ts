// The reads of one request. What means the same thing under several aliases, in fragments and in entities is one
// call; nothing here outlives the request, because orders are live data.

import DataLoader from 'dataloader'
import { brokerOf, isId, UpstreamError } from '../brokers/broker.ts'
import type { Broker, Brokers, Page, PageQuery } from '../brokers/broker.ts'
import { createInputError } from '../errors.ts'
import type { BrokerId, Order, OrderKey, TradingAccount } from './order.ts'

/** The loaders of one request. All of them throw UpstreamError, and a GraphQLError for an id that cannot be one. */
export interface Loaders {
  /** The order; null when the broker knows none of this id, or knows it under another account than `accountId`. */
  order(id: string, accountId: string | null): Promise<Order | null>
  page(query: PageQuery): Promise<Page>
  /** The account that `id` names, unchecked: whether its broker knows it shows when its orders are read. */
  account(id: string, argument: string): TradingAccount
  /** Every account that the brokers' credentials see. */
  accounts(): Promise<TradingAccount[]>
  /** The broker of an account or order that has passed `account` or `order`. */
  broker(id: BrokerId): Broker
  /** After a write: what the broker said of the order now. */
  replace(order: Order): void
}

/** Loaders over `brokers` for one request; its reads end when `signal` aborts. */
export function createLoaders(brokers: Brokers, signal: AbortSignal): Loaders {
  const orders = new DataLoader<OrderKey, Order | null, string>(
    (keys) => splitByBroker(keys, (broker, group) => broker.orders(group, signal)),
    { cacheKeyFn: (key) => key.id },
  )
  const pages = new DataLoader<PageQuery, Page, string>(
    (queries) => splitByBroker(queries, (broker, group) => broker.pages(group, signal)),
    { cacheKeyFn: toCacheKey },
  )

  async function splitByBroker<Question extends { broker: BrokerId }, Answer>(
    questions: readonly Question[],
    ask: (broker: Broker, group: readonly Question[]) => Promise<readonly (Answer | UpstreamError)[]>,
  ): Promise<(Answer | UpstreamError)[]> {
    const answers = new Map<Question, Answer | UpstreamError>()
    const groups = Map.groupBy(questions, (question) => question.broker)
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
      return answer
    })
  }

  function requireBroker(id: BrokerId): Broker {
    const broker = brokers.get(id)
    if (!broker) throw new Error(`no broker ${id}`)
    return broker
  }

  function findBroker(id: string, argument: string): BrokerId {
    if (!isId(id)) {
      throw createInputError(
        `${argument} is not an id: ids have letters, digits and . _ : - only, at most 128, a letter or digit first.`,
      )
    }
    const broker = brokerOf(id)
    if (!brokers.has(broker))
      throw createInputError(`${argument} names a broker that is not connected here: ${broker}.`)
    return broker
  }

  return {
    async order(id, accountId) {
      if (accountId !== null) findBroker(accountId, 'accountId')
      const order = await orders.load({ broker: findBroker(id, 'id'), id, accountId })
      return order !== null && (accountId === null || order.account.id === accountId) ? order : null
    },

    async page(query) {
      const page = await pages.load(query)
      for (const row of page.rows) {
        // A partial row would answer for fields that only a single read knows.
        if (!row.isPartial && !(row.order instanceof UpstreamError)) orders.prime(toKey(row.order), row.order)
      }
      return page
    },

    account: (id, argument) => ({ id, broker: findBroker(id, argument) }),

    async accounts() {
      const lists = await Promise.all(
        [...brokers.values()].map(async (broker) => {
          const ids = await broker.accounts(signal)
          return ids.map((id): TradingAccount => ({ id, broker: broker.id }))
        }),
      )
      return lists.flat()
    },

    broker: requireBroker,

    replace(order) {
      orders.clear(toKey(order)).prime(toKey(order), order)
    },
  }
}

function toKey(order: Order): OrderKey {
  return { broker: order.broker, id: order.id, accountId: order.account.id }
}

function toCacheKey({ accountId, status, symbol, side, after, first, wantsMore }: PageQuery): string {
  return JSON.stringify([accountId, status, symbol, side, after, first, wantsMore])
}
