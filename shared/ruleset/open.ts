// Opening the ruleset for those who need it, and for those who only clean up.
// Called by the verbs of the plugins; which error a missing nf_tables is depends on the verb.
import type { CniError, CniErrorOptions } from '../cni/error.ts';
import { isNfTablesMissing, type Nftables, openNftables } from '../nftables/nftables.ts';

/** For DEL and GC: undefined on a kernel without nf_tables, where there is nothing of it to remove. */
export function findRuleset(): Nftables | undefined {
  try {
    return openNftables();
  } catch (error) {
    if (isNfTablesMissing(error)) {
      return undefined;
    }
    throw error;
  }
}

/**
 * For ADD, CHECK and STATUS: throws what `fail` makes of the sentence when the kernel has no nf_tables. `need` names the
 * field that wants it, `alternative` the field and value that does without.
 */
export function openRuleset(
  fail: (msg: string, options: CniErrorOptions) => CniError,
  { need, alternative }: { readonly need: string; readonly alternative: string },
): Nftables {
  try {
    return openNftables();
  } catch (cause) {
    if (!isNfTablesMissing(cause)) {
      throw cause;
    }
    const next = `load the module "nf_tables" (Linux 5.10 or newer), or set ${alternative}`;
    throw fail(`${need} needs nf_tables, which this kernel does not offer; ${next}`, { cause });
  }
}
