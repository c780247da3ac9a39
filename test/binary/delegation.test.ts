// The packaged bridge and its IPAM plugin: one program under two names, two copies of it, or somebody else's program.
// Part of `npm run test:binary`.
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { readNetwork } from '../support/network-list.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  type PluginOutcome,
  pluginDirectory,
  type Verb,
} from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { runTraced } from '../support/strace.ts';

const { config } = readNetwork('bridge-dual-stack.conflist');
const VALID_ATTACHMENTS = 'cni.dev/valid-attachments';

/** Where plugins stand in a private host; in memory, and gone with it. */
const DIRECTORY = '/run/cni-bin';

async function openHost(): Promise<{ host: PrivateHost; pod: Sandbox }> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  mkdirSync(host.file(DIRECTORY));
  return { host, pod: await host.addSandbox('pod') };
}

function callOf(pod: Sandbox, more: Partial<PluginCall> = {}): PluginCall {
  return { config, containerId: pod.name, netns: pod.path, ifname: 'eth0', ...more };
}

describe('Copies of the executables', () => {
  /** Two files of their own, as `install` makes them. */
  function installCopies(host: PrivateHost): void {
    for (const name of ['bridge', 'host-local'])
      copyFileSync(join(pluginDirectory(), name), join(host.file(DIRECTORY), name));
  }

  // Random by nature; the rest of what a verb says must be the same.
  function said({ exitCode, stdout, stderr }: PluginOutcome): object {
    const report = stdout.replaceAll(/"mac": "[^"]*"/g, '"mac": "a MAC"');
    return { exitCode, stdout: report, stderr: stderr.replaceAll(DIRECTORY, pluginDirectory()) };
  }

  /** A life with its mishaps, told verb by verb. */
  async function live(directory: string): Promise<object[]> {
    const { host, pod } = await openHost();
    installCopies(host);
    const run = (verb: Verb, more: Partial<PluginCall> = {}) =>
      host.runPlugin(verb, callOf(pod, { directory, ...more }));
    const wished = { ...config, runtimeConfig: { ips: ['192.0.2.9'] } };
    const refused = await run('ADD', { config: wished });
    const added = await run('ADD');
    const checked = { ...config, prevResult: expectResult(added) };
    const outcomes = [
      await run('STATUS'),
      refused,
      added,
      await run('ADD'),
      await run('CHECK', { config: checked }),
      await run('GC', {
        config: { ...config, [VALID_ATTACHMENTS]: [{ containerID: 'pod', ifname: 'eth0' }] },
      }),
      await run('CHECK', { config: checked }),
      await run('DEL', { config: checked }),
      await run('DEL', { config: checked }),
      await run('CHECK', { config: checked }),
      await run('STATUS', { config: { ...config, ipam: { type: 'host-local', ranges: [] } } }),
    ];
    return outcomes.map(said);
  }

  test('say and do the same as one file under two names', async () => {
    const [alone, together] = [await live(DIRECTORY), await live(pluginDirectory())];
    expect(alone).toEqual(together);
    const codes = together.map((outcome) => ('exitCode' in outcome ? outcome.exitCode : undefined));
    expect(codes).toEqual([0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1]);
  });

  test('start one program more in a verb; one file under two names starts none', async () => {
    const { host, pod } = await openHost();
    installCopies(host);
    for (const [directory, programs] of [
      [DIRECTORY, 2],
      [pluginDirectory(), 1],
    ] as const) {
      for (const verb of ['ADD', 'STATUS', 'GC', 'DEL'] as const) {
        const options = ['-f', '-e', 'trace=execve,execveat'];
        const keep = { ...config, [VALID_ATTACHMENTS]: [{ containerID: 'pod', ifname: 'eth0' }] };
        const traced = await runTraced(host, verb, callOf(pod, { directory, config: keep }), options);
        expectSuccess(traced);
        const started = traced.lines.filter((line) => /exec.*= 0$/.test(line));
        expect(started, `${verb} in ${directory}`).toHaveLength(programs);
      }
    }
  });
});

describe('Somebody else’s IPAM plugin', () => {
  /** A shell script that records how it is called, and answers as told. */
  function install(host: PrivateHost, answer: string): void {
    const script = join(host.file(DIRECTORY), 'foreign');
    const record = `cat > ${DIRECTORY}/stdin-$CNI_COMMAND; env > ${DIRECTORY}/env-$CNI_COMMAND`;
    writeFileSync(script, `#!/bin/sh\necho $CNI_COMMAND >> ${DIRECTORY}/calls\n${record}\n${answer}\n`);
    chmodSync(script, 0o755);
  }

  const ADDRESS = '{"cniVersion": "1.1.0", "ips": [{"address": "10.99.0.7/24", "gateway": "10.99.0.1"}]}';
  // Not as JSON.stringify would write it: the plugin must get these very bytes.
  const STDIN = `{ "cniVersion":"1.1.0",\n\t"name":"odd", "bridge":"br-odd", "isGateway" :true, "ipMasq":true,
    "ipam": { "TYPE" : "foreign", "é": [1.0, 2e3] }, "type":"bridge" }\n\n`;

  function callForeign(pod: Sandbox, more: Partial<PluginCall> = {}): PluginCall {
    const path = `/nowhere:${DIRECTORY}:${pluginDirectory()}`;
    return callOf(pod, { config: STDIN, env: { CNI_PATH: path, TRACEPARENT: '00-abc' }, ...more });
  }

  function callsOf(host: PrivateHost): string[] {
    const file = host.file(`${DIRECTORY}/calls`);
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
  }

  test('is found on CNI_PATH and gets environment and standard input as they came', async () => {
    const { host, pod } = await openHost();
    install(host, `[ $CNI_COMMAND != ADD ] || echo '${ADDRESS}'`);
    const { ips } = expectResult(
      await host.runPlugin('ADD', callForeign(pod, { args: 'IgnoreUnknown=1;K=v w' })),
    );
    expect(ips).toEqual([{ address: '10.99.0.7/24', gateway: '10.99.0.1', interface: 2 }]);
    expect(readFileSync(host.file(`${DIRECTORY}/stdin-ADD`), 'utf8')).toBe(STDIN);
    const env = readFileSync(host.file(`${DIRECTORY}/env-ADD`), 'utf8').split('\n');
    for (const line of ['CNI_COMMAND=ADD', 'CNI_ARGS=IgnoreUnknown=1;K=v w', 'TRACEPARENT=00-abc'])
      expect(env).toContain(line);
    expectSuccess(await host.runPlugin('DEL', callForeign(pod)));
    expect(readFileSync(host.file(`${DIRECTORY}/stdin-DEL`), 'utf8')).toBe(STDIN);
    expect(callsOf(host)).toEqual(['ADD', 'DEL']);
  });

  test('has its error passed on as it is, and is sent DEL after its ADD failed', async () => {
    const { host, pod } = await openHost();
    install(host, `echo '{"code": 77, "msg": "no <b>luck</b>", "details": "today"}'; exit 1`);
    const before = await host.snapshot();
    const report = expectError(await host.runPlugin('ADD', callForeign(pod)));
    expect(report).toMatchObject({ code: 77, msg: 'no <b>luck</b>', details: 'today' });
    expect(callsOf(host)).toEqual(['ADD', 'DEL']);
    const left = difference(before, await host.snapshot()).filter((line) => !line.includes(DIRECTORY));
    expect(left).toEqual([]);
  });

  test('is sent DEL when a later step of ADD fails', async () => {
    const { host, pod } = await openHost();
    install(host, `[ $CNI_COMMAND != ADD ] || echo '${ADDRESS}'`);
    await host.shell('ip link add br-odd type bridge; ip addr add 192.0.2.1/24 dev br-odd');
    expect(expectError(await host.runPlugin('ADD', callForeign(pod))).code).toBe(104);
    expect(callsOf(host)).toEqual(['ADD', 'DEL']);
  });

  test('that fails GC is reported, after everything else was collected', async () => {
    const { host, pod } = await openHost();
    install(host, `[ $CNI_COMMAND != ADD ] || echo '${ADDRESS}'`);
    const { interfaces } = expectResult(await host.runPlugin('ADD', callForeign(pod)));
    const stdin = STDIN.replace('"name"', `"${VALID_ATTACHMENTS}": [], "name"`);
    install(host, `echo '{"code": 78, "msg": "cannot collect"}'; exit 1`);
    const report = expectError(await host.runPlugin('GC', callForeign(pod, { config: stdin })));
    expect(report).toMatchObject({ code: 78, msg: 'cannot collect' });
    expect(readFileSync(host.file(`${DIRECTORY}/stdin-GC`), 'utf8')).toBe(stdin);
    const links = (await host.run('ip', ['-brief', 'link'])).stdout;
    expect(links).not.toContain(interfaces?.[1]?.name);
    expect((await host.run('nft', ['list', 'ruleset'])).stdout).not.toContain('10.99.0.7');
  });

  test('that reports code 50 makes STATUS report it', async () => {
    const { host, pod } = await openHost();
    install(host, `echo '{"code": 50, "msg": "the daemon is down"}'; exit 1`);
    const report = expectError(await host.runPlugin('STATUS', callForeign(pod)));
    expect(report).toMatchObject({ code: 50, msg: 'the daemon is down' });
  });
});
