// First packets whose service nobody has told us of yet: held, released when it is known, refused when nothing comes.
import { test } from 'tap'
import { Kind } from '../../../lib/wire/constants.js'
import { fromClient, ISN, WEB } from './connection.js'
import { address, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { SYN, udpPacket } from './packets.js'

const ENDS = { clientFamily: 4, serverFamily: 4 } as const
const SYN_PACKET = fromClient(ENDS, { flags: SYN, sequence: ISN })
const datagram = (port: number, payload = 1) =>
  udpPacket({
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [port, 53],
    payload: [payload],
  })

function host(options = {}) {
  const client = new FlowHost(1, options)
  const peer = client.meet(2)
  client.catalogue.set(WEB, 'hold')
  const known = () => client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  return { client, known }
}

test('a held packet goes out when its service becomes known, a repeated one only once', (t) => {
  const { client, known } = host()
  client.tun(0, SYN_PACKET, datagram(5000))
  client.tun(1_000, SYN_PACKET)
  t.same(client.sent, [])
  t.same(client.written, [], 'the program is told nothing')
  client.engine.release(1_100)
  t.same(client.sent, [], 'nothing is known yet')
  known()
  client.engine.release(1_200)
  t.same(
    client.takeSent().map((frame) => frame.kind),
    [Kind.open, Kind.open],
  )
  client.engine.release(1_300)
  t.same(client.sent, [])
  t.end()
})

test('held datagrams of one flow all go out, in their order', (t) => {
  const { client, known } = host()
  client.tun(0, datagram(5000, 1), datagram(5001, 7), datagram(5000, 2), SYN_PACKET, datagram(5000, 3), SYN_PACKET)
  known()
  client.engine.release(1_000)
  const sent = client.takeSent()
  t.ok(sent.every(({ kind }) => kind === Kind.open))
  const payloads = sent.map(({ bytes }) => bytes.at(-1))
  t.same([payloads[0], payloads[1], payloads[2], payloads[4]], [1, 7, 2, 3])
  t.equal(sent.length, 5, 'and the SYN once')
  t.same(client.drops, [])
  t.end()
})

test('held SYNs of two connections from one port: the second one supersedes the first', (t) => {
  const { client, known } = host()
  client.tun(0, SYN_PACKET, fromClient(ENDS, { flags: SYN, sequence: ISN + 1 }))
  known()
  client.engine.release(1_000)
  t.same(
    client.takeSent().map(({ kind }) => kind),
    [Kind.open, Kind.close, Kind.open],
  )
  t.equal([...client.engine.flows()].length, 1)
  t.end()
})

test('what is held for too long is refused', (t) => {
  const { client, known } = host({ heldTimeout: 3_000 })
  client.tun(0, SYN_PACKET)
  t.equal(client.engine.nextTimeout(), 3_000)
  client.engine.handleTimeout(2_999)
  t.same(client.drops, [])
  client.engine.handleTimeout(3_000)
  t.same(client.drops, ['no-such-service'])
  t.equal(client.takeWritten().length, 1, 'the program gets an ICMP error')
  known()
  client.engine.release(3_001)
  t.same(client.sent, [])
  t.end()
})

test('room for held packets is bounded', (t) => {
  const { client, known } = host({ heldPackets: 2 })
  client.tun(0, datagram(5000), datagram(5001), datagram(5002))
  t.same(client.drops, ['queue-full'])
  known()
  client.engine.release(1)
  t.equal(client.takeSent().length, 2)
  t.end()
})
