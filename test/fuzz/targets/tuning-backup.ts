// tuning's backups: what stands in a file there is written back to the kernel.
import fc from 'fast-check';
import { decodeBackup, encodeBackup } from '../../../plugins/tuning/backup.ts';
import { defineTarget } from '../driver.ts';
import { jsonBytes } from '../inputs/json.ts';
import { field, fields, macText, oddText, seldom } from '../inputs/values.ts';
import { promise } from '../target.ts';

const SYSCTLS = fc.dictionary(
  fc.oneof(
    fc.constantFrom(
      'net/ipv4/conf/eth0/arp_filter',
      'net/../kernel/hostname',
      'kernel/core_pattern',
      'net',
      'net//x',
    ),
    oddText(),
  ),
  fc.constantFrom('0', '1'),
  { maxKeys: 3 },
);

const BACKUP = fields({
  mac: seldom(macText()),
  mtu: seldom(fc.nat(70_000)),
  promisc: seldom(fc.boolean()),
  allmulti: seldom(fc.boolean()),
  txQLen: seldom(fc.nat()),
  patchbay: field(
    fc.record({
      network: field(fc.constant('fuzz')),
      containerID: field(fc.constant('fuzzed')),
      ifname: field(fc.constant('eth0')),
      netns: field(fc.constant('boot cookie 1')),
      link: seldom(fc.nat()),
      sysctl: field(SYSCTLS),
    }),
  ),
});

export const tuningBackup = defineTarget({
  name: 'tuning backup',
  weight: 4,
  input: jsonBytes(BACKUP),
  run(bytes) {
    const backup = decodeBackup(Buffer.from(bytes).toString());
    if (backup === 'unreadable') return backup;
    for (const name of backup.sysctls.keys()) {
      promise(/^net\//.test(name) && !/(^|\/)\.\.?(\/|$)/.test(name), `A sysctl leads to ${name}`);
    }
    const again = decodeBackup(encodeBackup(backup));
    promise(JSON.stringify(again) === JSON.stringify(backup), 'What was kept reads as something else');
    return 'ok';
  },
});
