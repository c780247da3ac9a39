// Makes one script of plugins/main.ts and what it imports, one that answers VERSION, and one of each large library. Called by
// package.ts.
import { join } from 'node:path';
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild';
import type { Stamp } from './version.ts';

/** What the script sees of Node: the packaged program gets the real ones, the warm-up a `process` of its own. */
export type Program = (require: (id: string) => unknown, process: NodeJS.Process) => unknown;

export interface Bundle {
  /** ASCII text of an expression whose value is a `Program`. */
  readonly source: string;
  /** The packages that went into it, as directories of node_modules: one may hold others of its own. */
  readonly packages: readonly string[];
  /** Which file brought which part of it; what a list of the image's components is made from. */
  readonly metafile: Metafile;
}

/**
 * Libraries that only some calls need, and which are larger than all the rest: they are scripts of their own in the
 * image, loaded by the `require` that the program is given.
 */
export const LIBRARIES = ['execa'] as const;

/** What the program of one plugin is made of. */
export interface ProgramParts {
  /** Names of the plugins in it: itself, and those it runs in process. */
  readonly plugins: readonly string[];
  /** Names of all plugins there are, for whoever calls it by an unknown one. */
  readonly names: readonly string[];
}

/**
 * The program of a plugin as one expression, `(function (require, process) { … })`: a value that can be compiled once
 * and run several times, which is how its code cache comes to hold the functions that calls need. `directory` is the
 * checkout.
 */
export async function bundleProgram(directory: string, stamp: Stamp, parts: ProgramParts): Promise<Bundle> {
  const { source, ...rest } = await bundle({
    entryPoints: [join(directory, 'plugins/main.ts')],
    external: [...LIBRARIES],
    define: {
      ...IN_BUNDLE,
      PATCHBAY_VERSION: JSON.stringify(stamp.version),
      PATCHBAY_REVISION: JSON.stringify(stamp.revision),
    },
    ...AS_PROGRAM,
    plugins: [withoutNodeModule, withRegistryOf(parts)],
  });
  return { source: requireOnce(source), ...rest };
}

/** The program that answers VERSION for all of these plugins, of whom it has no more than that takes. */
export async function bundleVersion(directory: string, plugins: readonly PluginFace[]): Promise<Bundle> {
  const { source, ...rest } = await bundle({
    entryPoints: [join(directory, 'plugins/version.ts')],
    define: IN_BUNDLE,
    ...AS_PROGRAM,
    plugins: [
      withRegistry(
        `const plugins = ${JSON.stringify(plugins)};`,
        plugins.map(({ name }) => name),
      ),
    ],
  });
  return { source: requireOnce(source), ...rest };
}

/** What a plugin says of itself. */
export interface PluginFace {
  readonly name: string;
  readonly supportedVersions: readonly string[];
}

/** A library as an expression of the same kind; called, it returns what the library exports. */
export function bundleLibrary(name: (typeof LIBRARIES)[number], directory: string): Promise<Bundle> {
  return bundle({
    stdin: { contents: `export * from ${JSON.stringify(name)};`, resolveDir: directory },
    define: IN_BUNDLE,
    banner: { js: `${BEGIN} const module = { exports: {} };` },
    footer: { js: 'return module.exports; })' },
  });
}

/** A script of the build, at `path`, as an expression of the same kind, for the launcher to run; see launcher.cjs. */
export function bundleTool(path: string): Promise<Bundle> {
  return bundle({
    entryPoints: [path],
    external: ['internal/*'],
    define: IN_BUNDLE,
    ...AS_PROGRAM,
    banner: { js: `${BEGIN} const module = {};` },
    plugins: [withoutNodeModule],
  });
}

async function bundle(options: BuildOptions): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    ...options,
    bundle: true,
    write: false,
    metafile: true,
    platform: 'node',
    format: 'cjs',
    target: 'node26',
    // It does not know that Node does; made into a call, a pattern that nobody uses is not left out (valibot's, 0.1 ms).
    supported: { 'regexp-unicode-property-escapes': true, 'regexp-set-notation': true },
    // ESM first: tree shaking keeps nine tenths of a library out, and what is not there costs nothing at start.
    mainFields: ['module', 'main'],
    conditions: ['import', 'node'],
    charset: 'ascii',
    legalComments: 'none',
    // Names stay as they are, for the sake of stack traces.
    minifySyntax: true,
    minifyWhitespace: true,
    logLevel: 'warning',
  });
  const source = outputFiles[0]?.text.trim() ?? '';
  // The image holds it as one byte a character, and so does V8.
  if (!/^[\x20-\x7e\n\t]+$/.test(source)) throw new Error('The bundle is empty or not ASCII');
  return { source, packages: packagesOf(Object.keys(metafile.inputs)), metafile };
}

const BEGIN = '(function (require, process) {';
const AS_PROGRAM = { banner: { js: BEGIN }, footer: { js: '})' } };

const IN_BUNDLE = { 'import.meta.url': '""', 'import.meta.main': 'true' };

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

/** The registry of a plugin's program: the real plugins, but fewer. */
function withRegistryOf({ plugins, names }: ProgramParts): Plugin {
  const imports = plugins.map((name) => `import { ${exportOf(name)} } from './${name}/index.ts';`);
  return withRegistry(`${imports.join('\n')} const plugins = [${plugins.map(exportOf).join(', ')}];`, names);
}

/** Takes the place of plugins/registry.ts, whose exports it has, with the `plugins` that `source` declares. */
function withRegistry(source: string, names: readonly string[]): Plugin {
  const contents = `
    ${source}
    export function findPlugin(name) { return plugins.find((plugin) => plugin.name === name); }
    export function listPlugins() { return ${JSON.stringify(names)}; }
  `;
  return {
    name: 'with-registry',
    setup(building) {
      building.onLoad({ filter: /\/plugins\/registry\.ts$/ }, () => ({ contents, loader: 'ts' }));
    },
  };
}

/** `host-local` is exported by its folder as `hostLocal`. */
function exportOf(plugin: string): string {
  return plugin.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

/** Each module that names one of Node's asks for it, 5 µs each time: here the program asks once. */
function requireOnce(source: string): string {
  const modules = ['node:fs', 'node:path'].map((id) => ({
    call: `require(${JSON.stringify(id)})`,
    name: id.replace(':', '_'),
  }));
  if (!source.startsWith(BEGIN)) throw new Error('The program begins in another way');
  const body = modules.reduce(
    (text, { call, name }) => text.replaceAll(call, name),
    source.slice(BEGIN.length),
  );
  return `${BEGIN}const ${modules.map(({ call, name }) => `${name}=${call}`).join()};${body}`;
}

function packagesOf(inputs: readonly string[]): string[] {
  const names = inputs.map(
    (path) => /^node_modules\/((?:.*node_modules\/)?(?:@[^/]+\/)?[^/]+)/.exec(path)?.[1],
  );
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}
