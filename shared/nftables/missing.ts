// The error that says: this kernel has no nf_tables, or not the part of it we need. Callers offer another backend then.
// nftables.ts throws it for the whole, batch.ts for parts; `isNfTablesMissing` finds it among causes.

/** `what` is lacking: 'the kernel has no nf_tables'. */
export class NfTablesMissing extends Error {
  override readonly name = 'NfTablesMissing';

  constructor(what: string, options: ErrorOptions) {
    super(`Cannot use nftables: ${what}`, options);
  }
}

/** Whether an error, or one of its causes, says that this kernel has no nf_tables, or not all that we need of it. */
export function isNfTablesMissing(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof NfTablesMissing) return true;
  }
  return false;
}
