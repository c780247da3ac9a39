// Makes a Node binary deaf to the environment variables that change what a program does, load code into it or write
// files for it. Called by package.ts on the stripped Node binary; docs/security.md says what each of them would do.

/** Read by Node's C++ code and its libraries, through getenv. */
export const UNREAD_VARIABLES = [
  'NODE_DEBUG_NATIVE',
  'NODE_EXTRA_CA_CERTS',
  'NODE_ICU_DATA',
  'NODE_PENDING_DEPRECATION',
  'NODE_PRESERVE_SYMLINKS',
  'NODE_PRESERVE_SYMLINKS_MAIN',
  'NODE_REDIRECT_WARNINGS',
  'NODE_REPL_EXTERNAL_MODULE',
  'NODE_USE_ENV_PROXY',
  'NODE_USE_SYSTEM_CA',
  'NODE_V8_COVERAGE',
  'CTLOG_FILE',
  'ICU_TIMEZONE_FILES_DIR',
  'OPENSSL_CONF',
  'OPENSSL_CONF_INCLUDE',
  'OPENSSL_ENGINES',
  'OPENSSL_MODULES',
  'QLOGDIR',
  'SSL_CERT_DIR',
  'SSL_CERT_FILE',
  'UV_THREADPOOL_SIZE',
  'UV_USE_IO_URING',
] as const;

/** Read by Node's own JavaScript while it starts, as properties of `process.env`. */
export const RENAMED_VARIABLES = [
  'NODE_CHANNEL_FD',
  'NODE_COMPILE_CACHE',
  'NODE_DEBUG',
  'NODE_UNIQUE_ID',
] as const;

/**
 * Returns a copy of a Node binary in which none of these variables is looked for.
 *
 * A name that C++ asks for becomes the empty string: getenv knows no variable of that name. A name in JavaScript
 * cannot be empty, so its last letter changes, in the source, the snapshot and the code cache alike. Throws an Error
 * when a name is not found as expected: a new release of Node has to stop the build, not to start listening again.
 *
 * Source: getenv(3); V8's src/snapshot/serializer.cc for the strings of the snapshot.
 */
export function hardenEnvironment(image: Buffer): Buffer {
  const hardened = Buffer.from(image);
  for (const name of UNREAD_VARIABLES) empty(hardened, name);
  for (const name of RENAMED_VARIABLES) rename(hardened, name);
  return hardened;
}

function empty(image: Buffer, name: string): void {
  const literals = [...occurrences(image, `\0${name}\0`)]
    .map((at) => at + 1)
    .filter((at) => !isHeapString(image, at, name));
  const [at] = literals;
  if (at === undefined || literals.length > 1) {
    throw new Error(`Node has ${literals.length} literals "${name}" instead of one`);
  }
  image[at] = 0;
}

// In the snapshot a string follows its length, a little-endian word whose last byte is 0 as well.
function isHeapString(image: Buffer, at: number, name: string): boolean {
  return image.readUInt32LE(at - 4) === name.length;
}

function rename(image: Buffer, name: string): void {
  const substitute = `${name.slice(0, -1)}_`;
  let count = 0;
  for (const at of occurrences(image, name)) {
    if (isIdentifier(image[at - 1]) || isIdentifier(image[at + name.length])) continue;
    image.write(substitute, at, 'latin1');
    count++;
  }
  if (count === 0) throw new Error(`Node does not know the variable "${name}"`);
}

function* occurrences(image: Buffer, text: string): Generator<number> {
  const bytes = Buffer.from(text, 'latin1');
  for (let at = image.indexOf(bytes); at !== -1; at = image.indexOf(bytes, at + 1)) yield at;
}

function isIdentifier(byte: number | undefined): boolean {
  return byte !== undefined && /[A-Za-z0-9_$]/.test(String.fromCharCode(byte));
}
