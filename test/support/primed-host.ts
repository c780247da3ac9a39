// Private hosts for one test: empty, or with a network that was in use before, which is the state to compare with.
// Called by the binary tests; the host goes when the test ends.
import { onTestFinished } from 'vitest';
import { attach } from './attachment.ts';
import { type BridgeConfig, installResolvConf } from './network-list.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import { expectSuccess } from './run-plugin.ts';
import type { Snapshot } from './snapshot.ts';

export interface Primed {
  readonly host: PrivateHost;
  /** Called `pod`, on no network yet. */
  readonly sandbox: Sandbox;
  /** What the host must be like again after the last DEL. */
  readonly before: Snapshot;
}

/** An empty host that closes with the running test. */
export async function openTestHost(): Promise<PrivateHost> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  installResolvConf(host);
  return host;
}

/** A host on which the network was used once: one ADD and DEL, in a sandbox that is gone. */
export async function openPrimedHost(config: BridgeConfig): Promise<Primed> {
  const host = await openTestHost();
  const earlier = await host.addSandbox('earlier');
  const { call } = await attach(host, config, earlier);
  expectSuccess(await host.runPlugin('DEL', call));
  await earlier.delete();
  const sandbox = await host.addSandbox('pod');
  return { host, sandbox, before: await host.snapshot() };
}
