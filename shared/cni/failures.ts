// Gathers what goes wrong while as much as possible is done, and throws once at the end.
// Used by DEL and GC, where one failing step must not keep the others from cleaning up.
import { CniError, toCniError } from './error.ts';

export class Failures {
  readonly #failures: { readonly what: string; readonly error: unknown }[] = [];

  /**
   * Runs the step and gives what it gives; its error is remembered, and then that is undefined. `what` completes the
   * sentence "Cannot …", such as `delete the link`.
   */
  attempt<T>(what: string, step: () => T): T | undefined {
    try {
      return step();
    } catch (error) {
      this.#failures.push({ what, error });
      return undefined;
    }
  }

  /** Whether everything has succeeded so far. */
  get isEmpty(): boolean {
    return this.#failures.length === 0;
  }

  /**
   * Throws what was gathered, if anything. A single error is thrown as it is; of several the first gives code
   * and message, with their number, and the details name each of them.
   */
  throwIfAny(): void {
    const [first, ...others] = this.#failures;
    if (first === undefined) return;
    if (others.length === 0) throw first.error;
    const { code, message } = toCniError(first.error);
    const more = others.length === 1 ? '1 more failure' : `${others.length} more failures`;
    throw new CniError(code, `${message} (and ${more})`, {
      details: this.#failures.map(describe).join('; '),
      cause: first.error,
    });
  }
}

function describe({ what, error }: { readonly what: string; readonly error: unknown }): string {
  const { message, details } = toCniError(error);
  return details === undefined ? `Cannot ${what}: ${message}` : `Cannot ${what}: ${message}: ${details}`;
}
