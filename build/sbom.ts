// Lists what is in the executables, as a CycloneDX document: the packages of the bundle, by cyclonedx-esbuild, and the
// Node with the libraries it is built from. Called by release.ts and tests.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Metafile } from 'esbuild';
import { sha256 } from './archive.ts';
import { nodePackage } from './foreign-node.ts';
import { distOf } from './package.ts';
import type { Target } from './target.ts';

const ROOT = join(import.meta.dirname, '..');
const SPEC = '1.6';

/** As much of a CycloneDX component as is written here. */
export interface Component {
  readonly type: string;
  /** Scope of an npm package, with its `@`. */
  readonly group?: string;
  readonly name: string;
  readonly version?: string;
  readonly 'bom-ref'?: string;
  readonly purl?: string;
  readonly cpe?: string;
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly licenses?: readonly unknown[];
  readonly components?: readonly Component[];
}

/** As much of a CycloneDX document as is written here; JSON, see cyclonedx.org. */
export interface Bom {
  readonly serialNumber?: string;
  readonly metadata: { readonly timestamp?: string; readonly component: Component };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
}

export interface SbomOptions {
  readonly target: Target;
  readonly version: string;
  /** Seconds since 1970 that the document is dated. */
  readonly epoch: number;
}

/**
 * The document for the executables of `target`: two calls give the same. Throws Error when it is not valid by the schema of
 * the specification.
 */
export async function makeSbom({ target, version, epoch }: SbomOptions): Promise<string> {
  const bundled = listBundled(target);
  const { component } = bundled.metadata;
  const self = component['bom-ref'] ?? '';
  const node = nodeComponent(target);
  const image = join(distOf(target), 'bin/bridge');
  const bom = {
    ...bundled,
    serialNumber: '',
    metadata: {
      ...bundled.metadata,
      timestamp: new Date(epoch * 1000).toISOString(),
      component: {
        ...component,
        version,
        purl: `pkg:generic/patchbay@${version}?arch=${target.debian}`,
        hashes: [{ alg: 'SHA-256', content: sha256(image) }],
      },
    },
    components: [...bundled.components, node],
    dependencies: [...withRoots(bundled.dependencies, self), { ref: NODE }],
  };
  const text = `${JSON.stringify({ ...bom, serialNumber: serialNumberOf(bom) }, null, 2)}\n`;
  await expectValid(text);
  return text;
}

/** Throws Error with the findings when a text is no valid CycloneDX document. */
export async function expectValid(text: string): Promise<void> {
  const { Validation } = createRequire(import.meta.url)('@cyclonedx/cyclonedx-library') as {
    Validation: { JsonStrictValidator: new (spec: string) => { validate(text: string): Promise<unknown> } };
  };
  const findings = await new Validation.JsonStrictValidator(SPEC).validate(text);
  if (findings !== null) throw new Error(`The SBOM is not valid: ${JSON.stringify(findings)}`);
}

function listBundled(target: Target): Bom {
  const metafile = JSON.parse(readFileSync(join(distOf(target), 'metafile.json'), 'utf8')) as Metafile;
  const work = mkdtempSync(join(tmpdir(), 'patchbay-sbom-'));
  try {
    const input = join(work, 'metafile.json');
    const output = join(work, 'bom.json');
    writeFileSync(input, JSON.stringify(onlyFiles(metafile)));
    const options = ['--spec-version', SPEC, '--output-reproducible', '--validate', '--output-file', output];
    const cli = join(ROOT, 'node_modules/@cyclonedx/cyclonedx-esbuild/bin/cyclonedx-esbuild-cli.js');
    const args = [cli, ...options, '--build-working-dir', ROOT, input];
    execFileSync(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    return JSON.parse(readFileSync(output, 'utf8')) as Bom;
  } finally {
    rmSync(work, { recursive: true });
  }
}

// What nothing else depends on is loaded by the program itself, as Node is, or a library that is a bundle of its own.
function withRoots(dependencies: Bom['dependencies'], self: string): Bom['dependencies'] {
  const needed = new Set(dependencies.flatMap(({ dependsOn = [] }) => dependsOn));
  const roots = dependencies.map(({ ref }) => ref).filter((ref) => ref !== self && !needed.has(ref));
  return dependencies.map((entry) =>
    entry.ref === self ? { ...entry, dependsOn: [...(entry.dependsOn ?? []), ...roots, NODE] } : entry,
  );
}

// The bundle has modules that are made on the way, and those are nobody's component.
function onlyFiles({ inputs, outputs }: Metafile): Metafile {
  const keep = <T>(record: Record<string, T>): Record<string, T> =>
    Object.fromEntries(Object.entries(record).filter(([path]) => existsSync(join(ROOT, path))));
  return {
    inputs: keep(inputs),
    outputs: Object.fromEntries(
      Object.entries(outputs).map(([name, output]) => [name, { ...output, inputs: keep(output.inputs) }]),
    ),
  };
}

const NODE = 'node';

/** Names by which vulnerabilities of Node's libraries are published (CPE 2.3: vendor and product), by Node's own. */
const PUBLISHED: Readonly<Record<string, string>> = {
  ada: 'ada-url:ada',
  ares: 'c-ares:c-ares',
  brotli: 'google:brotli',
  icu: 'unicode:international_components_for_unicode',
  llhttp: 'llhttp:llhttp',
  nghttp2: 'nghttp2:nghttp2',
  openssl: 'openssl:openssl',
  sqlite: 'sqlite:sqlite',
  undici: 'nodejs:undici',
  uv: 'libuv:libuv',
  v8: 'google:v8',
  zlib: 'zlib:zlib',
  zstd: 'facebook:zstandard',
};

/** Node, as its package brings it, and in it what it says it is made of. */
function nodeComponent(target: Target): Component {
  const name = nodePackage(target);
  const { node: version = '', ...libraries } = process.versions;
  return {
    type: 'platform',
    name: 'node',
    version,
    'bom-ref': NODE,
    purl: `pkg:npm/${name}@${version}`,
    cpe: cpe('nodejs:node.js', version),
    hashes: [{ alg: 'SHA-512', content: Buffer.from(integrityOf(name), 'base64').toString('hex') }],
    licenses: [{ license: { id: 'MIT' } }],
    components: Object.entries(libraries)
      // Two numbers of interfaces, and libraries that it could have been built with.
      .filter(([library, number]) => library !== 'modules' && library !== 'napi' && number !== '')
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([library, libraryVersion = '']) => libraryComponent(library, libraryVersion)),
  };
}

function libraryComponent(name: string, version: string): Component {
  const published = PUBLISHED[name];
  return {
    type: 'library',
    name,
    version,
    'bom-ref': `${NODE}/${name}`,
    ...(published !== undefined && { cpe: cpe(published, version) }),
  };
}

// What stands behind the numbers is Node's own count of its patches, and in no list.
function cpe(product: string, version: string): string {
  return `cpe:2.3:a:${product}:${/^[0-9.]*/.exec(version)?.[0]}:*:*:*:*:*:*:*`;
}

function integrityOf(name: string): string {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { integrity?: string }>;
  };
  const integrity = packages[`node_modules/${name}`]?.integrity;
  if (!integrity?.startsWith('sha512-')) throw new Error(`package-lock.json has no hash of "${name}"`);
  return integrity.slice('sha512-'.length);
}

/** A UUID of the content (RFC 9562, version 8), where a random one would make each document another. */
function serialNumberOf(bom: object): string {
  const digest = createHash('sha256').update(JSON.stringify(bom)).digest('hex');
  const groups = [
    digest.slice(0, 8),
    digest.slice(8, 12),
    `8${digest.slice(13, 16)}`,
    `8${digest.slice(17, 20)}`,
    digest.slice(20, 32),
  ];
  return `urn:uuid:${groups.join('-')}`;
}
