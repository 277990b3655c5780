/* eslint-disable */
import * as types from './graphql.ts';



/**
 * Map of all GraphQL operations in the project.
 *
 * This map has several performance disadvantages:
 * 1. It is not tree-shakeable, so it will include all operations in the project.
 * 2. It is not minifiable, so the string of a GraphQL query will be multiple times inside the bundle.
 * 3. It does not support dead code elimination, so it will add unused operations.
 *
 * Therefore it is highly recommended to use the babel or swc plugin for production.
 * Learn more about it here: https://the-guild.dev/graphql/codegen/plugins/presets/preset-client#reducing-bundle-size
 */
type Documents = {
    "\n  query ListOrders($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {\n    orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {\n      nodes {\n        id\n        symbol\n        side\n        status\n        quantity\n        filledQuantity\n        submittedAt\n      }\n      pageInfo {\n        hasNextPage\n        endCursor\n      }\n    }\n  }\n": typeof types.ListOrdersDocument,
    "\n  query ReadOrder($id: ID!) {\n    order(id: $id) {\n      id\n      status\n      isCancelable\n      averagePrice\n    }\n  }\n": typeof types.ReadOrderDocument,
    "\n  mutation PlaceOrder($input: PlaceOrderInput!) {\n    placeOrder(input: $input) {\n      __typename\n      message\n      orderId\n      ... on OrderPlaced {\n        replayed\n      }\n      ... on OrderInvalid {\n        problems {\n          field\n          code\n          message\n        }\n      }\n      ... on OrderNotPlaced {\n        retrySameKey\n      }\n    }\n  }\n": typeof types.PlaceOrderDocument,
    "\n  mutation CancelOrder($input: CancelOrderInput!) {\n    cancelOrder(input: $input) {\n      __typename\n      message\n      order {\n        status\n        filledQuantity\n      }\n    }\n  }\n": typeof types.CancelOrderDocument,
};
const documents: Documents = {
    "\n  query ListOrders($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {\n    orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {\n      nodes {\n        id\n        symbol\n        side\n        status\n        quantity\n        filledQuantity\n        submittedAt\n      }\n      pageInfo {\n        hasNextPage\n        endCursor\n      }\n    }\n  }\n": types.ListOrdersDocument,
    "\n  query ReadOrder($id: ID!) {\n    order(id: $id) {\n      id\n      status\n      isCancelable\n      averagePrice\n    }\n  }\n": types.ReadOrderDocument,
    "\n  mutation PlaceOrder($input: PlaceOrderInput!) {\n    placeOrder(input: $input) {\n      __typename\n      message\n      orderId\n      ... on OrderPlaced {\n        replayed\n      }\n      ... on OrderInvalid {\n        problems {\n          field\n          code\n          message\n        }\n      }\n      ... on OrderNotPlaced {\n        retrySameKey\n      }\n    }\n  }\n": types.PlaceOrderDocument,
    "\n  mutation CancelOrder($input: CancelOrderInput!) {\n    cancelOrder(input: $input) {\n      __typename\n      message\n      order {\n        status\n        filledQuantity\n      }\n    }\n  }\n": types.CancelOrderDocument,
};

/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  query ListOrders($accountId: ID!, $filter: OrderFilter, $first: Int, $after: String) {\n    orders(accountId: $accountId, filter: $filter, first: $first, after: $after) {\n      nodes {\n        id\n        symbol\n        side\n        status\n        quantity\n        filledQuantity\n        submittedAt\n      }\n      pageInfo {\n        hasNextPage\n        endCursor\n      }\n    }\n  }\n"): typeof import('./graphql.ts').ListOrdersDocument;
/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  query ReadOrder($id: ID!) {\n    order(id: $id) {\n      id\n      status\n      isCancelable\n      averagePrice\n    }\n  }\n"): typeof import('./graphql.ts').ReadOrderDocument;
/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  mutation PlaceOrder($input: PlaceOrderInput!) {\n    placeOrder(input: $input) {\n      __typename\n      message\n      orderId\n      ... on OrderPlaced {\n        replayed\n      }\n      ... on OrderInvalid {\n        problems {\n          field\n          code\n          message\n        }\n      }\n      ... on OrderNotPlaced {\n        retrySameKey\n      }\n    }\n  }\n"): typeof import('./graphql.ts').PlaceOrderDocument;
/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  mutation CancelOrder($input: CancelOrderInput!) {\n    cancelOrder(input: $input) {\n      __typename\n      message\n      order {\n        status\n        filledQuantity\n      }\n    }\n  }\n"): typeof import('./graphql.ts').CancelOrderDocument;


export function graphql(source: string) {
  return (documents as any)[source] ?? {};
}
