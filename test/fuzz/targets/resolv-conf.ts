// The text of a resolv.conf, and files of it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { parseResolvConf, readResolvConf } from '../../../plugins/host-local/resolv-conf.ts';
import type { Dns } from '../../../shared/cni/result.ts';
import { defineTarget } from '../driver.ts';
import { mutated } from '../inputs/bytes.ts';
import { ipText, oddText } from '../inputs/values.ts';
import { attempt, promise } from '../target.ts';
import { temporaryDirectory } from '../temporary.ts';

const LINE = fc.oneof(
  ipText().map((ip) => `nameserver ${ip}`),
  fc.constantFrom(
    'search example.org example.net',
    'domain example.org',
    'options ndots:2 trust-ad',
    '# search no',
  ),
  fc.constantFrom(
    'nameserver',
    'search',
    'domain\t',
    'options\v',
    '; x',
    '\r',
    'sortlist 1',
    'NAMESERVER 1.1.1.1',
  ),
  oddText().map((text) => `search ${text}`),
  oddText(),
);

export const resolvConf = defineTarget({
  name: 'resolv.conf',
  weight: 4,
  input: mutated(
    fc.array(LINE, { maxLength: 8 }).map((lines) => new Uint8Array(Buffer.from(lines.join('\n')))),
    { tokens: ['\n', '\r\n', '\0', '\u2028', 'nameserver ', ' '.repeat(3000), 'x'.repeat(70_000)] },
  ),
  run(bytes) {
    expectWords(parseResolvConf(Buffer.from(bytes).toString()));
    // A file costs more than its text.
    if (bytes.length % 16 !== 0) return 'ok';
    return attempt(() => {
      path ??= join(temporaryDirectory(), 'resolv.conf');
      writeFileSync(path, bytes);
      expectWords(readResolvConf(path));
      return 'ok';
    });
  },
});

let path: string | undefined;

function expectWords(dns: Dns): void {
  const words: string[] = Object.values(dns).flat();
  promise(
    words.every((word) => word !== '' && !/\s/.test(word)),
    `No words: ${JSON.stringify(dns)}`,
  );
}
