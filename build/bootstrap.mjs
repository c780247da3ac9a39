// Makes a checkout ready to work in, then runs a command with the project's own Node; needs nothing but a host's
// Node 20 and npm. Called by every script of package.json: `node build/bootstrap.mjs [step …] [command …]`.
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const BIN = join(ROOT, 'node_modules/.bin');
const OLDEST_NODE = 20;

/** What a script may ask for before its command runs; `--runtimes` and `--release` are `--tools` and more. */
const STEPS = {
  '--tools': ['build/tools.ts'],
  '--runtimes': ['build/tools.ts', '--runtimes'],
  '--release': ['build/tools.ts', '--release'],
  '--build': ['build/package.ts'],
  '--empty': ['build/package.ts', '--empty'],
};

main(process.argv.slice(2));

function main(args) {
  expectHost();
  if (!isInstalled()) install();
  if (projectNodeVersion() === undefined) repairNode();
  const count = args.findIndex((arg) => !(arg in STEPS));
  const command = count === -1 ? [] : args.slice(count);
  for (const step of args.slice(0, args.length - command.length)) run([join(BIN, 'node'), ...STEPS[step]]);
  if (command.length > 0) run(command);
}

function expectHost() {
  if (process.platform !== 'linux') fail(`Patchbay is built on Linux, this is "${process.platform}"`);
  const major = Number(process.versions.node.split('.')[0]);
  if (major < OLDEST_NODE) fail(`Node ${OLDEST_NODE} or newer is needed, this is ${process.version}`);
}

// By content, not by time: a clone has no useful times, and an interrupted install leaves no hidden lockfile.
function isInstalled() {
  const wanted = readPackages('package-lock.json');
  const present = readPackages('node_modules/.package-lock.json');
  if (wanted === undefined) fail('There is no package-lock.json to install from');
  if (present === undefined || !existsSync(join(ROOT, nodePackage(), 'bin/node'))) return false;
  return Object.entries(wanted).every(([path, { version, optional }]) => {
    if (path === '' || (optional && present[path] === undefined)) return true;
    return present[path]?.version === version;
  });
}

function readPackages(path) {
  const file = join(ROOT, path);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined;
}

// The package that holds the Node binary itself; the lockfile's hash covers it and nothing has to run to unpack it.
function nodePackage() {
  return `node_modules/node-linux-${process.arch}`;
}

function projectNodeVersion() {
  const { status, stdout } = spawnSync(join(BIN, 'node'), ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.trim().replace(/^v/, '') : undefined;
}

// No install script runs: .npmrc says so, and so does the option for those who override it.
function install() {
  console.log('Installing the packages that package-lock.json names …');
  const npm = process.env.npm_execpath;
  const [program, first] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []];
  const options = ['--ignore-scripts', '--include=dev', '--include=optional', '--no-audit', '--no-fund'];
  run([program, ...first, 'ci', ...options]);
}

// Beside npm's own mistakes, a library may be missing: Node needs one that a small Debian lacks. What we package does
// not need it (docs/libatomic.md), but this Node does the packaging.
function repairNode() {
  if (projectNodeVersion() === undefined) linkNode();
  if (projectNodeVersion() === undefined && process.getuid() === 0) installLibatomic();
  if (projectNodeVersion() !== undefined) return;
  fail(
    `"${BIN}/node" does not work: is "${nodePackage()}" there, and the Debian package libatomic1 installed?`,
  );
}

function installLibatomic() {
  console.log('Installing the Debian package libatomic1 …');
  const install = ['install', '-y', '-qq', '--no-install-recommends', 'libatomic1'];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  if (spawnSync('apt-get', install, { env, stdio: 'ignore' }).status === 0) return;
  spawnSync('apt-get', ['update', '-qq'], { env, stdio: 'inherit' });
  spawnSync('apt-get', install, { env, stdio: 'inherit' });
}

// npm leaves the link out when another package claimed the name first.
function linkNode() {
  const link = join(BIN, 'node');
  if (lstatSync(link, { throwIfNoEntry: false })) rmSync(link);
  symlinkSync(join('..', '..', nodePackage(), 'bin/node'), link);
}

function run([program, ...args]) {
  const path = [BIN, process.env.PATH].filter(Boolean).join(delimiter);
  const env = { ...process.env, PATH: path };
  const { status, signal, error } = spawnSync(program, args, { cwd: ROOT, env, stdio: 'inherit' });
  if (error) fail(`Cannot run "${program}": ${error.message}`);
  if (signal) process.kill(process.pid, signal);
  if (status !== 0) process.exit(status ?? 1);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
