#!/usr/bin/env bash
# nbdfuse passes on what programs write, be it two bytes, and no loop device makes blocks of it:
# nbdfuse.sh append|sparse
. "$(dirname "$0")/functions.sh"
requires_fuse
requires_command e2fsck mkfs.ext4
type=$1

obd create disk --type "$type" --size 64M >/dev/null
serve disk
mkdir fuse
nbdfuse fuse --unix "$tmp/server.sock" 2>nbdfuse.log &
nbdfuse_pid=$!
cleanup_fn stop_pid $nbdfuse_pid
cleanup_fn fusermount3 -u fuse
wait_until $nbdfuse_pid test -e fuse/nbd || fail 'nbdfuse did not start'
mkfs.ext4 -q -F fuse/nbd
# Finds nothing wrong, and writes when it looked: a few bytes of the superblock.
e2fsck -f -y fuse/nbd >e2fsck.log 2>&1 || fail 'e2fsck failed'
poke fuse/nbd 12345678 'seven b'
poke fuse/nbd 4094 'over'
fusermount3 -u fuse
wait $nbdfuse_pid || fail 'nbdfuse failed at its end'
[[ ! -s nbdfuse.log ]] || fail "nbdfuse said: $(<nbdfuse.log)"
kill_nbdkit

read_disk disk disk.raw -r
[[ $(tail -c +12345679 disk.raw | head -c 7) == 'seven b' ]] || fail 'seven bytes are not there'
[[ $(tail -c +4095 disk.raw | head -c 4) == 'over' ]] || fail 'bytes over a block are not there'
obd check disk >/dev/null
