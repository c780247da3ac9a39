// The kernel work of one verb and nothing else: the system calls that a plugin of ours made, in their order and with
// their bytes. CALLS names a file of C statements that translate.ts writes; limit.ts compiles one program for each verb.

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

// By the numbers that they had in the recording.
static int fd[256] = {0, 1, 2};
static unsigned char in[65536];
static struct statx stx;
static struct statfs stfs;
static char path[64];

// What differs from run to run, taken from the kernel's answers: link indexes as they are, the ruleset's generation.
static uint32_t host_index, sandbox_index, generation;

// A call that succeeded in the recording has to: what follows rests on it.
static long must(const char *call, long result) {
  if (result >= 0) return result;
  perror(call);
  _exit(1);
}

static const char *fd_path(int number) {
  snprintf(path, sizeof path, "/proc/self/fd/%d", number);
  return path;
}

// Of the first message received: struct nlmsghdr, then struct ifinfomsg, whose index is at 4.
static uint32_t link_index(void) {
  uint32_t index;
  memcpy(&index, in + 20, sizeof index);
  return index;
}

// Of a message NFT_MSG_NEWGEN: struct nlmsghdr, struct nfgenmsg, the header of NFTA_GEN_ID.
static uint32_t generation_id(void) {
  uint32_t id;
  memcpy(&id, in + 24, sizeof id);
  return id;
}

// One byte, with descriptors in flight beside it.
static void send_descriptors(int socket, int first, int second) {
  char byte = 0;
  struct iovec vector = {&byte, 1};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(2 * sizeof(int))];
  } control = {.header = {CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
  memcpy(CMSG_DATA(&control.header), (int[]){first, second}, 2 * sizeof(int));
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  must("sendmsg", sendmsg(socket, &message, 0));
}

static long receive(int socket, int flags) {
  struct sockaddr_nl from;
  socklen_t length = sizeof from;
  return recvfrom(socket, in, sizeof in, flags, (struct sockaddr *)&from, &length);
}

int main(void) {
  alarm(20);  // an answer that does not come would be waited for
#include CALLS
  _exit(0);
}
