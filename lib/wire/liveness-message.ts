// What hosts tell each other about whether a third one still answers. That a host lives is proven by its own signed heartbeat (lib/wire/directory-message.ts) and by nothing
// else, so there is no message that says so for it.
//
//   reports   signed words of hosts that have looked themselves: this one does not answer me. Passed on from host to host
//   ask       do you hear that host?
//   answer    yes, no, or I have no session with it

import { z } from 'zod'
import { CONTROL_MESSAGE_MAX, HOST_ID_LENGTH } from './constants.js'
import { fromHex, hostId, type HostId } from './ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack, type Packable } from './pack.js'
import { decodeSigned, encodeSigned, SIGNED_OVERHEAD, type SignedBlob } from './signed.js'

/** 'suspect': it is beginning to be silent; 'dead': it has been for long enough. */
export type ReportState = 'suspect' | 'dead'

/** What a reporter signs. */
export interface ReportFields {
  readonly host: HostId
  /** The host's newest heartbeat that the reporter knows: a newer one refutes the report. */
  readonly sequence: number
  readonly state: ReportState
}

/** A report on its way. */
export interface Report {
  readonly reporter: HostId
  /** ms since it was signed, as far as the sender knows. */
  readonly age: number
  readonly report: SignedBlob
  /** The heartbeat that it is about, and the ms since that was signed: nobody can report about one that there is not. */
  readonly heartbeatAge: number
  readonly heartbeat: SignedBlob
}

export type Verdict = 'heard' | 'silent' | 'unknown'

export type LivenessMessage =
  | { readonly kind: 'reports'; readonly reports: readonly Report[] }
  | { readonly kind: 'ask'; readonly host: HostId }
  | { readonly kind: 'answer'; readonly host: HostId; readonly verdict: Verdict }

const VERSION = 1
const Type = { reports: 1, ask: 2, answer: 3 } as const
const STATES = ['suspect', 'dead'] as const
const VERDICTS = ['heard', 'silent', 'unknown'] as const
const REPORT_BODY_MAX = 96
const HEARTBEAT_MAX = 128
/** Reports of one message that always fit. */
export const REPORTS_MAX = 2

const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const place = (list: readonly unknown[]) =>
  z
    .number()
    .int()
    .min(0)
    .max(list.length - 1)
const host = bytesOf(HOST_ID_LENGTH)
const blob = (max: number) => bytesUpTo(max + SIGNED_OVERHEAD, SIGNED_OVERHEAD + 1)
const reportShape = fields([z.literal(VERSION), host, whole, place(STATES)])
const version = z.literal(VERSION)
const shape = z.union([
  fields([
    version,
    z.literal(Type.reports),
    z.array(fields([host, whole, blob(REPORT_BODY_MAX), whole, blob(HEARTBEAT_MAX)])).max(2 * REPORTS_MAX),
  ]),
  fields([version, z.literal(Type.ask), host]),
  fields([version, z.literal(Type.answer), host, place(VERDICTS)]),
])

/** Body of a report, to be signed under {@link REPORT_LABEL}. */
export function encodeReport({ host: id, sequence, state }: ReportFields): Uint8Array {
  return pack([VERSION, fromHex(id), sequence, STATES.indexOf(state)])
}

export const REPORT_LABEL = 'caracal/1 suspicion'

/** Total: undefined for anything that is no report of this version. */
export function decodeReport(body: Uint8Array): ReportFields | undefined {
  const parsed = unpack(body, REPORT_BODY_MAX, reportShape)
  return parsed && { host: hostId(parsed[1]), sequence: parsed[2], state: STATES[parsed[3]]! }
}

export function encodeLivenessMessage(message: LivenessMessage): Uint8Array {
  return pack([VERSION, ...packed(message)])
}

/** Total: undefined for anything that is no message of this version. Signatures are not checked here. */
export function decodeLivenessMessage(bytes: Uint8Array): LivenessMessage | undefined {
  const parsed = unpack(bytes, CONTROL_MESSAGE_MAX, shape)
  if (parsed === undefined) return undefined
  switch (parsed[1]) {
    case Type.ask:
      return { kind: 'ask', host: hostId(parsed[2]) }
    case Type.answer:
      return { kind: 'answer', host: hostId(parsed[2]), verdict: VERDICTS[parsed[3]]! }
    case Type.reports: {
      const reports: Report[] = []
      for (const [id, age, signed, heartbeatAge, beat] of parsed[2]) {
        const report = decodeSigned(signed, REPORT_BODY_MAX + SIGNED_OVERHEAD)
        const heartbeat = decodeSigned(beat, HEARTBEAT_MAX + SIGNED_OVERHEAD)
        if (report === undefined || heartbeat === undefined) return undefined
        reports.push({ reporter: hostId(id), age, report, heartbeatAge, heartbeat })
      }
      return { kind: 'reports', reports }
    }
  }
}

function packed(message: LivenessMessage): readonly Packable[] {
  switch (message.kind) {
    case 'ask':
      return [Type.ask, fromHex(message.host)]
    case 'answer':
      return [Type.answer, fromHex(message.host), VERDICTS.indexOf(message.verdict)]
    case 'reports':
      return [
        Type.reports,
        message.reports.map((r) => [
          fromHex(r.reporter),
          r.age,
          encodeSigned(r.report),
          r.heartbeatAge,
          encodeSigned(r.heartbeat),
        ]),
      ]
  }
}
