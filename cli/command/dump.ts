import { createReadStream } from 'node:fs'
import { Option, type Command } from 'commander'
import { parseFilter, type Filter } from '../../daemon/control/filter.js'
import { decodePacket, tapPoints, type DumpPacket } from '../../daemon/control/protocol.js'
import { CaracalError, messageOf } from '../../daemon/errors.js'
import { untilInterrupted, withDaemon } from '../daemon.js'
import { PcapngReader } from '../dump/pcapng.js'
import { fileSink, jsonSink, textSink, type Sink } from '../dump/sink.js'
import { wholeNumber, withReading, type ReadingOptions } from '../option.js'
import { counted, note } from '../output.js'
import type { Finish } from '../program.js'

type Point = (typeof tapPoints)[number]

interface Options extends ReadingOptions {
  readonly write?: string
  readonly read?: string
  readonly count: number
  readonly snaplen: number
  readonly point?: Point[]
  readonly hex?: boolean
}

const FILTER_HELP = `
Filter:
  words      tcp  udp  icmp  in  out  dropped
             port N or N-M, service NAME, host NAME or ADDRESS, flow HEX, frame KIND, reason REASON
  combined   and, or, not, parentheses (quote them from the shell)

Examples:
  caracal dump service web and port 80
  caracal dump --point drop not reason replayed
  caracal dump -w - host h2 | tshark -r -
`

export function addDump(program: Command, finish: Finish): void {
  withReading(program.command('dump'))
    .argument('[filter...]', 'which packets; all when left out')
    .description('Show packets at the TUN, on the wire and where they are dropped, with names, flow and verdict.')
    .addOption(new Option('-w, --write <file>', 'write pcapng instead; - is stdout').conflicts(['json', 'hex']))
    .addOption(new Option('-r, --read <file>', 'read packets from a file of -w instead of the daemon'))
    .option(
      '-c, --count <n>',
      'end after so many packets',
      wholeNumber(1, Number.MAX_SAFE_INTEGER),
      Number.POSITIVE_INFINITY,
    )
    .option('-s, --snaplen <n>', 'keep so many bytes of each (default: all)', wholeNumber(16, 65_575), 65_575)
    .addOption(
      new Option('--point <point>', `${tapPoints.join(', ')}; may be repeated (default: all)`).argParser(point),
    )
    .option('-X, --hex', 'show the bytes too')
    .addHelpText('after', FILTER_HELP)
    .action(async (words: string[], options: Options) => {
      const text = words.join(' ')
      const parsed = parseFilter(text)
      if (!parsed.ok) {
        const what = `bad filter at column ${parsed.column}: ${parsed.message}`
        throw new CaracalError('CARACAL_E_FILTER', what, 'see `caracal dump --help`')
      }
      if (options.write === '-' && process.stdout.isTTY) {
        throw new CaracalError(
          'CARACAL_E_USAGE',
          'a capture file makes no sense on a terminal',
          'give -w a file, or a pipe',
        )
      }
      if (options.read === undefined) await live(text, options)
      else await fromFile(options.read, parsed.filter, options)
      finish()
    })
}

function point(text: string, before: Point[] | undefined): Point[] {
  const found = tapPoints.find((known) => known === text)
  if (found === undefined) {
    throw new CaracalError('CARACAL_E_USAGE', `--point: "${text}" is no tap point`, `choose of ${tapPoints.join(', ')}`)
  }
  return before?.includes(found) ? before : [...(before ?? []), found]
}

/** Counts what goes to the sink, up to the limit. */
class Taker {
  taken = 0
  constructor(
    private readonly sink: Sink,
    private readonly limit: number,
  ) {}

  /** false: that was the last one. */
  take(packet: DumpPacket): boolean {
    if (this.taken >= this.limit) return false
    this.taken++
    this.sink.packet(packet)
    return this.taken < this.limit
  }
}

function openSink(options: Options): Sink {
  if (options.write !== undefined) return fileSink(options.write)
  return options.json ? jsonSink() : textSink(options.hex ?? false)
}

async function live(filter: string, options: Options): Promise<void> {
  const { point: points, snaplen: snapLength } = options
  await withDaemon(options, async (client) => {
    const sink = openSink(options)
    const taker = new Taker(sink, options.count)
    let lost = 0
    try {
      await untilInterrupted((controller) => {
        const reader = {
          event: (event: Parameters<typeof decodePacket>[0]) => {
            if (!taker.take(decodePacket(event))) controller.abort()
          },
          lost: (count: number) => void (lost += count),
        }
        const request = points === undefined ? { snapLength, filter } : { points, snapLength, filter }
        return client.stream('dump', request, reader, controller.signal)
      })
    } finally {
      sink.close()
      const missed = lost > 0 ? `, ${lost} missed because the output is slower than the traffic` : ''
      if (lost > 0 || options.write !== undefined || process.stderr.isTTY)
        note(`${counted(taker.taken, 'packet')}${missed}`)
    }
  })
}

async function fromFile(path: string, filter: Filter, options: Options): Promise<void> {
  const reader = new PcapngReader()
  const sink = openSink(options)
  const taker = new Taker(sink, options.count)
  const wanted = (packet: DumpPacket) => (options.point?.includes(packet.point) ?? true) && filter(packet)
  try {
    for await (const chunk of chunksOf(path)) {
      for (const packet of reader.push(chunk)) if (wanted(packet) && !taker.take(cut(packet, options.snaplen))) return
      if (reader.problem !== undefined) break
    }
    reader.end()
  } finally {
    sink.close()
  }
  if (reader.problem === undefined) return
  throw new CaracalError(
    'CARACAL_E_FILE',
    `${path} cannot be read on (${reader.problem})`,
    'give a file of `caracal dump -w`',
  )
}

function cut(packet: DumpPacket, snapLength: number): DumpPacket {
  return packet.bytes.length <= snapLength ? packet : { ...packet, bytes: packet.bytes.subarray(0, snapLength) }
}

async function* chunksOf(path: string): AsyncGenerator<Uint8Array> {
  const stream = path === '-' ? process.stdin : createReadStream(path)
  try {
    for await (const chunk of stream) yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk
  } catch (error) {
    const what = `${path} cannot be read (${messageOf(error)})`
    throw new CaracalError('CARACAL_E_FILE', what, 'give a file of `caracal dump -w`', { cause: error })
  }
}
