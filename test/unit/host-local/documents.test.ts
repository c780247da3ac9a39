// What docs/plugins/host-local.md and docs/store-format.md say, held against the code they speak of.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { DEFAULT_DATA_DIR } from '../../../plugins/host-local/config.ts';
import { LOCK_DEADLINE_MS } from '../../../shared/cni/lock.ts';

const ROOT = join(import.meta.dirname, '../../..');

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

const guide = read('docs/plugins/host-local.md');

it('every field that the parser knows is in a table of the guide, and no other', () => {
  const code = read('plugins/host-local/config.ts');
  const schemas = code.slice(code.indexOf('function hostLocalSchema'), code.indexOf('function subnet'));
  const fields = schemas.matchAll(
    /(?:^ +|[{,] )(\w+)(?=: (?:\(\) =>|v\.|ip\b|u\d+\b|rangeSets\b|subnet\b)|,| \})/gm,
  );
  const known = new Set([...fields].map((match) => match[1] ?? ''));
  // What stands beside `ipam` is told in prose.
  for (const field of ['runtimeConfig', 'args', 'cni', 'ips', 'ipRanges', 'ipam']) {
    expect(known.delete(field), field).toBe(true);
    expect(guide).toContain(field);
  }
  const rows = guide.split('\n').filter((line) => line.startsWith('| `'));
  const told = new Set(
    rows.flatMap((row) => [...(row.split('|')[1] ?? '').matchAll(/`(\w+)`/g)].map((match) => match[1] ?? '')),
  );
  expect([...told].sort()).toEqual([...known].sort());
  expect(known.size).toBeGreaterThan(15);
});

it('defaults and limits are those of the code', () => {
  expect(guide).toContain(`\`${DEFAULT_DATA_DIR}\``);
  expect(guide).toContain(`waits ${LOCK_DEADLINE_MS / 1000} s`);
});

it('the names on disk are those of the code', () => {
  const format = read('docs/store-format.md');
  const code = ['store.ts', 'owner-index.ts'].map((file) => read(`plugins/host-local/${file}`)).join('\n');
  for (const name of [
    'user.patchbay.boot',
    'last_reserved_ip.',
    'owners',
    'stamp',
    'draft',
    '.patchbay',
    'lock',
  ]) {
    expect(code, name).toMatch(new RegExp(`['\`]${name.replaceAll('.', '\\.')}`));
    expect(format, name).toContain(name);
  }
});
