#!/usr/bin/env bash
# obd info, check and map tell the truth: obd_look.sh append|sparse
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 1M
obd import lower.raw -o lower.lsmt -m 'the lower'
obd create disk --type "$type" --lower lower.lsmt --size 2M
serve disk
qemu_io "$uri" 'write -P 1 64k 64k' 'write -P 2 64k 4k' 'write -zu 256k 64k' 'write -P 3 1536k 4k'
stop_nbdkit

obd info disk >info.txt
grep -q 'disk/config.v1.json' info.txt
grep -q "$type" info.txt
obd info --json disk >info.json
expect_json info.json '.kind == "image"' '.virtual_size == 2097152' '.layers | length == 2' \
  '.layers[0] | .kind == "sealed" and .virtual_size == 1048576 and .message == "the lower"' \
  '.layers[0].live_bytes == 1048576 and .layers[0].dead_bytes == 0' \
  ".layers[1].kind == \"$type\"" \
  '.layers[1].live_bytes == 65536 + 4096 and .layers[1].zero_bytes == 65536' \
  '.layers[1].uuid != .layers[0].uuid' \
  '.layers | all(.warnings == [])'
if [[ $type == append ]]; then
  # The 4 KiB that were overwritten are still in the file.
  expect_json info.json '.layers[1].dead_bytes == 4096'
fi
obd info --json lower.lsmt >info.json
expect_json info.json '.kind == "layer"' '.layers | length == 1'

obd check disk | grep -q clean
obd check --json disk >check.json
expect_json check.json '.clean and .complete' '.findings == []'
obd check lower.lsmt
obd check disk/config.v1.json

# Every byte once, in order, each run where it says.
obd map disk >map.txt
grep -q 'disk/writable_data' map.txt
obd map --json disk >map.json
expect_json map.json \
  '[foreach .[] as $run (0; if $run.start == . then . + $run.length else error("gap") end)][-1]
   == 2097152' \
  '[.[] | select(.data and .depth == 0)] | (map(.length) | add) == 69632' \
  '[.[] | select(.data and .depth == 1)] | (map(.length) | add) == 1048576 - 131072' \
  '[.[] | select(.start == 262144)] | .[0].zero and .[0].present and .[0].length == 65536' \
  '.[-1] | .zero and (.present | not)'
read_disk disk disk.raw -r
while read -r start length offset file; do
  cmp --bytes="$length" --ignore-initial="$start:$offset" disk.raw "$file" || fail "run at $start"
done < <(jq --raw-output '.[] | select(.data) | "\(.start) \(.length) \(.offset) \(.filename)"' map.json)

# How a layer is stored, and that its bytes are nowhere in the file as such.
zfile=$source_dir/test/fixtures/05-zfile-tar
obd info "$zfile/config.json" >info.txt
grep -Eq 'container +zfile lz4 4K in tar' info.txt
obd info --json "$zfile/layer.tar" >info.json
expect_json info.json '.layers[0].container == "zfile lz4 4K in tar"' \
  '.layers[0].compression == {"algorithm": "lz4", "block_size": 4096, "blocks": 179,
    "bytes": 52383, "checksums": true}'
obd info --json lower.lsmt >info.json
expect_json info.json '.layers[0].container == "raw"' '.layers[0].compression == null'
obd check "$zfile/config.json" | grep -q clean
obd map "$zfile/config.json" | grep -q compressed
obd map --json "$zfile/config.json" >map.json
expect_json map.json '[.[] | select(.data)] | all(.compressed and (has("offset") | not))'
obd export "$zfile/layer.tar" -o zfile.raw
[[ $(sha256sum <zfile.raw) == bdfae054f8af648c358820fd1c2125eb07d22496558e4d8af2ea517ccd06434b* ]] ||
  fail 'wrong content exported'
# In a tar file alone, they are, behind its headers.
tar --create --format=ustar --file lower.tar lower.lsmt
obd map --json lower.tar >map.json
obd export lower.tar -o tar.raw
read -r start length offset < <(jq --raw-output \
  '[.[] | select(.data)][0] | "\(.start) \(.length) \(.offset)"' map.json)
cmp --bytes="$length" --ignore-initial="$start:$offset" tar.raw lower.tar || fail 'wrong offset in tar'

# While a server writes, only on request.
serve disk
for command in info map; do
  expect_fail 1 "\b$nbdkit_pid\b" obd $command disk
  obd $command -U --json disk >look.json
  expect_json look.json
done
expect_fail 2 "\b$nbdkit_pid\b" obd check disk
obd check -U disk
stop_nbdkit
