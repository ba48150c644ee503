#!/usr/bin/env bash
# One writer, and whoever else comes learns its pid: second_opener.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 4M
obd import lower.raw -o lower.lsmt
obd create disk --type "$type" --lower lower.lsmt
obd create other --type "$type" --lower lower.lsmt

expect_refused() {
  local pid=$1
  expect_fail 1 "\b$pid\b" nbdkit -U - "$OBD_PLUGIN" disk/config.v1.json --run true
  expect_fail 1 "\b$pid\b" nbdkit -r -U - "$OBD_PLUGIN" disk/config.v1.json --run true
  # Looking is possible when asked for, and the refusal says so.
  expect_fail 1 "\b$pid\b.*-U" obd info disk
  expect_fail 2 "\b$pid\b" obd check disk
  grep -q -- -U <<<"$said" || fail "obd check does not tell of -U: $said"
  expect_fail 1 "\b$pid\b.*-U" obd map disk
  expect_fail 1 "\b$pid\b" obd seal disk
  expect_fail 1 "\b$pid\b" obd export disk -o disk.raw
  [[ ! -e disk.raw ]] || fail 'the refused export left a file'
  # Nor does --force touch what a server holds.
  expect_fail 1 "\b$pid\b" obd import lower.raw -o disk/writable_data --force
  expect_fail 1 "\b$pid\b" obd export other -o disk/writable_data --force
  expect_fail 1 "lower.lsmt: in use by process $pid\b" obd import lower.raw -o lower.lsmt --force
  expect_fail 1 'index of a writable layer' obd import lower.raw -o disk/writable_index --force
  obd info -U disk >/dev/null
  obd map -U disk >/dev/null
}

serve disk
expect_refused "$nbdkit_pid"
# A lower may be shared.
with_server other true
stop_nbdkit
with_server disk true

# After a fork into the background, the holder is the process that serves.
nbdkit --pidfile "$tmp/background.pid" --unix "$tmp/background.sock" "$OBD_PLUGIN" \
  disk/config.v1.json
# The parent leaves as soon as it has forked; the server writes the file when it is ready.
wait_until "$$" test -s background.pid || fail 'nbdkit did not go into the background'
background=$(<background.pid)
cleanup_fn stop_pid "$background"
expect_refused "$background"
qemu_io "nbd+unix:///?socket=$tmp/background.sock" 'write -P 0x5a 64k 4k'
kill -KILL "$background"
while kill -0 "$background" 2>/dev/null; do sleep 0.02; done

# The lock goes with its holder; what it wrote stays.
serve disk
qemu_io "$uri" 'read -P 0x5a 64k 4k'
stop_nbdkit
