// The program that answers VERSION, as main.ts would, without what a plugin needs for anything else: that would have to be
// loaded. The launcher of the executables runs it (build/launcher.cjs).
import { versionAnswer } from '../shared/cni/banner.ts';
import { encodeError } from '../shared/cni/encode.ts';
import { NEWEST_VERSION } from '../shared/cni/versions.ts';
import { exit, getOwnPlugin, print } from './process.ts';

exit(main());

function main(): number {
  try {
    return print(versionAnswer(getOwnPlugin())) ? 0 : 1;
  } catch (error) {
    print(encodeError(error, NEWEST_VERSION));
    return 1;
  }
}
