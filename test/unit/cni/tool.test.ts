// Commands for people: which one the arguments mean, where its text and its remarks go, and how it fails.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { patchbay } from '../../../plugins/patchbay/index.ts';
import { invalidConfig } from '../../../shared/cni/error.ts';
import { runTool, type Tool } from '../../../shared/cni/tool.ts';
import { fakePlugin } from '../../support/fake-plugin.ts';

const upper: Tool = {
  name: 'upper',
  help: ['fake upper < in > out', '  Makes everything upper case.'],
  run(input) {
    const text = input.toString();
    if (text === '') throw invalidConfig('There is nothing to do', { details: 'stdin is empty' });
    return { stdout: text.toUpperCase(), remarks: [`${text.length} letters`, 'done'] };
  },
};

function run(args: readonly string[], stdin = 'abc', plugin = { ...fakePlugin().plugin, tools: [upper] }) {
  const log: string[] = [];
  const outcome = runTool(plugin, args, {
    env: {},
    readStdin: () => Buffer.from(stdin),
    log: (line) => log.push(line),
    registry: () => undefined,
    ownExecutable: '',
    pid: 1,
    uptime: () => 0,
    version: '2.0.0',
  });
  return { ...outcome, log };
}

describe('a command', () => {
  test('prints its text, and its remarks on stderr', () => {
    expect(run(['upper'])).toEqual({ stdout: 'ABC', exitCode: 0, log: ['3 letters', 'done'] });
  });

  test('that fails prints why on stderr alone', () => {
    const log = ['There is nothing to do: stdin is empty'];
    expect(run(['upper'], '')).toEqual({ stdout: '', exitCode: 1, log });
  });

  test.each([[['lower']], [['upper', 'x']], [['--help', 'x']], [['']]])(
    'that is none, %j, is refused',
    (args) => {
      const { stdout, exitCode, log } = run(args);
      expect({ stdout, exitCode }).toEqual({ stdout: '', exitCode: 1 });
      expect(log).toEqual([expect.stringMatching(/^Cannot understand .*; see "fake --help"$/)]);
    },
  );

  test.each(['--help', '-h'])('is explained by %s, which reads nothing', (flag) => {
    const { stdout, exitCode, log } = run([flag]);
    expect({ exitCode, log }).toEqual({ exitCode: 0, log: [] });
    expect(stdout).toMatch(/^CNI fake plugin v2\.0\.0\nCNI protocol versions supported: /);
    expect(stdout).toContain('\nfake upper < in > out\n  Makes everything upper case.\n');
  });
});

test('patchbay has "convert", other plugins have no commands', () => {
  expect(patchbay.tools.map(({ name }) => name)).toEqual(['convert']);
  expect(fakePlugin().plugin.tools).toEqual([]);
});
