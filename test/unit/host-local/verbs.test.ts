// Whole calls through the dispatcher, as a runtime makes them, on a store in a temporary directory.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hostLocal } from '../../../plugins/host-local/index.ts';
import { dispatch } from '../../../shared/cni/dispatch.ts';

let dataDir: string;
let directory: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'patchbay-verbs-'));
  directory = join(dataDir, 'n1');
});
afterEach(() => {
  rmSync(dataDir, { recursive: true });
});

interface Options {
  readonly containerId?: string;
  readonly ifname?: string;
  readonly args?: string;
  readonly ipam?: Record<string, unknown>;
  readonly rest?: Record<string, unknown>;
  readonly cniVersion?: string;
}

interface Answer {
  readonly exitCode: number;
  // biome-ignore lint/suspicious/noExplicitAny: results and errors of any version
  readonly json: any;
  readonly log: readonly string[];
}

function call(command: string, options: Options = {}): Answer {
  const { containerId = 'c1', ifname = 'eth0', args = '', cniVersion = '1.1.0' } = options;
  const ipam = { type: 'host-local', dataDir, ranges: [[{ subnet: '10.1.0.0/29' }]], ...options.ipam };
  const log: string[] = [];
  const { stdout, exitCode } = dispatch(hostLocal, {
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: '/run/netns/none',
      CNI_IFNAME: ifname,
      CNI_ARGS: args,
      CNI_PATH: '/nowhere',
    },
    readStdin: () =>
      Buffer.from(JSON.stringify({ cniVersion, name: 'n1', type: 'bridge', ipam, ...options.rest })),
    log: (line) => log.push(line),
    registry: () => undefined,
    ownExecutable: '/proc/self/exe',
    pid: 1,
    uptime: () => 0,
    version: '2.0.0',
  });
  return { exitCode, json: stdout === '' ? undefined : JSON.parse(stdout), log };
}

function files(): string[] {
  return existsSync(directory) ? readdirSync(directory).filter((name) => /^[0-9a-f]+[.:]/.test(name)) : [];
}

describe('ADD', () => {
  it('tells addresses in the order of the sets, with gateways, routes and DNS', () => {
    const resolvConf = join(dataDir, 'resolv.conf');
    writeFileSync(resolvConf, 'nameserver 10.0.0.53\nsearch example.org\n');
    const ipam = {
      ranges: [
        [{ subnet: 'fd00::/64', gateway: 'fe80::1' }],
        [{ subnet: '10.1.0.0/29', rangeStart: '10.1.0.4' }],
      ],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '10.0.0.0/8', gw: '10.1.0.1', priority: 5 }],
      resolvConf,
    };
    expect(call('ADD', { ipam })).toEqual({
      exitCode: 0,
      log: [],
      json: {
        cniVersion: '1.1.0',
        ips: [
          { address: 'fd00::1/64', gateway: 'fe80::1' },
          { address: '10.1.0.4/29', gateway: '10.1.0.1' },
        ],
        routes: [{ dst: '0.0.0.0/0' }, { dst: '10.0.0.0/8', gw: '10.1.0.1', priority: 5 }],
        dns: { nameservers: ['10.0.0.53'], search: ['example.org'] },
      },
    });
  });

  it('answers in old shapes too', () => {
    expect(call('ADD', { cniVersion: '0.2.0', ipam: { routes: [{ dst: '0.0.0.0/0' }] } }).json).toEqual({
      cniVersion: '0.2.0',
      ip4: { ip: '10.1.0.2/29', gateway: '10.1.0.1', routes: [{ dst: '0.0.0.0/0' }] },
      dns: {},
    });
  });

  it('gives what CNI_ARGS asks for', () => {
    expect(call('ADD', { args: 'IgnoreUnknown=1;IP=10.1.0.5;K8S_POD_NAME=x' }).json.ips[0].address).toBe(
      '10.1.0.5/29',
    );
  });

  it('takes nothing when the DNS file cannot be read', () => {
    const answer = call('ADD', { ipam: { resolvConf: join(dataDir, 'missing') } });
    expect(answer.json).toMatchObject({ code: 7, msg: expect.stringMatching(/ipam\.resolvConf.*missing/) });
    expect(existsSync(directory)).toBe(false);
  });

  it('touches nothing when the config is bad', () => {
    expect(call('ADD', { ipam: { ranges: [[{ subnet: '10.1.0.0/33' }]] } }).exitCode).toBe(1);
    expect(readdirSync(dataDir)).toEqual([]);
  });

  it('says which file could not be made, and why', () => {
    writeFileSync(directory, '');
    expect(call('ADD').json).toMatchObject({
      code: 110,
      msg: `Cannot open the store "${directory}"`,
      details: expect.stringMatching(/ENOTDIR/),
    });
  });
});

describe('DEL', () => {
  it('frees what ADD took, also under other ranges, and again', () => {
    call('ADD', { ipam: { ranges: [[{ subnet: '10.1.0.0/29' }], [{ subnet: 'fd00::/64' }]] } });
    call('ADD', { containerId: 'c2' });
    expect(call('DEL', { ipam: { ranges: [[{ subnet: '10.77.0.0/24' }]] } })).toEqual({
      exitCode: 0,
      json: undefined,
      log: [],
    });
    expect(files()).toEqual(['10.1.0.3']);
    expect(call('DEL').exitCode).toBe(0);
    expect(files()).toEqual(['10.1.0.3']);
  });

  it.each<[string, Options]>([
    ['no ranges', { ipam: { ranges: [] } }],
    ['ranges that are nonsense', { ipam: { ranges: 7, subnet: 'x', routes: 'x', resolvConf: 4 } }],
    ['bad CNI_ARGS', { args: 'IP=nonsense;;' }],
    ['bad runtimeConfig', { rest: { runtimeConfig: { ips: 'x' }, args: 7 } }],
  ])('frees with %s in its config', (_what, options) => {
    call('ADD');
    expect(call('DEL', options).exitCode).toBe(0);
    expect(files()).toEqual([]);
  });

  it('of a network that was never used makes no directory', () => {
    expect(call('DEL').exitCode).toBe(0);
    expect(readdirSync(dataDir)).toEqual([]);
  });

  it('frees a record with the container id alone only when there is none of its own', () => {
    call('ADD');
    writeFileSync(join(directory, '10.1.0.6'), 'c1');
    call('DEL');
    expect(files()).toEqual(['10.1.0.6']);
    call('DEL');
    expect(files()).toEqual([]);
  });

  it('spares pointer and lock, whatever the container is called', () => {
    call('ADD');
    for (const containerId of ['10.1.0.2', 'lock']) call('DEL', { containerId });
    expect(readdirSync(directory).sort()).toEqual(['10.1.0.2', 'last_reserved_ip.0', 'lock']);
  });
});

describe('CHECK', () => {
  const prevResult = (address: string) => ({
    rest: { prevResult: { cniVersion: '1.1.0', ips: [{ address }] } },
  });

  it('passes after ADD, with and without prevResult', () => {
    call('ADD');
    expect(call('CHECK')).toEqual({ exitCode: 0, json: undefined, log: [] });
    expect(call('CHECK', prevResult('10.1.0.2/29')).exitCode).toBe(0);
    // Somebody else's business.
    expect(call('CHECK', prevResult('192.0.2.7/24')).exitCode).toBe(0);
  });

  it('passes for a record with the container id alone', () => {
    mkdirSync(directory);
    writeFileSync(join(directory, '10.1.0.2'), 'c1');
    expect(call('CHECK', prevResult('10.1.0.2/29')).exitCode).toBe(0);
  });

  it('fails when nothing is held', () => {
    expect(call('CHECK').json).toMatchObject({
      code: 107,
      msg: `"c1" "eth0" holds no address on network "n1" in "${dataDir}"`,
    });
    expect(readdirSync(dataDir)).toEqual([]);
    call('ADD');
    expect(call('CHECK', { ifname: 'eth1' }).json.code).toBe(107);
  });

  it('names the address that is not recorded, and who has it', () => {
    call('ADD');
    call('ADD', { containerId: 'c2' });
    expect(call('CHECK', prevResult('10.1.0.5/29')).json).toMatchObject({
      code: 107,
      msg: `The address "10.1.0.5" of "c1" "eth0" is free in the store "${directory}", which has "10.1.0.2" for it`,
    });
    expect(call('CHECK', prevResult('10.1.0.3/29')).json.msg).toMatch(/is held by "c2" "eth0" in the store/);
  });
});

describe('STATUS', () => {
  it('is well before the first ADD, and makes nothing', () => {
    expect(call('STATUS')).toEqual({ exitCode: 0, json: undefined, log: [] });
    expect(readdirSync(dataDir)).toEqual([]);
  });

  it('says on stderr that a set is exhausted, and fails only when it is asked to', () => {
    for (const containerId of ['a', 'b', 'c', 'd', 'e']) {
      expect(call('STATUS').log).toEqual([]);
      call('ADD', { containerId });
    }
    const line = 'There are no IP addresses available in range set "10.1.0.1-10.1.0.6": all 5 are taken';
    expect(call('STATUS')).toEqual({ exitCode: 0, json: undefined, log: [line] });
    expect(call('STATUS', { ipam: { strictStatus: true } }).json).toMatchObject({ code: 50, msg: line });
    expect(call('STATUS', { rest: { strictStatus: true } }).json).toMatchObject({ code: 50, msg: line });
    writeFileSync(join(directory, '10.1.0.3'), '');
    expect(call('STATUS', { ipam: { strictStatus: true } })).toEqual({
      exitCode: 0,
      json: undefined,
      log: [],
    });
  });

  it('fails with code 50 naming the path that is in the way', () => {
    writeFileSync(directory, '');
    expect(call('STATUS').json).toMatchObject({
      code: 50,
      msg: expect.stringContaining(`${directory}" cannot be written: it is not a directory`),
    });
    rmSync(directory);
    mkdirSync(join(directory, 'lock'), { recursive: true });
    expect(call('STATUS').json).toMatchObject({
      code: 50,
      msg: expect.stringContaining('lock": it is not a regular file'),
    });
    expect(call('STATUS', { ipam: { dataDir: '/proc/nowhere' } }).json).toMatchObject({
      code: 50,
      msg: expect.stringMatching(/"\/proc\/nowhere\/.* cannot be written, at "\/proc": /),
    });
  });

  it('refuses a config that ADD would refuse', () => {
    expect(call('STATUS', { ipam: { ranges: [] } }).json.code).toBe(7);
  });
});

describe('GC', () => {
  const valid = (...attachments: { containerID: string; ifname: string }[]) => ({
    rest: { 'cni.dev/valid-attachments': attachments },
  });

  beforeEach(() => {
    for (const containerId of ['c1', 'c2']) {
      for (const ifname of ['eth0', 'eth1']) call('ADD', { containerId, ifname });
    }
    writeFileSync(join(directory, '10.1.0.6'), 'old');
  });

  it('frees what is not on the list', () => {
    const keep = valid({ containerID: 'c1', ifname: 'eth1' }, { containerID: 'old', ifname: 'any' });
    expect(call('GC', keep)).toMatchObject({ exitCode: 0, json: undefined });
    expect(files()).toEqual(['10.1.0.3', '10.1.0.6']);
  });

  it.each([
    ['an empty list', []],
    ['null', null],
  ])('frees everything with %s, and says what', (_what, list) => {
    const { log } = call('GC', { rest: { 'cni.dev/valid-attachments': list } });
    expect(files()).toEqual([]);
    expect(log).toHaveLength(5);
    expect(log).toContain('Released 10.1.0.2, held by "c1" "eth0"');
  });

  it('frees files that name nobody, and leaves alone what is no file', () => {
    writeFileSync(join(directory, '10.1.0.2'), '');
    writeFileSync(join(directory, '10.1.0.3'), 'x\r\n');
    rmSync(join(directory, '10.1.0.4'));
    symlinkSync('/etc/passwd', join(directory, '10.1.0.4'));
    writeFileSync(join(directory, 'notes.txt'), 'c1\r\neth0');
    call('GC', valid({ containerID: 'c2', ifname: 'eth1' }));
    expect(readdirSync(directory).sort()).toEqual([
      '10.1.0.4',
      '10.1.0.5',
      'last_reserved_ip.0',
      'lock',
      'notes.txt',
    ]);
  });

  it('works without any range in the config', () => {
    expect(call('GC', { ipam: { ranges: 'x' }, rest: { 'cni.dev/valid-attachments': [] } }).exitCode).toBe(0);
    expect(files()).toEqual([]);
  });

  it('without a list keeps what may be alive: no boot in the record, or a main plugin that makes no host link', () => {
    const other = { rest: { type: 'macvlan' } };
    expect(call('GC', other)).toEqual({ exitCode: 0, json: undefined, log: [] });
    expect(files()).toHaveLength(5);
    // Records of the reference: the same bytes, no boot.
    for (const name of files()) {
      const bytes = readFileSync(join(directory, name));
      rmSync(join(directory, name));
      writeFileSync(join(directory, name), bytes);
    }
    expect(call('GC')).toEqual({ exitCode: 0, json: undefined, log: [] });
    expect(files()).toHaveLength(5);
  });
});

describe('the store', () => {
  it('never holds more than the reference would write', () => {
    call('ADD');
    expect(readdirSync(directory).sort()).toEqual(['10.1.0.2', 'last_reserved_ip.0', 'lock']);
    expect(readFileSync(join(directory, '10.1.0.2'), 'latin1')).toBe('c1\r\neth0');
    expect(readFileSync(join(directory, 'last_reserved_ip.0'), 'latin1')).toBe('10.1.0.2');
    expect(readFileSync(join(directory, 'lock'), 'latin1')).toBe('');
  });
});
