import type { Command } from 'commander'
import type { StatusResponse } from '../../daemon/control/shapes.js'
import { withDaemon } from '../daemon.js'
import { formatDuration } from '../duration.js'
import { withReading, type ReadingOptions } from '../option.js'
import { counted, formatTime, printJson, printPairs } from '../output.js'
import type { Finish } from '../program.js'

export function addStatus(program: Command, finish: Finish): void {
  withReading(program.command('status'))
    .description('Show the network, this host and what its daemon is doing.')
    .action(async (options: ReadingOptions) => {
      const status = await withDaemon(options, (client) => client.call('status', {}))
      if (options.json) {
        printJson(status)
        return finish()
      }
      const { network, host, addresses, tun, flows } = status
      const drops = Object.entries(status.drops).filter(([, n]) => n > 0)
      const both = (pair: { v4: string | null; v6: string | null }) =>
        [pair.v4, pair.v6].filter(Boolean).join('  ') || '-'
      printPairs([
        [
          'state',
          `${status.state}, version ${status.version}, pid ${status.pid}, up ${formatDuration(status.uptimeMs)}`,
        ],
        ['network', `${network.name}  ${network.id}`],
        ['host', `${host.name}  ${host.id}`],
        ['own name', host.ownName],
        ['tags', host.tags.join(' ') || '-'],
        [
          'membership',
          host.revoked === null
            ? `until ${formatTime(host.membershipExpiresAt)}${host.issuer ? ', may invite' : ''}`
            : `this host was revoked: ${host.revoked}`,
        ],
        ['zone', status.zone],
        ['self', both(addresses.self)],
        ['pool', `${addresses.pool}  ${addresses.prefix}`],
        ['dns', `${both(addresses.dns)}  ${status.dns.mode}${status.dns.detail ? `: ${status.dns.detail}` : ''}`],
        ['tun', `${tun.name}, MTU ${tun.mtu}, ${tun.up ? 'up' : 'down'}`],
        ['sealing', status.sealing.map(({ aead, by }) => `${aead} by ${by}`).join(', ') || '-'],
        ['listen', status.listen.join('  ') || '-'],
        ['lanes', [status.lanes.count, ...status.lanes.ports.map((port) => `port ${port}`)].join('  ')],
        ['express', status.express ? 'on' : 'off'],
        ['keeper', keeperText(status.keeper)],
        ['locators', status.locators.join('  ') || '-'],
        ['seen at', status.seenAt.join('  ') || '-'],
        ['sessions', `${status.sessions.up} up of ${status.sessions.known} hosts`],
        ['services', `${status.services.local} here, ${status.services.known} known`],
        ['flows', `${flows.open} of ${flows.capacity}: ${flows.tcp} TCP, ${flows.udp} UDP, ${flows.icmp} ICMP`],
        ['drops', drops.map(([reason, n]) => `${reason} ${n}`).join(', ') || 'none'],
      ])
      finish()
    })
}

function keeperText({ on, pid, descriptors, takeovers }: StatusResponse['keeper']): string {
  if (!on) return 'off: connections end with the daemon'
  if (pid === null) return 'none: connections end with the daemon; see caracal doctor'
  const times = takeovers === 0 ? '' : `, taken over ${counted(takeovers, 'time')}`
  return `pid ${pid} holds ${counted(descriptors, 'descriptor')}${times}`
}
