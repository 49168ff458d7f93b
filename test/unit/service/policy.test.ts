import { test } from 'tap'
import { allowAll, checkPolicy, parsePolicy, type Policy, type PolicyQuestion } from '../../../lib/service/policy.js'

const question: PolicyQuestion = { tags: ['laptop'], service: 'api.shop', protocol: 6, port: 443 }

function parsed(config: unknown): Policy {
  const policy = parsePolicy(config)
  if ('problems' in policy) throw new Error(policy.problems.join('\n'))
  return policy
}

test('without a policy every member may reach everything', async (t) => {
  t.strictSame(parsed(undefined), allowAll)
  t.strictSame(checkPolicy(allowAll, question), { allowed: true })
})

test('the first rule that matches decides', async (t) => {
  const policy = parsed({
    default: 'deny',
    rules: [
      { action: 'deny', from: ['guest'] },
      { action: 'allow', from: ['laptop', 'phone'], to: ['Shop'], ports: ['tcp/443', 'udp/5000-5010', 'icmp'] },
      { action: 'allow', to: ['host:*'] },
    ],
  })
  t.strictSame(checkPolicy(policy, question), { allowed: true, rule: 1 })
  t.strictSame(checkPolicy(policy, { ...question, tags: ['guest', 'laptop'] }), { allowed: false, rule: 0 })
  t.strictSame(checkPolicy(policy, { ...question, port: 80 }), { allowed: false })
  t.strictSame(checkPolicy(policy, { ...question, service: 'workshop' }), { allowed: false })
  t.ok(checkPolicy(policy, { ...question, protocol: 17, port: 5010 }).allowed)
  t.notOk(checkPolicy(policy, { ...question, protocol: 17, port: 443 }).allowed)
  t.ok(checkPolicy(policy, { ...question, protocol: 1, port: 0 }).allowed)
  t.strictSame(checkPolicy(policy, { ...question, service: undefined, tags: [], protocol: 1 }), {
    allowed: true,
    rule: 2,
  })
})

test('what is wrong is named with its place', async (t) => {
  const problems = (config: unknown): readonly string[] => {
    const policy = parsePolicy(config)
    return 'problems' in policy ? policy.problems : []
  }
  t.match(
    problems({ rules: [{ action: 'allow', ports: ['tcp/99999'] }] })[0],
    /^policy\.rules\.0\.ports\.0: must be such as/,
  )
  t.match(
    problems({ rules: [{ action: 'allow', to: ['a..b'] }] })[0],
    /^policy\.rules\.0\.to\.0: must be a service name/,
  )
  t.equal(problems({ default: 'maybe' }).length, 1)
  t.equal(problems({ rule: [] }).length, 1)
})
