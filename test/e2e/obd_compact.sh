#!/usr/bin/env bash
# obd compact: dead space goes back to the host, the disk stays: obd_compact.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1
requires_command e2fsck mkfs.ext4

obd create disk --type "$type" --size 128M --mkfs ext4 >/dev/null
# Without the server's own reclaim, so that all is left to do here.
start_nbdkit server "$OBD_PLUGIN" disk/config.v1.json gc=off
for ((i = 0; i < 4; ++i)); do qemu_io "$uri" "write -P $((i + 1)) 70M 8M"; done
qemu_io "$uri" 'write -P 0 80M 8M' 'discard 72M 2M'
expect_fail 1 "process $nbdkit_pid" obd compact disk
kill_nbdkit
read_disk disk expected.raw
ls disk >names.before
obd info --json disk >before.json

obd compact disk --json >compact.json
expect_json compact.json '.changed' '.freed_bytes >= 8 * 1048576' '.zeroed_bytes >= 8 * 1048576' \
  '.before.uuid == .after.uuid' '.after.dead_bytes == 0'
ls disk >names.after
diff names.before names.after
if [[ $type == append ]]; then
  expect_json compact.json '.freed_bytes >= 32 * 1048576' \
    '.after.file_bytes == .after.live_bytes + 4096'
fi
expect_disk disk expected.raw
obd check disk
obd export disk -o exported.raw
e2fsck -f -n exported.raw >e2fsck.log 2>&1 || fail 'the file system is not clean'

# Again: nothing to do, and nothing is touched.
fingerprint disk/writable_data disk/writable_index >before
obd compact disk >compact.out
grep -q 'nothing to compact' compact.out
fingerprint disk/writable_data disk/writable_index >after
diff before after

# It is written to as before.
serve disk
qemu_io "$uri" 'write -P 9 100M 1M' 'write -P 8 70M 64k'
nbdcopy "$uri" live.raw
kill_nbdkit
expect_disk disk live.raw
obd compact disk >compact.out
expect_disk disk live.raw

obd seal disk
expect_fail 1 'no upper' obd compact disk
