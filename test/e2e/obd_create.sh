#!/usr/bin/env bash
# obd create: what it makes, and what it refuses: obd_create.sh append|sparse
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
type=$1

obd create disk --type "$type" --size 64M
[[ $(ls disk) == $'config.v1.json\nwritable_data\nwritable_index' ]] || fail "made: $(ls disk)"
expect_json disk/config.v1.json \
  '.upper.data == "writable_data"' \
  '.upper.index == "writable_index"' '(.lowers // []) == []'
truncate -s 64M zeros.raw
expect_disk disk zeros.raw

# Over lowers, it takes their size and their topmost uuid.
random_raw one.raw 1M
random_raw two.raw 2M
truncate -s 2560K two.raw
obd import one.raw -o one.lsmt
obd import two.raw -o two.lsmt
obd create stack --type "$type" --lower two.lsmt --lower one.lsmt --size 4M
obd info --json stack >info.json
expect_json info.json '.virtual_size == 4194304' '.lowers == 2' ".upper == \"$type\"" \
  '[.layers[].kind] | .[0] == "sealed" and .[1] == "sealed"' \
  '.layers[2].parent_uuid == .layers[1].uuid'
cp two.raw expected.raw
truncate -s 4M expected.raw
patch expected.raw 0 one.raw
expect_disk stack expected.raw

obd create inherits --type "$type" --lower two.lsmt --json >create.json
expect_json create.json '.image | endswith("/inherits/config.v1.json")' '.lowers == 1' \
  '.virtual_size == 2621440' ".upper == \"$type\"" '.uuid | length == 36'
obd info --json inherits >info.json
expect_json info.json '.virtual_size == 2621440'

# From another image, once its upper is sealed.
qemu_img_write() { with_server "$1" "qemu-io -f raw -c 'write -P 7 $2 4k' \"\$uri\"" >qemu.out; }
qemu_img_write stack 1M
expect_fail 1 'seal' obd create next --from stack
obd seal stack
obd create next --type "$type" --from stack/config.v1.json
head -c 4096 /dev/zero | tr '\0' '\007' >part
patch expected.raw $((1 << 20)) part
expect_disk next expected.raw
obd info --json next >info.json
expect_json info.json '.lowers == 3' '.virtual_size == 4194304'

# An odd size is served as it is.
obd create odd --type "$type" --size $((1024 * 1024 + 512))
truncate -s $((1024 * 1024 + 512)) zeros.raw
expect_disk odd zeros.raw

# A large disk takes no space.
obd create large --type "$type" --size 7T
(($(du --block-size=1K --total large | tail -1 | cut -f1) < 1024)) || fail 'a new disk takes space'
qemu_img_write large 6597069766656
with_server large 'qemu-io -r -f raw -c "read -P 7 6597069766656 4k" "$uri"' >qemu.out

# Refused, and nothing changed or left behind.
fingerprint disk >before
expect_fail 1 'disk.*config.v1.json' obd create disk --type "$type" --size 64M
fingerprint disk >after
diff before after
expect_fail 2 'size' obd create none --type "$type"
expect_fail 2 'size' obd create none --type "$type" --size 1000
expect_fail 2 'size' obd create none --type "$type" --size 9E
expect_fail 2 'size' obd create none --type "$type" --size -4K
expect_fail 1 'missing.lsmt' obd create none --type "$type" --lower missing.lsmt
expect_fail 1 'one.raw' obd create none --type "$type" --lower one.raw
expect_fail 1 'nowhere/none' obd create nowhere/none --type "$type" --size 1M
expect_fail 2 'type' obd create none --type other --size 1M
[[ ! -e none ]] || fail 'a refused create left a folder'
