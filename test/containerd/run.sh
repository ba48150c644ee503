#!/usr/bin/env bash
# Containers with ctr, in one mode chosen by the config and in the others by a label; what one has
# written is committed and run from. Arguments: MODE (dir, dev, overlayfs), TYPE of the writable layers.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
mode=$1 type=$2
start_both "{\"rwMode\": \"$mode\", \"writableLayerType\": \"$type\"}"

# What a container has for a root, as its own mount table tells.
what_root='grep " / " /proc/mounts | tail -n 1'
# expect_root NAME MODE: by the first line that it printed.
expect_root() {
  local source fstype rest
  read -r source rest fstype rest <"out/$1"
  case $2 in
    overlayfs) [[ $fstype == overlay ]] ;;
    *) [[ $fstype == ext4 && $source == /dev/* ]] ;;
  esac || fail "$1, which is to be $2, has for a root: $(head -n 1 "out/$1")"
}

# The images' content, of both layers.
# shellcheck disable=SC2016  # for the container's shell
check_content='
[ "$(cat /etc/first)" = first ]
[ "$(cat /etc/changed)" = second ]
[ ! -e /etc/removed ]
[ "$(sha256sum </etc/linked)" = "$(cat /etc/large.sum)" ]'

for image in "$plain" "$layered"; do
  run_container "$mode" "$image" "$what_root; $check_content
    echo container >/etc/changed; echo new >/etc/new; rm /etc/first; sync"
  expect_root "$mode" "$mode"
  ctr containers delete "$mode"

  for label in dir dev overlayfs; do
    [[ $label != "$mode" ]] || continue
    run_container "$label" "$image" "$what_root; $check_content; echo $label >/etc/changed" \
      --snapshotter-label "containerd.io/snapshot/overlaybd.writable=$label"
    expect_root "$label" "$label"
    ctr containers delete "$label"
  done
done

# The type of the writable layers is the config's.
if [[ $mode != overlayfs ]]; then
  run_container writer "$layered" 'echo kept >/etc/kept'
  obd info --force-share "$(block_of writer)" --json >info.json
  expect_json info.json ".upper == \"$type\""
  ctr containers delete writer
fi
remove_everything
expect_all_gone 'removing everything'
