#!/usr/bin/env bash
# How long a container takes to start, beside containerd's own overlayfs snapshotter.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/bench_containerd.sh [--rounds N] [--at-once N] [--backend auto|nbd|fuse] [--json] [--help]

Starts containers of a small image with containerd, one and several at once, and prints the medians: the time
from Prepare of a container's snapshot to its first process, which says so itself. Each round starts
containers with each snapshotter and mode in turn. Wants root, containerd, runc, umoci, skopeo, jq, and the
release build (cmake --build --preset release).

  --rounds N    how often (default: 11)
  --at-once N   how many containers start at the same time (default: 20)
  --backend B   as the snapshotter's (default: auto)
  --json        figures as JSON, in milliseconds
  --help        this text
USAGE
}

rounds=11 at_once=20 backend=auto json=
while (($# > 0)); do
  case $1 in
    --rounds) rounds=${2:?--rounds needs a number} && shift 2 ;;
    --at-once) at_once=${2:?--at-once needs a number} && shift 2 ;;
    --backend) backend=${2:?--backend needs a name} && shift 2 ;;
    --json) json=yes && shift ;;
    --help | -h) usage && exit ;;
    *) printf 'bench_containerd.sh: unknown argument %s\n\n' "$1" >&2 && usage >&2 && exit 2 ;;
  esac
done
((EUID == 0)) || { echo 'bench_containerd.sh: only root can do this' >&2 && exit 1; }
# Mounts of its own, that go with it.
[[ -n ${OBD_BENCH_MOUNTS:-} ]] || OBD_BENCH_MOUNTS=1 exec unshare --mount --propagation private \
  "${BASH_SOURCE[0]}" --rounds "$rounds" --at-once "$at_once" --backend "$backend" ${json:+--json}

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$source_dir/build/release
tmp=$(mktemp --directory)
namespace=obd-bench-$$
pids=()
ctr() { command ctr --address "$tmp/containerd.sock" --namespace "$namespace" "$@" </dev/null; }
cleanup() {
  local directory file name
  for name in $(ctr containers list --quiet); do
    { ctr tasks kill --signal KILL "$name" || true; ctr tasks delete "$name" || true; } >/dev/null 2>&1
    ctr containers delete "$name" >/dev/null 2>&1 || true
  done
  for name in $(ctr images list --quiet); do ctr images remove --sync "$name" >/dev/null || true; done
  ((${#pids[@]} == 0)) || kill "${pids[@]}" || true
  wait
  for file in "$tmp"/root/snapshots/*/block; do
    "$build/bin/obd-mount" umount "$file" --force --state-dir "$tmp/state" >/dev/null 2>&1 || true
  done
  while read -r directory; do umount --lazy "$directory"; done < <(
    awk -v tmp="$tmp/" 'index($5, tmp) == 1 { print $5 }' /proc/self/mountinfo | tac)
  rm --recursive --force "$tmp" "/run/containerd/runc/$namespace"
  find /sys/fs/cgroup/*/"$namespace" -depth -type d -exec rmdir {} + 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp"

OBD_TOOL=$build/bin/obd bash "$source_dir/test/containerd/make_images.sh" "$tmp" >images.log 2>&1 ||
  { cat images.log >&2 && exit 1; }
cat >containerd.toml <<TOML
version = 2
root = "$tmp/containerd"
state = "$tmp/run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$tmp/containerd.sock"
[proxy_plugins.overlaybd]
  type = "snapshot"
  address = "$tmp/snapshotter.sock"
TOML
cat >snapshotter.json <<JSON
{"root": "$tmp/root", "address": "$tmp/snapshotter.sock", "stateDir": "$tmp/state", "backend": "$backend",
 "plugin": "$build/lib/nbdkit-overlaybd-plugin.so", "verbose": "warn"}
JSON
"$build/bin/overlaybd-snapshotter" --config snapshotter.json >snapshotter.log 2>&1 &
pids+=($!)
containerd --config containerd.toml >containerd.log 2>&1 &
pids+=($!)
until ctr namespaces list >/dev/null 2>&1; do sleep 0.1; done
until [[ -S snapshotter.sock ]]; do sleep 0.1; done
ctr images import --no-unpack plain.tar >/dev/null
ctr images import --no-unpack layered.tar >/dev/null

# NAME SNAPSHOTTER IMAGE MODE; an ordinary image for containerd's own, the same as an overlaybd image for ours.
kinds='containerd overlayfs plain none
overlayfs overlaybd layered overlayfs
dir overlaybd layered dir
dev overlaybd layered dev'

# start NAME SNAPSHOTTER IMAGE MODE NUMBER: as ctr run does it: Prepare, Mounts, the first process.
start() {
  local id=$1-$5 label=()
  [[ $4 == none ]] || label=(--snapshotter-label "containerd.io/snapshot/overlaybd.writable=$4")
  ctr run --detach --null-io --snapshotter "$2" "${label[@]}" \
    --mount "type=bind,src=$tmp/started,dst=/out,options=rbind:rw" "localhost/busybox:$3" "$id" \
    /bin/sh -c "touch /out/$id; sleep 1000" >>ctr.log 2>&1
  until [[ -e started/$id ]]; do sleep 0.005; done
}
stop() {
  ctr tasks delete --force "$1-$2" >>ctr.log 2>&1 || true
  ctr containers delete "$1-$2" >>ctr.log 2>&1
}
# timed FILE KIND... COUNT: containers that all begin now; the milliseconds until the last one runs.
timed() {
  local file=$1 name=$2 count=$6 begin i started=()
  rm --recursive --force started
  mkdir started
  begin=${EPOCHREALTIME/./}
  for ((i = 0; i < count; ++i)); do
    start "$2" "$3" "$4" "$5" "$i" &
    started+=($!)
  done
  wait "${started[@]}"
  echo $(((${EPOCHREALTIME/./} - begin) / 100)) >>"$file"
  for ((i = 0; i < count; ++i)); do stop "$name" "$i"; done
}

# The first unpacks.
while read -r kind; do
  # shellcheck disable=SC2086
  timed /dev/null $kind 1
done <<<"$kinds"
for ((round = 0; round < rounds; ++round)); do
  while read -r kind; do
    # shellcheck disable=SC2086
    timed "${kind%% *}.one" $kind 1
    # shellcheck disable=SC2086
    timed "${kind%% *}.many" $kind "$at_once"
  done <<<"$kinds"
done

median() { sort --numeric-sort "$1" | awk '{ v[NR] = $1 } END { printf "%.1f", v[int((NR + 1) / 2)] / 10 }'; }
if [[ -n $json ]]; then
  while read -r name _; do
    jq --null-input --arg name "$name" --argjson one "$(median "$name.one")" --argjson many "$(median "$name.many")" \
      --argjson at_once "$at_once" --argjson rounds "$rounds" \
      '{snapshotter: $name, rounds: $rounds, one_ms: $one, at_once: $at_once, all_ms: $many}'
  done <<<"$kinds" | jq --slurp .
else
  printf '| snapshotter and mode | one container, ms | %s at once, until the last runs, ms |\n| --- | --- | --- |\n' "$at_once"
  while read -r name _; do
    case $name in
      containerd) title="containerd's overlayfs" ;;
      *) title="overlaybd, $name" ;;
    esac
    printf '| %s | %s | %s |\n' "$title" "$(median "$name.one")" "$(median "$name.many")"
  done <<<"$kinds"
fi
