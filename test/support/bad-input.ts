// The scene for bad input: one host with a living attachment, and many wrong calls made one after another.
// Used by the bad-input tests; after each call the host must be what it was.
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Attached, attach } from './attachment.ts';
import type { BridgeConfig } from './network-list.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import { expectError, type PluginCall, type Verb } from './run-plugin.ts';
import { difference, type Snapshot } from './snapshot.ts';

export interface BadCase {
  /** Completes the sentence "refuses …". */
  readonly title: string;
  /** The verbs that must fail, and with which code. */
  readonly fails: Partial<Record<Verb, number>>;
  /** The verbs that must succeed all the same, and change nothing. */
  readonly tolerates?: readonly Verb[];
  /** What each message must hold: the field, and the value where there is one. */
  readonly says: readonly string[];
  /** Changes to the environment of a good call. */
  readonly call?: Partial<PluginCall>;
  /** Standard input in place of a good config. */
  readonly stdin?: string | Uint8Array;
  /** Changes to the fields of a good config; those of `ipam` are merged one level deeper. */
  readonly config?: Fields | ((scene: Scene) => Fields);
  /** Brings the host into the state that makes the call wrong; what it returns undoes that. */
  readonly prepare?: (scene: Scene) => Promise<() => Promise<unknown>>;
}

export type Fields = { readonly [field: string]: unknown };

export interface Scene extends AsyncDisposable {
  readonly host: PrivateHost;
  readonly config: BridgeConfig;
  /** A sandbox attached to the network, on which CHECK is called. */
  readonly resident: Attached;
  /** A sandbox that is on no network, on which ADD and DEL are called. */
  readonly newcomer: Sandbox;
  /** Runs a case and expects what it promises, and an unchanged host. */
  expectRefusal(badCase: BadCase): Promise<void>;
}

/** For what is wrong before a plugin is asked: no verb can work. */
export function everyVerb(code: number): Record<'ADD' | 'CHECK' | 'STATUS' | 'DEL' | 'GC', number> {
  return { ADD: code, CHECK: code, STATUS: code, DEL: code, GC: code };
}

/** For a field that DEL and GC must be able to do without. */
export function strictVerbs(code: number): Pick<BadCase, 'fails' | 'tolerates'> {
  return { fails: { ADD: code, CHECK: code, STATUS: code }, tolerates: ['DEL', 'GC'] };
}

// A plugin that hangs is one of the ways to get this wrong.
const TIME_LIMIT_MS = 20_000;

/** One test for each case, all of them on one scene; `setUp` adds to it what the cases need. */
export function testRefusals(
  subject: string,
  cases: readonly BadCase[],
  setUp?: (scene: Scene) => Promise<void>,
): void {
  describe(`${subject} refuses`, () => {
    let scene: Scene;
    beforeAll(async () => {
      scene = await openScene(setUp);
    });
    afterAll(() => scene[Symbol.asyncDispose]());
    for (const badCase of cases) test(badCase.title, () => scene.expectRefusal(badCase), TIME_LIMIT_MS);
  });
}

/** Opens a host with the network "scene" in use by the container "resident". */
async function openScene(setUp?: (scene: Scene) => Promise<void>): Promise<Scene> {
  const host = await openPrivateHost();
  const resident = await attach(host, CONFIG, await host.addSandbox('resident'));
  const newcomer = await host.addSandbox('newcomer');
  mkdirSync(host.file('/run/odd'));
  writeFileSync(host.file('/run/odd/file'), 'no namespace');
  await host.shell('mkfifo /run/odd/fifo; ln -s loop /run/odd/loop');
  let before: Snapshot = [];

  // What differs is charged to the case that did it, not to those after it.
  async function expectUnchanged(): Promise<void> {
    const after = await host.snapshot();
    const changes = difference(before, after).filter((line) => !isIndex(line));
    before = after;
    expect(changes).toEqual([]);
  }

  async function expectRefusal(badCase: BadCase): Promise<void> {
    const undo = await badCase.prepare?.(scene);
    if (undo) before = await host.snapshot();
    try {
      // The tolerated verbs come second: a DEL or GC may take away what an ADD is still making.
      const outcomes = [
        ...(await Promise.allSettled(
          Object.entries(badCase.fails).map(([verb, code]) =>
            expectFailure(scene, badCase, verb as Verb, code),
          ),
        )),
        ...(await Promise.allSettled(
          (badCase.tolerates ?? []).map((verb) => expectTolerance(scene, badCase, verb)),
        )),
      ];
      await expectUnchanged();
      for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    } finally {
      await undo?.();
      if (undo) before = await host.snapshot();
    }
  }

  const scene: Scene = {
    host,
    config: CONFIG,
    resident,
    newcomer,
    expectRefusal,
    [Symbol.asyncDispose]: () => host.close(),
  };
  await setUp?.(scene);
  before = await host.snapshot();
  return scene;
}

// The index beside the stores is no state: it is made anew when something else wrote to a store, as these
// tests do.
function isIndex(line: string): boolean {
  return line.includes('/networks/.patchbay');
}

const CONFIG: BridgeConfig = {
  cniVersion: '1.1.0',
  name: 'scene',
  type: 'bridge',
  bridge: 'br-scene',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: {
    type: 'host-local',
    ranges: [[{ subnet: '10.66.0.0/24' }], [{ subnet: 'fd00:66::/64' }]],
  },
};

// Far more than any message needs, far less than a config of 1 MB echoed back.
const LONGEST_MESSAGE = 1000;

async function expectFailure(scene: Scene, badCase: BadCase, verb: Verb, code: number): Promise<void> {
  const outcome = await scene.host.runPlugin(verb, callFor(scene, badCase, verb));
  const report = expectError(outcome);
  expect({ verb, ...report }).toMatchObject({ verb, code });
  for (const text of badCase.says) expect(report.msg, `the message of ${verb}`).toContain(text);
  expect(report.msg.length, `the length of the message of ${verb}`).toBeLessThan(LONGEST_MESSAGE);
}

async function expectTolerance(scene: Scene, badCase: BadCase, verb: Verb): Promise<void> {
  const outcome = await scene.host.runPlugin(verb, callFor(scene, badCase, verb));
  expect({ verb, ...outcome }).toMatchObject({ verb, exitCode: 0, stdout: '' });
}

// ADD and DEL are about the newcomer, CHECK about the resident, and GC keeps the resident.
function callFor(scene: Scene, badCase: BadCase, verb: Verb): PluginCall {
  const { call, stdin } = badCase;
  const config = typeof badCase.config === 'function' ? badCase.config(scene) : (badCase.config ?? {});
  const good = { ...CONFIG, ...extraFields(scene, verb) };
  const ipam = 'ipam' in config ? mergeIpam(config['ipam']) : CONFIG.ipam;
  return { ...goodEnvironment(scene, verb), config: stdin ?? { ...good, ...config, ipam }, ...call };
}

function goodEnvironment(scene: Scene, verb: Verb): PluginCall {
  if (verb === 'STATUS' || verb === 'GC' || verb === 'VERSION') return {};
  if (verb === 'CHECK') return scene.resident.call;
  return { containerId: 'newcomer', netns: scene.newcomer.path, ifname: 'eth0' };
}

function extraFields({ resident }: Scene, verb: Verb): Fields {
  if (verb === 'CHECK') return { prevResult: resident.result };
  if (verb !== 'GC') return {};
  return { 'cni.dev/valid-attachments': [{ containerID: 'resident', ifname: 'eth0' }] };
}

function mergeIpam(changes: unknown): unknown {
  const isObject = typeof changes === 'object' && changes !== null && !Array.isArray(changes);
  return isObject ? { ...CONFIG.ipam, ...changes } : changes;
}
