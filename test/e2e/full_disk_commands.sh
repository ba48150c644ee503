#!/usr/bin/env bash
# Commands on a host file system that is full: the image stays whole, nothing half-written remains,
# and with space they work: full_disk_commands.sh append|sparse
own_mounts=yes
. "$(dirname "$0")/functions.sh"
type=$1

mkdir small
mount -t tmpfs -o size=32M none small
cleanup_fn umount small
random_raw one.raw 2M
random_raw two.raw 1M
obd import one.raw -o small/one.lsmt >/dev/null
obd import two.raw -o small/two.lsmt >/dev/null
obd create small/disk --type "$type" --lower small/{one,two}.lsmt --size 64M >/dev/null
serve small/disk
# Overwrites and zeros, for there to be something to compact; many extents, for an index to write.
writes=('write -P 1 0 4M' 'write -P 2 1M 4M' 'write -P 0 2M 1M')
for ((i = 0; i < 600; ++i)); do writes+=("write -P $((i % 200 + 3)) $((16384 + i * 24))k 8k"); done
qemu_io "$uri" "${writes[@]}" 'write -P 9 1M 1M'
stop_nbdkit
read_disk small/disk expected.raw

fill() { head -c 64M /dev/zero >small/filler 2>/dev/null || true; }
# Names and sizes; the log may have grown by the marker of a session.
files() {
  find small -type f ! -name filler \( -name writable_index -printf '%p\n' -o -printf '%p %s\n' \) |
    sort
}
config() { cat small/disk/config.v1.json; }

writers=('commit small/disk -o small/changes.lsmt' 'commit small/disk -o small/changes.z -z zstd'
  'merge small/disk -o small/all.lsmt'
  'merge small/disk --range 0..1 --replace -o small/low.lsmt')
changers=('compact small/disk' 'seal small/disk' 'clone small/disk small/copy'
  'resize small/disk 128M')

# expect_no_space COMMAND: it fails for want of space and leaves everything as it was. Compacting may
# also succeed, as giving back comes before taking, and may have written down what is zero.
expect_no_space() {
  local command=$1 before config_before status=0
  before=$(files) config_before=$(config)
  # shellcheck disable=SC2086
  obd $command >said 2>&1 || status=$?
  if [[ $command != compact* || $status != 0 ]]; then
    ((status == 1)) || fail "$command: exit status $status, $(<said)"
    grep -q 'No space left on device' said || fail "$command said: $(<said)"
  fi
  [[ $(config) == "$config_before" ]] || fail "$command changed the config"
  # A sparse file may be longer by a hole that nothing names: resizing makes room first.
  [[ $command == compact* || $command == resize* || $(files) == "$before" ]] ||
    fail "$command left: $(diff <(echo "$before") <(files))"
  [[ $(files | wc -l) == $(wc -l <<<"$before") ]] || fail "$command left a file: $(files)"
  obd check small/disk >/dev/null
  expect_disk small/disk expected.raw -r
}

# Filled to the last page; then so that they fail on the way.
for free in 0 16; do
  fill
  truncate -s -${free}K small/filler
  for command in "${writers[@]}"; do expect_no_space "$command"; done
  rm small/filler
done
for command in "${changers[@]}"; do
  fill
  expect_no_space "$command"
done
rm small/filler

# Once there is space, each goes through: nothing is in the way.
for command in "${writers[@]}" 'compact small/disk'; do
  # shellcheck disable=SC2086
  obd $command >said 2>&1 || fail "$command with space: $(<said)"
  rm -f small/changes.* small/all.lsmt
  expect_disk small/disk expected.raw -r
done
serve small/disk
qemu_io "$uri" 'write -P 77 60M 64k'
stop_nbdkit
obd seal small/disk >/dev/null
obd check small/disk >/dev/null
serve small/disk -r
qemu_io_read "$uri" 'read -P 77 60M 64k' 'read -P 9 1M 1M'
stop_nbdkit
