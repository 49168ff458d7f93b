// What a program is told that is still inside connect() when the answer comes.
import { test } from 'tap'
import { Refusals } from '../../../lib/flow/refusals.js'
import type { Family } from '../../../lib/flow/environment.js'
import { fromClient, ISN, WEB } from './connection.js'
import { address, FlowHost, SELF_ADDRESS } from './flow-host.js'
import { SYN, udpPacket } from './packets.js'

/** When the engine writes packets within the second in which the kernel does not repeat its SYN, and whether they are all the same. */
function told(client: FlowHost, packet: Uint8Array): { readonly times: number[]; readonly same: boolean } {
  const times: number[] = []
  const packets = new Set<string>()
  const look = (now: number) => {
    for (const bytes of client.takeWritten()) {
      times.push(now)
      packets.add(Buffer.from(bytes).toString('hex'))
    }
  }
  client.tun(0, packet)
  look(0)
  for (let now = 1; now < 1_000; now++) {
    if (client.engine.nextTimeout() <= now) client.engine.handleTimeout(now)
    look(now)
  }
  return { times, same: packets.size === 1 }
}

for (const family of [4, 6] as const satisfies readonly Family[]) {
  test(`an ICMP error that answers a SYN is told again, IPv${family}`, (t) => {
    for (const reason of ['denied', 'no-instance'] as const) {
      const client = new FlowHost(1)
      client.catalogue.set(WEB, reason)
      const ends = { clientFamily: family, serverFamily: family } as const
      t.same(
        told(client, fromClient(ends, { flags: SYN, sequence: ISN })),
        { times: [0, 4, 16, 64], same: true },
        reason,
      )
      t.same(client.takeDrops(), [reason], 'dropped once')
      t.equal(client.engine.nextTimeout(), Infinity, 'nothing is left')
    }
    t.end()
  })
}

test('a reset, which the kernel keeps for later, and an error about a datagram are told once', (t) => {
  const refused = new FlowHost(1)
  refused.catalogue.set(WEB, 'refused')
  const ends = { clientFamily: 4, serverFamily: 4 } as const
  t.same(told(refused, fromClient(ends, { flags: SYN, sequence: ISN })).times, [0])
  const denied = new FlowHost(1)
  denied.catalogue.set(WEB, 'denied')
  const datagram = udpPacket({
    family: 4,
    source: SELF_ADDRESS[4],
    destination: address('dialled', 4, WEB),
    ports: [5000, 53],
    payload: [1],
  })
  t.same(told(denied, datagram).times, [0])
  t.end()
})

test('what is kept is bounded, and what is beyond is counted', (t) => {
  let written = 0
  let overflows = 0
  const refusals = new Refusals({ write: () => written++, overflow: () => overflows++ })
  for (let i = 0; i < 2_000; i++) refusals.tell(new Uint8Array(1), 0)
  t.same([written, overflows], [2_000, 976])
  refusals.handleTimeout(3)
  t.equal(written, 2_000, 'not yet')
  refusals.handleTimeout(1_000)
  t.equal(written, 2_000 + 3 * 1_024, 'a late look catches up')
  t.equal(refusals.nextTimeout, Infinity)
  t.end()
})
