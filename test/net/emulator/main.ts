// The process of one emulated link: node main.js DEVICE-A DEVICE-B MTU SEED JSON-OF-SETTINGS. It makes two TUN devices and passes packets between them; who starts it moves them where
// they belong (see link.ts). It says `ready {}`, then answers each line on stdin, {"set": CHANGES, "direction": "ab"} or {"report": true}, by `answer JSON` or `failed WHY`, and ends
// with its stdin or when a device is gone.
//
// The devices have no offloads: the kernel cuts super-packets, and what a GSO send made, into single packets before we see them, and each has its own fate.

import { createInterface } from 'node:readline'
import { z } from 'zod'
import { NativeTun, type TunDevice } from '../../../daemon/tun.js'
import { packetBatch } from '../../../lib/wire/batch.js'
import { LinkDirection } from './link-direction.js'
import { changesShape, directionShape, linkSettingsShape } from './settings.js'

/** Batches of one device before the other has its turn. */
const ROUNDS = 8
const BATCH_PACKETS = 64
const BATCH_BYTES = 1 << 20

const commandShape = z.union([
  z.strictObject({ set: changesShape, direction: directionShape.optional() }),
  z.strictObject({ report: z.literal(true) }),
])

const [nameA = '', nameB = '', mtuText, seedText, settingsText = ''] = process.argv.slice(2)
const mtu = Number(mtuText)
const seed = Number(seedText)
const settings = linkSettingsShape.parse(JSON.parse(settingsText))
const open = (name: string) => new NativeTun({ name, mtu, vnetHeader: false, offload: 'none', up: false })
const [a, b] = [open(nameA), open(nameB)]
const directions = {
  ab: new LinkDirection(settings, seed, mtu, (batch) => b.writeBatch(batch)),
  ba: new LinkDirection(settings, seed + 0x10000, mtu, (batch) => a.writeBatch(batch)),
}
const incoming = packetBatch(BATCH_BYTES, BATCH_PACKETS)
let timer: NodeJS.Timeout | undefined
let dueAt = Infinity

function arm(): void {
  const next = Math.min(directions.ab.nextTimeout(), directions.ba.nextTimeout())
  if (next >= dueAt) return
  clearTimeout(timer)
  dueAt = next
  // Timers of this event loop are as fine as a millisecond, and early by less than one.
  timer = setTimeout(due, Math.max(1, Math.ceil(next - performance.now())))
}
function due(): void {
  dueAt = Infinity
  const now = performance.now()
  directions.ab.release(now)
  directions.ba.release(now)
  arm()
}
function pass(from: TunDevice, direction: LinkDirection): void {
  from.onReadable(() => {
    try {
      for (let i = 0; i < ROUNDS && from.readBatch(incoming) > 0; i++) direction.receive(performance.now(), incoming)
    } catch {
      // The device is gone, with the namespace that it was in.
      process.exit(0)
    }
    arm()
  })
}
pass(a, directions.ab)
pass(b, directions.ba)

function obey(line: string): unknown {
  const command = commandShape.parse(JSON.parse(line))
  if ('set' in command) {
    for (const name of directionShape.options)
      if (command.direction === undefined || command.direction === name) directions[name].set(command.set)
    return {}
  }
  const { ab, ba } = directions
  return { seed, settings: { ab: ab.settings, ba: ba.settings }, ab: ab.counts, ba: ba.counts }
}

console.log('ready {}')
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(`answer ${JSON.stringify(obey(line))}`)
  } catch (error) {
    console.log(`failed ${JSON.stringify(error instanceof Error ? error.message : String(error))}`)
  }
}
process.exit(0)
