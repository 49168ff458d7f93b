// Asks a daemon everything that people and programs ask, again and again, on connections that stay. usage: node asker.js SOCKET DNS-ADDRESS NAME EVERY-MS
// Says `ready` after the first round of answers and, when its stdin ends, `asked JSON`.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { decode, encode } from 'dns-packet'
import { ControlClient } from '../../daemon/control/client.js'

export interface Asked {
  readonly questions: number
  /** Questions that got no answer within LIMIT, or a wrong one. */
  readonly unanswered: number
  /** ms, by kind of question. */
  readonly median: Readonly<Record<string, number>>
  readonly longest: Readonly<Record<string, number>>
  /** Of 100 questions, 95 took so long at most. */
  readonly most: Readonly<Record<string, number>>
}

const LIMIT = 10_000
const [path = '', server = '', name = '', every = '50'] = process.argv.slice(2)
const client = await ControlClient.connect(path)
const dns = createSocket(server.includes(':') ? 'udp6' : 'udp4')
dns.connect(53, server)
await once(dns, 'connect')
const answers = new Map<number, () => void>()
dns.on('message', (bytes) => {
  const { id = 0, answers: records = [] } = decode(bytes)
  if (records.some(({ type }) => type === 'A')) answers.get(id)?.()
})
let lastId = 0

const questions: Readonly<Record<string, () => Promise<unknown>>> = {
  status: () => client.call('status', {}),
  flows: () => client.call('flows', {}),
  services: () => client.call('services', {}),
  dns: () =>
    new Promise<void>((resolve) => {
      const id = ++lastId & 0xffff
      answers.set(id, () => {
        answers.delete(id)
        resolve()
      })
      dns.send(encode({ type: 'query', id, questions: [{ type: 'A', name }] }))
    }),
}
const times = new Map<string, number[]>(Object.keys(questions).map((kind) => [kind, []]))
let asked = 0
let unanswered = 0

async function ask(kind: string, question: () => Promise<unknown>): Promise<void> {
  asked++
  const started = performance.now()
  let limit: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    limit = setTimeout(() => reject(new Error('no answer')), LIMIT)
  })
  try {
    await Promise.race([question(), late])
    times.get(kind)?.push(performance.now() - started)
  } catch {
    unanswered++
  } finally {
    clearTimeout(limit)
  }
}
const round = () => Promise.all(Object.entries(questions).map(([kind, question]) => ask(kind, question)))

await round()
console.log('ready {}')
const running = new Set<Promise<unknown>>()
const timer = setInterval(() => {
  const one = round().finally(() => running.delete(one))
  running.add(one)
}, Number(every))
process.stdin.resume()
await once(process.stdin, 'end')
clearInterval(timer)
await Promise.all(running)
const sorted = [...times].map(([kind, list]) => [kind, list.sort((a, b) => a - b)] as const)
const result: Asked = {
  questions: asked,
  unanswered,
  median: Object.fromEntries(sorted.map(([kind, list]) => [kind, list[list.length >> 1] ?? Infinity])),
  most: Object.fromEntries(sorted.map(([kind, list]) => [kind, list[Math.floor(0.95 * list.length)] ?? Infinity])),
  longest: Object.fromEntries(sorted.map(([kind, list]) => [kind, list.at(-1) ?? Infinity])),
}
console.log(`asked ${JSON.stringify(result)}`)
client.close()
dns.close()
