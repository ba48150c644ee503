#!/usr/bin/env bash
# The plugin's own face: help, dump, parameters, paths, resultFile.
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"

nbdkit "$OBD_PLUGIN" --help >help.txt
grep -q 'config=' help.txt
grep -q 'cache-size=' help.txt
nbdkit --dump-plugin "$OBD_PLUGIN" >dump.txt
for line in name=overlaybd magic_config_key=config max_thread_model=parallel thread_model=parallel \
  has_can_fast_zero=1 has_can_multi_conn=1 has_extents=1 has_cache=1 has_block_size=1 \
  has_export_description=1 has_config_help=1; do
  grep -qx "$line" dump.txt || fail "--dump-plugin does not say $line"
done
grep -q '^overlaybd_version=' dump.txt
grep -qx 'overlaybd_formats=lsmt,zfile,tar' dump.txt

random_raw lower.raw 1M
obd import lower.raw -o lower.lsmt
obd create disk --lower lower.lsmt

refused() {
  local pattern=$1
  shift
  expect_fail 1 "$pattern" nbdkit -U - "$OBD_PLUGIN" "$@" --run true
}
refused 'config'
refused 'colour' colour=blue
refused 'colour' disk/config.v1.json colour=blue
refused 'config' disk/config.v1.json config=disk/config.v1.json
refused 'config' config=
refused 'missing.json' missing.json
refused 'cache-size=12Q' disk/config.v1.json cache-size=12Q
refused 'cache-size=-1' disk/config.v1.json cache-size=-1
refused 'detect-zeroes=maybe' disk/config.v1.json detect-zeroes=maybe
refused 'lower.lsmt' lower.lsmt

# Zeros that are written over data: do they take space?
for type in append sparse; do
  for detect in off on unmap; do
    obd create zeros --size 8M --type "$type"
    nbdkit -U - "$OBD_PLUGIN" zeros detect-zeroes=$detect --run '
      qemu-io -f raw -c "write -P 120 0 1M" -c "write -P 0 0 1M" -c "write -f -P 0 1M 1M" \
        -c "read -P 0 0 2M" "$uri"' >/dev/null
    live=$(obd info --json zeros | jq '.layers[-1].live_bytes')
    expected=$((2 << 20))
    [[ $detect == off || ($detect == on && $type == sparse) ]] || expected=0
    ((live == expected)) || fail "$type with detect-zeroes=$detect has $live live bytes"
    rm -r zeros
  done
done

mkdir empty
refused 'empty' empty

# Every way to name the image; a relative path is good in the background, too.
nbdkit -U - "$OBD_PLUGIN" config=disk/config.v1.json --run 'nbdinfo --size "$uri"' >size.txt
[[ $(<size.txt) == 1048576 ]] || fail 'a wrong size'
nbdkit -U - "$OBD_PLUGIN" disk --run 'nbdinfo --size "$uri"' >size.txt
[[ $(<size.txt) == 1048576 ]] || fail 'a wrong size through the folder'
(cd disk && nbdkit --pidfile "$tmp/pid" --unix "$tmp/sock" "$OBD_PLUGIN" config.v1.json)
# The parent leaves as soon as it has forked; the server writes the file when it is ready.
wait_until "$$" test -s pid || fail 'nbdkit did not go into the background'
cleanup_fn stop_pid "$(<pid)"
nbdcopy "nbd+unix:///?socket=$tmp/sock" copy.raw
expect_same lower.raw copy.raw
stop_pid "$(<pid)" 2>/dev/null

# A compressed lower reads the same with and without a cache of decompressed blocks.
zfile=$source_dir/test/fixtures/04-zfile-zstd-64k
for size in 0 1 128k 64M; do
  nbdkit -U - "$OBD_PLUGIN" "$zfile/config.json" cache-size=$size --run 'nbdcopy "$uri" zfile.raw'
  [[ $(sha256sum <zfile.raw) == 83b2858049c7a17badec55f82064644e43b8fc8c504c6da42fd7b41ce2bf76dd* ]] ||
    fail "wrong content with cache-size=$size"
done

# resultFile tells the snapshotter how opening went.
jq --arg file "$tmp/result" '.resultFile = $file' disk/config.v1.json >disk/with-result.json
nbdkit -U - "$OBD_PLUGIN" disk/with-result.json --run true
[[ $(<result) == success ]] || fail "resultFile says: $(<result)"
jq --arg file "$tmp/result" '.resultFile = $file | .lowers[0].file = "/nowhere/lower.lsmt"' \
  disk/config.v1.json >disk/with-result.json
refused '/nowhere/lower.lsmt' disk/with-result.json
grep -q '/nowhere/lower.lsmt' result || fail "resultFile says: $(<result)"
