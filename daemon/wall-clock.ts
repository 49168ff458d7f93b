/** Seconds since the epoch. */
export const wallNow = (): number => Date.now() / 1000
