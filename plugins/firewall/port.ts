// The policy "isolated" on the way that leads through no rule: frames from port to port of the bridge. Called by ADD and
// CHECK. The kernel keeps the flag with the port, so it is gone with the attachment.
import { hostLinkName } from '../../shared/cni/attachment.ts';
import { checkFailed } from '../../shared/cni/error.ts';
import type { Rollback } from '../../shared/cni/rollback.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { FirewallWish } from '../../shared/ruleset/firewall.ts';

/**
 * Keeps the attachment's port apart from other isolated ports when the policy is "isolated". Without bridge netfilter
 * frames between ports meet no rule of family inet, and few kernels can tell the bridge's name in one of family bridge.
 * Equivalent to: `bridge link set dev veth… isolated on`
 */
export function isolatePort(host: Rtnetlink, wish: FirewallWish, rollback: Rollback): void {
  const port = findPort(host, wish);
  if (port === undefined || port.port?.isolated) {
    return;
  }
  rollback.add('let the port talk to others again', () => host.link.setPort(port.index, { isolated: false }));
  host.link.setPort(port.index, { isolated: true });
}

/** Throws checkFailed when the port should be kept apart and is not. */
export function expectIsolatedPort(host: Rtnetlink, wish: FirewallWish): void {
  const port = findPort(host, wish);
  if (port !== undefined && !port.port?.isolated) {
    throw checkFailed(`Port "${port.name}" of bridge "${wish.bridge}" is not isolated`);
  }
}

/** The port that has to be isolated; undefined for another policy, and for an attachment that has no port. */
function findPort(host: Rtnetlink, { attachment, link, bridge, policy }: FirewallWish): Link | undefined {
  if (policy !== 'isolated' || link === 'unknown') {
    return undefined;
  }
  const found = host.link.find({ name: link === 'own' ? hostLinkName(attachment) : link.name });
  const isPort = found?.port !== undefined && found.master === host.link.find({ name: bridge })?.index;
  return isPort ? found : undefined;
}
