// Closing without waiting: for descriptors whose end takes the kernel longer than the program wants to live.
// netlink-socket.ts closes nf_tables sockets with it.
import { closeSync } from 'node:fs';
import { AF_UNIX, SOCK_DGRAM, sendDescriptors, socketpair } from './libc.ts';

/**
 * Closes a descriptor, and leaves it to the kernel to find the time for it. Where that fails it is closed at once.
 *
 * The end of an nf_tables socket waits until everything deleted on the host has been freed, by whomever: a grace period
 * of 10 to 20 ms, for nothing the caller has use for (net/netfilter/nf_tables_api.c, nft_rcv_nl_event). So the
 * descriptor is put in flight between two sockets, one of which is in flight within itself: nobody can ever receive
 * either, and the kernel collects such sockets in a worker of its own (net/unix/garbage.c). Before Linux 6.9 it did so
 * while closing; then the wait is what it always was.
 */
export function closeLater(fd: number): void {
  try {
    const [inFlight, sender] = socketpair(AF_UNIX, SOCK_DGRAM);
    try {
      sendDescriptors(sender, [fd, inFlight]);
    } finally {
      closeSync(sender);
      closeSync(inFlight);
    }
  } catch {
    // Too many descriptors in flight (unprivileged), or none left: what follows is the ordinary close.
  }
  closeSync(fd);
}
