#!/usr/bin/env bash
# Makes the demo and test images, as OCI archives, from this repository and Debian's packages alone.
#
# usage: docker/images.sh OUT_DIR [IMAGE ...]      images: whoami voting busybox checked redis postgres nginx (all by default)
#
# whoami and voting need rustc and a C linker; the others the Debian packages busybox-static, redis-server, postgresql-15 and
# nginx-light. An image that is there already and newer than this script is left as it is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

die() { echo "images.sh: $*" >&2; exit 1; }

[ $# -ge 1 ] || die "usage: images.sh OUT_DIR [IMAGE ...]"
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- whoami voting busybox checked redis postgres nginx

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# place ROOT FILE...: copies files into a root with the shared libraries they need.
place() {
  local root=$1 file lib
  shift
  for file in "$@"; do
    [ -e "$file" ] || die "$file is missing: install the Debian package that has it"
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
    { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r lib; do
      [ -e "$root$lib" ] || { mkdir -p "$root$(dirname "$lib")"; cp -L "$lib" "$root$lib"; }
    done
  done
}

# base ROOT: users, /tmp, and busybox under all its names.
base() {
  local root=$1 applet
  mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/etc" "$root/tmp" "$root/root" "$root/var/run"
  chmod 1777 "$root/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nredis:x:999:999::/data:/bin/false\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\nredis:x:999:\npostgres:x:70:\nwww-data:x:33:\n' >"$root/etc/group"
  [ -x /bin/busybox ] || die "/bin/busybox is missing: install busybox-static"
  cp /bin/busybox "$root/bin/busybox"
  for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
  done
}

# program NAME SOURCE: an image that is one program, statically linked.
program() {
  command -v rustc >/dev/null || die "rustc is missing"
  mkdir -p "$work/$1"
  rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols -C panic=abort -o "$work/$1/$1" "$2"
  "$here/oci-image.sh" --name "flok/$1:latest" --out "$3" --layer "$work/$1" --entrypoint "[\"/$1\"]"
}

image_whoami() { program whoami "$here/whoami/whoami.rs" "$1"; }

image_voting() { program voting "$here/voting/main.rs" "$1"; }

image_busybox() {
  base "$work/busybox"
  "$here/oci-image.sh" --name flok/busybox:latest --out "$1" --layer "$work/busybox" --cmd '["sh"]'
}

# Healthy while /state/ok is there.
image_checked() {
  base "$work/checked"
  "$here/oci-image.sh" --name flok/checked:latest --out "$1" --layer "$work/checked" --cmd '["sleep","100000"]' \
    --healthcheck '{"Test":["CMD-SHELL","test -f /state/ok || { echo no /state/ok; exit 3; }"],"Interval":300000000,"Retries":2}'
}

image_redis() {
  base "$work/redis-base"
  mkdir -p "$work/redis/data"
  place "$work/redis" /usr/bin/redis-server /usr/bin/redis-cli
  "$here/oci-image.sh" --name flok/redis:latest --out "$1" --layer "$work/redis-base" --layer "$work/redis" \
    --workdir /data --volumes '{"/data":{}}' --cmd '["redis-server","--bind","0.0.0.0","--protected-mode","no","--appendonly","yes","--dir","/data"]'
}

image_postgres() {
  local pg=/usr/lib/postgresql/15
  base "$work/postgres-base"
  mkdir -p "$work/postgres/var/lib/postgresql/data" "$work/postgres/usr/share/postgresql" "$work/postgres/usr/local/bin"
  place "$work/postgres" $pg/bin/postgres $pg/bin/initdb $pg/bin/psql $pg/bin/pg_ctl $pg/bin/pg_isready
  mkdir -p "$work/postgres$pg/lib"
  cp -r $pg/lib/. "$work/postgres$pg/lib/"
  rm -rf "$work/postgres$pg/lib/bitcode"
  cp -r /usr/share/postgresql/15 "$work/postgres/usr/share/postgresql/"
  mkdir -p "$work/postgres/usr/share/zoneinfo"
  cp -r /usr/share/zoneinfo/UTC "$work/postgres/usr/share/zoneinfo/" 2>/dev/null || true
  cat >"$work/postgres/usr/local/bin/start-postgres" <<'START'
#!/bin/sh
# Makes the database on first start, then serves it.
set -e
export PATH=/usr/lib/postgresql/15/bin:$PATH LC_ALL=C TZ=UTC
data=/var/lib/postgresql/data
mkdir -p "$data" /var/run/postgresql
chown -R postgres:postgres "$data" /var/run/postgresql
chmod 700 "$data"
if [ ! -s "$data/PG_VERSION" ]; then
  su postgres -s /bin/sh -c "initdb -D $data --auth=trust --encoding=UTF8 --locale=C"
  echo "host all all all trust" >>"$data/pg_hba.conf"
fi
exec su postgres -s /bin/sh -c "exec postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql"
START
  chmod 755 "$work/postgres/usr/local/bin/start-postgres"
  "$here/oci-image.sh" --name flok/postgres:latest --out "$1" --layer "$work/postgres-base" --layer "$work/postgres" \
    --volumes '{"/var/lib/postgresql/data":{}}' --stop-signal SIGINT --cmd '["/usr/local/bin/start-postgres"]'
}

image_nginx() {
  base "$work/nginx-base"
  mkdir -p "$work/nginx/var/log/nginx" "$work/nginx/var/lib/nginx" "$work/nginx/var/www" "$work/nginx/etc/nginx" "$work/nginx/run"
  place "$work/nginx" /usr/sbin/nginx
  cp /etc/nginx/mime.types "$work/nginx/etc/nginx/"
  echo 'served by flok' >"$work/nginx/var/www/index.html"
  cat >"$work/nginx/etc/nginx/nginx.conf" <<'CONF'
worker_processes 1;
error_log stderr;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
  include mime.types;
  access_log /dev/stdout;
  server { listen 80; root /var/www; }
}
CONF
  "$here/oci-image.sh" --name flok/nginx:latest --out "$1" --layer "$work/nginx-base" --layer "$work/nginx" \
    --stop-signal SIGQUIT --cmd '["nginx","-g","daemon off;"]'
}

# fresh FILE SOURCE...: whether it is newer than all it is made from.
fresh() {
  local file=$1 source
  shift
  for source in "$here/images.sh" "$here/oci-image.sh" "$@"; do
    [ "$file" -nt "$source" ] || return 1
  done
}

for image in "$@"; do
  file=$out/$image.tar
  case $image in
    whoami | voting) sources=("$here/$image"/*.rs) ;;
    busybox | checked | redis | postgres | nginx) sources=() ;;
    *) die "unknown image $image" ;;
  esac
  ! fresh "$file" "${sources[@]}" || continue
  echo "images.sh: making $image"
  "image_$image" "$file"
done
