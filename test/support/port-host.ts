// Hosts on which ports are about to be published, with or without a past, and the ports that our table holds there.
// Used by the tests of portmap's verbs; each host is closed when its test ends.
import { onTestFinished } from 'vitest';
import { type Fields, publish, unpublish } from './chain.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import { WEB } from './reachability.ts';
import type { Snapshot } from './snapshot.ts';

export interface Primed {
  readonly host: PrivateHost;
  readonly pod: Sandbox;
  readonly before: Snapshot;
}

/** A host on which ports were published once and removed again. */
export async function openPrimedHost(portmap: Fields = {}): Promise<Primed> {
  const host = await openHost();
  const earlier = await host.addSandbox('earlier');
  await unpublish(host, await publish(host, earlier, WEB, { portmap }));
  await earlier.delete();
  const pod = await host.addSandbox('pod');
  return { host, pod, before: await host.snapshot() };
}

/** A host on which nothing was ever published. */
export async function openFreshHost(): Promise<Omit<Primed, 'before'>> {
  const host = await openHost();
  return { host, pod: await host.addSandbox('pod') };
}

export async function openHost(): Promise<PrivateHost> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  return host;
}

/** The ports in our map for every IPv4 address, as `tcp 8080`; none when there is no map. */
export async function mapped(host: PrivateHost): Promise<string[]> {
  const { stdout } = await host.attempt('nft', ['list', 'map', 'inet', 'patchbay', 'hostports4']);
  return [...stdout.matchAll(/(tcp|udp|sctp) \. (\d+) comment/g)].map(
    ([, protocol, port]) => `${protocol} ${port}`,
  );
}
