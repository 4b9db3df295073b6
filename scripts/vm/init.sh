#!/bin/busybox sh
# The first process of the virtual machine of vm-check.sh: the host's files, read-only, below a file system in memory.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod "$module"; done
work=$($b sed 's/.*flok.work=\([^ ]*\).*/\1/' /proc/cmdline)
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose root /host
$b mount -t tmpfs -o size=2g tmpfs /memory
$b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sysfs /root/sys
$b mount -t devtmpfs devtmpfs /root/dev
$b mount -t tmpfs tmpfs /root/run
$b mkdir -p /root/lib/modules
$b mount --bind "/host$work/kernel/lib/modules" /root/lib/modules
exec $b switch_root -c /dev/console /root /bin/bash "$work/guest.sh"
