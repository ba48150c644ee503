# For tests with containerd, after e2e/functions.sh, in scripts that run with own_mounts=yes: a
# containerd, a snapshotter under test and containers, all in $tmp, and all ended with the test.
#
# What a container says goes to a file that it shares with the test, not through ctr.
# shellcheck shell=bash

# shellcheck source=test/e2e/mount_functions.sh
# shellcheck disable=SC2154  # of e2e/functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
OBD_SNAPSHOTTER=$OBD_BUILD_DIR/bin/overlaybd-snapshotter
requires_command containerd ctr runc umoci skopeo mkfs.ext4
[[ -x $OBD_SNAPSHOTTER ]] || fail "build first: $OBD_SNAPSHOTTER is missing"
[[ $(stat --file-system --format %T .) != overlayfs ]] ||
  skip 'the folder for temporary files is on an overlay, which cannot hold an upper folder'

# Cgroups and runc's state are the host's: a namespace that no other test has keeps ours apart.
namespace=${tmp##*/}
root=$tmp/root
snapshotter_socket=$tmp/snapshotter.sock
mkdir out
touch snapshotter.log
cleanup_fn end_containers

# --- images: plain, of two ordinary layers, and the same as an overlaybd image ---

images=$OBD_BUILD_DIR/test/containerd
# Used by the tests.
# shellcheck disable=SC2034
plain=localhost/busybox:plain layered=localhost/busybox:layered

# make_images: once for all tests of a build folder; whoever comes meanwhile waits.
make_images() {
  local made=$images/made file
  mkdir -p "$images"
  exec {images_lock}>"$images/lock"
  flock "$images_lock"
  for file in "$source_dir/test/containerd/make_images.sh" "$OBD_TOOL"; do
    [[ $made -nt $file ]] || rm -f "$made"
  done
  if [[ ! -e $made ]]; then
    bash "$source_dir/test/containerd/make_images.sh" "$images" >images.log 2>&1 ||
      fail 'the images could not be made'
    touch "$made"
  fi
  exec {images_lock}>&-
}

# --- containerd ---

# The last words on a command line, so that also functions of a test can be given to wait_for.
ctr() { command ctr --address "$tmp/containerd.sock" --namespace "$namespace" "$@"; }
snapshots() { ctr snapshots --snapshotter overlaybd "$@"; }

start_containerd() {
  cat >containerd.toml <<TOML
version = 2
root = "$tmp/containerd/root"
state = "$tmp/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[debug]
  level = "warn"
[grpc]
  address = "$tmp/containerd.sock"
[proxy_plugins.overlaybd]
  type = "snapshot"
  address = "$snapshotter_socket"
TOML
  containerd --config containerd.toml >>containerd.log 2>&1 &
  containerd_pid=$!
  wait_for 60 ctr namespaces list
}

kill_containerd() {
  kill -KILL "$containerd_pid"
  reap_killed "$containerd_pid"
}

# --- the snapshotter ---

# write_config FILE [JSON]: a config of this test's own; JSON is an object with more keys.
write_config() {
  jq --null-input --arg tmp "$tmp" --arg plugin "$OBD_PLUGIN" --argjson more "${2:-"{}"}" \
    '{root: ($tmp + "/root"), address: ($tmp + "/snapshotter.sock"), stateDir: ($tmp + "/state"),
      backend: "fuse", plugin: $plugin, verbose: "debug"} + $more' >"$1"
}

# How often a snapshotter has said that it is ready.
starts() { grep --count ' serves ' snapshotter.log || true; }
has_started() { (($(starts) > $1)); }

# start_snapshotter [JSON]: without an argument, with the config that it had before.
start_snapshotter() {
  local before
  [[ -z ${1:-} && -e snapshotter.json ]] || write_config snapshotter.json "${1:-}"
  before=$(starts)
  "$OBD_SNAPSHOTTER" --config snapshotter.json >>snapshotter.log 2>&1 &
  snapshotter_pid=$!
  wait_for 60 has_started "$before"
  # Containerd lets a moment pass between two attempts to connect.
  if [[ -n ${containerd_pid:-} ]] && ! is_dead "$containerd_pid"; then wait_for 60 snapshots list; fi
}

# In order; within seconds, as systemd wants it.
stop_snapshotter() {
  kill -TERM "$snapshotter_pid"
  wait_for 20 is_dead "$snapshotter_pid"
  wait "$snapshotter_pid" || fail 'the snapshotter failed at its end'
}

kill_snapshotter() {
  kill -KILL "$snapshotter_pid"
  reap_killed "$snapshotter_pid"
}

# start_both [JSON]: containerd and a snapshotter, with both images, the plain one unpacked.
start_both() {
  make_images
  start_snapshotter "${1:-}"
  start_containerd
  local image
  for image in plain layered; do
    ctr images import --no-unpack "$images/$image.tar" >>images.log 2>&1
  done
}

# block_of KEY: the folder of the image that a container's snapshot has for a disk.
block_of() {
  local source
  source=$(snapshots mounts unused "$1" | awk '/^mount / { for (i = 2; i < NF; ++i) if ($i ~ /^\//) { print $i; exit } }')
  [[ $source != /dev/* ]] || source=$(obd_mount_admin list --json |
    jq --raw-output --arg device "$source" '.[] | select(.device == $device).image')
  dirname "$source"
}

# --- containers ---

# start_container NAME IMAGE SCRIPT [OPTION OF CTR RUN...]: SCRIPT is for the container's sh, which
# has the folder /out in common with the test. What it says goes to out/NAME; at its end, unless it
# failed, there is out/NAME.done. Does not wait for that.
start_container() {
  container_command --detach "$@"
}

# run_container: the same, and waits; the container and its snapshot stay, unless --rm is among the options.
run_container() {
  local name=$1
  container_command "$@" || true
  [[ -e out/$name.done ]] || fail "container $name failed: $(tail -n 5 "out/$name" 2>/dev/null)"
}

container_command() {
  local detach=()
  if [[ $1 == --detach ]]; then
    detach=(--detach)
    shift
  fi
  local name=$1 image=$2 script=$3
  shift 3
  rm -f "out/$name" "out/$name.done"
  printf 'set -eu\n%s\ntouch /out/%s.done\n' "$script" "$name" >"out/$name.sh"
  ctr run "${detach[@]}" --snapshotter overlaybd --null-io --env "OBD_E2E_FOLDER=$tmp" \
    --mount "type=bind,src=$tmp/out,dst=/out,options=rbind:rw" "$@" \
    "$image" "$name" /bin/sh -c "exec sh /out/$name.sh >/out/$name 2>&1" >>ctr.log 2>&1
}

# wait_container NAME: for its script's end.
wait_container() { wait_for 60 test -e "out/$1.done"; }

is_stopped() { ctr tasks list | awk -v name="$1" '$1 == name { state = $3 } END { exit !(state == "STOPPED" || state == "") }'; }

# remove_container NAME: whatever it does just now, and its snapshot.
remove_container() {
  if ! is_stopped "$1"; then
    ctr tasks kill --signal KILL "$1" >>ctr.log 2>&1 || true
    wait_for 60 is_stopped "$1"
  fi
  ctr tasks delete "$1" >>ctr.log 2>&1 || true
  ctr containers delete "$1"
}

# collect_garbage: now, and waits. What is still mounted is left for the next time.
collect_garbage() {
  ctr leases create --id garbage >/dev/null
  ctr leases delete --sync garbage >/dev/null
}

# hold KEY: containerd takes a snapshot that nothing names for garbage. `ctr snapshots prepare` and
# `commit` mark theirs as roots, `view` does not.
hold() { snapshots label "$1" containerd.io/gc.root=now; }
make_view() { snapshots view "$1" "$2" >/dev/null && hold "$1" && snapshots info "$1"; }

# view KEY PARENT
view() {
  wait_for 60 make_view "$@"
}

# remove_everything: containers, images, what was unpacked of them, and all other snapshots.
remove_everything() {
  local name
  for name in $(ctr containers list --quiet); do remove_container "$name"; done
  for name in $(ctr images list --quiet); do ctr images remove --sync "$name" >>ctr.log; done
  for name in $(snapshots list | awk 'NR > 1 { print $1 }'); do
    snapshots label "$name" containerd.io/gc.root= >>ctr.log 2>&1 || true
  done
  collect_garbage
}

all_is_gone() { [[ -z $(find "$root/snapshots" -mindepth 1 2>/dev/null; leftovers) ]]; }

# expect_all_gone WHAT: containerd collects garbage on its own, after its clients have got their
# answer, and what a dead snapshotter made without telling it only after the next removal.
expect_all_gone() {
  local end=$((EPOCHSECONDS + 60)) round
  for ((round = 0; EPOCHSECONDS < end; ++round)); do
    all_is_gone && return
    sleep 0.2
    if ((round % 5 == 4)) && ! is_dead "$snapshotter_pid"; then
      snapshots prepare "removed$round" >/dev/null
      snapshots remove "removed$round"
      collect_garbage
    fi
  done
  expect_nothing_left "$1"
  fail "left behind after $1: $(find "$root/snapshots" -mindepth 1 | head -n 20)"
}

# Whatever state the test is in: containers, their shims, containerd, the snapshotter.
end_containers() {
  local pids file
  for _ in {1..50}; do
    # This grep is one of those it finds.
    pids=$(grep --null-data --line-regexp --fixed-strings --files-with-matches \
      "OBD_E2E_FOLDER=$tmp" /proc/[0-9]*/environ 2>/dev/null | tr --complement --delete '0-9\n') || true
    local alive=''
    for file in $pids; do kill -KILL "$file" 2>/dev/null && alive=yes; done
    [[ -n $alive ]] || break
    sleep 0.1
  done
  # Containers that were not started by this test's functions.
  cat /sys/fs/cgroup/*/"$namespace"/*/cgroup.procs 2>/dev/null | xargs --no-run-if-empty kill -KILL || true
  rm --recursive --force "/run/containerd/runc/$namespace"
  find /sys/fs/cgroup/*/"$namespace" -depth -type d -exec rmdir {} +
}

# --- the client in Go ---

# Built with the tests (client/), when there is a Go compiler.
client=$OBD_BUILD_DIR/test/containerd_client
requires_client() { [[ -x $client ]] || skip 'there was no Go compiler when the tests were built (scripts/setup.sh --dev)'; }

# run_client PATTERN: its tests with these names, which must all pass.
run_client() {
  "$client" -test.run "$1" -test.v -test.timeout 170s >client.out 2>&1 ||
    fail "$(grep --extended-regexp -- '--- FAIL|_test.go:|^panic' client.out | head -n 20)"
  ! grep --quiet -- '--- SKIP' client.out || fail "skipped: $(<client.out)"
}
