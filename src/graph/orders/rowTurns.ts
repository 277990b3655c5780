// Turns of the event loop for rows of answers. graphql-js completes all fields of a list at once, so thousands of rows that
// become known together would hold up every other request until the last of them is done.

/** Rows that are completed in one turn; about 20 ms of work with every field selected. */
const rowsPerTurn = 400

let rowsTaken = 0
let isScheduled = false
const waiting: { rows: number; start: () => void }[] = []

/**
 * Takes a turn for `rows` rows, first come, first served over all requests. Returns undefined if they may be completed now, else
 * a promise that resolves in the turn that is theirs.
 */
export function takeTurn(rows: number): Promise<void> | undefined {
  schedule()
  if (waiting.length === 0 && fits(rows)) {
    rowsTaken += rows
    return undefined
  }
  return new Promise((start) => waiting.push({ rows, start }))
}

// More rows than a turn has are a turn of their own.
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
