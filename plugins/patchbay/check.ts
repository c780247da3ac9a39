// The patchbay plugin's CHECK, STATUS and GC: those of the plugins it stands for, one after the other.
// Called by dispatch.
import { Failures } from '../../shared/cni/failures.ts';
import type { CheckCall, GcCall, StatusCall } from '../../shared/cni/plugin.ts';
import { keepRuleset } from '../../shared/ruleset/open.ts';
import type { PatchbayConfig, PatchbayTeardown } from './config.ts';
import { inStage, pluginOf, readStages } from './stage.ts';

/** Throws the first difference that one of the plugins finds (CNI SPEC 1.1.0, section 2, "CHECK"). */
export function check(call: CheckCall<PatchbayConfig>): void {
  using _ruleset = keepRuleset();
  for (const { name, source, plugin } of readStages(call, call.config.stages)) {
    inStage(name, () => plugin.check({ ...call, network: source.network }));
  }
}

/** Throws when one of the plugins cannot serve an ADD (CNI SPEC 1.1.0, section 2, "STATUS"). */
export function status(call: StatusCall<PatchbayConfig>): void {
  for (const { name, source, plugin } of readStages(call, call.config.stages)) {
    inStage(name, () => plugin.status({ ...call, network: source.network }));
  }
}

/** Collects what each of the plugins left behind (CNI SPEC 1.1.0, section 2, "GC"). Throws at the end. */
export function gc(call: GcCall<PatchbayTeardown>): void {
  const failures = new Failures();
  for (const { name, source } of call.config.stages.toReversed()) {
    failures.attempt(`collect for "${name}"`, () =>
      inStage(name, () => pluginOf(call, name).gc(source, { ...call, network: source.network })),
    );
  }
  failures.throwIfAny();
}
