import { test, type Test } from 'tap'
import { codecAddon, NativeCodec } from '../../../daemon/native-codec.js'
import { native } from '../../../daemon/native.js'
import { HostWorld, type WorldHost } from '../../sim/host-world.js'
import { sodium } from '../../tools/sodium.js'
import { udpPacket } from '../flow/packets.js'

const addon = native()

/** Two hosts with one UDP flow between them; express is asked for the client's packets. */
class Scene {
  readonly world: HostWorld
  readonly server: WorldHost
  readonly client: WorldHost
  readonly codecs: NativeCodec[] = []
  readonly express: number
  readonly packet: Uint8Array
  /** When native code's clock stood at the world's, ms. */
  readonly openedAt: number
  readonly #out = new Uint8Array(2_048)

  constructor(t: Test) {
    const codec = () => {
      const made = new NativeCodec(codecAddon())
      this.codecs.push(made)
      return made
    }
    this.world = new HostWorld(sodium, 5, { realCrypto: true, codec })
    const [server, client] = this.world.mesh(2)
    this.server = server!
    this.client = client!
    this.world.until(() => this.world.converged, 5_000)
    this.server.expose('web', 80)
    this.world.runFor(500)
    this.client.program(() => this.client.udp('web', 80).send('hello'))
    this.world.runFor(200)
    const { family, local: source, remote: destination, localPort, remotePort } = this.flow
    this.packet = udpPacket({ family, source, destination, ports: [localPort, remotePort], payload: [1, 2, 3] })
    this.openedAt = performance.now()
    this.express = addon.expressOpen(this.codecs[1]!.share(), this.client.host.express.memory, this.world.now)
    t.teardown(() => addon.close(this.express))
    this.client.host.express.use(true, this.world.now)
  }

  get flow() {
    const [flow] = [...this.client.host.flows.flows()]
    if (flow === undefined) throw new Error('no flow')
    return flow
  }

  /** Whether the packet passes. */
  pass(): boolean {
    const record = this.world.record(this.server.address)
    const data = this.packet.slice()
    return addon.expressTry(this.express, true, data, data.length, record, 0, this.#out, this.world.now) > 0
  }
}

test('what has passed is accounted for when the host settles', (t) => {
  const scene = new Scene(t)
  const { host } = scene.client
  const { packetsOut } = host.flows.counters
  const { framesOut } = host.dataPath
  const before = scene.flow.packetsOut
  for (let i = 0; i < 5; i++) t.ok(scene.pass())
  t.equal(host.express.packetsOut, 0, 'not yet')
  t.equal(scene.flow.packetsOut, before + 5, 'but in the flow itself')
  host.settle(scene.world.now)
  t.equal(host.express.packetsOut, 5)
  t.equal(host.dataPath.framesOut, framesOut + 5)
  t.equal(host.flows.counters.packetsOut, packetsOut + 5)
  host.settle(scene.world.now)
  t.equal(host.express.packetsOut, 5, 'once')
  t.end()
})

test('the longest plaintext that has passed says whether the way is to be measured', (t) => {
  const scene = new Scene(t)
  const { longest } = scene.client.host.express.memory
  t.equal(longest[1], 0)
  t.ok(scene.pass())
  const length = longest[1]!
  t.ok(length > scene.packet.length - 40 && length < scene.packet.length + 40, `${length} bytes`)
  longest[1] = 1_400
  t.ok(scene.pass())
  t.equal(longest[1], 1_400, 'the longest, not the last')
  scene.client.host.settle(scene.world.now)
  t.equal(longest[1], 0, 'accounted for')
  t.end()
})

test('an input settles first', (t) => {
  const scene = new Scene(t)
  scene.pass()
  scene.client.inject(scene.packet)
  t.equal(scene.client.host.express.packetsOut, 1)
  t.end()
})

test('a session that only express uses is not idle, and a peer that does not answer it is missed', (t) => {
  const scene = new Scene(t)
  const { world, client } = scene
  world.filter = () => false
  const until = world.now + 10_000
  while (world.now < until && !client.log.includes('dead h0')) {
    scene.pass()
    world.runFor(30)
    client.enter((host) => host.settle(world.now))
  }
  t.ok(client.log.includes('dead h0'), client.log.join(', '))
  t.end()
})

test('on hold, not in use, or with a full list of peers, everything is the host’s', (t) => {
  const scene = new Scene(t)
  const { express } = scene.client.host
  t.ok(scene.pass())
  scene.client.host.setTap({
    tunRead: () => undefined,
    tunWrite: () => undefined,
    sealing: () => undefined,
    sealed: () => undefined,
    clear: () => undefined,
    opened: () => undefined,
    settle: () => undefined,
  })
  t.notOk(express.on)
  t.notOk(scene.pass(), 'somebody looks')
  scene.client.host.setTap(undefined)
  t.ok(scene.pass())
  express.use(false, scene.world.now)
  t.notOk(scene.pass(), 'nobody does it')
  express.use(true, scene.world.now)
  scene.client.host.settle(scene.world.now)
  express.memory.state[1] = express.memory.touched.length
  t.notOk(scene.pass(), 'no room to note it down')
  express.memory.state[1] = 0
  t.ok(scene.pass())
  t.end()
})

test('a flow that is over, a session or path that is gone', (t) => {
  const scene = new Scene(t)
  const { peers, flows } = scene.client.host
  for (const [slots, what] of [
    [peers.sealSlot, 'no session'],
    [peers.addressSlot, 'no path'],
  ] as const) {
    const slot = slots[1]!
    slots[1] = -1
    t.notOk(scene.pass(), what)
    slots[1] = slot
    t.ok(scene.pass())
  }
  peers.pathMtu[1] = 60
  t.notOk(scene.pass(), 'it does not fit')
  peers.pathMtu[1] = 1_500
  flows.closeAll(scene.world.now)
  t.notOk(scene.pass(), 'no flow')
  t.end()
})

/** As if packets of the peer with index 1 had passed in both directions. */
function bothWays({ client, world }: Scene): void {
  const { memory } = client.host.express
  memory.sentAt[1] = memory.heardAt[1] = memory.pathHeardAt[1] = world.now
  memory.touched[0] = 1
  memory.state[1] = memory.state[2] = 1
  client.enter((host) => host.settle(world.now))
}

test('a lively peer is probed now and then only, and looked for as soon as it has fallen silent', (t) => {
  const scene = new Scene(t)
  const { client, world } = scene
  const { express, peering } = client.host
  const probes: number[] = []
  world.filter = ({ from }) => {
    if (from === client.address) probes.push(world.now)
    return false
  }
  express.use(true, world.now, () => undefined)
  const until = world.now + 900
  while (world.now < until) {
    bothWays(scene)
    world.runFor(10)
  }
  t.equal(express.memory.state[3], 1, 'it is attended to')
  t.ok(probes.length <= 2, `${probes.length} frames of the host’s own`)
  const silentFrom = world.now
  probes.length = 0
  world.runFor(30)
  client.enter((host) => host.settle(world.now))
  t.equal(express.memory.state[3], 0)
  world.runFor(60)
  t.ok(probes.length > 0 && probes[0]! <= silentFrom + 90, 'it is probed')
  t.not(peering.prober.liveness(1), undefined)
  t.end()
})

test('who sees to everything itself attends to nobody', (t) => {
  const scene = new Scene(t)
  const { express } = scene.client.host
  bothWays(scene)
  t.equal(express.memory.state[3], 0, 'nobody would notice')
  express.use(true, scene.world.now, () => undefined)
  bothWays(scene)
  t.equal(express.memory.state[3], 1)
  express.hold(true, scene.world.now)
  t.equal(express.memory.state[3], 0)
  t.end()
})

test('native code tells of peers that it was not to attend to, and when one of the others falls silent', async (t) => {
  const scene = new Scene(t)
  const { state, attended, pathHeardAt } = scene.client.host.express.memory
  const told = () => new Promise<number>((resolve) => addon.watch(scene.express, () => resolve(performance.now())))
  const first = told()
  t.ok(scene.pass())
  await first
  addon.unwatch(scene.express)
  state[1] = state[2] = 0
  attended[0] = 1
  state[3] = 1
  const began = performance.now()
  pathHeardAt[1] = scene.world.now + (began - scene.openedAt) + 100
  t.ok((await told()) - began >= 100, 'not as long as it is lively')
})

test('what native code is given is checked', (t) => {
  const scene = new Scene(t)
  const { memory } = scene.client.host.express
  const token = () => scene.codecs[1]!.share()
  const open = (changed: object, code: string) =>
    t.throws(() => addon.expressOpen(token(), { ...memory, ...changed }, 0), { code }, Object.keys(changed).join())
  open({ words: undefined }, 'CARACAL_E_ARGUMENT')
  open({ words: new Float64Array(4) }, 'CARACAL_E_ARGUMENT')
  open({ words: memory.words.subarray(0, 100) }, 'CARACAL_E_RANGE')
  open({ doubles: memory.doubles.subarray(0, 100) }, 'CARACAL_E_RANGE')
  open({ addressSlot: new Int32Array(3) }, 'CARACAL_E_RANGE')
  open({ heardAt: new Float64Array(3) }, 'CARACAL_E_RANGE')
  open({ lanePeer: new Int32Array(3) }, 'CARACAL_E_RANGE')
  open({ attended: new Float64Array(3) }, 'CARACAL_E_ARGUMENT')
  open({ counters: new Float64Array(3) }, 'CARACAL_E_RANGE')
  open({ ring: memory.ring.subarray(0, 4_096) }, 'CARACAL_E_RANGE')
  open({ layout: memory.layout.subarray(1) }, 'CARACAL_E_RANGE')
  for (let i = 0; i < memory.layout.length; i++) {
    // Values that are compared with, not positions.
    if (i === 5 || (i > 25 && i < 31)) continue
    open({ layout: memory.layout.map((word, j) => (j === i ? 0x7fff_fff1 : word)) }, 'CARACAL_E_RANGE')
  }
  t.throws(() => addon.expressOpen(0x7fff_ffff, memory, 0), { code: 'CARACAL_E_CLOSED' })
  t.throws(() => addon.expressOpen(token(), memory, Number.NaN), { code: 'CARACAL_E_ARGUMENT' })
  t.throws(() => addon.share(scene.express), { code: 'CARACAL_E_ARGUMENT' })
  t.end()
})
