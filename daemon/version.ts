import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { projectRoot } from './our-files.js'

const { version: number }: { version?: unknown } = JSON.parse(readFileSync(join(projectRoot(), 'package.json'), 'utf8'))

/** This program's version, from its package. */
export const version = String(number)
