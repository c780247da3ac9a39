// What is left of an error once the values of the config are out of it.
import { describe, expect, test } from 'vitest';
import { redact } from '../../../shared/cni/redact.ts';

const config = {
  cniVersion: '1.1.0',
  name: 'net1',
  type: 'bridge',
  bridge: 'cni0',
  mtu: 'big secret',
  args: { cni: { token: 'hunter2hunter2' } },
  list: ['in a list'],
  prevResult: { interfaces: [{ name: 'veth1a2b' }] },
};
const args = 'IgnoreUnknown=1;TOKEN=s3cr3t';

function redacted(message: string): string {
  return redact(message, { config, args });
}

describe('of an error about a config', () => {
  test.each([
    [
      'Field "mtu" of the network configuration must be a number, not "big secret"',
      'a value that does not fit',
    ],
    ['Field "args" must be a string, not {"cni":{"token":"hunter2hun…', 'an object that is cut'],
    ['Field "mtu" must be a number, not 4711', 'a number'],
    ['Cannot read "TOKEN=s3cr3t" in CNI_ARGS', 'a pair of CNI_ARGS'],
    ['CNI_ARGS holds unknown keys "TOKEN"', 'the key of one'],
    ['CNI_ARGS is "IgnoreUnknown=1;TOKEN=s3cr3t"', 'CNI_ARGS'],
    ['The plugin said hunter2hunter2', 'a value without quotes'],
    ['It printed "{\\"token\\":\\"hunter2hunter2\\"}"', 'a value within a quoted text'],
    ['It printed "hunter2hun" (cut, 90 characters)', 'the beginning of a value'],
    ['It is "in a list"', 'a value in a list'],
  ])('%s: nothing is left of %s', (message) => {
    expect(redacted(message)).not.toMatch(/big|secret|hunter|s3cr3t|TOKEN|4711|in a list/);
  });

  test('field names, names of the kernel and the network stay', () => {
    const message = 'Field "mtu" of "net1": cannot set link "veth1a2b" up: no such device (ENODEV)';
    expect(redacted(message)).toBe(message);
    expect(redacted('Cannot add bridge "cni0"')).toBe('Cannot add bridge "…"');
  });
});

test('of a config that could not be decoded only the head of the sentence stays', () => {
  const message = `Cannot decode the network configuration on stdin as JSON: Unexpected token 'x', "{"p":"pa"x" is not valid JSON`;
  expect(redact(message, { config: undefined, args: '' })).toBe(
    'Cannot decode the network configuration on stdin as JSON',
  );
  expect(redact('CNI_IFNAME "a b" must not hold "/"', { config: undefined, args: '' })).toBe(
    'CNI_IFNAME "…" must not hold "…"',
  );
});
