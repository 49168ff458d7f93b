// Everything at once for a while; the long form is `npm run bench:soak`.
import { test } from 'tap'
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
  t.ok(report.short.done > 0 && report.datagrams.sent > report.datagrams.lost)
  t.equal(report.kernel[1]!['TcpExt:PAWSTimewait'], 0, 'no SYN meets an older connection that is over')
  t.equal(report.kernel[1]!['TcpExt:TCPSYNChallenge'], 0, 'or one that is not')
  for (const [i, host] of SOAK_HOSTS.entries()) {
    const grown = report.memory.end[i]! - report.memory.start[i]!
    t.ok(grown <= GROWTH_MAX, `${host} has grown by ${grown} bytes`)
  }
})
