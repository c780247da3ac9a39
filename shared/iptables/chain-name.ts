// The names of iptables chains that a config may bring in, so that they can stand in the text of a rule.
// Called by the config parsers of portmap and firewall.
import * as v from 'valibot';

/** include/uapi/linux/netfilter/x_tables.h: XT_EXTENSION_MAXNAMELEN is 29 with the NUL. */
const CHAIN_NAME_BYTES = 28;

/** Targets that end the walk of a packet, and the chains no rule can jump to. */
const BUILT_IN = [
  'ACCEPT',
  'DROP',
  'QUEUE',
  'RETURN',
  'PREROUTING',
  'INPUT',
  'FORWARD',
  'OUTPUT',
  'POSTROUTING',
];

/** A schema for the name of a chain that rules jump to; empty for none. */
export function chainName() {
  const letters = `1 to ${CHAIN_NAME_BYTES} letters, digits, "_", ".", ":" and "-", the first no sign but "_"`;
  return v.pipe(
    v.string(),
    v.check((name) => name === '' || isChainName(name), `the name of a chain: ${letters}`),
    v.check((name) => !BUILT_IN.includes(name), 'a chain of your own, not one that is built in'),
  );
}

/** Stricter than iptables: nothing here needs quoting, nor can it be taken for an option. */
export function isChainName(name: string): boolean {
  return name.length <= CHAIN_NAME_BYTES && /^[A-Za-z0-9_][A-Za-z0-9_.:-]*$/.test(name);
}
