// Running other programs: input and output byte by byte, the environment, and how it ends.
import { expect, test } from 'vitest';
import { run } from '../../../shared/linux/spawn.ts';

test('input and output pass through untouched, whatever the bytes', () => {
  const input = Uint8Array.from({ length: 1024 }, (_, index) => index % 256);
  const { exitCode, stdout } = run('/bin/cat', { input });
  expect(exitCode).toBe(0);
  expect(Buffer.compare(stdout, input)).toBe(0);
});

test('a trailing newline is kept, and stdin is empty when nothing is given', () => {
  expect(run('/bin/sh', { args: ['-c', 'cat; echo x; echo y >&2'] })).toMatchObject({
    stdout: Buffer.from('x\n'),
    stderr: Buffer.from('y\n'),
  });
});

test('the program sees the environment it is given and no other', () => {
  const shown = run('/usr/bin/env', { env: { CNI_COMMAND: 'ADD', UNSET: undefined } }).stdout;
  expect(String(shown)).toBe('CNI_COMMAND=ADD\n');
});

test('arguments are passed as they are: there is no shell', () => {
  expect(String(run('/bin/echo', { args: ['$HOME', '*', '; false'] }).stdout)).toBe('$HOME * ; false\n');
});

test('a bad end is a value: exit code, signal or time-out', () => {
  expect(run('/bin/sh', { args: ['-c', 'exit 3'] })).toMatchObject({ exitCode: 3, signal: undefined });
  expect(run('/bin/sh', { args: ['-c', 'kill -TERM $$'] })).toMatchObject({
    exitCode: undefined,
    signal: 'SIGTERM',
  });
  expect(run('/bin/sleep', { args: ['9'], timeoutMs: 50 })).toMatchObject({ timedOut: true });
});

test("what cannot be started is an error with the system's reason", () => {
  const expected = { message: 'Cannot run "/nowhere/x"', cause: expect.objectContaining({ code: 'ENOENT' }) };
  expect(() => run('/nowhere/x')).toThrow(expect.objectContaining(expected));
  expect(() => run('cat')).toThrow('its path is not absolute');
});
