// A way that carries less, or loses much, and of which neither host is told anything: no event, no ICMP.
import { test, type Test } from 'tap'
import { ControlClient } from '../../daemon/control/client.js'
import { Fixture } from './fixture.js'
import { lineOf } from './namespaces.js'

const HOSTS = ['h1', 'h2'] as const
const WIDE = 1500
const NARROW = 1300
/** Sizes so close together are not told apart. */
const GRANULARITY = 8
/** A stream that stood still is going again by then, on a busy machine, too. */
const GOES_ON_MS = 15_000
/** Larger sizes are looked for 10 s after the way became narrower, twice that if that was in vain. */
const RAISED_MS = 40_000
/** So many blocks go there and back before something is changed, and after. */
const SOME = 20
const LOSS = 0.13
/** Between looks at what the daemons say. */
const LOOK_MS = 20
/** Full packets on the lossy link, each way. */
const DATAGRAMS = 2_000

/** h2: says everything back, streams and datagrams. */
const ECHO = `
require('net').createServer((socket) => socket.on('error', () => undefined).pipe(socket)).listen(8081, '::', () => {
  const udp = require('dgram').createSocket({ type: 'udp6', recvBufferSize: 1 << 20 })
  udp.on('message', (bytes, from) => udp.send(bytes, from.port, from.address))
  udp.bind(9000, '::', () => console.log('listening'))
})`
/**
 * h1: random blocks, one after the other, each of which has to come back as it went. Answers each line on stdin by how many have; says what became of the connection when its stdin ends.
 */
const BLOCKS = `
const { createHash, randomBytes } = require('crypto')
const socket = require('net').connect({ port: 81, host: 'box.svc.internal', family: 4 })
const sent = createHash('sha256'), received = createHash('sha256')
let [blocks, owed, since, longest, wrong] = [0, 0, 0, 0, '']
const more = () => {
  const block = randomBytes(64_000)
  sent.update(block)
  owed += block.length
  since = performance.now()
  socket.write(block)
}
const say = (word) => console.log(word + ' ' + JSON.stringify({ blocks, longest, wrong }))
socket.on('data', (chunk) => {
  received.update(chunk)
  owed -= chunk.length
  if (owed > 0) return
  if (sent.copy().digest('hex') !== received.copy().digest('hex')) wrong = 'other bytes came back'
  longest = Math.max(longest, performance.now() - since)
  if (++blocks === 1) say('ready')
  setTimeout(more, 10)
})
socket.on('error', (error) => (wrong = error.message)).on('close', () => (wrong ||= 'closed'))
more()
require('readline').createInterface({ input: process.stdin }).on('line', () => say('blocks')).on('close', () => {
  say('whole')
  process.exit(0)
})`
interface Blocks {
  readonly blocks: number
  readonly longest: number
  readonly wrong: string
}
/** h1: so many full datagrams, 1 ms apart, then says how many came back. */
const DATAGRAMS_OUT = `
const udp = require('dgram').createSocket({ type: 'udp4', recvBufferSize: 1 << 20 })
let [sent, received] = [0, 0]
udp.on('message', () => received++)
require('dns').lookup('box.svc.internal', 4, (error, address) => {
  const timer = setInterval(() => {
    if (sent++ < ${DATAGRAMS}) return udp.send(Buffer.alloc(1392), 9000, address)
    clearInterval(timer)
    setTimeout(() => { console.log(received); process.exit(0) }, 500)
  }, 1)
})`

/** Asks a daemon, as `caracal` does. */
class Asked {
  private constructor(
    readonly host: string,
    private readonly client: ControlClient,
  ) {}

  static async of(t: Test, net: Fixture): Promise<Asked[]> {
    const clients = await Promise.all(HOSTS.map((host) => ControlClient.connect(net.lab.path(host, 'control.sock'))))
    t.teardown(() => clients.forEach((client) => client.close()))
    return HOSTS.map((host, i) => new Asked(host, clients[i]!))
  }

  /** Of the path in use; 0: there is none. */
  async mtu(): Promise<number> {
    const { paths } = await this.client.call('paths', {})
    return paths.find(({ inUse }) => inUse)?.mtu ?? 0
  }

  async counter(name: string): Promise<number | undefined> {
    return (await this.client.call('status', {})).counters[name]
  }
}

/** Two hosts with an emulated link between them, and the echo on the second. */
async function served(t: Test): Promise<Fixture> {
  const net = await Fixture.up(t, HOSTS, { link: { deviceMtu: WIDE } })
  await net.start('h2', [process.execPath, '-e', ECHO], /listening/)
  const exposed = await net.caracal('h2', 'expose', 'box', '--tcp', '81:8081', '--udp', '9000')
  t.equal(exposed.code, 0, exposed.err)
  await net.knows('h1', 'box', ['h2'])
  return net
}

test('a way becomes narrower in the middle, in silence, and wide again: a stream goes on', async (t) => {
  const net = await served(t)
  const [link] = net.links
  const daemons = await Asked.of(t, net)
  const client = net.open('h1', [process.execPath, '-e', BLOCKS])
  await lineOf(client, 'ready')
  const ask = async (): Promise<Blocks> => {
    const line = lineOf(client, 'blocks')
    client.stdin?.write('how many\n')
    return JSON.parse(await line)
  }
  const goesOn = async (when: string) => {
    const { blocks } = await ask()
    await net.until(`the stream goes on ${when}`, async () => (await ask()).blocks >= blocks + SOME, GOES_ON_MS)
  }
  await goesOn('at first')
  for (const daemon of daemons) t.equal(await daemon.mtu(), WIDE, `${daemon.host}, at first`)

  await link!.set({ mtu: NARROW })
  await goesOn('by the narrow way')
  for (const daemon of daemons) {
    const mtu = await daemon.mtu()
    t.ok(mtu <= NARROW && mtu > NARROW - GRANULARITY, `${daemon.host} takes it to carry ${mtu} bytes`)
  }
  const narrow = await link!.report()
  t.ok(narrow.ab.tooBig > 0 && narrow.ba.tooBig > 0, 'the link swallowed what is larger')

  await link!.set({ mtu: WIDE })
  for (const daemon of daemons) {
    const wide = async () => (await daemon.mtu()) === WIDE
    await net.until(`${daemon.host} uses the whole of the wide way`, wide, RAISED_MS)
  }
  const before = await link!.report()
  await goesOn('by the wide way')
  const after = await link!.report()
  t.equal(after.ab.tooBig + after.ba.tooBig, before.ab.tooBig + before.ba.tooBig, 'nothing is too large for it')

  const whole = lineOf(client, 'whole')
  client.stdin?.end()
  const { wrong, ...rest }: Blocks = JSON.parse(await whole)
  t.comment(JSON.stringify({ ...rest, narrow }))
  t.equal(wrong, '', 'every byte came back as it went, by one connection')
})

test('a link that loses 13 of 100 packets is not taken for a narrow one', async (t) => {
  const net = await served(t)
  const [link] = net.links
  const daemons = await Asked.of(t, net)
  for (const daemon of daemons) await net.until(`${daemon.host} has a path`, async () => (await daemon.mtu()) > 0)
  await link!.set({ loss: LOSS })
  const seen = new Set<string>()
  let over = false
  const datagrams = net.run('h1', [process.execPath, '-e', DATAGRAMS_OUT]).finally(() => (over = true))
  while (!over) {
    for (const daemon of daemons) seen.add(`${daemon.host} ${await daemon.mtu()}`)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
  const { out, err } = await datagrams
  const { ab, ba } = await link!.report()
  t.comment(JSON.stringify({ received: out.trim(), ab, ba }))
  t.ok(Number(out) > 0.5 * DATAGRAMS && Number(out) < DATAGRAMS, `${out.trim()} of ${DATAGRAMS} came back ${err}`)
  for (const { received, lost } of [ab, ba]) t.ok(lost > 0.08 * received, `${lost} of ${received} frames were lost`)
  t.strictSame(
    [...seen].sort(),
    HOSTS.map((host) => `${host} ${WIDE}`),
    'what `caracal paths` showed meanwhile',
  )
  for (const daemon of daemons)
    t.equal(await daemon.counter('pathMtuLowered'), 0, `${daemon.host} never took it for narrower`)
})
