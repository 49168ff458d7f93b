/** The time of the input that is being worked on, ms; for what is called back without it. */
export class HostClock {
  now = 0
}
