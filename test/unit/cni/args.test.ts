// CNI_ARGS: what the strict parser refuses, what the lenient one of DEL and GC skips, and the words of its errors.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { parseCniArgs, parseCniArgsLeniently } from '../../../shared/cni/args.ts';

const known = ['IP', 'MAC'];

describe('CNI_ARGS', () => {
  test.each<[string, Record<string, string>]>([
    ['', {}],
    ['IP=10.1.0.5', { IP: '10.1.0.5' }],
    ['IP=', { IP: '' }],
    ['IP=10.1.0.5;MAC=aa:bb:cc:dd:ee:ff', { IP: '10.1.0.5', MAC: 'aa:bb:cc:dd:ee:ff' }],
    ['IP=one;IP=two', { IP: 'two' }],
    ['IgnoreUnknown=1;K8S_POD_NAME=p;IP=x', { IP: 'x' }],
    ['K8S_POD_NAME=p;IP=x;IgnoreUnknown=true', { IP: 'x' }],
    ['K8S_POD_NAME=p;IgnoreUnknown=TrUe', {}],
    ['IgnoreUnknown=0;IP=x', { IP: 'x' }],
    ['IgnoreUnknown=FALSE', {}],
    ['ignoreunknown=x;IgnoreUnknown=1', {}],
    ['IgnoreUnknown=1;=x', {}],
    ['IP= spaced ', { IP: ' spaced ' }],
  ])('"%s" gives %o', (text, expected) => {
    expect(Object.fromEntries(parseCniArgs(text, known))).toEqual(expected);
    expect(Object.fromEntries(parseCniArgsLeniently(text, known))).toEqual(expected);
  });

  test.each<[string, string, Record<string, string>]>([
    ['IP=x;', '""', { IP: 'x' }],
    [';IP=x', '""', { IP: 'x' }],
    ['IP=x;;MAC=y', '""', { IP: 'x', MAC: 'y' }],
    ['IP', '"IP"', {}],
    ['IP=a=b', '"IP=a=b"', {}],
    ['IgnoreUnknown=1;junk', '"junk"', {}],
    ['ip=x', '"ip"', {}],
    ['FOO=1;BAR=2;IP=x', '"FOO, BAR"', { IP: 'x' }],
    ['IgnoreUnknown=0;FOO=1', '"FOO"', {}],
    ['IgnoreUnknown=yes;IP=x', 'IgnoreUnknown="yes"', { IP: 'x' }],
    ['IgnoreUnknown=', 'IgnoreUnknown=""', {}],
    ['IgnoreUnknown=1;IgnoreUnknown=0;FOO=1', '"FOO"', {}],
  ])('"%s" is refused naming %s, and read leniently by DEL and GC', (text, named, lenient) => {
    expect(() => parseCniArgs(text, known)).toThrow(
      expect.objectContaining({ code: 4, message: expect.stringContaining('CNI_ARGS') }),
    );
    expect(() => parseCniArgs(text, known)).toThrow(named);
    expect(Object.fromEntries(parseCniArgsLeniently(text, known))).toEqual(lenient);
  });

  test('an unknown key says which ones are known, and how to have it ignored', () => {
    expect(() => parseCniArgs('FOO=1', known)).toThrow(/IgnoreUnknown=1.*known here: IP, MAC/);
    expect(() => parseCniArgs('FOO=1', [])).toThrow('none is known here');
  });

  test('a huge value costs a short message', () => {
    const thrown = expect(() => parseCniArgs('x'.repeat(1_000_000), known));
    thrown.toThrow('1000000 characters');
    thrown.toThrow(expect.objectContaining({ message: expect.stringMatching(/^.{0,300}$/) }));
  });
});
