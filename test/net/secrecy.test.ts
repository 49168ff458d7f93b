// What the underlay shows: nothing. What a stranger hears: nothing.
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readFileSync, rmSync } from 'node:fs'
import { test } from 'tap'

import { Fixture } from './fixture.js'

const PLAINTEXT = 'the quick brown caracal leaps over the lazy network'

async function capture(net: Fixture, host: string, device: string, name: string) {
  const file = join(net.folder, name)
  const child = await net.start(
    host,
    ['tcpdump', '--immediate-mode', '-U', '-n', '-s', '0', '-i', device, '-w', file],
    /listening on/,
  )
  const stop = async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGINT')
    await ended
    return readFileSync(file)
  }
  return { file, stop }
}

test('the wire shows neither contents nor names', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  writeFileSync(join(net.folder, 'page'), `${PLAINTEXT}\n`.repeat(200))
  await net.start('h2', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  const underlay = await capture(net, 'h1', 'eth0', 'underlay.pcap')
  t.equal((await net.caracal('h2', 'expose', 'secretservice', '--tcp', '80:8080')).code, 0)
  await net.knows('h1', 'secretservice', ['h2'])
  const tunName = (await net.run('h1', `ip -o link | sed -n 's/^[0-9]*: \\(caracal[^:]*\\):.*/\\1/p'`)).out.trim()
  const inner = await capture(net, 'h1', tunName, 'inner.pcap')
  const page = await net.run('h1', 'curl -sS --max-time 10 http://secretservice.svc.internal/page')
  t.equal(page.out, `${PLAINTEXT}\n`.repeat(200), page.err)
  const lookup = await net.run('h1', 'dig +short secretservice.svc.internal')
  t.match(lookup.out, /^198\./)
  const [outside, inside] = [await underlay.stop(), await inner.stop()]
  t.ok(outside.length > PLAINTEXT.length * 200, 'the capture of the underlay has the traffic')
  t.equal(outside.includes(PLAINTEXT), false, 'the plaintext is not on the wire')
  t.equal(outside.includes('secretservice'), false, "the service's name is not on the wire")
  t.equal(inside.includes(PLAINTEXT), true, 'the TUN has the plaintext')
  t.equal(inside.includes('secretservice.svc.internal'), true, 'and the name, in the request')
})

test('a stranger gets no packet, while a member is served', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2', 'stranger'], { daemons: false })
  await net.lab.startDaemon('h1', ['--create', 'ours'])
  const token = (await net.caracal('h1', 'invite')).out.trimEnd().split('\n').at(-1)!
  await net.lab.startDaemon('h2', ['--join', token])
  await net.start('h2', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80:8080')).code, 0)
  await net.knows('h1', 'web', ['h2'])
  const heard = await capture(net, 'stranger', 'eth0', 'stranger.pcap')
  // Another network whose host was told of ours, and whose member token names our host as its issuer: it knocks all the time.
  await net.lab.startDaemon('stranger', ['--create', 'theirs'])
  const strange = (await net.caracal('stranger', 'invite')).out.trimEnd().split('\n').at(-1)!
  const second = mkdtempSync(join(tmpdir(), 'caracal-knock-'))
  t.teardown(() => rmSync(second, { recursive: true, force: true }))
  t.ok(strange.startsWith('caracal1-'), 'the stranger has a network of its own')
  const until = Date.now() + 5_000
  let served = 0
  while (Date.now() < until) {
    if ((await net.run('h1', 'curl -sS -o /dev/null --max-time 2 http://web.svc.internal/')).code === 0) served++
    await net.run('stranger', [process.execPath, '-e', knock, net.lab.host('h1').address, '7474'])
  }
  t.ok(served >= 10, `the member is served meanwhile: ${served} times`)
  await heard.stop()
  const { out } = await net.run('stranger', [
    'tcpdump',
    ...[
      '-n',
      '-r',
      heard.file,
      `udp and src port 7474 and (src host ${net.lab.host('h1').address} or src host ${net.lab.host('h2').address})`,
    ],
  ])
  t.equal(out, '', 'no daemon of ours sent the stranger anything')
})

// Frames of each type that a host of another network would send: right shape, wrong keys.
const knock = `
const [address, port] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4')
const { randomBytes } = require('node:crypto')
let left = 0
for (const type of [1, 2, 3, 4, 5, 6, 7]) {
  for (const size of [32, 200, 400, 700, 1200]) {
    const frame = randomBytes(size)
    frame[0] = type
    frame[1] = 1
    frame[2] = frame[3] = 0
    left++
    socket.send(frame, Number(port), address, () => --left === 0 && socket.close())
  }
}
`
