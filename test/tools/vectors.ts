import { readFileSync } from 'node:fs'

/** A file of published test vectors, out of test/vectors. */
export function readVectors(file: string): unknown {
  return JSON.parse(readFileSync(new URL(`../../../test/vectors/${file}`, import.meta.url), 'utf8'))
}
