#!/usr/bin/env bash
# obd-mount by FUSE: twenty attaches at once, of ten images and ten times one.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"

obd create base --size 64M --mkfs ext4 >/dev/null
obd seal base >/dev/null
for i in {0..10}; do
  obd create "disk$i" --from base >/dev/null
  mkdir "mnt$i"
done

pids=()
for i in {1..10}; do
  obd_mount dir "disk$i" "mnt$i" >"dir$i.out" 2>&1 &
  pids+=($!)
  obd_mount dev disk0 >"dev$i.out" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail "one of twenty failed: $(cat ./*.out)"; done
for i in {2..10}; do expect_same dev1.out "dev$i.out"; done
expect_json <(obd_mount_admin list --json) 'length == 11' 'all(.state == "attached")' \
  '[.[].device] | unique | length == 11'
for i in {1..10}; do echo "$i" >"mnt$i/own"; done
for i in {1..10}; do [[ $(<"mnt$i/own") == "$i" ]] || fail "disk$i shows another's file"; done

# Attaching and detaching one image from many sides: each call succeeds or says why not.
for i in {1..10}; do
  { obd_mount dev disk0 >/dev/null; } &
  { obd_mount_admin umount disk0 2>umount.out || (($? == 4 || $? == 5)); } &
  wait -n || fail 'attach against detach'
  wait -n || fail 'attach against detach'
done
obd_mount_admin umount disk0 2>/dev/null || true

pids=()
for i in {1..10}; do
  obd_mount_admin umount "mnt$i" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail 'one of ten could not be undone'; done
expect_nothing_left 'twenty at once'
for i in {1..10}; do obd check "disk$i" >/dev/null; done
