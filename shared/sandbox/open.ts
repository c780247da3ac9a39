// The namespace of the attachment, opened as ADD and CHECK need it. Called by the plugins that work inside a sandbox.
import { invalidNetns, quote } from '../cni/error.ts';
import { type Netns, openNetns } from '../linux/netns.ts';

/** Throws invalidNetns (8) when the path of CNI_NETNS does not lead to a network namespace. */
export function openSandbox(path: string): Netns {
  try {
    return openNetns(path);
  } catch (cause) {
    throw invalidNetns(`Cannot open network namespace ${quote(path)} from CNI_NETNS`, { cause });
  }
}
