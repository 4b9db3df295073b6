# Shared by the scripts beside it: messages, root, packages, the toolchain. Sourced, not run.
# shellcheck shell=bash

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  warn "$*"
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || die "$1 needs root (network namespaces, mounts, containerd): run it with sudo, or as root"
}

# Debian packages by the command that shows whether they are there.
packages_of() {
  case $1 in
    containerd) echo containerd ;;
    runc) echo runc ;;
    nft) echo nftables ;;
    ip) echo iproute2 ;;
    protoc) echo protobuf-compiler libprotobuf-dev ;;
    cc) echo gcc libc6-dev ;;
    curl) echo curl ca-certificates ;;
    nsenter | unshare | setsid) echo util-linux ;;
    ps) echo procps ;;
    zstd) echo zstd ;;
    openssl) echo openssl ;;
    mkfs.ext4) echo e2fsprogs ;;
    systemd-analyze) echo systemd ;;
    git) echo git ;;
    skopeo) echo skopeo ;;
    # Its command only: Debian's daemon comes along and is not started.
    docker) echo docker.io ;;
    /usr/lib/*/faketime/libfaketime.so.1) echo libfaketime ;;
    docker-registry) echo docker-registry ;;
    qemu-system-x86_64) echo qemu-system-x86 ;;
    modprobe) echo kmod ;;
    cpio) echo cpio ;;
    exportfs) echo nfs-kernel-server ;;
    smbd) echo samba ;;
    /bin/busybox) echo busybox-static ;;
    redis-server) echo redis-server ;;
    /usr/lib/postgresql/15/bin/postgres) echo postgresql-15 ;;
    nginx) echo nginx-light ;;
    ufw) echo ufw ;;
    firewalld) echo firewalld dbus ;;
    /usr/lib/python3.11/ensurepip) echo python3-venv ;;
    *) die "no package is known for $1" ;;
  esac
}

# need COMMAND...: installs the packages of those that are missing. Services that come along are not started.
need() {
  local command missing=()
  for command in "$@"; do
    # shellcheck disable=SC2207
    [[ $command == /* && -e $command ]] || PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=($(packages_of "$command"))
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; this is no Debian, so install what they stand for and run this again"
  need_root "installing ${missing[*]}"
  say "installing ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d made=''
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    made=1
  fi
  local failed=''
  { DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null; } || failed=1
  [ -z "$made" ] || rm -f $policy
  [ -z "$failed" ] || die "apt could not install ${missing[*]}: see above"
}

# The toolchain that Cargo.toml asks for.
need_rust() {
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
  # shellcheck disable=SC1091
  [ ! -e "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  command -v cargo >/dev/null || die "Rust $wanted or newer is needed and cargo is not on the path.
  Debian's own is too old; get it from https://rustup.rs:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env"
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] ||
    die "Rust $wanted or newer is needed, this is $have: rustup update stable"
}

# What flok needs of the kernel, tried in namespaces of its own. Prints what is missing.
kernel_lacks() {
  local probe=flok-probe-$$
  ip netns add $probe 2>/dev/null || { echo "network namespaces (CONFIG_NET_NS, CAP_SYS_ADMIN)"; return; }
  ip -n $probe link add name veth0 type veth peer name veth1 2>/dev/null || echo "veth (CONFIG_VETH)"
  ip -n $probe link add name br0 type bridge 2>/dev/null || echo "bridge (CONFIG_BRIDGE)"
  ip netns exec $probe nft 'add table ip t; add chain ip t c { type nat hook postrouting priority 100 ; }; add rule ip t c masquerade' 2>/dev/null ||
    echo "nftables NAT (CONFIG_NFT_NAT, CONFIG_NFT_MASQ)"
  ip netns del $probe
  unshare --pid --mount --fork true 2>/dev/null || echo "PID and mount namespaces (CONFIG_PID_NS)"
  grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || echo "overlayfs (CONFIG_OVERLAY_FS)"
}

need_kernel() {
  local lacks
  lacks=$(kernel_lacks)
  [ -z "$lacks" ] || die "this kernel ($(uname -r)) or container does not offer what flok needs:
  - ${lacks//$'\n'/$'\n'  - }
  On a virtual machine or on bare metal with Debian's kernel all of it is there."
}
