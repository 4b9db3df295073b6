#!/usr/bin/env bash
# What this machine's kernel may not have, checked on Debian's own kernel in a virtual machine: cgroup v2 alone, limits in it, and
# volumes that NFS and CIFS servers hold.
#
# usage: scripts/vm-check.sh [BINARY]
#   BINARY  flok's, built if it is not given
#
# The machine has no network and this one's files, read-only, below a file system in memory: nothing here is changed but for the
# packages that are installed, and a directory of 500 MB that goes again. Without /dev/kvm, or where it does not work (ACCEL=tcg
# says so), processors are emulated: about ten minutes.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
[ "${1:-}" != --help ] || { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"; exit 0; }
need_root "checking on another kernel"
need qemu-system-x86_64 modprobe cpio /bin/busybox exportfs smbd containerd runc nft ip

binary=${1:-}
if [ -z "$binary" ]; then
  need_rust
  (cd "$REPO" && cargo build --locked)
  binary=${CARGO_TARGET_DIR:-$REPO/target}/debug/flok
fi
binary=$(realpath "$binary")
work=$(mktemp -d /var/tmp/flok-vm.XXXXXX)
trap 'rm -rf "$work"' EXIT
"$REPO/docker/images.sh" "$work/images"

say "a kernel"
image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image\)/\1/p')
(cd "$work" && apt-get -qq download "$image" && dpkg -x "$image"_*.deb kernel && rm ./*.deb)
version=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$version"

# First a file system of this machine's files, then the guest's script in it.
mkdir -p "$work"/initrd/{bin,dev,proc,sys,host,memory,root,modules}
cp /bin/busybox "$work/initrd/bin/"
for module in virtio_pci 9p 9pnet_virtio overlay; do
  modprobe -d "$work/kernel" -S "$version" --show-depends "$module"
done | awk '/^insmod/ && !seen[$2]++ { print $2 }' >"$work/modules"
number=100
while read -r module; do
  cp "$module" "$work/initrd/modules/$((number++))"
done <"$work/modules"
cp "$REPO/scripts/vm/init.sh" "$work/initrd/init"
cp "$REPO/scripts/vm/guest.sh" "$work/guest.sh"
(cd "$work/initrd" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"

say "a virtual machine"
accel=(-accel kvm -accel tcg)
[ -z "${ACCEL:-}" ] || accel=(-accel "$ACCEL")
timeout 1800 qemu-system-x86_64 "${accel[@]}" -cpu max -smp 2 -m 4096 -nodefaults -display none -no-reboot \
  -serial stdio -monitor none -kernel "$work/kernel/boot/vmlinuz-$version" -initrd "$work/initrd.gz" \
  -append "console=ttyS0 quiet panic=1 flok.work=$work flok.binary=$binary" \
  -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap | tee "$work/told"
grep -q "^all is as it should be" "$work/told" || die "something is not: see above"
