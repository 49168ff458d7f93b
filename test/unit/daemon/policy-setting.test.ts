import { test } from 'tap'
import type { PolicySetting } from '../../../daemon/config.js'
import { policyOf } from '../../../daemon/policy-setting.js'
import { checkPolicy } from '../../../lib/service/policy.js'

const TCP = 6
const UDP = 17
const ICMP = 1

function allowed(settings: readonly PolicySetting[] | undefined) {
  const policy = policyOf(settings)
  return (tags: readonly string[], service: string | undefined, protocol: number, port: number) =>
    policy.rules.length === 0 ? policy.otherwise : checkPolicy(policy, { tags, service, protocol, port }).allowed
}

test('without the setting every member may reach everything', async (t) => {
  const may = allowed(undefined)
  t.ok(may([], 'web', TCP, 80))
  t.ok(may([], undefined, ICMP, 0))
})

test('a setting without rules allows nothing', async (t) => {
  const may = allowed([])
  t.notOk(may(['admin'], 'web', TCP, 80))
  t.notOk(may([], undefined, ICMP, 0))
})

test('what one rule allows is allowed, and nothing else', async (t) => {
  const may = allowed([
    { from: ['front'], to: ['shop'], ports: [{ protocol: 'tcp', port: 443 }] },
    { from: [], to: ['dns'], ports: [{ protocol: 'udp', port: undefined }] },
  ])
  t.ok(may(['front'], 'shop', TCP, 443))
  t.ok(may(['x', 'front'], 'api.shop', TCP, 443), 'names below it too')
  t.notOk(may(['front'], 'shop', TCP, 80), 'another port')
  t.notOk(may(['front'], 'shop', UDP, 443), 'another protocol')
  t.notOk(may(['back'], 'shop', TCP, 443), 'another tag')
  t.notOk(may(['front'], 'workshop', TCP, 443), 'another name that ends alike')
  for (const port of [1, 53, 65_535]) t.ok(may([], 'dns', UDP, port), 'every port of the protocol')
  t.notOk(may([], 'dns', TCP, 53))
})

test('empty lists mean all', async (t) => {
  const may = allowed([{ from: ['admin'], to: [], ports: [] }])
  t.ok(may(['admin'], 'web', TCP, 1))
  t.ok(may(['admin'], 'web', ICMP, 0))
  t.notOk(may([], 'web', TCP, 1))
})
