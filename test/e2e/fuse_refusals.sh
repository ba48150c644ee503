#!/usr/bin/env bash
# What obd-fuse refuses, and with which error: requests of the disk's users, command lines, servers.
own_mounts=yes
. "$(dirname "$0")/functions.sh"
. "$source_dir/test/e2e/fuse_functions.sh"
requires_command losetup python3

# --- command lines and what is not there ---
: >free
fuse=$OBD_FUSE
expect_fail 0 'Examples:' "$fuse" --help
expect_fail 0 '^obd-fuse [0-9]' "$fuse" --version
expect_fail 0 '^Usage: obd-fuse .OPTIONS. .URI. MOUNTPOINT$' "$fuse" --help
expect_fail 2 'PLACES is required' "$fuse"
expect_fail 2 'no server is given' "$fuse" free
expect_fail 2 'name the server once' "$fuse" --socket server.sock nbd://localhost free
expect_fail 2 'connections' "$fuse" --connections 0 --socket server.sock free
expect_fail 2 'give-up-after' "$fuse" --give-up-after -1 --socket server.sock free
expect_fail 2 'Try .obd-fuse --help' "$fuse" --no-such-option --socket server.sock free
expect_fail 1 'server.sock: cannot connect' "$fuse" --socket server.sock free
expect_fail 1 'cannot connect' "$fuse" nbd+unix://?socket=server.sock free

obd create disk --size 16M
serve disk
mkdir folder
echo full >full
expect_fail 1 'folder: is no regular file' "$fuse" --socket server.sock folder
expect_fail 1 'full: is not empty' "$fuse" --socket server.sock full
expect_fail 1 'none: cannot be mounted on: No such file' "$fuse" --socket server.sock none
expect_fail 1 'ready-fd 77: cannot write: Bad file' "$fuse" --socket server.sock --ready-fd 77 free
if mountpoint --quiet free; then fail 'a failed start left its mount behind'; fi
# Neither side's end matters to the other's start: it can be mounted after all.
"$fuse" "$uri" free 2>>fuse.log &
fuse_pid=$!
cleanup_fn eval "is_own $fuse_pid && kill -KILL $fuse_pid"
wait_until $fuse_pid mountpoint --quiet free
kill -TERM $fuse_pid
wait $fuse_pid || fail 'a SIGTERM was no orderly end'

# --- requests ---
# expect_errno NAME PYTHON: the statements must raise OSError with that errno; `fd` is the file.
expect_errno() {
  python3 - "$1" "$2" <<'PYTHON' || fail "$2 did not give $1"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
def fallocate(mode, offset, length):
    if libc.fallocate(fd, mode, offset, length): raise OSError(ctypes.get_errno(), "fallocate")
size = 16 << 20
try:
    fd = os.open("file", os.O_RDWR)
    exec(sys.argv[2])
except OSError as error:
    print(sys.argv[2], "->", errno.errorcode[error.errno])
    sys.exit(error.errno != getattr(errno, sys.argv[1]))
sys.exit(1)
PYTHON
}

start_fuse
expect_errno ENOSPC 'os.pwrite(fd, bytes(4096), size)'
expect_errno ENOSPC 'os.pwrite(fd, bytes(4096), size + (1 << 40))'
expect_errno EPERM 'os.ftruncate(fd, 0)'
expect_errno EPERM 'os.ftruncate(fd, size + 512)'
expect_errno EPERM 'os.open("file", os.O_RDWR | os.O_TRUNC)'
expect_errno EPERM 'os.chmod("file", 0o777)'
expect_errno EOPNOTSUPP 'fallocate(0, 0, size)'
expect_errno ENOSPC 'fallocate(0x10, size - 512, 1024)'
python3 - <<'PYTHON'
import os
size = 16 << 20
fd = os.open("file", os.O_RDWR)
# Up to the end, and nothing beyond.
assert os.pwrite(fd, b"x" * 8192, size - 4096) == 4096
assert os.pread(fd, 8192, size - 4096) == b"x" * 4096
assert os.pread(fd, 8192, size) == b""
assert os.pread(fd, 10, size - 5) == b"x" * 5
os.ftruncate(fd, size)
os.fsync(fd)
PYTHON
stop_fuse

# --- read-only ---
start_fuse --read-only
expect_fail 1 'Read-only file system' dd if=/dev/zero of=file bs=4096 count=1 conv=notrunc
attach_loop
[[ $(losetup --noheadings --output RO "$loop" | tr -d ' ') == 1 ]] || fail 'the loop device can be written'
tail --bytes=4096 "$loop" | cmp - <(head -c 4096 /dev/zero | tr '\0' x)
losetup --detach "$loop"
stop_fuse
stop_nbdkit
serve disk -r
start_fuse
expect_fail 1 'Read-only file system' dd if=/dev/zero of=file bs=4096 count=1 conv=notrunc
# It never wrote, but it has to go on with a server that it could write to.
kill_nbdkit
serve disk
cmp --bytes=4096 file /dev/zero
stop_fuse
stop_nbdkit

# --- a server that serves whole sectors only ---
start_nbdkit server --filter=blocksize-policy memory 16M blocksize-minimum=512 \
  blocksize-error-policy=error
start_fuse
expect_errno EINVAL 'os.pwrite(fd, bytes(100), 0)'
expect_errno EINVAL 'os.pwrite(fd, bytes(512), 100)'
expect_errno EINVAL 'fallocate(3, 100, 512)'
stop_fuse
stop_nbdkit

# --- the server's errors ---
start_nbdkit server --filter=error memory 16M error-pwrite=ENOSPC error-pwrite-rate=100% \
  error-pread=EIO error-pread-rate=100% error-zero=EPERM error-zero-rate=100%
start_fuse
expect_errno ENOSPC 'os.pwrite(fd, bytes(4096), 0)'
expect_errno EIO 'os.pread(fd, 4096, 0)'
expect_errno EPERM 'fallocate(3, 0, 4096)'
stop_fuse
stop_nbdkit

# A full host, and space again.
mkdir small
mount -t tmpfs -o size=8M none small
cleanup_fn umount "$tmp/small"
obd create small/disk --size 16M
serve small/disk
start_fuse
attach_loop
random_raw some.raw 12M
expect_fail 1 'No space left on device' dd if=some.raw of="$loop" bs=64k oflag=direct conv=notrunc
blkdiscard "$loop"
mount -o remount,size=64M small
dd if=some.raw of="$loop" bs=64k oflag=direct conv=notrunc status=none
cmp --bytes=$((12 * 1024 * 1024)) file some.raw
losetup --detach "$loop"
stop_fuse
stop_nbdkit

# --- a server that is gone when the disk is unmounted: nothing can be flushed, and that is told ---
start_nbdkit server memory 16M
start_fuse
kill_nbdkit
until_said 'lost the connection'
unmount_file
status=0
wait $fuse_pid || status=$?
((status == 1)) || fail "an end without a flush gave status $status"
grep --quiet 'there was no server when the disk was unmounted' fuse.log
