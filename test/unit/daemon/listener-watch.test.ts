import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mock } from 'node:test'
import { test, type Test } from 'tap'
import { ListenerWatch } from '../../../daemon/listener-watch.js'
import { row, table } from './socket-tables.js'

function rig(t: Test) {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-watch-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const clock = { now: 1_000 }
  const listening = (name: string, ...rows: readonly string[]) => writeFileSync(join(folder, name), table(...rows))
  let changes = 0
  const watch = new ListenerWatch({ changed: () => changes++, now: () => clock.now, listenersFrom: folder })
  t.teardown(() => watch.stop())
  /** Changes within so many ms. */
  const during = (ms: number) => {
    changes = 0
    for (let i = 0; i < ms; i += 100) {
      clock.now += 100
      mock.timers.tick(100)
    }
    return changes
  }
  /** How long until a change is noticed, ms, to the next 100. */
  const noticed = () => {
    let ms = 0
    while (during(100) === 0 && ms < 60_000) ms += 100
    return ms + 100
  }
  return { watch, folder, listening, during, noticed }
}

test('what comes and goes is told, once; and the first look in any case', (t) => {
  const { watch, listening, during } = rig(t)
  listening('tcp', row('0.0.0.0', 80))
  t.equal(during(5_000), 0, 'nobody has asked')
  watch.busy(['tcp'], false)
  t.equal(during(5_000), 1, 'nobody knows what has happened since others looked')
  listening('tcp', row('0.0.0.0', 80), row('127.0.0.1', 81))
  t.equal(during(5_000), 1)
  listening('tcp', row('127.0.0.1', 81), row('0.0.0.0', 80))
  t.equal(during(5_000), 0, 'the same in another order')
  listening('tcp')
  t.equal(during(5_000), 1)
  t.end()
})

test('a server that is missing is waited for, however long it takes', (t) => {
  const { watch, listening, during, noticed } = rig(t)
  listening('tcp')
  watch.busy(['tcp'], true)
  during(60_000)
  listening('tcp', row('0.0.0.0', 80))
  t.ok(noticed() <= 200)
  watch.busy(['tcp'], false)
  during(11_000)
  listening('tcp')
  const quiet = noticed()
  t.ok(quiet > 200, `none is missing: ${quiet} ms`)
  t.end()
})

test('looks are closer for a while when something happens', (t) => {
  const { watch, listening, during, noticed } = rig(t)
  listening('tcp', row('0.0.0.0', 80))
  watch.busy(['tcp'], false)
  during(1_000)
  listening('tcp')
  t.ok(noticed() <= 200, 'a service that was just exposed')
  during(11_000)
  listening('tcp', row('0.0.0.0', 80))
  const quiet = noticed()
  t.ok(quiet > 200 && quiet <= 1_000, `${quiet} ms in quiet times`)
  listening('tcp')
  t.ok(noticed() <= 200, 'a server has come just now')
  during(11_000)
  during(1_000 - (quiet % 1_000) + 500)
  watch.busy(['tcp'], false)
  listening('tcp', row('0.0.0.0', 80))
  t.ok(noticed() <= 200, 'a client has come')
  t.end()
})

test('only what matters is looked at, and nothing when nothing does', (t) => {
  const { watch, listening, during } = rig(t)
  listening('tcp', row('0.0.0.0', 80))
  listening('udp', row('0.0.0.0', 53))
  watch.busy(['tcp'], false)
  during(1_000)
  listening('udp')
  t.equal(during(2_000), 0)
  watch.busy(['tcp', 'udp'], false)
  t.equal(during(2_000), 1, 'other protocols: nobody knows')
  listening('udp', row('0.0.0.0', 53))
  t.equal(during(2_000), 1)
  watch.busy(['tcp'], false)
  t.equal(during(2_000), 1, 'without those of UDP it is something else')
  watch.busy([], false)
  listening('tcp')
  t.equal(during(20_000), 0)
  watch.busy(['tcp'], false)
  t.equal(during(1_000), 1)
  watch.stop()
  listening('tcp', row('0.0.0.0', 80))
  t.equal(during(20_000), 0)
  t.end()
})

test('a table that cannot be read is looked at again', (t) => {
  const { watch, folder, listening, during } = rig(t)
  listening('tcp', row('0.0.0.0', 80))
  watch.busy(['tcp'], false)
  during(1_000)
  rmSync(join(folder, 'tcp'))
  writeFileSync(join(folder, 'tcp6'), '')
  during(1_000)
  listening('tcp', row('0.0.0.0', 80), row('0.0.0.0', 81))
  t.equal(during(1_000), 1)
  t.end()
})
