// The emulated link itself, by the counts of programs at its ends.
import tap, { test, type Test } from 'tap'
import type { EmulatedLink, LinkOptions } from './emulator/link.js'
import { lineOf, Namespaces } from './namespaces.js'

tap.setTimeout(120_000)

const [A, B] = ['10.9.0.1', '10.9.0.2']
const DATAGRAMS = 20_000

/** Takes numbered datagrams until it is told on stdin; says the numbers that came, in their order. */
const TAKE = `
import json, select, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
s.bind(('${B}', 9000))
print('ready here', flush=True)
numbers, told = [], False
while True:
    readable, _, _ = select.select([s] if told else [s, sys.stdin], [], [], 0 if told else None)
    if s in readable: numbers.append(struct.unpack('>I', s.recv(65536)[:4])[0])
    elif told: break
    if sys.stdin in readable: told = True
print('came', json.dumps(numbers), flush=True)
`
/** Sends so many of so many bytes, in sends of ten datagrams each that the kernel cuts. */
const SEND = `
import socket, struct, sys
count, size = int(sys.argv[1]), int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(17, 103, size)  # UDP_SEGMENT
for n in range(0, count, 10):
    s.sendto(b''.join(struct.pack('>I', n + i).ljust(size, b'.') for i in range(10)), ('${B}', 9000))
`

interface Pair {
  readonly spaces: Namespaces
  readonly a: string
  readonly b: string
  readonly link: EmulatedLink
}

/** Over IPv4 alone nothing is sent but what the test sends. */
async function pair(t: Test, options: LinkOptions, v6 = false): Promise<Pair> {
  const spaces = new Namespaces(t)
  const [a, b] = [spaces.add(), spaces.add()]
  const link = await spaces.link(
    a,
    b,
    [`${A}/24`, ...(v6 ? ['fd00::1/64'] : [])],
    [`${B}/24`, ...(v6 ? ['fd00::2/64'] : [])],
    options,
  )
  t.comment(`seed ${link.seed}`)
  return { spaces, a, b, link }
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 20_000; !(await condition());) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Sends datagrams from a to b; resolves with the numbers that came. */
async function send({ spaces, a, b, link }: Pair, count: number, bytes: number): Promise<number[]> {
  const before = (await link.report()).ab.received
  const taker = spaces.start(b, ['python3', '-c', TAKE])
  await lineOf(taker, 'ready')
  spaces.run(a, `python3 -c "${SEND.replaceAll('"', '\\"')}" ${count} ${bytes}`)
  await until('nothing is under way', async () => {
    const { ab, unread } = await link.report()
    return ab.received + unread.a >= before + count && ab.waiting === 0
  })
  const came = lineOf(taker, 'came')
  taker.stdin?.write('end\n')
  return JSON.parse(await came)
}

test('each datagram that is lost, doubled or overtaken is counted', async (t) => {
  const net = await pair(t, { loss: 0.05, lossBurst: 3, duplicate: 0.03, reorder: 0.02, delayMs: 3 })
  const numbers = await send(net, DATAGRAMS, 1_200)
  const { ab, ba, unread } = await net.link.report()
  t.comment(JSON.stringify({ ab, ba, unread }))
  t.strictSame(unread, { a: 0, b: 0 })
  t.equal(ab.received, DATAGRAMS, 'what one send call made is many packets')
  t.equal(ab.receivedBytes, DATAGRAMS * (1_200 + 28))
  t.equal(numbers.length, ab.forwarded)
  const different = new Set(numbers)
  t.equal(different.size, DATAGRAMS - ab.lost)
  t.equal(numbers.length - different.size, ab.duplicated)
  let [highest, late] = [-1, 0]
  for (const n of different) {
    if (n < highest) late++
    highest = Math.max(highest, n)
  }
  t.equal(late, ab.reordered)
  for (const [what, count, share] of [
    ['lost', ab.lost, 0.05],
    ['doubled', ab.duplicated, 0.95 * 0.03],
    ['held back', ab.heldBack, 0.95 * 0.02],
  ] as const)
    t.ok(count > 0.6 * share * DATAGRAMS && count < 1.5 * share * DATAGRAMS, `${count} ${what}`)
  t.equal(ba.received, 0)
})

test('delay', async (t) => {
  const { spaces, a, link } = await pair(t, { delayMs: 10 }, true)
  const ping = (to: string) => {
    const out = spaces.run(a, `ping -c 10 -i 0.02 ${to}`)
    return Number(/= ([\d.]+)\//.exec(out)?.[1])
  }
  for (const to of [B, 'fd00::2']) {
    const least = ping(to)
    t.ok(least >= 20 && least < 25, `${least} ms to ${to}`)
  }
  await link.set({ delayMs: 30 }, 'ab')
  const least = ping(B)
  t.ok(least >= 40 && least < 45, `${least} ms after a change`)
})

test('rate and queue', async (t) => {
  const net = await pair(t, { rate: 20e6, queueBytes: 100_000 })
  const started = performance.now()
  const numbers = await send(net, 1_000, 972)
  const took = performance.now() - started
  const { ab } = await net.link.report()
  t.equal(ab.received, 1_000)
  t.ok(ab.overflowed > 0 && numbers.length === 1_000 - ab.overflowed, `${ab.overflowed} did not fit`)
  t.ok(took >= (numbers.length * 1_000 * 8) / 20e3 - 5, `${took} ms for ${numbers.length}`)
})

test('a link that is cut, mended and made smaller', async (t) => {
  const { spaces, a, link } = await pair(t, { mtu: 1_400 })
  const echo = (size: number) => spaces.run(a, `ping -M do -W 1 -c 1 -s ${size} ${B} >/dev/null && echo yes || echo no`)
  t.equal(echo(1_372), 'yes\n')
  t.equal(echo(1_373), 'no\n')
  await link.cut('ba')
  t.equal(echo(56), 'no\n')
  await link.mend()
  t.equal(echo(56), 'yes\n')
  const { ab, ba } = await link.report()
  t.match(
    { ab, ba },
    { ab: { received: 4, forwarded: 3, tooBig: 1, cut: 0 }, ba: { received: 3, forwarded: 2, cut: 1 } },
  )
  await t.rejects(link.set({ loss: 2 }), /loss/)
  t.equal(echo(56), 'yes\n', 'what is no setting changes nothing')
})

test('the same seed loses the same datagrams', async (t) => {
  const once = async () => send(await pair(t, { loss: 0.1, seed: 11 }), 500, 100)
  const first = await once()
  t.ok(first.length < 500 && first.length > 400, `${first.length} came`)
  t.strictSame(await once(), first)
})
