import { SERVICE_ID_LENGTH } from '../wire/constants.js'
import { fromHex, type ServiceId } from '../wire/ids.js'
import type { SavedNames } from './saved-names.js'

/** Small numbers for the services that flows refer to, so that a row can hold one. 0 stands for the host itself. */
export class ServiceRefs {
  readonly #ids: (ServiceId | undefined)[] = [undefined]
  readonly #bytes: Uint8Array[] = [new Uint8Array(SERVICE_ID_LENGTH)]
  readonly #numbers = new Map<ServiceId, number>()
  /** Numbers of a former process that no flow refers to any more. */
  readonly #gaps: number[] = []

  /** `saved`: where the numbers are kept for the next process. */
  constructor(readonly saved: SavedNames) {}

  number(service: ServiceId | undefined): number {
    if (service === undefined) return 0
    const known = this.#numbers.get(service)
    if (known !== undefined) return known
    const n = this.#gaps.pop() ?? this.#ids.length
    this.#put(n, service)
    this.saved.keep(n, service)
    return n
  }

  /** Gives the service the number that it had in a former process; in ascending order, before there are others. False: that cannot be. */
  restore(number: number, service: ServiceId): boolean {
    if (number < this.#ids.length || this.#numbers.has(service)) return false
    for (let gap = this.#ids.length; gap < number; gap++) {
      this.#ids.push(undefined)
      this.#gaps.push(gap)
    }
    this.#put(number, service)
    return true
  }

  /** The service's number, if a flow has ever referred to it. */
  find(service: ServiceId): number | undefined {
    return this.#numbers.get(service)
  }

  /** As it stands in an OPEN: zeros for the host itself. Not to be changed. */
  bytes(number: number): Uint8Array {
    return this.#bytes[number]!
  }

  service(number: number): ServiceId | undefined {
    return this.#ids[number]
  }

  #put(number: number, service: ServiceId): void {
    this.#ids[number] = service
    this.#bytes[number] = fromHex(service)
    this.#numbers.set(service, number)
  }
}
