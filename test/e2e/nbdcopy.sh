#!/usr/bin/env bash
# nbdcopy into an image, out of it, and from one image to another: nbdcopy.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

# A disk with holes, an odd end, and over lower data that the holes must hide.
size=$((48 * 1024 * 1024 + 512))
random_raw lower.raw 48M
truncate -s $size lower.raw
obd import lower.raw -o lower.lsmt
truncate -s $size source.raw
random_raw part 5M
patch source.raw $((3 * 1024 * 1024 + 512)) part
patch source.raw $((30 * 1024 * 1024)) part
poke source.raw $((size - 5)) 'tail!'

obd create empty --type "$type" --size $size
obd create over --type "$type" --lower lower.lsmt
for image in empty over; do
  serve $image --threads 8
  nbdcopy --connections=4 --flush source.raw "$uri"
  rm -f back.raw
  nbdcopy --connections=4 "$uri" back.raw
  expect_same source.raw back.raw
  stop_nbdkit
  expect_disk $image source.raw
  obd check $image
done

# Where nothing lies below, holes stay holes: 10 MiB of data take little more.
used=$(du --block-size=1 --total empty | tail -1 | cut -f1)
((used < 12 * 1024 * 1024)) || fail "10 MiB of data take $used bytes"

# From image to image, the target's old content overwritten.
obd create target --type "$type" --lower lower.lsmt
start_nbdkit from -r "$OBD_PLUGIN" over/config.v1.json
from=$uri
serve target
nbdcopy --request-size=1048576 "$from" "$uri"
stop_nbdkit
expect_disk target source.raw
