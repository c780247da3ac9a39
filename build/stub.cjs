// The main script of the executables: takes the program and its code cache out of the image and runs it.
// Made part of them by package.ts. Node compiles this file at every start, so it is as short as it can be.
'use strict';
const { getRawAsset } = require('node:sea');
const { Script } = require('node:vm');

try {
  const script = new Script(Buffer.from(getRawAsset('program')).latin1Slice(), {
    filename: 'patchbay.cjs',
    cachedData: new Uint8Array(getRawAsset('cache')),
  });
  if (process.env.PATCHBAY_TRACE === 'start') {
    process._rawDebug(`code cache ${script.cachedDataRejected ? 'rejected' : 'accepted'}`);
  }
  script.runInThisContext()(require, process);
} catch (error) {
  // The last line of defence: whatever main.ts could not catch still ends as one CNI error on stdout.
  const msg = `The program failed: ${error?.message ?? error}`;
  const report = { cniVersion: '1.1.0', code: 999, msg, details: String(error?.stack ?? '') };
  require('node:fs').writeSync(1, JSON.stringify(report));
  process.exit(1);
}
