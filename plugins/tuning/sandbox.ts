// The sandbox that is tuned: how it is, how it is changed, and how it becomes again what it was.
// Called by ADD, which arms the way back as its undo, by CHECK, and by DEL.
import { checkFailed, hasCode, kernelFeatureMissing } from '../../shared/cni/error.ts';
import { type Netns, withNetns } from '../../shared/linux/netns.ts';
import { readSysctl, writeSysctl } from '../../shared/linux/sysctl.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { PlannedSysctl, TuningPlan } from './plan.ts';
import {
  changeOf,
  describeSetting,
  type LinkSettings,
  listSettings,
  type Setting,
  settingsOf,
} from './settings.ts';

export interface Sandbox {
  readonly netns: Netns;
  readonly inside: Rtnetlink;
  /** The attachment's; undefined when there is none of that name. */
  readonly link: Link | undefined;
}

/** How a sandbox is in just those things that a plan is about. */
export interface State {
  readonly link: LinkSettings;
  /** Without those that can only be written. */
  readonly sysctls: ReadonlyMap<string, string>;
}

/** Throws kernelFeatureMissing (106) for a sysctl that does not exist, and Error for one that cannot be read. */
export function readState({ netns, link }: Sandbox, plan: TuningPlan): State {
  const sysctls = new Map<string, string>();
  for (const { name, value } of readSysctls(netns, plan.sysctls)) {
    if (value === 'missing') {
      throw kernelFeatureMissing(
        `Sysctl "${name}" does not exist in sandbox "${netns.path}"; look at its spelling, and whether the kernel has it`,
      );
    }
    if (value !== 'unreadable') sysctls.set(name, value.text);
  }
  return { link: link === undefined ? {} : settingsOf(link, plan.link), sysctls };
}

/**
 * Makes the sandbox what the plan says, sysctls first. What is so already is not touched. Throws Error naming the sysctl
 * or the property and its value.
 * Equivalent to: `sysctl -w net.… ; ip link set eth0 address … promisc on mtu … allmulticast on txqueuelen …`
 */
export function applyPlan({ netns, inside, link }: Sandbox, plan: TuningPlan, before: State): void {
  const differing = plan.sysctls.filter(({ name, value }) => before.sysctls.get(name) !== value);
  withNetns(netns, () => {
    for (const { name, value } of differing) writeSysctl(name, value);
  });
  if (link === undefined) return;
  for (const setting of differences(link, plan.link)) applySetting(inside, link, setting);
}

/** Throws checkFailed (107) naming the first thing that is not as the plan says, and how it is. */
export function expectPlan({ netns, link }: Sandbox, plan: TuningPlan): void {
  if (link !== undefined) {
    const found = settingsOf(link, plan.link);
    for (const wish of listSettings(plan.link)) {
      const value = found[wish.key];
      if (value === wish.value || value === undefined) continue;
      const [is, should] = [describeSetting({ key: wish.key, value }), describeSetting(wish)];
      throw checkFailed(`Link "${link.name}" in sandbox "${netns.path}" has ${is} instead of ${should}`);
    }
  }
  const wished = new Map(plan.sysctls.map(({ name, value }) => [name, value]));
  for (const { name, value } of readSysctls(netns, plan.sysctls)) {
    if (value === 'unreadable') continue;
    if (value === 'missing') throw checkFailed(`Sysctl "${name}" does not exist in sandbox "${netns.path}"`);
    const should = wished.get(name) ?? '';
    if (!isSameValue(value.text, should)) {
      throw checkFailed(
        `Sysctl "${name}" in sandbox "${netns.path}" is "${value.text}" instead of "${should}"`,
      );
    }
  }
}

/**
 * The way back: properties of the link, then sysctls, both in the opposite order. Tries all of it, and gives the errors of
 * what cannot be restored, each naming the property or the sysctl and its value.
 */
export function restoreState({ netns, inside, link }: Sandbox, before: State): unknown[] {
  const refusals: unknown[] = [];
  const attempt = (step: () => void) => {
    try {
      step();
    } catch (error) {
      refusals.push(error);
    }
  };
  if (link !== undefined && listSettings(before.link).length > 0) {
    const now = inside.link.find({ index: link.index }); // what ADD saw is what was before
    for (const setting of now === undefined ? [] : differences(now, before.link).reverse()) {
      attempt(() => applySetting(inside, link, setting));
    }
  }
  withNetns(netns, () => {
    for (const [name, value] of [...before.sysctls].reverse()) attempt(() => restoreSysctl(name, value));
  });
  return refusals;
}

/** One that is gone went with its link. */
function restoreSysctl(name: string, value: string): void {
  const now = readSysctl(name);
  if (now !== undefined && now !== value) writeSysctl(name, value);
}

/** The wishes that the link does not fulfil. */
function differences(link: Link, wished: LinkSettings): Setting[] {
  const found = settingsOf(link, wished);
  return listSettings(wished).filter(({ key, value }) => found[key] !== value);
}

function applySetting(inside: Rtnetlink, link: Link, setting: Setting): void {
  try {
    inside.link.set(link.index, changeOf(setting));
  } catch (cause) {
    throw new Error(`Cannot set ${describeSetting(setting)} on "${link.name}"`, { cause });
  }
}

interface Reading {
  readonly name: string;
  readonly value: { readonly text: string } | 'missing' | 'unreadable';
}

/** /proc/sys/net shows the namespace of the task that opens it. */
function readSysctls(netns: Netns, sysctls: readonly PlannedSysctl[]): Reading[] {
  if (sysctls.length === 0) return [];
  return withNetns(netns, () => sysctls.map(({ name }) => ({ name, value: readOne(name) })));
}

function readOne(name: string): Reading['value'] {
  try {
    const text = readSysctl(name);
    return text === undefined ? 'missing' : { text };
  } catch (error) {
    // Triggers such as net.ipv4.route.flush have no value, and net.ipv6.conf.X.stable_secret has none until it is set.
    if (hasCode(error, 'EACCES') || hasCode(error, 'EPERM') || hasCode(error, 'EIO')) return 'unreadable';
    throw error;
  }
}

/** The kernel prints several numbers with tabs between, and hexadecimal ones as decimal. */
function isSameValue(found: string, wished: string): boolean {
  const [a, b] = [found, wished].map((text) => text.trim().split(/\s+/).map(canonical).join(' '));
  return a === b;
}

function canonical(word: string): string {
  return /^0x[0-9a-f]{1,8}$/i.test(word) ? String(Number(word)) : word;
}
