# Hosts on one machine, for the quickstart and for measurements. Sourced, not run; needs scripts/lib.sh.
# shellcheck shell=bash
#
# A host is a network, mount, PID, UTS and IPC namespace with a /run of its own, on a bridge that stands in a
# namespace of its own. Nothing is changed on the machine itself, and nothing of it can be reached from outside.
#
# Set before: HOSTS_NAME (at most 8 letters), HOSTS_DIR, HOSTS_NET (10.98.0), FLOK (the binary).

hosts_switch() { echo "$HOSTS_NAME-sw"; }
host_address() { echo "$HOSTS_NET.$1"; }
host_dir() { echo "$HOSTS_DIR/n$1"; }

hosts_up() {
  mkdir -p "$HOSTS_DIR"
  local switch
  switch=$(hosts_switch)
  [ -e "/run/netns/$switch" ] && return 0
  ip netns add "$switch"
  ip -n "$switch" link add br0 type bridge
  ip -n "$switch" link set br0 up
  ip -n "$switch" link set lo up
  ip -n "$switch" addr add "$HOSTS_NET.254/24" dev br0
}

host_is_up() { [ -e "$(host_dir "$1")/pid" ] && kill -0 "$(cat "$(host_dir "$1")/pid")" 2>/dev/null; }

# host_boot N: makes the namespaces and starts pid 1, which only reaps.
host_boot() {
  local n=$1 name="$HOSTS_NAME-n$1" link="${HOSTS_NAME}v$1" dir switch
  dir=$(host_dir "$n")
  switch=$(hosts_switch)
  ! host_is_up "$n" || return 0
  mkdir -p "$dir/data"
  ip netns del "$name" 2>/dev/null || true
  ip -n "$switch" link del "$link" 2>/dev/null || true
  ip netns add "$name"
  ip link add "$link" netns "$switch" type veth peer name eth0 netns "$name"
  ip -n "$switch" link set "$link" master br0 up
  ip -n "$name" addr add "$(host_address "$n")/24" dev eth0
  ip -n "$name" link set lo up
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default via "$HOSTS_NET.254"
  rm -f "$dir/up"
  # By nsenter, for `ip netns exec` mounts a /sys without cgroups.
  # shellcheck disable=SC2016
  setsid nsenter "--net=/run/netns/$name" unshare --mount --pid --uts --ipc --fork --kill-child bash -c '
    mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t proc proc /proc &&
    hostname "$0" && touch "$1/up" && while :; do sleep 1000 & wait -n; done' "n$n" "$dir" </dev/null >"$dir/boot.log" 2>&1 &
  local unshare=$! tries=0
  until [ -e "$dir/up" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || die "host n$n did not start: $(cat "$dir/boot.log")"
    sleep 0.1
  done
  tr -d ' \n' <"/proc/$unshare/task/$unshare/children" >"$dir/pid"
}

# host N COMMAND...: runs it on the host.
host() {
  local dir
  dir=$(host_dir "$1")
  shift
  nsenter -t "$(cat "$dir/pid")" -m -p -n -u -i -- "$@"
}

# host_daemon N: starts the daemon and waits until it answers.
host_daemon() {
  local n=$1 dir tries=0
  dir=$(host_dir "$n")
  ! host_flok "$n" version >/dev/null 2>&1 || return 0
  host "$n" setsid "$FLOK" daemon --data-dir "$dir/data" --socket "$dir/flok.sock" \
    --listen-addr "$(host_address "$n")" </dev/null >>"$dir/daemon.log" 2>&1 &
  until host_flok "$n" version >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 150 ] || die "the daemon on n$n does not answer; its log ends with:
$(tail -20 "$dir/daemon.log")"
    sleep 0.2
  done
}

# host_flok N ARGS...: the flok command on the host.
host_flok() {
  local n=$1 dir
  dir=$(host_dir "$n")
  shift
  host "$n" "$FLOK" --host "unix://$dir/flok.sock" "$@"
}

# host_die N: as a power cut: link down, every process gone at once. What is on its disk stays.
host_die() {
  local n=$1 dir
  dir=$(host_dir "$n")
  ip -n "$(hosts_switch)" link set "${HOSTS_NAME}v$n" down 2>/dev/null || true
  ! host_is_up "$n" || kill -KILL "$(cat "$dir/pid")"
  local tries=0
  while host_is_up "$n" && [ $tries -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  # Hosts share the machine's cgroups, which a real machine would lose with its power.
  local task
  for task in "$dir"/data/containerd/state/io.containerd.runtime.v2.task/flok/*; do
    [ -d "$task" ] || continue
    rmdir /sys/fs/cgroup/{,*/}flok/"${task##*/}" 2>/dev/null || true
  done
  rm -f "$dir/pid" "$dir/flok.sock"
  ip netns del "$HOSTS_NAME-n$n" 2>/dev/null || true
}

hosts_down() {
  local dir
  for dir in "$HOSTS_DIR"/n*; do
    [ -d "$dir" ] || continue
    host_die "${dir##*/n}"
  done
  ip netns del "$(hosts_switch)" 2>/dev/null || true
  rm -rf "$HOSTS_DIR"
}
