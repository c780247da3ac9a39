// Which program is run for a table, and what is said when there is none.
// Run by vitest, project "unit".

import { accessSync } from 'node:fs';
import { beforeEach, expect, test, vi } from 'vitest';
import { parseCidr } from '../../../shared/ip/cidr.ts';
import { addMasquerade, expectPrograms } from '../../../shared/iptables/masquerade.ts';
import { planMasquerade } from '../../../shared/iptables/masquerade-plan.ts';
import { readTable } from '../../../shared/iptables/programs.ts';
import { type Finished, run } from '../../../shared/linux/spawn.ts';

vi.mock('node:fs', { spy: true });
vi.mock('../../../shared/linux/spawn.ts', { spy: true });

const DONE: Finished = {
  exitCode: 0,
  signal: undefined,
  timedOut: false,
  stdout: Buffer.alloc(0),
  stderr: Buffer.alloc(0),
};

let installed: string[];

beforeEach(() => {
  vi.clearAllMocks();
  installed = [];
  vi.mocked(accessSync).mockImplementation((path) => {
    if (!installed.includes(String(path))) throw Object.assign(new Error('missing'), { code: 'ENOENT' });
  });
  vi.mocked(run).mockReturnValue(DONE);
});

test('a missing program is named together with its package, as code 50', () => {
  const plan = planMasquerade({ network: 'n1', containerId: 'c1', addresses: [parseCidr('10.1.0.2/24')] });
  expect(() => addMasquerade(plan)).toThrow(
    expect.objectContaining({
      code: 50,
      message: 'Cannot find program "iptables-restore": install package "iptables"',
      details: expect.stringContaining('ipMasqBackend'),
    }),
  );
  expect(run).not.toHaveBeenCalled();
});

test('STATUS wants the programs of both families', () => {
  installed = ['/usr/sbin/iptables-restore'];
  expect(expectPrograms).toThrow('Cannot find program "ip6tables-restore"');
  installed.push('/sbin/ip6tables-restore');
  expect(expectPrograms).not.toThrow();
});

test('the program of a flavour is preferred, the plain one will do', () => {
  installed = ['/usr/sbin/iptables-save', '/usr/sbin/iptables-nft-save'];
  readTable({ name: 'nat', family: 4, flavour: 'nft' });
  readTable({ name: 'nat', family: 4, flavour: 'legacy' });
  expect(vi.mocked(run).mock.calls.map(([program]) => program)).toEqual([
    '/usr/sbin/iptables-nft-save',
    '/usr/sbin/iptables-save',
  ]);
});

test('a program that fails silently is told by how it ended', () => {
  installed = ['/usr/sbin/iptables-save'];
  vi.mocked(run).mockReturnValue({ ...DONE, exitCode: undefined, signal: 'SIGKILL', timedOut: true });
  expect(() => readTable({ name: 'nat', family: 4, flavour: 'default' })).toThrow(
    'Cannot list table nat of IPv4 with "/usr/sbin/iptables-save": it ended with SIGKILL',
  );
});
