#!/usr/bin/env bash
# Two virtual machines from one base: both boot, at the same time, the root file system in a sealed
# layer, and write to it, each to a layer of its own.
. "$(dirname "$0")/guest.sh"
requires_command mkfs.ext4 e2fsck debugfs

# A root file system: busybox, and an init that tells the machine's name by a file.
mkdir -p root/{bin,dev,mnt,proc,sbin}
cp "$(command -v busybox)" root/bin/busybox
cat >root/sbin/init <<'INIT'
#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
if busybox grep -q '^/dev/vda / ext4 rw' /proc/mounts && [ ! -e /name ] &&
  echo "$machine" >/name && busybox dd if=/dev/urandom of=/noise bs=64k count=32 &&
  busybox sha256sum /noise >/sums && busybox mount -o remount,ro /; then
  echo 'RESULT: PASS'
else
  echo 'RESULT: FAIL (in the root file system)'
fi
busybox poweroff -f
INIT
chmod 755 root/sbin/init
truncate --size 64M root.raw
mkfs.ext4 -q -F -d root root.raw
obd import root.raw -o base.lsmt
obd create one --type append --lower base.lsmt
obd create two --type sparse --lower base.lsmt
sha256sum base.lsmt >base.sum

# Only loads the modules of the disk, and hands over to it.
make_initramfs switch </dev/null
server_pids=()
for name in one two; do
  start_nbdkit "$name" "$OBD_PLUGIN" "$name/config.v1.json"
  server_pids+=("$nbdkit_pid")
  start_guest "$name" --initramfs switch --nbd "$tmp/$name.sock" \
    --append "root=/dev/vda rw machine=$name"
done
end_guest one
end_guest two
for nbdkit_pid in "${server_pids[@]}"; do stop_nbdkit; done

sha256sum --quiet --check base.sum
obd verify base.lsmt
for name in one two; do
  obd check "$name"
  obd verify "$name"
  obd export "$name" -o "$name.raw"
  # The journal of a root file system that was only made read-only is empty.
  e2fsck -f -n "$name.raw" >e2fsck.log 2>&1 || fail "the file system of $name is not clean"
  mkdir "$name.files"
  debugfs -R "rdump / $name.files" "$name.raw" 2>>debugfs.log
  [[ $(<"$name.files/name") == "$name" ]] || fail "$name is called $(<"$name.files/name")"
  (cd "$name.files" && sed 's:/::' sums | sha256sum --quiet --check)
done
if cmp --silent one.files/noise two.files/noise; then fail 'both guests wrote the same noise'; fi
