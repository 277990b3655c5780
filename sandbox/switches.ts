// The switches: the sandbox's behaviour in cases where the vendors' pages disagree or say nothing. The control port sets them, and
// they survive a restart.

import { clientOrderIdForms, termChanges } from './changes.ts'
import { marketModes } from './orders.ts'

/** The values of each switch; the first one is the default. */
const switchValues = {
  // Of every dialect.
  /** Orders outside market hours: they wait, are refused (BLUM-422-002), or are taken in as rejected. */
  market: marketModes,
  /** Whether an account may have a client order id twice, or a second one is refused: BLUM-409-001, or Aries' 400. */
  clientOrderIds: ['free', 'unique'],
  /**
   * The answers about an order that have its client_order_id; those to placements and cancels count as single reads. Aries has
   * clientId in lists only.
   */
  clientOrderIdEcho: ['everywhere', 'singleReads', 'nowhere'],
  /** How answers show client order ids; the broker's book keeps them as they were sent. */
  clientOrderIdForm: clientOrderIdForms,
  /** The term of an order that the broker changes on its own. */
  changedTerm: termChanges,
  /** Lists and single reads show orders as they are, or as they were two seconds ago on the exchange's clock. */
  readLag: ['none', 'seconds'],
  /**
   * Maximum rows of a page, even if its limit is larger; 0 for no cap. Only Bluum's bare arrays hide the cap. Bluum's list of
   * accounts in the accounts dialect has no pages.
   */
  pageCap: [0, 10, 25, 50, 75],

  // Of both dialects of Bluum.
  /** A key used before, with the same request: its first answer again, or BLUM-409-001 for any reuse. */
  idempotencyReuse: ['replay', 'conflict'],
  /** Whether an Idempotency-Key is honored: a broker may document it and place the order again. */
  idempotencyKeys: ['honored', 'ignored'],
  /** Whether list rows leave out extended_hours, commission, commission_type and client_order_id. */
  partialRows: [false, true],
  listOrder: ['newestFirst', 'oldestFirst'],
  /** A cancel of a canceled order: BLUM-409-003, or 200 with the order. Of one that filled it is always the former. */
  cancelOfCanceled: ['conflict', 'order'],

  // For the accounts dialect only. Lists and errors of the investors dialect have one envelope each.
  listEnvelope: ['array', 'object'],
  errorEnvelope: ['flat', 'nested', 'status'],
  /** A cancel takes effect before it is answered, or a second later, answered with the order still open. */
  cancels: ['atOnce', 'later'],

  // For the investors dialect only.
  /** A placement is answered as pending and then is at the custodian, or a second later, or before it is answered. */
  custody: ['afterAnswer', 'later', 'atOnce'],
  /** The word for an order that rests at the custodian; some of the vendor's pages have no open orders. */
  restingStatus: ['open', 'pending'],
  /** Whether submitted_at is null while the custodian does not have the order, or its creation time, as in one sample. */
  submittedAt: ['byCustodian', 'always'],
  /** The same as `cancels` for the accounts dialect. */
  investorCancels: ['later', 'atOnce'],
  cancelSuccess: [200, 202],
  /** Too little cash, too few shares, an untradable asset, a closed market: BLUM-422, or 201 and an order that fails. */
  refusals: ['http', 'failedOrder'],
  /** Whether qty, commission type qty and the status names of the accounts dialect are taken too, as from a demo client. */
  accountsWords: ['refused', 'taken'],
  /** The most that a list's limit may be. */
  listLimitMax: [200, 100],
  /** Whether a page with more rows behind it is only half as long as its limit. */
  shortPages: [false, true],
  /** A field without a value is left out, but for the times and the reason of failure; or it is null. */
  emptyFields: ['absent', 'null'],
  /** Orders as the reference has them, or as the guide: without created, livemode and investor_id. */
  envelopeKeys: ['reference', 'guide'],
  /** Whether reads of orders say object investor, and lists the url of deposits, as the reference's samples do. */
  templateLeftovers: [false, true],

  // Of Aries alone.
  /** The column of /v1/users/me/accounts that names the account in order calls; the document does not say. */
  tradingId: ['apex_account_id', 'id', 'fdid', 'sterling_account_id'],
  /** The name of the account in the body of a placement or a cancel; each release had another one. */
  ariesAccountField: ['either', 'accountId', 'tradingAccountId'],
  /** Whether a cancel must say the side: on the newest pages, not on older ones. */
  ariesSideOnCancel: ['required', 'optional'],
  /** A no to a placement or a cancel: 200 with success false, or 400 bad_request and no order of it anywhere. */
  ariesRefusals: ['successFalse', 'badRequest'],
  /** A cancel takes effect before it is answered, or a second later, answered with PENDING_CANCEL. */
  ariesCancels: ['atOnce', 'pending'],
  /** A cancel of an order that is final: success false with its status, or 404 as for an unknown one. */
  ariesCancelOfFinal: ['refused', 'notFound'],
  /** The clOrdId of a cancel's answer: one of its own, or that of the order, as in older examples. */
  ariesCancelIds: ['own', 'original'],
  /** Optional fields of an order without a value are empty text, or left out. */
  ariesEmpty: ['text', 'absent'],
  /** The word for stock in lists; some examples show EQUITY. */
  ariesSecurityType: ['CS', 'EQUITY'],
  /** An order is at the custodian before it is answered, or PENDING_NEW for a second. */
  ariesCustody: ['atOnce', 'later'],
  /** History has every order of its window, or only those that the active list has not: what ended before today. */
  ariesHistory: ['all', 'ended'],
  /** The order of the active list is not documented. */
  ariesActiveOrder: ['newestFirst', 'oldestFirst'],
  /** Whether source=cache shows orders as they were two seconds ago on the exchange's clock. */
  ariesCacheLag: ['none', 'seconds'],
  /** A refresh leaves the refresh token as it is, or gives another one and ends it. */
  ariesRefreshTokens: ['kept', 'rotated'],
  /** For how many seconds of the exchange's clock an access token is valid: "about one hour". */
  ariesTokenSeconds: [3600, 60],
} as const

export type Switches = { -readonly [Name in keyof typeof switchValues]: (typeof switchValues)[Name][number] }

const known = new Map<string, readonly unknown[]>(Object.entries(switchValues))

function areSwitches(values: object): values is Switches {
  const given = new Map<string, unknown>(Object.entries(values))
  return [...known].every(([name, allowed]) => allowed.includes(given.get(name)))
}

/** Switches as they were kept, as JSON; null: all by default. `onChange` is to keep them and to act on them. */
export function createSwitches(kept: string | null, onChange: (switches: Readonly<Switches>) => void) {
  const values: object = Object.fromEntries(Object.entries(switchValues).map(([name, [first]]) => [name, first]))
  if (!areSwitches(values)) throw new Error('a switch has no value')

  /** Merges what is given into the switches. Returns what is wrong with it, as text, having changed nothing. */
  const set = (change: unknown): string | null => {
    if (typeof change !== 'object' || change === null || Array.isArray(change)) return 'switches are an object'
    for (const [name, value] of Object.entries(change)) {
      const allowed = known.get(name)
      if (allowed === undefined) return `unknown switch "${name}"; there are ${[...known.keys()].join(', ')}`
      if (!allowed.includes(value)) {
        return `switch "${name}" is one of ${allowed.map((one) => JSON.stringify(one)).join(', ')}`
      }
    }
    Object.assign(values, change)
    onChange(values)
    return null
  }
  set(JSON.parse(kept ?? '{}'))

  return {
    /** As they stand; to be changed by `set` only. */
    values: values as Readonly<Switches>,
    set,
  }
}
