// A LAN without a default route: discovery, and UDP services on wildcard addresses in both families.
import { test } from 'tap'
import { z } from 'zod'
import { Fixture } from './fixture.js'

const hostsShape = z.object({ hosts: z.array(z.object({ name: z.string(), state: z.string() })) })

const echo = (type: 'udp4' | 'udp6', port: number, name: string) => `
const s = require('node:dgram').createSocket({ type: '${type}', ipv6Only: ${type === 'udp6'} })
s.on('message', (m, from) => s.send('${name} ' + m, from.port, from.address))
s.bind(${port}, () => console.log('ready'))`

// Asks each name in turn from ONE socket (the same source port), and prints the answers.
const ask = `
const [family, port, ...names] = process.argv.slice(1)
const s = require('node:dgram').createSocket(family)
const answers = []
const connected = (i) => {
  if (i === names.length) return console.log(JSON.stringify(answers)), s.close()
  const timer = setTimeout(() => { answers.push('none'); s.removeAllListeners('message'); connected(i + 1) }, 3000)
  s.once('message', (m) => { clearTimeout(timer); answers.push(String(m)); connected(i + 1) })
  s.send('hello', Number(port), names[i])
}
s.bind(0, () => connected(0))`

test('a LAN without a default route', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2', 'h3'], { daemons: false, defaultRoute: false })
  await net.lab.startDaemon('h1', ['--create', 'lan'])
  const token = (await net.caracal('h1', 'invite', '--uses', '2')).out.trimEnd().split('\n').at(-1)!
  await net.lab.startDaemon('h2', ['--join', token])
  await net.lab.startDaemon('h3', ['--join', token])
  const up = async (host: string, other: string) => {
    const { hosts } = hostsShape.parse(JSON.parse((await net.caracal(host, 'hosts', '--json')).out))
    return hosts.some((h) => h.name === other && h.state === 'up')
  }

  await t.test('two UDP services on one host, servers on the wildcard address, both families', async (t) => {
    await net.start('h2', [process.execPath, '-e', echo('udp4', 9001, 'one')], /ready/)
    await net.start('h2', [process.execPath, '-e', echo('udp4', 9002, 'two')], /ready/)
    await net.start('h2', [process.execPath, '-e', echo('udp6', 9003, 'three')], /ready/)
    await net.start('h2', [process.execPath, '-e', echo('udp6', 9004, 'four')], /ready/)
    for (const [name, port] of [
      ['one', 9001],
      ['two', 9002],
      ['three', 9003],
      ['four', 9004],
    ] as const) {
      t.equal((await net.caracal('h2', 'expose', name, '--udp', `7:${port}`)).code, 0)
    }
    const names = ['one', 'two', 'three', 'four']
    for (const name of names) await net.knows('h1', name, ['h2'])
    const expected = names.map((name) => `${name} hello`)
    for (const family of ['udp4', 'udp6']) {
      for (const host of ['h1', 'h2']) {
        const { out, err } = await net.run(host, [
          process.execPath,
          '-e',
          ask,
          family,
          '7',
          ...names.map((n) => `${n}.svc.internal`),
        ])
        t.same(JSON.parse(out), expected, `${family} from ${host} ${err}`)
      }
    }
  })

  await t.test('hosts whose addresses have all changed find each other by discovery', async (t) => {
    for (const host of ['h1', 'h2', 'h3']) await net.lab.stopDaemon(host)
    for (const [i, host] of ['h1', 'h2', 'h3'].entries()) {
      net.lab.script(host, `ip addr flush dev eth0; ip addr add 10.88.0.${i + 1}/24 dev eth0`)
    }
    for (const host of ['h1', 'h2', 'h3']) await net.lab.startDaemon(host)
    await net.until('all hosts are up again', async () => {
      return (await up('h1', 'h2')) && (await up('h1', 'h3')) && (await up('h2', 'h3'))
    })
    await net.knows('h1', 'one', ['h2'])
    const { out } = await net.run('h1', [process.execPath, '-e', ask, 'udp4', '7', 'one.svc.internal'])
    t.same(JSON.parse(out), ['one hello'])
  })
})
