#!/usr/bin/env bash
# SIGKILL, while containers write: to a disk's server, to the snapshotter, to containerd. No container
# sees an error, no operation is left half done. Argument: MODE (dir, dev, overlayfs).

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
mode=$1
start_both "{\"rwMode\": \"$mode\"}"

# Each file is complete before the next begins; the numbers written so far are in out/NAME.
# shellcheck disable=SC2016  # for the container's shell
writer='
  i=0
  until [ -e /out/stop ]; do
    i=$((i + 1))
    dd if=/dev/urandom of=/root/file$i bs=64k count=4 2>/dev/null
    sync /root/file$i
    sha256sum /root/file$i >>/root/sums
    sha256sum /etc/large >/dev/null
    echo $i
  done
  sync
  sha256sum -c /root/sums | tail -n 1'
for name in one two; do start_container "$name" "$layered" "$writer"; done

written() { tail -n 1 "out/$1" 2>/dev/null | grep '^[0-9]*$' || echo 0; }
has_written() { (($(written "$1") >= $2)); }
# Both have written more than they had.
expect_progress() {
  local name
  for name in one two; do wait_for 60 has_written "$name" $(($(written "$name") + 2)); done
}
expect_progress

# Servers of disks, one after the other.
server_pids() { cut --delimiter=' ' --fields=1 "$state"/*/server.pid; }
(($(server_pids | wc -l) >= 1)) || fail 'there is no server'
for pid in $(server_pids); do
  kill -KILL "$pid"
  expect_progress
done

# The snapshotter: containers run on without it, and the next one knows them.
kill_snapshotter
expect_progress
start_snapshotter
expect_progress
snapshots info one >info.json
expect_json info.json '.Kind == "Active"'
run_container three "$plain" 'echo hello'

# containerd.
kill_containerd
expect_progress
start_containerd
(($(ctr tasks list | grep --count RUNNING) == 2)) || fail "tasks: $(ctr tasks list)"
remove_container three

# Both at once, and a server at the same time.
kill_snapshotter
kill_containerd
kill -KILL "$(server_pids | head -n 1)"
expect_progress
start_snapshotter
start_containerd

touch out/stop
for name in one two; do
  wait_container "$name"
  tail -n 1 "out/$name" | grep --quiet ': OK$' || fail "$name lost something: $(tail -n 1 "out/$name")"
  wait_for 60 is_stopped "$name"
  remove_container "$name"
done

# The snapshotter dies in the middle of operations, again and again. Whatever a client was told is
# so, and the rest is as if it had not begun, or is finished.
base=$(snapshots list | awk '
  $3 == "Committed" { leaves[$1] }
  { parents[$2] }
  END { for (key in leaves) if (!(key in parents)) { print key; exit } }')
[[ -n $base ]] || fail "no unpacked image: $(snapshots list)"
churn() {
  local i
  for ((i = 0; ; ++i)); do
    echo "churn$1.$i" >>"tried.$1"
    snapshots prepare "churn$1.$i" "$base" && echo "prepared churn$1.$i" >>"made.$1"
    snapshots commit "commit$1.$i" "churn$1.$i" && echo "committed commit$1.$i" >>"made.$1"
    [[ -e stop_churn ]] && return
    sleep 0.1
  done >/dev/null 2>&1
}
RANDOM=${OBD_SEED:=$((EPOCHSECONDS % 32768))}
printf 'OBD_SEED=%s\n' "$OBD_SEED"
churn 1 &
first=$!
churn 2 &
second=$!
for ((i = 0; i < 4; ++i)); do
  sleep "$((RANDOM % 2)).$((RANDOM % 10))"
  kill_snapshotter
  start_snapshotter
done
touch stop_churn
wait "$first" "$second" || true
sed --silent 's/^committed //p' made.1 made.2 >promised
[[ -s promised ]] || fail 'nothing was committed'
snapshots list | awk 'NR > 1 { print $1, $3 }' >there
while read -r key; do
  grep --quiet --line-regexp "$key Committed" there || fail "$key was committed and is not there"
done <promised
# The last that was committed can be used.
snapshots prepare last "$(tail -n 1 promised)" >/dev/null
mkdir last
snapshots mounts "$tmp/last" last >mount.sh
sh -eu mount.sh
[[ $(<last/etc/changed) == second ]] || fail 'what was committed is not readable'
umount last
# A commit that was carried out, but whose answer containerd never got, leaves a name in containerd's own
# database that it neither lists nor collects.
while read -r key; do snapshots remove "$key" >/dev/null 2>&1 || true; done < <(tail --quiet --lines 1000 tried.1 tried.2)
remove_everything
expect_all_gone 'killing everybody'
