#!/usr/bin/env bash
# Everything that `ctr snapshots` can do, on a container's snapshot and on what is made of it.
# Argument: MODE (dir, dev, overlayfs).

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
mode=$1
start_both "{\"rwMode\": \"$mode\"}"

run_container first "$layered" '
  echo container >/etc/changed
  rm /etc/first
  head -c 3145728 /dev/urandom >/etc/data
  sha256sum </etc/data >/etc/data.sum
  sync'

# Where ctr says that a snapshot is to be mounted, it is.
mount_snapshot() {
  mkdir -p "$2"
  snapshots mounts "$tmp/$2" "$1" >mount.sh
  grep --quiet '^mount ' mount.sh || fail "no mount commands for $1: $(<mount.sh)"
  sh -eu mount.sh
}

# info, list, label.
snapshots info first >info.json
expect_json info.json '.Kind == "Active"' '.Name == "first"' '.Parent | startswith("sha256:")' \
  '.Created <= .Updated'
snapshots label first team=blue empty=
snapshots info first >info.json
expect_json info.json '.Labels.team == "blue"' '.Labels | has("empty") | not'
snapshots label first team=
snapshots info first >info.json
expect_json info.json '.Labels // {} | has("team") | not'
snapshots list >listed
grep --extended-regexp --quiet '^first +sha256:[0-9a-f]+ +Active' listed || fail "list: $(<listed)"

# usage grows with what is written, and is about that.
usage_of() { snapshots usage -b "$1" | awk -v key="$1" '$1 == key { print $2 }'; }
used=$(usage_of first)
((used > 3 << 20 && used < 64 << 20)) || fail "usage of a container that wrote 3 MiB: $used"

# commit, and a container's life goes on from there: twice, as its own.
snapshots commit committed first
ctr containers delete first
snapshots info committed >info.json
expect_json info.json '.Kind == "Committed"'
if [[ $mode != overlayfs ]]; then
  expect_json info.json \
    '.Labels["containerd.io/snapshot/overlaybd.localcommitpath"] | startswith("/")'
  obd verify "$(jq --raw-output '.Labels["containerd.io/snapshot/overlaybd.localcommitpath"]' info.json)" >/dev/null
fi
for name in second third; do
  snapshots prepare "$name" committed >/dev/null
  mount_snapshot "$name" "$name"
  [[ $(<"$name/etc/changed") == container && ! -e $name/etc/first ]] || fail 'what was committed is lost'
  # Its own processes, on that root.
  ctr run --rootfs --null-io --env "OBD_E2E_FOLDER=$tmp" "$tmp/$name" "$name" /bin/sh -c \
    "[ \"\$(sha256sum </etc/data)\" = \"\$(cat /etc/data.sum)\" ] && echo $name >/etc/who && sync" >>ctr.log 2>&1
  [[ $(<"$name/etc/who") == "$name" ]] || fail "the container on the committed snapshot failed"
  ctr containers delete "$name"
done

# In use: neither a parent nor what is mounted goes.
expect_fail 1 'committed' snapshots remove committed
# Containerd forgets the name at once, and asks for the removal again and again until it is done.
snapshots prepare doomed committed >/dev/null
mount_snapshot doomed doomed
snapshots remove doomed
[[ $(<doomed/etc/changed) == container ]] || fail 'a snapshot went away while it was mounted'
umount doomed second third

# view, tree, and a second generation.
view seen committed
mount_snapshot seen seen
[[ $(<seen/etc/changed) == container ]] || fail 'a view does not show what was committed'
expect_fail 1 'Read-only' touch seen/etc/touched
umount seen
snapshots tree >shown
grep --quiet second shown || fail "tree: $(<shown)"
snapshots commit committed2 third
view seen2 committed2
mount_snapshot seen2 seen2
[[ $(<seen2/etc/who) == third && $(<seen2/etc/changed) == container ]] || fail 'the second commit lost something'
umount seen2

# A virtual machine opens the device, and nothing else is to write to its disk.
if [[ $mode == dev ]]; then
  snapshots prepare machine committed >/dev/null
  snapshots mounts "$tmp/machine" machine >mount.sh
  grep --quiet 'errors=remount-ro' mount.sh || fail "a disk may stop the host: $(<mount.sh)"
  device=$(grep --only-matching '/dev/[a-z0-9]*' mount.sh | head -n 1)
  exec {raw}<>"$device"
  expect_fail 1 'in use' snapshots commit machine.committed machine
  exec {raw}>&-
  snapshots commit machine.committed machine
  snapshots remove machine.committed
fi

# What does not exist, and what there is already.
expect_fail 1 'not found|does not exist' snapshots info nothing
expect_fail 1 'already exists' snapshots prepare second committed
expect_fail 1 'not found|does not exist' snapshots prepare fourth nothing
expect_fail 1 'not committed|not a committed|parent' snapshots prepare fourth second

for name in seen2 committed2 seen second; do snapshots remove "$name"; done
expect_fail 1 'not found|does not exist' snapshots remove second
remove_everything
expect_all_gone 'removing everything'
