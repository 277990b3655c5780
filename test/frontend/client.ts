// What a frontend needs beside its typed operations: one function over fetch.

import type { TypedDocumentString } from './generated/graphql.ts'

/**
 * Runs one operation at `url` and returns its data, typed by the document. Throws when the answer carries errors; a
 * frontend that wants partial data reads `errors` beside `data` instead.
 */
export async function request<Result, Variables>(
  url: string,
  document: TypedDocumentString<Result, Variables>,
  variables: Variables,
): Promise<Result> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' },
    body: JSON.stringify({ query: document, variables }),
  })
  const answer = (await response.json()) as { data?: Result; errors?: { message: string }[] }
  if (answer.errors || !answer.data) throw new Error(answer.errors?.[0]?.message ?? `HTTP ${response.status}`)
  return answer.data
}
