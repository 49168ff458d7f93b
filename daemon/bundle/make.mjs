// Makes dist/bundle: what processes and threads run, as few files, each with what V8 has compiled of it (FILE.cache). Our own modules and those packages are in them that are JavaScript alone; hundreds of files,
// read and compiled at each start, would cost a command a quarter of a second, and a daemon twice that, for which its flows wait when it was killed.
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import commonjs from '@rollup/plugin-commonjs'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import { rollup } from '@rollup/wasm-node'
import { minify } from 'terser'

const dist = new URL('../../dist/', import.meta.url).pathname
const folder = `${dist}bundle/`

/** What is started by itself, each with its own files: a thread loads nothing that only another one needs. */
const entries = {
  cli: 'cli/run.js',
  packets: 'daemon/thread/packet-main.js',
  lane: 'daemon/lanes/lane-main.js',
}
/** Stays a package: what it loads is not JavaScript. */
const apart = 'node-gyp-build'

/** Text costs a start the time to read it, and V8 keeps it, with two bytes a character as soon as one of them needs two. Names stay: they are what the stack of an error tells. */
const short = {
  name: 'short',
  renderChunk: async (text) => {
    const { code } = await minify(text, {
      compress: false,
      mangle: false,
      format: { ascii_only: true, comments: false, max_line_len: 160 },
    })
    return { code, map: null }
  },
}
const json = { name: 'json', transform: (code, id) => (id.endsWith('.json') ? `export default ${code}` : null) }

async function write(name, file) {
  const bundle = await rollup({
    input: { [name]: dist + file },
    external: (id) => id.startsWith('node:') || id === apart,
    plugins: [
      json,
      nodeResolve({ exportConditions: ['node'], preferBuiltins: true }),
      commonjs({ ignoreDynamicRequires: true }),
      short,
    ],
    treeshake: { moduleSideEffects: 'no-external' },
    onLog: (level, { code, message }) => {
      if (code === 'UNRESOLVED_IMPORT' || code === 'MISSING_EXPORT') throw new Error(message)
    },
  })
  await bundle.write({
    dir: folder,
    format: 'cjs',
    entryFileNames: '[name].cjs',
    chunkFileNames: `${name}-[name].cjs`,
    dynamicImportInCjs: false,
    banner: '(function (exports, require, module, __filename, __dirname) {',
    footer: '})',
  })
  await bundle.close()
}

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
await Promise.all(Object.entries(entries).map(([name, file]) => write(name, file)))
const { compiled, V8_FLAGS } = await import('../../dist/daemon/bundle/load.js')
for (const flag of V8_FLAGS) setFlagsFromString(flag)
for (const name of readdirSync(folder)) {
  // Functions too, not just when they are first called.
  setFlagsFromString('--no-lazy')
  const script = compiled(folder + name)
  setFlagsFromString('--lazy')
  writeFileSync(`${folder}${name}.cache`, script.createCachedData())
}
