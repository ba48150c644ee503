#!/usr/bin/env bash
# What an administrator does: wrong configs, two snapshotters, stops and starts, removal of what is
# in use, metrics.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"

# --check-config needs neither root's folders nor a socket.
check() {
  printf '%s\n' "$1" >checked.json
  "$OBD_SNAPSHOTTER" --config checked.json --check-config
}
check '// a comment
{"root": "/var/lib/overlaybd", /* and another */ "rwMode": "dev"}' >/dev/null
check "$(<"$source_dir/tools/snapshotter/config.example.json")" >/dev/null
expect_fail 1 'rwMode.*"wrong"' check '{"rwMode": "wrong"}'
expect_fail 1 'checked.json.*JSON' check '{"rwMode": '
expect_fail 1 'writableLayerType' check '{"writableLayerType": 7}'
expect_fail 1 'port' check '{"exporterConfig": {"enable": true, "port": 0}}'
expect_fail 1 'rootfsQuota' check '{"rootfsQuota": "much"}'
expect_fail 1 'root' check '{"root": "relative"}'
expect_fail 0 'colour.*no effect' check '{"colour": "blue"}'
expect_fail 1 'nowhere.json' "$OBD_SNAPSHOTTER" --config nowhere.json --check-config
expect_fail 2 'wrong' "$OBD_SNAPSHOTTER" --wrong
"$OBD_SNAPSHOTTER" --version | grep --quiet '^overlaybd-snapshotter [0-9]'
"$OBD_SNAPSHOTTER" --help | grep --quiet 'proxy_plugins'

port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start_both "{\"rwMode\": \"dir\", \"exporterConfig\": {\"enable\": true, \"port\": $port, \"uriPrefix\": \"/figures\"}}"

# One root, one snapshotter; one socket, one snapshotter.
write_config second.json "{\"address\": \"$tmp/second.sock\"}"
expect_fail 1 "another snapshotter uses this root.*$snapshotter_pid" timeout 60 "$OBD_SNAPSHOTTER" --config second.json
write_config third.json "{\"root\": \"$tmp/third\"}"
expect_fail 1 'another process listens there' timeout 60 "$OBD_SNAPSHOTTER" --config third.json
[[ $(stat --format %a "$snapshotter_socket") == 600 ]] || fail 'others may connect'
rm -r third

# In use: refused, and nothing has changed by that.
run_container busy "$layered" 'echo kept >/etc/kept; sync'
mkdir mnt
snapshots mounts "$tmp/mnt" busy >mount.sh
sh -eu mount.sh
# Through containerd, which asks later, see commit.sh.
if [[ -x $client ]]; then
  SOCKET=$snapshotter_socket KEY=$namespace run_client TestRemoveInUse
fi
[[ $(<mnt/etc/kept) == kept ]] || fail 'a refused removal has done harm'
# Its own snapshotter goes and comes meanwhile; a stale socket does not matter.
stop_snapshotter
[[ $(<mnt/etc/kept) == kept ]] || fail 'a disk went with the snapshotter'
start_snapshotter
kill_snapshotter
[[ -S $snapshotter_socket ]] || fail 'the dead snapshotter left no socket'
start_snapshotter
[[ $(<mnt/etc/kept) == kept ]] || fail 'a disk went with the snapshotter'
snapshots mounts "$tmp/mnt" busy >again.sh
expect_same mount.sh again.sh
umount mnt
ctr containers delete busy

# Figures.
figures() { /usr/bin/python3 -c "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:$port/figures', timeout=30).read().decode())"; }
figures >figures.txt
for line in 'overlaybd_snapshotter_requests_total\{method="Mounts",code="OK"\} [1-9]' \
  'overlaybd_snapshotter_snapshots\{kind="[Cc]ommitted"\} [1-9]' 'overlaybd_snapshotter_attached_images [0-9]' \
  'overlaybd_snapshotter_request_duration_seconds_count'; do
  grep --extended-regexp --quiet "^$line" figures.txt || fail "no figure $line in: $(<figures.txt)"
done

# With containers that run, it still ends at once.
start_container long "$layered" 'touch /out/long.started; until [ -e /out/stop ]; do sleep 1; done; echo end >/etc/end'
wait_for 60 test -e out/long.started
begin=$EPOCHSECONDS
stop_snapshotter
((EPOCHSECONDS - begin <= 10)) || fail 'the snapshotter took long to end'
touch out/stop
wait_container long
start_snapshotter
remove_everything
expect_all_gone 'an administrator'
