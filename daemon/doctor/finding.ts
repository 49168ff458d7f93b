// What a check finds, and how lists are told.

import type { DoctorCheck } from '../control/shapes.js'

const LISTED = 5

export function ok(name: string, detail: string): DoctorCheck {
  return { name, result: 'ok', detail, remedy: '' }
}

/** It works, but for what the detail says. */
export function warn(name: string, detail: string, remedy: string): DoctorCheck {
  return { name, result: 'warn', detail, remedy }
}

/** What caracal is for does not work. */
export function fail(name: string, detail: string, remedy: string): DoctorCheck {
  return { name, result: 'fail', detail, remedy }
}

/** The first few of a list, and how many more there are. */
export function listed(items: readonly string[], separator = '; '): string {
  const more = items.length - LISTED
  return items.slice(0, LISTED).join(separator) + (more > 0 ? `${separator}and ${more} more` : '')
}

/** `1 host`, `2 hosts`. */
export function several(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`
}

/** The program that brings something, as Debian and Fedora have it. */
export function installing(packageName: string): string {
  return `install it: sudo apt-get install ${packageName}, or sudo dnf install ${packageName}`
}
