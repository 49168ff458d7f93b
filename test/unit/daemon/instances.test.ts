import { createServer, type RequestListener } from 'node:http'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { exposeRequestShape, type ExposeRequest } from '../../../daemon/control/protocol.js'
import { Instances, type Instance } from '../../../daemon/instances.js'
import { formatAddress } from '../../../lib/service/address-plan.js'
import { Protocol } from '../../../lib/wire/constants.js'
import { serviceId, type ServiceId } from '../../../lib/wire/ids.js'
import { folder, stateIn } from './rig.js'
import { row, table } from './socket-tables.js'

const WEB = serviceId('11'.repeat(32))
const SHOP = serviceId('22'.repeat(32))
const SERVED4 = Uint8Array.of(198, 19, 0, 7)
const SERVED6 = Uint8Array.of(0xfd, 1, 2, 3, 4, 5, 0x5e, 0x7e, 0, 0, 0, 0, 0, 0, 0, 7)

function request(name: string, ports: string, health: ExposeRequest['health'] = { kind: 'none' }): ExposeRequest {
  const specs = ports.split(' ').map((text) => {
    const [protocol, port, local] = text.split(/[/:]/)
    return { protocol, port: Number(port), local: Number(local ?? port) }
  })
  return exposeRequestShape.parse({ name, ports: specs, health })
}

async function rig(t: Test) {
  const state = await stateIn(t, join(folder(t), 'state'))
  const sockets = folder(t)
  const changes: string[] = []
  const clock = { now: 1_000 }
  const waiting: (() => void)[] = []
  const make = () =>
    new Instances({
      state,
      served: (_, family) => (family === 4 ? SERVED4.slice() : SERVED6.slice()),
      changed: ({ request: { name }, health, detail }) => {
        changes.push(`${name} ${health} ${detail}`.trim())
        for (const wake of waiting.splice(0)) wake()
      },
      now: () => clock.now,
      listenersFrom: sockets,
    })
  const listening = (tables: Partial<Record<'tcp' | 'tcp6' | 'udp' | 'udp6', readonly string[]>>) => {
    for (const name of ['tcp', 'tcp6', 'udp', 'udp6'] as const) {
      writeFileSync(join(sockets, name), table(...(tables[name] ?? [])))
    }
  }
  /** The next change that is told. */
  const change = () => new Promise<void>((resolve) => waiting.push(resolve))
  return { state, sockets, changes, change, clock, make, instances: make(), listening }
}

/** Where a connection would be delivered. */
function where(instances: Instances, service: ServiceId, protocol: number, port: number): string {
  const found = instances.find(service, protocol, port)
  return typeof found === 'string' ? found : `${formatAddress(found.address)} ${found.port} v${found.family}`
}

async function located(t: Test, tables: Parameters<Awaited<ReturnType<typeof rig>>['listening']>[0]) {
  const { instances, listening } = await rig(t)
  listening(tables)
  const instance = await instances.add(WEB, request('web', 'tcp/80:8080'), false)
  return { instance, endpoint: where(instances, WEB, Protocol.tcp, 80) }
}

test('where a server is reached follows from where it listens', async (t) => {
  for (const [tables, endpoint] of [
    [{ tcp: [row('0.0.0.0', 8080)] }, '198.19.0.7 8080 v4'],
    [{ tcp6: [row('::', 8080)] }, 'fd01:203:405:5e7e::7 8080 v6'],
    [{ tcp: [row('0.0.0.0', 8080)], tcp6: [row('::', 8080)] }, '198.19.0.7 8080 v4'],
    [{ tcp: [row('127.0.0.1', 8080)] }, '127.0.0.1 8080 v4'],
    [{ tcp: [row('127.0.0.53', 8080)] }, '127.0.0.53 8080 v4'],
    [{ tcp: [row('192.0.2.5', 8080)] }, '192.0.2.5 8080 v4'],
    [{ tcp: [row('192.0.2.5', 8080), row('127.0.0.1', 8080)] }, '127.0.0.1 8080 v4'],
    [{ tcp6: [row('2001:db8::5', 8080)] }, '2001:db8::5 8080 v6'],
    [{ tcp6: [row('::1', 8080)], tcp: [row('127.0.0.1', 8080)] }, '127.0.0.1 8080 v4'],
    [{ tcp6: [row('::ffff:127.0.0.1', 8080)] }, '127.0.0.1 8080 v4'],
    [{ tcp6: [row('::ffff:0.0.0.0', 8080)] }, '198.19.0.7 8080 v4'],
  ] as const) {
    const result = await located(t, tables)
    t.equal(result.endpoint, endpoint)
    t.match(result.instance, { health: 'up', detail: '' }, endpoint)
  }
})

test('a server that cannot be reached there makes the instance unhealthy, with the reason', async (t) => {
  for (const [tables, detail] of [
    [{}, 'nothing listens on TCP port 8080'],
    [{ tcp: [row('0.0.0.0', 80)], udp: [row('0.0.0.0', 8080)] }, 'nothing listens on TCP port 8080'],
    [{ tcp6: [row('::1', 8080)] }, /hears \[::1\] only, .* let it listen on 127\.0\.0\.1 or ::/],
    [{ tcp6: [row('fe80::1', 8080)] }, /link-local address only/],
  ] as const) {
    const { instance, endpoint } = await located(t, tables)
    t.match(instance, { health: 'unhealthy', detail })
    t.equal(endpoint, 'refused')
  }
})

test('one of several ports with a server makes the instance well, and the others are named', async (t) => {
  const { instances, listening } = await rig(t)
  listening({ tcp: [row('0.0.0.0', 443)] })
  const instance = await instances.add(WEB, request('web', 'tcp/80 tcp/443'), false)
  t.match(instance, { health: 'up', detail: 'nothing listens on TCP port 80' })
  t.equal(where(instances, WEB, Protocol.tcp, 443), '198.19.0.7 443 v4')
  t.equal(where(instances, WEB, Protocol.tcp, 80), 'refused')
})

test('what is not exposed here is not given away', async (t) => {
  const { instances, listening } = await rig(t)
  listening({ tcp: [row('0.0.0.0', 80), row('0.0.0.0', 22)] })
  await instances.add(WEB, request('web', 'tcp/80'), false)
  t.equal(where(instances, SHOP, Protocol.tcp, 80), 'no-instance')
  t.equal(where(instances, WEB, Protocol.tcp, 22), 'refused')
  t.equal(where(instances, WEB, Protocol.udp, 80), 'refused')
  t.equal(where(instances, WEB, Protocol.icmp, 0), '198.19.0.7 0 v4', 'echo is answered by the kernel')
  t.ok(instances.remove(WEB))
  t.notOk(instances.remove(WEB))
  t.equal(where(instances, WEB, Protocol.tcp, 80), 'no-instance')
})

test('servers that come and go are told of, once each time', async (t) => {
  const { instances, listening, changes } = await rig(t)
  listening({})
  await instances.add(WEB, request('web', 'tcp/80'), false)
  instances.scan()
  t.strictSame(changes, [], 'what add has said is not repeated')
  listening({ tcp: [row('0.0.0.0', 80)] })
  instances.scan()
  instances.scan()
  listening({})
  instances.scan()
  t.strictSame(changes, ['web up', 'web unhealthy nothing listens on TCP port 80'])
})

test('a server that has just come is found by the connection itself', async (t) => {
  const { instances, listening, clock, changes } = await rig(t)
  listening({})
  await instances.add(WEB, request('web', 'tcp/80'), false)
  clock.now += 3
  listening({ tcp: [row('0.0.0.0', 80)] })
  t.equal(where(instances, WEB, Protocol.tcp, 80), 'refused', 'looked a moment ago')
  clock.now += 20
  t.equal(where(instances, WEB, Protocol.tcp, 80), '198.19.0.7 80 v4')
  t.strictSame(changes, ['web up'])
})

test('UDP ports beside TCP may open on demand', async (t) => {
  const { instances, listening, clock } = await rig(t)
  listening({ tcp: [row('0.0.0.0', 5201)] })
  const instance = await instances.add(WEB, request('web', 'tcp/5201 udp/5201 udp/9:99'), false)
  t.match(instance, { health: 'up', detail: '' }, 'judged by TCP')
  clock.now += 100
  t.equal(where(instances, WEB, Protocol.udp, 9), '198.19.0.7 99 v4', 'the kernel answers for it')
  listening({ tcp: [row('0.0.0.0', 5201)], udp6: [row('::', 5201)] })
  clock.now += 100
  t.equal(where(instances, WEB, Protocol.udp, 5201), 'fd01:203:405:5e7e::7 5201 v6')
})

test('a service of UDP ports only is judged by them', async (t) => {
  const { instances, listening } = await rig(t)
  listening({ udp: [row('127.0.0.1', 53)] })
  t.match(await instances.add(WEB, request('dns', 'udp/53'), false), { health: 'up' })
  t.match(await instances.add(SHOP, request('log', 'udp/514', { kind: 'tcp' }), false), {
    health: 'unhealthy',
    detail: 'nothing listens on UDP port 514',
  })
  listening({ udp: [row('127.0.0.1', 53), row('0.0.0.0', 514)] })
  instances.scan()
  t.match(instances.get(SHOP), { health: 'up', detail: '' }, 'there is no probe for UDP')
})

test('while the tables cannot be read, what was known holds', async (t) => {
  const { instances, listening, sockets, changes } = await rig(t)
  listening({ tcp: [row('0.0.0.0', 80)] })
  await instances.add(WEB, request('web', 'tcp/80'), false)
  rmSync(sockets, { recursive: true })
  writeFileSync(sockets, 'no folder')
  instances.scan()
  t.match(instances.get(WEB), { health: 'up' })
  t.strictSame(changes, [])
})

/** An HTTP server, and its port. */
async function server(t: Test, answer: RequestListener): Promise<number> {
  const http = createServer(answer)
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  t.teardown(() => {
    http.closeAllConnections()
    http.close()
  })
  const address = http.address()
  if (address === null || typeof address === 'string') throw new Error('not listening')
  return address.port
}

test('an HTTP probe decides when the server listens', async (t) => {
  const { instances, listening, clock, change, changes } = await rig(t)
  let status = 503
  const port = await server(t, (_, response) => {
    response.statusCode = status
    response.end()
  })
  listening({ tcp: [row('127.0.0.1', port)] })
  const health = { kind: 'http', path: '/ready' } as const
  const instance: Instance = await instances.add(WEB, request('web', `tcp/80:${port}`, health), false)
  t.match(instance, { health: 'unhealthy', detail: 'GET /ready answered 503' })
  status = 200
  instances.scan()
  t.match(instance, { health: 'unhealthy' }, 'until it is asked again')
  clock.now += 2_000
  let told = change()
  instances.scan()
  await told
  t.match(instance, { health: 'up', detail: '' })
  status = 500
  clock.now += 2_000
  told = change()
  instances.scan()
  await told
  t.strictSame(changes, ['web up', 'web unhealthy GET /ready answered 500'])
  t.equal(
    where(instances, WEB, Protocol.tcp, 80),
    `127.0.0.1 ${port} v4`,
    'connections that come all the same are let in',
  )
})

test('a probed server that comes back is well only after a probe', async (t) => {
  const { instances, listening, change, changes } = await rig(t)
  const port = await server(t, (_, response) => response.end())
  const there = { tcp: [row('127.0.0.1', port)] }
  listening(there)
  const health = { kind: 'tcp' } as const
  t.match(await instances.add(WEB, request('web', `tcp/80:${port}`, health), false), { health: 'up' })
  listening({})
  instances.scan()
  listening(there)
  let told = change()
  instances.scan()
  t.match(instances.get(WEB), { health: 'unhealthy', detail: 'not probed yet' })
  await told
  told = change()
  t.match(instances.get(WEB), { health: 'unhealthy' })
  await told
  t.strictSame(changes.slice(1), ['web unhealthy not probed yet', 'web up'])
})

test('another port without a server does not make a probed instance flap', async (t) => {
  const { instances, listening, clock, changes } = await rig(t)
  let asked = 0
  const port = await server(t, (_, response) => {
    asked++
    response.end()
  })
  listening({ tcp: [row('127.0.0.1', port)] })
  const health = { kind: 'http', path: '/' } as const
  const instance = await instances.add(WEB, request('web', `tcp/80:${port} tcp/443`, health), false)
  t.match(instance, { health: 'up', detail: 'nothing listens on TCP port 443' })
  for (let i = 0; i < 3; i++) {
    clock.now += 2_000
    instances.scan()
    const before = asked
    while (asked === before || instance.probing) await new Promise((resolve) => setImmediate(resolve))
  }
  t.strictSame(changes, [])
})

test('an instance that was taken back while it was probed is not told of', async (t) => {
  const { instances, listening, clock, changes } = await rig(t)
  let status = 200
  const port = await server(t, (_, response) => {
    response.statusCode = status
    response.end()
  })
  listening({ tcp: [row('127.0.0.1', port)] })
  const health = { kind: 'http', path: '/' } as const
  const instance = await instances.add(WEB, request('web', `tcp/80:${port}`, health), false)
  status = 500
  clock.now += 2_000
  instances.scan()
  instances.remove(WEB)
  while (instance.probing) await new Promise((resolve) => setImmediate(resolve))
  t.strictSame(changes, [])
})

test('what was exposed by hand is there again after a restart', async (t) => {
  const { instances, make } = await rig(t)
  t.strictSame(await instances.restored(), [])
  const [web, shop] = [request('web', 'tcp/80 udp/53:5353', { kind: 'http', path: '/x' }), request('shop', 'tcp/81')]
  await instances.add(WEB, web, false)
  await instances.add(SHOP, shop, true)
  await instances.save()
  t.strictSame(await make().restored(), [web], 'what the configuration says is not kept')
})

test('a crash while services are restored loses none', async (t) => {
  const { instances, make } = await rig(t)
  const [web, shop] = [request('web', 'tcp/80'), request('shop', 'tcp/81')]
  await instances.add(WEB, web, false)
  await instances.add(SHOP, shop, false)
  await instances.save()
  const next = make()
  await next.restored()
  await next.add(WEB, web, false)
  await next.save()
  t.strictSame((await make().restored()).length, 2)
  await next.add(SHOP, shop, false)
  next.remove(SHOP)
  await next.save()
  t.strictSame(await make().restored(), [web], 'what was taken back stays away')
})

test('a damaged file of services is told of', async (t) => {
  const { instances, state } = await rig(t)
  for (const text of [
    '{',
    '{}',
    '[{"name":"web"}]',
    '[{"name":"web","ports":[{"protocol":"sctp","port":1,"local":1}]}]',
  ]) {
    await state.write('services', Buffer.from(text))
    await t.rejects(instances.restored(), { code: 'CARACAL_E_STATE_DAMAGED' }, text)
  }
})

/** What {@link ListenerWatching} is told. */
function watching() {
  const told: string[] = []
  const busy = (protocols: readonly string[], missing: boolean) =>
    void told.push([...[...protocols].sort(), ...(missing ? ['missing'] : [])].join(' '))
  return { told, busy }
}

test('who watches the servers is told what to look for, and when something happens, but not all the time', async (t) => {
  const { instances, clock, listening } = await rig(t)
  listening({ tcp: [row('0.0.0.0', 80)] })
  const { told, busy } = watching()
  await instances.add(WEB, request('web', 'tcp/80'), false)
  instances.start({ busy })
  t.teardown(() => instances.stop())
  t.strictSame(told.splice(0), ['tcp'])
  await instances.add(SHOP, request('shop', 'tcp/81 udp/81'), false)
  t.strictSame(told.splice(0), ['tcp udp missing'], 'at once')
  for (let i = 0; i < 100; i++) where(instances, WEB, Protocol.tcp, 80)
  t.strictSame(told.splice(0), [])
  clock.now += 5_000
  for (let i = 0; i < 100; i++) where(instances, WEB, Protocol.tcp, 80)
  t.strictSame(told.splice(0), ['tcp udp missing'], 'a client has come')
  listening({ tcp: [row('0.0.0.0', 80), row('0.0.0.0', 81)] })
  instances.scan()
  t.strictSame(told.splice(0), ['tcp udp'], 'the server that was missing')
  listening({ tcp: [row('0.0.0.0', 81)] })
  instances.scan()
  t.strictSame(told.splice(0), ['tcp udp missing'])
  listening({ tcp: [row('0.0.0.0', 80), row('0.0.0.0', 81)] })
  instances.scan()
  t.strictSame(told.splice(0), ['tcp udp'])
  instances.remove(SHOP)
  instances.remove(WEB)
  t.strictSame(told.splice(0), ['tcp', ''])
  instances.stop()
  clock.now += 60_000
  await instances.add(WEB, request('web', 'tcp/80'), false)
  t.strictSame(told, [], 'nobody watches any more')
})

test('a probe is repeated by itself once started', async (t) => {
  const { instances, listening, clock } = await rig(t)
  let asked = 0
  let wake = (): void => undefined
  const port = await server(t, (_, response) => {
    asked++
    response.end()
    wake()
  })
  listening({ tcp: [row('127.0.0.1', port)] })
  const health = { kind: 'http', path: '/' } as const
  await instances.add(WEB, request('web', `tcp/80:${port}`, health), false)
  t.equal(asked, 1)
  clock.now += 2_000
  const again = new Promise<void>((resolve) => (wake = resolve))
  instances.start(watching())
  t.teardown(() => instances.stop())
  await again
  t.equal(asked, 2)
})
