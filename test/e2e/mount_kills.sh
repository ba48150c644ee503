#!/usr/bin/env bash
# obd-mount by FUSE: who dies does no harm. Server, supervisor, helper and front end, each alone,
# a server that cannot live, and what a reboot leaves.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
requires_command mkfs.ext4 e2fsck strace

mkdir mnt
obd create disk --size 256M >/dev/null
obd_mount dir disk mnt --mkfs ext4 --max-upper-size 1G --detect-zeroes unmap --gc off --gc-rate 8M \
  >/dev/null
device=$(obd_mount_admin list --json | jq --raw-output '.[0].device')

server_is_not() { [[ $(pid_of server) != "$1" ]]; }
# Kills the server and waits for the next one.
kill_server() {
  local server
  server=$(pid_of server)
  kill -KILL "$server"
  wait_for 20 server_is_not "$server"
}

# The server, five times while files are written: nobody sees an error.
write_files() {
  local i
  for i in {1..40}; do
    head -c 256K /dev/urandom >"mnt/file$i"
    sync "mnt/file$i"
  done
  sha256sum mnt/file* >sums
}
write_files &
writer=$!
for i in {1..5}; do
  kill_server
  sleep 0.1
done
wait "$writer" || fail 'a write failed when the server died'
(($(obd_mount_admin list --json | jq '.[0].restarts') >= 5)) || fail 'restarts are not counted'
# Each server is told what the first one was.
server_words=$(tr '\0' ' ' <"/proc/$(pid_of server)/cmdline")
for word in max-upper-size=1073741824 detect-zeroes=unmap gc=off gc-rate=8388608; do
  [[ $server_words == *" $word "* ]] || fail "no $word: $server_words"
done

# The supervisor: the disk works on, and recover starts another one.
kill -KILL "$(pid_of supervisor)"
wait_for 5 is_dead "$(pid_of supervisor)"
sha256sum --check --quiet sums
expect_json <(obd_mount_admin list --json) '.[0].state == "unsupervised"'
obd_mount_admin doctor | grep --quiet 'no supervisor' || fail 'doctor does not see it'
obd_mount_admin recover | grep --quiet 'supervised again' || fail 'recover'
obd_mount_admin recover | grep . && fail 'recover did something twice'
kill_server
echo after >mnt/after
sync mnt/after

# A server that stops answering without dying.
kill -STOP "$(pid_of server)"
( echo late >mnt/late && sync mnt/late ) &
late=$!
sleep 0.3
kill -KILL "$(pid_of server)"
wait "$late" || fail 'a write to a stopped server failed'

# The helper, while it attaches and while it detaches: see mount_failures.sh.

# The front end: the device is dead, what was synced is not.
kill -KILL "$(pid_of front_end)"
wait_for 5 is_dead "$(pid_of front_end)"
expect_json <(obd_mount_admin list --json) '.[0].state == "dead"'
expect_fail 1 'front end has died' obd_mount_admin recover
expect_fail 1 'is lost; detach it with --force' obd_mount_admin umount mnt
obd_mount_admin recover | grep --quiet 'took down.*is lost' || fail 'recover of a dead front end'
expect_nothing_left 'a dead front end'
obd check disk >/dev/null
obd_mount dir disk mnt >/dev/null
sha256sum --check --quiet sums || fail 'synced files were lost with the front end'
[[ $(<mnt/after) == after && $(<mnt/late) == late ]] || fail 'a synced file was lost'
obd_mount_admin umount mnt
device=$(obd_mount dev disk --dead-timeout 3)
e2fsck -fn "$device" >fsck.log 2>&1 || fail 'e2fsck'

# A server that cannot live is left down, with its last words; once it can again, recover helps.
mv disk/writable_data disk/away
kill -KILL "$(pid_of server)"
is_given_up() { jq --exit-status '.givenUp' "$state"/*/server.json; }
wait_for 60 is_given_up
obd_mount_admin list --json >list.json
expect_json list.json '.[0].state == "down"' '.[0].last_words | test("writable_data|upper|no writable")'
expect_fail 1 'does not run any more' obd_mount_admin umount disk
mv disk/away disk/writable_data
obd_mount_admin recover | grep --quiet 'supervised again' || fail 'recover of a server that was down'
is_ready() { [[ -e $(echo "$state"/*/server.ready) ]]; }
wait_for 10 is_ready
# The front end needs a moment to connect again.
wait_for 10 dd if="$device" of=/dev/null bs=4K count=1 iflag=direct status=none
obd_mount_admin umount disk
expect_nothing_left 'a server that was down'

# After a reboot the state names what is not there; the next call starts afresh.
obd_mount dev disk >/dev/null
cp --recursive "$state" kept
obd_mount_admin umount disk
rm --recursive --force "$state"
mv kept "$state"
sed --in-place 's/"bootId": ".*"/"bootId": "of another boot"/' "$state"/*/attachment.json
obd_mount_admin doctor | grep --quiet 'before the last boot' || fail 'doctor does not see it'
obd_mount_admin doctor --fix >/dev/null
expect_nothing_left 'a reboot'

# A server that is up before the process between it and the helper has ended: nbdkit 1.32 takes the
# end of its parent for a wish to end.
strace --daemonize --follow-forks --output=trace --trace=clone --inject=clone:delay_exit=300000 \
  "$OBD_MOUNT" dev disk --state-dir "$state" --backend fuse >/dev/null
expect_json <(obd_mount_admin list --json) '.[0].state == "attached"' '.[0].restarts == 0'
obd_mount_admin umount disk
expect_nothing_left 'a slow start'
