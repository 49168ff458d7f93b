import { test } from 'tap'
import { Channel, ControlChannel } from '../../../lib/host/control-channel.js'
import { Pauses } from '../../../lib/host/pauses.js'
import { Hold, PeerTable } from '../../../lib/path/peers.js'
import { hostId } from '../../../lib/wire/ids.js'
import { encodePause } from '../../../lib/wire/pause-message.js'

const PATH = 3

/** A host with two peers, both of which it has a session with and a path to. */
class End {
  readonly peers = new PeerTable(hostId(new Uint8Array(32).fill(9)), 8)
  readonly frames: { readonly peer: number; readonly bytes: Uint8Array }[] = []
  readonly rests: string[] = []
  readonly released: number[] = []
  readonly control = new ControlChannel({
    peers: this.peers,
    epoch: 7,
    sink: {
      sendControl: (peer, message) => this.frames.push({ peer, bytes: message.slice() }) > 0,
      message: (peer, channel, body, now) => {
        if (channel === Channel.pause) this.pauses.receive(peer, body, now)
      },
      drop: () => undefined,
    },
  })
  #sequence = 0
  readonly pauses = new Pauses({
    ...{ peers: this.peers, control: this.control },
    nextSequence: () => ++this.#sequence,
    rest: (peer, until) => this.rests.push(`${peer} ${until}`),
    released: (peer) => this.released.push(peer),
  })

  constructor() {
    for (const n of [1, 2]) {
      const peer = this.peers.add(hostId(new Uint8Array(32).fill(n)))
      this.peers.sealSlot[peer] = peer
      this.peers.setPath(peer, PATH)
    }
  }

  take(sequence: number, ms: number, now: number): boolean {
    return this.pauses.receive(1, encodePause({ sequence, ms }), now)
  }
  get holds(): boolean {
    return this.peers.addressSlot[1] === -1
  }
}

test('all peers with a session are told, and it is known who has acknowledged', async (t) => {
  const [a, b] = [new End(), new End()]
  a.peers.sealSlot[2] = -1
  t.equal(a.pauses.pending, 0)
  a.pauses.begin(1_000, 0)
  t.strictSame(
    a.frames.map(({ peer }) => peer),
    [1],
  )
  t.equal(a.pauses.pending, 1)
  b.control.receive(1, a.frames[0]!.bytes, 10)
  t.ok(b.holds)
  b.control.flush(10)
  a.control.receive(1, b.frames[0]!.bytes, 20)
  t.equal(a.pauses.pending, 0)
  a.peers.sealSlot[2] = 2
  a.pauses.sessionUp(2, 30)
  t.equal(a.pauses.pending, 1, 'who comes meanwhile is told, too')
  a.pauses.sessionUp(1, 1_001)
  t.equal(a.frames.length, 2, 'until it is over')
})

test('a peer’s frames wait until its time is up, it goes on, or a new session stands', async (t) => {
  const end = new End()
  t.ok(end.take(5, 300, 100))
  t.ok(end.holds)
  t.equal(end.peers.pathSlot[1], PATH, 'its path is still known')
  t.equal(end.pauses.nextTimeout(), 400)
  end.pauses.handleTimeout(399)
  t.ok(end.holds)
  end.pauses.handleTimeout(400)
  t.notOk(end.holds)
  t.equal(end.pauses.nextTimeout(), Infinity)
  t.ok(end.take(6, 300, 500))
  t.ok(end.take(7, 0, 510))
  t.notOk(end.holds)
  t.ok(end.take(8, 300, 600))
  end.pauses.sessionUp(1, 620)
  t.notOk(end.holds)
  t.strictSame(end.released, [1, 1, 1])
  t.strictSame(end.rests, ['1 400', '1 400', '1 800', '1 510', '1 900', '1 620'])
  end.pauses.sessionUp(1, 630)
  t.equal(end.released.length, 3, 'once')
})

test('the same message twice, or an older one after a newer, changes nothing', async (t) => {
  const end = new End()
  t.ok(end.take(5, 300, 0))
  t.ok(end.take(5, 300, 200), 'twice')
  t.equal(end.pauses.nextTimeout(), 300)
  t.ok(end.take(9, 0, 250))
  t.ok(end.take(8, 5_000, 260), 'overtaken')
  t.notOk(end.holds)
  t.equal(end.pauses.received, 2)
  t.notOk(end.pauses.receive(1, Uint8Array.of(1, 2, 3), 0), 'and what is none is not understood')
})

test('frames that wait for another reason go on waiting', async (t) => {
  const end = new End()
  end.take(1, 300, 0)
  end.peers.hold(1, Hold.noWay, true)
  end.pauses.handleTimeout(300)
  t.ok(end.holds)
  t.strictSame(end.released, [])
  t.ok(end.peers.hold(1, Hold.noWay, false))
  t.notOk(end.holds)
})

test('whose session is over is held no longer for its pause', async (t) => {
  const end = new End()
  end.take(1, 300, 0)
  end.pauses.forget(1)
  t.notOk(end.holds)
  end.pauses.handleTimeout(300)
  t.strictSame(end.released, [])
})
