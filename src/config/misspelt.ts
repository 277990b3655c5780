// Names in the environment that are probably misspelt settings. A misspelt setting is otherwise ignored in silence: a
// service with TRADNG=halted trades.

// Names that begin so are ours.
const ownPrefix =
  /^(BLUUM|ARIES|PLACE|LIMIT|JWT|JWKS|TRUSTED|CORS|SANDBOX|ROUTER|STORE|DRAIN|SHUTDOWN)[A-Z]*_|^(KEEP_?ALIVE|PUBLIC_HOST|BREAKER|GRAPHIQL|INTROSPECTION|TRADING)/

// Known to other programs, and one letter away from ours.
const foreign = /^(HTTP|FTP|ALL)_PROXY$/i

// What Kubernetes sets for a service that is called like a broker.
const ofKubernetes = /_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)/

/**
 * The names in `env` that are no settings but are meant to be: they begin like one, or differ from one in a letter or two.
 * Each with the nearest known name, in the order of `env`. Unset and empty ones are not looked at.
 */
export function findMisspelt(
  env: Readonly<Record<string, string | undefined>>,
  known: ReadonlySet<string>,
): { name: string; nearest: string }[] {
  return Object.entries(env).flatMap(([name, value = '']) => {
    if (value.trim() === '' || known.has(name) || foreign.test(name) || !/^[\w.-]{1,100}$/.test(name)) return []
    const spelt = name.toUpperCase().replaceAll(/[.-]/g, '_')
    if (ofKubernetes.test(spelt) || /^(tcp|udp):\/\//.test(value)) return []
    const isOurs = ownPrefix.test(spelt)
    // In short names a letter makes another word.
    const differenceMax = isOurs ? Infinity : spelt.length >= 8 ? 2 : spelt.length >= 5 ? 1 : 0
    const nearest = findNearest(spelt, known, differenceMax)
    return nearest === null ? [] : [{ name, nearest }]
  })
}

function findNearest(name: string, known: ReadonlySet<string>, differenceMax: number): string | null {
  let nearest: string | null = null
  let least = differenceMax
  for (const candidate of known) {
    // Only a name that is ours may differ by whole words.
    const byWords = differenceMax === Infinity ? countWords(name, candidate) : Infinity
    if (byWords >= least && Math.abs(candidate.length - name.length) > least) continue
    const difference = Math.min(byWords, countDifferences(name, candidate))
    if (difference < least || (nearest === null && difference <= least)) {
      nearest = candidate
      least = difference
    }
  }
  return nearest
}

/** One more than the words by which the longer name exceeds the shorter one; Infinity unless it has all words of that. */
function countWords(a: string, b: string): number {
  const [fewer = [], more = []] = [a.split('_'), b.split('_')].toSorted((x, y) => x.length - y.length)
  return fewer.every((word) => more.includes(word)) ? 1 + more.length - fewer.length : Infinity
}

/** Letters to insert, delete, replace or swap with their neighbor, until `a` is `b`. */
function countDifferences(a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1]
      let least = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + (isSame ? 0 : 1))
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (isSwapped) least = Math.min(least, (beforeLast[j - 2] ?? 0) + 1)
      row.push(least)
    }
    beforeLast = last
    last = row
  }
  return last[b.length] ?? 0
}
