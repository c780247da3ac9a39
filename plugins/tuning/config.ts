// The tuning plugin's part of a network config, from all the places where runtimes put it: one typed value, or an error
// that names the field. Called by dispatch before any verb; nothing here looks at the host.
import { isAbsolute } from 'node:path';
import * as v from 'valibot';
import { parseCniArgs } from '../../shared/cni/args.ts';
import { configObject, decode, pickKeys, wholeNumber } from '../../shared/cni/decode.ts';
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { ConfigSource } from '../../shared/cni/plugin.ts';
import { formatMac } from '../../shared/ip/mac.ts';
import { mtuField, parseStationMac } from '../../shared/sandbox/link-fields.ts';
import { findRepeatedKey } from './repeated-keys.ts';
import type { LinkSettings } from './settings.ts';
import { parseSysctlKey, type SysctlWish } from './sysctl-key.ts';

/** What ADD, CHECK and STATUS work with. */
export interface TuningConfig {
  /** In the order of the config. */
  readonly sysctls: readonly SysctlWish[];
  readonly link: LinkSettings;
  /** Absolute path of the directory of backups. */
  readonly dataDir: string;
}

/** What DEL and GC can do with: the backup says what was changed. */
export interface TuningTeardown {
  readonly dataDir: string;
}

/** As the reference plugin: what the one has changed, the other can undo. */
export const DEFAULT_DATA_DIR = '/run/cni/tuning';

/** Parses a config for ADD, CHECK and STATUS. Throws invalidConfig (7) or invalidEnvironment (4), naming field and value. */
export function parseConfig(source: ConfigSource): TuningConfig {
  const fields = decode(tuningSchema(), source.network.raw, WHERE);
  const more = fields.args?.cni ?? {};
  const sysctl = { ...fields.sysctl, ...more.sysctl };
  refuseRepeatedKeys(source, sysctl);
  return {
    sysctls: Object.entries(sysctl).map(([key, value]) => ({ key, steps: parseSysctlKey(key), value })),
    link: wishedSettings(fields, more, source.args),
    dataDir: fields.dataDir || DEFAULT_DATA_DIR,
  };
}

/** Understands what it can of a config for DEL and GC; never throws. */
export function parseTeardown(source: ConfigSource): TuningTeardown {
  const { dataDir } = pickKeys(source.network.raw, ['dataDir']);
  return { dataDir: typeof dataDir === 'string' && isDirectoryPath(dataDir) ? dataDir : DEFAULT_DATA_DIR };
}

const WHERE = 'the network configuration';

/** The kernel keeps the length of a queue in 32 bits and compares it as an int (net/core/dev.c). */
const MAX_QUEUE_LENGTH = 2 ** 31 - 1;

type Fields = v.InferOutput<ReturnType<typeof tuningSchema>>;
type MoreFields = NonNullable<NonNullable<Fields['args']>['cni']>;

function tuningSchema() {
  const settings = {
    sysctl: () => v.record(v.string(), sysctlValue()),
    mac: v.string,
    mtu: mtuField,
    promisc: v.boolean,
    allmulti: v.boolean,
    txQLen: () => wholeNumber({ min: 0, max: MAX_QUEUE_LENGTH }),
  };
  return configObject({
    ...settings,
    dataDir: () =>
      v.pipe(
        v.string(),
        v.check((path) => path === '' || isDirectoryPath(path), 'an absolute path'),
      ),
    args: () => configObject({ cni: () => configObject(settings) }),
    runtimeConfig: () => configObject({ mac: v.string }),
  });
}

function sysctlValue() {
  return v.pipe(
    v.string(),
    v.check((value) => !value.includes('\0'), 'text without a NUL'),
  );
}

function isDirectoryPath(path: string): boolean {
  return isAbsolute(path) && !path.includes('\0');
}

// libcni hands a list on decoded and encoded anew, so only who calls a plugin directly can get this wrong.
function refuseRepeatedKeys({ network }: ConfigSource, sysctl: Readonly<Record<string, string>>): void {
  if (network.text === undefined || Object.keys(sysctl).length === 0) return;
  const own = [...(network.textPath ?? []), 'sysctl'];
  const repeated = findRepeatedKey(network.text.toString('utf8'), [own, ['args', 'cni', 'sysctl']]);
  if (repeated === undefined) return;
  throw invalidConfig(`Field "sysctl" of ${WHERE} names ${quote(repeated)} twice; remove one of them`);
}

// The precedence is the reference's. A false "promisc" and an MTU of 0 wish for nothing there.
function wishedSettings(fields: Fields, more: MoreFields, args: string): LinkSettings {
  const mac = wishedMac(fields, more, args);
  const mtu = more.mtu ?? fields.mtu;
  const promisc = more.promisc ?? fields.promisc;
  const allmulti = more.allmulti ?? fields.allmulti;
  const txQLen = more.txQLen ?? fields.txQLen;
  return {
    ...(mac !== undefined && { mac }),
    ...(promisc && { promisc }),
    ...(mtu && { mtu }),
    ...(allmulti !== undefined && { allmulti }),
    ...(txQLen !== undefined && { txQLen }),
  };
}

function wishedMac(fields: Fields, more: MoreFields, args: string): string | undefined {
  const wish = [
    { field: 'args.cni.mac', value: more.mac },
    { field: 'runtimeConfig.mac', value: fields.runtimeConfig?.mac },
    { field: 'CNI_ARGS MAC', value: parseCniArgs(args, ['MAC']).get('MAC') },
    { field: 'mac', value: fields.mac },
  ].find(({ value }) => value);
  return wish?.value === undefined ? undefined : formatMac(parseStationMac(wish.field, wish.value));
}
