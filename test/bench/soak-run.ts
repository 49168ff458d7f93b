import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { statusShape } from '../../daemon/control/shapes.js'
import { collect, type Lab } from '../../cli/lab/lab.js'
import type { Driven, DriveOptions } from './soak-end.js'

export interface SoakReport extends Driven {
  /** Resident bytes of the daemons, client's first. */
  readonly memory: { readonly start: readonly number[]; readonly end: readonly number[] }
  readonly drops: readonly Readonly<Record<string, number>>[]
}

const PORT = 9_100
export const SOAK_HOSTS = ['h1', 'h2'] as const
const end = fileURLToPath(new URL('soak-end.js', import.meta.url))

/** Everything at once between two hosts of a lab: streams, short connections and datagrams of both families. */
export async function soak(lab: Lab, options: Pick<DriveOptions, 'bytes' | 'seconds'>): Promise<SoakReport> {
  const status = async (host: string) => statusShape.parse(JSON.parse(await lab.caracal(host, 'status', '--json')))
  const resident = async (host: string) => {
    const text = readFileSync(`/proc/${(await status(host)).pid}/status`, 'utf8')
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1])
  }
  const both = <T>(of: (host: string) => Promise<T>) => Promise.all(SOAK_HOSTS.map(of))
  const server = lab.spawn('h2', [process.execPath, end, 'serve', String(PORT)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await new Promise<void>((resolve, reject) => {
      server.stdout?.once('data', () => resolve())
      server.once('exit', () => reject(new Error('the server has ended')))
    })
    await lab.caracal('h2', 'expose', 'soak', '--tcp', String(PORT), '--udp', String(PORT))
    while (!(await lab.caracal('h1', 'services', '--json')).includes('"up"'))
      await new Promise((resolve) => setTimeout(resolve, 100))
    const start = await both(resident)
    const zone = lab.host('h1').zone ?? 'svc.internal'
    const drive: DriveOptions = { ...options, name: `soak.${zone}`, port: PORT, streamBytes: 16_000_000 }
    const client = lab.spawn('h1', [process.execPath, end, 'drive', JSON.stringify(drive)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const { code, out, err } = await collect(client)
    const line = out.split('\n').find((one) => one.startsWith('driven '))
    if (code !== 0 || line === undefined) throw new Error(`the client ended with ${code}: ${err}`)
    const driven: Driven = JSON.parse(line.slice('driven '.length))
    const drops = (await both(status)).map((one) =>
      Object.fromEntries(Object.entries(one.drops).filter(([, count]) => count > 0)),
    )
    return { ...driven, memory: { start, end: await both(resident) }, drops }
  } finally {
    server.kill('SIGKILL')
  }
}
