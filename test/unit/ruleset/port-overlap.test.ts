// Which host ports are in each other's way, held against the definition applied to every pair.
import { expect, test } from 'vitest';
import { parseIp } from '../../../shared/ip/cidr.ts';
import { findOverlap, type HostPort } from '../../../shared/ruleset/port-overlap.ts';

function port(hostPort: number, hostIp: string | undefined, rest: Partial<HostPort> = {}): HostPort {
  const ip = hostIp === undefined ? undefined : parseIp(hostIp);
  return { family: ip?.family ?? 4, protocol: 'tcp', hostIp: ip, hostPort, ...rest };
}

/** One packet could be meant for both. */
function overlap(a: HostPort, b: HostPort): boolean {
  const isSamePort = a.family === b.family && a.protocol === b.protocol && a.hostPort === b.hostPort;
  return (
    isSamePort && (a.hostIp === undefined || b.hostIp === undefined || a.hostIp.value === b.hostIp.value)
  );
}

test('a port overlaps one on the same address or on all of them, in its family and protocol', () => {
  const candidates = [
    port(80, undefined),
    port(80, '192.0.2.1'),
    port(80, '192.0.2.2'),
    port(80, undefined, { family: 6 }),
    port(80, '::c000:201'),
    port(80, undefined, { protocol: 'udp' }),
    port(81, '192.0.2.1'),
  ];
  for (const earlier of candidates) {
    for (const later of candidates) {
      const found = findOverlap([earlier, later]);
      expect(
        found,
        JSON.stringify([earlier, later], (_, value) => String(value)),
      ).toEqual(overlap(earlier, later) ? { earlier, later } : undefined);
    }
  }
});

test('a port on all addresses is in the way of, and hindered by, any number of single ones', () => {
  const single = Array.from({ length: 250 }, (_, index) => port(80, `192.0.2.${index}`));
  const every = port(80, undefined);
  expect(findOverlap(single)).toBeUndefined();
  expect(findOverlap([...single, every])).toEqual({ earlier: single[0], later: every });
  expect(findOverlap([every, ...single])).toEqual({ earlier: every, later: single[0] });
});

test('the first overlap is found among many ports', () => {
  const ports = Array.from({ length: 60_000 }, (_, index) => port(1 + index, undefined));
  expect(findOverlap(ports)).toBeUndefined();
  const [later, last] = [port(2, '192.0.2.1'), port(1, undefined)];
  expect(findOverlap([...ports, later, last])).toEqual({ earlier: ports[1], later });
});
