// An underlay that loses, doubles and reorders packets. The long form is `npm run bench:soak -- --loss 0.1 --duplicate 0.1 --reorder 0.1`.
import { test, type Test } from 'tap'
import { pathsShape, statusShape, type StatusResponse } from '../../daemon/control/shapes.js'
import { soak, SOAK_HOSTS } from '../bench/soak-run.js'
import type { LinkReport } from './emulator/link.js'
import type { LinkChanges } from './emulator/settings.js'
import { Fixture } from './fixture.js'
import { lineOf } from './namespaces.js'

const SECONDS = 5
/** More than can come in that time. */
const BYTES_MAX = 1e12
const DATAGRAMS = 4_000
const [H1, H2] = SOAK_HOSTS

/** Two hosts with a session; from then on the link is as bad as is said. */
async function badLink(t: Test, changes: LinkChanges): Promise<Fixture> {
  const net = await Fixture.up(t, SOAK_HOSTS, { link: {} })
  for (const host of SOAK_HOSTS) {
    await net.until(`${host} has a session and a path`, async () => {
      const { paths } = pathsShape.parse(JSON.parse((await net.caracal(host, 'paths', '--json')).out))
      return paths.some(({ inUse }) => inUse)
    })
  }
  await net.links[0]!.set(changes)
  return net
}

async function status(net: Fixture, host: string): Promise<StatusResponse> {
  return statusShape.parse(JSON.parse((await net.caracal(host, 'status', '--json')).out))
}

/** Each copy that the link made was recognised and dropped: no other drop has that reason. */
async function copiesAreDropped(net: Fixture): Promise<LinkReport> {
  const link = net.links[0]!
  await link.set({ loss: 0, duplicate: 0, reorder: 0 })
  await net.until('nothing is under way', async () => {
    const { ab, ba } = await link.report()
    return ab.waiting + ba.waiting === 0
  })
  const report = await link.report()
  for (const [host, { duplicated }] of [
    [H1, report.ba],
    [H2, report.ab],
  ] as const) {
    await net.until(
      `${host} has dropped ${duplicated} copies`,
      async () => (await status(net, host)).drops.replayed === duplicated,
    )
  }
  return report
}

test('everything at once while one packet in a thousand is lost, one comes twice and one late', async (t) => {
  const net = await badLink(t, { loss: 0.001, duplicate: 0.001, reorder: 0.001 })
  const { errors, datagrams, streams, short } = await soak(net.lab, { bytes: BYTES_MAX, seconds: SECONDS })
  const report = await copiesAreDropped(net)
  t.comment(JSON.stringify({ errors, datagrams, streams, short, report }))
  t.strictSame(errors, [])
  t.match(datagrams, { changed: 0, twice: 0 })
  t.ok(streams.done > 0 && short.done > 0, 'streams and short connections came through')
  for (const { lost, duplicated, reordered } of [report.ab, report.ba])
    t.ok(lost > 0 && duplicated > 0 && reordered > 0, 'the link was bad')
  const frames = report.ab.lost + report.ba.lost + report.unread.a + report.unread.b
  t.ok(datagrams.lost <= frames, `${datagrams.lost} datagrams were lost with ${frames} frames`)
})

for (const loss of [0.01, 0.05]) {
  test(`everything at once while one packet in ${1 / loss} is lost`, async (t) => {
    const net = await badLink(t, { loss })
    const { errors, datagrams, streams, short } = await soak(net.lab, { bytes: BYTES_MAX, seconds: SECONDS })
    const { ab, ba } = await net.links[0]!.report()
    t.comment(JSON.stringify({ errors, datagrams, streams, short, ab, ba }))
    t.strictSame(errors, [])
    t.match(datagrams, { changed: 0, twice: 0 })
    t.ok(streams.done > 0 && short.done > 0, 'streams and short connections came through')
    // There and back in a frame each, the largest in some more.
    const share = datagrams.lost / datagrams.sent
    t.ok(share > loss / 2 && share < 4 * loss, `${share} of the datagrams were lost`)
    for (const { received, lost } of [ab, ba])
      t.ok(Math.abs(lost / received - loss) < 5 * Math.sqrt(loss / received), `${lost} of ${received} frames`)
  })
}

/** h2: counts numbered datagrams until a short one asks for the count. */
const COUNT = `
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
s.bind(('::', 9000))
print('listening', flush=True)
came = 0
numbers = set()
while True:
    bytes, peer = s.recvfrom(65536)
    if len(bytes) < 100:
        s.sendto(struct.pack('>II', came, len(numbers)), peer)
    else:
        came += 1
        numbers.add(bytes[:4])
`
/** h1: asks for the count; sends so many of 1,000 bytes when told to; asks again when told to. */
const SEND = `
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(socket.getaddrinfo('count.svc.internal', 9000, socket.AF_INET, socket.SOCK_DGRAM)[0][4])
s.settimeout(1)
def ask():
    while True:
        s.send(b'?')
        try: return struct.unpack('>II', s.recv(100))
        except TimeoutError: pass
print('asked', *ask(), flush=True)
sys.stdin.readline()
for n in range(${DATAGRAMS}):
    s.send(struct.pack('>I', n).ljust(1000, b'.'))
    if n % 50 == 49: ask()
print('sent', *ask(), flush=True)
sys.stdin.readline()
print('came', *ask(), flush=True)
`

test('of single datagrams exactly those are lost that the link lost', async (t) => {
  const net = await badLink(t, {})
  await net.start(H2, ['python3', '-c', COUNT], /listening/)
  t.equal((await net.caracal(H2, 'expose', 'count', '--udp', '9000')).code, 0)
  await net.knows(H1, 'count', [H2])
  const sender = net.open(H1, ['python3', '-c', SEND])
  await lineOf(sender, 'asked')
  // What daemons say to each other is smaller.
  await net.links[0]!.set({ loss: 0.05, lossBurst: 2, duplicate: 0.03, reorder: 0.03, sizeMin: 1_000 })
  const sent = lineOf(sender, 'sent')
  sender.stdin?.write('go\n')
  await sent
  const { ab } = await copiesAreDropped(net)
  const counted = lineOf(sender, 'came')
  sender.stdin?.write('count\n')
  const [came, different] = (await counted).split(' ').map(Number)
  t.comment(JSON.stringify(ab))
  t.ok(ab.lost > 0 && ab.duplicated > 0 && ab.reordered > 0)
  t.equal(came, DATAGRAMS - ab.lost)
  t.equal(different, came, 'none came twice')
})
