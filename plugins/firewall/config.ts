// The firewall plugin's part of a network config: one typed value, or an error that names the field.
// Called by dispatch before any verb; nothing here looks at the host.
import * as v from 'valibot';
import { configObject, decode, pickKeys } from '../../shared/cni/decode.ts';
import type { ConfigSource } from '../../shared/cni/plugin.ts';
import { chainName, isChainName } from '../../shared/iptables/chain-name.ts';
import type { IngressPolicy } from '../../shared/ruleset/firewall.ts';

/** `auto`: our own table, and with it whatever else on this host would drop the packets. */
export type Backend = 'auto' | 'nftables' | 'iptables' | 'firewalld';

/** What ADD, CHECK and STATUS work with. */
export interface FirewallConfig extends FirewallTeardown {
  readonly backend: Backend;
  readonly ingressPolicy: IngressPolicy;
  /** Whether STATUS fails when another chain of this host would drop the packets of containers. */
  readonly strictStatus: boolean;
}

/** What DEL and GC can do with: they look for what is there, whatever backend made it. */
export interface FirewallTeardown {
  readonly backend: Backend;
  /** The chain of the administrator that the reference's chains jump to first. */
  readonly adminChain: string;
  readonly zone: string;
}

const DEFAULT_ADMIN_CHAIN = 'CNI-ADMIN';
const DEFAULT_ZONE = 'trusted';
const BACKENDS = ['nftables', 'iptables', 'firewalld'] as const;
const POLICIES = ['open', 'same-bridge', 'isolated'] as const;

/** Parses a config for ADD, CHECK and STATUS. Throws invalidConfig (7) naming field and value. */
export function parseConfig(source: ConfigSource): FirewallConfig {
  const fields = decode(firewallSchema(), source.network.raw, 'the network configuration');
  return {
    backend: fields.backend || 'auto',
    adminChain: fields.iptablesAdminChainName || DEFAULT_ADMIN_CHAIN,
    zone: fields.firewalldZone || DEFAULT_ZONE,
    ingressPolicy: fields.ingressPolicy || 'open',
    strictStatus: fields.strictStatus ?? false,
  };
}

/** Understands what it can of a config for DEL and GC; never throws. */
export function parseTeardown(source: ConfigSource): FirewallTeardown {
  const { backend, iptablesAdminChainName, firewalldZone } = pickKeys(source.network.raw, [
    'backend',
    'iptablesAdminChainName',
    'firewalldZone',
  ]);
  const chain = typeof iptablesAdminChainName === 'string' ? iptablesAdminChainName : '';
  const zone = typeof firewalldZone === 'string' ? firewalldZone : '';
  return {
    backend: BACKENDS.find((known) => known === backend) ?? 'auto',
    adminChain: isChainName(chain) ? chain : DEFAULT_ADMIN_CHAIN,
    zone: isZoneName(zone) ? zone : DEFAULT_ZONE,
  };
}

function firewallSchema() {
  return configObject({
    backend: () => v.picklist(['', ...BACKENDS]),
    iptablesAdminChainName: chainName,
    firewalldZone: zoneName,
    ingressPolicy: () => v.picklist(['', ...POLICIES]),
    strictStatus: v.boolean,
  });
}

function zoneName() {
  const letters = `1 to ${ZONE_LETTERS} letters, digits, "_" and "-", the first no sign but "_"`;
  return v.pipe(
    v.string(),
    v.check((name) => name === '' || isZoneName(name), `the name of a firewalld zone: ${letters}`),
  );
}

/** firewalld.zone(5); a chain's name has to hold it. */
const ZONE_LETTERS = 17;

function isZoneName(name: string): boolean {
  return name.length <= ZONE_LETTERS && /^[A-Za-z0-9_][A-Za-z0-9_-]*$/.test(name);
}
