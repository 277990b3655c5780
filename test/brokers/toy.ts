// A third broker, as small as one can be: a list of orders in memory. Shows what a new adapter has to do, and that nothing
// outside its folder and the registry has to change.

import { AccountNeeded, findUnsupported, isAskedFor, isSoughtBy, toCapabilities } from '../../src/brokers/broker.ts'
import type { Broker, BrokerFeatures } from '../../src/brokers/broker.ts'
import { defineBroker } from '../../src/brokers/entry.ts'
import { spellId, splitId } from '../../src/domain/ids.ts'
import { compareNewestFirst, rankOf, stateOf } from '../../src/domain/order.ts'
import type { NewOrder, Order, OrderStatus } from '../../src/domain/order.ts'
import { baseUrl } from '../../src/domain/setting.ts'

const features: BrokerFeatures = {
  name: 'Toy',
  statuses: ['ACCEPTED', 'FILLED', 'CANCELED'],
  sides: ['BUY', 'SELL'],
  types: ['MARKET', 'LIMIT'],
  timesInForce: ['DAY'],
  extras: [],
  filters: [],
  readsOne: 'byId',
}

const accountId = 'toy:A1'

/** The registry entry of the toy broker. */
export const toyEntry = defineBroker({
  id: 'TOY',
  name: 'Toy',
  description: 'A broker that keeps its orders in memory.',
  ids: { prefix: 'toy:', orderNamesAccount: true },
  apis: [{ title: 'Toy', features }],
  sandboxHosts: [],
  settings: {
    TOY_URL: { schema: baseUrl('must be an address'), description: 'Address of the toy broker.', since: '0.1.0' },
  },
  configure: ({ TOY_URL: url }) => ({
    url: url ?? null,
    isInSandbox: false,
    requestsPerSecond: 10,
    secret: null,
    warnings: [],
    listSandboxAccounts: () => [],
    connect: createToy,
  }),
})

function createToy(): Broker {
  const base = { limitPrice: '10.00', type: 'LIMIT', timeInForce: 'DAY', side: 'BUY', quantity: '1' } as const
  const orders = new Map(
    [
      toOrder('1', { ...base, symbol: 'AAPL', clientOrderId: 'seed-0001' }, 'FILLED'),
      toOrder('2', { ...base, symbol: 'MSFT', clientOrderId: 'seed-0002' }, 'ACCEPTED'),
    ].map((order) => [order.id, order]),
  )
  const newestFirst = (): Order[] => [...orders.values()].toSorted((a, b) => compareNewestFirst(rankOf(a), rankOf(b)))

  return {
    id: 'TOY',
    capabilities: toCapabilities(['clientIdEcho', 'listNewestFirst', 'readYourWrites']),
    features,
    unsupported: (order) => findUnsupported(features, order),
    planLists: (statuses) => (statuses.length === 0 ? [] : [statuses]),
    accounts: async () => [accountId],
    orders: async (keys) => keys.map(({ id }) => orders.get(id) ?? null),
    pages: async (queries) =>
      queries.map((query) => {
        const all = newestFirst().map((order) => ({ order, position: order.id }))
        const from = query.after === null ? 0 : all.findIndex(({ position }) => position === query.after) + 1
        const wanted = all.slice(from).filter(({ order }) => {
          const at = typeof order.submittedAt === 'string' ? order.submittedAt : null
          return isAskedFor({ id: order.id, at, submittedAt: at, value: order }, query)
        })
        const rows = wanted.slice(0, query.first)
        const position = rows.at(-1)?.position ?? query.after
        return { rows, hasMore: wanted.length > rows.length, isComplete: true, position }
      }),
    scan: async (query) => ({ orders: newestFirst().filter((order) => isSoughtBy(query, order)), isComplete: true }),
    async place(order, { beforeSend }) {
      await beforeSend()
      const placed = toOrder(String(orders.size + 1), order, 'ACCEPTED')
      orders.set(placed.id, placed)
      const { id: orderId, status } = placed
      return { orderId, status, clientOrderId: order.clientOrderId, order: placed, differing: [], rejection: null }
    },
    async cancel({ id }) {
      const order = orders.get(id)
      if (order === undefined) throw new AccountNeeded()
      const canceled: Order = { ...order, status: 'CANCELED', state: 'CLOSED', isCancelable: false }
      orders.set(id, canceled)
      return canceled
    },
    close: async () => {},
  }
}

type Terms = Pick<NewOrder, 'symbol' | 'clientOrderId' | 'side' | 'type' | 'timeInForce' | 'quantity' | 'limitPrice'>

function toOrder(name: string, terms: Terms, status: OrderStatus): Order {
  const { symbol, clientOrderId, side, type, timeInForce, quantity, limitPrice } = terms
  const [account = ''] = splitId('toy:', accountId) ?? []
  const state = stateOf(status)
  return {
    id: spellId('toy:', [account, name]),
    broker: 'TOY',
    account: { id: accountId, broker: 'TOY' },
    asset: { symbol },
    symbol,
    clientOrderId,
    side,
    type,
    timeInForce,
    quantity,
    limitPrice,
    status,
    brokerStatus: status,
    state,
    isCancelable: state === 'OPEN',
    filledQuantity: status === 'FILLED' ? quantity : '0',
    remainingQuantity: status === 'FILLED' ? '0' : quantity,
    submittedAt: new Date(Date.UTC(2026, 2, 9) + Number(name) * 1_000).toISOString(),
    securityType: 'EQUITY',
    legs: [],
    currency: 'USD',
    notional: null,
    stopPrice: null,
    trailPercent: null,
    trailPrice: null,
    extendedHours: null,
    averagePrice: null,
    commission: null,
    commissionType: null,
    filledAt: null,
    canceledAt: null,
    rejectReason: null,
    isPartial: false,
  }
}
