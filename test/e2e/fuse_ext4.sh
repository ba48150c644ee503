#!/usr/bin/env bash
# An ext4 on a loop device over obd-fuse: used, trimmed, served anew while mounted, and taken down in
# the wrong order and the right one: fuse_ext4.sh append|sparse
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/fuse_functions.sh"
requires_command losetup mkfs.ext4 e2fsck fstrim
type=$1

obd create disk --type "$type" --size 128M
serve disk
start_fuse
attach_loop
mkfs.ext4 -q "$loop"
mkdir mnt
mount "$loop" mnt
cleanup_fn umount "$tmp/mnt"

cp -r "$source_dir/core" mnt/core
random_raw mnt/large 48M
(cd mnt && find . -type f -print0 | xargs -0 sha256sum) >sums
kill_nbdkit
serve_again disk
sync --file-system mnt
echo 3 >/proc/sys/vm/drop_caches
(cd mnt && sha256sum --quiet --check "$tmp/sums")

obd info --force-share --json disk >full.json
rm mnt/large
sync --file-system mnt
fstrim mnt
obd info --force-share --json disk >trimmed.json
expect_json full.json '.layers[-1].live_bytes > 48 * 1048576'
expect_json trimmed.json '.layers[-1].live_bytes < 40 * 1048576'

# A disk in use is not taken away, neither by an unmount nor by a signal.
expect_fail 32 'busy' umount file
for signal in TERM INT; do
  kill -$signal $fuse_pid
  sleep 0.3
  kill -0 $fuse_pid || fail "SIG$signal ended obd-fuse although its disk was in use"
done
until_said 'is in use: not ended by the signal'
echo 'still there' >mnt/last
umount mnt
mount "$loop" mnt
[[ $(<mnt/last) == 'still there' ]] || fail 'the last file is wrong'
umount mnt
losetup --detach "$loop"
# Nobody uses it now, or only for a moment.
for ((i = 0; i < 100; ++i)); do
  kill -TERM $fuse_pid 2>/dev/null || break
  sleep 0.05
done
wait $fuse_pid || fail 'obd-fuse failed at its end'
if mountpoint --quiet file; then fail 'the file is still mounted'; fi
stop_nbdkit
if [[ $type == sparse ]]; then
  obd info --json disk >closed.json
  expect_json closed.json '.layers[-1].allocated_bytes < 40 * 1048576'
fi
obd export disk -o exported.raw >/dev/null
e2fsck -f -n exported.raw >e2fsck.log 2>&1 || fail 'the file system is not clean'
