// Keeps a daemon busy with all that people, programs and machines ask it, each kind of question again as soon as it is answered. usage: node busy-asker.js SOCKET DNS-ADDRESS NAME METRICS-PORT
// Says `ready {}` when each has been answered once, and `answered JSON`, how often of each kind, when its stdin ends.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { decode, encode } from 'dns-packet'
import { ControlClient } from '../../daemon/control/client.js'

/** Answers by kind of question; events of the stream of flows. */
export type Answered = Readonly<
  Record<'status' | 'flows' | 'services' | 'paths' | 'metrics' | 'dns' | 'events', number>
>

const DNS_AT_ONCE = 8
const DNS_LIMIT_MS = 10_000
const [path = '', server = '', name = '', port = ''] = process.argv.slice(2)
const client = await ControlClient.connect(path)
const dns = createSocket('udp4')
dns.connect(53, server)
await once(dns, 'connect')
const answers = new Map<number, () => void>()
dns.on('message', (bytes) => answers.get(decode(bytes).id ?? 0)?.())
let lastId = 0

async function resolve(): Promise<void> {
  const id = ++lastId & 0xffff
  const answered = new Promise<void>((done, late) => {
    const limit = setTimeout(() => late(new Error('DNS did not answer')), DNS_LIMIT_MS)
    answers.set(id, () => {
      clearTimeout(limit)
      answers.delete(id)
      done()
    })
  })
  dns.send(encode({ type: 'query', id, questions: [{ type: 'A', name }] }))
  await answered
}
async function scrape(): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${port}/metrics`)
  if (!response.ok || (await response.text()).length < 1_000) throw new Error(`/metrics: status ${response.status}`)
}

const counts = { status: 0, flows: 0, services: 0, paths: 0, metrics: 0, dns: 0, events: 0 }
const questions: readonly (readonly [keyof Answered, () => Promise<unknown>])[] = [
  ['status', () => client.call('status', {})],
  ['flows', () => client.call('flows', { limit: 10_000 })],
  ['services', () => client.call('services', {})],
  ['paths', () => client.call('paths', {})],
  ['metrics', scrape],
  ...Array.from({ length: DNS_AT_ONCE }, () => ['dns', resolve] as const),
]
for (const [, question] of questions) await question()
console.log('ready {}')

let running = true
const stopped = new AbortController()
const watching = client.stream('watch', { intervalMs: 100 }, { event: () => counts.events++ }, stopped.signal)
const loops = questions.map(async ([kind, question]) => {
  while (running) {
    await question()
    counts[kind]++
  }
})
process.stdin.resume()
await once(process.stdin, 'end')
running = false
await Promise.all(loops)
stopped.abort()
await watching
console.log(`answered ${JSON.stringify(counts satisfies Answered)}`)
process.exit(0)
