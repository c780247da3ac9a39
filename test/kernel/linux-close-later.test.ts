// Closing without waiting, against the real kernel: it is quick for nobody's loss, and the kernel does collect.
import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { openNftables } from '../../shared/nftables/nftables.ts';
import { add, chain, delete_, element, map, table } from '../../shared/nftables/objects.ts';
import { jump } from '../../shared/nftables/statements.ts';
import { openTestNetns } from '../support/sandbox.ts';

const TABLE = table({ family: 'inet', name: 't' });
const CHAIN = chain({ table: TABLE, name: 'c' });
const MAP = map({ table: TABLE, name: 'm', key: ['ipv4_addr'], data: 'verdict' });
const ELEMENT = element({ map: MAP, key: [Uint8Array.of(10, 0, 0, 1)], data: jump(CHAIN) });
const NETLINK_NETFILTER = 12;

test('Sockets of nf_tables that are closed are gone soon after, and no descriptor stays open', async () => {
  using host = openTestNetns();
  const sockets = () => countSockets(host.run('cat', '/proc/net/netlink'));
  const before = sockets();
  const open = countDescriptors();
  for (let round = 0; round < 20; round++) {
    using nft = openNftables({ netns: host.netns });
    nft.commit([add(TABLE), add(CHAIN), add(MAP), add(ELEMENT)]);
    nft.commit([delete_(ELEMENT)]);
  }
  expect(countDescriptors()).toBe(open);
  // Each collection waits for what was deleted, a grace period at most.
  for (let wait = 0; wait < 100 && sockets() > before; wait++) await delay(50);
  expect(sockets()).toBe(before);
});

function countSockets(listing: string): number {
  return listing.split('\n').filter((line) => Number(line.trim().split(/\s+/)[1]) === NETLINK_NETFILTER)
    .length;
}

function countDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
