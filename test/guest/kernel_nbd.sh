#!/usr/bin/env bash
# The kernel's own NBD client: in a guest, the plugin serves an image to /dev/nbd0, which holds a
# file system that is used, trimmed, detached, and attached again.
. "$(dirname "$0")/guest.sh"
requires_command nbd-client mkfs.ext4 e2fsck debugfs

for program in nbd-client mkfs.ext4 fstrim; do
  image_programs+=("$(command -v "$program")")
done
make_initramfs kernel_nbd --module 'nbd nbds_max=2' "${image_programs[@]}" <<'GUEST'
attach() {
  rm -f /run/disk.sock
  nbdkit --unix /run/disk.sock --pidfile /run/disk.pid "$plugin" /tmp/disk/config.v1.json
  nbd-client -unix /run/disk.sock /dev/nbd0
  [ "$(cat /sys/block/nbd0/size)" = 262144 ]
}

detach() {
  nbd-client -d /dev/nbd0
  kill "$(cat /run/disk.pid)"
  while [ -d "/proc/$(cat /run/disk.pid)" ]; do sleep 0.1; done
}

obd create /tmp/disk --type sparse --size 128M
attach
mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0
mount -t ext4 -o errors=panic /dev/nbd0 /mnt
tar xf /dev/vda -C /mnt
dd if=/dev/urandom of=/mnt/large bs=1M count=32 conv=fsync 2>/dev/null
rm /mnt/large
sync
fstrim /mnt
umount /mnt
detach

obd check /tmp/disk
attach
mount -t ext4 -o errors=panic /dev/nbd0 /mnt
(cd /mnt && sha256sum -s -c sums)
umount /mnt
detach
! dmesg | grep -i 'i/o error\|blk_update_request\|buffer error'

tar cf /dev/vdb -C /tmp disk
GUEST

cp -r "$source_dir/core" files
(cd files && find . -type f -print0 | xargs -0 sha256sum) >sums
mv sums files/sums
files_disk in.tar -C files .
truncate --size 160M out.tar
boot kernel_nbd --raw in.tar --raw out.tar --append "plugin=$guest_plugin"

# The image, as the guest left it: all files on it, and nothing of what was trimmed.
tar xf out.tar
obd check disk
obd export disk -o disk.raw
e2fsck -f -n disk.raw >e2fsck.log 2>&1 || fail 'the file system is not clean'
mkdir out
debugfs -R 'rdump / out' disk.raw 2>>debugfs.log
rmdir out/lost+found
diff -r files out
obd info --json disk >info.json
expect_json info.json '.layers[-1].live_bytes < 24 * 1048576'
