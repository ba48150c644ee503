#!/usr/bin/env bash
# Images that share files by hard links, as `cp -al` makes them: hard_links.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

obd create disk --type "$type" --size 64M >/dev/null
serve disk
# Overwritten and discarded, so that compacting would move or punch something.
qemu_io "$uri" 'write -P 1 0 4M' 'write -P 2 1M 4M' 'discard 0 512k' 'write -P 3 8M 1M'
stop_nbdkit
read_disk disk expected.raw
cp -al disk other

# Whoever opens one for writing is told. A sparse layer is written in place, so that is refused.
for image in disk other; do
  if [[ $type == sparse ]]; then
    expect_fail 1 "$image/writable_data: has 2 names .*cp --reflink=auto" \
      nbdkit --unix - "$OBD_PLUGIN" $image --run 'nbdinfo "$uri"'
    expect_disk $image expected.raw -r
    continue
  fi
  rm -f server.log
  serve $image
  stop_nbdkit
  grep -q 'warning: .*writable_data: has 2 names (hard links)' server.log ||
    fail "no warning: $(<server.log)"
done
obd check disk | grep -q 'hard links'

# What would ruin the other image is refused, and changes nothing.
before=$(sha256sum disk/* other/*)
for command in 'compact disk' 'resize disk +64M' 'resize disk 32M --force' 'seal disk' \
  'clone disk copy'; do
  # shellcheck disable=SC2086
  expect_fail 1 'disk/writable_data: has 2 names .*cp --reflink=auto' obd $command
done
[[ $(sha256sum disk/* other/*) == "$before" ]] || fail 'a refused command changed a file'
[[ ! -e copy ]] || fail 'the refused clone left its folder'
expect_disk other expected.raw -r

# An index that is shared alone is no better.
cp --reflink=auto disk/writable_data data
mv data disk/writable_data
expect_fail 1 'disk/writable_index: has 2 names' obd compact disk

# With files of their own, both are images again.
cp --reflink=auto disk/writable_index index
mv index disk/writable_index
obd compact disk >/dev/null
obd resize disk 128M >/dev/null
expect_disk other expected.raw
obd compact other >/dev/null
obd seal other >/dev/null
expect_disk other expected.raw -r
obd resize disk 64M --force >/dev/null
expect_disk disk expected.raw
if obd check disk | grep -q 'hard links'; then fail 'a warning without a reason'; fi
