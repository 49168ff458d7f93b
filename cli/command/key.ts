import type { Command } from 'commander'
import { CaracalError } from '../../daemon/errors.js'
import { loadPrimitives } from '../../daemon/node-primitives.js'
import { OwnerKey } from '../../lib/crypto/owner.js'
import { formatProof, proveName } from '../../lib/service/name-proof.js'
import { keyName, serviceIdOf } from '../../lib/service/service-id.js'
import { hostId, networkId, type HostId, type NetworkId } from '../../lib/wire/ids.js'
import { withDaemon } from '../daemon.js'
import { readKeyFile, writeKeyFile } from '../key-file.js'
import { givenName, withReading, type ReadingOptions } from '../option.js'
import { print, printJson } from '../output.js'
import type { Finish } from '../program.js'

interface ProofOptions extends ReadingOptions {
  readonly host: string
  readonly network?: string
}

const DEFAULT_FILE = 'caracal.key'
const ID = /^[0-9a-f]{64}$/i

export function addKey(program: Command, finish: Finish): void {
  const key = program
    .command('key')
    .description('Keys of self-certifying names: only who holds the key says which hosts may register its name.')
  key
    .command('new')
    .argument('[file]', `file to make, readable by its owner only (default: ${DEFAULT_FILE})`)
    .description('Make a key. The name is the last line of the output.')
    .action(async (file: string = DEFAULT_FILE) => {
      const primitives = await loadPrimitives()
      const made = OwnerKey.generate(primitives)
      await writeKeyFile(file, made, primitives)
      print(`the key is in ${file}: keep it secret, and a copy of it safe`)
      print(keyName(made.publicKey).text)
      finish()
    })
  key
    .command('name')
    .argument('<file>', 'file of the key')
    .description("Print the key's name.")
    .action(async (file: string) => {
      print(keyName((await readKeyFile(file, await loadPrimitives())).publicKey).text)
      finish()
    })
  withReading(key.command('proof'))
    .argument('<file>', 'file of the key')
    .requiredOption('--host <host>', 'host that is to register the name, by name or ID', givenName)
    .option('--network <id>', 'ID of the network, where no daemon runs; --host is an ID then')
    .description(
      "Let a host register the key's name: what is printed in the last line is for `caracal expose NAME --proof` there.",
    )
    .action(async (file: string, options: ProofOptions) => {
      const primitives = await loadPrimitives()
      const owner = await readKeyFile(file, primitives)
      const { network, host, shown } = options.network === undefined ? await asked(options) : offline(options)
      const name = keyName(owner.publicKey)
      const service = serviceIdOf(name, network, primitives)
      const proof = formatProof(proveName(owner, service, host))
      if (options.json) printJson({ name: name.text, network, service, host: shown, hostId: host, proof })
      else {
        print(`lets ${shown} register ${name.text}`)
        print(proof)
      }
      finish()
    })
}

interface Where {
  readonly network: NetworkId
  readonly host: HostId
  /** For people. */
  readonly shown: string
}

async function asked(options: ProofOptions): Promise<Where> {
  const { status, hosts } = await withDaemon(options, async (client) => ({
    status: await client.call('status', {}),
    hosts: (await client.call('hosts', {})).hosts,
  }))
  const network = networkId(status.network.id)
  const text = options.host.toLowerCase()
  const found =
    hosts.find(({ name, state }) => name === text && state !== 'revoked') ?? hosts.find(({ id }) => id === text)
  if (found !== undefined) return { network, host: hostId(found.id), shown: found.name }
  // One that has not joined yet may be given its proof before.
  if (ID.test(text)) return { network, host: hostId(text), shown: `the host ${text.slice(0, 12)}` }
  throw new CaracalError('CARACAL_E_NO_SUCH_HOST', `no host is called ${options.host}`, 'see `caracal hosts`')
}

function offline({ network = '', host }: ProofOptions): Where {
  if (!ID.test(network))
    throw new CaracalError(
      'CARACAL_E_USAGE',
      '--network is no ID of a network',
      'give the 64 digits of `caracal status`',
    )
  if (!ID.test(host))
    throw new CaracalError(
      'CARACAL_E_USAGE',
      'with --network, --host is an ID',
      'give the 64 digits of `caracal status`',
    )
  const id = hostId(host)
  return { network: networkId(network), host: id, shown: `the host ${id.slice(0, 12)}` }
}
