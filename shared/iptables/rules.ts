// Rules that a plan wants, held against those of a listing: which are missing, and whether two mean the same.
// Called by the plans beside this file. Pure.

import { normalizeSpec } from './save-format.ts';

/** A rule as iptables-save prints it, without `-A <chain> `. */
export interface PlannedRule {
  readonly chain: string;
  readonly spec: string;
}

/** The wanted rules that are not among those found, in order. */
export function missingRules<Rule extends PlannedRule>(
  wanted: readonly Rule[],
  found: readonly PlannedRule[],
): Rule[] {
  const chains = new Set(wanted.map(({ chain }) => chain));
  const keys = new Set(found.filter(({ chain }) => chains.has(chain)).map(keyOf));
  return wanted.filter((rule) => !keys.has(keyOf(rule)));
}

/** A text that two rules share when they mean the same. */
export function keyOf({ chain, spec }: PlannedRule): string {
  return `${chain}\n${normalizeSpec(spec)}`;
}

/** `chain "POSTROUTING" lacks rule "…"` */
export function describeMissing({ chain, spec }: PlannedRule): string {
  return `chain "${chain}" lacks rule "${spec}"`;
}
