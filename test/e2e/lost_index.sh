#!/usr/bin/env bash
# An index log that somebody has emptied: what it held is gone, and that is said, not guessed:
# lost_index.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 4M
obd import lower.raw -o lower.lsmt >/dev/null
obd create disk --type "$type" --lower lower.lsmt >/dev/null
obd create fresh --type "$type" --lower lower.lsmt >/dev/null

if [[ $type == append ]]; then
  # A log that is a header alone, and nothing that it could have named.
  truncate -s 4096 fresh/writable_index
  obd check fresh | grep -q 'clean$'
  lose() { truncate -s 4096 "$1/writable_index"; }
  sentence='writable_index: has no records, so nothing names the [0-9]+ bytes of data'
else
  lose() { : >"$1/writable_index"; }
  sentence='writable_index: has no records, but the index log of .*writable_data never was without'
  # Overlaybd leaves the file empty from the start, and its header has no mark.
  poke fresh/writable_data 504 '\0\0\0\0\0\0\0\0'
  lose fresh
  obd check fresh | grep -q 'clean$'
fi
header_only() { truncate -s 4096 "$1/writable_index"; }

serve disk
qemu_io "$uri" 'write -P 5 1M 64k' 'discard 2M 64k'
stop_nbdkit
obd check disk | grep -q 'clean$'
# The size is rewritten, and with it the header.
obd resize disk 8M >/dev/null
cp -a disk whole
for how in lose header_only; do
  rm -rf disk
  cp -a whole disk
  $how disk
  expect_fail 1 "wrong: .*$sentence" obd check disk
  before=$(sha256sum disk/writable_*)
  expect_fail 1 "$sentence.*read-only" \
    nbdkit --unix - "$OBD_PLUGIN" disk --run 'nbdinfo "$uri"'
  for command in 'seal disk' 'compact disk' 'resize disk 16M' 'clone disk copy'; do
    # shellcheck disable=SC2086
    expect_fail 1 "$sentence.*read-only" obd $command
  done
  [[ $(sha256sum disk/writable_*) == "$before" ]] || fail 'a refused command changed a file'
  serve disk -r
  stop_nbdkit
  grep -Eq "warning: .*$sentence" server.log || fail "no warning: $(<server.log)"
done
# One that was never written to has lost nothing.
serve fresh
qemu_io "$uri" 'write -P 5 1M 64k'
stop_nbdkit
