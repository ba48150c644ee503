#!/usr/bin/env bash
# The host was started again: no process, no mount, no device and nothing in /run is left, only the
# roots of containerd and of the snapshotter. All snapshots are there and work.
# Argument: MODE (dir, dev, overlayfs).

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
mode=$1
start_both "{\"rwMode\": \"$mode\"}"

run_container base "$layered" 'echo committed >/etc/changed; sync'
snapshots commit base.committed base
ctr containers delete base
start_container running "$layered" '
  echo running >/etc/changed; sync; touch /out/running.synced; sleep 1000'
start_container ordinary "$plain" '
  echo ordinary >/etc/changed; sync; touch /out/ordinary.synced; sleep 1000'
for name in running ordinary; do wait_for 60 test -e "out/$name.synced"; done
snapshots prepare over base.committed >/dev/null
snapshots list | awk 'NR > 1' | sort >before

# All at once, as when the power fails. The servers first, so that nobody detaches in order.
pids=$(cut --delimiter=' ' --fields=1 "$state"/*/{supervisor,server,front_end}.pid)
for pid in $pids; do ! is_own "$pid" || kill -KILL "$pid"; done
kill_snapshotter
kill_containerd
end_containers
take_down_all
rm --recursive --force "$state" containerd/state ./*.sock

start_snapshotter
start_containerd
snapshots list | awk 'NR > 1' | sort >after
expect_same before after
expect_look() {
  local name=$1 content=$2
  mkdir -p "$name"
  snapshots mounts "$tmp/$name" "$name" >mount.sh
  sh -eu mount.sh
  [[ $(<"$name/etc/changed") == "$content" ]] || fail "$name has lost what was synced"
  umount "$name"
}
expect_look running running
expect_look ordinary ordinary
expect_look over committed
view seen base.committed
expect_look seen committed

# They go on: committed as they are, and run from.
for name in running ordinary; do
  ctr tasks delete "$name" >>ctr.log 2>&1 || true
  snapshots commit "$name.committed" "$name"
  ctr containers delete "$name"
  snapshots prepare "$name.next" "$name.committed" >/dev/null
  expect_look "$name.next" "$name"
done
# shellcheck disable=SC2016  # for the container's shell
run_container again "$layered" '[ "$(cat /etc/changed)" = second ]'
remove_everything
expect_all_gone 'a reboot'
