// Something unforeseen is thrown in the midst of a batch.
import { test } from 'tap'
import { OPEN_WORDS, openBatch } from '../../../lib/wire/batch.js'
import { HEADROOM, Kind } from '../../../lib/wire/constants.js'
import { WEB } from './connection.js'
import { address, FlowHost, SELF_ADDRESS, service } from './flow-host.js'
import { udpPacket } from './packets.js'

test('what is thrown over one packet or frame costs no other, and is counted once', (t) => {
  const [client, server] = [new FlowHost(1), new FlowHost(2)]
  const peer = client.meet(2)
  const back = server.meet(1)
  client.catalogue.set(WEB, [{ peer, service: service(WEB), doubtful: false }])
  server.serve(WEB, 4, 8080)
  const candidates = client.candidates.bind(client)
  const fault = new Error('not foreseen')
  client.candidates = (target) => {
    if (target.kind === 'service' && target.service === service(WEB + 1)) throw fault
    return candidates(target)
  }
  const datagram = (number: number, port: number) =>
    udpPacket({
      family: 4,
      source: SELF_ADDRESS[4],
      destination: address('dialled', 4, number),
      ports: [port, 80],
      payload: [port & 255],
    })
  client.tun(0, datagram(WEB, 5000), datagram(WEB + 1, 5001), datagram(WEB, 5002))
  t.strictSame(client.takeDrops(), ['fault'])
  t.strictSame(client.faults, [fault])
  const opens = client.takeSent()
  t.equal(opens.length, 2)

  server.other = () => {
    throw fault
  }
  const control = { ...opens[0]!, bytes: opens[0]!.bytes.slice() }
  control.bytes[8] = Kind.control
  const frames = [opens[0]!, control, opens[1]!]
  const open = openBatch(4096, frames.length)
  for (const [i, { bytes }] of frames.entries()) {
    const at = HEADROOM + i * 1024
    open.data.set(bytes, at)
    open.desc.set([at, bytes.length, 0, 0, 0, back, 0, 0], i * OPEN_WORDS)
    open.count++
  }
  server.receiveBatch(1, open)
  t.strictSame(server.takeDrops(), ['fault'])
  t.strictSame(server.faults, [fault])
  t.equal(server.takeWritten().length, 2)
  t.end()
})
