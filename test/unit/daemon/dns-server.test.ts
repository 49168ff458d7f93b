import { createSocket } from 'node:dgram'
import { connect, type Socket } from 'node:net'
import { decode, encode, type Answer, type DecodedPacket, type Packet } from 'dns-packet'
import { test, type Test } from 'tap'
import type { DnsAnswer, DnsResolver } from '../../../daemon/dns/dns-message.js'
import { DnsServer } from '../../../daemon/dns/dns-server.js'

const LOOPBACK = '127.0.0.1'
const none: DnsAnswer = { code: 'NOERROR', answers: [], authorities: [], authoritative: true }

/** `few`: one address; `many`: 60 (960 bytes and more); `huge`: 120; `broken` throws; anything else is foreign. */
const zone: DnsResolver = (name, type) => {
  const [label = ''] = name.toLowerCase().split('.')
  if (label === 'broken') throw new Error('the disk is full')
  if (label === 'missing') return { ...none, code: 'NXDOMAIN' }
  const count = { few: 1, many: 40, huge: 120 }[label]
  if (count === undefined) return { ...none, code: 'REFUSED', authoritative: false }
  if (type !== 'A') return none
  const answers: Answer[] = []
  for (let i = 0; i < count; i++) answers.push({ type: 'A', name, ttl: 30, data: `198.18.0.${i}` })
  return { ...none, answers }
}

async function serve(t: Test, resolve: DnsResolver = zone): Promise<{ server: DnsServer; port: number }> {
  const server = new DnsServer(resolve)
  t.teardown(() => server.close())
  return { server, port: await server.listen(LOOPBACK, 0) }
}

function query(name: string, more: Partial<Packet> = {}): Buffer {
  return encode({ type: 'query', id: 0x1234, flags: 0x100, questions: [{ type: 'A', name }], ...more })
}

/** OPT record behind a query; its size field. */
const offering = (message: Buffer, size: number) => {
  const copy = Buffer.from(message)
  copy.writeUInt16BE(size, copy.length - 8)
  return copy
}
const edns = (udpPayloadSize: number, ednsVersion = 0): Partial<Packet> => ({
  additionals: [
    { type: 'OPT', name: '.', udpPayloadSize, extendedRcode: 0, ednsVersion, flags: 0, flag_do: false, options: [] },
  ],
})

/** Sends datagrams in turn and returns the first reply that comes, which is to the last when those before are not answered. */
async function udp(port: number, ...messages: Buffer[]): Promise<Buffer> {
  const socket = createSocket('udp4')
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      socket.on('error', reject)
      socket.on('message', resolve)
      for (const message of messages) socket.send(message, port, LOOPBACK)
    })
  } finally {
    socket.close()
  }
}

const rcode = (reply: Buffer) => reply[3]! & 0x0f
const truncated = (reply: Buffer) => (reply[2]! & 0x02) !== 0
const optOf = (reply: DecodedPacket) => reply.additionals?.find((record) => record.type === 'OPT')

const framed = (message: Buffer) => {
  const prefix = Buffer.alloc(2)
  prefix.writeUInt16BE(message.length)
  return Buffer.concat([prefix, message])
}

/** A TCP connection that gives messages one by one; undefined: it was ended. */
class TcpAsker {
  readonly socket: Socket
  readonly #bytes: AsyncIterator<Buffer>
  #pending = Buffer.alloc(0)
  constructor(port: number) {
    this.socket = connect({ port, host: LOOPBACK, allowHalfOpen: true })
    const bytes: AsyncIterable<Buffer> = this.socket
    this.#bytes = bytes[Symbol.asyncIterator]()
  }
  async next(): Promise<Buffer | undefined> {
    while (this.#pending.length < 2 || this.#pending.length < 2 + this.#pending.readUInt16BE(0)) {
      const chunk = await this.#bytes.next().catch(() => undefined)
      if (chunk === undefined || chunk.done === true) return undefined
      this.#pending = Buffer.concat([this.#pending, chunk.value])
    }
    const end = 2 + this.#pending.readUInt16BE(0)
    const message = this.#pending.subarray(2, end)
    this.#pending = this.#pending.subarray(end)
    return message
  }
}

test('answers over UDP', async (t) => {
  const { port } = await serve(t)
  const bytes = await udp(port, query('FeW.svc.internal'))
  t.equal(bytes.readUInt16BE(2), 0x8500, 'a reply, authoritative, recursion desired as asked')
  const reply = decode(bytes)
  t.equal(reply.id, 0x1234)
  t.same(reply.questions, [{ name: 'FeW.svc.internal', type: 'A', class: 'IN' }], 'the question in its own case')
  t.match(reply.answers, [{ name: 'FeW.svc.internal', type: 'A', ttl: 30, data: '198.18.0.0' }])
  t.same(reply.additionals, [], 'no EDNS where none was asked')

  t.equal(rcode(await udp(port, query('missing.svc.internal'))), 3)
  const foreign = await udp(port, query('example.org'))
  t.equal(rcode(foreign), 5)
  t.equal(foreign[2]! & 0x04, 0, 'no authority for foreign names')
  t.equal(rcode(await udp(port, query('few', { questions: [{ type: 'A', name: 'few', class: 'CH' }] }))), 5, 'class CH')
})

test('a resolver that fails gives SERVFAIL with its question', async (t) => {
  const { port } = await serve(t)
  const reply = await udp(port, query('broken.svc.internal'))
  t.equal(rcode(reply), 2)
  // Without it programs take the reply for forged and wait.
  t.equal(decode(reply).questions?.[0]?.name, 'broken.svc.internal')
})

test('what cannot be read gets an error', async (t) => {
  const { port, server } = await serve(t)
  const good = query('few.svc.internal')
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(good)
    copy.writeUInt16BE(value, at)
    return copy
  }
  const formErr: [string, Buffer][] = [
    ['no question', query('few', { questions: [] })],
    [
      'two questions',
      query('few', {
        questions: [
          { type: 'A', name: 'few' },
          { type: 'A', name: 'many' },
        ],
      }),
    ],
    ['more questions than it has', changed(4, 9)],
    ['an answer in a query', query('few', { answers: [{ type: 'A', name: 'few', data: '1.2.3.4' }] })],
    ['cut short in the name', good.subarray(0, 18)],
    ['cut short before the class', good.subarray(0, good.length - 2)],
    ['two OPT records', query('few', { additionals: [...edns(512).additionals!, ...edns(512).additionals!] })],
    ['a compressed question', Buffer.concat([good.subarray(0, 12), Buffer.from([0xc0, 0x0c, 0, 1, 0, 1])])],
    ['a header alone', good.subarray(0, 12)],
    ['longer than any question', Buffer.concat([good, Buffer.alloc(5_000)])],
  ]
  for (const [what, message] of formErr) {
    const reply = await udp(port, message)
    t.equal(rcode(reply), 1, `${what}: FORMERR`)
    t.equal(reply.readUInt16BE(0), 0x1234, 'with the ID')
    t.equal(reply[2]! & 0x80, 0x80, 'a reply')
  }
  t.equal(server.counters.malformed, formErr.length)
  for (const opcode of [1, 2, 4, 5, 15])
    t.equal(rcode(await udp(port, changed(2, opcode << 11))), 4, `opcode ${opcode}: NOTIMP`)
})

test('silence for what is no query', async (t) => {
  const { port, server } = await serve(t)
  const reply = Buffer.from(query('few'))
  reply[2] = 0x80
  const last = query('few', { id: 7 })
  const answer = await udp(port, Buffer.alloc(0), Buffer.from([1]), Buffer.alloc(11), reply, last)
  t.equal(answer.readUInt16BE(0), 7, 'the first reply is to the query after them')
  t.equal(server.counters.malformed, 4)
})

test('EDNS: sizes and versions', async (t) => {
  const { port } = await serve(t)
  const plain = await udp(port, query('many.svc.internal'))
  t.ok(truncated(plain), 'without EDNS 512 bytes are the limit')
  t.ok(plain.length <= 512)
  t.same(decode(plain).answers, [], 'no half answers')
  t.equal(decode(plain).questions?.length, 1)
  t.notOk(truncated(await udp(port, query('few.svc.internal'))))

  const roomy = await udp(port, query('many', edns(4_096)))
  t.notOk(truncated(roomy))
  t.equal(decode(roomy).answers?.length, 40)
  t.match(optOf(decode(roomy)), { udpPayloadSize: 1_232, ednsVersion: 0, extendedRcode: 0 })
  const huge = await udp(port, query('huge', edns(65_535)))
  t.ok(truncated(huge), 'never more than 1232 bytes, whatever is offered')
  t.ok(optOf(decode(huge)), 'EDNS is kept')
  t.ok(truncated(await udp(port, offering(query('many', edns(512)), 0))), 'an offer below 512 counts as 512')
  t.notOk(truncated(await udp(port, offering(query('few', edns(512)), 0))))
  const odd = encode({ type: 'query', id: 1, flags: 0, questions: [{ type: 'A', name: 'few' }], ...edns(1_232) })
  // Option 11 with one byte, which no RFC allows: not ours to judge.
  const option = Buffer.concat([odd.subarray(0, odd.length - 2), Buffer.from([0, 5, 0, 11, 0, 1, 7])])
  t.equal(rcode(await udp(port, option)), 0, 'options do not matter')

  const later = decode(await udp(port, query('few', edns(1_232, 1))))
  t.equal(later.flags! & 0x0f, 0)
  t.match(optOf(later), { extendedRcode: 1, ednsVersion: 0 }, 'BADVERS')
  t.same(later.answers, [])
})

test('labels with odd bytes are not taken for other names', async (t) => {
  const asked: string[] = []
  const { port } = await serve(t, (name) => {
    asked.push(name)
    return { ...none, code: 'NXDOMAIN' }
  })
  const label = Buffer.from([7, ...Buffer.from('few.svc'), 2, 0xff, 0x20, 8, ...Buffer.from('internal'), 0])
  const question = Buffer.concat([label, Buffer.from([0xff, 0x41, 0, 1])])
  const reply = await udp(port, Buffer.concat([Buffer.from([0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), question]))
  t.same(asked, ['few\\046svc.\\255\\032.internal'])
  t.same(reply.subarray(12), question, 'the question comes back to the bit, unknown type and all')
})

test('several queries on one TCP connection, in pieces', async (t) => {
  const { port } = await serve(t)
  const asker = new TcpAsker(port)
  t.teardown(() => asker.socket.destroy())
  const names = ['few', 'missing', 'huge', 'example']
  const stream = Buffer.concat(names.map((name, id) => framed(query(name, { id }))))
  for (let at = 0; at < stream.length; at += 5) {
    await new Promise((resolve) => asker.socket.write(stream.subarray(at, at + 5), resolve))
  }
  for (const [id, expected] of [0, 3, 0, 5].entries()) {
    const reply = await asker.next()
    t.equal(reply?.readUInt16BE(0), id, `reply ${id} in order`)
    t.equal(reply && rcode(reply), expected)
    if (id === 2) t.equal(decode(reply!).answers?.length, 120, 'TCP has room')
  }
  asker.socket.write(framed(query('few', { id: 99 })))
  t.equal((await asker.next())?.readUInt16BE(0), 99, 'and more afterwards')
})

test('an asker that closes its side still gets its answers', async (t) => {
  const { port } = await serve(t, async (name, type) => {
    await new Promise((resolve) => setImmediate(resolve))
    return zone(name, type)
  })
  const asker = new TcpAsker(port)
  asker.socket.end(Buffer.concat([framed(query('few', { id: 1 })), framed(query('few', { id: 2 }))]))
  t.equal((await asker.next())?.readUInt16BE(0), 1)
  t.equal((await asker.next())?.readUInt16BE(0), 2)
  t.equal(await asker.next(), undefined, 'then the connection ends')
})

test('garbage on TCP ends that connection only', async (t) => {
  const { port } = await serve(t)
  const garbage = [
    Buffer.from([0, 0]),
    Buffer.from([0, 3, 1, 2, 3]),
    Buffer.alloc(70_000, 0xff),
    framed(Buffer.alloc(12, 0xff)),
  ]
  for (const bytes of garbage) {
    const asker = new TcpAsker(port)
    asker.socket.on('error', () => undefined)
    asker.socket.write(bytes)
    t.equal(await asker.next(), undefined)
    asker.socket.destroy()
  }
  const left = new TcpAsker(port)
  left.socket.write(framed(query('few')).subarray(0, 9))
  left.socket.resetAndDestroy()
  const asker = new TcpAsker(port)
  asker.socket.end(framed(query('few', { id: 5 })))
  t.equal((await asker.next())?.readUInt16BE(0), 5)
})

test('more queries at once than are worked on get SERVFAIL at once', async (t) => {
  let release: (answer: DnsAnswer) => void = () => undefined
  const answer = new Promise<DnsAnswer>((resolve) => (release = resolve))
  const { port, server } = await serve(t, () => answer)
  // Several, so that the replies fit their buffers.
  const sockets = [1, 2, 3, 4].map(() => createSocket('udp4'))
  t.teardown(() => sockets.forEach((socket) => socket.close()))
  const codes = new Map<number, number>()
  const sent = 300
  const done = new Promise<void>((resolve) => {
    const count = (reply: Buffer) => {
      codes.set(rcode(reply), (codes.get(rcode(reply)) ?? 0) + 1)
      if (decode(reply).questions?.[0]?.name !== 'few') t.fail('a reply without its question')
      if (codes.get(2) === sent - 256) release(none)
      if ([...codes.values()].reduce((a, b) => a + b, 0) === sent) resolve()
    }
    for (const socket of sockets) socket.on('message', count)
  })
  for (let id = 0; id < sent; id++) {
    const socket = sockets[id % sockets.length]!
    socket.send(query('few', { id }), port, LOOPBACK)
    // The server reads as they come, or its socket's buffer would run over.
    await new Promise((resolve) => setImmediate(resolve))
  }
  await done
  t.same([...codes].sort(), [
    [0, 256],
    [2, sent - 256],
  ])
  t.equal(server.counters.refusedLoad, sent - 256)
  t.equal(rcode(await udp(port, query('few'))), 0, 'and the place is free again')
})

test('a taken port is an error, and closing is safe in every state', async (t) => {
  const { port, server } = await serve(t)
  const other = new DnsServer(zone)
  await t.rejects(other.listen(LOOPBACK, port), { code: 'EADDRINUSE' })
  await other.close()
  await other.close()
  // An answer that is still being made when the server closes goes nowhere.
  let release: (answer: DnsAnswer) => void = () => undefined
  let asked: () => void = () => undefined
  const seen = new Promise<void>((resolve) => (asked = resolve))
  const slow = new DnsServer(() => {
    asked()
    return new Promise((resolve) => (release = resolve))
  })
  const slowPort = await slow.listen(LOOPBACK, 0)
  const socket = createSocket('udp4')
  socket.send(query('few'), slowPort, LOOPBACK)
  await seen
  await slow.close()
  release(none)
  await new Promise((resolve) => setImmediate(resolve))
  socket.close()
  t.equal(rcode(await udp(port, query('few'))), 0)
  await server.close()
  const again = new DnsServer(zone)
  t.equal(await again.listen(LOOPBACK, port), port, 'the port is free at once')
  await again.close()
})

test('both families', async (t) => {
  const server = new DnsServer(zone)
  t.teardown(() => server.close())
  const port = await server.listen('::1', 0)
  const socket = createSocket('udp6')
  t.teardown(() => socket.close())
  const reply = await new Promise<Buffer>((resolve) => {
    socket.on('message', resolve)
    socket.send(query('few'), port, '::1')
  })
  t.equal(rcode(reply), 0)
})
