// Makes dist/daemon/thread/packets.js, what the packet thread runs: our own modules and zod, without zod's messages in fifty languages. Hundreds of files cost a start a tenth of a second,
// which is what a daemon's flows wait for when it was killed, and some megabytes for good. All else stays a package.
import { rollup } from '@rollup/wasm-node'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import ts from 'typescript'

/** V8 keeps the text of what it has loaded, with two bytes a character as soon as one of them needs two: those in comments go, the others are written as escapes. */
const oneByte = {
  name: 'one-byte',
  renderChunk: (code) => {
    const compilerOptions = { removeComments: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext }
    const bare = ts.transpileModule(code, { compilerOptions }).outputText
    const escape = (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
    return { code: bare.replace(/[\u0100-\uffff]/g, escape), map: null }
  },
}
const folder = new URL('../../dist/daemon/thread/', import.meta.url).pathname
const bundle = await rollup({
  input: { packets: `${folder}packet-main.js` },
  external: (name) => /^[a-z@]/.test(name) && !/^zod($|\/)/.test(name),
  plugins: [nodeResolve(), oneByte],
  treeshake: { moduleSideEffects: 'no-external' },
  onLog: (level, { code, message }) => {
    if (code === 'UNRESOLVED_IMPORT' || code === 'MISSING_EXPORT') throw new Error(message)
  },
})
await bundle.write({ dir: folder, chunkFileNames: 'packets-[name].js' })
await bundle.close()
