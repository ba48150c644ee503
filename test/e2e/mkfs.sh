#!/usr/bin/env bash
# A new disk with a file system on it: mkfs.sh ext4|xfs
. "$(dirname "$0")/functions.sh"
fs_type=$1
requires_command "mkfs.$fs_type"

declare -A check=([ext4]='e2fsck -f -n' [xfs]='xfs_repair -n -f')
for type in append sparse; do
  obd create "disk-$type" --type $type --size 320M --mkfs "$fs_type" >create.out
  obd check "disk-$type"
  # The disk is sparse: only what mkfs wrote takes space.
  obd info --json "disk-$type" >info.json
  expect_json info.json '.virtual_size == 320 * 1048576' \
    '.layers[-1].allocated_bytes < 100 * 1048576'
  read_disk "disk-$type" "$type.raw"
  [[ $(blkid -o value -s TYPE "$type.raw") == "$fs_type" ]] || fail "no $fs_type on the disk"
  # shellcheck disable=SC2086
  ${check[$fs_type]} "$type.raw" >check.out 2>&1 || fail "$(tail -n 5 check.out)"
done

expect_fail 1 'mkfs.no-such-type' obd create nothing --size 64M --mkfs no-such-type
[[ ! -e nothing ]] || fail 'the failed create left a folder'
# A failing mkfs fails the command, and nothing is left behind.
expect_fail 1 "mkfs.$fs_type" obd create small --size 4K --mkfs "$fs_type"
[[ ! -e small ]] || fail 'the failed create left a folder'
