// Whatever comes from the TUN or from a peer, the engine neither throws nor writes a packet that is not one, and a live flow goes on.
import fc from 'fast-check'
import { test } from 'tap'
import { Kind } from '../../lib/wire/constants.js'
import { ParsedPacket, parsePacket } from '../../lib/wire/packet.js'
import { connect, fromClient, ISN, SERVER_ISN, WEB } from '../unit/flow/connection.js'
import { address, exchange, FlowHost, SELF_ADDRESS, service, type SentFrame } from '../unit/flow/flow-host.js'
import { ACK, echoPacket, portUnreachable, see, SYN, tcpPacket, udpPacket } from '../unit/flow/packets.js'

const ENDS = { clientFamily: 4, serverFamily: 6 } as const

function pair() {
  const client = new FlowHost(1)
  const server = new FlowHost(2)
  client.catalogue.set(WEB, [{ peer: client.meet(2), service: service(WEB), doubtful: false }])
  server.meet(1)
  server.serve(WEB, 6, 8080)
  connect(client, server, ENDS)
  return { client, server }
}
/** A live flow passes on bytes in both directions of decision: TUN to frame, frame to TUN. */
function alive(client: FlowHost, server: FlowHost): boolean {
  client.takeSent()
  server.takeWritten()
  client.tun(1, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [42] }))
  const frame = client.takeSent().at(-1)
  if (frame === undefined) return false
  server.receive(1, 1, frame)
  const packet = server.takeWritten().at(-1)
  return packet !== undefined && see(packet).payload[0] === 42
}
/** Whether lengths and headers hold together. */
function isPacket(packet: Uint8Array): boolean {
  const result = parsePacket(packet, new DataView(packet.buffer), 0, packet.length, new ParsedPacket())
  return result === 'ok' || result === 'icmp-error'
}
/** Changes or cuts bytes. */
const mutation = fc.record({
  changes: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
  cut: fc.option(fc.nat(), { nil: undefined, freq: 4 }),
})
function mutate(
  bytes: Uint8Array,
  how: { changes: [number, number][]; cut: number | undefined },
  from: number,
): Uint8Array {
  const copy = bytes.slice(0, how.cut === undefined ? bytes.length : how.cut % (bytes.length + 1))
  for (const [at, value] of how.changes) if (copy.length > from) copy[from + (at % (copy.length - from))] = value
  return copy
}

/** Frames of all kinds that the flow layer sends. */
function everyKind(): SentFrame[] {
  const { client, server } = pair()
  const samples: SentFrame[] = []
  const carry = () =>
    exchange([client, server], 0, (frame) => {
      samples.push(frame)
      return false
    })
  const udp = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  client.tun(0, fromClient({ ...ENDS, clientPort: 9 }, { flags: SYN, sequence: 1, mss: 1400 }))
  client.tun(0, fromClient(ENDS, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1, payload: [1, 2, 3] }))
  client.tun(0, echoPacket({ ...udp, ports: [3, 0] }), udpPacket({ ...udp, payload: [1, 2, 3] }))
  carry()
  const request = server.takeWritten().find((packet) => see(packet).ports[0] === 5000)!
  const { source, destination } = see(request)
  for (const payload of [[1], [2]]) {
    server.tun(0, udpPacket({ family: 6, source: destination, destination: source, ports: [8080, 5000], payload }))
    carry()
  }
  server.tun(0, portUnreachable(request))
  client.tun(0, udpPacket({ ...udp, payload: new Array<number>(4000).fill(1) }))
  carry()
  server.engine.cut((flow) => flow.protocol === 'icmp', 0)
  carry()
  client.receive(
    0,
    1,
    samples.find((frame) => frame.kind === Kind.data)!,
  )
  carry()
  return samples
}

test('frames from a peer', (t) => {
  const { client, server } = pair()
  const samples = everyKind()
  t.same(
    [...new Set(samples.map((frame) => frame.kind))].sort((a, b) => a - b),
    [
      Kind.data,
      Kind.open,
      Kind.accept,
      Kind.notHere,
      Kind.close,
      Kind.icmpError,
      Kind.piece,
      Kind.confirm,
      Kind.confirmed,
    ],
  )
  fc.assert(
    fc.property(fc.nat(), mutation, fc.integer({ min: 0, max: 255 }), (which, how, outer) => {
      const frame = samples[which % samples.length]!
      const bytes = mutate(frame.bytes, how, 0)
      const host = new FlowHost(2)
      host.meet(1)
      host.serve(WEB, 6, 8080)
      host.receive(0, 1, frame, 0)
      host.receive(1, 1, { ...frame, bytes }, outer)
      server.receive(1, 3, { ...frame, bytes }, outer)
      // A complete checksum that the peer got wrong is the kernel's to find.
      return host.takeWritten().every((packet) => isPacket(packet))
    }),
    { numRuns: 3000 },
  )
  t.ok(alive(client, server))
  t.end()
})

test('packets from the TUN', (t) => {
  const { client, server } = pair()
  const udp = {
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
  } as const
  const six = {
    family: 6,
    source: SELF_ADDRESS[6],
    destination: address('dialled', 6, WEB),
    ports: [5000, 53],
  } as const
  const samples = [
    fromClient({ ...ENDS, clientPort: 9 }, { flags: SYN, sequence: 1, mss: 1400 }),
    udpPacket({ ...udp, payload: [1, 2, 3] }),
    udpPacket({ ...six, payload: [1, 2, 3, 4, 5], gsoSize: 2 }),
    tcpPacket({ ...six, flags: ACK, payload: [1, 2, 3, 4, 5], gsoSize: 2 }),
    echoPacket({ ...six, ports: [7, 0] }),
    portUnreachable(udpPacket({ ...udp, payload: [1, 2, 3] })),
  ]
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(), mutation), { minLength: 1, maxLength: 4 }), (packets) => {
      client.tun(1, ...packets.map(([which, how]) => mutate(samples[which % samples.length]!, how, 0)))
      client.takeWritten()
      client.takeSent()
      client.engine.handleTimeout(1)
      return true
    }),
    { numRuns: 3000 },
  )
  client.engine.cut((flow) => flow.state === 'opening', 1)
  t.equal(client.engine.table.count >= 1, true)
  t.ok(alive(client, server))
  t.end()
})
