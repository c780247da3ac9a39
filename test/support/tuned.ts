// Attachments that are tuned: bridge and tuning called one after the other, as a runtime calls a list.
// Used by the binary tests of tuning on top of attachment.ts.
import { type Attached, attach } from './attachment.ts';
import type { Fields } from './chain.ts';
import { type BridgeConfig, readNetwork } from './network-list.ts';
import type { PrivateHost, Sandbox } from './private-host.ts';
import { type CniResult, expectResult, type PluginCall } from './run-plugin.ts';

/** An attachment of bridge, and the call that tunes it. */
export interface Tunable extends Attached {
  readonly tuningCall: PluginCall;
}

export const TUNED: BridgeConfig = readNetwork('bridge-tuning.conflist').config;

/** Two of the sandbox's settings, and all properties of the link, none of them as it is at the beginning. */
export const SETTINGS = {
  sysctl: { 'net.core.somaxconn': '512', 'net.ipv4.conf.IFNAME.arp_filter': '1' },
  mac: '02:00:00:00:00:0A',
  mtu: 1400,
  promisc: true,
  allmulti: true,
  txQLen: 77,
};

/** ADDs a sandbox to the network; the call is the one that tunes it. */
export async function attachTunable(
  host: PrivateHost,
  sandbox: Sandbox,
  fields: Fields = SETTINGS,
  more: Partial<PluginCall> = {},
): Promise<Tunable> {
  const attached = await attach(host, TUNED, sandbox);
  return { ...attached, tuningCall: tuningCallOf(attached, fields, more) };
}

/** The call of tuning for an attachment that bridge has made. */
export function tuningCallOf(attached: Attached, fields: Fields, more: Partial<PluginCall> = {}): PluginCall {
  const { cniVersion, name } = attached.call.config as BridgeConfig;
  const config = { cniVersion, name, type: 'tuning', prevResult: attached.result, ...fields };
  return { ...attached.call, plugin: 'tuning', config, ...more };
}

/** Tunes it, and gives the result. Throws when ADD fails. */
export async function tune(host: PrivateHost, { tuningCall }: Tunable): Promise<CniResult> {
  return expectResult(await host.runPlugin('ADD', tuningCall));
}

/** What SETTINGS change, as the sandbox shows it. */
export async function tunedFacts(sandbox: Sandbox, ifname = 'eth0'): Promise<Fields> {
  const [link] = JSON.parse((await sandbox.run('ip', ['-json', 'link', 'show', ifname])).stdout) as {
    readonly address: string;
    readonly mtu: number;
    readonly txqlen: number;
    readonly flags: readonly string[];
  }[];
  const names = ['net.core.somaxconn', `net/ipv4/conf/${ifname}/arp_filter`];
  const { stdout } = await sandbox.run('sysctl', ['-n', ...names]);
  const [somaxconn, arpFilter] = stdout.trim().split('\n');
  return {
    mac: link?.address,
    mtu: link?.mtu,
    txQLen: link?.txqlen,
    promisc: link?.flags.includes('PROMISC'),
    allmulti: link?.flags.includes('ALLMULTI'),
    somaxconn,
    arpFilter,
  };
}
