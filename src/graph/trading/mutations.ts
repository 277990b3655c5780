// The writes: input in, one command, result out.

import { builder } from '../builder.ts'
import type { Context } from '../context.ts'
import type { Caller } from '../caller.ts'
import type { Order } from '../../domain/order.ts'
import { CancelOrderInput, CancelOrderResultInterface, PlaceOrderInput, PlaceOrderResultInterface } from './results.ts'

builder.mutationFields((t) => ({
  placeOrder: t.field({
    authScopes: { scope: 'orders:place' },
    type: PlaceOrderResultInterface,
    cost: 50,
    description:
      'Places an order, once for each clientOrderId: a repeat joins the first call or tells what became of it, and sends ' +
      'nothing, also after a restart. An unknown outcome is OrderOutcomeUnknown, never an error.',
    args: { input: t.arg({ type: PlaceOrderInput, required: true, description: 'The order to place.' }) },
    resolve: async (_, { input }, context) => {
      const { caller } = context
      if (!caller.sees(input.accountId)) {
        throw caller.refuse('input.accountId is not one of your accounts; nothing was placed.')
      }
      const result = await context.commands.place(
        {
          accountId: input.accountId,
          clientOrderId: input.clientOrderId,
          symbol: input.symbol,
          side: input.side,
          type: input.type,
          timeInForce: input.timeInForce,
          quantity: input.quantity ?? null,
          notional: input.notional ?? null,
          limitPrice: input.limitPrice ?? null,
          stopPrice: input.stopPrice ?? null,
          trailPercent: input.trailPercent ?? null,
          trailPrice: input.trailPrice ?? null,
          extendedHours: input.extendedHours ?? null,
          commission: input.commission ?? null,
          commissionType: input.commissionType ?? null,
        },
        {
          sendBy: input.sendBy ? Date.parse(input.sendBy) : null,
          timeoutMs: context.timeoutMs,
          acknowledged: input.acknowledgeUnresolved ?? [],
          principal: toPrincipal(caller),
          tally: context.tally,
        },
      )
      return withFresh(result, context)
    },
  }),

  cancelOrder: t.field({
    authScopes: { scope: 'orders:cancel' },
    type: CancelOrderResultInterface,
    cost: 50,
    description:
      'Cancels an order and reads it back. It is confirmed only when the broker reports it canceled. Canceling again is ' +
      'harmless.',
    args: { input: t.arg({ type: CancelOrderInput, required: true, description: 'The order to cancel.' }) },
    resolve: async (_, { input }, context) => {
      const { caller } = context
      const result = await context.commands.cancel(
        {
          orderId: input.orderId ?? null,
          accountId: input.accountId ?? null,
          clientOrderId: input.clientOrderId ?? null,
        },
        context.timeoutMs,
        { principal: toPrincipal(caller), sees: caller.sees, tally: context.tally },
      )
      return withFresh(result, context)
    },
  }),
}))

function toPrincipal({ id }: Caller): string {
  return id === null ? 'caller' : `caller ${id}`
}

// Lets the rest of the document see the order as the write showed it.
function withFresh<Result extends { order: Order | null }>(result: Result, context: Context): Result {
  context.loaders.renew(result.order)
  return result
}
