#!/usr/bin/python3
"""Makes the seed corpora of the fuzz targets from the fixtures: make_seeds.py FIXTURES OUT"""

import hashlib
import pathlib
import shutil
import struct
import sys

HEADER = 4096
LARGEST = 64 * 1024  # what is larger makes a fuzzer slow

fixtures = pathlib.Path(sys.argv[1])
out = pathlib.Path(sys.argv[2])


def seed(target, content):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def part(role, content):
    return bytes([role]) + struct.pack("<I", len(content))[:3] + content


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
    if path.suffix == ".index" and len(content) <= LARGEST:
        for choice in range(4):
            seed("index_log", bytes([choice]) + content[HEADER:])
        data = path.with_suffix(".data")
        if data.exists() and data.stat().st_size <= LARGEST:
            seed("image", part(1, data.read_bytes()) + part(2, content))
            seed("image", part(0, good) + part(1, data.read_bytes()) + part(2, content))
