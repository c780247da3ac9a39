// What an address file says: who holds the address. The bytes are those of the reference plugins, see docs/store-format.md.
// Pure; used by store.ts, which reads and writes the files.

/** Who asks: one interface of one container. The network is the directory the files are in. */
export interface Holder {
  readonly containerId: string;
  readonly ifname: string;
}

/** Who a file names. Very old releases wrote the container id alone; such a file stands for every ifname. */
export interface RecordedHolder {
  readonly containerId: string;
  readonly ifname: string | undefined;
}

/** Container id, CR LF, ifname, and nothing after it. */
export function encodeRecord(holder: Holder): Buffer {
  return Buffer.from(`${holder.containerId}${SEPARATOR}${holder.ifname}`, 'utf8');
}

/**
 * The holder a file's bytes name, or undefined when they name nobody: empty, cut after CR or CR LF, zeros where a
 * power cut took the data. A file cut inside the container id can't be told from a very old one, and is read as such.
 */
export function decodeRecord(bytes: Uint8Array): RecordedHolder | undefined {
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  if (/^\S+\r\n?$/.test(raw)) return undefined;
  const [containerId = '', ...rest] = raw.trim().split(SEPARATOR);
  if (!CONTAINER_ID.test(containerId) || rest.length > 1) return undefined;
  const [ifname] = rest;
  return ifname === undefined || IFNAME.test(ifname) ? { containerId, ifname } : undefined;
}

/** Whether two records, or a record and who asks, name the same holder. */
export function isSameHolder(a: RecordedHolder, b: RecordedHolder): boolean {
  return a.containerId === b.containerId && a.ifname === b.ifname;
}

const SEPARATOR = '\r\n';

// CNI SPEC, section 2 "CNI_CONTAINERID".
const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

// dev_valid_name() in net/core/dev.c; the length counts bytes there, and a longer name can't have been written.
const IFNAME = /^[^\s/:\0]{1,15}$/;
