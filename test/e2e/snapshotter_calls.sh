#!/usr/bin/env bash
# The commands of docs/snapshotter.md, as they stand there, through a snapshot's whole life.
# Arguments: MODE (dir, dev, overlayfs), TYPE of the writable layers.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=test/e2e/mount_functions.sh
. "$source_dir/test/e2e/mount_functions.sh"
mode=$1
export TYPE=$2 SIZE=4G ROOT=$tmp/root
[[ $mode != overlayfs || $(stat --file-system --format %T .) != overlayfs ]] ||
  skip 'the folder for temporary files is on an overlay, which cannot hold an upper folder'

# What the commands find in the path: the programs under test, and obd-mount with this test's state.
mkdir bin
ln --symbolic "$OBD_TOOL" "$OBD_BUILD_DIR"/bin/overlaybd-{create,commit} bin
cat >bin/obd-mount <<SCRIPT
#!/bin/sh
case \$1 in dir | dev) set -- "\$@" --backend fuse ;; esac
exec '$OBD_MOUNT' "\$@" --state-dir '$state'
SCRIPT
chmod +x bin/obd-mount

# commands NAME...: those of the document's blocks with these names, one after the other.
commands() {
  local name found
  for name in "$@"; do
    found=$(awk -v mark="<!-- run: $name -->" '
      $0 == mark { wanted = 1 }
      /^```$/ && inside { inside = wanted = 0 }
      inside
      /^```sh$/ && wanted { inside = 1 }' "$source_dir/docs/snapshotter.md")
    [[ -n $found ]] || fail "docs/snapshotter.md has no commands named '$name'"
    printf '%s\n' "$found"
  done
}

# run ID NAME...: the commands of these names, for a snapshot; what they print is left in said.out.
run() {
  local id=$1
  shift
  commands "$@" >commands.sh
  ID=$id PATH=$tmp/bin:$PATH sh -eu commands.sh >said.out || fail "$* of $id ended with $?"
}

# enter ID NAME...: Mounts, twice, as they must print the same; and what containerd does with that,
# on the folder `rootfs`.
enter() {
  local type source options
  run "$@"
  mv said.out first.out
  run "$@"
  expect_same first.out said.out
  expect_json said.out 'length == 1' '.[0] | keys == ["options", "source", "type"]'
  type=$(jq --raw-output '.[0].type' said.out)
  source=$(jq --raw-output '.[0].source' said.out)
  options=$(jq --raw-output '.[0].options | join(",")' said.out)
  [[ $type != bind ]] || type=none
  mount --types "$type" --options "$options" "$source" rootfs
}

leave() { umount rootfs; }

# In mode overlayfs images are unpacked as in mode dir.
suffix='' block_mode=$mode
[[ $mode != overlayfs ]] || suffix=' overlayfs' block_mode=dir

enter_container() {
  case $mode in
    overlayfs) enter "$1" 'lowers overlayfs' 'mounts overlayfs' ;;
    *) enter "$1" "mounts $mode" ;;
  esac
}

# The same for a View.
see() {
  case $mode in
    overlayfs) enter "$1" 'lowers overlayfs' 'view overlayfs' ;;
    *) enter "$1" "view $mode" ;;
  esac
}

mkdir rootfs
mkdir -p "$ROOT/snapshots"

# A base from nothing.
run base 'prepare first'
expect_nothing_left 'Prepare'
enter base "mounts $block_mode"
mkdir rootfs/etc
random_raw rootfs/etc/large 8M
echo base >rootfs/etc/release
cp -r rootfs/etc expected
leave
run base commit
run base commit
expect_nothing_left 'Commit'
[[ ! -e $ROOT/snapshots/base/block/writable_index ]] || fail 'the base is not sealed'
run base push
obd verify "$ROOT/snapshots/base/block/overlaybd.commit" >/dev/null

# A container over it: it changes a file, adds one, removes one.
export PARENT=base PARENTS=base
run container "prepare$suffix"
enter_container container
diff -r expected rootfs/etc
echo container >rootfs/etc/release
echo new >rootfs/etc/new
rm rootfs/etc/large
# A second one beside it sees none of that.
leave
run other "prepare$suffix"
enter_container other
diff -r expected rootfs/etc
# In use: refused, and still there afterwards.
in_use=other
[[ $mode != overlayfs ]] || in_use=base
commands remove >commands.sh
expect_fail 1 'in use' env ID=$in_use PATH="$tmp/bin:$PATH" sh -eu commands.sh
diff -r expected rootfs/etc
leave
run other remove
enter_container container
[[ $(cat rootfs/etc/release) == container ]] || fail 'the container lost its file'
leave
run container "commit$suffix"
run container "commit$suffix"

# What was committed, seen twice at once; and the base is what it was.
export PARENT=container PARENTS='container base'
run view "prepare$suffix"
run view2 "prepare$suffix"
for id in view view2; do
  see $id
  [[ $(cat rootfs/etc/release) == container && $(cat rootfs/etc/new) == new ]] ||
    fail "$id does not show what was committed"
  [[ ! -e rootfs/etc/large ]] || fail "$id shows a file that was removed"
  expect_fail 1 'Read-only' touch rootfs/etc/touched
  leave
done
run view2 remove
see view
leave
export PARENT=base PARENTS=base
run base_view "prepare$suffix"
see base_view
diff -r expected rootfs/etc
leave

for id in base_view view container base; do
  run $id remove
  run $id remove
done
[[ -z $(find "$ROOT" -mindepth 2) ]] || fail "left in the root: $(find "$ROOT" -mindepth 2)"
expect_nothing_left 'removing everything'

[[ $mode != overlayfs ]] || exit 0

# The host goes down while a container runs: what it finds is a copy of the image, made while its
# server stands still. Commit leaves a file system that can be mounted read-only.
run crashed 'prepare first'
block=$ROOT/snapshots/crashed/block
enter crashed "mounts $mode"
echo flushed >rootfs/file
sync rootfs/file
server=$(pid_of server)
kill -STOP "$server"
mkdir found
cp "$block"/{config.v1.json,writable_data,writable_index} found
kill -CONT "$server"
leave
obd_mount_admin umount "$block"
mv found/* "$block"

# This Commit dies when the layer is sealed and the config does not say so yet.
rm bin/obd
cat >bin/obd <<SCRIPT
#!/bin/sh
cp '$block/config.v1.json' '$block/writable_index' found
'$OBD_TOOL' "\$@" && mv found/* '$block'
exit 1
SCRIPT
chmod +x bin/obd
commands commit >commands.sh
expect_fail 1 'sealed' env ID=crashed PATH="$tmp/bin:$PATH" sh -eu commands.sh
ln --symbolic --force "$OBD_TOOL" bin/obd
run crashed commit
run crashed commit
export PARENT=crashed
run view prepare
see view
[[ $(cat rootfs/file) == flushed ]] || fail 'what was flushed before the crash is lost'
leave
run view remove
run crashed remove
expect_nothing_left 'a crash'

# The same with overlaybd's commands.
export LOWERS='[]'
run base 'overlaybd prepare'
enter base "mounts $mode"
cp -r expected rootfs/etc
leave
run base 'overlaybd commit'
LOWERS=$(jq --compact-output .lowers "$ROOT/snapshots/base/block/config.v1.json")
run view 'overlaybd prepare'
see view
diff -r expected rootfs/etc
leave
run view remove
run base remove
expect_nothing_left "overlaybd's commands"
