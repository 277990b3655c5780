// The content of a seed: the instruments with their price at any time, and two accounts of each broker with a past. All of it is a
// function of the seed, so a restart computes it again and nothing is stored.

import { createHash } from 'node:crypto'
import { add, divide, floorCents, multiply, subtract, toDecimal, toText } from './amounts.ts'
import type { Decimal } from './amounts.ts'
import { deadlineOf, isOpen, orderTypes, remainingQuantity, timesInForce } from './orders.ts'
import type { Account, Asset, Broker, Leg, Market, NewOrder, Order, OrderSide, OrderType, Position } from './orders.ts'

// Prices are of the right size and otherwise made up.
const instruments = [
  { symbol: 'AAPL', name: 'Apple Inc.', venue: 'XNAS', cents: 19_000, tradable: true, fractionable: true },
  { symbol: 'MSFT', name: 'Microsoft Corporation', venue: 'XNAS', cents: 42_000, tradable: true, fractionable: true },
  { symbol: 'NVDA', name: 'NVIDIA Corporation', venue: 'XNAS', cents: 12_500, tradable: true, fractionable: true },
  { symbol: 'KO', name: 'The Coca-Cola Company', venue: 'XNYS', cents: 6_200, tradable: true, fractionable: true },
  { symbol: 'F', name: 'Ford Motor Company', venue: 'XNYS', cents: 1_150, tradable: true, fractionable: true },
  { symbol: 'TSLA', name: 'Tesla, Inc.', venue: 'XNAS', cents: 24_000, tradable: true, fractionable: true },
  { symbol: 'AMZN', name: 'Amazon.com, Inc.', venue: 'XNAS', cents: 18_500, tradable: true, fractionable: true },
  {
    symbol: 'BRK.B',
    name: 'Berkshire Hathaway Inc.',
    venue: 'XNYS',
    cents: 47_000,
    tradable: true,
    fractionable: false,
  },
  {
    symbol: 'TWTR',
    name: 'Twitter, Inc. (delisted)',
    venue: 'XNYS',
    cents: 5_370,
    tradable: false,
    fractionable: false,
  },
]

// The price is the base price plus waves of several lengths between random points. Together they stay within 18 % of the base, so
// that seeded orders at half or twice the base rest without filling.
const waves = [
  { periodMs: 16 * 86_400_000, share: 0.12 },
  { periodMs: 86_400_000, share: 0.04 },
  { periodMs: 3_600_000, share: 0.015 },
  { periodMs: 60_000, share: 0.003 },
  { periodMs: 1_000, share: 0.0005 },
]

function hash(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0)
}

function mix(a: number, b: number): number {
  let h = Math.imul(a ^ b, 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** The instruments of a seed. A price is constant within a second and costs the same to compute for any time. */
export function createMarket(seed: string): Market {
  const listed = new Map<string, { asset: Asset; cents: number; waves: number[]; lastAt: number; last: bigint }>()
  for (const { cents, ...asset } of instruments) {
    const id = uuid(`${seed} asset ${asset.symbol}`)
    const hashes = waves.map((_, index) => hash(`${seed} wave ${asset.symbol} ${index}`))
    listed.set(asset.symbol, { asset: { id, ...asset }, cents, waves: hashes, lastAt: Number.NaN, last: 0n })
  }
  return {
    asset: (symbol) => listed.get(symbol)?.asset,
    priceCents(symbol, atMs) {
      const entry = listed.get(symbol)
      if (entry === undefined) throw new Error(`no price of ${symbol}`)
      const time = Math.floor(atMs / 1000) * 1000
      // Every open order of a symbol asks for the same second in turn.
      if (entry.lastAt === time) return entry.last
      let share = 0
      for (const [index, wave] of waves.entries()) {
        const bucket = Math.floor(time / wave.periodMs)
        const waveHash = entry.waves[index] ?? 0
        const from = mix(waveHash, bucket) / 0x7fffffff - 1
        const to = mix(waveHash, bucket + 1) / 0x7fffffff - 1
        share += wave.share * (from + (to - from) * ((time - bucket * wave.periodMs) / wave.periodMs))
      }
      // A made-up shape, so floating point may draw it; from the rounding on it is money and exact.
      entry.last = BigInt(Math.round(entry.cents * (1 + share)))
      entry.lastAt = time
      return entry.last
    },
  }
}

function uuid(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** `length` lower-case letters and digits that follow from the text. */
export function letters(text: string, length: number): string {
  const digest = createHash('sha256').update(text).digest()
  return Array.from(digest.subarray(0, length), (byte) => (byte % 36).toString(36)).join('')
}

/** Accounts of one broker and what they did. */
interface Past {
  accounts: Account[]
  positions: Position[]
  orders: Order[]
  /** Orders of the first account to show. */
  demo: { filledOrderId: string; openOrderId: string }
}

export interface Seeded {
  bluum: Past
  aries: Past
  /** A limit price far below the market for a buy that rests. */
  resting: { symbol: string; limitPrice: string }
}

const historyStart = Date.UTC(2026, 0, 5, 14, 30)
const minuteMs = 60_000
const rejections = [
  { rejectReason: 'Not enough cash when the order came to trade.', refused: 'funds' },
  { rejectReason: 'Market is closed.', refused: 'marketClosed' },
  { rejectReason: 'Price too far from the market.' },
] as const
const fractions = ['0.5', '2.25', '1.125', '0.000000001']
const commissions = [
  { commission: '1.00', commissionType: 'notional' },
  { commission: '0.005', commissionType: 'qty' },
  { commission: '2.50', commissionType: 'bps' },
] as const

// Aries knows no trailing stops. The order of each list is that of the orders that rest.
const restingTypes: Record<Broker, readonly OrderType[]> = {
  bluum: ['limit', 'limit', 'stop', 'limit', 'stop_limit', 'trailing_stop'],
  aries: ['limit', 'limit', 'stop', 'limit', 'stop_limit', 'stop'],
}
const typesOf: Record<Broker, readonly OrderType[]> = {
  bluum: orderTypes,
  aries: orderTypes.filter((type) => type !== 'trailing_stop'),
}

/** Two accounts for each broker, the past of each from January to March 2026. The first of two is the one to show. */
export function seedHistory(seed: string, market: Market): Seeded {
  const past = (broker: Broker, number: number, orders: number, stepMinutesMax: number, cashCents: bigint) =>
    createAccountPast(seed, market, { broker, number, orders, stepMinutesMax, cashCents }).make()
  const optionsDesk = past('aries', 4, 30, 5_800, 25_000_000n)
  optionsDesk.orders.push(...seedOptions(seed, optionsDesk.account))
  return {
    bluum: gather(past('bluum', 1, 240, 880, 100_000_000n), past('bluum', 2, 40, 4_400, 25_000_000n)),
    aries: gather(past('aries', 3, 120, 1_760, 100_000_000n), optionsDesk),
    resting: { symbol: 'AAPL', limitPrice: farPrice('AAPL', 'buy') },
  }
}

/** The past of one account to make up. */
interface WantedPast {
  broker: Broker
  number: number
  orders: number
  stepMinutesMax: number
  cashCents: bigint
}

interface AccountPast {
  account: Account
  positions: Position[]
  orders: Order[]
}

function gather(...accounts: [AccountPast, ...AccountPast[]]): Past {
  const { orders } = accounts[0]
  const filled = orders.findLast((order) => order.status === 'filled' && order.quantity !== null)
  const open = orders.findLast((order) => order.status === 'accepted' && order.type === 'limit')
  if (filled === undefined || open === undefined) throw new Error('the seeded history lacks an order to show')
  return {
    accounts: accounts.map(({ account }) => account),
    positions: accounts.flatMap(({ positions }) => positions),
    orders: accounts.flatMap((one) => one.orders),
    demo: { filledOrderId: filled.id, openOrderId: open.id },
  }
}

/** Half the base price below the market, or twice it above: a price the path never reaches. */
function farPrice(symbol: string, side: OrderSide): string {
  const cents = BigInt(instruments.find((instrument) => instrument.symbol === symbol)?.cents ?? 0)
  return toText({ units: side === 'buy' ? cents / 2n : cents * 2n, scale: 2 }, 2)
}

function createAccountPast(seed: string, market: Market, wanted: WantedPast) {
  return new PastMaker(seed, market, wanted)
}

class PastMaker {
  readonly #market: Market
  readonly #wanted: WantedPast
  readonly #broker
  readonly #number
  readonly #isBluum
  readonly #name
  // Four digits in the one example of Aries' ids. The last of them keeps the two accounts apart.
  readonly #accountId
  readonly #types
  readonly #positions = new Map<string, Position>()
  readonly #orders: Order[] = []
  #drawn
  #time = historyStart

  constructor(seed: string, market: Market, wanted: WantedPast) {
    this.#market = market
    this.#wanted = wanted
    const { broker, number } = wanted
    this.#broker = broker
    this.#number = number
    this.#isBluum = this.#broker === 'bluum'
    this.#name = `${seed} account ${this.#number}`
    this.#accountId = this.#isBluum ? uuid(this.#name) : `ACC-${100 + (hash(`${this.#name} id`) % 900)}${this.#number}`
    this.#types = typesOf[this.#broker]
    this.#drawn = hash(`${this.#name} history`)
  }

  make(): AccountPast {
    for (let i = 0; i < this.#wanted.orders; i++) this.#addOrder(i)
    for (const position of this.#positions.values()) {
      // Averages of a long past have many digits; a broker's books start clean.
      position.cost = toText({ units: floorCents(toDecimal(position.cost)), scale: 2 })
    }
    const account: Account = {
      id: this.#accountId,
      broker: this.#broker,
      number: String(500_000_000 + (hash(`${this.#name} number`) % 100_000_000)),
      walletId: `w_${letters(`${this.#name} wallet`, 12)}`,
      status: 'ACTIVE',
      // The cash of today. The deposits of the past are not kept, so nothing has to add up to it.
      cashCents: String(this.#wanted.cashCents),
      createdAt: Date.UTC(2026, 0, 2, 9),
    }
    return { account, positions: [...this.#positions.values()], orders: this.#orders }
  }

  /** The next whole number from 0 up to but not including `below`. */
  #draw(below: number): number {
    this.#drawn = (this.#drawn + 0x6d2b79f5) >>> 0
    return mix(this.#drawn, 0x2545f491) % below
  }

  #freeShares(symbol: string): Decimal {
    let free = toDecimal(this.#positions.get(symbol)?.quantity ?? '0')
    for (const order of this.#orders) {
      const holds = isOpen(order) && order.side === 'sell' && order.symbol === symbol
      if (holds) free = subtract(free, toDecimal(remainingQuantity(order)))
    }
    return free
  }

  #fill(order: Order, quantity: string, priceText: string): void {
    const value = multiply(toDecimal(quantity), toDecimal(priceText))
    order.filledQuantity = quantity
    order.filledValue = toText(value)
    const id = `pos_${letters(`${this.#name} position ${order.symbol}`, 16)}`
    const blank = {
      id,
      accountId: this.#accountId,
      symbol: order.symbol,
      quantity: '0',
      cost: '0',
      createdAt: order.submittedAt,
    }
    const position = this.#positions.get(order.symbol) ?? { ...blank, changedAt: order.submittedAt }
    const before = toDecimal(position.quantity)
    const cost = toDecimal(position.cost)
    if (order.side === 'buy') {
      position.quantity = toText(add(before, toDecimal(quantity)))
      position.cost = toText(add(cost, value))
    } else {
      position.quantity = toText(subtract(before, toDecimal(quantity)))
      position.cost = toText(subtract(cost, divide(multiply(cost, toDecimal(quantity)), before, 12)))
    }
    position.changedAt = order.filledAt ?? order.canceledAt ?? order.submittedAt
    if (position.quantity === '0') this.#positions.delete(order.symbol)
    else this.#positions.set(order.symbol, position)
  }

  #addOrder(i: number): void {
    // Some orders share the very moment of their predecessor, so that ties show.
    if (i % 23 !== 22) this.#time += (5 + this.#draw(this.#wanted.stepMinutesMax)) * minuteMs
    const submittedAt = this.#time + (i % 5 === 0 && i % 23 !== 22 && i % 23 !== 21 ? 263 : 0)

    // First some buys to have shares, then every type with every time in force, then what chance brings. Half of all
    // orders are for one symbol, so that a filter still leaves several pages.
    const opening = i < 8
    const rests = i > 20 && i % 10 === 3
    const listing = i - 8 < 60 && !rests
    const symbol = this.#draw(2) === 0 ? 'AAPL' : (instruments[opening ? i % 8 : this.#draw(8)]?.symbol ?? 'AAPL')
    const fractionable = this.#market.asset(symbol)?.fractionable === true
    const type: OrderType = opening
      ? 'market'
      : rests
        ? (restingTypes[this.#broker][Math.floor(i / 10) % 6] ?? 'limit')
        : (this.#types[listing ? i % this.#types.length : this.#draw(this.#types.length)] ?? 'limit')
    const timeInForce = opening
      ? 'day'
      : rests
        ? 'gtc'
        : (timesInForce[listing ? Math.floor(i / 5) % 6 : this.#draw(6)] ?? 'day')
    let quantity = String((opening ? 40 : 1) + this.#draw(12))
    if (fractionable && i % 9 === 4) quantity = fractions[Math.floor(i / 9) % fractions.length] ?? quantity
    if (rests) quantity = String(2 + this.#draw(9))
    const sellable = subtract(this.#freeShares(symbol), toDecimal(quantity)).units >= 0n
    const side: OrderSide = !opening && sellable && this.#draw(5) < 2 ? 'sell' : 'buy'
    const notional =
      this.#isBluum && type === 'market' && side === 'buy' && fractionable && !opening && this.#draw(3) === 0

    const outcome = opening
      ? 'filled'
      : rests
        ? type === 'limit' && i % 40 === 23
          ? 'partially_filled'
          : 'accepted'
        : i % 19 === 7
          ? 'rejected'
          : type !== 'market' && this.#draw(4) === 0
            ? 'canceled'
            : 'filled'
    const soon = type === 'market' || timeInForce === 'ioc' || timeInForce === 'fok'
    const endedAt = submittedAt + (soon ? 1000 * (1 + this.#draw(3)) : 1000 * (20 + this.#draw(15_000)))
    const priceText = toText({ units: this.#market.priceCents(symbol, endedAt), scale: 2 }, 2)
    const far = { buy: farPrice(symbol, 'buy'), sell: farPrice(symbol, 'sell') }
    const limit = rests ? (type === 'stop_limit' ? (side === 'buy' ? far.sell : far.buy) : far[side]) : priceText
    const stop = rests ? (side === 'buy' ? far.sell : far.buy) : priceText
    const commission = this.#isBluum && i % 3 === 0 ? commissions[Math.floor(i / 3) % 3] : undefined
    const percent = type === 'trailing_stop' && (rests || this.#draw(2) === 0)
    const fields: NewOrder = {
      symbol,
      side,
      type,
      timeInForce,
      quantity: notional ? null : quantity,
      notional: notional ? `${50 + this.#draw(900)}.00` : null,
      limitPrice: type === 'limit' || type === 'stop_limit' ? limit : null,
      stopPrice: type === 'stop' || type === 'stop_limit' ? stop : null,
      trailPercent: percent ? (rests ? '60' : '3.5') : null,
      trailPrice: type === 'trailing_stop' && !percent ? '2.50' : null,
      // Aries has extended hours as a time in force in addition to DAY.
      extendedHours: this.#isBluum ? i % 13 === 6 : timeInForce === 'day' && i % 3 === 0,
      clientOrderId: i % 5 === 4 ? null : `history-${this.#number}-${String(i + 1).padStart(4, '0')}`,
      commission: commission?.commission ?? null,
      commissionType: commission?.commissionType ?? null,
    }
    const order: Order = {
      ...fields,
      id: `ord_${letters(`${this.#name} order ${i}`, 16)}`,
      accountId: this.#accountId,
      status: outcome,
      filledQuantity: '0',
      filledValue: '0',
      submittedAt,
      filledAt: outcome === 'filled' ? endedAt : null,
      canceledAt: outcome === 'canceled' ? endedAt : null,
      rejectReason: null,
      ...(outcome === 'rejected' ? rejections[Math.floor(i / 19) % 3] : {}),
      // A trailing buy by 60 percent holds what its stop could rise to.
      heldPrice: type === 'limit' ? limit : type === 'trailing_stop' ? far.sell : stop,
      triggered: false,
      bestPriceCents: null,
    }
    if (outcome === 'filled') {
      const bought = divide(toDecimal(order.notional ?? '0'), toDecimal(priceText), 9)
      this.#fill(order, order.quantity ?? toText(bought), priceText)
    } else if (outcome === 'partially_filled' || (outcome === 'canceled' && i % 3 === 0)) {
      // The market never had half the price, but the part that filled belongs to the invented past.
      const part = divide(toDecimal(quantity), { units: 2n, scale: 0 }, 0)
      if (part.units > 0n) this.#fill(order, toText(part), order.limitPrice ?? priceText)
      else if (outcome === 'partially_filled') order.status = 'accepted'
    }
    // Aries distinguishes an order that expired from one that was canceled.
    const deadline = this.#isBluum || order.status !== 'canceled' ? null : deadlineOf(order)
    if (deadline !== null) {
      order.expired = true
      order.canceledAt = deadline
    }
    this.#orders.push(order)
  }
}

interface OptionWish {
  symbol: string
  side: OrderSide
  /** Made up, as options have no market here. */
  price: string
  status: 'accepted' | 'partially_filled' | 'filled' | 'canceled'
  legs: readonly (readonly [OrderSide, Leg['right'], strike: string])[]
}

const optionWishes: readonly OptionWish[] = [
  { symbol: 'KO', side: 'buy', price: '0.85', status: 'filled', legs: [['buy', 'call', '60']] },
  { symbol: 'KO', side: 'buy', price: '0.40', status: 'canceled', legs: [['buy', 'put', '55']] },
  { symbol: 'AAPL', side: 'buy', price: '6.15', status: 'accepted', legs: [['buy', 'call', '200']] },
  { symbol: 'AAPL', side: 'buy', price: '2.05', status: 'partially_filled', legs: [['buy', 'put', '150']] },
  { symbol: 'KO', side: 'sell', price: '1.10', status: 'accepted', legs: [['sell', 'call', '60']] },
  {
    symbol: 'KO',
    side: 'buy',
    price: '0.55',
    status: 'accepted',
    legs: [
      ['buy', 'call', '60'],
      ['sell', 'call', '62.5'],
    ],
  },
]
const optionsStart = Date.UTC(2026, 2, 20, 15)

/** Orders for two contracts each, a day apart. */
function seedOptions(seed: string, account: Account): Order[] {
  return optionWishes.map(({ symbol, side, price, status, legs }, index): Order => {
    const submittedAt = optionsStart + index * 24 * 60 * minuteMs
    const endedAt = submittedAt + 90 * minuteMs
    const filled = { accepted: '0', partially_filled: '1', filled: '2', canceled: '0' }[status]
    return {
      symbol,
      side,
      type: 'limit',
      timeInForce: 'gtc',
      quantity: '2',
      notional: null,
      limitPrice: price,
      stopPrice: null,
      trailPercent: null,
      trailPrice: null,
      extendedHours: false,
      clientOrderId: `option-${index + 1}`,
      commission: null,
      commissionType: null,
      id: `ord_${letters(`${seed} option order ${index}`, 16)}`,
      accountId: account.id,
      status,
      filledQuantity: filled,
      filledValue: toText(multiply(toDecimal(filled), toDecimal(price))),
      submittedAt,
      filledAt: status === 'filled' ? endedAt : null,
      canceledAt: status === 'canceled' ? endedAt : null,
      rejectReason: null,
      heldPrice: '0',
      triggered: false,
      bestPriceCents: null,
      manual: true,
      legs: legs.map(([legSide, right, strike]): Leg => {
        const effect = side === 'sell' ? 'close' : 'open'
        return { side: legSide, ratio: '1', right, strike, maturity: '2026-09-18', effect }
      }),
    }
  })
}
