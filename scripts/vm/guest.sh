#!/usr/bin/env bash
# In the virtual machine of vm-check.sh: servers of NFS and CIFS, a swarm of one node, and what its tasks find.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
work=$(sed 's/.*flok.work=\([^ ]*\).*/\1/' /proc/cmdline)
flok=$(sed 's/.*flok.binary=\([^ ]*\).*/\1/' /proc/cmdline)
failed=''

off() {
  echo o >/proc/sysrq-trigger
  sleep 60
}

# check WHAT COMMAND...: tried until it holds, for two minutes.
check() {
  local what=$1 tries
  shift
  for tries in $(seq 60); do
    if "$@" >/dev/null 2>&1; then
      echo "ok: $what"
      return 0
    fi
    sleep 2
  done
  echo "NOT: $what"
  failed=1
}

surroundings() {
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
  ip link set lo up
  ip link add lan type dummy
  ip address add 10.9.0.1/24 dev lan
  ip link set lan up
  ip route add default via 10.9.0.254
  hostname vm
  local directory module
  for directory in /tmp /srv /var/lib/containerd /var/lib/flok /var/lib/nfs /var/lib/samba /var/cache/samba /var/log/samba; do
    mkdir -p $directory
    mount -t tmpfs tmpfs $directory
  done
  # An emulated processor takes its time for each.
  for module in nf_tables nft_chain_nat nft_masq nft_ct nf_conntrack vxlan veth bridge br_netfilter tun nfsd nfs cifs; do
    modprobe $module
  done
}

servers() {
  mkdir -p /srv/nfs /srv/cifs /var/lib/nfs/v4recovery /run/samba /var/lib/samba/private
  touch /var/lib/nfs/etab /var/lib/nfs/rmtab
  echo "from the server" >/srv/nfs/hello
  echo '/srv/nfs *(rw,no_root_squash,fsid=0,no_subtree_check)' >/etc/exports
  mount -t nfsd nfsd /proc/fs/nfsd
  exportfs -ra && rpc.mountd -N 3 && rpc.nfsd -N 3 -V 4 2
  printf '[global]\nsmb ports = 445\nload printers = no\n[share]\npath = /srv/cifs\nread only = no\n' >/tmp/smb.conf
  printf 'pass\npass\n' | smbpasswd -c /tmp/smb.conf -s -a root
  smbd -D -s /tmp/smb.conf
}

swarm() {
  containerd >/tmp/containerd.log 2>&1 &
  "$flok" daemon --data-dir /var/lib/flok >/tmp/flok.log 2>&1 &
  check "the daemon answers" "$flok" info
  "$flok" swarm init --advertise-addr 10.9.0.1 >/dev/null
  "$flok" image load -i "$work/images/busybox.tar"
}

# mounted NAME TYPE DEVICE OPTIONS: a service that writes to such a volume.
mounted() {
  local volume="type=volume,source=$1,target=/data,volume-opt=type=$2,volume-opt=device=$3,\"volume-opt=o=$4\""
  "$flok" service create --detach --name "$1" --mount "$volume" flok/busybox:latest \
    sh -c 'echo "from the task" >/data/back; trap exit TERM; while true; do sleep 1; done'
}

tells() { "$flok" service ps --no-trunc "$1" | grep -q "$2"; }
unmounted() { ! grep -q flok/volumes /proc/mounts; }
limit() { grep -rqx "$2" --include="$1" /sys/fs/cgroup; }
no_secret() { ! grep -q "password=pass" /tmp/flok.log; }

surroundings
servers
swarm
check "cgroup v2 is alone" eval "$flok info | grep -q 'Cgroup version: *2'"
"$flok" service create --detach --name limited --limit-memory 32m --limit-cpu 0.5 flok/busybox:latest sleep 1000
check "a limit of memory" limit memory.max 33554432
check "a limit of CPU" limit cpu.max "50000 100000"
mounted nfs nfs :/ addr=10.9.0.1,rw,nfsvers=4
check "a task writes to NFS" grep -q "from the task" /srv/nfs/back
mounted cifs cifs //10.9.0.1/share username=root,password=pass,vers=3.0
check "a task writes to CIFS" grep -q "from the task" /srv/cifs/back
mounted wrong cifs //10.9.0.1/share username=root,password=other,vers=3.0
check "a wrong password is told at the task" tells wrong "volume wrong: mount of //10.9.0.1/share as cifs: Permission denied"
mounted gone nfs :/none addr=10.9.0.1,nfsvers=4
check "an export that is not there is told at the task" tells gone "volume gone: mount of :/none as nfs"
"$flok" service rm limited nfs cifs wrong gone >/dev/null
check "nothing stays mounted" unmounted
check "no password is in the log" no_secret
if [ -z "$failed" ]; then
  echo "all is as it should be"
else
  tail -40 /tmp/flok.log
fi
off
