import { BUFFER_MIN, DEFAULT_STATE, FLOWS, GIVE_UP_AFTER, WITHDRAW_AFTER } from './config.js'
import { DEFAULT_SOCKET } from './control/line.js'
import { BUFFER_BYTES } from './udp.js'
import { RANK_MAX } from '../lib/wire/constants.js'
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

aead:
  # Ciphers that this host offers: two hosts take AES-256-GCM when both offer it, and it is offered only where the processor has instructions for it.
  # chacha20-poly1305 always stays, so that any two hosts have one in common.
  offer: [aes-256-gcm, chacha20-poly1305]
  # What does AES-256-GCM: ipsec-mb (libipsec-mb 1.3, Debian's package libipsec-mb1, faster), openssl (Node's own), or auto: ipsec-mb where it is
  # installed and agrees with openssl when the daemon starts. \`caracal status\` says which it is.
  implementation: auto

tun:
  name: caracal0
  mtu: ${TUN_MTU}

# What the kernel does for many packets at once. What it does not support is done without; to switch more off is of use where a kernel or
# a driver does it wrong. \`caracal doctor\` says what is not in use, and what that costs.
offload:
  # Best that the TUN device is asked for: uso (TCP and UDP super-packets), tso (TCP super-packets), checksum or none.
  tun: uso
  # Packets of the TUN device come and go with a virtio_net_hdr. Without it there is no offload of the device.
  vnet-header: true
  # The UDP sockets send and receive many frames at once.
  gso: true
  gro: true
  # Bytes of each UDP socket's buffer to receive, and to send, ${BUFFER_MIN} or more. Root may go above the system's limits (net.core.rmem_max, net.core.wmem_max).
  buffers: ${BUFFER_BYTES}

# Who moves packets: a thread of its own (own), or the one that also serves the control socket and DNS (main), which saves some memory.
# Lanes are threads beside it that read, seal, open and write, each with a queue of the TUN device and a UDP port of its own: those after the first port of \`listen\`, which a firewall has to
# let through (what it does not goes by the first port). auto: half as many as there are processors, up to 8; with fewer than four, one, which needs no further thread and port.
loop:
  thread: own
  lanes: auto
  # Packets of open connections that come alone pass at once by native code. false: everything goes the long way, as while a dump is open.
  express: true
  # real-time: packets do not wait for other programs, whatever those do (the threads that move them run before all that is not real-time itself; needs root or CAP_SYS_NICE). The longest delays
  # become several times shorter, and bulk transfers and floods of small packets slower, as those programs get less of the processors.
  priority: normal

limits:
  # Flows at the same time, of this host's programs and to its services. Each takes about 200 bytes of memory, so ${Math.round((FLOWS * 200) / 1e6)} MB for all, which a daemon with a keeper takes when it starts.
  # A new flow beyond them is refused; those that live are never cut for one. One other host may have half of them.
  flows: ${FLOWS}

# A small process of its own, caracal-keeper, holds the TUN device and the UDP sockets while no daemon runs: one that was killed, is started again (\`caracal down --keep\`) or is
# upgraded (\`caracal up --replace\`) finds them as they were, packets wait in their queues meanwhile, and open connections go on. The table of flows lies in memory that outlives the daemon
# (a file in /dev/shm or another tmpfs). \`caracal down\` takes all of it back.
keeper:
  on: true
  # Seconds without a daemon: then programs of this host are not told of our name server any more, and then everything is taken back.
  withdraw-after: ${WITHDRAW_AFTER}
  give-up-after: ${GIVE_UP_AFTER}

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
  # Tried for every known host, besides where it says it is: ADDR:PORT.
  peers: []

# Exposed from the start (reloadable). Ports: PORT or PORT:LOCAL, one or a list. Health: none, tcp or http:/path. Self-certifying names
# (~…) other than the host's own take \`proof:\`, what \`caracal key proof\` printed for this host.
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

# What becomes of connections that programs of this host begin, by name (reloadable): \`caracal rules\` lists them, with the instances that are known.
# \`name\`: a service or a domain, with all names below it unless \`below: false\`; * is every name. \`action\`:
# - drop: refused at once, also where instances are known;
# - delay: with no instance known, held for up to 3 s while other hosts are asked;
# - resolver: with no instance known, this \`host\` is asked, which answers with what it knows, or with whom to ask instead.
# Of several, those of the most specific name decide. They and the name's instances are used by priority, the lowest first, a rule before an
# instance of the same priority. Default: 0 for drop, ${RANK_MAX} for the others. Resolvers of one priority share by weight.
# Who may reach what is the policy's business, above: a rule is this host's own, and hosts that do not have it know nothing of it.
rules: []
#  - { name: ads, action: drop }
#  - { name: lab, action: delay }
#  - { name: corp, action: resolver, host: h2 }
#  - { name: corp, action: resolver, host: h3, weight: 2 }

# debug, info, warn, error or silent (reloadable).
log: info

# Address of /metrics for Prometheus. Left out: none.
# metrics: 127.0.0.1:9474
`
}
