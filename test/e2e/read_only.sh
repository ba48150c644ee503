#!/usr/bin/env bash
# Reading changes no file: read_only.sh append|sparse
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 8M
mkdir image
obd import lower.raw -o image/lower.lsmt
obd create image/disk --type "$type" --lower image/lower.lsmt
# One that was closed in order and one whose server died, which leaves more to repair.
for how in stop kill; do
  serve image/disk
  qemu_io "$uri" 'write -P 1 512 512' 'write -P 2 64k 256k' 'write -z 128k 32k' 'discard 1M 64k' \
    'write -P 3 65k 4k'
  ${how}_nbdkit
  serve image/disk -r
  rm -f expected.raw
  nbdcopy "$uri" expected.raw
  stop_nbdkit

  fingerprint image >before
  serve image/disk -r
  nbdcopy "$uri" null:
  nbdinfo --map "$uri" >map.out
  if qemu-io -f raw -c 'write 0 4k' "$uri" >write.out 2>&1; then fail 'a write went'; fi
  stop_nbdkit
  expect_disk image/disk expected.raw -r
  obd info image/disk >/dev/null
  obd check image/disk
  obd map image/disk >/dev/null
  obd export image/disk -o "exported-$how.raw"
  expect_same expected.raw "exported-$how.raw"
  # Opened for writing, but nothing written.
  serve image/disk
  nbdcopy "$uri" null:
  kill_nbdkit
  fingerprint image >after
  diff before after || fail "reading changed a file after $how"
done

# An image without an upper cannot be written.
printf '{"lowers": [{"file": "lower.lsmt"}]}' >image/lowers-only.json
fingerprint image >before
nbdkit -U - "$OBD_PLUGIN" image/lowers-only.json --run \
  'nbdinfo --json "$uri" && nbdcopy "$uri" lowers.raw' >info.json
expect_json info.json '.exports[0].is_read_only'
expect_same lower.raw lowers.raw
fingerprint image >after
diff before after
