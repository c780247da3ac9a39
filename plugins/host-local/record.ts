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
 * The holder a file's text names, or undefined when it names nobody: empty, cut after CR or CR LF, zeros where a power
 * cut took the data. A file cut inside the container id can't be told from a very old one, and is read as such.
 */
export function decodeRecord(text: string): RecordedHolder | undefined {
  const [, containerId, ifname] = RECORD.exec(text) ?? [];
  if (containerId === undefined || (ifname === undefined && /\r\n?$/.test(text))) return undefined;
  return { containerId, ifname };
}

/** Whether two records, or a record and who asks, name the same holder. */
export function isSameHolder(a: RecordedHolder, b: RecordedHolder): boolean {
  return a.containerId === b.containerId && a.ifname === b.ifname;
}

const SEPARATOR = '\r\n';

// With white space around it, which the reference trims. The container id is that of CNI SPEC, section 2; the ifname
// that of dev_valid_name() in net/core/dev.c, where the length counts bytes, and a longer name can't have been written.
const RECORD = /^\s*([a-zA-Z0-9][a-zA-Z0-9_.-]*)(?:\r\n([^\s/:\0]{1,15}))?\s*$/;
