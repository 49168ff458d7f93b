import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import t from 'tap'
import { compiled, V8_FLAGS } from '../../../daemon/bundle/load.js'
import { builtFile } from '../../../daemon/our-files.js'

t.test('what processes run is there as V8 has compiled it, and taken as that', async (t) => {
  // As main.ts does.
  for (const flag of V8_FLAGS) setFlagsFromString(flag)
  const folder = builtFile('bundle')
  const files = readdirSync(folder).filter((name) => name.endsWith('.cjs'))
  for (const name of ['cli.cjs', 'packets.cjs', 'lane.cjs']) t.ok(files.includes(name), name)
  for (const name of files) t.equal(compiled(join(folder, name)).cachedDataRejected, false, name)
})

t.test('without it, and with anything else in its place, the file itself is compiled', async (t) => {
  const file = join(t.testdir(), 'some.cjs')
  writeFileSync(file, '(function (exports) { exports.answer = 6 * 7 })')
  const answer = () => {
    const exports: { answer?: number } = {}
    compiled(file).runInThisContext()(exports)
    return exports.answer
  }
  t.equal(answer(), 42)
  for (const cache of ['', 'no cache', 'x'.repeat(10_000)]) {
    writeFileSync(`${file}.cache`, cache)
    t.equal(answer(), 42)
  }
})
