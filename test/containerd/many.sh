#!/usr/bin/env bash
# Many containers at once, each with its own data, that all start, write, and are all removed.
# Arguments: MODE (dir, dev, overlayfs), NUMBER.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
mode=$1 number=$2
start_both "{\"rwMode\": \"$mode\", \"verbose\": \"info\"}"

# The image is unpacked once.
run_container warm "$layered" true
ctr containers delete warm

begin() {
  start_container "many$1" "$layered" "
    [ \"\$(sha256sum </etc/large)\" = \"\$(cat /etc/large.sum)\" ]
    echo $1 >/etc/changed
    head -c 1048576 /dev/urandom >/etc/own
    sync
    touch /out/many$1.ready
    until [ -e /out/go ]; do sleep 1; done
    [ \"\$(cat /etc/changed)\" = $1 ]"
}
pids=()
for ((i = 0; i < number; ++i)); do
  begin "$i" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail 'a container did not start'; done
all() { (($(find out -name "many*.$1" | wc -l) == number)); }
wait_for 60 all ready
# All at the same time.
(($(ctr tasks list | grep --count RUNNING) == number)) || fail 'not all containers run at once'
touch out/go
wait_for 60 all "done"
for ((i = 0; i < number; ++i)); do
  { wait_for 60 is_stopped "many$i" && remove_container "many$i"; } &
done
wait %- 2>/dev/null || true
for job in $(jobs -p); do
  [[ $job == "$containerd_pid" || $job == "$snapshotter_pid" ]] || wait "$job"
done
remove_everything
expect_all_gone "$number containers"
