// The firewall plugin's ADD: lets the container's packets through and gives its bridge the ingress policy, all or none.
// Called by dispatch behind an interface plugin.
import { ownerHash } from '../../shared/cni/attachment.ts';
import { expectChained } from '../../shared/cni/chained.ts';
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { ipEquals } from '../../shared/ip/cidr.ts';
import { expectPlainBridge, planForwardRemoval } from '../../shared/iptables/forward.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import { type FirewallWish, listAdmitted, planFirewall } from '../../shared/ruleset/firewall.ts';
import { findRuleset, type RulesetNeed, withRuleset } from '../../shared/ruleset/open.ts';
import type { FirewallConfig } from './config.ts';
import { goElsewhere, isElsewhere, planElsewhere } from './elsewhere.ts';
import { isolatePort } from './port.ts';
import { removeAdmissions } from './remove.ts';
import { findScope } from './scope.ts';

/** What a kernel without nf_tables means for a verb. */
export function need(fail: RulesetNeed['fail']): RulesetNeed {
  return { fail, need: 'The firewall', alternative: '"backend" to "iptables"' };
}

/**
 * Admits the addresses of the prevResult, in our table and wherever else this host would drop their packets, and passes
 * it on unchanged (CNI SPEC 1.1.0, section 2, "ADD"). Throws invalidConfig without a prevResult; undoes what it made.
 */
export function add(call: AddCall<FirewallConfig>): Result {
  const { config, attachment, log } = call;
  const prevResult = expectChained(call.network.prevResult, 'firewall');
  using host = openRtnetlink();
  const scope = findScope(host, attachment, prevResult, config.ingressPolicy);
  if (scope === undefined) {
    return prevResult;
  }
  using rollback = new Rollback(log);
  if (config.backend === 'iptables') {
    using nft = findRuleset();
    expectPlainBridge({ addresses: [], adminChain: '', ingress: scope });
    admit(call, host, nft, scope, rollback);
  } else {
    withRuleset(need(kernelFeatureMissing), (nft) => admit(call, host, nft, scope, rollback));
  }
  rollback.commit();
  return prevResult;
}

/**
 * Our own elements come first whatever the backend: they are how DEL, whom nobody may tell the addresses, knows what to
 * look for elsewhere.
 */
function admit(
  { config, log }: AddCall<FirewallConfig>,
  host: Rtnetlink,
  nft: Nftables | undefined,
  scope: FirewallWish,
  rollback: Rollback,
): void {
  const isNative = config.backend !== 'iptables';
  const plan = planElsewhere(nft, config, scope);
  for (const line of plan.warnings) {
    log(line);
  }
  // What is written elsewhere before our own elements are there, nobody would find after a crash.
  const when = isElsewhere(plan) ? 'now' : 'together';
  const { zone } = config;
  rollback.add('take back what lets the container through', () => takeBack(scope, { zone, log }));
  if (nft !== undefined) {
    const wish = isNative ? scope : { ...scope, policy: 'open' as const };
    commitGuarded(nft, (open) => planOwn(open, wish), { when });
  }
  goElsewhere(nft, plan, config.zone);
  if (isNative) {
    isolatePort(host, scope, rollback);
  }
}

/** With the elements of addresses that this attachment has no more go the rules of iptables for them. */
function planOwn(nft: Nftables, wish: FirewallWish): ReturnType<typeof planFirewall> {
  const held = listAdmitted(nft, ownerHash(wish.attachment));
  const gone = held
    .map(({ address }) => address)
    .filter((address) => !wish.addresses.some((ip) => ipEquals(ip, address)));
  return [...planFirewall(nft, wish, held), ...planForwardRemoval(nft, gone, [])];
}

function takeBack(
  { attachment, addresses }: FirewallWish,
  how: { readonly zone: string; readonly log: (line: string) => void },
): void {
  const failures = new Failures();
  using nft = findRuleset();
  const own = ownerHash(attachment);
  const find = (open: Nftables) => listAdmitted(open, own);
  removeAdmissions({ nft, find, reported: addresses, when: 'undo', ...how }, failures);
  failures.throwIfAny();
}
