#!/usr/bin/env bash
# The commands of docs/containerd.md that can run on any host work when they are pasted one after the
# other. There is no network and no systemd: what would be pulled is the test's own image, and
# `systemctl restart` is done by a script.

own_mounts=yes
# shellcheck source=test/e2e/functions.sh
. "$(dirname "$0")/../e2e/functions.sh"
# shellcheck source=test/containerd/functions.sh
. "$source_dir/test/containerd/functions.sh"
requires_command curl
make_images

# The folders that the page names are this test's, which nobody else sees.
mkdir run lib etc etc.work
for folder in run lib; do mount --bind "$folder" "/${folder/lib/var/lib}"; done
mount --types overlay --options "lowerdir=/etc,upperdir=$tmp/etc,workdir=$tmp/etc.work" overlay /etc
rm --recursive --force /etc/containerd /etc/overlaybd-snapshotter
mkdir -p /mnt/next
cleanup_fn umount --lazy /etc /run /var/lib
root=/var/lib/overlaybd

mkdir bin
ln --symbolic "$OBD_TOOL" bin/obd
cat >bin/obd-mount <<SCRIPT
#!/bin/sh
exec '$OBD_MOUNT' "\$@" --state-dir '$state'
SCRIPT
# The page's config, and what makes it run here.
cat >bin/overlaybd-snapshotter <<SCRIPT
#!/bin/sh
jq '. + {stateDir: "$state", plugin: "$OBD_PLUGIN", backend: "fuse"}' \
  /etc/overlaybd-snapshotter/config.json >'$tmp/snapshotter.json'
exec '$OBD_SNAPSHOTTER' --config '$tmp/snapshotter.json' "\$@"
SCRIPT
cat >bin/systemctl <<SCRIPT
#!/bin/bash
[[ "\$*" == 'restart overlaybd-snapshotter containerd' ]] || exit 1
overlaybd-snapshotter >>'$tmp/snapshotter.log' 2>&1 &
echo \$! >'$tmp/snapshotter.pid'
containerd >>'$tmp/containerd.log' 2>&1 &
for i in {1..600}; do
  grep --quiet ' serves ' '$tmp/snapshotter.log' && '$(type -P ctr)' namespaces list >/dev/null 2>&1 && exit
  sleep 0.1
done
exit 1
SCRIPT
cat >bin/ctr <<SCRIPT
#!/bin/bash
ctr='$(type -P ctr)'
if [[ "\$*" == *'images pull'* ]]; then
  "\$ctr" images import --no-unpack '$images/plain.tar' && exec "\$ctr" images tag '$plain' "\${!#}"
fi
exec "\$ctr" "\$@"
SCRIPT
cat >bin/skopeo <<SCRIPT
#!/bin/bash
[[ "\$1 \$2" == 'copy docker://'* ]] || exit 1
exec '$(type -P skopeo)' --insecure-policy copy 'oci-archive:$images/plain.tar' "\$3"
SCRIPT
chmod +x bin/*
export PATH=$tmp/bin:$PATH CONTAINERD_ADDRESS=/run/containerd/containerd.sock CONTAINERD_NAMESPACE=$namespace
ctr() { bin/ctr "$@"; }

awk '/^<!-- run -->$/ { run = 1; next } /^[^ ]/ { run = 0 } run' "$source_dir/docs/containerd.md" |
  sed 's/^    //' >commands
(($(grep --count . commands) >= 40)) || fail 'docs/containerd.md has hardly any commands'
bash -eux -o pipefail commands </dev/null >doc.log 2>&1 || fail 'a command of docs/containerd.md failed'
snapshotter_pid=$(<snapshotter.pid)
grep --quiet '^built$' doc.log || fail 'what was committed is not there'
grep --quiet '^overlaybd_snapshotter_snapshots' doc.log || fail 'there are no figures'
remove_everything
all_are_removed() { [[ -z $(find "$root/snapshots" -mindepth 1) ]]; }
wait_for 60 all_are_removed
kill "$snapshotter_pid"
wait_for 20 is_dead "$snapshotter_pid"
umount --lazy /etc /run /var/lib
expect_all_gone 'the commands of docs/containerd.md'
