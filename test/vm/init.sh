#!/bin/busybox sh
# The first process of the virtual machine: puts a writable layer over the host's files, and runs the tests there.
# run.ts packs it into the initramfs with busybox and the few modules that are needed to get so far.
/bin/busybox mkdir -p /proc /sys /dev /host /layer /new
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
die() { echo "test:vm: $1"; poweroff -f; }
for module in $(cat /modules/order); do insmod "/modules/$module" || die "cannot load $module"; done

options=trans=virtio,version=9p2000.L,msize=1048576
mount -t 9p -o "$options,ro,cache=loose" host /host || die 'cannot mount the files of the host'
mount -t tmpfs tmpfs /layer
mkdir -p /layer/files/usr/sbin /layer/files/usr/lib/modules /layer/work
cp /bin/busybox /layer/files/usr/sbin/modprobe
ln -s "$(cat /modules/tree)" "/layer/files/usr/lib/modules/$(uname -r)"
mount -t overlay -o lowerdir=/host,upperdir=/layer/files,workdir=/layer/work overlay /new ||
  die 'cannot make the files writable'
for moved in proc sys dev; do mount --move "/$moved" "/new/$moved"; done
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
for fresh in dev/shm run tmp; do mount -t tmpfs tmpfs "/new/$fresh"; done
mkdir -p /new/run/out
mount -t 9p -o "$options,cache=none" out /new/run/out || die 'cannot mount the folder for results'

# Not chroot: whoever enters a mount namespace comes out at its true root. The kernel's own threads share the root of this
# process, so that modprobe is found.
exec switch_root /new /bin/sh /run/out/tests.sh
