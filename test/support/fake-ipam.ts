// An IPAM plugin that does what its config says, in process or as a program of its own: the same either way.
// Used by the tests of delegation; run directly, it is one call of it.
import { appendFileSync, readFileSync, writeSync } from 'node:fs';
import { dispatch } from '../../shared/cni/dispatch.ts';
import type { Command } from '../../shared/cni/environment.ts';
import { CniError } from '../../shared/cni/error.ts';
import { type Call, definePlugin } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import type { CniVersion } from '../../shared/cni/versions.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';

/** What the `ipam` object of the config tells the plugin to do on one command. */
export interface Behaviour {
  readonly result?: Result;
  readonly error?: { readonly code: number; readonly msg: string; readonly details?: string };
  readonly crash?: 'TypeError' | 'errno';
  readonly log?: readonly string[];
}

export interface FakeIpamConfig {
  readonly type: string;
  /** File that gets a line with the command for every verb that runs. */
  readonly record: string;
  readonly behaviours?: Partial<Record<Command, Behaviour>>;
}

export function fakeIpam(supportedVersions: readonly CniVersion[] = CNI_VERSIONS) {
  const act = (command: Command) => (call: Call<FakeIpamConfig>) => {
    const { record, behaviours } = call.config;
    const behaviour = behaviours?.[command] ?? {};
    appendFileSync(record, `${command}\n`);
    for (const line of behaviour.log ?? []) call.log(line);
    if (behaviour.crash === 'TypeError') throw new TypeError('made up');
    if (behaviour.crash === 'errno') {
      throw new Error('Cannot lock', {
        cause: Object.assign(new Error('flock: EAGAIN'), { code: 'EAGAIN' }),
      });
    }
    if (behaviour.error !== undefined) {
      const { code, msg, details } = behaviour.error;
      throw new CniError(code, msg, {
        cause: new Error('not for others'),
        ...(details !== undefined && { details }),
      });
    }
    return behaviour.result ?? { ips: [{ address: '10.1.0.2/16' }] };
  };
  // A test's own config: what it writes is what is read.
  const parse = ({ network }: { network: { raw: object } }) => (network.raw as { ipam: FakeIpamConfig }).ipam;
  return definePlugin<FakeIpamConfig, FakeIpamConfig>({
    name: 'fake-ipam',
    supportedVersions,
    needs: { sandbox: 'none', programs: 'none' },
    checkNeedsPrevResult: true,
    parseConfig: parse,
    parseTeardown: parse,
    add: act('ADD'),
    check: act('CHECK'),
    del: act('DEL'),
    status: act('STATUS'),
    gc: act('GC'),
  });
}

if (import.meta.main) {
  const outcome = dispatch(fakeIpam(), {
    env: process.env,
    readStdin: () => readFileSync(0),
    log: (line) => writeSync(2, `${line}\n`),
    registry: () => undefined,
    ownExecutable: process.execPath,
    pid: 1,
    uptime: () => 0,
    version: '2.0.0',
  });
  writeSync(1, outcome.stdout);
  process.exitCode = outcome.exitCode;
}
