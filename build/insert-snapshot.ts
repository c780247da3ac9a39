// Puts the start snapshot into what Node has prepared for the executable. Started by the `node` that package.ts lays on
// PATH for pkg, with the config that Node was given and the path of the snapshot.
import { readFileSync, writeFileSync } from 'node:fs';
import { replaceSnapshot } from './start-snapshot.ts';

const [, , config = '', snapshot = ''] = process.argv;
const { output } = JSON.parse(readFileSync(config, 'utf8')) as { readonly output: string };
writeFileSync(output, replaceSnapshot(readFileSync(output), readFileSync(snapshot)));
