// Starts the executables of a release for a first sign of life, those for another machine under emulation. Called by
// release.ts; what they do to a host is for the tests.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listPlugins } from '../plugins/registry.ts';
import { runnable, type Target } from './target.ts';

/**
 * Throws Error unless every plugin in `directory` tells its name and answers VERSION from its code cache, and an address
 * can be leased and given back.
 */
export function smokeTest(target: Target, directory: string): void {
  for (const name of listPlugins()) {
    const call = { target, directory, name };
    expectLike(run(call, {}).stderr, new RegExp(`^CNI ${name} plugin v\\d`));
    const { stdout, stderr } = run(call, { CNI_COMMAND: 'VERSION', PATCHBAY_TRACE: 'start' });
    expectLike(stdout, /"supportedVersions"/);
    expectLike(stderr, /^code cache of \S+ accepted$/m);
  }
  const store = mkdtempSync(join(tmpdir(), 'patchbay-store-'));
  try {
    lease({ target, directory, name: 'host-local' }, store);
  } finally {
    rmSync(store, { recursive: true });
  }
}

interface Call {
  readonly target: Target;
  readonly directory: string;
  readonly name: string;
}

function lease(call: Call, dataDir: string): void {
  const config = JSON.stringify({
    cniVersion: '1.1.0',
    name: 'smoke',
    type: 'bridge',
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.22.0.0/24' }]], dataDir },
  });
  const env = {
    CNI_CONTAINERID: 'c1',
    CNI_IFNAME: 'eth0',
    CNI_NETNS: '/proc/self/ns/net', // nothing is done to it
    CNI_NETNS_OVERRIDE: '1',
    CNI_PATH: call.directory,
  };
  const lease = join(dataDir, 'smoke/10.22.0.2');
  expectLike(run(call, { ...env, CNI_COMMAND: 'ADD' }, config).stdout, /"address": *"10\.22\.0\.2\/24"/);
  expectLike(readFileSync(lease, 'utf8'), /^c1\r\neth0$/);
  run(call, { ...env, CNI_COMMAND: 'DEL' }, config);
  if (existsSync(lease)) {
    throw new Error(`DEL left ${readdirSync(join(dataDir, 'smoke')).join(', ')} in the store`);
  }
}

function run(
  { target, directory, name }: Call,
  env: Readonly<Record<string, string>>,
  input = '',
): { readonly stdout: string; readonly stderr: string } {
  const [program = '', ...args] = runnable(target, [join(directory, name)]);
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    env: { PATH: process.env['PATH'], ...env },
    input,
    encoding: 'utf8',
  });
  if (status !== 0) {
    const call = `${env['CNI_COMMAND'] ?? 'a bare start'} of ${name} for ${target.debian}`;
    throw new Error(`The smoke test failed: ${call} gave ${status}, ${stdout}${stderr}`, { cause: error });
  }
  return { stdout, stderr };
}

function expectLike(text: string, pattern: RegExp): void {
  if (!pattern.test(text))
    throw new Error(`The smoke test failed: ${pattern} is not in ${JSON.stringify(text)}`);
}
