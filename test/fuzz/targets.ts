// All targets in process, in the order in which the totals tell of them.
// Called by worker.ts and by whoever needs their names.
import type { Target } from './target.ts';
import { bridgeConfig } from './targets/bridge-config.ts';
import { cniArgsText } from './targets/cni-args.ts';
import { conntrackReplies } from './targets/conntrack-replies.ts';
import { convertList } from './targets/convert.ts';
import { dispatcher } from './targets/dispatcher.ts';
import { firewallConfig } from './targets/firewall-config.ts';
import { hostLocalConfig } from './targets/host-local-config.ts';
import { iptablesSave } from './targets/iptables-save.ts';
import { logLine } from './targets/log-line.ts';
import { loopbackConfig } from './targets/loopback-config.ts';
import { netlinkMessages } from './targets/netlink-messages.ts';
import { nftablesReplies } from './targets/nftables-replies.ts';
import { patchbayConfig } from './targets/patchbay-config.ts';
import { portmapConfig } from './targets/portmap-config.ts';
import { prevResults } from './targets/prev-result.ts';
import { resolvConf } from './targets/resolv-conf.ts';
import { rtnetlinkReplies } from './targets/rtnetlink-replies.ts';
import { store } from './targets/store.ts';
import { tuningBackup } from './targets/tuning-backup.ts';
import { tuningConfig } from './targets/tuning-config.ts';

export const TARGETS: readonly Target[] = [
  dispatcher,
  bridgeConfig,
  hostLocalConfig,
  portmapConfig,
  firewallConfig,
  tuningConfig,
  loopbackConfig,
  patchbayConfig,
  cniArgsText,
  prevResults,
  store,
  resolvConf,
  tuningBackup,
  convertList,
  logLine,
  iptablesSave,
  netlinkMessages,
  rtnetlinkReplies,
  nftablesReplies,
  conntrackReplies,
];

/** The target of that name. Throws when there is none. */
export function targetNamed(name: string): Target {
  const target = TARGETS.find((candidate) => candidate.name === name);
  if (target !== undefined) return target;
  throw new Error(`There is no target "${name}"; there are ${TARGETS.map((known) => known.name).join(', ')}`);
}
