#!/usr/bin/env bash
# Packs directories into an OCI image layout, as a tar that `flok image load` and `skopeo copy oci-archive:` read.
#
# usage: docker/oci-image.sh --name REPO:TAG --out FILE.tar --layer DIR [--layer DIR ...]
#                            [--entrypoint JSON] [--cmd JSON] [--env JSON] [--user USER] [--workdir DIR]
#                            [--volumes JSON] [--stop-signal SIGNAL] [--healthcheck JSON] [--compress gzip|zstd|none]
# JSON is an array of strings (an object of empty objects for --volumes, Docker's object for --healthcheck). Needs tar, gzip and sha256sum (and zstd).
# The same input gives the same digest: times and owners are fixed.
set -euo pipefail

die() { echo "oci-image.sh: $*" >&2; exit 1; }

name='' out='' entrypoint='' cmd='' env='' user='' workdir='' volumes='' stop_signal='' healthcheck='' compress=gzip
layers=()
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || die "$1 needs a value"
  case $1 in
    --name) name=$2 ;;
    --out) out=$2 ;;
    --layer) layers+=("$2") ;;
    --entrypoint) entrypoint=$2 ;;
    --cmd) cmd=$2 ;;
    --env) env=$2 ;;
    --user) user=$2 ;;
    --workdir) workdir=$2 ;;
    --volumes) volumes=$2 ;;
    --stop-signal) stop_signal=$2 ;;
    --healthcheck) healthcheck=$2 ;;
    --compress) compress=$2 ;;
    *) die "unknown option $1" ;;
  esac
  shift 2
done
if [ -z "$name" ] || [ -z "$out" ] || [ ${#layers[@]} -eq 0 ]; then
  die "--name, --out and --layer are needed"
fi

case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) die "unknown architecture $(uname -m)" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/blobs/sha256"

digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }

# put_blob FILE: moves it into the layout and prints its digest.
put_blob() {
  local hash
  hash=$(digest "$1")
  mv "$1" "$work/blobs/sha256/$hash"
  echo "$hash"
}

diff_ids='' descriptors=''
for layer in "${layers[@]}"; do
  [ -d "$layer" ] || die "$layer is no directory"
  tar --create --file "$work/layer" --directory "$layer" --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 \
    --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime .
  diff_ids+="${diff_ids:+,}\"sha256:$(digest "$work/layer")\""
  case $compress in
    gzip) gzip --no-name -6 "$work/layer"; mv "$work/layer.gz" "$work/layer"; suffix='+gzip' ;;
    zstd) zstd -q --rm "$work/layer" -o "$work/layer.zst"; mv "$work/layer.zst" "$work/layer"; suffix='+zstd' ;;
    none) suffix='' ;;
    *) die "--compress: gzip, zstd or none" ;;
  esac
  bytes=$(size "$work/layer")
  hash=$(put_blob "$work/layer")
  descriptors+="${descriptors:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar$suffix\",\"digest\":\"sha256:$hash\",\"size\":$bytes}"
done

config=''
field() { [ -z "$2" ] || config+="${config:+,}\"$1\":$2"; }
quoted() { [ -z "$1" ] || printf '"%s"' "$1"; }
field Entrypoint "$entrypoint"
field Cmd "$cmd"
field Env "${env:-[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]}"
field User "$(quoted "$user")"
field WorkingDir "$(quoted "$workdir")"
field Volumes "$volumes"
field StopSignal "$(quoted "$stop_signal")"
field Healthcheck "$healthcheck"
printf '{"created":"1970-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
  "$arch" "$config" "$diff_ids" >"$work/config"
config_bytes=$(size "$work/config")
config_hash=$(put_blob "$work/config")

printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' \
  "$config_hash" "$config_bytes" "$descriptors" >"$work/manifest"
manifest_bytes=$(size "$work/manifest")
manifest_hash=$(put_blob "$work/manifest")

printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s","io.containerd.image.name":"%s"}}]}' \
  "$manifest_hash" "$manifest_bytes" "$arch" "${name##*:}" "$name" >"$work/index.json"

mkdir -p "$(dirname "$out")"
tar --create --file "$out.new" --directory "$work" --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 \
  oci-layout index.json blobs
mv "$out.new" "$out"
