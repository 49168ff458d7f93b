// Started with a small tmpfs as its only one: opens flow files there while it has room and when it has none, and writes to all of what it was given. Prints what came of it as JSON.

import { writeFileSync } from 'node:fs'
import { FlowFile } from '../../../daemon/keeper/flow-file.js'

const BYTES = 1 << 20
const failed: string[] = []
const open = (owner: string) => FlowFile.open(owner, BYTES, true, (why) => failed.push(why))

const first = open('first')
let full = ''
try {
  writeFileSync('/dev/shm/rest', new Uint8Array(8 * BYTES))
} catch (error) {
  full = error instanceof Error ? error.message : String(error)
}
if (first !== undefined) new Uint8Array(first.memory).fill(1)
const second = open('second')
const again = open('first')
console.log(JSON.stringify({ first: first?.path, full, second: second?.path, again: again?.kept, failed }))
