// DNS messages as a function: a query's bytes in, a reply's bytes out. Knows neither sockets nor our zone.

import {
  AUTHORITATIVE_ANSWER,
  decode,
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
const HEADER = 12
const QR = 0x80
const LABEL_MAX = 63
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
  if (question === undefined) return refused('FORMERR')
  let packet: Packet
  try {
    packet = decode(message)
  } catch {
    return refused('FORMERR')
  }
  const asked = packet.questions?.[0]
  const opts = (packet.additionals ?? []).filter((record): record is OptAnswer => record.type === 'OPT')
  if (asked === undefined || opts.length > 1) return refused('FORMERR')
  const [opt] = opts
  return {
    kind: 'query',
    query: {
      id: message.readUInt16BE(0),
      recursionDesired: (message.readUInt16BE(2) & RECURSION_DESIRED) !== 0,
      question: question.bytes,
      name: question.name,
      type: asked.type,
      classIn: asked.class === 'IN',
      edns: opt && { version: opt.ednsVersion, payloadSize: opt.udpPayloadSize },
    },
  }
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

/** The one question after the header; undefined: cut short, or a name that a question cannot have (compressed, too long). */
function readQuestion(message: Buffer): { name: string; bytes: Buffer } | undefined {
  const labels: string[] = []
  let at = HEADER
  for (;;) {
    const length = message[at]
    if (length === undefined || length > LABEL_MAX) return undefined
    at += 1 + length
    if (at - HEADER > NAME_MAX) return undefined
    if (length === 0) break
    labels.push(labelText(message.subarray(at - length, at)))
  }
  if (at + 4 > message.length) return undefined
  return { name: labels.join('.'), bytes: message.subarray(HEADER, at + 4) }
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
