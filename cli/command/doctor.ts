import type { Command } from 'commander'
import type { DoctorCheck } from '../../daemon/control/protocol.js'
import { CaracalError } from '../../daemon/errors.js'
import { withDaemon } from '../daemon.js'
import { Status } from '../exit.js'
import { withReading, type ReadingOptions } from '../option.js'
import { print, printJson } from '../output.js'
import type { Finish } from '../program.js'

export function addDoctor(program: Command, finish: Finish): void {
  withReading(program.command('doctor'))
    .description('Check what caracal needs and say what to do about what is missing. Exit status 1 when a check fails.')
    .action(async (options: ReadingOptions) => {
      const checks = await withDaemon(options, (client) => client.call('doctor', {})).then(
        (answer) => answer.checks,
        (error: unknown) => [withoutDaemon(error)],
      )
      if (options.json) printJson({ checks })
      else report(checks)
      finish(checks.some(({ result }) => result === 'fail') ? Status.couldNot : Status.done)
    })
}

/** A daemon that cannot be asked is a finding too. */
function withoutDaemon(error: unknown): DoctorCheck {
  if (!(error instanceof CaracalError)) throw error
  return { name: 'daemon', result: 'fail', detail: error.what, remedy: error.next ?? '' }
}

function report(checks: readonly DoctorCheck[]): void {
  const width = Math.max(0, ...checks.map(({ name }) => name.length))
  for (const { name, result, detail, remedy } of checks) {
    print(`${result.padEnd(4)}  ${name.padEnd(width)}  ${detail}`)
    if (result !== 'ok' && remedy !== '') print(`      ${''.padEnd(width)}  → ${remedy}`)
  }
}
