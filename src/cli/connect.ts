// Connects a broker as the settings say.

import type { Broker } from '../brokers/broker.ts'
import { brokerOf } from '../brokers/registry.ts'
import type { ConnectOptions } from '../brokers/entry.ts'
import type { Config } from '../config/config.ts'
import type { BrokerId } from '../domain/order.ts'
import { findProxy } from '../upstream/proxy.ts'

/** Returns the adapter of a connected broker. The caller closes it. */
export function connectBroker(
  id: BrokerId,
  { brokers, proxy }: Config,
  options: Omit<ConnectOptions, 'findProxy' | 'isForeignId'>,
): Broker {
  const broker = brokers.get(id)
  if (broker === undefined) throw new Error(`no broker ${id}`)
  return broker.connect({
    ...options,
    findProxy: (url) => findProxy(url, proxy),
    isForeignId: (text) => brokerOf(text) !== id,
  })
}
