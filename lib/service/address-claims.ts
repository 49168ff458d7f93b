import type { HostId } from '../wire/ids.js'
import type { AddressPlan, Span } from './address-plan.js'
import type { AddressClaim, ClaimRole } from './registration.js'

const ROLES: readonly ClaimRole[] = ['dialled', 'served', 'peer']

/**
 * Network-wide claims of IPv4 addresses. Every host sees the same claims and comes to the same result: oldest first, ties by ID then by index, a claim
 * holds when neither its ID nor its index has been given before. Claims of several hosts for the same ID and index count as one.
 */
export class AddressClaimBook {
  readonly #claims = new Map<HostId, readonly AddressClaim[]>()
  readonly #own = new Map<string, AddressClaim>()
  readonly #index: Record<ClaimRole, Map<string, number>> = { dialled: new Map(), served: new Map(), peer: new Map() }
  readonly #holder: Record<ClaimRole, Map<number, string>> = { dialled: new Map(), served: new Map(), peer: new Map() }

  constructor(
    readonly plan: AddressPlan,
    readonly self: HostId,
  ) {}

  /** What another host claims now, in place of what it did before. A host may claim a peer address for itself only. */
  set(host: HostId, claims: readonly AddressClaim[]): void {
    const valid = claims.filter((claim) => this.#inRange(claim) && (claim.role !== 'peer' || claim.id === host))
    if (valid.length === 0) this.#claims.delete(host)
    else this.#claims.set(host, valid)
  }

  /** This host's claims, to be published. */
  own(): AddressClaim[] {
    return [...this.#own.values()]
  }

  /** Claims again as before a restart; {@link resolve} afterwards. */
  restore(claim: AddressClaim): void {
    if (this.#inRange(claim)) this.#own.set(ownKey(claim.role, claim.id), claim)
  }

  /** Claims an address for the ID: the one that it has, or one that is free. `preferred`: where to begin. */
  claim(role: ClaimRole, id: string, preferred: number, wallNow: number): void {
    const key = ownKey(role, id)
    if (this.#own.has(key)) return
    const index = this.#index[role].get(id) ?? this.#free(role, preferred)
    if (index !== undefined) this.#own.set(key, { role, id, index, since: wallNow })
  }

  /** No longer claims an address for the ID; others may go on. */
  release(role: ClaimRole, id: string): void {
    this.#own.delete(ownKey(role, id))
  }

  /** Works out who has what. Own claims that lost are made anew; true: then own claims have changed and are to be published. */
  settle(wallNow: number): boolean {
    let changed = false
    this.resolve()
    for (const [key, claim] of [...this.#own]) {
      const { role, id, index } = claim
      const settled = this.#index[role].get(id)
      if (settled === index) continue
      changed = true
      const next = settled ?? this.#free(role, index)
      if (next === undefined) {
        this.#own.delete(key)
        continue
      }
      this.#own.set(key, { role, id, index: next, since: wallNow })
      if (settled === undefined) {
        this.#index[role].set(id, next)
        this.#holder[role].set(next, id)
      }
    }
    return changed
  }

  /** Index that the ID has; undefined: unsettled. */
  indexOf(role: ClaimRole, id: string): number | undefined {
    return this.#index[role].get(id)
  }
  /** ID that has the index. */
  holderOf(role: ClaimRole, index: number): string | undefined {
    return this.#holder[role].get(index)
  }
  settled(role: ClaimRole): IterableIterator<[string, number]> {
    return this.#index[role].entries()
  }

  /** Works out who has what; own claims stay as they are. */
  resolve(): void {
    const all: AddressClaim[] = [...this.#own.values()]
    for (const claims of this.#claims.values()) all.push(...claims)
    all.sort((a, b) => a.since - b.since || (a.id < b.id ? -1 : a.id > b.id ? 1 : a.index - b.index))
    for (const role of ROLES) {
      this.#index[role].clear()
      this.#holder[role].clear()
    }
    for (const { role, id, index } of all) {
      if (this.#index[role].has(id) || this.#holder[role].has(index)) continue
      this.#index[role].set(id, index)
      this.#holder[role].set(index, id)
    }
  }

  #inRange({ role, index }: AddressClaim): boolean {
    return index < spanSize(this.plan.claimed[role])
  }

  /** First free index at or after `from`, all round; the last address of the part (its broadcast address) is never given. */
  #free(role: ClaimRole, from: number): number | undefined {
    const size = spanSize(this.plan.claimed[role]) - 1
    const mine = new Set([...this.#own.values()].filter((claim) => claim.role === role).map((claim) => claim.index))
    for (let i = 0; i < size; i++) {
      const index = (from + i) % size
      if (index !== 0 && !this.#holder[role].has(index) && !mine.has(index)) return index
    }
    return undefined
  }
}

export function spanSize(span: Span): number {
  return span.end - span.start
}

function ownKey(role: ClaimRole, id: string): string {
  return `${role}/${id}`
}
