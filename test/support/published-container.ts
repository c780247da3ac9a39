// A container of nerdctl's or podman's default network with a published port, from its start to its end.
// Used by the tests in test/runtimes.
import { expect } from 'vitest';
import type { PrivateHost } from './private-host.ts';
import { attachments, fetchFrom, fetchSoon, traces } from './runtime-host.ts';
import { IMAGE } from './runtime-image.ts';
import { addOutside, OUTSIDE } from './traffic.ts';

export interface Publishing {
  readonly host: PrivateHost;
  /** Runs the client's program, and gives what it printed. */
  readonly client: (...args: readonly string[]) => Promise<string>;
  /** The host's address on the network. */
  readonly gateway: string;
  /** The command that ends a container at once. */
  readonly remove: readonly string[];
}

/** Everybody reaches the port, the container reaches the world, and nothing is left of it. */
export async function expectPublished({ host, client, gateway, remove }: Publishing): Promise<void> {
  const outside = await addOutside(host);
  await client('run', '--rm', '-p', '8080:80', IMAGE, 'true');
  const before = await host.snapshot();

  await client('run', '-d', '--name', 'web', '--hostname', 'web', '-p', '8080:80', IMAGE);
  expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
  expect(await fetchFrom(outside, `http://${OUTSIDE.host4}:8080/`)).toBe('web');
  expect(await fetchFrom(host, `http://${gateway}:8080/`)).toBe('web');
  expect(await client('exec', 'web', 'wget', '-q', '-O', '-', `http://${gateway}:8080/`)).toBe('web');
  await client('exec', 'web', 'ping', '-c', '1', '-W', '3', OUTSIDE.outside4);
  expect(await attachments(host)).not.toEqual([]);

  await client(...remove, 'web');
  expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('');
  expect(traces(before, await host.snapshot())).toEqual([]);
}
