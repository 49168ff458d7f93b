import { networkPrefix } from '../service/service-id.js'
import type { ServiceTable } from '../service/service-table.js'
import type { NetworkId } from '../wire/ids.js'

/** Key of the rule that holds first packets until the directory is whole. */
const KEY = 'unsynced'

/** Until the directory is whole, a name that is not in it may still come: a DELAY rule for the whole network lets its first packets wait. */
export class SyncHold {
  /** Held packets are to be tried again: services have changed, or nothing more is to be waited for. */
  due = false
  #synced = false

  constructor(
    private readonly table: ServiceTable,
    private readonly network: NetworkId,
  ) {
    table.set(networkPrefix(network), KEY, { action: { kind: 'delay' }, priority: 65_535, weight: 0 })
  }

  /** `synced`: whether the directory is whole by now. */
  look(synced: boolean): void {
    if (this.#synced || !synced) return
    this.#synced = true
    this.table.delete(networkPrefix(this.network), KEY)
    this.due = true
  }
}
