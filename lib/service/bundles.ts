import { CONTROL_MESSAGE_MAX } from '../wire/constants.js'
import { listBytes, LIVE_BYTES_MAX, type Bundle } from '../wire/directory-message.js'
import { SIGNED_OVERHEAD, type SignedBlob } from '../wire/signed.js'
import type { HostRecords } from './host-records.js'
import type { SignedRecord } from './record.js'

/** Length prefix of a byte array. */
const PREFIX = 3
/** Everything of a bundle but heartbeat, membership, list and records. */
const FIXED = 64

export interface BundleParts {
  readonly membership?: Uint8Array | undefined
  /** Send the list of live records. */
  readonly live: boolean
  readonly records: readonly SignedRecord[]
}

/** What to send of a host, cut into bundles that fit a control message each; every one carries the heartbeat. None while there is no heartbeat. */
export function bundlesOf(host: HostRecords, parts: BundleParts, now: number): Bundle[] {
  const { heartbeat, live } = host
  if (heartbeat === undefined) return []
  const base: Bundle = {
    kind: 'bundle',
    host: host.host,
    age: Math.max(0, Math.round(now - host.heardAt)),
    heartbeat: heartbeat.blob,
    records: [],
  }
  const room = CONTROL_MESSAGE_MAX - FIXED - blobBytes(heartbeat.blob)
  const bundles: Bundle[] = []
  if (parts.membership !== undefined && parts.membership.length + PREFIX <= room) {
    bundles.push({ ...base, membership: parts.membership })
  }
  let current: { live?: readonly number[] } = {}
  let records: SignedBlob[] = []
  let left = room
  if (parts.live && live !== undefined && listBytes(live) <= Math.min(room, LIVE_BYTES_MAX)) {
    current = { live }
    left -= listBytes(live)
  }
  for (const { blob } of parts.records) {
    const size = blobBytes(blob)
    if (size > left && (records.length > 0 || current.live !== undefined)) {
      bundles.push({ ...base, ...current, records })
      current = {}
      records = []
      left = room
    }
    records.push(blob)
    left -= size
  }
  if (records.length > 0 || current.live !== undefined || bundles.length === 0) {
    bundles.push({ ...base, ...current, records })
  }
  return bundles
}

function blobBytes(blob: SignedBlob): number {
  return PREFIX + SIGNED_OVERHEAD + blob.body.length
}
