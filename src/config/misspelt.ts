// Finds names in the environment that are probably misspelt settings. Without this check a misspelt setting is ignored, so that
// a service with TRADNG=halted would trade.

// Names with these beginnings are meant for Blotter.
const ownPrefix =
  /^(BLUUM|ARIES|PLACE|LIMIT|JWT|JWKS|TRUSTED|CORS|SANDBOX|ROUTER|STORE|DRAIN|SHUTDOWN)[A-Z]*_|^(KEEP_?ALIVE|PUBLIC_HOST|BREAKER|GRAPHIQL|INTROSPECTION|TRADING)/

// Settings of other programs that differ from one of ours in a letter or two.
const foreign = /^(HTTP|FTP|ALL)_PROXY$/i

// Names that Kubernetes sets for a service with the name of a broker.
const ofKubernetes = /_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)/

/**
 * Returns the names in `env` that are probably misspelt settings, with the nearest known name, in the order of `env`. These
 * names begin like a setting or differ from one in one or two letters. Ignores names without a value.
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
    // Short names must be closer, because a letter turns them into another word.
    const differenceMax = isOurs ? Infinity : spelt.length >= 8 ? 2 : spelt.length >= 5 ? 1 : 0
    const nearest = findNearest(spelt, known, differenceMax)
    return nearest === null ? [] : [{ name, nearest }]
  })
}

function findNearest(name: string, known: ReadonlySet<string>, differenceMax: number): string | null {
  let nearest: string | null = null
  let least = differenceMax
  for (const candidate of known) {
    // Only a name that begins like ours may differ by whole words.
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

/** Returns 1 plus the difference in words, if the longer name has all words of the shorter one; Infinity otherwise. */
function countWords(a: string, b: string): number {
  const [fewer = [], more = []] = [a.split('_'), b.split('_')].toSorted((x, y) => x.length - y.length)
  return fewer.every((word) => more.includes(word)) ? 1 + more.length - fewer.length : Infinity
}

/** Returns the number of letters to insert, delete, replace or swap with a neighbour to turn `a` into `b`. */
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
