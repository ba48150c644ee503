#!/usr/bin/env bash
# An independent reader of the format (test/interop/layer_reader.py) agrees with the engine on every
# disk: those of upstream's tools, and ours in every form.
# shellcheck disable=SC2016
. "$(dirname "$0")/functions.sh"
reader=$source_dir/test/interop/layer_reader.py
fixtures=$source_dir/test/fixtures
requires_command sha256sum
/usr/bin/python3 -c 'import lz4.block, zstandard' ||
  skip 'there is no lz4 or zstandard for Python (scripts/setup.sh --dev)'

# disk_sum IMAGE|LAYER: as the engine reads it, in the reader's words.
disk_sum() {
  obd export "$1" -o engine.raw --force >/dev/null
  printf '%s %s\n' "$(stat --format=%s engine.raw)" "$(sha256sum <engine.raw | cut -d' ' -f1)"
}

# expect_agreement IMAGE|LAYER [LAYER...]: the reader is given all, the engine the first.
expect_agreement() {
  local engine reader_says
  engine=$(disk_sum "$1")
  reader_says=$("$reader" "$@") || fail "the reader refuses $*"
  [[ $engine == "$reader_says" ]] || fail "$1: the engine reads $engine, the reader $reader_says"
}

# --- layers of upstream's tools: the reader itself is right ---

jq --raw-output '.layers[] | [.name, .sha256_of_virtual_disk, .config] | @tsv' \
  "$fixtures/manifest.json" >fixtures.tsv
checked=0
while IFS=$'\t' read -r name sum config; do
  # Sparse fixtures are stored packed; the engine's own tests unpack and read them.
  [[ -e $fixtures/$config && ! -e $fixtures/$name/upper.data.packed &&
    ! -e $fixtures/$name/layer.lsmt.packed ]] || continue
  says=$("$reader" "$fixtures/$config")
  [[ ${says#* } == "$sum" ]] || fail "$name: the reader gives $says, the fixture's sum is $sum"
  checked=$((checked + 1))
done <fixtures.tsv
((checked >= 11)) || fail "only $checked fixtures were read"

# --- ours ---

random_raw part 300K
truncate -s 16M base.raw
patch base.raw $((1 << 20)) part
patch base.raw $((5 << 20)) part
obd import base.raw -o base.lsmt
expect_agreement base.lsmt

for type in append sparse; do
  obd create $type --type $type --lower base.lsmt
  serve $type
  qemu_io "$uri" 'write -P 1 1M 70k' 'write -z 2M 128k' 'write -P 2 1100k 4k' 'discard 5M 256k' \
    'write -P 3 8M 512k' 'write -P 4 5152k 512' 'write -z -u 8256k 64k' 'flush' \
    'write -P 5 9M 3M'
  stop_nbdkit
  expect_agreement $type

  # Every way to store what the upper holds, on top of what is below it.
  disk=$(disk_sum $type)
  n=0
  for how in '' '--tar' '-z lz4' '-z lz4:9 --block-size 512' '-z lz4 --block-size 64K --tar' \
    '-z zstd --block-size 16K' '-z zstd:19 --block-size 1M --tar' '-z zstd --threads 1'; do
    n=$((n + 1))
    # shellcheck disable=SC2086
    obd commit $type -o $type-$n.lsmt $how >/dev/null 2>&1 || fail "obd commit $how"
    says=$("$reader" base.lsmt $type-$n.lsmt) || fail "the reader refuses what commit $how wrote"
    [[ $says == "$disk" ]] || fail "commit $how: $says, not $disk"
    # shellcheck disable=SC2086
    obd merge $type -o $type-all-$n.lsmt $how >/dev/null 2>&1 || fail "obd merge $how"
    expect_agreement $type-all-$n.lsmt
    [[ $(disk_sum $type-all-$n.lsmt) == "$disk" ]] || fail "merge $how changed the disk"
    # shellcheck disable=SC2086
    obd convert $type-1.lsmt -o converted.lsmt --force $how >/dev/null 2>&1 || fail "obd convert $how"
    expect_agreement converted.lsmt
    obd verify converted.lsmt $type-$n.lsmt >/dev/null
  done

  # What changes an image in place.
  obd compact $type >/dev/null
  expect_agreement $type
  [[ $(disk_sum $type) == "$disk" ]] || fail 'compact changed the disk'
  obd clone $type $type-clone >/dev/null
  expect_agreement $type-clone
  [[ $(disk_sum $type-clone) == "$disk" ]] || fail 'the clone is another disk'
  expect_agreement $type
  obd resize $type 24M >/dev/null
  expect_agreement $type
  serve $type
  qemu_io "$uri" 'write -P 6 20M 1M' 'write -z 1M 64k' flush
  stop_nbdkit
  expect_agreement $type
  obd seal $type
  expect_agreement $type
done
