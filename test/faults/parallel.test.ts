// Random verbs from many workers at once against a model that is a few lines long: no address twice, no failure of what
// is right, nothing left at the end. Part of `npm test`, and of `npm run test:faults` with ten times as many. PATCHBAY_SEED
// makes another sequence.
import { copyFileSync, existsSync, linkSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { type Attached, withPrevResult } from '../support/attachment.ts';
import { type Mapping, portCallOf } from '../support/chain.ts';
import { IS_FULL, inParallel, report, SEED, seeded, TIMEOUT } from '../support/fault-scale.ts';
import type { BridgeConfig } from '../support/network-list.ts';
import { type OlderVersion, openOlderVersion } from '../support/older-version.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  pluginDirectory,
} from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { addSurroundings, listSettings } from '../support/surroundings.ts';

const REFERENCE = '/usr/lib/cni';
const VERBS = IS_FULL ? 2000 : 200;
const WORKERS = 32;
const CONTAINERS = 60;

/** The plugins once more as files of their own, and an older version of them: an upgrade in the middle of everything. */
let copy: string;
let older: OlderVersion;
let host: PrivateHost;

beforeAll(async () => {
  copy = mkdtempSync(join(tmpdir(), 'patchbay-'));
  copyFileSync(join(pluginDirectory(), 'bridge'), join(copy, 'bridge'));
  for (const name of ['host-local', 'portmap']) linkSync(join(copy, 'bridge'), join(copy, name));
  older = openOlderVersion();
});
afterAll(() => {
  rmSync(copy, { recursive: true });
  older[Symbol.dispose]();
});

/** One of the versions; the older one starts more slowly, so it has the smaller share. */
function pickDirectory(random: number): string {
  return random < 0.2 ? older.directory : random < 0.6 ? copy : pluginDirectory();
}

async function openHost(): Promise<void> {
  host = await openPrivateHost();
  onTestFinished(() => host.close());
}

test(`${VERBS} random verbs of ${WORKERS} workers on three networks`, TIMEOUT, async () => {
  await openHost();
  await addSurroundings(host, 'net-0');
  const names = Array.from({ length: CONTAINERS }, (_, number) => `c${number}`);
  const sandboxes = await inParallel(names, 4, (name) => host.addSandbox(name));
  const model = new Model(sandboxes);
  for (const attachment of model.attachments.slice(0, NETWORKS.length)) {
    await model.run('ADD', attachment, pluginDirectory());
    await model.run('DEL', attachment, pluginDirectory());
  }
  const settings = await listSettings(host);
  const before = await host.snapshot();

  const random = seeded(SEED);
  const counts = new Map<string, number>();
  await inParallel(Array.from({ length: VERBS }), WORKERS, async () => {
    const verb = pickVerb(random());
    const attachment = model.claim(random);
    const directory = pickDirectory(random());
    counts.set(verb, (counts.get(verb) ?? 0) + 1);
    try {
      await model.run(verb, attachment, directory);
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      model.problems.push(`${verb} ${attachment.name} of ${attachment.network.name}: ${said}`);
    } finally {
      model.release(attachment);
    }
  });
  console.log(`seed ${SEED}: ${[...counts].map(([verb, count]) => `${count} ${verb}`).join(', ')}`);
  report('parallel', { 'verbs at once': VERBS, 'as the model says': VERBS - model.problems.length });
  expect(model.problems).toEqual([]);

  await inParallel(model.attachments, WORKERS, (attachment) => model.run('DEL', attachment, copy));
  expect(await leftSince(before)).toEqual([]);
  expect(await listSettings(host)).toEqual(settings);
});

test(
  'ours, an older version, and each release of the reference work on one store at once',
  TIMEOUT,
  async () => {
    expectReference();
    await openHost();
    await addSurroundings(host, 'shared');
    const random = seeded(SEED + 1);
    const holders = new Map<string, string>();
    const held = new Map<string, readonly string[]>();
    const busy = new Set<string>();
    const newest = process.env['PATCHBAY_REFERENCE_DIR'];
    const references = newest === undefined ? [REFERENCE] : [REFERENCE, newest];
    const sides = [pluginDirectory(), copy, older.directory, ...references];
    for (const directory of sides) {
      for (const verb of ['ADD', 'DEL'] as const) {
        expectSuccess(await host.runPlugin(verb, leaseCall('earlier', directory, '10.1.0.0/25')));
      }
    }
    const before = await host.snapshot();
    console.log(`the older version: ${older.revision}; releases of the reference: ${references.length}`);
    await inParallel(Array.from({ length: VERBS }), WORKERS, async () => {
      const free = Array.from({ length: CONTAINERS }, (_, number) => `c${number}`).filter(
        (name) => !busy.has(name),
      );
      const containerId = free[Math.floor(random() * free.length)] ?? 'c0';
      const directory = sides[Math.floor(random() * sides.length)] ?? copy;
      const call = leaseCall(containerId, directory, '10.1.0.0/25');
      busy.add(containerId);
      const addresses = held.get(containerId);
      if (addresses === undefined) {
        const given = (expectResult(await host.runPlugin('ADD', call)).ips ?? []).map(
          ({ address }) => address,
        );
        for (const address of given)
          expect(holders.get(address), `${address}, given to ${containerId}`).toBeUndefined();
        for (const address of given) holders.set(address, containerId);
        held.set(containerId, given);
      } else if (random() < 0.3) {
        expectSuccess(await host.runPlugin('CHECK', call));
      } else if (random() < 0.2) {
        expect((await host.runPlugin('ADD', call)).exitCode).toBe(1);
      } else {
        for (const address of addresses) holders.delete(address);
        held.delete(containerId);
        expectSuccess(await host.runPlugin('DEL', call));
      }
      busy.delete(containerId);
    });
    await inParallel([...held.keys()], WORKERS, async (containerId) => {
      expectSuccess(await host.runPlugin('DEL', leaseCall(containerId, copy, '10.1.0.0/25')));
    });
    expect(await leftSince(before)).toEqual([]);
  },
);

test(
  '64 ADDs at a time hand out each address of a /24 exactly once, and then say that it is full',
  TIMEOUT,
  async () => {
    await openHost();
    const names = Array.from({ length: 260 }, (_, number) => `c${number}`);
    const outcomes = await inParallel(names, 64, (name, worker) => {
      const call = leaseCall(name, worker % 2 === 0 ? copy : pluginDirectory(), '10.1.0.0/24');
      return host.runPlugin('ADD', call);
    });
    const given = outcomes.flatMap((outcome) => (outcome.exitCode === 0 ? [expectResult(outcome)] : []));
    const addresses = given.map(({ ips }) => ips?.[0]?.address);
    const all = Array.from({ length: 253 }, (_, number) => `10.1.0.${number + 2}/24`);
    expect(addresses.sort()).toEqual(all.sort());
    const refused = outcomes.filter(({ exitCode }) => exitCode !== 0).map(expectError);
    expect(refused).toHaveLength(7);
    for (const { code, msg } of refused) {
      expect(code).toBe(100);
      expect(msg).toContain('"10.1.0.1-10.1.0.254": all 253 are taken');
    }
  },
);

type RandomVerb = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS';

function pickVerb(random: number): RandomVerb {
  if (random < 0.42) return 'ADD';
  if (random < 0.75) return 'DEL';
  if (random < 0.88) return 'CHECK';
  return random < 0.94 ? 'GC' : 'STATUS';
}

const NETWORKS: readonly BridgeConfig[] = [0, 1, 2].map((number) => ({
  cniVersion: '1.1.0',
  name: `net-${number}`,
  type: 'bridge',
  bridge: `br-net-${number}`,
  isDefaultGateway: number === 0,
  isGateway: true,
  ipMasq: true,
  ipam: {
    type: 'host-local',
    ranges: [[{ subnet: `10.10${number}.0.0/24` }], [{ subnet: `fd00:10${number}::/64` }]],
  },
}));

interface Attachment {
  readonly name: string;
  readonly sandbox: Sandbox;
  readonly network: BridgeConfig;
  readonly ifname: string;
  readonly mappings: readonly Mapping[];
}

/** What is attached, by the word of the verbs that succeeded. One verb at a time for each attachment, as runtimes do. */
class Model {
  readonly attachments: readonly Attachment[];
  readonly problems: string[] = [];
  readonly #attached = new Map<Attachment, Attached>();
  readonly #holders = new Map<string, Attachment>();
  readonly #busy = new Set<Attachment>();
  readonly #running = new Map<BridgeConfig, Set<Promise<void>>>();
  readonly #collections = new Map<BridgeConfig, Promise<void>>();

  constructor(sandboxes: readonly Sandbox[]) {
    this.attachments = sandboxes.flatMap((sandbox, container) =>
      NETWORKS.map((network, number) => ({
        name: sandbox.name,
        sandbox,
        network,
        ifname: `net${number}`,
        mappings: [{ hostPort: 20_000 + 100 * number + container, containerPort: 80, protocol: 'tcp' }],
      })),
    );
  }

  claim(random: () => number): Attachment {
    const free = this.attachments.filter((attachment) => !this.#busy.has(attachment));
    const attachment = free[Math.floor(random() * free.length)];
    if (attachment === undefined) throw new Error('There are more workers than attachments');
    this.#busy.add(attachment);
    return attachment;
  }

  release(attachment: Attachment): void {
    this.#busy.delete(attachment);
  }

  /** Runs a verb when it may run: GC of a network alone, the others together (CNI SPEC 1.1.0, section 2). */
  async run(verb: RandomVerb, attachment: Attachment, directory: string): Promise<void> {
    const { network } = attachment;
    while (this.#collections.has(network)) await this.#collections.get(network);
    const others = this.#running.get(network) ?? new Set();
    this.#running.set(network, others);
    const turn = verb === 'GC' ? Promise.allSettled(others) : undefined;
    const run = Promise.resolve(turn).then(() => this.#run(verb, attachment, directory));
    const gate = run.catch(() => {});
    if (verb === 'GC') this.#collections.set(network, gate);
    else others.add(gate);
    try {
      await run;
    } finally {
      if (verb === 'GC') this.#collections.delete(network);
      else others.delete(gate);
    }
  }

  async #run(verb: RandomVerb, attachment: Attachment, directory: string): Promise<void> {
    const call = callOf(attachment, directory);
    const attached = this.#attached.get(attachment);
    if (verb === 'STATUS')
      expectSuccess(await host.runPlugin('STATUS', { directory, config: attachment.network }));
    else if (verb === 'GC') await this.#collect(attachment.network, directory);
    else if (verb === 'ADD' && attached === undefined) await this.#add(attachment, call);
    else if (verb === 'ADD') expect(expectError(await host.runPlugin('ADD', call)).code).toBe(102);
    else if (verb === 'DEL') await this.#delete(attachment, call, attached);
    else if (attached !== undefined) await this.#check(attachment, { ...attached, call });
  }

  async #add(attachment: Attachment, call: PluginCall): Promise<void> {
    const result = expectResult(await host.runPlugin('ADD', call));
    const attached: Attached = { call, result, ip4: '', ip6: '' };
    this.#attached.set(attachment, attached);
    for (const key of keysOf(attachment, attached)) {
      const other = this.#holders.get(key);
      if (other !== undefined) throw new Error(`${key} was given to ${other.name} as well`);
      this.#holders.set(key, attachment);
    }
    expectResult(await host.runPlugin('ADD', portCallOf(attached, attachment.mappings)));
  }

  async #delete(attachment: Attachment, call: PluginCall, attached: Attached | undefined): Promise<void> {
    if (attached !== undefined) for (const key of keysOf(attachment, attached)) this.#holders.delete(key);
    this.#attached.delete(attachment);
    const known = { call, result: attached?.result ?? { cniVersion: '1.1.0' }, ip4: '', ip6: '' };
    expectSuccess(await host.runPlugin('DEL', portCallOf(known, attachment.mappings)));
    expectSuccess(await host.runPlugin('DEL', attached === undefined ? call : withPrevResult(known)));
  }

  async #check(attachment: Attachment, attached: Attached): Promise<void> {
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    expectSuccess(await host.runPlugin('CHECK', portCallOf(attached, attachment.mappings)));
  }

  async #collect(network: BridgeConfig, directory: string): Promise<void> {
    const valid = this.attachments
      .filter((other) => other.network === network && this.#attached.has(other))
      .map(({ name, ifname }) => ({ containerID: name, ifname }));
    const list = { 'cni.dev/valid-attachments': valid };
    expectSuccess(await host.runPlugin('GC', { directory, config: { ...network, ...list } }));
    const config = { cniVersion: '1.1.0', name: network.name, type: 'portmap', ...list };
    expectSuccess(await host.runPlugin('GC', { directory, plugin: 'portmap', config }));
  }
}

function keysOf({ network }: Attachment, { result }: Attached): string[] {
  return (result.ips ?? []).map(({ address }) => `${network.name} ${address}`);
}

function callOf({ name, sandbox, network, ifname }: Attachment, directory: string): PluginCall {
  return { directory, config: network, containerId: name, netns: sandbox.path, ifname };
}

function leaseCall(containerId: string, directory: string, subnet: string): PluginCall {
  return {
    plugin: 'host-local',
    directory,
    config: {
      cniVersion: '1.0.0',
      name: 'shared',
      type: 'bridge',
      ipam: { type: 'host-local', ranges: [[{ subnet }], [{ subnet: 'fd00:1::/64' }]] },
    },
    containerId,
    netns: '/run/netns/none',
    ifname: 'eth0',
  };
}

/** What is different since then, but for the index beside the store, which is made anew and no state. */
async function leftSince(before: Snapshot): Promise<string[]> {
  return difference(before, await host.snapshot()).filter((line) => !line.includes('/networks/.patchbay'));
}

function expectReference(): void {
  if (!existsSync(`${REFERENCE}/host-local`)) {
    throw new Error(`${REFERENCE}/host-local is missing (Debian package containernetworking-plugins)`);
  }
}
