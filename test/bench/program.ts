// Programs and servers as the hosts' TUNs see them: packets made from templates, without allocation.

import { PACKET_WORDS } from '../../lib/wire/batch.js'
import { VNET_HEADER } from '../../lib/wire/constants.js'
import { SYN } from '../unit/flow/packets.js'
import type { MemoryHost } from './memory-link.js'

/** Packets that a TUN hands over at a time. */
export const BATCH = 64
/** Super-packets of 64 KB. */
export const BULK_BATCH = 8
/** Positions in a packet of IPv4, from its virtio_net_hdr on. */
export const IP = VNET_HEADER
export const TCP = IP + 20

/** Packets of programs, made from templates into a host's TUN buffer. */
export class Program {
  constructor(
    readonly host: MemoryHost,
    readonly template: Uint8Array,
  ) {}

  begin(): void {
    const { tunIn } = this.host.host.dataPath
    tunIn.count = 0
    tunIn.used = 2
  }

  /** Position of the packet in the TUN's buffer, for what differs. */
  add(): number {
    const { tunIn } = this.host.host.dataPath
    const offset = tunIn.used
    tunIn.data.set(this.template, offset)
    tunIn.desc[tunIn.count * PACKET_WORDS] = offset
    tunIn.desc[tunIn.count * PACKET_WORDS + 1] = this.template.length
    tunIn.count++
    tunIn.used = ((offset + this.template.length + 1) & ~3) + 2
    return offset
  }

  send(): void {
    const { host, link } = this.host
    link.counted(() => host.tunRead(link.now))
  }
}

/** A kernel with a server that answers every SYN; and no other. Returns how many there were. */
export function answer(server: MemoryHost, program: Program): number {
  const { written } = server
  const { tunIn } = server.host.dataPath
  let answered = 0
  for (let next = 0; next < written.count;) {
    program.begin()
    for (; next < written.count && tunIn.count < BATCH; next++) {
      const from = written.desc[next * 4]!
      if ((written.data[from + TCP + 13]! & SYN) === 0) continue
      const at = program.add()
      for (let i = 0; i < 4; i++) {
        tunIn.data[at + IP + 12 + i] = written.data[from + IP + 16 + i]!
        tunIn.data[at + IP + 16 + i] = written.data[from + IP + 12 + i]!
      }
      tunIn.view.setUint16(at + TCP, written.view.getUint16(from + TCP + 2))
      tunIn.view.setUint16(at + TCP + 2, written.view.getUint16(from + TCP))
      tunIn.view.setUint32(at + TCP + 8, (written.view.getUint32(from + TCP + 4) + 1) >>> 0)
      answered++
    }
    if (tunIn.count > 0) program.send()
  }
  written.clear()
  return answered
}
