import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { projectRoot } from './native.js'

/** This program's version, from its package. */
export const version = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(join(projectRoot(), 'package.json'), 'utf8'))).version
