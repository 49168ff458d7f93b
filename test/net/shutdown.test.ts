// A daemon that ends leaves nothing behind; one that was killed is no obstacle to the next.
import { test } from 'tap'
import { Fixture } from './fixture.js'

// Everything of the kernel that the daemon touches, in one text.
const snapshot = `
ip -o link | sed 's/^[0-9]*: //' | grep -v '^lo' | sort
ip -o addr | sed 's/^[0-9]*: //; s/valid_lft.*//' | sort
ip -4 route show table all | sort; ip -6 route show table all | sort
ip rule | sort; ip -6 rule | sort
nft list ruleset
cat /etc/resolv.conf
ss -H -lntu | sort
`

test('what a daemon leaves behind', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'], { daemons: false })
  const state = async (host: string) => (await net.run(host, snapshot)).out
  await net.until('the kernel has its link-local address', async () => !(await state('h1')).includes('tentative'))
  const before = await state('h1')
  await net.lab.startDaemon('h1', ['--create', 'net'])
  const token = (await net.caracal('h1', 'invite')).out.trimEnd().split('\n').at(-1)!
  await net.lab.startDaemon('h2', ['--join', token])
  await net.start('h2', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80:8080')).code, 0)

  /** An open TCP connection from h1 to h2 that prints how it ends. */
  const connection = () =>
    net.start(
      'h1',
      [
        process.execPath,
        '-e',
        `const s = require('node:net').connect(80, 'web.svc.internal', () => console.log('connected'))
         s.on('error', (e) => console.log('ended ' + e.code)).on('end', () => console.log('ended'))`,
      ],
      /connected/,
    )

  for (const way of ['caracal down', 'SIGINT', 'SIGTERM'] as const) {
    await t.test(way, async (t) => {
      await net.knows('h1', 'web', ['h2'])
      const client = await connection()
      let printed = ''
      client.stdout?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
      t.not(await state('h1'), before, 'the daemon changes the host while it runs')
      if (way === 'caracal down') t.equal((await net.caracal('h1', 'down')).code, 0)
      await net.lab.stopDaemon('h1', way === 'SIGINT' ? 'SIGINT' : 'SIGTERM')
      await net.until("the client's connection ends", () => /ended/.test(printed))
      t.equal(await state('h1'), before, 'nothing is left')
      await net.until("the server's connection ends too", async () => {
        return (await net.run('h2', 'ss -Htn state established sport = :8080')).out.trim() === ''
      })
      await net.lab.startDaemon('h1')
    })
  }

  await t.test('kill -9, then up', async (t) => {
    await net.lab.stopDaemon('h1', 'SIGKILL')
    await net.lab.startDaemon('h1')
    await net.knows('h1', 'web', ['h2'])
    t.equal((await net.run('h1', 'curl -sS -o /dev/null --max-time 5 http://web.svc.internal/')).code, 0)
    await net.lab.stopDaemon('h1')
    t.equal(await state('h1'), before, 'nothing is left after the next end')
  })
})
