// Runs cnitool, the command-line client of the CNI project, inside a private host.
// Called through `host.cnitool` by the end-to-end tests.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Finished, Place } from './place.ts';
import { pluginDirectory } from './run-plugin.ts';

export interface CnitoolCall {
  /** Name of the network, from the conflist files in the host's /etc/cni/net.d. */
  readonly network: string;
  /** Path of the sandbox. */
  readonly netns: string;
  readonly directory?: string;
  readonly ifname?: string;
  readonly args?: string;
  /** Values for the capabilities that the plugins declare, such as `{ ips: ['10.22.0.9'] }`. */
  readonly capabilityArgs?: Readonly<Record<string, unknown>>;
}

/** Where the test set-up put cnitool, or PATCHBAY_CNITOOL; undefined when it is not there. */
export function findCnitool(): string | undefined {
  const candidates = [process.env['PATCHBAY_CNITOOL'], join(import.meta.dirname, '../../.cache/bin/cnitool')];
  return candidates.find((path) => path !== undefined && existsSync(path));
}

/** `cnitool <verb> <network> <netns>`; no exit code throws, cnitool says what failed on stderr. */
export async function runCnitool(host: Place, verb: string, call: CnitoolCall): Promise<Finished> {
  const cnitool = findCnitool();
  if (cnitool === undefined)
    throw new Error('cnitool is missing: run the tests through "npm test", which installs it');
  return host.attempt(cnitool, [verb, call.network, call.netns], {
    env: {
      NETCONFPATH: '/etc/cni/net.d',
      CNI_PATH: call.directory ?? pluginDirectory(),
      CNI_IFNAME: call.ifname,
      CNI_ARGS: call.args,
      CAP_ARGS: call.capabilityArgs && JSON.stringify(call.capabilityArgs),
    },
  });
}
