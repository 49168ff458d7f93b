// The kernel's socket tables (/proc/net/tcp and the like) as tests write them.

import { endianness } from 'node:os'
import ipaddr from 'ipaddr.js'

/** A line for a socket at the address that listens, or has the peer. */
export function row(address: string, port: number, peer?: { readonly address: string; readonly port: number }): string {
  const any = address.includes(':') ? '::' : '0.0.0.0'
  const ends = [end(address, port), end(peer?.address ?? any, peer?.port ?? 0)]
  const state = peer === undefined ? '0A' : '01'
  return `   0: ${ends.join(' ')} ${state} 00000000:00000000 00:00000000 00000000     0        0 9120 1 0000000000000000 100 0 0 10 0`
}

/** A table of such lines, with its heading. */
export function table(...rows: readonly string[]): string {
  return `  sl  local_address rem_address   st tx_queue rx_queue\n${rows.map((one) => `${one}\n`).join('')}`
}

function end(address: string, port: number): string {
  const bytes = Buffer.from(ipaddr.parse(address).toByteArray())
  if (endianness() === 'LE') bytes.swap32()
  return `${bytes.toString('hex')}:${port.toString(16).padStart(4, '0')}`.toUpperCase()
}
