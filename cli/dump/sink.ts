// Where the packets of a dump go: text or JSON lines on stdout, or a capture file.

import { closeSync, openSync, writeSync } from 'node:fs'
import { encodePacket } from '../../daemon/control/packet-event.js'
import type { DumpPacket } from '../../daemon/control/protocol.js'
import { CaracalError, messageOf, systemCode } from '../../daemon/errors.js'
import { print, printJsonLine } from '../output.js'
import { formatPacket, hexLines } from './format.js'
import { pcapngHeader, pcapngPacket } from './pcapng.js'

export interface Sink {
  packet(packet: DumpPacket): void
  /** To be called once. */
  close(): void
}

export function textSink(hex: boolean): Sink {
  return {
    packet: (packet) => {
      print(formatPacket(packet))
      if (hex) for (const line of hexLines(packet.bytes)) print(line)
    },
    close: () => undefined,
  }
}

export function jsonSink(): Sink {
  return { packet: (packet) => printJsonLine(encodePacket(packet)), close: () => undefined }
}

/**
 * A pcapng file, readable by its owner only; `-` is stdout. Each packet is in the file when `packet` returns.
 * @throws CaracalError CARACAL_E_FILE when it cannot be written
 */
export function fileSink(path: string): Sink {
  const file = path === '-' ? 1 : attempt(path, () => openSync(path, 'w', 0o600))
  const write = (bytes: Uint8Array) => attempt(path, () => writeAll(file, bytes))
  write(pcapngHeader())
  return {
    packet: (packet) => write(pcapngPacket(packet)),
    close: () => {
      if (file !== 1) closeSync(file)
    },
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  let at = 0
  while (at < bytes.length) {
    try {
      at += writeSync(file, bytes, at)
    } catch (error) {
      // a pipe that its reader made non-blocking
      if (systemCode(error) !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

function attempt<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (path === '-' && systemCode(error) === 'EPIPE') process.exit(0)
    const what = `${path} cannot be written (${messageOf(error)})`
    throw new CaracalError('CARACAL_E_FILE', what, 'give another file with -w', { cause: error })
  }
}
