// CNI errors: one class, a constructor per code, and the table of all codes.
// Thrown by every layer that knows which code applies; printed by the dispatcher.

/** What a constructor takes besides the message: a longer explanation, and the error underneath. */
export interface CniErrorOptions {
  readonly details?: string;
  readonly cause?: unknown;
}

/** An error as the protocol prints it: `message` becomes `msg` (CNI SPEC, section 5 "Error"). */
export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code: number;
  readonly details: string | undefined;

  constructor(code: number, msg: string, options: CniErrorOptions = {}) {
    super(printable(msg), options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details === undefined ? undefined : printable(options.details, '\n');
  }
}

/**
 * The text with escapes in place of characters that move a cursor, hide what stands beside them or begin a line in a log:
 * messages hold what callers, files and the kernel said. `but` names those that stay.
 */
export function printable(text: string, but = ''): string {
  return text.replace(UNPRINTABLE, (char) =>
    but.includes(char) ? char : `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

// All but control characters (Cc), separators of lines (Zl, Zp), and what changes the direction of writing (Bidi_Control).
// Ranges in place of \p{…}: reading these four properties takes V8 4.4 million instructions at every start.
const UNPRINTABLE = /[^\u0020-\u007e\u00a0-\u061b\u061d-\u200d\u2010-\u2027\u202f-\u2065\u206a-\uffff]/g;

export interface ErrorCode {
  readonly code: number;
  readonly name: string;
  readonly meaning: string;
}

/** The one table of codes; docs/errors.md repeats it for operators and is checked against it. */
export const ERROR_CODES = [
  {
    code: 1,
    name: 'incompatibleVersion',
    meaning:
      'The config asks for a protocol version, or for a command at a version, that the plugin does not speak',
  },
  {
    code: 2,
    name: 'unsupportedField',
    meaning: 'The config uses a field that the plugin knows and does not support',
  },
  { code: 3, name: 'unknownContainer', meaning: 'The container is not known to the plugin' },
  {
    code: 4,
    name: 'invalidEnvironment',
    meaning: 'A CNI_ environment variable is missing or holds an invalid value',
  },
  { code: 5, name: 'ioFailure', meaning: 'Reading stdin or a file, or writing one, failed' },
  {
    code: 6,
    name: 'decodingFailure',
    meaning: 'The text on stdin is not a JSON object that can be understood',
  },
  {
    code: 7,
    name: 'invalidConfig',
    meaning: 'A field of the network configuration is missing or holds an invalid value',
  },
  {
    code: 8,
    name: 'invalidNetns',
    meaning: 'CNI_NETNS is not a network namespace, or is the one the plugin runs in',
  },
  {
    code: 11,
    name: 'tryAgainLater',
    meaning: 'Something is in the way that passes by itself; the same call may succeed later',
  },
  { code: 50, name: 'notAvailable', meaning: 'The plugin cannot serve an ADD now' },
  {
    code: 51,
    name: 'limitedConnectivity',
    meaning:
      'STATUS: the plugin cannot serve an ADD now, and existing containers may have limited connectivity',
  },
  { code: 100, name: 'addressesExhausted', meaning: 'No address is left in a range set' },
  {
    code: 101,
    name: 'addressUnavailable',
    meaning: 'The requested address is in use, reserved, or outside every range',
  },
  {
    code: 102,
    name: 'duplicateAttachment',
    meaning: 'This attachment exists already: it holds an address, or its link is there',
  },
  { code: 103, name: 'portConflict', meaning: 'The requested host port is taken by another attachment' },
  {
    code: 104,
    name: 'addressConflict',
    meaning:
      'The bridge holds another address than its gateway address, or lo one that is no loopback address',
  },
  {
    code: 105,
    name: 'kernelRefused',
    meaning: 'The kernel refused an operation; the details name it and the reason',
  },
  { code: 106, name: 'kernelFeatureMissing', meaning: 'The kernel lacks a feature that the config needs' },
  { code: 107, name: 'checkFailed', meaning: 'CHECK found something that differs from what ADD made' },
  { code: 108, name: 'bridgeFull', meaning: 'The bridge has as many ports as the kernel allows' },
  { code: 109, name: 'wrongLinkKind', meaning: 'A link of that name exists and is of another kind' },
  { code: 110, name: 'storeFailure', meaning: 'The address store cannot be read, written or locked' },
  {
    code: 111,
    name: 'delegateFailed',
    meaning: 'The IPAM plugin cannot be found, cannot be run, or answered nonsense',
  },
  { code: 999, name: 'internal', meaning: 'Anything else, including defects of the plugin itself' },
] as const satisfies readonly ErrorCode[];

/** The config's version, or the command at that version, is not supported. */
export function incompatibleVersion(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(1, msg, options);
}

/** A config field is understood and refused; the message names field and value. */
export function unsupportedField(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(2, msg, options);
}

/** The container does not exist. */
export function unknownContainer(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(3, msg, options);
}

/** A `CNI_*` variable is missing or invalid; the message names it. */
export function invalidEnvironment(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(4, msg, options);
}

/** Reading or writing outside the kernel's network objects failed. */
export function ioFailure(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(5, msg, options);
}

/** Stdin cannot be decoded. */
export function decodingFailure(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(6, msg, options);
}

/** A config field is invalid; the message names field and value. */
export function invalidConfig(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(7, msg, options);
}

/** The sandbox is no network namespace, or our own. */
export function invalidNetns(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(8, msg, options);
}

/** A passing obstacle. */
export function tryAgainLater(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(11, msg, options);
}

/** No ADD can be served: what STATUS reports, and what an ADD does that lacks a program. */
export function notAvailable(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(50, msg, options);
}

/** STATUS: no ADD can be served and existing containers may suffer. */
export function limitedConnectivity(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(51, msg, options);
}

/** A range set has no free address. */
export function addressesExhausted(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(100, msg, options);
}

/** A requested address cannot be given. */
export function addressUnavailable(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(101, msg, options);
}

/** The attachment holds an address already, or its link exists. */
export function duplicateAttachment(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(102, msg, options);
}

/** A host port is taken. */
export function portConflict(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(103, msg, options);
}

/** A link holds another address than it should. */
export function addressConflict(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(104, msg, options);
}

/** The kernel said no. */
export function kernelRefused(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(105, msg, options);
}

/** The kernel cannot do what the config needs. */
export function kernelFeatureMissing(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(106, msg, options);
}

/** CHECK found a difference; the message names it. */
export function checkFailed(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(107, msg, options);
}

/** The bridge has no room for a port. */
export function bridgeFull(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(108, msg, options);
}

/** A link of that name is of another kind. */
export function wrongLinkKind(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(109, msg, options);
}

/** The address store failed. */
export function storeFailure(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(110, msg, options);
}

/** The IPAM plugin could not be found or run, or answered nonsense. */
export function delegateFailed(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(111, msg, options);
}

/** Anything without a code of its own. */
export function internal(msg: string, options?: CniErrorOptions): CniError {
  return new CniError(999, msg, options);
}

/** Tells whether the error or one of its causes carries this errno name, such as `EEXIST`. */
export function hasCode(error: unknown, code: string): boolean {
  return causesOf(error).some((cause) => codeOf(cause) === code);
}

/**
 * Turns whatever was thrown into what the protocol prints. A `CniError` anywhere among the causes wins, with
 * the causes below it as details where it has none; an error that carries an errno is `kernelRefused`; a
 * plain `Error` is 999 with its own message; anything else (a TypeError, a thrown string) is a defect, and
 * says so.
 */
export function toCniError(error: unknown): CniError {
  const causes = causesOf(error);
  for (const [depth, cause] of causes.entries()) {
    if (cause instanceof CniError) return withDetails(cause, causes.slice(depth + 1));
  }
  const [top, ...below] = causes;
  if (!(top instanceof Error) || isDefect(causes)) return defect(causes);
  const details = joinMessages(below);
  const options = details === undefined ? { cause: top } : { details, cause: top };
  return causes.some(hasErrno) ? kernelRefused(top.message, options) : internal(top.message, options);
}

/** What the error and its causes say, outermost first; the details of a CniError come behind its message. */
export function errorChain(error: unknown): string[] {
  return causesOf(error).flatMap((cause) => {
    const message = cause instanceof Error ? describe(cause) : quote(cause);
    return cause instanceof CniError && cause.details ? [message, cause.details] : [message];
  });
}

/** A value as messages quote it: JSON, cut after 80 characters, whatever its size. */
export function quote(value: unknown): string {
  if (typeof value === 'string' && value.length > QUOTE_LIMIT) {
    return `${JSON.stringify(value.slice(0, QUOTE_LIMIT).toWellFormed())} (cut, ${value.length} characters)`;
  }
  const text = typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? String(value));
  // A cut string stays quoted; a cut object can't, so it ends in an ellipsis.
  return typeof value === 'string' || text.length <= QUOTE_LIMIT ? text : `${text.slice(0, QUOTE_LIMIT)}…`;
}

const QUOTE_LIMIT = 80;

// Far more than any chain we build: only a chain that bites its own tail gets there.
const CAUSE_LIMIT = 32;

// The error and its causes, outermost first. `using` wraps a failing disposal as SuppressedError: what
// happened first is in `suppressed`, and that is the one to report.
function causesOf(error: unknown): unknown[] {
  const causes: unknown[] = [];
  let next = error;
  do {
    if (next instanceof SuppressedError) next = next.suppressed;
    causes.push(next);
    next = next instanceof Error ? next.cause : undefined;
  } while (next !== undefined && causes.length < CAUSE_LIMIT);
  return causes;
}

function codeOf(cause: unknown): string | undefined {
  if (!(cause instanceof Error) || !('code' in cause)) return undefined;
  return typeof cause.code === 'string' ? cause.code : undefined;
}

// `ENOENT`, `E2BIG`; Node's own `ERR_INVALID_ARG_TYPE` has underscores and means that we called it wrongly.
function hasErrno(cause: unknown): boolean {
  const code = codeOf(cause);
  return code !== undefined && /^E[A-Z0-9]+$/.test(code);
}

// The built-in subclasses are thrown by the engine (or by Node, with an ERR_ code), not by our layers;
// SystemError and NetlinkError extend Error itself and carry an errno.
function isDefect(causes: readonly unknown[]): boolean {
  return causes.some(
    (cause) =>
      cause instanceof TypeError ||
      cause instanceof RangeError ||
      cause instanceof ReferenceError ||
      cause instanceof SyntaxError ||
      codeOf(cause)?.startsWith('ERR_'),
  );
}

function withDetails(error: CniError, below: readonly unknown[]): CniError {
  const details = error.details ?? joinMessages(below);
  if (details === undefined || details === error.details) return error;
  return new CniError(error.code, error.message, { details, cause: error.cause });
}

function defect(causes: readonly unknown[]): CniError {
  const [top] = causes;
  const what = top instanceof Error ? top.message : quote(top);
  const stack = causes.findLast((cause) => cause instanceof Error)?.stack;
  const details = [
    joinMessages(causes),
    stack
      ?.split('\n')
      .slice(1, 7)
      .map((line) => line.trim())
      .join('; '),
  ];
  return internal(`This is a defect of the plugin, please report it with the details: ${what}`, {
    details: details.filter((part) => part !== undefined && part !== '').join('; '),
    cause: top,
  });
}

function joinMessages(causes: readonly unknown[]): string | undefined {
  if (causes.length === 0) return undefined;
  return causes.map((cause) => (cause instanceof Error ? describe(cause) : quote(cause))).join(': ');
}

function describe(cause: Error): string {
  return cause.name === 'Error' || cause.name === 'CniError'
    ? cause.message
    : `${cause.name}: ${cause.message}`;
}
