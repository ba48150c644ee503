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
refused 'lower.lsmt' lower.lsmt
refused 'disk' disk

# Both ways to name the image; a relative path is good in the background, too.
nbdkit -U - "$OBD_PLUGIN" config=disk/config.v1.json --run 'nbdinfo --size "$uri"' >size.txt
[[ $(<size.txt) == 1048576 ]] || fail 'a wrong size'
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
