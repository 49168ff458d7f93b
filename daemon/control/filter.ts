// The words that choose packets for a dump:
//
//   filter = term { or term }        term = factor { and factor }        factor = not factor | ( filter ) | word
//   word   = tcp | udp | icmp | in | out | dropped | port N[-M] | service NAME | host NAME|ADDRESS | flow HEX | frame KIND | reason REASON
//
// `&&`, `||` and `!` stand for and, or and not. The parser is total: any text gives a filter or an error with its column.

import ipaddr from 'ipaddr.js'
import { dropReasons } from '../../lib/wire/drop.js'
import { summarisePacket } from './packet.js'
import type { DumpPacket } from './protocol.js'

export type Filter = (event: DumpPacket) => boolean

export type FilterResult =
  | { readonly ok: true; readonly filter: Filter }
  | { readonly ok: false; readonly column: number; readonly message: string }

/** Nesting of parentheses and `not`. */
const DEPTH_MAX = 64
const DEFAULT_ZONE = '.svc.internal'

/** Understands a filter; empty text passes everything. Columns count from 1. */
export function parseFilter(text: string): FilterResult {
  const tokens = tokenise(text)
  if (tokens.length === 0) return { ok: true, filter: () => true }
  const parser = new Parser(tokens, text.length + 1)
  const filter = parser.expression(0)
  if (filter !== undefined && parser.failure === undefined) parser.end()
  if (parser.failure !== undefined) return { ok: false, ...parser.failure }
  return { ok: true, filter: filter ?? (() => true) }
}

interface Token {
  readonly text: string
  /** Lower case, for comparison. */
  readonly word: string
  readonly column: number
}

function tokenise(text: string): Token[] {
  const tokens: Token[] = []
  for (const match of text.matchAll(/[()!]|&&|\|\||[^\s()!&|]+|[&|]/g)) {
    const word = match[0].toLowerCase()
    const plain = word === '&&' ? 'and' : word === '||' ? 'or' : word === '!' ? 'not' : word
    tokens.push({ text: match[0], word: plain, column: match.index + 1 })
  }
  return tokens
}

const RESERVED = new Set(['and', 'or', 'not', '(', ')', '&', '|'])

class Parser {
  private at = 0
  failure: { readonly column: number; readonly message: string } | undefined

  constructor(
    private readonly tokens: readonly Token[],
    private readonly endColumn: number,
  ) {}

  /** Whatever is left is an error. */
  end(): void {
    const left = this.tokens[this.at]
    if (left === undefined) return
    this.fail(left, left.word === ')' ? '`)` without `(`' : `expected \`and\` or \`or\` before \`${left.text}\``)
  }

  expression(depth: number): Filter | undefined {
    let left = this.term(depth)
    while (left !== undefined && this.accept('or')) {
      const first = left
      const second = this.term(depth)
      left = second && ((event) => first(event) || second(event))
    }
    return left
  }

  private term(depth: number): Filter | undefined {
    let left = this.factor(depth)
    while (left !== undefined && this.accept('and')) {
      const first = left
      const second = this.factor(depth)
      left = second && ((event) => first(event) && second(event))
    }
    return left
  }

  private factor(depth: number): Filter | undefined {
    const token = this.tokens[this.at++]
    if (token === undefined) return this.fail(undefined, 'expected a word such as `tcp`, `port 80` or `service web`')
    if (depth > DEPTH_MAX) return this.fail(token, 'nested too deeply')
    if (token.word === 'not') {
      const inner = this.factor(depth + 1)
      return inner && ((event) => !inner(event))
    }
    if (token.word === '(') {
      const inner = this.expression(depth + 1)
      if (inner !== undefined && !this.accept(')')) return this.fail(this.tokens[this.at], 'expected `)`')
      return inner
    }
    return this.word(token)
  }

  private word(token: Token): Filter | undefined {
    switch (token.word) {
      case 'tcp':
      case 'udp':
      case 'icmp': {
        const protocol = token.word
        return (event) => event.protocol === protocol
      }
      case 'in':
      case 'out': {
        const direction = token.word
        return (event) => event.direction === direction
      }
      case 'dropped':
        return (event) => event.verdict !== 'pass'
      case 'port':
        return this.port(token)
      case 'service':
        return this.service(token)
      case 'host':
        return this.host(token)
      case 'flow':
        return this.flow(token)
      case 'frame': {
        const kind = this.argument(token, 'a kind of frame such as `data`')?.word
        return kind === undefined ? undefined : (event) => event.frame?.toLowerCase() === kind
      }
      case 'reason':
        return this.reason(token)
      default:
        return this.fail(token, `\`${token.text}\` is no word of a filter`)
    }
  }

  private port(token: Token): Filter | undefined {
    const argument = this.argument(token, 'a port number')
    if (argument === undefined) return undefined
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(argument.word)
    const low = Number(match?.[1] ?? -1)
    const high = Number(match?.[2] ?? low)
    if (low < 0 || high > 65_535 || low > high) {
      return this.fail(
        argument,
        `expected a port number or a range such as 8000-8010 after \`port\`, not \`${argument.text}\``,
      )
    }
    const within = (port: number | undefined) => port !== undefined && port >= low && port <= high
    return (event) => within(event.sourcePort) || within(event.destinationPort)
  }

  private service(token: Token): Filter | undefined {
    const argument = this.argument(token, 'a service name')
    if (argument === undefined) return undefined
    const word = argument.word.replace(/\.$/, '')
    const name = word.endsWith(DEFAULT_ZONE) ? word.slice(0, -DEFAULT_ZONE.length) : word
    return (event) => event.service === name
  }

  private host(token: Token): Filter | undefined {
    const argument = this.argument(token, 'a host name or an address')
    if (argument === undefined) return undefined
    const { word } = argument
    if (!ipaddr.isValid(word)) return (event) => event.peer?.toLowerCase() === word
    const address = ipaddr.parse(word).toString()
    return (event) => hasAddress(event, address)
  }

  private flow(token: Token): Filter | undefined {
    const argument = this.argument(token, 'a flow ID')
    if (argument === undefined) return undefined
    const { word } = argument
    if (!/^[0-9a-f]{1,16}$/.test(word)) {
      return this.fail(argument, `expected up to 16 hex digits after \`flow\`, not \`${argument.text}\``)
    }
    return (event) => event.flow?.startsWith(word) === true
  }

  private reason(token: Token): Filter | undefined {
    const argument = this.argument(token, 'a drop reason')
    if (argument === undefined) return undefined
    const reason = dropReasons.find((known) => known === argument.word)
    if (reason === undefined) return this.fail(argument, `\`${argument.text}\` is no drop reason`)
    return (event) => event.verdict === reason
  }

  private argument(token: Token, what: string): Token | undefined {
    const next = this.tokens[this.at]
    if (next === undefined || RESERVED.has(next.word))
      return this.fail(next, `expected ${what} after \`${token.text}\``)
    this.at++
    return next
  }

  private accept(word: string): boolean {
    if (this.tokens[this.at]?.word !== word) return false
    this.at++
    return true
  }

  /** The first failure stands. */
  private fail(token: Token | undefined, message: string): undefined {
    this.failure ??= { column: token?.column ?? this.endColumn, message }
    return undefined
  }
}

function hasAddress(event: DumpPacket, address: string): boolean {
  if (event.point === 'wire' || event.local !== undefined) {
    for (const locator of [event.local, event.remote]) {
      const text = /^\[?(.*?)\]?:\d+$/.exec(locator ?? '')?.[1]
      if (text !== undefined && ipaddr.isValid(text) && ipaddr.parse(text).toString() === address) return true
    }
    return false
  }
  const packet = summarisePacket(event.bytes)
  return packet !== undefined && (packet.source === address || packet.destination === address)
}
