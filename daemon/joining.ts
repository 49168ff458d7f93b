import type { HostKey } from '../lib/crypto/host-key.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import type { InviteToken } from '../lib/crypto/token.js'
import { JoinClient, type Joined, type JoinFailure } from '../lib/session/join-client.js'
import type { ScheduleOptions } from '../lib/session/schedule.js'
import { DATAGRAM_WORDS, datagramBatch, type DatagramBatch } from '../lib/wire/batch.js'
import { CaracalError, type ErrorCode } from './errors.js'
import { monotonicNow } from './packet-loop.js'
import type { Underlay } from './underlay.js'

const POLL_MS = 5
/** Batches of a socket between looks at the clock. */
const ROUNDS = 16

/** Joins a network over the daemon's own sockets. Rejects with what the issuer or the network says against it; gives up after 10 s unless told otherwise. */
export async function joinNetwork(
  underlay: Underlay,
  primitives: Primitives,
  hostKey: HostKey,
  token: InviteToken,
  name: string,
  options: ScheduleOptions = {},
): Promise<Joined> {
  const batch = datagramBatch(8)
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<Joined>((resolve, reject) => {
      const client = new JoinClient(
        {
          primitives,
          hostKey,
          token,
          sink: {
            sendDatagram: (bytes, address) => underlay.sendOne(bytes, address),
            joined: resolve,
            failed: (failure) => reject(failed(failure)),
          },
        },
        { name },
        options,
      )
      const wall = () => Date.now() / 1000
      client.start(monotonicNow(), wall())
      const look = () => {
        for (const socket of underlay.sockets) {
          for (let round = 0; round < ROUNDS && socket.recvBatch(batch) > 0; round++) {
            forEachDatagram(batch, (offset, length) => {
              client.receive(batch.data, offset, length, monotonicNow(), wall())
            })
          }
        }
        if (client.nextTimeout() <= monotonicNow()) client.handleTimeout(monotonicNow())
      }
      // The sockets' one reader is the packet loop, which does not run yet.
      timer = setInterval(() => {
        try {
          look()
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)))
        }
      }, POLL_MS)
    })
  } finally {
    clearInterval(timer)
  }
}

/** Those that came together in one buffer one by one. */
function forEachDatagram({ desc, count }: DatagramBatch, take: (offset: number, length: number) => void): void {
  for (let row = 0; row < count * DATAGRAM_WORDS; row += DATAGRAM_WORDS) {
    const [offset, length, segment] = [desc[row]!, desc[row + 1]!, desc[row + 2]!]
    const step = segment > 0 ? segment : Math.max(length, 1)
    for (let at = 0; at < length; at += step) take(offset + at, Math.min(step, length - at))
  }
}

function failed({ problem, detail }: JoinFailure): CaracalError {
  const [code, next] = reasons[problem]
  return new CaracalError(code, detail, next)
}

const ASK = 'ask a member for a new token: caracal invite'
const reasons: Record<JoinFailure['problem'], readonly [ErrorCode, string]> = {
  'unknown-token': ['CARACAL_E_TOKEN', ASK],
  'used-up': ['CARACAL_E_TOKEN_USED', ASK],
  expired: ['CARACAL_E_TOKEN_EXPIRED', ASK],
  'name-taken': ['CARACAL_E_NAME_TAKEN', 'choose another with --name'],
  denied: ['CARACAL_E_JOIN', 'ask who runs the network'],
  'clock-skew': ['CARACAL_E_CLOCK', 'set the clock of the host that is wrong'],
  'no-answer': ['CARACAL_E_JOIN', 'check the network between the two hosts, and that UDP is let through'],
  'bad-token': ['CARACAL_E_TOKEN', ASK],
  'bad-answer': ['CARACAL_E_JOIN', 'is the issuer of this network, and of the same version?'],
}
