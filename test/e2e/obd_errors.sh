#!/usr/bin/env bash
# The command line of obd: help, usage errors, files that are not there.
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"

obd --version | grep -Eq '^obd [0-9]+\.[0-9]+'
obd --help >help.txt
for command in create info check map seal import export; do
  grep -qw $command help.txt || fail "obd --help does not tell of $command"
  obd $command --help >command.txt
  grep -q 'Example' command.txt || fail "obd $command --help has no example"
  expect_fail 2 '--help' obd $command
  expect_fail 2 '--help' obd $command --no-such-option
done
expect_fail 2 '--help' obd
expect_fail 2 'no-such-command' obd no-such-command

# What is no layer is named once, as the user named it.
echo 'no layer' >text
expect_fail 1 '^obd: text: [^:]* too few' obd info text

# What people give for a layer, an image or a raw disk.
: >nothing
qemu-img create -q -f qcow2 disk.qcow2 1M
obd create given --size 1M >/dev/null
echo '[]' >list.json
for command in info check map; do
  expect_fail 1 'disk.qcow2: is a qcow2 image, not a layer: .*qemu-img convert.*obd import' \
    obd $command disk.qcow2
  expect_fail 1 'writable_data: 4096 bytes without a trailer .*config is to be named' \
    obd $command given/writable_data
  expect_fail 1 'writable_index: header: flags 0x1 are those of the index of a writable layer: .*config' \
    obd $command given/writable_index
  expect_fail 1 'nothing: is empty' obd $command nothing
  expect_fail 1 'list.json: the config is array, not a JSON object, as \{"lowers"' \
    obd $command list.json
done
obd import given/writable_data -o layer.lsmt 2>said
grep -q 'looks like a layer already' said
serve_file() { nbdkit -U - "$OBD_PLUGIN" "$1" --run true; }
expect_fail 1 "disk.qcow2: is a qcow2 image, not an image's config" serve_file disk.qcow2
expect_fail 1 "data file, not an image's config.*config.v1.json" serve_file given/writable_data
expect_fail 1 "index of a writable layer, not an image's config" serve_file given/writable_index
expect_fail 1 'layer.lsmt: is a layer, .*naming it in the lowers' serve_file layer.lsmt
expect_fail 1 'not a JSON object' serve_file list.json

# Half an upper is none, which is said; so is a lower that comes twice.
printf '{"lowers": [{"file": "layer.lsmt"}], "upper": {"data": "given/writable_data"}}' >half.json
obd check half.json | grep -q 'warning: .*upper names no index file, only given/writable_data'
serve_file half.json 2>said
grep -q 'warning: .*upper names no index file' said || fail "serving said: $(<said)"
printf '{"lowers": [{"file": "layer.lsmt"}, {"file": "given/../layer.lsmt"}]}' >twice.json
obd check twice.json | grep -q 'warning: .*lowers\[1\] .* is the same file as lowers\[0\]'

# What is wrong whatever the files hold is a usage error.
expect_fail 2 "--size: '5GB' is not a size: write 5G" obd create none --size 5GB
expect_fail 2 "SIZE: '5gb' is not a size: write 5G" obd resize given 5gb
expect_fail 2 'backwards.*' obd merge given --range 2..1 -o none.lsmt
expect_fail 2 'no range' obd merge given --range 1-2 -o none.lsmt
for option in '--uuid 1' '--parent-uuid 1' '--compress gzip' '-z zstd:99' '--block-size 4K' \
  '-z lz4 --block-size 3000' '--threads 0'; do
  # shellcheck disable=SC2086
  expect_fail 2 "${option%% *}|compress|block-size|threads" obd commit given -o none.lsmt $option
done
expect_fail 2 '--mkfs' obd create none --size 1M --mkfs 'a b'
for command in 'commit given' 'merge given' 'convert layer.lsmt' 'import layer.lsmt' \
  'export given'; do
  # shellcheck disable=SC2086
  expect_fail 2 'standard output' obd $command -o -
done

# An output that is a link to nowhere is refused before the work, not after it.
ln -s nowhere dangling
for command in 'commit given' 'merge given' 'convert layer.lsmt' 'import layer.lsmt' \
  'export given'; do
  # shellcheck disable=SC2086
  expect_fail 1 'dangling: is a symbolic link to nowhere, which does not exist' \
    obd $command -o dangling
  # shellcheck disable=SC2086
  expect_fail 1 'symbolic link' obd $command -o dangling --force
done
device=$(find /dev -maxdepth 1 -type b -print -quit)
if [[ -n $device ]]; then
  expect_fail 1 "$device: is a block device.*nbdcopy" obd import "$device" -o none.lsmt
  expect_fail 1 "$device: is a block device.*nbdcopy" obd export given -o "$device" --force
fi
[[ ! -e none.lsmt && ! -e none && ! -e ./- && ! -e nowhere ]] || fail "a refused command left: $(ls)"

mkdir empty
for command in info map seal; do
  expect_fail 1 'missing.json' obd $command missing.json
  expect_fail 1 'empty' obd $command empty
done
expect_fail 1 'missing.json' obd export missing.json -o none.raw
# check: 2 is for what it could not look at.
expect_fail 2 'missing.json' obd check missing.json
expect_fail 2 'empty' obd check empty

# An error goes to standard error, alone.
obd info missing.json >out 2>err || true
[[ ! -s out && $(wc -l <err) == 1 ]] || fail 'an error is one line on standard error'

# Output that cannot be written is an error, too.
obd create disk --size 1M
expect_fail 1 'output' bash -c '"$1" info disk >/dev/full' - "$OBD_TOOL"

# A script's variable that is not set is no option that was not given.
expect_fail 2 '--mkfs: its value is empty' obd create x --size 1G --mkfs ''
expect_fail 2 '--uuid: its value is empty' obd create x --size 1G --uuid ''
expect_fail 2 "there is no command 'frob'" "$OBD_BUILD_DIR/bin/obd-mount" frob --state-dir x
[[ ! -e x ]] || fail 'a refused command made something'
