// `caracal up` in vain: one clear line each, and the host is as it was: state directory, devices, routes, sockets.
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { cliMain, Fixture, type Result } from './fixture.js'
import { footprint, refused } from './refusal.js'

const up = [process.execPath, cliMain, 'up', '--dns', 'none']
const lastLine = (out: string) => out.trimEnd().split('\n').at(-1)!

/** Refuses `up` on hosts, and compares what is there before and after. */
class Starts {
  constructor(
    private readonly t: Parameters<typeof refused>[0],
    private readonly net: Fixture,
    private readonly host: string,
  ) {}

  /** `around`: shell text before the command, such as `env X=1`. */
  async refuse(what: string, words: readonly string[], status: 1 | 2, line: RegExp, around = ''): Promise<void> {
    const { t, net, host } = this
    const before = await footprint(net, host)
    const command = [...up, '--name', host, ...words].map((word) => `'${word}'`).join(' ')
    const result: Result = await net.run(host, `exec ${around} timeout 30 ${command}`)
    refused(t, what, result, status, line)
    t.equal(await footprint(net, host), before, `${what}: nothing has changed`)
  }
}

type Case = Parameters<Starts['refuse']>

const create = ['--create', 'net']
const starts: Case[] = [
  ['no network', [], 1, /in no network yet .+: create one with `caracal up --create NAME`/],
  ['both', [...create, '--join', 'x'], 2, /cannot be used with/],
  ['no name of a network', ['--create', 'Bad Net!'], 2, /"Bad Net!" is no name of a network/],
  ['no name of a host', [...create, '--name', 'a.b'], 2, /"a\.b" is no host name/],
  ['no right to a TUN', create, 1, /no right to open .+: run as root \(sudo/, 'setpriv --bounding-set=-net_admin'],
  ['another device', [...create, '--tun', 'eth0'], 1, /eth0 is a network device of another kind: choose .+--tun/],
  ['no DNS mode', [...create, '--dns', 'foo'], 2, /"foo" is no DNS mode: expected auto/],
  ['no right to the file', [...create, '--dns', 'file:/proc/nope'], 1, /cannot write \/proc\/nope.+--dns/],
  ['no folder', [...create, '--socket', '/nonexistent/x'], 1, /directory does not exist.+--socket/],
  ['no address', [...create, '--listen', '999.1.1.1:1'], 2, /"999\.1\.1\.1:1" is no address: expected/],
  ['an address of others', [...create, '--listen', '192.0.2.1:9'], 1, /does not have that address; choose/],
  ['state under /proc', [...create, '--state', '/proc/x'], 1, /cannot use \/proc\/x .+--state/],
  ['state that is read-only', [...create, '--state', '/mnt/x'], 1, /read-only file system: name another/],
  ['no file', [...create, '--config', '/nonexistent'], 1, /no such file\): give another/],
]
const configurations: [text: string, line: RegExp][] = [
  ['log: [\n', /line 2, column 1: .+: correct it/],
  ['\tlog: info\n', /line 1, column 1: Tabs .+ spaces/],
  ['log: info\nliste: []\n', /line 2, column 1: unknown setting "liste": did you mean "listen"\?/],
  ['tun:\n  mut: 5\n', /line 2, column 3: unknown setting "mut": did you mean "mtu"\?/],
  ['services:\n  Foo!:\n    tcp: 80\n', /line 2, column 3: service name "Foo!": "!" is not allowed/],
  ['services:\n  web:\n    tcp: 99999\n', /line 3, column 10: .+numbers from 1 to 65535/],
  ['services:\n  web:\n    tcp: [80, "80:81"]\n', /line 3, column 10: .+port 80 is given twice/],
  ['pool: 1.2.3.4/30\n', /line 1, column 7: .+no IPv4 pool: expected ADDR\/BITS/],
  ['group: nosuchgroup\n', /there is no group nosuchgroup: create it/],
]

test('a daemon of a host in no network', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'], { daemons: false })
  const { lab } = net
  const cases = [...starts]
  for (const [i, [text, line]] of configurations.entries()) {
    const file = join(net.folder, `${i}.yaml`)
    writeFileSync(file, text)
    cases.push([JSON.stringify(text), [...create, '--config', file], 1, line])
  }
  const work = async (host: string) => {
    lab.script(host, 'mount -t tmpfs -o ro,mode=700 tmpfs /mnt')
    const starts = new Starts(t, net, host)
    for (let next = cases.shift(); next !== undefined; next = cases.shift()) await starts.refuse(...next)
  }
  await Promise.all([work('h1'), work('h2')])

  await t.test('what is taken', async (t) => {
    const starts = new Starts(t, net, 'h1')
    const bind = "import socket,time\ns=socket.socket(2,2);s.bind(('0.0.0.0',7474));print('bound');time.sleep(99)"
    const holder = await net.start('h1', ['python3', '-u', '-c', bind], /bound/)
    await starts.refuse('port taken', create, 1, /UDP 0\.0\.0\.0:7474: another process has the port; choose .+--listen/)
    const ended = new Promise((resolve) => holder.once('exit', resolve))
    holder.kill('SIGKILL')
    await ended
    lab.script('h1', 'ip addr add 198.18.5.5/24 dev eth0')
    await starts.refuse('address in the pool', create, 1, /198\.18\.0\.0\/15 overlaps the address 198\.18\.5\.5\/24 of/)
    lab.script('h1', 'ip addr del 198.18.5.5/24 dev eth0; ip route add 198.19.0.0/16 dev eth0')
    await starts.refuse('route in the pool', create, 1, /overlaps the route 198\.19\.0\.0\/16 of eth0 .+pool/)
    lab.script('h1', 'ip route del 198.19.0.0/16 dev eth0')
  })
})

test('a second daemon, and tokens', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2', 'h3'], { daemons: false })
  const { lab } = net
  const [h1, h2, h3] = ['h1', 'h2', 'h3'].map((host) => new Starts(t, net, host)) as [Starts, Starts, Starts]
  await lab.startDaemon('h1', ['--create', 'net'])
  const invite = async (host: string, ...words: string[]) => lastLine((await net.caracal(host, 'invite', ...words)).out)
  const token = await invite('h1')
  const brief = await invite('h1', '--expires', '1s')
  const invitedAt = Date.now()
  const stale = await invite('h1')

  const other = join(net.folder, 'other')
  const config = lab.path('h1', 'other.yaml')
  writeFileSync(config, 'pool: 10.200.0.0/16\n')
  const second = ['--state', other, '--tun', 'caracal1', '--listen', '0.0.0.0:7475', '--create', 'net2']
  await h1.refuse('the same state', [], 1, /in use by process \d+: .+`caracal down` ends it/)
  await h1.refuse('the same pool', second, 1, /overlaps the address 198\.18\.0\.1\/32 of caracal0.+another pool/)
  await h1.refuse(
    'the same device',
    [...second, '--tun', 'caracal0'],
    1,
    /caracal0 belongs to a running process: .+--tun/,
  )
  await h1.refuse('the same socket', [...second, '--config', config], 1, /a daemon already answers at .+: .+--socket/)

  await h2.refuse('garbage', ['--join', 'garbage'], 1, /not a token; one begins with caracal1-: .+caracal invite/)
  await h2.refuse('cut short', ['--join', token.slice(0, -7)], 1, /cut short: copy all of it/)
  const changed = token.slice(0, 100) + (token[100] === 'A' ? 'B' : 'A') + token.slice(101)
  await h2.refuse('changed', ['--join', changed], 1, /changed on its way: copy it again/)
  await h2.refuse(
    'name taken',
    ['--join', token, '--name', 'h1'],
    1,
    /a host is called h1 already: choose another with --name/,
  )
  await net.until('the brief token is over', () => Date.now() - invitedAt > 2_100)
  await h2.refuse('expired', ['--join', brief], 1, /expired at .+ \(this host's clock says .+\): ask .+caracal invite/)

  await lab.startDaemon('h2', ['--join', token])
  await lab.stopDaemon('h2')
  await h3.refuse('used up', ['--join', token], 1, /used as often as it may be: ask .+caracal invite/)
  rmSync(lab.path('h2', 'state/trust'))
  await lab.startDaemon('h2', ['--join', token])
  t.pass('the same host may use it again')
  await lab.stopDaemon('h2')
  await h2.refuse('--create in a network', ['--create', 'x'], 1, /in the network net already .+: leave out --create/)
  await lab.startDaemon('h2', ['--join', brief])
  t.pass('a member needs no token that is still good')
  await lab.stopDaemon('h2')

  await t.test('another network', async (t) => {
    await lab.startDaemon('h3', ['--create', 'other'])
    const foreign = await invite('h3')
    await lab.stopDaemon('h3')
    await new Starts(t, net, 'h2').refuse(
      'its token',
      ['--join', foreign],
      1,
      /in the network net .+ is for other: give another --state/,
    )
  })

  await t.test('state that is not as it was', async (t) => {
    const starts = new Starts(t, net, 'h2')
    const state = lab.path('h2', 'state')
    const [trust, key] = [join(state, 'trust'), join(state, 'host-key')]
    const saved = readFileSync(trust)
    writeFileSync(trust, saved.subarray(0, 50))
    await starts.refuse('damaged', [], 1, /trust is damaged: put it back from a backup/)
    writeFileSync(trust, saved)
    chmodSync(trust, 0o644)
    await starts.refuse('others may read', [], 1, /others may read .+trust: chmod 600/)
    chmodSync(trust, 0o600)
    chmodSync(state, 0o770)
    await starts.refuse('others may write', [], 1, /others may write to .+: chmod 700/)
    chmodSync(state, 0o700)
    const savedKey = readFileSync(key)
    rmSync(key)
    await starts.refuse('no key', [], 1, /not the file host-key that belongs to it: put host-key back/)
    copyFileSync(lab.path('h1', 'state/host-key'), key)
    await starts.refuse("another host's key", [], 1, /not the file host-key that belongs to it/)
    writeFileSync(key, savedKey)
    // The only key of a network is never replaced.
    const half = lab.path('h2', 'half')
    mkdirSync(half, { mode: 0o700 })
    copyFileSync(lab.path('h1', 'state/authority-key'), join(half, 'authority-key'))
    await starts.refuse('an authority without its network', ['--state', half, '--create', 'x'], 1, /not the file trust/)
  })

  await t.test('clocks that differ', async (t) => {
    const at = clock(net.folder)
    const day = 86_400
    // A key of its own, so that what is compared is what a host with a state keeps.
    const joiner = new Starts(t, net, 'h3')
    rmSync(lab.path('h3', 'state'), { recursive: true })
    mkdirSync(lab.path('h3', 'state'), { mode: 0o700 })
    copyFileSync(lab.path('h2', 'state/host-key'), lab.path('h3', 'state/host-key'))
    copyFileSync(lab.path('h2', 'state/lock'), lab.path('h3', 'state/lock'))
    await joiner.refuse(
      'a clock behind',
      ['--join', stale],
      1,
      /the clocks differ: this host's says .+ the issuer's .+: set the clock/,
      at(-day),
    )
    await joiner.refuse(
      'a clock ahead',
      ['--join', stale],
      1,
      /token expired at .+ \(this host's clock says .+\): /,
      at(day),
    )
    await new Starts(t, net, 'h2').refuse(
      'a membership',
      [],
      1,
      /membership of h2 expired at .+clock says .+: if this host's clock is right/,
      at(400 * day),
    )
  })
})

/** Words before a command that let it see another time of day, by so many seconds. */
function clock(folder: string): (seconds: number) => string {
  const source = join(folder, 'clock.cc')
  const library = join(folder, 'clock.so')
  writeFileSync(
    source,
    `#include <cstdlib>
#include <ctime>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
extern "C" int clock_gettime(clockid_t id, timespec *time) noexcept {
  const int result = static_cast<int>(syscall(SYS_clock_gettime, id, time));
  if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) time->tv_sec += atol(getenv("CLOCK_OFFSET"));
  return result;
}
extern "C" int gettimeofday(timeval *time, void *) noexcept {
  timespec now;
  const int result = clock_gettime(CLOCK_REALTIME, &now);
  *time = {now.tv_sec, now.tv_nsec / 1000};
  return result;
}
`,
  )
  execFileSync('g++', ['-shared', '-fPIC', '-O1', '-o', library, source])
  return (seconds) => `env LD_PRELOAD=${library} CLOCK_OFFSET=${seconds}`
}
