// The operations of a frontend: an order blotter that lists, reads, places and cancels. Their types are generated.

import { graphql } from './generated/gql.ts'

export const ListOrders = graphql(`
  query ListOrders($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {
    orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {
      nodes {
        id
        symbol
        side
        status
        quantity
        filledQuantity
        submittedAt
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
`)

export const ReadOrder = graphql(`
  query ReadOrder($id: ID!) {
    order(id: $id) {
      id
      status
      isCancelable
      averagePrice
    }
  }
`)

export const PlaceOrder = graphql(`
  mutation PlaceOrder($input: PlaceOrderInput!) {
    placeOrder(input: $input) {
      __typename
      message
      orderId
      ... on OrderPlaced {
        replayed
      }
      ... on OrderInvalid {
        problems {
          field
          code
          message
        }
      }
      ... on OrderNotPlaced {
        retrySameKey
      }
    }
  }
`)

export const CancelOrder = graphql(`
  mutation CancelOrder($input: CancelOrderInput!) {
    cancelOrder(input: $input) {
      __typename
      message
      order {
        status
        filledQuantity
      }
    }
  }
`)
