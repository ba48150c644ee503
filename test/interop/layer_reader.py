#!/usr/bin/python3
"""Reads overlaybd images and layers, independently of the engine: written from the format alone,
slow and strict, so that what the engine writes can be checked by something that shares no code and
no mistake with it.

    layer_reader.py IMAGE.json|LAYER... [-o RAW]

Several layers are a stack, bottom first. Prints the size and the SHA-256 of the disk, or writes it
to RAW. Any broken rule of the format is an error: a sentence on standard error, exit status 1.
The disk is held in memory.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys

import lz4.block
import zstandard

SECTOR = 512
LSMT_MAGIC = bytes.fromhex("4C534D5400010200" "657E63D29444084CA2D2C8EC4FCFAE8A")
ZFILE_MAGIC = bytes.fromhex("5A46696C65000100" "74756A692E79796640416C6962616261")
INVALID = (1 << 50) - 1


class FormatError(Exception):
    pass


def require(condition, sentence):
    if not condition:
        raise FormatError(sentence)


def make_crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = make_crc_table()


def crc32c(register, data):
    """CRC-32C on a plain register: no inversion before or after."""
    for byte in data:
        register = register >> 8 ^ CRC_TABLE[(register ^ byte) & 0xFF]
    return register


# ---- containers ----


def untar(data):
    """The member of a tar wrapper, or the data itself."""
    block = data[:512]
    if block[257:262] != b"ustar":
        return data

    def checked(offset):
        header = data[offset : offset + 512]
        require(header[263:265] == b"00", f"tar block at {offset}: version {header[263:265]}")
        spaces = header[:148] + b" " * 8 + header[156:]
        stored = int(header[148:156].strip(b" \0"), 8)
        require(stored == sum(spaces), f"tar block at {offset}: checksum {stored}")
        return header

    header = checked(0)
    if header[156:157] != b"x":
        size = int(header[124:136].strip(b" \0"), 8)
        start = 512
    else:
        records = data[512:1024].rstrip(b"\0")
        require(b" size=" in records, "tar: the pax record has no size")
        size = int(records.split(b" size=")[1].split(b"\n")[0])
        require(checked(1024)[156:157] == b"0", "tar: the member is no file")
        start = 1536
    require(start + size <= len(data), f"tar: a member of {size} bytes does not fit")
    end = start + (size + 511) // 512 * 512
    require(not any(data[start + size : end + 1024]), "tar: padding and end are not zeros")
    require(len(data) >= end + 1024, "tar: the two blocks at the end are missing")
    return data[start : start + size]


def zfile_fields(block, where):
    require(block[:24] == ZFILE_MAGIC, f"{where}: no ZFile magic")
    names = ("size", "digest", "flags", "index_offset", "index_size", "original", "index_crc")
    fields = dict(zip(names, struct.unpack_from("<IIQQQQI", block, 24)))
    names = ("block_size", "algorithm", "level", "use_dict")
    fields.update(zip(names, struct.unpack_from("<IBBB", block, 72)))
    fields["dict_size"], fields["verify"] = struct.unpack_from("<IB", block, 84)
    if fields["flags"] & 16:
        blank = block[:28] + bytes(4) + block[32:512]
        require(crc32c(0, blank) == fields["digest"], f"{where}: the digest does not fit")
    return fields


def unzfile(data):
    """The content of a ZFile, or the data itself."""
    if data[:24] != ZFILE_MAGIC:
        return data
    info = zfile_fields(data[:512], "ZFile header")
    require(info["flags"] & 3 == 3, f"ZFile header: flags {info['flags']:#x}")
    trailer = zfile_fields(data[-512:], "ZFile trailer")
    require(trailer["flags"] & 7 == 6, f"ZFile trailer: flags {trailer['flags']:#x}")
    if info["flags"] & 8:
        for name, value in info.items():
            if name not in ("flags", "digest"):
                require(trailer[name] == value, f"ZFile: {name} differs in header and trailer")
    else:
        info = trailer
    require(info["use_dict"] == 0 and info["dict_size"] == 0, "ZFile: a dictionary")
    count, block_size, original = info["index_size"], info["block_size"], info["original"]
    require(count == -(-original // block_size), f"ZFile: {count} blocks for {original} bytes")
    table_end = info["index_offset"] + 4 * count
    require(table_end == len(data) - 512, f"ZFile: the jump table ends at {table_end}")
    raw_table = data[info["index_offset"] : table_end]
    if info["flags"] & 16:
        require(crc32c(0, raw_table) == info["index_crc"], "ZFile: the jump table's CRC")
    content = bytearray()
    offset = 512
    for number, length in enumerate(struct.unpack(f"<{count}I", raw_table)):
        stored = data[offset : offset + length]
        offset += length
        want = min(block_size, original - number * block_size)
        if info["verify"]:
            packed, crc = stored[:-4], struct.unpack("<I", stored[-4:])[0]
            require(crc32c(100007, packed) == crc, f"ZFile block {number}: CRC")
        else:
            packed = stored
        if info["algorithm"] == 1:
            block = lz4.block.decompress(packed, uncompressed_size=want)
        else:
            require(info["algorithm"] == 2, f"ZFile: algorithm {info['algorithm']}")
            block = zstandard.ZstdDecompressor().decompress(packed, max_output_size=want)
        require(len(block) == want, f"ZFile block {number}: {len(block)} bytes, not {want}")
        content += block
    require(offset == info["index_offset"], f"ZFile: blocks end at {offset}")
    return bytes(content)


# ---- LSMT ----


def lsmt_header(block, where):
    require(block[:24] == LSMT_MAGIC, f"{where}: no LSMT magic")
    names = ("size", "flags", "index_offset", "index_size", "virtual_size")
    fields = dict(zip(names, struct.unpack_from("<IIQQQ", block, 24)))
    require(fields["size"] == 390, f"{where}: struct size {fields['size']}")
    require(fields["virtual_size"] % SECTOR == 0, f"{where}: virtual_size")
    # A writable sparse layer of ours says that it has an index log (docs/format.md, section 1).
    mark = block[504:512] if fields["flags"] == 0x13 else b""
    require(mark in (b"", bytes(8), b"OBD-LOG1"), f"{where}: mark {mark!r}")
    padding = block[390:504] + (b"" if mark else block[504:512]) + block[512:4096]
    require(not any(padding), f"{where}: padding that is not zeros")
    return fields


def entries(data):
    """(offset, length, moffset, zeroed) in sectors, invalid entries left out."""
    for word0, word1 in struct.iter_unpack("<QQ", data):
        offset = word0 & INVALID
        if offset != INVALID:
            yield offset, word0 >> 50, word1 & (1 << 55) - 1, bool(word1 >> 55 & 1)


def sealed_layer(path):
    """(virtual size, [(offset, length, bytes or None for zeros)])"""
    data = unzfile(untar(path.read_bytes()))
    require(len(data) >= 8192, f"{path}: too short for a layer")
    header = lsmt_header(data[:4096], f"{path}: header")
    require(header["flags"] & 3 == 3, f"{path}: header flags {header['flags']:#x}")
    end = len(data) - 4096
    trailer = lsmt_header(data[end:], f"{path}: trailer")
    require(trailer["flags"] & 7 == 6, f"{path}: trailer flags {trailer['flags']:#x}")
    begin, count = trailer["index_offset"], trailer["index_size"]
    require(count <= 1_000_000, f"{path}: {count} index entries")
    require(begin % SECTOR == 0 and begin + 16 * count <= end, f"{path}: index_offset {begin}")
    extents = []
    last = 0
    for offset, length, moffset, zeroed in entries(data[begin : begin + 16 * count]):
        where = f"{path}: entry at sector {offset}"
        require(length > 0, f"{where}: no length")
        require(offset >= last, f"{where}: out of order")
        last = offset + length
        stop = moffset if zeroed else moffset + length
        require(8 <= moffset and stop <= begin // SECTOR, f"{where}: moffset {moffset}")
        piece = None if zeroed else data[moffset * SECTOR : stop * SECTOR]
        extents.append((offset, length, piece))
    return trailer["virtual_size"], extents


def upper_layer(data_path, index_path):
    """As sealed_layer, of a writable pair: every whole record counts, later ones win."""
    data = data_path.read_bytes()
    log = index_path.read_bytes()
    header = lsmt_header(data[:4096], f"{data_path}: header")
    log_header = lsmt_header(log[:4096], f"{index_path}: header")
    require(log_header["flags"] & 7 == 1, f"{index_path}: flags {log_header['flags']:#x}")
    require((len(log) - 4096) % 16 == 0, f"{index_path}: a torn record")
    require(len(data) % SECTOR == 0, f"{data_path}: an unaligned end")
    require(
        log_header["virtual_size"] == header["virtual_size"], f"{index_path}: another virtual_size"
    )
    extents = []
    for offset, length, moffset, zeroed in entries(log[4096:]):
        where = f"{index_path}: record at sector {offset}"
        require(length > 0, f"{where}: no length")
        stop = moffset if zeroed else moffset + length
        require(8 <= moffset and stop * SECTOR <= len(data), f"{where}: moffset {moffset}")
        if header["flags"] & 16 and not zeroed:
            require(moffset == offset + 8, f"{where}: not in its place")
        piece = None if zeroed else data[moffset * SECTOR : stop * SECTOR]
        extents.append((offset, length, piece))
    return header["virtual_size"], extents


# ---- images ----


def layers_of(argument):
    path = pathlib.Path(argument)
    if path.is_dir():
        path = path / "config.v1.json"
    if not path.read_bytes()[:4096].lstrip().startswith(b"{"):
        return [sealed_layer(path)]
    config = json.loads(path.read_text())
    layers = [sealed_layer(path.parent / lower["file"]) for lower in config.get("lowers") or []]
    upper = config.get("upper") or {}
    if upper.get("data") and upper.get("index"):
        layers.append(upper_layer(path.parent / upper["data"], path.parent / upper["index"]))
    return layers


def read_disk(arguments):
    layers = [layer for argument in arguments for layer in layers_of(argument)]
    size = 0
    for virtual_size, _ in layers:
        size = virtual_size or size
    disk = bytearray(size)
    for _, extents in layers:
        for offset, length, piece in extents:
            content = bytes(length * SECTOR) if piece is None else piece
            begin = offset * SECTOR
            end = min(begin + len(content), size)
            if begin < end:
                disk[begin:end] = content[: end - begin]
    return disk


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("target", nargs="+", metavar="IMAGE.json|LAYER")
    parser.add_argument("-o", "--output", metavar="RAW", help="write the disk to this file")
    options = parser.parse_args()
    try:
        disk = read_disk(options.target)
    except (FormatError, struct.error, ValueError, OSError) as error:
        sys.exit(f"layer_reader.py: {error}")
    if options.output:
        pathlib.Path(options.output).write_bytes(disk)
    else:
        print(len(disk), hashlib.sha256(disk).hexdigest())


main()
