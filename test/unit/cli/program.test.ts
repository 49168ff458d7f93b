import { createServer } from 'node:net'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { t as root, test } from 'tap'
import { runCli } from '../../../cli/program.js'
import { CaracalError } from '../../../daemon/errors.js'
import { caracal, startFake } from './fake-daemon.js'

// a loaded machine starts programs slowly
root.setTimeout(180_000)

test('reading commands print tables, and JSON with --json', async (t) => {
  const fake = await startFake()
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const commands = [
    ['status'],
    ['services'],
    ['resolve', 'web'],
    ['rules'],
    ['hosts'],
    ['paths'],
    ['flows'],
    ['doctor'],
  ]
  await Promise.all(
    commands.map(async (words) => {
      const text = await caracal(words, env)
      t.equal(text.status, 0, words.join(' '))
      t.not(text.out, '')
      t.notOk(text.out.includes('\u001b'), 'no colour on a pipe')
      const json = await caracal([...words, '--json'], env)
      t.equal(json.status, 0)
      t.type(JSON.parse(json.out), 'object')
      t.equal(json.err, '')
    }),
  )
  const { out } = await caracal(['services', '--socket', fake.path])
  const [heading = '', row = ''] = out.split('\n')
  t.match(row, /^web\s+198\.18\.64\.2\s+h2\s+80\/tcp\s+up\s+0\s+3\s+2\s+0\.410 ms\s+tcp$/)
  t.equal(heading.indexOf('HOST'), row.indexOf('h2'), 'columns are aligned')
  t.equal(JSON.parse((await caracal(['status', '--json'], env)).out).host.name, 'h1')
  const [path, flow] = await Promise.all(
    ['paths', 'flows'].map(async (word) => (await caracal([word], env)).out.split('\n')),
  )
  t.match(path?.[0], /^HOST +LOCAL +REMOTE +STATE +USED +RTT +LOSS % +MTU +SINCE +WHY$/)
  t.match(path?.[1], /^h2 +10\.0\.0\.1:7474 +10\.0\.0\.2:7474 +proven +yes +0\.400 ms +0 +1500 +1m0s +established$/)
  t.match(flow?.[0], / PATH +SINCE +LOCAL$/)
  t.match(flow?.[1], / 10\.0\.0\.2:7474 +1m1s +198\.18\.0\.1:40022 > 198\.18\.64\.2:80$/)
  const rules = (await caracal(['rules'], env)).out.split('\n')
  t.match(rules[1], /^web +256 +instance +h2 +0 +3 +12 +1m1s ago +registration$/)
  t.match(rules[2], /^corp and below +96 +delay +- +65535 +1 +0 +- +settings$/)
  t.match((await caracal(['status'], env)).out, /^drops +no-instance 2$/m)
  t.match((await caracal(['status'], env)).out, /^sealing +aes-256-gcm by libipsec-mb 1\.3\.0$/m)
  t.match((await caracal(['status'], env)).out, /^seen at +203\.0\.113\.9:40001$/m)
})

test('changing commands say what they did', async (t) => {
  const asked: unknown[] = []
  const fake = await startFake({
    expose: async (request) => {
      asked.push(request)
      const { name, ports } = request
      const warnings = ['nothing listens on TCP port 8080: registered as unhealthy']
      return {
        name,
        id: '5',
        domain: `${name}.svc.internal`,
        dialled: { v4: '198.18.64.2', v6: null },
        ports,
        warnings,
      }
    },
    unexpose: async ({ name }) => ({ name, flows: 2 }),
  })
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const words = [
    'expose',
    'Web',
    '--tcp',
    '80:8080',
    '--tcp',
    '443',
    '--udp',
    '53',
    '--weight',
    '3',
    '--health',
    'http:/ready',
  ]
  const exposed = await caracal(words, env)
  t.equal(exposed.status, 0)
  t.equal(exposed.out, 'web is exposed as web.svc.internal (198.18.64.2), port 80:8080/tcp, 443/tcp, 53/udp\n')
  t.equal(exposed.err, 'caracal: warning: nothing listens on TCP port 8080: registered as unhealthy\n')
  t.strictSame(asked, [
    {
      name: 'web',
      ports: [
        { protocol: 'tcp', port: 80, local: 8080 },
        { protocol: 'tcp', port: 443, local: 443 },
        { protocol: 'udp', port: 53, local: 53 },
      ],
      weight: 3,
      priority: 0,
      health: { kind: 'http', path: '/ready' },
      move: 'drain',
    },
  ])
  t.equal((await caracal(['unexpose', 'web'], env)).out, 'web is no longer exposed here; 2 open flows go on\n')
  const invite = await caracal(['invite', '--tag', 'a', '--tag', 'b', '--uses', '2', '--expires', '1d'], env)
  t.equal(invite.out.trimEnd().split('\n').at(-1), 'caracal-TOKEN')
  t.match(invite.out, /2 hosts to lab with a, b/)
  t.match((await caracal(['revoke', 'h2'], env)).out, /^h2 .* is revoked/)
  const reload = await caracal(['reload'], env)
  t.equal(reload.out, 'in force: log\n')
  t.equal(reload.err, 'caracal: warning: needs a restart: pool\n')
})

test('down returns when the connection is closed', async (t) => {
  const fake = await startFake({
    down: async () => {
      setImmediate(() => void fake.server.close())
      return { pid: 2 ** 22 + 1, flows: 1 }
    },
  })
  t.teardown(() => fake.stop())
  const down = await caracal(['down'], { CARACAL_SOCKET: fake.path })
  t.strictSame(down, { ...down, status: 0, out: 'the daemon has ended, and 1 flow with it\n', err: '' })
})

test('bad usage is status 2 and one line that names the help', async (t) => {
  const cases: [string[], RegExp][] = [
    [['frobnicate'], /unknown command 'frobnicate': see `caracal --help`/],
    [['status', '--nope'], /unknown option '--nope': see `caracal status --help`/],
    [['expose', 'web'], /no port to expose: give --tcp or --udp/],
    [['expose', 'web', '--tcp', '0'], /'0' is invalid. Expected PORT or PORT:LOCAL/],
    [['expose', 'web', '--tcp', '65536'], /'65536' is invalid/],
    [['expose', 'web', '--tcp', '80', '--tcp', '80:81'], /Port 80 is given twice/],
    [['expose', 'we_b', '--tcp', '80'], /"we_b"/],
    [['expose', 'web', '--tcp', '80', '--move', 'checkpoint'], /Allowed choices are drain/],
    [['expose', 'web', '--tcp', '80', '--health', 'smtp'], /Expected none, tcp or http:\/path/],
    [['invite', '--expires', 'soon'], /Expected a time/],
    [['up', '--create', 'x', '--join', 'y'], /cannot be used with option/],
    [['up', '--listen', 'nonsense'], /--listen: "nonsense" is no address/],
    [['up', '--dns', 'file:relative'], /--dns: .*expected auto, resolved, none or file:\/PATH/],
    [['dump', 'port', 'x'], /bad filter at column 6: expected a port number/],
    [['dump', '--point', 'moon'], /"moon" is no tap point/],
    [['ping'], /missing required argument 'target'/],
    [['lab', 'up', '0'], /whole number from 1 to 64/],
  ]
  for (const [words, message] of cases) {
    const said = t.capture(process.stderr, 'write', () => true)
    const status = await runCli(words)
    const err = said()
      .map(({ args }) => String(args[0]))
      .join('')
    said.restore()
    t.equal(status, 2, words.join(' '))
    t.match(err, message)
    t.match(err, /^caracal: [^\n]+\n$/)
  }
  const spawned = await caracal(['frobnicate'])
  t.strictSame(
    [spawned.status, spawned.out, spawned.err],
    [2, '', "caracal: unknown command 'frobnicate': see `caracal --help`\n"],
  )
  t.equal((await caracal([])).status, 2)
  const help = await caracal(['help', 'dump'])
  t.equal(help.status, 0)
  t.match(help.out, /service NAME/)
  t.match((await caracal(['--version'])).out, /^\d+\.\d+\.\d+\n$/)
})

test('what cannot be done is status 1 and says what to do', async (t) => {
  const fake = await startFake({
    resolve: async () => {
      throw new CaracalError('CARACAL_E_NO_SUCH_SERVICE', 'there is no service nowhere', 'see `caracal services`')
    },
    hosts: async () => {
      throw new Error('a fault\nwith two lines')
    },
  })
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const refused = await caracal(['resolve', 'nowhere'], env)
  t.equal(refused.status, 1)
  t.equal(refused.err, 'caracal: there is no service nowhere: see `caracal services`\n')
  const fault = await caracal(['hosts'], env)
  t.equal(fault.status, 1)
  t.equal(fault.err, 'caracal: the daemon failed at hosts (a fault with two lines): its log has the details\n')
  const missing = join(fake.directory, 'missing')
  const none = await caracal(['status', '--socket', missing])
  t.equal(none.status, 1)
  t.match(none.err, `caracal: no daemon answers at ${missing}: start one with \`caracal up`)
  const doctor = await caracal(['doctor', '--json', '--socket', missing])
  t.equal(doctor.status, 1)
  t.match(JSON.parse(doctor.out).checks, [{ name: 'daemon', result: 'fail' }])
  const bad = join(fake.directory, 'bad.yaml')
  writeFileSync(bad, 'name: h1\nzoen: x\n')
  const config = await caracal(['up', '--config', bad])
  t.equal(config.status, 1)
  t.equal(config.err, `caracal: ${bad}, line 2, column 1: unknown setting "zoen": did you mean "zone"?\n`)
  const directory = join(fake.directory, 'd')
  mkdirSync(directory)
  t.equal((await caracal(['dump', '-w', directory], env)).status, 1)
})

test('a daemon that answers nonsense, or goes away', async (t) => {
  const fake = await startFake()
  t.teardown(() => fake.stop())
  const path = join(fake.directory, 'odd')
  let answer = 'not json\n'
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => socket.end(answer))
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.teardown(() => server.close())
  for (const text of [
    'not json\n',
    '',
    '{"id":1,"result":{"hosts":7}}\n',
    '{"id":1,"error":{"code":"X","what":"new trouble"}}\n',
  ]) {
    answer = text
    const { status, err } = await caracal(['hosts', '--socket', path])
    t.equal(status, 1)
    t.match(err, /^caracal: [^\n]+\n$/)
  }
})

test('ping repeats, sums up, and fails without answers', async (t) => {
  const ways = [
    { local: '10.0.0.1:7474', remote: '10.0.0.2:7474', reason: 'established' },
    { local: '[fd77::1]:7474', remote: '[fd77::2]:7474', reason: 'silent' },
  ] as const
  const none = { local: null, remote: null, reason: null }
  const fake = await startFake({
    ping: async ({ target, sequence }) => {
      const answered = target === 'h2'
      const path = answered ? ways[Math.min(sequence >> 1, 1)]! : none
      const rttMs = answered ? 0.5 : null
      return { target, kind: 'host', sequence, host: target, ...path, rttMs, detail: answered ? '' : 'no session' }
    },
  })
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const good = await caracal(['ping', 'h2', '-c', '4', '-i', '10ms'], env)
  t.equal(good.status, 0)
  const [first, second] = ['10.0.0.1:7474 > 10.0.0.2:7474', '[fd77::1]:7474 > [fd77::2]:7474']
  t.strictSame(
    good.out.split('\n'),
    [
      `answer from h2 by ${first}, seq 0: 0.500 ms`,
      `answer from h2 by ${first}, seq 1: 0.500 ms`,
      `the path is now ${second}, before ${first}: silent`,
      `answer from h2 by ${second}, seq 2: 0.500 ms`,
      `answer from h2 by ${second}, seq 3: 0.500 ms`,
      '4 asked, 4 answered, 0 % lost, min / mean / max 0.500 ms / 0.500 ms / 0.500 ms',
      '',
    ],
    'by which path, and when that is another one',
  )
  const bad = await caracal(['ping', 'h3', '-c', '1', '--json'], env)
  t.equal(bad.status, 1)
  t.match(JSON.parse(bad.out), { target: 'h3', rttMs: null, detail: 'no session' })
})

test('flows --watch tells opens, moves and closes until it is interrupted', async (t) => {
  let round = 0
  const { sampleFlow } = await import('./fake-daemon.js')
  const rounds = [[sampleFlow], [{ ...sampleFlow, path: '[fd77::9]:7474', pathMs: 240 }], []]
  const fake = await startFake({
    flows: async () => {
      const flows = rounds[round++] ?? []
      return { flows, total: flows.length }
    },
  })
  t.teardown(() => fake.stop())
  const words = ['flows', '--watch', '--interval', '100ms']
  const watched = await caracal(words, { CARACAL_SOCKET: fake.path }, (text, kill) => {
    if (text.includes(' close ')) kill('SIGINT')
  })
  t.equal(watched.status, 0)
  const lines = watched.out.trimEnd().split('\n')
  t.match(lines[0], /open +0011223344556677 tcp h1 > web@h2 established in 1\.5 MB out 400 B .* by 10\.0\.0\.2:7474$/)
  t.match(lines[1], /move +0011223344556677 .* by \[fd77::9\]:7474, before 10\.0\.0\.2:7474, for 240 ms$/)
  t.match(lines[2], /close +0011223344556677/)
  t.equal(lines.length, 3)
})
