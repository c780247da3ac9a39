// The CNI_* environment variables: which command needs which, and what is wrong with them.
// Called by the dispatcher, before stdin is read.
import { holdNetns, isOwnNetns } from '../linux/netns.ts';
import { invalidEnvironment, invalidNetns, quote } from './error.ts';

/** The commands that run a plugin; VERSION and the bare run never get that far. */
export type Command = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC';

export type Env = Readonly<Record<string, string | undefined>>;

/** The variables, validated for the command; those it does not need may be empty. */
export interface Environment {
  readonly containerId: string;
  readonly netns: string;
  readonly ifname: string;
  readonly args: string;
  /** Entries of CNI_PATH in order, empty ones left out. */
  readonly path: readonly string[];
  /** What to do when CNI_NETNS is the namespace the plugin runs in. */
  readonly ownNetns: 'refuse' | 'allow';
}

/** What an identifier may look like: container ids and network names (CNI SPEC, section 2). */
export const IDENTIFIER = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** IDENTIFIER in words, completing "… must". */
export const IDENTIFIER_RULE =
  'start with a letter or digit and hold nothing but letters, digits, "_", "." and "-"';

/** Tells whether the text is a command that runs a plugin; upper case only. */
export function isCommand(text: string): text is Command {
  return Object.hasOwn(REQUIRED, text);
}

/**
 * The environment of a command. Throws `invalidEnvironment` for the first variable that is present and
 * invalid, in the order CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH; the missing ones are reported
 * together.
 */
export function parseEnvironment(env: Env, command: Command): Environment {
  const values = {
    CNI_CONTAINERID: env['CNI_CONTAINERID'] ?? '',
    CNI_NETNS: env['CNI_NETNS'] ?? '',
    CNI_IFNAME: env['CNI_IFNAME'] ?? '',
    CNI_PATH: env['CNI_PATH'] ?? '',
  };
  const missing: string[] = [];
  for (const name of REQUIRED[command]) {
    if (values[name] === '') missing.push(name);
    else if (name === 'CNI_CONTAINERID') expectContainerId(values[name]);
    else if (name === 'CNI_IFNAME') expectIfname(values[name]);
  }
  if (missing.length > 0) throw missingVariables(command, missing);
  return {
    containerId: values.CNI_CONTAINERID,
    netns: values.CNI_NETNS,
    ifname: values.CNI_IFNAME,
    args: env['CNI_ARGS'] ?? '',
    path: values.CNI_PATH.split(':').filter((entry) => entry !== ''),
    ownNetns: isOn(env['CNI_NETNS_OVERRIDE'] ?? '') ? 'allow' : 'refuse',
  };
}

/**
 * Opens CNI_NETNS for the length of the verb, so that the plugin works in the namespace that was looked at here, even when the
 * path leads elsewhere by then. Throws `invalidNetns` when it is the namespace we run in, unless CNI_NETNS_OVERRIDE allows
 * it: a plugin that acts there would rearrange the host. A path that leads nowhere is the plugin's business.
 */
export function holdForeignNetns({ netns: path, ownNetns }: Environment): Disposable | undefined {
  if (path === '') return undefined;
  const held = holdNetns(path);
  if (ownNetns === 'allow' || held.netns === undefined || !isOwnNetns(held.netns)) return held;
  held[Symbol.dispose]();
  throw invalidNetns(
    `CNI_NETNS ${quote(path)} is the network namespace of the host, where the plugin itself runs; ` +
      'set CNI_NETNS_OVERRIDE=1 if that is what you want',
  );
}

type Variable = 'CNI_CONTAINERID' | 'CNI_NETNS' | 'CNI_IFNAME' | 'CNI_PATH';

// The SPEC asks for CNI_PATH in GC alone; the reference in all of these, and every runtime sets it.
const REQUIRED: Readonly<Record<Command, readonly Variable[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME', 'CNI_PATH'],
  STATUS: ['CNI_PATH'],
  GC: ['CNI_PATH'],
};

// IFNAMSIZ less the NUL (linux/if.h).
const IFNAME_LIMIT = 15;

function isOn(value: string): boolean {
  return value === '1' || value.toLowerCase() === 'true';
}

function expectContainerId(value: string): void {
  if (IDENTIFIER.test(value)) return;
  throw invalidEnvironment(`CNI_CONTAINERID ${quote(value)} must ${IDENTIFIER_RULE}`);
}

function expectIfname(value: string): void {
  const bytes = Buffer.byteLength(value, 'utf8');
  if (bytes > IFNAME_LIMIT) {
    throw invalidEnvironment(
      `CNI_IFNAME ${quote(value)} has ${bytes} bytes, at most ${IFNAME_LIMIT} are possible`,
    );
  }
  if (value === '.' || value === '..') throw invalidEnvironment(`CNI_IFNAME must not be ${quote(value)}`);
  // White space as Unicode (and the reference) has it: JavaScript leaves out U+0085 and counts the byte order
  // mark.
  if (/[/:\u0085]|(?!\ufeff)\s/.test(value)) {
    throw invalidEnvironment(`CNI_IFNAME ${quote(value)} must not hold "/", ":" or white space`);
  }
}

function missingVariables(command: Command, missing: readonly string[]): Error {
  const subject = missing.length === 1 ? 'variable' : 'variables';
  return invalidEnvironment(`${command} needs the environment ${subject} [${missing.join(',')}]`);
}
