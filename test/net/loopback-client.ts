// A TCP client made of bare packets: fetches a page from a server on 127.0.0.1 in this namespace, through a TUN device, from a peer address.
// usage: node loopback-client.js PORT. Prints `body TEXT` when the server has sent everything, or `refused`.

import { LinkSetup } from '../../daemon/link.js'
import { NativeTun } from '../../daemon/tun.js'
import { packetBatch, PACKET_WORDS } from '../../lib/wire/batch.js'
import { VNET_HEADER } from '../../lib/wire/constants.js'

const PEER = [198, 19, 128, 7]
const SERVER = [127, 0, 0, 1]
const CLIENT_PORT = 40_000
const IP = VNET_HEADER
const TCP = IP + 20
const [FIN, SYN, RST, ACK] = [1, 2, 4, 16]

const port = Number(process.argv[2])
const tun = new NativeTun({ name: 'over0', mtu: 1420, offload: 'none' })
const link = new LinkSetup({
  tun: tun.name,
  mtu: 1420,
  self: ['198.18.0.1'],
  local: [],
  routes: ['198.19.128.0/17'],
  pools: ['198.18.0.0/15'],
})
await link.setup()

const out = packetBatch(2048, 1)
const read = packetBatch(1 << 19, 64)
let [sent, received] = [1000, 0]
const body: string[] = []

function folded(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}

function send(flags: number, payload = ''): void {
  const { view, data, desc } = out
  const total = 40 + payload.length
  data.fill(0)
  view.setUint8(0, 1) // the checksum is partial
  view.setUint16(6, 20, true)
  view.setUint16(8, 16, true)
  view.setUint8(IP, 0x45)
  view.setUint16(IP + 2, total)
  view.setUint8(IP + 8, 64)
  view.setUint8(IP + 9, 6)
  data.set([...PEER, ...SERVER], IP + 12)
  let sum = 0
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(IP + i)
  view.setUint16(IP + 10, ~folded(sum) & 0xffff)
  view.setUint16(TCP, CLIENT_PORT)
  view.setUint16(TCP + 2, port)
  view.setUint32(TCP + 4, sent)
  view.setUint32(TCP + 8, received)
  view.setUint8(TCP + 12, 0x50)
  view.setUint8(TCP + 13, flags)
  view.setUint16(TCP + 14, 60_000)
  let pseudo = 6 + total - 20
  for (let i = 0; i < 8; i += 2) pseudo += view.getUint16(IP + 12 + i)
  view.setUint16(TCP + 16, folded(pseudo))
  data.set(Buffer.from(payload), TCP + 20)
  desc.set([0, VNET_HEADER + total, 0, 0])
  out.count = 1
  if (tun.writeBatch(out) !== 1) throw new Error('the TUN did not take the packet')
  sent += payload.length + (flags & (SYN | FIN) ? 1 : 0)
}

async function end(line: string): Promise<void> {
  tun.close()
  await link.teardown()
  console.log(line)
}

function answer(at: number): void {
  const { view, data } = read
  const [ip, tcp] = [at + IP, at + TCP]
  if (view.getUint8(ip) !== 0x45 || view.getUint8(ip + 9) !== 6) return
  if (data.subarray(ip + 12, ip + 16).join() !== SERVER.join()) throw new Error('the answer is from another address')
  if (data.subarray(ip + 16, ip + 20).join() !== PEER.join()) throw new Error('the answer is for another address')
  const flags = view.getUint8(tcp + 13)
  if (flags & RST) return void end('refused')
  const sequence = view.getUint32(tcp + 4)
  if (flags & SYN) {
    received = (sequence + 1) >>> 0
    send(ACK, 'GET /body HTTP/1.0\r\n\r\n')
    return
  }
  const payload = tcp + (view.getUint8(tcp + 12) >> 4) * 4
  const length = ip + view.getUint16(ip + 2) - payload
  if (sequence !== received) return
  body.push(Buffer.from(data.subarray(payload, payload + length)).toString('latin1'))
  received = (received + length + (flags & FIN ? 1 : 0)) >>> 0
  if (flags & FIN) {
    send(ACK | FIN)
    void end(`body ${body.join('').split('\r\n\r\n')[1]}`)
  } else if (length > 0) send(ACK)
}

tun.onReadable(() => {
  tun.readBatch(read)
  for (let i = 0; i < read.count; i++) answer(read.desc[i * PACKET_WORDS]!)
})
send(SYN)
