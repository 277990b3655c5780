// `blotter audit verify`: checks the audit of every placement.

import { OperatorError, withStore } from './operator.ts'
import type { Env } from './operator.ts'

/** Checks every chain of the audit. Returns the counts; throws OperatorError that names the first row which does not fit. */
export async function verifyAudit(env: Env): Promise<string> {
  return await withStore(env, async (store) => {
    const { placements, rows, broken } = await store.verifyAudit()
    const counts = `${placements} placements, ${rows} audit rows`
    if (broken === null) return `The audit is whole: ${counts}.`
    const place = broken.seq === 0 ? 'its record' : `audit row ${broken.seq}`
    throw new OperatorError(
      `The audit is broken at placement ${broken.opId}, ${place}: ${broken.what}. Read: ${counts}.`,
    )
  })
}
