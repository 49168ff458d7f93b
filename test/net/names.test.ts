// Whose a name is: by the authority's word, and by the key in it.
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { z } from 'zod'
import { Fixture, type Result } from './fixture.js'

const doctorShape = z.object({
  checks: z.array(z.object({ name: z.string(), result: z.string(), detail: z.string() })),
})
const namesShape = z.object({
  names: z.array(
    z.object({
      name: z.string(),
      by: z.string(),
      tags: z.array(z.string()),
      ignored: z.array(z.object({ host: z.string(), detail: z.string() })),
    }),
  ),
})
const statusShape = z.object({
  host: z.object({ id: z.string(), ownName: z.string() }),
  network: z.object({ id: z.string() }),
})

const lastLine = ({ out }: Result) => out.trimEnd().split('\n').at(-1)!

test('names belong to whom the authority gives them, or to the holder of their key', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2', 'h3'], { daemons: false })
  const hosts = ['h1', 'h2', 'h3'] as const
  await net.lab.startDaemon('h1', ['--create', 'lab'])
  for (const [name, tags] of [
    ['h2', ['--tag', 'bank']],
    ['h3', []],
  ] as const) {
    await net.lab.startDaemon(name, ['--join', lastLine(await net.caracal('h1', 'invite', ...tags))])
  }
  for (const host of hosts) {
    const server = `require('http').createServer((_, answer) => answer.end('${host}')).listen(8080, () => console.log('up'))`
    await net.start(host, [process.execPath, '-e', server], /up/)
  }
  const curl = (host: string, url: string) => net.run(host, ['curl', '-sS', '--max-time', '10', url])
  const servedBy = async (host: string, url: string, times = 8) => {
    const answers = new Set<string>()
    for (let i = 0; i < times; i++) {
      const { out, err } = await curl(host, url)
      answers.add(out === '' ? err : out)
    }
    return [...answers].sort()
  }
  const names = async (host: string) =>
    namesShape.parse(JSON.parse((await net.caracal(host, 'own', '--json')).out)).names
  const named = async (host: string, name: string) => (await names(host)).find((one) => one.name === name)
  const status = async (host: string) =>
    statusShape.parse(JSON.parse((await net.caracal(host, 'status', '--json')).out))

  await t.test('a rule gives a name to a tag', async (t) => {
    const expose = (host: string) => net.caracal(host, 'expose', 'pay', '--tcp', '80:8080')
    t.equal((await expose('h3')).err, '', 'nobody has a say yet')
    await net.knows('h2', 'pay', ['h3'])
    const own = await net.caracal('h1', 'own', 'pay', '--tag', 'bank')
    t.equal(own.code, 0, own.err)
    t.match(own.out, /^pay belongs to tag bank, by the authority's word; 2 hosts told so far$/m)
    for (const host of hosts) await net.knows(host, 'pay', [])
    t.match(await curl('h1', 'http://pay.svc.internal/'), { code: 6 }, 'no instance counts: there is no such name')
    t.equal((await expose('h2')).err, '', 'a host with the tag')
    for (const host of hosts) await net.knows(host, 'pay', ['h2'])
    for (const host of hosts) t.strictSame(await servedBy(host, 'http://pay.svc.internal/'), ['h2'], `curl on ${host}`)
    t.match(await expose('h3'), {
      code: 0,
      err: /warning: others ignore this registration: the name belongs to tag bank/,
    })
    for (const host of hosts) {
      const doctor = doctorShape.parse(JSON.parse((await net.caracal(host, 'doctor', '--json')).out))
      const check = doctor.checks.find(({ name }) => name === 'names')
      t.match(check, { result: 'warn', detail: /pay on h3: the name belongs to tag bank by a rule of the authority/ })
      t.match(await named(host, 'pay'), { by: 'authority', tags: ['bank'], ignored: [{ host: 'h3' }] })
    }
    t.match((await net.caracal('h3', 'own')).out, /^pay +tag bank +- +authority +\d{4}-\S+ +h3$/m)
    t.match(await net.caracal('h2', 'expose', 'api.pay', '--tcp', '80:8080'), { err: '' }, 'a name below it')
    t.match(await net.caracal('h3', 'expose', 'x.pay', '--tcp', '80:8080'), { err: /belongs to tag bank/ })
  })

  await t.test('what cannot be said is refused', async (t) => {
    const cases: [host: string, words: string[], code: number, line: RegExp][] = [
      ['h3', ['pay', '--tag', 'web'], 1, /may not give names to anybody: run it on the host that created/],
      ['h1', ['pay', '--host', 'h9'], 1, /no host is called h9: see `caracal hosts`/],
      ['h1', ['pay', '--tag', 'Big Bank'], 2, /"Big Bank" is no tag: a tag is/],
      ['h1', ['a..b', '--tag', 'bank'], 2, /a label is empty/],
      ['h1', [(await status('h3')).host.ownName, '--tag', 'bank'], 2, /belongs to the holder of its key/],
      ['h1', ['pay'], 2, /to whom pay belongs is not said: give --tag, --host or --free/],
      ['h1', ['nothing', '--free'], 1, /no rule gives nothing to anybody/],
      ['h1', ['--tag', 'bank'], 2, /whose name is not said/],
    ]
    for (const [host, words, code, line] of cases) {
      const result = await net.caracal(host, 'own', ...words)
      t.equal(result.code, code, words.join(' '))
      t.match(result.err, line)
    }
    t.equal((await named('h2', 'pay'))?.by, 'authority')
  })

  await t.test('rules outlive a restart, and one without anybody to ask', async (t) => {
    await net.lab.stopDaemon('h1')
    await net.lab.stopDaemon('h2')
    await net.lab.stopDaemon('h3')
    await net.lab.startDaemon('h3')
    t.match(await named('h3', 'pay'), { by: 'authority', tags: ['bank'], ignored: [{ host: 'h3' }] })
    await net.lab.startDaemon('h1')
    await net.lab.startDaemon('h2')
    for (const host of hosts) await net.knows(host, 'pay', ['h2'])
  })

  await t.test('a name that is freed is for whoever came first', async (t) => {
    t.match(await net.caracal('h1', 'own', 'pay', '--free'), { code: 0, out: /^pay is free; 2 hosts told so far$/m })
    for (const host of hosts) await net.knows(host, 'pay', ['h2', 'h3'])
    t.strictSame(await servedBy('h1', 'http://pay.svc.internal/', 30), ['h2', 'h3'])
    t.match(await named('h1', 'pay'), { by: 'claim', ignored: [] })
    t.match(await net.caracal('h1', 'own', 'pay', '--host', 'h3', '--max-weight', '5'), { code: 0 })
    for (const host of hosts) await net.knows(host, 'pay', ['h3'])
    t.strictSame(await servedBy('h2', 'http://pay.svc.internal/'), ['h3'])
  })

  await t.test('a self-certifying name is served where its key says', async (t) => {
    const key = join(net.folder, 'shop.key')
    const made = await net.caracal('h1', 'key', 'new', key)
    t.equal(made.code, 0, made.err)
    const name = lastLine(made)
    t.match(name, /^~[a-z2-7]{52}$/)
    t.equal(statSync(key).mode & 0o777, 0o600)
    t.match(await net.caracal('h1', 'key', 'new', key), {
      code: 1,
      err: /is there already, and a key is never written/,
    })
    t.equal(lastLine(await net.caracal('h1', 'key', 'name', key)), name)
    const proofFor = (...words: string[]) => net.caracal('h1', 'key', 'proof', key, ...words)
    const proof = lastLine(await proofFor('--host', 'h2'))
    const { host: h2, network } = await status('h2')
    t.equal(lastLine(await proofFor('--host', h2.id, '--network', network.id, '--socket', '/none')), proof, 'no daemon')
    t.match(await proofFor('--host', 'h9'), { code: 1, err: /no host is called h9/ })

    const expose = (host: string, ...words: string[]) => net.caracal(host, 'expose', name, '--tcp', '80:8080', ...words)
    const forged = proof.slice(0, -3) + (proof.endsWith('AAA') ? 'BBB' : 'AAA')
    const refusals: [host: string, words: string[], line: RegExp][] = [
      ['h2', [], /only the holder of its key says who may register ~/],
      ['h2', ['--proof', 'nonsense'], /this is no proof: copy all of the last line of `caracal key proof`/],
      ['h2', ['--proof', forged], /the proof is not signed with the key of ~/],
      ['h3', ['--proof', proof], /the proof is for the host h2, and this is h3/],
    ]
    for (const [host, words, line] of refusals) t.match(await expose(host, ...words), { code: 1, err: line })
    t.match(await net.caracal('h2', 'expose', 'web', '--tcp', '80', '--proof', proof), {
      code: 1,
      err: /web is no self-certifying name: leave out the proof/,
    })
    t.notOk(
      (await names('h2')).some((one) => one.name === name || one.name === 'web'),
      'nothing has come of it',
    )

    // The C library knows no "~" in host names.
    const plain = `k--${name.slice(1)}`
    t.match(await expose('h2', '--proof', proof), { code: 0, err: '', out: ` is exposed as ${plain}.svc.internal (` })
    for (const host of hosts) await net.knows(host, name, ['h2'])
    const dig = await net.run('h3', `dig +short +tries=1 +time=2 '${name}.svc.internal' ${plain}.svc.internal`)
    t.match(dig.out, /^(198\.1[89]\.\S+)\n\1\n$/, 'both spellings have the same address')
    t.match((await net.run('h3', `dig +short -x ${dig.out.split('\n')[0]}`)).out, `${plain}.svc.internal.`)
    t.match(await curl('h3', `http://${plain}.svc.internal/`), { code: 0, out: 'h2' })
    t.match(await curl('h3', `http://${plain}.at.h2.svc.internal/`), { code: 0, out: 'h2' }, 'pinned')
    t.match(await named('h3', name), { by: 'key', ignored: [] })
    await net.lab.stopDaemon('h2')
    await net.knows('h3', name, [])
    await net.lab.startDaemon('h2')
    await net.knows('h3', name, ['h2'])
    t.match(await curl('h3', `http://${plain}.svc.internal/`), { code: 0, out: 'h2' }, 'after a restart')
  })

  await t.test("a host's own key needs no proof", async (t) => {
    const { ownName } = (await status('h3')).host
    t.match(await net.caracal('h3', 'expose', ownName, '--tcp', '80:8080'), { code: 0, err: '' })
    await net.knows('h1', ownName, ['h3'])
    t.match(await curl('h1', `http://k--${ownName.slice(1)}.svc.internal/`), { code: 0, out: 'h3' })
  })
})
