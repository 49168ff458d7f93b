// What a running daemon is asked in vain: one clear line each, and nothing has changed. And what every reading command prints as JSON.
import { connect } from 'node:net'
import { test } from 'tap'
import { z } from 'zod'
import {
  doctorShape,
  flowsShape,
  hostsShape,
  pathsShape,
  pingShape,
  resolveShape,
  rulesShape,
  servicesShape,
  statusShape,
} from '../../daemon/control/protocol.js'
import { cliMain, Fixture } from './fixture.js'
import { refused } from './refusal.js'

type Case = readonly [words: readonly string[], status: 1 | 2, line: RegExp]

/** Each on its own, a few at a time. */
async function refuseAll(
  t: Parameters<typeof refused>[0],
  net: Fixture,
  host: string,
  cases: readonly Case[],
): Promise<void> {
  const waiting = [...cases]
  const work = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [words, status, line] = next
      refused(t, `${words.join(' ').slice(0, 60)} on ${host}`, await net.caracal(host, ...words), status, line)
    }
  }
  await Promise.all([work(), work(), work()])
}

const long = 'a'.repeat(64)
const port = /numbers from 1 to 65535/

test('commands without a daemon', async (t) => {
  const net = await Fixture.up(t, ['h1'], { daemons: false })
  const nobody = /no daemon answers at .+control\.sock: start one with `caracal up/
  const reading = ['status', 'services', 'hosts', 'flows', 'paths', 'resolve web', 'ping web', 'dump', 'flows --watch']
  const writing = ['down', 'invite', 'expose web --tcp 80']
  await refuseAll(
    t,
    net,
    'h1',
    [...reading, ...writing].map((line) => [line.split(' '), 1, nobody]),
  )
  const doctor = await net.caracal('h1', 'doctor')
  t.equal(doctor.code, 1)
  t.match(doctor.out, /fail\s+daemon\s+no daemon answers at/, 'the doctor finds it')
})

test('bad input to a running daemon', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const services = async () => (await net.caracal('h1', 'services', '--json')).out
  await net.start('h1', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  t.equal((await net.caracal('h1', 'expose', 'web', '--tcp', '80:8080')).code, 0)
  const before = await services()

  await t.test('names', async (t) => {
    const names: [string, RegExp][] = [
      ['Foo!', /"!" is not allowed, labels are made of a-z, 0-9/],
      ['', /[Ee]xpected a name|must not be empty/],
      [long, /64 characters, at most 63/],
      ['a.b.c.d.e', /5 labels, at most 4/],
      ['at', /the label "at" is reserved/],
      ['x'.repeat(300), /at most 2\d\d/],
      ['\u001b[31mx', /"\\u001b" is not allowed/],
    ]
    await refuseAll(t, net, 'h1', [
      ...names.map(([name, line]): Case => [['expose', name, '--tcp', '80'], 2, line]),
      ...names
        .slice(0, 2)
        .flatMap(([name, line]): Case[] =>
          ['resolve', 'unexpose', 'services', 'ping'].map((command) => [[command, name], 2, line]),
        ),
      [['resolve', 'a.b.c.d.e'], 2, /5 labels, at most 4/],
      [['expose', 'x.host', '--tcp', '80'], 2, /the label "host" is reserved/],
      [['expose', 'a..b', '--tcp', '80'], 2, /a label is empty/],
      [['expose', '~abc', '--tcp', '80'], 2, /52 base32 digits/],
      [['unexpose', 'nix'], 1, /this host does not expose nix: see/],
      [['resolve', 'nix'], 1, /no host exposes nix: see/],
      [['services', 'nix'], 1, /no host exposes nix: see/],
      [['ping', 'nix'], 1, /no host exposes nix: see/],
      [['resolve', 'web.at.h9'], 1, /no host is called h9: see/],
      [['resolve', 'h9.host'], 1, /no host is called h9: see/],
      [['paths', 'h9'], 1, /no host is called h9: see/],
      [['flows', '--host', 'h9'], 1, /no host is called h9: see/],
      [['flows', '--service', 'Foo!'], 2, /labels are made of a-z, 0-9/],
    ])
  })

  await t.test('ports and options', async (t) => {
    await refuseAll(t, net, 'h1', [
      ...['0', '65536', '80:0', 'abc'].map((text): Case => [['expose', 'api', '--tcp', text], 2, port]),
      [['expose', 'api'], 2, /no port to expose: give --tcp or --udp/],
      [['expose', 'api', '--tcp', '80', '--tcp', '80:81'], 2, /Port 80 is given twice/],
      [['expose', 'api', '--tcp', '80', '--health', 'foo'], 2, /none, tcp or http/],
      [['expose', 'api', '--tcp', '80', '--weight', '-1'], 2, /from 0 to 1000/],
      [['expose', 'api', '--tcp', '80', '--move', 'handoff'], 2, /choices are drain/],
      [['invite', '--expires', '0s'], 2, /such as 250ms/],
      [['invite', '--uses', '0'], 2, /from 1 to/],
      [['invite', '--tag', 'Bad Tag!'], 2, /a tag is 1 to 32 of/],
      [['dump', 'foo'], 2, /column 1: `foo` is no word of a filter: see/],
      [['dump', 'port', '99999'], 2, /column 6: .+`99999`/],
      [['dump', '(tcp'], 2, /column 5: expected `\)`/],
      [['dump', '--point', 'x'], 2, /choose of tun, wire, drop/],
      [['dump', '-r', '/nonexistent'], 1, /cannot be read/],
      [['statsu'], 2, /Did you mean status/],
      [['status', '--bogus'], 2, /unknown option/],
      [['revoke', 'h9'], 1, /no host is called h9: see `caracal hosts`/],
      [['revoke', 'h1'], 1, /a host cannot revoke itself: run it on another/],
    ])
    await refuseAll(t, net, 'h2', [
      [['invite'], 1, /may not invite: run .+ on the host that created/],
      [['revoke', 'h1'], 1, /may not revoke: run it on the host that created/],
    ])
  })

  await t.test('no right to the control socket', async (t) => {
    const socket = net.lab.path('h1', 'control.sock')
    const status = `chmod 0 ${socket}; setpriv --bounding-set=-dac_override ${process.execPath} ${cliMain} status; code=$?; chmod 600 ${socket}; exit $code`
    refused(t, 'status', await net.run('h1', status), 1, /no permission to use .+: become root, or set `group:`/)
  })

  await t.test('garbage on the control socket', async (t) => {
    const socket = net.lab.path('h1', 'control.sock')
    const twice = { name: 'api', ports: [80, 81].map((local) => ({ protocol: 'tcp', port: 80, local })) }
    const request = (id: number, op: string, args: object, v = 1) => `${JSON.stringify({ v, id, op, args })}\n`
    t.match(await say(socket, 'garbage\n'), /"CARACAL_E_REQUEST"/)
    t.match(await say(socket, Buffer.alloc(1_000_000, 0x61)), /"CARACAL_E_REQUEST_TOO_LONG"/)
    t.match(await say(socket, '{"v":1,"id":1,"op":"sta'), /the last request is incomplete/)
    t.match(await say(socket, request(1, 'zap', {})), /no operation zap/)
    t.match(await say(socket, request(1, 'status', {}, 2)), /speaks version 1/)
    t.match(await say(socket, request(1, 'resolve', { name: 5 })), /"CARACAL_E_REQUEST"/)
    t.match(await say(socket, request(1, 'expose', twice)), /"CARACAL_E_PORT_TAKEN"/)
  })

  t.equal(await services(), before, 'nothing has changed')

  await t.test('nothing listens', async (t) => {
    const exposed = await net.caracal('h1', 'expose', 'Idle.SVC.internal', '--tcp', '81:8081')
    t.equal(exposed.code, 0)
    t.equal(exposed.err, 'caracal: warning: nothing listens on TCP port 8081: registered as unhealthy\n')
    t.match(
      exposed.out,
      /^idle is exposed as idle\.svc\.internal /,
      'the name is the same with the zone and in capitals',
    )
    const [service] = servicesShape.parse(
      JSON.parse((await net.caracal('h1', 'services', 'idle', '--json')).out),
    ).services
    t.equal(service?.instances[0]?.state, 'unhealthy')
    t.match(service?.instances[0]?.health.detail, /nothing listens on TCP port 8081/)
    t.match((await net.caracal('h1', 'services')).out, /idle .*h1 \(here\) +81:8081\/tcp +unhealthy .*nothing listens/)
    t.equal((await net.caracal('h1', 'unexpose', 'idle.svc.internal')).code, 0)
    t.equal(await services(), before)
  })

  await t.test('every reading command prints JSON', async (t) => {
    await net.knows('h2', 'web', ['h1'])
    const client = await net.start('h2', holdOpen, /connected/)
    const commands: [string, z.ZodType][] = [
      ['status', statusShape],
      ['services', servicesShape],
      ['services web', servicesShape],
      ['hosts', hostsShape],
      ['flows', flowsShape.refine(({ flows }) => flows.some((flow) => flow.service === 'web'))],
      ['flows --service WEB.svc.internal --host h1', flowsShape.refine(({ total }) => total === 1)],
      ['paths', pathsShape.refine(({ paths }) => paths.length > 0)],
      ['paths h1', pathsShape.refine(({ paths }) => paths.length > 0)],
      ['rules', rulesShape.refine(({ rules }) => rules.some(({ name, host }) => name === 'web' && host === 'h1'))],
      ['rules web', rulesShape.refine(({ rules }) => rules.length > 0)],
      ['resolve web', resolveShape.refine(({ obstacle }) => obstacle === null)],
      ['resolve web.at.h1', resolveShape.refine(({ pinned }) => pinned === 'h1')],
      ['resolve h1.host', resolveShape.refine(({ kind }) => kind === 'host')],
      ['ping web -c 1', pingShape.refine(({ rttMs }) => rttMs !== null)],
      ['ping h1 -c 1', pingShape.refine(({ rttMs }) => rttMs !== null)],
      ['doctor', doctorShape],
    ]
    for (const [line, shape] of commands) {
      const { code, out, err } = await net.caracal('h2', ...line.split(' '), '--json')
      t.ok(code === 0 || line === 'doctor', `${line}: exit ${code} ${err}`)
      t.ok(shape.safeParse(parse(out)).success, `${line} --json`, { out })
    }
    client.kill('SIGKILL')
    const { out } = await net.caracal('h1', 'invite', '--json')
    t.match(parse(out), { token: /^caracal1-/, uses: 1 })
    const lines = (await net.caracal('h1', 'invite')).out.split('\n')
    t.match(lines.at(-2), /^caracal1-[A-Za-z0-9_-]+$/, 'the token stands alone on the last line')
    t.equal(lines.at(-1), '')
  })

  await t.test('a revoked host is cut off', async (t) => {
    await net.start('h2', holdOpen, /connected/)
    const established = async () => (await net.run('h1', 'ss -Htn state established sport = :8080')).out.trim() !== ''
    await net.until('the server has the connection', established)
    const gone = net.until("the server's kernel has lost the connection", async () => !(await established()))
    const revoked = await net.caracal('h1', 'revoke', 'h2')
    const at = performance.now()
    t.equal(revoked.code, 0, revoked.err)
    t.match(revoked.out, /^h2 \([0-9a-f]{64}\) is revoked; 0 hosts told so far\n$/)
    await gone
    t.ok(performance.now() - at < 1000, `the flow was cut ${Math.round(performance.now() - at)} ms after`)
    t.equal(flowCount((await net.caracal('h1', 'flows', '--json')).out), 0)
    const { hosts } = hostsShape.parse(JSON.parse((await net.caracal('h1', 'hosts', '--json')).out))
    t.equal(hosts.find((host) => host.name === 'h2')?.state, 'revoked')
    const again = await net.run('h2', 'curl -sS --max-time 2 -o /dev/null http://web.svc.internal/')
    t.not(again.code, 0, 'it gets no new connection')
    const status = await net.caracal('h2', 'status')
    t.match(status.out, /^membership +this host was revoked: the authority revoked it at 20\d\d-/m, 'it knows why')
    const doctor = await net.caracal('h2', 'doctor')
    t.equal(doctor.code, 1)
    t.match(doctor.out, /^fail +membership +this host was revoked: .*\n +→ join again with a new token/m)
    await refuseAll(t, net, 'h2', [[['expose', 'api', '--tcp', '80'], 1, /this host was revoked: .+: join again with/]])
  })
})

/** A client that stays connected and says how it ends. */
const holdOpen = [
  process.execPath,
  '-e',
  `const s = require('node:net').connect(80, 'web.svc.internal', () => console.log('connected'))
   s.on('error', (e) => console.log('ended ' + e.code)).on('end', () => console.log('ended'))`,
]

function flowCount(json: string): number {
  return flowsShape.parse(JSON.parse(json)).total
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

/** Sends bytes and nothing more; everything that comes back until the other end closes. */
function say(path: string, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect({ path, allowHalfOpen: true }, () => socket.end(bytes))
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
    // The daemon may close before it has read all of it.
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(answer))
  })
}
