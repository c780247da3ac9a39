// Environment and standard input of any plugin, through the dispatcher: what is common to all of them.
import { defineTarget } from '../driver.ts';
import { callOf } from '../inputs/calls.ts';
import { runReading } from '../reading.ts';

export const dispatcher = defineTarget({
  name: 'dispatcher',
  weight: 15,
  input: callOf(),
  run: (call) => runReading(call),
});
