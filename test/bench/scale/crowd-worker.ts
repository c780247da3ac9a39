// Makes attachments one after the other in this process, as the packaged program makes one in each of its own.
// Started by crowd.ts inside a private host, with the order on standard input.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findPlugin } from '../../../plugins/registry.ts';
import { dispatch } from '../../../shared/cni/dispatch.ts';
import type { AttachmentAt } from '../network.ts';

export interface CrowdOrder {
  /** Of our executables. */
  readonly directory: string;
  readonly networks: readonly {
    /** What plugin `patchbay` is told. */
    readonly config: unknown;
    readonly attachments: readonly AttachmentAt[];
  }[];
}

const { directory, networks } = JSON.parse(readFileSync(0, 'utf8')) as CrowdOrder; // our own, by crowd.ts
const patchbay = findPlugin('patchbay');
if (patchbay === undefined) throw new Error('There is no plugin "patchbay"');

for (const { config, attachments } of networks) {
  const stdin = Buffer.from(JSON.stringify(config));
  for (const { containerId, ifname, netns } of attachments) {
    const { stdout, exitCode } = dispatch(patchbay, {
      env: {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: containerId,
        CNI_IFNAME: ifname,
        CNI_NETNS: `/run/netns/${netns}`,
        CNI_PATH: directory,
      },
      readStdin: () => stdin,
      log: (line) => process.stderr.write(`${line}\n`),
      registry: findPlugin,
      ownExecutable: join(directory, 'patchbay'), // so that host-local runs in process
      version: '0.0.0',
      pid: process.pid,
      uptime: process.uptime,
    });
    if (exitCode !== 0) throw new Error(`Cannot attach "${containerId}": ${stdout}`);
  }
}
