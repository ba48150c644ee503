#!/usr/bin/env bash
# obd-mount dir and dev by FUSE: mount, write, unmount, mount again, compare; what scripts read.
# Arguments: TYPE of the writable layer, FSTYPE.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
type=$1 fstype=$2
requires_command "mkfs.$fstype" fstrim

mkdir mnt mnt2
obd create disk --size 512M --type "$type" >/dev/null

# Without a file system: nothing to mount, and nothing stays attached.
expect_fail 1 'holds no file system.*--mkfs' obd_mount dir disk mnt
expect_fail 1 'holds no file system.*--mkfs' obd_mount dev disk --json
expect_nothing_left 'a refused mount'

obd_mount dir disk mnt --mkfs "$fstype" --json >first.json
expect_json first.json 'length == 1' '.[0] | keys == ["options", "source", "type"]' \
  '.[0].type == "bind"' ".[0].source == \"$tmp/mnt\"" '.[0].options == ["rw", "rbind"]'
findmnt --noheadings --output FSTYPE,OPTIONS mnt | grep --quiet "^$fstype .*discard" ||
  fail "not mounted as it should be: $(findmnt mnt)"
for i in {1..20}; do head -c 1M /dev/urandom >"mnt/file$i"; done
sha256sum mnt/file* >sums

# The same call again changes nothing; another directory shows the same disk.
obd_mount dir disk mnt --mkfs "$fstype" --json | cmp - first.json || fail 'the same call again'
(($(grep --count " $tmp/mnt " /proc/self/mountinfo) == 1)) || fail 'mounted twice on one directory'
obd_mount dir disk mnt2 >/dev/null
cmp mnt/file1 mnt2/file1
obd_mount_admin list --json >list.json
expect_json list.json 'length == 1' '.[0].state == "attached"' '.[0].backend == "fuse"' \
  ".[0].directories == [\"$tmp/mnt\", \"$tmp/mnt2\"]" '.[0].restarts == 0' '.[0].read_only == false'
device=$(jq --raw-output '.[0].device' list.json)
[[ $(obd_mount dev disk) == "$device" ]] || fail 'dev names another device than dir'
expect_fail 1 'attached for writing' obd_mount dev disk --read-only

# In use: told, and left as it is.
exec 7>mnt2/open
expect_fail 5 'mnt2.*in use' obd_mount_admin umount mnt2
exec 7>&-
obd_mount_admin umount mnt2
obd_mount_admin umount mnt
[[ -b $device && $(losetup --noheadings --output BACK-FILE "$device") == "$state"/*/disk ]] ||
  fail 'the device that dev has handed out went with the last directory'
mount -t "$fstype" "$device" mnt2
expect_fail 5 "mounted on $tmp/mnt2" obd_mount_admin umount disk
umount mnt2
exec 7<"$device"
expect_fail 5 'open in process' obd_mount_admin umount "$device"
exec 7<&-
obd_mount_admin umount "$device"
expect_nothing_left umount
expect_fail 4 'not attached' obd_mount_admin umount "$device"
expect_fail 4 'not attached' obd_mount_admin umount disk
obd check disk >/dev/null

# dev, mounted by the caller with what it was told.
obd_mount dev disk --json >dev.json
expect_json dev.json ".[0].type == \"$fstype\"" '.[0].options[0:2] == ["rw", "discard"]'
mount -t "$(jq -r '.[0].type' dev.json)" -o "$(jq -r '.[0].options | join(",")' dev.json)" \
  "$(jq -r '.[0].source' dev.json)" mnt
sha256sum --check --quiet sums || fail 'other files than were written'

# Space comes back from the file system's trims.
live() { obd info -U disk --json | jq '.layers[-1].live_bytes'; }
before=$(live)
rm mnt/file{2..20}
sync -f mnt
fstrim mnt
# xfs frees deleted files in the background.
for ((i = 0; i < 50 && $(live) >= before - (16 << 20); ++i)); do sleep 0.2 && fstrim mnt; done
(($(live) < before - (16 << 20))) || fail "fstrim freed too little: $before, then $(live)"
umount mnt
obd_mount_admin umount disk
expect_nothing_left umount

# What lies under something else is not forgotten, and a loop device over the device is a user.
obd_mount dir disk mnt >/dev/null
mount -t tmpfs none mnt
expect_fail 5 'lies over it' obd_mount_admin umount mnt
umount mnt
over=$(losetup --find --show "$(obd_mount dev disk)")
cleanup_fn detach_over
# Once: after that the number may be that of another test's device.
detach_over() {
  [[ -z $over ]] || losetup --detach "$over"
  over=
}
umount mnt
expect_fail 5 "shown by $over" obd_mount_admin umount disk
detach_over
obd_mount_admin umount disk
expect_nothing_left umount

# A state folder is the same by any of its names.
ln -s "$state" state-link
"$OBD_MOUNT" dir disk mnt --state-dir state-link/ --backend fuse >/dev/null
obd_mount dir disk mnt >/dev/null
expect_json <(obd_mount_admin list --json) 'length == 1' '.[0].state == "attached"'
obd_mount_admin umount mnt
expect_nothing_left umount

# Read-only: of this image, and of one without a writable layer.
obd_mount dir disk mnt --read-only --json >ro.json
expect_json ro.json '.[0].options == ["ro", "rbind"]'
cmp <(head -n 1 sums) <(sha256sum mnt/file1)
expect_fail 1 'Read-only' touch mnt/file1
obd_mount_admin umount mnt
obd seal disk >/dev/null
expect_fail 1 'no writable layer.*--read-only' obd_mount dev disk
obd_mount dev disk --read-only --json >ro.json
expect_json ro.json '.[0].options[0] == "ro"' ".[0].type == \"$fstype\""
obd_mount_admin umount disk

# Content that may be hostile.
expect_fail 2 '--untrusted needs --fstype' obd_mount dir disk mnt --read-only --untrusted
obd_mount dir disk mnt --read-only --untrusted --fstype "$fstype" >/dev/null
findmnt --noheadings --output OPTIONS mnt | grep nosuid | grep --quiet nodev ||
  fail "not mounted as untrusted: $(findmnt mnt)"
obd_mount_admin umount mnt
expect_nothing_left 'everything'

# What cannot be.
expect_fail 1 'no such|No such' obd_mount dir disk nowhere --read-only
expect_fail 1 'nothing.json' obd_mount dev nothing.json
expect_fail 2 'IMAGE' obd_mount dev
expect_fail 2 'backend' "$OBD_MOUNT" dev disk --backend smoke
expect_fail 1 'others could write' "$OBD_MOUNT" dev disk --read-only --state-dir /tmp
obd create over --from disk >/dev/null
expect_fail 1 "holds $fstype.*not overwritten|already holds $fstype" obd_mount dir over mnt --mkfs ext2
expect_fail 2 "'64X' is not a size" obd_mount dev disk --read-only --cache-size 64X
: >file
expect_fail 1 "^obd-mount: $PWD/file: cannot mount" obd_mount dir over file
expect_fail 1 "^obd-mount: $PWD/mnt: cannot mount.*foo=bar.*the image's disk" \
  obd_mount dir over mnt --options foo=bar
expect_nothing_left 'refusals'

# A caller that cannot be told gets nothing.
untold() { obd_mount "$@" >/dev/full; }
expect_fail 1 'could not write to standard output: No space' untold dir over mnt
expect_fail 1 'could not write to standard output' untold dev over
hung_up() { obd_mount "$@" >&9; }
mkfifo pipe
exec 8<>pipe
exec 9>pipe 8<&-
expect_fail 1 'could not write to standard output: Broken pipe' hung_up dev over
exec 9>&-
nowhere() { obd_mount "$@" >&-; }
expect_fail 1 'could not write to standard output: Bad file' nowhere dev over
expect_nothing_left 'an answer that went nowhere'
# A directory in use: by whom?
obd_mount dir over mnt >/dev/null
(
  cd mnt
  exec sleep 60 >/dev/null 2>&1
) &
sitter=$!
expect_fail 5 "$PWD/mnt: is in use: process $sitter .sleep. has a file open" obd_mount_admin umount mnt
kill "$sitter"
wait "$sitter" || true
obd_mount_admin umount mnt
expect_nothing_left 'a directory in use'
