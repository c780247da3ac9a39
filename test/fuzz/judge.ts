// What a call may end with: a valid result and exit code 0, or one typed error and exit code 1.
// The targets in process and the black box judge by it; it knows nothing of how the plugins make their answers.
import { ERROR_CODES } from '../../shared/cni/error.ts';
import { hasControls, promise } from './target.ts';

export interface CallEnd {
  readonly exitCode: number | null;
  readonly stdout: string;
}

const CODES: ReadonlySet<unknown> = new Set(
  ERROR_CODES.map(({ code }) => code).filter((code) => code !== 999),
);

/** Far more than any message needs, far less than an echo of the input. */
const LONGEST_MESSAGE = 1000;

/** The end in a word: `ok` or the error's code. Throws BrokenPromise for any other end. */
export function judge(command: string | undefined, { exitCode, stdout }: CallEnd): string {
  promise(exitCode === 0 || exitCode === 1, `The exit code is ${exitCode}`);
  if (exitCode === 1) return judgeError(stdout);
  if (command === 'ADD' || command === 'VERSION') expectDocument(command, stdout);
  else promise(stdout === '', `${command} printed ${stdout.slice(0, 200)}`);
  return 'ok';
}

function judgeError(stdout: string): string {
  const report = parseObject(stdout);
  const { code, msg, details, cniVersion, ...others } = report;
  promise(CODES.has(code), `The code ${String(code)} is not documented: ${stdout.slice(0, 2000)}`);
  promise(
    typeof msg === 'string' && msg !== '' && msg.length < LONGEST_MESSAGE,
    `The message is ${String(msg)}`,
  );
  promise(!hasControls(String(msg)), `The message holds control characters: ${JSON.stringify(msg)}`);
  promise(details === undefined || typeof details === 'string', `The details are ${String(details)}`);
  promise(typeof cniVersion === 'string', `The version is ${String(cniVersion)}`);
  promise(Object.keys(others).length === 0, `The error has more keys: ${Object.keys(others).join(', ')}`);
  return `error ${String(code)}`;
}

function expectDocument(command: string, stdout: string): void {
  const { cniVersion, supportedVersions } = parseObject(stdout);
  promise(typeof cniVersion === 'string' && /^\d\.\d\.\d$/.test(cniVersion), `${command} printed ${stdout}`);
  promise(command !== 'VERSION' || Array.isArray(supportedVersions), `VERSION printed ${stdout}`);
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // told below
  }
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  promise(isObject, `Standard output is no JSON object: ${JSON.stringify(text.slice(0, 500))}`);
  return value as Record<string, unknown>;
}
