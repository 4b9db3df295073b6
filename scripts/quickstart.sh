#!/usr/bin/env bash
# A swarm of three nodes on this machine, serving the example stack. Needs root on a Debian 12.
#
# usage: scripts/quickstart.sh [up] [--debug]   builds, starts the swarm, deploys the example (again, if it runs already)
#        scripts/quickstart.sh flok ARGS...     the flok command, on node n1
#        scripts/quickstart.sh shell [N]        a shell on node nN, with flok on the path
#        scripts/quickstart.sh kill N           power cut of node nN
#        scripts/quickstart.sh boot N           switches it on again
#        scripts/quickstart.sh down             ends the swarm and removes everything it made
#   --debug  a debug build: ready sooner, slower at work
#
# Each node is a set of namespaces with a daemon, containerd and data directory of its own: nothing listens outside, and
# nothing on the machine is changed but for missing packages. FLOK_BIN names a binary that is built already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hosts.sh"

export PATH=$PATH:/usr/sbin:/sbin
NODES=3
HOSTS_NAME=flokqs
HOSTS_NET=10.98.0
HOSTS_DIR=${FLOK_QUICKSTART_DIR:-/var/lib/flok-quickstart}
FLOK=${FLOK_BIN:-}
profile=release
IMAGES=(voting redis postgres whoami)

build() {
  if [ -n "$FLOK" ]; then
    [ -x "$FLOK" ] || die "FLOK_BIN=$FLOK is no program"
    FLOK=$(realpath "$FLOK")
    return
  fi
  need_rust
  need protoc cc
  say "building flok ($profile); the first time takes some minutes"
  local flags=(--locked --bin flok)
  [ $profile = debug ] || flags+=(--release)
  (cd "$REPO" && cargo build "${flags[@]}")
  local built=${CARGO_TARGET_DIR:-$REPO/target}/$profile/flok
  # A copy: a later build must not pull the binary from under daemons that run.
  mkdir -p "$HOSTS_DIR"
  cp "$built" "$HOSTS_DIR/flok.new"
  mv "$HOSTS_DIR/flok.new" "$HOSTS_DIR/flok"
  FLOK=$HOSTS_DIR/flok
}

# The binary that the swarm was started with.
built() {
  [ -n "$FLOK" ] || FLOK=$HOSTS_DIR/flok
  host_is_up 1 || host_is_up 2 || die "no swarm runs here: start it with $0"
}

images() {
  need_rust
  need cc
  "$REPO/docker/images.sh" "$HOSTS_DIR/images" "${IMAGES[@]}"
}

swarm() {
  local n token
  say "starting $NODES nodes"
  hosts_up
  for n in $(seq $NODES); do
    host_boot "$n"
    host_daemon "$n"
  done
  host_flok 1 node ls >/dev/null 2>&1 || host_flok 1 swarm init >/dev/null
  token=$(host_flok 1 swarm join-token --quiet manager)
  for n in $(seq 2 $NODES); do
    host_flok "$n" node ls >/dev/null 2>&1 || host_flok "$n" swarm join --token "$token" "$(host_address 1)"
  done
  host_flok 1 node ls
}

deploy() {
  local n image
  say "deploying config/examples/voting.yml"
  for n in $(seq $NODES); do
    for image in "${IMAGES[@]}"; do
      host_flok "$n" image load --input "$HOSTS_DIR/images/$image.tar" >/dev/null
    done
  done
  host_flok 1 stack deploy --stable-for 1s -c "$REPO/config/examples/voting.yml" vote
  host_flok 1 stack ps vote
}

# asks N URL ARGS...: what n N gets there, once it gets something.
asks() {
  local n=$1 tries=0
  shift
  until host "$n" curl -fsS --max-time 2 "$@" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || die "n$n gets no answer from $1: $0 flok stack ps vote"
    sleep 0.5
  done
}

# Votes come in by one node, and are counted on the page that another one shows.
show() {
  local n choice tries=0 counts=''
  say "each node takes votes"
  for n in $(seq $NODES); do
    choice=cats
    [ "$n" != 2 ] || choice=dogs
    echo "http://$(host_address "$n"):5000  $(asks 1 "http://$(host_address "$n"):5000/" -d "voter=n$n&choice=$choice")"
  done
  until [[ $counts = '{"cats":2,"dogs":1}' ]]; do
    counts=$(asks 1 "http://$(host_address $NODES):5001/results")
    tries=$((tries + 1))
    [ $tries -lt 60 ] || die "the votes are not counted, it says $counts: $0 flok service logs vote_worker"
    sleep 0.5
  done
  echo "http://$(host_address $NODES):5001  $counts"
  cat <<TELL

A swarm of $NODES nodes runs on this machine. Look around:
  $0 flok node ls
  $0 flok stack ps vote
  $0 flok service scale vote_vote=4
  $0 flok service logs vote_worker
  $0 flok network ls
  $0 shell 2             a shell on node n2 (try: curl http://$(host_address 1):5001/results)
  $0 kill 3              power cut of node n3; then: $0 flok node ls
  $0 boot 3              and back
Tear down:
  $0 down
TELL
}

up() {
  need_root "$0"
  need containerd runc nft ip curl nsenter ps /bin/busybox redis-server /usr/lib/postgresql/15/bin/postgres
  need_kernel
  build
  images
  swarm
  deploy
  show
}

command=up
case ${1:-} in
  '' | --*) ;;
  *) command=$1; shift ;;
esac

case $command in
  up)
    for argument in "$@"; do
      case $argument in
        --debug) profile=debug ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) die "unknown option $argument; --help says what there is" ;;
      esac
    done
    up
    ;;
  flok)
    need_root "$0 flok"
    built
    n=1
    host_is_up 1 || n=2
    host_flok $n "$@"
    ;;
  shell)
    need_root "$0 shell"
    built
    n=${1:-1}
    host_is_up "$n" || die "n$n is not up"
    host "$n" env FLOK_HOST="unix://$(host_dir "$n")/flok.sock" PATH="$(dirname "$FLOK"):$PATH" bash || true
    ;;
  kill)
    need_root "$0 kill"
    [ $# = 1 ] || die "usage: $0 kill N"
    built
    host_die "$1"
    ;;
  boot)
    need_root "$0 boot"
    [ $# = 1 ] || die "usage: $0 boot N"
    built
    host_boot "$1"
    host_daemon "$1"
    ;;
  down)
    need_root "$0 down"
    hosts_down
    echo "gone: nodes, containers, $HOSTS_DIR"
    ;;
  help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0" ;;
  *) die "unknown command $command; $0 --help says what there is" ;;
esac
