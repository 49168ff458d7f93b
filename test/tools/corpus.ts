import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { fromHex } from '../../lib/wire/ids.js'

/**
 * The inputs in test/fuzz/corpus/`folder` by file name (without `.hex`): hex digits, `#` begins a comment. Looked for above this file, then where
 * the tests were started. Throws when there are none.
 */
export function readCorpus(folder: string): ReadonlyMap<string, Uint8Array> {
  for (const root of [...above(dirname(fileURLToPath(import.meta.url))), process.cwd()]) {
    const directory = join(root, 'test', 'fuzz', 'corpus', folder)
    if (!existsSync(directory)) continue
    const names = readdirSync(directory).filter((name) => name.endsWith('.hex'))
    if (names.length === 0) continue
    return new Map(names.sort().map((name) => [name.slice(0, -4), parse(readFileSync(join(directory, name), 'utf8'))]))
  }
  throw new Error(`no inputs in test/fuzz/corpus/${folder}`)
}

function parse(text: string): Uint8Array {
  return fromHex(text.replace(/#.*$/gm, '').replace(/\s/g, ''))
}

function* above(directory: string): Iterable<string> {
  for (; directory !== dirname(directory); directory = dirname(directory)) yield directory
}
