// A control server whose daemon is made of prepared answers, and the compiled command line run against it.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ControlServer, type ControlServerOptions } from '../../../daemon/control/server.js'
import type {
  ControlHandlers,
  FlowInfo,
  InstanceInfo,
  NameInfo,
  ServiceInfo,
  StatusResponse,
} from '../../../daemon/control/protocol.js'
import { CheckedRequests } from '../../../daemon/control/requests.js'
import { noLog, type Log } from '../../../daemon/log.js'

export const cliMain = fileURLToPath(new URL('../../../cli/main.js', import.meta.url))

const id = (digit: string) => digit.repeat(64)
const pair = { v4: '198.18.64.2', v6: 'fd00:1:2:d1a1::2' }

export const sampleStatus: StatusResponse = {
  state: 'ready',
  version: '0.1.0',
  pid: 1,
  uptimeMs: 61_000,
  network: { name: 'lab', id: id('1') },
  host: {
    name: 'h1',
    id: id('a'),
    tags: ['web'],
    membershipExpiresAt: 1_900_000_000,
    issuer: true,
    revoked: null,
    ownName: `~${'a'.repeat(52)}`,
  },
  zone: 'svc.internal',
  addresses: { self: pair, dns: pair, pool: '198.18.0.0/15', prefix: 'fd00:1:2::/48' },
  tun: { name: 'caracal0', mtu: 1420, up: true },
  listen: ['0.0.0.0:7474'],
  lanes: { count: 1, ports: [], framesOut: 0 },
  keeper: { on: true, pid: 77, descriptors: 3, takeovers: 1 },
  express: true,
  locators: ['10.0.0.1:7474'],
  seenAt: ['203.0.113.9:40001'],
  dns: { mode: 'none', detail: '' },
  sessions: { up: 1, known: 1 },
  services: { local: 1, known: 2 },
  flows: { open: 1, tcp: 1, udp: 0, icmp: 0, capacity: 1000 },
  counters: { tunPacketsIn: 5 },
  drops: { 'no-instance': 2, 'bad-tag': 0 },
  sealing: [{ aead: 'aes-256-gcm', by: 'libipsec-mb 1.3.0' }],
}

export const sampleInstance: InstanceInfo = {
  host: 'h2',
  hostId: id('b'),
  self: false,
  ports: [{ protocol: 'tcp', port: 80, local: null }],
  priority: 0,
  weight: 3,
  state: 'up',
  health: { kind: 'tcp', detail: '' },
  rttMs: 0.41,
  flows: 2,
}
const sampleService: ServiceInfo = {
  ...{ name: 'web', id: id('5'), dialled: pair, served: pair, movable: true },
  instances: [sampleInstance],
}

export const sampleFlow: FlowInfo = {
  id: '0011223344556677',
  protocol: 'tcp',
  role: 'client',
  client: 'h1',
  service: 'web',
  instance: 'h2',
  state: 'established',
  ageMs: 1500,
  idleMs: 10,
  bytesIn: 1_500_000,
  bytesOut: 400,
  packetsIn: 1000,
  packetsOut: 10,
  source: '198.18.0.1:40022',
  destination: '198.18.64.2:80',
  path: '10.0.0.2:7474',
  pathMs: 61_000,
}

const unruled = { rule: null, signer: null, tags: [], hosts: [], minPriority: null, maxWeight: null, serial: null }
export const sampleNames: NameInfo[] = [
  {
    name: 'pay',
    by: 'authority',
    rule: 'pay',
    signer: null,
    tags: ['bank'],
    hosts: ['h9'],
    minPriority: 5,
    maxWeight: 65_535,
    serial: 1_800_000_000_000,
    sinceAt: 1_800_000_000,
    ignored: [{ host: 'h3', hostId: id('c'), reason: 'not-owner', detail: 'the name belongs to tag bank' }],
  },
  { ...unruled, name: 'web', by: 'claim', signer: 'h1', sinceAt: 1_800_000_001, ignored: [] },
]

/** Every operation answers; `overrides` takes the place of some. */
export function fakeHandlers(overrides: Partial<ControlHandlers> = {}): ControlHandlers {
  return {
    status: async () => sampleStatus,
    invite: async ({ tags, uses }) => ({
      token: 'caracal-TOKEN',
      network: 'lab',
      tags,
      uses,
      expiresAt: 1_900_000_000,
    }),
    expose: async ({ name, ports }) => ({
      name,
      id: id('5'),
      domain: `${name}.svc.internal`,
      dialled: pair,
      ports,
      warnings: [],
    }),
    unexpose: async ({ name }) => ({ name, flows: 0 }),
    services: async () => ({ services: [sampleService], total: 1 }),
    servicePage: ({ limit }) => ({ services: [sampleService], next: undefined, left: limit - 1, total: 1 }),
    resolve: async () => ({
      name: 'web.svc.internal',
      kind: 'service',
      id: id('5'),
      addresses: pair,
      pinned: null,
      instances: [sampleInstance],
      obstacle: null,
    }),
    rules: async () => ({
      rules: [
        {
          name: 'web',
          prefix: id('5'),
          length: 256,
          action: 'instance',
          host: 'h2',
          hostId: id('b'),
          priority: 0,
          weight: 3,
          hits: 12,
          lastHitMs: 61_000,
          by: 'registration',
        },
        {
          name: 'corp and below',
          prefix: id('6').slice(0, 24),
          length: 96,
          action: 'delay',
          host: null,
          hostId: null,
          priority: 65_535,
          weight: 1,
          hits: 0,
          lastHitMs: null,
          by: 'settings',
        },
      ],
    }),
    hosts: async () => ({
      hosts: [
        {
          name: 'h1',
          id: id('a'),
          self: true,
          tags: [],
          state: 'self',
          locators: ['10.0.0.1:7474'],
          session: null,
          rttMs: null,
          membershipExpiresAt: null,
        },
      ],
    }),
    flows: async () => ({ flows: [sampleFlow], total: 1 }),
    flowPage: ({ limit }) => ({ flows: [sampleFlow], matched: 1, next: undefined, left: limit - 1, total: 1 }),
    paths: async () => ({
      paths: [
        {
          host: 'h2',
          hostId: id('b'),
          local: '10.0.0.1:7474',
          remote: '10.0.0.2:7474',
          state: 'proven',
          inUse: true,
          rttMs: 0.4,
          rttVarMs: 0.1,
          lossPercent: 0,
          mtu: 1500,
          lastHeardMs: 12,
          usedMs: 60_000,
          reason: 'established',
          changedMs: 60_000,
          changes: 1,
        },
      ],
    }),
    ping: async ({ target, sequence }) => ({
      target,
      kind: 'host',
      sequence,
      host: 'h2',
      local: '10.0.0.1:7474',
      remote: '10.0.0.2:7474',
      reason: 'established',
      rttMs: 0.412,
      detail: '',
    }),
    doctor: async () => ({ checks: [{ name: 'tun', result: 'ok', detail: 'caracal0 is up', remedy: '' }] }),
    own: async ({ name, tags, hosts, minPriority, maxWeight, free }) => ({
      ...{ name, free, tags, hosts, minPriority, maxWeight },
      by: 'authority',
      serial: 1_800_000_000_000,
      told: 2,
    }),
    names: async () => ({ names: sampleNames }),
    revoke: async ({ host }) => ({ name: host, id: id('b'), told: 1 }),
    reload: async () => ({ changed: ['log'], restart: ['pool'] }),
    down: async () => ({ pid: process.pid, flows: 1 }),
    handover: async () => ({ pid: process.pid, counters: { stamps: 1, sequences: 1 } }),
    dump: async (_request, _emit, signal) => untilAborted(signal),
    ...overrides,
  }
}

export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve())
  })
}

export interface FakeDaemon {
  readonly path: string
  readonly directory: string
  readonly server: ControlServer
  stop(): Promise<void>
}

/** Listens in a folder of its own; `stop` removes it. */
export async function startFake(
  overrides: Partial<ControlHandlers> = {},
  options: Partial<ControlServerOptions> = {},
  log: Log = noLog,
): Promise<FakeDaemon> {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-control-'))
  const path = join(directory, 's')
  const server = await ControlServer.start(
    { path, ...options },
    { requests: new CheckedRequests(fakeHandlers(overrides)), log },
  )
  const stop = async () => {
    await server.close(100)
    rmSync(directory, { recursive: true, force: true })
  }
  return { path, directory, server, stop }
}

export interface Finished {
  readonly status: number | null
  readonly out: string
  readonly err: string
  readonly bytes: Buffer
}

/** Runs `caracal` with these words. `onOutput` sees stdout as it comes and may signal the process. */
export function caracal(
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  onOutput?: (text: string, kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env['PATH'], HOME: '/nonexistent', TZ: 'UTC', ...environment }
    const child = spawn(process.execPath, [cliMain, ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    const chunks: Buffer[] = []
    let err = ''
    child.stdout.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      onOutput?.(chunk.toString(), (signal) => child.kill(signal))
    })
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
    child.on('error', reject)
    child.on('close', (status) => {
      const bytes = Buffer.concat(chunks)
      resolve({ status, out: bytes.toString(), err, bytes })
    })
  })
}
