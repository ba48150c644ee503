#!/usr/bin/env bash
# Overlaybd's command lines as a snapshotter calls them: names, options in any place, success lines,
# exit codes, and what they leave behind.
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
requires_command mkfs.ext4 e2fsck
bin=$(dirname "$OBD_TOOL")
create() { "$bin/overlaybd-create" "$@"; }
commit() { "$bin/overlaybd-commit" "$@"; }
merge() { "$bin/overlaybd-merge" "$@"; }
zfile() { "$bin/overlaybd-zfile" "$@"; }

# expect_says TEXT COMMAND...: exactly that on standard output, and success.
expect_says() {
  local expected=$1 said
  shift
  said=$("$@") || fail "$* failed with $?"
  [[ $said == "$expected" ]] || fail "$* said: $said"
}
# expect_same_disk RAW RAW: as expect_same, passing over holes.
expect_same_disk() {
  qemu-img compare -q -f raw -F raw "$1" "$2" || fail "$1 and $2 differ"
}
created='overlaybd-create has created files SUCCESSFULLY'
committed='overlaybd-commit has committed files SUCCESSFULLY'

# config FILE DATA INDEX [LOWER...]
config() {
  local file=$1 data=$2 index=$3
  shift 3
  jq --null-input --arg data "$data" --arg index "$index" \
    '{repoBlobUrl: "", lowers: [$ARGS.positional[] | {file: .}],
      upper: {data: $data, index: $index}, resultFile: ""}' --args "$@" >"$file"
}

random_raw part 300K

# --- a first layer, in the snapshotter's way: create, write, seal, commit what is sealed ---

for type in append sparse; do
  rm -rf first && mkdir first
  option=()
  [[ $type == append ]] || option=(-s)
  expect_says "$created" create first/writable_data first/writable_index 1 "${option[@]}"
  [[ -e first/writable_data && -e first/writable_index ]] || fail 'two files are made'
  expect_fail 255 'writable_data' create first/writable_data first/writable_index 1
  config first/config.v1.json "$tmp/first/writable_data" "$tmp/first/writable_index"
  serve first
  qemu_io "$uri" 'write -P 1 1M 70k' 'write -P 2 512M 4k' 'write -z 1040k 8k' 'flush'
  stop_nbdkit
  obd export first -o first.raw --force >/dev/null

  expect_says "$committed" commit first/writable_data first/writable_index "$type.commit" -z -t
  obd info --json "$type.commit" >info.json
  expect_json info.json '.layers[0].container == "zfile lz4 4K in tar"' '.virtual_size == 1073741824'
  obd export "$type.commit" -o again.raw --force >/dev/null
  expect_same_disk first.raw again.raw

  expect_says '' commit --seal first/writable_data first/writable_index
  [[ -e first/writable_index ]] || fail '--seal leaves the index to its caller'
  mv first/writable_data first/overlaybd.sealed
  rm first/writable_index
  expect_says "$committed" commit --commit_sealed first/overlaybd.sealed "$type.sealed" \
    -z --algorithm zstd --bs 64 --compress_threads 2 -m 'a message'
  obd info --json "$type.sealed" >info.json
  expect_json info.json '.layers[0].container == "zfile zstd 64K"' \
    '.layers[0].message == "a message"'
  obd export "$type.sealed" -o again.raw --force >/dev/null
  expect_same_disk first.raw again.raw
done

# --- a layer over it: size 0 is that of the layer below ---

mkdir second
expect_says "$created" create -u 11111111-2222-3333-4444-555555555555 \
  second/writable_data second/writable_index 0
config second/config.v1.json "$tmp/second/writable_data" "$tmp/second/writable_index" \
  "$tmp/append.commit"
serve second
qemu_io "$uri" 'read -P 1 1M 16k' 'write -P 3 2M 12k' 'discard 512M 4k' 'flush'
stop_nbdkit
obd export second -o second.raw --force >/dev/null

# Nothing is replaced without -f, and a failure leaves what is there.
sum=$(sha256sum <append.commit)
expect_fail 255 'append.commit' commit second/writable_data second/writable_index append.commit
[[ $(sha256sum <append.commit) == "$sum" ]] || fail 'an existing layer was changed'
echo old >second.commit
expect_says "$committed" commit second/writable_data second/writable_index second.commit -f \
  --uuid 99999999-8888-7777-6666-555555555555
obd info --json second.commit >info.json
expect_json info.json '.layers[0].uuid == "99999999-8888-7777-6666-555555555555"' \
  '.layers[0].parent_uuid == "11111111-2222-3333-4444-555555555555"'
obd create stack --lower append.commit second.commit >/dev/null
obd export stack -o again.raw --force >/dev/null
expect_same_disk second.raw again.raw

# --- merging ---

merge second/config.v1.json merged.commit
obd info --json merged.commit >info.json
expect_json info.json '.layers[0].container == "zfile lz4 4K"' '.virtual_size == 1073741824'
obd export merged.commit -o again.raw --force >/dev/null
expect_same_disk second.raw again.raw
merge second/config.v1.json merged.commit --compress=false
obd info --json merged.commit >info.json
expect_json info.json '.layers[0].container == "raw"'

# The size of what is merged is the image's, also where its upper is larger than its lowers.
obd resize second 2G >/dev/null
merge second/config.v1.json merged.commit
obd info --json merged.commit >info.json
expect_json info.json '.virtual_size == 2147483648'
obd resize second 1G --force >/dev/null

# --- ZFile ---

expect_says $'compress file part as part.z\ncompress file done.' zfile part part.z --bs 16
expect_says 'part.z is a valid zfile blob.' zfile --verify part.z
expect_says $'decompress file part.z as part.back\ndecompress file done.' zfile -x part.z part.back
expect_same part part.back
expect_fail 255 'part.back' zfile -x part.z part.back
zfile -f -t --algorithm zstd part.z <part >/dev/null
zfile -x -f part.z part.back >/dev/null
expect_same part part.back
expect_fail 255 'is not a valid zfile blob' zfile --verify part
zfile part flipped.z >/dev/null
poke flipped.z 3000 '\377\377\377'
expect_fail 255 'is not a valid zfile blob' zfile --verify flipped.z
expect_fail 255 "'--bs'" zfile part none.z --bs 5
expect_fail 255 "'--algorithm'" commit -z --algorithm lzo second/writable_data \
  second/writable_index none.commit

# --- a file system from the start ---

mkdir disk
expect_says "$created" create disk/writable_data disk/writable_index 1 --mkfs
config disk/config.v1.json writable_data writable_index
obd export disk -o fs.raw >/dev/null
e2fsck -fn fs.raw >e2fsck.log 2>&1 || fail 'the file system is not clean'

# --- what these commands do not do ---

expect_fail 105 'turboOCI' create --turboOCI a b 1
expect_fail 105 'upload' commit --upload http://registry.example second/writable_data \
  second/writable_index none.commit
expect_fail 106 'data_file' commit
expect_fail 255 "UUID" commit second/writable_data second/writable_index none.commit \
  --uuid 99999999-8888-7777-6666-5555555555559999
[[ ! -e none.commit && ! -e a ]] || fail 'a refused command made files'
