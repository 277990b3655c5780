// Spreads the completion of list rows over turns of the event loop. graphql-js completes all fields of a list at once, so
// thousands of rows that arrive together would otherwise delay every other request.

/** Maximum rows completed per turn, unless one list is longer; about 20 ms of work with every field selected. */
const rowsPerTurn = 400

let rowsTaken = 0
let isScheduled = false
const waiting: { rows: number; start: () => void }[] = []

/**
 * Takes a turn for `rows` rows, in the order of the calls over all requests. Returns undefined if the rows may be completed
 * now, or a promise that resolves in their turn.
 */
export function takeTurn(rows: number): Promise<void> | undefined {
  schedule()
  if (waiting.length === 0 && fits(rows)) {
    rowsTaken += rows
    return undefined
  }
  return new Promise((start) => waiting.push({ rows, start }))
}

// A list that is longer than a turn gets a turn of its own.
function fits(rows: number): boolean {
  return rowsTaken === 0 || rowsTaken + rows <= rowsPerTurn
}

function schedule(): void {
  if (isScheduled) return
  isScheduled = true
  setImmediate(() => {
    isScheduled = false
    rowsTaken = 0
    for (let next = waiting[0]; next !== undefined && fits(next.rows); next = waiting[0]) {
      waiting.shift()
      rowsTaken += next.rows
      next.start()
    }
    if (waiting.length > 0) schedule()
  })
}
