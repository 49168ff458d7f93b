// DNS messages as a function: a query's bytes in, a reply's bytes out. Knows neither sockets nor our zone.

import {
  AUTHORITATIVE_ANSWER,
  encode,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
  type Answer,
  type OptAnswer,
  type Packet,
} from 'dns-packet'

export type ResponseCode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED'

export interface DnsAnswer {
  readonly code: ResponseCode
  readonly answers: Answer[]
  readonly authorities: Answer[]
  /** Whether we are the authority for it: false for REFUSED and SERVFAIL. */
  readonly authoritative: boolean
}

/**
 * Answers one question of class IN; may wait (a new name's address goes to disk first). `name`: as asked, without the last dot; bytes that are no plain characters,
 * and dots inside a label, as `\DDD`.
 */
export type DnsResolver = (name: string, type: string) => Promise<DnsAnswer> | DnsAnswer

export type DnsTransport = 'udp' | 'tcp'

/** A query that can be answered. */
export interface DnsQuery {
  readonly id: number
  readonly recursionDesired: boolean
  /** The question section as it came: a reply repeats it to the bit, or the asker takes it for forged. */
  readonly question: Buffer
  readonly name: string
  readonly type: string
  readonly classIn: boolean
  readonly edns: { readonly version: number; readonly payloadSize: number } | undefined
}

/** What bytes are: a query, something that gets an error reply without a question, or (too short, or itself a reply) something that gets none. */
export type DnsReading =
  | { readonly kind: 'query'; readonly query: DnsQuery }
  | { readonly kind: 'refused'; readonly reply: Buffer }
  | { readonly kind: 'ignored' }

const CODES: Record<ResponseCode, number> = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 }
/** What a zone may have something to say on; others are called by their number (RFC 3597 section 5). */
const TYPES = new Map([
  [1, 'A'],
  [2, 'NS'],
  [6, 'SOA'],
  [12, 'PTR'],
  [28, 'AAAA'],
  [255, 'ANY'],
])
const TYPE_OPT = 41
const CLASS_IN = 1
const HEADER = 12
const QR = 0x80
const LABEL_MAX = 63
/** From here on the two upper bits of a length mark a pointer (RFC 1035 section 4.1.4). */
const POINTER = 0xc0
const NAME_MAX = 255
/** OPT, TSIG, SIG(0) and one to spare. */
const ADDITIONALS_MAX = 4
/** Longer ones are no questions; the bound keeps what one message costs small. */
export const QUERY_BYTES_MAX = 4_096
const UDP_SIZE_MIN = 512
/** Fits every path without fragments (DNS flag day 2020). */
export const UDP_SIZE_MAX = 1_232
const TCP_SIZE_MAX = 65_535

const failure: DnsAnswer = { code: 'SERVFAIL', answers: [], authorities: [], authoritative: false }
const refusal: DnsAnswer = { ...failure, code: 'REFUSED' }

/** Reads a message. Total. */
export function readQuery(message: Buffer): DnsReading {
  if (message.length < HEADER || (message[2]! & QR) !== 0) return { kind: 'ignored' }
  const refused = (code: ResponseCode): DnsReading => ({ kind: 'refused', reply: headerOnly(message, code) })
  if (((message[2]! >> 3) & 0x0f) !== 0) return refused('NOTIMP')
  const [questions, answers, authorities, additionals] = [4, 6, 8, 10].map((at) => message.readUInt16BE(at))
  if (questions !== 1 || answers !== 0 || authorities !== 0 || additionals! > ADDITIONALS_MAX) return refused('FORMERR')
  const question = message.length > QUERY_BYTES_MAX ? undefined : readQuestion(message)
  const edns = question && readEdns(message, HEADER + question.bytes.length, additionals!)
  if (question === undefined || edns === undefined) return refused('FORMERR')
  const query: DnsQuery = {
    id: message.readUInt16BE(0),
    recursionDesired: (message.readUInt16BE(2) & RECURSION_DESIRED) !== 0,
    question: question.bytes,
    name: question.name,
    type: TYPES.get(question.type) ?? `TYPE${question.type}`,
    classIn: question.classCode === CLASS_IN,
    edns: edns === 'none' ? undefined : edns,
  }
  return { kind: 'query', query }
}

/** The reply to a query; a resolver that fails gives SERVFAIL. */
export async function replyTo(query: DnsQuery, transport: DnsTransport, resolve: DnsResolver): Promise<Buffer> {
  if (query.edns !== undefined && query.edns.version !== 0) {
    return encodeReply(query, transport, { ...refusal, code: 'NOERROR' }, BADVERS_HIGH)
  }
  if (!query.classIn) return encodeReply(query, transport, refusal)
  try {
    return encodeReply(query, transport, await resolve(query.name, query.type))
  } catch {
    return replyOfFailure(query, transport)
  }
}

/** SERVFAIL: the asker goes to its next name server, or asks again. */
export function replyOfFailure(query: DnsQuery, transport: DnsTransport): Buffer {
  return encodeReply(query, transport, failure)
}

/** BADVERS is 16: its upper bits stand in the OPT record (RFC 6891 section 9). */
const BADVERS_HIGH = 1

function encodeReply(query: DnsQuery, transport: DnsTransport, answer: DnsAnswer, codeHigh = 0): Buffer {
  const flags =
    (query.recursionDesired ? RECURSION_DESIRED : 0) |
    (answer.authoritative ? AUTHORITATIVE_ANSWER : 0) |
    CODES[answer.code]
  const additionals = query.edns === undefined ? [] : [optRecord(codeHigh)]
  const { answers, authorities } = answer
  const whole = assemble(query, { flags, answers, authorities, additionals })
  const offered = Math.min(Math.max(query.edns?.payloadSize ?? 0, UDP_SIZE_MIN), UDP_SIZE_MAX)
  if (whole.length <= (transport === 'tcp' ? TCP_SIZE_MAX : offered)) return whole
  return assemble(query, { flags: flags | TRUNCATED_RESPONSE, additionals })
}

/** The library writes no compression pointers, so that the question can be put between header and records. */
function assemble({ id, question }: DnsQuery, packet: Packet): Buffer {
  const rest = encode({ ...packet, type: 'response', id })
  const reply = Buffer.concat([rest.subarray(0, HEADER), question, rest.subarray(HEADER)])
  reply.writeUInt16BE(1, 4)
  return reply
}

function optRecord(extendedRcode: number): OptAnswer {
  return {
    type: 'OPT',
    name: '.',
    udpPayloadSize: UDP_SIZE_MAX,
    extendedRcode,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  }
}

interface ReadQuestion {
  readonly name: string
  readonly type: number
  readonly classCode: number
  readonly bytes: Buffer
}

/** The one question after the header; undefined: cut short, or a name that a question cannot have (compressed, too long). */
function readQuestion(message: Buffer): ReadQuestion | undefined {
  const end = nameEnd(message, HEADER)
  if (end === undefined || end + 4 > message.length) return undefined
  const labels: string[] = []
  for (let at = HEADER; message[at]! > 0; at += 1 + message[at]!) {
    if (message[at]! > LABEL_MAX) return undefined
    labels.push(labelText(message.subarray(at + 1, at + 1 + message[at]!)))
  }
  const bytes = message.subarray(HEADER, end + 4)
  return { name: labels.join('.'), type: message.readUInt16BE(end), classCode: message.readUInt16BE(end + 2), bytes }
}

/** Looks for the one OPT record; its options are nobody's business here. undefined: cut short, or there are two. */
function readEdns(message: Buffer, from: number, records: number): DnsQuery['edns'] | 'none' {
  let found: DnsQuery['edns'] | 'none' = 'none'
  let at = from
  for (let i = 0; i < records; i++) {
    const fields = nameEnd(message, at)
    if (fields === undefined || fields + 10 > message.length) return undefined
    if (message.readUInt16BE(fields) === TYPE_OPT) {
      if (found !== 'none' || message[at] !== 0) return undefined
      found = { payloadSize: message.readUInt16BE(fields + 2), version: message[fields + 5]! }
    }
    at = fields + 10 + message.readUInt16BE(fields + 8)
    if (at > message.length) return undefined
  }
  return found
}

/** Where a name ends; undefined: cut short or too long. A pointer (never followed) ends it. */
function nameEnd(message: Buffer, from: number): number | undefined {
  let at = from
  for (;;) {
    const length = message[at]
    if (length === undefined || (length > LABEL_MAX && length < POINTER)) return undefined
    at += length < POINTER ? 1 + length : 2
    if (at - from > NAME_MAX || at > message.length) return undefined
    if (length === 0 || length >= POINTER) return at
  }
}

function labelText(label: Buffer): string {
  let text = ''
  for (const byte of label) {
    const plain = byte > 0x20 && byte < 0x7f && byte !== 0x2e && byte !== 0x5c
    text += plain ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, '0')}`
  }
  return text
}

/** A reply of the header alone: for queries whose question cannot be read or is not looked at. */
function headerOnly(message: Buffer, code: ResponseCode): Buffer {
  const reply = Buffer.alloc(HEADER)
  message.copy(reply, 0, 0, 4)
  reply[2] = QR | (message[2]! & 0x79)
  reply[3] = CODES[code]
  return reply
}
