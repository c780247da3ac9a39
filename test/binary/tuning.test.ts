// The packaged tuning plugin behind bridge: what it sets, what CHECK says of it, and that DEL and GC leave nothing.
// Part of `npm run test:binary`; the kernel is read back with ip and sysctl.
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { attach, detach, withPrevResult } from '../support/attachment.ts';
import { changed } from '../support/chain.ts';
import { openPrimedHost, type Primed } from '../support/primed-host.ts';
import type { PrivateHost } from '../support/private-host.ts';
import { expectError, expectResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { runTraced } from '../support/strace.ts';
import {
  attachTunable,
  SETTINGS,
  TUNED,
  type Tunable,
  tune,
  tunedFacts,
  tuningCallOf,
} from '../support/tuned.ts';

const BACKUP = '/run/cni/tuning/pod_eth0.json';

const AS_WISHED = {
  mac: '02:00:00:00:00:0a',
  mtu: 1400,
  txQLen: 77,
  promisc: true,
  allmulti: true,
  somaxconn: '512',
  arpFilter: '1',
};

interface Ready extends Primed {
  readonly tunable: Tunable;
  /** The host with the attachment, before it was tuned. */
  readonly attached: Snapshot;
  readonly factsBefore: object;
}

/** A host on which tuning was at work before, and an attachment that is not tuned yet. */
async function openReady(fields?: object): Promise<Ready> {
  const { host, sandbox } = await openPrimedHost(TUNED);
  mkdirSync(host.file('/run/cni/tuning'), { recursive: true, mode: 0o700 });
  const before = await host.snapshot();
  const tunable = await attachTunable(host, sandbox, { ...(fields ?? SETTINGS) });
  const attached = await host.snapshot();
  return { host, sandbox, before, tunable, attached, factsBefore: await tunedFacts(sandbox) };
}

async function remove(host: PrivateHost, call: PluginCall): Promise<void> {
  expect(await host.runPlugin('DEL', call)).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
}

describe('an attachment', () => {
  test('is tuned, checked, and becomes what it was', async () => {
    const { host, sandbox, before, tunable, attached, factsBefore } = await openReady();
    const result = await tune(host, tunable);
    expect(await tunedFacts(sandbox)).toEqual(AS_WISHED);
    expect(result.interfaces?.map(({ mac }) => mac)).toEqual([
      tunable.result.interfaces?.[0]?.mac,
      tunable.result.interfaces?.[1]?.mac,
      AS_WISHED.mac,
    ]);

    const call = changed(tunable.tuningCall, { prevResult: result });
    expectSuccess(await host.runPlugin('CHECK', call));
    expectSuccess(await host.runPlugin('CHECK', withPrevResult({ ...tunable, result })));
    await remove(host, call);
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
    expect(difference(attached, await host.snapshot())).toEqual([]);
    await remove(host, call);
    await detach(host, { ...tunable, result });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('that nothing is wished of passes its result on, unknown keys and all, and needs no sandbox', async () => {
    const { host, tunable, attached } = await openReady({});
    const prevResult = { ...tunable.result, vendor: { key: 1 }, 'cni.dev/x': [] };
    const call = { ...changed(tunable.tuningCall, { prevResult }), netns: '/run/netns/nowhere' };
    expect(expectResult(await host.runPlugin('ADD', call))).toEqual(prevResult);
    for (const verb of ['CHECK', 'DEL'] as const) expectSuccess(await host.runPlugin(verb, call));
    expect(difference(attached, await host.snapshot())).toEqual([]);
  });

  test.for(['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'])(
    'is reported at version %s in the shape of that version',
    async (cniVersion) => {
      const { host, sandbox } = await openPrimedHost(TUNED);
      const config = { ...TUNED, cniVersion };
      const attached = await attach(host, config, sandbox);
      const result = expectResult(await host.runPlugin('ADD', tuningCallOf(attached, SETTINGS)));
      const expected = JSON.parse(JSON.stringify(attached.result)) as typeof attached.result;
      const link = expected.interfaces?.[2];
      expect(result).toEqual({
        ...expected,
        ...(link && {
          interfaces: [...(expected.interfaces?.slice(0, 2) ?? []), { ...link, mac: AS_WISHED.mac }],
        }),
      });
      expect((await tunedFacts(sandbox))['mac']).toBe(AS_WISHED.mac);
    },
  );

  test('takes each setting from where it counts most', async () => {
    const { host, sandbox, tunable } = await openReady();
    const fields = {
      runtimeConfig: { mac: '02:00:00:00:00:0c' },
      args: { cni: { mtu: 1300, sysctl: { 'net.core.somaxconn': '77' } } },
    };
    const args = 'IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:00:00:00:0b';
    const call = { ...changed(tunable.tuningCall, fields), args };
    expectSuccess(await host.runPlugin('ADD', call));
    expect(await tunedFacts(sandbox)).toEqual({
      ...AS_WISHED,
      mac: '02:00:00:00:00:0c',
      mtu: 1300,
      somaxconn: '77',
    });
    expectSuccess(await host.runPlugin('CHECK', call));
  });

  test('gets a sysctl of args.cni without one in the config', async () => {
    const { host, sandbox, tunable } = await openReady({
      args: { cni: { sysctl: { 'net.core.somaxconn': '77' } } },
    });
    await tune(host, tunable);
    expect(await tunedFacts(sandbox)).toMatchObject({ somaxconn: '77' });
  });

  test('gets back a setting that was empty, and one of several numbers', async () => {
    const sysctl = {
      'net.ipv4.ip_local_reserved_ports': '8080,9000-9010',
      'net.ipv4.tcp_rmem': '4096 5000 6000',
    };
    const { host, sandbox, tunable } = await openReady({ sysctl });
    const read = async () => (await sandbox.run('sysctl', Object.keys(sysctl))).stdout;
    const before = await read();
    expect(before).toMatch(/reserved_ports = *\n/);
    await tune(host, tunable);
    expect(await read()).toBe(
      'net.ipv4.ip_local_reserved_ports = 8080,9000-9010\nnet.ipv4.tcp_rmem = 4096\t5000\t6000',
    );
    expectSuccess(await host.runPlugin('CHECK', tunable.tuningCall));
    await remove(host, tunable.tuningCall);
    expect(await read()).toBe(before);
  });

  test('may trigger what has no value', async () => {
    const { host, tunable, attached } = await openReady({ sysctl: { 'net.ipv4.route.flush': '1' } });
    await tune(host, tunable);
    expectSuccess(await host.runPlugin('CHECK', tunable.tuningCall));
    await remove(host, tunable.tuningCall);
    expect(difference(attached, await host.snapshot())).toEqual([]);
  });
});

describe('an ADD that fails half-way', () => {
  test.for([
    ['a value the kernel refuses', { 'net.ipv4.conf.IFNAME.arp_filter': 'nonsense' }, 105, 'arp_filter'],
    ['a setting that does not exist', { 'net.ipv4.conf.IFNAME.nosuch': '1' }, 106, 'nosuch'],
    ['a directory of settings', { 'net.ipv4.conf': '1' }, 105, 'net/ipv4/conf'],
  ] as const)('because of %s restores the rest', async ([, wrong, code, says]) => {
    const { host, sandbox, tunable, attached, factsBefore } = await openReady({
      ...SETTINGS,
      sysctl: { 'net.core.somaxconn': '512', ...wrong },
    });
    const outcome = await host.runPlugin('ADD', tunable.tuningCall);
    expect(expectError(outcome)).toMatchObject({ code, msg: expect.stringContaining(says) });
    expect(outcome.stderr).toBe('');
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
    expect(difference(attached, await host.snapshot())).toEqual([]);
  });
});

describe('CHECK names', () => {
  test.for([
    [
      'the MAC address',
      'ip link set eth0 address 02:00:00:00:00:0f',
      ['02:00:00:00:00:0f', '02:00:00:00:00:0a'],
    ],
    ['the MTU', 'ip link set eth0 mtu 1280', ['1280', '1400']],
    ['promiscuous mode', 'ip link set eth0 promisc off', ['promiscuous mode off', 'promiscuous mode on']],
    ['all-multicast mode', 'ip link set eth0 allmulticast off', ['all-multicast mode off']],
    ['the queue', 'ip link set eth0 txqueuelen 78', ['78', '77']],
    [
      'a sysctl of the link',
      'sysctl -w net.ipv4.conf.eth0.arp_filter=0',
      ['net/ipv4/conf/eth0/arp_filter', '"0"', '"1"'],
    ],
    ['a sysctl of the sandbox', 'sysctl -w net.core.somaxconn=99', ['net/core/somaxconn', '"99"', '"512"']],
    ['a link that is gone', 'ip link delete eth0', ['"eth0" does not exist']],
  ] as const)('%s when it is different', async ([, script, says]) => {
    const { host, sandbox, tunable } = await openReady();
    await tune(host, tunable);
    await sandbox.shell(script);
    const { code, msg } = expectError(await host.runPlugin('CHECK', tunable.tuningCall));
    expect(code).toBe(107);
    for (const text of says) expect(msg).toContain(text);
  });
});

describe('DEL', () => {
  test.for([
    ['knows no sandbox', (call: PluginCall) => ({ ...call, netns: '' })],
    [
      'knows neither sandbox nor result nor settings',
      (call: PluginCall) => ({
        ...changed(call, { prevResult: undefined, sysctl: undefined, mac: undefined, mtu: undefined }),
        netns: '',
      }),
    ],
    [
      'has a config that is wrong everywhere',
      (call: PluginCall) => ({
        ...changed(call, { sysctl: 7, mac: [], mtu: 'x', dataDir: 'relative', args: 1 }),
        args: '=;=',
      }),
    ],
  ] as const)('that %s leaves no backup', async ([, callOf]) => {
    const { host, tunable } = await openReady();
    await tune(host, tunable);
    expect(existsSync(host.file(BACKUP))).toBe(true);
    await remove(host, callOf(tunable.tuningCall));
    expect(existsSync(host.file(BACKUP))).toBe(false);
  });

  test('restores by what was noted down, though the config is another by now', async () => {
    const { host, sandbox, tunable, factsBefore } = await openReady();
    await tune(host, tunable);
    const call = changed(tunable.tuningCall, {
      sysctl: { 'net.core.somaxconn': '1' },
      mtu: 1280,
      mac: 'wrong',
    });
    await remove(host, call);
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
  });

  test('after the sandbox is gone leaves no backup', async () => {
    const { host, before, tunable } = await openReady();
    const result = await tune(host, tunable);
    await host.run('ip', ['netns', 'delete', 'pod']);
    await remove(host, tunable.tuningCall);
    await detach(host, { ...tunable, result });
    await host.addSandbox('pod');
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('after the link is gone restores the settings of the sandbox', async () => {
    const { host, sandbox, tunable } = await openReady();
    await tune(host, tunable);
    await sandbox.run('ip', ['link', 'delete', 'eth0']);
    await remove(host, tunable.tuningCall);
    expect((await sandbox.run('sysctl', ['-n', 'net.core.somaxconn'])).stdout).not.toBe('512');
    expect(existsSync(host.file(BACKUP))).toBe(false);
  });

  test('leaves another link of that name alone', async () => {
    const { host, sandbox, tunable } = await openReady();
    await tune(host, tunable);
    await sandbox.shell(`
      ip link delete eth0
      ip link add eth0 mtu 1333 type veth peer name other
      sysctl -qw net.ipv4.conf.eth0.arp_filter=1
    `);
    const stranger = await tunedFacts(sandbox);
    await remove(host, tunable.tuningCall);
    expect(await tunedFacts(sandbox)).toEqual({ ...stranger, somaxconn: '4096' });
  });

  test('leaves another sandbox at that path alone', async () => {
    const { host, tunable } = await openReady();
    await tune(host, tunable);
    await host.run('ip', ['netns', 'delete', 'pod']);
    const stranger = await host.addSandbox('pod');
    await stranger.shell(
      'ip link add eth0 mtu 1333 type veth peer name other; sysctl -qw net.core.somaxconn=5',
    );
    const facts = await tunedFacts(stranger);
    await remove(host, tunable.tuningCall);
    expect(await tunedFacts(stranger)).toEqual(facts);
    expect(existsSync(host.file(BACKUP))).toBe(false);
  });

  test('says what the kernel will not have any more, and comes to its end', async () => {
    const { host, sandbox, tunable } = await openReady();
    await tune(host, tunable);
    const backup = JSON.parse(readFileSync(host.file(BACKUP), 'utf8')) as object;
    writeFileSync(host.file(BACKUP), JSON.stringify({ ...backup, mtu: 7 }));
    const outcome = await host.runPlugin('DEL', tunable.tuningCall);
    expect(outcome).toMatchObject({ exitCode: 0, stdout: '' });
    expect(outcome.stderr).toMatch(/^Cannot set MTU 7 on "eth0", as it was before: .*EINVAL.*\n$/);
    expect(await tunedFacts(sandbox)).toMatchObject({ mtu: 1400, txQLen: 1000, somaxconn: '4096' });
    expect(existsSync(host.file(BACKUP))).toBe(false);
  });

  test('throws a torn backup away, and does not follow or open what is no file', async () => {
    const { host, tunable } = await openReady();
    writeFileSync(host.file(BACKUP), '{"mtu": 14');
    const torn = await host.runPlugin('DEL', tunable.tuningCall);
    expect(torn).toMatchObject({ exitCode: 0, stderr: expect.stringContaining(BACKUP) });
    expect(existsSync(host.file(BACKUP))).toBe(false);

    writeFileSync(host.file('/run/elsewhere'), '{"mtu": 1234}');
    for (const make of [`ln -s /run/elsewhere ${BACKUP}`, `mkfifo ${BACKUP}`, `mkdir ${BACKUP}`]) {
      await host.shell(make);
      const foreign = await host.snapshot();
      await remove(host, tunable.tuningCall);
      const { code, msg } = expectError(await host.runPlugin('ADD', tunable.tuningCall));
      expect({ code, msg }).toEqual({ code: 5, msg: expect.stringContaining(BACKUP) });
      expect(difference(foreign, await host.snapshot())).toEqual([]);
      await host.shell(`rm -r ${BACKUP}`);
    }
  });
});

describe('what was before', () => {
  test('is still known after a second ADD', async () => {
    const { host, sandbox, tunable, attached, factsBefore } = await openReady();
    await tune(host, tunable);
    await tune(host, tunable);
    await remove(host, tunable.tuningCall);
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
    expect(difference(attached, await host.snapshot())).toEqual([]);
  });

  test('is still known when a second ADD fails', async () => {
    const { host, sandbox, tunable, factsBefore } = await openReady();
    await tune(host, tunable);
    const kept = readFileSync(host.file(BACKUP), 'utf8');
    const wrong = { sysctl: { 'net.core.somaxconn': '9', 'net.ipv4.conf.IFNAME.arp_filter': 'nonsense' } };
    expectError(await host.runPlugin('ADD', changed(tunable.tuningCall, wrong)));
    expect(await tunedFacts(sandbox)).toEqual(AS_WISHED);
    expect(readFileSync(host.file(BACKUP), 'utf8')).toBe(kept);
    await remove(host, tunable.tuningCall);
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
  });

  test('is still known when a list has two of them', async () => {
    const { host, sandbox, tunable, attached, factsBefore } = await openReady({
      mtu: 1300,
      sysctl: SETTINGS.sysctl,
    });
    await tune(host, tunable);
    const second = changed(tunable.tuningCall, { ...SETTINGS, mtu: 1400 });
    expectSuccess(await host.runPlugin('ADD', second));
    expect(await tunedFacts(sandbox)).toEqual(AS_WISHED);
    for (const call of [second, tunable.tuningCall]) await remove(host, call);
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
    expect(difference(attached, await host.snapshot())).toEqual([]);
  });

  test('of an earlier sandbox is not taken for that of a new one', async () => {
    const { host, tunable } = await openReady();
    await tune(host, tunable);
    await host.run('ip', ['netns', 'delete', 'pod']);
    const restarted = await host.addSandbox('pod');
    await restarted.shell('ip link add eth0 mtu 1450 type veth peer name other');
    await tune(host, tunable);
    await remove(host, tunable.tuningCall);
    expect(await tunedFacts(restarted)).toMatchObject({ mtu: 1450 });
  });

  test('of another container whose file has that name is not touched', async () => {
    const { host, sandbox, tunable } = await openReady();
    await sandbox.run('ip', ['link', 'add', 'b_eth0', 'type', 'veth', 'peer', 'name', 'other']);
    const first = { ...tunable.tuningCall, containerId: 'a', ifname: 'b_eth0' };
    expectSuccess(await host.runPlugin('ADD', changed(first, { mac: undefined })));
    const kept = await host.snapshot();
    const second = { ...tunable.tuningCall, containerId: 'a_b', ifname: 'eth0' };
    expect(expectError(await host.runPlugin('ADD', second))).toMatchObject({
      code: 5,
      msg: expect.stringContaining('link "b_eth0" of container "a"'),
    });
    await remove(host, second);
    expect(difference(kept, await host.snapshot())).toEqual([]);
  });
});

describe('the list of allowed sysctls', () => {
  const LIST = '/etc/cni/tuning/allowlist.conf';

  test.for([
    ['nothing', '\n  \n', 7, 'net.core.somaxconn'],
    ['one of two', '^net\\.core\\.somaxconn$\n', 7, 'net.ipv4.conf.IFNAME.arp_filter'],
    ['other words', 'net.ipv4.conf.eth0.arp_filter\nsomaxconn\n', 7, 'net.ipv4.conf.IFNAME.arp_filter'],
    ['what nobody understands', 'somaxconn\n(?=net)\n', 5, '(?=net)'],
  ] as const)('with %s keeps the rest away', async ([, list, code, says]) => {
    const { host, tunable } = await openReady();
    mkdirSync(host.file('/etc/cni/tuning'));
    writeFileSync(host.file(LIST), list);
    const before = await host.snapshot();
    const refusal = expectError(await host.runPlugin('ADD', tunable.tuningCall));
    expect(refusal).toMatchObject({ code, msg: expect.stringContaining(LIST) });
    expect(refusal.msg).toContain(says);
    expect(expectError(await host.runPlugin('STATUS', tunable.tuningCall))).toMatchObject({
      code: 50,
      msg: expect.stringContaining(says),
    });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('with every key lets them be, by its first line that fits; and it has no say in DEL', async () => {
    const { host, sandbox, tunable, factsBefore } = await openReady();
    mkdirSync(host.file('/etc/cni/tuning'));
    writeFileSync(
      host.file('/etc/cni/tuning/data'),
      '  ^net\\.core\\.\r\n^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]+$\n(?=x)\n',
    );
    symlinkSync('data', host.file(LIST));
    await tune(host, tunable);
    expectSuccess(await host.runPlugin('STATUS', tunable.tuningCall));
    writeFileSync(host.file('/etc/cni/tuning/data'), '');
    expectSuccess(await host.runPlugin('CHECK', tunable.tuningCall));
    await remove(host, tunable.tuningCall);
    expect(await tunedFacts(sandbox)).toEqual(factsBefore);
  });

  test.for([
    ['leads nowhere', `ln -s /run/nowhere ${LIST}`],
    ['is a directory', `mkdir ${LIST}`],
    ['is a FIFO', `mkfifo ${LIST}`],
  ] as const)('that %s allows nothing', async ([, make]) => {
    const { host, tunable } = await openReady();
    await host.shell(`mkdir /etc/cni/tuning; ${make}`);
    expect(expectError(await host.runPlugin('ADD', tunable.tuningCall))).toMatchObject({
      code: 5,
      msg: expect.stringContaining(LIST),
    });
    expectSuccess(await host.runPlugin('ADD', changed(tunable.tuningCall, { sysctl: undefined })));
  });
});

describe('GC', () => {
  const valid = 'cni.dev/valid-attachments';

  test('removes the backups of this network that are not on the list, and no others', async () => {
    const { host, tunable } = await openReady();
    await tune(host, tunable);
    const second = await host.addSandbox('second');
    const stale = await attachTunable(host, second);
    await tune(host, stale);
    writeFileSync(host.file('/run/cni/tuning/theirs_eth0.json'), '{\n "mtu": 1500\n}');
    writeFileSync(host.file('/run/cni/tuning/note'), 'kept');
    const before = await host.snapshot();
    const config = { cniVersion: '1.1.0', name: TUNED.name, type: 'tuning' };
    const collect = async (more: object) =>
      expectSuccess(await host.runPlugin('GC', { plugin: 'tuning', config: { ...config, ...more } }));
    const gone = async () => difference(before, await host.snapshot()).map((line) => line.split(' ')[2]);

    await collect({});
    await collect({ name: 'other', [valid]: [] });
    await collect({ dataDir: '/run/nowhere', [valid]: [] });
    expect(await gone()).toEqual([]);
    await collect({
      [valid]: [
        { containerID: 'pod', ifname: 'eth0' },
        { containerID: 'second', ifname: 'eth1' },
      ],
    });
    expect(await gone()).toEqual(['/run/cni/tuning/second_eth0.json']);
    await collect({ [valid]: [] });
    expect(await gone()).toEqual(
      ['/run/cni/tuning/pod_eth0.json', '/run/cni/tuning/second_eth0.json'].sort(),
    );
  });
});

test('a backup is made in one step, before anything is changed, and is read without following a link', async () => {
  const { host, tunable } = await openReady();
  const { lines, exitCode } = await runTraced(host, 'ADD', tunable.tuningCall, [
    ...['-y', '-s', '300'],
    ...['-e', 'trace=openat,rename,sendto,write'],
  ]);
  expect(exitCode).toBe(0);
  const positionOf = (pattern: RegExp) => lines.findIndex((line) => pattern.test(line));
  const renamed = positionOf(/rename\(.*pod_eth0\.json"\) = 0/);
  const [written, linkSet] = [positionOf(/write\(.*\/proc\/sys\/net/), positionOf(/RTM_NEWLINK|0x10\b/)];
  expect(renamed).toBeGreaterThan(0);
  expect(written).toBeGreaterThan(renamed);
  expect(linkSet).toBeGreaterThan(renamed);
  expect(lines.filter((line) => /cni\/tuning/.test(line) && /^openat/.test(line)).join('\n')).toMatch(
    /O_NOFOLLOW/,
  );
});
