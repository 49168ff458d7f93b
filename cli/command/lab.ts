import { constants } from 'node:os'
import type { Command } from 'commander'
import { CaracalError, messageOf } from '../../daemon/errors.js'
import { wholeNumber } from '../option.js'
import { counted, print } from '../output.js'
import type { Finish } from '../program.js'

/** Most hosts of a lab. */
const HOSTS_MAX = 64

export function addLab(program: Command, finish: Finish): void {
  const lab = program
    .command('lab')
    .description(
      'Hosts of your own on this machine: network namespaces on a virtual switch, each with its own daemon. Needs no root.',
    )
    .enablePositionalOptions()
  lab
    .command('up')
    .argument('<n>', 'number of hosts: h1, h2…', wholeNumber(1, HOSTS_MAX))
    .description('Build the lab.')
    .action(async (count: number) => {
      const { Lab, labDirectory } = await import('../lab/lab.js')
      const names = Array.from({ length: count }, (_, i) => `h${i + 1}`)
      await Lab.up(names, { directory: labDirectory(), progress: print })
      print(`${counted(count, 'host')} up: caracal lab exec h1 -- caracal hosts`)
      finish()
    })
  lab
    .command('exec')
    .argument('<host>', 'such as h1')
    .argument('<command...>', 'program and its arguments, after --')
    .passThroughOptions()
    .description('Run a program on a host of the lab. Exit status is that of the program.')
    .action(async (host: string, command: string[]) => {
      finish(await execute(await openLab(), host, command))
    })
  lab
    .command('down')
    .description('Take the lab down.')
    .action(async () => {
      await (await openLab()).down()
      print('the lab is down')
      finish()
    })
}

type Lab = import('../lab/lab.js').Lab

async function openLab(): Promise<Lab> {
  const { Lab, labDirectory } = await import('../lab/lab.js')
  const lab = Lab.find(labDirectory())
  if (lab !== undefined) return lab
  throw new CaracalError('CARACAL_E_LAB', 'no lab is up', 'build one with `caracal lab up 3`')
}

function execute(lab: Lab, host: string, command: readonly string[]): Promise<number> {
  const child = lab.spawn(host, command, { stdio: 'inherit' })
  // the terminal tells both of us; the program decides
  const ignore = () => undefined
  process.on('SIGINT', ignore)
  return new Promise((resolve, reject) => {
    child.once('error', (error) =>
      reject(new CaracalError('CARACAL_E_LAB', messageOf(error), 'is the program installed?')),
    )
    child.once('close', (code, signal) => {
      process.off('SIGINT', ignore)
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]))
    })
  })
}
