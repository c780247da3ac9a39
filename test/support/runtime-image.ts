// The one image that containers of every runtime run: a static busybox that serves its own name on port 80.
// Called by runtime-host.ts; made of the machine's busybox, so that no registry is asked.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';

export const IMAGE = 'localhost/busybox:test';

/** What CRI starts as the holder of a pod's namespaces. */
export const PAUSE_IMAGE = 'localhost/pause:test';

const CACHE = join(import.meta.dirname, '../../.cache');
const TAR = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--format=ustar'];

// busybox's httpd ignores SIGTERM as the first process of a namespace; a shell in front of it does not.
const SERVE = `
  hostname > /www/index.html
  trap 'kill -9 $!; exit 0' TERM
  httpd -f -p 80 -h /www & wait
`;

/** A layer without a history cannot be built upon. */
const HISTORY = 'tar';

/** The path of a tar archive with both images, as "docker save" writes it; made once. */
export function imageArchive(): string {
  const busybox = readFileSync('/bin/busybox');
  const sum = createHash('sha256').update(busybox).update(SERVE).update(HISTORY).digest('hex').slice(0, 12);
  const archive = join(CACHE, `runtime-images-${sum}.tar`);
  if (existsSync(archive)) return archive;
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, 'image-'));
  try {
    makeLayer(work);
    const layer = readFileSync(join(work, 'layer.tar'));
    const images = [
      { tag: IMAGE, command: ['serve'] },
      { tag: PAUSE_IMAGE, command: ['sleep', '2147483647'] },
    ];
    const manifest = images.map(({ tag, command }) => {
      const config = configOf(layer, command);
      const name = `${sha256(config)}.json`;
      writeFileSync(join(work, name), config);
      return { Config: name, RepoTags: [tag], Layers: ['layer.tar'] };
    });
    writeFileSync(join(work, 'manifest.json'), JSON.stringify(manifest));
    const files = ['manifest.json', 'layer.tar', ...manifest.map(({ Config }) => Config)];
    execFileSync('tar', ['-cf', join(work, 'archive.tar'), '-C', work, ...TAR, ...files]);
    renameSync(join(work, 'archive.tar'), archive);
  } finally {
    rmSync(work, { recursive: true });
  }
  return archive;
}

function makeLayer(work: string): void {
  const root = join(work, 'root');
  for (const directory of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'root', 'www']) {
    mkdirSync(join(root, directory), { recursive: true });
  }
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n');
  for (const applet of applets.filter((name) => name !== 'busybox')) {
    symlinkSync('busybox', join(root, 'bin', applet));
  }
  writeFileSync(join(root, 'bin/serve'), `#!/bin/sh${SERVE}`, { mode: 0o755 });
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\n');
  execFileSync('tar', ['-cf', join(work, 'layer.tar'), '-C', root, ...TAR, '.']);
}

function configOf(layer: Buffer, command: readonly string[]): string {
  return JSON.stringify({
    architecture: arch() === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Env: ['PATH=/bin'], Cmd: command },
    history: [{ created_by: HISTORY }],
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(layer)}`] },
  });
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}
