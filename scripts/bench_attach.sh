#!/usr/bin/env bash
# How long attaching takes: to a usable device, to a mounted directory, and back.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/bench_attach.sh [--rounds N] [--backend auto|nbd|fuse] [--help]

Attaches an image of 1 GiB with an ext4, detaches it, and prints the medians as a table. Wants root
and the release build (cmake --build --preset release).

  --rounds N    how often (default: 21)
  --backend B   as obd-mount's (default: auto)
  --help        this text
USAGE
}

rounds=21 backend=auto
while (($# > 0)); do
  case $1 in
    --rounds) rounds=${2:?--rounds needs a number} && shift 2 ;;
    --backend) backend=${2:?--backend needs a name} && shift 2 ;;
    --help | -h) usage && exit ;;
    *) printf 'bench_attach.sh: unknown argument %s\n\n' "$1" >&2 && usage >&2 && exit 2 ;;
  esac
done

bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build/release/bin
tmp=$(mktemp --directory)
mount_options=(--state-dir "$tmp/state")
cleanup() {
  "$bin/obd-mount" umount "$tmp/disk" "${mount_options[@]}" 2>/dev/null || true
  rm --recursive --force "$tmp"
}
trap cleanup EXIT
mkdir "$tmp/mnt"
"$bin/obd" create "$tmp/disk" --size 1G --mkfs ext4 >/dev/null

# timed NAME COMMAND...: adds the milliseconds that it takes to NAME.times.
timed() {
  local name=$1 begin=${EPOCHREALTIME/./}
  shift
  "$@" >/dev/null
  echo $(((${EPOCHREALTIME/./} - begin) / 100)) >>"$tmp/$name.times"
}

for ((i = 0; i < rounds; ++i)); do
  timed dev "$bin/obd-mount" dev "$tmp/disk" --backend "$backend" "${mount_options[@]}"
  timed detach "$bin/obd-mount" umount "$tmp/disk" "${mount_options[@]}"
  timed dir "$bin/obd-mount" dir "$tmp/disk" "$tmp/mnt" --backend "$backend" "${mount_options[@]}"
  timed umount "$bin/obd-mount" umount "$tmp/mnt" "${mount_options[@]}"
done

median() { sort --numeric-sort "$tmp/$1.times" | awk '{ v[NR] = $1 } END { printf "%.1f", v[int((NR + 1) / 2)] / 10 }'; }
printf '| call | median, ms |\n| --- | --- |\n'
printf '| to a usable device (`dev`) | %s |\n' "$(median dev)"
printf '| detach | %s |\n' "$(median detach)"
printf '| to a mounted directory (`dir`) | %s |\n' "$(median dir)"
printf '| unmount and detach | %s |\n' "$(median umount)"
