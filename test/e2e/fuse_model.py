#!/usr/bin/env python3
"""Random reads, writes, trims and zeroes against a model in memory.

fuse_model.py FILE DEVICE SEED OPERATIONS: FILE shows a disk, all zeros at first, and DEVICE is a
block device over it; each operation takes one of the two.
"""

import ctypes
import fcntl
import mmap
import os
import random
import struct
import sys

SECTOR = 512
LARGEST = 3 << 20
BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def main():
    path, device, seed, operations = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rand = random.Random(seed)
    # The device's cache would not see what is written to the file.
    fds = {"file": os.open(path, os.O_RDWR), "device": os.open(device, os.O_RDWR | os.O_DIRECT)}
    size = os.fstat(fds["file"]).st_size
    model = bytearray(size)
    memory = mmap.mmap(-1, LARGEST)

    def check(where, offset, length):
        # Only the file takes any offset; a direct read of a device is one of sectors.
        got = os.preadv(fds[where], [memoryview(memory)[:length]], offset)
        assert got == length, f"{where}: {got} of {length} bytes read at {offset}"
        if memory[:length] != model[offset : offset + length]:
            first = next(i for i in range(length) if memory[i] != model[offset + i])
            raise AssertionError(f"{where}: wrong byte at {offset + first}, read at {offset}")

    for number in range(operations):
        where = rand.choice(("file", "device"))
        fd = fds[where]
        largest = rand.choice((SECTOR, 4096, 65536, LARGEST))
        length = rand.randrange(SECTOR, largest + 1, SECTOR)
        offset = rand.randrange(0, size - length + 1, SECTOR)
        kind = rand.choice(("read", "read", "write", "write", "trim", "zero", "flush"))
        try:
            if kind == "read":
                if where == "file":
                    offset += rand.randrange(SECTOR)
                    length = max(1, min(length, size - offset) - rand.randrange(SECTOR))
                check(where, offset, length)
            elif kind == "write":
                data = rand.randbytes(length)
                memory[:length] = data
                written = os.pwritev(fd, [memoryview(memory)[:length]], offset)
                assert written == length, f"{written} of {length} bytes written at {offset}"
                model[offset : offset + length] = data
            elif kind == "flush":
                os.fsync(fd)
            else:
                if where == "device":
                    request = BLKDISCARD if kind == "trim" else BLKZEROOUT
                    fcntl.ioctl(fd, request, struct.pack("QQ", offset, length))
                else:
                    fallocate(fd, KEEP_SIZE | (PUNCH_HOLE if kind == "trim" else ZERO_RANGE), offset, length)
                model[offset : offset + length] = bytes(length)
        except Exception:
            print(f"operation {number}: {kind} of {length} bytes at {offset} by the {where}")
            raise
    for offset in range(0, size, LARGEST):
        check("file", offset, min(LARGEST, size - offset))
        check("device", offset, min(LARGEST, size - offset))


main()
