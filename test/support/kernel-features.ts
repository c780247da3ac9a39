// What this kernel can do, for tests that need it: asked once, by doing it in a namespace of its own.
// Tests that cannot run here are skipped with the reason in their title.
import { spawnSync } from 'node:child_process';

/** CONFIG_BRIDGE_VLAN_FILTERING. `npm run test:vm` runs the tests that need it on a kernel that has it. */
export const filtersVlans =
  spawnSync('unshare', ['--net', 'ip', 'link', 'add', 'probe0', 'type', 'bridge', 'vlan_filtering', '1'], {
    stdio: 'ignore',
  }).status === 0;

// There is no other reason to boot a kernel than that it does.
if (!filtersVlans && process.env['PATCHBAY_VM'] !== undefined) {
  throw new Error('The kernel of the virtual machine does not filter VLANs');
}

/** For the title of what is skipped. */
export const NO_VLANS = 'skipped: this kernel has no CONFIG_BRIDGE_VLAN_FILTERING, see npm run test:vm';
