// What all chained plugins share: they stand behind an interface plugin, and what that one reported is theirs to pass on.
// Called by ADD and CHECK of portmap and tuning.
import { invalidConfig } from './error.ts';
import type { Result } from './result.ts';

/**
 * The result of the plugins before this one, unknown keys and all. Throws invalidConfig (7) naming the plugin when there
 * is none (CNI SPEC 1.1.0, section 3, "Lifecycle & Ordering").
 */
export function expectChained(prevResult: Result | undefined, plugin: string): Result {
  if (prevResult !== undefined) return prevResult;
  throw invalidConfig(`Field "prevResult" is missing: ${plugin} must follow an interface plugin in the list`);
}
