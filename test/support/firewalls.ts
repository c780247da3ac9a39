// Other people's firewalls on a private host: a Docker daemon, firewalld on a system bus of its own.
// Used by the tests of the firewall plugin beside them; the daemons die with the host.
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { HOST_PATH } from './place.ts';
import type { PrivateHost } from './private-host.ts';

/**
 * Starts dockerd with its iptables on and returns once it answers. It lets FORWARD drop where it has switched forwarding on
 * itself, as it does when the machine starts.
 */
export async function startDocker(host: PrivateHost): Promise<void> {
  await host.shell('mkdir -p /run/docker-data; sysctl -qw net.ipv4.ip_forward=0');
  const said = start(host, 'dockerd', ['--data-root', '/run/docker-data', '-H', 'unix:///run/docker.sock']);
  await until(host, 'docker -H unix:///run/docker.sock version', said);
}

/** Starts a system bus and firewalld on it and returns once firewalld has written its rules. */
export async function startFirewalld(host: PrivateHost): Promise<void> {
  await host.shell('mkdir -p /run/dbus && dbus-daemon --system --fork --nopidfile');
  const said = start(host, 'firewalld', ['--nofork', '--nopid']);
  await until(host, 'firewall-cmd --state', said);
}

function start(host: PrivateHost, program: string, args: readonly string[]): () => string {
  const [entering, more] = host.entering(program, args);
  const daemon = spawn(entering, more, { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: HOST_PATH } });
  let said = '';
  for (const stream of [daemon.stdout, daemon.stderr]) {
    stream.on('data', (chunk) => {
      said += chunk;
    });
  }
  return () => said;
}

async function until(host: PrivateHost, question: string, said: () => string): Promise<void> {
  for (const deadline = Date.now() + 60_000; ; await delay(100)) {
    const { exitCode } = await host.attempt('bash', ['--norc', '-c', question]);
    if (exitCode === 0) return;
    if (Date.now() > deadline) throw new Error(`"${question}" has no answer: ${said().slice(-2000)}`);
  }
}
