// host-local's config, its ranges and requested addresses, and the candidates that come first in each range.
import { planRequests } from '../../../plugins/host-local/allocator.ts';
import { parseConfig, parseTeardown } from '../../../plugins/host-local/config.ts';
import { candidatesAfter, countAddresses, findRange } from '../../../plugins/host-local/range.ts';
import { formatCidr } from '../../../shared/ip/cidr.ts';
import { configTarget } from '../reading.ts';
import { promise } from '../target.ts';

export const hostLocalConfig = configTarget('host-local', 12, {
  decide(source) {
    const { sets, requested, routes } = parseConfig(source);
    planRequests(sets, requested);
    const ips = sets.flatMap((set) => {
      const [first] = candidatesAfter(set, undefined).take(1);
      promise(countAddresses(set) >= 0n, 'A range has fewer than no address');
      if (first === undefined) return [];
      promise(findRange(set, first.ip) !== undefined, 'A candidate is outside of its range');
      return [{ address: formatCidr({ ip: first.ip, prefix: first.range.subnet.prefix }) }];
    });
    return { ips, routes };
  },
  parseTeardown,
});
