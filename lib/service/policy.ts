import { z } from 'zod'
import { covers } from './ownership.js'
import { parseServiceName } from './service-id.js'

export interface PolicyRule {
  readonly allow: boolean
  /** Tags of the client's host; empty: every member. */
  readonly from: readonly string[]
  /** Services and domains, `*` for all, `host:*` for hosts themselves (echo). */
  readonly to: readonly string[]
  /** Empty: every port. */
  readonly ports: readonly PortRange[]
}
export interface PortRange {
  readonly protocol: 'tcp' | 'udp' | 'icmp'
  readonly from: number
  readonly to: number
}

/** The first rule that matches decides; without one, `otherwise`. */
export interface Policy {
  readonly rules: readonly PolicyRule[]
  readonly otherwise: boolean
}

export interface PolicyQuestion {
  /** Tags of the client's host. */
  readonly tags: readonly string[]
  /** Canonical name; undefined: the host itself, or {@link covered} says. */
  readonly service: string | undefined
  /** Of a service whose name is not known: whether it is, or is below, this name, as its ID tells. */
  readonly covered?: (name: string) => boolean
  /** IP protocol; 1 for echo of both families. */
  readonly protocol: number
  readonly port: number
}

/** Every member may reach every service. */
export const allowAll: Policy = { rules: [], otherwise: true }

const HOSTS = 'host:*'
const target = z
  .string()
  .refine(
    (text) => text === '*' || text === HOSTS || !('problem' in parseServiceName(text)),
    'must be a service name, "*" or "host:*"',
  )
  .transform((text) => text.toLowerCase())
const portText = z.string().transform((text, context): PortRange => {
  const match = /^(tcp|udp)(?:\/(\d{1,5})(?:-(\d{1,5}))?)?$|^icmp$/.exec(text)
  const from = match?.[2] === undefined ? 0 : Number(match[2])
  const to = match?.[3] === undefined ? (match?.[2] === undefined ? 65_535 : from) : Number(match[3])
  if (match === null || to > 65_535 || from > to) {
    context.addIssue({ code: 'custom', message: 'must be such as tcp, tcp/443, udp/5000-5010 or icmp' })
    return z.NEVER
  }
  return { protocol: match[1] === 'tcp' ? 'tcp' : match[1] === 'udp' ? 'udp' : 'icmp', from, to }
})
const shape = z.strictObject({
  default: z.enum(['allow', 'deny']).default('allow'),
  rules: z
    .array(
      z.strictObject({
        action: z.enum(['allow', 'deny']),
        from: z.array(z.string().min(1)).default([]),
        to: z.array(target).default(['*']),
        ports: z.array(portText).default([]),
      }),
    )
    .default([]),
})

/** A policy from plain configuration (`{default, rules: [{action, from, to, ports}]}`), or what is wrong, one line each with its place. */
export function parsePolicy(config: unknown): Policy | { readonly problems: readonly string[] } {
  const parsed = shape.safeParse(config ?? {})
  if (!parsed.success) {
    return {
      problems: parsed.error.issues.map(
        ({ path, message }) => `policy${path.map((p) => `.${String(p)}`).join('')}: ${message}`,
      ),
    }
  }
  const rules = parsed.data.rules.map(({ action, from, to, ports }) => ({ allow: action === 'allow', from, to, ports }))
  return { rules, otherwise: parsed.data.default === 'allow' }
}

/** Whether the policy allows it, and by which rule (its position; undefined: none matched). */
export function checkPolicy(
  policy: Policy,
  question: PolicyQuestion,
): { readonly allowed: boolean; readonly rule?: number } {
  for (let i = 0; i < policy.rules.length; i++) {
    const rule = policy.rules[i]!
    if (matches(rule, question)) return { allowed: rule.allow, rule: i }
  }
  return { allowed: policy.otherwise }
}

function matches(rule: PolicyRule, { tags, service, covered, protocol, port }: PolicyQuestion): boolean {
  if (rule.from.length > 0 && !rule.from.some((tag) => tags.includes(tag))) return false
  const reached = rule.to.some((to) => {
    if (to === '*') return true
    if (service !== undefined) return to !== HOSTS && covers(to, service)
    return covered === undefined ? to === HOSTS : to !== HOSTS && covered(to)
  })
  if (!reached) return false
  if (rule.ports.length === 0) return true
  const name = protocol === 6 ? 'tcp' : protocol === 17 ? 'udp' : 'icmp'
  return rule.ports.some(
    (range) => range.protocol === name && (name === 'icmp' || (port >= range.from && port <= range.to)),
  )
}
