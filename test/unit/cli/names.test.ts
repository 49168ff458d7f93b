import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { t as root, test } from 'tap'
import { isProven, parseProof } from '../../../lib/service/name-proof.js'
import { parseServiceName } from '../../../lib/service/service-id.js'
import { sodium as primitives } from '../../tools/sodium.js'
import { caracal, sampleStatus, startFake } from './fake-daemon.js'

root.setTimeout(180_000)

const last = (out: string) => out.trimEnd().split('\n').at(-1)!

test('own gives names, and lists whose they are', async (t) => {
  const asked: unknown[] = []
  const fake = await startFake({
    own: async ({ name, free, tags, hosts, minPriority, maxWeight }) => {
      asked.push({ name, free, tags, hosts, minPriority, maxWeight })
      return { name, free, by: 'issuer', tags, hosts, minPriority, maxWeight, serial: 7, told: 1 }
    },
  })
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const words = ['pay', '--tag', 'bank', '--tag', 'audit', '--host', 'h2', '--min-priority', '5', '--max-weight', '9']
  t.equal(
    (await caracal(['own', ...words], env)).out,
    "pay belongs to tag bank, tag audit, host h2 (priority >= 5, weight <= 9), by the issuer's word; 1 host told so far\n",
  )
  t.equal((await caracal(['own', '*', '--free'], env)).out.slice(0, 39), 'every name without a rule of its own is')
  t.match(JSON.parse((await caracal(['own', 'pay', '--max-weight', '0', '--json'], env)).out), {
    maxWeight: 0,
    serial: 7,
  })
  const rest = { tags: [], hosts: [], minPriority: 0, maxWeight: 65_535 }
  t.strictSame(asked, [
    { name: 'pay', free: false, tags: ['bank', 'audit'], hosts: ['h2'], minPriority: 5, maxWeight: 9 },
    { ...rest, name: '*', free: true },
    { ...rest, name: 'pay', free: false, maxWeight: 0 },
  ])
  const [heading, pay, web] = (await caracal(['own'], env)).out.split('\n')
  t.match(heading, /^NAME +OWNERS +LIMITS +BY +SINCE +IGNORED$/)
  t.match(pay, /^pay +tag bank, host h9 +priority >= 5 +authority +2027-01-15T08:00:00Z +h3$/)
  t.match(web, /^web +every member +- +first claim, of h1 +2027-01-15T08:00:01Z +-$/)
  t.equal(JSON.parse((await caracal(['own', '--json'], env)).out).names.length, 2)
  const usage: [string[], RegExp][] = [
    [['pay'], /to whom pay belongs is not said: give --tag, --host or --free/],
    [['--free'], /whose name is not said/],
    [['pay', '--free', '--tag', 'x'], /--free goes with nothing else/],
    [['pay', '--max-weight', '-1'], /whole number from 0/],
  ]
  for (const [given, message] of usage) t.match(await caracal(['own', ...given], env), { status: 2, err: message })
})

test('a key is made once, and proves its name to a host', async (t) => {
  const fake = await startFake()
  const folder = mkdtempSync(join(tmpdir(), 'caracal-key-'))
  t.teardown(async () => {
    await fake.stop()
    rmSync(folder, { recursive: true })
  })
  const env = { CARACAL_SOCKET: fake.path }
  const file = join(folder, 'a.key')
  const made = await caracal(['key', 'new', file])
  t.equal(made.status, 0, made.err)
  const name = parseServiceName(last(made.out))
  if (!('text' in name) || name.kind !== 'key') throw new Error(`no name: ${made.out}`)
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.strictSame(readdirSync(folder), ['a.key'], 'nothing is left beside it')
  const before = readFileSync(file, 'utf8')
  t.match(await caracal(['key', 'new', file]), { status: 1, err: /a\.key is there already/ })
  symlinkSync(join(folder, 'nowhere'), join(folder, 'link'))
  t.match(await caracal(['key', 'new', join(folder, 'link')]), { status: 1, err: /is there already/ })
  t.equal(readFileSync(file, 'utf8'), before)
  t.match(await caracal(['key', 'new', join(folder, 'no', 'a.key')]), { status: 1, err: /there is no/ })
  t.equal((await caracal(['key', 'name', file])).out, `${name.text}\n`)

  const hostId = 'a'.repeat(64)
  const proven = (text: string) => {
    const proof = parseProof(text)
    return proof !== undefined && proof.host === hostId && isProven(primitives, name.key, proof)
  }
  const byName = await caracal(['key', 'proof', file, '--host', 'h1'], env)
  t.match(byName.out, new RegExp(`^lets h1 register ${name.text}\n`))
  t.ok(proven(last(byName.out)))
  const json = JSON.parse((await caracal(['key', 'proof', file, '--host', hostId, '--json'], env)).out)
  t.match(json, { name: name.text, host: 'h1', hostId, network: sampleStatus.network.id, proof: last(byName.out) })
  const offline = ['--host', hostId, '--network', sampleStatus.network.id, '--socket', '/nonexistent']
  t.equal(last((await caracal(['key', 'proof', file, ...offline])).out), json.proof)
  t.match(await caracal(['key', 'proof', file, '--host', 'h9'], env), { status: 1, err: /no host is called h9/ })
  t.match(await caracal(['key', 'proof', file], env), { status: 2, err: /--host.+ not specified/ })
  t.match(await caracal(['key', 'proof', file, '--host', 'h1', '--network', sampleStatus.network.id]), { status: 2 })
  t.match(await caracal(['key', 'proof', file, '--host', hostId, '--network', 'x']), { status: 2 })

  chmodSync(file, 0o640)
  t.match(await caracal(['key', 'name', file]), { status: 1, err: /others may read .+: chmod 600/ })
  chmodSync(file, 0o600)
  for (const text of ['', before.slice(0, -3), before + before, 'x'.repeat(5_000)]) {
    writeFileSync(file, text)
    t.match(await caracal(['key', 'name', file]), { status: 1, err: /holds no key, or a damaged one/ })
  }
  t.match(await caracal(['key', 'name', join(folder, 'none')]), { status: 1, err: /there is no .+none/ })
  t.match(await caracal(['key', 'name', folder]), { status: 1 })
})

test('expose hands the proof on', async (t) => {
  const asked: unknown[] = []
  const fake = await startFake({
    expose: async (request) => {
      asked.push(request.proof)
      const { name, ports } = request
      return { name, id: '5', domain: 'k--x.svc.internal', dialled: { v4: null, v6: null }, ports, warnings: [] }
    },
  })
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const { ownName } = sampleStatus.host
  t.match((await caracal(['status'], env)).out, ownName)
  t.match(await caracal(['expose', ownName, '--tcp', '80', '--proof', 'AX'], env), { status: 0 })
  t.match(await caracal(['expose', ownName, '--tcp', '80'], env), { status: 0 })
  t.strictSame(asked, ['AX', undefined])
})
