import { SERVICE_ID_LENGTH } from '../wire/constants.js'
import { fromHex, type ServiceId } from '../wire/ids.js'

/** Small numbers for the services that flows refer to, so that a row can hold one. 0 stands for the host itself. */
export class ServiceRefs {
  readonly #ids: (ServiceId | undefined)[] = [undefined]
  readonly #bytes: Uint8Array[] = [new Uint8Array(SERVICE_ID_LENGTH)]
  readonly #numbers = new Map<ServiceId, number>()

  number(service: ServiceId | undefined): number {
    if (service === undefined) return 0
    let n = this.#numbers.get(service)
    if (n === undefined) {
      n = this.#ids.push(service) - 1
      this.#bytes.push(fromHex(service))
      this.#numbers.set(service, n)
    }
    return n
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
}
