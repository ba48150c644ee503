#!/usr/bin/env bash
# obd-mount by FUSE: what is not its own, or not what its state says, is neither believed nor touched.
# Foreign files and processes, other images on a directory, a state that is broken or gone, another
# mount namespace with the same paths.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command mkfs.ext4

mkdir mnt mnt2
obd create disk --size 64M --mkfs ext4 >/dev/null
obd create other --size 64M --mkfs ext4 >/dev/null

# recover in a folder that is something else's: all stays.
mkdir -m 700 documents documents/0123456789abcdef documents/letters
echo text | tee documents/0123456789abcdef/{disk,server.log} documents/0123456789abcdef.lock \
  documents/letters/draft >documents/fedcba9876543210.lock
fingerprint documents >before
expect_fail 1 'not a lock file' "$OBD_MOUNT" recover --state-dir documents
rm documents/*.lock
fingerprint documents >before
expect_fail 1 'without an attachment.json' "$OBD_MOUNT" recover --state-dir documents
rm --recursive documents/0123456789abcdef*
fingerprint documents >before
expect_fail 1 'is no state folder: it holds letters' "$OBD_MOUNT" recover --state-dir documents
fingerprint documents >after
expect_same before after
expect_fail 1 'others could write' "$OBD_MOUNT" recover --state-dir /tmp

# A foreign file among an image's own stays, and is told of.
obd_mount dir disk mnt >/dev/null
folder=$(echo "$state"/*/)
echo text >"$folder/draft"
expect_fail 1 'draft: was not made by obd-mount' obd_mount_admin umount mnt
[[ $(<"$folder/draft") == text ]] || fail 'a foreign file is gone'
rm "$folder/draft"
obd_mount_admin recover >/dev/null
expect_nothing_left 'a foreign file'

# After a reboot the numbers in the records are those of others, even with the same start time.
obd_mount dir disk mnt >/dev/null
cp --recursive "$state" kept
obd_mount_admin umount mnt
sleep 1000 &
bystander=$!
cleanup_fn kill $bystander
ticks=$(sed 's/.*) //' /proc/$bystander/stat | cut --delimiter=' ' --fields=20)
# become_stale RECORD [BOOT-ID]: the state as it was, but for the records and the boot.
become_stale() {
  rm --recursive --force "$state"
  cp --recursive kept "$state"
  printf '%s\n' "$1" | tee "$state"/*/{server,front_end}.pid >"$(echo "$state"/*/)/supervisor.pid"
  [[ -z ${2:-} ]] || sed --in-place "s/\"bootId\": \".*\"/\"bootId\": \"$2\"/" "$state"/*/attachment.json
}
for umount in umount 'umount --force'; do
  become_stale "$bystander $ticks of-another-boot" of-another-boot
  # shellcheck disable=SC2086
  obd_mount_admin $umount disk
  # The kernel's boot id, so that only the command tells it from a server.
  become_stale "$bystander $ticks $(</proc/sys/kernel/random/boot_id)"
  # shellcheck disable=SC2086
  obd_mount_admin $umount disk
  kill -0 $bystander || fail "$umount killed a foreign process"
  expect_nothing_left 'stale records'
done

# Another image than the one that was mounted there, as the state believes, is mounted there now.
obd_mount dir disk mnt >/dev/null
umount mnt
obd_mount dir other mnt >/dev/null
obd_mount_admin umount mnt
expect_json <(obd_mount_admin list --json) 'length == 1' '.[0].image | endswith("/disk/config.v1.json")'
mount --types tmpfs none mnt
expect_fail 4 'not attached' obd_mount_admin umount mnt
umount mnt
# A foreign mount that only bears the device's name.
mount --types tmpfs "$(obd_mount_admin list --json | jq --raw-output '.[0].device')" mnt2
expect_fail 5 'mounted there' obd_mount dir disk mnt2
expect_fail 4 'not attached' obd_mount_admin umount mnt2
umount mnt2
obd_mount_admin umount disk
expect_nothing_left 'other mounts'

# A state that cannot be read is not "nothing attached".
obd_mount dir disk mnt >/dev/null
folder=$(echo "$state"/*/)
mv "$folder/attachment.json" kept.json
head -c 40 kept.json >"$folder/attachment.json"
for command in 'umount mnt' 'umount disk' 'umount other' list recover; do
  # shellcheck disable=SC2086
  expect_fail 1 'attachment.json: cannot be understood' obd_mount_admin $command
done
expect_fail 1 'attachment.json: cannot be understood' obd_mount dev disk
# Nor is one that somebody has removed, with its folder or without.
rm "$folder/attachment.json"
for round in file folder; do
  expect_fail 1 '/dev/loop.* is mounted there, of which' obd_mount_admin umount mnt
  expect_fail 1 'tells nothing of it, but there is process' obd_mount_admin umount disk
  expect_fail 1 'is missing, but there is process' obd_mount dev disk
  [[ $round == folder ]] || mv "$folder" moved
done
rm --recursive --force "$folder"
mv moved "$folder"
mv kept.json "$folder/attachment.json"
obd_mount_admin umount mnt
expect_nothing_left 'a broken state'

# Another mount namespace has other files under the same paths: neither takes the other's device.
obd_mount dir disk mnt >/dev/null
obd_mount_admin list --json >list.json
cat >elsewhere.sh <<'SCRIPT'
set -e
umount mnt
umount "$1"/*/disk
obd-mount list --state-dir "$1" --json | cmp - list.json
[ -z "$(obd-mount recover --state-dir "$1")" ]
mount --types tmpfs --options mode=0700 none "$1"
mount --bind other disk
obd-mount dev disk --state-dir "$1" --backend fuse >device
obd-mount umount disk --state-dir "$1"
SCRIPT
PATH=$OBD_BUILD_DIR/bin:$PATH unshare --mount --propagation private \
  bash elsewhere.sh "$state" || fail 'in another mount namespace'
[[ $(<device) == /dev/loop* && $(<device) != "$(jq --raw-output '.[0].device' list.json)" ]] ||
  fail "another mount namespace got $(<device), as here: $(<list.json)"
echo still >mnt/there
obd_mount_admin umount mnt
expect_nothing_left 'two mount namespaces'
obd check disk >/dev/null
