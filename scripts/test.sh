#!/usr/bin/env bash
# Every test of flok, in the order in which they fail fastest; installs what is missing on a bare Debian 12.
#
# usage: scripts/test.sh [--quick] [--no-e2e] [--no-install]
#   --quick       formatting, lints, tidy and the tests that need no root
#   --no-e2e      all but the tests on hosts (namespaces with containerd)
#   --no-install  install nothing: what is missing fails its step
#
# Without root the tests that need it are skipped, and said. Leaves nothing behind but the build and, beside it, the tools
# that cargo installs (cargo-nextest, cargo-deny, typos: some minutes each, once) and Docker's Python client.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$REPO"

quick='' e2e=1 install=1
for argument in "$@"; do
  case $argument in
    --quick) quick=1 ;;
    --no-e2e) e2e='' ;;
    --no-install) install='' ;;
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) die "unknown option $argument; --help says what there is" ;;
  esac
done

export PATH=$PATH:/usr/sbin:/sbin RUSTFLAGS=${RUSTFLAGS:-}
# The short form of the fuzz targets is the same each time; CONTRIBUTING.md has the long one.
export BOLERO_RANDOM_SEED=${BOLERO_RANDOM_SEED:-1}
root=''
[ "$(id -u)" != 0 ] || root=1
skipped=() failed=()
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# step NAME COMMAND...: one line of the summary; the steps after a failed one still run.
step() {
  local name=$1 start=$SECONDS
  shift
  say "$name"
  if "$@"; then
    printf '%s: ok, %d s\n' "$name" $((SECONDS - start))
  else
    failed+=("$name")
    printf '%s: FAILED, %d s\n' "$name" $((SECONDS - start))
  fi
}

skip() {
  skipped+=("$1: $2")
  printf '\n%s: skipped, %s\n' "$1" "$2"
}

# A filter that selects no test fails.
nextest() { cargo nextest run --locked "$@"; }

need_tools() {
  if [ -n "$install" ]; then
    [ -n "$root" ] || { skip "installing" "no root: what is missing must be there"; return 0; }
    need protoc cc curl systemd-analyze
    [ -n "$quick" ] || need containerd runc nft ip ps nsenter zstd openssl mkfs.ext4
    [ -n "$quick" ] || [ -z "$e2e" ] || need docker skopeo docker-registry /bin/busybox redis-server \
      /usr/lib/postgresql/15/bin/postgres nginx ufw firewalld "/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1" \
      /usr/lib/python3.11/ensurepip
  fi
}

# need_tool COMMAND CRATE: what cargo can install and Debian has not.
need_tool() {
  ! command -v "$1" >/dev/null || return 0
  [ -n "$install" ] || { warn "$1 is missing: cargo install $2 --locked"; return 0; }
  say "installing $2"
  CARGO_TARGET_DIR=$tools/build cargo install "$2" --locked --quiet --root "$tools"
}

need_cargo_tools() {
  tools=${CARGO_TARGET_DIR:-$REPO/target}/tools
  export PATH=$tools/bin:$PATH
  need_tool cargo-nextest cargo-nextest
  need_tool cargo-deny cargo-deny
  need_tool typos typos-cli
  rm -rf "$tools/build"
}

# Docker's Python client, newer than Debian's, in an environment of its own.
need_docker_py() {
  export FLOK_E2E_PYTHON=$tools/python/bin/python3
  if [ -n "$install" ]; then
    [ -e "$FLOK_E2E_PYTHON" ] || /usr/bin/python3 -m venv "$tools/python"
    "$FLOK_E2E_PYTHON" -m pip install --quiet --disable-pip-version-check -r tests/docker_api/requirements.txt
  fi
}

unit_systemd() {
  # Its own words are checked; that /usr/bin/flok is not installed here is no fault of the unit.
  local told
  sed "s|/usr/bin/flok|/bin/true|" config/flok.service >"$work/flok.service"
  cp config/flok.socket "$work/"
  told=$(systemd-analyze verify --man=no "$work/flok.service" "$work/flok.socket" 2>&1) || { echo "$told"; return 1; }
  ! grep -E "flok\.(service|socket)" <<<"$told"
}

summary() {
  say "summary"
  local line
  for line in "${skipped[@]}"; do echo "skipped  $line"; done
  for line in "${failed[@]}"; do echo "FAILED   $line"; done
  [ ${#failed[@]} -eq 0 ] || { echo "${#failed[@]} step(s) failed"; return 1; }
  echo "all steps passed, ${#skipped[@]} skipped"
}

need_rust
need_tools
need_cargo_tools

step "fmt" cargo fmt --check
step "clippy" cargo clippy --locked --all-targets -- -D warnings
step "tidy" nextest --test tidy
# Advisories need the database of RustSec: a step of its own, where the network reaches it.
step "deny" cargo deny --locked check bans licenses sources
step "typos" typos
step "unit file" unit_systemd
step "unit tests" nextest --lib --bins
step "integration tests" nextest -E 'kind(test) & not binary(e2e) & not binary(docker_api) & not binary(tidy)'

if [ -n "$quick" ]; then
  skip "documentation, root tests, e2e" "--quick"
else
  step "documentation" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items
  step "doc tests" cargo test --locked --doc
  if [ -z "$root" ]; then
    skip "root tests, e2e" "no root"
  else
    # Measurements are run by hand: docs/benchmarks.md.
    step "root tests" nextest --run-ignored only -E 'not binary(e2e) & not binary(docker_api) & not test(measure)'
    if [ -z "$e2e" ]; then
      skip "e2e" "--no-e2e"
    elif lacks=$(kernel_lacks) && [ -n "$lacks" ]; then
      skip "e2e" "the kernel lacks $(tr '\n' ',' <<<"$lacks")"
    else
      step "images" docker/images.sh "${CARGO_TARGET_DIR:-$REPO/target}/e2e-images"
      need_docker_py || failed+=("Docker's Python client")
      export FLOK_E2E_IMAGES=${CARGO_TARGET_DIR:-$REPO/target}/e2e-images
      step "e2e" nextest --run-ignored all --test e2e --test docker_api
    fi
  fi
fi
summary
