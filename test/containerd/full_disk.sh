#!/usr/bin/env bash
# No space: neither for a container that has used up its quota, nor on the host. Whoever asks for
# space is told, others work on, and everything works again once there is space.
# Argument: TYPE of the writable layers.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
type=$1
# The snapshotter's root is a disk of its own, that is small.
truncate --size 400M host.raw
mkfs.ext4 -q host.raw
mkdir "$root"
mount -o loop host.raw "$root"
start_both "{\"rwMode\": \"dir\", \"writableLayerType\": \"$type\", \"rootfsQuota\": \"48m\"}"

fill='
  if dd if=/dev/zero of=/root/zeros bs=1M count=4 2>/dev/null && sync; then echo zeros; fi
  if dd if=/dev/urandom of=/root/fill bs=1M count=120 conv=fsync 2>/out/dd.said; then echo full; fi
  echo after'
allocated() { du --block-size=1M "$(block_of "$1")/writable_data" | cut --fields=1; }

# The quota. A neighbour notices nothing.
start_container neighbour "$layered" 'until [ -e /out/stop ]; do echo x >>/root/log; sync /root/log; sleep 1; done'
run_container quota "$layered" "$fill"
grep --quiet --line-regexp full out/quota && fail 'a container wrote more than its quota'
grep --quiet --line-regexp after out/quota || fail 'the container did not go on'
# Requests that are carried out at the same time may overshoot it a little.
(($(allocated quota) <= 56)) || fail "the quota of 48 MiB came to $(allocated quota) MiB"
remove_container quota
# For one container, by a label.
run_container more "$layered" "$fill" --snapshotter-label containerd.io/snapshot/disk_quota=200m
grep --quiet --line-regexp full out/more || fail "a quota of 200 MiB is no room for 120 MiB: $(<out/dd.said)"
remove_container more

# The host's disk is full.
! dd if=/dev/zero of="$root/filler" bs=1M status=none 2>dd.log || fail 'the disk did not get full'
grep --quiet 'No space' dd.log
run_full() {
  ctr run --snapshotter overlaybd --null-io "$layered" refused /bin/true >refused.log 2>&1
}
if run_full; then
  ctr containers delete refused
else
  # The reason, and nothing half made.
  grep --quiet --ignore-case 'no space' refused.log || fail "a full disk is called: $(<refused.log)"
  ctr containers delete refused 2>/dev/null || true
fi
rm "$root/filler"
run_container again "$layered" 'echo new >/etc/new; sync'
touch out/stop
wait_container neighbour
wait_for 60 is_stopped neighbour
# What the full disk kept from being written was not the neighbour's doing; its file system is whole.
remove_everything
[[ -z $(find "$root/snapshots" -mindepth 1) ]] || fail "left: $(find "$root/snapshots" -mindepth 1)"
stop_snapshotter
umount "$root"
expect_all_gone 'a full disk'
