import type { Express } from '../lib/host/express.js'
import type { DataPath } from '../lib/host/data-path.js'
import { native } from './native.js'
import type { NativeCodec } from './native-codec.js'
import { monotonicNow } from './packet-loop.js'
import type { NativeTun } from './tun.js'
import { NativeUdp } from './udp.js'
import type { Underlay } from './underlay.js'

/**
 * Lets packets that come alone pass by native code on the devices' way to their readers: see daemon/native/express.h. From construction to `close`; devices that close before are left out.
 */
export class NativeExpress {
  readonly #native = native()
  readonly #handle
  #open = true

  /**
   * @param due called from the event loop when something has passed, 1 s later at most, or when a lively peer has fallen silent: what the host then does at any time-out
   */
  constructor(
    private readonly components: {
      readonly host: { readonly express: Express; readonly dataPath: Pick<DataPath, 'tunIn' | 'wireIn'> }
      readonly codec: NativeCodec
      readonly tun: NativeTun
      readonly underlay: Underlay
      readonly due: () => void
    },
  ) {
    const { host, codec, tun, underlay, due } = components
    this.#handle = this.#native.expressOpen(codec.share(), host.express.memory, monotonicNow())
    this.#native.watch(this.#handle, due)
    tun.express(this.#handle, host.dataPath.tunIn)
    for (const socket of underlay.sockets)
      if (socket instanceof NativeUdp) socket.express(this.#handle, host.dataPath.wireIn)
    host.express.use(true, monotonicNow(), () => this.#native.expressWatch(this.#handle))
  }

  /** Closing twice is allowed. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.components.host.express.use(false, monotonicNow())
    this.#native.close(this.#handle)
  }
}
