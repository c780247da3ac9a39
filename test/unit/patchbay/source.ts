// What the patchbay plugin reads its config from, made from a few fields.
// Used by the unit tests of patchbay.
import { type PatchbayConfig, parseConfig } from '../../../plugins/patchbay/config.ts';
import type { Command } from '../../../shared/cni/environment.ts';
import { CniError } from '../../../shared/cni/error.ts';
import type { ConfigSource } from '../../../shared/cni/plugin.ts';

export function source(fields: object, command: Command = 'ADD'): ConfigSource {
  return {
    network: {
      cniVersion: '1.1.0',
      name: 'n1',
      type: 'patchbay',
      raw: { cniVersion: '1.1.0', name: 'n1', type: 'patchbay', ...fields },
      prevResult: undefined,
      validAttachments: undefined,
    },
    args: '',
    command,
  };
}

/** The names of the plugins that a config stands for. */
export function listOf({ stages }: PatchbayConfig): string[] {
  return stages.map(({ name }) => name);
}

/** The error that a config gives. */
export function refusal(fields: object): { readonly code: number; readonly msg: string } {
  try {
    parseConfig(source(fields));
  } catch (error) {
    if (error instanceof CniError) return { code: error.code, msg: error.message };
    throw error;
  }
  throw new Error('The config was accepted');
}
