#!/usr/bin/env bash
# obd clone: a second image over the same layers, each on its own: obd_clone.sh append|sparse
. "$(dirname "$0")/functions.sh"
type=$1

random_raw lower.raw 4M
obd import lower.raw -o lower.lsmt >/dev/null
obd create disk --type "$type" --lower lower.lsmt >/dev/null
serve disk
qemu_io "$uri" 'write -P 1 512 512' 'write -P 2 64k 128k' 'discard 1M 256k'
expect_fail 1 "process $nbdkit_pid" obd clone disk copy
[[ ! -e copy ]] || fail 'a refused clone left a folder'
kill_nbdkit
read_disk disk expected.raw

obd clone disk copy --json >clone.json
expect_json clone.json '.sealed | endswith("writable_data")' '.lowers == 2'
[[ $(ls copy) == $'config.v1.json\nwritable_data\nwritable_index' ]] || fail "made: $(ls copy)"
expect_disk disk expected.raw
expect_disk copy expected.raw
for image in disk copy; do
  obd check $image
  obd info --json $image >info.json
  expect_json info.json ".upper == \"$type\"" '.lowers == 2' '.layers[-1].extents == 0' \
    '.layers[2].parent_uuid == .layers[1].uuid'
done

# Each goes its own way, at the same time.
start_nbdkit one "$OBD_PLUGIN" disk/config.v1.json
one=$nbdkit_pid one_uri=$uri
start_nbdkit two "$OBD_PLUGIN" copy/config.v1.json
qemu_io "$one_uri" 'write -P 8 64k 64k' 'read -P 2 128k 64k'
qemu_io "$uri" 'read -P 2 64k 128k' 'write -P 9 2M 64k'
qemu_io_read "$one_uri" 'read -P 8 64k 64k'
stop_nbdkit
nbdkit_pid=$one stop_nbdkit
read_disk disk expected.raw

# A second clone: the image's folder holds the upper under the usual names no more.
obd clone disk second >/dev/null
expect_disk disk expected.raw
expect_disk second expected.raw
# A third one right away: nothing was written, so nothing is sealed.
fingerprint disk >before
obd clone disk third >clone.out
if grep -q sealed clone.out; then fail 'an empty layer was sealed'; fi
fingerprint disk >after
diff before after
expect_disk third expected.raw
obd info --json third >info.json
expect_json info.json '.lowers == 3'

# The clone's folder can be moved.
mv third moved
expect_disk moved expected.raw

expect_fail 1 'config.v1.json' obd clone disk copy
expect_fail 1 'nowhere' obd clone disk nowhere/none
obd seal disk >/dev/null
expect_fail 1 'no upper' obd clone disk none
[[ ! -e none ]] || fail 'a refused clone left a folder'
