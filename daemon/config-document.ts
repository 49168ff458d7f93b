// A YAML file as a value whose parts can be pointed at: messages name the line and the column.

import { LineCounter, isMap, isScalar, isSeq, parseDocument } from 'yaml'
import { CaracalError } from './errors.js'

export type ConfigPath = readonly PropertyKey[]

/** A parsed configuration file. */
export class ConfigDocument {
  /** What the file says; an empty file is an empty mapping. */
  readonly value: unknown
  private readonly root: unknown
  private readonly counter = new LineCounter()

  /**
   * @param name of the file, for messages
   * @throws CaracalError CARACAL_E_CONFIG with line and column when it is not YAML
   */
  constructor(
    text: string,
    private readonly name: string,
  ) {
    const document = parseDocument(text, { lineCounter: this.counter, prettyErrors: false })
    const error = document.errors[0]
    if (error !== undefined)
      throw this.problem(this.place(error.pos[0]), error.message, 'correct it; YAML wants spaces, not tabs')
    this.root = document.contents
    try {
      this.value = document.toJS() ?? {}
    } catch {
      throw this.problem('', 'too many aliases', 'write the values out')
    }
  }

  /** An error about the part at `path`; with `key`, about that key of the mapping there. */
  error(path: ConfigPath, message: string, next: string, key?: string): CaracalError {
    const offset = offsetOf(this.root, key === undefined ? path : [...path, key], key !== undefined)
    return this.problem(offset === undefined ? '' : this.place(offset), message, next)
  }

  private place(offset: number): string {
    const { line, col } = this.counter.linePos(offset)
    return `, line ${line}, column ${col}`
  }

  private problem(place: string, message: string, next: string): CaracalError {
    return new CaracalError('CARACAL_E_CONFIG', `${this.name}${place}: ${message}`, next)
  }
}

/** Where the part at the path, or the nearest part around it, begins. */
function offsetOf(root: unknown, path: ConfigPath, atKey: boolean): number | undefined {
  let node = root
  let offset = startOf(node)
  for (const [depth, step] of path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step))
      if (pair === undefined) return offset
      const wantKey = atKey && depth === path.length - 1
      offset = (wantKey ? undefined : startOf(pair.value)) ?? startOf(pair.key) ?? offset
      node = pair.value
    } else if (isSeq(node) && typeof step === 'number') {
      node = node.items[step]
      offset = startOf(node) ?? offset
    } else {
      return offset
    }
  }
  return offset
}

function startOf(node: unknown): number | undefined {
  if (isMap(node) || isSeq(node) || isScalar(node)) return node.range?.[0]
  return undefined
}

/** The known word that is most like `word`, when one is alike. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const limit = Math.max(1, Math.floor(word.length / 3))
  let best: string | undefined
  let bestDistance = limit + 1
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate)
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance]
  }
  return best
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one word into the other. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)])
  for (let j = 0; j <= b.length; j++) rows[0]![j] = j
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, rows[i - 2]![j - 2]! + 1)
      rows[i]![j] = cost
    }
  }
  return rows[a.length]![b.length]!
}
