#!/usr/bin/env python3
# syns.py - connections as a TUN sees them, without sockets: SYNs by the thousand, and what answers them.
# usage: syns.py send DEVICE SOURCE DESTINATION FIRST-PORT PORTS FROM COUNT RATE [ack]   prints one line of JSON: sent, answered, again, unread, seconds
#        syns.py answer DEVICE FIRST-PORT PORTS     prints `ready`; ends when its stdin does
# Connection number N has source port 1024 + N % 64000 and the destination port FIRST-PORT + N / 64000. `send` begins with number FROM, sends RATE a second and ends when all
# are answered, or when nothing has come for 2 s; with `ack` it acknowledges each answer, so that the connections are open. IPv4. The kernel must be kept from answering.
import json, select, socket, struct, sys, threading, time

SPAN = 64000
SYN, ACK = 2, 16
ETH_P_IP = 0x0800
SILENCE = 2.0
TICK = 0.001
# So many times the pace is gone at after a pause of the program itself.
CATCH_UP = 3
QUIET = 0.1


def packets(device):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
    s.bind((device, ETH_P_IP))
    return s


def folded(total):
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def words(data):
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def ip_header(source, destination, length):
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, 6, 0) + source + destination
    return head[:10] + struct.pack("!H", 0xFFFF ^ folded(words(head))) + head[12:]


def maker(source, destination, options):
    """Makes packets of (source port, destination port, number, acknowledged, flags)."""
    length = 20 + len(options)
    ip = ip_header(source, destination, 20 + length)
    constant = words(source + destination) + 6 + length + words(options) + 64000

    def make(sport, dport, seq, ack, flags):
        bits = length >> 2 << 12 | flags
        total = constant + sport + dport + (seq >> 16) + (seq & 0xFFFF) + (ack >> 16) + (ack & 0xFFFF) + bits
        return ip + struct.pack("!HHIIHHHH", sport, dport, seq, ack, bits, 64000, 0xFFFF ^ folded(total), 0) + options

    return make


MSS = struct.pack("!BBH", 2, 4, 1340)


def put(s, packet):
    try:
        s.send(packet)
    except OSError:  # the TUN's queue is full; it counts that
        pass


def send(device, source, destination, first_port, ports, begin, count, rate, acknowledge):
    s = packets(device)
    s.setblocking(False)
    ends = socket.inet_aton(source), socket.inet_aton(destination)
    syn, plain = maker(*ends, MSS), maker(*ends, b"")
    clock = time.perf_counter
    waiting = bytearray(b"\1" * count)
    sent = answered = again = 0
    last_port = first_port + ports
    burst = int(CATCH_UP * rate * TICK) + 1
    started = last = clock()
    while answered < count and (sent < count or clock() - last < SILENCE):
        due = min(count, int((clock() - started) * rate) + 1, sent + burst)
        while sent < due:
            n = begin + sent
            put(s, syn(1024 + n % SPAN, first_port + n // SPAN, n * 7919 & 0xFFFFFFFF, 0, SYN))
            sent += 1
            last = clock()
        try:
            while True:
                p = s.recv(2048)
                if p[9] != 6 or p[33] & (SYN | ACK) != SYN | ACK:
                    continue
                sport, dport, seq, ack = struct.unpack_from("!HHII", p, 20)
                if not first_port <= sport < last_port:
                    continue
                n = (sport - first_port) * SPAN + dport - 1024 - begin
                if not 0 <= n < count or ack != (begin + n) * 7919 + 1 & 0xFFFFFFFF:
                    continue
                last = clock()
                if waiting[n]:
                    answered += 1
                else:
                    again += 1
                waiting[n] = 0
                if acknowledge:
                    put(s, plain(dport, sport, ack, seq + 1 & 0xFFFFFFFF, ACK))
        except BlockingIOError:
            pass
        time.sleep(TICK)
    _, unread = struct.unpack("II", s.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
    print(json.dumps({"sent": sent, "answered": answered, "again": again, "unread": unread, "seconds": last - started}), flush=True)


def answer(device, first_port, ports):
    s = packets(device)
    # A daemon takes flows only to where something listens; nobody comes there.
    listening = [socket.create_server(("", first_port + i)) for i in range(ports)]
    last_port = first_port + ports
    makers = {}

    def run():
        s.setblocking(False)
        last = 0
        while True:
            try:
                while True:
                    p = s.recv(2048)
                    if p[9] != 6 or p[33] & (SYN | ACK) != SYN:
                        continue
                    sport, dport, seq = struct.unpack_from("!HHI", p, 20)
                    if not first_port <= dport < last_port:
                        continue
                    ends = p[16:20], p[12:16]
                    if ends not in makers:
                        makers[ends] = maker(*ends, MSS)
                    put(s, makers[ends](dport, sport, 1, seq + 1 & 0xFFFFFFFF, SYN | ACK))
                    last = time.monotonic()
            except BlockingIOError:
                pass
            except OSError:  # the device has gone
                return
            # Who waits in the socket is woken by whoever writes to the TUN, for each packet, in that one's processor time.
            if time.monotonic() - last < QUIET:
                time.sleep(TICK / 2)
            else:
                select.select([s], [], [])

    threading.Thread(target=run, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    del listening


mode, device, *rest = sys.argv[1:]
if mode == "answer":
    answer(device, *map(int, rest))
else:
    source, destination, *numbers = rest
    send(device, source, destination, *map(int, numbers[:5]), numbers[5:] == ["ack"])
