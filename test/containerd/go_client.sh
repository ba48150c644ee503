#!/usr/bin/env bash
# Clients in Go: the program of docs/containerd.md, labels, and hostile requests.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
requires_client

# What the page shows is what is run here.
awk '/^```go$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$source_dir/docs/containerd.md" >shown.go
awk '/^\/\/ end docs/ { exit } inside; /^\/\/ begin docs/ { inside = 1 }' \
  "$source_dir/test/containerd/client/run_container.go" | sed --expression '1d' --expression '$d' >run.go
expect_same run.go shown.go

start_both '{"rwMode": "overlayfs"}'
export ADDRESS=$tmp/containerd.sock NAMESPACE=$namespace IMAGE
for IMAGE in "$layered" "$plain"; do
  run_client 'TestRunContainer|TestLabels'
done
unset ADDRESS
remove_everything
expect_all_gone 'clients in Go'

# Without containerd, which takes snapshots that it has not made for garbage.
kill_containerd
stop_snapshotter
mkdir inside
for mode in overlayfs dir; do
  start_snapshotter "{\"rwMode\": \"$mode\", \"root\": \"$tmp/inside/root.$mode\"}"
  ROOT=$tmp/inside/root.$mode SOCKET=$snapshotter_socket run_client 'TestHostile|TestRaces'
  kill -0 "$snapshotter_pid" || fail 'the snapshotter is dead'
  stop_snapshotter
  expect_nothing_left 'hostile clients'
done
