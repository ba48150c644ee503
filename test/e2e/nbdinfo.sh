#!/usr/bin/env bash
# What the server tells a client about the disk: nbdinfo.sh append|sparse
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
type=$1

# Not a multiple of the preferred block.
size=1048576512
obd create disk --type "$type" --size $size

with_server disk 'nbdinfo "$uri"' >info.txt
grep -q "export-size: $size" info.txt
grep -q 'description: .*1 lower\|description: .*no lower\|description: .*0 lowers' info.txt

with_server disk 'nbdinfo --json "$uri"' >info.json
expect_json info.json \
  ".exports[0].\"export-size\" == $size" \
  '.exports[0].block_size_minimum == 1' \
  '.exports[0].block_size_preferred == 4096' \
  '.exports[0].block_size_maximum == 33554432' \
  '.exports[0].is_read_only == false' \
  '.exports[0].is_rotational == false' \
  '.exports[0].can_flush and .exports[0].can_fua and .exports[0].can_multi_conn' \
  '.exports[0].can_trim and .exports[0].can_zero and .exports[0].can_fast_zero' \
  '.exports[0].can_cache' \
  '.exports[0].contexts | contains(["base:allocation"])'

# The map of a new disk is one hole; what is written becomes data, what is zeroed reads as zeros.
with_server disk 'nbdinfo --map --json "$uri"' >map.json
expect_json map.json 'length == 1' ".[0] == {offset: 0, length: $size, type: 3,
  description: \"hole,zero\"}"
with_server disk 'qemu-io -f raw -d unmap -c "write 1M 64k" -c "write -zu 2M 64k" "$uri"' >qemu.out
with_server disk 'nbdinfo --map --json "$uri"' >map.json
expect_json map.json \
  "(map(.length) | add) == $size" \
  '[.[] | select(.type % 4 == 0)] | length == 1' \
  '[.[] | select(.type % 4 == 0)][0] | .offset == 1048576 and .length == 65536'

nbdkit -r -U - "$OBD_PLUGIN" disk/config.v1.json --run 'nbdinfo --json "$uri"' >info.json
expect_json info.json '.exports[0].is_read_only'
