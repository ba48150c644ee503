#!/usr/bin/env bash
# overlaybd-resize: the disk and the ext4 on it, with files in it, grow and shrink; what is refused
# changes nothing; killed anywhere, the same command finishes it: overlaybd_resize.sh append|sparse
# Environment: OBD_KILL_SECONDS (15), how long to go on killing; OBD_SEED repeats a run.
seconds=${OBD_KILL_SECONDS:-15}
# shellcheck disable=SC2034
time_limit=$((seconds + 185))
. "$(dirname "$0")/functions.sh"
type=$1
requires_command mkfs.ext4 e2fsck resize2fs dumpe2fs debugfs strace
bin=$(dirname "$OBD_TOOL")
resize() { "$bin/overlaybd-resize" --config "$1/config.v1.json" --size "$2"; }

# resized IMAGE GB: it must succeed, and say so as overlaybd's does.
resized() {
  local said
  said=$(resize "$1" "$2" 2>resize.log) || fail "overlaybd-resize $1 $2 failed"
  grep --extended-regexp --quiet "^Success: filesystem resized to $2 GB \([0-9.]+ seconds\)$" \
    <<<"$said" || fail "overlaybd-resize said: $said"
}

# expect_files IMAGE GB: a disk of that size, an ext4 without fault that fills it, all files right.
expect_files() {
  local blocks size
  obd export "$1" -o out.raw --force >/dev/null
  size=$(stat --format=%s out.raw)
  ((size == $2 << 30)) || fail "the disk of $1 has $size bytes"
  e2fsck -f -n out.raw >e2fsck.log 2>&1 || fail "the file system of $1 is not clean"
  blocks=$(dumpe2fs -h out.raw 2>/dev/null | sed -n 's/^Block count: *//p')
  ((blocks == $2 << 18)) || fail "the file system of $1 has $blocks blocks"
  rm -rf found && mkdir found
  debugfs -R 'rdump / found' out.raw >debugfs.log 2>&1
  rm -rf found/lost+found
  diff -r files found || fail "the files of $1 are not what they were"
  obd check "$1" >check.log || fail "obd check $1: $(<check.log)"
  [[ -z $(find "$1" -name '*.update') ]] || fail "an update is left in $1"
}

# What a write to one of the files would change; reading a large sparse file takes long.
untouched() { stat --format='%n %i %s %b %y %z' "$@"; }

# make_image IMAGE MKFS-OPTION...: an ext4 of 1 GB with the files, half of them in the upper.
make_image() {
  local image=$1
  shift
  rm -f base.raw
  mkfs.ext4 -q -F "$@" -d lower_files base.raw 1G
  obd import base.raw -o "$image.lsmt" >/dev/null
  obd create "$image" --type "$type" --lower "$image.lsmt" >/dev/null
  debugfs -w -R 'write files/upper upper' base.raw >debugfs.log 2>&1
  debugfs -w -R 'rm gone' base.raw >>debugfs.log 2>&1
  serve "$image"
  nbdcopy base.raw "$uri"
  stop_nbdkit
}

mkdir lower_files
cp -r "$source_dir/core" "$source_dir/docs" lower_files
random_raw lower_files/random 12M
random_raw lower_files/gone 3M
cp -r lower_files files
rm files/gone
random_raw files/upper 5M

# --- there and back, with a journal and as a snapshotter makes a first layer ---

make_image disk
cp -a disk template
make_image plain -O ^has_journal,sparse_super,flex_bg -G 1
expect_files disk 1
for image in disk plain; do
  resized "$image" 3
  expect_files "$image" 3
  resized "$image" 2
  expect_files "$image" 2
  resized "$image" 2
  resized "$image" 1
  expect_files "$image" 1
done
# A disk that has grown alone, and is named by a link.
ln -s disk link
obd resize disk 2G >/dev/null
resized link 2
expect_files disk 2

# --- what is refused changes nothing ---

untouched disk/* >before
expect_fail 106 'config' "$bin/overlaybd-resize" --size 3
expect_fail 1 'size' resize disk 0
mkdir sealed
jq --arg file "$tmp/disk.lsmt" '{lowers: [{file: $file}]}' disk/config.v1.json >sealed/config.v1.json
expect_fail 1 'no upper' resize sealed 3
serve disk
expect_fail 1 "process $nbdkit_pid" resize disk 3
stop_nbdkit
untouched disk/* >after
diff before after

# A shrink for which there is too much in the file system.
obd export disk -o full.raw >/dev/null
debugfs -w -R 'write /dev/null big' full.raw >debugfs.log 2>&1
debugfs -w -R 'fallocate big 0 330000' full.raw >>debugfs.log 2>&1
serve disk
nbdcopy full.raw "$uri"
stop_nbdkit
untouched disk/* >before
expect_fail 1 'resize2fs failed .*nothing has been changed' resize disk 1
untouched disk/* >after
diff before after
grep -q 'smaller than minimum' <<<"$said" || fail "resize2fs is not to be heard: $said"

# A file system that is damaged.
cp -a disk damaged
obd export damaged -o damaged.raw >/dev/null
debugfs -w -R 'clri <2>' damaged.raw >debugfs.log 2>&1
serve damaged
nbdcopy damaged.raw "$uri"
stop_nbdkit
expect_fail 1 'e2fsck failed .*nothing has been changed' resize damaged 3

# No ext4 at all.
obd create other --type "$type" --size 1G >/dev/null
expect_fail 1 'no ext2, ext3 or ext4' resize other 2
serve other
qemu_io "$uri" 'write -P 7 0 64k'
stop_nbdkit
expect_fail 1 'no ext2, ext3 or ext4' resize other 2

# Data behind the file system: on a disk that has grown, or that the guest's file system has left.
cp -a disk behind
obd resize behind 3G >/dev/null
serve behind
qemu_io "$uri" 'write -P 7 2560M 4k'
stop_nbdkit
untouched behind/* >before
for gb in 1 3 4; do
  expect_fail 1 'the file system ends at byte 2147483648 .*data behind it.*blkdiscard' resize behind $gb
done
untouched behind/* >after
diff before after
serve behind
qemu_io "$uri" 'discard 2G 1G'
stop_nbdkit
resized behind 3

# A second one while the first is at work.
mkdir slow
printf '#!/bin/sh\ntouch begun\nwhile [ ! -e go ]; do sleep 0.05; done\nexec %s "$@"\n' \
  "$(command -v e2fsck)" >slow/e2fsck
chmod +x slow/e2fsck
untouched disk/writable_data disk/writable_index >before
PATH=$tmp/slow:$PATH resize disk 3 >first.log 2>&1 &
first=$!
cleanup_fn touch go
wait_until $first test -e begun || fail 'the first does not begin'
untouched disk/writable_data disk/writable_index >after
diff before after
expect_fail 1 'process [0-9]+' resize disk 4
touch go
wait $first || fail "the first failed: $(<first.log)"
[[ $(obd info --json disk | jq .virtual_size) == $((3 << 30)) ]] || fail 'not the size of the first'

# Somebody's file where the update is to be.
echo mine >disk/writable_data.update
expect_fail 1 'writable_data.update: .*move it away' resize disk 2
[[ $(<disk/writable_data.update) == mine ]] || fail 'it was changed'
rm -r disk damaged other behind

# --- killed ---

# `size` is the new one; the image is in disk/.
prepare() {
  rm -rf disk
  cp -a "template.$1" disk
  size=$((4 - $1))
}
cp -a template template.1
cp -a template template.3
resized template.3 3

# What changes files. Only the command itself is killed, not what it runs.
calls='pwrite64,ftruncate,fallocate,fsync,fdatasync,renameat2,?rename,?unlink'
strace -qq -o strace.out -e trace="$calls" true || skip 'strace is not allowed to trace'
traced() {
  strace -qq -y -o calls -e trace="$calls" "$@" "$bin/overlaybd-resize" \
    --config disk/config.v1.json --size "$size" >run.log 2>&1
}
# kill_before LINE of calls.$from
kill_before() {
  local name nth
  name=$(sed -n "$1s/(.*//p" "calls.$from")
  nth=$(head -n "$1" "calls.$from" | grep -c "^$name(" || true)
  what="from $from GB, killed before $name number $nth"
  ! { traced -e "inject=$name:signal=KILL:when=$nth"; } 2>/dev/null || fail "$what: it was not"
}
finish() {
  resize disk "$size" >run.log 2>&1 || fail "$what: the second run failed: $(<run.log)"
  expect_files disk "$size"
}

for from in 1 3; do
  prepare $from
  traced || fail "not resized: $(<run.log)"
  expect_files disk "$size"
  mv calls calls.$from
done

# In the middle of applying, nobody gets at the image, and all say how to go on.
for from in 1 3; do
  prepare $from
  last=$(grep -n '^unlink.*writable_data.update"' calls.$from | cut -d: -f1)
  write=$(head -n "$last" calls.$from | grep -n '^pwrite64([0-9]*<[^>]*/writable_data>' |
    tail -n 1 | cut -d: -f1)
  kill_before "$write"
  pending='overlaybd-resize --config CONFIG --size GB.*writable_data\.update'
  expect_fail 1 "$pending" obd info disk
  expect_fail 1 "$pending" obd info -U disk
  expect_fail 1 "$pending" obd check disk
  expect_fail 1 "$pending" obd resize disk 9G
  expect_fail 1 "$pending" obd seal disk
  expect_fail 1 "$pending" obd merge disk --range 0..0 --replace -o out.lsmt
  expect_fail 1 "$pending" obd commit disk -o out.lsmt
  expect_fail 255 "$pending" "$bin/overlaybd-commit" disk/writable_data disk/writable_index out.lsmt
  expect_fail 255 "$pending" "$bin/overlaybd-commit" --seal disk/writable_data disk/writable_index
  expect_fail 1 "$pending" nbdkit --foreground --unix - "$OBD_PLUGIN" disk/config.v1.json --run true
  mv disk/writable_data.update away
  expect_fail 1 'writable_data.update: is missing' resize disk "$size"
  mv away disk/writable_data.update
  [[ ! -e out.lsmt ]] || fail 'a refused command made a file'
  finish
  grep -q 'warning: finished' run.log || fail "nothing was finished: $(<run.log)"
done

seed=${OBD_SEED:-$((RANDOM * 100 + 1))}
echo "seed $seed (OBD_SEED=$seed repeats this run)"
RANDOM=$seed
end=$((SECONDS + seconds))
pending=0
for ((rounds = 0; SECONDS < end; ++rounds)); do
  from=$((RANDOM % 2 * 2 + 1))
  prepare $from
  # Before any call of those after the update has been written; sometimes of all.
  first=$(grep -n '^rename.*writable_data.update"' calls.$from | cut -d: -f1)
  ((RANDOM % 4)) || first=1
  kill_before $((first + RANDOM % ($(wc -l <calls.$from) + 1 - first)))
  # The copy of the disk that e2fsck and resize2fs work on has gone with its owner.
  find disk -name 'writable_data.tmp-*' -size +0 | grep . && fail "$what: the copy is left"
  echo "$what"
  if obd info disk >info.log 2>&1; then
    obd export disk -o out.raw --force >/dev/null
    e2fsck -f -n out.raw >e2fsck.log 2>&1 || fail "$what: the file system is not clean"
  else
    grep -q 'writable_data.update' info.log || fail "$what: $(<info.log)"
    ((++pending))
  fi
  finish
done
echo "$pending of $rounds left the image to be finished"
