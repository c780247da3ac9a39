// The line about a call, and who asks for it, through the dispatcher.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { dispatch, type Outcome } from '../../../shared/cni/dispatch.ts';
import { duplicateAttachment } from '../../../shared/cni/error.ts';
import { inPhase } from '../../../shared/linux/phases.ts';
import { ENV, fakePlugin } from '../../support/fake-plugin.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';

let directory: string;
let path: string;
let said: string[];
let ms: number;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'patchbay-log-'));
  path = join(directory, 'log');
  said = [];
  ms = 14.0005;
});
afterEach(() => {
  rmSync(directory, { recursive: true });
});

interface Options {
  readonly plugin?: Parameters<typeof fakePlugin>[0];
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly stdin?: object | string;
}

function call(verb: string, { plugin = {}, env, stdin = {} }: Options = {}): Outcome {
  const config = { cniVersion: '1.1.0', name: 'n1', type: 'fake' };
  return dispatch(fakePlugin(plugin).plugin, {
    env: { ...ENV, CNI_COMMAND: verb, PATCHBAY_LOG: path, ...env },
    readStdin: () => Buffer.from(typeof stdin === 'string' ? stdin : JSON.stringify({ ...config, ...stdin })),
    log: (line) => said.push(line),
    registry: () => undefined,
    ownExecutable: '/proc/self/exe',
    version: '2.0.0',
    pid: 42,
    uptime: () => ms,
  });
}

function lineOf(verb: string, options: Options = {}): Record<string, unknown> {
  call(verb, options).writeLog?.('printed');
  const lines = readFileSync(path, 'utf8').split('\n');
  expect(lines).toHaveLength(2);
  return JSON.parse(lines[0] ?? '');
}

describe('The line', () => {
  test('says what the call was, how it ended and how long it took', () => {
    const add = () => {
      inPhase('links', () => {
        ms += 2.5;
      });
      ms += 1;
      return {};
    };
    expect(lineOf('ADD', { plugin: { add }, env: { TRACEPARENT: `00-${TRACE}-${SPAN}-01` } })).toEqual({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      plugin: 'fake',
      version: '2.0.0',
      verb: 'ADD',
      network: 'n1',
      container_id: 'c1',
      ifname: 'eth0',
      outcome: 'success',
      duration_ms: 17.501,
      phases_ms: { start: 14.001, config: 0, links: 2.5, rest: 1 },
      pid: 42,
      trace_id: TRACE,
      parent_span_id: SPAN,
      trace_flags: '01',
    });
  });

  test('has the code of an error, what it says and what its causes say', () => {
    const del = () => {
      const cause = new Error('Cannot delete link "veth1"', { cause: new Error('It is busy') });
      throw duplicateAttachment('There are two', { cause });
    };
    expect(lineOf('DEL', { plugin: { del } })).toMatchObject({
      outcome: 'error',
      code: 102,
      error: 'There are two',
      causes: ['Cannot delete link "veth1"', 'It is busy'],
    });
  });

  test('names no attachment where the command is about none', () => {
    expect(lineOf('STATUS')).not.toHaveProperty('container_id');
  });

  test('exists for a call whose environment or config is refused, with nothing of it', () => {
    const { error, ...line } = lineOf('ADD', { env: { CNI_CONTAINERID: 'secret/id' } });
    expect(line).toMatchObject({ outcome: 'error', code: 4, causes: [], verb: 'ADD' });
    expect(error).toMatch(/^CNI_CONTAINERID "…" must/);
    rmSync(path);
    expect(lineOf('ADD', { stdin: '{"password": "secret" x}' })).toMatchObject({
      code: 6,
      error: 'Cannot decode the network configuration on stdin as JSON',
    });
    rmSync(path);
    expect(lineOf('BREW')).toMatchObject({ code: 4, verb: 'unknown' });
  });

  test('says when nobody could be told the answer', () => {
    call('ADD').writeLog?.('lost');
    expect(readFileSync(path, 'utf8')).toContain('"outcome":"answer lost"');
  });

  test('has no trace that is malformed', () => {
    expect(lineOf('ADD', { env: { TRACEPARENT: 'x' } })).not.toHaveProperty('trace_id');
  });
});

describe('The target', () => {
  test('there is none by default, nor for VERSION', () => {
    expect(call('ADD', { env: { PATCHBAY_LOG: undefined } })).not.toHaveProperty('writeLog');
    expect(call('ADD', { env: { PATCHBAY_LOG: '' } })).not.toHaveProperty('writeLog');
    expect(call('VERSION')).not.toHaveProperty('writeLog');
  });

  test.each([
    '/etc/cron.d/x',
    '/var/log/patchbay/../x',
    '/var/log/patchbay/a/b',
    '/var/log/patchbay/.x',
    '/var/log/patchbay/',
    'file',
    7,
    {},
  ])('a config cannot name %j', (log) => {
    const env = { PATCHBAY_LOG: undefined };
    for (const verb of ['ADD', 'CHECK', 'STATUS']) {
      const { stdout, exitCode } = call(verb, { env, stdin: { log, prevResult: {} } });
      expect(exitCode, verb).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({ code: 7, msg: expect.stringMatching(/^Field "log" of/) });
    }
  });

  test('one that a config cannot name keeps nothing from being removed', () => {
    const outcome = call('DEL', { env: { PATCHBAY_LOG: undefined }, stdin: { log: '/etc/passwd' } });
    expect(outcome.exitCode).toBe(0);
    outcome.writeLog?.('printed');
    expect(said).toEqual([expect.stringMatching(/^Field "log" of the network configuration must be/)]);
  });

  test('the variable wins over the config', () => {
    expect(lineOf('ADD', { stdin: { log: 'journal' } })).toMatchObject({ outcome: 'success' });
  });

  test.each(['log', '../log', './log'])(
    'the variable is refused when it is %j, and the verb succeeds',
    (file) => {
      const outcome = call('ADD', { env: { PATCHBAY_LOG: file } });
      expect(outcome.exitCode).toBe(0);
      outcome.writeLog?.('printed');
      expect(said).toEqual([expect.stringMatching(/^PATCHBAY_LOG must be "journal" or an absolute path/)]);
    },
  );

  test('one that cannot be written is a line on stderr', () => {
    call('ADD', { env: { PATCHBAY_LOG: join(directory, 'missing/log') } }).writeLog?.('printed');
    expect(said).toEqual([expect.stringMatching(/^Cannot write to log file ".*\/missing\/log": ENOENT/)]);
  });
});
