// Undo steps of an ADD that has not succeeded yet, run newest first when the scope ends without `commit`.
// Used by plugins with `using`, declared last so that sockets and namespaces are still open when it runs.

export class Rollback implements Disposable {
  readonly #log: (line: string) => void;
  #steps: { readonly what: string; readonly undo: () => void }[] = [];

  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /** Arms one undo step; `what` completes the sentence "Cannot …", such as `release the leases`. */
  add(what: string, undo: () => void): void {
    this.#steps.push({ what, undo });
  }

  /** Everything succeeded: nothing will be undone. */
  commit(): void {
    this.#steps = [];
  }

  /**
   * Undoes what is armed, newest first. Never throws, so that the error which ended the scope is the one
   * reported: a step that fails is logged, and the next one runs all the same.
   */
  [Symbol.dispose](): void {
    for (const { what, undo } of this.#steps.splice(0).reverse()) {
      try {
        undo();
      } catch (error) {
        this.#log(
          `Cannot ${what} after a failure: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
  }
}
