// What `caracal dump` shows of real traffic: names, flow and verdict, by filters, and as a capture file for other tools.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { z } from 'zod'
import { Fixture, type Result } from './fixture.js'

const URL = 'http://web.svc.internal/page'
const LINE =
  /^\d\d:\d\d:\d\d\.\d{6} (tun |wire|drop) [<>] (\S+|host \S+) {2}(.*?)(?: {2}flow ([0-9a-f]{16}))? {2}(pass|DROP \S+)$/

interface Line {
  readonly text: string
  readonly point: string
  readonly who: string
  readonly flow: string | undefined
  readonly verdict: string
}

function linesOf({ out, err }: Result): Line[] {
  const texts = out.split('\n').filter(Boolean)
  return texts.map((text) => {
    const match = LINE.exec(text)
    if (match === null) throw new Error(`no line of a dump: ${text}\n${err}`)
    return { text, point: match[1]!.trim(), who: match[2]!, flow: match[4], verdict: match[5]! }
  })
}

/** Runs a dump that ends by its -c, while `traffic` is made again and again. */
async function dump(
  net: Fixture,
  host: string,
  words: readonly string[],
  traffic: () => Promise<unknown>,
): Promise<Result> {
  let ended = false
  const dumping = net.caracal(host, 'dump', ...words).finally(() => (ended = true))
  while (!ended) await traffic()
  return dumping
}

const tsharkRow = z.object({ layers: z.record(z.string(), z.array(z.string())) })

test('dump', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  writeFileSync(join(net.folder, 'page'), 'caracal\n'.repeat(100))
  await net.start('h2', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80:8080')).code, 0)
  await net.knows('h1', 'web', ['h2'])
  const curl = () => net.run('h1', ['curl', '-sS4', '-o', '/dev/null', '--max-time', '5', URL])
  t.equal((await curl()).code, 0)
  const underlay = net.lab.host('h2').address

  await t.test('a connection as text, at the TUN and on the wire', async (t) => {
    const result = await dump(net, 'h1', ['-c', '60', 'service', 'web'], curl)
    t.equal(result.code, 0, result.err)
    const lines = linesOf(result)
    t.equal(lines.length, 60, 'as many as -c says')
    const whole = lines.every(({ who, flow, verdict }) => who === 'web@h2' && flow !== undefined && verdict === 'pass')
    t.ok(whole, 'service, host, flow and verdict on every line', result)
    const textsAt = (at: string) => lines.filter(({ point }) => point === at).map(({ text }) => text)
    const [tun, wire] = [textsAt('tun'), textsAt('wire')]
    const syn = / tun {2}> web@h2 {2}tcp 198\.\S+:\d+ > 198\.\S+:80 \[S\] seq \d+ win \d+ len 0 {2}flow /
    t.ok(
      tun.some((text) => syn.test(text)),
      'the first packet of the program',
      result,
    )
    const open = new RegExp(` wire > web@h2 {2}open \\S+:\\d+ > ${underlay}:\\d+ len \\d+ \\(tcp \\d+ > 80\\)`)
    t.ok(
      wire.some((text) => open.test(text)),
      'the frame that carries it',
      result,
    )
    t.ok(
      wire.some((text) => text.includes(' accept ')) && wire.some((text) => text.includes(' data ')),
      'and others',
      result,
    )
    const opened = lines.find(({ text }) => text.includes(' open '))
    t.ok(
      tun.some((text) => text.includes(`flow ${opened?.flow}`)),
      'the flow is the same at both points',
    )
  })

  await t.test('at the server, by its own port', async (t) => {
    const result = await dump(net, 'h2', ['-c', '10', '--point', 'tun', 'tcp', 'and', 'port', '8080'], curl)
    const lines = linesOf(result)
    t.equal(lines.length, 10, 'as many as -c says')
    const right = lines.every(({ text, who, point }) => text.includes(':8080 ') && who === 'web@h1' && point === 'tun')
    t.ok(right, 'packets of that port, with the name of the client', result)
  })

  await t.test('filters by host, address and protocol', async (t) => {
    const of = async (traffic: () => Promise<unknown>, count: number, ...words: string[]) => {
      const lines = linesOf(await dump(net, 'h1', ['-c', String(count), ...words], traffic))
      t.equal(lines.length, count)
      return lines
    }
    const host = await of(curl, 10, 'host', 'h2')
    t.ok(
      host.every(({ who }) => who === 'web@h2' || who === 'host h2'),
      'by host',
      { host },
    )
    const at = await of(curl, 10, 'host', underlay)
    t.ok(
      at.every(({ point, text }) => point === 'wire' && text.includes(`${underlay}:`)),
      'by underlay address',
      { lines: at },
    )
    const both = () => net.run('h1', `ping -4 -c 1 -W 2 web.svc.internal; curl -sS4 -o /dev/null --max-time 5 ${URL}`)
    const icmp = await of(both, 4, '--point', 'tun', 'icmp', 'and', 'service', 'web')
    t.ok(
      icmp.every(({ text }) => / icmp .* echo (request|reply) id \d+ seq \d+/.test(text)),
      'by protocol',
      { icmp },
    )
  })

  await t.test('a capture file that tshark reads', async (t) => {
    const file = join(net.folder, 'capture.pcapng')
    const result = await dump(net, 'h1', ['-c', '40', '-w', file, 'service', 'web'], curl)
    t.equal(result.code, 0, result.err)
    t.match(result.err, /40 packets/)
    const fields = ['frame.comment', 'ip.proto', 'tcp.port', 'udp.dstport', 'frame.interface_name'].flatMap((f) => [
      '-e',
      f,
    ])
    const read = await net.run('h1', ['tshark', '-r', file, '-T', 'json', ...fields])
    const rows = z
      .array(z.object({ _source: tsharkRow }))
      .parse(JSON.parse(read.out))
      .map(({ _source }) => _source.layers)
    t.equal(rows.length, 40, read.err)
    t.ok(
      rows.every((row) => /service=web peer=h2 flow=[0-9a-f]{16}.* verdict=pass/.test(row['frame.comment']?.[0] ?? '')),
    )
    const at = (name: string) => rows.filter((row) => row['frame.interface_name']?.[0] === `caracal-${name}`)
    t.ok(
      at('tun').length > 0 && at('tun').every((row) => row['ip.proto']?.[0] === '6' && row['tcp.port']?.includes('80')),
    )
    t.ok(at('wire').length > 0 && at('wire').every((row) => row['ip.proto']?.[0] === '17'))
    t.equal(at('tun').length + at('wire').length, 40)
    const again = linesOf(await net.caracal('h1', 'dump', '-r', file, '-c', '5', 'port', '80'))
    t.equal(again.length, 5)
    t.ok(again.every(({ who }) => who === 'web@h2'))
  })

  await t.test('what is dropped, and why', async (t) => {
    const closed = () =>
      net.run('h1', ['curl', '-sS4', '-o', '/dev/null', '--max-time', '5', 'http://web.svc.internal:81/'])
    const refused = linesOf(await dump(net, 'h1', ['--point', 'drop', '-c', '1', 'port', '81'], closed))
    t.match(refused[0]?.text, / drop > web {2}tcp 198\.\S+ > 198\.\S+:81 \[S\] .* DROP refused$/)
    const both = linesOf(await dump(net, 'h1', ['-c', '2', 'tcp', 'and', 'port', '81', 'and', 'dropped'], closed))
    t.same(both.map(({ point, verdict }) => `${point} ${verdict}`).sort(), ['drop DROP refused', 'tun DROP refused'])
    const nobody = () => net.run('h1', ['curl', '-sS', '-o', '/dev/null', '--max-time', '5', 'http://198.18.255.254/'])
    const lost = linesOf(
      await dump(net, 'h1', ['-c', '1', '--point', 'drop', 'reason', 'not-dialled', 'and', 'tcp'], nobody),
    )
    t.match(lost[0]?.text, / drop > - {2}tcp 198\.\S+ > 198\.18\.255\.254:80 \[S\] .* DROP not-dialled$/)
  })

  await t.test('bad usage changes nothing', async (t) => {
    for (const words of [['port', 'eighty'], ['service'], ['--point', 'moon'], ['-c', '0'], ['reason', 'whim']]) {
      const { code, err, out } = await net.caracal('h1', 'dump', ...words)
      t.equal(code, 2, `dump ${words.join(' ')}`)
      t.match(err, /^caracal: .+\n$/)
      t.equal(out, '')
    }
  })
})
