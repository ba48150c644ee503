#!/usr/bin/env bash
# obd-mount by FUSE, when not a process dies but something else breaks: a connection under a server
# that lives, a state folder without space, a server that hangs when its disk is taken away.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command mkfs.ext4 strace

# The folder of the state has a file system of its own, and little space.
mkdir "$state" mnt
chmod 0700 "$state"
mount -t tmpfs -o size=128k,mode=0700 none "$state"
obd create disk --size 256M >/dev/null
obd_mount dir disk mnt --mkfs ext4 >/dev/null
server_is_not() { [[ $(pid_of server) != "$1" ]]; }

# A connection ends although its server lives: the server is ended, for it could carry out an old
# request late, and its successor serves. (Here the third reply is lost.)
server=$(pid_of server)
strace --quiet=all --follow-forks --output=broken --attach="$server" --trace=sendto \
  --inject=sendto:error=ECONNRESET:when=3 2>strace.log &
cleanup_fn kill -KILL $!
wait_for 5 grep --quiet '^TracerPid:[[:space:]]*[1-9]' "/proc/$server/status"
for i in {1..20}; do
  head -c 64K /dev/urandom >"mnt/file$i"
  sync "mnt/file$i" || fail 'a write failed when a connection broke'
done
grep --quiet INJECTED broken || fail "no connection was broken: $(<strace.log)"
wait_for 10 server_is_not "$server"
wait_for 5 is_dead "$server"
sha256sum mnt/file* >sums
expect_json <(obd_mount_admin list --json) '.[0].state == "attached"' '.[0].restarts == 1'

# No space is left in the state folder: a successor starts all the same, and nothing new does.
dd if=/dev/zero of="$state/filler" bs=4K status=none 2>/dev/null && fail 'the folder is not full'
server=$(pid_of server)
kill -KILL "$server"
wait_for 20 server_is_not "$server"
echo more >mnt/more
sync mnt/more || fail 'a write failed when the state folder was full'
obd create other --size 16M >/dev/null
expect_fail 1 'No space left on device' obd_mount dev other
[[ $(find "$state" -mindepth 1 -maxdepth 1 -type d | wc -l) == 1 ]] || fail "left: $(ls "$state")"
obd_mount_admin umount mnt
rm "$state/filler"
[[ -z $(ls -A "$state") ]] || fail "left in the state folder: $(ls "$state")"
umount "$state"
expect_nothing_left 'a full state folder'

# A server that hangs, under a disk that is taken away by force, does not hang the helper.
obd_mount dir disk mnt >/dev/null
sha256sum --check --quiet sums
[[ $(<mnt/more) == more ]] || fail 'a file is lost'
umount mnt
server=$(pid_of server)
kill -STOP "$server"
timeout 60 "$OBD_MOUNT" umount --force disk --state-dir "$state" >umount.log 2>&1 ||
  fail "umount --force: $(<umount.log)"
wait_for 5 is_dead "$server"
expect_nothing_left 'a disk that was taken away'
obd check disk >/dev/null

# A host disk that is full: an unmount does not hide that writes were lost.
mkdir small
mount -t tmpfs -o size=20m none small
cleanup_fn umount --lazy "$tmp/small"
obd create small/disk --size 200M --mkfs ext4 >/dev/null
obd_mount dir small/disk mnt >/dev/null
head -c 40M /dev/urandom >mnt/big || true
expect_fail 1 'stays mounted' obd_mount_admin umount mnt
mountpoint --quiet mnt || fail 'it was unmounted all the same'
obd_mount_admin umount --force mnt || fail 'umount --force'
umount small

# Mounted over its own files, an image could not be served again.
for inside in disk .; do
  expect_fail 1 'would be hidden' obd_mount dir disk "$inside"
done
expect_nothing_left 'a refused mount'

# Its folder has gone, but the word for it still means the image.
obd_mount dev other >/dev/null
rm --recursive other
obd_mount_admin umount other || fail 'an image without files is not found'
expect_nothing_left 'an image without files'
