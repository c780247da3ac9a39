// Says that neither the environment nor the command line reaches the Node inside the executables, see
// docs/security.md. Where it can be seen, a plain Node shows first that the variable would have done something.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RENAMED_VARIABLES, UNREAD_VARIABLES } from '../../build/environment.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const BRIDGE = join(pluginDirectory(), 'bridge');

let directory: string;
/** The only folder that foreign code or Node itself could write to here. */
let outside: string;
let answer: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'patchbay-environment-'));
  outside = join(directory, 'outside');
  mkdirSync(outside);
  writeFileSync(
    join(directory, 'foreign.cjs'),
    `require('fs').writeFileSync(${JSON.stringify(join(outside, 'ran'))}, '')`,
  );
  writeFileSync(
    join(directory, 'openssl.cnf'),
    'nodejs_conf = n\n[n]\nproviders = p\n[p]\nforeign = f\n[f\n',
  );
  writeFileSync(join(directory, 'garbage'), Buffer.alloc(64 * 1024, 'garbage'));
  answer = runPlain(BRIDGE, []).stdout;
  expect(JSON.parse(answer)).toMatchObject({ cniVersion: '1.1.0' });
});
afterAll(() => rmSync(directory, { recursive: true }));

/** `witness` runs a plain Node on something that shows the effect of the variable. */
const VARIABLES: readonly { name: string; value: () => string; witness?: readonly string[] }[] = [
  { name: 'NODE_OPTIONS', value: () => `--require=${join(directory, 'foreign.cjs')}`, witness: ['-e', '0'] },
  { name: 'NODE_OPTIONS', value: () => '--no-such-flag', witness: ['-e', '0'] },
  { name: 'NODE_V8_COVERAGE', value: () => outside, witness: ['-e', '0'] },
  { name: 'NODE_COMPILE_CACHE', value: () => outside, witness: ['-e', '0'] },
  {
    name: 'NODE_REDIRECT_WARNINGS',
    value: () => join(outside, 'warnings'),
    witness: ['-e', 'process.emitWarning("x")'],
  },
  { name: 'NODE_CHANNEL_FD', value: () => 'no number', witness: ['-e', '0'] },
  { name: 'NODE_DEBUG', value: () => 'fs,module,net', witness: ['-e', '0'] },
  { name: 'NODE_PENDING_DEPRECATION', value: () => '1', witness: ['-e', 'new Buffer(1)'] },
  { name: 'OPENSSL_CONF', value: () => join(directory, 'openssl.cnf'), witness: ['-e', '0'] },
  {
    name: 'NODE_EXTRA_CA_CERTS',
    value: () => join(directory, 'none'),
    witness: ['-e', 'require("tls").getCACertificates("extra")'],
  },
  { name: 'NODE_REPL_EXTERNAL_MODULE', value: () => join(directory, 'foreign.cjs') },
  { name: 'NODE_ICU_DATA', value: () => directory },
  { name: 'NODE_UNIQUE_ID', value: () => '1' },
  { name: 'NODE_DEBUG_NATIVE', value: () => 'ALL' },
  { name: 'NODE_PATH', value: () => directory },
  { name: 'NODE_USE_ENV_PROXY', value: () => '1' },
  { name: 'NODE_USE_SYSTEM_CA', value: () => '1' },
  { name: 'NODE_PRESERVE_SYMLINKS', value: () => '1' },
  { name: 'NODE_PRESERVE_SYMLINKS_MAIN', value: () => '1' },
  { name: 'OPENSSL_CONF_INCLUDE', value: () => directory },
  { name: 'OPENSSL_MODULES', value: () => directory },
  { name: 'OPENSSL_ENGINES', value: () => directory },
  { name: 'SSLKEYLOGFILE', value: () => join(outside, 'keys') },
  { name: 'SSL_CERT_FILE', value: () => join(directory, 'garbage') },
  { name: 'SSL_CERT_DIR', value: () => directory },
  { name: 'CTLOG_FILE', value: () => join(directory, 'garbage') },
  { name: 'QLOGDIR', value: () => outside },
  { name: 'ICU_TIMEZONE_FILES_DIR', value: () => directory },
  { name: 'UV_THREADPOOL_SIZE', value: () => '1024' },
  { name: 'UV_USE_IO_URING', value: () => '1' },
];

describe('The environment', () => {
  test.each(VARIABLES.filter(({ witness }) => witness).map((row) => [row.name, row] as const))(
    '%s reaches a plain Node',
    (name, { value, witness = [] }) => {
      const clean = runPlain(process.execPath, witness);
      const marked = runPlain(process.execPath, witness, { [name]: value() });
      expect({ ...marked, files: takeFiles() }).not.toEqual({ ...clean, files: [] });
    },
  );

  test.each(VARIABLES.map((row) => [row.name, row] as const))(
    '%s does not reach an executable',
    (name, { value }) => {
      const { status, stdout, stderr } = runPlain(BRIDGE, [], { [name]: value() });
      expect({ status, stdout, stderr, files: takeFiles() }).toEqual({
        status: 0,
        stdout: answer,
        stderr: '',
        files: [],
      });
    },
  );

  test('every variable that packaging takes out is among them', () => {
    const tried = new Set(VARIABLES.map(({ name }) => name));
    expect([...UNREAD_VARIABLES, ...RENAMED_VARIABLES].filter((name) => !tried.has(name))).toEqual([]);
  });
});

describe('The command line', () => {
  test.each([
    [['--version']],
    [['--help']],
    [['-e', 'process.exit(3)']],
    [['--require', 'FOREIGN']],
    [['--import', 'FOREIGN']],
    [['--node-options=--require=FOREIGN']],
    [['--inspect-brk']],
    [['--experimental-sea-config', 'none']],
    [['--build-sea', 'none']],
    [['--v8-options']],
    [['FOREIGN']],
  ])('%j means nothing', (args) => {
    const foreign = args.map((arg) => arg.replace('FOREIGN', join(directory, 'foreign.cjs')));
    const { status, stdout, stderr } = runPlain(BRIDGE, foreign);
    expect({ status, stdout, stderr, files: takeFiles() }).toEqual({
      status: 0,
      stdout: answer,
      stderr: '',
      files: [],
    });
  });
});

test('SIGUSR1 starts no debugger', async () => {
  const child = spawn(BRIDGE, [], {
    env: { CNI_COMMAND: 'STATUS', CNI_PATH: '/' },
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += String(chunk);
  });
  await delay(150); // it waits for its config now
  child.kill('SIGUSR1');
  await delay(150);
  child.stdin.end('{}');
  await once(child, 'close');
  expect(child.signalCode).toBeNull();
  expect(said).not.toContain('Debugger');
});

function runPlain(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd: outside,
    env: { CNI_COMMAND: 'VERSION', ...env },
    input: '',
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

/** What was written, and an empty folder for what comes next. */
function takeFiles(): string[] {
  const files = readdirSync(outside);
  for (const file of files) rmSync(join(outside, file), { recursive: true });
  return files;
}
