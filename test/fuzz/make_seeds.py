#!/usr/bin/python3
"""Makes the seed corpora of the fuzz targets from the fixtures: make_seeds.py FIXTURES OUT"""

import hashlib
import pathlib
import shutil
import struct
import sys

HEADER = 4096
ZFILE_HEADER = 512
# Markers of an index log: an update has begun, and is done.
BEGUN, DONE = (struct.pack("<QQ", (1 << 50) - 1, kind << 56 | 0x123456) for kind in (5, 6))
LARGEST = 64 * 1024  # what is larger makes a fuzzer slow

fixtures = pathlib.Path(sys.argv[1])
out = pathlib.Path(sys.argv[2])


def seed(target, content):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def lz4_block(content):
    """Literals alone."""
    rest = len(content) - 15
    return bytes([0xF0]) + b"\xff" * (rest // 255) + bytes([rest % 255]) + content


def zstd_block(content):
    """A frame with its size, of one block that repeats the first byte."""
    header = b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", len(content) - 256)
    return header + struct.pack("<I", len(content) << 3 | 3)[:3] + content[:1]


def zfile(algorithm, blocks, block_size, content_size, final):
    """Without any checksum, and small: a fuzzer gets further with it than with real ones."""
    data = b"".join(blocks)
    table = b"".join(struct.pack("<I", len(block)) for block in blocks)

    def header(flags):
        fields = struct.pack(
            "<IIQQQQIIIBBB", 96, 0, flags, ZFILE_HEADER + len(data), len(blocks), content_size,
            0, 0, block_size, algorithm, 0, 0,
        )  # fmt: skip
        magic = b"ZFile\0\1\0tuji.yyf@Alibaba"
        return (magic + fields).ljust(ZFILE_HEADER, b"\0")

    return header(0x0B if final else 0x03) + data + table + header(0x06)


shutil.rmtree(out, ignore_errors=True)
files = sorted(path for path in fixtures.rglob("*") if path.is_file())

for path in files:
    content = path.read_bytes()
    if path.suffix == ".json" and path.name != "manifest.json":
        seed("config", content)
    if path.suffix in (".lsmt", ".data", ".index"):
        seed("lsmt_header", content[:HEADER])
    if path.suffix == ".lsmt":
        seed("lsmt_header", content[-HEADER:])
        if len(content) <= LARGEST:
            seed("sealed_layer", content)
    if path.suffix == ".zfile":
        seed("zfile_header", content[:ZFILE_HEADER] + content[-ZFILE_HEADER:])
        seed("zfile_header", content[-ZFILE_HEADER:] + content[-2 * ZFILE_HEADER : -ZFILE_HEADER])
    if path.suffix in (".zfile", ".tar") and len(content) <= LARGEST:
        for target in ("sealed_layer", "zfile", "tar"):
            seed(target, content)
    if path.suffix == ".index" and len(content) <= LARGEST:
        for choice in range(4):
            seed("index_log", bytes([choice]) + content[HEADER:])
            for marks in ((BEGUN,), (BEGUN, DONE)):
                seed("index_log", bytes([choice]) + content[HEADER:] + b"".join(marks))

# Right images of all kinds: test/fuzz/image_recipe.h.
for lowers in (0, 1, 3, 8):
    for flags in range(0, 64, 3):
        seed("image", struct.pack("<BBIBB", lowers, flags, 77 * flags + lowers, flags, flags))

for algorithm, compress in ((1, lz4_block), (2, zstd_block)):
    for byte in (b"a", b"b"):
        for size in (512, 4096):
            block = compress(byte * size)
            seed("zfile_block", struct.pack("<BH", algorithm - 1, size) + block)
        last = compress(byte * 300)
        small = zfile(algorithm, [compress(byte * 512)] * 3 + [last], 512, 1836, byte == b"a")
        for target in ("zfile", "zfile_header"):
            seed(target, small)

# libzstd also reads the formats of its versions 0.5 to 0.7.
for version in b"\x25\x26\x27":
    seed("zfile_block", struct.pack("<BH", 1, 512) + bytes([version]) + b"\xb5\x2f\xfd" + bytes(24))
