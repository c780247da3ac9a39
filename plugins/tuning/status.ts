// The tuning plugin's STATUS: may the config set what it wants to set? Called by dispatch; changes nothing.
import { notAvailable } from '../../shared/cni/error.ts';
import type { StatusCall } from '../../shared/cni/plugin.ts';
import { expectAllowed } from './allow-list.ts';
import type { TuningConfig } from './config.ts';

/**
 * Returns when an ADD can be expected to work; throws notAvailable (50) when the operator's list of allowed sysctls
 * forbids one of the config's or cannot be read (CNI SPEC 1.1.0, section 2, "STATUS").
 */
export function status({ config }: StatusCall<TuningConfig>): void {
  try {
    expectAllowed(config.sysctls.map(({ key }) => key));
  } catch (cause) {
    throw notAvailable(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}
