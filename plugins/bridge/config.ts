// The bridge plugin's part of a network config: one typed value, or an error that names the field.
// Called by dispatch before any verb; nothing here looks at the host.
import * as v from 'valibot';
import { parseCniArgs } from '../../shared/cni/args.ts';
import { configObject, decode } from '../../shared/cni/decode.ts';
import { invalidConfig } from '../../shared/cni/error.ts';
import type { ConfigSource } from '../../shared/cni/plugin.ts';
import type { Dns } from '../../shared/cni/result.ts';
import { formatMac } from '../../shared/ip/mac.ts';
import { isLinkName, LINK_NAME_BYTES } from '../../shared/linux/link-name.ts';
import { mtuField, parseStationMac } from '../../shared/sandbox/link-fields.ts';
import { type PlannedVlans, planVlans, vlanGatewayName } from './vlan-plan.ts';

export type MasqueradeBackend = 'nftables' | 'iptables';

/** What ADD, CHECK and STATUS work with. */
export interface BridgeConfig {
  readonly bridge: string;
  readonly isGateway: boolean;
  readonly isDefaultGateway: boolean;
  readonly forceAddress: boolean;
  readonly ipMasq: boolean;
  readonly ipMasqBackend: MasqueradeBackend;
  /** Bytes; undefined leaves the kernel's default. */
  readonly mtu: number | undefined;
  readonly hairpinMode: boolean;
  readonly promiscMode: boolean;
  readonly portIsolation: boolean;
  /** What VLANs the port is in; undefined leaves it as the bridge makes it. */
  readonly vlans: PlannedVlans | undefined;
  /** Nothing leaves the sandbox under a MAC that is not its own. */
  readonly macSpoofCheck: boolean;
  /** Nor under an IP address that was not leased to it; implies `macSpoofCheck`. */
  readonly ipSpoofCheck: boolean;
  readonly enableDad: boolean;
  readonly disableContainerInterface: boolean;
  /** Undefined in layer-2 mode. */
  readonly ipamType: string | undefined;
  /** Subnets named in the IPAM section: addresses inside them on the bridge belong to this network. */
  readonly ownSubnets: readonly string[];
  readonly dns: Dns | undefined;
  /** MAC the sandbox link must have, lower-case with colons. */
  readonly mac: string | undefined;
}

/** What DEL and GC can do with: a config that ADD would refuse must still be cleaned up after. */
export interface BridgeTeardown {
  readonly bridge: string;
  readonly ipamType: string | undefined;
  /** The VLAN whose gateway may be unused now. */
  readonly vlan: number | undefined;
}

const DEFAULT_BRIDGE = 'cni0';
/** include/linux/if_vlan.h: VLAN_N_VID less the reserved 4095. */
const MAX_VLAN = 4094;

/** Parses a config for ADD, CHECK and STATUS. Throws invalidConfig (7) naming field and value. */
export function parseConfig(source: ConfigSource): BridgeConfig {
  const fields = decode(bridgeSchema(), source.network.raw, 'bridge config');
  const isDefaultGateway = fields.isDefaultGateway ?? false;
  const config: BridgeConfig = {
    bridge: fields.bridge || DEFAULT_BRIDGE,
    isGateway: isDefaultGateway || (fields.isGateway ?? false),
    isDefaultGateway,
    forceAddress: fields.forceAddress ?? false,
    ipMasq: fields.ipMasq ?? false,
    ipMasqBackend: fields.ipMasqBackend || 'nftables',
    mtu: fields.mtu || undefined,
    hairpinMode: fields.hairpinMode ?? false,
    promiscMode: fields.promiscMode ?? false,
    portIsolation: fields.portIsolation ?? false,
    vlans: planVlans(fields),
    macSpoofCheck: fields.macspoofchk || fields.ipspoofchk || false,
    ipSpoofCheck: fields.ipspoofchk ?? false,
    enableDad: fields.enabledad ?? false,
    disableContainerInterface: fields.disableContainerInterface ?? false,
    ipamType: fields.ipam?.type || undefined,
    ownSubnets: subnetsOf(fields.ipam, fields.runtimeConfig?.ipRanges),
    dns: definedDns(fields.dns),
    mac: requestedMac(fields, source.args),
  };
  refuseBadNames(config);
  refuseContradictions(config);
  return config;
}

/** Understands what it can of a config for DEL and GC; never throws. */
export function parseTeardown(source: ConfigSource): BridgeTeardown {
  const fields = v.safeParse(teardownSchema(), source.network.raw);
  const bridge = fields.success ? fields.output.bridge : undefined;
  return {
    bridge: bridge && isLinkName(bridge) ? bridge : DEFAULT_BRIDGE,
    ipamType: (fields.success && fields.output.ipam?.type) || undefined,
    vlan: (fields.success && fields.output.vlan) || undefined,
  };
}

function bridgeSchema() {
  const flag = v.boolean;
  const text = v.string;
  const texts = () => v.array(v.string());
  const ranges = () => v.array(v.array(configObject({ subnet: text })));
  return configObject({
    bridge: text,
    isGateway: flag,
    isDefaultGateway: flag,
    forceAddress: flag,
    ipMasq: flag,
    ipMasqBackend: () => v.picklist(['', 'nftables', 'iptables']),
    mtu: mtuField,
    hairpinMode: flag,
    promiscMode: flag,
    portIsolation: flag,
    enabledad: flag,
    disableContainerInterface: flag,
    preserveDefaultVlan: flag,
    macspoofchk: flag,
    ipspoofchk: flag,
    vlan: () => v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_VLAN)),
    vlanTrunk: () => v.array(configObject({ id: vlanId, minID: vlanId, maxID: vlanId })),
    ipam: () => configObject({ type: text, subnet: text, ranges }),
    dns: () => configObject({ nameservers: texts, domain: text, search: texts, options: texts }),
    args: () => configObject({ cni: () => configObject({ mac: text }) }),
    runtimeConfig: () => configObject({ mac: text, ipRanges: ranges }),
  });
}

type BridgeFields = v.InferOutput<ReturnType<typeof bridgeSchema>>;

function teardownSchema() {
  const text = () => v.fallback(v.optional(v.string()), undefined);
  return configObject({
    bridge: text,
    ipam: () => v.fallback(v.optional(configObject({ type: text })), undefined),
    vlan: () => v.fallback(v.optional(v.pipe(v.number(), v.integer(), v.maxValue(MAX_VLAN))), undefined),
  });
}

function vlanId() {
  return v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_VLAN));
}

/** Precedence of the reference: what the runtime asks, then the config's `args`, then CNI_ARGS. */
function requestedMac(fields: BridgeFields, args: string): string | undefined {
  const fromArgs = parseCniArgs(args, ['MAC']).get('MAC');
  const requested = [
    { field: 'runtimeConfig.mac', value: fields.runtimeConfig?.mac },
    { field: 'args.cni.mac', value: fields.args?.cni?.mac },
    { field: 'CNI_ARGS MAC', value: fromArgs },
  ].find(({ value }) => value);
  if (requested?.value === undefined) {
    return undefined;
  }
  return formatMac(parseStationMac(requested.field, requested.value));
}

function refuseBadNames(config: BridgeConfig): void {
  if (!isLinkName(config.bridge)) {
    const rule = `a link name has 1 to ${LINK_NAME_BYTES} bytes, no "/", ":" or white space, and is not "." or ".."`;
    throw invalidConfig(`Field "bridge" is no link name: "${config.bridge.slice(0, 80)}"; ${rule}`);
  }
}

function refuseContradictions(config: BridgeConfig): void {
  if (config.hairpinMode && config.promiscMode) {
    throw invalidConfig(
      'Fields "hairpinMode" and "promiscMode" exclude each other; set only one of them to true',
    );
  }
  if (config.disableContainerInterface && config.ipamType !== undefined) {
    const next = 'remove "ipam" or "disableContainerInterface"';
    throw invalidConfig(`Field "disableContainerInterface" leaves no link to give addresses to; ${next}`);
  }
  const gateway = config.isGateway && config.vlans?.id && vlanGatewayName(config.bridge, config.vlans.id);
  if (gateway && !isLinkName(gateway)) {
    const next = `use a shorter name, so that "${gateway}" has ${LINK_NAME_BYTES} bytes at most`;
    throw invalidConfig(`Field "bridge" is too long for a link with the gateway of its VLAN; ${next}`);
  }
  if (config.ipSpoofCheck && config.ipamType === undefined) {
    const next = 'add "ipam", or use "macspoofchk" in its place';
    throw invalidConfig(
      `Field "ipspoofchk" allows the addresses that IPAM leases, and there is none; ${next}`,
    );
  }
}

function subnetsOf(
  ipam: BridgeFields['ipam'],
  ipRanges: { subnet?: string | undefined }[][] | undefined,
): string[] {
  const pools = [...(ipam?.ranges ?? []), ...(ipRanges ?? [])].flat();
  return [ipam?.subnet, ...pools.map(({ subnet }) => subnet)].filter((subnet) => subnet !== undefined);
}

/** Undefined unless some key says something: only then the config's dns replaces the one of IPAM. */
function definedDns(dns: BridgeFields['dns']): Dns | undefined {
  const { nameservers, domain, search, options } = dns ?? {};
  const defined: Dns = {
    ...(nameservers && nameservers.length > 0 && { nameservers }),
    ...(domain && { domain }),
    ...(search && search.length > 0 && { search }),
    ...(options && options.length > 0 && { options }),
  };
  return Object.keys(defined).length === 0 ? undefined : defined;
}
