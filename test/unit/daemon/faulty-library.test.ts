// A libipsec-mb of the known version that seals wrongly, as it would on a processor that it does not fit: found by the loader before the installed one, if there is one.
import { spawnSync } from 'node:child_process'
import { createCipheriv } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'tap'
import { z } from 'zod'

/** Both kinds of code that processors are given. The tag is never what it should be. */
const FAULTY = `
#include <cstdint>
#include <cstring>
using Bytes = const uint8_t*;
static void process(uint8_t* out, Bytes in, uint64_t length, uint8_t* tag, uint64_t tagLength) {
  std::memmove(out, in, length);
  std::memset(tag, 0, tagLength);
}
extern "C" {
const char* imb_get_version_str() { return "1.3.0"; }
#define VARIANT(name) \\
  void aes_gcm_pre_256_##name(const void*, void*) {} \\
  void aes_gcm_enc_256_##name(const void*, void*, uint8_t* out, Bytes in, uint64_t n, Bytes, Bytes, uint64_t, uint8_t* tag, uint64_t t) { process(out, in, n, tag, t); } \\
  void aes_gcm_dec_256_##name(const void*, void*, uint8_t* out, Bytes in, uint64_t n, Bytes, Bytes, uint64_t, uint8_t* tag, uint64_t t) { process(out, in, n, tag, t); }
VARIANT(avx_gen4)
VARIANT(vaes_avx512)
}`
const KEY = '11'.repeat(32)
const NONCE = '22'.repeat(12)
const TEXT = 'what is to be sealed'
/** What a daemon does at its start, and what `caracal status` says of it. */
const CHOOSE = `
const { chooseLibrary, codecAddon, NativeCodec, sealers } = await import(process.argv[1])
const addon = codecAddon()
const aeads = new NativeCodec(addon).aeads
const choice = chooseLibrary(addon, 'auto')
let refused = ''
try {
  addon.createCodec(new Int32Array(7), 'ipsec-mb')
} catch (error) {
  refused = error.code
}
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'))
const text = new TextEncoder().encode('${TEXT}')
const sealed = aeads.includes('aes-256-gcm')
  ? addon.aeadSeal('aes-256-gcm', bytes('${KEY}'), bytes('${NONCE}'), new Uint8Array(0), text, choice.library)
  : []
console.log(JSON.stringify({
  about: addon.ipsecMb(), choice, refused, sealers: sealers(aeads, choice), sealed: Buffer.from(sealed).toString('hex'),
}))`
const shape = z.object({
  about: z.object({ version: z.string(), problem: z.string(), failed: z.boolean() }),
  choice: z.object({ library: z.string(), title: z.string(), passedOver: z.string().optional(), failed: z.boolean() }),
  refused: z.string(),
  sealers: z.array(z.object({ aead: z.string(), by: z.string() })),
  sealed: z.string(),
})

test('a libipsec-mb that does not agree with OpenSSL is passed over, and that is said', async (t) => {
  const folder = t.testdir({ 'faulty.cc': FAULTY })
  const library = ['-shared', '-fPIC', '-o', join(folder, 'libIPSec_MB.so.1'), join(folder, 'faulty.cc')]
  const compiled = spawnSync(process.env['CXX'] ?? 'g++', library, { encoding: 'utf8' })
  t.equal(compiled.status, 0, compiled.stderr)
  const codec = new URL('../../../daemon/native-codec.js', import.meta.url).href
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', CHOOSE, codec], {
    env: { ...process.env, LD_LIBRARY_PATH: folder },
    encoding: 'utf8',
  })
  t.equal(child.status, 0, child.stderr)
  const { about, choice, refused, sealers, sealed } = shape.parse(JSON.parse(child.stdout))
  const openssl = `OpenSSL ${process.versions.openssl}`
  t.match(choice, { library: 'openssl', title: openssl, passedOver: about.problem, failed: about.failed })
  t.equal(refused, 'CARACAL_E_AEAD', 'nor can it be had by asking for it')
  for (const { aead, by } of sealers) t.equal(by, openssl, `${aead} in caracal status`)
  if (!sealers.some(({ aead }) => aead === 'aes-256-gcm')) return
  const cipher = createCipheriv('aes-256-gcm', Buffer.from(KEY, 'hex'), Buffer.from(NONCE, 'hex'))
  const right = Buffer.concat([cipher.update(TEXT), cipher.final(), cipher.getAuthTag()])
  t.equal(sealed, right.toString('hex'), 'what goes out is sealed rightly')
  // Where it would not be used anyhow it is not tried.
  if (about.version === '') return
  t.strictSame(about, {
    ...about,
    problem: 'libipsec-mb 1.3.0 did not agree with OpenSSL in its self-test',
    failed: true,
  })
})
