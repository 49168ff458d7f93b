// What somebody who dumps a host's traffic is shown: real flow engines and data paths of two hosts, whose frames are framed but not enciphered.

import fc from 'fast-check'
import { test } from 'tap'
import { PortableCodec, type PortableAead } from '../../../lib/crypto/portable-codec.js'
import { DataPath } from '../../../lib/host/data-path.js'
import type { TapEvent, TapPoint } from '../../../lib/host/tap.js'
import { TrafficTap } from '../../../lib/host/traffic-tap.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { PACKET_WORDS, RUN_WORDS, type PacketBatch } from '../../../lib/wire/batch.js'
import { CLEAR_HEADER, FrameType, INNER_HEADER, Kind } from '../../../lib/wire/constants.js'
import type { DropReason } from '../../../lib/wire/drop.js'
import { writeInnerHeader } from '../../../lib/wire/inner.js'
import { ISN, fromClient, fromServer, SERVER_ISN, WEB, type Ends } from '../flow/connection.js'
import { address, FlowHost, service } from '../flow/flow-host.js'
import { ACK, echoPacket, portUnreachable, RST, see, SYN, udpPacket } from '../flow/packets.js'

const VNET = 10
const ENDS: Ends = { clientFamily: 4, serverFamily: 4 }
const WALL = 1_700_000_000_000
/** Our lane index in frames from the peer. */
const LANE = 1

/** The tag is the plaintext's sum: wrong for anything that was changed. */
const sumAead: PortableAead = {
  seal: (_key, _nonce, _aad, plaintext) => Uint8Array.of(...plaintext, ...tagOf(plaintext)),
  open: (_key, _nonce, _aad, sealed) => {
    const plaintext = sealed.slice(0, -16)
    return tagOf(plaintext).every((byte, i) => byte === sealed[plaintext.length + i]) ? plaintext : undefined
  },
}
function tagOf(bytes: Uint8Array): number[] {
  const sum = bytes.reduce((total, byte, i) => (total + byte * (i + 1)) >>> 0, 7)
  return Array.from({ length: 16 }, (_, i) => (sum >>> (i % 4)) & 255)
}

/** A host with a data path and a tap on it. Its only peer is the other host. */
class TappedHost extends FlowHost {
  readonly dataPath: DataPath
  readonly tap: TrafficTap
  readonly peer: number
  readonly codec = new PortableCodec(new Map([['chacha20-poly1305', sumAead]]))
  readonly lanePeer = new Int32Array(65_536).fill(-1)
  readonly switches: boolean[] = []
  frames: Uint8Array[] = []
  now = 0

  constructor(number: number, other: number) {
    super(number)
    this.peer = this.meet(other)
    this.codec.installSeal(this.peer, 'chacha20-poly1305', new Uint8Array(32), LANE)
    this.codec.installOpen(LANE, 'chacha20-poly1305', new Uint8Array(32))
    this.lanePeer[LANE] = this.peer
    this.dataPath = new DataPath({
      codec: this.codec,
      peers: this.peers,
      io: {
        writeTun: (batch) => this.#written(batch),
        sendFrames: (runs) => {
          for (let run = 0; run < runs.count; run++) {
            const [offset = 0, length = 0, stride = 1] = runs.desc.subarray(run * RUN_WORDS)
            for (let at = 0; at < length; at += stride) {
              this.frames.push(runs.data.slice(offset + at, offset + Math.min(length, at + stride)))
            }
          }
        },
      },
      decisions: {
        fromTun: (batch, seal, now) => this.engine.fromTun(batch, seal, now),
        fromPeers: (open, datagrams, out, now) => this.engine.fromPeers(open, datagrams, this.lanePeer, out, now),
        lost: (reason, n) => super.drop(reason, undefined, n),
      },
    })
    this.tap = new TrafficTap({
      flows: this.engine,
      peers: this.peers,
      lanePeer: this.lanePeer,
      addresses: this.addresses,
      names: {
        peer: (index) => (index === 0 ? `h${number}` : index === this.peer ? `h${other}` : undefined),
        service: (id) => (id === service(WEB) ? 'web' : undefined),
      },
      local: (family) => (family === 4 ? `192.0.2.${100 + number}:7474` : undefined),
      wallMs: (now) => WALL + now,
      switched: (on) => {
        this.switches.push(on)
        this.dataPath.tap = on ? this.tap : undefined
      },
    })
  }

  override sendFrame(peer: number, plaintext: Uint8Array, trafficClass: number): boolean {
    return this.dataPath.frameTo(peer, this.peers.addressSlot[peer]!, plaintext, trafficClass)
  }

  override writePacket(packet: Uint8Array): void {
    this.dataPath.packet(packet)
  }

  override drop(reason: DropReason, packet?: Uint8Array, n = 1): void {
    super.drop(reason, packet, n)
    this.tap.dropped(reason, packet)
  }

  /** Packets of the own programs, in one batch. */
  program(...packets: Uint8Array[]): void {
    const batch = this.dataPath.tunIn
    batch.count = 0
    batch.used = 2
    for (const packet of packets) {
      batch.data.set(packet, batch.used)
      batch.desc.set([batch.used, packet.length], batch.count++ * PACKET_WORDS)
      batch.used = ((batch.used + packet.length + 3) & ~3) + 2
    }
    this.dataPath.tunRead(++this.now)
  }

  /** Datagrams from the other host's address, as one GRO'd buffer when there are several. */
  datagram(...frames: Uint8Array[]): void {
    const batch = this.dataPath.wireIn
    let at = 0
    for (const frame of frames) {
      batch.data.set(frame, at)
      at += frame.length
    }
    batch.addresses.set(encodeLocator({ address: '192.0.2.1', port: 7000 + this.peer }), 0)
    batch.desc.set([0, at, frames.length > 1 ? frames[0]!.length : 0, 0])
    batch.count = 1
    this.dataPath.wireRead(++this.now)
  }

  /** Opens a tap and returns what it is shown. */
  dump(points: readonly TapPoint[] = ['tun', 'wire', 'drop'], snapLength = 65_535): TapEvent[] {
    const events: TapEvent[] = []
    this.tap.add({ snapLength, event: (event) => events.push(event) }, points)
    return events
  }

  #written(batch: PacketBatch): void {
    for (let i = 0; i < batch.count; i++) {
      const offset = batch.desc[i * PACKET_WORDS]!
      this.written.push(batch.data.slice(offset, offset + batch.desc[i * PACKET_WORDS + 1]!))
    }
  }
}

function pair(): { client: TappedHost; server: TappedHost } {
  const client = new TappedHost(1, 2)
  const server = new TappedHost(2, 1)
  server.serve(WEB, 4, 8080)
  client.catalogue.set(WEB, [{ peer: client.peer, service: service(WEB), doubtful: false }])
  return { client, server }
}

/** Carries frames both ways until there are no more. */
function exchange(a: TappedHost, b: TappedHost): void {
  while (a.frames.length + b.frames.length > 0) {
    for (const frame of a.frames.splice(0)) b.datagram(frame)
    for (const frame of b.frames.splice(0)) a.datagram(frame)
  }
}

function connect({ client, server }: ReturnType<typeof pair>): void {
  client.program(fromClient(ENDS, { flags: SYN, sequence: ISN }))
  exchange(client, server)
  const syn = see(server.takeWritten()[0]!)
  server.program(fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1 }))
  exchange(client, server)
  client.takeWritten()
  client.program(fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange(client, server)
}

/** An event as one line, without its flow. */
function line(event: TapEvent): string {
  const { point, direction, frame, service: name, peer, protocol, sourcePort, destinationPort, verdict } = event
  const ports = sourcePort === undefined ? '' : ` ${sourcePort}>${destinationPort}`
  return `${point} ${direction} ${frame ?? '-'} ${name ?? '-'}@${peer ?? '-'} ${protocol ?? '-'}${ports} ${verdict}`
}
const lines = (events: TapEvent[]) => events.splice(0).map(line)

test('a connection is shown at both ends, with names, flow and verdict, in order', (t) => {
  const { client, server } = pair()
  const atClient = client.dump()
  const atServer = server.dump()
  connect({ client, server })
  const flow = [...client.engine.flows()][0]!.id
  t.same([...new Set(atClient.map((event) => event.flow))], [flow], 'one flow, by our own ID')
  t.same([...new Set(atServer.map((event) => event.flow))], [[...server.engine.flows()][0]!.id])
  t.not(atServer[0]!.flow, flow)
  const [syn, open] = atClient
  t.equal(syn!.time, WALL + 1)
  t.same(
    syn!.bytes,
    fromClient(ENDS, { flags: SYN, sequence: ISN }).subarray(VNET),
    'the packet as the program sent it',
  )
  t.match(open, { local: '192.0.2.101:7474', remote: '192.0.2.1:7001' })
  t.equal(open!.bytes[0], FrameType.transport, 'the datagram as it travels')
  t.equal(open!.length, open!.bytes.length)
  t.same(lines(atClient), [
    'tun out - web@h2 tcp 40000>80 pass',
    'wire out open web@h2 tcp 40000>80 pass',
    'wire in accept web@h2 tcp 80>40000 pass',
    'tun in - web@h2 tcp 80>40000 pass',
    'tun out - web@h2 tcp 40000>80 pass',
    'wire out data web@h2 tcp 40000>80 pass',
  ])
  t.same(lines(atServer), [
    'wire in open web@h1 tcp 40000>8080 pass',
    'tun in - web@h1 tcp 40000>8080 pass',
    'tun out - web@h1 tcp 8080>40000 pass',
    'wire out accept web@h1 tcp 8080>40000 pass',
    'wire in data web@h1 tcp 40000>8080 pass',
    'tun in - web@h1 tcp 40000>8080 pass',
  ])
  t.end()
})

test('a super-packet is one packet at the TUN and its frames on the wire', (t) => {
  const hosts = pair()
  connect(hosts)
  const events = hosts.client.dump()
  const payload = new Array<number>(2500).fill(1)
  hosts.client.program(fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload, gsoSize: 1000 }))
  t.same(lines(events), [
    'tun out - web@h2 tcp 40000>80 pass',
    ...new Array<string>(3).fill('wire out data web@h2 tcp 40000>80 pass'),
  ])
  const received = hosts.server.dump()
  hosts.server.datagram(...hosts.client.frames.splice(0))
  t.equal(received.filter(({ point }) => point === 'wire').length, 3, 'a GRO buffer is shown frame by frame')
  t.end()
})

test('a packet from a program that is dropped', (t) => {
  const { client } = pair()
  client.catalogue.set(WEB, 'denied')
  const events = client.dump(['tun', 'drop'])
  const unknown = fromClient({ ...ENDS, number: 0 }, { flags: SYN })
  client.program(fromClient(ENDS, { flags: SYN }), unknown)
  const [first, second, dropped, lost] = events.filter(({ direction }) => direction === 'out')
  t.equal(line(first!), 'tun out - web@- tcp 40000>80 denied', 'the address that was dialled names the service')
  t.equal(line(second!), 'tun out - -@- tcp 40000>80 not-dialled')
  t.equal(line(dropped!), 'drop out - web@- tcp 40000>80 denied')
  t.same(dropped!.bytes, first!.bytes)
  t.equal(line(lost!), 'drop out - -@- tcp 40000>80 not-dialled')
  t.same(lost!.bytes, unknown.subarray(VNET))
  const answers = events.filter(({ direction }) => direction === 'in').map(line)
  t.same(answers, ['tun in - web@- icmp pass', 'tun in - -@- icmp pass'], 'and what the program is told')
  t.end()
})

test('datagrams cut from a super-packet are dropped one by one', (t) => {
  const { client } = pair()
  client.catalogue.set(WEB, 'no-instance')
  const events = client.dump(['tun', 'drop'])
  const payload = new Array<number>(250).fill(1)
  const destination = address('dialled', 4, WEB)
  const source = address('self', 4, 1)
  client.program(udpPacket({ family: 4, source, destination, ports: [5000, 53], payload, gsoSize: 100 }))
  t.equal(line(events[0]!), 'tun out - web@- udp 5000>53 no-instance')
  const dropped = events.filter(({ point }) => point === 'drop')
  t.same(
    dropped.map(({ length }) => length),
    [128, 128, 78],
  )
  t.end()
})

test('frames that are not accepted', (t) => {
  const { client, server } = pair()
  const events = server.dump(['wire', 'drop'])
  client.program(fromClient(ENDS, { flags: SYN }))
  const frame = client.frames.splice(0)[0]!
  const broken = frame.slice()
  broken[CLEAR_HEADER + 3]! ^= 1
  server.datagram(broken)
  t.match(events[0], { verdict: 'bad-tag', peer: 'h1', frame: undefined, flow: undefined })
  t.match(events[1], { point: 'drop', direction: 'in', verdict: 'bad-tag', bytes: broken, remote: '192.0.2.1:7001' })
  events.length = 0
  server.endpoints.set(WEB, 'denied')
  server.datagram(frame)
  t.same(lines(events), [
    'wire in open web@h1 tcp 40000>80 denied',
    'drop in open web@h1 tcp 40000>80 denied',
    'wire out not-here -@h1 - pass',
  ])
  server.datagram(frame)
  t.equal(line(events[0]!), 'wire in - -@h1 - replayed')
  t.equal(events[0]!.length, frame.length)
  events.length = 0
  server.datagram(Uint8Array.of(99, 1, 2, 3))
  server.datagram(new Uint8Array(0))
  t.same(lines(events.filter(({ point }) => point === 'wire')), [
    'wire in - -@h1 - bad-type',
    'wire in - -@h1 - truncated',
  ])
  t.end()
})

test('what is said about a flow that is over still has its names', (t) => {
  const { client, server } = pair()
  const atClient = client.dump()
  const atServer = server.dump()
  connect({ client, server })
  const flow = atClient[0]!.flow
  const servers = atServer[0]!.flow
  atClient.length = atServer.length = 0
  server.engine.closeAll(5)
  server.dataPath.flush(5)
  exchange(client, server)
  t.same(
    atServer.map((event) => event.flow),
    [servers, servers],
  )
  t.same(lines(atServer), ['wire out close web@h1 tcp 8080>40000 pass', 'tun in - web@h1 tcp 40000>8080 pass'])
  t.ok(atClient.every((event) => event.flow === flow))
  t.same(lines(atClient), ['wire in close web@h2 tcp 80>40000 pass', 'tun in - web@h2 tcp 80>40000 pass'])
  t.end()
})

test('a refusal by the server is seen on its whole way', (t) => {
  const { client, server } = pair()
  const atClient = client.dump()
  const atServer = server.dump()
  client.program(fromClient(ENDS, { flags: SYN, sequence: ISN }))
  exchange(client, server)
  const syn = see(server.takeWritten()[0]!)
  server.program(fromServer(syn, { flags: RST | ACK, acknowledgement: ISN + 1 }))
  exchange(client, server)
  t.same(lines(atServer).slice(2), [
    'tun out - web@h1 tcp 8080>40000 pass',
    'wire out not-here web@h1 tcp 8080>40000 pass',
  ])
  t.same(lines(atClient).slice(2), [
    'wire in not-here web@h2 tcp 80>40000 pass',
    'drop in not-here web@h2 tcp 80>40000 refused',
    'tun in - web@h2 tcp 80>40000 pass',
  ])
  t.end()
})

test('echo and ICMP errors have the names of their flow and no ports', (t) => {
  const { client, server } = pair()
  server.endpoints.set(WEB, { family: 4, address: address('served', 4, WEB), port: 0 })
  const atClient = client.dump()
  const [source, destination] = [address('self', 4, 1), address('dialled', 4, WEB)]
  client.program(echoPacket({ family: 4, source, destination, ports: [80, 0] }))
  exchange(client, server)
  const flow = [...client.engine.flows()][0]!.id
  t.same(
    atClient.map((event) => event.flow),
    [flow, flow],
  )
  t.same(lines(atClient), ['tun out - web@h2 icmp pass', 'wire out open web@h2 icmp pass'])

  const other = pair()
  connect(other)
  const atServer = other.server.dump()
  other.client.program(fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
  exchange(other.client, other.server)
  atServer.length = 0
  other.server.program(portUnreachable(other.server.takeWritten().at(-1)!))
  t.same(lines(atServer), ['tun out - web@h1 icmp pass', 'wire out icmp-error web@h1 tcp 8080>40000 pass'])
  t.end()
})

test('handshakes, and frames of the host itself', (t) => {
  const { client } = pair()
  const events = client.dump(['wire'])
  client.dataPath.clear(Uint8Array.of(FrameType.init, 1, 0, 0, 9, 9), client.peers.addressSlot[client.peer]!)
  t.same(events, [], 'shown when what it belongs to is done')
  const probe = new Uint8Array(INNER_HEADER + 16)
  writeInnerHeader(new DataView(probe.buffer), 0, 0, 0, Kind.probeEcho, 0, 0, 0)
  client.sendFrame(client.peer, probe, 0)
  client.dataPath.flush(3)
  t.match(events[0], { remote: '192.0.2.1:7001', time: WALL + 3, length: 6 })
  client.datagram(Uint8Array.of(FrameType.response, 1, 0, 0))
  t.same(lines(events), [
    'wire out init -@h2 - pass',
    'wire out probe-echo -@h2 - pass',
    'wire in response -@h2 - pass',
  ])
  t.end()
})

test('something dropped with no packet at hand', (t) => {
  const { client } = pair()
  const events = client.dump()
  client.drop('queue-expired')
  client.dataPath.flush(9)
  t.match(events, [{ point: 'drop', verdict: 'queue-expired', length: 0, time: WALL + 9 }])
  t.equal(events.length, 1)
  t.end()
})

test('taps: each gets its points and as many bytes as it wants, and the host is told when there are any', (t) => {
  const { client } = pair()
  client.catalogue.set(WEB, 'denied')
  const send = () => client.program(fromClient(ENDS, { flags: SYN, mss: 1380 }))
  const long: TapEvent[] = []
  const short: TapEvent[] = []
  const closeLong = client.tap.add({ snapLength: 65_535, event: (event) => long.push(event) }, ['tun', 'wire'])
  const closeShort = client.tap.add({ snapLength: 16, event: (event) => short.push(event) }, ['drop', 'tun'])
  t.same(client.switches, [true])
  send()
  t.same([...new Set(long.map(({ point }) => point))], ['tun'])
  t.same([...new Set(short.map(({ point }) => point))], ['tun', 'drop'])
  t.equal(long[0]!.bytes.length, 44)
  t.match(short[0], { length: 44, sourcePort: 40_000, service: 'web' })
  t.equal(short[0]!.bytes.length, 16)
  long[0]!.bytes.fill(0)
  t.equal(short[0]!.bytes[0], 0x45, 'bytes belong to their receiver')
  closeLong()
  long.length = short.length = 0
  send()
  t.equal(long.length, 0)
  t.equal(short.length, 3)
  t.same(client.switches, [true])
  closeShort()
  closeShort()
  t.same(client.switches, [true, false])
  short.length = 0
  send()
  t.equal(short.length, 0)
  t.end()
})

test('only drops are wanted: nothing else is shown', (t) => {
  const { client, server } = pair()
  const drops = client.dump(['drop'])
  connect({ client, server })
  t.same(drops, [])
  client.program(fromClient({ ...ENDS, number: 0 }, { flags: SYN }))
  client.datagram(Uint8Array.of(99))
  t.same(lines(drops), ['drop out - -@- tcp 40000>80 not-dialled', 'drop in - -@h2 - truncated'])
  t.end()
})

test('no bytes from the TUN or from a peer upset it', (t) => {
  const { client, server } = pair()
  connect({ client, server })
  const events = client.dump()
  const slot = client.peers.addressSlot[client.peer]!
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 120 }),
      fc.integer({ min: 0, max: 15 }),
      fc.boolean(),
      (bytes, kind, known) => {
        const plaintext = Uint8Array.of(...new Array<number>(INNER_HEADER).fill(0), ...bytes)
        const id = known ? [...client.engine.flows()][0]?.id : undefined
        const generation = id === undefined ? 1 : Number.parseInt(id.slice(8), 16)
        writeInnerHeader(new DataView(plaintext.buffer), 0, 0, generation, kind, 0, 64, bytes[0] ?? 6)
        server.dataPath.frameTo(server.peer, slot, plaintext, 0)
        server.dataPath.flush(0)
        client.program(Uint8Array.of(...new Array<number>(VNET).fill(0), ...bytes))
        events.length = 0
        for (const frame of server.frames.splice(0)) client.datagram(frame)
        return events.some(({ point, peer }) => point === 'wire' && peer === 'h2')
      },
    ),
    { numRuns: 500 },
  )
  t.end()
})
