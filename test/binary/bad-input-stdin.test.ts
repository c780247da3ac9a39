// Wrong bytes, names and versions on the standard input of the packaged plugins.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { type BadCase, everyVerb, testRefusals } from '../support/bad-input.ts';

const UNDECODABLE: BadCase[] = (
  [
    ['nothing', '', ['empty']],
    ['blanks', ' \n\t', ['empty']],
    ['prose', 'hello', ['JSON']],
    ['half an object', '{"cniVersion": "1.1.0", "name": "sce', ['JSON']],
    ['two objects', '{"cniVersion":"1.1.0","name":"scene"}{}', ['JSON']],
    ['an object and a word', '{"cniVersion":"1.1.0","name":"scene"} true', ['JSON']],
    ['single quotes', "{'name': 'scene'}", ['JSON']],
    ['a comment', '{"name": "scene"} // mine', ['JSON']],
    ['a comma too many', '{"name": "scene",}', ['JSON']],
    ['YAML', 'name: scene\ncniVersion: 1.1.0\n', ['JSON']],
    ['a list', '[{"name": "scene"}]', ['object']],
    ['a string', '"scene"', ['object', 'scene']],
    ['a number', '42', ['object', '42']],
    ['true', 'true', ['object', 'true']],
    ['a byte order mark', '\ufeff{"cniVersion":"1.1.0","name":"scene"}', ['JSON']],
    ['a NUL at the end', '{"cniVersion":"1.1.0","name":"scene"}\0', ['JSON']],
    ['a raw line feed in a string', '{"cniVersion":"1.1.0","name":"sc\nene"}', ['JSON']],
    ['bytes that are no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]), ['UTF-8']],
    ['UTF-16', Buffer.from('{"name":"scene"}', 'utf16le'), ['JSON']],
    ['a million opening brackets', '['.repeat(1_000_000), ['nested']],
    ['a deeply nested object', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`, ['nested']],
    ['a megabyte of zeros', Buffer.alloc(1_000_000), ['JSON']],
    ['a megabyte of letters', 'x'.repeat(1_000_000), ['JSON']],
  ] as const
).map(([what, stdin, says]) => ({ title: `${what} on stdin`, stdin, fails: everyVerb(6), says }));

const TOO_LONG: BadCase = {
  title: 'more than 8 MiB on stdin',
  stdin: Buffer.alloc(8 * 1024 * 1024 + 1, ' '),
  fails: everyVerb(5),
  says: ['8388608'],
};

const NAMES: BadCase[] = (
  [
    ['is missing', undefined, ['name']],
    ['is null', null, ['name']],
    ['is empty', '', ['name']],
    ['leads out of the store', '../../../etc', ['name', '../../../etc']],
    ['holds a slash', 'a/b', ['name', 'a/b']],
    ['is two dots', '..', ['name', '..']],
    ['begins with a dot', '.scene', ['name', '.scene']],
    ['holds a blank', 'my net', ['name', 'my net']],
    ['holds a line feed', 'my\nnet', ['name']],
    ['holds a NUL', 'my\0net', ['name']],
    ['is not ASCII', 'réseau', ['name', 'réseau']],
    ['is a megabyte long', `${'n'.repeat(1_000_000)}/`, ['name', 'nnnn']],
  ] as const
).map(([what, name, says]) => ({
  title: `a name that ${what}`,
  config: { name },
  fails: everyVerb(7),
  says,
}));

const TYPES: BadCase[] = (
  [
    ['a name that is a number', { name: 42 }, ['name', '42']],
    ['a name that is a list', { name: ['scene'] }, ['name']],
    ['a name that is true', { name: true }, ['name', 'true']],
    ['a version that is a number', { cniVersion: 1.1 }, ['cniVersion', '1.1']],
    ['a version that is an object', { cniVersion: {} }, ['cniVersion']],
  ] as const
).map(([title, config, says]) => ({ title, config, fails: everyVerb(6), says }));

const VERSIONS: BadCase[] = [
  { title: 'the empty object that null stands for', stdin: 'null', fails: everyVerb(7), says: ['name'] },
  ...['9.9.9', '1.1', '2.0.0', '0.9.0', '1.1.00'].map((cniVersion) => ({
    title: `version ${cniVersion}`,
    config: { cniVersion },
    fails: { ADD: 1, DEL: 1 },
    says: ['cniVersion', cniVersion],
  })),
  ...['1.1.0-rc1', 'v1.1.0', 'latest', '1.1.0.0', '1..0', ' 1.1.0'].map((cniVersion) => ({
    title: `version ${JSON.stringify(cniVersion)}, which is no number`,
    config: { cniVersion },
    fails: { ADD: 1, DEL: 1, CHECK: 6, STATUS: 6, GC: 6 },
    says: ['cniVersion', cniVersion],
  })),
  ...['0.1.0', '0.3.1', ''].map((cniVersion) => ({
    title: `verbs that version ${JSON.stringify(cniVersion)} does not have`,
    config: { cniVersion },
    fails: { CHECK: 1, STATUS: 1, GC: 1 },
    says: ['cniVersion', cniVersion],
  })),
  ...['0.4.0', '1.0.0'].map((cniVersion) => ({
    title: `STATUS and GC at version ${cniVersion}`,
    config: { cniVersion },
    fails: { STATUS: 1, GC: 1 },
    says: ['cniVersion', cniVersion],
  })),
];

const VALID_ATTACHMENTS = 'cni.dev/valid-attachments';

// A list that cannot be read must not be taken for an empty one: that would remove every living attachment.
const GC_LISTS: BadCase[] = (
  [
    ['text', 'resident'],
    ['an object', { containerID: 'resident', ifname: 'eth0' }],
    ['a list of text', ['resident']],
    ['an entry without a container', [{ ifname: 'eth0' }]],
    ['an entry without a link', [{ containerID: 'resident' }]],
    ['an entry with a number for a container', [{ containerID: 7, ifname: 'eth0' }]],
  ] as const
).map(([what, list]) => ({
  title: `GC with ${what} for the valid attachments`,
  config: { [VALID_ATTACHMENTS]: list },
  fails: { GC: 6 },
  says: [VALID_ATTACHMENTS],
}));

testRefusals('bridge', [UNDECODABLE, TOO_LONG, NAMES, TYPES, VERSIONS, GC_LISTS].flat());
