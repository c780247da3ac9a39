// Says that nothing we ship needs libatomic.so.1, in a namespace where the loader finds an empty file of that name:
// the packaged plugins, and a program that went the same way (strip, patch, injection) and works V8 hard.
// Called by vitest.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { patchLibatomic } from '../../build/libatomic.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const BIN = join(import.meta.dirname, '../../node_modules/.bin');
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';
const LOAD_SECONDS = 5;

describe('Without libatomic', () => {
  it('an official Node does not start, so the library is really out of reach here', () => {
    const { status, stderr } = runWithoutLibatomic(process.execPath, ['--version']);
    expect(status).toBe(127);
    expect(stderr).toContain('libatomic.so.1');
  });

  it.each(readdirSync(pluginDirectory()))(
    'the packaged %s names neither the library nor a version of it',
    (name) => {
      const path = join(pluginDirectory(), name);
      expect(needsOf(path)).not.toContain('libatomic');
      expect(needsOf(path)).toContain('libc.so.6');
    },
  );

  it.each(readdirSync(pluginDirectory()))('the packaged %s says who it is', (name) => {
    const { status, stderr } = runWithoutLibatomic(join(pluginDirectory(), name), []);
    expect(stderr).toContain(`CNI ${name} plugin v`);
    expect(status).toBe(0);
  });
});

describe('A program packaged on a stripped and patched Node', () => {
  const directory = mkdtempSync(join(tmpdir(), 'patchbay-libatomic-'));
  const program = join(directory, 'program');

  beforeAll(() => {
    const config = {
      main: join(directory, 'load.js'),
      output: join(directory, 'blob'),
      disableExperimentalSEAWarning: true,
    };
    writeFileSync(config.main, LOAD);
    writeFileSync(join(directory, 'sea.json'), JSON.stringify(config));
    execFileSync(process.execPath, ['--experimental-sea-config', join(directory, 'sea.json')], {
      stdio: 'pipe',
    });

    execFileSync('strip', ['-o', program, process.execPath]);
    writeFileSync(program, patchLibatomic(readFileSync(program)));
    chmodSync(program, 0o755);
    execFileSync(join(BIN, 'postject'), [program, 'NODE_SEA_BLOB', config.output, '--sentinel-fuse', FUSE], {
      stdio: 'pipe',
    });
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  it('needs no libatomic, and the injection brings none back', () => {
    expect(needsOf(program)).not.toContain('libatomic');
    expect(needsOf(program)).toContain('libc.so.6');
  });

  it('survives functions, workers and Wasm modules that are made in parallel for seconds', () => {
    const { status, signal, stdout, stderr } = runWithoutLibatomic(program, [String(LOAD_SECONDS)]);
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
    const { workers, rounds } = JSON.parse(stdout);
    expect(workers).toBeGreaterThan(2);
    expect(rounds).toBeGreaterThan(workers);
  });

  it('runs still after a second strip of the patched Node, for packagers who strip what they ship', () => {
    const again = join(directory, 'stripped-again');
    writeFileSync(again, patchLibatomic(readFileSync(process.execPath)));
    execFileSync('strip', [again]);
    chmodSync(again, 0o755);
    const { status, stdout } = runWithoutLibatomic(again, ['-p', '[1, 2].map((n) => n + 1).join()']);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '2,3\n' });
  });
});

/** Everything the loader is asked for, as another program reads it: needed libraries and versions. */
function needsOf(path: string): string {
  return execFileSync('readelf', ['--wide', '--dynamic', '--version-info', path], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'ignore'], // it complains about the notes that the injection writes
  })
    .split('\n')
    .filter((line) => /\((NEEDED|VERNEED)\)|Version: 1 {2}File:|Name: /.test(line))
    .join('\n');
}

/** Runs a program in a mount namespace in which every file that this Node got libatomic from is empty. */
function runWithoutLibatomic(program: string, args: readonly string[]) {
  const script = 'for f in $HIDDEN; do mount --bind /dev/null "$f" || exit 99; done; exec "$@"';
  return spawnSync('unshare', ['--mount', 'sh', '-c', script, 'sh', program, ...args], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], HIDDEN: findLibatomic().join(' ') },
  });
}

function findLibatomic(): string[] {
  const { sharedObjects } = process.report.getReport() as unknown as { sharedObjects: string[] };
  return sharedObjects.filter((path) => path.includes('libatomic'));
}

// Each round makes functions that live and functions that die, lets some get hot, and loads the module
// (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add) into a table.
const LOAD = `
  const { Worker } = require('node:worker_threads');
  const text = '0061736d0100000001070160027f7f017f03020100070701036164640000' + '0a09010700200020016a0b';

  function round(number) {
    const kept = [];
    for (let i = 0; i < 200; i++) {
      const made = new Function('a', 'const add = (b) => a + b + ' + (number * 200 + i) + '; return add(1);');
      if (made(1) !== number * 200 + i + 2) throw new Error('A function computes nonsense');
      if (i % 3 === 0) kept.push(made);
    }
    let sum = 0;
    for (let i = 0; i < 20000; i++) sum = (sum + ((x) => x ^ number)(i)) | 0;
    for (let i = 0; i < 10; i++) {
      const { add } = new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(text, 'hex'))).exports;
      const table = new WebAssembly.Table({ element: 'anyfunc', initial: 2 });
      table.set(0, add);
      if (table.get(0)(i, number) !== i + number) throw new Error('A module computes nonsense');
    }
    return { kept, sum };
  }

  function work(milliseconds) {
    let rounds = 0;
    for (const end = Date.now() + milliseconds; Date.now() < end; ) round(rounds++);
    return rounds;
  }

  const end = Date.now() + Number(process.argv[2]) * 1000;
  const answer = 'require("node:worker_threads").parentPort.postMessage(work(700))';
  const source = ['const text = "' + text + '"', round, work, answer].join(';\\n');
  let workers = 0;
  let rounds = 0;
  function start() {
    if (Date.now() > end) return;
    workers++;
    const worker = new Worker(source, { eval: true });
    worker.on('message', (done) => { rounds += done; });
    worker.on('exit', start);
  }
  for (let i = 0; i < 3; i++) start();
  const timer = setInterval(() => Date.now() > end ? clearInterval(timer) : (rounds += work(50)), 1);
  process.on('exit', () => console.log(JSON.stringify({ workers, rounds })));
`;
