// CNI_ARGS, read strictly and leniently.
import { parseCniArgs, parseCniArgsLeniently } from '../../../shared/cni/args.ts';
import { defineTarget } from '../driver.ts';
import { cniArgs } from '../inputs/calls.ts';
import { attempt, promise } from '../target.ts';

const KNOWN = ['MAC', 'IP'];

export const cniArgsText = defineTarget({
  name: 'CNI_ARGS',
  weight: 5,
  input: cniArgs(),
  run(text) {
    const lenient = parseCniArgsLeniently(text, KNOWN);
    promise(
      [...lenient.keys()].every((key) => KNOWN.includes(key)),
      'An unknown key was read',
    );
    return attempt(() => {
      const strict = parseCniArgs(text, KNOWN);
      promise(
        [...strict].every(([key, value]) => lenient.get(key) === value),
        'Two readings differ',
      );
      return 'ok';
    });
  },
});
