#!/usr/bin/env bash
# qemu-img convert, compare and map through the server: qemu_img.sh append|sparse
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
type=$1

size=$((32 * 1024 * 1024))
random_raw lower.raw 32M
obd import lower.raw -o lower.lsmt
truncate -s $size source.raw
random_raw part 4M
patch source.raw $((2 * 1024 * 1024)) part
patch source.raw $((20 * 1024 * 1024 + 4096)) part

# A round trip: raw, image, qcow2, raw.
obd create disk --type "$type" --lower lower.lsmt
serve disk
qemu-img convert -n -f raw -O raw source.raw "$uri"
qemu-img compare -f raw -F raw source.raw "$uri" >compare.out
qemu-img convert -f raw -O qcow2 "$uri" copy.qcow2
qemu-img convert -f qcow2 -O raw copy.qcow2 back.raw
expect_same source.raw back.raw

qemu-img map -f raw --output=json "$uri" >map.json
expect_json map.json \
  "(map(.length) | add) == $size" \
  '[foreach .[] as $run (0; if $run.start == . then . + $run.length else error("gap") end)] | true' \
  '(map(select(.data) | .length) | add) == 8388608' \
  '[.[] | select(.data | not)] | all(.zero)'
stop_nbdkit

# After a restart it is the same disk, by qemu's own reckoning.
serve disk -r
qemu-img compare -f raw -F raw source.raw "$uri" >compare.out
stop_nbdkit
obd check disk
