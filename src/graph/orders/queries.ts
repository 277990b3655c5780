// The reads: arguments in, one call, value out. A resolver reaches its loader without waiting for anything first, or
// it would miss the batch.

import type { FieldNode, GraphQLResolveInfo, SelectionSetNode } from 'graphql'
import { Kind } from 'graphql'
import { builder } from '../builder.ts'
import type { Context } from '../context.ts'
import { createInputError, createPartialError } from '../errors.ts'
import type { OrderFilter, TradingAccount } from '../../domain/order.ts'
import { pageSizeDefault, readPage } from './page.ts'
import type { OrderConnection } from './page.ts'
import { OrderPlacementObject } from '../trading/results.ts'
import { takeTurn } from './rowTurns.ts'
import { OrderConnectionObject, OrderFilterInput, OrderObject, TradingAccountObject, BrokerEnum } from './types.ts'

const idsMax = 100
const readScope = { scope: 'orders:read' } as const

const accountIdDescription =
  'The account that the order must be of; an order of another account is null, like one that does not exist. Needed where ' +
  'the broker reads an order only under its account, unless an answer here has named it before.'

const pageArguments = {
  filter: 'The orders to list; all orders of the account if left out.',
  first: 'How many, 1 to 100; 50 when left out.',
  after: 'The endCursor of the page before, with the same account and filter; the newest orders when left out.',
}

// Told to gateways and other planners of queries: the list is as long as `first`.
const listSize = {
  assumedSize: pageSizeDefault,
  slicingArguments: ['first'],
  sizedFields: ['edges', 'nodes'],
  requireOneSlicingArgument: false,
}

builder.queryFields((t) => ({
  order: t.field({
    authScopes: readScope,
    cost: 10,
    type: OrderObject,
    description: 'One order; null when the broker knows none of this id.',
    args: {
      id: t.arg.id({ required: true, description: 'The id of the order.' }),
      accountId: t.arg.id({ description: accountIdDescription }),
    },
    resolve: (_, { id, accountId }, context) => context.loaders.order(id, accountId ?? null),
  }),

  ordersByIds: t.field({
    authScopes: readScope,
    cost: 10,
    type: [OrderObject],
    nullable: { list: true, items: true },
    description:
      'Orders by their ids: as many rows as ids, in their order. A row is null when there is no such order, and null with ' +
      'an error of its own when it cannot be read.',
    args: { ids: t.arg.idList({ required: true, description: 'At most 100 ids.' }) },
    resolve: (_, { ids }, context) => {
      if (ids.length > idsMax) throw createInputError(`ids: at most ${idsMax} at once.`)
      return ids.map((id) => context.loaders.order(id, null, 'ids'))
    },
  }),

  orders: t.field({
    authScopes: readScope,
    cost: 10,
    type: OrderConnectionObject,
    description: 'The orders of an account, newest first, page by page.',
    directives: { listSize },
    args: {
      accountId: t.arg.id({ required: true, description: 'The account.' }),
      filter: t.arg({ type: OrderFilterInput, description: pageArguments.filter }),
      first: t.arg.int({ description: pageArguments.first }),
      after: t.arg.string({ description: pageArguments.after }),
    },
    resolve: (_, { accountId, ...page }, context, info) =>
      readOrders(context, context.loaders.account(accountId, 'accountId'), page, info),
  }),

  tradingAccount: t.field({
    authScopes: readScope,
    type: TradingAccountObject,
    description: 'An account that you may see, else null. Whether the broker knows it shows when its orders are read.',
    args: { id: t.arg.id({ required: true, description: 'The id of the account.' }) },
    resolve: (_, { id }, context) => context.loaders.findAccount(id, 'id'),
  }),

  tradingAccounts: t.field({
    authScopes: readScope,
    cost: 10,
    type: [TradingAccountObject],
    nullable: { list: true, items: false },
    description:
      'Every account that you may see, as the brokers list them. Those of a broker that cannot be reached are missing, ' +
      'and an error reports it; null if no broker can be reached.',
    async resolve(_, __, { loaders, report }, info) {
      const { accounts, failures } = await loaders.accounts()
      for (const [broker, failure] of failures) {
        report(createPartialError(failure, `The accounts at ${loaders.broker(broker).features.name}`, info))
      }
      return accounts
    },
  }),

  placement: t.field({
    authScopes: readScope,
    type: OrderPlacementObject,
    description:
      'The outcome of a `placeOrder`, also after a restart; null if this clientOrderId was never used. Makes no call to a broker.',
    args: {
      accountId: t.arg.id({ required: true, description: 'The account that was traded for.' }),
      clientOrderId: t.arg.id({ required: true, description: 'The key of the placement.' }),
    },
    resolve: async (_, { accountId, clientOrderId }, context) => {
      // As of a key that was never used.
      const account = context.loaders.findAccount(accountId, 'accountId')
      return account && (await context.commands.placement(account.id, clientOrderId))
    },
  }),
}))

TradingAccountObject.implement({
  description: 'An account at a broker. Other subgraphs of a federated graph add what they know of it.',
  fields: (t) => ({
    id: t.exposeID('id', { nullable: false, description: "Opaque; the broker's name for the account." }),
    broker: t.expose('broker', { type: BrokerEnum, nullable: false, description: 'The broker that holds it.' }),
    orders: t.field({
      // Needed here too, because an account can be reached through the order of a write, which needs another scope.
      authScopes: readScope,
      cost: 10,
      type: OrderConnectionObject,
      description: 'Its orders, newest first, page by page.',
      directives: { listSize },
      args: {
        filter: t.arg({ type: OrderFilterInput, description: pageArguments.filter }),
        first: t.arg.int({ description: pageArguments.first }),
        after: t.arg.string({ description: pageArguments.after }),
      },
      resolve: (account, page, context, info) => readOrders(context, account, page, info),
    }),
  }),
})
builder.asEntity(TradingAccountObject, {
  key: builder.selection<{ id: string }>('id'),
  // Async, because a synchronous throw would null the whole answer instead of this entity.
  resolveReference: async ({ id }, { caller, loaders }) => {
    caller.require('orders:read')
    return loaders.findAccount(id, 'id')
  },
})

interface PageInput {
  filter?: { [Name in keyof OrderFilter]?: OrderFilter[Name] | undefined } | null | undefined
  first?: number | null | undefined
  after?: string | null | undefined
}

async function readOrders(
  context: Context,
  account: TradingAccount,
  { filter, first, after }: PageInput,
  info: GraphQLResolveInfo,
): Promise<OrderConnection> {
  const page = await readPage(context, account, {
    filter: {
      statuses: filter?.statuses ?? null,
      state: filter?.state ?? null,
      symbol: filter?.symbol ?? null,
      side: filter?.side ?? null,
      submittedAfter: filter?.submittedAfter ?? null,
      submittedBefore: filter?.submittedBefore ?? null,
    },
    first: first ?? null,
    after: after ?? null,
    wantsMore: isSelected(info, ['pageInfo', 'hasNextPage']),
  })
  const turn = takeTurn(page.edges.length)
  if (turn) await turn
  return page
}

// Whether the document selects the field at `path` below this one. A field under @skip or @include counts as selected.
function isSelected(info: GraphQLResolveInfo, path: readonly string[]): boolean {
  function within(selections: SelectionSetNode | undefined, [name, ...rest]: readonly string[]): boolean {
    if (name === undefined) return true
    return (selections?.selections ?? []).some((selection) => {
      if (selection.kind === Kind.FIELD) return selection.name.value === name && within(selection.selectionSet, rest)
      const fragment = selection.kind === Kind.FRAGMENT_SPREAD ? info.fragments[selection.name.value] : selection
      return within(fragment?.selectionSet, [name, ...rest])
    })
  }
  return info.fieldNodes.some((node: FieldNode) => within(node.selectionSet, path))
}
