// Runs tests on Debian's own kernel, in a virtual machine: `npm run test:vm [-- vitest options]`. For what the kernel of a
// development machine lacks, VLAN filtering above all; minutes, since everything is emulated, so no part of `npm test`.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { count, report, type VitestReport } from '../../build/test.ts';
import { setUpTools } from '../../build/tools.ts';
import { packArchive } from './archive.ts';
import { fetchKernel, type Kernel, listModules } from './kernel.ts';

const ROOT = join(import.meta.dirname, '../..');
/** Where the machine leaves what vitest found. */
const RESULTS = join(ROOT, '.cache/vm-results');
const LIMIT_MS = 60 * 60_000;

/** What runs unless something else is asked for: what needs this kernel, and every layer below once more. */
const TESTS = ['test/binary/bridge-vlan.test.ts', 'test/kernel/'];

/** Enough to see the host's files, and a writable layer over them. */
const FIRST_MODULES = ['virtio_pci', '9pnet_virtio', '9p', 'overlay'];
/** What the kernel does not load by itself when it is asked for a table, a link or an expression. */
const TEST_MODULES = [
  'bridge',
  'br_netfilter',
  'veth',
  '8021q',
  'dummy',
  'nf_conntrack',
  'nf_tables',
  'nfnetlink',
];

setUpTools([
  { program: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86', purpose: 'the virtual machine' },
  { program: 'busybox', debianPackage: 'busybox-static', purpose: 'its first process' },
]);
process.exitCode = await main(process.argv.slice(2));

async function main(options: readonly string[]): Promise<number> {
  const kernel = fetchKernel();
  rmSync(RESULTS, { recursive: true, force: true });
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(join(RESULTS, 'tests.sh'), testScript(options.length > 0 ? options : TESTS));
  writeFileSync(join(RESULTS, 'initramfs'), initramfs(kernel));
  console.log(`Booting Linux ${kernel.version} …`);
  const start = Date.now();
  await boot(kernel);
  console.log(
    `The machine ran for ${Math.round((Date.now() - start) / 1000)} s with Linux ${kernel.version}`,
  );
  const file = join(RESULTS, 'vitest.json');
  if (!existsSync(file)) return report([{ passed: 0, failed: 1, skipped: 0 }]);
  return report([count(JSON.parse(readFileSync(file, 'utf8')) as VitestReport)]);
}

async function boot(kernel: Kernel): Promise<void> {
  const machine = ['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '8192', '-no-reboot'];
  const console_ = ['-nodefaults', '-display', 'none', '-serial', 'stdio', '-device', 'virtio-rng-pci'];
  const share = (path: string, tag: string, more = '') => [
    '-virtfs',
    `local,path=${path},mount_tag=${tag},security_model=none,multidevs=remap${more}`,
  ];
  const system = ['-kernel', kernel.image, '-initrd', join(RESULTS, 'initramfs')];
  const append = ['-append', 'console=ttyS0 quiet panic=-1 mitigations=off no_timer_check'];
  const shares = [...share('/', 'host', ',readonly=on'), ...share(RESULTS, 'out')];
  const qemu = spawn('qemu-system-x86_64', [...machine, ...console_, ...system, ...append, ...shares], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const timer = setTimeout(() => qemu.kill(), LIMIT_MS);
  await once(qemu, 'exit');
  clearTimeout(timer);
}

function initramfs(kernel: Kernel): Buffer {
  const modules = listModules(kernel, FIRST_MODULES);
  const busybox = spawnSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).stdout.trim();
  const order = modules.map((path) => basename(path)).join('\n');
  return packArchive([
    { path: 'init', mode: 0o755, content: readFileSync(join(import.meta.dirname, 'init.sh')) },
    { path: 'bin/busybox', mode: 0o755, content: readFileSync(busybox) },
    { path: 'modules/order', mode: 0o644, content: Buffer.from(`${order}\n`) },
    { path: 'modules/tree', mode: 0o644, content: Buffer.from(kernel.modules) },
    ...modules.map((path) => ({
      path: `modules/${basename(path)}`,
      mode: 0o644,
      content: readFileSync(path),
    })),
  ]);
}

/** Slow is no failure in there: a process takes twenty times as long to start. */
function testScript(options: readonly string[]): string {
  const quoted = options.map((option) => `'${option.replaceAll("'", "'\\''")}'`).join(' ');
  return `
    export PATH='${ROOT}/node_modules/.bin':/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PATCHBAY_VM=1
    cd '${ROOT}'
    for module in ${TEST_MODULES.join(' ')}; do modprobe $module; done
    ip link set lo up
    vitest run --project=kernel --project=binary --reporter=verbose --reporter=json --no-color \
      --outputFile.json=/run/out/vitest.json --testTimeout=900000 --hookTimeout=900000 ${quoted} </dev/null 2>&1 | cat
    sync
    echo o >/proc/sysrq-trigger
    while :; do :; done
  `;
}
