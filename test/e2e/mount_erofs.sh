#!/usr/bin/env bash
# An erofs image, imported as the only layer: mounted read-only, the type found by looking.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command mkfs.erofs
grep --quiet --word-regexp erofs /proc/filesystems || modprobe erofs 2>/dev/null ||
  skip 'this kernel has no erofs'

mkdir -p tree/deep/er mnt disk
random_raw tree/random 5M
seq 400000 >tree/deep/text
: >tree/empty
ln -s ../text tree/deep/er/link
ln tree/random tree/deep/again
chmod 4750 tree/deep/text
mkfs.erofs -zlz4hc tree.raw tree >mkfs.log 2>&1

for storage in '' '--compress zstd --tar'; do
  # shellcheck disable=SC2086
  obd import tree.raw -o layer.lsmt --force $storage
  printf '{"lowers": [{"file": "%s"}]}\n' "$tmp/layer.lsmt" >disk/config.v1.json
  obd_mount dir disk mnt --read-only --fstype auto --json >mounted.json
  expect_json mounted.json '.[0].options == ["ro", "rbind"]'
  [[ $(findmnt --noheadings --output FSTYPE mnt) == erofs ]] || fail "mounted as $(findmnt mnt)"
  diff -r tree mnt
  (cd tree && find . -printf '%p %y %m %s %l %n\n' | grep -v ' d ' | sort) >expected
  (cd mnt && find . -printf '%p %y %m %s %l %n\n' | grep -v ' d ' | sort) | diff expected -
  expect_fail 1 'Read-only' touch mnt/empty
  obd_mount_admin umount mnt
  obd_mount dev disk --read-only --json >dev.json
  expect_json dev.json '.[0].type == "erofs"' '.[0].options == ["ro"]'
  obd_mount_admin umount disk
  expect_nothing_left "${storage:-a plain layer}"
done

# It can be written to nowhere.
expect_fail 1 'no writable layer.*--read-only' obd_mount dir disk mnt
expect_nothing_left 'a refusal'
