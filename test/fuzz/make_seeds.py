#!/usr/bin/python3
"""Makes the seed corpora of the fuzz targets from the fixtures: make_seeds.py FIXTURES OUT"""

import gzip
import hashlib
import io
import pathlib
import shutil
import struct
import sys
import tarfile

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


def part(role, content):
    return bytes([role]) + struct.pack("<I", len(content))[:3] + content


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
good = (fixtures / "bad" / "good.lsmt").read_bytes()

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
            seed("image", part(0, content))
            seed("image", part(0, good) + part(0, content))
    if path.suffix == ".zfile":
        seed("zfile_header", content[:ZFILE_HEADER] + content[-ZFILE_HEADER:])
        seed("zfile_header", content[-ZFILE_HEADER:] + content[-2 * ZFILE_HEADER : -ZFILE_HEADER])
    if path.suffix in (".zfile", ".tar") and len(content) <= LARGEST:
        for target in ("sealed_layer", "zfile", "tar"):
            seed(target, content)
        seed("image", part(0, content))
        seed("image", part(0, good) + part(0, content))
    if path.suffix == ".index" and len(content) <= LARGEST:
        for choice in range(4):
            seed("index_log", bytes([choice]) + content[HEADER:])
            for marks in ((BEGUN,), (BEGUN, DONE)):
                seed("index_log", bytes([choice]) + content[HEADER:] + b"".join(marks))
        data = path.with_suffix(".data")
        if data.exists() and data.stat().st_size <= LARGEST:
            seed("image", part(1, data.read_bytes()) + part(2, content))
            seed("image", part(0, good) + part(1, data.read_bytes()) + part(2, content))
            marked = content + BEGUN + DONE
            seed("image", part(1, data.read_bytes()) + part(2, marked))

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


def member(name, kind=tarfile.REGTYPE, content=b"", link="", **pax):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.pax_headers = kind, len(content), link, pax
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = 259, 3
    return info, content


def layer(*members, tar_format=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    # Without the padding to 10 KiB.
    end = len(out.getvalue().rstrip(b"\0"))
    return out.getvalue()[: (end + 511) // 512 * 512 + 1024]


def old_sparse():
    """One range of data in a header of GNU's."""
    info, _ = member("s")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"%011o\0" % 512
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (4096, 512)
    header[483:495] = b"%011o\0" % 10000
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"s" * 512 + bytes(1024)


DIRECTORY, SYMLINK, HARD_LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
XATTR = {"SCHILY.xattr.user.note": "text", "SCHILY.acl.default": "user::rwx,group::r-x,other::r-x"}
ACL = {"SCHILY.acl.access": "user::rwx,user:7:r--,group::r-x,mask::rwx,other::---"}
SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.realsize": "9000"}
MAP = "2\n1024\n512\n9000\n0\n".encode().ljust(512, b"\0")
layers = [
    layer(member("d", DIRECTORY, **XATTR), member("d/f", content=b"x" * 5000, **ACL)),
    layer(member("d/l", SYMLINK, link="../f"), member("f"), member("h", HARD_LINK, link="f")),
    layer(member("c", tarfile.CHRTYPE), member("b", tarfile.BLKTYPE), member("p", tarfile.FIFOTYPE)),
    layer(member("a/b/f", content=b"1"), member("a/.wh.b"), member("a/.wh..wh..opq"), member(".wh.a")),
    layer(member("n" * 200), member("l", SYMLINK, link="t" * 300), tar_format=tarfile.GNU_FORMAT),
    layer(member("x", DIRECTORY), member("x"), member("x", DIRECTORY), member("x/../y", mtime="-1.5")),
    layer(member("up", SYMLINK, link="../.."), member("up/f"), member("/abs"), member("../out")),
    layer(member("s", content=b"s" * 512, **SPARSE, **{"GNU.sparse.map": "0,100,8588,412"})),
    layer(
        member("s", content=MAP + b"s" * 512, **{**SPARSE, "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
    ),
    old_sparse(),
]
for content in layers:
    seed("layer_tar", content)
    seed("layer_apply", content)
seed("layer_tar", gzip.compress(layers[0], mtime=0))
# Stored, not compressed: a frame of one raw block.
seed("layer_tar", b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", 1024)
     + struct.pack("<I", 1024 << 3 | 1)[:3] + layers[0][:1024])
