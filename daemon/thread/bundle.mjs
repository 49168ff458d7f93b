// Makes dist/daemon/thread/packets.js, what the packet thread runs: our own modules and zod, without zod's messages in fifty languages. Hundreds of files cost a start a tenth of a second,
// which is what a daemon's flows wait for when it was killed, and some megabytes for good. All else stays a package.
import { rollup } from '@rollup/wasm-node'
import { nodeResolve } from '@rollup/plugin-node-resolve'

const folder = new URL('../../dist/daemon/thread/', import.meta.url).pathname
const bundle = await rollup({
  input: { packets: `${folder}packet-main.js` },
  external: (name) => /^[a-z@]/.test(name) && !/^zod($|\/)/.test(name),
  plugins: [nodeResolve()],
  treeshake: { moduleSideEffects: 'no-external' },
  onLog: (level, { code, message }) => {
    if (code === 'UNRESOLVED_IMPORT' || code === 'MISSING_EXPORT') throw new Error(message)
  },
})
await bundle.write({ dir: folder, chunkFileNames: 'packets-[name].js' })
await bundle.close()
