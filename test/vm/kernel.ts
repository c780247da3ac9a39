// Debian's own kernel and its modules, without installing it: the package is fetched, unpacked below .cache and left there.
// Called by run.ts.
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';

export interface Kernel {
  readonly version: string;
  /** The bzImage. */
  readonly image: string;
  /** The tree that is /lib/modules/<version> to this kernel, with what modprobe needs. */
  readonly modules: string;
}

const CACHE = join(import.meta.dirname, '../../.cache/vm');

/** Fetches and unpacks the kernel of package linux-image-amd64 unless that was done. Throws when apt cannot. */
export function fetchKernel(): Kernel {
  const found = findKernel();
  if (found !== undefined) return found;
  const fresh = `${CACHE}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  const name = packageName();
  console.log(`Fetching the Debian package ${name} …`);
  execFileSync('apt-get', ['download', '-qq', name], { cwd: fresh, stdio: ['ignore', 'inherit', 'ignore'] });
  const [archive = ''] = globSync('*.deb', { cwd: fresh });
  execFileSync('dpkg-deb', ['--extract', archive, '.'], { cwd: fresh });
  rmSync(join(fresh, archive));
  rmSync(CACHE, { recursive: true, force: true });
  renameSync(fresh, CACHE);
  const kernel = findKernel();
  if (kernel === undefined) throw new Error(`Package "${name}" holds no kernel`);
  execFileSync('busybox', ['depmod', '-b', CACHE, kernel.version], { stdio: 'inherit' });
  return kernel;
}

/** The modules in the order in which they must be loaded, as paths. Throws when one does not exist. */
export function listModules({ modules }: Kernel, names: readonly string[]): string[] {
  const lines = readFileSync(join(modules, 'modules.dep'), 'utf8').trim().split('\n');
  const needs = new Map(
    lines.map((line) => {
      const [path = '', rest = ''] = line.split(':');
      return [basename(path, '.ko'), { path, after: rest.trim().split(' ').filter(Boolean) }];
    }),
  );
  const order = new Set<string>();
  const visit = (name: string): void => {
    const module = needs.get(name);
    if (module === undefined) throw new Error(`The kernel has no module "${name}"`);
    for (const path of module.after.toReversed()) visit(basename(path, '.ko'));
    order.add(join(modules, module.path.replace(/^\/?lib\/modules\/[^/]+\//, '')));
  };
  for (const name of names) visit(name);
  return [...order];
}

function findKernel(): Kernel | undefined {
  const [image] = globSync('boot/vmlinuz-*', { cwd: CACHE });
  if (image === undefined) return undefined;
  const version = basename(image).replace('vmlinuz-', '');
  return { version, image: join(CACHE, image), modules: join(CACHE, 'lib/modules', version) };
}

/** linux-image-amd64 is empty and depends on the kernel of the day. */
function packageName(): string {
  const ask = () => execFileSync('apt-cache', ['depends', 'linux-image-amd64'], { encoding: 'utf8' });
  const nameIn = (text: string) => /Depends: (linux-image-\S+)/.exec(text)?.[1];
  const known = existsSync('/var/lib/apt/lists') ? nameIn(ask()) : undefined;
  if (known !== undefined) return known;
  execFileSync('apt-get', ['update', '-qq'], { stdio: 'ignore' });
  const name = nameIn(ask());
  if (name === undefined) throw new Error('Debian has no package linux-image-amd64 for this machine');
  return name;
}
