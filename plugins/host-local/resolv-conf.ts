// The DNS part of a result, read from a file in the format of resolv.conf(5).
// Called by add.ts before any address is taken, so that an unreadable file costs nothing.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { Dns } from '../../shared/cni/result.ts';

/** Reads and parses the file. Throws invalidConfig when it can't be read, is no regular file, or is larger than 64 KiB. */
export function readResolvConf(path: string): Dns {
  return parseResolvConf(readText(path));
}

/**
 * The last `domain`, and all of `nameserver`, `search` and `options`; other lines, comments and lines without a
 * value are skipped.
 */
export function parseResolvConf(text: string): Dns {
  const nameservers: string[] = [];
  const search: string[] = [];
  const options: string[] = [];
  let domain: string | undefined;
  for (const line of text.split('\n')) {
    const [keyword = '', ...values] = line.trim().split(/\s+/);
    const [first] = values;
    if (/^[#;]/.test(keyword) || first === undefined) continue;
    if (keyword === 'nameserver') nameservers.push(first);
    if (keyword === 'domain') domain = first;
    if (keyword === 'search') search.push(...values);
    if (keyword === 'options') options.push(...values);
  }
  return {
    ...(nameservers.length > 0 ? { nameservers } : {}),
    ...(domain === undefined ? {} : { domain }),
    ...(search.length > 0 ? { search } : {}),
    ...(options.length > 0 ? { options } : {}),
  };
}

const SIZE_LIMIT = 64 * 1024;

// Symbolic links are followed, /etc/resolv.conf is one on many hosts; O_NONBLOCK, so that a FIFO can't hold us.
function readText(path: string): string {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) throw new Error('It is not a regular file');
      const buffer = Buffer.allocUnsafe(SIZE_LIMIT + 1);
      const size = readSync(fd, buffer, 0, buffer.length, 0);
      if (size > SIZE_LIMIT) throw new Error(`It is larger than ${SIZE_LIMIT} bytes`);
      return buffer.toString('utf8', 0, size);
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw invalidConfig(`Cannot read "ipam.resolvConf" ${quote(path)}`, { cause });
  }
}
