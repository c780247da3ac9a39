// Starts a command that inherits open nfnetlink sockets of the namespace it is started in. Called by code-cache.ts for
// programs under user emulation: qemu does not open such sockets, but what it is given it uses like any other.
import { spawnSync } from 'node:child_process';
import { AF_NETLINK, SOCK_RAW, socket } from '../shared/linux/libc.ts';
import { NETLINK_NETFILTER } from '../shared/linux/netlink-socket.ts';
import { LENT } from './emulated-calls.ts';

if (import.meta.main) {
  const [program = '', ...args] = process.argv.slice(2);
  const sockets = Array.from({ length: LENT }, () => socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER));
  const { status, error } = spawnSync(program, args, {
    stdio: ['inherit', 'inherit', 'inherit', ...sockets],
  });
  if (error !== undefined) throw error;
  process.exitCode = status ?? 1;
}
