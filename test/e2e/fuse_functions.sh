# What the tests of obd-fuse share, besides functions.sh, after which it is read. A test sets
# own_mounts=yes, so that its mounts go away with it.
# shellcheck shell=bash

OBD_FUSE=${OBD_FUSE:-$OBD_BUILD_DIR/bin/obd-fuse}
[[ -x $OBD_FUSE ]] || fail "build first: $OBD_FUSE is missing"
requires_root
[[ -w /dev/fuse ]] || skip '/dev/fuse cannot be used'

# start_fuse OPTION...: shows the disk of server.sock as ./file; sets fuse_pid. What it says goes to
# fuse.log.
start_fuse() {
  rm -f ready
  : >>file
  "$OBD_FUSE" --socket "$tmp/server.sock" --ready-fd 9 "$@" file 9>ready 2>>fuse.log &
  fuse_pid=$!
  cleanup_fn umount --lazy "$tmp/file"
  cleanup_fn end_fuse $fuse_pid
  wait_until $fuse_pid grep --quiet ready ready || fail 'obd-fuse did not start'
}

# For cleaning up. The mount stays until the loop device has been detached: without it, the device
# would not be known as this test's.
end_fuse() { [[ ! /proc/$1/exe -ef $OBD_FUSE ]] || kill -KILL "$1"; }

# A server for a disk that is in use. Cleaning up ends obd-fuse before it: without a server, what
# uses the disk would wait for ever.
serve_again() {
  serve "$@"
  cleanup_fn end_fuse "$fuse_pid"
}

# Unmounts the file, which ends obd-fuse.
stop_fuse() {
  unmount_file
  wait "$fuse_pid" || fail 'obd-fuse failed at its end'
}

# A process of the system may look at a device that has just changed.
unmount_file() {
  local i
  for ((i = 0; i < 500; ++i)); do
    umount file 2>>umount.log && return
    sleep 0.02
  done
  fail 'the file cannot be unmounted'
}

# attach_loop OPTION...: the file as a block device; sets loop.
attach_loop() {
  requires_loop_devices
  loop=$(losetup --find --show --direct-io=on "$@" "$tmp/file")
  cleanup_fn detach_loop "$loop"
}

# until_said TEXT: waits for a line of obd-fuse.
until_said() { wait_until "$fuse_pid" grep --quiet "$1" fuse.log || fail "never said: $1"; }
