// The house rules that neither compiler nor linter knows, as tests: layers, single doors, words, documents.
// Run with the unit tests; CONTRIBUTING.md tells the rules to people.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { listPlugins } from '../plugins/registry.ts';
import { ERROR_CODES } from '../shared/cni/error.ts';

interface SourceFile {
  readonly path: string;
  readonly text: string;
  /** Code alone: comments and the contents of strings are blanked out. */
  readonly code: string;
  /** What the file imports, lazily too: paths of this checkout, or names of packages and Node's modules. */
  readonly imports: readonly Import[];
}

interface Import {
  readonly target: string;
  readonly kind: 'value' | 'type';
}

const ROOT = join(import.meta.dirname, '..');
const SOURCES = readSources(['plugins/**/*.ts', 'shared/**/*.ts']);
const EVERYTHING = readSources(['{plugins,shared,build,test}/**/*.{ts,mjs,cjs}', '*.config.ts']);

/** Each layer with the layers it may import; its own files it may always. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  'shared/ip': [],
  'shared/linux': [],
  'shared/netlink': ['shared/linux'],
  'shared/cni': ['shared/linux'],
  'shared/rtnetlink': ['shared/netlink', 'shared/linux', 'shared/ip'],
  'shared/nftables': ['shared/netlink', 'shared/linux', 'shared/ip'],
  'shared/conntrack': ['shared/netlink', 'shared/linux', 'shared/ip'],
  'shared/iptables': ['shared/nftables', 'shared/cni', 'shared/linux', 'shared/ip'],
  'shared/firewalld': ['shared/nftables', 'shared/cni', 'shared/linux', 'shared/ip'],
  'shared/host': ['shared/rtnetlink', 'shared/cni', 'shared/ip'],
  'shared/sandbox': ['shared/rtnetlink', 'shared/cni', 'shared/linux', 'shared/ip'],
  'shared/ruleset': ['shared/nftables', 'shared/cni', 'shared/linux', 'shared/ip'],
};

/** What a plugin must reach only through the layers between. */
const BELOW_PLUGINS = ['shared/netlink/', 'shared/linux/libc.ts', 'shared/linux/netlink-socket.ts'];

/** Modules and packages that one file alone may load, so that what they do is in one place. */
const SINGLE_DOORS: Readonly<Record<string, string>> = {
  'node:ffi': 'shared/linux/libc.ts',
  execa: 'shared/linux/spawn.ts',
  'ip-address': 'shared/ip/cidr.ts',
};

/** Modules that cost more to load than a whole verb may take, or that would let something run later. */
const CLOSED_DOORS = [
  'node:crypto',
  'node:child_process',
  'node:net',
  'node:os',
  'node:dns',
  'node:stream',
  'node:events',
  'node:fs/promises',
  'node:timers',
  'node:timers/promises',
  'node:worker_threads',
];

describe('Layers', () => {
  test.each(SOURCES.map((file) => [file.path, file] as const))(
    '%s imports only what lies below it',
    (path, file) => {
      const allowed = listAllowed(path);
      const local = file.imports.map(({ target }) => target).filter(isOurs);
      expect(local.filter((target) => !allowed.some((prefix) => target.startsWith(prefix)))).toEqual([]);
    },
  );

  test('every folder of shared/ has a place among the layers', () => {
    const folders = new Set(
      SOURCES.filter(({ path }) => path.startsWith('shared/')).map(({ path }) =>
        path.split('/').slice(0, 2).join('/'),
      ),
    );
    expect([...folders].filter((folder) => !(folder in LAYERS))).toEqual([]);
  });

  test('plugins reach the kernel only through the layers between', () => {
    const wrong = SOURCES.filter(({ path }) => /^plugins\/[^/]+\//.test(path)).flatMap((file) =>
      file.imports
        .filter(
          ({ target, kind }) => kind === 'value' && BELOW_PLUGINS.some((below) => target.startsWith(below)),
        )
        .map(({ target }) => `${file.path} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe('Single doors', () => {
  test.each(Object.entries(SINGLE_DOORS))('"%s" is loaded by %s alone', (module, door) => {
    const users = SOURCES.filter((file) =>
      file.imports.some(({ target, kind }) => target === module && kind === 'value'),
    );
    expect(users.map(({ path }) => path)).toEqual([door]);
  });

  test.each(CLOSED_DOORS)('"%s" is loaded by no file', (module) => {
    const users = SOURCES.filter((file) => file.imports.some(({ target }) => target === module));
    expect(users.map(({ path }) => path)).toEqual([]);
  });

  test('`process` is known to plugins/process.ts alone', () => {
    const users = SOURCES.filter(
      ({ code, imports }) =>
        /(?<![.\w'-])process\s*[.[]/.test(code) ||
        imports.some(({ target }) => target === 'node:process' || target === 'process'),
    ).map(({ path }) => path);
    // libc.ts asks it for the processor architecture, which decides over the numbers of system calls.
    expect(users.filter((path) => path !== 'shared/linux/libc.ts')).toEqual(['plugins/process.ts']);
  });

  test('no pattern holds a Unicode property, which takes as long to read as all our schemas', () => {
    const users = SOURCES.filter(({ code }) => /\\[pP]\{/.test(code)).map(({ path }) => path);
    expect(users).toEqual([]);
  });

  test('libc.ts takes nothing from `process` but the architecture', () => {
    expect(getSource('shared/linux/libc.ts').text).toMatch(/import \{ arch \} from 'node:process'/);
  });
});

describe('Synchronous code', () => {
  test.each(SOURCES.map((file) => [file.path, file.code] as const))('%s waits for nothing', (_, code) => {
    expect(code).not.toMatch(
      /\basync\b|\bawait\b|\bnew Promise\b|\bPromise\.|\bsetTimeout\b|\bsetImmediate\b|\bEventEmitter\b/,
    );
  });
});

describe('Form', () => {
  test.each(EVERYTHING.map((file) => [file.path, file] as const))(
    '%s follows the form of a file',
    (_, { text, code }) => {
      expect(text.replace(/^#!.*\n/, ''), 'the file opens with what it is and who calls it').toMatch(
        /^(\/\/|\/\*\*) ?\S/,
      );
      expect(code, 'no barrels').not.toMatch(/^export \* from/m);
      expect(text, 'nothing unfinished').not.toMatch(/\b(TODO|FIXME|XXX)\b(?!.*tidy)/);
    },
  );

  test('index.ts exists in plugins only', () => {
    const wrong = EVERYTHING.map(({ path }) => path).filter(
      (path) => /(^|\/)index\.ts$/.test(path) && !/^plugins\/[^/]+\/index\.ts$/.test(path),
    );
    expect(wrong).toEqual([]);
  });

  test('each plugin has its definition in a folder of its name', () => {
    expect(listPlugins().filter((name) => !existsSync(join(ROOT, 'plugins', name, 'index.ts')))).toEqual([]);
  });
});

describe('Documents', () => {
  const documents = globSync(['*.md', 'docs/**/*.md'], { cwd: ROOT });
  const prose = documents.map((path) => readFileSync(join(ROOT, path), 'utf8')).join('\n');

  test.each([...listPlugins()])('the plugin %s is documented', (name) => {
    expect(existsSync(join(ROOT, 'docs/plugins', `${name}.md`))).toBe(true);
  });

  test.each(globSync('conf/*', { cwd: ROOT }))('%s is explained in a document', (path) => {
    expect(prose).toContain(path);
  });

  test('every error code is in docs/errors.md', () => {
    const table = readFileSync(join(ROOT, 'docs/errors.md'), 'utf8');
    const missing = ERROR_CODES.filter(({ code }) => !new RegExp(`^\\|\\s*${code}\\s*\\|`, 'm').test(table));
    expect(missing).toEqual([]);
  });

  test.each(documents)('%s has no broken links to files', (path) => {
    expect(linksIn(path).filter((target) => !existsSync(join(ROOT, target)))).toEqual([]);
  });

  test('all examples can be in use on one host: no two share a name, a bridge or a subnet', () => {
    const files = globSync('conf/*.conflist', { cwd: ROOT });
    const claims = files.flatMap((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8');
      const found = text.matchAll(/"(?:bridge|subnet)": "[^"]+"|^ {2}"name": "[^"]+"/gm);
      return [...new Set([...found].map(([claim]) => claim.trim()))];
    });
    expect(claims.length).toBeGreaterThan(2 * files.length);
    expect(claims.filter((claim, index) => claims.indexOf(claim) !== index)).toEqual([]);
  });

  test('every document can be reached from the README', () => {
    const reached = new Set<string>();
    const follow = (path: string): void => {
      if (reached.has(path) || !documents.includes(path)) return;
      reached.add(path);
      for (const target of linksIn(path)) follow(target);
    };
    follow('README.md');
    expect(documents.filter((path) => !reached.has(path))).toEqual([]);
  });

  test('every environment variable that the executables ignore is in docs/security.md', async () => {
    const { RENAMED_VARIABLES, UNREAD_VARIABLES } = await import('../build/environment.ts');
    const text = readFileSync(join(ROOT, 'docs/security.md'), 'utf8');
    expect(
      [...UNREAD_VARIABLES, ...RENAMED_VARIABLES].filter((name) => !text.includes(`\`${name}\``)),
    ).toEqual([]);
  });
});

describe('Known cases in docs/security.md', () => {
  const text = readFileSync(join(ROOT, 'docs/security.md'), 'utf8');
  const table = /<!-- cases -->\n(.*)<!-- \/cases -->/s.exec(text)?.[1] ?? '';
  const rows = table.split('\n').slice(2, -1);

  test('are sixteen', () => {
    expect(rows).toHaveLength(16);
  });

  test.each(rows.map((row) => [row.split('|')[1]?.trim() ?? '', row] as const))(
    '%s: every test that is named for it exists',
    (_, row) => {
      const cited = [...row.matchAll(/`(test\/[^`]+)` › ((?:(?:, )?`[^`]+`)+)/g)];
      expect(cited.length).toBeGreaterThan(0);
      expect(row.match(/`test\//g)).toHaveLength(cited.length);
      const missing = cited.flatMap(([, path = '', titles = '']) => {
        const source = existsSync(join(ROOT, path)) ? readFileSync(join(ROOT, path), 'utf8') : '';
        return [...titles.matchAll(/`([^`]+)`/g)]
          .map(([, title = '']) => title)
          .filter((title) => !hasTitle(source, title))
          .map((title) => `${path} › ${title}`);
      });
      expect(missing).toEqual([]);
    },
  );

  /** Where a title is put together, "…" stands for what the source has between the quotes. */
  function hasTitle(source: string, title: string): boolean {
    const parts = title.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    return title !== '…' && new RegExp(`['"\`]${parts.join('\\$\\{[^}]+\\}')}['"\`]`).test(source);
  }
});

describe('Packages', () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<
    string,
    Record<string, string>
  >;
  const lockfile = readFileSync(join(ROOT, 'package-lock.json'), 'utf8');

  test.each(['dependencies', 'devDependencies', 'optionalDependencies'])('%s have exact versions', (kind) => {
    const ranges = Object.entries(manifest[kind] ?? {}).filter(
      ([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version),
    );
    expect(ranges).toEqual([]);
  });

  test('the lockfile names no registry', () => {
    expect(lockfile).not.toMatch(/"resolved"/);
  });

  test('no dependency has an install script that nobody has looked at', () => {
    const { packages } = JSON.parse(lockfile) as { packages: Record<string, { hasInstallScript?: boolean }> };
    const scripted = Object.entries(packages).filter(([, { hasInstallScript }]) => hasInstallScript);
    const names = new Set(scripted.map(([path]) => path.replace(/^.*node_modules\//, '')));
    expect([...names].sort()).toEqual(Object.keys(manifest['allowScripts'] ?? {}).sort());
  });
});

/** The files that a document links to, as paths of this checkout. */
function linksIn(path: string): string[] {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const links = text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g);
  return [...links].map(([, target = '']) => relative(ROOT, join(ROOT, dirname(path), target)));
}

// Where a file's imports from this checkout may lead: prefixes of paths.
function listAllowed(path: string): string[] {
  const [top = '', folder = ''] = path.split('/');
  if (top === 'plugins' && folder.endsWith('.ts')) return ['plugins/', 'shared/'];
  const own = `${top}/${folder}`;
  return top === 'plugins'
    ? [`${own}/`, 'shared/']
    : [own, ...(LAYERS[own] ?? [])].map((layer) => `${layer}/`);
}

function isOurs(target: string): boolean {
  return target.startsWith('shared/') || target.startsWith('plugins/');
}

function readSources(patterns: readonly string[]): SourceFile[] {
  return globSync([...patterns], { cwd: ROOT })
    .sort()
    .map((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8');
      return { path, text, code: blank(text), imports: readImports(path, text) };
    });
}

function getSource(path: string): SourceFile {
  const file = SOURCES.find((source) => source.path === path);
  if (file === undefined) throw new Error(`There is no source "${path}"`);
  return file;
}

function readImports(path: string, text: string): Import[] {
  const statements = [
    ...text.matchAll(/^(?:import|export)\s+(type\s)?[^'";]*?from\s+'([^']+)'|^import\s+'([^']+)'/gm),
  ];
  const found = statements.map(
    (match): Import => ({
      target: match[2] ?? match[3] ?? '',
      kind: match[1] === undefined ? 'value' : 'type',
    }),
  );
  const lazy = [...text.matchAll(/\brequire\('([^']+)'\)|\)\('([^']+)'\)/g)].map(
    (match): Import => ({ target: match[1] ?? match[2] ?? '', kind: 'value' }),
  );
  return [...found, ...lazy].map(({ target, kind }) => ({
    target: target.startsWith('.') ? relative(ROOT, join(ROOT, dirname(path), target)) : target,
    kind,
  }));
}

// Comments become spaces and strings become empty, so that words in them are not taken for code.
function blank(text: string): string {
  const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/g;
  return text.replace(token, (match) => (match.startsWith('/') ? match.replace(/[^\n]/g, ' ') : "''"));
}
