// The tabs that GraphiQL opens with: four documents that run unchanged over the sandbox.

/** Orders of the sandbox that the tabs name. */
export interface Demo {
  accountId: string
  /** Whether an order can only be read under its account. */
  needsAccount: boolean
  filledOrderId: string
  openOrderId: string
  symbol: string
  limitPrice: string
}

/**
 * Returns the documents of the tabs; with a real broker (null) one that lists the accounts. They contain their values,
 * because GraphiQL drops the variables of its first tab.
 */
export function listTabs(demo: Demo | null): string[] {
  if (!demo) return ['# The accounts that this service sees\n{\n  tradingAccounts {\n    id\n    broker\n  }\n}\n']
  const { accountId, needsAccount, filledOrderId, openOrderId, symbol, limitPrice } = demo
  const inAccount = needsAccount ? `, accountId: "${accountId}"` : ''
  return [
    `# Read one order
query ReadOrder {
  order(id: "${filledOrderId}"${inAccount}) {
    id
    status
    symbol
    side
    quantity
    filledQuantity
    averagePrice
    submittedAt
  }
}
`,
    `# List orders: filter, then page with the endCursor as "after"
query ListOrders {
  orders(
    accountId: "${accountId}"
    filter: { state: OPEN, side: BUY }
    first: 10
    after: null
  ) {
    nodes {
      id
      symbol
      side
      type
      status
      quantity
      limitPrice
      submittedAt
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    `# Place a limit order. Run it twice: the same clientOrderId never sends twice
mutation PlaceOrder {
  placeOrder(
    input: {
      accountId: "${accountId}"
      clientOrderId: "graphiql-0001"
      symbol: "${symbol}"
      side: BUY
      type: LIMIT
      timeInForce: GTC
      quantity: "1"
      limitPrice: "${limitPrice}"
    }
  ) {
    __typename
    outcome
    message
    orderId
    order {
      status
      submittedAt
    }
    ... on OrderPlaced {
      replayed
    }
    ... on OrderRejected {
      rejectionCode
      reason
    }
    ... on OrderInvalid {
      problems {
        field
        code
        message
      }
    }
    ... on OrderNotPlaced {
      notPlacedCode
      retrySameKey
    }
  }
}
`,
    `# Cancel an order: confirmed only when the broker says so
mutation CancelOrder {
  cancelOrder(input: { orderId: "${openOrderId}"${inAccount} }) {
    __typename
    outcome
    message
    order {
      id
      status
      filledQuantity
      canceledAt
    }
  }
}
`,
  ]
}
