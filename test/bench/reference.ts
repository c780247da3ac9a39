// Finds the reference plugins to compare with, building them where that is possible. Called by bench.ts.

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { hasReference, REFERENCE_DIRECTORY, REFERENCE_RELEASE, setUpReference } from '../../build/tools.ts';
import type { Implementation } from './network.ts';

export interface Reference extends Implementation {
  readonly version: string;
  readonly hasNftables: boolean;
}

const DEBIAN = '/usr/lib/cni';
const PLUGINS = ['bridge', 'firewall', 'host-local', 'portmap', 'tuning'] as const;

/**
 * The plugins in `directory`, else release 1.9.1 built by Go, else Debian's package. Throws Error naming the choices
 * when there is none.
 */
export async function findReference(
  directory: string | undefined,
  progress: (doing: string) => void,
): Promise<Reference> {
  if (directory !== undefined) return describe(resolve(directory));
  if (!hasReference()) progress(`building the reference plugins ${REFERENCE_RELEASE}`);
  if (hasReference() || setUpReference()) return describe(REFERENCE_DIRECTORY);
  if (existsSync(join(DEBIAN, 'bridge'))) return describe(DEBIAN);
  throw new Error(
    'Cannot find plugins to compare with: give --reference DIR, or install Go or package containernetworking-plugins',
  );
}

// Run bare, a plugin prints its name and version on stderr. Debian's are not stamped.
async function describe(directory: string): Promise<Reference> {
  for (const name of PLUGINS) {
    if (!existsSync(join(directory, name))) throw new Error(`Cannot find plugin "${name}" in "${directory}"`);
  }
  const { stderr } = await execa(join(directory, 'bridge'), { env: {}, extendEnv: false, reject: false });
  const version = /v?\d+\.\d+\.\d+\S*/.exec(stderr.split('\n')[0] ?? '')?.[0];
  const strings = await execa('grep', ['-c', 'cni_plugins_masquerade', join(directory, 'bridge')], {
    reject: false,
  });
  return {
    name: 'reference',
    directory,
    version: version ?? 'unstamped',
    hasNftables: strings.exitCode === 0,
  };
}
