import { getPriority, setPriority } from 'node:os'
import t from 'tap'
import { hurry } from '../../../daemon/haste.js'

t.test('a thread that hurries goes first, until it is done; one that goes first already stays as it is', async (t) => {
  const usual = getPriority()
  t.teardown(() => setPriority(0, usual))
  const calm = hurry()
  const allowed = getPriority() < usual
  t.equal(getPriority(), allowed ? -10 : usual, 'without the right to it nothing changes')
  calm()
  calm()
  t.equal(getPriority(), usual)
  if (!allowed) return
  setPriority(0, -15)
  const again = hurry()
  t.equal(getPriority(), -15)
  again()
  t.equal(getPriority(), -15)
})
