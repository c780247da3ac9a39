// What the tuning plugin reads its config from, made from a few fields.
// Used by the unit tests of tuning.
import { parseConfig, type TuningConfig } from '../../../plugins/tuning/config.ts';
import { CniError } from '../../../shared/cni/error.ts';
import type { ConfigSource } from '../../../shared/cni/plugin.ts';

/** The fields that a test is about; the rest of the config is a good one. */
export type Fields = Readonly<Record<string, unknown>>;

/** A whole config, chained after another plugin; given as text where the text matters. */
export function source(fields: Fields | string, args = ''): ConfigSource {
  const text = typeof fields === 'string' ? Buffer.from(fields) : undefined;
  const given = typeof fields === 'string' ? (JSON.parse(fields) as Fields) : fields;
  return {
    network: {
      cniVersion: '1.1.0',
      name: 'n1',
      type: 'tuning',
      raw: { cniVersion: '1.1.0', name: 'n1', type: 'tuning', ...given },
      ...(text && { text }),
      prevResult: undefined,
      validAttachments: undefined,
    },
    args,
    command: 'ADD',
  };
}

/** The config that the fields make. */
export function parsed(fields: Fields | string, args?: string): TuningConfig {
  return parseConfig(source(fields, args));
}

/** The error that a step gives. */
export function refusalOf(step: () => unknown): { readonly code: number; readonly msg: string } {
  try {
    step();
  } catch (error) {
    if (error instanceof CniError) return { code: error.code, msg: error.message };
    throw error;
  }
  throw new Error('It was accepted');
}
