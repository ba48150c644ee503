#!/usr/bin/env bash
# A file system in daily use: an ext4 made by obd, sealed, written to on a layer above it through
# nbdfuse and a loop device, its server killed and started again: ext4.sh append|sparse
own_mounts=yes
. "$(dirname "$0")/functions.sh"
type=$1
requires_command mkfs.ext4 e2fsck fstrim
requires_fuse
requires_loop_devices

# attach MOUNT-OPTION: serves ./top and mounts its file system on ./mnt.
attach() {
  serve top
  nbdfuse fuse --unix "$tmp/server.sock" 2>>nbdfuse.log &
  nbdfuse_pid=$!
  cleanup_fn stop_pid $nbdfuse_pid
  cleanup_fn fusermount3 -u "$tmp/fuse"
  wait_until $nbdfuse_pid test -e fuse/nbd || fail 'nbdfuse did not start'
  loop=$(losetup --find --show --direct-io=on fuse/nbd)
  cleanup_fn detach_loop "$loop"
  mount -o "$1" "$loop" mnt
  cleanup_fn umount "$tmp/mnt"
  mountpoint --quiet mnt
}

detach() {
  umount mnt
  losetup --detach "$loop"
  # A process of the system may look at a device that has just changed.
  for ((i = 0; i < 200; ++i)); do
    fusermount3 -u fuse 2>>nbdfuse.log && break
    sleep 0.02
  done
  wait $nbdfuse_pid || fail 'nbdfuse failed at its end'
}

# As the documentation of ext4 has it: a clean file system gives 0.
check_file_system() {
  obd export "$1" -o exported.raw --force >/dev/null
  e2fsck -f -n exported.raw >>e2fsck.log 2>&1 || fail 'the file system is not clean'
}

obd create base --type "$type" --size 256M --mkfs ext4
check_file_system base
obd seal base
obd create top --type "$type" --from base
mkdir fuse mnt

attach discard
cp -r "$source_dir/core" mnt/core
random_raw mnt/large 24M
for ((i = 0; i < 300; ++i)); do echo "file $i" >"mnt/small-$i"; done
(cd mnt && find . -type f -print0 | xargs -0 sha256sum) >sums
umount mnt
mount -o discard "$loop" mnt
(cd mnt && sha256sum --quiet --check "$tmp/sums")
detach
kill_nbdkit
check_file_system top

# Without the mount option, what is deleted is given back by fstrim alone.
attach nodiscard
(cd mnt && sha256sum --quiet --check "$tmp/sums")
random_raw mnt/larger 48M
sync --file-system mnt/larger
rm mnt/larger
sync --file-system mnt
fstrim mnt
echo 'after the trim' >mnt/last
detach
stop_nbdkit
check_file_system top
obd check top
obd info --json top >info.json
# The deleted 48 MiB are live no more; a sparse layer has also given them back to the host.
expect_json info.json '.layers[-1].live_bytes < 40 * 1048576'
if [[ $type == sparse ]]; then
  expect_json info.json '.layers[-1].allocated_bytes < 40 * 1048576'
fi

attach discard
(cd mnt && sha256sum --quiet --check "$tmp/sums")
[[ $(<mnt/last) == 'after the trim' ]] || fail 'the last file is wrong'
detach
kill_nbdkit
