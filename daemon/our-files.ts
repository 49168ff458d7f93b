// Where the files of this program are.

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CaracalError } from './errors.js'

/** The folder of our package.json: the sources and the compiled files lie at different depths below it. */
export function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder)
    if (parent === folder) throw new CaracalError('CARACAL_E_NATIVE', 'the folder of caracal has no package.json')
    folder = parent
  }
  return folder
}

/** Where a file of ours is when it is built, by its place below the project's folder. */
export function builtFile(place: string): string {
  return join(projectRoot(), 'dist', place)
}
