// Results printed and read in the shapes of all protocol versions, byte for byte.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { encodeResult, parseResult, type Result } from '../../../shared/cni/result.ts';
import { decodeResult, withoutUnknownKeys } from '../../../shared/cni/result-versions.ts';
import { CNI_VERSIONS, type CniVersion, resultFamilyOf } from '../../../shared/cni/versions.ts';

const FIRST: readonly CniVersion[] = ['0.1.0', '0.2.0'];
const MIDDLE: readonly CniVersion[] = ['0.3.0', '0.3.1', '0.4.0'];
const CURRENT: readonly CniVersion[] = ['1.0.0', '1.1.0'];

// Everything a result can say.
const full: Result = {
  interfaces: [
    { name: 'cni0', mac: 'aa:bb:cc:dd:ee:ff' },
    {
      name: 'eth0',
      mac: '00:11:22:33:44:55',
      sandbox: '/run/netns/x',
      mtu: 1400,
      socketPath: '/s',
      pciID: '0:1',
    },
  ],
  ips: [
    { address: '10.1.0.5/16', gateway: '10.1.0.1', interface: 1 },
    { address: 'fd00::5/64', gateway: 'fd00::1' },
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '10.1.0.1', mtu: 1400, advmss: 1360, priority: 7, table: 0, scope: 0 },
    { dst: '10.9.0.0/16' },
    { dst: '::/0', table: 100, scope: 253 },
  ],
  dns: { options: ['ndots:5'], nameservers: ['10.1.0.1'], search: ['a', 'b'], domain: 'x' },
};

// The reference's texts for that result, as its portmap 1.9.1 passes it on from a prevResult.
const TEXTS: readonly (readonly [readonly CniVersion[], (version: CniVersion) => string])[] = [
  [
    FIRST,
    (version) => `{
    "cniVersion": "${version}",
    "ip4": {
        "ip": "10.1.0.5/16",
        "gateway": "10.1.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0",
                "gw": "10.1.0.1"
            },
            {
                "dst": "10.9.0.0/16"
            }
        ]
    },
    "ip6": {
        "ip": "fd00::5/64",
        "gateway": "fd00::1",
        "routes": [
            {
                "dst": "::/0"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "10.1.0.1"
        ],
        "domain": "x",
        "search": [
            "a",
            "b"
        ],
        "options": [
            "ndots:5"
        ]
    }
}`,
  ],
  [
    MIDDLE,
    (version) => `{
    "cniVersion": "${version}",
    "interfaces": [
        {
            "name": "cni0",
            "mac": "aa:bb:cc:dd:ee:ff"
        },
        {
            "name": "eth0",
            "mac": "00:11:22:33:44:55",
            "sandbox": "/run/netns/x"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 1,
            "address": "10.1.0.5/16",
            "gateway": "10.1.0.1"
        },
        {
            "version": "6",
            "address": "fd00::5/64",
            "gateway": "fd00::1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "10.1.0.1",
            "mtu": 1400,
            "advmss": 1360,
            "priority": 7,
            "table": 0,
            "scope": 0
        },
        {
            "dst": "10.9.0.0/16"
        },
        {
            "dst": "::/0",
            "table": 100,
            "scope": 253
        }
    ],
    "dns": {
        "nameservers": [
            "10.1.0.1"
        ],
        "domain": "x",
        "search": [
            "a",
            "b"
        ],
        "options": [
            "ndots:5"
        ]
    }
}`,
  ],
  [
    CURRENT,
    (version) => `{
    "cniVersion": "${version}",
    "dns": {
        "domain": "x",
        "nameservers": [
            "10.1.0.1"
        ],
        "options": [
            "ndots:5"
        ],
        "search": [
            "a",
            "b"
        ]
    },
    "interfaces": [
        {
            "mac": "aa:bb:cc:dd:ee:ff",
            "name": "cni0"
        },
        {
            "mac": "00:11:22:33:44:55",
            "mtu": 1400,
            "name": "eth0",
            "pciID": "0:1",
            "sandbox": "/run/netns/x",
            "socketPath": "/s"
        }
    ],
    "ips": [
        {
            "address": "10.1.0.5/16",
            "gateway": "10.1.0.1",
            "interface": 1
        },
        {
            "address": "fd00::5/64",
            "gateway": "fd00::1"
        }
    ],
    "routes": [
        {
            "advmss": 1360,
            "dst": "0.0.0.0/0",
            "gw": "10.1.0.1",
            "mtu": 1400,
            "priority": 7,
            "scope": 0,
            "table": 0
        },
        {
            "dst": "10.9.0.0/16"
        },
        {
            "dst": "::/0",
            "scope": 253,
            "table": 100
        }
    ]
}`,
  ],
];

// The version and a result's JSON, without the white space.
function encoded(result: Result, version: CniVersion): Record<string, unknown> {
  return JSON.parse(encodeResult(result, version));
}

describe('encodeResult', () => {
  for (const [versions, text] of TEXTS) {
    test.each(versions)('prints the shape of %s byte for byte', (version) => {
      expect(encodeResult(full, version)).toBe(text(version));
    });
  }

  test.each(FIRST)('cannot say a result without address in %s', (version) => {
    for (const result of [
      {},
      { ips: [] },
      { interfaces: [{ name: 'eth0' }], routes: [{ dst: '10.0.0.0/8' }] },
    ]) {
      expect(() => encodeResult(result, version)).toThrow(
        expect.objectContaining({ code: 1, message: expect.stringContaining(version) }),
      );
    }
  });

  test.each(FIRST)(
    'takes the first address of each family in %s, and the routes of the families it has',
    (version) => {
      const result = {
        ips: [{ address: '10.1.0.5/16' }, { address: '10.2.0.5/16' }],
        routes: [{ dst: '::/0', gw: 'fd00::1' }, { dst: '0.0.0.0/0' }],
      };
      expect(encoded(result, version)).toEqual({
        cniVersion: version,
        ip4: { ip: '10.1.0.5/16', routes: [{ dst: '0.0.0.0/0' }] },
        dns: {},
      });
      expect(encoded({ ips: [{ address: 'fd00::5/64' }] }, version)).toEqual({
        cniVersion: version,
        ip6: { ip: 'fd00::5/64' },
        dns: {},
      });
    },
  );

  test.each(MIDDLE)('always prints dns in %s', (version) => {
    expect(encodeResult({}, version)).toBe(`{\n    "cniVersion": "${version}",\n    "dns": {}\n}`);
  });

  test.each(CURRENT)('prints nothing but the version for an empty result in %s', (version) => {
    const empty: Result = {
      interfaces: [],
      ips: [],
      routes: [],
      dns: { nameservers: [], domain: '', search: [] },
    };
    for (const result of [{}, empty])
      expect(encodeResult(result, version)).toBe(`{\n    "cniVersion": "${version}"\n}`);
  });

  test.each([...MIDDLE, ...CURRENT])(
    'leaves out what is empty or zero in %s, but no table, scope or index of 0',
    (version) => {
      const result: Result = {
        interfaces: [{ name: '', mac: '', mtu: 0, sandbox: '' }],
        ips: [{ address: '10.1.0.5/16', gateway: '', interface: 0 }],
        routes: [{ dst: '0.0.0.0/0', gw: '', mtu: 0, advmss: 0, priority: 0, table: 0, scope: 0 }],
      };
      const { interfaces, ips, routes } = encoded(result, version);
      expect(interfaces).toEqual([{ name: '' }]);
      expect(ips).toEqual([
        { ...(MIDDLE.includes(version) && { version: '4' }), interface: 0, address: '10.1.0.5/16' },
      ]);
      expect(routes).toEqual([{ dst: '0.0.0.0/0', table: 0, scope: 0 }]);
    },
  );

  test.each(CNI_VERSIONS)('escapes what the reference escapes in %s', (version) => {
    const domain = 'a<b>&\u2028\u2029"\\\n\u007fé';
    const text = encodeResult({ ips: [{ address: '10.1.0.5/16' }], dns: { domain } }, version);
    expect(text).toContain(`${String.raw`"domain": "a\u003cb\u003e\u0026\u2028\u2029\"\\\n`}\u007fé"`);
    expect(JSON.parse(text)).toMatchObject({ dns: { domain } });
  });

  test.each(MIDDLE)('tells the family of an address in %s', (version) => {
    const ips = ['10.0.0.1/8', 'fd00::1/64', '::ffff:10.0.0.1/120', '::/0'].map((address) => ({ address }));
    const text = encoded({ ips }, version);
    expect((text['ips'] as { version: string }[]).map((ip) => ip.version)).toEqual(['4', '6', '4', '6']);
  });
});

describe('parseResult', () => {
  test.each([...MIDDLE, ...CURRENT, ...FIRST])('reads what encodeResult prints in %s', (version) => {
    const read = parseResult(encoded(full, version), version);
    if (CURRENT.includes(version)) expect(read).toEqual(full);
    expect(encodeResult(read, version)).toBe(encodeResult(full, version));
  });

  test('gives the current shape of each family', () => {
    expect(parseResult(encoded(full, '0.2.0'), '0.2.0')).toEqual({
      ips: [
        { address: '10.1.0.5/16', gateway: '10.1.0.1' },
        { address: 'fd00::5/64', gateway: 'fd00::1' },
      ],
      routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: '10.9.0.0/16' }, { dst: '::/0' }],
      dns: full.dns,
    });
    expect(parseResult(encoded(full, '0.4.0'), '0.4.0')).toEqual({
      ...full,
      interfaces: [
        { name: 'cni0', mac: 'aa:bb:cc:dd:ee:ff' },
        { name: 'eth0', mac: '00:11:22:33:44:55', sandbox: '/run/netns/x' },
      ],
    });
  });

  // Every pair of versions: what is lost on the way down stays lost on the way up, nothing else.
  test.each(CNI_VERSIONS)('carries a result from %s to every version', (from) => {
    const { result } = decodeResult(encoded(full, from), '1.1.0', 'this');
    for (const to of CNI_VERSIONS) {
      const { result: again } = decodeResult(encoded(result, to), '1.1.0', 'this');
      const shapes = [from, to].map(resultFamilyOf);
      expect(again.dns).toEqual(full.dns);
      expect(again.ips?.map(({ address, gateway }) => ({ address, gateway }))).toEqual(
        full.ips?.map(({ address, gateway }) => ({ address, gateway })),
      );
      if (shapes.includes('0.1.0')) {
        expect(again.interfaces).toBeUndefined();
        expect(again.routes).toEqual(
          full.routes?.map(({ dst, gw }) => (gw === undefined ? { dst } : { dst, gw })),
        );
      } else {
        expect(again.routes).toEqual(full.routes);
        expect(again.ips).toEqual(full.ips);
        expect(again.interfaces?.[1]).toHaveProperty('sandbox', '/run/netns/x');
        expect(again.interfaces?.[1]?.mtu).toBe(shapes.includes('0.3.0') ? undefined : 1400);
      }
    }
  });

  test.each([
    ['0.1.0', ['0.2.0']],
    ['0.3.1', ['0.3.0', '0.4.0']],
    ['1.1.0', ['1.0.0']],
  ] as const)('a config of %s takes its own family only', (version, others) => {
    const family: readonly string[] = [version, ...others];
    for (const given of CNI_VERSIONS) {
      const parse = () => parseResult(encoded(full, given), version);
      if (family.includes(given)) expect(encoded(parse(), version)['cniVersion']).toBe(version);
      else {
        const message = expect.stringMatching(
          `prevResult with cniVersion "${given}" in a config with cniVersion "${version}"`,
        );
        expect(parse).toThrow(expect.objectContaining({ code: 7, message }));
      }
    }
  });

  test('without a version has the shape of the config', () => {
    expect(parseResult({ ip4: { ip: '10.0.0.1/8' } }, '0.2.0').ips).toEqual([{ address: '10.0.0.1/8' }]);
    expect(parseResult({ CNIVERSION: '', ips: [{ ADDRESS: '10.0.0.1/8' }] }, '1.0.0').ips).toEqual([
      { address: '10.0.0.1/8' },
    ]);
  });

  test('takes null and empty values for absent, and keys in any case', () => {
    const value = {
      Interfaces: null,
      IPS: [{ Address: '10.0.0.1/8', gateway: '', interface: null }],
      routes: [],
      DNS: { Domain: '', nameservers: null, search: [] },
    };
    expect(parseResult(value, '1.1.0')).toEqual({ ips: [{ address: '10.0.0.1/8' }] });
    expect(parseResult(value, '0.4.0')).toEqual({ ips: [{ address: '10.0.0.1/8' }] });
  });

  test.each<[CniVersion, unknown, string]>([
    ['1.1.0', 5, 'Field "prevResult" must be an object, not 5'],
    ['1.1.0', 'x', 'Field "prevResult" must be an object, not "x"'],
    ['1.1.0', [], 'Field "prevResult" must be an object, not []'],
    ['1.1.0', { cniVersion: 1 }, 'Field "cniVersion" of prevResult must be one of the CNI versions 0.1.0,'],
    ['1.1.0', { cniVersion: '9.9.9' }, 'not "9.9.9"'],
    ['1.1.0', { interfaces: {} }, 'Field "interfaces" of prevResult must be a list, not {}'],
    ['1.1.0', { interfaces: ['eth0'] }, 'Field "interfaces[0]" of prevResult must be an object, not "eth0"'],
    [
      '1.1.0',
      { interfaces: [{ name: 5 }] },
      'Field "interfaces[0].name" of prevResult must be a string, not 5',
    ],
    [
      '1.1.0',
      { interfaces: [{}, { mac: 5 }] },
      'Field "interfaces[1].mac" of prevResult must be a string, not 5',
    ],
    [
      '1.1.0',
      { interfaces: [{ mtu: '1500' }] },
      'Field "interfaces[0].mtu" of prevResult must be a whole number, not "1500"',
    ],
    ['1.1.0', { ips: [{}] }, 'Field "ips[0].address" of prevResult is missing'],
    ['1.1.0', { ips: [{ address: '10.0.0.1' }] }, 'must be an IP address with prefix length, not "10.0.0.1"'],
    ['1.1.0', { ips: [{ address: '10.0.0.1/33' }] }, 'not "10.0.0.1/33"'],
    ['1.1.0', { ips: [{ address: '10.0.0.256/24' }] }, 'not "10.0.0.256/24"'],
    ['1.1.0', { ips: [{ address: 'fd00::1/129' }] }, 'not "fd00::1/129"'],
    ['1.1.0', { ips: [{ address: 'fd00::x/64' }] }, 'not "fd00::x/64"'],
    ['1.1.0', { ips: [{ address: '10.0.0.1/8/8' }] }, 'not "10.0.0.1/8/8"'],
    ['1.1.0', { ips: [{ address: '10.0.0.1/' }] }, 'not "10.0.0.1/"'],
    ['1.1.0', { ips: [{ address: 5 }] }, 'not 5'],
    ['1.1.0', { ips: [{ address: '1'.repeat(200_000) }] }, '(cut, 200000 characters)'],
    [
      '1.1.0',
      { ips: [{ address: '10.0.0.1/8', gateway: 'x' }] },
      'Field "ips[0].gateway" of prevResult must be an IP address, not "x"',
    ],
    [
      '1.1.0',
      { ips: [{ address: '10.0.0.1/8', interface: -1 }] },
      'Field "ips[0].interface" of prevResult must be a whole number, not -1',
    ],
    ['1.1.0', { ips: [{ address: '10.0.0.1/8', interface: 0.5 }] }, 'must be a whole number, not 0.5'],
    ['1.1.0', { routes: [{}] }, 'Field "routes[0].dst" of prevResult is missing'],
    [
      '1.1.0',
      { routes: [{ dst: 'default' }] },
      'Field "routes[0].dst" of prevResult must be an IP address with prefix length, not "default"',
    ],
    [
      '1.1.0',
      { routes: [{ dst: '10.0.0.0/8', gw: 5 }] },
      'Field "routes[0].gw" of prevResult must be an IP address, not 5',
    ],
    [
      '1.1.0',
      { routes: [{ dst: '10.0.0.0/8', table: '7' }] },
      'Field "routes[0].table" of prevResult must be a whole number, not "7"',
    ],
    ['1.1.0', { dns: [] }, 'Field "dns" of prevResult must be an object, not []'],
    [
      '1.1.0',
      { dns: { nameservers: '10.0.0.1' } },
      'Field "dns.nameservers" of prevResult must be a list, not "10.0.0.1"',
    ],
    ['1.1.0', { dns: { search: [5] } }, 'Field "dns.search[0]" of prevResult must be a string, not 5'],
    [
      '0.4.0',
      { ips: [{ version: 4, address: '10.0.0.1/8' }] },
      'Field "ips[0].version" of prevResult must be a string, not 4',
    ],
    ['0.2.0', { ip4: {} }, 'Field "ip4.ip" of prevResult is missing'],
    [
      '0.2.0',
      { ip4: { ip: 'fd00::1/64' } },
      'Field "ip4.ip" of prevResult must be an IPv4 address with prefix length, not "fd00::1/64"',
    ],
    [
      '0.2.0',
      { ip6: { ip: '10.0.0.1/8' } },
      'Field "ip6.ip" of prevResult must be an IPv6 address with prefix length, not "10.0.0.1/8"',
    ],
    [
      '0.2.0',
      { ip4: { ip: '10.0.0.1/8', routes: [{ dst: 'x' }] } },
      'Field "ip4.routes[0].dst" of prevResult must be',
    ],
  ])('of %s refuses %j', (version, value, message) => {
    const thrown = expect(() => parseResult(value, version));
    thrown.toThrow(expect.objectContaining({ code: 7, message: expect.stringContaining(message) }));
  });
});

describe('unknown keys of a prevResult', () => {
  const samples: readonly (readonly [readonly CniVersion[], object])[] = [
    [
      FIRST,
      {
        cniVersion: '',
        ip4: { ip: '10.1.0.5/16', routes: [{ dst: '0.0.0.0/0', metric: 1.5 }], interface: 7, address: 'x' },
        ip6: { ip: 'fd00::5/64', note: null },
        dns: { timeout: 3 },
        interfaces: 'unknown in this shape',
        ips: [],
        'x.example/more': { deep: [{ IP: 1 }] },
      },
    ],
    [
      MIDDLE,
      {
        cniVersion: '',
        interfaces: [{ name: 'eth0', mtu: 1500, pciID: 5 }],
        ips: [{ version: '4', address: '10.1.0.5/16', lifetime: { valid: '1h' } }],
        routes: [{ dst: '0.0.0.0/0', metric: 1 }],
        dns: { timeout: 3 },
        ip4: 'unknown in this shape',
      },
    ],
    [
      CURRENT,
      {
        cniVersion: '',
        dns: { timeout: 3 },
        interfaces: [{ name: 'eth0', xdp: true }],
        ips: [{ address: '10.1.0.5/16', version: '4' }],
        routes: [{ dst: '0.0.0.0/0', metric: 1 }],
        vendor: { a: 1 },
      },
    ],
  ];

  for (const [versions, sample] of samples) {
    test.each(versions)('are printed again in %s, at every level', (version) => {
      const value = { ...sample, cniVersion: version };
      expect(JSON.parse(encodeResult(parseResult(value, version), version))).toEqual(value);
    });

    test.each(versions)('survive what a plugin does to a result in %s', (version) => {
      const value = { ...sample, cniVersion: version };
      const read = parseResult(value, version);
      const changed: Result = {
        ...read,
        ips: (read.ips ?? []).map((ip) => ({ ...ip })),
        dns: { ...read.dns },
      };
      expect(JSON.parse(encodeResult(changed, version))).toEqual(value);
    });
  }

  test('are sorted among the known ones in the current shapes', () => {
    const value = { vendor: 1, apple: 2, ips: [{ zone: 1, address: '10.1.0.5/16', body: 2 }] };
    const text = encodeResult(parseResult(value, '1.1.0'), '1.1.0').replace(/\s/g, '');
    expect(text).toBe(
      '{"apple":2,"cniVersion":"1.1.0","ips":[{"address":"10.1.0.5/16","body":2,"zone":1}],"vendor":1}',
    );
  });

  test('follow the known ones in the older shapes', () => {
    const text = encodeResult(parseResult({ apple: 2, ips: [] }, '0.4.0'), '0.4.0').replace(/\s/g, '');
    expect(text).toBe('{"cniVersion":"0.4.0","dns":{},"apple":2}');
  });

  test('cannot pass for known ones of the current shape', () => {
    const read = parseResult(
      { ip4: { ip: '10.0.0.1/8', address: 'evil' }, interfaces: [{ name: 'evil' }] },
      '0.2.0',
    );
    expect(read.interfaces).toBeUndefined();
    expect(read.ips).toEqual([expect.objectContaining({ address: '10.0.0.1/8' })]);
  });

  test('named like a prototype stay keys', () => {
    const value = JSON.parse(
      '{"cniVersion":"1.1.0","__proto__":{"polluted":1},"ips":[{"address":"10.0.0.1/8","__proto__":1}]}',
    );
    const text = encodeResult(parseResult(value, '1.1.0'), '1.1.0');
    expect(text.match(/"__proto__"/g)).toHaveLength(2);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  test('can be taken off', () => {
    const [, , [, sample] = [[], {}]] = samples;
    const plain = withoutUnknownKeys(parseResult({ ...sample, cniVersion: '1.1.0' }, '1.1.0'));
    expect(JSON.parse(encodeResult(plain, '1.1.0'))).toEqual({
      cniVersion: '1.1.0',
      interfaces: [{ name: 'eth0' }],
      ips: [{ address: '10.1.0.5/16' }],
      routes: [{ dst: '0.0.0.0/0' }],
    });
    expect(withoutUnknownKeys(full)).toEqual(full);
    expect(withoutUnknownKeys({})).toEqual({});
  });
});
