// Opening the ruleset for those who need it, and for those who only clean up.
// Called by the verbs of the plugins; which error a missing nf_tables is depends on the verb.
import type { CniError, CniErrorOptions } from '../cni/error.ts';
import { isNfTablesMissing, type Nftables, openNftables } from '../nftables/nftables.ts';

/** What is kept open, from the first time somebody asks for it. */
let kept: { ruleset?: Nftables } | undefined;

/**
 * From here on one socket serves all who ask for the ruleset of this namespace, until it is disposed of: a verb that looks
 * at it several times opens it once. Opens nothing itself.
 */
export function keepRuleset(): Disposable {
  if (kept !== undefined) {
    return { [Symbol.dispose]: () => {} }; // somebody further up keeps it
  }
  kept = {};
  return {
    [Symbol.dispose]: () => {
      kept?.ruleset?.[Symbol.dispose]();
      kept = undefined;
    },
  };
}

/** The ruleset of this namespace. Throws an error that `isNfTablesMissing` knows when the kernel has no nf_tables. */
export function openRuleset(): Nftables {
  if (kept === undefined) {
    return openNftables();
  }
  kept.ruleset ??= openNftables();
  return kept.ruleset.retain();
}

/** For DEL and GC: undefined on a kernel without nf_tables, where there is nothing of it to remove. */
export function findRuleset(): Nftables | undefined {
  try {
    return openRuleset();
  } catch (error) {
    if (isNfTablesMissing(error)) {
      return undefined;
    }
    throw error;
  }
}

/** What a verb does about a kernel without nf_tables, or without a part of it that is needed. */
export interface RulesetNeed {
  /** Makes the error, by the verb: kernelFeatureMissing or notAvailable. */
  readonly fail: (msg: string, options: CniErrorOptions) => CniError;
  /** Who wants it, as the beginning of a sentence: `Field "ipMasq"`. */
  readonly need: string;
  /** What of nf_tables, when it is not NAT. */
  readonly what?: string;
  /** The field and value that do without. */
  readonly alternative: string;
}

/** For ADD, CHECK and STATUS: opens the ruleset for `use`. Throws what `fail` makes of a missing nf_tables. */
export function withRuleset<T>({ fail, need, what, alternative }: RulesetNeed, use: (nft: Nftables) => T): T {
  try {
    using nft = openRuleset();
    return use(nft);
  } catch (cause) {
    if (!isNfTablesMissing(cause)) {
      throw cause;
    }
    const next = `use Linux 5.10 or newer with the module "nf_tables", or set ${alternative}`;
    throw fail(`${need} needs ${what ?? 'nf_tables with NAT'}, which this kernel does not offer; ${next}`, {
      cause,
    });
  }
}
