import type { NetworkInterfaceInfo } from 'node:os'
import { test } from 'tap'
import {
  Discovery,
  readHint,
  type Announcement,
  type DiscoveryOptions,
  type Responder,
} from '../../../daemon/discovery.js'
import { hostId, networkId } from '../../../lib/wire/ids.js'

const network = networkId('ab'.repeat(32))
const self = hostId('01'.repeat(32))
const other = hostId('02'.repeat(32))
const txt = { v: '1', network, host: other }
const from = '192.0.2.2'

function interfaceOf(address: string, internal = false): NetworkInterfaceInfo {
  const cidr = `${address}/24`
  return { address, family: 'IPv4', internal, netmask: '255.255.255.0', mac: '02:00:00:00:00:01', cidr }
}

/** A LAN without a network: what Discovery opens, publishes and asks is written down; time passes by `looks`. */
class FakeLan {
  readonly opened: FakeResponder[] = []
  readonly found: string[] = []
  readonly problems: string[] = []
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = { eth0: [interfaceOf('10.0.0.1')] }
  refuse: Error | undefined
  #run: (() => void) | undefined
  readonly discovery: Discovery

  constructor(more: Partial<DiscoveryOptions> = {}) {
    const options: DiscoveryOptions = {
      network,
      host: self,
      port: 4_000,
      exclude: (name) => name === 'caracal0',
      found: (host, { address, port }) => this.found.push(`${host.slice(0, 2)} ${address} ${port}`),
      problem: (name, error) => this.problems.push(`${name}: ${error.message}`),
      ...more,
    }
    this.discovery = new Discovery(options, {
      interfaces: () => this.interfaces,
      open: (address, { failed, asked }) => {
        if (this.refuse !== undefined) throw this.refuse
        const responder = new FakeResponder(address, failed, asked)
        this.opened.push(responder)
        return responder
      },
      every: (_ms, run) => {
        this.#run = run
        return () => (this.#run = undefined)
      },
    })
    this.discovery.start()
  }
  get ticking(): boolean {
    return this.#run !== undefined
  }
  looks(count: number): void {
    for (let i = 0; i < count; i++) this.#run?.()
  }
  get open(): string[] {
    return this.opened.filter(({ closed }) => !closed).map(({ address }) => address)
  }
}

class FakeResponder implements Responder {
  closed = false
  browses = 0
  readonly published: { port: number; txt: Readonly<Record<string, string>> }[] = []
  heard: (announcement: Announcement) => void = () => undefined
  constructor(
    readonly address: string,
    readonly fail: (error: Error) => void,
    readonly asked: (from: string) => void,
  ) {}
  publish(port: number, txt: Readonly<Record<string, string>>): void {
    this.published.push({ port, txt })
  }
  browse(heard: (announcement: Announcement) => void): void {
    this.browses++
    this.heard = heard
  }
  close(): Promise<void> {
    this.closed = true
    return Promise.resolve()
  }
}

test('a hint is read only from hosts of this network', (t) => {
  t.same(readHint({ txt, port: 4_000, from }, network), { host: other, locator: { address: from, port: 4_000 } })
  const txts: unknown[] = [
    undefined,
    null,
    'text',
    7,
    [],
    {},
    { network },
    { host: other },
    { network: network.toUpperCase(), host: other },
    { network: 'cd'.repeat(32), host: other },
    { network, host: other.slice(1) },
    { network, host: `${other}0` },
    { network, host: other.replace('0', 'G') },
    { network, host: `${other}\n` },
    { network, host: 7 },
    { network: true, host: true },
  ]
  for (const bad of txts) t.equal(readHint({ txt: bad, port: 4_000, from }, network), undefined, JSON.stringify(bad))
  for (const port of [undefined, 0, -1, 65_536, 1.5, Number.NaN, '4000', null]) {
    t.equal(readHint({ txt, port, from }, network), undefined, `port ${String(port)}`)
  }
  t.equal(readHint({ txt, port: 4_000, from: undefined }, network), undefined)
  t.end()
})

test('announces this host and passes on what it hears', (t) => {
  const lan = new FakeLan()
  const [responder] = lan.opened
  t.same(responder?.published, [{ port: 4_000, txt: { v: '1', network, host: self, at: '10.0.0.1' } }])
  responder?.heard({ txt, port: 4_001, from })
  responder?.heard({ txt: { ...txt, host: self }, port: 4_000, from: '10.0.0.1' })
  responder?.heard({ txt: { ...txt, network: 'cd'.repeat(32) }, port: 4_001, from })
  responder?.heard({ txt: undefined, port: undefined, from: undefined })
  t.same(lan.found, ['02 192.0.2.2 4001'], 'not itself, not strangers')
  t.end()
})

test('one responder an IPv4 address, as they come and go', async (t) => {
  const lan = new FakeLan()
  lan.interfaces = {
    lo: [interfaceOf('127.0.0.1', true)],
    caracal0: [interfaceOf('198.18.0.1')],
    eth0: [interfaceOf('10.0.0.1')],
    eth1: [interfaceOf('10.1.0.1'), interfaceOf('10.2.0.1')],
    eth2: undefined,
  }
  lan.looks(1)
  t.same(lan.open, ['10.0.0.1', '10.1.0.1', '10.2.0.1'])
  lan.interfaces = { eth0: [interfaceOf('10.0.0.9')] }
  lan.looks(1)
  t.same(lan.open, ['10.0.0.9'])
  t.equal(lan.opened.at(-1)?.published[0]?.txt.at, '10.0.0.9', 'the announcement of a moved host is another one')
  lan.looks(3)
  t.equal(lan.opened.length, 4, 'nothing is opened twice')
  await lan.discovery.stop()
  t.same(lan.open, [])
  t.notOk(lan.ticking)
})

test('only the interfaces that were chosen', (t) => {
  const lan = new FakeLan({ interfaces: ['eth1'] })
  t.same(lan.open, [])
  lan.interfaces = { eth0: [interfaceOf('10.0.0.1')], eth1: [interfaceOf('10.1.0.1')] }
  lan.looks(1)
  t.same(lan.open, ['10.1.0.1'])
  t.end()
})

test('hosts are asked for again, so that one that has moved is heard of anew', (t) => {
  const lan = new FakeLan()
  const [responder] = lan.opened
  t.equal(responder?.browses, 1)
  lan.looks(10)
  t.equal(responder?.browses, 2)
  responder?.heard({ txt, port: 4_001, from })
  responder?.heard({ txt, port: 4_001, from: '192.0.2.3' })
  t.same(lan.found, ['02 192.0.2.2 4001', '02 192.0.2.3 4001'])
  t.end()
})

test('hosts are asked for ever more seldom, once an hour in the end, and often again at another address', (t) => {
  const lan = new FakeLan()
  const waits: number[] = []
  // The first look was the start's.
  for (let looks = 1, asked = 1; waits.length < 10; asked++) {
    for (; lan.opened[0]?.browses === asked; looks++) lan.looks(1)
    waits.push(looks)
    looks = 0
  }
  t.same(waits, [6, 12, 24, 48, 96, 192, 384, 720, 720, 720])
  lan.interfaces = { eth0: [interfaceOf('10.0.0.2')] }
  lan.looks(1)
  t.equal(lan.opened[1]?.browses, 1)
  lan.looks(7)
  t.equal(lan.opened[1]?.browses, 2)
  t.end()
})

test('what another host of the LAN has asked is not asked again, but now and then', (t) => {
  const asks = (from: string) => {
    const lan = new FakeLan()
    for (let i = 0; i < 1_000; i++) {
      lan.opened[0]?.asked(from)
      lan.looks(1)
    }
    return lan.opened[0]?.browses ?? 0
  }
  const alone = asks('10.0.0.1')
  t.equal(asks('10.1.0.2'), alone, 'on another LAN')
  t.equal(asks('::1'), alone)
  t.equal(asks('nonsense'), alone)
  const beside = asks('10.0.0.2')
  t.ok(beside >= 2 && beside < alone, `${beside} instead of ${alone} times`)
  t.end()
})

test('a flood of announcements is cut off until the next browse', (t) => {
  const lan = new FakeLan()
  const [responder] = lan.opened
  for (let i = 0; i < 5_000; i++) {
    responder?.heard({ txt: { ...txt, host: i.toString(16).padStart(64, '0') }, port: 4_001, from })
  }
  t.equal(lan.found.length, 1_024)
  lan.looks(10)
  responder?.heard({ txt, port: 4_001, from })
  t.equal(lan.found.at(-1), '02 192.0.2.2 4001')
  t.end()
})

test('a responder that fails is closed, told of once, and tried again in silence', (t) => {
  const lan = new FakeLan()
  const taken = new Error('port 5353 is taken')
  lan.opened[0]?.fail(taken)
  lan.opened[0]?.fail(taken)
  t.same(lan.open, [])
  t.same(lan.problems, ['eth0: port 5353 is taken'])
  for (let i = 0; i < 50; i++) {
    lan.looks(1)
    if (lan.open.length > 0) lan.opened.at(-1)?.fail(taken)
  }
  t.ok(lan.opened.length > 3 && lan.opened.length < 12, `tried ${lan.opened.length} times, not at each look`)
  t.same(lan.problems, ['eth0: port 5353 is taken'], 'one warning')
  t.same(lan.open, [], 'none stays open behind another')

  lan.looks(10)
  t.same(lan.open, ['10.0.0.1'], 'then it works')
  lan.looks(10)
  lan.opened.at(-1)?.fail(new Error('again'))
  t.same(lan.problems, ['eth0: port 5353 is taken', 'eth0: again'], 'what had worked in between is told again')
  t.end()
})

test('an interface that cannot be opened does not stop the others', (t) => {
  const lan = new FakeLan({ exclude: () => false })
  lan.refuse = new Error('no multicast')
  lan.interfaces = { eth0: [interfaceOf('10.0.0.1')], tun9: [interfaceOf('10.9.0.1')] }
  lan.looks(1)
  t.same(lan.problems, ['tun9: no multicast'])
  lan.looks(3)
  t.equal(lan.problems.length, 1)
  lan.refuse = undefined
  lan.looks(10)
  t.same(lan.open, ['10.0.0.1', '10.9.0.1'])
  t.end()
})
