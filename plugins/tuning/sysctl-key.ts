// Keys of sysctls as configs write them, and the settings below /proc/sys/net that they mean. Pure.
// Called by config.ts for their form and by plan.ts for the link of an attachment.
import { invalidConfig, quote } from '../../shared/cni/error.ts';

/** A key, its steps from /proc/sys on, and the value it shall have. */
export interface SysctlWish {
  /** As in the config; the allow-list is about these words. */
  readonly key: string;
  readonly steps: readonly string[];
  readonly value: string;
}

/** Stands for the name of the link in a key, once. */
const PLACEHOLDER = 'IFNAME';

/** The longest under /proc/sys/net has some 80; an allow-list's patterns have to get through it. */
const LONGEST_KEY = 255;

/**
 * The steps of a key from /proc/sys on, the placeholder still in it: `net.ipv4.conf.IFNAME.arp_filter`, with dots or with
 * slashes between. Throws invalidConfig (7) for a key that leads anywhere but below /proc/sys/net.
 */
export function parseSysctlKey(key: string): readonly string[] {
  const steps = key.split(/[./]/).filter((step) => step !== '');
  const isPlain = key.length <= LONGEST_KEY && !key.includes('\0');
  if (isPlain && steps.length > 1 && steps[0] === 'net') return steps;
  throw invalidConfig(
    `Field "sysctl" of the network configuration names ${quote(key)}, which is no setting below "net."; ` +
      'write it like "net.ipv4.conf.IFNAME.arp_filter"',
  );
}

/**
 * The setting of a link as a path below /proc/sys. Only now the name comes in, for it may hold dots; it holds no slash
 * and is no "..", and neither has a step of a key.
 */
export function sysctlName(steps: readonly string[], ifname: string): string {
  const position = steps.findIndex((step) => step.includes(PLACEHOLDER));
  // A function, because "$&" in a replacement text means something.
  return steps
    .map((step, at) => (at === position ? step.replace(PLACEHOLDER, () => ifname) : step))
    .join('/');
}
