// One stage of an attachment: the plugin behind its name, and errors that say which part of the config they are about.
// Called by every verb of the patchbay plugin.
import { CniError, internal, toCniError } from '../../shared/cni/error.ts';
import type { AnyPlugin, Call, ReadPlugin } from '../../shared/cni/plugin.ts';
import type { Stage, StageName } from './config.ts';

/** The plugin of that name. Throws internal (999) when the executable was built without it. */
export function pluginOf(call: Pick<Call<unknown>, 'registry'>, name: StageName): AnyPlugin {
  const plugin = call.registry(name);
  if (plugin === undefined) throw internal(`Plugin "${name}" is not part of this executable`);
  return plugin;
}

/** A stage that has read its part of the config. */
export interface ReadStage extends Stage {
  readonly plugin: ReadPlugin;
}

/** All stages read their configs before the first acts. Throws what the first one throws that cannot. */
export function readStages(call: Pick<Call<unknown>, 'registry'>, stages: readonly Stage[]): ReadStage[] {
  return stages.map((stage) => ({
    ...stage,
    plugin: inStage(stage.name, () => pluginOf(call, stage.name).read(stage.source)),
  }));
}

/** An error that says already which stage it is about. */
class StageError extends CniError {}

/** Throws what `step` throws, with the name of the stage in front: several plugins have fields of one name. */
export function inStage<T>(name: StageName, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    if (isAttributed(cause)) throw cause;
    const { code, message, details } = toCniError(cause);
    const options = details === undefined ? { cause } : { cause, details };
    throw new StageError(code, `In "${name}": ${message}`, options);
  }
}

/** A stage may meet the error of another where the changes of both are made together. */
function isAttributed(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof StageError) return true;
  }
  return false;
}
