// The first networks of the README, run as they stand there: copied, pasted, and looked at for what they leave.
// Part of `npm run test:runtimes`; the image that they name is the one of the tests under that name.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openContainerd } from '../support/containerd.ts';
import { expectDone } from '../support/place.ts';
import { openPodman } from '../support/podman.ts';
import type { PrivateHost } from '../support/private-host.ts';
import { attachments, CLIENT_PATH, DISK } from '../support/runtime-host.ts';
import { IMAGE } from '../support/runtime-image.ts';

const README = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8');
const NGINX = 'docker.io/library/nginx:alpine';

test('The first network with nerdctl is one, and goes', async () => {
  await using scene = await openContainerd('2');
  await scene.ctr('images', 'tag', IMAGE, NGINX);
  const said = await runBlock(scene.host, 'nerdctl');
  expect(said).toMatch(/^[0-9a-f]{64}\n[0-9a-f]{12}\nweb$/);
  expect(await attachments(scene.host)).toEqual([]);
});

test('The first network with containerd is one, and goes', async () => {
  await using scene = await openContainerd('2');
  await scene.ctr('images', 'tag', IMAGE, NGINX);
  expect(await runBlock(scene.host, 'containerd')).toBe('host');
  expect(await attachments(scene.host)).toEqual([]);
});

test('The first network with podman is one, and goes', async () => {
  await using scene = await openPodman(undefined, 'unset');
  await scene.podman('tag', IMAGE, NGINX);
  const said = await runBlock(scene.host, 'podman');
  expect(said).toMatch(/^[0-9a-f]{64}\n[0-9a-f]{12}\nweb$/);
  expect(await attachments(scene.host)).toEqual([]);
});

/** Pastes a block into a shell of the host and returns what it printed. */
async function runBlock(host: PrivateHost, client: string): Promise<string> {
  const block = new RegExp(`<!-- run with ${client} -->\n\`\`\`\n(.*?)\n\`\`\``, 's').exec(README)?.[1];
  if (block === undefined) throw new Error(`The README has no block for ${client}`);
  const env = { PATH: CLIENT_PATH, CONTAINERS_STORAGE_CONF: `${DISK}/storage.conf` };
  const { stdout } = expectDone(await host.attempt('bash', ['--norc', '-ec', block], { env }));
  return stdout.trim();
}
