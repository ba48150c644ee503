#!/usr/bin/env bash
# obd convert and obd verify: every container and back, damage found and named.
. "$(dirname "$0")/functions.sh"

random_raw part 700K
truncate -s 16M disk.raw
patch disk.raw 4096 part
for ((i = 0; i < 150000; ++i)); do echo 'text that compresses'; done >text
patch disk.raw $((8 << 20)) text
obd import disk.raw -o plain.lsmt -m 'kept' >/dev/null

# --- convert ---

obd convert plain.lsmt -o layer.z -z lz4 >said
grep -q -E '^created layer.z: zfile lz4 4K, wrote .*, compressed to [0-9.]+ %; plain.lsmt was raw, ' said || fail "it said: $(<said)"
obd convert layer.z -o layer.tar --compress zstd:9 --block-size 64K --tar --json >convert.json
expect_json convert.json '.source == "layer.z"' '.layer.container == "zfile zstd 64K in tar"' \
  '.layer.message == "kept"' '.layer.compression.checksums' '.layer.live_bytes > 3000000'
obd convert layer.tar -o back.lsmt >/dev/null
expect_same plain.lsmt back.lsmt
for threads in 1 3; do
  obd convert plain.lsmt -o "threads-$threads.z" -z zstd --threads $threads >/dev/null
done
expect_same threads-1.z threads-3.z

expect_fail 1 'layer.z: exists already' obd convert plain.lsmt -o layer.z
expect_fail 1 'file of the image itself' obd convert plain.lsmt -o plain.lsmt --force
expect_fail 2 "'gzip'" obd convert plain.lsmt -o none.z -z gzip
expect_fail 2 "'23' is no level of zstd" obd convert plain.lsmt -o none.z -z zstd:23
expect_fail 2 'block-size: 3000' obd convert plain.lsmt -o none.z -z zstd --block-size 3000
expect_fail 1 'disk.raw' obd convert disk.raw -o none.z -z zstd
[[ ! -e none.z ]] || fail 'a refused convert left a layer'
obd convert plain.lsmt -o layer.z --force -z zstd >/dev/null

# --- verify ---

obd create image --lower layer.tar >/dev/null
serve image
qemu_io "$uri" 'write -P 7 1M 64k'
expect_fail 2 "\b$nbdkit_pid\b.*|-U" obd verify image
obd verify -U image >/dev/null
stop_nbdkit
obd verify image plain.lsmt >said
grep -q '^image/config.v1.json: clean; read .* in 2 layers, ' said || fail "it said: $(<said)"
grep -q '^plain.lsmt: clean; .*without checksums' said || fail "it said: $(<said)"
obd verify --json image >verify.json
expect_json verify.json 'length == 1' '.[0].clean' '.[0].layers == 2' '.[0].checked_bytes > 3000000' \
  '.[0].bad_blocks == 0'

# A flipped bit in the middle of the data opens, and verify names the block.
cp layer.z flipped.z
poke flipped.z 100000 '\125\252'
expect_fail 1 'flipped.z: .*block [0-9]+' obd verify flipped.z
grep -q '1 thing wrong' <<<"$said" || fail "one block was damaged: $said"
obd verify --json flipped.z >verify.json || true
expect_json verify.json '.[0].bad_blocks == 1' '.[0].clean == false' \
  '.[0].findings[0].severity == "wrong"'
expect_fail 1 'flipped.z' obd verify plain.lsmt flipped.z layer.tar
expect_fail 2 'missing.z' obd verify missing.z
