// What tuning can set on a link, as configs, plans and backups speak of it, and how a link shows it. Pure.
// Used by every part of the plugin.
import type { Link, LinkChange } from '../../shared/rtnetlink/link.ts';

/** Properties of a link, named as in configs and backups; those absent are left alone. */
export interface LinkSettings {
  /** Lower case with colons. */
  readonly mac?: string;
  readonly promisc?: boolean;
  /** Bytes. */
  readonly mtu?: number;
  readonly allmulti?: boolean;
  /** Packets. */
  readonly txQLen?: number;
}

/** One property and the value it has or shall have. */
export interface Setting {
  readonly key: keyof LinkSettings;
  readonly value: string | number | boolean;
}

/** The settings that are there, in the order in which ADD makes them: the reference's. */
export function listSettings(settings: LinkSettings): Setting[] {
  return ORDER.flatMap((key) => {
    const value = settings[key];
    return value === undefined ? [] : [{ key, value }];
  });
}

/** How the link is in just those properties that `wished` names. */
export function settingsOf(link: Link, wished: LinkSettings): LinkSettings {
  return Object.fromEntries(listSettings(wished).map(({ key }) => [key, FACTS[key](link)]));
}

/** The message that brings it about. */
export function changeOf({ key, value }: Setting): LinkChange {
  return { [FIELDS[key]]: value };
}

/** `MTU 1400`: how messages speak of it. */
export function describeSetting({ key, value }: Setting): string {
  if (typeof value === 'boolean') return `${WORDS[key]} ${value ? 'on' : 'off'}`;
  return `${WORDS[key]} ${value}`;
}

const ORDER = ['mac', 'promisc', 'mtu', 'allmulti', 'txQLen'] as const;

const FACTS: { readonly [K in keyof Required<LinkSettings>]: (link: Link) => LinkSettings[K] } = {
  mac: (link) => link.mac,
  promisc: (link) => link.isPromiscuous,
  mtu: (link) => link.mtu,
  allmulti: (link) => link.isAllmulti,
  txQLen: (link) => link.txQueueLength,
};

const FIELDS = {
  mac: 'mac',
  promisc: 'promiscuous',
  mtu: 'mtu',
  allmulti: 'allmulti',
  txQLen: 'txQueueLength',
} as const satisfies Record<keyof LinkSettings, keyof LinkChange>;

const WORDS: Readonly<Record<keyof LinkSettings, string>> = {
  mac: 'MAC address',
  promisc: 'promiscuous mode',
  mtu: 'MTU',
  allmulti: 'all-multicast mode',
  txQLen: 'transmit queue length',
};
