// Results as other plugins hand them on: read, and told again in the shape of a version.
import fc from 'fast-check';
import { parseJson } from '../../../shared/cni/decode.ts';
import { encodeResult, parseResult } from '../../../shared/cni/result.ts';
import { CNI_VERSIONS } from '../../../shared/cni/versions.ts';
import { defineTarget } from '../driver.ts';
import { prevResult } from '../inputs/configs.ts';
import { jsonBytes } from '../inputs/json.ts';
import { attempt, promise } from '../target.ts';

export const prevResults = defineTarget({
  name: 'prevResult',
  weight: 8,
  input: fc.record({ version: fc.constantFrom(...CNI_VERSIONS), bytes: jsonBytes(prevResult()) }),
  run: ({ version, bytes }) =>
    attempt(() => {
      const retell = (json: Buffer) =>
        encodeResult(parseResult(parseJson(json, 'a result'), version), version);
      const text = retell(Buffer.from(bytes));
      const again = retell(Buffer.from(text));
      promise(again === text, `What was told reads as something else: ${text} and ${again}`);
      return 'ok';
    }),
});
