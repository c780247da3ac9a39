// What the figures of a benchmark were taken on: machine, kernel, tools, and our version.
// Called by bench.ts and scale/scale.ts.
import { readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

/** By what it is, in the order in which it is printed. `directory` holds our executables. */
export async function describeMachine(directory: string): Promise<Record<string, string>> {
  const { stdout: kernel } = await execa('uname', ['-sr']);
  const { stdout: iptables } = await execa('iptables', ['--version']);
  const { stdout: nft } = await execa('nft', ['--version']);
  const { stderr: banner } = await execa(join(directory, 'bridge'), {
    env: {},
    extendEnv: false,
    reject: false,
  });
  const distribution = /^PRETTY_NAME="?(.*?)"?$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  return {
    machine: `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}, ${Math.round(totalmem() / 1e9)} GB`,
    system: `${distribution ?? 'unknown'}, ${kernel}`,
    tools: `${iptables}, ${nft}, node ${process.versions.node}`,
    ours: [banner.split('\n')[0] ?? '', /^Patchbay .*$/m.exec(banner)?.[0] ?? ''].filter(Boolean).join(', '),
  };
}
