// Loads what make.mjs has made: files of dist/bundle, in the form of CommonJS, with what V8 has compiled of them. Without that, or when it is of another V8, they are compiled anew.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Script } from 'node:vm'
import { builtFile } from '../our-files.js'

/** What V8 has compiled is taken by processes with the same flags only. What comes and goes while modules load would otherwise leave the heap larger by 16 MB for good. */
export const V8_FLAGS = ['--max-semi-space-size=1', '--no-memory-reducer'] as const

type Body = (
  exports: unknown,
  require: (name: string) => unknown,
  module: { exports: unknown },
  file: string,
  folder: string,
) => void

const folder = builtFile('bundle')
const others = createRequire(join(folder, 'index.cjs'))
const loaded = new Map<string, { exports: unknown }>()

/** What a file of dist/bundle exports; it is run at the first call. */
export function loadBundled(name: string): unknown {
  const known = loaded.get(name)
  if (known !== undefined) return known.exports
  const module = { exports: {} }
  loaded.set(name, module)
  const file = join(folder, name)
  const body: Body = compiled(file).runInThisContext()
  body(
    module.exports,
    (wanted) => (wanted.startsWith('./') ? loadBundled(wanted.slice(2)) : others(wanted)),
    module,
    file,
    folder,
  )
  return module.exports
}

/** The script of a file that make.mjs has written, all of it ASCII. */
export function compiled(file: string): Script {
  return new Script(readFileSync(file, 'latin1'), { filename: file, cachedData: compiledBefore(`${file}.cache`) })
}

function compiledBefore(file: string): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch {
    return undefined
  }
}
