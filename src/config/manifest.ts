// Parses manifests of trusted documents, in the formats that frontend builds write.

/** The format of the manifests that Apollo's generators write for web, Kotlin and iOS. */
const apolloFormat = 'apollo-persisted-query-manifest'

const expected =
  'a JSON file that can be read: {"<id>": "<document>", …}, as graphql-codegen\'s client preset and Relay\'s compiler ' +
  `write it, or {"format": "${apolloFormat}", "version": 1, "operations": [{"id": …, "body": …}]}, as Apollo's generator does`

/** A manifest that cannot be used. The message says what is wrong or expected, and quotes nothing of the file. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError'
}

/** Returns the documents of a manifest by their ids, as the manifest spells them. Throws ManifestError. */
export function parseManifest(text: string): ReadonlyMap<string, string> {
  const manifest = parseJson(text)
  if (!isObject(manifest)) throw new ManifestError(`must name ${expected}`)
  // A plain manifest may have documents with the ids `format` and `operations`, but those are texts.
  const isApollo = 'operations' in manifest && typeof manifest['operations'] !== 'string'
  return isApollo || manifest['format'] === apolloFormat ? readApollo(manifest) : readTexts(manifest)
}

function readTexts(manifest: Readonly<Record<string, unknown>>): ReadonlyMap<string, string> {
  const texts = new Map<string, string>()
  for (const [id, text] of Object.entries(manifest)) {
    if (typeof text !== 'string') throw new ManifestError(`must name ${expected}`)
    texts.set(id, text)
  }
  if (texts.size === 0) throw new ManifestError('names a manifest without documents: build the frontend again')
  return texts
}

function readApollo({ format, version, operations }: Readonly<Record<string, unknown>>): ReadonlyMap<string, string> {
  if (format !== apolloFormat) {
    throw new ManifestError(`names a manifest with operations whose "format" is not "${apolloFormat}"`)
  }
  if (version !== 1) {
    throw new ManifestError('names a manifest of Apollo whose "version" is not 1, the only supported one')
  }
  if (!Array.isArray(operations) || operations.length === 0) {
    throw new ManifestError('names a manifest of Apollo without "operations": build the frontend again')
  }
  const texts = new Map<string, string>()
  for (const [index, operation] of operations.entries()) {
    const { id, body }: Record<string, unknown> = isObject(operation) ? operation : {}
    const place = `operation ${index + 1} of ${operations.length}`
    if (typeof id !== 'string' || id === '' || typeof body !== 'string' || body === '') {
      throw new ManifestError(
        `names a manifest of Apollo whose ${place} lacks an "id" or a "body", which must be texts`,
      )
    }
    if (texts.has(id) && texts.get(id) !== body) {
      throw new ManifestError(`names a manifest of Apollo whose ${place} has the id of another one with another body`)
    }
    texts.set(id, body)
  }
  return texts
}

function parseJson(text: string): unknown {
  try {
    // Some editors begin a file with a byte order mark.
    return JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    // Drops the parser's error, because it quotes the file.
    return null
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
