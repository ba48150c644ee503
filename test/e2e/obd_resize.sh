#!/usr/bin/env bash
# obd resize: a larger disk with the same ext4, which grows into it, and back:
# obd_resize.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1
requires_command mkfs.ext4 e2fsck resize2fs dumpe2fs

check_file_system() {
  obd export disk -o exported.raw --force >/dev/null
  e2fsck -f -n exported.raw >e2fsck.log 2>&1 || fail 'the file system is not clean'
}

obd create base --size 64M --mkfs ext4 >/dev/null
obd seal base >/dev/null
obd create disk --type "$type" --from base >/dev/null
serve disk
expect_fail 1 "process $nbdkit_pid" obd resize disk 128M
stop_nbdkit

obd resize disk +64M >resize.out
grep -q '128 MiB' resize.out
obd check disk
obd info --json disk >info.json
expect_json info.json '.virtual_size == 128 * 1048576' '.layers[-1].warnings == []'
check_file_system
serve disk
[[ $(nbdinfo --size "$uri") == $((128 << 20)) ]] || fail 'the served disk has another size'
qemu_io "$uri" 'read -P 0 64M 64M' 'write -P 5 127M 1M'
stop_nbdkit

# The file system grows into it.
serve disk
qemu_io "$uri" 'discard 127M 1M'
stop_nbdkit
obd export disk -o work.raw --force >/dev/null
e2fsck -f -y work.raw >e2fsprogs.log 2>&1
resize2fs work.raw >>e2fsprogs.log 2>&1
serve disk
nbdcopy work.raw "$uri"
stop_nbdkit
check_file_system
(($(stat --format=%s exported.raw) == 128 << 20)) || fail 'the exported disk has another size'
dumpe2fs -h exported.raw 2>/dev/null | grep -q 'Block count: *131072\|Block count: *32768' ||
  fail 'the file system has not grown'

# Shrinking is asked for twice, never cuts data, and says where it ends.
fingerprint disk >before
expect_fail 1 'needs --force' obd resize disk 64M
fingerprint disk >after
diff before after
serve disk
qemu_io "$uri" 'write -P 7 120M 64k'
stop_nbdkit
expect_fail 1 'ends at byte' obd resize disk 96M --force
obd resize disk 126M --force
serve disk
qemu_io "$uri" 'read -P 7 120M 64k'
stop_nbdkit
obd check disk

# What lies below a part that was cut off does not come back.
random_raw lower.raw 4M
obd import lower.raw -o lower.lsmt >/dev/null
obd create small --type "$type" --lower lower.lsmt --size 1M >/dev/null 2>&1
obd resize small 6M --json >resize.json
expect_json resize.json '.hidden_bytes == 3 * 1048576' '.old_virtual_size == 1048576'
truncate -s 1M lower.raw
truncate -s 6M lower.raw
expect_disk small lower.raw
obd resize small 6M >resize.out
grep -q 'nothing to resize' resize.out

for size in 0 1000 9E abc; do expect_fail 2 SIZE obd resize disk $size; done
for size in +100 +7.9E; do expect_fail 1 SIZE obd resize disk $size; done
expect_fail 1 'no upper' obd resize base 1G
