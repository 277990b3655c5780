// The peer of the bench: the server that a good team writes in an afternoon with Yoga, DataLoader and undici.
// It is meant to be quick, not crippled: one loader a request, one GET an order, one list call a page, no limits, no
// identity, no log, undici's own client instead of fetch, Yoga's count of bytes off. It does not count against the
// broker's rate, and it cannot read several orders with one call.

import { createServer } from 'node:http'
import { buildSubgraphSchema } from '@apollo/subgraph'
import DataLoader from 'dataloader'
import { parse } from 'graphql'
import { createYoga } from 'graphql-yoga'
import { interceptors, Pool } from 'undici'

export interface PeerOptions {
  /** The broker's base URL with its version. */
  url: string
  apiKey: string
  apiSecret: string
  /** Whether undici's retry interceptor repeats what failed, a 429 after the wait that it asks for. */
  retries: boolean
}

type Row = Readonly<Record<string, unknown>>
type Order = ReturnType<typeof toOrder>
interface Context {
  orders: DataLoader<string, Order | null>
}
interface PageArguments {
  accountId: string
  first: number
  after?: string | null
}

// The fields of Blotter's schema that the bench asks for, so that both answer the same documents with the same bytes.
const typeDefs = parse(/* GraphQL */ `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "@shareable"])

  scalar Decimal
  scalar DateTime

  type Query {
    order(id: ID!, accountId: ID): Order
    orders(accountId: ID!, first: Int! = 50, after: String): OrderConnection
  }

  type OrderConnection {
    nodes: [Order]!
    pageInfo: PageInfo!
  }

  type PageInfo @shareable {
    hasNextPage: Boolean!
    endCursor: String
  }

  type TradingAccount @key(fields: "id") {
    id: ID!
  }

  type Order @key(fields: "id") @key(fields: "id account { id }") {
    id: ID!
    broker: Broker!
    account: TradingAccount!
    symbol: String!
    securityType: String
    currency: String
    clientOrderId: ID
    side: OrderSide!
    type: OrderType!
    timeInForce: TimeInForce!
    quantity: Decimal
    notional: Decimal
    limitPrice: Decimal
    stopPrice: Decimal
    trailPercent: Decimal
    trailPrice: Decimal
    extendedHours: Boolean
    status: OrderStatus!
    brokerStatus: String
    state: OrderState
    isCancelable: Boolean!
    filledQuantity: Decimal
    remainingQuantity: Decimal
    averagePrice: Decimal
    commission: Decimal
    commissionType: CommissionType
    submittedAt: DateTime
    filledAt: DateTime
    canceledAt: DateTime
    rejectReason: String
  }

  enum Broker {
    BLUUM
  }
  enum OrderSide {
    BUY
    SELL
  }
  enum OrderType {
    MARKET
    LIMIT
    STOP
    STOP_LIMIT
    TRAILING_STOP
  }
  enum TimeInForce {
    DAY
    GTC
    OPG
    CLS
    IOC
    FOK
  }
  enum OrderStatus {
    ACCEPTED
    PARTIALLY_FILLED
    FILLED
    CANCELED
    REJECTED
  }
  enum OrderState {
    OPEN
    CLOSED
  }
  enum CommissionType {
    NOTIONAL
    QTY
    BPS
  }
`)

/** Starts the peer on a free loopback port, for the life of the process; its GraphQL address. */
export async function startPeer({ url, apiKey, apiSecret, retries }: PeerOptions): Promise<string> {
  const { origin, pathname } = new URL(url)
  const pool = new Pool(origin, { connections: 64, headersTimeout: 10_000, bodyTimeout: 10_000 })
  const upstream = retries ? pool.compose(interceptors.retry()) : pool
  const headers = { authorization: `Basic ${Buffer.from(`${apiKey}:${apiSecret}`).toString('base64')}` }

  async function get(path: string): Promise<unknown> {
    const { statusCode, body } = await upstream.request({ method: 'GET', path: pathname + path, headers })
    const answer: unknown = await body.json()
    if (statusCode === 404) return null
    if (statusCode >= 400) throw new Error(`the broker answered ${statusCode}`)
    return answer
  }

  async function readOrder(id: string): Promise<Order | null> {
    const row = await get(`/trading/orders/${encodeURIComponent(id)}`)
    return isRow(row) ? toOrder(row) : null
  }

  async function readPage({ accountId, first, after }: PageArguments) {
    const offset = after ? Number(Buffer.from(after, 'base64url').toString()) : 0
    const list = await get(
      `/trading/accounts/${encodeURIComponent(accountId)}/orders?limit=${Math.min(first + 1, 100)}&offset=${offset}`,
    )
    const rows = Array.isArray(list) ? list.filter(isRow) : []
    const nodes = rows.slice(0, first).map(toOrder)
    return {
      nodes,
      pageInfo: {
        hasNextPage: rows.length > first,
        endCursor: Buffer.from(String(offset + nodes.length)).toString('base64url'),
      },
    }
  }

  const schema = buildSubgraphSchema({
    typeDefs,
    resolvers: {
      Query: {
        order: async (_: unknown, { id, accountId }: { id: string; accountId?: string | null }, context: unknown) => {
          const order = await ordersOf(context).load(id)
          return accountId && order?.account.id !== accountId ? null : order
        },
        orders: (_: unknown, page: PageArguments) => readPage(page),
      },
      Order: { __resolveReference: ({ id }: { id: string }, context: unknown) => ordersOf(context).load(id) },
    },
  })
  const yoga = createYoga({
    schema,
    context: (): Context => ({
      orders: new DataLoader((ids) =>
        Promise.all(ids.map((id) => readOrder(id).catch((error: unknown) => new Error('not read', { cause: error })))),
      ),
    }),
    graphiql: false,
    landingPage: false,
    logging: false,
    // It costs a third of a small request, and Blotter counts in a cheaper place.
    maxRequestBodySize: false,
  })
  const server = createServer((request, response) => void yoga(request, response))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the peer has no port')
  return `http://127.0.0.1:${address.port}/graphql`
}

// Apollo's types let a resolver's context be unknown only.
function ordersOf(context: unknown): Context['orders'] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return (context as Context).orders
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function toOrder(row: Row) {
  const isOpen = row.status === 'accepted' || row.status === 'partially_filled'
  return {
    id: row.id,
    broker: 'BLUUM',
    account: { id: row.account_id },
    symbol: row.symbol,
    securityType: null,
    currency: row.currency,
    clientOrderId: row.client_order_id,
    side: toUpper(row.side),
    type: toUpper(row.type),
    timeInForce: toUpper(row.time_in_force),
    quantity: row.qty,
    notional: row.notional,
    limitPrice: row.limit_price,
    stopPrice: row.stop_price,
    trailPercent: row.trail_percent,
    trailPrice: row.trail_price,
    extendedHours: row.extended_hours,
    status: toUpper(row.status),
    brokerStatus: row.status,
    state: isOpen ? 'OPEN' : 'CLOSED',
    isCancelable: isOpen,
    filledQuantity: row.filled_qty,
    remainingQuantity: row.remaining_qty,
    averagePrice: row.average_price === '0.00' ? null : row.average_price,
    commission: row.commission,
    commissionType: toUpper(row.commission_type),
    submittedAt: row.submitted_at,
    filledAt: row.filled_at,
    canceledAt: row.canceled_at,
    rejectReason: row.reject_reason,
  }
}

function toUpper(word: unknown): string | null {
  return typeof word === 'string' ? word.toUpperCase() : null
}
