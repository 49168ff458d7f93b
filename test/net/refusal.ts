import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Fixture, Result } from './fixture.js'

/** Asserts that a command was refused as a person wants it: one line that says what is wrong and what to do, nothing else, and the right exit status. */
export function refused(t: Test, what: string, result: Result, status: 1 | 2, line: RegExp): void {
  const lines = result.err.trimEnd().split('\n')
  // A daemon's own log is JSON.
  const said = lines.filter((text) => !text.startsWith('{'))
  const shown = `${what}: exit ${result.code}, ${result.err.trim() || '(nothing on stderr)'}`
  const good =
    result.code === status &&
    said.length === 1 &&
    // "what: what to do next"
    /^caracal: .+: .+$/.test(said[0]!) &&
    line.test(said[0]!) &&
    !/\n\s+at |unexpected failure|"stack"/.test(result.err) &&
    result.out === ''
  t.ok(good, shown, { wanted: `exit ${status}, ${line}`, out: result.out })
}

const kernel = `
ip -o link | sed 's/^[0-9]*: //' | sort
ip -o addr | sed 's/^[0-9]*: //; s/valid_lft.*//' | sort
ip -4 route show table all | sort; ip -6 route show table all | sort
nft list ruleset; cat /etc/resolv.conf; ss -H -lntu | sort
`

/** Everything that a refused `caracal up` must leave as it was: state directory, control socket, devices, routes, firewall, sockets. */
export async function footprint(net: Fixture, host: string): Promise<string> {
  let out = ''
  await net.until('the addresses of the host are settled', async () => {
    out = (await net.run(host, kernel)).out
    return !out.includes(' tentative ')
  })
  const socket = existsSync(net.lab.path(host, 'control.sock')) ? 'control socket' : 'no control socket'
  return `${out}\n${socket}\n${folder(net.lab.path(host, 'state'))}`
}

function folder(path: string): string {
  if (!existsSync(path)) return 'no state'
  const line = (name: string) => {
    const file = join(path, name)
    const stats = statSync(file)
    const what = `${name} ${stats.mode.toString(8)}`
    if (stats.isSocket()) return what
    return `${what} ${createHash('sha256').update(readFileSync(file)).digest('hex')}`
  }
  return readdirSync(path).sort().map(line).join('\n')
}
