// Loaded into each thread of a daemon before anything else (`node --import`): what the file CARACAL_TEST_BROKEN names of the native layer throws as long as that file is there.
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { projectRoot } from '../../daemon/our-files.js'

const broken = process.env.CARACAL_TEST_BROKEN ?? ''
const addon: Record<string, (...args: unknown[]) => unknown> = createRequire(import.meta.url)(
  join(projectRoot(), 'build/Release/caracal.node'),
)
for (const name of ['netlinkRead', 'tunRead']) {
  const real = addon[name]!
  addon[name] = (...args) => {
    if (existsSync(broken) && readFileSync(broken, 'utf8') === name) throw new Error(`${name} is broken`)
    return real(...args)
  }
}
