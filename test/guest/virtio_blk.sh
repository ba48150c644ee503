#!/usr/bin/env bash
# The disk of a virtual machine: a guest makes a file system on an export, uses it while the server
# is killed and started again, and gives back what it deleted: virtio_blk.sh append|sparse
. "$(dirname "$0")/guest.sh"
type=$1
requires_command mkfs.ext4 e2fsck debugfs

make_initramfs machine "$(command -v mkfs.ext4)" "$(command -v fstrim)" <<'GUEST'
# The disk is full of random bytes from the layer below: none of them may come through.
mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -t ext4 -o errors=panic /dev/vda /mnt
mkdir /mnt/files
cd /mnt/files
for i in $(seq 1 40); do
  dd if=/dev/urandom of=file-$i bs=64k count=8 conv=fsync 2>/dev/null
  echo "WRITTEN $i"
done
sync

dd if=/dev/urandom of=/mnt/large bs=1M count=48 conv=fsync 2>/dev/null
rm /mnt/large
for i in $(seq 1 2 40); do rm file-$i; done
sha256sum * >/mnt/sums
sync
fstrim /mnt

cd /
umount /mnt
! dmesg | grep -i 'i/o error\|blk_update_request\|buffer error'
GUEST

random_raw base.raw 64M
obd import base.raw -o base.lsmt
obd create disk --type "$type" --lower base.lsmt --size 192M
sha256sum base.lsmt >base.sum

serve disk
start_guest machine --nbd "$tmp/server.sock"
wait_console machine '^WRITTEN 6'
kill_nbdkit
# Long enough for the guest to wait for answers that will not come.
sleep 0.5
serve disk
end_guest machine
# What the guest has trimmed goes back to the host within seconds.
for ((i = 0; i < 100; ++i)); do
  obd info --json --force-share disk >info.json
  ! jq --exit-status '.layers[-1] | .allocated_bytes <= 1.05 * .live_bytes' info.json >is_less ||
    break
  sleep 0.2
done
expect_json info.json '.layers[-1] | .allocated_bytes <= 1.05 * .live_bytes'
stop_nbdkit

obd check disk
sha256sum --quiet --check base.sum
obd export disk -o disk.raw
e2fsck -f -n disk.raw >e2fsck.log 2>&1 || fail 'the file system is not clean'
mkdir out
debugfs -R 'rdump /files out' disk.raw 2>>debugfs.log
debugfs -R 'dump /sums sums' disk.raw 2>>debugfs.log
(($(wc -l <sums) == 20)) || fail "there are not 20 files but: $(<sums)"
(cd out/files && sha256sum --quiet --check "$tmp/sums")

# 10 MiB of files are left of 68, and a layer may hold a journal of zeros, 16 MiB.
expect_json info.json '.layers[-1].live_bytes < 32 * 1048576'
