// The rate budget of one credential. A broker counts the requests of a key pair, whoever they are for, so all calls of
// a credential pass here, and those that matter more pass first; of those that matter alike, the callers take turns, so
// that one who asks for much keeps nobody else waiting. A call that cannot leave in time hears so at once:
// waiting for a refusal helps nobody, and it keeps the queue as short as the time that its callers have.

import { UpstreamError } from './errors.ts'

// The most urgent first.
const lanes = ['cancel', 'place', 'snapshot', 'lookup', 'read', 'list'] as const
/**
 * What a call is for, and so how urgent it is: cancel, place, a look before a placement, a look for one that was lost,
 * read of one, list.
 */
export type Lane = (typeof lanes)[number]

/** How much the broker grants. */
export interface BudgetOptions {
  /**
   * The rate that the broker grants the credential, in requests a second; 80 % of it are used, but at least 1. Below 4
   * too few are left to keep places for cancels: those then only go first.
   */
  perSecond: number
}

/**
 * Where a call counts against the rate: from when it is granted until a window after it was sent, since a connection may
 * take its time and the broker counts what arrives. Whoever holds one calls `release` in the end, sent or not.
 */
export interface Place {
  /** The headers leave now. Only the first call does anything, and none after `release`. */
  sent(): void
  /** The call is over: one that was never sent gives its place back at once. Does nothing after `sent`. */
  release(): void
}

/** The places in time in which the calls of one credential may leave. */
export interface Budget {
  /**
   * Resolves when a call may leave, which it should then do at once. The higher lane goes first; only a lane that has used
   * up its share lets those below it pass. Looks before placements have half of the places that placements may take, looks
   * for lost orders a fifth of all, each at least one. In a lane the callers take turns: next is the `caller` that has waited
   * longest since its last turn there, or since it came to wait, and of its calls the one that came first. Null, unless told,
   * is a caller like another.
   *
   * Rejects with an UpstreamError, `throttled` with the effect `none` and a `retryAfterMs` of 1 to 60,000, at once if the
   * place cannot come by `deadline` (epoch ms) even if no more come, and else when the deadline passes: those who come later
   * go before it where their lane is higher, or their caller's turn sooner. A deadline more than 60 s away counts as one in
   * 60 s. Rejects with the reason of `signal` when that aborts, which frees the place.
   *
   * No caller has more waiters in a lane than the places that come within 60 s, 55 × the limit, since one more is refused;
   * the one that has the second most has about half as many at most, the third a third, and so on. Nothing is kept of a
   * caller who does not wait.
   */
  acquire(lane: Lane, deadline: number, signal?: AbortSignal, caller?: string | null): Promise<Place>
  /**
   * The broker said 429: none is granted for `ms` (at most 60,000), no cancel either, and then half as many as before.
   * What was taken away comes back step by step within 20 s. The 429s of one burst halve once.
   * Returns the ms until the pause is over, which is longer than `ms` if an earlier 429 still pauses the calls.
   */
  pause(ms: number): number
  /** Refuses who waits and who comes, as `not_sent`, and leaves no timer behind. */
  close(): void
}

/** One lane: who waits in it, and what it has taken. */
interface Line {
  /** Those who wait, by caller: first the one whose turn is next, and of each in the order in which they came. */
  turns: Map<string | null, Set<Waiter>>
  /** How many they are. */
  waiting: number
  taken: Taken
}

/** Calls that count against a limit. */
interface Taken {
  /** When those of the last window were sent, oldest first. */
  sentAt: number[]
  /** Granted and not yet sent. */
  unsent: number
}

interface Waiter {
  lane: Lane
  caller: string | null
  /** By the clock of `performance.now`, as are all times in here but the deadlines that come in. */
  deadline: number
  /** It may go. */
  resolve: (place: Place) => void
  /** Its deadline has passed. */
  expire: () => void
  reject: (error: unknown) => void
}

// A second as the broker may see it: what travels slowly, and is followed by something prompt, comes closer than it left.
const windowMs = 1_100
const waitMsMax = 60_000
const pauseMsMax = 60_000
// Other lanes leave these free at any time, so that a cancel never queues behind a flood of reads.
const cancelPlaces = 2
const recoveryStepMs = 1_000
const recoveryStepsMax = 20

/** Whoever made it calls `close`. */
export function createBudget(options: BudgetOptions): Budget {
  return new RateBudget(options)
}

class RateBudget implements Budget {
  readonly #limitMax
  // Halved to fewer, they would leave no lane but that of the cancels a place.
  readonly #limitMin
  readonly #recoveryStep
  readonly #lines: Record<Lane, Line> = {
    cancel: createLine(),
    place: createLine(),
    snapshot: createLine(),
    lookup: createLine(),
    read: createLine(),
    list: createLine(),
  }
  // By all lanes together; never more than `limitMax`.
  readonly #taken = createTaken()
  readonly #counts = [this.#taken, ...lanes.map((lane) => this.#lines[lane].taken)]
  #unsentReads = 0
  #lastPacedAt = -Infinity
  #pausedUntil = -Infinity
  #limitAfterPause
  #halvedAt = -Infinity
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: BudgetOptions) {
    this.#limitMax = Math.max(1, Math.floor((options.perSecond * 4) / 5))
    this.#limitMin = this.#limitMax > cancelPlaces ? cancelPlaces + 1 : 1
    this.#recoveryStep = Math.ceil(this.#limitMax / recoveryStepsMax)
    this.#limitAfterPause = this.#limitMax
  }

  pause(ms: number): number {
    const at = this.#now()
    // Calls that left before the first 429 came back tell of the same excess, not of a new one.
    if (at >= Math.max(this.#pausedUntil, this.#halvedAt + windowMs)) {
      this.#limitAfterPause = Math.max(this.#limitMin, Math.floor(this.#limitAt(at) / 2))
      this.#halvedAt = at
      this.#pausedUntil = at
    }
    this.#pausedUntil = Math.max(this.#pausedUntil, at + Math.min(Math.max(0, ms), pauseMsMax))
    this.#pump()
    return this.#pausedUntil - at
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    for (const lane of lanes) {
      for (const ofCaller of this.#lines[lane].turns.values()) {
        for (const waiter of ofCaller) waiter.reject(closedError())
      }
    }
  }

  // Not the wall clock: a step of it would open the window early, or shut it for an hour.
  #now(): number {
    return performance.now()
  }

  #limitAt(at: number): number {
    const steps = Math.max(0, Math.floor((at - this.#pausedUntil) / recoveryStepMs))
    return Math.min(this.#limitMax, this.#limitAfterPause + steps * this.#recoveryStep)
  }

  #placesOf(lane: Lane, at: number): number {
    const limit = this.#limitAt(Math.max(at, this.#pausedUntil))
    return lane === 'cancel' ? limit : Math.max(1, limit - cancelPlaces)
  }

  // How many of them the lane may have. A look before a placement is followed by the placement, which does not wait for
  // long: looks that take all the places when many orders come at once would leave none of these one in time.
  #shareOf(lane: Lane, at: number): number {
    if (lane === 'snapshot') return Math.max(1, Math.floor(this.#placesOf(lane, at) / 2))
    if (lane === 'lookup') return Math.max(1, Math.floor(this.#limitAt(Math.max(at, this.#pausedUntil)) / 5))
    return this.#placesOf(lane, at)
  }

  #forgetSent(at: number): void {
    for (const { sentAt } of this.#counts) {
      while (sentAt[0] !== undefined && sentAt[0] + windowMs <= at) sentAt.shift()
    }
  }

  // When one of `places` is free beside those `used`, if `countAhead` others take one in each window from now on: each
  // place that is taken comes free a window later. Exact but for the places that a pause took and that are still coming
  // back, and for the calls that are not sent yet: they are expected to be sent now.
  #findFree(used: Taken, places: number, at: number, countAhead: (window: number) => number): number {
    const base = Math.max(at, this.#pausedUntil)
    const count = countTaken(used)
    let index = count + countAhead(0)
    let window = 0
    while (index >= count) {
      if (index < places) return base + window * windowMs
      window++
      index += countAhead(window) - places
    }
    return Math.max((used.sentAt[index] ?? at) + window * windowMs, base + (window - 1) * windowMs)
  }

  // When a call of `lane` can leave that is asked for by `caller` now, if no more come.
  #estimate(lane: Lane, caller: string | null, at: number): number {
    const ahead = countAhead(this.#lines[lane], caller)
    const ofAll = this.#findFree(this.#taken, this.#placesOf(lane, at), at, (window) =>
      this.#countGoing(lane, ahead, window, at),
    )
    const ofShare = this.#findFree(this.#lines[lane].taken, this.#shareOf(lane, at), at, (window) =>
      window === 0 ? ahead : 0,
    )
    return Math.max(ofAll, ofShare)
  }

  // How many of those `ahead` in `lane` and of all who wait above take a place in that window from now on, 0 being the one
  // that runs: what waits beyond the share of its lane goes in a later one, and is in nobody's way until then.
  #countGoing(lane: Lane, ahead: number, window: number, at: number): number {
    let going = 0
    for (const other of lanes) {
      const { waiting, taken: own } = this.#lines[other]
      const share = this.#shareOf(other, at)
      const first = Math.max(0, share - countTaken(own))
      const before = window === 0 ? 0 : first + (window - 1) * share
      const queued = other === lane ? ahead : waiting
      going += Math.min(Math.max(0, queued - before), window === 0 ? first : share)
      if (other === lane) break
    }
    return going
  }

  // Reads that take the last quarter of the places leave one by one. Leaving all at once, they would come free all at
  // once a second later, for ever, and a placement that comes between would find no place for the whole of it.
  #paceAt(lane: Lane, at: number): number {
    if (!isPaced(lane)) return at
    const places = this.#placesOf(lane, at)
    const atOnce = Math.max(1, Math.floor(places * 0.75))
    // Nor do they take it while so many reads are not sent: where the connections for reads hang, no read leaves any
    // sooner for its place, and placements, which have connections of their own, would find none.
    if (this.#unsentReads >= atOnce) return at + windowMs
    if (countTaken(this.#taken) < atOnce) return at
    return this.#lastPacedAt + windowMs / places
  }

  #refuse(lane: Lane, until: number, at: number): UpstreamError {
    const retryAfterMs = Math.min(Math.max(1, Math.ceil(until - at)), waitMsMax)
    return new UpstreamError('throttled', `no place for a call (${lane}) in the rate budget in time`, {
      effect: 'none',
      retryAfterMs,
    })
  }

  // Who leaves next, if that is now, else when to look again: Infinity when nobody waits.
  #findNext(at: number): Waiter | number {
    let againAt = Infinity
    for (const lane of lanes) {
      const { turns, taken: own } = this.#lines[lane]
      const [ofNext] = turns.values()
      const [first] = ofNext ?? []
      if (first === undefined) continue
      const shareAt = this.#findFree(own, this.#shareOf(lane, at), at, countNobody)
      if (shareAt > at) {
        againAt = Math.min(againAt, shareAt)
        continue
      }
      // No lower lane may leave before it: what else holds back a lane holds back those below as well.
      const readyAt = Math.max(
        this.#findFree(this.#taken, this.#placesOf(lane, at), at, countNobody),
        this.#paceAt(lane, at),
      )
      return readyAt > at ? Math.min(againAt, readyAt) : first
    }
    return againAt
  }

  #takePlace(lane: Lane): Place {
    const { taken: own } = this.#lines[lane]
    const read = isPaced(lane) ? 1 : 0
    let isUnsent = true
    this.#taken.unsent++
    own.unsent++
    this.#unsentReads += read
    const end = (wasSent: boolean): void => {
      if (!isUnsent) return
      isUnsent = false
      this.#taken.unsent--
      own.unsent--
      this.#unsentReads -= read
      if (wasSent) {
        const at = this.#now()
        this.#taken.sentAt.push(at)
        own.sentAt.push(at)
      }
      this.#pump()
    }
    return { sent: () => end(true), release: () => end(false) }
  }

  /** Lets leave what may, and wakes up again when the next one may. */
  #pump(): void {
    clearTimeout(this.#timer)
    for (;;) {
      const at = this.#now()
      this.#forgetSent(at)
      const next = this.#findNext(at)
      if (typeof next === 'number') {
        if (next !== Infinity) this.#timer = setTimeout(() => this.#pump(), Math.ceil(next - at))
        return
      }
      // Its timer is late, as after a pause of the process.
      if (next.deadline <= at) {
        next.expire()
        continue
      }
      if (isPaced(next.lane)) this.#lastPacedAt = at
      next.resolve(this.#takePlace(next.lane))
      passTurn(this.#lines[next.lane], next.caller)
    }
  }

  acquire(lane: Lane, deadline: number, signal?: AbortSignal, caller: string | null = null): Promise<Place> {
    return new Promise((resolve, reject) => {
      const at = this.#now()
      const leftMs = Math.min(deadline - Date.now(), waitMsMax)
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      if (this.#isClosed) {
        reject(closedError())
        return
      }
      this.#forgetSent(at)
      const expected = this.#estimate(lane, caller, at)
      if (expected >= at + leftMs) {
        reject(this.#refuse(lane, expected, at))
        return
      }

      const waiter: Waiter = {
        lane,
        caller,
        deadline: at + leftMs,
        resolve(place) {
          leave()
          resolve(place)
        },
        expire: () => {
          const lateAt = this.#now()
          this.#forgetSent(lateAt)
          waiter.reject(this.#refuse(lane, this.#estimate(lane, caller, lateAt), lateAt))
        },
        reject(error) {
          leave()
          reject(error)
        },
      }
      const leave = (): void => {
        removeFrom(this.#lines[lane], waiter)
        clearTimeout(deadlineTimer)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        waiter.reject(signal?.reason)
        this.#pump()
      }
      const onDeadline = (): void => {
        waiter.expire()
        this.#pump()
      }
      const deadlineTimer = setTimeout(onDeadline, leftMs)
      signal?.addEventListener('abort', onAbort)
      addTo(this.#lines[lane], waiter)
      this.#pump()
    })
  }
}

// A look before a placement goes with it.
function isPaced(lane: Lane): boolean {
  return lane !== 'cancel' && lane !== 'place' && lane !== 'snapshot'
}

function createLine(): Line {
  return { turns: new Map(), waiting: 0, taken: createTaken() }
}

// A caller that did not wait is the last to have a turn, wherever it stood before: nobody goes ahead of those who wait by
// leaving and coming back, and nothing need be kept of who has left.
function addTo(line: Line, waiter: Waiter): void {
  const own = line.turns.get(waiter.caller)
  if (own === undefined) line.turns.set(waiter.caller, new Set([waiter]))
  else own.add(waiter)
  line.waiting++
}

function removeFrom(line: Line, waiter: Waiter): void {
  const own = line.turns.get(waiter.caller)
  if (own?.delete(waiter) !== true) return
  if (own.size === 0) line.turns.delete(waiter.caller)
  line.waiting--
}

// One of the caller's calls has left: those of its that still wait have their turn after all others.
function passTurn({ turns }: Line, caller: string | null): void {
  const own = turns.get(caller)
  if (own === undefined) return
  turns.delete(caller)
  turns.set(caller, own)
}

// How many leave before one who comes for `caller` now, if no more come: all of its own, and of each other caller as many
// as it has turns until then, which are so many or one more.
function countAhead({ turns }: Line, caller: string | null): number {
  const own = turns.get(caller)?.size ?? 0
  let ahead = own
  // Those whose turn is before the caller's have one more. All have where the caller does not wait yet.
  let turnsUntilThen = own + 1
  for (const [other, waiters] of turns) {
    if (other === caller) turnsUntilThen = own
    else ahead += Math.min(waiters.size, turnsUntilThen)
  }
  return ahead
}

function createTaken(): Taken {
  return { sentAt: [], unsent: 0 }
}

function countTaken({ sentAt, unsent }: Taken): number {
  return sentAt.length + unsent
}

function countNobody(): number {
  return 0
}

function closedError(): UpstreamError {
  return new UpstreamError('not_sent', 'the calls to the broker are closed')
}
