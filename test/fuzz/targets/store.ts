// host-local's store as somebody else left it: names and contents of files, links, directories, a torn index. An ADD
// takes no address that has a file with a holder, and a DEL removes nothing that is not the attachment's own.
import { lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { takeAddresses } from '../../../plugins/host-local/allocator.ts';
import type { KernelView } from '../../../plugins/host-local/kernel-view.ts';
import { canonicalRange, type RangeSet } from '../../../plugins/host-local/range.ts';
import { describeHolder, type HeldAddress, isHeld, openStore } from '../../../plugins/host-local/store.ts';
import { Rollback } from '../../../shared/cni/rollback.ts';
import { formatIp, parseCidr } from '../../../shared/ip/cidr.ts';
import { defineTarget } from '../driver.ts';
import { mutated } from '../inputs/bytes.ts';
import { ipText, oddText } from '../inputs/values.ts';
import { attempt, promise } from '../target.ts';
import { temporaryDirectory } from '../temporary.ts';

const ATTACHMENT = { network: 'fuzz', containerId: 'fuzzed', ifname: 'eth0' };
const SETS: readonly RangeSet[] = [
  [
    canonicalRange(
      { subnet: parseCidr('10.66.0.0/29'), rangeStart: undefined, rangeEnd: undefined, gateway: undefined },
      'ranges',
    ),
  ],
];

/** A kernel that knows of nothing. */
const KERNEL: KernelView = { listUsers: () => [], hasHostLink: () => false, hasTraceOf: () => false };

interface FoundFile {
  readonly name: string;
  readonly kind: 'file' | 'directory' | 'link' | 'index';
  readonly content: Uint8Array;
}

const RECORD = fc.constantFrom(
  'fuzzed\r\neth0',
  'fuzzed\r\nnet1',
  'fuzzed',
  'other\r\neth0',
  'other',
  '',
  '\r\n',
  'fuzzed\r\n',
  'fuzzed\n\neth0',
  ' fuzzed \r\neth0 ',
  'x'.repeat(5000),
);

const FILE: fc.Arbitrary<FoundFile> = fc.record({
  name: fc.oneof(
    fc.constantFrom(
      '10.66.0.2',
      '10.66.0.3',
      '10.66.0.4',
      '10.66.0.5',
      '10.66.0.6',
      'last_reserved_ip.0',
      'lock',
      '10.66.0.02',
      '10.66.0.1',
    ),
    ipText(),
    oddText(),
  ),
  kind: fc.constantFrom('file', 'file', 'file', 'file', 'directory', 'link', 'index'),
  content: mutated(
    RECORD.map((text) => new Uint8Array(Buffer.from(text))),
    { tokens: ['\r\n', '\0', '10.66.0.4', ',10.66.0.2', '../', ' '] },
  ),
});

export const store = defineTarget({
  name: 'store',
  weight: 3,
  input: fc.array(FILE, { maxLength: 8 }),
  run(files) {
    const dataDir = emptyDirectory();
    const directory = join(dataDir, ATTACHMENT.network);
    const notes = files.filter(({ kind }) => kind === 'index');
    for (const file of files) if (file.kind !== 'index') plant(directory, file);
    if (notes.length > 0) indexStore(dataDir);
    for (const note of notes) plantNote(dataDir, note);
    const before = contentsOf(directory);
    const added = attempt(() => add(dataDir, before));
    const between = contentsOf(directory);
    if (added !== 'ok') expectSame(before, between);
    const deleted = attempt(() => del(dataDir, directory, between));
    // An index that somebody forged may hide an address; it gives none away.
    if (deleted === 'ok' && notes.length === 0) expectNothingHeld(dataDir);
    return `${added}, ${deleted}`;
  },
});

function add(dataDir: string, before: ReadonlyMap<string, string>): string {
  using opened = openStore({ dataDir, network: ATTACHMENT.network }, 100);
  for (const stored of opened.list()) describeHolder(stored);
  using rollback = new Rollback(() => {});
  const pool = { store: opened, kernel: KERNEL, attachment: ATTACHMENT, log: () => {} };
  const [taken] = takeAddresses(pool, SETS, [undefined], rollback);
  rollback.commit();
  const name = taken === undefined ? '' : formatIp(taken.ip);
  promise(!isHolder(before.get(name)), `${name} is taken, and has the file ${before.get(name)}`);
  return 'ok';
}

/** Whose an address is, in the words of docs/store-format.md: a file that names nobody counts as free. */
function isHolder(content: string | undefined): boolean {
  if (content === undefined) return false;
  const [id = '', ...ifnames] = content.trim().split('\r\n');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(id)) return false;
  const [ifname] = ifnames;
  if (ifname === undefined) return !/\r\n?$/.test(content); // else it was cut
  return ifnames.length === 1 && /^[^\s/:\0]{1,15}$/.test(ifname);
}

function del(dataDir: string, directory: string, before: ReadonlyMap<string, string>): string {
  using opened = openStore({ dataDir, network: ATTACHMENT.network }, 100);
  const { own, legacy } = opened.findHeld(ATTACHMENT);
  for (const address of [...own, ...legacy]) opened.release(address);
  const after = contentsOf(directory);
  for (const [name, content] of before) {
    const isOwn = /^\s*fuzzed\s*(\r\neth0)?\s*$/.test(content);
    promise(isOwn || after.has(name), `${name} is gone, which held ${content}`);
  }
  return 'ok';
}

function expectNothingHeld(dataDir: string): void {
  using opened = openStore({ dataDir, network: ATTACHMENT.network }, 100);
  const isOwn = ({ holder }: HeldAddress) =>
    holder.containerId === 'fuzzed' && (holder.ifname ?? 'eth0') === 'eth0';
  promise(!opened.list().filter(isHeld).some(isOwn), 'Something of the attachment is left');
}

function emptyDirectory(): string {
  root ??= temporaryDirectory();
  rmSync(join(root, 'data'), { recursive: true, force: true });
  const dataDir = join(root, 'data');
  mkdirSync(join(dataDir, ATTACHMENT.network), { recursive: true });
  return dataDir;
}

let root: string | undefined;

// Names that no file can have are left out.
function plant(directory: string, { name, kind, content }: FoundFile): void {
  const path = join(directory, safeName(name));
  succeeds(() => {
    if (kind === 'directory') mkdirSync(path);
    else if (kind === 'link') symlinkSync(safeName(name), path);
    else writeFileSync(path, content);
  });
}

/** Makes an index that is believed. */
function indexStore(dataDir: string): void {
  succeeds(() => {
    using opened = openStore({ dataDir, network: ATTACHMENT.network }, 100);
    opened.list();
  });
}

// The index beside the store holds its notes in the targets of links.
function plantNote(dataDir: string, { name, content }: FoundFile): void {
  const owners = join(dataDir, '.patchbay', ATTACHMENT.network, 'owners');
  const note = join(owners, content.length % 2 === 0 ? 'fuzzed@eth0' : safeName(name));
  const text = Buffer.from(content).toString().replaceAll('\0', '') || name;
  succeeds(() => {
    mkdirSync(owners, { recursive: true });
    rmSync(note, { force: true });
    symlinkSync(text, note);
  });
}

function safeName(name: string): string {
  const safe = name.replaceAll(/[/\0]/g, '_');
  return safe === '.' || safe === '..' ? '_' : safe;
}

function succeeds(step: () => void): void {
  try {
    step();
  } catch {
    // It has that name already, or nothing can.
  }
}

function contentsOf(directory: string): ReadonlyMap<string, string> {
  const names = readdirSync(directory).filter(
    (name) => name !== 'lock' && !name.startsWith('last_reserved_ip'),
  );
  return new Map(names.map((name) => [name, contentOf(join(directory, name))]));
}

// Whatever is no file holds its address: the word for it reads as a holder.
function contentOf(path: string): string {
  const stat = lstatSync(path);
  if (stat.isSymbolicLink()) return 'link';
  return stat.isFile() ? readFileSync(path, 'utf8') : 'directory';
}

function expectSame(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): void {
  const told = (map: ReadonlyMap<string, string>) => JSON.stringify([...map].sort());
  promise(told(before) === told(after), `An ADD failed and left ${told(after)} of ${told(before)}`);
}
