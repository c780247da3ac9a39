// Waiting for the lock of a store, giving up, and who is named then.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openStore } from '../../../plugins/host-local/store.ts';
import { CniError } from '../../../shared/cni/error.ts';
import { describeCall, findHolders } from '../../../shared/cni/lock.ts';

let dataDir: string;
let lock: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'patchbay-lock-'));
  lock = join(dataDir, 'n1', 'lock');
  mkdirSync(join(dataDir, 'n1'));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

describe('the lock', () => {
  it('that another process holds for too long is error 11, naming file and process', async () => {
    const holder = await holdLock();
    try {
      const before = performance.now();
      const error = refusal();
      expect(performance.now() - before).toBeGreaterThan(190);
      expect(error.code).toBe(11);
      expect(error.message).toBe(
        `Cannot lock "${lock}" within 0.2 s: it is held by process ${holder.pid} (cat)`,
      );
    } finally {
      await release(holder);
    }
    openStore({ dataDir, network: 'n1' }, 200)[Symbol.dispose]();
  });

  it('is free again after a store is disposed of', () => {
    openStore({ dataDir, network: 'n1' }, 200)[Symbol.dispose]();
    openStore({ dataDir, network: 'n1' }, 200)[Symbol.dispose]();
  });

  it('of one network is not that of another', () => {
    using _first = openStore({ dataDir, network: 'n1' }, 200);
    openStore({ dataDir, network: 'n2' }, 200)[Symbol.dispose]();
  });
});

describe('the holders in /proc/locks', () => {
  const locks = [
    '1: POSIX  ADVISORY  WRITE 100 fd:00:9978560 0 EOF',
    '2: FLOCK  ADVISORY  WRITE 200 fd:00:9978560 0 EOF',
    '2: -> FLOCK  ADVISORY  WRITE 300 fd:00:9978560 0 EOF',
    '3: FLOCK  ADVISORY  WRITE 400 fd:00:9978561 0 EOF',
    '4: FLOCK  ADVISORY  WRITE 500 fd:01:9978560 0 EOF',
    '5: FLOCK  ADVISORY  WRITE 0 fd:00:9978560 0 EOF',
    '6: FLOCK  ADVISORY  READ  600 103:100002:7 0 EOF',
    '',
  ].join('\n');

  it('are those with a flock on the same device and inode, and not those that wait for it', () => {
    expect(findHolders(locks, 0xfd00n, 9978560n)).toEqual([200]);
    expect(findHolders(locks, 0xfd00n, 1n)).toEqual([]);
  });

  it('are found on devices with large numbers', () => {
    // new_encode_dev(): minor bits 8 and up begin at bit 20.
    const device = 0x02n | (0x103n << 8n) | (0x1000n << 20n);
    expect(findHolders(locks, device, 7n)).toEqual([600]);
  });
});

// flock(1) takes the lock, says so and becomes cat, which keeps it until its stdin closes.
async function holdLock(): Promise<ChildProcess> {
  const holder = spawn('flock', ['--no-fork', lock, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  if (holder.stdout !== null) await once(holder.stdout, 'data');
  return holder;
}

async function release(holder: ChildProcess): Promise<void> {
  const gone = once(holder, 'exit');
  holder.stdin?.end();
  await gone;
}

function refusal(): CniError {
  try {
    openStore({ dataDir, network: 'n1' }, 200)[Symbol.dispose]();
  } catch (error) {
    if (error instanceof CniError) return error;
    throw error;
  }
  throw new Error('The lock was free');
}

describe('what a holder is doing', () => {
  const environ = (...lines: string[]) => lines.map((line) => `${line}\0`).join('');

  it.each([
    ['an ADD', environ('CNI_COMMAND=ADD', 'CNI_CONTAINERID=c1', 'CNI_IFNAME=eth0'), ', ADD of "c1" "eth0"'],
    ['a GC, which is about no attachment', environ('A=b', 'CNI_COMMAND=GC', 'CNI_PATH=/opt'), ', GC'],
    ['any other program', environ('PATH=/bin', 'HOME=/root'), ''],
    ['a program without environment', '', ''],
    ['a command that is none', environ('CNI_COMMAND=ADD it is held by nobody'), ''],
  ])('is told of %s', (_, text, words) => {
    expect(describeCall(text)).toBe(words);
  });
});
