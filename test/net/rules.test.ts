// Rules with real daemons and programs: a name that is dropped, one that may still come, one that another host is asked for.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { rulesShape, statusShape } from '../../daemon/control/protocol.js'
import { Fixture } from './fixture.js'

test('rules of the settings decide where first packets go', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2', 'h3'])
  const file = join(net.folder, 'h1.yaml')
  const settings = async (text: string) => {
    writeFileSync(file, text)
    return net.caracal('h1', 'reload')
  }
  const rules = async (...words: string[]) =>
    rulesShape.parse(JSON.parse((await net.caracal('h1', 'rules', ...words, '--json')).out)).rules
  const drops = async (host: string) =>
    statusShape.parse(JSON.parse((await net.caracal(host, 'status', '--json')).out)).drops
  /** Exit status, output and seconds of a curl on h1. */
  const curl = async (name: string, ...words: string[]) => {
    const options = ['-sS', '-w', '\\n%{http_code} %{time_total}', '--max-time', '20', ...words]
    const { code, out, err } = await net.run('h1', ['curl', ...options, `http://${name}.svc.internal/`])
    const lines = out.split('\n')
    const [status, seconds] = lines.at(-1)!.split(' ')
    return { code, status, seconds: Number(seconds), body: lines[0], err }
  }
  const serve = `require('http').createServer((q, r) => r.end('here is h3\\n')).listen(8080, () => console.log('ready'))`
  await net.start('h3', [process.execPath, '-e', serve], /ready/)
  const expose = async (name: string) =>
    t.equal((await net.caracal('h3', 'expose', name, '--tcp', '80:8080')).code, 0, `expose ${name}`)
  for (const name of ['ads', 'img.ads', 'api.corp']) await expose(name)

  writeFileSync(file, '')
  await net.lab.stopDaemon('h1')
  await net.lab.startDaemon('h1', ['--config', file])
  for (const name of ['ads', 'img.ads', 'api.corp']) await net.knows('h1', name, ['h3'])

  await t.test('drop: refused at once, names below too, and no longer after a reload', async (t) => {
    t.match(await curl('img.ads'), { code: 0, status: '200' })
    const { out } = await settings('rules: [{ name: ads, action: drop }]\n')
    t.match(out, /in force: rules/)
    for (const name of ['ads', 'img.ads']) {
      for (const family of ['-4', '-6']) {
        const { code, seconds, err } = await curl(name, family)
        t.equal(code, 7, `${name} ${family}: ${err}`)
        t.ok(seconds < 1, `${seconds} s`)
      }
    }
    const [instance, drop, ...others] = (await rules('ads')).filter(({ by }) => by !== 'daemon')
    t.match(instance, { name: 'ads', length: 256, action: 'instance', host: 'h3', by: 'registration', hits: 0 })
    t.match(drop, { name: 'ads and below', length: 96, action: 'drop', host: null, priority: 0, by: 'settings' })
    t.same(others, [])
    t.ok((drop?.hits ?? 0) >= 4 && (drop?.lastHitMs ?? Infinity) < 60_000, `${drop?.hits} hits`)
    t.ok((await drops('h1'))['denied']! >= 4)
    t.match(await settings('rules: [{ name: ads, action: sink }]\n'), {
      code: 1,
      err: /line 1, column 30: rules.0.action/,
    })
    t.match(await curl('ads'), { code: 7 }, 'what is wrong changes nothing')
    await settings('')
    t.match(await curl('ads'), { code: 0, status: '200' })
  })

  await t.test('delay: a name that nobody has yet is held until somebody does', async (t) => {
    t.equal((await curl('late.lab')).code, 6, 'no such name')
    await settings('rules: [{ name: lab, action: delay }]\n')
    // The negative answer may be kept for two seconds.
    await net.until('the name has an address', async () => {
      return (await net.run('h1', 'getent ahostsv4 late.lab.svc.internal')).code === 0
    })
    const waiting = curl('late.lab')
    // The command takes longer to start than curl, and less than a packet is held.
    await expose('late.lab')
    const late = await waiting
    t.match(late, { code: 0, status: '200' }, late.err)
    t.ok(
      (await rules('late.lab')).some(({ action, hits }) => action === 'delay' && hits > 0),
      'it was held',
    )
    t.ok(late.seconds < 4, `${late.seconds} s`)
    const never = await curl('never.lab', '-4')
    t.equal(never.code, 7, never.err)
    t.ok(never.seconds > 2.5 && never.seconds < 6, `${never.seconds} s`)
  })

  await t.test('resolver: another host is asked, and its answer remembered', async (t) => {
    // Before the instances that h1 knows by itself: else it would not need to ask.
    await settings('rules: [{ name: corp, action: resolver, host: h2, priority: 0 }]\n')
    const before = (await drops('h2'))['moved']!
    const first = await curl('api.corp', '-4')
    t.match(first, { code: 0, status: '200' }, first.err)
    t.equal(first.body, 'here is h3')
    const told = (await drops('h2'))['moved']!
    t.ok(told > before, 'h2 said where it is')
    const [rule] = (await rules('api.corp')).filter(({ action }) => action === 'resolver')
    t.match(rule, { name: 'corp and below', host: 'h2', priority: 0, by: 'settings' })
    t.ok(rule!.hits >= 1)
    t.match(await curl('api.corp', '-6'), { code: 0, status: '200' })
    const unknown = await curl('nothing.corp', '-4')
    t.equal(unknown.code, 7, unknown.err)
    t.ok(unknown.seconds < 2, `${unknown.seconds} s`)
    const table = (await net.caracal('h1', 'rules')).out.split('\n')
    t.match(table[0], /^NAME +BITS +ACTION +HOST +PRIO +WEIGHT +HITS +LAST HIT +BY$/)
    t.ok(table.some((line) => /^corp and below +96 +resolver +h2 +0 +1 +[1-9]\d* +.+ ago +settings$/.test(line)))
  })

  await t.test('policy: what it denies from a reload on is cut at both ends, whichever end has it', async (t) => {
    const server = join(net.folder, 'h3.yaml')
    writeFileSync(server, '')
    await net.lab.stopDaemon('h3')
    await net.lab.startDaemon('h3', ['--config', server])
    const serve = `require('net').createServer((s) => {
      console.log('accepted')
      const beat = setInterval(() => s.write('x'), 50)
      s.resume().on('error', (e) => console.log('server: ' + e.code)).on('close', () => clearInterval(beat))
    }).listen(8081, () => console.log('ready'))`
    const dial = `const s = require('net').connect(80, process.argv[1] + '.svc.internal')
      s.once('data', () => console.log('connected')).resume().on('error', (e) => console.log('client: ' + e.code))
      setInterval(() => s.destroyed || s.write('y'), 50)`
    const listener = await net.start('h3', [process.execPath, '-e', serve], /ready/)
    for (const name of ['shut', 'open'])
      t.equal((await net.caracal('h3', 'expose', name, '--tcp', '80:8081')).code, 0, `expose ${name}`)
    for (const name of ['shut', 'open']) await net.knows('h1', name, ['h3'])
    let heard = ''
    listener.stdout?.on('data', (chunk: Buffer) => (heard += chunk.toString()))
    for (const [host, config] of [
      ['h1', file],
      ['h3', server],
    ] as const) {
      heard = ''
      const said: Record<string, string> = {}
      for (const name of ['shut', 'open']) {
        const client = await net.start('h1', [process.execPath, '-e', dial, name], /connected/)
        said[name] = ''
        client.stdout?.on('data', (chunk: Buffer) => (said[name] += chunk.toString()))
      }
      writeFileSync(config, 'policy: [{ to: [open] }]\n')
      t.match((await net.caracal(host, 'reload')).out, /in force: .*policy/)
      await net.until(`both ends are told, by ${host}`, () => /client: /.test(said['shut']!) && /server: /.test(heard))
      t.match(said['shut'], /^client: ECONNRESET$/m)
      t.match(heard, /^server: ECONNRESET$/m)
      t.match(await curl('shut'), { code: 7 }, 'nor does it begin again')
      t.equal(said['open'], '', 'what is allowed goes on')
      t.equal(heard.split('server: ').length, 2)
      writeFileSync(config, '')
      t.match((await net.caracal(host, 'reload')).out, /in force: .*policy/)
    }
  })
})
