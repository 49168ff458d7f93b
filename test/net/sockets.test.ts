import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import tap, { test } from 'tap'
import { lineOf, Namespaces } from './namespaces.js'
import type { ProbeResult } from './socket-probe.js'

tap.setTimeout(300_000)

const probeFile = fileURLToPath(new URL('socket-probe.js', import.meta.url))

test('real sockets: runs, refusals, wrong arguments', async (t) => {
  const spaces = new Namespaces(t)
  const name = spaces.add()
  spaces.run(name, 'ip link set lo mtu 1400')
  const line = await lineOf(spaces.start(name, [process.execPath, probeFile]), 'result')
  const results = new Map(Object.entries(JSON.parse(line) as Record<string, unknown>))
  const exchange = (scenario: string) => results.get(scenario) as ProbeResult
  const intact = (result: ProbeResult) => result.received.every((one) => one.intact)
  const sizes = (result: ProbeResult) => result.received.flatMap((one) => one.sizes)

  for (const address of ['127.0.0.1', '::1']) {
    const run = exchange(`run ${address}`)
    t.match(run, { sent: 46, failed: 0, gso: true })
    t.equal(run.received.length, 1, 'one message on both sides')
    t.strictSame(sizes(run), [...new Array<number>(45).fill(1200), 7])
    t.ok(intact(run))
    t.match(run.received[0], { from: { address, port: 1000 }, trafficClass: 0xb9 })

    const plain = exchange(`plain ${address}`)
    t.match(plain, { sent: 3, failed: 0, gso: false })
    t.strictSame(sizes(plain), [1200, 1200, 600])
    t.ok(intact(plain))
    t.ok(plain.received.every((one) => one.trafficClass === 2))

    const long = exchange(`too long ${address}`)
    t.match(long, { sent: 5, failed: 0, gso: true }, 'frames above the MTU go one by one, GSO stays for the others')
    t.strictSame(sizes(long), [1500, 1500, 1500, 1500, 500])
    t.ok(intact(long))
  }
  const many = exchange('many')
  t.equal(many.failed, 0)
  t.equal(sizes(many).length, many.sent)
  t.ok(intact(many), 'in order')

  const { refused, other, again } = results.get('gso') as Record<
    'refused' | 'other' | 'again',
    ProbeResult & { gsoRefused: boolean }
  >
  t.match(
    refused,
    { sent: 6, failed: 0, gso: true, gsoRefused: true },
    'what is refused as one message goes one by one',
  )
  t.equal(refused.received.length, 6)
  t.match(other, { sent: 3, failed: 0, gsoRefused: true })
  t.equal(other.received.length, 1, 'which another destination does not suffer by')
  t.match(again, { sent: 3, failed: 0, gsoRefused: false }, 'nor that one for ever')
  t.equal(again.received.length, 1)
  t.ok([refused, other, again].every(intact))

  t.strictSame(results.get('lost'), { before: 0, room: true, all: true }, 'what had no room in the buffer is counted')
  t.strictSame(
    results.get('lost by the device'),
    { before: 0, all: true },
    'and what had none in the queue of the device',
  )

  t.strictSame(results.get('mixed'), { sent: 9, failed: 15, gso: true }, 'what fails takes nothing else with it')
  t.strictSame(results.get('refused'), { received: 0, sent: 3 }, 'a refused send leaves no error behind')
  const full = { receive: 1 << 24, send: 1 << 24 }
  const [first, second] = results.get('buffers') as (typeof full)[]
  t.strictSame(first, second)
  // Only the machine's own root gets more than the system's limit.
  const mayForce = /^\s*0\s+0\s+4294967295/.test(readFileSync('/proc/self/uid_map', 'utf8'))
  if (mayForce) t.strictSame(first, full)
  else t.ok(first!.receive > 4096 && first!.send > 4096)
  t.equal(results.get('up0'), 2)
  t.equal(results.get('down0'), 0)
})
