// What iptables-save prints, and the text for iptables-restore that is made of it: no line of our own making may come
// from a listing but as a line that was in it.
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import {
  encodeAddition,
  encodeForwardRemoval,
  findForwardDifference,
} from '../../../shared/iptables/forward-plan.ts';
import * as hostports from '../../../shared/iptables/hostports-plan.ts';
import * as masquerade from '../../../shared/iptables/masquerade-plan.ts';
import { normalizeSpec, parseSave, type SavedTable } from '../../../shared/iptables/save-format.ts';
import { defineTarget } from '../driver.ts';
import { mutated } from '../inputs/bytes.ts';
import { promise } from '../target.ts';

const OWNER = { network: 'fuzz', containerId: 'fuzzed' };
const ADDRESSES = [parseCidr('10.22.0.2/24')];
const MASQUERADE = masquerade.planMasquerade({ ...OWNER, addresses: ADDRESSES });
const HOSTPORTS = hostports.planHostports({
  ...OWNER,
  addresses: ADDRESSES,
  mappings: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIp: undefined, families: [4, 6] }],
  snat: true,
  masqAll: false,
  markMasqBit: 13,
  conditions4: [],
  conditions6: [],
});
const FORWARD = {
  addresses: [parseIp('10.22.0.2')],
  adminChain: 'CNI-ADMIN',
  publishedComment: 'published',
  ingress: { bridge: 'br-fuzz', policy: 'isolated' },
} as const;

const EMPTY: SavedTable = { chains: [], policies: new Map(), rules: [] };

// A listing as the program makes it of what we write, and one that was recorded.
const LISTINGS = [
  readFileSync(new URL('../../fixtures/iptables/hostports.save', import.meta.url), 'utf8'),
  asListing(masquerade.encodeNewChain(MASQUERADE, 4)),
  asListing(hostports.encodeReplacement(HOSTPORTS, 4, EMPTY)),
  asListing(encodeAddition(FORWARD, 4, EMPTY) ?? ''),
  ':CNI-X - [0:0]\n-A CNI-X -m comment --comment "say \\"-j DROP\\" twice" -j ACCEPT\n-A POSTROUTING -s 10.22.0.2/32 -j CNI-X',
];

function asListing(commands: string): string {
  return commands.replace(/^-N (\S+)$/gm, ':$1 - [0:0]').replace(/^-I (\S+) 1 /gm, '-A $1 ');
}

const LINES = [...new Set(LISTINGS.flatMap((text) => text.split('\n')))];

const LISTING = fc.oneof(
  fc.constantFrom(...LISTINGS),
  fc.array(fc.constantFrom(...LINES), { maxLength: 20 }).map((lines) => lines.join('\n')),
);

export const iptablesSave = defineTarget({
  name: 'iptables-save',
  weight: 8,
  input: mutated(
    LISTING.map((text) => new Uint8Array(Buffer.from(text))),
    {
      most: 5,
      tokens: [
        '\n',
        '\r',
        '"',
        '\\',
        ' -j ',
        '-A ',
        '! ',
        '-s 10.22.0.2/32 ',
        ':CNI-',
        '--comment ',
        '\u2028',
        '\0',
        MASQUERADE.chain,
      ],
    },
  ),
  run(bytes) {
    const text = Buffer.from(bytes).toString();
    const saved = parseSave(text);
    const lines = new Set(text.split('\n'));
    for (const { chain, spec } of saved.rules) {
      promise(lines.has(`-A ${chain} ${spec}`), `A rule is none of the listing: ${spec}`);
      normalizeSpec(spec);
    }
    const own = new Set(restoreTexts(EMPTY).flatMap((made) => made.split('\n')));
    for (const made of restoreTexts(saved)) {
      for (const line of made.split('\n'))
        promise(isExpected(line, lines, own), `A line comes from nowhere: ${line}`);
    }
    masquerade.findMissing(MASQUERADE, 4, saved);
    hostports.findDifference(HOSTPORTS, 4, saved);
    hostports.listPorts([HOSTPORTS.chain], saved);
    findForwardDifference(FORWARD, 4, saved);
    return saved.rules.length === 0 ? 'no rule' : 'ok';
  },
});

function restoreTexts(saved: SavedTable): string[] {
  return [
    masquerade.encodeRepair(MASQUERADE, 4, saved),
    masquerade.encodeRemoval(MASQUERADE.chain, saved, {}),
    hostports.encodeReplacement(HOSTPORTS, 4, saved),
    hostports.encodeRemoval([HOSTPORTS.chain], saved),
    encodeAddition(FORWARD, 4, saved),
    encodeForwardRemoval(FORWARD.addresses, ['br-fuzz'], 4, saved),
  ].filter((text) => text !== undefined);
}

// A rule of the listing deleted or moved, a chain of ours emptied, or what an empty table would get as well.
function isExpected(line: string, listing: ReadonlySet<string>, own: ReadonlySet<string>): boolean {
  const repeated = line.replace(/^-[DI] (\S+) (?:1 )?/, '-A $1 ');
  const isOfOwnChain = [MASQUERADE.chain, HOSTPORTS.chain].some(
    (chain) => line === `-F ${chain}` || line === `-X ${chain}`,
  );
  return own.has(line) || listing.has(repeated) || isOfOwnChain;
}
