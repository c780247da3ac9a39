// The calls that real clients made, played again without the clients: same answers, and nothing left in the end.
// Part of `npm run test:binary`; `npm run fixtures:calls` records them anew.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type ClientCalls, play, Stage } from '../support/client-calls.ts';
import { openPrivateHost } from '../support/private-host.ts';
import { attachments } from '../support/runtime-host.ts';

const FOLDER = join(import.meta.dirname, '../fixtures/calls');

test.each(readdirSync(FOLDER).map((file) => file.replace('.json', '')))(
  'The calls of %s get the answers that they got when they were recorded',
  async (client) => {
    const { calls } = JSON.parse(readFileSync(join(FOLDER, `${client}.json`), 'utf8')) as ClientCalls;
    await using host = await openPrivateHost();
    const stage = new Stage();
    for (const [position, call] of calls.entries()) {
      expect(await play(host, call, stage), `call ${position}`).toEqual(call);
    }
    expect(calls.length).toBeGreaterThan(5);
    expect((await attachments(host)).filter((line) => !line.includes('/run/netns/'))).toEqual([]);
  },
);
