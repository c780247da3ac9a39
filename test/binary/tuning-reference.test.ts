// Nodes that change from the reference's tuning and loopback to these or back: what the one has changed, the other checks
// and undoes. Part of `npm run test:binary`; PATCHBAY_REFERENCE_DIR names a second release.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { attach } from '../support/attachment.ts';
import { byOurs, changed, type Fields } from '../support/chain.ts';
import { openPrimedHost, openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { SETTINGS, TUNED, tunedFacts, tuningCallOf } from '../support/tuned.ts';

/** Debian's package containernetworking-plugins: it knows no txQLen, and its CHECK no IFNAME. */
const DEBIAN = '/usr/lib/cni';
const RELEASES = [DEBIAN, findModern()].filter((directory) => directory !== undefined);

function findModern(): string | undefined {
  const directory = process.env['PATCHBAY_REFERENCE_DIR'];
  if (directory !== undefined && existsSync(join(directory, 'tuning'))) return directory;
  console.log('Not compared: a newer tuning than Debian’s, as PATCHBAY_REFERENCE_DIR names none');
  return undefined;
}

const BACKUP = '/run/cni/tuning/pod_eth0.json';

/** The settings in lower case, in which the reference hands the MAC address on, as far as the release has them. */
function settingsFor(directory: string): Fields {
  const settings = { ...SETTINGS, mac: SETTINGS.mac.toLowerCase() };
  if (directory !== DEBIAN) return settings;
  const { txQLen: _, ...older } = settings;
  return { ...older, sysctl: { 'net.core.somaxconn': '512', 'net.ipv4.conf.eth0.arp_filter': '1' } };
}

/** An attachment of ours to tune, on a host where both were at work before; Debian's release knows 1.0.0 at most. */
async function openShared(directory: string) {
  const { host, sandbox } = await openPrimedHost(TUNED);
  const attached = await attach(host, { ...TUNED, cniVersion: '1.0.0' }, sandbox);
  const ours = tuningCallOf(attached, settingsFor(directory));
  const theirs = { ...ours, directory };
  for (const call of [theirs, ours]) {
    expectSuccess(await host.runPlugin('ADD', call));
    expectSuccess(await host.runPlugin('DEL', call));
  }
  await sandbox.shell('sysctl -qw net.core.somaxconn=4096 net.ipv4.conf.eth0.arp_filter=0');
  return { host, sandbox, ours, theirs, before: await host.snapshot(), facts: await tunedFacts(sandbox) };
}

async function add(host: PrivateHost, call: PluginCall): Promise<object> {
  return expectResult(await host.runPlugin('ADD', call));
}

describe.each(RELEASES)('beside the release in %s', (directory) => {
  test('ADD does the same, says the same, and notes down the same', async () => {
    const { host, sandbox, ours, theirs, before } = await openShared(directory);
    const said = await add(host, theirs);
    const done = await host.snapshot();
    const theirBackup = readFileSync(host.file(BACKUP), 'utf8');
    expectSuccess(await host.runPlugin('DEL', theirs));
    await sandbox.shell('sysctl -qw net.core.somaxconn=4096 net.ipv4.conf.eth0.arp_filter=0');
    expect(difference(before, await host.snapshot())).toEqual([]);

    expect(await add(host, ours)).toEqual(withoutDns(said));
    const withoutBackup = (lines: readonly string[]) => lines.filter((line) => !line.includes(BACKUP));
    expect(difference(withoutBackup(done), withoutBackup(await host.snapshot()))).toEqual([]);
    const { patchbay, ...shared } = JSON.parse(readFileSync(host.file(BACKUP), 'utf8')) as Record<
      string,
      unknown
    >;
    expect(JSON.stringify(shared, null, 1)).toBe(theirBackup);
    expect(patchbay).toBeInstanceOf(Object);
  });

  test('what it has tuned passes our CHECK and is undone by our DEL', async () => {
    const { host, sandbox, ours, theirs, before, facts } = await openShared(directory);
    const prevResult = await add(host, theirs);
    expectSuccess(await host.runPlugin('CHECK', changed(ours, { prevResult })));
    expectSuccess(await host.runPlugin('DEL', changed(byOurs(theirs), { prevResult })));
    // Nobody noted the sysctls down.
    expect(await tunedFacts(sandbox)).toEqual({ ...facts, somaxconn: '512', arpFilter: '1' });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('what it has tuned leaves no backup behind when our DEL comes after the sandbox', async () => {
    const { host, ours, theirs } = await openShared(directory);
    await add(host, theirs);
    await host.run('ip', ['netns', 'delete', 'pod']);
    expectSuccess(await host.runPlugin('DEL', theirs));
    expect(existsSync(host.file(BACKUP))).toBe(true);
    expectSuccess(await host.runPlugin('DEL', ours));
    expect(existsSync(host.file(BACKUP))).toBe(false);
  });

  test('what we have tuned passes its CHECK and is undone by its DEL', async () => {
    const { host, sandbox, ours, theirs, before, facts } = await openShared(directory);
    const prevResult = await add(host, ours);
    expectSuccess(await host.runPlugin('CHECK', changed(theirs, { prevResult })));
    expectSuccess(await host.runPlugin('DEL', changed(theirs, { prevResult })));
    expect(await tunedFacts(sandbox)).toEqual({ ...facts, somaxconn: '512', arpFilter: '1' });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('a backup that it forgot is not believed of a sandbox made later', async () => {
    const { host, ours, theirs } = await openShared(directory);
    await add(host, theirs);
    await host.run('ip', ['netns', 'delete', 'pod']);
    const later = await host.addSandbox('pod');
    await later.shell('ip link add eth0 mtu 1450 type veth peer name other');
    const facts = await tunedFacts(later);
    await add(host, ours);
    expectSuccess(await host.runPlugin('DEL', ours));
    expect(await tunedFacts(later)).toEqual(facts);
  });

  test('each takes down the loopback that the other has set up', async () => {
    const host = await openTestHost();
    await host.run('ip', ['netns', 'add', 'pod']);
    const sandbox = host.placeAt('pod', '/run/netns/pod');
    const ours = loopbackCall(sandbox);
    const theirs = { ...ours, directory };
    expect(await add(host, ours)).toEqual(withoutDns(await add(host, theirs)));
    for (const [up, down] of [
      [theirs, ours],
      [ours, theirs],
    ] as const) {
      await add(host, up);
      expectSuccess(await host.runPlugin('CHECK', down));
      expectSuccess(await host.runPlugin('DEL', down));
      expect((await sandbox.run('ip', ['link', 'show', 'lo'])).stdout).toContain('state DOWN');
    }
  });
});

function loopbackCall(sandbox: Sandbox): PluginCall {
  const config = { cniVersion: '1.0.0', name: 'cni-loopback', type: 'loopback' };
  return { plugin: 'loopback', config, containerId: 'pod', netns: sandbox.path, ifname: 'lo' };
}

// Debian's release always prints "dns" in this shape.
function withoutDns(result: object): object {
  return Object.fromEntries(Object.entries(result).filter(([key]) => key !== 'dns'));
}
