// Makes one script of plugins/main.ts and everything it imports. Called by package.ts.
import { build, type Plugin } from 'esbuild';
import type { Stamp } from './version.ts';

/** What the script sees of Node: the packaged program gets the real ones, the warm-up a `process` of its own. */
export type Program = (require: NodeJS.Require, process: NodeJS.Process) => void;

export interface Bundle {
  /** ASCII text of an expression whose value is a `Program`. */
  readonly source: string;
  /** The packages of node_modules that went into it. */
  readonly packages: readonly string[];
}

/**
 * The program as one expression, `(function (require, process) { … })`: a value that can be compiled once and run
 * several times, which is how its code cache comes to hold the functions that calls need.
 *
 * Libraries that are loaded lazily by `require(name)` are in it and stay lazy.
 */
export async function bundleProgram(entry: string, stamp: Stamp): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    metafile: true,
    platform: 'node',
    format: 'cjs',
    target: 'node26',
    // ESM first: tree shaking keeps nine tenths of a library out, and what is not there costs nothing at start.
    mainFields: ['module', 'main'],
    conditions: ['import', 'node'],
    charset: 'ascii',
    legalComments: 'none',
    minifySyntax: true,
    define: {
      PATCHBAY_VERSION: JSON.stringify(stamp.version),
      PATCHBAY_REVISION: JSON.stringify(stamp.revision),
      'import.meta.url': '""',
      'import.meta.main': 'true',
    },
    banner: { js: '(function (require, process) {' },
    footer: { js: '})' },
    plugins: [withoutNodeModule],
    logLevel: 'warning',
  });
  const source = outputFiles[0]?.text;
  if (source === undefined) throw new Error(`esbuild made nothing of "${entry}"`);
  return { source: source.trim(), packages: packagesOf(Object.keys(metafile.inputs)) };
}

// Sources run unbundled as well, where a lazy `require` comes from `createRequire`. In the bundle there is a real
// `require`; node:module would cost its start-up time for nothing.
const withoutNodeModule: Plugin = {
  name: 'without-node-module',
  setup(building) {
    building.onResolve({ filter: /^node:module$/ }, () => ({ path: 'module', namespace: 'absent' }));
    building.onLoad({ filter: /.*/, namespace: 'absent' }, () => ({
      contents: 'export function createRequire() { throw new Error("There is nothing to require"); }',
    }));
  },
};

function packagesOf(inputs: readonly string[]): string[] {
  const names = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}
