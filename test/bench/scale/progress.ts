// How far a long benchmark is, as a bar on a terminal and as lines in a log. Called by scale.ts.
import { progress } from '@clack/prompts';

export interface Progress {
  /** What is going on at the moment. */
  readonly doing: (text: string) => void;
  /** One more step of the total is done. */
  readonly advance: (text: string) => void;
  readonly stop: () => void;
}

/** A bar of so many steps on stderr; where that is no terminal, a line for each step, so that a log stays readable. */
export function openProgress(steps: number): Progress {
  const output = process.stderr;
  if (!output.isTTY || steps === 0) {
    let done = 0;
    return {
      doing: (text) => {
        if (!/: round \d/.test(text)) output.write(`${text}\n`);
      },
      advance: (text) => {
        done++;
        output.write(`${done} of ${steps}: ${text}\n`);
      },
      stop: () => {},
    };
  }
  const bar = progress({ max: steps, size: 30, output });
  bar.start('starting');
  return {
    doing: (text) => bar.message(text),
    advance: (text) => bar.advance(1, text),
    stop: () => bar.stop('measured'),
  };
}
