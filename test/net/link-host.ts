// Holds a TUN device and its link settings for test/net/link.test.ts: one command a line on stdin, answered by `answer done …` or `answer failed …`.

import { createInterface } from 'node:readline'
import { systemCode } from '../../daemon/errors.js'
import { LinkSetup } from '../../daemon/link.js'
import { NativeTun } from '../../daemon/tun.js'
import { packetBatch } from '../../lib/wire/batch.js'

const link = new LinkSetup({
  tun: 'over0',
  mtu: 1420,
  self: ['198.18.0.1', 'fd12:3456:789a::1'],
  local: ['198.18.0.53', 'fd12:3456:789a::53'],
  routes: ['198.18.128.0/17', '198.19.128.0/17', 'fd12:3456:789a:d1a1::/64', 'fd12:3456:789a:9ee7::/64'],
  pools: ['198.18.0.0/15', 'fd12:3456:789a::/48'],
})
let tun: NativeTun | undefined

function waitGone(device: NativeTun): Promise<string> {
  const batch = packetBatch(1 << 19, 64)
  return new Promise((resolve) => {
    device.onReadable(() => {
      try {
        device.readBatch(batch)
      } catch (error) {
        resolve(systemCode(error) ?? 'none')
      }
    })
  })
}

async function obey(command: string, words: readonly string[]): Promise<unknown> {
  switch (command) {
    case 'setup':
      tun = new NativeTun({ name: 'over0', mtu: 1420 })
      await link.setup()
      return undefined
    case 'adopt':
      await link.adopt()
      return undefined
    case 'clean':
      return link.cleanStale()
    case 'add':
      return link.addLocal(words)
    case 'remove':
      return link.removeLocal(words)
    case 'conflicts':
      return JSON.stringify(await link.conflicts())
    case 'obstacles':
      return JSON.stringify(await link.firewallObstacles())
    case 'teardown':
      tun?.close()
      return link.teardown()
    case 'wait-gone':
      return tun === undefined ? 'none' : waitGone(tun)
    default:
      throw new Error(`no such command: ${command}`)
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(' ')
  try {
    const result = await obey(command!, words)
    console.log(`answer done${result === undefined ? '' : ` ${String(result)}`}`)
  } catch (error) {
    const kind = systemCode(error) ?? (error instanceof Error ? error.name : 'Error')
    console.log(`answer failed ${kind} ${error instanceof Error ? error.message : String(error)}`)
  }
}
