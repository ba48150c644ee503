#!/usr/bin/env bash
# More extents than overlaybd opens in a sealed layer: made, told of, and read right.
. "$(dirname "$0")/functions.sh"
requires_command python3

extents=1000001
size=$((extents * 1024))
random_raw base.raw 4M
cp base.raw start.raw
truncate -s $size base.raw
obd import base.raw -o base.lsmt >/dev/null
obd create disk --lower base.lsmt >/dev/null
# Every other sector is a zero extent, as another writer would have logged it.
python3 - $extents <<'EOF'
import struct, sys
with open("disk/writable_index", "ab") as log:
    for i in range(int(sys.argv[1])):
        log.write(struct.pack("<QQ", 2 * i | 1 << 50, 8 | 1 << 55))
disk = bytearray(open("start.raw", "rb").read())
for at in range(0, len(disk), 1024):
    disk[at : at + 512] = bytes(512)
open("expected.raw", "wb").write(disk)
EOF

# expect_exported RAW: the disk begins as expected, and what follows is a hole, too large to compare.
expect_exported() {
  (($(stat --format=%s "$1") == size)) || fail "$1 has another size"
  (($(stat --format=%b "$1") * 512 < 5 << 20)) || fail "$1 holds data past 4 MiB"
  truncate -s 4M "$1"
  expect_same expected.raw "$1"
}

limit="$extents index entries are more than the 1000000 that overlaybd opens"
obd commit disk -o changes.lsmt 2>said
grep -q "changes.lsmt: $limit" said || fail "commit said: $(<said)"
obd merge changes.lsmt changes.lsmt -o middle.lsmt --json >merge.json 2>said
expect_json merge.json ".layer.extents == $extents" ".layer.warnings | any(contains(\"$limit\"))"
for layer in changes middle; do
  obd check $layer.lsmt >check.out
  grep -q "warning: $layer.lsmt: $limit" check.out || fail "check said: $(<check.out)"
  mkdir $layer
  printf '{"lowers": [{"file": "../base.lsmt"}, {"file": "../%s.lsmt"}]}' $layer \
    >$layer/config.v1.json
  obd export $layer -o $layer.raw >/dev/null
  expect_exported $layer.raw
done
# In place as well: the base shows between the zeros.
obd merge disk -o all.lsmt >/dev/null
obd export all.lsmt -o all.raw >/dev/null
expect_exported all.raw
