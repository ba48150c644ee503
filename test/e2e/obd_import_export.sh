#!/usr/bin/env bash
# obd import and export: raw disk to layer and back, sparse all the way.
. "$(dirname "$0")/functions.sh"

# Holes, written zeros and an odd tail.
size=$((64 * 1024 * 1024 + 1536))
truncate -s $size disk.raw
random_raw part 3M
patch disk.raw $((1 << 20)) part
patch disk.raw $(((20 << 20) + 512)) part
zero_range disk.raw $((40 << 20)) $((8 << 20))
poke disk.raw $((size - 3)) 'end'

obd import disk.raw -o layer.lsmt -m 'a message' >import.out 2>progress.out
[[ ! -s progress.out ]] || fail 'progress went to what is no terminal'
grep -Eq '^created layer.lsmt: disk of 64 MiB, .* of data; wrote .* MiB$' import.out ||
  fail "import said: $(<import.out)"
obd check layer.lsmt
obd info --json layer.lsmt >info.json
expect_json info.json ".virtual_size == $size" '.layers[0].message == "a message"' \
  '.layers[0].file_bytes < 7 * 1048576'
obd import disk.raw -o compressed.z -z lz4 --json >import.json
expect_json import.json '.source == "disk.raw"' '.layer.container == "zfile lz4 4K"' \
  ".layer.virtual_size == $size" '.layer.warnings == []'
obd export layer.lsmt -o back.raw --json >export.json
expect_json export.json '.source == "layer.lsmt"' '.raw == "back.raw"' ".virtual_size == $size" \
  '.data_bytes >= 3 * 1048576'
expect_same disk.raw back.raw
(($(stat --format=%b back.raw) * 512 < 8 << 20)) || fail 'the exported disk is not sparse'
obd create image --lower layer.lsmt
obd export image -o back2.raw
expect_same disk.raw back2.raw
expect_disk image disk.raw

# Existing files are kept unless --force says otherwise; nothing half-made remains.
expect_fail 1 'back.raw' obd export image -o back.raw
expect_fail 1 'layer.lsmt' obd import disk.raw -o layer.lsmt
echo old >old.raw
obd export image -o old.raw --force
expect_same disk.raw old.raw
obd import part -o layer.lsmt --force
obd info --json layer.lsmt >info.json
expect_json info.json '.virtual_size == 3 * 1048576'
obd export layer.lsmt -o part.raw
expect_same part part.raw

# A size that is no multiple of 512 is filled up with zeros.
printf 'short' >short.raw
obd import short.raw -o short.lsmt
obd export short.lsmt -o short.back
truncate -s 512 short.raw
expect_same short.raw short.back

before=$(ls -A)
expect_fail 1 'missing.raw' obd import missing.raw -o none.lsmt
expect_fail 1 'nowhere' obd import part -o nowhere/none.lsmt
: >empty.raw
expect_fail 1 'empty.raw' obd import empty.raw -o none.lsmt
rm empty.raw
expect_fail 1 'nowhere' obd export image -o nowhere/none.raw
expect_fail 2 'message' obd import part -o none.lsmt -m "$(printf 'x%.0s' {1..300})"
[[ $(ls -A) == "$before" ]] || fail "a failed command left files behind: $(ls -A)"

# --force never replaces a part of what is being read.
obd create forced --lower layer.lsmt
qemu-img create -q -f qcow2 disk.qcow2 1M
before=$(fingerprint forced layer.lsmt disk.raw)
for file in layer.lsmt forced/config.v1.json forced/writable_data forced/writable_index; do
  expect_fail 1 'part of the image|index of a writable layer' obd export forced -o "$file" --force
done
expect_fail 1 'raw disk' obd import disk.raw -o disk.raw --force
[[ $(fingerprint forced layer.lsmt disk.raw) == "$before" ]] || fail 'a refused --force changed files'

# A symbolic link goes on pointing at what it did.
echo old >target.raw
ln -s target.raw link.raw
obd export layer.lsmt -o link.raw --force >/dev/null
[[ -L link.raw ]] || fail 'the link was replaced'
expect_same part target.raw

# A file of another format is taken as it is, which is hardly what was meant.
obd import disk.qcow2 -o qcow2.lsmt 2>said
grep -q 'warning: disk.qcow2: .*qcow2' said || fail "no warning of a qcow2 image: $(<said)"
obd import layer.lsmt -o twice.lsmt 2>said
grep -q 'warning: layer.lsmt: .*layer already' said || fail "no warning of a layer: $(<said)"
