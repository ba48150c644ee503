#!/usr/bin/env bash
# obd seal: the upper becomes a lower in place, and the disk stays the same: obd_seal.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 4M
obd import lower.raw -o lower.lsmt
obd create disk --type "$type" --lower lower.lsmt
serve disk
qemu_io "$uri" 'write -P 1 512 512' 'write -P 2 64k 128k' 'write -z 96k 16k' 'discard 1M 256k' \
  'write -P 3 2M 4k' 'write -P 4 2M 4k'
kill_nbdkit
read_disk disk expected.raw

obd seal disk >seal.out
grep -q 'writable_data' seal.out
expect_json disk/config.v1.json '.lowers | length == 2' '(.upper.data // "") == ""'
[[ ! -e disk/writable_index ]] || fail 'the index log is still there'
expect_disk disk expected.raw
obd check disk
obd check disk/writable_data
obd info --json disk >info.json
expect_json info.json '.upper == null' '.layers[1].kind == "sealed"'
# Again: there is nothing to seal, and that is what was wanted.
fingerprint disk >before
expect_fail 0 '^was sealed already: .*writable_data$' obd seal disk
obd seal disk --json >seal.json
expect_json seal.json '.changed | not' '.lowers == 2' '.warnings == []' '.sealed | endswith("writable_data")'
fingerprint disk >after
diff before after

obd create another --type "$type" --size 1M >/dev/null
obd seal another --json >seal.json
expect_json seal.json '.image == "another/config.v1.json"' '.lowers == 1' '.changed' '.warnings == []' \
  '.sealed | endswith("writable_data")'

# Who may not replace the config must not seal the data either.
if ((EUID == 0)); then
  obd create foreign --type "$type" --size 1M >/dev/null
  chmod 755 . foreign
  chmod 666 foreign/*
  fingerprint foreign >before
  expect_fail 1 'cannot make a file' \
    setpriv --reuid 65534 --regid 65534 --clear-groups "$OBD_TOOL" seal foreign
  fingerprint foreign >after
  diff before after
fi

# It carries on as a lower, whatever is done above it.
obd create top --type "$type" --from disk
serve top
qemu_io "$uri" 'read -P 1 512 512' 'write -P 9 64k 4k' 'read -P 0 1M 256k'
stop_nbdkit
expect_disk disk expected.raw
obd check top

# An upper that nobody wrote to can be sealed, too.
obd create unwritten --type "$type" --lower lower.lsmt
obd seal unwritten
expect_disk unwritten lower.raw
