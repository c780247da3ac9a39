// podman with its CNI backend, on a private host. Called by the tests of podman and of the README.
import { mkdirSync, writeFileSync } from 'node:fs';
import { expectDone, type Finished } from './place.ts';
import { ARCHIVE, DISK, openRuntimeHost, type RuntimeHost } from './runtime-host.ts';

export interface Podman extends AsyncDisposable {
  readonly host: RuntimeHost;
  /** `podman <args>`; throws with everything it said when it fails. */
  podman(...args: readonly string[]): Promise<string>;
  /** The same, whatever comes of it. */
  attempt(...args: readonly string[]): Promise<Finished>;
}

// The first names this file alone, without those of the distribution.
const ENV = {
  CONTAINERS_CONF: '/etc/containers/containers.conf',
  CONTAINERS_STORAGE_CONF: `${DISK}/storage.conf`,
};

// The limits are those that a process may have which lacks CAP_SYS_RESOURCE, as in many virtual machines.
const CONF = `
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${DISK}/podman-tmp"
`;

/** What a user has to say to have podman use CNI. */
const NETWORK = `
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
`;

const STORAGE = `
[storage]
driver = "overlay"
graphroot = "${DISK}/podman"
runroot = "${DISK}/podman-run"
`;

/** A host on which podman has loaded the image; its configuration says nothing of CNI where `network` is `unset`. */
export async function openPodman(plugins?: string, network: 'set' | 'unset' = 'set'): Promise<Podman> {
  const host = await openRuntimeHost(plugins);
  mkdirSync(host.file('/etc/containers'), { recursive: true });
  writeFileSync(host.file(ENV.CONTAINERS_CONF), network === 'set' ? CONF + NETWORK : CONF);
  writeFileSync(host.file(ENV.CONTAINERS_STORAGE_CONF), STORAGE);
  const attempt = (...args: readonly string[]) => host.attempt('podman', args, { env: ENV });
  const podman = async (...args: readonly string[]) => expectDone(await attempt(...args)).stdout.trim();
  await podman('load', '-q', '-i', ARCHIVE);
  return { host, podman, attempt, [Symbol.asyncDispose]: host.close };
}
