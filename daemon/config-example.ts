import { DEFAULT_STATE } from './config.js'
import { DEFAULT_SOCKET } from './control/client.js'
import { TUN_MTU, UDP_PORT } from '../lib/wire/constants.js'

/** A configuration in which every setting is explained and has its default, so that it changes nothing until it is edited. */
export function defaultConfigText(): string {
  return `# caracal: settings of the daemon. Each has its default; the command line and CARACAL_STATE and CARACAL_SOCKET go before this file.
# "reloadable": SIGHUP or \`caracal reload\` puts a change in force. All others need a restart.

# Keys, memberships and claimed addresses. One daemon a folder.
state: ${DEFAULT_STATE}

# Control socket, and who may use it besides root: everybody in this group may do all that the daemon can.
# Without \`group\`, group caracal where there is one.
socket: ${DEFAULT_SOCKET}
# group: caracal

# Name of this host in the network: one label. Default: the machine's name.
# name: h1

# UDP addresses on which other hosts reach us.
listen:
  - 0.0.0.0:${UDP_PORT}
  - '[::]:${UDP_PORT}'

tun:
  name: caracal0
  mtu: ${TUN_MTU}

# IPv4 addresses inside this host that stand for services and hosts. Choose another when it clashes with a network in use here.
pool: 198.18.0.0/15

# Names under it are answered by the daemon.
zone: svc.internal

# How programs of this host come to ask us: auto (systemd-resolved where it runs, else none), resolved, none,
# or file:PATH, which puts our address first in a resolv.conf and takes it out at the end.
dns: auto

discovery:
  # Find hosts of the same network on the LAN.
  mdns: true
  # Only on these interfaces; none named: on all.
  interfaces: []
  # Where to look for hosts besides those known: ADDR:PORT.
  peers: []

# Exposed from the start (reloadable). Ports: PORT or PORT:LOCAL, one or a list. Health: none, tcp or http:/path.
services: {}
#  web:
#    tcp: [80, 443:8443]
#    weight: 1
#    priority: 0
#    health: http:/ready

# Who may reach what (reloadable). Left out: every member may reach every service. Present: only what a rule allows.
# \`from\`: tags; \`to\`: services, with all names below them; \`ports\`: tcp, udp, icmp, tcp/80. A list left out or empty means all.
# policy:
#   - from: [staff]
#     to: [web, shop]
#     ports: [tcp/80, tcp/443]

# debug, info, warn, error or silent (reloadable).
log: info

# Address of /metrics for Prometheus. Left out: none.
# metrics: 127.0.0.1:9474
`
}
