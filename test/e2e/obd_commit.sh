#!/usr/bin/env bash
# obd commit: the upper alone becomes a dense layer that takes its place:
# obd_commit.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 4M
obd import lower.raw -o lower.lsmt
obd create disk --type "$type" --lower lower.lsmt
serve disk
qemu_io "$uri" 'write -P 1 512 512' 'write -P 2 64k 128k' 'write -z 96k 16k' 'discard 1M 256k' \
  'write -P 3 2M 64k' 'write -P 4 2M 64k' 'write -P 0 3M 512k'
expect_fail 1 "process $nbdkit_pid" obd commit disk -o changes.lsmt
kill_nbdkit
read_disk disk expected.raw

fingerprint disk >before
obd commit disk -o changes.lsmt -m 'release 13' >commit.out
grep -Eq '^created changes.lsmt: disk of 4 MiB, .* of data, .* of zeros; wrote .* KiB$' commit.out
fingerprint disk >after
diff before after
obd check changes.lsmt
obd create again --lower lower.lsmt changes.lsmt
expect_disk again expected.raw
obd check again
obd info --json changes.lsmt >info.json
# 1 MiB was written, half of it zeros and 64 KiB twice; the zeros hide the lower.
expect_json info.json '.layers[0].message == "release 13"' '.layers[0].file_bytes < 270000' \
  '.layers[0].zero_bytes >= 786432' '.layers[0].dead_bytes == 0'
obd info --json disk >disk.json
[[ $(jq '.layers[0].parent_uuid' info.json) == $(jq '.layers[0].uuid' disk.json) ]] ||
  fail 'the parent is not the topmost lower'

uuid=00112233-4455-6677-8899-AABBCCDDEEFF
obd commit disk -o other.lsmt --uuid $uuid --parent-uuid ${uuid,,} --json >summary.json
expect_json summary.json ".layer.uuid == \"$uuid\"" ".layer.parent_uuid == \"$uuid\""

obd commit disk -o small.z -z zstd >commit.out
grep -Eq '; wrote .*, compressed to [0-9.]+ %$' commit.out || fail "commit said: $(<commit.out)"

# Refused, and nothing changed or left behind.
before=$(ls -A)
expect_fail 1 'exists' obd commit disk -o changes.lsmt
expect_fail 1 'image itself' obd commit disk -o lower.lsmt --force
expect_fail 2 'UUID|uuid' obd commit disk -o none.lsmt --uuid 123
expect_fail 1 'nowhere' obd commit disk -o nowhere/none.lsmt
(trap '' XFSZ && ulimit -f 64 && expect_fail 1 'none.lsmt' obd commit disk -o none.lsmt)
[[ $(ls -A) == "$before" ]] || fail "a failed command left files behind: $(ls -A)"
obd commit disk -o changes.lsmt --force
obd seal disk
expect_fail 1 'no upper' obd commit disk -o none.lsmt
expect_disk again expected.raw
