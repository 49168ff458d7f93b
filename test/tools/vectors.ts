import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * A file of published test vectors, out of `../shared/vectors` beside the project. undefined in a clone that stands alone: the caller checks
 * the few values in the test itself. Under CI the vectors must be there.
 */
export function readVectors(file: string): unknown {
  for (const root of projectRoots()) {
    const path = join(root, '..', 'shared', 'vectors', file)
    if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8'))
  }
  if (process.env['CI'] !== undefined) throw new Error(`../shared/vectors/${file} is required under CI`)
  return undefined
}

/** Where package.json stands: above this file, or where the tests were started. */
function* projectRoots(): Iterable<string> {
  for (let directory = dirname(fileURLToPath(import.meta.url)); ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'package.json'))) yield directory
    if (directory === dirname(directory)) break
  }
  yield process.cwd()
}
