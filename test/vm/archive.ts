// An initramfs: the cpio archive that a kernel unpacks into its first file system, in the format "newc".
// Written by run.ts; Documentation/driver-api/early-userspace/buffer-format.rst of the kernel describes it.

export interface ArchiveFile {
  /** Without a leading slash; its folders come before it in the archive. */
  readonly path: string;
  readonly mode: number;
  readonly content: Uint8Array;
}

const DIRECTORY = 0o40755;

/** The archive of these files and of the folders they are in. */
export function packArchive(files: readonly ArchiveFile[]): Buffer {
  const folders = new Set(files.flatMap(({ path }) => foldersOf(path)));
  const entries: ArchiveFile[] = [
    ...[...folders].map((path) => ({ path, mode: DIRECTORY, content: new Uint8Array(0) })),
    ...files.map((file) => ({ ...file, mode: 0o100000 | file.mode })),
    { path: 'TRAILER!!!', mode: 0, content: new Uint8Array(0) },
  ];
  return Buffer.concat(entries.flatMap(encodeEntry));
}

function foldersOf(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_part, index) => parts.slice(0, index + 1).join('/'));
}

/** Thirteen numbers of eight hexadecimal digits; name and content each fill up to a multiple of four bytes. */
function encodeEntry({ path, mode, content }: ArchiveFile, inode: number): Buffer[] {
  const name = Buffer.from(`${path}\0`);
  const numbers = [inode + 1, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = `070701${numbers.map((number) => number.toString(16).padStart(8, '0')).join('')}`;
  const head = Buffer.concat([Buffer.from(header), name]);
  return [head, padding(head.length), Buffer.from(content), padding(content.length)];
}

function padding(length: number): Buffer {
  return Buffer.alloc(-length & 3);
}
