// The log of the packaged plugins: a line for each verb in a file or the journal, what is in it and what never is, and the
// trace of netlink messages. Part of `npm run test:binary`.
import { closeSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { listPlugins } from '../../plugins/registry.ts';
import { AF_UNIX, bind, MSG_DONTWAIT, recvfrom, SOCK_DGRAM, socket } from '../../shared/linux/libc.ts';
import {
  addList,
  asOne,
  CHAIN,
  callsOfList,
  checkList,
  delList,
  type List,
  MAPPINGS,
} from '../support/list-runner.ts';
import { openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectSuccess, type PluginCall, pluginDirectory } from '../support/run-plugin.ts';

const FILE = '/run/patchbay.log';
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';

interface Line {
  readonly [key: string]: unknown;
  readonly phases_ms: Readonly<Record<string, number>>;
  readonly duration_ms: number;
}

function linesOf(host: PrivateHost, path = FILE): Line[] {
  const text = readFileSync(host.file(path), 'utf8');
  expect(text).toMatch(/\n$/);
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
}

function logging(call: PluginCall, target = FILE, more: PluginCall['env'] = {}): PluginCall {
  return { ...call, env: { ...call.env, PATCHBAY_LOG: target, ...more } };
}

/** A list whose plugins all name this log. */
function withLog(list: List, log: unknown): List {
  return { ...list, plugins: list.plugins.map((entry) => ({ ...entry, log })) };
}

async function openPod(): Promise<{ host: PrivateHost; pod: Sandbox }> {
  const host = await openTestHost();
  return { host, pod: await host.addSandbox('pod') };
}

describe('a log file', () => {
  test('gets a line for each verb of each plugin, whose phases add up to the whole', async () => {
    const { host, pod } = await openPod();
    const known = { sandbox: pod };
    const add = async (position: number, prevResult?: object) => {
      const call = callsOfList(CHAIN, known)[position] as PluginCall;
      const config = { ...(call.config as object), ...(prevResult && { prevResult }) };
      const env = { TRACEPARENT: `00-${TRACE}-${SPAN}-01` };
      const outcome = await host.runPlugin('ADD', { ...logging({ ...call, config }, FILE, env) });
      expectSuccess(outcome);
      return JSON.parse(outcome.stdout) as object;
    };
    let result = await add(0);
    for (const position of [1, 2, 3]) result = await add(position, result);
    const version = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')).version;
    const lines = linesOf(host);
    expect(lines.map(({ plugin }) => plugin)).toEqual(['bridge', 'portmap', 'firewall', 'tuning']);
    for (const line of lines) {
      expect(line).toMatchObject({
        verb: 'ADD',
        network: CHAIN.name,
        container_id: 'pod',
        ifname: 'eth0',
        outcome: 'success',
        trace_id: TRACE,
        parent_span_id: SPAN,
        trace_flags: '01',
      });
      expect(line['version']).toContain(version);
      const sum = Object.values(line.phases_ms).reduce((a, b) => a + b);
      expect(Math.abs(sum - line.duration_ms)).toBeLessThan(1);
    }
    const phasesOf = (plugin: string) =>
      Object.keys(lines.find((line) => line['plugin'] === plugin)?.phases_ms ?? {});
    expect(phasesOf('bridge')).toEqual(
      expect.arrayContaining(['start', 'config', 'ipam', 'links', 'sysctls', 'rules', 'locks', 'rest']),
    );
    expect(phasesOf('portmap')).toEqual(expect.arrayContaining(['rules', 'flows']));
    expect(phasesOf('tuning')).toEqual(expect.arrayContaining(['links', 'sysctls']));
    expect(statSync(host.file(FILE)).mode & 0o777).toBe(0o600);
  });

  test('gets one line of patchbay, and one of an IPAM plugin that is another file', async () => {
    const { host, pod } = await openPod();
    const [call] = callsOfList(asOne(CHAIN), { sandbox: pod });
    for (const verb of ['ADD', 'DEL'] as const) {
      expectSuccess(await host.runPlugin(verb, logging(call as PluginCall)));
    }
    expect(linesOf(host).map(({ plugin, verb }) => `${plugin} ${verb}`)).toEqual([
      'patchbay ADD',
      'patchbay DEL',
    ]);
    rmSync(host.file(FILE));
    await host.shell(`mkdir /run/copies; cp ${pluginDirectory()}/host-local /run/copies`);
    const copied = { CNI_PATH: '/run/copies' };
    expectSuccess(await host.runPlugin('ADD', logging(call as PluginCall, FILE, copied)));
    const [inner, outer] = linesOf(host);
    expect(inner).toMatchObject({ plugin: 'host-local', verb: 'ADD', container_id: 'pod' });
    expect(outer).toMatchObject({ plugin: 'patchbay' });
    expect(outer?.phases_ms['ipam']).toBeGreaterThan(inner?.phases_ms['start'] ?? Number.NaN);
  });

  test('is named by the config as well, by every plugin, and keeps DEL from nothing when it cannot be', async () => {
    const { host, pod } = await openPod();
    await host.shell('mount -t tmpfs tmpfs /var/log; mkdir /var/log/patchbay');
    const file = '/var/log/patchbay/net1.log';
    const list = withLog(CHAIN, file);
    const prevResult = await addList(host, list, { sandbox: pod });
    expectSuccess(await checkList(host, list, { sandbox: pod, prevResult }));
    await delList(host, list, { sandbox: pod, prevResult });
    expectSuccess(await host.runPlugin('ADD', loopbackOf(pod, { log: file })));
    expect(linesOf(host, file).map(({ plugin, verb }) => `${plugin} ${verb}`)).toEqual([
      ...['bridge ADD', 'portmap ADD', 'firewall ADD', 'tuning ADD'],
      ...['bridge CHECK', 'portmap CHECK', 'firewall CHECK', 'tuning CHECK'],
      ...['tuning DEL', 'firewall DEL', 'portmap DEL', 'bridge DEL'],
      'loopback ADD',
    ]);
    const config = CHAIN.plugins[0]?.['ipam'];
    const hostLocal = { plugin: 'host-local', containerId: 'c9', netns: pod.path, ifname: 'eth0' };
    const ipam = { cniVersion: '1.1.0', name: 'alone', log: file, ipam: config };
    expectSuccess(await host.runPlugin('ADD', { ...hostLocal, config: ipam }));
    expect(linesOf(host, file).at(-1)).toMatchObject({ plugin: 'host-local', network: 'alone' });

    const forbidden = withLog(CHAIN, '/etc/cron.d/x');
    for (const call of callsOfList(forbidden, { sandbox: pod })) {
      expect(expectError(await host.runPlugin('ADD', call))).toMatchObject({ code: 7 });
      const del = await host.runPlugin('DEL', call);
      expect(del).toMatchObject({ exitCode: 0, stderr: expect.stringMatching(/^Field "log" of/) });
    }
    expect(existsSync(host.file('/etc/cron.d/x'))).toBe(false);
    const inside = asOne(CHAIN);
    const misplaced = { ...inside.plugins[0], bridge: { log: 'journal' }, type: 'patchbay' };
    const [call] = callsOfList({ ...inside, plugins: [misplaced] }, { sandbox: pod });
    expect(expectError(await host.runPlugin('ADD', call as PluginCall)).msg).toMatch(/"log" of "bridge"/);
  });

  test('takes the lines of forty plugins at the same time, each whole', async () => {
    const { host, pod } = await openPod();
    const config = { cniVersion: '1.1.0', name: 'n1', type: 'loopback', padding: 'x' };
    writeFileSync(host.file('/run/config.json'), JSON.stringify(config));
    await host.shell(`
      export CNI_COMMAND=CHECK CNI_NETNS=${pod.path} CNI_IFNAME=lo CNI_PATH=/x PATCHBAY_LOG=${FILE}
      for i in $(seq 40); do
        CNI_CONTAINERID=$(printf 'c%.0s' $(seq $((i * 50)))) ${pluginDirectory()}/loopback < /run/config.json > /dev/null &
      done
      wait
    `);
    const lines = linesOf(host);
    const lengths = lines.map((line) => String(line['container_id']).length);
    expect(lengths.sort((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, index) => (index + 1) * 50));
  });

  test('that cannot be written is a line on stderr, and the verb goes on', async () => {
    const { host, pod } = await openPod();
    const victim = '/run/victim';
    writeFileSync(host.file(victim), 'precious');
    await host.shell(`
      ln -s ${victim} /run/symlink; ln ${victim} /run/hard; mkfifo /run/fifo; mkdir /run/directory
      mount -t tmpfs -o size=4k tmpfs /run/directory; head -c 4096 /dev/zero > /run/directory/full
    `);
    const targets = [
      '/run/symlink',
      '/run/hard',
      '/run/fifo',
      '/run/directory',
      '/dev/null',
      '/run/no/where',
    ];
    for (const target of [...targets, '/run/directory/full', 'relative', 'journal']) {
      const outcome = await host.runPlugin('ADD', logging(loopbackOf(pod), target));
      expect(outcome, target).toMatchObject({
        exitCode: 0,
        stderr: expect.stringMatching(/^(Cannot write to|PATCHBAY_LOG must be)[^\n]*\n$/),
      });
      expect(outcome.ms, target).toBeLessThan(5000);
    }
    expect(readFileSync(host.file(victim), 'utf8')).toBe('precious');
  });
});

describe('of what the runtime hands in', () => {
  const SECRET = 'hunter2hunter2';

  test.each([
    ['a value of the wrong type', { mtu: SECRET }, {}],
    ['an object in the wrong place', { bridge: { password: SECRET } }, {}],
    ['a value that the kernel has to refuse', { bridge: `x/${SECRET}` }, {}],
    ['an IPAM plugin that is none', { ipam: { type: SECRET } }, {}],
    ['an unknown field', { password: SECRET, ipam: { type: 'missing' } }, {}],
    ['CNI_ARGS', { ipam: { type: 'host-local', subnet: '10.1.0.0/24' } }, { CNI_ARGS: `PASSWORD=${SECRET}` }],
    ['CNI_ARGS that cannot be read', {}, { CNI_ARGS: `${SECRET}=${SECRET}=` }],
    ['a container id', {}, { CNI_CONTAINERID: `/${SECRET}` }],
    ['another variable', { mtu: -1 }, { PASSWORD: SECRET }],
  ])('nothing of %s is in the log', async (_, fields, env) => {
    const { host, pod } = await openPod();
    const config = { cniVersion: '1.1.0', name: 'n1', type: 'bridge', password: SECRET, ...fields };
    const call = { containerId: 'c1', netns: pod.path, ifname: 'eth0', config };
    for (const verb of ['ADD', 'CHECK', 'DEL', 'STATUS', 'GC'] as const) {
      await host.runPlugin(verb, logging(call, FILE, env));
    }
    const text = readFileSync(host.file(FILE), 'utf8');
    expect(text).toMatch(/"outcome":"error"/);
    expect(text).not.toContain(SECRET);
    expect(text).not.toContain(SECRET.slice(0, 7));
  });

  test('nothing of a config that is no JSON is in the log', async () => {
    const { host, pod } = await openPod();
    const config = `{"password": "${SECRET}" x`;
    const call = { containerId: 'c1', netns: pod.path, ifname: 'eth0', config };
    await host.runPlugin('ADD', logging(call));
    expect(linesOf(host)).toMatchObject([{ code: 6, verb: 'ADD', plugin: 'bridge' }]);
    expect(readFileSync(host.file(FILE), 'utf8')).not.toContain(SECRET.slice(0, 7));
  });
});

describe('the journal', () => {
  const JOURNAL = '/run/systemd/journal/socket';

  function listen(host: PrivateHost): number {
    const path = host.file(JOURNAL);
    mkdirSync(dirname(path), { recursive: true });
    const fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    bind(fd, Buffer.concat([Buffer.from(Uint16Array.of(AF_UNIX).buffer), Buffer.from(`${path}\0`)]));
    return fd;
  }

  test('gets one datagram for each verb, by the native protocol', async () => {
    const { host, pod } = await openPod();
    const journal = listen(host);
    try {
      expectSuccess(await host.runPlugin('ADD', logging(loopbackOf(pod), 'journal')));
      expectError(await host.runPlugin('ADD', logging({ ...loopbackOf(pod), netns: '/x' }, 'journal')));
      const receive = () => {
        const buffer = Buffer.alloc(65_536);
        const length = recvfrom(journal, buffer, MSG_DONTWAIT, new Uint8Array(110));
        return length === undefined ? undefined : buffer.toString('utf8', 0, length);
      };
      const [first, second] = [receive(), receive()].map((text) =>
        Object.fromEntries(
          (text ?? '').split('\n').map((line) => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)]),
        ),
      );
      expect(first).toMatchObject({
        PRIORITY: '6',
        SYSLOG_IDENTIFIER: 'patchbay',
        PATCHBAY_PLUGIN: 'loopback',
        PATCHBAY_VERB: 'ADD',
        PATCHBAY_NETWORK: 'n1',
        PATCHBAY_CONTAINER_ID: 'c1',
        PATCHBAY_IFNAME: 'lo',
      });
      expect(JSON.parse(first?.['MESSAGE'] ?? '')).toMatchObject({ outcome: 'success', network: 'n1' });
      expect(second).toMatchObject({ PRIORITY: '3' });
      expect(JSON.parse(second?.['MESSAGE'] ?? '')).toMatchObject({ outcome: 'error', code: 8 });
      expect(receive()).toBeUndefined();
    } finally {
      closeSync(journal);
    }
  });

  test('that does not read holds nobody', async () => {
    const { host, pod } = await openPod();
    const journal = listen(host);
    try {
      let refused: string | undefined;
      // The kernel queues net.unix.max_dgram_qlen datagrams for a socket that nobody reads.
      for (let sent = 0; refused === undefined && sent < 1000; sent++) {
        const outcome = await host.runPlugin('CHECK', logging(loopbackOf(pod), 'journal'));
        expect(outcome.ms).toBeLessThan(5000);
        if (outcome.stderr !== '') refused = outcome.stderr;
      }
      expect(refused).toMatch(/^Cannot write to the journal: .*EAGAIN/);
    } finally {
      closeSync(journal);
    }
  });
});

describe('a trace', () => {
  test.each(listPlugins())('of %s shows the messages of each family it speaks', async (plugin) => {
    const { host, pod } = await openPod();
    const known = { sandbox: pod, portMappings: MAPPINGS };
    const chain = plugin === 'patchbay' ? asOne(CHAIN) : CHAIN;
    const traced = (call: PluginCall) => ({ ...call, env: { PATCHBAY_TRACE: 'netlink' } });
    let said = '';
    if (plugin === 'loopback') said = (await host.runPlugin('ADD', traced(loopbackOf(pod)))).stderr;
    else if (plugin === 'host-local') {
      const config = { cniVersion: '1.1.0', name: 'n1', ipam: CHAIN.plugins[0]?.['ipam'] };
      const call = { plugin, containerId: 'c1', netns: pod.path, ifname: 'eth0', config };
      said = (await host.runPlugin('ADD', traced(call))).stderr;
    } else {
      let prevResult: object | undefined;
      for (const call of callsOfList(chain, known)) {
        const config = { ...(call.config as object), ...(prevResult && { prevResult }) };
        const outcome = await host.runPlugin('ADD', traced({ ...call, config }));
        expectSuccess(outcome);
        prevResult = JSON.parse(outcome.stdout) as object;
        if (call.plugin === plugin) said = outcome.stderr;
      }
    }
    for (const sign of SIGNS[plugin] ?? []) expect(said).toMatch(sign);
    expect(said).toMatch(/^\| +type \| flags +\|$|\|\t\| {2}type \| flags {2}\|/m);
  });

  /** What the line above a message says of one of each family: rtnetlink, nf_tables, conntrack. */
  const LINKS = /^> .*(link|addr|route)/m;
  const RULES = /^> .*(table|rule|batch|element|generation|commit)/m;
  const FLOWS = /^> .*(flow|connection)/m;
  const SIGNS: Readonly<Record<string, readonly RegExp[]>> = {
    bridge: [LINKS, RULES],
    loopback: [LINKS],
    'host-local': [LINKS],
    portmap: [RULES, FLOWS],
    firewall: [RULES],
    tuning: [LINKS],
    patchbay: [LINKS, RULES, FLOWS],
  };
});

function loopbackOf(pod: Sandbox, fields: object = {}): PluginCall {
  const config = {
    cniVersion: '1.1.0',
    name: 'n1',
    type: 'loopback',
    prevResult: LOOPBACK_RESULT,
    ...fields,
  };
  return { plugin: 'loopback', containerId: 'c1', netns: pod.path, ifname: 'lo', config };
}

const LOOPBACK_RESULT = { cniVersion: '1.1.0' };
