// Keys that stand twice in one object of a JSON text: decoding keeps the last and forgets that there was another. Pure.
// Called by config.ts, because the reference refuses them under "sysctl".

/** An object or a list that is open at some place of the text. */
interface Level {
  /** The keys so far; undefined for a list. */
  readonly keys: Set<string> | undefined;
  /** The key or place that led here from the level above. */
  readonly step: string | undefined;
  /** The key whose value comes next. */
  key: string | undefined;
}

/**
 * The first key that stands twice in an object at one of the paths; undefined when none does. Steps of paths match
 * regardless of case, as config keys do; `text` must be JSON.
 */
export function findRepeatedKey(text: string, paths: readonly (readonly string[])[]): string | undefined {
  const levels: Level[] = [];
  for (const { 0: token } of text.matchAll(TOKEN)) {
    const level = levels.at(-1);
    if (token === '{' || token === '[') {
      levels.push({ keys: token === '{' ? new Set() : undefined, step: level?.key, key: undefined });
    } else if (token === '}' || token === ']') {
      levels.pop();
      forgetKey(levels.at(-1));
    } else if (token === ',') {
      forgetKey(level);
    } else if (level?.keys !== undefined && level.key === undefined) {
      const key = String(JSON.parse(token));
      if (level.keys.has(key) && isAt(levels, paths)) return key;
      level.keys.add(key);
      level.key = key;
    }
  }
  return undefined;
}

// Colons and blanks say nothing that the order of the rest does not.
const TOKEN = /"(?:\\.|[^"\\])*"|[{}[\],]|[^\s"{}[\],:]+/g;

function forgetKey(level: Level | undefined): void {
  if (level !== undefined) level.key = undefined;
}

function isAt(levels: readonly Level[], paths: readonly (readonly string[])[]): boolean {
  const steps = levels.slice(1).map(({ step }) => step?.toLowerCase());
  return paths.some(
    (path) =>
      path.length === steps.length && path.every((step, depth) => step.toLowerCase() === steps[depth]),
  );
}
