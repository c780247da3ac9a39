// What the portmap plugin reads its config from, made from a few fields.
// Used by the unit tests of portmap.
import { parseConfig } from '../../../plugins/portmap/config.ts';
import { CniError } from '../../../shared/cni/error.ts';
import type { ConfigSource } from '../../../shared/cni/plugin.ts';

/** The fields that a test is about; the rest of the config is a good one. */
export type Fields = Readonly<Record<string, unknown>>;

/** A whole config, chained after another plugin. */
export function source(fields: Fields): ConfigSource {
  return {
    network: {
      cniVersion: '1.1.0',
      name: 'n1',
      type: 'portmap',
      raw: { cniVersion: '1.1.0', name: 'n1', type: 'portmap', ...fields },
      prevResult: undefined,
      validAttachments: undefined,
    },
    args: '',
    command: 'ADD',
  };
}

/** A config with these port mappings. */
export function published(...portMappings: readonly unknown[]): Fields {
  return { runtimeConfig: { portMappings } };
}

/** The error that a config gives. */
export function refusal(fields: Fields): { readonly code: number; readonly msg: string } {
  try {
    parseConfig(source(fields));
  } catch (error) {
    if (error instanceof CniError) return { code: error.code, msg: error.message };
    throw error;
  }
  throw new Error('The config was accepted');
}
