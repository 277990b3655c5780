// Measures the cost of abuse for other callers: the CPU time of a refused document, the throughput that remains with a hundred
// of those a second, and the wait of one caller while another one sends too much.

import { randomUUID } from 'node:crypto'
import { toMedian } from './writes.ts'

/** Requests at a steady pace, regardless of the answers. */
export interface Flood {
  url: string
  headers: Record<string, string>
  /** Sent in turn, over and over. */
  bodies: readonly string[]
  perSecond: number
  requests: number
}

export interface FloodResult {
  /** How many were answered with each status. */
  statuses: Record<string, number>
  /** The latency of each answer, from the instant at which its request was due. */
  latenciesMs: number[]
}

/** The servers and the load that the parent of the bench started. */
interface AbuseOptions {
  /** A service without a bound on how often a caller asks, and one with the usual one. */
  open: { url: string; readCpuMs: () => Promise<number> }
  limited: { url: string }
  /** The header of a caller, by a name of our own. */
  headersOf: (name: string) => Promise<Record<string, string>>
  /** Two processes, so that who floods does not hold up who measures. */
  flood: (flood: Flood) => Promise<FloodResult>
  floodBeside: (flood: Flood) => Promise<FloodResult>
  /** Requests a second of callers that each send their bodies in turn. */
  rate: (
    url: string,
    callers: readonly (readonly string[])[],
    headers: Record<string, string>,
    ms: number,
  ) => Promise<number>
  orderIds: readonly string[]
  roundMs: number
}

interface AbuseFigures {
  /** CPU of a refused document, ms, by its kind. */
  refusedMs: Map<string, number>
  /** Requests a second during the abuse, divided by those without it. */
  throughput: number
  /** The 95th percentile of the caller's wait during the flood, divided by the one without it. */
  wait: number
  floodRefused: number
}

const times = (count: number, part: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => part(index)).join(' ')

// Each text is new to the service, which keeps those that it knows.
const abusive: Record<string, () => string> = {
  'too deep': () => `{ ${times(160, () => 'order(id: "x") {')} id ${'}'.repeat(160)} } # ${randomUUID()}`,
  'too many aliases': () =>
    `{ ${times(110, (index) => `a${index}: order(id: "x") { id }`)} } # ${randomUUID()}`.slice(0, 10_000),
  'too many tokens': () => `{ ${times(1_000, (index) => `f${index}`)} } # ${randomUUID()}`,
  'too long': () => `{ ${times(9_000, () => 'id')} } # ${randomUUID()}`,
  'too dear': () =>
    `{ ${times(6, (index) => `p${index}: orders(accountId: "${randomUUID()}", first: 100) { isComplete }`)} }`,
  'a ladder of fragments': () =>
    `{ order(id: "x") { ...F0 } } ${times(60, (index) => `fragment F${index} on Order { a${index}: id ...F${index + 1} ...F${index + 1} }`)} fragment F60 on Order { id } # ${randomUUID()}`,
  'fields without a name of the schema': () => `{ ${times(900, (index) => `u${index}`)} } # ${randomUUID()}`,
  'the same field again and again': () => `{ ${times(100, () => 'order(id: "x") { id }')} } # ${randomUUID()}`,
  'no GraphQL': () => `{ ${randomUUID()} ${'('.repeat(900)}`,
}

const toBody = (query: string): string => JSON.stringify({ query })
const refusedEach = 200
const rounds = 3

/** Takes about half a minute, and `roundMs` for each of nine rounds. */
export async function measureAbuse(options: AbuseOptions): Promise<AbuseFigures> {
  const { open, limited, headersOf, flood, floodBeside, rate, orderIds, roundMs } = options
  const headers = await headersOf('somebody')
  const stranger = await headersOf('stranger')
  const reads = orderIds.map((id) => toBody(`{ order(id: "${id}") { id status } }`))

  const refusedMs = new Map<string, number>()
  for (const [kind, write] of Object.entries(abusive)) {
    const send = async (): Promise<number> => {
      const before = await open.readCpuMs()
      const bodies = Array.from({ length: refusedEach }, () => toBody(write()))
      await flood({ url: open.url, headers, bodies, perSecond: 400, requests: refusedEach })
      return ((await open.readCpuMs()) - before) / refusedEach
    }
    await send()
    refusedMs.set(kind, await send())
  }

  const callers = reads.slice(0, 8).map((body) => [body])
  const junk = (count: number): string[] =>
    Array.from({ length: count }, (_, index) =>
      toBody(Object.values(abusive)[index % Object.keys(abusive).length]?.() ?? ''),
    )
  const shares: number[] = []
  await rate(open.url, callers, headers, roundMs)
  for (let round = 0; round < rounds; round++) {
    const alone = await rate(open.url, callers, headers, roundMs)
    const requests = Math.ceil(roundMs / 10)
    const beside = floodBeside({ url: open.url, headers: stranger, bodies: junk(requests), perSecond: 100, requests })
    shares.push((await rate(open.url, callers, headers, roundMs)) / alone)
    await beside
  }

  const patient = { url: limited.url, headers, bodies: reads, perSecond: 5, requests: 40 }
  await flood({ ...patient, requests: 10 })
  const idle = await flood(patient)
  const flooding = floodBeside({
    url: limited.url,
    headers: stranger,
    bodies: reads,
    perSecond: 300,
    requests: 300 * 8,
  })
  const busy = await flood(patient)
  const { statuses } = await flooding
  if (busy.statuses['200'] !== patient.requests) throw new Error('a caller was refused because of another one')

  return {
    refusedMs,
    throughput: toMedian(shares),
    wait: toPercentile(busy.latenciesMs, 0.95) / toPercentile(idle.latenciesMs, 0.95),
    floodRefused: (statuses['429'] ?? 0) / (300 * 8),
  }
}

function toPercentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
