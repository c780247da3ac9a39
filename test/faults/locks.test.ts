// A lock that somebody keeps: every verb that needs it gives up after 30 s with error 11, which names who holds it. Part of
// `npm run test:faults`; the unit tests have the same with a shorter patience, `npm test` a holder that comes to an end.
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type Chain, callsOf, IPTABLES, NATIVE } from '../support/fault-chain.ts';
import { IS_FULL, TIMEOUT } from '../support/fault-scale.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { type CniErrorReport, expectError, expectResult, type PluginCall } from '../support/run-plugin.ts';
import { runTraced } from '../support/strace.ts';

const PATIENCE_MS = 30_000;

interface Refusal extends CniErrorReport {
  readonly ms: number;
}

async function addWhileLocked(
  chain: Chain,
  prepare: (host: PrivateHost) => Promise<unknown>,
): Promise<Refusal> {
  await using host = await openPrivateHost();
  await host.addSandbox('c1');
  await prepare(host);
  const outcome = await host.runPlugin('ADD', firstCall(chain, 'c1'));
  return { ...expectError(outcome), ms: outcome.ms };
}

function firstCall(chain: Chain, containerId: string): PluginCall {
  const netns = `/run/netns/${containerId}`;
  const known = { containerId, netns, mappings: [], prevResult: undefined };
  return callsOf(chain, known)[0] as PluginCall;
}

/** A process that holds the lock and is no plugin. */
function holdLock(path: string, seconds = 100): (host: PrivateHost) => Promise<unknown> {
  return (host) =>
    host.shell(`
      mkdir -p ${path.slice(0, path.lastIndexOf('/'))}
      flock ${path} sleep ${seconds} > /dev/null 2>&1 < /dev/null &
      until ! flock --nonblock ${path} true; do sleep 0.01; done
    `);
}

/** The legacy programs under the plain names: they alone know the xtables lock. */
const LEGACY = 'mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi';

// Half a minute of waiting each, so all at once, and not in the quick part.
if (IS_FULL) {
  test('a lock that is kept is given up after 30 s, and its holder is named', TIMEOUT, async () => {
    const [store, nftables, xtables] = await Promise.all([
      addWhileLocked(NATIVE, holdLock('/var/lib/cni/networks/ports/lock')),
      addWhileLocked(NATIVE, holdLock('/run/patchbay/nftables.lock')),
      addWhileLocked(IPTABLES, async (host) => {
        await host.shell(LEGACY);
        await holdLock('/run/xtables.lock')(host);
      }),
    ]);
    for (const { code, ms } of [store, nftables, xtables]) {
      expect(code).toBe(11);
      expect(ms).toBeGreaterThan(PATIENCE_MS);
      expect(ms).toBeLessThan(1.5 * PATIENCE_MS); // undoing does not wait once more
    }
    const held = 'within 30 s: it is held by process \\d+ \\((flock|sleep)\\)';
    expect(store.msg).toMatch(new RegExp(`^Cannot lock "/var/lib/cni/networks/ports/lock" ${held}`));
    expect(nftables.msg).toMatch(new RegExp(`^Cannot lock "/run/patchbay/nftables.lock" ${held}`));
    expect(xtables.msg).toMatch(new RegExp(`^Cannot lock "/run/xtables.lock" ${held}`));
  });

  test('a plugin that holds the store is named with the attachment it works for', TIMEOUT, async () => {
    await using host = await openPrivateHost();
    for (const name of ['c1', 'c2']) await host.addSandbox(name);
    const slow = ['-e', 'trace=link', '-e', `inject=link:delay_enter=${1000 * (PATIENCE_MS + 5000)}:when=1`];
    const first = runTraced(host, 'ADD', firstCall(NATIVE, 'c1'), slow);
    await delay(2000);
    const { code, msg } = expectError(await host.runPlugin('ADD', firstCall(NATIVE, 'c2')));
    expect(code).toBe(11);
    expect(msg).toMatch(/it is held by process \d+ \(bridge, ADD of "c1" "eth0"\)$/);
    expectResult(await first);
    expectResult(await host.runPlugin('ADD', firstCall(NATIVE, 'c2')));
  });
}

test.for(['/var/lib/cni/networks/ports/lock', '/run/patchbay/nftables.lock'])(
  'a lock that is given back in time is waited for: %s',
  TIMEOUT,
  async (path) => {
    await using host = await openPrivateHost();
    await host.addSandbox('c1');
    await holdLock(path, 2)(host);
    const outcome = await host.runPlugin('ADD', firstCall(NATIVE, 'c1'));
    expectResult(outcome);
    expect(outcome.ms).toBeGreaterThan(1000);
  },
);
