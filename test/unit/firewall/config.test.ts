// The config of firewall: what is taken, what is refused and how the refusal reads, and what DEL makes of nonsense.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseConfig, parseTeardown } from '../../../plugins/firewall/config.ts';
import { CniError } from '../../../shared/cni/error.ts';
import type { ConfigSource } from '../../../shared/cni/plugin.ts';

type Fields = Readonly<Record<string, unknown>>;

function source(fields: Fields): ConfigSource {
  const raw = { cniVersion: '1.1.0', name: 'n1', type: 'firewall', ...fields };
  const network = { cniVersion: '1.1.0', name: 'n1', type: 'firewall', raw } as const;
  return {
    network: { ...network, prevResult: undefined, validAttachments: undefined },
    args: '',
    command: 'ADD',
  };
}

function refusal(fields: Fields): { readonly code: number; readonly msg: string } {
  try {
    parseConfig(source(fields));
  } catch (error) {
    if (error instanceof CniError) return { code: error.code, msg: error.message };
    throw error;
  }
  throw new Error('The config was accepted');
}

const DEFAULTS = {
  backend: 'auto',
  ingressPolicy: 'open',
  adminChain: 'CNI-ADMIN',
  zone: 'trusted',
  strictStatus: false,
};

describe('a config', () => {
  test('of nothing has the defaults of the reference', () => {
    expect(parseConfig(source({}))).toEqual(DEFAULTS);
  });

  test('of empty strings has them too, as podman writes it', () => {
    const empty = { backend: '', ingressPolicy: '', iptablesAdminChainName: '', firewalldZone: '' };
    expect(parseConfig(source(empty))).toEqual(DEFAULTS);
  });

  test('with everything says everything', () => {
    const fields = {
      Backend: 'firewalld',
      ingresspolicy: 'isolated',
      iptablesAdminChainName: 'MY-ADMIN',
      firewalldZone: 'containers',
      strictStatus: true,
    };
    expect(parseConfig(source(fields))).toEqual({
      backend: 'firewalld',
      ingressPolicy: 'isolated',
      adminChain: 'MY-ADMIN',
      zone: 'containers',
      strictStatus: true,
    });
  });

  test.each<[string, unknown, string]>([
    ['backend', 'ebtables', '"ebtables"'],
    ['backend', 1, '1'],
    ['ingressPolicy', 'closed', '"closed"'],
    ['ingressPolicy', ['open'], '["open"]'],
    ['iptablesAdminChainName', 'ACCEPT', 'a chain of your own'],
    ['iptablesAdminChainName', 'A B', 'the name of a chain'],
    ['iptablesAdminChainName', '-j', 'the name of a chain'],
    ['iptablesAdminChainName', 'A'.repeat(29), 'the name of a chain'],
    ['iptablesAdminChainName', 'A\n-F', 'the name of a chain'],
    ['firewalldZone', '--system', 'the name of a firewalld zone'],
    ['firewalldZone', 'a zone', 'the name of a firewalld zone'],
    ['firewalldZone', 'z'.repeat(18), 'the name of a firewalld zone'],
    ['strictStatus', 'true', 'true or false'],
  ])('with %s %j is refused by name', (field, value, said) => {
    const { code, msg } = refusal({ [field]: value });
    expect(code).toBe(7);
    expect(msg).toContain(`"${field}"`);
    expect(msg).toContain(said);
  });

  test.each<[Fields, object]>([
    [{}, {}],
    [
      { backend: 'iptables', firewalldZone: 'work' },
      { backend: 'iptables', zone: 'work' },
    ],
    [{ backend: 7, iptablesAdminChainName: '-F', firewalldZone: ['x'] }, {}],
    [{ iptablesAdminChainName: 'MY-ADMIN', ingressPolicy: 'nonsense' }, { adminChain: 'MY-ADMIN' }],
  ])('%j is understood by DEL as far as it goes', (fields, more) => {
    const { backend, adminChain, zone } = DEFAULTS;
    expect(parseTeardown(source(fields))).toEqual({ backend, adminChain, zone, ...more });
  });
});

test('every field that the parser knows is in the table of the guide, and no other', () => {
  const read = (path: string) => readFileSync(join(import.meta.dirname, '../../..', path), 'utf8');
  const code = read('plugins/firewall/config.ts');
  const schema = code.slice(code.indexOf('function firewallSchema'), code.indexOf('function zoneName'));
  const known = [...schema.matchAll(/^ {4}(\w+):/gm)].map(([, field]) => field);
  const rows = [
    ...read('docs/plugins/firewall.md').matchAll(
      /^\| `(\w+)` \| (?:string|boolean|chain name|zone name) \|/gm,
    ),
  ];
  expect(rows.map(([, field]) => field).sort()).toEqual(known.sort());
  expect(known).toHaveLength(5);
});
