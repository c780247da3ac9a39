// The verbs of the patchbay plugin over plugins that only record: who is called when, with what, and what a failure does.
// Run with the unit tests; without changes of the ruleset no kernel is asked.
import { describe, expect, test } from 'vitest';
import { patchbay } from '../../../plugins/patchbay/index.ts';
import { checkFailed, invalidConfig, storeFailure } from '../../../shared/cni/error.ts';
import type { AnyPlugin, ConfigSource, IpamDelegate, Plugin } from '../../../shared/cni/plugin.ts';
import { fakePlugin } from '../../support/fake-plugin.ts';

type Verbs = Partial<Omit<Plugin<ConfigSource>, 'name' | 'supportedVersions'>>;
type Name = 'bridge' | 'portmap' | 'firewall' | 'tuning';

const NAMES: readonly Name[] = ['bridge', 'portmap', 'firewall', 'tuning'];
const ALL = { bridge: { bridge: 'br0' }, portmap: {}, firewall: {}, tuning: {}, ipam: { type: 'x' } };

/** Calls of patchbay around such plugins. `did` tells each call of one, and each of the IPAM plugin. */
function arrange(verbs: Partial<Record<Name, Verbs>> = {}) {
  const did: string[] = [];
  const heard: string[] = [];
  const plugins = new Map<string, AnyPlugin>(
    NAMES.map((name) => [name, recording(name, verbs[name] ?? {}, did)]),
  );
  const ipam: IpamDelegate = {
    add: () => ({}),
    del: (type) => void did.push(`release ${type}`),
    check: () => {},
    status: () => {},
    gc: () => {},
  };
  const attachment = { network: 'n1', containerId: 'c1', ifname: 'eth0' };
  const common = {
    ipam,
    registry: (name: string) => plugins.get(name),
    log: (line: string) => void heard.push(line),
  };
  const call = (source: ConfigSource) => ({
    ...common,
    network: source.network,
    attachment,
    netns: '/run/netns/x',
  });
  const run = (
    verb: 'add' | 'check' | 'del' | 'status' | 'gc',
    fields: object = ALL,
    prevResult?: object,
  ) => {
    const from = sourceOf(verb, fields, prevResult);
    return patchbay[verb](from, { ...call(from), validAttachments: [] });
  };
  return { did, heard, run };
}

function sourceOf(verb: string, fields: object, prevResult: object | undefined): ConfigSource {
  const raw = { cniVersion: '1.1.0', name: 'n1', type: 'patchbay', ...fields };
  const network = {
    cniVersion: '1.1.0' as const,
    name: 'n1',
    type: 'patchbay',
    raw,
    prevResult,
    validAttachments: [],
  };
  return { network, args: 'A=b', command: verb.toUpperCase() as 'ADD' };
}

function recording(name: Name, verbs: Verbs, did: string[]): AnyPlugin {
  return fakePlugin({
    ...verbs,
    name,
    parseConfig: (source) => {
      did.push(`${name} reads for ${source.command}`);
      return verbs.parseConfig?.(source) ?? source;
    },
    add: (call) => {
      did.push(`${name} ADD`);
      return verbs.add?.(call) ?? { ...call.network.prevResult, [`by ${name}`]: true };
    },
    check: (call) => {
      did.push(`${name} CHECK`);
      verbs.check?.(call);
    },
    del: (call) => {
      did.push(`${name} DEL`);
      verbs.del?.(call);
      if (name === 'bridge') call.ipam.del('x');
    },
    status: () => void did.push(`${name} STATUS`),
    gc: (call) => {
      did.push(`${name} GC`);
      verbs.gc?.(call);
    },
  }).plugin;
}

const fail = (what: string) => () => {
  throw storeFailure(`Cannot ${what}`);
};

const acts = (did: readonly string[]) => did.filter((line) => !line.includes('reads'));

describe('ADD', () => {
  test('goes down the list, each plugin behind the result of the one before, and gives the last result', () => {
    const { did, run } = arrange();
    expect(run('add')).toEqual({
      'by bridge': true,
      'by portmap': true,
      'by firewall': true,
      'by tuning': true,
    });
    expect(acts(did)).toEqual(['bridge ADD', 'portmap ADD', 'firewall ADD', 'tuning ADD']);
  });

  test('lets all plugins read their configs before the first one acts', () => {
    const { did, run } = arrange({
      tuning: {
        parseConfig() {
          throw invalidConfig('Field "mtu" is odd');
        },
      },
    });
    expect(() => run('add')).toThrow('In "tuning": Field "mtu" is odd');
    expect(acts(did)).toEqual([]);
    expect(did).toEqual(NAMES.map((name) => `${name} reads for ADD`));
  });

  test('runs no plugin that is not named', () => {
    const { did, run } = arrange();
    run('add', { bridge: {}, tuning: {} });
    expect(acts(did)).toEqual(['bridge ADD', 'tuning ADD']);
  });

  test('tells the first plugin of no result, whatever the config brings', () => {
    const { run } = arrange();
    expect(run('add', { bridge: {} }, { interfaces: [{ name: 'foreign' }] })).toEqual({ 'by bridge': true });
  });

  test.each<[Name, string[]]>([
    ['portmap', ['bridge DEL', 'release x']],
    ['firewall', ['portmap DEL', 'bridge DEL', 'release x']],
    ['tuning', ['firewall DEL', 'portmap DEL', 'bridge DEL', 'release x']],
  ])('that fails in %s undoes the plugins before it, newest first', (name, undone) => {
    const { did, heard, run } = arrange({ [name]: { add: fail('do it') } });
    expect(() => run('add')).toThrow(`In "${name}": Cannot do it`);
    expect(acts(did).slice(acts(did).indexOf(`${name} ADD`) + 1)).toEqual(undone);
    expect(heard).toEqual([]);
  });

  test('that fails in bridge undoes nothing: it may be about an attachment that is there', () => {
    const { did, run } = arrange({ bridge: { add: fail('add it twice') } });
    expect(() => run('add')).toThrow('In "bridge": Cannot add it twice');
    expect(acts(did)).toEqual(['bridge ADD']);
  });

  test('reports its own error when an undo fails too, goes on undoing, and keeps the addresses', () => {
    const { did, heard, run } = arrange({
      tuning: { add: fail('tune') },
      portmap: { del: fail('withdraw the ports') },
    });
    expect(() => run('add')).toThrow('In "tuning": Cannot tune');
    expect(acts(did).slice(4)).toEqual(['firewall DEL', 'portmap DEL', 'bridge DEL']);
    expect(heard).toEqual([
      expect.stringMatching(/^Keeping the addresses/),
      expect.stringMatching(/^Cannot undo the attachment .*In "portmap": Cannot withdraw the ports/),
    ]);
  });

  test('undoes with what was made so far', () => {
    const told: unknown[] = [];
    const { run } = arrange({
      bridge: {
        add: () => ({ ips: [{ address: '10.1.0.2/16' }] }),
        del: ({ network }) => void told.push(network),
      },
      portmap: { add: fail('publish') },
    });
    expect(() => run('add')).toThrow();
    expect(told).toMatchObject([{ prevResult: { ips: [{ address: '10.1.0.2/16' }] } }]);
  });
});

describe('DEL', () => {
  test('goes up the list through all plugins, whatever the config names', () => {
    for (const fields of [ALL, { bridge: {} }, {}]) {
      const { did, run } = arrange();
      run('del', fields);
      expect(did).toEqual(['tuning DEL', 'firewall DEL', 'portmap DEL', 'bridge DEL', 'release x']);
    }
  });

  test('goes on after a failure, keeps the addresses that something may still lead to, and says both', () => {
    const { did, heard, run } = arrange({ portmap: { del: fail('withdraw the ports') } });
    expect(() => run('del')).toThrow('In "portmap": Cannot withdraw the ports');
    expect(did).toEqual(['tuning DEL', 'firewall DEL', 'portmap DEL', 'bridge DEL']);
    expect(heard).toEqual([expect.stringMatching(/^Keeping the addresses: .* repeat the DEL$/)]);
  });

  test('of several failures reports the first, and how many more there are', () => {
    const { run } = arrange({ tuning: { del: fail('restore') }, bridge: { del: fail('delete the link') } });
    expect(() => run('del')).toThrow('In "tuning": Cannot restore (and 1 more failure)');
  });
});

describe('the other verbs', () => {
  test('CHECK goes down the list, and stops at the first difference with the name of its plugin', () => {
    const { did, run } = arrange({
      portmap: {
        check() {
          throw checkFailed('tcp port 8080 is not there');
        },
      },
    });
    expect(() => run('check')).toThrow('In "portmap": tcp port 8080 is not there');
    expect(acts(did)).toEqual(['bridge CHECK', 'portmap CHECK']);
  });

  test('STATUS asks those that are named', () => {
    const { did, run } = arrange();
    run('status', { bridge: {}, firewall: {} });
    expect(acts(did)).toEqual(['bridge STATUS', 'firewall STATUS']);
  });

  test('GC asks all, and goes on after a failure', () => {
    const { did, run } = arrange({ firewall: { gc: fail('collect') } });
    expect(() => run('gc', { bridge: {} })).toThrow('In "firewall": Cannot collect');
    expect(did).toEqual(['tuning GC', 'firewall GC', 'portmap GC', 'bridge GC']);
  });
});
