// What a config means for one attachment: settings of its link, sysctls by their names, and the result. Pure.
// ADD carries the plan out, CHECK compares the sandbox with it.
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { Result, ResultInterface } from '../../shared/cni/result.ts';
import type { TuningConfig } from './config.ts';
import { type LinkSettings, listSettings } from './settings.ts';
import { sysctlName } from './sysctl-key.ts';

/** A setting below /proc/sys and the value it shall have. */
export interface PlannedSysctl {
  /** With slashes: `net/ipv4/conf/eth0/arp_filter`. */
  readonly name: string;
  readonly value: string;
}

export interface TuningPlan {
  readonly link: LinkSettings;
  readonly sysctls: readonly PlannedSysctl[];
}

/** Throws invalidConfig (7) naming two keys that mean one setting: which of them won would be chance. */
export function planTuning(config: TuningConfig, ifname: string): TuningPlan {
  const keys = new Map<string, string>();
  const sysctls = config.sysctls.map(({ key, steps, value }) => {
    const name = sysctlName(steps, ifname);
    const other = keys.get(name);
    if (other !== undefined) {
      throw invalidConfig(
        `Field "sysctl" of the network configuration names "${name}" twice, as ${quote(other)} and as ${quote(key)}; ` +
          'remove one of them',
      );
    }
    keys.set(name, key);
    return { name, value };
  });
  return { link: config.link, sysctls };
}

/** Whether there is nothing to do: nerdctl and podman end every list with a tuning without settings. */
export function isEmpty({ link, sysctls }: TuningPlan): boolean {
  return sysctls.length === 0 && listSettings(link).length === 0;
}

/**
 * The result of the plugins before with what is different now of the link: its MAC address, and its MTU where the result
 * speaks of that. A link of the same name outside of the sandbox is another one.
 */
export function tunedResult({ link }: TuningPlan, prevResult: Result, ifname: string): Result {
  const { interfaces } = prevResult;
  if (interfaces === undefined || (link.mac === undefined && link.mtu === undefined)) return prevResult;
  const isTuned = ({ name, sandbox }: ResultInterface) => name === ifname && Boolean(sandbox);
  return {
    ...prevResult,
    interfaces: interfaces.map((entry) => (isTuned(entry) ? { ...entry, ...changesOf(link, entry) } : entry)),
  };
}

function changesOf({ mac, mtu }: LinkSettings, entry: ResultInterface): Partial<ResultInterface> {
  return {
    ...(mac !== undefined && { mac }),
    ...(mtu !== undefined && entry.mtu !== undefined && { mtu }),
  };
}
