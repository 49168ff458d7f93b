// Everything at once for a while; the long form is `npm run bench:soak`.
import { test } from 'tap'
import { lossesOf, lossesText } from '../bench/soak-losses.js'
import { soak, SOAK_HOSTS } from '../bench/soak-run.js'
import { Fixture } from './fixture.js'

const GIGABYTES = 2
/** A slow machine moves less. */
const SECONDS_MAX = 40
const BYTES_MIN = 100e6
/** So few that each is used again while the server's kernel remembers what it was used for. */
const PORTS = 500
/** What both daemons may come to hold that they did not in the beginning: buffers, flows, what their sockets keep. */
const GROWTH_MAX = 40e6

test('streams, short connections and datagrams of both families at once', async (t) => {
  const net = await Fixture.up(t, SOAK_HOSTS)
  const report = await soak(net.lab, { bytes: GIGABYTES * 1e9, seconds: SECONDS_MAX, ports: PORTS })
  t.comment(JSON.stringify(report))
  t.strictSame(report.errors, [])
  t.equal(report.datagrams.changed, 0)
  t.ok(report.streams.bytes >= BYTES_MIN, `${report.streams.bytes} bytes`)
  const losses = lossesOf(report)
  t.equal(report.linkFaults, 0, 'the link loses nothing')
  t.equal(losses.kept, true, lossesText(losses))
  t.ok(report.short.done > 0 && report.datagrams.sent > report.datagrams.lost)
  t.equal(report.kernel[1]!['TcpExt:PAWSTimewait'], 0, 'no SYN meets an older connection that is over')
  t.equal(report.kernel[1]!['TcpExt:TCPSYNChallenge'], 0, 'or one that is not')
  for (const [i, host] of SOAK_HOSTS.entries()) {
    const grown = report.memory.end[i]! - report.memory.start[i]!
    t.ok(grown <= GROWTH_MAX, `${host} has grown by ${grown} bytes`)
  }
})

test('losses of daemons are told from those of the load and of the link', (t) => {
  const clean = {
    kernel: [{ 'Tcp:OutSegs': 100_000, 'Tcp:RetransSegs': 900 }, {}],
    dropped: [{ 'mid-stream': 3 }, {}] as Record<string, number>[],
    overrun: [0, 0],
    linkFaults: 0,
    datagrams: { sent: 100, lost: 2, late: 2, twice: 0, reordered: 0, changed: 0 },
  }
  const kept = (changes: Partial<typeof clean>, counts: Record<string, number> = {}) =>
    lossesOf({ ...clean, ...changes, kernel: [{ ...clean.kernel[0], ...counts }, {}] }).kept
  const hole = { 'TcpExt:TCPFastRetrans': 40 }
  t.equal(kept({}), true, 'what is sent again because an answer was late')
  t.equal(kept({}, { 'Tcp:RetransSegs': 1_100 }), false, 'but not more than a hundredth')
  t.equal(kept({}, hole), false, 'a hole that nobody has counted')
  t.equal(kept({}, { ...hole, 'TUN:tx_dropped': 1 }), true, "one that the load's own queue made")
  t.equal(kept({ linkFaults: 1 }, hole), undefined, 'one that the link may have made')
  t.equal(kept({ dropped: [{}, { 'queue-full': 1 }] }), false, 'a frame that a daemon dropped')
  t.equal(kept({ overrun: [0, 1] }), false, 'a frame that a daemon did not read in time')
  const lost = { ...clean.datagrams, lost: 3 }
  t.equal(kept({ datagrams: lost }), false, 'a datagram that did not come back')
  t.equal(kept({ datagrams: lost }, { 'Udp:RcvbufErrors': 1 }), true, 'or that its program did not read')
  t.end()
})
