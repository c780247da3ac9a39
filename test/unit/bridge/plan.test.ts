// What the bridge plugin decides from config and leases, without a kernel.
import { describe, expect, test } from 'vitest';
import type { BridgeConfig } from '../../../plugins/bridge/config.ts';
import { planAddressing, planLayer2 } from '../../../plugins/bridge/plan.ts';
import type { Result } from '../../../shared/cni/result.ts';
import { formatCidr, formatIp } from '../../../shared/ip/cidr.ts';

function config(overrides: Partial<BridgeConfig> = {}): BridgeConfig {
  return {
    bridge: 'cni0',
    isGateway: false,
    isDefaultGateway: false,
    forceAddress: false,
    ipMasq: false,
    ipMasqBackend: 'nftables',
    mtu: undefined,
    hairpinMode: false,
    promiscMode: false,
    portIsolation: false,
    vlans: undefined,
    macSpoofCheck: false,
    ipSpoofCheck: false,
    enableDad: false,
    disableContainerInterface: false,
    ipamType: 'host-local',
    ownSubnets: [],
    dns: undefined,
    mac: undefined,
    ...overrides,
  };
}

const dualStack: Result = {
  ips: [
    { address: '10.22.0.2/24', gateway: '10.22.0.1' },
    { address: 'fd00:22::2/64', gateway: 'fd00:22::1' },
  ],
};

describe('gateways', () => {
  test('come from the leases, one for each family', () => {
    const plan = planAddressing(config({ isGateway: true }), dualStack);
    expect(plan.gateways.map(formatCidr)).toEqual(['10.22.0.1/24', 'fd00:22::1/64']);
    expect(plan.forwarded).toEqual([4, 6]);
  });

  test('are computed as the first address of the subnet when the leases name none', () => {
    const plan = planAddressing(config({ isGateway: true }), { ips: [{ address: '10.22.0.77/24' }] });
    expect(plan.gateways.map(formatCidr)).toEqual(['10.22.0.1/24']);
    expect(plan.reported.ips).toEqual([{ address: '10.22.0.77/24', gateway: '10.22.0.1', interface: 2 }]);
  });

  test.each([
    ['10.22.0.1/31', '10.22.0.0/31'],
    ['10.22.0.0/31', '10.22.0.1/31'],
    ['fd00::1/127', 'fd00::/127'],
  ])('of the point-to-point address %s is the other one', (address, gateway) => {
    const plan = planAddressing(config({ isGateway: true }), { ips: [{ address }] });
    expect(plan.gateways.map(formatCidr)).toEqual([gateway]);
  });

  test.each(['10.22.0.5/32', 'fd00::5/128'])('are not invented for the lone host address %s', (address) => {
    expect(planAddressing(config({ isGateway: true }), { ips: [{ address }] }).gateways).toEqual([]);
  });

  test('stay off the bridge unless it is a gateway', () => {
    const plan = planAddressing(config(), dualStack);
    expect(plan.gateways).toEqual([]);
    expect(plan.forwarded).toEqual([]);
  });

  test('shared by two addresses are held once', () => {
    const ips = [
      { address: '10.22.0.2/24', gateway: '10.22.0.1' },
      { address: '10.22.0.9/24', gateway: '10.22.0.1' },
    ];
    expect(planAddressing(config({ isGateway: true }), { ips }).gateways.map(formatCidr)).toEqual([
      '10.22.0.1/24',
    ]);
  });
});

describe('default routes', () => {
  const defaultGateway = config({ isGateway: true, isDefaultGateway: true });

  test('are added for each family that has a gateway', () => {
    const plan = planAddressing(defaultGateway, dualStack);
    expect(plan.reported.routes).toEqual([
      { dst: '0.0.0.0/0', gw: '10.22.0.1' },
      { dst: '::/0', gw: 'fd00:22::1' },
    ]);
  });

  test('that are configured without a gateway are completed rather than doubled', () => {
    const plan = planAddressing(defaultGateway, {
      ...dualStack,
      routes: [{ dst: '0.0.0.0/0', priority: 5 }],
    });
    expect(plan.reported.routes).toEqual([
      { dst: '0.0.0.0/0', priority: 5, gw: '10.22.0.1' },
      { dst: '::/0', gw: 'fd00:22::1' },
    ]);
    expect(plan.routes).toHaveLength(2);
  });

  test('that are configured with a gateway are honoured', () => {
    const routes = [{ dst: '0.0.0.0/0', gw: '10.22.0.254' }];
    const plan = planAddressing(defaultGateway, { ...dualStack, routes });
    expect(plan.reported.routes?.filter(({ dst }) => dst === '0.0.0.0/0')).toEqual(routes);
  });

  test('in a table of their own do not count', () => {
    const routes = [{ dst: '0.0.0.0/0', table: 100 }];
    const plan = planAddressing(defaultGateway, { ...dualStack, routes });
    expect(plan.reported.routes).toContainEqual({ dst: '0.0.0.0/0', gw: '10.22.0.1' });
  });
});

describe('routes', () => {
  test('without a gateway inherit that of their family', () => {
    const routes = [{ dst: '192.0.2.0/24' }, { dst: '2001:db8::/32' }];
    const plan = planAddressing(config(), { ...dualStack, routes });
    expect(plan.routes.map(({ gw }) => gw && formatIp(gw))).toEqual(['10.22.0.1', 'fd00:22::1']);
  });

  test('of link scope have no gateway', () => {
    const plan = planAddressing(config(), { ...dualStack, routes: [{ dst: '192.0.2.0/24', scope: 253 }] });
    expect(plan.routes[0]?.gw).toBeUndefined();
  });

  test('listed twice are wished once', () => {
    const route = { dst: '192.0.2.0/24', gw: '10.22.0.1' };
    expect(planAddressing(config(), { ...dualStack, routes: [route, { ...route }] }).routes).toHaveLength(1);
  });

  test('with host bits lead to their network', () => {
    const plan = planAddressing(config(), { ...dualStack, routes: [{ dst: '192.0.2.7/24' }] });
    expect(plan.routes.map(({ dst }) => formatCidr(dst))).toEqual(['192.0.2.0/24']);
  });
});

describe('addresses', () => {
  test('have a broadcast address in IPv4 subnets that have one', () => {
    const ips = [{ address: '10.22.0.2/24' }, { address: '10.23.0.0/31' }, { address: 'fd00::2/64' }];
    const plan = planAddressing(config(), { ips });
    expect(plan.addresses.map(({ broadcast }) => broadcast && formatIp(broadcast))).toEqual([
      '10.22.0.255',
      undefined,
      undefined,
    ]);
  });

  test('are all masqueraded when the config asks for it', () => {
    const plan = planAddressing(config({ ipMasq: true }), dualStack);
    expect(plan.masqueraded.map(formatCidr)).toEqual(['10.22.0.2/24', 'fd00:22::2/64']);
  });

  test('are required when IPAM is configured', () => {
    expect(() => planAddressing(config(), { ips: [] })).toThrow(
      'IPAM plugin "host-local" returned no address',
    );
  });

  test('that cannot be parsed are refused by name', () => {
    expect(() => planAddressing(config(), { ips: [{ address: '10.22.0.300/24' }] })).toThrow(
      'IPAM plugin "host-local" returned "10.22.0.300/24" as "ips.address"',
    );
  });
});

test.each([
  ['dst', { dst: '10.66.0.0/024' }, '"10.66.0.0/024" as "routes.dst"'],
  ['gw', { dst: '10.66.0.0/24', gw: '10.66.0.1%eth0' }, '"10.66.0.1%eth0" as "routes.gw"'],
])('a route whose %s cannot be parsed is refused naming the plugin and the value', (_key, route, said) => {
  const plan = () => planAddressing(config({ isDefaultGateway: true }), { ...dualStack, routes: [route] });
  expect(plan).toThrow(expect.objectContaining({ code: 7 }));
  expect(plan).toThrow(`IPAM plugin "host-local" returned ${said}`);
});

describe('dns', () => {
  const leases = { ...dualStack, dns: { nameservers: ['192.0.2.53'] } };

  test('is what IPAM says', () => {
    expect(planAddressing(config(), leases).reported.dns).toEqual({ nameservers: ['192.0.2.53'] });
  });

  test('is what the config says when it says anything', () => {
    const dns = { search: ['example.org'] };
    expect(planAddressing(config({ dns }), leases).reported.dns).toEqual(dns);
    expect(planLayer2(config({ dns })).reported.dns).toEqual(dns);
  });
});
