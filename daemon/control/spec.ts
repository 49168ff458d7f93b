// The few forms in which people write what they expose, the same on the command line and in the configuration. Every parser is total;
// undefined: not of that form.

import type { HealthSpec, PortSpec } from './protocol.js'

export const PORT_FORM = 'PORT or PORT:LOCAL, numbers from 1 to 65535'
export const HEALTH_FORM = 'none, tcp or http:/path'

export function parsePort(text: string): number | undefined {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : 0
  return value >= 1 && value <= 65_535 ? value : undefined
}

/** `80` or `80:8080`: as dialled, and the server's own. */
export function parsePortSpec(protocol: 'tcp' | 'udp', text: string): PortSpec | undefined {
  const [dialled = '', local = dialled, ...more] = text.split(':')
  const port = parsePort(dialled)
  const own = parsePort(local)
  return port === undefined || own === undefined || more.length > 0 ? undefined : { protocol, port, local: own }
}

/** The reverse of {@link parsePortSpec}, with the protocol: `80/tcp`, `80:8080/tcp`. */
export function formatPort(spec: {
  readonly protocol: string
  readonly port: number
  readonly local: number | null
}): string {
  const local = spec.local === null || spec.local === spec.port ? '' : `:${spec.local}`
  return `${spec.port}${local}/${spec.protocol}`
}

/** `none`, `tcp`, `http:/path`. */
export function parseHealth(text: string): HealthSpec | undefined {
  if (text === 'none' || text === 'tcp') return { kind: text }
  const path = /^http:(\/\S{0,1023})$/.exec(text)?.[1]
  return path === undefined ? undefined : { kind: 'http', path }
}
