// containerd on a private host, Debian's 1.6 or the pinned 2.x, with its clients ctr, crictl and nerdctl.
// Called by the tests of those and of the README.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { clientDirectory } from '../../build/tools.ts';
import { expectDone, type Finished, HOST_PATH } from './place.ts';
import { ARCHIVE, CLIENT_PATH, DISK, openRuntimeHost, type RuntimeHost } from './runtime-host.ts';
import { IMAGE, PAUSE_IMAGE } from './runtime-image.ts';

export interface Containerd extends AsyncDisposable {
  readonly host: RuntimeHost;
  /** `ctr <args>`; throws with everything it said when it fails. */
  ctr(...args: readonly string[]): Promise<string>;
  /** `crictl <args>`, likewise. */
  crictl(...args: readonly string[]): Promise<string>;
  /** `nerdctl <args>`, likewise. */
  nerdctl(...args: readonly string[]): Promise<string>;
  attemptNerdctl(...args: readonly string[]): Promise<Finished>;
  /** Starts the daemon, again after it was killed. */
  start(): Promise<void>;
}

export type Release = '1.6' | '2';

const SOCKET = '/run/containerd/containerd.sock';

/** The namespaces of containerd that the clients use; the image is loaded into each. */
const NAMESPACES = ['default', 'k8s.io'];

/** A host on which containerd runs and has the images. */
export async function openContainerd(release: Release, plugins?: string): Promise<Containerd> {
  const host = await openRuntimeHost(plugins);
  const path = release === '2' ? CLIENT_PATH : HOST_PATH;
  const run = (program: string, args: readonly string[]) =>
    host.attempt(program, args, { env: { PATH: path } });
  const done = async (program: string, args: readonly string[]) =>
    expectDone(await run(program, args)).stdout.trim();
  const nerdctl = join(clientDirectory(), 'nerdctl');
  mkdirSync(host.file(`${DISK}/log`));
  writeFileSync(host.file(`${DISK}/containerd.toml`), CONFIG[release]);
  writeFileSync(
    host.file('/etc/crictl.yaml'),
    `runtime-endpoint: unix://${SOCKET}\nimage-endpoint: unix://${SOCKET}\ntimeout: 60\n`,
  );
  mkdirSync(host.file('/etc/nerdctl'), { recursive: true });
  writeFileSync(host.file('/etc/nerdctl/nerdctl.toml'), NERDCTL);
  const opened: Containerd = {
    host,
    [Symbol.asyncDispose]: host.close,
    ctr: (...args) => done('ctr', args),
    crictl: (...args) => done(join(clientDirectory(), 'crictl'), args),
    nerdctl: (...args) => done(nerdctl, args),
    attemptNerdctl: (...args) => run(nerdctl, args),
    async start() {
      const program = release === '2' ? join(clientDirectory(), 'containerd') : '/usr/bin/containerd';
      const argv = [program, '--config', `${DISK}/containerd.toml`];
      await host.daemon('containerd', argv, { until: SOCKET, env: { PATH: path } });
    },
  };
  await opened.start();
  for (const namespace of NAMESPACES) await opened.ctr('-n', namespace, 'images', 'import', ARCHIVE);
  return opened;
}

/** The fields of CRI's PodSandboxConfig that tests set; the rest is made of the name. */
export interface PodConfig {
  readonly name: string;
  readonly port_mappings?: readonly {
    readonly container_port: number;
    readonly host_port: number;
    /** 0 is TCP, 1 UDP, 2 SCTP. */
    readonly protocol?: number;
  }[];
}

/** Starts a pod with the image of the tests in it, as kubelet does, and returns the pod's id. */
export async function runPod(
  host: RuntimeHost,
  crictl: Containerd['crictl'],
  config: PodConfig,
): Promise<string> {
  const { name } = config;
  const pod = {
    metadata: { name, namespace: 'default', uid: `uid-${name}`, attempt: 1 },
    hostname: name,
    log_directory: `${DISK}/log`,
    linux: {},
    ...config,
  };
  const container = {
    metadata: { name: 'web' },
    image: { image: IMAGE },
    command: ['serve'],
    log_path: `${name}.log`,
    linux: {},
  };
  const files = { pod: `${DISK}/${name}-pod.json`, container: `${DISK}/${name}-container.json` };
  writeFileSync(host.file(files.pod), JSON.stringify(pod));
  writeFileSync(host.file(files.container), JSON.stringify(container));
  const id = await crictl('runp', files.pod);
  const started = await crictl('create', id, files.container, files.pod);
  await crictl('start', started);
  return id;
}

const NERDCTL = `
data_root = "${DISK}/nerdctl"
cgroup_manager = "cgroupfs"
`;

const COMMON = `
root = "${DISK}/containerd"
state = "/run/containerd"
`;

const CONFIG: Readonly<Record<Release, string>> = {
  '1.6': `version = 2
${COMMON}
[plugins."io.containerd.internal.v1.opt"]
  path = "${DISK}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
`,
  '2': `version = 3
${COMMON}
[plugins."io.containerd.internal.v1.opt"]
  path = "${DISK}/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "${PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
`,
};
