// tuning's config, and the settings below /proc/sys that it leads to: none outside of /proc/sys/net.
import { posix } from 'node:path';
import { parseConfig, parseTeardown } from '../../../plugins/tuning/config.ts';
import { planTuning } from '../../../plugins/tuning/plan.ts';
import { configTarget } from '../reading.ts';
import { promise } from '../target.ts';

export const tuningConfig = configTarget('tuning', 8, {
  decide(source, { ifname }) {
    const plan = planTuning(parseConfig(source), ifname);
    for (const { name } of plan.sysctls) {
      const path = posix.join('/proc/sys', name);
      promise(path.startsWith('/proc/sys/net/'), `A sysctl leads to ${path}`);
    }
    return undefined;
  },
  parseTeardown,
});
