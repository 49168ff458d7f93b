type Action = () => Promise<void> | void

/**
 * What is to be done at the end of a daemon, the last first. Of what it has made, some things are its process's own, and go with it however it ends; others would outlive it, and stay where another daemon is to
 * go on with them.
 */
export class Undo {
  readonly #actions: { readonly action: Action; readonly outlives: boolean }[] = []

  /** Gives back what belongs to this process. */
  add(action: Action): void {
    this.#actions.push({ action, outlives: false })
  }

  /** Takes back what outlives this process. */
  addOutliving(action: Action): void {
    this.#actions.push({ action, outlives: true })
  }

  /** Does it, once. `keep`: what outlives the process stays. What throws is told, and is no obstacle to the rest. */
  async run(keep: boolean, failed: (error: unknown) => void): Promise<void> {
    for (const { action, outlives } of this.#actions.splice(0).reverse()) {
      if (keep && outlives) continue
      try {
        await action()
      } catch (error) {
        failed(error)
      }
    }
  }
}
