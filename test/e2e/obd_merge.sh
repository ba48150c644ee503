#!/usr/bin/env bash
# obd merge: several layers become one; a stack is made shorter: obd_merge.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

# Five layers, the last one writable, with data, zeros and discards over each other.
random_raw base.raw 2M
obd import base.raw -o base.lsmt
from=(--lower base.lsmt)
for ((i = 0; i < 4; ++i)); do
  obd create "disk$i" --type "$type" "${from[@]}" --size $((2 + i))M >/dev/null
  serve "disk$i"
  qemu_io "$uri" "write -P $((i + 1)) $((i * 100))k 200k" "discard $((i * 300))k 100k" \
    "write -P $((i + 10)) $((1900 + i * 1024))k 64k"
  stop_nbdkit
  ((i == 3)) || obd seal "disk$i" >/dev/null
  from=(--from "disk$i")
done
read_disk disk3 expected.raw

# All of an image, its upper included: one layer of the upper's size, with nothing to hide.
obd merge disk3 -o all.lsmt
obd check all.lsmt
obd export all.lsmt -o all.raw
expect_same expected.raw all.raw
obd info --json all.lsmt >info.json
expect_json info.json '.virtual_size == 5 * 1048576' '.layers[0].zero_bytes == 0' \
  '.layers[0].parent_uuid == null'

# Layers without an image: what hides what lies below stays.
obd merge disk{0,1,2}/writable_data -o middle.lsmt --json >merge.json
expect_json merge.json '.layer.zero_bytes > 0' '.replaced == []'
obd create same --lower base.lsmt middle.lsmt
read_disk disk2 disk2.raw
expect_disk same disk2.raw

# The lowers of an image that is being served can be merged, but not replaced.
serve disk3
obd merge disk3 --range 1..2 -o served.lsmt
expect_fail 1 "process $nbdkit_pid" obd merge disk3 --range 1..2 --replace -o none.lsmt
stop_nbdkit

# Replaced: a shorter stack, the same disk, and parents that fit.
cp disk3/config.v1.json config.before
obd merge disk3 --range 0..2 --replace -o disk3/merged.lsmt >merge.out
grep -q 'disk1/writable_data' merge.out
expect_json disk3/config.v1.json '.lowers | length == 2' '.lowers[0].file == "merged.lsmt"'
expect_disk disk3 expected.raw
obd check disk3 >check.out
if grep -q parent check.out; then fail 'a parent does not fit'; fi
cp -r disk3 copy
expect_disk copy expected.raw
serve disk3
qemu_io "$uri" 'write -P 99 1M 64k'
stop_nbdkit
obd check disk3
cp config.before disk3/config.v1.json
obd check disk3

before=$(ls -A)
expect_fail 1 'lower 9' obd merge disk3 --range 0..9 -o none.lsmt
expect_fail 2 'backwards' obd merge disk3 --range 2..1 -o none.lsmt
expect_fail 2 'no range' obd merge disk3 --range 1-2 -o none.lsmt
expect_fail 1 'range' obd merge base.lsmt middle.lsmt --range 0..1 -o none.lsmt
expect_fail 1 'is an image' obd merge base.lsmt disk3 -o none.lsmt
expect_fail 1 'image itself' obd merge disk3 --range 0..1 -o base.lsmt --force
expect_fail 2 'range' obd merge disk3 --replace -o none.lsmt
[[ $(ls -A) == "$before" ]] || fail "a failed command left files behind: $(ls -A)"

# Two that replace lowers of one image at a time: the second is told that its numbers mean other
# layers now, and no layer gets lost.
mkdir many
lowers=()
for ((i = 0; i < 6; ++i)); do
  truncate -s 16M many.raw
  random_raw part 2M
  patch many.raw $((i << 21)) part
  obd import many.raw -o many/l$i.lsmt >/dev/null
  lowers+=("$tmp/many/l$i.lsmt")
done
jq --null-input '{lowers: [$ARGS.positional[] | {file: .}]}' --args "${lowers[@]}" \
  >many/config.v1.json
obd export many -o many.raw --force >/dev/null
obd merge many --range 2..3 --replace -o many/slow.lsmt -z zstd:19 >slow.out 2>&1 &
slow=$!
obd merge many --range 0..1 --replace -o many/fast.lsmt >/dev/null
status=0
wait $slow || status=$?
if ((status != 0)); then
  grep -q 'changed meanwhile\|in use' slow.out || fail "the slow merge said: $(<slow.out)"
fi
obd export many -o again.raw >/dev/null
expect_same many.raw again.raw
