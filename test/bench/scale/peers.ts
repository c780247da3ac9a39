// Finds who else attaches containers: programs of Debian's packages, unpacked into the cache and never installed.
// Called by scale.ts; who cannot be had is left out, which is said on stderr.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { isPresent } from '../../../build/tools.ts';

export interface Peer {
  /** The program, or the directory of the programs. */
  readonly path: string;
  readonly version: string;
}

const CACHE = join(import.meta.dirname, '../../../.cache');

/** The plugins of package `containernetworking-plugins`. */
export async function findDebianPlugins(): Promise<Peer | undefined> {
  const directory = await unpack('containernetworking-plugins');
  if (directory === undefined) return undefined;
  return { path: join(directory, 'usr/lib/cni'), version: await versionOf(directory) };
}

/** podman's network program. */
export async function findNetavark(): Promise<Peer | undefined> {
  const directory = await unpack('netavark');
  if (directory === undefined) return undefined;
  return { path: join(directory, 'usr/lib/podman/netavark'), version: await versionOf(directory) };
}

/** Docker's daemon, with what runs its containers. */
export async function findDocker(): Promise<Peer | undefined> {
  const missing = ['dockerd', 'docker', 'runc', 'containerd', 'busybox'].filter((name) => !isPresent(name));
  if (missing.length > 0) {
    leaveOut('Docker', `${missing.join(', ')} missing`);
    return undefined;
  }
  const { stdout } = await execa('dockerd', ['--version']);
  return { path: 'dockerd', version: /version ([^, ]+)/.exec(stdout)?.[1] ?? 'unknown' };
}

// Debian's own source for it, whose signature apt has checked; the package brings no program of its own to run.
async function unpack(name: string): Promise<string | undefined> {
  const directory = join(CACHE, `debian-${name}`);
  if (existsSync(directory)) return directory;
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, `${name}-`));
  try {
    await execa('apt-get', ['download', '-q', name], { cwd: work });
    const file = readdirSync(work).find((entry) => entry.endsWith('.deb')) ?? '';
    await execa('dpkg-deb', ['-x', join(work, file), join(work, 'content')]);
    await execa('bash', ['-c', `dpkg-deb -f ${file} Version > content/version`], { cwd: work });
    renameSync(join(work, 'content'), directory);
    return directory;
  } catch (error) {
    leaveOut(name, error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error));
    return undefined;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function versionOf(directory: string): Promise<string> {
  const { stdout } = await execa('cat', [join(directory, 'version')]);
  return stdout.trim();
}

function leaveOut(name: string, reason: string): void {
  process.stderr.write(`${name} is left out: ${reason}\n`);
}
