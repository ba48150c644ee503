#!/usr/bin/env bash
# Malformed files are refused by the tool and by the server; the message names file and field.
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"

random_raw lower.raw 256K
obd import lower.raw -o good.lsmt
trailer=$(($(stat --format=%s good.lsmt) - 4096))
index=$(od --address-radix=n --skip-bytes=$((trailer + 32)) --read-bytes=8 --format=u8 good.lsmt)

# expect_bad PATTERN: bad.lsmt is refused everywhere, with its name and the pattern.
expect_bad() {
  local pattern="bad\.lsmt.*$1"
  expect_fail 1 "$pattern" obd check bad.lsmt
  expect_fail 1 "$pattern" obd info bad.lsmt
  expect_fail 1 "$pattern" obd create none --lower bad.lsmt
  expect_fail 1 "$pattern" obd check --json image.json
  expect_fail 1 "$pattern" nbdkit -U - "$OBD_PLUGIN" image.json --run true
  [[ ! -e none ]] || fail 'the refused create left a folder'
}

printf '{"lowers": [{"file": "bad.lsmt"}]}' >image.json
max='\377\377\377\377\377\377\377\377'
cp good.lsmt bad.lsmt && poke bad.lsmt 0 X && expect_bad 'magic'
cp good.lsmt bad.lsmt && poke bad.lsmt 28 '\000' && expect_bad 'flags'
cp good.lsmt bad.lsmt && poke bad.lsmt $((trailer + 8)) X && expect_bad 'magic'
cp good.lsmt bad.lsmt && poke bad.lsmt $((trailer + 28)) '\002' && expect_bad 'flags|seal'
cp good.lsmt bad.lsmt && poke bad.lsmt $((trailer + 32)) "$max" && expect_bad 'index_offset'
cp good.lsmt bad.lsmt && poke bad.lsmt $((trailer + 40)) "$max" && expect_bad 'index_size'
cp good.lsmt bad.lsmt && poke bad.lsmt $((trailer + 48)) '\001' && expect_bad 'virtual_size'
cp good.lsmt bad.lsmt && poke bad.lsmt $((index + 8)) '\000' && expect_bad 'moffset'
cp good.lsmt bad.lsmt && poke bad.lsmt $((index + 6)) '\000\000' && expect_bad 'length'
truncate -s -100 bad.lsmt && expect_bad 'trailer'
truncate -s 4096 bad.lsmt && expect_bad ''
truncate -s 0 bad.lsmt && expect_bad ''

# Upper: the pair is refused as a whole, naming the file that is wrong.
obd create disk --lower good.lsmt
with_server disk 'qemu-io -f raw -c "write 0 4k" "$uri"' >qemu.out
read_disk disk expected.raw
cp -r disk saved
sed -i 's|/disk/|/bad/|g' saved/config.v1.json
# expect_bad_upper FILE PATTERN: ./bad, a changed copy of the image, is refused.
expect_bad_upper() {
  expect_fail 1 "bad/$1.*$2" obd check bad
  expect_fail 1 "bad/$1.*$2" obd info bad
  expect_fail 1 "bad/$1.*$2" nbdkit -U - "$OBD_PLUGIN" bad/config.v1.json --run true
  rm -r bad
}
cp -r saved bad && poke bad/writable_data 0 X && expect_bad_upper writable_data 'magic'
cp -r saved bad && poke bad/writable_index 8 X && expect_bad_upper writable_index 'magic'
cp -r saved bad && poke bad/writable_index 60 X && expect_bad_upper '' 'uuid'
cp -r saved bad && poke bad/writable_index 48 '\001' && expect_bad_upper writable_index 'virtual_size'
cp -r saved bad && rm bad/writable_data && expect_bad_upper writable_data ''
cp -r saved bad && truncate -s 100 bad/writable_data && expect_bad_upper writable_data ''

# Unknown flag bits: a reader goes on, a writer does not.
cp good.lsmt bad.lsmt && poke bad.lsmt $((trailer + 29)) '\001'
obd check bad.lsmt >check.out
grep -Eq 'warning.*bad\.lsmt.*flag' check.out || fail 'check does not warn of unknown flags'
cp -r saved bad && poke bad/writable_data 29 '\001'
expect_disk bad expected.raw -r
expect_fail 1 'flag' nbdkit -U - "$OBD_PLUGIN" bad/config.v1.json --run 'nbdinfo "$uri"'

# Configs.
# expect_bad_config PATTERN JSON [STATUS]: refused; check ends with STATUS, 1 unless given.
expect_bad_config() {
  printf '%s' "$2" >config.json
  expect_fail 1 "config\.json.*$1" nbdkit -U - "$OBD_PLUGIN" config.json --run true
  expect_fail 1 "config\.json.*$1" obd info config.json
  expect_fail "${3:-1}" "config\.json.*$1" obd check config.json
}
expect_bad_config '' '{"lowers": ['
expect_bad_config 'lowers' '{"lowers": 7}'
expect_bad_config 'lowers' '{"lowers": []}'
expect_bad_config 'file' '{"lowers": [{"file": 7}]}'
expect_bad_config 'upper' '{"lowers": [{"file": "good.lsmt"}], "upper": "writable_data"}'
expect_bad_config 'upper' '{"lowers": [{"file": "good.lsmt"}], "upper": {"data": 1, "index": 2}}'

# Layers that cannot be read yet are named, with the reason; check could not look at them.
expect_bad_config 'sha256:12.*registry' '{"repoBlobUrl": "https://r/v2/n/blobs",
  "lowers": [{"digest": "sha256:12", "size": 3, "dir": "nowhere"}]}' 2
expect_bad_config 'turboOCI' '{"lowers": [{"file": "good.lsmt", "targetFile": "x",
  "gzipIndex": "y"}]}' 2

# Compressed and wrapped layers: damage is told with the layer's name, be it at opening or later.
for blob in zfile-jumptable-flip.zfile:index_crc zfile-algo-7.zfile:algorithm \
  tar-bad-checksum.tar:checksum tar-trunc.tar:size; do
  name=${blob%%:*}
  cp "$source_dir/test/fixtures/bad/$name" .
  printf '{"lowers": [{"file": "%s"}]}' "$name" >image.json
  expect_fail 1 "${name/./\\.}.*${blob##*:}" nbdkit -U - "$OBD_PLUGIN" image.json --run true
  expect_fail 1 "${name/./\\.}.*${blob##*:}" obd info image.json
done
cp "$source_dir/test/fixtures/bad/zfile-block-flip.zfile" .
expect_fail 1 'zfile-block-flip\.zfile.*block 1 ' obd export zfile-block-flip.zfile -o none.raw
[[ ! -e none.raw ]] || fail 'the failed export left a file'
